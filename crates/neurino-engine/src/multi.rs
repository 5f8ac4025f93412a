//! Several engines as one: each holds a model of its own, on a device of its own.
//!
//! A node with two cards serves two models, one on each. Its first engine has all cards, the others
//! have one of the further cards each. So the first model is kept as a single engine keeps it: on
//! the first card, or split over several if that does not hold it (see [`crate::memory::plan`]); and a
//! second one finds what is left. Engines may be kept for text or for pictures: then a model goes only
//! where its kind is computed.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use neurino_core::{JobKind, JobSpec, ModelId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{
    Engine, EngineCounters, EngineError, EngineErrorCode, EngineStatus, JobStream, LoadedModel,
    ModelRef, PlaceCards,
};

/// What an engine is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// Models that write.
    pub text: bool,
    /// Models that make pictures.
    pub pictures: bool,
}

impl Serves {
    /// Everything.
    pub const BOTH: Self = Self { text: true, pictures: true };

    /// Whether models of this kind are computed.
    pub fn kind(self, kind: JobKind) -> bool {
        match kind {
            JobKind::Text => self.text,
            JobKind::Image => self.pictures,
        }
    }
}

/// Tells what a model makes; `None` where nobody knows.
pub type KindOf = Box<dyn Fn(&ModelId) -> Option<JobKind> + Send + Sync>;

/// Engines that share the work by model.
pub struct MultiEngine {
    engines: Vec<Arc<dyn Engine>>,
    serves: Vec<Serves>,
    kind_of: KindOf,
    /// Of each engine; empty where nobody said.
    cards: Vec<PlaceCards>,
    /// Which engine holds, or was last told to load, which model.
    places: Mutex<Places>,
    status: Arc<watch::Sender<EngineStatus>>,
    /// What each engine does.
    all: Vec<watch::Receiver<EngineStatus>>,
}

#[derive(Debug, Default)]
struct Places {
    /// By engine: the model, and when it was last asked for.
    held: Vec<Option<(ModelRef, u64)>>,
    time: u64,
}

impl Places {
    /// The engine that has the model, or the one of those that `may` have it to give it to: the first
    /// free one, or the one whose model was not asked for the longest.
    fn place(&mut self, model: &ModelRef, may: impl Fn(usize) -> bool) -> Option<usize> {
        self.time += 1;
        let holds = |held: &Option<(ModelRef, u64)>| held.as_ref().is_some_and(|(m, _)| m == model);
        let age = |held: &Option<(ModelRef, u64)>| held.as_ref().map_or(0, |(_, asked)| *asked);
        let found = self.held.iter().position(holds);
        let able = self.held.iter().enumerate().filter(|(index, _)| may(*index));
        let oldest = able.min_by_key(|(_, held)| age(held));
        let index = found.or(oldest.map(|(index, _)| index))?;
        self.held[index] = Some((model.clone(), self.time));
        Some(index)
    }

    /// Gives the model to the first engine without one of those that `may` have it.
    fn free_place(&mut self, model: &ModelRef, may: impl Fn(usize) -> bool) -> Option<usize> {
        let free = self.held.iter().enumerate();
        let (index, _) = free.into_iter().find(|(index, held)| held.is_none() && may(*index))?;
        self.put(index, model);
        Some(index)
    }

    /// Gives a place to a model.
    fn put(&mut self, place: usize, model: &ModelRef) {
        self.time += 1;
        self.held[place] = Some((model.clone(), self.time));
    }

    /// Whether a place is a model's, which is asked for now.
    fn holds(&mut self, place: usize, model: &ModelId) -> bool {
        self.time += 1;
        let time = self.time;
        let held = self.held.get_mut(place).and_then(Option::as_mut);
        let held = held.filter(|(held, _)| held.id == *model);
        held.map(|(_, asked)| *asked = time).is_some()
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
    /// Shares the work among `engines`, best first. Must not be empty, and be called inside a tokio
    /// runtime.
    ///
    /// The first may have the devices of the others, too: what no engine has memory for beside the
    /// others' models is loaded into the first alone.
    pub fn new(engines: Vec<Arc<dyn Engine>>) -> Self {
        let all = engines.into_iter().map(|engine| (engine, Serves::BOTH)).collect();
        Self::with_roles(all, Box::new(|_| None))
    }

    /// As [`MultiEngine::new`], with what each engine is kept for. A model whose kind no engine serves
    /// is refused; one whose kind is not known goes anywhere.
    pub fn with_roles(engines: Vec<(Arc<dyn Engine>, Serves)>, kind_of: KindOf) -> Self {
        let (engines, serves): (Vec<_>, Vec<_>) = engines.into_iter().unzip();
        let held = std::iter::repeat_with(|| None).take(engines.len()).collect();
        let places = Mutex::new(Places { held, time: 0 });
        let status = Arc::new(watch::Sender::new(EngineStatus::Idle));
        let all: Vec<_> = engines.iter().map(|engine| engine.status()).collect();
        for (index, mut one) in all.clone().into_iter().enumerate() {
            let (all, status) = (all.clone(), Arc::clone(&status));
            // Ends with the engine.
            tokio::spawn(async move {
                while one.changed().await.is_ok() {
                    tell(&status, &all, index);
                }
            });
        }
        Self { engines, serves, kind_of, cards: Vec::new(), places, status, all }
    }

    /// The same, with the cards of each engine, in their order.
    #[must_use]
    pub fn on_cards(self, cards: Vec<PlaceCards>) -> Self {
        let named = cards.len() == self.engines.len() && cards.iter().all(|of| !of.0.is_empty());
        Self { cards: if named { cards } else { Vec::new() }, ..self }
    }

    /// What each engine does.
    pub fn statuses(&self) -> Vec<EngineStatus> {
        self.all.iter().map(|status| status.borrow().clone()).collect()
    }

    /// A place for the model, which is then its.
    ///
    /// # Errors
    /// `NoSuchDevice` where none is kept for its kind.
    fn place(&self, model: &ModelRef) -> Result<usize, EngineError> {
        let index = self.held().place(model, |index| self.fits_place(&model.id, index));
        index.ok_or_else(|| {
            let message = format!("no card is kept for the kind of model that `{}` is", model.id);
            EngineError::new(EngineErrorCode::NoSuchDevice, message)
        })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether two engines compute on the same card, as far as is known.
    fn shares_card(&self, one: usize, other: usize) -> bool {
        let cards = |index: usize| self.cards.get(index).map_or(&[][..], |cards| &cards.0);
        cards(one).iter().any(|card| cards(other).contains(card) && !card.instance)
    }

    async fn load_into(&self, index: usize, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let loaded = self.engines[index].load(model).await;
        if loaded.is_err() {
            let mut places = self.held();
            let held = &mut places.held[index];
            if held.as_ref().is_some_and(|(m, _)| m == model) {
                *held = None;
            }
        }
        tell(&self.status, &self.all, index);
        loaded
    }
}

/// Unloads engines at the same time.
///
/// # Errors
/// One of theirs, after all have answered.
async fn unload_all<'a>(
    engines: impl IntoIterator<Item = &'a Arc<dyn Engine>>,
) -> Result<(), EngineError> {
    let unload = |engine: &Arc<dyn Engine>| {
        let engine = Arc::clone(engine);
        async move { engine.unload().await }
    };
    let mut unloads: JoinSet<_> = engines.into_iter().map(unload).collect();
    let mut worst = Ok(());
    while let Some(unloaded) = unloads.join_next().await {
        let failed = |error| Err(EngineError::internal(format!("an unload ended: {error}")));
        worst = worst.and(unloaded.unwrap_or_else(failed));
    }
    worst
}

/// Publishes what all engines do as what one does, after a change of `index`: what delays jobs
/// first, then what was news last.
fn tell(status: &watch::Sender<EngineStatus>, all: &[watch::Receiver<EngineStatus>], index: usize) {
    let now: Vec<EngineStatus> = all.iter().map(|one| one.borrow().clone()).collect();
    let rank = |status: &EngineStatus| match status {
        EngineStatus::Restarting { .. } => 0,
        EngineStatus::Loading { .. } => 1,
        EngineStatus::Ready(_) => 2,
        EngineStatus::Idle => 3,
    };
    let first = (0..now.len()).min_by_key(|&i| (rank(&now[i]), i != index));
    if let Some(first) = first {
        status.send_if_modified(|told| {
            let news = *told != now[first];
            told.clone_from(&now[first]);
            news
        });
    }
}

#[async_trait]
impl Engine for MultiEngine {
    /// Loads a model into a free engine of those that are kept for its kind; if there is none, in place
    /// of the model that was not asked for the longest. Where memory is lacking, the other free ones are
    /// asked; then all others of these engines make way and the first of them tries.
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let index = self.place(model)?;
        let first = (0..self.engines.len()).find(|&index| self.fits_place(&model.id, index));
        let lacks = |loaded: &Result<_, EngineError>| matches!(loaded, Err(error) if error.code == EngineErrorCode::OutOfMemory);
        let mut loaded = self.load_into(index, model).await;
        let mut asked = vec![index];
        while lacks(&loaded) {
            let may = |index: usize| !asked.contains(&index) && self.fits_place(&model.id, index);
            let Some(next) = self.held().free_place(model, may) else { break };
            let beside = self.load_into(next, model).await;
            asked.push(next);
            // The first, which may have the cards of all, knows best what is lacking.
            if !lacks(&beside) {
                loaded = beside;
            }
        }
        let lacks_memory = lacks(&loaded);
        // Cards that are kept for another kind would not get this model anyway: theirs stays.
        let may: Vec<usize> =
            (0..self.engines.len()).filter(|&index| self.fits_place(&model.id, index)).collect();
        let others = may.iter().any(|&index| self.held().held[index].is_some());
        if !lacks_memory || (Some(index) == first && !others) {
            return loaded;
        }
        tracing::info!(model.id = %model.id, "the other models make way");
        let unloaded = unload_all(may.iter().map(|&index| &self.engines[index])).await;
        for index in may {
            self.held().held[index] = None;
            tell(&self.status, &self.all, index);
        }
        unloaded?;
        let index = self.place(model)?;
        self.load_into(index, model).await
    }

    fn place_cards(&self) -> Vec<PlaceCards> {
        self.cards.clone()
    }

    /// Where the memory of several cards is lacking because others hold models there, these make way.
    async fn load_at(&self, place: usize, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        if !self.fits_place(&model.id, place) {
            let message =
                format!("this card is not kept for the kind of model that `{}` is", model.id);
            return Err(EngineError::new(EngineErrorCode::NoSuchDevice, message));
        }
        self.held().put(place, model);
        let loaded = self.load_into(place, model).await;
        let lacks_memory =
            matches!(&loaded, Err(error) if error.code == EngineErrorCode::OutOfMemory);
        let others: Vec<usize> = (0..self.engines.len())
            .filter(|&other| other != place && self.shares_card(place, other))
            .filter(|&other| self.held().held[other].is_some())
            .collect();
        if !lacks_memory || others.is_empty() {
            return loaded;
        }
        tracing::info!(model.id = %model.id, "the models on its other cards make way");
        let unloaded = unload_all(others.iter().map(|&index| &self.engines[index])).await;
        for index in others {
            self.held().held[index] = None;
            tell(&self.status, &self.all, index);
        }
        unloaded?;
        self.held().put(place, model);
        self.load_into(place, model).await
    }

    async fn run_at(
        &self,
        place: usize,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        if !self.held().holds(place, job.model()) {
            return Err(EngineError::not_loaded(job.model()));
        }
        self.engines[place].run(job, cancel).await
    }

    async fn unload_at(&self, place: usize) -> Result<(), EngineError> {
        let Some(engine) = self.engines.get(place) else { return Ok(()) };
        let unloaded = unload_all([engine]).await;
        self.held().held[place] = None;
        tell(&self.status, &self.all, place);
        unloaded
    }

    fn fits_place(&self, model: &ModelId, place: usize) -> bool {
        let Some(kind) = (self.kind_of)(model) else { return place < self.serves.len() };
        self.serves.get(place).is_some_and(|serves| serves.kind(kind))
    }

    async fn run(
        &self,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let index = self.held().of(job.model());
        let index = index.ok_or_else(|| EngineError::not_loaded(job.model()))?;
        self.engines[index].run(job, cancel).await
    }

    async fn unload(&self) -> Result<(), EngineError> {
        // Each may take as long as a process takes to end.
        let worst = unload_all(&self.engines).await;
        self.held().held.fill(None);
        tell(&self.status, &self.all, 0);
        worst
    }

    fn places(&self) -> usize {
        self.engines.len()
    }

    fn process_ids(&self) -> Vec<u32> {
        self.engines.iter().flat_map(|engine| engine.process_ids()).collect()
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::api::DeviceChoice;
    use crate::device;
    use crate::local::LocalEngine;
    use crate::stand_in::{ending, job, model};
    use crate::worker::Faults;

    fn named(name: &str) -> ModelRef {
        ModelRef { id: ModelId::new(name).unwrap(), ..model() }
    }

    #[tokio::test]
    async fn a_model_that_finds_no_memory_beside_others_has_the_first_engine_for_itself() {
        let first = Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap());
        let small = vec![device::small_cpu(1 << 20)];
        let second = Arc::new(LocalEngine::start_on(small, Faults::Reload).unwrap());
        let both = MultiEngine::new(vec![first, second]);
        both.load(&named("one")).await.unwrap();
        let facts = both.load(&named("two")).await.unwrap();
        assert_eq!(both.statuses(), [EngineStatus::Ready(facts), EngineStatus::Idle]);
        let JobSpec::Text(mut two) = job(5) else { unreachable!("a text job") };
        two.model = named("two").id;
        let stream = both.run(&JobSpec::Text(two), CancellationToken::new()).await.unwrap();
        ending(stream).await.unwrap();
        let error = both.run(&job(5), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
    }

    #[tokio::test]
    async fn an_engine_without_memory_for_a_model_leaves_it_to_a_free_one() {
        let small = vec![device::small_cpu(1 << 20)];
        let first = Arc::new(LocalEngine::start_on(small, Faults::Reload).unwrap());
        let second = Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap());
        let both = MultiEngine::new(vec![first, second]);
        let facts = both.load(&named("one")).await.unwrap();
        assert_eq!(both.statuses(), [EngineStatus::Idle, EngineStatus::Ready(facts)]);
        let JobSpec::Text(mut one) = job(5) else { unreachable!("a text job") };
        one.model = named("one").id;
        let stream = both.run(&JobSpec::Text(one), CancellationToken::new()).await.unwrap();
        ending(stream).await.unwrap();
    }

    /// An engine that takes its time to unload.
    struct Slow(watch::Sender<EngineStatus>);

    const UNLOAD: std::time::Duration = std::time::Duration::from_secs(1);

    #[async_trait]
    impl Engine for Slow {
        async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
            Err(EngineError::not_loaded(&model.id))
        }

        async fn run(
            &self,
            job: &JobSpec,
            _cancel: CancellationToken,
        ) -> Result<JobStream, EngineError> {
            Err(EngineError::not_loaded(job.model()))
        }

        async fn unload(&self) -> Result<(), EngineError> {
            tokio::time::sleep(UNLOAD).await;
            Ok(())
        }

        fn status(&self) -> watch::Receiver<EngineStatus> {
            self.0.subscribe()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cards_are_freed_at_the_same_time() {
        let slow = || -> Arc<dyn Engine> { Arc::new(Slow(watch::Sender::new(EngineStatus::Idle))) };
        let engines = MultiEngine::new(vec![slow(), slow(), slow()]);
        let started = tokio::time::Instant::now();
        engines.unload().await.unwrap();
        assert_eq!(started.elapsed(), UNLOAD);
    }

    #[tokio::test]
    async fn models_go_only_where_their_kind_is_computed() {
        let engine =
            || -> Arc<dyn Engine> { Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap()) };
        let text = Serves { text: true, pictures: false };
        let pictures = Serves { text: false, pictures: true };
        // The stand-in model writes; told to be a picture model, it goes to the other engine.
        let kind_of = |model: &ModelId| match model.as_str() {
            "one" | "two" => Some(JobKind::Text),
            "three" => Some(JobKind::Image),
            _ => None,
        };
        let engines = vec![(engine(), pictures), (engine(), text)];
        let both = MultiEngine::with_roles(engines, Box::new(kind_of));
        let held = || {
            let names = both.statuses().into_iter().map(|status| match status {
                EngineStatus::Ready(model) => model.id.to_string(),
                _ => String::new(),
            });
            names.collect::<Vec<_>>()
        };
        both.load(&named("one")).await.unwrap();
        assert_eq!(held(), ["", "one"]);
        both.load(&named("two")).await.unwrap();
        assert_eq!(held(), ["", "two"], "the free place is not for text");
        both.load(&named("three")).await.unwrap();
        assert_eq!(held(), ["three", "two"]);

        let only = MultiEngine::with_roles(vec![(engine(), pictures)], Box::new(kind_of));
        let error = only.load(&named("one")).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::NoSuchDevice);
    }

    #[tokio::test]
    async fn a_text_model_that_is_too_large_leaves_the_card_for_pictures_alone() {
        let small = vec![device::small_cpu(1 << 20)];
        let text = Serves { text: true, pictures: false };
        let pictures = Serves { text: false, pictures: true };
        let kind_of = |model: &ModelId| match model.as_str() {
            "large" => Some(JobKind::Text),
            _ => Some(JobKind::Image),
        };
        let engines: Vec<(Arc<dyn Engine>, Serves)> = vec![
            (Arc::new(LocalEngine::start_on(small, Faults::Reload).unwrap()), text),
            (Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap()), pictures),
        ];
        let both = MultiEngine::with_roles(engines, Box::new(kind_of));
        let facts = both.load(&named("picture")).await.unwrap();
        let error = both.load(&named("large")).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::OutOfMemory);
        assert_eq!(both.statuses(), [EngineStatus::Idle, EngineStatus::Ready(facts)]);
    }

    #[tokio::test]
    async fn what_an_engine_does_by_itself_is_told() {
        let engine = || Arc::new(LocalEngine::start(DeviceChoice::Cpu).unwrap());
        let (first, second) = (engine(), engine());
        let both = MultiEngine::new(vec![first, Arc::clone(&second) as Arc<dyn Engine>]);
        let mut status = both.status();
        let facts = second.load(&model()).await.unwrap();
        let ready = EngineStatus::Ready(facts);
        status.wait_for(|told| *told == ready).await.unwrap();
        second.unload().await.unwrap();
        status.wait_for(|told| *told == EngineStatus::Idle).await.unwrap();
    }
}
