//! Payment: a submitted result is checked, priced, and settled in one transaction.

use std::sync::Arc;

use neurino_core::{
    FrontendId, JobId, JobOutput, JobSpec, JobState, LeaseId, MicroCredits, MicroPoints,
    Multiplier, NodeId, Receipt, ResultStatement, TextChoice, TextJob, TextOutput, Usage,
};
use neurino_ledger::{Account, EntryKind, Event, PayerId, Unit, event_of};
use neurino_protocol::node::{CoordinatorMessage, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::verify;
use tokio::time::Instant;

use crate::coordinator::{Coordinator, prompt_tokens_bound};
use crate::jobs::short;
use crate::picture::fits_job;
use crate::session::{address_of, continues_stream};
use crate::state::LeasePhase;
use crate::store::{AttemptEnd, Settled, Settlement, StoredAttempt};
use crate::terms::{Payment, charge_lines, cost_units};
use crate::watch::{FeedLimits, answer_bytes};

/// A line of an event before it is built.
type Line = (Account, EntryKind, Unit, MicroPoints);

/// What shows that a result is its node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The statement's signature by the key that the node's id names.
    Statement,
    /// What the original protocol has, checked before.
    Original,
}

/// A lease whose result is being checked; nothing else may end it meanwhile.
struct Claim {
    job: JobId,
    fence: u32,
    spec: Arc<JobSpec>,
    rule_set: String,
    granted_at_ms: i64,
    payer: PayerId,
    frontend: Option<FrontendId>,
    payment: Option<Payment>,
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
        let Some(claim) = self.claim(node, &submission.statement) else {
            return self.settled_before(node, id).await;
        };
        // Digests and unpacking take a moment.
        let (this, of) = (Arc::clone(self), node.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let checked = this.check(&of, &claim, &submission, proof);
            (claim, submission, checked)
        });
        let (claim, submission, checked) = match checked.await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(lease.id = %id, %error, "a result could not be checked");
                self.unclaim(id);
                return Err(ErrorBody::new(ErrorCode::Internal, "the result could not be checked"));
            }
        };
        let checked = match checked {
            Ok(()) => self.is_new(&claim, &submission).await,
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            tracing::warn!(
                job.id = %claim.job, lease.id = %id, code = ?error.code,
                "a result of {} was refused: {}", short(node), error.message,
            );
            self.unclaim(id);
            // The fault is the node's, so the payer's job goes on elsewhere.
            let fault =
                ErrorBody::new(ErrorCode::EngineFailed, "the results of the job did not hold");
            self.release(id, AttemptEnd::Failed, fault).await;
            return Ok(CoordinatorMessage::Rejected { lease: id, job: Some(claim.job), error });
        }
        let settlement = match self.settlement(node, &claim, &submission) {
            Ok(settlement) => settlement,
            Err(error) => {
                self.unclaim(id);
                return Err(error);
            }
        };
        let receipt = settlement.receipt.clone();
        match self.store.settle(settlement).await {
            Ok(Settled::Paid) => {
                {
                    let mut state = self.state();
                    let (model, cost) = (claim.spec.model(), cost_units(&claim.spec));
                    state.router.timed(node, model, cost, receipt.duration_ms);
                    state.finish_job(claim.job, submission.output, receipt.clone());
                }
                self.metrics.settled(&receipt);
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
                Err(error.body())
            }
        }
    }

    /// Takes a running lease for settlement if the statement names it exactly and in time.
    fn claim(&self, node: &NodeId, statement: &ResultStatement) -> Option<Claim> {
        let mut state = self.state();
        let lease = state.leases.get_mut(&statement.lease)?;
        let names_it = lease.node == *node && statement.node == *node;
        let in_time = Instant::now() < lease.deadline;
        if !names_it || !in_time || lease.phase != LeasePhase::Running {
            return None;
        }
        lease.phase = LeasePhase::Settling;
        let (job, fence, granted_at_ms) = (lease.job, lease.fence, lease.granted_at_ms);
        let live = state.jobs.get(&job)?;
        Some(Claim {
            job,
            fence,
            spec: Arc::clone(&live.spec),
            rule_set: live.rule_set.clone(),
            granted_at_ms,
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

    /// Everything that must hold before a result is paid.
    fn check(
        &self,
        node: &NodeId,
        claim: &Claim,
        submission: &Submission,
        proof: Proof,
    ) -> Result<(), ErrorBody> {
        let Submission { statement, signature, output } = submission;
        let refuse = |code, message: &str| Err(ErrorBody::new(code, message));
        if statement.job != claim.job || statement.fence != claim.fence {
            return refuse(ErrorCode::InvalidRequest, "the statement names another job or fence");
        }
        if output.digest() != statement.digest {
            return refuse(ErrorCode::InvalidRequest, "the result does not match its digest");
        }
        if proof == Proof::Statement
            && verify(&statement.message(), signature, address_of(node)?).is_err()
        {
            return refuse(ErrorCode::BadSignature, "the result is not signed by the node's key");
        }
        let (answer, job) = match (output, &*claim.spec) {
            (JobOutput::Text(answer), JobSpec::Text(job)) => (answer, job),
            (JobOutput::Image(picture), JobSpec::Image(job)) => {
                return fits_job(picture, job);
            }
            _ => return refuse(ErrorCode::InvalidRequest, "the result is of another kind"),
        };
        plausible(answer, job, self.config.limits.output_bytes_max)?;
        let usage = answer.usage;
        let prompt_max = prompt_tokens_bound(&claim.spec);
        let prompt = (1..=prompt_max).contains(&usage.prompt_tokens);
        let most = job.choices.saturating_mul(job.max_tokens);
        let least = answer.choices.iter().filter(|choice| says_something(choice)).count();
        let written = (least..=most as usize).contains(&(usage.completion_tokens as usize));
        if !prompt || !written {
            return refuse(ErrorCode::InvalidRequest, "the token counts do not fit the job");
        }
        if !continues_stream(&self.state(), statement.lease, output) {
            return refuse(ErrorCode::InvalidRequest, "the result is not what was streamed");
        }
        Ok(())
    }

    /// Refuses a picture that was paid before for another seed: two seeds never make the same one.
    /// A kept picture handed in again would cost its node nothing.
    async fn is_new(&self, claim: &Claim, submission: &Submission) -> Result<(), ErrorBody> {
        let (JobSpec::Image(job), JobOutput::Image(picture)) = (&*claim.spec, &submission.output)
        else {
            return Ok(());
        };
        let seeds = self.store.seeds_of(picture, job.model.as_str()).await;
        match seeds {
            Ok(seeds) if seeds.iter().any(|seed| *seed != job.seed) => {
                let message = "the same picture was handed in before, for another seed";
                Err(ErrorBody::new(ErrorCode::InvalidRequest, message))
            }
            Ok(_) => Ok(()),
            // Nobody's fault; the books will say so again in a moment.
            Err(error) => {
                tracing::error!(?error, "older pictures could not be looked at: {error}");
                Ok(())
            }
        }
    }

    /// Prices the result and writes the receipt.
    fn settlement(
        &self,
        node: &NodeId,
        claim: &Claim,
        submission: &Submission,
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
            duration_ms: u64::try_from(settled_at_ms - claim.granted_at_ms).unwrap_or(0),
            settled_at_ms,
            network: self.config.network.clone(),
            coordinator: self.address(),
            signature: String::new(),
        };
        receipt.signature = self.config.key.sign(&receipt.message());
        let output = submission.output.clone();
        Ok(Settlement { output, fence: claim.fence, event, receipt, charged })
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

/// Whether an answer has anything that costs a token.
fn says_something(choice: &TextChoice) -> bool {
    !choice.text.is_empty() || !choice.tool_calls.is_empty()
}

/// What a result must look like to be an answer to its job.
fn plausible(output: &TextOutput, job: &TextJob, bytes_max: usize) -> Result<(), ErrorBody> {
    let refuse = |code, message: &str| Err(ErrorBody::new(code, message));
    if output.choices.len() != job.choices as usize {
        return refuse(ErrorCode::InvalidRequest, "the result has another number of answers");
    }
    let limits = FeedLimits::of(job, bytes_max);
    if output.choices.iter().map(answer_bytes).sum::<usize>() > bytes_max {
        return refuse(ErrorCode::TooLarge, "the answer is longer than a result may be");
    }
    for choice in &output.choices {
        if job.tools.is_empty() && !choice.tool_calls.is_empty() {
            return refuse(
                ErrorCode::InvalidRequest,
                "the result calls functions it was not given",
            );
        }
        if choice.logprobs.is_some() != job.logprobs.is_some() {
            return refuse(ErrorCode::InvalidRequest, "log-probabilities are not as asked for");
        }
        let rated = choice.logprobs.as_deref().unwrap_or_default();
        let rivals = job.logprobs.unwrap_or(0) as usize;
        if rated.len() > limits.logprobs || rated.iter().any(|token| token.top.len() > rivals) {
            return refuse(ErrorCode::TooLarge, "there are more log-probabilities than asked for");
        }
    }
    Ok(())
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
