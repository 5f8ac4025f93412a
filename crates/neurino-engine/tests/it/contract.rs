//! What every engine promises.

use neurino_core::{FinishReason, JobOutput, JobSpec, ModelId};
use neurino_engine::{
    DeviceChoice, Engine, EngineErrorCode, EngineStatus, JobEvent, LocalEngine, ModelRef,
    ProcessEngine,
};
use tokio_util::sync::CancellationToken;

use crate::process::config;
use crate::{ending, job, model, next, rest, until_running};

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
    jobs_run_one_after_another,
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
    let JobSpec::Text(mut other) = job(1);
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
    engine.load(&model()).await.unwrap();
    let ahead = CancellationToken::new();
    let mut running = engine.run(&job(4000), ahead.clone()).await.unwrap();
    let cancel = CancellationToken::new();
    let waiting = engine.run(&job(4000), cancel.clone()).await.unwrap();
    let last = engine.run(&job(3), CancellationToken::new()).await.unwrap();
    until_running(&mut running).await;
    cancel.cancel();
    let events = rest(waiting).await;
    assert_eq!(events.len(), 1, "it never began: {events:?}");
    assert_eq!(ending(&events), Err(EngineErrorCode::Cancelled));
    ahead.cancel();
    assert_eq!(ending(&rest(running).await), Err(EngineErrorCode::Cancelled), "it was running");
    assert_eq!(ending(&rest(last).await), Ok(3));
}

async fn a_conversation_that_is_too_long_fails_alone(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let JobSpec::Text(mut long) = job(512);
    long.messages[0].content = "a b c d ".repeat(3000);
    let stream = engine.run(&JobSpec::Text(long), CancellationToken::new()).await.unwrap();
    let events = rest(stream).await;
    let [JobEvent::Failed { error }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(error.code, EngineErrorCode::ContextTooLong);
    assert!(error.message.contains("and 512 more may be generated, but the model holds 8,192"));
    let stream = engine.run(&job(3), CancellationToken::new()).await.unwrap();
    assert_eq!(ending(&rest(stream).await), Ok(3));
}

async fn jobs_run_one_after_another(engine: &dyn Engine) {
    engine.load(&model()).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(engine.run(&job(60), CancellationToken::new()).await.unwrap());
    }
    for number in 0..streams.len() {
        let (head, tail) = streams.split_at_mut(number + 1);
        until_running(&mut head[number]).await;
        for waiting in tail {
            assert!(waiting.try_recv().is_err(), "a job began before the one ahead of it ended");
        }
        let mut last = None;
        while let Some(event) = next(&mut head[number]).await {
            last = Some(event);
        }
        assert_eq!(ending(&last.into_iter().collect::<Vec<_>>()), Ok(60));
    }
}
