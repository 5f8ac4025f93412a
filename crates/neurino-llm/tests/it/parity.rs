//! Tiny checkpoints in their real format: logits, hidden states and greedy tokens of the original
//! implementation, in f32.

use std::path::PathBuf;

use neurino_llm::ModelSource;
use neurino_llm::checkpoint::Precision;
use neurino_llm::model::PREFILL_CHUNK_TOKENS;
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::{argmax, assert_rows_close, device, fixtures, load, load_as};

/// Every architecture.
const NAMES: [&str; 5] = ["llama3", "llama31", "mistral", "mixtral", "mixtral_gptq"];
/// Largest difference, relative to the row's largest value.
const LIMIT: f32 = 1e-4;
/// The same for 16-bit weights.
const HALF_LIMIT: f32 = 2e-2;
/// Below this lead over the second token, either may come first.
const MARGIN: f32 = 1e-3;

/// The outputs of the original implementation.
struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    fn open(name: &str) -> Self {
        let path = folder(name).join("reference.safetensors");
        Self { bytes: std::fs::read(path).unwrap() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = tensors.tensor(name).unwrap().data();
        data.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = tensors.tensor(name).unwrap().data();
        let ids = data.as_chunks::<8>().0.iter().map(|&x| i64::from_le_bytes(x));
        ids.map(|id| u32::try_from(id).unwrap()).collect()
    }
}

fn folder(name: &str) -> PathBuf {
    fixtures().join("llm").join(name)
}

fn check_prompts(name: &str) {
    let (model, reference) = (load(&folder(name)), Reference::open(name));
    let vocab = model.vocab_size();
    for prompt in 0..3 {
        let ids = reference.ids(&format!("p{prompt}.ids"));
        let trace = model.trace(&ids).unwrap();
        let expect = reference.floats(&format!("p{prompt}.logits"));
        assert_rows_close(&format!("{name} p{prompt}"), &trace.logits, &expect, vocab, LIMIT);
        if prompt == 0 {
            let expect = reference.floats("p0.hidden");
            let width = trace.hidden[0].len() / ids.len();
            for (state, (found, expect)) in
                trace.hidden.iter().zip(expect.chunks(ids.len() * width)).enumerate()
            {
                assert_rows_close(&format!("{name} state {state}"), found, expect, width, LIMIT);
            }
            assert_eq!(expect.len(), trace.hidden.len() * ids.len() * width);
        }
    }
}

fn check_greedy(name: &str) {
    let (model, reference) = (load(&folder(name)), Reference::open(name));
    let vocab = model.vocab_size();
    for prompt in 0..3 {
        let ids = reference.ids(&format!("p{prompt}.ids"));
        let greedy = reference.ids(&format!("p{prompt}.greedy_ids"));
        let margins = reference.floats(&format!("p{prompt}.step_margin"));
        let step_logits = reference.floats(&format!("p{prompt}.step_logits"));
        let mut cache = model.new_sequence(ids.len() + greedy.len());
        let mut logits = model.forward(&ids, &mut cache).unwrap();
        let mut compared = 0;
        for (step, expect) in step_logits.chunks(vocab).enumerate() {
            let what = format!("{name} p{prompt} step {step}");
            assert_rows_close(&what, &logits, expect, vocab, LIMIT);
            let Some(&token) = greedy.get(step) else { break };
            if margins[step] > MARGIN {
                assert_eq!(argmax(&logits), token, "{what}");
                compared += 1;
            }
            logits = model.forward(&[token], &mut cache).unwrap();
        }
        assert!(compared > greedy.len() / 2, "{name} p{prompt}: only {compared} clear steps");
        assert_eq!(cache.len(), ids.len() + greedy.len());
    }
}

#[test]
fn llama() {
    for name in ["llama3", "llama31"] {
        check_prompts(name);
        check_greedy(name);
    }
}

#[test]
fn mistral() {
    check_prompts("mistral");
    check_greedy("mistral");
}

#[test]
fn mixtral() {
    for name in ["mixtral", "mixtral_gptq"] {
        check_prompts(name);
        check_greedy(name);
    }
}

/// The reference's choices over many steps.
#[derive(Deserialize)]
struct Run {
    ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    margins: Vec<f32>,
}

/// Token by token, each fed back as it was chosen; where two were as good as equal, the reference's.
#[test]
fn greedy_tokens_over_hundreds_of_steps() {
    for name in NAMES {
        let model = load(&folder(name));
        let json = std::fs::read(folder(name).join("greedy.json")).unwrap();
        let runs: Vec<Run> = serde_json::from_slice(&json).unwrap();
        for (number, run) in runs.iter().enumerate() {
            assert!(run.greedy_ids.len() >= 200);
            let mut sequence = model.new_sequence(run.ids.len() + run.greedy_ids.len());
            let mut logits = model.forward(&run.ids, &mut sequence).unwrap();
            let mut equal = 0;
            for (step, (&token, &margin)) in run.greedy_ids.iter().zip(&run.margins).enumerate() {
                let chosen = argmax(&logits);
                assert!(chosen == token || margin <= MARGIN, "{name} p{number} step {step}");
                equal += usize::from(chosen == token);
                logits = model.forward(&[token], &mut sequence).unwrap();
            }
            assert!(equal >= 200, "{name} p{number}: {equal}");
        }
    }
}

/// What a GPU runs: weights as stored in bf16, activations between the layers in f32.
#[test]
fn half_precision_stays_close() {
    for name in NAMES {
        let (model, reference) = (load_as(&folder(name), Precision::Half), Reference::open(name));
        let ids = reference.ids("p0.ids");
        let trace = model.trace(&ids).unwrap();
        let expect = reference.floats("p0.logits");
        assert_rows_close(name, &trace.logits, &expect, model.vocab_size(), HALF_LIMIT);
    }
}

#[test]
fn rotation_frequencies() {
    for name in NAMES {
        let rotary = ModelSource::open(&folder(name)).unwrap().config.rotary();
        let expect = Reference::open(name).floats("rope.inv_freq");
        assert_eq!(rotary.inv_freq().len(), expect.len());
        for (found, expect) in rotary.inv_freq().iter().zip(expect) {
            assert!((found - expect).abs() <= 1e-6 * expect, "{name}: {found} {expect}");
        }
    }
}

/// However a prompt is cut, the scores after it are the same.
#[test]
fn pieces_of_a_prompt_equal_one_pass() {
    let (model, reference) = (load(&folder("llama3")), Reference::open("llama3"));
    let ids = reference.ids("p0.ids");
    let whole = model.forward(&ids, &mut model.new_sequence(ids.len())).unwrap();
    for piece in [1, 7, 44] {
        let mut cache = model.new_sequence(ids.len());
        let (pieces, last) = ids.split_at((ids.len() - 1) / piece * piece);
        for ids in pieces.chunks(piece) {
            model.prefill(ids, &mut cache).unwrap();
        }
        let found = model.forward(last, &mut cache).unwrap();
        assert_rows_close(&format!("pieces of {piece}"), &found, &whole, whole.len(), 1e-5);
    }

    // Longer than one chunk: `forward` cuts it itself.
    let long: Vec<u32> = ids.iter().copied().cycle().take(2 * PREFILL_CHUNK_TOKENS + 3).collect();
    let found = model.forward(&long, &mut model.new_sequence(long.len())).unwrap();
    let trace = model.trace(&long).unwrap();
    let expect = &trace.logits[trace.logits.len() - found.len()..];
    assert_rows_close("a long prompt", &found, expect, found.len(), 1e-5);
}

#[test]
fn a_step_that_cannot_be_taken_is_refused_and_changes_nothing() {
    use neurino_llm::LlmError;
    use neurino_nn::NnError;

    let model = load(&folder("llama3"));
    let mut cache = model.new_sequence(4);
    let expect = model.forward(&[1, 2, 3], &mut cache).unwrap();
    cache.truncate(2);

    let found = model.forward(&[], &mut cache);
    assert!(matches!(found, Err(LlmError::NoTokens)));
    let found = model.forward(&[513], &mut cache);
    assert!(matches!(found, Err(LlmError::TokenOutOfRange { token: 513, vocab_size: 513 })));
    let found = model.forward(&[1, 2, 3], &mut cache);
    let full = NnError::CacheFull { needed_tokens: 5, capacity_tokens: 4 };
    assert_eq!(found.unwrap_err().to_string(), full.to_string());

    let found = model.forward(&[3], &mut cache).unwrap();
    assert_rows_close("after refusals", &found, &expect, expect.len(), 1e-5);
}

#[test]
fn loading_reports_all_of_its_bytes() {
    let source = ModelSource::open(&folder("llama31")).unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    let report = |done, total| seen.borrow_mut().push((done, total));
    let model = neurino_llm::LanguageModel::load(&source, &device(), &report).unwrap();
    let seen = seen.into_inner();
    assert!(seen.is_sorted() && seen.len() > 10);
    assert_eq!(seen.last(), Some(&(source.weights_bytes(), source.weights_bytes())));
    assert!(model.weights_bytes() > 0);
}
