//! Damaged and foreign files end in a typed error whose text helps.

use std::fs;
use std::path::{Path, PathBuf};

use neurino_llm::checkpoint::Precision;
use neurino_llm::{LanguageModel, LlmError, ModelSource};
use neurino_nn::quant::Holder;
use neurino_nn::rotary::RopeScaling;
use neurino_weights::WeightsError;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use crate::{device, fixtures, gguf, load};

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
    let error = open_error(folder.path());
    assert!(matches!(error, LlmError::Weights(WeightsError::TensorAbsent { .. })), "{error}");
    assert_helps(&error, "model.layers.3.");
}

/// Memory is planned for what is there, not for what a few bytes say.
#[test]
fn more_layers_than_any_file_holds() {
    let folder = copy("llama31");
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let deep = text.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 67108864");
    fs::write(&config, deep).unwrap();
    assert_helps(&open_error(folder.path()), "model.layers.3.");
}

/// The mixture's GGUF file, changed before it is finished.
fn gguf_with(merged: bool, change: impl FnOnce(gguf::Writer) -> gguf::Writer) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = gguf::mixtral_with(&fixtures().join("llm/mixtral"), merged, change);
    fs::write(folder.path().join("model.gguf"), bytes).unwrap();
    folder
}

#[test]
fn experts_of_which_there_is_another_number() {
    // Four million of nothing in a few bytes; and two in which there is something.
    for (dims, bytes) in [(&[0, 0, 1 << 22][..], 0), (&[8, 4, 2], 128), (&[8, 8], 128)] {
        let folder = gguf_with(false, |writer| {
            writer.tensor("blk.0.ffn_gate_exps.weight", dims, 1, &vec![0; bytes])
        });
        let error = open_error(&folder.path().join("model.gguf"));
        assert!(matches!(error, LlmError::Weights(WeightsError::BadTensor { .. })), "{error}");
        assert_helps(&error, "blk.0.ffn_gate_exps.weight");
    }
}

#[test]
fn what_would_be_left_out_of_the_computation_is_named() {
    let one = || 1f32.to_le_bytes().repeat(8);
    for name in [
        "blk.0.attn_q.bias",
        "blk.1.attn_q_norm.weight",
        "blk.2.attn_norm.weight",
        "blk.0.ffn_gate.weight",
        "blk.0.ffn_gate.8.weight",
        "output.bias",
        "rope_factors_long.weight",
    ] {
        let folder = gguf_with(true, |writer| writer.tensor(name, &[8], 0, &one()));
        let error = open_error(&folder.path().join("model.gguf"));
        assert!(matches!(error, LlmError::UnsupportedFeature { .. }), "{error}");
        assert_helps(&error, name);
    }
    // What adds nothing, or is computed here.
    let folder = gguf_with(true, |writer| {
        let writer = writer.tensor("blk.0.attn_q.bias", &[8], 0, &[0; 32]);
        writer.tensor("blk.0.attn_rot_embd.weight", &[8], 0, &one())
    });
    ModelSource::open(&folder.path().join("model.gguf")).unwrap();
}

#[test]
fn biases_in_safetensors_that_the_configuration_does_not_speak_of() {
    let with = |name: &str, value: f32| {
        let folder = copy("llama31");
        edit(&folder.path().join("model.safetensors"), |bytes| {
            let values = value.to_le_bytes().repeat(64);
            let all = SafeTensors::deserialize(bytes).unwrap();
            let mut tensors = all.tensors();
            let view = TensorView::new(Dtype::F32, vec![64], &values).unwrap();
            tensors.push((name.to_owned(), view));
            let changed = safetensors::serialize(tensors, None).unwrap();
            *bytes = changed;
        });
        folder
    };
    let bias = "model.layers.1.self_attn.k_proj.bias";
    let error = open_error(with(bias, 0.5).path());
    assert!(matches!(error, LlmError::UnsupportedFeature { .. }), "{error}");
    assert_helps(&error, bias);
    for (name, value) in [(bias, 0.0), ("model.layers.0.self_attn.rotary_emb.inv_freq", 0.5)] {
        ModelSource::open(with(name, value).path()).unwrap();
    }
}

/// Zeros change nothing, so that the model computes what it does without them; their memory is counted.
#[test]
fn biases_of_which_the_configuration_speaks_are_loaded() {
    let tokens = [1, 2, 3, 4];
    let plain = load(&fixtures().join("llm/llama31")).trace(&tokens).unwrap();
    let folder = copy("llama31");
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (features, inner, layers) =
        (size("hidden_size"), size("intermediate_size"), size("num_hidden_layers"));
    let head = features / size("num_attention_heads");
    let (q_size, kv_size) = (features, head * size("num_key_value_heads"));
    let parts = [
        ("self_attn.q_proj", q_size),
        ("self_attn.k_proj", kv_size),
        ("self_attn.v_proj", kv_size),
        ("self_attn.o_proj", features),
        ("mlp.gate_proj", inner),
        ("mlp.up_proj", inner),
        ("mlp.down_proj", features),
    ];
    config["attention_bias"] = true.into();
    config["mlp_bias"] = true.into();
    fs::write(&path, config.to_string()).unwrap();
    let source = ModelSource::open(folder.path()).unwrap();
    let error = LanguageModel::load(&source, &device(), &|_, _| ()).unwrap_err();
    assert!(matches!(error, LlmError::Weights(WeightsError::TensorAbsent { .. })), "{error}");

    let add = |value: f32| {
        edit(&folder.path().join("model.safetensors"), |bytes| {
            let values = value.to_le_bytes().repeat(features.max(inner));
            let all = SafeTensors::deserialize(bytes).unwrap();
            let mut tensors = all.tensors();
            tensors.retain(|(name, _)| !name.contains(".bias"));
            for (layer, (part, size)) in (0..layers).flat_map(|at| parts.map(|part| (at, part))) {
                let view = TensorView::new(Dtype::F32, vec![size], &values[..4 * size]).unwrap();
                tensors.push((format!("model.layers.{layer}.{part}.bias"), view));
            }
            let changed = safetensors::serialize(tensors, None).unwrap();
            *bytes = changed;
        });
    };
    add(0.0);
    let model = load(folder.path());
    assert_eq!(model.trace(&tokens).unwrap().logits, plain.logits);
    let source = ModelSource::open(folder.path()).unwrap();
    let planned = source.memory(Precision::Full, Holder::Cpu).weights_bytes();
    assert_eq!(planned, model.weights_bytes());
    add(0.5);
    assert_ne!(load(folder.path()).trace(&tokens).unwrap().logits, plain.logits);
}

#[test]
fn every_spelling_of_rope_scaling_in_gguf() {
    let scaling = |change: &dyn Fn(gguf::Writer) -> gguf::Writer| {
        let folder = gguf_with(true, change);
        ModelSource::open(&folder.path().join("model.gguf"))
            .map(|source| source.config.rope_scaling)
    };
    let linear = RopeScaling::Linear { factor: 4.0 };
    let (old, new) = ("llama.rope.scale_linear", "llama.rope.scaling.factor");
    let kind = "llama.rope.scaling.type";
    assert_eq!(scaling(&|writer| writer.float(old, 4.0)).unwrap(), linear);
    assert_eq!(scaling(&|writer| writer.float(new, 4.0)).unwrap(), linear);
    assert_eq!(scaling(&|writer| writer.float(new, 4.0).text(kind, "linear")).unwrap(), linear);
    let none = scaling(&|writer| writer.float(new, 4.0).text(kind, "none")).unwrap();
    assert_eq!(none, RopeScaling::None);
    assert_eq!(scaling(&|writer| writer.float(old, 0.0)).unwrap(), RopeScaling::None);
    let yarn = scaling(&|writer| {
        let original = "llama.rope.scaling.original_context_length";
        writer.float(new, 4.0).text(kind, "yarn").uint(original, 2048)
    });
    let yarn = yarn.unwrap();
    assert!(matches!(yarn, RopeScaling::Yarn { context: 2048.0, .. }), "{yarn:?}");
    let error = scaling(&|writer| writer.float(new, 4.0).text(kind, "longrope")).unwrap_err();
    assert!(matches!(error, LlmError::UnsupportedFeature { .. }), "{error}");
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
