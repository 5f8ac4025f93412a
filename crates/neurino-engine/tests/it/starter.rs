//! A real conversation with the starter model, through a child process.

use std::time::Instant;

use neurino_core::{ChatMessage, FinishReason, JobOutput, JobSpec, ModelId, Role, SamplingParams};
use neurino_engine::{DeviceChoice, Engine, JobEvent, LocalEngine, ModelRef, ProcessEngine};
use neurino_hardware::resident_memory_bytes;
use tokio_util::sync::CancellationToken;

use crate::process::config;
use crate::{job, next};

#[expect(clippy::print_stderr, reason = "why a test is skipped")]
fn starter() -> Option<ModelRef> {
    let Some(path) = std::env::var_os("NEURINO_TEST_STARTER_MODEL") else {
        eprintln!("skipped: NEURINO_TEST_STARTER_MODEL does not name the starter model's file");
        return None;
    };
    Some(ModelRef::new(ModelId::new("smollm2-135m-instruct").unwrap(), path))
}

/// In this process, that is: the process engine's is gone with all it had.
#[tokio::test]
#[cfg(target_os = "linux")]
#[expect(clippy::print_stderr, reason = "how much came back")]
async fn unloading_gives_memory_back_within_a_second() {
    let Some(model) = starter() else { return };
    let engine = LocalEngine::start(DeviceChoice::Cpu).unwrap();
    let resident = || resident_memory_bytes().unwrap();
    let JobSpec::Text(mut chat) = job(32) else { unreachable!("a text job") };
    chat.model = model.id.clone();
    let mut kept = Vec::new();
    let mut with = 0;
    for _ in 0..4 {
        engine.load(&model).await.unwrap();
        let job = JobSpec::Text(chat.clone());
        crate::rest(engine.run(&job, CancellationToken::new()).await.unwrap()).await;
        with = resident();
        let asked = Instant::now();
        engine.unload().await.unwrap();
        assert!(asked.elapsed() < std::time::Duration::from_secs(1));
        kept.push(resident());
    }
    eprintln!("with the model {with}, afterwards {kept:?}");
    // Other tests of this process take memory at the same time.
    assert!(kept[3] < kept[0] + (24 << 20), "{kept:?}");
    assert!(kept[3] + (80 << 20) < with, "{with} with the model, {kept:?} after it");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what was said, and how fast")]
async fn the_starter_model_knows_a_capital() {
    let Some(model) = starter() else { return };
    let engine = ProcessEngine::start(config());
    let facts = engine.load(&model).await.unwrap();
    eprintln!("{facts:?}");
    let JobSpec::Text(mut chat) = job(64) else { unreachable!("a text job") };
    chat.model = model.id;
    let question = "What is the capital of France?";
    chat.messages = vec![ChatMessage::new(Role::User, question)];
    chat.sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    for round in ["cold", "warm"] {
        let asked = Instant::now();
        let spec = JobSpec::Text(chat.clone());
        let mut stream = engine.run(&spec, CancellationToken::new()).await.unwrap();
        let mut first = None;
        let output = loop {
            match next(&mut stream).await {
                Some(JobEvent::Delta { .. }) => first = first.or(Some(Instant::now())),
                Some(JobEvent::Finished { output: JobOutput::Text(output) }) => break output,
                Some(JobEvent::Started { .. }) => {}
                other => panic!("{other:?}"),
            }
        };
        let first = first.unwrap();
        let steps = f64::from(output.usage.completion_tokens.saturating_sub(1));
        eprintln!(
            "{round}: {:?}, {:?}, first token after {:?}, then {:.1} tokens/s",
            output.text(),
            output.usage,
            first - asked,
            steps / first.elapsed().as_secs_f64(),
        );
        assert!(output.text().contains("Paris"), "{}", output.text());
        assert_eq!(output.choices[0].finish_reason, FinishReason::Stop);
    }
    engine.shutdown().await;
}
