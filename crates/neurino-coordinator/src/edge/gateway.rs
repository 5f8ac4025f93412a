//! The OpenAI-compatible gateway: chat completions, models, and the health of the server.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use neurino_core::{JobId, JobKind, JobOutput, ModelId};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::Edge;
use super::answer::Answer;
use super::chat::{ChatRequest, Refusal, translate};
use super::http::{
    ApiError, REQUEST_ID, caller, chance, count_work, idempotency_key, read_json, terms_of,
    working_caller,
};
use super::serve::Leaving;
use super::stream::ChatStream;
use crate::coordinator::{Coordinator, accepted_s};
use crate::fabric::Resume;
use crate::keys::Scope;
use crate::router::JobClass;
use crate::state::Makes;
use crate::terms::cost_units;

/// How long a request waits for the first node of a network, in milliseconds.
const CONNECTING_MS: u64 = 2_000;

/// `GET /healthz`: whether the server answers, and who it is.
pub(crate) async fn health(State(coordinator): State<Edge>) -> Json<Value> {
    let coordinator = &coordinator;
    let overview = coordinator.jobs_overview();
    Json(json!({
        "status": "ok",
        "network": coordinator.network(),
        "version": env!("CARGO_PKG_VERSION"),
        "nodes": overview.nodes,
    }))
}

/// `GET /v1/models`: every model the network prices; `nodes` says how many serve it right now, `kind`
/// what it makes, where that is known.
pub(crate) async fn models(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    caller(&coordinator, &headers).await?;
    Ok(Json(json!({ "object": "list", "data": listed(&coordinator) })))
}

/// `GET /v1/models/{id}`: one of them.
pub(crate) async fn model(
    State(coordinator): State<Edge>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    caller(&coordinator, &headers).await?;
    let asked = id.map(|Path(id)| id).unwrap_or_default();
    let found = listed(&coordinator).into_iter().find(|model| model["id"] == asked.as_str());
    found.map(Json).ok_or_else(|| ApiError::openai(coordinator.unknown_model(&asked)))
}

fn listed(coordinator: &Coordinator) -> Vec<Value> {
    let created = coordinator.rules_now().map_or(0, |rules| rules.from.as_second());
    let overview = coordinator.jobs_overview();
    let state = coordinator.state();
    let entry = |(model, nodes)| {
        let makes = coordinator.makes(&state, &model);
        let mut entry = json!({
            "id": model,
            "object": "model",
            "created": created,
            "owned_by": coordinator.network(),
            "nodes": nodes,
        });
        if let Some(makes) = &makes {
            entry["kind"] = json!(makes.kind());
        }
        if let Some(Makes::Pictures(usual)) = &makes {
            entry["image"] = json!(usual);
        }
        entry
    };
    overview.models.into_iter().map(entry).collect()
}

/// `POST /v1/chat/completions`, streamed or not.
///
/// The status is decided by the first thing that happens to the job, so a prompt that is too long is
/// a 400 also for a streaming client. Once text was sent, a failure is an error event.
pub(crate) async fn chat_completions(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let coordinator = &coordinator;
    let caller = working_caller(coordinator, &headers, Scope::Text).await?;
    let key = idempotency_key(&headers)?;
    let resume = request.extensions().get::<Resume>().cloned();
    let leaving = Leaving::of(&request);
    let body: Value = read_json(coordinator, request, ApiError::openai).await?;
    let ChatRequest { spec, stream, include_usage, parallel_calls } =
        translate(&body, chance(&caller, key.as_ref())).map_err(refused)?;
    let tier = body["service_tier"].as_str();
    let mut terms = terms_of(&caller, &headers, tier, JobClass::Interactive)?;
    let model = spec.model().clone();
    // Before what admission says of it, so that the field is named.
    coordinator
        .suits(&model, JobKind::Text)
        .map_err(|error| ApiError::openai(error).named("invalid_value").param("model"))?;
    count_work(coordinator, &caller, cost_units(&spec))?;
    terms.no_node_wait_ms = Some(no_node_wait_ms(coordinator, &model, &headers));
    let repeatable = key.is_some();
    terms.attended = !repeatable || crate::fabric::is_own_key();
    let paid = coordinator.pay_ahead(&caller, key.as_ref(), [spec.clone()]).await;
    paid.map_err(ApiError::voucher)?;
    let submitted = coordinator.submit_on(caller.payer.clone(), key, spec, terms).await;
    let job = submitted.map_err(|error| ApiError::submission(error, &caller))?;
    // From here on a client that goes away withdraws its job, unless it may come back for it.
    let guard = CancelGuard::of(coordinator, job, repeatable);
    let watch = coordinator.watch_job(job).await.map_err(ApiError::openai)?;
    let mut watch = watch.until(leaving);
    let answer = Answer { job, model, created: accepted_s(job), parallel_calls };
    let mut response = if stream {
        let stream = match resume {
            Some(had) => ChatStream::go_on(answer, include_usage, watch, guard, had).await?,
            None => ChatStream::open(answer, include_usage, watch, guard).await?,
        };
        Sse::new(stream.into_events()).keep_alive(KeepAlive::default()).into_response()
    } else {
        let (output, _) = watch.finished().await.map_err(ApiError::openai)?;
        guard.disarm();
        let JobOutput::Text(text) = output else {
            return Err(ApiError::openai(not_a_text()));
        };
        Json(answer.whole(&text, watch.fingerprint().as_deref())).into_response()
    };
    if let Ok(id) = HeaderValue::from_str(&job.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// The error for a field that cannot be served.
pub(super) fn refused(refusal: Refusal) -> ApiError {
    let error = ApiError::openai(refusal.body()).named(refusal.code);
    match refusal.param {
        Some(param) => error.param(param),
        None => error,
    }
}

/// The error of a chat whose result is something else. A settled result was checked against its job.
pub(super) fn not_a_text() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "the result of a chat is no text")
}

/// How long a request waits while nobody serves its model.
///
/// A node that is gone may be back within its grace, and one that has connected and not said what it
/// takes is loading its model. Else there is nothing to wait for where other
/// nodes are connected; where none is, a moment, as the first may be connecting. A client that says so
/// (`Prefer: wait=30`) waits as long as it likes, within the limit.
pub(super) fn no_node_wait_ms(
    coordinator: &Coordinator,
    model: &ModelId,
    headers: &HeaderMap,
) -> u64 {
    let limits = &coordinator.config.limits;
    let state = coordinator.state();
    let lately = Duration::from_millis(limits.reconnect_grace_ms);
    let served = state.router.serving(model) > 0
        || state.last_served.get(model).is_some_and(|at| at.elapsed() < lately);
    let wait_ms = match preferred_wait_ms(headers) {
        Some(wait_ms) => wait_ms,
        None if served || state.is_node_preparing() => limits.reconnect_grace_ms,
        None if state.sessions.is_empty() => CONNECTING_MS,
        None => 0,
    };
    wait_ms.min(limits.chat_no_node_wait_ms)
}

/// The seconds of `Prefer: wait=30` (RFC 7240), in milliseconds.
fn preferred_wait_ms(headers: &HeaderMap) -> Option<u64> {
    let all = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = all.flat_map(|value| value.split([',', ';']));
    let seconds = preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"').parse::<u32>().ok()).flatten()
    })?;
    Some(u64::from(seconds) * 1000)
}

/// Sees to a job whose client is gone when dropped: it is withdrawn, or settled if it was prepaid and
/// part of it was delivered.
pub(super) struct CancelGuard {
    coordinator: Arc<Coordinator>,
    job: JobId,
    /// Whether nobody can come back for the job.
    armed: bool,
    delivered: bool,
}

impl CancelGuard {
    /// A guard that does nothing if the request may be repeated: whoever repeats it gets the job's
    /// result.
    pub(super) fn of(coordinator: &Arc<Coordinator>, job: JobId, repeatable: bool) -> Self {
        Self { coordinator: Arc::clone(coordinator), job, armed: !repeatable, delivered: false }
    }

    /// Part of the answer is on its way to the client.
    pub(super) fn delivered(&mut self) {
        if !std::mem::replace(&mut self.delivered, true) {
            self.coordinator.note_delivered(self.job);
        }
    }

    pub(super) fn disarm(mut self) {
        self.armed = false;
    }

    /// The client was told that its answer failed and costs nothing.
    pub(super) fn withdraw(mut self) {
        if std::mem::take(&mut self.armed) {
            self.spawn(|coordinator, job| async move { coordinator.cancel_job(job).await });
        }
    }

    fn spawn<F>(&self, end: impl FnOnce(Arc<Coordinator>, JobId) -> F)
    where
        F: Future<Output = Result<bool, ErrorBody>> + Send + 'static,
    {
        // Outside a runtime the coordinator is going down as well, and the job stays open.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let job = self.job;
        let ended = end(Arc::clone(&self.coordinator), job);
        runtime.spawn(async move {
            if let Err(error) = ended.await {
                tracing::warn!(job.id = %job, code = ?error.code, "job {job} could not be withdrawn");
            }
        });
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if self.armed {
            self.spawn(|coordinator, job| async move { coordinator.client_gone(job).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_how_long_it_waits() {
        let check = |values: &[&'static str], wait_ms: Option<u64>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("prefer", HeaderValue::from_static(value));
            }
            assert_eq!(preferred_wait_ms(&headers), wait_ms, "{values:?}");
        };
        check(&[], None);
        check(&["wait=30"], Some(30_000));
        check(&["respond-async, Wait = \"5\""], Some(5_000));
        check(&["return=minimal", "wait=0"], Some(0));
        check(&["wait=soon"], None);
        check(&["wait=-1"], None);
    }
}
