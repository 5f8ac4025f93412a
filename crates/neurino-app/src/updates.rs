//! Newer versions of the program: looks for them, fetches them, and puts them in place between jobs.
//!
//! The application itself never exchanges its files. When no job runs it tells its shell
//! ([`App::update_due`]), which ends the application, exchanges the files and starts the new program
//! (`neurino_update::hand_over`).

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_config::{Dirs, SavedUpdates, Settings, UpdatesFile};
use neurino_control::Cause;
use neurino_protocol::update::{UpdateCommand, UpdateKeeper, UpdateStatus, UpdateView};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_update::swap::locks::SignOfLife;
use neurino_update::swap::{self, Phase as SwapPhase};
use neurino_update::{Edition, Exchange, Place, Source, UpdateError, Updater, Version};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::mining::Phase;
use crate::{App, internal, lock, now_ms, told_with_causes};

const FIRST_LOOK_AFTER: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_hours(6);
const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(20);
/// The same where something at this machine was in the way.
const HELD_FOR: Duration = Duration::from_mins(1);
/// A program that ran so long came up.
const CAME_UP_AFTER: Duration = Duration::from_secs(15);
/// After so long the end of the trial is written down again where that failed.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(20);
const STEP_EVERY: Duration = Duration::from_secs(1);
/// A window that was not in front for so long is not looked at, wherever it lies.
const UNSEEN_AFTER: Duration = Duration::from_mins(10);
const LATER_MS: i64 = 24 * 3_600_000;
/// The place and the key that this build was made with.
const RELEASE_SOURCE: Option<&str> = option_env!("NEURINO_RELEASE_SOURCE");
const RELEASE_KEY: Option<&str> = option_env!("NEURINO_RELEASE_KEY");

/// What updates are made with.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    /// The version that runs.
    pub own: Version,
    /// The installation.
    pub place: Place,
    /// Who looks for newer versions; nobody where there is nowhere to look.
    pub updater: Option<Updater>,
    /// The time from the start to the first look.
    pub first_look_after: Duration,
    /// The time from the start to the word that the program came up.
    pub came_up_after: Duration,
    /// How long a window that is open and not in front counts as looked at.
    pub unseen_after: Duration,
}

impl UpdateOptions {
    /// Those of this program, as it is set; `None` where the system does not tell its own file.
    ///
    /// # Errors
    /// A place or a key that makes no sense, in words for people.
    pub fn of(dirs: &Dirs, settings: &Settings, edition: Edition) -> Result<Self, ErrorBody> {
        let wrong = |message: String| {
            ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("correct `[update]` in settings.toml, or leave it out")
        };
        let place = Place::here(edition).map_err(|error| internal(error.to_string()))?;
        let set = &settings.update;
        let chosen = |set: &str, built: Option<&str>| match set.trim() {
            "" => built.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
            text => Some(text.to_owned()),
        };
        let packages = if place.replaces_itself() {
            place.updates().join("packages")
        } else {
            dirs.data.join("updates")
        };
        let updater = match (chosen(&set.source, RELEASE_SOURCE), chosen(&set.key, RELEASE_KEY)) {
            (Some(source), Some(key)) => {
                let source = Source::parse(&source).map_err(|e| wrong(told_with_causes(&e)))?;
                let key = public_key(&key).ok_or_else(|| {
                    wrong("the key of updates is not 64 hexadecimal digits".into())
                })?;
                Some(Updater { source, key, own: Version::own(), place: place.clone(), packages })
            }
            _ => None,
        };
        Ok(Self {
            own: Version::own(),
            place,
            updater,
            first_look_after: FIRST_LOOK_AFTER,
            came_up_after: CAME_UP_AFTER,
            unseen_after: UNSEEN_AFTER,
        })
    }
}

fn public_key(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    bytes?.try_into().ok()
}

/// Where updates stand.
pub(crate) struct Updates {
    options: Option<UpdateOptions>,
    file: UpdatesFile,
    state: std::sync::Mutex<State>,
    look_now: Notify,
    watch: std::sync::Mutex<Watch>,
    due: CancellationToken,
}

/// Whether somebody looks at the window.
#[derive(Default)]
struct Watch {
    /// It is open.
    open: bool,
    /// Since when another window is in front, or none: minimised, on another desktop, or left alone.
    behind_since: Option<Instant>,
}

struct State {
    saved: SavedUpdates,
    status: UpdateStatus,
    problem: Option<ErrorBody>,
    /// What lies staged beside the program.
    ready: Option<Ready>,
    /// The person asked for it.
    asked: bool,
    /// The person wants the version before this one.
    back: Option<Version>,
    /// The status before a package was fetched.
    before: UpdateStatus,
}

impl State {
    /// The status while nothing is on its way.
    fn resting(&self) -> UpdateStatus {
        let Some(Ready { version, notes, failed_before }) = self.ready.clone() else {
            return self.before.clone();
        };
        let version = version.to_string();
        if failed_before {
            let dismissed = self.saved.rejected.contains(&version);
            return UpdateStatus::TakenBack { version, dismissed };
        }
        let later_until_ms = self.saved.later_until_ms.filter(|until| *until > now_ms());
        UpdateStatus::Ready { version, notes, later_until_ms }
    }

    /// Whether the version that is ready may be put in place without a question.
    fn may_by_itself(&self, version: &str, later_until_ms: Option<i64>) -> bool {
        self.saved.preferences.by_itself
            && !self.saved.rejected.contains(version)
            && later_until_ms.is_none_or(|until| until <= now_ms())
    }
}

/// How a look for a newer version ended.
enum Looked {
    /// What there is, is here.
    Done,
    /// Something has the machine or the line: it is fetched when that is over.
    Held(Cause),
}

/// A version that can be put in place.
#[derive(Clone)]
struct Ready {
    version: Version,
    notes: std::collections::BTreeMap<String, String>,
    /// It was put in place before and did not come up.
    failed_before: bool,
}

impl Updates {
    pub(crate) fn open(dirs: &Dirs, options: Option<UpdateOptions>) -> Self {
        let file = UpdatesFile::new(dirs);
        let taken_back = options.as_ref().and_then(taken_back);
        let saved = file.load();
        let status = taken_back.map_or(UpdateStatus::None, |version| {
            let version = version.to_string();
            let dismissed = saved.rejected.contains(&version);
            UpdateStatus::TakenBack { version, dismissed }
        });
        let state = State {
            saved,
            before: status.clone(),
            status,
            problem: None,
            ready: None,
            asked: false,
            back: None,
        };
        Self {
            options,
            file,
            state: std::sync::Mutex::new(state),
            look_now: Notify::new(),
            watch: std::sync::Mutex::default(),
            due: CancellationToken::new(),
        }
    }

    pub(crate) fn status(&self) -> UpdateStatus {
        lock(&self.state).status.clone()
    }

    fn is_watched(&self) -> bool {
        let unseen_after = self.options.as_ref().map_or(UNSEEN_AFTER, |o| o.unseen_after);
        let watch = lock(&self.watch);
        watch.open && watch.behind_since.is_none_or(|since| since.elapsed() < unseen_after)
    }

    fn save(&self, saved: &SavedUpdates) {
        if let Err(error) = self.file.save(saved) {
            warn!("what is known of updates is not saved: {}", told_with_causes(&error));
        }
    }
}

/// The version that did not come up and was taken back, if the one before it runs.
fn taken_back(options: &UpdateOptions) -> Option<Version> {
    let trial = swap::state(&options.place)?;
    let failed = trial.phase == SwapPhase::RolledBack && !trial.by_person;
    (failed && trial.from == options.own).then_some(trial.to)
}

impl App {
    /// Looks for newer versions and puts them in place, until the application ends.
    pub(crate) fn spawn_updates(self: &Arc<Self>) {
        let Some(options) = self.updates.options.clone() else { return };
        let app = Arc::clone(self);
        let (place, own) = (options.place.clone(), options.own);
        self.tasks.spawn(async move {
            if !app.lasts(options.came_up_after).await {
                return;
            }
            // Whoever watches sees this even where nothing can be written.
            let _sign = SignOfLife::give(&place);
            loop {
                let place = place.clone();
                let done = tokio::task::spawn_blocking(move || swap::came_up(&place, own)).await;
                let Ok(Err(error)) = done else { return };
                warn!("the end of the trial is not written down: {}", told_with_causes(&error));
                if !app.lasts(WRITE_AGAIN_AFTER).await {
                    return;
                }
            }
        });
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            while app.lasts(STEP_EVERY).await {
                app.step_towards_update().await;
            }
        });
        let Some(updater) = options.updater else { return };
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut wait = options.first_look_after;
            loop {
                let asked = tokio::select! {
                    () = app.end.cancelled() => return,
                    () = app.updates.look_now.notified() => true,
                    () = tokio::time::sleep(wait) => {
                        if !lock(&app.updates.state).saved.preferences.check {
                            wait = LOOK_EVERY;
                            continue;
                        }
                        if lock(&app.guard).in_the_way().is_some() {
                            wait = HELD_FOR;
                            continue;
                        }
                        false
                    }
                };
                wait = app.look_for_update(&updater, asked).await;
                app.changed.notify_one();
            }
        });
    }

    /// Waits; false where the application ended meanwhile.
    async fn lasts(&self, wait: Duration) -> bool {
        tokio::select! {
            () = self.end.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// Looks once, and fetches what is new; says when to look again. What the person did not ask for stays
    /// out of the way of games and the like.
    async fn look_for_update(self: &Arc<Self>, updater: &Updater, asked: bool) -> Duration {
        let outcome = self.try_update(updater, asked).await;
        let mut state = lock(&self.updates.state);
        if !matches!(state.status, UpdateStatus::Installing { .. }) {
            state.status = state.resting();
        }
        // What was asked for is not there.
        state.asked &= state.ready.is_some();
        state.saved.checked_at_ms = Some(now_ms());
        self.updates.save(&state.saved);
        match outcome {
            Ok(Looked::Done) => {
                state.problem = None;
                LOOK_EVERY
            }
            Ok(Looked::Held(cause)) => {
                info!(?cause, "a newer version is fetched later");
                let held = "the newer version is fetched when games and the like leave room for it";
                state.problem = Some(ErrorBody::new(ErrorCode::Unreachable, held));
                HELD_FOR
            }
            Err(error) => {
                warn!("no update: {}", told_with_causes(&error));
                state.problem = Some(shown(&error));
                if error.passes() { LOOK_AGAIN_AFTER } else { LOOK_EVERY }
            }
        }
    }

    async fn try_update(
        self: &Arc<Self>,
        updater: &Updater,
        asked: bool,
    ) -> Result<Looked, UpdateError> {
        let seen = lock(&self.updates.state).saved.seen.clone();
        let seen = seen.and_then(|text| Version::from_str(&text).ok());
        let Some(offer) = updater.look(seen, jiff::Timestamp::now()).await? else {
            return Ok(Looked::Done);
        };
        let version = offer.release.version;
        if !self.begin_fetching(version, offer.package.size_bytes) {
            return Ok(Looked::Done);
        }
        info!("version {version} is offered");
        let tell = |progress: neurino_model_store::Progress| {
            let (done_bytes, total_bytes) = (progress.done_bytes, progress.total_bytes);
            let version = version.to_string();
            self.go_on_fetching(UpdateStatus::Fetching { version, done_bytes, total_bytes });
        };
        let stop = self.end.child_token();
        let fetching = updater.fetch(&offer, tell, stop.clone());
        tokio::pin!(fetching);
        let mut held = None;
        let fetched = loop {
            tokio::select! {
                fetched = &mut fetching => break fetched,
                () = tokio::time::sleep(STEP_EVERY), if !asked && held.is_none() => {
                    held = lock(&self.guard).in_the_way();
                    if held.is_some() {
                        stop.cancel();
                    }
                }
            }
        };
        let package = match (fetched, held) {
            (Ok(package), _) => package,
            (Err(_), Some(cause)) => return Ok(Looked::Held(cause)),
            (Err(error), None) => return Err(error),
        };
        let notes = offer.release.notes.clone();
        if !updater.place.replaces_itself() {
            let file = package.display().to_string();
            let command = updater.place.command_for(&package).unwrap_or(file);
            let version = version.to_string();
            let by_hand = UpdateStatus::ByHand { version, notes, command };
            lock(&self.updates.state).before = by_hand.clone();
            self.go_on_fetching(by_hand);
            return Ok(Looked::Done);
        }
        {
            let mut state = lock(&self.updates.state);
            // What lies staged is not touched while it is put in place.
            if !matches!(state.status, UpdateStatus::Fetching { .. }) {
                return Ok(Looked::Done);
            }
            if state.ready.take().is_some()
                && !matches!(state.before, UpdateStatus::TakenBack { .. })
            {
                state.before = UpdateStatus::None;
            }
        }
        self.stage(updater, package, version).await?;
        let failed_before = taken_back_of(self).is_some_and(|failed| failed == version);
        lock(&self.updates.state).ready = Some(Ready { version, notes, failed_before });
        Ok(Looked::Done)
    }

    /// Whether a version that is offered is to be fetched: not while one is put in place, and not twice.
    fn begin_fetching(&self, version: Version, total_bytes: u64) -> bool {
        let mut state = lock(&self.updates.state);
        let text = version.to_string();
        state.saved.seen = Some(text.clone());
        let there = match &state.status {
            UpdateStatus::Installing { .. } => true,
            UpdateStatus::ByHand { version, .. } => *version == text,
            _ => state.ready.as_ref().is_some_and(|ready| ready.version == version),
        };
        if !there {
            state.before = state.status.clone();
            state.status = UpdateStatus::Fetching { version: text, done_bytes: 0, total_bytes };
        }
        !there
    }

    /// Tells how a fetch stands, unless something else has begun meanwhile.
    fn go_on_fetching(&self, status: UpdateStatus) {
        let mut state = lock(&self.updates.state);
        if matches!(state.status, UpdateStatus::Fetching { .. }) {
            state.status = status;
        }
        self.changed.notify_one();
    }

    async fn stage(
        &self,
        updater: &Updater,
        package: PathBuf,
        version: Version,
    ) -> Result<(), UpdateError> {
        let place = updater.place.clone();
        let staged = tokio::task::spawn_blocking(move || swap::stage(&place, &package, version));
        let broken = || UpdateError::Package { version, problem: "it cannot be unpacked".into() };
        staged.await.map_err(|_| broken())??;
        Ok(())
    }

    /// Takes the next step towards the version that is ready, or that is gone back to: lets jobs finish,
    /// then tells the shell.
    async fn step_towards_update(self: &Arc<Self>) {
        if !self.begin_installing() {
            return;
        }
        self.let_jobs_finish(true).await;
        let rests = self.rests();
        // Who puts it off holds the state, too: it is put off, or due, never both.
        let mut state = lock(&self.updates.state);
        let still = matches!(state.status, UpdateStatus::Installing { .. });
        if still && rests && !self.updates.due.is_cancelled() {
            if state.back.is_some() {
                let own = self.updates.options.as_ref().map_or_else(Version::own, |o| o.own);
                state.saved.went_back_from(&own.to_string());
                self.updates.save(&state.saved);
            }
            self.updates.due.cancel();
        }
    }

    /// Whether a version is being installed, or is from now on.
    fn begin_installing(&self) -> bool {
        let in_the_way = lock(&self.guard).in_the_way().is_some();
        let mut state = lock(&self.updates.state);
        let watched = self.updates.is_watched() || in_the_way;
        let wanted = match (&state.ready, &state.status, state.back) {
            (_, UpdateStatus::Installing { .. }, _) => return true,
            (_, _, Some(version)) => Some(version.to_string()),
            (Some(ready), UpdateStatus::Ready { version, later_until_ms, .. }, None) => {
                let by_itself = !watched && state.may_by_itself(version, *later_until_ms);
                (by_itself || state.asked).then(|| ready.version.to_string())
            }
            (Some(ready), UpdateStatus::TakenBack { .. }, None) if state.asked => {
                Some(ready.version.to_string())
            }
            _ => None,
        };
        let Some(version) = wanted else { return false };
        info!("version {version} is installed when no job runs");
        state.status = UpdateStatus::Installing { version };
        true
    }

    /// Whether nothing runs that an end of the program would break off.
    fn rests(&self) -> bool {
        let mines = !matches!(lock(&self.mining).phase, Phase::Off | Phase::Problem(_));
        !mines
            && lock(&self.chats).is_empty()
            && lock(&self.pictures).is_empty()
            && !self.library.has_task()
    }

    /// Cancelled when a newer version is to be put in place now: nothing runs any more. The shell ends
    /// the application and hands over.
    pub fn update_due(&self) -> CancellationToken {
        self.updates.due.clone()
    }

    /// Whether a newer version waits for the running jobs to end, so that their end is not the
    /// program's.
    pub fn is_updating(&self) -> bool {
        matches!(self.updates.status(), UpdateStatus::Installing { .. })
    }

    /// What the shell leaves to the process that it becomes; none where nothing is to be exchanged.
    pub fn exchange_due(&self) -> Option<Exchange> {
        let state = lock(&self.updates.state);
        if state.back.is_some() {
            return Some(Exchange::Back);
        }
        state.ready.as_ref().map(|ready| Exchange::Install(ready.version))
    }

    /// Whether the window is open: while somebody looks at it, nothing restarts by itself.
    pub fn watched(&self, is_open: bool) {
        *lock(&self.updates.watch) = Watch { open: is_open, behind_since: None };
    }

    /// Whether the window is the one in front. One that was not for ten minutes, as a minimised one or one
    /// on another desktop, is not looked at.
    pub fn in_front(&self, is_in_front: bool) {
        let mut watch = lock(&self.updates.watch);
        watch.behind_since = match (is_in_front, watch.behind_since) {
            (true, _) => None,
            (false, since) => since.or_else(|| Some(Instant::now())),
        };
    }

    /// Whether the person wants newer versions to be looked for; it holds for the catalogue, too.
    pub(crate) fn looks_for_newer(&self) -> bool {
        lock(&self.updates.state).saved.preferences.check
    }

    /// The person wants to mine now: a version that waits for the jobs to end waits longer, and the way
    /// back is given up. Of one that was taken back nothing more is told.
    pub(crate) fn put_update_off(&self) {
        let mut state = lock(&self.updates.state);
        if self.updates.due.is_cancelled() {
            // The program ends for it already, and the next one goes on.
            return;
        }
        let went_back = state.back.take().is_some();
        state.asked = false;
        if let UpdateStatus::TakenBack { version, dismissed } = &mut state.status {
            *dismissed = true;
            let version = version.clone();
            state.before = state.status.clone();
            state.saved.rejected.insert(version);
            self.updates.save(&state.saved);
            return;
        }
        if state.ready.is_some() && !went_back {
            state.saved.later_until_ms = Some(now_ms() + LATER_MS);
            self.updates.save(&state.saved);
        }
        if !matches!(state.status, UpdateStatus::Fetching { .. }) {
            state.status = state.resting();
        }
    }

    /// Answers the window about updates.
    pub(crate) async fn update(
        self: &Arc<Self>,
        command: UpdateCommand,
    ) -> Result<UpdateView, ErrorBody> {
        match command {
            UpdateCommand::Look => {}
            UpdateCommand::Check => {
                self.has_updater()?;
                lock(&self.updates.state).problem = None;
                self.updates.look_now.notify_one();
            }
            UpdateCommand::Install => {
                self.ask_for_update()?;
                self.step_towards_update().await;
            }
            UpdateCommand::Later => {
                self.put_update_off();
                self.let_jobs_finish(false).await;
            }
            UpdateCommand::Back => {
                self.ask_for_way_back()?;
                self.step_towards_update().await;
            }
            UpdateCommand::Set { preferences } => {
                let mut state = lock(&self.updates.state);
                let saved = SavedUpdates { preferences, ..state.saved.clone() };
                self.updates.file.save(&saved).map_err(|e| internal(told_with_causes(&e)))?;
                state.saved = saved;
            }
        }
        self.changed.notify_one();
        Ok(self.update_view())
    }

    fn ask_for_update(&self) -> Result<(), ErrorBody> {
        let mut state = lock(&self.updates.state);
        if state.ready.is_none() && matches!(state.status, UpdateStatus::TakenBack { .. }) {
            drop(state);
            self.has_updater()?;
            // Its files are gone: they are fetched first.
            state = lock(&self.updates.state);
            state.problem = None;
            self.updates.look_now.notify_one();
        } else if state.ready.is_none() {
            let message = "There is no newer version to install.";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
        }
        state.asked = true;
        Ok(())
    }

    fn has_updater(&self) -> Result<(), ErrorBody> {
        if self.updates.options.as_ref().is_some_and(|options| options.updater.is_some()) {
            return Ok(());
        }
        let message = "This version does not update itself.";
        Err(ErrorBody::new(ErrorCode::InvalidRequest, message))
    }

    /// The person wants the version before this one, as soon as no job runs.
    fn ask_for_way_back(&self) -> Result<(), ErrorBody> {
        let options = self.updates.options.as_ref();
        let version = options.and_then(|options| swap::way_back(&options.place, options.own));
        let none = || ErrorBody::new(ErrorCode::InvalidRequest, "No earlier version is kept here.");
        let version = version.ok_or_else(none)?;
        let mut state = lock(&self.updates.state);
        state.back = Some(version);
        if !matches!(state.status, UpdateStatus::Fetching { .. } | UpdateStatus::Installing { .. })
        {
            state.before = state.status.clone();
        }
        state.status = UpdateStatus::Installing { version: version.to_string() };
        Ok(())
    }

    fn update_view(&self) -> UpdateView {
        let options = self.updates.options.as_ref();
        let keeper =
            match options.map(|options| (&options.updater, options.place.replaces_itself())) {
                Some((Some(_), true)) => UpdateKeeper::Itself,
                Some((Some(_), false)) => UpdateKeeper::Person,
                _ => UpdateKeeper::Nobody,
            };
        let back_to = options.and_then(|options| swap::way_back(&options.place, options.own));
        let back_to = back_to.map(|version| version.to_string());
        let state = lock(&self.updates.state);
        UpdateView {
            own: options.map_or_else(|| Version::own().to_string(), |o| o.own.to_string()),
            keeper,
            preferences: state.saved.preferences.clone(),
            checked_at_ms: state.saved.checked_at_ms,
            status: state.status.clone(),
            problem: state.problem.clone(),
            back_to,
        }
    }
}

fn taken_back_of(app: &App) -> Option<Version> {
    taken_back(app.updates.options.as_ref()?)
}

fn shown(error: &UpdateError) -> ErrorBody {
    let code = if error.passes() { ErrorCode::Unreachable } else { ErrorCode::Internal };
    ErrorBody::new(code, told_with_causes(error))
}
