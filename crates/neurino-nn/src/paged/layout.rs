//! Which rows of a step belong to which sequence, and where their keys and values lie.

use crate::NnError;

/// Tokens of a block. A power of two that divides every prefill piece a scheduler makes.
pub const BLOCK_TOKENS: usize = 16;
/// Blocks of the shortest line of a block table.
const TABLE_BLOCKS_MIN: usize = 16;

/// The part of one sequence that a step computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSpan {
    /// New tokens, at least one.
    pub rows: usize,
    /// Tokens before them: the position of the first new one.
    pub start: usize,
    /// The sequence's blocks in order; at least as many as `start + rows` tokens need.
    pub blocks: Vec<u32>,
}

impl SequenceSpan {
    /// Tokens of the sequence after the step.
    pub fn len(&self) -> usize {
        self.start + self.rows
    }

    /// Whether there is no token at all; never so in a checked layout.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the key and value of a position lie, counted in tokens from the pool's start.
    pub fn slot(&self, position: usize) -> usize {
        self.blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + position % BLOCK_TOKENS
    }
}

/// The rows of a step: those of the first sequence, then those of the second, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchLayout {
    /// The sequences.
    pub sequences: Vec<SequenceSpan>,
}

impl BatchLayout {
    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.rows).sum()
    }

    /// The position of each row in its text.
    pub fn positions(&self) -> Vec<usize> {
        self.sequences.iter().flat_map(|s| s.start..s.len()).collect()
    }

    /// The slot of each row.
    pub fn slots(&self) -> Vec<usize> {
        let of = |s: &SequenceSpan| (s.start..s.len()).map(|at| s.slot(at)).collect::<Vec<_>>();
        self.sequences.iter().flat_map(of).collect()
    }

    /// Blocks in a line of the step's block tables: a power of two that holds the longest sequence.
    /// Kernels of cards are compiled for it, so few lengths occur.
    pub fn table_blocks(&self) -> usize {
        let longest = self.sequences.iter().map(|s| s.blocks.len()).max().unwrap_or(0);
        longest.max(TABLE_BLOCKS_MIN).next_power_of_two()
    }

    /// Checks that every sequence has rows and enough blocks, and that each block exists.
    ///
    /// # Errors
    /// `BadBatch`.
    pub fn check(&self, n_blocks: usize) -> Result<(), NnError> {
        let bad = |reason| Err(NnError::BadBatch { reason });
        if self.sequences.iter().any(|s| s.rows == 0) {
            return bad("a sequence without new tokens");
        }
        if self.sequences.iter().any(|s| s.blocks.len() < s.len().div_ceil(BLOCK_TOKENS)) {
            return bad("a sequence has fewer blocks than its tokens need");
        }
        if self.sequences.iter().flat_map(|s| &s.blocks).any(|&block| block as usize >= n_blocks) {
            return bad("a sequence names a block that is not in the cache");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_positions_and_slots() {
        let batch = BatchLayout {
            sequences: vec![
                SequenceSpan { rows: 3, start: 15, blocks: vec![4, 2] },
                SequenceSpan { rows: 1, start: 0, blocks: vec![7] },
            ],
        };
        assert_eq!(batch.rows(), 4);
        assert_eq!(batch.positions(), [15, 16, 17, 0]);
        assert_eq!(batch.slots(), [79, 32, 33, 112]);
        assert_eq!(batch.table_blocks(), 16);
        assert!(batch.check(8).is_ok());
        assert!(batch.check(7).is_err(), "block 7 is the eighth");
    }

    #[test]
    fn a_layout_that_does_not_fit_is_refused() {
        let check = |rows, start, blocks: Vec<u32>| {
            BatchLayout { sequences: vec![SequenceSpan { rows, start, blocks }] }.check(2)
        };
        assert!(check(16, 0, vec![1]).is_ok());
        assert!(check(17, 0, vec![1]).is_err());
        assert!(check(0, 3, vec![1]).is_err());
    }
}
