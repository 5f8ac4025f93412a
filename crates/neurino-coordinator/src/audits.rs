//! Audits: results that are computed again by somebody else, and what follows.
//!
//! A result is drawn in the transaction that pays it, so that none is forgotten. From then on an audit
//! is a row in the books that steps forward here: a second run by another owner's node, compared; if
//! they differ a third one by a node that whoever runs the network trusts; then what it says of the
//! nodes. Every step is a conditional write and every job of an audit has an idempotency key, so a
//! coordinator that lost its power goes on where the books are.

mod claims;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use neurino_core::audit::rank::TextRank;
use neurino_core::audit::{AuditRules, Outcome, Record, TrustStage, draw};
use neurino_core::{
    IdempotencyKey, JobId, JobOutput, JobSpec, JobState, MicroPoints, ModelId, NodeId, TextJob,
};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::epoch_of;
use neurino_protocol::node::CoordinatorMessage;
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::compare::{self, Finding, Tolerance};
use crate::coordinator::{Coordinator, now_ms};
use crate::decoder::NoAnswer;
use crate::error::StoreError;
use crate::files::FilesReport;
use crate::honeypots::Honeypots;
use crate::jobs::short;
use crate::router::{JobClass, Placement, is_other_engine, owner_of, party_of};
use crate::state::State;
use crate::store::{
    AuditState, AuditWrite, AuditWritten, Mark, NewAudit, PictureMark, Ruling, Store, StoredAudit,
    StoredJob, TextMark,
};
use crate::terms::JobTerms;

pub(crate) use claims::GREEDY_BELOW;

/// Who asks for the jobs of audits.
pub const AUDIT_PAYER: &str = "network.audits";
/// Audits that are looked at in one round.
const ROUND: u32 = 64;
/// Leases whose pay is called back in one write.
const CLAW_BACK: u32 = 200;
/// Owners of a numeric class from which on results of it are compared bit by bit, by nodes of it.
const CLASS_OWNERS: usize = 3;
/// Share of second runs that are given to nodes whose word decides, in millionths.
const INDEPENDENT_PPM: u32 = 250_000;
/// Pictures that a new one is compared with.
const PICTURES: u32 = 16_384;
/// A result that came faster than the fastest node by this factor is looked at.
const TOO_FAST: f64 = 1.0 / 0.7;
/// Nodes' reports that are read at the same time, and how long one waits for that.
const TELLING: usize = 2;
const TELLING_WAIT: Duration = Duration::from_secs(2);
/// How long what the books say of a node is told again, and of how many nodes.
const TOLD_FOR: Duration = Duration::from_secs(2);
const TOLD_MAX: usize = 1_024;

/// What the audits keep in memory.
pub(crate) struct Audits {
    pub(crate) rules: AuditRules,
    pub(crate) tolerance: Tolerance,
    /// Jobs whose answer is known.
    pub(crate) honeypots: Honeypots,
    secret: [u8; 32],
    trust: RwLock<BTreeMap<NodeId, Record>>,
    /// Held from a read or write of records in the books until they are in `trust`, lest an older one
    /// comes after a newer one and stays.
    trust_order: tokio::sync::Mutex<()>,
    validators: RwLock<BTreeSet<NodeId>>,
    pictures: Mutex<VecDeque<Arc<PictureMark>>>,
    /// Whether there may be open audits: a coordinator that has none leaves its books alone.
    open: AtomicBool,
    /// Where the next round begins.
    cursor: Mutex<Option<JobId>>,
    /// Convicted owners, as [`party_of`] names them, whose earnings may not all be called back yet.
    calling_back: Mutex<BTreeSet<NodeId>>,
    /// Results that are checked at the same time.
    pub(crate) checking: Semaphore,
    /// What the books said of nodes that somebody asked for lately. Anybody may ask for any node, and
    /// settlement needs the same readers.
    told: Mutex<HashMap<NodeId, (Instant, Told)>>,
    telling: Semaphore,
}

/// What the books say of a node for its report: its audits, and its earnings in escrow.
type Told = (BTreeMap<AuditState, u64>, MicroPoints);

/// How closely a node is watched and what of its earnings is free, for its owner to read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrustReport {
    /// The node.
    pub node: NodeId,
    /// How closely it is watched.
    pub stage: TrustStage,
    /// Share of its results that are computed again, in millionths.
    pub audited_ppm: u32,
    /// Audits that held since the last one that did not.
    pub held: u32,
    /// How many more must hold before fewer results are computed again.
    pub to_hold: u32,
    /// Whether nobody of another owner could compute any of its results again.
    pub alone: bool,
    /// Its audits by state.
    pub audits: BTreeMap<AuditState, u64>,
    /// For how long earnings can be called back, in milliseconds.
    pub escrow_ms: i64,
    /// Earnings of that time, which can be called back, of both kinds.
    pub in_escrow_micro: MicroPoints,
    /// What it showed of its models' files, where it was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FilesReport>,
    /// What it says in words.
    pub words: String,
}

/// What the keys of all epochs are made of.
pub(crate) fn secret_of(key: &IdentityKey, network: &str) -> [u8; 32] {
    // Signatures are deterministic, so that it is the same after a restart.
    let signature = key.sign(&format!("neurino audits v1\nnetwork: {network}"));
    Sha256::digest(signature).into()
}

/// The key that draws the audits of an epoch. Published with the epoch's file, it shows that they were
/// drawn fairly, and nothing of other epochs.
pub(crate) fn key_of(secret: &[u8; 32], epoch: i64) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length fits");
    mac.update(b"week");
    mac.update(&epoch.to_be_bytes());
    mac.finalize().into_bytes().into()
}

/// The key that says which second runs go to nodes whose word decides.
fn independent(week: &[u8; 32]) -> [u8; 32] {
    derived(week, b"independent")
}

/// A key of the week for another draw.
pub(crate) fn derived(week: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(week).expect("a key of any length fits");
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audits {
    pub(crate) async fn read(
        store: &Store,
        key: &IdentityKey,
        network: &str,
        rules: AuditRules,
    ) -> Result<Self, StoreError> {
        let trust = store.trust().await?;
        let convicted = trust.iter().filter(|(_, record)| record.convicted);
        let calling_back = convicted.map(|(node, _)| node.clone()).collect();
        let marks = store.picture_marks(PICTURES).await?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            rules,
            tolerance: Tolerance::default(),
            honeypots: Honeypots::default(),
            secret: secret_of(key, network),
            trust: RwLock::new(trust),
            trust_order: tokio::sync::Mutex::default(),
            validators: RwLock::new(store.validators().await?),
            pictures: Mutex::new(marks.into_iter().map(Arc::new).collect()),
            open: AtomicBool::new(true),
            cursor: Mutex::default(),
            calling_back: Mutex::new(calling_back),
            checking: Semaphore::new(cores),
            told: Mutex::default(),
            telling: Semaphore::new(TELLING),
        })
    }

    /// Reads again what somebody changed beside the coordinator.
    pub(crate) async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let _order = self.trust_order.lock().await;
        let (trust, validators) = (store.trust().await?, store.validators().await?);
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
        *self.validators.write().unwrap_or_else(PoisonError::into_inner) = validators;
        self.wake();
        Ok(())
    }

    /// Takes a step of an audit down and remembers the records that it changed.
    async fn write(&self, store: &Store, write: AuditWrite) -> Result<AuditWritten, StoreError> {
        let _order = self.trust_order.lock().await;
        let written = store.audit(write).await?;
        let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        trust.extend(written.records.iter().map(|(node, record)| (node.clone(), *record)));
        drop(trust);
        Ok(written)
    }

    /// Has the next round look for open audits.
    pub(crate) fn wake(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// The key that draws the audits of an epoch.
    pub(crate) fn key_of(&self, epoch: i64) -> [u8; 32] {
        key_of(&self.secret, epoch)
    }

    /// A mark that tells nobody who has the books whether a guessed prompt or answer was sent.
    pub(crate) fn blinded(&self, mark: Mark) -> Mark {
        let blind = |what: &[u8], digest: &[u8; 32]| -> [u8; 32] {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of any length fits");
            mac.update(what);
            mac.update(digest);
            mac.finalize().into_bytes().into()
        };
        match mark {
            Mark::Text(mark) => Mark::Text(TextMark {
                answer: blind(b"answer", &mark.answer),
                prompt: blind(b"prompt", &mark.prompt),
                ..mark
            }),
            picture @ Mark::Picture(_) => picture,
        }
    }

    /// What is known of a node's owner: all machines of one address have one record.
    pub(crate) fn record(&self, node: &NodeId) -> Record {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        trust.get(&party_of(node)).copied().unwrap_or_default()
    }

    /// Whether results of a node's owner were audited before.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        let trust = self.trust.read().unwrap_or_else(PoisonError::into_inner);
        trust.contains_key(&party_of(node))
    }

    /// Whether a result is computed again.
    pub(crate) fn drawn(
        &self,
        node: &NodeId,
        job: JobId,
        at_ms: i64,
        class: String,
        probation: bool,
        suspicion: Option<&'static str>,
    ) -> Option<NewAudit> {
        let rate_ppm = self.record(node).rate_ppm(&self.rules, probation);
        let drawn = suspicion.is_some() || draw(&self.key_of(epoch_of(at_ms)), job, rate_ppm);
        drawn.then_some(NewAudit { class, rate_ppm, suspicion, known: None })
    }

    /// Pictures that were paid lately, to be compared with a new one.
    pub(crate) fn pictures(&self) -> Vec<Arc<PictureMark>> {
        lock(&self.pictures).iter().cloned().collect()
    }

    pub(crate) fn remember(&self, mark: PictureMark) {
        let mut pictures = lock(&self.pictures);
        if pictures.len() >= PICTURES as usize {
            pictures.pop_front();
        }
        pictures.push_back(Arc::new(mark));
    }

    /// Whether whoever runs the network trusts a node's word.
    pub(crate) fn is_validator(&self, node: &NodeId) -> bool {
        self.validators.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// Whether a node's owner is past its first audits, or trusted by whoever runs the network.
    pub(crate) fn is_past_first(&self, node: &NodeId) -> bool {
        let record = self.record(node);
        let is_trusted = record.cleared || record.held >= self.rules.first;
        is_trusted && !record.apart || self.is_validator(node)
    }

    pub(crate) fn validators(&self) -> Vec<NodeId> {
        let validators = self.validators.read().unwrap_or_else(PoisonError::into_inner);
        validators.iter().cloned().collect()
    }
}

/// How two results' makers are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kin {
    /// Program and device are the same.
    Alike,
    /// They are not.
    Apart,
    /// One of them is another engine.
    OtherEngine,
}

impl Kin {
    /// The audited node and one that may be of its class. No other engine computes a text again that
    /// is not of its own class.
    fn of(audit: &StoredAudit, same_class: bool) -> Self {
        match (is_other_engine(&audit.class), same_class) {
            // What such a node says of itself is not signed, so it makes no pixels equal either.
            (true, _) => Self::OtherEngine,
            (false, true) => Self::Alike,
            (false, false) => Self::Apart,
        }
    }

    /// The two that computed it again. Of two that are not of the audited one's class nobody knows
    /// whether they are of one.
    fn of_auditors(audit: &StoredAudit) -> Self {
        let other = is_other_engine(&audit.class) && (audit.second_class || audit.third_class);
        match (other, audit.second_class && audit.third_class) {
            (true, _) => Self::OtherEngine,
            (false, true) => Self::Alike,
            (false, false) => Self::Apart,
        }
    }
}

/// What becomes of an audit in one step.
enum Step {
    /// Nothing yet.
    Wait,
    Write(AuditWrite),
    /// As above, and a job of it is of no use any more.
    WriteAndCancel(AuditWrite, JobId),
}

impl Coordinator {
    /// Why a node gets no work, if it was convicted.
    pub(crate) fn check_trust(&self, node: &NodeId) -> Result<(), ErrorBody> {
        if !self.audits.record(node).convicted {
            return Ok(());
        }
        let message = "results of this node's owner did not hold when others computed them again";
        Err(ErrorBody::new(ErrorCode::Forbidden, message)
            .with_hint("if that is wrong, appeal to whoever runs the network"))
    }

    /// Whether a result came faster than any node of the network makes it.
    pub(crate) fn is_too_fast(&self, model: &ModelId, units: u64, duration_ms: u64) -> bool {
        let fastest = self.state().router.fastest(model);
        let speed = units as f64 * 1000.0 / duration_ms.max(1) as f64;
        fastest.is_some_and(|fastest| speed > fastest * TOO_FAST)
    }

    /// Takes every open audit a step further, some at a time. Faults of the books are left for the
    /// next round.
    pub(crate) async fn sweep_audits(self: &Arc<Self>) {
        // Taken before the look, so that one that is drawn meanwhile is not overlooked.
        if !self.audits.open.swap(false, Ordering::AcqRel) {
            return self.call_back().await;
        }
        let after = *lock(&self.audits.cursor);
        let open = match self.store.open_audits(after, ROUND).await {
            Ok(open) => open,
            Err(error) => {
                self.audits.wake();
                tracing::warn!(?error, "open audits could not be read: {error}");
                return;
            }
        };
        let more = open.len() == ROUND as usize;
        // A round that began in the middle has not seen them all.
        if !open.is_empty() || after.is_some() {
            self.audits.wake();
        }
        *lock(&self.audits.cursor) = open.last().filter(|_| more).map(|audit| audit.job);
        for audit in open {
            if self.stop.is_cancelled() {
                return;
            }
            if let Err(error) = self.step_audit(&audit).await {
                tracing::warn!(?error, job.id = %audit.job, "an audit waits: {error}");
            }
        }
        self.call_back().await;
    }

    async fn step_audit(self: &Arc<Self>, audit: &StoredAudit) -> Result<(), StoreError> {
        let step = match audit.state {
            AuditState::Waiting => self.begin_second(audit).await?,
            AuditState::Second => self.after_second(audit).await?,
            AuditState::Third if audit.third.is_none() => self.begin_third(audit).await?,
            AuditState::Third => self.after_third(audit).await?,
            _ => Step::Wait,
        };
        let (write, cancel) = match step {
            Step::Wait => return Ok(()),
            Step::Write(write) => (write, None),
            Step::WriteAndCancel(write, job) => (write, Some(job)),
        };
        let written = self.audits.write(&self.store, write.clone()).await?;
        if let AuditWrite::Decide { to, .. } = &write
            && written.changed == 1
        {
            self.metrics.audited(*to);
            tracing::info!(
                job.id = %audit.job, state = to.as_str(),
                "the audit of {}'s result ended: {}", short(&audit.node), to.as_str(),
            );
        }
        for party in &written.apart {
            tracing::warn!(
                "{} draws its texts otherwise than the network's own engine: other weights, another \
                 template or other settings",
                short(party),
            );
        }
        for node in &written.convicted {
            self.expel(node);
        }
        if let Some(job) = cancel {
            // One that ended meanwhile was paid; that is its node's due.
            if let Err(error) = self.cancel_job(job).await {
                tracing::debug!(job.id = %job, %error, "an auditor's job was not withdrawn");
            }
        }
        Ok(())
    }

    /// Whether an audit has waited long enough.
    fn is_overdue(&self, since_ms: i64) -> bool {
        now_ms().saturating_sub(since_ms) > self.config.limits.audit_wait_ms.cast_signed()
    }

    fn decided(
        &self,
        audit: &StoredAudit,
        to: AuditState,
        finding: Option<Finding>,
        rulings: Vec<Ruling>,
    ) -> AuditWrite {
        AuditWrite::Decide {
            job: audit.job,
            from: audit.state,
            to,
            finding,
            auditor: None,
            validator: None,
            rulings,
            rules: self.audits.rules.clone(),
            at_ms: now_ms(),
        }
    }

    /// Whether a numeric class is more than a name that somebody made up for a few machines of one's own: a
    /// node says itself of which it is. So it is one where several owners are of it, or where whoever runs
    /// the network named somebody who is.
    pub(crate) fn is_known_class(&self, state: &State, class: &str) -> bool {
        let is_of = |node: &NodeId| {
            let session = state.sessions.get(node);
            session.is_some_and(|session| session.fingerprint == class)
                || state.router.classes(node).any(|own| own == class)
        };
        state.router.owners_of_class(class) >= CLASS_OWNERS
            || self.audits.validators().iter().any(is_of)
    }

    /// Who computes an audited job again in the second run. Some of them, which nobody can tell before, go
    /// to those whom whoever runs the network trusts: else an owner of several keys might see to it that
    /// they only ever check each other.
    fn second_placement(&self, audit: &StoredAudit, spec: &JobSpec) -> Option<(Placement, bool)> {
        let week = self.audits.key_of(epoch_of(audit.drawn_at_ms));
        let validators = self.audits.validators();
        if !validators.is_empty()
            && draw(&independent(&week), audit.job, INDEPENDENT_PPM)
            && let Some(placed) = self.placement(audit, spec, Some(validators))
        {
            return Some(placed);
        }
        self.placement(audit, spec, None)
    }

    /// Where a node may compute an audited job again; whether it is of the same class. None if nobody
    /// is connected who may.
    fn placement(
        &self,
        audit: &StoredAudit,
        spec: &JobSpec,
        only: Option<Vec<NodeId>>,
    ) -> Option<(Placement, bool)> {
        // A validator that was accused may answer for itself: its word is the one that counts.
        let own_word = only.as_ref().is_some_and(|only| only.contains(&audit.node));
        let owner = (!own_word).then(|| owner_of(&audit.node).to_owned());
        let not_owners: Vec<String> = owner.into_iter().collect();
        // Another engine's text could neither confirm nor refute one of ours.
        let own_engine = matches!(spec, JobSpec::Text(_));
        let any =
            Placement { not_owners, class: None, only, own_engine, scores: false, known: None };
        let state = self.state();
        if !state.router.serves_placed(spec.model(), &any) {
            return None;
        }
        // Keys cost nothing, and lines do: who has several keys has them on one line. Among friends in one
        // house there may be nobody else, and an owner of another key is better than none.
        let near =
            if any.only.is_none() { state.neighbours_of(&audit.node) } else { BTreeSet::new() };
        if !near.is_empty() {
            let not_owners = any.not_owners.iter().cloned().chain(near).collect();
            let far = Placement { not_owners, ..any.clone() };
            if let Some(placed) = self.placed(&state, audit, spec.model(), far) {
                return Some(placed);
            }
        }
        self.placed(&state, audit, spec.model(), any)
    }

    /// The best of the ways to have an audited job computed again by some of the nodes that may.
    fn placed(
        &self,
        state: &State,
        audit: &StoredAudit,
        model: &ModelId,
        any: Placement,
    ) -> Option<(Placement, bool)> {
        // What another engine's miner says of its machine is not signed: two that say the same may be one
        // cheat's, so a node of ours is asked first for a text.
        let ours_first = any.own_engine && is_other_engine(&audit.class);
        if ours_first && state.router.serves_placed(model, &any) {
            return Some((any, false));
        }
        if !audit.class.is_empty() && self.is_known_class(state, &audit.class) {
            let class = Some(audit.class.clone());
            let alike = Placement { class, own_engine: false, ..any.clone() };
            if state.router.serves_placed(model, &alike) {
                return Some((alike, true));
            }
        }
        state.router.serves_placed(model, &any).then_some((any, false))
    }

    /// Has an audited job computed again; none if it cannot be at this moment.
    async fn ask_again(
        self: &Arc<Self>,
        audit: &StoredAudit,
        spec: JobSpec,
        run: &str,
        placement: Placement,
    ) -> Option<JobId> {
        let payer = PayerId::new(AUDIT_PAYER).expect("a valid name");
        // Another placement is another job: what the books have of a class must be so.
        let kind = if placement.class.is_some() { "alike" } else { "any" };
        let key = IdempotencyKey::new(format!("audit:{}:{run}:{kind}", audit.job));
        let terms = JobTerms {
            class: JobClass::Audit,
            no_node_wait_ms: Some(self.config.limits.audit_wait_ms),
            ..JobTerms::default()
        };
        let asked =
            self.submit_placed(payer, Some(key.expect("valid")), spec, terms, Some(placement));
        match asked.await {
            Ok(job) => Some(job),
            Err(error) => {
                tracing::debug!(job.id = %audit.job, %error, "an audit's job was not accepted");
                None
            }
        }
    }

    async fn begin_second(self: &Arc<Self>, audit: &StoredAudit) -> Result<Step, StoreError> {
        if self.is_overdue(audit.drawn_at_ms) {
            let to = AuditState::NoIndependentAuditor;
            return Ok(Step::Write(self.decided(audit, to, None, nothing_said(audit))));
        }
        let Some(spec) = self.store.spec(audit.job).await? else {
            return Ok(Step::Write(self.decided(audit, AuditState::Unresolved, None, vec![])));
        };
        let Some((placement, same_class)) = self.second_placement(audit, &spec) else {
            return Ok(Step::Wait);
        };
        // Of one class, results are equal to the last bit, which says more than scores.
        let scorer =
            if same_class { None } else { self.blind_claim(audit, &spec, &placement).await? };
        let asked = match scorer {
            Some((claim, scorer)) => self.ask_again(audit, claim, "2s", scorer).await,
            None => self.ask_again(audit, again(spec), "2", placement).await,
        };
        let Some(second) = asked else { return Ok(Step::Wait) };
        Ok(Step::Write(AuditWrite::Second { job: audit.job, second, same_class, at_ms: now_ms() }))
    }

    async fn after_second(self: &Arc<Self>, audit: &StoredAudit) -> Result<Step, StoreError> {
        let unresolved = || Step::Write(self.decided(audit, AuditState::Unresolved, None, vec![]));
        let Some(id) = audit.second else { return Ok(unresolved()) };
        let Some(second) = self.kept(id).await? else { return Ok(unresolved()) };
        if !second.state.is_terminal() {
            if !self.is_overdue(audit.changed_at_ms) {
                return Ok(Step::Wait);
            }
            // Whoever could have is gone.
            let to = AuditState::NoIndependentAuditor;
            let write = self.decided(audit, to, None, nothing_said(audit));
            return Ok(Step::WriteAndCancel(write, id));
        }
        let Some(auditor) = node_of(&second) else { return Ok(unresolved()) };
        let finding = match self.scored(audit, id).await? {
            None => self.compared(audit.job, id, Kin::of(audit, audit.second_class)).await?,
            scored => scored,
        };
        let Some(finding) = finding else { return Ok(unresolved()) };
        if let Finding::Unclear { .. } = &finding
            && let Some(step) = self.after_nothing(audit, id, &auditor, &finding).await?
        {
            return Ok(step);
        }
        let (to, outcome) = match &finding {
            Finding::Same | Finding::Close { .. } => (AuditState::Held, Some(Outcome::Held)),
            Finding::Unclear { .. } => (AuditState::Unresolved, Some(Outcome::Unclear)),
            Finding::Differs { .. } => {
                return Ok(Step::Write(AuditWrite::Disputed {
                    job: audit.job,
                    auditor,
                    finding,
                    at_ms: now_ms(),
                }));
            }
        };
        let mut ruling = outcome.map(|outcome| Ruling::new(audit.node.clone(), outcome));
        let mut finding = finding;
        if let (Some(ruling), Finding::Unclear { figures }) = (&mut ruling, &mut finding) {
            ruling.rank = self.rank_of_text(audit, id).await?;
            figures.rank = ruling.rank.map(TextRank::share);
        }
        let mut rulings: Vec<Ruling> = ruling.into_iter().collect();
        // Two that agree by guessing would have to guess the same.
        if to == AuditState::Held && !self.audits.is_validator(&auditor) {
            rulings.push(Ruling::of_word(auditor.clone(), Outcome::Held));
        }
        let mut write = self.decided(audit, to, Some(finding), rulings);
        if let AuditWrite::Decide { auditor: by, .. } = &mut write {
            *by = Some(auditor);
        }
        Ok(Step::Write(write))
    }

    /// The third run of an audit, for some of those whose word counts; none if none of them can compute it
    /// at this moment.
    async fn third_run(
        &self,
        audit: &StoredAudit,
        spec: &JobSpec,
        second: JobId,
        judges: Vec<NodeId>,
    ) -> Result<Option<(JobSpec, &'static str, Placement, bool)>, StoreError> {
        // Scores answer scores, and what another text said nothing of.
        let said_nothing = matches!(audit.finding, Some(Finding::Unclear { .. }));
        let by_scores = said_nothing || self.scores(second).await?;
        let claim =
            if by_scores { self.open_claim(audit, spec, judges.clone()).await? } else { None };
        Ok(match claim {
            Some((claim, scorer)) => Some((claim, "3s", scorer, false)),
            None if said_nothing => None,
            None => {
                let placed = self.placement(audit, spec, Some(judges));
                placed.map(|(placement, alike)| (again(spec.clone()), "3", placement, alike))
            }
        })
    }

    async fn begin_third(self: &Arc<Self>, audit: &StoredAudit) -> Result<Step, StoreError> {
        let validators = self.audits.validators();
        let spec = self.store.spec(audit.job).await?;
        let (false, Some(spec), Some(second)) = (validators.is_empty(), spec, audit.second) else {
            return Ok(Step::Write(self.undecided(audit)));
        };
        // Who gave the second decides only where nobody else can: what is broken in a machine is broken twice.
        let others = other_judges(audit, &validators);
        let mut placed = None;
        for judges in others.into_iter().chain([validators]) {
            placed = self.third_run(audit, &spec, second, judges).await?;
            if placed.is_some() {
                break;
            }
        }
        let Some((asked, run, placement, same_class)) = placed else {
            if !self.is_overdue(audit.changed_at_ms) {
                return Ok(Step::Wait);
            }
            return Ok(Step::Write(self.undecided(audit)));
        };
        let Some(third) = self.ask_again(audit, asked, run, placement).await else {
            return Ok(if self.is_overdue(audit.changed_at_ms) {
                Step::Write(self.undecided(audit))
            } else {
                Step::Wait
            });
        };
        Ok(Step::Write(AuditWrite::Third { job: audit.job, third, same_class, at_ms: now_ms() }))
    }

    async fn after_third(self: &Arc<Self>, audit: &StoredAudit) -> Result<Step, StoreError> {
        let unresolved = || self.undecided(audit);
        let (Some(second), Some(third)) = (audit.second, audit.third) else {
            return Ok(Step::Write(unresolved()));
        };
        let Some(ended) = self.kept(third).await? else {
            return Ok(Step::Write(unresolved()));
        };
        if !ended.state.is_terminal() {
            let overdue = self.is_overdue(audit.changed_at_ms);
            return Ok(if overdue {
                Step::WriteAndCancel(unresolved(), third)
            } else {
                Step::Wait
            });
        }
        let Some(validator) = node_of(&ended) else { return Ok(Step::Write(unresolved())) };
        if audit.auditor.as_ref().is_some_and(|auditor| owner_of(auditor) == owner_of(&validator)) {
            tracing::warn!(
                job.id = %audit.job,
                "{} decides what it has computed before: no other validator could", short(&validator),
            );
        }
        let finding = match self.scored(audit, third).await? {
            None => self.compared(audit.job, third, Kin::of(audit, audit.third_class)).await?,
            scored => scored,
        };
        let Some(finding) = finding else { return Ok(Step::Write(unresolved())) };
        let false_alarm = match [self.scores(second).await?, self.scores(third).await?] {
            [true, _] => self.accused_wrongly(audit, second, &finding).await?,
            // Nobody looked at the second text again.
            [false, true] => false,
            [false, false] => {
                let Some(apart) = self.of_auditors(audit, second, third).await? else {
                    return Ok(Step::Write(unresolved()));
                };
                matches!(apart, Finding::Differs { .. })
            }
        };
        let mut rulings = Vec::new();
        let to = match &finding {
            Finding::Same | Finding::Close { .. } => {
                rulings.push(Ruling::new(audit.node.clone(), Outcome::Held));
                AuditState::Held
            }
            Finding::Differs { .. } => {
                rulings.push(Ruling::new(audit.node.clone(), Outcome::Failed));
                AuditState::Failed
            }
            Finding::Unclear { .. } => {
                let pooled = claims::pooled(&finding, &self.audits.rules.margins);
                let ruling = Ruling::new(audit.node.clone(), Outcome::Unclear);
                rulings.push(Ruling { pooled, ..ruling });
                AuditState::Unresolved
            }
        };
        // Whoever accused wrongly lost the third run, too, and whoever did rightly told the truth.
        if let Some(auditor) = audit.auditor.clone().filter(|auditor| *auditor != validator) {
            if false_alarm {
                rulings.push(Ruling::of_word(auditor, Outcome::Failed));
            } else if matches!(finding, Finding::Differs { .. })
                && !matches!(audit.finding, Some(Finding::Unclear { .. }))
            {
                rulings.push(Ruling::of_word(auditor, Outcome::Held));
            }
        }
        let mut write = self.decided(audit, to, Some(finding), rulings);
        if let AuditWrite::Decide { validator: by, .. } = &mut write {
            *by = Some(validator);
        }
        Ok(Step::Write(write))
    }

    /// A job as the books keep it; none if it is not there any more, or cannot be read. A picture whose file
    /// is gone or damaged is nobody's fault, and an audit that waited for it would wait for ever.
    async fn kept(&self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        match self.store.job(id).await {
            Err(
                error @ (StoreError::Picture(_)
                | StoreError::Unreadable { .. }
                | StoreError::Sealed { .. }),
            ) => {
                tracing::debug!(job.id = %id, %error, "an audited job cannot be read");
                Ok(None)
            }
            kept => kept,
        }
    }

    /// The result of a job; none if it is not there any more.
    pub(crate) async fn output_of(&self, id: JobId) -> Result<Option<JobOutput>, StoreError> {
        let job = self.kept(id).await;
        job.map(|job| job.and_then(|job| job.output))
    }

    /// Compares the results of two jobs that ask for the same; none if one is not there any more.
    async fn compared(
        &self,
        first: JobId,
        second: JobId,
        kin: Kin,
    ) -> Result<Option<Finding>, StoreError> {
        let (a, b) = (self.output_of(first).await?, self.output_of(second).await?);
        let spec = self.store.spec(first).await?;
        let (Some(spec), Some(a), Some(b)) = (spec, a, b) else { return Ok(None) };
        let tolerance = self.audits.tolerance;
        let (a, b) = match (a, b) {
            (JobOutput::Image(a), JobOutput::Image(b)) => {
                let found = self.decoder.compare(a, b, kin == Kin::Alike, tolerance).await;
                return match found {
                    Ok(found) => Ok(found.ok()),
                    Err(NoAnswer::Broke) => Ok(None),
                    // Nobody's fault: the audit waits.
                    Err(NoAnswer::Unavailable) => Err(StoreError::PicturesUnread),
                };
            }
            texts => texts,
        };
        let Ok(_room) = self.audits.checking.acquire().await else { return Ok(None) };
        let compared = tokio::task::spawn_blocking(move || match (&a, &b, &spec) {
            (JobOutput::Text(a), JobOutput::Text(b), JobSpec::Text(job)) => Some(match kin {
                Kin::OtherEngine => compare::texts_of_engines(a, b, job),
                Kin::Alike => compare::texts(a, b, job, true, &tolerance),
                Kin::Apart => compare::texts(a, b, job, false, &tolerance),
            }),
            _ => None,
        });
        Ok(compared.await.unwrap_or_else(|error| {
            tracing::error!(%error, "two results could not be compared");
            None
        }))
    }

    /// Ends the work of all nodes of a convicted owner.
    fn expel(&self, party: &NodeId) {
        tracing::warn!("{} was convicted: results did not hold", short(party));
        lock(&self.audits.calling_back).insert(party.clone());
        let mut state = self.state();
        let nodes = state.sessions.keys().filter(|node| owner_of(node) == party.as_str());
        for node in nodes.cloned().collect::<Vec<_>>() {
            if let Err(error) = self.check_trust(&node) {
                state.send(&node, CoordinatorMessage::Bye(error));
            }
            state.router.remove_node(&node);
            if let Some(session) = state.sessions.get(&node) {
                session.end.cancel();
            }
        }
    }

    /// Whether a node of an owner still holds a lease.
    fn is_busy(&self, party: &NodeId) -> bool {
        self.state().node_leases.keys().any(|node| owner_of(node) == party.as_str())
    }

    /// Calls back what convicted nodes earned within the escrow time.
    async fn call_back(self: &Arc<Self>) {
        let nodes: Vec<NodeId> = lock(&self.audits.calling_back).iter().cloned().collect();
        for node in nodes {
            let write =
                AuditWrite::ClawBack { node: node.clone(), most: CLAW_BACK, at_ms: now_ms() };
            match self.store.audit(write).await {
                // A result that was being paid when it was convicted comes a moment later.
                Ok(written) if written.changed == 0 && !self.is_busy(&node) => {
                    lock(&self.audits.calling_back).remove(&node);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(?error, "earnings could not be called back yet: {error}");
                }
            }
        }
    }

    /// How closely a node is watched, and what of its earnings can be called back.
    ///
    /// # Errors
    /// `Internal`, `Unreachable` (many are asking).
    pub async fn trust_report(&self, node: &NodeId) -> Result<TrustReport, ErrorBody> {
        let rules = &self.audits.rules;
        let record = self.audits.record(node);
        let probation = self.state().sessions.get(node).is_some_and(|s| s.original);
        let (audits, in_escrow_micro) = self.told(node).await?;
        let stage = record.stage(rules, probation);
        let unclear = record.held < rules.first;
        let alone = audits.get(&AuditState::NoIndependentAuditor).is_some_and(|count| *count > 0)
            && !audits.contains_key(&AuditState::Held);
        let to_hold = rules.first.saturating_sub(record.held);
        let words = match stage {
            TrustStage::Convicted => {
                "results of its owner did not hold; it gets no work".to_owned()
            }
            _ if record.apart => {
                "watched: its texts are drawn otherwise than the network's own, as of other weights, \
                 another template or other settings"
                    .to_owned()
            }
            _ if alone => "no independent auditor: nobody else serves its models".to_owned(),
            TrustStage::New => format!("new: all results are checked until {to_hold} have held"),
            TrustStage::Watched if unclear => {
                "watched: other machines cannot tell whether its results hold".to_owned()
            }
            TrustStage::Watched => "watched: some of its results are checked".to_owned(),
            TrustStage::Established => "established: few of its results are checked".to_owned(),
        };
        Ok(TrustReport {
            node: node.clone(),
            stage,
            audited_ppm: record.rate_ppm(rules, probation),
            held: record.held,
            to_hold,
            alone,
            audits,
            escrow_ms: rules.escrow_ms,
            in_escrow_micro,
            files: self.files.report(node),
            words,
        })
    }
}

impl Coordinator {
    /// What the books say of a node; a moment old if somebody asked just now.
    async fn told(&self, node: &NodeId) -> Result<Told, ErrorBody> {
        let lately = || {
            let told = lock(&self.audits.told);
            let told = told.get(node).filter(|(at, _)| at.elapsed() < TOLD_FOR);
            told.map(|(_, told)| told.clone())
        };
        if let Some(told) = lately() {
            return Ok(told);
        }
        let turn = tokio::time::timeout(TELLING_WAIT, self.audits.telling.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let busy =
                ErrorBody::new(ErrorCode::Unreachable, "many are asking for nodes right now");
            return Err(busy.with_hint("try again in a few seconds"));
        };
        // Somebody who asked for the same node may have been before.
        if let Some(told) = lately() {
            return Ok(told);
        }
        let audits = self.store.audit_counts(node).await.map_err(|e| e.body())?;
        let since_ms = now_ms().saturating_sub(self.audits.rules.escrow_ms);
        let earned = self.store.points(node, since_ms).await.map_err(|e| e.body())?;
        let earned = earned.llama_today.checked_add(earned.waifu_today);
        let told = (audits, earned.unwrap_or(MicroPoints(i64::MAX)));
        let mut all = lock(&self.audits.told);
        if all.len() >= TOLD_MAX {
            all.retain(|_, (at, _)| at.elapsed() < TOLD_FOR);
        }
        if all.len() < TOLD_MAX {
            all.insert(node.clone(), (Instant::now(), told.clone()));
        }
        Ok(told)
    }
}

/// Those whose word decides, without the owner of whoever gave the second run; none if that leaves nobody
/// but the audited node's owner.
fn other_judges(audit: &StoredAudit, validators: &[NodeId]) -> Option<Vec<NodeId>> {
    let auditor = owner_of(audit.auditor.as_ref()?);
    let others = validators.iter().filter(|node| owner_of(node) != auditor).cloned();
    let others: Vec<NodeId> = others.collect();
    let mut owners = others.iter().map(owner_of);
    owners.any(|owner| owner != owner_of(&audit.node)).then_some(others)
}

/// That nobody could tell is written down, and changes no record.
fn nothing_said(audit: &StoredAudit) -> Vec<Ruling> {
    vec![Ruling::new(audit.node.clone(), Outcome::NoIndependentAuditor)]
}

/// Who was paid for a job that succeeded.
pub(crate) fn node_of(job: &StoredJob) -> Option<NodeId> {
    let receipt = job.receipt.as_ref().filter(|_| job.state == JobState::Succeeded)?;
    Some(receipt.node.clone())
}

/// The job that computes another one again: the same work, with log-probabilities where they fit, which
/// say how close two texts were where they part.
pub(crate) fn again(spec: JobSpec) -> JobSpec {
    /// Rivals of each token; more would make a long answer's result large.
    const RIVALS: u32 = 5;
    match spec {
        JobSpec::Text(mut job) => {
            let tokens = job.choices.saturating_mul(job.max_tokens).max(1);
            let fits = (TextJob::LOGPROBS_LIMIT / tokens).saturating_sub(1).min(RIVALS);
            if job.logprobs.is_none() && fits > 0 {
                job.logprobs = Some(fits);
            }
            JobSpec::Text(job)
        }
        JobSpec::Image(mut job) => {
            job.preview = false;
            JobSpec::Image(job)
        }
    }
}

#[cfg(test)]
mod tests;
