//! What the books enforce whatever their caller believes.

use neurino_core::{
    FinishReason, JobId, JobOutput, JobSpec, JobState, LeaseId, MicroCredits, MicroPoints, ModelId,
    Multiplier, NodeId, PointsKind, Quote, Receipt, TextJob, TextOutput, Usage,
};
use neurino_ledger::{Account, EntryKind, Event, PayerId, event_of};
use neurino_protocol::{ErrorBody, ErrorCode};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

async fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("books.sqlite"), "test").await.expect("opens");
    (folder, store)
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
        at_ms: 0,
    }
}

fn grant(n: u128, attempt: u128, fence: u32) -> Grant {
    Grant {
        job: job(n),
        lease: lease(attempt),
        fence,
        node: node(),
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
    Settlement { output, fence, event, receipt, charged: MicroCredits(0), mark: None, audit: None }
}

#[tokio::test]
async fn only_the_newest_lease_is_paid_and_only_once() {
    let (_folder, store) = store().await;
    assert_eq!(store.admit(new_job(1)).await.expect("writes"), Admitted::New);
    assert!(store.grant(grant(1, 1, 1)).await.expect("writes"));
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

#[tokio::test]
async fn a_withdrawn_job_cannot_be_leased_or_paid() {
    let (_folder, store) = store().await;
    store.admit(new_job(1)).await.expect("writes");
    store.grant(grant(1, 1, 1)).await.expect("writes");
    assert!(store.end(close(1, JobState::Cancelled)).await.expect("writes"));
    assert!(!store.grant(grant(1, 2, 2)).await.expect("writes"));
    assert_eq!(store.settle(settlement(1, 1, 1, 1)).await.expect("writes"), Settled::Stale);
    let attempt = store.attempt(lease(1)).await.expect("reads").expect("exists");
    assert_eq!((attempt.state.as_str(), attempt.job_state), ("cancelled", JobState::Cancelled));
    assert_eq!(store.ledger_check().await.expect("reads").receipts, 0);
}

#[tokio::test]
async fn a_write_that_fails_undoes_itself_alone() {
    let (_folder, store) = store().await;
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

#[tokio::test]
async fn the_schema_refuses_what_no_statement_of_ours_does() {
    let (folder, store) = store().await;
    store.admit(new_job(1)).await.expect("writes");
    store.grant(grant(1, 1, 1)).await.expect("writes");
    store.settle(settlement(1, 1, 1, 1)).await.expect("writes");
    store.close().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("books.sqlite"));
    let mut connection = options.connect().await.expect("opens");
    for forbidden in [
        "UPDATE job SET state = 'queued'",
        "UPDATE job SET fence = 0",
        "UPDATE job SET state = 'paid'",
        "UPDATE posting SET amount_micro = 8 WHERE amount_micro = 7",
        "DELETE FROM posting",
        "UPDATE receipt SET amount_micro = 8",
        "DELETE FROM receipt",
    ] {
        let refused = sqlx::query(forbidden).execute(&mut connection).await;
        assert!(refused.is_err(), "{forbidden}");
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (_folder, store) = store().await;
    store.close().await;
    assert!(matches!(store.admit(new_job(1)).await, Err(StoreError::Closed)));
    store.close().await;
}
