//! The path that cards take - kernels, steps that come in shapes, tokens chosen on the device - on a card
//! with `NEURINO_TEST_DEVICE=cuda`, else on CubeCL's CPU runtime if that was built (`kernels-on-cpu`),
//! else not at all.

use std::collections::BTreeMap;

use burn::tensor::Device;
use neurino_core::{ResponseFormat, SamplingParams, TextJob, TextOutput};
use neurino_llm::checkpoint::Precision;
use neurino_llm::serving::{RequestId, Runner, ServingLimits};
use neurino_llm::{ChatTemplate, LanguageModel, ModelSource, Tokenizer, self_check};

use crate::fixtures;
use crate::serving::{Ledger, answer, job, noon};

/// Little to compute: on this runtime a step takes long.
const LIMITS: ServingLimits = ServingLimits { n_blocks: 96, rows_per_step: 64, sequences_max: 8 };

/// The device, if there is one that takes this path.
fn device() -> Option<Device> {
    #[cfg(feature = "cuda")]
    if std::env::var("NEURINO_TEST_DEVICE").is_ok_and(|device| device == "cuda") {
        return Some(Device::cuda(0));
    }
    #[cfg(feature = "kernels-on-cpu")]
    return Some(Device::cpu());
    #[cfg(not(feature = "kernels-on-cpu"))]
    {
        eprintln!("skipped: NEURINO_TEST_DEVICE does not name a card");
        None
    }
}

/// A fixture as cards have it: weights as stored, keys and values of 16 bits.
fn model(name: &str, device: &Device) -> (ModelSource, LanguageModel) {
    let source = ModelSource::open(&fixtures().join("llm").join(name)).unwrap();
    let model = LanguageModel::load_as(&source, device, Precision::Half, &|_, _| ()).unwrap();
    assert!(model.chooses());
    (source, model)
}

fn runner(name: &str, device: &Device, on_host: bool) -> Runner {
    let (source, model) = model(name, device);
    let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos).unwrap();
    let template = ChatTemplate::open(&source, &tokenizer).unwrap();
    let model = if on_host { model.drawing_on_host() } else { model };
    Runner::in_shapes(model, tokenizer, template, LIMITS)
}

fn jobs() -> BTreeMap<RequestId, TextJob> {
    let plain = SamplingParams { temperature: 0.0, seed: 7, ..SamplingParams::default() };
    let sampled = [
        plain,
        SamplingParams { temperature: 0.9, ..plain },
        SamplingParams { temperature: 1.2, top_p: 0.8, repetition_penalty: 1.3, ..plain },
        SamplingParams {
            temperature: 0.7,
            top_k: 20,
            min_p: 0.02,
            frequency_penalty: 0.5,
            ..plain
        },
        SamplingParams { temperature: 1.0, top_p: 0.5, presence_penalty: -0.5, ..plain },
    ];
    let of = |(number, sampling): (u64, SamplingParams)| {
        let mut job = job(["The sea.", "Tell me of walls."][number as usize % 2]);
        job.sampling = sampling;
        job.max_tokens = 3 + number as u32;
        // One without, one that the device rates, one that needs whole rows.
        job.logprobs = [None, Some(0), None, Some(2), None][number as usize];
        job.choices = if number == 1 { 3 } else { 1 };
        job.logit_bias = if number == 2 { vec![(17, 3.0), (20, -100.0)] } else { Vec::new() };
        (RequestId(number), job)
    };
    let mut jobs: BTreeMap<_, _> = (0..).zip(sampled).map(of).collect();
    // Read in several pieces, of which only the last is scored.
    let long = TextJob { max_tokens: 6, ..job(&"the sea and the wall ".repeat(20)) };
    jobs.insert(RequestId(8), long);
    // A guide forbids tokens row by row, on the host.
    let guided = TextJob { response_format: ResponseFormat::JsonObject, ..job("An object.") };
    jobs.insert(RequestId(9), TextJob { max_tokens: 6, ..guided });
    jobs
}

fn together(
    runner: &mut Runner,
    jobs: &BTreeMap<RequestId, TextJob>,
) -> BTreeMap<RequestId, TextOutput> {
    let mut ledger = Ledger::default();
    for (id, job) in jobs {
        runner.submit(*id, job, &noon()).unwrap();
    }
    ledger.finish(runner);
    assert!(ledger.failures.is_empty(), "{:?}", ledger.failures);
    ledger.outputs
}

/// Texts alone: log-probabilities of device and host differ in their last bits.
fn texts(outputs: &BTreeMap<RequestId, TextOutput>) -> Vec<&str> {
    outputs.values().flat_map(|output| output.choices.iter().map(|c| c.text.as_str())).collect()
}

#[test]
fn the_device_chooses_what_the_host_does_in_company_and_alone() {
    let Some(device) = device() else { return };
    let jobs = jobs();
    let mut chosen = runner("llama3", &device, false);
    let found = together(&mut chosen, &jobs);
    let counters = chosen.counters();
    assert!(counters.device_tokens > 0 && counters.device_tokens < counters.tokens, "{counters:?}");
    for (id, job) in &jobs {
        let alone = answer(&mut chosen, job).unwrap();
        assert_eq!(&alone, &found[id], "{id:?}: to the last bit");
    }
    let mut host = runner("llama3", &device, true);
    assert_eq!(texts(&together(&mut host, &jobs)), texts(&found));
    assert_eq!(host.counters().device_tokens, 0);
}

#[test]
fn a_mixture_of_experts_answers_the_same_in_company_and_alone() {
    let Some(device) = device() else { return };
    let jobs: BTreeMap<_, _> = jobs().into_iter().take(3).collect();
    let mut runner = runner("mixtral", &device, false);
    let found = together(&mut runner, &jobs);
    for (id, job) in &jobs {
        let alone = answer(&mut runner, job).unwrap();
        assert_eq!(&alone, &found[id], "{id:?}: to the last bit");
    }
}

#[test]
fn the_device_passes_its_self_check() {
    let Some(device) = device() else { return };
    let (_, model) = model("mistral", &device);
    let mut cache = model.new_cache(self_check::BLOCKS);
    assert_eq!(self_check::choices(&model, &mut cache).unwrap(), None);
}
