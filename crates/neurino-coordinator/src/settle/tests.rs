//! What settlement keeps in memory and in receipts when the clock is set, or when it breaks off.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use futures::FutureExt as _;
use neurino_client::{Coordinator as _, Session};
use neurino_core::{ChatMessage, FinishReason, Lease, ModelId, Role, TextJob, TextOutput};
use neurino_protocol::node::{Capabilities, ModelOffer, NodeMessage, Ready};
use neurino_wallet::IdentityKey;
use tempfile::TempDir;

use super::*;
use crate::clock::{SET_BY, now_ms};
use crate::{CoordinatorConfig, Limits};

const MODEL: &str = "smollm2-135m-instruct";
const HOUR_MS: i64 = 3_600_000;

struct World {
    _folder: TempDir,
    coordinator: Arc<Coordinator>,
    key: IdentityKey,
    node: NodeId,
    session: Session,
}

impl World {
    /// A coordinator for which no time passes, and a node.
    async fn new(limits: Limits) -> Self {
        SET_BY.set(0);
        let folder = tempfile::tempdir().unwrap();
        let own = Arc::new(IdentityKey::generate(&mut rand::rng()));
        let practice = CoordinatorConfig::practice(folder.path().join("books.sqlite"), own);
        let config = CoordinatorConfig { limits, ..practice };
        let coordinator = Coordinator::open_without_timers(config).await.unwrap();
        let key = IdentityKey::generate(&mut rand::rng());
        let node = NodeId::new(format!("{}-n", key.address())).unwrap();
        let capabilities =
            Capabilities { device: "none".into(), memory_bytes: 0, gpu: false, referred_by: None };
        let session = coordinator.local().connect(&key, &node, &capabilities).await.unwrap();
        let offer = ModelOffer::text(ModelId::new(MODEL).unwrap());
        session.outbox.send(NodeMessage::Ready(Ready::new(vec![offer], 1))).await.unwrap();
        Self { _folder: folder, coordinator, key, node, session }
    }

    async fn submit(&self) -> JobId {
        let model = ModelId::new(MODEL).unwrap();
        let messages = vec![ChatMessage::new(Role::User, "hi")];
        let spec = JobSpec::Text(TextJob::new(model, messages, 64));
        self.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap()
    }

    async fn lease(&mut self) -> Lease {
        loop {
            if let Some(CoordinatorMessage::Assign(lease)) = self.session.messages.recv().await {
                return lease;
            }
        }
    }

    /// A signed result of 40 tokens.
    fn result(&self, lease: &Lease) -> Submission {
        let usage = Usage { prompt_tokens: 10, completion_tokens: 40 };
        let text = TextOutput::single("word ".repeat(40), FinishReason::Stop, usage);
        let output = JobOutput::Text(text);
        let statement = ResultStatement {
            job: lease.job,
            lease: lease.id,
            fence: lease.fence,
            node: self.node.clone(),
            digest: output.digest(),
        };
        let signature = self.key.sign(&statement.message());
        Submission { statement, signature, output }
    }

    async fn settled(&self, lease: &Lease) -> Receipt {
        let settled = self.coordinator.settle(&self.node, self.result(lease), Proof::Statement);
        match settled.await {
            Some(CoordinatorMessage::Settled(receipt)) => receipt,
            other => panic!("expected a receipt, got {other:?}"),
        }
    }

    /// A job whose node takes a moment, in which the clock is set.
    async fn paid_while_set_by(&mut self, ms: i64) -> Receipt {
        self.submit().await;
        let lease = self.lease().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        SET_BY.set(SET_BY.get() + ms);
        self.settled(&lease).await
    }

    fn fastest(&self) -> f64 {
        let model = ModelId::new(MODEL).unwrap();
        self.coordinator.state().router.fastest(&model).unwrap_or(0.0)
    }
}

#[tokio::test]
async fn a_clock_that_is_set_makes_no_node_fast_or_slow() {
    let mut world = World::new(Limits::default()).await;
    // By as much as nobody minds otherwise.
    for ms in [-20_000, 20_000, -20_000] {
        let receipt = world.paid_while_set_by(ms).await;
        assert!((25..15_000).contains(&receipt.duration_ms), "{ms}: {}", receipt.duration_ms);
        // Forty tokens in thirty milliseconds.
        assert!(world.fastest() < 2_000.0, "{ms}: {}", world.fastest());
    }
    world.coordinator.shutdown().await;
}

#[tokio::test]
async fn what_is_paid_under_a_clock_that_jumped_bears_the_time_that_was() {
    let limits = Limits { payload_keep_ms: 1_000, disputed_keep_ms: 1_000, ..Limits::default() };
    let mut world = World::new(limits).await;
    let before = now_ms();
    let job = world.submit().await;
    let lease = world.lease().await;
    SET_BY.set(365 * 24 * HOUR_MS);
    let receipt = world.settled(&lease).await;
    assert!((before..before + 60_000).contains(&receipt.settled_at_ms), "{receipt:?}");
    world.coordinator.prune().await;
    let kept = world.coordinator.store.job(job).await.unwrap().unwrap();
    assert!(!kept.shredded, "nothing is shredded under such a clock");
    // Set right again: nothing of it stayed.
    SET_BY.set(0);
    let receipt = world.paid_while_set_by(0).await;
    assert!((before..before + 60_000).contains(&receipt.settled_at_ms), "{receipt:?}");
    world.coordinator.shutdown().await;
}

#[tokio::test]
async fn a_settlement_that_breaks_off_leaves_the_lease_to_its_node() {
    let mut world = World::new(Limits::default()).await;
    world.submit().await;
    let lease = world.lease().await;
    let phase = |world: &World| world.coordinator.state().leases[&lease.id].phase.clone();
    let mut settling = Box::pin(world.coordinator.settle_claimed(
        &world.node,
        world.result(&lease),
        Proof::Statement,
    ));
    assert!(settling.as_mut().now_or_never().is_none(), "the result is looked at elsewhere");
    assert_eq!(phase(&world), LeasePhase::Settling);
    drop(settling);
    assert_eq!(phase(&world), LeasePhase::Running);
    world.settled(&lease).await;
    world.coordinator.shutdown().await;
}
