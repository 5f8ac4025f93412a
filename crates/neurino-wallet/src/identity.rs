//! The identity key: an Ethereum key derived from twelve words, which signs for a node.

use std::str::FromStr;

use alloy_primitives::{Address, eip191_hash_message};
use bip39::{Language, Mnemonic};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

use crate::error::WalletError;

/// Where wallets of the ecosystem put the first account, so that the phrase gives the same address
/// everywhere.
const PATH: &str = "m/44'/60'/0'/0/0";
/// Bytes of entropy behind twelve words.
const ENTROPY_BYTES: usize = 16;
/// `r`, `s` and `v`.
const SIGNATURE_BYTES: usize = 65;

/// A secp256k1 key with the phrase it came from.
///
/// It holds no funds: it signs sessions and results, and the network pays what it signed. There is
/// no `Debug`, `Display` or `Serialize`, so it cannot reach a log or the web view by accident; its
/// memory is wiped when it is dropped.
pub struct IdentityKey {
    phrase: SecretString,
    key: SigningKey,
    address: Address,
}

impl IdentityKey {
    /// Makes a new key with twelve words from `rng`.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut entropy = Zeroizing::new([0_u8; ENTROPY_BYTES]);
        rng.fill_bytes(entropy.as_mut());
        let words = Mnemonic::from_entropy(entropy.as_ref())
            .expect("sixteen bytes are a permitted length of entropy");
        Self::from_mnemonic(&words).expect("a path of five steps from a fresh seed has a key")
    }

    /// Reads a phrase of 12, 15, 18, 21 or 24 English words; extra white space and capitals do not
    /// matter.
    ///
    /// # Errors
    /// [`WalletError::BadPhrase`]; the message never repeats a word of the phrase.
    pub fn from_phrase(phrase: &str) -> Result<Self, WalletError> {
        let mut clean = Zeroizing::new(String::with_capacity(phrase.len()));
        for word in phrase.split_whitespace() {
            if !clean.is_empty() {
                clean.push(' ');
            }
            for c in word.chars() {
                clean.push(c.to_ascii_lowercase());
            }
        }
        let words = Mnemonic::parse_in_normalized(Language::English, &clean)
            .map_err(|e| WalletError::BadPhrase { rule: broken_rule(&e) })?;
        Self::from_mnemonic(&words)
    }

    fn from_mnemonic(words: &Mnemonic) -> Result<Self, WalletError> {
        let no_key = WalletError::BadPhrase { rule: "no key can be derived from it" };
        let path = bip32::DerivationPath::from_str(PATH).expect("the path is a constant");
        let seed = Zeroizing::new(words.to_seed_normalized(""));
        let Ok(derived) = bip32::XPrv::derive_from_path(seed.as_ref(), &path) else {
            return Err(no_key);
        };
        let mut bytes = derived.to_bytes();
        let key = SigningKey::from_bytes(&bytes.into());
        bytes.zeroize();
        let Ok(key) = key else { return Err(no_key) };
        let address = Address::from_public_key(key.verifying_key());
        Ok(Self { phrase: SecretString::from(words.to_string()), key, address })
    }

    /// A second copy of the key, for a task that outlives the call it was lent to.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { phrase: self.phrase(), key: self.key.clone(), address: self.address }
    }

    /// The phrase, words separated by single spaces: for storage, and for a person who backs it up.
    pub fn phrase(&self) -> SecretString {
        SecretString::from(self.phrase.expose_secret().to_owned())
    }

    /// The address, `0x` and 40 lower-case hex digits: the form used on the wire and in node ids.
    pub fn address(&self) -> String {
        format!("0x{}", hex::encode(self.address))
    }

    /// The address with the capitals of EIP-55, for people.
    pub fn address_checksummed(&self) -> String {
        self.address.to_checksum(None)
    }

    /// Signs a text as an EIP-191 personal message; `0x` and 130 hex digits, `v` 27 or 28, `s` low.
    /// The same text always gives the same signature (RFC 6979).
    pub fn sign(&self, message: &str) -> String {
        sign_with(&self.key, message)
    }

    /// Signs a hash of typed data, which its maker derived from what is signed; the same form.
    pub(crate) fn sign_hash(&self, hash: [u8; 32]) -> String {
        sign_prehash(&self.key, hash)
    }
}

fn sign_with(key: &SigningKey, message: &str) -> String {
    sign_prehash(key, eip191_hash_message(message).0)
}

fn sign_prehash(key: &SigningKey, hash: [u8; 32]) -> String {
    let (signature, recovery) = key
        .sign_prehash_recoverable(&hash)
        .expect("a 32-byte hash can be signed by every valid key");
    let mut bytes = [0_u8; SIGNATURE_BYTES];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + recovery.to_byte();
    format!("0x{}", hex::encode(bytes))
}

/// Checks that the key behind `address` signed `message` as an EIP-191 personal message.
///
/// # Errors
/// [`WalletError::BadAddress`] for anything but `0x` and 40 hex digits,
/// [`WalletError::BadSignature`] for a malformed one, a high `s` (a second form of the same
/// signature, which could pass for another one), or another signer.
pub fn verify(message: &str, signature: &str, address: &str) -> Result<(), WalletError> {
    verify_hash(eip191_hash_message(message).0, signature, address)
}

/// Checks that the key behind `address` signed a hash.
pub(crate) fn verify_hash(
    hash: [u8; 32],
    signature: &str,
    address: &str,
) -> Result<(), WalletError> {
    let bad = |rule| Err(WalletError::BadSignature { rule });
    let mut wanted = [0_u8; 20];
    if !decode_exact(address, &mut wanted) {
        return Err(WalletError::BadAddress);
    }
    let mut bytes = [0_u8; SIGNATURE_BYTES];
    if !decode_exact(signature, &mut bytes) {
        return bad("it is not `0x` and 130 hex digits");
    }
    let (27 | 28) = bytes[64] else {
        return bad("its last byte is neither 27 nor 28");
    };
    let Some(recovery) = RecoveryId::from_byte(bytes[64] - 27) else {
        return bad("its last byte is neither 27 nor 28");
    };
    let Ok(signature) = Signature::from_slice(&bytes[..64]) else {
        return bad("its numbers are out of range");
    };
    if signature.normalize_s().is_some() {
        return bad("its `s` is high");
    }
    match VerifyingKey::recover_from_prehash(&hash, &signature, recovery) {
        Ok(key) if Address::from_public_key(&key) == wanted => Ok(()),
        _ => bad("another key made it"),
    }
}

/// Decodes `0x` and exactly the hex digits that fill `out`.
fn decode_exact(text: &str, out: &mut [u8]) -> bool {
    text.strip_prefix("0x").is_some_and(|digits| hex::decode_to_slice(digits, out).is_ok())
}

fn broken_rule(error: &bip39::Error) -> &'static str {
    match error {
        bip39::Error::BadWordCount(_) => "it must have 12, 15, 18, 21 or 24 words",
        bip39::Error::UnknownWord(_) => "a word is not in the English word list",
        bip39::Error::InvalidChecksum => "its checksum is wrong: a word is mistyped or misplaced",
        _ => "it is not a BIP-39 phrase",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNK: &str = "test test test test test test test test test test test junk";

    fn junk() -> IdentityKey {
        IdentityKey::from_phrase(JUNK).map_err(|e| e.to_string()).expect("valid")
    }

    fn rule(result: Result<IdentityKey, WalletError>) -> String {
        result.map(|_| ()).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_well_known_phrase_gives_the_well_known_address() {
        assert_eq!(junk().address(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        assert_eq!(junk().address_checksummed(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(junk().phrase().expose_secret(), JUNK);
    }

    /// The example of web3.js's documentation for `web3.eth.accounts.sign`.
    #[test]
    fn a_published_signature_is_reproduced_to_the_last_bit() {
        let key = hex::decode("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
            .expect("hex");
        let key = SigningKey::from_slice(&key).expect("a valid key");
        let signature = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd6007e74\
                         cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";
        assert_eq!(sign_with(&key, "Some data"), signature);
        let address = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";
        verify("Some data", signature, address).expect("genuine");
        verify("Some data", signature, &address.to_lowercase()).expect("genuine");
    }

    #[test]
    fn signatures_verify_and_nothing_else_does() {
        let key = junk();
        let signature = key.sign("a result");
        assert_eq!(signature.len(), 132);
        verify("a result", &signature, &key.address()).expect("genuine");
        assert!(verify("another result", &signature, &key.address()).is_err());
        let other = IdentityKey::generate(&mut rand::rng());
        assert!(verify("a result", &signature, &other.address()).is_err());
    }

    #[test]
    fn malformed_signatures_and_addresses_are_refused() {
        let key = junk();
        let good = key.sign("m");
        let address = key.address();
        let check = |signature: &str, word: &str| {
            let error = verify("m", signature, &address).expect_err("must be refused").to_string();
            assert!(error.contains(word), "{error}");
        };
        check("", "130");
        check(&good[2..], "130");
        check(&good[..130], "130");
        check(&format!("{good}00"), "130");
        check(&good.replace("0x", "0xz"), "130");
        check(&format!("{}00", &good[..130]), "27");
        check(&format!("{}1d", &good[..130]), "27");
        check(&format!("0x{}1b", "00".repeat(64)), "range");
        check(&format!("0x{}1b", "ff".repeat(64)), "range");
        for address in ["", "0x", "f39fd6e51aad88f6f4ce6ab8827279cfffb92266", "0xé"] {
            assert!(matches!(verify("m", &good, address), Err(WalletError::BadAddress)));
        }
    }

    #[test]
    fn the_high_s_twin_of_a_signature_is_refused() {
        let key = junk();
        let bytes = hex::decode(&key.sign("m")[2..]).expect("hex");
        let low = Signature::from_slice(&bytes[..64]).expect("valid");
        let high = Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes())
            .expect("the negated scalar is in range");
        let mut twin = high.to_bytes().to_vec();
        twin.push(if bytes[64] == 27 { 28 } else { 27 });
        let error = verify("m", &format!("0x{}", hex::encode(twin)), &key.address());
        assert!(error.expect_err("must be refused").to_string().contains("high"));
    }

    #[test]
    fn phrases_are_read_leniently_and_refused_with_a_reason() {
        let shouted = format!("  {}\n", JUNK.to_uppercase().replace(' ', "  "));
        let key = IdentityKey::from_phrase(&shouted).map_err(|e| e.to_string()).expect("valid");
        assert_eq!(key.address(), junk().address());
        assert!(rule(IdentityKey::from_phrase("test junk")).contains("12, 15"));
        assert!(rule(IdentityKey::from_phrase(&JUNK.replace("junk", "test"))).contains("checksum"));
        let unknown = rule(IdentityKey::from_phrase(&JUNK.replace("junk", "xyzzy")));
        assert!(unknown.contains("word list") && !unknown.contains("xyzzy"));
    }

    #[test]
    fn a_fresh_key_survives_its_phrase() {
        let key = IdentityKey::generate(&mut rand::rng());
        let phrase = key.phrase();
        assert_eq!(phrase.expose_secret().split(' ').count(), 12);
        let again = IdentityKey::from_phrase(phrase.expose_secret())
            .map_err(|e| e.to_string())
            .expect("its own phrase");
        assert_eq!(again.address(), key.address());
        assert_eq!(again.sign("m"), key.sign("m"));
    }

    /// Compiles only while the key has neither `Debug` nor `Display`: with either, `hidden` would
    /// be ambiguous.
    #[test]
    fn the_key_cannot_be_formatted() {
        trait Hidden<Marker> {
            fn hidden() {}
        }
        struct ByDebug;
        struct ByDisplay;
        impl<T: ?Sized> Hidden<()> for T {}
        impl<T: ?Sized + std::fmt::Debug> Hidden<ByDebug> for T {}
        impl<T: ?Sized + std::fmt::Display> Hidden<ByDisplay> for T {}
        <IdentityKey as Hidden<_>>::hidden();
    }
}
