//! Miners that speak the network's original protocol: who they are, what they hold, who may sign for
//! them. The HTTP side is `edge/original`.
//!
//! Such a miner is a node like any other once it has a lease; what differs is how it comes and goes.
//! It has no link: it asks for work by polling, so it takes part in the matching only while a poll
//! is being answered, and it is gone when it has not polled for a while. Its id names the address
//! that is paid; the key that signs for it is another one, bound to that address by its first paid
//! result.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use neurino_core::{
    ImageDefaults, ImageJob, JobId, JobKind, JobSpec, Lease, LeaseId, ModelId, NodeId, TextDelta,
};
use neurino_protocol::node::CoordinatorMessage;
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::{IdentityKey, verify};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, MissedTickBehavior};

use crate::coordinator::Coordinator;
use crate::session::{NodeSession, Outbox};
use crate::state::{LeasePhase, Makes, State};
use crate::uploads::Uploads;
use crate::watch::FeedLimits;

/// Time the original miner leaves itself for a picture, in milliseconds; later results earn nothing.
pub(crate) const IMAGE_BUDGET_MS: u64 = 18_000;
/// The same for a text.
pub(crate) const TEXT_BUDGET_MS: u64 = 180_000;
/// Texts that one miner may have in work: four processes, and one that was restarted.
const TEXTS_MAX: u32 = 5;
/// Pictures that one miner may have in work.
const IMAGES_MAX: u32 = 1;
/// Longest wait of a poll for a lease that is being written.
const GRANT_WAIT: Duration = Duration::from_secs(5);
/// How often miners that went away are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Silence after which a miner that holds no lease is gone. It polls every two seconds.
const GONE: Duration = Duration::from_mins(1);
/// Most miners that may share one reward address.
const PER_REWARD_MAX: usize = 64;
/// Models that nobody lists of which nodes may tell, all of them together.
pub(crate) const OFFERED_MAX: usize = 1024;
/// How long what jobs wait for is told again.
const ASKED_FOR: Duration = Duration::from_secs(1);
/// Longest tag behind the address of a miner's id.
const TAG_MAX: usize = 32;

/// All miners of the original protocol.
pub(crate) struct Miners {
    table: Mutex<HashMap<NodeId, Arc<Miner>>>,
    /// Reward address to the address of the key that signs for it. A copy of the books.
    bound: Mutex<HashMap<String, String>>,
    /// Held from a read or write of bindings in the books until they are in `bound`.
    pub(crate) binding: tokio::sync::Mutex<()>,
    pub(crate) uploads: Uploads,
    /// Leases whose answer will come as a stream that has not begun.
    streams: Mutex<HashSet<LeaseId>>,
    /// Makes credentials for uploads.
    pub(crate) key: [u8; 32],
    /// What jobs waited for when it was looked at last.
    asked_for: Mutex<Option<(Instant, Arc<AskedFor>)>>,
}

/// Waiting jobs by model and whether they are pictures.
type AskedFor = HashMap<(ModelId, bool), Asked>;

/// Waiting jobs of one model and kind.
#[derive(Default)]
struct Asked {
    all: usize,
    /// How many of them each node has tried.
    tried: HashMap<NodeId, usize>,
}

impl fmt::Debug for Miners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Miners")
    }
}

/// One of them.
pub(crate) struct Miner {
    session: NodeSession,
    outbox: tokio::sync::Mutex<Outbox>,
    facts: Mutex<Facts>,
}

/// What a miner said of itself, none of it checked.
struct Facts {
    polled: Instant,
    /// What it makes, told by its version's name.
    images: Option<bool>,
    model: ModelId,
}

/// A poll, checked.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    pub(crate) node: NodeId,
    pub(crate) model: ModelId,
    /// The job must leave so many milliseconds.
    pub(crate) min_budget_ms: u64,
    /// For example `sd-v1.4.0`.
    pub(crate) version: Option<String>,
    pub(crate) hardware: Option<String>,
    /// The address that it came from, if over a network.
    pub(crate) from: Option<IpAddr>,
}

/// The answer to a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    Job(Box<Lease>),
    Nothing,
    /// Words for the person.
    Warning(String),
}

impl Miners {
    pub(crate) fn new(bound: HashMap<String, String>, key: &IdentityKey, network: &str) -> Self {
        let signature = key.sign(&format!("neurino upload credentials v1\nnetwork: {network}"));
        Self {
            table: Mutex::default(),
            bound: Mutex::new(bound),
            binding: tokio::sync::Mutex::default(),
            uploads: Uploads::default(),
            streams: Mutex::default(),
            key: Sha256::digest(signature).into(),
            asked_for: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Miner>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashSet<LeaseId>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody proved to hold the key behind a miner's reward address.
    pub(crate) fn is_bound(&self, node: &NodeId) -> bool {
        self.bound().contains_key(reward_of(node))
    }

    /// Checks who signed: the identity key of the miner's reward address, within this hour or the
    /// one before.
    ///
    /// # Errors
    /// `BadSignature`, `Unauthorized` (another key is bound to the address).
    pub(crate) fn check_identity(
        &self,
        node: &NodeId,
        identity: &str,
        signature: &str,
        now_secs: i64,
    ) -> Result<(), ErrorBody> {
        let reward = reward_of(node);
        if self.bound().get(reward).is_some_and(|bound| bound != identity) {
            let message = "another identity wallet is bound to this reward wallet";
            return Err(ErrorBody::new(ErrorCode::Unauthorized, message)
                .with_hint("sign with that one, or mine for another reward wallet"));
        }
        // Some versions of the library that miners sign with leave the prefix out.
        let signature = if signature.starts_with("0x") {
            signature.to_owned()
        } else {
            format!("0x{signature}")
        };
        let hour = now_secs - now_secs.rem_euclid(3600);
        let genuine = [hour, hour - 3600]
            .iter()
            .any(|hour| verify(&format!("{reward}-{hour}"), &signature, identity).is_ok());
        if genuine {
            return Ok(());
        }
        let message = "the signature is not the identity wallet's over this hour or the one before";
        Err(ErrorBody::new(ErrorCode::BadSignature, message)
            .with_hint("check the computer's clock and that the key file belongs to this wallet"))
    }

    /// Takes what the books have of bindings, after whoever runs the network changed them.
    pub(crate) fn rebind(&self, bound: HashMap<String, String>) {
        *self.bound() = bound;
    }

    /// Remembers whose key signs for a reward address; the books have it already.
    pub(crate) fn bind(&self, reward: &str, identity: &str) {
        self.bound().entry(reward.to_owned()).or_insert_with(|| identity.to_owned());
    }
}

/// Whether a miner of a version makes pictures, or texts.
fn kind_of(version: &str) -> Option<bool> {
    match version.split('-').next() {
        Some("sd") => Some(true),
        Some("llm") => Some(false),
        _ => None,
    }
}

/// The reward address that a miner's id begins with.
pub(crate) fn reward_of(node: &NodeId) -> &str {
    node.as_str().split('-').next().unwrap_or_default()
}

/// Reads a miner's id: an address, then nothing or `-` and a tag. Capitals do not matter.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn miner_id(text: &str) -> Result<NodeId, ErrorBody> {
    let lower = text.to_ascii_lowercase();
    let (address, tag) = match lower.split_once('-') {
        Some((address, tag)) => (address, Some(tag)),
        None => (lower.as_str(), None),
    };
    let digits = address.strip_prefix("0x").unwrap_or_default();
    let hex = digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let plain = |tag: &str| {
        (1..=TAG_MAX).contains(&tag.len())
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let id = (hex && tag.is_none_or(plain)).then(|| NodeId::new(lower.clone()).ok()).flatten();
    id.ok_or_else(|| {
        ErrorBody::new(
            ErrorCode::InvalidRequest,
            "`miner_id` must be a wallet's address (0x and 40 hex digits), then nothing or `-tag`",
        )
    })
}

/// Time that a lease of the original protocol has at most, in milliseconds.
pub(crate) fn budget_ms(spec: &JobSpec) -> u64 {
    match spec {
        JobSpec::Text(_) => TEXT_BUDGET_MS,
        JobSpec::Image(_) => IMAGE_BUDGET_MS,
    }
}

/// What suits a model that makes pictures, as far as the original protocol tells: nothing of it.
fn usual_picture(model: &ModelId) -> ImageDefaults {
    let job = ImageJob::new(model.clone(), "", 512);
    ImageDefaults {
        width: job.width,
        height: job.height,
        steps: job.steps,
        guidance: job.guidance,
        side_multiple: ImageJob::SIDE_MULTIPLE,
        negative_prompt: String::new(),
        sampler: None,
    }
}

impl Coordinator {
    /// Answers a poll. One that finds no work touches no books.
    ///
    /// # Errors
    /// `Overloaded`, `Forbidden` (convicted), `Unauthorized` (the id is a connected node's own),
    /// `Unreachable`.
    pub(crate) async fn poll(self: &Arc<Self>, poll: Poll) -> Result<Polled, ErrorBody> {
        // Its session may be a moment from its end, and this would bring it back.
        self.check_trust(&poll.node)?;
        let miner = self.miner(&poll)?;
        let Some(makes) = self.makes_of(&miner, &poll) else {
            return Ok(Polled::Warning(format!(
                "this network has no work for the model {}; {}",
                poll.model,
                self.unknown_model(poll.model.as_str()).hint.unwrap_or_default(),
            )));
        };
        // One poll of a miner at a time: whose turn it is gets the next job.
        let mut outbox = miner.outbox.lock().await;
        if let Some(lease) = self.waiting(&mut outbox, &poll.node) {
            return Ok(Polled::Job(lease));
        }
        let (most, budget_ms) = match makes {
            Makes::Text => (TEXTS_MAX, TEXT_BUDGET_MS),
            Makes::Pictures(_) => (IMAGES_MAX, IMAGE_BUDGET_MS),
        };
        let busy = {
            let mut state = self.state();
            let busy = state.busy(&poll.node);
            if busy >= most || poll.min_budget_ms > budget_ms {
                park(&mut state, &poll.node, poll.model);
                return Ok(Polled::Nothing);
            }
            state.set_node(&poll.node, vec![poll.model.clone()], busy + 1);
            busy
        };
        self.dispatch();
        let granted = {
            let mut state = self.state();
            park(&mut state, &poll.node, poll.model);
            state.busy(&poll.node) > busy
        };
        if !granted {
            return Ok(Polled::Nothing);
        }
        let until = Instant::now() + GRANT_WAIT;
        loop {
            match tokio::time::timeout_at(until, outbox.recv()).await {
                Ok(Some(message)) => {
                    if let CoordinatorMessage::Assign(lease) = *message {
                        return Ok(Polled::Job(Box::new(lease)));
                    }
                }
                // It was not to be, or comes with the next poll.
                Ok(None) | Err(_) => return Ok(Polled::Nothing),
            }
        }
    }

    /// A lease that an earlier poll did not wait for.
    fn waiting(&self, outbox: &mut Outbox, node: &NodeId) -> Option<Box<Lease>> {
        while let Ok(message) = outbox.try_recv() {
            let CoordinatorMessage::Assign(mut lease) = *message else { continue };
            let state = self.state();
            let live = state.leases.get(&lease.id);
            if let Some(live) = live.filter(|l| l.phase == LeasePhase::Running && l.node == *node) {
                let left = live.deadline.saturating_duration_since(Instant::now());
                lease.budget_ms = u64::try_from(left.as_millis()).unwrap_or(0);
                return Some(Box::new(lease));
            }
        }
        None
    }

    /// The miner of a poll; a new one if it was not here lately.
    fn miner(self: &Arc<Self>, poll: &Poll) -> Result<Arc<Miner>, ErrorBody> {
        let now = Instant::now();
        let images = poll.version.as_deref().and_then(kind_of);
        let mut table = self.miners.table();
        if let Some(miner) = table.get(&poll.node).filter(|m| m.session.seen()) {
            let mut facts = miner.facts.lock().unwrap_or_else(PoisonError::into_inner);
            facts.polled = now;
            facts.images = images.or(facts.images);
            facts.model = poll.model.clone();
            drop(facts);
            return Ok(Arc::clone(miner));
        }
        let reward = reward_of(&poll.node);
        if table.keys().filter(|node| reward_of(node) == reward).count() >= PER_REWARD_MAX {
            let message = format!("{PER_REWARD_MAX} miners work for this reward wallet already");
            return Err(ErrorBody::new(ErrorCode::Overloaded, message));
        }
        // A poll is not signed: without this, names alone would fill all the room that there is.
        self.newcomers.enter(poll.from, self.config.limits.new_sessions_per_min)?;
        let device = poll.hardware.as_deref().unwrap_or("unknown");
        let agent = poll.version.as_deref().unwrap_or("original");
        let (session, outbox) = self.open_original_session(&poll.node, agent, device)?;
        session.came_from(poll.from);
        let facts = Facts { polled: now, images, model: poll.model.clone() };
        let miner = Arc::new(Miner { session, outbox: outbox.into(), facts: facts.into() });
        let old = table.insert(poll.node.clone(), Arc::clone(&miner));
        drop(table);
        // Ends outside the lock: its end looks for work for others.
        drop(old);
        Ok(miner)
    }

    /// What the polled model makes, if this network has work of that kind for it.
    fn makes_of(&self, miner: &Miner, poll: &Poll) -> Option<Makes> {
        let images = miner.facts.lock().unwrap_or_else(PoisonError::into_inner).images;
        let mut state = self.state();
        let makes = match (self.makes(&state, &poll.model), images) {
            (Some(makes), _) => makes,
            (None, Some(true)) => Makes::Pictures(usual_picture(&poll.model)),
            (None, Some(false)) => Makes::Text,
            (None, None) => return None,
        };
        let fits = images.is_none_or(|images| images == (makes.kind() == JobKind::Image));
        if !fits || !self.prices(&poll.model, makes.kind()) {
            return None;
        }
        if self.listed(&poll.model).is_none() {
            // Polls are not signed, so they may not fill the memory with names.
            if state.offered.len() >= OFFERED_MAX && !state.offered.contains_key(&poll.model) {
                return None;
            }
            state.offered.entry(poll.model.clone()).or_insert_with(|| makes.clone());
        }
        Some(makes)
    }

    /// The model that a miner should load next: the one with most waiting work of the kind it does,
    /// unless it has one that is asked for.
    pub(crate) fn signal(
        &self,
        node: &NodeId,
        images: bool,
        loaded: Option<&ModelId>,
    ) -> Option<ModelId> {
        let asked_for = self.asked_for();
        let of_kind = asked_for.iter().filter(|((_, pictures), _)| *pictures == images);
        let waiting = of_kind.filter_map(|((model, _), jobs)| {
            let tried = jobs.tried.get(node).copied().unwrap_or(0);
            jobs.all.checked_sub(tried).filter(|left| *left > 0).map(|left| (model, left))
        });
        let waiting: HashMap<&ModelId, usize> = waiting.collect();
        if let Some(loaded) = loaded
            && waiting.contains_key(loaded)
        {
            return Some(loaded.clone());
        }
        let most =
            waiting.into_iter().max_by_key(|(model, jobs)| (*jobs, std::cmp::Reverse(*model)));
        most.map(|(model, _)| model.clone()).or_else(|| loaded.cloned())
    }

    /// What jobs wait for, as of a moment ago: anybody may ask, and all jobs are looked at under the lock that
    /// everybody waits for.
    fn asked_for(&self) -> Arc<AskedFor> {
        let mut cached = self.miners.asked_for.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, asked_for)) = &*cached
            && at.elapsed() < ASKED_FOR
        {
            return Arc::clone(asked_for);
        }
        let mut asked_for = AskedFor::new();
        for job in self.state().jobs.values().filter(|job| job.lease.is_none()) {
            let pictures = matches!(&*job.spec, JobSpec::Image(_));
            let jobs = asked_for.entry((job.spec.model().clone(), pictures)).or_default();
            jobs.all += 1;
            for node in &job.tried {
                *jobs.tried.entry(node.clone()).or_default() += 1;
            }
        }
        let asked_for = Arc::new(asked_for);
        *cached = Some((Instant::now(), Arc::clone(&asked_for)));
        asked_for
    }

    /// The job of a lease that a miner holds, while it may still be handed in.
    ///
    /// # Errors
    /// `NotFound`, `StaleLease` and `DeadlinePassed` as the books have it.
    pub(crate) async fn held(
        &self,
        node: &NodeId,
        lease: LeaseId,
    ) -> Result<(Arc<JobSpec>, Held), ErrorBody> {
        {
            let state = self.state();
            let live = state.leases.get(&lease).filter(|l| l.node == *node);
            let live = live.filter(|l| Instant::now() < l.deadline);
            if let Some(live) = live
                && let Some(job) = state.jobs.get(&live.job)
            {
                let held = Held { job: live.job, fence: live.fence, deadline: live.deadline };
                return Ok((Arc::clone(&job.spec), held));
            }
        }
        match self.settled_before(node, lease).await? {
            CoordinatorMessage::Rejected { error, .. } => Err(error),
            _ => Err(ErrorBody::new(ErrorCode::StaleLease, "the result was handed in before")),
        }
    }

    /// Whether somebody follows a job.
    pub(crate) fn is_watched(&self, job: JobId) -> bool {
        self.state().jobs.get(&job).is_some_and(|job| job.feed.is_watched())
    }

    /// Notes that a lease's answer will come as a stream.
    pub(crate) fn expect_stream(&self, lease: LeaseId) {
        self.miners.streams().insert(lease);
    }

    /// Takes the permission to stream; `false` when there is none.
    pub(crate) fn begin_stream(&self, lease: LeaseId) -> bool {
        self.miners.streams().remove(&lease)
    }

    /// Passes more of a lease's answer on; `false` when the lease is over or the answer too long.
    pub(crate) fn grow(&self, id: LeaseId, delta: TextDelta) -> bool {
        let bytes_max = self.config.limits.output_bytes_max;
        let state = self.state();
        let lease = state.leases.get(&id).filter(|lease| lease.phase == LeasePhase::Running);
        lease.and_then(|lease| Some((lease.gap, state.jobs.get(&lease.job)?))).is_some_and(
            |(gap, job)| match &*job.spec {
                // After a gap the pieces no longer join; the whole text comes with the result.
                JobSpec::Text(_) if gap => true,
                JobSpec::Text(text) => {
                    job.feed.deltas(vec![delta], FeedLimits::of(text, bytes_max))
                }
                JobSpec::Image(_) => false,
            },
        )
    }

    /// Looks for miners that went away, as long as the coordinator lives.
    pub(crate) fn spawn_original_sweep(self: &Arc<Self>) {
        let (stop, this) = (self.stop.clone(), Arc::downgrade(self));
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let stopping = tokio::select! {
                    () = stop.cancelled() => true,
                    _ = ticks.tick() => false,
                };
                let Some(coordinator) = Weak::upgrade(&this) else { return };
                coordinator.sweep_miners(stopping);
                if stopping {
                    return;
                }
            }
        });
    }

    fn sweep_miners(&self, all: bool) {
        let now = Instant::now();
        let held: Vec<LeaseId> = self.state().leases.keys().copied().collect();
        self.miners.uploads.keep(&held);
        self.miners.streams().retain(|lease| held.contains(lease));
        let busy: HashMap<NodeId, u32> = {
            let state = self.state();
            state.node_leases.keys().map(|node| (node.clone(), state.busy(node))).collect()
        };
        let mut gone = Vec::new();
        self.miners.table().retain(|node, miner| {
            let facts = miner.facts.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = !busy.contains_key(node) && now.duration_since(facts.polled) > GONE;
            let keep = !all && !idle && !miner.session.end.is_cancelled();
            drop(facts);
            if !keep {
                gone.push(Arc::clone(miner));
            }
            keep
        });
        // Here, outside the lock.
        drop(gone);
    }
}

/// What is known of a lease that is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) job: JobId,
    pub(crate) fence: u32,
    pub(crate) deadline: Instant,
}

/// Between polls a miner serves its model, but gets nothing: nobody would hear of it.
fn park(state: &mut State, node: &NodeId, model: ModelId) {
    // Meanwhile a node with a key of its own may have taken the id over.
    if state.sessions.get(node).is_some_and(|session| session.original) {
        let busy = state.busy(node);
        state.set_node(node, vec![model], busy + 1);
        state.router.park(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let id = miner_id(text).ok();
        assert_eq!(id.as_ref().map(NodeId::as_str), expect, "{text}");
    }

    #[test]
    fn a_miner_is_named_by_its_reward_address_and_a_tag() {
        let address = format!("0x{}", "Ab".repeat(20));
        let lower = address.to_lowercase();
        check(&address, Some(&lower));
        check(&format!("{address}-Rig_1"), Some(&format!("{lower}-rig_1")));
        check(&format!("{address}-"), None);
        check(&format!("{address}-a-b"), None);
        check(&format!("{address}-../x"), None);
        check(&format!("{address}-{}", "x".repeat(33)), None);
        check("default_miner_id", None);
        check("0xabc", None);
        check("", None);
    }

    #[test]
    fn an_hour_is_signed_for_and_the_one_before_counts() {
        let key = IdentityKey::generate(&mut rand::rng());
        let other = IdentityKey::generate(&mut rand::rng());
        let node = miner_id(&format!("0x{}-rig", "12".repeat(20))).expect("valid");
        let reward = reward_of(&node);
        let miners = Miners::new(HashMap::new(), &key, "net");
        let now = 1_750_000_123;
        let hour = now - now % 3600;
        let code = |signature: &str, identity: &str| {
            miners.check_identity(&node, identity, signature, now).err().map(|e| e.code)
        };
        let sign = |hour: i64| key.sign(&format!("{reward}-{hour}"));
        assert_eq!(code(&sign(hour), &key.address()), None);
        assert_eq!(code(&sign(hour)[2..], &key.address()), None, "without 0x");
        assert_eq!(code(&sign(hour - 3600), &key.address()), None);
        for stale in [hour - 7200, hour + 3600, now] {
            assert_eq!(code(&sign(stale), &key.address()), Some(ErrorCode::BadSignature));
        }
        assert_eq!(code(&sign(hour), &other.address()), Some(ErrorCode::BadSignature));
        assert_eq!(code("", &key.address()), Some(ErrorCode::BadSignature));
        miners.bind(reward, &key.address());
        miners.bind(reward, &other.address());
        assert_eq!(code(&sign(hour), &key.address()), None, "the first binding stays");
        let theirs = other.sign(&format!("{reward}-{hour}"));
        assert_eq!(code(&theirs, &other.address()), Some(ErrorCode::Unauthorized));
    }
}
