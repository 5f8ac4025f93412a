//! Every kind of tokenizer against the reference, and against damaged files.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

const CASES: &str = include_str!("../../../../tests/fixtures/text/tokenize.json");
/// Ids and texts of the two SentencePiece files by the `sentencepiece` library, without other files.
const SENTENCEPIECE: &str = include_str!("../../../../tests/fixtures/text/sentencepiece.json");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text").join(name)
}

fn open(name: &str) -> Tokenizer {
    Tokenizer::open_folder(&fixture(name)).unwrap()
}

/// A folder with these files of a fixture, and these texts.
fn folder(files: &[&str], texts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = fixture(file);
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    for (name, text) in texts {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn json_file(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// The fixture's Llama 3 vocabulary as a GGUF file would hold it.
fn llama3_gguf(pre: &str) -> GgufTokenizer {
    let json = json_file("llama3/tokenizer.json");
    let mut tokens: Vec<(u64, &str, i32)> = Vec::new();
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens.push((id.as_u64().unwrap(), token, 1));
    }
    for added in json["added_tokens"].as_array().unwrap() {
        tokens.push((added["id"].as_u64().unwrap(), added["content"].as_str().unwrap(), 3));
    }
    tokens.sort_unstable();
    assert!((0..).zip(&tokens).all(|(index, token)| index == token.0));
    let merge = |m: &Value| match m.as_array() {
        Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        None => m.as_str().unwrap().to_owned(),
    };
    let id = |text: &str| tokens.iter().find(|t| t.1 == text).map(|t| t.0 as u32);
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens: tokens.iter().map(|t| t.1.to_owned()).collect(),
        token_types: tokens.iter().map(|t| t.2).collect(),
        merges: json["model"]["merges"].as_array().unwrap().iter().map(merge).collect(),
        bos: id("<|begin_of_text|>"),
        eos: id("<|im_end|>"),
        add_bos: true,
        ..GgufTokenizer::default()
    }
}

/// The fixture's Mistral model as a GGUF file would hold it.
fn mistral_gguf() -> GgufTokenizer {
    let bytes = std::fs::read(fixture("mistral/tokenizer.model")).unwrap();
    let model = sentencepiece::SentencePiece::parse(&bytes).unwrap();
    GgufTokenizer {
        model: "llama".into(),
        pre: Some("default".into()),
        tokens: model.pieces.iter().map(|p| p.text.clone()).collect(),
        token_types: model.pieces.iter().map(|p| p.kind as i32 + 1).collect(),
        scores: model.pieces.iter().map(|p| p.score).collect(),
        bos: model.bos,
        eos: model.eos,
        unknown: Some(model.unknown),
        add_bos: true,
        add_space_prefix: model.add_dummy_prefix,
        ..GgufTokenizer::default()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Checks a tokenizer against cases of the reference.
#[track_caller]
fn check(tokenizer: &Tokenizer, cases: &Value, what: &str) {
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 8);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let plain = ids(&case["ids_without_special"]);
        assert_eq!(tokenizer.encode(text, false).unwrap(), plain, "{what}: {text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{what}: {text:?}");
        let Some(decoded) = case["decoded"].as_str() else { continue };
        assert_eq!(tokenizer.decode(&plain), decoded, "{what}: {text:?}");
        let library = tokenizer.shared.inner.decode(&plain, true).unwrap();
        assert_eq!(library, decoded, "{what}: {text:?} by the library");
        let mut stream = tokenizer.stream();
        let pieces: String = plain.iter().map(|id| stream.push(*id)).collect();
        assert!(!pieces.contains('\u{FFFD}'), "{what}: half a character of {text:?}");
        assert_eq!(pieces + &stream.finish(), decoded, "{what}: {text:?} piece by piece");
    }
}

#[test]
fn every_format_agrees_with_the_reference() {
    let all: Value = serde_json::from_str(CASES).unwrap();
    for name in ["llama3", "mistral", "t5", "clip"] {
        check(&open(name), &all[name], name);
    }
    let spiece = folder(&["t5/spiece.model", "t5/tokenizer_config.json"], &[]);
    check(&Tokenizer::open_folder(spiece.path()).unwrap(), &all["t5"], "spiece.model");
    check(&Tokenizer::from_gguf(&llama3_gguf("llama-bpe")).unwrap(), &all["llama3"], "gguf");
}

#[test]
fn sentencepiece_files_agree_with_sentencepiece() {
    let all: Value = serde_json::from_str(SENTENCEPIECE).unwrap();
    let mistral = folder(&["mistral/tokenizer.model"], &[]);
    check(&Tokenizer::open_folder(mistral.path()).unwrap(), &all["mistral"], "tokenizer.model");
    check(&Tokenizer::from_gguf(&mistral_gguf()).unwrap(), &all["mistral"], "gguf");
    let t5 = folder(&["t5/spiece.model"], &[]);
    check(&Tokenizer::open_folder(t5.path()).unwrap(), &all["t5"], "spiece.model alone");
}

#[test]
fn chat_markers_beside_a_sentencepiece_file_are_found() {
    let marks = r#"{ "<|im_end|>": 500, "<|im_start|>": 501 }"#;
    let config = json!({ "eos_token": { "content": "<|im_end|>" } }).to_string();
    let texts = [("added_tokens.json", marks), ("tokenizer_config.json", &config)];
    let tokenizer =
        Tokenizer::open_folder(folder(&["mistral/tokenizer.model"], &texts).path()).unwrap();
    let ids = tokenizer.encode("<|im_start|>user<|im_end|>", true).unwrap();
    assert_eq!((ids[..2].to_vec(), ids.last()), (vec![1, 501], Some(&500)));
    assert!(tokenizer.is_end(500) && !tokenizer.is_end(501) && tokenizer.is_special(501));
    assert_eq!(tokenizer.decode(&ids), "user");
    let decoder = json!({ "added_tokens_decoder": {
        "500": { "content": "<|im_end|>", "special": true },
        "501": { "content": "<seen>", "special": false } } });
    let texts = [("tokenizer_config.json", decoder.to_string())];
    let texts = texts.each_ref().map(|(name, text)| (*name, text.as_str()));
    let tokenizer =
        Tokenizer::open_folder(folder(&["mistral/tokenizer.model"], &texts).path()).unwrap();
    assert_eq!(tokenizer.decode(&[500, 501]), "<seen>");
    let gap = [("added_tokens.json", r#"{ "<|im_end|>": 600 }"#)];
    let error = Tokenizer::open_folder(folder(&["mistral/tokenizer.model"], &gap).path());
    assert!(matches!(error.err().unwrap(), TokenizerError::Damaged(_)));
}

/// Converters of spring 2024 named no way to split words, or "default".
#[test]
fn llama3_in_gguf_files_that_do_not_say_how_words_are_split() {
    let all: Value = serde_json::from_str(CASES).unwrap();
    for pre in [None, Some(""), Some("default")] {
        let vocabulary = GgufTokenizer { pre: pre.map(str::to_owned), ..llama3_gguf("llama-bpe") };
        check(&Tokenizer::from_gguf(&vocabulary).unwrap(), &all["llama3"], "no name");
    }
    let named = |pre| Tokenizer::from_gguf(&llama3_gguf(pre)).unwrap();
    let text = "It's 12345 CamelCase, \u{6771}\u{4eac}!\n\n  x";
    for pre in ["smaug-bpe", "dbrx"] {
        assert_eq!(
            named(pre).encode(text, false).unwrap(),
            named("llama-bpe").encode(text, false).unwrap(),
            "{pre}"
        );
    }
    // Another vocabulary is split as llama.cpp does.
    let mut other = GgufTokenizer { pre: None, ..llama3_gguf("llama-bpe") };
    for token in &mut other.tokens {
        *token = token.replace("begin_of_text", "start");
    }
    let other = Tokenizer::from_gguf(&other).unwrap();
    assert_eq!(other.decode(&other.encode(text, false).unwrap()), text);
    let error = Tokenizer::from_gguf(&llama3_gguf("deepseek-llm")).err().unwrap();
    assert!(error.to_string().contains("deepseek-llm"), "{error}");
}

#[test]
fn a_token_without_a_type_is_an_ordinary_one() {
    let named = llama3_gguf("llama-bpe");
    let mut untyped = named.clone();
    for kind in untyped.token_types.iter_mut().filter(|kind| **kind == 1) {
        *kind = 0;
    }
    let [named, untyped] = [named, untyped].map(|all| Tokenizer::from_gguf(&all).unwrap());
    let text = "a red cat<|im_end|>";
    assert_eq!(untyped.encode(text, false).unwrap(), named.encode(text, false).unwrap());
}

#[test]
fn names_ends_and_sizes() {
    let llama = open("llama3");
    assert_eq!(llama.bos(), Some("<|begin_of_text|>"));
    assert!(llama.is_end(llama.token_id("<|im_end|>").unwrap()));
    assert!(!llama.is_end(llama.token_id("<|im_start|>").unwrap()));
    assert_eq!(llama.vocab_size(), 563);
    let gguf = TokenizerSource::Gguf(llama3_gguf("llama-bpe"));
    let tokenizer = Tokenizer::open(&gguf, &[7]).unwrap();
    assert!(tokenizer.is_end(7) && tokenizer.is_end(tokenizer.token_id("<|im_end|>").unwrap()));
    assert_eq!(tokenizer.eos(), Some("<|im_end|>"));
    let eot = tokenizer.token_id("<|eot_id|>").unwrap();
    assert!(tokenizer.is_end(eot) && !llama.is_end(eot), "a GGUF file names only one");
}

#[test]
fn the_bytes_of_tokens_make_up_the_text() {
    let text = "the na\u{ef}ve caf\u{e9} \u{1F642}\n";
    for name in ["llama3", "mistral"] {
        let tokenizer = open(name);
        let ids = tokenizer.encode(text, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text, "{name}");
        assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    }
}

#[test]
fn pre_tokenizers_of_gguf_files_differ() {
    let count = |pre: &str, text: &str| {
        Tokenizer::from_gguf(&llama3_gguf(pre)).unwrap().encode(text, false).unwrap().len()
    };
    for pre in ["smollm", "qwen2", "tekken", "gpt-2", "llama-bpe"] {
        let tokenizer = Tokenizer::from_gguf(&llama3_gguf(pre)).unwrap();
        let text = "It's 12345 CamelCase, \u{6771}\u{4eac}!\n\n  x";
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids), text, "{pre}");
    }
    assert_eq!(count("smollm", "12345"), 5, "digits one by one");
    assert_eq!(count("qwen2", "12345"), 5, "digits one by one");
    assert!(count("llama-bpe", "12345") < 5, "digits in threes");
    // Composed characters are other bytes.
    assert_eq!(count("qwen2", "e\u{301}"), count("qwen2", "\u{e9}"));
    assert_ne!(count("gpt-2", "e\u{301}"), count("gpt-2", "\u{e9}"));
}

#[test]
fn function_marks_can_be_kept_in_the_text() {
    let mut vocabulary = llama3_gguf("llama-bpe");
    vocabulary.tokens.push("<tool_call>".into());
    vocabulary.token_types.push(3);
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    let ids = tokenizer.encode("a<tool_call>b<|im_end|>", false).unwrap();
    assert_eq!(tokenizer.decode(&ids), "ab");
    let mut stream = tokenizer.stream_with_tools(ToolSyntax::Hermes);
    let text: String = ids.iter().map(|id| stream.push(*id)).collect();
    assert_eq!(text, "a<tool_call>b");
}

#[test]
fn unknown_and_damaged_vocabularies_are_named() {
    let open = |v: GgufTokenizer| Tokenizer::from_gguf(&v).err().unwrap();
    let error = open(llama3_gguf("viking"));
    assert!(
        matches!(&error, TokenizerError::Unsupported { found, .. } if found == "gpt2 (viking)")
    );
    assert!(error.to_string().contains("`gpt2 (viking)`"));
    let other = GgufTokenizer { model: "t5".into(), ..llama3_gguf("smollm") };
    assert!(matches!(open(other), TokenizerError::Unsupported { .. }));
    let damage = |change: fn(&mut GgufTokenizer)| {
        let mut vocabulary = llama3_gguf("smollm");
        change(&mut vocabulary);
        assert!(matches!(open(vocabulary), TokenizerError::Damaged(_)));
    };
    damage(|v| v.model = "llama".into());
    damage(|v| v.token_types.truncate(5));
    damage(|v| v.token_types[5] = 9);
    damage(|v| v.merges.push("alone".into()));
    damage(|v| v.merges.push("no such".into()));
    damage(|v| v.merges.push(format!("{0} {0}", v.tokens.iter().max_by_key(|t| t.len()).unwrap())));
    let missing = Tokenizer::open_folder(Path::new("/nonexistent")).err().unwrap();
    assert!(matches!(missing, TokenizerError::Missing { .. }));
    assert!(missing.to_string().contains("tokenizer.model"));
}

#[test]
fn damaged_files_are_refused() {
    let open = |name: &str, bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        Tokenizer::open_folder(folder.path()).map(|_| ()).unwrap_err()
    };
    assert!(matches!(open("tokenizer.json", b"{}"), TokenizerError::Malformed { .. }));
    assert!(matches!(open("tokenizer.model", b""), TokenizerError::Damaged(_)));
    let spiece = std::fs::read(fixture("t5/spiece.model")).unwrap();
    for size in (0..spiece.len()).step_by(997) {
        // A cut may fall between two pieces; then the pieces that a table needs are gone.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spiece.model"), &spiece[..size]).unwrap();
        let _ = Tokenizer::open_folder(folder.path());
    }
    // A table of replacements that claims four gigabytes, and one that leads outside.
    let model = sentencepiece::SentencePiece::parse(&spiece).unwrap();
    assert!(charsmap::check(&model.charsmap).is_ok());
    assert!(charsmap::check(&[255; 4]).is_err());
    let mut outside = model.charsmap.clone();
    outside[4..8].copy_from_slice(&0x7fff_f000_u32.to_le_bytes());
    assert!(charsmap::check(&outside).is_err());
    let mut json = json_file("t5/tokenizer.json");
    json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = "//////8=".into();
    let error = open("tokenizer.json", json.to_string().as_bytes());
    assert!(matches!(error, TokenizerError::Malformed { .. }));
    let mut json = json_file("llama3/tokenizer.json");
    json["model"]["vocab"]["far"] = 4_000_000_000_u64.into();
    let error = open("tokenizer.json", json.to_string().as_bytes());
    assert!(matches!(error, TokenizerError::Damaged(_)), "{error}");
    json["model"]["vocab"]["far"] = 556.into();
    let merges = json["model"]["merges"].clone();
    let long = "long".repeat(100);
    for (merge, prefix) in [(json!([long, long]), Value::Null), (json!("a b"), "##".into())] {
        json["model"]["merges"] = json!([merge]);
        json["model"]["continuing_subword_prefix"] = prefix;
        let error = open("tokenizer.json", json.to_string().as_bytes());
        let TokenizerError::Malformed { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("makes no token"), "{source}");
    }
    json["model"]["merges"] = merges;
    json["model"]["continuing_subword_prefix"] = Value::Null;
    json["padding"] = json!({ "strategy": { "Fixed": 1_000_000_000 }, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a" });
    let folder = folder(&[], &[("tokenizer.json", &json.to_string())]);
    let tokenizer = Tokenizer::open_folder(folder.path()).unwrap();
    assert!(tokenizer.encode("a", false).unwrap().len() < 3, "nothing is filled up");
}
