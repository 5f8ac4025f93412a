//! The state machine: orders and facts in, one decision out.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::decision::{Action, Cause, Decision, State, Why};
use crate::facts::Facts;
use crate::games::sightings;
use crate::holds::{Hold, Lift, Memory, counting};
use crate::rules::Rules;
use crate::saying::{Lifted, Saying};
use crate::sentence;

/// Most decisions that are remembered.
pub const HISTORY_MAX: usize = 200;
/// The longest timed pause; a clock that is set back makes none longer.
const SNOOZE_MINUTES_MAX: u32 = 24 * 60;

/// What the person orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Mine now, whatever the rules that hold now say: "Start", "Resume" and "Resume anyway".
    Start,
    /// Hand running jobs back and stay stopped.
    Stop,
    /// Finish the running jobs, then stay stopped.
    Finish,
    /// Pause: hand running jobs back, and go on by itself.
    Snooze {
        /// After so many minutes, at most a day; never, if absent.
        minutes: Option<u32>,
    },
    /// Let the rules decide; ends what "Resume anyway" set aside.
    FollowRules,
}

/// What the person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// No mining.
    #[default]
    Off,
    /// Mining, as the rules allow.
    On,
    /// Off, once the running jobs are finished.
    Finish,
    /// On, after a pause.
    Snoozed {
        /// Its end, in milliseconds since the Unix epoch; none until the person resumes.
        until_ms: Option<i64>,
    },
}

/// What outlives the program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// What the person wants.
    pub wish: Wish,
    /// Whether mining was to run when this was written; still set at the next start, the program
    /// ended without a word.
    pub running: bool,
    /// What the person set aside for longer than a run of the program.
    pub aside: Vec<Lifted>,
    /// The last decisions, oldest first.
    pub history: VecDeque<Entry>,
}

/// A decision of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Entry {
    /// When it was made, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub at_ms: i64,
    /// The state it meant.
    pub state: State,
    /// Its sentence.
    pub sentence: String,
    /// The same as data; none of a decision that an older version wrote down.
    #[serde(default)]
    pub said: Option<Saying>,
}

/// The machine. One lives as long as the program.
#[derive(Debug, Clone)]
pub struct Control {
    rules: Rules,
    wish: Wish,
    /// The last run ended without a word, and the person has not said anything since.
    crashed: bool,
    memory: Memory,
    lifts: Vec<Lift>,
    decision: Decision,
    in_the_way: Option<Cause>,
    history: VecDeque<Entry>,
}

impl Control {
    /// The machine as `saved` left it. Finishing ended with the program; a run that ended without
    /// a word is not repeated before the person says so.
    pub fn new(rules: Rules, saved: Saved, facts: &Facts<'_>) -> Self {
        let wish = if saved.wish == Wish::Finish { Wish::Off } else { saved.wish };
        let said = sentence::stopped(&rules);
        let decision = plain(State::Stopped, Action::HandBack, Why::Person, said);
        let lifts = if wish == Wish::Off { Vec::new() } else { saved.aside };
        let mut control = Self {
            rules,
            wish,
            crashed: saved.running && wish == Wish::On,
            memory: Memory::default(),
            lifts: lifts.iter().filter_map(Lift::kept).collect(),
            decision,
            in_the_way: None,
            history: saved.history,
        };
        control.observe(facts);
        control
    }

    /// Takes in what is the case now.
    pub fn observe(&mut self, facts: &Facts<'_>) -> &Decision {
        if let Wish::Snoozed { until_ms: Some(until_ms) } = &mut self.wish {
            let latest_ms = facts.now_ms + i64::from(SNOOZE_MINUTES_MAX) * 60_000;
            *until_ms = (*until_ms).min(latest_ms);
            if *until_ms <= facts.now_ms {
                self.wish = Wish::On;
            }
        }
        if self.wish == Wish::Finish && !facts.mining {
            self.switch_off();
        }
        self.memory.observe(&self.rules, facts, &mut self.lifts);
        if self.wish == Wish::Finish && self.must_hand_back(facts) {
            // The person wanted an end, and this is one: nothing resumes afterwards.
            self.switch_off();
        }
        self.decide(facts);
        &self.decision
    }

    /// Takes in what the person orders.
    pub fn order(&mut self, order: Order, facts: &Facts<'_>) -> &Decision {
        match order {
            Order::Start => {
                self.memory.observe(&self.rules, facts, &mut self.lifts);
                self.set_aside(facts);
                self.wish = Wish::On;
            }
            Order::FollowRules => {
                self.lifts.clear();
                self.crashed = false;
                self.wish = Wish::On;
            }
            Order::Finish if self.wish != Wish::Off => self.wish = Wish::Finish,
            Order::Snooze { minutes } if self.wish != Wish::Off => {
                // The rules that the person set aside stay aside: the pause is theirs as well.
                self.crashed = false;
                self.memory.stopped();
                let minutes = minutes.map(|m| m.clamp(1, SNOOZE_MINUTES_MAX));
                let until_ms = minutes.map(|m| facts.now_ms + i64::from(m) * 60_000);
                self.wish = Wish::Snoozed { until_ms };
            }
            // There is nothing to finish or to pause.
            Order::Finish | Order::Snooze { .. } => {}
            Order::Stop => self.switch_off(),
        }
        self.observe(facts)
    }

    /// Takes in other rules. What the person set aside stays so where its rule is the same.
    pub fn set_rules(&mut self, rules: Rules, facts: &Facts<'_>) -> &Decision {
        let (old, new) = (&self.rules, &rules);
        let when = |r: &Rules| (r.when, r.idle_minutes, r.stop_on_return);
        let hours = |r: &Rules| (r.when, r.week.clone(), r.cheap_only);
        self.lifts.retain(|lift| match lift {
            Lift::Away => when(old) == when(new),
            Lift::Schedule => hours(old) == hours(new),
            _ => true,
        });
        self.rules = rules;
        self.observe(facts)
    }

    /// The decision in force.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The last decisions, oldest first.
    pub fn history(&self) -> &VecDeque<Entry> {
        &self.history
    }

    /// What is to outlive the program.
    pub fn saved(&self) -> Saved {
        let running =
            matches!(self.decision.state, State::Running | State::Cooling | State::Finishing);
        let mut aside = sentence::lifted(&self.lifts);
        aside.retain(|lifted| Lift::kept(lifted).is_some());
        Saved { wish: self.wish, running, aside, history: self.history.clone() }
    }

    /// What else than mining has to leave the machine alone for, whether or not mining is wanted: a game,
    /// a program that has the device for itself, another person, a metered network. What the person set
    /// aside does not count.
    pub fn in_the_way(&self) -> Option<&Cause> {
        self.in_the_way.as_ref()
    }

    fn look_what_is_in_the_way(&self, facts: &Facts<'_>) -> Option<Cause> {
        let holds = counting(self.memory.holds(&self.rules, facts), &self.lifts);
        let in_the_way = |cause: &Cause| match cause {
            Cause::Game { .. }
            | Cause::CoolDown { .. }
            | Cause::Exclusive { .. }
            | Cause::OtherUser
            | Cause::Metered => true,
            Cause::Crash
            | Cause::Battery
            | Cause::Hot { .. }
            | Cause::InUse { .. }
            | Cause::AwayUnknown
            | Cause::Schedule { .. }
            | Cause::Update
            | Cause::Moving => false,
        };
        holds.into_iter().map(|hold| hold.cause).find(in_the_way)
    }

    /// What the person wants.
    pub fn wish(&self) -> Wish {
        self.wish
    }

    fn must_hand_back(&self, facts: &Facts<'_>) -> bool {
        let counting = counting(self.memory.holds(&self.rules, facts), &self.lifts);
        counting.iter().any(|hold| hold.action == Action::HandBack)
    }

    fn switch_off(&mut self) {
        self.wish = Wish::Off;
        self.crashed = false;
        self.lifts.clear();
        self.memory.stopped();
    }

    /// Sets aside every rule that holds now.
    fn set_aside(&mut self, facts: &Facts<'_>) {
        let new = self.would_set_aside(facts);
        self.lifts.extend(new);
        self.memory.game = None;
        self.crashed = false;
    }

    /// What "Resume anyway" adds to what is set aside: the rules that hold, and every game that
    /// runs beside the one that is named.
    fn would_set_aside(&self, facts: &Facts<'_>) -> Vec<Lift> {
        let mut new: Vec<Lift> = Vec::new();
        let holds = self.memory.holds(&self.rules, facts);
        let held = holds.iter().filter_map(|hold| Lift::of(&hold.cause, facts.now_ms));
        let games = sightings(&self.rules, facts)
            .into_iter()
            .map(|seen| Lift::Game { program: seen.program.to_owned(), last_ms: facts.now_ms });
        for lift in held.chain(games) {
            if !self.lifts.iter().chain(&new).any(|l| l.same_as(&lift)) {
                new.push(lift);
            }
        }
        new
    }

    fn decide(&mut self, facts: &Facts<'_>) {
        self.in_the_way = self.look_what_is_in_the_way(facts);
        let decision = self.decision_for(facts);
        let news = decision.state != self.decision.state || decision.why != self.decision.why;
        // The last entry may be of a run before this one.
        if news || self.history.back().is_none_or(|last| last.state != decision.state) {
            self.history.push_back(Entry {
                at_ms: facts.now_ms,
                state: decision.state,
                sentence: decision.sentence.clone(),
                said: Some(decision.said.clone()),
            });
            let surplus = self.history.len().saturating_sub(HISTORY_MAX);
            self.history.drain(..surplus);
        }
        self.decision = decision;
    }

    fn decision_for(&self, facts: &Facts<'_>) -> Decision {
        if self.wish == Wish::Off {
            let said = sentence::stopped(&self.rules);
            return plain(State::Stopped, Action::HandBack, Why::Person, said);
        }
        let mut holds = self.memory.holds(&self.rules, facts);
        if self.crashed {
            let cause = Cause::Crash;
            holds.insert(0, Hold { cause, action: Action::HandBack, until_ms: None });
        }
        if let Wish::Snoozed { until_ms } = self.wish {
            let said = sentence::snoozed(until_ms, facts);
            let snooze = plain(State::Snoozed, Action::HandBack, Why::Snooze, said);
            let resume_lifts = sentence::lifted(&self.would_set_aside(facts));
            let resume = (!facts.moving).then(|| sentence::resume(&resume_lifts));
            return Decision { until_ms, resume, resume_lifts, ..snooze };
        }
        let counting = counting(holds, &self.lifts);
        let strictest = counting.iter().map(|hold| hold.action).max();
        let finishes = self.wish == Wish::Finish;
        match strictest {
            // As strict as what the rules ask for at most: else the wish has ended already.
            _ if finishes => {
                let (action, why) = (Action::FinishThenStop, Why::PersonFinishes);
                let finish = plain(State::Finishing, action, why, Saying::Finishing);
                Decision { gentle: self.rules.gently(facts), ..finish }
            }
            None => {
                let run = plain(State::Running, Action::Run, Why::Free, Saying::Mining);
                let aside_lifts = sentence::lifted(&self.lifts);
                Decision {
                    aside: sentence::set_aside(&aside_lifts),
                    aside_lifts,
                    gentle: self.rules.gently(facts),
                    ..run
                }
            }
            Some(action) => self.held(&counting, action, facts),
        }
    }

    fn held(&self, holds: &[Hold], action: Action, facts: &Facts<'_>) -> Decision {
        let first = holds.iter().find(|hold| hold.action == action).expect("one is the strictest");
        let finishing = action == Action::FinishThenStop && facts.mining;
        let state = match action {
            Action::TakeNoJobs => State::Cooling,
            _ if finishing => State::Finishing,
            _ => State::Paused,
        };
        // With several causes it goes on when the last has ended, if all ends are known.
        let ends: Option<Vec<i64>> = holds.iter().map(|hold| hold.until_ms).collect();
        let resume_lifts = sentence::lifted(&self.would_set_aside(facts));
        let said = sentence::held(first, holds, finishing, &self.rules, facts);
        let why = Why::Rule { cause: first.cause.clone() };
        Decision {
            until_ms: ends.and_then(|ends| ends.into_iter().max()),
            // A library that moves cannot be set aside.
            resume: (!facts.moving).then(|| sentence::resume(&resume_lifts)),
            resume_lifts,
            change: first.cause.section(),
            gentle: action != Action::HandBack && self.rules.gently(facts),
            ..plain(state, action, why, said)
        }
    }
}

/// A decision without an end, a way out or anything set aside.
fn plain(state: State, action: Action, why: Why, said: Saying) -> Decision {
    Decision {
        state,
        action,
        why,
        sentence: said.to_string(),
        said,
        until_ms: None,
        resume: None,
        resume_lifts: Vec::new(),
        change: None,
        aside: None,
        aside_lifts: Vec::new(),
        gentle: false,
    }
}
