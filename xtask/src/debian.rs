//! A Debian package made with dpkg's own tools, without a packaging framework.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::contents;
use crate::shell::{Cmd, on_path};

/// What `DEBIAN/control` says.
#[derive(Debug)]
pub(crate) struct Control {
    /// The package's name.
    pub(crate) package: &'static str,
    /// The workspace's version.
    pub(crate) version: String,
    /// Dependencies beside the libraries the program links, which are found out.
    pub(crate) depends: &'static [&'static str],
    /// What it works better with.
    pub(crate) recommends: &'static [&'static str],
    /// Packages that ship the same files.
    pub(crate) conflicts: &'static [&'static str],
    /// One line.
    pub(crate) summary: &'static str,
    /// Some lines.
    pub(crate) description: &'static str,
}

/// Packs `tree` (a file system root) and returns the package's path in `folder`.
///
/// # Errors
/// When dpkg's tools are missing or fail.
pub(crate) fn pack(
    tree: &Path,
    program: &Path,
    control: &Control,
    folder: &Path,
) -> Result<PathBuf> {
    for tool in ["dpkg-deb", "dpkg-shlibdeps"] {
        if !on_path(tool) {
            bail!("`{tool}` is needed to make a .deb: install dpkg-dev");
        }
    }
    let architecture = Cmd::new(tree, "dpkg").arg("--print-architecture").output()?;
    let architecture = architecture.trim();
    let mut depends = linked_libraries(program, folder)?;
    depends.extend(control.depends.iter().map(|&name| name.to_owned()));
    let meta = tree.join("DEBIAN");
    fs::create_dir_all(&meta)?;
    fs::write(meta.join("control"), text(control, architecture, &depends, installed_kib(tree)?))?;
    fs::write(meta.join("md5sums"), md5sums(tree)?)?;
    let file = folder.join(format!("{}_{}_{architecture}.deb", control.package, control.version));
    // Files belong to root whoever packs; xz is what every release of dpkg reads.
    contents::settle(tree, contents::built_at()?)?;
    Cmd::new(folder, "dpkg-deb")
        .env(contents::EPOCH, contents::built_at()?.to_string())
        .args(["--root-owner-group", "-Zxz", "--build"])
        .args([tree, &file])
        .run()?;
    Ok(file)
}

/// What `dpkg --verify` compares the installed files with.
fn md5sums(tree: &Path) -> Result<String> {
    use std::fmt::Write as _;

    let mut sums = String::new();
    // A file that a person may change is no business of this list.
    for file in contents::files(tree)?.iter().filter(|file| !file.starts_with("etc/")) {
        let printed = Cmd::new(tree, "md5sum").arg(file).output()?;
        let sum = printed.split_whitespace().next().context("md5sum printed nothing")?;
        writeln!(sums, "{sum}  {file}")?;
    }
    Ok(sums)
}

/// The packages of the libraries that the program links, with the versions it needs.
fn linked_libraries(program: &Path, folder: &Path) -> Result<Vec<String>> {
    // dpkg-shlibdeps insists on standing in a source package.
    let source = folder.join("shlibdeps");
    fs::create_dir_all(source.join("debian"))?;
    fs::write(
        source.join("debian/control"),
        "Source: neurino\n\nPackage: neurino\nArchitecture: any\n",
    )?;
    let printed = Cmd::new(&source, "dpkg-shlibdeps").args(["-O", "-e"]).arg(program).output()?;
    fs::remove_dir_all(&source)?;
    let list = printed
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .with_context(|| format!("dpkg-shlibdeps said nothing of {}", program.display()))?;
    Ok(list.split(", ").map(str::to_owned).collect())
}

fn text(control: &Control, architecture: &str, depends: &[String], size_kib: u64) -> String {
    use std::fmt::Write as _;

    let mut text = format!(
        "Package: {}\nVersion: {}\nArchitecture: {architecture}\nMaintainer: The Neurino authors\n\
         Section: net\nPriority: optional\nInstalled-Size: {size_kib}\n",
        control.package, control.version
    );
    let lists = [
        ("Depends", depends.join(", ")),
        ("Recommends", control.recommends.join(", ")),
        ("Conflicts", control.conflicts.join(", ")),
    ];
    for (key, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(text, "{key}: {list}");
    }
    let _ = writeln!(text, "Description: {}", control.summary);
    for line in control.description.lines() {
        let _ = writeln!(text, " {}", if line.is_empty() { "." } else { line });
    }
    text
}

fn installed_kib(folder: &Path) -> Result<u64> {
    let mut size_kib = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size_kib += if entry.file_type()?.is_dir() {
            installed_kib(&entry.path())?
        } else {
            entry.metadata()?.len().div_ceil(1024)
        };
    }
    Ok(size_kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_lists_only_what_is_there_and_indents_the_description() {
        let control = Control {
            package: "neurino",
            version: "1.2.3".to_owned(),
            depends: &[],
            recommends: &[],
            conflicts: &["other"],
            summary: "A summary",
            description: "First.\n\nSecond.",
        };
        let text = text(&control, "amd64", &["libc6 (>= 2.34)".to_owned()], 7);
        assert!(text.contains("\nDepends: libc6 (>= 2.34)\nConflicts: other\n"), "{text}");
        assert!(text.ends_with("Description: A summary\n First.\n .\n Second.\n"), "{text}");
        assert!(!text.contains("Recommends"));
    }
}
