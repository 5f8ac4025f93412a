//! What can go wrong with folders and settings: the path first, then a way out.

use std::io;
use std::path::PathBuf;

/// A folder, a settings file or the instance lock is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system names no home folder for this user.
    #[error("this user has no home folder; set NEURINO_HOME to a folder that Neurino may write to")]
    NoHome,
    /// A folder given by the person or the environment is not a usable path.
    #[error("`{path}` cannot be used as a folder; give an absolute path in {name}")]
    BadPath {
        /// Who gave it: `NEURINO_HOME`, `NEURINO_MODELS`, ...
        name: &'static str,
        /// The path as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder could not be created.
    #[error(
        "cannot create the {what} folder `{path}`; free the path, or set NEURINO_HOME to a folder \
         that you may write to"
    )]
    CreateDir {
        /// What the folder is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder of the model library is not there and is not to be created, or could not be.
    #[error(
        "the folder of the model library, `{path}`, is not there; connect its drive, or choose \
         another folder with `neurino models move FOLDER`"
    )]
    NoLibrary {
        /// The folder.
        path: PathBuf,
        /// Why it could not be created, if that was tried.
        #[source]
        source: Option<io::Error>,
    },
    /// A file exists but could not be read.
    #[error("cannot read `{path}`; check that this user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is text in another encoding, or no text.
    #[error("`{path}` is not written in UTF-8; open it in an editor and save it as UTF-8")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write `{path}`; check the free space and that this user may write there")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The settings file is not TOML, or holds a key or value that does not exist.
    #[error("`{path}` is not a valid settings file: correct the line shown, or remove the file")]
    ParseSettings {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is well-formed but means nothing here.
    #[error("`{value}` is not a valid {name}: {rule}")]
    InvalidValue {
        /// The variable or key, for example `NEURINO_DEVICE`.
        name: String,
        /// The rejected text, cut to 80 characters.
        value: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// Another Neurino uses the same data folder.
    #[error(
        "Neurino is already running with `{path}`{}; use that one, or quit it first",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The data folder.
        path: PathBuf,
        /// The process that holds it, where the system lets us read that.
        pid: Option<u32>,
    },
}

impl ConfigError {
    /// What reading a file as text failed with.
    pub(crate) fn read(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::InvalidData => Self::NotUtf8 { path },
            _ => Self::Read { path, source },
        }
    }

    /// A rejected value, cut so that a mistaken paste does not flood a log.
    pub(crate) fn invalid(name: &str, value: &str, rule: &'static str) -> Self {
        Self::InvalidValue { name: name.to_owned(), value: value.chars().take(80).collect(), rule }
    }
}
