//! What can go wrong with the records.

use std::io;
use std::path::{Path, PathBuf};

/// Why a record cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
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
    /// What records are written to does not take them.
    #[error("the export cannot be written")]
    Export(#[source] io::Error),
    /// A text is no list of receipts.
    #[error("entry {at} is no receipt: {rule}")]
    NotReceipts {
        /// The line, or in an array the entry, counted from 1.
        at: usize,
        /// What is wrong with it.
        rule: String,
    },
    /// A price of energy that means nothing.
    #[error("{0}")]
    Tariff(&'static str),
}

impl RecordError {
    /// For `map_err` on file operations.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Opens a record for reading and writing, readable by this user alone; makes file and folder.
pub(crate) fn open_private(path: &Path) -> Result<std::fs::File, RecordError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(RecordError::io("make the folder", folder))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(RecordError::io("open", path))
}

/// Replaces a file whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".neurino-").tempfile_in(folder)?;
        io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(RecordError::io("write", path))
}
