//! A measurement, not a gate: `cargo test --release -p neurino-coordinator --test it -- --ignored
//! --nocapture` prints how many durable jobs a second this machine settles.
#![expect(clippy::print_stderr, reason = "a measurement is printed")]

use std::time::Instant;

use neurino_coordinator::PayerId;

use crate::node::{Identity, output};
use crate::world::{MODEL, World, eventually, spec};
use neurino_protocol::node::CoordinatorMessage;

const JOBS: u64 = 5_000;
const NODES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn durable_jobs_a_second() {
    let world = World::new().await;
    for n in 0..NODES {
        let mut node = Identity::new(&format!("n{n}")).connect(&world.coordinator).await;
        node.announce(&[MODEL], 4).await;
        tokio::spawn(async move {
            while let Some(message) = node.session.messages.recv().await {
                if let CoordinatorMessage::Assign(lease) = message {
                    node.submit(&lease, output("hello", 5)).await;
                }
            }
        });
    }
    let begun = Instant::now();
    let coordinator = &world.coordinator;
    let accepted = futures::future::join_all((0..JOBS).map(|n| {
        let payer = PayerId::new(format!("p{}", n % 20)).unwrap();
        coordinator.submit_job(payer, None, spec(MODEL, &format!("job {n}")))
    }))
    .await;
    let admitted = begun.elapsed();
    assert!(accepted.iter().all(Result::is_ok));
    eventually("all are settled", async || coordinator.jobs_overview().leased == 0).await;
    eventually("all are settled", async || coordinator.jobs_overview().queued == 0).await;
    let settled = begun.elapsed();
    let check = coordinator.ledger_check().await.unwrap();
    assert!(check.holds());
    assert_eq!(check.receipts, JOBS);
    let rate = |took: std::time::Duration| JOBS as f64 / took.as_secs_f64();
    eprintln!(
        "{JOBS} jobs on {NODES} nodes: admitted {:.0}/s, settled {:.0}/s",
        rate(admitted),
        rate(settled)
    );
}
