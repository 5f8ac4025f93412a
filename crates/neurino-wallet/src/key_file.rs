//! Key files of the network's first miners: two lines of plain text, named by the reward address.
//!
//! ```text
//! Seed Phrase: twelve words
//! Identity Wallet Address: 0x0123…
//! ```
//!
//! They hold the words unencrypted, so they are read to move away from them and written only on
//! demand, for this user alone (mode 0600 on Unix).

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::address::{AddressError, MinerId, RewardAddress};
use crate::error::WalletError;
use crate::file_store::make_private_dir;
use crate::identity::IdentityKey;

const WORDS: &str = "Seed Phrase";
const ADDRESS: &str = "Identity Wallet Address";
/// No key file is larger.
const BYTES_MAX: u64 = 4096;

/// A key file that was read.
pub struct ImportedKey {
    /// The key.
    pub key: IdentityKey,
    /// Whose points it works for, from the file's name.
    pub reward: RewardAddress,
    /// Whether others on this machine may read the file.
    pub readable_by_others: bool,
}

/// Reads a key file. Line ends of Windows, a missing last one, and capitals do not matter.
///
/// # Errors
/// [`WalletError::BadKeyFile`] when its name holds no address, a line is missing, the words are no
/// phrase, or the address is another one than that of the words; [`WalletError::Io`].
pub fn import_key_file(path: &Path) -> Result<ImportedKey, WalletError> {
    let bad = |rule| WalletError::BadKeyFile { path: path.to_owned(), rule };
    let reward = reward_of_name(path)
        .ok_or_else(|| bad("its name is not `<reward address>.txt`"))?
        .map_err(|_| bad("the address in its name is not valid"))?;
    let file = std::fs::File::open(path).map_err(WalletError::io("open", path))?;
    let metadata = file.metadata().map_err(WalletError::io("read", path))?;
    let mut text = Zeroizing::new(String::new());
    match file.take(BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(bad("it is not text")),
        Err(e) => return Err(WalletError::io("read", path)(e)),
    }
    if text.len() as u64 > BYTES_MAX {
        return Err(bad("it is too large for a key file"));
    }
    let mut lines = text.lines();
    let mut value = || Some(lines.next()?.trim().split_once(": ")?.1.trim());
    let words = value().ok_or_else(|| bad("its first line is not `Seed Phrase: …`"))?;
    let address =
        value().ok_or_else(|| bad("its second line is not `Identity Wallet Address: …`"))?;
    let key = IdentityKey::from_phrase(words)
        .map_err(|_| bad("its words are no recovery phrase: one is mistyped or missing"))?;
    if !address.eq_ignore_ascii_case(&key.address()) {
        return Err(bad("its address is not the one of its words"));
    }
    Ok(ImportedKey { key, reward, readable_by_others: others_can_read(&metadata) })
}

/// Writes a key file into `folder`, for this user alone, and returns its path. A file that is
/// there is never overwritten.
///
/// # Errors
/// [`WalletError::Io`]; its source is `AlreadyExists` when a file of that name is there.
pub fn export_key_file(
    folder: &Path,
    reward: &RewardAddress,
    key: &IdentityKey,
) -> Result<PathBuf, WalletError> {
    make_private_dir(folder).map_err(WalletError::io("make the folder", folder))?;
    let path = folder.join(format!("{}.txt", reward.lower()));
    let text = Zeroizing::new(format!(
        "{WORDS}: {}\n{ADDRESS}: {}\n",
        key.phrase().expose_secret(),
        key.address()
    ));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(WalletError::io("write", &path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(WalletError::io("write", &path))?;
    Ok(path)
}

/// The reward address in a key file's name, `<address>.txt` or `<address>-<tag>.txt`; `None` when
/// the name is of another kind.
pub(crate) fn reward_of_name(path: &Path) -> Option<Result<RewardAddress, AddressError>> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".txt")?;
    stem.starts_with("0x").then(|| MinerId::read(stem).map(|id| id.reward))
}

#[cfg(unix)]
pub(crate) fn others_can_read(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

/// Folders of a user are closed to others on Windows.
#[cfg(not(unix))]
pub(crate) fn others_can_read(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const JUNK: &str = "test test test test test test test test test test test junk";
    const OWN: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
    const REWARD: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

    fn reward() -> RewardAddress {
        RewardAddress::read(REWARD).unwrap().address
    }

    fn key() -> IdentityKey {
        IdentityKey::from_phrase(JUNK).map_err(|e| e.to_string()).unwrap()
    }

    /// Imports a file of this name and content.
    fn import(name: &str, content: impl AsRef<[u8]>) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        match import_key_file(&path) {
            Ok(imported) => {
                assert!(imported.reward == reward());
                Ok(imported.key.address())
            }
            Err(error) => {
                let told = error.to_string();
                assert!(!told.contains("junk"), "{told}");
                Err(told)
            }
        }
    }

    #[test]
    fn an_exported_file_has_the_two_lines_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let path = export_key_file(&folder, &reward(), &key()).unwrap();
        assert!(path.ends_with(format!("keys/{REWARD}.txt")));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("Seed Phrase: {JUNK}\nIdentity Wallet Address: {OWN}\n"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
        }
        let back = import_key_file(&path).map_err(|e| e.to_string()).unwrap();
        assert_eq!(back.key.address(), OWN);
        assert!(back.reward == reward() && !back.readable_by_others);
        let error = export_key_file(&folder, &reward(), &key()).unwrap_err();
        let exists = io::ErrorKind::AlreadyExists;
        assert!(matches!(error, WalletError::Io { source, .. } if source.kind() == exists));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn files_of_other_systems_and_hands_are_read() {
        let name = format!("{REWARD}.txt");
        let lines = [format!("Seed Phrase: {JUNK}"), format!("Identity Wallet Address: {OWN}")];
        let mixed = format!("Identity Wallet Address: {}", key().address_checksummed());
        for text in
            [lines.join("\n"), lines.join("\r\n") + "\r\n", format!("  {}\n{mixed}\n\n", lines[0])]
        {
            assert_eq!(import(&name, &text), Ok(OWN.to_owned()), "{text:?}");
        }
        assert_eq!(import(&format!("{REWARD}-rig1.txt"), lines.join("\n")), Ok(OWN.to_owned()));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        let name = format!("{REWARD}.txt");
        let good = format!("Seed Phrase: {JUNK}\nIdentity Wallet Address: {OWN}\n");
        for (name, content, word) in [
            ("notes.txt", good.clone(), "name"),
            ("0x12.txt", good.clone(), "name"),
            (&name, String::new(), "first line"),
            (&name, format!("Seed Phrase: {JUNK}\n"), "second line"),
            (&name, good.replace(OWN, REWARD), "not the one"),
            (&name, good.replace("junk", "test"), "no recovery phrase"),
            (&name, format!("{good}{}", "x".repeat(5000)), "too large"),
        ] {
            let told = import(name, &content).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
        assert!(import(&name, b"\xff\xfe").unwrap_err().contains("not text"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = export_key_file(dir.path(), &reward(), &key()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(import_key_file(&path).map_err(|e| e.to_string()).unwrap().readable_by_others);
    }
}
