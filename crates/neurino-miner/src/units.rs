//! What this node consists of, as the network hears it: a unit for each card, and one for cards together.
//!
//! Of an engine of one place, and where nobody said which cards its places have, the node is one and
//! announces no units. Slices of a card are announced by nobody here: nothing on this side would keep two
//! strangers' jobs on one card within their shares.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{ModelId, UnitId};
use neurino_engine::{Engine, ModelRef, PlaceCard, PlaceCards};
use neurino_protocol::node::unit::{UNITS_MAX, Unit, UnitKind};

/// Added to a place's number for the unit of all of its cards together.
const GROUP: u8 = 128;

/// The places of the engine.
#[derive(Debug, Default)]
pub(crate) struct Units {
    cards: Vec<PlaceCards>,
    /// What each place holds, as far as was heard.
    at: Vec<At>,
}

#[derive(Debug, Clone, Default)]
struct At {
    model: Option<ModelId>,
    /// Jobs it takes at once.
    slots: u32,
}

/// What the node takes now.
pub(crate) struct Taken<'a> {
    /// Whether it takes jobs at all.
    pub(crate) open: bool,
    /// Most jobs of a unit.
    pub(crate) most: u32,
    /// Whether there is to be one job at a time in all.
    pub(crate) alone: bool,
    /// Units that take none for now.
    pub(crate) held: &'a BTreeSet<UnitId>,
    pub(crate) models: &'a [ModelRef],
    /// Memory that models need at least, in bytes, where that is known.
    pub(crate) needs: &'a BTreeMap<ModelId, u64>,
}

impl Units {
    pub(crate) fn of(engine: &dyn Engine) -> Self {
        let cards = engine.place_cards();
        let few = cards.len() < usize::from(GROUP).min(UNITS_MAX / 2);
        let cards = if few && engine.places() > 1 { cards } else { Vec::new() };
        Self { at: vec![At::default(); cards.len()], cards }
    }

    /// A place holds a model now, of which it computes so many jobs at once.
    pub(crate) fn loaded(&mut self, place: usize, model: &ModelId, slots: u32) {
        if let Some(at) = self.at.get_mut(place) {
            *at = At { model: Some(model.clone()), slots };
        }
    }

    /// A place, or all of them, holds nothing any more.
    pub(crate) fn unloaded(&mut self, place: Option<usize>) {
        for (index, at) in self.at.iter_mut().enumerate() {
            if place.is_none_or(|place| place == index) {
                *at = At::default();
            }
        }
    }

    /// The place of a unit.
    pub(crate) fn place(&self, unit: UnitId) -> Option<usize> {
        let group = unit.0 >= GROUP;
        let place = usize::from(if group { unit.0 - GROUP } else { unit.0 });
        let cards = self.cards.get(place)?;
        (!group || cards.0.len() > 1).then_some(place)
    }

    /// The model in a place.
    pub(crate) fn held(&self, place: usize) -> Option<&ModelId> {
        self.at.get(place)?.model.as_ref()
    }

    /// Jobs that a place takes at once.
    pub(crate) fn slots(&self, place: usize) -> u32 {
        self.at.get(place).map_or(1, |at| at.slots.max(1))
    }

    /// The units.
    pub(crate) fn announced(&self, engine: &dyn Engine, taken: &Taken<'_>) -> Vec<Unit> {
        let mut units = Vec::new();
        for (place, PlaceCards(cards)) in self.cards.iter().enumerate() {
            let Some((first, others)) = cards.split_first() else { continue };
            let number = u8::try_from(place).unwrap_or(u8::MAX);
            let alone_bytes = first.memory_bytes;
            let of_card = |need: u64| alone_bytes == 0 || need <= alone_bytes;
            let kind = match first {
                PlaceCard { instance: true, number, .. } => UnitKind::Instance { card: *number },
                PlaceCard { number, .. } => UnitKind::Whole { card: *number },
            };
            units.push(self.unit(
                engine,
                taken,
                place,
                (number, kind, first, alone_bytes),
                of_card,
            ));
            if others.is_empty() {
                continue;
            }
            let all_bytes = cards.iter().map(|card| card.memory_bytes).sum();
            let kind = UnitKind::Group { cards: cards.iter().map(|card| card.number).collect() };
            let of_all = |need: u64| !of_card(need) && need <= all_bytes;
            let group = (number.saturating_add(GROUP), kind, first, all_bytes);
            let group = self.unit(engine, taken, place, group, of_all);
            if !group.models.is_empty() {
                units.push(group);
            }
        }
        // As many as a network takes of a node.
        let share = u32::try_from(UNITS_MAX / units.len().max(1)).unwrap_or(1);
        let mut first = true;
        for unit in &mut units {
            unit.slots = unit.slots.min(share);
            if taken.alone {
                unit.slots = if std::mem::take(&mut first) { unit.slots.min(1) } else { 0 };
            }
        }
        units
    }

    fn unit(
        &self,
        engine: &dyn Engine,
        taken: &Taken<'_>,
        place: usize,
        (id, kind, card, memory_bytes): (u8, UnitKind, &PlaceCard, u64),
        is_its: impl Fn(u64) -> bool,
    ) -> Unit {
        let id = UnitId(id);
        let need = |model: &ModelId| taken.needs.get(model).copied().unwrap_or(0);
        let served = |model: &&ModelId| engine.fits_place(model, place) && is_its(need(model));
        let mut models: Vec<ModelId> =
            taken.models.iter().map(|model| &model.id).filter(served).cloned().collect();
        let held = self.held(place).and_then(|held| models.iter().position(|model| model == held));
        let cold = held.is_none();
        if let Some(held) = held {
            models[..=held].rotate_right(1);
        }
        let open = taken.open && !taken.held.contains(&id);
        let slots = if cold { 1 } else { self.slots(place) };
        let slots = if open { slots.min(taken.most) } else { 0 };
        let device = Some(card.name.clone());
        Unit { id, kind, memory_bytes, device, models, slots, cold }
    }
}
