//! `cargo xtask dist`: what users and server operators install.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::contents;
use crate::debian::{self, Control};
use crate::shell::{Cmd, say};
use crate::system::{self, Purpose};
use crate::windows::Making;
use crate::workspace::{Engines, Workspace, program_name};
use crate::{cuda, redhat, release, resources, run, starter, ui, wheels, windows};

/// Everything the desktop package says of itself.
const DESKTOP: Control = Control {
    package: "neurino",
    version: String::new(),
    // Opened at run time, so no linked library tells of it.
    depends: &["libayatana-appindicator3-1"],
    recommends: &["gnome-keyring | keepassxc | kwalletmanager"],
    conflicts: &["neurino-server"],
    summary: "turns an idle gaming GPU into AI compute",
    description: "Press Start and this machine serves AI jobs for a network and earns points.\n\
                  \n\
                  A practice network is built in, and a small language model comes along: the\n\
                  first point needs no account and no download.",
};

const SERVER: Control = Control {
    package: "neurino-server",
    version: String::new(),
    depends: &["adduser"],
    recommends: &[],
    conflicts: &["neurino"],
    summary: "Neurino without a window: node and coordinator",
    description: "The same program as in the package neurino, without its window and the libraries\n\
                  a window needs, and with systemd units for a node and for a coordinator.",
};

/// Packs the desktop program as `cargo xtask run` builds it, to try the packages without waiting for
/// the build that people download.
pub(crate) fn dist_quick(workspace: &Workspace) -> Result<()> {
    system::install_missing(workspace, Purpose::Run)?;
    ui::build(workspace)?;
    run::build(workspace).run()?;
    let (packages, work) = empty_folders(workspace, "packages-quick")?;
    let program = work.join(program_name());
    fs::copy(workspace.program(), &program)?;
    let model = starter::kept(workspace, &program)?;
    let with_cuda = workspace.engines == Engines::CpuAndCuda;
    let common = Common { workspace, version: version(workspace)?, model, with_cuda };
    let mut made = vec![common.desktop_deb(&program, &work, &packages)?];
    if redhat::can_pack() {
        made.push(common.desktop_rpm(&work, &packages)?);
    }
    sum_up(&made, &packages)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Builds and packs.
pub(crate) fn dist(workspace: &Workspace, with_cuda: bool) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("dist makes Debian packages and a Linux tarball so far");
    }
    system::install_missing(workspace, Purpose::Run)?;
    if with_cuda {
        cuda::prepare(&workspace.target, &workspace.path("Cargo.lock"))?;
    }
    ui::build(workspace)?;
    let (packages, work) = empty_folders(workspace, "packages")?;
    let desktop = compile(workspace, &["desktop"], with_cuda, &work.join("desktop"))?;
    let server = compile(workspace, &[], with_cuda, &work.join("server"))?;
    let model = starter::kept(workspace, &server)?;
    let common = Common { workspace, version: version(workspace)?, model, with_cuda };
    let mut made = vec![
        common.desktop_deb(&desktop, &work, &packages)?,
        common.server_deb(&server, &work, &packages)?,
        common.server_tarball(&server, &work, &packages)?,
        common.update_package(&desktop, "neurino", &work, &packages)?,
        common.update_package(&server, "neurino-server", &work, &packages)?,
    ];
    if redhat::can_pack() {
        made.push(common.desktop_rpm(&work, &packages)?);
    } else {
        say("no .rpm: `rpmbuild` is not here (Debian: rpm, Fedora: rpm-build)");
    }
    made.sort();
    sum_up(&made, &packages)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Builds and packs what installs under Windows; with the address of the release's folder, winget's
/// manifests, too.
///
/// # Errors
/// When this machine cannot build for Windows, with the reason.
pub(crate) fn dist_windows(
    workspace: &Workspace,
    making: Making,
    release_url: Option<&str>,
) -> Result<()> {
    let with_cuda = making.with_cuda;
    if let Some(obstacle) = windows::obstacle(workspace) {
        bail!("no build for Windows: {obstacle}");
    }
    system::install_missing(workspace, Purpose::Run)?;
    if with_cuda {
        cuda::prepare(&workspace.target, &workspace.path("Cargo.lock"))?;
    }
    ui::build(workspace)?;
    // A program of this machine brings the starter model along.
    run::build(workspace).run()?;
    let model = starter::kept(workspace, &workspace.program())?;
    let (packages, work) = empty_folders(workspace, "packages-windows")?;
    let common = Common { workspace, version: version(workspace)?, model, with_cuda };
    let made = windows::installer(workspace, &common.version, &work, &packages, making, |tree| {
        common.resources(&tree.join("resources"))?;
        common.papers(tree)
    })?;
    if let Some(url) = release_url {
        windows::winget(workspace, &common.version, &made, url, &packages.join("winget"))?;
    }
    // What the installer holds, for programs that update themselves.
    let name = format!("neurino-{}-windows-x86_64", common.version);
    let tree = work.join(windows::TREE);
    let update = release::folder_package(&workspace.program(), &tree, &packages, &name)?;
    sum_up(&[made, update], &packages)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The folder that packages go to and one to work in, both empty.
fn empty_folders(workspace: &Workspace, name: &str) -> Result<(PathBuf, PathBuf)> {
    let (packages, work) = (workspace.target.join(name), workspace.kept().join("dist"));
    for folder in [&packages, &work] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
    }
    Ok((packages, work))
}

/// Writes the list of digests beside the packages, and tells their sizes.
fn sum_up(made: &[PathBuf], packages: &Path) -> Result<()> {
    let mut sums = String::new();
    for file in made {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(sums, "{}  {name}", wheels::digest(file)?)?;
        say(format!("{:>6.1} MB  {}", fs::metadata(file)?.len() as f64 / 1e6, file.display()));
    }
    fs::write(packages.join("SHA256SUMS"), sums)?;
    Ok(())
}

/// Builds the program in the `dist` profile and takes it aside, because the next build replaces it.
fn compile(
    workspace: &Workspace,
    features: &[&str],
    with_cuda: bool,
    folder: &Path,
) -> Result<PathBuf> {
    let mut build = workspace.cargo("build").args([
        "--profile",
        "dist",
        "--package",
        "neurino",
        "--no-default-features",
    ]);
    for feature in features {
        build = build.args(["--features", feature]);
    }
    if with_cuda {
        build = workspace.with_cuda(build);
    }
    build.run()?;
    fs::create_dir_all(folder)?;
    let program = folder.join(program_name());
    fs::copy(workspace.target.join("dist").join(program_name()), &program)?;
    Ok(program)
}

fn version(workspace: &Workspace) -> Result<String> {
    workspace
        .packages()
        .iter()
        .find(|package| package["name"] == "neurino")
        .and_then(|package| package["version"].as_str())
        .map(str::to_owned)
        .context("the workspace has no package `neurino`")
}

/// A package with the list of the files of `tree` beside it.
fn listed(tree: &Path, package: PathBuf) -> Result<PathBuf> {
    contents::list(tree, &package)?;
    Ok(package)
}

/// What the packages share.
struct Common<'a> {
    workspace: &'a Workspace,
    version: String,
    model: PathBuf,
    with_cuda: bool,
}

impl Common<'_> {
    fn desktop_deb(&self, program: &Path, work: &Path, packages: &Path) -> Result<PathBuf> {
        let tree = work.join("neurino.deb");
        self.install(program, &tree.join("usr"), "neurino")?;
        let root = &self.workspace.root;
        copy(
            &root.join("installers/linux/neurino.desktop"),
            &tree.join("usr/share/applications/neurino.desktop"),
        )?;
        for (size, name) in ICONS {
            let place = format!("usr/share/icons/hicolor/{size}/apps/neurino.{}", extension(name));
            copy(&root.join("icons").join(name), &tree.join(place))?;
        }
        for script in ["prerm", "postrm"] {
            copy(&root.join("installers/linux").join(script), &tree.join("DEBIAN").join(script))?;
        }
        let control = Control { version: self.version.clone(), ..DESKTOP };
        listed(&tree, debian::pack(&tree, program, &control, packages)?)
    }

    /// From the tree that [`Self::desktop_deb`] left.
    fn desktop_rpm(&self, work: &Path, packages: &Path) -> Result<PathBuf> {
        let control = Control { version: self.version.clone(), ..DESKTOP };
        let tree = work.join("neurino.deb");
        listed(&tree, redhat::pack(&tree, &control, work, packages)?)
    }

    fn server_deb(&self, program: &Path, work: &Path, packages: &Path) -> Result<PathBuf> {
        let tree = work.join("neurino-server.deb");
        self.install(program, &tree.join("usr"), "neurino-server")?;
        for unit in UNITS {
            copy(&self.server_file(unit), &tree.join("usr/lib/systemd/system").join(unit))?;
        }
        let paper = tree.join("usr/share/doc/neurino-server/README.md");
        copy(&self.server_file("README.md"), &paper)?;
        copy(&self.server_file("neurino.env"), &tree.join("etc/neurino/neurino.env"))?;
        copy(&self.server_file("postinst"), &tree.join("DEBIAN/postinst"))?;
        fs::write(tree.join("DEBIAN/conffiles"), "/etc/neurino/neurino.env\n")?;
        let control = Control { version: self.version.clone(), ..SERVER };
        listed(&tree, debian::pack(&tree, program, &control, packages)?)
    }

    /// The same files below one folder, to be unpacked anywhere.
    fn server_tarball(&self, program: &Path, work: &Path, packages: &Path) -> Result<PathBuf> {
        let name = format!("neurino-server-{}-linux-{}", self.version, std::env::consts::ARCH);
        let folder = work.join("tar").join(&name);
        copy(program, &folder.join(program_name()))?;
        self.resources(&folder.join("resources"))?;
        self.papers(&folder)?;
        for file in UNITS.iter().chain(&["neurino.env", "README.md"]) {
            copy(&self.server_file(file), &folder.join(file))?;
        }
        let file = packages.join(format!("{name}.tar.xz"));
        let mtime = format!("--mtime=@{}", contents::built_at()?);
        Cmd::new(&work.join("tar"), "tar")
            .arg(mtime)
            .args(["--create", "--xz", "--owner=0", "--group=0", "--sort=name", "--file"])
            .args([file.as_os_str(), name.as_ref()])
            .run()?;
        listed(&folder, file)
    }

    /// The folder that a program of this kind updates itself from, where it lies in one of its own.
    fn update_package(
        &self,
        program: &Path,
        package: &str,
        work: &Path,
        packages: &Path,
    ) -> Result<PathBuf> {
        let folder = work.join("update").join(package);
        copy(program, &folder.join(program_name()))?;
        self.resources(&folder.join("resources"))?;
        self.papers(&folder)?;
        let name = format!("{package}-{}-linux-{}", self.version, std::env::consts::ARCH);
        release::folder_package(program, &folder, packages, &name)
    }

    fn server_file(&self, name: &str) -> PathBuf {
        self.workspace.path("installers/server").join(name)
    }

    fn install(&self, program: &Path, usr: &Path, package: &str) -> Result<()> {
        copy(program, &usr.join("bin").join(program_name()))?;
        self.resources(&usr.join("lib/neurino"))?;
        self.papers(&usr.join("share/doc").join(package))
    }

    /// What the program looks for in its resource folder (`neurino_config::Dirs::resources`).
    fn resources(&self, folder: &Path) -> Result<()> {
        let name = self.model.file_name().context("the starter model's path names no file")?;
        copy(&self.model, &folder.join("models").join(name))?;
        resources::copy_own_weights(self.workspace, folder)?;
        if self.with_cuda {
            let from = cuda::cuda_path(&self.workspace.target).join(cuda::LIBDEVICE);
            copy(&from, &folder.join("cuda").join(cuda::LIBDEVICE))?;
        }
        Ok(())
    }

    /// Licence, notices, and the list of what is linked in.
    fn papers(&self, folder: &Path) -> Result<()> {
        copy(&self.workspace.path("LICENSE"), &folder.join("copyright"))?;
        copy(&self.workspace.path("NOTICE"), &folder.join("NOTICE"))?;
        fs::write(folder.join("THIRD-PARTY.txt"), third_party(self.workspace, self.with_cuda)?)?;
        Ok(())
    }
}

/// Size folders of the icon theme and the files in `icons/` that go there.
const ICONS: [(&str, &str); 5] = [
    ("scalable", "neurino.svg"),
    ("512x512", "icon.png"),
    ("256x256", "256x256.png"),
    ("128x128", "128x128.png"),
    ("32x32", "32x32.png"),
];

const UNITS: [&str; 2] = ["neurino-node.service", "neurino-coordinator.service"];

fn extension(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Every library linked into the desktop build, with its version, licence and home.
fn third_party(workspace: &Workspace, with_cuda: bool) -> Result<String> {
    let mut tree = workspace.cargo("tree").args(["--package", "neurino", "--edges", "normal"]);
    if with_cuda {
        tree = tree.args(["--features", "cuda"]);
    }
    let list = tree.args(["--prefix", "none", "--format", "{p}: {l} ({r})"]).output()?;
    let own = format!("({}", workspace.root.display());
    let lines: BTreeSet<&str> = list
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.contains(&own))
        .collect();
    let mut text = String::from("Libraries linked into Neurino, with their licences.\n\n");
    for line in lines {
        writeln!(text, "{line}")?;
    }
    Ok(text)
}
