//! What a network is run by, for everybody to read.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use neurino_core::NodeId;
use neurino_protocol::demand::NetworkDemand;
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::Edge;
use super::http::ApiError;
use crate::audits::TrustReport;
use crate::router::{JobClass, Sample};

/// `GET /v1/network`: the parameters of routing and payment.
pub(crate) async fn show(State(coordinator): State<Edge>) -> Json<Value> {
    let config = &coordinator.config;
    let sample = match config.sample {
        Sample::BestOf(most) => json!(most),
        Sample::All => json!("all"),
    };
    let classes: serde_json::Map<String, Value> = JobClass::ALL
        .iter()
        .map(|class| (class.as_str().to_owned(), json!(class.weight())))
        .collect();
    let prices = coordinator.prices_now().ok();
    let rules = coordinator.rules_now().ok();
    let next = coordinator.rules.next(&config.rule_set, coordinator.instant());
    Json(json!({
        "network": config.network,
        "rules": rules.map(|rules| &rules.name),
        "rule_set": rules,
        "next_rule_set": next,
        "prices": prices,
        "routing": {
            "order": ["model loaded", "referred by the frontend", "few failures", "speed", "votes", "uptime"],
            "sample": sample,
            "class_weights": classes,
            "attempts_max": config.limits.failures_max,
            "new_owner_leases_max": (!config.practice).then_some(config.limits.new_owner_leases_max),
            "second_leases_permille": config.limits.hedge_permille,
        },
        "placement": {
            "round_ms": config.limits.advice_round_ms,
            "dwell_ms": config.limits.advice_dwell_ms,
            "idle_ms": config.limits.advice_idle_ms,
        },
        "audits": {
            "rules": config.audits,
            "tolerance": coordinator.audits.tolerance,
            "wait_ms": config.limits.audit_wait_ms,
        },
    }))
}

/// `GET /v1/demand`: what the network was asked for in the last hour, model by model.
pub(crate) async fn demand(State(coordinator): State<Edge>) -> Json<NetworkDemand> {
    Json(coordinator.demand())
}

/// `GET /v1/nodes/{node}/trust`: how closely a node is watched, and what of its earnings can be called
/// back. As public as its receipts are.
pub(crate) async fn trust(
    State(coordinator): State<Edge>,
    node: Result<Path<String>, PathRejection>,
) -> Result<Json<TrustReport>, ApiError> {
    let node = node.ok().and_then(|Path(node)| NodeId::new(node).ok()).ok_or_else(|| {
        ApiError::plain(ErrorBody::new(ErrorCode::InvalidRequest, "that is no node's id"))
    })?;
    coordinator.trust_report(&node).await.map(Json).map_err(ApiError::plain)
}
