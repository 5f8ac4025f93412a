//! What a result must be before it is paid: the answer to its job, and not a copy of another one.
//!
//! Everything here is bounded in time and memory and runs on threads of its own, so that what a
//! stranger hands in cannot hold up the router; a panic in it is a refusal of that one result.

use neurino_core::audit::margins::Margins;
use neurino_core::{
    ClaimScore, FinishReason, ImageJob, JobOutput, JobSpec, NodeId, RatedToken, TextChoice,
    TextClaim, TextJob, TextOutput,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use sha2::{Digest, Sha256};

use crate::compare::{Facts, nearly_equal};
use crate::coordinator::prompt_tokens_bound;
use crate::router::owner_of;
use crate::settle::Proof;
use crate::store::{Mark, PictureMark, TextMark};
use crate::watch::{FeedLimits, answer_bytes};

/// Shorter answers come about twice by themselves.
const LONG_ANSWER_BYTES: usize = 512;
/// Tokens of an answer that show nothing: its end, and marks of its format.
const SILENT_TOKENS: usize = 16;
/// The same for a call, whose frame is not shown.
const CALL_TOKENS: usize = 64;
/// No context of a model is smaller than this, in tokens.
const CONTEXT_MIN: u32 = 512;

/// Why a result is not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is not an answer to the job.
    #[error("{0}")]
    Malformed(&'static str),
    /// There is more of it than may be.
    #[error("{0}")]
    TooMuch(&'static str),
    /// It claims more, or less, than there is.
    #[error("{0}")]
    Implausible(&'static str),
    /// It was handed in before, for something else.
    #[error("{0}")]
    Copy(&'static str),
    /// A picture is none, or another one than asked for.
    #[error("{}", .0.message)]
    Picture(ErrorBody),
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::TooMuch(_) => ErrorCode::TooLarge,
            Refusal::Picture(error) => error.code,
            _ => ErrorCode::InvalidRequest,
        };
        Self::new(code, refusal.to_string())
    }
}

/// What a result that may be paid leaves behind.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// By what a later copy of it is known.
    pub(crate) mark: Option<Mark>,
    /// What calls for another look at it.
    pub(crate) suspicion: Option<&'static str>,
}

/// Checks the result of a job by itself. `facts` are what a [`crate::decoder::Decoder`] found of a picture.
pub(crate) fn result(
    spec: &JobSpec,
    output: &JobOutput,
    node: &NodeId,
    bytes_max: usize,
    proof: Proof,
    facts: Option<Facts>,
) -> Result<Found, Refusal> {
    match (output, spec) {
        (JobOutput::Text(answer), JobSpec::Text(job)) => {
            plausible(answer, job, bytes_max)?;
            named(answer, job)?;
            if let Some(claim) = &job.claim {
                scored(answer, claim, spec)?;
                return Ok(Found::default());
            }
            counted(answer, spec, job, proof)?;
            let mark = text_mark(answer, job, node).map(Mark::Text);
            Ok(Found { mark, suspicion: None })
        }
        (JobOutput::Image(_), JobSpec::Image(job)) => {
            let facts = facts.ok_or(Refusal::Malformed("the picture cannot be read"))?;
            // Seldom honest, and never a proof: some prompts ask for it.
            let suspicion = facts.blank.then_some("the picture is of one colour");
            Ok(Found { mark: Some(Mark::Picture(picture_mark(facts, job))), suspicion })
        }
        _ => Err(Refusal::Malformed("the result is of another kind")),
    }
}

fn picture_mark(facts: Facts, job: &ImageJob) -> PictureMark {
    PictureMark { model: job.model.to_string(), seed: job.seed, thumb: facts.thumb }
}

/// Whether a picture is one of those before it, made for another seed, but for what writing it anew
/// changes. Equal seeds may make nearly equal pictures: of prompts that mean the same, say. Seeds that
/// start the same noise are equal.
pub(crate) fn is_near_copy<'a>(
    mark: &PictureMark,
    before: impl IntoIterator<Item = &'a PictureMark>,
) -> bool {
    before.into_iter().any(|other| {
        ImageJob::noise_seed(other.seed) != ImageJob::noise_seed(mark.seed)
            && other.model == mark.model
            && nearly_equal(&mark.thumb, &other.thumb)
    })
}

/// What a long answer and its prompt are known by.
fn text_mark(answer: &TextOutput, job: &TextJob, node: &NodeId) -> Option<TextMark> {
    let said: usize = answer.choices.iter().map(answer_bytes).sum();
    if said < LONG_ANSWER_BYTES {
        return None;
    }
    let digest = |value: &[u8]| -> [u8; 32] { Sha256::digest(value).into() };
    let words: Vec<_> = answer
        .choices
        .iter()
        .map(|c| {
            (&c.text, c.tool_calls.iter().map(|t| (&t.name, &t.arguments)).collect::<Vec<_>>())
        })
        .collect();
    let prompt = (&job.messages, &job.tools, &job.response_format);
    Some(TextMark {
        owner: owner_of(node).to_owned(),
        model: job.model.to_string(),
        answer: digest(&serde_json::to_vec(&words).unwrap_or_default()),
        prompt: digest(&serde_json::to_vec(&prompt).unwrap_or_default()),
    })
}

/// Whether an answer has anything that costs a token.
fn says_something(choice: &TextChoice) -> bool {
    !choice.text.is_empty() || !choice.tool_calls.is_empty()
}

/// What a text must look like to be an answer to its job.
fn plausible(output: &TextOutput, job: &TextJob, bytes_max: usize) -> Result<(), Refusal> {
    if output.choices.len() != job.choices as usize {
        return Err(Refusal::Malformed("the result has another number of answers"));
    }
    let limits = FeedLimits::of(job, bytes_max);
    let cost = |choice: &TextChoice| FeedLimits::cost(&choice.text, &choice.tool_calls);
    if output.choices.iter().map(cost).sum::<usize>() > bytes_max {
        return Err(Refusal::TooMuch("the answer is longer than a result may be"));
    }
    let mut rated_bytes = 0;
    for choice in &output.choices {
        if job.tools.is_empty() && !choice.tool_calls.is_empty() {
            return Err(Refusal::Malformed("the result calls functions it was not given"));
        }
        if choice.logprobs.is_some() != job.logprobs.is_some() {
            return Err(Refusal::Malformed("log-probabilities are not as asked for"));
        }
        let rated = choice.logprobs.as_deref().unwrap_or_default();
        // An infinite one could not be read again: JSON has no such number.
        let is_one = |token: &RatedToken| token.logprob.is_finite() && token.logprob <= 1e-3;
        if !rated.iter().all(|token| is_one(&token.chosen) && token.top.iter().all(is_one)) {
            return Err(Refusal::Implausible("a log-probability is above 0 or no number"));
        }
        let more = Refusal::TooMuch("there are more log-probabilities than asked for");
        let Some(bytes) = limits.rated_bytes(rated) else { return Err(more) };
        rated_bytes += bytes;
        if rated.len() > limits.logprobs || rated_bytes > limits.rated_bytes_max() {
            return Err(more);
        }
    }
    Ok(())
}

/// Whether the tokens that a text names are as many as it counts, and its scores were asked for. Which tokens
/// they are, an audit finds.
fn named(answer: &TextOutput, job: &TextJob) -> Result<(), Refusal> {
    let lists = answer.choices.iter().filter_map(|choice| choice.tokens.as_ref());
    let lengths: Vec<usize> = lists.map(Vec::len).collect();
    if !lengths.is_empty() {
        let every = lengths.len() == answer.choices.len();
        let bounded = lengths.iter().all(|n| (1..=job.max_tokens as usize).contains(n));
        let all = lengths.iter().sum::<usize>() == answer.usage.completion_tokens as usize;
        if !every || !bounded || !all {
            return Err(Refusal::Implausible("the tokens it names are not those it counts"));
        }
    }
    if answer.choices.iter().any(|choice| choice.score.is_some() != job.claim.is_some()) {
        return Err(Refusal::Malformed("scores are not as asked for"));
    }
    Ok(())
}

/// Whether scores are of the claim's tokens and can be. What the text is, and whether it is plausible, is the
/// claim's fault.
fn scored(answer: &TextOutput, claim: &TextClaim, spec: &JobSpec) -> Result<(), Refusal> {
    let scores = || answer.choices.iter().filter_map(|choice| choice.score.as_ref());
    let fits = |(score, tokens): (&ClaimScore, &Vec<u32>)| {
        score.seeds.len() == claim.seeds.len()
            && score.tokens as usize <= tokens.len()
            && (!score.whole || score.tokens as usize == tokens.len())
    };
    let possible =
        (0..claim.seeds.len()).all(|at| Margins::of(scores(), at, claim.clip_ppm).is_some());
    let all = scores().map(|score| u64::from(score.tokens)).sum::<u64>();
    let counted = all == u64::from(answer.usage.completion_tokens)
        && (1..=prompt_tokens_bound(spec)).contains(&answer.usage.prompt_tokens);
    if !scores().zip(&claim.answers).all(fits) || !possible || !counted {
        return Err(Refusal::Implausible("the scores are not of what was claimed"));
    }
    Ok(())
}

/// Whether the counts, which are what is paid, fit what was said.
fn counted(
    answer: &TextOutput,
    spec: &JobSpec,
    job: &TextJob,
    proof: Proof,
) -> Result<(), Refusal> {
    let usage = answer.usage;
    let prompt = (1..=prompt_tokens_bound(spec)).contains(&usage.prompt_tokens);
    let most = job.choices.saturating_mul(job.max_tokens) as usize;
    let least = answer.choices.iter().filter(|choice| says_something(choice)).count();
    let written = usage.completion_tokens as usize;
    if !prompt || !(least..=most).contains(&written) {
        return Err(Refusal::Implausible("the token counts do not fit the job"));
    }
    // A token is at least a byte, but for those that are not shown.
    let stops = job.stop.iter().map(String::len).max().unwrap_or(0);
    let calls: usize = answer.choices.iter().map(|choice| choice.tool_calls.len()).sum();
    let silent = (SILENT_TOKENS + stops) * answer.choices.len() + CALL_TOKENS * calls;
    let bytes: usize = answer.choices.iter().map(answer_bytes).sum();
    if written > bytes + silent {
        return Err(Refusal::Implausible("there are more tokens than the answer has text for"));
    }
    let [choice] = &answer.choices[..] else { return Ok(()) };
    if choice.finish_reason == FinishReason::Length {
        if !says_something(choice) && written > SILENT_TOKENS + stops {
            return Err(Refusal::Implausible("the answer is empty and was not at its end"));
        }
        // At its end is what used all it was given, or all that its model can read. Where nobody counted
        // tokens, there are no more of them than bytes, nearly.
        let most = match proof {
            Proof::Statement | Proof::Uploaded => usage.completion_tokens,
            Proof::Original => u32::try_from(bytes + SILENT_TOKENS + stops).unwrap_or(u32::MAX),
        };
        if most < job.max_tokens && usage.total() < CONTEXT_MIN {
            return Err(Refusal::Implausible("the answer was cut off before its limit"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
