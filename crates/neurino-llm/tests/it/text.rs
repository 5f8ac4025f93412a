//! Real vocabularies: ids against the reference, and guides over them.
//!
//! `NEURINO_TEST_TOKENIZERS` names a folder with a folder for each entry of
//! `real_tokenizers.json` (clip, llama3, mistral_v1, t5); what is not there is skipped.

use std::path::PathBuf;
use std::time::Instant;

use neurino_core::job::ToolDefinition;
use neurino_llm::{Guide, ModelSource, Tokenizer, ToolStream, ToolSyntax};
use serde_json::{Value, json};

use crate::fixtures;
use crate::starter::starter_model;

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn real_vocabularies_agree_with_the_reference() {
    let Some(root) = std::env::var_os("NEURINO_TEST_TOKENIZERS").map(PathBuf::from) else {
        eprintln!("skipped: NEURINO_TEST_TOKENIZERS does not name a folder of tokenizers");
        return;
    };
    let json = std::fs::read(fixtures().join("text/real_tokenizers.json")).unwrap();
    let all: Value = serde_json::from_slice(&json).unwrap();
    for (name, cases) in all.as_object().unwrap() {
        let folder = root.join(name);
        if !Tokenizer::is_in(&folder) {
            eprintln!("skipped: {name} is not there");
            continue;
        }
        let tokenizer = Tokenizer::open_folder(&folder).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u64> =
                tokenizer.encode(text, true).unwrap().into_iter().map(u64::from).collect();
            assert_eq!(Value::from(ids), case["ids"], "{name}: {text:?}");
        }
    }
}

fn starter_tokenizer() -> Option<Tokenizer> {
    let source = ModelSource::open(&starter_model()?).unwrap();
    Some(Tokenizer::open(&source.tokenizer, &source.eos).unwrap())
}

#[test]
fn the_starter_model_can_be_made_to_call_functions() {
    let Some(tokenizer) = starter_tokenizer() else { return };
    let parameters = json!({
        "type": "object",
        "properties": {
            "city": { "type": "string" },
            "days": { "type": "integer", "minimum": 1, "maximum": 14 },
        },
        "required": ["city", "days"],
    });
    let tools = [ToolDefinition {
        name: "get_weather".into(),
        description: None,
        parameters: Some(parameters),
    }];
    let call = r#"{"name": "get_weather", "arguments": {"city": "Köln", "days": 3}}"#;
    let reply = format!("<tool_call>\n{call}\n</tool_call>");
    let ids = tokenizer.encode(&reply, false).unwrap();
    let start = Instant::now();
    let mut guide =
        Guide::tool_call(&tokenizer, ToolSyntax::Hermes, &tools, Some("get_weather")).unwrap();
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    let start = Instant::now();
    let mut stream = tokenizer.stream_with_tools(ToolSyntax::Hermes);
    let mut calls = ToolStream::new(ToolSyntax::Hermes, &tools, 0);
    for (at, id) in ids.iter().enumerate() {
        assert!(!guide.is_complete(), "complete before token {at}");
        let mut logits = vec![0.0_f32; tokenizer.vocab_size()];
        guide.mask(&mut logits).unwrap();
        assert!(logits[*id as usize].is_finite(), "token {at} of {reply} is not allowed");
        guide.accept(*id).unwrap();
        assert_eq!(calls.push(&stream.push(*id)).text, "");
    }
    let step = start.elapsed() / ids.len() as u32;
    assert!(step.as_millis() < 100, "{step:?} a token");
    assert!(guide.is_complete());
    let found = calls.finish(false).calls;
    assert_eq!((found.len(), found[0].name.as_str()), (1, "get_weather"));
    assert_eq!(found[0].arguments, r#"{"city": "Köln", "days": 3}"#);
}

#[test]
fn a_token_of_the_starter_model_may_end_in_half_a_character() {
    let Some(tokenizer) = starter_tokenizer() else { return };
    let text = "Köln 東京 🙂 “quoted” – naïve\n";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokenizer.decode(&ids), text);
    let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
    assert_eq!(bytes, text.as_bytes());
}
