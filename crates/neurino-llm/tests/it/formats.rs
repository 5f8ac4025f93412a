//! One model in several forms: the same numbers, or nearly; and loading that is interrupted.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use neurino_core::{ChatMessage, Role};
use neurino_llm::chat::{ChatTemplate, prompt_date};
use neurino_llm::checkpoint::Precision;
use neurino_llm::models::decoder::Placement;
use neurino_llm::tokenizer::Tokenizer;
use neurino_llm::{LanguageModel, LlmError, ModelSource};
use neurino_nn::quant::Holder;
use neurino_weights::WeightsError;

use crate::{damage, device, fixtures, gguf, load, load_as};

const TOKENS: [u32; 9] = [1, 17, 290, 33, 8, 401, 77, 12, 5];

fn folder(name: &str) -> PathBuf {
    fixtures().join("llm").join(name)
}

fn logits(model: &LanguageModel) -> Vec<f32> {
    model.trace(&TOKENS).unwrap().logits
}

/// The largest difference over the largest value.
fn apart(found: &[f32], expect: &[f32]) -> f32 {
    assert_eq!(found.len(), expect.len());
    let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    found.iter().zip(expect).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn mixtral_as_gguf_in_both_layouts_of_experts() {
    let expect = logits(&load(&folder("mixtral")));
    for merged in [true, false] {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("mixtral.gguf");
        fs::write(&path, gguf::mixtral(&folder("mixtral"), merged)).unwrap();
        let found = logits(&load(&path));
        assert!(apart(&found, &expect) < 1e-6, "merged: {merged}: {}", apart(&found, &expect));
    }
}

/// Large models come in parts, of which the first has the metadata.
#[test]
fn a_gguf_file_in_parts_is_one_model() {
    let expect = logits(&load(&folder("mixtral")));
    let temporary = tempfile::tempdir().unwrap();
    let part = |number: usize| temporary.path().join(format!("mixtral-{number:05}-of-00003.gguf"));
    let parts = gguf::mixtral_parts(&folder("mixtral"), 3);
    for (index, bytes) in parts.iter().enumerate() {
        fs::write(part(index + 1), bytes).unwrap();
    }
    for path in [part(1), part(3), temporary.path().to_owned()] {
        let found = logits(&load(&path));
        assert!(apart(&found, &expect) < 1e-6, "{}: {}", path.display(), apart(&found, &expect));
    }
    let refusal = |path: &Path| ModelSource::open(path).unwrap_err().to_string();
    let lone = temporary.path().join("lone.gguf");
    fs::copy(part(1), &lone).unwrap();
    assert!(
        refusal(&lone).contains("one part of a GGUF file that was split"),
        "{}",
        refusal(&lone)
    );
    fs::remove_file(&lone).unwrap();
    fs::copy(part(1), part(2)).unwrap();
    let error = ModelSource::open(&part(1)).unwrap_err();
    let words = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(words.contains("it is not part 2 of 3"), "{words}");
    fs::remove_file(part(2)).unwrap();
    let error = ModelSource::open(temporary.path()).unwrap_err();
    let words = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(words.contains("00002-of-00003.gguf is missing"), "{words}");
}

/// Early files of Mixtral name the window of Mistral, which it was not trained with.
#[test]
fn mixtral_as_gguf_has_no_window() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("mixtral.gguf");
    let window = |writer: gguf::Writer| writer.uint("llama.attention.sliding_window", 4096);
    fs::write(&path, gguf::mixtral_with(&folder("mixtral"), true, window)).unwrap();
    let source = ModelSource::open(&path).unwrap();
    assert_eq!((source.arch.name(), source.config.sliding_window), ("mixtral", None));
}

#[test]
fn a_folder_without_a_chat_template_chats_as_its_vocabulary_was_made_for() {
    let copy = damage::copy("llama31");
    let words = fixtures().join("text/llama3/tokenizer.json");
    fs::copy(words, copy.path().join("tokenizer.json")).unwrap();
    fs::write(copy.path().join("tokenizer_config.json"), "{}").unwrap();
    let source = ModelSource::open(copy.path()).unwrap();
    let tokenizer = Tokenizer::of_model(&source).unwrap();
    assert!(tokenizer.is_end(tokenizer.token_id("<|im_end|>").unwrap()));
    let template = ChatTemplate::open(&source, &tokenizer).unwrap();
    let messages = [ChatMessage::new(Role::User, "Hello")];
    let text = template.render(&messages, &[], &prompt_date()).unwrap();
    assert!(text.ends_with("Hello<|im_end|>\n<|im_start|>assistant\n"), "{text}");
}

#[test]
fn gptq_is_recognised_by_either_description() {
    let expect = logits(&load(&folder("mixtral_gptq")));
    for absent in ["quantize_config.json", "config.json"] {
        let copy = damage::copy("mixtral_gptq");
        let path = copy.path().join(absent);
        if absent == "config.json" {
            let text = fs::read_to_string(&path).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
            config.as_object_mut().unwrap().remove("quantization_config").unwrap();
            fs::write(&path, config.to_string()).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(logits(&load(copy.path())), expect, "without the one in {absent}");
    }
    // AutoGPTQ's own file name.
    let copy = damage::copy("mixtral_gptq");
    let old = copy.path().join("model.safetensors");
    fs::rename(old, copy.path().join("gptq_model-4bit-32g.safetensors")).unwrap();
    assert_eq!(logits(&load(copy.path())), expect);
}

/// Old tools wrote another group size than they used, or none.
#[test]
fn memory_is_planned_by_the_groups_of_the_file() {
    let planned = |source: &ModelSource| {
        let all = [(Precision::Packed, Holder::Cpu), (Precision::Half, Holder::Card)];
        all.map(|(precision, holder)| source.memory(precision, holder))
    };
    let expect = planned(&open(&folder("mixtral_gptq")));
    for size in [-1, 16, 64] {
        let copy = damage::copy("mixtral_gptq");
        for name in ["config.json", "quantize_config.json"] {
            let path = copy.path().join(name);
            let text = fs::read_to_string(&path).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
            let described = match name {
                "config.json" => &mut config["quantization_config"],
                _ => &mut config,
            };
            assert_eq!(described["group_size"], 32, "{name}");
            described["group_size"] = size.into();
            fs::write(&path, config.to_string()).unwrap();
        }
        let source = open(copy.path());
        assert_eq!(planned(&source), expect, "{size}");
        let held = load_as(copy.path(), Precision::Packed).weights_bytes() as f64;
        let planned = expect[0].weights_bytes() as f64;
        assert!((planned / held - 1.0).abs() < 0.05, "{planned} {held}");
    }
}

#[test]
fn four_bits_on_load() {
    for name in ["llama3", "mistral", "mixtral"] {
        let expect = logits(&load(&folder(name)));
        let half = load_as(&folder(name), Precision::Half);
        let four = load_as(&folder(name), Precision::FourBit);
        let (plain, packed) = (apart(&logits(&half), &expect), apart(&logits(&four), &expect));
        // Random weights suffer more than trained ones; a wrong layout is off by about 1.
        assert!(packed < 0.25, "{name}: {packed}");
        assert!(packed > plain, "{name}: {packed} with 4 bits and {plain} with 16");
        let (four, half) = (four.weights_bytes(), half.weights_bytes());
        assert!(four * 10 < half * 7, "{name}: {four} of {half} bytes");
    }
}

fn open(path: &Path) -> ModelSource {
    ModelSource::open(path).unwrap()
}

#[test]
fn progress_rises_to_the_end() {
    for name in ["llama31", "mixtral", "mixtral_gptq"] {
        let source = open(&folder(name));
        let last = Cell::new((0, 0));
        let progress = |done: u64, total: u64| {
            assert!(done > last.get().0 && done <= total, "{name}: {done} of {total}");
            last.set((done, total));
        };
        LanguageModel::load_as(&source, &device(), Precision::Full, &progress).unwrap();
        assert_eq!(last.get(), (source.weights_bytes(), source.weights_bytes()), "{name}");
    }
}

#[test]
fn loading_can_be_given_up() {
    let source = open(&folder("llama31"));
    let placement = Placement::whole(&device(), source.config.num_hidden_layers);
    let seen = Cell::new(0);
    let progress = |_, _| seen.set(seen.get() + 1);
    let cancelled = || seen.get() >= 3;
    let result =
        LanguageModel::load_over(&source, &placement, Precision::Full, &progress, &cancelled);
    let error = result.unwrap_err();
    assert!(matches!(error, LlmError::Weights(WeightsError::Stopped { .. })), "{error}");
    assert_eq!(seen.get(), 3, "no tensor after the word");
    // The source is as good as before.
    LanguageModel::load(&source, &device(), &|_, _| ()).unwrap();
}

#[test]
fn a_file_that_shrinks_while_it_is_loaded() {
    let copy = damage::copy("llama31");
    let source = open(copy.path());
    let path = copy.path().join("model.safetensors");
    let progress = |done: u64, _| {
        if done < 200_000 {
            fs::File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        }
    };
    let result = LanguageModel::load_as(&source, &device(), Precision::Full, &progress);
    // What was read ahead is good; if that was all, there is nothing to complain about.
    if let Err(error) = result {
        assert!(matches!(error, LlmError::Weights(WeightsError::Changed { .. })), "{error}");
        damage::assert_helps(&error, "model.safetensors");
    }
    // From here on, nothing is read ahead.
    let again = LanguageModel::load_as(&source, &device(), Precision::Full, &|_, _| ());
    let error = again.unwrap_err();
    assert!(matches!(error, LlmError::Weights(WeightsError::Changed { .. })), "{error}");
}
