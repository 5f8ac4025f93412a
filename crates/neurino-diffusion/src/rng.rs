//! PyTorch's CPU random numbers: `torch.Generator().manual_seed(seed)` and `torch.randn`.
//!
//! Whole words are exact. So are f16 and bf16 normal numbers, which are rounded after every
//! operation, and f64 ones of short draws; f32 draws of 16 and more differ from the reference's
//! vectorised logarithm and sine by up to 1e-6.
//!
//! Source: Matsumoto and Nishimura 1998 (MT19937); `torch@2.4.0 aten/src/ATen/core/
//! TransformationHelper.h`, `aten/src/ATen/native/cpu/DistributionTemplates.h`.

use half::{bf16, f16};

const STATE_WORDS: usize = 624;
const SHIFT_WORDS: usize = 397;

/// From this many values on, `randn` fills whole blocks.
const BLOCK_DRAW_MIN: usize = 16;

/// The type whose rounding a draw of normal numbers has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseDtype {
    /// 32 bits.
    F32,
    /// 16 bits, 11 of them significant.
    F16,
    /// 16 bits, 8 of them significant.
    BF16,
}

/// PyTorch's CPU generator.
#[derive(Debug, Clone)]
pub struct TorchRng {
    state: [u32; STATE_WORDS],
    next: usize,
    /// The second number of the last pair of a short draw.
    cached: Option<f64>,
}

impl TorchRng {
    /// A generator as `manual_seed(seed)` leaves it: only the low 32 bits count.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; STATE_WORDS];
        state[0] = seed as u32;
        for i in 1..STATE_WORDS {
            let last: u32 = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: STATE_WORDS, cached: None }
    }

    /// The next word.
    pub fn word(&mut self) -> u32 {
        if self.next == STATE_WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..STATE_WORDS {
            let next = self.state[(i + 1) % STATE_WORDS];
            let mixed = (self.state[i] & 0x8000_0000) | (next & 0x7fff_ffff);
            let magic = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT_WORDS) % STATE_WORDS] ^ (mixed >> 1) ^ magic;
        }
        self.next = 0;
    }

    /// In [0, 1), with 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        let bits = (high << 32 | low) & ((1 << 53) - 1);
        bits as f64 / (1u64 << 53) as f64
    }

    /// `count` normal numbers as `torch.randn(count, generator=.., dtype=..)` gives them, widened
    /// to f32.
    pub fn randn(&mut self, count: usize, dtype: NoiseDtype) -> Vec<f32> {
        if count < BLOCK_DRAW_MIN {
            return (0..count).map(|_| round(self.normal_f64(), dtype)).collect();
        }
        match dtype {
            NoiseDtype::F32 => self.fill::<f32>(count),
            NoiseDtype::F16 => self.fill::<f16>(count),
            NoiseDtype::BF16 => self.fill::<bf16>(count),
        }
    }

    /// One normal number of a short draw. Pairs are made; the second waits for the next short draw,
    /// also of another call.
    fn normal_f64(&mut self) -> f64 {
        if let Some(second) = self.cached.take() {
            return second;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.cached = Some(radius * theta.sin());
        radius * theta.cos()
    }

    fn fill<T: Real>(&mut self, count: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| T::uniform(self.word())).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK_DRAW_MIN>();
        blocks.iter_mut().for_each(normalise::<T>);
        if !rest.is_empty() {
            // The last block reaches back and is drawn anew as a whole.
            let mut block: [f32; BLOCK_DRAW_MIN] = std::array::from_fn(|_| T::uniform(self.word()));
            normalise::<T>(&mut block);
            values[count - BLOCK_DRAW_MIN..].copy_from_slice(&block);
        }
        values
    }
}

/// Box and Muller's transform of 16 uniform numbers: eight radii, then eight angles.
fn normalise<T: Real>(block: &mut [f32; BLOCK_DRAW_MIN]) {
    const PAIRS: usize = BLOCK_DRAW_MIN / 2;
    for j in 0..PAIRS {
        let u1 = T::round(1.0 - block[j]);
        let u2 = block[j + PAIRS];
        let radius = T::round(T::round(-2.0 * T::round(u1.ln())).sqrt());
        let theta = T::angle(u2);
        block[j] = T::round(radius * T::round(theta.cos()));
        block[j + PAIRS] = T::round(radius * T::round(theta.sin()));
    }
}

/// A float type, computed in f32 and rounded after every operation.
trait Real {
    /// A word as a number in [0, 1).
    fn uniform(word: u32) -> f32;
    fn round(x: f32) -> f32;
    /// `2 pi u`: in f64 and rounded once, as the reference's plain path does.
    fn angle(u: f32) -> f32 {
        Self::round((2.0 * std::f64::consts::PI * f64::from(u)) as f32)
    }
}

impl Real for f32 {
    fn uniform(word: u32) -> f32 {
        (word & 0x00ff_ffff) as f32 / 16_777_216.0
    }
    fn round(x: f32) -> f32 {
        x
    }
    /// The reference's vectorised path stays in f32.
    fn angle(u: f32) -> f32 {
        2.0 * std::f32::consts::PI * u
    }
}

impl Real for f16 {
    fn uniform(word: u32) -> f32 {
        (word & 0x7ff) as f32 / 2048.0
    }
    fn round(x: f32) -> f32 {
        f16::from_f32(x).to_f32()
    }
}

impl Real for bf16 {
    fn uniform(word: u32) -> f32 {
        (word & 0xff) as f32 / 256.0
    }
    fn round(x: f32) -> f32 {
        bf16::from_f32(x).to_f32()
    }
}

fn round(x: f64, dtype: NoiseDtype) -> f32 {
    match dtype {
        NoiseDtype::F32 => x as f32,
        // The reference casts through f32.
        NoiseDtype::F16 => f16::from_f32(x as f32).to_f32(),
        NoiseDtype::BF16 => bf16::from_f32(x as f32).to_f32(),
    }
}
