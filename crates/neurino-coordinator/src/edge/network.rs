//! What a network is run by, for everybody to read.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Edge;
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
    let prices = coordinator.prices.named(&config.price_list).ok();
    Json(json!({
        "network": config.network,
        "rules": config.rule_set,
        "prices": prices,
        "routing": {
            "order": ["model loaded", "referred by the frontend", "speed", "votes", "uptime"],
            "sample": sample,
            "class_weights": classes,
            "attempts_max": config.limits.failures_max,
        },
    }))
}
