//! A coordinator on fresh books, and requests to it. The books are a file; where a PostgreSQL server is
//! named, they are a database of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use neurino_coordinator::{Bucket, Coordinator, CoordinatorConfig, Database, Limits, PayerId};
use neurino_core::{ChatMessage, JobId, JobSpec, ModelId, Role, TextJob};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::server;

pub(crate) const MODEL: &str = "smollm2-135m-instruct";
/// Priced like the other one, served by fewer nodes.
pub(crate) const OTHER_MODEL: &str = "hermes-3-llama3.1-8b";
/// Nothing in these tests takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct World {
    folder: TempDir,
    database: Database,
    limits: Limits,
    original: bool,
    bucket: Option<Bucket>,
    known_as: Vec<String>,
    key: Arc<IdentityKey>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) api_key: String,
}

/// Waiting times that tests can afford.
pub(crate) fn short_limits() -> Limits {
    Limits {
        silence_ms: 6_000,
        reconnect_grace_ms: 300,
        recovery_grace_ms: 2_000,
        chat_no_node_wait_ms: 400,
        unwatched_ms: 400,
        // Tests that are not about audits are not to meet any.
        audit_round_ms: 3_600_000,
        ..Limits::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(short_limits()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::opened(limits, false, None).await
    }

    /// One that nodes reach under a name.
    pub(crate) async fn known_as(name: &str) -> Self {
        let mut world = Self::new().await;
        world.known_as.push(name.to_owned());
        world.restart().await;
        world
    }

    /// One that also serves miners of the original protocol.
    pub(crate) async fn original(limits: Limits) -> Self {
        Self::opened(limits, true, None).await
    }

    /// One whose pictures are in a bucket.
    pub(crate) async fn in_bucket(bucket: Bucket) -> Self {
        Self::opened(short_limits(), false, Some(bucket)).await
    }

    async fn opened(limits: Limits, original: bool, bucket: Option<Bucket>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = match server::fresh().await {
            Some(address) => {
                let pictures = file_in(&folder).with_file_name("practice-pictures");
                Database::at(&address, pictures).unwrap()
            }
            None => file_in(&folder).into(),
        };
        let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
        let config = config(&database, &limits, original, &key);
        let config = CoordinatorConfig { bucket: bucket.clone(), ..config };
        let coordinator = Coordinator::open(config).await.unwrap();
        let api_key = coordinator.create_api_key("test").await.unwrap();
        let api_key = api_key.expose_secret().to_owned();
        let known_as = Vec::new();
        Self { folder, database, limits, original, bucket, known_as, key, coordinator, api_key }
    }

    /// One that is opened otherwise than the others.
    pub(crate) async fn changed(
        limits: Limits,
        change: impl FnOnce(CoordinatorConfig) -> CoordinatorConfig,
    ) -> Self {
        let mut world = Self::with(limits).await;
        world.coordinator.shutdown().await;
        world.coordinator = Coordinator::open(change(world.config())).await.unwrap();
        world
    }

    /// Shuts the coordinator down and opens it again on the same books.
    pub(crate) async fn restart(&mut self) {
        self.coordinator.shutdown().await;
        self.coordinator = Coordinator::open(self.config()).await.unwrap();
    }

    /// Opens the coordinator again as if every job's keeping time were over.
    pub(crate) async fn forget_payloads(&mut self) {
        self.coordinator.shutdown().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let limits = Limits { payload_keep_ms: 0, disputed_keep_ms: 0, ..self.limits.clone() };
        let config = CoordinatorConfig { limits, ..self.config() };
        self.coordinator = Coordinator::open(config).await.unwrap();
    }

    pub(crate) fn config(&self) -> CoordinatorConfig {
        let config = config(&self.database, &self.limits, self.original, &self.key);
        let (bucket, known_as) = (self.bucket.clone(), self.known_as.clone());
        CoordinatorConfig { bucket, known_as, ..config }
    }

    /// Where pictures lie that are in no bucket.
    pub(crate) fn pictures_folder(&self) -> PathBuf {
        self.file().with_file_name("practice-pictures")
    }

    /// A file for books of a test that is about files.
    pub(crate) fn file(&self) -> PathBuf {
        file_in(&self.folder)
    }

    pub(crate) async fn submit(&self, text: &str) -> JobId {
        self.coordinator.submit_job(PayerId::local(), None, spec(MODEL, text)).await.unwrap()
    }

    /// Sends a request with the API key.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, Some(&self.api_key), &[], body).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (StatusCode, Value) {
        let response = self.raw(method, path, key, headers, body).await;
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        self.coordinator.router().oneshot(request).await.into_response()
    }

    /// A chat request.
    pub(crate) async fn chat(&self, change: impl FnOnce(&mut Value)) -> (StatusCode, Value) {
        let body = chat_body(change);
        self.call(Method::POST, "/v1/chat/completions", body).await
    }

    /// A streamed chat request that must be accepted; returns its events' data.
    pub(crate) async fn chat_stream(&self, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let body = chat_body(|body| {
            body["stream"] = json!(true);
            change(body);
        });
        let path = "/v1/chat/completions";
        let body = body.to_string();
        let response = self.raw(Method::POST, path, Some(&self.api_key), &[], body).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        events(std::str::from_utf8(&bytes).unwrap())
    }

    /// Everything that must hold of the books at any time.
    pub(crate) async fn assert_books_hold(&self) {
        let check = self.coordinator.ledger_check().await.unwrap();
        assert!(check.holds(), "{check:#?}");
    }
}

fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("books/practice.sqlite")
}

fn config(
    database: &Database,
    limits: &Limits,
    original: bool,
    key: &Arc<IdentityKey>,
) -> CoordinatorConfig {
    let practice = CoordinatorConfig::practice(database.clone(), Arc::clone(key));
    let epoch_rules = Some("weekly".into());
    CoordinatorConfig { limits: limits.clone(), original, epoch_rules, seed: Some(7), ..practice }
}

pub(crate) fn events(body: &str) -> Vec<String> {
    body.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).map(str::to_owned).collect()
}

pub(crate) fn chat_body(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Say hi" }] });
    change(&mut body);
    body
}

pub(crate) fn spec(model: &str, text: &str) -> JobSpec {
    let messages = vec![ChatMessage::new(Role::User, text)];
    let mut job = TextJob::new(ModelId::new(model).unwrap(), messages, 64);
    job.sampling.seed = 1;
    JobSpec::Text(job)
}

/// The code of an error in either shape.
pub(crate) fn code(body: &Value) -> &str {
    body["code"].as_str().or_else(|| body["error"]["code"].as_str()).unwrap_or("none")
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never happened: {what}");
}
