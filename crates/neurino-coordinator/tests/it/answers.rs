//! Several answers, function calls and log-probabilities on their way from a node to a client.

use axum::http::{Method, StatusCode};
use neurino_core::{
    FinishReason, JobOutput, MicroPoints, RatedToken, TextChoice, TextDelta, TextOutput,
    TokenLogprob, ToolCall, Usage,
};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::NodeMessage;
use serde_json::{Value, json};

use crate::node::Node;
use crate::world::{MODEL, World, chat_body, code};

fn call(id: &str) -> ToolCall {
    ToolCall { id: id.into(), name: "f".into(), arguments: "{\"a\":1}".into() }
}

fn calling(calls: &[&str]) -> TextChoice {
    let tool_calls = calls.iter().map(|id| call(id)).collect();
    TextChoice { tool_calls, ..TextChoice::new("", FinishReason::ToolCalls) }
}

fn rated(text: &str, logprob: f32) -> TokenLogprob {
    let token = |bytes: &[u8], logprob| RatedToken { bytes: bytes.to_vec(), logprob };
    let chosen = token(text.as_bytes(), logprob);
    TokenLogprob { top: vec![chosen.clone(), token(&[0xff], -4.0)], chosen }
}

fn result(choices: Vec<TextChoice>, completion_tokens: u32) -> JobOutput {
    let usage = Usage { prompt_tokens: 10, completion_tokens };
    JobOutput::Text(TextOutput { choices, usage, precision: None })
}

fn texts(texts: &[&str]) -> Vec<TextChoice> {
    texts.iter().map(|text| TextChoice::new(*text, FinishReason::Stop)).collect()
}

fn with_tool(body: &mut Value) {
    body["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
}

fn of(choice: u32, text: &str) -> TextDelta {
    TextDelta { choice, ..TextDelta::text(text) }
}

/// Streams the pieces and submits the result of one job; returns what was paid.
async fn serve(node: &mut Node, deltas: Vec<TextDelta>, output: JobOutput) -> MicroPoints {
    let lease = node.lease().await;
    if !deltas.is_empty() {
        node.say(NodeMessage::Progress { lease: lease.id, deltas, tokens: 1, step: None }).await;
    }
    node.submit(&lease, output).await;
    node.settled().await.quote.amount_micro
}

fn chunks(events: &[String]) -> Vec<Value> {
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn several_answers_are_told_apart_and_the_prompt_is_paid_once() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let chat = world.chat(|body| body["n"] = json!(2));
    let done = serve(&mut node, vec![], result(texts(&["one", "two"]), 7));
    let ((status, body), paid) = tokio::join!(chat, done);
    assert_eq!((status, paid), (StatusCode::OK, MicroPoints(17_000)));
    let said = |at: usize| &body["choices"][at]["message"]["content"];
    assert_eq!((said(0), said(1)), (&json!("one"), &json!("two")));
    assert_eq!(body["usage"]["total_tokens"], 17);

    let chat = world.chat_stream(|body| body["n"] = json!(2));
    let pieces = vec![of(1, "t"), of(0, "on")];
    let (events, _) =
        tokio::join!(chat, serve(&mut node, pieces, result(texts(&["one", "two"]), 7)));
    let mut said = [String::new(), String::new()];
    let mut ends = [0, 0];
    for chunk in chunks(&events) {
        let choice = &chunk["choices"][0];
        let at = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        if choice["delta"]["role"] == "assistant" {
            assert!(said[at].is_empty(), "the role comes first");
        }
        said[at] += choice["delta"]["content"].as_str().unwrap_or("");
        ends[at] += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!((said, ends), (["one".into(), "two".into()], [1, 1]));
    world.assert_books_hold().await;
}

#[tokio::test]
async fn function_calls_are_answered_in_openais_form() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let chat = world.chat(with_tool);
    let done = serve(&mut node, vec![], result(vec![calling(&["c1", "c2"])], 9));
    let ((status, body), _) = tokio::join!(chat, done);
    assert_eq!(status, StatusCode::OK);
    assert_snapshot!("tool_calls", body["choices"]);

    let alone = |body: &mut Value| {
        with_tool(body);
        body["parallel_tool_calls"] = json!(false);
    };
    let done = serve(&mut node, vec![], result(vec![calling(&["c1", "c2"])], 9));
    let ((_, body), _) = tokio::join!(world.chat(alone), done);
    let calls = body["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1, "of several calls one is told");

    // Streamed: the first as a piece, the second with the result.
    for (parallel, expect) in [(true, vec![0, 1]), (false, vec![0])] {
        let chat = world.chat_stream(|body| {
            with_tool(body);
            body["parallel_tool_calls"] = json!(parallel);
        });
        let piece = TextDelta { tool_calls: vec![call("c1")], ..TextDelta::default() };
        let done = serve(&mut node, vec![piece], result(vec![calling(&["c1", "c2"])], 9));
        let (events, _) = tokio::join!(chat, done);
        let chunks = chunks(&events);
        assert_eq!(chunks[0]["choices"][0]["delta"]["content"], Value::Null);
        let calls: Vec<&Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array())
            .flatten()
            .collect();
        let places: Vec<_> = calls.iter().map(|call| call["index"].as_i64().unwrap()).collect();
        assert_eq!(places, expect);
        assert_eq!(calls[0]["function"], json!({ "name": "f", "arguments": "{\"a\":1}" }));
        let end = chunks.last().unwrap();
        assert_eq!(end["choices"][0]["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn log_probabilities_are_passed_on() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let asked = |body: &mut Value| {
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(2);
    };
    let answer = || {
        let logprobs = Some(vec![rated("Hel", -0.25), rated("lo", -0.5)]);
        result(vec![TextChoice { logprobs, ..TextChoice::new("Hello", FinishReason::Stop) }], 2)
    };
    let ((status, body), _) = tokio::join!(world.chat(asked), serve(&mut node, vec![], answer()));
    assert_eq!(status, StatusCode::OK);
    assert_snapshot!("logprobs", body["choices"][0]["logprobs"]);
    // Streamed, the text held back while its tokens are told already.
    let early = TextDelta { logprobs: vec![rated("Hel", -0.25)], ..TextDelta::default() };
    let (events, _) =
        tokio::join!(world.chat_stream(asked), serve(&mut node, vec![early], answer()));
    let told: Vec<Value> = chunks(&events)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(Value::from(told), body["choices"][0]["logprobs"]["content"]);
}

#[tokio::test]
async fn a_result_that_does_not_answer_its_job_is_refused() {
    let logprobs = |count: usize| {
        let logprobs = Some(vec![rated("x", -1.0); count]);
        vec![TextChoice { logprobs, ..TextChoice::new("x", FinishReason::Stop) }]
    };
    let plain = |_: &mut Value| {};
    let twice = |body: &mut Value| (body["n"], body["max_tokens"]) = (json!(2), json!(4));
    let rated = |body: &mut Value| {
        (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(2));
        body["max_tokens"] = json!(4);
    };
    let invalid = ErrorCode::InvalidRequest;
    check(plain, result(texts(&["a", "b"]), 4), Some(invalid)).await;
    check(twice, result(texts(&["a"]), 4), Some(invalid)).await;
    check(twice, result(texts(&["a", "b"]), 8), None).await;
    check(twice, result(texts(&["a", "b"]), 9), Some(invalid)).await;
    check(twice, result(texts(&["a", "b"]), 1), Some(invalid)).await;
    check(plain, result(vec![calling(&["c1"])], 4), Some(invalid)).await;
    check(with_tool, result(vec![calling(&["c1"])], 4), None).await;
    check(plain, result(logprobs(1), 4), Some(invalid)).await;
    check(rated, result(texts(&["x"]), 4), Some(invalid)).await;
    check(rated, result(logprobs(4), 4), None).await;
    check(rated, result(logprobs(5), 4), Some(ErrorCode::TooLarge)).await;
    let huge = "x".repeat(200 << 10);
    check(twice, result(texts(&[&huge, &huge]), 8), Some(ErrorCode::TooLarge)).await;
}

/// Answers one chat and compares the error with which the node's result is refused.
async fn check(change: impl FnOnce(&mut Value), output: JobOutput, expect: Option<ErrorCode>) {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let body = chat_body(change).to_string();
    let path = "/v1/chat/completions";
    let work = async {
        let lease = node.lease().await;
        node.submit(&lease, output).await;
        match expect {
            Some(expect) => assert_eq!(node.rejected().await, expect),
            None => assert_eq!(node.settled().await.lease, lease.id),
        }
    };
    // A refused result leaves the client waiting for another attempt.
    tokio::select! {
        biased;
        () = work => {}
        () = async {
            world.raw(Method::POST, path, Some(&world.api_key), &[], body).await;
            std::future::pending::<()>().await;
        } => {}
    }
}

#[tokio::test]
async fn one_stream_never_outgrows_what_its_job_may_say() {
    let world = World::new().await;
    let mut node = Node::ready(&world.coordinator).await;
    let job = world.submit("hi").await;
    let lease = node.lease().await;
    let deltas = vec![of(0, "fine"), of(1, "an answer nobody asked for")];
    node.say(NodeMessage::Progress { lease: lease.id, deltas, tokens: 1, step: None }).await;
    assert_eq!(node.cancelled().await, (lease.id, ErrorCode::TooLarge));
    let again = node.lease().await;
    assert_eq!((again.job, again.fence), (job, lease.fence + 1));
}

#[tokio::test]
async fn eight_jobs_of_one_node_are_kept_apart() {
    let world = World::new().await;
    let mut node = crate::node::Identity::new("rig1").connect(&world.coordinator).await;
    node.announce(&[MODEL], 8).await;
    let asked: Vec<_> = (0..9)
        .map(|n| world.chat(move |b| b["messages"][0]["content"] = json!(n.to_string())))
        .collect();
    let work = async {
        let mut leases = Vec::new();
        for _ in 0..8 {
            leases.push(node.lease().await);
        }
        assert!(node.hears_nothing(100).await, "the ninth waits for a free slot");
        // Streams interleave, and results come in another order than the jobs.
        for piece in ["a", "b"] {
            for lease in &leases {
                node.stream(lease, piece).await;
            }
        }
        leases.reverse();
        let echo = |lease: &neurino_core::Lease| {
            let neurino_core::JobSpec::Text(job) = &lease.spec else { panic!("a text job") };
            result(texts(&[&format!("ab{}", job.messages[0].content)]), 3)
        };
        for lease in &leases {
            node.submit(lease, echo(lease)).await;
        }
        let mut settled = 0;
        while settled < 9 {
            match node.hear().await {
                neurino_protocol::node::CoordinatorMessage::Settled(_) => settled += 1,
                neurino_protocol::node::CoordinatorMessage::Assign(ninth) => {
                    node.submit(&ninth, echo(&ninth)).await;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(asked), work);
    for (n, (status, body)) in answers.into_iter().enumerate() {
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["choices"][0]["message"]["content"], format!("ab{n}"));
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn requests_are_named_and_must_be_json() {
    let world = World::new().await;
    let _working = Node::ready(&world.coordinator).await.work(&["Hello"]);
    let path = "/v1/chat/completions";
    let ask = async |kind: &str| {
        let body = chat_body(|_| {}).to_string();
        let headers = [("content-type", kind)];
        world.raw(Method::POST, path, Some(&world.api_key), &headers, body).await
    };
    let answer = ask("application/json; charset=utf-8").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let (_, job) = world.call(Method::GET, &format!("/v1/jobs/{id}"), Value::Null).await;
    assert_eq!(job["state"], "succeeded", "the request's name is its job's");
    let answer = ask("text/plain").await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(answer.headers().contains_key("x-request-id"));
    for (model, status) in [(MODEL, StatusCode::OK), ("a/b", StatusCode::NOT_FOUND)] {
        let (found, body) =
            world.call(Method::GET, &format!("/v1/models/{model}"), Value::Null).await;
        assert_eq!(found, status);
        let expect = if status == StatusCode::OK { "none" } else { "model_not_found" };
        assert_eq!(code(&body), expect);
    }
}
