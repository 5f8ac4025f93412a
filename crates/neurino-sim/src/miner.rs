//! A virtual miner: a session over a real WebSocket, answers after a while, results kept until they are
//! settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_client::{Coordinator as _, HttpCoordinator, Session};
use neurino_core::{
    FinishReason, JobId, JobOutput, JobSpec, Lease, LeaseId, ModelId, NodeId, ResultStatement,
    TextDelta, TextOutput, Usage,
};
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, HEARTBEAT_SECS, IDLE_HEARTBEAT_SECS, ModelOffer, NodeMessage,
    Ready, Submission,
};
use neurino_wallet::IdentityKey;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use crate::pictures::{self, PAINTER};
use crate::streams::piece;
use crate::world::PAINTS;

/// What happened at a miner.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen {
    /// A session was opened.
    Connected,
    /// A session ended that nobody wanted to end.
    Disconnected,
    /// A job arrived.
    Assigned(JobId, Instant),
    /// A result was paid.
    Settled { job: JobId, at: Instant, picture: bool },
    /// A result was refused; whether it had been handed in after its lease.
    Rejected { late: bool },
}

/// How a miner behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Jobs at once.
    pub(crate) slots: u32,
    /// Median of the time a job takes, lognormal with a spread of 0.5.
    pub(crate) service_ms: u64,
    /// Pieces in which an answer comes while it is made, 20 ms apart; 0 is one answer at the end.
    pub(crate) pieces: u32,
    /// Per mille of jobs whose result is handed in after the lease's end.
    pub(crate) late_permille: u32,
}

/// What all miners share.
pub(crate) struct Shared {
    pub(crate) key: IdentityKey,
    pub(crate) model: ModelId,
    pub(crate) urls: Vec<String>,
    pub(crate) seen: mpsc::UnboundedSender<Seen>,
    pub(crate) manner: Manner,
    /// Whether every tenth of them paints instead.
    pub(crate) paints: bool,
}

/// How often a result that is not settled is handed in again.
const RESEND: Duration = Duration::from_secs(3);
/// From one piece of an answer to the next: 50 tokens a second.
const PIECE: Duration = Duration::from_millis(20);
/// Pause before another attempt to connect.
const RECONNECT: Duration = Duration::from_millis(300);

/// A result that is not settled yet.
struct Held {
    submission: Submission,
    late: bool,
    sent: Instant,
}

/// Works until its task is aborted, which is its power cut.
pub(crate) async fn run(shared: Arc<Shared>, number: u64, start_after: Duration) {
    tokio::time::sleep(start_after).await;
    let node = NodeId::new(format!("{}-m{number}", shared.key.address())).expect("a valid node id");
    let url = &shared.urls[number as usize % shared.urls.len()];
    let Ok(coordinator) = HttpCoordinator::new(url) else { return };
    let capabilities = Capabilities {
        device: "virtual".into(),
        memory_bytes: 1 << 33,
        gpu: true,
        referred_by: None,
    };
    let mut miner = Miner {
        rng: StdRng::seed_from_u64(number),
        node,
        paints: shared.paints && number.is_multiple_of(PAINTS),
        results: HashMap::new(),
        working: HashMap::new(),
        shared,
    };
    loop {
        let (key, node) = (&miner.shared.key, &miner.node);
        if let Ok(session) = coordinator.connect(key, node, &capabilities).await {
            miner.tell(Seen::Connected);
            miner.serve(session).await;
            miner.tell(Seen::Disconnected);
        }
        let pause = RECONNECT + Duration::from_millis(miner.rng.random_range(0..300));
        tokio::time::sleep(pause).await;
    }
}

struct Miner {
    rng: StdRng,
    node: NodeId,
    paints: bool,
    results: HashMap<LeaseId, Held>,
    working: HashMap<LeaseId, (Lease, tokio::time::Instant, bool)>,
    shared: Arc<Shared>,
}

impl Miner {
    fn tell(&self, seen: Seen) {
        // Nobody listens once the run is over.
        let _ = self.shared.seen.send(seen);
    }

    /// Works until the session ends.
    async fn serve(&mut self, mut session: Session) {
        let models = vec![if self.paints {
            let id = ModelId::new(PAINTER).expect("a valid model id");
            ModelOffer { id, image: Some(pictures::usual()) }
        } else {
            ModelOffer::text(self.shared.model.clone())
        }];
        let ready = Ready::new(models, self.shared.manner.slots);
        let mut out = vec![NodeMessage::Ready(ready), self.heartbeat()];
        let mut beat_at = tokio::time::Instant::now() + self.pause_of_beats();
        for held in self.results.values_mut() {
            held.sent = Instant::now();
            out.push(NodeMessage::Submit(held.submission.clone()));
        }
        loop {
            for message in out.drain(..) {
                if session.outbox.send(message).await.is_err() {
                    return;
                }
            }
            let due = self.working.values().map(|(_, due, _)| *due).min();
            let done = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = session.messages.recv() => match message {
                    Some(message) => {
                        self.hear(message, &session.outbox);
                        beat_at = beat_at.min(tokio::time::Instant::now() + self.pause_of_beats());
                    }
                    None => return,
                },
                () = done => self.finish(&mut out),
                () = tokio::time::sleep_until(beat_at) => {
                    beat_at = tokio::time::Instant::now() + self.pause_of_beats();
                    out.push(self.heartbeat());
                    for held in self.results.values_mut().filter(|h| h.sent.elapsed() > RESEND) {
                        held.sent = Instant::now();
                        out.push(NodeMessage::Submit(held.submission.clone()));
                    }
                }
            }
        }
    }

    fn pause_of_beats(&self) -> Duration {
        let idle = self.working.is_empty() && self.results.is_empty();
        Duration::from_secs(if idle { IDLE_HEARTBEAT_SECS } else { HEARTBEAT_SECS })
    }

    fn heartbeat(&self) -> NodeMessage {
        let leases = self.working.keys().chain(self.results.keys()).copied().collect();
        NodeMessage::Heartbeat { leases }
    }

    fn hear(&mut self, message: CoordinatorMessage, outbox: &mpsc::Sender<NodeMessage>) {
        match message {
            CoordinatorMessage::Assign(lease) => {
                self.tell(Seen::Assigned(lease.job, Instant::now()));
                let manner = self.shared.manner;
                let late = self.rng.random_ratio(manner.late_permille, 1000);
                let ms = if late {
                    lease.budget_ms + 500
                } else if manner.pieces > 0 {
                    tokio::spawn(speak(outbox.clone(), lease.id, manner.pieces));
                    (PIECE * manner.pieces).as_millis() as u64
                } else {
                    lognormal(&mut self.rng, manner.service_ms)
                };
                let due = tokio::time::Instant::now() + Duration::from_millis(ms);
                self.working.insert(lease.id, (lease, due, late));
            }
            CoordinatorMessage::Cancel { lease, .. }
                // A late miner is one that did not listen.
                if self.working.get(&lease).is_some_and(|(.., late)| !late) => {
                    self.working.remove(&lease);
                }
            CoordinatorMessage::Settled(receipt)
                if self.results.remove(&receipt.lease).is_some() => {
                    let (job, at, picture) = (receipt.job, Instant::now(), self.paints);
                    self.tell(Seen::Settled { job, at, picture });
                }
            CoordinatorMessage::Rejected { lease, .. } => {
                if let Some(held) = self.results.remove(&lease) {
                    self.tell(Seen::Rejected { late: held.late });
                }
            }
            _ => {}
        }
    }

    fn answer(&self) -> JobOutput {
        let (text, tokens) = match self.shared.manner.pieces {
            0 => ("an answer of a virtual miner that computes nothing".to_owned(), 24),
            pieces => ((0..pieces).map(piece).collect(), pieces),
        };
        let usage = Usage { prompt_tokens: 8, completion_tokens: tokens };
        JobOutput::Text(TextOutput::single(text, FinishReason::Stop, usage))
    }

    /// Signs the results that are due.
    fn finish(&mut self, out: &mut Vec<NodeMessage>) {
        let now = tokio::time::Instant::now();
        let due = self.working.iter().filter(|(_, (_, due, _))| *due <= now);
        let due: Vec<LeaseId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some((lease, _, late)) = self.working.remove(&id) else { continue };
            let output = match &lease.spec {
                JobSpec::Image(job) => pictures::picture_of(job),
                JobSpec::Text(_) => self.answer(),
            };
            let statement = ResultStatement {
                job: lease.job,
                lease: lease.id,
                fence: lease.fence,
                node: self.node.clone(),
                digest: output.digest(),
            };
            let signature = self.shared.key.sign(&statement.message());
            let submission = Submission { statement, signature, output };
            out.push(NodeMessage::Submit(submission.clone()));
            self.results.insert(id, Held { submission, late, sent: Instant::now() });
        }
    }
}

/// Sends an answer in pieces, as a model would that makes 50 tokens a second.
async fn speak(outbox: mpsc::Sender<NodeMessage>, lease: LeaseId, pieces: u32) {
    let mut due = tokio::time::interval(PIECE);
    for number in 0..pieces {
        due.tick().await;
        let deltas = vec![TextDelta::text(piece(number))];
        let message = NodeMessage::Progress { lease, deltas, tokens: number + 1, step: None };
        if outbox.send(message).await.is_err() {
            return;
        }
    }
}

/// A duration with this median and a spread of 0.5, at most twenty times as long.
fn lognormal(rng: &mut StdRng, median_ms: u64) -> u64 {
    // Box-Muller.
    let (u, v) = (rng.random_range(f64::EPSILON..1.0), rng.random::<f64>());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    let factor = (0.5 * normal).exp().min(20.0);
    (median_ms as f64 * factor) as u64
}
