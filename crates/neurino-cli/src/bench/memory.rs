//! `neurino bench memory`: what a loaded model takes beside what was planned, and how fast its memory
//! comes back, as the card's driver tells it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_core::ModelId;
use neurino_engine::device::available;
use neurino_engine::{DeviceChoice, Engine, ModelRef, ProcessEngine, ProcessEngineConfig};
use neurino_hardware::{CardMemoryMeter, resident_memory_bytes_of};
use serde::Serialize;

use super::table::row;
use crate::Setting;
use crate::args::BenchMemoryArgs;
use crate::output::{self, Format};

/// How far a plan for a card may be off.
const PLAN_ERROR_MAX: f64 = 0.05;
/// How long memory may take to come back.
const BACK_MAX: Duration = Duration::from_secs(1);
/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the memory.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What may stay in use, since other programs share the device.
const REST_BYTES_MAX: u64 = 64 << 20;

/// What was found.
#[derive(Debug, Clone, Serialize)]
struct Found {
    device: String,
    on_card: bool,
    load_ms: u64,
    planned_bytes: u64,
    /// What the model took; `None` where nobody tells.
    measured_bytes: Option<u64>,
    /// From the unload to the memory's being back; `None` if it did not come.
    back_ms: Option<u64>,
}

impl Found {
    /// How far the plan is off, of what was planned.
    fn plan_error(&self) -> Option<f64> {
        Some(self.measured_bytes? as f64 / self.planned_bytes.max(1) as f64 - 1.0)
    }

    /// Why the measurement did not pass.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        // A processor's memory is everybody's, and its plan leaves room.
        match self.plan_error() {
            Some(error) if self.on_card && error.abs() > PLAN_ERROR_MAX => {
                problems.push(format!("the plan is off by {:+.1} %", 100.0 * error));
            }
            None if self.on_card => problems.push("the driver does not tell the memory".into()),
            _ => {}
        }
        match self.back_ms {
            Some(ms) if u128::from(ms) <= BACK_MAX.as_millis() => {}
            Some(ms) => problems.push(format!("the memory was back only after {ms} ms")),
            None => problems.push("the memory did not come back".into()),
        }
        problems
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("memory of a model on {}", self.device)];
        lines.push(row("load", self.load_ms as f64 / 1000.0, "s", "warming up included"));
        lines.push(row("planned", self.planned_bytes as f64 / 1e6, "MB", ""));
        if let (Some(bytes), Some(error)) = (self.measured_bytes, self.plan_error()) {
            let note = format!("= the plan {:+.1} %", 100.0 * error);
            lines.push(row("measured", bytes as f64 / 1e6, "MB", &note));
        }
        if let Some(ms) = self.back_ms {
            lines.push(row("unload", ms as f64, "ms", "until the memory was back"));
        }
        lines
    }
}

pub(super) async fn run(setting: Setting, args: BenchMemoryArgs) -> anyhow::Result<ExitCode> {
    let store = setting.library()?;
    let model = tokio::task::spawn_blocking(move || -> anyhow::Result<ModelRef> {
        let (name, path) = super::model_path(&store, &args.model, args.file)?;
        // A file's name need not be one that the network would take.
        let id = name.parse().or_else(|_| "model".parse::<ModelId>())?;
        Ok(ModelRef::new(id, path))
    })
    .await
    .context("the model could not be looked up")??;
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let device = neurino_app::device_choice(setting.settings.engine.device);
    let mut config = ProcessEngineConfig::new(program, ["engine"], device);
    config.tunings = Some(setting.dirs.tunings());
    let engine = ProcessEngine::start(config);
    let found = tokio::select! {
        found = measure(&engine, &model, device) => found,
        () = crate::interrupted() => Err(anyhow::anyhow!("the measurement was interrupted")),
    };
    engine.shutdown().await;
    let found = found?;
    let problems = found.problems();
    match setting.format {
        Format::Json => {
            let mut value = serde_json::to_value(&found)?;
            value["plan_error"] = serde_json::json!(found.plan_error());
            value["problems"] = serde_json::json!(problems);
            output::json(&value)?;
        }
        Format::Text => {
            found.lines().iter().for_each(output::line);
            for problem in &problems {
                output::line(format!("  problem: {problem}"));
            }
        }
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(
    engine: &ProcessEngine,
    model: &ModelRef,
    device: DeviceChoice,
) -> anyhow::Result<Found> {
    let taken = match device {
        DeviceChoice::Auto => available().first().copied().unwrap_or(DeviceChoice::Cpu),
        chosen => chosen,
    };
    let meter = match taken {
        DeviceChoice::Cuda(index) => CardMemoryMeter::open(None, index),
        DeviceChoice::Cpu | DeviceChoice::Auto | DeviceChoice::Cards => None,
    };
    // On a card of the whole card: what the process held must be back with the system.
    let used_bytes = || match &meter {
        Some(meter) => meter.read(None).ok().map(|memory| memory.used_bytes),
        None => Some(engine.process_id().and_then(resident_memory_bytes_of).unwrap_or(0)),
    };
    let before = used_bytes();
    let started = Instant::now();
    let loaded = engine.load(model).await?;
    let load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let started = Instant::now();
    engine.unload().await?;
    let is_back = || match (before, used_bytes()) {
        (Some(before), Some(now)) => now <= before + REST_BYTES_MAX,
        _ => false,
    };
    let mut back = is_back();
    while !back && started.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_AGAIN).await;
        back = is_back();
    }
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Found {
        device: loaded.device,
        on_card: matches!(taken, DeviceChoice::Cuda(_)),
        load_ms,
        planned_bytes: loaded.memory.planned_bytes,
        measured_bytes: loaded.memory.measured_bytes,
        back_ms: back.then_some(elapsed_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        Found {
            device: "a card".into(),
            on_card: true,
            load_ms: 3000,
            planned_bytes: 1_000_000_000,
            measured_bytes: Some(1_040_000_000),
            back_ms: Some(800),
        }
    }

    #[test]
    fn a_card_keeps_to_its_plan_and_gives_its_memory_back() {
        assert!(found().problems().is_empty());
        assert!(
            found().lines().iter().any(|line| line.contains("+4.0 %")),
            "{:?}",
            found().lines()
        );
        let off = Found { measured_bytes: Some(940_000_000), ..found() };
        assert_eq!(off.problems(), ["the plan is off by -6.0 %"]);
        assert!(Found { on_card: false, ..off }.problems().is_empty());
        assert_eq!(Found { measured_bytes: None, ..found() }.problems().len(), 1);
        assert_eq!(Found { back_ms: Some(1001), ..found() }.problems().len(), 1);
        assert_eq!(Found { back_ms: None, ..found() }.problems().len(), 1);
    }
}
