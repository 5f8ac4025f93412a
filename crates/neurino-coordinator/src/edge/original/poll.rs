//! Asking for work, and which model to load next.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use neurino_core::{JobSpec, ModelId};
use neurino_protocol::ErrorBody;
use serde_json::{Value, json};

use super::super::Edge;
use super::super::http::{parse_json, read_within};
use super::super::newcomers::{Peer, address_of};
use super::wire::{self, MinerRequest, MinerSignal};
use super::{invalid, refusal};
use crate::coordinator::Coordinator;
use crate::original::{Poll, Polled, miner_id};

/// Largest body of a poll, in bytes.
const POLL_BYTES_MAX: usize = 4 << 10;
/// Largest body of a signal, in bytes.
const SIGNAL_BYTES_MAX: usize = 16 << 10;

/// `POST /miner_request`: a job, or `null`, or a text with `Warning:` in it.
pub(super) async fn request(State(coordinator): State<Edge>, request: Request) -> Response {
    answered(poll(&coordinator, request).await)
}

/// `POST /miner_signal`: the model to load next.
pub(super) async fn signal(State(coordinator): State<Edge>, request: Request) -> Response {
    answered(next_model(&coordinator, request).await)
}

fn answered(answer: Result<Value, ErrorBody>) -> Response {
    match answer {
        Ok(json) => Json(json).into_response(),
        Err(error) => refusal(error),
    }
}

async fn body(
    coordinator: &Coordinator,
    request: Request,
    max: usize,
) -> Result<Vec<u8>, ErrorBody> {
    let wait = std::time::Duration::from_millis(coordinator.config.limits.request_read_ms);
    read_within(request, max, wait).await
}

fn model(id: Option<&str>) -> Result<Option<ModelId>, ErrorBody> {
    id.map(ModelId::new).transpose().map_err(|error| invalid(format!("`model_id`: {error}")))
}

async fn poll(coordinator: &Edge, request: Request) -> Result<Value, ErrorBody> {
    let peer = request.extensions().get::<Peer>().copied();
    let trusted = coordinator.config.client_address_header.as_deref();
    let from = address_of(peer, request.headers(), trusted);
    let body = body(coordinator, request, POLL_BYTES_MAX).await?;
    let asked: MinerRequest = parse_json(&body)?;
    let min_secs = asked.min_deadline.unwrap_or(0.0);
    if !(0.0..=1e6).contains(&min_secs) {
        return Err(invalid("`min_deadline` must be a number of seconds from 0"));
    }
    let node = miner_id(&asked.miner_id)?;
    let Some(model) = model(asked.model_id.as_deref())? else { return Ok(Value::Null) };
    let poll = Poll {
        node: node.clone(),
        model,
        // Bounded just now, and whole milliseconds do.
        min_budget_ms: std::time::Duration::from_secs_f64(min_secs).as_millis() as u64,
        version: asked.version,
        hardware: asked.hardware,
        from,
    };
    let lease = match coordinator.poll(poll).await? {
        Polled::Job(lease) => lease,
        Polled::Nothing => return Ok(Value::Null),
        Polled::Warning(words) => return Ok(json!(format!("Warning: {words}"))),
    };
    // A stream carries no signature, so only who has signed before may stream.
    let streamed = match &lease.spec {
        JobSpec::Text(text) => {
            wire::is_plain(text)
                && coordinator.miners.is_bound(&node)
                && coordinator.is_watched(lease.job)
        }
        JobSpec::Image(_) => false,
    };
    if streamed {
        coordinator.expect_stream(lease.id);
    }
    Ok(wire::job(&lease, &node, &coordinator.miners.key, streamed))
}

async fn next_model(coordinator: &Edge, request: Request) -> Result<Value, ErrorBody> {
    let body = body(coordinator, request, SIGNAL_BYTES_MAX).await?;
    let signal: MinerSignal = parse_json(&body)?;
    let node = miner_id(&signal.miner_id)?;
    let images = match signal.model_type.as_str() {
        "SD" => true,
        "LLM" => false,
        _ => return Err(invalid("`model_type` must be SD or LLM")),
    };
    let loaded = model(signal.model_id.as_deref())?;
    let next = if signal.skip_update {
        loaded
    } else {
        coordinator.signal(&node, images, loaded.as_ref())
    };
    Ok(json!({ "model_id": next }))
}
