//! `neurino bench download`

use std::process::ExitCode;

use serde_json::json;

use crate::Setting;
use crate::args::BenchDownloadArgs;
use crate::output::{self, Format};

/// Downloads from a server of this process, so that no line is in the way.
pub(crate) async fn run(setting: &Setting, args: &BenchDownloadArgs) -> anyhow::Result<ExitCode> {
    let folder = args.folder.clone().unwrap_or_else(|| setting.dirs.models.join(".bench"));
    let size_bytes = u64::from(args.megabytes) * 1_000_000;
    let mut best: Option<neurino_model_store::bench::DownloadBench> = None;
    for _ in 0..args.runs {
        let run = neurino_model_store::bench::measure(&folder, size_bytes, args.connections).await;
        let run = run?;
        if best.is_none_or(|best| run.ratio() > best.ratio()) {
            best = Some(run);
        }
    }
    let _ = std::fs::remove_dir(&folder);
    let Some(bench) = best else { return Ok(ExitCode::SUCCESS) };
    match setting.format {
        Format::Json => output::json(&json!({
            "size_bytes": bench.size_bytes,
            "sha256_bytes_per_s": bench.sha256_bytes_per_s,
            "download_bytes_per_s": bench.download_bytes_per_s,
            "arrived_bytes_per_s": bench.arrived_bytes_per_s,
            "ratio": bench.ratio(),
            "arrived_ratio": bench.arrived_ratio(),
        }))?,
        Format::Text => {
            let mb = |rate: f64| format!("{:.0} MB/s", rate / 1e6);
            output::line(format!("SHA-256 alone       {:>10}", mb(bench.sha256_bytes_per_s)));
            let (arrived, whole) = (bench.arrived_bytes_per_s, bench.download_bytes_per_s);
            output::line(format!(
                "download, hashed    {:>10}  {:.2} of SHA-256",
                mb(arrived),
                bench.arrived_ratio()
            ));
            output::line(format!(
                "download, on drive  {:>10}  {:.2} of SHA-256",
                mb(whole),
                bench.ratio()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}
