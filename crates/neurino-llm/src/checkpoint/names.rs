//! llama.cpp's names of Hugging Face's tensors.

/// Where GGUF keeps a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GgufName {
    /// The tensor that is only it.
    pub(super) whole: String,
    /// A tensor of all experts, and which part of it is meant.
    pub(super) merged: Option<(String, usize)>,
}

/// The parts of a layer: Hugging Face's name and llama.cpp's, in the order in which they are loaded.
pub(super) const LAYER_PARTS: [(&str, &str); 10] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The matrices of an expert, in the order in which they are loaded.
pub(super) const EXPERT_PARTS: [(&str, &str); 3] =
    [("w1", "ffn_gate"), ("w2", "ffn_down"), ("w3", "ffn_up")];

/// The router of a mixture of experts: small, and sensitive to rounding.
pub(super) const ROUTER: &str = "block_sparse_moe.gate.weight";

/// llama.cpp's name of a Hugging Face tensor. Names it does not know are passed on unchanged.
pub(super) fn gguf(name: &str) -> GgufName {
    layer_tensor(name).unwrap_or_else(|| {
        let whole = match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            "lm_head.weight" => "output.weight",
            other => other,
        };
        GgufName { whole: whole.to_owned(), merged: None }
    })
}

fn layer_tensor(name: &str) -> Option<GgufName> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let part = part.strip_suffix(".weight")?;
    if let Some(expert) = part.strip_prefix("block_sparse_moe.experts.") {
        let (expert, matrix) = expert.split_once('.')?;
        let (_, own) = EXPERT_PARTS.into_iter().find(|(theirs, _)| *theirs == matrix)?;
        return Some(GgufName {
            whole: format!("blk.{layer}.{own}.{expert}.weight"),
            merged: Some((format!("blk.{layer}.{own}_exps.weight"), expert.parse().ok()?)),
        });
    }
    let (_, own) = LAYER_PARTS.into_iter().find(|(theirs, _)| *theirs == part)?;
    Some(GgufName { whole: format!("blk.{layer}.{own}.weight"), merged: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_gguf() {
        let whole = |name: &str| gguf(name).whole;
        assert_eq!(whole("model.layers.12.self_attn.q_proj.weight"), "blk.12.attn_q.weight");
        assert_eq!(whole("lm_head.weight"), "output.weight");
        assert_eq!(
            whole("model.layers.1.block_sparse_moe.gate.weight"),
            "blk.1.ffn_gate_inp.weight"
        );
        assert_eq!(
            gguf("model.layers.3.block_sparse_moe.experts.7.w2.weight"),
            GgufName {
                whole: "blk.3.ffn_down.7.weight".to_owned(),
                merged: Some(("blk.3.ffn_down_exps.weight".to_owned(), 7)),
            }
        );
        assert_eq!(whole("model.layers.3.other.weight"), "model.layers.3.other.weight");
    }
}
