//! Points to shares, in integers. Every division rounds down; what that leaves over, and what nobody
//! earned, stays in the pool and is shown as dust.

use std::collections::BTreeMap;

use neurino_core::{Multiplier, NodeId, PointsKind};
use serde::{Deserialize, Serialize};

use super::inputs::PerKind;
use super::merkle::{leaf, root_of};
use super::rules::WHOLE;
use super::{Address, EpochError, EpochInputs, Hash, NodeInput, Tokens};

/// How a node's points were multiplied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFactors {
    /// The node.
    pub node: NodeId,
    /// By the stake of who is paid, in millionths.
    pub stake_ppm: u32,
    /// By votes.
    pub vote_ppm: u32,
    /// By pieces of the collection, for each kind of points: the nodes with the most points are boosted.
    pub nft_ppm: PerKind<u32>,
    /// Points times the factors, in 1e-18 points.
    pub score: PerKind<Tokens>,
    /// The same of organic points.
    pub organic_score: PerKind<Tokens>,
    /// What it still owes, in micro-points; zero or less.
    pub carried_micro: PerKind<i64>,
    /// The same of organic points.
    pub organic_carried_micro: PerKind<i64>,
}

/// One part of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What there is to share.
    pub amount: Tokens,
    /// Scores of all, in 1e-18 points.
    pub scores: Tokens,
    /// What was shared.
    pub paid: Tokens,
    /// What was not: the amount less what was shared.
    pub dust: Tokens,
}

/// What became of the pool of one kind of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolResult {
    /// Points that count, in millionths.
    pub points_micro: i64,
    /// Organic points that count, in millionths.
    pub organic_micro: i64,
    /// The part for all points.
    pub base: Part,
    /// The part for organic points.
    pub dynamic: Part,
}

/// What an address earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountShare {
    /// The address.
    pub reward: Address,
    /// In this epoch.
    pub share: Tokens,
    /// In all epochs; what the leaf says.
    pub cumulative: Tokens,
    /// The leaf of the tree.
    pub leaf: Hash,
}

/// What an epoch comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochResult {
    /// The factors of each node, in the order of the inputs.
    pub nodes: Vec<NodeFactors>,
    /// The pools.
    pub pools: PerKind<PoolResult>,
    /// Everybody who ever earned, by address; the leaves stand in this order.
    pub accounts: Vec<AccountShare>,
    /// Shared in this epoch.
    pub paid: Tokens,
    /// Shared in all epochs: the sum of the leaves.
    pub total: Tokens,
    /// Root of the tree of leaves.
    pub root: Hash,
}

const KINDS: [PointsKind; 2] = [PointsKind::Llama, PointsKind::Waifu];

/// Computes an epoch from its inputs. The same inputs give the same result, everywhere.
///
/// # Errors
/// `Input`, `Rules`, `Number`.
pub fn compute(inputs: &EpochInputs) -> Result<EpochResult, EpochError> {
    inputs.check()?;
    let nfts = nft_factors(inputs)?;
    let nodes: Vec<NodeFactors> = inputs
        .nodes
        .iter()
        .zip(nfts)
        .map(|(node, nft_ppm)| factors(inputs, node, nft_ppm))
        .collect::<Result<_, _>>()?;
    let mut shares: BTreeMap<Address, Tokens> = BTreeMap::new();
    let pools = PerKind::try_each(|kind| pool(inputs, &nodes, kind, &mut shares))?;
    let mut paid = Tokens::ZERO;
    let mut everybody: BTreeMap<Address, (Tokens, Tokens)> =
        inputs.before.iter().map(|b| (b.reward, (Tokens::ZERO, b.cumulative))).collect();
    for (reward, share) in shares {
        paid = add(paid, share)?;
        let (own, cumulative) = everybody.entry(reward).or_default();
        *own = share;
        *cumulative = add(*cumulative, share)?;
    }
    let mut total = Tokens::ZERO;
    let mut accounts = Vec::with_capacity(everybody.len());
    for (reward, (share, cumulative)) in everybody {
        total = add(total, cumulative)?;
        if cumulative > Tokens::ZERO {
            let leaf = leaf(reward, cumulative);
            accounts.push(AccountShare { reward, share, cumulative, leaf });
        }
    }
    let leaves: Vec<Hash> = accounts.iter().map(|account| account.leaf).collect();
    let root = root_of(&leaves);
    Ok(EpochResult { nodes, pools, accounts, paid, total, root })
}

fn add(a: Tokens, b: Tokens) -> Result<Tokens, EpochError> {
    a.checked_add(b).ok_or(EpochError::Number("a sum of shares"))
}

/// What counts of a node's points, and what it still owes. The inputs were checked.
fn settled(node: &NodeInput, kind: PointsKind, organic: bool) -> (i64, i64) {
    let sums = if organic { &node.organic } else { &node.points };
    sums.of(kind).settled().unwrap_or_default()
}

/// The factor of each node by pieces of the collection. Of an owner's nodes those with the most points
/// of a kind are boosted: what a card is worth shows in what it earned.
fn nft_factors(inputs: &EpochInputs) -> Result<Vec<PerKind<u32>>, EpochError> {
    let mut factors = vec![PerKind { llama: WHOLE, waifu: WHOLE }; inputs.nodes.len()];
    let Some(table) = &inputs.rules.boost else { return Ok(factors) };
    let mut owned: BTreeMap<Address, Vec<usize>> = BTreeMap::new();
    for (at, node) in inputs.nodes.iter().enumerate() {
        owned.entry(node.reward).or_default().push(at);
    }
    for holder in inputs.holders.iter().filter(|holder| holder.nfts > 0) {
        let own = owned.get(&holder.reward).map_or(&[][..], Vec::as_slice);
        for kind in KINDS {
            let cards: Vec<(&NodeId, u64)> = own
                .iter()
                .map(|at| {
                    let node = &inputs.nodes[*at];
                    let points = settled(node, kind, false).0;
                    u64::try_from(points).map(|points| (&node.node, points))
                })
                .collect::<Result<_, _>>()
                .map_err(|_| EpochError::Number("a sum of points"))?;
            for (at, Multiplier(ppm)) in own.iter().zip(table.of_cards(holder.nfts, &cards)) {
                *factors[*at].of_mut(kind) = ppm;
            }
        }
    }
    Ok(factors)
}

fn factors(
    inputs: &EpochInputs,
    node: &NodeInput,
    nft_ppm: PerKind<u32>,
) -> Result<NodeFactors, EpochError> {
    let holder = inputs.holders.binary_search_by_key(&node.reward, |holder| holder.reward);
    let stake = holder.map_or(Tokens::ZERO, |at| inputs.holders[at].stake);
    let (stake_ppm, vote_ppm) = (inputs.rules.stake_ppm(stake), inputs.rules.vote_ppm(node.votes));
    let score = |organic| {
        PerKind::try_each(|kind| {
            let points = u128::try_from(settled(node, kind, organic).0).unwrap_or(0);
            // Millionths four times over, less one of them: 1e-18 points.
            [*nft_ppm.of(kind), stake_ppm, vote_ppm]
                .into_iter()
                .try_fold(points, |score, factor| score.checked_mul(factor.into()))
                .map(|score| Tokens(score / u128::from(WHOLE)))
                .ok_or(EpochError::Number("a score"))
        })
    };
    let carried =
        |organic| PerKind::try_each(|kind| Ok::<_, EpochError>(settled(node, kind, organic).1));
    Ok(NodeFactors {
        node: node.node.clone(),
        stake_ppm,
        vote_ppm,
        nft_ppm,
        score: score(false)?,
        organic_score: score(true)?,
        carried_micro: carried(false)?,
        organic_carried_micro: carried(true)?,
    })
}

/// Shares the pool of one kind of points.
fn pool(
    inputs: &EpochInputs,
    nodes: &[NodeFactors],
    kind: PointsKind,
    shares: &mut BTreeMap<Address, Tokens>,
) -> Result<PoolResult, EpochError> {
    let sum = |organic| {
        let counts = inputs.nodes.iter().map(|node| settled(node, kind, organic).0);
        let sum = counts.map(i128::from).sum::<i128>();
        i64::try_from(sum).map_err(|_| EpochError::Number("a sum of points"))
    };
    let (points_micro, organic_micro) = (sum(false)?, sum(true)?);
    let rules = inputs.rules.pool(kind);
    let part = |micro: i64| u128::try_from(micro).unwrap_or(0);
    let full = part(rules.dynamic_full_micro);
    let dynamic = rules.dynamic_max.share(part(organic_micro).min(full), full);
    let dynamic = dynamic.ok_or(EpochError::Number("a pool"))?;
    let mut divide = |amount: Tokens, organic: bool| {
        let mut scores: BTreeMap<Address, Tokens> = BTreeMap::new();
        let mut all = Tokens::ZERO;
        for (input, node) in inputs.nodes.iter().zip(nodes) {
            let score = if organic { &node.organic_score } else { &node.score };
            let own = scores.entry(input.reward).or_default();
            *own = add(*own, *score.of(kind))?;
            all = add(all, *score.of(kind))?;
        }
        let mut paid = Tokens::ZERO;
        for (reward, score) in scores {
            let share = amount.share(score.0, all.0).unwrap_or_default();
            paid = add(paid, share)?;
            let own = shares.entry(reward).or_default();
            *own = add(*own, share)?;
        }
        let dust = amount.0.checked_sub(paid.0).map(Tokens);
        let dust = dust.ok_or(EpochError::Number("a pool"))?;
        Ok::<_, EpochError>(Part { amount, scores: all, paid, dust })
    };
    Ok(PoolResult {
        points_micro,
        organic_micro,
        base: divide(rules.base, false)?,
        dynamic: divide(dynamic, true)?,
    })
}
