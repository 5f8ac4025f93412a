//! The fold from events to balances.

use std::collections::{BTreeMap, HashMap};

use neurino_core::{EventId, MicroPoints};

use crate::account::Account;
use crate::event::{Event, LedgerError, Posting, Unit};

/// What each account owns, derived from postings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balances(BTreeMap<(Account, Unit), MicroPoints>);

impl Balances {
    /// Adds one posting.
    ///
    /// # Errors
    /// [`LedgerError::Overflow`]; the balances are unchanged then.
    pub fn add(&mut self, posting: &Posting) -> Result<(), LedgerError> {
        let balance = self.0.entry((posting.account.clone(), posting.points)).or_default();
        *balance = balance.checked_add(posting.amount_micro).ok_or(LedgerError::Overflow)?;
        Ok(())
    }

    /// What an account owns; zero when it was never posted to.
    pub fn of(&self, account: &Account, points: Unit) -> MicroPoints {
        self.0.get(&(account.clone(), points)).copied().unwrap_or_default()
    }

    /// Sum over all accounts for each kind of points; zero for a ledger that is whole.
    ///
    /// # Errors
    /// [`LedgerError::Overflow`].
    pub fn sums(&self) -> Result<BTreeMap<Unit, MicroPoints>, LedgerError> {
        let mut sums = BTreeMap::<Unit, MicroPoints>::new();
        for ((_, points), amount) in &self.0 {
            let sum = sums.entry(*points).or_default();
            *sum = sum.checked_add(*amount).ok_or(LedgerError::Overflow)?;
        }
        Ok(sums)
    }

    /// All balances, ordered by account.
    pub fn iter(&self) -> impl Iterator<Item = (&Account, Unit, MicroPoints)> {
        self.0.iter().map(|((account, points), amount)| (account, *points, *amount))
    }
}

/// What became of an appended event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is new.
    New,
    /// The very same event was there already; nothing moved.
    Repeated,
}

/// An append-only ledger in memory.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    events: HashMap<EventId, Vec<Posting>>,
    balances: Balances,
}

impl Ledger {
    /// Appends an event once, however often it is handed in.
    ///
    /// # Errors
    /// `Conflict` when the id is taken by other postings, `Overflow`; nothing moves then.
    pub fn append(&mut self, event: &Event) -> Result<Appended, LedgerError> {
        if let Some(known) = self.events.get(&event.id()) {
            return if known == event.postings() {
                Ok(Appended::Repeated)
            } else {
                Err(LedgerError::Conflict(event.id()))
            };
        }
        let mut balances = self.balances.clone();
        for posting in event.postings() {
            balances.add(posting)?;
        }
        self.balances = balances;
        self.events.insert(event.id(), event.postings().to_vec());
        Ok(Appended::New)
    }

    /// The derived balances.
    pub fn balances(&self) -> &Balances {
        &self.balances
    }

    /// All postings, in no particular order.
    pub fn postings(&self) -> impl Iterator<Item = &Posting> {
        self.events.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use neurino_core::{LeaseId, NodeId};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::account::PayerId;
    use crate::event::{EntryKind, event_of};

    const LLAMA: Unit = Unit::Llama;
    const REWARD: EntryKind = EntryKind::JobReward;

    fn node(n: u8) -> Account {
        Account::Node(NodeId::new(format!("0x{n:02x}")).expect("valid"))
    }

    fn id(n: u16) -> EventId {
        event_of(LeaseId(Uuid::from_u128(u128::from(n))))
    }

    fn reward(n: u16, to: u8, amount: i64) -> Event {
        Event::transfer(id(n), REWARD, LLAMA, Account::Pool, node(to), MicroPoints(amount))
            .expect("a transfer between two accounts balances")
    }

    #[test]
    fn an_unbalanced_event_cannot_be_built() {
        let lines = |a: i64, b: i64| {
            Event::new(
                id(1),
                [
                    (Account::Pool, REWARD, LLAMA, MicroPoints(a)),
                    (node(1), REWARD, LLAMA, MicroPoints(b)),
                ],
            )
        };
        assert!(lines(-5, 5).is_ok());
        assert_eq!(
            lines(-5, 6),
            Err(LedgerError::Unbalanced { points: LLAMA, sum: MicroPoints(1) })
        );
        assert_eq!(lines(i64::MIN, i64::MIN), Err(LedgerError::Overflow));
    }

    #[test]
    fn kinds_of_points_do_not_cancel_each_other() {
        let mixed = Event::new(
            id(1),
            [
                (Account::Pool, REWARD, LLAMA, MicroPoints(-5)),
                (node(1), REWARD, Unit::Waifu, MicroPoints(5)),
            ],
        );
        assert!(matches!(mixed, Err(LedgerError::Unbalanced { .. })));
    }

    #[test]
    fn nobody_pays_themselves_and_nothing_stands_alone() {
        let own = Event::transfer(id(1), REWARD, LLAMA, node(1), node(1), MicroPoints(1));
        assert_eq!(own, Err(LedgerError::DoubledPosting(node(1))));
        let payer = Account::Payer(PayerId::local());
        let lone = Event::new(id(1), [(payer, REWARD, LLAMA, MicroPoints(0))]);
        assert_eq!(lone, Err(LedgerError::TooFewPostings));
    }

    #[test]
    fn an_event_counts_once_and_never_changes() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.append(&reward(1, 1, 7)), Ok(Appended::New));
        assert_eq!(ledger.append(&reward(1, 1, 7)), Ok(Appended::Repeated));
        assert_eq!(ledger.append(&reward(1, 1, 8)), Err(LedgerError::Conflict(id(1))));
        assert_eq!(ledger.append(&reward(1, 2, 7)), Err(LedgerError::Conflict(id(1))));
        assert_eq!(ledger.balances().of(&node(1), LLAMA), MicroPoints(7));
        assert_eq!(ledger.balances().of(&Account::Pool, LLAMA), MicroPoints(-7));
    }

    #[test]
    fn an_overflow_moves_nothing() {
        let mut ledger = Ledger::default();
        ledger.append(&reward(1, 1, i64::MAX)).expect("fits");
        assert_eq!(ledger.append(&reward(2, 1, 1)), Err(LedgerError::Overflow));
        assert_eq!(ledger.balances().of(&node(1), LLAMA), MicroPoints(i64::MAX));
        assert_eq!(ledger.postings().count(), 2);
    }

    proptest! {
        /// Any sequence of events, with repeats and conflicts: all postings sum to zero, and each
        /// node owns exactly what the accepted events (its receipts) paid it.
        #[test]
        fn postings_sum_to_zero_and_balances_to_receipts(
            steps in prop::collection::vec((0u16..40, 0u8..5, 0i64..1_000_000_000), 0..200),
        ) {
            let mut ledger = Ledger::default();
            let mut receipts = BTreeMap::<EventId, (u8, i64)>::new();
            for (n, to, amount) in steps {
                let expected = match receipts.get(&id(n)) {
                    None => Ok(Appended::New),
                    Some(&paid) if paid == (to, amount) => Ok(Appended::Repeated),
                    Some(_) => Err(LedgerError::Conflict(id(n))),
                };
                prop_assert_eq!(ledger.append(&reward(n, to, amount)), expected.clone());
                if expected == Ok(Appended::New) {
                    receipts.insert(id(n), (to, amount));
                }
                prop_assert!(ledger.balances().sums().expect("fits").values().all(|s| s.0 == 0));
            }
            prop_assert_eq!(ledger.postings().map(|p| p.amount_micro.0).sum::<i64>(), 0);
            for to in 0..5 {
                let paid = receipts.values().filter(|r| r.0 == to).map(|r| r.1).sum::<i64>();
                prop_assert_eq!(ledger.balances().of(&node(to), LLAMA), MicroPoints(paid));
            }
        }
    }
}
