//! The ways a file can come: each ends with a complete, hashed part file, or says why not.

pub(crate) mod bundled;
pub(crate) mod http;
pub(crate) mod python;
mod transfer;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::ModelFile;
use crate::error::SourceError;
use crate::fetch::FetchOptions;
use crate::part::PartFile;

/// One file to get.
pub(crate) struct Job<'a> {
    pub(crate) file: &'a ModelFile,
    /// Where the content goes.
    pub(crate) part: PathBuf,
    /// The model's folder, for what must lie on the same drive.
    pub(crate) folder: PathBuf,
    /// Free on that drive, if known.
    pub(crate) free_bytes: Option<u64>,
    pub(crate) options: &'a FetchOptions,
    /// Takes the bytes of this file done so far.
    pub(crate) report: &'a (dyn Fn(u64) + Send + Sync),
    pub(crate) cancel: &'a CancellationToken,
}

/// Runs a task that reads and writes files off the async threads, and reports the count it keeps.
/// The task ends soon after its token is cancelled, which also happens when this future is
/// dropped.
pub(crate) async fn off_thread<T: Send + 'static>(
    job: &Job<'_>,
    task: impl FnOnce(&AtomicU64, &CancellationToken) -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let done = Arc::new(AtomicU64::new(0));
    let token = job.cancel.child_token();
    let _cancel_on_drop = token.clone().drop_guard();
    let mut running = tokio::task::spawn_blocking({
        let done = done.clone();
        move || task(&done, &token)
    });
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            outcome = &mut running => return match outcome {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(SourceError::Cancelled),
                },
            },
            _ = tick.tick() => (job.report)(done.load(Ordering::Relaxed)),
        }
    }
}

/// Copies a reader into a fresh part file, hashing on the way, and ends it.
pub(crate) fn copy_to_part(
    mut reader: impl Read,
    part: PathBuf,
    file: &ModelFile,
    done: &AtomicU64,
    cancel: &CancellationToken,
) -> Result<(), SourceError> {
    let mut part = PartFile::create(part)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        if cancel.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        match reader.read(&mut buffer) {
            Ok(0) => return part.finish(file),
            Ok(count) => part.write(&buffer[..count], file)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SourceError::io("read the source of", part.path(), error)),
        }
        done.store(part.done_bytes(), Ordering::Relaxed);
    }
}
