//! Virtual clients that read answers as they grow, one after another, and look whether every piece came
//! once and in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_core::ModelId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::report::Counted;

/// What the readers of a run saw.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// From one piece of a stream to the next.
    pub(crate) gaps: Counted,
    /// Streams read to their end.
    pub(crate) whole: u64,
    /// Streams in which a piece was missing, came twice or out of order, or that broke off.
    pub(crate) broken: u64,
    /// Requests that were refused, or never began to be answered.
    pub(crate) refused: u64,
}

/// What the readers share.
pub(crate) struct Source {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) model: ModelId,
    /// Pieces of an answer, see [`piece`].
    pub(crate) pieces: u32,
}

/// A piece of every answer: its number, so that a reader sees what is missing.
pub(crate) fn piece(number: u32) -> String {
    format!("{number} ")
}

/// Keeps one stream open for each key until it is time, and waits for the last ones.
pub(crate) async fn read_all(source: Source, keys: Vec<String>, until: Instant) -> Streamed {
    let source = Arc::new(source);
    let mut readers = JoinSet::new();
    for (number, key) in keys.into_iter().enumerate() {
        let source = Arc::clone(&source);
        readers.spawn(async move {
            // Not all at once, so that streams begin and end all the time.
            tokio::time::sleep(Duration::from_millis(37 * number as u64 % 5_000)).await;
            let mut seen = Streamed::default();
            while Instant::now() < until {
                read(&source, &key, &mut seen).await;
            }
            seen
        });
    }
    let mut all = Streamed::default();
    while let Some(one) = readers.join_next().await {
        let Ok(one) = one else { continue };
        all.gaps.append(&one.gaps);
        all.whole += one.whole;
        all.broken += one.broken;
        all.refused += one.refused;
    }
    all
}

async fn read(source: &Source, key: &str, seen: &mut Streamed) {
    let body = json!({
        "model": source.model,
        "messages": [{ "role": "user", "content": "count" }],
        "max_tokens": source.pieces,
        "stream": true,
    });
    let request = source.http.post(format!("{}/v1/chat/completions", source.url)).bearer_auth(key);
    let answer = request.json(&body).send().await;
    let Some(mut answer) = answer.ok().filter(|answer| answer.status().is_success()) else {
        seen.refused += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
        return;
    };
    let (mut text, mut unread) = (String::new(), Vec::new());
    let (mut done, mut last) = (false, None::<Instant>);
    while let Ok(Some(chunk)) = answer.chunk().await {
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            seen.gaps.add(now - last);
        }
        unread.extend_from_slice(&chunk);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.trim().strip_prefix("data: ") {
                Some("[DONE]") => done = true,
                Some(data) => {
                    let event: Value = serde_json::from_str(data).unwrap_or_default();
                    let delta = &event["choices"][0]["delta"]["content"];
                    text.push_str(delta.as_str().unwrap_or_default());
                }
                None => {}
            }
        }
    }
    let expected: String = (0..source.pieces).map(piece).collect();
    if done && text.trim_end() == expected.trim_end() {
        seen.whole += 1;
    } else {
        seen.broken += 1;
    }
}
