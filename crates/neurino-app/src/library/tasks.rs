//! The long tasks of the library, one at a time: moving it, reading it through, looking for files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_config::ConfigError;
use neurino_engine::inspect::inspect;
use neurino_model_store::lists::Places;
use neurino_model_store::{MoveProgress, OwnModel, ScrubProgress, StoreError};
use neurino_protocol::catalogue::ListPlaces;
use neurino_protocol::library::{Activity, Asked, Outcome, Task};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio_util::sync::CancellationToken;

use crate::{App, lock, told_with_causes};

/// A scrub leaves the drive to others.
const SCRUB_BYTES_PER_S: u64 = 150_000_000;

/// A long task under way.
pub(super) struct Running {
    task: Task,
    pub(super) activity: Activity,
    stop: CancellationToken,
}

impl Running {
    /// Whether downloads have to wait.
    pub(super) fn holds_downloads(&self) -> bool {
        self.task == Task::Move
    }
}

impl App {
    /// Moves the library; downloads pause meanwhile, and mining must be stopped.
    pub(super) fn move_library(self: &Arc<Self>, folder: &Path) -> Result<(), ErrorBody> {
        if std::env::var_os(neurino_config::env::MODELS).is_some() {
            let message = "the folder of the library is set from outside";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("remove the variable NEURINO_MODELS, then start Neurino again"));
        }
        if self.is_mining() {
            let message = "the library cannot move while its models are in use";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("stop mining, then move it"));
        }
        let (app, folder) = (Arc::clone(self), folder.to_owned());
        self.begin(Task::Move, move |stop: CancellationToken| async move {
            app.stop_all_fetches().await;
            let tell = {
                let app = Arc::clone(&app);
                move |now: MoveProgress| app.advance(now.done_bytes, now.total_bytes)
            };
            let switch = {
                let file = app.library.file.clone();
                move |place: &Path| file.set_folder(place).map_err(|error| refused(place, &error))
            };
            let place = app.model_store().relocate(&folder, tell, switch, stop).await?;
            // Where the library was away, other models are here now.
            app.models_changed().await;
            Ok(format!("The library is in {} now.", place.display()))
        })
    }

    /// Reads every file again.
    pub(super) fn scrub_library(self: &Arc<Self>) -> Result<(), ErrorBody> {
        let app = Arc::clone(self);
        self.begin(Task::Scrub, move |stop: CancellationToken| async move {
            let tell = {
                let app = Arc::clone(&app);
                move |now: ScrubProgress| app.advance(now.done_bytes, now.total_bytes)
            };
            let report = app.model_store().scrub(Some(SCRUB_BYTES_PER_S), tell, stop).await?;
            for (model, file) in &report.damaged {
                app.note_damage(model, file).await;
            }
            app.note_all_read(&report.unreadable);
            if let ([], [(model, file, _), ..]) = (&*report.damaged, &*report.unreadable) {
                return Ok(format!("The drive could not read {file} of {model}."));
            }
            Ok(match (report.files, report.damaged.as_slice()) {
                (_, [(model, file), ..]) if app.is_own(model) => format!(
                    "{file} of {model} was damaged and set aside. The model is your own: add it again."
                ),
                (_, [(model, file), ..]) => format!(
                    "{file} of {model} was damaged and set aside. Only its damaged pieces are \
                     fetched again."
                ),
                (1, []) => "One file read, and it is as it should be.".to_owned(),
                (files, []) => format!("{files} files read, all as they should be."),
            })
        })
    }

    /// Takes over known files of other programs.
    pub(super) fn reuse_files(self: &Arc<Self>, folder: &Path) -> Result<(), ErrorBody> {
        let (app, folder) = (Arc::clone(self), folder.to_owned());
        self.begin(Task::Reuse, move |stop: CancellationToken| async move {
            let tell = {
                let app = Arc::clone(&app);
                move |read_bytes| app.advance(read_bytes, 0)
            };
            let found = app.model_store().reuse(&folder, tell, stop).await?;
            Ok(match found.files {
                0 => "No file of a missing model was found there.".to_owned(),
                1 => format!("One file found, {}: it need not be fetched.", size(found.bytes)),
                n => format!("{n} files found, {}: they need not be fetched.", size(found.bytes)),
            })
        })
    }

    /// Takes in a model of the person's own, or a file that the catalogue knows.
    pub(crate) fn add_own(self: &Arc<Self>, path: PathBuf, own: OwnModel) -> Result<(), ErrorBody> {
        let app = Arc::clone(self);
        self.begin(Task::Add, move |stop: CancellationToken| async move {
            let store = app.model_store().clone();
            if store.may_know(&path) {
                // Nothing is moved before the whole file was read, so that it can be left at any time.
                let known = tokio::select! {
                    known = store.import(None, &path) => known,
                    () = stop.cancelled() => Err(StoreError::Cancelled),
                };
                match known {
                    Ok(model) => {
                        app.models_changed().await;
                        return Ok(format!("The catalogue knows this file: it is {model}."));
                    }
                    Err(StoreError::NotTheModel { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let opens = |folder: &Path| {
                let opened = inspect(folder).map(|_| ());
                opened.map_err(|error| format!("its files alone are no model: {error:#}"))
            };
            let tell = {
                let app = Arc::clone(&app);
                move |done_bytes, total_bytes| app.advance(done_bytes, total_bytes)
            };
            let manifest = store.adopt(own, &path, opens, tell, stop).await?;
            app.models_changed().await;
            Ok(format!("{} is among your models now.", manifest.name))
        })
    }

    /// Reads the network's lists and adds what they vouch for.
    pub(crate) fn read_lists(self: &Arc<Self>, places: ListPlaces) -> Result<(), ErrorBody> {
        let app = Arc::clone(self);
        self.begin(Task::Lists, move |stop: CancellationToken| async move {
            let tell = {
                let app = Arc::clone(&app);
                move |done, total| app.advance_asked(done, total)
            };
            let ListPlaces { models, vae, lora } = places.clone();
            let from = Places { models, vae, lora };
            let taken = app.model_store().take_lists(&from, tell, stop).await?;
            let (added, left) = (taken.added.len(), taken.left.len());
            app.note_lists(places, taken);
            if added > 0 {
                app.models_changed().await;
            }
            Ok(format!("The lists were read. New models: {added}. Not to be used: {left}."))
        })
    }

    /// Stops the long task under way.
    pub(super) fn stop_task(&self) {
        if let Some(running) = &lock(&self.library.state).task {
            running.stop.cancel();
        }
    }

    fn begin<W>(
        self: &Arc<Self>,
        task: Task,
        work: impl FnOnce(CancellationToken) -> W + Send + 'static,
    ) -> Result<(), ErrorBody>
    where
        W: Future<Output = Result<String, StoreError>> + Send,
    {
        let stop = self.end.child_token();
        {
            let mut state = lock(&self.library.state);
            if state.task.is_some() {
                let message = "the library is busy with something else";
                return Err(ErrorBody::new(ErrorCode::Overloaded, message)
                    .with_hint("wait for that to end, or stop it"));
            }
            let activity = Activity { task, done_bytes: 0, total_bytes: 0, asked: None };
            state.task = Some(Running { task, activity, stop: stop.clone() });
            state.outcome = None;
        }
        // Mining does not begin to read from files that are on their way elsewhere.
        self.see_library();
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let ended = work(stop).await;
            let outcome = match ended {
                Ok(sentence) => Some(Outcome { task, sentence: Some(sentence), problem: None }),
                Err(StoreError::Cancelled) => None,
                Err(error) => {
                    let problem = Some(crate::models::not_ready(&error));
                    Some(Outcome { task, sentence: None, problem })
                }
            };
            {
                let mut state = lock(&app.library.state);
                (state.task, state.usage, state.outcome) = (None, None, outcome);
            }
            app.library.wake.notify_one();
            app.see_library();
            app.carry_out().await;
            app.changed.notify_one();
        });
        Ok(())
    }

    fn advance(&self, done_bytes: u64, total_bytes: u64) {
        if let Some(running) = &mut lock(&self.library.state).task {
            running.activity.done_bytes = done_bytes;
            running.activity.total_bytes = total_bytes;
        }
        self.changed.notify_one();
    }

    fn advance_asked(&self, done: usize, total: usize) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if let Some(running) = &mut lock(&self.library.state).task {
            running.activity.asked = Some(Asked { done: count(done), total: count(total) });
        }
        self.changed.notify_one();
    }
}

/// The new place could not be written down.
fn refused(place: &Path, error: &ConfigError) -> StoreError {
    let cause = std::io::Error::other(told_with_causes(error));
    StoreError::Io { action: "note the new folder", path: place.to_owned(), source: cause }
}

fn size(bytes: u64) -> String {
    if bytes >= 1_000_000_000 {
        format!("{:.1} GB", bytes as f64 / 1e9)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
