//! Values as templates see them and as Python prints them.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use neurino_core::ChatMessage;
use neurino_core::job::{ToolCall, ToolDefinition};
use serde_json::json;

/// Writes a value as Python's `str` does.
pub(super) fn write_value(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None => write_nested(out, value),
    }
}

/// As Python's `repr` does.
fn write_nested(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            out.write_char('[')?;
            for (index, item) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_nested(out, &item)?;
            }
            out.write_char(']')
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (index, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_nested(out, &key)?;
                out.write_str(": ")?;
                write_nested(out, &value.get_item(&key).map_err(|_| fmt::Error)?)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

fn write_quoted(out: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

/// Functions in the OpenAI form.
pub(super) fn tool_values(tools: &[ToolDefinition]) -> Vec<serde_json::Value> {
    let tool = |tool: &ToolDefinition| {
        let mut function = json!({ "name": tool.name });
        if let Some(description) = &tool.description {
            function["description"] = description.as_str().into();
        }
        if let Some(parameters) = &tool.parameters {
            function["parameters"] = parameters.clone();
        }
        json!({ "type": "function", "function": function })
    };
    tools.iter().map(tool).collect()
}

/// A conversation in the OpenAI form. The arguments of calls are objects, as templates expect them,
/// unless they are no JSON.
pub(super) fn message_values(messages: &[ChatMessage]) -> Vec<serde_json::Value> {
    let message = |message: &ChatMessage| {
        let mut value = json!({ "role": message.role.as_str(), "content": message.content });
        if !message.tool_calls.is_empty() {
            let call = |call: &ToolCall| {
                let function = json!({ "name": call.name, "arguments": arguments(call) });
                json!({ "id": call.id, "type": "function", "function": function })
            };
            value["tool_calls"] = message.tool_calls.iter().map(call).collect();
        }
        if let Some(id) = &message.tool_call_id {
            value["tool_call_id"] = id.as_str().into();
        }
        if let Some(name) = &message.name {
            value["name"] = name.as_str().into();
        }
        value
    };
    messages.iter().map(message).collect()
}

pub(super) fn arguments(call: &ToolCall) -> serde_json::Value {
    serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.as_str().into())
}
