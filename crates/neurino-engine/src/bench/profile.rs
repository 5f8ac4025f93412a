//! Where the time of a step goes. Told only where operations are done when they return, which is on a
//! CPU: elsewhere it would be the time to ask for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use burn::tensor::{DType, Tensor};
use neurino_llm::sampler::{Sampler, Scratch};
use neurino_llm::{LanguageModel, LlmError};
use neurino_nn::device::is_cpu;
use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, KvShape, KvStore, store_on};
use neurino_nn::rotary::RotaryTables;
use neurino_nn::{NnError, PagedKvCache};
use serde::Serialize;

use super::measure::Batch;
use super::{TextBenchOptions, token};

/// A part of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfilePart {
    /// What is done.
    pub part: &'static str,
    /// Its time in a step, in milliseconds.
    pub ms: f64,
    /// Its share of the step.
    pub share: f64,
}

/// The parts of a step that generates one token of one sequence. Nothing where it cannot be told.
pub(super) fn of_a_step(
    model: &LanguageModel,
    options: &TextBenchOptions,
) -> Result<Vec<ProfilePart>, LlmError> {
    if !is_cpu(model.device()) {
        return Ok(Vec::new());
    }
    let clocks = Arc::new(Clocks::default());
    let tokens = (options.prompt_tokens + options.new_tokens) as usize;
    let mut batch = Batch::over(model, timed_cache(model, tokens.div_ceil(BLOCK_TOKENS), &clocks));
    let prompt: Vec<u32> =
        (0..options.prompt_tokens).map(|n| token(n, model.vocab_size())).collect();
    batch.prefill(&prompt)?;
    clocks.reset();
    let steps = options.new_tokens.max(1);
    let started = Instant::now();
    for n in 0..steps {
        batch.decode(&[token(n, model.vocab_size())])?;
    }
    let per_step = |nanoseconds: u64| nanoseconds as f64 / 1e6 / f64::from(steps);
    let whole = per_step(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let (write, attend) = (per_step(clocks.write()), per_step(clocks.attend()));
    // The same without scores: what is missing is the head.
    batch.rewind(prompt.len());
    let started = Instant::now();
    for n in 0..steps {
        batch.advance(&[token(n, model.vocab_size())])?;
    }
    let headless = started.elapsed().as_secs_f64() * 1e3 / f64::from(steps);
    let head = (whole - headless).max(0.0);
    let layers = (whole - head - write - attend).max(0.0);
    let sampling = sampling_ms(model.vocab_size());
    let parts = [
        ("matrices and norms of the layers", layers),
        ("attention", attend),
        ("rotation and cache", write),
        ("head", head),
        ("sampling", sampling),
    ];
    let sum: f64 = parts.iter().map(|(_, ms)| ms).sum();
    Ok(parts.map(|(part, ms)| ProfilePart { part, ms, share: ms / sum }).to_vec())
}

/// Drawing one token with the usual parameters.
fn sampling_ms(vocab_size: usize) -> f64 {
    let sampler = Sampler::new(neurino_core::SamplingParams::default());
    let mut scratch = Scratch::default();
    let scores: Vec<f32> = (0..vocab_size).map(|n| ((n * 37 % 1009) as f32).sqrt()).collect();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let mut sampler = sampler.clone();
        let mut row = scores.clone();
        let started = Instant::now();
        std::hint::black_box(sampler.draw(&mut row, None, &mut scratch));
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
    }
    best
}

/// A cache of the usual stores, with clocks.
fn timed_cache(model: &LanguageModel, n_blocks: usize, clocks: &Arc<Clocks>) -> PagedKvCache {
    let config = model.config();
    let shape = |dtype| KvShape {
        n_layers: config.num_hidden_layers,
        n_kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        n_blocks,
        dtype,
    };
    let is_wide = shape(DType::F32).block_bytes() == model.block_bytes();
    let shape = shape(if is_wide { DType::F32 } else { DType::F16 });
    let inner = store_on(model.device(), &shape);
    let store: Box<dyn KvStore> = Box::new(TimedStore { inner, clocks: Arc::clone(clocks) });
    PagedKvCache::new(vec![(shape, store)])
}

/// Time inside a store, in nanoseconds.
#[derive(Debug, Default)]
struct Clocks {
    write: AtomicU64,
    attend: AtomicU64,
}

impl Clocks {
    fn write(&self) -> u64 {
        self.write.load(Ordering::Relaxed)
    }

    fn attend(&self) -> u64 {
        self.attend.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.write.store(0, Ordering::Relaxed);
        self.attend.store(0, Ordering::Relaxed);
    }
}

fn timed<T>(clock: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    clock.fetch_add(nanoseconds, Ordering::Relaxed);
    result
}

#[derive(Debug)]
struct TimedStore {
    inner: Box<dyn KvStore>,
    clocks: Arc<Clocks>,
}

impl KvStore for TimedStore {
    fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError> {
        timed(&self.clocks.write, || self.inner.begin(batch))
    }

    fn write(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> Result<(), NnError> {
        timed(&self.clocks.write, || self.inner.write(layer, keys, values))
    }

    fn rotate_and_write(
        &mut self,
        layer: usize,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        rotations: &RotaryTables,
    ) -> Result<Tensor<3>, NnError> {
        let inner = &mut self.inner;
        timed(&self.clocks.write, || {
            inner.rotate_and_write(layer, queries, keys, values, rotations)
        })
    }

    fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError> {
        timed(&self.clocks.attend, || self.inner.attend(layer, queries, window))
    }

    fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError> {
        self.inner.copy_blocks(pairs)
    }
}
