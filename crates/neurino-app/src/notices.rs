//! What the desktop's own notifications tell: off but for what needs the person, and nothing twice.
//!
//! [`Told`] compares each [`Glance`] with what it has seen; whoever shows notifications is the shell's
//! ([`Notifier`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use neurino_config::{Dirs, NoticeFiles};
use neurino_control::{Alert, Cause, Decision, Saying, Why};
use neurino_core::MicroPoints;
use neurino_earnings::calendar;
use neurino_protocol::app::{MiningState, MiningStatus, ModelState, ModelStatus};
use neurino_protocol::earnings::JobOutcome;
use neurino_protocol::notices::{Notice, NoticeSettings, NoticesCommand};
use neurino_protocol::update::UpdateStatus;
use neurino_protocol::{ErrorBody, ErrorCode};
use tracing::warn;

use crate::glance::Glance;
use crate::{App, internal, lock, told_with_causes};

/// So many jobs in a row that brought nothing are told.
const FAILED_IN_A_ROW: u32 = 3;
/// The same trouble is told again when it was gone for so long.
const NEEDS_QUIET_MS: i64 = 30 * 60_000;

/// Shows notifications in the words of the language that the person chose.
pub trait Notifier: Send + Sync {
    /// Shows one; may take a second.
    ///
    /// # Errors
    /// Why the desktop shows none, in words for people.
    fn show(&self, notice: &Notice) -> Result<(), ErrorBody>;
}

/// Settings, what was told, and who tells it.
pub(crate) struct Notices {
    files: NoticeFiles,
    settings: Mutex<NoticeSettings>,
    notifier: Option<Arc<dyn Notifier>>,
}

impl Notices {
    pub(crate) fn open(dirs: &Dirs, notifier: Option<Arc<dyn Notifier>>) -> Self {
        let files = NoticeFiles::new(dirs);
        let settings = Mutex::new(files.load_settings());
        Self { files, settings, notifier }
    }

    /// Whether what the hotkey did is told.
    pub(crate) fn wants_hotkey(&self) -> bool {
        self.notifier.is_some() && lock(&self.settings).hotkey
    }
}

/// What has been seen and told.
#[derive(Debug, Default)]
struct Told {
    /// By kind, what was told last; outlives the program.
    last: BTreeMap<String, String>,
    /// The state before.
    mined: bool,
    needed: bool,
    /// What the person was last needed for, and when.
    needs: Option<(String, i64)>,
    /// Models that were being fetched.
    fetching: BTreeSet<String>,
    alerts: BTreeSet<(String, i64)>,
    /// Jobs that failed in a row; `None` before the first look: what failed before this start was told
    /// then.
    failed: Option<u32>,
}

/// What notices are made from.
#[derive(Clone, Copy)]
struct Seen<'a> {
    mining: &'a MiningStatus,
    decision: &'a Decision,
    jobs_today: u32,
    update: &'a UpdateStatus,
    models: &'a [ModelStatus],
    alerts: &'a [Alert],
}

impl<'a> Seen<'a> {
    fn of(now: &'a Glance, models: &'a [ModelStatus]) -> Self {
        Self {
            mining: &now.mining,
            decision: &now.control.decision,
            jobs_today: now.points.jobs_today,
            update: &now.update,
            models,
            alerts: &now.alerts,
        }
    }
}

/// What a look finds beside the snapshot.
struct Day {
    /// `2026-11-22`.
    today: String,
    /// The number of the network's week, as Earnings lists them.
    week: u32,
    /// Milliseconds since the Unix epoch.
    now_ms: i64,
}

impl Told {
    /// What is new, and is told once.
    fn observe(&mut self, now: Seen<'_>, day: &Day, failed_in_a_row: u32) -> Vec<Notice> {
        let mut news = Vec::new();
        let needs = now.mining.state == MiningState::NeedsYou;
        if needs && !self.needed {
            let problem = now.mining.problem.as_ref().map(|problem| problem.message.clone());
            let text = problem.unwrap_or_else(|| now.mining.sentence.clone());
            let told = self.needs.replace((text.clone(), day.now_ms));
            // What comes and goes is told once, until it was quiet for a while.
            let lately = told.is_some_and(|(before, at_ms)| {
                before == text && (0..NEEDS_QUIET_MS).contains(&(day.now_ms - at_ms))
            });
            if !lately {
                news.push(Notice::NeedsYou(text));
            }
        }
        self.needed = needs;
        let decision = now.decision;
        let mines = matches!(now.mining.state, MiningState::Waiting | MiningState::Working);
        match (&decision.why, &decision.said) {
            // A newer version is told as what it is.
            (Why::Rule { cause }, said @ Saying::Held { .. })
                if now.mining.state == MiningState::Paused
                    && self.mined
                    && *cause != Cause::Update =>
            {
                news.push(Notice::Paused(said.clone()));
            }
            _ => {}
        }
        let rests = matches!(now.mining.state, MiningState::Paused | MiningState::Stopped);
        if mines || rests {
            self.mined = mines;
        }
        if now.jobs_today > 0 && self.once("points", &day.today) {
            news.push(Notice::FirstPoints);
        }
        match now.update {
            UpdateStatus::Ready { version, .. } if self.once("update", version) => {
                news.push(Notice::Update(version.clone()));
            }
            UpdateStatus::ByHand { version, .. } if self.once("update", version) => {
                news.push(Notice::UpdateByHand(version.clone()));
            }
            _ => {}
        }
        for model in now.models {
            let id = model.id.to_string();
            match model.state {
                ModelState::Fetching { .. } => {
                    self.fetching.insert(id);
                }
                ModelState::Ready | ModelState::Loaded if self.fetching.remove(&id) => {
                    news.push(Notice::Model(model.name.clone()));
                }
                _ => {}
            }
        }
        let alerts: BTreeSet<_> =
            now.alerts.iter().map(|a| (format!("{:?}", a.kind), a.since_ms)).collect();
        for alert in now.alerts {
            if !self.alerts.contains(&(format!("{:?}", alert.kind), alert.since_ms)) {
                news.push(Notice::Alert(alert.kind, alert.sentence.clone()));
            }
        }
        // One that a pause of mining ended for a while is not another one afterwards.
        self.alerts.extend(alerts);
        let before = self.failed.replace(failed_in_a_row);
        if failed_in_a_row >= FAILED_IN_A_ROW && before.is_some_and(|n| n < FAILED_IN_A_ROW) {
            news.push(Notice::JobsFail(failed_in_a_row));
        }
        news
    }

    /// Whether this is the first time that `what` is told of a kind.
    fn once(&mut self, kind: &str, what: &str) -> bool {
        self.last.insert(kind.to_owned(), what.to_owned()).as_deref() != Some(what)
    }

    /// Whether a week of the network has begun since the last time; never in the first one.
    fn week_begins(&mut self, day: &Day) -> bool {
        const KIND: &str = "network_week";
        let first = !self.last.contains_key(KIND);
        self.once(KIND, &day.week.to_string()) && !first
    }
}

fn wanted(settings: &NoticeSettings, notice: &Notice) -> bool {
    match notice {
        Notice::NeedsYou(_) => settings.needs_you,
        Notice::Paused(_) => settings.paused,
        Notice::FirstPoints => settings.first_points,
        Notice::Weekly(..) => settings.weekly,
        Notice::Update(_) | Notice::UpdateByHand(_) => settings.update,
        Notice::Model(_) => settings.model,
        Notice::JobsFail(_) => settings.jobs_fail,
        Notice::Alert(..) => settings.alerts,
        Notice::Hotkey(_) => settings.hotkey,
        Notice::Test => true,
    }
}

fn day(now: &jiff::Zoned) -> Day {
    let today = now.date();
    let now_ms = now.timestamp().as_millisecond();
    Day { today: today.to_string(), week: calendar::week_of(now_ms), now_ms }
}

impl App {
    /// Tells what is new until the application ends, where there is somebody to tell it.
    pub(crate) fn spawn_notices(self: &Arc<Self>) {
        if self.notices.notifier.is_none() {
            return;
        }
        let (app, mut glances) = (Arc::clone(self), self.glances());
        self.tasks.spawn(async move {
            let last = app.notices.files.load_told();
            let mut told = Told { last, ..Told::default() };
            loop {
                tokio::select! {
                    () = app.end.cancelled() => return,
                    changed = glances.changed() => if changed.is_err() { return },
                }
                let now = glances.borrow_and_update().clone();
                if let Some(now) = now {
                    app.tell_news(&mut told, &now).await;
                }
            }
        });
    }

    async fn tell_news(&self, told: &mut Told, now: &Glance) {
        let (day, before) = (day(&jiff::Zoned::now()), told.last.clone());
        let models = self.fetched(now, &told.fetching);
        let mut news = told.observe(Seen::of(now, &models), &day, self.failed_in_a_row());
        if told.week_begins(&day) {
            // The one that Earnings lists as the last.
            let (from_ms, until_ms) = calendar::week(day.week.saturating_sub(1));
            let week = self.receipts.totals_between(from_ms, until_ms);
            let (llama, waifu): (MicroPoints, MicroPoints) = (week.llama_micro, week.waifu_micro);
            if llama.0 > 0 || waifu.0 > 0 {
                news.push(Notice::Weekly(llama, waifu));
            }
        }
        if told.last != before
            && let Err(error) = self.notices.files.save_told(&told.last)
        {
            warn!("what was told is not saved: {}", told_with_causes(&error));
        }
        let settings = lock(&self.notices.settings).clone();
        for notice in news.into_iter().filter(|notice| wanted(&settings, notice)) {
            if let Err(error) = self.show_notice(notice).await {
                warn!("no notification: {error}");
            }
        }
    }

    /// How many of the last jobs in a row brought nothing.
    fn failed_in_a_row(&self) -> u32 {
        let outcomes = self.records.last_outcomes(FAILED_IN_A_ROW as usize);
        let failed = |outcome: &&JobOutcome| matches!(outcome, JobOutcome::Failed);
        outcomes.iter().take_while(failed).count() as u32
    }

    pub(crate) async fn show_notice(&self, notice: Notice) -> Result<(), ErrorBody> {
        let Some(notifier) = self.notices.notifier.clone() else {
            let message = "This program runs without a desktop.";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
        };
        tokio::task::spawn_blocking(move || notifier.show(&notice))
            .await
            .unwrap_or_else(|_| Err(internal("the notification could not be shown")))
    }

    /// Answers the window about notifications.
    pub(crate) async fn notices(
        &self,
        command: NoticesCommand,
    ) -> Result<NoticeSettings, ErrorBody> {
        match command {
            NoticesCommand::Look => {}
            NoticesCommand::Set { settings } => {
                let saved = self.notices.files.save_settings(&settings);
                saved.map_err(|error| internal(told_with_causes(&error)))?;
                *lock(&self.notices.settings) = settings;
            }
            NoticesCommand::Test => self.show_notice(Notice::Test).await?,
        }
        Ok(lock(&self.notices.settings).clone())
    }
}

#[cfg(test)]
mod tests {
    use neurino_control::{Action, AlertKind, Ending, State, Strictness};
    use neurino_protocol::saying::MiningSaying;

    use super::*;

    fn day(today: &str, week: u32) -> Day {
        Day { today: today.into(), week, now_ms: 0 }
    }

    fn kinds(news: &[Notice]) -> Vec<String> {
        let name = |notice: &Notice| format!("{notice:?}").split('(').next().map(str::to_owned);
        news.iter().filter_map(name).collect()
    }

    /// A machine that mines, and what a test changes of it.
    struct Machine {
        mining: MiningStatus,
        decision: Decision,
        jobs_today: u32,
        update: UpdateStatus,
        alerts: Vec<Alert>,
    }

    impl Machine {
        fn new() -> Self {
            let decision = Decision {
                state: State::Running,
                action: Action::Run,
                why: Why::Free,
                sentence: "Mining.".into(),
                said: Saying::Mining,
                until_ms: None,
                resume: None,
                resume_lifts: vec![],
                change: None,
                aside: None,
                gentle: false,
                aside_lifts: vec![],
            };
            let (state, said) = (MiningState::Waiting, MiningSaying::Decided);
            let sentence = "the reason".to_owned();
            let mining = MiningStatus { state, sentence, said, since_ms: 0, problem: None };
            let update = UpdateStatus::None;
            Self { mining, decision, jobs_today: 0, update, alerts: vec![] }
        }

        fn held_by(mut self, cause: Cause) -> Self {
            self.mining.state = MiningState::Paused;
            self.decision.why = Why::Rule { cause: cause.clone() };
            let how = Strictness::Paused;
            self.decision.said = Saying::Held { how, cause, end: Ending::Unknown };
            self
        }

        fn seen(&self) -> Seen<'_> {
            let Self { mining, decision, jobs_today, update, alerts } = self;
            Seen { mining, decision, jobs_today: *jobs_today, update, models: &[], alerts }
        }
    }

    #[test]
    fn nothing_is_told_twice() {
        let (mut told, today) = (Told::default(), day("2026-11-23", 2969));
        let mut machine = Machine::new();
        let mut look =
            |machine: &Machine, failed| kinds(&told.observe(machine.seen(), &today, failed));
        assert!(look(&machine, 0).is_empty());
        machine.mining.state = MiningState::NeedsYou;
        assert_eq!(look(&machine, 0), ["NeedsYou"]);
        assert!(look(&machine, 0).is_empty());
        machine.mining.state = MiningState::Working;
        assert!(look(&machine, 0).is_empty());
        machine.jobs_today = 1;
        assert_eq!(look(&machine, 0), ["FirstPoints"]);
        machine.jobs_today = 2;
        assert!(look(&machine, 0).is_empty());
        let (version, notes) = ("0.2.0".to_owned(), BTreeMap::default());
        machine.update = UpdateStatus::Ready { version, notes, later_until_ms: None };
        assert_eq!(look(&machine, 0), ["Update"]);
        assert!(look(&machine, 2).is_empty());
        assert_eq!(look(&machine, 3), ["JobsFail"]);
        assert!(look(&machine, 3).is_empty());
        let (kind, sentence) = (AlertKind::Hot, "hot".to_owned());
        machine.alerts = vec![Alert { kind, sentence, since_ms: 7, until_ms: None }];
        assert_eq!(look(&machine, 3), ["Alert"]);
        assert!(look(&machine, 3).is_empty());
        machine.alerts[0].since_ms = 9;
        assert_eq!(look(&machine, 3), ["Alert"], "another one");
    }

    #[test]
    fn trouble_that_comes_and_goes_is_told_once() {
        let mut told = Told::default();
        let mut look = |minute: i64, state, words: &str| {
            let today = day("2026-11-23", 2969);
            let mut machine = Machine::new();
            machine.mining.state = state;
            machine.mining.sentence = words.into();
            let day = Day { now_ms: minute * 60_000, ..today };
            kinds(&told.observe(machine.seen(), &day, 0))
        };
        assert_eq!(look(0, MiningState::NeedsYou, "the engine failed"), ["NeedsYou"]);
        for minute in [2, 4, 6] {
            assert!(look(minute - 1, MiningState::Waiting, "").is_empty());
            assert!(look(minute, MiningState::NeedsYou, "the engine failed").is_empty());
        }
        assert!(look(7, MiningState::Waiting, "").is_empty());
        assert_eq!(look(8, MiningState::NeedsYou, "no card"), ["NeedsYou"], "something else");
        assert!(look(9, MiningState::Waiting, "").is_empty());
        assert_eq!(look(38, MiningState::NeedsYou, "no card"), ["NeedsYou"], "it was quiet");
    }

    #[test]
    fn an_alert_that_a_pause_ended_is_not_told_again() {
        let (mut told, today) = (Told::default(), day("2026-11-23", 2969));
        let mut machine = Machine::new();
        let (kind, sentence) = (AlertKind::NoPoints, "nothing".to_owned());
        let alert = Alert { kind, sentence, since_ms: 7, until_ms: None };
        for (alerts, expected) in [(vec![alert.clone()], 1), (vec![], 0), (vec![alert], 0)] {
            machine.alerts = alerts;
            assert_eq!(told.observe(machine.seen(), &today, 0).len(), expected);
        }
    }

    #[test]
    fn jobs_that_failed_before_a_restart_are_not_told_again() {
        let (mut told, today) = (Told::default(), day("2026-11-24", 2969));
        let machine = Machine::new();
        let mut look = |failed| kinds(&told.observe(machine.seen(), &today, failed));
        assert!(look(FAILED_IN_A_ROW).is_empty(), "told by the start before");
        assert!(look(FAILED_IN_A_ROW + 1).is_empty());
        assert!(look(0).is_empty());
        assert_eq!(look(FAILED_IN_A_ROW), ["JobsFail"], "another row");
    }

    #[test]
    fn a_rule_is_told_when_it_stops_what_ran_and_an_update_is_not_a_rule() {
        let (mut told, today) = (Told::default(), day("2026-11-23", 2969));
        let mut look = |machine: &Machine| kinds(&told.observe(machine.seen(), &today, 0));
        assert!(look(&Machine::new().held_by(Cause::Battery)).is_empty(), "nothing ran");
        assert!(look(&Machine::new()).is_empty());
        assert_eq!(look(&Machine::new().held_by(Cause::Battery)), ["Paused"]);
        assert!(look(&Machine::new().held_by(Cause::Metered)).is_empty());
        assert!(look(&Machine::new()).is_empty());
        assert!(look(&Machine::new().held_by(Cause::Update)).is_empty());
    }

    #[test]
    fn a_day_and_a_version_are_told_once_though_the_program_restarts() {
        let (machine, today) =
            (Machine { jobs_today: 1, ..Machine::new() }, day("2026-11-24", 2969));
        let mut told = Told::default();
        assert_eq!(kinds(&told.observe(machine.seen(), &today, 0)), ["FirstPoints"]);
        let mut again = Told { last: told.last, ..Told::default() };
        assert!(again.observe(machine.seen(), &today, 0).is_empty());
        let tomorrow = day("2026-11-25", 2969);
        assert_eq!(kinds(&again.observe(machine.seen(), &tomorrow, 0)), ["FirstPoints"]);
    }

    #[test]
    fn the_week_is_told_when_the_next_one_begins() {
        let mut told = Told::default();
        // It ends on Thursday at 00:00 UTC, as the list of weeks under Earnings has it.
        let at = |text: &str| super::day(&text.parse().expect("a time"));
        assert!(!told.week_begins(&at("2026-11-22T12:00[Europe/Berlin]")), "the first one");
        assert!(!told.week_begins(&at("2026-11-26T00:59[Europe/Berlin]")));
        assert!(told.week_begins(&at("2026-11-26T01:00[Europe/Berlin]")));
        assert!(!told.week_begins(&at("2026-12-02T12:00[Europe/Berlin]")));
    }

    #[test]
    fn only_what_is_switched_on_is_shown() {
        let quiet = NoticeSettings::default();
        assert!(wanted(&quiet, &Notice::NeedsYou(String::new())));
        assert!(!wanted(&quiet, &Notice::FirstPoints));
        assert!(wanted(&NoticeSettings { first_points: true, ..quiet }, &Notice::FirstPoints));
    }
}
