//! Faults below the engine, and what reaches a card after its warm-up.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashSet;

use neurino_core::JobSpec;
use neurino_llm::serving::StepShape;
use neurino_nn::paged::BatchLayout;

use super::*;
use crate::api::{Engine, JobStream};
use crate::local::LocalEngine;
use crate::stand_in::{Fault, Watch, ending, fixture, job, model, told, until_running};

async fn run(engine: &LocalEngine, spec: &JobSpec) -> JobStream {
    engine.run(spec, CancellationToken::new()).await.unwrap()
}

/// Two jobs of which both have begun.
async fn two_running(engine: &LocalEngine) -> [JobStream; 2] {
    let mut both = [run(engine, &job(4000)).await, run(engine, &told("And then?", 4000)).await];
    for stream in &mut both {
        until_running(stream).await;
    }
    both
}

fn cache_bytes(engine: &LocalEngine) -> u64 {
    match engine.status_now() {
        EngineStatus::Ready(facts) => facts.memory.cache_bytes,
        other => panic!("{other:?}"),
    }
}

/// The device turns out to have memory for less than the whole cache.
async fn a_lack_of_memory(fault: fn(usize) -> Fault, on_card: bool) {
    let watch = Watch::new();
    let device = if on_card { watch.card() } else { watch.cpu() };
    let engine = LocalEngine::start_on(vec![device], Faults::EndProcess).unwrap();
    engine.load(&model()).await.unwrap();
    let expected = ending(run(&engine, &job(40)).await).await.unwrap();
    let (before, blocks) = (cache_bytes(&engine), *watch.caches().last().unwrap());
    let both = two_running(&engine).await;

    watch.fail(fault(blocks - 1));
    for stream in both {
        let error = ending(stream).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::OutOfMemory, "{error}");
    }
    let again = ending(run(&engine, &job(40)).await).await.unwrap();
    assert_eq!(again, expected, "with a smaller cache it says the same");
    assert_eq!(*watch.caches().last().unwrap(), blocks * 3 / 4);
    assert_eq!(cache_bytes(&engine), before / blocks as u64 * (blocks * 3 / 4) as u64);
    assert_eq!(engine.counters_now().jobs, 0);
}

#[tokio::test]
async fn out_of_memory_fails_the_jobs_shrinks_the_cache_and_the_engine_goes_on() {
    for fault in [Fault::ErrorAbove, Fault::PanicAbove, Fault::NoCacheAbove] {
        a_lack_of_memory(fault, false).await;
        a_lack_of_memory(fault, true).await;
    }
}

#[tokio::test]
async fn a_device_without_memory_for_any_cache_holds_no_model_and_takes_the_next() {
    let watch = Watch::new();
    let engine = LocalEngine::start_on(vec![watch.cpu()], Faults::Reload).unwrap();
    engine.load(&model()).await.unwrap();
    let both = two_running(&engine).await;
    watch.fail(Fault::NoCacheAbove(0));
    for stream in both {
        assert_eq!(ending(stream).await.unwrap_err().code, EngineErrorCode::OutOfMemory);
    }
    assert_eq!(engine.status_now(), EngineStatus::Idle);
    let error = engine.load(&model()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::OutOfMemory, "{error}");
    watch.fail(Fault::NoCacheAbove(usize::MAX));
    engine.load(&model()).await.unwrap();
    ending(run(&engine, &job(4)).await).await.unwrap();
}

#[tokio::test]
async fn a_fault_in_a_step_costs_its_jobs_and_the_model_is_loaded_again() {
    // On a CPU the process goes on even where a card's would end.
    for (faults, panics) in
        [(Faults::Reload, true), (Faults::Reload, false), (Faults::EndProcess, false)]
    {
        let watch = Watch::new();
        let engine = LocalEngine::start_on(vec![watch.cpu()], faults).unwrap();
        engine.load(&model()).await.unwrap();
        let expected = ending(run(&engine, &job(40)).await).await.unwrap();
        let (both, caches) = (two_running(&engine).await, watch.caches());
        watch.fail(Fault::Lost { after: 3, panics });
        for stream in both {
            let error = ending(stream).await.unwrap_err();
            assert_eq!(error.code, EngineErrorCode::Crashed, "{error}");
            assert!(error.message.contains("an illegal address"), "{error}");
        }
        let again = ending(run(&engine, &job(40)).await).await.unwrap();
        assert_eq!(again, expected);
        let remade = watch.caches();
        assert!(
            remade.len() > caches.len() && remade.ends_with(&caches),
            "the model is loaded again"
        );
    }
}

/// What kernels of a card are compiled for and what a store sees of it.
fn sizes(steps: &[BatchLayout]) -> HashSet<(&'static str, usize, bool)> {
    let shapes = steps.iter().map(|batch| StepShape::of(batch, 0));
    shapes.flat_map(|s| [("rows", s.rows, false), ("table", s.table, s.reads)]).collect()
}

/// Runs jobs with prompts from a few words to hundreds and one to three answers each, one after the
/// other and all at once; what they say must not differ.
async fn alone_and_together(engine: &LocalEngine, count: u32) {
    let jobs: Vec<JobSpec> = (0..count)
        .map(|n| {
            let words = "and so it went on ".repeat(n.pow(2) as usize);
            let JobSpec::Text(mut job) = told(&format!("{n} times {words}"), 20 + n) else {
                unreachable!("a text job")
            };
            job.choices = 1 + n % 3;
            JobSpec::Text(job)
        })
        .collect();
    let mut alone = Vec::new();
    for job in &jobs {
        alone.push(ending(run(engine, job).await).await.unwrap());
    }
    let mut streams = Vec::new();
    for job in &jobs {
        streams.push(run(engine, job).await);
    }
    for (stream, alone) in streams.into_iter().zip(alone) {
        assert_eq!(ending(stream).await.unwrap(), alone, "what fills a step up changes nothing");
    }
}

#[tokio::test]
async fn every_architecture_says_in_filled_steps_what_it_says_alone() {
    for name in ["llama31", "mistral", "mixtral", "mixtral_gptq"] {
        let engine = LocalEngine::start_on(vec![Watch::new().card()], Faults::Reload).unwrap();
        engine.load(&fixture(name)).await.unwrap();
        alone_and_together(&engine, 6).await;
    }
}

#[tokio::test]
async fn after_the_warm_up_no_shape_reaches_a_card_that_it_has_not_seen() {
    let watch = Watch::new();
    let engine = LocalEngine::start_on(vec![watch.card()], Faults::Reload).unwrap();
    let mut status = engine.status();
    let loading = engine.queue_load(model()).unwrap();
    let preparing = |status: &EngineStatus| {
        matches!(status, EngineStatus::Loading { warm_percent: 1.., .. } | EngineStatus::Ready(_))
    };
    let seen = status.wait_for(preparing).await.unwrap().clone();
    assert!(matches!(seen, EngineStatus::Loading { .. }), "the warm-up's progress is told");
    loading.await.unwrap().unwrap();
    let warm = sizes(&watch.take_steps());

    alone_and_together(&engine, 14).await;
    let steps = watch.take_steps();
    let met = sizes(&steps);
    assert!(met.is_subset(&warm), "{met:?} of {warm:?}");
    // The jobs were not all alike, or this says nothing.
    assert!(met.len() > 8 && steps.len() > 100, "{met:?} in {} steps", steps.len());
}
