//! A chat template of arbitrary text is refused with an error or renders; never a panic, and never
//! without end. Behind a zero byte come the words of the conversation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use neurino_core::job::{ToolCall, ToolDefinition};
use neurino_core::{ChatMessage, Role};
use neurino_llm::ChatTemplate;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (template, words) = text.split_once('\0').unwrap_or((&text, "hello"));
    let Ok(template) = ChatTemplate::new(template, None, Some("<s>"), None) else { return };
    let call = ToolCall { id: "call_1".into(), name: "f".into(), arguments: words.to_owned() };
    let mut calls = ChatMessage::new(Role::Assistant, words);
    calls.tool_calls = vec![call];
    let messages = [
        ChatMessage::new(Role::System, words),
        ChatMessage::new(Role::User, words),
        calls,
        ChatMessage::new(Role::Tool, words),
    ];
    let tool = ToolDefinition {
        name: "f".into(),
        description: Some(words.to_owned()),
        parameters: Some(serde_json::json!({ "type": "object", "properties": { "x": {} } })),
    };
    let now = "2026-11-21T12:00:00[UTC]".parse().expect("a valid time");
    let _ = template.render(&messages, &[], &now);
    let _ = template.render(&messages[..2], &[tool], &now);
});
