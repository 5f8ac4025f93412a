//! Measures a model that serves several requests at once: `serve MODEL [ANSWERS]..` prints the rate
//! of tokens for so many answers at a time, and the share of the time that is not the model's.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;
use std::time::Duration;

use burn::tensor::Device;
use neurino_core::{ChatMessage, ModelId, Role, SamplingParams, TextJob};
use neurino_llm::serving::{RequestId, ServingLimits};
use neurino_llm::{ChatTemplate, LanguageModel, ModelSource, Runner, Tokenizer};

/// Tokens of an answer.
const ANSWER_TOKENS: u32 = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_default();
    let mut batches: Vec<u32> = args.filter_map(|text| text.parse().ok()).collect();
    if batches.is_empty() {
        batches = vec![1, 8, 32];
    }
    let source = ModelSource::open(Path::new(&path))?;
    let tokenizer = Tokenizer::of_model(&source)?;
    let template = ChatTemplate::open(&source, &tokenizer)?;
    let model = LanguageModel::load(&source, &Device::flex(), &|_, _| ())?;
    let limits = ServingLimits { n_blocks: 1024, rows_per_step: 512, sequences_max: 64 };
    let mut runner = Runner::new(model, tokenizer, template, limits);
    let now = jiff::Zoned::now();
    for batch in batches {
        for number in 0..batch {
            let words = format!("Tell me a long story about the number {number}.");
            let messages = vec![ChatMessage::new(Role::User, words)];
            let sampling = SamplingParams {
                temperature: 0.7,
                top_p: 0.95,
                seed: number.into(),
                ..SamplingParams::default()
            };
            let job = TextJob::new(ModelId::new("measured")?, messages, ANSWER_TOKENS);
            runner.submit(RequestId(number.into()), &TextJob { sampling, ..job }, &now)?;
        }
        // Prompts first: they are another measurement.
        let start = runner.counters();
        while runner.counters().tokens - start.tokens < u64::from(batch) {
            runner.step();
        }
        let before = runner.counters();
        let prompt_rows = before.rows - start.rows;
        let prompt_time = before.step_time.saturating_sub(start.step_time);
        while !runner.is_idle() {
            runner.step();
        }
        let after = runner.counters();
        let (steps, tokens) = (after.steps - before.steps, after.tokens - before.tokens);
        let time = after.step_time.saturating_sub(before.step_time);
        let in_model = after.model_time.saturating_sub(before.model_time);
        let own = time.saturating_sub(in_model);
        println!(
            "{batch} at once: prompts {:.0} tok/s; answers {:.1} tok/s, {:.2} ms a step, \
             {:.3} ms of it outside the model ({:.2} %)",
            prompt_rows as f64 / prompt_time.as_secs_f64(),
            tokens as f64 / time.as_secs_f64(),
            ms(time) / steps as f64,
            ms(own) / steps as f64,
            100.0 * own.as_secs_f64() / time.as_secs_f64(),
        );
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
