//! What one scripted job says, how long it takes, and how it ends.

use std::time::Duration;

use neurino_core::{FinishReason, JobOutput, TextChoice, TextDelta, TextJob, TextOutput, Usage};
use neurino_engine::EngineError;

/// One step of a scripted answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// What it adds to which answer; may be empty.
    pub delta: TextDelta,
    /// How long it takes.
    pub delay: Duration,
    /// How many tokens it counts as.
    pub tokens: u32,
}

/// How a scripted job ends, once its pieces are said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With its output.
    Finish(FinishReason),
    /// With this error.
    Fail(EngineError),
    /// Not at all, until it is cancelled.
    Hang,
    /// As when the engine's process dies: `Failed { Crashed }`, and every job behind it too.
    Crash,
}

/// The course of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Tokens the prompt counts as.
    pub prompt_tokens: u32,
    /// What is said, in order.
    pub pieces: Vec<Piece>,
    /// How it ends.
    pub ending: Ending,
    /// Whether every step of a picture has a preview, asked for or not.
    pub previews_unasked: bool,
}

impl Script {
    /// Says a text word by word, one token each and without delay, after a prompt of 10 tokens,
    /// and ends with a stop.
    pub fn answer(text: &str) -> Self {
        Self::said(text.split_inclusive(' ').map(TextDelta::text))
    }

    /// Says these pieces, of any answers, one token each and otherwise as [`Script::answer`].
    pub fn said(deltas: impl IntoIterator<Item = TextDelta>) -> Self {
        let piece = |delta| Piece { delta, delay: Duration::ZERO, tokens: 1 };
        let pieces = deltas.into_iter().map(piece).collect();
        let ending = Ending::Finish(FinishReason::Stop);
        Self { prompt_tokens: 10, pieces, ending, previews_unasked: false }
    }

    /// Makes the picture that an image job asks for, with this delay before every step. Any script
    /// does so for an image job, paced as its first piece; what it says matters to text jobs alone.
    pub fn picture(step_delay: Duration) -> Self {
        Self::said([TextDelta::text("")]).paced(step_delay)
    }

    /// The same, showing previews to whoever did not ask for them.
    #[must_use]
    pub fn with_previews_unasked(mut self) -> Self {
        self.previews_unasked = true;
        self
    }

    /// The same, with this delay before every piece.
    #[must_use]
    pub fn paced(mut self, delay: Duration) -> Self {
        for piece in &mut self.pieces {
            piece.delay = delay;
        }
        self
    }

    /// The same, with a prompt that counts as so many tokens.
    #[must_use]
    pub fn prompt_tokens(mut self, tokens: u32) -> Self {
        self.prompt_tokens = tokens;
        self
    }

    /// The same, ending otherwise.
    #[must_use]
    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// The first answer's whole text.
    pub fn text(&self) -> String {
        self.of_answer(0).map(|delta| delta.text.as_str()).collect()
    }

    fn of_answer(&self, choice: u32) -> impl Iterator<Item = &TextDelta> {
        self.pieces.iter().map(|piece| &piece.delta).filter(move |delta| delta.choice == choice)
    }

    /// The result for a job, which has as many answers as it asked for, said or not.
    pub(crate) fn output(&self, job: &TextJob, finish_reason: FinishReason) -> JobOutput {
        let choice = |n| {
            let mut whole = TextDelta { choice: n, ..TextDelta::default() };
            self.of_answer(n).for_each(|piece| whole.append(piece.clone()));
            let TextDelta { text, tool_calls, logprobs, .. } = whole;
            let logprobs = job.logprobs.map(|_| logprobs);
            TextChoice { tool_calls, logprobs, ..TextChoice::new(text, finish_reason) }
        };
        let choices = (0..job.choices).map(choice).collect();
        JobOutput::Text(TextOutput { choices, usage: self.usage(), precision: None })
    }

    /// What the job counts as when it finishes: the prompt, its pieces and the end token.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.pieces.iter().map(|p| p.tokens).sum::<u32>() + 1,
        }
    }
}
