//! Rotary position embedding in Hugging Face's layout: the pair of feature `i` is `i + d/2`.

use std::borrow::Cow;
use std::f32::consts::PI;

use burn::tensor::{Device, Tensor, s};

use crate::device::upload;
use crate::paged::BatchLayout;

/// How a model stretches its rotation frequencies to reach longer texts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// All frequencies divided by one factor.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// The divisor of the long wavelengths.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Tokens the model was first trained on.
        original_context: f32,
    },
    /// YaRN: pairs that turn seldom within `context` tokens are divided by `factor`, those that turn
    /// often are kept, a ramp between; all are stretched by `magnitude`.
    ///
    /// Source: Peng et al. 2023; `transformers@4.44.2 modeling_rope_utils.py`
    /// `_compute_yarn_parameters`.
    Yarn {
        /// The divisor of the long wavelengths.
        factor: f32,
        /// What cosines and sines are multiplied by.
        magnitude: f32,
        /// Pairs that turn more often than this are kept.
        beta_fast: f32,
        /// Pairs that turn less often than this are divided.
        beta_slow: f32,
        /// Tokens the model was first trained on.
        context: f32,
    },
    /// Dynamic NTK: a text of more than `context` tokens turns by a base that grows with its length, a
    /// shorter one as trained.
    ///
    /// Source: `transformers@4.44.2 modeling_rope_utils.py` `_compute_dynamic_ntk_parameters`.
    Dynamic {
        /// How fast the base grows.
        factor: f32,
        /// Tokens the model was trained on.
        context: usize,
    },
    /// LongRoPE: one divisor for each frequency; all are stretched by `magnitude`.
    ///
    /// Source: Ding et al. 2024; `transformers@4.44.2 modeling_rope_utils.py`
    /// `_compute_longrope_parameters`.
    LongRope {
        /// By the pair's number.
        divisors: Vec<f32>,
        /// What cosines and sines are multiplied by.
        magnitude: f32,
    },
    /// One divisor for each frequency, as GGUF files store Llama 3.1's.
    Divisors(Vec<f32>),
}

/// The rotation frequencies of one model.
///
/// Source: Su et al. 2021; `transformers@4.44.2 modeling_rope_utils.py`.
#[derive(Debug, Clone)]
pub struct RotaryEmbedding {
    inv_freq: Vec<f32>,
    /// What cosines and sines are multiplied by.
    magnitude: f32,
    /// Where the frequencies depend on a text's length.
    dynamic: Option<Dynamic>,
}

/// See [`RopeScaling::Dynamic`].
#[derive(Debug, Clone, Copy)]
struct Dynamic {
    theta: f32,
    factor: f32,
    context: usize,
    /// See [`RotaryEmbedding::grown_to`].
    grown: usize,
}

impl Dynamic {
    /// The base for a text of `tokens`, which are more than the context.
    fn base(self, head_dim: usize, tokens: usize) -> f32 {
        let (factor, dim) = (f64::from(self.factor), head_dim as f64);
        let growth = factor * tokens as f64 / self.context as f64 - (factor - 1.0);
        (f64::from(self.theta) * growth.powf(dim / (dim - 2.0))) as f32
    }
}

/// The frequencies of a base, as trained.
fn frequencies(head_dim: usize, base: f32) -> impl Iterator<Item = f32> {
    (0..head_dim / 2).map(move |i| 1.0 / base.powf((2 * i) as f32 / head_dim as f32))
}

impl RotaryEmbedding {
    /// Frequencies for heads of `head_dim` features (even) and base `theta`.
    pub fn new(head_dim: usize, theta: f32, scaling: &RopeScaling) -> Self {
        let plain = frequencies(head_dim, theta).enumerate();
        let mut inv_freq: Vec<f32> = plain.map(|(i, freq)| scaled(freq, i, scaling)).collect();
        let mut magnitude = match scaling {
            RopeScaling::LongRope { magnitude, .. } => *magnitude,
            _ => 1.0,
        };
        if let RopeScaling::Yarn { factor, magnitude: stretch, beta_fast, beta_slow, context } =
            *scaling
        {
            let ramp = yarn_ramp(head_dim, theta, context, [beta_fast, beta_slow]);
            for (i, freq) in inv_freq.iter_mut().enumerate() {
                let divided = ramp(i);
                *freq = *freq / factor * divided + *freq * (1.0 - divided);
            }
            magnitude = stretch;
        }
        let dynamic = match *scaling {
            RopeScaling::Dynamic { factor, context } => {
                Some(Dynamic { theta, factor, context, grown: 0 })
            }
            _ => None,
        };
        Self { inv_freq, magnitude, dynamic }
    }

    /// Radians per token of each feature pair, in a text within the model's context.
    pub fn inv_freq(&self) -> &[f32] {
        &self.inv_freq
    }

    /// Radians per token in a text that holds so many tokens at the end of a step. What is in the cache
    /// keeps the rotation that it had when the text was shorter.
    fn of_text(&self, tokens: usize) -> Cow<'_, [f32]> {
        match self.dynamic {
            // At the context itself the reference neither grows nor begins anew.
            Some(dynamic)
                if tokens >= dynamic.context && tokens.max(dynamic.grown) > dynamic.context =>
            {
                let (head_dim, tokens) = (2 * self.inv_freq.len(), tokens.max(dynamic.grown));
                frequencies(head_dim, dynamic.base(head_dim, tokens)).collect()
            }
            _ => Cow::Borrowed(&self.inv_freq),
        }
    }

    /// The same after a text of so many tokens. With dynamic scaling the reference keeps the frequencies
    /// of the longest text until one comes that is shorter than the context; here every text has its own
    /// unless this is asked for.
    pub fn grown_to(&mut self, tokens: usize) {
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.grown = tokens;
        }
    }

    /// The rotations of a step's rows, shared by all layers.
    pub fn tables(&self, batch: &BatchLayout, device: &Device) -> RotaryTables {
        let mut angles = Vec::with_capacity(batch.rows() * self.inv_freq.len());
        for text in &batch.sequences {
            let inv_freq = self.of_text(text.len());
            for position in text.start..text.len() {
                angles.extend(inv_freq.iter().map(|freq| position as f32 * freq));
            }
        }
        let shape = [batch.rows(), 1, self.inv_freq.len()];
        let table = |f: fn(f32) -> f32| {
            let values = angles.iter().map(|angle| f(*angle) * self.magnitude).collect();
            upload(values, shape, device)
        };
        RotaryTables { cos: table(f32::cos), sin: table(f32::sin) }
    }
}

fn scaled(inv_freq: f32, index: usize, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::None | RopeScaling::Yarn { .. } | RopeScaling::Dynamic { .. } => inv_freq,
        RopeScaling::Linear { factor } => inv_freq / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let wavelength = 2.0 * PI / inv_freq;
            if wavelength > original_context / low_freq_factor {
                inv_freq / factor
            } else if wavelength < original_context / high_freq_factor {
                inv_freq
            } else {
                let smooth = (original_context / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                inv_freq * ((1.0 - smooth) / factor + smooth)
            }
        }
        RopeScaling::Divisors(ref divisors) | RopeScaling::LongRope { ref divisors, .. } => {
            inv_freq / divisors.get(index).copied().unwrap_or(1.0)
        }
    }
}

/// How far each pair is divided, 0 to 1, by the pair's number.
fn yarn_ramp(
    head_dim: usize,
    theta: f32,
    context: f32,
    [beta_fast, beta_slow]: [f32; 2],
) -> impl Fn(usize) -> f32 {
    // The pair, as a fraction, that turns so many times within the context.
    let pair = |turns: f32| {
        let (context, turns, theta) = (f64::from(context), f64::from(turns), f64::from(theta));
        let turns = turns * 2.0 * std::f64::consts::PI;
        head_dim as f64 * (context / turns).ln() / (2.0 * theta.ln())
    };
    let first = pair(beta_fast).floor().max(0.0) as i32;
    let last = pair(beta_slow).ceil().min(head_dim as f64 - 1.0) as i32;
    let span = if first == last { 0.001 } else { (last - first) as f32 };
    move |i| ((i as f32 - first as f32) / span).clamp(0.0, 1.0)
}

/// Cosines and sines of the positions of a step's rows.
#[derive(Debug, Clone)]
pub struct RotaryTables {
    /// `[rows, 1, head_dim / 2]`
    cos: Tensor<3>,
    /// `[rows, 1, head_dim / 2]`
    sin: Tensor<3>,
}

impl RotaryTables {
    /// `[rows, 1, head_dim / 2]`
    pub fn cos(&self) -> &Tensor<3> {
        &self.cos
    }

    /// `[rows, 1, head_dim / 2]`
    pub fn sin(&self) -> &Tensor<3> {
        &self.sin
    }

    /// The same on another device.
    #[must_use]
    pub fn to_device(&self, device: &Device) -> Self {
        let there = |table: &Tensor<3>| table.clone().to_device(device);
        Self { cos: there(&self.cos), sin: there(&self.sin) }
    }

    /// Rotates queries or keys.
    ///
    /// # Shapes
    /// - `x`: `[rows, heads, head_dim]`, f32; returns the same
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = x.clone().slice(s![.., .., ..half]);
        let second = x.slice(s![.., .., half..]);
        let rotated = first.clone() * cos.clone() - second.clone() * sin.clone();
        Tensor::cat(vec![rotated, second * cos + first * sin], 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::download;
    use crate::paged::SequenceSpan;

    /// Texts of which each gets `rows` tokens after `start`.
    fn batch(texts: &[(usize, usize)]) -> BatchLayout {
        let span = |&(start, rows): &(usize, usize)| SequenceSpan { rows, start, blocks: vec![] };
        BatchLayout { sequences: texts.iter().map(span).collect() }
    }

    #[test]
    fn rotates_pairs_half_a_head_apart() {
        let device = Device::flex();
        let rotary = RotaryEmbedding::new(4, 100.0, &RopeScaling::None);
        assert_eq!(rotary.inv_freq(), [1.0, 0.1]);
        let x = upload(vec![1.0, 0.0, 0.0, 2.0], [1, 1, 4], &device);
        let found = download(rotary.tables(&batch(&[(3, 1)]), &device).apply(x)).expect("download");
        let expect = [3f32.cos(), -2.0 * 0.3f32.sin(), 3f32.sin(), 2.0 * 0.3f32.cos()];
        for (found, expect) in found.iter().zip(expect) {
            assert!((found - expect).abs() < 1e-6, "{found} {expect}");
        }
    }

    #[test]
    fn yarn_keeps_fast_pairs_divides_slow_ones_and_stretches_all() {
        let plain = RotaryEmbedding::new(64, 10_000.0, &RopeScaling::None);
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            magnitude: 1.5,
            beta_fast: 32.0,
            beta_slow: 1.0,
            context: 4096.0,
        };
        let yarn = RotaryEmbedding::new(64, 10_000.0, &scaling);
        let ratio = |i: usize| plain.inv_freq()[i] / yarn.inv_freq()[i];
        assert!((ratio(0) - 1.0).abs() < 1e-6 && (ratio(31) - 4.0).abs() < 1e-5);
        assert!((0..31).all(|i| ratio(i) <= ratio(i + 1) + 1e-6), "a ramp in between");
        let tables = yarn.tables(&batch(&[(0, 1)]), &Device::flex());
        let cosines = download(tables.cos().clone()).expect("download");
        assert!(cosines.iter().all(|cosine| (cosine - 1.5).abs() < 1e-6));
    }

    /// Expected values: the formula of the reference in 64 bits, `10000 * (2 * 48 / 32 - 1)^(8 / 6)` for 48
    /// tokens of 32.
    #[test]
    fn dynamic_scaling_goes_by_the_length_of_each_text() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, context: 32 };
        let rotary = RotaryEmbedding::new(8, 10_000.0, &scaling);
        let plain = RotaryEmbedding::new(8, 10_000.0, &RopeScaling::None);
        assert_eq!(rotary.inv_freq(), plain.inv_freq());
        let base = 10_000f64 * 2f64.powf(8.0 / 6.0);
        let expect: Vec<f32> =
            (0..4).map(|i| (47.0 / base.powf(f64::from(i) / 4.0)).cos() as f32).collect();
        let device = Device::flex();
        let cosines = |rotary: &RotaryEmbedding, texts: &[(usize, usize)]| {
            download(rotary.tables(&batch(texts), &device).cos().clone()).expect("download")
        };
        let found = cosines(&rotary, &[(0, 32), (46, 2)]);
        for (found, expect) in found[33 * 4..].iter().zip(&expect) {
            assert!((found - expect).abs() < 1e-5, "{found} {expect}");
        }
        assert_eq!(found[..32 * 4], cosines(&plain, &[(0, 32)]), "within the context");
        assert_ne!(found[32 * 4..], cosines(&plain, &[(46, 2)]), "beyond it");
        let mut grown = rotary.clone();
        grown.grown_to(48);
        let short = cosines(&grown, &[(0, 31), (31, 1), (32, 1)]);
        assert_eq!(short[..31 * 4], found[..31 * 4], "shorter than the context");
        let rows = |start| cosines(&rotary, &[(start, 48 - start)])[..4].to_vec();
        assert_eq!(short[31 * 4..], [rows(31), rows(32)].concat(), "as in a text of 48");
    }

    #[test]
    fn longrope_divides_each_pair_and_stretches_all() {
        let plain = RotaryEmbedding::new(4, 100.0, &RopeScaling::None);
        let scaling = RopeScaling::LongRope { divisors: vec![2.0, 5.0], magnitude: 1.25 };
        let long = RotaryEmbedding::new(4, 100.0, &scaling);
        assert_eq!(long.inv_freq(), [plain.inv_freq()[0] / 2.0, plain.inv_freq()[1] / 5.0]);
        let tables = long.tables(&batch(&[(0, 1)]), &Device::flex());
        assert_eq!(download(tables.cos().clone()).expect("download"), [1.25, 1.25]);
    }

    #[test]
    fn scaling_divides_what_it_should() {
        let plain = RotaryEmbedding::new(64, 10_000.0, &RopeScaling::None);
        let linear = RotaryEmbedding::new(64, 10_000.0, &RopeScaling::Linear { factor: 4.0 });
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        };
        let llama3 = RotaryEmbedding::new(64, 10_000.0, &llama3);
        let ratio = |scaled: &RotaryEmbedding, i: usize| plain.inv_freq()[i] / scaled.inv_freq()[i];
        assert!((0..32).all(|i| (ratio(&linear, i) - 4.0).abs() < 1e-6));
        assert!((ratio(&llama3, 0) - 1.0).abs() < 1e-6, "the shortest wavelength is kept");
        assert!((ratio(&llama3, 31) - 8.0).abs() < 1e-5, "the longest is divided");
        let divisors = (0..32).map(|i| ratio(&llama3, i)).collect();
        let same = RotaryEmbedding::new(64, 10_000.0, &RopeScaling::Divisors(divisors));
        for (a, b) in same.inv_freq().iter().zip(llama3.inv_freq()) {
            assert!((a - b).abs() <= 1e-6 * b, "{a} {b}");
        }
    }
}
