//! What is remembered about a person's wallet: where points go, where they went before, whether the
//! words were written down, which nodes of a chain may be asked. No secret.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::RewardAddress;
use crate::error::WalletError;
use crate::file_store::write_durably;

const FILE: &str = "wallet.json";
const VERSION: u32 = 1;
/// Former addresses that are kept; the oldest go first.
const HISTORY_MAX: usize = 100;

/// `wallet.json` of the data folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletBook {
    version: u32,
    /// Where points go.
    pub reward: Option<Reward>,
    /// Where they went before, newest first.
    #[serde(default)]
    pub history: Vec<FormerReward>,
    /// When the words were written down, and of which identity.
    pub backed_up: Option<BackedUp>,
    /// Nodes of chains that may be asked.
    #[serde(default)]
    pub nodes: Vec<ChainNode>,
    /// Contract of the Imaginaries, where the person knows it.
    #[serde(default)]
    pub imaginaries: Option<RewardAddress>,
}

/// Where points go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reward {
    /// The address.
    pub address: RewardAddress,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// A node of a chain that may be asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainNode {
    /// Its address as the person entered it. It may hold an access key.
    pub url: String,
    /// Number of its chain, as it said itself.
    pub chain_id: u64,
}

/// Where points went once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerReward {
    /// The address.
    pub address: RewardAddress,
    /// From when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: i64,
}

/// The words of an identity were written down.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Address of the identity, in lower case: another identity has other words.
    pub identity: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What was read.
pub struct LoadedBook {
    /// The book; empty where there is no usable file.
    pub book: WalletBook,
    /// Where a damaged file was put. The person is to be told: points go nowhere until an address
    /// is entered again.
    pub set_aside: Option<PathBuf>,
}

impl Default for WalletBook {
    fn default() -> Self {
        Self {
            version: VERSION,
            reward: None,
            history: Vec::new(),
            backed_up: None,
            nodes: Vec::new(),
            imaginaries: None,
        }
    }
}

impl WalletBook {
    /// Reads the book of a data folder. A damaged file is set aside, never overwritten.
    ///
    /// # Errors
    /// [`WalletError::Io`].
    pub fn load(dir: &Path) -> Result<LoadedBook, WalletError> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(LoadedBook { book: Self::default(), set_aside: None });
            }
            Err(e) => return Err(WalletError::io("read", &path)(e)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(book) if book.version == VERSION => Ok(LoadedBook { book, set_aside: None }),
            _ => {
                let aside = path.with_extension("json.damaged");
                std::fs::rename(&path, &aside).map_err(WalletError::io("move away", &path))?;
                Ok(LoadedBook { book: Self::default(), set_aside: Some(aside) })
            }
        }
    }

    /// Writes the book whole or not at all, readable by this user alone.
    ///
    /// # Errors
    /// [`WalletError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), WalletError> {
        let path = dir.join(FILE);
        let json = serde_json::to_vec_pretty(self).expect("strings and integers always serialise");
        write_durably(&path, &json).map_err(WalletError::io("write", &path))
    }

    /// Points go to this address from now on; the former one becomes history. The same address
    /// again changes nothing.
    pub fn set_reward(&mut self, address: Option<RewardAddress>, now_ms: i64) {
        if self.reward.as_ref().map(|r| r.address) == address {
            return;
        }
        if let Some(Reward { address, since_ms }) = self.reward.take() {
            self.history.insert(0, FormerReward { address, since_ms, until_ms: now_ms });
            self.history.truncate(HISTORY_MAX);
        }
        self.reward = address.map(|address| Reward { address, since_ms: now_ms });
    }

    /// The address, now or once in use, that a new one could be mistaken for.
    pub fn look_alike(&self, new: &RewardAddress) -> Option<RewardAddress> {
        let known = self.reward.iter().map(|r| r.address);
        known.chain(self.history.iter().map(|f| f.address)).find(|old| old.looks_like(new))
    }
}

impl Serialize for RewardAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.checksummed())
    }
}

impl<'de> Deserialize<'de> for RewardAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).map(|entered| entered.address).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn address(byte: u8) -> RewardAddress {
        RewardAddress::from_bytes([byte; 20])
    }

    #[test]
    fn a_change_keeps_the_former_address_and_the_same_one_changes_nothing() {
        let mut book = WalletBook::default();
        book.set_reward(Some(address(1)), 10);
        book.set_reward(Some(address(1)), 20);
        assert!(book.history.is_empty());
        assert_eq!(book.reward.as_ref().unwrap().since_ms, 10);
        book.set_reward(Some(address(2)), 30);
        book.set_reward(None, 40);
        assert!(book.reward.is_none());
        let history: Vec<_> = book.history.iter().map(|f| (f.since_ms, f.until_ms)).collect();
        assert_eq!(history, [(30, 40), (10, 30)]);
    }

    #[test]
    fn it_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(WalletBook::load(dir.path()).unwrap().book == WalletBook::default());
        let mut book = WalletBook::default();
        book.set_reward(Some(address(0xab)), 10);
        book.set_reward(Some(address(0xcd)), 20);
        book.backed_up = Some(BackedUp { identity: "0x12".into(), at_ms: 5 });
        book.nodes = vec![ChainNode { url: "https://rpc.example/key".into(), chain_id: 1 }];
        book.save(dir.path()).unwrap();
        let loaded = WalletBook::load(dir.path()).unwrap();
        assert!(loaded.book == book && loaded.set_aside.is_none());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn damage_is_set_aside_and_told() {
        let mut good = WalletBook::default();
        good.set_reward(Some(address(0xab)), 10);
        let good = serde_json::to_string(&good).unwrap();
        for damaged in [
            String::new(),
            good[..good.len() - 4].to_owned(),
            good.replace("\"version\":1", "\"version\":9"),
            good.replace("0xABa", "0xABA"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), &damaged).unwrap();
            let loaded = WalletBook::load(dir.path()).unwrap();
            assert!(loaded.book == WalletBook::default(), "{damaged}");
            assert_eq!(std::fs::read_to_string(loaded.set_aside.unwrap()).unwrap(), damaged);
        }
    }

    #[test]
    fn a_look_alike_of_a_former_address_is_found() {
        let mut book = WalletBook::default();
        book.set_reward(Some(address(0x11)), 10);
        book.set_reward(Some(address(0x22)), 20);
        let mut forged = [0x11; 20];
        forged[10] = 0;
        let forged = RewardAddress::from_bytes(forged);
        assert!(book.look_alike(&forged) == Some(address(0x11)));
        assert!(book.look_alike(&address(0x33)).is_none());
    }
}
