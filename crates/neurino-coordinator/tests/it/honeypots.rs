//! Jobs whose answer the network knows, as the nodes that get them see them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use neurino_coordinator::PayerId;
use neurino_coordinator::{Coordinator, CoordinatorConfig, Limits, admin};
use neurino_core::audit::AuditRules;
use neurino_core::{ChatMessage, JobOutput, JobSpec, Lease, ModelId, TextJob};
use neurino_protocol::node::CoordinatorMessage;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use crate::audits::{limits, report};
use crate::node::{Identity, output};
use crate::world::{MODEL, PATIENCE, World, eventually};

/// Only honeypots check anything, and one follows each result.
pub(crate) fn rules() -> AuditRules {
    AuditRules {
        // As of results that nobody could tell: hardly any is drawn for an ordinary audit.
        first: u32::MAX,
        unclear: 0,
        unclear_floor_ppm: 1,
        honeypot_ppm: 1_000_000,
        ..AuditRules::built_in()
    }
}

async fn world(rules: AuditRules) -> World {
    let mut world =
        World::with(Limits { honeypot_wait_ms: 0, silence_ms: 60_000, ..limits() }).await;
    open(&mut world, rules).await;
    world
}

async fn open(world: &mut World, audits: AuditRules) {
    world.coordinator.shutdown().await;
    let config = CoordinatorConfig { audits, ..world.config() };
    world.coordinator = Coordinator::open(config).await.unwrap();
}

fn text_of(lease: &Lease) -> &TextJob {
    let JobSpec::Text(job) = &lease.spec else { panic!("a text job") };
    job
}

/// What the model would say: a function of the job, as long as an answer.
fn words(weights: &str, job: &TextJob) -> JobOutput {
    let said = job.messages.iter().map(|message| message.content.as_str()).collect::<String>();
    let seed = job.sampling.seed;
    let hash = Sha256::digest(format!("{weights} {said} {seed}"));
    let words: Vec<String> = hash.chunks(2).map(|w| format!("w{:02x}{:02x}", w[0], w[1])).collect();
    output(&words.join(" "), 16)
}

type Seen = Arc<Mutex<Vec<Lease>>>;

/// A node that notes its leases and answers with one or another model, as it likes.
async fn node(
    coordinator: &Arc<Coordinator>,
    who: &Identity,
    seen: &Seen,
    weights: impl Fn(&TextJob, &[Lease]) -> &'static str + Send + 'static,
) -> JoinHandle<()> {
    let mut node = who.connect(coordinator).await;
    node.announce(&[MODEL], 4).await;
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        while let Some(message) = node.session.messages.recv().await {
            let CoordinatorMessage::Assign(lease) = message else { continue };
            let job = text_of(&lease);
            let weights = weights(job, &seen.lock().unwrap());
            let mut result = words(weights, job);
            if let JobOutput::Text(text) = &mut result {
                text.choices[0].logprobs = job.logprobs.map(|_| Vec::new());
            }
            seen.lock().unwrap().push(lease.clone());
            node.submit(&lease, result).await;
        }
    })
}

fn honest(_: &TextJob, _: &[Lease]) -> &'static str {
    "right"
}

/// Computes as it should what it takes for a check: other nodes' work (it asks for log-probabilities), and
/// what it was asked before.
fn sly(job: &TextJob, seen: &[Lease]) -> &'static str {
    let again = seen.iter().any(|lease| text_of(lease).messages == job.messages);
    if job.logprobs.is_some() || again { "right" } else { "smaller" }
}

async fn ask(world: &World, n: u32) {
    let messages = vec![ChatMessage::new(neurino_core::Role::User, format!("customer {n}"))];
    let mut job = TextJob::new(ModelId::new(MODEL).unwrap(), messages, 64);
    job.sampling.seed = u64::from(n) << 32 | 7;
    let payer = PayerId::new("customer").unwrap();
    let job = world.coordinator.submit_job(payer, None, JobSpec::Text(job)).await.unwrap();
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    tokio::time::timeout(PATIENCE, watch.finished()).await.expect("a job ends").unwrap();
}

/// Sends customers' jobs until a condition holds. It needs jobs and rounds of the audits: a slow machine
/// gets its jobs, and one that does them in no time its rounds.
async fn ask_until(
    world: &World,
    asked: &mut u32,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let (last, begin) = (*asked + 500, Instant::now());
    while !condition().await {
        let is_over = *asked >= last && begin.elapsed() > PATIENCE;
        assert!(!is_over, "not after {asked} jobs: {what}");
        ask(world, *asked).await;
        *asked += 1;
    }
}

/// Those of a node's jobs that no customer sent.
fn honeypots(seen: &Seen) -> Vec<Lease> {
    let seen = seen.lock().unwrap();
    let by_customers = |lease: &&Lease| text_of(lease).messages[0].content.starts_with("customer");
    seen.iter().filter(|lease| !by_customers(lease)).cloned().collect()
}

#[tokio::test]
async fn who_is_honest_only_where_it_smells_a_check_is_convicted_by_what_it_cannot_smell() {
    let world = world(rules()).await;
    let (sly_one, judge) = (Identity::new("sly"), Identity::new("judge"));
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    let (seen, of_judge) = (Seen::default(), Seen::default());
    let _sly = node(&world.coordinator, &sly_one, &seen, sly).await;
    let _judge = node(&world.coordinator, &judge, &of_judge, honest).await;
    let mut asked = 0;
    ask_until(&world, &mut asked, "it is convicted", async || {
        report(&world, &sly_one.id).await["stage"] == "convicted"
    })
    .await;
    let shown = admin::audits(&world.config().database, 100).await.unwrap();
    assert_eq!(shown.convictions.len(), 1);
    let left = async || {
        let points = world.coordinator.points(&sly_one.id, 0).await.unwrap();
        points.llama_total.0
    };
    eventually("and pays back", async || left().await == 0).await;
    assert_ne!(report(&world, &judge.id).await["stage"], "convicted");
    let given = honeypots(&seen);
    assert!(given.len() >= 4, "{}", given.len());
    world.assert_books_hold().await;
}

#[tokio::test]
async fn the_same_cheat_goes_free_without_them() {
    let world = world(AuditRules { honeypot_ppm: 0, ..rules() }).await;
    let (sly_one, judge) = (Identity::new("sly"), Identity::new("judge"));
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    let (seen, of_judge) = (Seen::default(), Seen::default());
    let _sly = node(&world.coordinator, &sly_one, &seen, sly).await;
    let _judge = node(&world.coordinator, &judge, &of_judge, honest).await;
    for n in 0..30 {
        ask(&world, n).await;
    }
    assert_ne!(report(&world, &sly_one.id).await["stage"], "convicted");
    assert!(honeypots(&seen).is_empty());
}

#[tokio::test]
async fn nothing_sets_one_apart_and_no_owner_gets_one_twice_not_even_after_a_restart() {
    let mut world = world(rules()).await;
    let [one, other, judge] = ["one", "other", "judge"].map(Identity::new);
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    let [seen, of_other, of_judge] = [Seen::default(), Seen::default(), Seen::default()];
    let mut asked = 0;
    for round in 1..=2 {
        let _working = [
            node(&world.coordinator, &one, &seen, honest).await,
            node(&world.coordinator, &other, &of_other, honest).await,
            node(&world.coordinator, &judge, &of_judge, honest).await,
        ];
        ask_until(&world, &mut asked, "both get some", async || {
            honeypots(&seen).len() >= 3 * round && honeypots(&of_other).len() >= 3 * round
        })
        .await;
        open(&mut world, rules()).await;
    }
    let customers = {
        let seen = seen.lock().unwrap();
        let job = seen.iter().find(|lease| text_of(lease).messages[0].content.starts_with("cust"));
        job.cloned().unwrap()
    };
    let keys = |lease: &Lease| -> Vec<String> {
        let value = serde_json::to_value(lease).unwrap();
        let spec = value["spec"].as_object().unwrap().clone();
        value.as_object().unwrap().keys().chain(spec.keys()).cloned().collect()
    };
    for owner in [&seen, &of_other] {
        let given = honeypots(owner);
        let mut prompts = BTreeSet::new();
        for lease in &given {
            assert_eq!(keys(lease), keys(&customers), "the same fields");
            let (job, like) = (text_of(lease), text_of(&customers));
            assert_eq!(
                (job.max_tokens, job.logprobs, &job.stop, job.messages.len()),
                (like.max_tokens, like.logprobs, &like.stop, 1)
            );
            let (quote, rules) = (lease.quote_micro, &lease.rule_set);
            assert!(quote.0 > 0 && *rules == customers.rule_set, "paid as any other");
            assert!(prompts.insert(job.messages[0].content.clone()), "given twice");
        }
    }
    // One was made once and given to both: that is what makes them cheap.
    let both: BTreeSet<_> = honeypots(&seen)
        .iter()
        .map(|l| text_of(l).messages.clone())
        .map(|m| m[0].content.clone())
        .collect();
    let shared = honeypots(&of_other)
        .iter()
        .filter(|l| both.contains(&text_of(l).messages[0].content))
        .count();
    assert!(shared > 0);
    // Who wrote and answered them is nobody's to check.
    assert!(of_judge.lock().unwrap().iter().any(|lease| text_of(lease).logprobs.is_some()));
    eventually("all of it holds", async || {
        let reports = [report(&world, &one.id).await, report(&world, &other.id).await];
        reports
            .iter()
            .all(|r| r["held"].as_u64().unwrap() >= 4 && r["audits"].get("failed").is_none())
    })
    .await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn without_a_node_whose_word_decides_there_are_none() {
    let world = world(rules()).await;
    let (one, other) = (Identity::new("one"), Identity::new("other"));
    let (seen, of_other) = (Seen::default(), Seen::default());
    let _one = node(&world.coordinator, &one, &seen, honest).await;
    let _other = node(&world.coordinator, &other, &of_other, honest).await;
    for n in 0..12 {
        ask(&world, n).await;
    }
    assert!(honeypots(&seen).is_empty() && honeypots(&of_other).is_empty());
}
