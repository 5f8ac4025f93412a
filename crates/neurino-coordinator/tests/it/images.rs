//! `POST /v1/images/generations`: pictures in OpenAI's form.

use axum::http::{Method, StatusCode};
use neurino_coordinator::Limits;
use neurino_core::{ImageJob, JobOutput, Png};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::CoordinatorMessage;
use serde_json::{Value, json};

use crate::node::Node;
use crate::pictures::{PAINTER, asked, painter, picture, png_of, step};
use crate::world::{MODEL, World, code, eventually, short_limits};

const PATH: &str = "/v1/images/generations";

fn body(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({ "model": PAINTER, "prompt": "a lighthouse", "seed": 7 });
    change(&mut body);
    body
}

async fn paint(world: &World, change: impl FnOnce(&mut Value)) -> (StatusCode, Value) {
    world.call(Method::POST, PATH, body(change)).await
}

/// Paints every job it gets, in a task of its own.
fn work(mut node: Node) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(message) = node.session.messages.recv().await {
            if let CoordinatorMessage::Assign(lease) = message {
                node.submit(&lease, picture(asked(&lease))).await;
            }
        }
    })
}

fn file(output: JobOutput) -> Png {
    match output {
        JobOutput::Image(picture) => picture.png,
        JobOutput::Text(_) => panic!("a text"),
    }
}

fn with_seed(seed: u64) -> Png {
    file(picture(&crate::pictures::job(seed)))
}

#[tokio::test]
async fn a_picture_is_answered_with_what_suits_its_model() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let serve = async {
        let lease = node.lease().await;
        node.submit(&lease, picture(asked(&lease))).await;
        node.settled().await;
        lease
    };
    let ((status, answer), lease) = tokio::join!(paint(&world, |_| {}), serve);
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(*asked(&lease), crate::pictures::job(7), "the model's usual, and no previews");
    assert_eq!(answer["data"][0]["b64_json"], json!(with_seed(7)));
    assert_snapshot!("image", answer, { ".created" => "[seconds]", ".data[].b64_json" => "[png]" });
    world.assert_books_hold().await;
}

/// The texts of a file, and its pixels.
fn read(file: &Png) -> (Vec<(String, String)>, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(&file.0)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let texts = reader.info().utf8_text.iter();
    assert!(reader.info().uncompressed_latin1_text.is_empty());
    (texts.map(|text| (text.keyword.clone(), text.get_text().unwrap())).collect(), pixels)
}

#[tokio::test]
async fn a_file_says_what_it_was_made_with_only_if_that_is_asked_for() {
    let world = World::new().await;
    let _working = work(painter(&world.coordinator, 2).await);
    let as_file = |json: &Value| serde_json::from_value::<Png>(json.clone()).unwrap();
    let (texts, pixels) = read(&with_seed(7));
    assert_eq!(texts, [], "what a node sends");
    let (_, plain) = paint(&world, |_| {}).await;
    assert_eq!(as_file(&plain["data"][0]["b64_json"]), with_seed(7));

    let prompt = "ein Leuchtturm \u{1f5fc} bei Nacht";
    let (status, told) = paint(&world, |body| {
        body["prompt"] = json!(prompt);
        body["embed_settings"] = json!(true);
        body["n"] = json!(2);
    })
    .await;
    assert_eq!(status, StatusCode::OK, "{told}");
    for (at, seed) in [(0, 7), (1, 8)] {
        let (texts, found) = read(&as_file(&told["data"][at]["b64_json"]));
        let job = ImageJob { prompt: prompt.into(), ..crate::pictures::job(seed) };
        assert_eq!(
            texts,
            [("parameters".to_owned(), job.settings_text(Some("DPM++ 2M SDE Karras")))]
        );
        assert_eq!(found, read(&with_seed(seed)).1, "the same picture");
    }

    let (stream, link) = (body(|b| b["stream"] = json!(true)), body(|_| {}));
    for (mut request, status) in [(stream, StatusCode::OK), (link, StatusCode::BAD_REQUEST)] {
        request["embed_settings"] = json!(true);
        if status != StatusCode::OK {
            request["response_format"] = json!("url");
        }
        let key = Some(world.api_key.as_str());
        let response = world.raw(Method::POST, PATH, key, &[], request.to_string()).await;
        assert_eq!(response.status(), status);
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        if status == StatusCode::OK {
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let event: Value = serde_json::from_str(data).unwrap();
            let (texts, found) = read(&as_file(&event["b64_json"]));
            assert_eq!((texts.len(), found), (1, pixels.clone()));
        }
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_repeated_request_finds_its_picture_also_where_nobody_has_its_model_yet() {
    let mut world = World::with(Limits { reconnect_grace_ms: 600_000, ..short_limits() }).await;
    let mut node = painter(&world.coordinator, 1).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "picture-1")];
    let ask = async |world: &World, change: fn(&mut Value)| {
        let key = Some(&*world.api_key);
        world.send(Method::POST, PATH, key, &headers, body(change).to_string()).await
    };
    let serve = async {
        let lease = node.lease().await;
        node.submit(&lease, picture(asked(&lease))).await;
        node.settled().await;
    };
    let ((status, answer), ()) = tokio::join!(ask(&world, |_| {}), serve);
    assert_eq!(status, StatusCode::OK, "{answer}");
    drop(node);
    // Another coordinator, to which no node has come, and another second.
    world.restart().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let (status, again) = ask(&world, |_| {}).await;
    assert_eq!(status, StatusCode::OK, "{again}");
    assert_eq!(again["data"][0]["b64_json"], answer["data"][0]["b64_json"]);
    assert_eq!(again["created"], answer["created"]);
    let (status, other) = ask(&world, |body| body["prompt"] = json!("a harbour")).await;
    // Whoever has its model may be on the way.
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{other}");
    world.assert_books_hold().await;
}

#[tokio::test]
async fn parameters_reach_the_node() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let serve = async {
        let lease = node.lease().await;
        node.submit(&lease, picture(asked(&lease))).await;
        lease
    };
    let request = paint(&world, |body| {
        body["size"] = json!("40x64");
        body["steps"] = json!(9);
        body["guidance"] = json!(1.5);
        body["negative_prompt"] = json!("rain");
        body["seed"] = json!(-1);
    });
    let ((status, answer), lease) = tokio::join!(request, serve);
    assert_eq!((status, &answer["size"]), (StatusCode::OK, &json!("40x64")));
    let expected = ImageJob {
        width: 40,
        height: 64,
        steps: 9,
        guidance: 1.5,
        negative_prompt: "rain".into(),
        ..crate::pictures::job(u64::MAX)
    };
    assert_eq!(*asked(&lease), expected);
}

#[tokio::test]
async fn several_pictures_have_seeds_in_a_row_and_come_in_order() {
    let world = World::new().await;
    let _working = work(painter(&world.coordinator, 2).await);
    let (status, answer) = paint(&world, |body| body["n"] = json!(3)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let data = answer["data"].as_array().unwrap();
    let expected: Vec<Value> =
        (7..10).map(|seed| json!({ "b64_json": with_seed(seed), "seed": seed })).collect();
    assert_eq!(*data, expected);
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 3);
}

#[tokio::test]
async fn one_picture_that_fails_has_the_others_withdrawn() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 3).await;
    let serve = async {
        let (first, second, third) = (node.lease().await, node.lease().await, node.lease().await);
        node.fail(second.id, ErrorCode::InvalidRequest).await;
        let mut withdrawn = [node.cancelled().await, node.cancelled().await];
        withdrawn.sort_by_key(|(lease, _)| *lease != first.id);
        assert_eq!(withdrawn.map(|(lease, _)| lease), [first.id, third.id]);
    };
    let request = paint(&world, |body| body["n"] = json!(3));
    let ((status, answer), ()) = tokio::join!(request, serve);
    assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "invalid_request"));
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 0);
}

#[tokio::test]
async fn what_is_paid_for_is_answered_although_another_picture_failed() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 3).await;
    let serve = async {
        let (first, second, third) = (node.lease().await, node.lease().await, node.lease().await);
        let pay = async |node: &mut Node, lease| {
            node.submit(lease, picture(asked(lease))).await;
            node.settled().await;
        };
        pay(&mut node, &second).await;
        node.fail(first.id, ErrorCode::InvalidRequest).await;
        pay(&mut node, &third).await;
    };
    let request = paint(&world, |body| body["n"] = json!(3));
    let ((status, answer), ()) = tokio::join!(request, serve);
    assert_eq!(status, StatusCode::OK, "{answer}");
    let made = |seed| json!({ "b64_json": with_seed(seed), "seed": seed });
    assert_eq!(answer["data"], json!([made(8), made(9)]));
    let failed = answer["failed"].as_array().unwrap();
    assert_eq!((failed.len(), &failed[0]["index"]), (1, &json!(0)));
    assert_eq!(failed[0]["code"], "invalid_request");
    assert_eq!(world.coordinator.ledger_check().await.unwrap().receipts, 2);
}

#[tokio::test]
async fn a_link_shows_the_picture_to_whoever_has_it_also_after_a_restart() {
    let mut world = World::new().await;
    let _working = work(painter(&world.coordinator, 1).await);
    let request = body(|body| body["response_format"] = json!("url")).to_string();
    let host = [("host", "paint.example:8443"), ("x-forwarded-proto", "https")];
    let (status, answer) =
        world.send(Method::POST, PATH, Some(&world.api_key), &host, request).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let url = answer["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix("https://paint.example:8443").unwrap().to_owned();
    assert!(path.starts_with("/v1/images/") && path.split('.').nth(1) == Some("png"), "{path}");
    for _ in 0..2 {
        let response = world.raw(Method::GET, &path, None, &[], "").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "image/png");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        assert_eq!(bytes, with_seed(7).0);
        world.restart().await;
    }
    let guessed = path.replace(".png", "0.png");
    let (status, answer) = world.call(Method::GET, &guessed, Value::Null).await;
    assert_eq!((status, code(&answer)), (StatusCode::NOT_FOUND, "not_found"));
    world.forget_payloads().await;
    eventually("the picture is deleted", async || {
        world.raw(Method::GET, &path, None, &[], "").await.status() == StatusCode::GONE
    })
    .await;
    let (_, answer) = world.call(Method::GET, &path, Value::Null).await;
    assert_eq!(code(&answer), "payload_shredded");
}

#[tokio::test]
async fn a_link_expires() {
    let limits = Limits { picture_link_ms: 0, ..short_limits() };
    let world = World::with(limits).await;
    let _working = work(painter(&world.coordinator, 1).await);
    let (_, answer) = paint(&world, |body| body["response_format"] = json!("url")).await;
    let url = answer["data"][0]["url"].as_str().unwrap();
    let path = url.split_once("localhost").unwrap().1;
    let (status, answer) = world.call(Method::GET, path, Value::Null).await;
    assert_eq!((status, code(&answer)), (StatusCode::NOT_FOUND, "not_found"));
    assert!(answer["error"]["message"].as_str().unwrap().contains("expired"));
}

/// The events of a streamed picture: their names, and their data.
async fn streamed(world: &World, partial_images: u32) -> Vec<(String, Value)> {
    let request = body(|body| {
        body["stream"] = json!(true);
        body["partial_images"] = json!(partial_images);
    });
    let response =
        world.raw(Method::POST, PATH, Some(&world.api_key), &[], request.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let event = |event: &str| {
        let mut fields: Vec<_> = event.lines().filter_map(|line| line.split_once(": ")).collect();
        fields.sort_unstable();
        match fields[..] {
            [("data", data), ("event", name)] => (name.into(), serde_json::from_str(data).unwrap()),
            [("data", data)] => (String::new(), serde_json::from_str(data).unwrap()),
            _ => panic!("{event}"),
        }
    };
    text.split("\n\n").filter(|e| !e.is_empty()).map(event).collect()
}

fn small(shade: u8) -> Png {
    png_of(8, 6, png::ColorType::Rgb, shade)
}

#[tokio::test]
async fn a_streamed_picture_shows_its_way_and_then_itself() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let serve = async {
        let lease = node.lease().await;
        assert!(asked(&lease).preview);
        for n in 1..=asked(&lease).steps {
            step(&node, &lease, n, Some(small(n as u8))).await;
            // Each is seen before the next one replaces it.
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        node.submit(&lease, picture(asked(&lease))).await;
    };
    let (events, ()) = tokio::join!(streamed(&world, 1), serve);
    // Four steps, one preview: in the middle of the way.
    let [(first, preview), (last, completed)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(first, "image_generation.partial_image");
    assert_eq!(preview["b64_json"], json!(small(2)));
    assert_eq!(last, "image_generation.completed");
    assert_eq!(completed["b64_json"], json!(with_seed(7)));
    assert_snapshot!("image_events", [preview, completed], {
        "[].created_at" => "[seconds]", "[].b64_json" => "[png]",
    });
}

#[tokio::test]
async fn a_stream_without_previews_asks_for_none_and_survives_a_failed_attempt() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let serve = async {
        let lease = node.lease().await;
        assert!(!asked(&lease).preview);
        step(&node, &lease, 1, Some(small(1))).await;
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        node.fail(lease.id, ErrorCode::EngineFailed).await;
        let again = node.lease().await;
        node.submit(&again, picture(asked(&again))).await;
        node.settled().await;
    };
    let (events, ()) = tokio::join!(streamed(&world, 0), serve);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["image_generation.completed"]);
}

#[tokio::test]
async fn a_stream_that_has_begun_ends_with_the_error() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 1).await;
    let serve = async {
        let lease = node.lease().await;
        step(&node, &lease, 2, Some(small(1))).await;
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        node.fail(lease.id, ErrorCode::InvalidRequest).await;
    };
    let (events, ()) = tokio::join!(streamed(&world, 1), serve);
    let [(_, preview), (name, error)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&preview["b64_json"], name.as_str()), (&json!(small(1)), ""));
    assert_eq!(code(error), "invalid_request");
}

#[tokio::test]
async fn a_client_that_goes_away_withdraws_all_its_pictures() {
    let world = World::new().await;
    let mut node = painter(&world.coordinator, 2).await;
    let leases = tokio::select! {
        _ = paint(&world, |body| body["n"] = json!(2)) => panic!("nobody answered"),
        leases = async { [node.lease().await.id, node.lease().await.id] } => leases,
    };
    let withdrawn = [node.cancelled().await, node.cancelled().await];
    for (lease, code) in withdrawn {
        assert!(leases.contains(&lease) && code == ErrorCode::Cancelled);
    }
    // Streamed: the body is dropped after the first preview.
    let request = body(|body| {
        body["stream"] = json!(true);
        body["partial_images"] = json!(1);
    });
    let response = world.raw(Method::POST, PATH, Some(&world.api_key), &[], request.to_string());
    let serve = async {
        let lease = node.lease().await;
        step(&node, &lease, 2, Some(small(1))).await;
        lease
    };
    let (response, lease) = tokio::join!(response, serve);
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);
    assert_eq!(node.cancelled().await, (lease.id, ErrorCode::Cancelled));
    let check = world.coordinator.ledger_check().await.unwrap();
    assert_eq!((check.receipts, check.jobs["cancelled"]), (0, 3));
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_by_name() {
    let world = World::new().await;
    let check = async |change: &dyn Fn(&mut Value), status: u16, code: &str, param: Value| {
        let (found, answer) = paint(&world, change).await;
        let error = &answer["error"];
        assert_eq!(found.as_u16(), status, "{answer}");
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &param), "{answer}");
        assert!(!answer.to_string().contains("lighthouse"), "an error does not repeat the prompt");
    };
    check(&|_| {}, 404, "model_not_found", json!("model")).await;
    check(&|b| b["model"] = json!(MODEL), 400, "invalid_value", json!("model")).await;
    let _node = painter(&world.coordinator, 1).await;
    check(&|b| b["n"] = json!(5), 400, "invalid_value", json!("n")).await;
    check(&|b| b["size"] = json!("65x64"), 400, "invalid_value", json!("size")).await;
    check(&|b| b["prompt"] = Value::Null, 400, "missing_required_parameter", json!("prompt")).await;
    check(&|b| b["seed"] = json!("x"), 400, "invalid_type", json!("seed")).await;
    check(&|b| b["quality"] = json!("hd"), 400, "unsupported_parameter", json!("quality")).await;
    // And a chat with what paints.
    let (status, answer) = world.chat(|body| body["model"] = json!(PAINTER)).await;
    assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, "invalid_value"));
    assert_eq!(answer["error"]["param"], "model");
    let words = answer["error"]["message"].as_str().unwrap();
    assert!(
        words.contains("makes pictures") && words.contains("/v1/images/generations"),
        "{words}"
    );
}

#[tokio::test]
async fn the_list_of_models_says_what_each_makes() {
    let world = World::new().await;
    let _node = painter(&world.coordinator, 1).await;
    let (_, painter) = world.call(Method::GET, "/v1/models/my-painter", Value::Null).await;
    assert_snapshot!("image_model", painter);
    let path = format!("/v1/models/{MODEL}");
    let (_, writer) = world.call(Method::GET, &path, Value::Null).await;
    assert_eq!((&writer["kind"], writer.get("image")), (&json!("text"), None));
}
