//! Keeping, replacing and removing files so that a kill at any moment leaves whole ones.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::UpdateError;

/// Keeps a second name of a file, or a copy where the drive has no second names. What lies at `kept` is
/// whole, or not there.
pub(super) fn keep(file: &Path, kept: &Path) -> io::Result<()> {
    let parent = kept.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    if fs::hard_link(file, kept).is_err() {
        copy_whole(file, kept)?;
    }
    sync_folder(parent)
}

/// Copies a file under another name first, and gives it its own once all of it is on the drive.
pub(super) fn copy_whole(file: &Path, copy: &Path) -> io::Result<()> {
    let mut name = copy.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = copy.with_file_name(name);
    let copied = (|| {
        fs::copy(file, &part)?;
        // A read-only file is synced by its copy's owner all the same.
        File::options().write(true).open(&part).or_else(|_| File::open(&part))?.sync_all()?;
        fs::rename(&part, copy)
    })();
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied
}

/// Renames `new` over `target`.
pub(super) fn replace(new: &Path, target: &Path) -> io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    if cfg!(windows) && target.exists() {
        // A program that runs can be renamed there, not replaced. Its kept copy is beside it.
        let aside = aside(target);
        let _ = fs::remove_file(&aside);
        fs::rename(target, &aside)?;
        if let Err(error) = fs::rename(new, target) {
            fs::rename(&aside, target)?;
            return Err(error);
        }
        return Ok(());
    }
    fs::rename(new, target)?;
    sync_folder(parent)
}

/// The name of a file that ran while it was replaced.
pub(super) fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".old");
    file.with_file_name(name)
}

pub(super) fn remove_folder(folder: &Path) -> Result<(), UpdateError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UpdateError::io("clearing", folder)(error))
        }
        _ => Ok(()),
    }
}

/// A rename lives in its folder; Windows neither needs nor allows this.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

pub(crate) fn list(root: &Path, below: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
