//! The dimensions of well-known models by name, for measurements without a file.

use neurino_nn::rotary::RopeScaling;

use super::{Activation, ModelConfig};
use crate::source::ModelArch;

/// The names of the shapes.
pub const NAMES: [&str; 7] = [
    "llama3-8b",
    "llama3.1-8b",
    "mistral-7b",
    "mixtral-8x7b",
    "smollm2-135m",
    "tiny-llama",
    "tiny-mixtral",
];

/// The dimensions that go by a name of [`NAMES`].
pub fn named(name: &str) -> Option<ModelConfig> {
    let llama3 = ModelConfig {
        arch: ModelArch::Llama,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        max_position_embeddings: 8192,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: false,
        sliding_window: None,
        num_local_experts: 1,
        num_experts_per_tok: 1,
        attention_bias: false,
        mlp_bias: false,
        hidden_act: Activation::Silu,
    };
    let tiny = ModelConfig {
        hidden_size: 256,
        intermediate_size: 768,
        num_hidden_layers: 4,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: 32,
        vocab_size: 4096,
        max_position_embeddings: 4096,
        rope_theta: 10_000.0,
        ..llama3.clone()
    };
    Some(match name {
        "llama3-8b" => llama3,
        "llama3.1-8b" => ModelConfig {
            max_position_embeddings: 131_072,
            rope_scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 8192.0,
            },
            ..llama3
        },
        "mistral-7b" => ModelConfig {
            arch: ModelArch::Mistral,
            vocab_size: 32_000,
            max_position_embeddings: 32_768,
            rope_theta: 10_000.0,
            sliding_window: Some(4096),
            ..llama3
        },
        "mixtral-8x7b" => ModelConfig {
            arch: ModelArch::Mixtral,
            vocab_size: 32_000,
            max_position_embeddings: 32_768,
            rope_theta: 1e6,
            num_local_experts: 8,
            num_experts_per_tok: 2,
            ..llama3
        },
        "smollm2-135m" => ModelConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            vocab_size: 49_152,
            rope_theta: 100_000.0,
            tie_word_embeddings: true,
            ..llama3
        },
        "tiny-llama" => tiny,
        "tiny-mixtral" => ModelConfig {
            arch: ModelArch::Mixtral,
            intermediate_size: 256,
            num_local_experts: 8,
            num_experts_per_tok: 2,
            ..tiny
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_name_has_a_consistent_shape() {
        for name in NAMES {
            let shape = named(name).expect(name);
            assert!(shape.validated(Path::new(name)).is_ok(), "{name}");
        }
        assert!(named("llama4").is_none());
    }
}
