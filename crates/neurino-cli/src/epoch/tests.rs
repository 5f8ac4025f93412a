//! Files as a miner checks them: a good one, and ones that somebody changed.

use std::path::PathBuf;

use neurino_core::Receipt;
use neurino_ledger::epoch::{
    EPOCH_MS, Entries, EpochInputs, EpochRules, canonical_json, nodes_of, read_entries,
};
use neurino_wallet::IdentityKey;
use serde_json::{Value, json};

use super::payers::{self, Asked};
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

/// Entries of a bot that asks every ten minutes under one name, and of a person who asked three times.
fn week_of_a_bot() -> String {
    let mut entries = Vec::new();
    for n in 0..60_i64 {
        entries.push((n * 600_000, "bot\u{1b}[2J", 2_000_000 + n));
    }
    for n in 0..3_i64 {
        entries.push((n * 7_200_000 + 1, "ann", 5_000_000));
    }
    entries.sort_unstable();
    let line = |(n, (at_ms, payer, points)): (usize, (i64, &str, i64))| {
        let id = format!("00000000-0000-0000-0000-{n:012}");
        let entry = json!({
            "at_ms": WEEK * EPOCH_MS + at_ms, "lease": id, "movement": "reward", "job": id,
            "node": node(), "model": "m", "points": "llama", "points_micro": points,
            "organic_micro": points, "payer": payer, "source": "paid", "fee_micro": 800,
        });
        entry.to_string() + "\n"
    };
    entries.into_iter().enumerate().map(line).collect()
}

fn asked(entries: PathBuf) -> Asked {
    Asked { entries, file: None, limits: crate::args::BEHAVIOUR_LIMITS.into() }
}

#[test]
fn payers_are_shown_with_what_they_look_like_and_why() {
    let published = published();
    let path = published.put("entries.jsonl", &week_of_a_bot());
    let found = payers::found(&asked(path)).unwrap();
    let shown = payers::lines(&found, None);
    assert_eq!(shown[0], "2 payers, 63 jobs, 135.001770 organic points.");
    let told = "1 of them look automatic by the limits `behaviour1`: 60 jobs, 88.9 % of the organic \
                points.";
    assert_eq!(shown[1], told);
    let row = "bot[2J                         60         120.001770  88.9 %  automatic   gaps vary by \
               0.0 % (at most 20.0 %)";
    assert_eq!(shown[4], row);
    assert!(shown[5].starts_with("ann ") && shown[5].ends_with("says little"), "{}", shown[5]);
    // Whoever has the books learns who it is.
    let bot = &found.payers[0];
    let names = [(bot.job, "key-7".parse().unwrap())].into();
    let known = payers::lines(&found, Some(&names));
    assert!(known.contains(&"bot[2J is key-7".into()), "{known:?}");
    let rows = &payers::as_json(&found, Some(&names)).unwrap()["payers"];
    assert_eq!((&rows[0]["known_as"], &rows[1]["known_as"]), (&json!("key-7"), &Value::Null));
    assert_eq!(rows[0]["verdict"], "looks_automatic");
    assert_eq!(rows[0]["reasons"][0]["signal"], "regular_gaps");
    let known = payers::lines(&found, Some(&std::collections::BTreeMap::new()));
    assert!(known.contains(&"bot[2J is not in these books".into()), "{known:?}");
}

#[tokio::test]
async fn entries_that_say_nothing_of_payers_are_told_apart() {
    let published = published();
    let none = payers::found(&asked(published.put("none.jsonl", "\n"))).unwrap();
    assert!(payers::lines(&none, None)[0].starts_with("Nobody asked for work"));
    payers::run(Format::Json, &asked(published.put("none.jsonl", "")), None).await.unwrap();

    let refused = |asked: &Asked| format!("{:#}", payers::found(asked).unwrap_err());
    let week = week_of_a_bot();
    let broken = published.put("broken.jsonl", &format!("{week}{{}}"));
    let error = refused(&asked(broken));
    assert!(error.contains("broken.jsonl") && error.contains("line 64"), "{error}");
    let twice = asked(published.put("twice.jsonl", &format!("{week}{week}")));
    let error = refused(&twice);
    assert!(error.contains("twice.jsonl: entry 64 is older than"), "{error}");
    assert!(refused(&asked(PathBuf::from("no/where"))).contains("read no/where"));
    let path = published.put("entries.jsonl", &week);
    let unknown = Asked { limits: "other".into(), ..asked(path.clone()) };
    assert!(refused(&unknown).contains("`other` are unknown"), "{}", refused(&unknown));
    // Those of another file.
    let file = published.put("epoch.json", &published.file.canonical().unwrap());
    let error = refused(&Asked { file: Some(file.clone()), ..asked(path) });
    assert!(error.contains("are not all those of epoch 2968"), "{error}");
    let own = published.put("own.jsonl", &canonical_json(&published.entry).unwrap());
    let found = payers::found(&Asked { file: Some(file), ..asked(own) }).unwrap();
    assert_eq!(found.all.jobs, 1);
}
