//! What nodes and payers see of the router.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use neurino_client::{ClientError, Coordinator as _};
use neurino_coordinator::{CoordinatorConfig, JobClass, JobTerms, Limits, PayerId};
use neurino_core::NodeId;
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{CoordinatorMessage, SkipReason};
use serde_json::Value;

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, OTHER_MODEL, World, code, eventually, short_limits, spec};

#[tokio::test]
async fn a_node_that_gets_none_of_the_jobs_hears_why() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    assert!(node.hears_nothing(100).await);
    for _ in 0..2 {
        let job = spec(OTHER_MODEL, "hi");
        world.coordinator.submit_job(PayerId::local(), None, job).await.unwrap();
    }
    node.heartbeat(&[]).await;
    let CoordinatorMessage::NoJob(why) = node.hear_anything().await else { panic!("no reason") };
    assert_eq!(why.to_string(), format!("no job: 2 need {OTHER_MODEL}"));
    assert!(matches!(why.reasons[0].reason, SkipReason::Model { .. }));
    node.heartbeat(&[]).await;
    let quiet = tokio::time::timeout(Duration::from_millis(100), node.hear_anything()).await;
    assert!(quiet.is_err(), "the same reason again: {quiet:?}");
}

#[tokio::test]
async fn a_model_that_the_only_node_cannot_read_fails_the_job_soon() {
    let limits = Limits { unreadable_wait_ms: 300, ..short_limits() };
    let world = World::with(limits).await;
    let mut node = Node::ready(&world.coordinator).await;
    let id = world.submit("hi").await;
    let lease = node.lease().await;
    node.fail(lease.id, ErrorCode::ModelUnreadable).await;
    let mut watch = world.coordinator.watch_job(id).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(10), watch.finished()).await;
    let error = waited.expect("it does not wait for the usual ten minutes").unwrap_err();
    assert_eq!(error.code, ErrorCode::ModelUnreadable);
    // The node is not blamed for other jobs, and another node would have been waited for.
    let id = world.submit("again").await;
    let lease = node.lease().await;
    node.fail(lease.id, ErrorCode::ModelUnreadable).await;
    let mut other = Node::ready(&world.coordinator).await;
    let lease = other.lease().await;
    assert_eq!(lease.job, id);
    other.submit(&lease, output("hello", 3)).await;
    other.settled().await;
}

#[tokio::test]
async fn a_discarded_job_is_tried_once_and_a_retried_one_goes_elsewhere() {
    let world = World::new().await;
    let mut first = Node::ready(&world.coordinator).await;
    let terms = JobTerms { attempts_max: Some(1), ..JobTerms::default() };
    let submit =
        |terms| world.coordinator.submit_on(PayerId::local(), None, spec(MODEL, "x"), terms);
    let id = submit(terms).await.unwrap();
    let lease = first.lease().await;
    first.fail(lease.id, ErrorCode::EngineFailed).await;
    let mut watch = world.coordinator.watch_job(id).await.unwrap();
    assert_eq!(watch.finished().await.unwrap_err().code, ErrorCode::EngineFailed);
    let id = submit(JobTerms::default()).await.unwrap();
    let lease = first.lease().await;
    let mut second = Identity::new("rig2").connect(&world.coordinator).await;
    second.announce(&[MODEL], 1).await;
    first.fail(lease.id, ErrorCode::EngineFailed).await;
    assert_eq!(second.lease().await.job, id);
}

#[tokio::test]
async fn urgent_jobs_pass_batch_jobs_and_the_tier_says_which_is_which() {
    let world = World::new().await;
    let body = serde_json::to_string(&spec(MODEL, "later")).unwrap();
    let submit = |tier: &'static str| {
        let headers = [("neurino-service-tier", tier)];
        let (key, body) = (world.api_key.clone(), body.clone());
        let world = &world;
        async move { world.send(Method::POST, "/v1/jobs", Some(&key), &headers, body).await }
    };
    let id = |answer: (StatusCode, Value)| {
        assert_eq!(answer.0, StatusCode::ACCEPTED, "{}", answer.1);
        answer.1["id"].as_str().unwrap().to_owned()
    };
    let (flex, auto) = (id(submit("flex").await), id(submit("auto").await));
    let urgent = id(submit("priority").await);
    let (status, refused) = submit("gold").await;
    assert_eq!((status, code(&refused)), (StatusCode::BAD_REQUEST, "invalid_value"));
    let mut node = Node::ready(&world.coordinator).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        let lease = node.lease().await;
        order.push(lease.job.to_string());
        node.submit(&lease, output("hello", 3)).await;
        node.settled().await;
    }
    // Nobody was served before, so either class may begin; the urgent job is not behind both.
    assert!(order[2] == auto, "{order:?}, flex {flex}, auto {auto}, urgent {urgent}");
    assert_eq!(JobClass::default(), JobClass::Interactive);
}

#[tokio::test]
async fn the_networks_parameters_are_published() {
    let world = World::new().await;
    let (status, shown) = world.send(Method::GET, "/v1/network", None, &[], "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["routing"]["sample"], 3);
    assert_eq!(shown["routing"]["class_weights"]["batch"], 4);
    assert_eq!(shown["prices"]["name"], "credits1");
    assert_eq!(shown["rules"], "practice3");
    assert_eq!(shown["rule_set"]["other_text"], 1_000_000);
    assert_eq!(shown["next_rule_set"], Value::Null);
}

#[tokio::test]
async fn a_family_of_rules_is_the_edition_of_the_day() {
    let world = World::changed(short_limits(), |config| CoordinatorConfig {
        rule_set: "season".into(),
        ..config
    })
    .await;
    let (_, shown) = world.send(Method::GET, "/v1/network", None, &[], "").await;
    assert_eq!(shown["rules"], "season2");
    assert_eq!(shown["rule_set"]["from"], "2024-07-19T00:00:00Z");
}

#[tokio::test]
async fn demand_is_published() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    world.submit("hi").await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 3)).await;
    node.settled().await;
    let other = spec(OTHER_MODEL, "hi");
    world.coordinator.submit_job(PayerId::local(), None, other).await.unwrap();
    let (status, shown) = world.send(Method::GET, "/v1/demand", None, &[], "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["network"], world.coordinator.network());
    let demand = |model: &str| {
        let all = shown["models"].as_array().unwrap();
        all.iter().find(|one| one["model"] == model).cloned().unwrap_or_default()
    };
    let (paid, waits) = (demand(MODEL), demand(OTHER_MODEL));
    assert_eq!(
        (&paid["jobs"], &paid["waiting"], &paid["nodes"]),
        (&1.into(), &0.into(), &1.into())
    );
    assert_eq!(waits["waiting"], 1, "{shown}");
    // One job tells nothing of an hour.
    assert_eq!(paid["points_per_node_hour_micro"], Value::Null);
}

#[tokio::test]
async fn a_node_makes_up_few_names_and_an_owner_connects_few_nodes() {
    let world = World::with(Limits { silence_ms: 60_000, ..short_limits() }).await;
    let owner = Identity::new("n0");
    let node = owner.connect(&world.coordinator).await;
    let names: Vec<String> = (0..20).map(|n| format!("made-up-{n}")).collect();
    let mut offered: Vec<&str> = names.iter().map(String::as_str).collect();
    offered.push(MODEL);
    node.announce(&offered, 1).await;
    eventually("it is ready", async || {
        world.coordinator.jobs_overview().models.values().sum::<usize>() > 0
    })
    .await;
    let overview = world.coordinator.jobs_overview();
    let made_up = overview.models.keys().filter(|model| model.as_str().starts_with("made-up"));
    assert_eq!(made_up.count(), 8);
    let listed = overview.models.iter().find(|(model, _)| model.as_str() == MODEL);
    assert_eq!(listed.map(|(_, nodes)| *nodes), Some(1), "what the network knows is not counted");

    let tagged = |n: u32| {
        let id = NodeId::new(format!("{}-n{n}", owner.key.address())).unwrap();
        Identity { key: std::sync::Arc::clone(&owner.key), id }
    };
    let mut open = Vec::new();
    for n in 1..64 {
        open.push(tagged(n).connect(&world.coordinator).await);
    }
    let local = world.coordinator.local();
    let one_more = tagged(64);
    let capabilities = crate::node::capabilities();
    match local.connect(&one_more.key, &one_more.id, &capabilities).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::Overloaded),
        other => panic!("{:?}", other.map(|_| "a session")),
    }
    // One that comes back replaces its own session, and others are not hindered.
    open.push(tagged(5).connect(&world.coordinator).await);
    Identity::new("other").connect(&world.coordinator).await;
}
