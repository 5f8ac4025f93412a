//! The HTTP edge: `gateway` (OpenAI-compatible: `chat` reads requests, `answer` and `stream` write
//! answers; `images` does the same for pictures, `picture_link` serves them by link), `jobs`,
//! `nodes` (and `original`: nodes of the original protocol), `network` (what it is run by), `newcomers` (how many
//! an address may bring), `epochs`
//! (what was shared), `vouchers` (paying without a key), `admin`
//! (the second listener), `openapi` (the documents of both), and what they share: errors, bodies, keys (`http`), limits by key
//! (`limits`), connections (`serve`) and their encryption (`tls`), plain words
//! (`words`).

mod admin;
mod answer;
mod chat;
mod demand_page;
mod epochs;
mod gateway;
mod http;
mod images;
mod jobs;
mod limits;
mod network;
mod newcomers;
mod nodes;
mod openapi;
mod original;
mod picture_link;
mod serve;
mod stream;
mod tls;
mod vouchers;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::coordinator::Coordinator;
use crate::error::CoordinatorError;
pub(crate) use epochs::EpochReads;
pub(crate) use http::{
    ApiError, declared_bytes, for_path, no_such_method, read_growing, read_within, too_large,
    with_request_id,
};
pub(crate) use limits::RateLimits;
pub(crate) use newcomers::{Newcomers, Peer, address_of, neighbourhood_of};
pub(crate) use nodes::{Polls, SEND_WAIT, fits, malformed, prepared};
pub(crate) use picture_link::LinkKey;
pub(crate) use serve::serve;
pub use tls::{Tls, TlsError, TlsFiles};

/// What every handler gets.
type Edge = Arc<Coordinator>;

impl Coordinator {
    /// The HTTP edge: nodes (`/v1/node/…`), the OpenAI-compatible gateway (`/v1/chat/completions`,
    /// `/v1/images/generations`, `/v1/models`), durable jobs (`/v1/jobs`) and `/healthz`.
    pub fn router(self: &Arc<Self>) -> Router {
        let original = if self.config.original { original::routes() } else { Router::new() };
        Router::new()
            .merge(original)
            .route("/openapi.json", get(openapi::gateway))
            .route("/healthz", get(gateway::health))
            .route("/v1/network", get(network::show))
            .route("/demand", get(demand_page::show))
            .route("/v1/demand", get(network::demand))
            .route("/v1/nodes/{node}/trust", get(network::trust))
            .route("/v1/epochs", get(epochs::list))
            .route("/v1/epochs/{epoch}", get(epochs::show))
            .route("/v1/epochs/{epoch}/entries", get(epochs::entries))
            .route("/v1/vouchers", get(vouchers::terms))
            .route("/v1/vouchers/{payer}", get(vouchers::channel))
            .route("/v1/models", get(gateway::models))
            .route("/v1/models/{*id}", get(gateway::model))
            .route("/v1/chat/completions", post(gateway::chat_completions))
            .route("/v1/images/generations", post(images::generations))
            .route("/v1/images/{name}", get(picture_link::show))
            .route("/v1/jobs", post(jobs::submit))
            .route("/v1/jobs/{id}", get(jobs::show))
            .route("/v1/node/link", get(nodes::link))
            .route("/v1/node/challenge", post(nodes::challenge))
            .route("/v1/node/session", post(nodes::session))
            .route("/v1/node/exchange", post(nodes::exchange))
            .fallback(http::no_such_path)
            .method_not_allowed_fallback(http::no_such_method)
            .layer(axum::middleware::from_fn_with_state(Arc::clone(self), vouchers::throttle))
            .layer(axum::middleware::map_response(http::with_request_id))
            .with_state(Arc::clone(self))
    }

    /// Serves the HTTP edge until `stop` is cancelled or the coordinator shuts down, then gives
    /// running requests a few seconds to end.
    ///
    /// The listener must have passed [`crate::check_listen_address`]: nothing here encrypts.
    ///
    /// # Errors
    /// [`CoordinatorError::Listener`].
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), CoordinatorError> {
        self.serve_on(listener, None, stop).await
    }

    /// As [`Self::serve`], encrypted if there is a certificate.
    ///
    /// # Errors
    /// [`CoordinatorError::Listener`].
    pub async fn serve_on(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) -> Result<(), CoordinatorError> {
        let limits = &self.config.limits;
        let served = serve(limits, &self.stop, self.router(), (listener, tls), stop).await;
        served.map_err(CoordinatorError::Listener)
    }
}
