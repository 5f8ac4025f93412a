//! What is said of a decision: what holds, why, and how it ends.

use crate::decision::{Action, Cause};
use crate::facts::Facts;
use crate::holds::{Hold, Lift};
use crate::rules::Rules;
use crate::saying::{Clock, Ending, Lifted, Saying, Strictness};
use crate::week::{WEEK_MINUTES, later, time_of};

/// A time as this week's clock shows it.
fn at(facts: &Facts<'_>, time_ms: i64) -> Clock {
    let passed = (time_ms - facts.this_minute_ms()).max(0).div_euclid(60_000);
    let changed = facts.clock_change.filter(|change| time_ms >= change.at_ms);
    let shift = changed.map_or(0, |change| change.by_minutes);
    let passed = (passed % i64::from(WEEK_MINUTES)) as u16;
    time_of(later(facts.week_minute, passed, shift), facts.week_minute)
}

/// How a hold ends.
fn ending(hold: &Hold, rules: &Rules, facts: &Facts<'_>) -> Ending {
    match (&hold.cause, hold.until_ms) {
        (Cause::Crash, _) => Ending::Checked,
        (Cause::Game { .. }, _) => Ending::GameGone { after_secs: rules.cool_down_secs },
        (Cause::Exclusive { .. }, _) => Ending::ProgramEnds,
        (Cause::OtherUser, _) => Ending::OwnSession,
        (Cause::Battery, _) => Ending::Mains,
        (Cause::Hot { resume_c, .. }, _) => Ending::Cooled { resume_c: *resume_c },
        (Cause::InUse { minutes }, _) => Ending::Idle { minutes: *minutes },
        (Cause::AwayUnknown, _) => Ending::OtherRule,
        (Cause::Schedule { .. }, None) => Ending::NoHour,
        (Cause::Metered, _) => Ending::OtherNetwork,
        (Cause::Update, _) => Ending::Updated,
        (Cause::Moving, _) => Ending::Moved,
        (Cause::CoolDown { .. } | Cause::Schedule { .. }, Some(until_ms)) => {
            Ending::At { time: at(facts, until_ms) }
        }
        (Cause::CoolDown { .. }, None) => Ending::Unknown,
    }
}

/// What is said of holds, of which `first` decides and is named first.
pub(crate) fn held(
    first: &Hold,
    all: &[Hold],
    finishing: bool,
    rules: &Rules,
    facts: &Facts<'_>,
) -> Saying {
    let how = match first.action {
        Action::TakeNoJobs => Strictness::Cooling,
        Action::FinishThenStop if finishing => Strictness::Finishing,
        _ => Strictness::Paused,
    };
    let end = match all.iter().find(|hold| *hold != first) {
        Some(other) => Ending::Also { cause: other.cause.clone() },
        None => ending(first, rules, facts),
    };
    Saying::Held { how, cause: first.cause.clone(), end }
}

/// What is said of a snooze.
pub(crate) fn snoozed(until_ms: Option<i64>, facts: &Facts<'_>) -> Saying {
    Saying::Snoozed { until: until_ms.map(|until_ms| at(facts, until_ms)) }
}

/// What is said of a control that the person has switched off.
pub(crate) fn stopped(rules: &Rules) -> Saying {
    Saying::Stopped { rules_wait: rules.when.wants_away() || rules.when.wants_schedule() }
}

/// What starting now would do, `aside` being what it sets aside.
pub(crate) fn resume(aside: &[Lifted]) -> String {
    if aside.is_empty() {
        return "Starts again at once.".into();
    }
    format!("Starts again at once and sets aside {}.", named(aside))
}

/// What the person's choice sets aside.
pub(crate) fn set_aside(lifted: &[Lifted]) -> Option<String> {
    (!lifted.is_empty()).then(|| format!("Your choice sets aside {}.", named(lifted)))
}

fn named(lifted: &[Lifted]) -> String {
    let names: Vec<String> = lifted.iter().map(ToString::to_string).collect();
    names.join("; and ")
}

/// The lifts by name.
pub(crate) fn lifted(lifts: &[Lift]) -> Vec<Lifted> {
    let name = |lift: &Lift| match lift {
        Lift::Away => Lifted::Away,
        Lift::Schedule => Lifted::Schedule,
        Lift::OtherUser => Lifted::OtherUser,
        Lift::Battery => Lifted::Battery,
        Lift::Metered => Lifted::Metered,
        Lift::Hot => Lifted::Hot,
        Lift::Update => Lifted::Update,
        Lift::Game { program, .. } => Lifted::Game { program: program.clone() },
        Lift::Exclusive { program } => Lifted::Exclusive { program: program.clone() },
    };
    lifts.iter().map(name).collect()
}
