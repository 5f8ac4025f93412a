//! Writes GGUF files, and fixtures as GGUF.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A GGUF file under construction.
#[derive(Default)]
pub(crate) struct Writer {
    values: Vec<u8>,
    n_values: u64,
    tensors: Vec<u8>,
    n_tensors: u64,
    data: Vec<u8>,
    /// Name, dimensions, type and bytes of the tensors.
    entries: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.values.extend([&text(key), &kind.to_le_bytes()[..], bytes].concat());
        self.n_values += 1;
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.value(key, 8, &text(value))
    }

    /// As a file of `count` parts would be split: each tensor into the next part.
    pub(crate) fn finish_parts(self, count: u16) -> Vec<Vec<u8>> {
        let split = |part: Self, number: u16| {
            let part = part.value("split.no", 2, &number.to_le_bytes());
            part.value("split.count", 2, &count.to_le_bytes())
        };
        let mut parts: Vec<Self> = (0..count).map(|_| Self::default()).collect();
        for (index, (name, dims, kind, bytes)) in self.entries.iter().enumerate() {
            let part = &mut parts[index % usize::from(count)];
            *part = std::mem::take(part).tensor(name, dims, *kind, bytes);
        }
        parts[0].values = self.values;
        parts[0].n_values = self.n_values;
        parts.into_iter().zip(0..).map(|(part, number)| split(part, number).finish()).collect()
    }

    pub(crate) fn uint(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn float(self, key: &str, value: f32) -> Self {
        self.value(key, 6, &value.to_le_bytes())
    }

    /// A list of values that have the type `kind`.
    pub(crate) fn list(self, key: &str, kind: u32, values: &[Vec<u8>]) -> Self {
        let head = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        self.value(key, 9, &[head, values.concat()].concat())
    }

    /// A tensor, innermost dimension first.
    pub(crate) fn tensor(mut self, name: &str, dims: &[usize], kind: u32, bytes: &[u8]) -> Self {
        self.entries.push((name.to_owned(), dims.to_vec(), kind, bytes.to_vec()));
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.tensors.extend(text(name));
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|&dim| (dim as u64).to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.n_tensors += 1;
        self.data.extend(bytes);
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(self.n_tensors.to_le_bytes());
        bytes.extend(self.n_values.to_le_bytes());
        bytes.extend(self.values);
        bytes.extend(self.tensors);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(self.data);
        bytes
    }
}

/// The Mixtral fixture as llama.cpp's converter would write it, its experts in merged tensors or
/// one by one.
pub(crate) fn mixtral(folder: &Path, merged: bool) -> Vec<u8> {
    mixtral_with(folder, merged, |writer| writer)
}

/// The same, changed before it is finished.
pub(crate) fn mixtral_with(
    folder: &Path,
    merged: bool,
    change: impl FnOnce(Writer) -> Writer,
) -> Vec<u8> {
    change(mixtral_writer(folder, merged)).finish()
}

/// The same in parts.
pub(crate) fn mixtral_parts(folder: &Path, count: u16) -> Vec<Vec<u8>> {
    mixtral_writer(folder, true).finish_parts(count)
}

fn mixtral_writer(folder: &Path, merged: bool) -> Writer {
    let config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let uint = |key: &str| u32::try_from(config[key].as_u64().unwrap()).unwrap();
    let (heads, kv_heads) = (uint("num_attention_heads"), uint("num_key_value_heads"));
    let (vocab, experts) = (uint("vocab_size"), uint("num_local_experts"));
    let head_dim = (uint("hidden_size") / heads) as usize;
    let float = |key: &str| config[key].as_f64().unwrap() as f32;
    let tokens: Vec<Vec<u8>> = (0..vocab).map(|id| text(&format!("<{id}>"))).collect();
    let scores: Vec<Vec<u8>> = (0..vocab).map(|_| 0f32.to_le_bytes().to_vec()).collect();
    let mut writer = Writer::default()
        .text("general.architecture", "llama")
        .uint("llama.block_count", uint("num_hidden_layers"))
        .uint("llama.context_length", 8192)
        .uint("llama.embedding_length", uint("hidden_size"))
        .uint("llama.feed_forward_length", uint("intermediate_size"))
        .uint("llama.attention.head_count", heads)
        .uint("llama.attention.head_count_kv", kv_heads)
        .uint("llama.rope.dimension_count", head_dim as u32)
        .uint("llama.expert_count", experts)
        .uint("llama.expert_used_count", uint("num_experts_per_tok"))
        .float("llama.attention.layer_norm_rms_epsilon", float("rms_norm_eps"))
        .float("llama.rope.freq_base", float("rope_theta"))
        .text("tokenizer.ggml.model", "llama")
        .list("tokenizer.ggml.tokens", 8, &tokens)
        .list("tokenizer.ggml.scores", 6, &scores)
        .uint("tokenizer.ggml.bos_token_id", 1)
        .uint("tokenizer.ggml.eos_token_id", 2);

    let tensors = all_tensors(folder);
    for (name, (kind, shape, bytes)) in &tensors {
        let Some(own) = gguf_name(name) else { continue };
        let dims: Vec<usize> = shape.iter().rev().copied().collect();
        let rotated = own.contains("attn_q.") || own.contains("attn_k.");
        let moved = if rotated { interleaved(bytes, shape, head_dim) } else { bytes.clone() };
        if merged && own.contains(".0.weight") {
            let one = |e: u32| {
                let name = name.replace("experts.0.", &format!("experts.{e}."));
                tensors[&name].2.clone()
            };
            let all: Vec<u8> = (0..experts).flat_map(one).collect();
            let dims = [&dims[..], &[experts as usize]].concat();
            writer = writer.tensor(&own.replace(".0.weight", "_exps.weight"), &dims, *kind, &all);
        } else if !(merged && name.contains(".experts.")) {
            writer = writer.tensor(&own, &dims, *kind, &moved);
        }
    }
    writer
}

/// Name to ggml's type, shape and 16-bit numbers, over all shards.
fn all_tensors(folder: &Path) -> BTreeMap<String, (u32, Vec<usize>, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.starts_with("model") && name.ends_with(".safetensors")) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            let kind = match view.dtype() {
                Dtype::F16 => 1,
                Dtype::BF16 => 30,
                other => panic!("{name} is {other:?}"),
            };
            all.insert(name.to_owned(), (kind, view.shape().to_vec(), view.data().to_vec()));
        }
    }
    all
}

/// Written out here, so that the names of the loader are checked against something.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let own = match part.split('.').collect::<Vec<_>>()[..] {
        ["self_attn", "q_proj", _] => "attn_q".to_owned(),
        ["self_attn", "k_proj", _] => "attn_k".to_owned(),
        ["self_attn", "v_proj", _] => "attn_v".to_owned(),
        ["self_attn", "o_proj", _] => "attn_output".to_owned(),
        ["input_layernorm", _] => "attn_norm".to_owned(),
        ["post_attention_layernorm", _] => "ffn_norm".to_owned(),
        ["block_sparse_moe", "gate", _] => "ffn_gate_inp".to_owned(),
        ["block_sparse_moe", "experts", e, "w1", _] => format!("ffn_gate.{e}"),
        ["block_sparse_moe", "experts", e, "w2", _] => format!("ffn_down.{e}"),
        ["block_sparse_moe", "experts", e, "w3", _] => format!("ffn_up.{e}"),
        _ => return None,
    };
    Some(format!("blk.{layer}.{own}.weight"))
}

/// Rows (i, i + d/2) of each head become neighbours, as llama.cpp's converter does.
fn interleaved(bytes: &[u8], shape: &[usize], head_dim: usize) -> Vec<u8> {
    let row_bytes = shape[1] * 2;
    let row = |head: usize, i: usize| &bytes[(head * head_dim + i) * row_bytes..][..row_bytes];
    let pairs = (0..shape[0] / head_dim).flat_map(|h| (0..head_dim / 2).map(move |i| (h, i)));
    pairs.flat_map(|(h, i)| [row(h, i), row(h, i + head_dim / 2)].concat()).collect()
}
