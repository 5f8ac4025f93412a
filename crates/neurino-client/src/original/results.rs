//! Handing results in: whole, with a picture uploaded before, or word by word as they grow.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use neurino_core::{JobOutput, LeaseId, TextDelta};
use neurino_protocol::node::{CoordinatorMessage, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::ask::{REQUEST_LIMIT, Trouble, answer_of, post};
use super::session::{Inside, PIECES, Run, Working};
use super::upload::UploadError;
use super::wire::{self, Credentials};

/// An answer on its way word by word.
#[derive(Default)]
pub(crate) struct Streaming {
    pieces: Option<mpsc::Sender<String>>,
    /// All text of the answer so far.
    text: String,
    /// Bytes of it that were sent.
    sent: usize,
}

/// Results.
impl Run {
    /// Passes more of an answer on, up to its last whole word.
    pub(crate) fn grow(&mut self, lease: LeaseId, deltas: Vec<TextDelta>) {
        let request = {
            let mut working = self.working();
            let Some(stream) = working.get_mut(&lease).and_then(|job| job.stream.as_mut()) else {
                return;
            };
            stream.text.extend(deltas.into_iter().filter(|d| d.choice == 0).map(|d| d.text));
            if stream.text.is_empty() {
                return;
            }
            let begun = stream.pieces.is_some();
            let receiver = (!begun).then(|| stream.begin());
            stream.send_words();
            receiver
        };
        if let Some(pieces) = request {
            self.stream(lease, pieces);
        }
    }

    /// Sends the pieces of an answer in one request.
    fn stream(&mut self, lease: LeaseId, pieces: mpsc::Receiver<String>) {
        let (job_id, deadline) = {
            let working = self.working();
            let Some(job) = working.get(&lease) else { return };
            (wire::id_text(&job.job_id).unwrap_or_default(), job.deadline)
        };
        let body = futures::stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((Ok::<String, std::io::Error>(piece), pieces))
        });
        let request = self
            .shared
            .client
            .post(format!("{}/miner_submit_stream", self.shared.address))
            .header("job_id", job_id)
            .header("miner_id", &self.miner_id)
            .header("content-type", "text/event-stream")
            .timeout(deadline.saturating_duration_since(Instant::now()) + REQUEST_LIMIT)
            .body(reqwest::Body::wrap_stream(body));
        let inside = self.inside.clone();
        self.tasks.spawn(async move {
            let answer = answer_of(request).await.map(drop);
            // What was streamed cannot be streamed again.
            let answer = answer.map_err(|trouble| Trouble::Refused(trouble.told()));
            let _ = inside.send(Inside::Answered(lease, answer)).await;
        });
    }

    pub(crate) fn submit(&mut self, submission: Submission) {
        let lease = submission.statement.lease;
        let Submission { output, .. } = submission;
        let now = Instant::now();
        let mut stream = None;
        let plan = {
            let mut working = self.working();
            match working.get_mut(&lease) {
                None => Err(ErrorBody::new(
                    ErrorCode::StaleLease,
                    "the job ended with the program that took it; this protocol cannot hand it in later",
                )),
                Some(job) if job.sending => return,
                Some(job) if now >= job.deadline => Err(ErrorBody::new(
                    ErrorCode::DeadlinePassed,
                    "the result came after the deadline",
                )),
                Some(job) => {
                    job.sending = true;
                    if let (Some(streaming), JobOutput::Text(answer)) = (&mut job.stream, &output) {
                        stream = Some((streaming.pieces.is_none()).then(|| streaming.begin()));
                        streaming.finish(answer.text());
                        Ok(None)
                    } else {
                        Ok(Some(Plan::of(job)))
                    }
                }
            }
        };
        match plan {
            Err(error) => {
                self.working().remove(&lease);
                let inside = self.inside.clone();
                self.tasks.spawn(async move {
                    let answer = Err(Trouble::Refused(error));
                    let _ = inside.send(Inside::Answered(lease, answer)).await;
                });
            }
            Ok(None) => {
                if let Some(Some(pieces)) = stream {
                    self.stream(lease, pieces);
                }
            }
            Ok(Some(plan)) => self.hand_in(lease, plan, output),
        }
    }

    /// Uploads what is a picture, then submits.
    fn hand_in(&mut self, lease: LeaseId, plan: Plan, output: JobOutput) {
        let (shared, inside, key) =
            (Arc::clone(&self.shared), self.inside.clone(), Arc::clone(&self.key));
        let (miner_id, reward) = (self.miner_id.clone(), self.reward.clone());
        self.tasks.spawn(async move {
            let handing = plan.hand_in(&shared, &key, &miner_id, &reward, output);
            let answer = match tokio::time::timeout_at(plan.deadline, handing).await {
                Ok(answer) => answer,
                Err(_) => Err(Trouble::Refused(ErrorBody::new(
                    ErrorCode::DeadlinePassed,
                    "the result could not be sent before the deadline",
                ))),
            };
            let _ = inside.send(Inside::Answered(lease, answer)).await;
        });
    }

    pub(crate) async fn on_answered(&mut self, lease: LeaseId, answer: Result<(), Trouble>) {
        match answer {
            Ok(()) => {
                self.working().remove(&lease);
                self.warned = None;
                self.tell(CoordinatorMessage::Accepted { lease }).await;
            }
            Err(Trouble::Refused(error)) => {
                self.working().remove(&lease);
                self.tell(CoordinatorMessage::Rejected { lease, job: None, error }).await;
            }
            // The miner sends it again after a while.
            Err(Trouble::Unreached(words)) => {
                tracing::warn!(lease.id = %lease, "a result did not get through: {words}");
                if let Some(job) = self.working().get_mut(&lease) {
                    job.sending = false;
                }
            }
        }
    }
}

impl Streaming {
    fn begin(&mut self) -> mpsc::Receiver<String> {
        let (pieces, receiver) = mpsc::channel(PIECES);
        self.pieces = Some(pieces);
        receiver
    }

    /// Sends the whole words that were not sent; what finds no room goes with the next ones.
    fn send_words(&mut self) {
        let Some(pieces) = &self.pieces else { return };
        let rest = &self.text[self.sent..];
        let whole = rest.rfind([' ', '\n']).map_or(0, |at| at + 1);
        if whole > 0 && pieces.try_send(rest[..whole].to_owned()).is_ok() {
            self.sent += whole;
        }
    }

    /// Sends the rest of the answer and the mark at its end.
    fn finish(&mut self, answer: &str) {
        let Some(pieces) = self.pieces.take() else { return };
        let rest = answer.get(self.sent..).unwrap_or_default().to_owned();
        tokio::spawn(async move {
            for piece in [rest, "[DONE]".to_owned()].into_iter().filter(|piece| !piece.is_empty()) {
                if pieces.send(piece).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// What handing a result in needs.
struct Plan {
    job_id: Value,
    image: bool,
    credentials: Option<Credentials>,
    request_secs: f64,
    inference_secs: f64,
    deadline: Instant,
}

impl Plan {
    fn of(job: &Working) -> Self {
        Self {
            job_id: job.job_id.clone(),
            image: job.image,
            credentials: job.credentials.clone(),
            request_secs: job.request_secs,
            inference_secs: job.received.elapsed().as_secs_f64(),
            deadline: job.deadline,
        }
    }

    async fn hand_in(
        &self,
        shared: &Shared,
        key: &IdentityKey,
        miner_id: &str,
        reward: &str,
        output: JobOutput,
    ) -> Result<(), Trouble> {
        let (identity, signature) = (key.address(), hourly(key, reward, SystemTime::now()));
        let mut body = json!({
            "miner_id": miner_id,
            "job_id": self.job_id,
            "request_latency": self.request_secs,
            "inference_latency": self.inference_secs,
            "signature": signature,
            "identity_address": identity,
        });
        match output {
            JobOutput::Text(answer) => {
                body["result"] = json!({ "Text": wire::choices(&answer) });
            }
            JobOutput::Image(picture) => {
                let id = wire::id_text(&self.job_id).unwrap_or_default();
                let object = format!("{id}-{miner_id}.png");
                let started = Instant::now();
                if let Some(credentials) = &self.credentials {
                    upload(shared, &object, credentials, picture.png.0).await?;
                }
                body["result"] = json!({ "S3Key": object });
                body["loading_latency"] = Value::Null;
                body["upload_latency"] = json!(started.elapsed().as_secs_f64());
            }
        }
        debug_assert_eq!(self.image, body["result"].get("S3Key").is_some(), "of the asked kind");
        let url = format!("{}/miner_submit", shared.address);
        post(shared, &url, &body, REQUEST_LIMIT).await.map(drop)
    }
}

async fn upload(
    shared: &Shared,
    object: &str,
    credentials: &Credentials,
    png: Vec<u8>,
) -> Result<(), Trouble> {
    let error = match shared.uploads.put(object, credentials, png).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    tracing::warn!(error = &error as &dyn std::error::Error, "a picture was not uploaded");
    if error.passes() {
        return Err(Trouble::Unreached(error.to_string()));
    }
    let code = match error {
        UploadError::Private => ErrorCode::InvalidRequest,
        _ => ErrorCode::Unauthorized,
    };
    Err(Trouble::Refused(ErrorBody::new(code, error.to_string())))
}

/// The signature that a result carries: over the reward address and the hour.
fn hourly(key: &IdentityKey, reward: &str, now: SystemTime) -> String {
    let secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    key.sign(&format!("{reward}-{}", secs - secs % 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_leave_whole() {
        let mut stream = Streaming::default();
        let mut pieces = stream.begin();
        for text in ["Hel", "lo wo", "rld\nand"] {
            stream.text.push_str(text);
            stream.send_words();
        }
        let mut sent = Vec::new();
        while let Ok(piece) = pieces.try_recv() {
            sent.push(piece);
        }
        assert_eq!(sent, ["Hello ", "world\n"]);
        assert_eq!(&stream.text[stream.sent..], "and");
    }
}
