//! How closely a network watches a machine, as its owner reads it.

use neurino_core::MicroPoints;
use neurino_core::audit::TrustStage;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What a coordinator says of a node at `GET /v1/nodes/{node}/trust`, as far as the window shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NodeTrust {
    /// How closely it is watched.
    pub stage: TrustStage,
    /// Share of its results that are computed again, in millionths.
    pub audited_ppm: u32,
    /// Results in a row that held when others computed them again.
    pub held: u32,
    /// How many more must hold before fewer are computed again.
    #[serde(default)]
    pub to_hold: u32,
    /// Whether nobody of another owner could compute any of its results again.
    #[serde(default)]
    pub alone: bool,
    /// For how long earnings can be called back, in milliseconds.
    pub escrow_ms: i64,
    /// Earnings of that time, of both kinds.
    pub in_escrow_micro: MicroPoints,
}
