//! Euler's method on the straight paths of flow matching, for Flux.
//!
//! Source: Esser et al. 2024; `diffusers@0.30.2 scheduling_flow_match_euler_discrete.py`.

use std::path::Path;

use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Coefficients, NoiseScheduler, Sample, SchedulerError, check_steps};
use crate::DiffusionError;

const LEVELS: usize = 1000;
/// diffusers' name of the schedule.
const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

/// A flow-matching schedule.
#[derive(Debug, Clone)]
pub struct FlowMatchEuler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
}

/// How a model's noise levels are shifted to more noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FlowShift {
    /// The more the larger the picture is: by `exp(mu)`, where `mu` lies on a line through two points.
    Dynamic {
        /// Image tokens of the two points.
        tokens: [f64; 2],
        /// `mu` of the two points.
        mu: [f64; 2],
    },
    /// The same for all pictures; 1 shifts nothing.
    Fixed(f64),
}

/// `scheduler_config.json`, with the defaults of diffusers' class.
#[derive(Deserialize)]
#[serde(default)]
struct Json {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    num_train_timesteps: usize,
    shift: f64,
    use_dynamic_shifting: bool,
    base_shift: f64,
    max_shift: f64,
    base_image_seq_len: f64,
    max_image_seq_len: f64,
}

impl Default for Json {
    fn default() -> Self {
        Self {
            class_name: None,
            num_train_timesteps: LEVELS,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256.0,
            max_image_seq_len: 4096.0,
        }
    }
}

impl FlowShift {
    /// FLUX.1-dev's: a line through 0.5 at 256 tokens and 1.15 at 4096.
    pub const DEV: Self = Self::Dynamic { tokens: [256.0, 4096.0], mu: [0.5, 1.15] };
    /// FLUX.1-schnell's.
    pub const SCHNELL: Self = Self::Fixed(1.0);

    /// Reads diffusers' `scheduler_config.json`.
    ///
    /// # Errors
    /// `Config` if it is not that, or describes another schedule.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let config = |problem| DiffusionError::Config { file: path.to_owned(), problem };
        let text = std::fs::read(path).map_err(|e| config(format!("cannot be read ({e})")))?;
        Self::from_json(&text).map_err(config)
    }

    /// The shift of the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let json: Json =
            serde_json::from_slice(text).map_err(|e| format!("is not understood ({e})"))?;
        if let Some(other) = json.class_name.filter(|name| name != CLASS) {
            return Err(format!("names the schedule `{other}`, and FLUX.1 has but {CLASS}"));
        }
        if json.num_train_timesteps != LEVELS {
            return Err(format!("has other than {LEVELS} noise levels"));
        }
        let points = json.max_image_seq_len - json.base_image_seq_len;
        if !(json.shift > 0.0 && json.shift.is_finite()) || points == 0.0 {
            return Err("shifts noise levels by what is no number".into());
        }
        if !json.use_dynamic_shifting {
            return Ok(Self::Fixed(json.shift));
        }
        let tokens = [json.base_image_seq_len, json.max_image_seq_len];
        Ok(Self::Dynamic { tokens, mu: [json.base_shift, json.max_shift] })
    }

    /// The logarithm of the shift of a picture of `image_tokens`, where it depends on them.
    pub fn mu(self, image_tokens: usize) -> Option<f64> {
        let Self::Dynamic { tokens, mu } = self else { return None };
        let slope = (mu[1] - mu[0]) / (tokens[1] - tokens[0]);
        Some(mu[0] + slope * (image_tokens as f64 - tokens[0]))
    }
}

impl FlowMatchEuler {
    /// A schedule of `steps` for a picture of `image_tokens`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(
        steps: usize,
        shift: FlowShift,
        image_tokens: usize,
    ) -> Result<Self, SchedulerError> {
        check_steps(steps, LEVELS)?;
        let last = 1.0 / steps as f64;
        let stride = if steps > 1 { (last - 1.0) / (steps - 1) as f64 } else { 0.0 };
        let growth = shift.mu(image_tokens).unwrap_or_default().exp();
        let shifted = |i: usize| {
            let line = if i + 1 == steps && steps > 1 { last } else { 1.0 + stride * i as f64 };
            match shift {
                FlowShift::Fixed(shift) => shift * line / (1.0 + (shift - 1.0) * line),
                FlowShift::Dynamic { .. } => growth / (growth + (1.0 / line - 1.0)),
            }
        };
        let levels: Vec<f32> = (0..steps).map(|i| shifted(i) as f32).collect();
        let timesteps = levels.iter().map(|&s| f64::from(s * LEVELS as f32)).collect();
        let sigmas = levels.into_iter().chain([0.0]).collect();
        Ok(Self { timesteps, sigmas })
    }
}

impl NoiseScheduler for FlowMatchEuler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The noise level, and how far it changes.
    fn coefficients(&self, i: usize) -> Vec<f32> {
        vec![self.sigmas[i], self.sigmas[i + 1] - self.sigmas[i]]
    }

    fn clean(
        &self,
        output: Tensor<1>,
        sample: Tensor<1>,
        coefficients: &Coefficients,
    ) -> Tensor<1> {
        let [sigma, _] = coefficients.all();
        sample - output * sigma
    }

    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        _noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample {
        let [_, change] = coefficients.all();
        self.start(sample.values + output * change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_both_models_are_read() {
        let dev = br#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 256,
            "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
            "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": true}"#;
        assert_eq!(FlowShift::from_json(dev), Ok(FlowShift::DEV));
        let schnell = br#"{"shift": 1.0, "use_dynamic_shifting": false, "max_shift": 1.15}"#;
        assert_eq!(FlowShift::from_json(schnell), Ok(FlowShift::SCHNELL));
        assert_eq!(FlowShift::from_json(b"{}"), Ok(FlowShift::SCHNELL), "the class's defaults");
        assert_eq!(FlowShift::from_json(br#"{"shift": 3}"#), Ok(FlowShift::Fixed(3.0)));
        let other = br#"{"use_dynamic_shifting": true, "base_shift": 0.25, "max_shift": 2.0,
            "base_image_seq_len": 16, "max_image_seq_len": 64}"#;
        let expect = FlowShift::Dynamic { tokens: [16.0, 64.0], mu: [0.25, 2.0] };
        assert_eq!(FlowShift::from_json(other), Ok(expect));
        for (text, word) in [
            (r#"{"_class_name": "EulerDiscreteScheduler"}"#, "EulerDiscreteScheduler"),
            (r#"{"num_train_timesteps": 500}"#, "noise levels"),
            (r#"{"shift": 0}"#, "no number"),
            (r#"{"base_image_seq_len": 4096}"#, "no number"),
            ("[", "not understood"),
        ] {
            let refused = FlowShift::from_json(text.as_bytes());
            assert!(refused.as_ref().is_err_and(|why| why.contains(word)), "{text}: {refused:?}");
        }
    }

    /// Expected values: `diffusers@0.30.2` `FlowMatchEulerDiscreteScheduler.set_timesteps` with sigmas
    /// from 1 to 1/4, by its formulas.
    #[test]
    fn a_fixed_shift_does_not_depend_on_the_picture() {
        for tokens in [64, 4096] {
            let plain = FlowMatchEuler::new(4, FlowShift::SCHNELL, tokens).expect("steps");
            assert_eq!(plain.sigmas(), [1.0, 0.75, 0.5, 0.25, 0.0]);
            let shifted = FlowMatchEuler::new(4, FlowShift::Fixed(3.0), tokens).expect("steps");
            assert_eq!(shifted.sigmas(), [1.0, 0.9, 0.75, 0.5, 0.0]);
            assert_eq!(shifted.timesteps()[2..3], [750.0]);
        }
        let [small, large] = [256, 4096].map(|tokens| {
            FlowMatchEuler::new(4, FlowShift::DEV, tokens).expect("steps").sigmas()[2]
        });
        assert!((f64::from(small) - 1.0 / (1.0 + (-0.5f64).exp())).abs() < 1e-6, "{small}");
        assert!((f64::from(large) - 1.0 / (1.0 + (-1.15f64).exp())).abs() < 1e-6, "{large}");
    }
}
