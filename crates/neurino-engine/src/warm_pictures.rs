//! What a card does for the first time is slow: it compiles and tunes. Before an image model is ready,
//! pictures of the sizes that are usually asked for are made and thrown away, so that no paid one waits for
//! that.
//!
//! burn tunes by lengths rounded up to powers of two, so that one picture stands for a whole class of sizes.
//! The model's own size comes first and has to succeed; the others are made while there is time, and one
//! that finds no memory ends them.

use std::cell::Cell;
use std::time::Duration;

use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::DiffusionError;
use neurino_diffusion::memory::{Fit, ImageMemory};
use neurino_diffusion::pipeline::{Family, Pipeline, Plan, Residence};

use crate::api::PicturePace;

/// How long the pictures beside the first one may take together before no further one is begun.
pub(crate) const EXTRA_TIME: Duration = Duration::from_mins(1);
/// Stages of a picture: prompt, step, decoder.
const STAGES: usize = 3;

/// A picture of a warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WarmPicture {
    /// Width and height.
    pub(crate) size: [u32; 2],
    /// Whether its steps are computed with the prompt and without it.
    pub(crate) guided: bool,
    /// How it is computed.
    pub(crate) plan: Plan,
}

/// Sizes that jobs of a family usually have: what its models were trained on.
fn usual_sizes(family: Family) -> &'static [[u32; 2]] {
    match family {
        Family::Sd15 => &[[512, 512], [512, 768], [768, 512], [768, 768], [640, 960], [1024, 1024]],
        Family::Sdxl | Family::Flux => &[
            [1024, 1024],
            [832, 1216],
            [1216, 832],
            [896, 1152],
            [1152, 896],
            [768, 1344],
            [1344, 768],
            [640, 1536],
            [1536, 640],
            [768, 768],
            [512, 512],
        ],
    }
}

/// What sizes have in common that are tuned alike: the rounded sides and number of latent pixels.
fn class([width, height]: [u32; 2], vae_factor: u32) -> [u32; 3] {
    let [width, height] = [width, height].map(|side| side.div_ceil(vae_factor.max(1)));
    [width, height, width.saturating_mul(height)].map(u32::next_power_of_two)
}

/// The pictures of a warm-up: `first`, the same without guidance, and one of each class of sizes that fits
/// into `left_bytes` beside the weights.
pub(crate) fn pictures(
    family: Family,
    memory: &ImageMemory,
    residence: Residence,
    first: WarmPicture,
    left_bytes: u64,
) -> Vec<WarmPicture> {
    let factor = u32::try_from(memory.dims().vae().factor()).unwrap_or(u32::MAX);
    let mut found = vec![first];
    let mut add = |size: [u32; 2], guided: bool| {
        let known = found.iter().any(|warm: &WarmPicture| {
            warm.guided == guided && class(warm.size, factor) == class(size, factor)
        });
        if let (false, Fit::As(plan)) =
            (known, memory.picture(residence, size, guided).fit(left_bytes))
        {
            found.push(WarmPicture { size, guided, plan });
        }
    };
    for size in usual_sizes(family) {
        add(*size, first.guided);
    }
    add(first.size, false);
    found
}

/// Makes the `pictures`. `false` if `go_on` said no, which hears how much is done of how much.
///
/// - `elapsed`: since the warm-up began
pub(crate) fn warm_up(
    pipeline: &mut dyn Pipeline,
    model: &ModelId,
    pictures: &[WarmPicture],
    elapsed: &dyn Fn() -> Duration,
    go_on: &dyn Fn(usize, usize) -> bool,
) -> Result<bool, DiffusionError> {
    let all = STAGES * pictures.len();
    let mut since = Duration::ZERO;
    for (i, picture) in pictures.iter().enumerate() {
        if i == 1 {
            since = elapsed();
        }
        if i > 0 && elapsed().saturating_sub(since) > EXTRA_TIME {
            tracing::info!(made = i, of = pictures.len(), "the warm-up takes long, and ends here");
            break;
        }
        let go_on = |stage: usize| go_on(STAGES * i + stage, all);
        match make(pipeline, model, picture, &go_on) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if i == 0 => return Err(error),
            Err(error) => {
                tracing::warn!(size = ?picture.size, "the warm-up ends early: {error}");
                break;
            }
        }
    }
    Ok(go_on(all, all))
}

/// How quick a picture is made by a model that is warm. `sync` waits until the device has done what it
/// was given. `None` if it cannot be measured, which is no reason not to serve.
pub(crate) fn pace(
    pipeline: &mut dyn Pipeline,
    model: &ModelId,
    picture: &WarmPicture,
    elapsed: &dyn Fn() -> Duration,
    sync: &dyn Fn(),
) -> Option<PicturePace> {
    sync();
    let begun = elapsed();
    let (stepping, stepped) = (Cell::new(begun), Cell::new(begun));
    let mark = |stage: usize| {
        sync();
        match stage {
            1 => stepping.set(elapsed()),
            2 => stepped.set(elapsed()),
            _ => {}
        }
        true
    };
    make(pipeline, model, picture, &mark).ok()?;
    let ms = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1000.0;
    let beside_ms = ms(begun, stepping.get()) + ms(stepped.get(), elapsed());
    let [width, height] = picture.size;
    let (step_ms, pixels) = (ms(stepping.get(), stepped.get()), width.saturating_mul(height));
    Some(PicturePace { step_ms, beside_ms, pixels, guided: picture.guided })
}

/// One step of a picture, and its decoder.
fn make(
    pipeline: &mut dyn Pipeline,
    model: &ModelId,
    picture: &WarmPicture,
    go_on: &dyn Fn(usize) -> bool,
) -> Result<bool, DiffusionError> {
    let [width, height] = picture.size;
    let mut job = ImageJob { width, height, steps: 1, ..ImageJob::new(model.clone(), "", width) };
    if !picture.guided {
        job.guidance = 1.0;
    }
    if !go_on(0) {
        return Ok(false);
    }
    let mut made = pipeline.begin(&job)?;
    if !go_on(1) {
        return Ok(false);
    }
    made.set_guidance(picture.plan.guidance);
    made.step()?;
    if !go_on(2) {
        return Ok(false);
    }
    // Random latents need not make a picture of numbers.
    drop(made.decode(picture.plan.decoding)?);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use burn::tensor::Device;
    use neurino_diffusion::ImageSource;
    use neurino_diffusion::checkpoint::{Loading, Precision};
    use neurino_diffusion::memory::Dims;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn planned(family: Family, left_bytes: u64) -> Vec<WarmPicture> {
        let dims = match family {
            Family::Sd15 => Dims::sd15(),
            Family::Sdxl => Dims::sdxl(),
            Family::Flux => Dims::flux(),
        };
        let memory = ImageMemory::new(8 * GIB, GIB, dims).on_card(true);
        let guided = family != Family::Flux;
        let size = [family.native_side(); 2];
        let first = WarmPicture { size, guided, plan: Plan::default() };
        pictures(family, &memory, Residence::Stay, first, left_bytes)
    }

    #[test]
    fn every_usual_size_is_of_a_class_that_was_warmed_up() {
        for family in [Family::Sd15, Family::Sdxl, Family::Flux] {
            let warm = planned(family, 64 * GIB);
            for size in usual_sizes(family) {
                let known = warm.iter().any(|warm| class(warm.size, 8) == class(*size, 8));
                assert!(known, "{family:?} {size:?}");
            }
            assert!(warm.iter().any(|warm| !warm.guided), "{family:?}");
            // Few enough to be waited for.
            assert!((3..=6).contains(&warm.len()), "{family:?}: {warm:?}");
            assert_eq!(warm[0].size, [family.native_side(); 2]);
        }
    }

    #[test]
    fn sizes_without_memory_are_left_out() {
        let roomy = planned(Family::Sd15, 64 * GIB);
        assert_eq!(planned(Family::Sd15, GIB / 2), roomy[..1]);
    }

    #[test]
    fn the_first_picture_is_made_and_the_others_while_there_is_time() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
        let source = ImageSource::open(&folder).expect("a model");
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Stored);
        let mut pipeline = source.load(&loading).expect("it loads");
        let model = ModelId::new("tiny").expect("an id");
        let plan = Plan::default();
        let warm = |size| WarmPicture { size, guided: true, plan };
        let impossible = warm([8192, 8192]);
        let list = [warm([64, 64]), warm([64, 96]), warm([96, 64])];
        let mut made = |list: &[WarmPicture], tick: Duration, stop_at: usize| {
            let (now, seen) = (Cell::new(Duration::ZERO), RefCell::new(Vec::new()));
            let elapsed = || {
                now.set(now.get() + tick);
                now.get()
            };
            let go_on = |done: usize, of: usize| {
                seen.borrow_mut().push((done, of));
                done < stop_at
            };
            let done = warm_up(pipeline.as_mut(), &model, list, &elapsed, &go_on);
            (done, seen.into_inner())
        };
        let (done, seen) = made(&list, Duration::from_millis(1), 100);
        assert!(matches!(done, Ok(true)));
        assert_eq!(seen, (0..=9).map(|done| (done, 9)).collect::<Vec<_>>());
        // A slow card makes one beside the first at most.
        let (done, seen) = made(&list, EXTRA_TIME, 100);
        assert!(matches!(done, Ok(true)) && seen.last() == Some(&(9, 9)), "{seen:?}");
        assert!(!seen.contains(&(7, 9)), "{seen:?}");
        // A cancel ends it, and so does a picture that cannot be made; the first one has to be.
        assert!(matches!(made(&list, Duration::ZERO, 4).0, Ok(false)));
        let (done, seen) = made(&[list[0], impossible, list[1]], Duration::ZERO, 100);
        assert!(matches!(done, Ok(true)) && !seen.contains(&(6, 9)), "{seen:?}");
        assert!(made(&[impossible], Duration::ZERO, 100).0.is_err());

        let (now, syncs) = (Cell::new(0), Cell::new(0));
        let elapsed = || Duration::from_millis(now.replace(now.get() + 10));
        let sync = || syncs.set(syncs.get() + 1);
        let mut paced = |warm| pace(pipeline.as_mut(), &model, &warm, &elapsed, &sync);
        let expected = PicturePace { step_ms: 10.0, beside_ms: 20.0, pixels: 4096, guided: true };
        assert_eq!((paced(list[0]), syncs.get()), (Some(expected), 4));
        assert_eq!(paced(impossible), None);
    }
}
