//! The requests of a soak: every feature, many lengths, the same ones each time.

use neurino_core::job::{ResponseFormat, ToolChoice, ToolDefinition};
use neurino_core::{ChatMessage, ModelId, Role, SamplingParams, TextJob};
use serde_json::json;

/// What many prompts begin with, so that the prefix cache has something to find.
const SYSTEM: &str = "You are a careful assistant of a small harbour town. You answer in short \
    sentences, you never invent names, and you say so when you do not know something. The town has \
    a lighthouse, a market on Saturdays, and a ferry that leaves every hour.";

const QUESTIONS: [&str; 6] = [
    "When does the ferry leave?",
    "Write a poem about the lighthouse, four lines long.",
    "Count from one to twenty, in words.",
    "What is sold at the market, and what would you buy for a soup?",
    "Explain to a child why the sea is salty.",
    "Wie heißt der Leuchtturm? Antworte auf Deutsch, mit Umlauten: ä ö ü ß.",
];

/// As many different requests, none with more than `longest_tokens` tokens in the prompt (roughly)
/// and in the answer.
pub(super) fn requests(model: &ModelId, count: u32, longest_tokens: u32) -> Vec<TextJob> {
    (0..count).map(|n| request(model, n, longest_tokens)).collect()
}

fn request(model: &ModelId, n: u32, longest_tokens: u32) -> TextJob {
    let question = QUESTIONS[n as usize % QUESTIONS.len()];
    let mut messages = Vec::new();
    if n % 3 != 1 {
        messages.push(ChatMessage::new(Role::System, SYSTEM));
    }
    let words = match n % 5 {
        // A long prompt goes through in pieces.
        3 => longest_tokens / 2,
        4 => longest_tokens / 6,
        _ => 0,
    };
    let story: Vec<_> = (0..words).map(|word| QUESTIONS[1 + word as usize % 3]).collect();
    let story: String =
        story.join(" ").split(' ').take(words as usize).collect::<Vec<_>>().join(" ");
    messages.push(ChatMessage::new(Role::User, format!("{question} {story}")));
    let most = (longest_tokens / 4).clamp(8, 160);
    let mut job = TextJob::new(model.clone(), messages, 4 + (n * 37) % most);
    job.sampling = sampling(n);
    if n % 4 == 1 {
        job.choices = 2 + n % 3;
    }
    if n % 6 == 2 {
        job.stop = vec![".".into(), "\n\n".into()];
    }
    if n % 7 == 3 {
        job.logprobs = Some(n % 6);
    }
    if n % 9 == 4 {
        job.logit_bias = vec![(11, -100.0), (13, 2.5)];
    }
    match n % 8 {
        5 => (job.tools, job.tool_choice) = (tools(), ToolChoice::Auto),
        6 => (job.tools, job.tool_choice) = (tools(), ToolChoice::Required),
        7 => job.response_format = ResponseFormat::JsonObject,
        _ => {}
    }
    job
}

fn sampling(n: u32) -> SamplingParams {
    let usual = SamplingParams { seed: u64::from(n) * 7919, ..SamplingParams::default() };
    match n % 6 {
        0 => SamplingParams { temperature: 0.0, ..usual },
        1 => usual,
        2 => SamplingParams { temperature: 0.7, top_p: 0.9, ..usual },
        3 => SamplingParams { temperature: 1.2, top_k: 40, min_p: 0.05, ..usual },
        4 => SamplingParams { temperature: 0.0, repetition_penalty: 1.1, ..usual },
        _ => SamplingParams { frequency_penalty: 0.5, presence_penalty: 0.3, ..usual },
    }
}

fn tools() -> Vec<ToolDefinition> {
    let parameters = json!({
        "type": "object",
        "properties": { "place": { "type": "string" }, "hour": { "type": "integer" } },
        "required": ["place"],
    });
    vec![ToolDefinition {
        name: "timetable".into(),
        description: Some("When the ferry leaves".into()),
        parameters: Some(parameters),
    }]
}

/// A prompt that shares nothing with any other, to fill the cache with.
pub(super) fn unique(model: &ModelId, n: u32, words: u32) -> TextJob {
    let text: Vec<_> = (0..words).map(|word| (word * 31 + n * 1009).to_string()).collect();
    TextJob::new(model.clone(), vec![ChatMessage::new(Role::User, text.join(" "))], 1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_allowed_and_every_feature_is_among_them() {
        let all = requests(&ModelId::new("m").unwrap(), 48, 1000);
        for job in &all {
            job.validate().unwrap();
        }
        let has = |what: &dyn Fn(&TextJob) -> bool| all.iter().any(what);
        assert!(has(&|job| job.choices > 1) && has(&|job| !job.stop.is_empty()));
        assert!(has(&|job| job.logprobs.is_some()) && has(&|job| !job.logit_bias.is_empty()));
        assert!(has(&|job| job.tool_choice == ToolChoice::Required));
        assert!(has(&|job| job.response_format == ResponseFormat::JsonObject));
        assert!(has(&|job| job.messages.last().unwrap().content.len() > 1500));
    }
}
