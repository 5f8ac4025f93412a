//! Records as files for other programs: CSV for spreadsheets, JSON for scripts.
//!
//! Amounts are written as points with six decimals and times as RFC 3339 in UTC, so that no reader
//! has to know what a micro-point is.

use std::io::{self, Write};

use jiff::Timestamp;
use neurino_core::{
    EventId, JobId, LeaseId, MicroPoints, ModelId, Multiplier, NodeId, PointsKind, Quote, Receipt,
    ResultDigest, Usage,
};
use neurino_protocol::earnings::{ExportFormat, JobRecord, SeriesBar};
use serde::Deserialize;
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
            let begin = if self.rows > 0 { "\n" } else { "" };
            writeln!(self.out, "{begin}]")?;
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

/// Writes the receipts settled at or after a time, each log's oldest first, as one table over all logs;
/// returns how many.
///
/// # Errors
/// [`RecordError::Io`]; [`RecordError::Export`] when `out` fails.
pub fn receipts(
    logs: &[&ReceiptLog],
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
    let mut table = Table::begin(out, format, COLUMNS).map_err(RecordError::Export)?;
    for log in logs {
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
    }
    table.end().map_err(RecordError::Export)
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

/// Reads receipts back: the lines of a log, or what [`receipts`] wrote as JSON, whole or a line each. The
/// signatures are not looked at.
///
/// # Errors
/// [`RecordError::NotReceipts`].
pub fn read_receipts(text: &str) -> Result<Vec<Receipt>, RecordError> {
    let bad = |at: usize, error: &dyn std::fmt::Display| RecordError::NotReceipts {
        at,
        rule: error.to_string(),
    };
    if text.trim_start().starts_with('[') {
        let values: Vec<Value> = serde_json::from_str(text).map_err(|error| bad(1, &error))?;
        let read =
            |(at, value): (usize, Value)| receipt_of(value).map_err(|rule| bad(at + 1, &rule));
        return values.into_iter().enumerate().map(read).collect();
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let value = serde_json::from_str(line).map_err(|error| bad(at + 1, &error))?;
            receipt_of(value).map_err(|rule| bad(at + 1, &rule))
        })
        .collect()
}

/// A row of the export, its names those of the columns.
#[derive(Deserialize)]
struct Row {
    settled_at: Timestamp,
    points: String,
    kind: PointsKind,
    model: ModelId,
    units: u32,
    prompt_tokens: u32,
    completion_tokens: u32,
    base: String,
    factor: String,
    multiplier: String,
    rule_set: String,
    duration_ms: u64,
    network: String,
    job: JobId,
    lease: LeaseId,
    event: EventId,
    node: NodeId,
    sha256: ResultDigest,
    coordinator: String,
    signature: String,
}

/// A receipt as a log has it, or a row of the export.
fn receipt_of(value: Value) -> Result<Receipt, String> {
    if value.get("settled_at").is_none() {
        return serde_json::from_value(value).map_err(|error| error.to_string());
    }
    let row: Row = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let amount = |text: &str| {
        millionths(text).ok_or_else(|| format!("`{text}` has to be a number of six decimals"))
    };
    let factor = |text: &str| {
        let factor = amount(text)?;
        u32::try_from(factor).map(Multiplier).map_err(|_| format!("`{text}` is out of range"))
    };
    Ok(Receipt {
        event: row.event,
        job: row.job,
        lease: row.lease,
        node: row.node,
        model: row.model,
        usage: Usage { prompt_tokens: row.prompt_tokens, completion_tokens: row.completion_tokens },
        rule_set: row.rule_set,
        quote: Quote {
            points: row.kind,
            units: row.units,
            base_micro: MicroPoints(amount(&row.base)?),
            factor: factor(&row.factor)?,
            multiplier: factor(&row.multiplier)?,
            amount_micro: MicroPoints(amount(&row.points)?),
        },
        digest: row.sha256,
        duration_ms: row.duration_ms,
        settled_at_ms: row.settled_at.as_millisecond(),
        network: row.network,
        coordinator: row.coordinator,
        signature: row.signature,
    })
}

/// A decimal number in millionths, exactly; `None` for anything with more decimals or no number.
fn millionths(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, part)) => (whole, part),
        None => (digits, ""),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !is_number(whole) || !is_number(part) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let part: i64 = format!("{part:0<6}").parse().ok()?;
    let sum = whole.checked_mul(MicroPoints::PER_POINT)?.checked_add(part)?;
    Some(if negative { -sum } else { sum })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::JobKind;
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

    fn receipt(event: u128) -> Receipt {
        Receipt {
            event: EventId(Uuid::from_u128(event)),
            job: JobId(Uuid::from_u128(event)),
            lease: LeaseId(Uuid::from_u128(event)),
            node: NodeId::new("0xab").unwrap(),
            model: ModelId::new("m").unwrap(),
            usage: Usage { prompt_tokens: 3, completion_tokens: 4 },
            rule_set: "r".into(),
            quote: Quote {
                points: PointsKind::Waifu,
                units: 7,
                base_micro: MicroPoints(7_001),
                factor: Multiplier(1_150_000),
                multiplier: Multiplier::ONE,
                amount_micro: MicroPoints(12_345_678),
            },
            digest: ResultDigest([7; 32]),
            duration_ms: 9,
            settled_at_ms: 1_795_132_800_123,
            network: "n, \"the\" club".into(),
            coordinator: "0xcd".into(),
            signature: "0xef".into(),
        }
    }

    #[test]
    fn several_logs_are_one_table_and_none_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = |name: &str, event: u128| {
            let log = ReceiptLog::open(&folder.path().join(name)).unwrap();
            log.append(&receipt(event)).unwrap();
            log
        };
        let (one, two) = (log("one.jsonl", 1), log("two.jsonl", 2));
        let written = |logs: &[&ReceiptLog], format| {
            let mut out = Vec::new();
            receipts(logs, 0, format, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let list: Vec<Value> =
            serde_json::from_str(&written(&[&one, &two], ExportFormat::Json)).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(written(&[], ExportFormat::Json), "[]\n");
        let csv = written(&[&one, &two], ExportFormat::Csv);
        assert_eq!(csv.lines().count(), 3, "{csv}");
        assert_eq!(csv.matches("settled_at").count(), 1, "{csv}");
        assert_eq!(written(&[], ExportFormat::Csv).lines().count(), 1);
    }

    #[test]
    fn a_full_disk_is_not_taken_for_a_damaged_log() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let log = ReceiptLog::open(&folder.path().join("receipts.jsonl")).unwrap();
        log.append(&receipt(1)).unwrap();
        // A small buffer, so that a row is what fails.
        let mut out = io::BufWriter::with_capacity(400, Full);
        let error = receipts(&[&log], 0, ExportFormat::Csv, &mut out).unwrap_err();
        assert!(matches!(error, RecordError::Export(_)), "{error}");
    }

    #[test]
    fn an_export_is_read_back_as_it_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let log = ReceiptLog::open(&folder.path().join("receipts.jsonl")).unwrap();
        log.append(&receipt(1)).unwrap();
        log.append(&receipt(2)).unwrap();
        let mut array = Vec::new();
        receipts(&[&log], 0, ExportFormat::Json, &mut array).unwrap();
        let array = String::from_utf8(array).unwrap();
        let values: Vec<Value> = serde_json::from_str(&array).unwrap();
        let lines: String = values.iter().map(|value| value.to_string() + "\n").collect();
        let own: String = [receipt(1), receipt(2)]
            .map(|receipt| serde_json::to_string(&receipt).unwrap() + "\n")
            .concat();
        for text in [&array, &lines, &own] {
            assert_eq!(read_receipts(text).unwrap(), [receipt(1), receipt(2)], "{text}");
        }
        assert!(read_receipts("[]\n").unwrap().is_empty());
        let changed = array.replacen("12.345678", "12.3456789", 1);
        for (bad, at) in [(changed.as_str(), 1), ("[7]", 1), ("\n{}\n", 2), ("[{}", 1)] {
            match read_receipts(bad).unwrap_err() {
                RecordError::NotReceipts { at: found, .. } => assert_eq!(found, at, "{bad}"),
                error => panic!("{bad}: {error}"),
            }
        }
    }

    #[test]
    fn decimals_are_read_without_rounding() {
        for (text, expect) in [
            ("0.024000", Some(24_000)),
            ("-1.500000", Some(-1_500_000)),
            ("-0.5", Some(-500_000)),
            ("1.15", Some(1_150_000)),
            ("1", Some(1_000_000)),
            ("", None),
            ("-", None),
            ("1.", None),
            (".5", None),
            ("1.0000001", None),
            ("1e3", None),
            ("+1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(millionths(text), expect, "{text}");
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
