//! How jobs end, told to whoever keeps a history: outcome, reason, and where the time went.

use std::collections::HashMap;
use std::time::Instant;

use neurino_core::{JobId, JobKind, LeaseId, MicroPoints, ModelId, PointsKind, Receipt};
use neurino_protocol::earnings::{JobOutcome, JobRecord, JobTimes};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::broadcast;

use crate::run::{Job, now_ms};

/// Results whose times are remembered until their receipt comes.
const WAITING_MAX: usize = 1_000;

/// When a job entered each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    received: Instant,
    loaded: Option<Instant>,
    begun: Option<Instant>,
    computed: Option<Instant>,
}

impl Times {
    pub(crate) fn begin(received: Instant) -> Self {
        Self { received, loaded: None, begun: None, computed: None }
    }

    /// The engine holds its model; a second attempt counts as more loading.
    pub(crate) fn loaded(&mut self) {
        self.loaded = Some(Instant::now());
        self.begun = None;
    }

    pub(crate) fn begun(&mut self) {
        self.begun.get_or_insert_with(Instant::now);
    }

    pub(crate) fn computed(&mut self) {
        self.computed.get_or_insert_with(Instant::now);
    }

    /// From when to when the engine computed it, if it did.
    pub(crate) fn computing(&self) -> Option<(Instant, Instant)> {
        self.begun.zip(self.computed)
    }

    /// Up to a time. A stage that was never reached took none.
    fn until(&self, end: Instant) -> JobTimes {
        let computed = self.computed.unwrap_or(end);
        let begun = self.begun.unwrap_or(computed);
        let loaded = self.loaded.unwrap_or(begun);
        let ms = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
        };
        JobTimes {
            loading_ms: ms(self.received, loaded),
            waiting_ms: ms(loaded, begun),
            computing_ms: ms(begun, computed),
            sending_ms: ms(computed, end),
        }
    }
}

/// Tells ends, and remembers what it takes to tell that of a result on its way.
pub(crate) struct Ends {
    out: broadcast::Sender<JobRecord>,
    waiting: HashMap<LeaseId, (ModelId, Times)>,
}

impl Ends {
    pub(crate) fn new(out: broadcast::Sender<JobRecord>) -> Self {
        Self { out, waiting: HashMap::new() }
    }

    /// A result is on its way.
    pub(crate) fn waits(&mut self, lease: LeaseId, model: ModelId, times: Times) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.insert(lease, (model, times));
        }
    }

    /// A job ended without a result.
    pub(crate) fn unpaid(&self, job: &Job, outcome: JobOutcome, reason: Option<String>) {
        self.tell(JobRecord {
            job: job.shown.job,
            lease: job.shown.lease,
            kind: job.shown.kind,
            model: job.shown.model.clone(),
            ended_ms: now_ms(),
            outcome,
            reason,
            times: Some(job.times.until(Instant::now())),
            points: MicroPoints(0),
        });
    }

    /// A receipt came.
    pub(crate) fn paid(&mut self, receipt: &Receipt, ended_ms: i64) {
        let waiting = self.waiting.remove(&receipt.lease);
        self.tell(JobRecord {
            job: receipt.job,
            lease: receipt.lease,
            kind: match receipt.quote.points {
                PointsKind::Llama => JobKind::Text,
                PointsKind::Waifu => JobKind::Image,
            },
            model: receipt.model.clone(),
            ended_ms,
            outcome: JobOutcome::Paid,
            reason: None,
            times: waiting.map(|(_, times)| times.until(Instant::now())),
            points: receipt.quote.amount_micro,
        });
    }

    /// The network did not accept a result. One of an earlier run is told to the log alone: its
    /// model is not known any more.
    pub(crate) fn refused(&mut self, lease: LeaseId, job: JobId, kind: JobKind, error: &ErrorBody) {
        let Some((model, times)) = self.waiting.remove(&lease) else { return };
        let late = matches!(error.code, ErrorCode::DeadlinePassed | ErrorCode::StaleLease);
        self.tell(JobRecord {
            job,
            lease,
            kind,
            model,
            ended_ms: now_ms(),
            outcome: if late { JobOutcome::Late } else { JobOutcome::Refused },
            reason: Some(error.message.clone()),
            times: Some(times.until(Instant::now())),
            points: MicroPoints(0),
        });
    }

    fn tell(&self, record: JobRecord) {
        // Refused only when nobody keeps a history.
        let _ = self.out.send(record);
    }
}
