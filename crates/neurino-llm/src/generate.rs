//! From a conversation to its answer: prompt, prefill, one token after another, stop.
//!
//! [`decode`] sees token ids and tensors; text exists only in [`generate`] around it.

use std::ops::ControlFlow;

use jiff::Zoned;
use neurino_core::job::InvalidJob;
use neurino_core::{FinishReason, TextJob, TextOutput, Usage};

use crate::LlmError;
use crate::chat::{ChatError, ChatTemplate};
use crate::model::{LanguageModel, PREFILL_CHUNK_TOKENS};
use crate::sampler::Sampler;
use crate::stop::StopMatcher;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A field of the job is outside its limits.
    #[error(transparent)]
    InvalidJob(#[from] InvalidJob),
    /// The conversation cannot be rendered.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Prompt and answer do not fit the model.
    #[error(
        "the conversation has {} tokens and {} more may be generated, but the model holds {}; \
         shorten the conversation or ask for a shorter answer",
        grouped(*prompt_tokens),
        grouped(*max_tokens),
        grouped(*context_tokens)
    )]
    ContextTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens the model holds.
        context_tokens: usize,
    },
    /// The caller ended it.
    #[error("the job was cancelled")]
    Cancelled,
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] LlmError),
    /// The model computed something that is not a number.
    #[error(
        "the model computed no usable scores; load it again, and download it again if it stays"
    )]
    NoLogits,
}

/// What a running generation tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// The prompt is about to be read.
    Prompt {
        /// Its length.
        tokens: u32,
    },
    /// A token was generated.
    Text {
        /// The text that is certain now; empty while a character or a stop string is open.
        text: &'a str,
        /// Tokens generated so far.
        tokens: u32,
    },
}

/// Answers a conversation.
///
/// `now` is the date a chat template may print. `cancelled` is asked before every step; `emit` gets
/// the texts, which joined are the output's text. The same job gives the same text.
///
/// # Errors
/// Any [`GenerateError`].
pub fn generate(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    job: &TextJob,
    now: &Zoned,
    cancelled: &dyn Fn() -> bool,
    emit: &mut dyn FnMut(Step<'_>),
) -> Result<TextOutput, GenerateError> {
    job.validate()?;
    let prompt = tokenizer.encode(&template.render(&job.messages, now)?, false)?;
    let (max_tokens, context_tokens) = (job.max_tokens as usize, model.context_tokens());
    if prompt.len() + max_tokens > context_tokens {
        let prompt_tokens = prompt.len();
        return Err(GenerateError::ContextTooLong { prompt_tokens, max_tokens, context_tokens });
    }
    let prompt_tokens = prompt.len() as u32;
    emit(Step::Prompt { tokens: prompt_tokens });

    let mut answer = Answer {
        characters: tokenizer.stream(),
        stop: StopMatcher::new(&job.stop),
        text: String::new(),
        tokens: 0,
        stopped: false,
        failed: None,
    };
    let finish_reason = {
        let sampler = Sampler::new(job.sampling);
        let mut take = |token| {
            if tokenizer.is_end(token) {
                answer.tokens += 1;
                return ControlFlow::Break(());
            }
            answer.take(token, emit)
        };
        decode(model, &prompt, &sampler, max_tokens, cancelled, &mut take)?
    };
    let tokens = answer.tokens;
    let (text, finish_reason) = answer.finish(finish_reason, emit)?;
    let usage = Usage { prompt_tokens, completion_tokens: tokens };
    Ok(TextOutput::single(text, finish_reason, usage))
}

/// Generates tokens until `take` breaks (`Stop`) or `max_tokens` are there (`Length`).
///
/// # Errors
/// `Cancelled`, `Model`, `NoLogits`.
pub fn decode(
    model: &LanguageModel,
    prompt: &[u32],
    sampler: &Sampler,
    max_tokens: usize,
    cancelled: &dyn Fn() -> bool,
    take: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<FinishReason, GenerateError> {
    let check = || if cancelled() { Err(GenerateError::Cancelled) } else { Ok(()) };
    let mut cache = model.new_sequence(prompt.len() + max_tokens);
    let mut rest = prompt;
    while let Some((piece, behind)) = rest.split_at_checked(PREFILL_CHUNK_TOKENS)
        && !behind.is_empty()
    {
        check()?;
        model.prefill(piece, &mut cache)?;
        rest = behind;
    }
    check()?;
    let mut logits = model.forward(rest, &mut cache)?;
    for position in 0..max_tokens {
        let token = sampler.pick(&logits, position as u64).ok_or(GenerateError::NoLogits)?;
        if take(token).is_break() {
            return Ok(FinishReason::Stop);
        }
        if position + 1 < max_tokens {
            check()?;
            logits = model.forward(&[token], &mut cache)?;
        }
    }
    Ok(FinishReason::Length)
}

/// The text of an answer as it grows.
struct Answer<'a> {
    characters: crate::tokenizer::TextStream<'a>,
    stop: StopMatcher,
    text: String,
    tokens: u32,
    /// A stop string was completed: nothing that was held back belongs to the answer.
    stopped: bool,
    failed: Option<TokenizerError>,
}

impl Answer<'_> {
    fn take(&mut self, token: u32, emit: &mut dyn FnMut(Step<'_>)) -> ControlFlow<()> {
        self.tokens += 1;
        match self.characters.push(token) {
            Ok(piece) => self.pass(&piece, emit),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn pass(&mut self, piece: &str, emit: &mut dyn FnMut(Step<'_>)) -> ControlFlow<()> {
        let passed = self.stop.push(piece);
        self.text.push_str(&passed.text);
        emit(Step::Text { text: &passed.text, tokens: self.tokens });
        self.stopped = passed.stopped;
        if passed.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Lets go of what was held back, which may complete a stop string after all.
    fn finish(
        mut self,
        reason: FinishReason,
        emit: &mut dyn FnMut(Step<'_>),
    ) -> Result<(String, FinishReason), GenerateError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        if self.stopped {
            return Ok((self.text, FinishReason::Stop));
        }
        let mut last = self.stop.push(&self.characters.finish()?);
        if !last.stopped {
            last.text.push_str(&self.stop.finish());
        }
        if !last.text.is_empty() {
            self.text.push_str(&last.text);
            emit(Step::Text { text: &last.text, tokens: self.tokens });
        }
        Ok((self.text, if last.stopped { FinishReason::Stop } else { reason }))
    }
}

/// A number with commas between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_conversation_is_explained_in_numbers() {
        let error = GenerateError::ContextTooLong {
            prompt_tokens: 9012,
            max_tokens: 512,
            context_tokens: 1_048_576,
        };
        let expected = "the conversation has 9,012 tokens and 512 more may be generated, \
                        but the model holds 1,048,576;";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
