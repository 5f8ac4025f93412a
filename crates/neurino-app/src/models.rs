//! The model library, as the window sees it: what is there, what is being fetched, what failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{ImageDefaults, JobKind, ModelId};
use neurino_engine::{EngineStatus, ModelRef};
use neurino_model_store::{
    Catalog, FailureReason, FetchOptions, ListKind, ModelManifest, StoreError,
};
use neurino_protocol::app::{ModelState, ModelStatus};
use neurino_protocol::saying::Preparing;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{App, internal, lock, told_with_causes};

/// What is being fetched, and what went wrong last.
#[derive(Default)]
pub(crate) struct Progress {
    running: HashMap<ModelId, Running>,
    problems: HashMap<ModelId, ErrorBody>,
}

/// A fetch under way.
struct Running {
    progress: watch::Receiver<Fetch>,
    stop: CancellationToken,
    /// Whether the person asked for it. If not it ends with the preparation that needs it.
    asked: bool,
    /// The person took it off the list: nobody begins it again by himself.
    given_up: bool,
}

/// How often is looked whether a download that the person paused goes on.
const PAUSED_LOOK: Duration = Duration::from_millis(500);

/// How far a fetch is.
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

    /// The model that makes the practice network's pictures.
    pub(crate) fn image_starter_model() -> ModelId {
        Catalog::image_starter()
    }

    /// The image models of the catalogue, and what suits them.
    pub(crate) fn image_models(&self) -> BTreeMap<ModelId, ImageDefaults> {
        image_models(&self.store.catalog())
    }

    /// What a model makes; text where the catalogue does not know it.
    pub(crate) fn kind_of(&self, id: &ModelId) -> JobKind {
        self.store.catalog().get(id).map_or(JobKind::Text, |model| model.kind)
    }

    /// Whether a model of the catalogue makes pictures.
    pub(crate) fn makes_pictures(&self, id: &ModelId) -> bool {
        self.store.catalog().get(id).is_some_and(|model| model.kind == JobKind::Image)
    }

    /// Models of the catalogue whose files are all on this machine.
    pub(crate) fn models_here(&self) -> Vec<ModelId> {
        let here = |m: &&ModelManifest| self.is_here(&m.id);
        self.store.catalog().models().iter().filter(here).map(|m| m.id.clone()).collect()
    }

    /// Whether all files of a model are on this machine.
    pub(crate) fn is_here(&self, id: &ModelId) -> bool {
        self.store.is_usable(id)
    }

    /// A model whose files have just been checked against their digests.
    pub(crate) async fn model_ref(&self, id: &ModelId) -> Result<ModelRef, ErrorBody> {
        match self.store.verified(id).await {
            Ok(path) => {
                let digests = self.store.digests(id, &path).into_iter();
                let sha256 = digests.map(|(name, sha256)| (name, sha256.to_string())).collect();
                Ok(ModelRef { sha256, ..ModelRef::new(id.clone(), path) })
            }
            Err(error) => {
                let error = not_ready(&error);
                lock(&self.models).problems.insert(id.clone(), error.clone());
                Err(error)
            }
        }
    }

    /// Puts a model on the list of downloads; progress shows in the snapshot. One that is being
    /// fetched for mining goes on when that no longer needs it.
    pub(crate) fn model_fetch(self: &Arc<Self>, id: &ModelId) -> Result<(), ErrorBody> {
        self.catalogued(id)?;
        self.enqueue(id)
    }

    /// Fetches a model because the person asked for it, and waits for its end.
    pub(crate) async fn fetch_asked(self: &Arc<Self>, id: &ModelId) -> Result<(), ErrorBody> {
        let mut progress = self.fetch(id, true)?;
        loop {
            if let Fetch::Done(outcome) = progress.borrow_and_update().clone() {
                return outcome;
            }
            if progress.changed().await.is_err() {
                return Err(internal("the download ended unexpectedly"));
            }
        }
    }

    /// Ends a fetch if one runs, and waits for that. What has arrived is kept.
    pub(crate) async fn stop_fetch(&self, id: &ModelId) {
        let running =
            lock(&self.models).running.get(id).map(|r| (r.stop.clone(), r.progress.clone()));
        let Some((stop, mut progress)) = running else { return };
        stop.cancel();
        while !matches!(&*progress.borrow_and_update(), Fetch::Done(_)) {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Notes that the person wants this fetch no longer, whoever waits for it.
    pub(crate) fn give_up_fetch(&self, id: &ModelId) {
        if let Some(running) = lock(&self.models).running.get_mut(id) {
            running.given_up = true;
        }
    }

    /// Ends all fetches.
    pub(crate) async fn stop_all_fetches(&self) {
        let running: Vec<ModelId> = lock(&self.models).running.keys().cloned().collect();
        for id in running {
            self.stop_fetch(&id).await;
        }
    }

    /// What is being fetched: bytes done, bytes in all.
    pub(crate) fn fetches(&self) -> Vec<(ModelId, u64, u64)> {
        let models = lock(&self.models);
        let running =
            models.running.iter().filter_map(|(id, running)| match *running.progress.borrow() {
                Fetch::Running { done_bytes, total_bytes } => {
                    Some((id.clone(), done_bytes, total_bytes))
                }
                Fetch::Done(_) => None,
            });
        running.collect()
    }

    /// What went wrong with a model last.
    pub(crate) fn problem_of(&self, id: &ModelId) -> Option<ErrorBody> {
        lock(&self.models).problems.get(id).cloned()
    }

    /// What went wrong with a model is no longer of interest.
    pub(crate) fn forget_problem(&self, id: &ModelId) {
        lock(&self.models).problems.remove(id);
    }

    /// The model in memory.
    pub(crate) fn loaded_model(&self) -> Option<ModelId> {
        match &*self.engine().status().borrow() {
            EngineStatus::Ready(model) => Some(model.id.clone()),
            _ => None,
        }
    }

    /// Whether a model is in memory.
    pub(crate) fn is_loaded(&self, id: &ModelId) -> bool {
        self.loaded_model().as_ref() == Some(id)
    }

    /// A model's bytes, if the catalogue has it.
    fn catalogued(&self, id: &ModelId) -> Result<u64, ErrorBody> {
        let catalog = self.store.catalog();
        catalog.get(id).map(ModelManifest::size_bytes).ok_or_else(|| {
            let known: Vec<_> = catalog.models().iter().map(|m| m.id.to_string()).collect();
            let message = format!("the catalogue has no model `{id}`");
            ErrorBody::new(ErrorCode::UnknownModel, message)
                .with_hint(format!("it has: {}", known.join(", ")))
        })
    }

    /// Starts a fetch, or joins the one that runs, and waits for its end. Dropping this future ends
    /// the fetch unless the person asked for it; what has arrived is kept. One that the person paused is
    /// waited for, and one that they take off the list is an error.
    pub(crate) async fn fetch_and_wait(
        self: &Arc<Self>,
        id: &ModelId,
        tell: impl Fn(Preparing),
    ) -> Result<(), ErrorBody> {
        let mut last = 0;
        loop {
            self.until_wanted(id, || tell(Preparing::Paused { percent: last })).await?;
            let mut progress = self.fetch(id, false)?;
            let _leave = Leave { app: self, id };
            let outcome = loop {
                match progress.borrow_and_update().clone() {
                    Fetch::Running { done_bytes, total_bytes } => {
                        last = done_bytes * 100 / total_bytes.max(1);
                        tell(Preparing::Fetching { percent: last });
                    }
                    Fetch::Done(outcome) => break outcome,
                }
                if progress.changed().await.is_err() {
                    return Err(internal("the download ended unexpectedly"));
                }
            };
            match outcome {
                // It was the fetch of a preparation that was stopped, and this one wants its own; or the
                // person paused it.
                Err(error) if error.code == ErrorCode::Cancelled && !self.end.is_cancelled() => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits while the person has paused this download.
    async fn until_wanted(&self, id: &ModelId, tell: impl Fn()) -> Result<(), ErrorBody> {
        let mut was_paused = false;
        while !self.is_here(id) {
            match self.library.is_paused(id) {
                Some(true) => was_paused = true,
                None if was_paused => return Err(given_up(id)),
                Some(false) | None => break,
            }
            tell();
            tokio::select! {
                () = self.end.cancelled() => {
                    return Err(ErrorBody::new(ErrorCode::Cancelled, "Neurino is closing."));
                }
                () = tokio::time::sleep(PAUSED_LOOK) => {}
            }
        }
        Ok(())
    }

    fn fetch(
        self: &Arc<Self>,
        id: &ModelId,
        asked: bool,
    ) -> Result<watch::Receiver<Fetch>, ErrorBody> {
        let total_bytes = self.catalogued(id)?;
        let mut models = lock(&self.models);
        if let Some(running) = models.running.get_mut(id) {
            running.asked |= asked;
            return Ok(running.progress.clone());
        }
        let (sender, progress) = watch::channel(Fetch::Running { done_bytes: 0, total_bytes });
        let stop = self.end.child_token();
        let running =
            Running { progress: progress.clone(), stop: stop.clone(), asked, given_up: false };
        models.running.insert(id.clone(), running);
        models.problems.remove(id);
        drop(models);
        let (app, id) = (Arc::clone(self), id.clone());
        self.tasks.spawn(async move { app.fetch_to_the_end(&id, sender, stop).await });
        Ok(progress)
    }

    async fn fetch_to_the_end(
        self: &Arc<Self>,
        id: &ModelId,
        sender: watch::Sender<Fetch>,
        stop: CancellationToken,
    ) {
        let options = FetchOptions {
            resources: Some(self.dirs.resources.clone()),
            connections: self.library.connections(),
            throttle: Some(self.library.throttle()),
            ..FetchOptions::default()
        };
        let tell = |p: neurino_model_store::Progress| {
            let (done_bytes, total_bytes) = (p.done_bytes, p.total_bytes);
            sender.send_replace(Fetch::Running { done_bytes, total_bytes });
            self.library.note_progress(id, done_bytes);
            self.changed.notify_one();
        };
        let outcome = self.store.fetch(id, &options, tell, stop).await;
        let mut outcome = outcome.map(|_| ()).map_err(|error| not_ready(&error));
        self.library.note_end(id);
        {
            let mut models = lock(&self.models);
            let was_given_up = models.running.remove(id).is_some_and(|running| running.given_up);
            let cancelled = matches!(&outcome, Err(error) if error.code == ErrorCode::Cancelled);
            if cancelled && was_given_up {
                outcome = Err(given_up(id));
            } else if let Err(error) = &outcome
                && !cancelled
            {
                models.problems.insert(id.clone(), error.clone());
            }
        }
        let came = outcome.is_ok();
        sender.send_replace(Fetch::Done(outcome));
        self.changed.notify_one();
        if came {
            self.came(id).await;
        }
    }

    /// A model came whole. Where the version before is in memory, running jobs are finished with it and
    /// the new one is loaded; then the old files go.
    async fn came(self: &Arc<Self>, id: &ModelId) {
        if self.store.keeps_needless_former(id) && self.is_loaded(id) {
            info!(model.id = %id, "a newer version of {id} is loaded between two jobs");
            self.mine_anew(false);
        }
        self.models_changed().await;
        self.forget_formers(false).await;
    }

    /// Deletes versions before of models whose new ones are whole, unless one may be in memory. What an
    /// engine says of itself may be a moment old; `unloaded` says that it has just given all of it back.
    pub(crate) async fn forget_formers(&self, unloaded: bool) {
        let catalog = self.store.catalog();
        let models = catalog.models().iter().map(|model| model.id.clone());
        let needless: Vec<_> = models.filter(|id| self.store.keeps_needless_former(id)).collect();
        let idle = || matches!(*self.engine().status().borrow(), EngineStatus::Idle);
        if needless.is_empty() || !(unloaded || idle()) {
            return;
        }
        let store = self.store.clone();
        let forgetting = tokio::task::spawn_blocking(move || {
            for id in needless {
                if let Err(error) = store.forget_former(&id) {
                    warn!(model.id = %id, "the old version stays: {}", told_with_causes(&error));
                }
            }
        });
        let _ = forgetting.await;
        self.library.look_again();
    }

    /// Every model of the catalogue and where it stands. `loaded` is the one in memory.
    pub(crate) fn model_statuses(&self, loaded: Option<&ModelId>) -> Vec<ModelStatus> {
        self.statuses_of(loaded, |_| true)
    }

    /// Models that are being fetched.
    pub(crate) fn running_fetches(&self) -> BTreeSet<ModelId> {
        let progress = lock(&self.models);
        let runs = |fetch: &Fetch| matches!(fetch, Fetch::Running { .. });
        let running = progress.running.iter().filter(|(_, one)| runs(&one.progress.borrow()));
        running.map(|(id, _)| id.clone()).collect()
    }

    /// [`App::model_statuses`] of some.
    pub(crate) fn statuses_of(
        &self,
        loaded: Option<&ModelId>,
        wanted: impl Fn(&ModelId) -> bool,
    ) -> Vec<ModelStatus> {
        let progress = lock(&self.models);
        let status = |m: &ModelManifest| {
            let running = progress.running.get(&m.id).map(|r| r.progress.borrow().clone());
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
                kind: m.kind,
                image: m.image.clone(),
                size_bytes: m.size_bytes(),
                licence: m.licence.clone(),
                state,
                problem: progress.problems.get(&m.id).cloned(),
            }
        };
        let catalog = self.store.catalog();
        catalog.models().iter().filter(|m| wanted(&m.id)).map(status).collect()
    }
}

/// What mining is told of a download that the person took off the list.
fn given_up(id: &ModelId) -> ErrorBody {
    let message = format!("the download of {id} was cancelled");
    ErrorBody::new(ErrorCode::ModelNotReady, message)
        .with_hint("press Start to fetch it again, or fetch another model first")
}

/// Every model of a catalogue.
pub(crate) fn all_models(catalog: &Catalog) -> Vec<ModelId> {
    catalog.models().iter().map(|model| model.id.clone()).collect()
}

/// The image models of a catalogue, and what suits them, with the sampler that their kind has if the
/// catalogue names none.
pub(crate) fn image_models(catalog: &Catalog) -> BTreeMap<ModelId, ImageDefaults> {
    let usual = |model: &ModelManifest| {
        let mut image = model.image.clone()?;
        let of_kind = || ImageDefaults::sampler_of(&model.arch).map(str::to_owned);
        image.sampler = image.sampler.or_else(of_kind);
        Some((model.id.clone(), image))
    };
    catalog.models().iter().filter_map(usual).collect()
}

/// Ends a fetch that nobody else wants when its waiter goes away.
struct Leave<'a> {
    app: &'a App,
    id: &'a ModelId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.app.models).running.get(self.id)
            && !running.asked
        {
            running.stop.cancel();
        }
    }
}

/// The store's own words, and what helps beyond them.
pub(crate) fn not_ready(error: &StoreError) -> ErrorBody {
    let reason = error.reason();
    let code = match error {
        StoreError::Cancelled => ErrorCode::Cancelled,
        StoreError::UnknownModel { .. } => ErrorCode::UnknownModel,
        StoreError::BadList { .. } if !reason.is_some_and(FailureReason::passes) => {
            ErrorCode::InvalidRequest
        }
        _ if reason.is_some_and(FailureReason::passes) => ErrorCode::Unreachable,
        _ => ErrorCode::ModelNotReady,
    };
    let body = ErrorBody::new(code, told_with_causes(error));
    if matches!(error, StoreError::BadList { list, .. } if *list != ListKind::Signed) {
        return body.with_hint(
            "Check the address; or save the list with your browser, and choose that file.",
        );
    }
    match reason.and_then(what_helps) {
        Some(hint) => body.with_hint(hint),
        None => body,
    }
}

fn what_helps(reason: FailureReason) -> Option<&'static str> {
    Some(match reason {
        FailureReason::Gated => {
            "Its makers want you to sign in and accept their terms. Do that on their page with your \
             browser, download the file there, and take it over with `neurino models import`."
        }
        FailureReason::NotThere => {
            "The file is gone from where the catalogue says. A newer catalogue may know another place."
        }
        FailureReason::WrongSize | FailureReason::WrongDigest => {
            "What the server has is not what the catalogue vouches for, so it was not used. Try again \
             later, or get the file from elsewhere."
        }
        FailureReason::DiskFull => {
            "Free some space, clean the library up, or move it to another drive. What has arrived is kept."
        }
        FailureReason::ServerBusy | FailureReason::Offline | FailureReason::Interrupted => {
            "Neurino tries again by itself and goes on where it stopped."
        }
        _ => return None,
    })
}
