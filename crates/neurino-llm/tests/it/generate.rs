//! Whole answers of a small model: greedy ids of the reference, stops, limits, repetition.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use neurino_core::{ChatMessage, FinishReason, ModelId, Role, SamplingParams, TextJob, TextOutput};
use neurino_llm::generate::{GenerateError, Step, decode, generate};
use neurino_llm::sampler::Sampler;
use neurino_llm::{ChatTemplate, LanguageModel, ModelSource, Tokenizer};
use safetensors::SafeTensors;

struct Parts {
    model: LanguageModel,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

fn folder() -> PathBuf {
    crate::fixtures().join("llm/llama3")
}

fn parts() -> Parts {
    parts_of(&folder())
}

fn parts_of(path: &Path) -> Parts {
    let source = ModelSource::open(path).unwrap();
    let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos).unwrap();
    let template = ChatTemplate::open(&source, &tokenizer).unwrap();
    Parts { model: crate::load(path), tokenizer, template }
}

fn job(words: &str) -> TextJob {
    let messages = vec![ChatMessage::new(Role::User, words)];
    let mut job = TextJob::new(ModelId::new("tiny").unwrap(), messages, 40);
    job.sampling =
        SamplingParams { temperature: 0.9, top_p: 0.95, seed: 42, ..SamplingParams::default() };
    job
}

/// The output, and the emitted texts with the prompt's length.
fn answer(parts: &Parts, job: &TextJob) -> Result<(TextOutput, u32, Vec<String>), GenerateError> {
    let now: Zoned = "2026-11-21T12:00:00[UTC]".parse().unwrap();
    let (mut prompt, mut texts, mut last) = (0, Vec::new(), 0);
    let mut emit = |step: Step<'_>| match step {
        Step::Prompt { tokens } => prompt = tokens,
        Step::Text { text, tokens } => {
            assert!(tokens >= last, "token counts only rise");
            last = tokens;
            texts.push(text.to_owned());
        }
    };
    let Parts { model, tokenizer, template } = parts;
    let output = generate(model, tokenizer, template, job, &now, &|| false, &mut emit)?;
    Ok((output, prompt, texts))
}

fn ids(tensors: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let bytes = tensors.tensor(name).unwrap().data();
    bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b).try_into().unwrap()).collect()
}

#[test]
fn greedy_ids_are_the_references() {
    let parts = parts();
    let bytes = std::fs::read(folder().join("reference.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let greedy = Sampler::new(SamplingParams { temperature: 0.0, ..SamplingParams::default() });
    for prompt in 0..3 {
        let expected = ids(&tensors, &format!("p{prompt}.greedy_ids"));
        let prompt = ids(&tensors, &format!("p{prompt}.ids"));
        let mut found = Vec::new();
        let mut take = |token| {
            found.push(token);
            ControlFlow::Continue(())
        };
        let reason =
            decode(&parts.model, &prompt, &greedy, expected.len(), &|| false, &mut take).unwrap();
        assert_eq!(found, expected);
        assert_eq!(reason, FinishReason::Length);
    }
}

#[test]
fn pieces_join_to_the_text_and_the_same_seed_repeats_it() {
    let parts = parts();
    let (output, prompt, texts) = answer(&parts, &job("Tell me a story.")).unwrap();
    assert_eq!(texts.concat(), output.text());
    assert_eq!(output.usage.prompt_tokens, prompt);
    assert!((1..=40).contains(&output.usage.completion_tokens));
    assert_eq!(answer(&parts, &job("Tell me a story.")).unwrap().0, output);
    let mut other = job("Tell me a story.");
    other.sampling.seed = 43;
    assert_ne!(answer(&parts, &other).unwrap().0.text(), output.text());
}

#[test]
fn a_stop_string_ends_the_answer_and_is_cut_off() {
    let parts = parts();
    let (whole, ..) = answer(&parts, &job("Go on.")).unwrap();
    let from = whole.text().char_indices().nth(12).unwrap().0;
    let to = whole.text().char_indices().nth(17).unwrap().0;
    let stop = whole.text()[from..to].to_owned();
    let expected = whole.text().split(stop.as_str()).next().unwrap();
    let (cut, _, texts) =
        answer(&parts, &TextJob { stop: vec![stop.clone()], ..job("Go on.") }).unwrap();
    assert_eq!(cut.text(), expected);
    assert_eq!(texts.concat(), expected, "nothing of the stop string was let through");
    assert_eq!(cut.choices[0].finish_reason, FinishReason::Stop);
    assert!(cut.usage.completion_tokens < whole.usage.completion_tokens);
}

#[test]
fn a_prompt_of_several_pieces_reads_as_one() {
    let parts = parts();
    let words = "the sea and the wall ".repeat(120);
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let long = TextJob { sampling: greedy, max_tokens: 3, ..job(&words) };
    let (output, prompt, _) = answer(&parts, &long).unwrap();
    assert!(prompt > 512, "{prompt} tokens make several pieces");
    let now: Zoned = "2026-11-21T12:00:00[UTC]".parse().unwrap();
    let text = parts.template.render(&long.messages, &now).unwrap();
    let tokens = parts.tokenizer.encode(&text, false).unwrap();
    let mut cache = parts.model.new_sequence(tokens.len());
    let logits = parts.model.forward(&tokens, &mut cache).unwrap();
    let first = Sampler::new(greedy).pick(&logits, 0).unwrap();
    assert!(output.text().starts_with(&parts.tokenizer.decode(&[first]).unwrap()));
}

#[test]
fn what_does_not_fit_is_refused_before_any_work() {
    let parts = parts();
    let words = "a b c d e f g h ".repeat(1000);
    let result = answer(&parts, &job(&words));
    assert!(
        matches!(result, Err(GenerateError::ContextTooLong { context_tokens: 8192, .. })),
        "{result:?}"
    );
    let empty = TextJob { messages: vec![], ..job("") };
    assert!(matches!(answer(&parts, &empty), Err(GenerateError::InvalidJob(_))));
}

#[test]
fn cancelling_ends_within_one_step() {
    let parts = parts();
    let now: Zoned = "2026-11-21T12:00:00[UTC]".parse().unwrap();
    let steps = Cell::new(0);
    let cancelled = || steps.get() >= 3;
    let mut emit = |step: Step<'_>| {
        if let Step::Text { .. } = step {
            steps.set(steps.get() + 1);
        }
    };
    let Parts { model, tokenizer, template } = &parts;
    let job = TextJob { max_tokens: 200, ..job("Count.") };
    let result = generate(model, tokenizer, template, &job, &now, &cancelled, &mut emit);
    assert!(matches!(result, Err(GenerateError::Cancelled)));
    assert_eq!(steps.get(), 3);
}

#[test]
fn the_starter_model_reads_and_answers_as_the_reference() {
    let Some(path) = crate::starter::starter_model() else { return };
    let json = std::fs::read(crate::fixtures().join("llm_real/smollm2.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let parts = parts_of(&path);
    let now: Zoned = "2026-11-21T12:00:00[UTC]".parse().unwrap();
    for case in reference["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let (_, asked) = text.split_once("<|im_start|>user\n").unwrap();
        let asked = asked.split("<|im_end|>").next().unwrap();
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let job = TextJob { sampling: greedy, max_tokens: 8, ..job(asked) };
        assert_eq!(parts.template.render(&job.messages, &now).unwrap(), text);
        let numbers = |key: &str| -> Vec<u32> {
            let all = case[key].as_array().unwrap();
            all.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
        };
        assert_eq!(parts.tokenizer.encode(text, false).unwrap(), numbers("ids"));
        let greedy_text = case["greedy_text"].as_str().unwrap();
        assert_eq!(parts.tokenizer.decode(&numbers("greedy_ids")).unwrap(), greedy_text);
        let (output, ..) = answer(&parts, &job).unwrap();
        assert!(greedy_text.starts_with(output.text()), "{}", output.text());
    }
}
