//! Earnings and monitoring: what the window asks about them and what it gets.
//!
//! One command carries [`EarningsAsk`], one reply [`EarningsAnswer`]. Amounts are micro-points, times
//! are milliseconds since the Unix epoch unless a name says otherwise, energy is in millijoules
//! (3.6e9 of them are a kilowatt hour). Days are those of the machine's time zone.

use neurino_core::{
    JobId, JobKind, LeaseId, MicroPoints, ModelId, Multiplier, PointsKind, Quote, Receipt,
};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::trust::NodeTrust;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum EarningsAsk {
    /// The cards: answered with [`EarningsAnswer::Overview`].
    Overview,
    /// Bars over time: answered with [`EarningsAnswer::Series`].
    Series {
        /// Width of a bar.
        by: SeriesStep,
        /// How many, the current one included; at most 400.
        count: u32,
    },
    /// A page of receipts, newest first: answered with [`EarningsAnswer::Receipts`].
    Receipts {
        /// Which.
        filter: ReceiptFilter,
        /// The `next` of the page before; the newest when absent.
        before: Option<u32>,
        /// At most so many, up to 200.
        limit: u32,
    },
    /// One receipt computed again by the rules it names: answered with
    /// [`EarningsAnswer::Recomputed`].
    Recompute {
        /// As it was shown.
        receipt: Box<Receipt>,
    },
    /// A page of the job history, newest first: answered with [`EarningsAnswer::Jobs`].
    Jobs {
        /// Which.
        filter: JobFilter,
        /// The `next` of the page before; the newest when absent.
        before: Option<u32>,
        /// At most so many, up to 200.
        limit: u32,
    },
    /// What the machine's sensors said: answered with [`EarningsAnswer::Telemetry`].
    Telemetry {
        /// How far back.
        span: TelemetrySpan,
    },
    /// Lines of the logs, newest first: answered with [`EarningsAnswer::Logs`].
    Logs {
        /// Which.
        filter: LogFilter,
        /// At most so many, up to 2000.
        limit: u32,
    },
    /// Writes receipts or jobs to the person's folder of documents: answered with
    /// [`EarningsAnswer::Saved`].
    Export {
        /// What.
        what: ExportKind,
        /// How.
        format: ExportFormat,
        /// From when on; everything when absent.
        since_ms: Option<i64>,
    },
    /// Writes the matching log lines, redacted, to the same folder.
    LogsSave {
        /// Which.
        filter: LogFilter,
    },
    /// Writes a bundle for whoever helps: checks, settings and logs without secrets or addresses.
    Bundle,
    /// Sets the price of energy, or forgets it.
    Tariff {
        /// The price.
        tariff: Option<Tariff>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "answer", content = "payload", rename_all = "snake_case")]
pub enum EarningsAnswer {
    /// The cards.
    Overview(Box<EarningsOverview>),
    /// Bars, oldest first; none is left out.
    Series(Vec<SeriesBar>),
    /// A page of receipts.
    Receipts(ReceiptPage),
    /// What a receipt comes to.
    Recomputed(Recomputed),
    /// A page of the job history.
    Jobs(JobPage),
    /// What the sensors said.
    Telemetry(TelemetrySeries),
    /// Log lines.
    Logs(LogPage),
    /// A file was written.
    Saved {
        /// Where it lies now.
        path: String,
    },
    /// Done.
    Ok,
}

/// Both kinds of points; they are never added to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct BothPoints {
    /// Paid for text.
    pub llama: MicroPoints,
    /// Paid for pictures.
    pub waifu: MicroPoints,
}

/// Everything the cards show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct EarningsOverview {
    /// When this was computed.
    pub at_ms: i64,
    /// The time zone of its days, for example `Europe/Berlin`.
    pub time_zone: String,
    /// The rate of the last fifteen minutes, and what follows from it.
    pub rate: Rate,
    /// Today, the last 7 and 30 days, and all time.
    pub spans: Vec<SpanTotal>,
    /// Results that no receipt has answered yet; their points are not part of any total.
    pub pending: Pending,
    /// Each model of the last 30 days, the best paid first.
    pub models: Vec<ModelTotal>,
    /// Which factors paid in the last 30 days.
    pub multipliers: Vec<MultiplierLine>,
    /// Why the last 24 hours differ from the 24 before, for each kind that was earned.
    pub changes: Vec<RateChange>,
    /// The week that runs.
    pub week: WeekTotal,
    /// Past weeks in which something was earned, newest first, at most 60.
    pub weeks: Vec<WeekTotal>,
    /// The price of energy, if the person has set one.
    pub tariff: Option<Tariff>,
    /// What needs the person's eye.
    pub alarms: Vec<EarningsAlarm>,
    /// Receipts that were computed again here, out of all.
    pub checked: Checked,
    /// How closely the network watches this machine, where it says so.
    pub trust: Option<NodeTrust>,
}

/// Points an hour, from the last fifteen minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Rate {
    /// Nothing was mined in the last fifteen minutes.
    Idle,
    /// Too little was mined to say.
    Estimating {
        /// Mining time that is still missing, in milliseconds.
        ready_in_ms: u64,
    },
    /// Confirmed points of the window over the time mined in it.
    Known {
        /// Points an hour.
        hour: BothPoints,
        /// Points in 24 hours at this rate.
        day: BothPoints,
        /// Time mined in the window, in milliseconds.
        mined_ms: u64,
    },
}

/// A stretch of time up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// Since local midnight.
    Today,
    /// Today and the 6 days before.
    Week,
    /// Today and the 29 days before.
    Month,
    /// Since the first receipt.
    Lifetime,
}

/// What a stretch of time brought and took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SpanTotal {
    /// Which.
    pub span: SpanKind,
    /// When it began.
    pub since_ms: i64,
    /// Confirmed points.
    pub points: BothPoints,
    /// Jobs paid.
    pub jobs: u32,
    /// Time mined, in milliseconds.
    pub mined_ms: u64,
    /// Energy while mining.
    pub energy: Energy,
    /// What that cost at the price of the hour it was spent in, in millionths of the currency's unit;
    /// `None` without a price.
    pub cost_micro: Option<u64>,
}

/// Energy while mining.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Energy {
    /// All of it, in millijoules.
    pub used_mj: u64,
    /// The part that was estimated because no sensor told it, in millijoules.
    pub estimated_mj: u64,
}

/// Results on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Pending {
    /// Results that wait for their receipt.
    pub jobs: u32,
    /// When the oldest of them was finished.
    pub since_ms: Option<i64>,
}

/// What a model brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ModelTotal {
    /// The model.
    pub model: ModelId,
    /// Which points.
    pub kind: PointsKind,
    /// Confirmed points.
    pub points: MicroPoints,
    /// Jobs paid.
    pub jobs: u32,
}

/// Factors that priced jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct MultiplierLine {
    /// The model.
    pub model: ModelId,
    /// Which points.
    pub kind: PointsKind,
    /// The rules that set them.
    pub rule_set: String,
    /// The model's factor.
    pub factor: Multiplier,
    /// The owner's multiplier: what holdings and season add, as one figure in the receipt.
    pub multiplier: Multiplier,
    /// Jobs paid so.
    pub jobs: u32,
    /// Confirmed points.
    pub points: MicroPoints,
}

/// Two windows of 24 hours beside each other, and what made the difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RateChange {
    /// Which points.
    pub kind: PointsKind,
    /// The earlier window.
    pub before: RateWindow,
    /// The later window.
    pub after: RateWindow,
    /// What each cause added or took; their sum is the difference. The largest first.
    pub causes: Vec<RateCause>,
}

/// One window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RateWindow {
    /// Confirmed points.
    pub points: MicroPoints,
    /// Jobs paid.
    pub jobs: u32,
    /// Time mined, in milliseconds.
    pub mined_ms: u64,
}

/// One cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RateCause {
    /// What changed.
    pub cause: RateCauseKind,
    /// Points it added (or took, below zero).
    pub effect: MicroPoints,
}

/// What can change a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum RateCauseKind {
    /// Time mined.
    HoursMined,
    /// Jobs in an hour of mining.
    JobsPerHour,
    /// Which models the jobs asked for.
    ModelMix,
    /// The owner's multiplier.
    Multiplier,
    /// How much work a job was.
    JobSize,
}

/// A week of 7 times 24 hours that begins on a Thursday at 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct WeekTotal {
    /// Its number, counted from 1 January 1970.
    pub number: u32,
    /// Its first instant.
    pub from_ms: i64,
    /// The snapshot: the first instant after it.
    pub until_ms: i64,
    /// Confirmed points.
    pub points: BothPoints,
    /// Jobs paid.
    pub jobs: u32,
    /// Time mined, in milliseconds.
    pub mined_ms: u64,
    /// Energy while mining.
    pub energy: Energy,
}

/// The price of energy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Tariff {
    /// Price of a kilowatt hour in millionths of the currency's unit.
    pub kwh_micro: u64,
    /// The same in the hours that the weekly schedule marks as cheap; `None` for one price at all
    /// hours.
    #[serde(default)]
    pub cheap_kwh_micro: Option<u64>,
    /// The currency, for example `EUR`; one to eight characters.
    pub currency: String,
}

/// Something the person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "alarm", rename_all = "snake_case")]
pub enum EarningsAlarm {
    /// Receipts whose amount is not what their own rules give.
    Drift {
        /// How many.
        receipts: u32,
        /// Paid beyond what the rules give, or below it.
        difference: MicroPoints,
    },
    /// Results were delivered and nothing was credited for a while.
    Frozen {
        /// Results that wait, and those refused since.
        jobs: u32,
        /// When something was last credited.
        credited_ms: Option<i64>,
    },
    /// The network's books and the receipts of this machine differ.
    Books {
        /// Which points.
        kind: PointsKind,
        /// What the receipts say.
        receipts: MicroPoints,
        /// What the books say.
        books: MicroPoints,
    },
}

/// How many receipts were computed again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Checked {
    /// The amount follows from the rules.
    pub agree: u32,
    /// It does not.
    pub differ: u32,
    /// This version of the program does not know the rules.
    pub unknown: u32,
}

/// Width of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum SeriesStep {
    /// An hour.
    Hour,
    /// A local day: 23, 24 or 25 hours.
    Day,
    /// A week from snapshot to snapshot.
    Week,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SeriesBar {
    /// Its first instant.
    pub from_ms: i64,
    /// The first instant after it.
    pub until_ms: i64,
    /// Confirmed points.
    pub points: BothPoints,
    /// Jobs paid.
    pub jobs: u32,
    /// Time mined, in milliseconds.
    pub mined_ms: u64,
    /// Energy while mining.
    pub energy: Energy,
}

/// Which receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ReceiptFilter {
    /// Part of the model's id or of the rule set's name, in any case; everything when empty.
    pub text: String,
    /// Only one kind of points.
    pub kind: Option<PointsKind>,
    /// Settled at or after.
    pub since_ms: Option<i64>,
    /// Settled before.
    pub until_ms: Option<i64>,
    /// Only those whose amount does not follow from their rules.
    pub drifted: bool,
}

/// A receipt, computed again on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Recomputed {
    /// How it compares.
    pub verdict: ReceiptVerdict,
    /// What the rules give; absent where they are not known, or have no price for the model.
    pub quote: Option<Quote>,
}

/// How a receipt compares with the rules it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptVerdict {
    /// Every step is the same.
    Agrees,
    /// Another amount, or another way to it.
    Differs,
    /// This program does not know the rules.
    Unknown,
}

/// A page of receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ReceiptPage {
    /// Newest first.
    pub receipts: Vec<Receipt>,
    /// How many match in all.
    pub matching: u32,
    /// What the matching ones paid.
    pub points: BothPoints,
    /// Where the next page begins; nothing older when absent.
    pub next: Option<u32>,
}

/// How a job ended on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// A receipt came.
    Paid,
    /// Its time was over before it was done.
    Late,
    /// It could not be computed.
    Failed,
    /// Given back unharmed; another machine takes it.
    HandedBack,
    /// Withdrawn by the network or its payer.
    Withdrawn,
    /// The network did not accept the result.
    Refused,
}

/// A job that ended on this machine. No prompt and no answer is part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct JobRecord {
    /// The job.
    pub job: JobId,
    /// The lease it ran under.
    pub lease: LeaseId,
    /// What it made.
    pub kind: JobKind,
    /// Its model.
    pub model: ModelId,
    /// When it ended here.
    pub ended_ms: i64,
    /// How.
    pub outcome: JobOutcome,
    /// Why, where it was not paid; one sentence or fragment.
    pub reason: Option<String>,
    /// Where its time went, as far as this run of the program saw it.
    pub times: Option<JobTimes>,
    /// What it paid.
    pub points: MicroPoints,
}

/// Where a job's time went, in milliseconds each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct JobTimes {
    /// Until its model was in memory.
    pub loading_ms: u64,
    /// In the engine's queue behind other jobs.
    pub waiting_ms: u64,
    /// Computing.
    pub computing_ms: u64,
    /// Signing, saving, sending, and waiting for the receipt.
    pub sending_ms: u64,
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct JobFilter {
    /// Part of the model's id, of the reason or of the job's id, in any case.
    pub text: String,
    /// Only one outcome.
    pub outcome: Option<JobOutcome>,
    /// Ended at or after.
    pub since_ms: Option<i64>,
}

/// A page of the job history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<JobRecord>,
    /// How many match in all.
    pub matching: u32,
    /// How many of all kept ended in each way.
    pub outcomes: Vec<OutcomeCount>,
    /// Where the next page begins; nothing older when absent.
    pub next: Option<u32>,
}

/// How often jobs ended in a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct OutcomeCount {
    /// The way.
    pub outcome: JobOutcome,
    /// How often.
    pub jobs: u32,
}

/// How far back, and how fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum TelemetrySpan {
    /// The last 10 minutes, every 2 seconds.
    TenMinutes,
    /// The last 24 hours, every minute.
    Day,
    /// The last 30 days, every quarter of an hour.
    Month,
}

/// What the sensors said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct TelemetrySeries {
    /// The device whose sensors these are.
    pub device: String,
    /// First instant of the span.
    pub from_ms: i64,
    /// Its end.
    pub until_ms: i64,
    /// Time between two points, in milliseconds.
    pub step_ms: u64,
    /// Memory of the device, in bytes.
    pub memory_bytes: u64,
    /// Whether the watts are an estimate.
    pub power_estimated: bool,
    /// Oldest first; stretches without mining are left out.
    pub points: Vec<TelemetryPoint>,
}

/// What the sensors said at one time, or on average over a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct TelemetryPoint {
    /// When, the beginning of the step.
    pub at_ms: i64,
    /// Degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Watts.
    pub power_w: Option<f32>,
    /// Memory of the device in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// 0 to 100.
    pub load_percent: Option<f32>,
    /// Tokens written a second.
    pub tokens_per_s: f32,
    /// Pictures finished a minute.
    pub pictures_per_min: f32,
    /// Points credited in the step.
    pub points: BothPoints,
}

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For developers, in every detail.
    Trace,
    /// For developers.
    Debug,
    /// What happened.
    Info,
    /// Handled, but not meant to happen.
    Warn,
    /// Somebody has to do something.
    Error,
}

/// Which log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LogFilter {
    /// Part of the line, in any case.
    pub text: String,
    /// This grave or graver.
    pub level: LogLevel,
    /// Only one day of the log's own calendar (UTC), for example `2026-11-22`.
    pub day: Option<String>,
}

/// Log lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LogPage {
    /// Newest first; addresses and paths of the person are shortened.
    pub lines: Vec<LogLine>,
    /// Days there are logs of, newest first.
    pub days: Vec<String>,
    /// Whether older matching lines were left out.
    pub more: bool,
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LogLine {
    /// When.
    pub at_ms: i64,
    /// How grave.
    pub level: LogLevel,
    /// Which part of the program said it.
    pub part: String,
    /// What it said.
    pub text: String,
}

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ExportKind {
    /// Receipts: what was paid.
    Receipts,
    /// The job history: what was done.
    Jobs,
    /// Days: points, jobs, hours, energy.
    Days,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// A table for spreadsheets.
    Csv,
    /// A list of objects.
    Json,
}
