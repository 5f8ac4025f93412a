//! Whole pictures: every run of the reference from its prompt to its PNG, and what else a pipeline
//! promises.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use neurino_core::job::Png;
use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::pipeline::{
    Decoding, Denoising, Family, Guidance, LoraFile, Pipeline, Residence,
};
use neurino_diffusion::source::Changes;
use neurino_diffusion::{DiffusionError, ImageSource, RgbImage, shapes};
use neurino_nn::device::download;
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::networks::changed_file;
use crate::{assert_close, fixture, floats};

/// Largest difference of latents at the end, relative to the largest.
const LATENTS_LIMIT: f32 = 1e-3;
/// The same before the first step.
const STATES_LIMIT: f32 = 1e-4;
/// Share of pixel values that are equal; the others are one apart.
const EQUAL_SHARE: f64 = 0.995;

#[derive(Deserialize)]
struct Runs {
    lora: Option<LoraSettings>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct LoraSettings {
    scale: f32,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    prompt: String,
    negative: Option<String>,
    width: u32,
    height: u32,
    steps: u32,
    guidance: f32,
    seed: u64,
    lora: Option<String>,
    #[serde(default)]
    vae: bool,
    #[serde(default)]
    quantized: bool,
}

impl Run {
    fn job(&self) -> ImageJob {
        ImageJob {
            negative_prompt: self.negative.clone().unwrap_or_default(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance: self.guidance,
            seed: self.seed,
            ..ImageJob::new(ModelId::new("tiny").unwrap(), &self.prompt, 64)
        }
    }

    fn changes(&self, folder: &Path, scale: f32) -> Changes {
        let lora = |name: &String| LoraFile {
            path: folder.join(format!("lora_{name}.safetensors")),
            scale,
        };
        Changes {
            vae: self.vae.then(|| folder.join("vae_alt.safetensors")),
            transformer: self.quantized.then(|| folder.join("transformer_nf4")),
            text_encoder_2: self.quantized.then(|| folder.join("text_encoder_2_hqq")),
            loras: self.lora.iter().map(lora).collect(),
        }
    }
}

fn runs(folder: &Path) -> Runs {
    serde_json::from_slice(&std::fs::read(folder.join("runs.json")).unwrap()).unwrap()
}

fn load(source: &ImageSource, precision: Precision) -> Box<dyn Pipeline> {
    let device = Device::flex();
    source.load(&Loading::quiet(&device, precision)).unwrap()
}

fn sd15() -> Box<dyn Pipeline> {
    load(&ImageSource::open(&fixture("sd/sd15")).unwrap(), Precision::Stored)
}

fn job(steps: u32, seed: u64) -> ImageJob {
    let model = ModelId::new("tiny").unwrap();
    ImageJob { steps, seed, guidance: 5.0, ..ImageJob::new(model, "a small red cat", 64) }
}

fn picture(pipeline: &mut dyn Pipeline, job: &ImageJob) -> RgbImage {
    let mut run = pipeline.begin(job).unwrap();
    while run.done() < run.steps() {
        run.step().unwrap();
    }
    run.finish(Decoding::Whole).unwrap()
}

#[test]
fn stable_diffusion_makes_the_references_pictures() {
    assert_eq!(all_runs("sd/sd15", Family::Sd15), 5);
}

#[test]
fn stable_diffusion_xl_makes_the_references_pictures() {
    assert_eq!(all_runs("sd/sdxl", Family::Sdxl), 4);
}

#[test]
fn flux_makes_the_references_pictures() {
    assert_eq!(all_runs("flux", Family::Flux), 5);
}

fn all_runs(folder: &str, family: Family) -> usize {
    let folder = fixture(folder);
    let Runs { lora, runs } = runs(&folder);
    for run in &runs {
        let changes = run.changes(&folder, lora.as_ref().map_or(1.0, |lora| lora.scale));
        let source = ImageSource::open_with(&folder, &changes).unwrap();
        assert_eq!(source.family(), family);
        let mut pipeline = load(&source, Precision::Full);
        assert_eq!(pipeline.facts().family, family);
        compare(&folder, run, pipeline.as_mut());
    }
    runs.len()
}

fn compare(folder: &Path, run: &Run, pipeline: &mut dyn Pipeline) {
    let name = &run.name;
    let bytes = std::fs::read(folder.join(format!("run_{name}.safetensors"))).unwrap();
    let expect = SafeTensors::deserialize(&bytes).unwrap();
    let mut made = pipeline.begin(&run.job()).unwrap();
    for (part, found) in made.conditions().unwrap() {
        if expect.tensor(part).is_ok() {
            assert_close(&format!("{name} {part}"), &found, &floats(&expect, part), STATES_LIMIT);
        }
    }
    if expect.tensor("latents0").is_ok() {
        assert_close(name, &made.latents().unwrap(), &floats(&expect, "latents0"), 1e-6);
    }
    let output = if expect.tensor("eps0").is_ok() { "eps" } else { "velocity" };
    for step in 0..run.steps {
        made.step().unwrap();
        let part = format!("{output}{step}");
        assert_close(
            &format!("{name} {part}"),
            &made.output().unwrap(),
            &floats(&expect, &part),
            LATENTS_LIMIT,
        );
        let part = format!("latents{}", step + 1);
        let limit = LATENTS_LIMIT;
        assert_close(
            &format!("{name} {part}"),
            &made.latents().unwrap(),
            &floats(&expect, &part),
            limit,
        );
    }
    assert_eq!((made.done(), made.steps()), (run.steps as usize, run.steps as usize));
    let decoded = download(made.decode(Decoding::Whole).unwrap().permute([0, 3, 1, 2])).unwrap();
    assert_close(&format!("{name} decoded"), &decoded, &floats(&expect, "decoded"), LATENTS_LIMIT);
    let picture = made.finish(Decoding::Whole).unwrap();
    let pixels = expect.tensor("pixels").unwrap();
    assert_eq!(pixels.shape(), [picture.height() as usize, picture.width() as usize, 3]);
    assert_same_pixels(name, &picture, pixels.data());
    // The file that the reference wrote, against the file that we write.
    let file = Png(std::fs::read(folder.join(format!("run_{name}.png"))).unwrap());
    let theirs = RgbImage::from_png(&file, 256).unwrap();
    let ours = RgbImage::from_png(&picture.to_png(), 256).unwrap();
    assert_same_pixels(name, &ours, theirs.pixels());
}

#[track_caller]
fn assert_same_pixels(name: &str, picture: &RgbImage, expect: &[u8]) {
    assert_eq!(picture.pixels().len(), expect.len());
    let apart = |(a, b): (&u8, &u8)| a.abs_diff(*b);
    let worst = picture.pixels().iter().zip(expect).map(apart).max().unwrap();
    let equal = picture.pixels().iter().zip(expect).filter(|(a, b)| a == b).count();
    let share = equal as f64 / expect.len() as f64;
    assert!(worst <= 1 && share >= EQUAL_SHARE, "{name}: {worst} apart, {share} equal");
}

#[test]
fn a_seed_makes_one_picture_whatever_was_made_before() {
    let mut pipeline = sd15();
    let first = picture(pipeline.as_mut(), &job(3, 7)).to_png();
    let other = picture(pipeline.as_mut(), &job(3, 8)).to_png();
    assert_ne!(first, other);
    assert_eq!(picture(pipeline.as_mut(), &job(3, 7)).to_png(), first);
    assert_eq!(picture(sd15().as_mut(), &job(3, 7)).to_png(), first);
    // A picture that was given up leaves nothing behind.
    let mut given_up = pipeline.begin(&job(5, 3)).unwrap();
    given_up.step().unwrap();
    drop(given_up);
    assert_eq!(picture(pipeline.as_mut(), &job(3, 7)).to_png(), first);
    // Two at a time do not disturb each other.
    let mut runs: Vec<Box<dyn Denoising>> =
        [7, 8].map(|seed| pipeline.begin(&job(3, seed)).unwrap()).into();
    for _ in 0..3 {
        for run in &mut runs {
            run.step().unwrap();
        }
    }
    let both = runs.iter_mut().map(|run| run.finish(Decoding::Whole).unwrap().to_png());
    assert_eq!(both.collect::<Vec<_>>(), [first, other]);
}

#[test]
fn previews_show_the_picture_small_and_change_nothing() {
    for folder in ["sd/sd15", "sd/sdxl", "flux"] {
        let source = ImageSource::open(&fixture(folder)).unwrap();
        let mut pipeline = load(&source, Precision::Stored);
        let job = ImageJob { width: 64, height: 96, ..job(3, 5) };
        let plain = picture(pipeline.as_mut(), &job);
        let mut run = pipeline.begin(&ImageJob { preview: true, ..job }).unwrap();
        let mut previews = vec![run.preview().unwrap()];
        while run.done() < run.steps() {
            run.step().unwrap();
            previews.push(run.preview().unwrap());
        }
        assert_eq!(run.finish(Decoding::Whole).unwrap(), plain);
        for preview in &previews {
            assert_eq!((preview.width(), preview.height()), (8, 12), "{folder}");
        }
        let as_noise = previews.iter().filter(|preview| **preview == previews[0]).count();
        assert_eq!(as_noise, 1, "{folder}: the noise alone looks like noise alone");
    }
}

#[test]
fn a_picture_in_tiles_is_nearly_the_whole_one() {
    let mut pipeline = sd15();
    // Two tiles side by side.
    let job = ImageJob { width: 640, height: 64, ..job(1, 2) };
    let mut run = pipeline.begin(&job).unwrap();
    run.step().unwrap();
    let whole = run.finish(Decoding::Whole).unwrap();
    let tiled = run.finish(Decoding::Tiled).unwrap();
    assert_eq!((tiled.width(), tiled.height()), (640, 64));
    assert_ne!(whole, tiled, "tiles do not see the whole picture");
    let pairs = whole.pixels().iter().zip(tiled.pixels());
    let apart = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    assert!(apart / (whole.pixels().len() as f64) < 4.0, "{apart}");
}

#[test]
fn low_rank_updates_come_and_go_while_the_base_stays() {
    let folder = fixture("sd/sd15");
    let lora = |name: &str, scale| LoraFile { path: folder.join(name), scale };
    let mut pipeline = sd15();
    let plain = picture(pipeline.as_mut(), &job(2, 1));
    pipeline.set_loras(&[lora("lora_kohya.safetensors", 0.8)]).unwrap();
    let changed = picture(pipeline.as_mut(), &job(2, 1));
    assert_ne!(changed, plain);
    let source = ImageSource::open(&folder).unwrap();
    let loras = vec![lora("lora_kohya.safetensors", 0.8)];
    let changes = Changes { loras, ..Changes::default() };
    let with = ImageSource::open_with(&folder, &changes).unwrap();
    assert!(with.has_base_of(&source));
    assert_eq!(picture(load(&with, Precision::Stored).as_mut(), &job(2, 1)), changed);
    // A file of another family changes nothing.
    let strange = fixture("sd/sdxl/lora_kohya.safetensors");
    let error = pipeline.set_loras(&[LoraFile { path: strange, scale: 1.0 }]).unwrap_err();
    assert!(matches!(error, DiffusionError::Lora(_)), "{error}");
    pipeline.set_loras(&[]).unwrap();
    assert_eq!(picture(pipeline.as_mut(), &job(2, 1)), plain);
    let run = pipeline.begin(&job(2, 1)).unwrap();
    let error = pipeline.set_loras(&[]).unwrap_err();
    assert!(matches!(error, DiffusionError::InvalidRequest { .. }), "{error}");
    drop(run);
}

/// Where the host has room for text encoders, their files are read once.
#[test]
fn text_encoders_that_visit_stay_in_the_hosts_memory_if_that_has_room() {
    let device = Device::flex();
    for folder in ["sd/sd15", "sd/sdxl", "flux"] {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&fixture(folder), copy.path());
        let begun = |room_bytes: u64| {
            let source = Arc::new(ImageSource::open(copy.path()).unwrap());
            let loading = Loading::quiet(&device, Precision::Stored).with_host_room(room_bytes);
            let mut visits = source.load_as(&loading, Residence::Visit).unwrap();
            let first = ImageJob { prompt: "a first cat".to_owned(), ..job(1, 1) };
            drop(visits.begin(&first).unwrap());
            // A file that was written to is not read.
            touch(copy.path());
            let found = visits.begin(&ImageJob { prompt: "another".to_owned(), ..first });
            found.map(|run| run.conditions().unwrap())
        };
        let found = begun(u64::MAX).unwrap();
        assert!(matches!(begun(0).err(), Some(DiffusionError::Weights(_))), "{folder}");
        let source = ImageSource::open(copy.path()).unwrap();
        let mut stays = source.load(&Loading::quiet(&device, Precision::Stored)).unwrap();
        let second = ImageJob { prompt: "another".to_owned(), ..job(1, 1) };
        assert_eq!(stays.begin(&second).unwrap().conditions().unwrap(), found, "{folder}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else if !entry.file_name().to_string_lossy().starts_with("run_") {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
}

/// Makes all weights in a folder look as if they had been written to.
fn touch(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            touch(&path);
        } else if path.extension().is_some_and(|ending| ending == "safetensors") {
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        }
    }
}

#[test]
fn text_encoders_that_visit_read_the_same() {
    let device = Device::flex();
    let lora = |folder: &str, name: &str| LoraFile {
        path: fixture(folder).join(format!("lora_{name}.safetensors")),
        scale: 0.8,
    };
    for folder in ["sd/sd15", "sd/sdxl", "flux"] {
        let source = Arc::new(ImageSource::open(&fixture(folder)).unwrap());
        let loading = || Loading::quiet(&device, Precision::Stored);
        let mut stays = source.load_as(&loading(), Residence::Stay).unwrap();
        let mut visits = source.load_as(&loading(), Residence::Visit).unwrap();
        let memory = source.memory(Precision::Stored);
        for (pipeline, residence) in [(&stays, Residence::Stay), (&visits, Residence::Visit)] {
            let (planned, held) =
                (memory.resident_bytes(residence), pipeline.facts().weights_bytes);
            let share = planned as f64 / held as f64;
            assert!((share - 1.0).abs() < 0.01, "{folder} {residence:?}: {planned} {held}");
        }
        assert!(visits.facts().weights_bytes < stays.facts().weights_bytes);
        let plain = picture(stays.as_mut(), &job(2, 9));
        assert_eq!(picture(visits.as_mut(), &job(2, 9)), plain, "{folder}");

        let Some(other) = [("sd/sd15", "sd/sdxl"), ("sd/sdxl", "sd/sd15")]
            .into_iter()
            .find_map(|(of, other)| (of == folder).then_some(other))
        else {
            continue;
        };
        let loras = [lora(folder, "kohya")];
        stays.set_loras(&loras).unwrap();
        visits.set_loras(&loras).unwrap();
        let changed = picture(stays.as_mut(), &job(2, 9));
        assert_ne!(changed, plain, "{folder}");
        assert_eq!(picture(visits.as_mut(), &job(2, 9)), changed, "{folder}");
        let refused = visits.set_loras(&[lora(other, "kohya")]);
        assert!(matches!(refused, Err(DiffusionError::Lora(_))), "{refused:?}");
        visits.set_loras(&[]).unwrap();
        assert_eq!(picture(visits.as_mut(), &job(2, 9)), plain, "{folder}");
    }
}

#[test]
fn sdxl_decodes_in_f32_on_cards_and_the_others_have_that_in_reserve() {
    let device = Device::flex();
    for (folder, upcast) in [("sd/sd15", false), ("sd/sdxl", true), ("flux", false)] {
        let source = Arc::new(ImageSource::open(&fixture(folder)).unwrap());
        let expect = if upcast { Precision::Full } else { Precision::Half };
        assert_eq!(source.dims().vae_precision(Precision::Half), expect, "{folder}");
        assert_eq!(source.dims().vae_precision(Precision::Stored), Precision::Stored);
        let loading = Loading::quiet(&device, Precision::Half);
        let mut pipeline = source.load_as(&loading, Residence::Stay).unwrap();
        let memory = source.memory(Precision::Half);
        let (planned, held) =
            (memory.resident_bytes(Residence::Stay), pipeline.facts().weights_bytes);
        let share = planned as f64 / held as f64;
        assert!((share - 1.0).abs() < 0.01, "{folder}: {planned} {held}");

        let mut run = pipeline.begin(&job(1, 9)).unwrap();
        run.step().unwrap();
        let again = run.decode_in_full(Decoding::Whole).unwrap();
        assert_eq!(again.is_none(), upcast, "{folder}");
        if let Some(again) = again {
            let [again, first] = [again, run.decode(Decoding::Whole).unwrap()];
            let (again, first) = (download(again).unwrap(), download(first).unwrap());
            crate::assert_close(folder, &first, &again, 0.02);
        }
    }
}

#[test]
fn the_halves_of_a_guided_step_may_be_computed_in_turn() {
    for folder in ["sd/sd15", "sd/sdxl"] {
        let source = ImageSource::open(&fixture(folder)).unwrap();
        let mut pipeline = load(&source, Precision::Stored);
        let whole = picture(pipeline.as_mut(), &job(3, 4));
        let mut run = pipeline.begin(&job(3, 4)).unwrap();
        run.step().unwrap();
        run.set_guidance(Guidance::InTurn);
        run.step().unwrap();
        run.step().unwrap();
        assert_eq!(run.finish(Decoding::Whole).unwrap(), whole, "{folder}");
    }
}

#[test]
fn a_folder_may_say_what_belongs_together() {
    let fixtures = fixture("sd/sd15").canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| fixtures.join(name).display().to_string();
    let toml = format!(
        "base = '{}'\nvae = '{}'\n[[loras]]\nfile = '{}'\nscale = 0.8\n",
        path("model.safetensors"),
        path("vae_alt.safetensors"),
        path("lora_peft.safetensors")
    );
    std::fs::write(folder.path().join("model.toml"), toml).unwrap();
    assert!(ImageSource::is_image_model(folder.path()));
    let source = ImageSource::open(folder.path()).unwrap();
    let changes = Changes {
        vae: Some(fixtures.join("vae_alt.safetensors")),
        loras: vec![LoraFile { path: fixtures.join("lora_peft.safetensors"), scale: 0.8 }],
        ..Changes::default()
    };
    let same = ImageSource::open_with(&fixtures.join("model.safetensors"), &changes).unwrap();
    assert!(source.has_base_of(&same));
    assert_eq!(source.loras(), same.loras());
    let expect = picture(load(&same, Precision::Stored).as_mut(), &job(2, 4));
    assert_eq!(picture(load(&source, Precision::Stored).as_mut(), &job(2, 4)), expect);
    assert_ne!(picture(sd15().as_mut(), &job(2, 4)), expect);
}

/// A folder with the configurations and the vocabulary of the tiny model, whose dimensions its shapes do
/// not tell, and with `model` as its checkpoint.
fn folder_of(model: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["unet", "vae", "text_encoder", "tokenizer"] {
        let own = folder.path().join(part);
        std::fs::create_dir(&own).unwrap();
        for entry in std::fs::read_dir(fixture("sd/sd15").join(part)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
        }
    }
    std::fs::copy(model, folder.path().join("model.safetensors")).unwrap();
    folder
}

#[test]
fn a_network_that_predicts_velocity_is_refused_whatever_the_schedule() {
    let folder = folder_of(&fixture("sd/sd15/model.safetensors"));
    std::fs::create_dir(folder.path().join("scheduler")).unwrap();
    let open = |predicts: &str, manifest: &str| {
        let json = format!(r#"{{"_class_name": "EulerDiscreteScheduler"{predicts}}}"#);
        std::fs::write(folder.path().join("scheduler/scheduler_config.json"), json).unwrap();
        std::fs::write(folder.path().join("model.toml"), manifest).unwrap();
        ImageSource::open(folder.path())
    };
    for manifest in ["base = 'model.safetensors'", "base = 'model.safetensors'\nscheduler = 'ddim'"]
    {
        for noise in ["", r#", "prediction_type": "epsilon""#] {
            open(noise, manifest).unwrap();
        }
        for other in ["v_prediction", "sample"] {
            let predicts = format!(r#", "prediction_type": "{other}""#);
            let error = open(&predicts, manifest).unwrap_err();
            assert!(matches!(error, DiffusionError::Config { .. }), "{error}");
            let words = error.to_string();
            assert!(
                words.contains(other) && words.contains("version that predicts noise"),
                "{words}"
            );
        }
    }
}

#[test]
fn a_checkpoint_without_an_autoencoder_says_how_to_give_one() {
    let model = fixture("sd/sd15/model.safetensors");
    let without = |name: &str| (!name.starts_with("first_stage_model.")).then(|| name.to_owned());
    let bare = changed_file(&model, "bare.safetensors", without);
    let error = ImageSource::open(&bare).unwrap_err();
    assert!(matches!(error, DiffusionError::Unsupported { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("without an autoencoder") && words.contains("model.toml"), "{words}");
    // As it says.
    let folder = folder_of(&bare);
    let vae = fixture("sd/sd15/vae_alt.safetensors");
    let toml = format!("base = 'model.safetensors'\nvae = '{}'\n", vae.display());
    std::fs::write(folder.path().join("model.toml"), toml).unwrap();
    let source = ImageSource::open(folder.path()).unwrap();
    picture(load(&source, Precision::Stored).as_mut(), &job(1, 1));
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn flux_takes_the_noise_levels_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    copy_tree(&fixture("flux"), folder.path());
    let file = folder.path().join("scheduler/scheduler_config.json");
    let made = || {
        let source = ImageSource::open(folder.path()).unwrap();
        (picture(load(&source, Precision::Stored).as_mut(), &job(2, 4)), source)
    };
    let (dev, source) = made();
    std::fs::write(&file, r#"{"shift": 1.0, "use_dynamic_shifting": false}"#).unwrap();
    let (schnell, other) = made();
    assert_ne!(dev, schnell);
    assert!(!source.has_base_of(&other), "a loaded model is not used for it");
    // A model with guidance is taken for FLUX.1-dev.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(made().0, dev);
    std::fs::write(&file, r#"{"_class_name": "EulerDiscreteScheduler"}"#).unwrap();
    let error = ImageSource::open(folder.path()).unwrap_err();
    assert!(matches!(error, DiffusionError::Config { .. }), "{error}");
    assert!(error.to_string().contains("EulerDiscreteScheduler"), "{error}");
}

#[test]
fn a_separate_autoencoder_of_a_folder_may_be_a_file() {
    let folder = fixture("flux");
    let plain = picture(load_with(&folder, None).as_mut(), &job(1, 4));
    for vae in ["vae", "vae/diffusion_pytorch_model.safetensors"] {
        let vae = Some(folder.join(vae));
        assert_eq!(picture(load_with(&folder, vae).as_mut(), &job(1, 4)), plain);
    }
    let strange =
        Changes { vae: Some(fixture("clip/clip_l/model.safetensors")), ..Changes::default() };
    let error = ImageSource::open_with(&folder, &strange).unwrap_err();
    assert!(error.to_string().contains("no autoencoder"), "{error}");
}

fn load_with(folder: &Path, vae: Option<PathBuf>) -> Box<dyn Pipeline> {
    let source = ImageSource::open_with(folder, &Changes { vae, ..Changes::default() }).unwrap();
    load(&source, Precision::Stored)
}

#[test]
fn what_is_no_image_model_is_called_by_its_name() {
    let open = |path: PathBuf| ImageSource::open(&path).unwrap_err();
    let cases = [
        ("sd/sd15/lora_kohya.safetensors", "a LoRA"),
        ("sd/sd15/vae_alt.safetensors", "an autoencoder alone"),
        ("flux/transformer_nf4/diffusion_pytorch_model.safetensors", "a diffusers folder"),
        ("llm/llama3/reference.safetensors", "no image model"),
    ];
    for (path, words) in cases {
        let error = open(fixture(path));
        assert!(matches!(error, DiffusionError::Unsupported { .. }), "{path}: {error}");
        assert!(error.to_string().contains(words), "{path}: {error}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(open(empty.path().into()).to_string().contains("without a checkpoint"));
    assert!(!ImageSource::is_image_model(empty.path()));
    std::fs::write(empty.path().join("model_index.json"), r#"{"_class_name": "Kandinsky"}"#)
        .unwrap();
    assert!(open(empty.path().into()).to_string().contains("`Kandinsky`"));
    std::fs::write(empty.path().join("model_index.json"), "{").unwrap();
    assert!(matches!(open(empty.path().into()), DiffusionError::Config { .. }));
    std::fs::write(empty.path().join("x.ckpt"), b"PK\x03\x04 and more").unwrap();
    assert!(open(empty.path().join("x.ckpt")).to_string().contains("pickled"));
    for text in ["llm/llama3", "llm/mistral"] {
        assert!(!ImageSource::is_image_model(&fixture(text)));
    }
    for picture in ["sd/sd15", "sd/sdxl/model.safetensors", "flux"] {
        assert!(ImageSource::is_image_model(&fixture(picture)));
    }
}

#[test]
fn weights_take_what_was_planned() {
    let quantized = fixture("flux");
    let changes = Changes {
        transformer: Some(quantized.join("transformer_nf4")),
        text_encoder_2: Some(quantized.join("text_encoder_2_hqq")),
        ..Changes::default()
    };
    let sources = [
        ImageSource::open(&fixture("sd/sd15")).unwrap(),
        ImageSource::open(&fixture("sd/sdxl")).unwrap(),
        ImageSource::open(&fixture("flux")).unwrap(),
        ImageSource::open_with(&quantized, &changes).unwrap(),
    ];
    let storage: Vec<_> = sources.iter().map(ImageSource::storage).collect();
    assert_eq!(storage, ["f16", "f16", "bf16", "nf4"]);
    for source in &sources {
        for precision in [Precision::Stored, Precision::Half, Precision::Full] {
            let planned = source.memory(precision).weights_bytes() as f64;
            let held = load(source, precision).facts().weights_bytes as f64;
            let family = source.family();
            assert!(
                (planned / held - 1.0).abs() < 0.01,
                "{family:?} {precision:?}: {planned} {held}"
            );
        }
    }
}

#[test]
fn jobs_that_a_model_cannot_do_are_refused() {
    let mut pipeline = load(&ImageSource::open(&fixture("flux")).unwrap(), Precision::Stored);
    // Flux floors to 16: as the reference, not an error.
    let odd = ImageJob { width: 72, height: 40, ..job(1, 1) };
    assert_eq!(pipeline.picture_size(&odd), [64, 32]);
    let made = picture(pipeline.as_mut(), &odd);
    assert_eq!((made.width(), made.height()), (64, 32));
    let small = ImageJob { width: 8, ..odd };
    let error = pipeline.begin(&small).err().unwrap();
    assert!(matches!(error, DiffusionError::InvalidRequest { field: "width", .. }), "{error}");
    let none = ImageJob { steps: 0, ..job(1, 1) };
    let error = pipeline.begin(&none).err().unwrap();
    assert!(matches!(error, DiffusionError::Scheduler(_)), "{error}");
}

#[test]
fn loading_can_be_watched_and_given_up() {
    let source = ImageSource::open(&fixture("sd/sd15")).unwrap();
    let device = Device::flex();
    let seen = std::cell::Cell::new(0);
    let progress = |bytes| seen.set(bytes);
    source.load(&Loading::new(&device, Precision::Stored, &progress, &|| false)).unwrap();
    let share = seen.get() as f64 / source.read_bytes() as f64;
    assert!((share - 1.0).abs() < 0.02, "{share}");
    let enough = || seen.get() < 100_000;
    let given_up = source.load(&Loading::new(&device, Precision::Stored, &progress, &enough));
    assert!(matches!(given_up.err(), Some(DiffusionError::Cancelled)));
}

#[test]
fn a_model_of_random_weights_makes_pictures() {
    let device = Device::flex();
    let shape = shapes::named("tiny").unwrap();
    let mut pipeline = shape.make(&Loading::quiet(&device, Precision::Stored)).unwrap();
    let made = picture(pipeline.as_mut(), &job(2, 1));
    assert_eq!((made.width(), made.height()), (64, 64));
    assert!(shapes::named("huge").is_none());
    assert!(shapes::NAMES.iter().all(|name| shapes::named(name).is_some()));
}
