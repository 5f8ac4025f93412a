//! From a job to a prompt and what watches over its answers; and why there may be no answer.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Zoned;
use neurino_core::job::{InvalidJob, ResponseFormat, ToolChoice};
use neurino_core::{TextChoice, TextJob, TextOutput, Usage};

use super::answer::Answer;
use super::plan::TooLarge;
use crate::LlmError;
use crate::chat::{ChatError, ChatTemplate};
use crate::guide::{Guide, GuideError};
use crate::model::LanguageModel;
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
    /// The form that was asked for cannot be enforced.
    #[error(transparent)]
    Guide(#[from] GuideError),
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
    /// Prompt and answer fit the model, but not the memory that is left for conversations.
    #[error(
        "the conversation has {} tokens and {} more may be generated, but there is memory for {} \
         on this machine; shorten the conversation or ask for a shorter answer",
        grouped(*prompt_tokens),
        grouped(*max_tokens),
        grouped(*cache_tokens)
    )]
    CacheTooSmall {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens that there is memory for.
        cache_tokens: usize,
    },
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model failed. All requests of a step share its error.
    #[error(transparent)]
    Model(Arc<LlmError>),
    /// The model computed something that is not a number.
    #[error(
        "the model computed no usable scores; load it again, and download it again if it stays"
    )]
    NoLogits,
}

impl From<LlmError> for GenerateError {
    fn from(error: LlmError) -> Self {
        Self::Model(Arc::new(error))
    }
}

/// A job as far as it can be prepared without model and cache: its tokens, samplers and guides.
pub struct Prepared {
    pub(crate) prompt: Vec<u32>,
    pub(crate) max_tokens: usize,
    /// One for each answer.
    pub(crate) answers: Vec<Answer>,
    /// If the answers were claimed: the tokens of each as far as they are the model's.
    pub(crate) claimed: Option<Vec<Vec<u32>>>,
}

impl Prepared {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// Most tokens of an answer.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}

/// Prepares jobs for a model without touching it: renders, counts, compiles what guides answers. That
/// may take long, so that it is made to be sent to another thread than the model's; a clone is cheap.
#[derive(Clone)]
pub struct Preparer {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
    vocab_size: usize,
    context_tokens: usize,
}

impl Preparer {
    /// What prepares jobs for `model`.
    pub(crate) fn new(model: &LanguageModel, tokenizer: Tokenizer, template: ChatTemplate) -> Self {
        let (vocab_size, context_tokens) = (model.vocab_size(), model.context_tokens());
        Self { tokenizer, template, vocab_size, context_tokens }
    }

    /// Checks a job, renders its conversation, and makes its samplers and guides. `now` is the date a
    /// chat template may print.
    ///
    /// # Errors
    /// Any [`GenerateError`] but `CacheTooSmall` and `NoLogits`.
    pub fn prepare(&self, job: &TextJob, now: &Zoned) -> Result<Prepared, GenerateError> {
        let (tokenizer, template, vocab_size) = (&self.tokenizer, &self.template, self.vocab_size);
        job.validate()?;
        if let Some((token, _)) = job.logit_bias.iter().find(|(id, _)| *id as usize >= vocab_size) {
            let rule = format!("names token {token}, but the model has {}", grouped(vocab_size));
            return Err(InvalidJob { field: "logit_bias", rule }.into());
        }
        // Functions that must not be called are not spoken of.
        let may_call = job.tool_choice != ToolChoice::None;
        let tools = if may_call { job.tools.as_slice() } else { &[] };
        let syntax = (!tools.is_empty()).then(|| template.tool_syntax());
        let prompt = tokenizer.encode(&template.render(&job.messages, tools, now)?, false)?;
        let job = &*self.fitted(job, prompt.len());
        self.check(&prompt, job)?;
        let guide = guide_of(job, tokenizer, template)?;
        let answer = |choice| Answer::new(job, choice, &prompt, guide.clone(), syntax, tokenizer);
        let answers = (0..job.choices).map(answer).collect();
        let known = |tokens: &Vec<u32>| -> Vec<u32> {
            tokens.iter().copied().take_while(|token| (*token as usize) < vocab_size).collect()
        };
        let claimed = job.claim.as_ref().map(|claim| claim.answers.iter().map(known).collect());
        Ok(Prepared { prompt, max_tokens: job.max_tokens as usize, answers, claimed })
    }

    /// The job with as many tokens as the model holds beside the prompt, if fewer will do. What there is
    /// memory for is not asked: the same job must end alike on all machines.
    fn fitted<'a>(&self, job: &'a TextJob, prompt_tokens: usize) -> Cow<'a, TextJob> {
        let left = self.context_tokens.saturating_sub(prompt_tokens);
        match u32::try_from(left) {
            Ok(left) if job.fewer_tokens && (1..job.max_tokens).contains(&left) => {
                Cow::Owned(TextJob { max_tokens: left, ..job.clone() })
            }
            _ => Cow::Borrowed(job),
        }
    }

    /// Checks that the model can read the prompt and has room for the answer. A token that is not the
    /// model's must not fail the requests beside this one.
    fn check(&self, prompt: &[u32], job: &TextJob) -> Result<(), GenerateError> {
        let (vocab_size, context_tokens) = (self.vocab_size, self.context_tokens);
        if prompt.is_empty() {
            return Err(LlmError::NoTokens.into());
        }
        if let Some(&token) = prompt.iter().find(|token| **token as usize >= vocab_size) {
            return Err(LlmError::TokenOutOfRange { token, vocab_size }.into());
        }
        let (prompt_tokens, max_tokens) = (prompt.len(), job.max_tokens as usize);
        if prompt_tokens + max_tokens > context_tokens {
            return Err(GenerateError::ContextTooLong {
                prompt_tokens,
                max_tokens,
                context_tokens,
            });
        }
        Ok(())
    }
}

/// What keeps the answers in the form that the job asks for, if it does.
fn guide_of(
    job: &TextJob,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> Result<Option<Guide>, GenerateError> {
    let call = |forced| {
        Guide::tool_call(tokenizer, template.tool_syntax(), &job.tools, forced)
            .map(Some)
            .map_err(|error| of_field("tools", &error))
    };
    let answer = |guide: Result<Guide, GuideError>| {
        guide.map(Some).map_err(|error| of_field("response_format", &error))
    };
    match (&job.tool_choice, &job.response_format) {
        (ToolChoice::Required, _) => call(None),
        (ToolChoice::Function { name }, _) => call(Some(name.as_str())),
        (_, ResponseFormat::Text) => Ok(None),
        (_, ResponseFormat::JsonObject) => answer(Guide::json_object(tokenizer)),
        (_, ResponseFormat::JsonSchema { schema }) => answer(Guide::json_schema(tokenizer, schema)),
    }
}

/// What a form asks for in vain is the fault of the field that holds it.
fn of_field(field: &'static str, error: &GuideError) -> GenerateError {
    InvalidJob { field, rule: format!("cannot be served: {error}") }.into()
}

/// A request under way.
pub(crate) struct Open {
    pub(crate) request: super::RequestId,
    prompt_tokens: u32,
    completion_tokens: u32,
    /// The answers that ended.
    choices: Vec<Option<TextChoice>>,
}

impl Open {
    pub(crate) fn new(request: super::RequestId, prompt_tokens: usize, choices: usize) -> Self {
        let choices = std::iter::repeat_with(|| None).take(choices).collect();
        let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        Self { request, prompt_tokens, completion_tokens: 0, choices }
    }

    /// Counts a generated token; returns how many there are in all answers.
    pub(crate) fn count_token(&mut self) -> u32 {
        self.completion_tokens += 1;
        self.completion_tokens
    }

    /// Notes an answer that ended; returns the output when it was the last.
    pub(crate) fn end(&mut self, choice: u32, answer: TextChoice) -> Option<TextOutput> {
        self.choices[choice as usize] = Some(answer);
        if self.choices.iter().any(Option::is_none) {
            return None;
        }
        let choices = self.choices.drain(..).flatten().collect();
        let (prompt_tokens, completion_tokens) = (self.prompt_tokens, self.completion_tokens);
        let usage = Usage { prompt_tokens, completion_tokens };
        Some(TextOutput { choices, usage, precision: None })
    }
}

/// The refusal of a request that the cache could never hold.
pub(crate) fn too_large(error: TooLarge, prompt_tokens: usize, max_tokens: usize) -> GenerateError {
    let cache_tokens = error.capacity_tokens;
    GenerateError::CacheTooSmall { prompt_tokens, max_tokens, cache_tokens }
}

/// A number that tells prompts apart, for names that must differ between them.
pub(crate) fn fingerprint(seed: u64, prompt: &[u32]) -> u64 {
    // FNV-1a over whole tokens.
    let step = |hash: u64, token: &u32| (hash ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3);
    prompt.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, step)
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
    fn what_does_not_fit_is_explained_in_numbers() {
        let error = GenerateError::ContextTooLong {
            prompt_tokens: 9012,
            max_tokens: 512,
            context_tokens: 1_048_576,
        };
        let expected = "the conversation has 9,012 tokens and 512 more may be generated, \
                        but the model holds 1,048,576;";
        assert!(error.to_string().starts_with(expected), "{error}");
        let error = too_large(TooLarge { capacity_tokens: 4096, needed_tokens: 0 }, 4000, 100);
        let expected = "the conversation has 4,000 tokens and 100 more may be generated, \
                        but there is memory for 4,096 on this machine;";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
