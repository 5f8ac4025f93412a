//! `llm/sampling.*`: from logits, settings and history to the probabilities that a token is drawn from.

use std::path::Path;

use neurino_core::SamplingParams;
use neurino_llm::sampler::Sampler;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::case::{Comparison, Report};
use crate::reference::{Tensors, json};

/// Largest difference of a probability.
const LIMIT: f64 = 1e-5;

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the reference's key")]
struct Case {
    case: usize,
    prompt: Vec<u32>,
    output: Vec<u32>,
    /// Under settings' names; read once their names are known.
    #[serde(flatten)]
    settings: Map<String, Value>,
}

/// Settings in vLLM's words; what is absent changes nothing. One that is not known must not be left out
/// in silence.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    temperature: f32,
    /// Not positive: all.
    top_k: i64,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: -1,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

pub(crate) fn run(folder: &Path, report: &mut Report<'_>) {
    let (cases, tensors) = (folder.join("sampling.json"), folder.join("sampling.safetensors"));
    if !cases.is_file() || !tensors.is_file() {
        return;
    }
    let (cases, tensors) = match (json::<Vec<Case>>(&cases), Tensors::open(&tensors)) {
        (Ok(cases), Ok(tensors)) => (cases, tensors),
        (Err(error), _) | (_, Err(error)) => return report.failed("llm/sampling", &error),
    };
    for case in cases {
        let name = format!("llm/sampling case {}", case.case);
        let settings = match case.settings() {
            Ok(settings) => settings,
            Err(reason) => {
                report.skipped(&name, &reason);
                continue;
            }
        };
        let tensor = |part: &str| tensors.floats(&format!("case{}.{part}", case.case));
        match (tensor("logits"), tensor("probabilities")) {
            (Ok(mut logits), Ok(expect)) => {
                let found = case.sampler(&settings).probabilities(&mut logits).unwrap_or_default();
                let found: Vec<f32> = found.into_iter().map(|p| p as f32).collect();
                report.close(&name, &Comparison::of_values(&found, &expect, LIMIT));
            }
            (Err(error), _) | (_, Err(error)) => report.failed(&name, &error),
        }
    }
}

impl Case {
    /// Its settings; or why this build cannot run it.
    fn settings(&self) -> Result<Settings, String> {
        serde_json::from_value(Value::Object(self.settings.clone()))
            .map_err(|error| format!("its settings are not known here: {error}"))
    }

    fn sampler(&self, settings: &Settings) -> Sampler {
        let params = SamplingParams {
            temperature: settings.temperature,
            top_p: settings.top_p,
            top_k: u32::try_from(settings.top_k).unwrap_or(0),
            min_p: settings.min_p,
            repetition_penalty: settings.repetition_penalty,
            frequency_penalty: settings.frequency_penalty,
            presence_penalty: settings.presence_penalty,
            ..SamplingParams::default()
        };
        Sampler::after(params, &self.prompt, &self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_not_known_is_named() {
        let case = |settings: &str| {
            let json = format!(r#"{{"case": 1, "prompt": [], "output": [], {settings}}}"#);
            serde_json::from_str::<Case>(&json).map_err(|error| error.to_string())?.settings()
        };
        let found = case(r#""top_k": 5, "min_p": 0.1"#).map(|settings| settings.top_k);
        assert_eq!(found, Ok(5));
        let refused = case(r#""top_k": 5, "logit_bias": {"3": 1.0}"#).err().unwrap_or_default();
        assert!(refused.contains("logit_bias"), "{refused}");
    }
}
