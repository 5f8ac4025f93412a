//! The jobs of a loaded image model: one picture at a time, one step of its noise schedule at a time; the
//! others wait in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use burn::tensor::Device;
use neurino_core::job::{ImageOutput, ImageStep};
use neurino_core::{ImageJob, JobOutput, JobSpec};
use neurino_diffusion::memory::{Fit, ImageMemory, usual_precision};
use neurino_diffusion::pipeline::{Denoising, Guidance, Pipeline, Plan, Residence};
use neurino_diffusion::pulse::Pulse;
use neurino_diffusion::{DiffusionError, ImageSource};
use neurino_nn::NnError;
use neurino_nn::device::is_cpu;

use crate::api::{EngineCounters, EngineError, EngineErrorCode};
use crate::fault::{self, guarded, guarded_on_device};
use crate::memory::DeviceMemory;
use crate::queue::{self, Job};
use crate::serving::Ended;
use crate::warm_pictures::{WarmPicture, Warmth};

mod warming;

/// Loads a model with its weights in another place; gives up once it is told that nobody wants it.
pub(crate) type LoadAs = Box<
    dyn Fn(
            &Arc<ImageSource>,
            Residence,
            &dyn Fn() -> bool,
        ) -> Result<Box<dyn Pipeline>, DiffusionError>
        + Send,
>;

/// Where the weights of a model may be.
pub(crate) struct Ways {
    /// From the quickest one that there is memory for to the cheapest; at least one.
    pub(crate) residences: Vec<Residence>,
    pub(crate) load_as: LoadAs,
    /// Memory of the machine itself that is free, in bytes.
    pub(crate) host_free_bytes: fn() -> u64,
}

/// Pictures after which a way is tried again that the device had no memory for; twice as many each time
/// that it had none again, up to a limit.
const PATIENCE: u32 = 8;
const PATIENCE_MAX: u32 = 256;
/// Memory beyond what there was then that is reason to try at once, in bytes.
const GROWN_BYTES: u64 = 512 << 20;

/// Ways that the device had no memory for, though they were planned.
#[derive(Debug, Clone, Copy)]
struct Lack {
    /// The cheapest of them; quicker ones are not taken either.
    residence: Residence,
    /// What there was for the model and a picture then, in bytes.
    room_bytes: u64,
    /// Pictures that are still made another way.
    pictures: u32,
}

/// An image model that serves.
pub(crate) struct Pictures {
    /// `None` after it could not be loaded to another place.
    pipeline: Option<Box<dyn Pipeline>>,
    residence: Residence,
    ways: Ways,
    lack: Option<Lack>,
    /// How long the next lack lasts, in pictures.
    patience: u32,
    /// What there was for the model and the picture when that was planned, in bytes.
    room_bytes: u64,
    /// Whether the next picture is one that is begun again.
    again: bool,
    memory: ImageMemory,
    source: Arc<ImageSource>,
    device: Device,
    /// What the model's networks beat with.
    pulse: Pulse,
    /// The picture that is being made.
    running: Option<Running>,
    /// Jobs whose turn comes, the next one first.
    waiting: VecDeque<Waiting>,
    /// What was warmed up of the model, and the picture that it is usually asked for; on a processor, which
    /// has nothing to warm up, `None`.
    warmth: Option<(Warmth, WarmPicture)>,
}

struct Waiting {
    picture: ImageJob,
    job: Job,
    /// Whether it was told that it begins.
    told: bool,
}

struct Running {
    picture: ImageJob,
    job: Job,
    plan: Plan,
    denoising: Box<dyn Denoising>,
}

impl Pictures {
    /// A model that was loaded from `source` to `device` the first of `ways`, takes `memory` and beats
    /// with `pulse`.
    pub(crate) fn new(
        pipeline: Box<dyn Pipeline>,
        ways: Ways,
        memory: ImageMemory,
        source: Arc<ImageSource>,
        device: Device,
        pulse: Pulse,
    ) -> Self {
        let residence = ways.residences.first().copied().unwrap_or_default();
        Self {
            pipeline: Some(pipeline),
            residence,
            ways,
            lack: None,
            patience: PATIENCE,
            room_bytes: 0,
            again: false,
            memory,
            source,
            device,
            pulse,
            running: None,
            waiting: VecDeque::new(),
            warmth: None,
        }
    }

    /// The same on a card that was warmed up for `warmth`, the `usual` picture among it.
    pub(crate) fn warmed(self, warmth: Warmth, usual: WarmPicture) -> Self {
        Self { warmth: Some((warmth, usual)), ..self }
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Takes a job on, or refuses it.
    pub(crate) fn begin(&mut self, job: Job) -> Option<Ended> {
        let refuse = |job: Job, words: String| {
            let refused = EngineError::new(EngineErrorCode::InvalidRequest, words);
            Some(Ended::of(job, Err(refused)))
        };
        let JobSpec::Image(picture) = &job.spec else {
            let words = format!("model `{}` makes pictures, it writes no text", job.spec.model());
            return refuse(job, words);
        };
        if let Err(invalid) = picture.validate() {
            return refuse(job, invalid.to_string());
        }
        let picture = picture.clone();
        self.waiting.push_back(Waiting { picture, job, told: false });
        None
    }

    /// Ends the jobs that nobody wants any more; the memory of the running one is free.
    pub(crate) fn sweep(&mut self) -> Vec<Ended> {
        let mut over: Vec<Job> = Vec::new();
        if let Some(running) = self.running.take_if(|running| running.job.is_over()) {
            over.push(running.job);
        }
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.job.is_over()) {
            over.extend(self.waiting.remove(at).map(|waiting| waiting.job));
        }
        over.into_iter().map(|job| Ended::of(job, Err(queue::cancelled()))).collect()
    }

    /// Computes the next step: reads the prompts of the next job, or goes a step of its noise schedule,
    /// or decodes the picture. `computed` is called before anybody hears of it.
    pub(crate) fn step(
        &mut self,
        free: &dyn Fn() -> DeviceMemory,
        computed: impl FnOnce(EngineCounters),
    ) -> Vec<Ended> {
        let ended = match self.running.take() {
            None => self.next(free),
            Some(running) if running.denoising.done() < running.denoising.steps() => {
                self.denoise(running)
            }
            Some(running) => self.decode(running),
        };
        computed(self.counters());
        ended.into_iter().collect()
    }

    /// Begins the picture whose turn it is. Its job hears of that once the device is warm for it.
    fn next(&mut self, free: &dyn Fn() -> DeviceMemory) -> Option<Ended> {
        let Waiting { picture, job, mut told } = self.waiting.pop_front()?;
        if !std::mem::take(&mut self.again) {
            self.forgive(self.room_bytes(free()));
        }
        let mut planned = self.plan(&picture, free());
        let best = (self.residence, Plan::default());
        if planned.as_ref().ok() != Some(&best) {
            // What earlier pictures left in the allocator's pools counts as used.
            self.device.memory_cleanup();
            planned = self.plan(&picture, free());
        }
        self.room_bytes = self.room_bytes(free());
        let (residence, mut plan) = match planned {
            Ok(found) => found,
            Err(error) => return Some(Ended::of(job, Err(error))),
        };
        let begun = self.at(residence, &|| job.is_over()).and_then(|()| {
            self.warm_for(&picture, &job, &mut plan)?;
            if !std::mem::replace(&mut told, true) {
                job.outlet.started(0);
            }
            let (pulse, unwanted) = (self.pulse.clone(), job.watch());
            let pipeline = self.loaded()?;
            let begin = || pulse.during(unwanted, || pipeline.begin(&picture));
            computing("reading the prompt", begin)
        });
        match begun {
            Ok(mut denoising) => {
                denoising.set_guidance(plan.guidance);
                self.running = Some(Running { picture, job, plan, denoising });
                None
            }
            Err(error) => self.cheaper_or_ended(Waiting { picture, job, told }, error),
        }
    }

    /// Memory for the model and a picture, in bytes.
    fn room_bytes(&self, free: DeviceMemory) -> u64 {
        free.free_bytes.saturating_sub(free.reserve_bytes()).saturating_add(self.held_bytes())
    }

    /// Memory of the weights that are on the device now, in bytes.
    fn held_bytes(&self) -> u64 {
        match self.pipeline {
            Some(_) => self.memory.resident_bytes(self.residence),
            None => 0,
        }
    }

    /// Lets ways be tried again that there was no memory for: what took it may be gone.
    fn forgive(&mut self, room_bytes: u64) {
        let Some(lack) = &mut self.lack else { return };
        lack.pictures = lack.pictures.saturating_sub(1);
        if lack.pictures == 0 || room_bytes >= lack.room_bytes.saturating_add(GROWN_BYTES) {
            self.lack = None;
        }
    }

    /// Where the weights have to be for a picture, and how it is computed then, with the memory there
    /// is.
    fn plan(
        &self,
        picture: &ImageJob,
        free: DeviceMemory,
    ) -> Result<(Residence, Plan), EngineError> {
        let size = match &self.pipeline {
            Some(pipeline) => pipeline.picture_size(picture),
            None => [picture.width, picture.height],
        };
        let free_bytes = free.free_bytes.saturating_sub(free.reserve_bytes());
        let held_bytes = self.held_bytes();
        let mut refused = None;
        let lacks = |way: &&Residence| self.lack.is_some_and(|lack| **way <= lack.residence);
        for &residence in self.ways.residences.iter().filter(|way| !lacks(way)) {
            let is_here = self.pipeline.is_some() && residence == self.residence;
            if !is_here && self.memory.host_bytes(residence) > (self.ways.host_free_bytes)() {
                continue;
            }
            let others_bytes = if is_here { held_bytes } else { 0 };
            let resident_bytes = self.memory.resident_bytes(residence);
            let left_bytes = (free_bytes + held_bytes - others_bytes).saturating_sub(if is_here {
                0
            } else {
                resident_bytes
            });
            let needs = self.memory.picture(residence, size, picture.guidance > 1.0);
            let reading_bytes = self.memory.reading_bytes(residence);
            match needs.fit(left_bytes) {
                Fit::As(plan) if reading_bytes <= left_bytes => return Ok((residence, plan)),
                Fit::As(plan) => {
                    let needed_bytes = needs.peak_bytes(plan).max(reading_bytes);
                    refused = Some(too_large(picture, needed_bytes, left_bytes));
                }
                Fit::No { needed_bytes } => {
                    refused = Some(too_large(picture, needed_bytes, left_bytes));
                }
            }
        }
        Err(refused.unwrap_or_else(|| too_large(picture, held_bytes, free_bytes)))
    }

    /// The model with its weights at `residence`: loaded again, if they are elsewhere.
    fn at(&mut self, residence: Residence, unwanted: &dyn Fn() -> bool) -> Result<(), EngineError> {
        if self.residence != residence || self.pipeline.is_none() {
            tracing::warn!(from = ?self.residence, to = ?residence, "the model's weights move");
            self.pipeline = None;
            self.device.memory_cleanup();
            self.residence = residence;
            let load = || (self.ways.load_as)(&self.source, residence, unwanted);
            self.pipeline = Some(computing("loading the model another way", load)?);
        }
        Ok(())
    }

    fn loaded(&mut self) -> Result<&mut Box<dyn Pipeline>, EngineError> {
        self.pipeline.as_mut().ok_or_else(|| EngineError::internal("the model is not there"))
    }

    /// Tries the picture again from its start the next cheaper way, if a lack of memory is what ended
    /// it and there is one; what was planned wrongly is not planned again for a while.
    fn cheaper_or_ended(&mut self, waiting: Waiting, error: EngineError) -> Option<Ended> {
        // Nobody waits for it: the next sweep ends it.
        if waiting.job.is_over() && error.code == EngineErrorCode::Cancelled {
            self.waiting.push_front(waiting);
            return None;
        }
        let has_cheaper = self.ways.residences.iter().any(|way| *way > self.residence);
        if error.code == EngineErrorCode::OutOfMemory && has_cheaper {
            tracing::warn!("the picture is begun again, with less on the device: {error}");
            let (residence, room_bytes, pictures) =
                (self.residence, self.room_bytes, self.patience);
            self.lack = Some(Lack { residence, room_bytes, pictures });
            self.patience = (2 * self.patience).min(PATIENCE_MAX);
            self.again = true;
            self.waiting.push_front(waiting);
            return None;
        }
        let Waiting { picture, job, .. } = waiting;
        Some(Ended::of(job, Err(out_of_memory(error, &picture))))
    }

    fn denoise(&mut self, mut running: Running) -> Option<Ended> {
        let before = running.denoising.computed();
        let unwanted = running.job.watch();
        let step = || self.pulse.during(unwanted, || running.denoising.step());
        if let Err(error) = computing("a step of the picture", step) {
            if error.code == EngineErrorCode::OutOfMemory
                && running.plan.guidance == Guidance::Together
                && running.picture.guidance > 1.0
            {
                tracing::warn!("the halves of a step are computed one after the other: {error}");
                self.device.memory_cleanup();
                running.plan.guidance = Guidance::InTurn;
                running.denoising.set_guidance(Guidance::InTurn);
                self.running = Some(running);
                return None;
            }
            let Running { picture, job, denoising, .. } = running;
            drop(denoising);
            return self.cheaper_or_ended(Waiting { picture, job, told: true }, error);
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let denoising = running.denoising.as_ref();
        // A step that a card still computes is told of when it is through with it.
        if denoising.computed() > before {
            let step = ImageStep {
                step: count(denoising.computed()),
                steps: count(denoising.steps()),
                // A picture without a preview is better than none.
                preview: running.picture.preview.then(|| preview(denoising)).flatten(),
            };
            running.job.outlet.step(step);
        }
        self.running = Some(running);
        None
    }

    /// Makes the picture of its latents: in tiles, and then in smaller ones, if the device does not hold
    /// it as a whole.
    fn decode(&mut self, running: Running) -> Option<Ended> {
        let Running { picture, job, plan, mut denoising } = running;
        let (pulse, watched) = (&self.pulse, &job);
        let mut decode = |decoding| {
            let finish = || pulse.during(watched.watch(), || denoising.finish(decoding));
            computing("decoding the picture", finish)
        };
        let mut way = plan.decoding;
        let mut decoded = decode(way);
        while let Err(error) = &decoded
            && error.code == EngineErrorCode::OutOfMemory
            && let Some(smaller) = way.smaller()
        {
            tracing::warn!(?smaller, "the picture is decoded in tiles: {error}");
            self.device.memory_cleanup();
            way = smaller;
            decoded = decode(way);
        }
        drop(denoising);
        match decoded {
            Ok(made) => {
                self.mark_warm(&picture, Plan { decoding: way, ..plan });
                if self.lack.is_none() {
                    self.patience = PATIENCE;
                }
                let (width, height) = (made.width(), made.height());
                let output = JobOutput::Image(ImageOutput { png: made.to_png(), width, height });
                Some(Ended::of(job, Ok(output)))
            }
            Err(error) => self.cheaper_or_ended(Waiting { picture, job, told: true }, error),
        }
    }

    /// Fails all jobs, because what they were computed with is lost.
    pub(crate) fn fail_all(&mut self, error: &EngineError) -> Vec<Ended> {
        let running = self.running.take().map(|running| running.job);
        let waiting = self.waiting.drain(..).map(|waiting| waiting.job);
        running.into_iter().chain(waiting).map(|job| Ended::of(job, Err(error.clone()))).collect()
    }

    /// Becomes `source`, if that differs in its low-rank updates alone. Jobs must have ended. `false`
    /// if it is another model, its updates do not fit, or there is no memory for them beside those that
    /// are there.
    pub(crate) fn switch_to(
        &mut self,
        source: ImageSource,
        free: &dyn Fn() -> DeviceMemory,
    ) -> bool {
        if !source.has_base_of(&self.source) {
            return false;
        }
        let memory = source.memory(usual_precision(is_cpu(&self.device)));
        let Some(pipeline) = &mut self.pipeline else { return false };
        let has_room = || {
            let free = free();
            memory.updates_bytes() <= free.free_bytes.saturating_sub(free.reserve_bytes())
        };
        if !has_room() {
            // What earlier pictures left in the allocator's pools counts as used.
            self.device.memory_cleanup();
            if !has_room() {
                return false;
            }
        }
        if computing("changing the model", || pipeline.set_loras(source.loras())).is_err() {
            return false;
        }
        self.memory = memory;
        if let Some((warmth, _)) = &mut self.warmth {
            warmth.change_to(&source);
        }
        self.source = Arc::new(source);
        true
    }

    /// Jobs, running and waiting.
    pub(crate) fn counters(&self) -> EngineCounters {
        let (running, waiting) = (u32::from(self.running.is_some()), self.waiting.len());
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        EngineCounters {
            jobs: running + waiting,
            sequences_running: running,
            sequences_waiting: waiting,
            ..EngineCounters::default()
        }
    }
}

fn preview(denoising: &dyn Denoising) -> Option<neurino_core::job::Png> {
    let drawn = guarded("a preview", || denoising.preview());
    drawn.ok().and_then(Result::ok).map(|picture| picture.to_png())
}

/// Computes something that may fail or panic. After a panic nothing of the model is trusted any more:
/// `Crashed`, unless it was a lack of memory.
fn computing<T>(
    doing: &str,
    work: impl FnOnce() -> Result<T, DiffusionError>,
) -> Result<T, EngineError> {
    let done = guarded_on_device(doing, work);
    done.and_then(|done| done.map_err(|error| from_diffusion(&error)))
}

/// The words for a lack of memory that no cheaper plan cures.
fn out_of_memory(error: EngineError, picture: &ImageJob) -> EngineError {
    if error.code != EngineErrorCode::OutOfMemory {
        return error;
    }
    let (width, height) = (picture.width, picture.height);
    let words = format!(
        "the device ran out of memory for a picture of {width} x {height}; ask for a smaller one, or \
         close other programs"
    );
    EngineError::new(EngineErrorCode::OutOfMemory, words)
}

fn too_large(picture: &ImageJob, needed_bytes: u64, free_bytes: u64) -> EngineError {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let words = format!(
        "a picture of {} x {} needs {:.1} GB of memory beside the model and {:.1} GB are free for it; ask \
         for a smaller one, or close other programs",
        picture.width,
        picture.height,
        gb(needed_bytes),
        gb(free_bytes)
    );
    EngineError::new(EngineErrorCode::OutOfMemory, words)
}

/// A fault of the image engine as the engine's error, with its causes.
pub(crate) fn from_diffusion(error: &DiffusionError) -> EngineError {
    let words = fault::chain(error);
    let code = match error {
        DiffusionError::InvalidRequest { .. } | DiffusionError::Tokenizer(_) => {
            EngineErrorCode::InvalidRequest
        }
        DiffusionError::Scheduler(_) => EngineErrorCode::InvalidRequest,
        DiffusionError::Cancelled => EngineErrorCode::Cancelled,
        _ if fault::is_out_of_memory(&words) => EngineErrorCode::OutOfMemory,
        DiffusionError::Nn(NnError::Device { .. }) => EngineErrorCode::Crashed,
        DiffusionError::Weights(_)
        | DiffusionError::Lora(_)
        | DiffusionError::Config { .. }
        | DiffusionError::Unsupported { .. } => EngineErrorCode::ModelUnreadable,
        _ => EngineErrorCode::Internal,
    };
    EngineError::new(code, words)
}

#[cfg(test)]
#[path = "image/tests.rs"]
mod tests;
