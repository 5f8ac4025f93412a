//! Faults below the engine, and what reaches a card after its warm-up.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashSet;

use neurino_core::JobSpec;
use neurino_llm::serving::StepShape;
use neurino_nn::paged::BatchLayout;

use super::*;
use crate::api::{Engine, JobEvent, JobStream};
use crate::local::LocalEngine;
use crate::stand_in::{Fault, Held, Watch, ending, fixture, job, model, told, until_running};

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

/// Loads the model on a device with a lack of memory, and has it say what it says with plenty. Returns
/// the blocks of its cache with plenty, those it got, and the most rows of a step.
async fn a_load_with_less(fault: fn(usize) -> Fault, on_card: bool) -> (usize, usize, usize) {
    let watch = Watch::new();
    let device = || if on_card { watch.card() } else { watch.cpu() };
    let engine = LocalEngine::start_on(vec![device()], Faults::EndProcess).unwrap();
    engine.load(&model()).await.unwrap();
    let expected = ending(run(&engine, &told("And then?", 40)).await).await.unwrap();
    let (before, blocks) = (cache_bytes(&engine), *watch.caches().last().unwrap());

    let engine = LocalEngine::start_on(vec![device()], Faults::EndProcess).unwrap();
    watch.fail(fault(blocks));
    let facts = engine.load(&model()).await.unwrap();
    let made = watch.caches();
    let less = *made.last().unwrap();
    assert_eq!(facts.memory.cache_bytes, before / blocks as u64 * less as u64);
    assert!(facts.slots >= 1 && facts.memory.cache_bytes < facts.memory.planned_bytes);
    watch.take_steps();
    let both = two_running(&engine).await;
    let again = ending(run(&engine, &told("And then?", 40)).await).await.unwrap();
    assert_eq!(again, expected, "with less memory it says the same");
    drop(both);
    let rows = watch.take_steps().iter().map(BatchLayout::rows).max().unwrap();
    (blocks, less, rows)
}

#[tokio::test]
async fn a_model_whose_cache_does_not_fit_is_loaded_with_a_smaller_one() {
    for on_card in [false, true] {
        let (blocks, less, _) =
            a_load_with_less(|blocks| Fault::NoCacheAbove(blocks / 2), on_card).await;
        let quarters = |blocks: usize| blocks * 3 / 4;
        assert_eq!(less, quarters(quarters(quarters(blocks))), "the first that fits");
    }
}

#[tokio::test]
async fn a_model_whose_steps_do_not_fit_is_loaded_with_fewer_rows() {
    let (blocks, less, rows) = a_load_with_less(|_| Fault::RowsAbove(300), true).await;
    assert_eq!(less, blocks * 3 / 4 * 3 / 4, "1024, 512, 256");
    assert!(rows <= 256, "{rows}");
}

#[tokio::test]
async fn a_model_for_which_no_cache_is_small_enough_is_refused_in_words() {
    for on_card in [false, true] {
        let watch = Watch::new();
        let device = if on_card { watch.card() } else { watch.cpu() };
        let engine = LocalEngine::start_on(vec![device], Faults::EndProcess).unwrap();
        watch.fail(Fault::NoCacheAbove(0));
        let error = engine.load(&model()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::OutOfMemory, "{error}");
        assert!(error.message.contains("close other programs"), "a way out: {error}");
        assert_eq!(engine.status_now(), EngineStatus::Idle);
        // Once there is memory, the same engine takes it.
        watch.fail(Fault::NoCacheAbove(usize::MAX));
        engine.load(&model()).await.unwrap();
        ending(run(&engine, &job(4)).await).await.unwrap();
    }
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

/// Reads some tokens of a stream that goes on.
async fn tokens(stream: &mut JobStream, count: u32) {
    let mut first = None;
    loop {
        let Some(JobEvent::Delta { tokens, .. }) = stream.recv().await else {
            panic!("it goes on");
        };
        if tokens >= *first.get_or_insert(tokens) + count {
            return;
        }
    }
}

#[tokio::test]
async fn running_answers_go_on_while_a_job_is_prepared() {
    let engine = LocalEngine::start(crate::DeviceChoice::Cpu).unwrap();
    engine.load(&model()).await.unwrap();
    let mut running = run(&engine, &job(4000)).await;
    until_running(&mut running).await;

    let words = "a question that takes forever to read";
    let held = Held::new(words);
    let mut unready = run(&engine, &told(words, 5)).await;
    let mut behind = run(&engine, &told("And then?", 5)).await;
    // What streams hold and what is sent meanwhile is more than the room of a stream.
    tokens(&mut running, 200).await;
    assert!(unready.try_recv().is_err() && behind.try_recv().is_err(), "in the order they came");
    assert_eq!(engine.counters_now().jobs, 3);

    // A job that nobody wants any more does not wait for its preparation.
    let cancel = CancellationToken::new();
    let unwanted = engine.run(&told(words, 5), cancel.clone()).await.unwrap();
    cancel.cancel();
    assert_eq!(ending(unwanted).await.unwrap_err().code, EngineErrorCode::Cancelled);

    drop(held);
    assert!(matches!(unready.recv().await, Some(JobEvent::Started { .. })));
    ending(unready).await.unwrap();
    ending(behind).await.unwrap();
    // What cannot be served says so as before, and the running answer does not end with it.
    let long = ending(run(&engine, &told(&"word ".repeat(20_000), 4)).await).await.unwrap_err();
    assert_eq!(long.code, EngineErrorCode::ContextTooLong, "{long}");
    tokens(&mut running, 20).await;
}

#[tokio::test]
async fn an_unload_waits_for_a_job_that_is_being_prepared() {
    let engine = LocalEngine::start(crate::DeviceChoice::Cpu).unwrap();
    engine.load(&model()).await.unwrap();
    let words = "a question before an unload";
    let held = Held::new(words);
    let unready = run(&engine, &told(words, 5)).await;
    let unloaded = engine.queue_unload().unwrap();
    while engine.counters_now().jobs == 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(engine.status_now(), EngineStatus::Ready(_)));
    drop(held);
    ending(unready).await.unwrap();
    unloaded.await.unwrap();
    assert_eq!(engine.status_now(), EngineStatus::Idle);
}

#[tokio::test]
async fn a_fault_costs_the_jobs_that_ran_and_not_those_that_were_being_prepared() {
    for lacks_memory in [false, true] {
        let watch = Watch::new();
        let engine = LocalEngine::start_on(vec![watch.cpu()], Faults::Reload).unwrap();
        engine.load(&model()).await.unwrap();
        let blocks = *watch.caches().last().unwrap();
        let both = two_running(&engine).await;
        let words = format!("a question beside a fault, {lacks_memory}");
        let held = Held::new(&words);
        let unready = run(&engine, &told(&words, 5)).await;
        while engine.counters_now().jobs < 3 {
            tokio::task::yield_now().await;
        }
        watch.fail(if lacks_memory {
            Fault::ErrorAbove(blocks - 1)
        } else {
            Fault::Lost { after: 0, panics: false }
        });
        for stream in both {
            ending(stream).await.unwrap_err();
        }
        drop(held);
        ending(unready).await.unwrap();
        assert_eq!(engine.counters_now().jobs, 0);
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
async fn a_second_start_warms_up_little_and_says_the_same() {
    let (watch, warming) = (Watch::new(), Warming::default());
    let (mut counts, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let devices = vec![watch.card()];
        let engine = LocalEngine::start_warming(devices, Faults::Reload, warming.clone()).unwrap();
        engine.load(&model()).await.unwrap();
        counts.push(watch.take_steps().len());
        answers.push(ending(run(&engine, &job(40)).await).await.unwrap());
        watch.take_steps();
    }
    assert!(counts[1] > 0 && counts[1] * 2 < counts[0], "{counts:?}");
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn after_the_warm_up_no_shape_reaches_a_card_that_it_has_not_seen() {
    for name in ["llama3", "mixtral_gptq"] {
        let watch = Watch::new();
        let engine = LocalEngine::start_on(vec![watch.card()], Faults::Reload).unwrap();
        let mut status = engine.status();
        let loading = engine.queue_load(fixture(name)).unwrap();
        let preparing = |status: &EngineStatus| {
            matches!(
                status,
                EngineStatus::Loading { warm_percent: 1.., .. } | EngineStatus::Ready(_)
            )
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
}
