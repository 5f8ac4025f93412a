//! The model library, as the window sees it: what is there, what is being fetched, what failed.

use std::collections::HashMap;
use std::sync::Arc;

use neurino_core::ModelId;
use neurino_engine::ModelRef;
use neurino_model_store::{Catalog, FetchOptions, ModelManifest, ModelState as Stored};
use neurino_protocol::app::{ModelState, ModelStatus};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::watch;

use crate::{App, internal, lock};

/// What is being fetched, and what went wrong last.
#[derive(Default)]
pub(crate) struct Progress {
    running: HashMap<ModelId, watch::Receiver<Fetch>>,
    problems: HashMap<ModelId, ErrorBody>,
}

/// One fetch.
#[derive(Debug, Clone)]
enum Fetch {
    Running { done_bytes: u64, total_bytes: u64 },
    Done(Result<(), ErrorBody>),
}

impl App {
    /// The model a newcomer starts with.
    pub(crate) fn starter_model() -> ModelId {
        Catalog::starter()
    }

    /// Models of the catalogue whose files are all on this machine.
    pub(crate) fn models_here(&self) -> Vec<ModelId> {
        let here = |m: &&ModelManifest| self.is_here(&m.id);
        self.store.catalog().models().iter().filter(here).map(|m| m.id.clone()).collect()
    }

    fn is_here(&self, id: &ModelId) -> bool {
        matches!(self.store.state(id), Ok(Stored::Verified | Stored::Unverified))
    }

    /// A model whose files have just been checked against their digests.
    pub(crate) async fn model_ref(&self, id: &ModelId) -> Result<ModelRef, ErrorBody> {
        match self.store.verified(id).await {
            Ok(path) => Ok(ModelRef { id: id.clone(), path }),
            Err(error) => {
                let error = ErrorBody::new(ErrorCode::ModelNotReady, error.to_string());
                lock(&self.models).problems.insert(id.clone(), error.clone());
                Err(error)
            }
        }
    }

    /// Starts a fetch; progress shows in the snapshot.
    pub(crate) fn model_fetch(self: &Arc<Self>, id: &ModelId) -> Result<(), ErrorBody> {
        self.fetch(id).map(|_| ())
    }

    /// Starts a fetch, or joins the one that runs, and waits for its end.
    pub(crate) async fn fetch_and_wait(
        self: &Arc<Self>,
        id: &ModelId,
        percent: impl Fn(u64),
    ) -> Result<(), ErrorBody> {
        let mut fetch = self.fetch(id)?;
        loop {
            match fetch.borrow_and_update().clone() {
                Fetch::Running { done_bytes, total_bytes } => {
                    percent(done_bytes * 100 / total_bytes.max(1));
                }
                Fetch::Done(outcome) => return outcome,
            }
            if fetch.changed().await.is_err() {
                return Err(internal("the download ended unexpectedly"));
            }
        }
    }

    fn fetch(self: &Arc<Self>, id: &ModelId) -> Result<watch::Receiver<Fetch>, ErrorBody> {
        let catalog = self.store.catalog();
        let Some(manifest) = catalog.get(id) else {
            let known: Vec<_> = catalog.models().iter().map(|m| m.id.to_string()).collect();
            return Err(ErrorBody::new(
                ErrorCode::UnknownModel,
                format!("the catalogue has no model `{id}`"),
            )
            .with_hint(format!("it has: {}", known.join(", "))));
        };
        let mut progress = lock(&self.models);
        if let Some(running) = progress.running.get(id) {
            return Ok(running.clone());
        }
        let total_bytes = manifest.size_bytes();
        let (sender, receiver) = watch::channel(Fetch::Running { done_bytes: 0, total_bytes });
        progress.running.insert(id.clone(), receiver.clone());
        progress.problems.remove(id);
        drop(progress);
        let (app, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(async move {
            let options = FetchOptions {
                resources: Some(app.dirs.resources.clone()),
                ..FetchOptions::default()
            };
            let tell = |p: neurino_model_store::Progress| {
                sender.send_replace(Fetch::Running {
                    done_bytes: p.done_bytes,
                    total_bytes: p.total_bytes,
                });
                app.changed.notify_one();
            };
            let outcome = app.store.fetch(&id, &options, tell, app.end.child_token()).await;
            let outcome =
                outcome.map_err(|e| ErrorBody::new(ErrorCode::ModelNotReady, e.to_string()));
            let mut progress = lock(&app.models);
            progress.running.remove(&id);
            if let Err(error) = &outcome {
                progress.problems.insert(id, error.clone());
            }
            drop(progress);
            sender.send_replace(Fetch::Done(outcome.map(|_| ())));
            app.changed.notify_one();
        });
        Ok(receiver)
    }

    /// Every model of the catalogue and where it stands. `loaded` is the one in memory.
    pub(crate) fn model_statuses(&self, loaded: Option<&ModelId>) -> Vec<ModelStatus> {
        let progress = lock(&self.models);
        let status = |m: &ModelManifest| {
            let running = progress.running.get(&m.id).map(|f| f.borrow().clone());
            let state = match running {
                Some(Fetch::Running { done_bytes, total_bytes }) => {
                    ModelState::Fetching { done_bytes, total_bytes }
                }
                _ if loaded == Some(&m.id) => ModelState::Loaded,
                _ if self.is_here(&m.id) => ModelState::Ready,
                _ => ModelState::Absent,
            };
            ModelStatus {
                id: m.id.clone(),
                name: m.name.clone(),
                summary: m.summary.clone(),
                size_bytes: m.size_bytes(),
                licence: m.licence.clone(),
                state,
                problem: progress.problems.get(&m.id).cloned(),
            }
        };
        self.store.catalog().models().iter().map(status).collect()
    }
}
