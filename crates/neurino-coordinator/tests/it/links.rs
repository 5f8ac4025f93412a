//! The three ways a node connects: in process, WebSocket, long poll.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use neurino_client::{ClientError, Coordinator as _, HttpCoordinator};
use neurino_coordinator::{Limits, PayerId};
use neurino_core::{ImageJob, JobOutput, JobSpec, ModelId, NodeId};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{
    CoordinatorMessage, Exchange, ExchangeReply, Hello, MESSAGE_BYTES_MAX, ModelOffer, NodeMessage,
    PROTOCOL_VERSION, Ready,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::node::{Identity, Node, capabilities, output};
use crate::pictures::noise;
use crate::world::{MODEL, World, code, eventually, short_limits};

/// A signed hello for a fresh challenge.
async fn hello(world: &World, identity: &Identity) -> Hello {
    let (status, body) = world.send(Method::POST, "/v1/node/challenge", None, &[], "").await;
    assert_eq!(status, StatusCode::OK);
    let challenge: CoordinatorMessage = serde_json::from_value(body).unwrap();
    let CoordinatorMessage::Challenge { network, coordinator, nonce, .. } = challenge else {
        panic!("not a challenge: {challenge:?}");
    };
    identity.hello(&network, &coordinator, &nonce)
}

async fn say_hello(world: &World, hello: &Hello) -> (StatusCode, Value) {
    let body = serde_json::to_string(&NodeMessage::Hello(hello.clone())).unwrap();
    world.send(Method::POST, "/v1/node/session", None, &[], body).await
}

pub(crate) async fn open_session(world: &World, identity: &Identity) -> (StatusCode, Value) {
    let hello = hello(world, identity).await;
    say_hello(world, &hello).await
}

#[tokio::test]
async fn a_hello_is_good_once_and_only_for_its_signer() {
    let world = World::new().await;
    let identity = Identity::new("rig1");
    let good = hello(&world, &identity).await;
    let (status, _) = say_hello(&world, &good).await;
    assert_eq!(status, StatusCode::OK);
    let refused = async |hello: Hello, expect: &str| {
        let (status, body) = say_hello(&world, &hello).await;
        assert!(status.is_client_error());
        assert_eq!(code(&body), expect, "{body}");
    };
    refused(good, "unauthorized").await;
    let fresh = async || hello(&world, &identity).await;
    refused(Hello { nonce: "made up".into(), ..fresh().await }, "unauthorized").await;
    refused(Hello { version: PROTOCOL_VERSION + 1, ..fresh().await }, "unsupported_version").await;
    let other = Identity::new("rig1").id;
    refused(Hello { node: other, ..fresh().await }, "bad_signature").await;
    let tagged = NodeId::new(format!("{}-rig2", identity.key.address())).unwrap();
    refused(Hello { node: tagged, ..fresh().await }, "bad_signature").await;
    let nameless = NodeId::new("rig1").unwrap();
    refused(Hello { node: nameless, ..fresh().await }, "invalid_request").await;
}

#[tokio::test]
async fn open_challenges_take_no_room_from_other_nodes() {
    let world = World::new().await;
    for _ in 0..20_000 {
        let (status, _) = world.send(Method::POST, "/v1/node/challenge", None, &[], "").await;
        assert_eq!(status, StatusCode::OK);
    }
    let (status, _) = open_session(&world, &Identity::new("rig1")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_signature_for_another_network_opens_nothing() {
    let world = World::new().await;
    let identity = Identity::new("rig1");
    let hello = hello(&world, &identity).await;
    let hello = identity.signed(hello, "mainnet", &identity.key);
    let (status, body) = say_hello(&world, &hello).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "bad_signature"));
}

/// A coordinator that gets a node to connect to it passes another one's challenge on, to work there in
/// its name.
#[tokio::test]
async fn a_hello_that_was_relayed_opens_nothing() {
    let world = World::known_as("https://pool.example").await;
    let identity = Identity::new("rig1");
    let network = world.coordinator.network().to_owned();
    // The challenge is the real one; the node wrote down where it had connected to.
    for elsewhere in ["https://hostile.example", "https://pool.example.hostile.example", ""] {
        let relayed = Hello { origin: elsewhere.into(), ..hello(&world, &identity).await };
        let relayed = identity.signed(relayed, &network, &identity.key);
        let (status, body) = say_hello(&world, &relayed).await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "bad_signature"), "{body}");
        // Written anew on the way, it is not what was signed.
        let origin = "https://pool.example".into();
        let (status, body) = say_hello(&world, &Hello { origin, ..relayed }).await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "bad_signature"), "{body}");
    }
    // One that claims to be another coordinator than whose challenge it passed on.
    let other = Identity::new("x").key.address();
    let relayed = Hello { coordinator: other, ..hello(&world, &identity).await };
    let relayed = identity.signed(relayed, &network, &identity.key);
    let (status, body) = say_hello(&world, &relayed).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "bad_signature"), "{body}");
    let origin = "https://pool.example".into();
    let good = Hello { origin, ..hello(&world, &identity).await };
    let good = identity.signed(good, &network, &identity.key);
    assert_eq!(say_hello(&world, &good).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_older_program_is_told_about_its_version() {
    let world = World::new().await;
    let old = json!({ "type": "hello", "version": 3, "node": Identity::new("rig1").id, "nonce": "n",
        "signature": "0x", "agent": "neurino/0.1.0", "capabilities": capabilities() });
    let path = "/v1/node/session";
    let (_, body) = world.send(Method::POST, path, None, &[], old.to_string()).await;
    assert_eq!(code(&body), "unsupported_version", "{body}");
}

/// The token of a welcome.
fn token_of(opened: &Value) -> Option<String> {
    opened["welcome"]["token"]["token"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_token_spares_the_identity_key_and_is_of_one_device() {
    let world = World::new().await;
    let (identity, device) = (Identity::new("rig1"), Identity::new("device").key);
    let network = world.coordinator.network().to_owned();
    let fresh = async || identity.signed(hello(&world, &identity).await, &network, &device);
    let (status, opened) = say_hello(&world, &fresh().await).await;
    assert_eq!(status, StatusCode::OK, "{opened}");
    let token = token_of(&opened).expect("a token after the identity key signed");
    let unsigned =
        async || Hello { token: Some(token.clone()), signature: String::new(), ..fresh().await };
    let (status, opened) = say_hello(&world, &unsigned().await).await;
    assert_eq!(status, StatusCode::OK, "{opened}");
    assert_eq!(token_of(&opened), None, "a token does not prolong itself");

    let refused = async |hello: Hello, expect: &str| {
        let (status, body) = say_hello(&world, &hello).await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, expect), "{body}");
    };
    // Who stole the token has another device's key.
    let thief = Identity::new("thief").key;
    let stolen = Hello { device: thief.address(), ..unsigned().await };
    let device_signature = thief.sign(&stolen.message(&network));
    refused(Hello { device_signature, ..stolen }, "unauthorized").await;
    let signed_by_thief = unsigned().await;
    let device_signature = thief.sign(&signed_by_thief.message(&network));
    refused(Hello { device_signature, ..signed_by_thief }, "bad_signature").await;
    let forged = Hello { token: Some("9999999999999.00".into()), ..unsigned().await };
    refused(forged, "unauthorized").await;
    let of_other = Identity::new("rig2");
    let other = hello(&world, &of_other).await;
    let other = of_other.signed(other, &network, &device);
    let other = Hello { token: Some(token.clone()), signature: String::new(), ..other };
    refused(other, "unauthorized").await;
}

#[tokio::test]
async fn web_pages_cannot_connect_as_nodes() {
    let world = World::new().await;
    let origin = [("origin", "https://example.org")];
    for (method, path) in [
        (Method::GET, "/v1/node/link"),
        (Method::POST, "/v1/node/challenge"),
        (Method::POST, "/v1/node/session"),
        (Method::POST, "/v1/node/exchange"),
    ] {
        let (status, body) = world.send(method, path, None, &origin, "{}").await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthorized"), "{path}");
    }
}

#[tokio::test]
async fn a_job_is_done_by_long_poll() {
    let world = World::with(Limits { silence_ms: 1_500, ..short_limits() }).await;
    let identity = Identity::new("rig1");
    let (_, opened) = open_session(&world, &identity).await;
    let token = opened["token"].as_str().unwrap().to_owned();
    let exchange = async |messages: Vec<NodeMessage>, wait_ms: u64| {
        let body = serde_json::to_string(&Exchange { messages, wait_ms }).unwrap();
        let (status, body) =
            world.send(Method::POST, "/v1/node/exchange", Some(&token), &[], body).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value::<ExchangeReply>(body).unwrap().messages
    };
    let models = vec![ModelOffer::text(ModelId::new(MODEL).unwrap())];
    let ready = Ready::new(models, 1);
    assert!(exchange(vec![NodeMessage::Ready(ready)], 0).await.is_empty());
    // The poll waits longer than silence is allowed to last, and is itself a sign of life.
    let poll = exchange(vec![], 20_000);
    let later = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        world.submit("hi").await
    };
    let (messages, job) = tokio::join!(poll, later);
    let [CoordinatorMessage::Assign(lease)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(lease.job, job);
    let submission = identity.submission(lease, output("hello", 5));
    let messages = exchange(vec![NodeMessage::Submit(submission)], 5_000).await;
    let [CoordinatorMessage::Settled(receipt)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(receipt.job, job);
    // Silence ends the session; its token is void then.
    eventually("the session ends", async || world.coordinator.jobs_overview().nodes == 0).await;
    let body = json!({ "messages": [], "wait_ms": 0 }).to_string();
    let (status, body) =
        world.send(Method::POST, "/v1/node/exchange", Some(&token), &[], body).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthorized"));
}

#[tokio::test]
async fn a_job_is_done_over_a_websocket() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let (coordinator, stopping) = (Arc::clone(&world.coordinator), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let identity = Identity::new("rig1");
    let remote = HttpCoordinator::new(&url).unwrap();
    let session = remote.connect(&identity.key, &identity.id, &capabilities()).await.unwrap();
    assert_eq!(session.network, "practice");
    assert_eq!(session.coordinator, world.coordinator.address());
    let mut node = Node { identity: identity.clone(), session };
    node.announce(&[MODEL], 1).await;
    world.submit("hi").await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 5)).await;
    assert_eq!(node.settled().await.lease, lease.id);
    // A refused hello says why.
    let stranger = Identity::new("x");
    let refused = remote.connect(&stranger.key, &identity.id, &capabilities()).await;
    let Err(ClientError::Refused(error)) = refused else { panic!("must be refused") };
    assert_eq!(error.code, ErrorCode::BadSignature);
    // A coordinator that shuts down says so and ends the links.
    world.coordinator.shutdown().await;
    assert!(matches!(node.hear().await, CoordinatorMessage::Bye(_)));
    server.await.unwrap().unwrap();
}

/// A picture whose submission is larger than any other message may be.
fn large_picture(lease: &neurino_core::Lease) -> JobOutput {
    let JobSpec::Image(job) = &lease.spec else { panic!("a text job") };
    let output = noise(job);
    assert!(serde_json::to_vec(&output).unwrap().len() > MESSAGE_BYTES_MAX);
    output
}

async fn submit_large(world: &World) {
    let spec = JobSpec::Image(ImageJob { width: 1280, height: 1024, ..crate::pictures::job(1) });
    world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap();
}

#[tokio::test]
async fn a_large_picture_goes_over_a_websocket_and_other_large_messages_do_not() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let (coordinator, stopping) = (Arc::clone(&world.coordinator), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let identity = Identity::new("rig1");
    let remote = HttpCoordinator::new(&url).unwrap();
    let session = remote.connect(&identity.key, &identity.id, &capabilities()).await.unwrap();
    let mut node = Node { identity, session };
    crate::pictures::offer(&node, Some(crate::pictures::usual()), 1).await;
    eventually("the node is ready", async || {
        world.coordinator.jobs_overview().models.values().sum::<usize>() == 1
    })
    .await;
    submit_large(&world).await;
    let lease = node.lease().await;
    node.submit(&lease, large_picture(&lease)).await;
    assert_eq!(node.settled().await.lease, lease.id);
    let reason = "x".repeat(MESSAGE_BYTES_MAX);
    node.say(NodeMessage::HandBack { lease: lease.id, reason }).await;
    let CoordinatorMessage::Bye(error) = node.hear().await else { panic!("must be refused") };
    assert_eq!(error.code, ErrorCode::TooLarge);
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_large_picture_goes_by_long_poll_and_other_large_messages_do_not() {
    let world = World::new().await;
    let identity = Identity::new("rig1");
    let (_, opened) = open_session(&world, &identity).await;
    let token = opened["token"].as_str().unwrap().to_owned();
    let exchange = async |messages: Vec<NodeMessage>, wait_ms: u64| {
        let body = serde_json::to_string(&Exchange { messages, wait_ms }).unwrap();
        world.send(Method::POST, "/v1/node/exchange", Some(&token), &[], body).await
    };
    let messages = |body: Value| serde_json::from_value::<ExchangeReply>(body).unwrap().messages;
    let id = ModelId::new(crate::pictures::PAINTER).unwrap();
    let models = vec![ModelOffer { id, image: Some(crate::pictures::usual()) }];
    exchange(vec![NodeMessage::Ready(Ready::new(models, 1))], 0).await;
    submit_large(&world).await;
    let told = messages(exchange(vec![], 20_000).await.1);
    let [CoordinatorMessage::Assign(lease)] = &told[..] else { panic!("{told:?}") };
    let reason = "x".repeat(MESSAGE_BYTES_MAX);
    let (status, body) = exchange(vec![NodeMessage::HandBack { lease: lease.id, reason }], 0).await;
    assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    let submission = identity.submission(lease, large_picture(lease));
    let told = messages(exchange(vec![NodeMessage::Submit(submission)], 5_000).await.1);
    assert!(matches!(&told[..], [CoordinatorMessage::Settled(_)]), "{told:?}");
}

#[tokio::test]
async fn a_slow_or_silent_node_does_not_hold_the_coordinator() {
    let world = World::new().await;
    // It never reads what it is told: hundreds of cancellations for made-up leases.
    let mut deaf = Node::ready(&world.coordinator).await;
    for n in 0..2_000u32 {
        let lease = neurino_core::LeaseId(uuid::Uuid::from_u128(u128::from(n)));
        let message = NodeMessage::Progress { lease, deltas: vec![], tokens: n, step: None };
        if deaf.session.outbox.send(message).await.is_err() {
            break;
        }
    }
    eventually("it is cut off", async || world.coordinator.jobs_overview().nodes == 0).await;
    while deaf.session.messages.recv().await.is_some() {}
    let (status, _) = world.send(Method::GET, "/healthz", None, &[], "").await;
    assert_eq!(status, StatusCode::OK);
}
