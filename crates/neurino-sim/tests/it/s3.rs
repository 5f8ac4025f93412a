//! Pictures in a bucket of a real server, which is killed while nodes put them there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use neurino_client::{Coordinator as _, HttpCoordinator};
use neurino_coordinator::{
    Bucket, BucketKeys, Coordinator, CoordinatorConfig, Database, JobUpdate, PayerId,
};
use neurino_core::{JobId, JobSpec, Lease, LeaseId, ModelId, NodeId, ResultStatement};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, ModelOffer, NodeMessage, Ready, Submission,
};
use neurino_sim::pictures::{PAINTER, job, picture_of, usual};
use neurino_sim::s3::Server;
use neurino_wallet::IdentityKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Names the folder of the server's package.
const PACKAGES: &str = "NEURINO_TEST_S3";
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a node waits for an answer before it submits again.
const AGAIN: Duration = Duration::from_secs(1);

fn packages() -> PathBuf {
    std::env::var_os(PACKAGES).expect("`cargo xtask test stores` fetches the server").into()
}

/// A node as it runs at home: it paints, and submits what it painted again and again until that is
/// answered. Counts what is not answered yet.
async fn paint(url: String, unsettled: Arc<AtomicUsize>) {
    let key = IdentityKey::generate(&mut rand::rng());
    let node = NodeId::new(key.address()).unwrap();
    let capabilities =
        Capabilities { device: "CPU".into(), memory_bytes: 1, gpu: false, referred_by: None };
    let coordinator = HttpCoordinator::new(&url).unwrap();
    let mut session = coordinator.connect(&key, &node, &capabilities).await.unwrap();
    let models = vec![ModelOffer { id: ModelId::new(PAINTER).unwrap(), image: Some(usual()) }];
    let ready = NodeMessage::Ready(Ready::new(models, 1));
    session.outbox.send(ready).await.unwrap();
    let signed = |lease: &Lease| {
        let JobSpec::Image(job) = &lease.spec else { panic!("a text") };
        let output = picture_of(job);
        let statement = ResultStatement {
            job: lease.job,
            lease: lease.id,
            fence: lease.fence,
            node: node.clone(),
            digest: output.digest(),
        };
        let signature = key.sign(&statement.message());
        Submission { statement, signature, output }
    };
    let mut waiting: Vec<Submission> = Vec::new();
    loop {
        unsettled.store(waiting.len(), Ordering::SeqCst);
        let of = |submission: &Submission| submission.statement.lease;
        let over = |lease: LeaseId, waiting: &mut Vec<_>| waiting.retain(|w| of(w) != lease);
        tokio::select! {
            message = session.messages.recv() => match message.expect("the session goes on") {
                CoordinatorMessage::Assign(lease) => {
                    waiting.push(signed(&lease));
                    let submission = waiting.last().unwrap().clone();
                    session.outbox.send(NodeMessage::Submit(submission)).await.unwrap();
                }
                CoordinatorMessage::Settled(receipt) => over(receipt.lease, &mut waiting),
                CoordinatorMessage::Rejected { error, .. } => panic!("{error}"),
                _ => {}
            },
            () = tokio::time::sleep(AGAIN) => {
                let leases = waiting.iter().map(of).collect();
                session.outbox.send(NodeMessage::Heartbeat { leases }).await.unwrap();
                for submission in &waiting {
                    let message = NodeMessage::Submit(submission.clone());
                    session.outbox.send(message).await.unwrap();
                }
            }
        }
    }
}

/// Asks for a picture as soon as somebody offers to paint.
async fn ask(coordinator: &Arc<Coordinator>, seed: u64) -> JobId {
    let asking = async {
        loop {
            let spec = JobSpec::Image(job(seed));
            match coordinator.submit_job(PayerId::local(), None, spec).await {
                Ok(id) => return id,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("somebody paints")
}

async fn painted(coordinator: &Arc<Coordinator>, id: JobId, seed: u64) {
    let finished = async {
        let mut watch = coordinator.watch_job(id).await.unwrap();
        loop {
            match watch.next().await {
                Some(JobUpdate::Finished { output, .. }) => return output,
                Some(JobUpdate::Failed(error)) => panic!("{error}"),
                Some(_) => {}
                None => panic!("the watch ended"),
            }
        }
    };
    let output = tokio::time::timeout(PATIENCE, finished).await.expect("it is painted");
    assert_eq!(output, picture_of(&job(seed)));
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn a_server_that_is_killed_costs_a_wait_and_nothing_else() {
    let mut server = Server::start(&packages()).unwrap();
    let address = format!("s3://{}/club", server.bucket().await.unwrap());
    let secret = server.secret().to_owned().into();
    let keys = BucketKeys { key_id: "neurino".into(), secret, token: None };
    let bucket = Bucket::at(&address, Some(&server.endpoint()), None, keys).unwrap();

    let home = tempfile::tempdir().unwrap();
    let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
    let books = home.path().join("books.sqlite");
    let config = CoordinatorConfig::practice(Database::Sqlite(books), key);
    let config = CoordinatorConfig { bucket: Some(bucket), practice: false, ..config };
    let coordinator = Coordinator::open(config.clone()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (coordinator, stop) = (coordinator.clone(), stop.clone());
        async move { coordinator.serve(listener, stop).await }
    });
    let unsettled = Arc::new(AtomicUsize::new(0));
    let node = tokio::spawn(paint(url, unsettled.clone()));

    let first = ask(&coordinator, 1).await;
    painted(&coordinator, first, 1).await;
    assert!(!home.path().join("books-pictures").exists(), "it did not pass the coordinator");

    server.kill().unwrap();
    // What is there already cannot be seen meanwhile, and it is said why.
    let away = coordinator.watch_job(first).await.map(drop).unwrap_err();
    assert_eq!(away.code, ErrorCode::Unreachable, "{away}");
    let second = ask(&coordinator, 2).await;
    let kept = async {
        while unsettled.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("the node keeps its result");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(coordinator.ledger_check().await.unwrap().receipts, 1, "nothing is paid unseen");
    // Nobody begins with a bucket that is away.
    let other = home.path().join("other.sqlite");
    let refused = CoordinatorConfig { database: Database::Sqlite(other), ..config };
    let refused = Coordinator::open(refused).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains(&address), "{refused}");
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("does not answer"), "{why}");

    server.begin().unwrap();
    painted(&coordinator, second, 2).await;
    painted(&coordinator, first, 1).await;
    let third = ask(&coordinator, 3).await;
    painted(&coordinator, third, 3).await;
    let check = coordinator.ledger_check().await.unwrap();
    assert!(check.holds() && check.receipts == 3 && check.jobs_paid_twice == 0, "{check:?}");
    assert!(!node.is_finished());
    node.abort();
    stop.cancel();
    serving.await.unwrap().unwrap();
    coordinator.shutdown().await;
}
