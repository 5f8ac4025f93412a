//! The OpenAI-compatible gateway and the errors of every endpoint.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use neurino_core::{JobSpec, MicroPoints};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::node::{Node, output};
use crate::world::{MODEL, OTHER_MODEL, World, chat_body, code, events, eventually};

const ENDPOINTS: [(Method, &str); 5] = [
    (Method::POST, "/v1/chat/completions"),
    (Method::POST, "/v1/images/generations"),
    (Method::POST, "/v1/jobs"),
    (Method::POST, "/v1/node/session"),
    (Method::POST, "/v1/node/exchange"),
];

#[tokio::test]
async fn a_chat_is_answered_and_paid() {
    let world = World::new().await;
    let node = Node::ready(&world.coordinator).await;
    let id = node.identity.id.clone();
    let _working = node.work(&["Hello", " there"]);
    let (status, body) = world.chat(|_| {}).await;
    assert_eq!(status, StatusCode::OK);
    assert_snapshot!("chat_completion", body, {
        ".id" => "[id]", ".created" => "[seconds]",
    });
    let points = world.coordinator.points(&id, 0).await.unwrap();
    assert_eq!((points.llama_total, points.jobs_total), (MicroPoints(12_000), 1));
    assert_eq!(points.llama_today, points.llama_total);
    let later = world.coordinator.points(&id, i64::MAX).await.unwrap();
    assert_eq!((later.llama_today, later.jobs_today), (MicroPoints(0), 0));
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_streamed_chat_sends_chunks_usage_and_done() {
    let world = World::new().await;
    let _working = Node::ready(&world.coordinator).await.work(&["Hello", " there"]);
    let events =
        world.chat_stream(|body| body["stream_options"] = json!({ "include_usage": true })).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let text: String =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello there");
    let ends = [&chunks[0], &chunks[chunks.len() - 2], &chunks[chunks.len() - 1]];
    assert_snapshot!("chat_chunks", ends, {
        "[].id" => "[id]", "[].created" => "[seconds]",
    });
    // Without the option no chunk speaks of usage.
    let events = world.chat_stream(|_| {}).await;
    assert!(events.iter().all(|e| !e.contains("usage")));
}

#[tokio::test]
async fn the_node_gets_the_job_with_the_networks_stop_strings_and_a_seed() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let chat = world.chat(|body| {
        body["stop"] = json!("END");
        body["max_tokens"] = json!(7);
        body["temperature"] = json!(0.5);
    });
    let serve = async {
        let lease = node.lease().await;
        node.submit(&lease, output("ok", 2)).await;
        node.settled().await;
        lease
    };
    let ((status, _), lease) = tokio::join!(chat, serve);
    assert_eq!(status, StatusCode::OK);
    let JobSpec::Text(job) = &lease.spec else { panic!("a text job") };
    assert_eq!(job.stop, ["END", "[End]", "[end]", "<|im_start|>", "<|im_end|>"]);
    assert_eq!(job.max_tokens, 7);
    assert!(job.sampling.seed < 1 << 53, "an unsigned seed that JavaScript can hold");
    assert!(lease.budget_ms > 179_000 && lease.budget_ms <= 180_000);
    assert!(lease.quote_micro > MicroPoints(0));
    // A fifth stop string would not fit beside the network's four.
    let (status, body) = world.chat(|b| b["stop"] = json!(["1", "2", "3", "4", "5"])).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "invalid_value"));
    // The same rule, whichever way the job comes.
    let mut spec = serde_json::to_value(crate::world::spec(MODEL, "hi")).unwrap();
    spec["stop"] = json!(["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let (status, job) = world.call(Method::POST, "/v1/jobs", spec).await;
    assert_eq!((status, &job["error"]), (StatusCode::BAD_REQUEST, &body["error"]));
}

#[tokio::test]
async fn a_field_refused_further_in_is_named_as_any_other() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    for stream in [false, true] {
        let chat = world.chat(|b| b["stream"] = json!(stream));
        let refuse = async {
            let lease = node.lease().await;
            let error = ErrorBody::new(
                ErrorCode::InvalidRequest,
                "`logit_bias` names token 99999, but the model has 49,152",
            );
            node.fail_with(lease.id, error).await;
        };
        let ((status, body), ()) = tokio::join!(chat, refuse);
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let error = &body["error"];
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!("logit_bias"), &json!("invalid_value"))
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    let prompt = "x".repeat(300 << 10);
    let (_, body) = world.chat(|b| b["messages"][0]["content"] = json!(prompt)).await;
    assert_eq!(body["error"]["param"], "messages");
}

#[tokio::test]
async fn models_lists_what_the_network_prices() {
    let world = World::new().await;
    let node = Node::ready(&world.coordinator).await;
    eventually("the node is ready", async || {
        world.coordinator.jobs_overview().models.values().sum::<usize>() == 1
    })
    .await;
    let (status, body) = world.call(Method::GET, "/v1/models", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_snapshot!("models", body);
    drop(node);
    let (status, body) = world.send(Method::GET, "/healthz", None, &[], "").await;
    assert_eq!((status, &body["network"]), (StatusCode::OK, &json!("practice")));
}

#[tokio::test]
async fn requests_without_a_key_are_refused_with_a_hint() {
    let world = World::new().await;
    let wrong = "nrn-0000000000000000000000000000000000000000000000000000000000000000";
    let missing = "/v1/jobs/00000000-0000-0000-0000-000000000000";
    for (method, path) in [
        (Method::POST, "/v1/chat/completions"),
        (Method::GET, "/v1/models"),
        (Method::POST, "/v1/jobs"),
        (Method::GET, missing),
    ] {
        for key in [None, Some(wrong)] {
            let (status, body) = world.send(method.clone(), path, key, &[], "{}").await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert!(body.to_string().contains("Authorization: Bearer"), "{body}");
        }
    }
    let (_, body) = world.send(Method::GET, "/v1/models", None, &[], "").await;
    assert_snapshot!("no_key", body);
}

#[tokio::test]
async fn malformed_json_is_a_typed_400_on_every_endpoint() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [&str; 9] = [
        "",
        "{",
        "nonsense",
        "[]",
        "\"text\"",
        "{\"a\":1}",
        "\u{feff}{}",
        "{\"model\":1e999}",
        &deep,
    ];
    for (method, path) in ENDPOINTS {
        let token = if path == "/v1/node/exchange" {
            open_poll(&world).await
        } else {
            world.api_key.clone()
        };
        for body in bodies {
            let (status, answer) =
                world.send(method.clone(), path, Some(&token), &[], body.to_owned()).await;
            let shown: String = body.chars().take(20).collect();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {shown}: {answer}");
            let openai = !path.starts_with("/v1/node");
            let codes = ["invalid_request", "invalid_type", "missing_required_parameter"];
            let named = ["/v1/chat", "/v1/images", "/v1/jobs"];
            let names_fields = named.iter().any(|route| path.starts_with(route));
            let known = if names_fields { &codes[..] } else { &codes[..1] };
            assert!(known.contains(&code(&answer)), "{path} {shown}: {answer}");
            assert_eq!(answer["error"].is_object(), openai, "{path} has its own shape");
            let words = answer.to_string();
            for foreign in ["struct", "enum", "invalid type", "JobSpec"] {
                assert!(!words.contains(foreign), "{path} {shown}: {answer}");
            }
        }
        let invalid_utf8 = vec![b'{', b'"', 0xff, b'"', b'}'];
        let (status, _) = world.send(method, path, Some(&token), &[], invalid_utf8).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
    }
}

/// The token of a fresh long-poll session.
async fn open_poll(world: &World) -> String {
    let (_, opened) = crate::links::open_session(world, &crate::node::Identity::new("poll")).await;
    opened["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn oversize_bodies_are_a_typed_413_on_every_endpoint() {
    let world = World::new().await;
    for (method, path) in ENDPOINTS {
        // Nodes hand in pictures.
        let (token, bytes) = if path == "/v1/node/exchange" {
            (open_poll(&world).await, 21 << 20)
        } else {
            (world.api_key.clone(), 1 << 20)
        };
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
        let (status, body) = world.send(method, path, Some(&token), &[], big).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert_eq!(code(&body), "too_large", "{path}");
        assert_eq!(body["error"].is_object(), !path.starts_with("/v1/node"), "{path}: {body}");
    }
    let prompt = "x".repeat(300 << 10);
    let (status, body) = world.chat(|b| b["messages"][0]["content"] = json!(prompt)).await;
    assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    assert!(!body.to_string().contains("xxxx"), "an error does not repeat the prompt");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_typed() {
    let world = World::new().await;
    for (method, path, status, openai) in [
        (Method::GET, "/nowhere", 404, true),
        (Method::POST, "/v1/completions", 404, true),
        (Method::POST, "/chat/completions", 404, true),
        (Method::POST, "/v1", 404, true),
        (Method::GET, "/v1/models/x", 404, true),
        (Method::DELETE, "/v1/jobs", 405, true),
        (Method::GET, "/v1/chat/completions", 405, true),
        (Method::GET, "/v1/images/generations", 405, true),
        (Method::GET, "/v1/images/nothing.png", 404, true),
        (Method::GET, "/v1/images/%ff", 404, true),
        (Method::GET, "/v1/node/session", 405, false),
        (Method::GET, "/v1/node/link", 400, false),
        (Method::GET, "/v1/node/nowhere", 404, false),
        (Method::GET, "/v1/jobs/not-an-id", 404, true),
        (Method::GET, "/v1/jobs/%ff", 404, true),
    ] {
        let (found, body) = world.call(method, path, Value::Null).await;
        assert_eq!(found.as_u16(), status, "{path}");
        assert_eq!(body["error"].is_object(), openai, "{path}: {body}");
        assert!(
            ["not_found", "invalid_request", "model_not_found"].contains(&code(&body)),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn an_unknown_model_names_what_there_is() {
    let world = World::new().await;
    let (status, body) = world.chat(|b| b["model"] = json!("gpt-9")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_snapshot!("unknown_model", body);
    let _node = Node::ready(&world.coordinator).await;
    eventually("the error lists what is served", async || {
        let (_, body) = world.chat(|b| b["model"] = json!("gpt-9")).await;
        body["error"]["message"].as_str().unwrap().ends_with(&format!("served right now: {MODEL}"))
    })
    .await;
}

#[tokio::test]
async fn a_model_of_ones_own_is_known_while_a_node_serves_it() {
    let world = World::new().await;
    let own = "my-own-model";
    let (status, _) = world.chat(|b| b["model"] = json!(own)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let node = crate::node::Identity::new("rig1").connect(&world.coordinator).await;
    node.announce(&[own], 1).await;
    eventually("it is listed", async || {
        let (_, body) = world.call(Method::GET, "/v1/models/my-own-model", Value::Null).await;
        body["nodes"] == 1
    })
    .await;
    let _working = node.work(&["Hello"]);
    let (status, body) = world.chat(|b| b["model"] = json!(own)).await;
    assert_eq!((status, &body["model"]), (StatusCode::OK, &json!(own)));
    world.assert_books_hold().await;
}

/// A request for a model that is known and that nobody serves: its answer, and how long that took.
async fn unserved(world: &World, headers: &[(&str, &str)]) -> (Value, Duration) {
    let asked = std::time::Instant::now();
    let body = chat_body(|b| b["model"] = json!(OTHER_MODEL)).to_string();
    let path = "/v1/chat/completions";
    let answer = world.raw(Method::POST, path, Some(&world.api_key), headers, body).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "5");
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(code(&body), "no_node_available");
    (body, asked.elapsed())
}

#[tokio::test]
async fn a_known_model_that_nobody_serves_fails_soon_and_costs_nothing() {
    let limits =
        neurino_coordinator::Limits { chat_no_node_wait_ms: 6_000, ..crate::world::short_limits() };
    let world = World::with(limits).await;
    let _node = Node::ready(&world.coordinator).await;
    eventually("the node is ready", async || {
        world.coordinator.jobs_overview().models.values().sum::<usize>() == 1
    })
    .await;
    let (body, waited) = unserved(&world, &[]).await;
    assert!(waited < Duration::from_millis(1_500), "{waited:?}");
    let words = body["error"]["message"].as_str().unwrap();
    assert!(words.contains("nobody on the network serves this model"), "{words}");
    // Who says so waits for longer.
    let (_, waited) = unserved(&world, &[("prefer", "wait=2")]).await;
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    let check = world.coordinator.ledger_check().await.unwrap();
    assert_eq!((check.receipts, check.jobs["failed"]), (0, 2));
    assert!(check.balances.is_empty());
}

#[tokio::test]
async fn a_node_that_is_connecting_is_waited_for() {
    let limits =
        neurino_coordinator::Limits { chat_no_node_wait_ms: 6_000, ..crate::world::short_limits() };
    let world = World::with(limits).await;
    let connect = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // In a tuple: the task is kept, not waited for.
        (Node::ready(&world.coordinator).await.work(&["Hello"]),)
    };
    let ((status, _), _working) = tokio::join!(world.chat(|_| {}), connect);
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_a_400_also_when_streaming() {
    let world = World::new().await;
    for stream in [false, true] {
        let mut node = Node::ready(&world.coordinator).await;
        let chat = world.chat(|b| b["stream"] = json!(stream));
        let refuse = async {
            let lease = node.lease().await;
            node.fail(lease.id, ErrorCode::ContextTooLong).await;
        };
        let ((status, body), ()) = tokio::join!(chat, refuse);
        assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "context_length_exceeded"));
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn before_the_first_token_a_failed_attempt_is_repeated_silently() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let serve = async {
        let first = node.lease().await;
        node.fail(first.id, ErrorCode::EngineFailed).await;
        let second = node.lease().await;
        assert!(second.fence > first.fence);
        node.stream(&second, "fine").await;
        node.submit(&second, output("fine", 1)).await;
        node.settled().await;
    };
    let (events, ()) = tokio::join!(world.chat_stream(|_| {}), serve);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert!(events.iter().any(|e| e.contains("fine")));
}

#[tokio::test]
async fn after_the_first_token_a_failed_attempt_ends_the_stream_and_costs_nothing() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let serve = async {
        let lease = node.lease().await;
        node.stream(&lease, "half an ans").await;
        // The piece must be on its way before the attempt ends.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        node.fail(lease.id, ErrorCode::EngineFailed).await;
    };
    let (events, ()) = tokio::join!(world.chat_stream(|_| {}), serve);
    assert!(events[1].contains("half an ans"));
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_snapshot!("stream_error", last);
    eventually("the job is withdrawn", async || {
        let jobs = world.coordinator.ledger_check().await.unwrap().jobs;
        jobs.get("cancelled") == Some(&1)
    })
    .await;
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 0);
}

#[tokio::test]
async fn a_client_that_goes_away_withdraws_its_job() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    // Not streamed: the request itself is dropped.
    let lease = tokio::select! {
        _ = world.chat(|_| {}) => panic!("nobody answered"),
        lease = node.lease() => lease,
    };
    assert_eq!(node.cancelled().await, (lease.id, ErrorCode::Cancelled));
    node.submit(&lease, output("late", 1)).await;
    assert_eq!(node.rejected().await, ErrorCode::Cancelled);
    // Streamed: the body is dropped after the first piece.
    let body = chat_body(|b| b["stream"] = json!(true)).to_string();
    let request = world.raw(Method::POST, "/v1/chat/completions", Some(&world.api_key), &[], body);
    let serve = async {
        let lease = node.lease().await;
        node.stream(&lease, "first").await;
        lease
    };
    let (response, lease) = tokio::join!(request, serve);
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);
    assert_eq!(node.cancelled().await, (lease.id, ErrorCode::Cancelled));
    let check = world.coordinator.ledger_check().await.unwrap();
    assert_eq!((check.receipts, check.jobs["cancelled"]), (0, 2));
}

#[tokio::test]
async fn a_full_queue_is_a_429_with_retry_after() {
    let limits = neurino_coordinator::Limits { open_jobs_max: 1, ..crate::world::short_limits() };
    let world = World::with(limits).await;
    world.submit("first").await;
    let body = chat_body(|_| {}).to_string();
    let response =
        world.raw(Method::POST, "/v1/chat/completions", Some(&world.api_key), &[], body).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "5");
}

#[tokio::test]
async fn a_real_socket_serves_and_stops() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let (coordinator, stopping) = (world.coordinator.clone(), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let _working = Node::ready(&world.coordinator).await.work(&["Hello"]);
    let client = reqwest::Client::new();
    let answer = client
        .post(format!("{url}/v1/chat/completions"))
        .bearer_auth(&world.api_key)
        .json(&chat_body(|b| b["stream"] = json!(true)))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let events = events(&answer.text().await.unwrap());
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    // Declared far too large: refused before it is sent.
    let answer = client
        .post(format!("{url}/v1/jobs"))
        .bearer_auth(&world.api_key)
        .body(vec![b'x'; 3 << 20])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 413);
    stop.cancel();
    server.await.unwrap().unwrap();
    assert!(client.get(format!("{url}/healthz")).send().await.is_err());
}

#[tokio::test]
async fn who_speaks_too_slowly_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let limits =
        neurino_coordinator::Limits { request_read_ms: 300, ..crate::world::short_limits() };
    let world = World::with(limits).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (coordinator, stopping) = (world.coordinator.clone(), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let answer_to = async |sent: String| {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = socket.read_to_string(&mut answer);
        let _ = tokio::time::timeout(crate::world::PATIENCE, reading).await.expect("cut off");
        answer
    };
    // Nobody speaks at all, or speaks HTTP/2, which these limits would not hold for.
    assert_eq!(answer_to(String::new()).await, "");
    let answer = answer_to("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // A head that never ends, and a body that never comes.
    let answer = answer_to("POST /v1/jobs HTTP/1.1\r\nhost: x\r\n".into()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"));
    let key = &world.api_key;
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         connection: close\r\ncontent-length: 10\r\n\r\n{{"
    );
    let answer = answer_to(head).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("did not arrive"), "{answer}");
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_reads_nothing_of_its_answers_loses_its_connection() {
    use tokio::io::AsyncWriteExt as _;
    let limits =
        neurino_coordinator::Limits { response_write_ms: 300, ..crate::world::short_limits() };
    let world = World::with(limits).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (coordinator, stopping) = (world.coordinator.clone(), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let mut deaf = tokio::net::TcpStream::connect(address).await.unwrap();
    let asking = async {
        while deaf.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {}
    };
    let ended = tokio::time::timeout(crate::world::PATIENCE, asking).await;
    assert!(ended.is_ok(), "its answers are kept for ever");
    stop.cancel();
    server.await.unwrap().unwrap();
}
