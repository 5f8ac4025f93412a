//! Loading of language models.

use std::time::Instant;

use neurino_llm::LlmError;
use neurino_llm::chat::ChatTemplate;
use neurino_llm::checkpoint::Precision;
use neurino_llm::model::LanguageModel;
use neurino_llm::models::decoder::Placement;
use neurino_llm::serving::ServingLimits;
use neurino_llm::source::{ModelArch, ModelSource};
use neurino_llm::tokenizer::Tokenizer;

use super::{Loaded, Progress, Worker, stopped};
use crate::api::{EngineError, EngineErrorCode, LoadedModel, MemoryUse, ModelRef};
use crate::device::OpenDevice;
use crate::fault::{self, guarded_on_device};
use crate::memory::{self, MemoryPlan, Verdict};
use crate::served::Served;
use crate::serving::{Parts, Serving, Steps, smaller};
use crate::warm_up::{WarmShapes, prove_choices, tell_products, warm_up};

impl Worker {
    /// Loads a language model as planned; with 4-bit weights where memory turns out to be too short for
    /// that.
    pub(super) fn read_text(&self, reference: &ModelRef) -> Result<Loaded, EngineError> {
        let source = ModelSource::open(&reference.path).map_err(unreadable)?;
        let memories: Vec<_> = self.devices.iter().map(OpenDevice::memory).collect();
        let chosen = reference.precision.map(Precision::of_choice);
        let plan = match chosen {
            Some(precision) => memory::plan_as(&source, &memories, precision),
            None => memory::plan(&source, &memories),
        };
        let plan = plan.checked()?;
        let read = |plan: &MemoryPlan| {
            let read = || self.read_text_as(reference, &source, plan);
            guarded_on_device("loading the model", read).flatten()
        };
        let error = match read(&plan) {
            Err(error) if error.code == EngineErrorCode::OutOfMemory && chosen.is_none() => error,
            other => return other,
        };
        self.clean_up();
        let least = memory::plan_as(&source, &memories, Precision::FourBit);
        if least.verdict != Verdict::Fits || least.weights_bytes >= plan.weights_bytes / 10 * 9 {
            return Err(error);
        }
        tracing::warn!("loading the model with 4-bit weights: {error}");
        read(&least)
    }

    fn read_text_as(
        &self,
        reference: &ModelRef,
        source: &ModelSource,
        plan: &MemoryPlan,
    ) -> Result<Loaded, EngineError> {
        let started = Instant::now();
        let tokenizer = Tokenizer::of_model(source).map_err(unreadable)?;
        let template = ChatTemplate::open(source, &tokenizer).map_err(unreadable)?;
        let before = self.used_bytes();
        let progress = |done_bytes, total_bytes| {
            self.progress(reference, Progress { done_bytes, total_bytes, warm_percent: 0 });
        };
        let unwanted = || self.queue.borrow().has_unload() || self.end.is_cancelled();
        let model = self.weights(source, plan, &progress, &unwanted)?;
        let all = source.weights_bytes();
        let go_on = |done: usize, of: usize| {
            let warm_percent = u8::try_from(done * 100 / of.max(1)).unwrap_or(100);
            let progress = Progress { done_bytes: all, total_bytes: all, warm_percent };
            self.progress(reference, progress);
            !unwanted()
        };
        let (context_tokens, weights_bytes) = (model.context_tokens(), model.weights_bytes());
        let kind = format!(
            "{:?} {:?} {} {:?} {:?} {:?}",
            source.arch,
            source.config,
            source.storage(),
            plan.precision,
            plan.devices,
            plan.runs
        );
        let warm = WarmShapes::new(self.warming.warmed.clone(), &kind);
        let parts = (model, tokenizer, template);
        let serving = self.serve(parts, plan.limits(), &warm, &go_on)?;
        let used = self.used_bytes();
        let measured_bytes = used.zip(before).map(|(used, before)| used.saturating_sub(before));
        let facts = LoadedModel {
            id: reference.id.clone(),
            arch: arch_name(source.arch).into(),
            device: self.device_name(plan),
            context_tokens: u32::try_from(context_tokens).unwrap_or(u32::MAX),
            slots: serving.slots(),
            weights_bytes,
            memory: MemoryUse {
                planned_bytes: plan.total_bytes(),
                measured_bytes,
                cache_bytes: serving.cache_bytes(),
            },
            load_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            pictures: None,
        };
        log(plan, &facts);
        let serving = Served::Text(Box::new(serving));
        let device = plan.devices.first().copied().unwrap_or(0);
        Ok(Loaded { reference: reference.clone(), facts, serving, device })
    }

    fn weights(
        &self,
        source: &ModelSource,
        plan: &MemoryPlan,
        progress: &dyn Fn(u64, u64),
        unwanted: &dyn Fn() -> bool,
    ) -> Result<LanguageModel, EngineError> {
        let used: Vec<_> = self.used(plan).collect();
        let stores = used.first().map(|open| open.stores.clone()).unwrap_or_default();
        let runs = used.iter().zip(&plan.runs);
        let placement =
            Placement::new(runs.map(|(d, run)| (d.device.clone(), run.clone())).collect())
                .ok_or_else(|| EngineError::internal("the plan leaves layers out"))?;
        LanguageModel::load_over(source, &placement, plan.precision, progress, unwanted)
            .map(|model| model.with_stores(stores.clone()))
            .map_err(|error| if unwanted() { stopped() } else { unloadable(&error) })
    }

    /// Warms a model up and gives it its cache, within `limits`; where the device turns out to have less
    /// memory than was planned, with a smaller cache and fewer rows in a step.
    fn serve(
        &self,
        (model, tokenizer, template): Parts,
        mut limits: ServingLimits,
        warm: &WarmShapes,
        go_on: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Serving, EngineError> {
        let steps = if self.devices[0].is_cpu() { Steps::AsTheyCome } else { Steps::InShapes };
        let chooses = prove_choices(&model).or_else(|lack| {
            tracing::warn!("the card's choices are checked once more: {lack}");
            self.clean_up();
            prove_choices(&model).map_err(|lack| no_room(&lack))
        })?;
        let model = if chooses { model } else { model.drawing_on_host() };
        tell_products();
        loop {
            let ready = guarded_on_device("the warm-up", || {
                let warm = (steps, warm);
                if !warm_up(&model, &limits, warm, go_on).map_err(|error| unloadable(&error))? {
                    return Err(stopped());
                }
                let cache = model.new_cache(limits.n_blocks);
                // A card may say only now that it lacks the memory.
                model.settle().map_err(|error| unloadable(&error))?;
                Ok(cache)
            });
            let error = match ready.flatten() {
                Ok(cache) => {
                    let parts = (model, tokenizer, template);
                    return Serving::with_cache(parts, limits, steps, cache);
                }
                Err(error) => error,
            };
            let lacks_memory = error.code == EngineErrorCode::OutOfMemory;
            if !lacks_memory {
                return Err(error);
            }
            let Some(less) = smaller(&limits) else { return Err(no_room(&error)) };
            tracing::warn!(blocks = less.n_blocks, rows = less.rows_per_step, "{error}");
            limits = less;
            self.clean_up();
        }
    }

    fn device_name(&self, plan: &MemoryPlan) -> String {
        self.used(plan).map(|open| &*open.name).collect::<Vec<_>>().join(" and ")
    }

    /// The devices of a plan.
    fn used(&self, plan: &MemoryPlan) -> impl Iterator<Item = &OpenDevice> {
        plan.devices.iter().filter_map(|&index| self.devices.get(index))
    }
}

/// There was memory for the weights, and then not even for the smallest cache.
fn no_room(error: &EngineError) -> EngineError {
    let message = format!(
        "the weights fit, but there is no memory left to answer with ({error}); close other programs, \
         or choose a smaller model"
    );
    EngineError::new(EngineErrorCode::OutOfMemory, message)
}

fn log(plan: &MemoryPlan, facts: &LoadedModel) {
    let planned = plan.total_bytes();
    let error = facts.memory.measured_bytes.map(|m| m as f64 / planned.max(1) as f64 - 1.0);
    tracing::info!(
        planned_bytes = planned,
        weights_bytes = facts.weights_bytes,
        planned_weights_bytes = plan.weights_bytes,
        measured_bytes = facts.memory.measured_bytes,
        plan_error = error,
        cache_bytes = facts.memory.cache_bytes,
        planned_cache_bytes = plan.cache_bytes(),
        "the model is loaded"
    );
}

fn arch_name(arch: ModelArch) -> &'static str {
    match arch {
        ModelArch::Llama => "llama",
        ModelArch::Mistral => "mistral",
        ModelArch::Mixtral => "mixtral",
    }
}

fn unreadable(error: impl std::error::Error) -> EngineError {
    EngineError::new(EngineErrorCode::ModelUnreadable, fault::chain(&error))
}

/// Why the weights did not get onto the device: the device, or else the files.
fn unloadable(error: &LlmError) -> EngineError {
    let of_device = fault::from_model(error, fault::chain(error));
    if of_device.code == EngineErrorCode::Internal { unreadable(error) } else { of_device }
}
