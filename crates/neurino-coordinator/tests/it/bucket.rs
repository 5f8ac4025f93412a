//! Pictures in a bucket: from the node to whoever asked, beside the coordinator.

use axum::http::{Method, StatusCode};
use neurino_coordinator::{Bucket, BucketKeys, PayerId};
use neurino_core::{JobId, JobOutput, JobSpec, Lease, LeaseId, ModelId, ResultDigest};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::upload::{StoredPicture, Uploaded};
use neurino_protocol::node::{
    CoordinatorMessage, Exchange, ExchangeReply, ModelOffer, NodeMessage, Ready, SessionOpened,
    Submission,
};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::node::Identity;
use crate::pictures::{PAINTER, asked, job, painter, picture, usual};
use crate::s3_server::S3;
use crate::world::{World, short_limits};

async fn bucket(server: &S3) -> (String, Bucket) {
    let name = server.bucket().await;
    let secret = server.secret.clone().into();
    let keys = BucketKeys { key_id: server.key_id.clone(), secret, token: None };
    let address = format!("s3://{name}/club");
    (name, Bucket::at(&address, Some(&server.url), None, keys).unwrap())
}

async fn submit(world: &World, seed: u64) -> JobId {
    let spec = JobSpec::Image(job(seed));
    world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap()
}

/// The picture of a finished job.
async fn kept(world: &World, id: JobId) -> JobOutput {
    world.coordinator.watch_job(id).await.unwrap().finished().await.unwrap().0
}

fn file(output: &JobOutput) -> Vec<u8> {
    match output {
        JobOutput::Image(picture) => picture.png.0.clone(),
        JobOutput::Text(_) => panic!("a text"),
    }
}

fn described(output: &JobOutput) -> StoredPicture {
    let JobOutput::Image(picture) = output else { panic!("a text") };
    let file = &picture.png.0;
    let sha256 = ResultDigest(Sha256::digest(file).into());
    let (width, height) = (picture.width, picture.height);
    StoredPicture { sha256, bytes: file.len() as u64, width, height }
}

/// A node that speaks for itself, on a long poll: what it says is said as it is.
struct Bare<'a> {
    world: &'a World,
    identity: Identity,
    token: String,
}

impl<'a> Bare<'a> {
    async fn painter(world: &'a World) -> Self {
        let identity = Identity::new("bare");
        let send = async |path: &str, key: Option<&str>, body: Value| {
            let headers = [("content-type", "application/json")];
            let (status, answer) =
                world.send(Method::POST, path, key, &headers, body.to_string()).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            answer
        };
        let challenge = send("/v1/node/challenge", None, json!({})).await;
        let CoordinatorMessage::Challenge { network, coordinator, nonce, .. } =
            serde_json::from_value(challenge).unwrap()
        else {
            panic!("no challenge")
        };
        let hello = NodeMessage::Hello(identity.hello(&network, &coordinator, &nonce));
        let opened = send("/v1/node/session", None, json!(hello)).await;
        let opened: SessionOpened = serde_json::from_value(opened).unwrap();
        let bare = Self { world, identity, token: opened.token };
        let models = vec![ModelOffer { id: ModelId::new(PAINTER).unwrap(), image: Some(usual()) }];
        let ready = Ready::new(models, 1);
        bare.exchange(vec![NodeMessage::Ready(ready)], 0).await;
        bare
    }

    async fn exchange(&self, messages: Vec<NodeMessage>, wait_ms: u64) -> Vec<CoordinatorMessage> {
        let body = json!(Exchange { messages, wait_ms }).to_string();
        let headers = [("content-type", "application/json")];
        let path = "/v1/node/exchange";
        let (status, answer) =
            self.world.send(Method::POST, path, Some(&self.token), &headers, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        serde_json::from_value::<ExchangeReply>(answer).unwrap().messages
    }

    /// Says something, and waits for an answer that is not about jobs that it cannot do.
    async fn say(&self, message: NodeMessage) -> CoordinatorMessage {
        let mut messages = vec![message];
        for _ in 0..40 {
            let heard = self.exchange(std::mem::take(&mut messages), 500).await;
            let mut heard =
                heard.into_iter().filter(|m| !matches!(m, CoordinatorMessage::NoJob(_)));
            if let Some(answer) = heard.next() {
                return answer;
            }
        }
        panic!("nothing is answered")
    }

    async fn lease(&self) -> Lease {
        match self.say(NodeMessage::Heartbeat { leases: Vec::new() }).await {
            CoordinatorMessage::Assign(lease) => lease,
            other => panic!("no lease: {other:?}"),
        }
    }

    fn uploaded(submission: Submission) -> NodeMessage {
        let picture = described(&submission.output);
        let Submission { statement, signature, .. } = submission;
        NodeMessage::Uploaded(Uploaded { statement, signature, picture })
    }
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn a_picture_comes_through_the_bucket_and_is_paid_once() {
    let server = S3::named();
    let (name, bucket) = bucket(&server).await;
    let mut world = World::in_bucket(bucket).await;
    let mut node = painter(&world.coordinator, 1).await;
    let body = json!({
        "model": PAINTER, "prompt": "a lighthouse", "seed": 7, "response_format": "url",
    });
    let serve = async {
        let lease = node.lease().await;
        let output = picture(asked(&lease));
        node.submit(&lease, output.clone()).await;
        let receipt = node.settled().await;
        // An answer that was lost: the miner repeats itself.
        node.submit(&lease, output.clone()).await;
        assert_eq!(node.settled().await, receipt);
        (lease, output)
    };
    let painting = world.call(Method::POST, "/v1/images/generations", body);
    let ((status, answer), (lease, output)) = tokio::join!(painting, serve);
    assert_eq!(status, StatusCode::OK, "{answer}");
    let link = answer["data"][0]["url"].as_str().unwrap();
    let path = link.split_once("/v1/").map(|(_, path)| format!("/v1/{path}")).unwrap();
    let shown = world.raw(Method::GET, &path, None, &[], "").await;
    assert_eq!(shown.status(), StatusCode::TEMPORARY_REDIRECT);
    let elsewhere = shown.headers()["location"].to_str().unwrap().to_owned();
    assert!(elsewhere.starts_with(&format!("{}/{name}/club/{}-", server.url, lease.id)));
    assert_eq!(shown.headers()["cache-control"], "no-store");
    let seen = Client::new().get(&elsewhere).send().await.unwrap();
    assert_eq!(seen.headers()["content-type"], "image/png");
    assert_eq!(seen.bytes().await.unwrap(), file(&output));
    assert!(!world.pictures_folder().exists(), "nothing was written here");
    // What comes back after a restart is the same, read from the bucket.
    world.restart().await;
    assert_eq!(kept(&world, lease.job).await, output);
    let check = world.coordinator.ledger_check().await.unwrap();
    assert!(check.holds() && check.receipts == 1, "{check:?}");
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn what_lies_in_the_bucket_is_looked_at_before_it_is_paid() {
    let server = S3::named();
    let (_, bucket) = bucket(&server).await;
    let world = World::in_bucket(bucket).await;
    let node = Bare::painter(&world).await;
    let id = submit(&world, 7).await;
    let lease = node.lease().await;
    let right = picture(asked(&lease));
    let submission = node.identity.submission(&lease, right.clone());
    let told = described(&right);

    // Larger than any picture of the job, and a lease of nobody.
    let other = Lease { id: LeaseId(uuid::Uuid::from_u128(5)), ..lease.clone() };
    let ask = NodeMessage::Upload { lease: other.id, picture: told };
    let answer = node.say(ask).await;
    let CoordinatorMessage::Rejected { error, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(error.code, ErrorCode::NotFound);

    // Not there at all: nothing is answered, nothing paid, and the lease goes on.
    let early = node.exchange(vec![Bare::uploaded(submission.clone())], 300).await;
    assert!(early.iter().all(|m| matches!(m, CoordinatorMessage::NoJob(_))), "{early:?}");

    let ask = NodeMessage::Upload { lease: lease.id, picture: told };
    let answer = node.say(ask.clone()).await;
    let CoordinatorMessage::UploadTo { lease: named, url } = answer else { panic!("{answer:?}") };
    assert_eq!(named, lease.id);
    // Something else of the same length.
    let mut wrong = file(&right);
    *wrong.last_mut().unwrap() ^= 1;
    let put = async |url: &str, body: Vec<u8>| {
        let request = Client::new().put(url).header("content-type", "image/png");
        request.header("if-none-match", "*").body(body).send().await.unwrap().status()
    };
    let mut longer = wrong.clone();
    longer.push(0);
    assert_eq!(put(&url, longer).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&url, wrong).await, StatusCode::OK);
    assert_eq!(put(&url, file(&right)).await, StatusCode::PRECONDITION_FAILED, "once");
    let answer = node.say(Bare::uploaded(submission)).await;
    let CoordinatorMessage::Rejected { error, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.contains("digest"), "{}", error.message);
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 0);

    // Another one paints it, as an older program would: on the link.
    let older = Bare::painter(&world).await;
    let lease = older.lease().await;
    assert_eq!(lease.job, id);
    let submission = older.identity.submission(&lease, picture(asked(&lease)));
    let answer = older.say(NodeMessage::Submit(submission)).await;
    assert!(matches!(answer, CoordinatorMessage::Settled(_)), "{answer:?}");
    assert_eq!(kept(&world, id).await, right);
    assert!(!world.pictures_folder().exists(), "it went into the bucket, too");
    world.assert_books_hold().await;
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn a_file_that_no_picture_can_be_is_refused() {
    let server = S3::named();
    let (_, bucket) = bucket(&server).await;
    let world = World::in_bucket(bucket).await;
    for bytes in [0, 1 << 20, u64::MAX] {
        let node = Bare::painter(&world).await;
        submit(&world, 7).await;
        let lease = node.lease().await;
        let told = StoredPicture { bytes, ..described(&picture(asked(&lease))) };
        let answer = node.say(NodeMessage::Upload { lease: lease.id, picture: told }).await;
        let CoordinatorMessage::Rejected { error, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(error.code, ErrorCode::TooLarge, "{bytes}");
        node.exchange(vec![NodeMessage::Goodbye], 0).await;
    }
    world.assert_books_hold().await;
}

#[tokio::test]
#[ignore = "needs S3: cargo xtask test stores"]
async fn young_garbage_stays_and_so_does_what_the_books_name() {
    let server = S3::named();
    let (name, bucket) = bucket(&server).await;
    let mut world = World::in_bucket(bucket).await;
    let mut node = painter(&world.coordinator, 1).await;
    let id = submit(&world, 7).await;
    let lease = node.lease().await;
    node.submit(&lease, picture(asked(&lease))).await;
    node.settled().await;
    // Young garbage stays, however often the coordinator begins.
    let garbage = format!("/{name}/club/{}-{}.png", lease.id, "0".repeat(64));
    let put = Client::new().put(server.link("PUT", &garbage)).body("x");
    assert!(put.send().await.unwrap().status().is_success());
    world.restart().await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let there = Client::new().get(server.link("GET", &garbage)).send().await.unwrap().status();
    assert_eq!(there, StatusCode::OK);
    assert_eq!(kept(&world, id).await, picture(&job(7)));
}

#[tokio::test]
async fn a_network_without_a_bucket_takes_pictures_on_the_link_alone() {
    let world = World::with(short_limits()).await;
    let node = Bare::painter(&world).await;
    submit(&world, 7).await;
    let lease = node.lease().await;
    let told = described(&picture(asked(&lease)));
    let answer = node.say(NodeMessage::Upload { lease: lease.id, picture: told }).await;
    let CoordinatorMessage::Bye(error) = answer else { panic!("{answer:?}") };
    assert_eq!(error.code, ErrorCode::InvalidRequest);
}
