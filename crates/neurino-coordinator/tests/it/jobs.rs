//! Durable jobs over HTTP.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::node::{Node, output};
use crate::world::{MODEL, World, code, eventually, spec};

async fn post(world: &World, key: &str, text: &str) -> (StatusCode, Value) {
    let body = serde_json::to_string(&spec(MODEL, text)).unwrap();
    let headers = [("idempotency-key", key)];
    world.send(Method::POST, "/v1/jobs", Some(&world.api_key), &headers, body).await
}

#[tokio::test]
async fn a_job_is_accepted_done_and_shown() {
    let world = World::new().await;
    let (status, body) = post(&world, "k1", "hi").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let path = format!("/v1/jobs/{}", body["id"].as_str().unwrap());
    let (_, shown) = world.call(Method::GET, &path, Value::Null).await;
    assert_eq!(shown["state"], "queued");
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    let (_, shown) = world.call(Method::GET, &path, Value::Null).await;
    assert_eq!(shown["state"], "leased");
    node.submit(&lease, output("done", 3)).await;
    let receipt = node.settled().await;
    let (_, shown) = world.call(Method::GET, &path, Value::Null).await;
    assert_eq!(shown["receipt"], serde_json::to_value(&receipt).unwrap());
    assert_snapshot!("job_succeeded", shown, {
        ".id" => "[id]", ".created_at_ms" => "[ms]", ".finished_at_ms" => "[ms]",
        ".receipt.event" => "[id]", ".receipt.job" => "[id]", ".receipt.lease" => "[id]",
        ".receipt.node" => "[node]", ".receipt.coordinator" => "[address]",
        ".receipt.signature" => "[signature]", ".receipt.settled_at_ms" => "[ms]",
        ".receipt.duration_ms" => "[ms]",
    });
}

#[tokio::test]
async fn a_repeated_key_is_the_same_job() {
    let world = World::new().await;
    let (_, first) = post(&world, "k1", "hi").await;
    let repeats = futures::future::join_all((0..8).map(|_| post(&world, "k1", "hi"))).await;
    for (status, repeat) in repeats {
        assert_eq!((status, &repeat["id"]), (StatusCode::ACCEPTED, &first["id"]));
    }
    // Eight at once under a new key: one job.
    let fresh = futures::future::join_all((0..8).map(|_| post(&world, "k2", "hi"))).await;
    assert!(fresh.iter().all(|(_, body)| body["id"] == fresh[0].1["id"]));
    let (status, body) = post(&world, "k1", "something else").await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "invalid_request"));
    let check = world.coordinator.ledger_check().await.unwrap();
    assert_eq!(check.jobs["queued"], 2);
    // Another payer's key is another key.
    let other = world.coordinator.create_api_key("other").await.unwrap();
    let body = serde_json::to_string(&spec(MODEL, "hi")).unwrap();
    let headers = [("idempotency-key", "k1")];
    let key = Some(other.expose_secret());
    let (_, theirs) = world.send(Method::POST, "/v1/jobs", key, &headers, body).await;
    assert_ne!(theirs["id"], first["id"]);
    // And another payer's job is no job.
    let path = format!("/v1/jobs/{}", first["id"].as_str().unwrap());
    let (status, _) = world.send(Method::GET, &path, key, &[], "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_jobs_name_their_fault() {
    let world = World::new().await;
    let check = async |change: &dyn Fn(&mut Value), status: u16, expect: &str, word: &str| {
        let mut body = serde_json::to_value(spec(MODEL, "hi")).unwrap();
        change(&mut body);
        let (found, answer) = world.call(Method::POST, "/v1/jobs", body).await;
        assert_eq!((found.as_u16(), code(&answer)), (status, expect), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(word), "{answer}");
    };
    check(&|b| b["max_tokens"] = json!(0), 400, "invalid_value", "max_tokens").await;
    check(&|b| b["max_tokens"] = json!("x"), 400, "invalid_type", "a whole number").await;
    check(&|b| b["kind"] = json!("video"), 400, "invalid_value", "video").await;
    check(&|b| b["messages"] = json!([]), 400, "invalid_value", "messages").await;
    check(&|b| b["model"] = json!("../x y"), 400, "invalid_value", "model id").await;
    let parameters: [(&str, &str, Value); 13] = [
        ("temperature", "temperature", json!(2.1)),
        ("top_p", "top_p", json!(0)),
        ("min_p", "min_p", json!(-0.1)),
        // More than a float holds.
        ("frequency_penalty", "frequency_penalty", json!(1e39)),
        ("presence_penalty", "presence_penalty", json!(-2.5)),
        ("repetition_penalty", "repetition_penalty", json!(1e-30)),
        ("choices", "n", json!(9)),
        ("logprobs", "top_logprobs", json!(21)),
        ("stop", "stop", json!([""])),
        ("logit_bias", "logit_bias", json!([[5, 1.0], [5, 2.0]])),
        ("logit_bias", "logit_bias", json!([[5, 101]])),
        ("tools", "tools", json!([{ "name": "f" }, { "name": "f" }])),
        ("response_format", "response_format", json!({ "type": "json_schema", "schema": 5 })),
    ];
    for (field, param, value) in parameters {
        let mut body = serde_json::to_value(spec(MODEL, "hi")).unwrap();
        let part = if body["sampling"].get(field).is_some() { "sampling" } else { "" };
        if part.is_empty() {
            body[field] = value;
        } else {
            body[part][field] = value;
        }
        let (status, answer) = world.call(Method::POST, "/v1/jobs", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error", "{answer}");
    }
    check(&|b| b["model"] = json!("nobody"), 404, "model_not_found", "nobody").await;
    let long = "k".repeat(201);
    let (status, _) = post(&world, &long, "hi").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = post(&world, "a b", "hi").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_watch_tells_a_job_from_queue_to_receipt() {
    use neurino_coordinator::JobUpdate;
    use neurino_core::TextDelta;

    let world = World::new().await;
    let mut settled = world.coordinator.events();
    let job = world.submit("hi").await;
    let mut watch = world.coordinator.watch_job(job).await.unwrap();
    assert_eq!(watch.next().await, Some(JobUpdate::Queued));
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    assert_eq!(watch.next().await, Some(JobUpdate::Leased { node: node.identity.id.clone() }));
    node.stream(&lease, "one ").await;
    assert_eq!(watch.next().await, Some(JobUpdate::Delta(TextDelta::text("one "))));
    node.submit(&lease, output("one two", 2)).await;
    let receipt = Box::new(node.settled().await);
    assert_eq!(watch.next().await, Some(JobUpdate::Delta(TextDelta::text("two"))));
    let output = output("one two", 2);
    let finished = JobUpdate::Finished { output, receipt: receipt.clone() };
    assert_eq!(watch.next().await, Some(finished.clone()));
    assert_eq!(watch.next().await, None);
    // Somebody who comes later gets the end.
    let mut late = world.coordinator.watch_job(job).await.unwrap();
    assert_eq!(late.next().await, Some(finished));
    assert_eq!(settled.recv().await.unwrap(), *receipt);
    let listed = world.coordinator.receipts(Some(&node.identity.id), None, 10).await.unwrap();
    assert_eq!(listed, [*receipt]);
    assert!(!world.coordinator.cancel_job(job).await.unwrap(), "a paid job stays paid");
}

#[tokio::test]
async fn old_prompts_and_answers_are_deleted_and_receipts_kept() {
    let limits = neurino_coordinator::Limits {
        payload_keep_ms: 0,
        disputed_keep_ms: 0,
        ..crate::world::short_limits()
    };
    let mut world = World::with(limits).await;
    let (_, body) = post(&world, "k1", "a secret").await;
    let mut node = Node::ready(&world.coordinator).await;
    let lease = node.lease().await;
    node.submit(&lease, output("an answer", 3)).await;
    node.settled().await;
    // Deletion runs when the books are opened, and every hour.
    world.restart().await;
    let path = format!("/v1/jobs/{}", body["id"].as_str().unwrap());
    eventually("the answer is deleted", async || {
        let (_, shown) = world.call(Method::GET, &path, Value::Null).await;
        assert_eq!(shown["state"], "succeeded");
        assert!(shown["receipt"].is_object());
        shown["output"].is_null() && shown["payload_shredded"] == true
    })
    .await;
    world.assert_books_hold().await;
}
