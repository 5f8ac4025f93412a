//! What the person is told about without asking. Rules and alerts are `neurino-control`'s own types.

use neurino_control::{Alert, AlertRules};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What the window asks for; each is answered with an [`AlertsView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum AlertsCommand {
    /// Nothing but the answer.
    Look,
    /// Replaces the rules.
    Set {
        /// All of them.
        rules: AlertRules,
    },
}

/// Alerts, as the settings show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AlertsView {
    /// The rules in force.
    pub rules: AlertRules,
    /// What was told and is over, newest first.
    pub past: Vec<Alert>,
}
