//! A device that runs out of memory while a picture is made.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::sync::Mutex;

use burn::tensor::Tensor;
use neurino_core::ModelId;
use neurino_diffusion::checkpoint::Precision;
use neurino_diffusion::pipeline::{LoraFile, PipelineFacts};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::{JobEvent, JobStream};
use crate::outlet::Outlet;

/// What a device has memory for, and what was tried.
#[derive(Default)]
struct Card {
    /// Both halves of a step at once.
    together: bool,
    /// A whole picture's decoding.
    whole: bool,
    /// A picture in tiles.
    tiled: bool,
    tried: Mutex<Vec<&'static str>>,
}

impl Card {
    fn ask(&self, what: &'static str, has_memory: bool) -> Result<(), DiffusionError> {
        self.tried.lock().unwrap().push(what);
        if has_memory {
            return Ok(());
        }
        let reason = "out of device memory allocating 9 bytes".to_owned();
        Err(DiffusionError::Nn(NnError::Device { reason }))
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
    fn set_guidance(&mut self, guidance: Guidance) {
        self.guidance = guidance;
    }
    fn step(&mut self) -> Result<(), DiffusionError> {
        match self.guidance {
            Guidance::Together => self.card.ask("together", self.card.together)?,
            Guidance::InTurn => self.card.ask("in turn", true)?,
        }
        self.done += 1;
        Ok(())
    }
    fn preview(&self) -> Result<RgbImage, DiffusionError> {
        Err(DiffusionError::NotFinite)
    }
    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
        match decoding {
            Decoding::Whole => self.card.ask("whole", self.card.whole)?,
            Decoding::Tiled => self.card.ask("tiled", self.card.tiled)?,
        }
        Ok(Tensor::zeros([1, 64, 64, 3], &Device::flex()))
    }
    fn latents(&self) -> &[f32] {
        &[]
    }
    fn output(&self) -> &[f32] {
        &[]
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

/// Makes a picture on a card that seems to have memory for everything.
async fn made(card: Card) -> (Result<(), EngineErrorCode>, Vec<&'static str>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd/sd15");
    let source = Arc::new(ImageSource::open(&file).unwrap());
    let (card, memory) = (Arc::new(card), source.memory(Precision::Stored));
    let facts = PipelineFacts { family: source.family(), vae_factor: 8, weights_bytes: 1 };
    let painter = Box::new(Painter { card: Arc::clone(&card), facts });
    let mut pictures = Pictures::new(painter, memory, source, Device::flex());
    let (job, mut stream) = job();
    assert!(pictures.begin(job).is_none());
    let free_bytes = u64::MAX / 2;
    let plenty = DeviceMemory { free_bytes, total_bytes: free_bytes, is_cpu: true };
    while !pictures.is_idle() {
        pictures.step(&|| plenty, |_| {}).into_iter().for_each(Ended::tell);
    }
    let mut result = Err(EngineErrorCode::Internal);
    while let Some(event) = stream.recv().await {
        match event {
            JobEvent::Finished { .. } => result = Ok(()),
            JobEvent::Failed { error } => result = Err(error.code),
            _ => {}
        }
    }
    let tried = card.tried.lock().unwrap().clone();
    (result, tried)
}

#[tokio::test]
async fn a_lack_of_memory_is_met_with_the_next_cheaper_plan() {
    let plenty = || Card { together: true, whole: true, tiled: true, ..Card::default() };
    assert_eq!(made(plenty()).await, (Ok(()), vec!["together", "together", "whole"]));

    let steps = Card { together: false, ..plenty() };
    assert_eq!(made(steps).await, (Ok(()), vec!["together", "in turn", "in turn", "whole"]));

    let last = Card { whole: false, ..plenty() };
    assert_eq!(made(last).await, (Ok(()), vec!["together", "together", "whole", "tiled"]));
}

#[tokio::test]
async fn where_no_plan_is_cheap_enough_the_job_is_refused_with_a_type() {
    let none = Card { together: true, ..Card::default() };
    let refused = Err(EngineErrorCode::OutOfMemory);
    assert_eq!(made(none).await, (refused, vec!["together", "together", "whole", "tiled"]));
}
