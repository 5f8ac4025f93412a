//! Several jobs at once: as many as the engine takes.

use std::collections::BTreeSet;
use std::time::Duration;

use neurino_core::{JobSpec, Lease, LeaseId, MicroPoints};
use neurino_engine::{Engine as _, EngineError, EngineErrorCode};
use neurino_miner::MinerState;
use neurino_protocol::ErrorCode;
use neurino_protocol::node::NodeMessage;
use neurino_testkit::{Ending, Script, ScriptedEngine};

use super::{Bench, LONG_MS, lease, model, until};
use crate::pool::Peer;

const SLOTS: u32 = 8;

/// A bench whose engine takes eight jobs at once and follows this script.
fn bench(script: Script) -> Bench {
    let mut bench = Bench::new(script.clone());
    bench.engine = ScriptedEngine::new(script).with_slots(SLOTS);
    bench
}

/// Words that take half a second.
fn slow() -> Script {
    Script::answer("a b c d e f g h i j").paced(Duration::from_millis(50))
}

fn ids(leases: &[Lease]) -> BTreeSet<LeaseId> {
    leases.iter().map(|lease| lease.id).collect()
}

async fn assign(peer: &Peer, count: u32) -> Vec<Lease> {
    let leases: Vec<Lease> = (0..count).map(|_| lease(LONG_MS)).collect();
    for lease in &leases {
        peer.assign(lease).await;
    }
    leases
}

async fn handed_back(peer: &mut Peer) -> LeaseId {
    peer.wait(|message| match message {
        NodeMessage::HandBack { lease, .. } => Some(lease),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn eight_jobs_run_at_once_and_each_is_paid() {
    let mut bench = bench(slow());
    let miner = bench.start();
    let mut peer = bench.peers.next().await;
    assert_eq!(peer.ready().await.slots, SLOTS, "the engine says how many it takes");
    let leases = assign(&peer, SLOTS).await;
    let working = until(&miner, |s| s.jobs == SLOTS).await;
    assert_eq!(working.state, MinerState::Working);
    let ninth = lease(LONG_MS);
    peer.assign(&ninth).await;
    assert_eq!(handed_back(&mut peer).await, ninth.id);
    let mut submitted = Vec::new();
    for _ in 0..SLOTS {
        submitted.push(peer.submission().await);
    }
    assert_eq!(submitted.iter().map(|s| s.statement.lease).collect::<BTreeSet<_>>(), ids(&leases));
    assert_eq!((bench.engine.most_at_once(), bench.kept()), (8, 8));
    for submission in submitted.iter().rev() {
        peer.settle(submission).await;
    }
    let after = until(&miner, |s| s.state == MinerState::Waiting && s.unsettled == 0).await;
    assert_eq!((after.counters.settled, after.counters.earned_micro), (8, MicroPoints(120_000)));
    assert_eq!((after.counters.handed_back, bench.kept()), (1, 0));
    assert_eq!(bench.log.totals(0).jobs, 8);
}

#[tokio::test]
async fn a_lost_session_has_all_results_sent_again() {
    let mut bench = bench(slow());
    let miner = bench.start();
    let peer = bench.peers.ready().await;
    let leases = assign(&peer, SLOTS).await;
    until(&miner, |s| s.jobs == SLOTS).await;
    drop(peer);
    let mut peer = bench.peers.next().await;
    let named = peer
        .wait(|message| match message {
            NodeMessage::Heartbeat { leases } => Some(leases.into_iter().collect::<BTreeSet<_>>()),
            _ => None,
        })
        .await;
    let mut seen: BTreeSet<LeaseId> = BTreeSet::new();
    while seen.len() < leases.len() {
        let submission = peer.submission().await;
        if seen.insert(submission.statement.lease) {
            peer.settle(&submission).await;
        }
    }
    assert_eq!(seen, ids(&leases));
    assert!(named.is_subset(&seen), "what was in work is named, so that nobody else gets it");
    let after = until(&miner, |s| s.unsettled == 0 && s.jobs == 0).await;
    assert_eq!((after.counters.settled, bench.kept()), (8, 0));
}

#[tokio::test]
async fn stopping_hands_all_jobs_back() {
    let mut bench = bench(Script::answer("endless").ending(Ending::Hang));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let leases = assign(&peer, SLOTS).await;
    until(&miner, |s| s.jobs == SLOTS && s.job.as_ref().is_some_and(|j| j.done > 0)).await;
    let reader = tokio::spawn(async move {
        let mut back = BTreeSet::new();
        while back.len() < SLOTS as usize {
            back.insert(handed_back(&mut peer).await);
        }
        back
    });
    miner.stop_now().await;
    assert_eq!(reader.await.unwrap(), ids(&leases));
    assert_eq!(miner.status().borrow().counters.handed_back, u64::from(SLOTS));
}

#[tokio::test]
async fn finishing_completes_all_jobs() {
    let mut bench = bench(slow());
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let leases = assign(&peer, SLOTS).await;
    until(&miner, |s| s.jobs == SLOTS).await;
    miner.finish();
    peer.paused().await;
    let late = lease(LONG_MS);
    peer.assign(&late).await;
    assert_eq!(handed_back(&mut peer).await, late.id);
    let mut seen = BTreeSet::new();
    for _ in 0..SLOTS {
        let submission = peer.submission().await;
        seen.insert(submission.statement.lease);
        peer.settle(&submission).await;
    }
    assert_eq!(seen, ids(&leases));
    tokio::time::timeout(crate::pool::SOON, miner.stopped()).await.unwrap();
    assert_eq!(bench.kept(), 0);
}

#[tokio::test]
async fn withdrawing_one_job_leaves_the_others_alone() {
    let mut bench = bench(slow());
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let leases = assign(&peer, 3).await;
    until(&miner, |s| s.jobs == 3).await;
    let code = ErrorCode::Cancelled;
    let lease = leases[1].id;
    peer.say(neurino_protocol::node::CoordinatorMessage::Cancel { lease, code }).await;
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        seen.insert(peer.submission().await.statement.lease);
    }
    assert_eq!(seen, BTreeSet::from([leases[0].id, leases[2].id]));
    assert_eq!(miner.status().borrow().counters.cancelled, 1);
}

#[tokio::test]
async fn after_a_crash_jobs_come_one_at_a_time_until_one_succeeds() {
    let mut bench = bench(slow());
    let crash = Script::answer("x").paced(Duration::from_millis(300)).ending(Ending::Crash);
    bench.engine.queue(crash);
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let leases = assign(&peer, 3).await;
    until(&miner, |s| s.jobs == 3).await;
    let mut failed = BTreeSet::new();
    while failed.len() < 3 {
        let (lease, code) = peer
            .wait(|message| match message {
                NodeMessage::Failed { lease, error } => Some((lease, error.code)),
                _ => None,
            })
            .await;
        assert_eq!(code, ErrorCode::EngineFailed);
        failed.insert(lease);
    }
    assert_eq!(failed, ids(&leases));
    assert_eq!(peer.ready().await.slots, 1, "the job at fault takes no others along again");
    let next = lease(LONG_MS);
    peer.assign(&next).await;
    assert_eq!(peer.submission().await.statement.lease, next.id);
    assert_eq!(peer.ready().await.slots, SLOTS);
}

#[tokio::test]
async fn a_model_that_went_missing_is_loaded_once_for_all_jobs() {
    let mut bench = bench(slow());
    let _miner = bench.start();
    let mut peer = bench.peers.ready().await;
    bench.engine.unload().await.unwrap();
    let leases = assign(&peer, SLOTS).await;
    let mut seen = BTreeSet::new();
    for _ in 0..SLOTS {
        seen.insert(peer.submission().await.statement.lease);
    }
    assert_eq!(seen, ids(&leases));
    assert_eq!((bench.engine.loads(), bench.engine.most_at_once()), (2, 8));
}

#[tokio::test]
async fn jobs_of_two_models_take_turns_and_share_their_loads() {
    let mut bench = bench(slow());
    let mut config = bench.config();
    config.models.push(model("other"));
    let _miner = bench.start_with(config);
    let mut peer = bench.peers.ready().await;
    let mut leases: Vec<Lease> = (0..6).map(|_| lease(LONG_MS)).collect();
    for lease in leases.iter_mut().step_by(2) {
        let JobSpec::Text(job) = &mut lease.spec else { panic!("a text job") };
        job.model = model("other").id;
    }
    for lease in &leases {
        peer.assign(lease).await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..leases.len() {
        seen.insert(peer.submission().await.statement.lease);
    }
    assert_eq!(seen, ids(&leases));
    assert!(bench.engine.loads() <= 5, "{} loads for six jobs", bench.engine.loads());
}

#[tokio::test]
async fn a_job_the_engine_has_no_room_for_is_handed_back_unharmed() {
    let mut bench = bench(slow());
    let full = EngineError::new(EngineErrorCode::Busy, "no room");
    bench.engine.queue(Script::answer("").ending(Ending::Fail(full)));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    assert_eq!(handed_back(&mut peer).await, lease.id);
    let status = until(&miner, |s| s.jobs == 0).await;
    assert_eq!((status.counters.failed, status.counters.handed_back), (0, 1));
}

#[tokio::test]
async fn other_models_are_served_without_a_pause_and_the_one_at_work_stays() {
    let mut bench = bench(slow());
    let miner = bench.start();
    let mut peer = bench.peers.next().await;
    let loaded = peer.ready().await.models[0].id.clone();
    peer.assign(&lease(LONG_MS)).await;
    until(&miner, |s| s.jobs == 1).await;
    let loads = bench.engine.loads();

    // One comes: it is offered behind the one in memory, whose job goes on.
    let first = model(loaded.as_str());
    miner.serve(vec![model("new"), first], std::collections::BTreeMap::new());
    let ready = peer.ready().await;
    let ids: Vec<&str> = ready.models.iter().map(|offer| offer.id.as_str()).collect();
    assert_eq!(ids, [loaded.as_str(), "new"]);
    let submission = peer.submission().await;
    peer.settle(&submission).await;
    until(&miner, |s| s.counters.settled == 1).await;
    assert_eq!(bench.engine.loads(), loads, "nothing was loaded for it");

    // The one in memory goes: the other is loaded in its place.
    miner.serve(vec![model("new")], std::collections::BTreeMap::new());
    let ready = peer
        .wait(|message| match message {
            NodeMessage::Ready(ready) if ready.slots > 0 && ready.models.len() == 1 => Some(ready),
            _ => None,
        })
        .await;
    assert_eq!(ready.models[0].id.as_str(), "new");
    // Nothing to serve is no order: whoever has nothing stops the miner.
    miner.serve(Vec::new(), std::collections::BTreeMap::new());
    assert_eq!(miner.status().borrow().state, MinerState::Waiting);
    miner.stop_now().await;
}
