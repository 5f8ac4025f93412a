//! What people wrote and were answered lies nowhere in the open: not in the books, nor beside them, nor in
//! a log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use neurino_coordinator::{
    Coordinator, CoordinatorConfig, CoordinatorError, PayerId, PayloadKeyError,
};
use neurino_core::{ImageJob, JobSpec};
use neurino_protocol::node::NodeMessage;
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::node::{Node, output};
use crate::pictures::{PAINTER, job, painter, picture};
use crate::world::{MODEL, World, chat_body, eventually, spec};

/// Words that stand nowhere else.
const ASKED: &str = "quetzalberry";
const ANSWERED: &str = "snollygoster";
const PAINTED: &str = "zyzzyvalight";
const FAILED: &str = "gobbledyfault";
const WORDS: [&str; 4] = [ASKED, ANSWERED, PAINTED, FAILED];

/// Jobs of all kinds and ends, by HTTP and by hand, and nodes that repeat what they were asked wherever
/// they may say something.
async fn live_through(world: &World) {
    let coordinator = &world.coordinator;
    let mut node = Node::ready(coordinator).await;
    let key = [("idempotency-key", "k1"), ("content-type", "application/json")];
    let body = serde_json::to_string(&spec(MODEL, ASKED)).unwrap();
    let (status, shown) =
        world.send(Method::POST, "/v1/jobs", Some(&world.api_key), &key, body.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{shown}");
    let lease = node.lease().await;
    node.stream(&lease, ANSWERED).await;
    node.submit(&lease, output(ANSWERED, 3)).await;
    node.settled().await;
    let path = format!("/v1/jobs/{}", shown["id"].as_str().unwrap());
    let (_, shown) = world.call(Method::GET, &path, Value::Null).await;
    assert!(shown["output"].to_string().contains(ANSWERED));
    // A repeat, and another job under the same key.
    let (status, _) = world.send(Method::POST, "/v1/jobs", Some(&world.api_key), &key, body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let other = serde_json::to_string(&spec(MODEL, PAINTED)).unwrap();
    let (status, _) = world.send(Method::POST, "/v1/jobs", Some(&world.api_key), &key, other).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    // Given back, failed, not the job's, and withdrawn.
    let failing = world.submit(ASKED).await;
    let lease = node.lease().await;
    let reason = format!("I was asked {ASKED}");
    node.say(NodeMessage::HandBack { lease: lease.id, reason }).await;
    let lease = node.lease().await;
    node.submit(&lease, picture(&painted(3))).await;
    assert_eq!(node.rejected().await, ErrorCode::InvalidRequest);
    for _ in 0..2 {
        let lease = node.lease().await;
        let error = ErrorBody::new(ErrorCode::EngineFailed, format!("{FAILED} at {ASKED}"));
        node.fail_with(lease.id, error.with_hint(FAILED)).await;
    }
    let failed = coordinator.watch_job(failing).await.unwrap().finished().await.unwrap_err();
    assert!(failed.message.contains(FAILED), "its payer is told: {failed}");
    let withdrawn = world.submit(ASKED).await;
    assert!(coordinator.cancel_job(withdrawn).await.unwrap());
    drop(node);
    // Chats, in one piece and streamed, and requests that are refused.
    let worker = Node::ready(coordinator).await.work(&[ANSWERED]);
    let asking = |body: &mut Value| body["messages"][0]["content"] = json!(ASKED);
    assert_eq!(world.chat(asking).await.0, StatusCode::OK);
    assert!(world.chat_stream(asking).await.concat().contains(ANSWERED));
    let refused =
        world.chat(|body| body["messages"] = json!([{ "role": ASKED, "content": ASKED }]));
    assert_eq!(refused.await.0, StatusCode::BAD_REQUEST);
    let broken = chat_body(asking).to_string();
    let broken = broken[..broken.len() - 3].to_owned();
    let path = "/v1/chat/completions";
    let (status, _) = world.send(Method::POST, path, Some(&world.api_key), &[], broken).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    worker.abort();
    // A picture.
    let mut painter = painter(coordinator, 1).await;
    let spec = JobSpec::Image(painted(7));
    let drawn = coordinator.submit_job(PayerId::local(), None, spec).await.unwrap();
    let lease = painter.lease().await;
    painter.submit(&lease, picture(&painted(7))).await;
    painter.settled().await;
    let watched = coordinator.watch_job(drawn).await.unwrap().finished().await.unwrap();
    assert_eq!(watched.0, picture(&painted(7)));
}

fn painted(seed: u64) -> ImageJob {
    assert_eq!(job(seed).model.as_str(), PAINTER);
    ImageJob { prompt: PAINTED.into(), ..job(seed) }
}

/// All files below a folder, and what is in them.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            all.push((path, bytes));
        }
    }
    all
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

fn assert_nothing_in_the_open(world: &World, when: &str) {
    let files = files(world.file().parent().unwrap());
    let sealed = files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "sealed"));
    assert_eq!(sealed.count(), 1, "{when}: the picture is among them");
    for (path, bytes) in files {
        for word in WORDS {
            assert!(!holds(&bytes, word.as_bytes()), "{when}: {word} in {}", path.display());
        }
        assert!(!holds(&bytes, b"\x89PNG"), "{when}: a picture in {}", path.display());
    }
}

#[tokio::test]
async fn nothing_that_people_wrote_lies_in_the_open() {
    let mut world = World::new().await;
    live_through(&world).await;
    assert_nothing_in_the_open(&world, "running");
    world.restart().await;
    assert_nothing_in_the_open(&world, "opened again");
    world.coordinator.shutdown().await;
    assert_nothing_in_the_open(&world, "shut down");
    world.restart().await;
    world.forget_payloads().await;
    eventually("the picture's file is gone or old enough to go", async || {
        // Young files stay for an hour; what opens them is gone.
        let listed = world.coordinator.receipts(None, None, 200).await.unwrap();
        let mut gone = true;
        for receipt in listed {
            let shown = world.coordinator.watch_job(receipt.job).await.map(drop);
            gone &= shown.is_err_and(|error| error.code == ErrorCode::PayloadShredded);
        }
        gone
    })
    .await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_coordinator_without_its_books_key_says_where_it_comes_from() {
    let world = World::new().await;
    let waiting = world.submit(ASKED).await;
    world.coordinator.shutdown().await;
    // On another machine that has the books and the coordinator's own key, but not this.
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("payload.key");
    let config = || CoordinatorConfig { payload_key: path.clone(), ..world.config() };
    let Err(refused) = Coordinator::open(config()).await else { panic!("without a key") };
    assert!(matches!(refused, CoordinatorError::PayloadKey(PayloadKeyError::Missing { .. })));
    let words = refused.to_string();
    for part in ["payload.key", "backup", "coordinator/payload.key", "--new-payload-key"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    // Copied over, as the message says, it does.
    std::fs::copy(world.config().payload_key, &path).unwrap();
    let coordinator = Coordinator::open(config()).await.unwrap();
    assert_eq!(coordinator.jobs_overview().queued, 1);
    coordinator.shutdown().await;
    // Lost for good: what waited is given up, and the network goes on.
    std::fs::remove_file(&path).unwrap();
    let renewed = CoordinatorConfig { new_payload_key: true, ..config() };
    let coordinator = Coordinator::open(renewed).await.unwrap();
    assert_eq!(coordinator.jobs_overview().queued, 0);
    let ended = coordinator.watch_job(waiting).await.unwrap().finished().await.unwrap_err();
    assert_eq!(ended.code, ErrorCode::PayloadShredded);
    assert!(coordinator.ledger_check().await.unwrap().holds());
    coordinator.shutdown().await;
}

/// Set for the process whose log is looked through.
const TRACED: &str = "TRACED";

#[test]
fn no_log_tells_what_people_wrote() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap()
    };
    if std::env::var_os(TRACED).is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).init();
        runtime().block_on(async {
            let mut world = World::new().await;
            live_through(&world).await;
            world.restart().await;
            world.forget_payloads().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.coordinator.shutdown().await;
        });
        return;
    }
    // A process of its own: all that anything in it logs, at the finest level.
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["payloads::no_log_tells_what_people_wrote", "--exact", "--nocapture"])
        .env(TRACED, "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    for kept in [" DEBUG ", " INFO ", "queued job", "handed back", "paid", "shredded"] {
        assert!(log.contains(kept), "`{kept}` is not in a log of {} bytes", log.len());
    }
    for word in WORDS {
        let line = log.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "{word} is in the log: {}", line.unwrap_or_default());
    }
}
