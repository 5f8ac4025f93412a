//! `neurino bench soak`: the engine's own process under mixed requests.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use neurino_core::ModelId;
use neurino_engine::soak::{SoakOptions, SoakReport, soak};
use neurino_engine::{Engine, ModelRef, ProcessEngine, ProcessEngineConfig};
use neurino_hardware::{resident_memory_bytes, resident_memory_bytes_of};
use serde_json::json;

use crate::Setting;
use crate::args::BenchSoakArgs;
use crate::output::{self, Format};

/// Growth of a process's memory that counts as none.
const GROWTH_MAX: f64 = 0.05;
/// Growth that is too small to be a leak, whatever its share.
const GROWTH_BYTES_MIN: u64 = 8 << 20;
/// About as long as the conversations of a small model get.
const LONGEST_TOKENS: u32 = 480;

pub(super) async fn run(setting: Setting, args: BenchSoakArgs) -> anyhow::Result<ExitCode> {
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
    let engine = Arc::new(ProcessEngine::start(config));
    let memory = {
        let engine = Arc::clone(&engine);
        move || {
            let child = engine.process_id().and_then(resident_memory_bytes_of);
            let own = resident_memory_bytes();
            let all = [child.map(|bytes| ("engine", bytes)), own.map(|bytes| ("program", bytes))];
            all.into_iter().flatten().collect()
        }
    };
    let options = SoakOptions {
        seconds: u64::from(args.minutes) * 60,
        requests: args.requests,
        longest_tokens: LONGEST_TOKENS,
    };
    let shared: Arc<dyn Engine> = Arc::clone(&engine) as Arc<dyn Engine>;
    let report = tokio::select! {
        report = soak(shared, &model, options, &memory, &output::note) => report,
        () = crate::interrupted() => {
            engine.shutdown().await;
            anyhow::bail!("the soak was interrupted");
        }
    };
    engine.shutdown().await;
    let report = report?;
    let problems = problems(&report);
    show(setting.format, &report, &problems)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why the soak did not pass.
fn problems(report: &SoakReport) -> Vec<String> {
    let mut problems = Vec::new();
    if report.faults_total > 0 {
        problems.push(format!("{} faults", report.faults_total));
    }
    if report.answered == 0 || report.cancelled == 0 {
        problems.push("too few requests to tell".into());
    }
    for (name, growth) in report.growth() {
        let (before, after) = report.memory[name];
        if growth > GROWTH_MAX && after.saturating_sub(before) > GROWTH_BYTES_MIN {
            problems.push(format!("the {name}'s memory grew by {:.1} %", 100.0 * growth));
        }
    }
    problems
}

fn show(format: Format, report: &SoakReport, problems: &[String]) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&json!({
            "passed": problems.is_empty(),
            "problems": problems,
            "growth": report.growth(),
            "report": report,
        }));
    }
    output::line(format!(
        "{} answers compared, {} cancelled, {} refused, in {:.0} s ({:.0} tokens/s)",
        report.answered,
        report.cancelled,
        report.refused,
        report.seconds,
        report.tokens as f64 / report.seconds.max(1e-9),
    ));
    output::line(format!(
        "{} pauses, in each of which nothing was to be held; log-probabilities differ by {:e} at most",
        report.pauses, report.logprob_error,
    ));
    for (name, growth) in report.growth() {
        let (before, after) = report.memory[name];
        output::line(format!(
            "memory of the {name}: {:.1} MB, later {:.1} MB ({:+.1} %){}",
            before as f64 / 1e6,
            after as f64 / 1e6,
            100.0 * growth,
            if report.cache_filled { "" } else { ", though the cache was not full at the start" },
        ));
    }
    report.faults.iter().for_each(|fault| output::line(format!("fault: {}", output::plain(fault))));
    output::line(match problems {
        [] => "passed".into(),
        problems => format!("failed: {}", problems.join(", ")),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_growth_fail_a_soak() {
        let good = SoakReport { answered: 9, cancelled: 2, ..SoakReport::default() };
        assert!(problems(&good).is_empty());
        assert_eq!(problems(&SoakReport::default()).len(), 1);
        let mut grown = good.clone();
        grown.memory.insert("engine", (400 << 20, 430 << 20));
        grown.memory.insert("program", (20 << 20, 23 << 20));
        assert_eq!(problems(&grown), ["the engine's memory grew by 7.5 %"]);
        let faulty = SoakReport { faults_total: 3, ..good };
        assert_eq!(problems(&faulty), ["3 faults"]);
    }
}
