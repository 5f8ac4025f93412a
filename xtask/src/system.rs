//! System packages: what a build and the tests need, what of it is missing, and installing that.

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell::{Cmd, on_path, say};
use crate::workspace::Workspace;

/// What the packages are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building and running.
    Run,
    /// The tests too: a driver for the window, a display, a session bus.
    Test,
}

/// How to find out whether something is there, without asking a package manager.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// A program on `PATH`.
    Program(&'static str),
    /// Headers and libraries, as `pkg-config` knows them.
    PkgConfig(&'static str),
    /// A shared library the loader finds; it is opened at run time, so no header is wanted.
    Library(&'static str),
    /// A Python module.
    Python(&'static str),
    /// At least one font.
    Font,
}

/// One thing the work needs.
#[derive(Clone, Copy, Debug)]
struct Need {
    sign: Sign,
    why: &'static str,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
}

const fn need(sign: Sign, why: &'static str, [debian, fedora, arch]: [&'static str; 3]) -> Need {
    Need { sign, why, debian, fedora, arch }
}

const BUILD: &[Need] = &[
    need(
        Sign::Program("c++"),
        "C and C++ compiler and linker",
        ["build-essential", "gcc-c++", "base-devel"],
    ),
    need(
        Sign::Program("pkg-config"),
        "finds system libraries",
        ["pkg-config", "pkgconf-pkg-config", "pkgconf"],
    ),
    need(
        Sign::PkgConfig("webkit2gtk-4.1"),
        "the window",
        ["libwebkit2gtk-4.1-dev", "webkit2gtk4.1-devel", "webkit2gtk-4.1"],
    ),
    need(Sign::PkgConfig("gtk+-3.0"), "the window", ["libgtk-3-dev", "gtk3-devel", "gtk3"]),
    need(Sign::PkgConfig("dbus-1"), "the session bus", ["libdbus-1-dev", "dbus-devel", "dbus"]),
    need(
        Sign::Library("libayatana-appindicator3.so.1"),
        "the tray icon",
        ["libayatana-appindicator3-1", "libayatana-appindicator-gtk3", "libayatana-appindicator"],
    ),
    need(Sign::Program("python3"), "fetches model packages", ["python3", "python3", "python"]),
    need(
        Sign::Python("pip"),
        "fetches model packages",
        ["python3-pip", "python3-pip", "python-pip"],
    ),
];

const TEST: &[Need] = &[
    need(
        Sign::Program("WebKitWebDriver"),
        "drives the real window",
        ["webkit2gtk-driver", "webkit2gtk4.1-devel", "webkit2gtk-4.1"],
    ),
    need(
        Sign::Program("Xvfb"),
        "a display without a screen",
        ["xvfb", "xorg-x11-server-Xvfb", "xorg-server-xvfb"],
    ),
    need(
        Sign::Program("dbus-daemon"),
        "a session bus for the tests",
        ["dbus", "dbus-daemon", "dbus"],
    ),
    need(
        Sign::Program("openbox"),
        "closes windows as a person does",
        ["openbox", "openbox", "openbox"],
    ),
    need(
        Sign::Program("wmctrl"),
        "closes windows as a person does",
        ["wmctrl", "wmctrl", "wmctrl"],
    ),
    need(
        Sign::Font,
        "text in screenshots",
        ["fonts-dejavu-core", "dejavu-sans-fonts", "ttf-dejavu"],
    ),
];

impl Sign {
    fn is_there(self, dir: &Path) -> bool {
        match self {
            Self::Program(name) => on_path(name),
            Self::PkgConfig(module) => {
                Cmd::new(dir, "pkg-config").args(["--exists", module]).succeeds()
            }
            Self::Library(name) => loader_finds(dir, name),
            Self::Python(module) => {
                Cmd::new(dir, "python3").args(["-m", module, "--version"]).succeeds()
            }
            Self::Font => ["/usr/share/fonts", "/usr/local/share/fonts"]
                .iter()
                .any(|fonts| holds_a_font(Path::new(fonts), 4)),
        }
    }
}

/// Whether the dynamic loader's cache lists this library.
pub(crate) fn loader_finds(dir: &Path, library: &str) -> bool {
    // Users other than root often lack the sbin directories on PATH.
    ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .iter()
        .filter_map(|program| Cmd::new(dir, program).arg("-p").output().ok())
        .any(|cache| cache.lines().any(|line| line.trim_start().starts_with(library)))
}

fn holds_a_font(dir: &Path, depth: u8) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return depth > 0 && holds_a_font(&path, depth - 1);
        }
        path.extension()
            .is_some_and(|ext| ext.eq_ignore_ascii_case("ttf") || ext.eq_ignore_ascii_case("otf"))
    })
}

/// The package managers we know names for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    Debian,
    Fedora,
    Arch,
    Unknown,
}

impl Distribution {
    fn here() -> Self {
        if on_path("apt-get") {
            Self::Debian
        } else if on_path("dnf") {
            Self::Fedora
        } else if on_path("pacman") {
            Self::Arch
        } else {
            Self::Unknown
        }
    }

    fn packages(self, missing: &[Need]) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = missing
            .iter()
            .map(|need| match self {
                Self::Debian | Self::Unknown => need.debian,
                Self::Fedora => need.fedora,
                Self::Arch => need.arch,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The command that a person types to install them.
    fn by_hand(self, packages: &[&str]) -> String {
        let packages = packages.join(" ");
        match self {
            Self::Debian => {
                format!(
                    "sudo apt-get update && sudo apt-get install --no-install-recommends {packages}"
                )
            }
            Self::Fedora => format!("sudo dnf install {packages}"),
            Self::Arch => format!("sudo pacman -S --needed {packages}"),
            Self::Unknown => {
                format!("install the equivalents of these Debian packages: {packages}")
            }
        }
    }
}

/// Installs what is missing, saying what and why.
///
/// # Errors
/// When something is missing and cannot be installed from here: then the text is the command that a
/// person has to type.
pub(crate) fn install_missing(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    if !cfg!(target_os = "linux") {
        // The window's libraries are part of Windows and macOS; compilers come with Rust's set-up.
        return Ok(());
    }
    let missing = missing(&workspace.root, purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let distribution = Distribution::here();
    let packages = distribution.packages(&missing);
    say("missing system packages:");
    for need in &missing {
        say(format!("  {:<28} {}", distribution.packages(&[*need]).join(" "), need.why));
    }
    if distribution != Distribution::Debian {
        bail!(
            "please install what is missing, then run this again:\n  {}",
            distribution.by_hand(&packages)
        );
    }
    let Some(apt) = apt(&workspace.root) else {
        bail!(
            "installing needs root, and sudo would ask for a password. Please run this, then try \
             again:\n  {}",
            distribution.by_hand(&packages)
        );
    };
    say(format!("installing with apt-get (about a minute): {}", packages.join(" ")));
    // Captured: hundreds of lines about unpacking would bury what matters, and errors are kept.
    apt.clone().args(["-qq", "update"]).output()?;
    apt.args(["-qq", "install", "--yes", "--no-install-recommends"]).args(&packages).output()?;
    let still = self::missing(&workspace.root, purpose);
    if let Some(need) = still.first() {
        bail!("{} is installed, but {:?} is still not found", need.debian, need.sign);
    }
    Ok(())
}

/// Installs Debian packages that something can do without, where that takes no password. What went
/// wrong is for the caller to find out: the packages may not exist in this release.
pub(crate) fn try_to_install(dir: &Path, packages: &[&str]) {
    if Distribution::here() != Distribution::Debian {
        return;
    }
    let Some(apt) = apt(dir) else { return };
    say(format!("installing with apt-get (about a minute): {}", packages.join(" ")));
    let install = ["-qq", "install", "--yes", "--no-install-recommends"];
    if apt.clone().args(["-qq", "update"]).succeeds() {
        apt.args(install).args(packages).succeeds();
    }
}

fn missing(dir: &Path, purpose: Purpose) -> Vec<Need> {
    let tests = if purpose == Purpose::Test { TEST } else { &[] };
    BUILD.iter().chain(tests).filter(|need| !need.sign.is_there(dir)).copied().collect()
}

/// `apt-get` as root, or none where that would ask for a password.
fn apt(dir: &Path) -> Option<Cmd> {
    let root = Cmd::new(dir, "id").arg("-u").output().is_ok_and(|id| id.trim() == "0");
    let settings = ["-o", "DPkg::Lock::Timeout=300"];
    if root {
        return Some(
            Cmd::new(dir, "apt-get").args(settings).env("DEBIAN_FRONTEND", "noninteractive"),
        );
    }
    Cmd::new(dir, "sudo").args(["-n", "true"]).succeeds().then(|| {
        // sudo drops the environment, so the setting travels as an argument.
        Cmd::new(dir, "sudo")
            .args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(settings)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_names_a_package_everywhere() {
        for need in BUILD.iter().chain(TEST) {
            for package in [need.debian, need.fedora, need.arch] {
                assert!(!package.is_empty() && !package.contains(' '), "{need:?}");
            }
        }
    }

    #[test]
    fn a_package_that_two_needs_share_is_named_once() {
        let packages = Distribution::Debian.packages(&[BUILD[0], BUILD[1], BUILD[0]]);
        assert_eq!(packages, ["build-essential", "pkg-config"]);
    }

    #[test]
    fn what_is_not_there_is_noticed() {
        let here = Path::new(".");
        assert!(!Sign::Program("no-such-program-anywhere").is_there(here));
        assert!(!Sign::Library("libno-such-library.so.9").is_there(here));
        assert!(!Sign::PkgConfig("no-such-module").is_there(here));
        assert!(Sign::Program("cargo").is_there(here));
    }
}
