//! What a device does for the first time is slow: kernels are compiled, chosen and loaded. It is done
//! here, while the model is being loaded, and never inside a job that somebody pays for.

use neurino_llm::LlmError;
use neurino_llm::model::LanguageModel;
use neurino_llm::serving::ServingLimits;
use neurino_nn::device::is_cpu;
use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, SequenceSpan};

/// Runs steps of the shapes that jobs will need, on a small cache of their own. `go_on` is asked
/// between them; `false` if it said no. On a CPU, where nothing is compiled, one step fetches the
/// weights.
///
/// # Errors
/// Those of [`LanguageModel::step`].
pub(crate) fn warm_up(
    model: &LanguageModel,
    limits: &ServingLimits,
    go_on: &dyn Fn() -> bool,
) -> Result<bool, LlmError> {
    let shapes = if is_cpu(model.device()) { vec![vec![1]] } else { shapes(limits) };
    let rows_max = shapes.iter().flatten().copied().max().unwrap_or(1);
    let blocks_each = rows_max.div_ceil(BLOCK_TOKENS);
    let sequences_max = shapes.iter().map(Vec::len).max().unwrap_or(1);
    let mut cache = model.new_cache(blocks_each + sequences_max);
    for rows in shapes {
        if !go_on() {
            return Ok(false);
        }
        let mut next_block = 0;
        let sequences = rows.iter().map(|&rows| {
            let needed = rows.div_ceil(BLOCK_TOKENS) as u32;
            let blocks = (next_block..next_block + needed).collect();
            next_block += needed;
            SequenceSpan { rows, start: 0, blocks }
        });
        let batch = BatchLayout { sequences: sequences.collect() };
        let tokens = vec![0; batch.rows()];
        let ends = rows.iter().scan(0, |row, rows| {
            *row += rows;
            Some(*row - 1)
        });
        model.step(&tokens, &batch, &ends.collect::<Vec<_>>(), &mut cache)?;
    }
    Ok(true)
}

/// Rows of each sequence of each step: decoding alone and with others, prompts of every length
/// class, both together.
fn shapes(limits: &ServingLimits) -> Vec<Vec<usize>> {
    let doublings = |most: usize| {
        std::iter::successors(Some(1), move |n| Some(n * 2)).take_while(move |n| *n <= most)
    };
    let together = doublings(limits.sequences_max).map(|n| vec![1; n]);
    let prompts = doublings(limits.rows_per_step).skip(1).map(|n| vec![n]);
    let mixed = doublings(limits.rows_per_step / 2).skip(4).map(|n| vec![n, 1, 1]);
    together.chain(prompts).chain(mixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_steps_is_among_the_shapes() {
        let limits = ServingLimits { n_blocks: 100, rows_per_step: 256, sequences_max: 8 };
        let shapes = shapes(&limits);
        for shape in [&[1][..], &[1; 8], &[256], &[2], &[128, 1, 1]] {
            assert!(shapes.iter().any(|s| s == shape), "{shape:?}");
        }
        assert!(shapes.iter().all(|s| s.len() <= 8 && s.iter().sum::<usize>() <= 256));
    }
}
