//! `neurino bench`: measures this machine. A figure is always shown beside the ceiling that was
//! measured in the same run.

use std::process::ExitCode;

use anyhow::Context as _;
use neurino_core::ModelId;
use neurino_engine::ModelRef;
use neurino_engine::bench::{TextBench, TextBenchOptions, text};
use neurino_hardware::{ReadBandwidth, measure_read_bandwidth, peak_memory_bytes};
use neurino_model_store::ModelStore;
use serde_json::json;

use crate::Setting;
use crate::args::BenchAction;
use crate::output::{self, Format};

pub(crate) async fn run(setting: Setting, action: BenchAction) -> anyhow::Result<ExitCode> {
    let BenchAction::Text { model, prompt, tokens, runs } = action;
    let id: ModelId = model.parse()?;
    let store = ModelStore::open(&setting.dirs.models)?;
    let device = neurino_app::device_choice(setting.settings.engine.device);
    let work = move || -> anyhow::Result<(TextBench, ReadBandwidth)> {
        let path = store.verified_blocking(&id)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let bandwidth = measure_read_bandwidth(threads);
        let options = TextBenchOptions { device, prompt_tokens: prompt, new_tokens: tokens, runs };
        Ok((text(&ModelRef { id, path }, &options)?, bandwidth))
    };
    let (bench, bandwidth) =
        tokio::task::spawn_blocking(work).await.context("the measurement was interrupted")??;
    report(&setting, &model, &bench, &bandwidth)?;
    Ok(ExitCode::SUCCESS)
}

fn report(
    setting: &Setting,
    model: &str,
    bench: &TextBench,
    bandwidth: &ReadBandwidth,
) -> anyhow::Result<()> {
    let read_per_s = bench.decode_tokens_per_s * bench.bytes_per_token as f64;
    // The ceiling was measured in main memory: it says nothing about a graphics card.
    let share = bench.on_cpu.then(|| read_per_s / bandwidth.best_bytes_per_s);
    let peak = peak_memory_bytes();
    match setting.format {
        Format::Json => output::json(&json!({
            "model": model,
            "device": bench.device,
            "load_ms": bench.load_ms,
            "prompt_tokens": bench.prompt_tokens,
            "new_tokens": bench.new_tokens,
            "runs": bench.runs,
            "prefill_tokens_per_s": bench.prefill_tokens_per_s,
            "decode_tokens_per_s": bench.decode_tokens_per_s,
            "weights_bytes": bench.weights_bytes,
            "bytes_per_token": bench.bytes_per_token,
            "decode_bytes_per_s": read_per_s,
            "memory_bandwidth_bytes_per_s": bandwidth.best_bytes_per_s,
            "bandwidth_share": share,
            "peak_memory_bytes": peak,
        })),
        Format::Text => {
            output::line(format!("{model} on {}, median of {} runs", bench.device, bench.runs));
            output::line(format!("  load        {:>9.2} s", bench.load_ms as f64 / 1000.0));
            output::line(format!(
                "  prefill     {:>9.1} tokens/s  ({} tokens)",
                bench.prefill_tokens_per_s, bench.prompt_tokens
            ));
            output::line(format!(
                "  decode      {:>9.1} tokens/s  ({} tokens)",
                bench.decode_tokens_per_s, bench.new_tokens
            ));
            if let Some(peak) = peak {
                output::line(format!("  peak memory {:>9.1} MB", peak as f64 / 1e6));
            }
            output::line(format!(
                "  memory read {:>9.2} GB/s  measured on {} threads",
                bandwidth.best_bytes_per_s / 1e9,
                bandwidth.threads
            ));
            if let Some(share) = share {
                output::line(format!(
                    "  decode reads {:>8.2} GB/s  = {:.0} % of it ({:.1} MB a token)",
                    read_per_s / 1e9,
                    share * 100.0,
                    bench.bytes_per_token as f64 / 1e6
                ));
            }
            Ok(())
        }
    }
}
