//! Both engines on a small model: their contract, and what the process engine adds to it.
//!
//! `NEURINO_TEST_STARTER_MODEL` names the starter model's GGUF file, whose test is skipped without
//! it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;
mod load_memory;
mod multi;
mod pictures;
mod process;
mod soak;
mod starter;

use std::path::Path;
use std::time::Duration;

use neurino_core::{ChatMessage, JobSpec, ModelId, Role, SamplingParams, TextJob};
use neurino_engine::{EngineErrorCode, JobEvent, JobStream, ModelRef};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn model() -> ModelRef {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    ModelRef::new(ModelId::new("tiny").unwrap(), fixtures.join("llm/llama3"))
}

/// Greedy on this model, it goes on for as long as it may.
fn job(max_tokens: u32) -> JobSpec {
    let messages = vec![ChatMessage::new(Role::User, "Once upon a time")];
    JobSpec::Text(TextJob {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ..TextJob::new(model().id, messages, max_tokens)
    })
}

async fn next(stream: &mut JobStream) -> Option<JobEvent> {
    tokio::time::timeout(PATIENCE, stream.recv()).await.expect("the stream goes on")
}

async fn rest(mut stream: JobStream) -> Vec<JobEvent> {
    let mut events = Vec::new();
    while let Some(event) = next(&mut stream).await {
        events.push(event);
    }
    events
}

/// Reads until the job certainly runs.
async fn until_running(stream: &mut JobStream) {
    while !matches!(next(stream).await, Some(JobEvent::Delta { .. })) {}
}

/// How a job ended: with its tokens, or with an error.
fn ending(events: &[JobEvent]) -> Result<u32, EngineErrorCode> {
    match events.last() {
        Some(JobEvent::Finished { output: neurino_core::JobOutput::Text(text) }) => {
            Ok(text.usage.completion_tokens)
        }
        Some(JobEvent::Failed { error }) => Err(error.code),
        other => panic!("a stream ended with {other:?}"),
    }
}
