//! What can go wrong with an update. Whatever it is, the program that runs stays as it is.

use std::io;
use std::path::{Path, PathBuf};

use neurino_model_store::StoreError;

use crate::version::Version;

/// Why there is no update, or why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The list is not what the key of this program has signed.
    #[error("the list of versions cannot be trusted: {problem}")]
    Untrusted {
        /// What is wrong with it.
        problem: String,
    },
    /// The list is out of date: somebody holds newer ones back, or nobody makes any.
    #[error("the list of versions is out of date; a new one has to come from where it lies")]
    Expired,
    /// An older list than one that was seen before.
    #[error("the list offers version {offered}, and version {seen} was offered before")]
    Older {
        /// What it offers.
        offered: Version,
        /// What was seen.
        seen: Version,
    },
    /// The step is too large.
    #[error(
        "version {offered} does not follow {own}: it wants at least {minimum}; install it by hand"
    )]
    TooFar {
        /// What is offered.
        offered: Version,
        /// What runs.
        own: Version,
        /// What would have to run.
        minimum: Version,
    },
    /// There is nothing for this machine.
    #[error("version {offered} has no package for {platform}")]
    NoPackage {
        /// What is offered.
        offered: Version,
        /// This machine.
        platform: String,
    },
    /// The address of the list makes no sense.
    #[error(
        "`{text}` is not the address of a list of versions: https://.., or the whole path of a folder"
    )]
    BadSource {
        /// It.
        text: String,
    },
    /// The list cannot be had.
    #[error("the list of versions cannot be read: {problem}")]
    Unreachable {
        /// Why.
        problem: String,
    },
    /// The package cannot be had.
    #[error("the package of the new version cannot be fetched")]
    Fetch(#[source] StoreError),
    /// The package is signed and makes no sense all the same.
    #[error("the package of version {version} is damaged: {problem}")]
    Package {
        /// Its version.
        version: Version,
        /// What is wrong with it.
        problem: String,
    },
    /// The new program does not even tell its version here.
    #[error("version {version} does not start on this machine: {problem}")]
    DoesNotStart {
        /// Its version.
        version: Version,
        /// What it said.
        problem: String,
    },
    /// The program's files are not the person's own.
    #[error("the files of this program are not yours to replace")]
    NotOurs,
    /// The version that runs has yet to come up.
    #[error("version {version} is still on trial; start Neurino, wait half a minute and try again")]
    OnTrial {
        /// It.
        version: Version,
    },
    /// Another process exchanges the files.
    #[error("another Neurino exchanges its files just now; try again in a minute")]
    Busy,
    /// A file of the earlier version is not what it was.
    #[error("{} is not what was kept of the earlier version; install that one by hand", path.display())]
    KeptDamaged {
        /// Where it lies.
        path: PathBuf,
    },
    /// There is no earlier program to go back to.
    #[error("no earlier version is kept here")]
    NoWayBack,
    /// A file.
    #[error("{action} {} failed; check the free space and that this user may write there", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl UpdateError {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether trying again later may help without anybody doing anything.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Expired => true,
            Self::Fetch(error) => {
                error.reason().is_some_and(neurino_model_store::FailureReason::passes)
            }
            _ => false,
        }
    }
}
