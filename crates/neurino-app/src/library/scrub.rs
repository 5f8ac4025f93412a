//! Reads the library through in the background, so that a bit which the drive flipped is found, told and
//! fetched again before a job needs the file.
//!
//! It is slow, it waits while somebody uses the machine or a job is computed, and it makes way for
//! downloads and for the long tasks of the library. What was read is kept in the data folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use neurino_core::{JobKind, ModelId};
use neurino_miner::MinerState;
use neurino_model_store::{Found, Pace, StoreError, WholeFile};
use neurino_protocol::library::Unreadable;
use neurino_protocol::{ErrorBody, ErrorCode};
use tracing::{info, warn};

use crate::mining::Phase;
use crate::{App, internal, lock, now_ms, told_with_causes};

/// How often is looked whether a reading has to make way.
const LOOK: Duration = Duration::from_millis(250);

/// When the library is read through, and how fast.
#[derive(Debug, Clone)]
pub struct ScrubPace {
    /// How often is looked whether a file is due.
    pub look_every: Duration,
    /// A file is read again after so long.
    pub again_after: Duration,
    /// Bytes in a second at most.
    pub bytes_per_s: u64,
    /// Nobody must have used mouse and keyboard for so many seconds.
    pub idle_secs: u32,
}

impl Default for ScrubPace {
    /// A hundred gigabytes take an hour and a half in a month.
    fn default() -> Self {
        Self {
            look_every: Duration::from_mins(1),
            again_after: Duration::from_hours(30 * 24),
            bytes_per_s: 20_000_000,
            idle_secs: 300,
        }
    }
}

/// Whether a file may be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Read,
    /// Not now; what was begun waits.
    Hold,
    /// Something else has the library; what was begun is given up.
    Leave,
}

impl App {
    /// Starts the reading; it ends with the application.
    pub(crate) fn spawn_scrub(self: &Arc<Self>, pace: ScrubPace) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = tokio::time::sleep(pace.look_every) => {}
                }
                app.forget_repaired();
                while let Some(file) = app.file_due(&pace).await {
                    if !app.read_due(&file, &pace).await {
                        break;
                    }
                }
            }
        });
    }

    /// The file of this model that was found damaged and is not whole again.
    pub(super) fn damaged_file(&self, model: &ModelId) -> Option<String> {
        let damaged = lock(&self.library.state).scrubbed.damaged.get(model.as_str()).cloned();
        damaged.filter(|_| !self.is_here(model))
    }

    /// Notes that a file was damaged and set aside, and puts its model among the downloads, unless
    /// nothing could bring it back.
    pub(super) async fn note_damage(self: &Arc<Self>, model: &ModelId, file: &str) {
        let fetched = !self.is_own(model);
        let (scrubbed, listed) = {
            // Under one lock: whoever sees the damage sees as well that it is repaired.
            let mut state = lock(&self.library.state);
            state.scrubbed.damaged.insert(model.to_string(), file.to_owned());
            let listed = if fetched { state.queue.add(model) } else { Ok(()) };
            // It was read, and that is written down with what was found, or not at all.
            state.scrubbed.read_ms.insert(format!("{model}/{file}"), now_ms());
            (state.scrubbed.clone(), listed)
        };
        self.save_scrubbed(&scrubbed);
        if let Err(error) = listed {
            warn!(model.id = %model, "the list of downloads is not saved: {}", told_with_causes(&error));
        }
        self.library.wake.notify_one();
        self.no_longer_served(model).await;
    }

    /// A file of this model is not what it should be.
    async fn no_longer_served(self: &Arc<Self>, model: &ModelId) {
        if self.is_loaded(model) {
            // What is in memory came from a file that nobody can check any more: running jobs are
            // finished, and it is loaded again once it is whole.
            info!(model.id = %model, "{model} leaves the memory until its file is whole");
            self.library.look_again();
            self.mine_anew(false);
        } else {
            // The miner offers it no longer.
            self.models_changed().await;
        }
    }

    /// A model whose damaged file is on its way, which mining waits for rather than for another one.
    pub(crate) fn being_repaired(&self) -> Option<ModelId> {
        let damaged = lock(&self.library.state).scrubbed.damaged.clone();
        let ids = damaged.into_keys().filter_map(|id| ModelId::new(&id).ok());
        let mut coming = ids.filter(|id| self.is_missing(id) && !self.is_own(id));
        coming.find(|id| self.kind_of(id) == JobKind::Text && self.computes(JobKind::Text))
    }

    /// The file of this model that the drive does not give, and what the system said.
    pub(super) fn unreadable_file(&self, model: &ModelId) -> Option<Unreadable> {
        let state = lock(&self.library.state);
        let (file, why) = state.scrubbed.unreadable.get(model.as_str())?.clone();
        drop(state);
        self.is_here(model).then_some(Unreadable { file, why })
    }

    /// The drive does not give a file. It stays where it is: the drive may give it again.
    fn note_unreadable(&self, model: &ModelId, file: &str, why: &str) {
        self.change_scrubbed(|scrubbed| {
            scrubbed.unreadable.insert(model.to_string(), (file.to_owned(), why.to_owned()));
        });
        self.changed.notify_one();
    }

    /// Every file was read, but for these.
    pub(super) fn note_all_read(&self, unreadable: &[(ModelId, String, String)]) {
        let noted = |(model, file, why): &(ModelId, String, String)| {
            (model.to_string(), (file.clone(), why.clone()))
        };
        let unreadable = unreadable.iter().map(noted).collect();
        self.change_scrubbed(|scrubbed| scrubbed.unreadable = unreadable);
        self.changed.notify_one();
    }

    /// The drive gives a file, again or as ever.
    fn note_read(&self, model: &ModelId, file: &str) {
        let was = lock(&self.library.state).scrubbed.unreadable.get(model.as_str()).cloned();
        if was.is_some_and(|(name, _)| name == file) {
            self.change_scrubbed(|scrubbed| {
                scrubbed.unreadable.remove(model.as_str());
            });
            self.changed.notify_one();
        }
    }

    /// Sets the file aside that the drive does not give, and fetches it again.
    pub(super) async fn replace_unreadable(
        self: &Arc<Self>,
        model: &ModelId,
    ) -> Result<(), ErrorBody> {
        self.known(model)?;
        let Some(Unreadable { file, .. }) = self.unreadable_file(model) else {
            let message = "every file of this model can be read";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
        };
        if self.is_own(model) {
            let message = "the model is your own, so nothing could bring it back";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("copy its file from somewhere else and add it again"));
        }
        let (store, id, name) = (self.store.clone(), model.clone(), file.clone());
        let given_up = tokio::task::spawn_blocking(move || store.give_up_file(&id, &name)).await;
        let given_up = given_up.map_err(|_| internal("the file could not be set aside"))?;
        given_up.map_err(|error| crate::models::not_ready(&error))?;
        self.change_scrubbed(|scrubbed| {
            scrubbed.unreadable.remove(model.as_str());
        });
        self.note_damage(model, &file).await;
        Ok(())
    }

    /// Whether no source has the model.
    pub(super) fn is_own(&self, model: &ModelId) -> bool {
        let catalog = self.store.catalog();
        catalog.get(model).is_none_or(|m| m.files.iter().all(|file| file.sources.is_empty()))
    }

    fn forget_repaired(&self) {
        let unreadable = lock(&self.library.state).scrubbed.unreadable.clone();
        let is_gone = |id: &String| ModelId::new(id).is_ok_and(|id| !self.is_here(&id));
        let gone: Vec<String> = unreadable.into_keys().filter(is_gone).collect();
        if !gone.is_empty() {
            // Removed, or being fetched again.
            self.change_scrubbed(|s| s.unreadable.retain(|model, _| !gone.contains(model)));
        }
        let damaged = lock(&self.library.state).scrubbed.damaged.clone();
        let again = |id: &String| ModelId::new(id).is_ok_and(|id| !self.is_missing(&id));
        let repaired: Vec<String> = damaged.into_keys().filter(again).collect();
        if !repaired.is_empty() {
            self.change_scrubbed(|s| s.damaged.retain(|model, _| !repaired.contains(model)));
        }
    }

    /// Whether a model that the catalogue knows is not whole.
    fn is_missing(&self, model: &ModelId) -> bool {
        self.store.catalog().get(model).is_some() && !self.is_here(model)
    }

    fn change_scrubbed(&self, change: impl FnOnce(&mut neurino_config::Scrubbed)) {
        let scrubbed = {
            let mut state = lock(&self.library.state);
            change(&mut state.scrubbed);
            state.scrubbed.clone()
        };
        self.save_scrubbed(&scrubbed);
    }

    fn save_scrubbed(&self, scrubbed: &neurino_config::Scrubbed) {
        if let Err(error) = self.library.scrubbed_file.save(scrubbed) {
            warn!("what was read of the library is not saved: {}", told_with_causes(&error));
        }
    }

    /// The file that was not read for longest, if one is due and may be read now.
    async fn file_due(&self, pace: &ScrubPace) -> Option<WholeFile> {
        if self.scrub_turn(pace) != Turn::Read {
            return None;
        }
        let store = self.store.clone();
        let files = tokio::task::spawn_blocking(move || store.whole_files()).await.ok()?;
        let now = now_ms();
        let again_after_ms = i64::try_from(pace.again_after.as_millis()).unwrap_or(i64::MAX);
        let state = lock(&self.library.state);
        let read_ms = |file: &WholeFile| {
            let noted = state.scrubbed.read_ms.get(&name_of(file)).copied();
            // Whoever wrote it hashed it. A time to come is none.
            let modified = file.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified = modified.and_then(|at| i64::try_from(at.as_millis()).ok());
            let times = [noted, modified].into_iter().flatten().filter(|at| *at <= now);
            times.max().unwrap_or(0)
        };
        let due = files.into_iter().map(|file| (read_ms(&file), file));
        let due = due.filter(|(read_ms, _)| now - read_ms > again_after_ms);
        due.min_by_key(|(read_ms, _)| *read_ms).map(|(_, file)| file)
    }

    /// Reads a file; false if that was given up, and it is as due as before.
    async fn read_due(self: &Arc<Self>, file: &WholeFile, pace: &ScrubPace) -> bool {
        let (hold, stop) = (Arc::new(AtomicBool::new(false)), self.end.child_token());
        let reads = Pace { bytes_per_s: Some(pace.bytes_per_s), hold: Some(Arc::clone(&hold)) };
        let reading = self.store.read_through(&file.model, &file.name, reads, stop.clone());
        tokio::pin!(reading);
        let found = loop {
            tokio::select! {
                found = &mut reading => break found,
                () = tokio::time::sleep(LOOK) => match self.scrub_turn(pace) {
                    Turn::Leave => stop.cancel(),
                    turn => hold.store(turn == Turn::Hold, Ordering::Relaxed),
                }
            }
        };
        if matches!(found, Err(StoreError::Cancelled | StoreError::Busy { .. })) {
            return false;
        }
        if matches!(found, Ok(Found::Damaged)) {
            self.note_damage(&file.model, &file.name).await;
            return true;
        }
        self.change_scrubbed(|scrubbed| {
            scrubbed.read_ms.insert(name_of(file), now_ms());
        });
        match found {
            Ok(Found::Stuck(why)) => {
                self.note_unreadable(&file.model, &file.name, &why);
                self.no_longer_served(&file.model).await;
            }
            Ok(Found::Sound) => {
                info!(model.id = %file.model, "`{}` is sound", file.name);
                self.note_read(&file.model, &file.name);
            }
            Ok(Found::Unreadable(why)) => self.note_unreadable(&file.model, &file.name, &why),
            Ok(Found::Gone | Found::Damaged) => {}
            Err(error) => warn!(model.id = %file.model, "{}", told_with_causes(&error)),
        }
        true
    }

    fn scrub_turn(&self, pace: &ScrubPace) -> Turn {
        let has_task = lock(&self.library.state).task.is_some();
        if self.end.is_cancelled() || has_task || !self.running_fetches().is_empty() {
            Turn::Leave
        } else if self.is_computing() || !lock(&self.guard).is_left_alone(pace.idle_secs) {
            Turn::Hold
        } else {
            Turn::Read
        }
    }

    /// Whether a job is computed or a model loaded.
    fn is_computing(&self) -> bool {
        let mining = lock(&self.mining);
        if matches!(mining.phase, Phase::Preparing(_)) {
            return true;
        }
        mining.miner().is_some_and(|miner| {
            !matches!(
                miner.status().borrow().state,
                MinerState::Connecting { .. }
                    | MinerState::Waiting
                    | MinerState::NeedsYou { .. }
                    | MinerState::Stopped
            )
        })
    }
}

fn name_of(file: &WholeFile) -> String {
    format!("{}/{}", file.model, file.name)
}
