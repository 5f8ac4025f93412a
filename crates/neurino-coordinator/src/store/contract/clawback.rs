//! Where credits go when a node is convicted, and when it was not guilty after all.

use super::*;
use crate::store::clawback::{give_back, take_back};

on_both! {
    what_a_cheat_was_paid_goes_back_to_who_paid
}

fn deployer() -> Account {
    Account::Deployer(PayerId::new("maker").expect("valid"))
}

async fn credits(connection: &mut Connection, account: &Account) -> i64 {
    let found: Option<i64> = query("SELECT amount_micro FROM credit_balance WHERE account = $1")
        .bind(account.to_string())
        .fetch_optional(connection)
        .await
        .expect("reads");
    found.unwrap_or(0)
}

async fn spent(connection: &mut Connection) -> i64 {
    let found: Option<i64> = query("SELECT CAST(SUM(amount_micro) AS BIGINT) FROM key_spend")
        .fetch_optional(connection)
        .await
        .expect("reads");
    found.unwrap_or(0)
}

fn transfer(id: neurino_core::EventId, from: &Account, to: &Account, amount: i64) -> Event {
    let (kind, unit) = (EntryKind::CreditDeposit, neurino_ledger::Unit::Credit);
    Event::transfer(id, kind, unit, from.clone(), to.clone(), MicroPoints(amount))
        .expect("balances")
}

/// Sends a job that costs 100 credits, of which the node gets 70, the deployer 20, the network 10.
async fn pay_for_a_job(store: &Store, payer: &PayerId, key: &str) {
    let (held, unit) = (Account::Held(payer.clone()), neurino_ledger::Unit::Credit);
    let hold = Hold {
        amount: MicroCredits(100),
        price_list: "list".into(),
        key: key.into(),
        budget: None,
        event: Event::transfer(
            neurino_ledger::event_of_hold(job(1)),
            EntryKind::CreditHold,
            unit,
            Account::Payer(payer.clone()),
            held.clone(),
            MicroPoints(100),
        )
        .expect("balances"),
    };
    let admitted = store.admit(NewJob { hold: Some(hold), ..new_job(1) }).await.expect("writes");
    assert_eq!(admitted, Admitted::New);
    store.grant(grant(1, 1, 1)).await.expect("writes");
    let mut settlement = settlement(1, 1, 1, 50);
    let (reward, charge) = (EntryKind::JobReward, EntryKind::CreditCharge);
    let (points, node) = (PointsKind::Llama.into(), Account::Node(node()));
    let lines = [
        (Account::Pool, reward, points, MicroPoints(-7)),
        (node.clone(), reward, points, MicroPoints(7)),
        (held, charge, unit, MicroPoints(-100)),
        (node, charge, unit, MicroPoints(70)),
        (deployer(), charge, unit, MicroPoints(20)),
        (Account::Protocol, charge, unit, MicroPoints(10)),
    ];
    settlement.event = Event::new(event_of(lease(1)), lines).expect("balances");
    settlement.charged = MicroCredits(100);
    assert_eq!(store.settle(settlement).await.expect("writes"), Settled::Paid);
}

async fn what_a_cheat_was_paid_goes_back_to_who_paid(books: Books) {
    let store = books.open().await;
    let (_, key) = crate::keys::draw("one", KeyTerms::default()).expect("a key");
    let act = crate::admin_log::Act::done("key made", serde_json::Value::Null);
    store.add_key(key.clone(), act).await.expect("writes");
    let payer = PayerId::local();
    let account = Account::Payer(payer.clone());
    let mut beside = Beside::open(&books.database).await.expect("opens");
    let bought = neurino_ledger::event_of_deposit(&payer, "bought");
    let bought = transfer(bought, &Account::Issuance, &account, 100);
    beside.deposit(&payer, &bought, 1).await.expect("books");
    pay_for_a_job(&store, &payer, &key.id).await;

    // The deployer is paid out what cannot be called back any more, once.
    let id = neurino_ledger::event_of_pay_out(&deployer(), "may");
    let event = transfer(id, &deployer(), &Account::Issuance, 15);
    let early = beside.pay_out(&deployer(), &event, 50, 60).await;
    let Err(CoordinatorError::PayOut(why)) = early else { panic!("{early:?}") };
    assert!(why.contains("of which 0.000000 can be paid out"), "{why}");
    for _ in 0..2 {
        let left = beside.pay_out(&deployer(), &event, 51, 60).await.expect("books");
        assert_eq!(left, MicroCredits(5));
    }
    let other = transfer(id, &deployer(), &Account::Issuance, 1);
    assert!(beside.pay_out(&deployer(), &other, 51, 60).await.is_err(), "another amount");
    let much = neurino_ledger::event_of_pay_out(&deployer(), "june");
    let much = transfer(much, &deployer(), &Account::Issuance, 6);
    assert!(beside.pay_out(&deployer(), &much, 51, 60).await.is_err(), "more than there is");

    // All that is left of the charge returns, and the key's budget with it.
    let mut c = books.connection().await;
    assert_eq!(spent(&mut c).await, 100);
    c.begin_writing().await.expect("begins");
    take_back(&mut c, lease(1), &node(), 70).await.expect("writes");
    c.run("COMMIT").await.expect("commits");
    let own = Account::Node(node());
    let mut all = Vec::new();
    for of in [&account, &own, &deployer(), &Account::Protocol, &Account::Issuance] {
        all.push(credits(&mut c, of).await);
    }
    assert_eq!(all, [85, 0, 0, 0, -85]);
    assert_eq!(spent(&mut c).await, 15);

    // The payer spends most of it; then the appeal is granted: nobody who earned it goes without.
    let gave = neurino_ledger::event_of_deposit(&payer, "gave back");
    let gave = transfer(gave, &Account::Issuance, &account, -50);
    beside.deposit(&payer, &gave, 80).await.expect("books");
    c.begin_writing().await.expect("begins");
    give_back(&mut c, lease(1), 90).await.expect("writes");
    c.run("COMMIT").await.expect("commits");
    let mut all = Vec::new();
    for of in [&account, &own, &deployer(), &Account::Protocol, &Account::Issuance] {
        all.push(credits(&mut c, of).await);
    }
    // Of 50 that are missing the network's own 10 go first; the rest is whoever runs it.
    assert_eq!(all, [0, 70, 5, 0, -75]);
    assert_eq!(spent(&mut c).await, 50);
    let check = beside.ledger_check().await.expect("reads");
    assert!(check.holds(), "{check:?}");
}
