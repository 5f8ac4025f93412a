//! The network's server: router, leases, ledger, gateway.
//!
//! [`Coordinator`] is the whole of it: `open` it on a database, hand `router()` or `serve()` a
//! listener for the HTTP edge, and `local()` to a node in the same process. Reading order:
//! [`config`], `coordinator` (the parts and their life), `jobs` (admission to terminal state),
//! `router` (which node gets which job), `session` (what nodes say), `settle` (payment), `store`
//! (the books), `edge` (HTTP, WebSocket, in process).

pub mod books;
pub mod config;
mod coordinator;
pub mod error;
mod keys;
mod local;
mod watch;

pub use books::{AccountBalance, JobsOverview, LedgerCheck};
pub use config::{CoordinatorConfig, Limits, check_listen_address};
pub use coordinator::Coordinator;
pub use error::{CoordinatorError, StoreError};
pub use keys::{ApiKey, ApiKeyInfo};
pub use local::LocalCoordinator;
pub use neurino_ledger::PayerId;
pub use watch::{JobUpdate, JobWatch};
