//! Decides what each step computes: pure logic over token counts and blocks, without tensors, text
//! or clock.
//!
//! A sequence is a prompt and the tokens drawn for it so far. What is not yet in the cache is
//! *pending*: a sequence with one pending token decodes, one with more reads its prompt, or reads
//! again what it had to give up. A claimed answer is read like a prompt, with the scores of its tokens.
//! So a step is one row for each decoding sequence, then pieces of prompts up to the limit of rows:
//! - **Admission.** In order of arrival, while there are places and blocks for all that is pending
//!   and one more for each running sequence. A sequence that does not fit yet may be overtaken by
//!   later ones, but only [`OVERTAKEN_MAX`] times: then all wait for it.
//! - **Pieces.** The oldest prompt gets at least half of the rows, so that it always moves on; the
//!   rest goes to the prompts with the fewest tokens left. Pieces end at the edge of a block.
//! - **Preemption.** When a decoding sequence needs a block and there is none, the youngest sequence
//!   gives up its blocks and waits with its tokens. The oldest never has to, so that all finish.
//! - **Sharing.** Answers to one prompt hold its blocks together; whoever writes into a block that
//!   others hold gets a copy. Full blocks are found again by later texts that begin alike.

use std::collections::BTreeMap;

use neurino_nn::paged::BLOCK_TOKENS;

use super::blocks::{BlockPool, Chain, Release};
use super::plan::{CLAIM_ROWS, Part, Plan, SchedulerCounters, SequenceId, ServingLimits, TooLarge};

/// How often a waiting sequence may be overtaken.
const OVERTAKEN_MAX: u32 = 8;
/// Waiting sequences that are tried in one step without success.
const TRIES_MAX: usize = 8;

#[derive(Debug)]
struct Sequence {
    /// Prompt and what was drawn.
    tokens: Vec<u32>,
    /// Tokens whose keys are in `blocks`.
    computed: usize,
    blocks: Vec<u32>,
    /// Blocks that are full and known, and the text they are.
    settled: usize,
    chain: Chain,
    /// Answers that begin when the prompt is read.
    choices: u32,
    /// Of a claimed answer: the first token whose scores are still wanted, and of all behind it.
    scores_from: Option<usize>,
    overtaken: u32,
}

impl Sequence {
    fn new(tokens: Vec<u32>, choices: u32) -> Self {
        let (blocks, chain) = (Vec::new(), Chain::EMPTY);
        let scores_from = None;
        Self { tokens, computed: 0, blocks, settled: 0, chain, choices, scores_from, overtaken: 0 }
    }

    /// Tokens that may be taken from the cache instead of being computed: those whose scores are wanted
    /// are not, and the last one's always are.
    fn reusable(&self) -> &[u32] {
        let last = self.tokens.len() - 1;
        &self.tokens[..self.scores_from.map_or(last, |from| from.min(last))]
    }

    /// Of so many more rows, those whose scores a claimed answer is held against.
    fn scored(&self, rows: usize) -> usize {
        self.scores_from.map_or(0, |from| (self.computed + rows).saturating_sub(from).min(rows))
    }

    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

/// Decides what each step computes.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: ServingLimits,
    pool: BlockPool,
    running: BTreeMap<SequenceId, Sequence>,
    waiting: BTreeMap<SequenceId, Sequence>,
    next_request: u64,
    /// Whether something happened that may let a waiting sequence in.
    may_admit: bool,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler within `limits`, which are made to fit each other: a step has room for a block
    /// of a prompt beside all that decode.
    pub(crate) fn new(limits: ServingLimits) -> Self {
        let rows_per_step = limits.rows_per_step.max(BLOCK_TOKENS);
        let beside = rows_per_step + 1 - BLOCK_TOKENS;
        let limits = ServingLimits {
            rows_per_step,
            sequences_max: limits.sequences_max.clamp(1, beside),
            ..limits
        };
        Self {
            limits,
            pool: BlockPool::new(limits.n_blocks),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_request: 0,
            may_admit: false,
            preemptions: 0,
        }
    }

    /// Queues a prompt of at least one token for `choices` answers of at most `max_tokens` each;
    /// returns the request's number.
    ///
    /// # Errors
    /// `TooLarge` if it would not fit even alone.
    pub(crate) fn submit(
        &mut self,
        prompt: Vec<u32>,
        choices: u32,
        max_tokens: usize,
    ) -> Result<u64, TooLarge> {
        debug_assert!(!prompt.is_empty() && choices > 0, "checked by the caller");
        // The last token of an answer is never computed.
        let needed_tokens = prompt.len() + max_tokens.saturating_sub(1);
        let capacity_tokens = self.limits.n_blocks * BLOCK_TOKENS;
        if needed_tokens > capacity_tokens {
            return Err(TooLarge { needed_tokens, capacity_tokens });
        }
        let request = self.next_request;
        self.next_request += 1;
        self.waiting.insert(SequenceId { request, choice: 0 }, Sequence::new(prompt, choices));
        self.may_admit = true;
        Ok(request)
    }

    /// Queues answers that were claimed, each a prompt of `prompt` tokens and all of the answer but its last
    /// token: the scores after each token from the prompt's last one on are wanted, and nothing is drawn.
    /// Returns the request's number.
    ///
    /// # Errors
    /// `TooLarge` if one of them would not fit even alone.
    pub(crate) fn submit_claim(
        &mut self,
        answers: Vec<Vec<u32>>,
        prompt: usize,
    ) -> Result<u64, TooLarge> {
        debug_assert!(prompt > 0 && answers.iter().all(|a| a.len() >= prompt), "by the caller");
        let needed_tokens = answers.iter().map(Vec::len).max().unwrap_or(0);
        let capacity_tokens = self.limits.n_blocks * BLOCK_TOKENS;
        if needed_tokens > capacity_tokens {
            return Err(TooLarge { needed_tokens, capacity_tokens });
        }
        let request = self.next_request;
        self.next_request += 1;
        for (choice, tokens) in (0..).zip(answers) {
            let scores_from = Some(prompt - 1);
            let sequence = Sequence { scores_from, ..Sequence::new(tokens, 1) };
            self.waiting.insert(SequenceId { request, choice }, sequence);
        }
        self.may_admit = true;
        Ok(request)
    }

    /// Blocks of the cache.
    pub(crate) fn n_blocks(&self) -> usize {
        self.pool.n_blocks()
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn counters(&self) -> SchedulerCounters {
        SchedulerCounters {
            blocks: self.pool.counters(),
            running: self.running.len(),
            waiting: self.waiting.len(),
            preemptions: self.preemptions,
        }
    }

    /// What the next step computes; empty only when idle. To be followed by
    /// [`Scheduler::complete`], or by [`Scheduler::forget_cache`] when the step failed.
    pub(crate) fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        let preemptions = self.preemptions;
        self.plan_decodes(&mut plan);
        if self.preemptions == preemptions {
            self.admit();
        }
        self.plan_prompts(&mut plan);
        plan
    }

    /// The sequences that will draw from the scores after a part of a plan that draws: what
    /// [`Scheduler::complete`] will give for it.
    pub(crate) fn drawing(&self, id: SequenceId) -> impl Iterator<Item = SequenceId> + use<> {
        let choices = self.running.get(&id).map_or(0, |sequence| sequence.choices);
        let others = (1..choices).map(move |choice| SequenceId { choice, ..id });
        (choices > 0).then_some(id).into_iter().chain(others)
    }

    /// Notes that a plan was computed. Returns, for each part that draws, the sequences that draw
    /// from its scores: one, or all answers of a prompt that was just read; for a part of a claimed answer
    /// its sequence, once for each row that is scored.
    pub(crate) fn complete(&mut self, plan: &Plan) -> Vec<Vec<SequenceId>> {
        let mut draws = Vec::new();
        for part in &plan.parts {
            if let Some(sequence) = self.running.get_mut(&part.id) {
                sequence.computed += part.rows;
                // What was scored is not scored again, should the sequence have to give up its blocks.
                let scored = (part.scored > 0).then_some(sequence.computed);
                sequence.scores_from = scored.or(sequence.scores_from);
                settle(&mut self.pool, sequence);
            }
            if part.draws {
                draws.push(self.begin_answers(part.id));
            } else if part.scored > 0 {
                draws.push(vec![part.id; part.scored]);
            }
        }
        draws
    }

    /// Adds a drawn token, which the next step computes.
    pub(crate) fn push(&mut self, id: SequenceId, token: u32) {
        let sequence = self.running.get_mut(&id).or_else(|| self.waiting.get_mut(&id));
        debug_assert!(sequence.is_some(), "a token for a sequence that is gone");
        if let Some(sequence) = sequence {
            sequence.tokens.push(token);
        }
    }

    /// Ends a sequence.
    pub(crate) fn finish(&mut self, id: SequenceId) {
        self.waiting.remove(&id);
        if let Some(sequence) = self.running.remove(&id) {
            self.let_go(&sequence, Release::Keep);
        }
    }

    /// Ends all sequences of a request. Their blocks are free at once.
    pub(crate) fn cancel(&mut self, request: u64, release: Release) {
        let all = SequenceId { request, choice: 0 }..=SequenceId { request, choice: u32::MAX };
        let of_it = |sequences: &BTreeMap<SequenceId, Sequence>| {
            sequences.range(all.clone()).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        for id in of_it(&self.waiting) {
            self.waiting.remove(&id);
        }
        for id in of_it(&self.running) {
            if let Some(sequence) = self.running.remove(&id) {
                self.let_go(&sequence, release);
            }
        }
        self.may_admit = true;
    }

    /// Starts over with an empty cache, because what was in it is lost: all sequences wait.
    pub(crate) fn forget_cache(&mut self) {
        for (id, mut sequence) in std::mem::take(&mut self.running) {
            for block in give_up(&mut sequence) {
                self.pool.release(block, Release::Forget);
            }
            self.waiting.insert(id, sequence);
        }
        self.pool.forget_idle();
        self.may_admit = true;
    }

    /// A row for each decoding sequence, oldest first.
    fn plan_decodes(&mut self, plan: &mut Plan) {
        let decoding = |(id, s): (&SequenceId, &Sequence)| (s.pending() == 1).then_some(*id);
        let ids: Vec<_> = self.running.iter().filter_map(decoding).collect();
        for id in ids {
            if self.make_room(id, plan) {
                self.plan_part(id, 1, plan);
            }
        }
    }

    /// Sees to it that a sequence may write its next token: a block for it, and for it alone.
    /// `false` if the sequence itself was preempted.
    fn make_room(&mut self, id: SequenceId, plan: &mut Plan) -> bool {
        while let Some(sequence) = self.running.get_mut(&id) {
            let last = sequence.blocks.get(sequence.computed / BLOCK_TOKENS).copied();
            if last.is_some_and(|block| !self.pool.is_shared(block)) {
                return true;
            }
            if let Some(block) = self.pool.take() {
                if let Some(shared) = last {
                    plan.copies.push((shared, block));
                    self.pool.release(shared, Release::Keep);
                    sequence.blocks.pop();
                }
                sequence.blocks.push(block);
                return true;
            }
            self.preempt_youngest();
        }
        false
    }

    fn preempt_youngest(&mut self) {
        if let Some((id, mut sequence)) = self.running.pop_last() {
            for block in give_up(&mut sequence) {
                self.pool.release(block, Release::Keep);
            }
            self.preemptions += 1;
            self.may_admit = true;
            self.waiting.insert(id, sequence);
        }
    }

    /// Lets waiting sequences in, as far as places and blocks go.
    fn admit(&mut self) {
        if !std::mem::take(&mut self.may_admit) {
            return;
        }
        let mut left_behind: Vec<SequenceId> = Vec::new();
        let mut next = self.waiting.keys().next().copied();
        while let Some(id) = next
            && self.running.len() < self.limits.sequences_max
            && left_behind.len() < TRIES_MAX
        {
            if self.try_admit(id) {
                for id in &left_behind {
                    self.waiting.get_mut(id).into_iter().for_each(|s| s.overtaken += 1);
                }
            } else {
                left_behind.push(id);
            }
            let is_patient = |id| self.waiting.get(id).is_none_or(|s| s.overtaken < OVERTAKEN_MAX);
            if !left_behind.iter().all(is_patient) {
                break;
            }
            let behind = (std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded);
            next = self.waiting.range(behind).next().map(|(id, _)| *id);
        }
    }

    fn try_admit(&mut self, id: SequenceId) -> bool {
        let Some(sequence) = self.waiting.get(&id) else { return false };
        let pending = sequence.tokens.len();
        let (found, idle) = self.pool.find(sequence.reusable());
        let fresh = pending.div_ceil(BLOCK_TOKENS) - found.len();
        let growth = if self.running.is_empty() { 0 } else { self.running.len() + 1 };
        if self.pool.available() - idle < fresh + growth {
            return false;
        }
        let Some(mut sequence) = self.waiting.remove(&id) else { return false };
        sequence.chain = self.pool.reuse(&found);
        sequence.settled = found.len();
        sequence.computed = found.len() * BLOCK_TOKENS;
        sequence.blocks = found;
        sequence.blocks.extend((0..fresh).map_while(|_| self.pool.take()));
        self.running.insert(id, sequence);
        true
    }

    /// Pieces of prompts: half of the rows for the oldest, the rest for the shortest.
    fn plan_prompts(&mut self, plan: &mut Plan) {
        let mut left = self.limits.rows_per_step - plan.tokens.len();
        // Parts are in the order of their sequences up to here.
        let is_new = |id: &SequenceId| plan.parts.binary_search_by_key(id, |p| p.id).is_err();
        let reading = |(id, s): (&SequenceId, &Sequence)| is_new(id).then(|| (s.pending(), *id));
        let mut reading: Vec<_> = self.running.iter().filter_map(reading).collect();
        if reading.is_empty() {
            return;
        }
        let (oldest_pending, oldest) = reading.remove(0);
        reading.sort_unstable();
        let wanted_by_others: usize = reading.iter().map(|(pending, _)| pending).sum();
        let for_oldest = (left / 2).max(BLOCK_TOKENS).max(left.saturating_sub(wanted_by_others));
        let mut claim_rows = CLAIM_ROWS;
        let running = &self.running;
        let mut give = |id, pending, most: usize| {
            let sequence: Option<&Sequence> = running.get(&id);
            let unscored = |s: &Sequence| Some(s.scores_from?.saturating_sub(s.computed));
            let allowed = sequence.and_then(unscored).map_or(usize::MAX, |rows| rows + claim_rows);
            let rows = piece(pending, left.min(most).min(allowed));
            left -= rows;
            claim_rows -= sequence.map_or(0, |sequence| sequence.scored(rows)).min(claim_rows);
            (id, rows)
        };
        let mut pieces = vec![give(oldest, oldest_pending, for_oldest)];
        pieces.extend(reading.into_iter().map(|(pending, id)| give(id, pending, usize::MAX)));
        for (id, rows) in pieces {
            if rows > 0 {
                self.plan_part(id, rows, plan);
            }
        }
    }

    fn plan_part(&mut self, id: SequenceId, rows: usize, plan: &mut Plan) {
        let Some(sequence) = self.running.get(&id) else { return };
        let start = sequence.computed;
        plan.tokens.extend(&sequence.tokens[start..start + rows]);
        let draws = sequence.scores_from.is_none() && rows == sequence.pending();
        let (scored, blocks) = (sequence.scored(rows), sequence.blocks.clone());
        plan.parts.push(Part { id, start, rows, draws, scored, blocks });
    }

    /// The sequences whose next token is drawn now. The first time, the other answers of the
    /// request begin: they hold the prompt's blocks too, or wait if there is no place.
    fn begin_answers(&mut self, id: SequenceId) -> Vec<SequenceId> {
        let Some(sequence) = self.running.get_mut(&id) else { return Vec::new() };
        let choices = std::mem::replace(&mut sequence.choices, 1);
        let mut all = vec![id];
        for choice in 1..choices {
            let Some(first) = self.running.get(&id) else { break };
            let mut other = Sequence::new(first.tokens.clone(), 1);
            let other_id = SequenceId { choice, ..id };
            if self.running.len() < self.limits.sequences_max {
                first.blocks.iter().for_each(|&block| self.pool.hold(block));
                other.blocks.clone_from(&first.blocks);
                (other.computed, other.settled) = (first.computed, first.settled);
                other.chain = first.chain;
                self.running.insert(other_id, other);
            } else {
                self.waiting.insert(other_id, other);
                self.may_admit = true;
            }
            all.push(other_id);
        }
        all
    }

    fn let_go(&mut self, sequence: &Sequence, release: Release) {
        // The end first, so that it is given up before what it hangs on.
        for &block in sequence.blocks.iter().rev() {
            self.pool.release(block, release);
        }
        self.may_admit = true;
    }
}

/// Rows of a piece: all, or as many whole blocks as `most` holds. What is pending begins at the edge
/// of a block unless it is one token.
fn piece(pending: usize, most: usize) -> usize {
    if pending <= most { pending } else { most - most % BLOCK_TOKENS }
}

/// Takes all blocks from a sequence, the last first, and makes all of its tokens pending.
fn give_up(sequence: &mut Sequence) -> impl Iterator<Item = u32> + use<> {
    (sequence.computed, sequence.settled, sequence.chain) = (0, 0, Chain::EMPTY);
    std::mem::take(&mut sequence.blocks).into_iter().rev()
}

/// Makes the blocks known that became full.
fn settle(pool: &mut BlockPool, sequence: &mut Sequence) {
    let full = &sequence.tokens[..sequence.computed].as_chunks().0[sequence.settled..];
    for tokens in full {
        let block = &mut sequence.blocks[sequence.settled];
        (*block, sequence.chain) = pool.settle(*block, sequence.chain, *tokens);
        sequence.settled += 1;
    }
}

#[cfg(test)]
mod tests;
