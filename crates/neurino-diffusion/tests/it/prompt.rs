//! Prompts: their syntax, their chunks, and what the networks get of them.

use burn::tensor::Device;
use neurino_diffusion::checkpoint::ldm::LdmTensors;
use neurino_diffusion::checkpoint::{Component, Loading, Precision, Tensors};
use neurino_diffusion::clip::{ClipConfig, ClipTextEncoder, ClipTokenizer};
use neurino_diffusion::prompt::{Chunk, Fragment, Sd15Prompt, SdxlPrompt, Syntax, parse};
use neurino_nn::device::download;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::text::json;
use crate::{assert_close, fixture, floats};

#[test]
fn prompts_are_read_as_by_the_reference() {
    let cases = json("clip/lpw.json");
    for case in cases.as_array().unwrap() {
        for (name, syntax) in [("sd15", Syntax::Sd15), ("sdxl", Syntax::Sdxl)] {
            let text = case["text"].as_str().unwrap();
            let found: Vec<(String, f64)> =
                parse(text, syntax).into_iter().map(|part| (part.text, part.weight)).collect();
            let expect: Vec<(String, f64)> = serde_json::from_value(case[name].clone()).unwrap();
            assert_eq!(found, expect, "{name} {text:?}");
        }
    }
}

#[test]
fn chunks_are_cut_as_by_the_reference() {
    let tokenizer = ClipTokenizer::open(&fixture("clip/tokenizer")).unwrap();
    let expect = |value: &Value| -> Vec<Vec<Chunk>> {
        let sides: Vec<Vec<(Vec<u32>, Vec<f64>)>> = serde_json::from_value(value.clone()).unwrap();
        let chunk = |(ids, weights)| Chunk { ids, weights };
        sides.into_iter().map(|side| side.into_iter().map(chunk).collect()).collect()
    };
    for case in json("clip/chunks.json").as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let negative = case["negative"].as_str().unwrap();
        let found = Sd15Prompt::new(&tokenizer, prompt, Some(negative)).unwrap();
        let sides = vec![found.prompt, found.negative.unwrap()];
        assert_eq!(sides, expect(&case["sd15"]), "{prompt:?}");
        let found = SdxlPrompt::new([&tokenizer, &tokenizer], prompt, negative).unwrap();
        assert_eq!(found.first.to_vec(), expect(&case["sdxl"]), "{prompt:?}");
        assert_eq!(found.first, found.second);
    }
}

#[test]
fn two_empty_prompts_are_one_chunk_without_text() {
    let tokenizer = ClipTokenizer::standard();
    let found = SdxlPrompt::new([&tokenizer, &tokenizer], "", " ").unwrap();
    let empty = Chunk { ids: vec![49_406, 49_407], weights: vec![1.0, 1.0] };
    assert_eq!(found.first, [vec![empty.clone()], vec![empty]]);
    let found = Sd15Prompt::new(&tokenizer, "", None).unwrap();
    assert_eq!((found.prompt.len(), found.prompt[0].ids.len()), (1, 77));
}

/// A text encoder of a single file.
fn encoder(tensors: &dyn Tensors, folder: &str) -> ClipTextEncoder {
    let device = Device::flex();
    let loading = Loading::quiet(&device, Precision::Full);
    let config = ClipConfig::open(&fixture(folder).join("config.json")).unwrap();
    ClipTextEncoder::load(&Component::new(tensors, &loading), &config).unwrap()
}

/// The runs without LoRA, which changes the encoders; each with its reference.
fn each_run(model: &str, check: impl Fn(&str, &str, &str, bool, &[f32])) {
    let mut checked = 0;
    for run in json(&format!("{model}/runs.json"))["runs"].as_array().unwrap() {
        if !run["lora"].is_null() {
            continue;
        }
        let name = run["name"].as_str().unwrap();
        let bytes = std::fs::read(fixture(&format!("{model}/run_{name}.safetensors"))).unwrap();
        let expect = floats(&SafeTensors::deserialize(&bytes).unwrap(), "embeddings");
        let guided = run["guidance"].as_f64().unwrap() > 1.0;
        let prompt = run["prompt"].as_str().unwrap();
        check(name, prompt, run["negative"].as_str().unwrap_or_default(), guided, &expect);
        checked += 1;
    }
    assert!(checked >= 3);
}

#[test]
fn embeddings_of_stable_diffusion_are_the_references() {
    let tokenizer = ClipTokenizer::open(&fixture("sd/sd15/tokenizer")).unwrap();
    let file = LdmTensors::open(&fixture("sd/sd15/model.safetensors"), None).unwrap();
    let encoder = encoder(&file.text_encoder(), "sd/sd15/text_encoder");
    each_run("sd/sd15", |name, prompt, negative, guided, expect| {
        let prompt = Sd15Prompt::new(&tokenizer, prompt, guided.then_some(negative)).unwrap();
        let found = prompt.embed(&encoder).unwrap();
        assert_eq!(found.dims()[0], 1 + usize::from(guided));
        assert_close(name, &download(found).unwrap(), expect, 1e-4);
    });
}

#[test]
fn embeddings_of_sdxl_are_the_references() {
    let open = |name: &str| ClipTokenizer::open(&fixture("sd/sdxl").join(name)).unwrap();
    let (tokenizer, tokenizer_2) = (open("tokenizer"), open("tokenizer_2"));
    let file = LdmTensors::open(&fixture("sd/sdxl/model.safetensors"), None).unwrap();
    let first = encoder(&file.text_encoder(), "sd/sdxl/text_encoder");
    let second = encoder(&file.text_encoder_2().unwrap(), "sd/sdxl/text_encoder_2");
    each_run("sd/sdxl", |name, prompt, negative, guided, expect| {
        let prompt = SdxlPrompt::new([&tokenizer, &tokenizer_2], prompt, negative).unwrap();
        let found = prompt.embed([&first, &second], guided).unwrap();
        assert_eq!(found.pooled.dims(), [found.states.dims()[0], 40]);
        assert_close(name, &download(found.states).unwrap(), expect, 1e-4);
    });
}

#[test]
fn weights_without_any_sense_leave_numbers() {
    let tokenizer = ClipTokenizer::open(&fixture("sd/sdxl/tokenizer")).unwrap();
    let file = LdmTensors::open(&fixture("sd/sdxl/model.safetensors"), None).unwrap();
    let first = encoder(&file.text_encoder(), "sd/sdxl/text_encoder");
    let digits = "9".repeat(400);
    let huge = format!("{}(cat:{digits}) [dog]{}", "(".repeat(5000), ")".repeat(5000));
    for prompt in [huge, format!("((cat:{digits}):0)")] {
        let side = Sd15Prompt::new(&tokenizer, &prompt, Some("")).unwrap();
        assert!(download(side.embed(&first).unwrap()).unwrap().iter().all(|x| x.is_finite()));
        let sides = SdxlPrompt::new([&tokenizer, &tokenizer], &prompt, "").unwrap();
        let found = sides.embed([&first, &first], true).unwrap();
        assert!(download(found.states).unwrap().iter().all(|x| x.is_finite()));
    }
}

#[test]
fn hostile_prompts_take_no_longer_than_their_length_allows() {
    // What takes the square of its length never ends here.
    let count = 300_000;
    for hostile in [
        "(".repeat(count),
        "(a".repeat(count),
        "[(a".repeat(count),
        "(a".repeat(count) + &")".repeat(count),
        "(a:".repeat(count) + &"1.1)".repeat(count),
        ":1.1)".repeat(count),
        ":1".repeat(count),
        "\\(".repeat(count),
        " BREAK".repeat(count),
    ] {
        for syntax in [Syntax::Sd15, Syntax::Sdxl] {
            assert!(parse(&hostile, syntax).len() <= hostile.len());
        }
    }
}

proptest! {
    #[test]
    fn every_text_is_a_prompt(
        text in r"([()\[\]:\\]|[ a-z]|[0-9.+-]{1,4}|BREAK|\PC){0,60}",
    ) {
        for syntax in [Syntax::Sd15, Syntax::Sdxl] {
            let fragments = parse(&text, syntax);
            prop_assert!(!fragments.is_empty());
            let read: usize = fragments.iter().map(|fragment| fragment.text.len()).sum();
            prop_assert!(read <= text.len());
            let alike = |pair: &[Fragment]| pair[0].weight.total_cmp(&pair[1].weight).is_eq();
            prop_assert!(!fragments.windows(2).any(alike));
        }
    }

    #[test]
    fn text_without_brackets_is_one_fragment(text in r"[ a-z0-9.,:+-]{0,40}") {
        let found = parse(&text, Syntax::Sd15);
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!((&found[0].text, found[0].weight), (&text, 1.0));
    }
}
