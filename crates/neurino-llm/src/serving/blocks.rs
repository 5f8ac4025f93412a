//! Blocks of the key-value cache: who holds which, and which still hold the keys of a known text.
//!
//! A full block is known by its tokens and by the text before it. That text is named by a [`Chain`]
//! that is never given twice, so that a lookup compares tokens, not hashes of them. A known block
//! that nobody holds is *idle*: it serves the next text that begins alike, until its room is needed.
//! The one idle for longest goes first. Since a text lets go of its last block first, a block is
//! never given up while one behind it could still be found.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use neurino_nn::paged::BLOCK_TOKENS;

/// Names a text that ends with a full block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Chain(u64);

impl Chain {
    /// The text without a token.
    pub(crate) const EMPTY: Self = Self(0);
}

/// The tokens of a block, behind the text before them.
type Key = (Chain, [u32; BLOCK_TOKENS]);

/// What became of letting go of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Whoever begins alike may use it again.
    Keep,
    /// What is in it is not to be trusted.
    Forget,
}

/// Blocks by use, and what the prefix cache did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockCounters {
    /// Held by sequences.
    pub used: usize,
    /// Held by none, with the keys of a known text.
    pub cached: usize,
    /// Empty.
    pub free: usize,
    /// Blocks that did not have to be computed, since the start.
    pub hits: u64,
    /// Known blocks given up for room, since the start.
    pub evictions: u64,
}

/// All blocks of a cache.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Known blocks.
    known: HashMap<Key, u32>,
    /// Known blocks that nobody holds, by the time they were let go of.
    idle: BTreeMap<u64, u32>,
    /// Counts releases.
    time: u64,
    last_chain: u64,
    hits: u64,
    evictions: u64,
}

#[derive(Debug, Default)]
struct Block {
    holders: u32,
    /// The text it completes, if that can be looked up.
    known_as: Option<(Key, Chain)>,
    idle_since: u64,
}

impl BlockPool {
    pub(crate) fn new(n_blocks: usize) -> Self {
        Self {
            blocks: (0..n_blocks).map(|_| Block::default()).collect(),
            free: (0..n_blocks as u32).rev().collect(),
            known: HashMap::new(),
            idle: BTreeMap::new(),
            time: 0,
            last_chain: 0,
            hits: 0,
            evictions: 0,
        }
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that [`BlockPool::take`] can give.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    pub(crate) fn counters(&self) -> BlockCounters {
        BlockCounters {
            used: self.blocks.len() - self.available(),
            cached: self.idle.len(),
            free: self.free.len(),
            hits: self.hits,
            evictions: self.evictions,
        }
    }

    /// The known blocks that a text begins with, and how many of them are idle.
    pub(crate) fn find(&self, tokens: &[u32]) -> (Vec<u32>, usize) {
        let (mut chain, mut found, mut idle) = (Chain::EMPTY, Vec::new(), 0);
        for piece in tokens.as_chunks().0 {
            let Some(&block) = self.known.get(&(chain, *piece)) else { break };
            let state = &self.blocks[block as usize];
            let Some((_, next)) = state.known_as else { break };
            idle += usize::from(state.holders == 0);
            chain = next;
            found.push(block);
        }
        (found, idle)
    }

    /// Holds the blocks that [`BlockPool::find`] found; returns the text they are.
    pub(crate) fn reuse(&mut self, found: &[u32]) -> Chain {
        for &block in found {
            self.hold(block);
        }
        self.hits += found.len() as u64;
        let last = found.last().and_then(|&block| self.blocks[block as usize].known_as.as_ref());
        last.map_or(Chain::EMPTY, |(_, chain)| *chain)
    }

    /// One more holder of a block.
    pub(crate) fn hold(&mut self, block: u32) {
        let state = &mut self.blocks[block as usize];
        if state.holders == 0 {
            self.idle.remove(&state.idle_since);
        }
        state.holders += 1;
    }

    /// Whether others hold the block too, so that it must not be written.
    pub(crate) fn is_shared(&self, block: u32) -> bool {
        self.blocks[block as usize].holders > 1
    }

    /// A block for the caller alone, with whatever was in it. `None` when all are held.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let block = self.free.pop().or_else(|| {
            let (_, block) = self.idle.pop_first()?;
            self.evictions += 1;
            Some(block)
        })?;
        self.make_unknown(block);
        self.blocks[block as usize].holders = 1;
        Some(block)
    }

    /// One holder less.
    pub(crate) fn release(&mut self, block: u32, release: Release) {
        if release == Release::Forget {
            self.make_unknown(block);
        }
        let state = &mut self.blocks[block as usize];
        debug_assert!(state.holders > 0, "block {block} was let go of twice");
        state.holders -= 1;
        if state.holders > 0 {
            return;
        }
        if state.known_as.is_some() {
            self.time += 1;
            state.idle_since = self.time;
            self.idle.insert(self.time, block);
        } else {
            self.free.push(block);
        }
    }

    /// Makes a full block known, which `tokens` behind `before` filled. If another block holds the
    /// same already, the caller gets that one in exchange.
    pub(crate) fn settle(
        &mut self,
        block: u32,
        before: Chain,
        tokens: [u32; BLOCK_TOKENS],
    ) -> (u32, Chain) {
        let key = (before, tokens);
        match self.known.entry(key) {
            Entry::Occupied(entry) => {
                let same = *entry.get();
                self.hold(same);
                self.release(block, Release::Keep);
                let chain = self.blocks[same as usize].known_as.as_ref().map(|(_, chain)| *chain);
                (same, chain.unwrap_or(Chain::EMPTY))
            }
            Entry::Vacant(entry) => {
                self.last_chain += 1;
                let chain = Chain(self.last_chain);
                entry.insert(block);
                self.blocks[block as usize].known_as = Some((key, chain));
                (block, chain)
            }
        }
    }

    /// Forgets what idle blocks hold.
    pub(crate) fn forget_idle(&mut self) {
        for (_, block) in std::mem::take(&mut self.idle) {
            self.make_unknown(block);
            self.free.push(block);
        }
    }

    fn make_unknown(&mut self, block: u32) {
        if let Some((key, _)) = self.blocks[block as usize].known_as.take() {
            self.known.remove(&key);
        }
    }

    /// Checks that holders, idle, free and known blocks agree. `held` has an entry for each hold.
    #[cfg(test)]
    pub(crate) fn check(&self, held: impl IntoIterator<Item = u32>) {
        let mut holders = vec![0; self.blocks.len()];
        held.into_iter().for_each(|block| holders[block as usize] += 1);
        for (block, state) in (0_u32..).zip(&self.blocks) {
            assert_eq!(state.holders, holders[block as usize], "holders of block {block}");
            let idle = self.idle.get(&state.idle_since) == Some(&block);
            let free = self.free.iter().filter(|&&b| b == block).count();
            let known = state.known_as.as_ref();
            assert_eq!(idle, state.holders == 0 && known.is_some(), "block {block} idle");
            assert_eq!(free, usize::from(state.holders == 0 && known.is_none()), "{block} free");
            if let Some((key, _)) = known {
                assert_eq!(self.known.get(key), Some(&block));
            }
        }
        let known = self.blocks.iter().filter(|b| b.known_as.is_some()).count();
        assert_eq!(self.known.len(), known);
        assert_eq!(self.idle.len() + self.free.len(), self.available());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn text(blocks: &[u32]) -> Vec<u32> {
        blocks.iter().flat_map(|&b| [b; BLOCK_TOKENS]).collect()
    }

    /// Takes blocks for a text and makes them known; returns them.
    fn read(pool: &mut BlockPool, blocks: &[u32]) -> Vec<u32> {
        let mut chain = Chain::EMPTY;
        let settle = |&token: &u32| {
            let block = pool.take().unwrap();
            let (block, next) = pool.settle(block, chain, [token; BLOCK_TOKENS]);
            chain = next;
            block
        };
        blocks.iter().map(settle).collect()
    }

    fn forget_all(pool: &mut BlockPool, held: &[u32]) {
        held.iter().rev().for_each(|&block| pool.release(block, Release::Keep));
    }

    #[test]
    fn a_text_is_found_as_far_as_it_is_the_same() {
        let mut pool = BlockPool::new(8);
        let held = read(&mut pool, &[1, 2, 3]);
        assert_eq!(pool.find(&text(&[1, 2, 9])), (held[..2].to_vec(), 0));
        assert_eq!(pool.find(&text(&[2, 3])), (vec![], 0), "the text before counts");
        assert_eq!(pool.find(&text(&[1])[..15]), (vec![], 0), "whole blocks only");
        forget_all(&mut pool, &held);
        assert_eq!(pool.find(&text(&[1, 2, 3, 4])), (held, 3));
        assert_eq!(pool.counters(), BlockCounters { cached: 3, free: 5, ..Default::default() });
    }

    #[test]
    fn the_end_of_the_text_unused_for_longest_is_given_up_first() {
        let mut pool = BlockPool::new(4);
        let first = read(&mut pool, &[1, 2]);
        let second = read(&mut pool, &[5, 6]);
        forget_all(&mut pool, &first);
        forget_all(&mut pool, &second);
        let (found, _) = pool.find(&text(&[1]));
        pool.reuse(&found);
        forget_all(&mut pool, &found);
        let reach = |pool: &BlockPool, path: &[u32]| pool.find(&text(path)).0.len();
        // Let go of in this order: 2, 6, 5, and 1 for the second time.
        for (first, second) in [(1, 2), (1, 1), (1, 0)] {
            pool.take().unwrap();
            assert_eq!((reach(&pool, &[1, 2]), reach(&pool, &[5, 6])), (first, second));
        }
        assert_eq!(pool.counters().evictions, 3);
        assert_eq!(pool.counters().hits, 1);
    }

    #[test]
    fn the_same_text_computed_twice_is_kept_once() {
        let mut pool = BlockPool::new(4);
        let first = read(&mut pool, &[1, 2]);
        let second = read(&mut pool, &[1, 2]);
        assert_eq!(first, second);
        assert!(pool.is_shared(first[0]));
        assert_eq!(pool.counters().used, 2);
        pool.check(first.iter().chain(&second).copied());
        forget_all(&mut pool, &first);
        assert!(!pool.is_shared(first[0]));
        forget_all(&mut pool, &second);
        assert_eq!(pool.counters().used, 0);
        pool.check([]);
    }

    #[test]
    fn what_is_not_trusted_is_not_found() {
        let mut pool = BlockPool::new(4);
        let held = read(&mut pool, &[1, 2]);
        let other = pool.reuse(&held);
        assert_ne!(other, Chain::EMPTY);
        pool.release(held[1], Release::Forget);
        assert_eq!(pool.find(&text(&[1, 2])).0, held[..1]);
        pool.release(held[1], Release::Keep);
        assert_eq!(
            pool.counters(),
            BlockCounters { used: 1, free: 3, hits: 2, ..Default::default() }
        );
    }

    #[test]
    fn none_is_given_twice() {
        let mut pool = BlockPool::new(3);
        let mut all: Vec<u32> = std::iter::from_fn(|| pool.take()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!(pool.available(), 0);
    }
}
