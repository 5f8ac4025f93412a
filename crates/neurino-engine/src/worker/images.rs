//! Loading of image models.

use std::sync::Arc;
use std::time::Instant;

use neurino_core::ImageJob;
use neurino_diffusion::ImageSource;
use neurino_diffusion::checkpoint::Loading;
use neurino_diffusion::memory::{Fit, ImageMemory, usual_precision};
use neurino_diffusion::pipeline::{Decoding, Family, Pipeline, Plan, Residence};

use super::{Loaded, Progress, Worker, stopped};
use crate::api::{EngineError, EngineErrorCode, EngineStatus, LoadedModel, MemoryUse, ModelRef};
use crate::image::{Pictures, from_diffusion};
use crate::memory::DeviceMemory;
use crate::served::Served;

/// Pixels a side of the smallest picture that a model is loaded for.
const SIDE_MIN: u32 = 256;

impl Worker {
    pub(super) fn read_image(&self, reference: ModelRef) -> Result<Loaded, EngineError> {
        let started = Instant::now();
        let open = &self.devices[0];
        let source = Arc::new(ImageSource::open(&reference.path).map_err(unreadable)?);
        let precision = usual_precision(open.is_cpu());
        let memory = source.memory(precision);
        let (residence, planned_bytes) = plan(source.family(), &memory, open.memory())?;
        let before = self.used_bytes();
        let total_bytes = source.read_bytes();
        let progress = |done_bytes: u64| {
            let done_bytes = done_bytes.min(total_bytes);
            self.progress(&reference, Progress { done_bytes, total_bytes, warm_percent: 0 });
        };
        let unwanted = || self.queue.borrow().has_unload() || self.end.is_cancelled();
        let loading = Loading::new(&open.device, precision, &progress, &unwanted);
        let loaded = source.load_as(&loading, residence);
        let mut pipeline =
            loaded.map_err(|error| if unwanted() { stopped() } else { unreadable(error) })?;
        if !open.is_cpu() {
            let go_on = |done: usize, of: usize| {
                let warm_percent = u8::try_from(done * 100 / of.max(1)).unwrap_or(100);
                let done_bytes = total_bytes;
                self.progress(&reference, Progress { done_bytes, total_bytes, warm_percent });
                !unwanted()
            };
            if !warm_up(pipeline.as_mut(), &reference, &go_on)? {
                return Err(stopped());
            }
        }
        let used = self.used_bytes();
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
        };
        tracing::info!(
            planned_bytes,
            weights_bytes = facts.weights_bytes,
            planned_weights_bytes = memory.resident_bytes(residence),
            measured_bytes,
            text_encoders_visit = residence == Residence::Visit,
            "the image model is loaded"
        );
        let pictures = Pictures::new(pipeline, memory, source, open.device.clone());
        Ok(Loaded { reference, facts, serving: Served::Image(Box::new(pictures)) })
    }

    /// Changes the low-rank updates of the loaded model, if they are all that `model` has different.
    /// Jobs must have ended.
    pub(super) fn switch_loras(&mut self, model: &ModelRef) -> Option<LoadedModel> {
        if !ImageSource::is_image_model(&model.path) {
            return None;
        }
        let loaded = self.loaded.as_mut()?;
        let Served::Image(pictures) = &mut loaded.serving else { return None };
        let source = ImageSource::open(&model.path).ok()?;
        let started = Instant::now();
        if !pictures.switch_to(source) {
            // The load that follows says what is wrong.
            return None;
        }
        loaded.reference = model.clone();
        loaded.facts.id = model.id.clone();
        loaded.facts.load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let facts = loaded.facts.clone();
        self.status.send_replace(EngineStatus::Ready(facts.clone()));
        Some(facts)
    }
}

/// Where the text encoders live, and what the model and a picture of its usual size take together. The
/// encoders make way if the usual picture would not fit beside them; if it does not fit then either, at
/// least a small one has to.
fn plan(
    family: Family,
    memory: &ImageMemory,
    device: DeviceMemory,
) -> Result<(Residence, u64), EngineError> {
    let available_bytes = device.free_bytes.saturating_sub(device.reserve_bytes());
    let guided = family != Family::Flux;
    for side in [family.native_side(), SIDE_MIN] {
        let picture = memory.picture(side, side, guided);
        for residence in [Residence::Stay, Residence::Visit] {
            let left_bytes = available_bytes.saturating_sub(memory.resident_bytes(residence));
            if let Fit::As(plan) = picture.fit(left_bytes) {
                let peak_bytes = memory.peak_bytes(residence, picture, plan);
                if peak_bytes <= available_bytes {
                    return Ok((residence, peak_bytes));
                }
            }
        }
    }
    let least = memory.picture(SIDE_MIN, SIDE_MIN, guided);
    let needed_bytes = memory.peak_bytes(Residence::Visit, least, Plan::LEAST);
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let message = format!(
        "the model needs {:.1} GB of memory and {:.1} GB are free for it; close other programs, or \
         choose a smaller model",
        gb(needed_bytes),
        gb(available_bytes)
    );
    Err(EngineError::new(EngineErrorCode::OutOfMemory, message))
}

/// What a card does for the first time is slow: a picture of the usual size is made here and thrown
/// away. `false` if `go_on` said no.
fn warm_up(
    pipeline: &mut dyn Pipeline,
    reference: &ModelRef,
    go_on: &dyn Fn(usize, usize) -> bool,
) -> Result<bool, EngineError> {
    const STAGES: usize = 3;
    let side = pipeline.facts().family.native_side();
    let job = ImageJob { steps: 1, ..ImageJob::new(reference.id.clone(), "", side) };
    if !go_on(0, STAGES) {
        return Ok(false);
    }
    let mut made = pipeline.begin(&job).map_err(unreadable)?;
    if !go_on(1, STAGES) {
        return Ok(false);
    }
    made.step().map_err(unreadable)?;
    if !go_on(2, STAGES) {
        return Ok(false);
    }
    // Random latents need not make a picture of numbers.
    drop(made.decode(Decoding::Whole).map_err(unreadable)?);
    Ok(go_on(STAGES, STAGES))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unreadable(error: neurino_diffusion::DiffusionError) -> EngineError {
    let error = from_diffusion(&error);
    if error.code == EngineErrorCode::Internal || error.code == EngineErrorCode::InvalidRequest {
        return EngineError::new(EngineErrorCode::ModelUnreadable, error.message);
    }
    error
}

#[cfg(test)]
mod tests {
    use neurino_diffusion::memory::Dims;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// Weights of SDXL: 6.5 GiB in 16 bits, 1.5 of them text encoders.
    fn planned(free_bytes: u64) -> Result<(Residence, u64), EngineError> {
        let memory = ImageMemory::new(13 * GIB / 2, 3 * GIB / 2, Dims::sdxl());
        // The reserve comes off the free memory.
        let device = DeviceMemory { free_bytes, total_bytes: 2 * GIB, is_cpu: true };
        plan(Family::Sdxl, &memory, device)
    }

    #[test]
    fn text_encoders_make_way_for_the_usual_picture() {
        let (residence, most_bytes) = planned(64 * GIB).expect("plenty");
        assert_eq!(residence, Residence::Stay);
        let refused = planned(3 * GIB).expect_err("less than the weights");
        assert_eq!(refused.code, EngineErrorCode::OutOfMemory);
        // From much to little: encoders stay, then they visit, then they stay beside smaller pictures.
        let mut seen = vec![];
        for eighths in (8..=8 * 24).rev() {
            let free_bytes = eighths * GIB / 8;
            let Ok((residence, peak_bytes)) = planned(free_bytes) else { continue };
            assert!(peak_bytes <= free_bytes && peak_bytes <= most_bytes);
            if seen.last() != Some(&residence) {
                seen.push(residence);
            }
        }
        assert_eq!(seen[..2], [Residence::Stay, Residence::Visit]);
    }
}
