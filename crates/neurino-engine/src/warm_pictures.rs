//! What a card does for the first time is slow: it compiles and tunes. Before an image model is ready,
//! pictures that are usually asked for are made and thrown away, so that no paid one waits for that.
//!
//! burn tunes by lengths rounded up to powers of two, so that one picture stands for a whole class
//! ([`Warmth::mark`]). The model's own size comes first and has to succeed; the others are made while there is
//! time, and one that finds no memory ends them. What was not made then is made before the first job that is
//! of its class (`image/warming.rs`).

use std::cell::Cell;
use std::time::Duration;

use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::memory::{Fit, ImageMemory};
use neurino_diffusion::pipeline::{Decoding, Family, Guidance, Pipeline, Plan, Residence};
use neurino_diffusion::{DiffusionError, ImageSource};
use neurino_nn::Fence;

use crate::api::PicturePace;
use crate::warmed::{Warmed, fingerprint};

/// How long the pictures beside the first one may take together before no further one is begun.
pub(crate) const EXTRA_TIME: Duration = Duration::from_mins(1);
/// Stages of a picture: prompt, step, decoder.
const STAGES: usize = 3;
/// Words of most prompts; of a word there is a token.
pub(crate) const USUAL_WORDS: usize = 40;

/// A picture of a warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WarmPicture {
    /// Width and height.
    pub(crate) size: [u32; 2],
    /// Length of its prompt.
    pub(crate) words: usize,
    /// Whether its steps are computed with the prompt and without it.
    pub(crate) guided: bool,
    /// How it is computed.
    pub(crate) plan: Plan,
}

impl WarmPicture {
    /// A job that comes to this picture.
    pub(crate) fn job(&self, model: &ModelId) -> ImageJob {
        let ([width, height], prompt) = (self.size, "a ".repeat(self.words));
        let mut job = ImageJob { height, steps: 1, ..ImageJob::new(model.clone(), prompt, width) };
        if !self.guided {
            job.guidance = 1.0;
        }
        job
    }
}

/// Which classes of pictures a model was warmed up for.
#[derive(Debug)]
pub(crate) struct Warmth {
    warmed: Warmed,
    /// The index of the model's device.
    device: usize,
    /// The model's family, and a number for the shapes and formats of all its layers and updates.
    kind: String,
}

impl Warmth {
    /// That of the model of `source` on a device, by its index.
    pub(crate) fn new(warmed: Warmed, device: usize, source: &ImageSource) -> Self {
        Self { warmed, device, kind: kind(source) }
    }

    /// The model has the low-rank updates of `source` now.
    pub(crate) fn change_to(&mut self, source: &ImageSource) {
        self.kind = kind(source);
    }

    /// The mark of the class of a job's picture that is computed by `plan`: what is tuned alike. That is the
    /// model with the ranks of its updates, the rounded sides and number of latent pixels and length of the
    /// prompt, and what goes through the networks at once.
    ///
    /// # Errors
    /// Those of reading the job's prompts.
    pub(crate) fn mark(
        &self,
        pipeline: &dyn Pipeline,
        job: &ImageJob,
        plan: Plan,
    ) -> Result<String, DiffusionError> {
        let facts = pipeline.facts();
        let [width, height, pixels] = class(pipeline.picture_size(job), facts.vae_factor);
        let tokens = pipeline.prompt_tokens(job)?.next_power_of_two();
        let sides = match plan.guidance {
            _ if facts.family == Family::Flux || job.guidance <= 1.0 => "alone",
            Guidance::Together => "together",
            Guidance::InTurn => "in-turn",
        };
        let decoding = match plan.decoding {
            Decoding::Whole => "whole",
            Decoding::Tiled => "tiled",
            Decoding::SmallTiles => "small-tiles",
        };
        let Self { device, kind, .. } = self;
        Ok(format!("picture {device} {kind} {width}x{height} {pixels} {tokens} {sides} {decoding}"))
    }

    /// Whether a class was warmed up.
    pub(crate) fn has(&self, mark: &str) -> bool {
        self.warmed.has(mark)
    }

    /// A class was warmed up.
    pub(crate) fn add(&self, mark: &str) {
        self.warmed.add(mark);
    }
}

fn kind(source: &ImageSource) -> String {
    format!("{} {:016x}", source.family().name(), fingerprint(&source.layout()))
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

/// Lengths that prompts of a family have beside the usual one, in words, as far as the network sees a
/// difference: Stable Diffusion 1.5 fills prompts up to whole pieces, SDXL takes them as they are, and Flux
/// always reads as much.
fn other_words(family: Family) -> &'static [usize] {
    match family {
        Family::Sd15 => &[100],
        Family::Sdxl => &[12, 25, 70, 140, 260],
        Family::Flux => &[],
    }
}

/// What sizes have in common that are tuned alike: the rounded sides and number of latent pixels.
fn class([width, height]: [u32; 2], vae_factor: u32) -> [u32; 3] {
    let [width, height] = [width, height].map(|side| side.div_ceil(vae_factor.max(1)));
    [width, height, width.saturating_mul(height)].map(u32::next_power_of_two)
}

/// The pictures of a warm-up: `first`; one of each class of sizes that fits into `left_bytes` beside the
/// weights; one without guidance; longer and shorter prompts. With `all`, such prompts of every class of
/// sizes, and the cheaper ways to compute the first.
pub(crate) fn pictures(
    family: Family,
    memory: &ImageMemory,
    residence: Residence,
    first: WarmPicture,
    left_bytes: u64,
    all: bool,
) -> Vec<WarmPicture> {
    let factor = u32::try_from(memory.dims().vae().factor()).unwrap_or(u32::MAX);
    let mut found = vec![first];
    let mut add = |picture: WarmPicture| {
        let same = |warm: &WarmPicture| {
            let size = class(warm.size, factor) == class(picture.size, factor);
            size && WarmPicture { size: picture.size, ..*warm } == picture
        };
        let needs = memory.picture(residence, picture.size, picture.guided);
        if !found.iter().any(same) && needs.peak_bytes(picture.plan) <= left_bytes {
            found.push(picture);
        }
    };
    let planned = |size: [u32; 2], guided: bool| {
        let fit = memory.picture(residence, size, guided).fit(left_bytes);
        let picture = |plan| WarmPicture { size, guided, plan, ..first };
        if let Fit::As(plan) = fit { Some(picture(plan)) } else { None }
    };
    let sizes = || usual_sizes(family).iter().filter_map(|size| planned(*size, first.guided));
    sizes().for_each(&mut add);
    planned(first.size, false).into_iter().for_each(&mut add);
    for words in other_words(family) {
        add(WarmPicture { words: *words, ..first });
    }
    if !all {
        return found;
    }
    for words in other_words(family) {
        sizes().for_each(|picture| add(WarmPicture { words: *words, ..picture }));
    }
    for guidance in [Guidance::Together, Guidance::InTurn] {
        for decoding in [Decoding::Whole, Decoding::Tiled, Decoding::SmallTiles] {
            if first.guided || guidance == Guidance::Together {
                add(WarmPicture { plan: Plan { guidance, decoding }, ..first });
            }
        }
    }
    found
}

/// Makes those of the `pictures` whose class is cold, and the first one in any case: that the model makes
/// pictures is to be known, and how quick. `false` if `go_on` said no, which hears how much is done of how much.
///
/// - `limit`: how long those beside the first may take before no further one is begun
/// - `elapsed`: since the warm-up began
pub(crate) fn warm_up(
    pipeline: &mut dyn Pipeline,
    model: &ModelId,
    (pictures, warmth): (&[WarmPicture], &Warmth),
    limit: Duration,
    elapsed: &dyn Fn() -> Duration,
    go_on: &dyn Fn(usize, usize) -> bool,
) -> Result<bool, DiffusionError> {
    let all = STAGES * pictures.len();
    let mut since = Duration::ZERO;
    for (i, picture) in pictures.iter().enumerate() {
        let job = picture.job(model);
        let mark = warmth.mark(pipeline, &job, picture.plan)?;
        if i == 1 {
            since = elapsed();
        }
        if i > 0 && warmth.has(&mark) {
            continue;
        }
        if i > 0 && elapsed().saturating_sub(since) > limit {
            tracing::info!(made = i, of = pictures.len(), "the warm-up takes long, and ends here");
            break;
        }
        let go_on = |stage: usize| go_on(STAGES * i + stage, all);
        match make(pipeline, &job, picture.plan, &go_on) {
            Ok(true) => warmth.add(&mark),
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
    make(pipeline, &picture.job(model), picture.plan, &mark).ok()?;
    let ms = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1000.0;
    let beside_ms = ms(begun, stepping.get()) + ms(stepped.get(), elapsed());
    let [width, height] = picture.size;
    let (step_ms, pixels) = (ms(stepping.get(), stepped.get()), width.saturating_mul(height));
    Some(PicturePace { step_ms, beside_ms, pixels, guided: picture.guided })
}

/// One step of a job's picture, and its decoder. `go_on` hears of each stage before it begins, and may end it.
///
/// - `job`: of one step
pub(crate) fn make(
    pipeline: &mut dyn Pipeline,
    job: &ImageJob,
    plan: Plan,
    go_on: &dyn Fn(usize) -> bool,
) -> Result<bool, DiffusionError> {
    if !go_on(0) {
        return Ok(false);
    }
    let mut made = pipeline.begin(job)?;
    if !go_on(1) {
        return Ok(false);
    }
    made.set_guidance(plan.guidance);
    made.step()?;
    // Previews decode a small picture, once a model. Without numbers there is none, which is no matter here.
    drop(made.preview());
    if !go_on(2) {
        return Ok(false);
    }
    // Random latents need not make a picture of numbers; that it was computed is known behind it.
    let picture = made.decode(plan.decoding)?;
    Fence::behind(&picture.flatten(0, 3))?.wait()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use burn::tensor::Device;
    use neurino_diffusion::checkpoint::{Loading, Precision};
    use neurino_diffusion::memory::Dims;
    use neurino_diffusion::pipeline::LoraFile;
    use neurino_diffusion::source::Changes;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn planned(family: Family, left_bytes: u64, all: bool) -> Vec<WarmPicture> {
        let dims = match family {
            Family::Sd15 => Dims::sd15(),
            Family::Sdxl => Dims::sdxl(),
            Family::Flux => Dims::flux(),
        };
        let memory = ImageMemory::new(8 * GIB, GIB, dims).on_card(true);
        let guided = family != Family::Flux;
        let size = [family.native_side(); 2];
        let first = WarmPicture { size, words: USUAL_WORDS, guided, plan: Plan::default() };
        pictures(family, &memory, Residence::Stay, first, left_bytes, all)
    }

    #[test]
    fn every_usual_size_is_of_a_class_that_was_warmed_up() {
        for family in [Family::Sd15, Family::Sdxl, Family::Flux] {
            let warm = planned(family, 64 * GIB, false);
            for size in usual_sizes(family) {
                let known = warm.iter().any(|warm| class(warm.size, 8) == class(*size, 8));
                assert!(known, "{family:?} {size:?}");
            }
            assert!(warm.iter().any(|warm| !warm.guided), "{family:?}");
            // Few enough to be waited for.
            let of_sizes = warm.iter().filter(|warm| warm.words == USUAL_WORDS).count();
            assert!((3..=6).contains(&of_sizes), "{family:?}: {warm:?}");
            assert_eq!(warm.len() - of_sizes, other_words(family).len());
            assert_eq!(warm[0].size, [family.native_side(); 2]);

            // Whoever has the time warms up prompts of every size, and every plan.
            let all = planned(family, 64 * GIB, true);
            assert!(all.starts_with(&warm));
            let sizes = of_sizes - usize::from(family != Family::Flux);
            let ways = if family == Family::Flux { 3 } else { 6 };
            let expect = sizes * (1 + other_words(family).len()) + ways - 1;
            assert_eq!(all.len(), expect + of_sizes - sizes, "{family:?}: {all:?}");
        }
    }

    #[test]
    fn sizes_without_memory_are_left_out() {
        let roomy = planned(Family::Sd15, 64 * GIB, true);
        assert_eq!(planned(Family::Sd15, GIB / 2, true), roomy[..1]);
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
        let warm = |size| WarmPicture { size, words: USUAL_WORDS, guided: true, plan };
        let impossible = warm([8192, 8192]);
        let list = [warm([64, 64]), warm([64, 96]), warm([96, 64])];
        let cold = || Warmth::new(Warmed::default(), 0, &source);
        let mut made_with = |warmth: &Warmth, list: &[WarmPicture], tick: Duration, stop_at| {
            let (now, seen) = (Cell::new(Duration::ZERO), RefCell::new(Vec::new()));
            let elapsed = || {
                now.set(now.get() + tick);
                now.get()
            };
            let go_on = |done: usize, of: usize| {
                seen.borrow_mut().push((done, of));
                done < stop_at
            };
            let list = (list, warmth);
            let done = warm_up(pipeline.as_mut(), &model, list, EXTRA_TIME, &elapsed, &go_on);
            (done, seen.into_inner())
        };
        let warmth = cold();
        let (done, seen) = made_with(&warmth, &list, Duration::ZERO, 100);
        assert!(matches!(done, Ok(true)) && seen.len() == 10, "{seen:?}");
        // What was made once is not made again, but for the first.
        let (done, seen) = made_with(&warmth, &list, Duration::ZERO, 100);
        assert!(matches!(done, Ok(true)));
        assert_eq!(seen, [(0, 9), (1, 9), (2, 9), (9, 9)]);
        let mut made =
            |list: &[WarmPicture], tick, stop_at| made_with(&cold(), list, tick, stop_at);
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
    #[test]
    fn pictures_that_are_tuned_otherwise_have_marks_of_their_own() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let open = |name: &str, lora: Option<&str>| {
            let folder = fixtures.join(name);
            let path = lora.map(|lora| folder.join(format!("lora_{lora}.safetensors")));
            let loras = path.map(|path| LoraFile { path, scale: 1.0 }).into_iter().collect();
            let changes = Changes { loras, ..Changes::default() };
            ImageSource::open_with(&folder, &changes).expect("a model")
        };
        let device = Device::flex();
        let plain = open("sd/sd15", None);
        let loading = Loading::quiet(&device, Precision::Stored);
        let pipeline = plain.load(&loading).expect("it loads");
        let mark = |source: &ImageSource, device: usize, picture: WarmPicture| {
            let job = picture.job(&ModelId::new("tiny").expect("an id"));
            let warmth = Warmth::new(Warmed::default(), device, source);
            warmth.mark(pipeline.as_ref(), &job, picture.plan).expect("a mark")
        };
        let plan = Plan::default();
        let usual = WarmPicture { size: [512, 512], words: 10, guided: true, plan };
        let first = mark(&plain, 0, usual);
        // Lengths round up to the same, so these are one class.
        for same in [WarmPicture { size: [504, 512], ..usual }, WarmPicture { words: 60, ..usual }]
        {
            assert_eq!(mark(&plain, 0, same), first);
        }
        let in_turn = Plan { guidance: Guidance::InTurn, ..plan };
        let tiled = Plan { decoding: Decoding::Tiled, ..plan };
        let mut others = vec![
            mark(&plain, 0, WarmPicture { size: [512, 768], ..usual }),
            mark(&plain, 0, WarmPicture { size: [2048, 128], ..usual }),
            mark(&plain, 0, WarmPicture { words: 100, ..usual }),
            mark(&plain, 0, WarmPicture { guided: false, ..usual }),
            mark(&plain, 0, WarmPicture { plan: in_turn, ..usual }),
            mark(&plain, 0, WarmPicture { plan: tiled, ..usual }),
            mark(&plain, 1, usual),
            mark(&open("sd/sdxl", None), 0, usual),
            mark(&open("sd/sd15", Some("kohya")), 0, usual),
            first,
        ];
        let count = others.len();
        others.sort();
        others.dedup();
        assert_eq!(others.len(), count, "{others:?}");
        assert!(others.iter().all(|mark| !mark.contains('\n')));
    }
}
