//! Which cards of an owner earn more because of what the owner holds, by a dated table read from
//! data. Exact integers; the order of the cards decides nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::points::Multiplier;

const BUILT_IN: &str = include_str!("../data/boosts.toml");
/// Basis points of times one.
const ONE: u32 = 10_000;

/// One published table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoostTable {
    /// Its name.
    pub name: String,
    /// First instant it holds.
    pub from: Timestamp,
    /// In words, for a person who asks where it comes from.
    pub note: String,
    /// Cards that one piece boosts.
    pub cards_per_nft: u32,
    /// What each number of pieces is worth, fewest first.
    pub steps: Vec<BoostStep>,
}

/// What a number of pieces, or more, is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoostStep {
    /// Pieces.
    pub nfts: u32,
    /// The factor in basis points.
    pub basis_points: u32,
}

impl BoostTable {
    /// The newest table that the program knows.
    pub fn built_in() -> Self {
        #[derive(Deserialize)]
        struct File {
            table: Vec<BoostTable>,
        }
        let file: File = toml::from_str(BUILT_IN).expect("a test reads the built-in file");
        file.table.into_iter().max_by_key(|t| t.from).expect("a test reads the built-in file")
    }

    /// What the boosted cards of an owner of so many pieces earn; times one for none.
    pub fn multiplier(&self, nfts: u32) -> Multiplier {
        let step = self.steps.iter().rev().find(|step| step.nfts <= nfts);
        Multiplier(step.map_or(ONE, |step| step.basis_points) * (1_000_000 / ONE))
    }

    /// How many cards are boosted.
    pub fn boosted_cards(&self, nfts: u32) -> u32 {
        nfts.saturating_mul(self.cards_per_nft)
    }

    /// The factor of each card, in the order of `cards`. The best are boosted: those of the highest
    /// `strength`, and of equals those whose `id` is smaller, so that everybody computes the same.
    pub fn of_cards<Id: Ord>(&self, nfts: u32, cards: &[(Id, u64)]) -> Vec<Multiplier> {
        let mut best: Vec<usize> = (0..cards.len()).collect();
        best.sort_by(|&a, &b| {
            let (one, two) = (&cards[a], &cards[b]);
            two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0))
        });
        let mut factors = vec![Multiplier::ONE; cards.len()];
        let boosted = usize::try_from(self.boosted_cards(nfts)).unwrap_or(usize::MAX);
        for &card in best.iter().take(boosted) {
            factors[card] = self.multiplier(nfts);
        }
        factors
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_built_in_steps_rise() {
        let table = BoostTable::built_in();
        assert_eq!(table.cards_per_nft, 3);
        assert!(table.steps.is_sorted_by(|a, b| {
            a.nfts < b.nfts && a.basis_points < b.basis_points && a.basis_points > ONE
        }));
        for (nfts, factor) in
            [(0, "1"), (1, "1.1"), (2, "1.15"), (3, "1.2"), (4, "1.2"), (5, "1.25"), (500, "1.3")]
        {
            assert_eq!(table.multiplier(nfts).to_string(), factor, "{nfts}");
        }
    }

    #[test]
    fn each_piece_boosts_the_three_best() {
        let table = BoostTable::built_in();
        let cards = [("b", 24), ("a", 8), ("c", 24), ("d", 12), ("e", 8)];
        let factors = |nfts| -> Vec<String> {
            table.of_cards(nfts, &cards).iter().map(ToString::to_string).collect()
        };
        assert_eq!(factors(0), ["1"; 5]);
        assert_eq!(factors(1), ["1.1", "1", "1.1", "1.1", "1"]);
        assert_eq!(factors(2), ["1.15"; 5]);
        let twins = [("z", 8), ("y", 8), ("x", 8), ("w", 8)];
        let boosted = table.of_cards(1, &twins);
        assert_eq!(boosted[0], Multiplier::ONE, "of equals the smaller names are boosted");
        assert_eq!(table.of_cards(u32::MAX, &[("a", 1)])[0].to_string(), "1.3");
    }

    proptest! {
        #[test]
        fn the_order_of_the_cards_decides_nothing(
            strengths in proptest::collection::vec(0_u64..5, 0..12),
            nfts in 0_u32..6,
            turn in 0_usize..12,
        ) {
            let table = BoostTable::built_in();
            let cards: Vec<(usize, u64)> = strengths.into_iter().enumerate().collect();
            let mut turned = cards.clone();
            if !cards.is_empty() {
                turned.rotate_left(turn % cards.len());
            }
            let mut one: Vec<_> = cards.iter().zip(table.of_cards(nfts, &cards)).collect();
            let mut two: Vec<_> = turned.iter().zip(table.of_cards(nfts, &turned)).collect();
            one.sort_by_key(|(card, _)| card.0);
            two.sort_by_key(|(card, _)| card.0);
            prop_assert_eq!(&one, &two);
            let boosted = one.iter().filter(|(_, factor)| *factor != Multiplier::ONE).count();
            prop_assert_eq!(boosted, cards.len().min(nfts as usize * 3));
        }
    }
}
