//! Image jobs between the engine and the coordinator.

use std::time::Duration;

use neurino_core::{
    ImageDefaults, ImageJob, ImageStep, JobOutput, JobSpec, Lease, MicroPoints, ModelId,
    PointsKind, Quote, Receipt, RuleSets, Usage,
};
use neurino_miner::{MinerConfig, Stage};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{CoordinatorMessage, NodeMessage, Submission};
use neurino_testkit::{Script, picture};

use super::pool::Peer;
use super::{Bench, LONG_MS, lease, model, until};

pub(crate) const PAINTER: &str = "painter";

pub(crate) fn usual() -> ImageDefaults {
    let negative_prompt = String::new();
    ImageDefaults {
        width: 64,
        height: 32,
        steps: 4,
        guidance: 7.0,
        negative_prompt,
        side_multiple: 8,
        sampler: None,
    }
}

pub(crate) fn picture_lease(preview: bool) -> Lease {
    let job = ImageJob { preview, seed: 5, ..usual().job(model(PAINTER).id, "a lighthouse") };
    Lease { spec: JobSpec::Image(job), points: PointsKind::Waifu, ..lease(LONG_MS) }
}

fn job(lease: &Lease) -> &ImageJob {
    match &lease.spec {
        JobSpec::Image(job) => job,
        JobSpec::Text(_) => panic!("a text job"),
    }
}

pub(crate) fn bench(step_delay: Duration) -> (Bench, MinerConfig) {
    let bench = Bench::new(Script::picture(step_delay).with_previews_unasked());
    let config = MinerConfig { models: vec![model(PAINTER)], ..bench.config() };
    (bench, config)
}

/// The receipt of a picture as an honest coordinator makes it, but for a change.
fn receipt(
    bench: &Bench,
    peer: &Peer,
    submission: &Submission,
    change: impl FnOnce(&mut Quote),
) -> Receipt {
    let rules = RuleSets::built_in();
    let JobOutput::Image(made) = &submission.output else { panic!("a text") };
    let spec = JobSpec::Image(ImageJob {
        width: made.width,
        height: made.height,
        ..usual().job(ModelId::new(PAINTER).unwrap(), "")
    });
    let rules = rules.named("practice3").unwrap();
    let mut quote = rules.price(&spec, Usage::default(), neurino_core::Multiplier::ONE).unwrap();
    change(&mut quote);
    let mut receipt = Receipt {
        model: model(PAINTER).id,
        usage: Usage::default(),
        rule_set: "practice3".into(),
        quote,
        ..peer.receipt(submission)
    };
    receipt.signature = bench.pool.key.sign(&receipt.message());
    receipt
}

#[tokio::test]
async fn a_picture_is_made_step_by_step_submitted_and_paid() {
    for preview in [true, false] {
        let (mut bench, config) = bench(Duration::from_millis(120));
        let miner = bench.start_with(config);
        let mut peer = bench.peers.next().await;
        assert_eq!(peer.ready().await.models[0].image, Some(usual()));
        let lease = picture_lease(preview);
        peer.assign(&lease).await;
        let working = until(&miner, |s| s.job.as_ref().is_some_and(|j| j.done == 2)).await;
        let shown = working.job.unwrap();
        assert_eq!((shown.of, shown.stage, shown.kind), (4, Stage::Running, lease.spec.kind()));
        let mut steps = Vec::new();
        let submission = loop {
            match peer.next().await.unwrap() {
                NodeMessage::Progress { lease: of, deltas, tokens, step } => {
                    assert_eq!((of, deltas.len(), tokens), (lease.id, 0, 0));
                    let ImageStep { step, steps: all, preview } = step.unwrap();
                    assert_eq!(all, 4);
                    steps.push((step, preview.is_some()));
                }
                NodeMessage::Submit(submission) => break submission,
                NodeMessage::Heartbeat { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        // The engine shows previews to everybody; who did not ask for them gets none.
        assert!(steps.len() >= 3, "{steps:?}");
        assert!(steps.is_sorted() && steps.iter().all(|(_, shown)| *shown == preview), "{steps:?}");
        assert_eq!(submission.output, picture::picture_of(job(&lease)));
        let receipt = receipt(&bench, &peer, &submission, |_| {});
        peer.say(CoordinatorMessage::Settled(receipt.clone())).await;
        let paid = until(&miner, |s| s.counters.settled == 1).await;
        assert_eq!(paid.counters.earned_micro, receipt.quote.amount_micro);
        assert_eq!(bench.log.totals(0).waifu_micro, receipt.quote.amount_micro);
    }
}

#[tokio::test]
async fn a_receipt_whose_amount_does_not_follow_from_its_rules_is_not_believed() {
    let (mut bench, config) = bench(Duration::ZERO);
    let miner = bench.start_with(config);
    let mut peer = bench.peers.ready().await;
    peer.assign(&picture_lease(false)).await;
    let submission = peer.submission().await;
    let forged = [
        receipt(&bench, &peer, &submission, |quote| quote.amount_micro = MicroPoints(1)),
        receipt(&bench, &peer, &submission, |quote| quote.points = PointsKind::Llama),
        // Part of a step.
        receipt(&bench, &peer, &submission, |quote| quote.units -= 1),
    ];
    for receipt in forged {
        peer.say(CoordinatorMessage::Settled(receipt)).await;
        let status = until(&miner, |s| s.problem.is_some()).await;
        assert_eq!(status.problem.unwrap().code, ErrorCode::BadSignature);
        assert_eq!((status.counters.settled, status.unsettled), (0, 1));
    }
    let honest = receipt(&bench, &peer, &submission, |_| {});
    peer.say(CoordinatorMessage::Settled(honest)).await;
    until(&miner, |s| s.counters.settled == 1).await;
}

#[tokio::test]
async fn a_picture_that_would_come_too_late_is_left_to_others_at_once() {
    let (mut bench, config) = bench(Duration::from_millis(100));
    let miner = bench.start_with(config);
    let mut peer = bench.peers.ready().await;
    let larger = |budget_ms| {
        let mut lease = picture_lease(false);
        let JobSpec::Image(job) = &mut lease.spec else { unreachable!("a picture") };
        (job.steps, job.width, job.height) = (20, 64, 64);
        Lease { budget_ms, ..lease }
    };
    // Nothing was measured: it is tried, and four steps of 100 ms are seen.
    let first = picture_lease(false);
    peer.assign(&first).await;
    until(&miner, |s| s.job.is_some()).await;
    let shown = miner.status().borrow().job.clone().unwrap();
    assert_eq!(shown.estimate_ms, None);
    assert_eq!(peer.submission().await.statement.lease, first.id);

    // Five times the steps of twice the pixels: four seconds.
    let late = larger(1_000);
    peer.assign(&late).await;
    let refused = peer
        .wait(|m| match m {
            NodeMessage::Failed { lease, error } => Some((lease, error)),
            _ => None,
        })
        .await;
    assert_eq!((refused.0, refused.1.code), (late.id, ErrorCode::DeadlinePassed));
    assert!(refused.1.message.contains("and has 1 s"), "{}", refused.1);
    assert_eq!(bench.engine.jobs().len(), 1, "no time is lost with it");
    assert_eq!(miner.status().borrow().problem, None);

    let right = larger(LONG_MS);
    peer.assign(&right).await;
    let status = until(&miner, |s| s.job.as_ref().is_some_and(|job| job.lease == right.id)).await;
    let estimate_ms = status.job.unwrap().estimate_ms.unwrap();
    assert!((3_500..9_000).contains(&estimate_ms), "{estimate_ms}");
    assert_eq!(peer.submission().await.statement.lease, right.id);
}
