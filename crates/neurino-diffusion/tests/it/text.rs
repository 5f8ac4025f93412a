//! Text encoders and their tokens.

use burn::tensor::{Device, Tensor};
use neurino_diffusion::checkpoint::folder::FolderTensors;
use neurino_diffusion::checkpoint::{Component, Loading, Precision};
use neurino_diffusion::clip::{
    ClipActivation, ClipConfig, ClipKind, ClipTextEncoder, ClipTokenizer,
};
use neurino_diffusion::prompt::FluxPrompt;
use neurino_diffusion::t5::{T5Config, T5Encoder};
use neurino_llm::Tokenizer;
use neurino_nn::device::download;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{assert_close, fixture, floats};

/// What an encoder's states may be apart by.
const LIMIT: f32 = 1e-4;
/// The same where the CPU multiplies with packed weights, for which it rounds activations to 8 bits.
const PACKED_LIMIT: f32 = 4e-2;

pub(crate) fn clip(folder: &str, precision: Precision) -> ClipTextEncoder {
    let device = Device::flex();
    let (folder, loading) = (fixture(folder), Loading::quiet(&device, precision));
    let config = ClipConfig::open(&folder.join("config.json")).unwrap();
    let tensors = FolderTensors::open(&folder).unwrap();
    ClipTextEncoder::load(&Component::new(&tensors, &loading), &config).unwrap()
}

pub(crate) fn t5(folder: &str, precision: Precision) -> T5Encoder {
    let device = Device::flex();
    let (folder, loading) = (fixture(folder), Loading::quiet(&device, precision));
    let config = T5Config::open(&folder.join("config.json")).unwrap();
    let tensors = FolderTensors::open(&folder).unwrap();
    T5Encoder::load(&Component::new(&tensors, &loading), &config).unwrap()
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

pub(crate) fn ids(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
}

fn check<const D: usize>(what: &str, found: Tensor<D>, expect: &[f32], limit: f32) {
    assert_close(what, &download(found).unwrap(), expect, limit);
}

#[test]
fn clip_encoders_are_the_references() {
    for (folder, precision) in [
        ("clip/clip_l", Precision::Full),
        ("clip/clip_g", Precision::Full),
        ("clip/clip_g", Precision::Stored),
    ] {
        let encoder = clip(folder, precision);
        let bytes = std::fs::read(fixture(folder).join("reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let prompts: Vec<Vec<u32>> =
            (0..3).map(|prompt| ids(&file, &format!("p{prompt}.ids"))).collect();
        let all = encoder.encode(&prompts).unwrap();
        for (prompt, ids) in prompts.iter().enumerate() {
            let alone = encoder.encode(std::slice::from_ref(ids)).unwrap();
            for (name, alone, all) in [
                ("last_hidden_state", alone.last_hidden, all.last_hidden.clone()),
                ("penultimate", alone.penultimate, all.penultimate.clone()),
                ("pooled", alone.pooled.unsqueeze(), all.pooled.clone().unsqueeze_dim(1)),
            ] {
                let what = format!("{folder} p{prompt}.{name}");
                let expect = floats(&file, &format!("p{prompt}.{name}"));
                check(&what, alone, &expect, LIMIT);
                check(&what, all.narrow(0, prompt, 1), &expect, LIMIT);
            }
        }
    }
}

#[test]
fn dimensions_follow_from_the_weights() {
    let device = Device::flex();
    let loading = Loading::quiet(&device, Precision::Full);
    for (folder, kind, activation) in [
        ("clip/clip_l", ClipKind::L, ClipActivation::QuickGelu),
        ("clip/clip_g", ClipKind::G, ClipActivation::Gelu),
    ] {
        let tensors = FolderTensors::open(&fixture(folder)).unwrap();
        let found = ClipConfig::infer(&Component::new(&tensors, &loading), kind).unwrap();
        let told = ClipConfig::open(&fixture(folder).join("config.json")).unwrap();
        assert_eq!(found.activation, activation);
        // Heads of 64 features are a custom of real encoders; these are smaller.
        assert_eq!(found, ClipConfig { heads: 1, eos: None, ..told });
    }
}

#[test]
fn tokens_that_an_encoder_cannot_read_are_refused() {
    let encoder = clip("clip/clip_l", Precision::Full);
    for bad in
        [vec![], vec![vec![]], vec![vec![1; 78]], vec![vec![1, 814]], vec![vec![1], vec![1, 2]]]
    {
        assert!(encoder.encode(&bad).is_err(), "{bad:?}");
    }
    let encoder = t5("flux/text_encoder_2", Precision::Full);
    for bad in [vec![], vec![347]] {
        assert!(encoder.encode(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn flux_prompts_are_encoded_as_by_the_reference() {
    let clip_words = ClipTokenizer::open(&fixture("flux/tokenizer")).unwrap();
    let t5_words = Tokenizer::open_folder(&fixture("flux/tokenizer_2")).unwrap();
    let clip = clip("flux/text_encoder", Precision::Full);
    for run in json("flux/runs.json")["runs"].as_array().unwrap() {
        let name = run["name"].as_str().unwrap();
        let quantized = run["quantized"] == true;
        let folder = if quantized { "flux/text_encoder_2_hqq" } else { "flux/text_encoder_2" };
        let bytes = std::fs::read(fixture(&format!("flux/run_{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let prompt = run["prompt"].as_str().unwrap();
        let prompt = FluxPrompt::new(&clip_words, &t5_words, prompt).unwrap();
        assert_eq!(prompt.clip_ids, ids(&file, "clip_ids"), "{name}");
        assert_eq!(prompt.t5_ids, ids(&file, "t5_ids"), "{name}");
        // Encoders with updates are compared on the way to whole pictures.
        if run["lora"].is_string() {
            continue;
        }
        for precision in [Precision::Full, Precision::Stored] {
            let packed = quantized && precision == Precision::Stored;
            let limit = if packed { PACKED_LIMIT } else { LIMIT };
            let found = prompt.embed(&clip, &t5(folder, precision)).unwrap();
            check(&format!("{name} pooled"), found.pooled, &floats(&file, "pooled"), LIMIT);
            let expect = floats(&file, "t5_hidden");
            check(&format!("{name} {precision:?} t5_hidden"), found.states, &expect, limit);
        }
    }
}

#[test]
fn the_vocabulary_in_the_crate_is_clips() {
    let tokenizer = ClipTokenizer::standard();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (49_406, 49_407, 49_407));
    let all = json("text/real_tokenizers.json");
    let cases = all["clip"].as_array().unwrap();
    assert!(cases.len() > 5);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expect: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let found = [vec![49_406], tokenizer.tokens(text).unwrap(), vec![49_407]].concat();
        assert_eq!(found, expect, "{text:?}");
    }
}

#[test]
fn sequences_are_cut_and_filled() {
    let tokenizer = ClipTokenizer::standard();
    let long = tokenizer.sequence(&"cat ".repeat(100), 77).unwrap();
    assert_eq!((long.len(), long[0], long[76]), (77, 49_406, 49_407));
    assert!(long[1..76].iter().all(|id| *id == long[1]));
    let short = tokenizer.sequence("cat", 77).unwrap();
    assert_eq!(short[..2], long[..2]);
    assert!(short.len() == 77 && short[2..].iter().all(|id| *id == 49_407));

    let words = Tokenizer::open_folder(&fixture("flux/tokenizer_2")).unwrap();
    let all = words.encode(&"cat ".repeat(600), true).unwrap();
    let cut = neurino_diffusion::t5::sequence(&words, &"cat ".repeat(600), 512).unwrap();
    assert!(all.len() > 512);
    assert_eq!((&cut[..511], cut[511]), (&all[..511], *all.last().unwrap()));
}
