//! Which rules speak against mining at this moment, strictest first.

use crate::decision::{Action, Cause};
use crate::facts::{Facts, JobDevice};
use crate::games::{Sighting, Sign, sightings};
use crate::rules::Rules;
use crate::saying::Lifted;

/// Degrees beyond the temperature to stop at, from which running jobs are handed back.
pub(crate) const HOT_BEYOND_C: i16 = 5;

/// A rule that speaks against mining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) cause: Cause,
    pub(crate) action: Action,
    pub(crate) until_ms: Option<i64>,
}

/// What the rules remember between two moments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// The last game that was not set aside, and when it was last seen.
    pub(crate) game: Option<SeenGame>,
    /// The card got hot and has not cooled yet.
    hot: Option<Hot>,
    /// The person was away long enough and nothing has ended that.
    away: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SeenGame {
    pub(crate) program: String,
    sign: Sign,
    last_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Hot {
    reached_c: i16,
    beyond: bool,
}

/// What the person's choice sets aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lift {
    /// Away or not, until the person follows the rules again.
    Away,
    /// The hours of the week, until the person follows the rules again.
    Schedule,
    /// Until no other person's session is in front.
    OtherUser,
    /// Until the machine is back on mains.
    Battery,
    /// Until the network is no longer metered.
    Metered,
    /// Until the card has cooled.
    Hot,
    /// Until no newer version waits.
    Update,
    /// This game, until it has been gone as long as the cool-down takes.
    Game { program: String, last_ms: i64 },
    /// This program, until it ends.
    Exclusive { program: String },
}

impl Lift {
    /// What sets this cause aside; a crash and a cool-down are forgotten instead, and a library that
    /// moves is waited for, whoever wants to mine.
    pub(crate) fn of(cause: &Cause, now_ms: i64) -> Option<Self> {
        Some(match cause {
            Cause::Crash | Cause::CoolDown { .. } | Cause::Moving => return None,
            Cause::Game { program, .. } => Self::Game { program: program.clone(), last_ms: now_ms },
            Cause::Exclusive { program, .. } => Self::Exclusive { program: program.clone() },
            Cause::OtherUser => Self::OtherUser,
            Cause::Battery => Self::Battery,
            Cause::Hot { .. } => Self::Hot,
            Cause::InUse { .. } | Cause::AwayUnknown => Self::Away,
            Cause::Schedule { .. } => Self::Schedule,
            Cause::Metered => Self::Metered,
            Cause::Update => Self::Update,
        })
    }

    /// What outlives the program: a choice that ends on the person's word, not with what is seen.
    pub(crate) fn kept(lifted: &Lifted) -> Option<Self> {
        match lifted {
            Lifted::Away => Some(Self::Away),
            Lifted::Schedule => Some(Self::Schedule),
            _ => None,
        }
    }

    /// Whether two set aside the same thing.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Game { program: a, .. }, Self::Game { program: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }

    fn lifts(&self, cause: &Cause) -> bool {
        Self::of(cause, 0).is_some_and(|lift| lift.same_as(self))
    }
}

impl Memory {
    /// Takes in the facts; forgets what has passed, `lifts` that have lost their cause included.
    pub(crate) fn observe(&mut self, rules: &Rules, facts: &Facts<'_>, lifts: &mut Vec<Lift>) {
        self.observe_games(rules, facts, lifts);
        self.observe_heat(rules, facts);
        if !rules.when.wants_away() {
            self.away = false;
        } else if let Some(idle_secs) = facts.idle_secs {
            if idle_secs >= rules.idle_minutes * 60 {
                self.away = true;
            } else if rules.stop_on_return {
                self.away = false;
            }
        }
        lifts.retain(|lift| match lift {
            Lift::Away => rules.when.wants_away(),
            Lift::Schedule => rules.when.wants_schedule(),
            Lift::OtherUser => steps_aside_for_others(rules) && facts.other_user == Some(true),
            Lift::Battery => rules.pause_on_battery && facts.on_battery == Some(true),
            Lift::Metered => rules.pause_on_metered && facts.metered == Some(true),
            Lift::Hot => self.hot.is_some(),
            Lift::Update => facts.updating,
            Lift::Exclusive { program } => runs(facts, program),
            Lift::Game { last_ms, .. } => {
                facts.now_ms - last_ms < cool_down_ms(rules).max(LIFT_LEAST_MS)
            }
        });
    }

    fn observe_games(&mut self, rules: &Rules, facts: &Facts<'_>, lifts: &mut [Lift]) {
        let now_ms = facts.now_ms;
        let seen = sightings(rules, facts);
        for lift in &mut *lifts {
            if let Lift::Game { program, last_ms } = lift {
                let still = seen.iter().any(|s| s.program == program) || runs(facts, program);
                // A clock that was set back makes nothing last longer.
                *last_ms = if still { now_ms } else { (*last_ms).min(now_ms) };
            }
        }
        let aside = |program: &str| {
            lifts.iter().any(|l| matches!(l, Lift::Game { program: p, .. } if p == program))
        };
        let mut unlifted = seen.iter().filter(|s| !aside(s.program));
        let same = |s: &&Sighting<'_>| self.game.as_ref().is_some_and(|g| g.program == s.program);
        // Of several games the one that was named already stays the one that is named.
        if let Some(s) = unlifted.clone().find(same).or_else(|| unlifted.next()) {
            let program = s.program.to_owned();
            self.game = Some(SeenGame { program, sign: s.sign, last_ms: now_ms });
        } else if let Some(game) = &mut self.game {
            game.last_ms = game.last_ms.min(now_ms);
            let over = now_ms - game.last_ms >= cool_down_ms(rules);
            if over || !rules.game_guard || rules.not_games.contains(&game.program) {
                self.game = None;
            }
        }
    }

    fn observe_heat(&mut self, rules: &Rules, facts: &Facts<'_>) {
        let watched = rules.pause_when_hot && facts.device == JobDevice::Gpu;
        let Some(now_c) = facts.card_c.filter(|_| watched) else {
            self.hot = None;
            return;
        };
        let beyond = now_c >= rules.hot_stop_c + HOT_BEYOND_C;
        match &mut self.hot {
            Some(_) if now_c <= rules.hot_resume_c => self.hot = None,
            Some(hot) if beyond && !hot.beyond => *hot = Hot { reached_c: now_c, beyond },
            None if now_c >= rules.hot_stop_c => {
                self.hot = Some(Hot { reached_c: now_c, beyond });
            }
            Some(_) | None => {}
        }
    }

    /// The person stopped: what was granted while they were away ends.
    pub(crate) fn stopped(&mut self) {
        self.away = false;
    }

    /// All rules that speak against mining, in the order in which they are named.
    pub(crate) fn holds(&self, rules: &Rules, facts: &Facts<'_>) -> Vec<Hold> {
        let mut holds = Vec::new();
        let mut add = |cause, action, until_ms| holds.push(Hold { cause, action, until_ms });
        if let Some(game) = &self.game {
            let program = game.program.clone();
            if game.last_ms == facts.now_ms {
                add(Cause::Game { program, sign: game.sign }, Action::HandBack, None);
            } else {
                let until_ms = game.last_ms + cool_down_ms(rules);
                add(Cause::CoolDown { program }, Action::HandBack, Some(until_ms));
            }
        }
        let exclusive = match facts.device {
            JobDevice::Cpu => &rules.exclusive_cpu,
            JobDevice::Gpu => &rules.exclusive_gpu,
        };
        for program in exclusive.iter().filter(|program| runs(facts, program)) {
            let cause = Cause::Exclusive { program: program.clone(), device: facts.device };
            add(cause, Action::HandBack, None);
        }
        if steps_aside_for_others(rules) && facts.other_user == Some(true) {
            add(Cause::OtherUser, Action::HandBack, None);
        }
        if rules.pause_on_battery && facts.on_battery == Some(true) {
            add(Cause::Battery, Action::HandBack, None);
        }
        if let Some(Hot { reached_c, beyond }) = self.hot {
            let action = if beyond { Action::HandBack } else { Action::TakeNoJobs };
            add(Cause::Hot { reached_c, resume_c: rules.hot_resume_c }, action, None);
        }
        if rules.when.wants_away() {
            if facts.idle_secs.is_none() {
                add(Cause::AwayUnknown, Action::HandBack, None);
            } else if !self.away {
                add(Cause::InUse { minutes: rules.idle_minutes }, Action::HandBack, None);
            }
        }
        if rules.when.wants_schedule() && !rules.week.allows(facts.week_minute, rules.cheap_only) {
            let (minute, change) = (facts.week_minute, facts.change_ahead());
            let ahead = rules.week.minutes_until_allowed(minute, rules.cheap_only, change);
            let until_ms =
                ahead.map(|minutes| facts.this_minute_ms() + i64::from(minutes) * 60_000);
            let cause = Cause::Schedule { cheap_only: rules.cheap_only };
            add(cause, Action::FinishThenStop, until_ms);
        }
        if rules.pause_on_metered && facts.metered == Some(true) {
            add(Cause::Metered, Action::FinishThenStop, None);
        }
        if facts.updating {
            add(Cause::Update, Action::FinishThenStop, None);
        }
        if facts.moving {
            add(Cause::Moving, Action::FinishThenStop, None);
        }
        holds
    }
}

/// A game that was set aside may leave the screen for so long without being a new one.
const LIFT_LEAST_MS: i64 = 60_000;

/// The holds that the person has not set aside.
pub(crate) fn counting(mut holds: Vec<Hold>, lifts: &[Lift]) -> Vec<Hold> {
    holds.retain(|hold| !lifts.iter().any(|lift| lift.lifts(&hold.cause)));
    holds
}

fn runs(facts: &Facts<'_>, program: &str) -> bool {
    facts.programs.unwrap_or_default().iter().any(|p| p.name == program)
}

/// Whether another person at this machine counts: they may play, or simply be there.
fn steps_aside_for_others(rules: &Rules) -> bool {
    rules.game_guard || rules.when.wants_away()
}

fn cool_down_ms(rules: &Rules) -> i64 {
    i64::from(rules.cool_down_secs) * 1000
}
