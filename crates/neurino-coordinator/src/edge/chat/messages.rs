//! The conversation of a chat request.

use neurino_core::{ChatMessage, Role, ToolCall};
use serde_json::Value;

use super::{Fields, Refusal, required};

pub(super) fn messages(fields: &Fields) -> Result<Vec<ChatMessage>, Refusal> {
    let list: Vec<Fields> = required(fields, "messages")?;
    list.iter().enumerate().map(|(at, message)| Reader { at, message }.read()).collect()
}

/// One message and where it stands, for errors.
struct Reader<'a> {
    at: usize,
    message: &'a Fields,
}

impl Reader<'_> {
    fn param(&self, field: &str) -> String {
        format!("messages[{}].{field}", self.at)
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.message.get(field).filter(|value| !value.is_null())
    }

    fn refuse<T>(&self, field: &str, rule: &str) -> Result<T, Refusal> {
        Err(Refusal::new(self.param(field), rule))
    }

    fn read(&self) -> Result<ChatMessage, Refusal> {
        let role = match self.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool") => Role::Tool,
            _ => {
                return self.refuse("role", "must be `system`, `user`, `assistant` or `tool`");
            }
        };
        if self.get("function_call").is_some() || self.get("audio").is_some() {
            let field = if self.get("audio").is_some() { "audio" } else { "function_call" };
            return Err(Refusal::unsupported(self.param(field), "is not supported"));
        }
        let mut message = ChatMessage::new(role, "");
        if role == Role::Assistant {
            message.tool_calls = self.calls()?;
        }
        if role == Role::Tool {
            message.tool_call_id = Some(self.text("tool_call_id")?);
            message.name = self.get("name").and_then(Value::as_str).map(str::to_owned);
        }
        message.content = match self.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => self.joined(parts)?,
            None if !message.tool_calls.is_empty() => String::new(),
            _ => return self.refuse("content", "must be text"),
        };
        Ok(message)
    }

    fn text(&self, field: &str) -> Result<String, Refusal> {
        match self.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => self.refuse(field, "must be text"),
        }
    }

    /// The text of a content given in parts.
    fn joined(&self, parts: &[Value]) -> Result<String, Refusal> {
        let mut text = String::new();
        for part in parts {
            match (part.get("type").and_then(Value::as_str), part.get("text")) {
                (Some("text"), Some(Value::String(piece))) => text.push_str(piece),
                (Some("text"), _) => {
                    return self.refuse("content", "has a text part without text");
                }
                _ => {
                    let rule = "can only hold text; images, sound and files cannot be read";
                    return Err(Refusal::unsupported(self.param("content"), rule));
                }
            }
        }
        Ok(text)
    }

    /// The functions that an earlier answer called.
    fn calls(&self) -> Result<Vec<ToolCall>, Refusal> {
        let calls = match self.get("tool_calls") {
            None => return Ok(Vec::new()),
            Some(Value::Array(calls)) => calls,
            Some(_) => return self.refuse("tool_calls", "must be a list"),
        };
        let read = |call: &Value| {
            let function = call.get("function")?;
            let text = |value: Option<&Value>| value?.as_str().map(str::to_owned);
            Some(ToolCall {
                id: text(call.get("id"))?,
                name: text(function.get("name"))?,
                arguments: text(function.get("arguments"))?,
            })
        };
        let rule = "takes calls with `id` and `function` (`name` and `arguments`, all text)";
        calls
            .iter()
            .map(|call| read(call).map_or_else(|| self.refuse("tool_calls", rule), Ok))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: &Value) -> Result<ChatMessage, Refusal> {
        let fields = json!({ "messages": [message] });
        messages(fields.as_object().expect("an object")).map(|mut list| list.remove(0))
    }

    fn check(message: &Value, refused: &str) {
        let param = read(message).expect_err("refused").param;
        assert_eq!(param.as_deref(), Some(refused), "{message}");
    }

    #[test]
    fn a_tool_round_trip_is_understood() {
        let call = json!({ "id": "c1", "type": "function",
            "function": { "name": "f", "arguments": "{\"a\":1}" } });
        let asked = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
        let asked = read(&asked).expect("valid");
        assert_eq!((asked.content.as_str(), asked.tool_calls.len()), ("", 1));
        assert_eq!(asked.tool_calls[0].arguments, "{\"a\":1}");
        let told = json!({ "role": "tool", "tool_call_id": "c1", "name": "f",
            "content": [{ "type": "text", "text": "42" }] });
        let told = read(&told).expect("valid");
        assert_eq!((told.role, told.content.as_str()), (Role::Tool, "42"));
        assert_eq!((told.tool_call_id.as_deref(), told.name.as_deref()), (Some("c1"), Some("f")));
    }

    #[test]
    fn broken_messages_name_the_field() {
        check(&json!({ "role": "tool", "content": "42" }), "messages[0].tool_call_id");
        check(&json!({ "role": "assistant", "content": null }), "messages[0].content");
        check(&json!({ "role": "user", "content": null }), "messages[0].content");
        check(&json!({ "role": "function", "content": "x" }), "messages[0].role");
        let call = json!({ "id": "c1", "function": { "name": "f", "arguments": {} } });
        check(&json!({ "role": "assistant", "tool_calls": [call] }), "messages[0].tool_calls");
        let legacy = json!({ "name": "f", "arguments": "{}" });
        check(
            &json!({ "role": "assistant", "content": "", "function_call": legacy }),
            "messages[0].function_call",
        );
        let audio = json!([{ "type": "input_audio", "input_audio": {} }]);
        check(&json!({ "role": "user", "content": audio }), "messages[0].content");
    }
}
