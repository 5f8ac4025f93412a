//! What a network wants of its machines: jobs, waiting ones, and what they paid. `GET /v1/demand` of a
//! coordinator, and what the window shows of it.

use neurino_core::{MicroPoints, ModelId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Demand over the last hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDemand {
    /// The network's name, as in its receipts.
    pub network: String,
    /// Every model the network knows.
    pub models: Vec<ModelDemand>,
}

/// Demand for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ModelDemand {
    /// The model.
    pub model: ModelId,
    /// How many minutes the figures cover: 60, or fewer since the network's server started.
    pub minutes: u32,
    /// Jobs paid in these minutes.
    pub jobs: u32,
    /// Jobs that wait for a machine now.
    pub waiting: u32,
    /// Connected machines that serve it.
    pub nodes: u32,
    /// What a machine that served it for an hour was paid for it on average; `None` where too little
    /// was seen to say so.
    pub points_per_node_hour_micro: Option<MicroPoints>,
}

/// What a model may bring this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PointsEstimate {
    /// Points in an hour.
    pub points_per_hour_micro: MicroPoints,
    /// Where that comes from.
    pub method: EstimateMethod,
}

/// Where an estimate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum EstimateMethod {
    /// This machine's own last jobs on the model, over the time they took.
    Own {
        /// How many.
        jobs: u32,
    },
    /// The average of the network's machines, over the time they offered it.
    Network,
}
