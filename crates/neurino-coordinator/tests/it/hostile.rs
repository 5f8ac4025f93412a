//! Hostile messages at every endpoint, in tables: what each attack is answered with. Attacks that need a
//! story of their own are beside what they attack: slow senders (`gateway`, `links`), forged uploads
//! (`original`, `bucket`), vouchers (`vouchers`), relayed hellos and stolen tokens (`links`), pictures
//! that unpack to far more (`pictures`), replays and late results (`leases`).

use axum::http::{Method, StatusCode};
use neurino_core::{LeaseId, TextDelta};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::{CoordinatorMessage, Exchange, NodeMessage};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::node::{Identity, Node, output};
use crate::world::{MODEL, World, chat_body, code, short_limits};

/// Everything that takes a body, and a body that it takes.
fn endpoints() -> Vec<(&'static str, Value)> {
    let chat = chat_body(|_| {});
    let job = json!(crate::world::spec(MODEL, "hi"));
    let poll = json!({ "miner_id": format!("0x{}", "ab".repeat(20)), "model_id": MODEL,
        "min_deadline": 1 });
    vec![
        ("/v1/chat/completions", chat),
        ("/v1/images/generations", json!({ "model": "my-painter", "prompt": "x" })),
        ("/v1/jobs", job),
        ("/v1/node/session", json!({ "type": "hello" })),
        ("/v1/node/exchange", json!({ "messages": [], "wait_ms": 0 })),
        ("/miner_request", poll.clone()),
        ("/miner_submit", poll.clone()),
        ("/miner_signal", poll),
    ]
}

/// The answer must be a refusal with a code, in whichever form the endpoint has.
fn refused(what: &str, path: &str, status: StatusCode, body: &Value) {
    assert!(status.is_client_error(), "{what} at {path}: {status} {body}");
    assert_ne!(code(body), "none", "{what} at {path}: {status} {body}");
}

#[tokio::test]
async fn what_is_no_json_of_the_endpoint_is_refused_by_every_one() {
    let world = World::original(short_limits()).await;
    let deep = "[".repeat(100_000);
    let bodies: [(&str, Vec<u8>); 9] = [
        ("nothing", Vec::new()),
        ("half of it", b"{".to_vec()),
        ("a number", b"1e999".to_vec()),
        ("not a number", br#"{"model": NaN, "min_deadline": NaN, "wait_ms": NaN}"#.to_vec()),
        ("a list", b"[]".to_vec()),
        ("brackets without an end", deep.into_bytes()),
        ("bytes that are no text", vec![b'{', b'"', 0xff, 0xfe, b'"', b'}']),
        ("zero bytes", vec![0; 64]),
        ("a text", br#""../../etc/passwd""#.to_vec()),
    ];
    for (path, _) in endpoints() {
        for (what, body) in &bodies {
            let headers = [("content-type", "application/json")];
            let key = Some(world.api_key.as_str());
            let (status, answer) =
                world.send(Method::POST, path, key, &headers, body.clone()).await;
            refused(what, path, status, &answer);
        }
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn what_nests_deeper_than_any_request_is_refused_in_words() {
    let world = World::original(short_limits()).await;
    let schema = |levels: usize| {
        let mut schema = json!({ "type": "string" });
        for _ in 0..levels {
            schema = json!({ "type": "array", "items": schema });
        }
        schema
    };
    let with_schema = |levels: usize| {
        let arguments = json!({ "type": "object", "properties": { "a": schema(levels) } });
        let function = json!({ "name": "f", "parameters": arguments });
        chat_body(|body| body["tools"] = json!([{ "type": "function", "function": function }]))
    };
    let chat = "/v1/chat/completions";
    let (status, body) = world.call(Method::POST, chat, with_schema(20)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "only the nodes are missing: {body}");
    let (status, body) = world.call(Method::POST, chat, with_schema(40)).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "invalid_request"));
    assert!(body.to_string().contains("deeper than 32 levels"), "{body}");
    // However right the rest of it is.
    for (path, mut body) in endpoints() {
        body["also"] = schema(40);
        let (status, answer) = world.call(Method::POST, path, body).await;
        refused("a deep field", path, status, &answer);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_every_endpoint() {
    let world = World::original(short_limits()).await;
    // Larger than anything but a node's picture may be; that has its own tests.
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(3 << 20));
    for (path, _) in endpoints().into_iter().filter(|(path, _)| *path != "/v1/node/exchange") {
        let headers = [("content-type", "application/json")];
        let key = Some(world.api_key.as_str());
        let (status, answer) = world.send(Method::POST, path, key, &headers, large.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}: {answer}");
        assert_eq!(code(&answer), "too_large", "{path}: {answer}");
    }
}

#[tokio::test]
async fn numbers_out_of_bounds_are_refused_by_name() {
    let world = World::original(short_limits()).await;
    let huge = json!(1e308);
    for (path, field, value) in [
        ("/v1/chat/completions", "temperature", json!(-1)),
        ("/v1/chat/completions", "temperature", huge.clone()),
        ("/v1/chat/completions", "top_p", json!(-0.1)),
        ("/v1/chat/completions", "max_tokens", json!(-1)),
        ("/v1/chat/completions", "max_tokens", json!(1e30)),
        ("/v1/chat/completions", "n", json!(0)),
        ("/v1/chat/completions", "n", json!(9_007_199_254_740_993_i64)),
        ("/v1/jobs", "max_tokens", json!(-1)),
        ("/v1/jobs", "max_tokens", json!("5")),
        ("/miner_request", "min_deadline", json!(-1)),
        ("/miner_request", "min_deadline", huge.clone()),
        ("/miner_submit", "request_latency", json!(-1)),
        ("/miner_submit", "inference_latency", huge),
        ("/v1/node/exchange", "wait_ms", json!(-1)),
    ] {
        let mut body = endpoints().into_iter().find(|(at, _)| *at == path).unwrap().1;
        body[field] = value.clone();
        let (status, answer) = world.call(Method::POST, path, body).await;
        refused(&format!("{field} = {value}"), path, status, &answer);
    }
    assert_eq!(world.coordinator.jobs_overview().queued, 0, "no job was made of any");
}

#[tokio::test]
async fn a_field_of_a_job_that_cannot_be_read_is_named() {
    let world = World::new().await;
    let good = serde_json::to_value(crate::world::spec(MODEL, "hi")).unwrap();
    let picture = json!({ "kind": "image", "model": MODEL, "prompt": "x", "width": 64,
        "height": 64, "steps": 1, "guidance": 1.0, "seed": 1 });
    let refused = async |good: &Value, at: &str, value: Option<Value>, param: &str, named: &str| {
        let mut body = good.clone();
        let place = body.pointer_mut(at.rsplit_once('/').unwrap().0).unwrap();
        let field = at.rsplit_once('/').unwrap().1;
        match value {
            Some(value) => place[field] = value,
            None => drop(place.as_object_mut().unwrap().remove(field)),
        }
        let (status, answer) = world.call(Method::POST, "/v1/jobs", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{at}: {answer}");
        assert_eq!((&answer["error"]["param"], code(&answer)), (&json!(param), named), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("`{param}` ")), "{message}");
    };
    for (at, value, param) in [
        ("/max_tokens", json!("5"), "max_tokens"),
        ("/model", json!(5), "model"),
        ("/messages", json!("hi"), "messages"),
        ("/messages", json!([{ "role": "user", "content": 5 }]), "messages[0].content"),
        ("/sampling/temperature", json!("hot"), "sampling.temperature"),
        ("/stop", json!([1]), "stop[0]"),
        ("/kind", json!(1), "kind"),
    ] {
        refused(&good, at, Some(value), param, "invalid_type").await;
    }
    refused(&good, "/max_tokens", Some(json!(-1)), "max_tokens", "invalid_value").await;
    refused(&good, "/kind", Some(json!("video")), "kind", "invalid_value").await;
    refused(&good, "/model", None, "model", "missing_required_parameter").await;
    let gap = "missing_required_parameter";
    refused(&good, "/sampling/top_p", None, "sampling.top_p", gap).await;
    refused(&good, "/kind", None, "kind", gap).await;
    refused(&picture, "/width", Some(json!("64")), "width", "invalid_type").await;
    for body in [json!([]), json!("text")] {
        let (status, answer) = world.call(Method::POST, "/v1/jobs", body).await;
        assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "invalid_type"), "{answer}");
    }
    let (status, answer) = world.call(Method::POST, "/v1/jobs", good).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
}

#[tokio::test]
async fn paths_lead_nowhere_else() {
    let world = World::original(short_limits()).await;
    let place = world.file();
    let secret = place.with_file_name("secret.png");
    // Books in a server leave the folder to the pictures, which come later.
    std::fs::create_dir_all(secret.parent().unwrap()).unwrap();
    std::fs::write(&secret, "secret").unwrap();
    for base in ["/v1/images/", "/v1/jobs/", "/v1/models/", "/v1/epochs/", "/heurist-images/", "/"]
    {
        for way in [
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e%2fsecret.png",
            "..%5c..%5csecret.png",
            "secret.png",
            "%2fetc%2fpasswd",
            "....//secret.png",
            "%00.png",
            "http:%2f%2f169.254.169.254%2f",
        ] {
            let path = format!("{base}{way}");
            let key = Some(world.api_key.as_str());
            let response = world.raw(Method::GET, &path, key, &[], "").await;
            assert!(response.status().is_client_error(), "{path}: {}", response.status());
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            assert!(!body.starts_with(b"secret") && !body.starts_with(b"root:"), "{path}");
        }
    }
}

/// No address from a stranger is asked for anything.
#[tokio::test]
async fn addresses_in_requests_are_not_called() {
    let world = World::original(short_limits()).await;
    let bait = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/latest/meta-data", bait.local_addr().unwrap());
    let _node = Node::ready(&world.coordinator).await;
    let picture = json!([{ "role": "user", "content": [
        { "type": "text", "text": "what is this" },
        { "type": "image_url", "image_url": { "url": url } }] }]);
    let (status, answer) = world.chat(|body| body["messages"] = picture.clone()).await;
    refused("a picture's address", "/v1/chat/completions", status, &answer);
    for (path, field) in [
        ("/v1/images/generations", "image"),
        ("/v1/jobs", "callback_url"),
        ("/v1/jobs", "webhook"),
        ("/miner_signal", "signal_url"),
    ] {
        let mut body = endpoints().into_iter().find(|(at, _)| *at == path).unwrap().1;
        body[field] = json!(url);
        let (status, answer) = world.call(Method::POST, path, body).await;
        assert!(!status.is_server_error(), "{path}: {answer}");
    }
    let headers = [("x-forwarded-host", url.as_str()), ("host", "169.254.169.254")];
    world.send(Method::GET, "/v1/network", None, &headers, "").await;
    let called = tokio::time::timeout(std::time::Duration::from_millis(300), bait.accept()).await;
    assert!(called.is_err(), "somebody called {url}");
}

#[tokio::test]
async fn a_made_up_session_hears_nothing() {
    let world = World::new().await;
    let exchange = json!(Exchange { messages: Vec::new(), wait_ms: 0 });
    for token in ["", "x", "0000", &"f".repeat(64), &"f".repeat(100_000)] {
        let path = "/v1/node/exchange";
        let body = exchange.to_string();
        let (status, answer) = world.send(Method::POST, path, Some(token), &[], body).await;
        assert_eq!((status, code(&answer)), (StatusCode::UNAUTHORIZED, "unauthorized"), "{answer}");
    }
}

/// What a node that has no lease says about one.
#[tokio::test]
async fn messages_about_leases_of_others_are_refused() {
    let world = World::new().await;
    let mut honest = Node::ready(&world.coordinator).await;
    world.submit("one").await;
    let lease = honest.lease().await;
    let mut thief = Identity::new("thief").connect(&world.coordinator).await;

    // The honest node's lease, signed by the thief; then signed in the honest node's name.
    thief.say(NodeMessage::Submit(thief.identity.submission(&lease, output("mine", 1)))).await;
    assert!(matches!(thief.hear().await, CoordinatorMessage::Rejected { .. }));
    let mut forged = honest.identity.submission(&lease, output("mine", 1));
    forged.signature = thief.identity.key.sign(&forged.statement.message());
    thief.say(NodeMessage::Submit(forged)).await;
    assert!(matches!(thief.hear().await, CoordinatorMessage::Rejected { .. }));
    let delta = vec![TextDelta::text("poison")];
    let progress = |lease: LeaseId| NodeMessage::Progress {
        lease,
        deltas: delta.clone(),
        tokens: u32::MAX,
        step: None,
    };
    for lease in [lease.id, LeaseId(Uuid::nil())] {
        thief.say(progress(lease)).await;
        let heard = thief.hear().await;
        let stale = matches!(heard, CoordinatorMessage::Cancel { code: ErrorCode::StaleLease, .. });
        assert!(stale, "{heard:?}");
    }
    let reason = "x".repeat(10_000);
    thief.say(NodeMessage::HandBack { lease: lease.id, reason }).await;
    let many = (0..10_000).map(|n| LeaseId(Uuid::from_u128(n))).collect();
    thief.say(NodeMessage::Heartbeat { leases: many }).await;

    // Nothing of that touched the honest node, which hands in twice and is paid once.
    honest.heartbeat(&[&lease]).await;
    honest.submit(&lease, output("hi", 1)).await;
    let receipt = honest.settled().await;
    honest.submit(&lease, output("hi", 1)).await;
    assert_eq!(honest.settled().await, receipt, "a repeat");
    honest.submit(&lease, output("something else", 1)).await;
    let told = honest.hear().await;
    let paid_again = matches!(&told, CoordinatorMessage::Settled(other) if *other != receipt);
    assert!(!paid_again, "{told:?}");
    // Out of order: progress behind the result, and a hello within the session.
    honest.say(progress(lease.id)).await;
    let heard = honest.hear().await;
    assert!(matches!(heard, CoordinatorMessage::Cancel { .. }), "{heard:?}");
    let hello = honest.identity.hello("practice", "0x", "n");
    honest.say(NodeMessage::Hello(hello)).await;
    let CoordinatorMessage::Bye(error) = honest.hear().await else { panic!("it goes on") };
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    world.assert_books_hold().await;
}
