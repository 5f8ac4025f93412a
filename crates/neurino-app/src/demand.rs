//! Demand of the practice network: short, harmless questions that keep a newcomer's machine busy
//! enough to see how mining works. They pass through admission, routing and the ledger like any
//! other job.

use neurino_core::{ChatMessage, JobSpec, ModelId, Role, SamplingParams, TextJob};

/// Most tokens a practice job may generate.
const MAX_TOKENS: u32 = 96;

const QUESTIONS: &[&str] = &[
    "What is the capital of France?",
    "Why is the sky blue? Answer in two sentences.",
    "Write a haiku about a quiet computer at night.",
    "Explain what a graphics card does, for a ten-year-old.",
    "Name three planets and one fact about each.",
    "Give me a short tip for sleeping better.",
    "What is the difference between weather and climate?",
    "Write one sentence that a friendly robot would say in the morning.",
    "How do bees make honey? Keep it short.",
    "Suggest a name for a cat that likes video games, and say why.",
    "What does a compiler do? Two sentences.",
    "Describe the sea to someone who has never seen it.",
];

/// The `n`th practice job for a model; repeats after a while with another seed.
pub fn practice_job(model: &ModelId, n: u64) -> JobSpec {
    let question = QUESTIONS[(n % QUESTIONS.len() as u64) as usize];
    let messages = vec![ChatMessage::new(Role::User, question)];
    let mut job = TextJob::new(model.clone(), messages, MAX_TOKENS);
    job.sampling = SamplingParams { temperature: 0.2, top_p: 0.9, seed: n, ..job.sampling };
    JobSpec::Text(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_practice_job_is_valid() {
        let model = ModelId::new("m").expect("valid");
        for n in 0..2 * QUESTIONS.len() as u64 {
            practice_job(&model, n).validate().expect("within limits");
        }
    }
}
