//! Virtual miners of the original protocol that find no work: each asks again every two seconds, over a
//! connection of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use neurino_core::ModelId;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::report::Counted;

/// How often the original miner asks.
const EVERY: Duration = Duration::from_secs(2);

/// What became of the polls of a run.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    /// How long the answers took.
    pub(crate) took: Counted,
    /// Answers other than `null`, and connections that broke.
    pub(crate) wrong: u64,
}

/// Has so many connections poll for a while, each beginning at its own moment of the first two seconds.
///
/// # Errors
/// A connection that cannot be opened.
pub(crate) async fn poll_all(
    port: u16,
    model: &ModelId,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Polled> {
    let mut pollers = JoinSet::new();
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(connect(port).await?);
    }
    let begin = Instant::now();
    for (number, sender) in open.into_iter().enumerate() {
        let body = json!({
            "miner_id": format!("0x{number:040x}"),
            "model_id": model,
            "model_type": "LLM",
            "min_deadline": 1,
            "hardware": "virtual",
            "version": "llm-v1.0.0",
        });
        let body = body.to_string();
        let first = begin + EVERY.mul_f64(number as f64 / connections as f64);
        pollers.spawn(poll(sender, port, body, first, begin + length));
    }
    let mut all = Polled::default();
    while let Some(one) = pollers.join_next().await {
        let (took, wrong) = one.context("a poller ended badly")?;
        for took in took {
            all.took.add(took);
        }
        all.wrong += wrong;
    }
    Ok(all)
}

async fn connect(port: u16) -> anyhow::Result<SendRequest<String>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn poll(
    mut sender: SendRequest<String>,
    port: u16,
    body: String,
    first: Instant,
    until: Instant,
) -> (Vec<Duration>, u64) {
    let (mut took, mut wrong) = (Vec::new(), 0);
    let mut due = first;
    while due < until {
        tokio::time::sleep_until(due).await;
        let asked = Instant::now();
        match ask(&mut sender, port, body.clone()).await {
            Ok(answer) if answer == b"null" => took.push(asked.elapsed()),
            Ok(_) => wrong += 1,
            Err(_) => return (took, wrong + 1),
        }
        due += EVERY;
    }
    (took, wrong)
}

async fn ask(sender: &mut SendRequest<String>, port: u16, body: String) -> anyhow::Result<Vec<u8>> {
    sender.ready().await?;
    let request = Request::post("/miner_request")
        .header(HOST, format!("127.0.0.1:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .body(body)?;
    read(sender.send_request(request).await?.into_body()).await
}

async fn read(mut body: Incoming) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}
