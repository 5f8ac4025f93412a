//! Chooses tokens on the card: penalties, bias, temperature, top-k, top-p, min-p, and the draw.
//!
//! The rules and their order are those of `neurino-llm`'s sampler. A weight is
//! `e^((logit - highest) / temperature)`; weights are added as whole numbers of 2^-40, so that no sum
//! depends on its order and choices repeat on every card. With the same random number the token is
//! the CPU's, except where a sum of weights falls within rounding of a limit.
//!
//! One cube works on a row. Limits are found digit by digit, as in a radix sort: the logits' bits,
//! made to rise with their value, eight at a time.
#![expect(
    clippy::assign_op_pattern,
    clippy::eq_op,
    clippy::float_cmp,
    clippy::manual_div_ceil,
    reason = "cube code has its own arithmetic; exact equality is meant"
)]

use cubecl::prelude::*;

use crate::buffer::Buffer;
use crate::gpu::Gpu;
use crate::lanes::{Cut, cube_max, cube_sum};
use crate::math::{exp, ln};

/// What comes out for a row whose logits are no numbers or have no finite maximum.
pub const NO_TOKEN: u32 = u32::MAX;
/// Values of a row's parameters; see [`Params::to_row`].
pub const PARAMS: usize = 8;
/// Words of an entry of a row's list; see [`Entry::to_words`].
pub const ENTRY: usize = 3;
/// Words of what comes out for a row: the token, and the bits of its log-probability.
pub const CHOICE: usize = 2;

/// Temperatures below this mean the likeliest token.
const GREEDY_BELOW: f32 = 1e-5;
/// One, as a weight.
const ONE: f32 = 1_099_511_627_776.0;
/// Values of eight bits.
const DIGITS: usize = 256;
/// Set in an entry's count if repetition and presence are penalised.
const SEEN: u32 = 1 << 31;

/// How a row's token is chosen; the fields are those of a text job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params {
    /// Below 1e-5 the likeliest token is taken.
    pub temperature: f32,
    /// Keeps the likeliest tokens that together reach this share; 1 keeps all.
    pub top_p: f32,
    /// Keeps the likeliest so many tokens and their equals; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens at least this likely, relative to the likeliest.
    pub min_p: f32,
    /// Divides (below zero: multiplies) logits of tokens in prompt or answer.
    pub repetition_penalty: f32,
    /// Taken from a logit for each time its token is in the answer.
    pub frequency_penalty: f32,
    /// Taken from a logit if its token is in the answer.
    pub presence_penalty: f32,
}

impl Params {
    /// As the kernel reads them.
    pub fn to_row(self) -> [f32; PARAMS] {
        [
            self.temperature,
            self.top_p,
            // Exact: a vocabulary has less than 2^24 tokens.
            self.top_k as f32,
            self.min_p,
            self.repetition_penalty,
            self.frequency_penalty,
            self.presence_penalty,
            0.0,
        ]
    }
}

/// A token whose logit is changed before sampling. A row has at most one entry for a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The token.
    pub token: u32,
    /// How often it is in the answer; `None` if it is in neither prompt nor answer.
    pub seen: Option<u32>,
    /// Added after the penalties.
    pub bias: f32,
}

impl Entry {
    /// As the kernel reads it.
    pub fn to_words(self) -> [u32; ENTRY] {
        let count = self.seen.map_or(0, |count| count.min(SEEN - 1) | SEEN);
        [self.token, count, self.bias.to_bits()]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    vocabulary: usize,
    cut: Cut,
}

impl Plan {
    /// Neighbouring tokens that one unit looks at when tokens are told apart by their place.
    fn run(&self) -> usize {
        self.vocabulary.div_ceil(self.cut.units())
    }
}

/// A number whose order as an integer is that of the float.
#[cube]
fn key_of(logit: f32) -> u32 {
    let bits = u32::reinterpret(logit);
    select(bits >> 31u32 == 1, !bits, bits | 0x8000_0000u32)
}

/// The weight of a logit in units of 2^-40.
#[cube]
fn weight_of(logit: f32, highest: f32, temperature: f32) -> u64 {
    u64::cast_from(exp((logit - highest) / temperature) * f32::new(ONE))
}

/// The key at which `amount`s summed from the greatest key downwards first reach `target`, with the
/// sum of all greater ones: `[sum]` in `above`. An amount is 1, or the weight of keys from `least` on.
#[cube]
fn key_at(
    logits: &[f32],
    base: usize,
    highest: f32,
    temperature: f32,
    least: u32,
    target: u64,
    above: &mut Shared<[u64]>,
    #[comptime] weighted: bool,
    #[comptime] plan: Plan,
) -> u32 {
    let units = comptime!(plan.cut.units());
    let sums = Shared::<[Atomic<u64>]>::new_slice(DIGITS);
    let mut found = Shared::<[u32]>::new_slice(1usize);
    if UNIT_POS == 0 {
        above[0] = 0u64;
        found[0] = 0u32;
    }
    #[unroll]
    for level in 0..4u32 {
        let shift = 24u32 - 8u32 * level;
        let mut digit = UNIT_POS as usize;
        while digit < DIGITS {
            sums[digit].store(0u64);
            digit += units;
        }
        sync_cube();
        let prefix = found[0];
        for turn in 0..comptime!(plan.vocabulary.div_ceil(plan.cut.units())) {
            let token = turn * units + UNIT_POS as usize;
            if token < plan.vocabulary {
                let logit = logits[base + token];
                let key = key_of(logit);
                let same = if comptime!(level == 0u32) {
                    true.runtime()
                } else {
                    // What is above the digits already found.
                    (key >> (32u32 - 8u32 * level)) == (prefix >> (32u32 - 8u32 * level))
                };
                if same && key >= least {
                    let digit = ((key >> shift) & 255u32) as usize;
                    if comptime!(weighted) {
                        let weight = weight_of(logit, highest, temperature);
                        sums[digit].fetch_add(weight);
                    } else {
                        sums[digit].fetch_add(1u64);
                    }
                }
            }
        }
        sync_cube();
        if UNIT_POS == 0 {
            let mut sum = above[0];
            let mut digit = 255u32;
            // The lowest digit with anything in it, if rounding leaves the target unreached.
            let mut last = 0u32;
            let mut before = sum;
            let mut searching = true;
            while searching {
                let amount = sums[digit as usize].load();
                if amount > 0u64 {
                    last = digit;
                    before = sum;
                    sum += amount;
                    if sum >= target {
                        searching = false;
                    }
                }
                if digit == 0u32 {
                    searching = false;
                } else {
                    digit -= 1u32;
                }
            }
            above[0] = before;
            found[0] = found[0] | (last << shift);
        }
        sync_cube();
    }
    let key = found[0];
    sync_cube();
    key
}

/// Penalties and bias, for the tokens in a row's list. Keeps what was there in `saved`.
#[cube]
fn adjust(
    logits: &mut [f32],
    base: usize,
    entries: &[u32],
    saved: &mut [f32],
    from: usize,
    to: usize,
    params: &[f32],
    first: usize,
    #[comptime] plan: Plan,
) {
    let mut entry = from + UNIT_POS as usize;
    while entry < to {
        let token = entries[entry * ENTRY] as usize;
        let count = entries[entry * ENTRY + 1];
        if token < plan.vocabulary {
            let mut logit = logits[base + token];
            saved[entry] = logit;
            if count & SEEN != 0u32 {
                let penalty = params[first + 4];
                logit = select(logit > f32::new(0.0f32), logit / penalty, logit * penalty);
                let times = count & comptime!(SEEN - 1);
                if times > 0u32 {
                    logit -= params[first + 5] * f32::cast_from(times);
                    logit -= params[first + 6];
                }
            }
            logits[base + token] = logit + f32::reinterpret(entries[entry * ENTRY + 2]);
        }
        entry += comptime!(plan.cut.units());
    }
    sync_cube();
}

/// The largest logit; infinite if one is no number.
#[cube]
fn highest_of(logits: &[f32], base: usize, #[comptime] plan: Plan) -> f32 {
    let units = comptime!(plan.cut.units());
    let mut most = f32::new(f32::NEG_INFINITY);
    for turn in 0..comptime!(plan.vocabulary.div_ceil(plan.cut.units())) {
        let token = turn * units + UNIT_POS as usize;
        if token < plan.vocabulary {
            let logit = logits[base + token];
            most = select(logit == logit, f32::max(most, logit), f32::new(f32::INFINITY));
        }
    }
    cube_max(most, plan.cut)
}

#[cube(launch_unchecked)]
fn sample_kernel(
    logits: &mut [f32],
    params: &[f32],
    lists: &[u32],
    entries: &[u32],
    saved: &mut [f32],
    uniforms: &[f64],
    choices: &mut [u32],
    #[comptime] plan: Plan,
) {
    let row = CUBE_POS_X as usize;
    let base = row * plan.vocabulary;
    let units = comptime!(plan.cut.units());
    let first = row * PARAMS;
    let temperature = params[first];

    // As the model gave them: for the log-probability.
    let raw = highest_of(&*logits, base, plan);
    let mut mass = f32::new(0.0f32);
    for turn in 0..comptime!(plan.vocabulary.div_ceil(plan.cut.units())) {
        let token = turn * units + UNIT_POS as usize;
        if token < plan.vocabulary {
            mass += exp(logits[base + token] - raw);
        }
    }
    let mass = cube_sum(mass, plan.cut);
    let from = lists[row] as usize;
    let to = lists[row + 1] as usize;
    adjust(logits, base, entries, saved, from, to, params, first, plan);
    let highest = highest_of(&*logits, base, plan);
    let finite =
        f32::abs(highest) < f32::new(f32::INFINITY) && f32::abs(raw) < f32::new(f32::INFINITY);

    let mut chosen = Shared::<[u32]>::new_slice(1usize);
    if UNIT_POS == 0 {
        chosen[0] = NO_TOKEN;
    }
    sync_cube();
    if finite && temperature < f32::new(GREEDY_BELOW) {
        // The first of the likeliest: the largest of the negated places, exact below 2^24.
        let mut place = f32::new(f32::NEG_INFINITY);
        for turn in 0..comptime!(plan.vocabulary.div_ceil(plan.cut.units())) {
            let token = turn * units + UNIT_POS as usize;
            if token < plan.vocabulary && logits[base + token] == highest {
                place = f32::max(place, -f32::cast_from(token));
            }
        }
        let place = cube_max(place, plan.cut);
        if UNIT_POS == 0 {
            chosen[0] = u32::cast_from(-place);
        }
        sync_cube();
    } else if finite {
        let mut above = Shared::<[u64]>::new_slice(1usize);
        let total = Shared::<[Atomic<u64>]>::new_slice(1usize);
        // The least key of a finite logit: what cannot be chosen has none of its own.
        let mut least = key_of(f32::new(f32::MIN));
        let top_k = params[first + 2];
        if top_k > f32::new(0.0f32) && top_k < f32::cast_from(plan.vocabulary) {
            let target = u64::cast_from(top_k);
            let key = key_at(
                &*logits,
                base,
                highest,
                temperature,
                least,
                target,
                &mut above,
                false,
                plan,
            );
            least = u32::max(least, key);
        }
        // Of the tokens with the least key, so many are kept; others only if their key is greater.
        let mut ties = u64::cast_from(comptime!(plan.vocabulary as u32));
        let top_p = params[first + 1];
        if top_p < f32::new(1.0f32) {
            if UNIT_POS == 0 {
                total[0].store(0u64);
            }
            sync_cube();
            let mut mine = 0u64;
            for turn in 0..comptime!(plan.vocabulary.div_ceil(plan.cut.units())) {
                let token = turn * units + UNIT_POS as usize;
                if token < plan.vocabulary {
                    let logit = logits[base + token];
                    if key_of(logit) >= least {
                        mine += weight_of(logit, highest, temperature);
                    }
                }
            }
            total[0].fetch_add(mine);
            sync_cube();
            let target = u64::cast_from(f64::cast_from(top_p) * f64::cast_from(total[0].load()));
            let target = u64::max(target, 1u64);
            least =
                key_at(&*logits, base, highest, temperature, least, target, &mut above, true, plan);
            // Keys are equal exactly where logits are, and so are the weights.
            let bits = select(least >> 31u32 == 1, least & 0x7FFF_FFFFu32, !least);
            let one = weight_of(f32::reinterpret(bits), highest, temperature);
            let left = target - u64::min(above[0], target);
            ties = (left + u64::max(one, 1u64) - 1u64) / u64::max(one, 1u64);
            ties = u64::max(ties, 1u64);
        }
        let min_p = params[first + 3];

        // Each unit adds up a run of neighbouring tokens, so that they can be walked by rising id.
        let mut sums = Shared::<[u64]>::new_slice(units);
        let mut equals = Shared::<[u32]>::new_slice(units);
        let start = UNIT_POS as usize * comptime!(plan.run());
        let end = usize::min(start + comptime!(plan.run()), plan.vocabulary.runtime());
        let mut sum = 0u64;
        let mut equal = 0u32;
        let mut equal_weight = 0u64;
        let mut token = start;
        while token < end {
            let logit = logits[base + token];
            let key = key_of(logit);
            if key >= least {
                let weight = exp((logit - highest) / temperature);
                if weight >= min_p {
                    let weight = u64::cast_from(weight * f32::new(ONE));
                    if key == least {
                        equal += 1u32;
                        equal_weight = weight;
                    } else {
                        sum += weight;
                    }
                }
            }
            token += 1;
        }
        sums[UNIT_POS as usize] = sum;
        equals[UNIT_POS as usize] = equal;
        let mut equal_of = Shared::<[u64]>::new_slice(units);
        equal_of[UNIT_POS as usize] = equal_weight;
        sync_cube();
        if UNIT_POS == 0 {
            let mut all = 0u64;
            let mut left = ties;
            for unit in 0..units {
                let kept = u64::min(left, u64::cast_from(equals[unit]));
                left -= kept;
                all += sums[unit] + kept * equal_of[unit];
            }
            let share = uniforms[row];
            let mut point = u64::cast_from(share * f64::cast_from(all));
            let mut left = ties;
            let mut unit = 0usize;
            let mut searching = true;
            while searching {
                let kept = u64::min(left, u64::cast_from(equals[unit]));
                let here = sums[unit] + kept * equal_of[unit];
                if point < here || unit == comptime!(plan.cut.units() - 1) {
                    searching = false;
                } else {
                    point -= here;
                    left -= kept;
                    unit += 1;
                }
            }
            let mut token = unit * comptime!(plan.run());
            let mut walking = true;
            while walking && token < plan.vocabulary {
                let logit = logits[base + token];
                let key = key_of(logit);
                let weight = exp((logit - highest) / temperature);
                let mut kept = key >= least && weight >= min_p;
                if kept && key == least {
                    kept = left > 0u64;
                    left -= u64::min(left, 1u64);
                }
                let weight = u64::cast_from(weight * f32::new(ONE));
                if kept && weight > 0u64 {
                    // The last one stays chosen if rounding put the point behind it.
                    chosen[0] = token as u32;
                    if point < weight {
                        walking = false;
                    } else {
                        point -= weight;
                    }
                }
                token += 1;
            }
        }
        sync_cube();
    }

    let token = chosen[0];
    let mut own = Shared::<[f32]>::new_slice(1usize);
    if UNIT_POS == 0 {
        own[0] = f32::new(f32::NEG_INFINITY);
        if token != NO_TOKEN {
            own[0] = logits[base + token as usize];
        }
    }
    sync_cube();
    // The logits become again what the model gave.
    let mut entry = from + UNIT_POS as usize;
    while entry < to {
        let changed = entries[entry * ENTRY];
        if (changed as usize) < plan.vocabulary {
            let before = saved[entry];
            if changed == token {
                own[0] = before;
            }
            logits[base + changed as usize] = before;
        }
        entry += units;
    }
    sync_cube();
    if UNIT_POS == 0 {
        let mut logprob = f32::new(f32::NEG_INFINITY);
        if token != NO_TOKEN {
            logprob = f32::min(own[0] - raw - ln(mass), f32::new(0.0f32));
        }
        choices[row * CHOICE] = token;
        choices[row * CHOICE + 1] = u32::reinterpret(logprob);
    }
}

/// A batch to choose from.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `[rows, vocabulary]`, f32; penalties and bias change them, and are taken back at the end.
    pub logits: &'a Buffer,
    /// `[rows, PARAMS]`, f32.
    pub params: &'a Buffer,
    /// `[rows + 1]`, u32: where each row's entries begin, rising, and where the last one's end.
    pub lists: &'a Buffer,
    /// `[entries, ENTRY]`, u32; at least one entry of memory.
    pub entries: &'a Buffer,
    /// `[entries]`, f32: memory.
    pub saved: &'a Buffer,
    /// `[rows]`, f64, from 0 up to, not including, 1.
    pub uniforms: &'a Buffer,
    /// `[rows, CHOICE]`, u32: the chosen tokens, or [`NO_TOKEN`], each with the bits of its f32
    /// log-probability as the model gave it.
    pub choices: &'a Buffer,
}

/// Launches the choice of a token for each row.
///
/// # Panics
/// If the lengths of the buffers do not fit together, or the vocabulary has 2^24 tokens or more.
pub fn sample(gpu: &Gpu, batch: &Batch<'_>) {
    let rows = batch.choices.len() / CHOICE;
    let vocabulary = batch.logits.len() / rows;
    assert!(batch.logits.len() == rows * vocabulary && vocabulary < 1 << 24, "logits");
    assert!(batch.params.len() == rows * PARAMS && batch.lists.len() == rows + 1, "parameters");
    assert!(batch.entries.len() == batch.saved.len() * ENTRY, "lists");
    assert!(batch.uniforms.len() == rows, "one number a row");
    let plan = Plan { vocabulary, cut: cut_of(gpu) };
    // SAFETY: the lengths were checked, tokens of entries are checked by the kernel, and that lists
    // lie inside the entries is the caller's contract.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        sample_kernel::launch_unchecked(
            &gpu.client,
            CubeCount::Static(rows as u32, 1, 1),
            plan.cut.dim(),
            batch.logits.arg(1),
            batch.params.arg(1),
            batch.lists.arg(1),
            batch.entries.arg(1),
            batch.saved.arg(1),
            batch.uniforms.arg(1),
            batch.choices.arg(1),
            plan,
        );
    }
}

/// One cube has a whole row to look at, so it is as large as cubes get.
fn cut_of(gpu: &Gpu) -> Cut {
    if gpu.cut.shuffle { Cut { planes: 32, ..gpu.cut } } else { gpu.cut }
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER as B, Case, device, settings, target};
    let plan = Plan { vocabulary: 128_256, cut: Cut { planes: 32, ..Cut::CUDA } };
    let kernel = sample_kernel::SampleKernel::new(
        settings(plan.cut),
        device(),
        target(),
        B,
        B,
        B,
        B,
        B,
        B,
        B,
        plan,
    );
    vec![Case::new("sample", kernel)]
}
