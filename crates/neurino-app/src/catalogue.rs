//! The catalogue: what became of the network's lists, and the signed catalogue, which is looked for once a
//! day where the build names its place and its key.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neurino_config::{CatalogueFile, Dirs, SavedCatalogue};
use neurino_control::Cause;
use neurino_model_store::catalog::is_allowed_url;
use neurino_model_store::lists::{Taken, text_of};
use neurino_model_store::signed::{SignedCatalog, build_key};
use neurino_model_store::{ListKind, StoreError};
use neurino_protocol::catalogue::{
    CatalogueCommand, CatalogueEdition, CatalogueStatus, CatalogueView, ListPlaces, ListedChange,
    ListedLeft, ListsReport,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::models::not_ready;
use crate::{App, lock, now_ms, told_with_causes};

const FIRST_LOOK_AFTER: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_hours(24);
/// After a look that failed for a reason that passes.
const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(20);
/// The same where something at this machine was in the way.
const HELD_FOR: Duration = Duration::from_mins(1);
/// The clock on the wall decides when it is time: that of a computer which slept stood still.
const CLOCK_EVERY: Duration = Duration::from_mins(1);
/// A server that gives a byte now and then is not waited for any longer.
const ANSWER_WAIT: Duration = Duration::from_mins(10);
const STEP_EVERY: Duration = Duration::from_secs(1);
/// The place that this build was made with.
const SOURCE: Option<&str> = option_env!("NEURINO_CATALOGUE_SOURCE");

/// What the signed catalogue is looked for with.
#[derive(Debug, Clone)]
pub struct CatalogueOptions {
    /// Where it lies: an https address, http on this machine, or a file.
    pub source: String,
    /// Whose catalogues are believed.
    pub key: [u8; 32],
    /// The time from the start to the first look.
    pub first_look_after: Duration,
    /// The time from one look to the next.
    pub look_every: Duration,
}

impl CatalogueOptions {
    /// Those of this build; `None` where it names no place or no key.
    pub fn of_build() -> Option<Self> {
        let source = SOURCE?.trim();
        if source.is_empty() {
            return None;
        }
        Some(Self {
            source: source.to_owned(),
            key: build_key()?,
            first_look_after: FIRST_LOOK_AFTER,
            look_every: LOOK_EVERY,
        })
    }
}

/// What is known of the catalogue beyond the models in it.
pub(crate) struct Catalogue {
    options: Option<CatalogueOptions>,
    file: CatalogueFile,
    state: Mutex<State>,
    look_now: Notify,
}

struct State {
    saved: SavedCatalogue,
    looking: bool,
    problem: Option<ErrorBody>,
    report: Option<ListsReport>,
}

/// How a look ended.
enum Looked {
    /// What there is, is here.
    Done,
    /// Something has the machine or the line.
    Held(Option<Cause>),
}

impl Catalogue {
    pub(crate) fn open(dirs: &Dirs, options: Option<CatalogueOptions>) -> Self {
        let file = CatalogueFile::new(dirs);
        let state = State { saved: file.load(), looking: false, problem: None, report: None };
        Self { options, file, state: Mutex::new(state), look_now: Notify::new() }
    }

    /// Changes what outlives the program, and writes it down.
    fn save(&self, change: impl FnOnce(&mut SavedCatalogue)) {
        let mut state = lock(&self.state);
        change(&mut state.saved);
        if let Err(error) = self.file.save(&state.saved) {
            warn!("what is known of the catalogue is not saved: {}", told_with_causes(&error));
        }
    }
}

impl App {
    /// Answers the window about the catalogue.
    pub(crate) fn catalogue(
        self: &Arc<Self>,
        command: CatalogueCommand,
    ) -> Result<CatalogueView, ErrorBody> {
        match command {
            CatalogueCommand::Look => {}
            CatalogueCommand::ReadLists { places } => self.read_lists(checked(places)?)?,
            CatalogueCommand::Check => {
                if self.catalogue.options.is_none() {
                    let message = "This version looks for no newer catalogue.";
                    return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                        .with_hint("a newer version of Neurino brings newer models"));
                }
                lock(&self.catalogue.state).problem = None;
                self.catalogue.look_now.notify_one();
            }
        }
        self.changed.notify_one();
        let state = lock(&self.catalogue.state);
        Ok(CatalogueView { places: state.saved.lists.clone(), report: state.report.clone() })
    }

    /// The lists of these places were read: they are proposed the next time, and what became of their
    /// entries can be looked at.
    pub(crate) fn note_lists(&self, places: ListPlaces, taken: Taken) {
        self.catalogue.save(|saved| saved.lists = places);
        let changed = taken.changed.into_iter();
        let left = taken.left.into_iter();
        lock(&self.catalogue.state).report = Some(ListsReport {
            added: taken.added,
            known: taken.known,
            changed: changed.map(|(model, what)| ListedChange { model, what }).collect(),
            left_out: left.map(|(name, reason)| ListedLeft { name, reason }).collect(),
        });
    }

    /// The signed catalogue, for the window.
    pub(crate) fn catalogue_status(&self) -> CatalogueStatus {
        let edition = self.store.edition().map(|edition| CatalogueEdition {
            version: edition.version,
            issued_at_ms: edition.issued_at_ms,
        });
        let state = lock(&self.catalogue.state);
        CatalogueStatus {
            edition,
            looks: self.catalogue.options.is_some(),
            looking: state.looking,
            checked_at_ms: state.saved.checked_at_ms,
            problem: state.problem.clone(),
        }
    }

    /// Looks for newer editions of the signed catalogue until the application ends.
    pub(crate) fn spawn_catalogue_updates(self: &Arc<Self>) {
        let Some(options) = self.catalogue.options.clone() else { return };
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let begun = now_ms() + millis(options.first_look_after);
            let last = lock(&app.catalogue.state).saved.checked_at_ms;
            let mut next = last.map_or(begun, |last| begun.max(last + millis(options.look_every)));
            loop {
                // A clock that was put back does not put the look off.
                next =
                    next.min(now_ms() + millis(options.look_every.max(options.first_look_after)));
                let wait = Duration::from_millis((next - now_ms()).max(0).unsigned_abs());
                let asked = tokio::select! {
                    () = app.end.cancelled() => return,
                    () = app.catalogue.look_now.notified() => true,
                    () = tokio::time::sleep(wait.min(CLOCK_EVERY)) => false,
                };
                if !asked && now_ms() < next {
                    continue;
                }
                let held =
                    !asked && (!app.looks_for_newer() || lock(&app.guard).in_the_way().is_some());
                let wait = if held {
                    HELD_FOR.min(options.look_every)
                } else {
                    app.look_for_catalogue(&options, asked).await
                };
                next = now_ms() + millis(wait);
            }
        });
    }

    /// Looks once; says when to look again.
    async fn look_for_catalogue(&self, options: &CatalogueOptions, asked: bool) -> Duration {
        lock(&self.catalogue.state).looking = true;
        self.changed.notify_one();
        let outcome = self.try_catalogue(options, asked).await;
        let wait = match &outcome {
            Ok(Looked::Done) => options.look_every,
            Ok(Looked::Held(cause)) => {
                info!(?cause, "a newer catalogue is looked for later");
                HELD_FOR.min(options.look_every)
            }
            Err(error) => {
                warn!("no newer catalogue: {}", told_with_causes(error));
                let passes = error.reason().is_some_and(neurino_model_store::FailureReason::passes);
                if passes { LOOK_AGAIN_AFTER.min(options.look_every) } else { options.look_every }
            }
        };
        if !matches!(outcome, Ok(Looked::Held(_))) {
            self.catalogue.save(|saved| saved.checked_at_ms = Some(now_ms()));
        }
        let mut state = lock(&self.catalogue.state);
        state.looking = false;
        state.problem = outcome.err().map(|error| not_ready(&error));
        drop(state);
        self.changed.notify_one();
        wait
    }

    async fn try_catalogue(
        &self,
        options: &CatalogueOptions,
        asked: bool,
    ) -> Result<Looked, StoreError> {
        // On a drive that is not connected nothing is made in its place.
        if !self.store.is_there() {
            return Ok(Looked::Held(None));
        }
        let reading = tokio::time::timeout(ANSWER_WAIT, text_of(ListKind::Signed, &options.source));
        tokio::pin!(reading);
        let text = loop {
            tokio::select! {
                text = &mut reading => break text.unwrap_or(Err(StoreError::Cancelled))?,
                () = self.end.cancelled() => return Ok(Looked::Held(None)),
                () = tokio::time::sleep(STEP_EVERY), if !asked => {
                    let cause = lock(&self.guard).in_the_way();
                    if cause.is_some() {
                        return Ok(Looked::Held(cause));
                    }
                }
            }
        };
        let (store, key) = (self.store.clone(), options.key);
        let seen = lock(&self.catalogue.state).saved.version_seen;
        let accepting = tokio::task::spawn_blocking(move || {
            let accepted = SignedCatalog::consider(&store.catalog_folder(), &text, &key, seen)?;
            store.refresh();
            Ok::<_, StoreError>(accepted)
        });
        let Some(edition) = accepting.await.unwrap_or(Err(StoreError::Cancelled))? else {
            return Ok(Looked::Done);
        };
        info!(models = edition.models.len(), "catalogue {} is here", edition.version);
        self.catalogue.save(|saved| saved.version_seen = edition.version);
        self.models_changed().await;
        Ok(Looked::Done)
    }
}

/// Places that lists may be read from.
fn checked(places: ListPlaces) -> Result<ListPlaces, ErrorBody> {
    let refused = |message: String| {
        ErrorBody::new(ErrorCode::InvalidRequest, message)
            .with_hint("give its https address, or choose the file of the list")
    };
    if places.models.trim().is_empty() {
        return Err(refused("the list of models is missing".into()));
    }
    let of = |list: ListKind, place: String| {
        let place = place.trim().to_owned();
        let allowed = place.is_empty() || is_allowed_url(&place) || Path::new(&place).is_absolute();
        if allowed {
            return Ok(place);
        }
        Err(refused(format!("{list} needs an https address or the whole path of a file")))
    };
    Ok(ListPlaces {
        models: of(ListKind::Models, places.models)?,
        vae: of(ListKind::Autoencoders, places.vae)?,
        lora: of(ListKind::Loras, places.lora)?,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
