//! Leases, fences and payment: what a node can do wrong, and what can go wrong with a node.

use std::time::Duration;

use neurino_coordinator::{JobUpdate, Limits};
use neurino_core::{FinishReason, JobOutput, TextOutput, Usage};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{CoordinatorMessage, NodeMessage};

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, eventually, short_limits};

#[tokio::test]
async fn a_receipt_can_be_recomputed_and_verified() {
    let world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 5)).await;
    let receipt = node.settled().await;
    assert_eq!(receipt.quote.amount_micro.0, 15_000);
    assert_eq!((receipt.lease, receipt.job), (lease.id, lease.job));
    assert_eq!(receipt.digest, output("hello", 5).digest());
    neurino_wallet::verify(&receipt.message(), &receipt.signature, &world.coordinator.address())
        .unwrap();
    assert!(receipt.quote.amount_micro <= lease.quote_micro, "the lease's quote is a bound");
}

#[tokio::test]
async fn a_repeated_result_gets_the_same_receipt_and_no_second_payment() {
    let world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    for _ in 0..3 {
        node.submit(&lease, output("hello", 5)).await;
    }
    let first = node.settled().await;
    assert_eq!(node.settled().await, first);
    assert_eq!(node.settled().await, first);
    // A different answer under the same lease changes nothing.
    node.submit(&lease, output("something longer", 60)).await;
    assert_eq!(node.settled().await, first);
    let points = world.coordinator.points(&node.identity.id, 0).await.unwrap();
    assert_eq!(points.llama_total, first.quote.amount_micro);
    world.assert_books_hold().await;
}

type Forge = fn(&Identity, &mut neurino_protocol::node::Submission);

#[tokio::test]
async fn a_result_that_does_not_hold_is_refused_and_the_job_goes_on() {
    let world = World::new().await;
    let forgeries: [(ErrorCode, Forge); 8] = [
        (ErrorCode::InvalidRequest, |_, s| s.output = output("swapped", 5)),
        (ErrorCode::BadSignature, |_, s| {
            s.signature = Identity::new("x").key.sign(&s.statement.message());
        }),
        (ErrorCode::BadSignature, |_, s| s.signature = "0x00".into()),
        (ErrorCode::InvalidRequest, |me, s| {
            s.statement.fence += 1;
            s.signature = me.key.sign(&s.statement.message());
        }),
        (ErrorCode::InvalidRequest, |me, s| *s = resigned(me, s, tokens(0, 5))),
        (ErrorCode::InvalidRequest, |me, s| *s = resigned(me, s, tokens(1_000_000, 5))),
        (ErrorCode::InvalidRequest, |me, s| *s = resigned(me, s, tokens(10, 65))),
        (ErrorCode::TooLarge, |me, s| {
            let long = "x".repeat((256 << 10) + 1);
            *s = resigned(me, s, output(&long, 64));
        }),
    ];
    for (expect, forge) in forgeries {
        let job = world.submit("hi").await;
        let mut node = Node::ready(&world.coordinator).await;
        let lease = node.lease().await;
        let mut forged = node.identity.submission(&lease, output("hello", 5));
        forge(&node.identity, &mut forged);
        node.say(NodeMessage::Submit(forged)).await;
        assert_eq!(node.rejected().await, expect);
        let again = node.lease().await;
        assert_eq!((again.job, again.fence), (job, lease.fence + 1));
        node.submit(&again, output("hello", 5)).await;
        assert_eq!(node.settled().await.lease, again.id);
        node.submit(&lease, output("hello", 5)).await;
        assert_eq!(node.rejected().await, ErrorCode::StaleLease);
    }
    world.assert_books_hold().await;
}

fn tokens(prompt_tokens: u32, completion_tokens: u32) -> JobOutput {
    let usage = Usage { prompt_tokens, completion_tokens };
    JobOutput::Text(TextOutput::single("hello", FinishReason::Stop, usage))
}

/// The same statement over another output, properly signed.
fn resigned(
    me: &Identity,
    old: &neurino_protocol::node::Submission,
    output: JobOutput,
) -> neurino_protocol::node::Submission {
    let mut statement = old.statement.clone();
    statement.digest = output.digest();
    let signature = me.key.sign(&statement.message());
    neurino_protocol::node::Submission { statement, signature, output }
}

#[tokio::test]
async fn what_was_streamed_is_what_must_be_signed() {
    let world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.stream(&lease, "one thing").await;
    node.submit(&lease, output("another thing", 5)).await;
    assert_eq!(node.rejected().await, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_link_that_breaks_frees_nobody_from_what_was_streamed() {
    let world = World::new().await;
    let job = world.submit("hi").await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.stream(&lease, "one thing").await;
    while !matches!(watch.next().await.unwrap(), JobUpdate::Delta(_)) {}
    let identity = node.identity.clone();
    drop(node);
    let mut node = identity.connect(&world.coordinator).await;
    node.heartbeat(&[&lease]).await;
    node.submit(&lease, output("another thing", 5)).await;
    assert_eq!(node.rejected().await, ErrorCode::InvalidRequest);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn nobody_can_use_the_lease_of_another_node() {
    let world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    let mut thief = Identity::new("thief").connect(&world.coordinator).await;
    // In its own name, and replaying the rightful node's submission.
    thief.submit(&lease, output("mine", 1)).await;
    assert_eq!(thief.rejected().await, ErrorCode::NotFound);
    let rightful = node.identity.submission(&lease, output("hello", 5));
    thief.say(NodeMessage::Submit(rightful.clone())).await;
    assert_eq!(thief.rejected().await, ErrorCode::NotFound);
    thief.fail(lease.id, ErrorCode::InvalidRequest).await;
    thief.say(NodeMessage::HandBack { lease: lease.id, reason: String::new() }).await;
    node.say(NodeMessage::Submit(rightful.clone())).await;
    assert_eq!(node.settled().await.node, node.identity.id);
    thief.say(NodeMessage::Submit(rightful)).await;
    assert_eq!(thief.rejected().await, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_vanished_node_loses_its_job_to_another_which_is_paid_once() {
    let world = World::new().await;
    let job = world.submit("hi").await;
    let mut first = Node::ready(&world.coordinator).await;
    let lost = first.lease().await;
    let gone = first.identity.clone();
    drop(first);
    let mut second = Node::ready(&world.coordinator).await;
    let lease = second.lease().await;
    assert_eq!((lease.job, lease.fence), (job, 2));
    second.submit(&lease, output("hello", 5)).await;
    second.settled().await;
    // The first one comes back with its result: too late.
    let mut first = gone.connect(&world.coordinator).await;
    first.submit(&lost, output("hello", 5)).await;
    assert_eq!(first.rejected().await, ErrorCode::StaleLease);
    let check = world.coordinator.ledger_check().await.unwrap();
    assert!(check.holds());
    assert_eq!(check.receipts, 1);
}

#[tokio::test]
async fn a_node_that_comes_back_in_time_keeps_its_lease() {
    let world = World::new().await;
    let job = world.submit("hi").await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.stream(&lease, "first ").await;
    let identity = node.identity.clone();
    drop(node);
    let mut node = identity.connect(&world.coordinator).await;
    node.heartbeat(&[&lease]).await;
    // Longer than the grace for nodes that are away.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Pieces after the gap do not join what was streamed before.
    node.stream(&lease, "lost piece").await;
    node.submit(&lease, output("first and last", 5)).await;
    assert_eq!(node.settled().await.lease, lease.id);
    let mut text = String::new();
    while let Some(update) = watch.next().await {
        match update {
            JobUpdate::Delta(piece) => text.push_str(&piece.text),
            JobUpdate::Finished { .. } => break,
            JobUpdate::Failed(error) => panic!("{error}"),
            JobUpdate::Queued | JobUpdate::Leased { .. } | JobUpdate::Step(_) => {}
        }
    }
    assert_eq!(text, "first and last");
}

#[tokio::test]
async fn a_second_session_replaces_the_first_and_takes_its_leases() {
    let world = World::new().await;
    world.submit("hi").await;
    let mut old = Node::ready(&world.coordinator).await;
    let lease = old.lease().await;
    let mut new = old.identity.connect(&world.coordinator).await;
    assert!(matches!(old.hear().await, CoordinatorMessage::Bye(_)));
    assert!(old.session.messages.recv().await.is_none(), "the old session is over");
    new.heartbeat(&[&lease]).await;
    new.submit(&lease, output("hello", 5)).await;
    new.settled().await;
}

#[tokio::test]
async fn a_lease_that_heartbeats_do_not_name_is_given_to_another_attempt() {
    let world = World::with(Limits { silence_ms: 1_500, ..short_limits() }).await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    // Sent at once, this heartbeat may have crossed the lease on its way: nothing happens.
    node.heartbeat(&[]).await;
    assert!(node.hears_nothing(300).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.heartbeat(&[]).await;
    let again = node.lease().await;
    assert_eq!((again.job, again.fence), (lease.job, 2));
    node.submit(&lease, output("hello", 5)).await;
    assert_eq!(node.rejected().await, ErrorCode::StaleLease);
}

#[tokio::test]
async fn a_forgotten_lease_can_still_be_submitted_right_after_the_heartbeat() {
    let world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    let identity = node.identity.clone();
    drop(node);
    let mut node = identity.connect(&world.coordinator).await;
    node.heartbeat(&[]).await;
    node.submit(&lease, output("hello", 5)).await;
    assert_eq!(node.settled().await.lease, lease.id);
}

#[tokio::test]
async fn silence_ends_a_session() {
    let world = World::with(Limits { silence_ms: 1_500, ..short_limits() }).await;
    let mut node = Node::ready(&world.coordinator).await;
    assert!(matches!(node.hear().await, CoordinatorMessage::Bye(_)));
    eventually("the node is gone", async || world.coordinator.jobs_overview().nodes == 0).await;
}

#[tokio::test]
async fn a_node_with_a_lease_is_missed_sooner_than_an_idle_one() {
    let world = World::with(Limits { silence_ms: 3_000, ..short_limits() }).await;
    let silent = async |mut node: Node| {
        let since = std::time::Instant::now();
        while !matches!(node.hear().await, CoordinatorMessage::Bye(_)) {}
        since.elapsed()
    };
    let idle = silent(Node::ready(&world.coordinator).await).await;
    assert!(idle > Duration::from_secs(7), "{idle:?}: it beats only every three seconds");
    let mut node = Node::ready(&world.coordinator).await;
    world.submit("hi").await;
    node.lease().await;
    let busy = silent(node).await;
    assert!(busy > Duration::from_secs(2) && busy < idle, "{busy:?} and {idle:?}");
}

#[tokio::test]
async fn a_job_past_its_deadline_earns_nothing_and_is_tried_three_times() {
    let limits = Limits { text_budget_ms: 150, ..short_limits() };
    let world = World::with(limits).await;
    let job = world.submit("hi").await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    let mut node = Node::ready(&world.coordinator).await;
    let mut next = None;
    for attempt in 1..=3 {
        let lease = match next.take() {
            Some(lease) => lease,
            None => node.lease().await,
        };
        assert_eq!(lease.fence, attempt);
        assert_eq!(node.cancelled().await, (lease.id, ErrorCode::DeadlinePassed));
        node.submit(&lease, output("late", 1)).await;
        // The next attempt may be assigned before the late result is answered.
        let mut early = None;
        loop {
            match node.hear().await {
                CoordinatorMessage::Rejected { error, .. } => {
                    assert_eq!(error.code, ErrorCode::DeadlinePassed);
                    break;
                }
                CoordinatorMessage::Assign(lease) => early = Some(lease),
                other => panic!("{other:?}"),
            }
        }
        next = early;
    }
    assert_eq!(watch.finished().await.unwrap_err().code, ErrorCode::DeadlinePassed);
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 0);
}

#[tokio::test]
async fn three_failures_end_a_job_but_handing_back_does_not_count() {
    // Who hands back again and again rests in between.
    let world = World::with(Limits { silence_ms: 60_000, ..short_limits() }).await;
    let job = world.submit("hi").await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    let mut node = Node::ready(&world.coordinator).await;
    for _ in 0..4 {
        let lease = node.lease().await;
        node.say(NodeMessage::HandBack { lease: lease.id, reason: "a game started".into() }).await;
    }
    for _ in 0..3 {
        let lease = node.lease().await;
        node.fail(lease.id, ErrorCode::EngineFailed).await;
    }
    assert_eq!(watch.finished().await.unwrap_err().code, ErrorCode::EngineFailed);
    assert!(node.hears_nothing(200).await, "nobody tries a fourth time");
}

#[tokio::test]
async fn a_failed_job_goes_to_another_node_if_there_is_one() {
    let world = World::new().await;
    let mut nodes = [Node::ready(&world.coordinator).await, Node::ready(&world.coordinator).await];
    for _ in 0..10 {
        world.submit("hi").await;
        let [a, b] = &mut nodes;
        let (lease, failed, other) = tokio::select! {
            lease = a.lease() => (lease, a, b),
            lease = b.lease() => (lease, b, a),
        };
        failed.fail(lease.id, ErrorCode::EngineFailed).await;
        let again = other.lease().await;
        assert_eq!(again.job, lease.job);
        other.submit(&again, output("hello", 1)).await;
        other.settled().await;
    }
}

#[tokio::test]
async fn a_withdrawn_job_stops_its_node_and_is_not_paid() {
    let world = World::new().await;
    let job = world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    assert!(world.coordinator.cancel_job(job).await.unwrap());
    assert!(!world.coordinator.cancel_job(job).await.unwrap(), "only once");
    assert_eq!(node.cancelled().await, (lease.id, ErrorCode::Cancelled));
    // The slot is free again.
    world.submit("next").await;
    let next = node.lease().await;
    assert_ne!(next.job, job);
    node.submit(&lease, output("hello", 5)).await;
    assert_eq!(node.rejected().await, ErrorCode::Cancelled);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_pausing_node_gets_nothing_and_a_full_one_no_more() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    world.submit("one").await;
    world.submit("two").await;
    let first = node.lease().await;
    assert!(node.hears_nothing(200).await, "it has one slot");
    node.announce(&[], 0).await;
    node.submit(&first, output("hello", 5)).await;
    node.settled().await;
    assert!(node.hears_nothing(200).await, "it pauses");
    node.announce(&[MODEL], 1).await;
    node.lease().await;
}
