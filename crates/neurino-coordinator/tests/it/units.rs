//! Nodes that announce their cards one by one.

use std::collections::BTreeSet;

use neurino_coordinator::{Limits, PayerId, admin};
use neurino_core::{JobId, Lease, ModelId, UnitId};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::unit::{Unit, UnitKind};
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready};

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, OTHER_MODEL, World, eventually, short_limits, spec};

fn unit(id: u8, kind: UnitKind, models: &[&str]) -> Unit {
    let models = models.iter().map(|model| ModelId::new(*model).unwrap()).collect();
    let memory_bytes = 24 << 30;
    Unit { id: UnitId(id), kind, memory_bytes, device: None, models, slots: 1, cold: false }
}

fn whole(id: u8, card: u8, model: &str) -> Unit {
    unit(id, UnitKind::Whole { card }, &[model])
}

/// What a node of these units says, also to coordinators that know of none.
fn ready(units: Vec<Unit>) -> NodeMessage {
    let models: BTreeSet<ModelId> = units.iter().flat_map(|unit| unit.models.clone()).collect();
    let offers = models.into_iter().map(ModelOffer::text).collect();
    NodeMessage::Ready(Ready { units, ..Ready::new(offers, 1) })
}

/// Where a node may be silent for a while, and has time to come back.
async fn world() -> World {
    let limits = Limits { silence_ms: 60_000, recovery_grace_ms: 60_000, ..short_limits() };
    World::with(limits).await
}

async fn connected(world: &World, units: Vec<Unit>) -> Node {
    let node = Identity::new("rig1").connect(&world.coordinator).await;
    node.say(ready(units)).await;
    node
}

async fn ask(world: &World, model: &str) -> JobId {
    let job = spec(model, "hi");
    world.coordinator.submit_job(PayerId::local(), None, job).await.unwrap()
}

async fn finish(node: &mut Node, lease: &Lease) {
    node.submit(lease, output("hello", 3)).await;
    node.settled().await;
}

#[tokio::test]
async fn each_card_gets_jobs_of_its_own_model() {
    let world = world().await;
    let mut node = connected(&world, vec![whole(4, 0, MODEL), whole(7, 1, OTHER_MODEL)]).await;
    let first = ask(&world, MODEL).await;
    let on_four = node.lease().await;
    assert_eq!((on_four.job, on_four.unit), (first, Some(UnitId(4))));
    // The card that has the model is busy; the other one is no help.
    let second = ask(&world, MODEL).await;
    assert!(node.hears_nothing(200).await);
    let other = ask(&world, OTHER_MODEL).await;
    let on_seven = node.lease().await;
    assert_eq!((on_seven.job, on_seven.unit), (other, Some(UnitId(7))));
    let overview = world.coordinator.jobs_overview();
    let units = overview.units["whole"];
    assert_eq!((overview.nodes, units.units, units.slots, units.busy), (1, 2, 2, 2));
    let text = world.coordinator.metrics_text();
    for line in ["neurino_units{kind=\"whole\"} 2", "neurino_slots_busy{kind=\"whole\"} 2"] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
    finish(&mut node, &on_seven).await;
    assert!(node.hears_nothing(200).await, "a free card of another model takes nothing");
    node.submit(&on_four, output("hello", 3)).await;
    let mut next = None;
    // The receipt and the next job come in either order.
    for _ in 0..2 {
        match node.hear().await {
            CoordinatorMessage::Assign(lease) => next = Some(lease),
            CoordinatorMessage::Settled(receipt) => assert_eq!(receipt.lease, on_four.id),
            other => panic!("{other:?}"),
        }
    }
    let next = next.unwrap();
    assert_eq!((next.job, next.unit), (second, Some(UnitId(4))));
    finish(&mut node, &next).await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_job_that_needs_several_cards_has_them_for_itself() {
    let world = world().await;
    let group = unit(9, UnitKind::Group { cards: vec![0, 1] }, &[OTHER_MODEL]);
    let cards = vec![whole(0, 0, MODEL), whole(1, 1, MODEL), group];
    let mut node = connected(&world, cards).await;
    ask(&world, MODEL).await;
    let small = node.lease().await;
    assert_eq!(small.unit, Some(UnitId(0)));
    let large = ask(&world, OTHER_MODEL).await;
    assert!(node.hears_nothing(200).await, "one of its cards works");
    finish(&mut node, &small).await;
    let lease = node.lease().await;
    assert_eq!((lease.job, lease.unit), (large, Some(UnitId(9))));
    ask(&world, MODEL).await;
    assert!(node.hears_nothing(200).await, "both cards are the group's now");
    finish(&mut node, &lease).await;
    let small = node.lease().await;
    assert_eq!(small.unit, Some(UnitId(1)), "the card that was served longer ago");
    finish(&mut node, &small).await;
}

#[tokio::test]
async fn leases_are_on_their_units_after_a_restart() {
    let mut world = world().await;
    let cards = || vec![whole(4, 0, MODEL), whole(7, 1, MODEL)];
    let mut node = connected(&world, cards()).await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        ask(&world, MODEL).await;
        leases.push(node.lease().await);
    }
    let on = |leases: &[Lease]| leases.iter().map(|lease| lease.unit).collect::<BTreeSet<_>>();
    assert_eq!(on(&leases), BTreeSet::from([Some(UnitId(4)), Some(UnitId(7))]));
    let seven = leases.iter().find(|lease| lease.unit == Some(UnitId(7))).unwrap().clone();
    // While the books say who has what, the other one ends.
    let four = leases.iter().find(|lease| lease.unit == Some(UnitId(4))).unwrap().clone();
    finish(&mut node, &four).await;
    world.restart().await;
    let mut node = node.identity.connect(&world.coordinator).await;
    node.heartbeat(&[&seven]).await;
    node.say(ready(cards())).await;
    let (next, waits) = (ask(&world, MODEL).await, ask(&world, MODEL).await);
    let lease = node.lease().await;
    assert_eq!(
        (lease.job, lease.unit),
        (next, Some(UnitId(4))),
        "the other card has its old lease"
    );
    assert!(node.hears_nothing(200).await);
    finish(&mut node, &seven).await;
    let lease = node.lease().await;
    assert_eq!((lease.job, lease.unit), (waits, Some(UnitId(7))));
}

#[tokio::test]
async fn a_lease_outlives_the_unit_it_was_given_to() {
    let world = world().await;
    let mut node = connected(&world, vec![whole(4, 0, MODEL), whole(7, 1, MODEL)]).await;
    ask(&world, MODEL).await;
    let lease = node.lease().await;
    // The program was updated, or downgraded: it is one node now, and holds one job of one.
    node.announce(&[MODEL], 1).await;
    ask(&world, MODEL).await;
    assert!(node.hears_nothing(200).await, "it has its slot's job");
    finish(&mut node, &lease).await;
    let lease = node.lease().await;
    assert_eq!(lease.unit, None, "a node without units hears of none");
    finish(&mut node, &lease).await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn units_that_cannot_be_end_the_session_in_words() {
    let world = world().await;
    let half = |id| unit(id, UnitKind::Slice { card: 0, share_ppm: 600_000 }, &[MODEL]);
    let mut node = connected(&world, vec![half(0), half(1)]).await;
    match node.hear().await {
        CoordinatorMessage::Bye(error) => {
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            assert_eq!(error.message, "the slices of card 0 are not one card");
            assert!(error.hint.is_some());
        }
        other => panic!("{other:?}"),
    }
    eventually("it is gone", async || world.coordinator.jobs_overview().nodes == 0).await;
}

#[tokio::test]
async fn a_part_of_a_card_gets_only_what_may_be_shared() {
    let world = world().await;
    let half = |id| unit(id, UnitKind::Slice { card: 0, share_ppm: 500_000 }, &[MODEL]);
    let mut node = connected(&world, vec![half(0), half(1)]).await;
    let job = ask(&world, MODEL).await;
    node.heartbeat(&[]).await;
    let CoordinatorMessage::NoJob(why) = node.hear_anything().await else { panic!("no reason") };
    assert_eq!(why.to_string(), format!("no job: 1 needs {MODEL} on a card of its own"));
    let database = world.config().database;
    let model = ModelId::new(MODEL).unwrap();
    admin::set_pod(&database, &model, None, 0, true).await.unwrap();
    // The coordinator notices within a second.
    let lease = node.lease().await;
    assert_eq!((lease.job, lease.unit), (job, Some(UnitId(0))));
    finish(&mut node, &lease).await;
}
