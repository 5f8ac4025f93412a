//! The memory of the program in the tray: few arenas for its threads, and what the window used is given
//! back when it goes: free memory of the allocator, and the code of the window's libraries, which stays
//! mapped for the next window and comes back from its files where it is needed.

/// Arenas of the allocator: each thread that meets a busy one would get another of its own, and keeps it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: i32 = 2;
/// `M_ARENA_MAX` of `malloc.h`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENA_MAX_OPTION: i32 = -8;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "two functions of the C library that Rust has no other way to")]
unsafe extern "C" {
    fn mallopt(option: i32, value: i32) -> i32;
    fn malloc_trim(keep: usize) -> i32;
    fn madvise(begin: *mut std::ffi::c_void, bytes: usize, advice: i32) -> i32;
}

/// `MADV_DONTNEED` of `sys/mman.h`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const DONT_NEED: i32 = 4;

/// Call it before any thread exists. What the person has set counts instead.
pub(crate) fn prepare() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        #[expect(unsafe_code, reason = "the allocator is told by its own function")]
        // SAFETY: `mallopt` takes two numbers, and no other thread allocates yet.
        unsafe {
            mallopt(ARENA_MAX_OPTION, ARENAS_MAX);
        }
    }
}

/// Gives free memory back to the system: for the moments after the window has gone.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "the allocator is told by its own function")]
        // SAFETY: `malloc_trim` takes a number and locks what it needs itself.
        unsafe {
            malloc_trim(0);
        }
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        for (begin, bytes) in as_in_their_files(&maps) {
            #[expect(unsafe_code, reason = "the kernel is told by its own call")]
            // SAFETY: nobody can write there, and the kernel says that every page is as in the file: what
            // is let go is read again at the next touch. A mapping that went meanwhile is an error.
            unsafe {
                madvise(std::ptr::without_provenance_mut(begin), bytes, DONT_NEED);
            }
        }
    }
}

/// The parts of the address space whose every page is as in its file and can never be otherwise: begin
/// and length in bytes. `maps` is what the kernel tells in `smaps`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn as_in_their_files(maps: &str) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut now = None;
    for line in maps.lines() {
        if let Some(mapping) = mapping(line) {
            now = mapping.fixed.then_some(mapping.part);
        } else if let Some(own) = line.strip_prefix("Anonymous:") {
            // Pages of its own, such as addresses that were filled in at the start, are in no file.
            parts.extend(now.take().filter(|_| own.trim() == "0 kB"));
        }
    }
    parts
}

/// A part of the address space.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
struct Mapping {
    /// Begin and length in bytes.
    part: (usize, usize),
    /// Whether it is a file that cannot be written to there.
    fixed: bool,
}

/// Reads the first line of a mapping; `None` for any other line.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (begin, end) = fields.next()?.split_once('-')?;
    let begin = usize::from_str_radix(begin, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let rights = fields.next()?;
    let file = fields.nth(3).unwrap_or_default();
    let fixed = rights.starts_with('r') && !rights.contains('w') && rights.ends_with('p');
    // The kernel's own pages, `[vdso]` and the like, are no files; neither are those of devices.
    let is_file = file.starts_with('/') && !file.starts_with("/dev/");
    let bytes = end.checked_sub(begin)?;
    Some(Mapping { part: (begin, bytes), fixed: fixed && is_file && bytes > 0 })
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0010000 r-xp 00001000 fe:00 1 /usr/bin/neurino
Rss:                  64 kB
Anonymous:             0 kB
55d0c0010000-55d0c0020000 r--p 00011000 fe:00 1 /usr/bin/neurino
Anonymous:            16 kB
55d0c0020000-55d0c0030000 rw-p 00021000 fe:00 1 /usr/bin/neurino
Anonymous:             0 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000002000-7f0000003000 r--s 00000000 fe:00 9 /home/ada/cache.db
Anonymous:             0 kB
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7f0000004000-7f0000006000 r--p 00000000 fe:00 7 /usr/lib/a folder/lib.so
AnonHugePages:         0 kB
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_as_in_its_file_is_let_go() {
        let parts = as_in_their_files(MAPS);
        assert_eq!(parts, [(0x55d0_c000_0000, 0x1_0000), (0x7f00_0000_4000, 0x2000)]);
        assert!(as_in_their_files("no maps\n-\nzz-yy r-xp\nAnonymous: 0 kB\n").is_empty());
    }

    #[test]
    fn the_program_goes_on_with_what_it_gave_back() {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        assert!(!as_in_their_files(&maps).is_empty());
        give_back();
        prepare();
        let text = format!("{:?}", (0..1000).map(|n| n * n).collect::<Vec<u64>>());
        assert!(text.ends_with("998001]"));
    }
}
