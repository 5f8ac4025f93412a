//! Speed of a language model on a device: loading, reading a prompt, generating.

use std::time::Instant;

use neurino_llm::{LanguageModel, ModelSource};
use serde::Serialize;

use crate::api::{DeviceChoice, EngineError, EngineErrorCode, ModelRef};
use crate::device;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct TextBenchOptions {
    /// The device.
    pub device: DeviceChoice,
    /// Length of the prompt in tokens.
    pub prompt_tokens: u32,
    /// Tokens to generate, one after another.
    pub new_tokens: u32,
    /// Runs; medians are reported. One more run before them warms up.
    pub runs: u32,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextBench {
    /// The device, for people.
    pub device: String,
    /// Whether it is the processor.
    pub on_cpu: bool,
    /// Opening the files and loading the weights, in milliseconds.
    pub load_ms: u64,
    /// Length of the prompt in tokens.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub new_tokens: u32,
    /// Runs behind the medians.
    pub runs: u32,
    /// Prompt tokens read a second.
    pub prefill_tokens_per_s: f64,
    /// Tokens generated a second, one sequence at a time.
    pub decode_tokens_per_s: f64,
    /// Memory of the weights.
    pub weights_bytes: u64,
    /// Bytes of weights that one generated token reads.
    pub bytes_per_token: u64,
}

/// Measures a model. Blocks; run it on a thread of its own.
///
/// # Errors
/// `ModelUnreadable`, `NoSuchDevice`, `ContextTooLong`, `Internal`.
pub fn text(model: &ModelRef, options: &TextBenchOptions) -> Result<TextBench, EngineError> {
    let device::OpenDevice { device, name, .. } = device::open(options.device)?.swap_remove(0);
    let unreadable = |e: neurino_llm::LlmError| {
        EngineError::new(EngineErrorCode::ModelUnreadable, e.to_string())
    };
    let started = Instant::now();
    let source = ModelSource::open(&model.path).map_err(unreadable)?;
    let language_model = LanguageModel::load(&source, &device, &|_, _| {}).map_err(unreadable)?;
    let load_ms = started.elapsed().as_millis() as u64;
    let wanted = (options.prompt_tokens + options.new_tokens) as usize;
    if wanted > language_model.context_tokens() {
        let message = format!(
            "{wanted} tokens were asked for, but the model holds {}",
            language_model.context_tokens()
        );
        return Err(EngineError::new(EngineErrorCode::ContextTooLong, message));
    }
    let (mut prefill_s, mut decode_s) = (Vec::new(), Vec::new());
    for run in 0..=options.runs {
        let (prefill, decode) =
            one_run(&language_model, options).map_err(|e| EngineError::internal(e.to_string()))?;
        if run > 0 {
            prefill_s.push(prefill);
            decode_s.push(decode);
        }
    }
    Ok(TextBench {
        on_cpu: name.starts_with("CPU"),
        device: name,
        load_ms,
        prompt_tokens: options.prompt_tokens,
        new_tokens: options.new_tokens,
        runs: options.runs,
        prefill_tokens_per_s: f64::from(options.prompt_tokens) / median(&mut prefill_s),
        decode_tokens_per_s: f64::from(options.new_tokens) / median(&mut decode_s),
        weights_bytes: language_model.weights_bytes(),
        bytes_per_token: language_model.bytes_per_token(),
    })
}

/// Seconds for the prompt and for the generated tokens. Which tokens they are does not matter to
/// the speed; they are spread over the vocabulary so that no row of the embedding stays cached.
fn one_run(
    model: &LanguageModel,
    options: &TextBenchOptions,
) -> Result<(f64, f64), neurino_llm::LlmError> {
    let vocabulary = model.vocab_size() as u32;
    let token = |n: u32| n.wrapping_mul(2_654_435_761) % vocabulary;
    let prompt: Vec<u32> = (0..options.prompt_tokens).map(token).collect();
    let mut cache = model.new_sequence((options.prompt_tokens + options.new_tokens) as usize);
    let started = Instant::now();
    model.forward(&prompt, &mut cache)?;
    let prefill = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for n in 0..options.new_tokens {
        model.forward(&[token(options.prompt_tokens + n)], &mut cache)?;
    }
    Ok((prefill, started.elapsed().as_secs_f64()))
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
