//! The original protocol from outside: what its miners send, and what others try with it.

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use neurino_client::sigv4::{Canonical, Scope};
use neurino_coordinator::{JobUpdate, Limits, PayerId, admin};
use neurino_core::{JobId, JobOutput, JobSpec, MicroPoints, NodeId, PointsKind};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::audits;
use crate::node::{Identity, Node};
use crate::pictures::{job as picture_job, picture};
use crate::world::{MODEL, World, code, eventually, short_limits};

/// A miner by hand.
pub(crate) struct Miner {
    key: IdentityKey,
    pub(crate) id: String,
}

impl Miner {
    pub(crate) fn new() -> Self {
        let key = IdentityKey::generate(&mut rand::rng());
        let reward: [u8; 20] = rand::random();
        Self { key, id: format!("0x{}-1a2b3c", hex::encode(reward).to_uppercase()) }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.id.to_lowercase()).unwrap()
    }

    fn reward(&self) -> String {
        self.id.to_lowercase()[..42].to_owned()
    }

    /// A signature over the hour that began so many hours ago.
    fn signature(&self, hours_ago: i64) -> String {
        let now = Timestamp::now().as_second();
        self.key.sign(&format!("{}-{}", self.reward(), now - now % 3600 - hours_ago * 3600))
    }

    /// Answers so many of the world's jobs.
    async fn answers(&self, world: &World, jobs: std::ops::Range<u32>, version: &str, text: &str) {
        for n in jobs {
            world.submit(&format!("question {n}")).await;
            let job = self.job(world, MODEL, version).await;
            self.hands_in(world, &job, text).await;
        }
    }

    /// Hands a text in as a job's result.
    pub(crate) async fn hands_in(&self, world: &World, job: &Value, text: &str) {
        let (status, body) = post(world, "/miner_submit", &self.text_result(job, text)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    pub(crate) async fn poll(&self, world: &World, model: &str, version: &str) -> Value {
        let body = json!({
            "miner_id": self.id, "model_id": model, "min_deadline": 1,
            "hardware": "NVIDIA GeForce RTX 3090", "version": version,
        });
        let (status, job) = post(world, "/miner_request", &body).await;
        assert_eq!(status, StatusCode::OK, "{job}");
        job
    }

    /// Polls until there is a job.
    async fn job(&self, world: &World, model: &str, version: &str) -> Value {
        let mut job = Value::Null;
        eventually("there is a job", async || {
            job = self.poll(world, model, version).await;
            assert!(!job.is_string(), "{job}");
            !job.is_null()
        })
        .await;
        job
    }

    fn text_result(&self, job: &Value, text: &str) -> Value {
        let choices = json!([{
            "finish_reason": "stop", "index": 0, "logprobs": null,
            "message": { "content": text, "role": "assistant", "function_call": null, "tool_calls": null },
        }]);
        json!({
            "miner_id": self.id.to_lowercase(), "job_id": job["job_id"],
            "result": { "Text": choices.to_string() },
            "request_latency": 0.1, "inference_latency": 1.5,
            "signature": self.signature(0), "identity_address": self.key.address(),
        })
    }

    fn picture_result(&self, job: &Value) -> Value {
        json!({
            "miner_id": self.id.to_lowercase(), "job_id": job["job_id"],
            "result": { "S3Key": self.object(job) },
            "request_latency": 0.1, "loading_latency": null, "inference_latency": 1.5,
            "upload_latency": 0.2,
            "signature": self.signature(0), "identity_address": self.key.address(),
        })
    }

    /// The miner does not write its own id in small letters here.
    fn object(&self, job: &Value) -> String {
        format!("{}-{}.png", job["job_id"].as_str().unwrap(), self.id)
    }

    async fn stream(&self, world: &World, job: &Value, body: &str) -> (StatusCode, Value) {
        let headers = [
            ("job_id", job["job_id"].as_str().unwrap()),
            ("miner_id", &self.id),
            ("content-type", "text/event-stream"),
        ];
        world.send(Method::POST, "/miner_submit_stream", None, &headers, body.to_owned()).await
    }
}

async fn post(world: &World, path: &str, body: &Value) -> (StatusCode, Value) {
    world.send(Method::POST, path, None, &[], body.to_string()).await
}

/// An upload as an S3 client sends it; `change` may spoil it before and after it is signed.
struct Put {
    path: String,
    file: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    secret: String,
    access: String,
    region: &'static str,
    /// Headers that are sent besides those that are signed.
    unsigned: Vec<(&'static str, String)>,
}

impl Put {
    fn of(job: &Value, object: &str, file: &[u8]) -> Self {
        let credentials = |at: usize| job["temp_credentials"][at].as_str().unwrap().to_owned();
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        Self {
            path: format!("/heurist-images/{object}"),
            file: file.to_vec(),
            headers: vec![
                ("host", "127.0.0.1:1".into()),
                ("x-amz-content-sha256", hex::encode(Sha256::digest(file))),
                ("x-amz-date", time),
                ("x-amz-security-token", credentials(2)),
            ],
            secret: credentials(1),
            access: credentials(0),
            region: "us-east-1",
            unsigned: vec![("content-length", file.len().to_string())],
        }
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        let header = self.headers.iter_mut().find(|(found, _)| *found == name).unwrap();
        header.1 = value.into();
    }

    /// The status and S3's name for what was wrong.
    async fn send(self, world: &World) -> (StatusCode, String) {
        let header = |name: &str| {
            self.headers.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
        };
        let scope = Scope { time: header("x-amz-date"), region: self.region, service: "s3" };
        let canonical = Canonical {
            method: "PUT",
            path: &self.path,
            query: "",
            headers: &self.headers,
            payload: header("x-amz-content-sha256"),
        };
        let signature = canonical.signature(&self.secret, &scope);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.access,
            scope.text(),
            canonical.signed_headers(),
        );
        let mut headers: Vec<(&str, &str)> = vec![("authorization", &authorization)];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        headers.extend(self.unsigned.iter().map(|(name, value)| (*name, value.as_str())));
        let response = world.raw(Method::PUT, &self.path, None, &headers, self.file.clone()).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let name = body.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next());
        (status, name.unwrap_or_default().to_owned())
    }
}

fn png(job: &Value) -> Vec<u8> {
    let asked = &job["model_input"]["SD"];
    let mut painted = picture_job(asked["seed"].as_u64().unwrap());
    painted.width = u32::try_from(asked["width"].as_u64().unwrap()).unwrap();
    painted.height = u32::try_from(asked["height"].as_u64().unwrap()).unwrap();
    match picture(&painted) {
        JobOutput::Image(output) => output.png.0,
        JobOutput::Text(_) => panic!("a picture"),
    }
}

const PAINTER: &str = crate::pictures::PAINTER;
const SD: &str = "sd-v1.4.0";
const LLM: &str = "llm-v1.2.0";

/// A miner must have polled with the model before: nobody else knows it.
async fn ask_picture(world: &World, seed: u64) -> JobId {
    let spec = JobSpec::Image(picture_job(seed));
    world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap()
}

async fn new_world() -> World {
    World::original(short_limits()).await
}

#[tokio::test]
async fn a_text_is_asked_for_handed_in_and_paid_once() {
    let world = new_world().await;
    let miner = Miner::new();
    assert_eq!(miner.poll(&world, MODEL, LLM).await, Value::Null);
    let asked = world.submit("Say hi").await;
    let job = miner.job(&world, MODEL, LLM).await;
    assert_eq!(job["model_id"], MODEL);
    let input = &job["model_input"]["LLM"];
    assert_eq!(input["prompt"], r#"[{"role":"user","content":"Say hi"}]"#);
    assert_eq!((&input["max_tokens"], &input["seed"]), (&json!(64), &json!(1)));
    assert_eq!(input["use_stream"], false, "who has not signed yet does not stream");
    assert!(job["temp_credentials"].is_null());

    let result = miner.text_result(&job, "Hello there[end] and more");
    let (status, paid) = post(&world, "/miner_submit", &result).await;
    assert_eq!((status, &paid["status"]), (StatusCode::OK, &json!("accepted")), "{paid}");
    let (status, again) = post(&world, "/miner_submit", &result).await;
    assert_eq!((status, &again), (StatusCode::OK, &paid), "a repeat gets the answer of then");
    let mut watch = world.coordinator.watch_job(asked).await.unwrap();
    let Some(JobUpdate::Finished { output, receipt }) = watch.next().await else { panic!("paid") };
    let JobOutput::Text(answer) = output else { panic!("a text") };
    assert_eq!(answer.text(), "Hello there");
    assert_eq!(receipt.node, miner.node());
    assert_eq!(receipt.usage.completion_tokens, 3, "eleven bytes");
    let points = world.coordinator.points(&miner.node(), 0).await.unwrap();
    assert_eq!(points.llama_total, receipt.quote.amount_micro);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn who_signed_once_may_stream() {
    let world = new_world().await;
    let miner = Miner::new();
    world.submit("one").await;
    let job = miner.job(&world, MODEL, LLM).await;
    let (status, _) = miner.stream(&world, &job, "unasked [DONE]").await;
    assert_eq!(status, StatusCode::CONFLICT, "it was not asked to stream");
    post(&world, "/miner_submit", &miner.text_result(&job, "first")).await;

    let asked = world.submit("two").await;
    let mut watch = world.coordinator.watch_job(asked).await.unwrap();
    let job = miner.job(&world, MODEL, LLM).await;
    assert_eq!(job["model_input"]["LLM"]["use_stream"], true);
    let other = Miner::new();
    let (status, _) = other.stream(&world, &job, "forged [DONE]").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another miner's job");
    let (status, paid) = miner.stream(&world, &job, "Hello there friend [DONE] more").await;
    assert_eq!((status, &paid["status"]), (StatusCode::OK, &json!("accepted")), "{paid}");
    let mut text = String::new();
    loop {
        match watch.next().await.unwrap() {
            JobUpdate::Delta(delta) => text.push_str(&delta.text),
            JobUpdate::Finished { .. } => break,
            JobUpdate::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(text, "Hello there friend");
    let (status, _) = miner.stream(&world, &job, "again [DONE]").await;
    assert_eq!(status, StatusCode::CONFLICT);

    let asked = world.submit("three").await;
    let watch = world.coordinator.watch_job(asked).await.unwrap();
    let job = miner.job(&world, MODEL, LLM).await;
    let (status, error) = miner.stream(&world, &job, "it breaks off").await;
    assert_eq!((status, code(&error)), (StatusCode::BAD_REQUEST, "invalid_request"));
    assert_eq!(world.coordinator.jobs_overview().queued, 1, "somebody else may try");
    drop(watch);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_picture_is_uploaded_with_its_jobs_credentials_and_paid() {
    let world = new_world().await;
    let miner = Miner::new();
    assert_eq!(miner.poll(&world, PAINTER, SD).await, Value::Null);
    ask_picture(&world, 7).await;
    let job = miner.job(&world, PAINTER, SD).await;
    let input = &job["model_input"]["SD"];
    assert_eq!((&input["width"], &input["height"]), (&json!(64), &json!(48)));
    assert_eq!((&input["num_iterations"], &input["seed"]), (&json!(4), &json!(7)));
    assert_eq!((&input["guidance_scale"], &input["neg_prompt"]), (&json!(5.5), &json!("blurry")));
    assert_eq!(miner.poll(&world, PAINTER, SD).await, Value::Null, "one picture at a time");

    let (status, error) = post(&world, "/miner_submit", &miner.picture_result(&job)).await;
    assert_eq!((status, code(&error)), (StatusCode::NOT_FOUND, "not_found"), "nothing uploaded");
    let object = miner.object(&job);
    let (status, fault) = Put::of(&job, &object, b"not a picture").send(&world).await;
    assert_eq!((status, fault.as_str()), (StatusCode::OK, ""));
    let file = png(&job);
    assert_eq!(Put::of(&job, &object, &file).send(&world).await.0, StatusCode::OK, "and again");
    let (status, paid) = post(&world, "/miner_submit", &miner.picture_result(&job)).await;
    assert_eq!(status, StatusCode::OK, "{paid}");
    let (status, fault) = Put::of(&job, &object, &file).send(&world).await;
    assert_eq!((status, fault.as_str()), (StatusCode::BAD_REQUEST, "ExpiredToken"));
    let points = world.coordinator.points(&miner.node(), 0).await.unwrap();
    assert!(points.waifu_total > MicroPoints(0));
    let receipts = world.coordinator.receipts(Some(&miner.node()), None, 9).await.unwrap();
    assert_eq!(receipts[0].quote.points, PointsKind::Waifu);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn an_upload_must_be_exactly_the_jobs() {
    let world = new_world().await;
    let (miner, other) = (Miner::new(), Miner::new());
    for miner in [&miner, &other] {
        miner.poll(&world, PAINTER, SD).await;
    }
    ask_picture(&world, 1).await;
    let job = miner.job(&world, PAINTER, SD).await;
    ask_picture(&world, 2).await;
    let others = other.job(&world, PAINTER, SD).await;
    let (object, file) = (miner.object(&job), png(&job));
    let put = || Put::of(&job, &object, &file);
    let check = async |what: &str, put: Put, expect: (u16, &str)| {
        let (status, fault) = put.send(&world).await;
        assert_eq!((status.as_u16(), fault.as_str()), expect, "{what}");
    };
    let denied = (403, "AccessDenied");
    check("another key", Put::of(&job, &format!("x{object}"), &file), denied).await;
    check("another job's key", Put::of(&job, &other.object(&others), &file), denied).await;
    for path in ["../secret.png", "%2e%2e%2fsecret.png", "a/b.png"] {
        check(path, Put::of(&job, path, &file), denied).await;
    }
    let mut theirs = put();
    theirs.set("x-amz-security-token", others["temp_credentials"][2].as_str().unwrap());
    check("another job's token", theirs, denied).await;
    let guessed = Put { secret: "guessed".into(), ..put() };
    check("a guessed secret", guessed, (403, "SignatureDoesNotMatch")).await;
    let unknown = Put { access: format!("NRNU{}", "0".repeat(32)), ..put() };
    check("no job's access key", unknown, (400, "ExpiredToken")).await;
    let foreign = Put { access: "AKIAIOSFODNN7EXAMPLE".into(), ..put() };
    check("a foreign access key", foreign, (403, "InvalidAccessKeyId")).await;
    let mut old = put();
    old.set("x-amz-date", "20200101T000000Z");
    check("an old request", old, (403, "RequestTimeTooSkewed")).await;
    let mut no_time = put();
    no_time.set("x-amz-date", "99999999T999999Z");
    check("no time", no_time, denied).await;
    let mut changed = put();
    changed.file = vec![0; file.len()];
    check("another body", changed, (400, "XAmzContentSHA256Mismatch")).await;
    let mut short = put();
    short.file.pop();
    check("a shorter body", short, (400, "InvalidRequest")).await;
    let mut unsigned = put();
    unsigned.headers.retain(|(name, _)| *name != "x-amz-security-token");
    check("an unsigned token", unsigned, denied).await;
    let large = Put::of(&job, &object, &vec![0; 200 << 10]);
    check("a large one", large, (400, "EntityTooLarge")).await;
    let mut endless = put();
    endless.unsigned = vec![];
    check("of no length", endless, (411, "MissingContentLength")).await;
    let mut html = put();
    html.unsigned.push(("content-type", "text/html".into()));
    check("another type", html, (400, "InvalidRequest")).await;
    check("the right one", put(), (200, "")).await;
    let response =
        world.raw(Method::GET, &format!("/heurist-images/{object}"), None, &[], "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "nothing can be read");
}

#[tokio::test]
async fn only_the_miners_own_key_of_this_hour_is_paid() {
    let world = new_world().await;
    let miner = Miner::new();
    world.submit("one").await;
    let job = miner.job(&world, MODEL, LLM).await;
    let good = miner.text_result(&job, "answer");
    let check = async |change: &dyn Fn(&mut Value), expect: (u16, &str)| {
        let mut result = good.clone();
        change(&mut result);
        let (status, error) = post(&world, "/miner_submit", &result).await;
        assert_eq!((status.as_u16(), code(&error)), expect, "{error}");
    };
    let other = Miner::new();
    let high = high_twin(good["signature"].as_str().unwrap());
    let signatures = [
        other.signature(0),
        miner.signature(2),
        miner.signature(-1),
        high,
        "0x00".into(),
        String::new(),
    ];
    for signature in signatures {
        let spoil = |r: &mut Value| r["signature"] = json!(signature);
        check(&spoil, (401, "bad_signature")).await;
    }
    check(&|r| r["signature"] = Value::Null, (401, "bad_signature")).await;
    check(&|r| r["identity_address"] = Value::Null, (401, "bad_signature")).await;
    check(&|r| r["identity_address"] = json!("0xabc"), (401, "bad_signature")).await;
    check(&|r| r["miner_id"] = json!("somebody"), (400, "invalid_request")).await;
    check(&|r| r["job_id"] = json!("../../etc/passwd"), (400, "invalid_request")).await;
    check(&|r| r["job_id"] = json!(uuid::Uuid::now_v7()), (404, "not_found")).await;
    check(&|r| r["inference_latency"] = json!(-1.0), (400, "invalid_request")).await;
    check(&|r| r["result"] = json!({}), (400, "invalid_request")).await;
    check(&|r| r["result"] = json!({ "S3Key": "x.png" }), (400, "invalid_request")).await;
    let body = good.to_string().replace("1.5", "NaN");
    let (status, _) = world.send(Method::POST, "/miner_submit", None, &[], body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let huge = "x".repeat(3 << 20);
    let (status, error) = world.send(Method::POST, "/miner_submit", None, &[], huge).await;
    assert_eq!((status, code(&error)), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));

    // None of it cost the miner its job, and the hour before is good as well.
    check(&|r| r["signature"] = json!(miner.signature(1)), (200, "none")).await;
    // From now on the address has its key.
    world.submit("two").await;
    let job = miner.job(&world, MODEL, LLM).await;
    let now = Timestamp::now().as_second();
    let thief = IdentityKey::generate(&mut rand::rng());
    let mut stolen = miner.text_result(&job, "stolen");
    stolen["identity_address"] = json!(thief.address());
    stolen["signature"] = json!(thief.sign(&format!("{}-{}", miner.reward(), now - now % 3600)));
    let (status, error) = post(&world, "/miner_submit", &stolen).await;
    assert_eq!((status, code(&error)), (StatusCode::UNAUTHORIZED, "unauthorized"), "{error}");
    world.assert_books_hold().await;
}

/// The same signature with the other `s`.
fn high_twin(signature: &str) -> String {
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let (bytes, order) = (hex::decode(&signature[2..]).unwrap(), hex::decode(order).unwrap());
    let mut twin = bytes.clone();
    let mut borrow = 0_i16;
    for at in (0..32).rev() {
        let difference = i16::from(order[at]) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        twin[32 + at] = difference.rem_euclid(256) as u8;
    }
    twin[64] = if bytes[64] == 27 { 28 } else { 27 };
    format!("0x{}", hex::encode(twin))
}

#[tokio::test]
async fn the_binding_and_the_lease_survive_a_restart() {
    let mut world = new_world().await;
    let miner = Miner::new();
    world.submit("one").await;
    let job = miner.job(&world, MODEL, LLM).await;
    post(&world, "/miner_submit", &miner.text_result(&job, "first")).await;
    world.submit("two").await;
    let job = miner.job(&world, MODEL, LLM).await;
    world.restart().await;
    // It goes on polling meanwhile, and does not lose what it works on.
    assert_eq!(miner.poll(&world, MODEL, LLM).await, Value::Null);
    let thief = Miner { key: IdentityKey::generate(&mut rand::rng()), id: miner.id.clone() };
    let (status, _) = post(&world, "/miner_submit", &thief.text_result(&job, "mine")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, paid) = post(&world, "/miner_submit", &miner.text_result(&job, "second")).await;
    assert_eq!(status, StatusCode::OK, "{paid}");
    world.assert_books_hold().await;
    // Whoever runs the network frees the address; the next paid result binds it anew.
    let reward = miner.reward().parse().unwrap();
    let database = world.config().database;
    neurino_coordinator::admin::unbind(&database, reward).await.unwrap();
    assert!(neurino_coordinator::admin::unbind(&database, reward).await.is_err(), "once");
    world.submit("three").await;
    let job = miner.job(&world, MODEL, LLM).await;
    eventually("the coordinator knows", async || {
        let handed_in = thief.text_result(&job, "the new key's");
        post(&world, "/miner_submit", &handed_in).await.0 == StatusCode::OK
    })
    .await;
    world.submit("four").await;
    let job = miner.job(&world, MODEL, LLM).await;
    let (status, _) =
        post(&world, "/miner_submit", &miner.text_result(&job, "the old key's")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_late_result_is_never_paid_and_the_job_goes_on() {
    let world = World::original(Limits { text_budget_ms: 300, ..short_limits() }).await;
    let (slow, quick) = (Miner::new(), Miner::new());
    world.submit("one").await;
    let late = slow.job(&world, MODEL, LLM).await;
    let job = quick.job(&world, MODEL, LLM).await;
    assert_ne!(job["job_id"], late["job_id"], "each attempt has an id of its own");
    let (status, error) = post(&world, "/miner_submit", &slow.text_result(&late, "late")).await;
    assert_eq!((status, code(&error)), (StatusCode::CONFLICT, "deadline_passed"));
    let (status, _) = post(&world, "/miner_submit", &quick.text_result(&job, "in time")).await;
    assert_eq!(status, StatusCode::OK);
    let (status, error) = post(&world, "/miner_submit", &slow.text_result(&late, "late")).await;
    assert_eq!((status, code(&error)), (StatusCode::CONFLICT, "stale_lease"));
    assert_eq!(world.coordinator.points(&slow.node(), 0).await.unwrap().llama_total.0, 0);
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_poll_that_finds_nothing_touches_no_books() {
    let world = new_world().await;
    let miners: Vec<Miner> = (0..20).map(|_| Miner::new()).collect();
    // A new coordinator tidies its books up first.
    let mut before = world.coordinator.store_calls();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = world.coordinator.store_calls();
        if std::mem::replace(&mut before, now) == now {
            break;
        }
    }
    for _ in 0..20 {
        for miner in &miners {
            assert_eq!(miner.poll(&world, MODEL, LLM).await, Value::Null);
        }
    }
    // Once a second a coordinator looks whether somebody changed its settings; a poll would be seen
    // four hundred times.
    let after = world.coordinator.store_calls();
    assert!(after - before < 40, "{} looks at the books", after - before);
    world.submit("one").await;
    assert!(world.coordinator.store_calls() > after, "the counter counts");
}

#[tokio::test]
async fn polls_are_answered_by_the_words_of_the_protocol() {
    let world = new_world().await;
    let miner = Miner::new();
    let warning = miner.poll(&world, "nobody-knows-it", "other").await;
    assert!(
        warning.as_str().unwrap().starts_with("Warning: this network has no work"),
        "{warning}"
    );
    let poll = |change: &dyn Fn(&mut Value)| {
        let mut body = json!({ "miner_id": miner.id, "model_id": MODEL, "min_deadline": 1 });
        change(&mut body);
        body
    };
    let (status, none) =
        post(&world, "/miner_request", &poll(&|p| p["model_id"] = Value::Null)).await;
    assert_eq!((status, none), (StatusCode::OK, Value::Null), "no model is loaded yet");
    world.submit("one").await;
    let picky = poll(&|p| p["min_deadline"] = json!(181));
    assert_eq!(
        post(&world, "/miner_request", &picky).await.1,
        Value::Null,
        "no job leaves so long"
    );
    let spoilt: [&dyn Fn(&mut Value); 5] = [
        &|p| p["miner_id"] = json!("default_miner_id"),
        &|p| p["miner_id"] = Value::Null,
        &|p| p["min_deadline"] = json!(-1),
        &|p| p["model_id"] = json!("no model"),
        &|p| p["hardware"] = json!("x".repeat(5000)),
    ];
    for change in spoilt {
        let (status, error) = post(&world, "/miner_request", &poll(change)).await;
        assert!(status.is_client_error() && error["code"].is_string(), "{status} {error}");
    }
    for body in ["", "null", "[]", "{", "\"x\"", &"[".repeat(4000)] {
        let path = "/miner_request";
        let (status, error) = world.send(Method::POST, path, None, &[], body.to_owned()).await;
        assert_eq!((status, code(&error)), (StatusCode::BAD_REQUEST, "invalid_request"), "{body}");
    }
    let signal = |model_type: &str| json!({ "miner_id": miner.id, "model_type": model_type });
    let (_, next) = post(&world, "/miner_signal", &signal("LLM")).await;
    assert_eq!(next, json!({ "model_id": MODEL }), "a job waits for it");
    let (_, next) = post(&world, "/miner_signal", &signal("SD")).await;
    assert_eq!(next, json!({ "model_id": null }));
    assert_eq!(post(&world, "/miner_signal", &signal("X")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn nobody_polls_as_a_node_that_signs_for_itself() {
    let world = new_world().await;
    let mut node = Node::ready(&world.coordinator).await;
    let identity = node.identity.clone();
    let body = json!({ "miner_id": identity.id, "model_id": MODEL, "min_deadline": 1 });
    world.submit("one").await;
    let lease = node.lease().await;
    let (status, error) = post(&world, "/miner_request", &body).await;
    assert_eq!((status, code(&error)), (StatusCode::UNAUTHORIZED, "unauthorized"), "{error}");
    node.submit(&lease, crate::node::output("hi", 1)).await;
    node.settled().await;
    // The other way round the key wins.
    drop(node);
    eventually("the node is gone", async || {
        post(&world, "/miner_request", &body).await.0 == StatusCode::OK
    })
    .await;
    let mut node = identity.connect(&world.coordinator).await;
    node.announce(&[MODEL], 1).await;
    assert_eq!(post(&world, "/miner_request", &body).await.0, StatusCode::UNAUTHORIZED);
    world.submit("two").await;
    node.lease().await;
}

#[tokio::test]
async fn without_the_switch_there_is_nothing() {
    let world = World::new().await;
    for path in ["/miner_request", "/miner_submit", "/miner_submit_stream", "/miner_signal"] {
        let (status, _) = post(&world, path, &json!({})).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let response = world.raw(Method::PUT, "/heurist-images/x.png", None, &[], "x").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

const WORDS: &str = "the right words, said by everybody who computes this, whatever computes it";

/// A native node, which counts tokens.
fn in_tokens(_: &neurino_core::Lease) -> JobOutput {
    crate::node::output(WORDS, 14)
}

/// Audits go on at once, and nodes that say nothing stay.
fn patient() -> Limits {
    Limits { silence_ms: 60_000, ..audits::limits() }
}

/// A node and one whose word decides.
async fn natives(world: &World, judge: Identity) -> Vec<tokio::task::JoinHandle<()>> {
    let mut working = Vec::new();
    for who in [judge, Identity::new("native")] {
        let node = who.connect(&world.coordinator).await;
        node.announce(&[MODEL], 4).await;
        working.push(audits::work(node, in_tokens));
    }
    working
}

#[tokio::test]
async fn an_honest_miner_is_held_to_its_words_and_not_to_counts_of_tokens() {
    let mut world = World::original(patient()).await;
    let (miner, judge) = (Miner::new(), Identity::new("judge"));
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    // So that it is known from the first audit on.
    world.restart().await;
    miner.answers(&world, 0..5, "llm-v1.2.0", WORDS).await;
    // Other words of another engine say nothing, against nobody.
    let other = Miner::new();
    let words = "words that another engine might have come to as well";
    // Of another class, so that it is not asked to compute those again.
    other.answers(&world, 5..6, "llm-v1.3.0", words).await;
    let _natives = natives(&world, judge).await;
    eventually("its audits hold", async || {
        audits::report(&world, &miner.node()).await["audits"]["held"] == 5
    })
    .await;
    let report = audits::report(&world, &miner.node()).await;
    assert_eq!((&report["held"], &report["audits"].as_object().unwrap().len()), (&json!(5), &1));
    eventually("that audit ends", async || {
        audits::report(&world, &other.node()).await["audits"]["unresolved"] == 1
    })
    .await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_miner_that_hands_in_nothing_is_convicted_and_gets_no_job_any_more() {
    let mut world = World::original(patient()).await;
    let (miner, judge) = (Miner::new(), Identity::new("judge"));
    admin::set_validator(&world.config().database, &judge.id, true).await.unwrap();
    // So that it is known from the first audit on.
    world.restart().await;
    miner.answers(&world, 0..4, "llm-v1.2.0", "").await;
    let natives = natives(&world, judge).await;
    eventually("it is convicted", async || {
        audits::report(&world, &miner.node()).await["stage"] == "convicted"
    })
    .await;
    natives.iter().for_each(tokio::task::JoinHandle::abort);
    let job = world.submit("somebody's question").await;
    let body = json!({
        "miner_id": miner.id, "model_id": MODEL, "min_deadline": 1, "version": "llm-v1.2.0",
    });
    for tag in ["1a2b3c", "another"] {
        let mut body = body.clone();
        body["miner_id"] = json!(format!("{}-{tag}", miner.reward()));
        let (status, answer) = post(&world, "/miner_request", &body).await;
        assert_eq!((status, code(&answer)), (StatusCode::FORBIDDEN, "forbidden"), "{tag}");
    }
    let _ = world.coordinator.cancel_job(job).await;
    world.assert_books_hold().await;
}

#[tokio::test]
async fn nobody_polls_in_the_name_of_an_address_that_shows_its_own_key() {
    let world = World::original(patient()).await;
    let owner = Identity::new("rig1");
    let _node = owner.connect(&world.coordinator).await;
    let body = json!({
        "miner_id": format!("{}-other", owner.key.address()), "model_id": MODEL,
        "min_deadline": 1, "version": "llm-v1.2.0",
    });
    let (status, answer) = post(&world, "/miner_request", &body).await;
    assert_eq!((status, code(&answer)), (StatusCode::UNAUTHORIZED, "unauthorized"));
}
