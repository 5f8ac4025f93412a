//! How closely the network watches this machine: asked now and then while somebody looks at the earnings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_protocol::trust::NodeTrust;

use crate::{App, lock};

/// How often the network is asked.
const EVERY: Duration = Duration::from_mins(1);

/// What the network said last, and when it was asked.
#[derive(Debug, Default)]
pub(super) struct Known {
    asked: Option<Instant>,
    trust: Option<NodeTrust>,
}

impl App {
    /// What the network said last. Asks again in the background if that was a while ago, so that a
    /// network that does not answer holds nobody up.
    pub(super) fn trust(self: &Arc<Self>) -> Option<NodeTrust> {
        // On the practice network all machines are the person's own: nobody could check them.
        if self.network.is_practice() {
            return None;
        }
        let mut known = lock(&self.records.trust);
        if known.asked.is_none_or(|asked| asked.elapsed() >= EVERY) {
            known.asked = Some(Instant::now());
            self.tasks.spawn({
                let app = Arc::clone(self);
                async move { app.ask_trust().await }
            });
        }
        known.trust.clone()
    }

    async fn ask_trust(&self) {
        let (coordinator, node) = (self.network.for_miner(), self.node());
        let answered = tokio::select! {
            () = self.end.cancelled() => return,
            answered = coordinator.trust(&node) => answered,
        };
        match answered {
            Ok(trust) => lock(&self.records.trust).trust = trust,
            // What was known stays; the link says by itself that the network is away.
            Err(error) => {
                tracing::debug!(%error, "the network does not say how it watches this machine");
            }
        }
    }
}
