//! What comes is taken in the order it was sent, once, and only if it is of the present session.

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Take,
    /// It was here before, or is of another time.
    Drop,
    /// One before it is missing: the session is over.
    Missing,
}

/// The messages of one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    session: u64,
    /// The number of the next one; `None` once one was missing.
    next: Option<u64>,
}

impl Order {
    /// After the beginning of a session, which has the number zero.
    pub(super) fn begun(session: u64) -> Self {
        Self { session, next: Some(1) }
    }

    pub(super) fn hear(&mut self, session: u64, order: u64) -> Verdict {
        let Some(next) = self.next.filter(|_| session == self.session) else {
            return Verdict::Drop;
        };
        match order.cmp(&next) {
            std::cmp::Ordering::Less => Verdict::Drop,
            std::cmp::Ordering::Equal => {
                self.next = Some(next + 1);
                Verdict::Take
            }
            std::cmp::Ordering::Greater => {
                self.next = None;
                Verdict::Missing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_lost_and_foreign_messages_are_told_apart() {
        let mut order = Order::begun(4);
        let mut check = |session, number, verdict| {
            assert_eq!(order.hear(session, number), verdict, "{session} {number}");
        };
        check(4, 0, Verdict::Drop);
        check(4, 1, Verdict::Take);
        check(4, 1, Verdict::Drop);
        check(3, 2, Verdict::Drop);
        check(5, 2, Verdict::Drop);
        check(4, 2, Verdict::Take);
        check(4, 4, Verdict::Missing);
        // What comes late does not mend it.
        check(4, 3, Verdict::Drop);
        check(4, 4, Verdict::Drop);
    }
}
