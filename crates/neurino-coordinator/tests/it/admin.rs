//! The admin listener: who may ask, and what it answers.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::IntoResponse as _;
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::node::{Node, output};
use crate::world::World;

const TOKEN: &str = "the-admin-token";

async fn ask(
    world: &World,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> (StatusCode, String) {
    let router = world.coordinator.admin_router(SecretString::from(TOKEN));
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = router.oneshot(request.body(Body::from(body)).unwrap()).await.into_response();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

const HOST: (&str, &str) = ("host", "127.0.0.1:43111");
const AUTH: (&str, &str) = ("authorization", "Bearer the-admin-token");

async fn admin(world: &World, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let (status, text) = ask(world, method, path, &[HOST, AUTH], body).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn only_programs_of_this_machine_with_the_token_are_answered() {
    let world = World::new().await;
    let status = async |path: &str, headers: &[(&str, &str)]| {
        ask(&world, Method::GET, path, headers, Value::Null).await.0
    };
    assert_eq!(status("/metrics", &[HOST]).await, StatusCode::OK);
    assert_eq!(status("/admin/keys", &[HOST, AUTH]).await, StatusCode::OK);
    assert_eq!(status("/admin/keys", &[HOST]).await, StatusCode::UNAUTHORIZED);
    let wrong = ("authorization", "Bearer the-admin-tokeN");
    assert_eq!(status("/admin/keys", &[HOST, wrong]).await, StatusCode::UNAUTHORIZED);
    let rebound = ("host", "evil.example");
    assert_eq!(status("/metrics", &[rebound]).await, StatusCode::FORBIDDEN);
    let page = ("origin", "http://localhost:3000");
    assert_eq!(status("/admin/keys", &[HOST, AUTH, page]).await, StatusCode::FORBIDDEN);
    assert_eq!(status("/nothing", &[HOST, AUTH]).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn keys_and_credits_are_made_and_the_metrics_count() {
    let world = World::new().await;
    let terms = json!({ "prepaid": true, "payer": "lab", "scopes": ["text"], "budget": 500_000 });
    let (status, made) =
        admin(&world, Method::POST, "/admin/keys", json!({ "name": "lab", "terms": terms })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let id = made["key"]["id"].as_str().unwrap();
    let secret = made["api_key"].as_str().unwrap().to_owned();
    let (status, listed) = admin(&world, Method::GET, "/admin/keys", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!listed.to_string().contains(&secret), "a list shows no secrets");
    let deposit = json!({ "payer": "lab", "amount_micro": 7, "reference": "r" });
    let (_, balance) = admin(&world, Method::POST, "/admin/credits", deposit).await;
    assert_eq!(balance["balance_micro"], 7);
    let nothing = json!({ "payer": "lab", "amount_micro": 0, "reference": "r" });
    let (status, _) = admin(&world, Method::POST, "/admin/credits", nothing).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let pay_out = json!({ "account": "protocol", "amount_micro": 1, "reference": "r" });
    let (status, refused) = admin(&world, Method::POST, "/admin/pay-outs", pay_out).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["message"].as_str().unwrap().contains("can still be called back"), "{refused}");
    let payer = json!({ "account": "payer:lab", "amount_micro": 1, "reference": "r" });
    let (status, refused) = admin(&world, Method::POST, "/admin/pay-outs", payer).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["message"].as_str().unwrap().contains("negative deposit"), "{refused}");
    let bad = json!({ "name": "x", "terms": { "budget": 5 } });
    let (status, _) = admin(&world, Method::POST, "/admin/keys", bad).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, rotated) =
        admin(&world, Method::POST, &format!("/admin/keys/{id}/rotate"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert!(world.coordinator.knows_api_key(rotated["api_key"].as_str().unwrap()));
    let (status, _) =
        admin(&world, Method::DELETE, &format!("/admin/keys/{id}"), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(!world.coordinator.knows_api_key(&secret));
    let (status, _) = admin(&world, Method::DELETE, "/admin/keys/none", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let mut node = Node::ready(&world.coordinator).await;
    world.submit("hi").await;
    let lease = node.lease().await;
    node.submit(&lease, output("hello", 3)).await;
    node.settled().await;
    let (_, text) = ask(&world, Method::GET, "/metrics", &[HOST], Value::Null).await;
    let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    has("neurino_jobs_accepted_total{class=\"interactive\"} 1");
    has("neurino_jobs_settled_total{kind=\"text\"} 1");
    has("neurino_nodes 1");
    has("neurino_jobs_waiting{class=\"batch\"} 0");
    has("neurino_assign_seconds_count 1");
    let (_, ledger) = admin(&world, Method::GET, "/admin/ledger", Value::Null).await;
    assert_eq!(ledger["holds"], true);
}
