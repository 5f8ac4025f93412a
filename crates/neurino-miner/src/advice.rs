//! Which model the network would like this node to have loaded. Followed between jobs, only among models
//! that it serves anyway, and only if its owner lets it.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::UnitId;
use neurino_protocol::node::Advice;
use tokio::time::Instant;

use crate::run::{Inside, Job, Run};
use crate::status::Stage;

/// What the network advised.
#[derive(Debug, Default)]
pub(crate) struct Advised {
    /// Not followed yet: a job is in the way. No further ones are taken meanwhile, by the unit that it is
    /// for.
    pending: BTreeMap<Option<UnitId>, Advice>,
    /// Units that load what was advised.
    loads: BTreeSet<UnitId>,
    /// Being followed: its model is being loaded. Or followed, and nothing is loaded.
    pub(crate) followed: Option<Advice>,
    /// Whether the engine was told to forget its models. The next job has one loaded again.
    pub(crate) cold: bool,
}

impl Advised {
    /// Whether the node as one takes no further jobs until it is followed.
    pub(crate) fn holds_jobs(&self) -> bool {
        self.pending.contains_key(&None)
    }

    /// Units that take no further jobs until it is followed and done.
    pub(crate) fn held_units(&self) -> BTreeSet<UnitId> {
        self.pending.keys().flatten().chain(&self.loads).copied().collect()
    }

    /// A unit has done what was advised, or could not.
    pub(crate) fn done(&mut self, unit: UnitId) {
        self.loads.remove(&unit);
        if self.followed.as_ref().is_some_and(|advice| advice.unit == Some(unit)) {
            self.followed = None;
        }
    }

    /// The link that it came on is gone; what is being done is done.
    pub(crate) fn forget(&mut self) {
        self.pending.clear();
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
        let unit = advice.unit;
        let is_so = if let Some(unit) = unit {
            let Some(place) = self.units.place(unit) else { return };
            self.units.held(place) == advice.model.as_ref() && !self.advised.loads.contains(&unit)
        } else {
            let (ready, cold) = (self.ready.as_ref(), self.advised.cold);
            advice.model.as_ref().map_or(cold, |model| ready == Some(model) && !cold)
        };
        // The newest word counts, also one that takes the last one back.
        if is_so {
            self.advised.pending.remove(&unit);
        } else {
            self.advised.pending.insert(unit, advice);
        }
    }

    /// Follows what was advised, once no job is in the way.
    pub(crate) fn follow_advice(&mut self) {
        let held = self.pace.borrow().held;
        if held || self.finishing || self.ready.is_none() || self.session.is_none() {
            return;
        }
        let units: Vec<UnitId> = self.advised.pending.keys().flatten().copied().collect();
        for unit in units {
            self.follow_for(unit);
        }
        if self.jobs.values().any(|job| job.shown.stage != Stage::Sending) {
            return;
        }
        let Some(advice) = self.advised.pending.remove(&None) else { return };
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
                let _ = inside.send(Inside::Unloaded(None, loaded.unload().await)).await;
            });
            self.units.unloaded(None);
            self.advised.cold = true;
        }
        self.advised.followed = Some(advice);
    }

    /// Follows what was advised for a unit, once none of its jobs is in the way; others go on.
    fn follow_for(&mut self, unit: UnitId) {
        let Some(place) = self.units.place(unit) else { return };
        let computes =
            |job: &Job| job.shown.stage != Stage::Sending && job.place.is_none_or(|at| at == place);
        if self.advised.loads.contains(&unit) || self.jobs.values().any(computes) {
            return;
        }
        let Some(advice) = self.advised.pending.remove(&Some(unit)) else { return };
        let (loaded, inside) = (self.loaded.clone(), self.inside.clone());
        if let Some(model) = &advice.model {
            let models = &self.config.models;
            let Some(next) = models.iter().find(|known| known.id == *model).cloned() else {
                return;
            };
            tracing::info!(model.id = %model, unit = unit.0, "loading {model}: {} jobs wait for it", advice.waiting);
            self.tasks.spawn(async move {
                let result = loaded.load_at(place, &next).await;
                let _ = inside.send(Inside::LoadedAt(unit, next, result)).await;
            });
        } else {
            tracing::info!(unit = unit.0, "nobody asked for its model lately; it is unloaded");
            self.tasks.spawn(async move {
                let unloaded = loaded.unload_at(place).await;
                let _ = inside.send(Inside::Unloaded(Some(unit), unloaded)).await;
            });
        }
        self.units.unloaded(Some(place));
        self.advised.loads.insert(unit);
        self.advised.followed = Some(advice);
    }

    /// The engine holds no model any more, or could not be told so: then it is as before.
    pub(crate) fn on_unloaded(&mut self, unit: Option<UnitId>, unloaded: bool) {
        if let Some(unit) = unit {
            return self.advised.done(unit);
        }
        if !unloaded {
            self.advised.loaded();
        }
    }
}
