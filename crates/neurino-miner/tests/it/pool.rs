//! A coordinator by hand: the test holds the other end of every session.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use neurino_client::{ClientError, Coordinator, Session};
use neurino_core::{
    ChatMessage, EventId, JobId, JobSpec, Lease, LeaseId, MicroPoints, ModelId, Multiplier, NodeId,
    PointsKind, Quote, Receipt, Role, TextJob, Usage,
};
use neurino_protocol::node::{Capabilities, CoordinatorMessage, NodeMessage, Ready, Submission};
use neurino_wallet::{IdentityKey, verify};
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

pub(crate) const NETWORK: &str = "test-net";
pub(crate) const MODEL: &str = "tiny";
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How the next attempts to connect end, before they succeed.
pub(crate) enum Trouble {
    Refuse(ClientError),
    Hang,
}

/// Hands one end of each session to the miner and the other to the test.
pub(crate) struct Pool {
    pub(crate) key: Arc<IdentityKey>,
    pub(crate) trouble: Mutex<VecDeque<Trouble>>,
    room: usize,
    peers: mpsc::Sender<Peer>,
}

/// Where the test waits for sessions.
pub(crate) struct Peers(mpsc::Receiver<Peer>);

impl Pool {
    /// A pool whose links hold so many messages in each direction.
    pub(crate) fn new(room: usize) -> (Arc<Self>, Peers) {
        let (peers, arrivals) = mpsc::channel(16);
        let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
        (Arc::new(Self { key, trouble: Mutex::default(), room, peers }), Peers(arrivals))
    }
}

#[async_trait]
impl Coordinator for Pool {
    async fn connect(
        &self,
        _key: &IdentityKey,
        _node: &NodeId,
        _capabilities: &Capabilities,
    ) -> Result<Session, ClientError> {
        let trouble = self.trouble.lock().unwrap().pop_front();
        match trouble {
            Some(Trouble::Refuse(error)) => return Err(error),
            Some(Trouble::Hang) => std::future::pending().await,
            None => {}
        }
        let (outbox, from_node) = mpsc::channel(self.room);
        let (to_node, messages) = mpsc::channel(self.room);
        self.peers.try_send(Peer { key: self.key.clone(), from_node, to_node }).unwrap();
        Ok(Session { network: NETWORK.into(), coordinator: self.key.address(), outbox, messages })
    }

    fn address(&self) -> String {
        "the test".into()
    }
}

impl Peers {
    pub(crate) async fn next(&mut self) -> Peer {
        timeout(SOON, self.0.recv()).await.expect("a session in time").unwrap()
    }

    /// The next session, once the node takes jobs there.
    pub(crate) async fn ready(&mut self) -> Peer {
        let mut peer = self.next().await;
        peer.ready().await;
        peer
    }
}

/// The coordinator's end of a session.
pub(crate) struct Peer {
    key: Arc<IdentityKey>,
    pub(crate) from_node: mpsc::Receiver<NodeMessage>,
    pub(crate) to_node: mpsc::Sender<CoordinatorMessage>,
}

impl Peer {
    pub(crate) async fn next(&mut self) -> Option<NodeMessage> {
        timeout(SOON, self.from_node.recv()).await.expect("a message in time")
    }

    /// The next message that `pick` accepts; others are skipped.
    pub(crate) async fn wait<T>(&mut self, pick: impl Fn(NodeMessage) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the session is open");
            if let Some(found) = pick(message) {
                return found;
            }
        }
    }

    pub(crate) async fn ready(&mut self) -> Ready {
        self.wait(|m| match m {
            NodeMessage::Ready(ready) if ready.slots > 0 => Some(ready),
            _ => None,
        })
        .await
    }

    pub(crate) async fn paused(&mut self) {
        self.wait(|m| matches!(m, NodeMessage::Ready(r) if r.slots == 0).then_some(())).await;
    }

    pub(crate) async fn say(&self, message: CoordinatorMessage) {
        timeout(SOON, self.to_node.send(message)).await.expect("room in time").unwrap();
    }

    pub(crate) async fn assign(&self, lease: &Lease) {
        self.say(CoordinatorMessage::Assign(lease.clone())).await;
    }

    /// The next submission, with everything checked that a coordinator checks.
    pub(crate) async fn submission(&mut self) -> Submission {
        let submission = self
            .wait(|m| match m {
                NodeMessage::Submit(submission) => Some(submission),
                _ => None,
            })
            .await;
        let statement = &submission.statement;
        assert_eq!(submission.output.digest(), statement.digest);
        let address = statement.node.as_str().split('-').next().unwrap();
        verify(&statement.message(), &submission.signature, address).unwrap();
        submission
    }

    /// A receipt as an honest coordinator makes it.
    pub(crate) fn receipt(&self, submission: &Submission) -> Receipt {
        let statement = &submission.statement;
        let mut receipt = Receipt {
            event: EventId(statement.lease.0),
            job: statement.job,
            lease: statement.lease,
            node: statement.node.clone(),
            model: ModelId::new(MODEL).unwrap(),
            usage: Usage { prompt_tokens: 10, completion_tokens: 5 },
            rule_set: "test".into(),
            quote: Quote {
                points: PointsKind::Llama,
                units: 15,
                base_micro: MicroPoints(15_000),
                factor: Multiplier::ONE,
                multiplier: Multiplier::ONE,
                amount_micro: MicroPoints(15_000),
            },
            digest: statement.digest,
            duration_ms: 12,
            settled_at_ms: 1_700_000_000_000,
            network: NETWORK.into(),
            coordinator: self.key.address(),
            signature: String::new(),
        };
        receipt.signature = self.key.sign(&receipt.message());
        receipt
    }

    pub(crate) async fn settle(&self, submission: &Submission) {
        self.say(CoordinatorMessage::Settled(self.receipt(submission))).await;
    }
}

/// A lease of a small job.
pub(crate) fn lease(budget_ms: u64) -> Lease {
    Lease {
        id: LeaseId(Uuid::new_v4()),
        job: JobId(Uuid::now_v7()),
        fence: 1,
        spec: JobSpec::Text(TextJob::new(
            ModelId::new(MODEL).unwrap(),
            vec![ChatMessage::new(Role::User, "hi")],
            64,
        )),
        budget_ms,
        quote_micro: MicroPoints(74_000),
        points: PointsKind::Llama,
        rule_set: "test".into(),
        unit: None,
    }
}
