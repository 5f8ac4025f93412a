//! Results: a text in the body, or the key of an uploaded picture.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use neurino_core::{
    ImageOutput, JobOutput, JobSpec, LeaseId, NodeId, Png, Receipt, ResultStatement,
};
use neurino_protocol::node::{CoordinatorMessage, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::super::Edge;
use super::super::http::{parse_json, read_within};
use super::wire::{self, MinerSubmit};
use super::{invalid, refusal};
use crate::coordinator::now_ms;
use crate::original::{Held, miner_id, reward_of};
use crate::settle::Proof;
use crate::store::Binding;
use crate::uploads::object_key;

/// Largest body, in bytes: the longest answer, escaped twice.
const SUBMIT_BYTES_MAX: usize = 2 << 20;

/// `POST /miner_submit`.
pub(super) async fn submit(State(coordinator): State<Edge>, request: Request) -> Response {
    match take(&coordinator, request).await {
        Ok(receipt) => Json(accepted(&receipt)).into_response(),
        Err(error) => refusal(error),
    }
}

/// What a miner is told of its payment.
pub(super) fn accepted(receipt: &Receipt) -> Value {
    json!({
        "status": "accepted",
        "job_id": receipt.lease,
        "points": receipt.quote.amount_micro.to_string(),
        "points_kind": receipt.quote.points,
        "event": receipt.event,
    })
}

async fn take(coordinator: &Edge, request: Request) -> Result<Receipt, ErrorBody> {
    let wait = std::time::Duration::from_millis(coordinator.config.limits.request_read_ms);
    let body = read_within(request, SUBMIT_BYTES_MAX, wait).await?;
    let said: MinerSubmit = parse_json(&body)?;
    drop(body);
    for (name, seconds) in [
        ("request_latency", said.request_latency),
        ("loading_latency", said.loading_latency),
        ("inference_latency", said.inference_latency),
        ("upload_latency", said.upload_latency),
    ] {
        if seconds.is_some_and(|seconds| !(0.0..=1e6).contains(&seconds)) {
            return Err(invalid(format!("`{name}` must be a number of seconds from 0")));
        }
    }
    let node = miner_id(&said.miner_id)?;
    let lease = wire::lease_of(&said.job_id)?;
    let unsigned = || {
        let message = "the result carries no `signature` with its `identity_address`";
        ErrorBody::new(ErrorCode::BadSignature, message)
            .with_hint("make an identity wallet and start the miner without --skip-signature")
    };
    let identity = said.identity_address.ok_or_else(unsigned)?.to_ascii_lowercase();
    let signature = said.signature.ok_or_else(unsigned)?;
    let now_secs = now_ms().div_euclid(1000);
    coordinator.miners.check_identity(&node, &identity, &signature, now_secs)?;
    let (spec, held) = match coordinator.held(&node, lease).await {
        Ok(held) => held,
        Err(error) => return before(coordinator, &node, lease, error).await,
    };
    let output = match (&*spec, said.result.text, said.result.s3_key) {
        (JobSpec::Text(job), Some(text), None) => JobOutput::Text(wire::output(&text, job)),
        (JobSpec::Image(job), None, Some(key)) => {
            if !key.eq_ignore_ascii_case(&object_key(lease, &node)) {
                return Err(invalid("`S3Key` is not the key of this job's picture"));
            }
            let file = coordinator.miners.uploads.get(lease).ok_or_else(|| {
                ErrorBody::new(ErrorCode::NotFound, "no picture was uploaded for this job")
                    .with_hint("upload it with the job's temporary credentials first")
            })?;
            let (width, height) = (job.width, job.height);
            JobOutput::Image(ImageOutput { png: Png(file), width, height })
        }
        _ => return Err(invalid("`result` must hold `Text` for a text, `S3Key` for a picture")),
    };
    let receipt = settle(coordinator, &node, lease, held, output).await?;
    coordinator.miners.uploads.remove(lease);
    let reward = reward_of(&node).to_owned();
    let _order = coordinator.miners.binding.lock().await;
    if !coordinator.miners.is_bound(&node) {
        let binding =
            Binding { reward: reward.clone(), identity: identity.clone(), at_ms: now_ms() };
        coordinator.store.bind(binding).await.map_err(|e| e.body())?;
        coordinator.miners.bind(&reward, &identity);
    }
    Ok(receipt)
}

/// A repeat of what was paid gets the receipt of then.
async fn before(
    coordinator: &Edge,
    node: &NodeId,
    lease: LeaseId,
    error: ErrorBody,
) -> Result<Receipt, ErrorBody> {
    match coordinator.settled_before(node, lease).await? {
        CoordinatorMessage::Settled(receipt) => Ok(receipt),
        _ => Err(error),
    }
}

/// Settles what a miner handed in, as for any other node.
pub(super) async fn settle(
    coordinator: &Edge,
    node: &NodeId,
    lease: LeaseId,
    held: Held,
    output: JobOutput,
) -> Result<Receipt, ErrorBody> {
    let statement = ResultStatement {
        job: held.job,
        lease,
        fence: held.fence,
        node: node.clone(),
        digest: output.digest(),
    };
    let submission = Submission { statement, signature: String::new(), output };
    match coordinator.settle(node, submission, Proof::Original).await {
        Some(CoordinatorMessage::Settled(receipt)) => Ok(receipt),
        Some(CoordinatorMessage::Rejected { error, .. }) => Err(error),
        _ => Err(ErrorBody::new(ErrorCode::Overloaded, "the result could not be settled yet")
            .with_hint("hand it in again")),
    }
}
