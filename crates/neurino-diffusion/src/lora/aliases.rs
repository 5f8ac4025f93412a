//! The names under which LoRA files know a network's layers besides diffusers' own.

use super::keys::underscored;
use crate::checkpoint::ldm::names;

/// Which rows of an update's `up` belong to the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// All.
    All,
    /// A third of them: queries, keys or values that are one layer elsewhere.
    Third(usize),
    /// As many as the layer has, behind this many times its input's width: one layer elsewhere that
    /// begins with queries, keys and values.
    Behind(usize),
    /// All, the second half first.
    Swapped,
}

/// All names of the layer called `path`, with underscores.
///
/// - `layers_per_block`: of the network, if it is a UNet
pub(super) fn of(path: &str, layers_per_block: usize) -> Vec<(String, Rows)> {
    let mut all = vec![(underscored(path), Rows::All)];
    let ldm = names::unet(path, layers_per_block).into_iter();
    all.extend(ldm.map(|name| (underscored(&name), Rows::All)));
    all.extend(flux(path).map(|(name, rows)| (underscored(&name), rows)));
    all
}

/// How many layers a file's update called `layer` holds: those of Flux's own names may hold several.
pub(super) fn layers_in(layer: &str) -> usize {
    if layer.ends_with("_attn_qkv") {
        3
    } else if layer.starts_with("single_blocks_") && layer.ends_with("_linear1") {
        4
    } else {
        1
    }
}

/// The name in Black Forest Labs' own code of a layer of Flux's transformer.
///
/// Source: `black-forest-labs/flux@727e3a7` `src/flux/modules/layers.py`, whose attributes these are.
fn flux(path: &str) -> Option<(String, Rows)> {
    const OUTSIDE: [(&str, &str, Rows); 10] = [
        ("x_embedder", "img_in", Rows::All),
        ("context_embedder", "txt_in", Rows::All),
        ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer", Rows::All),
        ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer", Rows::All),
        ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer", Rows::All),
        ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer", Rows::All),
        ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer", Rows::All),
        ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer", Rows::All),
        // Shift and scale change places.
        ("norm_out.linear", "final_layer.adaLN_modulation.1", Rows::Swapped),
        ("proj_out", "final_layer.linear", Rows::All),
    ];
    const DOUBLE: [(&str, &str, Rows); 14] = [
        ("norm1.linear", "img_mod.lin", Rows::All),
        ("norm1_context.linear", "txt_mod.lin", Rows::All),
        ("attn.to_q", "img_attn.qkv", Rows::Third(0)),
        ("attn.to_k", "img_attn.qkv", Rows::Third(1)),
        ("attn.to_v", "img_attn.qkv", Rows::Third(2)),
        ("attn.to_out.0", "img_attn.proj", Rows::All),
        ("attn.add_q_proj", "txt_attn.qkv", Rows::Third(0)),
        ("attn.add_k_proj", "txt_attn.qkv", Rows::Third(1)),
        ("attn.add_v_proj", "txt_attn.qkv", Rows::Third(2)),
        ("attn.to_add_out", "txt_attn.proj", Rows::All),
        ("ff.net.0.proj", "img_mlp.0", Rows::All),
        ("ff.net.2", "img_mlp.2", Rows::All),
        ("ff_context.net.0.proj", "txt_mlp.0", Rows::All),
        ("ff_context.net.2", "txt_mlp.2", Rows::All),
    ];
    const SINGLE: [(&str, &str, Rows); 6] = [
        ("norm.linear", "modulation.lin", Rows::All),
        ("attn.to_q", "linear1", Rows::Behind(0)),
        ("attn.to_k", "linear1", Rows::Behind(1)),
        ("attn.to_v", "linear1", Rows::Behind(2)),
        ("proj_mlp", "linear1", Rows::Behind(3)),
        ("proj_out", "linear2", Rows::All),
    ];
    let named = |names: &[(&'static str, &'static str, Rows)], path: &str| {
        names.iter().find(|(ours, ..)| *ours == path).map(|&(_, theirs, rows)| (theirs, rows))
    };
    let block = |start: &str, theirs: &str, names| {
        let (number, rest) = path.strip_prefix(start)?.split_once('.')?;
        let (name, rows) = named(names, rest)?;
        Some((format!("{theirs}.{number}.{name}"), rows))
    };
    named(&OUTSIDE, path)
        .map(|(name, rows)| (name.to_owned(), rows))
        .or_else(|| block("transformer_blocks.", "double_blocks", &DOUBLE))
        .or_else(|| block("single_transformer_blocks.", "single_blocks", &SINGLE))
}
