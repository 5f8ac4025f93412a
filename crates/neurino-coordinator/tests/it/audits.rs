//! Results that are computed again, from outside: what a node and whoever runs the network see.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use neurino_client::{ClientError, Coordinator as _};
use neurino_coordinator::{AuditState, Coordinator, CoordinatorError, Limits, admin};
use neurino_core::audit::TrustStage;
use neurino_core::{JobId, JobOutput, Lease, NodeId};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::CoordinatorMessage;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::node::{Identity, Node, output};
use crate::pictures::{asked, offer, picture, usual};
use crate::world::{MODEL, World, eventually, short_limits};

/// Answers every job; a liar in words of its own. Ends with its session.
pub(crate) fn work(mut node: Node, answer: fn(&Lease) -> JobOutput) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(message) = node.session.messages.recv().await {
            if let CoordinatorMessage::Assign(lease) = message {
                let mut result = answer(&lease);
                if let (JobOutput::Text(text), neurino_core::JobSpec::Text(job)) =
                    (&mut result, &lease.spec)
                {
                    text.choices[0].logprobs = job.logprobs.map(|_| Vec::new());
                }
                node.submit(&lease, result).await;
            }
        }
    })
}

/// Audits go on at once.
pub(crate) fn limits() -> Limits {
    Limits { audit_round_ms: 40, ..short_limits() }
}

fn honest(_: &Lease) -> JobOutput {
    output("the right words", 4)
}

fn lie(_: &Lease) -> JobOutput {
    output("some other words", 4)
}

async fn node(coordinator: &Arc<Coordinator>, who: &Identity) -> Node {
    let node = who.connect(coordinator).await;
    node.announce(&[MODEL], 4).await;
    node
}

async fn asked_for(world: &World, jobs: std::ops::Range<u32>) {
    for n in jobs {
        let job = world.submit(&format!("question {n}")).await;
        let mut watch = world.coordinator.watch_job(job).await.unwrap();
        watch.finished().await.unwrap();
    }
}

pub(crate) async fn report(world: &World, node: &NodeId) -> Value {
    let path = format!("/v1/nodes/{node}/trust");
    let (status, body) = world.send(Method::GET, &path, None, &[], "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

fn state_of(report: &Value, state: AuditState) -> u64 {
    report["audits"][state.as_str()].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn with_one_owner_nobody_can_tell_and_it_says_so() {
    let world = World::with(Limits { audit_wait_ms: 300, ..limits() }).await;
    let alone = Identity::new("rig1");
    let _working = work(node(&world.coordinator, &alone).await, honest);
    let second = Identity { key: Arc::clone(&alone.key), id: second_of(&alone) };
    let _too = work(node(&world.coordinator, &second).await, honest);
    asked_for(&world, 0..3).await;
    let of = async || {
        let (a, b) = (report(&world, &alone.id).await, report(&world, &second.id).await);
        [a, b]
    };
    eventually("the audits end", async || {
        let both = of().await;
        both.iter().map(|r| state_of(r, AuditState::NoIndependentAuditor)).sum::<u64>() == 3
    })
    .await;
    for report in of().await {
        assert_eq!((&report["stage"], &report["held"]), (&"new".into(), &0.into()), "{report}");
        assert_eq!(state_of(&report, AuditState::Held), 0, "that is no pass");
        let said = report["words"].as_str().unwrap();
        let any = state_of(&report, AuditState::NoIndependentAuditor) > 0;
        assert_eq!(said.contains("no independent auditor"), any, "{said}");
    }
    world.assert_books_hold().await;
}

fn second_of(identity: &Identity) -> NodeId {
    NodeId::new(identity.id.as_str().replace("rig1", "rig2")).unwrap()
}

#[tokio::test]
async fn honest_results_hold_and_their_node_is_trusted_more() {
    let world = World::with(limits()).await;
    let (one, other) = (Identity::new("a"), Identity::new("b"));
    let _one = work(node(&world.coordinator, &one).await, honest);
    let _other = work(node(&world.coordinator, &other).await, honest);
    asked_for(&world, 0..24).await;
    eventually("both are past their first results", async || {
        let mut stages = Vec::new();
        for id in [&one.id, &other.id] {
            stages.push(report(&world, id).await["stage"].clone());
        }
        stages.iter().any(|stage| stage == "watched")
    })
    .await;
    let (a, b) = (report(&world, &one.id).await, report(&world, &other.id).await);
    for report in [&a, &b] {
        assert_eq!(state_of(report, AuditState::Failed), 0, "{report}");
        assert!(report["in_escrow_micro"].as_i64().unwrap() > 0, "{report}");
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_liar_is_convicted_pays_back_appeals_and_all_of_it_survives_restarts() {
    let mut world = World::with(limits()).await;
    let database = world.config().database;
    let [liar, honest_one, judge] = ["liar", "honest", "judge"].map(Identity::new);
    admin::set_validator(&database, &judge.id, true).await.unwrap();
    let lying = work(node(&world.coordinator, &liar).await, lie);
    let mut working = [
        work(node(&world.coordinator, &honest_one).await, honest),
        work(node(&world.coordinator, &judge).await, honest),
    ];
    let mut next = 0;
    eventually("the liar is convicted", async || {
        asked_for(&world, next..next + 2).await;
        next += 2;
        if next == 6 {
            // In the middle of it all.
            world.restart().await;
            working = [
                work(node(&world.coordinator, &honest_one).await, honest),
                work(node(&world.coordinator, &judge).await, honest),
            ];
            drop(work(node(&world.coordinator, &liar).await, lie));
        }
        report(&world, &liar.id).await["stage"] == "convicted"
    })
    .await;
    drop(lying);
    let stage = |node: &Value| node["stage"].clone();
    for good in [&honest_one, &judge] {
        assert_ne!(stage(&report(&world, &good.id).await), "convicted");
    }
    let total = async |world: &World| {
        let points = world.coordinator.points(&liar.id, 0).await.unwrap();
        (points.llama_total.0, points.jobs_total)
    };
    eventually("its pay is called back", async || total(&world).await.0 == 0).await;
    assert!(total(&world).await.1 >= 1, "what it did is still told");
    world.assert_books_hold().await;
    // It gets no session any more.
    let local = world.coordinator.local();
    match local.connect(&liar.key, &liar.id, &crate::node::capabilities()).await {
        Err(ClientError::Refused(error)) => {
            assert_eq!(error.code, ErrorCode::Forbidden);
            assert!(error.hint.unwrap().contains("appeal"));
        }
        other => panic!("{:?}", other.map(|_| "a session")),
    }
    world.restart().await;
    assert_eq!(stage(&report(&world, &liar.id).await), "convicted");
    assert_eq!(total(&world).await.0, 0);

    // The appeal: taken down, granted, and everything is as it was.
    admin::appeal(&database, &liar.id, "my memory was broken").await.unwrap();
    let shown = admin::audits(&database, 100).await.unwrap();
    let [conviction] = &shown.convictions[..] else { panic!("{shown:?}") };
    assert_eq!(conviction.appeal.as_deref(), Some("my memory was broken"));
    assert!(
        conviction.called_back > 0 && conviction.evidence["audits"].as_array().unwrap().len() >= 4
    );
    assert_eq!(shown.nodes[&liar.id].stage, TrustStage::Convicted);
    assert_eq!(conviction.node.as_str(), liar.key.address(), "the owner is");
    // Whoever decides may look at what was compared, and that is written down.
    let judged: JobId = serde_json::from_value(conviction.evidence["audits"][0].clone()).unwrap();
    let key = world.config().payload_key;
    admin::evidence(&database, &key, judged).await.unwrap();
    let unknown = admin::evidence(&database, &key, JobId(uuid::Uuid::nil())).await.unwrap_err();
    assert!(matches!(unknown, CoordinatorError::Appeal(_)), "{unknown}");
    let log = admin::log_lines(&database, 0, 1000).await.unwrap();
    assert_eq!(log.iter().filter(|line| line.contains("evidence read")).count(), 2, "{log:?}");
    admin::decide_appeal(&database, &liar.id, true, "it was").await.unwrap();
    assert!(admin::decide_appeal(&database, &liar.id, true, "it was").await.is_err(), "once");
    let given_back = total(&world).await;
    assert!(given_back.0 > 0);
    world.assert_books_hold().await;
    eventually("the coordinator knows", async || stage(&report(&world, &liar.id).await) == "new")
        .await;
    let _again = node(&world.coordinator, &liar).await;
    world.restart().await;
    assert_eq!(total(&world).await, given_back, "nothing is called back again");
    world.assert_books_hold().await;
}

#[tokio::test]
async fn tags_do_not_divide_what_an_owner_did() {
    let mut world = World::with(Limits { silence_ms: 60_000, ..limits() }).await;
    let database = world.config().database;
    let [liar, honest_one, judge] = ["rig1", "honest", "judge"].map(Identity::new);
    let tagged = |tag: &str| {
        let id = NodeId::new(format!("{}-{tag}", liar.key.address())).unwrap();
        Identity { key: Arc::clone(&liar.key), id }
    };
    admin::set_validator(&database, &judge.id, true).await.unwrap();
    // So that it is known from the first audit on.
    world.restart().await;
    // One lie under each tag, while nobody else is there to answer.
    for n in 0..4_u32 {
        let lying = work(node(&world.coordinator, &tagged(&format!("t{n}"))).await, lie);
        asked_for(&world, n..n + 1).await;
        lying.abort();
        let _ = lying.await;
    }
    let other = tagged("t9");
    let bystander = node(&world.coordinator, &other).await;
    let _honest = work(node(&world.coordinator, &honest_one).await, honest);
    let _judge = work(node(&world.coordinator, &judge).await, honest);
    eventually("the owner is convicted", async || {
        report(&world, &other.id).await["stage"] == "convicted"
    })
    .await;
    let total =
        async |tag: &str| world.coordinator.points(&tagged(tag).id, 0).await.unwrap().llama_total.0;
    eventually("the pay of all its nodes is called back", async || {
        let mut left = 0;
        for n in 0..4 {
            left += total(&format!("t{n}")).await;
        }
        left == 0
    })
    .await;
    drop(bystander);
    let local = world.coordinator.local();
    let fresh = tagged("fresh");
    match local.connect(&fresh.key, &fresh.id, &crate::node::capabilities()).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::Forbidden),
        other => panic!("{:?}", other.map(|_| "a session")),
    }
    world.assert_books_hold().await;
    admin::appeal(&database, &fresh.id, "somebody had my key").await.unwrap();
    admin::decide_appeal(&database, &other.id, true, "so it was").await.unwrap();
    for n in 0..4 {
        assert!(total(&format!("t{n}")).await > 0, "t{n}");
    }
    eventually("the coordinator knows", async || report(&world, &fresh.id).await["stage"] == "new")
        .await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn near_copies_and_blank_pictures_are_looked_at_and_exact_copies_refused() {
    let world = World::new().await;
    let mut first = Identity::new("a").connect(&world.coordinator).await;
    offer(&first, Some(usual()), 1).await;
    let submit = async |seed| {
        let spec = neurino_core::JobSpec::Image(crate::pictures::job(seed));
        let payer = neurino_coordinator::PayerId::local();
        eventually("it is known", async || {
            let asked = world.coordinator.submit_job(payer.clone(), None, spec.clone()).await;
            asked.is_ok()
        })
        .await;
    };
    submit(1).await;
    let lease = first.lease().await;
    let kept = picture(asked(&lease));
    first.submit(&lease, kept.clone()).await;
    first.settled().await;
    // Written anew with one step more here and there.
    submit(2).await;
    let lease = first.lease().await;
    let retouched = (lease.job, "nearly the same");
    first.submit(&lease, self::retouched(&kept)).await;
    first.settled().await;
    submit(3).await;
    let lease = first.lease().await;
    let blank = (lease.job, "one colour");
    let JobOutput::Image(mut flat) = kept.clone() else { panic!("a text") };
    flat.png = crate::pictures::flat(flat.width, flat.height, 77);
    first.submit(&lease, JobOutput::Image(flat)).await;
    first.settled().await;
    submit(4).await;
    let lease = first.lease().await;
    first.submit(&lease, kept).await;
    assert_eq!(first.rejected().await, ErrorCode::InvalidRequest);
    let lease = first.lease().await;
    first.submit(&lease, picture(asked(&lease))).await;
    first.settled().await;
    let shown = admin::audits(&world.config().database, 10).await.unwrap();
    for (job, words) in [retouched, blank] {
        let suspected = shown.newest.iter().find(|audit| audit.job == job).unwrap();
        assert!(suspected.suspicion.as_deref().unwrap().contains(words), "{suspected:?}");
    }
    world.assert_books_hold().await;
}

fn retouched(output: &JobOutput) -> JobOutput {
    let JobOutput::Image(picture) = output else { panic!("a text") };
    let mut pixels = neurino_coordinator::compare::pixels(picture).unwrap();
    pixels.iter_mut().step_by(40).for_each(|sample| *sample ^= 1);
    let png = crate::pictures::png_of_pixels(picture.width, picture.height, &pixels);
    JobOutput::Image(neurino_core::ImageOutput { png, ..picture.clone() })
}

#[tokio::test]
async fn a_long_answer_to_another_prompt_is_refused_once_and_then_looked_at() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let long = || output(&"so it was and so it will be ".repeat(30), 60);
    world.submit("first question").await;
    let lease = node.lease().await;
    node.submit(&lease, long()).await;
    node.settled().await;
    let other = world.submit("second question").await;
    let lease = node.lease().await;
    node.submit(&lease, long()).await;
    assert_eq!(node.rejected().await, ErrorCode::InvalidRequest);
    let lease = node.lease().await;
    assert_eq!(lease.job, other, "the job is not lost");
    node.submit(&lease, long()).await;
    node.settled().await;
    let shown = admin::audits(&world.config().database, 10).await.unwrap();
    let suspected = shown.newest.iter().find(|audit| audit.job == other).unwrap();
    assert!(suspected.suspicion.as_deref().unwrap().contains("another prompt"));
    world.assert_books_hold().await;
}
