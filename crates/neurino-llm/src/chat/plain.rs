//! Functions for templates that know nothing of them: everything is said in plain messages, in the
//! words that the Hermes models were trained with.
//!
//! - A system message lists the functions and shows how to call one. A system message that is there
//!   already goes behind it.
//! - Calls of earlier answers become `<tool_call>` blocks in the answer's text.
//! - Results become `<tool_response>` blocks in a user message; results that follow each other share
//!   one, because many templates insist on alternating roles.

use std::fmt::Write as _;

use neurino_core::job::ToolDefinition;
use neurino_core::{ChatMessage, Role};
use serde_json::json;

use super::values::{arguments, tool_values};
use crate::python_json;

/// The conversation with its functions as plain messages.
pub(super) fn without_tools(
    messages: &[ChatMessage],
    tools: &[ToolDefinition],
) -> Vec<ChatMessage> {
    let mut plain: Vec<ChatMessage> = Vec::with_capacity(messages.len() + 1);
    let mut after_result = false;
    for message in messages {
        let is_result = message.role == Role::Tool;
        if is_result {
            let text = format!("<tool_response>\n{}\n</tool_response>", message.content);
            match plain.last_mut().filter(|_| after_result) {
                Some(last) => last.content = format!("{}\n{text}", last.content),
                None => plain.push(ChatMessage::new(Role::User, text)),
            }
        } else {
            plain.push(ChatMessage::new(message.role, with_calls(message)));
        }
        after_result = is_result;
    }
    if !tools.is_empty() {
        let words = instructions(tools);
        match plain.first_mut().filter(|first| first.role == Role::System) {
            Some(system) => system.content = format!("{words}\n\n{}", system.content),
            None => plain.insert(0, ChatMessage::new(Role::System, words)),
        }
    }
    plain
}

/// For templates that refuse system messages: their words go before the first message of the user.
pub(super) fn without_system(messages: &[ChatMessage]) -> Vec<ChatMessage> {
    let is_system = |message: &&ChatMessage| message.role == Role::System;
    let words: Vec<&str> =
        messages.iter().filter(is_system).map(|message| message.content.as_str()).collect();
    let mut plain: Vec<ChatMessage> =
        messages.iter().filter(|message| !is_system(message)).cloned().collect();
    if let Some(user) = plain.iter_mut().find(|message| message.role == Role::User) {
        user.content = format!("{}\n\n{}", words.join("\n\n"), user.content);
    }
    plain
}

fn with_calls(message: &ChatMessage) -> String {
    let mut text = message.content.clone();
    for call in &message.tool_calls {
        let call = json!({ "name": call.name, "arguments": arguments(call) });
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(text, "<tool_call>\n{}\n</tool_call>", json_text(&call));
    }
    text
}

fn instructions(tools: &[ToolDefinition]) -> String {
    let tools: Vec<String> = tool_values(tools).iter().map(json_text).collect();
    format!(
        "You may call functions to help the user. Here are their signatures:\n\
         <tools>\n{}\n</tools>\n\
         To call a function, answer with a JSON object between tags, one for each call:\n\
         <tool_call>\n{{\"name\": <function name>, \"arguments\": <object of arguments>}}\n</tool_call>",
        tools.join("\n")
    )
}

fn json_text(value: &serde_json::Value) -> String {
    python_json::to_text(value, None).unwrap_or_else(|_| value.to_string())
}
