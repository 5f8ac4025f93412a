//! Stopping: at once whatever hangs, or after the work in hand.

use std::time::{Duration, Instant};

use neurino_miner::MinerState;
use neurino_protocol::node::NodeMessage;
use neurino_testkit::{Ending, Script};
use tokio::time::timeout;

use super::{Bench, LONG_MS, lease, until};
use crate::pool::{SOON, Trouble};

/// What `stop_now` promises.
const PROMISE: Duration = Duration::from_secs(2);

fn hanging() -> Script {
    Script::answer("endless").ending(Ending::Hang)
}

#[tokio::test]
async fn stopping_hands_the_job_back_even_when_the_engine_hangs() {
    let mut bench = Bench::new(hanging());
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    until(&miner, |s| s.job.as_ref().is_some_and(|j| j.done > 0)).await;
    let reader = tokio::spawn(async move {
        let back = peer
            .wait(|m| match m {
                NodeMessage::HandBack { lease, .. } => Some(lease),
                _ => None,
            })
            .await;
        assert!(matches!(peer.next().await, Some(NodeMessage::Goodbye)));
        assert!(peer.next().await.is_none(), "the session is closed");
        back
    });
    let began = Instant::now();
    miner.stop_now().await;
    assert!(began.elapsed() < PROMISE, "{:?}", began.elapsed());
    assert_eq!(miner.status().borrow().state, MinerState::Stopped);
    assert_eq!(timeout(SOON, reader).await.unwrap().unwrap(), lease.id);
}

#[tokio::test]
async fn stopping_keeps_its_promise_when_the_link_hangs_too() {
    // A link with room for one message that nobody reads.
    let mut bench = Bench::with_room(hanging(), 1);
    let miner = bench.start();
    let peer = bench.peers.ready().await;
    peer.assign(&lease(LONG_MS)).await;
    until(&miner, |s| s.job.as_ref().is_some_and(|j| j.done > 0)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    miner.stop_now().await;
    assert!(began.elapsed() < PROMISE, "{:?}", began.elapsed());
    let status = miner.status().borrow().clone();
    assert_eq!((status.state, status.connected), (MinerState::Stopped, false));
    drop(peer);
}

#[tokio::test]
async fn stopping_does_not_wait_for_connecting_or_loading() {
    let bench = Bench::new(hanging());
    bench.pool.trouble.lock().unwrap().push_back(Trouble::Hang);
    bench.engine.set_load_delay(Duration::from_mins(10));
    let miner = bench.start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    miner.stop_now().await;
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn finishing_completes_the_job_takes_no_other_and_says_goodbye() {
    let mut bench = Bench::new(Script::answer("a b c d e").paced(Duration::from_millis(50)));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let (first, second) = (lease(LONG_MS), lease(LONG_MS));
    peer.assign(&first).await;
    until(&miner, |s| s.state == MinerState::Working).await;
    miner.finish();
    until(&miner, |s| s.state == MinerState::Finishing).await;
    peer.paused().await;
    peer.assign(&second).await;
    let back = peer
        .wait(|m| match m {
            NodeMessage::HandBack { lease, .. } => Some(lease),
            NodeMessage::Submit(_) => panic!("answered only after the job"),
            _ => None,
        })
        .await;
    assert_eq!(back, second.id);
    let submission = peer.submission().await;
    assert_eq!(submission.statement.lease, first.id);
    peer.settle(&submission).await;
    peer.wait(|m| matches!(m, NodeMessage::Goodbye).then_some(())).await;
    drop(peer);
    timeout(SOON, miner.stopped()).await.unwrap();
    assert_eq!((bench.log.totals(0).jobs, bench.kept()), (1, 0));
}

#[tokio::test]
async fn finishing_without_work_stops_at_once() {
    let mut bench = Bench::new(hanging());
    let miner = bench.start();
    let peer = bench.peers.ready().await;
    miner.finish();
    drop(peer);
    timeout(SOON, miner.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_handle_stops_the_miner() {
    let mut bench = Bench::new(hanging());
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    drop(miner);
    peer.wait(|m| matches!(m, NodeMessage::Goodbye).then_some(())).await;
    assert!(peer.next().await.is_none());
}
