//! The scheduler against a cache that remembers what was written where.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::prelude::*;

use super::*;

/// A request that gets `answer` tokens for each of its choices.
#[derive(Debug, Clone)]
struct Wish {
    prompt: Vec<u32>,
    choices: u32,
    answer: usize,
}

/// A scheduler with a cache in which the key of a token is a digest of the text up to it.
struct World {
    scheduler: Scheduler,
    keys: Vec<[u64; BLOCK_TOKENS]>,
    wishes: BTreeMap<u64, Wish>,
    /// What each unfinished sequence was given so far.
    drawn: BTreeMap<SequenceId, Vec<u32>>,
    finished: BTreeSet<SequenceId>,
    /// Requests by the step of their first row.
    started: Vec<u64>,
    most_rows: usize,
}

fn digest(text: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The token a sequence draws: depends on nothing but itself.
fn drawn_token(id: SequenceId, position: usize) -> u32 {
    1000 + (digest(&[id.request as u32, id.choice, position as u32]) % 1000) as u32
}

impl World {
    fn new(n_blocks: usize, rows_per_step: usize, sequences_max: usize) -> Self {
        let limits = ServingLimits { n_blocks, rows_per_step, sequences_max };
        Self {
            scheduler: Scheduler::new(limits),
            keys: vec![[0; BLOCK_TOKENS]; n_blocks],
            wishes: BTreeMap::new(),
            drawn: BTreeMap::new(),
            finished: BTreeSet::new(),
            started: Vec::new(),
            most_rows: 0,
        }
    }

    fn submit(&mut self, wish: &Wish) -> Option<u64> {
        let submitted = self.scheduler.submit(wish.prompt.clone(), wish.choices, wish.answer);
        let capacity = self.keys.len() * BLOCK_TOKENS;
        let fits = wish.prompt.len() + wish.answer - 1 <= capacity;
        assert_eq!(submitted.is_ok(), fits);
        let request = submitted.ok()?;
        self.wishes.insert(request, wish.clone());
        Some(request)
    }

    fn prompt(&mut self, tokens: impl IntoIterator<Item = u32>, answer: usize) -> u64 {
        self.submit(&Wish { prompt: tokens.into_iter().collect(), choices: 1, answer }).unwrap()
    }

    fn cancel(&mut self, request: u64, release: Release) {
        self.scheduler.cancel(request, release);
        self.wishes.remove(&request);
        self.drawn.retain(|id, _| id.request != request);
        self.check_blocks();
    }

    /// The whole text of a sequence.
    fn text(&self, id: SequenceId) -> Vec<u32> {
        let drawn = self.drawn.get(&id).map(Vec::as_slice).unwrap_or_default();
        [&self.wishes[&id.request].prompt, drawn].concat()
    }

    /// One step; returns what was planned.
    fn step(&mut self) -> Plan {
        let decoding: Vec<_> = self.scheduler.running.iter().collect();
        let decoding: Vec<_> =
            decoding.into_iter().filter(|(_, s)| s.pending() == 1).map(|(id, _)| *id).collect();
        let plan = self.scheduler.plan();
        self.check_plan(&plan, &decoding);
        self.write(&plan);
        let draws = self.scheduler.complete(&plan);
        assert_eq!(draws.len(), plan.parts.iter().filter(|part| part.draws).count());
        for id in draws.into_iter().flatten() {
            self.draw(id);
        }
        self.check_blocks();
        plan
    }

    fn draw(&mut self, id: SequenceId) {
        assert!(!self.finished.contains(&id), "{id:?} goes on after its end");
        let drawn = self.drawn.entry(id).or_default();
        let token = drawn_token(id, drawn.len());
        drawn.push(token);
        let wish = &self.wishes[&id.request];
        if drawn.len() == wish.answer {
            self.scheduler.finish(id);
            self.finished.insert(id);
            let complete = (0..wish.choices)
                .all(|choice| self.finished.contains(&SequenceId { request: id.request, choice }));
            if complete {
                self.wishes.remove(&id.request);
                self.drawn.retain(|other, _| other.request != id.request);
            }
        } else {
            self.scheduler.push(id, token);
        }
    }

    fn check_plan(&mut self, plan: &Plan, decoding: &[SequenceId]) {
        let idle = self.scheduler.is_idle();
        assert_eq!(plan.parts.is_empty(), idle, "a step makes progress");
        assert_eq!(plan.tokens.len(), plan.parts.iter().map(|p| p.rows).sum::<usize>());
        assert!(plan.tokens.len() <= self.scheduler.limits.rows_per_step);
        self.most_rows = self.most_rows.max(plan.tokens.len());
        let planned: HashSet<_> = plan.parts.iter().map(|p| p.id).collect();
        assert_eq!(planned.len(), plan.parts.len(), "each sequence once");
        for id in decoding.iter().filter(|id| self.scheduler.running.contains_key(id)) {
            assert!(planned.contains(id), "{id:?} is stalled");
        }
        assert!(self.scheduler.running.len() <= self.scheduler.limits.sequences_max);
        assert!(self.scheduler.waiting.values().all(|s| s.overtaken <= OVERTAKEN_MAX));
        let mut row = 0;
        for part in &plan.parts {
            let (text, end) = (self.text(part.id), part.start + part.rows);
            assert_eq!(plan.tokens[row..row + part.rows], text[part.start..end]);
            assert_eq!(part.draws, end == text.len());
            assert!(part.draws || end % BLOCK_TOKENS == 0, "pieces end at a block's edge");
            assert!(part.start % BLOCK_TOKENS == 0 || part.rows == 1);
            row += part.rows;
            if !self.started.contains(&part.id.request) {
                self.started.push(part.id.request);
            }
        }
    }

    /// Copies, writes, and reads every key that the rows see.
    fn write(&mut self, plan: &Plan) {
        for &(from, to) in &plan.copies {
            self.keys[to as usize] = self.keys[from as usize];
        }
        let mut written = HashSet::new();
        for part in &plan.parts {
            let text = self.text(part.id);
            for at in part.start..part.start + part.rows {
                let slot = (part.blocks[at / BLOCK_TOKENS], at % BLOCK_TOKENS);
                assert!(written.insert(slot), "two rows write one slot");
                self.keys[slot.0 as usize][slot.1] = digest(&text[..=at]);
            }
        }
        for part in &plan.parts {
            let text = self.text(part.id);
            for at in 0..part.start + part.rows {
                let found = self.keys[part.blocks[at / BLOCK_TOKENS] as usize][at % BLOCK_TOKENS];
                assert_eq!(
                    found,
                    digest(&text[..=at]),
                    "{:?} reads another's key at {at}",
                    part.id
                );
            }
        }
    }

    fn check_blocks(&self) {
        let held = self.scheduler.running.values().flat_map(|s| s.blocks.iter().copied());
        self.scheduler.pool.check(held);
        assert!(self.scheduler.waiting.values().all(|s| s.blocks.is_empty()));
    }

    /// Runs until nothing is left; returns the steps it took.
    fn finish(&mut self) -> usize {
        let work = |w: &Wish| w.choices as usize * (w.prompt.len() + w.answer);
        // Each step moves the oldest sequence on, in the worst case by one token.
        let limit = 1 + self.wishes.values().map(work).sum::<usize>();
        for steps in 0.. {
            if self.scheduler.is_idle() {
                return steps;
            }
            assert!(steps <= limit, "{} wishes are left", self.wishes.len());
            self.step();
        }
        unreachable!("the loop above ends")
    }
}

#[derive(Debug, Clone)]
enum Act {
    Submit(Wish),
    Steps(usize),
    Cancel(prop::sample::Index),
    Fail(prop::sample::Index),
    LoseCache,
}

fn wish() -> impl Strategy<Value = Wish> {
    // Few beginnings, so that many are alike.
    (0_u32..3, 0_usize..70, 0_usize..40, 0_u32..4, 1_u32..5, 1_usize..50).prop_map(
        |(beginning, shared, own, own_start, choices, answer)| {
            let shared = (0..shared as u32).map(|n| beginning * 100 + n);
            let own = (0..=own as u32).map(|n| 500 + own_start * 50 + n);
            Wish { prompt: shared.chain(own).collect(), choices, answer }
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => wish().prop_map(Act::Submit),
        6 => (1_usize..20).prop_map(Act::Steps),
        2 => any::<prop::sample::Index>().prop_map(Act::Cancel),
        1 => any::<prop::sample::Index>().prop_map(Act::Fail),
        1 => Just(Act::LoseCache),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_texts_apart_and_ends(
        (n_blocks, rows, sequences) in (1_usize..40, 1_usize..80, 1_usize..12),
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let mut world = World::new(n_blocks, rows, sequences);
        let (mut accepted, mut ended) = (0, 0);
        for act in acts {
            let unfinished: Vec<u64> = world.wishes.keys().copied().collect();
            match act {
                Act::Submit(wish) => accepted += u32::from(world.submit(&wish).is_some()) * wish.choices,
                Act::Steps(count) => (0..count).for_each(|_| drop(world.step())),
                Act::Cancel(index) | Act::Fail(index) if !unfinished.is_empty() => {
                    let request = *index.get(&unfinished);
                    let finished = |c: &u32| world.finished.contains(&SequenceId { request, choice: *c });
                    let choices = world.wishes[&request].choices;
                    ended += (0..choices).filter(|c| !finished(c)).count();
                    let release = if matches!(act, Act::Fail(_)) { Release::Forget } else { Release::Keep };
                    world.cancel(request, release);
                }
                Act::Cancel(_) | Act::Fail(_) => {}
                Act::LoseCache => {
                    // A step was planned, and failed for a reason that is nobody's.
                    world.scheduler.plan();
                    world.scheduler.forget_cache();
                    world.keys.fill([0; BLOCK_TOKENS]);
                    world.check_blocks();
                    prop_assert_eq!(world.scheduler.counters().blocks.free, n_blocks);
                }
            }
        }
        world.finish();
        prop_assert_eq!(world.finished.len() + ended, accepted as usize);
        let blocks = world.scheduler.counters().blocks;
        prop_assert_eq!((blocks.used, blocks.cached + blocks.free), (0, n_blocks));
        prop_assert_eq!(world.scheduler.counters().running, 0);
    }
}

#[test]
fn requests_begin_in_the_order_they_came() {
    let mut world = World::new(12, 64, 2);
    for number in 0..20 {
        world.prompt((0..30).map(|n| number * 40 + n), 10);
    }
    world.finish();
    assert_eq!(world.started, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_long_prompt_does_not_stall_answers_nor_a_short_prompt() {
    let mut world = World::new(200, 64, 8);
    let talking = world.prompt(0..10, 200);
    world.step();
    let long = world.prompt(100..1600, 1);
    world.step();
    let short = world.prompt(2000..2020, 1);
    let plan = world.step();
    let rows_of = |plan: &Plan, request| {
        plan.parts.iter().find(|p| p.id.request == request).map_or(0, |p| p.rows)
    };
    assert_eq!((rows_of(&plan, talking), rows_of(&plan, short)), (1, 20));
    assert!(rows_of(&plan, long) >= 31 - 15, "{plan:?}");
    let mut steps = 3;
    while world.started.contains(&long) && world.wishes.contains_key(&long) {
        assert_eq!(rows_of(&world.step(), talking), 1);
        steps += 1;
    }
    assert!((1500 / 64..1500 / 48 + 4).contains(&steps), "{steps}");
}

#[test]
fn a_large_request_is_overtaken_only_so_often() {
    let mut world = World::new(20, 64, 4);
    // Leaves fewer blocks than the large one needs, and enough for small ones.
    world.prompt(0..100, 200);
    world.step();
    let large = world.prompt(1000..1250, 4);
    for number in 0..40 {
        world.prompt([5000 + number, 1], 2);
    }
    world.finish();
    let before = world.started.iter().position(|&request| request == large).unwrap();
    assert_eq!(before, 1 + OVERTAKEN_MAX as usize, "the first, and those that overtook");
}

#[test]
fn answers_to_one_prompt_hold_its_blocks_together() {
    let mut world = World::new(20, 64, 4);
    let request = world.submit(&Wish { prompt: (0..40).collect(), choices: 4, answer: 20 });
    world.step();
    assert_eq!(world.scheduler.counters().blocks.used, 3, "the prompt once");
    let plan = world.step();
    assert_eq!(plan.copies.len(), 3, "the half block for all but the last who writes");
    assert_eq!(world.scheduler.counters().blocks.used, 2 + 4);
    let alike: HashSet<_> = plan.parts.iter().map(|part| part.blocks[..2].to_vec()).collect();
    assert_eq!(alike.len(), 1);
    world.cancel(request.unwrap(), Release::Keep);
    let blocks = world.scheduler.counters().blocks;
    assert_eq!((blocks.used, blocks.cached, blocks.free), (0, 2, 18), "free at once");
}

#[test]
fn equal_beginnings_are_computed_once() {
    let mut world = World::new(40, 64, 4);
    world.prompt((0..48).chain(100..105), 3);
    world.finish();
    let second = world.prompt((0..48).chain(200..205), 3);
    let plan = world.step();
    assert_eq!((plan.parts[0].id.request, plan.parts[0].start), (second, 48));
    assert_eq!(world.scheduler.counters().blocks.hits, 3);
    // A prompt that is known as a whole: its last token is computed still.
    world.finish();
    world.prompt(0..48, 1);
    let plan = world.step();
    assert_eq!((plan.parts[0].start, plan.parts[0].rows), (32, 16));
}

#[test]
fn the_youngest_gives_way_and_goes_on_later() {
    let mut world = World::new(8, 64, 3);
    for number in 0..3 {
        world.prompt((0..20).map(|n| number * 100 + n), 60);
    }
    world.finish();
    let counters = world.scheduler.counters();
    assert!(counters.preemptions > 0);
    assert_eq!(world.finished.len(), 3);
}

#[test]
fn what_can_never_fit_is_refused_with_numbers() {
    let mut scheduler =
        Scheduler::new(ServingLimits { n_blocks: 4, rows_per_step: 64, sequences_max: 4 });
    assert!(scheduler.submit(vec![1; 60], 1, 5).is_ok());
    let refused = scheduler.submit(vec![1; 60], 1, 6);
    assert_eq!(refused, Err(TooLarge { needed_tokens: 65, capacity_tokens: 64 }));
}

/// The places of claimed answers that are scored, step by step; sequences end when all of theirs are.
fn scored(
    scheduler: &mut Scheduler,
    ends: &BTreeMap<SequenceId, usize>,
) -> Vec<(SequenceId, usize)> {
    let mut found = Vec::new();
    for step in 0.. {
        let plan = scheduler.plan();
        if plan.parts.is_empty() {
            break;
        }
        if step == 3 {
            // The step failed: all read again what they had.
            scheduler.forget_cache();
            continue;
        }
        let claim_rows: usize = plan.parts.iter().map(|part| part.scored).sum();
        assert!(claim_rows <= CLAIM_ROWS + scheduler.limits.sequences_max, "{claim_rows}");
        let answering = scheduler.complete(&plan);
        let wanting = plan.parts.iter().filter(|part| part.draws || part.scored > 0);
        assert_eq!(answering.len(), wanting.count());
        for part in &plan.parts {
            let end = part.start + part.rows;
            found.extend((end - part.scored..end).map(|at| (part.id, at)));
            match ends.get(&part.id) {
                Some(last) if end == *last => scheduler.finish(part.id),
                None if part.draws => scheduler.finish(part.id),
                Some(_) | None => {}
            }
        }
        assert!(step < 100, "it goes on for ever");
    }
    found
}

#[test]
fn every_token_of_a_claimed_answer_is_scored_once() {
    let limits = ServingLimits { n_blocks: 64, rows_per_step: 64, sequences_max: 4 };
    let mut scheduler = Scheduler::new(limits);
    let text = |from: u32, len: u32| (from..from + len).collect::<Vec<u32>>();
    let prompt = 37;
    let answers = vec![text(0, 37), text(0, 150), [text(0, 37), text(500, 60)].concat()];
    let lengths: Vec<usize> = answers.iter().map(Vec::len).collect();
    scheduler.submit(text(0, 100), 1, 1).unwrap();
    let request = scheduler.submit_claim(answers.clone(), prompt).unwrap();
    scheduler.submit(text(300, 90), 1, 1).unwrap();
    let ends = (0..).zip(&lengths).map(|(choice, len)| (SequenceId { request, choice }, *len));
    let ends: BTreeMap<SequenceId, usize> = ends.collect();
    // The second time, the texts are found in the cache and scored all the same.
    for request in [request, request + 2] {
        let ends = ends.iter().map(|(id, len)| (SequenceId { request, ..*id }, *len)).collect();
        if !scheduler.waiting.keys().any(|id| id.request == request) {
            assert_eq!(scheduler.submit_claim(answers.clone(), prompt).unwrap(), request);
        }
        let mut found = scored(&mut scheduler, &ends);
        found.sort_unstable();
        let expected: Vec<_> =
            ends.iter().flat_map(|(id, len)| (prompt - 1..*len).map(|at| (*id, at))).collect();
        assert_eq!(found, expected);
    }
    let too_long = scheduler.submit_claim(vec![text(0, 64 * 16 + 1)], 5);
    assert!(too_long.is_err_and(|error| error.capacity_tokens == 64 * 16));
}
