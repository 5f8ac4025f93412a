//! Whether a JSON schema is one, before anything is computed for it.
//!
//! What a schema asks for is the engine's business; here only its form is looked at, so that a slip in
//! a tool's schema is an error that names the place instead of an answer that ignores it.

use serde_json::{Map, Value};

use super::Refusal;

/// JSON schema's names of types.
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// What must stand behind a keyword.
#[derive(Debug, Clone, Copy)]
enum Form {
    Schema,
    SchemaOrSchemas,
    Schemas,
    NamedSchemas,
    Count,
    Number,
    Text,
    Types,
    Names,
    Values,
}

/// The keywords whose form is checked; others are the engine's to refuse.
fn form_of(keyword: &str) -> Option<Form> {
    Some(match keyword {
        "additionalProperties"
        | "additionalItems"
        | "contains"
        | "propertyNames"
        | "not"
        | "if"
        | "then"
        | "else"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Form::Schema,
        "items" => Form::SchemaOrSchemas,
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Form::Schemas,
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            Form::NamedSchemas
        }
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
        | "minContains" | "maxContains" => Form::Count,
        "minimum" | "maximum" | "multipleOf" => Form::Number,
        "$ref" | "pattern" | "format" | "title" | "description" => Form::Text,
        "type" => Form::Types,
        "required" => Form::Names,
        "enum" => Form::Values,
        _ => return None,
    })
}

/// Checks the form of the arguments' schema of a function; arguments are an object.
pub(super) fn check_arguments(param: &str, schema: &Map<String, Value>) -> Result<(), Refusal> {
    match schema.get("type") {
        None => {}
        Some(Value::String(kind)) if kind == "object" => {}
        Some(_) => {
            let rule = "must be `object`: a function's arguments have names";
            return Err(Refusal::new(format!("{param}.type"), rule));
        }
    }
    check_fields(param, schema)
}

/// Checks the form of a schema and of every schema in it.
pub(super) fn check(param: &str, schema: &Value) -> Result<(), Refusal> {
    match schema {
        Value::Bool(_) => Ok(()),
        Value::Object(fields) => check_fields(param, fields),
        _ => Err(Refusal::new(param, "must be a JSON schema: an object, `true` or `false`")),
    }
}

fn check_fields(param: &str, fields: &Map<String, Value>) -> Result<(), Refusal> {
    for (keyword, value) in fields {
        if let Some(form) = form_of(keyword) {
            check_form(&format!("{param}.{keyword}"), form, value)?;
        }
    }
    Ok(())
}

fn check_form(param: &str, form: Form, value: &Value) -> Result<(), Refusal> {
    let rule = match (form, value) {
        (Form::Schema | Form::SchemaOrSchemas, Value::Object(_) | Value::Bool(_)) => {
            return check(param, value);
        }
        (Form::Schemas, Value::Array(schemas)) if !schemas.is_empty() => {
            return check_each(param, schemas);
        }
        (Form::SchemaOrSchemas, Value::Array(schemas)) => return check_each(param, schemas),
        (Form::NamedSchemas, Value::Object(schemas)) => {
            return schemas.iter().try_for_each(|(name, s)| check(&format!("{param}.{name}"), s));
        }
        (Form::Types, Value::String(name)) if TYPES.contains(&name.as_str()) => return Ok(()),
        (Form::Types, Value::Array(names)) if are_types(names) => return Ok(()),
        (Form::Names, Value::Array(names)) if names.iter().all(Value::is_string) => return Ok(()),
        (Form::Values, Value::Array(values)) if !values.is_empty() => return Ok(()),
        // 2.0 is a count as well.
        (Form::Count, Value::Number(n)) if n.as_f64().is_some_and(is_count) => return Ok(()),
        (Form::Number, Value::Number(_)) | (Form::Text, Value::String(_)) => return Ok(()),
        (Form::Schema, _) => "must be a JSON schema: an object, `true` or `false`".to_owned(),
        (Form::SchemaOrSchemas, _) => "must be a JSON schema or a list of them".to_owned(),
        (Form::Schemas, _) => "must be a list of JSON schemas, not an empty one".to_owned(),
        (Form::NamedSchemas, _) => "must be an object that maps names to JSON schemas".to_owned(),
        (Form::Types, _) => format!("must be one of {}, or a list of them", TYPES.join(", ")),
        (Form::Names, _) => "must be a list of names".to_owned(),
        (Form::Values, _) => "must be a list of values, not an empty one".to_owned(),
        (Form::Count, _) => "must be a whole number from 0".to_owned(),
        (Form::Number, _) => "must be a number".to_owned(),
        (Form::Text, _) => "must be text".to_owned(),
    };
    Err(Refusal::new(param, rule))
}

fn check_each(param: &str, schemas: &[Value]) -> Result<(), Refusal> {
    let mut numbered = schemas.iter().enumerate();
    numbered.try_for_each(|(at, schema)| check(&format!("{param}[{at}]"), schema))
}

fn are_types(names: &[Value]) -> bool {
    let is_type = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    !names.is_empty() && names.iter().all(is_type)
}

fn is_count(number: f64) -> bool {
    number >= 0.0 && number.fract() == 0.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> Option<String> {
        check("s", schema).err().and_then(|refusal| refusal.param)
    }

    #[test]
    fn schemas_in_use_pass() {
        for schema in [
            json!({}),
            json!(true),
            json!({ "type": "object", "properties": { "city": { "type": "string", "minLength": 1 } },
                "required": ["city"], "additionalProperties": false }),
            json!({ "type": ["string", "null"], "description": "d", "default": null }),
            json!({ "anyOf": [{ "$ref": "#/$defs/a" }, { "const": 5 }],
                "$defs": { "a": { "enum": [1, "x", null] } } }),
            json!({ "type": "array", "items": [{ "type": "integer" }], "maxItems": 2.0 }),
            json!({ "type": "array", "prefixItems": [{}], "items": false }),
            // Names of properties are no keywords.
            json!({ "properties": { "type": { "type": "string" }, "required": true } }),
            // Older and foreign words are left to the engine.
            json!({ "type": "number", "exclusiveMinimum": true, "x-of-mine": [1] }),
        ] {
            assert_eq!(refused(&schema), None, "{schema}");
        }
    }

    #[test]
    fn what_is_no_schema_names_the_place() {
        for (schema, param) in [
            (json!([]), "s"),
            (json!({ "type": "text" }), "s.type"),
            (json!({ "type": [] }), "s.type"),
            (json!({ "properties": [] }), "s.properties"),
            (json!({ "properties": { "a": "string" } }), "s.properties.a"),
            (json!({ "properties": { "a": { "type": "strnig" } } }), "s.properties.a.type"),
            (json!({ "required": "a" }), "s.required"),
            (json!({ "required": [1] }), "s.required"),
            (json!({ "enum": [] }), "s.enum"),
            (json!({ "enum": "a" }), "s.enum"),
            (json!({ "items": 5 }), "s.items"),
            (json!({ "items": { "minLength": -1 } }), "s.items.minLength"),
            (json!({ "anyOf": [] }), "s.anyOf"),
            (json!({ "anyOf": [{}, { "pattern": 5 }] }), "s.anyOf[1].pattern"),
            (json!({ "additionalProperties": "no" }), "s.additionalProperties"),
            (json!({ "maxItems": 1.5 }), "s.maxItems"),
            (json!({ "minimum": "1" }), "s.minimum"),
            (json!({ "$defs": { "a": 1 } }), "s.$defs.a"),
        ] {
            assert_eq!(refused(&schema).as_deref(), Some(param), "{schema}");
        }
    }

    #[test]
    fn arguments_are_an_object() {
        let check = |schema: Value| {
            let fields = schema.as_object().expect("an object").clone();
            check_arguments("p", &fields).err().and_then(|refusal| refusal.param)
        };
        assert_eq!(check(json!({})), None);
        assert_eq!(check(json!({ "type": "object" })), None);
        assert_eq!(check(json!({ "type": "string" })).as_deref(), Some("p.type"));
        assert_eq!(check(json!({ "type": ["object"] })).as_deref(), Some("p.type"));
    }
}
