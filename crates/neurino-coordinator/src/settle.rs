//! Payment: a submitted result is checked, priced, and settled in one transaction.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::{
    FrontendId, ImageJob, ImageOutput, JobId, JobOutput, JobSpec, JobState, LeaseId, MicroCredits,
    MicroPoints, Multiplier, NodeId, Receipt, ResultStatement, Usage,
};
use neurino_ledger::{Account, EntryKind, Event, PayerId, Unit, event_of};
use neurino_protocol::node::{CoordinatorMessage, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::verify;
use tokio::time::Instant;

use crate::checks::{self, Refusal};
use crate::compare::Facts;
use crate::coordinator::Coordinator;
use crate::decoder::NoAnswer;
use crate::error::StoreError;
use crate::jobs::short;
use crate::router::{JobClass, OTHER_ENGINE, Place, Placement};
use crate::session::{address_of, continues_stream};
use crate::state::LeasePhase;
use crate::store::{AttemptEnd, Mark, NewAudit, Settled, Settlement, StoredAttempt};
use crate::terms::{Payment, charge_lines, timed_units};

/// Why a result is looked at that came sooner than it can be computed.
const TOO_FAST: &str = "it came faster than any node is";

/// A line of an event before it is built.
type Line = (Account, EntryKind, Unit, MicroPoints);

/// What shows that a result is its node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The statement's signature by the key that the node's id names.
    Statement,
    /// The same, of a picture that was read from the bucket and stays there.
    Uploaded,
    /// What the original protocol has, checked before.
    Original,
}

/// A lease whose result is being checked; nothing else may end it meanwhile.
struct Claim {
    /// Where it was computed.
    place: Place,
    job: JobId,
    fence: u32,
    spec: Arc<JobSpec>,
    rule_set: String,
    granted_at_ms: i64,
    /// How long its node had it; none if that began in another life of the coordinator. Not by the wall
    /// clock, which may be set meanwhile: speeds are made of it.
    took: Option<Duration>,
    payer: PayerId,
    frontend: Option<FrontendId>,
    payment: Option<Payment>,
    class: JobClass,
    /// Who may compute it, if not everybody.
    placement: Option<Arc<Placement>>,
    /// Attempts at it that failed before.
    failures: u32,
    /// The node's program and device, as far as known, and whether it is trusted less.
    numeric_class: String,
    probation: bool,
}

/// What checks of a result leave behind.
#[derive(Debug, Default)]
struct Checked {
    mark: Option<Mark>,
    /// What calls for it to be computed again.
    suspicion: Option<&'static str>,
}

/// Why a result is not paid.
enum Unpaid {
    /// It does not hold.
    Refused(ErrorBody),
    /// It could not be looked at: the node is to hand it in again.
    Later(ErrorBody),
}

impl From<ErrorBody> for Unpaid {
    fn from(error: ErrorBody) -> Self {
        Self::Refused(error)
    }
}

/// Looks at a result on a thread of its own; what breaks there breaks for this result alone.
async fn blocking<T: Send + 'static>(
    job: JobId,
    look: impl FnOnce() -> Result<T, ErrorBody> + Send + 'static,
) -> Result<T, ErrorBody> {
    tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| {
        tracing::error!(job.id = %job, %error, "a result broke its check");
        Err(Refusal::Malformed("the result cannot be read").into())
    })
}

impl Coordinator {
    /// Settles a submitted result and says what to answer; `None` when the books could not be
    /// reached, so that the node repeats itself.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        node: &NodeId,
        submission: Submission,
        proof: Proof,
    ) -> Option<CoordinatorMessage> {
        let (this, node) = (Arc::clone(self), node.clone());
        let lease = submission.statement.lease;
        let settled = self
            .to_the_end(async move { this.settle_claimed(&node, submission, proof).await })
            .await;
        match settled {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::warn!(lease.id = %lease, code = ?error.code, "a result was not settled yet");
                None
            }
        }
    }

    async fn settle_claimed(
        self: &Arc<Self>,
        node: &NodeId,
        submission: Submission,
        proof: Proof,
    ) -> Result<CoordinatorMessage, ErrorBody> {
        let id = submission.statement.lease;
        let Some(claim) = self.claim(node, &submission.statement, proof) else {
            return self.settled_before(node, id).await;
        };
        let claimed = Claimed { coordinator: self, lease: id };
        let settled = self.settle_for(node, claim, submission, proof).await;
        // Whatever became of it is in memory.
        std::mem::forget(claimed);
        settled
    }

    /// Settles what was handed in for a lease that nothing else ends meanwhile.
    async fn settle_for(
        self: &Arc<Self>,
        node: &NodeId,
        claim: Claim,
        submission: Submission,
        proof: Proof,
    ) -> Result<CoordinatorMessage, ErrorBody> {
        let id = submission.statement.lease;
        let (claim, submission) = (Arc::new(claim), Arc::new(submission));
        let checked = match self.checked(node, &claim, &submission, proof).await {
            Ok(checked) => checked,
            Err(Unpaid::Refused(error)) => {
                return Ok(self.refused(node, id, claim.job, error).await);
            }
            Err(Unpaid::Later(error)) => {
                self.unclaim(id);
                return Err(error);
            }
        };
        let settlement = match self.settlement(node, &claim, &submission, &checked) {
            Ok(settlement) => Settlement { uploaded: proof == Proof::Uploaded, ..settlement },
            Err(error) => {
                self.unclaim(id);
                return Err(error);
            }
        };
        let receipt = settlement.receipt.clone();
        let drawn = settlement.audit.is_some();
        let too_fast = settlement.audit.as_ref().and_then(|audit| audit.suspicion);
        let too_fast = too_fast.filter(|words| *words == TOO_FAST);
        match self.store.settle(settlement).await {
            Ok(Settled::Paid) => {
                if drawn {
                    self.audits.wake();
                }
                {
                    let output = submission.output.clone();
                    let mut state = self.state();
                    if let Some((units, took_ms)) = self.timed(&claim, receipt.usage) {
                        // Who comes faster than anybody sets no speed for others to be held against.
                        let suspect = too_fast.is_some();
                        let (place, model) = (&claim.place, &receipt.model);
                        state.router.timed(place, model, units, took_ms, suspect);
                    }
                    state.router.paid(node);
                    if self.audits.is_past_first(node) {
                        state.router.trust(node);
                    }
                    // What others called wrong could be computed after all.
                    let objections = state.jobs.get_mut(&claim.job);
                    for other in
                        objections.map(|job| std::mem::take(&mut job.objections)).iter().flatten()
                    {
                        state.router.failed(other, 2);
                    }
                    state.finish_job(claim.job, output, receipt.clone());
                }
                if let Some(Mark::Picture(mark)) = checked.mark {
                    self.audits.remember(mark);
                }
                self.metrics.settled(&receipt);
                self.demand.settled(&receipt, receipt.settled_at_ms);
                if claim.class != JobClass::Audit && claim.placement.is_none() {
                    self.note_for_honeypots(node, claim.job, &claim.spec, receipt.settled_at_ms);
                }
                tracing::info!(
                    job.id = %claim.job, lease.id = %id, points.micro = receipt.quote.amount_micro.0,
                    duration_ms = receipt.duration_ms,
                    "paid {} points for job {} to {}",
                    receipt.quote.amount_micro, claim.job, short(node),
                );
                // Nobody listening is fine; the books have it.
                let _ = self.settled.send(receipt.clone());
                self.dispatch();
                Ok(CoordinatorMessage::Settled(receipt))
            }
            Ok(Settled::Before(receipt)) => {
                self.unclaim(id);
                self.reconcile(claim.job).await;
                Ok(CoordinatorMessage::Settled(*receipt))
            }
            // The payer withdrew it, or it was given up, a moment before.
            Ok(Settled::Stale) => {
                self.unclaim(id);
                self.reconcile(claim.job).await;
                self.settled_before(node, id).await
            }
            Err(error) => {
                self.unclaim(id);
                if matches!(error, StoreError::Doubtful) {
                    // It may be paid: whoever waits for the job need not wait for the node's repeat.
                    let this = Arc::clone(self);
                    self.tasks.spawn(async move { this.reconcile(claim.job).await });
                }
                Err(error.body())
            }
        }
    }

    /// Refuses a result. The fault is the node's, so the payer's job goes on elsewhere.
    pub(crate) async fn refused(
        self: &Arc<Self>,
        node: &NodeId,
        id: LeaseId,
        job: JobId,
        error: ErrorBody,
    ) -> CoordinatorMessage {
        tracing::warn!(
            job.id = %job, lease.id = %id, code = ?error.code,
            "a result of {} was refused: {}", short(node), error.message,
        );
        self.unclaim(id);
        let fault = ErrorBody::new(ErrorCode::EngineFailed, "the results of the job did not hold");
        self.release(id, AttemptEnd::Failed, fault).await;
        CoordinatorMessage::Rejected { lease: id, job: Some(job), error }
    }

    /// Looks at a result away from everything else: digests and unpacking take a moment.
    async fn checked(
        self: &Arc<Self>,
        node: &NodeId,
        claim: &Arc<Claim>,
        submission: &Arc<Submission>,
        proof: Proof,
    ) -> Result<Checked, Unpaid> {
        let room = self.audits.checking.acquire().await;
        let (this, of) = (Arc::clone(self), node.clone());
        let (its, handed_in) = (Arc::clone(claim), Arc::clone(submission));
        blocking(claim.job, move || this.check_statement(&of, &its, &handed_in, proof)).await?;
        // Only of what a node has signed a stranger's file is opened.
        let facts = match (&submission.output, &*claim.spec) {
            (JobOutput::Image(picture), JobSpec::Image(job)) => {
                Some(self.facts_of(picture, job).await?)
            }
            _ => None,
        };
        let (this, of) = (Arc::clone(self), node.clone());
        let (its, handed_in) = (Arc::clone(claim), Arc::clone(submission));
        let checked =
            blocking(claim.job, move || this.check(&of, &its, &handed_in, proof, facts)).await?;
        drop(room);
        Ok(self.is_new(claim, submission, checked).await?)
    }

    /// What a submitted picture's pixels are.
    async fn facts_of(&self, picture: &ImageOutput, job: &ImageJob) -> Result<Facts, Unpaid> {
        match self.decoder.facts(picture, job).await {
            Ok(Ok(facts)) => Ok(facts),
            Ok(Err(fault)) => {
                let error = ErrorBody::new(ErrorCode::InvalidRequest, fault);
                Err(Unpaid::Refused(Refusal::Picture(error).into()))
            }
            Err(NoAnswer::Broke) => {
                Err(Unpaid::Refused(Refusal::Malformed("the picture cannot be read").into()))
            }
            Err(error @ NoAnswer::Unavailable) => {
                Err(Unpaid::Later(ErrorBody::new(ErrorCode::Overloaded, error.to_string())))
            }
        }
    }

    /// Takes a running lease for settlement if the statement names it exactly and in time.
    fn claim(&self, node: &NodeId, statement: &ResultStatement, proof: Proof) -> Option<Claim> {
        let mut state = self.state();
        let lease = state.leases.get_mut(&statement.lease)?;
        let names_it = lease.node == *node && statement.node == *node;
        let in_time = Instant::now() < lease.deadline;
        if !names_it || !in_time || lease.phase != LeasePhase::Running {
            return None;
        }
        lease.phase = LeasePhase::Settling;
        let place = lease.place();
        let (job, fence, granted_at_ms) = (lease.job, lease.fence, lease.granted_at_ms);
        let took = (!lease.restored).then(|| lease.assigned.elapsed());
        // Its session may be over meanwhile; how it handed the result in still says what it is.
        let probation = proof == Proof::Original;
        let unknown = if probation { OTHER_ENGINE } else { "" };
        let numeric_class = if state.sessions.contains_key(node) {
            state.class_of(statement.lease).unwrap_or_default()
        } else {
            unknown.to_owned()
        };
        let live = state.jobs.get(&job)?;
        Some(Claim {
            place,
            class: live.class,
            placement: live.placement.clone(),
            failures: live.failures,
            numeric_class,
            probation,
            job,
            fence,
            spec: Arc::clone(&live.spec),
            rule_set: live.rule_set.clone(),
            granted_at_ms,
            took,
            payer: live.payer.clone(),
            frontend: live.frontend.clone(),
            payment: live.payment.clone(),
        })
    }

    fn unclaim(&self, id: LeaseId) {
        if let Some(lease) = self.state().leases.get_mut(&id) {
            lease.phase = LeasePhase::Running;
        }
    }

    /// Whether a node says of its own result, and under its own name, that it is this job's.
    fn check_statement(
        &self,
        node: &NodeId,
        claim: &Claim,
        submission: &Submission,
        proof: Proof,
    ) -> Result<(), ErrorBody> {
        self.check_trust(node)?;
        let Submission { statement, signature, output } = submission;
        let refuse = |code, message: &str| Err(ErrorBody::new(code, message));
        if statement.job != claim.job || statement.fence != claim.fence {
            return refuse(ErrorCode::InvalidRequest, "the statement names another job or fence");
        }
        if output.digest() != statement.digest {
            return refuse(ErrorCode::InvalidRequest, "the result does not match its digest");
        }
        if proof != Proof::Original
            && verify(&statement.message(), signature, address_of(node)?).is_err()
        {
            return refuse(ErrorCode::BadSignature, "the result is not signed by the node's key");
        }
        Ok(())
    }

    /// Everything else that must hold before a result is paid; `facts` are a picture's.
    fn check(
        &self,
        node: &NodeId,
        claim: &Claim,
        submission: &Submission,
        proof: Proof,
        facts: Option<Facts>,
    ) -> Result<Checked, ErrorBody> {
        let Submission { statement, output, .. } = submission;
        let bytes_max = self.config.limits.output_bytes_max;
        let found = checks::result(&claim.spec, output, node, bytes_max, proof, facts)?;
        if !continues_stream(&self.state(), statement.lease, output) {
            let words = "the result is not what was streamed";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, words));
        }
        let mark = found.mark.map(|mark| self.audits.blinded(mark));
        let mut checked = Checked { mark, suspicion: found.suspicion };
        if let Some(Mark::Picture(mark)) = &checked.mark {
            let before = self.audits.pictures();
            if checks::is_near_copy(mark, before.iter().map(|mark| &**mark)) {
                let words = "nearly the same picture was handed in before, for another seed";
                // Two seeds may come this close honestly: a drawing on white, say.
                checked.suspicion = Some(words);
            }
        }
        Ok(checked)
    }

    /// Refuses a picture that was paid before for another seed: two that start other noise never make
    /// the same one.
    /// A kept picture handed in again would cost its node nothing. A long text that its owner gave to
    /// another prompt is refused once; if it comes again, it is paid and looked at.
    async fn is_new(
        &self,
        claim: &Claim,
        submission: &Submission,
        mut checked: Checked,
    ) -> Result<Checked, ErrorBody> {
        let noise = ImageJob::noise_seed;
        let known = match (&*claim.spec, &submission.output, &checked.mark) {
            (JobSpec::Image(job), JobOutput::Image(picture), _) => {
                let seeds = self.store.seeds_of(picture, job.model.as_str()).await;
                match seeds {
                    Ok(seeds) if seeds.iter().any(|seed| noise(*seed) != noise(job.seed)) => {
                        let words = "the same picture was handed in before, for another seed";
                        return Err(Refusal::Copy(words).into());
                    }
                    other => other.map(|_| false),
                }
            }
            (_, _, Some(Mark::Text(mark))) => self.store.is_text_known(mark).await,
            _ => Ok(false),
        };
        match known {
            Ok(true) => {
                let words = "the same long answer was handed in before, for another prompt";
                checked.suspicion = Some(first_refused(claim, words)?);
            }
            Ok(false) => {}
            // Nobody's fault, and nobody's gain: another node's result says what this one is worth.
            Err(error) => {
                tracing::error!(?error, "older results could not be looked at: {error}");
                checked.suspicion = Some("older results could not be looked at");
            }
        }
        Ok(checked)
    }

    /// Whether a result is to be computed again.
    fn audit_of(
        &self,
        node: &NodeId,
        claim: &Claim,
        checked: &Checked,
        receipt: &Receipt,
    ) -> Option<NewAudit> {
        // Work that checks other work is compared with it already.
        if claim.class == JobClass::Audit {
            return None;
        }
        if let Some(known) = claim.placement.as_ref().and_then(|place| place.known.as_ref()) {
            return Some(crate::honeypots::audit_of(known, claim.numeric_class.clone()));
        }
        let fast = self
            .timed(claim, receipt.usage)
            .is_some_and(|(units, took_ms)| self.is_too_fast(&receipt.model, units, took_ms));
        let suspicion = checked.suspicion.or(fast.then_some(TOO_FAST));
        let suspicion = suspicion.or_else(|| self.files.suspicion(node));
        let class = claim.numeric_class.clone();
        let at_ms = receipt.settled_at_ms;
        self.audits.drawn(node, claim.job, at_ms, class, claim.probation, suspicion)
    }

    /// What says how fast a node is: the work in units and its time in milliseconds.
    fn timed(&self, claim: &Claim, usage: Usage) -> Option<(u64, u64)> {
        let units = timed_units(&claim.spec, usage, self.config.limits.timed_tokens_min)?;
        Some((units, whole_ms(claim.took?)))
    }

    /// Prices the result and writes the receipt.
    fn settlement(
        &self,
        node: &NodeId,
        claim: &Claim,
        submission: &Submission,
        checked: &Checked,
    ) -> Result<Settlement, ErrorBody> {
        let internal = |error: &dyn std::error::Error| {
            tracing::error!(job.id = %claim.job, "a result could not be priced: {error}");
            ErrorBody::new(ErrorCode::Internal, "the result could not be priced")
        };
        let usage = match &submission.output {
            JobOutput::Text(answer) => answer.usage,
            // A picture is paid by its job's pixels and steps.
            JobOutput::Image(_) => Usage::default(),
        };
        let rules = self.rules.named(&claim.rule_set).map_err(|e| internal(&e))?;
        let quote = rules.price(&claim.spec, usage, Multiplier::ONE).map_err(|e| internal(&e))?;
        let lease = submission.statement.lease;
        let reward = |account, amount| (account, EntryKind::JobReward, quote.points.into(), amount);
        let mut lines = vec![
            reward(Account::Pool, -quote.amount_micro),
            reward(Account::Node(node.clone()), quote.amount_micro),
        ];
        let charged = self.charge_into(&mut lines, node, claim, usage)?;
        let event = Event::new(event_of(lease), lines).map_err(|e| internal(&e))?;
        let settled_at_ms = self.settling_time_ms();
        let mut receipt = Receipt {
            event: event.id(),
            job: claim.job,
            lease,
            node: node.clone(),
            model: claim.spec.model().clone(),
            usage,
            rule_set: claim.rule_set.clone(),
            quote,
            digest: submission.statement.digest,
            duration_ms: claim.took.map_or_else(
                || u64::try_from(settled_at_ms - claim.granted_at_ms).unwrap_or(0),
                whole_ms,
            ),
            settled_at_ms,
            network: self.config.network.clone(),
            coordinator: self.address(),
            signature: String::new(),
        };
        receipt.signature = self.config.key.sign(&receipt.message());
        let output = submission.output.clone();
        let audit = self.audit_of(node, claim, checked, &receipt);
        let mark = checked.mark.clone();
        let (uploaded, fence) = (false, claim.fence);
        Ok(Settlement { output, uploaded, fence, event, receipt, charged, mark, audit })
    }

    /// Adds the lines that charge a prepaid job, and says what it costs.
    fn charge_into(
        &self,
        lines: &mut Vec<Line>,
        node: &NodeId,
        claim: &Claim,
        usage: Usage,
    ) -> Result<MicroCredits, ErrorBody> {
        let Some(payment) = &claim.payment else { return Ok(MicroCredits(0)) };
        let (spec, frontend) = (&*claim.spec, claim.frontend.as_ref());
        let (price, shares) = self.charge(payment, spec, usage, frontend)?;
        let deployer = self.pod(spec.model()).deployer.map(Account::Deployer);
        let parts = [
            Some((Account::Node(node.clone()), shares.node)),
            deployer.map(|account| (account, shares.deployer)),
            claim.frontend.clone().map(|f| (Account::Frontend(f), shares.frontend)),
            Some((Account::Voters(spec.model().clone()), shares.voters)),
            Some((Account::Protocol, shares.protocol)),
        ];
        let parts = parts.into_iter().flatten();
        lines.extend(charge_lines(&claim.payer, payment.held, price, parts));
        Ok(price)
    }

    /// The answer for a lease that is over, or was never this node's.
    pub(crate) async fn settled_before(
        &self,
        node: &NodeId,
        id: LeaseId,
    ) -> Result<CoordinatorMessage, ErrorBody> {
        let receipt = self.store.receipt(id).await.map_err(|e| e.body())?;
        if let Some(receipt) = receipt.filter(|r| r.node == *node) {
            return Ok(CoordinatorMessage::Settled(receipt));
        }
        let attempt = self.store.attempt(id).await.map_err(|e| e.body())?;
        let attempt = attempt.filter(|a| a.node == *node);
        let late = attempt.as_ref().is_some_and(|a| a.state == "running") && !self.is_over(id);
        if late {
            // Its result is being written by another link, or its end is: the answer is not known
            // yet, so the node must ask again.
            return Err(ErrorBody::new(ErrorCode::Overloaded, "the lease is being settled"));
        }
        let job = attempt.as_ref().map(|a| a.job);
        Ok(CoordinatorMessage::Rejected { lease: id, job, error: why_over(attempt.as_ref()) })
    }

    /// Whether a lease is past its deadline or not in memory.
    fn is_over(&self, id: LeaseId) -> bool {
        self.state().leases.get(&id).is_none_or(|l| Instant::now() >= l.deadline)
    }
}

/// A lease that is being settled. Should the settlement break off, the lease is its node's again: else its
/// job, its slot and what is set aside for it would stay until a restart.
struct Claimed<'a> {
    coordinator: &'a Coordinator,
    lease: LeaseId,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let mut state = self.coordinator.state();
        let lease = state.leases.get_mut(&self.lease);
        if let Some(lease) = lease.filter(|lease| lease.phase == LeasePhase::Settling) {
            tracing::error!(lease.id = %self.lease, "a settlement broke off");
            lease.phase = LeasePhase::Running;
        }
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses the first time. Somebody else's honest work may look like a copy, too: what comes again is
/// paid, and computed again by others.
fn first_refused(claim: &Claim, words: &'static str) -> Result<&'static str, Refusal> {
    if claim.failures == 0 { Err(Refusal::Copy(words)) } else { Ok(words) }
}

fn why_over(attempt: Option<&StoredAttempt>) -> ErrorBody {
    let Some(attempt) = attempt else {
        return ErrorBody::new(
            ErrorCode::NotFound,
            "this coordinator did not grant that lease to this node",
        );
    };
    let paid_elsewhere = attempt.job_state == JobState::Succeeded;
    match attempt.state.as_str() {
        "cancelled" if attempt.job_state == JobState::Cancelled => {
            ErrorBody::new(ErrorCode::Cancelled, "the payer withdrew the request")
        }
        "expired" | "running" if !paid_elsewhere => {
            ErrorBody::new(ErrorCode::DeadlinePassed, "the result came after the deadline")
        }
        _ => {
            ErrorBody::new(ErrorCode::StaleLease, "the lease is over; another attempt replaced it")
        }
    }
}

#[cfg(test)]
mod tests;
