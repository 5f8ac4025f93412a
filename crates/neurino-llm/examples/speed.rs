//! Measures a model: `speed MODEL [PROMPT_TOKENS] [NEW_TOKENS]` prints the time to open and load it,
//! and the rate of prompt and answer tokens on the CPU.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use neurino_llm::{LanguageModel, LlmError, ModelSource};

fn main() -> Result<(), LlmError> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or_default();
    let mut count = |default| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (prompt_tokens, new_tokens): (usize, usize) = (count(40), count(100));

    let start = Instant::now();
    let source = ModelSource::open(Path::new(&model))?;
    println!("open: {:.3} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let model = LanguageModel::load(&source, &Device::flex(), &|_, _| ())?;
    let megabytes = model.weights_bytes() / 1_000_000;
    println!("load: {:.3} s, {megabytes} MB of weights", start.elapsed().as_secs_f64());

    for round in 0..3 {
        let vocab = u32::try_from(model.vocab_size()).unwrap_or(u32::MAX);
        let prompt: Vec<u32> = (0..prompt_tokens as u32).map(|i| (i * 7919 + 3) % vocab).collect();
        let mut cache = model.new_sequence(prompt_tokens + new_tokens);
        let start = Instant::now();
        let mut logits = model.forward(&prompt, &mut cache)?;
        let prefill = start.elapsed().as_secs_f64();

        let start = Instant::now();
        for _ in 0..new_tokens {
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let token = best.map_or(0, |(token, _)| token as u32);
            logits = model.forward(&[token], &mut cache)?;
        }
        let decode = start.elapsed().as_secs_f64();
        println!(
            "round {round}: prefill {prompt_tokens} tokens in {prefill:.3} s ({:.0} tok/s), \
             decode {:.1} tok/s ({:.2} ms a token)",
            prompt_tokens as f64 / prefill,
            new_tokens as f64 / decode,
            1000.0 * decode / new_tokens as f64,
        );
    }
    Ok(())
}
