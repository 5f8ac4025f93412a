//! Answers in OpenAI's form.

use neurino_core::{
    FinishReason, JobId, ModelId, RatedToken, TextChoice, TextOutput, TokenLogprob, ToolCall, Usage,
};
use serde_json::{Value, json};

/// What all pieces of one answer share.
pub(super) struct Answer {
    pub(super) job: JobId,
    pub(super) model: ModelId,
    /// Seconds since the Unix epoch.
    pub(super) created: i64,
    /// Whether all calls of a choice are told, or the first alone.
    pub(super) parallel_calls: bool,
}

impl Answer {
    fn id(&self) -> String {
        format!("chatcmpl-{}", self.job)
    }

    /// The answer as one object.
    pub(super) fn whole(&self, output: &TextOutput, fingerprint: Option<&str>) -> Value {
        let choices = output.choices.iter().enumerate().map(|(at, choice)| self.choice(at, choice));
        json!({
            "id": self.id(),
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices.collect::<Vec<_>>(),
            "usage": usage(output.usage),
            "system_fingerprint": fingerprint,
        })
    }

    fn choice(&self, at: usize, choice: &TextChoice) -> Value {
        let calls = self.told(0, &choice.tool_calls);
        let calling = !calls.is_empty();
        let content = (!calling || !choice.text.is_empty()).then_some(&choice.text);
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        if calling {
            message["tool_calls"] = calls.iter().map(call).collect();
        }
        json!({
            "index": at,
            "message": message,
            "logprobs": choice.logprobs.as_deref().map(logprobs),
            "finish_reason": finish(choice.finish_reason),
        })
    }

    /// Which of the next calls of a choice are told, `known` having been told before.
    pub(super) fn told<'a>(&self, known: usize, calls: &'a [ToolCall]) -> &'a [ToolCall] {
        let most = if self.parallel_calls { calls.len() } else { 1usize.saturating_sub(known) };
        &calls[..calls.len().min(most)]
    }

    /// One piece of the streamed answer.
    pub(super) fn chunk(
        &self,
        choices: &Value,
        usage: Option<Value>,
        fingerprint: Option<&str>,
    ) -> Value {
        let mut chunk = json!({
            "id": self.id(),
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": fingerprint,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

pub(super) fn call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

pub(super) fn logprobs(tokens: &[TokenLogprob]) -> Value {
    let token = |token: &TokenLogprob| {
        let mut value = rated(&token.chosen);
        value["top_logprobs"] = token.top.iter().map(rated).collect();
        value
    };
    json!({ "content": tokens.iter().map(token).collect::<Vec<_>>(), "refusal": null })
}

/// A token that is not whole characters is shown with replacement characters beside its bytes.
fn rated(token: &RatedToken) -> Value {
    json!({
        "token": String::from_utf8_lossy(&token.bytes),
        "logprob": token.logprob,
        "bytes": token.bytes,
    })
}

pub(super) fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

pub(super) fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total(),
    })
}
