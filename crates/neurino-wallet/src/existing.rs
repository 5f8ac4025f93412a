//! What the network's first miners left on this disk: miner ids in an `.env` file, key files, model
//! files. Everything is looked at and nothing is changed.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::address::{AddressError, MinerId, RewardAddress};
use crate::error::WalletError;
use crate::key_file::{import_key_file, reward_of_name};

/// No `.env` or settings file of a miner is larger.
const TEXT_BYTES_MAX: u64 = 256 << 10;
/// Files that are looked at in one folder.
const FILES_MAX: usize = 10_000;
/// Miner ids that are read from one file.
const IDS_MAX: usize = 256;

/// Where a miner keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerPlaces {
    /// Its file of variables.
    pub env_file: PathBuf,
    /// Its key files.
    pub keys_dir: PathBuf,
    /// Its model files.
    pub models_dir: PathBuf,
}

/// What was found.
#[derive(Default)]
pub struct ExistingMiner {
    /// Miner ids in the order of their variables, with the variable's name.
    pub miner_ids: Vec<(String, MinerId)>,
    /// Variables whose value is no miner id, and why.
    pub bad_ids: Vec<(String, AddressError)>,
    /// Key files that can be imported.
    pub keys: Vec<FoundKey>,
    /// Key files that cannot, and why.
    pub bad_keys: Vec<WalletError>,
    /// Model files.
    pub models: Option<FoundModels>,
}

/// A key file that can be imported. No secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// The file.
    pub path: PathBuf,
    /// Whose points it works for, in the form for people.
    pub reward: String,
    /// Address of its identity, in the form for people.
    pub identity: String,
    /// Whether others on this machine may read it.
    pub readable_by_others: bool,
}

/// Model files of a miner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModels {
    /// Their folder.
    pub folder: PathBuf,
    /// The files, with their sizes in bytes.
    pub files: Vec<(PathBuf, u64)>,
}

impl MinerPlaces {
    /// The places of a miner whose program lies in `folder`: as its `config.toml` says, else the
    /// usual ones below `home`.
    pub fn of(folder: &Path, home: &Path) -> Self {
        let settings = read_text(&folder.join("config.toml"))
            .and_then(|text| text.parse::<toml::Table>().ok())
            .unwrap_or_default();
        let place = |key: &str, usual: &str| {
            let said = settings.get("storage").and_then(|s| s.get(key)).and_then(|v| v.as_str());
            let said = said.unwrap_or(usual);
            match said.strip_prefix("~/") {
                Some(below) => home.join(below),
                None => folder.join(said),
            }
        };
        Self {
            env_file: folder.join(".env"),
            keys_dir: place("keys_dir", "~/.heurist-keys"),
            models_dir: place("base_dir", "~/.cache/heurist"),
        }
    }
}

impl ExistingMiner {
    /// Looks at a miner's places. What is missing is left out.
    pub fn look(places: &MinerPlaces) -> Self {
        let mut found = Self::default();
        if let Some(text) = read_text(&places.env_file) {
            found.read_ids(&text);
        }
        let mut names: Vec<PathBuf> = files_of(&places.keys_dir).map(|(path, _)| path).collect();
        names.sort();
        for path in names {
            if reward_of_name(&path).is_none() {
                continue;
            }
            match import_key_file(&path) {
                Ok(imported) => found.keys.push(FoundKey {
                    reward: imported.reward.checksummed(),
                    identity: imported.key.address_checksummed(),
                    readable_by_others: imported.readable_by_others,
                    path,
                }),
                Err(error) => found.bad_keys.push(error),
            }
        }
        let mut files: Vec<_> = files_of(&places.models_dir)
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "safetensors"))
            .collect();
        files.sort();
        if !files.is_empty() {
            found.models = Some(FoundModels { folder: places.models_dir.clone(), files });
        }
        found
    }

    /// Whether there is anything to import.
    pub fn is_empty(&self) -> bool {
        self.miner_ids.is_empty() && self.keys.is_empty() && self.models.is_none()
    }

    /// The reward addresses of ids and key files, each once.
    pub fn rewards(&self) -> Vec<RewardAddress> {
        let mut rewards: Vec<RewardAddress> = Vec::new();
        let of_keys = self.keys.iter().filter_map(|key| RewardAddress::read(&key.reward).ok());
        let of_ids = self.miner_ids.iter().map(|(_, id)| id.reward);
        for reward in of_ids.chain(of_keys.map(|entered| entered.address)) {
            if !rewards.contains(&reward) {
                rewards.push(reward);
            }
        }
        rewards
    }

    /// Reads `MINER_ID_n=…` lines; others are another program's business.
    fn read_ids(&mut self, text: &str) {
        for line in text.lines().take(FILES_MAX) {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            let Some((name, value)) = line.split_once('=') else { continue };
            let (name, value) = (name.trim(), plain_value(value));
            let numbered = name.strip_prefix("MINER_ID_").is_some_and(|n| {
                !n.is_empty() && n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit())
            });
            // The sample file's own text is no mistake of the person.
            if !numbered || value.is_empty() || value.contains("WalletAddressHere") {
                continue;
            }
            if self.miner_ids.len() + self.bad_ids.len() >= IDS_MAX {
                return;
            }
            match MinerId::read(value) {
                Ok(id) => self.miner_ids.push((name.to_owned(), id)),
                Err(error) => self.bad_ids.push((name.to_owned(), error)),
            }
        }
    }
}

/// The value of a variable without quotes or a comment behind it.
fn plain_value(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split(quote).next().unwrap_or(rest).trim();
        }
    }
    value.split(" #").next().unwrap_or(value).trim()
}

fn read_text(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut text = String::new();
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The plain files of a folder with their sizes; none where it cannot be read.
fn files_of(folder: &Path) -> impl Iterator<Item = (PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        metadata.is_file().then(|| (entry.path(), metadata.len()))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;
    use crate::key_file::export_key_file;

    const ONE: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    const TWO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    const JUNK: &str = "test test test test test test test test test test test junk";

    fn ids(text: &str) -> (Vec<String>, Vec<String>) {
        let mut found = ExistingMiner::default();
        found.read_ids(text);
        let ids = found.miner_ids.iter().map(|(n, id)| format!("{n} {}", id.submitted()));
        let bad = found.bad_ids.iter().map(|(n, error)| format!("{n} {error}"));
        (ids.collect(), bad.collect())
    }

    #[test]
    fn miner_ids_are_read_as_people_write_them() {
        let text = format!(
            "# my rigs\nMINER_ID_0={ONE}-desk\nexport MINER_ID_1=\"{TWO}\" # second\r\n\
             MINER_ID_2 = '{TWO}-a-b'\nMINER_ID_3=\nMINER_ID_X={ONE}\nOTHER={ONE}\n\
             MINER_ID_4=0xYourFirstWalletAddressHere\nMINER_ID_5=0x12\nMINER_ID_6={ONE} # x\n"
        );
        let (ids, bad) = ids(&text);
        let (one, two) = (ONE.to_lowercase(), TWO.to_lowercase());
        assert_eq!(
            ids,
            [
                format!("MINER_ID_0 {one}-desk"),
                format!("MINER_ID_1 {two}"),
                format!("MINER_ID_2 {two}-a-b"),
                format!("MINER_ID_6 {one}"),
            ]
        );
        assert!(bad.len() == 1 && bad[0].starts_with("MINER_ID_5") && bad[0].contains("40"));
    }

    #[test]
    fn places_follow_the_miners_settings() {
        let dir = tempfile::tempdir().unwrap();
        let home = Path::new("/home/ada");
        let usual = MinerPlaces::of(dir.path(), home);
        assert_eq!(usual.keys_dir, home.join(".heurist-keys"));
        assert_eq!(usual.models_dir, home.join(".cache/heurist"));
        let settings = "[storage]\nbase_dir = \"/big/models\"\nkeys_dir = \"keys\"\n";
        std::fs::write(dir.path().join("config.toml"), settings).unwrap();
        let own = MinerPlaces::of(dir.path(), home);
        assert_eq!(own.models_dir, Path::new("/big/models"));
        assert_eq!(own.keys_dir, dir.path().join("keys"));
        std::fs::write(dir.path().join("config.toml"), "[storage\n").unwrap();
        assert_eq!(MinerPlaces::of(dir.path(), home), usual);
    }

    #[test]
    fn everything_is_found_and_what_is_damaged_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path();
        let miner = home.join("miner");
        std::fs::create_dir_all(&miner).unwrap();
        let places = MinerPlaces::of(&miner, home);
        assert!(ExistingMiner::look(&places).is_empty());

        std::fs::write(&places.env_file, format!("MINER_ID_0={ONE}\n")).unwrap();
        let key = IdentityKey::from_phrase(JUNK).map_err(|e| e.to_string()).unwrap();
        let reward = RewardAddress::read(TWO).unwrap().address;
        let path = export_key_file(&places.keys_dir, &reward, &key).unwrap();
        std::fs::write(places.keys_dir.join(format!("{ONE}.txt")), "nothing").unwrap();
        std::fs::write(places.keys_dir.join("notes.txt"), "nothing").unwrap();
        std::fs::create_dir_all(&places.models_dir).unwrap();
        std::fs::write(places.models_dir.join("a.safetensors"), "12345").unwrap();
        std::fs::write(places.models_dir.join("b.json"), "{}").unwrap();

        let found = ExistingMiner::look(&places);
        assert!(!found.is_empty());
        assert_eq!(
            found.keys,
            [FoundKey {
                path,
                reward: TWO.into(),
                identity: key.address_checksummed(),
                readable_by_others: false,
            }]
        );
        assert_eq!(found.bad_keys.len(), 1);
        let rewards: Vec<_> = found.rewards().iter().map(RewardAddress::checksummed).collect();
        assert_eq!(rewards, [ONE, TWO]);
        let models = found.models.unwrap();
        assert_eq!(models.files, [(places.models_dir.join("a.safetensors"), 5)]);
    }
}
