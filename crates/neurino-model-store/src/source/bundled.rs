//! A file that was installed with the program.

use std::fs::File;
use std::io;

use super::{Job, copy_to_part, off_thread};
use crate::error::SourceError;

/// Copies `path` below the resource folder.
pub(crate) async fn fetch(path: &str, job: &Job<'_>) -> Result<(), SourceError> {
    let Some(resources) = &job.options.resources else { return Err(SourceError::NotBundled) };
    let source = resources.join(path);
    let (part, file) = (job.part.clone(), job.file.clone());
    off_thread(job, move |done, cancel| {
        let opened = match File::open(&source) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::NotBundled);
            }
            Err(error) => return Err(SourceError::io("read", &source, error)),
        };
        let found_bytes =
            opened.metadata().map_err(|error| SourceError::io("read", &source, error))?.len();
        if found_bytes != file.size_bytes {
            return Err(SourceError::WrongSize { expected_bytes: file.size_bytes, found_bytes });
        }
        copy_to_part(opened, part, &file, done, cancel)
    })
    .await
}
