//! Models split over devices, memory planned before loading, and random weights by shape.

use burn::tensor::Device;
use neurino_llm::checkpoint::Precision;
use neurino_llm::config::shapes;
use neurino_llm::models::decoder::Placement;
use neurino_llm::models::random::WeightFormat;
use neurino_llm::{LanguageModel, LlmError, ModelSource};
use neurino_nn::quant::Holder;

use crate::{device, fixtures};

const MODELS: [&str; 5] = ["llama3", "llama31", "mistral", "mixtral", "mixtral_gptq"];
const TOKENS: [u32; 20] =
    [5, 9, 200, 31, 7, 7, 300, 12, 44, 1, 0, 99, 250, 3, 8, 61, 17, 18, 19, 20];

fn source(name: &str) -> ModelSource {
    ModelSource::open(&fixtures().join("llm").join(name)).unwrap()
}

/// The scores after a prompt and after two more tokens.
fn scores(model: &LanguageModel) -> Vec<f32> {
    let mut sequence = model.new_sequence(64);
    let mut all = model.forward(&TOKENS, &mut sequence).unwrap();
    for token in [40, 41] {
        all.extend(model.forward(&[token], &mut sequence).unwrap());
    }
    all
}

/// Two places on the same device: each has its own cache, and numbers move between them.
#[test]
fn a_model_in_two_places_computes_the_same() {
    for name in MODELS {
        let source = source(name);
        let n_layers = source.config.num_hidden_layers;
        let whole = Placement::whole(&device(), n_layers);
        let load = |placement: &Placement| {
            LanguageModel::load_over(&source, placement, Precision::Full, &|_, _| (), &|| false)
        };
        let one = load(&whole).unwrap();
        let expect = scores(&one);
        for cut in 1..n_layers {
            let two = vec![(device(), 0..cut), (device(), cut..n_layers)];
            let split = load(&Placement::new(two).unwrap()).unwrap();
            assert_eq!(split.device_weights_bytes().count(), 2);
            assert_eq!(split.weights_bytes(), one.weights_bytes(), "{name}");
            assert_eq!(split.block_bytes(), one.block_bytes());
            assert!(scores(&split) == expect, "{name} cut at {cut}");
        }
        let wrong = load(&Placement::whole(&device(), n_layers + 1));
        assert!(matches!(wrong, Err(LlmError::BadPlacement { .. })), "{name}");
    }
}

#[test]
fn a_cancelled_load_ends_at_the_next_tensor() {
    let source = source("mixtral");
    let placement = Placement::whole(&device(), source.config.num_hidden_layers);
    let seen = std::cell::Cell::new(0);
    let progress = |_, _| seen.set(seen.get() + 1);
    let cancelled = || seen.get() >= 3;
    let found =
        LanguageModel::load_over(&source, &placement, Precision::Full, &progress, &cancelled);
    assert!(matches!(found, Err(LlmError::Weights(_))));
    assert!((3..6).contains(&seen.get()), "{} tensors", seen.get());
}

/// What is planned from metadata is what is counted while loading.
#[test]
fn memory_is_known_before_loading() {
    let device = Device::flex();
    for name in MODELS {
        let source = source(name);
        for precision in [Precision::Packed, Precision::Full, Precision::Half, Precision::FourBit] {
            let model = LanguageModel::load_as(&source, &device, precision, &|_, _| ()).unwrap();
            let memory = source.memory(precision, Holder::Cpu);
            let what = format!("{name} as {precision:?}");
            assert_eq!(memory.weights_bytes(), model.weights_bytes(), "{what}");
            assert_eq!(memory.block_bytes(), model.block_bytes(), "{what}");
            assert_eq!(memory.layer_bytes.len(), source.config.num_hidden_layers, "{what}");
            assert!(model.activation_bytes(16, 1) > 16 * 4 * source.config.hidden_size as u64);
        }
    }
}

#[test]
fn memory_of_packed_weights_is_known_before_loading() {
    let Some(path) = crate::starter::starter_model() else { return };
    let source = ModelSource::open(&path).unwrap();
    for precision in [Precision::Packed, Precision::FourBit] {
        let model =
            LanguageModel::load_as(&source, &Device::flex(), precision, &|_, _| ()).unwrap();
        assert_eq!(source.memory(precision, Holder::Cpu).weights_bytes(), model.weights_bytes());
    }
}

/// Random models compute finite scores that differ between prompts, the same for the same seed.
#[test]
fn random_weights_compute() {
    let device = Device::flex();
    for shape in ["tiny-llama", "tiny-mixtral"] {
        let config = shapes::named(shape).unwrap();
        let mut held = Vec::new();
        for (name, format) in WeightFormat::ALL {
            let random = |seed| LanguageModel::random(&config, format, &device, seed).unwrap();
            let model = random(1);
            let found = scores(&model);
            let what = format!("{shape} {name}");
            assert!(found.iter().all(|score| score.is_finite()), "{what}");
            let largest = found.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert!((1e-2..1e3).contains(&largest), "{what}: {largest}");
            let (first, second) = found.split_at(config.vocab_size);
            assert_ne!(first, &second[..config.vocab_size], "{what}");
            assert!(scores(&random(1)) == found, "{what}: the same seed");
            assert!(scores(&random(2)) != found, "{what}: another seed");
            held.push(model.weights_bytes());
        }
        assert!(held.is_sorted_by(|a, b| a > b), "{shape}: {held:?}");
    }
}
