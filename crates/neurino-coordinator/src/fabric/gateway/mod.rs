//! A gateway: no books, no key of the network; sockets of nodes and connections of clients, and the way
//! to whoever routes. Any number of them stand side by side.

mod relay;
mod resume;
mod socket;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, jetstream};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Subjects};
use super::hub::Lost;
use super::order::{Order, Verdict};
use super::wire::{Down, DownSay, Owner, PIECE_BYTES, Reign, Up, UpSay, pack, unpack};
use super::{FabricConfig, FabricError, FabricKey};
use crate::config::Limits;
use crate::edge::{Newcomers, Peer, Tls, address_of, no_such_method, serve, with_request_id};

/// How often a gateway shows that it is there.
const ALIVE: Duration = Duration::from_secs(2);
/// Silence after which the coordinator counts as gone; it speaks every second.
const SILENCE: Duration = Duration::from_secs(4);
/// How long a beginning waits for its answer.
const BEGIN_WAIT: Duration = Duration::from_secs(2);
/// Messages that may wait for one node or client: the coordinator sends an answer in one go, so a whole
/// one must find room.
const WAITING: usize = relay::ANSWER_BYTES_MAX / PIECE_BYTES + 64;
/// Bodies beyond the usual size that are held at once, in MiB.
const LARGE_MIB: usize = 512;

/// What a gateway is opened with.
#[derive(Clone)]
pub struct GatewayConfig {
    /// The network's name.
    pub network: String,
    /// The way to its coordinator.
    pub fabric: FabricConfig,
    /// Sizes and waiting times; those of connections and bodies count here.
    pub limits: Limits,
    /// The header in which a proxy in front says whom it asks for, as
    /// [`crate::CoordinatorConfig::client_address_header`].
    pub client_address_header: Option<String>,
}

/// A gateway of a network.
pub struct Gateway(Arc<Inner>);

/// The session with the router that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Live {
    reign: Reign,
    session: u64,
}

/// What the router says to one circuit.
#[derive(Debug)]
enum Heard {
    Text { bytes: Vec<u8>, more: bool },
    Head { status: u16, headers: Vec<(String, String)> },
    Body(Vec<u8>),
    End { broken: bool },
}

/// What is sent in a session.
#[derive(Default)]
struct Sending {
    live: Option<Live>,
    order: u64,
}

struct Inner {
    id: String,
    network: String,
    limits: Limits,
    client: Client,
    queue: jetstream::Context,
    key: FabricKey,
    subjects: Subjects,
    live: watch::Sender<Option<Live>>,
    sending: tokio::sync::Mutex<Sending>,
    circuits: Mutex<HashMap<u64, mpsc::Sender<Heard>>>,
    last_circuit: AtomicU64,
    links: Arc<Semaphore>,
    newcomers: Newcomers,
    client_address_header: Option<String>,
    large: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A circuit of one session. Dropped before its end, it tells the router that nobody waits any more.
struct Circuit {
    gateway: Arc<Inner>,
    live: Live,
    id: u64,
    heard: mpsc::Receiver<Heard>,
    over: bool,
}

impl Gateway {
    /// Begins to look for the network's coordinator, and goes on until `stop` is cancelled.
    ///
    /// # Errors
    /// `Credentials`, `Nats`.
    pub async fn open(config: GatewayConfig, stop: CancellationToken) -> Result<Self, FabricError> {
        let FabricConfig { address, key } = config.fabric;
        let connection = Connection::open(&address, "neurino gateway").await?;
        let inner = Arc::new(Inner {
            id: hex::encode(rand::random::<[u8; 16]>()),
            subjects: Subjects::of(&config.network),
            network: config.network,
            links: Arc::new(Semaphore::new(config.limits.sessions_max)),
            newcomers: Newcomers::default(),
            client_address_header: config.client_address_header,
            large: Arc::new(Semaphore::new(LARGE_MIB)),
            limits: config.limits,
            queue: jetstream::new(connection.client.clone()),
            client: connection.client,
            key,
            live: watch::Sender::new(None),
            sending: tokio::sync::Mutex::default(),
            circuits: Mutex::default(),
            last_circuit: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop,
        });
        let conductor = Conductor {
            gateway: Arc::clone(&inner),
            router: None,
            session: 0,
            asked: None,
            order: None,
            heard: Instant::now(),
        };
        inner.tasks.spawn(conductor.run(connection.losses));
        Ok(Self(inner))
    }

    /// Whether a coordinator answers.
    pub fn is_connected(&self) -> bool {
        self.0.live.borrow().is_some()
    }

    /// What it answers: everything a coordinator does.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/node/link", get(socket::link))
            .fallback(relay::relay)
            .method_not_allowed_fallback(no_such_method)
            .layer(axum::middleware::map_response(with_request_id))
            .with_state(Arc::clone(&self.0))
    }

    /// Serves nodes and clients until `stop` is cancelled, encrypted if there is a certificate.
    ///
    /// The listener must have passed [`crate::check_listen_address`].
    ///
    /// # Errors
    /// `Listener`.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Tls>) -> Result<(), FabricError> {
        let (stop, at) = (&self.0.stop, (listener, tls));
        let served = serve(&self.0.limits, stop, self.router(), at, stop.clone()).await;
        stop.cancel();
        self.0.tasks.close();
        // Nodes connect elsewhere; whoever does not let go is left.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.0.tasks.wait()).await;
        served.map_err(FabricError::Listener)
    }
}

impl Inner {
    fn circuits(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Heard>>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that a request comes from, as the coordinator itself would see it.
    fn caller_of(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Option<IpAddr> {
        address_of(peer.copied(), headers, self.client_address_header.as_deref())
    }

    /// The session, or the next one that begins within a time.
    async fn session(&self, within: Duration) -> Option<Live> {
        let mut live = self.live.subscribe();
        let found = live.wait_for(Option::is_some);
        let found = tokio::select! {
            () = self.stop.cancelled() => return None,
            found = tokio::time::timeout(within, found) => found,
        };
        *found.ok()?.ok()?
    }

    fn open(self: &Arc<Self>, live: Live) -> Circuit {
        let id = self.last_circuit.fetch_add(1, Ordering::Relaxed) + 1;
        let (tell, heard) = mpsc::channel(WAITING);
        self.circuits().insert(id, tell);
        // A session that ended meanwhile has not seen this one to end it.
        if *self.live.borrow() != Some(live) {
            self.circuits().remove(&id);
        }
        Circuit { gateway: Arc::clone(self), live, id, heard, over: false }
    }

    /// Tells the router something, in order, if the session still holds.
    async fn say(&self, live: Live, circuit: u64, say: UpSay, bytes: &[u8]) -> Result<(), Lost> {
        let mut sending = self.sending.lock().await;
        if sending.live != Some(live) {
            return Err(Lost);
        }
        sending.order += 1;
        self.publish(live, sending.order, circuit, say, bytes).await
    }

    async fn publish(
        &self,
        live: Live,
        order: u64,
        circuit: u64,
        say: UpSay,
        bytes: &[u8],
    ) -> Result<(), Lost> {
        let Live { reign, session } = live;
        let up = Up { gateway: self.id.clone(), reign, session, order, circuit, say };
        let sealed = self.key.seal(&self.subjects.link, &pack(&up, bytes));
        self.client.publish(self.subjects.link.clone(), sealed.into()).await.map_err(|_| Lost)
    }
}

impl Circuit {
    async fn say(&self, say: UpSay, bytes: &[u8]) -> Result<(), Lost> {
        self.gateway.say(self.live, self.id, say, bytes).await
    }

    /// What the router says next; `None` when the session, or what was said in it, is lost.
    async fn hear(&mut self) -> Option<Heard> {
        let heard = self.heard.recv().await;
        if heard.is_none() {
            self.leave().await;
        }
        heard
    }

    /// Ends it without withdrawing anything: what it is about goes on in another one.
    async fn leave(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            // In a session that is over, there is nothing to leave.
            let _ = self.say(UpSay::Leave, &[]).await;
        }
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        self.gateway.circuits().remove(&self.id);
        if self.over || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (gateway, live, id) = (Arc::clone(&self.gateway), self.live, self.id);
        self.gateway.tasks.spawn(async move {
            // A router that does not hear it has nothing of this session anyway.
            let _ = gateway.say(live, id, UpSay::Close, &[]).await;
        });
    }
}

/// Keeps the session with whoever routes.
struct Conductor {
    gateway: Arc<Inner>,
    router: Option<Reign>,
    session: u64,
    /// When the beginning was sent that is not answered yet.
    asked: Option<Instant>,
    order: Option<Order>,
    /// When the router was heard last.
    heard: Instant,
}

impl Conductor {
    async fn run(mut self, mut losses: watch::Receiver<u64>) {
        let gateway = Arc::clone(&self.gateway);
        let own = gateway.subjects.gateway(&gateway.id);
        let subscribed = tokio::try_join!(
            gateway.client.subscribe(gateway.subjects.owner.clone()),
            gateway.client.subscribe(own.clone()),
        );
        let Ok((mut owners, mut said)) = subscribed else { return };
        let mut tick = interval(ALIVE / 4);
        let mut alive = Instant::now();
        loop {
            tokio::select! {
                () = gateway.stop.cancelled() => break,
                Some(message) = said.next() => {
                    if let Some(plain) = gateway.key.open(&own, &message.payload)
                        && let Some((down, bytes)) = unpack::<Down>(&plain)
                    {
                        self.hear(down, bytes).await;
                    }
                }
                Some(message) = owners.next() => {
                    let subject = &gateway.subjects.owner;
                    if let Some(plain) = gateway.key.open(subject, &message.payload)
                        && let Some((owner, _)) = unpack::<Owner>(&plain)
                    {
                        self.owner(owner.reign).await;
                    }
                }
                Ok(()) = losses.changed() => self.begin().await,
                _ = tick.tick() => {
                    if self.asked.is_some_and(|asked| asked.elapsed() >= BEGIN_WAIT) {
                        self.begin().await;
                    }
                    if self.heard.elapsed() >= SILENCE && self.order.is_some() {
                        tracing::warn!("no coordinator is heard");
                        self.end().await;
                    }
                    let live = *gateway.live.borrow();
                    if let Some(live) = live.filter(|_| alive.elapsed() >= ALIVE) {
                        alive = Instant::now();
                        // A session that is over is noticed elsewhere.
                        let _ = gateway.say(live, 0, UpSay::Alive, &[]).await;
                    }
                }
                else => break,
            }
        }
        self.end().await;
    }

    /// The router shows itself. One of an earlier time is not listened to.
    async fn owner(&mut self, reign: Reign) {
        match self.router {
            Some(known) if reign < known => {}
            Some(known) if reign == known => {
                self.heard = Instant::now();
                // It was silent for a while.
                if self.order.is_none() && self.asked.is_none() {
                    self.begin().await;
                }
            }
            _ => {
                self.router = Some(reign);
                self.heard = Instant::now();
                self.begin().await;
            }
        }
    }

    /// Ends the session; nodes and clients wait for the next one.
    async fn end(&mut self) {
        (self.order, self.asked) = (None, None);
        self.gateway.sending.lock().await.live = None;
        self.gateway.live.send_replace(None);
        self.gateway.circuits().clear();
    }

    async fn begin(&mut self) {
        self.end().await;
        let Some(reign) = self.router else { return };
        self.session += 1;
        self.asked = Some(Instant::now());
        let live = Live { reign, session: self.session };
        // Repeated unless it is answered.
        let _ = self.gateway.publish(live, 0, 0, UpSay::Begin, &[]).await;
    }

    async fn hear(&mut self, down: Down, bytes: &[u8]) {
        if Some(down.reign) != self.router || down.session != self.session {
            return;
        }
        let live = Live { reign: down.reign, session: down.session };
        match down.say {
            DownSay::Begun => {
                if self.asked.take().is_some() {
                    self.order = Some(Order::begun(down.session));
                    let sending = Sending { live: Some(live), order: 0 };
                    *self.gateway.sending.lock().await = sending;
                    self.gateway.live.send_replace(Some(live));
                    self.heard = Instant::now();
                    tracing::info!(epoch = live.reign.epoch, "the coordinator is there");
                }
            }
            DownSay::Again if self.order.is_some() => self.begin().await,
            DownSay::Again => {}
            say => match self.order.as_mut().map(|o| o.hear(down.session, down.order)) {
                Some(Verdict::Take) if matches!(say, DownSay::Over) => {
                    tracing::info!("the coordinator ends; waiting for another one");
                    self.end().await;
                }
                Some(Verdict::Take) => {
                    self.heard = Instant::now();
                    self.tell(down.circuit, say, bytes);
                }
                Some(Verdict::Missing) => self.begin().await,
                Some(Verdict::Drop) | None => {}
            },
        }
    }

    /// Hands it to its circuit. One that does not read is lost, and begins anew when it does.
    fn tell(&self, circuit: u64, say: DownSay, bytes: &[u8]) {
        let heard = match say {
            DownSay::Text { more } => Heard::Text { bytes: bytes.to_vec(), more },
            DownSay::Head { status, headers } => Heard::Head { status, headers },
            DownSay::Body => Heard::Body(bytes.to_vec()),
            DownSay::End { broken } => Heard::End { broken },
            DownSay::Begun | DownSay::Again | DownSay::Over => return,
        };
        let mut circuits = self.gateway.circuits();
        if circuits.get(&circuit).is_some_and(|tell| tell.try_send(heard).is_err()) {
            circuits.remove(&circuit);
        }
    }
}

#[cfg(test)]
mod tests;
