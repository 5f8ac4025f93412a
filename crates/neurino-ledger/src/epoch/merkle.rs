//! The tree that a contract checks claims against: OpenZeppelin's convention of leaves that are hashed
//! twice and pairs that are sorted. An odd node moves up as it is.

use alloy_primitives::{U256, keccak256};

use super::{Address, Hash, Tokens};

/// The leaf of an account: `keccak256(keccak256(abi.encode(address, uint256)))`.
pub fn leaf(account: Address, cumulative: Tokens) -> Hash {
    let mut encoded = [0; 64];
    encoded[12..32].copy_from_slice(&account.0);
    encoded[32..].copy_from_slice(&U256::from(cumulative.0).to_be_bytes::<32>());
    Hash(keccak256(keccak256(encoded)).0)
}

fn pair(a: Hash, b: Hash) -> Hash {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    Hash(keccak256([low.0, high.0].concat()).0)
}

fn above(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .map(|nodes| match nodes {
            [a, b] => pair(*a, *b),
            alone => alone[0],
        })
        .collect()
}

/// The root over leaves in their order; zero if there are none.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = above(&level);
    }
    level.first().copied().unwrap_or(Hash::ZERO)
}

/// What leads from the leaf at a place to the root. `place` is within `leaves`.
pub(super) fn proof_of(leaves: &[Hash], mut place: usize) -> Vec<Hash> {
    let (mut level, mut proof) = (leaves.to_vec(), Vec::new());
    while level.len() > 1 {
        proof.extend(level.get(place ^ 1));
        level = above(&level);
        place /= 2;
    }
    proof
}

/// Where a proof leads from a leaf.
pub(super) fn lead(leaf: Hash, proof: &[Hash]) -> Hash {
    proof.iter().fold(leaf, |node, beside| pair(node, *beside))
}
