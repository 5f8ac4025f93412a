//! In which order a network will ask for its tensors, guessed from their names.
//!
//! A wrong guess costs time and nothing else; see [`neurino_weights::prefetch`].

use neurino_weights::StoredTensor;

/// Modules that are not asked for in the order of their names; others come behind [`FIRST`].
const FIRST: [&str; 21] = [
    "shared",
    "embeddings",
    "token_embedding",
    "positional_embedding",
    "time_text_embed",
    "time_embedding",
    "time_embed",
    "add_embedding",
    "label_emb",
    "x_embedder",
    "context_embedder",
    "post_quant_conv",
    "conv_in",
    "input_blocks",
    "down_blocks",
    "mid_block",
    "middle_block",
    "mid",
    "norm",
    "proj_in",
    "transformer_blocks",
];
const LAST: [&str; 13] = [
    "single_transformer_blocks",
    "output_blocks",
    "up_blocks",
    "up",
    "downsamplers",
    "upsamplers",
    "final_layer_norm",
    "ln_final",
    "conv_norm_out",
    "norm_out",
    "conv_out",
    "proj_out",
    "out",
];

/// Sorts a module among its neighbours: numbers as numbers.
type Rank<'a> = (usize, u64, &'a str);

/// Tensors in the order in which they are likely to be asked for.
pub(super) fn sorted(mut tensors: Vec<StoredTensor>) -> Vec<StoredTensor> {
    tensors.sort_by_cached_key(|tensor| {
        let own = |(place, number, word): Rank<'_>| (place, number, word.to_owned());
        ranks(tensor.name()).map(own).collect::<Vec<_>>()
    });
    tensors
}

fn ranks(name: &str) -> impl Iterator<Item = Rank<'_>> {
    name.split('.').map(|word| {
        let at = |known: &[&str]| known.iter().position(|known| *known == word);
        let place = match (at(&FIRST), at(&LAST)) {
            (Some(place), _) => place,
            (None, Some(place)) => FIRST.len() + 1 + place,
            (None, None) => FIRST.len(),
        };
        (place, word.parse().unwrap_or(0), word)
    })
}
