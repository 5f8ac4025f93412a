//! The Merkle tree of a file: whoever knows its root can check single pieces of the file, without the rest.
//!
//! It is the tree of RFC 6962 (section 2.1) with SHA-256, over leaves of 16 KiB; the last leaf may be
//! shorter. A leaf hashes as `SHA-256(0x00 || bytes)`, a node as `SHA-256(0x01 || left || right)`, and
//! `n` leaves part at the largest power of two below `n`. So 64 neighbouring leaves that begin at a
//! multiple of 64 are a subtree of their own: who keeps the roots of those can show any leaf by reading
//! 1 MiB around it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 16 << 10;
/// Leaves of a group, whose root is kept beside the file.
pub const GROUP_LEAVES: usize = 64;
/// Bytes of a group.
pub const GROUP_BYTES: usize = GROUP_LEAVES * LEAF_BYTES;
/// Most hashes of a path: more than any file has.
pub const PATH_MAX: usize = 48;

/// The hash of a leaf or a node; in text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreeHash(pub [u8; 32]);

/// A text that is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a hash of 64 hexadecimal digits")]
pub struct InvalidHash;

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for TreeHash {
    type Err = InvalidHash;
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidHash)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for TreeHash {
    type Error = InvalidHash;
    fn try_from(text: String) -> Result<Self, InvalidHash> {
        text.parse()
    }
}

impl From<TreeHash> for String {
    fn from(hash: TreeHash) -> Self {
        hash.to_string()
    }
}

/// Bytes of a file; base64 on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileBytes(pub Vec<u8>);

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({})", self.0.len())
    }
}

impl From<FileBytes> for String {
    fn from(bytes: FileBytes) -> Self {
        STANDARD.encode(bytes.0)
    }
}

impl TryFrom<String> for FileBytes {
    type Error = base64::DecodeError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

/// A leaf and what leads from it to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownLeaf {
    /// Which, from zero.
    pub index: u64,
    /// Its bytes.
    pub bytes: FileBytes,
    /// The hashes beside its way to the root, lowest first.
    pub path: Vec<TreeHash>,
}

/// Leaves of a file of this length.
pub fn leaves_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(LEAF_BYTES as u64)
}

/// Length of a leaf, in bytes; none if the file has no such leaf.
pub fn leaf_len(size_bytes: u64, index: u64) -> Option<usize> {
    let rest = size_bytes.checked_sub(index.checked_mul(LEAF_BYTES as u64)?)?;
    let len = usize::try_from(rest.min(LEAF_BYTES as u64)).ok()?;
    (len > 0).then_some(len)
}

/// The hash of a leaf's bytes.
pub fn leaf_hash(bytes: &[u8]) -> TreeHash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(bytes);
    TreeHash(hasher.finalize().into())
}

fn node_hash(left: TreeHash, right: TreeHash) -> TreeHash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    TreeHash(hasher.finalize().into())
}

/// Where `n` nodes part, for `n` of two or more.
fn split(n: usize) -> usize {
    1 << (n - 1).ilog2()
}

/// The root over neighbouring nodes: leaves, or whole groups and a last one that may be smaller. None
/// over nothing.
pub fn root_of(nodes: &[TreeHash]) -> Option<TreeHash> {
    match nodes {
        [] => None,
        [one] => Some(*one),
        _ => {
            let (left, right) = nodes.split_at(split(nodes.len()));
            Some(node_hash(root_of(left)?, root_of(right)?))
        }
    }
}

/// What leads from a node to the root over it and its neighbours, lowest first; none if there is no such
/// node.
pub fn path_of(nodes: &[TreeHash], index: usize) -> Option<Vec<TreeHash>> {
    if index >= nodes.len() {
        return None;
    }
    if nodes.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = nodes.split_at(split(nodes.len()));
    let (mut path, beside) = if index < left.len() {
        (path_of(left, index)?, root_of(right)?)
    } else {
        (path_of(right, index - left.len())?, root_of(left)?)
    };
    path.push(beside);
    Some(path)
}

/// Whether a leaf is of the file with this length and root.
pub fn is_leaf_of(root: TreeHash, size_bytes: u64, leaf: &ShownLeaf) -> bool {
    if leaf_len(size_bytes, leaf.index) != Some(leaf.bytes.0.len()) || leaf.path.len() > PATH_MAX {
        return false;
    }
    // RFC 9162, section 2.1.3.2.
    let (mut at, mut last) = (leaf.index, leaves_of(size_bytes) - 1);
    let mut hash = leaf_hash(&leaf.bytes.0);
    for beside in &leaf.path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = node_hash(*beside, hash);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(hash, *beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// The hashes of the leaves of bytes that begin at a leaf.
pub fn leaf_hashes(bytes: &[u8]) -> Vec<TreeHash> {
    bytes.chunks(LEAF_BYTES).map(leaf_hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: usize) -> Vec<u8> {
        (0..len).map(|n| ((n * 31) ^ (n >> 9)) as u8).collect()
    }

    fn show(file: &[u8], index: usize) -> ShownLeaf {
        let bytes = file.chunks(LEAF_BYTES).nth(index).expect("there").to_vec();
        let path = path_of(&leaf_hashes(file), index).expect("there");
        ShownLeaf { index: index as u64, bytes: FileBytes(bytes), path }
    }

    #[test]
    fn the_root_is_the_one_of_the_rfc() {
        // Vectors of certificate transparency's reference tests, over their own short leaves.
        let leaves: [&[u8]; 3] = [b"", &[0x00], &[0x10]];
        let hashes: Vec<TreeHash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let one = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        let two = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125";
        let three = "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77";
        for (n, expect) in [(1, one), (2, two), (3, three)] {
            assert_eq!(root_of(&hashes[..n]).expect("some").to_string(), expect);
        }
        assert_eq!(root_of(&[]), None);
    }

    #[test]
    fn groups_are_subtrees() {
        for leaves in [1, 63, 64, 65, 128, 129, 200, 257] {
            let file = file(leaves * LEAF_BYTES - 5);
            let groups: Vec<TreeHash> = file
                .chunks(GROUP_BYTES)
                .map(|group| root_of(&leaf_hashes(group)).expect("some"))
                .collect();
            assert_eq!(root_of(&groups), root_of(&leaf_hashes(&file)), "{leaves}");
        }
    }

    #[test]
    fn each_leaf_is_known_and_nothing_else_is() {
        for leaves in 1..20_usize {
            let file = file(leaves * LEAF_BYTES - 77);
            let (size, root) = (file.len() as u64, root_of(&leaf_hashes(&file)).expect("some"));
            for index in 0..leaves {
                let shown = show(&file, index);
                assert!(is_leaf_of(root, size, &shown), "{index} of {leaves}");
                let mut other = shown.clone();
                other.bytes.0[5] ^= 1;
                assert!(!is_leaf_of(root, size, &other), "a flipped bit");
                let elsewhere = (index as u64 + 1) % leaves as u64;
                let moved = ShownLeaf { index: elsewhere, ..shown.clone() };
                assert_eq!(is_leaf_of(root, size, &moved), leaves == 1, "another place");
                let mut longer = shown.clone();
                longer.path.push(root);
                assert!(!is_leaf_of(root, size, &longer));
                let mut shorter = shown.clone();
                if shorter.path.pop().is_some() {
                    assert!(!is_leaf_of(root, size, &shorter));
                }
                let half = size / 2;
                assert!(index == 0 || !is_leaf_of(root, half, &shown), "another length");
            }
            let beyond = ShownLeaf { index: leaves as u64, ..show(&file, 0) };
            assert!(!is_leaf_of(root, size, &beyond));
        }
    }

    #[test]
    fn on_the_wire_it_is_text() {
        let shown = show(&file(40_000), 2);
        let json = serde_json::to_value(&shown).expect("serialises");
        assert!(json["bytes"].is_string() && json["path"][0].as_str().expect("text").len() == 64);
        assert_eq!(serde_json::from_value::<ShownLeaf>(json).expect("reads"), shown);
    }
}
