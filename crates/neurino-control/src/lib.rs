//! When this machine may mine: one state machine, one decision, one sentence.
//!
//! Facts and the person's orders go in, a [`Decision`] comes out: what to do, why, until when, and
//! what "Resume anyway" would do. Nothing here reads a clock or a file: time is part of the
//! [`Facts`], and the same inputs give the same decisions. Reading order: [`Rules`] (what the
//! person wants), [`Facts`] (what is), `holds` (which rules speak against mining now),
//! [`Control`] (the machine), [`Decision`] and its sentence. Beside it, [`alerts`]: what the person
//! is told about without asking.

pub mod alerts;
pub mod games;
pub mod hotkey;

mod decision;
mod facts;
mod holds;
mod machine;
mod rules;
mod saying;
mod sentence;
mod week;

pub use alerts::{Alert, AlertFacts, AlertKind, AlertRules, Watch};
pub use decision::{Action, Cause, Decision, Section, State, Why};
pub use facts::{ClockChange, Facts, Foreground, JobDevice, Program};
pub use hotkey::Hotkey;
pub use machine::{Control, Entry, HISTORY_MAX, Order, Saved, Wish};
pub use rules::{PROGRAMS_MAX, Rules, RulesError, When};
pub use saying::{Clock, Ending, Lifted, Saying, Strictness};
pub use week::{Hour, WEEK_MINUTES, Week};
