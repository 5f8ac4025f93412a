//! The program dies and starts again: what was finished is submitted, once.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::{Lease, NodeId};
use neurino_miner::{MinerConfig, MinerState, ReceiptLog};
use neurino_protocol::node::Submission;
use neurino_testkit::Script;
use neurino_wallet::IdentityKey;

use super::pictures::{self, picture_lease};
use super::{Bench, LONG_MS, lease, until};

/// Runs a miner in a runtime of its own until it has submitted, then ends it all without a word.
fn die_after_submitting(bench: &mut Bench) -> Submission {
    let config = bench.config();
    die_after(bench, config, &lease(LONG_MS))
}

fn die_after(bench: &mut Bench, config: MinerConfig, lease: &Lease) -> Submission {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (submission, _peer, miner) = runtime.block_on(async {
        let miner = bench.start_with(config);
        let mut peer = bench.peers.ready().await;
        peer.assign(lease).await;
        (peer.submission().await, peer, miner)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(miner);
    submission
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_finished_job_survives_the_program_and_is_paid_once() {
    let mut bench = Bench::new(Script::answer("text"));
    let submission = die_after_submitting(&mut bench);
    assert_eq!(bench.kept(), 1);
    block_on(async {
        let miner = bench.start();
        assert_eq!(miner.status().borrow().unsettled, 1);
        let mut peer = bench.peers.next().await;
        assert_eq!(peer.submission().await, submission);
        peer.settle(&submission).await;
        until(&miner, |s| s.counters.settled == 1).await;
        miner.stop_now().await;
    });
    assert_eq!(bench.kept(), 0);
    assert_eq!(bench.engine.jobs().len(), 1, "nothing is computed twice");
    let log = ReceiptLog::open(&bench.dir.path().join("receipts.jsonl")).unwrap();
    assert_eq!(log.totals(0).jobs, 1);
}

#[test]
fn a_finished_picture_survives_the_program_byte_by_byte() {
    let (mut bench, config) = pictures::bench(Duration::ZERO);
    let submission = die_after(&mut bench, config.clone(), &picture_lease(true));
    assert_eq!(bench.kept(), 1);
    block_on(async {
        let miner = bench.start_with(config);
        let mut peer = bench.peers.next().await;
        assert_eq!(peer.submission().await, submission);
        peer.settle(&submission).await;
        until(&miner, |s| s.counters.settled == 1).await;
        miner.stop_now().await;
    });
    assert_eq!((bench.kept(), bench.engine.jobs().len()), (0, 1), "nothing is computed twice");
}

#[test]
fn a_receipt_recorded_before_the_crash_is_not_counted_again_after_it() {
    let mut bench = Bench::new(Script::answer("text"));
    let submission = die_after_submitting(&mut bench);
    block_on(async {
        let miner = bench.start();
        let mut peer = bench.peers.next().await;
        peer.submission().await;
        // As if the program had died between recording the receipt and forgetting the result.
        bench.log.append(&peer.receipt(&submission)).unwrap();
        let mut receipts = miner.receipts();
        peer.settle(&submission).await;
        until(&miner, |s| s.unsettled == 0).await;
        assert!(receipts.try_recv().is_err());
        assert_eq!(miner.status().borrow().counters.settled, 0);
    });
    assert_eq!((bench.log.totals(0).jobs, bench.kept()), (1, 0));
}

#[test]
fn another_identity_still_delivers_what_the_old_one_signed() {
    let mut bench = Bench::new(Script::answer("text"));
    let submission = die_after_submitting(&mut bench);
    let old = NodeId::new(bench.key.address()).unwrap();
    bench.key = Arc::new(IdentityKey::generate(&mut rand::rng()));
    block_on(async {
        let miner = bench.start();
        let mut peer = bench.peers.next().await;
        // `submission` checks the signature against the node that the statement names.
        let again = peer.submission().await;
        assert_eq!((&again, &again.statement.node), (&submission, &old));
        peer.settle(&again).await;
        until(&miner, |s| s.counters.settled == 1).await;
    });
}

#[test]
fn a_damaged_result_stops_nothing() {
    let mut bench = Bench::new(Script::answer("text"));
    die_after_submitting(&mut bench);
    let file = std::fs::read_dir(bench.outbox()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 9);
    std::fs::write(&file, bytes).unwrap();
    block_on(async {
        let miner = bench.start();
        assert_eq!(miner.status().borrow().unsettled, 0);
        let mut peer = bench.peers.ready().await;
        until(&miner, |s| s.state == MinerState::Waiting).await;
        peer.assign(&lease(LONG_MS)).await;
        peer.submission().await;
    });
    assert!(!file.exists() && file.with_extension("json.damaged").exists());
}
