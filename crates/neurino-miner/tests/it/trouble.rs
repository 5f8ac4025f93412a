//! Engines that fail, coordinators that refuse, jobs that take too long.

use std::time::Duration;

use neurino_client::ClientError;
use neurino_core::LeaseId;
use neurino_engine::{EngineError, EngineErrorCode};
use neurino_miner::MinerState;
use neurino_protocol::node::NodeMessage;
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_testkit::{Ending, Script};

use super::{Bench, LONG_MS, lease, model, until};
use crate::pool::{MODEL, Peer, Trouble};

async fn failure(peer: &mut Peer) -> (LeaseId, ErrorCode) {
    peer.wait(|m| match m {
        NodeMessage::Failed { lease, error } => Some((lease, error.code)),
        NodeMessage::Submit(_) => panic!("there is no result"),
        _ => None,
    })
    .await
}

fn failing(code: EngineErrorCode) -> Script {
    Script::answer("half").ending(Ending::Fail(EngineError::new(code, "it broke")))
}

#[tokio::test]
async fn a_crash_of_the_engine_gives_the_job_up_pauses_and_goes_on() {
    let mut bench = Bench::new(Script::answer("text"));
    bench.engine.queue(Script::answer("half").ending(Ending::Crash));
    let _miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let first = lease(LONG_MS);
    peer.assign(&first).await;
    // The job's end and the engine's are noticed in either order.
    let (mut paused, mut failed) = (false, None);
    while !paused || failed.is_none() {
        match peer.next().await.unwrap() {
            NodeMessage::Ready(ready) => paused = ready.slots == 0,
            NodeMessage::Failed { lease, error } => failed = Some((lease, error.code)),
            NodeMessage::Submit(_) => panic!("there is no result"),
            _ => {}
        }
    }
    assert_eq!(failed, Some((first.id, ErrorCode::EngineFailed)));
    peer.ready().await;
    let second = lease(LONG_MS);
    peer.assign(&second).await;
    assert_eq!(peer.submission().await.statement.lease, second.id);
}

#[tokio::test]
async fn a_crash_while_idle_pauses_the_node_until_the_engine_is_back() {
    let mut bench = Bench::new(Script::answer("text"));
    let _miner = bench.start();
    let mut peer = bench.peers.ready().await;
    bench.engine.crash();
    peer.paused().await;
    peer.ready().await;
}

#[tokio::test]
async fn requests_no_engine_can_serve_fail_for_good_and_pause_nothing() {
    let mut bench = Bench::new(Script::answer("text"));
    let codes = [
        (EngineErrorCode::ContextTooLong, ErrorCode::ContextTooLong),
        (EngineErrorCode::InvalidRequest, ErrorCode::InvalidRequest),
    ];
    for (code, _) in codes {
        bench.engine.queue(failing(code));
    }
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    for (n, (_, code)) in codes.into_iter().enumerate() {
        let lease = lease(LONG_MS);
        peer.assign(&lease).await;
        assert_eq!(failure(&mut peer).await, (lease.id, code));
        let failed = u64::try_from(n).unwrap() + 1;
        let idle = until(&miner, |s| s.state == MinerState::Waiting && s.counters.failed == failed);
        assert_eq!(idle.await.problem.unwrap().code, code);
    }
}

#[tokio::test]
async fn a_job_beyond_its_budget_is_given_up() {
    let mut bench = Bench::new(Script::answer("endless").ending(Ending::Hang));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let lease = lease(150);
    peer.assign(&lease).await;
    assert_eq!(failure(&mut peer).await, (lease.id, ErrorCode::DeadlinePassed));
    until(&miner, |s| s.state == MinerState::Waiting).await;
    assert_eq!(bench.kept(), 0);
}

#[tokio::test]
async fn an_unreadable_model_needs_the_person_and_is_never_announced() {
    let mut bench = Bench::new(Script::answer("text"));
    let error = EngineError::new(EngineErrorCode::ModelUnreadable, "the file is cut short");
    bench.engine.fail_next_load(error);
    let miner = bench.start();
    let mut peer = bench.peers.next().await;
    let status = until(&miner, |s| matches!(s.state, MinerState::NeedsYou { .. })).await;
    let MinerState::NeedsYou { error } = status.state else { unreachable!() };
    assert_eq!(error.code, ErrorCode::ModelUnreadable);
    assert!(error.hint.is_some());
    peer.assign(&lease(LONG_MS)).await;
    loop {
        match peer.next().await.unwrap() {
            NodeMessage::HandBack { .. } => break,
            NodeMessage::Ready(ready) => assert_eq!(ready.slots, 0),
            _ => {}
        }
    }
}

#[tokio::test]
async fn where_one_model_is_unreadable_another_one_serves() {
    let mut bench = Bench::new(Script::answer("text"));
    let error = EngineError::new(EngineErrorCode::ModelUnreadable, "the file is cut short");
    bench.engine.fail_next_load(error);
    let mut config = bench.config();
    config.models.push(model("other"));
    let _miner = bench.start_with(config);
    let mut peer = bench.peers.next().await;
    assert_eq!(peer.ready().await.models, super::offers(&["other"]));
    assert_ne!(model("other").id.as_str(), MODEL);
}

#[tokio::test]
async fn a_model_with_which_the_engine_keeps_failing_is_left_for_another() {
    let mut bench = Bench::new(Script::answer("text"));
    let mut config = bench.config();
    config.models.push(model("other"));
    let miner = bench.start_with(config);
    let mut peer = bench.peers.ready().await;
    let mut last = Vec::new();
    for _ in 0..3 {
        bench.engine.crash();
        peer.paused().await;
        last = peer.ready().await.models;
    }
    assert_eq!(last, super::offers(&["other"]));
    let status = until(&miner, |s| s.state == MinerState::Waiting && s.problem.is_some()).await;
    let problem = status.problem.unwrap();
    assert_eq!(problem.code, ErrorCode::EngineFailed);
    assert!(problem.message.contains("so other is served instead"), "{problem}");
}

#[tokio::test]
async fn the_only_model_is_computed_gently_before_the_person_is_needed() {
    let mut bench = Bench::new(Script::answer("text"));
    bench.engine = bench.engine.clone().with_slots(4);
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    for _ in 0..3 {
        bench.engine.crash();
        peer.paused().await;
        peer.ready().await;
    }
    let status = until(&miner, |s| s.state == MinerState::Waiting && s.problem.is_some()).await;
    assert!(status.problem.unwrap().message.contains("one at a time"));
    // A job that goes well clears what failed before, and the gentleness stays.
    let lease = lease(LONG_MS);
    peer.assign(&lease).await;
    assert_eq!(peer.submission().await.statement.lease, lease.id);
    for _ in 0..2 {
        bench.engine.crash();
        peer.paused().await;
        assert_eq!(peer.ready().await.slots, 1);
    }
    bench.engine.crash();
    let status = until(&miner, |s| matches!(s.state, MinerState::NeedsYou { .. })).await;
    let MinerState::NeedsYou { error } = status.state else { unreachable!() };
    assert!(error.message.contains("also with one job at a time"), "{error}");
}

#[tokio::test]
async fn loading_is_tried_again_after_a_crash() {
    let mut bench = Bench::new(Script::answer("text"));
    bench.engine.fail_next_load(EngineError::new(EngineErrorCode::Crashed, "it died"));
    let miner = bench.start();
    let status =
        until(&miner, |s| matches!(&s.state, MinerState::LoadingModel { error: Some(_), .. }));
    let MinerState::LoadingModel { wait_ms, error, .. } = status.await.state else {
        unreachable!()
    };
    assert!((250..=500).contains(&wait_ms), "{wait_ms}");
    assert_eq!(error.unwrap().code, ErrorCode::EngineFailed);
    bench.peers.ready().await;
    assert_eq!(bench.engine.loads(), 1);
}

#[tokio::test]
async fn an_unreachable_coordinator_is_tried_again_and_a_refusal_is_shown() {
    let mut bench = Bench::new(Script::answer("text"));
    let nobody = ClientError::Unreachable { url: "there".into(), source: "nobody".into() };
    let refusal = ErrorBody::new(ErrorCode::Unauthorized, "not on the list");
    bench
        .pool
        .trouble
        .lock()
        .unwrap()
        .extend([Trouble::Refuse(nobody), Trouble::Refuse(ClientError::Refused(refusal.clone()))]);
    let miner = bench.start();
    let status = until(&miner, |s| {
        matches!(&s.state, MinerState::Connecting { attempt: 2, error: Some(_), .. })
    });
    let MinerState::Connecting { wait_ms, error, .. } = status.await.state else { unreachable!() };
    assert!((250..=500).contains(&wait_ms), "{wait_ms}");
    assert_eq!(error.unwrap().code, ErrorCode::Unreachable);
    until(&miner, |s| s.state == MinerState::NeedsYou { error: refusal.clone() }).await;
    bench.peers.ready().await;
    let waiting = until(&miner, |s| s.state == MinerState::Waiting).await;
    assert!(waiting.connected);
}

#[tokio::test]
async fn a_slow_load_is_shown_as_loading() {
    let mut bench = Bench::new(Script::answer("text"));
    bench.engine.set_load_delay(Duration::from_millis(300));
    let miner = bench.start();
    let mut peer = bench.peers.next().await;
    let status = until(&miner, |s| s.connected).await;
    let loading = MinerState::LoadingModel { model: model(MODEL).id, wait_ms: 0, error: None };
    assert_eq!(status.state, loading);
    peer.ready().await;
}
