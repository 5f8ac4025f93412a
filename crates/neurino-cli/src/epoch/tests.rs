//! Files as a miner checks them: a good one, and ones that somebody changed.

use std::path::PathBuf;

use neurino_core::Receipt;
use neurino_ledger::epoch::{
    EPOCH_MS, Entries, EpochInputs, EpochRules, canonical_json, nodes_of, read_entries,
};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};

use super::verify::{self, Beside};
use super::*;

const WEEK: i64 = 2_968;
const LEASE: &str = "00000000-0000-0000-0000-000000000001";

fn node() -> String {
    format!("0x{}-rig1", "ab".repeat(20))
}

struct Published {
    folder: tempfile::TempDir,
    file: EpochFile,
    entry: Value,
    receipt: Value,
}

fn published() -> Published {
    published_of(&node(), true)
}

fn published_of(node: &str, is_paid: bool) -> Published {
    let key = IdentityKey::generate(&mut rand::rng());
    let at_ms = WEEK * EPOCH_MS + 5;
    let entry = json!({
        "at_ms": at_ms, "lease": LEASE, "movement": "reward", "job": LEASE, "node": node,
        "model": "m", "points": "llama", "points_micro": 7, "organic_micro": 0, "payer": "a",
        "source": "free", "fee_micro": 0,
    });
    let entries = read_entries(&entry.to_string()).unwrap();
    let about = |node: &neurino_core::NodeId| {
        is_paid.then(|| (node.as_str()[..42].parse::<neurino_ledger::epoch::Address>().unwrap(), 0))
    };
    let (nodes, demand) = nodes_of(&entries, &std::collections::BTreeMap::new(), about).unwrap();
    let (start_ms, end_ms) = EpochInputs::bounds(WEEK).unwrap();
    let inputs = EpochInputs {
        network: "club".into(),
        epoch: WEEK,
        start_ms,
        end_ms,
        claimable_from_ms: end_ms,
        previous_sha256: None,
        rules: EpochRules::named("weekly1").unwrap(),
        audit_key: None,
        snapshot: None,
        entries: Entries::of(&entries).unwrap(),
        demand,
        nodes,
        holders: Vec::new(),
        before: Vec::new(),
    };
    let mut file = EpochFile::new(inputs, key.address()).unwrap();
    file.signature = key.sign(&file.message().unwrap());
    let quote = json!({
        "points": "llama", "units": 7, "base_micro": 7, "factor": 1_000_000,
        "multiplier": 1_000_000, "amount_micro": 7,
    });
    let mut receipt: Receipt = serde_json::from_value(json!({
        "event": LEASE, "job": LEASE, "lease": LEASE, "node": node, "model": "m",
        "usage": { "prompt_tokens": 1, "completion_tokens": 6 }, "rule_set": "club2",
        "quote": quote, "digest": "00".repeat(32), "duration_ms": 1, "settled_at_ms": at_ms,
        "network": "club", "coordinator": key.address(), "signature": "",
    }))
    .unwrap();
    receipt.signature = key.sign(&receipt.message());
    let receipt = serde_json::to_value(receipt).unwrap();
    Published { folder: tempfile::tempdir().unwrap(), file, entry, receipt }
}

impl Published {
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn check(&self, entry: &Value, receipt: &Value) -> Result<(), String> {
        let entry = canonical_json(entry).unwrap();
        let beside = Beside {
            entries: Some(self.put("entries.jsonl", &entry)),
            receipts: Some(self.put("receipts.jsonl", &receipt.to_string())),
            previous: None,
            coordinator: self.file.coordinator.parse().ok(),
        };
        let file = self.put("epoch.json", &self.file.canonical().unwrap());
        verify::run(Format::Json, &file, &beside).map_err(|error| format!("{error:#}"))
    }
}

#[test]
fn a_miner_finds_its_receipts_and_whoever_changed_them() {
    let mut published = published();
    published.check(&published.entry, &published.receipt).unwrap();
    published.check(&published.entry, &json!([published.receipt])).unwrap();
    let changed = |value: &Value, field: &str, new: Value| {
        let mut value = value.clone();
        value[field] = new;
        value
    };
    let refused = |entry: &Value, receipt: &Value, words: &str| {
        let error = published.check(entry, receipt).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    let (entry, receipt) = (published.entry.clone(), published.receipt.clone());
    refused(&changed(&entry, "points_micro", json!(8)), &receipt, "inputs.entries.sha256");
    let other = "00000000-0000-0000-0000-000000000002";
    refused(&changed(&entry, "lease", json!(other)), &receipt, "inputs.entries.sha256");
    refused(&entry, &changed(&receipt, "node", json!("0xcd")), "is not the coordinator's");
    refused(&entry, &changed(&receipt, "network", json!("other")), "another network");
    refused(&entry, &json!({}), "entry 1 is no receipt");
    let later = changed(&receipt, "settled_at_ms", json!((WEEK + 1) * EPOCH_MS));
    published.check(&entry, &later).unwrap();

    let signature = std::mem::take(&mut published.file.signature);
    let error = published.check(&entry, &receipt).unwrap_err();
    assert!(error.contains("did not sign"), "{error}");
    published.file.signature = signature;
    published.file.result.accounts[0].cumulative.0 += 1;
    let error = published.check(&entry, &receipt).unwrap_err();
    assert!(error.contains("result.accounts[0].cumulative"), "the first difference: {error}");
}

#[test]
fn a_receipt_of_a_node_that_is_not_paid_does_not_hold() {
    let nameless = published_of("rig1", false);
    let error = nameless.check(&nameless.entry, &nameless.receipt).unwrap_err();
    assert!(error.contains("NOT PAID"), "{error}");
    let left_out = published_of(&node(), false);
    let error = left_out.check(&left_out.entry, &left_out.receipt).unwrap_err();
    assert!(error.contains(&format!("inputs.nodes[{}]", node())), "{error}");
}

#[test]
fn files_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("epoch.json");
    write(Some(&path), "{}").unwrap();
    assert_eq!(read(&path).unwrap(), "{}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    assert!(write(Some(&folder.path().join("no/where")), "{}").is_err());
    assert!(read_json::<EpochFile>(&path).is_err());
}
