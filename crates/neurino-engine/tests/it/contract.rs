//! What every engine promises.

use neurino_core::{ChatMessage, FinishReason, JobOutput, JobSpec, ModelId, Role, TextOutput};
use neurino_engine::{
    DeviceChoice, Engine, EngineErrorCode, EngineStatus, JobEvent, LocalEngine, ModelRef,
    ProcessEngine,
};
use tokio_util::sync::CancellationToken;

use crate::process::config;
use crate::{ending, job, model, rest, until_running};

macro_rules! for_both_engines {
    ($($promise:ident),* $(,)?) => {
        mod local {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&LocalEngine::start(DeviceChoice::Cpu).unwrap()).await;
            })*
        }
        mod child {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                let engine = ProcessEngine::start(config());
                super::$promise(&engine).await;
                engine.shutdown().await;
            })*
        }
    };
}

for_both_engines! {
    an_answer_arrives_in_pieces_and_as_a_whole,
    a_model_must_be_loaded,
    a_damaged_model_is_refused_and_a_good_one_loads_after_it,
    a_cancelled_job_ends_at_once,
    a_dropped_stream_ends_its_job,
    a_waiting_job_is_cancelled_without_its_turn,
    a_conversation_that_is_too_long_fails_alone,
    jobs_run_together_and_say_what_they_say_alone,
    a_slow_reader_stops_nobody_and_misses_nothing,
    what_ends_early_frees_its_blocks_at_once,
    more_jobs_than_it_takes_are_refused,
    an_unload_waits_for_the_jobs_before_it,
}

async fn an_answer_arrives_in_pieces_and_as_a_whole(engine: &dyn Engine) {
    assert_eq!(*engine.status().borrow(), EngineStatus::Idle);
    let facts = engine.load(&model()).await.unwrap();
    assert_eq!((facts.arch.as_str(), facts.context_tokens), ("llama", 8192));
    assert!(facts.device.starts_with("CPU (") && facts.weights_bytes > 100_000);
    assert_eq!(*engine.status().borrow(), EngineStatus::Ready(facts.clone()));
    assert_eq!(engine.load(&model()).await.unwrap(), facts, "loading again is free");

    let events = rest(engine.run(&job(20), CancellationToken::new()).await.unwrap()).await;
    let Some(JobEvent::Started { prompt_tokens }) = events.first() else { panic!("{events:?}") };
    let Some(JobEvent::Finished { output: JobOutput::Text(output) }) = events.last() else {
        panic!("{events:?}")
    };
    let mut joined = String::new();
    for event in &events[1..events.len() - 1] {
        let JobEvent::Delta { delta, .. } = event else { panic!("{event:?}") };
        joined.push_str(&delta.text);
    }
    assert_eq!(joined, output.text());
    assert!(!joined.is_empty());
    assert_eq!(output.choices[0].finish_reason, FinishReason::Length);
    assert_eq!((output.usage.prompt_tokens, output.usage.completion_tokens), (*prompt_tokens, 20));
}

async fn a_model_must_be_loaded(engine: &dyn Engine) {
    let error = engine.run(&job(1), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
    engine.load(&model()).await.unwrap();
    let JobSpec::Text(mut other) = job(1) else { unreachable!("a text job") };
    other.model = ModelId::new("another").unwrap();
    let error = engine.run(&JobSpec::Text(other), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
    engine.unload().await.unwrap();
    assert_eq!(*engine.status().borrow(), EngineStatus::Idle);
    let error = engine.run(&job(1), CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
    engine.load(&model()).await.unwrap();
    let stream = engine.run(&job(2), CancellationToken::new()).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Ok(2));
}

async fn a_damaged_model_is_refused_and_a_good_one_loads_after_it(engine: &dyn Engine) {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(model().path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("tokenizer.json"), b"{\"model\": 5}").unwrap();
    let damaged = ModelRef { path: folder.path().into(), ..model() };
    for path in ["tokenizer.json", "model-00002-of-00002.safetensors", "config.json"] {
        std::fs::write(folder.path().join(path), b"\x08\0\0\0\0\0\0\0{}{}{}").unwrap();
        let error = engine.load(&damaged).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::ModelUnreadable, "{path}: {error}");
    }
    assert_eq!(*engine.status().borrow(), EngineStatus::Idle);
    engine.load(&model()).await.unwrap();
    let stream = engine.run(&job(2), CancellationToken::new()).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Ok(2));
}

async fn a_cancelled_job_ends_at_once(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let cancel = CancellationToken::new();
    let mut stream = engine.run(&job(4000), cancel.clone()).await.unwrap();
    until_running(&mut stream).await;
    cancel.cancel();
    assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Cancelled));
    let before = CancellationToken::new();
    before.cancel();
    let stream = engine.run(&job(4000), before).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Cancelled));
}

async fn a_dropped_stream_ends_its_job(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    // Without an end to each of these, the last would wait for many minutes.
    for _ in 0..40 {
        let mut stream = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
        until_running(&mut stream).await;
    }
    let stream = engine.run(&job(3), CancellationToken::new()).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Ok(3));
}

async fn a_waiting_job_is_cancelled_without_its_turn(engine: &dyn Engine) {
    let slots = engine.load(&model()).await.unwrap().slots;
    let ahead = CancellationToken::new();
    let mut running = Vec::new();
    for _ in 0..slots {
        running.push(engine.run(&job(4000), ahead.clone()).await.unwrap());
    }
    let cancel = CancellationToken::new();
    let waiting = engine.run(&job(4000), cancel.clone()).await.unwrap();
    let last = engine.run(&job(3), CancellationToken::new()).await.unwrap();
    for stream in &mut running {
        until_running(stream).await;
    }
    cancel.cancel();
    let events = rest(waiting).await;
    let began = events.iter().any(|event| matches!(event, JobEvent::Delta { .. }));
    assert!(!began, "{events:?}");
    assert_eq!(ending(&events), Err(EngineErrorCode::Cancelled));
    ahead.cancel();
    for stream in running {
        assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Cancelled), "it was running");
    }
    assert_eq!(ending(&rest(last).await), Ok(3));
}

async fn a_conversation_that_is_too_long_fails_alone(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let JobSpec::Text(mut long) = job(512) else { unreachable!("a text job") };
    long.messages[0].content = "a b c d ".repeat(3000);
    let stream = engine.run(&JobSpec::Text(long), CancellationToken::new()).await.unwrap();
    let events = rest(stream).await;
    let [JobEvent::Failed { error }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(error.code, EngineErrorCode::ContextTooLong);
    assert!(error.message.contains("and 512 more may be generated, but the model holds 8,192"));
    let stream = engine.run(&job(3), CancellationToken::new()).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Ok(3));
}

/// What a stream said, answer by answer, and its output.
fn said(events: &[JobEvent]) -> (Vec<String>, TextOutput) {
    let Some(JobEvent::Finished { output: JobOutput::Text(output) }) = events.last() else {
        panic!("{events:?}")
    };
    let mut texts = vec![String::new(); output.choices.len()];
    for event in events {
        if let JobEvent::Delta { delta, .. } = event {
            texts[delta.choice as usize].push_str(&delta.text);
        }
    }
    (texts, output.clone())
}

/// Jobs of many kinds.
fn mixed() -> Vec<JobSpec> {
    let kinds = (0..12).map(|n: u32| {
        let JobSpec::Text(mut text) = job(20 + 7 * n) else { unreachable!("a text job") };
        let words = "to be or not to be ".repeat(1 + (n as usize * 5) % 23);
        text.messages = vec![ChatMessage::new(Role::User, words)];
        text.sampling.temperature = [0.0, 0.9][n as usize % 2];
        text.sampling.seed = u64::from(n);
        text.choices = 1 + n % 3;
        text.logprobs = (n % 4 == 1).then_some(n % 5);
        text.stop = if n % 5 == 2 { vec!["e".into()] } else { vec![] };
        JobSpec::Text(text)
    });
    kinds.collect()
}

async fn jobs_run_together_and_say_what_they_say_alone(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let mut alone = Vec::new();
    for spec in mixed() {
        let stream = engine.run(&spec, CancellationToken::new()).await.unwrap();
        alone.push(said(&rest(stream).await));
    }
    let mut streams = Vec::new();
    for spec in mixed() {
        streams.push(engine.run(&spec, CancellationToken::new()).await.unwrap());
    }
    let mut at_once = 0;
    for (stream, (_, expected)) in streams.into_iter().zip(&alone) {
        at_once = at_once.max(engine.counters().await.unwrap().sequences_running);
        let (texts, output) = said(&rest(stream).await);
        let whole: Vec<_> = output.choices.iter().map(|choice| choice.text.clone()).collect();
        assert_eq!(texts, whole, "the stream is the answer");
        let facts = |output: &TextOutput| {
            let ends = output.choices.iter().map(|c| (c.text.clone(), c.finish_reason));
            (ends.collect::<Vec<_>>(), output.usage)
        };
        assert_eq!(facts(&output), facts(expected), "others do not change an answer");
    }
    assert!(at_once > 1, "they ran together");
}

async fn a_slow_reader_stops_nobody_and_misses_nothing(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let slow = engine.run(&job(600), CancellationToken::new()).await.unwrap();
    for _ in 0..8 {
        let stream = engine.run(&job(100), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Ok(100));
    }
    while engine.counters().await.unwrap().jobs > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let events = rest(slow).await;
    assert!(
        events.len() < 200,
        "{} events were kept for a reader that does not read",
        events.len()
    );
    let (texts, output) = said(&events);
    assert_eq!(texts[0], output.text());
}

async fn what_ends_early_frees_its_blocks_at_once(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let empty = engine.counters().await.unwrap();
    assert_eq!((empty.jobs, empty.blocks_used), (0, 0));
    assert!(empty.blocks_free > 0);
    let cancel = CancellationToken::new();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = engine.run(&job(4000), cancel.clone()).await.unwrap();
        until_running(&mut stream).await;
        streams.push(stream);
    }
    let full = engine.counters().await.unwrap();
    assert_eq!((full.jobs, full.sequences_running), (3, 3));
    assert!(full.blocks_used >= 3 && full.steps > empty.steps);
    cancel.cancel();
    for stream in streams {
        assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Cancelled));
    }
    let after = engine.counters().await.unwrap();
    assert_eq!((after.jobs, after.sequences_running, after.blocks_used), (0, 0, 0), "{after:?}");
}

async fn more_jobs_than_it_takes_are_refused(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let cancel = CancellationToken::new();
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..300 {
        match engine.run(&job(4000), cancel.clone()).await {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                assert_eq!(error.code, EngineErrorCode::Busy, "{error}");
                refused += 1;
            }
        }
    }
    let count = |n: u32| usize::try_from(n).unwrap();
    let mut taken = 0;
    cancel.cancel();
    for stream in streams {
        match ending(&rest(stream).await) {
            Err(EngineErrorCode::Busy) => refused += 1,
            Err(EngineErrorCode::Cancelled) => taken += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, refused), (count(256), count(44)));
    let stream = engine.run(&job(3), CancellationToken::new()).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Ok(3), "there is room again");
}

async fn an_unload_waits_for_the_jobs_before_it(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let stream = engine.run(&job(50), CancellationToken::new()).await.unwrap();
    let (unloaded, events) = tokio::join!(engine.unload(), rest(stream));
    unloaded.unwrap();
    assert_eq!(ending(&events), Ok(50));
    assert_eq!(*engine.status().borrow(), EngineStatus::Idle);
}
