//! An RPM package of the desktop program, made with `rpmbuild` from the files of the Debian one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::contents;
use crate::debian::Control;
use crate::shell::{Cmd, on_path};

/// Opened at run time, so no linked library tells of it.
const TRAY: &str = "libayatana-appindicator-gtk3";

/// Whether the tool is here.
pub(crate) fn can_pack() -> bool {
    on_path("rpmbuild")
}

/// Packs `tree` (a file system root; a folder `DEBIAN` is left out) and returns the package's path
/// in `folder`. Which libraries it needs is found out by rpm itself.
///
/// # Errors
/// When rpm's tools are missing or fail.
pub(crate) fn pack(tree: &Path, control: &Control, work: &Path, folder: &Path) -> Result<PathBuf> {
    ensure!(can_pack(), "`rpmbuild` is needed to make an .rpm: install rpm");
    let top = work.join("rpm");
    fs::create_dir_all(&top)?;
    let spec = top.join("neurino.spec");
    fs::write(&spec, text(control, tree, &files(tree)?)?)?;
    let define = |name: &str, value: &Path| format!("{name} {}", value.display());
    // Without a terminal of its own it tells every file; what it says when it fails is kept.
    Cmd::new(&top, "rpmbuild")
        .args(["--quiet", "-bb", "--target", std::env::consts::ARCH])
        .args(["--define", &define("_topdir", &top)])
        .args(["--define", &define("_rpmdir", &top.join("made"))])
        .env(contents::EPOCH, contents::built_at()?.to_string())
        .args(["--define", "use_source_date_epoch_as_buildtime 1"])
        .args(["--define", "clamp_mtime_to_source_date_epoch 1"])
        .args(["--define", "_buildhost neurino"])
        .args(["--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"])
        .arg(&spec)
        .output()?;
    let name = format!("{}-{}-1.{}.rpm", control.package, control.version, std::env::consts::ARCH);
    let made = top.join("made").join(&name);
    let file = folder.join(&name);
    fs::copy(&made, &file).with_context(|| format!("rpmbuild left no {}", made.display()))?;
    Ok(file)
}

/// What the package owns: every file, and the folders that are ours alone.
fn files(tree: &Path) -> Result<BTreeSet<String>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let installed = Path::new("/").join(path.strip_prefix(root)?);
            let installed = installed.to_str().context("a file name that is no text")?.to_owned();
            ensure!(!installed.contains(['"', '%', '\n']), "{installed} has a sign rpm reads");
            if path.is_dir() {
                if installed == "/DEBIAN" {
                    continue;
                }
                if Path::new(&installed).iter().any(|name| name == "neurino") {
                    found.insert(format!("%dir \"{installed}\""));
                }
                walk(root, &path, found)?;
            } else {
                found.insert(format!("\"{installed}\""));
            }
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    walk(tree, tree, &mut found)?;
    Ok(found)
}

fn text(control: &Control, tree: &Path, files: &BTreeSet<String>) -> Result<String> {
    let list: String = files.iter().flat_map(|file| [file.as_str(), "\n"]).collect();
    let tree = tree.to_str().context("a folder whose name is no text")?;
    ensure!(!tree.contains(['\'', '%', '\n']), "{tree} has a sign that rpm reads");
    let conflicts: String =
        control.conflicts.iter().flat_map(|name| ["Conflicts: ", name, "\n"]).collect();
    Ok(format!(
        "%global debug_package %{{nil}}\n\
         %global __os_install_post %{{nil}}\n\
         %global _build_id_links none\n\
         %global _binary_payload w19.zstdio\n\
         Name: {}\nVersion: {}\nRelease: 1\nSummary: {}\nLicense: {}\nRequires: {TRAY}\n{conflicts}\n\
         %description\n{}\n\n\
         %install\ncp -a '{tree}/.' '%{{buildroot}}'\nrm -rf '%{{buildroot}}/DEBIAN'\n\n\
         %files\n%defattr(-,root,root)\n{list}",
        control.package,
        control.version,
        control.summary,
        env!("CARGO_PKG_LICENSE"),
        control.description,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_owns_its_files_and_its_folders_alone() -> Result<()> {
        let tree = tempfile::tempdir()?;
        for file in ["usr/bin/neurino", "usr/lib/neurino/models/a b", "DEBIAN/control"] {
            let file = tree.path().join(file);
            fs::create_dir_all(file.parent().context("a folder")?)?;
            fs::write(file, "")?;
        }
        let files = files(tree.path())?;
        let wanted = [
            "\"/usr/bin/neurino\"",
            "\"/usr/lib/neurino/models/a b\"",
            "%dir \"/usr/lib/neurino\"",
            "%dir \"/usr/lib/neurino/models\"",
        ];
        assert_eq!(files.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
        fs::write(tree.path().join("50%"), "")?;
        assert!(super::files(tree.path()).is_err());
        Ok(())
    }
}
