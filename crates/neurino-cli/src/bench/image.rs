//! `neurino bench image`: how fast an image model makes pictures.

use std::process::ExitCode;

use anyhow::Context as _;
use neurino_engine::bench::{BenchSubject, ImageBench, ImageBenchOptions, ImagePeerBench, image};
use neurino_hardware::peak_memory_bytes;
use serde_json::{Value, json};

use super::{model_path, table};
use crate::Setting;
use crate::args::BenchImageArgs;
use crate::output::{self, Format};

pub(super) async fn run(setting: Setting, args: BenchImageArgs) -> anyhow::Result<ExitCode> {
    let options = ImageBenchOptions {
        device: neurino_app::device_choice(args.device.unwrap_or(setting.settings.engine.device)),
        steps: args.steps,
        size: args.size,
        runs: args.runs,
        compare: args.compare,
        compiled: args.compiled,
        against: args.against,
        python: args.python,
    };
    let store = setting.library()?;
    let quiet = setting.format == Format::Json;
    let work = move || -> anyhow::Result<ImageBench> {
        let subject = if let Some(name) = args.shape {
            BenchSubject::Shape { name, format: None }
        } else {
            let model = args.model.unwrap_or_default();
            let (name, path) = model_path(&store, &model, args.file)?;
            BenchSubject::File { name, path }
        };
        let say = |words: String| {
            if !quiet {
                output::note(words);
            }
        };
        Ok(image(&subject, &options, &say)?)
    };
    let bench =
        tokio::task::spawn_blocking(work).await.context("the measurement was interrupted")??;
    let peak = peak_memory_bytes();
    match setting.format {
        Format::Json => output::json(&in_json(&bench, peak)?)?,
        Format::Text => lines(&bench, peak).iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that was measured, and the shares that follow from it.
fn in_json(bench: &ImageBench, peak_memory_bytes: Option<u64>) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(bench)?;
    value["steps_per_s"] = json!(bench.steps_per_s());
    value["step_matmul_share"] = json!(bench.step_share());
    value["decode_matmul_share"] = json!(bench.decode_share());
    value["peak_memory_bytes"] = json!(peak_memory_bytes);
    value["peak_plan_ratio"] = json!(bench.peak_share());
    if let Some(peer) = bench.peer.as_ref().filter(|peer| peer.failure.is_none()) {
        value["ratios"] = json!({
            "text": peer.text_s / bench.text_s,
            "step": peer.step_s / bench.step_s,
            "decode": peer.decode_s / bench.decode_s,
            "image": peer.image_s / bench.image_s,
        });
        if let Some(compiled) = &peer.compiled {
            value["ratios"]["compiled"] = json!({
                "step": compiled.step_s / bench.step_s,
                "decode": compiled.decode_s / bench.decode_s,
                "image": compiled.image_s / bench.image_s,
            });
        }
    }
    // The other way round: how many times its time this model takes.
    if let Some(other) = &bench.against {
        value["against"]["ratios"] = json!({
            "text": bench.text_s / other.text_s,
            "step": bench.step_s / other.step_s,
            "decode": bench.decode_s / other.decode_s,
            "image": bench.image_s / other.image_s,
        });
    }
    Ok(value)
}

fn lines(bench: &ImageBench, peak_memory_bytes: Option<u64>) -> Vec<String> {
    let row = table::row;
    let passes = if bench.passes == 1 { "one pass" } else { "two passes" };
    let mut lines = vec![
        format!(
            "{} ({}) on {}, {} x {}, {} steps, median of {} {}",
            bench.model,
            bench.family,
            bench.device,
            bench.width,
            bench.height,
            bench.steps,
            bench.runs,
            if bench.runs == 1 { "picture" } else { "pictures" },
        ),
        row("load", bench.load_ms as f64 / 1000.0, "s", ""),
        row("picture", bench.image_s, "s", "prompt to PNG"),
        row("text encoders", bench.text_s, "s", ""),
        row("step", bench.step_s, "s", passes),
        row("steps", bench.steps_per_s(), "it/s", ""),
        row("VAE", bench.decode_s, "s", "with the PNG"),
        row("weights", bench.weights_bytes as f64 / 1e6, "MB", ""),
        row("planned", bench.planned_bytes as f64 / 1e6, "MB", "with activations"),
    ];
    if let Some((peak, share)) = bench.peak_bytes.zip(bench.peak_share()) {
        let of = format!("= {:.0} % of the plan", 100.0 * share);
        lines.push(row("peak", peak as f64 / 1e6, "MB", &of));
    }
    if let Some(peak) = peak_memory_bytes {
        lines.push(row("peak memory", peak as f64 / 1e6, "MB", "of this process"));
    }
    if let Some(flop) = bench.ceilings.matmul_flop_per_s {
        let what = if bench.on_cpu { "f32 products" } else { "f16 products" };
        lines.push(row(what, flop / 1e9, "GFLOP/s", "measured now"));
    }
    for (what, flop, seconds, share) in [
        ("a step does", bench.step_flop, bench.step_s, bench.step_share()),
        ("the VAE does", bench.decode_flop, bench.decode_s, bench.decode_share()),
    ] {
        let note = share.map(|share| format!("= {:.0} % of it", 100.0 * share));
        lines.push(row(what, flop / seconds / 1e9, "GFLOP/s", &note.unwrap_or_default()));
    }
    if let Some(other) = &bench.against {
        let weights = other.weights_bytes as f64 / 1e6;
        lines.push(format!("times of {}, {weights:.0} MB of weights", other.model));
        for (what, own, other) in [
            ("text encoders", bench.text_s, other.text_s),
            ("step", bench.step_s, other.step_s),
            ("VAE", bench.decode_s, other.decode_s),
            ("picture", bench.image_s, other.image_s),
        ] {
            let ratio = own / other;
            lines.push(format!("  {what:<18} {own:>10.3} to {other:>10.3} s = {ratio:.2} times"));
        }
    }
    if let Some(peer) = &bench.peer {
        compare(bench, peer, &mut lines);
    }
    if let Some(missing) = &bench.peer_missing {
        lines.push(format!("not compared with {missing}"));
    }
    lines
}

fn compare(bench: &ImageBench, peer: &ImagePeerBench, lines: &mut Vec<String>) {
    lines.push(format!("beside {}, weights: {}", peer.name, peer.weights));
    if let Some(failure) = &peer.failure {
        lines.push(format!("  not measured: {failure}"));
        return;
    }
    for (what, own, other) in [
        ("text encoders", bench.text_s, peer.text_s),
        ("step", bench.step_s, peer.step_s),
        ("VAE", bench.decode_s, peer.decode_s),
        ("picture", bench.image_s, peer.image_s),
    ] {
        lines.push(beside(what, own, other));
    }
    if let Some(failure) = &peer.compiled_failure {
        lines.push(format!("  compiled by torch: not measured: {failure}"));
    }
    if let Some(compiled) = &peer.compiled {
        lines.push("  compiled by torch".to_owned());
        for (what, own, other) in [
            ("step", bench.step_s, compiled.step_s),
            ("VAE", bench.decode_s, compiled.decode_s),
            ("picture", bench.image_s, compiled.image_s),
        ] {
            lines.push(beside(what, own, other));
        }
    }
}

/// Two times, and how many times faster the first is.
fn beside(what: &str, own: f64, other: f64) -> String {
    let ratio = other / own;
    format!("  {what:<18} {own:>10.3} to {other:>10.3} s = {ratio:.2}x")
}
