//! Following one job: the writing half (`Feed`) and the reading half ([`JobWatch`]).
//!
//! The feed keeps the text so far, so a slow reader never loses a piece and costs no queue: it
//! reads on from where it stopped.

use futures::Stream;
use neurino_core::{JobOutput, NodeId, Receipt};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::watch;

/// One step of a job. `Finished` and `Failed` are last.
#[derive(Debug, Clone, PartialEq)]
pub enum JobUpdate {
    /// The job waits for a node. After `Leased` it means that the attempt is over and another one
    /// follows: text received so far is void.
    Queued,
    /// A node works on it.
    Leased {
        /// The node.
        node: NodeId,
    },
    /// More text.
    Delta {
        /// The text since the last update.
        text: String,
    },
    /// A result was accepted and paid.
    Finished {
        /// The result.
        output: JobOutput,
        /// What was paid for it.
        receipt: Box<Receipt>,
    },
    /// Given up or withdrawn; nothing was paid.
    Failed(ErrorBody),
}

/// Where a job stands, as its watchers see it.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Queued,
    Leased(NodeId),
    Finished(Box<(JobOutput, Receipt)>),
    Failed(ErrorBody),
}

#[derive(Debug, Clone)]
pub(crate) struct FeedState {
    /// Rises with each return to the queue.
    round: u32,
    phase: Phase,
    text: String,
}

/// The writing half.
#[derive(Debug)]
pub(crate) struct Feed(watch::Sender<FeedState>);

impl Feed {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(FeedState { round: 0, phase: Phase::Queued, text: String::new() }))
    }

    pub(crate) fn queued(&self) {
        self.0.send_modify(|s| {
            s.round += 1;
            s.phase = Phase::Queued;
            s.text.clear();
        });
    }

    pub(crate) fn leased(&self, node: NodeId) {
        self.0.send_modify(|s| s.phase = Phase::Leased(node));
    }

    /// Appends text unless the answer would outgrow `bytes_max`; says whether it fit.
    pub(crate) fn delta(&self, text: &str, bytes_max: usize) -> bool {
        let mut fits = true;
        self.0.send_if_modified(|s| {
            fits = s.text.len() + text.len() <= bytes_max;
            if fits {
                s.text.push_str(text);
            }
            fits && !text.is_empty()
        });
        fits
    }

    /// Whether an answer continues what was streamed.
    pub(crate) fn is_prefix_of(&self, text: &str) -> bool {
        text.starts_with(&self.0.borrow().text)
    }

    /// Ends the feed; the part of the answer that was not streamed becomes its last piece.
    pub(crate) fn finished(&self, output: JobOutput, receipt: Receipt) {
        self.0.send_modify(|s| {
            let JobOutput::Text(answer) = &output;
            if answer.text.starts_with(&s.text) {
                s.text.clone_from(&answer.text);
            }
            s.phase = Phase::Finished(Box::new((output, receipt)));
        });
    }

    pub(crate) fn failed(&self, error: ErrorBody) {
        self.0.send_modify(|s| s.phase = Phase::Failed(error));
    }

    pub(crate) fn watch(&self) -> JobWatch {
        JobWatch { feed: self.0.subscribe(), seen: None, text_seen: 0, done: false, terminal: None }
    }
}

/// The updates of one job, from its present state on.
#[derive(Debug)]
pub struct JobWatch {
    feed: watch::Receiver<FeedState>,
    /// Round and whether its lease was told.
    seen: Option<(u32, bool)>,
    text_seen: usize,
    done: bool,
    /// For a job that had ended before anybody watched.
    terminal: Option<JobUpdate>,
}

impl JobWatch {
    /// A watch on a job that has ended.
    pub(crate) fn ended(update: JobUpdate) -> Self {
        let feed = Feed::new().0.subscribe();
        Self { feed, seen: None, text_seen: 0, done: false, terminal: Some(update) }
    }

    /// The next update; `None` after the last one. A coordinator that shuts down ends the watch
    /// with `Failed` and [`ErrorCode::Unreachable`]: the job itself goes on after a restart.
    pub async fn next(&mut self) -> Option<JobUpdate> {
        if self.done {
            return None;
        }
        if let Some(update) = self.terminal.take() {
            self.done = true;
            return Some(update);
        }
        loop {
            if let Some(update) = self.step() {
                return Some(update);
            }
            if self.feed.changed().await.is_err() {
                // The last state may have arrived together with the end of the feed.
                if let Some(update) = self.step() {
                    return Some(update);
                }
                self.done = true;
                return Some(JobUpdate::Failed(crate::error::shutting_down()));
            }
        }
    }

    /// What the feed has beyond what was told, one piece at a time.
    fn step(&mut self) -> Option<JobUpdate> {
        let state = self.feed.borrow_and_update();
        let told_lease = match self.seen {
            Some((round, leased)) if round == state.round => leased,
            None if matches!(state.phase, Phase::Finished(_)) => true,
            _ if matches!(state.phase, Phase::Failed(_)) => true,
            _ => {
                self.seen = Some((state.round, false));
                self.text_seen = 0;
                return Some(JobUpdate::Queued);
            }
        };
        match &state.phase {
            Phase::Leased(node) if !told_lease => {
                self.seen = Some((state.round, true));
                Some(JobUpdate::Leased { node: node.clone() })
            }
            Phase::Leased(_) | Phase::Finished(_) if self.text_seen < state.text.len() => {
                let text = state.text[self.text_seen..].to_owned();
                self.text_seen = state.text.len();
                Some(JobUpdate::Delta { text })
            }
            Phase::Queued | Phase::Leased(_) => None,
            Phase::Finished(both) => {
                self.done = true;
                let (output, receipt) = (both.0.clone(), Box::new(both.1.clone()));
                Some(JobUpdate::Finished { output, receipt })
            }
            Phase::Failed(error) => {
                self.done = true;
                Some(JobUpdate::Failed(error.clone()))
            }
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The error the job ended with.
    pub async fn finished(mut self) -> Result<(JobOutput, Receipt), ErrorBody> {
        while let Some(update) = self.next().await {
            match update {
                JobUpdate::Finished { output, receipt } => return Ok((output, *receipt)),
                JobUpdate::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Err(ErrorBody::new(ErrorCode::Internal, "the job's end was consumed before"))
    }

    /// The updates as a stream.
    pub fn into_stream(self) -> impl Stream<Item = JobUpdate> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            watch.next().await.map(|update| (update, watch))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_reader_gets_the_whole_text_and_a_new_round_voids_it() {
        let feed = Feed::new();
        let node = NodeId::new("0xab").expect("valid");
        feed.leased(node.clone());
        assert!(feed.delta("Hel", 8));
        assert!(feed.delta("lo", 8));
        assert!(!feed.delta("overflow", 8), "text past the limit is refused");
        let mut watch = feed.watch();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        assert_eq!(watch.next().await, Some(JobUpdate::Leased { node: node.clone() }));
        assert_eq!(watch.next().await, Some(JobUpdate::Delta { text: "Hello".into() }));
        feed.queued();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        let error = ErrorBody::new(ErrorCode::Cancelled, "withdrawn");
        feed.failed(error.clone());
        assert_eq!(watch.next().await, Some(JobUpdate::Failed(error)));
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn a_feed_that_ends_says_so() {
        let feed = Feed::new();
        let mut watch = feed.watch();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        drop(feed);
        assert!(matches!(
            watch.next().await,
            Some(JobUpdate::Failed(ErrorBody { code: ErrorCode::Unreachable, .. }))
        ));
        assert_eq!(watch.next().await, None);
    }
}
