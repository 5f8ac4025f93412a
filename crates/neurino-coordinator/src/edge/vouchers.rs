//! Paying by voucher, for whoever makes them: where they are collected, and how far a payer is.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::{Address, epoch_of};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::Edge;
use super::http::{ApiError, VOUCHER};
use super::newcomers::{Peer, address_of};
use crate::coordinator::now_ms;

/// `GET /v1/vouchers`: what a voucher is signed for; `null` where none are taken.
pub(crate) async fn terms(State(coordinator): State<Edge>) -> Json<Value> {
    let terms = coordinator.voucher_terms();
    let domain = terms.map(|terms| {
        json!({
            "name": "Neurino",
            "version": "1",
            "chainId": terms.chain_id,
            "verifyingContract": terms.contract,
        })
    });
    Json(json!({
        "terms": terms,
        "epoch": epoch_of(now_ms()),
        "domain": domain,
        "types": { "Voucher": [
            { "name": "payer", "type": "address" },
            { "name": "gateway", "type": "address" },
            { "name": "cumulative", "type": "uint256" },
            { "name": "epoch", "type": "uint64" },
        ] },
    }))
}

/// `GET /v1/vouchers/{payer}`: what a payer deposited, promised and spent. The signature stays here:
/// whoever has it could not spend it again, but need not have it.
pub(crate) async fn channel(
    State(coordinator): State<Edge>,
    payer: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let address = payer.ok().and_then(|Path(payer)| payer.to_ascii_lowercase().parse().ok());
    let payer = address.and_then(|address: Address| PayerId::new(address.to_string()).ok());
    let payer = payer.ok_or_else(|| {
        let message = "a payer is named by its address, `0x` and 40 hex digits";
        ApiError::plain(ErrorBody::new(ErrorCode::InvalidRequest, message))
    })?;
    let _turn = coordinator.voucher_reads.turn("payers").await?;
    let found = coordinator.store.voucher_channel(&payer).await;
    let found = found.map_err(|error| ApiError::plain(error.body()))?;
    let channel = found.ok_or_else(|| {
        let message = "this gateway knows no deposit of that payer";
        ApiError::plain(ErrorBody::new(ErrorCode::NotFound, message))
    })?;
    let mut shown = json!(channel);
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("signature");
    }
    Ok(Json(shown))
}

/// Bounds what an address without a key may have looked up: channels, and vouchers that do not pay. Whoever
/// pays is not hindered.
pub(crate) async fn throttle(
    State(coordinator): State<Edge>,
    request: Request,
    next: Next,
) -> Response {
    let reads = request.uri().path().starts_with("/v1/vouchers/");
    if !reads && !request.headers().contains_key(VOUCHER) {
        return next.run(request).await;
    }
    let trusted = coordinator.config.client_address_header.as_deref();
    let peer = request.extensions().get::<Peer>().copied();
    let from = address_of(peer, request.headers(), trusted);
    let most = coordinator.config.limits.voucher_lookups_per_min;
    let words = "this address had many vouchers looked up in the last minute that did not pay";
    if let Err(error) = coordinator.voucher_lookups.check(from, most, words) {
        coordinator.metrics.limited();
        let shape = if reads { ApiError::plain } else { ApiError::openai };
        return shape(error).into_response();
    }
    let response = next.run(request).await;
    let unpaid = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::PAYMENT_REQUIRED];
    if reads || unpaid.contains(&response.status()) {
        // That this one was the last is told to the next.
        let _ = coordinator.voucher_lookups.count(from, most, words);
    }
    response
}
