//! In which order a model will ask for its tensors, guessed from their names.
//!
//! A wrong guess costs time and nothing else; see [`neurino_weights::prefetch`].

use neurino_weights::StoredTensor;

use super::Checkpoint;
use super::names::{EXPERT_PARTS, LAYER_PARTS, ROUTER};

/// What a matrix consists of, in the order in which it is read.
const SUFFIXES: [&str; 5] = [".weight", ".qweight", ".qzeros", ".scales", ".g_idx"];

/// Sorts tensors: section of the model, layer, part of the layer, expert, its matrix, suffix.
type Rank = [usize; 6];

/// The tensors that a model needs, in the order in which it is built. Others are left out.
pub(super) fn reading_order(checkpoint: &Checkpoint) -> Vec<StoredTensor> {
    let mut ranked: Vec<(Rank, StoredTensor)> = Vec::new();
    for tensor in checkpoint.tensors() {
        match (rank(tensor.name()), merged_rank(tensor.name())) {
            (Some(rank), _) => ranked.push((rank, tensor.clone())),
            (None, Some(rank)) => {
                let experts = tensor.shape().first().copied().unwrap_or(0);
                let parts = (0..experts).map_while(|e| Some((e, tensor.part(e)?)));
                ranked.extend(parts.map(|(expert, part)| {
                    let [section, layer, last, _, matrix, suffix] = rank;
                    ([section, layer, last, expert, matrix, suffix], part)
                }));
            }
            (None, None) => {}
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, tensor)| tensor).collect()
}

/// Where a tensor belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    TokenTable,
    Layer(usize),
    Norm,
    Head,
}

/// Where the tensor of a name belongs, in either spelling, the parts of merged experts included.
pub(super) fn part_of(name: &str) -> Option<Part> {
    let whole = name.split('[').next().unwrap_or(name);
    Some(match rank(whole).or_else(|| merged_rank(whole))? {
        [0, ..] => Part::TokenTable,
        [1, layer, ..] => Part::Layer(layer),
        [_, 0, ..] => Part::Norm,
        _ => Part::Head,
    })
}

/// Where a tensor of either spelling stands in a model that has a place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The token table, the last norm or the head.
    Outside,
    /// In a layer: one of its parts by its number in [`LAYER_PARTS`], else a matrix of an expert,
    /// else (no expert either) that matrix of all experts in one.
    Layer { layer: usize, part: Option<usize>, expert: Option<usize> },
}

/// Where a tensor stands; `None` for a name that no model of ours has.
pub(super) fn place_of(name: &str) -> Option<Place> {
    if let Some([1, layer, ..]) = merged_rank(name) {
        return Some(Place::Layer { layer, part: None, expert: None });
    }
    Some(match rank(name)? {
        [1, layer, part, expert, ..] => {
            let part = (part < LAYER_PARTS.len()).then_some(part);
            let expert = part.is_none().then_some(expert);
            Place::Layer { layer, part, expert }
        }
        _ => Place::Outside,
    })
}

/// Whether a name ends as those of matrices do.
pub(super) fn has_known_suffix(name: &str) -> bool {
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a tensor, in either spelling, scores experts.
pub(super) fn is_router(name: &str) -> bool {
    name.ends_with(ROUTER) || name.ends_with("ffn_gate_inp.weight")
}

fn rank(name: &str) -> Option<Rank> {
    match name {
        "model.embed_tokens.weight" | "token_embd.weight" => return Some([0; 6]),
        "model.norm.weight" | "output_norm.weight" => return Some([2, 0, 0, 0, 0, 0]),
        "lm_head.weight" | "output.weight" => return Some([2, 1, 0, 0, 0, 0]),
        _ => {}
    }
    let (layer, rest) = in_layer(name)?;
    let suffix = SUFFIXES.iter().position(|suffix| rest.ends_with(suffix))?;
    let part = rest.strip_suffix(SUFFIXES[suffix])?;
    if let Some(place) = LAYER_PARTS.iter().position(|(a, b)| part == *a || part == *b) {
        return Some([1, layer, place, 0, 0, suffix]);
    }
    let theirs = part.strip_prefix("block_sparse_moe.experts.").and_then(|e| e.split_once('.'));
    let own = || part.split_once('.').map(|(matrix, expert)| (expert, matrix));
    let (expert, matrix) = theirs.or_else(own)?;
    let matrix = EXPERT_PARTS.iter().position(|(a, b)| matrix == *a || matrix == *b)?;
    Some([1, layer, LAYER_PARTS.len(), expert.parse().ok()?, matrix, suffix])
}

/// The rank of the first expert in a merged tensor.
fn merged_rank(name: &str) -> Option<Rank> {
    let (layer, rest) = in_layer(name)?;
    let part = rest.strip_suffix("_exps.weight")?;
    let matrix = EXPERT_PARTS.iter().position(|(_, own)| part == *own)?;
    Some([1, layer, LAYER_PARTS.len(), 0, matrix, 0])
}

/// The layer of a name, and the rest of it.
pub(super) fn in_layer(name: &str) -> Option<(usize, &str)> {
    let rest = name.strip_prefix("model.layers.").or_else(|| name.strip_prefix("blk."))?;
    let (layer, rest) = rest.split_once('.')?;
    Some((layer.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_sort_as_a_model_is_built() {
        let theirs = [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_proj.qweight",
            "model.layers.0.self_attn.q_proj.g_idx",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.9.block_sparse_moe.gate.weight",
            "model.layers.9.block_sparse_moe.experts.1.w3.weight",
            "model.layers.9.block_sparse_moe.experts.2.w1.weight",
            "model.layers.10.self_attn.k_proj.weight",
            "model.norm.weight",
            "lm_head.weight",
        ];
        let own = [
            "token_embd.weight",
            "blk.0.attn_norm.weight",
            "blk.0.attn_q.weight",
            "blk.0.ffn_down.weight",
            "blk.9.ffn_gate_inp.weight",
            "blk.9.ffn_gate.1.weight",
            "blk.9.ffn_up.1.weight",
            "blk.10.attn_k.weight",
            "output_norm.weight",
            "output.weight",
        ];
        for names in [&theirs[..], &own] {
            assert!(names.iter().all(|name| rank(name).is_some()), "{names:?}");
            assert!(names.is_sorted_by_key(|name| rank(name)), "{names:?}");
        }
        assert_eq!(part_of(theirs[0]), Some(Part::TokenTable));
        assert_eq!(part_of("blk.9.ffn_up_exps.weight[3]"), Some(Part::Layer(9)));
        assert_eq!([theirs[9], own[9]].map(part_of), [Some(Part::Norm), Some(Part::Head)]);
        assert_eq!(rank("blk.9.ffn_up_exps.weight"), None);
        assert!(merged_rank("blk.9.ffn_up_exps.weight") < rank("blk.10.attn_k.weight"));
        assert_eq!(rank("model.layers.0.self_attn.rotary_emb.inv_freq"), None);
        assert_eq!(rank("rope_freqs.weight"), None);
    }

    #[test]
    fn every_tensor_of_a_model_is_planned() {
        let models =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm");
        for name in ["llama3", "llama31", "mistral", "mixtral", "mixtral_gptq"] {
            let source = crate::ModelSource::open(&models.join(name)).expect("a fixture");
            let plan = reading_order(&source.checkpoint);
            assert_eq!(plan.len(), source.checkpoint.tensors().count(), "{name}");
            let bytes: usize = plan.iter().map(StoredTensor::size_bytes).sum();
            assert_eq!(bytes as u64, source.checkpoint.weights_bytes(), "{name}");
        }
    }
}
