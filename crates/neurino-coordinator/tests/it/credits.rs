//! Keys with terms, prepaid credits, limits, repeats.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use futures::StreamExt as _;
use neurino_coordinator::admin::{self, ROTATION_MS};
use neurino_coordinator::{
    Account, CoordinatorError, JobTerms, KeyTerms, PayerId, Prepaid, Scope, Unit,
};
use neurino_core::{FrontendId, Lease, MicroCredits, ModelId};
use neurino_protocol::ErrorCode;
use serde_json::{Value, json};

use crate::node::{Node, output};
use crate::world::{MODEL, World, chat_body, code, eventually, spec};

const CHAT: &str = "/v1/chat/completions";

fn lab() -> PayerId {
    PayerId::new("lab").unwrap()
}

fn prepaid() -> KeyTerms {
    KeyTerms { payer: Some(lab()), prepaid: true, ..KeyTerms::default() }
}

async fn key(world: &World, terms: KeyTerms) -> String {
    let key = world.coordinator.create_api_key_with("lab", terms).await.unwrap();
    key.expose_secret().to_owned()
}

async fn buy(world: &World, micro: i64, reference: &str) -> MicroCredits {
    let database = world.config().database;
    admin::deposit(&database, &lab(), MicroCredits(micro), reference).await.unwrap()
}

/// What an account has in credits, by the books.
async fn credits_of(world: &World, account: Account) -> i64 {
    let check = world.coordinator.ledger_check().await.unwrap();
    let own = check.balances.iter().find(|b| b.account == account && b.points == Unit::Credit);
    own.map_or(0, |balance| balance.balance_micro.0)
}

async fn post(
    world: &World,
    key: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> (StatusCode, Value) {
    world.send(Method::POST, CHAT, Some(key), headers, body.to_string()).await
}

#[tokio::test]
async fn a_prepaid_job_is_held_charged_and_shared_out() {
    let world = World::new().await;
    let frontend = FrontendId::new("site").unwrap();
    let terms = KeyTerms { frontend: Some(frontend.clone()), ..prepaid() };
    let key = key(&world, terms).await;
    let database = world.config().database;
    let model = ModelId::new(MODEL).unwrap();
    let deployer = PayerId::new("lab-of-models").unwrap();
    admin::set_pod(&database, &model, Some(&deployer), 7, false).await.unwrap();
    assert_eq!(buy(&world, 1_000_000, "invoice 1").await.0, 1_000_000);
    assert_eq!(buy(&world, 1_000_000, "invoice 1").await.0, 1_000_000, "booked once");
    let other = admin::deposit(&database, &lab(), MicroCredits(5), "invoice 1").await;
    assert!(other.is_err(), "the reference names another amount");
    let too_much = admin::deposit(&database, &lab(), MicroCredits(-1_000_001), "back").await;
    assert!(too_much.is_err(), "more than there is");
    // The coordinator notices the model's deployer within a second.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let mut node = Node::ready(&world.coordinator).await;

    let asked = post(&world, &key, &[], chat_body(|body| body["max_tokens"] = json!(4000)));
    let served = async {
        let lease = node.lease().await;
        let held = credits_of(&world, Account::Held(lab())).await;
        assert!(held > 0);
        assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000_000 - held);
        world.assert_books_hold().await;
        node.submit(&lease, output(&"hello ".repeat(3990), 3990)).await;
        node.settled().await
    };
    let ((status, body), receipt) = tokio::join!(asked, served);
    assert_eq!(status, StatusCode::OK, "{body}");
    // 10 tokens in at 5, 3990 out at 10 micro-credits a thousand.
    let price = 40;
    assert_eq!(credits_of(&world, Account::Held(lab())).await, 0);
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000_000 - price);
    assert_eq!(credits_of(&world, Account::Deployer(deployer)).await, 4);
    assert_eq!(credits_of(&world, Account::Frontend(frontend)).await, 4);
    assert_eq!(credits_of(&world, Account::Voters(model)).await, 2);
    assert_eq!(credits_of(&world, Account::Protocol).await, 2);
    assert_eq!(credits_of(&world, Account::Node(receipt.node)).await, 28);
    assert_eq!(credits_of(&world, Account::Issuance).await, -1_000_000);
    world.assert_books_hold().await;
    let all = admin::credits(&database).await.unwrap();
    assert_eq!((all.issued.0, all.payers["lab"].balance.0), (1_000_000, 999_960));
}

#[tokio::test]
async fn more_credits_than_the_books_can_count_are_refused_in_words() {
    let world = World::new().await;
    let database = world.config().database;
    let other = PayerId::new("other").unwrap();
    assert_eq!(buy(&world, i64::MAX, "all").await.0, i64::MAX);
    // One more for the same payer, or for another: what was issued is one sum.
    for payer in [lab(), other.clone()] {
        let more = admin::deposit(&database, &payer, MicroCredits(1), "more").await;
        let error = more.unwrap_err();
        assert!(matches!(error, CoordinatorError::Deposit(_)), "{error:?}");
        assert!(error.to_string().contains("book a smaller amount"), "{error}");
    }
    // The refused reference is free, and the books go on.
    assert_eq!(buy(&world, -5, "back").await.0, i64::MAX - 5);
    let more = admin::deposit(&database, &other, MicroCredits(5), "more").await;
    assert_eq!(more.unwrap(), MicroCredits(5));
    let least = admin::deposit(&database, &lab(), MicroCredits(i64::MIN), "least").await;
    assert!(matches!(least, Err(CoordinatorError::Deposit(_))), "{least:?}");
    assert_eq!(admin::credits(&database).await.unwrap().issued.0, i64::MAX);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_job_that_fails_or_is_withdrawn_costs_nothing() {
    let world = World::new().await;
    let key = key(&world, prepaid()).await;
    buy(&world, 1_000, "1").await;
    let mut node = Node::ready(&world.coordinator).await;
    let asked = post(&world, &key, &[("neurino-attempts", "1")], chat_body(|_| {}));
    let served = async {
        let lease = node.lease().await;
        node.fail(lease.id, ErrorCode::EngineFailed).await;
    };
    let ((status, body), ()) = tokio::join!(asked, served);
    assert_eq!((status, code(&body)), (StatusCode::BAD_GATEWAY, "engine_failed"), "discarded");
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000);

    let (status, job) =
        world.send(Method::POST, "/v1/jobs", Some(&key), &[], spec_json().to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let lease = node.lease().await;
    assert!(credits_of(&world, Account::Held(lab())).await > 0);
    let id = job["id"].as_str().unwrap().parse().unwrap();
    assert!(world.coordinator.cancel_job(id).await.unwrap());
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000);
    // A result that comes too late takes nothing.
    node.submit(&lease, output("late", 3)).await;
    node.hear().await;
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000);
    world.assert_books_hold().await;
}

fn spec_json() -> Value {
    serde_json::to_value(crate::world::spec(MODEL, "hi")).unwrap()
}

#[tokio::test]
async fn neither_credits_nor_budget_are_overdrawn() {
    let world = World::new().await;
    let poor = key(&world, prepaid()).await;
    let (status, body) = post(&world, &poor, &[], chat_body(|_| {})).await;
    assert_eq!((status, code(&body)), (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"));
    assert_eq!(body["error"]["type"], "insufficient_quota");
    buy(&world, 1_000_000, "1").await;
    // Each job of the `spec_json` may cost some micro-credits; a budget of that allows one at a time.
    let budget = Some(MicroCredits(5));
    let tight = key(&world, KeyTerms { budget, ..prepaid() }).await;
    let submit =
        || world.send(Method::POST, "/v1/jobs", Some(&tight), &[], spec_json().to_string());
    let (status, first) = submit().await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let (status, body) = submit().await;
    assert_eq!((status, code(&body)), (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"));
    let id = first["id"].as_str().unwrap().parse().unwrap();
    world.coordinator.cancel_job(id).await.unwrap();
    assert_eq!(submit().await.0, StatusCode::ACCEPTED, "what was not spent is there again");
    world.assert_books_hold().await;
}

#[tokio::test]
async fn what_is_set_aside_outlives_a_restart() {
    let mut world = World::new().await;
    let key = key(&world, prepaid()).await;
    buy(&world, 1_000, "1").await;
    world.send(Method::POST, "/v1/jobs", Some(&key), &[], spec_json().to_string()).await;
    let held = credits_of(&world, Account::Held(lab())).await;
    assert!(held > 0);
    world.restart().await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 3)).await;
    node.settled().await;
    assert_eq!(credits_of(&world, Account::Held(lab())).await, 0);
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000 - 1);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_key_is_good_for_its_scopes_until_it_is_revoked() {
    let world = World::new().await;
    let scopes = BTreeSet::from([Scope::Jobs]);
    let made = KeyTerms { scopes, ..KeyTerms::default() };
    let made = world.coordinator.create_api_key_with("jobs alone", made).await.unwrap();
    let key = made.expose_secret();
    let (status, body) = post(&world, key, &[], chat_body(|_| {})).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "insufficient_permissions"));
    let submit = async |key: String| {
        let body = spec_json().to_string();
        world.send(Method::POST, "/v1/jobs", Some(&key), &[], body).await.0
    };
    assert_eq!(submit(key.to_owned()).await, StatusCode::ACCEPTED);

    let database = world.config().database;
    let rotated = admin::rotate_api_key(&database, &made.info.id, ROTATION_MS).await.unwrap();
    eventually("the new secret opens", async || {
        submit(rotated.expose_secret().to_owned()).await == StatusCode::ACCEPTED
    })
    .await;
    assert_eq!(submit(key.to_owned()).await, StatusCode::ACCEPTED, "the old one still does");
    admin::revoke_api_key(&database, &made.info.id).await.unwrap();
    assert!(admin::revoke_api_key(&database, &made.info.id).await.is_err(), "revoked already");
    for secret in [key.to_owned(), rotated.expose_secret().to_owned()] {
        eventually("no secret opens any more", async || {
            submit(secret.clone()).await == StatusCode::UNAUTHORIZED
        })
        .await;
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let world = World::new().await;
    let terms = KeyTerms { requests_per_min: Some(2), ..KeyTerms::default() };
    let often = key(&world, terms).await;
    let body = || json!({}).to_string();
    for _ in 0..2 {
        let (status, _) = world.send(Method::POST, CHAT, Some(&often), &[], body()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "counted, though it asks for nothing");
    }
    let response = world.raw(Method::POST, CHAT, Some(&often), &[], body()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after} s");

    let terms = KeyTerms { units_per_min: Some(1_000), ..KeyTerms::default() };
    let much = key(&world, terms).await;
    let ask = |tokens: u32| chat_body(|body| body["max_tokens"] = json!(tokens));
    let (status, body) = post(&world, &much, &[], ask(2_000)).await;
    assert_eq!((status, code(&body)), (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"));
    let (status, _) = post(&world, &much, &[], ask(900)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "nobody serves it, but it may be asked");
    let (status, body) = post(&world, &much, &[], ask(900)).await;
    assert_eq!((status, code(&body)), (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"));
    assert_eq!(body["error"]["type"], "rate_limit_error");
}

#[tokio::test]
async fn a_repeated_chat_is_the_same_job() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let key = world.api_key.clone();
    let repeat = [("idempotency-key", "chat-1")];
    let asked = post(&world, &key, &repeat, chat_body(|_| {}));
    let served = async {
        let lease = node.lease().await;
        node.submit(&lease, output("hello", 3)).await;
        node.settled().await
    };
    let ((status, first), _) = tokio::join!(asked, served);
    assert_eq!(status, StatusCode::OK);
    // The time that answers tell has seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let (status, again) = post(&world, &key, &repeat, chat_body(|_| {})).await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &first["id"]));
    assert_eq!(again["created"], first["created"]);
    assert_eq!(again["choices"], first["choices"]);
    let (status, body) =
        post(&world, &key, &repeat, chat_body(|body| body["max_tokens"] = json!(5))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 1);
}

/// A streamed request of a prepaid key whose client has read the first piece, and the lease of its node.
async fn begun(world: &World, key: &str, node: &mut Node) -> (axum::body::BodyDataStream, Lease) {
    let body = chat_body(|b| b["stream"] = json!(true)).to_string();
    let request = world.raw(Method::POST, CHAT, Some(key), &[], body);
    let serve = async {
        let lease = node.lease().await;
        node.stream(&lease, "nearly all of it").await;
        lease
    };
    let (response, lease) = tokio::join!(request, serve);
    assert_eq!(response.status(), StatusCode::OK);
    let mut pieces = response.into_body().into_data_stream();
    let mut read = String::new();
    while !read.contains("nearly all of it") {
        read += std::str::from_utf8(&pieces.next().await.unwrap().unwrap()).unwrap();
    }
    (pieces, lease)
}

#[tokio::test]
async fn a_client_that_leaves_with_part_of_a_prepaid_answer_pays_for_it_and_its_node_is_paid() {
    let world = World::new().await;
    let key = key(&world, prepaid()).await;
    buy(&world, 1_000, "1").await;
    let mut node = Node::ready(&world.coordinator).await;
    let (pieces, lease) = begun(&world, &key, &mut node).await;
    drop(pieces);
    assert!(node.hears_nothing(300).await, "the node works on");
    node.submit(&lease, output(&format!("nearly all of it{}", " and so on".repeat(60)), 100)).await;
    let receipt = node.settled().await;
    // 10 tokens in at 5, 100 out at 10 micro-credits a thousand; the least is one.
    let left = credits_of(&world, Account::Payer(lab())).await;
    assert!(left < 1_000, "{left}");
    assert!(credits_of(&world, Account::Node(receipt.node)).await > 0);
    assert_eq!(credits_of(&world, Account::Held(lab())).await, 0);

    // What its node does not end, nobody else begins anew for a client that is gone: it costs nothing.
    let (pieces, lease) = begun(&world, &key, &mut node).await;
    let other = Node::ready(&world.coordinator).await;
    drop(pieces);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    node.fail(lease.id, ErrorCode::EngineFailed).await;
    eventually("the job is given up", async || {
        world.coordinator.ledger_check().await.unwrap().jobs.get("failed") == Some(&1)
    })
    .await;
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, left);
    drop(other);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_anything_came_pays_nothing_and_a_free_one_stops_its_node() {
    let world = World::new().await;
    let paying = key(&world, prepaid()).await;
    buy(&world, 1_000, "1").await;
    let mut node = Node::ready(&world.coordinator).await;
    let body = chat_body(|b| b["stream"] = json!(true));
    let lease = tokio::select! {
        _ = post(&world, &paying, &[], body) => panic!("nobody answered"),
        lease = node.lease() => lease,
    };
    let cancelled = ErrorCode::Cancelled;
    assert_eq!(node.cancelled().await, (lease.id, cancelled));
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000);
    let free = world.api_key.clone();
    let (pieces, lease) = begun(&world, &free, &mut node).await;
    drop(pieces);
    assert_eq!(node.cancelled().await, (lease.id, cancelled));
    world.assert_books_hold().await;
}

/// Whether a node that works on a job hears nothing for some seconds.
async fn works_on(node: &mut Node, lease: &Lease, secs: u32) -> bool {
    for _ in 0..secs {
        node.heartbeat(&[lease]).await;
        if !node.hears_nothing(1_000).await {
            return false;
        }
    }
    true
}

/// Why a node that works on a job is told to stop.
async fn stopped(node: &mut Node, lease: &Lease) -> ErrorCode {
    let mut told = None;
    eventually("it is told to stop", async || {
        node.heartbeat(&[lease]).await;
        let wait = std::time::Duration::from_millis(500);
        told = tokio::time::timeout(wait, node.cancelled()).await.ok();
        told.is_some()
    })
    .await;
    let (id, code) = told.unwrap();
    assert_eq!(id, lease.id);
    code
}

/// Terms of a request whose client waits on the line and pays with credits.
fn attended() -> JobTerms {
    let prepaid = Prepaid { key: "k".into(), budget: None };
    JobTerms { attended: true, prepaid: Some(prepaid), ..JobTerms::default() }
}

#[tokio::test]
async fn what_was_asked_for_on_a_line_that_a_restart_cut_is_neither_computed_nor_charged() {
    let mut world = World::new().await;
    let key = key(&world, prepaid()).await;
    buy(&world, 1_000, "1").await;
    let mut node = Node::ready(&world.coordinator).await;
    // What the client of the old process does about it is of no use to the new one.
    let terms = attended();
    let cut = world.coordinator.submit_on(lab(), None, spec(MODEL, "cut"), terms).await.unwrap();
    let watch = world.coordinator.watch_job(cut).await.unwrap();
    let lease = node.lease().await;
    assert!(credits_of(&world, Account::Held(lab())).await > 0);
    let body = serde_json::to_value(spec(MODEL, "kept")).unwrap();
    let (status, kept) =
        world.send(Method::POST, "/v1/jobs", Some(&key), &[], body.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (identity, old) = (node.identity.clone(), lease);
    world.restart().await;
    drop((watch, node));
    eventually("it is withdrawn", async || {
        world.coordinator.ledger_check().await.unwrap().jobs.get("cancelled") == Some(&1)
    })
    .await;
    let mut node = identity.connect(&world.coordinator).await;
    node.submit(&old, output("hello", 5)).await;
    assert_eq!(node.rejected().await, ErrorCode::Cancelled);
    // One that somebody comes for later goes on.
    node.announce(&[MODEL], 1).await;
    let lease = node.lease().await;
    assert_eq!(json!(lease.job), kept["id"]);
    node.submit(&lease, output("hello", 5)).await;
    node.settled().await;
    assert_eq!(credits_of(&world, Account::Held(lab())).await, 0);
    assert!((990..1_000).contains(&credits_of(&world, Account::Payer(lab())).await));
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_ends_and_costs_nothing() {
    let world = World::new().await;
    buy(&world, 1_000, "1").await;
    let mut node = Node::ready(&world.coordinator).await;
    // As if its client had left while the books could not be written.
    let ask = async |key: Option<&str>| {
        let key = key.map(|key| neurino_core::IdempotencyKey::new(key).unwrap());
        world.coordinator.submit_on(lab(), key, spec(MODEL, "hi"), attended()).await.unwrap()
    };
    let job = ask(None).await;
    let watch = world.coordinator.watch_job(job).await.unwrap();
    let lease = node.lease().await;
    assert!(works_on(&mut node, &lease, 2).await, "somebody waits");
    drop(watch);
    assert_eq!(stopped(&mut node, &lease).await, ErrorCode::Unreachable);
    assert_eq!(credits_of(&world, Account::Payer(lab())).await, 1_000);
    // Behind a gateway, which may come back: later, and then under the same key.
    let first = ask(Some("gateway-1")).await;
    let lease = node.lease().await;
    assert!(works_on(&mut node, &lease, 1).await, "it may come back");
    assert_eq!(ask(Some("gateway-1")).await, first);
    assert_eq!(stopped(&mut node, &lease).await, ErrorCode::Unreachable);
    let second = ask(Some("gateway-1")).await;
    assert_ne!(second, first, "whoever comes later means another try");
    let watch = world.coordinator.watch_job(second).await.unwrap();
    let lease = node.lease().await;
    assert!(works_on(&mut node, &lease, 4).await, "it is waited for");
    node.submit(&lease, output("hello", 5)).await;
    node.settled().await;
    drop(watch);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn chats_and_pictures_are_waited_for_and_jobs_are_not() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let key = [("idempotency-key", "mine")];
    let body = serde_json::to_value(spec(MODEL, "durable")).unwrap().to_string();
    world.send(Method::POST, "/v1/jobs", Some(&world.api_key), &[], body).await;
    let lease = node.lease().await;
    assert!(works_on(&mut node, &lease, 1).await, "nobody asks after it, and it goes on");
    node.submit(&lease, output("hello", 5)).await;
    node.settled().await;
    // A client with a key of its own may come back any time of the day.
    let lease = tokio::select! {
        _ = post(&world, &world.api_key, &key, chat_body(|_| {})) => panic!("nobody answered"),
        lease = node.lease() => lease,
    };
    assert!(works_on(&mut node, &lease, 4).await, "it may come back");
    node.submit(&lease, output("hello", 5)).await;
    node.settled().await;
    let (status, _) = post(&world, &world.api_key, &key, chat_body(|_| {})).await;
    assert_eq!(status, StatusCode::OK);
}
