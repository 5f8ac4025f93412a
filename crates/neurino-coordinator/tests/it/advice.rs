//! Which model nodes are told to load.

use neurino_coordinator::{Limits, PayerId};
use neurino_core::ModelId;
use neurino_protocol::node::{Advice, CoordinatorMessage, ModelOffer, NodeMessage, Ready};

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, OTHER_MODEL, World, eventually, short_limits, spec};

fn quick() -> Limits {
    Limits { advice_round_ms: 50, advice_dwell_ms: 400, ..short_limits() }
}

fn ready(models: &[&str], advised: bool) -> Ready {
    let offer = |name: &&str| ModelOffer::text(ModelId::new(*name).unwrap());
    Ready { advised, ..Ready::new(models.iter().map(offer).collect(), 1) }
}

async fn advice(node: &mut Node) -> Advice {
    loop {
        if let CoordinatorMessage::Advice(advice) = node.hear_anything().await {
            return advice;
        }
    }
}

#[tokio::test]
async fn the_node_that_can_is_told_what_is_waited_for() {
    let world = World::with(quick()).await;
    for number in 0..6 {
        let job = spec(OTHER_MODEL, &format!("job {number}"));
        world.coordinator.submit_job(PayerId::local(), None, job).await.unwrap();
    }
    // It has only what nobody waits for.
    let mut small = Identity::new("small").connect(&world.coordinator).await;
    small.say(NodeMessage::Ready(ready(&[MODEL], true))).await;
    // Its owner takes no advice, or its program knows of none.
    let mut old = Identity::new("old").connect(&world.coordinator).await;
    old.say(NodeMessage::Ready(ready(&[MODEL, OTHER_MODEL], false))).await;
    let first = old.lease().await;
    // Both take a job that has its model loaded for it; the others wait.
    let mut able = Identity::new("able").connect(&world.coordinator).await;
    able.say(NodeMessage::Ready(ready(&[MODEL, OTHER_MODEL], true))).await;
    let second = able.lease().await;
    let wanted = Advice { model: Some(ModelId::new(OTHER_MODEL).unwrap()), waiting: 4, unit: None };
    assert_eq!(advice(&mut able).await, wanted);
    able.submit(&second, output("hello", 3)).await;
    able.settled().await;
    able.say(NodeMessage::Ready(ready(&[OTHER_MODEL, MODEL], true))).await;
    old.submit(&first, output("hello", 3)).await;
    let waits = |message: CoordinatorMessage| {
        assert!(!matches!(message, CoordinatorMessage::Advice(_)), "{message:?}");
    };
    while let Ok(message) = small.session.messages.try_recv() {
        waits(message);
    }
    while let Ok(message) = old.session.messages.try_recv() {
        waits(message);
    }
    drop(old);
    // It does what it was told; there is nothing more to say while the demand stays as it is.
    for _ in 0..3 {
        let lease = able.lease().await;
        able.submit(&lease, output("hello", 3)).await;
        able.settled().await;
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn what_nobody_asks_for_is_unloaded_once() {
    let world = World::with(Limits { advice_idle_ms: 300, ..quick() }).await;
    let mut node = Identity::new("rig").connect(&world.coordinator).await;
    node.say(NodeMessage::Ready(ready(&[MODEL, OTHER_MODEL], true))).await;
    assert_eq!(advice(&mut node).await, Advice { model: None, waiting: 0, unit: None });
    node.say(NodeMessage::Ready(Ready { cold: true, ..ready(&[MODEL, OTHER_MODEL], true) })).await;
    assert!(node.hears_nothing(900).await, "it is said once");
    // A job comes to it all the same, and has its model loaded.
    world.submit("hi").await;
    let lease = node.lease().await;
    node.say(NodeMessage::Ready(ready(&[MODEL, OTHER_MODEL], true))).await;
    node.submit(&lease, output("hello", 3)).await;
    node.settled().await;
}

#[tokio::test]
async fn a_network_may_give_no_advice() {
    let world = World::with(Limits { advice_round_ms: 0, advice_idle_ms: 1, ..quick() }).await;
    let mut node = Identity::new("rig").connect(&world.coordinator).await;
    node.say(NodeMessage::Ready(ready(&[MODEL, OTHER_MODEL], true))).await;
    let connected = async || world.coordinator.jobs_overview().nodes == 1;
    eventually("the node is connected", connected).await;
    assert!(node.hears_nothing(400).await);
}
