//! `neurino bench`: measures this machine. A figure is always shown beside the ceiling that was
//! measured in the same run.

mod download;
mod image;
mod memory;
mod soak;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use neurino_core::ModelId;
use neurino_engine::bench::{BenchSubject, TextBench, TextBenchOptions, text};
use neurino_hardware::peak_memory_bytes;
use neurino_model_store::ModelStore;
use serde_json::{Value, json};

use crate::Setting;
use crate::args::{BenchAction, BenchTextArgs};
use crate::output::{self, Format};

pub(crate) async fn run(setting: Setting, action: BenchAction) -> anyhow::Result<ExitCode> {
    match action {
        BenchAction::Text(args) => measure(setting, args).await,
        BenchAction::Image(args) => image::run(setting, args).await,
        BenchAction::Download(args) => download::run(&setting, &args).await,
        BenchAction::Soak(args) => soak::run(setting, args).await,
        BenchAction::Memory(args) => memory::run(setting, args).await,
    }
}

async fn measure(setting: Setting, args: BenchTextArgs) -> anyhow::Result<ExitCode> {
    let options = TextBenchOptions {
        device: neurino_app::device_choice(args.device.unwrap_or(setting.settings.engine.device)),
        prompt_tokens: args.prompt,
        new_tokens: args.tokens,
        runs: args.runs,
        batches: args.batch,
        profile: args.profile,
        compare: args.compare,
        peer: args.peer,
    };
    let store = setting.library()?;
    let quiet = setting.format == Format::Json;
    let tunings = setting.dirs.tunings();
    let work = move || -> anyhow::Result<TextBench> {
        neurino_engine::tuning::keep_in(&tunings, options.device);
        let subject = if let Some(name) = args.shape {
            BenchSubject::Shape { name, format: args.quant }
        } else {
            let (name, path) = model_path(&store, &args.model, args.file)?;
            BenchSubject::File { name, path }
        };
        let say = |words: String| {
            if !quiet {
                output::note(words);
            }
        };
        Ok(text(&subject, &options, &say)?)
    };
    let bench =
        tokio::task::spawn_blocking(work).await.context("the measurement was interrupted")??;
    let peak = peak_memory_bytes();
    match setting.format {
        Format::Json => output::json(&in_json(&bench, peak)?)?,
        Format::Text => table::lines(&bench, peak).iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

/// The name and the place of a model: of the library, or a file.
fn model_path(
    store: &ModelStore,
    model: &str,
    file: Option<PathBuf>,
) -> anyhow::Result<(String, PathBuf)> {
    if let Some(path) = file {
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into());
        return Ok((name, path));
    }
    let id: ModelId = model.parse()?;
    Ok((model.to_owned(), store.verified_blocking(&id)?))
}

/// Everything that was measured, and the shares that follow from it.
fn in_json(bench: &TextBench, peak_memory_bytes: Option<u64>) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(bench)?;
    value["decode_tokens_per_s"] = json!(bench.rates.alone());
    value["prefill_tokens_per_s"] = json!(bench.rates.prefill_tokens_per_s);
    value["bandwidth_share"] = json!(table::bandwidth_share(bench));
    value["matmul_share"] = json!(table::matmul_share(bench));
    value["peak_memory_bytes"] = json!(peak_memory_bytes);
    let ratios = bench.peers.iter().filter_map(|peer| {
        let theirs = peer.rates.as_ref()?;
        let decode = bench.rates.decode.iter().filter_map(|own| {
            let ratio = own.tokens_per_s / theirs.with(own.sequences)?;
            Some(json!({ "sequences": own.sequences, "ratio": ratio }))
        });
        let prefill = bench.rates.prefill_tokens_per_s / theirs.prefill_tokens_per_s;
        Some(json!({ "peer": peer.name, "prefill": prefill, "decode": decode.collect::<Vec<_>>() }))
    });
    value["ratios"] = json!(ratios.collect::<Vec<_>>());
    Ok(value)
}
