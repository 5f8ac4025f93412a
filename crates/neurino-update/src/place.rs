//! Where this program lies, and who may replace it there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::release::{Edition, PackageKind};

/// Everything of an update lies in this folder beside the program, so that renames stay on one drive.
pub const FOLDER: &str = ".neurino-update";
/// The name of the variable with which an AppImage tells its own file.
const APPIMAGE: &str = "APPIMAGE";

/// An installation of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file that a person or a menu starts.
    pub program: PathBuf,
    /// The folder it lies in.
    pub folder: PathBuf,
    /// Who replaces it.
    pub keeper: Keeper,
    /// With the window or without.
    pub edition: Edition,
}

/// Who replaces the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// The program itself: the folder is the person's own.
    Itself,
    /// The program itself: it is one file.
    AppImage,
    /// dpkg: this package owns the file.
    Dpkg(String),
    /// rpm: this package owns the file.
    Rpm(String),
    /// Whoever may write there.
    Other,
}

impl Place {
    /// The installation of the program that runs, as it was when this was first asked: once another file
    /// lies there, the system calls the one that runs deleted.
    ///
    /// # Errors
    /// The system does not tell the program's own file.
    pub fn here(edition: Edition) -> std::io::Result<Self> {
        let program = own_file()?;
        let image = std::env::var_os(APPIMAGE).map(PathBuf::from).filter(|path| path.is_file());
        Ok(Self::of(program, image, edition))
    }

    /// The installation of a program; `image` is the AppImage that it runs from.
    pub fn of(program: PathBuf, image: Option<PathBuf>, edition: Edition) -> Self {
        // Another AppImage's variable is inherited by everything it starts.
        let image = image.filter(|_| program.to_string_lossy().contains("/.mount_"));
        let is_image = image.is_some();
        let program = image.unwrap_or(program);
        let folder = program.parent().unwrap_or(Path::new(".")).to_owned();
        let packaged = (!is_image).then(|| package_of(&program)).flatten();
        let keeper = match packaged {
            Some(keeper) => keeper,
            None if !may_write(&folder) => Keeper::Other,
            None if is_image => Keeper::AppImage,
            None => Keeper::Itself,
        };
        Self { program, folder, keeper, edition }
    }

    /// The kind of package that updates it.
    pub fn kind(&self) -> PackageKind {
        match self.keeper {
            Keeper::AppImage => PackageKind::AppImage,
            Keeper::Dpkg(_) => PackageKind::Deb,
            Keeper::Rpm(_) => PackageKind::Rpm,
            Keeper::Itself | Keeper::Other => PackageKind::Folder,
        }
    }

    /// Whether it replaces itself.
    pub fn replaces_itself(&self) -> bool {
        matches!(self.keeper, Keeper::Itself | Keeper::AppImage)
    }

    /// What a person types to install `file`, once it is downloaded; `None` where the program does it.
    pub fn command(&self, file: &str) -> Option<String> {
        match &self.keeper {
            Keeper::Dpkg(_) => Some(format!("sudo apt install ./{file}")),
            Keeper::Rpm(_) => Some(format!("sudo dnf install ./{file}")),
            Keeper::Other => Some(unpack_command(file, &self.folder, cfg!(windows))),
            Keeper::Itself | Keeper::AppImage => None,
        }
    }

    /// What a person types to install a file that lies elsewhere; `None` where the program does it.
    pub fn command_for(&self, file: &Path) -> Option<String> {
        let command = self.command("\u{0}")?;
        let file = quoted(&file.display().to_string(), cfg!(windows));
        Some(command.replace("./\u{0}", &file).replace('\u{0}', &file))
    }

    /// The folder of updates.
    pub fn updates(&self) -> PathBuf {
        self.folder.join(FOLDER)
    }
}

/// The command for a folder that belongs to somebody else; `windows` for a PowerShell that an
/// administrator opened.
fn unpack_command(file: &str, folder: &Path, windows: bool) -> String {
    let folder = folder.display().to_string();
    if windows {
        let folder = folder.replace('\'', "''");
        format!("Expand-Archive -Force -LiteralPath {file} -DestinationPath '{folder}'")
    } else {
        format!("sudo unzip -o {file} -d '{}'", folder.replace('\'', r"'\''"))
    }
}

/// A path as one word of a shell.
fn quoted(path: &str, windows: bool) -> String {
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+~".contains(c));
    match (plain, windows) {
        (true, _) => path.to_owned(),
        (false, true) => format!("'{}'", path.replace('\'', "''")),
        (false, false) => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// The file of this program, by the name it had at first.
fn own_file() -> std::io::Result<PathBuf> {
    static OWN: OnceLock<PathBuf> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own.clone());
    }
    let own = std::env::current_exe()?;
    Ok(OWN.get_or_init(|| own).clone())
}

/// The package that owns a file, where the system's package tools say so.
fn package_of(program: &Path) -> Option<Keeper> {
    let system = ["/usr/", "/opt/", "/bin/", "/sbin/"];
    if !cfg!(target_os = "linux") || !system.iter().any(|f| program.starts_with(f)) {
        return None;
    }
    // "neurino: /usr/bin/neurino", with an architecture where several are mixed.
    let dpkg = asked("dpkg-query", &["--search"], program);
    if let Some(name) = dpkg.as_deref().and_then(|said| said.split([':', ',']).next()) {
        return Some(Keeper::Dpkg(name.trim().to_owned()));
    }
    let rpm = asked("rpm", &["--query", "--queryformat", "%{NAME}", "--file"], program);
    rpm.map(|name| Keeper::Rpm(name.trim().to_owned()))
}

/// What a package tool says of a file; `None` where there is no such tool, or no such package.
fn asked(tool: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let mut command = Command::new(tool);
    command.args(arguments).arg(file).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !said.trim().is_empty()).then_some(said)
}

fn may_write(folder: &Path) -> bool {
    tempfile::Builder::new().prefix(".neurino-").tempfile_in(folder).is_ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_persons_own_is_replaced_by_the_program_itself() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("neurino");
        let place = Place::of(program.clone(), None, Edition::Desktop);
        assert_eq!((place.keeper.clone(), place.kind()), (Keeper::Itself, PackageKind::Folder));
        assert_eq!(place.command("x"), None);
        // The variable of an AppImage that started this program says nothing of this program.
        let image = folder.path().join("other.AppImage");
        let place = Place::of(program, Some(image.clone()), Edition::Desktop);
        assert_eq!(place.keeper, Keeper::Itself);
        let mounted = PathBuf::from("/tmp/.mount_neurinoX/usr/bin/neurino");
        let place = Place::of(mounted, Some(image.clone()), Edition::Desktop);
        assert_eq!((place.program.clone(), place.kind()), (image, PackageKind::AppImage));
        assert!(place.replaces_itself());
    }

    #[test]
    fn a_folder_of_somebody_else_gets_a_command_of_its_own_system() {
        let command = unpack_command("new.zip", Path::new("C:\\Ann's"), true);
        assert_eq!(
            command,
            r"Expand-Archive -Force -LiteralPath new.zip -DestinationPath 'C:\Ann''s'"
        );
        let command = unpack_command("new.zip", Path::new("/srv/n"), false);
        assert_eq!(command, "sudo unzip -o new.zip -d '/srv/n'");
        assert_eq!(quoted(r"C:\a'b", true), r"'C:\a''b'");
        assert_eq!(quoted("/a b", false), "'/a b'");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_packages_file_is_left_to_the_package_tool() {
        // dpkg itself, where there is one, is a file of its own package.
        let dpkg = PathBuf::from("/usr/bin/dpkg");
        if !dpkg.is_file() {
            return;
        }
        let place = Place::of(dpkg, None, Edition::Desktop);
        assert_eq!(place.keeper, Keeper::Dpkg("dpkg".into()));
        assert!(!place.replaces_itself());
        let command = place.command("neurino_0.2.0_amd64.deb");
        assert_eq!(command.as_deref(), Some("sudo apt install ./neurino_0.2.0_amd64.deb"));
    }
}
