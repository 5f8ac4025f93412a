//! Whatever people point the program at: it says what the thing is and what to look for instead.

use std::fs;
use std::path::Path;

use neurino_llm::{LlmError, ModelSource};
use tempfile::TempDir;

use crate::damage::{assert_helps, copy, open_error};
use crate::gguf::Writer;

/// A safetensors file of empty tensors with these names.
fn safetensors(names: &[&str]) -> Vec<u8> {
    let entry =
        |name: &&str| format!(r#""{name}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#);
    let header = format!("{{{}}}", names.iter().map(entry).collect::<Vec<_>>().join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
}

#[track_caller]
fn assert_file(name: &str, bytes: &[u8], words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = open_error(&path);
    assert!(error.to_string().contains(words), "{name}: {error}");
    assert_helps(&error, name);
}

#[test]
fn files() {
    let torch =
        [b"PK\x03\x04\x00\x00\x00\x00\x00\x00archive/data.pkl".as_slice(), &[0; 99]].concat();
    assert_file("pytorch_model.bin", &torch, "PyTorch");
    assert_file("sd.ckpt", &torch, "PyTorch");
    assert_file("old.bin", &[&[0x80, 2, b'}', b'q', 0][..], &[0; 50]].concat(), "pickle");
    assert_file("model.zip", &[&b"PK\x03\x04"[..], &[0; 50], b"model.gguf"].concat(), "an archive");
    assert_file("model.tar.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "an archive");
    assert_file("model.gguf", b"\n <!DOCTYPE html><html><body>Log in", "a web page");
    assert_file(
        "model.gguf",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "Git LFS",
    );
    assert_file("ggml-model-q4_0.bin", b"tjgg\x03\0\0\0\0\x7d\0\0", "older than GGUF");
    assert_file("tokenizer.json", br#"{"version":"1.0"}"#, "JSON");
    assert_file("model.gguf.part", b"GGU", "unfinished");
    assert_file("model.onnx", &[8, 8, 18, 7], "neither a GGUF file nor a folder");
    assert_file("empty.gguf", b"", "incomplete");
}

#[test]
fn safetensors_files() {
    for (names, words) in [
        (&["lora_unet_down_blocks_0.lora_down.weight"][..], "a LoRA"),
        (&["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], "a LoRA"),
        (&["unet.down_blocks.0.attn.processor.to_q_lora.down.weight"], "a LoRA"),
        (
            &["conditioner.embedders.1.model.ln_final.bias", "model.diffusion_model.out.0.bias"],
            "SDXL",
        ),
        (
            &["cond_stage_model.transformer.x", "model.diffusion_model.out.0.bias"],
            "Stable Diffusion",
        ),
        (&["model.diffusion_model.double_blocks.0.x"], "Flux"),
        (&["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (&["down_blocks.0.resnets.0.conv1.weight"], "a part of an image model"),
        (&["decoder.conv_in.weight", "encoder.down.0.block.0.x"], "a VAE"),
        (&["text_model.embeddings.x"], "a text encoder"),
        (&["model.layers.0.mlp.up_proj.weight"], "point to the folder"),
        (&["something.else"], "unknown kind"),
    ] {
        assert_file("weights.safetensors", &safetensors(names), words);
    }
    let mut cut = safetensors(&["model.layers.0.mlp.up_proj.weight"]);
    cut.truncate(40);
    assert_file("half.safetensors", &cut, "incomplete");
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn folders() {
    for (files, words) in [
        (&[("model_index.json", "{}")][..], "image model"),
        (&[("adapter_config.json", "{}"), ("adapter_model.safetensors", "")], "a LoRA"),
        (&[("params.json", "{}"), ("consolidated.00.pth", "")], "its maker's own layout"),
        (&[("pytorch_model.bin", "")], "PyTorch"),
        (&[("model.safetensors", "")], "without config.json"),
        (&[("a.gguf", ""), ("b.gguf", "")], "point to one of them"),
        (&[("model.safetensors.crdownload", "")], "unfinished"),
        (&[("config.json", r#"{"_class_name":"UNet2DConditionModel"}"#)], "image model"),
        (&[("config.json", r#"{"model_type":"gpt_neox"}"#)], "`gpt_neox`"),
        (&[("config.json", r#"{"model_type":"clip_text_model"}"#)], "`clip_text_model`"),
    ] {
        let folder = folder(files);
        let error = open_error(folder.path());
        assert!(error.to_string().contains(words), "{files:?}: {error}");
        assert_helps(&error, &folder.path().display().to_string());
    }
    let error = open_error(folder(&[("config.json", r#"{"model_type":"gpt_neox"}"#)]).path());
    assert!(error.to_string().contains("llama, mistral, mixtral"), "names what works: {error}");
}

/// The Llama 3.1 fixture with another `config.json`.
fn with_config(change: &str) -> TempDir {
    let folder = copy("llama31");
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen('{', &format!("{{{change},"), 1)).unwrap();
    folder
}

#[test]
fn quantised_by_others() {
    for (method, words) in [
        (r#"{"quant_method":"awq","bits":4}"#, "AWQ"),
        (r#"{"quant_method":"exl2","bits":4.25}"#, "EXL2"),
        (r#"{"quant_method":"bitsandbytes","load_in_4bit":true}"#, "bitsandbytes"),
        (r#"{"load_in_4bit":true}"#, "bitsandbytes"),
        (r#"{"quant_method":"fp8"}"#, "FP8"),
        (r#"{"quant_method":"gptq","bits":3,"group_size":128}"#, "3 bits"),
        (r#"{"quant_method":"quantum"}"#, "unknown to this build"),
    ] {
        let folder = with_config(&format!(r#""quantization_config":{method}"#));
        let error = open_error(folder.path());
        assert!(error.to_string().contains(words), "{method}: {error}");
        assert!(error.to_string().contains("GPTQ with 2, 4 or 8 bits"), "what works: {error}");
        assert_helps(&error, "config.json");
    }
    // A plain model may say that it is not quantised.
    assert!(ModelSource::open(with_config(r#""quantization_config":null"#).path()).is_ok());

    for (name, words) in [
        ("model.layers.0.self_attn.q_proj.qweight", "quantize_config.json is missing"),
        ("model.layers.0.self_attn.q_proj.q_weight", "EXL2"),
        ("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.W_q", "HQQ"),
    ] {
        let folder = copy("llama31");
        fs::write(folder.path().join("model.safetensors"), safetensors(&[name])).unwrap();
        let error = open_error(folder.path());
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[test]
fn weights_that_are_not_there_yet() {
    let weights = |folder: &TempDir| folder.path().join("model.safetensors");
    let pickled = copy("llama31");
    fs::rename(weights(&pickled), pickled.path().join("pytorch_model.bin")).unwrap();
    let error = open_error(pickled.path());
    assert!(error.to_string().contains("PyTorch"), "{error}");

    let partial = copy("llama31");
    fs::rename(weights(&partial), partial.path().join("model.safetensors.part")).unwrap();
    let error = open_error(partial.path());
    assert!(error.to_string().contains("unfinished"), "{error}");

    let half = copy("llama31");
    let bytes = fs::read(weights(&half)).unwrap();
    fs::write(weights(&half), &bytes[..bytes.len() / 2]).unwrap();
    let error = open_error(half.path());
    assert!(error.to_string().contains("incomplete"), "{error}");
    assert_helps(&error, "model.safetensors");
}

/// The metadata of a GGUF model, as far as it is read before anything else.
fn gguf(change: impl FnOnce(Writer) -> Writer) -> LlmError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, change(Writer::default()).finish()).unwrap();
    open_error(&path)
}

#[test]
fn gguf_files() {
    let arch = |writer: Writer, name: &str| writer.text("general.architecture", name);
    for (error, words) in [
        (gguf(|w| arch(w, "qwen2")), "`qwen2`"),
        (gguf(|w| arch(w, "clip")), "`clip`"),
        (gguf(|w| arch(w, "llama").text("general.type", "adapter")), "a LoRA"),
        (gguf(|w| arch(w, "llama").uint("split.count", 3)), "split"),
        // 19 is IQ1_S, 10 is Q2_K.
        (gguf(|w| arch(w, "llama").tensor("token_embd.weight", &[256], 19, &[])), "an IQ format"),
        (gguf(|w| arch(w, "llama").tensor("blk.0.attn_q.weight", &[256], 10, &[])), "Q2_K"),
    ] {
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert_helps(&error, "model.gguf");
    }
}

#[test]
fn a_folder_with_one_gguf_file_is_that_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, Writer::default().text("general.architecture", "qwen2").finish()).unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let error = open_error(folder.path());
    assert!(error.to_string().contains("`qwen2`"), "{error}");
    assert!(matches!(ModelSource::open(Path::new("absent")), Err(LlmError::Unreadable { .. })));
}
