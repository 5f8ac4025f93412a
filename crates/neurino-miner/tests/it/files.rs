//! The network asks whether a model's files are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use neurino_core::file_tree::{FileBytes, ShownLeaf};
use neurino_miner::{MinerConfig, ModelFiles, Showing};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::files::{FileChallenge, FileProof};
use neurino_protocol::node::{CoordinatorMessage, NodeMessage};
use neurino_testkit::Script;

use super::{Bench, LONG_MS, lease, model};
use crate::pool::{MODEL, Peer};

/// A library that takes its time, and has one file.
#[derive(Debug, Default)]
struct Library {
    asked: AtomicU32,
    pause: Duration,
}

impl ModelFiles for Library {
    fn show(&self, challenge: &FileChallenge) -> Showing {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (challenge, pause) = (challenge.clone(), self.pause);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if challenge.file != "weights" {
                return Err(ErrorCode::ModelNotReady);
            }
            let leaf = |index: &u64| ShownLeaf {
                index: *index,
                bytes: FileBytes(vec![7; 3]),
                path: Vec::new(),
            };
            Ok(challenge.leaves.iter().map(leaf).collect())
        })
    }
}

fn question(nonce: &str, file: &str, leaves: Vec<u64>) -> FileChallenge {
    FileChallenge {
        nonce: nonce.into(),
        model: model(MODEL).id,
        file: file.into(),
        size_bytes: 9,
        leaves,
        within_ms: 1_000,
    }
}

async fn ask(peer: &Peer, question: FileChallenge) {
    peer.say(CoordinatorMessage::ShowFile(question)).await;
}

async fn shown(peer: &mut Peer) -> FileProof {
    peer.wait(|message| match message {
        NodeMessage::FileShown(proof) => Some(proof),
        _ => None,
    })
    .await
}

fn with(bench: &Bench, library: &Arc<Library>) -> MinerConfig {
    MinerConfig { files: Some(Arc::clone(library) as Arc<dyn ModelFiles>), ..bench.config() }
}

#[tokio::test]
async fn pieces_are_shown_and_what_is_not_there_is_said() {
    let mut bench = Bench::new(Script::answer("hi"));
    let library = Arc::new(Library::default());
    let _miner = bench.start_with(with(&bench, &library));
    let mut peer = bench.peers.next().await;
    assert!(peer.ready().await.shows_files);
    ask(&peer, question("one", "weights", vec![4, 2])).await;
    let proof = shown(&mut peer).await;
    assert_eq!((proof.nonce.as_str(), proof.refused), ("one", None));
    assert_eq!(proof.leaves.iter().map(|leaf| leaf.index).collect::<Vec<_>>(), [4, 2]);
    ask(&peer, question("two", "another", vec![1])).await;
    let proof = shown(&mut peer).await;
    assert_eq!((proof.refused, proof.leaves.len()), (Some(ErrorCode::ModelNotReady), 0));
}

#[tokio::test]
async fn one_question_at_a_time_is_looked_into_and_jobs_go_on_meanwhile() {
    let mut bench = Bench::new(Script::answer("hi"));
    let library = Arc::new(Library { pause: Duration::from_millis(400), ..Library::default() });
    let _miner = bench.start_with(with(&bench, &library));
    let mut peer = bench.peers.ready().await;
    for n in 0..20 {
        ask(&peer, question(&n.to_string(), "weights", vec![1])).await;
    }
    ask(&peer, question("large", "weights", (0..1_000).collect())).await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    let submission = peer.submission().await;
    assert_eq!(submission.statement.lease, lease.id, "a job does not wait for it");
    peer.settle(&submission).await;
    assert_eq!(shown(&mut peer).await.nonce, "0");
    assert_eq!(library.asked.load(Ordering::SeqCst), 1);
    ask(&peer, question("next", "weights", vec![1])).await;
    assert_eq!(shown(&mut peer).await.nonce, "next");
    ask(&peer, question("large", "weights", (0..1_000).collect())).await;
    ask(&peer, question("last", "weights", vec![1])).await;
    assert_eq!(shown(&mut peer).await.nonce, "last", "more than may be asked is not answered");
}

#[tokio::test]
async fn questions_that_are_too_long_or_not_taken_are_left_unanswered() {
    let mut bench = Bench::with_room(Script::answer("hi"), 1);
    let library = Arc::new(Library::default());
    let miner = bench.start_with(with(&bench, &library));
    let mut peer = bench.peers.ready().await;
    ask(&peer, question(&"n".repeat(129), "weights", vec![1])).await;
    ask(&peer, question(&"n".repeat(1 << 20), "weights", vec![1])).await;
    ask(&peer, question("short", "weights", vec![1])).await;
    assert_eq!(shown(&mut peer).await.nonce, "short");
    assert_eq!(library.asked.load(Ordering::SeqCst), 1);
    // The answers pile up: no more are read than a few.
    for n in 0..200 {
        ask(&peer, question(&n.to_string(), "weights", vec![1])).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let asked = library.asked.load(Ordering::SeqCst);
    assert!(asked < 60, "{asked} answers wait");
    while peer.from_node.try_recv().is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    let submission = peer.submission().await;
    assert_eq!(submission.statement.lease, lease.id, "and the miner goes on");
    peer.settle(&submission).await;
    super::until(&miner, |status| status.counters.settled == 1).await;
}

#[tokio::test]
async fn without_a_library_it_says_so_and_is_silent() {
    let mut bench = Bench::new(Script::answer("hi"));
    let _miner = bench.start();
    let mut peer = bench.peers.next().await;
    assert!(!peer.ready().await.shows_files);
    ask(&peer, question("one", "weights", vec![1])).await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    peer.submission().await;
}
