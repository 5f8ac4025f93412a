//! Whether another engine draws its texts as the network's own does: original miners, of which nobody can repeat
//! the random numbers, among answers of a node whose word decides.

use std::time::{Duration, Instant};

use neurino_coordinator::{Coordinator, CoordinatorConfig, Limits, admin};
use neurino_core::audit::AuditRules;
use neurino_core::audit::rank::RankRules;
use neurino_core::{JobOutput, JobSpec};
use neurino_protocol::node::CoordinatorMessage;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::audits;
use crate::honeypots;
use crate::node::{Identity, Node, output};
use crate::original::Miner;
use crate::world::{MODEL, PATIENCE, World};

const LLM: &str = "llm-v1.2.0";

/// What a model writes: usually the same for a prompt, and now and then another letter, as the seed has it.
fn drawn(weights: &str, prompt: &str, seed: u64) -> String {
    let of = |what: &str, at: usize| Sha256::digest(format!("{what} {at}"))[0];
    let letter = |byte: u8| char::from(b'a' + byte % 26);
    let chance = format!("{weights} {prompt} {seed}");
    (0..120)
        .map(|at| match of(&chance, at) {
            luck @ 0..26 => letter(luck),
            _ => letter(of(&format!("{weights} {prompt}"), at)),
        })
        .collect()
}

/// Texts are ranked after a few.
fn rules() -> AuditRules {
    AuditRules {
        rank: RankRules { texts: 8, prompts: 6, false_alarm_ppm: 1_000 },
        ..honeypots::rules()
    }
}

/// A network with a judge, and one with its word.
async fn world() -> (World, tokio::task::JoinHandle<()>) {
    let limits = Limits { honeypot_wait_ms: 0, silence_ms: 60_000, ..audits::limits() };
    let mut world = World::original(limits).await;
    let judge = Identity::new("judge");
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    world.coordinator.shutdown().await;
    let config = CoordinatorConfig { audits: rules(), ..world.config() };
    world.coordinator = Coordinator::open(config).await.unwrap();
    let node = judge.connect(&world.coordinator).await;
    node.announce(&[MODEL], 1).await;
    (world, tokio::spawn(work(node)))
}

/// Takes its time for customers, so that something is left for miners.
async fn work(mut node: Node) {
    while let Some(message) = node.session.messages.recv().await {
        let CoordinatorMessage::Assign(lease) = message else { continue };
        let JobSpec::Text(job) = &lease.spec else { panic!("a text job") };
        let said = &job.messages[0].content;
        if said.starts_with("customer") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut result = output(&drawn("right", said, job.sampling.seed), job.max_tokens.min(60));
        if let JobOutput::Text(text) = &mut result {
            text.choices[0].logprobs = job.logprobs.map(|_| Vec::new());
        }
        node.submit(&lease, result).await;
    }
}

/// Customers ask and a miner answers with its own model and its own random numbers, until a condition holds.
async fn mine(
    world: &World,
    miner: &Miner,
    weights: &str,
    what: &str,
    mut until: impl AsyncFnMut() -> bool,
) {
    // It takes both: polls, which a slow machine gets, and rounds of the audits, which one that polls in no
    // time gets.
    let (begin, mut n) = (Instant::now(), 0);
    while n < 2_000 || begin.elapsed() < PATIENCE {
        if until().await {
            return;
        }
        n += 1;
        // More than the judge begins at once, so that something is left.
        for of in 0..2 {
            world.submit(&format!("customer {n} {of}")).await;
        }
        let job = miner.poll(world, MODEL, LLM).await;
        if job.is_null() {
            // What the judge is asked takes a round.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let asked = job["model_input"]["LLM"]["prompt"].as_str().unwrap();
        let asked: Value = serde_json::from_str(asked).unwrap();
        let said = asked[0]["content"].as_str().unwrap();
        miner.hands_in(world, &job, &drawn(weights, said, rand::random())).await;
    }
    panic!("never: {what}");
}

async fn record(world: &World, miner: &Miner) -> Option<admin::AuditedNode> {
    let shown = admin::audits(&world.config().database, 1).await.unwrap();
    shown.nodes.get(&miner.node()).cloned()
}

#[tokio::test]
async fn an_engine_with_other_weights_is_marked_and_not_convicted() {
    let (world, _judge) = world().await;
    let miner = Miner::new();
    mine(&world, &miner, "smaller", "it is marked", async || {
        record(&world, &miner).await.is_some_and(|about| about.record.apart)
    })
    .await;
    let report = audits::report(&world, &miner.node()).await;
    assert_eq!((&report["stage"], &report["audited_ppm"]), (&"watched".into(), &1_000_000.into()));
    assert!(report["words"].as_str().unwrap().contains("drawn otherwise"), "{report}");
    let shown = admin::audits(&world.config().database, 100).await.unwrap();
    assert!(shown.convictions.is_empty());
    let ranks = shown.newest.iter().filter_map(|audit| match audit.finding.as_ref()? {
        neurino_coordinator::compare::Finding::Unclear { figures } => figures.rank,
        _ => None,
    });
    let ranks: Vec<f64> = ranks.collect();
    assert!(ranks.len() >= 6 && ranks.iter().all(|rank| *rank <= 0.2), "{ranks:?}");
    world.assert_books_hold().await;
}

#[tokio::test]
async fn an_engine_that_draws_alike_earns_trust() {
    let (world, _judge) = world().await;
    let miner = Miner::new();
    mine(&world, &miner, "right", "its texts hold", async || {
        record(&world, &miner).await.is_some_and(|about| about.record.held >= 2)
    })
    .await;
    let about = record(&world, &miner).await.unwrap();
    assert!(!about.record.apart && about.record.test_failed == 0, "{about:?}");
    world.assert_books_hold().await;
}
