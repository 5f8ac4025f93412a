//! Tools of a chat request, and what its answer must look like.

use neurino_core::{ResponseFormat, ToolChoice, ToolDefinition};
use serde_json::Value;

use super::{Fields, Refusal, optional, schema};

/// The functions the model may call.
pub(super) fn definitions(fields: &Fields) -> Result<Vec<ToolDefinition>, Refusal> {
    let tools: Vec<Fields> = optional(fields, "tools")?.unwrap_or_default();
    let mut known: Vec<ToolDefinition> = Vec::new();
    for (at, tool) in tools.iter().enumerate() {
        let tool = definition(at, tool)?;
        if let Some(first) = known.iter().position(|first| first.name == tool.name) {
            let rule = format!("is the name of `tools[{first}]` already; a call could mean either");
            return Err(Refusal::new(format!("tools[{at}].function.name"), rule));
        }
        known.push(tool);
    }
    Ok(known)
}

fn definition(at: usize, tool: &Fields) -> Result<ToolDefinition, Refusal> {
    let refuse = |field: &str, rule| Err(Refusal::new(format!("tools[{at}].{field}"), rule));
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(_) => {
            let rule = "can only be `function`";
            return Err(Refusal::unsupported(format!("tools[{at}].type"), rule));
        }
        None => return refuse("type", "must be `function`"),
    }
    let Some(Value::Object(function)) = tool.get("function") else {
        return refuse("function", "must be an object with a `name`");
    };
    let Some(name) = function.get("name").and_then(Value::as_str) else {
        return refuse("function.name", "is missing");
    };
    let description = match function.get("description") {
        None | Some(Value::Null) => None,
        Some(Value::String(words)) => Some(words.clone()),
        Some(_) => return refuse("function.description", "must be text"),
    };
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => None,
        Some(Value::Object(schema)) => {
            schema::check_arguments(&format!("tools[{at}].function.parameters"), schema)?;
            Some(Value::Object(schema.clone()))
        }
        Some(_) => {
            return refuse("function.parameters", "must be a JSON schema, which is an object");
        }
    };
    Ok(ToolDefinition { name: name.to_owned(), description, parameters })
}

/// Whether and which of them it has to call.
pub(super) fn choice(fields: &Fields, tools: &[ToolDefinition]) -> Result<ToolChoice, Refusal> {
    let refuse = |rule| Err(Refusal::new("tool_choice", rule));
    match fields.get("tool_choice") {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(mode)) => match mode.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => refuse("must be `none`, `auto`, `required` or a function"),
        },
        Some(named) => {
            if named.get("type").and_then(Value::as_str) != Some("function") {
                return refuse("must be `none`, `auto`, `required` or a function");
            }
            let name = named.get("function").and_then(|f| f.get("name")).and_then(Value::as_str);
            match name {
                Some(name) if tools.iter().any(|tool| tool.name == name) => {
                    Ok(ToolChoice::Function { name: name.to_owned() })
                }
                Some(_) => refuse("names a function that is not in `tools`"),
                None => refuse("must name its function as `{\"function\": {\"name\": …}}`"),
            }
        }
    }
}

/// What the answer has to look like.
pub(super) fn response_format(fields: &Fields) -> Result<ResponseFormat, Refusal> {
    let format: Fields = optional(fields, "response_format")?.unwrap_or_default();
    let param = "response_format.json_schema";
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(ResponseFormat::Text),
        None if format.is_empty() => Ok(ResponseFormat::Text),
        Some("json_object") => Ok(ResponseFormat::JsonObject),
        Some("json_schema") => {
            let Some(Value::Object(named)) = format.get("json_schema") else {
                return Err(Refusal::new(param, "must be an object with `name` and `schema`"));
            };
            if named.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(Refusal::new(format!("{param}.name"), "is missing"));
            }
            match named.get("schema") {
                Some(schema @ Value::Object(_)) => {
                    schema::check(&format!("{param}.schema"), schema)?;
                    Ok(ResponseFormat::JsonSchema { schema: schema.clone() })
                }
                Some(_) => Err(Refusal::new(format!("{param}.schema"), "must be an object")),
                None => Err(Refusal::new(format!("{param}.schema"), "is missing")),
            }
        }
        _ => {
            let rule = "must be `text`, `json_object` or `json_schema`";
            Err(Refusal::new("response_format.type", rule))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Fields {
        value.as_object().expect("an object").clone()
    }

    fn tool(function: &Value) -> Value {
        json!({ "tools": [{ "type": "function", "function": function }] })
    }

    #[test]
    fn tools_in_openais_form_are_understood() {
        let schema = json!({ "type": "object", "properties": {} });
        let function =
            json!({ "name": "f", "description": "d", "strict": true, "parameters": schema });
        let tools = definitions(&fields(&tool(&function))).expect("valid");
        assert_eq!((tools[0].name.as_str(), tools[0].description.as_deref()), ("f", Some("d")));
        assert_eq!(tools[0].parameters, Some(schema));
        let check = |given: Value, expect: ToolChoice| {
            let found = choice(&fields(&json!({ "tool_choice": given })), &tools).expect("valid");
            assert_eq!(found, expect);
        };
        check(Value::Null, ToolChoice::Auto);
        check(json!("none"), ToolChoice::None);
        check(json!("required"), ToolChoice::Required);
        let named = json!({ "type": "function", "function": { "name": "f" } });
        check(named, ToolChoice::Function { name: "f".into() });
    }

    #[test]
    fn broken_tools_name_the_field() {
        let check = |value: Value, param: &str| {
            let refusal = definitions(&fields(&value)).expect_err("refused");
            assert_eq!(refusal.param.as_deref(), Some(param));
        };
        check(json!({ "tools": {} }), "tools");
        check(json!({ "tools": [{ "type": "custom" }] }), "tools[0].type");
        check(json!({ "tools": [{ "type": "function" }] }), "tools[0].function");
        check(tool(&json!({})), "tools[0].function.name");
        check(tool(&json!({ "name": "f", "parameters": "x" })), "tools[0].function.parameters");
        let parameters = json!({ "type": "object", "required": "city" });
        check(
            tool(&json!({ "name": "f", "parameters": parameters })),
            "tools[0].function.parameters.required",
        );
        let named = |name: &str| json!({ "type": "function", "function": { "name": name } });
        let tools = json!({ "tools": [named("f"), named("g"), named("f")] });
        check(tools, "tools[2].function.name");
        for given in [json!("maybe"), json!({ "type": "function", "function": { "name": "g" } })] {
            let given = fields(&json!({ "tool_choice": given }));
            assert_eq!(
                choice(&given, &[]).expect_err("refused").param.as_deref(),
                Some("tool_choice")
            );
        }
    }

    #[test]
    fn formats_are_understood_or_refused_by_name() {
        let read = |value: Value| response_format(&fields(&json!({ "response_format": value })));
        assert_eq!(read(json!({ "type": "json_object" })), Ok(ResponseFormat::JsonObject));
        let schema = json!({ "type": "object" });
        let named = json!({ "name": "n", "strict": true, "schema": schema });
        assert_eq!(
            read(json!({ "type": "json_schema", "json_schema": named })),
            Ok(ResponseFormat::JsonSchema { schema }),
        );
        let check = |value: Value, param: &str| {
            assert_eq!(read(value).expect_err("refused").param.as_deref(), Some(param));
        };
        check(json!({ "type": "xml" }), "response_format.type");
        check(json!({ "type": "json_schema" }), "response_format.json_schema");
        let wrong = json!({ "name": "n", "schema": { "type": "objekt" } });
        check(
            json!({ "type": "json_schema", "json_schema": wrong }),
            "response_format.json_schema.schema.type",
        );
        let nameless = json!({ "type": "json_schema", "json_schema": { "schema": {} } });
        check(nameless, "response_format.json_schema.name");
        let empty = json!({ "type": "json_schema", "json_schema": { "name": "n" } });
        check(empty, "response_format.json_schema.schema");
    }
}
