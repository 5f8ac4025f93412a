//! The file of an epoch: inputs, result, and the coordinator's signature over both.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{LeaseId, NodeId, PointsKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::inputs::{EpochSums, Sums};
use super::merkle::{lead, leaf, proof_of};
use super::{
    Address, Entries, Entry, EpochError, EpochInputs, EpochResult, Hash, Movement, Source, Tokens,
    Work, canonical_json, compute, weigh,
};

/// What the files of this version call themselves.
pub const FORMAT: &str = "neurino epoch v1";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochFile {
    /// [`FORMAT`].
    pub format: String,
    /// What it is computed from.
    pub inputs: EpochInputs,
    /// What it comes to.
    pub result: EpochResult,
    /// Address of the coordinator's key.
    pub coordinator: String,
    /// Its signature over [`EpochFile::message`].
    pub signature: String,
}

/// That an address has a share: what a claim hands to a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The network's name.
    pub network: String,
    /// The epoch.
    pub epoch: i64,
    /// The root it leads to.
    pub root: Hash,
    /// Whose.
    pub account: Address,
    /// Earned in all epochs.
    pub cumulative: Tokens,
    /// The nodes beside the way, from the leaf up.
    pub proof: Vec<Hash>,
}

impl Proof {
    /// Follows the proof.
    ///
    /// # Errors
    /// `BadProof`.
    pub fn check(&self) -> Result<(), EpochError> {
        let Self { account, cumulative, .. } = *self;
        if lead(leaf(account, cumulative), &self.proof) == self.root {
            return Ok(());
        }
        Err(EpochError::BadProof { account, cumulative })
    }
}

impl EpochFile {
    /// Computes an epoch. The signature is still to be made.
    ///
    /// # Errors
    /// As [`compute`].
    pub fn new(inputs: EpochInputs, coordinator: String) -> Result<Self, EpochError> {
        let result = compute(&inputs)?;
        let signature = String::new();
        Ok(Self { format: FORMAT.into(), inputs, result, coordinator, signature })
    }

    /// SHA-256 of the canonical JSON of format, inputs and result.
    ///
    /// # Errors
    /// `Number`.
    pub fn content_sha256(&self) -> Result<Hash, EpochError> {
        let content =
            json!({ "format": self.format, "inputs": self.inputs, "result": self.result });
        Ok(Hash(Sha256::digest(canonical_json(&content)?).into()))
    }

    /// SHA-256 of the canonical file, which the next one names.
    ///
    /// # Errors
    /// `Number`.
    pub fn sha256(&self) -> Result<Hash, EpochError> {
        Ok(Hash(Sha256::digest(self.canonical()?).into()))
    }

    /// The file as it is kept and served.
    ///
    /// # Errors
    /// `Number`.
    pub fn canonical(&self) -> Result<String, EpochError> {
        canonical_json(self)
    }

    /// The text the coordinator signs (EIP-191 personal message).
    ///
    /// # Errors
    /// `Number`.
    pub fn message(&self) -> Result<String, EpochError> {
        Ok(format!(
            "{FORMAT}\nnetwork: {}\nepoch: {}\nroot: {}\ntotal: {}\nsha256: {}\ncoordinator: {}",
            self.inputs.network,
            self.inputs.epoch,
            self.result.root,
            self.result.total,
            self.content_sha256()?,
            self.coordinator,
        ))
    }

    /// Computes everything again from the file's own inputs.
    ///
    /// # Errors
    /// `Differs` with the first place where the file says something else; `Input`, `Rules`, `Number`.
    pub fn verify(&self) -> Result<(), EpochError> {
        if self.format != FORMAT {
            return Err(differs("format", &json!(self.format), &json!(FORMAT)));
        }
        let expected = compute(&self.inputs)?;
        let value = |result: &EpochResult| serde_json::to_value(result).unwrap_or_default();
        match first_difference("result", &value(&self.result), &value(&expected)) {
            Some(difference) => Err(difference),
            None => self.canonical().map(drop),
        }
    }

    /// What leads from an address's leaf to the root.
    ///
    /// # Errors
    /// `NoShare`.
    pub fn proof(&self, account: Address) -> Result<Proof, EpochError> {
        let accounts = &self.result.accounts;
        let place = accounts.binary_search_by_key(&account, |own| own.reward);
        let place = place.map_err(|_| EpochError::NoShare(account))?;
        let leaves: Vec<Hash> = accounts.iter().map(|own| own.leaf).collect();
        Ok(Proof {
            network: self.inputs.network.clone(),
            epoch: self.inputs.epoch,
            root: self.result.root,
            account,
            cumulative: accounts[place].cumulative,
            proof: proof_of(&leaves, place),
        })
    }
}

fn differs(at: &str, found: &Value, expected: &Value) -> EpochError {
    let shown = |value: &Value| match value.to_string() {
        text if text.len() > 120 => format!("{}...", text.chars().take(120).collect::<String>()),
        text => text,
    };
    EpochError::Differs { at: at.to_owned(), found: shown(found), expected: shown(expected) }
}

/// The first place where two values differ.
fn first_difference(at: &str, found: &Value, expected: &Value) -> Option<EpochError> {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            a.iter().find_map(|(name, value)| match b.get(name) {
                Some(other) => first_difference(&format!("{at}.{name}"), value, other),
                None => Some(differs(&format!("{at}.{name}"), value, &Value::Null)),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(n, (a, b))| first_difference(&format!("{at}[{n}]"), a, b))
        }
        (Value::Array(a), Value::Array(b)) => {
            Some(differs(&format!("{at}.length"), &json!(a.len()), &json!(b.len())))
        }
        _ => (found != expected).then(|| differs(at, found, expected)),
    }
}

/// Holds a file against the entries that its sums are said to be sums of.
///
/// # Errors
/// `Differs` with the first place, `Input` for entries that contradict themselves, `Number`.
pub fn check_entries(file: &EpochFile, entries: &[Entry]) -> Result<(), EpochError> {
    let inputs = &file.inputs;
    let wrong = |n: usize, fault: &str| EpochError::Input {
        at: format!("entry {}", n + 1),
        fault: fault.into(),
    };
    let rewards = entries.iter().filter(|entry| entry.movement == Movement::Reward);
    let rewards: BTreeSet<LeaseId> = rewards.map(|entry| entry.lease).collect();
    for (n, entry) in entries.iter().enumerate() {
        if n > 0 && entries[n - 1].place() >= entry.place() {
            return Err(wrong(n, "it is not in order, or there twice"));
        }
        // Pay that was called back before the file was made is taken off where it was earned.
        let follows = entry.movement != Movement::Reward && rewards.contains(&entry.lease);
        if entry.at_ms >= inputs.end_ms && !follows {
            return Err(wrong(n, "it is from after the epoch"));
        }
        if entry.points_micro < 0 || !(0..=entry.points_micro).contains(&entry.organic_micro) {
            return Err(wrong(n, "its points are negative, or more of them count than there are"));
        }
    }
    let summary = |entries| serde_json::to_value(entries).unwrap_or_default();
    let found = summary(inputs.entries);
    if let Some(error) = first_difference("inputs.entries", &found, &summary(Entries::of(entries)?))
    {
        return Err(error);
    }
    check_movements(entries)?;
    check_weights(file, entries)?;
    let added = EpochSums::of(entries)?;
    let demand = |demand| serde_json::to_value(demand).unwrap_or_default();
    if let Some(error) =
        first_difference("inputs.demand", &demand(&inputs.demand), &demand(&added.demand))
    {
        return Err(error);
    }
    for node in &inputs.nodes {
        let (mut points, mut organic) = added.nodes.get(&node.node).copied().unwrap_or_default();
        // What was carried stands in no entry of this epoch.
        for (own, said) in [(&mut points, &node.points), (&mut organic, &node.organic)] {
            own.llama.carried_micro = said.llama.carried_micro;
            own.waifu.carried_micro = said.waifu.carried_micro;
        }
        let at = node_at(&node.node);
        let found = json!({ "points": node.points, "organic": node.organic });
        let expected = json!({ "points": points, "organic": organic });
        if let Some(error) = first_difference(&at, &found, &expected) {
            return Err(error);
        }
    }
    check_nobody_is_missing(file, &added)
}

fn node_at(node: &NodeId) -> String {
    format!("inputs.nodes[{node}]")
}

/// Whoever can be paid and has points must be among the nodes: those whose id begins with the address
/// that they are paid to, or with one that is bound to another.
fn check_nobody_is_missing(file: &EpochFile, added: &EpochSums) -> Result<(), EpochError> {
    let nodes = &file.inputs.nodes;
    for (node, (points, organic)) in &added.nodes {
        let is_there = nodes.binary_search_by(|own| own.node.cmp(node)).is_ok();
        let kinds = [PointsKind::Llama, PointsKind::Waifu];
        let sums = || kinds.iter().flat_map(|kind| [points.of(*kind), organic.of(*kind)]);
        if is_there || !is_payable(node) || sums().all(Sums::is_nothing) {
            continue;
        }
        let entries = json!({ "points": points, "organic": organic });
        return Err(differs(&node_at(node), &Value::Null, &entries));
    }
    Ok(())
}

/// Whether a node's id names an address that can be paid.
fn is_payable(node: &NodeId) -> bool {
    let id = node.as_str();
    id.split_at_checked(42).map_or(id, |(address, _)| address).parse::<Address>().is_ok()
}

/// Each movement of a lease is there once, and what came after a reward moves what the reward paid.
/// The reward of an earlier epoch is in that epoch's entries.
fn check_movements(entries: &[Entry]) -> Result<(), EpochError> {
    let mut seen: BTreeSet<(LeaseId, Movement)> = BTreeSet::new();
    let rewards = entries.iter().filter(|entry| entry.movement == Movement::Reward);
    let rewards: BTreeMap<LeaseId, &Entry> = rewards.map(|entry| (entry.lease, entry)).collect();
    let clawbacks = entries.iter().filter(|entry| entry.movement == Movement::Clawback);
    let clawbacks: BTreeMap<LeaseId, &Entry> =
        clawbacks.map(|entry| (entry.lease, entry)).collect();
    for (n, entry) in entries.iter().enumerate() {
        let wrong = |fault: &str| {
            let (at, fault) = (format!("entry {}", n + 1), fault.to_owned());
            Err(EpochError::Input { at, fault })
        };
        if !seen.insert((entry.lease, entry.movement)) {
            return wrong("its lease moved so before");
        }
        let (reward, clawback) = (rewards.get(&entry.lease), clawbacks.get(&entry.lease));
        if entry.movement == Movement::Return && clawback.is_none() && reward.is_some() {
            return wrong("it gives back what was not called back");
        }
        let moved = |entry: &Entry| {
            (entry.node.clone(), entry.job, entry.points, entry.points_micro, entry.organic_micro)
        };
        // A return whose reward is of an earlier epoch still moves what its claw-back moved.
        if let Some(first) = reward.or(clawback)
            && moved(first) != moved(entry)
        {
            return wrong("it moves something else than the reward of its lease");
        }
    }
    Ok(())
}

/// Computes again which of the work counts.
fn check_weights(file: &EpochFile, entries: &[Entry]) -> Result<(), EpochError> {
    let rewards: Vec<(usize, &Entry)> =
        entries.iter().enumerate().filter(|(_, e)| e.movement == Movement::Reward).collect();
    let works: Vec<Work<'_>> = rewards
        .iter()
        .map(|(_, entry)| Work {
            payer: &entry.payer,
            kind: entry.points,
            points_micro: entry.points_micro,
            fee_micro: if entry.source == Source::Paid { entry.fee_micro } else { 0 },
            source: entry.source,
        })
        .collect();
    for ((n, entry), organic) in rewards.iter().zip(weigh(&file.inputs.rules, &works)) {
        if entry.organic_micro != organic {
            let at = format!("entry {}.organic_micro", n + 1);
            return Err(differs(&at, &json!(entry.organic_micro), &json!(organic)));
        }
    }
    Ok(())
}

/// Holds a file against the one before it: nothing that was shared is forgotten, and no debt either.
///
/// # Errors
/// `Differs` with the first place, `Number`.
pub fn check_against(file: &EpochFile, previous: &EpochFile) -> Result<(), EpochError> {
    let (inputs, before) = (&file.inputs, &previous.inputs);
    if inputs.network != before.network {
        return Err(differs("inputs.network", &json!(inputs.network), &json!(before.network)));
    }
    if inputs.epoch <= before.epoch {
        return Err(EpochError::Input {
            at: "inputs.epoch".into(),
            fault: format!("it is not after {}", before.epoch),
        });
    }
    let named = json!(inputs.previous_sha256);
    let digest = json!(previous.sha256()?);
    if named != digest {
        return Err(differs("inputs.previous_sha256", &named, &digest));
    }
    let shared = previous.result.accounts.iter().map(|own| (own.reward, own.cumulative));
    let shared: BTreeMap<_, _> = shared.collect();
    let said: BTreeMap<_, _> = inputs.before.iter().map(|b| (b.reward, b.cumulative)).collect();
    let map = |map: &BTreeMap<Address, Tokens>| {
        map.iter().map(|(reward, sum)| (reward.to_string(), json!(sum))).collect::<Value>()
    };
    if let Some(error) = first_difference("inputs.before", &map(&said), &map(&shared)) {
        return Err(error);
    }
    let owed = |file: &EpochFile, carried_in: bool| -> Value {
        let nodes = file.inputs.nodes.iter().zip(&file.result.nodes);
        let all = nodes.map(|(input, result)| {
            let (points, organic) = (input.points, input.organic);
            let debt = if carried_in {
                [points.llama, points.waifu, organic.llama, organic.waifu]
                    .map(|sums| sums.carried_micro)
            } else {
                let (points, organic) = (result.carried_micro, result.organic_carried_micro);
                [points.llama, points.waifu, organic.llama, organic.waifu]
            };
            (input.node.to_string(), debt)
        });
        all.filter(|(_, debt)| debt.iter().any(|debt| *debt != 0))
            .map(|(node, debt)| (node, json!(debt)))
            .collect()
    };
    match first_difference("inputs.nodes.carried", &owed(file, true), &owed(previous, false)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
