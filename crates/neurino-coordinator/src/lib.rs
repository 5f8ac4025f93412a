//! The network's server: router, leases, ledger, gateway.
//!
//! [`Coordinator`] is the whole of it: `open` it on a database, hand `router()` or `serve()` a
//! listener for the HTTP edge, and `local()` to a node in the same process. Reading order:
//! [`config`], `coordinator` (the parts and their life), `jobs` (admission to terminal state),
//! `timers` (what time does), `reserve` (nodes held free for large jobs), `hedge` (a second node for a late job), `stall` (streams that do not begin), `router` (which node gets which job), `session` (what nodes say),
//! `settle`, `checks`, `decoder` and `picture` (payment), `audits` and `compare` (results computed again), `honeypots` (jobs whose answer is known), `files` (whether nodes have what they offer), `epochs` (what a week comes to), `vouchers` (paying without a key), `advice` (which model nodes should load), `terms` (what a job is accepted on), `store` (the books), `payload` (keys of what people wrote), `blobs` (files of pictures), `deliver` (pictures that nodes put into a bucket), `admin` (changes beside), `link` and `local` (a node's messages, in process), `fabric` (gateways on other machines),
//! `edge` (HTTP, WebSocket).

pub mod admin;
mod admin_log;
mod advice;
pub mod audits;
mod blobs;
pub mod books;
mod challenge;
mod checks;
mod clock;
pub mod compare;
pub mod config;
mod coordinator;
mod database;
pub mod decoder;
mod deliver;
mod demand;
mod depth;
mod edge;
pub mod epochs;
pub mod error;
mod fabric;
mod files;
mod hedge;
mod honeypots;
mod introduction;
mod jobs;
pub mod keys;
mod link;
mod local;
mod metrics;
mod original;
mod payload;
mod picture;
mod reconcile;
mod reserve;
mod router;
#[cfg(test)]
mod schedules;
mod seal;
mod session;
mod settle;
mod stall;
mod standing;
mod state;
mod store;
mod talk;
mod terms;
mod timers;
mod uploads;
pub mod vouchers;
mod watch;

pub use admin_log::{LogCheck, in_the_name_of};
pub use blobs::{BlobError, Bucket, BucketKeys, BucketTrouble};
pub use books::{AccountBalance, JobsOverview, LedgerCheck, UnitsOverview};
pub use config::{CoordinatorConfig, IDEMPOTENCY_MS, Limits, check_listen_address};
pub use coordinator::Coordinator;
pub use database::{Database, PostgresBooks};
pub use decoder::DecoderProcess;
pub use edge::{Tls, TlsError, TlsFiles};
pub use error::{CoordinatorError, StoreError};
pub use fabric::{FabricAddress, FabricConfig, FabricError, FabricKey, Gateway, GatewayConfig};
pub use files::{FileRoot, FilesReport};
pub use introduction::check_known_as;
pub use keys::{ApiKey, ApiKeyInfo, KeyTerms, Scope};
pub use local::LocalCoordinator;
pub use neurino_ledger::{Account, PayerId, Unit};
pub use payload::PayloadKeyError;
pub use router::{JobClass, Sample};
pub use store::{AuditState, Conviction, Evidence, EvidenceRun, StoredAudit};
pub use terms::{JobTerms, Prepaid};
pub use watch::{JobUpdate, JobWatch};
