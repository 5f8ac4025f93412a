//! Nodes and payers that take without giving: who hands jobs back, fails them, hoards them, or asks for
//! everything at once stands in nobody's way.

use std::sync::Arc;
use std::time::Duration;

use neurino_coordinator::{Coordinator, CoordinatorConfig, JobTerms, Limits, PayerId, admin};
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::task::JoinHandle;

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, OTHER_MODEL, PATIENCE, World, eventually, short_limits, spec};

/// A node that answers each job with a message instead of working on it.
async fn unwilling(
    coordinator: &Arc<Coordinator>,
    who: &Identity,
    answer: fn(neurino_core::LeaseId) -> NodeMessage,
) -> JoinHandle<()> {
    let mut node = who.connect(coordinator).await;
    node.announce(&[MODEL], 4).await;
    tokio::spawn(async move {
        while let Some(message) = node.session.messages.recv().await {
            if let CoordinatorMessage::Assign(lease) = message {
                node.say(answer(lease.id)).await;
            }
        }
    })
}

/// A node that has the model on disk, and another one loaded, so that it comes behind those that have.
async fn behind(coordinator: &Arc<Coordinator>) -> JoinHandle<()> {
    let node = Identity::new("cold").connect(coordinator).await;
    node.announce(&[OTHER_MODEL, MODEL], 4).await;
    node.work(&["fine"])
}

fn failing(lease: neurino_core::LeaseId, code: ErrorCode) -> NodeMessage {
    NodeMessage::Failed { lease, error: ErrorBody::new(code, "so it says") }
}

async fn both_serve(world: &World, nodes: usize) {
    eventually("they are there", async || {
        let models = world.coordinator.jobs_overview().models;
        models.iter().any(|(model, serving)| model.as_str() == MODEL && *serving == nodes)
    })
    .await;
}

/// How a job ends.
async fn ended(world: &World, text: &str) -> Result<(), ErrorCode> {
    let job = world.submit(text).await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, watch.finished()).await;
    ended.expect("the job ends").map(drop).map_err(|error| error.code)
}

#[tokio::test]
async fn a_node_that_hands_every_job_back_does_not_keep_it_from_others() {
    let world = World::new().await;
    let hand_back = |lease| NodeMessage::HandBack { lease, reason: "later".into() };
    let _bad = unwilling(&world.coordinator, &Identity::new("bad"), hand_back).await;
    let _good = behind(&world.coordinator).await;
    both_serve(&world, 2).await;
    for n in 0..3 {
        assert_eq!(ended(&world, &format!("{n}")).await, Ok(()));
    }
}

#[tokio::test]
async fn a_job_that_is_only_handed_back_ends() {
    let world = World::with(Limits { hand_backs_max: 2, ..short_limits() }).await;
    let hand_back = |lease| NodeMessage::HandBack { lease, reason: "later".into() };
    let _bad = unwilling(&world.coordinator, &Identity::new("bad"), hand_back).await;
    both_serve(&world, 1).await;
    assert_eq!(ended(&world, "hi").await, Err(ErrorCode::NoNodeAvailable));
}

#[tokio::test]
async fn one_node_alone_does_not_call_a_job_hopeless_where_another_owner_can_be_asked() {
    let world = World::new().await;
    let wrong = |lease| failing(lease, ErrorCode::ContextTooLong);
    let sybil = Identity::new("bad");
    let _bad = unwilling(&world.coordinator, &sybil, wrong).await;
    both_serve(&world, 1).await;
    assert_eq!(ended(&world, "alone").await, Err(ErrorCode::ContextTooLong), "nobody else to ask");
    // A second machine of the same owner is no second opinion.
    let id = neurino_core::NodeId::new(sybil.id.as_str().replace("-bad", "-worse")).unwrap();
    let second = Identity { key: Arc::clone(&sybil.key), id };
    let _worse = unwilling(&world.coordinator, &second, wrong).await;
    let good = behind(&world.coordinator).await;
    both_serve(&world, 3).await;
    for n in 0..4 {
        assert_eq!(ended(&world, &format!("{n}")).await, Ok(()));
    }
    // Of two owners it is believed.
    good.abort();
    let _ = good.await;
    let honest = Identity::new("honest");
    let _too = unwilling(&world.coordinator, &honest, wrong).await;
    both_serve(&world, 3).await;
    assert_eq!(ended(&world, "too long").await, Err(ErrorCode::ContextTooLong));
}

#[tokio::test]
async fn the_word_of_a_node_that_the_operator_trusts_is_enough() {
    let mut world = World::new().await;
    let judge = Identity::new("judge");
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    // So that it is known.
    world.restart().await;
    let wrong = |lease| failing(lease, ErrorCode::InvalidRequest);
    let _judge = unwilling(&world.coordinator, &judge, wrong).await;
    let _other = behind(&world.coordinator).await;
    both_serve(&world, 2).await;
    assert_eq!(ended(&world, "hi").await, Err(ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn nodes_that_fail_at_once_are_soon_asked_last() {
    let world = World::new().await;
    let broken = |lease| failing(lease, ErrorCode::EngineFailed);
    let mut bad = Vec::new();
    for n in 0..3 {
        let who = Identity::new(&format!("bad{n}"));
        bad.push(unwilling(&world.coordinator, &who, broken).await);
    }
    let _good = behind(&world.coordinator).await;
    both_serve(&world, 4).await;
    let mut done = Vec::new();
    for n in 0..10 {
        done.push(ended(&world, &format!("{n}")).await.is_ok());
    }
    assert!(done[4..].iter().all(|done| *done), "{done:?}");
}

#[tokio::test]
async fn a_node_that_only_talks_is_ended_and_one_that_works_is_not() {
    let world = World::new().await;
    let mut talker = Node::ready(&world.coordinator).await;
    let flood = async {
        // Its link may end first.
        while talker.session.outbox.send(NodeMessage::Heartbeat { leases: vec![] }).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, flood).await.unwrap();
    let mut said = None;
    while let Some(message) = talker.session.messages.recv().await {
        if let CoordinatorMessage::Bye(error) = message {
            said = Some(error.code);
        }
    }
    assert_eq!(said, Some(ErrorCode::RateLimited));
    // Another one says a thousand things and more, each of them about its work.
    let _working = Node::ready(&world.coordinator).await.work(&["w"; 12]);
    for n in 0..100 {
        let job = world.submit(&format!("question {n}")).await;
        world.coordinator.watch_job(job).await.unwrap().finished().await.unwrap();
    }
}

#[tokio::test]
async fn names_that_a_node_makes_up_do_not_decide_what_others_offer() {
    let world = World::new().await;
    let names: Vec<String> = (0..20).map(|n| format!("made-up-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let liar = Identity::new("liar").connect(&world.coordinator).await;
    liar.announce(&names, 1).await;
    let served = async |name: &str| {
        let overview = world.coordinator.jobs_overview();
        let model = neurino_core::ModelId::new(name).unwrap();
        overview.models.get(&model).copied().unwrap_or(0)
    };
    eventually("some of them are taken", async || served("made-up-7").await == 1).await;
    assert_eq!(served("made-up-8").await, 0, "no more than eight");
    let painter = Identity::new("painter").connect(&world.coordinator).await;
    let usual = crate::pictures::usual();
    let id = neurino_core::ModelId::new("made-up-15").unwrap();
    let offer = ModelOffer { id, image: Some(usual) };
    painter.say(NodeMessage::Ready(Ready::new(vec![offer], 1))).await;
    eventually("it makes pictures", async || served("made-up-15").await == 1).await;
}

#[tokio::test]
async fn no_payer_has_more_open_jobs_than_there_is_room_left() {
    let world = World::with(Limits { open_jobs_max: 10, ..short_limits() }).await;
    let submit = async |payer: &str| {
        let payer = PayerId::new(payer).unwrap();
        world.coordinator.submit_on(payer, None, spec(MODEL, "hi"), JobTerms::default()).await
    };
    let mut first = 0;
    let refused = loop {
        match submit("one").await {
            Ok(_) => first += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(first, 5);
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.message.contains("5 of your requests"), "{refused:?}");
    for payer in ["two", "two", "three"] {
        assert!(submit(payer).await.is_ok(), "{payer} is not hindered");
    }
}

#[tokio::test]
async fn an_owner_whom_nobody_knows_holds_few_jobs_until_its_results_arrive() {
    let limits = Limits { new_owner_leases_max: 2, ..short_limits() };
    let world = World::with(limits).await;
    world.coordinator.shutdown().await;
    let config = CoordinatorConfig { practice: false, ..world.config() };
    let coordinator = Coordinator::open(config).await.unwrap();
    let who = Identity::new("rig1");
    let id = neurino_core::NodeId::new(who.id.as_str().replace("-rig1", "-rig2")).unwrap();
    let mut one = who.connect(&coordinator).await;
    let mut two = Identity { key: Arc::clone(&who.key), id }.connect(&coordinator).await;
    one.announce(&[MODEL], 64).await;
    two.announce(&[MODEL], 64).await;
    eventually("they are there", async || {
        coordinator.jobs_overview().models.values().sum::<usize>() == 2
    })
    .await;
    for n in 0..40 {
        let job = spec(MODEL, &format!("{n}"));
        coordinator.submit_job(PayerId::local(), None, job).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(coordinator.jobs_overview().leased, 2, "of all its machines together");
    let mut held = Vec::new();
    for node in [&mut one, &mut two] {
        while let Ok(Some(message)) =
            tokio::time::timeout(Duration::from_millis(100), node.session.messages.recv()).await
        {
            if let CoordinatorMessage::Assign(lease) = message {
                node.submit(&lease, output("fine", 1)).await;
                held.push(lease.id);
                break;
            }
        }
    }
    eventually("it is given more", async || {
        coordinator.jobs_overview().leased == 2 + 2 * held.len()
    })
    .await;
    // Another owner is not hindered.
    let mut other = Node::ready(&coordinator).await;
    other.lease().await;
    coordinator.shutdown().await;
}
