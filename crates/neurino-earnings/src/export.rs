//! Records as files for other programs: CSV for spreadsheets, JSON for scripts.
//!
//! Amounts are written as points with six decimals and times as RFC 3339 in UTC, so that no reader
//! has to know what a micro-point is.

use std::io::{self, Write};

use jiff::Timestamp;
use neurino_core::{MicroPoints, Receipt};
use neurino_protocol::earnings::{ExportFormat, JobRecord, SeriesBar};
use serde_json::{Value, json};

use crate::error::RecordError;
use crate::receipts::ReceiptLog;

/// Writes rows in either format; finish it with [`Table::end`].
struct Table<'a, W: Write> {
    out: &'a mut W,
    format: ExportFormat,
    columns: &'static [&'static str],
    rows: u64,
}

impl<'a, W: Write> Table<'a, W> {
    fn begin(
        out: &'a mut W,
        format: ExportFormat,
        columns: &'static [&'static str],
    ) -> io::Result<Self> {
        match format {
            ExportFormat::Csv => writeln!(out, "{}", columns.join(","))?,
            ExportFormat::Json => write!(out, "[")?,
        }
        Ok(Self { out, format, columns, rows: 0 })
    }

    fn row<const N: usize>(&mut self, cells: [Value; N]) -> io::Result<()> {
        debug_assert_eq!(N, self.columns.len(), "one cell for each column");
        match self.format {
            ExportFormat::Csv => {
                let cells: Vec<String> = cells.iter().map(csv_cell).collect();
                writeln!(self.out, "{}", cells.join(","))?;
            }
            ExportFormat::Json => {
                let separator = if self.rows > 0 { "," } else { "" };
                let object: serde_json::Map<String, Value> =
                    self.columns.iter().map(|c| (*c).to_owned()).zip(cells).collect();
                write!(self.out, "{separator}\n{}", Value::Object(object))?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn end(self) -> io::Result<u64> {
        if self.format == ExportFormat::Json {
            writeln!(self.out, "\n]")?;
        }
        self.out.flush()?;
        Ok(self.rows)
    }
}

/// A cell of CSV. Text that a spreadsheet would take for a formula gets an apostrophe before it.
fn csv_cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text,
        other => return other.to_string(),
    };
    let number = text.parse::<f64>().is_ok();
    let formula = !number && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.clone() };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

fn time(at_ms: i64) -> Value {
    Timestamp::from_millisecond(at_ms).map_or(Value::Null, |t| json!(t.to_string()))
}

fn points(amount: MicroPoints) -> Value {
    json!(amount.to_string())
}

/// Writes the receipts settled at or after a time, oldest first; returns how many.
///
/// # Errors
/// [`RecordError::Io`], also when `out` fails.
pub fn receipts(
    log: &ReceiptLog,
    since_ms: i64,
    format: ExportFormat,
    out: &mut impl Write,
) -> Result<u64, RecordError> {
    const COLUMNS: &[&str] = &[
        "settled_at",
        "points",
        "kind",
        "model",
        "units",
        "prompt_tokens",
        "completion_tokens",
        "base",
        "factor",
        "multiplier",
        "rule_set",
        "duration_ms",
        "network",
        "job",
        "lease",
        "event",
        "node",
        "sha256",
        "coordinator",
        "signature",
    ];
    let failed = || RecordError::io("write", std::path::Path::new("the export"));
    let mut table = Table::begin(out, format, COLUMNS).map_err(failed())?;
    log.each(since_ms, |r: &Receipt| {
        let q = &r.quote;
        table.row([
            time(r.settled_at_ms),
            points(q.amount_micro),
            json!(q.points),
            json!(r.model),
            json!(q.units),
            json!(r.usage.prompt_tokens),
            json!(r.usage.completion_tokens),
            points(q.base_micro),
            json!(q.factor.to_string()),
            json!(q.multiplier.to_string()),
            json!(r.rule_set),
            json!(r.duration_ms),
            json!(r.network),
            json!(r.job),
            json!(r.lease),
            json!(r.event),
            json!(r.node),
            json!(r.digest),
            json!(r.coordinator),
            json!(r.signature),
        ])
    })?;
    table.end().map_err(failed())
}

/// Writes jobs of the history, oldest first; returns how many.
///
/// # Errors
/// Those of `out`.
pub fn jobs<'a>(
    jobs: impl Iterator<Item = &'a JobRecord>,
    format: ExportFormat,
    out: &mut impl Write,
) -> io::Result<u64> {
    const COLUMNS: &[&str] = &[
        "ended_at",
        "outcome",
        "reason",
        "kind",
        "model",
        "points",
        "loading_ms",
        "waiting_ms",
        "computing_ms",
        "sending_ms",
        "job",
        "lease",
    ];
    let mut table = Table::begin(out, format, COLUMNS)?;
    for job in jobs {
        let part = |of: fn(&neurino_protocol::earnings::JobTimes) -> u64| {
            job.times.as_ref().map_or(Value::Null, |times| json!(of(times)))
        };
        table.row([
            time(job.ended_ms),
            json!(job.outcome),
            json!(job.reason),
            json!(job.kind),
            json!(job.model),
            points(job.points),
            part(|t| t.loading_ms),
            part(|t| t.waiting_ms),
            part(|t| t.computing_ms),
            part(|t| t.sending_ms),
            json!(job.job),
            json!(job.lease),
        ])?;
    }
    table.end()
}

/// Writes days (or other bars) with points, jobs, hours and energy; returns how many.
///
/// # Errors
/// Those of `out`.
pub fn days(bars: &[SeriesBar], format: ExportFormat, out: &mut impl Write) -> io::Result<u64> {
    const COLUMNS: &[&str] = &[
        "from",
        "until",
        "llama_points",
        "waifu_points",
        "jobs",
        "mined_hours",
        "kwh",
        "kwh_estimated",
    ];
    let mut table = Table::begin(out, format, COLUMNS)?;
    for bar in bars {
        table.row([
            time(bar.from_ms),
            time(bar.until_ms),
            points(bar.points.llama),
            points(bar.points.waifu),
            json!(bar.jobs),
            thousandths(bar.mined_ms, 3_600_000),
            thousandths(bar.energy.used_mj, 3_600_000_000),
            thousandths(bar.energy.estimated_mj, 3_600_000_000),
        ])?;
    }
    table.end()
}

/// An amount in a larger unit with three decimals, rounded down, without a float.
fn thousandths(amount: u64, unit: u64) -> Value {
    let n = u128::from(amount) * 1000 / u128::from(unit);
    json!(format!("{}.{:03}", n / 1000, n % 1000))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::{JobId, JobKind, LeaseId, ModelId};
    use neurino_protocol::earnings::{BothPoints, Energy, JobOutcome, JobTimes};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn cells_cannot_break_their_row_or_become_formulas() {
        for (value, expect) in [
            (json!("plain"), "plain"),
            (json!("a,b"), "\"a,b\""),
            (json!("say \"x\""), "\"say \"\"x\"\"\""),
            (json!("=HYPERLINK()"), "'=HYPERLINK()"),
            (json!("-1.500000"), "-1.500000"),
            (json!("two\nlines"), "\"two\nlines\""),
            (Value::Null, ""),
            (json!(7), "7"),
        ] {
            assert_eq!(csv_cell(&value), expect);
        }
    }

    #[test]
    fn jobs_and_days_in_both_formats() {
        let job = JobRecord {
            job: JobId(Uuid::nil()),
            lease: LeaseId(Uuid::nil()),
            kind: JobKind::Image,
            model: ModelId::new("m").unwrap(),
            ended_ms: 1_000,
            outcome: JobOutcome::HandedBack,
            reason: Some("a game, started".into()),
            times: Some(JobTimes { loading_ms: 1, waiting_ms: 2, computing_ms: 3, sending_ms: 4 }),
            points: MicroPoints(0),
        };
        let mut csv = Vec::new();
        assert_eq!(jobs([&job].into_iter(), ExportFormat::Csv, &mut csv).unwrap(), 1);
        let csv = String::from_utf8(csv).unwrap();
        let row = csv.lines().nth(1).unwrap();
        let begin =
            "1970-01-01T00:00:01Z,handed_back,\"a game, started\",image,m,0.000000,1,2,3,4,";
        assert!(row.starts_with(begin), "{row}");
        let mut list = Vec::new();
        jobs([&job, &job].into_iter(), ExportFormat::Json, &mut list).unwrap();
        let list: Vec<Value> = serde_json::from_slice(&list).unwrap();
        assert_eq!((list.len(), &list[1]["loading_ms"]), (2, &json!(1)));

        let bar = SeriesBar {
            from_ms: 0,
            until_ms: 86_400_000,
            points: BothPoints { llama: MicroPoints(1_500_000), waifu: MicroPoints(0) },
            jobs: 3,
            mined_ms: 5_400_000,
            energy: Energy { used_mj: 900_000_000, estimated_mj: 0 },
        };
        let mut csv = Vec::new();
        days(&[bar], ExportFormat::Csv, &mut csv).unwrap();
        assert!(String::from_utf8(csv).unwrap().contains("1.500000,0.000000,3,1.500,0.250,0.000"));
    }
}
