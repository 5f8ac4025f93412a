//! Epochs for everybody to read: what was shared, by which rules, and everything to compute it again.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use neurino_ledger::epoch::{EpochEditions, EpochInputs, epoch_of};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Edge;
use super::http::ApiError;
use crate::coordinator::now_ms;

/// Epochs of one list.
const LISTED: u32 = 52;
/// Entries of one answer.
const LINES: u32 = 5_000;

/// Files and pages of entries that are read at the same time: they are large, and everybody may ask.
const READS: usize = 2;
/// Longest wait for others to be done.
const READ_WAIT: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 2_000 });

/// Bounds how many read something at once that everybody may read: large files of epochs, say.
pub(crate) struct EpochReads(Semaphore);

impl Default for EpochReads {
    fn default() -> Self {
        Self(Semaphore::new(READS))
    }
}

impl EpochReads {
    /// A turn, or the answer that others are reading.
    pub(super) async fn turn(&self, what: &str) -> Result<SemaphorePermit<'_>, ApiError> {
        let turn = tokio::time::timeout(READ_WAIT, self.0.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let message = format!("many are reading {what} right now");
            let busy = ErrorBody::new(ErrorCode::Unreachable, message);
            ApiError::plain(busy.with_hint("try again in a few seconds"))
        })
    }
}

/// Which epochs are listed.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    before: Option<i64>,
}

/// From which entry on they are listed.
#[derive(Debug, Deserialize)]
pub(crate) struct From {
    from: Option<i64>,
}

fn invalid(message: &str) -> ApiError {
    ApiError::plain(ErrorBody::new(ErrorCode::InvalidRequest, message))
}

/// `GET /v1/epochs`: the epochs that were made, newest first, with raw and organic demand side by side.
pub(crate) async fn list(
    State(coordinator): State<Edge>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(page) = page.map_err(|_| invalid("`before` is the number of an epoch"))?;
    let before = page.before.unwrap_or(i64::MAX);
    let listed = coordinator.store.epoch_summaries(before, LISTED).await;
    let listed = listed.map_err(|error| ApiError::plain(error.body()))?;
    let epochs: Vec<Value> =
        listed.iter().filter_map(|summary| serde_json::from_str(summary).ok()).collect();
    let current = epoch_of(now_ms());
    let bounds = EpochInputs::bounds(current);
    let rules = coordinator.config.epoch_rules.as_deref();
    let editions = rules.and_then(|rules| EpochEditions::named(rules).ok());
    let rules = editions.as_ref().zip(bounds).map(|(all, bounds)| &all.at(bounds.0).name);
    Ok(Json(json!({
        "rules": rules,
        "current": { "epoch": current, "ends_at_ms": bounds.map(|b| b.1) },
        "epochs": epochs,
    })))
}

fn number(epoch: Result<Path<String>, PathRejection>) -> Result<i64, ApiError> {
    let number = epoch.ok().and_then(|Path(epoch)| epoch.parse().ok());
    number.ok_or_else(|| invalid("an epoch is a number, as `/v1/epochs` lists them"))
}

/// What never changes may be kept by whoever asked.
fn for_good(kind: &'static str, body: String) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let keep = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, keep);
    response
}

/// `GET /v1/epochs/{epoch}`: the file, byte for byte as it was signed.
pub(crate) async fn show(
    State(coordinator): State<Edge>,
    epoch: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let epoch = number(epoch)?;
    let _turn = coordinator.epoch_reads.turn("epochs").await?;
    let found = coordinator.store.epoch_file(epoch).await;
    match found.map_err(|error| ApiError::plain(error.body()))? {
        Some(body) => Ok(for_good("application/json", body)),
        None => Err(ApiError::plain(
            ErrorBody::new(ErrorCode::NotFound, "there is no such epoch").with_hint(
                "`/v1/epochs` lists them; one is made a week and an hour after its week has ended",
            ),
        )),
    }
}

/// `GET /v1/epochs/{epoch}/entries`: the movements of points behind its sums, a line each. Payers have
/// names that are made anew for each epoch.
pub(crate) async fn entries(
    State(coordinator): State<Edge>,
    epoch: Result<Path<String>, PathRejection>,
    from: Result<Query<From>, QueryRejection>,
) -> Result<Response, ApiError> {
    let epoch = number(epoch)?;
    let from = from.ok().and_then(|Query(from)| u32::try_from(from.from.unwrap_or(0)).ok());
    let from = from.ok_or_else(|| invalid("`from` is the place of an entry, from zero"))?;
    let _turn = coordinator.epoch_reads.turn("epochs").await?;
    let lines = coordinator.store.epoch_lines(epoch, from.into(), LINES).await;
    let lines = lines.map_err(|error| ApiError::plain(error.body()))?;
    let body: String = lines.into_iter().flat_map(|line| [line, "\n".into()]).collect();
    // An epoch that is still to be made has no lines yet; that answer is not to be kept.
    if body.is_empty() {
        return Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response());
    }
    Ok(for_good("application/x-ndjson", body))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use axum::http::StatusCode;
    use axum::http::header::RETRY_AFTER;

    use super::*;

    #[tokio::test]
    async fn only_so_many_read_at_once() {
        let reads = EpochReads::default();
        let mut turns = Vec::new();
        for _ in 0..READS {
            turns.push(reads.turn("epochs").await.ok().unwrap());
        }
        let Err(refused) = reads.turn("epochs").await else { panic!("one more") };
        let refused = refused.into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        turns.pop();
        assert!(reads.turn("epochs").await.is_ok(), "whoever is done makes room");
    }
}
