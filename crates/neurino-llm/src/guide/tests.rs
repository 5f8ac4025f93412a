//! Guides over real vocabularies, with a sampler that knows nothing.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::time::Instant;

use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::tools::ToolStream;

fn tokenizer(name: &str) -> Tokenizer {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text");
    Tokenizer::open_folder(&root.join(name)).unwrap()
}

/// Draws tokens that the guide allows until it is complete; prefers tokens of `liked`.
fn write(guide: &mut Guide, tokenizer: &Tokenizer, seed: u64, liked: &str) -> String {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut stream = tokenizer.stream_with_tools(ToolSyntax::Hermes);
    let mut text = String::new();
    for _ in 0..2000 {
        if guide.is_complete() {
            break;
        }
        let mut logits: Vec<f32> =
            (0..tokenizer.vocab_size() + 5).map(|_| random.random::<f32>()).collect();
        for (token, logit) in (0..).zip(&mut logits) {
            let bytes = tokenizer.token_bytes(token);
            if bytes.len() == 1 && liked.as_bytes().contains(&bytes[0]) {
                *logit += 2.0;
            }
        }
        guide.mask(&mut logits).unwrap();
        let best = (0..).zip(&logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert!(*best.1 > f32::NEG_INFINITY, "nothing is allowed behind {text:?}");
        guide.accept(best.0).unwrap();
        text.push_str(&stream.push(best.0));
        if tokenizer.is_end(best.0) {
            break;
        }
    }
    text + &stream.finish()
}

fn tool(name: &str, parameters: Option<Value>) -> ToolDefinition {
    ToolDefinition { name: name.into(), description: None, parameters }
}

#[test]
fn any_vocabulary_writes_json_of_a_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": { "type": "string", "maxLength": 8 },
            "days": { "type": "integer", "minimum": 1, "maximum": 9 },
            "unit": { "enum": ["celsius", "fahrenheit"] },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" }, "maxItems": 2 },
        },
        "required": ["city", "days", "unit", "tags"],
        "additionalProperties": false,
        "$defs": { "tag": { "type": "boolean" } },
    });
    for name in ["llama3", "mistral"] {
        let tokenizer = tokenizer(name);
        for seed in 0..4 {
            let mut guide = Guide::json_schema(&tokenizer, &schema).unwrap();
            let text = write(&mut guide, &tokenizer, seed, "");
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(value["city"].as_str().unwrap().chars().count() <= 8, "{text}");
            assert!((1..=9).contains(&value["days"].as_i64().unwrap()), "{text}");
            assert!(["celsius", "fahrenheit"].contains(&value["unit"].as_str().unwrap()));
            assert!(value["tags"].as_array().unwrap().iter().all(Value::is_boolean), "{text}");
            assert_eq!(value.as_object().unwrap().len(), 4);
        }
    }
}

#[test]
fn an_object_is_an_object() {
    let tokenizer = tokenizer("llama3");
    let guide = Guide::json_object(&tokenizer).unwrap();
    for seed in 0..4 {
        let text = write(&mut guide.clone(), &tokenizer, seed, "}\"");
        assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
    }
}

#[test]
fn forced_calls_are_found_again() {
    let city = json!({ "type": "object", "properties": { "city": { "enum": ["Berlin", "Köln"] } },
        "required": ["city"] });
    let tools = [tool("get_weather", Some(city)), tool("now", None)];
    let tokenizer = tokenizer("llama3");
    for syntax in [ToolSyntax::Hermes, ToolSyntax::Llama3Json, ToolSyntax::Mistral] {
        for seed in 0..3 {
            for forced in [None, Some("get_weather"), Some("now")] {
                let mut guide = Guide::tool_call(&tokenizer, syntax, &tools, forced).unwrap();
                let text = write(&mut guide, &tokenizer, seed, "");
                let mut stream = ToolStream::new(syntax, &tools, 1);
                assert_eq!(stream.push(&text).text, "", "{text}");
                let found = stream.finish(false);
                assert_eq!(found.text, "", "{text}");
                assert!((1..=8).contains(&found.calls.len()), "{text}");
                for call in &found.calls {
                    assert!(forced.is_none_or(|name| name == call.name), "{text}");
                    let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                    let city = arguments["city"].as_str();
                    let expected = call.name == "get_weather";
                    assert_eq!(city.is_some(), expected, "{text}");
                }
                assert!(forced.is_none() || found.calls.len() == 1, "{text}");
            }
        }
    }
    assert!(matches!(
        Guide::tool_call(&tokenizer, ToolSyntax::Hermes, &tools, Some("other")),
        Err(GuideError::NoTools)
    ));
}

#[test]
fn what_does_not_fit_is_refused() {
    let tokenizer = tokenizer("llama3");
    let mut guide = Guide::json_object(&tokenizer).unwrap();
    assert!(!guide.is_complete());
    let wrong = tokenizer.encode("a", false).unwrap()[0];
    assert!(matches!(guide.accept(wrong), Err(GuideError::Refused(token)) if token == wrong));
}

#[test]
fn a_complete_form_leaves_only_the_end() {
    let tokenizer = tokenizer("llama3");
    let mut guide = Guide::json_schema(&tokenizer, &json!({ "const": "a" })).unwrap();
    for token in tokenizer.encode("\"a\"", false).unwrap() {
        guide.accept(token).unwrap();
    }
    assert!(guide.is_complete());
    let mut logits = vec![0.0; tokenizer.vocab_size()];
    guide.mask(&mut logits).unwrap();
    let left: Vec<u32> =
        (0..).zip(&logits).filter(|(_, l)| l.is_finite()).map(|(t, _)| t).collect();
    assert_eq!(left, tokenizer.ends().collect::<Vec<_>>());
}

#[test]
fn a_schema_that_cannot_be_enforced_is_named() {
    let tokenizer = tokenizer("llama3");
    for (schema, named) in [
        (json!({ "type": "object", "if": {}, "then": {} }), "if"),
        (json!({ "type": "array", "uniqueItems": true }), "uniqueItems"),
        (json!({ "type": "strong" }), "strong"),
        (json!({ "$ref": "#/$defs/none" }), "none"),
        (json!({ "type": "object", "x-guidance": { "whitespace_pattern": "x*" } }), "x-guidance"),
        (json!(false), "schema"),
        (json!({ "type": "string", "pattern": "(?=a)b" }), "look-around"),
    ] {
        let error = Guide::json_schema(&tokenizer, &schema).map(|_| ()).unwrap_err();
        assert!(matches!(error, GuideError::Unsupported(_)), "{schema}: {error}");
        assert!(error.to_string().contains(named), "{schema}: {error}");
    }
}

/// An object whose properties are all optional; `prefix` keeps their names apart from other objects'.
fn optional(prefix: &str, count: usize, value: &Value, additional: bool) -> Value {
    let properties: serde_json::Map<String, Value> =
        (0..count).map(|i| (format!("{prefix}{i}"), value.clone())).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": additional })
}

/// Every optional property may be the next one, which is what makes these schemas wide.
#[test]
fn wide_schemas_are_followed_to_the_end() {
    let string = json!({ "type": "string", "maxLength": 3 });
    let digit = json!({ "type": "integer", "minimum": 0, "maximum": 9 });
    let ten: Vec<Value> =
        (0..10).map(|i| optional(&format!("p{i}x"), 200, &string, false)).collect();
    let eight: Vec<Value> = (0..8).map(|i| optional(&i.to_string(), 500, &digit, false)).collect();
    for name in ["llama3", "mistral"] {
        let tokenizer = tokenizer(name);
        for (what, schema) in [
            ("500 strings", optional("p", 500, &string, false)),
            ("500 strings and others", optional("p", 500, &string, true)),
            ("500 numbers and others", optional("p", 500, &digit, true)),
            ("one of ten", json!({ "anyOf": ten })),
            ("one of eight", json!({ "anyOf": eight })),
            ("a list", json!({ "type": "array", "items": { "anyOf": ten }, "maxItems": 2 })),
        ] {
            let guide = Guide::json_schema(&tokenizer, &schema).unwrap();
            for (seed, liked) in [(0, "\"}]"), (1, "\"")] {
                let mut guide = guide.clone();
                let text = write(&mut guide, &tokenizer, seed, liked);
                assert!(text.len() > 1, "{what}: {text}");
                if guide.is_complete() {
                    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{what}: {text}");
                }
            }
        }
    }
}

#[test]
fn a_schema_beyond_the_limits_is_refused_before_the_answer() {
    let tokenizer = tokenizer("llama3");
    let any = json!({});
    let many: Vec<Value> = (0..16).map(|i| optional(&i.to_string(), 500, &any, false)).collect();
    for (schema, named) in [
        (optional("p", 501, &any, false), "more than 500 properties"),
        (json!({ "anyOf": many }), "more than 50000 symbols"),
    ] {
        let error = Guide::json_schema(&tokenizer, &schema).map(|_| ()).unwrap_err();
        assert!(matches!(error, GuideError::TooComplex(_)), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// Each of these would cost much time or memory without limits.
#[test]
fn hostile_schemas_end_soon() {
    let tokenizer = tokenizer("llama3");
    let nested = (0..200).fold(json!({}), |inner, _| json!({ "items": inner, "type": "array" }));
    let wide: serde_json::Map<String, Value> =
        (0..500).map(|i| (format!("p{i}"), json!({ "type": "string" }))).collect();
    let crossed: Vec<Value> = (0..24)
        .map(|i| json!({ "anyOf": [{ "pattern": format!("a{i}.*") }, { "pattern": format!("b{i}.*") }] }))
        .collect();
    let any: Vec<Value> =
        (0..500).map(|i| json!({ "pattern": format!("^.*{i}.*x{{1,50}}$") })).collect();
    let widest: Vec<Value> =
        (0..10).map(|i| optional(&i.to_string(), 500, &json!({}), false)).collect();
    for schema in [
        json!({ "anyOf": widest }),
        json!({ "type": "string", "minLength": 1_000_000_000 }),
        json!({ "type": "string", "minLength": 9_000, "maxLength": 10_000 }),
        json!({ "type": "array", "items": { "type": "integer" }, "maxItems": 10_000, "minItems": 9_999 }),
        json!({ "type": "string", "pattern": "^((a|b|ab)*c){1,5000}$" }),
        json!({ "type": "string", "pattern": "(((a{1,100}){1,100}){1,100}){1,100}" }),
        json!({ "type": "string", "pattern": ".*a.{200}b.*" }),
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }] }),
        json!({ "anyOf": [{ "$ref": "#" }, { "$ref": "#" }] }),
        json!({ "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/b" }, { "$ref": "#/$defs/b" }] },
            "b": { "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" }),
        nested,
        json!({ "type": "object", "properties": wide, "additionalProperties": false }),
        json!({ "type": "string", "allOf": crossed }),
        json!({ "type": "string", "anyOf": any }),
        json!({ "type": "number", "minimum": 0.000_000_001, "maximum": 1e300, "multipleOf": 0.000_000_7 }),
        json!({ "type": "integer", "minimum": -9e18, "maximum": 9e18 }),
    ] {
        let start = Instant::now();
        let made = Guide::json_schema(&tokenizer, &schema);
        let taken = start.elapsed();
        let short: String = schema.to_string().chars().take(80).collect();
        assert!(taken.as_secs_f32() < 20.0, "{short} took {taken:?} to {made:?}");
        let Ok(mut guide) = made else { continue };
        let start = Instant::now();
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let mut logits: Vec<f32> =
                (0..tokenizer.vocab_size()).map(|_| random.random::<f32>()).collect();
            if guide.is_complete() || guide.mask(&mut logits).is_err() {
                break;
            }
            let best = (0..).zip(&logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            if guide.accept(best.0).is_err() {
                break;
            }
        }
        let taken = start.elapsed();
        assert!(taken.as_secs_f32() < 3.0, "{short}: fifty steps took {taken:?}");
    }
}
