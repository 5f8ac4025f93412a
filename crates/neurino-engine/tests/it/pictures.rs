//! What every engine promises of pictures, with a tiny Stable Diffusion.

use std::path::Path;
use std::sync::{Arc, Mutex};

use neurino_core::job::{ImageOutput, ImageStep};
use neurino_core::{ImageJob, JobOutput, JobSpec, ModelId};
use neurino_engine::{
    DeviceChoice, Engine, EngineErrorCode, EngineStatus, JobEvent, JobStream, LocalEngine,
    ModelRef, ProcessEngine,
};
use tokio_util::sync::CancellationToken;

use crate::process::config;
use crate::{job, model, next, rest};

macro_rules! for_both_engines {
    ($($promise:ident),* $(,)?) => {
        mod local {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&LocalEngine::start(DeviceChoice::Cpu).unwrap()).await;
            })*
        }
        mod child {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                let engine = ProcessEngine::start(config());
                super::$promise(&engine).await;
                engine.shutdown().await;
            })*
        }
    };
}

for_both_engines! {
    a_seed_makes_one_picture,
    previews_come_only_when_asked_for,
    a_picture_is_cancelled_between_two_steps,
    pictures_wait_in_their_order,
    jobs_of_the_other_kind_are_refused,
    a_damaged_image_model_is_refused_and_a_good_one_loads_after_it,
    low_rank_updates_change_without_the_base,
    an_unload_frees_an_image_model,
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").canonicalize().unwrap()
}

fn painter() -> ModelRef {
    ModelRef::new(ModelId::new("painter").unwrap(), fixtures().join("sd/sd15"))
}

fn picture(steps: u32, seed: u64) -> ImageJob {
    let job = ImageJob::new(painter().id, "a small red cat", 64);
    ImageJob { steps, seed, guidance: 5.0, negative_prompt: "text".into(), ..job }
}

async fn ask(engine: &dyn Engine, picture: ImageJob) -> JobStream {
    engine.run(&JobSpec::Image(picture), CancellationToken::new()).await.unwrap()
}

fn output(events: &[JobEvent]) -> &ImageOutput {
    match events.last() {
        Some(JobEvent::Finished { output: JobOutput::Image(output) }) => output,
        other => panic!("a stream ended with {other:?}"),
    }
}

fn refusal(events: &[JobEvent]) -> (EngineErrorCode, String) {
    match events.last() {
        Some(JobEvent::Failed { error }) => (error.code, error.message.clone()),
        other => panic!("a stream ended with {other:?}"),
    }
}

fn steps(events: &[JobEvent]) -> Vec<&ImageStep> {
    fn step(event: &JobEvent) -> Option<&ImageStep> {
        match event {
            JobEvent::Step { step } => Some(step),
            _ => None,
        }
    }
    events.iter().filter_map(step).collect()
}

async fn a_seed_makes_one_picture(engine: &dyn Engine) {
    let facts = engine.load(&painter()).await.unwrap();
    assert_eq!((facts.arch.as_str(), facts.slots, facts.context_tokens), ("sd15", 1, 0));
    assert!(facts.device.starts_with("CPU (") && facts.weights_bytes > 100_000);
    assert!(facts.memory.planned_bytes > facts.weights_bytes);
    assert_eq!(*engine.status().borrow(), EngineStatus::Ready(facts));
    let first = rest(ask(engine, picture(4, 11)).await).await;
    assert!(matches!(first[0], JobEvent::Started { prompt_tokens: 0 }));
    let counted: Vec<_> = steps(&first).iter().map(|step| (step.step, step.steps)).collect();
    assert_eq!(counted, [(1, 4), (2, 4), (3, 4), (4, 4)]);
    let made = output(&first);
    assert_eq!((made.width, made.height), (64, 64));
    assert!(made.png.0.starts_with(b"\x89PNG"));
    let again = rest(ask(engine, picture(4, 11)).await).await;
    assert_eq!(output(&again), made);
    let other = rest(ask(engine, picture(4, 12)).await).await;
    assert_ne!(output(&other).png, made.png);
    let wide = ImageJob { width: 96, height: 40, ..picture(2, 11) };
    let wide = rest(ask(engine, wide).await).await;
    assert_eq!((output(&wide).width, output(&wide).height), (96, 40));
    assert_eq!(engine.counters().await.unwrap().jobs, 0);
}

async fn previews_come_only_when_asked_for(engine: &dyn Engine) {
    engine.load(&painter()).await.unwrap();
    let plain = rest(ask(engine, picture(3, 1)).await).await;
    assert!(steps(&plain).iter().all(|step| step.preview.is_none()));
    let shown = rest(ask(engine, ImageJob { preview: true, ..picture(3, 1) }).await).await;
    assert_eq!(output(&shown), output(&plain), "a preview changes nothing");
    let previews: Vec<_> = steps(&shown).iter().filter_map(|step| step.preview.as_ref()).collect();
    assert_eq!(previews.len(), 3);
    for preview in previews {
        // The file's header says 8 x 8.
        assert_eq!(preview.0[16..24], [0, 0, 0, 8, 0, 0, 0, 8]);
    }
}

async fn a_picture_is_cancelled_between_two_steps(engine: &dyn Engine) {
    engine.load(&painter()).await.unwrap();
    let expected = rest(ask(engine, picture(2, 5)).await).await;
    let cancel = CancellationToken::new();
    let job = ImageJob { width: 256, height: 256, ..picture(35, 5) };
    let mut stream = engine.run(&JobSpec::Image(job.clone()), cancel.clone()).await.unwrap();
    while !matches!(next(&mut stream).await, Some(JobEvent::Step { .. })) {}
    cancel.cancel();
    let left = rest(stream).await;
    assert_eq!(refusal(&left).0, EngineErrorCode::Cancelled);
    assert!(steps(&left).len() < 34, "it went on to the end");
    // A stream that nobody reads any more ends its job, too.
    let mut stream = ask(engine, job).await;
    while !matches!(next(&mut stream).await, Some(JobEvent::Step { .. })) {}
    drop(stream);
    let after = rest(ask(engine, picture(2, 5)).await).await;
    assert_eq!(output(&after), output(&expected));
}

async fn pictures_wait_in_their_order(engine: &dyn Engine) {
    engine.load(&painter()).await.unwrap();
    let long = CancellationToken::new();
    let ahead = ImageJob { width: 256, height: 256, ..picture(35, 1) };
    let mut running = engine.run(&JobSpec::Image(ahead), long.clone()).await.unwrap();
    while !matches!(next(&mut running).await, Some(JobEvent::Step { .. })) {}
    let gone = CancellationToken::new();
    let waiting = engine.run(&JobSpec::Image(picture(3, 1)), gone.clone()).await.unwrap();
    let second = ask(engine, picture(3, 2)).await;
    let third = ask(engine, picture(3, 3)).await;
    let counters = engine.counters().await.unwrap();
    assert!(counters.sequences_running <= 1 && counters.jobs <= 4, "{counters:?}");
    gone.cancel();
    let gone = rest(waiting).await;
    assert_eq!(refusal(&gone).0, EngineErrorCode::Cancelled);
    assert!(steps(&gone).is_empty());
    long.cancel();
    assert_eq!(refusal(&rest(running).await).0, EngineErrorCode::Cancelled);
    for stream in [second, third] {
        assert_eq!(steps(&rest(stream).await).len(), 3);
    }
}

async fn jobs_of_the_other_kind_are_refused(engine: &dyn Engine) {
    engine.load(&painter()).await.unwrap();
    let JobSpec::Text(mut text) = job(3) else { unreachable!("a text job") };
    text.model = painter().id;
    let stream = engine.run(&JobSpec::Text(text), CancellationToken::new()).await.unwrap();
    let (code, words) = refusal(&rest(stream).await);
    assert_eq!(code, EngineErrorCode::InvalidRequest);
    assert!(words.contains("makes pictures"), "{words}");
    let strange = ImageJob { width: 65, ..picture(2, 1) };
    let (code, words) = refusal(&rest(ask(engine, strange).await).await);
    assert_eq!(code, EngineErrorCode::InvalidRequest);
    assert!(words.contains("`width`"), "{words}");
    assert_eq!(steps(&rest(ask(engine, picture(2, 1)).await).await).len(), 2);

    engine.load(&model()).await.unwrap();
    let stray = ImageJob { model: model().id, ..picture(2, 1) };
    let (code, words) = refusal(&rest(ask(engine, stray).await).await);
    assert_eq!(code, EngineErrorCode::InvalidRequest);
    assert!(words.contains("writes text"), "{words}");
}

async fn a_damaged_image_model_is_refused_and_a_good_one_loads_after_it(engine: &dyn Engine) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let whole = std::fs::read(fixtures().join("sd/sd15/model.safetensors")).unwrap();
    for bytes in [&whole[..whole.len() / 2], &b"\x08\0\0\0\0\0\0\0{}{}{}"[..], &b"PK\x03\x04"[..]] {
        std::fs::write(&file, bytes).unwrap();
        for path in [folder.path().to_owned(), file.clone()] {
            let damaged = ModelRef { path, ..painter() };
            let error = engine.load(&damaged).await.unwrap_err();
            assert_eq!(error.code, EngineErrorCode::ModelUnreadable, "{error}");
        }
    }
    assert_eq!(*engine.status().borrow(), EngineStatus::Idle);
    engine.load(&painter()).await.unwrap();
    assert_eq!(steps(&rest(ask(engine, picture(2, 1)).await).await).len(), 2);
}

/// A composite as the catalogue lays it down: a folder of its own with the base's file, which others
/// have as well.
fn composite(folder: &Path, name: &str, loras: &str) -> ModelRef {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).unwrap();
    let base = fixtures().join("sd/sd15");
    let first = folder.join("Base.safetensors");
    if !first.exists() {
        std::fs::copy(base.join("model.safetensors"), &first).unwrap();
    }
    // So small a model does not tell its dimensions by its shapes.
    for part in ["unet", "vae", "text_encoder", "tokenizer"] {
        let own = place.join(part);
        std::fs::create_dir_all(&own).unwrap();
        for entry in std::fs::read_dir(base.join(part)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
        }
    }
    std::fs::hard_link(first, place.join("Base.safetensors")).unwrap();
    std::fs::write(place.join("model.toml"), format!("base = 'Base.safetensors'\n{loras}"))
        .unwrap();
    ModelRef::new(ModelId::new(name).unwrap(), place)
}

fn lora(form: &str) -> String {
    let file = fixtures().join(format!("sd/sd15/lora_{form}.safetensors"));
    format!("[[loras]]\nfile = '{}'\nscale = 0.8\n", file.display())
}

#[tokio::test]
async fn composites_of_one_base_change_without_reading_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let composite = |name: &str, loras: &str| composite(folder.path(), name, loras);
    let engine = LocalEngine::start(DeviceChoice::Cpu).unwrap();
    let mut status = engine.status();
    let read = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&read);
    let watching = tokio::spawn(async move {
        while status.changed().await.is_ok() {
            if let EngineStatus::Loading { model, total_bytes: 1.., .. } =
                &*status.borrow_and_update()
            {
                seen.lock().unwrap().push(model.to_string());
            }
        }
    });
    // Where links cannot be made, the library copies.
    let copied = |model: ModelRef| {
        let file = model.path.join("Base.safetensors");
        std::fs::copy(&file, model.path.join("copy")).unwrap();
        std::fs::rename(model.path.join("copy"), file).unwrap();
        model
    };
    let vouched = |model: ModelRef, digest: &str| {
        let sha256 = [("Base.safetensors".to_owned(), digest.repeat(64))].into();
        ModelRef { sha256, ..model }
    };
    let loads = [
        (composite("plain", ""), true),
        (composite("linked", &lora("kohya")), false),
        (copied(composite("copied", "")), true),
        (vouched(copied(composite("first", "")), "a"), true),
        (vouched(copied(composite("second", &lora("peft"))), "a"), false),
        (vouched(composite("changed", ""), "b"), true),
    ];
    for (model, reads) in loads {
        assert_eq!(engine.load(&model).await.unwrap().id, model.id);
        tokio::task::yield_now().await;
        let read = std::mem::take(&mut *read.lock().unwrap());
        assert_eq!(read.contains(&model.id.to_string()), reads, "{}: {read:?}", model.id);
        let job = ImageJob { model: model.id.clone(), ..picture(1, 3) };
        output(&rest(ask(&engine, job).await).await);
    }
    watching.abort();
}

async fn low_rank_updates_change_without_the_base(engine: &dyn Engine) {
    let folder = tempfile::tempdir().unwrap();
    let composite = |name: &str, loras: &str| composite(folder.path(), name, loras);
    let models = [composite("plain", ""), composite("one", &lora("kohya"))];
    let mut made = Vec::new();
    for model in models.iter().chain(&models) {
        let facts = engine.load(model).await.unwrap();
        assert_eq!(facts.id, model.id);
        let job = ImageJob { model: model.id.clone(), ..picture(2, 3) };
        made.push(output(&rest(ask(engine, job).await).await).png.clone());
    }
    assert_ne!(made[0], made[1]);
    assert_eq!(made[..2], made[2..]);
    // One that does not fit is refused as a whole.
    let sdxl = fixtures().join("sd/sdxl/lora_kohya.safetensors");
    let strange = composite("strange", &format!("[[loras]]\nfile = '{}'\n", sdxl.display()));
    let error = engine.load(&strange).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelUnreadable);
    assert!(error.message.contains("another model"), "{error}");
}

async fn an_unload_frees_an_image_model(engine: &dyn Engine) {
    engine.load(&painter()).await.unwrap();
    let stream = ask(engine, picture(3, 1)).await;
    engine.unload().await.unwrap();
    assert_eq!(steps(&rest(stream).await).len(), 3, "it waited for the job");
    assert_eq!(*engine.status().borrow(), EngineStatus::Idle);
    let error = engine.run(&JobSpec::Image(picture(2, 1)), CancellationToken::new()).await;
    assert_eq!(error.unwrap_err().code, EngineErrorCode::ModelNotLoaded);
}
