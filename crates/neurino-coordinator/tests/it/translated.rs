//! Our client of the original protocol against our server of it, over real sockets.

use std::sync::Arc;

use neurino_client::{Coordinator as _, OriginalCoordinator, OriginalOptions};
use neurino_coordinator::{JobUpdate, Limits, PayerId};
use neurino_core::{JobOutput, JobSpec, Lease, LeaseId};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready};
use tokio_util::sync::CancellationToken;

use crate::node::{Identity, Node, capabilities, output};
use crate::pictures::{PAINTER, asked, job as picture_job, noise, picture, usual};
use crate::world::{MODEL, World, short_limits};

/// A coordinator behind its real edge.
struct Served {
    world: World,
    url: String,
    stop: CancellationToken,
}

impl Served {
    async fn new(limits: Limits) -> Self {
        let world = World::original(limits).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let (coordinator, stopping) = (Arc::clone(&world.coordinator), stop.clone());
        tokio::spawn(async move { coordinator.serve(listener, stopping).await });
        Self { world, url, stop }
    }

    /// A node that speaks through the translation, and takes work for a model.
    async fn connect(
        &self,
        identity: &Identity,
        reward: Option<String>,
        offer: ModelOffer,
    ) -> Node {
        let options = OriginalOptions { reward, ..OriginalOptions::at(&self.url) };
        let coordinator = OriginalCoordinator::new(&options).unwrap();
        let session =
            coordinator.connect(&identity.key, &identity.id, &capabilities()).await.unwrap();
        let node = Node { identity: identity.clone(), session };
        node.say(NodeMessage::Ready(Ready::new(vec![offer], 1))).await;
        node
    }

    async fn writer(&self, identity: &Identity) -> Node {
        let model = neurino_core::ModelId::new(MODEL).unwrap();
        self.connect(identity, None, ModelOffer::text(model)).await
    }

    async fn end(self) {
        self.world.assert_books_hold().await;
        self.stop.cancel();
    }
}

async fn accepted(node: &mut Node) -> LeaseId {
    match node.hear().await {
        CoordinatorMessage::Accepted { lease } => lease,
        other => panic!("expected to be accepted, got {other:?}"),
    }
}

fn text_of(lease: &Lease) -> &neurino_core::TextJob {
    match &lease.spec {
        JobSpec::Text(job) => job,
        JobSpec::Image(_) => panic!("a picture"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_handed_in_whole_and_the_next_one_word_by_word() {
    let served = Served::new(short_limits()).await;
    let identity = Identity::new("rig1");
    let mut node = served.writer(&identity).await;
    let first = served.world.submit("Say hi").await;
    let lease = node.lease().await;
    assert_eq!(text_of(&lease).messages[0].content, "Say hi");
    assert_eq!((text_of(&lease).max_tokens, text_of(&lease).stop.len()), (64, 4));
    node.submit(&lease, output("Grüße: \"hi\"", 3)).await;
    assert_eq!(accepted(&mut node).await, lease.id);
    let mut watch = served.world.coordinator.watch_job(first).await.unwrap();
    let Some(JobUpdate::Finished { output: answer, receipt }) = watch.next().await else {
        panic!("it ended")
    };
    let JobOutput::Text(answer) = answer else { panic!("a text") };
    assert_eq!((answer.text(), receipt.node), ("Grüße: \"hi\"", identity.id.clone()));

    let second = served.world.submit("Say more").await;
    let mut watch = served.world.coordinator.watch_job(second).await.unwrap();
    let lease = node.lease().await;
    node.stream(&lease, "The light").await;
    node.stream(&lease, "house keeper").await;
    let mut told = String::new();
    while told != "The lighthouse" {
        match watch.next().await.unwrap() {
            JobUpdate::Delta(delta) => told.push_str(&delta.text),
            JobUpdate::Finished { .. } | JobUpdate::Failed(_) => panic!("only {told} was told"),
            _ => {}
        }
    }
    node.submit(&lease, output("The lighthouse keeper sleeps.", 5)).await;
    assert_eq!(accepted(&mut node).await, lease.id);
    loop {
        match watch.next().await.unwrap() {
            JobUpdate::Finished { output: JobOutput::Text(answer), .. } => {
                assert_eq!(answer.text(), "The lighthouse keeper sleeps.");
                break;
            }
            JobUpdate::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_uploaded_and_handed_in() {
    let served = Served::new(short_limits()).await;
    let offer =
        ModelOffer { id: neurino_core::ModelId::new(PAINTER).unwrap(), image: Some(usual()) };
    let mut node = served.connect(&Identity::new("rig1"), None, offer).await;
    let coordinator = &served.world.coordinator;
    crate::world::eventually("it is known", async || {
        let spec = JobSpec::Image(picture_job(7));
        coordinator.submit_job(PayerId::local(), None, spec).await.is_ok()
    })
    .await;
    let lease = node.lease().await;
    assert_eq!(*asked(&lease), picture_job(7));
    node.submit(&lease, noise(asked(&lease))).await;
    accepted(&mut node).await;
    let spec = JobSpec::Image(picture_job(8));
    coordinator.submit_job(PayerId::local(), None, spec).await.unwrap();
    let lease = node.lease().await;
    let mut wrong = picture_job(8);
    wrong.width = 128;
    node.submit(&lease, picture(&wrong)).await;
    assert_eq!(node.rejected().await, ErrorCode::InvalidRequest, "of another size");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_foreign_results_come_back_as_such() {
    let served = Served::new(Limits { text_budget_ms: 400, ..short_limits() }).await;
    let identity = Identity::new("rig1");
    let mut node = served.writer(&identity).await;
    served.world.submit("one").await;
    let lease = node.lease().await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    node.submit(&lease, output("late", 1)).await;
    assert_eq!(node.rejected().await, ErrorCode::StaleLease);
    let lease = node.lease().await;
    node.submit(&lease, output("in time", 1)).await;
    accepted(&mut node).await;
    drop(node);

    // The address has its key now.
    let thief = Identity::new("rig2");
    let model = neurino_core::ModelId::new(MODEL).unwrap();
    let reward = Some(identity.key.address());
    let mut node = served.connect(&thief, reward, ModelOffer::text(model)).await;
    served.world.submit("two").await;
    let lease = node.lease().await;
    node.submit(&lease, output("stolen", 1)).await;
    assert_eq!(node.rejected().await, ErrorCode::Unauthorized);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_and_silence_reach_the_miner() {
    let served = Served::new(short_limits()).await;
    let identity = Identity::new("rig1");
    // Its own protocol is connected under that id already.
    let own = identity.connect(&served.world.coordinator).await;
    let mut node = served.writer(&identity).await;
    match node.hear().await {
        CoordinatorMessage::Notice(error) => {
            assert!(error.message.starts_with("the network says: a node that signs"), "{error}");
        }
        other => panic!("expected a notice, got {other:?}"),
    }
    drop(own);
    served.stop.cancel();
    loop {
        match node.hear().await {
            CoordinatorMessage::Bye(error) => {
                assert_eq!(error.code, ErrorCode::Unreachable);
                break;
            }
            CoordinatorMessage::Notice(_) => {}
            other => panic!("expected the end, got {other:?}"),
        }
    }
}
