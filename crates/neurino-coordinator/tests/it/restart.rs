//! Restarts on the same books: no accepted job is lost, none is paid twice.

use std::time::Duration;

use neurino_coordinator::{Coordinator, CoordinatorConfig, CoordinatorError};
use neurino_protocol::ErrorCode;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::node::{Node, output};
use crate::world::{MODEL, World, chat_body, eventually};

#[tokio::test]
async fn queued_jobs_and_keys_survive() {
    let mut world = World::new().await;
    let job = world.submit("hi").await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    watch.next().await;
    world.restart().await;
    let ended = watch.finished().await.unwrap_err();
    assert_eq!(ended.code, ErrorCode::Unreachable, "the watch says that the coordinator stopped");
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    assert_eq!(lease.job, job);
    node.submit(&lease, output("hello", 5)).await;
    node.settled().await;
    let key = world.call(axum::http::Method::GET, "/v1/models", serde_json::Value::Null).await;
    assert_eq!(key.0, 200);
}

#[tokio::test]
async fn a_node_that_returns_with_its_result_is_paid_under_its_old_lease() {
    let mut world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    world.restart().await;
    // Another node is free meanwhile; the lease is kept nevertheless.
    let mut other = Node::ready(&world.coordinator).await;
    let mut node = node.identity.connect(&world.coordinator).await;
    node.heartbeat(&[&lease]).await;
    node.submit(&lease, output("hello", 5)).await;
    let receipt = node.settled().await;
    assert_eq!(receipt.lease, lease.id);
    assert!(other.hears_nothing(300).await);
    // And again after another restart: the same receipt, no second payment.
    world.restart().await;
    let mut node = node.identity.connect(&world.coordinator).await;
    node.submit(&lease, output("hello", 5)).await;
    assert_eq!(node.settled().await, receipt);
    let check = world.coordinator.ledger_check().await.unwrap();
    assert!(check.holds());
    assert_eq!(check.receipts, 1);
}

#[tokio::test]
async fn a_node_that_does_not_return_loses_its_job() {
    let mut world = World::new().await;
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lost = node.lease().await;
    world.restart().await;
    let mut other = Node::ready(&world.coordinator).await;
    other.heartbeat(&[]).await;
    let lease = {
        // Signs of life while the grace of the lost lease runs out.
        let outbox = other.session.outbox.clone();
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(400)).await;
                let beat = neurino_protocol::node::NodeMessage::Heartbeat { leases: vec![] };
                if outbox.send(beat).await.is_err() {
                    return;
                }
            }
        });
        let lease = other.lease().await;
        beating.abort();
        lease
    };
    assert_eq!((lease.job, lease.fence), (lost.job, lost.fence + 1));
    other.submit(&lease, output("hello", 5)).await;
    other.settled().await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn idempotency_and_points_survive() {
    let mut world = World::new().await;
    let key = neurino_core::IdempotencyKey::new("once").unwrap();
    let payer = neurino_coordinator::PayerId::local();
    let spec = crate::world::spec(MODEL, "hi");
    let first =
        world.coordinator.submit_job(payer.clone(), Some(key.clone()), spec.clone()).await.unwrap();
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 5)).await;
    let paid = node.settled().await.quote.amount_micro;
    world.restart().await;
    let again = world.coordinator.submit_job(payer, Some(key), spec).await.unwrap();
    assert_eq!(first, again);
    let points = world.coordinator.points(&node.identity.id, 0).await.unwrap();
    assert_eq!((points.llama_total, points.jobs_total), (paid, 1));
    assert_eq!(world.coordinator.jobs_overview().queued, 0, "a settled job is not queued again");
}

#[tokio::test]
async fn books_have_one_coordinator_and_one_network() {
    let world = World::new().await;
    let second = Coordinator::open(world.config()).await;
    assert!(matches!(second, Err(CoordinatorError::InUse(_))));
    world.coordinator.shutdown().await;
    let other = CoordinatorConfig { network: "mainnet".into(), ..world.config() };
    assert!(matches!(Coordinator::open(other).await, Err(CoordinatorError::OtherNetwork { .. })));
    let key = std::sync::Arc::new(neurino_wallet::IdentityKey::generate(&mut rand::rng()));
    let stolen = CoordinatorConfig { key, ..world.config() };
    let Err(refused) = Coordinator::open(stolen).await else { panic!("another key") };
    assert!(matches!(refused, CoordinatorError::OtherCoordinator { .. }), "{refused}");
    let unknown = CoordinatorConfig { rule_set: "season9".into(), ..world.config() };
    assert!(matches!(Coordinator::open(unknown).await, Err(CoordinatorError::Rules(_))));
    let refused = world
        .coordinator
        .submit_job(neurino_coordinator::PayerId::local(), None, crate::world::spec(MODEL, "hi"))
        .await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Unreachable);
}

#[tokio::test]
async fn damaged_books_are_refused_in_words() {
    let world = World::new().await;
    let config = CoordinatorConfig { database: world.file().into(), ..world.config() };
    world.coordinator.shutdown().await;
    Coordinator::open(config.clone()).await.unwrap().shutdown().await;
    let file = config.database.file().unwrap();
    std::fs::write(file, b"this is not a database, whatever its name says").unwrap();
    let mut wal = file.to_owned().into_os_string();
    wal.push("-wal");
    let _ = std::fs::remove_file(wal);
    let opened = Coordinator::open(config).await;
    assert!(matches!(opened, Err(CoordinatorError::Store(_))));
}

#[tokio::test]
async fn what_was_acknowledged_before_shutdown_is_on_disk() {
    let mut world = World::new().await;
    let coordinator = &world.coordinator;
    let jobs = futures::future::join_all((0..200).map(|n| {
        let spec = crate::world::spec(MODEL, &format!("job {n}"));
        coordinator.submit_job(neurino_coordinator::PayerId::local(), None, spec)
    }))
    .await;
    assert!(jobs.iter().all(Result::is_ok));
    world.restart().await;
    assert_eq!(world.coordinator.jobs_overview().queued, 200);
    let _working = Node::ready(&world.coordinator).await.work(&["ok"]);
    eventually("all are done", async || {
        world.coordinator.ledger_check().await.unwrap().receipts == 200
    })
    .await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn keys_and_checks_work_beside_a_running_coordinator() {
    use axum::http::Method;
    use neurino_coordinator::{admin, books};

    let world = World::new().await;
    let database = world.config().database;
    let key = admin::create_api_key(&database, "from outside").await.unwrap();
    let secret = key.expose_secret();
    let (status, _) = world.send(Method::GET, "/v1/models", Some(secret), &[], "").await;
    assert_eq!(status, 200);
    world.submit("hi").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 5)).await;
    node.settled().await;
    let check = books::ledger_check(&database).await.unwrap();
    assert!(check.holds());
    assert_eq!(check.receipts, 1);
    let file = world.file().with_file_name("nowhere.sqlite");
    let nowhere = file.clone().into();
    let missing = admin::create_api_key(&nowhere, "x").await;
    assert!(matches!(missing, Err(CoordinatorError::NoBooks(_))));
    assert!(matches!(books::ledger_check(&nowhere).await, Err(CoordinatorError::NoBooks(_))));
    assert!(matches!(admin::create_api_key(&database, " ").await, Err(CoordinatorError::KeyName)));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_restart_in_order_is_over_soon_and_open_answers_end_in_words() {
    let mut world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
    let (stop, served) = (CancellationToken::new(), std::sync::Arc::clone(&world.coordinator));
    let until = stop.clone();
    let serving = tokio::spawn(async move { served.serve(listener, until).await.unwrap() });
    let ask = |stream: bool| {
        let body = chat_body(|body| body["stream"] = json!(stream));
        reqwest::Client::new().post(&url).bearer_auth(&world.api_key).json(&body).send()
    };
    let streamed = tokio::spawn(ask(true));
    let lease = node.lease().await;
    node.stream(&lease, "so far").await;
    let mut streamed = streamed.await.unwrap().unwrap();
    let mut read = String::new();
    while !read.contains("so far") {
        read += std::str::from_utf8(&streamed.chunk().await.unwrap().unwrap()).unwrap();
    }
    // And one that nobody has begun to answer.
    let waiting = tokio::spawn(ask(false));
    eventually("it waits", async || world.coordinator.jobs_overview().queued == 1).await;

    let begun = std::time::Instant::now();
    stop.cancel();
    serving.await.unwrap();
    world.restart().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    while let Some(chunk) = streamed.chunk().await.unwrap() {
        read += std::str::from_utf8(&chunk).unwrap();
    }
    assert!(!read.contains("[DONE]"));
    let last = crate::world::events(&read).pop().unwrap();
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(crate::world::code(&last), "unreachable", "{last}");
    let waiting = waiting.await.unwrap().unwrap();
    assert_eq!(waiting.status(), 503);
    assert_eq!(waiting.headers()["retry-after"], "5");
    // Their clients were told, so that nobody computes them.
    eventually("both are withdrawn", async || {
        world.coordinator.ledger_check().await.unwrap().jobs.get("cancelled") == Some(&2)
    })
    .await;
}
