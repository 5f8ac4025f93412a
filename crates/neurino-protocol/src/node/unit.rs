//! What a node consists of, as far as jobs go to its parts one by one: a card, a group of cards that keep
//! one model together, an instance of a card that is divided for good (MIG), or a time slice of a card
//! that several share.
//!
//! A node says what it has and is believed, as it is about its memory. What the coordinator does with it:
//! a unit gets no more jobs than its slots; units that take each other's cards are not busy at the same time;
//! the slices of a card hold together no more than its memory, and get only models that may be computed
//! beside strangers' work.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{ModelId, UnitId};
use serde::{Deserialize, Serialize};

use super::Ready;
use crate::error::{ErrorBody, ErrorCode};

/// Most units of a node, and most slots of all of them.
pub const UNITS_MAX: usize = 64;
/// A whole card, in the unit of [`UnitKind::Slice`].
pub const SHARE_WHOLE_PPM: u32 = 1_000_000;

/// A part of a node that takes jobs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name: leases and advice name it.
    pub id: UnitId,
    /// What it is, and of which cards.
    #[serde(flatten)]
    pub kind: UnitKind,
    /// Its memory in bytes, of all its cards together; of a slice, that of the card, which all of its
    /// slices share. Zero if unknown.
    pub memory_bytes: u64,
    /// The device, where it is not the one that the hello names: results of equal devices can be compared
    /// bit by bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Models of [`Ready::models`] that it serves, loaded ones first.
    pub models: Vec<ModelId>,
    /// Jobs it takes at once.
    pub slots: u32,
    /// Whether none of its models is loaded, not even the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cold: bool,
}

/// What a unit is. Cards are numbered by the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum UnitKind {
    /// A card, and all of it.
    Whole {
        /// Which.
        card: u8,
    },
    /// Several cards that hold one model together.
    Group {
        /// Which; at least two.
        cards: Vec<u8>,
    },
    /// A part of a card with memory and processors of its own, as MIG makes them.
    Instance {
        /// Of which card.
        card: u8,
    },
    /// A share of a card's time. Its memory is the card's, and nothing keeps its slices apart.
    Slice {
        /// Of which card.
        card: u8,
        /// How much of its time, in millionths.
        share_ppm: u32,
    },
}

/// What the work of one unit means for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Apart,
    /// They share a card's memory.
    SharesMemory,
    /// They are the same card, at least in part: only one of them can work.
    Excludes,
}

impl UnitKind {
    /// The name in metrics and on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Whole { .. } => "whole",
            Self::Group { .. } => "group",
            Self::Instance { .. } => "instance",
            Self::Slice { .. } => "slice",
        }
    }

    /// Its cards.
    pub fn cards(&self) -> &[u8] {
        match self {
            Self::Group { cards } => cards,
            Self::Whole { card } | Self::Instance { card } | Self::Slice { card, .. } => {
                std::slice::from_ref(card)
            }
        }
    }

    /// What work on one of two units means for the other.
    pub fn beside(&self, other: &Self) -> Beside {
        if !self.cards().iter().any(|card| other.cards().contains(card)) {
            return Beside::Apart;
        }
        match (self, other) {
            // The driver keeps them apart.
            (Self::Instance { .. }, Self::Instance { .. }) => Beside::Apart,
            (Self::Slice { .. }, Self::Slice { .. }) => Beside::SharesMemory,
            _ => Beside::Excludes,
        }
    }
}

impl Ready {
    /// Whether its units can be what they say.
    ///
    /// # Errors
    /// `InvalidRequest`: too many, doubled names, a group of one card, slices that are more than a card or do
    /// not agree about its memory.
    pub fn check_units(&self) -> Result<(), ErrorBody> {
        let refused = |message: String| {
            Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("announce fewer units, or none: the node is one then"))
        };
        if self.units.len() > UNITS_MAX {
            return refused(format!("a node has at most {UNITS_MAX} units"));
        }
        let mut ids = BTreeSet::new();
        let mut slices: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
        for Unit { id, kind, memory_bytes, .. } in &self.units {
            if !ids.insert(*id) {
                return refused(format!("two units are called {id}"));
            }
            match kind {
                UnitKind::Group { cards } => {
                    let different: BTreeSet<&u8> = cards.iter().collect();
                    if cards.len() < 2 || different.len() < cards.len() {
                        return refused(format!("unit {id} is no group of several cards"));
                    }
                }
                UnitKind::Slice { card, share_ppm } => {
                    let of_card = slices.entry(*card).or_insert((*memory_bytes, 0));
                    of_card.1 += u64::from(*share_ppm);
                    if *share_ppm == 0 || of_card.1 > u64::from(SHARE_WHOLE_PPM) {
                        return refused(format!("the slices of card {card} are not one card"));
                    }
                    // What they hold together is compared with it.
                    if *memory_bytes == 0 || of_card.0 != *memory_bytes {
                        let words = format!("the slices of card {card} must name its memory");
                        return refused(words);
                    }
                }
                UnitKind::Whole { .. } | UnitKind::Instance { .. } => {}
            }
        }
        let slots = self.units.iter().fold(0u32, |sum, unit| sum.saturating_add(unit.slots));
        if slots as usize > UNITS_MAX {
            return refused(format!("units take at most {UNITS_MAX} jobs together"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(id: u8, kind: UnitKind) -> Unit {
        let models = vec![ModelId::new("a").expect("valid")];
        Unit { id: UnitId(id), kind, memory_bytes: 8, device: None, models, slots: 1, cold: false }
    }

    fn slice(id: u8, card: u8, share_ppm: u32) -> Unit {
        unit(id, UnitKind::Slice { card, share_ppm })
    }

    fn check(units: Vec<Unit>) -> Result<(), String> {
        Ready { units, ..Ready::default() }.check_units().map_err(|error| error.message)
    }

    #[test]
    fn units_that_cannot_be_are_refused_in_words() {
        assert_eq!(check(vec![]), Ok(()));
        let group = |cards: &[u8]| unit(3, UnitKind::Group { cards: cards.to_vec() });
        let whole = |id, card| unit(id, UnitKind::Whole { card });
        assert_eq!(check(vec![whole(0, 0), whole(1, 1), group(&[0, 1])]), Ok(()));
        assert_eq!(check(vec![slice(0, 0, 600_000), slice(1, 0, 400_000)]), Ok(()));
        assert_eq!(check(vec![slice(0, 0, 600_000), slice(1, 1, 600_000)]), Ok(()));
        let refused = [
            (vec![whole(1, 0), whole(1, 1)], "two units are called 1"),
            (vec![group(&[0])], "unit 3 is no group of several cards"),
            (vec![group(&[0, 0])], "unit 3 is no group of several cards"),
            (
                vec![slice(0, 4, 600_000), slice(1, 4, 400_001)],
                "the slices of card 4 are not one card",
            ),
            (vec![slice(0, 4, 0)], "the slices of card 4 are not one card"),
            (
                vec![slice(0, 4, 1), Unit { memory_bytes: 9, ..slice(1, 4, 1) }],
                "the slices of card 4 must name its memory",
            ),
            (
                vec![Unit { memory_bytes: 0, ..slice(1, 4, 1) }],
                "the slices of card 4 must name its memory",
            ),
            (vec![Unit { slots: 65, ..whole(0, 0) }], "units take at most 64 jobs together"),
            (
                vec![Unit { slots: u32::MAX, ..whole(0, 0) }, Unit { slots: 2, ..whole(1, 1) }],
                "units take at most 64 jobs together",
            ),
        ];
        for (units, words) in refused {
            assert_eq!(check(units), Err(words.to_owned()));
        }
        let many = (0..65).map(|n| Unit { slots: 0, ..whole(n, n) }).collect();
        assert_eq!(check(many), Err("a node has at most 64 units".to_owned()));
    }

    #[test]
    fn what_shares_a_card_is_in_each_others_way_and_parts_are_not() {
        let whole = UnitKind::Whole { card: 0 };
        let group = UnitKind::Group { cards: vec![0, 1] };
        let instance = UnitKind::Instance { card: 0 };
        let slice = UnitKind::Slice { card: 0, share_ppm: 1 };
        let away = UnitKind::Whole { card: 7 };
        for (a, b, beside) in [
            (&whole, &group, Beside::Excludes),
            (&whole, &instance, Beside::Excludes),
            (&group, &slice, Beside::Excludes),
            (&instance, &instance, Beside::Apart),
            (&slice, &slice, Beside::SharesMemory),
            (&group, &away, Beside::Apart),
        ] {
            assert_eq!((a.beside(b), b.beside(a)), (beside, beside), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_program_that_knows_no_units_reads_what_one_that_does_says_and_the_other_way() {
        // What was said before there were units.
        let old = r#"{"models":[{"id":"a"}],"slots":2}"#;
        let ready: Ready = serde_json::from_str(old).expect("reads");
        assert_eq!((ready.slots, ready.units.len()), (2, 0));
        assert_eq!(serde_json::to_string(&ready).expect("writes"), old);
        let ready = Ready { units: vec![slice(1, 0, 250_000)], ..ready };
        let said = serde_json::to_value(&ready).expect("writes");
        assert_eq!(
            said["units"][0],
            serde_json::json!({
                "id": 1, "kind": "slice", "card": 0, "share_ppm": 250_000, "memory_bytes": 8,
                "models": ["a"], "slots": 1
            })
        );
        // To an old program, the fields it knows are all there are.
        assert_eq!((&said["slots"], &said["models"][0]["id"]), (&2.into(), &"a".into()));
        assert_eq!(serde_json::from_value::<Ready>(said).expect("reads"), ready);
    }

    proptest! {
        /// Whatever is accepted has at most a whole card in slices, and at most so many slots.
        #[test]
        fn accepted_slices_are_at_most_a_card(
            drawn in prop::collection::vec((0u8..3, 0u32..700_000, 0u32..40), 0..8),
        ) {
            let units = (0u8..).zip(&drawn).map(|(id, (card, share_ppm, slots))| Unit {
                slots: *slots,
                ..slice(id, *card, *share_ppm)
            });
            let units: Vec<Unit> = units.collect();
            let sum = |card: u8| {
                let of = drawn.iter().filter(|(of, ..)| *of == card);
                of.map(|(_, share_ppm, _)| share_ppm).sum::<u32>()
            };
            let fits = (0..3).all(|card| sum(card) <= SHARE_WHOLE_PPM)
                && drawn.iter().all(|(_, share_ppm, _)| *share_ppm > 0)
                && drawn.iter().map(|(.., slots)| slots).sum::<u32>() <= 64;
            prop_assert_eq!(check(units).is_ok(), fits);
        }
    }
}
