//! The guard: looks at the surroundings every second, has the control decide, and carries the
//! decision out. Nothing else starts or stops the miner.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use neurino_config::{ControlFile, Dirs, RulesFile};
use neurino_control::{
    Action, Cause, ClockChange, Control, Decision, Entry, Facts, Foreground, JobDevice, Order,
    Rules, Saved, State, Week,
};
use neurino_engine::EngineStatus;
use neurino_hardware::GpuSample;
use neurino_platform::{Front, Surroundings, View};
use neurino_protocol::app::StopMode;
use neurino_protocol::control::{Abilities, ControlStatus, GaveBack, RulesView};
use neurino_protocol::{ErrorBody, ErrorCode};
use tracing::{info, warn};

use crate::mining::Phase;
use crate::{App, internal, lock, told_with_causes};

/// How often the surroundings are looked at: a game is noticed within a second, and then there is
/// one left to hand its job back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A run that has not unloaded its model by then proves nothing.
const UNLOAD_LIMIT: Duration = Duration::from_secs(5);
/// The name of this program's own window.
const OWN_PROGRAM: &str = "neurino";
/// A surrounding that hangs longer is left alone until it answers.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A change of the clock that is further ahead is no matter yet.
const CHANGE_NEAR_MS: i64 = 8 * 24 * 3_600_000;

/// The control and what it was last told.
pub(crate) struct Guard {
    control: Control,
    seen: Seen,
    gave_back: Option<GaveBack>,
    files: Option<Files>,
    /// What the file holds.
    written: Saved,
    /// The last program that looked like a game.
    suspect: Option<String>,
    /// The program ends as it should; a look that is still under way changes nothing about it.
    ending: bool,
}

struct Files {
    rules: RulesFile,
    control: ControlFile,
}

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    view: View,
    front: Option<Foreground>,
    card_c: Option<i16>,
    card_load: bool,
    /// A newer version of this program waits for the jobs to end.
    updating: bool,
    /// The library is being moved.
    moving: bool,
}

/// The surroundings of a program with a window.
pub(crate) type Desk = Arc<Mutex<Box<dyn Surroundings>>>;

impl Guard {
    /// The control as the last run left it. Without surroundings there are no rules and nothing is
    /// remembered: the caller decides.
    pub(crate) fn open(dirs: &Dirs, view: Option<View>, device: JobDevice) -> Self {
        let files = view
            .is_some()
            .then(|| Files { rules: RulesFile::new(dirs), control: ControlFile::new(dirs) });
        let rules = files.as_ref().map_or_else(Rules::none, |files| files.rules.load());
        let saved = files.as_ref().map(|files| files.control.load()).unwrap_or_default();
        // A first look, so that what is remembered is not judged blindly.
        let seen = Seen::of(view.unwrap_or_default(), None, None);
        let control = Control::new(rules, saved.clone(), &seen.facts(device, false));
        Self { control, seen, gave_back: None, files, written: saved, suspect: None, ending: false }
    }

    /// Whether nobody has used the machine for so many seconds, it is not on its battery, and nothing has
    /// it for itself: who plays with a gamepad touches neither mouse nor keyboard. What the desktop does
    /// not tell holds nothing back.
    pub(crate) fn is_left_alone(&self, idle_secs: u32) -> bool {
        let view = &self.seen.view;
        let free = self.control.in_the_way().is_none_or(|cause| *cause == Cause::Metered);
        let idle = view.idle_secs.is_none_or(|idle| idle >= idle_secs);
        free && idle && view.on_battery != Some(true)
    }

    /// What downloads and the like leave the machine alone for.
    pub(crate) fn in_the_way(&self) -> Option<Cause> {
        self.control.in_the_way().cloned()
    }

    /// Whether it goes by rules, and looks again by itself.
    pub(crate) fn has_rules(&self) -> bool {
        self.files.is_some()
    }

    /// What the window is told.
    pub(crate) fn status(&self) -> ControlStatus {
        ControlStatus { decision: self.control.decision().clone(), gave_back: self.gave_back }
    }

    /// Writes down what has to outlive the program, if it changed. Before the end, a start that finds
    /// it means that the program ended without a word.
    fn remember(&mut self) {
        let Some(files) = &self.files else { return };
        let saved = self.control.saved();
        let saved = Saved { running: saved.running && !self.ending, ..saved };
        if saved != self.written {
            match files.control.save(&saved) {
                Ok(()) => self.written = saved,
                Err(error) => {
                    warn!("the control's state is not saved: {}", told_with_causes(&error));
                }
            }
        }
    }
}

impl Seen {
    /// What a view shows, with the load that the window in front puts on the card and the
    /// temperature of the card that computes.
    fn of(view: View, load: Option<u8>, card_c: Option<i16>) -> Self {
        let front = match &view.front {
            Front::Window { program, full_screen, .. } if program != OWN_PROGRAM => {
                Some(Foreground {
                    program: program.clone(),
                    full_screen: *full_screen,
                    card_load_percent: load,
                })
            }
            _ => None,
        };
        Self { view, front, card_c, card_load: load.is_some(), updating: false, moving: false }
    }

    fn facts(&self, device: JobDevice, mining: bool) -> Facts<'_> {
        let now = jiff::Zoned::now();
        let day = u16::from(now.weekday().to_monday_zero_offset().unsigned_abs());
        let minute =
            u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
        Facts {
            now_ms: now.timestamp().as_millisecond(),
            week_minute: day * 24 * 60 + minute,
            clock_change: clock_change(&now),
            device,
            mining,
            idle_secs: self.view.idle_secs,
            other_user: self.view.other_user,
            on_battery: self.view.on_battery,
            metered: self.view.metered,
            card_c: self.card_c,
            updating: self.updating,
            moving: self.moving,
            programs: self.view.programs.as_deref(),
            foreground: self.front.as_ref(),
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            idle: self.view.idle_secs.is_some(),
            battery: self.view.on_battery.is_some(),
            metered: self.view.metered.is_some(),
            programs: self.view.programs.is_some(),
            front: self.view.front != Front::Unknown,
            card_load: self.card_load,
            heat: self.card_c.is_some(),
        }
    }
}

/// The next change of the local clock, if there is one within the next days.
fn clock_change(now: &jiff::Zoned) -> Option<ClockChange> {
    let next = now.time_zone().following(now.timestamp()).next()?;
    let before = i64::from(now.offset().seconds());
    let by_minutes = (i64::from(next.offset().seconds()) - before) / 60;
    let at_ms = next.timestamp().as_millisecond();
    // Some change the name of their zone alone.
    let near = by_minutes != 0 && at_ms - now.timestamp().as_millisecond() < CHANGE_NEAR_MS;
    near.then_some(ClockChange { at_ms, by_minutes: by_minutes as i16 })
}

/// Looks once, before anything is decided.
pub(crate) async fn first_look(
    desk: Option<Box<dyn Surroundings>>,
) -> Option<(View, Box<dyn Surroundings>)> {
    let mut desk = desk?;
    let looking = tokio::task::spawn_blocking(move || (desk.look(), desk));
    Some(looking.await.expect("looking does not panic"))
}

impl App {
    /// Looks, decides and acts until the application ends.
    pub(crate) fn spawn_guard(self: &Arc<Self>, desk: Box<dyn Surroundings>) {
        let (app, desk) = (Arc::clone(self), Arc::new(Mutex::new(desk)));
        self.tasks.spawn(async move {
            loop {
                let look = app.look(&desk);
                tokio::select! {
                    () = app.end.cancelled() => return,
                    seen = look => if let Some(seen) = seen { app.observe(seen) },
                }
                app.carry_out().await;
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        });
    }

    /// What is to be seen now; `None` where the desktop does not answer in time.
    async fn look(&self, desk: &Desk) -> Option<Seen> {
        let (desk, hardware) = (Arc::clone(desk), self.hardware());
        let looking = tokio::task::spawn_blocking(move || {
            let view = desk.try_lock().ok()?.look();
            let load = match &view.front {
                Front::Window { process: Some(process), .. } => hardware.card_load_of(*process),
                _ => None,
            };
            let load = load.or(view.front_load_percent);
            Some((view, load))
        });
        let (view, load) = tokio::time::timeout(LOOK_LIMIT, looking).await.ok()?.ok()??;
        let sample = self.sample().await;
        let cards = self.used_gpus();
        let used = sample.gpus.iter().filter(|s| cards.iter().any(|gpu| gpu.index == s.index));
        // The hottest of those that compute.
        let card_c = used.filter_map(GpuSample::hottest_c).map(|c| c.round() as i16).max();
        Some(Seen::of(view, load, card_c))
    }

    fn observe(&self, seen: Seen) {
        let (device, mining) = (self.job_device(), self.is_mining());
        let mut guard = lock(&self.guard);
        let before = guard.control.decision().clone();
        let card_load = guard.seen.card_load || seen.card_load;
        let (updating, moving) = (guard.seen.updating, self.library.is_moving());
        guard.seen = Seen { card_load, updating, moving, ..seen };
        let in_the_way = guard.in_the_way();
        let Guard { control, seen, suspect, .. } = &mut *guard;
        if let Some(front) = seen.front.as_ref().filter(|front| front.full_screen) {
            *suspect = Some(front.program.clone());
        }
        let decision = control.observe(&seen.facts(device, mining));
        if *decision != before {
            if (decision.state, &decision.why) != (before.state, &before.why) {
                info!(state = ?decision.state, action = ?decision.action, "mining is decided anew");
            }
            self.changed.notify_one();
        }
        if in_the_way.as_ref() != control.in_the_way() {
            self.library.look_around();
        }
        guard.remember();
    }

    /// Looks whether the library moves: it waits for nothing, and nothing begins meanwhile.
    pub(crate) fn see_library(&self) {
        let (device, mining, moving) =
            (self.job_device(), self.is_mining(), self.library.is_moving());
        let mut guard = lock(&self.guard);
        let Guard { control, seen, .. } = &mut *guard;
        seen.moving = moving;
        control.observe(&seen.facts(device, mining));
        guard.remember();
        self.changed.notify_one();
    }

    /// Does what the decision in force asks for, if the miner does something else.
    pub(crate) async fn carry_out(self: &Arc<Self>) {
        let decision = lock(&self.guard).control.decision().clone();
        let phase = lock(&self.mining).phase.clone();
        if let Phase::Running(miner) = &phase {
            miner.hold(decision.action == Action::TakeNoJobs);
            miner.one_at_a_time(self.one_job_at_a_time());
        }
        match (decision.action, phase) {
            (Action::Run, Phase::Off | Phase::Finishing(_)) => {
                lock(&self.guard).gave_back = None;
                // Refused only while the application ends.
                let _ = self.mining_start();
            }
            // Whoever had the memory may have given it back.
            (Action::Run, Phase::Problem(_)) if self.retry_is_due() => {
                let _ = self.mining_start();
            }
            (
                Action::FinishThenStop,
                Phase::Running(_) | Phase::Preparing(_) | Phase::NoCard(_),
            ) => {
                self.mining_stop(StopMode::Finish).await;
            }
            (
                Action::HandBack,
                Phase::Running(_) | Phase::Preparing(_) | Phase::NoCard(_) | Phase::Finishing(_),
            ) => {
                self.hand_back(&decision).await;
            }
            // A problem waits for the person; but with a reason to stay away it is over.
            (Action::HandBack, Phase::Problem(_)) => self.mining_stop(StopMode::Now).await,
            _ => {}
        }
    }

    /// Hands running jobs back and unloads; measures what that gave back.
    async fn hand_back(self: &Arc<Self>, decision: &Decision) {
        let begin = Instant::now();
        let jobs = lock(&self.mining).miner().map_or(0, |miner| miner.status().borrow().jobs);
        let loaded = matches!(*self.engine().status().borrow(), EngineStatus::Ready(_));
        let before = self.memory_held().await;
        self.mining_stop(StopMode::Now).await;
        self.power_back().await;
        // The run that held the engine ends with the model unloaded.
        let ended = tokio::time::timeout(UNLOAD_LIMIT, self.turn.lock()).await.is_ok();
        let duration_ms = begin.elapsed().as_millis() as u64;
        let held = before.zip(self.memory_held().await).filter(|_| ended);
        let bytes = held.and_then(|(before, after)| before.checked_sub(after));
        info!(jobs, duration_ms, freed_bytes = bytes, "stepped aside: {}", reason(decision));
        let proof = bytes.filter(|&bytes| loaded && bytes > 0);
        lock(&self.guard).gave_back = proof.map(|bytes| GaveBack { bytes, duration_ms, jobs });
        self.changed.notify_one();
    }

    /// Memory that others could have: used on the cards that compute, else by the engine's
    /// processes. `None` where nothing can be measured.
    async fn memory_held(&self) -> Option<u64> {
        let cards = self.used_gpus();
        if !cards.is_empty() {
            let hardware = self.hardware();
            let sample = tokio::task::spawn_blocking(move || hardware.sample()).await.ok()?;
            let used = sample.gpus.iter().filter(|s| cards.iter().any(|gpu| gpu.index == s.index));
            return used.map(|s| s.memory_used_bytes).sum();
        }
        let held = self.engine().process_ids().into_iter();
        Some(held.filter_map(neurino_hardware::resident_memory_bytes_of).sum())
    }

    /// Lets the running jobs finish for a newer version of the program, or goes on with them; called
    /// again and again, since there may be nobody else who looks.
    pub(crate) async fn let_jobs_finish(self: &Arc<Self>, updating: bool) {
        let (device, mining) = (self.job_device(), self.is_mining());
        {
            let mut guard = lock(&self.guard);
            let Guard { control, seen, .. } = &mut *guard;
            seen.updating = updating;
            control.observe(&seen.facts(device, mining));
            guard.remember();
        }
        self.changed.notify_one();
        self.carry_out().await;
    }

    /// Takes the person's order and acts on it. A stop returns when running jobs are handed back.
    pub(crate) async fn order(self: &Arc<Self>, order: Order) -> Result<(), ErrorBody> {
        let closing = self.end.is_cancelled() || self.update_due().is_cancelled();
        if closing && order == Order::Start {
            return Err(ErrorBody::new(ErrorCode::Cancelled, "Neurino is closing."));
        }
        if order == Order::Start && self.is_updating() {
            self.put_update_off();
            lock(&self.guard).seen.updating = false;
        }
        let (device, mining) = (self.job_device(), self.is_mining());
        let action = {
            let mut guard = lock(&self.guard);
            let Guard { control, seen, .. } = &mut *guard;
            let action = control.order(order, &seen.facts(device, mining)).action;
            guard.remember();
            action
        };
        // What was set aside is no longer waited for, either.
        self.library.look_around();
        self.changed.notify_one();
        match (action, order) {
            (Action::Run, _) => {
                lock(&self.guard).gave_back = None;
                self.mining_start()?;
            }
            (Action::FinishThenStop, _) | (_, Order::Finish) => {
                self.mining_stop(StopMode::Finish).await;
            }
            (Action::HandBack, Order::Stop) => {
                lock(&self.guard).gave_back = None;
                self.mining_stop(StopMode::Now).await;
                self.power_back().await;
            }
            (Action::TakeNoJobs | Action::HandBack, _) => self.carry_out().await,
        }
        Ok(())
    }

    /// Whether jobs are taken one at a time, because somebody uses the machine.
    fn one_job_at_a_time(&self) -> bool {
        let guard = lock(&self.guard);
        guard.control.decision().gentle && guard.control.rules().gentle_one_job
    }

    /// The share of its usual power that a card may draw now, in per cent, because somebody uses
    /// the machine.
    pub(crate) fn gentle_percent(&self) -> Option<u32> {
        let guard = lock(&self.guard);
        let percent = guard.control.rules().gentle_power_percent;
        guard.control.decision().gentle.then_some(percent)
    }

    /// The hours that the schedule marks as cheap, whether or not it decides when to mine.
    pub(crate) fn week_of_prices(&self) -> Week {
        lock(&self.guard).control.rules().week.clone()
    }

    /// The rules, what they could be, and what this system tells.
    pub(crate) fn rules_view(&self) -> RulesView {
        let guard = lock(&self.guard);
        RulesView {
            rules: guard.control.rules().clone(),
            defaults: Rules::default(),
            abilities: guard.seen.abilities(),
            seen: guard.suspect.clone(),
        }
    }

    /// Checks, saves and follows other rules.
    pub(crate) async fn rules_set(self: &Arc<Self>, rules: Rules) -> Result<RulesView, ErrorBody> {
        let rules = rules.checked().map_err(|error| {
            ErrorBody::new(ErrorCode::InvalidRequest, error.to_string())
                .with_hint("Nothing was changed.")
        })?;
        let (device, mining) = (self.job_device(), self.is_mining());
        {
            let mut guard = lock(&self.guard);
            let Some(files) = &guard.files else {
                let message = "This program is told what to do by its caller; it has no rules.";
                return Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
            };
            files.rules.save(&rules).map_err(|e| internal(told_with_causes(&e)))?;
            let Guard { control, seen, .. } = &mut *guard;
            control.set_rules(rules, &seen.facts(device, mining));
            guard.remember();
        }
        self.library.look_around();
        self.changed.notify_one();
        self.carry_out().await;
        Ok(self.rules_view())
    }

    /// The last decisions, newest first.
    pub(crate) fn decisions(&self) -> Vec<Entry> {
        lock(&self.guard).control.history().iter().rev().cloned().collect()
    }

    /// The program ends as it should: what was on is on again at the next start.
    pub(crate) fn guard_ends(&self) {
        let mut guard = lock(&self.guard);
        guard.ending = true;
        guard.remember();
    }

    /// The control's words for the state line, where they are what counts.
    pub(crate) fn control_status(&self) -> ControlStatus {
        lock(&self.guard).status()
    }
}

/// A decision's reason for the log, which names no programs.
fn reason(decision: &Decision) -> &'static str {
    match decision.state {
        State::Stopped => "the person stopped",
        State::Snoozed => "the person paused",
        _ => "a rule",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::now_ms;

    #[test]
    fn the_clock_is_known_to_change() {
        let at = |text: &str| clock_change(&text.parse().unwrap());
        let spring = at("2026-03-28T12:00[Europe/Berlin]").unwrap();
        let begins: jiff::Timestamp = "2026-03-29T01:00:00Z".parse().unwrap();
        assert_eq!((spring.at_ms, spring.by_minutes), (begins.as_millisecond(), 60));
        assert_eq!(at("2026-10-24T12:00[Europe/Berlin]").unwrap().by_minutes, -60);
        assert_eq!(at("2026-06-01T12:00[Europe/Berlin]"), None);
        assert_eq!(at("2026-06-01T12:00[UTC]"), None);
        let half = at("2026-10-03T12:00[Australia/Lord_Howe]").unwrap();
        assert_eq!(half.by_minutes, 30);
    }

    #[test]
    fn facts_lie_within_the_week() {
        let facts_of = Seen::default();
        let facts = facts_of.facts(JobDevice::Cpu, false);
        assert!(facts.week_minute < neurino_control::WEEK_MINUTES);
        assert!((facts.now_ms - now_ms()).abs() < 60_000);
    }
}
