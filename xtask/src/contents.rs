//! What a package holds: every file with its digest beside the package, and one time for all of them,
//! so that two builds of a commit make the same package.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::shell::Cmd;
use crate::wheels;

/// The time of a reproducible build in seconds since the Unix epoch, as packaging tools read it.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The time that files of packages get: what [`EPOCH`] says, else that of the commit.
///
/// # Errors
/// When it says no number, and when there is no commit to ask.
pub(crate) fn built_at() -> Result<u64> {
    // Cargo says at run time where the project is; what was compiled in is where it once was.
    let repository = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    let told = std::env::var(EPOCH).ok();
    let text = match told {
        Some(text) => text,
        None => Cmd::new(Path::new(&repository), "git")
            .args(["log", "-1", "--format=%ct"])
            .output()
            .with_context(|| format!("without a repository set {EPOCH}, in seconds"))?,
    };
    text.trim().parse().with_context(|| format!("`{}` is no time in seconds", text.trim()))
}

/// Gives everything in `tree` that time.
///
/// # Errors
/// When a file cannot be opened.
pub(crate) fn settle(tree: &Path, at_s: u64) -> Result<()> {
    let time = UNIX_EPOCH + Duration::from_secs(at_s);
    for path in everything(tree)? {
        File::open(&path)?.set_modified(time)?;
    }
    Ok(())
}

/// The files of `tree` by their way from it, in order; what packages say of themselves left out.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn files(tree: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for path in everything(tree)?.iter().filter(|path| path.is_file()) {
        let inside = path.strip_prefix(tree)?.to_string_lossy().replace('\\', "/");
        if !inside.starts_with("DEBIAN/") {
            files.push(inside);
        }
    }
    files.sort();
    Ok(files)
}

/// Writes `PACKAGE.files` beside a package: SHA-256 and way of each file of `tree`.
///
/// # Errors
/// When a file cannot be read, or the list not be written.
pub(crate) fn list(tree: &Path, package: &Path) -> Result<()> {
    let mut lines = String::new();
    for file in files(tree)? {
        writeln!(lines, "{}  {file}", wheels::digest(&tree.join(&file))?)?;
    }
    let mut name = package.as_os_str().to_owned();
    name.push(".files");
    fs::write(name, lines)?;
    Ok(())
}

/// Files and folders of `tree`, itself included; folders after what is in them.
fn everything(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(everything(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            all.push(entry.path());
        }
    }
    all.push(tree.to_owned());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_one_time_and_a_list_of_its_files() {
        let place = tempfile::tempdir().expect("a folder");
        let tree = place.path().join("tree");
        for (name, text) in [("usr/bin/b", "b"), ("usr/a", "a"), ("DEBIAN/control", "c")] {
            let path = tree.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, text).expect("written");
        }
        settle(&tree, 1_790_000_000).expect("settled");
        for path in everything(&tree).expect("read") {
            let time = fs::metadata(&path).and_then(|m| m.modified()).expect("a time");
            let seconds = time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            assert_eq!(seconds, 1_790_000_000, "{}", path.display());
        }
        let package = place.path().join("p.deb");
        list(&tree, &package).expect("listed");
        let text = fs::read_to_string(place.path().join("p.deb.files")).expect("read");
        let (a, b) = text.split_once('\n').expect("two lines");
        assert!(a.ends_with("  usr/a") && a.starts_with("ca978112ca1bbdca"), "{text}");
        assert!(b.trim_end().ends_with("  usr/bin/b"), "{text}");
    }
}
