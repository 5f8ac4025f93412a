//! Speed of an image model on a device: text encoders, steps of the denoiser, the decoder, and the whole
//! picture, beside the device's ceiling and diffusers in the same run.

use std::path::PathBuf;
use std::time::Instant;

use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::checkpoint::Loading;
use neurino_diffusion::memory::{ImageMemory, usual_precision};
use neurino_diffusion::pipeline::{Decoding, Family, Pipeline, Plan, Residence};
use neurino_diffusion::{DiffusionError, ImageSource, shapes};
use neurino_nn::quant::UNPACKING_BYTES;
use serde::Serialize;

use super::{BenchSubject, Ceilings, ceiling, image_peer, median, peak, unknown};
use crate::api::{DeviceChoice, EngineError, EngineErrorCode};
use crate::device::{self, OpenDevice};
use crate::fault;
use crate::image::from_diffusion;

pub use image_peer::{CompiledBench, ImagePeerBench};

/// Tokens of a chunk of a prompt, as text encoders and UNets see it.
pub(super) const PROMPT_TOKENS: usize = 77;
/// Pixels a side where nothing else is asked for and no shape names it.
const SIDE_CPU: u32 = 256;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ImageBenchOptions {
    /// The device.
    pub device: DeviceChoice,
    /// Steps of a picture.
    pub steps: u32,
    /// Width and height in pixels; what suits the model if absent.
    pub size: Option<[u32; 2]>,
    /// Pictures; medians are reported. On a card one more before them warms up.
    pub runs: u32,
    /// Whether to measure diffusers in the same rounds.
    pub compare: bool,
    /// Whether to have torch compile diffusers' networks, too, and measure both.
    pub compiled: bool,
    /// A second shape of our own, measured in the same rounds: the same networks with weights of 16 bits,
    /// for those of 4.
    pub against: Option<String>,
    /// A Python that has torch and diffusers, beside what is found by itself.
    pub python: Option<PathBuf>,
}

/// What was measured: medians over the runs.
#[derive(Debug, Clone, Serialize)]
pub struct ImageBench {
    /// The model.
    pub model: String,
    /// Its kind.
    pub family: &'static str,
    /// The device, for people.
    pub device: String,
    /// Whether it is the processor.
    pub on_cpu: bool,
    /// Opening the files and loading the weights (or making them), in milliseconds.
    pub load_ms: u64,
    /// Of the picture, in pixels.
    pub width: u32,
    /// Of the picture, in pixels.
    pub height: u32,
    /// Steps of a picture.
    pub steps: u32,
    /// Passes of the denoiser in a step: with and without the prompt, unless guidance is an input.
    pub passes: u32,
    /// Pictures behind the medians.
    pub runs: u32,
    /// Reading the prompts.
    pub text_s: f64,
    /// One step.
    pub step_s: f64,
    /// Decoding the latents and writing the PNG.
    pub decode_s: f64,
    /// The whole picture.
    pub image_s: f64,
    /// Memory of the weights.
    pub weights_bytes: u64,
    /// What was planned for weights and activations together.
    pub planned_bytes: u64,
    /// By how much the memory in use rose at most, from before the model was read to the last picture: of
    /// this process on a CPU, of the card on a card. `None` where nobody tells, where a second shape was
    /// measured, and where a peer was on the same card.
    pub peak_bytes: Option<u64>,
    /// Multiplications and additions of one step.
    pub step_flop: f64,
    /// The same for decoding.
    pub decode_flop: f64,
    /// What the device can do at best, measured now.
    pub ceilings: Ceilings,
    /// A second shape, measured in the same rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<AgainstBench>,
    /// Diffusers, measured in the same rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<ImagePeerBench>,
    /// Why there is none, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_missing: Option<String>,
}

/// The speeds of a second shape of our own: medians over the same rounds.
#[derive(Debug, Clone, Serialize)]
pub struct AgainstBench {
    /// The shape.
    pub model: String,
    /// Memory of its weights.
    pub weights_bytes: u64,
    /// Reading the prompts.
    pub text_s: f64,
    /// One step.
    pub step_s: f64,
    /// Decoding the latents and writing the PNG.
    pub decode_s: f64,
    /// The whole picture.
    pub image_s: f64,
}

impl ImageBench {
    /// Steps a second.
    pub fn steps_per_s(&self) -> f64 {
        1.0 / self.step_s
    }

    /// The peak as a share of the plan.
    pub fn peak_share(&self) -> Option<f64> {
        Some(self.peak_bytes? as f64 / self.planned_bytes as f64)
    }

    /// What a step computes, as a share of what a product of matrices reaches.
    pub fn step_share(&self) -> Option<f64> {
        Some(self.step_flop / self.step_s / self.ceilings.matmul_flop_per_s?)
    }

    /// What decoding computes, as such a share.
    pub fn decode_share(&self) -> Option<f64> {
        Some(self.decode_flop / self.decode_s / self.ceilings.matmul_flop_per_s?)
    }
}

/// The shapes that can be measured without a file.
pub fn image_shape_names() -> &'static [&'static str] {
    &shapes::NAMES
}

/// The times of one picture, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(super) struct Round {
    pub(super) text_s: f64,
    pub(super) step_s: Vec<f64>,
    pub(super) decode_s: f64,
}

/// Medians of rounds.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(super) struct Medians {
    pub(super) text_s: f64,
    pub(super) step_s: f64,
    pub(super) decode_s: f64,
}

impl Medians {
    /// A whole picture of so many steps.
    pub(super) fn image_s(self, steps: u32) -> f64 {
        self.text_s + f64::from(steps) * self.step_s + self.decode_s
    }

    pub(super) fn of(rounds: &[Round]) -> Self {
        let of = |value: &dyn Fn(&Round) -> Vec<f64>| {
            median(&mut rounds.iter().flat_map(value).collect::<Vec<f64>>())
        };
        Self {
            text_s: of(&|round| vec![round.text_s]),
            step_s: of(&|round| round.step_s.clone()),
            decode_s: of(&|round| vec![round.decode_s]),
        }
    }
}

/// Measures a model. Blocks; run it on a thread of its own. `say` hears what is going on.
///
/// # Errors
/// `ModelUnreadable`, `NoSuchDevice`, `OutOfMemory`, `InvalidRequest`, `Internal`.
pub fn image(
    subject: &BenchSubject,
    options: &ImageBenchOptions,
    say: &dyn Fn(String),
) -> Result<ImageBench, EngineError> {
    check(subject, options)?;
    let device = device::open(options.device)?.swap_remove(0);
    let measure = || {
        say("measuring the device".into());
        let ceilings = ceiling::measure(&device);
        device.clean_up();
        let work = || measure_all(subject, options, &device, ceilings, say);
        let (bench, rise) = peak::rise_of(|| device.used_bytes(), work);
        // What diffusers holds on the same card is in the number, too, and a second shape anywhere.
        let alone = (device.is_cpu() || !options.compare) && options.against.is_none();
        let own = rise.filter(|_| alone);
        bench.map(|bench| ImageBench { peak_bytes: own, ..bench })
    };
    fault::guarded("the measurement", measure).flatten()
}

/// Refuses what no measurement is needed to refuse.
fn check(subject: &BenchSubject, options: &ImageBenchOptions) -> Result<(), EngineError> {
    let own = match subject {
        BenchSubject::Shape { name, .. } => Some(name),
        BenchSubject::File { .. } => None,
    };
    for name in own.into_iter().chain(&options.against) {
        shapes::named(name).ok_or_else(|| unknown("shape", name, &shapes::NAMES))?;
    }
    job(options.size.unwrap_or([SIDE_CPU; 2]), options.steps, 7.0).map(drop)
}

/// The job of one picture.
fn job([width, height]: [u32; 2], steps: u32, guidance: f32) -> Result<ImageJob, EngineError> {
    let id = ModelId::new("bench").map_err(|error| EngineError::internal(error.to_string()))?;
    let job = ImageJob { width, height, steps, guidance, ..ImageJob::new(id, "", width) };
    job.validate()
        .map_err(|error| EngineError::new(EngineErrorCode::InvalidRequest, error.to_string()))?;
    Ok(job)
}

/// A model with what is known of it.
struct Subject {
    name: String,
    pipeline: Box<dyn Pipeline>,
    memory: ImageMemory,
    side: u32,
}

fn measure_all(
    subject: &BenchSubject,
    options: &ImageBenchOptions,
    device: &OpenDevice,
    ceilings: Ceilings,
    say: &dyn Fn(String),
) -> Result<ImageBench, EngineError> {
    let started = Instant::now();
    say("loading the model".into());
    let Subject { name, mut pipeline, memory, side } = open(subject, device)?;
    let load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut second = match &options.against {
        Some(name) => {
            say(format!("loading {name}"));
            Some(open(&BenchSubject::Shape { name: name.clone(), format: None }, device)?)
        }
        None => None,
    };
    let family = pipeline.facts().family;
    let guidance = if family == Family::Flux { 3.5 } else { 7.0 };
    let steps = options.steps;
    let job = job(options.size.unwrap_or([side, side]), steps, guidance)?;
    let [width, height] = pipeline.picture_size(&job);
    let passes = if family == Family::Flux { 1 } else { 2 };
    let mut peer = options.compare.then(|| {
        say("preparing diffusers".into());
        let python = options.python.as_deref();
        let [on_cpu, compiled] = [device.is_cpu(), options.compiled];
        image_peer::start(memory.dims(), [width, height], python, on_cpu, compiled)
    });
    say("measuring".into());
    if let Some(Ok(peer)) = &mut peer {
        // It chooses its kernels at the first pass.
        peer.round(1, false);
    }
    let (mut rounds, mut others) = (Vec::new(), Vec::new());
    let warm_ups = u32::from(!device.is_cpu());
    for run in 0..warm_ups + options.runs {
        let round = picture(pipeline.as_mut(), &job, run, device)?;
        if let Some(second) = &mut second {
            let round = picture(second.pipeline.as_mut(), &job, run, device)?;
            others.extend((run >= warm_ups).then_some(round));
        }
        if let Some(Ok(peer)) = &mut peer {
            peer.round(steps, run >= warm_ups);
        }
        if run >= warm_ups {
            rounds.push(round);
        }
    }
    let medians = Medians::of(&rounds);
    let (peer, peer_missing) = match peer {
        Some(Ok(peer)) => (Some(peer.finish(steps)), None),
        Some(Err(missing)) => (None, Some(missing)),
        None => (None, None),
    };
    let against = second.map(|second| {
        let medians = Medians::of(&others);
        let Medians { text_s, step_s, decode_s } = medians;
        let weights_bytes = second.pipeline.facts().weights_bytes;
        let image_s = medians.image_s(steps);
        AgainstBench { model: second.name, weights_bytes, text_s, step_s, decode_s, image_s }
    });
    let dims = memory.dims();
    let needs = memory.picture(Residence::Stay, [width, height], passes == 2);
    Ok(ImageBench {
        model: name,
        family: family.name(),
        device: device.name.clone(),
        on_cpu: device.is_cpu(),
        load_ms,
        width,
        height,
        steps,
        passes,
        runs: options.runs,
        text_s: medians.text_s,
        step_s: medians.step_s,
        decode_s: medians.decode_s,
        image_s: medians.image_s(steps),
        weights_bytes: pipeline.facts().weights_bytes,
        planned_bytes: memory.weights_bytes() + needs.peak_bytes(Plan::default()),
        peak_bytes: None,
        step_flop: f64::from(passes) * dims.denoising_flop(width, height, PROMPT_TOKENS),
        decode_flop: dims.decoding_flop(width, height),
        ceilings,
        against,
        peer,
        peer_missing,
    })
}

fn open(subject: &BenchSubject, device: &OpenDevice) -> Result<Subject, EngineError> {
    let precision = usual_precision(device.is_cpu());
    let loading = Loading::quiet(&device.device, precision);
    let failed = |error: DiffusionError| from_diffusion(&error);
    match subject {
        BenchSubject::File { name, path } => {
            let source = ImageSource::open(path).map_err(failed)?;
            let pipeline = source.load(&loading).map_err(failed)?;
            let native = source.family().native_side();
            let side = if device.is_cpu() { native.min(SIDE_CPU) } else { native };
            Ok(Subject { name: name.clone(), pipeline, memory: source.memory(precision), side })
        }
        BenchSubject::Shape { name, .. } => {
            let shape =
                shapes::named(name).ok_or_else(|| unknown("shape", name, &shapes::NAMES))?;
            let pipeline = shape.make(&loading).map_err(failed)?;
            let weights_bytes = pipeline.facts().weights_bytes;
            // A shape's text encoders stay.
            let on_card = !device.is_cpu();
            let scratch_bytes = if on_card && shape.unpacks() { UNPACKING_BYTES } else { 0 };
            let memory = ImageMemory::new(weights_bytes, 0, shape.dims.clone())
                .on_card(on_card)
                .unpacking(scratch_bytes);
            Ok(Subject { name: name.clone(), pipeline, memory, side: shape.side })
        }
    }
}

/// Makes a picture whose prompt was not seen before.
fn picture(
    pipeline: &mut dyn Pipeline,
    job: &ImageJob,
    run: u32,
    device: &OpenDevice,
) -> Result<Round, EngineError> {
    let failed = |error: DiffusionError| from_diffusion(&error);
    let wait = || -> Result<(), EngineError> {
        let failed = |error: &dyn std::fmt::Display| EngineError::internal(error.to_string());
        device.device.sync().map_err(|error| failed(&error))
    };
    let prompt = format!("a lighthouse on a cliff above a stormy sea, number {run}");
    let job = ImageJob { prompt, seed: u64::from(run), ..job.clone() };
    let started = Instant::now();
    let mut made = pipeline.begin(&job).map_err(failed)?;
    wait()?;
    let mut round = Round { text_s: started.elapsed().as_secs_f64(), ..Round::default() };
    while made.done() < made.steps() {
        let started = Instant::now();
        made.step().map_err(failed)?;
        wait()?;
        round.step_s.push(started.elapsed().as_secs_f64());
    }
    let started = Instant::now();
    let finished = made.finish(Decoding::Whole);
    match finished.map(|picture| picture.to_png()) {
        // Random weights may well lead nowhere; the time is the same.
        Ok(_) | Err(DiffusionError::NotFinite) => {}
        Err(error) => return Err(failed(error)),
    }
    round.decode_s = started.elapsed().as_secs_f64();
    Ok(round)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn options() -> ImageBenchOptions {
        ImageBenchOptions {
            device: DeviceChoice::Cpu,
            steps: 2,
            size: None,
            runs: 2,
            compare: false,
            compiled: false,
            against: None,
            python: None,
        }
    }

    fn shape(name: &str) -> BenchSubject {
        BenchSubject::Shape { name: name.into(), format: None }
    }

    #[test]
    fn a_shape_is_measured_without_a_file() {
        let bench = image(&shape("tiny"), &options(), &|_| {}).unwrap();
        assert_eq!((bench.family, bench.width, bench.height, bench.passes), ("sdxl", 64, 64, 2));
        let sum = bench.text_s + 2.0 * bench.step_s + bench.decode_s;
        assert!((bench.image_s - sum).abs() < 1e-9 && bench.decode_s > 0.0 && bench.text_s > 0.0);
        assert!(bench.step_share().unwrap() > 0.0 && bench.step_flop > 1e6);
        assert!(bench.planned_bytes > bench.weights_bytes);
        assert!(bench.peak_share().is_some_and(|share| share > 0.0), "{:?}", bench.peak_bytes);
    }

    /// What the same networks take with other weights is measured in the same rounds.
    #[test]
    fn two_shapes_are_measured_beside_each_other() {
        let against = Some("tiny-flux".to_owned());
        let bench =
            image(&shape("tiny-flux-nf4"), &ImageBenchOptions { against, ..options() }, &|_| {});
        let bench = bench.unwrap();
        let other = bench.against.as_ref().unwrap();
        assert_eq!((bench.family, other.model.as_str()), ("flux", "tiny-flux"));
        assert!(other.step_s > 0.0 && other.decode_s > 0.0 && other.text_s > 0.0);
        // Packed weights, and not the same model twice.
        assert!(other.weights_bytes > bench.weights_bytes, "{bench:?}");
        assert_eq!(bench.peak_bytes, None, "it would be the peak of both");
        let against = Some("sd9".to_owned());
        let error = image(&shape("tiny"), &ImageBenchOptions { against, ..options() }, &|_| {});
        assert!(error.unwrap_err().message.contains("there are "));
    }

    #[test]
    fn a_card_is_planned_for_as_one() {
        let memory = |device: &OpenDevice| open(&shape("tiny"), device).unwrap().memory;
        let card = device::stand_in_card(1 << 33, neurino_llm::models::decoder::Stores::default());
        let cpu = device::open(DeviceChoice::Cpu).unwrap().swap_remove(0);
        assert_eq!(memory(&card), memory(&card).on_card(true));
        assert_eq!(memory(&cpu), memory(&cpu).on_card(false));
        // Both its networks' weights are packed.
        let packed = |name: &str| shapes::named(name).unwrap().unpacks();
        assert!(packed("flux-nf4") && !packed("flux") && !packed("sdxl"));
    }

    #[test]
    fn a_model_is_measured_at_a_size() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../../tests/fixtures/flux");
        let subject = BenchSubject::File { name: "flux".into(), path };
        let size = Some([72, 48]);
        let bench = image(&subject, &ImageBenchOptions { size, ..options() }, &|_| {}).unwrap();
        assert_eq!((bench.family, bench.width, bench.height, bench.passes), ("flux", 64, 48, 1));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let first = |words: String| assert!(words.is_empty(), "`{words}` before it is refused");
        let error = image(&shape("sd9"), &options(), &first).unwrap_err();
        assert!(error.message.contains("there are "), "{error}");
        let size = Some([65, 64]);
        let error = image(&shape("tiny"), &ImageBenchOptions { size, ..options() }, &first);
        assert_eq!(error.unwrap_err().code, EngineErrorCode::InvalidRequest);
    }
}
