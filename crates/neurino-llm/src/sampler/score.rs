//! A token that somebody else chose, held against what the sampler would have chosen there.

use super::{Field, Mask, Sampler, Scratch, pick_at, scores};

/// How a claimed token fares under one seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Whether the sampler chooses it.
    pub exact: bool,
    /// By how much it loses, 0 to 1: for a drawn token the share of probability between it and the point
    /// that was drawn, for a greedy one the nats that it lacks, for one that a filter excludes at least
    /// the nats that it lacks to be let through.
    pub margin: f32,
}

impl Sampler {
    /// Scores a claimed token under each of several seeds, and goes on as if it had been chosen. The logits
    /// are changed in place. `Some(None)` where the token is none of the model's or is forbidden, so that
    /// nobody can go on after it; `None` where [`Sampler::draw`] gives none.
    pub fn score(
        &mut self,
        claimed: u32,
        seeds: &[u64],
        logits: &mut [f32],
        mask: Option<&mut Mask<'_>>,
        scratch: &mut Scratch,
    ) -> Option<Option<Vec<TokenScore>>> {
        scores::highest(logits)?;
        self.adjust(logits);
        if let Some(mask) = mask {
            mask(logits);
        }
        let highest = scores::highest(logits)?;
        let Some(&logit) = logits.get(claimed as usize).filter(|l| **l > f32::NEG_INFINITY) else {
            return Some(None);
        };
        let field = self.filter(logits, highest, scratch);
        let under = match field {
            Field::One(token) => {
                let margin = (highest - logit).min(1.0);
                vec![TokenScore { exact: token == claimed, margin }; seeds.len()]
            }
            field => {
                let place = Place::of(claimed, field, scratch);
                // A token whose weight is too small to be a number lacks more than enough.
                let weight = scores::exp((logit - highest) / self.params.temperature);
                let lacks = f64::from(place.least / weight).ln().clamp(0.0, 1.0);
                let of_seed = |seed: &u64| -> Option<TokenScore> {
                    let share = self.share_of(*seed);
                    let exact = pick_at(share, field, scratch)? == claimed;
                    let margin = if exact { 0.0 } else { place.margin(share, lacks) };
                    Some(TokenScore { exact, margin: margin as f32 })
                };
                seeds.iter().map(of_seed).collect::<Option<Vec<_>>>()?
            }
        };
        self.note(claimed);
        Some(Some(under))
    }
}

/// Where a token lies among those that may be drawn.
struct Place {
    /// Weight of all tokens before it.
    before: f64,
    /// Its own; 0 if a filter excludes it.
    own: f64,
    total: f64,
    is_kept: bool,
    /// The smallest weight that is let through.
    least: f32,
}

impl Place {
    fn of(claimed: u32, field: Field, scratch: &Scratch) -> Self {
        if field == Field::Some {
            let kept = &scratch.kept;
            let sum = |all: &[super::Candidate]| all.iter().map(|c| f64::from(c.weight)).sum();
            let at = kept.partition_point(|candidate| candidate.id < claimed);
            let own = kept.get(at).filter(|candidate| candidate.id == claimed);
            let least = kept.iter().map(|c| c.weight).fold(f32::INFINITY, f32::min);
            return Self {
                before: sum(&kept[..at]),
                own: own.map_or(0.0, |candidate| f64::from(candidate.weight)),
                total: sum(kept),
                is_kept: own.is_some(),
                least,
            };
        }
        let at = claimed as usize;
        let span = at / scores::SPAN;
        let weights = &scratch.values[span * scores::SPAN..at];
        let within: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        Self {
            before: scratch.sums[..span].iter().sum::<f64>() + within,
            own: f64::from(scratch.values[at]),
            total: scratch.sums.iter().sum(),
            is_kept: true,
            least: 0.0,
        }
    }

    /// The share of probability between the token and what was drawn; at least `lacks` if a filter
    /// excludes it.
    fn margin(&self, share: f64, lacks: f64) -> f64 {
        let point = share * self.total;
        let apart = (self.before - point).max(point - self.before - self.own).max(0.0);
        let apart = (apart / self.total).min(1.0);
        if self.is_kept { apart } else { apart.max(lacks) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::SamplingParams;

    use super::*;

    /// Logits of 300 tokens that depend on a number.
    fn logits(n: u32) -> Vec<f32> {
        let of =
            |token: u32| (n.wrapping_mul(31).wrapping_add(token * token * 7) % 97) as f32 / 12.0;
        (0..300).map(of).collect()
    }

    fn params(temperature: f32, top_k: u32, top_p: f32, min_p: f32) -> SamplingParams {
        let usual = SamplingParams { seed: 7, ..SamplingParams::default() };
        SamplingParams { temperature, top_k, top_p, min_p, ..usual }
    }

    /// Tokens that a sampler draws, each from logits that depend on the one before.
    fn drawn(params: SamplingParams, count: usize) -> Vec<u32> {
        let (mut sampler, mut scratch) = (Sampler::new(params), Scratch::default());
        let mut tokens: Vec<u32> = vec![];
        for _ in 0..count {
            let mut row = logits(tokens.last().copied().unwrap_or(1));
            tokens.push(sampler.draw(&mut row, None, &mut scratch).unwrap().token);
        }
        tokens
    }

    fn scored(params: SamplingParams, claimed: &[u32], seeds: &[u64]) -> Vec<Vec<TokenScore>> {
        let (mut sampler, mut scratch) = (Sampler::new(params), Scratch::default());
        let mut before = 1;
        let score = |&token: &u32| {
            let mut row = logits(std::mem::replace(&mut before, token));
            sampler.score(token, seeds, &mut row, None, &mut scratch).unwrap().unwrap()
        };
        claimed.iter().map(score).collect()
    }

    #[test]
    fn what_the_sampler_drew_is_exact_and_under_another_seed_it_is_not() {
        let penalised = SamplingParams {
            repetition_penalty: 1.3,
            frequency_penalty: 0.4,
            ..params(0.8, 0, 0.9, 0.0)
        };
        for params in [
            params(0.0, 0, 1.0, 0.0),
            params(0.9, 0, 1.0, 0.0),
            params(0.9, 20, 1.0, 0.0),
            params(0.9, 0, 0.8, 0.0),
            params(1.2, 40, 0.9, 0.05),
            penalised,
        ] {
            let tokens = drawn(params, 120);
            let under = scored(params, &tokens, &[7, 8]);
            assert!(under.iter().all(|s| s[0].exact && s[0].margin == 0.0), "{params:?}");
            let others = under.iter().filter(|s| !s[1].exact).count();
            if params.temperature > 0.0 {
                assert!(others > 60, "{others} of 120 told apart, {params:?}");
                let mean = under.iter().map(|s| s[1].margin).sum::<f32>() / 120.0;
                assert!(mean > 0.1, "{mean} {params:?}");
            } else {
                assert_eq!(others, 0, "a greedy text has no seed");
            }
        }
    }

    #[test]
    fn a_margin_is_how_far_a_token_lies_from_the_drawn_one() {
        // Three tokens of a half, a quarter and a quarter.
        let row = || vec![2.0_f32.ln(), 0.0, 0.0];
        let share = Sampler::new(params(1.0, 0, 1.0, 0.0)).share_of(7);
        let score = |token: u32, params: SamplingParams| {
            let mut sampler = Sampler::new(params);
            sampler.score(token, &[7], &mut row(), None, &mut Scratch::default()).unwrap().unwrap()
                [0]
        };
        let spans = [(0.0, 0.5), (0.5, 0.75), (0.75, 1.0)];
        for (token, (from, to)) in (0..3).zip(spans) {
            let found = score(token, params(1.0, 0, 1.0, 0.0));
            let expected = (from - share).max(share - to).max(0.0);
            assert!((f64::from(found.margin) - expected).abs() < 1e-6, "{token} {found:?}");
            assert_eq!(found.exact, (from..to).contains(&share));
        }
        // Greedy: in nats. Excluded by top-k: by what it lacks to be let through.
        assert!((score(1, params(0.0, 0, 1.0, 0.0)).margin - 2.0_f32.ln()).abs() < 1e-6);
        let excluded = score(2, params(1.0, 1, 1.0, 0.0));
        assert!(!excluded.exact && excluded.margin >= 2.0_f32.ln() - 1e-6, "{excluded:?}");
    }

    #[test]
    fn small_errors_of_the_scores_make_small_margins() {
        let params = params(0.9, 0, 0.95, 0.0);
        let tokens = drawn(params, 400);
        let (mut sampler, mut scratch) = (Sampler::new(params), Scratch::default());
        let (mut before, mut sum, mut exact) = (1, 0.0, 0);
        for (at, &token) in tokens.iter().enumerate() {
            let mut row = logits(std::mem::replace(&mut before, token));
            for (id, logit) in row.iter_mut().enumerate() {
                *logit += if (id * 13 + at) % 2 == 0 { 0.01 } else { -0.01 };
            }
            let found =
                sampler.score(token, &[7], &mut row, None, &mut scratch).unwrap().unwrap()[0];
            (sum, exact) = (sum + found.margin.min(0.25), exact + u32::from(found.exact));
        }
        assert!((360..400).contains(&exact), "{exact} of 400");
        assert!(sum / 400.0 < 0.002, "{}", sum / 400.0);
    }

    #[test]
    fn tokens_that_cannot_be_end_it() {
        let mut sampler = Sampler::new(params(0.9, 0, 1.0, 0.0));
        let mut score = |token, forbidden: Option<usize>| {
            let mut mask = |logits: &mut [f32]| {
                if let Some(at) = forbidden {
                    logits[at] = f32::NEG_INFINITY;
                }
            };
            sampler.score(token, &[7], &mut logits(1), Some(&mut mask), &mut Scratch::default())
        };
        assert_eq!(score(300, None), Some(None), "none of the model's");
        assert_eq!(score(5, Some(5)), Some(None), "forbidden");
        assert!(score(5, Some(6)).unwrap().is_some());
        let broken = sampler.score(0, &[7], &mut [f32::NAN], None, &mut Scratch::default());
        assert_eq!(broken, None);
    }
}
