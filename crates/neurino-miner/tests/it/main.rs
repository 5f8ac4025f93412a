//! The miner between a scripted engine and a coordinator played by the test.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod advice;
mod crash;
mod files;
mod hostile;
mod pictures;
mod pool;
mod several;
mod stop;
mod trouble;
mod units;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{JobSpec, MicroPoints, ModelId, NodeId};
use neurino_engine::ModelRef;
use neurino_miner::{
    ContentFilter, Miner, MinerConfig, MinerHandle, MinerState, MinerStatus, ReceiptLog, Stage,
};
use neurino_protocol::node::{Capabilities, CoordinatorMessage, ModelOffer, NodeMessage};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_testkit::{Script, ScriptedEngine};
use neurino_wallet::IdentityKey;
use pictures::{PAINTER, usual};
use pool::{MODEL, NETWORK, Peers, Pool, SOON, lease};
use tempfile::TempDir;
use tokio::time::timeout;

const LONG_MS: u64 = 60_000;

/// A miner with everything around it.
struct Bench {
    dir: TempDir,
    pool: Arc<Pool>,
    peers: Peers,
    engine: ScriptedEngine,
    key: Arc<IdentityKey>,
    log: Arc<ReceiptLog>,
}

fn model(id: &str) -> ModelRef {
    ModelRef::new(ModelId::new(id).unwrap(), format!("/nowhere/{id}"))
}

fn offers(ids: &[&str]) -> Vec<ModelOffer> {
    ids.iter().map(|id| ModelOffer::text(model(id).id)).collect()
}

impl Bench {
    fn new(script: Script) -> Self {
        Self::with_room(script, 64)
    }

    fn with_room(script: Script, room: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pool, peers) = Pool::new(room);
        let log = Arc::new(ReceiptLog::open(&dir.path().join("receipts.jsonl")).unwrap());
        let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
        Self { dir, pool, peers, engine: ScriptedEngine::new(script), key, log }
    }

    fn config(&self) -> MinerConfig {
        MinerConfig {
            node: NodeId::new(self.key.address()).unwrap(),
            capabilities: Capabilities {
                device: "CPU".into(),
                memory_bytes: 1,
                gpu: false,
                referred_by: None,
            },
            models: vec![model(MODEL)],
            image_models: BTreeMap::from([(model(PAINTER).id, usual())]),
            outbox_dir: self.outbox(),
            receipts: self.log.clone(),
            filter: ContentFilter::default(),
            follow_advice: true,
            files: None,
            needs: BTreeMap::new(),
        }
    }

    fn outbox(&self) -> std::path::PathBuf {
        self.dir.path().join("outbox")
    }

    fn start(&self) -> MinerHandle {
        self.start_with(self.config())
    }

    fn start_with(&self, config: MinerConfig) -> MinerHandle {
        let engine = Arc::new(self.engine.clone());
        Miner::start(config, self.pool.clone(), engine, self.key.clone()).unwrap()
    }

    fn kept(&self) -> usize {
        count(&self.outbox())
    }
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

async fn until(miner: &MinerHandle, wanted: impl FnMut(&MinerStatus) -> bool) -> MinerStatus {
    let mut status = miner.status();
    let Ok(found) = timeout(SOON, status.wait_for(wanted)).await else {
        panic!("the status stayed {:?}", miner.status().borrow())
    };
    found.unwrap().clone()
}

#[tokio::test]
async fn a_job_is_computed_signed_submitted_and_paid() {
    let mut bench =
        Bench::new(Script::answer("four words of text").paced(Duration::from_millis(30)));
    let miner = bench.start();
    let mut receipts = miner.receipts();
    let mut peer = bench.peers.next().await;
    let ready = peer.ready().await;
    assert_eq!((ready.models.len(), ready.slots), (1, 1));
    assert_eq!(bench.engine.loads(), 1, "the model is loaded before it is announced");
    let waiting = until(&miner, |s| s.state == MinerState::Waiting).await;
    assert_eq!((waiting.connected, waiting.network.as_deref()), (true, Some(NETWORK)));

    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    let working = until(&miner, |s| s.job.as_ref().is_some_and(|j| j.done > 0)).await;
    assert_eq!(working.state, MinerState::Working);
    let job = working.job.unwrap();
    assert_eq!((job.job, job.lease, job.of), (lease.job, lease.id, 64));
    assert_eq!((job.stage, job.budget_ms), (Stage::Running, LONG_MS));

    let (mut text, mut last) = (String::new(), 0);
    let submission = loop {
        match peer.next().await.unwrap() {
            NodeMessage::Progress { lease: of, deltas, tokens, .. } => {
                assert!(of == lease.id && tokens >= last);
                for delta in &deltas {
                    text.push_str(&delta.text);
                }
                last = tokens;
            }
            NodeMessage::Submit(submission) => break submission,
            NodeMessage::Heartbeat { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(text, "four words of text", "all text is passed on before the result");
    assert_eq!((submission.statement.job, submission.statement.fence), (lease.job, 1));
    assert_eq!(bench.kept(), 1, "the result is on disk before it is sent");
    assert_eq!(until(&miner, |s| s.job.is_some()).await.job.unwrap().stage, Stage::Sending);

    peer.settle(&submission).await;
    let receipt = timeout(SOON, receipts.recv()).await.unwrap().unwrap();
    assert_eq!(receipt.lease, lease.id);
    let after = until(&miner, |s| s.state == MinerState::Waiting).await;
    assert_eq!((after.counters.settled, after.counters.earned_micro), (1, MicroPoints(15_000)));
    assert_eq!((after.unsettled, bench.kept()), (0, 0));
    assert_eq!(bench.log.totals(0).llama_micro, MicroPoints(15_000));
    assert_eq!(bench.log.recent(10).unwrap(), [receipt]);
}

#[tokio::test]
async fn a_lost_session_has_the_result_sent_again_and_a_doubled_receipt_counts_once() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut receipts = miner.receipts();
    let mut peer = bench.peers.ready().await;
    peer.assign(&lease(LONG_MS)).await;
    let first = peer.submission().await;
    drop(peer);
    let mut peer = bench.peers.next().await;
    let again = peer.submission().await;
    assert_eq!(first, again);
    peer.ready().await;
    peer.settle(&again).await;
    peer.settle(&again).await;
    let other = lease(LONG_MS);
    peer.assign(&other).await;
    let next = peer.submission().await;
    peer.settle(&next).await;
    let mut paid = Vec::new();
    for _ in 0..2 {
        paid.push(timeout(SOON, receipts.recv()).await.unwrap().unwrap().lease);
    }
    assert_eq!(paid, [first.statement.lease, other.id]);
    assert!(receipts.try_recv().is_err());
    let status = until(&miner, |s| s.state == MinerState::Waiting).await;
    assert_eq!((status.counters.settled, bench.log.totals(0).jobs, bench.kept()), (2, 2, 0));
}

#[tokio::test]
async fn a_job_outlives_the_session_it_came_in() {
    let script = Script::answer("a b c d e f").paced(Duration::from_millis(300));
    let mut bench = Bench::new(script);
    let _miner = bench.start();
    let peer = bench.peers.ready().await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    drop(peer);
    let mut peer = bench.peers.next().await;
    let named = peer
        .wait(|m| match m {
            NodeMessage::Heartbeat { leases } => Some(leases),
            NodeMessage::Ready(_) => panic!("work in hand is named before more is asked for"),
            _ => None,
        })
        .await;
    assert_eq!(named, [lease.id]);
    assert_eq!(peer.submission().await.statement.lease, lease.id);
}

#[tokio::test]
async fn a_rejected_result_is_forgotten() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    peer.assign(&lease(LONG_MS)).await;
    let submission = peer.submission().await;
    let error = ErrorBody::new(ErrorCode::StaleLease, "too late");
    let lease = submission.statement.lease;
    peer.say(CoordinatorMessage::Rejected { lease, job: None, error: error.clone() }).await;
    let status = until(&miner, |s| s.counters.rejected == 1).await;
    assert_eq!(status.problem, Some(error));
    assert_eq!((status.unsettled, bench.kept(), bench.log.totals(0).jobs), (0, 0, 0));
}

#[tokio::test]
async fn a_withdrawn_job_ends_at_once_and_makes_room() {
    let mut bench = Bench::new(Script::answer("text"));
    bench.engine.queue(Script::answer("endless").ending(neurino_testkit::Ending::Hang));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let withdrawn = lease(LONG_MS);
    peer.assign(&withdrawn).await;
    until(&miner, |s| s.job.as_ref().is_some_and(|j| j.done > 0)).await;
    peer.say(CoordinatorMessage::Cancel { lease: withdrawn.id, code: ErrorCode::Cancelled }).await;
    until(&miner, |s| s.state == MinerState::Waiting && s.counters.cancelled == 1).await;
    let next = lease(LONG_MS);
    peer.assign(&next).await;
    assert_eq!(peer.submission().await.statement.lease, next.id);
}

#[tokio::test]
async fn receipts_that_do_not_fit_the_result_are_not_believed() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    peer.assign(&lease(LONG_MS)).await;
    let submission = peer.submission().await;
    let honest = peer.receipt(&submission);
    let mut inflated = honest.clone();
    inflated.quote.amount_micro = MicroPoints(1);
    let mut other_digest = honest.clone();
    other_digest.digest.0[0] ^= 1;
    other_digest.signature = bench.pool.key.sign(&other_digest.message());
    let mut stranger = honest.clone();
    stranger.signature = IdentityKey::generate(&mut rand::rng()).sign(&stranger.message());
    for forged in [inflated, other_digest, stranger] {
        peer.say(CoordinatorMessage::Settled(forged)).await;
        let bad =
            |s: &MinerStatus| s.problem.as_ref().map(|p| p.code) == Some(ErrorCode::BadSignature);
        let status = until(&miner, bad).await;
        assert_eq!((status.counters.settled, status.unsettled), (0, 1));
    }
    assert_eq!((bench.kept(), bench.log.totals(0).jobs), (1, 0));
    peer.say(CoordinatorMessage::Settled(honest)).await;
    until(&miner, |s| s.counters.settled == 1).await;
    assert_eq!((bench.kept(), bench.log.totals(0).jobs), (0, 1));
}

#[tokio::test]
async fn what_the_node_cannot_take_is_answered_and_not_started() {
    let mut bench = Bench::new(Script::answer("endless").ending(neurino_testkit::Ending::Hang));
    let _miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let mut foreign = lease(LONG_MS);
    let JobSpec::Text(text) = &mut foreign.spec else { panic!("a text job") };
    text.model = ModelId::new("other").unwrap();
    peer.assign(&foreign).await;
    let mut senseless = lease(LONG_MS);
    let JobSpec::Text(text) = &mut senseless.spec else { panic!("a text job") };
    text.max_tokens = 0;
    peer.assign(&senseless).await;
    for (of, code) in
        [(foreign.id, ErrorCode::ModelNotReady), (senseless.id, ErrorCode::InvalidRequest)]
    {
        let failed = peer
            .wait(|m| match m {
                NodeMessage::Failed { lease, error } => Some((lease, error.code)),
                _ => None,
            })
            .await;
        assert_eq!(failed, (of, code));
    }
    peer.assign(&lease(LONG_MS)).await;
    let second = lease(LONG_MS);
    peer.assign(&second).await;
    let back = peer
        .wait(|m| match m {
            NodeMessage::HandBack { lease, .. } => Some(lease),
            _ => None,
        })
        .await;
    assert_eq!(back, second.id, "one slot, one job");
}

#[tokio::test]
async fn a_job_for_another_model_has_it_loaded() {
    let mut bench = Bench::new(Script::answer("text"));
    let mut config = bench.config();
    config.models.push(model("other"));
    let _miner = bench.start_with(config);
    let mut peer = bench.peers.next().await;
    assert_eq!(peer.ready().await.models, offers(&[MODEL, "other"]));
    let mut lease = lease(LONG_MS);
    let JobSpec::Text(text) = &mut lease.spec else { panic!("a text job") };
    text.model = ModelId::new("other").unwrap();
    peer.assign(&lease).await;
    assert_eq!(peer.ready().await.models, offers(&["other", MODEL]));
    assert_eq!(peer.submission().await.statement.lease, lease.id);
    assert_eq!(bench.engine.loads(), 2);
}

#[tokio::test]
async fn the_model_in_memory_stays_when_another_one_is_removed() {
    let mut bench = Bench::new(Script::answer("text"));
    let mut config = bench.config();
    config.models.push(model("other"));
    let miner = bench.start_with(config);
    let mut peer = bench.peers.next().await;
    assert_eq!(peer.ready().await.models, offers(&[MODEL, "other"]));
    let mut lease = lease(LONG_MS);
    let JobSpec::Text(text) = &mut lease.spec else { panic!("a text job") };
    text.model = ModelId::new("other").unwrap();
    peer.assign(&lease).await;
    assert_eq!(peer.ready().await.models, offers(&["other", MODEL]));
    assert_eq!(peer.submission().await.statement.lease, lease.id);
    // The one that was loaded first goes; the other one has taken its place in memory.
    miner.serve(vec![model("other"), model("third")], BTreeMap::new());
    assert_eq!(peer.ready().await.models, offers(&["other", "third"]));
    assert_eq!(bench.engine.loads(), 2);
}

#[tokio::test]
async fn what_the_operator_does_not_want_is_left_to_others() {
    let mut bench = Bench::new(Script::answer("text"));
    let filter = ContentFilter::new(&["hi".into()]);
    let miner = bench.start_with(MinerConfig { filter, ..bench.config() });
    let mut peer = bench.peers.ready().await;
    let refused = lease(LONG_MS);
    peer.assign(&refused).await;
    let failed = peer
        .wait(|m| match m {
            NodeMessage::Failed { lease, error } => Some((lease, error.code)),
            _ => None,
        })
        .await;
    assert_eq!(failed, (refused.id, ErrorCode::Declined));
    let status = until(&miner, |s| s.state == MinerState::Waiting && s.job.is_none()).await;
    assert_eq!(status.problem, None, "it is the operator's wish and no fault");
    let mut other = lease(LONG_MS);
    let JobSpec::Text(job) = &mut other.spec else { unreachable!("a text job") };
    job.messages[0].content = "hello".into();
    peer.assign(&other).await;
    let done = peer.submission().await;
    assert_eq!(done.statement.lease, other.id);
    // Another filter counts from the next job on.
    miner.refuse(ContentFilter::new(&["hello".into()]));
    for (content, code) in [("hello", Some(ErrorCode::Declined)), ("hi", None)] {
        let mut next = lease(LONG_MS);
        let JobSpec::Text(job) = &mut next.spec else { unreachable!("a text job") };
        job.messages[0].content = content.into();
        peer.assign(&next).await;
        let ended = peer
            .wait(|m| match m {
                NodeMessage::Failed { error, .. } => Some(Some(error.code)),
                NodeMessage::Submit(_) => Some(None),
                _ => None,
            })
            .await;
        assert_eq!(ended, code, "{content}");
    }
}
