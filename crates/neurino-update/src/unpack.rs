//! A package's files, laid out beside the program and written through to the drive.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use zip::ZipArchive;

/// What a package may unpack to.
const BYTES_MAX: u64 = 16 << 30;
const EXECUTABLE: u32 = 0o111;

/// Unpacks a zip into `folder`, which must be new; says what is wrong with it where it cannot.
pub(crate) fn unpack(package: &Path, folder: &Path) -> io::Result<()> {
    let wrong = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem.to_owned());
    let mut archive = ZipArchive::new(File::open(package)?).map_err(io::Error::other)?;
    let mut left_bytes = BYTES_MAX;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(io::Error::other)?;
        let Some(name) = entry.enclosed_name() else {
            return Err(wrong("it names a file outside its folder"));
        };
        if entry.is_symlink() {
            return Err(wrong("it holds a link"));
        }
        if entry.is_dir() {
            continue;
        }
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        let mut content = io::Read::take(&mut entry, left_bytes + 1);
        let written_bytes = io::copy(&mut content, &mut file)?;
        left_bytes = left_bytes
            .checked_sub(written_bytes)
            .ok_or_else(|| wrong("it unpacks to more than it may"))?;
        let runs = entry.unix_mode().is_some_and(|mode| mode & EXECUTABLE != 0);
        set_mode(&file, runs)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Copies one file through to the drive, as a program.
pub(crate) fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to)?;
    let file = File::options().write(true).open(to)?;
    set_mode(&file, true)?;
    file.sync_all()
}

#[cfg(unix)]
fn set_mode(file: &File, runs: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: bool) -> io::Result<()> {
    Ok(())
}
