//! The second listener, for whoever runs the network: metrics, keys, credits. On this machine only,
//! and with a token of its own, because other programs of this machine can reach it too.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use neurino_core::{MicroCredits, ModelId, NodeId};
use neurino_ledger::{Account, PayerId};
use neurino_protocol::{ErrorBody, ErrorCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::{ApiError, bearer, read_json};
use super::openapi;
use crate::admin;
use crate::admin_log::in_the_name_of;
use crate::coordinator::Coordinator;
use crate::error::CoordinatorError;
use crate::keys::KeyTerms;

/// Whose acts these are in the log: whoever has the token.
const WHO: &str = "the admin listener";
/// How many lines of the log are told at once.
const LOG_LINES: u32 = 1000;

/// What the handlers get.
#[derive(Clone)]
struct Admin {
    coordinator: Arc<Coordinator>,
    token: Arc<SecretString>,
}

impl Coordinator {
    /// The routes of the admin listener. All but `/metrics` want the token.
    pub fn admin_router(self: &Arc<Self>, token: SecretString) -> Router {
        let admin = Admin { coordinator: Arc::clone(self), token: Arc::new(token) };
        let guarded = Router::new()
            .route("/admin/overview", get(overview))
            .route("/admin/ledger", get(ledger))
            .route("/admin/keys", get(keys).post(add_key))
            .route("/admin/keys/{id}", delete(revoke_key))
            .route("/admin/keys/{id}/rotate", post(rotate_key))
            .route("/admin/credits", get(credits).post(add_credits))
            .route("/admin/pay-outs", post(pay_out))
            .route("/admin/pods", put(set_pod))
            .route("/admin/votes", put(set_votes))
            .route("/admin/bindings/{reward}", delete(unbind))
            .route("/admin/log", get(log))
            .route("/admin/log/check", get(log_check))
            .route("/admin/audits", get(audits))
            .route("/admin/audits/validators", put(set_validator))
            .route("/admin/audits/appeals", post(appeal))
            .route("/admin/audits/decisions", post(decide_appeal))
            .route_layer(axum::middleware::from_fn_with_state(admin.clone(), with_token));
        Router::new()
            .route("/metrics", get(metrics))
            .route("/openapi.json", get(openapi::admin))
            .merge(guarded)
            .fallback(nothing_here)
            .layer(axum::middleware::from_fn(from_this_machine))
            .with_state(admin)
    }

    /// Serves the admin routes until `stop` is cancelled or the coordinator shuts down.
    ///
    /// # Errors
    /// `NotLoopback` for a listener that other machines can reach, `Listener`.
    pub async fn serve_admin(
        self: &Arc<Self>,
        listener: TcpListener,
        token: SecretString,
        stop: CancellationToken,
    ) -> Result<(), CoordinatorError> {
        let address = listener.local_addr().map_err(CoordinatorError::Listener)?;
        if !address.ip().is_loopback() {
            return Err(CoordinatorError::NotLoopback(address));
        }
        let router = self.admin_router(token);
        let served =
            super::serve(&self.config.limits, &self.stop, router, (listener, None), stop).await;
        served.map_err(CoordinatorError::Listener)
    }
}

/// Refuses web pages: one that names this machine as its own host, or asks from elsewhere.
async fn from_this_machine(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let own = ["127.0.0.1", "localhost", "[::1]"].contains(&name);
    if !own || headers.contains_key(ORIGIN) {
        let message = "the admin listener answers programs of this machine, not web pages";
        return ApiError::plain(ErrorBody::new(ErrorCode::Forbidden, message)).into_response();
    }
    next.run(request).await
}

async fn with_token(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let given = bearer(request.headers()).unwrap_or("");
    if !is_same(given.as_bytes(), admin.token.expose_secret().as_bytes()) {
        let error = ErrorBody::new(ErrorCode::Unauthorized, "the admin token is missing or wrong")
            .with_hint("it is in the file `admin.token` beside the books");
        return ApiError::plain(error).into_response();
    }
    in_the_name_of(WHO, next.run(request)).await
}

/// Compares every byte, so that the time it takes tells nothing.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(u8::from(a.len() != b.len()), |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differs) == 0
}

async fn nothing_here(uri: Uri) -> ApiError {
    let message = format!("there is nothing at {}", uri.path());
    ApiError::plain(ErrorBody::new(ErrorCode::NotFound, message).with_hint(
        "the admin listener has /metrics, /openapi.json and \
         /admin/{overview,ledger,keys,credits,pods,votes,audits,log}",
    ))
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], admin.coordinator.metrics_text()).into_response()
}

async fn overview(State(admin): State<Admin>) -> Json<Value> {
    let jobs = admin.coordinator.jobs_overview();
    Json(json!({ "network": admin.coordinator.network(), "jobs": jobs }))
}

async fn ledger(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let check = admin.coordinator.ledger_check().await.map_err(ApiError::plain)?;
    Ok(Json(json!({ "holds": check.holds(), "check": check })))
}

async fn keys(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let keys = admin::api_keys(&admin.coordinator.config.database).await.map_err(refused)?;
    Ok(Json(json!({ "keys": keys })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    #[serde(default)]
    terms: KeyTerms,
}

async fn add_key(State(admin): State<Admin>, request: Request) -> Result<Response, ApiError> {
    let new: NewKey = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let made = admin.coordinator.create_api_key_with(&new.name, new.terms).await;
    let key = made.map_err(ApiError::plain)?;
    let shown = json!({ "key": key.info, "api_key": key.expose_secret() });
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

async fn revoke_key(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let database = &admin.coordinator.config.database;
    admin::revoke_api_key(database, &id).await.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn rotate_key(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let database = &admin.coordinator.config.database;
    let key = admin::rotate_api_key(database, &id, admin::ROTATION_MS).await.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(Json(json!({ "key": key.info, "api_key": key.expose_secret() })))
}

async fn credits(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let all = admin::credits(&admin.coordinator.config.database).await.map_err(refused)?;
    Ok(Json(json!(all)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCredits {
    payer: PayerId,
    amount_micro: MicroCredits,
    reference: String,
}

async fn add_credits(
    State(admin): State<Admin>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let new: NewCredits = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    let booked = admin::deposit(database, &new.payer, new.amount_micro, &new.reference).await;
    let balance = booked.map_err(refused)?;
    Ok(Json(json!({ "payer": new.payer, "balance_micro": balance })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPayOut {
    account: Account,
    amount_micro: MicroCredits,
    reference: String,
}

async fn pay_out(State(admin): State<Admin>, request: Request) -> Result<Json<Value>, ApiError> {
    let new: NewPayOut = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    let paid = admin::pay_out(database, &new.account, new.amount_micro, &new.reference).await;
    let balance = paid.map_err(refused)?;
    Ok(Json(json!({ "account": new.account, "balance_micro": balance })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPod {
    model: ModelId,
    #[serde(default)]
    deployer: Option<PayerId>,
    #[serde(default)]
    votes: u32,
    #[serde(default)]
    shareable: bool,
}

async fn set_pod(State(admin): State<Admin>, request: Request) -> Result<StatusCode, ApiError> {
    let new: NewPod = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    let NewPod { model, deployer, votes, shareable } = new;
    let set = admin::set_pod(database, &model, deployer.as_ref(), votes, shareable).await;
    set.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVotes {
    node: NodeId,
    votes: u32,
}

async fn set_votes(State(admin): State<Admin>, request: Request) -> Result<StatusCode, ApiError> {
    let new: NewVotes = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    admin::set_node_votes(database, &new.node, new.votes).await.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn unbind(
    State(admin): State<Admin>,
    reward: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let reward = reward.ok().and_then(|Path(reward)| reward.to_ascii_lowercase().parse().ok());
    let reward = reward.ok_or_else(|| {
        let message = "a reward address is `0x` and 40 hex digits";
        ApiError::plain(ErrorBody::new(ErrorCode::InvalidRequest, message))
    })?;
    admin::unbind(&admin.coordinator.config.database, reward).await.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Which lines of the log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogPage {
    /// Lines behind this number.
    #[serde(default)]
    after: i64,
}

async fn log(
    State(admin): State<Admin>,
    page: Result<Query<LogPage>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Ok(Query(page)) = page else {
        let message = "`after` must be the number of a line";
        return Err(ApiError::plain(ErrorBody::new(ErrorCode::InvalidRequest, message)));
    };
    let database = &admin.coordinator.config.database;
    let lines = admin::log_lines(database, page.after, LOG_LINES).await.map_err(refused)?;
    Ok(Json(json!({ "lines": lines, "more": lines.len() == LOG_LINES as usize })))
}

async fn log_check(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let check = admin::log_check(&admin.coordinator.config.database).await.map_err(refused)?;
    Ok(Json(json!({ "holds": check.holds(), "check": check })))
}

/// How many of the newest audits are listed.
const NEWEST_AUDITS: u32 = 100;

async fn audits(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let database = &admin.coordinator.config.database;
    Ok(Json(json!(admin::audits(database, NEWEST_AUDITS).await.map_err(refused)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewValidator {
    node: NodeId,
    trusted: bool,
}

async fn set_validator(
    State(admin): State<Admin>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let new: NewValidator = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    let changed = admin::set_validator(database, &new.node, new.trusted).await.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(Json(json!({ "node": new.node, "trusted": new.trusted, "changed": changed })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAppeal {
    node: NodeId,
    words: String,
}

async fn appeal(State(admin): State<Admin>, request: Request) -> Result<StatusCode, ApiError> {
    let new: NewAppeal = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    admin::appeal(database, &new.node, &new.words).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDecision {
    node: NodeId,
    granted: bool,
    note: String,
}

async fn decide_appeal(
    State(admin): State<Admin>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let new: NewDecision = read_json(&admin.coordinator, request, ApiError::plain).await?;
    let database = &admin.coordinator.config.database;
    admin::decide_appeal(database, &new.node, new.granted, &new.note).await.map_err(refused)?;
    admin.coordinator.look_up_settings().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Why the books were not changed.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn refused(error: CoordinatorError) -> ApiError {
    let code = match &error {
        CoordinatorError::NoSuchKey(_) | CoordinatorError::Binding(_) => ErrorCode::NotFound,
        CoordinatorError::Appeal(_)
        | CoordinatorError::KeyName
        | CoordinatorError::KeyTerms(_)
        | CoordinatorError::Deposit(_)
        | CoordinatorError::PayOut(_) => ErrorCode::InvalidRequest,
        _ => {
            tracing::error!(?error, "an admin request failed: {error}");
            ErrorCode::Internal
        }
    };
    ApiError::plain(ErrorBody::new(code, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(is_same(b"abc", b"abc"));
        assert!(!is_same(b"abc", b"abd"));
        assert!(!is_same(b"ab", b"abc"));
        assert!(!is_same(b"", b"abc"));
    }
}
