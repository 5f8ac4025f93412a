//! Where things lie on this machine.
//!
//! With a home folder (`--home`, `NEURINO_HOME`) everything lies below it; without one, in the
//! folders the system gives a user's programs.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use directories::{ProjectDirs, UserDirs};

use crate::env;
use crate::error::ConfigError;
use crate::library::LibraryFile;

/// The program's folders; all are absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Ledger, key file, lock: what must survive.
    pub data: PathBuf,
    /// `settings.toml` and `preferences.toml`.
    pub config: PathBuf,
    /// Log files.
    pub logs: PathBuf,
    /// Model files.
    pub models: PathBuf,
    /// Finished jobs that wait for their receipt.
    pub outbox: PathBuf,
    /// Pictures that the person keeps; made when the first one is.
    pub pictures: PathBuf,
    /// Exports and bundles that the person asks for; made when the first one is.
    pub exports: PathBuf,
    /// What was installed with the program; read only, and may not exist.
    pub resources: PathBuf,
}

impl Dirs {
    /// Finds the folders; creates none. `home` is what a flag said and wins over
    /// `NEURINO_HOME`; relative paths count from the working folder.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`], [`ConfigError::BadPath`].
    pub fn discover(home: Option<PathBuf>) -> Result<Self, ConfigError> {
        let program = std::env::current_exe().ok();
        Self::resolve(home, &env::var, program.as_deref())
    }

    /// Where the engine keeps what it tunes for a card; made when the first card is used.
    pub fn tunings(&self) -> PathBuf {
        self.data.join("tuning")
    }

    /// Creates what is missing but the library's folder, which may lie on a drive that is not there:
    /// [`Dirs::create_models`]. On unix only the user may look inside. Folders that exist keep their mode.
    ///
    /// # Errors
    /// [`ConfigError::CreateDir`] with the folder and a way out.
    pub fn create(&self) -> Result<(), ConfigError> {
        for (what, path) in [
            ("data", &self.data),
            ("configuration", &self.config),
            ("log", &self.logs),
            ("outbox", &self.outbox),
        ] {
            create_private(path).map_err(|source| ConfigError::CreateDir {
                what,
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Creates the library's folder if it is missing. One that the library was moved to is not created:
    /// there its drive is missing, and models would be fetched anew to wherever its name leads now.
    ///
    /// # Errors
    /// [`ConfigError::NoLibrary`] with a way out.
    pub fn create_models(&self) -> Result<(), ConfigError> {
        let away = |source| ConfigError::NoLibrary { path: self.models.clone(), source };
        if self.is_library_away() {
            return Err(away(None));
        }
        create_private(&self.models).map_err(|error| away(Some(error)))
    }

    /// Whether the library was moved to a folder that is not there now.
    pub fn is_library_away(&self) -> bool {
        let moved = LibraryFile::moved_to(&self.config).is_some_and(|to| to == self.models);
        moved && !self.models.is_dir()
    }

    /// [`Dirs::discover`] with the environment and the program's path given.
    pub(crate) fn resolve(
        home: Option<PathBuf>,
        lookup: &dyn Fn(&str) -> Option<OsString>,
        program: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let home = home.or_else(|| lookup(env::HOME).map(PathBuf::from));
        let (data, config, logs, models, pictures, exports) = if let Some(home) = home {
            let home = absolute(env::HOME, home)?;
            let below = |name| home.join(name);
            let (pictures, exports) = (below("pictures"), below("exports"));
            (below("data"), below("config"), below("logs"), below("models"), pictures, exports)
        } else {
            let name = if cfg!(target_os = "linux") { "neurino" } else { "Neurino" };
            let user = ProjectDirs::from("", "", name).ok_or(ConfigError::NoHome)?;
            let data = user.data_local_dir().to_owned();
            let (logs, models) = (data.join("logs"), data.join("models"));
            let shown = UserDirs::new().and_then(|dirs| dirs.picture_dir().map(Path::to_owned));
            let pictures =
                shown.map_or_else(|| data.join("pictures"), |folder| folder.join("Neurino"));
            let shown = UserDirs::new().and_then(|dirs| dirs.document_dir().map(Path::to_owned));
            let exports =
                shown.map_or_else(|| data.join("exports"), |folder| folder.join("Neurino"));
            (data, user.config_dir().to_owned(), logs, models, pictures, exports)
        };
        let models = match lookup(env::MODELS) {
            Some(path) => absolute(env::MODELS, path.into())?,
            None => LibraryFile::moved_to(&config).unwrap_or(models),
        };
        let resources = match lookup(env::RESOURCES) {
            Some(path) => absolute(env::RESOURCES, path.into())?,
            None => installed_resources(program),
        };
        let outbox = data.join("outbox");
        Ok(Self { data, config, logs, models, outbox, pictures, exports, resources })
    }
}

fn absolute(name: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path).map_err(|source| ConfigError::BadPath { name, path, source })
}

/// The resource folder of an installation, seen from its program: beside it (Windows, tarball),
/// `../lib/neurino` (Debian and RPM packages) or `../Resources` (macOS). The first that exists.
fn installed_resources(program: Option<&Path>) -> PathBuf {
    let folder = program.and_then(Path::parent).unwrap_or(Path::new("."));
    let beside = folder.join("resources");
    let above = folder.parent().unwrap_or(folder);
    let elsewhere = [above.join("lib/neurino"), above.join("lib/Neurino"), above.join("Resources")];
    if beside.is_dir() {
        return beside;
    }
    elsewhere.into_iter().find(|path| path.is_dir()).unwrap_or(beside)
}

fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn a_home_holds_everything_and_a_flag_wins_over_the_variable() {
        let lookup = |name: &str| (name == env::HOME).then(|| OsString::from("/variable"));
        let dirs = Dirs::resolve(None, &lookup, None).unwrap();
        assert!(dirs.data.ends_with("variable/data"), "{dirs:?}");
        let dirs = Dirs::resolve(Some("flag".into()), &lookup, None).unwrap();
        assert!(dirs.data.is_absolute() && dirs.data.ends_with("flag/data"), "{dirs:?}");
        assert!(dirs.config.ends_with("flag/config"));
        assert!(dirs.outbox.ends_with("flag/data/outbox"));
        assert!(dirs.models.ends_with("flag/models"));
    }

    #[test]
    fn models_and_resources_can_lie_elsewhere() {
        let lookup = |name: &str| match name {
            env::MODELS => Some(OsString::from("/big/models")),
            env::RESOURCES => Some(OsString::from("/opt/neurino")),
            _ => None,
        };
        let dirs = Dirs::resolve(Some("h".into()), &lookup, None).unwrap();
        assert!(dirs.models.ends_with("big/models") && dirs.resources.ends_with("opt/neurino"));
    }

    #[test]
    fn resources_are_found_from_the_program() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("bin/neurino");
        let find = || Dirs::resolve(Some("h".into()), &nothing, Some(&program)).unwrap().resources;
        assert_eq!(find(), root.path().join("bin/resources"), "nothing installed");
        std::fs::create_dir_all(root.path().join("lib/neurino")).unwrap();
        assert_eq!(find(), root.path().join("lib/neurino"));
        std::fs::create_dir_all(root.path().join("bin/resources")).unwrap();
        assert_eq!(find(), root.path().join("bin/resources"));
    }

    #[test]
    fn folders_are_created_private_and_twice_is_fine() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("deep/home");
        let dirs = Dirs::resolve(Some(home), &nothing, None).unwrap();
        dirs.create().unwrap();
        dirs.create().unwrap();
        dirs.create_models().unwrap();
        for path in [&dirs.data, &dirs.config, &dirs.logs, &dirs.models, &dirs.outbox] {
            assert!(path.is_dir());
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
            }
        }
        assert!(!dirs.resources.exists() || dirs.resources.is_dir());
    }

    #[test]
    fn a_library_on_a_drive_that_is_not_there_keeps_nothing_from_being_created() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(Some(root.path().join("home")), &nothing, None).unwrap();
        dirs.create().unwrap();
        assert!(!dirs.models.exists());
        let drive = root.path().join("drive/neurino-models");
        LibraryFile::new(&dirs).set_folder(&drive).unwrap();
        let dirs = Dirs::resolve(Some(root.path().join("home")), &nothing, None).unwrap();
        dirs.create().unwrap();
        let error = dirs.create_models().unwrap_err().to_string();
        assert!(error.contains("neurino-models") && !error.contains(env::HOME), "{error}");
        assert!(dirs.is_library_away());
        assert!(!drive.exists(), "the folder would lie on another drive");
        std::fs::create_dir_all(&drive).unwrap();
        dirs.create_models().unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_named_with_a_way_out() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        std::fs::write(&home, "").unwrap();
        let error = Dirs::resolve(Some(home), &nothing, None).unwrap().create().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("home") && text.contains(env::HOME), "{text}");
    }
}
