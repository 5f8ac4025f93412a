//! The life of a job: admission, leases, returns to the queue, end.
//!
//! The books decide, the memory follows: every step is a conditional write, and the memory is
//! changed after the write's answer. Two steps that race (a result and a deadline, say) are thus
//! decided by the order of their writes.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::{
    IdempotencyKey, JobId, JobKind, JobSpec, JobState, Lease, LeaseId, MicroPoints, ModelId,
    Multiplier, NodeId, TextJob,
};
use neurino_ledger::PayerId;
use neurino_protocol::node::{CoordinatorMessage, NoJob};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;

use crate::coordinator::{Coordinator, fresh_id, now_ms, prompt_bytes};
use crate::error::{StoreError, shutting_down};
use crate::hedge::{Beside, beside, goes_on_behind, keep_only, outrun, slower};
use crate::original;
use crate::reconcile::WRITE_RETRY;
use crate::router::{JobClass, Place, Placement, Waiting, owner_of};
use crate::state::{Begin, Client, LeasePhase, LiveJob, LiveLease, Makes, State};
use crate::store::{Admitted, AttemptEnd, Close, Grant, NewJob, Outrun, Release, StoredJob};
use crate::terms::{JobTerms, Payment, cost_units, usage_bound};
use crate::timers::PRUNE;
use crate::watch::{Feed, JobUpdate, JobWatch};

/// Texts that end every answer on the network, whatever the payer asked.
pub(crate) const NETWORK_STOPS: [&str; 4] = ["[End]", "[end]", "<|im_start|>", "<|im_end|>"];

impl Coordinator {
    /// Accepts a job; it is durable when this returns. The same payer and idempotency key with the
    /// same job return the first job's id.
    ///
    /// # Errors
    /// `InvalidRequest`, `UnknownModel`, `Overloaded`, `Unreachable` (shutting down), `Internal`.
    pub async fn submit_job(
        self: &Arc<Self>,
        payer: PayerId,
        key: Option<IdempotencyKey>,
        spec: JobSpec,
    ) -> Result<JobId, ErrorBody> {
        self.submit_on(payer, key, spec, JobTerms::default()).await
    }

    /// The same, on some terms.
    ///
    /// # Errors
    /// As [`Coordinator::submit_job`], and `InsufficientCredits`.
    pub async fn submit_on(
        self: &Arc<Self>,
        payer: PayerId,
        key: Option<IdempotencyKey>,
        spec: JobSpec,
        terms: JobTerms,
    ) -> Result<JobId, ErrorBody> {
        self.submit_placed(payer, key, spec, terms, None).await
    }

    /// The same, for some nodes only.
    pub(crate) async fn submit_placed(
        self: &Arc<Self>,
        payer: PayerId,
        key: Option<IdempotencyKey>,
        spec: JobSpec,
        terms: JobTerms,
        placement: Option<Placement>,
    ) -> Result<JobId, ErrorBody> {
        let spec = match (self.admissible(&spec), &key) {
            (Ok(()), _) => with_network_stops(spec),
            // After a change of coordinators the nodes that have the model may still be on their way.
            (Err(error), Some(key))
                if matches!(error.code, ErrorCode::UnknownModel | ErrorCode::Unreachable) =>
            {
                return self.admitted_before(&payer, key, spec).await?.ok_or(error);
            }
            (Err(error), _) => return Err(error),
        };
        // The day of the request decides, however long the job waits.
        let rules = self.rules_now().map_err(|error| {
            tracing::error!("no job can be priced: {error}");
            ErrorBody::new(ErrorCode::Internal, "no rules of this network are in force")
        })?;
        let rule_set = rules.name.clone();
        let id = JobId(fresh_id());
        let hold = terms.prepaid.as_ref().map(|prepaid| self.hold(id, &payer, &spec, prepaid));
        let job = NewJob {
            id,
            payer,
            key,
            rule_set,
            spec,
            no_node_wait_ms: terms.no_node_wait_ms.unwrap_or(self.config.limits.no_node_wait_ms),
            class: terms.class,
            placement,
            attempts_max: terms.attempts_max,
            frontend: terms.frontend,
            hold: hold.transpose()?,
            attended: terms.attended,
            at_ms: now_ms(),
        };
        self.remember(&job)?;
        let this = Arc::clone(self);
        let id = self.to_the_end(async move { this.admit(job).await }).await?;
        crate::fabric::admitted(id);
        Ok(id)
    }

    /// The job that a payer sent under a key, if it was this one.
    async fn admitted_before(
        self: &Arc<Self>,
        payer: &PayerId,
        key: &IdempotencyKey,
        spec: JobSpec,
    ) -> Result<Option<JobId>, ErrorBody> {
        let known = self.store.job_of_key(payer, key).await.map_err(|e| e.body())?;
        let Some((id, _)) = known.filter(|(_, known)| *known == with_network_stops(spec)) else {
            return Ok(None);
        };
        self.adopt(id).await.map_err(|e| e.body())?;
        crate::fabric::admitted(id);
        Ok(Some(id))
    }

    /// Follows a job from its present state on.
    ///
    /// # Errors
    /// `NotFound`, `Internal`.
    pub async fn watch_job(&self, job: JobId) -> Result<JobWatch, ErrorBody> {
        if let Some(live) = self.state().jobs.get(&job) {
            return Ok(live.feed.watch());
        }
        let stored = self.stored_job(job).await?;
        if let Some(error) = stored.error {
            return Ok(JobWatch::ended(JobUpdate::Failed(error)));
        }
        match (stored.output, stored.receipt) {
            (Some(output), Some(receipt)) => {
                let receipt = Box::new(receipt);
                Ok(JobWatch::ended(JobUpdate::Finished { output, receipt }))
            }
            (None, Some(_)) => Err(shredded()),
            // Only a coordinator that stops forgets an open job.
            _ => Err(shutting_down()),
        }
    }

    /// Withdraws a job. Returns whether it was still open; a result already paid stays paid.
    ///
    /// # Errors
    /// `Internal`, `Unreachable` (shutting down).
    pub async fn cancel_job(self: &Arc<Self>, job: JobId) -> Result<bool, ErrorBody> {
        let error = ErrorBody::new(ErrorCode::Cancelled, "the request was withdrawn");
        let this = Arc::clone(self);
        self.to_the_end(async move { this.end_unpaid(job, JobState::Cancelled, error).await }).await
    }

    /// Notes that a client has part of a job's answer.
    pub(crate) fn note_delivered(&self, job: JobId) {
        if let Some(live) = self.state().jobs.get_mut(&job) {
            live.client = Client::Reads;
        }
    }

    /// The client of a job is gone and cannot come back. What it has of a prepaid answer it has bought, so
    /// that job goes on to its end and is settled: else whoever hangs up before the last word would read
    /// for nothing. Any other job is withdrawn, and its node stops. Returns whether it was.
    ///
    /// # Errors
    /// As [`Coordinator::cancel_job`].
    pub(crate) async fn client_gone(self: &Arc<Self>, job: JobId) -> Result<bool, ErrorBody> {
        {
            let mut state = self.state();
            if let Some(live) = state.jobs.get_mut(&job)
                && live.client == Client::Reads
                && live.payment.is_some()
                && live.lease.is_some()
            {
                live.client = Client::Left;
                return Ok(false);
            }
        }
        self.cancel_job(job).await
    }

    /// A job as its payer may see it. What is kept longer for an audit is not for payers: whether
    /// somebody was audited would show.
    pub(crate) async fn stored_job(&self, job: JobId) -> Result<StoredJob, ErrorBody> {
        let stored = self.store.job(job).await.map_err(|e| e.body())?;
        let mut stored = stored.ok_or_else(|| not_found("there is no such job"))?;
        let keep = Duration::from_millis(self.config.limits.payload_keep_ms) + PRUNE;
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        if stored.finished_at_ms.is_some_and(|at| at < now_ms().saturating_sub_unsigned(keep_ms)) {
            (stored.output, stored.shredded) = (None, true);
        }
        Ok(stored)
    }

    /// Checks every limit that does not need the model in memory.
    fn admissible(&self, spec: &JobSpec) -> Result<(), ErrorBody> {
        let invalid = |words: String| ErrorBody::new(ErrorCode::InvalidRequest, words);
        spec.validate().map_err(|e| invalid(e.to_string()))?;
        if !self.known_models(&self.state()).contains(spec.model()) {
            return Err(self.unknown_model(spec.model().as_str()));
        }
        self.suits(spec.model(), spec.kind())?;
        if let JobSpec::Image(job) = spec
            && let Some(Makes::Pictures(usual)) = self.makes(&self.state(), &job.model)
        {
            usual.check(job).map_err(|e| invalid(e.to_string()))?;
        }
        let JobSpec::Text(job) = spec else { return Ok(()) };
        let bytes = prompt_bytes(job);
        let bytes_max = self.config.limits.prompt_bytes_max;
        if bytes > bytes_max {
            let message =
                format!("`messages` and `tools` hold {bytes} bytes; at most {bytes_max} fit");
            return Err(ErrorBody::new(ErrorCode::TooLarge, message)
                .with_hint("shorten or split the conversation"));
        }
        let added = NETWORK_STOPS.iter().filter(|stop| !job.stop.iter().any(|s| s == *stop));
        if job.stop.len() + added.count() > TextJob::STOP_LIMIT {
            let own_max = TextJob::STOP_LIMIT - NETWORK_STOPS.len();
            return Err(invalid(format!("`stop` takes at most {own_max} strings")));
        }
        Ok(())
    }

    /// Refuses work of a kind that a model is known not to do.
    pub(crate) fn suits(&self, model: &ModelId, kind: JobKind) -> Result<(), ErrorBody> {
        let known = self.makes(&self.state(), model);
        let (makes, hint) = match (known, kind) {
            (Some(Makes::Pictures(_)), JobKind::Text) => {
                ("makes pictures", "/v1/images/generations")
            }
            (Some(Makes::Text), JobKind::Image) => ("writes text", "/v1/chat/completions"),
            _ => return Ok(()),
        };
        let message = format!("the model `{model}` {makes}; it cannot serve this request");
        Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
            .with_hint(format!("send it to {hint}, or choose another model")))
    }

    /// The error for a model the network does not know; lists what it has. Right after a start it may be one
    /// whose nodes are still on their way: then it says to try again, and not that there is none.
    pub(crate) fn unknown_model(&self, asked: &str) -> ErrorBody {
        if self.returning_until.is_some_and(|until| Instant::now() < until) {
            let message = "the coordinator has just started, and not all nodes are back";
            return ErrorBody::new(ErrorCode::Unreachable, message)
                .with_hint("try again in a few seconds");
        }
        let state = self.state();
        let mut served: Vec<String> = state.router.served().map(ToString::to_string).collect();
        served.sort();
        let hint = if served.is_empty() {
            let known: Vec<_> = self.known_models(&state).iter().map(ToString::to_string).collect();
            format!("the network knows {}; no node is connected right now", known.join(", "))
        } else {
            format!("served right now: {}", served.join(", "))
        };
        let asked: String = asked.chars().take(96).collect();
        ErrorBody::new(
            ErrorCode::UnknownModel,
            format!("the network does not know the model `{asked}`"),
        )
        .with_hint(hint)
    }

    /// Takes a job into memory before it is written, so that watchers always find an open job there.
    fn remember(&self, job: &NewJob) -> Result<(), ErrorBody> {
        let mut state = self.state();
        if state.stopping {
            return Err(shutting_down());
        }
        let open_max = self.config.limits.open_jobs_max;
        // Checks go on however much is asked for: there is always room for a few of them.
        let checks = job.class == JobClass::Audit;
        let room = (open_max + if checks { open_max / 10 + 1 } else { 0 })
            .saturating_sub(state.jobs.len());
        if room == 0 {
            let message = format!("{open_max} requests wait already; the network takes no more");
            return Err(ErrorBody::new(ErrorCode::Overloaded, message)
                .with_hint("try again in a few seconds"));
        }
        let own = state.open_of(&job.payer);
        if !checks && own >= room {
            // Whoever has as much as there is left has had a fair share: one payer alone half of all,
            // two a third each. So there is room for the next one, whatever the others ask for.
            let message = format!(
                "{own} of your requests are open already; the room that is left is for others"
            );
            return Err(ErrorBody::new(ErrorCode::Overloaded, message)
                .with_hint("wait until some of them have ended, then send more"));
        }
        let live = LiveJob {
            payer: job.payer.clone(),
            spec: Arc::new(job.spec.clone()),
            rule_set: job.rule_set.clone(),
            fence: 0,
            failures: 0,
            losses: 0,
            tried: Vec::new(),
            unable: Vec::new(),
            fault: None,
            objections: Vec::new(),
            hand_backs: 0,
            class: job.class,
            placement: job.placement.clone().map(Arc::new),
            attempts_max: job.attempts_max,
            frontend: job.frontend.clone(),
            payment: job
                .hold
                .as_ref()
                .map(|hold| Payment { price_list: hold.price_list.clone(), held: hold.amount }),
            lease: None,
            hedge: None,
            speaker: None,
            queued_since: Instant::now(),
            no_node_wait_ms: job.no_node_wait_ms,
            feed: Feed::new(),
            client: Client::Waits,
            patience: job.attended.then(|| self.config.limits.patience(job.key.is_some(), false)),
            unwatched_since: None,
            admitted: false,
            closing: false,
        };
        state.add_job(job.id, live);
        Ok(())
    }

    async fn admit(self: Arc<Self>, job: NewJob) -> Result<JobId, ErrorBody> {
        let (id, model, class) = (job.id, job.spec.model().clone(), job.class);
        // Checking others' work is no demand.
        let demand = job.placement.is_none().then(|| cost_units(&job.spec));
        let admitted = self.store.admit(job.clone()).await;
        if matches!(admitted, Ok(Admitted::New)) {
            {
                let mut state = self.state();
                if let Some(live) = state.jobs.get_mut(&id) {
                    live.admitted = true;
                }
                state.enqueue(id, false);
            }
            self.metrics.accepted(class);
            if let Some(cost) = demand {
                self.advice.asked(&model, cost);
            }
            tracing::info!(job.id = %id, model.id = %model, "queued job {id} for {model}");
            self.dispatch();
            return Ok(id);
        }
        drop(self.state().forget_job(id));
        match admitted {
            Ok(Admitted::Known(first)) => {
                // Its first admission may have been written and not answered.
                self.adopt(first).await.map_err(|e| e.body())?;
                Ok(first)
            }
            Ok(Admitted::Uncovered(left)) => {
                let message = format!("the prepaid credits do not cover this request: {left} left");
                Err(ErrorBody::new(ErrorCode::InsufficientCredits, message)
                    .with_hint("lower `max_tokens` or the size, or buy credits"))
            }
            Ok(Admitted::OverBudget(left)) => {
                let message =
                    format!("the API key's budget of the month does not cover this: {left} left");
                Err(ErrorBody::new(ErrorCode::InsufficientCredits, message)
                    .with_hint("lower `max_tokens` or the size, or use another key"))
            }
            Ok(Admitted::Conflict | Admitted::New) => Err(ErrorBody::new(
                ErrorCode::InvalidRequest,
                "the idempotency key was used for another job",
            )
            .with_hint("choose a new key for each new job")),
            // Certainly not written.
            Err(error @ (StoreError::Unavailable | StoreError::Superseded)) => Err(error.body()),
            Err(error) => {
                let this = Arc::clone(&self);
                self.tasks.spawn(async move { this.after_doubtful_admission(job).await });
                Err(error.body())
            }
        }
    }

    /// Hands waiting jobs to free nodes. Writes each lease before its node hears of it.
    pub(crate) fn dispatch(self: &Arc<Self>) {
        // A session can also end because the program does; its runtime is gone then.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut granted = Vec::new();
        {
            let mut guard = self.state();
            let state = &mut *guard;
            if state.stopping {
                return;
            }
            while let Some((waiting, place)) = state.router.next(&mut state.rng) {
                state.hedges.earn(self.config.limits.hedge_permille);
                granted.extend(self.new_lease(state, &waiting, place));
            }
        }
        for grant in granted {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.grant(grant).await });
        }
    }

    /// A lease that is not written yet: of a job that has none, or a second one.
    pub(crate) fn new_lease(
        &self,
        state: &mut State,
        waiting: &Waiting,
        place: Place,
    ) -> Option<Grant> {
        let (job, model) = (waiting.job, &waiting.model);
        let Some(live) = state.jobs.get_mut(&job) else {
            state.router.lease_ended(&place, model);
            return None;
        };
        live.fence += 1;
        let fence = live.fence;
        let (now, granted_at_ms) = (Instant::now(), now_ms());
        let budget_ms = match &*live.spec {
            JobSpec::Text(_) => self.config.limits.text_budget_ms,
            JobSpec::Image(picture) => self.config.limits.picture_budget_ms(picture),
        };
        let session = state.sessions.get(&place.node);
        let budget_ms = match session {
            Some(session) if session.original => budget_ms.min(original::budget_ms(&live.spec)),
            _ => budget_ms,
        };
        let deadline_ms = granted_at_ms.saturating_add_unsigned(budget_ms);
        let id = LeaseId(fresh_id());
        let session = session.map(|s| s.id);
        let warm = state.router.has_loaded(&place, model);
        let numeric_class = state.router.class_of(&place).map(ToOwned::to_owned);
        let Place { node, unit } = place;
        let lease = LiveLease {
            job,
            node: node.clone(),
            unit,
            model: model.clone(),
            numeric_class,
            fence,
            phase: LeasePhase::Granting(None),
            deadline: now + Duration::from_millis(budget_ms),
            granted_at_ms,
            session,
            assigned: now,
            restored: false,
            kept_until: None,
            gap: false,
            unheard: false,
            picture: None,
            begin: if warm { Begin::Waits } else { Begin::Loads },
        };
        state.add_lease(id, lease);
        Some(Grant { job, lease: id, fence, node, unit, granted_at_ms, deadline_ms })
    }

    async fn grant(self: Arc<Self>, grant: Grant) {
        let (id, job, node) = (grant.lease, grant.job, grant.node.clone());
        match self.store.grant(grant).await {
            Ok(true) => {
                if let Some((end, error)) = self.assign(id, job, &node) {
                    self.release(id, end, error).await;
                }
            }
            // The job ended while the lease was written, mostly.
            Ok(false) => {
                self.state().end_lease(id);
                self.reconcile(job).await;
            }
            Err(error) => {
                tracing::error!(?error, job.id = %job, "a lease could not be written: {error}");
                self.state().end_lease(id);
                tokio::time::sleep(WRITE_RETRY).await;
                self.reconcile(job).await;
            }
        }
        self.dispatch();
    }

    /// Tells the node and the watchers about a written lease, or returns the end that was asked for
    /// meanwhile.
    pub(crate) fn assign(
        &self,
        id: LeaseId,
        job: JobId,
        node: &NodeId,
    ) -> Option<(AttemptEnd, ErrorBody)> {
        let mut state = self.state();
        let lease = state.leases.get_mut(&id)?;
        if let LeasePhase::Granting(Some(end)) =
            std::mem::replace(&mut lease.phase, LeasePhase::Running)
        {
            return Some(end);
        }
        let now = Instant::now();
        lease.assigned = now;
        let left = lease.deadline.saturating_duration_since(now);
        let (fence, unit) = (lease.fence, lease.unit);
        let names_tokens = state.sessions.get(node).is_some_and(|s| s.standing.scores);
        let live = state.jobs.get(&job)?;
        let mut spec = (*live.spec).clone();
        if let JobSpec::Text(text) = &mut spec {
            text.name_tokens = names_tokens && text.claim.is_none();
        }
        let message = Lease {
            id,
            job,
            fence,
            spec,
            budget_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            quote_micro: self.quote(live),
            points: live.spec.kind().points(),
            rule_set: live.rule_set.clone(),
            unit,
        };
        let fingerprint = state.class_of(id);
        if live.hedge != Some(id) {
            live.feed.leased(node.clone(), fingerprint);
            self.metrics.assigned(now.duration_since(live.queued_since));
        }
        let short = short(node);
        tracing::info!(job.id = %job, lease.id = %id, "leased job {job} to {short}");
        if let Some(session) = state.sessions.get_mut(node) {
            // It works; should it be idle again, the reasons are news.
            session.told = NoJob::default();
            session.talk.leased();
        }
        state.send(node, CoordinatorMessage::Assign(message));
        None
    }

    /// The most a job can pay.
    fn quote(&self, job: &LiveJob) -> MicroPoints {
        let usage = usage_bound(&job.spec);
        self.rules
            .named(&job.rule_set)
            .and_then(|rules| rules.price(&job.spec, usage, Multiplier::ONE))
            .map_or(MicroPoints(0), |quote| quote.amount_micro)
    }

    /// Ends an attempt without payment, in a task of its own.
    pub(crate) fn spawn_release(self: &Arc<Self>, id: LeaseId, end: AttemptEnd, error: ErrorBody) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.release(id, end, error).await });
    }

    /// Ends an attempt without payment: the job returns to its queue or is given up.
    pub(crate) async fn release(self: &Arc<Self>, id: LeaseId, end: AttemptEnd, error: ErrorBody) {
        let release = loop {
            match self.begin_release(id, end, &error) {
                Some(Ending::One(outrun)) => return self.end_one(outrun, error).await,
                Some(Ending::Whole(release)) => break release,
                Some(Ending::Behind(other)) => {
                    let ending = self.begin_release(other, AttemptEnd::Outrun, &slower());
                    if let Some(Ending::One(outrun)) = ending {
                        self.end_one(outrun, slower()).await;
                    }
                }
                None => return,
            }
        };
        let job = release.job;
        let give_up = release.give_up.clone();
        let written = self.store.release(release).await;
        let doubtful = !matches!(written, Ok(true));
        {
            let mut state = self.state();
            match written {
                Ok(true) => {
                    self.metrics.attempt_ended(end);
                    if give_up.is_some() {
                        self.metrics.ended_unpaid(JobState::Failed);
                    }
                    after_release(&mut state, id, job, end, give_up, error);
                }
                Ok(false) => {}
                Err(fault) => {
                    tracing::error!(error = ?fault, job.id = %job, "a lease's end could not be written: {fault}");
                }
            }
        }
        if doubtful {
            // Decided otherwise a moment before, or not known.
            self.reconcile(job).await;
        }
        self.dispatch();
    }

    /// Marks the lease and decides whether its job gets another attempt.
    fn begin_release(&self, id: LeaseId, end: AttemptEnd, error: &ErrorBody) -> Option<Ending> {
        let mut state = self.state();
        let other = beside(&state, id);
        let behind = goes_on_behind(&state, id, &other);
        let lease = state.leases.get_mut(&id)?;
        match &mut lease.phase {
            LeasePhase::Granting(asked) => {
                *asked = Some((end, error.clone()));
                return None;
            }
            LeasePhase::Running if matches!(other, Beside::Undecided) => {
                // Asked again in a moment.
                lease.kept_until = Some(Instant::now());
                return None;
            }
            // Nobody was faster any more: the other one ended meanwhile.
            LeasePhase::Running if end == AttemptEnd::Outrun && matches!(other, Beside::Alone) => {
                return None;
            }
            LeasePhase::Running if let Some(other) = behind => return Some(Ending::Behind(other)),
            LeasePhase::Running => lease.phase = LeasePhase::Releasing,
            LeasePhase::Settling | LeasePhase::Releasing => return None,
        }
        let (job, fence) = (lease.job, lease.fence);
        let leased_to = lease.node.clone();
        let node = short(&leased_to);
        if let Beside::Other(stays, stays_fence) = other {
            tracing::info!(
                job.id = %job, lease.id = %id, end = end.as_str(), code = ?error.code,
                "attempt {fence} of job {job} on {node} ended beside another: {}", end.as_str(),
            );
            let ended = outrun(job, (id, fence), (stays, stays_fence), end);
            return Some(Ending::One(ended));
        }
        let live = state.jobs.get(&job)?;
        let limits = &self.config.limits;
        let hopeless = end == AttemptEnd::Failed
            && is_objection(error.code)
            && !self.wants_another_opinion(&state, live, &leased_to);
        let unharmed = end == AttemptEnd::HandedBack;
        let attempts = live.failures + live.losses + 1;
        let discard = !unharmed && live.attempts_max.is_some_and(|most| attempts >= most);
        let too_often = end.is_failure() && live.failures + 1 >= limits.failures_max;
        let give_up = if live.client == Client::Left {
            // Nobody waits for another answer, and what was read of this one nobody can prove.
            Some(ErrorBody::new(ErrorCode::Cancelled, "the request was withdrawn"))
        } else if hopeless || discard || too_often {
            Some(error.clone())
        } else if unharmed && live.hand_backs + 1 >= limits.hand_backs_max {
            let times = limits.hand_backs_max;
            let message = format!("nodes handed it back {times} times without beginning it");
            Some(ErrorBody::new(ErrorCode::NoNodeAvailable, message).with_hint("try again later"))
        } else if end == AttemptEnd::Lost && live.losses + 1 >= limits.losses_max {
            Some(ErrorBody::new(
                ErrorCode::NoNodeAvailable,
                format!("its node vanished {} times while working on it", limits.losses_max),
            ))
        } else {
            None
        };
        tracing::info!(
            job.id = %job, lease.id = %id, end = end.as_str(), code = ?error.code,
            "attempt {fence} of job {job} on {node} ended: {}", end.as_str(),
        );
        Some(Ending::Whole(Release { job, lease: id, fence, end, give_up, at_ms: now_ms() }))
    }

    /// Whether a job that a node calls wrong is shown to another owner's before it is given up: a node
    /// that says so of every job would else end them all.
    fn wants_another_opinion(&self, state: &State, live: &LiveJob, node: &NodeId) -> bool {
        let agreed = live.objections.iter().any(|other| owner_of(other) != owner_of(node));
        if agreed || self.audits.is_validator(node) {
            return false;
        }
        let asked = |id: &NodeId| live.tried.contains(id) || live.unable.contains(id);
        let placement = live.placement.as_deref();
        state.router.another_owner_serves(live.spec.model(), node, asked, placement)
    }

    /// Ends an open job without payment; `false` when it had ended before.
    pub(crate) async fn end_unpaid(
        self: &Arc<Self>,
        job: JobId,
        end: JobState,
        error: ErrorBody,
    ) -> Result<bool, ErrorBody> {
        match self.state().jobs.get_mut(&job) {
            Some(live) if live.admitted && !live.closing => live.closing = true,
            _ => return Ok(false),
        }
        let end_state = end;
        let close = Close { job, state: end_state, error: error.clone(), at_ms: now_ms() };
        let ended = self.store.end(close).await;
        {
            let mut state = self.state();
            match ended {
                Ok(true) => {
                    self.metrics.ended_unpaid(end_state);
                    tracing::info!(job.id = %job, code = ?error.code, "job {job} ended unpaid");
                    end_in_memory(&mut state, job, error);
                }
                Ok(false) | Err(_) => {
                    if let Some(live) = state.jobs.get_mut(&job) {
                        live.closing = false;
                    }
                }
            }
        }
        if !matches!(ended, Ok(true)) {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.reconcile(job).await });
        }
        self.dispatch();
        ended.map_err(|e| e.body())
    }
}

/// What ends with an attempt.
enum Ending {
    /// One of two; the other goes on.
    One(Outrun),
    /// The only one: its job is queued again or given up.
    Whole(Release),
    /// One of two, and part of its text was passed on: nobody may go on behind that, so this other one
    /// ends first.
    Behind(LeaseId),
}

/// A job with the strings at which every text of the network ends.
fn with_network_stops(mut spec: JobSpec) -> JobSpec {
    if let JobSpec::Text(job) = &mut spec {
        for stop in NETWORK_STOPS {
            if !job.stop.iter().any(|s| s == stop) {
                job.stop.push(stop.into());
            }
        }
    }
    spec
}

/// Whether asking the same node again would be of no use.
pub(crate) fn is_unable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ModelUnreadable
            | ErrorCode::ModelNotReady
            | ErrorCode::Declined
            | ErrorCode::DeadlinePassed
    )
}

/// Whether a node says that the job itself is wrong. Nobody here can tell: prompts are counted, and much
/// of a request is read, by the model's own tokenizer.
fn is_objection(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::ContextTooLong | ErrorCode::InvalidRequest)
}

/// What an attempt without a result says of its node.
pub(crate) fn note_conduct(
    state: &mut State,
    node: &NodeId,
    given: Instant,
    end: AttemptEnd,
    error: &ErrorBody,
) {
    match end {
        AttemptEnd::HandedBack => state.router.handed_back(node, given, Instant::now()),
        AttemptEnd::Expired => {
            state.router.failed(node, 1);
            state.router.wasted(node);
        }
        AttemptEnd::Lost => state.router.wasted(node),
        // Of a job that may be wrong others are asked first. What is no fault, such as an owner's filter, counts
        // as well: nobody can tell, and a node that is asked last where others serve loses little.
        AttemptEnd::Failed if !is_objection(error.code) => state.router.failed(node, 1),
        _ => {}
    }
}

/// Forgets a job that ended unpaid, stops its node and tells its watchers.
pub(crate) fn end_in_memory(state: &mut State, job: JobId, error: ErrorBody) {
    let Some(lease_id) = state.jobs.get(&job).map(|live| live.lease) else { return };
    let Some((live, lease)) = state.end_job(job) else { return };
    if let Some((id, lease)) = lease_id.zip(lease) {
        state.send(&lease.node, CoordinatorMessage::Cancel { lease: id, code: error.code });
    }
    live.feed.failed(error);
}

fn after_release(
    state: &mut State,
    id: LeaseId,
    job: JobId,
    end: AttemptEnd,
    give_up: Option<ErrorBody>,
    error: ErrorBody,
) {
    // One that was asked for, and is not written yet or ends by itself.
    keep_only(state, job, Some(id));
    let Some(lease) = state.end_lease(id) else { return };
    if end == AttemptEnd::Expired {
        let code = ErrorCode::DeadlinePassed;
        state.send(&lease.node, CoordinatorMessage::Cancel { lease: id, code });
    }
    if let Some(error) = give_up {
        if let Some((live, _)) = state.end_job(job) {
            live.feed.failed(error);
        }
        return;
    }
    note_conduct(state, &lease.node, lease.assigned, end, &error);
    let Some(live) = state.jobs.get_mut(&job) else { return };
    live.failures += u32::from(end.is_failure());
    live.losses += u32::from(end == AttemptEnd::Lost);
    if end == AttemptEnd::Failed && is_unable(error.code) {
        live.fault = Some(error);
        if !live.unable.contains(&lease.node) {
            live.unable.push(lease.node);
        }
    } else {
        if end == AttemptEnd::Failed && is_objection(error.code) {
            live.objections.push(lease.node.clone());
        }
        live.hand_backs += u32::from(end == AttemptEnd::HandedBack);
        // Also who handed it back: else a node that always does so would always be asked first again.
        if !live.tried.contains(&lease.node) {
            live.tried.push(lease.node);
        }
    }
    live.feed.queued();
    state.enqueue(job, true);
}

/// The answer to whoever asks for what is gone for good.
pub(crate) fn shredded() -> ErrorBody {
    let words = "the job's request and answer were shredded after their keeping time";
    ErrorBody::new(ErrorCode::PayloadShredded, words)
        .with_hint("its receipt is kept; send the request again for another answer")
}

fn not_found(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, message)
}

/// A node id for the log: enough to tell nodes apart, not the address.
pub(crate) fn short(node: &NodeId) -> String {
    node.as_str().chars().take(10).collect()
}
