//! Gateways over a real NATS server: what they carry, what they survive, what they refuse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures::StreamExt as _;
use neurino_client::{Coordinator as _, HttpCoordinator};
use neurino_coordinator::{
    Coordinator, CoordinatorConfig, Database, FabricAddress, FabricConfig, FabricError, FabricKey,
    Gateway, GatewayConfig, Limits, books,
};
use neurino_core::{JobOutput, ResultStatement};
use neurino_protocol::node::{CoordinatorMessage, NodeMessage, Submission};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::node::{Identity, Node, capabilities, output};
use crate::server;
use crate::world::{MODEL, chat_body, events, eventually, short_limits};

/// Names the server: `nats://user:password@127.0.0.1:port`.
const SERVER: &str = "NEURINO_TEST_NATS_URL";

fn nats() -> String {
    std::env::var(SERVER).expect("`cargo xtask test stores` starts NATS")
}

/// Somebody who reads and writes everything that goes over NATS, and has not the shared key.
async fn spy() -> async_nats::Client {
    let address = nats();
    let (login, host) = address.trim_start_matches("nats://").split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.into(), password.into());
    options.connect(host).await.unwrap()
}

/// Jobs wait here for a node that comes back over another router.
fn limits() -> Limits {
    let (reconnect_grace_ms, chat_no_node_wait_ms) = (10_000, 20_000);
    Limits { silence_ms: 8_000, reconnect_grace_ms, chat_no_node_wait_ms, ..short_limits() }
}

/// A network with books in PostgreSQL, of which coordinators and gateways are started.
struct Net {
    name: String,
    _folder: TempDir,
    postgres: String,
    database: Database,
    key: Arc<IdentityKey>,
    fabric: FabricConfig,
    http: reqwest::Client,
}

/// A coordinator that serves gateways.
struct Router {
    coordinator: Arc<Coordinator>,
    stop: CancellationToken,
}

/// A gateway that listens.
struct Door {
    url: String,
    stop: CancellationToken,
}

impl Net {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let postgres = server::fresh().await.expect("`cargo xtask test stores` starts PostgreSQL");
        let database = Database::at(&postgres, folder.path().join("pictures")).unwrap();
        let address = FabricAddress::new(&nats(), None).unwrap();
        Self {
            name: format!("t{:016x}", rand::random::<u64>()),
            postgres,
            database,
            _folder: folder,
            key: Arc::new(IdentityKey::generate(&mut rand::rng())),
            fabric: FabricConfig { address, key: FabricKey::draw() },
            http: reqwest::Client::new(),
        }
    }

    fn config(&self) -> CoordinatorConfig {
        let practice = CoordinatorConfig::practice(self.database.clone(), Arc::clone(&self.key));
        let network = self.name.clone();
        CoordinatorConfig { network, limits: limits(), seed: Some(7), ..practice }
    }

    async fn router(&self) -> Router {
        let coordinator = Coordinator::open(self.config()).await.unwrap();
        let (stop, fabric) = (CancellationToken::new(), self.fabric.clone());
        let (this, stopped) = (Arc::clone(&coordinator), stop.clone());
        tokio::spawn(async move { this.serve_fabric(fabric, stopped).await.unwrap() });
        Router { coordinator, stop }
    }

    async fn door(&self) -> Door {
        self.door_with(self.fabric.clone()).await
    }

    async fn door_with(&self, fabric: FabricConfig) -> Door {
        let stop = CancellationToken::new();
        let config = GatewayConfig {
            network: self.name.clone(),
            fabric,
            limits: limits(),
            client_address_header: None,
        };
        let gateway = Gateway::open(config, stop.clone()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { gateway.serve(listener, None).await.unwrap() });
        Door { url, stop }
    }

    fn post(&self, door: &Door, key: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v1/chat/completions", door.url)).bearer_auth(key).json(body)
    }

    async fn holds(&self) -> books::LedgerCheck {
        let check = books::ledger_check(&self.database).await.unwrap();
        assert!(check.holds(), "{check:#?}");
        check
    }
}

impl Router {
    async fn key(&self) -> String {
        self.coordinator.create_api_key("test").await.unwrap().expose_secret().to_owned()
    }

    /// As after a crash, but that the books come free at once.
    async fn end(self) {
        self.coordinator.shutdown().await;
        self.stop.cancel();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn connect(identity: &Identity, door: &Door) -> Node {
    let client = HttpCoordinator::new(&door.url).unwrap();
    let session = client.connect(&identity.key, &identity.id, &capabilities()).await.unwrap();
    Node { identity: identity.clone(), session }
}

async fn ready(door: &Door) -> Node {
    let node = connect(&Identity::new("rig1"), door).await;
    node.announce(&[MODEL], 1).await;
    node
}

/// The text of a stream's events, and whether it ended well.
fn told(body: &str) -> (String, bool) {
    let events = events(body);
    let text = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let text = text
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned));
    (text.collect(), events.last().is_some_and(|last| last == "[DONE]"))
}

/// Reads a stream until its text is so far.
async fn read_until(response: &mut reqwest::Response, body: &mut String, text: &str) {
    while told(body).0 != text {
        let chunk = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await;
        let chunk = chunk.expect("more comes").unwrap().expect("the stream goes on");
        body.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

async fn read_rest(response: &mut reqwest::Response, body: &mut String) {
    while let Some(chunk) = response.chunk().await.unwrap() {
        body.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

fn streaming() -> Value {
    chat_body(|body| body["stream"] = json!(true))
}

#[tokio::test]
async fn books_in_a_file_have_no_gateways() {
    let folder = tempfile::tempdir().unwrap();
    let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
    let config = CoordinatorConfig::practice(folder.path().join("b.sqlite"), key);
    let coordinator = Coordinator::open(config).await.unwrap();
    let address = FabricAddress::new("nats://127.0.0.1:1", None).unwrap();
    let fabric = FabricConfig { address, key: FabricKey::draw() };
    let refused = coordinator.serve_fabric(fabric, CancellationToken::new()).await;
    assert!(matches!(refused, Err(FabricError::NeedsServer)));
    coordinator.shutdown().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_node_at_one_gateway_serves_a_client_at_another() {
    let net = Net::new().await;
    let (router, nodes, clients) = (net.router().await, net.door().await, net.door().await);
    let key = router.key().await;
    let worker = ready(&nodes).await.work(&["Hello", " there"]);
    let answer = net.post(&clients, &key, &chat_body(|_| {})).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().contains_key("x-request-id"));
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello there");
    let stream = net.post(&clients, &key, &streaming()).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(told(&stream.text().await.unwrap()), ("Hello there".into(), true));
    // Everything else is answered, too, and refused as a coordinator would.
    let get = async |path: &str| {
        let request = net.http.get(format!("{}{path}", clients.url)).bearer_auth(&key);
        let response = request.send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(get("/v1/models").await.1["object"], "list");
    assert_eq!(get("/v1/network").await.1["network"], net.name.as_str());
    assert_eq!(get("/healthz").await.1["nodes"], 1);
    assert_eq!(get("/v1/nothing").await.0, StatusCode::NOT_FOUND);
    let wrong = net.post(&clients, "nrn-wrong", &chat_body(|_| {})).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let odd = chat_body(|body| body["temperature"] = json!("hot"));
    let odd = net.post(&clients, &key, &odd).send().await.unwrap();
    assert_eq!(odd.status(), StatusCode::BAD_REQUEST);
    let large = chat_body(|body| body["user"] = json!("x".repeat(1 << 20)));
    let large = net.post(&clients, &key, &large).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(net.holds().await.receipts, 2);
    worker.abort();
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_stream_and_a_socket_outlive_their_router() {
    let net = Net::new().await;
    let (first, door) = (net.router().await, net.door().await);
    let key = first.key().await;
    let mut node = ready(&door).await;
    let request = net.post(&door, &key, &streaming());
    let client = tokio::spawn(async move { request.send().await.unwrap() });
    let lease = node.lease().await;
    node.stream(&lease, "one").await;
    node.stream(&lease, " two").await;
    let mut response = client.await.unwrap();
    let mut body = String::new();
    read_until(&mut response, &mut body, "one two").await;
    first.end().await;
    // Said while nobody routes; it counts once somebody does.
    node.stream(&lease, " three").await;
    let second = net.router().await;
    for attempt in 0.. {
        assert!(attempt < 10, "nobody takes the result");
        // As nodes do: what they work on, and what is not settled, they say again.
        node.heartbeat(&[&lease]).await;
        node.submit(&lease, output("one two three four", 4)).await;
        let said = tokio::time::timeout(Duration::from_secs(2), node.hear()).await;
        if let Ok(said) = said {
            assert!(matches!(said, CoordinatorMessage::Settled(_)), "the same socket: {said:?}");
            break;
        }
    }
    read_rest(&mut response, &mut body).await;
    assert_eq!(told(&body), ("one two three four".into(), true));
    assert_eq!(body.matches("\"role\"").count(), 1, "it was not begun again: {body}");
    let check = net.holds().await;
    assert_eq!((check.receipts, check.jobs.values().sum::<u64>()), (1, 1));
    second.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn an_answer_that_was_made_anew_is_not_put_behind_another() {
    let net = Net::new().await;
    let (first, door) = (net.router().await, net.door().await);
    let key = first.key().await;
    let mut node = ready(&door).await;
    let request = net.post(&door, &key, &streaming());
    let client = tokio::spawn(async move { request.send().await.unwrap() });
    let lease = node.lease().await;
    node.stream(&lease, "one").await;
    let mut response = client.await.unwrap();
    let mut body = String::new();
    read_until(&mut response, &mut body, "one").await;
    first.end().await;
    let second = net.router().await;
    // It has lost the job, and does it again in other words.
    let again = loop {
        node.fail(lease.id, neurino_protocol::ErrorCode::EngineFailed).await;
        let said = tokio::time::timeout(Duration::from_secs(2), node.hear()).await;
        if let Ok(said) = said {
            let CoordinatorMessage::Assign(again) = said else { panic!("a lease, not {said:?}") };
            break again;
        }
    };
    node.submit(&again, output("uno", 1)).await;
    node.settled().await;
    read_rest(&mut response, &mut body).await;
    let (text, done) = told(&body);
    assert_eq!((text.as_str(), done), ("one", false));
    assert!(body.contains("does not begin with what was sent"), "{body}");
    net.holds().await;
    second.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn requests_wait_for_a_router_and_are_one_job() {
    let net = Net::new().await;
    let door = net.door().await;
    let opened = Coordinator::open(net.config()).await.unwrap();
    let key = opened.create_api_key("test").await.unwrap().expose_secret().to_owned();
    opened.shutdown().await;
    // Nobody routes when they are sent.
    let send = || {
        let request = net.post(&door, &key, &chat_body(|_| {}));
        let request = request.header("idempotency-key", "same").header("prefer", "wait=20");
        tokio::spawn(async move { request.send().await.unwrap().json::<Value>().await.unwrap() })
    };
    let (one, two) = (send(), send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let router = net.router().await;
    let worker = ready(&door).await.work(&["Hi"]);
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!(one["choices"][0]["message"]["content"], "Hi", "{one}");
    assert_eq!(one["id"], two["id"]);
    assert_eq!(net.holds().await.receipts, 1);
    worker.abort();
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_client_that_goes_withdraws_its_job_unless_it_may_come_back() {
    let net = Net::new().await;
    let (router, door) = (net.router().await, net.door().await);
    let key = router.key().await;
    let mut node = ready(&door).await;
    let begin = |name: Option<&str>| {
        let request = net.post(&door, &key, &streaming());
        let request = match name {
            Some(name) => request.header("idempotency-key", name),
            None => request,
        };
        tokio::spawn(async move {
            let _response = request.send().await;
            std::future::pending::<()>().await;
        })
    };
    let client = begin(None);
    let lease = node.lease().await;
    node.stream(&lease, "x").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.abort();
    assert_eq!(node.cancelled().await.0, lease.id);
    let client = begin(Some("mine"));
    let lease = node.lease().await;
    node.stream(&lease, "x").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.abort();
    assert!(node.hears_nothing(700).await, "it may come back for the result");
    node.submit(&lease, output("x", 1)).await;
    node.settled().await;
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_gateway_that_vanishes_takes_its_clients_along_and_no_more() {
    let net = Net::new().await;
    let (router, door, other) = (net.router().await, net.door().await, net.door().await);
    let key = router.key().await;
    let mut node = ready(&other).await;
    let request = net.post(&door, &key, &streaming());
    let client = tokio::spawn(async move { request.send().await.unwrap() });
    let lease = node.lease().await;
    node.stream(&lease, "one").await;
    let response = client.await.unwrap();
    // Its socket ends with it.
    door.stop.cancel();
    assert!(response.text().await.is_ok_and(|body| !body.contains("[DONE]")));
    for beat in 0..20 {
        assert!(beat < 19, "nobody waits any more, and the job goes on");
        node.heartbeat(&[&lease]).await;
        if let Ok(said) = tokio::time::timeout(Duration::from_secs(1), node.hear()).await {
            assert!(matches!(said, CoordinatorMessage::Cancel { .. }), "{said:?}");
            break;
        }
    }
    let worker = node.work(&["Hi"]);
    let answer = net.post(&other, &key, &chat_body(|_| {})).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    net.holds().await;
    worker.abort();
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn of_two_gateways_with_one_node_the_later_has_it() {
    let net = Net::new().await;
    let (router, one, two) = (net.router().await, net.door().await, net.door().await);
    let key = router.key().await;
    let identity = Identity::new("rig1");
    let mut early = connect(&identity, &one).await;
    early.announce(&[MODEL], 1).await;
    let late = connect(&identity, &two).await;
    late.announce(&[MODEL], 1).await;
    let bye = early.hear().await;
    assert!(matches!(bye, CoordinatorMessage::Bye(_)), "{bye:?}");
    let worker = late.work(&["Hi"]);
    let answer = net.post(&one, &key, &chat_body(|_| {})).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(net.holds().await.receipts, 1);
    worker.abort();
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_node_that_proves_nothing_does_not_get_in() {
    let net = Net::new().await;
    let (router, door) = (net.router().await, net.door().await);
    // Another's id under one's own key.
    let (honest, thief) = (Identity::new("rig1"), Identity::new("rig1"));
    let client = HttpCoordinator::new(&door.url).unwrap();
    let refused = client.connect(&thief.key, &honest.id, &capabilities()).await;
    assert!(refused.is_err());
    assert_eq!(router.coordinator.jobs_overview().nodes, 0);
    let node = connect(&honest, &door).await;
    eventually("the honest one is in", async || router.coordinator.jobs_overview().nodes == 1)
        .await;
    drop(node);
    eventually("and gone", async || router.coordinator.jobs_overview().nodes == 0).await;
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn forged_and_repeated_messages_change_nothing() {
    let net = Net::new().await;
    let (router, door) = (net.router().await, net.door().await);
    let key = router.key().await;
    let spy = spy().await;
    let mut heard = spy.subscribe(format!("neurino.{}.>", net.name)).await.unwrap();
    spy.flush().await.unwrap();
    let worker = ready(&door).await.work(&["Hi"]);
    let ask = async || {
        let answer = net.post(&door, &key, &chat_body(|_| {})).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    };
    ask().await;
    let mut taped = Vec::new();
    let quiet = Duration::from_millis(300);
    while let Ok(Some(message)) = tokio::time::timeout(quiet, heard.next()).await {
        taped.push((message.subject, message.payload));
        if taped.len() > 200 {
            break;
        }
    }
    assert!(taped.iter().any(|(subject, _)| subject.ends_with(".link")));
    assert!(taped.iter().any(|(subject, _)| subject.ends_with(".job.submit")));
    for (_, payload) in &taped {
        let text = String::from_utf8_lossy(payload);
        assert!(!text.contains("Say hi") && !text.contains(&key), "NATS reads along");
    }
    let subjects: Vec<_> = taped.iter().map(|(subject, _)| subject.clone()).collect();
    for (subject, payload) in taped.iter().cloned() {
        spy.publish(subject, payload).await.unwrap();
    }
    for subject in subjects.iter().take(20) {
        for forged in [vec![], b"{}".to_vec(), vec![0xff; 1 << 20], taped[0].1[1..].to_vec()] {
            spy.publish(subject.clone(), forged.into()).await.unwrap();
        }
        // Sealed, but for another subject.
        for other in &subjects {
            if other != subject {
                spy.publish(subject.clone(), taped[0].1.clone()).await.unwrap();
                break;
            }
        }
    }
    spy.flush().await.unwrap();
    ask().await;
    assert_eq!(router.coordinator.jobs_overview().nodes, 1);
    let check = net.holds().await;
    assert_eq!((check.receipts, check.jobs.values().sum::<u64>()), (2, 2));
    // One of the operator's machines with another key is as deaf as a stranger.
    let stranger = FabricConfig { key: FabricKey::draw(), ..net.fabric.clone() };
    let deaf = net.door_with(stranger).await;
    let health = net.http.get(format!("{}/healthz", deaf.url)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    worker.abort();
    router.end().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_router_that_was_succeeded_settles_nothing_and_is_not_heard() {
    let net = Net::new().await;
    let (first, door) = (net.router().await, net.door().await);
    let key = first.key().await;
    let spy = spy().await;
    let mut heard = spy.subscribe(format!("neurino.{}.owner", net.name)).await.unwrap();
    let old_beat = heard.next().await.unwrap();
    let mut node = Identity::new("stale").connect(&first.coordinator).await;
    node.announce(&[MODEL], 1).await;
    let request = net.post(&door, &key, &chat_body(|_| {}));
    let client = tokio::spawn(async move { request.send().await.unwrap() });
    let lease = node.lease().await;
    // Its lease of the books runs out unnoticed, and another one takes them.
    let mut books = PgConnection::connect(&net.postgres).await.unwrap();
    let second = loop {
        books.execute("UPDATE shard SET lease_until = '-infinity'").await.unwrap();
        if let Ok(coordinator) = Coordinator::open(net.config()).await {
            break coordinator;
        }
    };
    node.submit(&lease, output("stale", 1)).await;
    let (fabric, stop) = (net.fabric.clone(), CancellationToken::new());
    let (this, stopped) = (Arc::clone(&second), stop.clone());
    tokio::spawn(async move { this.serve_fabric(fabric, stopped).await.unwrap() });
    for _ in 0..20 {
        spy.publish(old_beat.subject.clone(), old_beat.payload.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("the first one steps down", async || first.coordinator.is_superseded()).await;
    assert_eq!(net.holds().await.receipts, 0, "it settled nothing");
    // The job goes on with the second one, and its client hears no goodbye.
    let worker = ready(&door).await.work(&["fresh"]);
    let answer: Value = client.await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "fresh", "{answer}");
    let check = net.holds().await;
    assert_eq!((check.receipts, check.jobs.values().sum::<u64>()), (1, 1));
    worker.abort();
    second.shutdown().await;
    stop.cancel();
    first.coordinator.shutdown().await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn messages_that_are_too_large_or_none_end_their_link_alone() {
    let net = Net::new().await;
    let (router, door) = (net.router().await, net.door().await);
    let bystander = ready(&door).await;
    let mut node = connect(&Identity::new("rig2"), &door).await;
    let reason = "x".repeat(5 << 20);
    let lease = neurino_core::LeaseId(uuid::Uuid::now_v7());
    node.say(NodeMessage::HandBack { lease, reason }).await;
    assert!(matches!(node.hear().await, CoordinatorMessage::Bye(_)));
    // A result may be as large; it is of no lease here, and the link goes on.
    let mut node = connect(&Identity::new("rig3"), &door).await;
    let JobOutput::Text(mut text) = output("", 1) else { panic!("a text") };
    text.choices[0].text = "y".repeat(6 << 20);
    let output = JobOutput::Text(text);
    let job = neurino_core::JobId(uuid::Uuid::now_v7());
    let identity = node.identity.clone();
    let (id, digest) = (identity.id, output.digest());
    let statement = ResultStatement { job, lease, fence: 1, node: id, digest };
    let signature = identity.key.sign(&statement.message());
    let foreign = Submission { statement, signature, output };
    node.say(NodeMessage::Submit(foreign)).await;
    node.rejected().await;
    assert_eq!(router.coordinator.jobs_overview().nodes, 2);
    drop(bystander);
    router.end().await;
}

#[test]
fn a_key_file_is_needed_where_a_gateway_starts() {
    let error = FabricKey::load(&PathBuf::from("/nowhere/fabric.key")).err().unwrap();
    assert!(error.to_string().contains("copy `coordinator/fabric.key` from"), "{error}");
}
