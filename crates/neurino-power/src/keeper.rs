//! Holds limits and gives them back.

use std::collections::HashMap;
use std::sync::Arc;

use neurino_hardware::{CardPower, PowerFault};

use crate::journal::{Entry, Journal, JournalError};

/// Drivers round limits; two that differ by less are the same.
const ROUNDING_MW: u32 = 1_000;

/// Whether two limits in milliwatts are the same but for the driver's rounding.
pub fn same_limit(a_mw: u32, b_mw: u32) -> bool {
    a_mw.abs_diff(b_mw) < ROUNDING_MW
}

/// What became of a wish for a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The limit is in force.
    Here {
        /// In milliwatts, as the driver rounded it.
        limit_mw: u32,
    },
    /// Somebody else set another limit since ours; theirs stays until this card was released, or the
    /// person insists.
    Theirs {
        /// Theirs, in milliwatts.
        limit_mw: u32,
    },
}

/// What became of a card's limit in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It was never changed, or the machine was restarted since.
    Nothing,
    /// It is again what it was.
    Restored {
        /// In milliwatts.
        limit_mw: u32,
    },
    /// Somebody else set it meanwhile; it was left alone.
    Theirs {
        /// Theirs, in milliwatts.
        limit_mw: u32,
    },
}

/// Why a limit was not set or not restored. In the second case it stays on record.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The record cannot be written: nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The driver refuses.
    #[error(transparent)]
    Card(#[from] PowerFault),
}

/// Holds limits and gives them back. One lives as long as the program, and one program in a data
/// folder: the journal is its own.
pub struct Keeper {
    cards: Arc<dyn CardPower>,
    journal: Box<dyn Journal>,
    entries: Vec<Entry>,
    /// Limits that others set while ours was in force, by card.
    theirs: HashMap<String, u32>,
    boot: Option<String>,
}

impl Keeper {
    /// Opens the journal. Whatever it holds is of a run that ended without a word:
    /// [`Keeper::release_all`] restores it.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(
        cards: Arc<dyn CardPower>,
        mut journal: Box<dyn Journal>,
    ) -> Result<Self, JournalError> {
        let entries = journal.load()?;
        let boot = cards.boot();
        Ok(Self { cards, journal, entries, theirs: HashMap::new(), boot })
    }

    /// The cards on record: changed, and not restored yet.
    pub fn changed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Sees to it that a card has this limit, in milliwatts. Cheap where it has it already, so call
    /// it as often as you like: that is how a limit of somebody else is noticed.
    ///
    /// # Errors
    /// [`PowerError`]; then the limit is what it was.
    pub fn hold(&mut self, card: &str, want_mw: u32) -> Result<Held, PowerError> {
        let now_mw = self.cards.limit_mw(card)?;
        if self.theirs.contains_key(card) {
            return Ok(Held::Theirs { limit_mw: now_mw });
        }
        let found_mw = match self.entry(card) {
            Some(entry) if !entry.is_ours(now_mw) => {
                self.theirs.insert(card.to_owned(), now_mw);
                self.forget(card)?;
                return Ok(Held::Theirs { limit_mw: now_mw });
            }
            // Without an entry it is so without us: there will be nothing to restore.
            _ if same_limit(now_mw, want_mw) => return Ok(Held::Here { limit_mw: now_mw }),
            Some(entry) => entry.found_mw,
            None => now_mw,
        };
        let mut ours_mw = vec![want_mw];
        if self.entry(card).is_some() {
            ours_mw.push(now_mw);
        }
        // On the disk before the change: from here on a crash is restored.
        self.write(card, Some(found_mw), ours_mw)?;
        if let Err(fault) = self.cards.set_limit_mw(card, want_mw) {
            let unchanged = self.cards.limit_mw(card).is_ok_and(|limit_mw| limit_mw == now_mw);
            if unchanged && same_limit(now_mw, found_mw) {
                self.forget(card)?;
            }
            return Err(fault.into());
        }
        let limit_mw = self.cards.limit_mw(card).unwrap_or(want_mw);
        self.write(card, Some(found_mw), vec![limit_mw])?;
        Ok(Held::Here { limit_mw })
    }

    /// The person chose anew: what somebody else set meanwhile is what the card gets back later, and
    /// no longer keeps ours away.
    pub fn insist(&mut self, card: &str) {
        self.theirs.remove(card);
    }

    /// Gives a card back the limit that it had.
    ///
    /// # Errors
    /// [`PowerError`]; then it stays on record, and the next call tries again.
    pub fn release(&mut self, card: &str) -> Result<Released, PowerError> {
        self.theirs.remove(card);
        let Some(entry) = self.entry(card).cloned() else { return Ok(Released::Nothing) };
        // A restart took every limit with it.
        if entry.boot.is_some() && self.boot.is_some() && entry.boot != self.boot {
            self.forget(card)?;
            return Ok(Released::Nothing);
        }
        let now_mw = self.cards.limit_mw(card)?;
        let released = if same_limit(now_mw, entry.found_mw) {
            Released::Restored { limit_mw: now_mw }
        } else if entry.is_ours(now_mw) {
            self.cards.set_limit_mw(card, entry.found_mw)?;
            Released::Restored { limit_mw: entry.found_mw }
        } else {
            Released::Theirs { limit_mw: now_mw }
        };
        self.forget(card)?;
        Ok(released)
    }

    /// Gives every card on record its limit back.
    pub fn release_all(&mut self) -> Vec<(String, Result<Released, PowerError>)> {
        self.theirs.clear();
        let cards: Vec<String> = self.entries.iter().map(|entry| entry.card.clone()).collect();
        cards
            .into_iter()
            .map(|card| {
                let released = self.release(&card);
                (card, released)
            })
            .collect()
    }

    fn entry(&self, card: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.card == card)
    }

    fn forget(&mut self, card: &str) -> Result<(), JournalError> {
        self.write(card, None, Vec::new())
    }

    /// Replaces a card's entry, or takes it out. In memory it counts only once it is on the disk.
    fn write(
        &mut self,
        card: &str,
        found_mw: Option<u32>,
        ours_mw: Vec<u32>,
    ) -> Result<(), JournalError> {
        let mut entries = self.entries.clone();
        entries.retain(|entry| entry.card != card);
        if let Some(found_mw) = found_mw {
            let boot = self.boot.clone();
            entries.push(Entry { card: card.to_owned(), found_mw, ours_mw, boot });
        }
        if entries != self.entries {
            self.journal.save(&entries)?;
            self.entries = entries;
        }
        Ok(())
    }
}

impl Entry {
    fn is_ours(&self, limit_mw: u32) -> bool {
        self.ours_mw.iter().any(|ours_mw| same_limit(*ours_mw, limit_mw))
    }
}
