//! The original miner's own programs, unmodified, with stand-ins where they compute.
//!
//! Their licence lets them be run and not be copied, so they are not here: a folder with a checkout is
//! named in `NEURINO_ORIGINAL_MINER`, and `cargo xtask test clients` fetches what they import. Without
//! either these tests are skipped. What runs them is tests/original/unmodified/run.py.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use neurino_coordinator::{JobUpdate, PayerId};
use neurino_core::{
    ChatMessage, ImageJob, JobId, JobOutput, JobSpec, ModelId, NodeId, Receipt, Role, TextJob,
    ToolDefinition,
};
use neurino_wallet::import_key_file;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use crate::pictures::{PAINTER, job as picture_job};
use crate::world::{MODEL, World, short_limits};

/// A folder with the original miner as its makers publish it.
const CHECKOUT: &str = "NEURINO_ORIGINAL_MINER";
/// Folder of the Python packages that it imports.
const PACKAGES: &str = "NEURINO_TEST_UNMODIFIED_PACKAGES";
const RUN_MAX: Duration = Duration::from_mins(3);
/// Another one, which the miner loads when the network asks for it.
const OTHER_PAINTER: &str = "my-other-painter";
/// A style on top of a model: an id that names both.
const STYLE: &str = "my-style";
/// What the stand-in of the inference server says to everything.
const WORDS: &str = "The lighthouse keeper counts Grüße aus 東京.";

/// Where the programs and their packages are, or why these tests are skipped.
fn given() -> Option<(OsString, OsString)> {
    let of = |name| std::env::var_os(name);
    if let (Some(checkout), Some(packages)) = (of(CHECKOUT), of(PACKAGES)) {
        return Some((checkout, packages));
    }
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!(
            "skipped: {CHECKOUT} names no checkout of the original miner (its licence forbids to keep \
             one here), or `cargo xtask test clients` did not set {PACKAGES}"
        );
    }
    None
}

/// One of the programs, and a coordinator that it works for.
struct Running {
    world: World,
    folder: tempfile::TempDir,
    child: Child,
    input: Option<ChildStdin>,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(case: &str, options: &str) -> Option<Self> {
        let (checkout, packages) = given()?;
        let world = World::original(short_limits()).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let (coordinator, stopping) = (world.coordinator.clone(), stop.clone());
        let server =
            tokio::spawn(async move { coordinator.serve(listener, stopping).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/original/unmodified/run.py");
        let mut child = Command::new("python3")
            .arg("-B")
            .arg(script)
            .arg(case)
            .arg(checkout)
            .arg(folder.path())
            .env("PYTHONPATH", packages)
            .env("NEURINO_BASE_URL", &url)
            .env("NEURINO_MODEL", MODEL)
            .env("NEURINO_IMAGE_MODELS", format!("{PAINTER},{OTHER_PAINTER}"))
            .env("NEURINO_MINER_OPTIONS", options)
            .env("AWS_ENDPOINT_URL", &url)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take();
        Some(Self { world, folder, child, input, lines, stop, server })
    }

    /// Waits until the miner runs; returns the id it must be known by.
    async fn ready(&mut self) -> NodeId {
        let line = tokio::time::timeout(RUN_MAX, self.lines.next_line()).await.expect("it starts");
        let line = line.unwrap().expect("it goes on");
        let reward = line.strip_prefix("ready ").expect(&line);
        // The tag is the beginning of its card's UUID.
        NodeId::new(format!("{reward}-1a2b3c")).unwrap()
    }

    async fn submit(&self, spec: &JobSpec) -> JobId {
        let asking = async {
            loop {
                let asked = spec.clone();
                // A model of somebody's own is refused until a miner has said that it paints it.
                if let Ok(job) =
                    self.world.coordinator.submit_job(PayerId::local(), None, asked).await
                {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(RUN_MAX, asking).await.expect("the miner offers the model")
    }

    /// A job's result, its receipt, and how much of it came as a stream.
    async fn done(&self, job: JobId) -> (JobOutput, Receipt, String) {
        let mut watch = self.world.coordinator.watch_job(job).await.unwrap();
        let mut streamed = String::new();
        let following = async {
            loop {
                match watch.next().await.expect("the job ends") {
                    JobUpdate::Delta(delta) => streamed.push_str(&delta.text),
                    JobUpdate::Finished { output, receipt } => return (output, receipt),
                    JobUpdate::Failed(error) => panic!("{error}"),
                    JobUpdate::Queued | JobUpdate::Leased { .. } | JobUpdate::Step(_) => {}
                }
            }
        };
        let (output, receipt) = tokio::time::timeout(RUN_MAX, following).await.expect("it is done");
        (output, *receipt, streamed)
    }

    /// Waits for its end, which must be a good one; returns its folder.
    async fn finished(mut self) -> tempfile::TempDir {
        while let Ok(Ok(Some(line))) = tokio::time::timeout(RUN_MAX, self.lines.next_line()).await {
            #[expect(
                clippy::print_stderr,
                reason = "what was done, or what the miner complained of"
            )]
            {
                eprintln!("{line}");
            }
        }
        let status = tokio::time::timeout(RUN_MAX, self.child.wait()).await.expect("it ends");
        assert!(status.unwrap().success(), "see above");
        self.stop.cancel();
        self.server.await.unwrap();
        self.world.assert_books_hold().await;
        self.folder
    }

    /// Ends it, and holds it to having complained of nothing.
    async fn end(mut self) {
        drop(self.input.take());
        self.finished().await;
    }
}

fn text(words: &str) -> TextJob {
    TextJob::new(ModelId::new(MODEL).unwrap(), vec![ChatMessage::new(Role::User, words)], 64)
}

fn painted(model: &str, seed: u64) -> JobSpec {
    JobSpec::Image(ImageJob { model: ModelId::new(model).unwrap(), ..picture_job(seed) })
}

#[tokio::test(flavor = "multi_thread")]
async fn its_wallets_are_made_checked_and_imported() {
    let Some(running) = Running::start("auth", "").await else { return };
    let keys = running.folder.path().join("keys");
    let mut read = 0;
    let folder = running.finished().await;
    for entry in std::fs::read_dir(keys).unwrap() {
        // Ours reads the file that theirs wrote.
        import_key_file(&entry.unwrap().path()).unwrap();
        read += 1;
    }
    assert_eq!(read, 1, "a file in {}", folder.path().display());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_text_miner_answers_streams_and_is_paid() {
    let Some(mut running) = Running::start("llm", "").await else { return };
    let node = running.ready().await;
    // Whole at first: who has not signed yet does not stream.
    let first = running.submit(&JobSpec::Text(text("one"))).await;
    let (output, receipt, _) = running.done(first).await;
    let JobOutput::Text(answer) = &output else { panic!("a text") };
    assert_eq!((answer.text(), receipt.node), (WORDS, node.clone()));
    let second = running.submit(&JobSpec::Text(text("two"))).await;
    let (output, receipt, streamed) = running.done(second).await;
    let JobOutput::Text(answer) = &output else { panic!("a text") };
    assert_eq!((answer.text().trim_end(), receipt.node), (WORDS, node.clone()));
    assert_eq!(streamed.trim_end(), WORDS, "it came in pieces");
    let tool = ToolDefinition { name: "weather".into(), description: None, parameters: None };
    let called = TextJob { tools: vec![tool], ..text("three") };
    let third = running.submit(&JobSpec::Text(called)).await;
    let (output, receipt, _) = running.done(third).await;
    let JobOutput::Text(answer) = &output else { panic!("a text") };
    assert_eq!(answer.choices[0].tool_calls[0].name, "weather", "{answer:?}");
    assert_eq!(receipt.node, node);
    let points = running.world.coordinator.points(&node, 0).await.unwrap();
    assert!(points.llama_total.0 > 0);
    let asked = std::fs::read_to_string(running.folder.path().join("asked.jsonl")).unwrap();
    let asked: Vec<Value> = asked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |prompt: &str| {
        asked.iter().find(|asked| asked["messages"][0]["content"] == prompt).expect(prompt)
    };
    assert_eq!((&of("one")["stream"], &of("two")["stream"]), (&Value::Null, &json!(true)));
    assert_eq!(of("three")["tools"][0]["function"]["name"], "weather");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_picture_miner_uploads_is_paid_and_loads_what_is_asked_for() {
    let Some(mut running) = Running::start("sd", "").await else { return };
    let node = running.ready().await;
    // Another miner has said that there is this model.
    let other = json!({ "miner_id": format!("0x{}", "ab".repeat(20)), "model_id": OTHER_PAINTER,
        "min_deadline": 1, "version": "sd-v1.4.0", "hardware": "a card" });
    let path = "/miner_request";
    let (status, _) = running.world.send(Method::POST, path, None, &[], other.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    // The last one is of a model that it loads when the network's signal says so.
    for (model, seed) in [(PAINTER, 1), (PAINTER, 2), (OTHER_PAINTER, 3)] {
        let job = running.submit(&painted(model, seed)).await;
        let (output, receipt, _) = running.done(job).await;
        let JobOutput::Image(picture) = output else { panic!("a picture") };
        assert!(picture.png.0.starts_with(b"\x89PNG"));
        assert_eq!((receipt.node, receipt.usage.completion_tokens), (node.clone(), 0));
    }
    let points = running.world.coordinator.points(&node, 0).await.unwrap();
    assert!(points.waifu_total.0 > 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_picture_miner_works_on_a_composite_model() {
    let Some(mut running) = Running::start("sd", &format!("--model-id {STYLE}")).await else {
        return;
    };
    let node = running.ready().await;
    let job = running.submit(&painted(STYLE, 4)).await;
    let (_, receipt, _) = running.done(job).await;
    assert_eq!((receipt.node, receipt.model.as_str()), (node, STYLE));
    running.end().await;
}
