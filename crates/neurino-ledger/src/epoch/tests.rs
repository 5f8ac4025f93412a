//! Epochs against other implementations, and against whoever changes a figure.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use neurino_core::{JobId, LeaseId, ModelId, NodeId, PointsKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const WEEK: i64 = 2_968;

fn rules() -> EpochRules {
    EpochRules::named("weekly1").unwrap()
}

fn address(n: u8) -> Address {
    Address([n; 20])
}

fn node(owner: u8, tag: u8) -> NodeId {
    NodeId::new(format!("{}-{tag}", address(owner))).unwrap()
}

fn reward_of(node: &NodeId) -> Option<(Address, u64)> {
    node.as_str()[..42].parse().ok().map(|reward| (reward, 0))
}

fn entry(n: u128, node: &NodeId, points_micro: i64, source: Source) -> Entry {
    Entry {
        at_ms: WEEK * EPOCH_MS + i64::try_from(n).unwrap(),
        lease: LeaseId(Uuid::from_u128(n)),
        movement: Movement::Reward,
        job: JobId(Uuid::from_u128(n)),
        node: node.clone(),
        model: ModelId::new("m").unwrap(),
        points: PointsKind::Llama,
        points_micro,
        organic_micro: 0,
        payer: format!("p{}", n % 3),
        source,
        fee_micro: if source == Source::Paid { points_micro / 2500 } else { 0 },
    }
}

fn with_weights(mut entries: Vec<Entry>) -> Vec<Entry> {
    let works: Vec<Work<'_>> = entries
        .iter()
        .map(|e| Work {
            payer: &e.payer,
            kind: e.points,
            points_micro: e.points_micro,
            fee_micro: e.fee_micro,
            source: e.source,
        })
        .collect();
    let weights = weigh(&rules(), &works);
    for (entry, weight) in entries.iter_mut().zip(weights) {
        entry.organic_micro = weight;
    }
    entries
}

type Debts = BTreeMap<NodeId, (PerKind<i64>, PerKind<i64>)>;

fn file_of(entries: &[Entry], debts: &Debts, previous: Option<&EpochFile>) -> EpochFile {
    let (nodes, demand) = nodes_of(entries, debts, reward_of).unwrap();
    let epoch = previous.map_or(WEEK, |file| file.inputs.epoch + 1);
    let (start_ms, end_ms) = EpochInputs::bounds(epoch).unwrap();
    let before = previous.iter().flat_map(|file| &file.result.accounts);
    let inputs = EpochInputs {
        network: "test".into(),
        epoch,
        start_ms,
        end_ms,
        claimable_from_ms: end_ms,
        previous_sha256: previous.map(|file| file.sha256().unwrap()),
        rules: rules(),
        audit_key: None,
        snapshot: None,
        entries: Entries::of(entries).unwrap(),
        demand,
        nodes,
        holders: vec![Holder { reward: address(1), nfts: 1, stake: Tokens(1) }],
        before: before.map(|a| Before { reward: a.reward, cumulative: a.cumulative }).collect(),
    };
    EpochFile::new(inputs, "0xc0".into()).unwrap()
}

fn sample() -> (EpochFile, Vec<Entry>) {
    let entries = with_weights(vec![
        entry(1, &node(1, 1), 5_000_000, Source::Paid),
        entry(2, &node(1, 2), 7_000_001, Source::Free),
        entry(3, &node(2, 1), 11_000_000, Source::Paid),
        entry(4, &node(3, 1), 1, Source::Own),
        entry(5, &node(3, 1), 999_999, Source::Free),
        entry(6, &node(2, 1), 500, Source::Audit),
    ]);
    (file_of(&entries, &Debts::new(), None), entries)
}

#[test]
fn trees_are_those_of_other_programs() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../tests/fixtures/merkle.json")).unwrap();
    for tree in vectors["trees"].as_array().unwrap() {
        let accounts = tree["accounts"].as_array().unwrap();
        let leaves: Vec<Hash> = accounts
            .iter()
            .map(|own| {
                let cumulative: Tokens = serde_json::from_value(own["cumulative"].clone()).unwrap();
                let leaf = leaf(serde_json::from_value(own["reward"].clone()).unwrap(), cumulative);
                assert_eq!(json!(leaf), own["leaf"]);
                leaf
            })
            .collect();
        assert_eq!(json!(root_of(&leaves)), tree["root"], "{} leaves", leaves.len());
        for (place, own) in accounts.iter().enumerate() {
            assert_eq!(json!(merkle::proof_of(&leaves, place)), own["proof"]);
        }
    }
    assert_eq!(root_of(&[]), Hash::ZERO);
}

#[test]
fn canonical_json_is_that_of_other_programs() {
    let vector: Value =
        serde_json::from_str(include_str!("../../tests/fixtures/canonical.json")).unwrap();
    assert_eq!(canonical_json(&vector["value"]).unwrap(), vector["text"].as_str().unwrap());
    assert!(canonical_json(&json!(0.5)).is_err());
    assert!(canonical_json(&json!(9_007_199_254_740_992_i64)).is_err());
}

#[test]
fn values_have_one_spelling() {
    for text in ["01", "-1", "+1", "", " 1", "1.0", "340282366920938463463374607431768211456"] {
        assert!(text.parse::<Tokens>().is_err(), "{text}");
    }
    assert_eq!("340282366920938463463374607431768211455".parse(), Ok(Tokens(u128::MAX)));
    let upper = format!("0x{}", "AB".repeat(20));
    for text in [upper.as_str(), "0x", "", "0x12"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
    assert_eq!(Tokens(1_500_000_000_000_000_000).shown(), "1.5");
}

#[test]
fn a_file_gives_itself_and_every_proof_leads_to_its_root() {
    let (file, entries) = sample();
    file.verify().unwrap();
    check_entries(&file, &entries).unwrap();
    let read: EpochFile = serde_json::from_str(&file.canonical().unwrap()).unwrap();
    assert_eq!(read, file);
    assert_eq!(file.result.accounts.len(), 3);
    for own in &file.result.accounts {
        let proof = file.proof(own.reward).unwrap();
        proof.check().unwrap();
        let more = Proof { cumulative: Tokens(own.cumulative.0 + 1), ..proof.clone() };
        assert!(more.check().is_err());
        let other = Proof { account: address(9), ..proof };
        assert!(other.check().is_err());
    }
    assert!(matches!(file.proof(address(9)), Err(EpochError::NoShare(_))));
    // One piece boosts both nodes of the first owner, by a tenth.
    assert_eq!(file.result.nodes[0].nft_ppm.llama, 1_100_000);
    assert_eq!(file.result.nodes[2].nft_ppm.llama, 1_000_000);
}

#[test]
fn organic_points_are_counted_by_the_rules() {
    let (file, entries) = sample();
    let organic: Vec<i64> = entries.iter().map(|e| e.organic_micro).collect();
    // 400 micro-credits stand for a point; payer 2 paid nothing and brings nothing; payer 0 paid for
    // eleven points. Own work and audits never count.
    assert_eq!(organic, [5_000_000, 0, 11_000_000, 0, 0, 0]);
    let demand = &file.inputs.demand.llama;
    assert_eq!((demand.raw_micro, demand.organic_micro), (24_000_501, 16_000_000));
    assert_eq!((demand.own_micro, demand.audit_micro, demand.payers), (1, 500, 3));
    let mut paid = entry(1, &node(1, 1), 10_000_000, Source::Paid);
    paid.payer = "x".into();
    let mut free = entry(2, &node(1, 1), 20_000_000, Source::Free);
    free.payer = "x".into();
    let weighed = with_weights(vec![paid, free]);
    // A fifth of 20 points would be 4; a quarter of what was paid allows 2.5.
    assert_eq!(weighed[1].organic_micro, 2_500_000);
}

/// Every single figure of inputs and result: whoever changes one is found out.
#[test]
fn no_figure_can_be_changed() {
    fn numbers(at: &str, value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    numbers(&format!("{at}/{}", name.replace('/', "~1")), value, out);
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    numbers(&format!("{at}/{n}"), item, out);
                }
            }
            Value::Number(_) => out.push(at.to_owned()),
            Value::String(text) if text.parse::<Tokens>().is_ok() => out.push(at.to_owned()),
            Value::String(text) if text.parse::<Hash>().is_ok() => out.push(at.to_owned()),
            _ => {}
        }
    }
    let (file, entries) = sample();
    let whole = serde_json::to_value(&file).unwrap();
    let signed = file.message().unwrap();
    let mut places = Vec::new();
    numbers("", &whole, &mut places);
    assert!(places.len() > 100, "{}", places.len());
    for place in places {
        let mut changed = whole.clone();
        let value = changed.pointer_mut(&place).unwrap();
        *value = match &*value {
            Value::Number(n) => json!(n.as_i64().unwrap() + 1),
            Value::String(text) => match text.parse::<Tokens>() {
                Ok(tokens) => json!(Tokens(tokens.0 + 1)),
                Err(_) => json!(format!("0x{}", "11".repeat(32))),
            },
            other => panic!("{other}"),
        };
        // A number that no type takes is refused as well as one that does not add up; what no sum
        // depends on is held by the signature.
        let Ok(forged) = serde_json::from_value::<EpochFile>(changed) else { continue };
        let held = forged.verify().is_ok() && check_entries(&forged, &entries).is_ok();
        assert!(!held || forged.message().unwrap() != signed, "{place}");
        if place.starts_with("/result") {
            assert!(matches!(forged.verify(), Err(EpochError::Differs { .. })), "{place}");
        }
        if place.contains("earned_micro") {
            assert!(check_entries(&forged, &entries).is_err(), "{place}");
        }
    }
}

#[test]
fn hostile_inputs_are_refused_not_computed() {
    let (file, _) = sample();
    let refused = |change: &dyn Fn(&mut EpochInputs)| {
        let mut inputs = file.inputs.clone();
        change(&mut inputs);
        compute(&inputs).unwrap_err()
    };
    refused(&|i| i.nodes[0].points.llama.earned_micro = -1);
    refused(&|i| i.nodes[0].points.llama.earned_micro = i64::MAX);
    refused(&|i| i.nodes[0].points.llama.called_back_micro = i64::MIN);
    refused(&|i| i.nodes[0].points.llama.carried_micro = 1);
    refused(&|i| i.nodes[0].organic.llama.earned_micro = 5_000_001);
    refused(&|i| i.nodes.swap(0, 1));
    refused(&|i| i.nodes.push(i.nodes[3].clone()));
    refused(&|i| i.holders.push(i.holders[0]));
    refused(&|i| i.epoch = i64::MAX);
    refused(&|i| i.epoch = -1);
    refused(&|i| i.end_ms += 1);
    refused(&|i| i.claimable_from_ms = 0);
    refused(&|i| i.before = vec![Before { reward: address(1), cumulative: Tokens(u128::MAX) }]);
    refused(&|i| i.before = vec![Before { reward: address(1), cumulative: Tokens(1) }]);
    refused(&|i| i.nodes[0].points.llama.carried_micro = -1);
    refused(&|i| i.nodes[0].organic.waifu.carried_micro = -1);
    refused(&|i| i.rules.pools.llama.base = Tokens(u128::MAX));
    refused(&|i| i.rules.pools.llama.dynamic_full_micro = 0);
    refused(&|i| i.rules.stake_extra_ppm = u32::MAX);
}

#[test]
fn what_is_called_back_is_owed_until_it_is_worked_off() {
    let bad = node(4, 1);
    let first = vec![entry(1, &bad, 100, Source::Own), entry(2, &node(5, 1), 100, Source::Own)];
    let first_file = file_of(&first, &Debts::new(), None);
    let shared = first_file.result.paid;
    let back = |n, micro| {
        let mut back = entry(n, &bad, micro, Source::Own);
        back.movement = Movement::Clawback;
        back
    };
    let second = vec![back(11, 100), entry(12, &bad, 30, Source::Own)];
    let second_file = file_of(&second, &Debts::new(), Some(&first_file));
    second_file.verify().unwrap();
    check_entries(&second_file, &second).unwrap();
    check_against(&second_file, &first_file).unwrap();
    assert_eq!(second_file.result.nodes[0].carried_micro.llama, -70);
    assert_eq!((second_file.result.paid, second_file.result.total), (Tokens::ZERO, shared));
    let debt = PerKind { llama: -70, waifu: 0 };
    let debts = Debts::from([(bad.clone(), (debt, PerKind::default()))]);
    let third = vec![entry(21, &bad, 100, Source::Own), entry(22, &node(5, 1), 30, Source::Own)];
    let third_file = file_of(&third, &debts, Some(&second_file));
    check_against(&third_file, &second_file).unwrap();
    assert_eq!(third_file.result.pools.llama.points_micro, 60, "thirty each");
    let [a, b] = [address(4), address(5)]
        .map(|own| third_file.result.accounts.iter().find(|a| a.reward == own).unwrap().share);
    assert_eq!(a, b);

    let forgotten = file_of(&third, &Debts::new(), Some(&second_file));
    assert!(check_against(&forgotten, &second_file).is_err(), "a debt was dropped");
    let mut skipped = third_file.clone();
    skipped.inputs.before.pop();
    assert!(check_against(&skipped, &second_file).is_err(), "a share was dropped");
    assert!(check_against(&third_file, &first_file).is_err(), "another file before");
}

#[test]
fn entries_that_were_forged_are_found_out() {
    let (file, entries) = sample();
    let refused = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut forged = entries.clone();
        change(&mut forged);
        check_entries(&file, &forged).unwrap_err()
    };
    refused(&|e| e.truncate(5));
    refused(&|e| e.push(e[5].clone()));
    refused(&|e| e.swap(0, 1));
    refused(&|e| e[0].points_micro = -1);
    refused(&|e| e[0].organic_micro = i64::MAX);
    refused(&|e| e[0].source = Source::Own);
    refused(&|e| e[5].at_ms += EPOCH_MS);
    assert!(read_entries("{}").is_err());
    assert!(read_entries(&" ".repeat(9999)).unwrap().is_empty());
    let lines: Vec<_> = entries.iter().map(|e| canonical_json(e).unwrap()).collect();
    assert_eq!(read_entries(&lines.join("\n")).unwrap(), entries);
}

#[test]
fn a_node_that_earned_and_is_not_paid_is_found_out() {
    let (_, entries) = sample();
    let file = |gone: &NodeId| {
        let (nodes, demand) =
            nodes_of(&entries, &Debts::new(), |node| reward_of(node).filter(|_| node != gone))
                .unwrap();
        let (whole, _) = sample();
        EpochFile::new(EpochInputs { demand, nodes, ..whole.inputs }, "0xc0".into()).unwrap()
    };
    let forged = file(&node(3, 1));
    forged.verify().unwrap();
    let error = check_entries(&forged, &entries).unwrap_err().to_string();
    assert!(error.contains(&format!("inputs.nodes[{}]", node(3, 1))), "{error}");
    check_entries(&file(&node(9, 9)), &entries).unwrap();
    // Nobody can be paid for a node whose name is no address.
    let nameless = NodeId::new("rig").unwrap();
    let unpaid = with_weights(vec![entry(1, &nameless, 7, Source::Own)]);
    let whole = sample().0.inputs;
    let (nodes, demand) = nodes_of(&unpaid, &Debts::new(), |_| None).unwrap();
    let entries = Entries::of(&unpaid).unwrap();
    let unpaid_file =
        EpochFile::new(EpochInputs { entries, demand, nodes, ..whole }, "0xc0".into()).unwrap();
    check_entries(&unpaid_file, &unpaid).unwrap();
}

#[test]
fn what_came_after_a_reward_moves_what_the_reward_paid() {
    let moved = |entry: &Entry, later: i64, movement| Entry {
        at_ms: entry.at_ms + later,
        movement,
        ..entry.clone()
    };
    let check = |later: &[Entry]| {
        let mut entries = sample().1;
        entries.extend_from_slice(later);
        check_entries(&file_of(&entries, &Debts::new(), None), &entries)
    };
    let reward = sample().1[0].clone();
    let clawback = moved(&reward, 100, Movement::Clawback);
    let given_back = moved(&reward, 200, Movement::Return);
    check(&[clawback.clone(), given_back.clone()]).unwrap();
    let refused = |later: &[Entry]| {
        let error = check(later).unwrap_err();
        assert!(matches!(error, EpochError::Input { .. }), "{error}");
    };
    refused(&[moved(&reward, 100, Movement::Reward)]);
    refused(&[clawback.clone(), moved(&reward, 101, Movement::Clawback)]);
    refused(std::slice::from_ref(&given_back));
    refused(&[Entry { points_micro: 5_000_001, ..clawback.clone() }]);
    refused(&[Entry { organic_micro: 1, ..clawback.clone() }]);
    refused(&[Entry { node: node(2, 1), ..clawback.clone() }]);
    refused(&[clawback, Entry { points_micro: 4_999_999, organic_micro: 0, ..given_back.clone() }]);
    // Its reward was in an earlier epoch.
    let lease = LeaseId(Uuid::from_u128(77));
    check(&[Entry { lease, ..given_back.clone() }]).unwrap();
    let back = moved(&Entry { lease, ..reward }, 100, Movement::Clawback);
    refused(&[back, Entry { lease, points_micro: 4_999_998, organic_micro: 0, ..given_back }]);
}

fn works_strategy() -> impl Strategy<Value = Vec<(bool, bool, i64, i64)>> {
    prop::collection::vec((any::<bool>(), any::<bool>(), 0_i64..50_000_000, 0_i64..40_000), 0..60)
}

proptest! {
    /// One payer alone, or the same work divided among many: never more, and hardly less if it paid
    /// for all of it.
    #[test]
    fn dividing_a_payer_earns_no_more(
        works in works_strategy(),
        names in prop::collection::vec(0_usize..7, 60),
    ) {
        let sybils = ["a", "b", "c", "d", "e", "f", "g"];
        let weigh_as = |name: &dyn Fn(usize) -> &'static str| -> i64 {
            let works: Vec<Work<'_>> = works
                .iter()
                .enumerate()
                .map(|(n, &(text, paid, points_micro, fee_micro))| Work {
                    payer: name(n),
                    kind: if text { PointsKind::Llama } else { PointsKind::Waifu },
                    points_micro,
                    fee_micro: if paid { fee_micro } else { 0 },
                    source: if paid { Source::Paid } else { Source::Free },
                })
                .collect();
            weigh(&rules(), &works).into_iter().sum()
        };
        let alone = weigh_as(&|_| "a");
        let divided = weigh_as(&|n| sybils[names[n]]);
        prop_assert!(divided <= alone, "{divided} > {alone}");
        if works.iter().all(|work| work.1) {
            prop_assert_eq!(divided, alone);
        }
    }

    /// Work by work comes to the same as with all of it at hand: paid work by its fee, and free work in
    /// its order until the payer's allowance is used up.
    #[test]
    fn work_by_work_weighs_what_all_at_once_does(
        works in works_strategy(),
        names in prop::collection::vec(0_usize..4, 60),
        sources in prop::collection::vec(0_usize..4, 60),
    ) {
        let works: Vec<Work<'_>> = works
            .iter()
            .enumerate()
            .map(|(n, &(text, _, points_micro, fee_micro))| Work {
                payer: ["a", "b", "c", "d"][names[n]],
                kind: if text { PointsKind::Llama } else { PointsKind::Waifu },
                points_micro,
                fee_micro,
                source: [Source::Paid, Source::Free, Source::Own, Source::Audit][sources[n]],
            })
            .collect();
        let rules = rules();
        let bought = |work: &Work<'_>| {
            let price = i128::from(rules.pool(work.kind).price_micro);
            let points = i128::from(work.fee_micro) * i128::from(rules.kappa_ppm) / price;
            points.min(i128::from(work.points_micro))
        };
        let whole: Vec<i64> = works
            .iter()
            .enumerate()
            .map(|(n, work)| {
                let same = |other: &&Work<'_>| (other.payer, other.kind) == (work.payer, work.kind);
                let free = |work: &Work<'_>| {
                    i128::from(work.points_micro) * i128::from(rules.free_ppm) / 1_000_000
                };
                let counts = match work.source {
                    Source::Paid => bought(work),
                    Source::Free => {
                        let paid = works.iter().filter(same).filter(|w| w.source == Source::Paid);
                        let allowed = paid.map(&bought).sum::<i128>()
                            * i128::from(rules.free_per_paid_ppm)
                            / 1_000_000;
                        let earlier = works[..n].iter().filter(same);
                        let used: i128 =
                            earlier.filter(|w| w.source == Source::Free).map(free).sum();
                        free(work).min((allowed - used).max(0))
                    }
                    Source::Own | Source::Audit => 0,
                };
                i64::try_from(counts).unwrap()
            })
            .collect();
        let mut paid = PaidSums::default();
        for work in works.iter().rev() {
            paid.add(&rules, work);
        }
        let mut weigher = paid.weigher(&rules);
        let one_by_one: Vec<i64> = works.iter().map(|work| weigher.weigh(work)).collect();
        prop_assert_eq!(&one_by_one, &whole);
        prop_assert_eq!(weigh(&rules, &works), whole);
    }

    /// What is shared and what is left over is the pool, and the leaves are the sum of all shares.
    #[test]
    fn nothing_is_shared_that_is_not_there(
        earned in prop::collection::vec((1_u8..6, 0_u8..3, 0_i64..1_000_000_000_000, any::<bool>()), 1..30),
    ) {
        let entries = with_weights(
            earned
                .iter()
                .enumerate()
                .map(|(n, &(owner, tag, micro, paid))| {
                    let source = if paid { Source::Paid } else { Source::Free };
                    entry(n as u128, &node(owner, tag), micro, source)
                })
                .collect(),
        );
        let file = file_of(&entries, &Debts::new(), None);
        file.verify().unwrap();
        check_entries(&file, &entries).unwrap();
        let mut paid = 0;
        for pool in [&file.result.pools.llama, &file.result.pools.waifu] {
            for part in [pool.base, pool.dynamic] {
                prop_assert_eq!(part.paid.0 + part.dust.0, part.amount.0);
                // Each share loses less than one unit.
                let shared = part.scores > Tokens::ZERO;
                prop_assert!(!shared || part.dust.0 < 6, "{:?}", part);
                prop_assert!(shared || part.paid == Tokens::ZERO);
                paid += part.paid.0;
            }
        }
        prop_assert_eq!(file.result.paid.0, paid);
        prop_assert_eq!(file.result.accounts.iter().map(|a| a.share.0).sum::<u128>(), paid);
        prop_assert_eq!(file.result.total.0, paid);
    }
}

#[test]
fn epochs_begin_on_thursday() {
    let epoch_at = |time: &str| epoch_of(time.parse::<jiff::Timestamp>().unwrap().as_millisecond());
    assert_eq!(epoch_at("1970-01-01T00:00:00Z"), 0);
    assert_eq!(epoch_at("1969-12-31T23:59:59Z"), -1);
    assert_eq!(epoch_at("2026-11-18T23:59:59Z") + 1, epoch_at("2026-11-19T00:00:00Z"));
}
