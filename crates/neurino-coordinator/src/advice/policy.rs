//! Which node should hold which model: pure, without a clock and without the network.
//!
//! Each model needs so many slots. A model that has fewer gets nodes from where they are missed least:
//! those without a model first, then those whose model nobody asks for, then those of models that have
//! more than they keep. Where there are not enough for all, models are served evenly by what they need. A
//! node that nobody needs holds what is asked for most among its own models, or nothing.
//!
//! Nothing moves back and forth: a model gives only what it has beyond its needs by a margin, and where all
//! are short only to one that is clearly shorter, also afterwards.

use std::cmp::Ordering;
use std::collections::VecDeque;

/// By how much a model must be better off than another one before it gives it a node while both are
/// short; more than what the needs of a steady demand vary by.
const CLEARLY: f64 = 1.25;

/// What a model needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Wish {
    /// Slots without which it is short.
    pub(super) need: f64,
    /// Slots that it gives none of; at least `need`.
    pub(super) keep: f64,
    /// Whether anybody asked for it lately, as far as that is known. One that nobody asked for needs
    /// nothing.
    pub(super) asked: bool,
    /// How much nodes that nobody needs are drawn to it; zero if nobody asked for it.
    pub(super) weight: f64,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Holder {
    /// Jobs it takes at once, at least one.
    pub(super) slots: u32,
    /// Jobs it works on.
    pub(super) busy: u32,
    /// Models that are on its disk and fit into its memory, as indexes into the wishes.
    pub(super) offers: Vec<usize>,
    /// The one in its memory.
    pub(super) loaded: Option<usize>,
    /// Whether it may be told something now.
    pub(super) movable: bool,
    /// A model that it left lately and must not return to yet.
    pub(super) barred: Option<usize>,
}

impl Holder {
    fn could_hold(&self, model: usize) -> bool {
        self.movable
            && self.loaded != Some(model)
            && self.barred != Some(model)
            && self.offers.contains(&model)
    }

    fn slots(&self) -> f64 {
        f64::from(self.slots.max(1))
    }
}

/// A node, and the model it should hold; none is for a node of whose models nobody asks for any.
pub(super) type Move = (usize, Option<usize>);

/// What should be changed, at most so many nodes.
pub(super) fn plan(wishes: &[Wish], holders: &[Holder], most: usize) -> Vec<Move> {
    let mut plan = Plan::new(wishes, holders);
    // Searched for once: a model that nobody can serve must not cost a search for every move.
    let mut in_vain = vec![false; wishes.len()];
    while plan.moves.len() < most {
        let Some(short) = plan.short().into_iter().find(|model| !in_vain[*model]) else { break };
        let Some(path) = plan.path_to(short) else {
            in_vain[short] = true;
            continue;
        };
        if plan.moves.len() + path.len() > most && !plan.moves.is_empty() {
            break;
        }
        for (node, model) in path {
            plan.carry_out(node, Some(model));
        }
    }
    plan.spread(most);
    plan.moves
}

struct Plan<'a> {
    wishes: &'a [Wish],
    /// As they will be after the moves.
    holders: Vec<Holder>,
    /// Slots of each model.
    have: Vec<f64>,
    moves: Vec<Move>,
}

impl<'a> Plan<'a> {
    fn new(wishes: &'a [Wish], holders: &[Holder]) -> Self {
        let mut have = vec![0.0; wishes.len()];
        for holder in holders {
            if let Some(model) = holder.loaded {
                have[model] += holder.slots();
            }
        }
        Self { wishes, holders: holders.to_vec(), have, moves: Vec::new() }
    }

    /// How much of what it needs a model has, once it has so many slots.
    fn served(&self, model: usize, slots: f64) -> f64 {
        let need = self.wishes[model].need;
        if need > 0.0 { slots.max(0.0) / need } else { f64::INFINITY }
    }

    /// Models that have less than they need, the worst off first.
    fn short(&self) -> Vec<usize> {
        let all = 0..self.wishes.len();
        let mut short: Vec<usize> =
            all.filter(|model| self.have[*model] < self.wishes[*model].need).collect();
        short.sort_by(|a, b| {
            let served = |model: &usize| self.served(*model, self.have[*model]);
            let by_need = || self.wishes[*b].need.total_cmp(&self.wishes[*a].need);
            served(a).total_cmp(&served(b)).then_with(by_need).then_with(|| a.cmp(b))
        });
        short
    }

    /// Whether a node may be taken from what it holds, for the good of a model.
    fn may_give(&self, node: usize, short: usize) -> bool {
        let holder = &self.holders[node];
        let Some(from) = holder.loaded else { return true };
        let left = self.have[from] - holder.slots();
        let gained = self.have[short] + holder.slots();
        left >= self.wishes[from].keep
            || self.served(from, left) >= CLEARLY * self.served(short, gained)
    }

    /// Nodes to move, and where to, so that a model that is short gets one. A node that it cannot do
    /// without may be replaced by another one, and so on.
    fn path_to(&self, short: usize) -> Option<Vec<(usize, usize)>> {
        // By which node, going to which model, a model would be left.
        let mut by: Vec<Option<(usize, usize)>> = vec![None; self.wishes.len()];
        let mut seen = vec![false; self.wishes.len()];
        seen[short] = true;
        let mut next = VecDeque::from([short]);
        while let Some(to) = next.pop_front() {
            // Whoever replaces a node must be as large as it.
            let least = by[to].map_or(1, |(node, _)| self.holders[node].slots);
            let fit = |(node, holder): (usize, &Holder)| {
                (holder.could_hold(to) && holder.slots >= least).then_some(node)
            };
            let able: Vec<usize> = self.holders.iter().enumerate().filter_map(fit).collect();
            let best = able.iter().copied().filter(|node| self.may_give(*node, short));
            if let Some(node) = best.min_by(|a, b| self.rank(*a, *b)) {
                let mut path = vec![(node, to)];
                let mut at = to;
                while let Some((node, to)) = by[at] {
                    path.push((node, to));
                    at = to;
                }
                return Some(path);
            }
            for node in able {
                if let Some(from) = self.holders[node].loaded
                    && !seen[from]
                {
                    seen[from] = true;
                    by[from] = Some((node, to));
                    next.push_back(from);
                }
            }
        }
        None
    }

    /// Who is moved first: a node without a model, one whose model nobody asks for, one with less to do,
    /// one that can do less else.
    fn rank(&self, a: usize, b: usize) -> Ordering {
        let key = |node: usize| {
            let holder = &self.holders[node];
            let asked = holder.loaded.is_some_and(|model| self.wishes[model].asked);
            (holder.loaded.is_some(), asked, holder.busy, holder.offers.len(), node)
        };
        key(a).cmp(&key(b))
    }

    fn carry_out(&mut self, node: usize, model: Option<usize>) {
        let holder = &mut self.holders[node];
        let slots = holder.slots();
        if let Some(from) = holder.loaded {
            self.have[from] -= slots;
        }
        if let Some(to) = model {
            self.have[to] += slots;
        }
        holder.loaded = model;
        holder.movable = false;
        self.moves.push((node, model));
    }

    /// Nodes that hold nothing, or what nobody asks for: they go where they are of most use, or rest.
    fn spread(&mut self, most: usize) {
        for node in 0..self.holders.len() {
            if self.moves.len() >= most {
                return;
            }
            let holder = &self.holders[node];
            if !holder.movable || holder.loaded.is_some_and(|model| self.wishes[model].asked) {
                continue;
            }
            let drawn = |model: &usize| self.wishes[*model].weight / (self.have[*model] + 1.0);
            let useful = holder.offers.iter().copied();
            let drawn_to = |model: &usize| self.wishes[*model].weight > 0.0;
            let useful = useful.filter(|model| drawn_to(model) && holder.could_hold(*model));
            let best = useful.max_by(|a, b| drawn(a).total_cmp(&drawn(b)).then_with(|| b.cmp(a)));
            if best.is_some() || holder.loaded.is_some() {
                self.carry_out(node, best);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wish(need: f64) -> Wish {
        Wish { need, keep: 1.3 * need, asked: need > 0.0, weight: need.sqrt() }
    }

    /// Does what is advised until there is nothing to advise; returns the moves there were.
    fn settle(wishes: &[Wish], holders: &mut [Holder], most: usize) -> usize {
        let mut moves = 0;
        for _ in 0..10 * holders.len() + 10 {
            let plan = plan(wishes, holders, most);
            if plan.is_empty() {
                return moves;
            }
            moves += plan.len();
            for (node, model) in plan {
                let holder = &mut holders[node];
                assert!(
                    model.is_none_or(|model| holder.offers.contains(&model)),
                    "it has not got it"
                );
                assert_ne!(holder.loaded, model, "a move that is none");
                holder.loaded = model;
            }
        }
        panic!("it never comes to rest: {wishes:?} {holders:?}");
    }

    fn have(wishes: usize, holders: &[Holder]) -> Vec<f64> {
        let mut have = vec![0.0; wishes];
        for holder in holders {
            if let Some(model) = holder.loaded {
                have[model] += holder.slots();
            }
        }
        have
    }

    fn anybody(models: usize) -> impl Strategy<Value = Holder> {
        (
            1_u32..4,
            0_u32..3,
            prop::collection::btree_set(0..models, 1..=models),
            any::<prop::sample::Index>(),
            prop::bool::weighted(0.8),
            prop::bool::weighted(0.9),
        )
            .prop_map(|(slots, busy, offers, at, holds, movable)| {
                let offers: Vec<usize> = offers.into_iter().collect();
                let loaded = holds.then(|| offers[at.index(offers.len())]);
                Holder { slots, busy, offers, loaded, movable, barred: None }
            })
    }

    fn everybody() -> impl Strategy<Value = (Vec<Wish>, Vec<Holder>)> {
        (1_usize..6).prop_flat_map(|models| {
            let need = prop_oneof![Just(0.0), 0.1_f64..12.0];
            (
                prop::collection::vec(need.prop_map(wish), models),
                prop::collection::vec(anybody(models), 1..24),
            )
        })
    }

    proptest! {
        #[test]
        fn advice_is_few_fits_and_is_only_for_who_takes_it((wishes, holders) in everybody(), most in 1_usize..9) {
            let moves = plan(&wishes, &holders, most);
            let mut told: Vec<usize> = moves.iter().map(|(node, _)| *node).collect();
            told.sort_unstable();
            told.dedup();
            prop_assert_eq!(told.len(), moves.len(), "nobody is told twice");
            // A chain of replacements is not cut in the middle: then it may be longer.
            prop_assert!(moves.len() <= most.max(wishes.len()));
            for (node, model) in moves {
                prop_assert!(holders[node].movable);
                prop_assert!(model.is_none_or(|model| holders[node].offers.contains(&model)));
                prop_assert!(model.is_none_or(|model| wishes[model].asked), "nobody asks for it");
            }
        }

        #[test]
        fn a_steady_demand_comes_to_rest((wishes, mut holders) in everybody(), most in 1_usize..9) {
            settle(&wishes, &mut holders, most);
            let resting = holders.iter().filter(|h| h.movable && h.loaded.is_none());
            for holder in resting {
                let asked = holder.offers.iter().any(|model| wishes[*model].asked);
                prop_assert!(!asked, "it could be of use: {holder:?}");
            }
            let idle = |h: &&Holder| h.movable && h.loaded.is_some_and(|model| !wishes[model].asked);
            prop_assert_eq!(holders.iter().find(idle), None, "it holds what nobody asks for");
        }

        #[test]
        fn where_there_is_enough_everybody_has_enough(
            needs in prop::collection::vec(0.0_f64..6.0, 1..6),
            begin in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let wishes: Vec<Wish> = needs.iter().copied().map(wish).collect();
            let offers: Vec<usize> = (0..wishes.len()).collect();
            let mut holders: Vec<Holder> = begin
                .iter()
                .map(|at| Holder {
                    slots: 1,
                    offers: offers.clone(),
                    loaded: Some(at.index(wishes.len())),
                    movable: true,
                    ..Holder::default()
                })
                .collect();
            settle(&wishes, &mut holders, 3);
            for (model, have) in have(wishes.len(), &holders).into_iter().enumerate() {
                prop_assert!(have >= wishes[model].need, "{model} has {have}: {wishes:?}");
            }
        }

        #[test]
        fn demand_that_varies_a_little_moves_nobody_for_long(
            (wishes, mut holders) in everybody(),
            noise in prop::collection::vec(prop::collection::vec(0.95_f64..1.05, 6), 60),
        ) {
            settle(&wishes, &mut holders, usize::MAX);
            let mut late = 0;
            for (round, noise) in noise.iter().enumerate() {
                let varied: Vec<Wish> = wishes
                    .iter()
                    .zip(noise)
                    .map(|(w, by)| wish(w.need * by))
                    .collect();
                let moves = plan(&varied, &holders, usize::MAX);
                // What the highest need of the noise asks for is found in the first rounds.
                late += if round >= 40 { moves.len() } else { 0 };
                for (node, model) in moves {
                    holders[node].loaded = model;
                }
            }
            prop_assert!(late <= 2, "{late} moves in the last rounds: {wishes:?}");
        }

        #[test]
        fn more_demand_never_ends_with_less(
            (wishes, holders) in everybody(), at in any::<prop::sample::Index>(), more in 1.0_f64..20.0,
        ) {
            let model = at.index(wishes.len());
            let (mut before, mut after) = (holders.clone(), holders);
            settle(&wishes, &mut before, usize::MAX);
            let mut raised = wishes.clone();
            raised[model] = wish(wishes[model].need + more);
            after.clone_from(&before);
            settle(&raised, &mut after, usize::MAX);
            let slots = |holders: &[Holder]| have(wishes.len(), holders)[model];
            prop_assert!(slots(&after) >= slots(&before));
        }
    }

    #[test]
    fn a_node_that_is_needed_is_replaced_by_one_that_can_do_its_work() {
        // The first offers both and holds the first model, which the second could take over.
        let mut holders = vec![
            Holder {
                slots: 1,
                offers: vec![0, 1],
                loaded: Some(0),
                movable: true,
                ..Holder::default()
            },
            Holder {
                slots: 1,
                offers: vec![0, 2],
                loaded: Some(2),
                movable: true,
                ..Holder::default()
            },
        ];
        let wishes = [wish(1.0), wish(1.0), wish(0.0)];
        assert_eq!(plan(&wishes, &holders, 8), [(1, Some(0)), (0, Some(1))]);
        holders[1].movable = false;
        assert!(plan(&wishes, &holders, 8).is_empty());
    }

    #[test]
    fn what_nobody_asks_for_is_unloaded_and_what_was_left_is_not_returned_to() {
        let mut holder = Holder {
            slots: 1,
            offers: vec![0],
            loaded: Some(0),
            movable: true,
            ..Holder::default()
        };
        assert_eq!(plan(&[wish(0.0)], std::slice::from_ref(&holder), 8), [(0, None)]);
        holder.loaded = None;
        assert!(plan(&[wish(0.0)], std::slice::from_ref(&holder), 8).is_empty());
        assert_eq!(plan(&[wish(1.0)], std::slice::from_ref(&holder), 8), [(0, Some(0))]);
        holder.barred = Some(0);
        assert!(plan(&[wish(1.0)], std::slice::from_ref(&holder), 8).is_empty());
    }

    #[test]
    fn too_few_are_shared_evenly() {
        let holder = Holder {
            slots: 1,
            offers: vec![0, 1],
            loaded: Some(0),
            movable: true,
            ..Holder::default()
        };
        let mut holders = vec![holder; 60];
        settle(&[wish(400.0), wish(200.0)], &mut holders, 1);
        // By the margin that keeps them where they are.
        let shared = have(2, &holders);
        assert!((16.0..=20.0).contains(&shared[1]), "{shared:?}");
    }
}
