//! Several engines as one: each holds a model of its own, on a device of its own.
//!
//! A node with two cards serves two models, one on each; a model that one card does not hold is split
//! by a single engine over several instead, see [`crate::memory::plan`].

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use neurino_core::{JobSpec, ModelId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{
    Engine, EngineCounters, EngineError, EngineErrorCode, EngineStatus, JobStream, LoadedModel,
    ModelRef,
};

/// Engines that share the work by model.
pub struct MultiEngine {
    engines: Vec<Arc<dyn Engine>>,
    /// Which engine holds, or was last told to load, which model.
    places: Mutex<Places>,
    /// What the engine that last changed does.
    status: watch::Sender<EngineStatus>,
}

#[derive(Debug, Default)]
struct Places {
    /// By engine: the model, and when it was last asked for.
    held: Vec<Option<(ModelRef, u64)>>,
    time: u64,
}

impl Places {
    /// The engine that has the model, or the one to give it: a free one, or the one whose model was
    /// not asked for the longest.
    fn place(&mut self, model: &ModelRef) -> usize {
        self.time += 1;
        let holds = |held: &Option<(ModelRef, u64)>| held.as_ref().is_some_and(|(m, _)| m == model);
        let age = |held: &Option<(ModelRef, u64)>| held.as_ref().map_or(0, |(_, asked)| *asked);
        let found = self.held.iter().position(holds);
        let oldest = self.held.iter().enumerate().min_by_key(|(_, held)| age(held));
        let index = found.or(oldest.map(|(index, _)| index)).unwrap_or(0);
        if let Some(held) = self.held.get_mut(index) {
            *held = Some((model.clone(), self.time));
        }
        index
    }

    fn of(&mut self, model: &ModelId) -> Option<usize> {
        self.time += 1;
        let time = self.time;
        let holds =
            |held: &Option<(ModelRef, u64)>| held.as_ref().is_some_and(|(m, _)| m.id == *model);
        let index = self.held.iter().position(holds)?;
        if let Some((_, asked)) = &mut self.held[index] {
            *asked = time;
        }
        Some(index)
    }
}

impl MultiEngine {
    /// Shares the work among `engines`, best first. Must not be empty.
    pub fn new(engines: Vec<Arc<dyn Engine>>) -> Self {
        let held = std::iter::repeat_with(|| None).take(engines.len()).collect();
        let places = Mutex::new(Places { held, time: 0 });
        Self { engines, places, status: watch::Sender::new(EngineStatus::Idle) }
    }

    /// What each engine does.
    pub fn statuses(&self) -> Vec<EngineStatus> {
        self.engines.iter().map(|engine| engine.status().borrow().clone()).collect()
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, index: usize) {
        self.status.send_replace(self.engines[index].status().borrow().clone());
    }
}

#[async_trait]
impl Engine for MultiEngine {
    /// Loads a model into a free engine; if there is none, in place of the model that was not asked
    /// for the longest.
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let index = self.places().place(model);
        self.status.send_replace(EngineStatus::Loading {
            model: model.id.clone(),
            done_bytes: 0,
            total_bytes: 0,
            warm_percent: 0,
        });
        let loaded = self.engines[index].load(model).await;
        if loaded.is_err() {
            let mut places = self.places();
            let held = &mut places.held[index];
            if held.as_ref().is_some_and(|(m, _)| m == model) {
                *held = None;
            }
        }
        self.tell(index);
        loaded
    }

    async fn run(
        &self,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let index = self.places().of(job.model());
        let index = index.ok_or_else(|| EngineError::not_loaded(job.model()))?;
        self.engines[index].run(job, cancel).await
    }

    async fn unload(&self) -> Result<(), EngineError> {
        let mut worst = Ok(());
        for engine in &self.engines {
            let unloaded = engine.unload().await;
            worst = worst.and(unloaded);
        }
        self.places().held.fill(None);
        self.status.send_replace(EngineStatus::Idle);
        worst
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }

    /// The sums of all engines.
    async fn counters(&self) -> Result<EngineCounters, EngineError> {
        let mut sum = EngineCounters::default();
        for engine in &self.engines {
            let one = match engine.counters().await {
                Ok(one) => one,
                Err(error) if error.code == EngineErrorCode::Crashed => continue,
                Err(error) => return Err(error),
            };
            sum.jobs += one.jobs;
            sum.sequences_running += one.sequences_running;
            sum.sequences_waiting += one.sequences_waiting;
            sum.blocks_used += one.blocks_used;
            sum.blocks_cached += one.blocks_cached;
            sum.blocks_free += one.blocks_free;
            sum.prefix_hits += one.prefix_hits;
            sum.preemptions += one.preemptions;
            sum.steps += one.steps;
        }
        Ok(sum)
    }
}
