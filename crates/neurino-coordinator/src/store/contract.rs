//! What the books enforce whatever their caller believes, in every database.

use neurino_core::audit::{AuditRules, Outcome, Record};
use neurino_core::{
    FinishReason, JobId, JobOutput, JobSpec, JobState, LeaseId, MicroCredits, MicroPoints, ModelId,
    Multiplier, NodeId, PointsKind, Quote, Receipt, TextJob, TextOutput, Usage,
};
use neurino_ledger::{Account, EntryKind, Event, PayerId, event_of};
use neurino_protocol::{ErrorBody, ErrorCode};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::keys::KeyTerms;

#[path = "../../tests/it/server.rs"]
pub(crate) mod server;

/// Runs each case on a file and on a server.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Books::file()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
            async fn $case() {
                super::$case(super::Books::server().await).await;
            })*
        }
    };
}

on_both! {
    only_the_newest_lease_is_paid_and_only_once
    a_withdrawn_job_cannot_be_leased_or_paid
    a_write_that_fails_undoes_itself_alone
    the_schema_refuses_what_no_statement_of_ours_does
    a_closed_store_says_so
    keys_and_settings_are_read_as_they_were_written
    two_writers_book_one_after_the_other
    books_belong_to_one_key
    channels_change_while_nobody_else_writes
    what_was_doubtful_is_decided_before_it_is_looked_up
    a_pardon_covers_what_comes_to_light_later
    a_failure_that_passes_frees_its_key_however_the_job_ended
    an_attended_job_is_known_as_such
}

mod clawback;
mod epochs;
mod payloads;

/// Who coordinates in these tests.
const COORDINATOR: &str = "0xc0";

/// Books of a test.
struct Books {
    _folder: TempDir,
    database: Database,
}

impl Books {
    fn file() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = Database::Sqlite(folder.path().join("books.sqlite"));
        Self { _folder: folder, database }
    }

    async fn server() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = server::fresh().await;
        let address = address.expect("a server is named; `cargo xtask test stores` starts one");
        let database = Database::at(&address, folder.path().join("pictures")).expect("an address");
        Self { _folder: folder, database }
    }

    fn key_file(&self) -> KeyFile {
        KeyFile { path: self.database.payload_key(), renew: false }
    }

    async fn try_open(&self, coordinator: &str) -> Result<Store, CoordinatorError> {
        Store::open(&self.database, "test", coordinator, &self.key_file()).await
    }

    async fn open(&self) -> Store {
        self.try_open(COORDINATOR).await.expect("opens")
    }

    /// A connection beside the store.
    async fn connection(&self) -> Connection {
        match &self.database {
            Database::Sqlite(path) => super::sqlite::beside(path).await.expect("opens"),
            Database::Postgres(books) => {
                super::postgres::beside(books).await.expect("opens").expect("there are books")
            }
        }
    }
}

fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

fn lease(n: u128) -> LeaseId {
    LeaseId(Uuid::from_u128(1000 + n))
}

fn node() -> NodeId {
    NodeId::new("0xab").expect("valid")
}

fn new_job(n: u128) -> NewJob {
    let text = TextJob::new(ModelId::new("m").expect("valid"), vec![], 1);
    NewJob {
        placement: None,
        id: job(n),
        payer: PayerId::local(),
        key: None,
        rule_set: "practice1".into(),
        spec: JobSpec::Text(text),
        no_node_wait_ms: 0,
        class: crate::router::JobClass::Interactive,
        attempts_max: None,
        frontend: None,
        hold: None,
        attended: false,
        at_ms: 0,
    }
}

fn grant(n: u128, attempt: u128, fence: u32) -> Grant {
    Grant {
        job: job(n),
        lease: lease(attempt),
        fence,
        node: node(),
        unit: None,
        granted_at_ms: 0,
        deadline_ms: 1,
    }
}

fn release(n: u128, attempt: u128, fence: u32) -> Release {
    let end = AttemptEnd::Lost;
    Release { job: job(n), lease: lease(attempt), fence, end, give_up: None, at_ms: 0 }
}

fn close(n: u128, state: JobState) -> Close {
    Close { job: job(n), state, error: ErrorBody::new(ErrorCode::Cancelled, "test"), at_ms: 0 }
}

fn settlement(n: u128, attempt: u128, fence: u32, at_ms: i64) -> Settlement {
    let amount_micro = MicroPoints(7);
    let (from, to) = (Account::Pool, Account::Node(node()));
    let (kind, points) = (EntryKind::JobReward, PointsKind::Llama);
    let event =
        Event::transfer(event_of(lease(attempt)), kind, points.into(), from, to, amount_micro)
            .expect("balances");
    let usage = Usage { prompt_tokens: 1, completion_tokens: 6 };
    let output = JobOutput::Text(TextOutput::single("hi", FinishReason::Stop, usage));
    let receipt = Receipt {
        event: event.id(),
        job: job(n),
        lease: lease(attempt),
        node: node(),
        model: ModelId::new("m").expect("valid"),
        usage,
        rule_set: "practice1".into(),
        quote: Quote {
            points,
            units: 7,
            base_micro: amount_micro,
            factor: Multiplier::ONE,
            multiplier: Multiplier::ONE,
            amount_micro,
        },
        digest: output.digest(),
        duration_ms: 1,
        settled_at_ms: at_ms,
        network: "test".into(),
        coordinator: "0x".into(),
        signature: "0x".into(),
    };
    let (charged, mark, audit) = (MicroCredits(0), None, None);
    Settlement { output, uploaded: false, fence, event, receipt, charged, mark, audit }
}

/// Whether it is still waiting after a while.
async fn waits<T>(work: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    tokio::time::timeout(std::time::Duration::from_millis(200), work).await.is_err()
}

async fn channels_change_while_nobody_else_writes(books: Books) {
    let store = books.open().await;
    let address: neurino_ledger::epoch::Address =
        format!("0x{}", "aa".repeat(20)).parse().expect("valid");
    let payer = PayerId::new(address.to_string()).expect("valid");
    let mut writing = books.connection().await;
    writing.begin_writing().await.expect("begins");
    {
        let opening = crate::vouchers::open_channel(&books.database, address, MicroCredits(9));
        let mut opening = std::pin::pin!(opening);
        assert!(waits(opening.as_mut()).await);
        writing.run("COMMIT").await.expect("commits");
        opening.await.expect("writes");
    }
    writing.begin_writing().await.expect("begins");
    {
        let mut closing = std::pin::pin!(crate::vouchers::close_channel(&books.database, address));
        assert!(waits(closing.as_mut()).await);
        writing.run("COMMIT").await.expect("commits");
        closing.await.expect("writes");
    }
    let booking = Booking {
        payer,
        cumulative_micro: 1,
        epoch: 1,
        epoch_min: 0,
        signature: "0x".into(),
        needed: MicroCredits(1),
        repeat: None,
        at_ms: 2,
    };
    assert_eq!(store.book_voucher(booking).await.expect("writes"), Booked::NoChannel);
}

async fn what_was_doubtful_is_decided_before_it_is_looked_up(books: Books) {
    let store = books.open().await;
    store.after_doubts().await.expect("nothing is under way");
    // A router's transaction whose connection broke, and which the server is still to end.
    let mut broken = books.connection().await;
    broken.begin_writing().await.expect("begins");
    let mut looking = std::pin::pin!(store.after_doubts());
    assert!(waits(looking.as_mut()).await);
    broken.run("COMMIT").await.expect("commits");
    looking.await.expect("it is decided");
}

async fn a_pardon_covers_what_comes_to_light_later(books: Books) {
    let store = books.open().await;
    let paid = async |n: u128, at_ms: i64| {
        store.admit(new_job(n)).await.expect("writes");
        store.grant(grant(n, n, 1)).await.expect("writes");
        let audit =
            NewAudit { class: String::new(), rate_ppm: 1_000_000, suspicion: None, known: None };
        let settlement = Settlement { audit: Some(audit), ..settlement(n, n, 1, at_ms) };
        assert_eq!(store.settle(settlement).await.expect("writes"), Settled::Paid);
    };
    let failed = async |n: u128| {
        let write = AuditWrite::Decide {
            job: job(n),
            from: AuditState::Waiting,
            to: AuditState::Failed,
            finding: None,
            auditor: None,
            validator: None,
            rulings: vec![Ruling::new(node(), Outcome::Failed)],
            rules: AuditRules::built_in(),
            at_ms: 60,
        };
        store.audit(write).await.expect("writes")
    };
    for n in 1..=40 {
        paid(n, i64::try_from(n).expect("small")).await;
    }
    let mut next = 1;
    while failed(next).await.convicted.is_empty() {
        next += 1;
        assert!(next < 30, "it is convicted");
    }
    let mut beside = Beside::open(&books.database).await.expect("opens");
    assert!(beside.decide_appeal(&node(), true, "memory", 70).await.expect("writes"));
    for n in next + 1..=40 {
        let written = failed(n).await;
        assert_eq!((written.changed, &written.records[&node()]), (1, &Record::pardoned()));
    }
    paid(41, 71).await;
    assert_eq!(failed(41).await.records[&node()].test_failed, 1, "the next one counts");
    assert!(store.ledger_check().await.expect("reads").holds());
}

async fn books_belong_to_one_key(books: Books) {
    let open = |own: &'static str| books.try_open(own);
    open("0xa1").await.expect("opens").close().await;
    let Err(refused) = open("0xb2").await else { panic!("another key") };
    assert!(matches!(refused, CoordinatorError::OtherCoordinator { .. }), "{refused}");
    for words in ["0xa1", "0xb2", "backup"] {
        assert!(refused.to_string().contains(words), "{refused}");
    }
    open("0xa1").await.expect("its own").close().await;
    // As books are that were made before the address was kept: the present key takes them.
    let mut connection = books.connection().await;
    connection.run("DELETE FROM meta WHERE key = 'coordinator'").await.expect("runs");
    open("0xb2").await.expect("opens").close().await;
    assert!(matches!(open("0xa1").await, Err(CoordinatorError::OtherCoordinator { .. })));
    let mut beside = Beside::open(&books.database).await.expect("opens");
    assert_eq!(beside.coordinator().await.expect("reads").as_deref(), Some("0xb2"));
    beside.check_coordinator("0xb2").await.expect("its own");
    assert!(beside.check_coordinator("0xa1").await.is_err());
}

async fn only_the_newest_lease_is_paid_and_only_once(books: Books) {
    let store = books.open().await;
    assert_eq!(store.admit(new_job(1)).await.expect("writes"), Admitted::New);
    assert!(store.grant(grant(1, 1, 1)).await.expect("writes"));
    let open = store.open_job(job(1)).await.expect("reads").expect("it is open");
    assert_eq!((open.fence, open.running.map(|running| running.lease)), (1, Some(lease(1))));
    assert!(store.open_job(job(2)).await.expect("reads").is_none());
    assert!(!store.grant(grant(1, 2, 2)).await.expect("writes"), "leased already");
    assert!(store.release(release(1, 1, 1)).await.expect("writes"));
    assert!(!store.release(release(1, 1, 1)).await.expect("writes"), "only once");
    assert!(store.grant(grant(1, 2, 2)).await.expect("writes"));
    let stale = store.settle(settlement(1, 1, 1, 10)).await.expect("writes");
    assert_eq!(stale, Settled::Stale);
    assert_eq!(store.settle(settlement(1, 2, 2, 11)).await.expect("writes"), Settled::Paid);
    let receipt = Box::new(settlement(1, 2, 2, 11).receipt);
    let again = store.settle(settlement(1, 2, 2, 12)).await.expect("writes");
    assert_eq!(again, Settled::Before(receipt), "the first receipt, not a new one");
    assert!(!store.end(close(1, JobState::Cancelled)).await.expect("writes"));
    assert!(!store.release(release(1, 2, 2)).await.expect("writes"));
    let check = store.ledger_check().await.expect("reads");
    assert!(check.holds());
    assert_eq!((check.receipts, check.jobs["succeeded"]), (1, 1));
}

async fn a_failure_that_passes_frees_its_key_however_the_job_ended(books: Books) {
    let store = books.open().await;
    let key = neurino_core::IdempotencyKey::new("k").expect("valid");
    let ask = |n| NewJob { key: Some(key.clone()), ..new_job(n) };
    let failure = |code| ErrorBody::new(code, "test");
    assert_eq!(store.admit(ask(1)).await.expect("writes"), Admitted::New);
    // Queued again: it is still that job's.
    assert!(store.grant(grant(1, 1, 1)).await.expect("writes"));
    assert!(store.release(release(1, 1, 1)).await.expect("writes"));
    assert_eq!(store.admit(ask(2)).await.expect("writes"), Admitted::Known(job(1)));
    // Given up with its last attempt, for want of nodes: who obeys and tries again means another try.
    let give_up = Some(failure(ErrorCode::NoNodeAvailable));
    assert!(store.grant(grant(1, 2, 2)).await.expect("writes"));
    assert!(store.release(Release { give_up, ..release(1, 2, 2) }).await.expect("writes"));
    assert_eq!(store.admit(ask(2)).await.expect("writes"), Admitted::New);
    // Withdrawn before it had a node.
    let error = failure(ErrorCode::NoNodeAvailable);
    assert!(store.end(Close { error, ..close(2, JobState::Failed) }).await.expect("writes"));
    assert_eq!(store.admit(ask(3)).await.expect("writes"), Admitted::New);
    // For good: a repeat hears of it.
    let give_up = Some(failure(ErrorCode::EngineFailed));
    assert!(store.grant(grant(3, 3, 1)).await.expect("writes"));
    assert!(store.release(Release { give_up, ..release(3, 3, 1) }).await.expect("writes"));
    assert_eq!(store.admit(ask(4)).await.expect("writes"), Admitted::Known(job(3)));
}

async fn an_attended_job_is_known_as_such(books: Books) {
    let store = books.open().await;
    let key = neurino_core::IdempotencyKey::new("k").ok();
    for (n, attended, key) in
        [(1, false, None), (2, true, None), (3, true, key.clone()), (4, false, key)]
    {
        let payer = PayerId::new(format!("p{n}")).expect("valid");
        let asked = NewJob { attended, key: key.clone(), payer, ..new_job(n) };
        assert_eq!(store.admit(asked).await.expect("writes"), Admitted::New);
        let open = store.open_job(job(n)).await.expect("reads").expect("it is open");
        assert_eq!((open.attended, open.has_key), (attended, key.is_some()), "{n}");
    }
}

async fn a_withdrawn_job_cannot_be_leased_or_paid(books: Books) {
    let store = books.open().await;
    store.admit(new_job(1)).await.expect("writes");
    store.grant(grant(1, 1, 1)).await.expect("writes");
    assert!(store.end(close(1, JobState::Cancelled)).await.expect("writes"));
    assert!(!store.grant(grant(1, 2, 2)).await.expect("writes"));
    assert_eq!(store.settle(settlement(1, 1, 1, 1)).await.expect("writes"), Settled::Stale);
    let attempt = store.attempt(lease(1)).await.expect("reads").expect("exists");
    assert_eq!((attempt.state.as_str(), attempt.job_state), ("cancelled", JobState::Cancelled));
    assert_eq!(store.ledger_check().await.expect("reads").receipts, 0);
}

async fn a_write_that_fails_undoes_itself_alone(books: Books) {
    let store = books.open().await;
    for n in 1..=3 {
        store.admit(new_job(n)).await.expect("writes");
        store.grant(grant(n, n, 1)).await.expect("writes");
    }
    // One group: the second receipt has a time that is taken, so its job must stay leased.
    let (first, second, third) = tokio::join!(
        store.settle(settlement(1, 1, 1, 50)),
        store.settle(settlement(2, 2, 1, 50)),
        store.settle(settlement(3, 3, 1, 51)),
    );
    assert_eq!((first.expect("paid"), third.expect("paid")), (Settled::Paid, Settled::Paid));
    assert!(matches!(second, Err(StoreError::Sql(_))));
    let check = store.ledger_check().await.expect("reads");
    assert!(check.holds(), "{check:?}");
    assert_eq!((check.jobs["succeeded"], check.jobs["leased"]), (2, 1));
    assert_eq!(store.settle(settlement(2, 2, 1, 52)).await.expect("writes"), Settled::Paid);
}

async fn the_schema_refuses_what_no_statement_of_ours_does(books: Books) {
    let store = books.open().await;
    store.admit(new_job(1)).await.expect("writes");
    store.grant(grant(1, 1, 1)).await.expect("writes");
    store.settle(settlement(1, 1, 1, 1)).await.expect("writes");
    store.close().await;
    let mut connection = books.connection().await;
    for forbidden in [
        "UPDATE job SET state = 'queued'",
        "UPDATE job SET fence = 0",
        "UPDATE job SET state = 'paid'",
        "UPDATE posting SET amount_micro = 8 WHERE amount_micro = 7",
        "DELETE FROM posting",
        "UPDATE receipt SET amount_micro = 8",
        "DELETE FROM receipt",
    ] {
        let refused = connection.run(forbidden).await;
        assert!(refused.is_err(), "{forbidden}");
    }
}

async fn a_closed_store_says_so(books: Books) {
    let store = books.open().await;
    store.close().await;
    assert!(matches!(store.admit(new_job(1)).await, Err(StoreError::Closed)));
    store.close().await;
}

async fn keys_and_settings_are_read_as_they_were_written(books: Books) {
    let store = books.open().await;
    let mut beside = Beside::open(&books.database).await.expect("opens");
    let before = store.settings_version().await.expect("reads");
    let terms = KeyTerms {
        payer: Some(PayerId::local()),
        prepaid: true,
        budget: Some(MicroCredits(5)),
        requests_per_min: Some(u32::MAX),
        ..KeyTerms::default()
    };
    let (_, key) = crate::keys::draw("one", terms.clone()).expect("a key");
    let act = || crate::admin_log::Act::done("key made", serde_json::Value::Null);
    store.add_key(key.clone(), act()).await.expect("writes");
    let rotated = beside.rotate_key(&key.id, &[7; 32], 99).await.expect("writes").expect("one");
    assert_eq!((rotated.sha256, rotated.old), ([7; 32], Some((key.sha256, 99))));
    let read = store.keys().await.expect("reads");
    assert_eq!((read.len(), &read[0].terms, read[0].revoked_at_ms), (1, &terms, None));
    assert!(beside.revoke_key(&key.id, 100).await.expect("writes"));
    assert!(!beside.revoke_key(&key.id, 101).await.expect("writes"), "only once");
    let model = ModelId::new("m").expect("valid");
    beside.set_pod(&model, Some(&PayerId::local()), 3, false).await.expect("writes");
    beside.set_pod(&model, None, 4, true).await.expect("writes");
    beside.set_node_votes(&node(), 2).await.expect("writes");
    assert_eq!(
        store.pods().await.expect("reads")[&model],
        Pod { deployer: None, votes: 4, shareable: true }
    );
    assert_eq!(store.node_votes().await.expect("reads")[&node()], 2);
    assert!(beside.set_validator(&node(), true).await.expect("writes"));
    assert!(!beside.set_validator(&node(), true).await.expect("writes"), "no news");
    // Added, rotated, revoked; two changes of the model, one of the votes, one of the validators.
    assert_eq!(store.settings_version().await.expect("reads"), before + 7);
    for seconds in [u64::from(u32::MAX), 5] {
        store.add_uptime(9, vec![(node(), seconds)]).await.expect("writes");
    }
    let uptimes = store.uptimes(9).await.expect("reads");
    assert_eq!(uptimes[&node()], u64::from(u32::MAX) + 5);
    assert!(store.uptimes(10).await.expect("reads").is_empty());
}

async fn two_writers_book_one_after_the_other(books: Books) {
    let store = books.open().await;
    let payer = PayerId::local();
    let deposit = async |reference: String| {
        let event = Event::transfer(
            neurino_ledger::event_of_deposit(&payer, &reference),
            EntryKind::CreditDeposit,
            neurino_ledger::Unit::Credit,
            Account::Issuance,
            Account::Payer(payer.clone()),
            MicroPoints(1),
        );
        let mut beside = Beside::open(&books.database).await.expect("opens");
        beside.deposit(&payer, &event.expect("balances"), 1).await.expect("books")
    };
    let jobs = async {
        for n in 1..=20 {
            store.admit(new_job(n)).await.expect("writes");
            store.grant(grant(n, n, 1)).await.expect("writes");
            let at_ms = i64::try_from(n).expect("small");
            store.settle(settlement(n, n, 1, at_ms)).await.expect("writes");
        }
    };
    let one = async {
        for n in 0..10 {
            deposit(format!("one {n}")).await;
        }
    };
    let other = async {
        for n in 0..10 {
            deposit(format!("other {n}")).await;
        }
    };
    tokio::join!(jobs, one, other);
    assert_eq!(deposit("one 0".into()).await, MicroCredits(20), "a repeat books nothing");
    let check = Beside::open(&books.database).await.expect("opens").ledger_check().await;
    let check = check.expect("reads");
    assert!(check.holds(), "{check:?}");
    assert_eq!(check.receipts, 20);
}

/// What only a server can do to a coordinator.
mod server_alone {
    use std::path::PathBuf;

    use super::*;

    async fn run(connection: &mut Connection, words: &'static str) {
        connection.run(words).await.expect("runs");
    }

    #[tokio::test]
    #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
    async fn a_router_whose_epoch_has_passed_writes_nothing() {
        let books = Books::server().await;
        let first = books.open().await;
        first.admit(new_job(1)).await.expect("writes");
        first.grant(grant(1, 1, 1)).await.expect("writes");
        let again = books.try_open(COORDINATOR).await;
        assert!(matches!(again, Err(CoordinatorError::InUse(_))), "it is held");
        // As if the first one had slept for longer than its ownership lasts.
        let mut connection = books.connection().await;
        run(&mut connection, "UPDATE shard SET lease_until = '-infinity'").await;
        let second = books.open().await;
        assert!(!first.superseded().is_cancelled(), "it has not looked since");
        let refused = [
            first.settle(settlement(1, 1, 1, 1)).await.map(drop),
            first.admit(new_job(2)).await.map(drop),
            first.grant(grant(1, 2, 2)).await.map(drop),
            first.release(release(1, 1, 1)).await.map(drop),
            first.end(close(1, JobState::Cancelled)).await.map(drop),
            first.prune(i64::MAX, i64::MAX).await.map(drop),
        ];
        for outcome in refused {
            assert!(matches!(outcome, Err(StoreError::Superseded)), "{outcome:?}");
        }
        assert!(first.superseded().is_cancelled());
        first.close().await;
        let check = second.ledger_check().await.expect("reads");
        assert_eq!((check.receipts, check.jobs["leased"], check.jobs.len()), (0, 1, 1));
        assert_eq!(second.settle(settlement(1, 1, 1, 1)).await.expect("writes"), Settled::Paid);
        assert!(!second.superseded().is_cancelled(), "closing the first one gave nothing away");
        second.close().await;
        books.open().await.close().await;
    }

    #[tokio::test]
    #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
    async fn whoever_stands_by_shreds_with_the_one_who_serves() {
        use crate::payload::{PayloadKey, hour_of};

        let books = Books::server().await;
        let now = crate::coordinator::now_ms();
        let day = 24 * 3_600_000;
        let own = books.database.payload_key();
        PayloadKey::make(&own, hour_of(now) - 48).expect("made");
        let copy = own.with_file_name("copy.key");
        std::fs::copy(&own, &copy).expect("copied");
        let stranger = own.with_file_name("stranger.key");
        PayloadKey::make(&stranger, hour_of(now) - 48).expect("made");
        let hour = |path: &Path| PayloadKey::read(path).expect("reads").expect("one").from();
        let store = books.open().await;
        let stand_by = |key: PathBuf| {
            let database = books.database.clone();
            tokio::spawn(async move { until_free(&database, &key).await })
        };
        let waiting = [stand_by(copy.clone()), stand_by(stranger.clone())];
        store.prune(now - day, now - day).await.expect("writes");
        assert_eq!(hour(&own), hour_of(now - day));
        let followed = async {
            while hour(&copy) != hour(&own) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, followed).await.expect("the copy steps on");
        assert_eq!(hour(&stranger), hour_of(now) - 48, "another key is left alone");
        store.close().await;
        for waits in waiting {
            waits.await.expect("it ends").expect("the books are free");
        }
        let key_file = KeyFile { path: copy, renew: false };
        let next = Store::open(&books.database, "test", COORDINATOR, &key_file).await;
        next.expect("the copy opens them").close().await;
    }

    #[tokio::test]
    #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
    async fn a_long_group_of_writes_keeps_the_books() {
        let books = Books::server().await;
        let first = books.open().await;
        let mut connection = books.connection().await;
        run(&mut connection, "SET idle_in_transaction_session_timeout = 0").await;
        run(&mut connection, "BEGIN").await;
        run(&mut connection, "LOCK TABLE job IN ACCESS EXCLUSIVE MODE").await;
        let writing = first.admit(new_job(1));
        let standing_by = async {
            tokio::time::sleep(std::time::Duration::from_millis(6_500)).await;
            books.try_open(COORDINATOR).await
        };
        let ending = async {
            tokio::time::sleep(std::time::Duration::from_millis(7_500)).await;
            run(&mut connection, "COMMIT").await;
        };
        let (written, taken, ()) = tokio::join!(writing, standing_by, ending);
        assert_eq!(written.expect("writes"), Admitted::New);
        assert!(matches!(taken, Err(CoordinatorError::InUse(_))), "the first one is well");
        first.close().await;
    }

    #[tokio::test]
    #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
    async fn whoever_is_beside_is_patient() {
        let books = Books::server().await;
        books.open().await.close().await;
        let mut connection = books.connection().await;
        let limit: String =
            query("SHOW statement_timeout").fetch_one(&mut connection).await.expect("reads");
        assert_eq!(limit, "0");
    }

    #[tokio::test]
    #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
    async fn broken_connections_are_made_anew_and_doubts_are_named() {
        let books = Books::server().await;
        let store = books.open().await;
        store.admit(new_job(1)).await.expect("writes");
        let mut connection = books.connection().await;
        for n in 2..=20 {
            run(
                &mut connection,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
            let mut tries = 0;
            loop {
                tries += 1;
                assert!(tries < 100, "it never came back");
                match store.admit(new_job(n)).await {
                    Ok(Admitted::New) => break,
                    Err(StoreError::Doubtful)
                        if store.job(job(n)).await.is_ok_and(|j| j.is_some()) =>
                    {
                        break;
                    }
                    Err(StoreError::Unavailable | StoreError::Doubtful) => {}
                    other => panic!("{other:?}"),
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert!(store.job(job(n)).await.expect("reads").is_some());
        }
        assert!(!store.superseded().is_cancelled());
        assert_eq!(store.open_jobs().await.expect("reads").len(), 20);
        store.close().await;
    }

    #[tokio::test]
    #[ignore = "needs a PostgreSQL server; `cargo xtask test stores` starts one"]
    async fn both_databases_have_the_same_tables_and_columns() {
        let (file, server) = (Books::file(), Books::server().await);
        for books in [&file, &server] {
            books.open().await.close().await;
        }
        let in_file = query(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY 1, 2",
        );
        let in_file: Vec<(String, String)> =
            in_file.fetch_all(&mut file.connection().await).await.expect("reads");
        let in_server = query(
            "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) \
             FROM information_schema.columns WHERE table_schema = 'public' \
             AND table_name <> '_sqlx_migrations' AND table_name <> 'shard' \
             ORDER BY table_name COLLATE \"C\", column_name COLLATE \"C\"",
        );
        let in_server: Vec<(String, String)> =
            in_server.fetch_all(&mut server.connection().await).await.expect("reads");
        assert!(in_file.len() > 50);
        assert_eq!(in_file, in_server);
    }
}
