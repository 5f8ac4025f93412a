//! The sentence: what holds, why, and how it ends.

use crate::decision::{Action, Cause};
use crate::facts::{Facts, JobDevice};
use crate::games::Sign;
use crate::holds::{Hold, Lift};
use crate::rules::Rules;
use crate::week::{WEEK_MINUTES, clock};

/// A time as this week's clock shows it.
pub(crate) fn at(facts: &Facts<'_>, time_ms: i64) -> String {
    // From the beginning of this minute, so that it does not change within one.
    let minute_ms = facts.now_ms - facts.now_ms.rem_euclid(60_000);
    let ahead = (time_ms - minute_ms).max(0).div_euclid(60_000) % i64::from(WEEK_MINUTES);
    clock((facts.week_minute + ahead as u16) % WEEK_MINUTES, facts.week_minute)
}

/// What a rule saw, as the beginning of a sentence after "Paused: ".
fn seen(cause: &Cause) -> String {
    match cause {
        Cause::Crash => "Neurino ended without a word while it was mining".into(),
        Cause::Game { program, sign: Sign::FullScreen } => format!("{program} fills the screen"),
        Cause::Game { program, sign: Sign::CardLoad } => {
            format!("{program} is using the graphics card")
        }
        Cause::Game { program, .. } => format!("{program} is running"),
        Cause::CoolDown { program } => format!("{program} was running a moment ago"),
        Cause::Exclusive { program, device } => {
            let device = match device {
                JobDevice::Cpu => "processor",
                JobDevice::Gpu => "graphics card",
            };
            format!("{program} is running and has the {device} for itself")
        }
        Cause::Battery => "this machine runs on its battery".into(),
        Cause::Hot { reached_c, .. } => format!("the graphics card reached {reached_c} °C"),
        Cause::InUse { .. } => "you are using this machine".into(),
        Cause::AwayUnknown => "this system does not tell whether you are away".into(),
        Cause::Schedule { cheap_only: false } => "this hour is not in your schedule".into(),
        Cause::Schedule { cheap_only: true } => "electricity is not cheap at this hour".into(),
        Cause::Metered => "the network is metered".into(),
    }
}

/// How it ends, as a sentence of its own.
fn ending(hold: &Hold, rules: &Rules, facts: &Facts<'_>) -> String {
    match (&hold.cause, hold.until_ms) {
        (Cause::Crash, _) => "Check that the machine is well, then resume.".into(),
        (Cause::Game { .. }, _) => match rules.cool_down_secs {
            0 => "Resumes when it is gone.".into(),
            seconds => format!("Resumes {} after it is gone.", spell(seconds)),
        },
        (Cause::Exclusive { .. }, _) => "Resumes when it ends.".into(),
        (Cause::Battery, _) => "Resumes on mains power.".into(),
        (Cause::Hot { resume_c, .. }, _) => format!("Resumes at {resume_c} °C."),
        (Cause::InUse { minutes, .. }, _) => {
            format!("Resumes after {} without mouse and keyboard.", spell(minutes * 60))
        }
        (Cause::AwayUnknown, _) => "Choose another rule in the settings.".into(),
        (Cause::Schedule { .. }, None) => "No hour of the week is allowed.".into(),
        (Cause::Metered, _) => "Resumes on another network.".into(),
        (Cause::CoolDown { .. } | Cause::Schedule { .. }, Some(until_ms)) => {
            format!("Resumes at {}.", at(facts, until_ms))
        }
        (Cause::CoolDown { .. }, None) => String::new(),
    }
}

/// `3 min`, `90 s`, `1 h`.
fn spell(seconds: u32) -> String {
    match seconds {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// The sentence of holds, of which `first` decides and is named first.
pub(crate) fn held(
    first: &Hold,
    all: &[Hold],
    finishing: bool,
    rules: &Rules,
    facts: &Facts<'_>,
) -> String {
    let what = seen(&first.cause);
    let begin = match first.action {
        Action::TakeNoJobs => format!("Cooling down, no new jobs: {what}."),
        Action::FinishThenStop if finishing => {
            format!("Finishing the running job, then pausing: {what}.")
        }
        _ => format!("Paused: {what}."),
    };
    match all.iter().find(|hold| *hold != first) {
        // Two causes end at two times: neither of them is when it goes on.
        Some(other) => format!("{begin} Also, {}.", seen(&other.cause)),
        None => format!("{begin} {}", ending(first, rules, facts)),
    }
}

/// The sentence of a snooze.
pub(crate) fn snoozed(until_ms: Option<i64>, facts: &Facts<'_>) -> String {
    match until_ms {
        Some(until_ms) => format!("Paused by you until {}.", at(facts, until_ms)),
        None => "Paused by you until you resume.".into(),
    }
}

/// The sentence of a control that the person has switched off.
pub(crate) fn stopped(rules: &Rules) -> String {
    if rules.when.wants_away() || rules.when.wants_schedule() {
        "Not mining. Your rules start nothing until you press Start.".into()
    } else {
        "Not mining. Press Start to earn points.".into()
    }
}

/// What starting now would do, `aside` being what it sets aside.
pub(crate) fn resume(aside: &[Lift]) -> String {
    if aside.is_empty() {
        return "Starts again at once.".into();
    }
    format!("Starts again at once and sets aside {}.", named(aside))
}

/// What the person's choice sets aside.
pub(crate) fn set_aside(lifts: &[Lift]) -> Option<String> {
    (!lifts.is_empty()).then(|| format!("Your choice sets aside {}.", named(lifts)))
}

fn named(lifts: &[Lift]) -> String {
    let names: Vec<String> = lifts.iter().map(name).collect();
    names.join("; and ")
}

fn name(lift: &Lift) -> String {
    match lift {
        Lift::Away => "the rule about being away, until you follow your rules again".into(),
        Lift::Schedule => "your schedule, until you follow your rules again".into(),
        Lift::Battery => "the rule about the battery, until mains power is back".into(),
        Lift::Metered => "the rule about metered networks, until this one is left".into(),
        Lift::Hot => "the rule about temperature, until the card has cooled".into(),
        Lift::Game { program, .. } => format!("the game guard for {program}, until it is gone"),
        Lift::Exclusive { program } => format!("the rule about {program}, until it ends"),
    }
}
