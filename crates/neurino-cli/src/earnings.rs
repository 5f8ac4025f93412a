//! `neurino earnings`: what this machine earned and used, from its own records. It changes no file and
//! works while the program runs.

use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use neurino_config::RulesFile;
use neurino_earnings::tariff::{self, Prices};
use neurino_earnings::{Meter, ReceiptLog, ReceiptTotals, RecordError, export, report};
use neurino_protocol::earnings::{Checked, ExportFormat, ModelTotal, SpanKind, SpanTotal};
use serde::Serialize;

use crate::Setting;
use crate::args::EarningsArgs;
use crate::output::{self, Format};

/// The records of one network.
#[derive(Serialize)]
struct Network {
    /// Folder of the network's records.
    #[serde(rename = "network")]
    folder: String,
    time_zone: String,
    spans: Vec<SpanTotal>,
    models_30_days: Vec<ModelTotal>,
    checked: Checked,
}

pub(crate) fn run(setting: &Setting, args: &EarningsArgs) -> anyhow::Result<ExitCode> {
    let zone = TimeZone::system();
    let since_ms = args.since.as_deref().map(|day| begin_of(day, &zone)).transpose()?;
    let logs = logs(&setting.dirs.data)?;
    if args.csv || args.receipts {
        let format = if args.csv { ExportFormat::Csv } else { ExportFormat::Json };
        return every_receipt(&logs, since_ms.unwrap_or(0), format);
    }
    let tariff = tariff::load(&setting.dirs.config.join("tariff.json"));
    let week = RulesFile::new(&setting.dirs).load().week;
    let prices = tariff.as_ref().map(|tariff| Prices { tariff, week: &week, zone: &zone });
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let mut networks = Vec::new();
    for (name, log, meter) in &logs {
        networks.push(log.view(|receipts| {
            let mut spans = report::spans(receipts, meter, now_ms, &zone, prices.as_ref());
            if let Some(since_ms) = since_ms {
                spans.retain(|span| span.span == SpanKind::Lifetime);
                let totals = ReceiptTotals::of(receipts.between(since_ms, i64::MAX));
                let metered = meter.between(since_ms, i64::MAX);
                for span in &mut spans {
                    span.since_ms = since_ms;
                    (span.points, span.jobs) = (totals.points(), totals.jobs);
                    (span.mined_ms, span.energy) = (metered.mined_ms, metered.energy);
                    let spent = || meter.spent(since_ms, i64::MAX);
                    span.cost_micro = prices.as_ref().map(|prices| prices.cost_micro(spent()));
                }
            }
            Network {
                folder: name.clone(),
                time_zone: zone.iana_name().unwrap_or("local time").to_owned(),
                spans,
                models_30_days: report::models(receipts, now_ms, &zone).0,
                checked: report::checked(receipts),
            }
        }));
    }
    match setting.format {
        Format::Json => output::json(&networks)?,
        Format::Text if networks.is_empty() => {
            output::line("Nothing was earned on this machine yet.");
        }
        Format::Text => networks.iter().for_each(|network| print(network, since_ms.is_some())),
    }
    Ok(ExitCode::SUCCESS)
}

/// The records of every network this machine worked for.
fn logs(data: &Path) -> anyhow::Result<Vec<(String, ReceiptLog, Meter)>> {
    let mut found = Vec::new();
    let folders = std::fs::read_dir(data).with_context(|| format!("{}", data.display()))?;
    for folder in folders.flatten().map(|entry| entry.path()) {
        let path = folder.join("receipts.jsonl");
        if !path.is_file() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let meter = folder.join("meter.bin");
        let meter = if meter.is_file() { Meter::read(&meter)? } else { Meter::none() };
        found.push((name, ReceiptLog::read(&path)?, meter));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn every_receipt(
    logs: &[(String, ReceiptLog, Meter)],
    since_ms: i64,
    format: ExportFormat,
) -> anyhow::Result<ExitCode> {
    let logs: Vec<&ReceiptLog> = logs.iter().map(|(_, log, _)| log).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    match export::receipts(&logs, since_ms, format, &mut out) {
        // The reader has seen enough.
        Err(RecordError::Export(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        done => {
            done?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn begin_of(day: &str, zone: &TimeZone) -> anyhow::Result<i64> {
    let date: jiff::civil::Date = day.parse().with_context(|| format!("`{day}` is no day"))?;
    let noon = date.at(12, 0, 0, 0).to_zoned(zone.clone())?;
    Ok(noon.start_of_day()?.timestamp().as_millisecond())
}

fn print(network: &Network, since: bool) {
    output::line(format!("{} ({})", network.folder, network.time_zone));
    let head = format!(
        "  {:<10} {:>18} {:>18} {:>9} {:>9} {:>9}",
        "", "Llama", "Waifu", "jobs", "hours", "kWh"
    );
    output::line(head);
    for span in &network.spans {
        let name = match span.span {
            _ if since => "since",
            SpanKind::Today => "today",
            SpanKind::Week => "7 days",
            SpanKind::Month => "30 days",
            SpanKind::Lifetime => "lifetime",
        };
        let mark = if span.energy.estimated_mj > 0 { "~" } else { "" };
        output::line(format!(
            "  {name:<10} {:>18} {:>18} {:>9} {:>9} {:>9}",
            span.points.llama.to_string(),
            span.points.waifu.to_string(),
            span.jobs,
            thousandths(span.mined_ms, 3_600_000),
            format!("{mark}{}", thousandths(span.energy.used_mj, 3_600_000_000)),
        ));
    }
    if network.checked.differ > 0 {
        let n = network.checked.differ;
        output::line(format!("  {n} receipts do not add up; `neurino` shows them under Earnings"));
    }
}

fn thousandths(amount: u64, unit: u64) -> String {
    let n = u128::from(amount) * 1000 / u128::from(unit);
    format!("{}.{:03}", n / 1000, n % 1000)
}
