//! What the loop does about each thing that happens: on the link, in the engine, to a job.

use std::sync::LazyLock;
use std::time::Instant as StdInstant;

use neurino_client::{ClientError, Session};
use neurino_core::{
    ImageJob, JobOutput, JobSpec, Lease, LeaseId, ModelId, Receipt, RuleSets, UnitId,
};
use neurino_engine::{EngineError, EngineErrorCode, EngineStatus, ModelRef, PictureFacts};
use neurino_protocol::earnings::JobOutcome;
use neurino_protocol::node::{CoordinatorMessage, NodeMessage};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ends::Times;
use crate::faults::StepDown;
use crate::job::{JobTask, JobUpdate, LoadedAt, load_problem};
use crate::outbox::Finished;
use crate::predict::{Marks, Work};
use crate::run::{Job, RESEND, Run, SESSION_PROVEN, now_ms};
use crate::status::{RunningJob, Stage};
use crate::talk::{Talk, shown, too_much};

/// Longest budget taken seriously, in milliseconds: a day.
const BUDGET_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The link.
impl Run {
    pub(crate) fn on_connected(&mut self, result: Result<Session, ClientError>) {
        match result {
            Ok(session) => {
                tracing::info!(network = session.network, "connected to {}", session.network);
                self.network = Some(session.network.clone());
                self.opened_at = Instant::now();
                self.session = Some(session);
                (self.connect_error, self.link_needs_you) = (None, None);
                self.queue.clear();
                self.sent_at.clear();
                self.talk = Talk::new(self.opened_at);
                // First what is in work, so that it is not given to others; then what is done.
                self.beat();
                self.submit_all();
                self.flush_soon();
            }
            Err(error) => self.on_not_connected(&error),
        }
    }

    fn on_not_connected(&mut self, error: &ClientError) {
        let body = error.body();
        let pause = self.link_back_off.failed();
        self.connect_at = Some(Instant::now() + pause);
        if matches!(error, ClientError::BadAddress { .. }) {
            // No repetition makes the address better.
            self.connect_at = None;
        }
        let ours = matches!(
            body.code,
            ErrorCode::UnsupportedVersion
                | ErrorCode::Unauthorized
                | ErrorCode::BadSignature
                | ErrorCode::InvalidRequest
        );
        self.link_needs_you = ours.then(|| body.clone());
        if self.connect_error.as_ref() != Some(&body) {
            tracing::warn!(error = error as &dyn std::error::Error, "not connected: {error}");
        }
        self.connect_error = Some(body);
    }

    /// The session ended; jobs go on and are submitted in the next one.
    pub(crate) fn on_link_closed(&mut self) {
        self.session = None;
        self.no_job = None;
        self.advised.forget();
        self.queue.clear();
        // Their results are on disk.
        self.jobs.retain(|_, job| job.shown.stage != Stage::Sending);
        if self.opened_at.elapsed() >= SESSION_PROVEN {
            self.link_back_off.succeeded();
        }
        let pause = self.link_back_off.failed();
        self.connect_at = Some(Instant::now() + pause);
        let lost = ErrorBody::new(ErrorCode::Unreachable, "the connection to the network was lost");
        let error = self.connect_error.get_or_insert(lost);
        tracing::warn!("the session ended: {error}");
    }

    /// Ends a session with a coordinator that is no good, and looks again later.
    pub(crate) fn leave(&mut self, error: ErrorBody) {
        self.connect_error = Some(error);
        self.on_link_closed();
    }

    pub(crate) async fn on_message(&mut self, message: CoordinatorMessage) {
        if !self.talk.take(Instant::now()) {
            return self.leave(too_much());
        }
        match message {
            CoordinatorMessage::Assign(lease) => self.on_assign(lease),
            CoordinatorMessage::NoJob(why) => self.no_job = Some(why),
            CoordinatorMessage::Advice(advice) => self.on_advice(advice),
            CoordinatorMessage::ShowFile(challenge) => self.on_show_file(challenge),
            CoordinatorMessage::Cancel { lease, code } => self.on_cancel(lease, code),
            CoordinatorMessage::Settled(receipt) => {
                let Some(session) = &self.session else { return };
                let (coordinator, network) = (session.coordinator.clone(), session.network.clone());
                self.on_settled(receipt, &coordinator, &network).await;
            }
            CoordinatorMessage::Rejected { lease, error, .. } => {
                self.on_rejected(lease, shown(error));
            }
            CoordinatorMessage::Accepted { lease } => self.on_accepted(lease),
            CoordinatorMessage::Notice(error) => self.problem = Some(shown(error)),
            CoordinatorMessage::Bye(error) => self.leave(shown(error)),
            CoordinatorMessage::Challenge { .. } | CoordinatorMessage::Welcome { .. } => {
                tracing::debug!("a message of the handshake came after it");
            }
            // The session sees to it below, where it was asked for.
            CoordinatorMessage::UploadTo { .. } => {}
        }
    }
}

/// Jobs.
impl Run {
    fn on_assign(&mut self, lease: Lease) {
        self.no_job = None;
        let Some(session) = &self.session else { return };
        if self.job_key(lease.id).is_some() {
            return;
        }
        if self.outbox.get(lease.id).is_some() {
            return self.submit_again(lease.id);
        }
        if let Err(error) = lease.spec.validate() {
            let error = ErrorBody::new(ErrorCode::InvalidRequest, error.to_string());
            return self.fail(lease.id, error);
        }
        let Some(model) = self.config.models.iter().find(|m| m.id == *lease.spec.model()).cloned()
        else {
            let error = ErrorBody::new(ErrorCode::ModelNotReady, "this node lacks the model");
            return self.fail(lease.id, error);
        };
        let place = lease.unit.and_then(|unit| self.units.place(unit));
        if lease.unit.is_some() && place.is_none() {
            return self.hand_back(lease.id, "the node has no such unit");
        }
        let computes = |job: &&Job| job.shown.stage != Stage::Sending;
        let there = |job: &&Job| place.is_none() || job.place == place;
        let busy = self.jobs.values().filter(computes).filter(there).count();
        if self.finishing || self.ready.is_none() {
            return self.hand_back(lease.id, "the node takes no jobs now");
        }
        if busy >= place.map_or_else(|| self.slots(), |place| self.slots_at(place)) as usize {
            return self.hand_back(lease.id, "the node has no free slot");
        }
        let budget_ms = lease.budget_ms.min(BUDGET_MS_MAX);
        if budget_ms == 0 {
            let words = "the job's time was over before it came";
            return self.fail(lease.id, ErrorBody::new(ErrorCode::DeadlinePassed, words));
        }
        let loaded = place.map_or(self.ready.as_ref(), |place| self.units.held(place));
        let (work, held) = (Work::of(&lease.spec), loaded == Some(&model.id));
        let now = StdInstant::now();
        if let Some(ms) = self.predictor.too_long_ms(&model.id, work, held, budget_ms, now) {
            return self.too_long(lease.id, ms, budget_ms);
        }
        let estimate_ms = self.predictor.estimate_ms(&model.id, work, held);
        tracing::info!(job.id = %lease.job, lease.id = %lease.id, model.id = %model.id, "took a job");
        let (network, cancel) = (session.network.clone(), CancellationToken::new());
        let received = StdInstant::now();
        let of = match &lease.spec {
            JobSpec::Text(text) => text.choices.saturating_mul(text.max_tokens),
            JobSpec::Image(image) => image.steps,
        };
        let shown = RunningJob {
            job: lease.job,
            lease: lease.id,
            kind: lease.spec.kind(),
            model: model.id.clone(),
            stage: Stage::Loading,
            done: 0,
            of,
            started: received,
            budget_ms,
            estimate_ms,
        };
        let job = Job {
            shown,
            place,
            cancel: cancel.clone(),
            pending: Vec::new(),
            pending_step: None,
            tokens_sent: 0,
            times: Times::begin(received),
            work,
            marks: Marks::default(),
        };
        self.jobs.insert(self.jobs_seen, job);
        self.jobs_seen += 1;
        self.beat_as_busy();
        let task = JobTask {
            lease: Lease { budget_ms, ..lease },
            model,
            place,
            network,
            node: self.config.node.clone(),
            received,
            cancel,
            filter: self.filter.borrow().clone(),
            loaded: self.loaded.clone(),
            key: self.key.clone(),
            outbox_dir: self.outbox.dir().to_owned(),
            events: self.inside.clone(),
        };
        self.tasks.spawn(task.run());
    }

    /// Answers a lease whose result is here already, but not if that is just on its way: a picture is large,
    /// and the question is not.
    fn submit_again(&mut self, lease: LeaseId) {
        let (now, sent) = (Instant::now(), self.sent_at.get(&lease));
        if sent.is_some_and(|sent| now.duration_since(*sent) < RESEND) {
            return self.resend_later();
        }
        if let Some(finished) = self.outbox.get(lease) {
            self.queue.push_back(NodeMessage::Submit(finished.submission.clone()));
            self.sent_at.insert(lease, now);
        }
    }

    fn on_cancel(&mut self, lease: LeaseId, code: ErrorCode) {
        let Some(key) = self.job_key(lease) else { return };
        if let Some(job) = self.jobs.remove(&key) {
            job.cancel.cancel();
            self.counters.cancelled += 1;
            let late = code == ErrorCode::DeadlinePassed;
            let outcome = if late { JobOutcome::Late } else { JobOutcome::Withdrawn };
            self.ends.unpaid(&job, outcome, Some(withdrawn(code).into()));
            tracing::info!(lease.id = %lease, ?code, "the coordinator withdrew a job");
        }
    }

    pub(crate) fn on_job(&mut self, lease: LeaseId, update: JobUpdate) {
        let key = self.job_key(lease);
        match update {
            JobUpdate::Finished { finished, problem } => self.on_finished(*finished, problem),
            // The rest is about a job that was cancelled meanwhile.
            _ if key.is_none() => {}
            JobUpdate::Running { place, slots, load_ms, pictures } => {
                self.on_running(lease, (place, slots), load_ms, pictures.as_ref());
            }
            JobUpdate::Begun => self.change(lease, |job| job.times.begun()),
            JobUpdate::Delta { delta, tokens } => {
                let mut more = 0;
                self.change(lease, |job| {
                    job.add(delta);
                    job.marks.done(tokens, StdInstant::now());
                    more = tokens.saturating_sub(job.shown.done);
                    job.shown.done = tokens;
                });
                self.counters.tokens_written += u64::from(more);
                self.flush_soon();
            }
            JobUpdate::Step { step } => {
                self.change(lease, |job| {
                    job.marks.done(step.step, StdInstant::now());
                    job.shown.done = step.step;
                    job.step(step);
                });
                self.flush_soon();
            }
            JobUpdate::Failed { error, .. } if error.code == ErrorCode::Overloaded => {
                // The engine has more to do than it said it takes; the job is unharmed.
                let reason = "the engine has no room for it";
                if let Some(job) = key.and_then(|key| self.jobs.remove(&key)) {
                    self.ends.unpaid(&job, JobOutcome::HandedBack, Some(reason.into()));
                }
                tracing::warn!(lease.id = %lease, "the engine took no more jobs: {error}");
                self.hand_back(lease, reason);
            }
            JobUpdate::Failed { error, engine } => {
                let job = key.and_then(|key| self.jobs.remove(&key));
                tracing::warn!(lease.id = %lease, code = ?error.code, "a job failed: {error}");
                if let Some(job) = &job {
                    let late = error.code == ErrorCode::DeadlinePassed;
                    let outcome = if late { JobOutcome::Late } else { JobOutcome::Failed };
                    self.ends.unpaid(job, outcome, Some(error.message.clone()));
                }
                if error.code == ErrorCode::ModelUnreadable
                    && let Some(job) = job
                    && self.config.models.len() > 1
                {
                    self.config.models.retain(|m| m.id != job.shown.model);
                }
                if engine {
                    self.see_to_engine(&error);
                }
                // What the operator chose is no problem.
                if error.code != ErrorCode::Declined {
                    self.problem = Some(error.clone());
                }
                self.fail(lease, error);
            }
            JobUpdate::Dropped => self.jobs.retain(|_, job| job.shown.lease != lease),
        }
    }

    fn on_running(
        &mut self,
        lease: LeaseId,
        (place, slots): (usize, u32),
        load_ms: u64,
        pictures: Option<&PictureFacts>,
    ) {
        let mut model = None;
        self.change(lease, |job| {
            job.shown.stage = Stage::Running;
            job.times.loaded();
            model = Some(job.shown.model.clone());
        });
        if let Some(model) = &model {
            self.predictor.loaded(model, load_ms, pictures, StdInstant::now());
            self.units.loaded(place, model, slots);
        }
        // The job may have had another model loaded; it is announced first from now on.
        if self.ready.is_some() && model.is_some() {
            self.ready = model;
            self.engine_slots = slots;
            self.advised.loaded();
        }
    }

    fn on_finished(&mut self, finished: Finished, problem: Option<ErrorBody>) {
        let lease = finished.lease();
        self.problem = problem;
        self.engine_back_off.succeeded();
        let here = self.session.as_ref().is_some_and(|s| s.network == finished.network);
        if matches!(finished.submission.output, JobOutput::Image(_)) {
            self.counters.pictures += 1;
        }
        let mut last_text = None;
        let mut waits = None;
        self.change(lease, |job| {
            // The picture itself comes at once.
            job.pending_step = None;
            last_text = job.progress();
            job.shown.stage = Stage::Sending;
            job.times.computed();
            waits = Some((job.shown.model.clone(), job.times, job.work, job.marks));
        });
        if let Some((model, times, work, marks)) = waits {
            if let Some((begun, computed)) = times.computing() {
                self.predictor.computed(&model, work, marks, begun, computed);
            }
            self.ends.waits(lease, model, times);
        }
        if here {
            self.queue.extend(last_text);
            self.queue.push_back(NodeMessage::Submit(finished.submission.clone()));
            self.sent_at.insert(lease, Instant::now());
            self.talk.answered();
            self.resend_later();
        } else {
            self.jobs.retain(|_, job| job.shown.lease != lease);
        }
        tracing::info!(lease.id = %lease, sent = here, "finished a job");
        self.outbox.add(finished);
    }

    /// Checks a receipt, records it, and forgets the result it answers. In this order: a crash in
    /// between has the result sent once more and the same receipt come back.
    pub(crate) async fn on_settled(&mut self, receipt: Receipt, coordinator: &str, network: &str) {
        let lease = receipt.lease;
        let Some(finished) = self.outbox.get(lease) else {
            if !self.config.receipts.contains(receipt.event) {
                tracing::warn!(lease.id = %lease, "a receipt names a lease of which no result is here");
            }
            return;
        };
        if let Err(rule) = check(&receipt, finished, coordinator, network) {
            tracing::error!(lease.id = %lease, "a receipt is not valid: {rule}");
            let message = format!("the coordinator sent a receipt that is not valid: {rule}");
            self.problem = Some(ErrorBody::new(ErrorCode::BadSignature, message));
            return;
        }
        let (log, copy) = (self.config.receipts.clone(), receipt.clone());
        let appended = tokio::task::spawn_blocking(move || log.append(&copy)).await;
        let new = match appended {
            Ok(Ok(new)) => new,
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "{error}");
                let message = format!("a receipt cannot be recorded: {error}");
                let hint = "check that the disk is not full";
                self.problem = Some(ErrorBody::new(ErrorCode::Internal, message).with_hint(hint));
                return;
            }
            Err(_) => return,
        };
        self.outbox.remove(lease);
        self.sent_at.remove(&lease);
        self.jobs.retain(|_, job| job.shown.lease != lease);
        let ended_ms = now_ms();
        if new {
            self.ends.paid(&receipt, ended_ms);
            let amount = receipt.quote.amount_micro;
            self.counters.settled += 1;
            self.counters.earned_micro.0 = self.counters.earned_micro.0.saturating_add(amount.0);
            tracing::info!(job.id = %receipt.job, lease.id = %lease, points.micro = amount.0, "a job was paid");
            // Refused only when nobody listens.
            let _ = self.receipts.send(receipt);
        }
    }

    /// The network took a result and gives no receipt for it.
    pub(crate) fn on_accepted(&mut self, lease: LeaseId) {
        if self.outbox.get(lease).is_none() {
            return;
        }
        self.outbox.remove(lease);
        self.sent_at.remove(&lease);
        self.jobs.retain(|_, job| job.shown.lease != lease);
        self.counters.accepted += 1;
        tracing::info!(lease.id = %lease, "a result was taken");
    }

    fn on_rejected(&mut self, lease: LeaseId, error: ErrorBody) {
        let known = self
            .outbox
            .get(lease)
            .map(|f| (f.submission.statement.job, f.submission.output.kind()));
        self.outbox.remove(lease);
        self.sent_at.remove(&lease);
        if let Some(key) = self.job_key(lease)
            && let Some(job) = self.jobs.remove(&key)
        {
            job.cancel.cancel();
        }
        if let Some((job, kind)) = known {
            self.counters.rejected += 1;
            self.ends.refused(lease, job, kind, &error);
            tracing::warn!(lease.id = %lease, code = ?error.code, "a result was not accepted: {error}");
            self.problem = Some(error);
        }
    }

    fn job_key(&self, lease: LeaseId) -> Option<u64> {
        self.jobs.iter().find(|(_, job)| job.shown.lease == lease).map(|(key, _)| *key)
    }

    fn change(&mut self, lease: LeaseId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.values_mut().find(|job| job.shown.lease == lease) {
            change(job);
        }
    }

    fn fail(&mut self, lease: LeaseId, error: ErrorBody) {
        self.counters.failed += 1;
        self.queue.push_back(NodeMessage::Failed { lease, error });
    }

    /// Leaves a job to a quicker machine, before any time is lost with it.
    fn too_long(&mut self, lease: LeaseId, estimate_ms: u64, budget_ms: u64) {
        tracing::info!(lease.id = %lease, estimate_ms, budget_ms, "a job would come too late");
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let message = format!(
            "this machine would take about {:.0} s for the job, and has {:.0} s",
            seconds(estimate_ms).ceil(),
            seconds(budget_ms).floor()
        );
        self.counters.handed_back += 1;
        let error = ErrorBody::new(ErrorCode::DeadlinePassed, message);
        self.queue.push_back(NodeMessage::Failed { lease, error });
    }

    fn hand_back(&mut self, lease: LeaseId, reason: &str) {
        self.counters.handed_back += 1;
        self.queue.push_back(NodeMessage::HandBack { lease, reason: reason.into() });
    }
}

/// Why the network withdrew a job, in words.
fn withdrawn(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Cancelled => "the payer withdrew it",
        ErrorCode::DeadlinePassed => "its time was over",
        ErrorCode::StaleLease => "another machine has it now",
        _ => "the network withdrew it",
    }
}

/// The engine.
impl Run {
    pub(crate) fn on_loaded(&mut self, model: &ModelRef, result: Result<LoadedAt, EngineError>) {
        let error = match result {
            Ok((place, loaded)) => {
                self.units.loaded(place, &model.id, loaded.slots);
                tracing::info!(model.id = %model.id, duration_ms = loaded.load_ms, "loaded {}", model.id);
                let now = StdInstant::now();
                let pictures = loaded.pictures.as_ref();
                self.predictor.loaded(&model.id, loaded.load_ms, pictures, now);
                self.ready = Some(model.id.clone());
                self.engine_slots = loaded.slots;
                self.load_error = None;
                self.advised.loaded();
                return;
            }
            Err(error) => error,
        };
        // Whatever is loaded next is not loaded because it was advised.
        self.advised.loaded();
        tracing::warn!(model.id = %model.id, code = ?error.code, "{} cannot be loaded: {error}", model.id);
        let problem = load_problem(&error);
        self.load_error = Some(problem.clone());
        let hopeless = matches!(
            error.code,
            EngineErrorCode::ModelUnreadable
                | EngineErrorCode::OutOfMemory
                | EngineErrorCode::NoSuchDevice
                | EngineErrorCode::NoProgram
        );
        if !hopeless {
            let pause = self.engine_back_off.failed();
            self.load_at = Some(Instant::now() + pause);
            self.step_down(&model.id);
            return;
        }
        self.problem = Some(problem.clone());
        // No model runs without the program.
        if error.code == EngineErrorCode::NoProgram || !self.drop_model(&model.id) {
            self.engine_needs_you = Some(problem);
        }
    }

    /// Serves another model instead of this one; false where there is none.
    fn drop_model(&mut self, model: &ModelId) -> bool {
        if self.config.models.len() > 1 {
            self.config.models.retain(|m| m.id != *model);
        }
        if self.config.models[0].id == *model {
            return false;
        }
        self.loading = self.config.models[0].clone();
        self.load_at = Some(Instant::now());
        true
    }

    /// The engine failed with this model. Where that happens too often, something is given up for the
    /// rest of the run: the model, or else several jobs at once, or else mining.
    fn step_down(&mut self, model: &ModelId) {
        let others = self.config.models.iter().any(|m| m.id != *model);
        let told = |words: String| ErrorBody::new(ErrorCode::EngineFailed, words);
        match self.faults.count(model, Instant::now(), others) {
            StepDown::Stay => return,
            StepDown::Drop => {
                self.drop_model(model);
                let error = told(format!(
                    "the engine failed three times in ten minutes with {model}, so {} is served \
                     instead",
                    self.loading.id
                ));
                let hint = "start mining anew to try it again, or update the graphics driver";
                self.stepped_down = Some(error.with_hint(hint));
            }
            StepDown::Gentle => {
                let error = told(format!(
                    "the engine failed three times in ten minutes with {model}, so jobs are \
                     computed one at a time"
                ));
                let hint = "start mining anew to try several again, or update the graphics driver";
                self.stepped_down = Some(error.with_hint(hint));
            }
            StepDown::GiveUp => {
                let error = told(format!(
                    "the engine failed three times in ten minutes with {model}, also with one job \
                     at a time"
                ));
                let hint =
                    "update the graphics driver, or fetch a smaller model; Start tries again";
                self.engine_needs_you = Some(error.with_hint(hint));
                self.load_at = None;
            }
        }
        tracing::warn!(model.id = %model, "the engine keeps failing with {model}: stepping down");
    }

    /// What the network advised for a unit was done, or could not be: then a job may bring it about.
    pub(crate) fn on_loaded_at(
        &mut self,
        unit: UnitId,
        model: &ModelRef,
        result: Result<LoadedAt, EngineError>,
    ) {
        self.advised.done(unit);
        match result {
            Ok((place, loaded)) => {
                let pictures = loaded.pictures.as_ref();
                self.predictor.loaded(&model.id, loaded.load_ms, pictures, StdInstant::now());
                self.units.loaded(place, &model.id, loaded.slots);
            }
            Err(error) => {
                tracing::warn!(model.id = %model.id, code = ?error.code, "{} cannot be loaded: {error}", model.id);
                self.units.unloaded(self.units.place(unit));
                self.problem = Some(load_problem(&error));
            }
        }
    }

    pub(crate) fn on_engine_status(&mut self) {
        let restarting =
            matches!(*self.engine_status.borrow_and_update(), EngineStatus::Restarting { .. });
        if restarting {
            let error = ErrorBody::new(ErrorCode::EngineFailed, "the engine was started again");
            self.see_to_engine(&error);
        }
    }

    /// Takes no jobs until the engine has answered a load again, after a pause that grows while
    /// jobs keep failing.
    fn see_to_engine(&mut self, error: &ErrorBody) {
        let Some(model) = self.ready.take() else { return };
        let failed = model.clone();
        if let Some(model) = self.config.models.iter().find(|m| m.id == model) {
            self.loading = model.clone();
        }
        self.load_error = Some(error.clone());
        let pause = self.engine_back_off.failed();
        self.load_at = Some(Instant::now() + pause);
        self.step_down(&failed);
    }
}

/// The rule a receipt breaks, if it breaks one.
fn check(
    receipt: &Receipt,
    finished: &Finished,
    coordinator: &str,
    network: &str,
) -> Result<(), &'static str> {
    let statement = &finished.submission.statement;
    if !receipt.coordinator.eq_ignore_ascii_case(coordinator) || receipt.network != network {
        return Err("it is of another coordinator");
    }
    if receipt.job != statement.job || receipt.node != statement.node {
        return Err("it is for another job or node");
    }
    if receipt.digest != statement.digest {
        return Err("it is for another result");
    }
    if !pays_its_result(receipt, &finished.submission.output) {
        return Err("its amount does not follow from its rules");
    }
    neurino_wallet::verify(&receipt.message(), &receipt.signature, coordinator)
        .map_err(|_| "its signature is wrong")
}

/// Computes a receipt's amount again, if its rules are known here; others must be believed.
fn pays_its_result(receipt: &Receipt, output: &JobOutput) -> bool {
    static RULES: LazyLock<RuleSets> = LazyLock::new(RuleSets::built_in);
    let Ok(rules) = RULES.named(&receipt.rule_set) else { return true };
    let quote = &receipt.quote;
    let fits = match output {
        JobOutput::Text(text) => quote.units == text.usage.total(),
        // A picture does not say how many steps it took; they are whole ones.
        JobOutput::Image(picture) => {
            let pixels = picture.width.saturating_mul(picture.height).max(1);
            quote.units.is_multiple_of(pixels)
                && (1..=ImageJob::STEPS_LIMIT).contains(&(quote.units / pixels))
        }
    };
    let again = rules.quote(&receipt.model, output.kind(), quote.units, quote.multiplier);
    fits && again.as_ref() == Ok(quote)
}
