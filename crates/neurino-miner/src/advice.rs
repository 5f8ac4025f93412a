//! Which model the network would like this node to have loaded. Followed between jobs, only among models
//! that it serves anyway, and only if its owner lets it.

use neurino_protocol::node::Advice;
use tokio::time::Instant;

use crate::run::{Inside, Run};
use crate::status::Stage;

/// What the network advised.
#[derive(Debug, Default)]
pub(crate) struct Advised {
    /// Not followed yet: a job is in the way. No further ones are taken meanwhile.
    pending: Option<Advice>,
    /// Being followed: its model is being loaded. Or followed, and nothing is loaded.
    pub(crate) followed: Option<Advice>,
    /// Whether the engine was told to forget its models. The next job has one loaded again.
    pub(crate) cold: bool,
}

impl Advised {
    /// Whether no further jobs are taken until it is followed.
    pub(crate) fn holds_jobs(&self) -> bool {
        self.pending.is_some()
    }

    /// The link that it came on is gone; what is being done is done.
    pub(crate) fn forget(&mut self) {
        self.pending = None;
    }

    /// A model is loaded, for whatever reason.
    pub(crate) fn loaded(&mut self) {
        (self.followed, self.cold) = (None, false);
    }
}

impl Run {
    pub(crate) fn on_advice(&mut self, advice: Advice) {
        if !self.config.follow_advice || self.finishing {
            return;
        }
        let served = |model: &neurino_core::ModelId| {
            self.config.models.iter().any(|known| known.id == *model)
        };
        if advice.model.as_ref().is_some_and(|model| !served(model)) {
            tracing::debug!("the network advises a model that this node does not serve");
            return;
        }
        let (ready, cold) = (self.ready.as_ref(), self.advised.cold);
        let is_so = match &advice.model {
            Some(model) => ready == Some(model) && !cold,
            None => cold,
        };
        // The newest word counts, also one that takes the last one back.
        self.advised.pending = (!is_so).then_some(advice);
    }

    /// Follows what was advised, once no job is in the way.
    pub(crate) fn follow_advice(&mut self) {
        let computes = self.jobs.values().any(|job| job.shown.stage != Stage::Sending);
        let held = self.pace.borrow().held;
        if computes || held || self.finishing || self.ready.is_none() || self.session.is_none() {
            return;
        }
        let Some(advice) = self.advised.pending.take() else { return };
        if let Some(model) = &advice.model {
            let Some(next) = self.config.models.iter().find(|known| known.id == *model) else {
                return;
            };
            tracing::info!(model.id = %model, "loading {model}: {} jobs wait for it", advice.waiting);
            self.loading = next.clone();
            self.ready = None;
            self.load_at = Some(Instant::now());
        } else {
            tracing::info!("nobody asked for this node's models lately; they are unloaded");
            let (loaded, inside) = (self.loaded.clone(), self.inside.clone());
            self.tasks.spawn(async move {
                // Refused only when the miner is gone.
                let _ = inside.send(Inside::Unloaded(loaded.unload().await)).await;
            });
            self.advised.cold = true;
        }
        self.advised.followed = Some(advice);
    }

    /// The engine holds no model any more, or could not be told so: then it is as before.
    pub(crate) fn on_unloaded(&mut self, unloaded: bool) {
        if !unloaded {
            self.advised.loaded();
        }
    }
}
