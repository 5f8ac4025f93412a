//! The promise of the batch: a request gets the same tokens and the same log-probabilities, to the
//! last bit, whatever runs beside it and however little memory there is.

use std::collections::BTreeMap;
use std::path::Path;

use neurino_core::{ChatMessage, Role, SamplingParams, TextJob, TextOutput};
use neurino_llm::checkpoint::Precision;
use neurino_llm::serving::{RequestId, ServingLimits};

use crate::serving::{AMPLE, Ledger, alone, answer, job, noon, runner, runner_with};

/// Requests of all kinds. Those whose number leaves 4 by 5 are withdrawn on the way.
fn requests() -> BTreeMap<RequestId, TextJob> {
    let systems = ["", "You are a pirate who answers in short words.", "Be brief."];
    let words = ["the sea ", "a b c ", "Tell me of walls and ships. ", "1 2 3 4 5 "];
    let of_number = |number: u64| {
        let n = number as u32;
        let asked = words[number as usize % 4].repeat(1 + (n * 7 % 11) as usize);
        let mut job = job(asked.trim());
        let system = systems[number as usize % 3];
        if !system.is_empty() {
            job.messages.insert(0, ChatMessage::new(Role::System, system));
        }
        job.sampling = SamplingParams {
            temperature: [0.0, 0.7, 1.0, 1.4][number as usize % 4],
            top_p: [1.0, 0.9, 0.6][number as usize % 3],
            top_k: [0, 0, 20, 300][number as usize / 4],
            min_p: if n % 7 == 3 { 0.05 } else { 0.0 },
            repetition_penalty: if n % 4 == 2 { 1.2 } else { 1.0 },
            frequency_penalty: if n % 5 == 1 { 0.4 } else { 0.0 },
            presence_penalty: if n % 6 == 5 { -0.5 } else { 0.0 },
            seed: 1000 + number / 2,
        };
        job.max_tokens = 3 + n * 37 % 90;
        job.choices = 1 + u32::from(n % 3 == 1) + u32::from(n % 6 == 4);
        job.logprobs = (n % 4 != 3).then_some(n % 4);
        job.stop = if n % 8 == 3 { vec!["e".into()] } else { Vec::new() };
        job.logit_bias =
            if n.is_multiple_of(5) { vec![(17, 3.0), (20, -100.0)] } else { Vec::new() };
        (RequestId(number), job)
    };
    (0..16).map(of_number).collect()
}

/// Serves all requests together. They come in over several steps.
fn together(runner: &mut neurino_llm::Runner, jobs: &BTreeMap<RequestId, TextJob>) -> Ledger {
    let mut ledger = Ledger::default();
    for (id, job) in jobs {
        runner.submit(*id, job, &noon()).unwrap();
        if id.0.is_multiple_of(3) {
            runner.step().into_iter().for_each(|event| ledger.note(event));
        }
        if id.0 > 3 && (id.0 - 3) % 5 == 4 {
            runner.cancel(RequestId(id.0 - 3));
        }
    }
    ledger.finish(runner);
    assert!(ledger.failures.is_empty(), "{:?}", ledger.failures);
    ledger
}

#[track_caller]
fn check(path: &Path, precision: Precision) {
    let mut runner = runner(path, precision, AMPLE);
    let jobs = requests();
    let expected: BTreeMap<RequestId, TextOutput> =
        jobs.iter().map(|(id, job)| (*id, answer(&mut runner, job).unwrap())).collect();
    for (id, job) in jobs.iter().filter(|(_, job)| job.stop.is_empty()) {
        for (choice, found) in (0..).zip(&expected[id].choices) {
            let (tokens, logprobs) = alone(&runner, job, choice);
            assert_eq!(
                found.text,
                runner.tokenizer().decode(&tokens),
                "{id:?} without a scheduler"
            );
            let rated = found.logprobs.iter().flatten().map(|r| r.chosen.logprob);
            assert!(rated.eq(logprobs), "{id:?} without a scheduler");
        }
    }
    let most = expected.values().map(|o| o.usage.prompt_tokens).max().unwrap() as usize + 92;
    // Ample; room for a few; for little more than one, in small steps; one after the other.
    for (n_blocks, rows_per_step, sequences_max, preempts) in [
        (512, 512, 64, false),
        (most.div_ceil(16) + 8, 64, 16, true),
        (most.div_ceil(16) + 2, 24, 5, true),
        (64, 16, 1, false),
    ] {
        let limits = ServingLimits { n_blocks, rows_per_step, sequences_max };
        runner = runner_with(runner, limits);
        let ledger = together(&mut runner, &jobs);
        for (id, output) in &expected {
            let Some(found) = ledger.outputs.get(id) else {
                assert_eq!(id.0 % 5, 4, "{id:?} is lost");
                continue;
            };
            assert_eq!(found, output, "{id:?} within {limits:?}");
        }
        assert!(ledger.outputs.len() >= 13);
        let counters = runner.counters().scheduler;
        assert_eq!(counters.preemptions > 0, preempts, "{limits:?}: {counters:?}");
    }
}

fn check_fixture(name: &str) {
    check(&crate::fixtures().join("llm").join(name), Precision::Full);
}

#[test]
fn llama3_in_company_and_alone() {
    check_fixture("llama3");
}

#[test]
fn llama31_in_company_and_alone() {
    check_fixture("llama31");
}

#[test]
fn mistral_in_company_and_alone() {
    check_fixture("mistral");
}

#[test]
fn mixtral_in_company_and_alone() {
    check_fixture("mixtral");
}

#[test]
fn mixtral_gptq_in_company_and_alone() {
    check_fixture("mixtral_gptq");
}

#[test]
fn the_starter_model_in_company_and_alone() {
    let Some(path) = crate::starter::starter_model() else { return };
    check(&path, Precision::Packed);
}
