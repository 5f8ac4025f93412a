//! Following one job: the writing half (`Feed`) and the reading half ([`JobWatch`]).
//!
//! The feed keeps the answers so far, so a slow reader never loses a piece and costs no queue: it
//! reads on from where it stopped.

use futures::Stream;
use neurino_core::{
    ImageStep, JobOutput, NodeId, Png, RatedToken, Receipt, TextChoice, TextDelta, TextJob,
    TextOutput, TokenLogprob, ToolCall,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
    /// More of an answer, since the last update of that answer.
    Delta(TextDelta),
    /// A picture's newest step, with the newest preview if that was not told before.
    Step(ImageStep),
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
    /// The answers so far, by their number; those at the end that nothing was heard of are missing.
    answers: Vec<TextDelta>,
    /// What their text and calls cost, see [`FeedLimits::bytes`].
    bytes: usize,
    /// Bytes of their rated tokens.
    rated_bytes: usize,
    /// The newest step of a picture, without its preview.
    step: Option<ImageStep>,
    /// The newest preview and its step.
    preview: Option<(u32, Png)>,
    /// What the node computes with, see [`JobWatch::fingerprint`].
    fingerprint: Option<String>,
}

/// How much of an answer is known.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    text_bytes: usize,
    calls: usize,
    logprobs: usize,
}

impl Seen {
    fn of(answer: &TextDelta) -> Self {
        Self {
            text_bytes: answer.text.len(),
            calls: answer.tool_calls.len(),
            logprobs: answer.logprobs.len(),
        }
    }

    /// What an answer has beyond this; `None` when that is nothing.
    fn rest(self, answer: &TextDelta) -> Option<TextDelta> {
        let rest = TextDelta {
            choice: answer.choice,
            text: answer.text.get(self.text_bytes..).unwrap_or_default().to_owned(),
            tool_calls: answer.tool_calls.get(self.calls..).unwrap_or_default().to_vec(),
            logprobs: answer.logprobs.get(self.logprobs..).unwrap_or_default().to_vec(),
        };
        let empty = rest.text.is_empty() && rest.tool_calls.is_empty() && rest.logprobs.is_empty();
        (!empty).then_some(rest)
    }
}

/// A finished answer as if it had been streamed.
fn as_streamed(choice: usize, answer: &TextChoice) -> TextDelta {
    TextDelta {
        choice: u32::try_from(choice).unwrap_or(u32::MAX),
        text: answer.text.clone(),
        tool_calls: answer.tool_calls.clone(),
        logprobs: answer.logprobs.clone().unwrap_or_default(),
    }
}

/// Bytes of text and calls in an answer.
pub(crate) fn answer_bytes(answer: &TextChoice) -> usize {
    answer.text.len() + call_bytes(&answer.tool_calls)
}

fn call_bytes(calls: &[ToolCall]) -> usize {
    calls.iter().map(|c| c.id.len() + c.name.len() + c.arguments.len()).sum()
}

/// What a call costs besides its bytes: one of empty strings takes room as well.
const CALL_COST_BYTES: usize = 72;
/// Rated tokens may be of so many bytes for each byte of text. The likeliest at a place are about as
/// long as the chosen one, and there are few places where they are asked for.
const RATED_TO_TEXT: usize = 4;
/// Most bytes of a single token. The longest in use are of 128 spaces.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a job's answers may grow to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedLimits {
    /// How many answers there are.
    pub(crate) choices: u32,
    /// Bytes of text and calls in all of them; each call costs a few more.
    pub(crate) bytes: usize,
    /// Whether there are functions to call.
    pub(crate) calls: bool,
    /// Tokens with log-probabilities in each; zero unless they were asked for.
    pub(crate) logprobs: usize,
    /// Rivals of each.
    pub(crate) rivals: usize,
}

impl FeedLimits {
    /// The limits of a job on a network whose results hold at most so many bytes of text.
    pub(crate) fn of(job: &TextJob, bytes: usize) -> Self {
        let logprobs = if job.logprobs.is_some() { job.max_tokens as usize } else { 0 };
        let (calls, rivals) = (!job.tools.is_empty(), job.logprobs.unwrap_or(0) as usize);
        Self { choices: job.choices, bytes, calls, logprobs, rivals }
    }

    /// What text and calls cost of the limit.
    pub(crate) fn cost(text: &str, calls: &[ToolCall]) -> usize {
        text.len() + call_bytes(calls) + CALL_COST_BYTES * calls.len()
    }

    /// The bytes of rated tokens; none if one of them is too long, has more rivals than asked for, or
    /// a number that JSON has not.
    pub(crate) fn rated_bytes(self, rated: &[TokenLogprob]) -> Option<usize> {
        rated.iter().try_fold(0, |sum, token| {
            let tokens = || token.top.iter().chain([&token.chosen]);
            let fits = |t: &RatedToken| t.bytes.len() <= TOKEN_BYTES_MAX && t.logprob.is_finite();
            (token.top.len() <= self.rivals && tokens().all(fits))
                .then(|| sum + tokens().map(|token| token.bytes.len()).sum::<usize>())
        })
    }

    /// Most bytes of rated tokens in all answers.
    pub(crate) fn rated_bytes_max(self) -> usize {
        RATED_TO_TEXT * self.bytes
    }
}

impl FeedState {
    /// Appends a piece; `false` when it does not fit.
    fn append(&mut self, delta: TextDelta, limits: FeedLimits, changed: &mut bool) -> bool {
        let choice = delta.choice;
        if choice >= limits.choices {
            return false;
        }
        let at = choice as usize;
        if !limits.calls && !delta.tool_calls.is_empty() {
            return false;
        }
        let Some(rated_bytes) = limits.rated_bytes(&delta.logprobs) else { return false };
        let (bytes, logprobs) =
            (FeedLimits::cost(&delta.text, &delta.tool_calls), delta.logprobs.len());
        let known = self.answers.get(at).map_or(0, |answer| answer.logprobs.len());
        if self.bytes + bytes > limits.bytes
            || known + logprobs > limits.logprobs
            || self.rated_bytes + rated_bytes > limits.rated_bytes_max()
        {
            return false;
        }
        if bytes > 0 || logprobs > 0 {
            while self.answers.len() <= at {
                let choice = u32::try_from(self.answers.len()).unwrap_or(u32::MAX);
                self.answers.push(TextDelta { choice, ..TextDelta::default() });
            }
            self.bytes += bytes;
            self.rated_bytes += rated_bytes;
            self.answers[at].append(delta);
            *changed = true;
        }
        true
    }

    fn is_prefix_of(&self, output: &TextOutput) -> bool {
        self.answers.len() <= output.choices.len()
            && self.answers.iter().zip(&output.choices).all(|(streamed, answer)| {
                let logprobs = answer.logprobs.as_deref().unwrap_or_default();
                answer.text.starts_with(&streamed.text)
                    && answer.tool_calls.starts_with(&streamed.tool_calls)
                    && logprobs.starts_with(&streamed.logprobs)
            })
    }
}

/// The writing half.
#[derive(Debug)]
pub(crate) struct Feed(watch::Sender<FeedState>);

impl Feed {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(FeedState {
            round: 0,
            phase: Phase::Queued,
            answers: Vec::new(),
            bytes: 0,
            rated_bytes: 0,
            step: None,
            preview: None,
            fingerprint: None,
        }))
    }

    pub(crate) fn queued(&self) {
        self.0.send_modify(|s| {
            s.round += 1;
            s.phase = Phase::Queued;
            s.answers.clear();
            (s.bytes, s.rated_bytes) = (0, 0);
            (s.step, s.preview) = (None, None);
            s.fingerprint = None;
        });
    }

    pub(crate) fn leased(&self, node: NodeId, fingerprint: Option<String>) {
        self.0.send_modify(|s| {
            s.phase = Phase::Leased(node);
            s.fingerprint = fingerprint;
        });
    }

    /// Appends to the answers unless one of them would outgrow `limits`; says whether all fit.
    pub(crate) fn deltas(&self, deltas: Vec<TextDelta>, limits: FeedLimits) -> bool {
        let mut fits = true;
        self.0.send_if_modified(|s| {
            let mut changed = false;
            for delta in deltas {
                fits &= s.append(delta, limits, &mut changed);
            }
            changed
        });
        fits
    }

    /// Notes a picture's step, unless a later one is known.
    pub(crate) fn step(&self, mut step: ImageStep) {
        self.0.send_if_modified(|s| {
            let late = s.step.as_ref().is_some_and(|known| known.step >= step.step);
            if late {
                return false;
            }
            if let Some(preview) = step.preview.take() {
                s.preview = Some((step.step, preview));
            }
            s.step = Some(step);
            true
        });
    }

    /// Whether a result continues what was streamed.
    pub(crate) fn is_prefix_of(&self, output: &TextOutput) -> bool {
        self.0.borrow().is_prefix_of(output)
    }

    /// Ends the feed; the part of the answers that was not streamed becomes their last pieces.
    pub(crate) fn finished(&self, output: JobOutput, receipt: Receipt) {
        self.0.send_modify(|s| {
            if let JobOutput::Text(text) = &output
                && s.is_prefix_of(text)
            {
                let answers = text.choices.iter().enumerate();
                s.answers = answers.map(|(at, answer)| as_streamed(at, answer)).collect();
            }
            s.phase = Phase::Finished(Box::new((output, receipt)));
        });
    }

    pub(crate) fn failed(&self, error: ErrorBody) {
        self.0.send_modify(|s| s.phase = Phase::Failed(error));
    }

    /// Whether nothing of the answer came yet.
    pub(crate) fn is_silent(&self) -> bool {
        let state = self.0.borrow();
        state.bytes == 0 && state.answers.is_empty() && state.step.is_none()
    }

    /// Whether somebody follows it.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(crate) fn watch(&self) -> JobWatch {
        JobWatch::new(self.0.subscribe(), None)
    }
}

/// The updates of one job, from its present state on.
#[derive(Debug)]
pub struct JobWatch {
    feed: watch::Receiver<FeedState>,
    /// Round and whether its lease was told.
    seen: Option<(u32, bool)>,
    /// How much of each answer was told.
    told: Vec<Seen>,
    /// The last told step of a picture, and the last one of a told preview.
    told_step: (u32, u32),
    done: bool,
    /// For a job that had ended before anybody watched.
    terminal: Option<JobUpdate>,
    /// Ends the watch before the job.
    until: Option<CancellationToken>,
}

impl JobWatch {
    fn new(feed: watch::Receiver<FeedState>, terminal: Option<JobUpdate>) -> Self {
        Self {
            feed,
            seen: None,
            told: Vec::new(),
            told_step: (0, 0),
            done: false,
            terminal,
            until: None,
        }
    }

    /// The same, but ended as by a coordinator that shuts down when `until` is cancelled.
    pub(crate) fn until(self, until: Option<CancellationToken>) -> Self {
        Self { until, ..self }
    }

    /// A watch on a job that has ended.
    pub(crate) fn ended(update: JobUpdate) -> Self {
        Self::new(Feed::new().0.subscribe(), Some(update))
    }

    /// Names what the node of the present attempt computes with: equal for equal programs on equal
    /// devices, which with one seed give one answer. `None` while no node works on the job.
    pub fn fingerprint(&self) -> Option<String> {
        self.feed.borrow().fingerprint.clone()
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
            let changed = tokio::select! {
                changed = self.feed.changed() => changed.is_ok(),
                () = cancelled(self.until.as_ref()) => false,
            };
            if !changed {
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
                self.told.clear();
                self.told_step = (0, 0);
                return Some(JobUpdate::Queued);
            }
        };
        if let Phase::Leased(node) = &state.phase
            && !told_lease
        {
            self.seen = Some((state.round, true));
            return Some(JobUpdate::Leased { node: node.clone() });
        }
        if matches!(state.phase, Phase::Leased(_) | Phase::Finished(_)) {
            self.told.resize(state.answers.len().max(self.told.len()), Seen::default());
            for (told, answer) in self.told.iter_mut().zip(&state.answers) {
                if let Some(rest) = told.rest(answer) {
                    *told = Seen::of(answer);
                    return Some(JobUpdate::Delta(rest));
                }
            }
        }
        if let (Phase::Leased(_), Some(step)) = (&state.phase, &state.step)
            && step.step > self.told_step.0
        {
            let preview = state.preview.as_ref().filter(|(at, _)| *at > self.told_step.1);
            self.told_step = (step.step, preview.map_or(self.told_step.1, |(at, _)| *at));
            let preview = preview.map(|(_, png)| png.clone());
            return Some(JobUpdate::Step(ImageStep { preview, ..step.clone() }));
        }
        match &state.phase {
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
    pub async fn finished(&mut self) -> Result<(JobOutput, Receipt), ErrorBody> {
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

/// Waits until a token is cancelled; for ever if there is none.
async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_reader_gets_the_whole_text_and_a_new_round_voids_it() {
        let feed = Feed::new();
        let node = NodeId::new("0xab").expect("valid");
        let limits = FeedLimits { choices: 2, bytes: 8, calls: false, logprobs: 0, rivals: 0 };
        feed.leased(node.clone(), Some("fp_1".into()));
        assert!(feed.deltas(vec![TextDelta::text("Hel")], limits));
        let second = TextDelta { choice: 1, ..TextDelta::text("B") };
        assert!(feed.deltas(vec![TextDelta::text("lo"), second.clone()], limits));
        assert!(!feed.deltas(vec![TextDelta::text("overflow")], limits), "too much text");
        let third = TextDelta { choice: 2, ..TextDelta::text("C") };
        assert!(!feed.deltas(vec![third], limits), "too many answers");
        let mut watch = feed.watch();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        assert_eq!(watch.next().await, Some(JobUpdate::Leased { node: node.clone() }));
        assert_eq!(watch.next().await, Some(JobUpdate::Delta(TextDelta::text("Hello"))));
        assert_eq!(watch.next().await, Some(JobUpdate::Delta(second)));
        assert_eq!(watch.fingerprint().as_deref(), Some("fp_1"));
        feed.queued();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        let error = ErrorBody::new(ErrorCode::Cancelled, "withdrawn");
        feed.failed(error.clone());
        assert_eq!(watch.next().await, Some(JobUpdate::Failed(error)));
        assert_eq!(watch.next().await, None);
    }

    #[test]
    fn what_is_streamed_costs_what_it_takes_to_keep() {
        let limits = FeedLimits { choices: 1, bytes: 300, calls: true, logprobs: 9, rivals: 1 };
        let taken = |limits: FeedLimits, piece: &TextDelta| {
            let feed = Feed::new();
            (0..99).take_while(|_| feed.deltas(vec![piece.clone()], limits)).count()
        };
        let call = ToolCall { id: String::new(), name: String::new(), arguments: String::new() };
        let call = TextDelta { tool_calls: vec![call], ..TextDelta::default() };
        assert_eq!(taken(limits, &call), 300 / CALL_COST_BYTES);
        assert_eq!(taken(FeedLimits { calls: false, ..limits }, &call), 0, "nothing to call");

        let token = |bytes| RatedToken { bytes: vec![b'x'; bytes], logprob: -1.0 };
        let rated = |bytes, rivals| TextDelta {
            logprobs: vec![TokenLogprob { chosen: token(bytes), top: vec![token(bytes); rivals] }],
            ..TextDelta::default()
        };
        assert_eq!(taken(limits, &rated(1, 1)), 9, "as many tokens as were asked for");
        assert_eq!(taken(limits, &rated(100, 1)), 4 * 300 / 200);
        assert_eq!(taken(limits, &rated(1, 2)), 0, "more rivals than asked for");
        let wide = FeedLimits { bytes: 1 << 20, ..limits };
        assert_eq!(taken(wide, &rated(TOKEN_BYTES_MAX, 0)), 9);
        assert_eq!(taken(wide, &rated(TOKEN_BYTES_MAX + 1, 0)), 0);
        let mut endless = rated(1, 0);
        endless.logprobs[0].chosen.logprob = f32::NEG_INFINITY;
        assert_eq!(taken(wide, &endless), 0);
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_newest_step_and_a_preview_once() {
        let feed = Feed::new();
        let node = NodeId::new("0xab").expect("valid");
        let step = |step, preview: Option<u8>| {
            let preview = preview.map(|byte| Png(vec![byte]));
            ImageStep { step, steps: 9, preview }
        };
        feed.leased(node.clone(), None);
        let mut watch = feed.watch();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        assert_eq!(watch.next().await, Some(JobUpdate::Leased { node: node.clone() }));
        feed.step(step(1, Some(1)));
        feed.step(step(2, None));
        feed.step(step(1, Some(7)));
        assert_eq!(watch.next().await, Some(JobUpdate::Step(step(2, Some(1)))));
        feed.step(step(3, None));
        assert_eq!(watch.next().await, Some(JobUpdate::Step(step(3, None))));
        // Another attempt begins anew.
        feed.queued();
        assert_eq!(watch.next().await, Some(JobUpdate::Queued));
        feed.leased(node.clone(), None);
        feed.step(step(1, Some(8)));
        assert_eq!(watch.next().await, Some(JobUpdate::Leased { node }));
        assert_eq!(watch.next().await, Some(JobUpdate::Step(step(1, Some(8)))));
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
