//! What can go wrong outside a job.

use std::io;
use std::path::{Path, PathBuf};

/// Why a miner cannot start or keep its records.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// The system refused a file operation.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, for example `write`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is nothing to serve.
    #[error("the miner was given no model; fetch one first")]
    NoModel,
}

impl MinerError {
    /// For `map_err` on file operations.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
