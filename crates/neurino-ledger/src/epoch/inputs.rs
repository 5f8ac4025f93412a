//! What an epoch is computed from, and how its entries add up to that.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{ModelId, NodeId, PointsKind};
use serde::{Deserialize, Serialize};

use super::{
    Address, EPOCH_MS, Entries, Entry, EpochError, EpochRules, Hash, Movement, Source, Tokens,
};

/// One value for each kind of points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerKind<T> {
    /// For text.
    pub llama: T,
    /// For images.
    pub waifu: T,
}

impl<T> PerKind<T> {
    /// The value of a kind.
    pub fn of(&self, kind: PointsKind) -> &T {
        match kind {
            PointsKind::Llama => &self.llama,
            PointsKind::Waifu => &self.waifu,
        }
    }

    pub(super) fn of_mut(&mut self, kind: PointsKind) -> &mut T {
        match kind {
            PointsKind::Llama => &mut self.llama,
            PointsKind::Waifu => &mut self.waifu,
        }
    }

    /// One value for each kind, by a function of the kind.
    pub(super) fn try_each<E>(
        mut value: impl FnMut(PointsKind) -> Result<T, E>,
    ) -> Result<Self, E> {
        Ok(Self { llama: value(PointsKind::Llama)?, waifu: value(PointsKind::Waifu)? })
    }
}

/// Points of a node in an epoch, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Paid for results.
    pub earned_micro: i64,
    /// Called back, of this epoch or earlier ones.
    pub called_back_micro: i64,
    /// Given back after appeals.
    pub given_back_micro: i64,
    /// What was called back beyond what the node had, from the epoch before; zero or less.
    pub carried_micro: i64,
}

impl Sums {
    /// What counts, and what is carried on because more was called back than there was.
    pub(super) fn settled(&self) -> Option<(i64, i64)> {
        let net = self
            .earned_micro
            .checked_sub(self.called_back_micro)?
            .checked_add(self.given_back_micro)?
            .checked_add(self.carried_micro)?;
        Some((net.max(0), net.min(0)))
    }

    fn add(&mut self, movement: Movement, micro: i64) -> Option<()> {
        let sum = match movement {
            Movement::Reward => &mut self.earned_micro,
            Movement::Clawback => &mut self.called_back_micro,
            Movement::Return => &mut self.given_back_micro,
        };
        *sum = sum.checked_add(micro)?;
        Some(())
    }

    /// Whether it holds nothing at all.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a node did in an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeInput {
    /// The node.
    pub node: NodeId,
    /// Who is paid for it.
    pub reward: Address,
    /// Votes for it.
    pub votes: u64,
    /// All its points.
    pub points: PerKind<Sums>,
    /// Those that count for the dynamic pools.
    pub organic: PerKind<Sums>,
}

/// What an address holds that multiplies its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The address.
    pub reward: Address,
    /// Pieces of the collection.
    pub nfts: u32,
    /// Its stake.
    pub stake: Tokens,
}

/// When the holdings were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// On which chain.
    pub chain_id: u64,
    /// At which block.
    pub block: u64,
    /// When, in milliseconds since the Unix epoch.
    pub taken_at_ms: i64,
}

/// What an address had earned before, in all epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The address.
    pub reward: Address,
    /// How much.
    pub cumulative: Tokens,
}

/// What was asked for and paid in an epoch, of one kind of points: raw and organic side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// Paid results.
    pub jobs: u64,
    /// Different payers.
    pub payers: u64,
    /// All points of the results, in millionths.
    pub raw_micro: i64,
    /// Those somebody paid for.
    pub paid_micro: i64,
    /// Those that cost their payers nothing.
    pub free_micro: i64,
    /// Those of payers that own the node or run the network.
    pub own_micro: i64,
    /// Those of work that checks other work.
    pub audit_micro: i64,
    /// Those that count for the dynamic pool.
    pub organic_micro: i64,
    /// Fees that did not come back to their payers, in micro-credits.
    pub fees_micro: i64,
    /// Raw and organic points of each model, in millionths.
    pub models: BTreeMap<ModelId, ModelDemand>,
}

/// The same of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelDemand {
    /// Paid results.
    pub jobs: u64,
    /// All their points.
    pub raw_micro: i64,
    /// Those that count.
    pub organic_micro: i64,
}

/// Everything an epoch is computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochInputs {
    /// The network's name.
    pub network: String,
    /// Weeks since Thursday, 1 January 1970.
    pub epoch: i64,
    /// Its first millisecond since the Unix epoch.
    pub start_ms: i64,
    /// The first millisecond after it.
    pub end_ms: i64,
    /// From when on the shares may be claimed: until then work can be called back.
    pub claimable_from_ms: i64,
    /// SHA-256 of the canonical file of the epoch before; absent for the first.
    pub previous_sha256: Option<Hash>,
    /// The rules, whole.
    pub rules: EpochRules,
    /// The key by which results were drawn for audits in this epoch; it says nothing of other epochs.
    pub audit_key: Option<Hash>,
    /// When holdings were looked at; absent if they never were.
    pub snapshot: Option<Snapshot>,
    /// The movements of points behind the sums.
    pub entries: Entries,
    /// What was asked for.
    pub demand: PerKind<Demand>,
    /// Nodes with points, by id.
    pub nodes: Vec<NodeInput>,
    /// Holdings of those who are paid, by address.
    pub holders: Vec<Holder>,
    /// What everybody had before, by address.
    pub before: Vec<Before>,
}

impl EpochInputs {
    /// The bounds of an epoch.
    pub fn bounds(epoch: i64) -> Option<(i64, i64)> {
        let start = epoch.checked_mul(EPOCH_MS)?;
        Some((start, start.checked_add(EPOCH_MS)?))
    }

    /// Refuses inputs that contradict themselves.
    pub(super) fn check(&self) -> Result<(), EpochError> {
        let wrong = |at: &str, fault: &str| EpochError::Input {
            at: at.to_owned(),
            fault: fault.to_owned(),
        };
        self.rules.check()?;
        if self.epoch < 0 || Self::bounds(self.epoch) != Some((self.start_ms, self.end_ms)) {
            return Err(wrong("inputs.epoch", "its number, start and end do not belong together"));
        }
        if self.claimable_from_ms < self.end_ms {
            return Err(wrong("inputs.claimable_from_ms", "it is before the end"));
        }
        if !self.nodes.is_sorted_by(|a, b| a.node < b.node) {
            return Err(wrong("inputs.nodes", "they are not sorted, or one is there twice"));
        }
        if !self.holders.is_sorted_by(|a, b| a.reward < b.reward) {
            return Err(wrong("inputs.holders", "they are not sorted, or one is there twice"));
        }
        if !self.before.is_sorted_by(|a, b| a.reward < b.reward) {
            return Err(wrong("inputs.before", "they are not sorted, or one is there twice"));
        }
        // The first epoch has nothing to go on from: without a file before it, nobody could check it.
        let is_first = self.previous_sha256.is_none();
        if is_first && !self.before.is_empty() {
            return Err(wrong("inputs.before", "nothing was shared before the first epoch"));
        }
        for node in &self.nodes {
            let at = || format!("inputs.nodes[{}]", node.node);
            for kind in [PointsKind::Llama, PointsKind::Waifu] {
                let (points, organic) = (node.points.of(kind), node.organic.of(kind));
                for sums in [points, organic] {
                    let parts = [sums.earned_micro, sums.called_back_micro, sums.given_back_micro];
                    if parts.iter().any(|part| *part < 0) || sums.carried_micro > 0 {
                        return Err(wrong(&at(), "a sum has the wrong sign"));
                    }
                    if is_first && sums.carried_micro != 0 {
                        return Err(wrong(&at(), "nothing is owed from before the first epoch"));
                    }
                    if sums.settled().is_none() {
                        return Err(wrong(&at(), "its sums do not fit"));
                    }
                }
                if organic.earned_micro > points.earned_micro {
                    return Err(wrong(&at(), "more organic points than points"));
                }
            }
        }
        Ok(())
    }
}

/// What the entries of an epoch come to, added up one by one: a sum for each node, model and payer.
#[derive(Debug, Default)]
pub struct EpochSums {
    pub(super) nodes: BTreeMap<NodeId, (PerKind<Sums>, PerKind<Sums>)>,
    pub(super) demand: PerKind<Demand>,
    payers: PerKind<BTreeSet<String>>,
}

impl EpochSums {
    pub(super) fn of(entries: &[Entry]) -> Result<Self, EpochError> {
        let mut sums = Self::default();
        for entry in entries {
            sums.add(entry)?;
        }
        Ok(sums)
    }

    /// Adds one entry, in any order.
    ///
    /// # Errors
    /// `Number`.
    pub fn add(&mut self, entry: &Entry) -> Result<(), EpochError> {
        self.try_add(entry).ok_or(EpochError::Number("a sum of points"))?;
        let counts = entry.movement == Movement::Reward && entry.source != Source::Audit;
        let payers = self.payers.of_mut(entry.points);
        if counts && !payers.contains(&entry.payer) {
            payers.insert(entry.payer.clone());
            self.demand.of_mut(entry.points).payers += 1;
        }
        Ok(())
    }

    /// The nodes of the epoch, those with entries and those that still owe from the one before, and what
    /// was asked for.
    ///
    /// `carried` is what each node owes in points and organic points; `about` says who is paid for a node
    /// and how many votes it has, `None` if nobody can be paid.
    pub fn inputs(
        self,
        carried: &BTreeMap<NodeId, (PerKind<i64>, PerKind<i64>)>,
        mut about: impl FnMut(&NodeId) -> Option<(Address, u64)>,
    ) -> (Vec<NodeInput>, PerKind<Demand>) {
        let Self { mut nodes, demand, .. } = self;
        for (node, (points, organic)) in carried {
            let (own, own_organic) = nodes.entry(node.clone()).or_default();
            for kind in [PointsKind::Llama, PointsKind::Waifu] {
                own.of_mut(kind).carried_micro = *points.of(kind);
                own_organic.of_mut(kind).carried_micro = *organic.of(kind);
            }
        }
        let inputs = nodes.into_iter().filter_map(|(node, (points, organic))| {
            let sums = [&points.llama, &points.waifu, &organic.llama, &organic.waifu];
            let (reward, votes) = about(&node)?;
            (!sums.iter().all(|sums| sums.is_nothing())).then_some(NodeInput {
                node,
                reward,
                votes,
                points,
                organic,
            })
        });
        (inputs.collect(), demand)
    }

    fn try_add(&mut self, entry: &Entry) -> Option<()> {
        let (points, organic) = self.nodes.entry(entry.node.clone()).or_default();
        points.of_mut(entry.points).add(entry.movement, entry.points_micro)?;
        organic.of_mut(entry.points).add(entry.movement, entry.organic_micro)?;
        if entry.movement != Movement::Reward {
            return Some(());
        }
        let demand = self.demand.of_mut(entry.points);
        let by_source = match entry.source {
            Source::Paid => &mut demand.paid_micro,
            Source::Free => &mut demand.free_micro,
            Source::Own => &mut demand.own_micro,
            Source::Audit => &mut demand.audit_micro,
        };
        *by_source = by_source.checked_add(entry.points_micro)?;
        demand.jobs += 1;
        demand.raw_micro = demand.raw_micro.checked_add(entry.points_micro)?;
        demand.organic_micro = demand.organic_micro.checked_add(entry.organic_micro)?;
        demand.fees_micro = demand.fees_micro.checked_add(entry.fee_micro)?;
        let model = demand.models.entry(entry.model.clone()).or_default();
        model.jobs += 1;
        model.raw_micro = model.raw_micro.checked_add(entry.points_micro)?;
        model.organic_micro = model.organic_micro.checked_add(entry.organic_micro)?;
        Some(())
    }
}

/// [`EpochSums::inputs`] of all entries at once.
///
/// # Errors
/// `Number`.
pub fn nodes_of(
    entries: &[Entry],
    carried: &BTreeMap<NodeId, (PerKind<i64>, PerKind<i64>)>,
    about: impl FnMut(&NodeId) -> Option<(Address, u64)>,
) -> Result<(Vec<NodeInput>, PerKind<Demand>), EpochError> {
    Ok(EpochSums::of(entries)?.inputs(carried, about))
}
