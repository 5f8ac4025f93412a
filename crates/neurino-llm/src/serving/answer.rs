//! One answer as it grows: from a row of logits to text, calls and log-probabilities.

use std::cell::RefCell;
use std::collections::VecDeque;

use neurino_core::job::{RatedToken, TokenLogprob};
use neurino_core::{
    ClaimScore, FinishReason, SeedScore, TextChoice, TextClaim, TextDelta, TextJob,
};
use neurino_nn::choice::TokenRule;

use super::draws::Next;
use super::request::{GenerateError, fingerprint};
use crate::guide::Guide;
use crate::sampler::{Draw, Rating, Sampler, Scratch, TokenScore};
use crate::stop::StopMatcher;
use crate::tokenizer::{TextStream, Tokenizer};
use crate::tools::{TextPiece, ToolStream, ToolSyntax};

thread_local! {
    /// Answers are sampled on many threads; each keeps its memory.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One answer of a request, without its tokens.
pub(crate) struct Answer {
    choice: u32,
    sampler: Sampler,
    guide: Option<Guide>,
    characters: TextStream,
    stop: StopMatcher,
    tools: Option<ToolStream>,
    ratings: Option<Ratings>,
    /// Its tokens, if it was claimed and is not to be written.
    claim: Option<Claimed>,
    /// Whether a stop string has ended it: what follows in the same token is cut off with it.
    stopped: bool,
    tokens: u32,
    max_tokens: u32,
    so_far: TextChoice,
}

/// A claimed answer and how it has fared so far.
struct Claimed {
    tokens: Vec<u32>,
    seeds: Vec<u64>,
    clip_ppm: u32,
    score: ClaimScore,
}

impl Claimed {
    fn new(claim: &TextClaim, choice: u32) -> Option<Self> {
        let tokens = claim.answers.get(choice as usize)?.clone();
        let seeds = vec![SeedScore::default(); claim.seeds.len()];
        let score = ClaimScore { tokens: 0, whole: false, seeds };
        Some(Self { tokens, seeds: claim.seeds.clone(), clip_ppm: claim.clip_ppm, score })
    }

    /// The next token; none if there was none left.
    fn next(&self) -> Option<u32> {
        self.tokens.get(self.score.tokens as usize).copied()
    }

    fn add(&mut self, under: &[TokenScore]) {
        self.score.tokens += 1;
        for (sum, score) in self.score.seeds.iter_mut().zip(under) {
            sum.exact += u32::from(score.exact);
            let margin_ppm = (score.margin * 1e6).round() as u64;
            if !score.exact {
                sum.margin_ppm += margin_ppm.min(u64::from(self.clip_ppm));
            }
        }
    }
}

/// What a token did to an answer.
pub(crate) struct Advance {
    /// The token; none where a claimed one cannot be.
    pub(crate) token: Option<u32>,
    /// What became certain. Its text is empty while a character, a stop string or a call is open.
    pub(crate) delta: TextDelta,
    /// The whole answer, if this was its last token.
    pub(crate) end: Option<TextChoice>,
}

impl Answer {
    /// An empty answer to `prompt`. With a `syntax` the text is searched for calls.
    pub(crate) fn new(
        job: &TextJob,
        choice: u32,
        prompt: &[u32],
        guide: Option<Guide>,
        syntax: Option<ToolSyntax>,
        tokenizer: &Tokenizer,
    ) -> Self {
        // Calls need names that no earlier turn of the conversation used.
        let seed = fingerprint(job.sampling.seed.wrapping_add(u64::from(choice) << 32), prompt);
        Self {
            choice,
            sampler: Sampler::for_answer(job, choice, prompt),
            guide,
            characters: match syntax {
                Some(syntax) => tokenizer.stream_with_tools(syntax),
                None => tokenizer.stream(),
            },
            stop: StopMatcher::new(&job.stop),
            tools: syntax.map(|syntax| ToolStream::new(syntax, &job.tools, seed)),
            ratings: job.logprobs.map(|_| Ratings::default()),
            claim: job.claim.as_ref().and_then(|claim| Claimed::new(claim, choice)),
            stopped: false,
            tokens: 0,
            max_tokens: job.max_tokens,
            so_far: TextChoice {
                logprobs: job.logprobs.map(|_| Vec::new()),
                tokens: job.name_tokens.then(Vec::new),
                ..TextChoice::new("", FinishReason::Stop)
            },
        }
    }

    /// How a device may choose the next token; `None` if it has to be drawn here, because a guide or
    /// rivals' log-probabilities need the whole row.
    pub(crate) fn rule(&self) -> Option<TokenRule> {
        if self.guide.is_some() { None } else { self.sampler.rule() }
    }

    /// How many tokens were claimed; 0 of an answer that is to be written.
    pub(crate) fn claimed(&self) -> usize {
        self.claim.as_ref().map_or(0, |claim| claim.tokens.len())
    }

    /// Draws the next token, or scores the next claimed one, and takes it in.
    ///
    /// # Errors
    /// `NoLogits`, `Guide`.
    pub(crate) fn advance(
        &mut self,
        next: Next<'_>,
        tokenizer: &Tokenizer,
    ) -> Result<Advance, GenerateError> {
        let drawn = match next {
            Next::Borrowed(logits) if self.claim.is_some() => self.score(logits)?,
            Next::Copied(mut logits) if self.claim.is_some() => self.score(&mut logits)?,
            Next::Borrowed(logits) => Some(self.draw(logits)?),
            Next::Copied(mut logits) => Some(self.draw(&mut logits)?),
            Next::Chosen(chosen) => {
                Some(self.sampler.accept(chosen.ok_or(GenerateError::NoLogits)?))
            }
        };
        let mut delta = TextDelta { choice: self.choice, ..TextDelta::default() };
        let token = drawn.as_ref().map(|drawn| drawn.token);
        let reason = match drawn {
            Some(Draw { token, rating }) => {
                self.tokens += 1;
                self.so_far.tokens.iter_mut().for_each(|tokens| tokens.push(token));
                self.take_in(token, rating, tokenizer, &mut delta)?
            }
            None => None,
        };
        let reason = self.claim_end(reason, token.is_some());
        if let Some(reason) = reason {
            self.finish(reason, &mut delta);
        }
        self.so_far.text.push_str(&delta.text);
        self.so_far.tool_calls.extend_from_slice(&delta.tool_calls);
        self.so_far.logprobs.iter_mut().for_each(|all| all.extend_from_slice(&delta.logprobs));
        let end = reason.is_some().then(|| std::mem::replace(&mut self.so_far, nothing()));
        Ok(Advance { token, delta, end })
    }

    /// Takes a token in. Tells whether the answer ends with it.
    fn take_in(
        &mut self,
        token: u32,
        rating: Option<Rating>,
        tokenizer: &Tokenizer,
        delta: &mut TextDelta,
    ) -> Result<Option<FinishReason>, GenerateError> {
        let reason = if tokenizer.is_end(token) {
            Some(FinishReason::Stop)
        } else {
            self.take(token, rating, tokenizer, delta)?
        };
        Ok(reason.or_else(|| (self.tokens == self.max_tokens).then_some(FinishReason::Length)))
    }

    /// Why an answer ends now. A claimed one does where it says so, too, and where it cannot go on; its score
    /// says whether that is where it had to end.
    fn claim_end(&mut self, reason: Option<FinishReason>, possible: bool) -> Option<FinishReason> {
        let Some(claim) = &mut self.claim else { return reason };
        let is_over = claim.next().is_none();
        claim.score.whole = possible && is_over && reason.is_some();
        let reason = reason.or_else(|| (is_over || !possible).then_some(FinishReason::Stop));
        if reason.is_some() {
            self.so_far.score = Some(claim.score.clone());
        }
        reason
    }

    /// Scores the next claimed token; none if it cannot be at its place.
    fn score(&mut self, logits: &mut [f32]) -> Result<Option<Draw>, GenerateError> {
        let Some(claim) = &mut self.claim else { return Ok(None) };
        let Some(token) = claim.next() else { return Ok(None) };
        let mut refused = None;
        let found = SCRATCH.with_borrow_mut(|scratch| match &mut self.guide {
            Some(guide) => {
                let mut mask = |logits: &mut [f32]| refused = guide.mask(logits).err();
                self.sampler.score(token, &claim.seeds, logits, Some(&mut mask), scratch)
            }
            None => self.sampler.score(token, &claim.seeds, logits, None, scratch),
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        let Some(under) = found.ok_or(GenerateError::NoLogits)? else { return Ok(None) };
        claim.add(&under);
        Ok(Some(Draw { token, rating: None }))
    }

    fn draw(&mut self, logits: &mut [f32]) -> Result<Draw, GenerateError> {
        let mut refused = None;
        let drawn = SCRATCH.with_borrow_mut(|scratch| match &mut self.guide {
            Some(guide) => {
                let mut mask = |logits: &mut [f32]| refused = guide.mask(logits).err();
                self.sampler.draw(logits, Some(&mut mask), scratch)
            }
            None => self.sampler.draw(logits, None, scratch),
        });
        match refused {
            Some(error) => Err(error.into()),
            None => drawn.ok_or(GenerateError::NoLogits),
        }
    }

    /// Takes a token that is no end token. Tells whether the answer ends with it.
    fn take(
        &mut self,
        token: u32,
        rating: Option<Rating>,
        tokenizer: &Tokenizer,
        delta: &mut TextDelta,
    ) -> Result<Option<FinishReason>, GenerateError> {
        let piece = self.characters.push(token);
        if let (Some(ratings), Some(rating)) = (&mut self.ratings, rating) {
            ratings.push(rated(token, &rating, tokenizer), piece.len());
        }
        let passed = self.stop.push(&piece);
        self.pass(&passed.text, delta);
        if passed.stopped {
            self.stopped = true;
            self.ratings.iter_mut().for_each(Ratings::cut);
            return Ok(Some(FinishReason::Stop));
        }
        if let Some(guide) = &mut self.guide {
            guide.accept(token)?;
            if guide.is_complete() {
                return Ok(Some(FinishReason::Stop));
            }
        }
        Ok(None)
    }

    /// Adds text that stop strings let through.
    fn pass(&mut self, text: &str, delta: &mut TextDelta) {
        if let Some(ratings) = &mut self.ratings {
            delta.logprobs.extend(ratings.pass(text.len()));
        }
        match &mut self.tools {
            Some(tools) => append(delta, tools.push(text)),
            None => delta.text.push_str(text),
        }
    }

    /// Lets go of what was held back, which may complete a stop string after all.
    fn finish(&mut self, mut reason: FinishReason, delta: &mut TextDelta) {
        if !self.stopped {
            let characters = self.characters.clone().finish();
            let last = self.stop.push(&characters);
            self.pass(&last.text, delta);
            if last.stopped {
                reason = FinishReason::Stop;
            } else {
                let held = self.stop.clone().finish();
                self.pass(&held, delta);
            }
        }
        if let Some(ratings) = &mut self.ratings {
            delta.logprobs.extend(ratings.rest());
        }
        if let Some(tools) = self.tools.take() {
            append(delta, tools.finish(reason == FinishReason::Length));
        }
        let called = !(self.so_far.tool_calls.is_empty() && delta.tool_calls.is_empty());
        self.so_far.finish_reason = match reason {
            FinishReason::Stop if called => FinishReason::ToolCalls,
            other => other,
        };
    }
}

fn append(delta: &mut TextDelta, piece: TextPiece) {
    delta.text.push_str(&piece.text);
    delta.tool_calls.extend(piece.calls);
}

fn nothing() -> TextChoice {
    TextChoice::new("", FinishReason::Stop)
}

fn rated(token: u32, rating: &Rating, tokenizer: &Tokenizer) -> TokenLogprob {
    let rated = |token, logprob| RatedToken { bytes: tokenizer.token_bytes(token), logprob };
    TokenLogprob {
        chosen: rated(token, rating.logprob),
        top: rating.top.iter().map(|&(token, logprob)| rated(token, logprob)).collect(),
    }
}

/// Log-probabilities wait until the text of their tokens is certain, so that a token that was cut
/// off with a stop string leaves none.
#[derive(Debug, Default)]
struct Ratings {
    /// With the place of the token's text, in bytes: where it begins, and where it ends.
    held: VecDeque<(usize, usize, TokenLogprob)>,
    produced_bytes: usize,
    passed_bytes: usize,
}

impl Ratings {
    fn push(&mut self, rating: TokenLogprob, text_bytes: usize) {
        let begin = self.produced_bytes;
        self.produced_bytes += text_bytes;
        self.held.push_back((begin, self.produced_bytes, rating));
    }

    /// Lets through the tokens whose text is out, after so many more bytes.
    fn pass(&mut self, text_bytes: usize) -> Vec<TokenLogprob> {
        self.passed_bytes += text_bytes;
        let out = self.held.iter().take_while(|(_, end, _)| *end <= self.passed_bytes).count();
        self.held.drain(..out).map(|(_, _, rating)| rating).collect()
    }

    /// Drops the tokens whose text is cut off from its beginning.
    fn cut(&mut self) {
        self.held.retain(|(begin, _, _)| *begin < self.passed_bytes);
    }

    fn rest(&mut self) -> impl Iterator<Item = TokenLogprob> {
        self.held.drain(..).map(|(_, _, rating)| rating)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use neurino_core::{ChatMessage, ModelId, Role};

    use super::*;

    fn rating(byte: u8) -> TokenLogprob {
        let chosen = RatedToken { bytes: vec![byte], logprob: -1.0 };
        TokenLogprob { chosen, top: Vec::new() }
    }

    fn bytes(ratings: impl IntoIterator<Item = TokenLogprob>) -> Vec<u8> {
        ratings.into_iter().flat_map(|r| r.chosen.bytes).collect()
    }

    #[test]
    fn log_probabilities_come_out_with_their_text() {
        let mut ratings = Ratings::default();
        ratings.push(rating(b'a'), 2);
        assert_eq!(bytes(ratings.pass(2)), b"a");
        ratings.push(rating(b'b'), 3);
        assert_eq!(bytes(ratings.pass(1)), b"", "two bytes are held back");
        ratings.push(rating(b'c'), 1);
        assert_eq!(bytes(ratings.pass(2)), b"b");
        ratings.push(rating(b'd'), 0);
        assert_eq!(bytes(ratings.rest()), b"cd", "what is left at the end");
    }

    #[test]
    fn tokens_of_a_stop_string_leave_none() {
        let mut ratings = Ratings::default();
        ratings.push(rating(b'a'), 3);
        ratings.push(rating(b'b'), 3);
        ratings.push(rating(b'c'), 3);
        // The stop string begins in the middle of the second token.
        assert_eq!(bytes(ratings.pass(4)), b"a");
        ratings.cut();
        assert_eq!(bytes(ratings.rest()), b"b");
    }

    /// A tokenizer of these tokens in GPT-2's spelling.
    fn tokenizer(tokens: &[&str]) -> Tokenizer {
        let folder = tempfile::tempdir().expect("a folder");
        let vocab: BTreeMap<&str, usize> = tokens.iter().copied().zip(0..).collect();
        let vocab = serde_json::to_vec(&vocab).expect("JSON");
        for (name, bytes) in [("vocab.json", &vocab[..]), ("merges.txt", b"#version: 0.2\n")] {
            std::fs::write(folder.path().join(name), bytes).expect("written");
        }
        Tokenizer::open_folder(folder.path()).expect("a tokenizer")
    }

    /// The token that completes a stop string may begin a character behind it.
    #[test]
    fn nothing_behind_a_stop_string_gets_out() {
        // The last is a space and the first two bytes of an emoji.
        let tokenizer = tokenizer(&["Hi", "!", "\u{120}\u{f0}\u{141}"]);
        assert_eq!(tokenizer.token_bytes(2), b" \xf0\x9f");
        let job = |stop: &str| {
            let messages = vec![ChatMessage::new(Role::User, "Hello")];
            let model = ModelId::new("tiny").expect("a name");
            TextJob { stop: vec![stop.to_owned()], ..TextJob::new(model, messages, 3) }
        };
        for (stop, text, reason) in [
            ("! ", "Hi", FinishReason::Stop),
            ("!?", "Hi! \u{fffd}", FinishReason::Length),
            // Only the end of the text makes it one.
            (" \u{fffd}", "Hi!", FinishReason::Stop),
        ] {
            let mut answer = Answer::new(&job(stop), 0, &[], None, None, &tokenizer);
            let mut streamed = String::new();
            let mut end = None;
            for token in 0..3 {
                let mut logits = vec![-1e9; 3];
                logits[token] = 0.0;
                let advance = answer.advance(Next::Copied(logits), &tokenizer).expect("scores");
                streamed.push_str(&advance.delta.text);
                end = advance.end;
            }
            let end = end.expect("three tokens");
            assert_eq!((&*end.text, &*streamed, end.finish_reason), (text, text, reason), "{stop}");
        }
    }
}
