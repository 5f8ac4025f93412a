//! Which owners serve what, so that a question about a model or a numeric class is not asked of every node:
//! of an audit it is asked twice a second until somebody can compute it again.

use std::collections::BTreeMap;

use neurino_core::{ModelId, NodeId};

use super::party_of;
use super::units::Node;

/// Owners, by their parties, and how many nodes of theirs it is true of.
type Parties = BTreeMap<NodeId, usize>;

/// Owners of the connected nodes.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Of nodes with at least one slot, by model, with how many nodes these are.
    models: BTreeMap<ModelId, (usize, Parties)>,
    /// Of nodes with a unit of a numeric class.
    classes: BTreeMap<String, Parties>,
}

fn add(parties: &mut Parties, party: &NodeId) {
    match parties.get_mut(party) {
        Some(nodes) => *nodes += 1,
        None => drop(parties.insert(party.clone(), 1)),
    }
}

fn subtract(parties: &mut Parties, party: &NodeId) {
    if let Some(nodes) = parties.get_mut(party) {
        *nodes -= 1;
        if *nodes == 0 {
            parties.remove(party);
        }
    }
}

impl Index {
    /// Takes a node in.
    pub(super) fn insert(&mut self, id: &NodeId, node: &Node) {
        let party = party_of(id);
        for model in node.served() {
            let (nodes, parties) = self.models.entry(model.clone()).or_default();
            *nodes += 1;
            add(parties, &party);
        }
        for class in node.classes() {
            match self.classes.get_mut(class) {
                Some(parties) => add(parties, &party),
                None => add(self.classes.entry(class.to_owned()).or_default(), &party),
            }
        }
    }

    /// Takes it out, as it was taken in.
    pub(super) fn remove(&mut self, id: &NodeId, node: &Node) {
        let party = party_of(id);
        for model in node.served() {
            let Some((nodes, parties)) = self.models.get_mut(model) else { continue };
            *nodes -= 1;
            subtract(parties, &party);
            // Names that nobody serves any more are forgotten: they are free to make up.
            if *nodes == 0 {
                self.models.remove(model);
            }
        }
        for class in node.classes() {
            let Some(parties) = self.classes.get_mut(class) else { continue };
            subtract(parties, &party);
            if parties.is_empty() {
                self.classes.remove(class);
            }
        }
    }

    /// Models that a connected node serves.
    pub(super) fn models(&self) -> impl Iterator<Item = &ModelId> {
        self.models.keys()
    }

    /// Nodes that serve a model.
    pub(super) fn serving(&self, model: &ModelId) -> usize {
        self.models.get(model).map_or(0, |(nodes, _)| *nodes)
    }

    /// Owners that serve a model.
    pub(super) fn owners_serving(&self, model: &ModelId) -> impl Iterator<Item = &NodeId> {
        self.models.get(model).into_iter().flat_map(|(_, parties)| parties.keys())
    }

    /// Owners with a unit of a numeric class.
    pub(super) fn owners_of_class(&self, class: &str) -> impl Iterator<Item = &NodeId> {
        self.classes.get(class).into_iter().flat_map(Parties::keys)
    }
}
