//! Streams that do not begin.

use neurino_coordinator::Limits;
use neurino_protocol::ErrorCode;

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, short_limits};

/// Without second leases, which would come first.
fn limits() -> Limits {
    Limits { first_piece_ms: 300, hedge_permille: 0, silence_ms: 60_000, ..short_limits() }
}

/// A node whose first words come at once, three times.
async fn timed(world: &World) -> Node {
    let mut node = Node::ready(&world.coordinator).await;
    for word in ["one", "two", "three"] {
        world.submit(word).await;
        let lease = node.lease().await;
        node.stream(&lease, "wo").await;
        node.submit(&lease, output("word", 1)).await;
        node.settled().await;
    }
    node
}

#[tokio::test]
async fn a_job_that_is_not_begun_goes_to_another_node() {
    let world = World::with(limits()).await;
    let mut hangs = timed(&world).await;
    let job = world.submit("slow").await;
    let lease = hangs.lease().await;
    assert_eq!(lease.job, job);
    assert!(hangs.hears_nothing(600).await, "there is nobody else");
    let mut other = Identity::new("rig2").connect(&world.coordinator).await;
    other.announce(&[MODEL], 1).await;
    let again = other.lease().await;
    assert_eq!((again.job, again.fence > lease.fence), (job, true));
    assert_eq!(hangs.cancelled().await, (lease.id, ErrorCode::DeadlinePassed));
    // It is too late now.
    hangs.submit(&lease, output("word", 1)).await;
    hangs.rejected().await;
    other.stream(&again, "done").await;
    other.submit(&again, output("done", 1)).await;
    assert_eq!(other.settled().await.job, job);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn who_began_or_has_to_load_first_has_its_time() {
    let world = World::with(limits()).await;
    let mut node = timed(&world).await;
    world.submit("slow").await;
    let lease = node.lease().await;
    node.stream(&lease, "wo").await;
    let mut other = Identity::new("rig2").connect(&world.coordinator).await;
    other.announce(&["hermes-3-llama3.1-8b", MODEL], 1).await;
    assert!(node.hears_nothing(600).await, "it has begun");
    // The other one has to load the model for this; nobody else is free.
    world.submit("cold").await;
    let cold = other.lease().await;
    node.submit(&lease, output("word", 1)).await;
    node.settled().await;
    assert!(other.hears_nothing(600).await, "loading is no hanging");
    other.submit(&cold, output("word", 1)).await;
    other.settled().await;
}

#[tokio::test]
async fn it_can_be_switched_off_and_needs_a_measure() {
    for first_piece_ms in [0, 300] {
        let world = World::with(Limits { first_piece_ms, ..limits() }).await;
        let measured = first_piece_ms == 0;
        let mut hangs =
            if measured { timed(&world).await } else { Node::ready(&world.coordinator).await };
        world.submit("slow").await;
        hangs.lease().await;
        let other = Identity::new("rig2").connect(&world.coordinator).await;
        other.announce(&[MODEL], 1).await;
        assert!(hangs.hears_nothing(700).await, "{first_piece_ms}");
    }
}
