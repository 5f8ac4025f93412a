//! Steps of audits that nobody is left to take, and who judges.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use neurino_core::{
    ChatMessage, ClaimScore, FinishReason, Quote, Receipt, ResultStatement, Role, SeedScore,
    TextChoice, TextClaim, TextOutput, Usage,
};
use neurino_ledger::{Account, EntryKind, Event, event_of};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::clock::SET_BY;
use crate::store::{Admitted, Grant, NewJob, Settled, Settlement};
use crate::{CoordinatorConfig, Limits};

fn address(n: u8) -> NodeId {
    NodeId::new(format!("0x{}-n", hex::encode([n; 20]))).unwrap()
}

fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

/// A coordinator for which no time passes unless the test says so.
async fn coordinator(folder: &TempDir) -> Arc<Coordinator> {
    let own = Arc::new(IdentityKey::generate(&mut rand::rng()));
    let practice = CoordinatorConfig::practice(folder.path().join("books.sqlite"), own);
    let limits = Limits { audit_wait_ms: 60_000, ..Limits::default() };
    let config = CoordinatorConfig { limits, ..practice };
    Coordinator::open_without_timers(config).await.unwrap()
}

/// A job that a node did and was paid for.
async fn paid(
    coordinator: &Coordinator,
    n: u128,
    node: &NodeId,
    asked: &TextJob,
    choice: TextChoice,
    audit: Option<NewAudit>,
) {
    let lease = neurino_core::LeaseId(Uuid::from_u128(1_000 + n));
    let new = NewJob {
        id: job(n),
        payer: PayerId::local(),
        key: None,
        rule_set: "practice3".into(),
        spec: JobSpec::Text(asked.clone()),
        no_node_wait_ms: 0,
        class: JobClass::Audit,
        placement: None,
        attempts_max: None,
        frontend: None,
        hold: None,
        attended: false,
        at_ms: now_ms(),
    };
    assert_eq!(coordinator.store.admit(new).await.unwrap(), Admitted::New);
    let (granted_at_ms, deadline_ms) = (now_ms(), now_ms() + 60_000);
    let grant = Grant {
        job: job(n),
        lease,
        fence: 1,
        node: node.clone(),
        granted_at_ms,
        deadline_ms,
        unit: None,
    };
    assert!(coordinator.store.grant(grant).await.unwrap());
    let usage = Usage { prompt_tokens: 1, completion_tokens: 3 };
    let output = JobOutput::Text(TextOutput { choices: vec![choice], usage, precision: None });
    let statement = ResultStatement {
        job: job(n),
        lease,
        fence: 1,
        node: node.clone(),
        digest: output.digest(),
    };
    let (points, amount_micro) = (neurino_core::PointsKind::Llama, MicroPoints(7));
    let (from, to) = (Account::Pool, Account::Node(node.clone()));
    let kind = EntryKind::JobReward;
    let event =
        Event::transfer(event_of(lease), kind, points.into(), from, to, amount_micro).unwrap();
    let one = neurino_core::Multiplier::ONE;
    let receipt = Receipt {
        event: event.id(),
        job: job(n),
        lease,
        node: node.clone(),
        model: asked.model.clone(),
        usage,
        rule_set: "practice3".into(),
        quote: Quote {
            points,
            units: 7,
            base_micro: amount_micro,
            factor: one,
            multiplier: one,
            amount_micro,
        },
        digest: statement.digest,
        duration_ms: 1,
        settled_at_ms: coordinator.settling_time_ms(),
        network: "practice".into(),
        coordinator: coordinator.address(),
        signature: "0x".into(),
    };
    let charged = neurino_core::MicroCredits(0);
    let (uploaded, fence, mark) = (false, 1, None);
    let settlement = Settlement { output, uploaded, fence, event, receipt, charged, mark, audit };
    assert_eq!(coordinator.store.settle(settlement).await.unwrap(), Settled::Paid);
}

fn asked() -> TextJob {
    let messages = vec![ChatMessage::new(Role::User, "hi")];
    let mut job = TextJob::new(ModelId::new("smollm2-135m-instruct").unwrap(), messages, 16);
    job.sampling.temperature = 1.0;
    job.sampling.seed = 7;
    job
}

fn answered() -> TextChoice {
    let tokens = Some(vec![1, 2, 3]);
    TextChoice { tokens, ..TextChoice::new("a b c", FinishReason::Stop) }
}

/// An audit whose second run scored too little to say anything.
async fn unclear(coordinator: &Coordinator) -> StoredAudit {
    let audit = NewAudit { class: String::new(), rate_ppm: 1, suspicion: None, known: None };
    paid(coordinator, 1, &address(1), &asked(), answered(), Some(audit)).await;
    let claim = TextClaim { answers: vec![vec![1, 2, 3]], seeds: vec![7, 8], clip_ppm: 1_000_000 };
    let scoring = TextJob { claim: Some(claim), ..asked() };
    let seeds = vec![SeedScore { exact: 3, margin_ppm: 0 }; 2];
    let score = Some(ClaimScore { tokens: 3, whole: true, seeds });
    let scored = TextChoice { score, ..answered() };
    paid(coordinator, 2, &address(2), &scoring, scored, None).await;
    let (second, same_class, at_ms) = (job(2), false, now_ms());
    let write = AuditWrite::Second { job: job(1), second, same_class, at_ms };
    assert_eq!(coordinator.store.audit(write).await.unwrap().changed, 1);
    only(coordinator).await.unwrap()
}

/// The audit, while it is open.
async fn only(coordinator: &Coordinator) -> Option<StoredAudit> {
    coordinator.store.open_audits(None, 2).await.unwrap().pop()
}

#[tokio::test]
async fn an_audit_that_nobody_can_go_on_with_ends_undecided() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder).await;
    let audit = unclear(&coordinator).await;
    assert_eq!(audit.state, AuditState::Second);
    coordinator.step_audit(&audit).await.unwrap();
    assert!(only(&coordinator).await.is_some(), "somebody may come");
    SET_BY.set(61_000);
    coordinator.step_audit(&audit).await.unwrap();
    assert!(only(&coordinator).await.is_none(), "nobody has");
    let counts = coordinator.store.audit_counts(&address(1)).await.unwrap();
    assert_eq!(counts, BTreeMap::from([(AuditState::Unresolved, 1)]));
    let check = coordinator.ledger_check().await.unwrap();
    assert!(check.holds(), "{check:?}");
    coordinator.shutdown().await;
}

#[tokio::test]
async fn who_gave_the_second_run_judges_only_where_nobody_else_can() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder).await;
    let mut audit = unclear(&coordinator).await;
    coordinator.shutdown().await;
    let (audited, auditor, other) = (address(1), address(2), address(3));
    let judges = |audit: &StoredAudit, of: &[&NodeId]| {
        let validators: Vec<NodeId> = of.iter().map(|node| (*node).clone()).collect();
        other_judges(audit, &validators)
    };
    assert_eq!(judges(&audit, &[&auditor, &other]), None, "nobody gave one yet");
    audit.auditor = Some(auditor.clone());
    assert_eq!(judges(&audit, &[&auditor, &other]), Some(vec![other.clone()]));
    let twin = NodeId::new(format!("{auditor}2")).unwrap();
    assert_eq!(judges(&audit, &[&auditor, &twin, &other]), Some(vec![other]), "nor its owner's");
    assert_eq!(judges(&audit, &[&auditor]), None, "there is nobody else");
    assert_eq!(judges(&audit, &[&auditor, &audited]), None, "nor is there, but the accused");
}
