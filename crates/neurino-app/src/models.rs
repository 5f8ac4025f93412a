//! The model library, as the window sees it: what is there, what is being fetched, what failed.

use std::collections::HashMap;
use std::sync::Arc;

use neurino_core::ModelId;
use neurino_engine::ModelRef;
use neurino_model_store::{Catalog, FetchOptions, StoreState};
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
    /// The model a newcomer starts with: the catalogue's first.
    pub(crate) fn starter_model(&self) -> Result<ModelId, ErrorBody> {
        Catalog::built_in()
            .models()
            .first()
            .map(|m| m.id.clone())
            .ok_or_else(|| internal("the catalogue holds no model"))
    }

    /// Models of the catalogue that are on this machine.
    pub(crate) async fn models_ready(&self) -> Vec<ModelId> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || {
            let all = Catalog::built_in().models().iter().map(|m| m.id.clone());
            all.filter(|id| matches!(store.state(id), Ok(StoreState::Ready))).collect()
        })
        .await
        .unwrap_or_default()
    }

    /// A model whose files have just been checked against their digests.
    pub(crate) async fn model_ref(&self, id: &ModelId) -> Result<ModelRef, ErrorBody> {
        let (store, wanted) = (Arc::clone(&self.store), id.clone());
        let path = tokio::task::spawn_blocking(move || store.verified(&wanted))
            .await
            .map_err(|_| internal("the model's files could not be checked"))?
            .map_err(|e| ErrorBody::new(ErrorCode::ModelNotReady, e.to_string()));
        let path = path.inspect_err(|error| {
            lock(&self.models).problems.insert(id.clone(), error.clone());
        })?;
        Ok(ModelRef { id: id.clone(), path })
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
        let Some(manifest) = Catalog::built_in().get(id) else {
            let known: Vec<_> =
                Catalog::built_in().models().iter().map(|m| m.id.to_string()).collect();
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
                resources_dir: Some(app.dirs.resources.clone()),
                ..FetchOptions::default()
            };
            let tell = |p: neurino_model_store::Progress| {
                sender.send_replace(Fetch::Running {
                    done_bytes: p.done_bytes,
                    total_bytes: p.total_bytes,
                });
                app.changed.notify_one();
            };
            let outcome = app.store.fetch(&id, options, tell, app.end.child_token()).await;
            let outcome = outcome.map_err(|e| ErrorBody::new(ErrorCode::ModelNotReady, e.to_string()));
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
    pub(crate) async fn model_statuses(&self, loaded: Option<&ModelId>) -> Vec<ModelStatus> {
        let ready = self.models_ready().await;
        let progress = lock(&self.models);
        let status = |m: &neurino_model_store::ModelManifest| {
            let running = progress.running.get(&m.id).map(|f| f.borrow().clone());
            let state = match running {
                Some(Fetch::Running { done_bytes, total_bytes }) => {
                    ModelState::Fetching { done_bytes, total_bytes }
                }
                _ if loaded == Some(&m.id) => ModelState::Loaded,
                _ if ready.contains(&m.id) => ModelState::Ready,
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
        Catalog::built_in().models().iter().map(status).collect()
    }
}
