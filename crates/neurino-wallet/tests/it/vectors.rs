//! Signatures, addresses and key files equal those of eth-account; the vectors say how they were
//! made.

use neurino_wallet::{IdentityKey, RewardAddress, export_key_file, import_key_file, verify};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../../tests/fixtures/signatures/vectors.json");

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

fn keys(check: impl Fn(&Value, &IdentityKey)) {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for vector in list(&vectors, "keys") {
        let words = text(vector, "words");
        lengths.insert(words.split(' ').count());
        let key = IdentityKey::from_phrase(words).map_err(|e| e.to_string()).unwrap();
        check(vector, &key);
    }
    assert_eq!(Vec::from_iter(lengths), [12, 15, 18, 24]);
}

#[test]
fn addresses_and_signatures_are_equal_to_the_last_bit() {
    keys(|vector, key| {
        assert_eq!(key.address_checksummed(), text(vector, "address"));
        for one in list(vector, "signatures") {
            let (message, signature) = (text(one, "text"), text(one, "signature"));
            assert_eq!(key.sign(message), signature, "{message:?}");
            verify(message, signature, &key.address()).unwrap();
        }
    });
}

#[test]
fn the_hourly_signature_is_the_one_of_the_first_miners() {
    keys(|vector, key| {
        let reward = RewardAddress::read(text(vector, "reward")).unwrap();
        assert!(reward.checksum_proven);
        for one in list(vector, "hourly") {
            let message = reward.address.hourly_message(one["now"].as_u64().unwrap());
            assert_eq!(message, text(one, "message"));
            assert_eq!(key.sign(&message), text(one, "signature"));
        }
    });
}

#[test]
fn twins_with_a_high_s_are_refused() {
    keys(|vector, key| {
        let originals = list(vector, "signatures");
        let twins = list(vector, "high_s");
        assert_eq!(originals.len(), twins.len());
        for (one, twin) in originals.iter().zip(twins) {
            let told = verify(text(one, "text"), twin.as_str().unwrap(), &key.address());
            assert!(told.unwrap_err().to_string().contains("high"));
        }
    });
}

#[test]
fn key_files_are_equal_to_the_last_byte() {
    keys(|vector, key| {
        let dir = tempfile::tempdir().unwrap();
        let reward = RewardAddress::read(text(vector, "reward")).unwrap().address;
        let path = export_key_file(dir.path(), &reward, key).unwrap();
        let file = &vector["key_file"];
        assert_eq!(path.file_name().unwrap(), text(file, "name"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text(file, "text"));
        let back = import_key_file(&path).map_err(|e| e.to_string()).unwrap();
        assert_eq!(back.key.address(), key.address());
        assert!(back.reward == reward);
    });
}
