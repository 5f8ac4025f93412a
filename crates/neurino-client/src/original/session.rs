//! One session: polls for jobs, hands results in, tells the coordinator what is loaded.
//!
//! One task owns it all; requests are tasks of their own that report back, so that a slow coordinator
//! never keeps the miner waiting.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use neurino_core::{JobId, JobKind, JobSpec, Lease, LeaseId, MicroPoints, ModelId};
use neurino_protocol::node::{CoordinatorMessage, ModelOffer, NodeMessage, Ready};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::Shared;
use super::ask::{REQUEST_LIMIT, Trouble, post, printable};
use super::results::Streaming;
use super::wire::{self, Credentials};

/// How often an idle miner asks for work.
const POLL: Duration = Duration::from_secs(2);
/// How often it says what hardware it is.
const HEARTBEAT: Duration = Duration::from_mins(1);
/// How often it asks which model to load.
const SIGNAL: Duration = Duration::from_mins(10);
/// Polls without an answer after which the session is over.
const FAILED_POLLS_MAX: u32 = 3;
/// Jobs in work at once, at most.
const TEXTS_MAX: usize = 5;
const IMAGES_MAX: usize = 1;
/// Time from receipt until a result earns nothing.
const TEXT_BUDGET: Duration = Duration::from_mins(3);
const IMAGE_BUDGET: Duration = Duration::from_secs(18);
/// Pieces of a stream that may wait for the line.
pub(crate) const PIECES: usize = 256;
/// Tells a coordinator what it talks to; the beginning says what is made.
const TEXT_VERSION: &str = concat!("llm-neurino-", env!("CARGO_PKG_VERSION"));
const IMAGE_VERSION: &str = concat!("sd-neurino-", env!("CARGO_PKG_VERSION"));

/// A job in work.
pub(crate) struct Working {
    /// As the coordinator wrote it.
    pub(crate) job_id: Value,
    pub(crate) image: bool,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) received: Instant,
    pub(crate) deadline: Instant,
    pub(crate) request_secs: f64,
    /// Set for a text that is wanted as it grows.
    pub(crate) stream: Option<Streaming>,
    /// Whether its result is on its way.
    pub(crate) sending: bool,
}

/// What the session's own tasks report.
pub(crate) enum Inside {
    Polled { answer: Result<Value, Trouble>, secs: f64 },
    Signalled(Option<ModelId>),
    Answered(LeaseId, Result<(), Trouble>),
}

/// All of a session's state.
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Arc<IdentityKey>,
    pub(crate) reward: String,
    pub(crate) miner_id: String,
    device: String,
    to_miner: mpsc::Sender<CoordinatorMessage>,
    ready: Ready,
    /// The model the coordinator would like to see loaded.
    wished: Option<ModelId>,
    polling: bool,
    failed_polls: u32,
    told_hardware: Option<Instant>,
    /// Words that the person was shown.
    pub(crate) warned: Option<String>,
    leaving: bool,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) inside: mpsc::Sender<Inside>,
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
            ready: Ready::default(),
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
    pub(crate) async fn until_over(mut self, from_miner: mpsc::Receiver<NodeMessage>) {
        self.work(from_miner).await;
        // Requests end with the session; the next one sends what was on its way, in one piece.
        for job in self.working().values_mut().filter(|job| job.sending) {
            (job.sending, job.stream) = (false, None);
        }
    }

    async fn work(&mut self, mut from_miner: mpsc::Receiver<NodeMessage>) {
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

    pub(crate) fn working(&self) -> MutexGuard<'_, HashMap<LeaseId, Working>> {
        self.shared.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn tell(&self, message: CoordinatorMessage) {
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
            // The last two are said only where the coordinator offered it, which this protocol cannot.
            NodeMessage::Hello(_)
            | NodeMessage::Heartbeat { .. }
            | NodeMessage::Upload { .. }
            | NodeMessage::Uploaded(_)
            | NodeMessage::FileShown(_) => {}
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
            job: JobId(job_uuid(&job.id)),
            fence: 1,
            budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
            // The protocol names no price.
            quote_micro: MicroPoints(0),
            points: job.spec.kind().points(),
            rule_set: "original".into(),
            spec: job.spec,
            unit: None,
        };
        let streamed =
            job.streamed && matches!(&lease.spec, JobSpec::Text(text) if text.choices == 1);
        let working = Working {
            job_id: job.id,
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

/// The job's own id where it is a UUID, else one made from it.
fn job_uuid(job_id: &Value) -> Uuid {
    let text = wire::id_text(job_id).unwrap_or_default();
    Uuid::try_parse(&text).unwrap_or_else(|_| {
        let digest = Sha256::digest(&text);
        Uuid::from_slice(&digest[..16]).expect("sixteen bytes")
    })
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
    fn a_job_has_the_same_id_each_time() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(job_uuid(&json!(id)).to_string(), id);
        assert_eq!(job_uuid(&json!(17)), job_uuid(&json!("17")));
        assert_ne!(job_uuid(&json!(17)), job_uuid(&json!(18)));
    }
}
