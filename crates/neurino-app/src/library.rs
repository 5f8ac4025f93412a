//! The model library as a whole: the queue of downloads, the drive, the long tasks, and what of the
//! catalogue fits this machine. `queue` works the downloads off; this file answers commands and shows.

mod queue;
mod scrub;
mod show;
mod tasks;

pub use scrub::ScrubPace;
pub(crate) use show::fits_of;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use neurino_config::{Dirs, LibraryFile, Scrubbed, ScrubbedFile};
use neurino_control::Cause;
use neurino_core::ModelId;
use neurino_model_store::{
    DownloadQueue, ModelStore, ModelUsage, SpeedMeter, StoreError, Throttle,
};
use neurino_protocol::library::{LibraryAction, LibrarySettings, Outcome};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::Notify;

use crate::{App, internal, lock, told_with_causes};

/// Connections that a download may have.
const CONNECTIONS: std::ops::RangeInclusive<u32> = 1..=8;
/// Below this a download would not end in a lifetime.
const BYTES_PER_S_MIN: u64 = 10_000;

/// What the application keeps about the library.
pub(crate) struct Library {
    file: LibraryFile,
    scrubbed_file: ScrubbedFile,
    throttle: Arc<Throttle>,
    /// Wakes the queue.
    wake: Notify,
    state: Mutex<State>,
}

struct State {
    settings: LibrarySettings,
    queue: DownloadQueue,
    /// Speed of what is being fetched.
    meters: HashMap<ModelId, SpeedMeter>,
    /// How fast the last download was, in bytes in a second.
    last_bytes_per_s: Option<u64>,
    /// Failed downloads that may work later by themselves, and when they are tried.
    retry_at: HashMap<ModelId, Instant>,
    /// Why the queue rests.
    resting: Option<String>,
    /// What it rests for, where that is somebody or something else at this machine.
    waits_for: Option<Cause>,
    /// The same, where the person wants downloads all the same.
    anyway: Option<Cause>,
    task: Option<tasks::Running>,
    outcome: Option<Outcome>,
    /// What was read through in the background, and what was found damaged.
    scrubbed: Scrubbed,
    /// Reading the drive takes a moment, so what it said counts for a while.
    usage: Option<(Instant, Vec<ModelUsage>)>,
}

impl Library {
    /// The library of these folders. The queue is kept beside the program's other data, so that it moves
    /// with no drive.
    pub(crate) fn open(dirs: &Dirs) -> Self {
        let file = LibraryFile::new(dirs);
        let scrubbed_file = ScrubbedFile::new(dirs);
        let settings = file.settings();
        let throttle = Arc::new(Throttle::new(settings.bytes_per_s_max));
        let state = State {
            settings,
            queue: DownloadQueue::open(&dirs.data.join("downloads.json")),
            meters: HashMap::new(),
            last_bytes_per_s: None,
            retry_at: HashMap::new(),
            resting: None,
            waits_for: None,
            anyway: None,
            task: None,
            outcome: None,
            scrubbed: scrubbed_file.load(),
            usage: None,
        };
        let (wake, state) = (Notify::new(), Mutex::new(state));
        Self { file, scrubbed_file, throttle, wake, state }
    }

    pub(crate) fn throttle(&self) -> Arc<Throttle> {
        self.throttle.clone()
    }

    pub(crate) fn connections(&self) -> u32 {
        lock(&self.state).settings.connections.clamp(*CONNECTIONS.start(), *CONNECTIONS.end())
    }

    /// Something else at this machine came or went that downloads wait for.
    pub(crate) fn look_around(&self) {
        self.wake.notify_one();
    }

    /// Whether the library is being moved.
    pub(crate) fn is_moving(&self) -> bool {
        let state = lock(&self.state);
        state.task.as_ref().is_some_and(tasks::Running::holds_downloads)
    }

    /// Whether a long task runs that an end of the program would break off.
    pub(crate) fn has_task(&self) -> bool {
        lock(&self.state).task.is_some()
    }

    /// Whether the person has a download on the list, and paused it; `None` where it is not there.
    pub(crate) fn is_paused(&self, model: &ModelId) -> Option<bool> {
        let state = lock(&self.state);
        let entry = state.queue.entries().iter().find(|entry| entry.model == *model)?;
        Some(entry.paused)
    }

    /// What is on the drive has changed.
    pub(crate) fn look_again(&self) {
        lock(&self.state).usage = None;
    }

    /// A download has come so far.
    pub(crate) fn note_progress(&self, model: &ModelId, done_bytes: u64) {
        let mut state = lock(&self.state);
        let meter = state.meters.entry(model.clone()).or_default();
        meter.note(Instant::now(), done_bytes);
        if let Some(bytes_per_s) = meter.bytes_per_s() {
            state.last_bytes_per_s = Some(bytes_per_s);
        }
    }

    /// A download has ended, one way or the other.
    pub(crate) fn note_end(&self, model: &ModelId) {
        let mut state = lock(&self.state);
        state.meters.remove(model);
        state.usage = None;
    }
}

impl App {
    /// Answers a command about the library.
    pub(crate) async fn library(self: &Arc<Self>, action: LibraryAction) -> Result<(), ErrorBody> {
        let library = &self.library;
        match action {
            LibraryAction::Pause { model } => {
                // What the person paused does not wake by itself.
                lock(&library.state).retry_at.remove(&model);
                self.queued(|queue| queue.pause(&model, true))?;
            }
            LibraryAction::Resume { model } => {
                self.known(&model)?;
                lock(&library.state).retry_at.remove(&model);
                self.queued(|queue| queue.add(&model))?;
            }
            LibraryAction::Anyway => {
                let mut state = lock(&library.state);
                state.anyway = state.waits_for.take();
                drop(state);
                library.wake.notify_one();
            }
            LibraryAction::Cancel { model } => {
                self.give_up_fetch(&model);
                self.queued(|queue| queue.remove(&model))?;
                self.forget_download(&model).await?;
            }
            LibraryAction::Place { model, index } => {
                self.queued(|queue| queue.place(&model, index as usize))?;
            }
            LibraryAction::Remove { models } => self.remove_models(&models).await?,
            LibraryAction::Set { settings } => self.set_library(settings)?,
            LibraryAction::Move { folder } => self.move_library(&whole_path(&folder)?)?,
            LibraryAction::LookAgain => self.look_for_library().await?,
            LibraryAction::Scrub => self.scrub_library()?,
            LibraryAction::Replace { model } => self.replace_unreadable(&model).await?,
            LibraryAction::Reuse { folder } => self.reuse_files(&whole_path(&folder)?)?,
            LibraryAction::StopTask => self.stop_task(),
            LibraryAction::Dismiss => lock(&library.state).outcome = None,
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Changes the queue and wakes it. A list that cannot be written is told, and holds all the same.
    fn queued(
        &self,
        change: impl FnOnce(&mut DownloadQueue) -> Result<(), StoreError>,
    ) -> Result<(), ErrorBody> {
        let outcome = change(&mut lock(&self.library.state).queue);
        self.library.wake.notify_one();
        outcome.map_err(|error| internal(told_with_causes(&error)))
    }

    fn set_library(&self, settings: LibrarySettings) -> Result<(), ErrorBody> {
        let wrong = |message: &str, hint: &str| {
            Err(ErrorBody::new(ErrorCode::InvalidRequest, message).with_hint(hint))
        };
        if !CONNECTIONS.contains(&settings.connections) {
            return wrong("that many connections are not possible", "choose 1 to 8");
        }
        if settings.bytes_per_s_max.is_some_and(|bytes| bytes < BYTES_PER_S_MIN) {
            return wrong(
                "with so little bandwidth no download would end",
                "allow 0.1 Mbit/s or more",
            );
        }
        let minutes = |minute: u16| minute < 24 * 60;
        if settings.window.is_some_and(|w| !minutes(w.from_minute) || !minutes(w.until_minute)) {
            return wrong("a day has 24 hours", "choose times from 00:00 to 23:59");
        }
        self.library
            .file
            .set_settings(&settings)
            .map_err(|error| internal(told_with_causes(&error)))?;
        self.library.throttle.set(settings.bytes_per_s_max);
        lock(&self.library.state).settings = settings;
        self.library.wake.notify_one();
        Ok(())
    }

    /// Deletes what has arrived of a download that was cancelled.
    async fn forget_download(self: &Arc<Self>, model: &ModelId) -> Result<(), ErrorBody> {
        self.stop_fetch(model).await;
        if self.store.newer_bytes(model).is_some() {
            // The version before stays in use.
            let (store, model) = (self.store.clone(), model.clone());
            let forgetting = tokio::task::spawn_blocking(move || store.forget_newer(&model));
            let forgotten =
                forgetting.await.map_err(|_| internal("the files could not be deleted"))?;
            forgotten.map_err(|error| crate::models::not_ready(&error))?;
            self.library.look_again();
        } else if !self.is_here(model) {
            self.remove_models(std::slice::from_ref(model)).await?;
        }
        Ok(())
    }

    /// Why the library cannot be used.
    pub(crate) fn library_away(&self) -> Option<ErrorBody> {
        let path = self.store.root();
        let error = StoreError::Away { path };
        (!self.store.is_there()).then(|| crate::models::not_ready(&error))
    }

    /// Looks whether a library that was away is there again.
    async fn look_for_library(self: &Arc<Self>) -> Result<(), ErrorBody> {
        // One that could not be created at the start may be possible now.
        if self.store.root() == self.dirs.models
            && let Err(error) = self.dirs.create_models()
        {
            tracing::warn!("{}", told_with_causes(&error));
        }
        if let Some(error) = self.library_away() {
            return Err(error);
        }
        self.store.read_again();
        self.models_changed().await;
        Ok(())
    }

    async fn remove_models(self: &Arc<Self>, models: &[ModelId]) -> Result<(), ErrorBody> {
        for model in models {
            self.known(model)?;
            if self.is_loaded(model) {
                let message = format!("`{model}` is in memory, so it stays");
                return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                    .with_hint("stop mining first, or serve another model"));
            }
        }
        for model in models {
            self.give_up_fetch(model);
            self.queued(|queue| queue.remove(model))?;
            self.stop_fetch(model).await;
            let removed = self.store.remove(model).await;
            removed.map_err(|error| internal(told_with_causes(&error)))?;
            self.forget_problem(model);
        }
        lock(&self.library.state).usage = None;
        self.models_changed().await;
        Ok(())
    }

    fn known(&self, model: &ModelId) -> Result<(), ErrorBody> {
        if self.store.catalog().get(model).is_some() {
            return Ok(());
        }
        Err(ErrorBody::new(
            ErrorCode::UnknownModel,
            format!("the catalogue has no model `{model}`"),
        ))
    }

    /// The store, for the parts of the library.
    fn model_store(&self) -> &ModelStore {
        &self.store
    }
}

/// A folder that a person wrote down.
pub(crate) fn whole_path(text: &str) -> Result<PathBuf, ErrorBody> {
    let path = PathBuf::from(text.trim());
    if path.is_absolute() {
        return Ok(path);
    }
    let example = if cfg!(windows) { r"D:\Models" } else { "/media/games/models" };
    Err(ErrorBody::new(ErrorCode::InvalidRequest, "that is not a whole path to a folder")
        .with_hint(format!("write it from the beginning, for example {example}")))
}
