//! A device that runs out of memory while a picture is made.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::Tensor;
use neurino_core::ModelId;
use neurino_diffusion::RgbImage;
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::pipeline::{Decoding, LoraFile, PipelineFacts};
use neurino_diffusion::source::Changes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::{JobEvent, JobStream};
use crate::outlet::Outlet;
use crate::warmed::Warmed;

/// What a device lacks the memory for, and what was tried.
#[derive(Default)]
struct Card {
    lacks: &'static [&'static str],
    /// What it lacks beside weights that stay or visit.
    lacks_beside: &'static [&'static str],
    residence: Mutex<Residence>,
    tried: Mutex<Vec<&'static str>>,
    /// Whether it computes a step while it is given the next.
    is_behind: bool,
    /// A job's events, which it notes among what was tried.
    hears: Mutex<Option<JobStream>>,
}

impl Card {
    fn ask(&self, what: &'static str) -> Result<(), DiffusionError> {
        let mut tried = self.tried.lock().unwrap();
        if let Some(stream) = &mut *self.hears.lock().unwrap()
            && let Ok(JobEvent::Started { .. }) = stream.try_recv()
        {
            tried.push("told");
        }
        tried.push(what);
        drop(tried);
        let beside = *self.residence.lock().unwrap() != Residence::Stream;
        if self.lacks.contains(&what) || beside && self.lacks_beside.contains(&what) {
            let reason = "out of device memory allocating 9 bytes".to_owned();
            return Err(DiffusionError::Nn(NnError::Device { reason }));
        }
        Ok(())
    }
}

/// A model that draws grey.
struct Painter {
    card: Arc<Card>,
    facts: PipelineFacts,
}

struct Painting {
    card: Arc<Card>,
    guidance: Guidance,
    done: usize,
}

impl Pipeline for Painter {
    fn facts(&self) -> &PipelineFacts {
        &self.facts
    }
    fn picture_size(&self, job: &ImageJob) -> [u32; 2] {
        [job.width, job.height]
    }
    fn begin(&mut self, _: &ImageJob) -> Result<Box<dyn Denoising>, DiffusionError> {
        self.card.ask("prompt")?;
        let card = Arc::clone(&self.card);
        Ok(Box::new(Painting { card, guidance: Guidance::Together, done: 0 }))
    }
    fn set_loras(&mut self, _: &[LoraFile]) -> Result<(), DiffusionError> {
        Ok(())
    }
}

impl Denoising for Painting {
    fn steps(&self) -> usize {
        2
    }
    fn done(&self) -> usize {
        self.done
    }
    fn computed(&self) -> usize {
        let is_behind = self.card.is_behind && self.done < self.steps();
        self.done.saturating_sub(usize::from(is_behind))
    }
    fn set_guidance(&mut self, guidance: Guidance) {
        self.guidance = guidance;
    }
    fn step(&mut self) -> Result<(), DiffusionError> {
        match self.guidance {
            Guidance::Together => self.card.ask("together")?,
            Guidance::InTurn => self.card.ask("in turn")?,
        }
        self.done += 1;
        Ok(())
    }
    fn preview(&self) -> Result<RgbImage, DiffusionError> {
        Err(DiffusionError::NotFinite)
    }
    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
        match decoding {
            Decoding::Whole => self.card.ask("whole")?,
            Decoding::Tiled => self.card.ask("tiled")?,
            Decoding::SmallTiles => self.card.ask("small tiles")?,
        }
        Ok(Tensor::zeros([1, 64, 64, 3], &Device::flex()))
    }
    fn latents(&self) -> Result<Vec<f32>, DiffusionError> {
        Ok(Vec::new())
    }
    fn output(&self) -> Result<Vec<f32>, DiffusionError> {
        Ok(Vec::new())
    }
    fn conditions(&self) -> Result<Vec<(&'static str, Vec<f32>)>, DiffusionError> {
        Ok(Vec::new())
    }
}

fn job() -> (Job, JobStream) {
    let (outlet, stream) = Outlet::new();
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let picture = ImageJob::new(ModelId::new("painter").unwrap(), "a cat", 64);
    let spec = JobSpec::Image(ImageJob { steps: 2, guidance: 7.0, ..picture });
    (Job { spec, cancel: CancellationToken::new(), outlet, place }, stream)
}

/// A model on a card that seems to have memory for everything, whose weights may be kept in `ways`.
fn pictures(card: &Arc<Card>, ways: &[Residence]) -> Pictures {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
    let source = Arc::new(ImageSource::open(&file).unwrap());
    let memory = source.memory(Precision::Stored);
    let facts = PipelineFacts { family: source.family(), vae_factor: 8, weights_bytes: 1 };
    let painter = |card: &Arc<Card>, facts: &PipelineFacts| -> Box<dyn Pipeline> {
        Box::new(Painter { card: Arc::clone(card), facts: facts.clone() })
    };
    let first = painter(card, &facts);
    let card = Arc::clone(card);
    let load_as: LoadAs = Box::new(move |_, residence, unwanted| {
        if unwanted() {
            return Err(DiffusionError::Cancelled);
        }
        *card.residence.lock().unwrap() = residence;
        card.ask(match residence {
            Residence::Stay => "stay",
            Residence::Visit => "visit",
            Residence::VisitAll => "visit all",
            Residence::Stream => "stream",
        })?;
        Ok(painter(&card, &facts))
    });
    let ways = Ways { residences: ways.to_vec(), load_as, host_free_bytes: || u64::MAX };
    Pictures::new(first, ways, memory, source, Device::flex(), Pulse::default())
}

fn memory(free_bytes: u64) -> DeviceMemory {
    DeviceMemory { free_bytes, total_bytes: 0, is_cpu: false }
}

/// Computes until nothing is left to do.
fn serve(pictures: &mut Pictures, free: DeviceMemory) {
    while !pictures.is_idle() {
        pictures.sweep().into_iter().for_each(Ended::tell);
        pictures.step(&|| free, |_| {}).into_iter().for_each(Ended::tell);
    }
}

async fn outcome(mut stream: JobStream) -> Result<(), EngineErrorCode> {
    let mut result = Err(EngineErrorCode::Internal);
    while let Some(event) = stream.recv().await {
        match event {
            JobEvent::Finished { .. } => result = Ok(()),
            JobEvent::Failed { error } => result = Err(error.code),
            _ => {}
        }
    }
    result
}

/// Makes a picture.
async fn made(card: Card, ways: &[Residence]) -> (Result<(), EngineErrorCode>, Vec<&'static str>) {
    let card = Arc::new(card);
    let mut pictures = pictures(&card, ways);
    let (job, stream) = job();
    assert!(pictures.begin(job).is_none());
    serve(&mut pictures, memory(u64::MAX / 2));
    let tried = card.tried.lock().unwrap().clone();
    (outcome(stream).await, tried)
}

const STAY: &[Residence] = &[Residence::Stay];

#[tokio::test]
async fn a_lack_of_memory_is_met_with_the_next_cheaper_plan() {
    let tried = vec!["prompt", "together", "together", "whole"];
    assert_eq!(made(Card::default(), STAY).await, (Ok(()), tried));

    let steps = Card { lacks: &["together"], ..Card::default() };
    let tried = vec!["prompt", "together", "in turn", "in turn", "whole"];
    assert_eq!(made(steps, STAY).await, (Ok(()), tried));

    let last = Card { lacks: &["whole"], ..Card::default() };
    let tried = vec!["prompt", "together", "together", "whole", "tiled"];
    assert_eq!(made(last, STAY).await, (Ok(()), tried));

    let tiles = Card { lacks: &["whole", "tiled"], ..Card::default() };
    let tried = vec!["prompt", "together", "together", "whole", "tiled", "small tiles"];
    assert_eq!(made(tiles, STAY).await, (Ok(()), tried));
}

/// A card that was warmed up for `warmed`, and asks for pictures of 64 x 64 usually.
fn on_card(card: &Arc<Card>, ways: &[Residence], warmed: &Warmed) -> Pictures {
    let pictures = pictures(card, ways);
    let warmth = Warmth::new(warmed.clone(), 0, &pictures.source);
    let plan = Plan::default();
    pictures.warmed(warmth, WarmPicture { size: [64; 2], words: 1, guided: true, plan })
}

/// Makes pictures of these sizes, and takes what was tried for each.
fn draws(pictures: &mut Pictures, card: &Arc<Card>, sides: &[u32]) -> Vec<Vec<&'static str>> {
    let draw = |side: &u32| {
        let (job, stream) = job();
        let JobSpec::Image(picture) = &job.spec else { panic!("it is a picture") };
        let spec = JobSpec::Image(ImageJob { width: *side, height: *side, ..picture.clone() });
        *card.hears.lock().unwrap() = Some(stream);
        assert!(pictures.begin(Job { spec, ..job }).is_none());
        serve(pictures, memory(u64::MAX / 2));
        std::mem::take(&mut *card.tried.lock().unwrap())
    };
    sides.iter().map(draw).collect()
}

#[test]
fn a_job_of_a_cold_class_begins_behind_a_picture_that_warms_it_up() {
    let (card, warmed) = (Arc::new(Card::default()), Warmed::default());
    let begun = ["told", "prompt", "together", "together", "whole"].to_vec();
    let behind = [&["prompt", "together", "whole"], &begun[..]].concat();
    let mut pictures = on_card(&card, STAY, &warmed);
    // 104 rounds up as 128 does.
    let tried = draws(&mut pictures, &card, &[64, 64, 104, 128, 256, 64]);
    let expect = [&behind, &begun, &behind, &begun, &behind, &begun];
    assert_eq!(tried.iter().collect::<Vec<_>>(), expect);
    // Another start knows it, another model does not, and a processor has nothing to warm up.
    let mut again = on_card(&card, STAY, &warmed);
    assert_eq!(draws(&mut again, &card, &[64]), std::slice::from_ref(&begun));
    let mut cold = on_card(&card, STAY, &Warmed::default());
    assert_eq!(draws(&mut cold, &card, &[64]), [behind]);
    let mut processor = self::pictures(&card, STAY);
    assert_eq!(draws(&mut processor, &card, &[64]), [begun]);
}

#[test]
fn a_plan_that_lacks_memory_is_found_wanting_before_the_job_begins() {
    let lacks = &["together", "whole"];
    let card = Arc::new(Card { lacks, ..Card::default() });
    let mut pictures = on_card(&card, STAY, &Warmed::default());
    let expect = [
        ["prompt", "together"].as_slice(),
        &["prompt", "in turn", "whole"],
        &["prompt", "in turn", "tiled"],
        &["told", "prompt", "in turn", "in turn", "tiled"],
    ];
    assert_eq!(draws(&mut pictures, &card, &[64]), [expect.concat()]);

    // Where no plan has room, the weights move, and the job has not begun before.
    let beside = &["together", "in turn"];
    let card = Arc::new(Card { lacks_beside: beside, ..Card::default() });
    let ways = &[Residence::Visit, Residence::Stream];
    let mut pictures = on_card(&card, ways, &Warmed::default());
    let expect = [
        ["prompt", "together", "prompt", "in turn", "stream"].as_slice(),
        &["prompt", "together", "whole"],
        &["told", "prompt", "together", "together", "whole"],
    ];
    assert_eq!(draws(&mut pictures, &card, &[64]), [expect.concat()]);
}

#[test]
fn a_lora_switch_warms_its_rank_up() {
    let (card, warmed) = (Arc::new(Card::default()), Warmed::default());
    let mut pictures = on_card(&card, STAY, &warmed);
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
    let with = |loras: Vec<LoraFile>| {
        ImageSource::open_with(&base, &Changes { loras, ..Changes::default() }).unwrap()
    };
    let lora = LoraFile { path: base.join("lora_kohya.safetensors"), scale: 1.0 };
    let id = ModelId::new("painter").unwrap();
    let mut switch = |loras: &[LoraFile]| {
        assert!(pictures.switch_to(with(loras.to_vec()), &|| memory(1 << 40)));
        pictures.warm_usual(&id, || false);
        std::mem::take(&mut *card.tried.lock().unwrap())
    };
    let warm = ["prompt", "together", "whole"];
    assert_eq!(switch(&[]), warm);
    assert_eq!(switch(std::slice::from_ref(&lora)), warm);
    // How strongly it acts is no matter, and both are known now.
    assert_eq!(switch(&[LoraFile { scale: 0.5, ..lora }]), [""; 0]);
    assert_eq!(switch(&[]), [""; 0]);
}

#[tokio::test]
async fn a_step_is_told_once_it_is_computed() {
    for (is_behind, expect) in [(false, vec![1, 2]), (true, vec![2])] {
        let card = Arc::new(Card { is_behind, ..Card::default() });
        let mut pictures = pictures(&card, STAY);
        let (job, mut stream) = job();
        assert!(pictures.begin(job).is_none());
        serve(&mut pictures, memory(u64::MAX / 2));
        let mut told = Vec::new();
        while let Some(event) = stream.recv().await {
            if let JobEvent::Step { step } = event {
                assert_eq!(step.steps, 2);
                told.push(step.step);
            }
        }
        assert_eq!(told, expect);
    }
}

#[tokio::test]
async fn where_no_plan_is_cheap_enough_the_job_is_refused_with_a_type() {
    let refused = || Err(EngineErrorCode::OutOfMemory);
    let none = || Card { lacks: &["whole", "tiled", "small tiles"], ..Card::default() };
    let tried = vec!["prompt", "together", "together", "whole", "tiled", "small tiles"];
    assert_eq!(made(none(), STAY).await, (refused(), tried.clone()));
    let each = [&tried[..], &["visit"], &tried, &["visit all"], &tried, &["stream"], &tried];
    assert_eq!(made(none(), Residence::ways(false)).await, (refused(), each.concat()));
}

#[tokio::test]
async fn steps_that_fit_beside_no_weights_have_them_stream() {
    let steps = Card { lacks_beside: &["together", "in turn"], ..Card::default() };
    let (result, tried) = made(steps, Residence::ways(false)).await;
    assert_eq!(result, Ok(()));
    let expect = [
        ["prompt", "together", "in turn", "visit"],
        ["prompt", "together", "in turn", "visit all"],
        ["prompt", "together", "in turn", "stream"],
        ["prompt", "together", "together", "whole"],
    ];
    assert_eq!(tried, expect.concat());

    let prompt = Card { lacks_beside: &["prompt"], ..Card::default() };
    let (result, tried) = made(prompt, &[Residence::Visit, Residence::Stream]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(tried, ["prompt", "stream", "prompt", "together", "together", "whole"]);

    // Not even the little that streaming keeps there has room.
    let nothing = Card { lacks: &["in turn", "together", "stream"], ..Card::default() };
    let (result, _) = made(nothing, Residence::ways(false)).await;
    assert_eq!(result, Err(EngineErrorCode::OutOfMemory));
}

#[tokio::test]
async fn weights_make_room_for_a_large_picture_and_come_back_behind_it() {
    let card = Arc::new(Card::default());
    let mut pictures = pictures(&card, Residence::ways(false));
    let plan = |residence| {
        let needs = pictures.memory.picture(residence, [64; 2], true);
        // So small a picture is less than what its tiles would be put together in.
        let beside = Plan { guidance: Guidance::InTurn, decoding: Decoding::Whole };
        needs.peak_bytes(beside).max(pictures.memory.reading_bytes(residence))
    };
    let away = |residence| {
        pictures.memory.resident_bytes(Residence::Stay) - pictures.memory.resident_bytes(residence)
    };
    // Enough beside the little that stays, with the memory of what goes.
    let tight = plan(Residence::Stream) - away(Residence::Stream);
    assert!(tight < plan(Residence::Visit) - away(Residence::Visit));
    let mut draw = |free_bytes: u64| {
        let (job, stream) = job();
        assert!(pictures.begin(job).is_none());
        serve(&mut pictures, memory(free_bytes + memory(0).reserve_bytes()));
        let residence = pictures.residence;
        async move { (outcome(stream).await, residence) }
    };
    assert_eq!(draw(tight).await, (Ok(()), Residence::Stream));
    assert_eq!(draw(u64::MAX / 4).await, (Ok(()), Residence::Stay));
    assert_eq!(draw(tight - 1).await.0, Err(EngineErrorCode::OutOfMemory));
}

#[tokio::test]
async fn a_job_that_nobody_wants_ends_while_the_weights_move() {
    let card = Arc::new(Card { lacks_beside: &["prompt"], ..Card::default() });
    let mut pictures = pictures(&card, &[Residence::Visit, Residence::Stream]);
    let (job, stream) = job();
    let cancel = job.cancel.clone();
    assert!(pictures.begin(job).is_none());
    let free = memory(u64::MAX / 2);
    assert!(pictures.step(&|| free, |_| {}).is_empty(), "it is begun again another way");
    cancel.cancel();
    assert!(pictures.step(&|| free, |_| {}).is_empty(), "the load gives up");
    serve(&mut pictures, free);
    assert_eq!(outcome(stream).await, Err(EngineErrorCode::Cancelled));
    assert_eq!(*card.tried.lock().unwrap(), ["prompt"]);
    // The next one finds the model where it has to be.
    let (job, stream) = self::job();
    assert!(pictures.begin(job).is_none());
    serve(&mut pictures, free);
    assert_eq!((outcome(stream).await, pictures.residence), (Ok(()), Residence::Stream));
}

/// Makes a picture with so much memory free, and says where the weights were.
async fn drawn(pictures: &mut Pictures, free_bytes: u64) -> Residence {
    let (job, stream) = job();
    assert!(pictures.begin(job).is_none());
    serve(pictures, memory(free_bytes));
    assert_eq!(outcome(stream).await, Ok(()));
    pictures.residence
}

#[tokio::test]
async fn a_way_that_lacked_memory_is_tried_again_after_some_pictures() {
    let card = Arc::new(Card { lacks_beside: &["together", "in turn"], ..Card::default() });
    let mut pictures = pictures(&card, &[Residence::Visit, Residence::Stream]);
    let free_bytes = 1 << 40;
    let tries = || {
        let tried = std::mem::take(&mut *card.tried.lock().unwrap());
        tried.iter().filter(|what| **what == "visit").count()
    };
    // The device's word of its free memory stays the same: time alone lets it be tried again, less and
    // less often.
    assert_eq!((drawn(&mut pictures, free_bytes).await, tries()), (Residence::Stream, 0));
    for wait in [PATIENCE, 2 * PATIENCE] {
        for _ in 1..wait {
            assert_eq!((drawn(&mut pictures, free_bytes).await, tries()), (Residence::Stream, 0));
        }
        assert_eq!((drawn(&mut pictures, free_bytes).await, tries()), (Residence::Stream, 1));
    }
}

#[tokio::test]
async fn a_way_that_lacked_memory_is_tried_at_once_where_there_is_more() {
    let card = Arc::new(Card { lacks_beside: &["prompt"], ..Card::default() });
    let mut pictures = pictures(&card, &[Residence::Visit, Residence::Stream]);
    let free_bytes = 1 << 40;
    assert_eq!(drawn(&mut pictures, free_bytes).await, Residence::Stream);
    card.tried.lock().unwrap().clear();
    let away = pictures.memory.resident_bytes(Residence::Visit)
        - pictures.memory.resident_bytes(Residence::Stream);
    assert_eq!(drawn(&mut pictures, free_bytes + away).await, Residence::Stream);
    assert!(!card.tried.lock().unwrap().contains(&"visit"), "that is what its layers took");
    drawn(&mut pictures, free_bytes + away + GROWN_BYTES).await;
    assert_eq!(card.tried.lock().unwrap().iter().filter(|what| **what == "visit").count(), 1);
}

#[tokio::test]
async fn what_the_pool_holds_is_given_back_before_a_picture_is_planned_cheaper() {
    let card = Arc::new(Card::default());
    let mut pictures = pictures(&card, Residence::ways(false));
    let (job, stream) = job();
    assert!(pictures.begin(job).is_none());
    // The first look finds nothing free, because the pool holds it.
    let looks = std::cell::Cell::new(0);
    let free = || {
        looks.set(looks.get() + 1);
        memory(if looks.get() > 2 { 1 << 40 } else { 0 })
    };
    while !pictures.is_idle() {
        pictures.step(&free, |_| {}).into_iter().for_each(Ended::tell);
    }
    assert_eq!((outcome(stream).await, pictures.residence), (Ok(()), Residence::Stay));
    assert_eq!(*card.tried.lock().unwrap(), ["prompt", "together", "together", "whole"]);
}

#[tokio::test]
async fn a_picture_that_nobody_wants_is_left_in_the_middle_of_a_step() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
    let source = Arc::new(ImageSource::open(&file).unwrap());
    let (device, beats) = (Device::flex(), Arc::new(AtomicU64::new(0)));
    let pulse = Pulse::counting(Arc::clone(&beats));
    let loading = Loading::quiet(&device, Precision::Stored).beating(&pulse);
    let pipeline = source.load_as(&loading, Residence::Stay).unwrap();
    let ways = Ways {
        residences: STAY.to_vec(),
        load_as: Box::new(|_, _, _| Err(DiffusionError::Cancelled)),
        host_free_bytes: || u64::MAX,
    };
    let memory_of = source.memory(Precision::Stored);
    let mut pictures = Pictures::new(pipeline, ways, memory_of, source, device, pulse);
    let free = || memory(1 << 40);
    let (first, stream) = job();
    let cancel = first.cancel.clone();
    assert!(pictures.begin(first).is_none());
    pictures.step(&free, |_| {});
    let prompt = beats.load(Ordering::Relaxed);
    pictures.step(&free, |_| {});
    let step = beats.load(Ordering::Relaxed) - prompt;
    assert!(step > 5, "{step} blocks");
    // It is unwanted before the step begins, which the step itself finds out.
    cancel.cancel();
    pictures.step(&free, |_| {});
    assert_eq!(beats.load(Ordering::Relaxed) - prompt - step, 1);
    serve(&mut pictures, free());
    assert_eq!(outcome(stream).await, Err(EngineErrorCode::Cancelled));
    // The model is whole.
    let (next, stream) = job();
    assert!(pictures.begin(next).is_none());
    serve(&mut pictures, free());
    assert_eq!(outcome(stream).await, Ok(()));
}

#[test]
fn updates_that_the_device_has_no_room_for_are_not_put_there() {
    let card = Arc::new(Card::default());
    let mut pictures = pictures(&card, STAY);
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
    let lora = LoraFile { path: base.join("lora_kohya.safetensors"), scale: 1.0 };
    let changes = Changes { loras: vec![lora], ..Changes::default() };
    let with = || ImageSource::open_with(&base, &changes).unwrap();
    let needed_bytes = with().memory(Precision::Stored).updates_bytes();
    // A card keeps half a gigabyte for others at least.
    let free = |bytes: u64| memory((512 << 20) + bytes);
    assert!(needed_bytes > 0);
    assert!(!pictures.switch_to(with(), &|| free(needed_bytes - 1)));
    assert!(pictures.switch_to(with(), &|| free(needed_bytes)));
    assert_eq!(pictures.memory.updates_bytes(), needed_bytes);
}
