//! The process's own side: the body of the hidden command `neurino check-pictures`.

use std::io::{self, Read, Write};

use super::wire;

/// Memory that it may take beyond what its program has taken by itself, in bytes. Comparing two pictures of
/// the largest size takes a third of that.
const MEMORY: u64 = 384 << 20;
/// Time it may compute in its life, in seconds; the coordinator replaces it long before.
const COMPUTING_SECS: u64 = 300;

/// Answers questions from standard input on standard output until the input closes. Nothing that a stranger
/// made is read before the process has bounded itself. Call it before any thread is started.
///
/// # Errors
/// Limits that cannot be set, and pipes that break.
pub fn run() -> io::Result<()> {
    run_with(|_| {})
}

/// The same, and `before` is told the width of each first picture: how tests make it fail.
///
/// # Errors
/// As [`run`].
#[doc(hidden)]
pub fn run_with(before: impl FnMut(u32)) -> io::Result<()> {
    bound()?;
    serve(&mut io::stdin().lock(), &mut io::stdout().lock(), before)
}

pub(super) fn serve(
    input: &mut impl Read,
    output: &mut impl Write,
    mut before: impl FnMut(u32),
) -> io::Result<()> {
    output.write_all(&wire::GREETING)?;
    output.flush()?;
    while let Some(question) = wire::read_question(input)? {
        before(question.width());
        output.write_all(&wire::answer(&question.answer())?)?;
        output.flush()?;
    }
    Ok(())
}

impl super::Question {
    fn width(&self) -> u32 {
        match self {
            Self::Facts { picture, .. } | Self::Compare { first: picture, .. } => picture.width,
            Self::Preview { asked, .. } => asked.0,
        }
    }
}

/// Takes from this process what reading pictures does not need, for good: other files, other processes,
/// files of its own, and on Linux more memory. Elsewhere an address space has no useful bound; there the
/// reader's own bounds must do.
#[cfg(unix)]
fn bound() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let own = own_memory();
    let limit = |resource: Resource, most: u64| {
        // Never above what it was given.
        let most = getrlimit(resource).maximum.map_or(most, |given| given.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    };
    if let Some(own) = own {
        limit(Resource::As, own + MEMORY)?;
    }
    limit(Resource::Cpu, COMPUTING_SECS)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nproc, 0)?;
    // The pipes are open, and nothing else ever is.
    limit(Resource::Nofile, 0)?;
    // Whoever cannot work so is to say so before a picture is blamed.
    let mut enough: Vec<u8> = Vec::new();
    enough.try_reserve_exact((MEMORY / 2) as usize).map_err(io::Error::other)
}

/// What this process takes of its address space, in bytes, where that can be told.
#[cfg(unix)]
fn own_memory() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Here the coordinator's limits of time, and the reader's own bounds, must do.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail on the other systems")]
fn bound() -> io::Result<()> {
    let _ = (MEMORY, COMPUTING_SECS);
    Ok(())
}
