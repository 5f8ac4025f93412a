//! An epoch is made piece by piece, and is what it would be with all of the week at hand.

use std::sync::LazyLock;

use neurino_ledger::epoch::{
    Address, EPOCH_MS, EpochEditions, EpochFile, EpochRules, Holder, Movement, Snapshot, Tokens,
};
use neurino_wallet::IdentityKey;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::epochs::make::{self, EpochBooks, Maker, Sizes};
use crate::epochs::{Binding, Holdings, Owner};

mod whole;

on_both! {
    an_epoch_is_the_same_in_pieces
    a_draft_counts_for_nothing_and_is_begun_anew_after_a_crash
    payments_come_in_between
    books_that_change_meanwhile_are_read_anew
    one_of_two_makers_drafts
    pictures_are_looked_up_by_name
    a_week_is_made_by_the_rules_of_its_first_day
}

/// The first week of these tests.
const WEEK: i64 = 2_900;
const SALT: [u8; 32] = [3; 32];

fn key() -> IdentityKey {
    IdentityKey::generate(&mut StdRng::seed_from_u64(1))
}

fn maker(key: &IdentityKey, page: u32, write: usize) -> Maker<'_> {
    static RULES: LazyLock<EpochEditions> =
        LazyLock::new(|| EpochEditions::named("weekly1").expect("built in"));
    Maker { network: "test", rules: &RULES, key, escrow_ms: EPOCH_MS, sizes: Sizes { page, write } }
}

/// A time at which so many weeks from the first on are due.
fn after_weeks(weeks: i64) -> i64 {
    (WEEK + weeks + 2) * EPOCH_MS + 2 * 3_600_000
}

/// What somebody did, and what it earned.
struct Paid {
    n: u128,
    at_ms: i64,
    node: String,
    payer: &'static str,
    class: &'static str,
    points: PointsKind,
    amount: i64,
    charged: i64,
    /// What came back to the payer as deployer.
    returned: i64,
}

/// Writes a paid job by hand.
async fn pay(store: &Store, c: &mut Connection, paid: &Paid) {
    let n = paid.n;
    store.admit(new_job(n)).await.expect("writes");
    assert!(store.grant(grant(n, n, 1)).await.expect("writes"));
    query("UPDATE job SET payer = $1, class = $2, charged_micro = $3 WHERE id = $4")
        .bind(paid.payer)
        .bind(paid.class)
        .bind(paid.charged)
        .bind(job(n).to_string())
        .execute(&mut *c)
        .await
        .expect("writes");
    let mut receipt = settlement(n, n, 1, paid.at_ms).receipt;
    receipt.node = NodeId::new(&paid.node).expect("valid");
    receipt.quote.points = paid.points;
    receipt.quote.amount_micro = MicroPoints(paid.amount);
    query(
        "INSERT INTO receipt (lease, job, node, points, amount_micro, settled_at_ms, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(lease(n).to_string())
    .bind(job(n).to_string())
    .bind(&paid.node)
    .bind(if paid.points == PointsKind::Llama { "llama" } else { "waifu" })
    .bind(paid.amount)
    .bind(paid.at_ms)
    .bind(to_json(&receipt))
    .execute(&mut *c)
    .await
    .expect("writes");
    if paid.returned > 0 {
        query(
            "INSERT INTO posting (event, account, kind, points, amount_micro, at_ms) \
             VALUES ($1, $2, 'credit_charge', 'credit', $3, $4)",
        )
        .bind(lease(n).to_string())
        .bind(format!("deployer:{}", paid.payer))
        .bind(paid.returned)
        .bind(paid.at_ms)
        .execute(c)
        .await
        .expect("writes");
    }
}

async fn call_back(c: &mut Connection, n: u128, at_ms: i64, restored_at_ms: Option<i64>) {
    query(
        "INSERT INTO clawback (lease, node, conviction, at_ms, restored_at_ms) \
         VALUES ($1, 'x', (SELECT MAX(id) FROM conviction), $2, $3)",
    )
    .bind(lease(n).to_string())
    .bind(at_ms)
    .bind(restored_at_ms)
    .execute(c)
    .await
    .expect("writes");
}

async fn convict(c: &mut Connection) {
    let words = "INSERT INTO conviction (node, at_ms, since_ms, evidence) VALUES ('x', 0, 0, '{}')";
    c.run(words).await.expect("writes");
}

fn plain(n: u128, at_ms: i64) -> Paid {
    Paid {
        n,
        at_ms,
        node: format!("0x{}-rig", "a1".repeat(20)),
        payer: "lab",
        class: "interactive",
        points: PointsKind::Llama,
        amount: 1_000_000,
        charged: 40,
        returned: 0,
    }
}

fn random(rng: &mut StdRng, n: u128, at_ms: i64) -> Paid {
    let owner = ["a1", "b2", "c3"][rng.random_range(0..3)].repeat(20);
    let payers = ["lab", "guests", "local", "0xa1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"];
    let charged = if rng.random() { rng.random_range(0..900) } else { 0 };
    Paid {
        node: format!("0x{owner}-rig{}", rng.random_range(0..2)),
        payer: payers[rng.random_range(0..4)],
        class: if rng.random_ratio(1, 9) { "audit" } else { "interactive" },
        points: if rng.random() { PointsKind::Llama } else { PointsKind::Waifu },
        amount: rng.random_range(0..5_000_000),
        charged,
        returned: if rng.random_ratio(1, 4) { charged / 5 } else { 0 },
        ..plain(n, at_ms)
    }
}

fn address(byte: &str) -> Address {
    format!("0x{}", byte.repeat(20)).parse().expect("an address")
}

async fn an_epoch_is_the_same_in_pieces(books: Books) {
    let (store, key) = (books.open().await, key());
    let mut c = books.connection().await;
    let mut beside = Beside(books.connection().await);
    convict(&mut c).await;
    let (a, b) = (address("a1"), address("b2"));
    let holdings = Holdings {
        snapshot: Snapshot { chain_id: 1, block: 7, taken_at_ms: WEEK * EPOCH_MS + 1 },
        holders: vec![
            Holder { reward: a, nfts: 2, stake: Tokens(5) },
            Holder { reward: address("d4"), nfts: 1, stake: Tokens(0) },
        ],
        bindings: vec![Binding { identity: b, reward: a }],
        payers: vec![Owner { payer: "lab".into(), owner: address("c3") }],
    };
    let (taken_at_ms, body) = (holdings.snapshot.taken_at_ms, to_json(&holdings));
    assert!(beside.keep_holdings(taken_at_ms, &body).await.expect("writes"));
    let mut rng = StdRng::seed_from_u64(7);
    let (mut n, mut epochs, mut entries) = (0, 0, 0);
    for week in 0..4 {
        // Each millisecond pays once; some of a week come late, when it is published already.
        let mut at_ms = (WEEK + week) * EPOCH_MS - if week == 0 { 0 } else { 500 };
        for _ in 0..rng.random_range(30..60) {
            (n, at_ms) = (n + 1, at_ms + rng.random_range(1..9));
            pay(&store, &mut c, &random(&mut rng, n, at_ms)).await;
            if rng.random_ratio(1, 4) {
                // In its week, before it was even paid by a clock that was set, or one of the weeks after.
                let then = at_ms + rng.random_range(-5..20) + EPOCH_MS * rng.random_range(0..2);
                let back = rng.random_bool(0.5).then(|| then + EPOCH_MS * rng.random_range(0..2));
                call_back(&mut c, n, then, back).await;
            }
        }
        let now_ms = after_weeks(week);
        let pages = [(1, 1), (2, 3), (7, 32), (1_000, 512)];
        let (page, write) = pages[usize::try_from(week).expect("small")];
        let maker = maker(&key, page, write);
        loop {
            let expected = whole::made(&mut beside, &maker, now_ms, SALT).await;
            // By turns, the coordinator and somebody beside it.
            let mut books = if (week + epochs) % 2 == 0 {
                EpochBooks::Own(&store)
            } else {
                EpochBooks::Beside(&mut beside)
            };
            let week = make::drafted(&mut books, &maker, now_ms, SALT).await.expect("drafts");
            let (Some(mut week), Some((expected, lines))) = (week, expected) else { break };
            let epoch = make::made(&maker, &mut week, now_ms).expect("computes");
            assert_eq!(epoch.body, expected.body);
            assert_eq!(epoch.summary, expected.summary);
            let number = epoch.epoch;
            assert!(store.epoch_lines(number, 0, 9_999).await.expect("reads").is_empty());
            assert!(week.publish(&mut books, epoch).await.expect("publishes"));
            assert_eq!(store.epoch_lines(number, 0, 9_999).await.expect("reads"), lines);
            (epochs, entries) = (epochs + 1, entries + lines.len());
        }
    }
    assert!(epochs >= 4 && entries > 120, "{epochs} epochs of {entries} entries");
}

/// Books with a few paid jobs in the first week.
async fn of_a_week(books: &Books, jobs: u128) -> Store {
    let store = books.open().await;
    let mut c = books.connection().await;
    for n in 1..=jobs {
        let at_ms = WEEK * EPOCH_MS + i64::try_from(n).expect("small");
        pay(&store, &mut c, &plain(n, at_ms)).await;
    }
    store
}

fn drafter(name: &str, is_router: bool) -> Drafter {
    Drafter { name: name.into(), is_router }
}

fn begin(name: &str, is_router: bool, at_ms: i64) -> DraftStep {
    let drafter = drafter(name, is_router);
    DraftStep::Begin { drafter, epoch: WEEK, previous: None, at_ms }
}

fn add(name: &str, from: u64, leases: std::ops::Range<u128>) -> DraftStep {
    let entry = |n| NewEpochEntry {
        lease: lease(n),
        movement: Movement::Reward,
        organic_micro: 0,
        line: "half".into(),
    };
    let entries = leases.map(entry).collect();
    DraftStep::Add { drafter: drafter(name, true), epoch: WEEK, from, entries, at_ms: now() }
}

fn now() -> i64 {
    crate::coordinator::now_ms()
}

async fn a_draft_counts_for_nothing_and_is_begun_anew_after_a_crash(books: Books) {
    let (store, key) = (of_a_week(&books, 9).await, key());
    let mut beside = Beside(books.connection().await);
    let maker = maker(&key, 4, 2);
    let expected = whole::made(&mut beside, &maker, after_weeks(0), SALT).await;
    let (expected, lines) = expected.expect("one is due");
    let first = store.first_unmarked(after_weeks(0)).await.expect("reads");
    assert_eq!(store.draft(begin("dies", true, now())).await.expect("writes"), Drafted::Done);
    assert_eq!(store.draft(add("dies", 0, 1..6)).await.expect("writes"), Drafted::Done);
    store.close().await;

    let store = books.open().await;
    assert!(store.epoch_lines(WEEK, 0, 99).await.expect("reads").is_empty(), "nobody sees it");
    assert_eq!(store.epoch_file(WEEK).await.expect("reads"), None);
    assert_eq!(store.first_unmarked(after_weeks(0)).await.expect("reads"), first);
    let mut own = EpochBooks::Own(&store);
    let drafted = make::drafted(&mut own, &maker, after_weeks(0), SALT).await;
    let mut week = drafted.expect("drafts").expect("one is due");
    // The one that was thought dead goes on.
    assert_eq!(store.draft(add("dies", 5, 6..9)).await.expect("writes"), Drafted::Lost);
    let epoch = make::made(&maker, &mut week, after_weeks(0)).expect("computes");
    assert_eq!(epoch.body, expected.body);
    let (short, publish) = (NewEpoch { entries: 8, ..epoch.clone() }, epoch);
    assert!(!week.publish(&mut own, short).await.expect("answers"), "an entry is missing");
    assert!(week.publish(&mut own, publish.clone()).await.expect("publishes"));
    assert!(!week.publish(&mut own, publish).await.expect("answers"), "only once");
    assert_eq!(store.epoch_lines(WEEK, 0, 99).await.expect("reads"), lines);
    // What is published stays, whatever somebody writes by hand.
    for words in [
        "DELETE FROM epoch_entry",
        "UPDATE epoch_entry SET line = ''",
        "INSERT INTO epoch_entry SELECT lease, 'return', epoch, 99, 0, '' FROM epoch_entry \
         WHERE place = 0",
    ] {
        assert!(beside.0.run(words).await.is_err(), "{words}");
    }
}

async fn a_week_is_made_by_the_rules_of_its_first_day(books: Books) {
    let (store, key) = (books.open().await, key());
    let mut c = books.connection().await;
    for week in 0..3 {
        let at_ms = (WEEK + week) * EPOCH_MS + 1;
        pay(&store, &mut c, &plain(u128::try_from(week).expect("small"), at_ms)).await;
    }
    let weekly = EpochRules::named("weekly1").expect("built in");
    let (name, from) = ("pools1".to_owned(), jiff::Timestamp::UNIX_EPOCH);
    let first = EpochRules { name, from, ..weekly };
    // It holds from a moment within the second week, and so from the third week on.
    let from = jiff::Timestamp::from_millisecond((WEEK + 1) * EPOCH_MS + 1).expect("a time");
    let second = EpochRules { name: "pools2".into(), from, ..first.clone() };
    let rules = EpochEditions::among(vec![second, first], "pools").expect("there are two");
    let maker = Maker { rules: &rules, ..maker(&key, 10, 10) };
    let mut own = EpochBooks::Own(&store);
    let mut names = Vec::new();
    while let Some(mut week) =
        make::drafted(&mut own, &maker, after_weeks(3), SALT).await.expect("drafts")
    {
        let epoch = make::made(&maker, &mut week, after_weeks(3)).expect("computes");
        let file: EpochFile = serde_json::from_str(&epoch.body).expect("it reads");
        names.push(file.inputs.rules.name);
        assert!(week.publish(&mut own, epoch).await.expect("publishes"));
    }
    assert_eq!(names, ["pools1", "pools1", "pools2"]);
}

async fn payments_come_in_between(books: Books) {
    let (store, key) = (of_a_week(&books, 9).await, key());
    let maker = maker(&key, 4, 2);
    let mut beside = Beside(books.connection().await);
    for n in 100..102 {
        store.admit(new_job(n)).await.expect("writes");
    }
    assert_eq!(beside.draft(begin("slow", false, now())).await.expect("writes"), Drafted::Done);
    let step = |from, leases| match add("slow", from, leases) {
        DraftStep::Add { entries, epoch, at_ms, .. } => {
            let drafter = drafter("slow", false);
            DraftStep::Add { drafter, epoch, from, entries, at_ms }
        }
        other => other,
    };
    let last_ms = WEEK * EPOCH_MS + 50;
    assert_eq!(beside.draft(step(0, 1..4)).await.expect("writes"), Drafted::Done);
    assert!(store.grant(grant(100, 100, 1)).await.expect("writes"), "a lease");
    assert_eq!(beside.draft(step(3, 4..6)).await.expect("writes"), Drafted::Done);
    let paid = store.settle(settlement(100, 100, 1, last_ms)).await.expect("writes");
    assert_eq!(paid, Settled::Paid);
    assert_eq!(beside.draft(step(5, 6..10)).await.expect("writes"), Drafted::Done);
    // And once more while an epoch is really drafted, one entry at a time.
    let drafting = async {
        let mut own = EpochBooks::Own(&store);
        make::drafted(&mut own, &maker, after_weeks(0), SALT).await
    };
    let refused = drafting.await;
    assert!(matches!(refused, Err(CoordinatorError::EpochUnderWay)), "{refused:?}");
    let minutes_ago = now() - 2 * 60_000;
    query("UPDATE epoch_draft SET touched_at_ms = $1")
        .bind(minutes_ago)
        .execute(&mut beside.0)
        .await
        .expect("writes");
    let (drafted, paid) = tokio::join!(
        async {
            let mut own = EpochBooks::Own(&store);
            make::drafted(&mut own, &maker, after_weeks(0), SALT).await
        },
        async {
            assert!(store.grant(grant(101, 101, 1)).await.expect("writes"));
            // Of a later week.
            store.settle(settlement(101, 101, 1, (WEEK + 1) * EPOCH_MS)).await.expect("writes")
        }
    );
    assert_eq!(paid, Settled::Paid);
    let mut week = drafted.expect("drafts").expect("one is due");
    let epoch = make::made(&maker, &mut week, after_weeks(0)).expect("computes");
    assert_eq!(epoch.entries, 10);
    assert!(week.publish(&mut EpochBooks::Own(&store), epoch).await.expect("publishes"));
    assert!(store.ledger_check().await.expect("reads").mismatched_balances == 0);
}

async fn books_that_change_meanwhile_are_read_anew(books: Books) {
    let (store, key) = (of_a_week(&books, 5).await, key());
    let maker = maker(&key, 2, 2);
    let mut c = books.connection().await;
    let mut own = EpochBooks::Own(&store);
    let survey = make::surveyed(&mut own, &maker, after_weeks(0), SALT).await.expect("reads");
    // A payment of that week that is written only now.
    pay(&store, &mut c, &plain(50, WEEK * EPOCH_MS + 4_000)).await;
    let drafted = make::written(&mut own, &maker, survey.expect("one is due")).await;
    assert!(matches!(drafted, Err(CoordinatorError::EpochMoved)), "{drafted:?}");
    assert!(store.epoch_lines(WEEK, 0, 99).await.expect("reads").is_empty());
    let drafted = make::drafted(&mut own, &maker, after_weeks(0), SALT).await;
    let mut week = drafted.expect("drafts").expect("one is due");
    let epoch = make::made(&maker, &mut week, after_weeks(0)).expect("computes");
    assert_eq!(epoch.entries, 6);
    assert!(week.publish(&mut own, epoch).await.expect("publishes"));
}

async fn one_of_two_makers_drafts(books: Books) {
    let store = of_a_week(&books, 3).await;
    let mut beside = Beside(books.connection().await);
    let at_ms = now();
    assert_eq!(beside.draft(begin("b", false, at_ms)).await.expect("writes"), Drafted::Done);
    assert_eq!(store.draft(begin("r", true, at_ms + 1)).await.expect("writes"), Drafted::Busy);
    assert_eq!(beside.draft(begin("b2", false, at_ms)).await.expect("writes"), Drafted::Busy);
    // Nobody heard of it for a while.
    let later_ms = at_ms + 61_000;
    assert_eq!(store.draft(begin("r", true, later_ms)).await.expect("writes"), Drafted::Done);
    let back = begin("b", false, later_ms + 1_000);
    assert_eq!(beside.draft(back).await.expect("writes"), Drafted::Busy);
    // Its clock was far ahead.
    assert_eq!(beside.draft(begin("b", false, at_ms)).await.expect("writes"), Drafted::Done);
    // There is one router at a time: what another one began is its own.
    let later_ms = at_ms + 61_000;
    for name in ["r1", "r2"] {
        let taken = store.draft(begin(name, true, later_ms)).await.expect("writes");
        assert_eq!(taken, Drafted::Done, "{name}");
    }
    let step = DraftStep::Clear { drafter: drafter("r1", true), at_ms: later_ms };
    assert_eq!(store.draft(step).await.expect("writes"), Drafted::Lost);
    let newer = DraftStep::Begin {
        drafter: drafter("r3", true),
        epoch: WEEK,
        previous: Some(1),
        at_ms: later_ms,
    };
    assert_eq!(store.draft(newer).await.expect("writes"), Drafted::Lost, "another is the newest");
}

async fn pictures_are_looked_up_by_name(books: Books) {
    let store = of_a_week(&books, 3).await;
    let mut c = books.connection().await;
    let digest = |n: u128| format!("{n:064x}");
    for n in 1..=2_u128 {
        query("INSERT INTO picture (job, sha256) VALUES ($1, $2)")
            .bind(job(n).to_string())
            .bind(digest(n))
            .execute(&mut c)
            .await
            .expect("writes");
    }
    let (one, two, three) = (lease(1), lease(2), lease(3));
    let (d1, d2, d3) = (digest(1), digest(2), digest(3));
    let kept = [
        format!("{one}-{d1}.sealed"),
        format!("{one}-{d1}.png"),
        format!("{two}-{d2}.sealed"),
        format!("{d2}.png"),
    ];
    let gone = [
        // Another lease's picture, no picture at all, and names that are none.
        format!("{one}-{d2}.sealed"),
        format!("{three}-{d3}.sealed"),
        format!("{d3}.png"),
        ".writing-x".to_owned(),
        String::new(),
    ];
    let mut names: Vec<String> = kept.iter().chain(&gone).cloned().collect();
    // More than fit into one question.
    names.extend((10..200).map(|n| format!("{}-{}.sealed", lease(n), digest(n))));
    names.rotate_left(5);
    let found = store.kept_pictures(names).await.expect("reads");
    assert_eq!(found, kept.into_iter().collect());
}
