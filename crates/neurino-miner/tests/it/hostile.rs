//! A hostile coordinator: what it may say that a node must not do, and must not believe. Forged and
//! inflated receipts are in `main`, receipts of pictures in `pictures`; messages that are no messages,
//! too large or never end stop at `neurino-client`.

use std::time::Duration;

use neurino_core::{ImageJob, JobSpec, Lease, LeaseId, MicroPoints, ModelId, TextJob, UnitId};
use neurino_miner::{MinerHandle, MinerState, MinerStatus};
use neurino_protocol::node::{Advice, CoordinatorMessage, NodeMessage};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_testkit::Script;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::pool::{MODEL, NETWORK, lease};
use crate::{Bench, LONG_MS, until};

/// A lease whose job was changed.
fn spoilt(change: impl FnOnce(&mut TextJob)) -> Lease {
    let mut lease = lease(LONG_MS);
    let JobSpec::Text(text) = &mut lease.spec else { panic!("a text job") };
    change(text);
    lease
}

#[tokio::test]
async fn jobs_that_make_no_sense_are_refused_and_not_computed() {
    let mut bench = Bench::new(Script::answer("text"));
    let _miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let mut picture = lease(LONG_MS);
    let mut image = ImageJob::new(ModelId::new(MODEL).unwrap(), "x", 512);
    image.guidance = f32::NAN;
    picture.spec = JobSpec::Image(image);
    let table = [
        ("not a number", spoilt(|job| job.sampling.temperature = f32::NAN)),
        ("negative", spoilt(|job| job.sampling.temperature = -1.0)),
        ("without an end", spoilt(|job| job.sampling.top_p = f32::INFINITY)),
        ("no penalty", spoilt(|job| job.sampling.repetition_penalty = f32::NEG_INFINITY)),
        ("no bias", spoilt(|job| job.logit_bias = vec![(1, f32::NAN)])),
        ("no tokens", spoilt(|job| job.max_tokens = 0)),
        ("too many tokens", spoilt(|job| job.max_tokens = u32::MAX)),
        ("too many answers", spoilt(|job| job.choices = u32::MAX)),
        ("too many stops", spoilt(|job| job.stop = vec!["x".into(); 10_000])),
        ("nothing said", spoilt(|job| job.messages.clear())),
        ("a picture that is none", picture),
    ];
    for (what, lease) in table {
        peer.assign(&lease).await;
        let refused = peer
            .wait(|message| match message {
                NodeMessage::Failed { lease, error } => Some((lease, error.code)),
                NodeMessage::Submit(_) => panic!("it was computed: {what}"),
                _ => None,
            })
            .await;
        assert_eq!(refused, (lease.id, ErrorCode::InvalidRequest), "{what}");
    }
    // The node still works.
    let good = lease(LONG_MS);
    peer.assign(&good).await;
    assert_eq!(peer.submission().await.statement.lease, good.id);
}

#[tokio::test]
async fn words_about_leases_that_never_were_change_nothing() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let bait = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/upload", bait.local_addr().unwrap());
    let nobody = LeaseId(Uuid::nil());
    let nonsense = ErrorBody::new(ErrorCode::Internal, "x".repeat(100_000));

    // A real submission's receipt, for a lease that this node never had.
    let first = lease(LONG_MS);
    peer.assign(&first).await;
    let submission = peer.submission().await;
    let honest = peer.receipt(&submission);
    let mut stolen = honest.clone();
    stolen.lease = nobody;
    stolen.signature = bench.pool.key.sign(&stolen.message());
    for message in [
        CoordinatorMessage::Settled(stolen),
        CoordinatorMessage::Rejected { lease: nobody, job: None, error: nonsense.clone() },
        CoordinatorMessage::Cancel { lease: nobody, code: ErrorCode::Cancelled },
        CoordinatorMessage::UploadTo { lease: nobody, url },
        CoordinatorMessage::Advice(Advice {
            model: ModelId::new("nobody-has-it").ok(),
            waiting: u32::MAX,
            unit: None,
        }),
        // Out of order: the handshake, within the session.
        CoordinatorMessage::Challenge {
            version: u32::MAX,
            network: NETWORK.into(),
            coordinator: String::new(),
            nonce: "n".into(),
        },
        CoordinatorMessage::Welcome { coordinator: "0x".into(), uploads: true, token: None },
    ] {
        peer.say(message).await;
    }
    // The lease again, which is computed once, and its receipt twice, which counts once.
    peer.assign(&first).await;
    for _ in 0..2 {
        peer.say(CoordinatorMessage::Settled(honest.clone())).await;
    }
    let settled = |s: &MinerStatus| s.counters.settled > 0 && s.state == MinerState::Waiting;
    let status = until(&miner, settled).await;
    assert_eq!((status.counters.settled, status.counters.rejected, status.unsettled), (1, 0, 0));
    assert_eq!(bench.log.totals(0).jobs, 1);
    while let Ok(message) = peer.from_node.try_recv() {
        if let NodeMessage::Submit(again) = message {
            assert_eq!(again, submission, "sent again, not computed again");
        }
    }
    let wait = Duration::from_millis(200);
    assert!(
        tokio::time::timeout(wait, bait.accept()).await.is_err(),
        "a stranger's address was called"
    );
}

/// The error with which a session was left.
async fn left_with(miner: &MinerHandle) -> ErrorCode {
    let mut code = None;
    until(miner, |status| {
        if let MinerState::Connecting { error: Some(error), .. } = &status.state {
            code = Some(error.code);
        }
        code.is_some()
    })
    .await;
    code.unwrap()
}

#[tokio::test]
async fn jobs_with_senseless_terms_are_answered_and_the_next_one_is_computed() {
    let mut bench = Bench::new(Script::answer("text"));
    let _miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let stranger = spoilt(|job| job.model = ModelId::new("nobody-has-it").unwrap());
    let nowhere = Lease { unit: Some(UnitId(255)), ..lease(LONG_MS) };
    let over = lease(0);
    for (lease, expected) in [
        (&stranger, Some(ErrorCode::ModelNotReady)),
        (&nowhere, None),
        (&over, Some(ErrorCode::DeadlinePassed)),
    ] {
        peer.assign(lease).await;
        let (named, code) = peer
            .wait(|message| match message {
                NodeMessage::Failed { lease, error } => Some((lease, Some(error.code))),
                NodeMessage::HandBack { lease, .. } => Some((lease, None)),
                NodeMessage::Submit(_) => panic!("it was computed"),
                _ => None,
            })
            .await;
        assert_eq!((named, code), (lease.id, expected));
    }
    // Figures that nobody believes change nothing about the work.
    let odd = Lease {
        quote_micro: MicroPoints(i64::MIN),
        fence: u32::MAX,
        rule_set: "x".repeat(1 << 20),
        ..lease(u64::MAX)
    };
    peer.assign(&odd).await;
    assert_eq!(peer.submission().await.statement.lease, odd.id);
}

#[tokio::test]
async fn a_finished_lease_that_is_given_again_and_again_is_not_sent_each_time() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let first = lease(LONG_MS);
    peer.assign(&first).await;
    let submission = peer.submission().await;
    for _ in 0..50 {
        peer.assign(&first).await;
    }
    peer.settle(&submission).await;
    until(&miner, |status| status.counters.settled == 1).await;
    let mut again = 0;
    while let Ok(message) = peer.from_node.try_recv() {
        again += u32::from(matches!(message, NodeMessage::Submit(_)));
    }
    assert_eq!(again, 0, "a question costs nothing, and its answer may be a picture");
}

#[tokio::test]
async fn a_coordinator_that_only_talks_is_left_and_the_next_session_works() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let floods: [fn(u32) -> CoordinatorMessage; 4] = [
        |n| {
            CoordinatorMessage::Advice(Advice {
                model: ModelId::new(MODEL).ok(),
                waiting: n,
                unit: Some(UnitId(n as u8)),
            })
        },
        |_| CoordinatorMessage::Cancel { lease: LeaseId(Uuid::nil()), code: ErrorCode::Cancelled },
        |n| CoordinatorMessage::Notice(ErrorBody::new(ErrorCode::Internal, format!("notice {n}"))),
        |_| CoordinatorMessage::Assign(spoilt(|job| job.max_tokens = 0)),
    ];
    for flood in floods {
        let mut said = 0_u32;
        // Its answers are taken, so that nothing but their number is too much.
        while peer.to_node.send(flood(said)).await.is_ok() {
            while peer.from_node.try_recv().is_ok() {}
            said += 1;
            assert!(said < 5_000, "it listens to everything");
            tokio::task::yield_now().await;
        }
        assert!(said > 400, "after {said} it is too early");
        assert_eq!(left_with(&miner).await, ErrorCode::RateLimited);
        drop(peer);
        peer = bench.peers.ready().await;
    }
    let good = lease(LONG_MS);
    peer.assign(&good).await;
    assert_eq!(peer.submission().await.statement.lease, good.id);
}

#[tokio::test]
async fn a_coordinator_that_asks_and_takes_no_answers_fills_no_memory() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let peer = bench.peers.ready().await;
    // Each would be one more refusal that waits.
    let mut said = 0_u32;
    let assign = || CoordinatorMessage::Assign(spoilt(|job| job.max_tokens = 0));
    let wait = Duration::from_secs(1);
    while let Ok(Ok(())) = tokio::time::timeout(wait, peer.to_node.send(assign())).await {
        said += 1;
        assert!(said < 450, "no more is heard than can be answered");
    }
    assert!(said >= 256, "{said}");
    let closed = tokio::time::timeout(Duration::from_secs(30), peer.to_node.closed()).await;
    closed.expect("it is left");
    assert_eq!(left_with(&miner).await, ErrorCode::Unreachable);
    drop(peer);
    let mut peer = bench.peers.ready().await;
    let good = lease(LONG_MS);
    peer.assign(&good).await;
    assert_eq!(peer.submission().await.statement.lease, good.id);
}

#[tokio::test]
async fn long_words_are_shown_short_and_in_one_line() {
    let mut bench = Bench::new(Script::answer("text"));
    let miner = bench.start();
    let mut peer = bench.peers.ready().await;
    let long = || ErrorBody::new(ErrorCode::Internal, format!("one\nline{}", "x".repeat(1 << 20)));
    peer.say(CoordinatorMessage::Notice(long())).await;
    let status = until(&miner, |status| status.problem.is_some()).await;
    let shown = status.problem.unwrap().message;
    assert!(shown.len() == 500 && shown.starts_with("one linexxx"), "{shown}");
    let first = lease(LONG_MS);
    peer.assign(&first).await;
    peer.submission().await;
    peer.say(CoordinatorMessage::Rejected { lease: first.id, job: None, error: long() }).await;
    let status = until(&miner, |status| status.counters.rejected == 1).await;
    assert_eq!(status.problem.unwrap().message.len(), 500);
}
