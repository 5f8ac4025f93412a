//! Getting a model on the way to mining.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use neurino_core::ModelId;
use neurino_model_store::{Catalog, Source};
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, MiningState, ModelState, Snapshot, StopMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{WEIGHTS, World, code};

fn bundled() -> Source {
    Source::Bundled { path: "models/weights.gguf".into() }
}

fn put_into_the_installation(world: &World) {
    let folder = world.dirs().resources.join("models");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("weights.gguf"), WEIGHTS).unwrap();
}

/// A web server that begins to send the file and falls silent, `stalls` times; then it sends all.
async fn web(stalls: usize) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/weights.gguf", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = Arc::clone(&asked);
            // Beside the others: a client that was stopped may be connected and never ask.
            tokio::spawn(async move {
                let mut head = [0; 4096];
                if !stream.read(&mut head).await.is_ok_and(|bytes| bytes > 0) {
                    return;
                }
                let n = asked.fetch_add(1, Ordering::Relaxed);
                // Each connection answers once: the next request of the same client needs another.
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    WEIGHTS.len()
                );
                let sent = if n < stalls { &WEIGHTS[..8] } else { WEIGHTS };
                let _ = stream.write_all(&[answer.as_bytes(), sent].concat()).await;
                if n < stalls {
                    // Silent, not gone.
                    std::future::pending::<()>().await;
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    Source::Http { url }
}

fn fetching(snapshot: &Snapshot) -> bool {
    matches!(snapshot.models[0].state, ModelState::Fetching { done_bytes, .. } if done_bytes > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_had_needs_the_person_and_then_works() {
    let world = World::without_model(vec![bundled()]);
    let viewer = world.start().await;
    assert_eq!(viewer.snapshot().await.models[0].state, ModelState::Absent);
    viewer.mine().await;
    let needs = viewer.until_state(MiningState::NeedsYou).await;
    let problem = needs.mining.problem.clone().unwrap();
    assert_eq!(problem.code, ErrorCode::ModelNotReady);
    for words in ["could not be obtained", "this installation carries no copy", "models import"] {
        assert!(problem.message.contains(words), "{}", problem.message);
        assert!(needs.mining.sentence.contains(words), "{}", needs.mining.sentence);
    }
    assert_eq!(needs.models[0].problem, Some(problem));

    put_into_the_installation(&world);
    let ready = viewer.mine_until_ready().await;
    assert_eq!(ready.models[0].problem, None);
    assert_eq!(std::fs::read(world.model_file()).unwrap(), WEIGHTS);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_is_replaced() {
    let world = World::without_model(vec![bundled()]);
    put_into_the_installation(&world);
    let file = world.model_file();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, WEIGHTS.to_ascii_uppercase()).unwrap();
    let viewer = world.start().await;
    viewer.mine_until_ready().await;
    assert_eq!(std::fs::read(&file).unwrap(), WEIGHTS);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_fetching_ends_the_fetch_and_a_start_resumes_it() {
    let world = World::without_model(vec![web(2).await]);
    let viewer = world.start().await;
    viewer.mine().await;
    let starting = viewer.until("fetching", fetching).await;
    assert_eq!(starting.mining.state, MiningState::Starting);
    viewer
        .until("told", |s| s.mining.sentence == "Getting ready: fetching the starter model (25 %).")
        .await;

    viewer.stop(StopMode::Finish).await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped);
    let over = viewer.until("no fetch", |s| s.models[0].state == ModelState::Absent).await;
    assert_eq!(over.models[0].problem, None, "a Stop is no problem of the model");

    // A Start that finds the fetch of the one before still ending begins its own, which may be quick:
    // most of the chunks are there.
    viewer.mine().await;
    let begun = |s: &Snapshot| s.models[0].state != ModelState::Absent;
    viewer.until("fetching or fetched", begun).await;
    viewer.stop(StopMode::Now).await;
    viewer.mine_until_ready().await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_the_person_asked_for_outlives_a_stop() {
    let world = World::without_model(vec![web(1).await]);
    let viewer = world.start().await;
    viewer.command(Command::ModelFetch { model: Catalog::starter() }).await.unwrap();
    viewer.until("fetching", fetching).await;
    viewer.mine().await;
    viewer.until("joined", |s| s.mining.sentence.contains("fetching")).await;
    viewer.stop(StopMode::Now).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(fetching(&viewer.snapshot().await));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_knows_is_refused_at_once() {
    let world = World::without_model(vec![]);
    let viewer = world.start().await;
    let model = ModelId::new("nope").unwrap();
    let error = viewer.command(Command::ModelFetch { model }).await.unwrap_err();
    assert_eq!(error.message, "the catalogue has no model `nope`");
    assert_eq!(error.hint, Some(format!("it has: {}", Catalog::starter())));
    assert_eq!(code(Err(error)), ErrorCode::UnknownModel);
    viewer.end().await;
}
