//! A hostile coordinator: what it may say that a node must not do, and must not believe. Forged and
//! inflated receipts are in `main`, receipts of pictures in `pictures`; messages that are no messages,
//! too large or never end stop at `neurino-client`.

use neurino_core::{ImageJob, JobSpec, Lease, LeaseId, ModelId, TextJob};
use neurino_miner::{MinerState, MinerStatus};
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
    let wait = std::time::Duration::from_millis(200);
    assert!(
        tokio::time::timeout(wait, bait.accept()).await.is_err(),
        "a stranger's address was called"
    );
}
