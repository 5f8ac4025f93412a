//! Our own side of a measurement: the same steps that jobs take, without their text.

use std::time::Instant;

use neurino_llm::model::Wanted;
use neurino_llm::{LanguageModel, LlmError};
use neurino_nn::choice::TokenRule;
use neurino_nn::device::is_cpu;
use neurino_nn::launches::watched;
use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, SequenceSpan};
use neurino_nn::{NnError, PagedKvCache};

use super::{HostTime, Round, TextBenchOptions, median, token};

/// Tokens of a prompt that go through the layers at once: as the scheduler cuts them.
const PIECE_CPU: usize = 256;
const PIECE_CARD: usize = 1024;

/// Sequences in a cache, all of the same length.
pub(super) struct Batch<'a> {
    model: &'a LanguageModel,
    cache: PagedKvCache,
    sequences: usize,
    blocks_each: usize,
    len: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(model: &'a LanguageModel, sequences: usize, tokens_each: usize) -> Self {
        let blocks_each = tokens_each.div_ceil(BLOCK_TOKENS);
        let cache = model.new_cache(sequences * blocks_each);
        Self { model, cache, sequences, blocks_each, len: 0 }
    }

    /// A batch over a cache of the caller's, for one sequence.
    pub(super) fn over(model: &'a LanguageModel, cache: PagedKvCache) -> Self {
        let blocks_each = cache.n_blocks();
        Self { model, cache, sequences: 1, blocks_each, len: 0 }
    }

    fn span(&self, sequence: usize, rows: usize) -> SequenceSpan {
        let first = (sequence * self.blocks_each) as u32;
        let blocks = (first..first + self.blocks_each as u32).collect();
        SequenceSpan { rows, start: self.len, blocks }
    }

    /// Forgets all but the first `len` tokens of each sequence.
    pub(super) fn rewind(&mut self, len: usize) {
        self.len = len;
    }

    /// Reads a prompt into each sequence; returns the likeliest token after the last one's.
    pub(super) fn prefill(&mut self, prompt: &[u32]) -> Result<u32, LlmError> {
        let piece_max = if is_cpu(self.model.device()) { PIECE_CPU } else { PIECE_CARD };
        let (start, mut next) = (self.len, 0);
        for sequence in 0..self.sequences {
            self.len = start;
            for piece in prompt.chunks(piece_max) {
                let batch = BatchLayout { sequences: vec![self.span(sequence, piece.len())] };
                self.len += piece.len();
                let is_last = self.len == start + prompt.len();
                let rows: &[usize] = if is_last { &[piece.len() - 1] } else { &[] };
                let logits = self.model.step(piece, &batch, rows, &mut self.cache)?;
                if is_last {
                    next = likeliest(logits.row(0));
                }
            }
        }
        Ok(next)
    }

    /// Adds a token to each sequence; returns the likeliest ones after them.
    pub(super) fn decode(&mut self, tokens: &[u32]) -> Result<Vec<u32>, LlmError> {
        let sequences = (0..self.sequences).map(|sequence| self.span(sequence, 1)).collect();
        let rows: Vec<usize> = (0..self.sequences).collect();
        let batch = BatchLayout { sequences };
        if self.model.chooses() {
            let choices: Vec<_> = rows.iter().map(|&row| (row, TokenRule::LIKELIEST)).collect();
            let wanted = Wanted { rows: &rows, scores: &[], choices: &choices };
            let found = self.model.step_drawing(tokens, &batch, &wanted, &mut self.cache)?;
            self.len += 1;
            return Ok(found.tokens.iter().map(|t| t.map_or(0, |chosen| chosen.token)).collect());
        }
        let logits = self.model.step(tokens, &batch, &rows, &mut self.cache)?;
        self.len += 1;
        Ok(rows.iter().map(|&row| likeliest(logits.row(row))).collect())
    }
}

impl Batch<'_> {
    /// As [`Batch::decode`] without scores.
    pub(super) fn advance(&mut self, tokens: &[u32]) -> Result<(), LlmError> {
        let sequences = (0..self.sequences).map(|sequence| self.span(sequence, 1)).collect();
        self.model.step(tokens, &BatchLayout { sequences }, &[], &mut self.cache)?;
        self.len += 1;
        Ok(())
    }
}

/// Steps behind the medians of [`host_time`].
const HANDED_STEPS: usize = 32;

/// How long it takes to hand a step of one sequence to a card, beside the whole step. `None` on a CPU,
/// which computes while it is asked.
pub(super) fn host_time(
    model: &LanguageModel,
    options: &TextBenchOptions,
) -> Result<Option<HostTime>, LlmError> {
    let device = model.device();
    if is_cpu(device) {
        return Ok(None);
    }
    let length = options.prompt_tokens as usize;
    let mut batch = Batch::new(model, 1, length + HANDED_STEPS + 2);
    let prompt: Vec<u32> =
        (0..options.prompt_tokens).map(|n| token(n, model.vocab_size())).collect();
    batch.prefill(&prompt)?;
    let failed = |reason: String| NnError::Device { reason };
    let (mut handed_s, mut done_s) = (Vec::new(), Vec::new());
    for step in 0..HANDED_STEPS as u32 {
        let started = Instant::now();
        batch.advance(&[token(step, model.vocab_size())])?;
        device.flush().map_err(|error| failed(error.to_string()))?;
        handed_s.push(started.elapsed().as_secs_f64());
        device.sync().map_err(|error| failed(error.to_string()))?;
        done_s.push(started.elapsed().as_secs_f64());
    }
    let [hand_ms, step_ms] = [handed_s, done_s].map(|mut seconds| 1e3 * median(&mut seconds));
    // Timing each kernel slows the host, so that steps of their own are counted and timed.
    let mut watched_step = |n: u32, timed: bool| {
        let (done, launches) = watched(timed, || {
            batch.advance(&[token(n, model.vocab_size())])?;
            device.sync().map_err(|error| LlmError::from(failed(error.to_string())))
        });
        done.map(|()| launches)
    };
    let counted = watched_step(HANDED_STEPS as u32, false)?;
    let timed = watched_step(HANDED_STEPS as u32 + 1, true)?;
    let launches = counted.map(|found| found.count);
    let busy_ms = timed.and_then(|found| found.busy_s).map(|busy_s| 1e3 * busy_s);
    Ok(Some(HostTime { hand_ms, step_ms, launches, busy_ms }))
}

fn likeliest(scores: &[f32]) -> u32 {
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as u32)
}

/// A model being measured.
pub(super) struct Measured<'a> {
    options: &'a TextBenchOptions,
    prompt: Vec<u32>,
    alone: Batch<'a>,
    /// With their prompts read, once they are.
    batches: Vec<(Batch<'a>, bool)>,
}

impl<'a> Measured<'a> {
    pub(super) fn new(model: &'a LanguageModel, options: &'a TextBenchOptions) -> Self {
        let tokens_each = (options.prompt_tokens + options.new_tokens) as usize;
        let batch = |&sequences: &u32| (Batch::new(model, sequences as usize, tokens_each), false);
        Self {
            options,
            prompt: (0..options.prompt_tokens).map(|n| token(n, model.vocab_size())).collect(),
            alone: Batch::new(model, 1, tokens_each),
            batches: options.batches.iter().map(batch).collect(),
        }
    }

    /// Measures everything once.
    pub(super) fn round(&mut self) -> Result<Round, LlmError> {
        self.alone.rewind(0);
        let started = Instant::now();
        self.alone.prefill(&self.prompt)?;
        // The first token is drawn from what the prompt gives.
        let prefill_s = started.elapsed().as_secs_f64();
        let mut decode_s = Vec::new();
        for (batch, is_read) in &mut self.batches {
            if !*is_read {
                batch.rewind(0);
                batch.prefill(&self.prompt)?;
                *is_read = true;
            }
            batch.rewind(self.prompt.len());
            let vocab_size = batch.model.vocab_size();
            let mut tokens: Vec<u32> =
                (0..batch.sequences as u32).map(|n| token(n, vocab_size)).collect();
            let started = Instant::now();
            for _ in 0..self.options.new_tokens {
                tokens = batch.decode(&tokens)?;
            }
            decode_s.push(started.elapsed().as_secs_f64());
        }
        Ok(Round { first_token_s: prefill_s, prefill_s, decode_s })
    }
}
