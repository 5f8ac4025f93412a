//! A second node for a job whose node is late: who delivers first goes on, and is the only one that is paid.

use neurino_coordinator::{JobTerms, Limits, PayerId};
use neurino_core::{JobId, Lease};
use neurino_protocol::ErrorCode;

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, eventually, short_limits, spec};

fn hedging() -> Limits {
    Limits {
        hedge_permille: 1000,
        hedge_after_ms: 200,
        timed_tokens_min: 1,
        silence_ms: 60_000,
        ..short_limits()
    }
}

/// A node that was timed, and one that was not.
async fn two(world: &World) -> (Node, Node) {
    let mut first = Node::ready(&world.coordinator).await;
    for word in ["one", "two"] {
        world.submit(word).await;
        let lease = first.lease().await;
        first.submit(&lease, output(word, 1)).await;
        first.settled().await;
    }
    let second = Identity::new("rig2").connect(&world.coordinator).await;
    (first, second)
}

/// A job that the first of them has, and is late with, so that the second one has it, too.
async fn both(world: &World, first: &mut Node, second: &mut Node) -> (JobId, Lease, Lease) {
    let job = world.submit("slow").await;
    let lease = first.lease().await;
    second.announce(&[MODEL], 1).await;
    let again = second.lease().await;
    assert_eq!((lease.job, again.job), (job, job));
    assert!(again.fence > lease.fence && again.id != lease.id);
    (job, lease, again)
}

async fn result(world: &World, job: JobId) -> String {
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    let (output, _) = watch.finished().await.unwrap();
    let neurino_core::JobOutput::Text(text) = output else { panic!("not a text") };
    text.choices[0].text.clone()
}

#[tokio::test]
async fn the_first_result_is_paid_and_the_other_node_is_told_to_stop() {
    let world = World::with(hedging()).await;
    let (mut first, mut second) = two(&world).await;
    let (job, late, fast) = both(&world, &mut first, &mut second).await;
    second.submit(&fast, output("done", 3)).await;
    let receipt = second.settled().await;
    assert_eq!((receipt.job, receipt.lease), (job, fast.id));
    assert_eq!(first.cancelled().await, (late.id, ErrorCode::StaleLease));
    // It did not listen; nothing is paid for it.
    first.submit(&late, output("done", 3)).await;
    assert_eq!(first.rejected().await, ErrorCode::StaleLease);
    assert_eq!(result(&world, job).await, "done");
    // The other way round, and both have their slots back.
    let (job, late, fast) = {
        let job = world.submit("again").await;
        let eager = tokio::time::timeout(crate::world::PATIENCE, async {
            tokio::select! { lease = first.lease() => (lease, true), lease = second.lease() => (lease, false) }
        });
        let (lease, by_first) = eager.await.unwrap();
        let other = if by_first { second.lease().await } else { first.lease().await };
        let (of_first, of_second) = if by_first { (lease, other) } else { (other, lease) };
        (job, of_first, of_second)
    };
    first.submit(&late, output("again", 3)).await;
    assert_eq!(first.settled().await.job, job);
    assert_eq!(second.cancelled().await, (fast.id, ErrorCode::StaleLease));
    let idle = async || world.coordinator.jobs_overview().leased == 0;
    eventually("no lease is left", idle).await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn the_first_to_speak_goes_on_and_its_text_is_the_one_that_is_passed_on() {
    let world = World::with(hedging()).await;
    let (mut first, mut second) = two(&world).await;
    let (job, late, fast) = both(&world, &mut first, &mut second).await;
    second.stream(&fast, "hel").await;
    assert_eq!(first.cancelled().await, (late.id, ErrorCode::StaleLease));
    first.stream(&late, "other").await;
    second.stream(&fast, "lo").await;
    second.submit(&fast, output("hello", 3)).await;
    assert_eq!(second.settled().await.lease, fast.id);
    assert_eq!(result(&world, job).await, "hello");
    // Whose text has begun to flow is late no more.
    let job = world.submit("streams").await;
    let lease = loop {
        tokio::select! {
            message = first.hear() => if let neurino_protocol::node::CoordinatorMessage::Assign(lease) = message { break (true, lease) },
            message = second.hear() => if let neurino_protocol::node::CoordinatorMessage::Assign(lease) = message { break (false, lease) },
        }
    };
    let (by_first, lease) = lease;
    let (node, other) =
        if by_first { (&mut first, &mut second) } else { (&mut second, &mut first) };
    node.stream(&lease, "a").await;
    assert!(other.hears_nothing(700).await, "a stream is never begun twice");
    node.submit(&lease, output("ab", 3)).await;
    assert_eq!(node.settled().await.job, job);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn whichever_of_the_two_fails_the_other_goes_on_also_after_a_restart() {
    let mut world = World::with(hedging()).await;
    let (mut first, mut second) = two(&world).await;
    let (job, late, fast) = both(&world, &mut first, &mut second).await;
    first.fail(late.id, ErrorCode::EngineFailed).await;
    let one_left = async || {
        let shown = world.coordinator.metrics_text();
        shown.contains("neurino_attempts_ended_total{end=\"failed\"} 1")
    };
    eventually("one attempt ended", one_left).await;
    // The books know by which lease it is held now.
    let identity = second.identity.clone();
    drop((first, second));
    world.restart().await;
    let mut second = identity.connect(&world.coordinator).await;
    second.heartbeat(&[&fast]).await;
    second.submit(&fast, output("done", 3)).await;
    assert_eq!(second.settled().await.lease, fast.id);
    assert_eq!(result(&world, job).await, "done");
    world.assert_books_hold().await;
}

#[tokio::test]
async fn nobody_goes_on_behind_the_text_of_one_that_failed() {
    for second_speaks in [true, false] {
        let world = World::with(hedging()).await;
        let (mut first, mut second) = two(&world).await;
        let (job, late, fast) = both(&world, &mut first, &mut second).await;
        let (speaker, spoken, silent, other) = if second_speaks {
            (&second, fast, &mut first, late)
        } else {
            (&first, late, &mut second, fast)
        };
        // Both messages at once: the other one's end may not be written yet when the speaker's comes.
        speaker.stream(&spoken, "garb").await;
        speaker.fail(spoken.id, ErrorCode::EngineFailed).await;
        assert_eq!(silent.cancelled().await, (other.id, ErrorCode::StaleLease));
        // The job begins anew, with an answer of one node.
        let again = silent.lease().await;
        assert_eq!(again.job, job);
        silent.submit(&again, output("done", 3)).await;
        assert_eq!(silent.settled().await.lease, again.id);
        assert_eq!(result(&world, job).await, "done");
        world.assert_books_hold().await;
    }
}

#[tokio::test]
async fn who_asked_for_one_attempt_gets_one_and_nobody_more_than_the_budget() {
    let world = World::with(hedging()).await;
    let (mut first, mut second) = two(&world).await;
    let terms = JobTerms { attempts_max: Some(1), ..JobTerms::default() };
    let job = spec(MODEL, "once");
    world.coordinator.submit_on(PayerId::local(), None, job, terms).await.unwrap();
    let lease = first.lease().await;
    second.announce(&[MODEL], 1).await;
    assert!(second.hears_nothing(700).await);
    first.submit(&lease, output("once", 3)).await;
    first.settled().await;
    let world = World::with(Limits { hedge_permille: 20, ..hedging() }).await;
    let (mut first, mut second) = two(&world).await;
    world.submit("slow").await;
    let lease = first.lease().await;
    second.announce(&[MODEL], 1).await;
    assert!(second.hears_nothing(700).await, "three jobs are not fifty");
    first.submit(&lease, output("slow", 3)).await;
    first.settled().await;
}
