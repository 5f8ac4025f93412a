//! One session: polls for jobs, hands results in, tells the coordinator what is loaded.
//!
//! One task owns it all; requests are tasks of their own that report back, so that a slow coordinator
//! never keeps the miner waiting.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use neurino_core::{
    JobId, JobKind, JobOutput, JobSpec, Lease, LeaseId, MicroPoints, ModelId, TextDelta,
};
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::Shared;
use super::upload::UploadError;
use super::wire::{self, Credentials};

/// How often an idle miner asks for work.
const POLL: Duration = Duration::from_secs(2);
/// How often it says what hardware it is.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How often it asks which model to load.
const SIGNAL: Duration = Duration::from_secs(600);
/// Longest wait for the answer to a request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Polls without an answer after which the session is over.
const FAILED_POLLS_MAX: u32 = 3;
/// Jobs in work at once, at most.
const TEXTS_MAX: usize = 5;
const IMAGES_MAX: usize = 1;
/// Time from receipt until a result earns nothing.
const TEXT_BUDGET: Duration = Duration::from_secs(180);
const IMAGE_BUDGET: Duration = Duration::from_secs(18);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Pieces of a stream that may wait for the line.
const PIECES: usize = 256;
/// Tells a coordinator what it talks to; the beginning says what is made.
const TEXT_VERSION: &str = concat!("llm-neurino-", env!("CARGO_PKG_VERSION"));
const IMAGE_VERSION: &str = concat!("sd-neurino-", env!("CARGO_PKG_VERSION"));

/// A job in work.
pub(crate) struct Working {
    /// As the coordinator wrote it.
    job_id: Value,
    image: bool,
    credentials: Option<Credentials>,
    received: Instant,
    deadline: Instant,
    request_secs: f64,
    /// Set for a text that is wanted as it grows.
    stream: Option<Streaming>,
    /// Whether its result is on its way.
    sending: bool,
}

/// An answer on its way word by word.
#[derive(Default)]
struct Streaming {
    pieces: Option<mpsc::Sender<String>>,
    /// All text of the answer so far.
    text: String,
    /// Bytes of it that were sent.
    sent: usize,
}

/// What the session's own tasks report.
enum Inside {
    Polled { answer: Result<Value, Trouble>, secs: f64 },
    Signalled(Option<ModelId>),
    Answered(LeaseId, Result<(), Trouble>),
}

/// Why a request did not do what it should.
enum Trouble {
    /// Nobody answered; another attempt may help.
    Unreached(String),
    /// It was refused.
    Refused(ErrorBody),
}

/// All of a session's state.
pub(crate) struct Run {
    shared: Arc<Shared>,
    key: Arc<IdentityKey>,
    reward: String,
    miner_id: String,
    device: String,
    to_miner: mpsc::Sender<CoordinatorMessage>,
    ready: Ready,
    /// The model the coordinator would like to see loaded.
    wished: Option<ModelId>,
    polling: bool,
    failed_polls: u32,
    told_hardware: Option<Instant>,
    /// Words that the person was shown.
    warned: Option<String>,
    leaving: bool,
    tasks: JoinSet<()>,
    inside: mpsc::Sender<Inside>,
    events: mpsc::Receiver<Inside>,
}

impl Run {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: IdentityKey,
        reward: String,
        miner_id: String,
        device: String,
        to_miner: mpsc::Sender<CoordinatorMessage>,
    ) -> Self {
        let (inside, events) = mpsc::channel(PIECES);
        Self {
            shared,
            key: Arc::new(key),
            reward,
            miner_id,
            device,
            to_miner,
            ready: Ready { models: Vec::new(), slots: 0 },
            wished: None,
            polling: false,
            failed_polls: 0,
            told_hardware: None,
            warned: None,
            leaving: false,
            tasks: JoinSet::new(),
            inside,
            events,
        }
    }

    /// Works until the miner hangs up and what it handed in has left, or nobody answers any more.
    pub(crate) async fn until_over(mut self, mut from_miner: mpsc::Receiver<NodeMessage>) {
        let mut polls = tokio::time::interval(POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut signals = tokio::time::interval_at(Instant::now() + SIGNAL, SIGNAL);
        signals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while self.tasks.try_join_next().is_some() {}
            if self.leaving && !self.working().values().any(|job| job.sending) {
                return;
            }
            tokio::select! {
                message = from_miner.recv(), if !self.leaving => match message {
                    Some(message) => self.on_message(message),
                    None => self.leaving = true,
                },
                Some(event) = self.events.recv() => {
                    if !self.on_event(event).await {
                        return;
                    }
                }
                _ = polls.tick() => {
                    self.drop_late().await;
                    self.poll();
                }
                _ = signals.tick() => self.signal(),
                () = self.to_miner.closed() => return,
            }
        }
    }

    fn working(&self) -> MutexGuard<'_, HashMap<LeaseId, Working>> {
        self.shared.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, message: CoordinatorMessage) {
        // Refused only when the miner has hung up.
        let _ = self.to_miner.send(message).await;
    }

    /// Words for the person, once.
    async fn notice(&mut self, words: String) {
        if self.warned.as_ref() != Some(&words) {
            tracing::warn!("the coordinator warns: {words}");
            self.warned = Some(words.clone());
            let message = format!("the network says: {words}");
            self.tell(CoordinatorMessage::Notice(ErrorBody::new(ErrorCode::Unauthorized, message)))
                .await;
        }
    }

    fn on_message(&mut self, message: NodeMessage) {
        match message {
            NodeMessage::Ready(ready) => {
                self.ready = ready;
                self.poll();
            }
            NodeMessage::Progress { lease, deltas, .. } => self.grow(lease, deltas),
            NodeMessage::Submit(submission) => self.submit(submission),
            // The protocol has no word for either: the lease runs out, and a stream breaks off.
            NodeMessage::HandBack { lease, .. } | NodeMessage::Failed { lease, .. } => {
                self.working().remove(&lease);
            }
            NodeMessage::Goodbye => self.ready.slots = 0,
            NodeMessage::Hello(_) | NodeMessage::Heartbeat { .. } => {}
        }
    }

    /// Handles a report; `false` ends the session.
    async fn on_event(&mut self, event: Inside) -> bool {
        match event {
            Inside::Polled { answer, secs } => {
                self.polling = false;
                return self.on_polled(answer, secs).await;
            }
            Inside::Signalled(model) => self.wished = model,
            Inside::Answered(lease, answer) => self.on_answered(lease, answer).await,
        }
        true
    }
}

/// Polls.
impl Run {
    /// The model to ask work for: what the coordinator wishes, if it is here, else what is loaded.
    fn model(&self) -> Option<&ModelOffer> {
        let wished = self.ready.models.iter().find(|offer| Some(&offer.id) == self.wished.as_ref());
        wished.or(self.ready.models.first())
    }

    fn poll(&mut self) {
        let busy = self.working().len();
        let Some(offer) = self.model() else { return };
        let image = offer.kind() == JobKind::Image;
        let most = if image { IMAGES_MAX } else { TEXTS_MAX }.min(self.ready.slots as usize);
        if self.polling || self.leaving || busy >= most {
            return;
        }
        let mut body =
            json!({ "miner_id": self.miner_id, "model_id": offer.id, "min_deadline": 1 });
        if self.told_hardware.is_none_or(|told| told.elapsed() >= HEARTBEAT) {
            body["hardware"] = self.device.as_str().into();
            body["version"] = if image { IMAGE_VERSION } else { TEXT_VERSION }.into();
            self.told_hardware = Some(Instant::now());
        }
        self.polling = true;
        let (shared, inside) = (Arc::clone(&self.shared), self.inside.clone());
        self.tasks.spawn(async move {
            let asked = Instant::now();
            let url = format!("{}/miner_request", shared.address);
            let answer = post(&shared, &url, &body, REQUEST_LIMIT).await;
            let secs = asked.elapsed().as_secs_f64();
            // Refused only when the session is over.
            let _ = inside.send(Inside::Polled { answer, secs }).await;
        });
    }

    async fn on_polled(&mut self, answer: Result<Value, Trouble>, secs: f64) -> bool {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Trouble::Refused(error)) => {
                self.notice(error.message).await;
                return true;
            }
            Err(Trouble::Unreached(words)) => {
                self.failed_polls += 1;
                self.told_hardware = None;
                if self.failed_polls < FAILED_POLLS_MAX {
                    return true;
                }
                let error = ErrorBody::new(ErrorCode::Unreachable, words);
                self.tell(CoordinatorMessage::Bye(error)).await;
                return false;
            }
        };
        self.failed_polls = 0;
        if answer.is_object() {
            match self.take(answer, secs) {
                Ok(lease) => {
                    self.tell(CoordinatorMessage::Assign(lease)).await;
                    self.poll();
                }
                Err(words) => self.notice(format!("a job cannot be used: {words}")).await,
            }
        } else if let Some(words) = warning(&answer) {
            self.notice(words).await;
        }
        true
    }

    /// Reads a job and remembers what its result needs.
    fn take(&mut self, body: Value, request_secs: f64) -> Result<Lease, String> {
        let job = wire::job(body, rand::random::<u64>() >> 1)?;
        let known = self.ready.models.iter().any(|offer| offer.id == *job.spec.model());
        if !known {
            return Err(format!("it is for the model {}, which is not here", job.spec.model()));
        }
        let image = job.spec.kind() == JobKind::Image;
        let budget = if image { IMAGE_BUDGET } else { TEXT_BUDGET };
        let received = Instant::now();
        let lease = Lease {
            id: LeaseId(Uuid::now_v7()),
            job: JobId(job_uuid(&job.job_id)),
            fence: 1,
            budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
            // The protocol names no price.
            quote_micro: MicroPoints(0),
            points: job.spec.kind().points(),
            rule_set: "original".into(),
            spec: job.spec,
        };
        let streamed =
            job.streamed && matches!(&lease.spec, JobSpec::Text(text) if text.choices == 1);
        let working = Working {
            job_id: job.job_id,
            image,
            credentials: job.credentials,
            received,
            deadline: received + budget,
            request_secs,
            stream: streamed.then(Streaming::default),
            sending: false,
        };
        self.working().insert(lease.id, working);
        Ok(lease)
    }

    /// Forgets jobs whose time is over: nothing will be paid for them.
    async fn drop_late(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        self.working().retain(|lease, job| {
            let keep = job.sending || now < job.deadline;
            if !keep {
                late.push(*lease);
            }
            keep
        });
        for lease in late {
            let code = ErrorCode::DeadlinePassed;
            self.tell(CoordinatorMessage::Cancel { lease, code }).await;
        }
    }

    /// Says what is loaded and asks what to load next.
    fn signal(&mut self) {
        let Some(offer) = self.model() else { return };
        let image = offer.kind() == JobKind::Image;
        let body = json!({
            "miner_id": self.miner_id,
            "model_type": if image { "SD" } else { "LLM" },
            "model_id": offer.id,
            "hardware": self.device,
            "version": if image { IMAGE_VERSION } else { TEXT_VERSION },
            "options": { "exclude_sdxl": false },
        });
        let (shared, inside) = (Arc::clone(&self.shared), self.inside.clone());
        self.tasks.spawn(async move {
            let url = format!("{}/miner_signal", shared.signal_url);
            // A wish that cannot be heard is none; the next one comes in ten minutes.
            if let Ok(answer) = post(&shared, &url, &body, REQUEST_LIMIT).await {
                let model = answer["model_id"].as_str().and_then(|id| ModelId::new(id).ok());
                let _ = inside.send(Inside::Signalled(model)).await;
            }
        });
    }
}

/// Results.
impl Run {
    /// Passes more of an answer on, up to its last whole word.
    fn grow(&mut self, lease: LeaseId, deltas: Vec<TextDelta>) {
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

    fn submit(&mut self, submission: Submission) {
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

    async fn on_answered(&mut self, lease: LeaseId, answer: Result<(), Trouble>) {
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

/// The job's own id where it is a UUID, else one made from it.
fn job_uuid(job_id: &Value) -> Uuid {
    let text = wire::id_text(job_id).unwrap_or_default();
    Uuid::try_parse(&text).unwrap_or_else(|_| {
        let digest = Sha256::digest(&text);
        Uuid::from_slice(&digest[..16]).expect("sixteen bytes")
    })
}

impl Trouble {
    fn told(self) -> ErrorBody {
        match self {
            Self::Refused(error) => error,
            Self::Unreached(words) => ErrorBody::new(ErrorCode::Unreachable, words),
        }
    }
}

async fn post(shared: &Shared, url: &str, body: &Value, limit: Duration) -> Result<Value, Trouble> {
    answer_of(shared.client.post(url).json(body).timeout(limit)).await
}

/// Sends a request and reads its answer: JSON, or a text that is none.
async fn answer_of(request: reqwest::RequestBuilder) -> Result<Value, Trouble> {
    let unreached = |e: reqwest::Error| Trouble::Unreached(e.without_url().to_string());
    let mut response = request.send().await.map_err(unreached)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreached)? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = "the coordinator's answer is too long";
            return Err(Trouble::Refused(ErrorBody::new(ErrorCode::TooLarge, message)));
        }
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes);
    let json = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    if status.is_success() {
        return Ok(json);
    }
    // Servers that are busy or broken may do better next time.
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Trouble::Unreached(format!("the coordinator answers with status {status}")));
    }
    Err(Trouble::Refused(refusal(status, &json)))
}

/// What a coordinator of ours says, or the status.
fn refusal(status: StatusCode, json: &Value) -> ErrorBody {
    let code = match status {
        StatusCode::CONFLICT => ErrorCode::StaleLease,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorCode::Unauthorized,
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        _ => ErrorCode::InvalidRequest,
    };
    let said = json["message"].as_str().or(json["detail"].as_str()).map(printable);
    let message =
        said.unwrap_or_else(|| format!("the coordinator refused it with status {status}"));
    ErrorBody::new(code, message)
}

/// The words behind `Warning:` in an answer that is no job.
fn warning(answer: &Value) -> Option<String> {
    let text = match answer {
        Value::String(text) => text.clone(),
        Value::Null => return None,
        other => other.to_string(),
    };
    let (_, words) = text.split_once("Warning:")?;
    Some(printable(words.trim().trim_matches('"')))
}

/// Words from outside, fit for a sentence: no control characters, at most 300.
fn printable(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_found_in_whatever_the_answer_is() {
        assert_eq!(warning(&json!("Warning: update")).as_deref(), Some("update"));
        assert_eq!(warning(&Value::Null), None);
        assert_eq!(warning(&json!("no job")), None);
    }

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

    #[test]
    fn a_job_has_the_same_id_each_time() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(job_uuid(&json!(id)).to_string(), id);
        assert_eq!(job_uuid(&json!(17)), job_uuid(&json!("17")));
        assert_ne!(job_uuid(&json!(17)), job_uuid(&json!(18)));
    }
}
