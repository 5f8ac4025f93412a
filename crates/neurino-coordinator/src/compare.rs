//! Whether two results are the same work: pictures by their pixels, texts by their tokens.
//!
//! In one numeric class (device, program, model, precision of its weights) results are equal to the last bit. Across classes
//! pictures are compared by what is seen (pHash, SSIM) and by how sharp it is: a picture that was made
//! small and enlarged looks the same and has lost its finest detail. Texts are compared up to where
//! they part, and there by how close the two tokens were.

use std::sync::LazyLock;

use neurino_core::audit::margins::{MarginRules, MarginVerdict, Margins};
use neurino_core::{
    ClaimScore, FinishReason, ImageOutput, JobSpec, TextChoice, TextClaim, TextJob, TextOutput,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::jobs::NETWORK_STOPS;
use crate::picture;
use crate::watch::answer_bytes;

/// Side of the small picture that near copies are found by, in pixels.
pub const THUMB_SIDE: usize = 16;
/// Side of the picture that the perceptual hash is made of, in pixels.
const HASH_SIDE: usize = 32;
/// Side of its low frequencies, of which each gives a bit.
const HASH_BITS_SIDE: usize = 16;
/// Steps of a channel within which all of a picture is one colour.
const BLANK_RANGE: u8 = 2;

/// How far results of two numeric classes may lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Share of the perceptual hash's bits that may differ.
    pub phash_max: f64,
    /// Least structural similarity.
    pub ssim_min: f64,
    /// How much finest detail may be more or less, as a share.
    pub detail_max: f64,
    /// How much less likely the other token may be where greedy texts part, in nats.
    pub margin_nats: f64,
    /// Drawn texts that part before this token are told apart; later ones say nothing.
    pub drawn_tokens_min: usize,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            phash_max: 0.10,
            ssim_min: 0.90,
            detail_max: 0.20,
            margin_nats: 0.5,
            drawn_tokens_min: 3,
        }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Finding {
    /// Equal to the last bit.
    Same,
    /// Another class's way to the same result.
    Close {
        /// In figures.
        figures: Figures,
    },
    /// Another result.
    Differs {
        /// In what.
        why: Difference,
        /// In figures.
        figures: Figures,
    },
    /// Another class may have come to this or not.
    Unclear {
        /// In figures.
        figures: Figures,
    },
}

/// In what two results differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// One is a text, the other a picture, or there are more of one.
    Shape,
    /// Pixels, where they should be equal.
    Pixels,
    /// What is seen.
    Sight,
    /// The finest detail.
    Detail,
    /// Tokens, or why the text ended.
    Tokens,
    /// The count of tokens.
    Count,
}

/// Figures of a comparison; absent where they do not apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Share of the perceptual hash's bits that differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phash: Option<f64>,
    /// Structural similarity, at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    /// Finest detail of the first over that of the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<f64>,
    /// Tokens up to where the texts part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// How much less likely the first one's token was there, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_nats: Option<f64>,
    /// Share of a claimed text's tokens that the auditor's sampler would have chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<f64>,
    /// Mean clipped margin by which the others lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Share of it and the network's own texts that are no more like the rest: small of an engine that draws
    /// otherwise, anything above 0 of one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<f64>,
}

/// What is known of a picture's pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// SHA-256 of the pixels.
    pub pixels: [u8; 32],
    /// Sixteen by sixteen means, three bytes each.
    pub thumb: Vec<u8>,
    /// 256 bits of what is seen.
    pub phash: [u64; 4],
    /// Mean square of each pixel's brightness against its neighbours'.
    pub detail: f64,
    /// Whether all of it is of one colour.
    pub blank: bool,
}

/// Makes [`Facts`] of rows as they come.
pub(crate) struct Look {
    width: usize,
    height: usize,
    y: usize,
    digest: Sha256,
    low: [u8; 3],
    high: [u8; 3],
    thumb: Vec<(u64, u64)>,
    grid: Vec<(f64, u32)>,
    /// The last two rows' brightness.
    rows: [Vec<f32>; 2],
    detail: f64,
}

impl Look {
    pub(crate) fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self {
            width,
            height,
            y: 0,
            digest: Sha256::new(),
            low: [u8::MAX; 3],
            high: [0; 3],
            thumb: vec![(0, 0); THUMB_SIDE * THUMB_SIDE * 3],
            grid: vec![(0.0, 0); HASH_SIDE * HASH_SIDE],
            rows: [Vec::new(), Vec::new()],
            detail: 0.0,
        }
    }

    /// Takes the next row, three bytes a pixel.
    pub(crate) fn row(&mut self, row: &[u8]) {
        self.digest.update(row);
        let thumb_y = self.y * THUMB_SIDE / self.height;
        let grid_y = self.y * HASH_SIDE / self.height;
        let mut light = Vec::with_capacity(self.width);
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            let cell = 3 * (thumb_y * THUMB_SIDE + x * THUMB_SIDE / self.width);
            for (channel, value) in pixel.iter().enumerate() {
                self.low[channel] = self.low[channel].min(*value);
                self.high[channel] = self.high[channel].max(*value);
                let (sum, count) = &mut self.thumb[cell + channel];
                (*sum, *count) = (*sum + u64::from(*value), *count + 1);
            }
            let value = brightness(pixel);
            let (sum, count) = &mut self.grid[grid_y * HASH_SIDE + x * HASH_SIDE / self.width];
            (*sum, *count) = (*sum + f64::from(value), *count + 1);
            light.push(value);
        }
        let [above, middle] = &self.rows;
        if above.len() == light.len() {
            for x in 1..light.len().saturating_sub(1) {
                let around = above[x] + light[x] + middle[x - 1] + middle[x + 1];
                self.detail += f64::from(4.0 * middle[x] - around).powi(2);
            }
        }
        self.rows.swap(0, 1);
        self.rows[1] = light;
        self.y += 1;
    }

    /// Whether all that came is of one colour.
    fn is_blank(&self) -> bool {
        (0..3).all(|c| self.high[c].saturating_sub(self.low[c]) <= BLANK_RANGE)
    }

    pub(crate) fn finish(self) -> Facts {
        let blank = self.is_blank();
        let mean = |(sum, count): &(u64, u64)| u8::try_from(sum / (*count).max(1)).unwrap_or(255);
        let inner = self.width.saturating_sub(2) * self.height.saturating_sub(2);
        let grid = self.grid.iter().map(|(sum, count)| sum / f64::from((*count).max(1)));
        Facts {
            pixels: self.digest.finalize().into(),
            thumb: self.thumb.iter().map(mean).collect(),
            phash: phash(&grid.collect::<Vec<_>>()),
            detail: self.detail / inner.max(1) as f64,
            blank,
        }
    }
}

impl Facts {
    /// Share of the perceptual hash's bits in which two pictures differ.
    pub fn phash_distance(&self, other: &Self) -> f64 {
        let bits = self.phash.iter().zip(&other.phash).map(|(a, b)| (a ^ b).count_ones());
        f64::from(bits.sum::<u32>()) / 256.0
    }
}

/// Whether two small pictures ([`Facts::thumb`]) are the same but for a few steps of brightness here and
/// there, as those of a copy are that was written anew.
pub fn nearly_equal(own: &[u8], thumb: &[u8]) -> bool {
    /// Mean and largest step between the small pictures.
    const MEAN_MAX: f64 = 0.75;
    const STEP_MAX: u8 = 4;
    let steps = own.iter().zip(thumb).map(|(a, b)| a.abs_diff(*b));
    let (mut sum, mut most) = (0_u32, 0_u8);
    for step in steps {
        (sum, most) = (sum + u32::from(step), most.max(step));
    }
    own.len() == thumb.len() && most <= STEP_MAX && f64::from(sum) <= MEAN_MAX * thumb.len() as f64
}

fn brightness(pixel: &[u8]) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}

/// Which of the low frequencies of a picture's brightness are above their median.
fn phash(grid: &[f64]) -> [u64; 4] {
    static COSINES: LazyLock<Vec<f64>> = LazyLock::new(|| {
        let angle = |u: usize, x: usize| {
            std::f64::consts::PI * (2 * x + 1) as f64 * u as f64 / (2 * HASH_SIDE) as f64
        };
        let of = |u: usize| (0..HASH_SIDE).map(move |x| angle(u, x).cos());
        (0..HASH_BITS_SIDE).flat_map(of).collect()
    });
    let wave = |u: usize, x: usize| COSINES[u * HASH_SIDE + x];
    // Rows first, then columns.
    let mut half = vec![0.0; HASH_SIDE * HASH_BITS_SIDE];
    for y in 0..HASH_SIDE {
        for u in 0..HASH_BITS_SIDE {
            half[y * HASH_BITS_SIDE + u] =
                (0..HASH_SIDE).map(|x| grid[y * HASH_SIDE + x] * wave(u, x)).sum();
        }
    }
    let mut low = Vec::with_capacity(HASH_BITS_SIDE * HASH_BITS_SIDE);
    for v in 0..HASH_BITS_SIDE {
        for u in 0..HASH_BITS_SIDE {
            low.push(
                (0..HASH_SIDE).map(|y| half[y * HASH_BITS_SIDE + u] * wave(v, y)).sum::<f64>(),
            );
        }
    }
    // The mean brightness says nothing of what is seen.
    low[0] = 0.0;
    let mut sorted = low.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let mut bits = [0; 4];
    for (at, value) in low.iter().enumerate() {
        bits[at / 64] |= u64::from(*value > median) << (at % 64);
    }
    bits
}

/// The pixels of a picture, three bytes each, row by row; read with the same bounds as a stranger's.
///
/// # Errors
/// What is wrong with the file.
pub fn pixels(picture: &ImageOutput) -> Result<Vec<u8>, &'static str> {
    picture::pixels(picture)
}

/// Compares a picture with what somebody else made of the same job.
///
/// # Errors
/// What is wrong with one of the files.
pub fn pictures(
    first: &ImageOutput,
    second: &ImageOutput,
    same_class: bool,
    tolerance: &Tolerance,
) -> Result<Finding, &'static str> {
    let differs = |why, figures| Ok(Finding::Differs { why, figures });
    let (width, height) = (first.width, first.height);
    let (a, b) = (picture::pixels(first)?, picture::pixels(second)?);
    let whole = width as usize * height as usize * 3;
    if (second.width, second.height) != (width, height) || a.len() != b.len() || a.len() != whole {
        return differs(Difference::Shape, Figures::default());
    }
    if a == b {
        return Ok(Finding::Same);
    }
    let facts = |pixels: &[u8]| {
        let mut look = Look::new(width, height);
        pixels.chunks_exact(3 * width as usize).for_each(|row| look.row(row));
        look.finish()
    };
    let (facts_a, facts_b) = (facts(&a), facts(&b));
    let figures = Figures {
        phash: Some(facts_a.phash_distance(&facts_b)),
        ssim: Some(ssim(&a, &b, width as usize)),
        detail: Some(ratio(facts_a.detail, facts_b.detail)),
        ..Figures::default()
    };
    if same_class {
        return differs(Difference::Pixels, figures);
    }
    let [seen, alike, sharp] =
        [figures.phash, figures.ssim, figures.detail].map(Option::unwrap_or_default);
    if seen > tolerance.phash_max || alike < tolerance.ssim_min {
        differs(Difference::Sight, figures)
    } else if (sharp - 1.0).abs() > tolerance.detail_max {
        differs(Difference::Detail, figures)
    } else {
        Ok(Finding::Close { figures })
    }
}

/// One over another; 1 of two that are nearly nothing.
fn ratio(a: f64, b: f64) -> f64 {
    /// Square of half a step of brightness.
    const NOTHING: f64 = 0.25;
    (a + NOTHING) / (b + NOTHING)
}

/// Mean structural similarity of brightness over windows of 8 x 8 pixels, every 4 pixels.
fn ssim(a: &[u8], b: &[u8], width: usize) -> f64 {
    const WINDOW: usize = 8;
    const C1: f64 = 6.5025;
    const C2: f64 = 58.5225;
    let light = |pixels: &[u8]| pixels.chunks_exact(3).map(brightness).collect::<Vec<f32>>();
    let (a, b) = (light(a), light(b));
    let height = a.len() / width.max(1);
    let (mut sum, mut windows) = (0.0, 0_u32);
    for top in (0..=height.saturating_sub(WINDOW)).step_by(WINDOW / 2) {
        for left in (0..=width.saturating_sub(WINDOW)).step_by(WINDOW / 2) {
            let [mut sa, mut sb, mut saa, mut sbb, mut sab] = [0.0; 5];
            for y in top..(top + WINDOW).min(height) {
                for x in left..(left + WINDOW).min(width) {
                    let (p, q) = (f64::from(a[y * width + x]), f64::from(b[y * width + x]));
                    (sa, sb) = (sa + p, sb + q);
                    (saa, sbb, sab) = (saa + p * p, sbb + q * q, sab + p * q);
                }
            }
            let n = (WINDOW.min(height) * WINDOW.min(width)) as f64;
            let (ma, mb) = (sa / n, sb / n);
            let (va, vb, cov) = (saa / n - ma * ma, sbb / n - mb * mb, sab / n - ma * mb);
            sum += (2.0 * ma * mb + C1) * (2.0 * cov + C2)
                / ((ma * ma + mb * mb + C1) * (va + vb + C2));
            windows += 1;
        }
    }
    sum / f64::from(windows.max(1))
}

/// Compares a text with what somebody else wrote for the same job. The second one's
/// log-probabilities, if it has them, say how close the two were where they part.
pub fn texts(
    first: &TextOutput,
    second: &TextOutput,
    job: &TextJob,
    same_class: bool,
    tolerance: &Tolerance,
) -> Finding {
    let differs = |why| Finding::Differs { why, figures: Figures::default() };
    if first.choices.len() != second.choices.len() {
        return differs(Difference::Shape);
    }
    let pairs = || first.choices.iter().zip(&second.choices);
    if pairs().all(|(a, b)| says_the_same(a, b)) {
        // What is paid is the count: it must be right, too. Another tokenizer would be another model.
        return if first.usage == second.usage {
            Finding::Same
        } else {
            differs(Difference::Count)
        };
    }
    // Weights that are kept otherwise are other numbers, whatever program and device.
    if same_class && first.precision == second.precision {
        let parted = pairs().find(|(a, b)| !says_the_same(a, b));
        let tokens = parted.and_then(|(a, b)| Some(parting(a, b)?.0));
        let figures = Figures { tokens, ..Figures::default() };
        return Finding::Differs { why: Difference::Tokens, figures };
    }
    if first.usage.prompt_tokens != second.usage.prompt_tokens {
        return differs(Difference::Count);
    }
    let greedy = job.sampling.temperature < 1e-5;
    let mut worst = None;
    for (a, b) in pairs().filter(|(a, b)| !says_the_same(a, b)) {
        match parted(a, b, greedy, tolerance) {
            found @ Finding::Differs { .. } => return found,
            found @ Finding::Unclear { .. } => worst = Some(found),
            found => worst = worst.or(Some(found)),
        }
    }
    worst.unwrap_or(Finding::Unclear { figures: Figures::default() })
}

/// Bytes of an answer beside which one without a word is another one.
const SOME_BYTES: usize = 64;
/// Bytes that an answer must lack, and how much longer the other one must be, to be certainly cut off.
const CUT_BYTES: usize = 256;
const CUT_TIMES: usize = 4;
/// Where an answer to another question parts from this one's, in tokens.
const AT_ONCE: usize = 8;
/// A token that has this log-probability is the only one that any engine writes, in nats.
const SURE_NATS: f32 = -0.01;

/// Compares texts of which one at least is of another engine. It counts otherwise or not at all, draws
/// other random numbers, and rounds and tokenises in its own way: equal words show that the work is the
/// same, other words show nothing. What no engine makes of the same job is told all the same: nothing
/// beside a whole answer, a greedy answer that is cut off, or one that parts at once from words that
/// were certain.
pub fn texts_of_engines(first: &TextOutput, second: &TextOutput, job: &TextJob) -> Finding {
    let figures = Figures::default();
    if first.choices.len() != second.choices.len() {
        return Finding::Differs { why: Difference::Shape, figures };
    }
    let pairs = || first.choices.iter().zip(&second.choices);
    if pairs().all(|(a, b)| a.text.trim() == b.text.trim() && calls_of(a) == calls_of(b)) {
        return Finding::Same;
    }
    // An answer that begins with a stop text is empty, and one that has it later is short.
    let stops = job.stop.iter().any(|stop| !NETWORK_STOPS.contains(&stop.as_str()));
    let greedy = job.sampling.temperature < 1e-5;
    let differ = |(a, b): (&TextChoice, &TextChoice)| {
        !stops
            && (is_silent_beside(a, b)
                || is_silent_beside(b, a)
                || greedy && (is_cut_from(a, b) || is_cut_from(b, a) || parts_at_once(a, b)))
    };
    if pairs().any(differ) {
        return Finding::Differs { why: Difference::Tokens, figures };
    }
    Finding::Unclear { figures }
}

fn is_silent_beside(a: &TextChoice, b: &TextChoice) -> bool {
    let silent = a.text.trim().is_empty() && a.tool_calls.is_empty();
    silent && answer_bytes(b) >= SOME_BYTES
}

fn is_cut_from(a: &TextChoice, b: &TextChoice) -> bool {
    let (short, long) = (a.text.trim(), b.text.trim());
    a.tool_calls.is_empty()
        && b.tool_calls.is_empty()
        && long.len() >= short.len() + CUT_BYTES
        && long.len() >= short.len() * CUT_TIMES
        && long.starts_with(short)
}

/// Whether the first says something else within the second's first tokens, where that one was sure.
fn parts_at_once(a: &TextChoice, b: &TextChoice) -> bool {
    if !a.tool_calls.is_empty() || !b.tool_calls.is_empty() {
        return false;
    }
    // Engines differ in whether a text begins with the space of its first word.
    let mut rest = a.text.trim_start().as_bytes();
    let mut begun = false;
    for token in b.logprobs.iter().flatten().take(AT_ONCE) {
        let bytes = &token.chosen.bytes[..];
        let bytes = if begun { bytes } else { bytes.trim_ascii_start() };
        if bytes.is_empty() {
            continue;
        }
        begun = true;
        match rest.strip_prefix(bytes) {
            Some(after) => rest = after,
            // It may have ended here, for a reason of its own.
            None if bytes.starts_with(rest) => return false,
            None => return token.chosen.logprob >= SURE_NATS,
        }
    }
    false
}

fn calls_of(choice: &TextChoice) -> Vec<(&str, &str)> {
    choice.tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect()
}

/// The job that has an answer's tokens scored under these seeds; none if the answer does not name tokens that fit.
pub fn claimed(
    job: &TextJob,
    text: &TextOutput,
    seeds: Vec<u64>,
    clip_ppm: u32,
) -> Option<JobSpec> {
    let answers = text.choices.iter().map(|choice| choice.tokens.clone()).collect::<Option<_>>()?;
    let mut scorer = TextJob { logprobs: None, name_tokens: false, ..job.clone() };
    // Whichever comes first: the right one must not be told by where it stands.
    scorer.sampling.seed = *seeds.first()?;
    scorer.claim = Some(TextClaim { answers, seeds, clip_ppm });
    scorer.validate().ok()?;
    Some(JobSpec::Text(scorer))
}

/// Compares a text with an auditor's scores of it: `seeds` are those that were scored, `right` the one that the
/// text was to be drawn with. An auditor that scored several was not told which.
pub fn scored(
    text: &TextOutput,
    scores: &TextOutput,
    claim: &TextClaim,
    right: u64,
    rules: &MarginRules,
) -> Finding {
    let of_each: Option<Vec<&ClaimScore>> =
        scores.choices.iter().map(|c| c.score.as_ref()).collect();
    let right = claim.seeds.iter().position(|seed| *seed == right);
    let (Some(of_each), Some(right)) = (of_each, right) else {
        return Finding::Unclear { figures: Figures::default() };
    };
    let of_seed = |at| Margins::of(of_each.iter().copied(), at, claim.clip_ppm);
    let margins: Option<Vec<Margins>> = (0..claim.seeds.len()).map(of_seed).collect();
    let Some(margins) = margins.filter(|_| of_each.len() == text.choices.len()) else {
        return Finding::Unclear { figures: Figures::default() };
    };
    let own = margins[right];
    let figures = Figures {
        tokens: Some(own.tokens as usize),
        exact: Some(own.exact_share()),
        margin: Some(own.mean()),
        ..Figures::default()
    };
    // Its tokens are to be an answer, and the words those tokens'.
    let whole = of_each.iter().all(|score| score.whole);
    if !whole || !text.choices.iter().zip(&scores.choices).all(|(a, b)| says_the_same(a, b)) {
        return Finding::Differs { why: Difference::Tokens, figures };
    }
    if text.usage.prompt_tokens != scores.usage.prompt_tokens {
        return Finding::Differs { why: Difference::Count, figures };
    }
    let alike = text.precision == scores.precision;
    let verdict = match margins.len() {
        1 => rules.judge(&own, alike),
        _ => rules.judge_blind(&margins, right, alike),
    };
    match verdict {
        MarginVerdict::Holds => Finding::Close { figures },
        MarginVerdict::Fails => Finding::Differs { why: Difference::Tokens, figures },
        MarginVerdict::Unclear => Finding::Unclear { figures },
    }
}

/// Calls are compared without their ids, which only name them.
fn says_the_same(a: &TextChoice, b: &TextChoice) -> bool {
    a.text == b.text && a.finish_reason == b.finish_reason && calls_of(a) == calls_of(b)
}

/// The token of the second at which the first says something else, and what it says from there on.
/// None if the second has no log-probabilities, or the text of a token cannot be found.
fn parting<'a>(a: &'a TextChoice, b: &TextChoice) -> Option<(usize, &'a [u8])> {
    let rated = b.logprobs.as_deref()?;
    let mut rest = a.text.as_bytes();
    for (at, token) in rated.iter().enumerate() {
        match rest.strip_prefix(&token.chosen.bytes[..]) {
            Some(after) => rest = after,
            None => return Some((at, rest)),
        }
    }
    Some((rated.len(), rest))
}

fn parted(a: &TextChoice, b: &TextChoice, greedy: bool, tolerance: &Tolerance) -> Finding {
    let Some((tokens, rest)) = parting(a, b) else {
        return Finding::Unclear { figures: Figures::default() };
    };
    let mut figures = Figures { tokens: Some(tokens), ..Figures::default() };
    let rated = b.logprobs.as_deref().unwrap_or_default();
    let Some(here) = rated.get(tokens).filter(|_| !rest.is_empty()) else {
        // One ends where the other goes on. An end has no log-probability to look at, but a text that
        // was cut off says so itself.
        let cut =
            a.finish_reason == FinishReason::Length && b.finish_reason != FinishReason::Length;
        return if cut || rest.is_empty() && a.finish_reason == FinishReason::Length {
            Finding::Differs { why: Difference::Tokens, figures }
        } else {
            Finding::Unclear { figures }
        };
    };
    let rival = here.top.iter().filter(|rival| !rival.bytes.is_empty());
    let rival = rival.filter(|rival| rest.starts_with(&rival.bytes));
    let rival = rival.map(|rival| rival.logprob).max_by(f32::total_cmp);
    figures.margin_nats = rival.map(|rival| f64::from(here.chosen.logprob - rival));
    match (greedy, figures.margin_nats) {
        (true, Some(margin)) if margin <= tolerance.margin_nats => Finding::Close { figures },
        // Less likely than all that were named.
        (true, _) if !here.top.is_empty() => Finding::Differs { why: Difference::Tokens, figures },
        // The draws are the same for both, so honest texts hardly ever part at once.
        (false, _) if tokens < tolerance.drawn_tokens_min => {
            Finding::Differs { why: Difference::Tokens, figures }
        }
        _ => Finding::Unclear { figures },
    }
}

#[cfg(test)]
mod tests;
