//! Chooses the next token from its logits, in vLLM's order: repetition penalty, frequency and
//! presence penalties, logit bias, a guide's mask, temperature, top-k, top-p, min-p.
//!
//! A choice is a function of the logits, the parameters, what was chosen before, the answer's number
//! and the position alone, so that the same job gives the same answer wherever and beside whatever
//! its steps are computed. See `docs/SAMPLING.md`.

mod distribution;
mod elsewhere;
mod score;
mod scores;

use std::cmp::Ordering;
use std::collections::HashMap;

use neurino_core::{SamplingParams, TextJob};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use score::TokenScore;

/// Temperatures below this mean the likeliest token.
const GREEDY_BELOW: f32 = 1e-5;
/// Up to here, the best tokens are found in one pass; beyond, by partial sorting.
const FEW: usize = 256;

/// Chooses the tokens of one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    bias: Vec<(u32, f32)>,
    choice: u32,
    /// How many rivals' log-probabilities to give, if any.
    rivals: Option<usize>,
    /// How often each token is in the answer, for tokens of prompt and answer; kept only for
    /// penalties.
    seen: Option<HashMap<u32, u32>>,
    /// Tokens chosen.
    position: u32,
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// The token.
    pub token: u32,
    /// How likely it was, if the job asks for it.
    pub rating: Option<Rating>,
}

/// Log-probabilities of a token and its rivals as the model gave them: before penalties, bias, mask,
/// temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    /// Of the chosen token; at most 0.
    pub logprob: f32,
    /// The likeliest tokens with theirs, likeliest first; the chosen one may be among them.
    pub top: Vec<(u32, f32)>,
}

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    id: u32,
    /// Relative to the likeliest token's, before any filter.
    weight: f32,
}

/// Forbids tokens by setting their logits to negative infinity.
pub type Mask<'a> = dyn FnMut(&mut [f32]) + 'a;

/// Memory that draws use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    raw: Vec<f32>,
    values: Vec<f32>,
    sums: Vec<f64>,
    kept: Vec<Candidate>,
    order: Vec<Candidate>,
}

/// What may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    /// One token.
    One(u32),
    /// All tokens: weights in `values`, their sums in `sums`.
    All,
    /// Those in `kept`, by rising id.
    Some,
}

impl Sampler {
    /// A sampler for plain parameters: no bias, no log-probabilities, an empty prompt.
    pub fn new(params: SamplingParams) -> Self {
        let penalties =
            (params.repetition_penalty, params.frequency_penalty, params.presence_penalty);
        let penalised = penalties != (1.0, 0.0, 0.0);
        let seen = penalised.then(HashMap::new);
        Self { params, bias: Vec::new(), choice: 0, rivals: None, seen, position: 0 }
    }

    /// The sampler for an answer of a job, counted from 0, to a prompt of these tokens.
    pub fn for_answer(job: &TextJob, choice: u32, prompt: &[u32]) -> Self {
        let mut sampler = Self::new(job.sampling);
        sampler.bias.clone_from(&job.logit_bias);
        sampler.choice = choice;
        sampler.rivals = job.logprobs.map(|rivals| rivals as usize);
        sampler.see(prompt);
        sampler
    }

    /// Counts tokens as part of the prompt.
    fn see(&mut self, prompt: &[u32]) {
        if let Some(seen) = &mut self.seen {
            seen.extend(prompt.iter().map(|&token| (token, 0)));
        }
    }

    /// Chooses the next token, among those that `mask` leaves. The logits are changed in place. `None` when no logit is a number, or one is not:
    /// a broken model must not look like an answer.
    pub fn draw(
        &mut self,
        logits: &mut [f32],
        mask: Option<&mut Mask<'_>>,
        scratch: &mut Scratch,
    ) -> Option<Draw> {
        let highest = scores::highest(logits)?;
        let changes = self.seen.is_some() || !self.bias.is_empty() || mask.is_some();
        if self.rivals.is_some() {
            scratch.raw.clear();
            scratch.raw.extend_from_slice(logits);
        }
        if changes {
            self.adjust(logits);
        }
        if let Some(mask) = mask {
            mask(logits);
        }
        let highest_now = if changes { scores::highest(logits)? } else { highest };
        let field = self.filter(logits, highest_now, scratch);
        let token = self.pick(field, scratch)?;
        let rating = self.rivals.map(|rivals| rate(&scratch.raw, highest, token, rivals));
        self.note(token);
        Some(Draw { token, rating })
    }

    /// Counts a chosen token.
    fn note(&mut self, token: u32) {
        self.position += 1;
        if let Some(seen) = &mut self.seen {
            *seen.entry(token).or_default() += 1;
        }
    }

    /// The random number of the next choice. It depends on seed, answer and position alone.
    fn share(&self) -> f64 {
        self.share_of(self.params.seed)
    }

    /// The same with another seed.
    fn share_of(&self, seed: u64) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(u64::from(self.choice) << 32 | u64::from(self.position));
        random.random::<f64>()
    }

    /// Penalties, then bias.
    fn adjust(&self, logits: &mut [f32]) {
        let params = &self.params;
        for (&token, &count) in self.seen.iter().flatten() {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            if count > 0 {
                *logit -= params.frequency_penalty * count as f32;
                *logit -= params.presence_penalty;
            }
        }
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
    }

    /// Temperature, top-k, top-p and min-p.
    fn filter(&self, logits: &[f32], highest: f32, scratch: &mut Scratch) -> Field {
        let params = &self.params;
        if params.temperature < GREEDY_BELOW {
            let first = logits.iter().position(|&logit| logit >= highest);
            return Field::One(first.unwrap_or_default() as u32);
        }
        let k = params.top_k as usize;
        let total = if k > 0 && k < logits.len() {
            let least = least_of_best(logits, k, &mut scratch.values);
            self.weigh_from(least, logits, highest, &mut scratch.kept)
        } else if params.top_p < 1.0 || params.min_p > 0.0 {
            let Scratch { values, sums, kept, .. } = scratch;
            let total = scores::weigh(logits, highest, params.temperature, values, sums);
            // What is less likely is cut by top-p in whatever order, since all of it together is too
            // little; or else by min-p.
            let cut = 1.0 - f64::from(params.top_p);
            let negligible = (cut * total / logits.len() as f64) as f32;
            let floor = if params.top_p < 1.0 { negligible } else { params.min_p };
            kept.clear();
            scores::at_least(values, floor, |id, weight| kept.push(Candidate { id, weight }));
            total
        } else {
            let Scratch { values, sums, .. } = scratch;
            scores::weigh(logits, highest, params.temperature, values, sums);
            return Field::All;
        };
        if params.top_p < 1.0 {
            let least =
                least_of_mass(&scratch.kept, f64::from(params.top_p) * total, &mut scratch.order);
            scratch.kept.retain(|candidate| by_weight(*candidate, least).is_le());
        }
        if params.min_p > 0.0 {
            scratch.kept.retain(|candidate| candidate.weight >= params.min_p);
        }
        Field::Some
    }

    /// Weighs the tokens whose logits are at least `least`; returns the sum.
    fn weigh_from(
        &self,
        least: f32,
        logits: &[f32],
        highest: f32,
        kept: &mut Vec<Candidate>,
    ) -> f64 {
        kept.clear();
        scores::at_least(logits, least, |id, logit| {
            if logit > f32::NEG_INFINITY {
                let weight = scores::exp((logit - highest) / self.params.temperature);
                kept.push(Candidate { id, weight });
            }
        });
        kept.iter().map(|c| f64::from(c.weight)).sum()
    }

    /// Draws by weight.
    fn pick(&self, field: Field, scratch: &Scratch) -> Option<u32> {
        match field {
            Field::One(token) => Some(token),
            field => pick_at(self.share(), field, scratch),
        }
    }
}

/// Draws by weight, with a random number of 0 to 1.
fn pick_at(share: f64, field: Field, scratch: &Scratch) -> Option<u32> {
    if let Field::One(token) = field {
        return Some(token);
    }
    if field == Field::Some {
        let weights = || scratch.kept.iter().map(|c| f64::from(c.weight));
        let at = place(weights(), share * weights().sum::<f64>())?;
        return Some(scratch.kept[at.0].id);
    }
    let sums = || scratch.sums.iter().copied();
    let (span, left) = place(sums(), share * sums().sum::<f64>())?;
    let first = span * scores::SPAN;
    let weights = scratch.values[first..].iter().take(scores::SPAN).map(|&w| f64::from(w));
    Some((first + place(weights, left)?.0) as u32)
}

/// Which of the weights a point falls on that lies so far behind their beginning, and how far into
/// it. Rounding may put it behind the end: then the last weight that is not 0.
fn place(weights: impl Iterator<Item = f64>, mut point: f64) -> Option<(usize, f64)> {
    let mut last = None;
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            if point < weight {
                return Some((index, point));
            }
            point -= weight;
            last = Some((index, weight));
        }
    }
    last
}

/// The lowest logit that top-k keeps; equal ones stay together.
fn least_of_best(logits: &[f32], k: usize, memory: &mut Vec<f32>) -> f32 {
    if k <= FEW {
        return scores::best(logits, k).last().map_or(f32::NEG_INFINITY, |(_, logit)| *logit);
    }
    memory.clear();
    memory.extend_from_slice(logits);
    *memory.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// The likelier first; of equal ones the lower id.
fn by_weight(a: Candidate, b: Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// The last of the likeliest candidates that together reach `mass`.
fn least_of_mass(candidates: &[Candidate], mass: f64, order: &mut Vec<Candidate>) -> Candidate {
    order.clear();
    order.extend_from_slice(candidates);
    // All before `from` are needed and sum to `sum`; none from `to` on is.
    let (mut from, mut to, mut sum) = (0, order.len(), 0.0);
    while to - from > 1 {
        let half = (to - from) / 2;
        let part = &mut order[from..to];
        part.select_nth_unstable_by(half, |a, b| by_weight(*a, *b));
        let likelier: f64 = part[..half].iter().map(|c| f64::from(c.weight)).sum();
        if sum + likelier >= mass {
            to = from + half;
        } else {
            sum += likelier;
            from += half;
        }
    }
    order.get(from).copied().unwrap_or(Candidate { id: u32::MAX, weight: 0.0 })
}

fn rate(raw: &[f32], highest: f32, token: u32, rivals: usize) -> Rating {
    let log_sum = scores::log_sum(raw, highest);
    let logprob = |logit: f32| (f64::from(logit) - f64::from(highest) - log_sum).min(0.0) as f32;
    let top = scores::best(raw, rivals).into_iter().map(|(id, logit)| (id, logprob(logit)));
    Rating { logprob: logprob(raw[token as usize]), top: top.collect() }
}

#[cfg(test)]
mod tests;
