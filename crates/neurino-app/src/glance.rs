//! What tray and notifications follow while no window is open. Making it reads what is in memory: no
//! device is sampled, no file is read, and no network is asked.

use std::collections::BTreeSet;

use neurino_control::Alert;
use neurino_core::ModelId;
use neurino_protocol::app::{MiningStatus, ModelStatus, PointsSummary};
use neurino_protocol::control::ControlStatus;
use neurino_protocol::update::UpdateStatus;
use tokio::sync::watch;

use crate::{App, lock};

/// The state of the machine in short.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// State and sentence.
    pub mining: MiningStatus,
    /// The decision that holds.
    pub control: ControlStatus,
    /// What was earned, by this machine's own record.
    pub points: PointsSummary,
    /// What the person is alerted about now.
    pub alerts: Vec<Alert>,
    /// Whether there is a newer version.
    pub update: UpdateStatus,
    /// Models that are being fetched.
    pub fetching: BTreeSet<ModelId>,
}

impl App {
    /// Follows the state in short; empty until it was first made, within a second.
    pub fn glances(&self) -> watch::Receiver<Option<Glance>> {
        let glances = self.glances.subscribe();
        self.changed.notify_one();
        glances
    }

    /// The state in short, now.
    pub fn glance(&self) -> Glance {
        let now = self.mining_now();
        Glance {
            mining: now.mining,
            control: now.control,
            points: self.points(),
            alerts: lock(&self.alerts).current(),
            update: self.updates.status(),
            fetching: self.running_fetches(),
        }
    }

    /// Tells those who follow, if something has changed.
    pub(crate) fn push_glance(&self) {
        if self.glances.receiver_count() == 0 {
            return;
        }
        let glance = Some(self.glance());
        self.glances.send_if_modified(|last| {
            let changed = *last != glance;
            *last = glance;
            changed
        });
    }

    /// Models that are fetched now, and those of `before` with what became of them.
    pub(crate) fn fetched(&self, now: &Glance, before: &BTreeSet<String>) -> Vec<ModelStatus> {
        if now.fetching.is_empty() && before.is_empty() {
            return Vec::new();
        }
        self.statuses_of(None, |id| now.fetching.contains(id) || before.contains(id.as_str()))
    }
}
