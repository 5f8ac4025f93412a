//! A GGUF file of random weights: what llama.cpp needs to be measured on a shape without a file.
//!
//! Source: the GGUF specification (ggml), version 3; names of tensors and keys as in llama.cpp.

use std::io::{self, Write};

use neurino_llm::config::ModelConfig;
use neurino_llm::models::random::WeightFormat;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// Types of values.
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
/// Random bytes that are repeated.
const TILE_BYTES: usize = 1 << 22;

/// How the weights of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Q4_1,
    Q8_0,
}

impl Kind {
    /// The number of the type.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
        }
    }

    /// Weights of a block, and its bytes.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q4_1 => (32, 20),
            Self::Q8_0 => (32, 34),
        }
    }
}

struct TensorInfo {
    name: String,
    /// The innermost first.
    dims: Vec<usize>,
    kind: Kind,
}

impl TensorInfo {
    fn size_bytes(&self) -> usize {
        let (weights, bytes) = self.kind.block();
        self.dims.iter().product::<usize>() / weights * bytes
    }
}

/// Writes a model of these dimensions, its weights in the format that
/// [`neurino_llm::LanguageModel::random`] would keep.
pub(super) fn write_random(
    out: &mut impl Write,
    config: &ModelConfig,
    format: WeightFormat,
) -> io::Result<()> {
    let tensors = tensors(config, format);
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    head.extend_from_slice(&VERSION.to_le_bytes());
    let values = metadata(config);
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&(values.len() as u64).to_le_bytes());
    head.extend(values.concat());
    let mut offset = 0;
    for tensor in &tensors {
        string(&mut head, &tensor.name);
        head.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
        for dim in &tensor.dims {
            head.extend_from_slice(&(*dim as u64).to_le_bytes());
        }
        head.extend_from_slice(&tensor.kind.number().to_le_bytes());
        head.extend_from_slice(&(offset as u64).to_le_bytes());
        offset += tensor.size_bytes().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&head)?;
    for tensor in &tensors {
        write_weights(out, tensor)?;
    }
    out.flush()
}

fn tensors(config: &ModelConfig, format: WeightFormat) -> Vec<TensorInfo> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (matrix, head, table) = match format {
        WeightFormat::F32 => (Kind::F32, Kind::F32, Kind::F32),
        WeightFormat::F16 => (Kind::F16, Kind::F16, Kind::F16),
        WeightFormat::Q8 => (Kind::Q8_0, Kind::Q8_0, Kind::F16),
        WeightFormat::Q4 => (Kind::Q4_1, Kind::Q8_0, Kind::F16),
    };
    let mut all = Vec::new();
    let mut add = |name: String, dims: &[usize], kind| {
        all.push(TensorInfo { name, dims: dims.to_vec(), kind });
    };
    // A tied head is the table itself.
    let table = if config.tie_word_embeddings { head } else { table };
    add("token_embd.weight".into(), &[hidden, config.vocab_size], table);
    add("output_norm.weight".into(), &[hidden], Kind::F32);
    if !config.tie_word_embeddings {
        add("output.weight".into(), &[hidden, config.vocab_size], head);
    }
    let experts = config.num_local_experts;
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        add(name("attn_norm"), &[hidden], Kind::F32);
        add(name("ffn_norm"), &[hidden], Kind::F32);
        add(name("attn_q"), &[hidden, config.q_size()], matrix);
        add(name("attn_k"), &[hidden, config.kv_size()], matrix);
        add(name("attn_v"), &[hidden, config.kv_size()], matrix);
        add(name("attn_output"), &[config.q_size(), hidden], matrix);
        if experts > 1 {
            add(name("ffn_gate_inp"), &[hidden, experts], Kind::F32);
            add(name("ffn_gate_exps"), &[hidden, inner, experts], matrix);
            add(name("ffn_up_exps"), &[hidden, inner, experts], matrix);
            add(name("ffn_down_exps"), &[inner, hidden, experts], matrix);
        } else {
            add(name("ffn_gate"), &[hidden, inner], matrix);
            add(name("ffn_up"), &[hidden, inner], matrix);
            add(name("ffn_down"), &[inner, hidden], matrix);
        }
    }
    all
}

fn metadata(config: &ModelConfig) -> Vec<Vec<u8>> {
    let number = |key: &str, value: usize| {
        let mut bytes = Vec::new();
        string(&mut bytes, key);
        bytes.extend_from_slice(&U32.to_le_bytes());
        bytes.extend_from_slice(&(value as u32).to_le_bytes());
        bytes
    };
    let real = |key: &str, value: f32| {
        let mut bytes = Vec::new();
        string(&mut bytes, key);
        bytes.extend_from_slice(&F32.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes
    };
    let words = |key: &str, value: &str| {
        let mut bytes = Vec::new();
        string(&mut bytes, key);
        bytes.extend_from_slice(&STRING.to_le_bytes());
        string(&mut bytes, value);
        bytes
    };
    let mut all = vec![
        words("general.architecture", "llama"),
        words("general.name", "random"),
        number("llama.block_count", config.num_hidden_layers),
        number("llama.context_length", config.max_position_embeddings),
        number("llama.embedding_length", config.hidden_size),
        number("llama.feed_forward_length", config.intermediate_size),
        number("llama.attention.head_count", config.num_attention_heads),
        number("llama.attention.head_count_kv", config.num_key_value_heads),
        number("llama.rope.dimension_count", config.head_dim),
        number("llama.vocab_size", config.vocab_size),
        real("llama.rope.freq_base", config.rope_theta),
        real("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps as f32),
        // Token ids are all that a measurement needs.
        words("tokenizer.ggml.model", "none"),
    ];
    if config.num_local_experts > 1 {
        all.push(number("llama.expert_count", config.num_local_experts));
        all.push(number("llama.expert_used_count", config.num_experts_per_tok));
    }
    all
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Repeats a tile of random blocks whose weights stay near zero.
fn write_weights(out: &mut impl Write, tensor: &TensorInfo) -> io::Result<()> {
    let size = tensor.size_bytes();
    let is_norm = tensor.dims.len() == 1;
    let tile = if is_norm {
        1.0_f32.to_le_bytes().repeat(tensor.dims[0])
    } else {
        tile(tensor.kind, tensor.dims[0])
    };
    let mut left = size;
    while left > 0 {
        let piece = left.min(tile.len());
        out.write_all(&tile[..piece])?;
        left -= piece;
    }
    let padding = size.next_multiple_of(ALIGNMENT) - size;
    out.write_all(&[0; ALIGNMENT][..padding])
}

fn tile(kind: Kind, features: usize) -> Vec<u8> {
    // Weights of matrices are spread so that activations keep their size.
    let spread = (3.0 / features as f32).sqrt();
    let (_, block_bytes) = kind.block();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(TILE_BYTES);
    while bytes.len() + block_bytes <= TILE_BYTES {
        let weight = |random: u64| ((random >> 40) as f32 / (1 << 23) as f32 - 1.0) * spread;
        match kind {
            Kind::F32 => bytes.extend_from_slice(&weight(random()).to_le_bytes()),
            Kind::F16 => bytes.extend_from_slice(&half(weight(random())).to_le_bytes()),
            Kind::Q4_1 => {
                // scale * 0..15 + minimum
                bytes.extend_from_slice(&half(spread / 7.5).to_le_bytes());
                bytes.extend_from_slice(&half(-spread).to_le_bytes());
                (0..2).for_each(|_| bytes.extend_from_slice(&random().to_le_bytes()));
            }
            Kind::Q8_0 => {
                bytes.extend_from_slice(&half(spread / 127.0).to_le_bytes());
                (0..4).for_each(|_| bytes.extend_from_slice(&random().to_le_bytes()));
            }
        }
    }
    bytes
}

/// The 16 bits of a half-precision number.
fn half(value: f32) -> u16 {
    burn::tensor::f16::from_f32(value).to_bits()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_llm::config::shapes;
    use neurino_weights::Gguf;

    use super::*;

    #[test]
    fn the_file_is_read_back_with_every_tensor() {
        for (name, format) in
            [("tiny-llama", WeightFormat::Q4), ("tiny-mixtral", WeightFormat::F16)]
        {
            let config = shapes::named(name).unwrap();
            let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
            write_random(&mut file, &config, format).unwrap();
            let gguf = Gguf::open(file.path()).unwrap();
            let expected = tensors(&config, format);
            assert_eq!(gguf.tensors().count(), expected.len());
            for tensor in &expected {
                let stored = gguf.stored(&tensor.name).unwrap();
                let dims: Vec<_> = tensor.dims.iter().rev().copied().collect();
                assert_eq!((stored.shape(), stored.size_bytes()), (&*dims, tensor.size_bytes()));
            }
        }
    }
}
