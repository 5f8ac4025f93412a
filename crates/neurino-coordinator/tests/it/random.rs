//! Random interleavings, seeded: nodes that work, fail, lie, vanish and come back late, payers that
//! withdraw, a coordinator that restarts. Whatever happens, the books hold and nobody is paid twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neurino_coordinator::{Coordinator, Limits, PayerId};
use neurino_core::{JobId, Lease, ModelId, TextDelta};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, eventually, short_limits, spec};

const NODES: u64 = 4;
const JOBS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_books_hold() {
    for seed in [1, 2, 3] {
        interleave(seed).await;
    }
}

async fn interleave(seed: u64) {
    let limits = Limits { text_budget_ms: 400, losses_max: 1_000, ..short_limits() };
    let mut world = World::with(limits).await;
    let current = watch::Sender::new(Some(Arc::clone(&world.coordinator)));
    let told = Told::default();
    let mut workers: Vec<_> = (0..NODES)
        .map(|n| {
            let rng = StdRng::seed_from_u64(seed * 1000 + n);
            tokio::spawn(unruly(rng, current.subscribe(), Arc::clone(&told)))
        })
        .collect();

    let mut rng = StdRng::seed_from_u64(seed);
    let mut accepted: Vec<JobId> = Vec::new();
    while accepted.len() < JOBS {
        let payer = PayerId::new(format!("payer{}", rng.random_range(0..3))).unwrap();
        let spec = spec(MODEL, &format!("job {}", accepted.len()));
        accepted.push(world.coordinator.submit_job(payer, None, spec).await.unwrap());
        if rng.random_bool(0.1) {
            let withdrawn = accepted[rng.random_range(0..accepted.len())];
            world.coordinator.cancel_job(withdrawn).await.unwrap();
        }
        if rng.random_bool(0.05) {
            current.send_replace(None);
            world.restart().await;
            current.send_replace(Some(Arc::clone(&world.coordinator)));
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
    }
    eventually("every job ends", async || {
        let overview = world.coordinator.jobs_overview();
        overview.queued + overview.leased == 0
    })
    .await;
    for worker in workers.drain(..) {
        worker.abort();
        let panicked = worker.await.is_err_and(|error| error.is_panic());
        assert!(!panicked, "seed {seed}: a node saw what must not be");
    }

    let check = world.coordinator.ledger_check().await.unwrap();
    assert!(check.holds(), "seed {seed}: {check:#?}");
    assert_eq!(check.jobs.values().sum::<u64>(), JOBS as u64, "no accepted job is lost");
    let ended = ["succeeded", "failed", "cancelled"];
    assert!(check.jobs.keys().all(|state| ended.contains(&state.as_str())), "{:?}", check.jobs);
    assert_eq!(check.receipts, check.jobs.get("succeeded").copied().unwrap_or(0));
    assert!(check.receipts > 0, "seed {seed} must pay something to mean anything");
    // What nodes were told is what the books say, and one job was never paid under two leases.
    let paid = world.coordinator.receipts(None, None, 200).await.unwrap();
    let paid: BTreeMap<_, _> = paid.iter().map(|r| (r.job, r.lease)).collect();
    assert_eq!(paid.len() as u64, check.receipts, "a job was paid twice");
    for (lease, job) in told.lock().unwrap().iter() {
        assert_eq!(paid.get(job), Some(lease), "a node was told what the books do not say");
    }
    let points: i64 = check
        .balances
        .iter()
        .filter(|b| matches!(b.account, neurino_ledger::Account::Node(_)))
        .map(|b| b.balance_micro.0)
        .sum();
    let pool: i64 = check
        .balances
        .iter()
        .filter(|b| b.account == neurino_ledger::Account::Pool)
        .map(|b| b.balance_micro.0)
        .sum();
    assert_eq!(points, -pool);
}

type Told = Arc<Mutex<BTreeMap<neurino_core::LeaseId, JobId>>>;

/// A node that does everything a node can do.
async fn unruly(
    mut rng: StdRng,
    mut current: watch::Receiver<Option<Arc<Coordinator>>>,
    told: Told,
) {
    use neurino_client::Coordinator as _;

    let identity = Identity::new(&format!("n{}", rng.random::<u16>()));
    let mut old: Vec<Lease> = Vec::new();
    loop {
        let Ok(coordinator) = current.wait_for(Option::is_some).await.map(|c| c.clone().unwrap())
        else {
            return;
        };
        let (local, capabilities) = (coordinator.local(), crate::node::capabilities());
        let connected = local.connect(&identity.key, &identity.id, &capabilities).await;
        drop((coordinator, local));
        let Ok(session) = connected else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut node = Node { identity: identity.clone(), session };
        let named = old.iter().filter(|_| rng.random_bool(0.5)).map(|l| l.id).collect();
        let _ = node.session.outbox.send(NodeMessage::Heartbeat { leases: named }).await;
        let models = vec![ModelOffer::text(ModelId::new(MODEL).unwrap())];
        let ready = NodeMessage::Ready(Ready::new(models, rng.random_range(1..3)));
        let _ = node.session.outbox.send(ready).await;
        // Results from before, some of them long settled or lost.
        for lease in old.iter().rev().take(3) {
            let late = identity.submission(lease, output("late", 1));
            let _ = node.session.outbox.send(NodeMessage::Submit(late)).await;
        }
        while let Some(message) = node.session.messages.recv().await {
            match message {
                CoordinatorMessage::Settled(receipt) => {
                    let known = told.lock().unwrap().insert(receipt.lease, receipt.job);
                    assert!(known.is_none_or(|job| job == receipt.job));
                }
                CoordinatorMessage::Assign(lease) => {
                    old.push(lease.clone());
                    if !act(&mut rng, &node, &lease).await {
                        break;
                    }
                }
                CoordinatorMessage::Bye(_) => break,
                _ => {}
            }
        }
    }
}

/// Does something with a lease; `false` ends the session.
async fn act(rng: &mut StdRng, node: &Node, lease: &Lease) -> bool {
    let good = node.identity.submission(lease, output("hello", rng.random_range(1..64)));
    let mut messages = vec![NodeMessage::Progress {
        lease: lease.id,
        deltas: vec![TextDelta::text("he")],
        tokens: 1,
        step: None,
    }];
    match rng.random_range(0..12) {
        0 => messages.push(NodeMessage::HandBack { lease: lease.id, reason: "test".into() }),
        1 => {
            let error = neurino_protocol::ErrorBody::new(ErrorCode::EngineFailed, "test");
            messages.push(NodeMessage::Failed { lease: lease.id, error });
        }
        2 => {
            let mut forged = good.clone();
            forged.output = output("forged", 64);
            messages.push(NodeMessage::Submit(forged));
        }
        3 => return false,
        4 => tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await,
        5 => {
            messages.push(NodeMessage::Submit(good.clone()));
            messages.push(NodeMessage::Submit(good.clone()));
        }
        6 => {
            messages.push(NodeMessage::Submit(good.clone()));
            messages.push(NodeMessage::HandBack { lease: lease.id, reason: "test".into() });
        }
        _ => messages.push(NodeMessage::Submit(good.clone())),
    }
    for message in messages {
        if node.session.outbox.send(message).await.is_err() {
            return false;
        }
    }
    // Sometimes gone before the receipt arrives.
    !rng.random_bool(0.1)
}
