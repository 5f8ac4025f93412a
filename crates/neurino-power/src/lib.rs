//! Power limits of cards: set while the machine mines, restored after whatever happens.
//!
//! A limit outlives the program that set it, and a person whose games run at half speed a week later
//! does not know why. So the limit that was found is written to the disk before it is changed, and
//! [`Keeper`] restores it at the next opportunity: when mining pauses, when the program ends, or at
//! its next start. A limit that somebody else set meanwhile is theirs. Reading order: [`Keeper`],
//! [`Journal`] (what is written down), [`Sweep`] (which limit does most work with a kilowatt hour),
//! [`ScriptedCards`] (cards that a file plays, for tests).

mod journal;
mod keeper;
mod script;
mod sweep;

pub use neurino_hardware::CardPower;

pub use journal::{Entry, FileJournal, Journal, JournalError};
pub use keeper::{Held, Keeper, PowerError, Released, same_limit};
pub use script::ScriptedCards;
pub use sweep::{Advice, Measure, Reading, Row, Stage, Sweep, SweepEnd, measure_of, steps_mw};
