//! A node by hand: opens a session in process and says what the test tells it to.

use std::time::Duration;

use neurino_client::{Coordinator as _, Session};
use neurino_coordinator::Coordinator;
use neurino_core::{
    FinishReason, JobOutput, Lease, LeaseId, ModelId, NodeId, Receipt, ResultStatement, TextDelta,
    TextOutput, Usage,
};
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, Hello, ModelOffer, NodeMessage, PROTOCOL_VERSION, Ready,
    Submission,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use std::sync::Arc;

use crate::world::{MODEL, PATIENCE};

/// What outlives a session.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) key: Arc<IdentityKey>,
    pub(crate) id: NodeId,
}

impl Identity {
    pub(crate) fn new(tag: &str) -> Self {
        let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
        let id = NodeId::new(format!("{}-{tag}", key.address())).unwrap();
        Self { key, id }
    }

    /// A signed hello of a device of the same key, which connected on this machine.
    pub(crate) fn hello(&self, network: &str, coordinator: &str, nonce: &str) -> Hello {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            origin: "http://127.0.0.1:43110".into(),
            coordinator: coordinator.into(),
            device: self.key.address(),
            device_signature: String::new(),
            token: None,
            node: self.id.clone(),
            nonce: nonce.into(),
            signature: String::new(),
            agent: "test/1".into(),
            capabilities: capabilities(),
        };
        self.signed(hello, network, &self.key)
    }

    /// A hello signed again, after something in it changed.
    pub(crate) fn signed(&self, hello: Hello, network: &str, device: &IdentityKey) -> Hello {
        let mut hello = Hello { device: device.address(), ..hello };
        let message = hello.message(network);
        hello.device_signature = device.sign(&message);
        hello.signature = self.key.sign(&message);
        hello
    }

    pub(crate) async fn connect(&self, coordinator: &Arc<Coordinator>) -> Node {
        let session =
            coordinator.local().connect(&self.key, &self.id, &capabilities()).await.unwrap();
        Node { identity: self.clone(), session }
    }

    /// A signed result.
    pub(crate) fn submission(&self, lease: &Lease, output: JobOutput) -> Submission {
        let statement = ResultStatement {
            job: lease.job,
            lease: lease.id,
            fence: lease.fence,
            node: self.id.clone(),
            digest: output.digest(),
        };
        let signature = self.key.sign(&statement.message());
        Submission { statement, signature, output }
    }
}

pub(crate) fn capabilities() -> Capabilities {
    Capabilities { device: "test".into(), memory_bytes: 1 << 30, gpu: false, referred_by: None }
}

pub(crate) fn output(text: &str, completion_tokens: u32) -> JobOutput {
    let usage = Usage { prompt_tokens: 10, completion_tokens };
    JobOutput::Text(TextOutput::single(text, FinishReason::Stop, usage))
}

pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) session: Session,
}

impl Node {
    /// A new node that is ready for one job at a time of the usual model.
    pub(crate) async fn ready(coordinator: &Arc<Coordinator>) -> Self {
        let node = Identity::new("rig1").connect(coordinator).await;
        node.announce(&[MODEL], 1).await;
        node
    }

    pub(crate) async fn announce(&self, models: &[&str], slots: u32) {
        let models = models.iter().map(|m| ModelOffer::text(ModelId::new(*m).unwrap())).collect();
        self.say(NodeMessage::Ready(Ready::new(models, slots))).await;
    }

    pub(crate) async fn say(&self, message: NodeMessage) {
        self.session.outbox.send(message).await.unwrap();
    }

    pub(crate) async fn heartbeat(&self, leases: &[&Lease]) {
        self.say(NodeMessage::Heartbeat { leases: leases.iter().map(|l| l.id).collect() }).await;
    }

    pub(crate) async fn hear(&mut self) -> CoordinatorMessage {
        loop {
            let message = self.hear_anything().await;
            if !matches!(message, CoordinatorMessage::NoJob(_)) {
                return message;
            }
        }
    }

    /// The next message, also one that says why there is no job.
    pub(crate) async fn hear_anything(&mut self) -> CoordinatorMessage {
        let message = tokio::time::timeout(PATIENCE, self.session.messages.recv()).await;
        message.expect("the coordinator says something").expect("the session is open")
    }

    /// Whether nothing is said for a while.
    pub(crate) async fn hears_nothing(&mut self, wait_ms: u64) -> bool {
        let wait = Duration::from_millis(wait_ms);
        tokio::time::timeout(wait, self.hear()).await.is_err()
    }

    pub(crate) async fn lease(&mut self) -> Lease {
        match self.hear().await {
            CoordinatorMessage::Assign(lease) => lease,
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    pub(crate) async fn stream(&self, lease: &Lease, delta: &str) {
        let deltas = vec![TextDelta::text(delta)];
        self.say(NodeMessage::Progress { lease: lease.id, deltas, tokens: 1, step: None }).await;
    }

    pub(crate) async fn submit(&self, lease: &Lease, output: JobOutput) {
        self.say(NodeMessage::Submit(self.identity.submission(lease, output))).await;
    }

    pub(crate) async fn fail(&self, lease: LeaseId, code: ErrorCode) {
        self.fail_with(lease, ErrorBody::new(code, "the test said so")).await;
    }

    pub(crate) async fn fail_with(&self, lease: LeaseId, error: ErrorBody) {
        self.say(NodeMessage::Failed { lease, error }).await;
    }

    pub(crate) async fn settled(&mut self) -> Receipt {
        match self.hear().await {
            CoordinatorMessage::Settled(receipt) => receipt,
            other => panic!("expected a receipt, got {other:?}"),
        }
    }

    pub(crate) async fn rejected(&mut self) -> ErrorCode {
        match self.hear().await {
            CoordinatorMessage::Rejected { error, .. } => error.code,
            other => panic!("expected a rejection, got {other:?}"),
        }
    }

    pub(crate) async fn cancelled(&mut self) -> (LeaseId, ErrorCode) {
        match self.hear().await {
            CoordinatorMessage::Cancel { lease, code } => (lease, code),
            other => panic!("expected a cancellation, got {other:?}"),
        }
    }

    /// Answers every job in words of one token, streamed, in a task of its own.
    pub(crate) fn work(mut self, words: &'static [&'static str]) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(message) = self.session.messages.recv().await {
                if let CoordinatorMessage::Assign(lease) = message {
                    for word in words {
                        self.stream(&lease, word).await;
                    }
                    let tokens = u32::try_from(words.len()).unwrap();
                    self.submit(&lease, output(&words.concat(), tokens)).await;
                }
            }
        })
    }
}
