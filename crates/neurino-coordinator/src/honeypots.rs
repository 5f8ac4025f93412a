//! Honeypots: jobs whose answer the network knows already, given to a node as any other job.
//!
//! Nothing that a node is told sets one apart: it is an ordinary job of an ordinary class, leased, streamed
//! and paid as every other, under an id and a seed of its own. What it asks for is written by a node whose
//! word decides, never by a customer; only the numbers of a customer's request are imitated ([`shape`]).
//! The same node answers it first, as a job of the audits. A result of the honeypot is then an audit
//! whose second run is done: it is compared at once, and goes the way of every audit from there.
//!
//! For a node of another engine, whose words nobody can repeat, the network's own engine answers several
//! times ([`samples`]).
//!
//! What is asked stands in the job that has the known answer, sealed as every job, and is shredded with it:
//! a honeypot is as old as payloads get. Whom it was given to stands in idempotency keys, so that no owner
//! gets it twice, whatever happens to this program meanwhile. What is still being made is forgotten with
//! the memory.

mod samples;
mod shape;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use neurino_core::audit::draw;
use neurino_core::{IdempotencyKey, JobId, JobOutput, JobSpec, ModelId, NodeId};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::epoch_of;
use rand::Rng as _;
use uuid::Uuid;

use crate::audits::{AUDIT_PAYER, again, node_of};
use crate::coordinator::{Coordinator, fresh_id, now_ms};
use crate::error::StoreError;
use crate::jobs::short;
use crate::router::{JobClass, KnownAnswer, Placement, is_other_engine, owner_of};
use crate::state::State;
use crate::store::NewAudit;
use crate::terms::JobTerms;
use shape::Shape;

/// What the idempotency keys of these jobs begin with.
const PREFIX: &str = "honeypot:";
/// Why an audit was made, as the books have it.
const REASON: &str = "the network knew the answer";
/// Nodes that wait for a honeypot at the same time; of others none is drawn.
const DUE_MAX: usize = 256;
/// How often one is made for a node in vain until it is left.
const TRIES: u32 = 2;
/// Known answers of fewer tokens say little about another.
const ANSWER_TOKENS_MIN: u32 = 8;

/// What is kept in memory.
#[derive(Default)]
pub(crate) struct Honeypots(Mutex<Book>);

#[derive(Default)]
struct Book {
    /// Whether what the books have was read.
    is_read: bool,
    shapes: shape::Shapes,
    due: VecDeque<Due>,
    pots: BTreeMap<Uuid, Pot>,
}

/// A node that is to get one.
#[derive(Debug, Clone)]
struct Due {
    node: NodeId,
    model: ModelId,
    /// When, in milliseconds since the Unix epoch: not right after the result for which it was drawn.
    from_ms: i64,
    until_ms: i64,
    tries: u32,
}

/// A honeypot.
#[derive(Debug, Clone)]
struct Pot {
    model: ModelId,
    stage: Stage,
    /// The numeric class that its answer was asked of, if of one.
    class: Option<String>,
    /// Who gets it no more: whoever answered it first, and whom it was given to.
    owners: BTreeSet<String>,
    /// How many it was given to.
    given: u32,
    made_at_ms: i64,
    samples: Samples,
}

/// Whether another engine's answer can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Samples {
    /// One known answer is not enough, and there are no more.
    None,
    /// One known answer says as much as many: its words are not drawn, or it is a picture.
    NotNeeded,
    /// These jobs answer it once more.
    Asked(Vec<JobId>),
}

/// How far it is.
#[derive(Debug, Clone)]
enum Stage {
    /// A node writes what it asks for.
    Words { job: JobId, shape: Box<Shape>, not_owner: String, texts: u32 },
    /// A node answers it.
    Answer(JobId),
    /// This job has the answer.
    Ready(JobId),
}

/// The audit of a result whose right answer is known.
pub(crate) fn audit_of(known: &KnownAnswer, class: String) -> NewAudit {
    let same_class = !class.is_empty() && known.class.as_ref() == Some(&class);
    NewAudit {
        class,
        rate_ppm: 1_000_000,
        suspicion: Some(REASON),
        known: Some((known.job, same_class)),
    }
}

fn key_for(pot: Uuid, what: &str) -> IdempotencyKey {
    IdempotencyKey::new(format!("{PREFIX}{}:{what}", pot.simple())).expect("visible ASCII")
}

/// The parts of such a key: which honeypot, and what of it.
fn read_key(key: &str) -> Option<(Uuid, &str)> {
    let (pot, what) = key.strip_prefix(PREFIX)?.split_once(':')?;
    Some((Uuid::try_parse(pot).ok()?, what))
}

impl Honeypots {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// The honeypot for a node's owner: one of its class rather than another, and the oldest of those.
    fn choose(&self, due: &Due, class: &str, owners_max: u32, since_ms: i64) -> Option<Uuid> {
        let fits = |pot: &&Pot| {
            matches!(pot.stage, Stage::Ready(_))
                && !(is_other_engine(class) && pot.samples == Samples::None)
                && pot.model == due.model
                && pot.made_at_ms > since_ms
                && pot.given < owners_max
                && !pot.owners.contains(owner_of(&due.node))
        };
        let of_class = |pot: &Pot| pot.class.as_deref() == Some(class);
        let fitting = self.pots.iter().filter(|(_, pot)| fits(pot));
        let best = fitting.min_by_key(|(id, pot)| (!of_class(pot), pot.made_at_ms, **id));
        best.map(|(id, _)| *id)
    }

    /// Whether one is being made that the node may get.
    fn is_coming(&self, due: &Due, class: &str) -> bool {
        let other = is_other_engine(class);
        let coming = |pot: &Pot| match &pot.stage {
            Stage::Words { not_owner, texts, .. } => {
                not_owner == owner_of(&due.node) && (*texts > 1 || !other)
            }
            Stage::Answer(_) => {
                !pot.owners.contains(owner_of(&due.node))
                    && (pot.samples != Samples::None || !other)
            }
            Stage::Ready(_) => false,
        };
        self.pots.values().any(|pot| pot.model == due.model && coming(pot))
    }
}

impl Coordinator {
    /// Learns from an ordinary job that was paid: what such jobs look like, and whether its node is to
    /// get one whose answer is known.
    pub(crate) fn note_for_honeypots(&self, node: &NodeId, job: JobId, spec: &JobSpec, at_ms: i64) {
        let rules = &self.audits.rules;
        if rules.honeypot_ppm == 0 {
            return;
        }
        let usual = match spec {
            JobSpec::Image(job) => self.usual_of(&job.model),
            JobSpec::Text(_) => None,
        };
        let week = self.audits.key_of(epoch_of(at_ms));
        let drawn = draw(&honeypot_key(&week), job, rules.honeypot_ppm);
        let wait_ms = self.config.limits.honeypot_wait_ms;
        let after_ms = self.state().rng.random_range(0..=wait_ms);
        let mut book = self.audits.honeypots.book();
        book.shapes.note(spec, usual.as_ref());
        let waits = |due: &Due| owner_of(&due.node) == owner_of(node) && due.model == *spec.model();
        if !drawn || self.audits.is_validator(node) || book.due.iter().any(waits) {
            return;
        }
        if book.due.len() < DUE_MAX {
            let from_ms = at_ms.saturating_add_unsigned(after_ms);
            // Long enough for one to be written and answered.
            let patience_ms = wait_ms.max(self.config.limits.audit_wait_ms).saturating_mul(2);
            let until_ms = from_ms.saturating_add_unsigned(patience_ms);
            let (node, model) = (node.clone(), spec.model().clone());
            book.due.push_back(Due { node, model, from_ms, until_ms, tries: 0 });
        }
    }

    fn usual_of(&self, model: &ModelId) -> Option<neurino_core::ImageDefaults> {
        match self.makes(&self.state(), model)? {
            crate::state::Makes::Pictures(usual) => Some(usual),
            crate::state::Makes::Text => None,
        }
    }

    /// Makes honeypots that are needed, and gives out those that are ready. Faults of the books are left for
    /// the next round.
    pub(crate) async fn sweep_honeypots(self: &Arc<Self>) {
        let validators = self.audits.validators();
        if self.audits.rules.honeypot_ppm == 0 || validators.is_empty() {
            return;
        }
        if let Err(error) = self.read_honeypots().await {
            tracing::warn!(?error, "honeypots could not be read: {error}");
            return;
        }
        let now = now_ms();
        let (under_way, due) = {
            let mut book = self.audits.honeypots.book();
            let since_ms = self.oldest_honeypot_ms();
            let owners_max = self.audits.rules.honeypot_owners;
            book.pots.retain(|_, pot| pot.made_at_ms > since_ms && pot.given < owners_max);
            book.due.retain(|due| now <= due.until_ms && due.tries <= TRIES);
            let under_way: Vec<(Uuid, Stage)> = book
                .pots
                .iter()
                .filter(|(_, pot)| !matches!(pot.stage, Stage::Ready(_)))
                .map(|(id, pot)| (*id, pot.stage.clone()))
                .collect();
            let due: Vec<Due> = book.due.iter().filter(|due| now >= due.from_ms).cloned().collect();
            (under_way, due)
        };
        for (id, stage) in under_way {
            if let Err(error) = self.step_honeypot(id, stage, &validators).await {
                tracing::warn!(?error, "a honeypot waits: {error}");
            }
        }
        for due in due {
            if self.stop.is_cancelled() {
                return;
            }
            if let Err(error) = self.give_honeypot(&due, &validators).await {
                tracing::warn!(?error, "a honeypot could not be given out: {error}");
            }
        }
    }

    /// Honeypots that were made before are not given out any more: their payloads are shredded soon.
    fn oldest_honeypot_ms(&self) -> i64 {
        let limits = &self.config.limits;
        let keep_ms = limits.payload_keep_ms.saturating_sub(limits.audit_wait_ms);
        now_ms().saturating_sub_unsigned(keep_ms)
    }

    /// Brings back what is ready, after a start.
    async fn read_honeypots(&self) -> Result<(), StoreError> {
        if self.audits.honeypots.book().is_read {
            return Ok(());
        }
        let mut pots = BTreeMap::<Uuid, Pot>::new();
        let payer = PayerId::new(AUDIT_PAYER).expect("a valid name");
        let jobs = self.store.jobs_of_keys(&payer, PREFIX).await?;
        for (job, key) in &jobs {
            let Some((id, what)) = read_key(key) else { continue };
            let Some(class) = what.strip_prefix("answer:") else { continue };
            let Some((pot, owner)) = self.answered(*job).await? else { continue };
            let class = Some(class).filter(|class| *class != "any").map(ToOwned::to_owned);
            pots.insert(id, Pot { class, owners: BTreeSet::from([owner]), ..pot });
        }
        for (job, key) in &jobs {
            let Some((id, what)) = read_key(key) else { continue };
            if let Some(pot) = pots.get_mut(&id).filter(|_| what.starts_with(samples::KEY)) {
                pot.samples.push(*job);
            }
            if let (Some(owner), Some(pot)) = (what.strip_prefix("to:"), pots.get_mut(&id)) {
                pot.owners.insert(owner.to_owned());
                pot.given += 1;
            }
        }
        let mut book = self.audits.honeypots.book();
        if !book.is_read {
            book.is_read = true;
            book.pots = pots;
        }
        Ok(())
    }

    /// A honeypot whose answer is there and says enough, and who answered.
    async fn answered(&self, job: JobId) -> Result<Option<(Pot, String)>, StoreError> {
        let Some(stored) = self.store.job(job).await? else { return Ok(None) };
        let Some(node) = node_of(&stored) else { return Ok(None) };
        let Some(spec) = self.store.spec(job).await? else { return Ok(None) };
        let says_enough = match &stored.output {
            Some(JobOutput::Text(text)) => text.usage.completion_tokens >= ANSWER_TOKENS_MIN,
            Some(JobOutput::Image(_)) => true,
            None => false,
        };
        let pot = Pot {
            model: spec.model().clone(),
            stage: Stage::Ready(job),
            class: None,
            owners: BTreeSet::new(),
            given: 0,
            made_at_ms: stored.created_at_ms,
            samples: Samples::of(&spec),
        };
        Ok(says_enough.then(|| (pot, owner_of(&node).to_owned())))
    }

    /// Takes one that is being made a step further.
    async fn step_honeypot(
        self: &Arc<Self>,
        id: Uuid,
        stage: Stage,
        validators: &[NodeId],
    ) -> Result<(), StoreError> {
        let (Stage::Words { job, .. } | Stage::Answer(job) | Stage::Ready(job)) = &stage;
        let (class, samples) = {
            let honeypots = self.audits.honeypots.book();
            let Some(pot) = honeypots.pots.get(&id) else { return Ok(()) };
            (pot.class.clone(), pot.samples.clone())
        };
        {
            let state = self.state();
            if state.jobs.contains_key(job)
                || samples.jobs().any(|job| state.jobs.contains_key(job))
            {
                return Ok(());
            }
        }
        let next = match &stage {
            Stage::Words { job, shape, not_owner, texts } => {
                self.ask_for_answer(id, *job, shape, not_owner, *texts, validators).await?
            }
            Stage::Answer(job) => self.answered(*job).await?.map(|(pot, owner)| Pot {
                class,
                owners: BTreeSet::from([owner]),
                samples,
                ..pot
            }),
            Stage::Ready(_) => return Ok(()),
        };
        let mut book = self.audits.honeypots.book();
        match next {
            Some(pot) => drop(book.pots.insert(id, pot)),
            // Nobody wrote or answered it, or too little: the next try is another one.
            None => drop(book.pots.remove(&id)),
        }
        Ok(())
    }

    /// Has somebody whose word decides answer what was written.
    async fn ask_for_answer(
        self: &Arc<Self>,
        id: Uuid,
        words: JobId,
        shape: &Shape,
        not_owner: &str,
        texts: u32,
        validators: &[NodeId],
    ) -> Result<Option<Pot>, StoreError> {
        let written = self.store.job(words).await?.and_then(|job| job.output);
        let Some(JobOutput::Text(written)) = written else { return Ok(None) };
        let words = written.choices.first().and_then(|choice| shape.words(&choice.text));
        let Some(words) = words else { return Ok(None) };
        let spec = shape.job(&words, self.state().rng.random());
        let model = spec.model().clone();
        let Some(placement) = self.known_placement(&model, not_owner, validators) else {
            return Ok(None);
        };
        let class = placement.class.clone();
        let key = key_for(id, &format!("answer:{}", class.as_deref().unwrap_or("any")));
        // A picture's previews stay as they are: the honeypot is to have them if the customer had.
        let spec = if matches!(spec, JobSpec::Text(_)) { again(spec) } else { spec };
        let Some(job) = self.ask_as_audit(key, spec.clone(), placement.clone()).await else {
            return Ok(None);
        };
        let samples = self.ask_for_samples(id, spec, texts, &placement).await;
        let (stage, owners, made_at_ms) = (Stage::Answer(job), BTreeSet::new(), now_ms());
        Ok(Some(Pot { model, stage, class, owners, given: 0, made_at_ms, samples }))
    }

    /// Where a node whose word decides may answer for an owner's nodes to be compared: one of a class that
    /// one of those is of, if there is any.
    fn known_placement(
        &self,
        model: &ModelId,
        not_owner: &str,
        validators: &[NodeId],
    ) -> Option<Placement> {
        let any = Placement {
            not_owners: vec![not_owner.to_owned()],
            only: Some(validators.to_vec()),
            own_engine: true,
            ..Placement::default()
        };
        let state = self.state();
        let of_owner = state.sessions.iter().filter(|(node, _)| owner_of(node) == not_owner);
        let classes = of_owner.flat_map(|(node, session)| {
            state.router.classes(node).chain(std::iter::once(&*session.fingerprint))
        });
        let classes: BTreeSet<&str> = classes.collect();
        for class in classes {
            let alike = Placement { class: Some(class.to_owned()), ..any.clone() };
            if state.router.serves_placed(model, &alike) {
                return Some(alike);
            }
        }
        state.router.serves_placed(model, &any).then_some(any)
    }

    /// Has a job of the network's own done, at the class of the audits; none if it cannot be now.
    async fn ask_as_audit(
        self: &Arc<Self>,
        key: IdempotencyKey,
        spec: JobSpec,
        placement: Placement,
    ) -> Option<JobId> {
        let terms = JobTerms {
            class: JobClass::Audit,
            no_node_wait_ms: Some(self.config.limits.audit_wait_ms),
            ..JobTerms::default()
        };
        let payer = PayerId::new(AUDIT_PAYER).expect("a valid name");
        match self.submit_placed(payer, Some(key), spec, terms, Some(placement)).await {
            Ok(job) => Some(job),
            Err(error) => {
                tracing::debug!(%error, "a job for a honeypot was not accepted");
                None
            }
        }
    }

    /// Gives a node one, or has one made.
    async fn give_honeypot(
        self: &Arc<Self>,
        due: &Due,
        validators: &[NodeId],
    ) -> Result<(), StoreError> {
        let forget = || {
            let same = |other: &Due| other.node == due.node && other.model == due.model;
            self.audits.honeypots.book().due.retain(|other| !same(other));
        };
        if self.check_trust(&due.node).is_err() || self.audits.is_validator(&due.node) {
            forget();
            return Ok(());
        }
        let class_now = {
            let state = self.state();
            // A job that waited for this node alone would be known by its age: its id tells when it was made.
            let free = state.router.class_free_for(&due.node, &due.model);
            let Some(class) = free.or_else(|| polling_class(&state, due)) else { return Ok(()) };
            class.to_owned()
        };
        let owners_max = self.audits.rules.honeypot_owners;
        let since_ms = self.oldest_honeypot_ms();
        let chosen = {
            let book = self.audits.honeypots.book();
            book.choose(due, &class_now, owners_max, since_ms).and_then(|id| {
                let pot = book.pots.get(&id)?;
                let Stage::Ready(job) = pot.stage else { return None };
                Some((id, job, pot.class.clone()))
            })
        };
        let Some((id, job, class)) = chosen else {
            self.make_honeypot(due, &class_now, validators).await;
            return Ok(());
        };
        let known = self.store.spec(job).await?;
        let owner = owner_of(&due.node);
        {
            let mut book = self.audits.honeypots.book();
            let Some(pot) = book.pots.get_mut(&id) else { return Ok(()) };
            pot.owners.insert(owner.to_owned());
            pot.given += 1;
            if known.is_none() {
                book.pots.remove(&id);
            }
        }
        let Some(spec) = known else { return Ok(()) };
        forget();
        let placement = Placement {
            only: Some(vec![due.node.clone()]),
            known: Some(KnownAnswer { job, class }),
            ..Placement::default()
        };
        let terms = JobTerms {
            no_node_wait_ms: Some(self.config.limits.audit_wait_ms),
            ..JobTerms::default()
        };
        let payer = PayerId::new(AUDIT_PAYER).expect("a valid name");
        let key = key_for(id, &format!("to:{owner}"));
        let spec = shape::as_customers_ask(spec);
        match self.submit_placed(payer, Some(key), spec, terms, Some(placement)).await {
            Ok(job) => {
                self.metrics.honeypot_given();
                tracing::debug!(job.id = %job, "{} gets a honeypot", short(&due.node));
            }
            Err(error) => tracing::debug!(%error, "a honeypot was not accepted"),
        }
        Ok(())
    }

    /// Has a node whose word decides write what a honeypot asks for.
    async fn make_honeypot(self: &Arc<Self>, due: &Due, class: &str, validators: &[NodeId]) {
        let not_owner = owner_of(&due.node).to_owned();
        // Nobody could answer it.
        if self.known_placement(&due.model, &not_owner, validators).is_none() {
            return;
        }
        let most = self.audits.rules.honeypots_kept as usize;
        let (roll, id) = (self.state().rng.random::<u64>(), fresh_id());
        let shape = {
            let mut book = self.audits.honeypots.book();
            if book.pots.len() >= most || book.is_coming(due, class) {
                return;
            }
            let Some(shape) = book.shapes.draw(&due.model, roll) else { return };
            let same = |other: &&mut Due| other.node == due.node && other.model == due.model;
            if let Some(due) = book.due.iter_mut().find(same) {
                due.tries += 1;
            }
            shape
        };
        let Some((writer, placement)) = self.writer_for(&due.model, validators) else { return };
        let asks = shape.request(writer, roll);
        let Some(job) = self.ask_as_audit(key_for(id, "words"), asks, placement).await else {
            return;
        };
        let texts = if is_other_engine(class) { self.audits.rules.rank.texts } else { 1 };
        let pot = Pot {
            model: due.model.clone(),
            stage: Stage::Words { job, shape: Box::new(shape), not_owner, texts },
            class: None,
            owners: BTreeSet::new(),
            given: 0,
            made_at_ms: now_ms(),
            samples: Samples::None,
        };
        self.audits.honeypots.book().pots.insert(id, pot);
    }

    /// The model that writes, and where: any that writes text and that somebody has whose word decides; the
    /// one that is asked rather than another.
    fn writer_for(&self, model: &ModelId, validators: &[NodeId]) -> Option<(ModelId, Placement)> {
        let placement =
            Placement { only: Some(validators.to_vec()), own_engine: true, ..Placement::default() };
        let state = self.state();
        let writes = |model: &ModelId| {
            matches!(self.makes(&state, model), Some(crate::state::Makes::Text))
                && state.router.serves_placed(model, &placement)
        };
        let served = state.router.served().filter(|other| *other != model);
        let writer = std::iter::once(model).chain(served).find(|model| writes(model))?.clone();
        drop(state);
        Some((writer, placement))
    }
}

/// The class of a miner of the original protocol that has nothing to do. It is free for a moment only, when it
/// polls, and what it is told of a job is its lease, which says nothing of how long the job waited.
fn polling_class<'a>(state: &'a State, due: &Due) -> Option<&'a str> {
    let session = state.sessions.get(&due.node).filter(|session| session.original)?;
    let this = Placement { only: Some(vec![due.node.clone()]), ..Placement::default() };
    let is_idle = state.busy(&due.node) == 0 && state.router.serves_placed(&due.model, &this);
    is_idle.then_some(&*session.fingerprint)
}

/// The key that says after which results a honeypot is given; it can be checked with the week's.
fn honeypot_key(week: &[u8; 32]) -> [u8; 32] {
    crate::audits::derived(week, b"honeypot")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new(format!("0x{}", format!("{n:02x}").repeat(20))).expect("valid")
    }

    fn model() -> ModelId {
        ModelId::new("m").expect("valid")
    }

    fn due(n: u8) -> Due {
        Due { node: node(n), model: model(), from_ms: 0, until_ms: 9, tries: 0 }
    }

    fn pot(answered_by: u8, class: Option<&str>, made_at_ms: i64) -> Pot {
        Pot {
            model: model(),
            stage: Stage::Ready(JobId(Uuid::from_u128(made_at_ms.unsigned_abs().into()))),
            class: class.map(ToOwned::to_owned),
            owners: BTreeSet::from([owner_of(&node(answered_by)).to_owned()]),
            given: 0,
            made_at_ms,
            samples: Samples::None,
        }
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let pot = id(7);
        for what in ["words", "answer:any", "answer:fp_0123456789ab", "to:0xab"] {
            assert_eq!(read_key(key_for(pot, what).as_str()), Some((pot, what)));
        }
        let longest = format!("to:{}", owner_of(&node(1)));
        assert_eq!(read_key(key_for(pot, &longest).as_str()), Some((pot, longest.as_str())));
        assert_eq!(read_key("audit:7:2:any"), None);
    }

    #[test]
    fn an_owner_gets_none_twice_and_not_what_it_answered() {
        let mut book = Book::default();
        book.pots.insert(id(1), pot(9, None, 10));
        book.pots.insert(id(2), pot(1, None, 5));
        assert_eq!(book.choose(&due(1), "", 4, 0), Some(id(1)), "not its own answer, though older");
        assert_eq!(book.choose(&due(3), "", 4, 0), Some(id(2)), "the oldest");
        let given = book.pots.get_mut(&id(1)).expect("there");
        given.owners.insert(owner_of(&node(1)).to_owned());
        given.given = 1;
        assert_eq!(book.choose(&due(1), "", 4, 0), None, "not twice");
        assert_eq!(book.choose(&due(3), "", 1, 5), None, "too old, or given often enough");
    }

    #[test]
    fn one_of_its_class_comes_first() {
        let mut book = Book::default();
        book.pots.insert(id(1), pot(9, None, 5));
        book.pots.insert(id(2), pot(9, Some("fp_a"), 10));
        assert_eq!(book.choose(&due(1), "fp_a", 4, 0), Some(id(2)));
        assert_eq!(book.choose(&due(1), "fp_b", 4, 0), Some(id(1)));
    }

    #[test]
    fn another_engine_gets_what_was_answered_several_times() {
        let mut book = Book::default();
        book.pots.insert(id(1), pot(9, None, 5));
        assert_eq!(book.choose(&due(1), "og_a", 4, 0), None, "one answer says nothing of its own");
        book.pots.insert(id(2), Pot { samples: Samples::NotNeeded, ..pot(9, None, 7) });
        assert_eq!(book.choose(&due(1), "og_a", 4, 0), Some(id(2)));
        let asked = Samples::Asked(vec![JobId(id(4))]);
        book.pots.insert(id(3), Pot { samples: asked, ..pot(9, None, 6) });
        assert_eq!(book.choose(&due(1), "og_a", 4, 0), Some(id(3)));
        assert_eq!(book.choose(&due(1), "fp_a", 4, 0), Some(id(1)), "others take any");
        let words = |texts| Stage::Words {
            job: JobId(id(5)),
            shape: Box::new(Shape::any()),
            not_owner: owner_of(&node(1)).to_owned(),
            texts,
        };
        book.pots = BTreeMap::from([(id(1), Pot { stage: words(1), ..pot(9, None, 5) })]);
        assert!(book.is_coming(&due(1), "fp_a") && !book.is_coming(&due(1), "og_a"));
        book.pots.insert(id(2), Pot { stage: words(8), ..pot(9, None, 5) });
        assert!(book.is_coming(&due(1), "og_a"));
    }

    #[test]
    fn its_audit_has_its_second_run() {
        let known = KnownAnswer { job: JobId(id(3)), class: Some("fp_a".into()) };
        assert_eq!(audit_of(&known, "fp_a".into()).known, Some((JobId(id(3)), true)));
        assert_eq!(audit_of(&known, "fp_b".into()).known, Some((JobId(id(3)), false)));
        let unknown = KnownAnswer { job: JobId(id(3)), class: None };
        assert_eq!(audit_of(&unknown, String::new()).known, Some((JobId(id(3)), false)));
    }
}
