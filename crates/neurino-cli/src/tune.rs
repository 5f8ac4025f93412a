//! `neurino tune`: has the cards of this machine compile and choose what models need of them now, so that the
//! first start of a build is as quick as the next ones.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_core::ModelId;
use neurino_engine::device::available;
use neurino_engine::{
    DeviceChoice, Engine, EngineStatus, LoadedModel, ModelRef, ProcessEngine, ProcessEngineConfig,
};
use neurino_model_store::{ModelState, ModelStore};
use serde_json::json;

use crate::Setting;
use crate::args::TuneArgs;
use crate::output::{self, Format};

/// Between two looks at how far a load is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(crate) async fn run(setting: Setting, args: TuneArgs) -> anyhow::Result<ExitCode> {
    let device = neurino_app::device_choice(setting.settings.engine.device);
    if !tunes(device, &available()) {
        match setting.format {
            Format::Json => output::json(&json!({ "tuned": [] }))?,
            Format::Text => output::line(
                "There is nothing to tune: this machine computes on its processor, whose code is \
                 ready as it is.",
            ),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let store = ModelStore::open(&setting.dirs.models)?;
    let models = tokio::task::spawn_blocking(move || wanted(&store, args.models))
        .await
        .context("the models could not be looked up")??;
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let mut config = ProcessEngineConfig::new(program, ["engine"], device);
    config.tunings = Some(setting.dirs.tunings());
    config.warms_all = true;
    let engine = ProcessEngine::start(config);
    let quiet = setting.format == Format::Json;
    let tuned = tokio::select! {
        tuned = tune(&engine, &models, quiet) => tuned,
        () = crate::interrupted() => Err(anyhow::anyhow!("tuning was interrupted")),
    };
    engine.shutdown().await;
    let tuned = tuned?;
    if quiet {
        output::json(&json!({ "tuned": tuned }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether `choice` comes to a card, of the devices that there are.
fn tunes(choice: DeviceChoice, available: &[DeviceChoice]) -> bool {
    match choice {
        DeviceChoice::Cpu => false,
        DeviceChoice::Cuda(_) | DeviceChoice::Cards => true,
        DeviceChoice::Auto => {
            available.iter().any(|device| matches!(device, DeviceChoice::Cuda(_)))
        }
    }
}

/// The named models, or all that are on this machine.
fn wanted(store: &ModelStore, named: Vec<ModelId>) -> anyhow::Result<Vec<ModelRef>> {
    let ids: Vec<ModelId> = if named.is_empty() {
        let here = |id: &ModelId| {
            let state = store.state(id);
            matches!(state, Ok(ModelState::Verified | ModelState::Unverified))
        };
        store.catalog().models().iter().map(|m| m.id.clone()).filter(here).collect()
    } else {
        named
    };
    anyhow::ensure!(
        !ids.is_empty(),
        "no model is on this machine; `neurino models list` shows those that can be fetched"
    );
    let found = ids.into_iter().map(|id| -> anyhow::Result<ModelRef> {
        let path = store.verified_blocking(&id)?;
        Ok(ModelRef::new(id, path))
    });
    found.collect()
}

/// Loads one model after the other: what a load finds out is kept.
async fn tune(
    engine: &impl Engine,
    models: &[ModelRef],
    quiet: bool,
) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut tuned = Vec::new();
    for model in models {
        let started = Instant::now();
        let loaded = load(engine, model, quiet).await?;
        let seconds = started.elapsed().as_secs_f64();
        if !quiet {
            output::line(format!("{}: ready in {seconds:.1} s on {}", model.id, loaded.device));
        }
        tuned.push(json!({ "model": model.id, "device": loaded.device, "seconds": seconds }));
        engine.unload().await?;
    }
    Ok(tuned)
}

/// Loads a model and says, now and then, how far that is.
async fn load(engine: &impl Engine, model: &ModelRef, quiet: bool) -> anyhow::Result<LoadedModel> {
    let status = engine.status();
    let mut load = std::pin::pin!(engine.load(model));
    let mut told = None;
    loop {
        tokio::select! {
            loaded = &mut load => return Ok(loaded?),
            () = tokio::time::sleep(LOOK_AGAIN) => {
                let words = progress(&status.borrow());
                if !quiet && words != told {
                    if let Some(words) = &words {
                        output::note(format!("{}: {words}", model.id));
                    }
                    told = words;
                }
            }
        }
    }
}

/// How far a load is, in words.
fn progress(status: &EngineStatus) -> Option<String> {
    match status {
        EngineStatus::Loading { warm_percent: percent @ 1.., .. } => {
            Some(format!("tuning, {percent} %"))
        }
        EngineStatus::Loading { done_bytes, total_bytes, .. } => {
            let percent = (done_bytes * 100).checked_div(*total_bytes)?;
            Some(format!("loading, {percent} %"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_nothing_to_tune() {
        let cpu = [DeviceChoice::Cpu];
        let both = [DeviceChoice::Cuda(0), DeviceChoice::Cpu];
        assert!(!tunes(DeviceChoice::Auto, &cpu) && !tunes(DeviceChoice::Cpu, &both));
        assert!(tunes(DeviceChoice::Auto, &both) && tunes(DeviceChoice::Cuda(0), &both));
    }

    #[test]
    fn a_load_tells_its_files_and_then_its_tuning() {
        let loading = |done_bytes, total_bytes, warm_percent| {
            let model = ModelId::new("a-model").expect("valid");
            progress(&EngineStatus::Loading { model, done_bytes, total_bytes, warm_percent })
        };
        assert_eq!(loading(0, 0, 0), None);
        assert_eq!(loading(1, 4, 0).as_deref(), Some("loading, 25 %"));
        assert_eq!(loading(4, 4, 30).as_deref(), Some("tuning, 30 %"));
        assert_eq!(progress(&EngineStatus::Idle), None);
    }
}
