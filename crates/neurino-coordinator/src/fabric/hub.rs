//! The coordinator's side: who the gateways are, what they say, and what they are told.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use axum::Router;
use bytes::Bytes;
use futures::StreamExt as _;
use neurino_protocol::node::{
    CoordinatorMessage, Hello, MESSAGE_BYTES_MAX, NodeMessage, SUBMIT_BYTES_MAX,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::answers::{Admissions, Answering};
use super::connection::{Connection, Subjects};
use super::order::{Order, Verdict};
use super::wire::{Ask, Down, DownSay, Owner, Reign, Up, UpSay, pack, pieces, unpack};
use super::{FabricConfig, FabricError, FabricKey, queue};
use crate::coordinator::Coordinator;
use crate::depth::is_too_deep;
use crate::edge::too_large;
use crate::session::{NodeSession, Outbox};

/// How often the coordinator tells that it routes.
const TELL: Duration = Duration::from_secs(1);
/// Links and requests of one gateway at once.
const CIRCUITS_MAX: usize = 65_536;
/// Clients that went early and are remembered.
const CLOSED_MAX: usize = 4096;
/// Messages of a node that may wait.
const WAITING: usize = 256;
/// Their bytes, for one node and for all.
const NODE_BYTES_MAX: usize = SUBMIT_BYTES_MAX + (4 << 20);
const ALL_BYTES_MAX: usize = 512 << 20;
/// Largest body of a request: what a node hands in by long poll.
pub(super) const BODY_BYTES_MAX: usize = SUBMIT_BYTES_MAX + (1 << 20);

/// The session is over; a new one tells what has to be told.
#[derive(Debug)]
pub(super) struct Lost;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It is being answered, or its client has gone.
    Known,
    /// Too many are.
    Full,
}

pub(super) fn full() -> ErrorBody {
    ErrorBody::new(ErrorCode::Overloaded, "the gateway has too many links and requests open")
        .with_hint("try again in a few seconds")
}

/// All gateways of a coordinator.
pub(super) struct Hub {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) client: Client,
    pub(super) key: FabricKey,
    pub(super) subjects: Subjects,
    pub(super) routes: Router,
    epoch: i64,
    pub(super) generation: watch::Sender<u64>,
    gateways: Mutex<Gateways>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Whether it was told that a gateway's clock is wrong.
    pub(super) told_clock: AtomicBool,
}

#[derive(Default)]
struct Gateways {
    open: HashMap<String, Arc<Peer>>,
    /// The last session that each gateway has begun, so that no beginning is taken twice.
    begun: HashMap<String, u64>,
}

/// One session of a gateway.
pub(super) struct Peer {
    client: Client,
    key: FabricKey,
    subject: String,
    reign: Reign,
    pub(super) session: u64,
    /// The number of what was told last.
    told: tokio::sync::Mutex<u64>,
    hears: Mutex<Order>,
    heard: Mutex<Instant>,
    circuits: Mutex<HashMap<u64, Circuit>>,
    /// Requests whose client went before they came out of the queue.
    closed: Mutex<VecDeque<u64>>,
    pub(super) end: CancellationToken,
}

/// A node or a request behind a gateway.
enum Circuit {
    Link { to_session: mpsc::Sender<Said>, part: Vec<u8>, waiting: Arc<AtomicUsize> },
    Arriving { ask: Box<Ask>, body: Vec<u8> },
    Answering { end: CancellationToken, admissions: Arc<Admissions>, own_key: bool },
}

/// A node's message, which gives its room back when it is dropped.
struct Said {
    message: Box<NodeMessage>,
    bytes: usize,
    waiting: [Arc<AtomicUsize>; 2],
}

impl Drop for Said {
    fn drop(&mut self) {
        for waiting in &self.waiting {
            waiting.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Coordinator {
    /// Serves the gateways of the network until `stop` is cancelled or the coordinator shuts down. While
    /// NATS is away, everything waits.
    ///
    /// # Errors
    /// `NeedsServer`, `Credentials`, `Nats`.
    pub async fn serve_fabric(
        self: &Arc<Self>,
        config: FabricConfig,
        stop: CancellationToken,
    ) -> Result<(), FabricError> {
        let epoch = self.store.epoch().ok_or(FabricError::NeedsServer)?;
        let connection = Connection::open(&config.address, "neurino coordinator").await?;
        let hub = Arc::new(Hub {
            coordinator: Arc::clone(self),
            client: connection.client,
            key: config.key,
            subjects: Subjects::of(&self.config.network),
            routes: self.router(),
            epoch,
            generation: watch::Sender::new(1),
            gateways: Mutex::default(),
            waiting_bytes: Arc::default(),
            told_clock: AtomicBool::new(false),
        });
        let ended = stop.child_token();
        let queue = self.tasks.spawn(queue::work(Arc::clone(&hub), ended.clone()));
        let served = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = self.stop.cancelled() => Ok(()),
            served = hub.serve(connection.losses) => served,
        };
        ended.cancel();
        hub.say_over().await;
        hub.forget_all();
        // It ends by itself; what it still held comes again.
        queue.abort();
        served
    }
}

impl Hub {
    async fn serve(self: &Arc<Self>, mut losses: watch::Receiver<u64>) -> Result<(), FabricError> {
        let refused = |error: async_nats::SubscribeError| FabricError::Nats(error.to_string());
        let mut said = self.client.subscribe(self.subjects.link.clone()).await.map_err(refused)?;
        let mut tell = interval(TELL);
        loop {
            tokio::select! {
                message = said.next() => match message {
                    Some(message) => self.hear(&message.payload).await,
                    None => return Err(FabricError::Nats("the connection has ended".into())),
                },
                _ = tell.tick() => {
                    self.expire();
                    self.tell_owner().await;
                }
                Ok(()) = losses.changed() => {
                    // Nobody knows what got lost, so everybody begins anew.
                    self.generation.send_modify(|generation| *generation += 1);
                    self.forget_all();
                    self.tell_owner().await;
                }
            }
        }
    }

    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    fn reign(&self) -> Reign {
        Reign { epoch: self.epoch, generation: *self.generation.borrow() }
    }

    /// Whether this coordinator still routes.
    pub(super) fn routes(&self) -> bool {
        !self.coordinator.stop.is_cancelled() && !self.coordinator.is_superseded()
    }

    fn gateways(&self) -> MutexGuard<'_, Gateways> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present session of a gateway.
    pub(super) fn peer(&self, gateway: &str) -> Option<Arc<Peer>> {
        self.gateways().open.get(gateway).cloned()
    }

    async fn tell_owner(&self) {
        if !self.routes() {
            return;
        }
        let sealed =
            self.key.seal(&self.subjects.owner, &pack(&Owner { reign: self.reign() }, &[]));
        // Told again in a second.
        let _ = self.client.publish(self.subjects.owner.clone(), sealed.into()).await;
    }

    /// Has the gateways hold back what nodes and clients say, instead of noticing by the silence.
    async fn say_over(&self) {
        let open: Vec<_> = self.gateways().open.values().cloned().collect();
        let told = async {
            for peer in open {
                // Whoever does not hear it notices the silence.
                let _ = peer.say(0, DownSay::Over, &[]).await;
            }
            let _ = self.client.flush().await;
        };
        let _ = tokio::time::timeout(TELL, told).await;
    }

    fn forget_all(&self) {
        let mut gateways = self.gateways();
        for peer in gateways.open.drain().map(|(_, peer)| peer) {
            peer.end.cancel();
        }
        gateways.begun.clear();
    }

    /// Gateways that are silent are gone, and their clients with them.
    fn expire(self: &Arc<Self>) {
        // Twice as long as a node's: each gateway has many.
        let patience = Duration::from_millis(2 * self.coordinator.config.limits.silence_ms);
        let mut gone = Vec::new();
        self.gateways().open.retain(|gateway, peer| {
            let silent = peer.heard().elapsed() >= patience;
            if silent {
                tracing::warn!("gateway {gateway} is gone");
                gone.push(Arc::clone(peer));
            }
            !silent
        });
        for peer in gone {
            let open: Vec<u64> = peer.circuits().keys().copied().collect();
            for circuit in open {
                self.close(&peer, circuit);
            }
            peer.end.cancel();
        }
    }

    /// Takes a message of a gateway, if it is sealed, of this time, and the next one.
    async fn hear(self: &Arc<Self>, message: &[u8]) {
        let opened = self.key.open(&self.subjects.link, message);
        let Some((up, bytes)) = opened.as_deref().and_then(unpack::<Up>) else {
            tracing::warn!("a message that no gateway of ours can have sent was dropped");
            return;
        };
        if up.reign != self.reign() || !self.routes() {
            return;
        }
        if matches!(up.say, UpSay::Begin) {
            return self.begin(&up).await;
        }
        let Some(peer) = self.peer(&up.gateway) else {
            return self.reply(&up, DownSay::Again).await;
        };
        let verdict = peer.hears().hear(up.session, up.order);
        match verdict {
            Verdict::Drop => {}
            Verdict::Missing => {
                self.gateways().open.remove(&up.gateway);
                peer.end.cancel();
                self.reply(&up, DownSay::Again).await;
            }
            Verdict::Take => {
                *peer.heard() = Instant::now();
                self.take(&peer, up.circuit, up.say, bytes);
            }
        }
    }

    async fn begin(self: &Arc<Self>, up: &Up) {
        {
            let mut gateways = self.gateways();
            let last = gateways.begun.get(&up.gateway).copied();
            if last.is_some_and(|last| up.session <= last) {
                return;
            }
            gateways.begun.insert(up.gateway.clone(), up.session);
            let peer = Arc::new(Peer {
                client: self.client.clone(),
                key: self.key.clone(),
                subject: self.subjects.gateway(&up.gateway),
                reign: up.reign,
                session: up.session,
                told: tokio::sync::Mutex::new(0),
                hears: Mutex::new(Order::begun(up.session)),
                heard: Mutex::new(Instant::now()),
                circuits: Mutex::default(),
                closed: Mutex::default(),
                end: CancellationToken::new(),
            });
            if let Some(old) = gateways.open.insert(up.gateway.clone(), peer) {
                old.end.cancel();
            }
        }
        tracing::info!(session = up.session, "gateway {} is there", up.gateway);
        self.reply(up, DownSay::Begun).await;
    }

    /// Tells a gateway something that is of no session's order.
    async fn reply(&self, up: &Up, say: DownSay) {
        let subject = self.subjects.gateway(&up.gateway);
        let down = Down { reign: self.reign(), session: up.session, order: 0, circuit: 0, say };
        let sealed = self.key.seal(&subject, &pack(&down, &[]));
        // A gateway that does not hear it asks again.
        let _ = self.client.publish(subject, sealed.into()).await;
    }

    fn take(self: &Arc<Self>, peer: &Arc<Peer>, circuit: u64, say: UpSay, bytes: &[u8]) {
        match say {
            UpSay::Begin | UpSay::Alive => {}
            UpSay::Link { hello, again, from } => {
                self.link(peer, circuit, Greeted { hello, again, from });
            }
            UpSay::Text { more } => self.text(peer, circuit, bytes, more),
            UpSay::Ask { ask, more } => {
                let mut circuits = peer.circuits();
                if circuits.len() >= CIRCUITS_MAX && !circuits.contains_key(&circuit) {
                    drop(circuits);
                    return self.refuse(peer, circuit, ask.path, full());
                }
                circuits.insert(circuit, Circuit::Arriving { ask, body: Vec::new() });
                drop(circuits);
                self.body(peer, circuit, bytes, more);
            }
            UpSay::Body { more } => self.body(peer, circuit, bytes, more),
            UpSay::Close => self.close(peer, circuit),
            UpSay::Leave => {
                if let Some(Circuit::Answering { end, .. }) = peer.circuits().remove(&circuit) {
                    end.cancel();
                }
            }
        }
    }

    fn body(self: &Arc<Self>, peer: &Arc<Peer>, circuit: u64, bytes: &[u8], more: bool) {
        let (ask, body, fits) = {
            let mut circuits = peer.circuits();
            let Some(Circuit::Arriving { body, .. }) = circuits.get_mut(&circuit) else { return };
            let fits = body.len() + bytes.len() <= BODY_BYTES_MAX;
            if fits {
                body.extend_from_slice(bytes);
            }
            if fits && more {
                return;
            }
            let Some(Circuit::Arriving { ask, body }) = circuits.remove(&circuit) else { return };
            (ask, body, fits)
        };
        if !fits {
            return self.refuse(peer, circuit, ask.path, too_large(BODY_BYTES_MAX));
        }
        let path = ask.path.clone();
        match Self::answering(peer, circuit, *ask, body.into()) {
            Ok(answering) => {
                let this = Arc::clone(self);
                self.coordinator.tasks.spawn(async move {
                    let peer = Arc::clone(&answering.peer);
                    answering.run(&this, async || {}).await;
                    peer.circuits().remove(&circuit);
                });
            }
            Err(Unanswered::Known) => {}
            Err(Unanswered::Full) => self.refuse(peer, circuit, path, full()),
        }
    }

    /// Answers a request that is not taken: its client would wait for ever.
    fn refuse(&self, peer: &Arc<Peer>, circuit: u64, path: String, error: ErrorBody) {
        let peer = Arc::clone(peer);
        self.coordinator.tasks.spawn(async move {
            super::answers::refuse(&peer, circuit, &path, error).await;
        });
    }

    /// Makes a request known, unless it is already or there is no room.
    pub(super) fn answering(
        peer: &Arc<Peer>,
        circuit: u64,
        ask: Ask,
        body: Bytes,
    ) -> Result<Answering, Unanswered> {
        let (end, admissions) = (peer.end.child_token(), Admissions::of(&ask));
        let known = Circuit::Answering {
            end: end.clone(),
            admissions: Arc::clone(&admissions),
            own_key: ask.own_key,
        };
        let mut circuits = peer.circuits();
        let known_before = circuits.contains_key(&circuit) || peer.closed().contains(&circuit);
        if known_before {
            return Err(Unanswered::Known);
        }
        if circuits.len() >= CIRCUITS_MAX {
            return Err(Unanswered::Full);
        }
        circuits.insert(circuit, known);
        drop(circuits);
        Ok(Answering { peer: Arc::clone(peer), circuit, ask, body, admissions, end })
    }

    /// Ends a node's session, or withdraws a request whose client is gone and can not come back.
    fn close(self: &Arc<Self>, peer: &Arc<Peer>, circuit: u64) {
        let closed = peer.circuits().remove(&circuit);
        if closed.is_none() {
            peer.note_closed(circuit);
        }
        let Some(Circuit::Answering { end, admissions, own_key }) = closed else { return };
        end.cancel();
        if !own_key {
            return;
        }
        for job in admissions.jobs() {
            let coordinator = Arc::clone(&self.coordinator);
            self.coordinator.tasks.spawn(async move {
                if let Err(error) = coordinator.client_gone(job).await {
                    tracing::debug!(%error, "a job was not withdrawn");
                }
            });
        }
    }

    fn link(self: &Arc<Self>, peer: &Arc<Peer>, circuit: u64, greeted: Greeted) {
        let (to_session, from_node) = mpsc::channel(WAITING);
        let waiting = Arc::default();
        let known = Circuit::Link { to_session, part: Vec::new(), waiting };
        {
            let mut circuits = peer.circuits();
            if circuits.contains_key(&circuit) {
                return;
            }
            if circuits.len() >= CIRCUITS_MAX {
                drop(circuits);
                let peer = Arc::clone(peer);
                self.coordinator.tasks.spawn(async move {
                    peer.tell(circuit, &CoordinatorMessage::Bye(full())).await;
                    // Nobody is told of a session that has ended.
                    let _ = peer.say(circuit, DownSay::End { broken: false }, &[]).await;
                });
                return;
            }
            circuits.insert(circuit, known);
        }
        let (hub, peer) = (Arc::clone(self), Arc::clone(peer));
        self.coordinator.tasks.spawn(async move {
            let bye = link(&hub, &peer, circuit, greeted, from_node).await;
            peer.circuits().remove(&circuit);
            // A node's socket outlives its coordinator: whoever takes over is told of the node.
            if !hub.routes() || peer.end.is_cancelled() {
                return;
            }
            if let Some(error) = bye {
                peer.tell(circuit, &CoordinatorMessage::Bye(error)).await;
            }
            // Nobody is told of a session that has ended.
            let _ = peer.say(circuit, DownSay::End { broken: false }, &[]).await;
        });
    }

    /// Takes a piece of a node's message. A node that says too much at once loses its link.
    fn text(&self, peer: &Peer, circuit: u64, bytes: &[u8], more: bool) {
        let mut circuits = peer.circuits();
        let Some(Circuit::Link { to_session, part, waiting }) = circuits.get_mut(&circuit) else {
            return;
        };
        let fits = part.len() + bytes.len() <= SUBMIT_BYTES_MAX;
        if fits {
            part.extend_from_slice(bytes);
            if more {
                return;
            }
            let whole = std::mem::take(part);
            let read = (!is_too_deep(&whole)).then(|| serde_json::from_slice(&whole));
            let message: Option<Box<NodeMessage>> = read.and_then(Result::ok);
            let message = message.filter(|message| {
                whole.len() <= MESSAGE_BYTES_MAX || matches!(**message, NodeMessage::Submit(_))
            });
            if let Some(message) = message {
                let all = [Arc::clone(waiting), Arc::clone(&self.waiting_bytes)];
                let sizes = all.each_ref().map(|n| n.fetch_add(whole.len(), Ordering::Relaxed));
                // Gives its room back wherever it ends, here as well.
                let said = Said { message, bytes: whole.len(), waiting: all };
                let room = sizes[0] <= NODE_BYTES_MAX && sizes[1] <= ALL_BYTES_MAX;
                if room && to_session.try_send(said).is_ok() {
                    return;
                }
            }
        }
        // Its session ends with the channel.
        circuits.remove(&circuit);
    }
}

impl Peer {
    fn circuits(&self) -> MutexGuard<'_, HashMap<u64, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hears(&self) -> MutexGuard<'_, Order> {
        self.hears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_closed(&self, circuit: u64) {
        let mut closed = self.closed();
        if closed.len() >= CLOSED_MAX {
            closed.pop_front();
        }
        closed.push_back(circuit);
    }

    /// Whether a link or a request is known.
    pub(super) fn knows(&self, circuit: u64) -> bool {
        self.circuits().contains_key(&circuit)
    }

    /// Forgets a request that is answered.
    pub(super) fn forget(&self, circuit: u64) {
        self.circuits().remove(&circuit);
    }

    /// Tells the gateway something, in order.
    pub(super) async fn say(&self, circuit: u64, say: DownSay, bytes: &[u8]) -> Result<(), Lost> {
        let mut told = self.told.lock().await;
        if self.end.is_cancelled() {
            return Err(Lost);
        }
        *told += 1;
        let (reign, session) = (self.reign, self.session);
        let down = Down { reign, session, order: *told, circuit, say };
        let sealed = self.key.seal(&self.subject, &pack(&down, bytes));
        self.client.publish(self.subject.clone(), sealed.into()).await.map_err(|_| Lost)
    }

    /// Tells a node something.
    async fn tell(&self, circuit: u64, message: &CoordinatorMessage) {
        let json = serde_json::to_vec(message).expect("the protocol's messages serialise");
        for (piece, more) in pieces(&json) {
            if self.say(circuit, DownSay::Text { more }, piece).await.is_err() {
                return;
            }
        }
    }
}

/// A node whose hello a gateway has checked.
struct Greeted {
    hello: Box<Hello>,
    /// It has been welcomed.
    again: bool,
    /// The network that it comes from, where that can be known.
    from: Option<IpAddr>,
}

/// Opens a node's session and carries its messages until either side ends; returns what is left to say.
async fn link(
    hub: &Hub,
    peer: &Peer,
    circuit: u64,
    greeted: Greeted,
    from_node: mpsc::Receiver<Said>,
) -> Option<ErrorBody> {
    let Greeted { hello, again, from } = greeted;
    let (session, outbox) = match hub.coordinator.open_vouched_session(&hello) {
        Ok(opened) => opened,
        Err(refused) => return Some(refused),
    };
    session.came_from(from);
    if !again {
        peer.tell(circuit, &hub.coordinator.welcome(&hello)).await;
    }
    carry(peer, circuit, &session, outbox, from_node).await
}

async fn carry(
    peer: &Peer,
    circuit: u64,
    session: &NodeSession,
    mut outbox: Outbox,
    mut from_node: mpsc::Receiver<Said>,
) -> Option<ErrorBody> {
    let listen = async {
        while let Some(mut said) = from_node.recv().await {
            let message = std::mem::replace(&mut *said.message, NodeMessage::Goodbye);
            // In a box, so that an idle link holds no room for what handling needs.
            Box::pin(session.handle(message)).await;
        }
    };
    let speak = async {
        while let Some(message) = outbox.recv().await {
            if matches!(*message, CoordinatorMessage::Bye(_)) {
                return Some(message);
            }
            peer.tell(circuit, &message).await;
        }
        None
    };
    let last = tokio::select! {
        () = peer.end.cancelled() => return None,
        () = session.end.cancelled() => None,
        () = listen => {
            let message = "the link ended: a message was too large, too many came at once, or one was \
                           not of the node protocol";
            return Some(ErrorBody::new(ErrorCode::InvalidRequest, message));
        }
        last = speak => last,
    };
    let mut last = last;
    while let Ok(message) = outbox.try_recv() {
        if matches!(*message, CoordinatorMessage::Bye(_)) {
            last = Some(message);
        } else {
            peer.tell(circuit, &message).await;
        }
    }
    match last.map(|message| *message) {
        Some(CoordinatorMessage::Bye(error)) => Some(error),
        _ => None,
    }
}
