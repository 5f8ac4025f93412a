//! A real conversation with the starter model, through a child process.

use std::time::Instant;

use neurino_core::{ChatMessage, FinishReason, JobOutput, JobSpec, ModelId, Role, SamplingParams};
use neurino_engine::{Engine, JobEvent, ModelRef, ProcessEngine};
use tokio_util::sync::CancellationToken;

use crate::process::config;
use crate::{job, next};

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what was said, how fast, or why not")]
async fn the_starter_model_knows_a_capital() {
    let Some(path) = std::env::var_os("NEURINO_TEST_STARTER_MODEL") else {
        eprintln!("skipped: NEURINO_TEST_STARTER_MODEL does not name the starter model's file");
        return;
    };
    let model = ModelRef { id: ModelId::new("smollm2-135m-instruct").unwrap(), path: path.into() };
    let engine = ProcessEngine::start(config());
    let facts = engine.load(&model).await.unwrap();
    eprintln!("{facts:?}");
    let JobSpec::Text(mut chat) = job(64);
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
