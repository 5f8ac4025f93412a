//! Denoisers whose layers come to the device one by one: the same pictures, and no more on the device than
//! was planned.

use std::sync::Arc;

use burn::tensor::Device;
use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::checkpoint::streaming::Conveyor;
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::pipeline::{Decoding, Guidance, LoraFile, Pipeline, Residence};
use neurino_diffusion::source::Changes;
use neurino_diffusion::vae::Tiling;
use neurino_diffusion::{DiffusionError, ImageSource, RgbImage};
use neurino_nn::device::{download, upload};

use crate::fixture;

const STEPS: u32 = 2;

fn job(prompt: &str) -> ImageJob {
    let model = ModelId::new("tiny").unwrap();
    ImageJob { steps: STEPS, seed: 9, guidance: 5.0, ..ImageJob::new(model, prompt, 64) }
}

fn picture(pipeline: &mut dyn Pipeline) -> RgbImage {
    let mut run = pipeline.begin(&job("a small red cat")).unwrap();
    while run.done() < run.steps() {
        run.step().unwrap();
    }
    run.finish(Decoding::Whole).unwrap()
}

fn lora(folder: &str, name: &str) -> LoraFile {
    LoraFile { path: fixture(folder).join(format!("lora_{name}.safetensors")), scale: 0.8 }
}

/// A model whose layers stream, and what brings them.
fn streaming(
    source: &Arc<ImageSource>,
    precision: Precision,
) -> (Box<dyn Pipeline>, Arc<Conveyor>) {
    let device = Device::flex();
    let loading = Loading::quiet(&device, precision).streaming();
    let pipeline = source.load_as(&loading, Residence::Stream).unwrap();
    (pipeline, Arc::clone(loading.conveyor().unwrap()))
}

/// Holds a model whose layers stream to the same one with all of them there; returns how many stream.
fn compare(source: ImageSource, precision: Precision) -> usize {
    let source = Arc::new(source);
    let device = Device::flex();
    let mut stays = source.load_as(&Loading::quiet(&device, precision), Residence::Stay).unwrap();
    let (mut streams, conveyor) = streaming(&source, precision);
    let (of_loras, layers) = (conveyor.brought(), conveyor.layers());
    assert_eq!(picture(streams.as_mut()).to_png(), picture(stays.as_mut()).to_png());

    // Each came once a step, so in time for its turn, and two at most were there together.
    let brought = conveyor.brought() - of_loras;
    assert_eq!(brought, u64::from(STEPS) * layers as u64);
    let (peak, window) = (conveyor.peak_bytes(), conveyor.window_bytes());
    assert!((window / 2..=window).contains(&peak), "{peak} of {window}");
    assert_eq!(conveyor.held_bytes(), 0, "between two steps none is there");
    assert!(conveyor.peak_bytes() < conveyor.host_bytes());

    let memory = source.memory(precision);
    let near = |planned: u64, found: u64, what: &str| {
        let share = planned as f64 / found as f64;
        assert!((share - 1.0).abs() < 0.01, "{what}: {planned} planned, {found} found");
    };
    // The decoder has a conveyor of its own.
    let layers_bytes = memory.host_bytes(Residence::Stream) - memory.decoder_bytes();
    near(layers_bytes, conveyor.host_bytes(), "host");
    let weights_bytes = streams.facts().weights_bytes;
    near(memory.step_weights_bytes(Residence::Stream), weights_bytes, "weights on the device");
    assert!(weights_bytes < stays.facts().weights_bytes);
    layers
}

#[test]
fn pictures_are_the_same_bit_for_bit() {
    // Resnets and blocks of transformers: 22 and 16, 17 and 17; 2 and 3 blocks.
    for (folder, layers) in [("sd/sd15", 38), ("sd/sdxl", 34), ("flux", 5)] {
        for precision in [Precision::Stored, Precision::Half] {
            let source = ImageSource::open(&fixture(folder)).unwrap();
            assert_eq!(compare(source, precision), layers, "{folder} {precision:?}");
        }
    }
}

#[test]
fn packed_weights_and_low_rank_updates_stream_the_same() {
    let packed = Changes {
        transformer: Some(fixture("flux/transformer_nf4")),
        text_encoder_2: Some(fixture("flux/text_encoder_2_hqq")),
        ..Changes::default()
    };
    let source = ImageSource::open_with(&fixture("flux"), &packed).unwrap();
    compare(source, Precision::Stored);
    for (folder, name) in [("sd/sd15", "kohya"), ("sd/sd15", "peft"), ("sd/sdxl", "kohya")] {
        let changes = Changes { loras: vec![lora(folder, name)], ..Changes::default() };
        let source = ImageSource::open_with(&fixture(folder), &changes).unwrap();
        compare(source, Precision::Stored);
    }
}

#[test]
fn low_rank_updates_change_while_layers_stream() {
    for (folder, other) in [("sd/sd15", "sd/sdxl"), ("sd/sdxl", "sd/sd15")] {
        let source = Arc::new(ImageSource::open(&fixture(folder)).unwrap());
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Stored);
        let mut stays = source.load_as(&loading, Residence::Stay).unwrap();
        let (mut streams, _) = streaming(&source, Precision::Stored);
        let plain = picture(streams.as_mut());
        let loras = [lora(folder, "kohya"), lora(folder, "peft")];
        stays.set_loras(&loras).unwrap();
        streams.set_loras(&loras).unwrap();
        let changed = picture(streams.as_mut());
        assert_ne!(changed, plain, "{folder}");
        assert_eq!(picture(stays.as_mut()), changed, "{folder}");
        let refused = streams.set_loras(&[lora(other, "kohya")]);
        assert!(matches!(refused, Err(DiffusionError::Lora(_))), "{refused:?}");
        streams.set_loras(&[]).unwrap();
        assert_eq!(picture(streams.as_mut()), plain, "{folder}");
    }
}

#[test]
fn a_picture_given_up_leaves_nothing_on_the_device() {
    let source = Arc::new(ImageSource::open(&fixture("sd/sd15")).unwrap());
    let (mut streams, conveyor) = streaming(&source, Precision::Stored);
    let whole = picture(streams.as_mut());
    let before = conveyor.brought();
    let mut run = streams.begin(&job("a small red cat")).unwrap();
    run.set_guidance(Guidance::InTurn);
    run.step().unwrap();
    drop(run);
    assert_eq!(conveyor.held_bytes(), 0);
    // Both halves of the one step that was begun, and nothing of the next.
    assert_eq!(conveyor.brought() - before, 2 * conveyor.layers() as u64);
    assert_eq!(picture(streams.as_mut()), whole);
}

#[test]
fn a_decoder_that_visits_comes_once_a_picture_and_makes_the_same() {
    let device = Device::flex();
    for folder in ["sd/sd15", "sd/sdxl", "flux"] {
        let source = ImageSource::open(&fixture(folder)).unwrap();
        let loading = Loading::quiet(&device, Precision::Half);
        let stays = source.load_decoder(&loading).unwrap();
        let visiting = loading.visiting();
        let visits = source.load_decoder(&visiting).unwrap();
        assert!(visits.decoder_visits() && !stays.decoder_visits());
        let conveyor = visiting.conveyor().unwrap();
        assert_eq!((conveyor.held_bytes(), conveyor.layers()), (0, 1));
        assert_eq!(conveyor.host_bytes(), loading.held_bytes());

        let channels = stays.config().latent_channels;
        let values: Vec<f32> = (0..20 * 12 * channels).map(|i| (i as f32).sin()).collect();
        let latents = upload(values, [1, 20, 12, channels], &device);
        let before = conveyor.brought();
        let tiling = Tiling { side: 8, overlap: 2 };
        let pictures = [&stays, &visits].map(|vae| {
            let whole = vae.decode(latents.clone());
            let tiled = vae.decode_tiled(latents.clone(), tiling).unwrap();
            [whole, tiled].map(|picture| download(picture).unwrap())
        });
        assert_eq!(pictures[0], pictures[1], "{folder}");
        assert_eq!(conveyor.brought() - before, 2, "{folder}");
        assert_eq!(conveyor.held_bytes(), 0);
    }
}

#[test]
fn with_encoders_and_decoder_away_pictures_and_previews_are_the_same() {
    let device = Device::flex();
    for folder in ["sd/sd15", "sd/sdxl", "flux"] {
        let source = Arc::new(ImageSource::open(&fixture(folder)).unwrap());
        let load = |residence| {
            source.load_as(&Loading::quiet(&device, Precision::Half), residence).unwrap()
        };
        let (mut stays, mut visits) = (load(Residence::Stay), load(Residence::VisitAll));
        let memory = source.memory(Precision::Half);
        let (planned, held) =
            (memory.resident_bytes(Residence::VisitAll), visits.facts().weights_bytes);
        let share = planned as f64 / held as f64;
        assert!((share - 1.0).abs() < 0.01, "{folder}: {planned} planned, {held} held");
        let previews = [&mut stays, &mut visits].map(|pipeline| {
            let run = pipeline.begin(&ImageJob { preview: true, ..job("a cat") }).unwrap();
            run.preview().unwrap()
        });
        assert_eq!(previews[0], previews[1], "{folder}");
        assert_eq!(picture(visits.as_mut()), picture(stays.as_mut()), "{folder}");
    }
}
