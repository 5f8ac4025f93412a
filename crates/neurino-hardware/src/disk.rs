//! Free space on the drive of a path.

use std::io;
use std::path::Path;

/// Bytes this user may still write on the drive that holds `path`. A path that does not exist yet
/// counts as the nearest folder above it that does.
///
/// # Errors
/// What the system says about that folder.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = std::path::absolute(path)?;
    let folder = path.ancestors().find(|folder| folder.exists()).unwrap_or(&path);
    fs4::available_space(folder)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_come_is_measured_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("not/yet")).unwrap() > 0);
    }
}
