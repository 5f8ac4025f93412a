//! Double-entry postings in integer micro-points.
//!
//! Pure: no io, no clock. The ledger only grows, and balances are derived from it. An [`Event`] can
//! only be built balanced: the amounts of its postings sum to zero for each kind of points.
//! Reading order: [`account`], [`event`], [`ledger`], then
//! [`epoch`], what a week of the ledger comes to.

pub mod account;
pub mod epoch;
pub mod event;
pub mod ledger;

pub use account::{Account, InvalidAccount, PayerId};
pub use event::{
    EntryKind, Event, LedgerError, Posting, Unit, event_of, event_of_clawback, event_of_deposit,
    event_of_hold, event_of_pay_out, event_of_release, event_of_restoring,
};
pub use ledger::{Appended, Balances, Ledger};
