//! The coordinator: its parts, and their life from `open` to `shutdown`.

use std::sync::Arc;

use neurino_core::{IdempotencyKey, JobId, JobSpec, NodeId, Receipt};
use neurino_ledger::PayerId;
use neurino_protocol::ErrorBody;
use neurino_protocol::app::PointsSummary;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::books::{JobsOverview, LedgerCheck};
use crate::config::CoordinatorConfig;
use crate::error::CoordinatorError;
use crate::keys::{ApiKey, ApiKeyInfo};
use crate::local::LocalCoordinator;
use crate::watch::JobWatch;

/// A network's server. Cheap to share; `shutdown` ends it.
pub struct Coordinator {
    config: CoordinatorConfig,
}

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Coordinator {
    /// Opens the books, brings open jobs back and starts the timers.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn open(config: CoordinatorConfig) -> Result<Arc<Self>, CoordinatorError> {
        let _ = config;
        unimplemented!("arrives with the store")
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.config.network
    }

    /// Address of the key that signs receipts.
    pub fn address(&self) -> String {
        self.config.key.address()
    }

    /// The HTTP edge: nodes, gateway, jobs.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        unimplemented!("arrives with the edge")
    }

    /// Serves the HTTP edge until `stop` is cancelled, then lets running requests end.
    ///
    /// # Errors
    /// [`CoordinatorError::Listener`].
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), CoordinatorError> {
        let _ = (listener, stop);
        unimplemented!("arrives with the edge")
    }

    /// A node's way to this coordinator without a socket.
    pub fn local(self: &Arc<Self>) -> LocalCoordinator {
        LocalCoordinator { coordinator: Arc::clone(self) }
    }

    /// Accepts a job; it is durable when this returns. The same payer and idempotency key with the
    /// same job return the first job's id.
    ///
    /// # Errors
    /// `InvalidRequest`, `UnknownModel`, `Overloaded`, `Unreachable` (shutting down), `Internal`.
    pub async fn submit_job(
        self: &Arc<Self>,
        payer: PayerId,
        key: Option<IdempotencyKey>,
        spec: JobSpec,
    ) -> Result<JobId, ErrorBody> {
        let _ = (payer, key, spec);
        unimplemented!("arrives with the store")
    }

    /// Follows a job from its present state on.
    ///
    /// # Errors
    /// `NotFound`, `Internal`.
    pub async fn watch_job(&self, job: JobId) -> Result<JobWatch, ErrorBody> {
        let _ = job;
        unimplemented!("arrives with the store")
    }

    /// Withdraws a job. Returns whether it was still open; a result already paid stays paid.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn cancel_job(self: &Arc<Self>, job: JobId) -> Result<bool, ErrorBody> {
        let _ = job;
        unimplemented!("arrives with the store")
    }

    /// Receipts, newest first: of one node or of all, settled before a time in milliseconds since
    /// the Unix epoch, at most `limit` (up to 200).
    ///
    /// # Errors
    /// `Internal`.
    pub async fn receipts(
        &self,
        node: Option<&NodeId>,
        before_ms: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Receipt>, ErrorBody> {
        let _ = (node, before_ms, limit);
        unimplemented!("arrives with the store")
    }

    /// Points of a node: in all, and as "today" since `since_ms` (milliseconds since the Unix
    /// epoch; the caller knows the local midnight).
    ///
    /// # Errors
    /// `Internal`.
    pub async fn points(&self, node: &NodeId, since_ms: i64) -> Result<PointsSummary, ErrorBody> {
        let _ = (node, since_ms);
        unimplemented!("arrives with the store")
    }

    /// Adds the books up.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn ledger_check(&self) -> Result<LedgerCheck, ErrorBody> {
        unimplemented!("arrives with the store")
    }

    /// Jobs and nodes at this moment, from memory.
    pub fn jobs_overview(&self) -> JobsOverview {
        unimplemented!("arrives with the router")
    }

    /// Receipts as they are settled. A reader that falls 256 behind misses some; the books do not.
    pub fn events(&self) -> broadcast::Receiver<Receipt> {
        unimplemented!("arrives with settlement")
    }

    /// Makes a gateway key. Its secret is shown once.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty or overlong name, `Internal`.
    pub async fn create_api_key(&self, name: &str) -> Result<ApiKey, ErrorBody> {
        let _ = name;
        unimplemented!("arrives with the store")
    }

    /// The gateway keys, without their secrets.
    pub fn api_keys(&self) -> Vec<ApiKeyInfo> {
        unimplemented!("arrives with the store")
    }

    /// Ends sessions, timers and the writer; everything acknowledged is on disk. Open jobs go on
    /// after the next `open`.
    pub async fn shutdown(&self) {}
}
