//! Loading of image models.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::memory::{Fit, ImageMemory, usual_precision};
use neurino_diffusion::pipeline::{Family, Plan, Residence};
use neurino_diffusion::pulse::Pulse;
use neurino_diffusion::{DiffusionError, ImageSource};
use neurino_hardware::machine_memory;
use neurino_nn::device::is_cpu;

use super::{Loaded, Progress, Worker, stopped};
use crate::api::{
    EngineError, EngineErrorCode, EngineStatus, LoadedModel, MemoryUse, ModelRef, PictureFacts,
    PictureWork,
};
use crate::device::OpenDevice;
use crate::fault::guarded_on_device;
use crate::image::{LoadAs, Pictures, Ways, from_diffusion};
use crate::memory::{DeviceMemory, by_room};
use crate::served::Served;
use crate::warm_pictures::{self, EXTRA_TIME, USUAL_WORDS, WarmPicture, Warmth};

/// Pixels a side of the smallest picture that a model is loaded for.
const SIDE_MIN: u32 = 256;

impl Worker {
    /// Loads an image model in the quickest way that a device has memory for; where the plan was wrong,
    /// in the next cheaper one.
    pub(super) fn read_image(&self, reference: &ModelRef) -> Result<Loaded, EngineError> {
        let is_cpu = self.devices[0].is_cpu();
        let source = Arc::new(open(reference).map_err(unreadable)?);
        let memory = source.memory(usual_precision(is_cpu));
        let mut ways = Residence::ways(is_cpu).to_vec();
        loop {
            let memories: Vec<_> = self.devices.iter().map(OpenDevice::memory).collect();
            let (device, planned) =
                best_device(source.family(), &memory, &ways, &memories, host_free_bytes())?;
            ways.retain(|way| *way >= planned.residence);
            let read = || self.read_image_as(reference, &source, (device, &planned), &ways);
            match guarded_on_device("loading the model", read).flatten() {
                Err(error) if error.code == EngineErrorCode::OutOfMemory && ways.len() > 1 => {
                    tracing::warn!(from = ?planned.residence, "loading it another way: {error}");
                    ways.remove(0);
                    self.clean_up();
                }
                read => return read,
            }
        }
    }

    /// - `device_index`: of the device to load it to
    /// - `ways`: the planned one and those that are cheaper
    fn read_image_as(
        &self,
        reference: &ModelRef,
        source: &Arc<ImageSource>,
        (device_index, planned): (usize, &Planned),
        ways: &[Residence],
    ) -> Result<Loaded, EngineError> {
        let started = Instant::now();
        let open = &self.devices[device_index];
        let precision = usual_precision(open.is_cpu());
        let memory = source.memory(precision);
        let &Planned { residence, peak_bytes: planned_bytes, .. } = planned;
        let before = self.used_bytes();
        let free = open.memory();
        let available_bytes = free.free_bytes.saturating_sub(free.reserve_bytes());
        let left_bytes = available_bytes.saturating_sub(memory.resident_bytes(residence));
        let total_bytes = source.read_bytes();
        let progress = |done_bytes: u64| {
            let done_bytes = done_bytes.min(total_bytes);
            self.progress(reference, Progress { done_bytes, total_bytes, warm_percent: 0 });
        };
        let unwanted = || self.queue.borrow().has_unload() || self.end.is_cancelled();
        let pulse = Pulse::counting(Arc::clone(&self.steps));
        let loading = Loading::new(&open.device, precision, &progress, &unwanted).beating(&pulse);
        let room_bytes = host_room_bytes(open.is_cpu(), &memory, residence);
        let loading = loading.with_host_room(room_bytes).with_page_locks(host_free_bytes() / 2);
        let loaded = source.load_as(&loading, residence);
        let mut pipeline =
            loaded.map_err(|error| if unwanted() { stopped() } else { unreadable(error) })?;
        let (mut pace, mut warm) = (None, None);
        if !open.is_cpu() {
            let go_on = |done: usize, of: usize| {
                let warm_percent = u8::try_from(done * 100 / of.max(1)).unwrap_or(100);
                let done_bytes = total_bytes;
                self.progress(reference, Progress { done_bytes, total_bytes, warm_percent });
                !unwanted()
            };
            let first = WarmPicture {
                size: [planned.side; 2],
                words: USUAL_WORDS,
                guided: guided(source.family()),
                plan: planned.plan,
            };
            let (family, warming) = (source.family(), Instant::now());
            let all = self.warming.all;
            let pictures =
                warm_pictures::pictures(family, &memory, residence, first, left_bytes, all);
            let elapsed = || warming.elapsed();
            let limit = if all { Duration::MAX } else { EXTRA_TIME };
            let warmth = Warmth::new(self.warming.warmed.clone(), device_index, source);
            let done = warm_pictures::warm_up(
                pipeline.as_mut(),
                &reference.id,
                (&pictures, &warmth),
                limit,
                &elapsed,
                &go_on,
            );
            if !done.map_err(unreadable)? {
                return Err(stopped());
            }
            warm = Some((warmth, first));
            let sync = || {
                // A device that cannot wait fails at its next job, and says why.
                let _ = open.device.sync();
            };
            let model = pipeline.as_mut();
            pace = warm_pictures::pace(model, &reference.id, &first, &elapsed, &sync);
        }
        let used = self.used_bytes();
        if !open.is_cpu() {
            // What the warm-up left in the allocator's pools would count as used by the first plan.
            open.clean_up();
        }
        let measured_bytes = used.zip(before).map(|(used, before)| used.saturating_sub(before));
        let facts = LoadedModel {
            id: reference.id.clone(),
            arch: source.family().name().into(),
            device: open.name.clone(),
            context_tokens: 0,
            slots: 1,
            weights_bytes: pipeline.facts().weights_bytes,
            memory: MemoryUse { planned_bytes, measured_bytes, cache_bytes: 0 },
            load_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            pictures: Some(PictureFacts { work: work(source), pace }),
        };
        tracing::info!(
            planned_bytes,
            weights_bytes = facts.weights_bytes,
            planned_weights_bytes = memory.step_weights_bytes(residence),
            measured_bytes,
            ?residence,
            "the image model is loaded"
        );
        let load_as = self.load_as(open.device.clone(), precision, pulse.clone());
        let ways = Ways { residences: ways.to_vec(), load_as, host_free_bytes };
        let (source, device) = (Arc::clone(source), open.device.clone());
        let mut pictures = Pictures::new(pipeline, ways, memory, source, device, pulse);
        if let Some((warmth, usual)) = warm {
            pictures = pictures.warmed(warmth, usual);
        }
        Ok(Loaded {
            reference: reference.clone(),
            facts,
            serving: Served::Image(Box::new(pictures)),
            device: device_index,
        })
    }

    /// Loads a model another way while jobs wait for it. What is read counts as steps, so that nobody
    /// takes the engine for stuck.
    fn load_as(&self, device: Device, precision: Precision, pulse: Pulse) -> LoadAs {
        let steps = Arc::clone(&self.steps);
        Box::new(move |source, residence, unwanted| {
            let progress = |_| {
                steps.fetch_add(1, Ordering::Relaxed);
            };
            let loading = Loading::new(&device, precision, &progress, unwanted).beating(&pulse);
            let room_bytes = host_room_bytes(is_cpu(&device), &source.memory(precision), residence);
            let loading = loading.with_host_room(room_bytes);
            source.load_as(&loading.with_page_locks(host_free_bytes() / 2), residence)
        })
    }

    /// Changes the low-rank updates of the loaded model, if they are all that `model` has different.
    /// Jobs must have ended.
    pub(super) fn switch_loras(&mut self, model: &ModelRef) -> Option<LoadedModel> {
        if !ImageSource::is_image_model(&model.path) {
            return None;
        }
        let loaded = self.loaded.as_mut()?;
        let Served::Image(pictures) = &mut loaded.serving else { return None };
        let source = open(model).ok()?;
        let (started, device) = (Instant::now(), &self.devices[loaded.device]);
        if !pictures.switch_to(source, &|| device.memory()) {
            // The load that follows says what is wrong.
            return None;
        }
        let end = self.end.clone();
        pictures.warm_usual(&model.id, move || end.is_cancelled());
        loaded.reference = model.clone();
        loaded.facts.id = model.id.clone();
        loaded.facts.load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let facts = loaded.facts.clone();
        self.status.send_replace(EngineStatus::Ready(facts.clone()));
        Some(facts)
    }
}

/// Opens a model with what is known of its files.
fn open(model: &ModelRef) -> Result<ImageSource, DiffusionError> {
    let source = ImageSource::open(&model.path)?;
    let sha256 = model.sha256.iter();
    Ok(source
        .vouched(sha256.map(|(name, sha256)| (model.path.join(name), sha256.clone())).collect()))
}

/// Memory of the machine itself that layers may take.
fn host_free_bytes() -> u64 {
    let memory = machine_memory();
    let host = DeviceMemory {
        total_bytes: memory.total_bytes,
        free_bytes: memory.available_bytes,
        is_cpu: true,
    };
    host.free_bytes.saturating_sub(host.reserve_bytes())
}

/// Memory of the machine itself that text encoders may stay in: half of what is left beside the layers.
/// A processor's models are there already.
fn host_room_bytes(is_cpu: bool, memory: &ImageMemory, residence: Residence) -> u64 {
    if is_cpu { 0 } else { host_free_bytes().saturating_sub(memory.host_bytes(residence)) / 2 }
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
struct Planned {
    residence: Residence,
    /// Pixels a side of the picture that was planned for.
    side: u32,
    /// How that picture is computed.
    plan: Plan,
    /// What the model and that picture take together.
    peak_bytes: u64,
}

/// How much its pictures compute.
fn work(source: &ImageSource) -> PictureWork {
    let (pass, decoder) = (source.dims().denoising_growth(), source.dims().decoding_growth());
    PictureWork { pass: pass.0, decoder: decoder.0, guided_twice: guided(source.family()) }
}

/// Whether the usual picture of a family is computed with the prompt and without it.
fn guided(family: Family) -> bool {
    family != Family::Flux
}

/// The device that a model is loaded to, by its index, and how: the one that makes the largest pictures
/// in the quickest way, the roomiest of several such.
fn best_device(
    family: Family,
    memory: &ImageMemory,
    ways: &[Residence],
    devices: &[DeviceMemory],
    host_bytes: u64,
) -> Result<(usize, Planned), EngineError> {
    let room = |device: &DeviceMemory| device.free_bytes.saturating_sub(device.reserve_bytes());
    let order = by_room(&devices.iter().map(room).collect::<Vec<_>>());
    let mut best: Option<(usize, Planned)> = None;
    let mut refused = None;
    for index in order {
        match plan(family, memory, ways, devices[index], host_bytes) {
            Ok(planned) => {
                let rank = |plan: &Planned| (Reverse(plan.side), plan.residence);
                if best.as_ref().is_none_or(|(_, best)| rank(&planned) < rank(best)) {
                    best = Some((index, planned));
                }
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    best.ok_or_else(|| refused.unwrap_or_else(|| EngineError::internal("there is no device")))
}

/// The first of `ways` to keep the weights in which a picture of the model's usual size fits beside
/// them; if there is none, the first for a small picture.
fn plan(
    family: Family,
    memory: &ImageMemory,
    ways: &[Residence],
    device: DeviceMemory,
    host_bytes: u64,
) -> Result<Planned, EngineError> {
    let available_bytes = device.free_bytes.saturating_sub(device.reserve_bytes());
    let guided = guided(family);
    let ways = ways.iter().copied().filter(|way| memory.host_bytes(*way) <= host_bytes);
    for side in [family.native_side(), SIDE_MIN] {
        for residence in ways.clone() {
            let picture = memory.picture(residence, [side; 2], guided);
            let left_bytes = available_bytes.saturating_sub(memory.resident_bytes(residence));
            if let Fit::As(plan) = picture.fit(left_bytes) {
                let peak_bytes = memory.peak_bytes(residence, picture, plan);
                if peak_bytes <= available_bytes {
                    return Ok(Planned { residence, side, plan, peak_bytes });
                }
            }
        }
    }
    let least = |way: Residence| {
        memory.peak_bytes(way, memory.picture(way, [SIDE_MIN; 2], guided), Plan::LEAST)
    };
    let needed_bytes = ways.map(least).min().unwrap_or_default();
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let message = format!(
        "the model needs {:.1} GB of memory and {:.1} GB are free for it; close other programs, or \
         choose a smaller model",
        gb(needed_bytes),
        gb(available_bytes)
    );
    Err(EngineError::new(EngineErrorCode::OutOfMemory, message))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unreadable(error: DiffusionError) -> EngineError {
    let error = from_diffusion(&error);
    if error.code == EngineErrorCode::Internal || error.code == EngineErrorCode::InvalidRequest {
        return EngineError::new(EngineErrorCode::ModelUnreadable, error.message);
    }
    error
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use neurino_core::job::Png;
    use neurino_core::{ImageJob, JobOutput, JobSpec, ModelId};
    use neurino_diffusion::memory::Dims;
    use neurino_diffusion::pipeline::{Decoding, Guidance};
    use neurino_llm::models::decoder::Stores;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::{Engine, JobEvent};
    use crate::device::stand_in_card;
    use crate::local::LocalEngine;
    use crate::worker::Faults;

    const GIB: u64 = 1 << 30;

    /// Weights of SDXL: 6.5 GiB in 16 bits, 1.5 of them text encoders.
    fn planned(ways: &[Residence], free_bytes: u64) -> Result<Planned, EngineError> {
        let dims = Dims::sdxl();
        let (layers, decoder_bytes) = (dims.layers(16.0), dims.decoder_bytes(Precision::Half));
        let memory = ImageMemory::new(13 * GIB / 2, 3 * GIB / 2, dims).with_layers(layers);
        let memory = memory.with_decoder(decoder_bytes);
        // The reserve comes off the free memory.
        let device = DeviceMemory { free_bytes, total_bytes: 2 * GIB, is_cpu: true };
        plan(Family::Sdxl, &memory, ways, device, 8 * GIB)
    }

    #[test]
    fn weights_make_way_for_the_usual_picture() {
        for is_cpu in [true, false] {
            let ways = Residence::ways(is_cpu);
            let roomy = planned(ways, 64 * GIB).expect("plenty");
            assert_eq!((roomy.residence, roomy.plan), (Residence::Stay, Plan::default()));
            let most_bytes = roomy.peak_bytes;
            let refused = planned(ways, GIB / 2).expect_err("less than a small picture");
            assert_eq!(refused.code, EngineErrorCode::OutOfMemory);
            // From much to little.
            let mut seen = vec![];
            for eighths in (8..=8 * 24).rev() {
                let free_bytes = eighths * GIB / 8;
                let Ok(found) = planned(ways, free_bytes) else { continue };
                let Planned { residence, peak_bytes, .. } = found;
                assert!(peak_bytes <= free_bytes && peak_bytes <= most_bytes);
                if seen.last() != Some(&residence) {
                    seen.push(residence);
                }
            }
            // Then, on a processor, all of them stay again, beside smaller pictures.
            assert_eq!(seen[..ways.len()], *ways);
        }
    }

    #[test]
    fn layers_stream_only_from_memory_that_the_machine_has() {
        let memory = ImageMemory::new(13 * GIB / 2, 3 * GIB / 2, Dims::sdxl())
            .with_layers(Dims::sdxl().layers(16.0));
        let card = DeviceMemory { free_bytes: 4 * GIB, total_bytes: 4 * GIB, is_cpu: false };
        let planned =
            |host_bytes| plan(Family::Sdxl, &memory, Residence::ways(false), card, host_bytes);
        assert_eq!(planned(6 * GIB).expect("enough").residence, Residence::Stream);
        let refused = planned(4 * GIB).expect_err("too little");
        assert_eq!(refused.code, EngineErrorCode::OutOfMemory);
    }

    #[test]
    fn the_card_that_makes_the_usual_picture_in_the_quickest_way_is_taken() {
        let memory = ImageMemory::new(13 * GIB / 2, 3 * GIB / 2, Dims::sdxl())
            .with_layers(Dims::sdxl().layers(16.0));
        let card = |free: u64| DeviceMemory {
            free_bytes: free * GIB,
            total_bytes: 24 * GIB,
            is_cpu: false,
        };
        let ways = Residence::ways(false);
        let best = |cards: &[DeviceMemory]| {
            let (index, planned) =
                best_device(Family::Sdxl, &memory, ways, cards, 32 * GIB).expect("one fits");
            (index, planned.residence)
        };
        assert_eq!(best(&[card(6), card(24)]), (1, Residence::Stay));
        assert_eq!(best(&[card(24), card(24)]), (0, Residence::Stay));
        assert_eq!(best(&[card(0), card(6), card(1)]).0, 1);
        let refused = best_device(Family::Sdxl, &memory, ways, &[card(1), card(0)], 32 * GIB);
        assert_eq!(refused.expect_err("too small").code, EngineErrorCode::OutOfMemory);
    }

    fn tiny() -> ModelRef {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
        ModelRef::new(ModelId::new("tiny").expect("an id"), folder)
    }

    /// Loads a tiny model on a device and makes a picture.
    async fn made_on(device: OpenDevice) -> (LoadedModel, Png) {
        let engine = LocalEngine::start_on(vec![device], Faults::Reload).expect("a thread");
        let facts = engine.load(&tiny()).await.expect("it fits");
        let job = ImageJob { steps: 2, seed: 3, ..ImageJob::new(tiny().id, "a red cat", 64) };
        let begun = engine.run(&JobSpec::Image(job), CancellationToken::new()).await;
        let mut events = begun.expect("taken on");
        loop {
            match events.recv().await.expect("an end") {
                JobEvent::Finished { output: JobOutput::Image(image) } => {
                    return (facts, image.png);
                }
                JobEvent::Failed { error } => panic!("{error}"),
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn a_card_too_small_for_a_model_streams_its_layers_and_makes_the_same_picture() {
        let memory = ImageSource::open(&tiny().path).expect("a model").memory(Precision::Half);
        let usual = |way| memory.picture(way, [Family::Sd15.native_side(); 2], true);
        // So small a model decodes its pictures as a whole in less than tiles are put together in.
        let cheap = Plan { guidance: Guidance::InTurn, decoding: Decoding::Whole };
        let least = |way| memory.peak_bytes(way, usual(way), cheap);
        let (stream, visit) = (least(Residence::Stream), least(Residence::Visit));
        assert!(stream < visit);
        // A small card keeps this much for others.
        let card = |bytes: u64| stand_in_card((512 << 20) + bytes, Stores::default());

        let (facts, picture) = made_on(card(stream)).await;
        assert_eq!(facts.memory.planned_bytes, stream);
        let (planned, held) = (memory.step_weights_bytes(Residence::Stream), facts.weights_bytes);
        assert!((planned as f64 / held as f64 - 1.0).abs() < 0.01, "{planned} {held}");

        let (roomy, same) = made_on(card(4 * GIB)).await;
        assert!(roomy.weights_bytes > facts.weights_bytes);
        assert_eq!(picture, same);

        let device = card(stream / 4);
        let engine = LocalEngine::start_on(vec![device], Faults::Reload).expect("a thread");
        let refused = engine.load(&tiny()).await.expect_err("too small");
        assert_eq!(refused.code, EngineErrorCode::OutOfMemory);
    }
}
