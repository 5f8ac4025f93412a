//! What one scripted job says, how long it takes, and how it ends.

use std::time::Duration;

use neurino_core::{FinishReason, Usage};
use neurino_engine::EngineError;

/// One step of a scripted answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text it adds; may be empty.
    pub text: String,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Tokens the prompt counts as.
    pub prompt_tokens: u32,
    /// What is said, in order.
    pub pieces: Vec<Piece>,
    /// How it ends.
    pub ending: Ending,
}

impl Script {
    /// Says a text word by word, one token each and without delay, after a prompt of 10 tokens,
    /// and ends with a stop.
    pub fn answer(text: &str) -> Self {
        let pieces = text
            .split_inclusive(' ')
            .map(|word| Piece { text: word.into(), delay: Duration::ZERO, tokens: 1 })
            .collect();
        Self { prompt_tokens: 10, pieces, ending: Ending::Finish(FinishReason::Stop) }
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

    /// The whole text.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|p| p.text.as_str()).collect()
    }

    /// What the job counts as when it finishes: the prompt, its pieces and the end token.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.pieces.iter().map(|p| p.tokens).sum::<u32>() + 1,
        }
    }
}
