//! What the client of a stream has already, read from the events that were sent to it, so that a
//! stream whose way was cut goes on and never begins anew.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::fabric::{Resume, Sent};

/// Largest event, in bytes: a picture in base64, and what surrounds it.
const EVENT_BYTES_MAX: usize = 24 << 20;

/// Cuts a stream into events.
#[derive(Default)]
pub(super) struct Events(Vec<u8>);

impl Events {
    /// The events that end in these bytes, each with its empty line; `None` if one is too large.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut whole = Vec::new();
        let mut searched = self.0.len().saturating_sub(1);
        self.0.extend_from_slice(bytes);
        while let Some(at) = self.0[searched..].windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.0.split_off(searched + at + 2);
            whole.push(std::mem::replace(&mut self.0, rest));
            searched = 0;
        }
        (self.0.len() <= EVENT_BYTES_MAX).then_some(whole)
    }
}

/// What was sent so far.
#[derive(Default)]
pub(super) struct Progress {
    created: i64,
    usage: bool,
    choices: Vec<(Sent, Sha256)>,
    /// Whether the last event was sent.
    pub(super) done: bool,
}

impl Progress {
    /// Notes an event; `false` if it tells nothing that a client without it would miss.
    pub(super) fn note(&mut self, event: &[u8]) -> bool {
        let Ok(event) = std::str::from_utf8(event) else { return true };
        let data = event.lines().find_map(|line| line.strip_prefix("data:")).map(str::trim_start);
        match data {
            None => true,
            Some("[DONE]") => {
                self.done = true;
                true
            }
            Some(data) => match serde_json::from_str::<Value>(data) {
                Ok(value) => self.note_value(&value),
                Err(_) => true,
            },
        }
    }

    fn note_value(&mut self, value: &Value) -> bool {
        let kind = value["type"].as_str().unwrap_or_default();
        if !value["error"].is_null() || kind.ends_with(".completed") {
            self.done = true;
        }
        self.created = value["created"].as_i64().unwrap_or(self.created);
        let choices = value["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        if choices.is_empty() && value["usage"].is_object() {
            self.usage = true;
        }
        for choice in choices {
            self.note_choice(choice);
        }
        !kind.ends_with(".partial_image")
    }

    fn note_choice(&mut self, choice: &Value) {
        /// More than any request may ask for.
        const CHOICES_MAX: usize = 1024;
        let at = choice["index"].as_u64().unwrap_or(0) as usize;
        if at >= CHOICES_MAX {
            return;
        }
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, Default::default);
        }
        let (sent, digest) = &mut self.choices[at];
        sent.begun = true;
        let delta = &choice["delta"];
        if let Some(text) = delta["content"].as_str() {
            sent.text_bytes += text.len();
            digest.update(text);
        }
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        sent.calls += count(&delta["tool_calls"]);
        sent.logprobs += count(&choice["logprobs"]["content"]);
        sent.finished |= choice["finish_reason"].is_string();
    }

    /// What the router needs to go on from here.
    pub(super) fn resume(&self) -> Resume {
        let choices = self.choices.iter().map(|(sent, digest)| Sent {
            text_digest: hex::encode(digest.clone().finalize()),
            ..sent.clone()
        });
        Resume { created: self.created, usage: self.usage, choices: choices.collect() }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_whole_wherever_they_are_cut() {
        let stream = b"data: a\n\n:\n\nevent: x\ndata: b\n\ndata: half";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            let mut whole = Vec::new();
            for piece in stream.chunks(cut) {
                whole.extend(events.push(piece).unwrap());
            }
            assert_eq!(whole.len(), 3, "{cut}");
            assert_eq!(whole[2], b"event: x\ndata: b\n\n", "{cut}");
        }
        let mut events = Events::default();
        assert!(events.push(&vec![b'x'; EVENT_BYTES_MAX + 1]).is_none());
    }

    fn event(value: &Value) -> Vec<u8> {
        format!("data: {value}\n\n").into_bytes()
    }

    #[test]
    fn what_was_sent_is_counted() {
        let mut progress = Progress::default();
        let chunk = |choice: Value| event(&json!({ "created": 7, "choices": [choice] }));
        progress
            .note(&chunk(json!({ "index": 1, "delta": { "role": "assistant", "content": "" } })));
        progress.note(&chunk(json!({ "index": 1, "delta": { "content": "Grü" } })));
        progress.note(b":\n\n");
        progress.note(&chunk(json!({ "index": 1, "delta": { "content": "ße" },
            "logprobs": { "content": [{}, {}] }, "finish_reason": "stop" })));
        let resume = progress.resume();
        assert_eq!((resume.created, resume.choices.len(), resume.usage), (7, 2, false));
        assert_eq!(resume.choices[0].text_bytes, 0);
        let sent = &resume.choices[1];
        assert!(sent.begun && sent.finished && !progress.done);
        assert_eq!((sent.text_bytes, sent.logprobs), ("Grüße".len(), 2));
        assert_eq!(sent.text_digest, hex::encode(Sha256::digest("Grüße")));
        progress.note(&event(&json!({ "choices": [], "usage": { "total_tokens": 1 } })));
        assert!(progress.resume().usage);
        progress.note(b"data: [DONE]\n\n");
        assert!(progress.done);
    }

    #[test]
    fn only_previews_can_be_missed_and_ends_are_known() {
        let note = |value: Value| {
            let mut progress = Progress::default();
            let needed = progress.note(&event(&value));
            (needed, progress.done)
        };
        assert_eq!(note(json!({ "type": "image_generation.partial_image" })), (false, false));
        assert_eq!(note(json!({ "type": "image_generation.completed" })), (true, true));
        assert_eq!(note(json!({ "error": { "message": "x" } })), (true, true));
        assert_eq!(note(json!({ "choices": [{ "index": 99_999_999 }] })), (true, false));
        assert_eq!(note(json!(["odd"])), (true, false));
        let mut progress = Progress::default();
        assert!(progress.note(b"data: {broken\n\n") && progress.note(&[0xff, b'\n', b'\n']));
    }
}
