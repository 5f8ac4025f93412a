//! A node's session: challenge, hello, and what each message does. The WebSocket, the long poll and
//! the in-process link are three ways to feed one [`NodeSession`].

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{ImageStep, JobOutput, JobSpec, LeaseId, ModelId, NodeId, TextDelta};
use neurino_protocol::node::unit::{Unit, UnitKind};
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, Hello, ModelOffer, NoJob, NodeMessage, PROTOCOL_VERSION,
    Ready,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::challenge::Answered;
use crate::coordinator::{Coordinator, now_ms};
use crate::edge::neighbourhood_of;
use crate::error::shutting_down;
use crate::introduction::{check_meant_for, check_signatures, check_token};
use crate::jobs::short;
use crate::original::OFFERED_MAX;
use crate::router::{Announced, OTHER_ENGINE, owner_of, party_of};
use crate::settle::Proof;
use crate::state::{LeasePhase, Makes, Session, State};
use crate::store::AttemptEnd;
use crate::talk::Talk;
use crate::watch::FeedLimits;

/// Messages that may wait for a slow link; a slower one is ended.
const OUTBOX: usize = 256;
/// How long a lease that a heartbeat does not name is kept for a result that is on its way.
const UNNAMED_WAIT: Duration = Duration::from_secs(1);
/// Most models and slots a node can announce.
const READY_MAX: u32 = 64;

/// Models that no list names of which a node can offer so many: all of the network look at each.
const UNLISTED_MAX: usize = 8;

/// An open session of a node. Dropping it ends the session: its leases are kept for a while.
pub(crate) struct NodeSession {
    coordinator: Arc<Coordinator>,
    node: NodeId,
    id: u64,
    /// Cancelled when the link must end: replaced, silent, too slow, shutting down.
    pub(crate) end: CancellationToken,
}

/// What the coordinator has to say to a node.
pub(crate) type Outbox = mpsc::Receiver<Box<CoordinatorMessage>>;

impl Coordinator {
    /// A fresh challenge, good for one hello within five minutes.
    ///
    /// # Errors
    /// `Unreachable` (shutting down).
    pub(crate) fn challenge(&self) -> Result<CoordinatorMessage, ErrorBody> {
        let state = self.state();
        if state.stopping {
            return Err(shutting_down());
        }
        let nonce = state.challenges.issue(rand::random(), Instant::now());
        let (network, coordinator) = (self.config.network.clone(), self.address());
        Ok(CoordinatorMessage::Challenge { version: PROTOCOL_VERSION, network, coordinator, nonce })
    }

    /// Opens a session. A session that the same node still has open is ended: a node that comes
    /// back faster than its old link was noticed to be dead takes its leases along.
    ///
    /// # Errors
    /// `UnsupportedVersion`, `Unauthorized` (nonce, token), `BadSignature` (also of a hello that was meant
    /// for another coordinator), `InvalidRequest` (node id),
    /// `Overloaded`, `Unreachable`.
    pub(crate) fn open_session(
        self: &Arc<Self>,
        hello: &Hello,
    ) -> Result<(NodeSession, Outbox), ErrorBody> {
        self.open_answered(hello, false)
    }

    /// Opens a session for a node behind a gateway, which made the challenge and saw it answered just
    /// once. The signature is checked here again: a gateway is believed about time, not about who.
    ///
    /// # Errors
    /// As [`Coordinator::open_session`].
    pub(crate) fn open_vouched_session(
        self: &Arc<Self>,
        hello: &Hello,
    ) -> Result<(NodeSession, Outbox), ErrorBody> {
        self.open_answered(hello, true)
    }

    fn open_answered(
        self: &Arc<Self>,
        hello: &Hello,
        vouched: bool,
    ) -> Result<(NodeSession, Outbox), ErrorBody> {
        check_version(hello)?;
        let address = address_of(&hello.node)?;
        if !vouched && !self.state().challenges.is_open(&hello.nonce, Instant::now()) {
            return Err(void_challenge());
        }
        check_meant_for(hello, &self.address(), &self.config.known_as, vouched)?;
        check_signatures(&self.config.network, hello, address)?;
        check_token(&self.tokens, hello, now_ms())?;
        self.check_trust(&hello.node)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let end = self.stop.child_token();
        let id = {
            let mut state = self.state();
            if state.stopping {
                return Err(shutting_down());
            }
            if state.sessions.len() >= self.config.limits.sessions_max
                && !state.sessions.contains_key(&hello.node)
            {
                return Err(too_many("the coordinator has no room for another node"));
            }
            let (party, most) = (party_of(&hello.node), self.config.limits.nodes_per_owner_max);
            let of_owner = state.sessions.range(&party..);
            let of_owner = of_owner.take_while(|(node, _)| owner_of(node) == party.as_str());
            if !state.sessions.contains_key(&hello.node) && of_owner.count() >= most {
                let message = format!("{most} nodes of this key are connected already");
                return Err(too_many(&message));
            }
            let answered = if vouched {
                Answered::Once
            } else {
                state.challenges.answer(&hello.nonce, Instant::now())
            };
            match answered {
                Answered::Once => {}
                // Another hello with it was faster.
                Answered::Void => return Err(void_challenge()),
                Answered::TooMany => {
                    return Err(too_many("too many nodes are connecting at once"));
                }
            }
            let fingerprint = fingerprint_of("fp_", &hello.agent, &hello.capabilities);
            let id = self.enter(
                &mut state,
                &hello.node,
                &hello.capabilities,
                fingerprint,
                outbox,
                end.clone(),
            );
            if let Some(session) = state.sessions.get_mut(&hello.node) {
                session.machine = Some((hello.agent.clone(), hello.capabilities.clone()));
            }
            id
        };
        tracing::info!(session = id, agent = %printable(&hello.agent), "node {} connected", short(&hello.node));
        let node = hello.node.clone();
        Ok((NodeSession { coordinator: Arc::clone(self), node, id, end }, messages))
    }

    /// Whether a session is this coordinator's, and open.
    #[cfg(test)]
    pub(crate) fn knows_session(self: &Arc<Self>, session: &NodeSession) -> bool {
        Arc::ptr_eq(self, &session.coordinator) && session.seen()
    }

    /// Opens a session for a miner that only polls, and proves nothing before it hands a result in.
    /// Its leases run to their deadlines: it cannot say which of them it works on.
    ///
    /// # Errors
    /// `Unauthorized` (a node is connected under that id by its own key), `Overloaded`,
    /// `Unreachable`.
    pub(crate) fn open_original_session(
        self: &Arc<Self>,
        node: &NodeId,
        agent: &str,
        device: &str,
    ) -> Result<(NodeSession, Outbox), ErrorBody> {
        self.check_trust(node)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let end = self.stop.child_token();
        let id = {
            let mut state = self.state();
            if state.stopping {
                return Err(shutting_down());
            }
            if state.sessions.get(node).is_some_and(|session| !session.original) {
                let message = "a node that signs with its own key is connected under this id";
                return Err(ErrorBody::new(ErrorCode::Unauthorized, message));
            }
            // What is held against an address falls on all of its nodes, so nobody may work in the name
            // of one that shows its own key.
            let owner = owner_of(node);
            let signs = |(other, session): (&NodeId, &Session)| {
                !session.original && owner_of(other) == owner
            };
            if !self.miners.is_bound(node)
                && (self.audits.knows(node) || state.sessions.iter().any(signs))
            {
                let message = "a node that signs with its own key works for this address";
                return Err(ErrorBody::new(ErrorCode::Unauthorized, message)
                    .with_hint("mine for another reward wallet, or with Neurino"));
            }
            if state.sessions.len() >= self.config.limits.sessions_max {
                return Err(too_many("the coordinator has no room for another node"));
            }
            let capabilities = Capabilities {
                device: printable(device),
                memory_bytes: 0,
                gpu: true,
                referred_by: None,
            };
            let fingerprint = fingerprint_of(OTHER_ENGINE, &printable(agent), &capabilities);
            let id = self.enter(&mut state, node, &capabilities, fingerprint, outbox, end.clone());
            for lease in held(&state, node) {
                if let Some(lease) = state.leases.get_mut(&lease) {
                    (lease.session, lease.kept_until) = (Some(id), None);
                }
            }
            if let Some(session) = state.sessions.get_mut(node) {
                session.original = true;
                // Between two polls nothing is heard of it, for as long as it computes.
                session.polls = 1;
            }
            id
        };
        tracing::info!(session = id, agent = %printable(agent), "miner {} polls", short(node));
        let node = node.clone();
        Ok((NodeSession { coordinator: Arc::clone(self), node, id, end }, messages))
    }

    /// The answer to an accepted hello. Only the identity key begins a token's life anew.
    pub(crate) fn welcome(&self, hello: &Hello) -> CoordinatorMessage {
        let signed = hello.token.is_none();
        CoordinatorMessage::Welcome {
            coordinator: self.address(),
            uploads: self.config.bucket.is_some(),
            token: signed.then(|| self.tokens.issue(hello, now_ms())),
        }
    }

    fn enter(
        &self,
        state: &mut State,
        node: &NodeId,
        capabilities: &Capabilities,
        fingerprint: String,
        outbox: mpsc::Sender<Box<CoordinatorMessage>>,
        end: CancellationToken,
    ) -> u64 {
        if let Some(old) = state.sessions.remove(node) {
            let message = "another session was opened with this identity and node name";
            let error = ErrorBody::new(ErrorCode::Cancelled, message).with_hint(
                "does another machine use a copy of this identity? Give each an identity of its own",
            );
            // The old link is likely dead; nobody needs to read this.
            let _ = old.outbox.try_send(Box::new(CoordinatorMessage::Bye(error)));
            old.end.cancel();
            state.router.remove_node(node);
        }
        state.last_session += 1;
        let id = state.last_session;
        let now = Instant::now();
        let standing = self.standing(node, capabilities, fingerprint.clone());
        if self.audits.is_past_first(node) {
            state.router.trust(node);
        }
        let session = Session {
            id,
            outbox,
            fingerprint,
            last_seen: now,
            talk: Talk::new(now),
            standing,
            told: NoJob::default(),
            counted: now,
            polls: 0,
            advised: false,
            shows_files: false,
            original: false,
            machine: None,
            neighbourhood: None,
            end,
        };
        state.sessions.insert(node.clone(), session);
        // Its first heartbeat says which leases it still works on; give it the time to speak.
        let silence = Duration::from_millis(self.config.limits.silence_ms);
        for lease in held(state, node) {
            if let Some(lease) = state.leases.get_mut(&lease) {
                lease.session = None;
                lease.kept_until = Some(now + silence);
                lease.gap = true;
            }
        }
        id
    }

    fn leave(self: &Arc<Self>, node: &NodeId, id: u64) {
        let mut state = self.state();
        if state.sessions.get(node).is_none_or(|s| s.id != id) {
            return;
        }
        if let Some(session) = state.sessions.remove(node) {
            let seconds = session.counted.elapsed().as_secs();
            *state.uptime.entry(node.clone()).or_default() += seconds;
        }
        state.router.remove_node(node);
        let until = Instant::now() + Duration::from_millis(self.config.limits.reconnect_grace_ms);
        for lease in held(&state, node) {
            if let Some(lease) = state.leases.get_mut(&lease) {
                lease.session = None;
                lease.kept_until = Some(until);
                lease.gap = true;
            }
        }
        drop(state);
        tracing::info!(session = id, "node {} disconnected", short(node));
        // A job that waited for this node may now go to one that failed at it before.
        self.dispatch();
    }
}

impl NodeSession {
    /// Keeps from which neighbourhood of the internet the node comes.
    pub(crate) fn came_from(&self, from: Option<IpAddr>) {
        let mut state = self.coordinator.state();
        if let Some(session) = state.sessions.get_mut(&self.node).filter(|own| own.id == self.id) {
            session.neighbourhood = from.map(neighbourhood_of);
        }
    }

    /// Handles one message; answers go out through the outbox.
    pub(crate) async fn handle(&self, message: NodeMessage) {
        if !self.seen() {
            return;
        }
        if !self.may_talk() {
            if !self.end.is_cancelled() {
                let message = "the node says too much at once";
                let error = ErrorBody::new(ErrorCode::RateLimited, message);
                self.coordinator.state().send(&self.node, CoordinatorMessage::Bye(error));
                self.end.cancel();
            }
            return;
        }
        match message {
            NodeMessage::Hello(_) => {
                let error =
                    ErrorBody::new(ErrorCode::InvalidRequest, "the session is open already");
                self.coordinator.state().send(&self.node, CoordinatorMessage::Bye(error));
                self.end.cancel();
            }
            NodeMessage::Ready(ready) => self.ready(ready),
            NodeMessage::Progress { lease, deltas, tokens, step } => {
                if tokens > 0 || !deltas.is_empty() {
                    self.begins(lease);
                }
                if let Some(step) = step {
                    self.step(lease, step).await;
                }
                self.progress(lease, deltas);
            }
            NodeMessage::Submit(submission) => {
                let reply = self.coordinator.settle(&self.node, submission, Proof::Statement).await;
                if let Some(reply) = reply {
                    self.coordinator.state().send(&self.node, reply);
                }
            }
            NodeMessage::Upload { lease, picture } => {
                let reply = self.coordinator.place(&self.node, self.id, lease, &picture).await;
                if let Some(reply) = reply {
                    self.coordinator.state().send(&self.node, reply);
                }
            }
            NodeMessage::Uploaded(uploaded) => {
                self.coordinator.delivered(&self.node, uploaded).await;
            }
            // Not in its words, which may be the prompt's.
            NodeMessage::HandBack { lease, reason: _ } => {
                tracing::debug!(lease.id = %lease, "handed back");
                let error =
                    ErrorBody::new(ErrorCode::NoNodeAvailable, "the node handed the job back");
                self.end_attempt(lease, AttemptEnd::HandedBack, error);
            }
            NodeMessage::Failed { lease, error } => {
                // Not in its words here either.
                tracing::debug!(lease.id = %lease, code = ?error.code, "an attempt failed");
                // On one's own machine the words are one's own program's, and say what to do.
                let error = if self.coordinator.config.practice {
                    let hint = error.hint.as_deref().map(printable);
                    ErrorBody { code: error.code, message: printable(&error.message), hint }
                } else {
                    for_payers(&error)
                };
                self.end_attempt(lease, AttemptEnd::Failed, error);
            }
            NodeMessage::FileShown(proof) => {
                self.coordinator.file_shown(&self.node, self.id, &proof);
            }
            NodeMessage::Heartbeat { leases } => self.heartbeat(&leases),
            NodeMessage::Goodbye => self.ready(Ready::default()),
        }
    }

    /// Notes a sign of life; `false` when the session was replaced or ended.
    pub(crate) fn seen(&self) -> bool {
        let mut state = self.coordinator.state();
        match state.sessions.get_mut(&self.node) {
            Some(session) if session.id == self.id => {
                session.last_seen = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Counts a message; `false` if it is one too many.
    fn may_talk(&self) -> bool {
        let mut state = self.coordinator.state();
        let leases = state.busy(&self.node);
        let session = state.sessions.get_mut(&self.node).filter(|s| s.id == self.id);
        session.is_none_or(|session| session.talk.take(Instant::now(), leases))
    }

    /// Counts a waiting long poll as a sign of life until the guard is dropped.
    pub(crate) fn polling(&self) -> Polling<'_> {
        self.change_polls(1);
        Polling(self)
    }

    fn change_polls(&self, by: i32) {
        let mut state = self.coordinator.state();
        if let Some(session) = state.sessions.get_mut(&self.node).filter(|s| s.id == self.id) {
            session.polls = session.polls.saturating_add_signed(by);
            session.last_seen = Instant::now();
        }
    }

    fn ready(&self, ready: Ready) {
        if let Err(error) = ready.check_units() {
            self.coordinator.state().send(&self.node, CoordinatorMessage::Bye(error));
            self.end.cancel();
            return;
        }
        let mut models = Vec::new();
        {
            let mut state = self.coordinator.state();
            let mut unlisted = 0;
            for offer in ready.models.into_iter().take(READY_MAX as usize) {
                // A doubled model would count twice.
                if models.contains(&offer.id) {
                    continue;
                }
                // Whoever makes names up makes the network remember them: counted before they are.
                let is_listed = self.coordinator.listed(&offer.id).is_some();
                if !is_listed && unlisted == UNLISTED_MAX {
                    continue;
                }
                if !self.acceptable(&mut state, &offer) {
                    continue;
                }
                unlisted += usize::from(!is_listed);
                models.push(offer.id);
            }
            if let Some(session) = state.sessions.get_mut(&self.node).filter(|s| s.id == self.id) {
                session.standing.scores = ready.scores && !session.original;
            }
            let session = state.sessions.get(&self.node).filter(|s| !s.original);
            let units = match session {
                Some(session) if !ready.units.is_empty() => {
                    ready.units.into_iter().map(|unit| announced(session, unit, &models)).collect()
                }
                session => {
                    let memory_bytes = session.map_or(0, |s| s.standing.memory_bytes);
                    let slots = ready.slots.min(READY_MAX);
                    let node = Announced::node(models, slots, memory_bytes);
                    vec![Announced { cold: ready.cold, ..node }]
                }
            };
            state.set_units(&self.node, units);
            if let Some(session) = state.sessions.get_mut(&self.node).filter(|s| s.id == self.id) {
                (session.advised, session.shows_files) = (ready.advised, ready.shows_files);
            }
        }
        self.coordinator.dispatch();
        self.coordinator.state().tell_no_job(&self.node);
    }

    /// Whether work on a model can be paid, and the node means by it what the network does. The first
    /// node that offers a model nobody else knows says what it is.
    fn acceptable(&self, state: &mut State, offer: &ModelOffer) -> bool {
        let (id, makes) = (&offer.id, Makes::of(offer));
        let sensible = match &makes {
            Makes::Text => true,
            Makes::Pictures(usual) => usual.validate(id).is_ok(),
        };
        if !sensible || !self.coordinator.prices(id, makes.kind()) {
            return false;
        }
        if let Some(listed) = self.coordinator.listed(id) {
            return listed.kind() == makes.kind();
        }
        if state.offered.len() >= OFFERED_MAX && !state.offered.contains_key(id) {
            return false;
        }
        let kind = makes.kind();
        state.offered.entry(id.clone()).or_insert(makes).kind() == kind
    }

    /// Passes a picture's step on. A preview that nobody asked for, or that is none, stays here.
    async fn step(&self, id: LeaseId, mut step: ImageStep) {
        let spec = {
            let state = self.coordinator.state();
            let own = state.leases.get(&id).filter(|l| l.node == self.node);
            own.and_then(|lease| state.jobs.get(&lease.job)).map(|job| Arc::clone(&job.spec))
        };
        let Some(JobSpec::Image(job)) = spec.as_deref() else { return };
        if !(1..=job.steps).contains(&step.step) {
            return;
        }
        step.steps = job.steps;
        // Read without the lock, and by whoever reads strangers' pictures: it takes a moment.
        if let Some(png) = step.preview.take().filter(|_| job.preview)
            && self.coordinator.decoder.is_preview(&png, job).await
        {
            step.preview = Some(png);
        }
        let mut state = self.coordinator.state();
        let running = |state: &State| {
            let lease = state.leases.get(&id).filter(|l| l.phase == LeasePhase::Running);
            lease.map(|lease| lease.job)
        };
        if running(&state).is_none() || !self.coordinator.is_heard(&mut state, id) {
            return;
        }
        let lease = state.leases.get(&id);
        if let Some(job) = lease.and_then(|lease| state.jobs.get(&lease.job)) {
            job.feed.step(step);
        }
    }

    /// The node says something of an answer.
    fn begins(&self, id: LeaseId) {
        let mut state = self.coordinator.state();
        if state.leases.get(&id).is_some_and(|lease| lease.node == self.node) {
            crate::stall::heard(&mut state, id, Instant::now());
        }
    }

    fn progress(&self, id: LeaseId, deltas: Vec<TextDelta>) {
        let bytes_max = self.coordinator.config.limits.output_bytes_max;
        let too_long = {
            let mut guard = self.coordinator.state();
            let state = &mut *guard;
            let Some(lease) = state.leases.get(&id).filter(|l| l.node == self.node) else {
                let code = ErrorCode::StaleLease;
                state.send(&self.node, CoordinatorMessage::Cancel { lease: id, code });
                return;
            };
            // After a gap the pieces no longer join; the whole text comes with the result.
            if lease.phase != LeasePhase::Running || lease.gap || lease.unheard {
                return;
            }
            if !deltas.is_empty() && !self.coordinator.is_heard(state, id) {
                return;
            }
            let Some(lease) = state.leases.get(&id) else { return };
            let fits = state.jobs.get(&lease.job).is_none_or(|job| match &*job.spec {
                JobSpec::Text(text) => job.feed.deltas(deltas, FeedLimits::of(text, bytes_max)),
                JobSpec::Image(_) => deltas.is_empty(),
            });
            if !fits {
                let code = ErrorCode::TooLarge;
                state.send(&self.node, CoordinatorMessage::Cancel { lease: id, code });
            }
            !fits
        };
        if too_long {
            let error = ErrorBody::new(ErrorCode::TooLarge, "the answer outgrew its limit");
            self.coordinator.spawn_release(id, AttemptEnd::Failed, error);
        }
    }

    fn end_attempt(&self, id: LeaseId, end: AttemptEnd, error: ErrorBody) {
        let own = self.coordinator.state().leases.get(&id).is_some_and(|l| l.node == self.node);
        if own {
            self.coordinator.spawn_release(id, end, error);
        }
    }

    /// Keeps the named leases. Others are given up shortly: their results may be right behind. Those
    /// that were assigned while the heartbeat may have been on its way are left alone.
    fn heartbeat(&self, named: &[LeaseId]) {
        let named: HashSet<&LeaseId> = named.iter().collect();
        let on_its_way = Duration::from_millis(self.coordinator.config.limits.silence_ms / 3);
        let now = Instant::now();
        let mut state = self.coordinator.state();
        for id in held(&state, &self.node) {
            let Some(lease) = state.leases.get_mut(&id) else { continue };
            if named.contains(&id) {
                lease.session = Some(self.id);
                lease.kept_until = None;
            } else if lease.session != Some(self.id)
                || now.duration_since(lease.assigned) > on_its_way
            {
                let until = now + UNNAMED_WAIT;
                lease.kept_until = Some(lease.kept_until.map_or(until, |kept| kept.min(until)));
            }
        }
        state.tell_no_job(&self.node);
    }
}

impl Drop for NodeSession {
    fn drop(&mut self) {
        self.end.cancel();
        self.coordinator.files_left(&self.node, self.id);
        self.coordinator.leave(&self.node, self.id);
    }
}

/// A waiting long poll.
pub(crate) struct Polling<'a>(&'a NodeSession);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.change_polls(-1);
    }
}

/// Equal for equal programs on equal devices. A digest, because payers need not learn what people
/// have at home.
fn fingerprint_of(engine: &str, agent: &str, capabilities: &Capabilities) -> String {
    let words = format!("{agent}\n{}\n{}", capabilities.device, capabilities.gpu);
    format!("{engine}{}", hex::encode(&Sha256::digest(words)[..6]))
}

/// A unit of a node with what the network pays for of its models.
fn announced(session: &Session, unit: Unit, offered: &[ModelId]) -> Announced {
    let class = unit_class(session, &unit);
    let Unit { id, kind, memory_bytes, models: named, slots, cold, .. } = unit;
    let mut models = Vec::new();
    let first = named.first().cloned();
    for model in named.into_iter().take(READY_MAX as usize) {
        if offered.contains(&model) && !models.contains(&model) {
            models.push(model);
        }
    }
    // Where the loaded one is none that is known here, nothing is.
    let cold = cold || models.first() != first.as_ref();
    let running = Vec::new();
    Announced { id: Some(id), kind, memory_bytes, class, models, slots, cold, running }
}

/// Of which numeric class a unit is, if not of the node's: another device, several at once, or a part of one.
fn unit_class(session: &Session, unit: &Unit) -> Option<String> {
    let (agent, machine) = session.machine.as_ref()?;
    let device = unit.device.as_ref().unwrap_or(&machine.device);
    let device = match &unit.kind {
        UnitKind::Whole { .. } if *device == machine.device => return None,
        UnitKind::Whole { .. } => device.clone(),
        UnitKind::Group { cards } => format!("{device}\ngroup of {}", cards.len()),
        UnitKind::Instance { .. } => format!("{device}\ninstance"),
        UnitKind::Slice { .. } => format!("{device}\nslice"),
    };
    Some(fingerprint_of("fp_", agent, &Capabilities { device, ..machine.clone() }))
}

/// Whether streamed text and signed text agree.
pub(crate) fn continues_stream(state: &State, id: LeaseId, output: &JobOutput) -> bool {
    // A picture is not streamed: previews are pictures of the way.
    let JobOutput::Text(answer) = output else { return true };
    // After a link broke no more pieces are taken, so what was passed on stays a beginning of the answer.
    state.leases.get(&id).is_none_or(|lease| {
        state.jobs.get(&lease.job).is_none_or(|job| job.feed.is_prefix_of(answer))
    })
}

/// Leases a node holds.
fn held(state: &State, node: &NodeId) -> Vec<LeaseId> {
    state.node_leases.get(node).map(|held| held.iter().copied().collect()).unwrap_or_default()
}

/// Refuses a hello of another version.
pub(crate) fn check_version(hello: &Hello) -> Result<(), ErrorBody> {
    if hello.version == PROTOCOL_VERSION {
        return Ok(());
    }
    let message = format!(
        "this coordinator speaks version {PROTOCOL_VERSION} of the node protocol, not {}",
        hello.version
    );
    Err(ErrorBody::new(ErrorCode::UnsupportedVersion, message).with_hint("update Neurino"))
}

/// The address that a node id starts with: `0x` and 40 hex digits, then nothing or `-tag`.
pub(crate) fn address_of(node: &NodeId) -> Result<&str, ErrorBody> {
    let text = node.as_str();
    let (address, tag) = text.split_at_checked(42).unwrap_or((text, ""));
    let hex = address
        .strip_prefix("0x")
        .is_some_and(|digits| digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex && (tag.is_empty() || (tag.len() > 1 && tag.starts_with('-'))) {
        Ok(address)
    } else {
        Err(ErrorBody::new(
            ErrorCode::InvalidRequest,
            "a node id is the address of its key (0x and 40 hex digits), optionally with `-tag`",
        ))
    }
}

/// Words from outside, fit for a log line or an error: no control characters, at most 300.
fn printable(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// What a node says of a failure, as payers get to read it: a stranger's words, so no more of them than what
/// names a field or a number of the request, and nothing that leads anywhere.
fn for_payers(said: &ErrorBody) -> ErrorBody {
    let words = printable(&said.message);
    let leads_on = ["://", "www.", "@", "<", ">", "](", "http", "Http", "HTTP"];
    let about_request = matches!(
        said.code,
        ErrorCode::InvalidRequest | ErrorCode::ContextTooLong | ErrorCode::TooLarge
    );
    let harmless = about_request && !leads_on.iter().any(|way| words.contains(way));
    let own = match said.code {
        ErrorCode::InvalidRequest => "the node that was asked cannot serve this request",
        ErrorCode::ContextTooLong => "the prompt and `max_tokens` are more than the model reads",
        ErrorCode::TooLarge => "the answer is larger than a result may be",
        ErrorCode::ModelUnreadable => "the node could not read the model",
        ErrorCode::ModelNotReady => "the node does not have the model ready",
        ErrorCode::Declined => "the node's owner does not compute such requests",
        ErrorCode::DeadlinePassed => "the node did not finish in time",
        ErrorCode::Overloaded => "the node has too much to do",
        _ => "the node failed to compute the answer",
    };
    let code = match said.code {
        ErrorCode::InvalidRequest
        | ErrorCode::ContextTooLong
        | ErrorCode::TooLarge
        | ErrorCode::ModelUnreadable
        | ErrorCode::ModelNotReady
        | ErrorCode::Declined
        | ErrorCode::DeadlinePassed
        | ErrorCode::Overloaded => said.code,
        // Codes that are this coordinator's to use, such as that a key is wrong, are no node's.
        _ => ErrorCode::EngineFailed,
    };
    ErrorBody::new(code, if harmless { words } else { own.to_owned() })
}

pub(crate) fn void_challenge() -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Unauthorized,
        "the challenge is unknown, was used before, or is older than five minutes",
    )
    .with_hint("ask for a new challenge and sign that one")
}

fn too_many(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Overloaded, message).with_hint("try again in a minute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_tells_payers_of_their_request_and_nothing_else() {
        let told = |code, words: &str| {
            let said = ErrorBody::new(code, words).with_hint("pay at evil.example");
            let told = for_payers(&said);
            assert_eq!(told.hint, None);
            (told.code, told.message)
        };
        let invalid = ErrorCode::InvalidRequest;
        let of_field = "`logit_bias` names token 99999, but the model has 49,152";
        assert_eq!(told(invalid, of_field), (invalid, of_field.to_owned()));
        for bait in
            ["see https://evil.example", "[here](evil)", "<b>hi</b>", "mail me@evil.example"]
        {
            let (_, words) = told(invalid, bait);
            assert_eq!(words, "the node that was asked cannot serve this request");
        }
        let (code, words) = told(ErrorCode::Unauthorized, "your key is stolen, send it to me");
        assert_eq!(
            (code, words.as_str()),
            (ErrorCode::EngineFailed, "the node failed to compute the answer")
        );
        let (_, words) = told(ErrorCode::EngineFailed, "call 0900 12345");
        assert_eq!(words, "the node failed to compute the answer");
        assert!(told(invalid, &"x".repeat(10_000)).1.len() <= 300);
    }

    fn check(node: &str, valid: bool) {
        let id = NodeId::new(node).expect("a node id by its characters");
        assert_eq!(address_of(&id).is_ok(), valid, "{node}");
    }

    #[test]
    fn a_node_id_starts_with_an_address() {
        let address = format!("0x{}", "ab".repeat(20));
        check(&address, true);
        check(&format!("{address}-rig1"), true);
        check(&format!("{address}rig1"), false);
        check(&format!("{address}-"), false);
        check("0xabc", false);
        check("rig", false);
        check(&format!("1x{}", "ab".repeat(20)), false);
    }
}
