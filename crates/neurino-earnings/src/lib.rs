//! What a machine earned and used, from its own records on disk.
//!
//! Reading order: [`receipts`] (the truth about payments, with an index that a million of them need),
//! [`calendar`] (days and weeks), [`report`] and [`change`] (what the cards show), [`meter`] (time and
//! energy), [`history`] (how jobs ended), [`recorder`] (what the sensors said), [`export`]. Nothing
//! here has a clock or knows a network: times arrive as parameters.

mod append;
pub mod calendar;
pub mod change;
mod error;
pub mod export;
pub mod history;
mod index;
pub mod meter;
pub mod receipts;
pub mod recorder;
pub mod report;
pub mod tariff;

pub use error::RecordError;
pub use history::JobHistory;
pub use meter::Meter;
pub use receipts::{ReceiptLog, ReceiptTotals};
pub use recorder::Recorder;
