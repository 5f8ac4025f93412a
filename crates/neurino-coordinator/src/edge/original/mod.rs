//! The network's original protocol, for miners that speak no other: `wire` (its bodies, and how jobs
//! and results look in them), `poll` (asking for work), `submit` (results), `stream` (answers as they
//! grow), `upload` (pictures, as S3 takes them). docs/ORIGINAL_PROTOCOL.md describes it.

mod poll;
mod stream;
mod submit;
mod upload;
mod wire;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use neurino_protocol::{ErrorBody, ErrorCode};

use super::Edge;
use super::http::ApiError;

/// The paths of the original protocol.
pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/miner_request", post(poll::request))
        .route("/miner_signal", post(poll::signal))
        .route("/miner_submit", post(submit::submit))
        .route("/miner_submit_stream", post(stream::submit_stream))
        .route("/heurist-images/{*key}", put(upload::put))
}

/// An error of these paths. A result that comes too late conflicts with what was decided.
fn refusal(body: ErrorBody) -> Response {
    if body.code == ErrorCode::DeadlinePassed {
        return (StatusCode::CONFLICT, Json(body)).into_response();
    }
    ApiError::plain(body).into_response()
}

fn invalid(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, message)
}
