//! Processors that stand in for cards, and stores that watch their steps and fail when told to: for
//! tests of what happens on cards.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use neurino_core::{ChatMessage, JobOutput, JobSpec, ModelId, Role, TextJob};
use neurino_llm::models::decoder::Stores;
use neurino_nn::NnError;
use neurino_nn::paged::{BatchLayout, KvShape, KvStore, store_on};
use neurino_nn::rotary::RotaryTables;

use crate::api::{EngineError, JobEvent, JobStream, ModelRef};
use crate::device::{self, OpenDevice};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// What stand-in cards have: plenty.
const CARD_BYTES: u64 = 8 << 30;

/// A fault below the engine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Steps on caches of more blocks fail with an error of the device.
    ErrorAbove(usize),
    /// Steps on caches of more blocks panic, as a lack of memory does in a driver's binding.
    PanicAbove(usize),
    /// Caches of more blocks are not to be had, and one step fails.
    NoCacheAbove(usize),
    /// Steps of more rows panic for a lack of memory.
    RowsAbove(usize),
    /// The context is lost in the step so many steps from now, once; counted in caches of jobs, not
    /// of the warm-up. It shows as an error, as the runtime of cards tells it, or as a panic.
    Lost {
        /// Steps that pass.
        after: usize,
        /// How it shows.
        panics: bool,
    },
    /// Steps of the warm-up panic, as a kernel does that reads beside its memory.
    WarmUpPanics,
    /// Caches of jobs cannot be freed.
    FreeingPanics,
}

/// Sees what reaches the stores of a device.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: Vec<BatchLayout>,
    /// Blocks of each cache that was made.
    caches: Vec<usize>,
    fault: Option<Fault>,
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// The steps since the last call.
    pub(crate) fn take_steps(&self) -> Vec<BatchLayout> {
        std::mem::take(&mut self.state().steps)
    }

    /// Blocks of the caches since the start.
    pub(crate) fn caches(&self) -> Vec<usize> {
        self.state().caches.clone()
    }

    fn stores(self: &Arc<Self>) -> Stores {
        let watch = Arc::clone(self);
        Stores::new(move |device, shape| watch.store(device, shape))
    }

    /// A processor that is treated as a card.
    pub(crate) fn card(self: &Arc<Self>) -> OpenDevice {
        device::stand_in_card(CARD_BYTES, self.stores())
    }

    /// The processor as it is.
    pub(crate) fn cpu(self: &Arc<Self>) -> OpenDevice {
        device::cpu_with(self.stores())
    }

    fn store(self: &Arc<Self>, device: &Device, shape: &KvShape) -> Box<dyn KvStore> {
        let n_blocks = shape.n_blocks;
        {
            let mut state = self.state();
            if let Some(Fault::NoCacheAbove(most)) = state.fault
                && n_blocks > most
            {
                drop(state);
                panic!("CUDA_ERROR_OUT_OF_MEMORY: out of memory");
            }
            state.caches.push(n_blocks);
        }
        Box::new(Watched { store: store_on(device, shape), n_blocks, watch: Arc::clone(self) })
    }

    fn step(&self, batch: &BatchLayout, n_blocks: usize) -> Result<(), NnError> {
        let mut state = self.state();
        state.steps.push(batch.clone());
        // The caches of jobs are the larger ones.
        let serves = n_blocks > WARM_UP_BLOCKS_MAX;
        let words = "CUDA_ERROR_OUT_OF_MEMORY: out of memory";
        match &mut state.fault {
            Some(Fault::ErrorAbove(most) | Fault::NoCacheAbove(most)) if n_blocks > *most => {
                Err(NnError::Device { reason: words.into() })
            }
            Some(Fault::PanicAbove(most)) if n_blocks > *most => {
                drop(state);
                panic!("{words}")
            }
            Some(Fault::RowsAbove(most)) if batch.rows() > *most => {
                drop(state);
                panic!("{words}")
            }
            Some(Fault::WarmUpPanics) if !serves => {
                drop(state);
                panic!("The device is poisoned");
            }
            Some(Fault::Lost { after: 0, panics }) if serves => {
                let panics = *panics;
                state.fault = None;
                drop(state);
                let words =
                    "The device is poisoned\nCaused by:\n  an illegal address\nBacktrace:\n 0:";
                assert!(!panics, "{words}");
                Err(NnError::Device { reason: words.into() })
            }
            Some(Fault::Lost { after, .. }) if serves => {
                *after -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// More than a warm-up's cache has, and fewer than one for jobs.
const WARM_UP_BLOCKS_MAX: usize = 1024;

#[derive(Debug)]
struct Watched {
    store: Box<dyn KvStore>,
    n_blocks: usize,
    watch: Arc<Watch>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let fails = matches!(self.watch.state().fault, Some(Fault::FreeingPanics));
        let serves = self.n_blocks > WARM_UP_BLOCKS_MAX;
        assert!(!fails || !serves || std::thread::panicking(), "The device is poisoned");
    }
}

impl KvStore for Watched {
    fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError> {
        self.watch.step(batch, self.n_blocks)?;
        self.store.begin(batch)
    }

    fn write(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> Result<(), NnError> {
        self.store.write(layer, keys, values)
    }

    fn rotate_and_write(
        &mut self,
        layer: usize,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        rotations: &RotaryTables,
    ) -> Result<Tensor<3>, NnError> {
        self.store.rotate_and_write(layer, queries, keys, values, rotations)
    }

    fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError> {
        self.store.attend(layer, queries, window)
    }

    fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError> {
        self.store.copy_blocks(pairs)
    }
}

/// What users say whose jobs are not prepared for now.
static HELD: (Mutex<Vec<String>>, Condvar) = (Mutex::new(Vec::new()), Condvar::new());

fn held() -> MutexGuard<'static, Vec<String>> {
    HELD.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the preparation of jobs about `words` from coming to its end until it is dropped.
pub(crate) struct Held(String);

impl Held {
    pub(crate) fn new(words: &str) -> Self {
        held().push(words.into());
        Self(words.into())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        held().retain(|words| *words != self.0);
        HELD.1.notify_all();
    }
}

/// What a preparation does first.
pub(crate) fn wait_while_held(text: &TextJob) {
    let is_held = |held: &mut Vec<String>| {
        text.messages.iter().any(|message| held.contains(&message.content))
    };
    drop(HELD.1.wait_while(held(), is_held));
}

pub(crate) fn model() -> ModelRef {
    fixture("llama3")
}

/// A tiny model of an architecture.
pub(crate) fn fixture(name: &str) -> ModelRef {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm");
    ModelRef::new(ModelId::new("tiny").expect("an id"), folder.join(name))
}

/// Greedy on this model, it goes on for as long as it may.
pub(crate) fn job(max_tokens: u32) -> JobSpec {
    told("Once upon a time", max_tokens)
}

/// As [`job`], about something else.
pub(crate) fn told(words: &str, max_tokens: u32) -> JobSpec {
    let messages = vec![ChatMessage::new(Role::User, words)];
    let mut job = TextJob::new(model().id, messages, max_tokens);
    job.sampling.temperature = 0.0;
    JobSpec::Text(job)
}

async fn next(stream: &mut JobStream) -> JobEvent {
    let event = tokio::time::timeout(PATIENCE, stream.recv()).await.expect("the stream goes on");
    event.expect("a stream has an end")
}

/// Reads until the job certainly runs.
pub(crate) async fn until_running(stream: &mut JobStream) {
    while !matches!(next(stream).await, JobEvent::Delta { .. }) {}
}

/// How a job ended: with its text, or with an error.
pub(crate) async fn ending(mut stream: JobStream) -> Result<String, EngineError> {
    loop {
        match next(&mut stream).await {
            JobEvent::Finished { output: JobOutput::Text(text) } => return Ok(text.text().into()),
            JobEvent::Failed { error } => return Err(error),
            _ => {}
        }
    }
}
