//! On what terms a job is accepted: how urgent, how often tried, who brought it, who pays.

use neurino_core::{
    FrontendId, JobSpec, MicroCredits, ModelId, PriceList, Roles, Shares, TextJob, Usage,
};
use neurino_ledger::{Account, EntryKind, Event, LedgerError, PayerId, Unit, event_of_hold};
use neurino_protocol::{ErrorBody, ErrorCode};

use crate::coordinator::{Coordinator, prompt_tokens_bound};
use crate::router::JobClass;
use crate::store::Hold;

/// Pixels times steps that weigh as much as a token: a point pays 1000 tokens or 512 x 512 x 20.
const PIXEL_STEPS_PER_UNIT: u64 = 512 * 512 * 20 / 1000;
/// Bytes of a prompt that weigh as much as a token.
const PROMPT_BYTES_PER_UNIT: u64 = 4;

/// On what terms a job is accepted. The default is what an interactive, free request gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobTerms {
    /// How urgent it is.
    pub class: JobClass,
    /// Attempts after which it is given up, lost ones included: 1 discards it at the first failure.
    /// The network's own limits hold besides.
    pub attempts_max: Option<u32>,
    /// The frontend through which it came.
    pub frontend: Option<FrontendId>,
    /// How long it may wait while nobody serves its model, in milliseconds; the network's usual time
    /// when absent.
    pub no_node_wait_ms: Option<u64>,
    /// Set when it is paid with credits.
    pub prepaid: Option<Prepaid>,
    /// Whether it is for somebody who waits on the line for it: once nobody does, it is withdrawn, also
    /// after a restart. Without an idempotency key nobody can come back for it.
    pub attended: bool,
}

/// Which key's credits pay a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepaid {
    /// The key's id.
    pub key: String,
    /// Most that the key's jobs of one month may cost.
    pub budget: Option<MicroCredits>,
}

/// How a job is paid with credits: the prices, and what was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) price_list: String,
    pub(crate) held: MicroCredits,
}

/// What a job costs the network at most, in units of a token: for shares and rate limits, which look
/// at work and not at prices. At least one.
pub(crate) fn cost_units(spec: &JobSpec) -> u64 {
    let units = match spec {
        JobSpec::Text(job) => {
            let prompt = crate::coordinator::prompt_bytes(job) as u64 / PROMPT_BYTES_PER_UNIT;
            // A claimed answer is read as a prompt is.
            let answers = match &job.claim {
                Some(claim) => claim.tokens() as u64,
                None => u64::from(job.choices) * u64::from(job.max_tokens),
            };
            prompt + answers
        }
        JobSpec::Image(job) => u64::from(job.pixel_steps()).div_ceil(PIXEL_STEPS_PER_UNIT),
    };
    units.max(1)
}

/// The work that was done for a job, in the units of [`cost_units`]; none if there was too little of it
/// for its time to say how fast its node is: less than `tokens_min`.
pub(crate) fn timed_units(spec: &JobSpec, usage: Usage, tokens_min: u32) -> Option<u64> {
    match spec {
        JobSpec::Text(_) if usage.completion_tokens < tokens_min => None,
        // Reading says nothing of how fast it writes.
        JobSpec::Text(job) if job.claim.is_some() => None,
        JobSpec::Text(job) => {
            let prompt = crate::coordinator::prompt_bytes(job) as u64 / PROMPT_BYTES_PER_UNIT;
            Some(prompt + u64::from(usage.completion_tokens))
        }
        // A picture is all of its job.
        JobSpec::Image(_) => Some(cost_units(spec)),
    }
}

/// The most a job's answer can count.
pub(crate) fn usage_bound(spec: &JobSpec) -> Usage {
    let JobSpec::Text(TextJob { choices, max_tokens, .. }) = spec else { return Usage::default() };
    Usage {
        prompt_tokens: prompt_tokens_bound(spec),
        // No overflow in a job that was admitted.
        completion_tokens: choices.saturating_mul(*max_tokens),
    }
}

impl Coordinator {
    /// The most that a job costs in credits.
    pub(crate) fn price_at_most(&self, spec: &JobSpec) -> Result<MicroCredits, ErrorBody> {
        self.priced(spec).map(|(_, amount)| amount)
    }

    fn priced(&self, spec: &JobSpec) -> Result<(&PriceList, MicroCredits), ErrorBody> {
        let priced = self.prices_now();
        let priced = priced.and_then(|list| Ok((list, list.price(spec, usage_bound(spec))?)));
        priced.map_err(|_| {
            let message = format!("`model` {} has no price in credits here", spec.model());
            ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("choose another model, or ask whoever runs this network for its price")
        })
    }

    /// What must be set aside for a prepaid job.
    pub(crate) fn hold(
        &self,
        job: neurino_core::JobId,
        payer: &PayerId,
        spec: &JobSpec,
        prepaid: &Prepaid,
    ) -> Result<Hold, ErrorBody> {
        let (list, amount) = self.priced(spec)?;
        let event = Event::transfer(
            event_of_hold(job),
            EntryKind::CreditHold,
            Unit::Credit,
            Account::Payer(payer.clone()),
            Account::Held(payer.clone()),
            neurino_core::MicroPoints(amount.0),
        );
        let event = event.map_err(|error| internal(&error))?;
        Ok(Hold {
            amount,
            price_list: list.name.clone(),
            key: prepaid.key.clone(),
            budget: prepaid.budget,
            event,
        })
    }

    /// The price of a prepaid job and its part for everybody.
    pub(crate) fn charge(
        &self,
        payment: &Payment,
        spec: &JobSpec,
        usage: Usage,
        frontend: Option<&FrontendId>,
    ) -> Result<(MicroCredits, Shares), ErrorBody> {
        let list: &PriceList =
            self.prices.named(&payment.price_list).map_err(|error| internal(&error))?;
        let price = list.price(spec, usage).map_err(|error| internal(&error))?;
        // What was set aside is the most that was promised to be charged.
        let price = price.min(payment.held);
        let roles = self.roles(spec.model(), frontend);
        Ok((price, list.split.shares(price, roles)))
    }

    fn roles(&self, model: &ModelId, frontend: Option<&FrontendId>) -> Roles {
        let pod = self.pod(model);
        Roles {
            deployer: pod.deployer.is_some(),
            frontend: frontend.is_some(),
            voters: pod.votes > 0,
        }
    }
}

/// The lines of a charge: what was set aside goes to everybody with a part, the rest back.
pub(crate) fn charge_lines(
    payer: &PayerId,
    held: MicroCredits,
    price: MicroCredits,
    parts: impl IntoIterator<Item = (Account, MicroCredits)>,
) -> Vec<(Account, EntryKind, Unit, neurino_core::MicroPoints)> {
    let line = |account, amount: i64| {
        (account, EntryKind::CreditCharge, Unit::Credit, neurino_core::MicroPoints(amount))
    };
    let mut lines = vec![line(Account::Held(payer.clone()), -held.0)];
    lines.extend(parts.into_iter().map(|(account, amount)| line(account, amount.0)));
    lines.push(line(Account::Payer(payer.clone()), held.0 - price.0));
    lines.retain(|(.., amount)| amount.0 != 0);
    lines
}

fn internal(error: &dyn std::error::Error) -> ErrorBody {
    tracing::error!("a job cannot be charged: {error}");
    ErrorBody::new(ErrorCode::Internal, "the job cannot be charged")
}

/// The event that gives back what was set aside for a job.
pub(crate) fn release_event(
    job: neurino_core::JobId,
    payer: &PayerId,
    held: MicroCredits,
) -> Result<Event, LedgerError> {
    Event::transfer(
        neurino_ledger::event_of_release(job),
        EntryKind::CreditRelease,
        Unit::Credit,
        Account::Held(payer.clone()),
        Account::Payer(payer.clone()),
        neurino_core::MicroPoints(held.0),
    )
}

#[cfg(test)]
mod tests {
    use neurino_core::{ChatMessage, ModelId, Role};

    use super::*;

    #[test]
    fn speed_is_of_the_work_that_was_done_and_of_enough_of_it() {
        let model = ModelId::new("m").expect("valid");
        let messages = vec![ChatMessage::new(Role::User, "x".repeat(400))];
        let spec = JobSpec::Text(TextJob::new(model, messages, 5000));
        let of = |completion_tokens| {
            timed_units(&spec, Usage { prompt_tokens: 100, completion_tokens }, 32)
        };
        assert_eq!(of(2), None, "a short answer is as fast as its way");
        assert_eq!(of(150), Some(250), "and not the 5000 that were allowed");
        assert_eq!(cost_units(&spec), 5100);
    }
}
