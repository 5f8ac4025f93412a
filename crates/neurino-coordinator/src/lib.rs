//! The network's server: router, leases, ledger, gateway.
//!
//! [`Coordinator`] is the whole of it: `open` it on a database, hand `router()` or `serve()` a
//! listener for the HTTP edge, and `local()` to a node in the same process. Reading order:
//! [`config`], `coordinator` (the parts and their life), `jobs` (admission to terminal state),
//! `timers` (what time does), `router` (which node gets which job), `session` (what nodes say),
//! `settle`, `checks` and `picture` (payment), `audits` and `compare` (results computed again), `epochs` (what a week comes to), `vouchers` (paying without a key), `terms` (what a job is accepted on), `store` (the books), `admin` (changes beside), `link` and `local` (a node's messages, in process),
//! `edge` (HTTP, WebSocket).

pub mod admin;
pub mod audits;
pub mod books;
mod challenge;
mod checks;
pub mod compare;
pub mod config;
mod coordinator;
mod database;
mod demand;
mod edge;
pub mod epochs;
pub mod error;
mod jobs;
pub mod keys;
mod link;
mod local;
mod metrics;
mod original;
mod picture;
mod reconcile;
mod router;
#[cfg(test)]
mod schedules;
mod session;
mod settle;
mod standing;
mod state;
mod store;
mod terms;
mod timers;
mod uploads;
pub mod vouchers;
mod watch;

pub use books::{AccountBalance, JobsOverview, LedgerCheck};
pub use config::{CoordinatorConfig, Limits, check_listen_address};
pub use coordinator::Coordinator;
pub use database::{Database, PostgresBooks};
pub use error::{CoordinatorError, StoreError};
pub use keys::{ApiKey, ApiKeyInfo, KeyTerms, Scope};
pub use local::LocalCoordinator;
pub use neurino_ledger::{Account, PayerId, Unit};
pub use router::{JobClass, Sample};
pub use store::{AuditState, Conviction, StoredAudit};
pub use terms::{JobTerms, Prepaid};
pub use watch::{JobUpdate, JobWatch};
