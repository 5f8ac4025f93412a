//! Damaged and foreign files end in a typed error whose text helps.

use std::fs;
use std::path::{Path, PathBuf};

use neurino_llm::{LanguageModel, LlmError, ModelSource};
use neurino_weights::WeightsError;
use tempfile::TempDir;

use crate::{device, fixtures};

/// A copy of a fixture that may be damaged.
pub(crate) fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join("llm").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[track_caller]
pub(crate) fn open_error(path: &Path) -> LlmError {
    ModelSource::open(path).expect_err("the damage was not noticed")
}

/// Every message ends in a way out and names a file.
#[track_caller]
pub(crate) fn assert_helps(error: &LlmError, file: &str) {
    let text = error.to_string();
    assert!(text.contains(file), "does not name {file}: {text}");
    let ways_out = ["download", "choose", "point to", "check", "unpack"];
    assert!(ways_out.iter().any(|way| text.contains(way)), "no way out: {text}");
}

fn shard(folder: &TempDir, number: u32) -> PathBuf {
    folder.path().join(format!("model-0000{number}-of-00002.safetensors"))
}

#[test]
fn truncated_shard() {
    let folder = copy("llama3");
    edit(&shard(&folder, 2), |bytes| bytes.truncate(bytes.len() - 100));
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::Weights(WeightsError::Truncated { .. })), "{error}");
    assert_helps(&error, "model-00002-of-00002.safetensors");
}

#[test]
fn shard_shorter_than_its_header() {
    let folder = copy("llama3");
    edit(&shard(&folder, 1), |bytes| bytes.truncate(50));
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::Weights(WeightsError::Truncated { .. })), "{error}");
    assert_helps(&error, "model-00001-of-00002.safetensors");
}

#[test]
fn missing_shard() {
    let folder = copy("llama3");
    fs::remove_file(shard(&folder, 2)).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::Weights(WeightsError::MissingShard { .. })), "{error}");
    assert_helps(&error, "model-00002-of-00002.safetensors");
}

#[test]
fn index_that_reaches_outside_its_folder() {
    let folder = copy("llama3");
    let index = folder.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("model-00002", "../model-00002")).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::Weights(WeightsError::CorruptHeader { .. })), "{error}");
}

#[test]
fn flipped_header_byte() {
    // The length, the JSON's first letter, and a letter inside a tensor's name.
    for position in [0, 8, 15] {
        let folder = copy("llama31");
        edit(&folder.path().join("model.safetensors"), |bytes| bytes[position] ^= 0xff);
        let error = open_error(folder.path());
        assert!(matches!(error, LlmError::Weights(WeightsError::CorruptHeader { .. })), "{error}");
        assert_helps(&error, "model.safetensors");
    }
}

#[test]
fn missing_tokenizer() {
    let folder = copy("llama31");
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::TokenizerMissing { .. }), "{error}");
    assert_helps(&error, "tokenizer.json");
}

#[test]
fn missing_weights() {
    let folder = copy("llama31");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::Weights(WeightsError::NoWeights { .. })), "{error}");
    assert_helps(&error, "model.safetensors");
}

#[test]
fn configuration_of_another_model() {
    let folder = copy("llama31");
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"hidden_size\": 64", "\"hidden_size\": 128")).unwrap();
    let source = ModelSource::open(folder.path()).unwrap();
    let error = LanguageModel::load(&source, &device(), &|_, _| ()).unwrap_err();
    let LlmError::Weights(WeightsError::WrongShape { expected, found, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!((expected.as_slice(), found.as_slice()), (&[463, 128][..], &[463, 64][..]));
    assert_helps(&error, "model.safetensors");
}

#[test]
fn tensor_that_is_not_there() {
    let folder = copy("llama31");
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let deeper = text.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    fs::write(&config, deeper).unwrap();
    let source = ModelSource::open(folder.path()).unwrap();
    let error = LanguageModel::load(&source, &device(), &|_, _| ()).unwrap_err();
    assert!(matches!(error, LlmError::Weights(WeightsError::TensorAbsent { .. })), "{error}");
    assert_helps(&error, "model.layers.3.");
}

#[test]
fn no_model_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "neither").unwrap();
    for path in [folder.path(), &text] {
        let error = open_error(path);
        assert!(matches!(error, LlmError::NotAModel { .. }), "{error}");
        assert_helps(&error, "config.json");
    }
    // A file that vanished is not called a wrong one.
    let error = open_error(&folder.path().join("absent"));
    assert!(matches!(error, LlmError::Unreadable { .. }), "{error}");
    assert_helps(&error, "download the model again");
}

#[test]
fn damaged_configuration() {
    let folder = copy("llama31");
    edit(&folder.path().join("config.json"), |bytes| bytes.truncate(40));
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::BadConfig { .. }), "{error}");
    assert_helps(&error, "config.json");
}

#[test]
fn gguf_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, b"GGUF\x03\0\0\0\x01\0").unwrap();
    let error = open_error(&path);
    assert!(matches!(error, LlmError::Weights(WeightsError::Truncated { .. })), "{error}");
    assert_helps(&error, "model.gguf");
}
