//! The program for Windows and its installer, made by NSIS.
//!
//! A release for people is made on Windows itself, with CUDA and Microsoft's linker
//! (`.github/workflows/release.yml`). From Debian the program can be cross-built with the CPU engine
//! only, to see that it compiles, links, installs and starts: the compiler that the project uses
//! otherwise has no standard library for Windows beside it, but Debian's (the one its browsers are
//! built with) comes with the library's source, and MinGW links it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{Cmd, on_path, say};
use crate::workspace::Workspace;
use crate::{system, wheels};

/// The folder of what is installed, below the one that is worked in.
pub(crate) const TREE: &str = "windows";
const TARGET: &str = "x86_64-pc-windows-gnu";
const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
const LIBRARY_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/Cargo.toml";
/// Debian's packages of all that is called here.
const PACKAGES: [&str; 6] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "gcc-mingw-w64-x86-64-posix",
    "g++-mingw-w64-x86-64-posix",
    "nsis",
];

/// The variables that point cargo to the toolchain.
const ENVS: [(&str, &str); 6] = [
    ("RUSTC", RUSTC),
    // The standard library is built with an option that stable compilers do not offer otherwise.
    ("RUSTC_BOOTSTRAP", "1"),
    ("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", "x86_64-w64-mingw32-gcc-posix"),
    ("CC_x86_64_pc_windows_gnu", "x86_64-w64-mingw32-gcc-posix"),
    ("CXX_x86_64_pc_windows_gnu", "x86_64-w64-mingw32-g++-posix"),
    ("AR_x86_64_pc_windows_gnu", "x86_64-w64-mingw32-ar"),
];

/// What is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    /// The NVIDIA engine too.
    pub(crate) with_cuda: bool,
    /// cargo's profile.
    pub(crate) profile: &'static str,
}

/// Why this machine cannot build for Windows; `None` where it can.
pub(crate) fn obstacle(workspace: &Workspace) -> Option<String> {
    if cfg!(windows) {
        let nsis = on_path("makensis.exe");
        return (!nsis).then(|| "`makensis` is not here: install NSIS".to_owned());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("it is cross-built on Debian on x86-64 only".to_owned());
    }
    let tools = ["x86_64-w64-mingw32-gcc-posix", "x86_64-w64-mingw32-g++-posix", "makensis"];
    let missing = tools.iter().any(|tool| !on_path(tool))
        || [CARGO, RUSTC, LIBRARY_SOURCE].iter().any(|file| !Path::new(file).exists());
    if missing {
        let packages = PACKAGES.join(" ");
        return Some(format!("Debian's toolchain is not here: apt-get install {packages}"));
    }
    let said = Cmd::new(&workspace.root, RUSTC).arg("--version").output().ok()?;
    let (Some(there), Some(wanted)) = (version_in(&said), rust_version(workspace)) else {
        return Some(format!("`{RUSTC} --version` says {}", said.trim()));
    };
    (there < wanted).then(|| {
        format!(
            "Debian's rustc-web is {}.{}, and this project needs {}.{}",
            there.0, there.1, wanted.0, wanted.1
        )
    })
}

/// The oldest compiler that the workspace's manifest admits.
fn rust_version(workspace: &Workspace) -> Option<(u32, u32)> {
    let package = workspace.packages().iter().find(|package| package["name"] == "neurino")?;
    version_in(package["rust_version"].as_str()?)
}

/// The first `MAJOR.MINOR` of a text.
fn version_in(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.split(['.', '-']);
        let major = numbers.next()?.parse().ok()?;
        Some((major, numbers.next()?.parse().ok()?))
    })
}

/// A cargo command on the program for Windows, window included.
pub(crate) fn cargo(workspace: &Workspace, subcommand: &str) -> Cmd {
    let cmd = Cmd::new(&workspace.root, CARGO)
        .arg(subcommand)
        .args(["--target", TARGET, "-Zbuild-std=std,panic_unwind"])
        .args(["--package", "neurino", "--no-default-features", "--features", "desktop"])
        .env("CARGO_TARGET_DIR", target(workspace));
    ENVS.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value))
}

/// A folder of its own: another compiler's files would be thrown away and made anew each time.
fn target(workspace: &Workspace) -> PathBuf {
    workspace.target.join("windows")
}

/// Builds the program and packs the installer; returns its path in `packages`.
///
/// `fill` puts into the folder it is given what is installed beside the program.
///
/// # Errors
/// When this machine cannot build for Windows, with the reason.
pub(crate) fn installer(
    workspace: &Workspace,
    version: &str,
    work: &Path,
    packages: &Path,
    making: Making,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    if let Some(obstacle) = obstacle(workspace) {
        bail!("no build for Windows: {obstacle}");
    }
    let built = build(workspace, making)?;
    let tree = work.join(TREE);
    fs::create_dir_all(&tree)?;
    two_programs(&fs::read(built.join("neurino.exe"))?, &tree)?;
    // Microsoft's linker takes the loader of the window's runtime into the program, MinGW cannot.
    let loader = built.join("WebView2Loader.dll");
    if loader.is_file() {
        fs::copy(&loader, tree.join("WebView2Loader.dll"))?;
    }
    fill(&tree)?;
    pack(workspace, version, &tree, work, packages)
}

/// Builds the program; returns the folder it lies in.
fn build(workspace: &Workspace, making: Making) -> Result<PathBuf> {
    let Making { with_cuda, profile } = making;
    if !cfg!(windows) {
        ensure!(!with_cuda, "the NVIDIA engine for Windows is built on Windows: use --cpu here");
        cargo(workspace, "build").args(["--profile", profile]).run()?;
        return Ok(target(workspace).join(TARGET).join(profile));
    }
    let build = workspace.cargo("build").args(["--profile", profile, "--package", "neurino"]);
    let build = if with_cuda { workspace.with_cuda(build) } else { build };
    build.run()?;
    Ok(workspace.target.join(profile))
}

/// Calls NSIS on the files below `tree`.
fn pack(
    workspace: &Workspace,
    version: &str,
    tree: &Path,
    work: &Path,
    packages: &Path,
) -> Result<PathBuf> {
    let lists = work.join("windows-lists");
    fs::create_dir_all(&lists)?;
    let files = files_below(tree, Path::new(""))?;
    let (install, uninstall) = lists_for_nsis(&files)?;
    // NSIS takes a script for UTF-8 when it begins with this mark.
    fs::write(lists.join("install.nsh"), format!("\u{feff}{install}"))?;
    fs::write(lists.join("uninstall.nsh"), format!("\u{feff}{uninstall}"))?;
    let name = format!("neurino_{version}_x64-setup.exe");
    let out = packages.join(&name);
    let define = |name: &str, value: &Path| format!("-D{name}={}", value.display());
    Cmd::new(&workspace.path("installers/windows"), "makensis")
        .args(["-V2", "-INPUTCHARSET", "UTF8", &format!("-DVERSION={version}")])
        .args([define("TREE", tree), define("LISTS", &lists), define("OUT", &out)])
        .arg("neurino.nsi")
        .run()?;
    let mut sums = String::new();
    for file in &files {
        writeln!(sums, "{}  {}", wheels::digest(&tree.join(file))?, file.display())?;
    }
    fs::write(packages.join(format!("{name}.files")), sums)?;
    Ok(out)
}

/// Fills in winget's manifests of this installer, which `url` is the folder of, and writes them to
/// `folder`.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn winget(
    workspace: &Workspace,
    version: &str,
    installer: &Path,
    url: &str,
    folder: &Path,
) -> Result<()> {
    ensure!(
        url.starts_with("https://"),
        "{url} is no https:// address to fetch the installer from"
    );
    let name =
        installer.file_name().and_then(|name| name.to_str()).context("an installer's name")?;
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(workspace.path("installers/windows/winget"))? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?
            .replace("@VERSION@", version)
            .replace("@URL@", url.trim_end_matches('/'))
            .replace("@INSTALLER@", name)
            .replace("@SHA256@", &wheels::digest(installer)?.to_uppercase());
        fs::write(folder.join(entry.file_name()), text)?;
    }
    Ok(())
}

/// Writes the program twice. A program says in its file whether Windows gives it a terminal, and
/// this one has a window and a command line: `neurino.exe` gets none and is what menus start;
/// `neurino.com` gets one, and is what a terminal finds first under the name `neurino`.
fn two_programs(program: &[u8], folder: &Path) -> Result<()> {
    const WINDOW: u16 = 2;
    const TERMINAL: u16 = 3;
    for (name, subsystem) in [("neurino.exe", WINDOW), ("neurino.com", TERMINAL)] {
        let mut bytes = program.to_owned();
        set_subsystem(&mut bytes, subsystem)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

/// Sets the field `Subsystem` of a portable executable's optional header (PE format, Microsoft).
fn set_subsystem(program: &mut [u8], subsystem: u16) -> Result<()> {
    const HEADER_POINTER: usize = 0x3c;
    const SIGNATURE_AND_FILE_HEADER: usize = 4 + 20;
    const SUBSYSTEM: usize = 68;
    let pointer = program.get(HEADER_POINTER..HEADER_POINTER + 4).context("no DOS header")?;
    let header = u32::from_le_bytes(pointer.try_into()?) as usize;
    ensure!(program.get(header..header + 4) == Some(b"PE\0\0"), "no portable executable");
    let place = header + SIGNATURE_AND_FILE_HEADER + SUBSYSTEM;
    let field = program.get_mut(place..place + 2).context("the header is cut off")?;
    field.copy_from_slice(&subsystem.to_le_bytes());
    Ok(())
}

/// Every file below `folder`, relative to it, in order.
fn files_below(folder: &Path, relative: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = relative.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path(), &name)?);
        } else {
            files.insert(name);
        }
    }
    Ok(files)
}

/// What installs these files, and what removes exactly them and the folders that then are empty.
fn lists_for_nsis(files: &BTreeSet<PathBuf>) -> Result<(String, String)> {
    let (mut install, mut uninstall) = (String::new(), String::new());
    let mut folders = BTreeSet::new();
    for file in files {
        let path = file.to_str().context("a file name that is no text")?;
        ensure!(!path.contains(['"', '$', '`', '\\']), "{path} has a sign that NSIS reads");
        let path = path.replace('/', "\\");
        let parent = file.parent().unwrap_or(Path::new(""));
        let folder = parent.display().to_string().replace('/', "\\");
        writeln!(
            install,
            "SetOutPath \"$INSTDIR\\{folder}\"\nFile \"${{TREE}}/{}\"",
            file.display()
        )?;
        writeln!(uninstall, "Delete \"$INSTDIR\\{path}\"")?;
        folders
            .extend(parent.ancestors().filter(|f| !f.as_os_str().is_empty()).map(Path::to_owned));
    }
    for folder in folders.iter().rev() {
        writeln!(
            uninstall,
            "RMDir \"$INSTDIR\\{}\"",
            folder.display().to_string().replace('/', "\\")
        )?;
    }
    Ok((install, uninstall))
}

/// The step of the tests: type-checks the program for Windows, or says why that cannot be done here.
pub(crate) fn check(workspace: &Workspace) -> Vec<Cmd> {
    if obstacle(workspace).is_some() {
        system::try_to_install(&workspace.root, &PACKAGES);
    }
    if let Some(obstacle) = obstacle(workspace) {
        say(format!("not checked for Windows: {obstacle}"));
        return Vec::new();
    }
    vec![cargo(workspace, "check")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Engines;

    #[test]
    fn versions_are_read_wherever_they_stand() {
        assert_eq!(version_in("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert_eq!(version_in("1.95"), Some((1, 95)));
        assert_eq!(version_in("rustc 1.97.0-nightly"), Some((1, 97)));
        assert_eq!(version_in("none"), None);
    }

    #[test]
    fn the_subsystem_alone_changes() -> Result<()> {
        let mut program = vec![0_u8; 0x200];
        program[0x3c] = 0x80;
        program[0x80..0x84].copy_from_slice(b"PE\0\0");
        let before = program.clone();
        set_subsystem(&mut program, 3)?;
        assert_eq!(program[0x80 + 24 + 68], 3);
        program[0x80 + 24 + 68] = 0;
        assert_eq!(program, before);
        assert!(set_subsystem(&mut program[..0x90], 2).is_err());
        assert!(set_subsystem(&mut vec![0; 0x200], 2).is_err());
        Ok(())
    }

    #[test]
    fn wingets_manifests_are_filled_in() -> Result<()> {
        let workspace = Workspace::discover(Some(Engines::Cpu))?;
        let folder = tempfile::tempdir()?;
        let installer = folder.path().join("setup.exe");
        fs::write(&installer, "x")?;
        let out = folder.path().join("winget");
        winget(&workspace, "1.2.3", &installer, "https://example.org/v1.2.3/", &out)?;
        let mut files = 0;
        for entry in fs::read_dir(&out)? {
            let text = fs::read_to_string(entry?.path())?;
            assert!(text.contains("\nPackageVersion: 1.2.3\n") && !text.contains('@'), "{text}");
            files += 1;
        }
        assert_eq!(files, 3);
        let text = fs::read_to_string(out.join("Neurino.Neurino.installer.yaml"))?;
        assert!(text.contains("InstallerUrl: https://example.org/v1.2.3/setup.exe\n"), "{text}");
        assert!(text.contains("InstallerSha256: 2D711642B726B04401627CA9FBAC32F5"), "{text}");
        assert!(winget(&workspace, "1.2.3", &installer, "http://example.org", &out).is_err());
        Ok(())
    }

    #[test]
    fn exactly_what_was_installed_is_removed() -> Result<()> {
        let files = ["a.exe", "resources/models/m.bin", "resources/n"].map(PathBuf::from);
        let (install, uninstall) = lists_for_nsis(&files.into())?;
        assert!(install.contains(
            "SetOutPath \"$INSTDIR\\resources\\models\"\nFile \"${TREE}/resources/models/m.bin\"\n"
        ));
        let removed: Vec<&str> = uninstall.lines().collect();
        assert_eq!(
            removed,
            [
                "Delete \"$INSTDIR\\a.exe\"",
                "Delete \"$INSTDIR\\resources\\models\\m.bin\"",
                "Delete \"$INSTDIR\\resources\\n\"",
                "RMDir \"$INSTDIR\\resources\\models\"",
                "RMDir \"$INSTDIR\\resources\"",
            ]
        );
        assert!(lists_for_nsis(&[PathBuf::from("$x")].into()).is_err());
        Ok(())
    }
}
