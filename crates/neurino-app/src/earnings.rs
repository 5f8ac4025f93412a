//! Earnings and monitoring: keeps the machine's records and answers what the window asks of them.

mod alarms;
mod files;
mod sampling;
mod trust;

pub(crate) use files::write_whole;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::tz::TimeZone;
use neurino_config::Dirs;
use neurino_core::MicroPoints;
use neurino_earnings::receipts::recomputed;
use neurino_earnings::tariff::Prices;
use neurino_earnings::{JobHistory, Meter, RecordError, Recorder, recorder, report, tariff};
use neurino_protocol::earnings::{
    BothPoints, EarningsAnswer, EarningsAsk, EarningsOverview, JobFilter, JobOutcome, JobRecord,
    Pending, TelemetrySeries, TelemetrySpan,
};
use neurino_protocol::{ErrorBody, ErrorCode};

use crate::{App, internal, lock, logs, now_ms, told_with_causes};

/// Rows of one page.
const PAGE_MAX: u32 = 200;
/// Log lines of one answer.
const LOG_LINES_MAX: u32 = 2000;

/// What is kept beside the receipts.
pub(crate) struct Records {
    history: Mutex<JobHistory>,
    meter: Mutex<Meter>,
    recorder: Mutex<Recorder>,
    tariff: PathBuf,
    /// What the practice network's books said, and when.
    books: Mutex<Option<(Instant, BothPoints)>>,
    /// How closely the network watches this machine.
    trust: Mutex<trust::Known>,
}

impl Records {
    /// Opens the records: jobs of a network in its folder, those of the machine beside it.
    pub(crate) fn open(dirs: &Dirs, network: &Path) -> Result<Self, RecordError> {
        let machine = dirs.data.join("machine");
        Ok(Self {
            history: Mutex::new(JobHistory::open(&network.join("jobs.jsonl"))?),
            meter: Mutex::new(Meter::open(&network.join("meter.bin"))?),
            recorder: Mutex::new(Recorder::open(&machine.join("recorder.bin"))?),
            tariff: dirs.config.join("tariff.json"),
            books: Mutex::new(None),
            trust: Mutex::default(),
        })
    }

    /// A job ended. Trouble with the disk costs the history a line, and nobody their points.
    pub(crate) fn job_ended(&self, job: JobRecord) {
        if let Err(error) = lock(&self.history).append(job) {
            tracing::warn!("the job history: {}", told_with_causes(&error));
        }
    }

    /// How the last jobs ended, newest first, at most `most`.
    pub(crate) fn last_outcomes(&self, most: usize) -> Vec<JobOutcome> {
        let page = lock(&self.history).page(&JobFilter::default(), None, most);
        page.jobs.into_iter().map(|job| job.outcome).collect()
    }
}

impl App {
    /// Answers a question about earnings.
    pub(crate) async fn earnings(
        self: &Arc<Self>,
        about: EarningsAsk,
    ) -> Result<EarningsAnswer, ErrorBody> {
        match about {
            EarningsAsk::Overview => self.refresh_books().await,
            EarningsAsk::Bundle => {
                return self.save_bundle().await.map(|path| EarningsAnswer::Saved { path });
            }
            _ => {}
        }
        let app = Arc::clone(self);
        tokio::task::spawn_blocking(move || app.answer(about))
            .await
            .map_err(|_| internal("the records could not be read"))?
    }

    /// The part that reads files and adds up.
    fn answer(self: &Arc<Self>, about: EarningsAsk) -> Result<EarningsAnswer, ErrorBody> {
        let failed = |error: RecordError| internal(told_with_causes(&error));
        Ok(match about {
            EarningsAsk::Overview => EarningsAnswer::Overview(Box::new(self.overview())),
            EarningsAsk::Series { by, count } => {
                let (now, zone) = (now_ms(), TimeZone::system());
                let meter = lock(&self.records.meter);
                let bars =
                    self.receipts.view(|r| report::series(r, &meter, (by, count), now, &zone));
                EarningsAnswer::Series(bars)
            }
            EarningsAsk::Receipts { filter, before, limit } => {
                let limit = limit.min(PAGE_MAX) as usize;
                let page = self.receipts.page(&filter, before, limit).map_err(failed)?;
                EarningsAnswer::Receipts(page)
            }
            EarningsAsk::Recompute { receipt } => EarningsAnswer::Recomputed(recomputed(&receipt)),
            EarningsAsk::Jobs { filter, before, limit } => {
                let history = lock(&self.records.history);
                EarningsAnswer::Jobs(history.page(&filter, before, limit.min(PAGE_MAX) as usize))
            }
            EarningsAsk::Telemetry { span } => EarningsAnswer::Telemetry(self.telemetry(span)),
            EarningsAsk::Logs { filter, limit } => {
                let limit = limit.min(LOG_LINES_MAX) as usize;
                EarningsAnswer::Logs(logs::read(&self.dirs.logs, &filter, limit))
            }
            EarningsAsk::Export { what, format, since_ms } => {
                EarningsAnswer::Saved { path: self.export(what, format, since_ms)? }
            }
            EarningsAsk::LogsSave { filter } => {
                EarningsAnswer::Saved { path: self.save_logs(&filter)? }
            }
            EarningsAsk::Tariff { tariff: price } => {
                tariff::save(&self.records.tariff, price.as_ref()).map_err(
                    |error| match error {
                        RecordError::Tariff(words) => {
                            ErrorBody::new(ErrorCode::InvalidRequest, words)
                        }
                        error => failed(error),
                    },
                )?;
                EarningsAnswer::Ok
            }
            EarningsAsk::Bundle => return Err(internal("the bundle is written elsewhere")),
        })
    }

    fn overview(self: &Arc<Self>) -> EarningsOverview {
        let (at_ms, zone) = (now_ms(), TimeZone::system());
        let pending = self.pending();
        let alarms = self.alarms(pending, at_ms);
        let trust = self.trust();
        let tariff = tariff::load(&self.records.tariff);
        let week = self.week_of_prices();
        let prices = tariff.as_ref().map(|tariff| Prices { tariff, week: &week, zone: &zone });
        let meter = lock(&self.records.meter);
        self.receipts.view(|receipts| {
            let (week, weeks) = report::weeks(receipts, &meter, at_ms);
            let (models, multipliers) = report::models(receipts, at_ms, &zone);
            EarningsOverview {
                at_ms,
                time_zone: zone.iana_name().unwrap_or("local time").to_owned(),
                rate: report::rate(receipts, &meter, at_ms),
                spans: report::spans(receipts, &meter, at_ms, &zone, prices.as_ref()),
                pending,
                models,
                multipliers,
                changes: report::changes(receipts, &meter, at_ms),
                week,
                weeks,
                tariff: tariff.clone(),
                alarms,
                checked: report::checked(receipts),
                trust: trust.clone(),
            }
        })
    }

    /// Results without a receipt: as the miner counts them, else as they lie in the outbox.
    fn pending(&self) -> Pending {
        let miner = lock(&self.mining).miner();
        if let Some(miner) = miner {
            let status = miner.status().borrow().clone();
            return Pending { jobs: status.unsettled, since_ms: status.unsettled_since_ms };
        }
        let folder = self.dirs.outbox.join(self.network.folder());
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut pending = Pending::default();
        for file in files.filter(|f| f.path().extension().is_some_and(|ext| ext == "json")) {
            pending.jobs += 1;
            let written = file.metadata().and_then(|m| m.modified()).ok();
            let at_ms = written
                .and_then(|at| jiff::Timestamp::try_from(at).ok())
                .map(jiff::Timestamp::as_millisecond);
            pending.since_ms = pending.since_ms.into_iter().chain(at_ms).min();
        }
        pending
    }

    fn telemetry(&self, span: TelemetrySpan) -> TelemetrySeries {
        let until_ms = now_ms();
        let (step_ms, length_ms) = recorder::step_and_length_ms(span);
        let used = self.used_gpus();
        let (device, memory_bytes) = if used.is_empty() {
            (self.processor_name(), self.hardware().cpu().memory_bytes)
        } else {
            let names: Vec<String> = used.iter().map(|gpu| self.card_name(gpu)).collect();
            (names.join(" + "), used.iter().filter_map(|gpu| gpu.memory_bytes).sum())
        };
        TelemetrySeries {
            device,
            from_ms: until_ms - length_ms,
            until_ms,
            step_ms: step_ms.unsigned_abs(),
            memory_bytes,
            power_estimated: self.power_is_estimated(),
            points: lock(&self.records.recorder).span(span, until_ms),
        }
    }

    /// All points so far, for differences.
    fn points_so_far(&self) -> BothPoints {
        self.receipts.totals(0).points()
    }
}

/// What came on top.
fn gained(before: BothPoints, now: BothPoints) -> BothPoints {
    let more = |a: MicroPoints, b: MicroPoints| MicroPoints(b.0.saturating_sub(a.0).max(0));
    BothPoints { llama: more(before.llama, now.llama), waifu: more(before.waifu, now.waifu) }
}
