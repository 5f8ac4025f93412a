//! Cards that a file plays: for tests, and to try things out without a card.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use neurino_hardware::{CardPower, PowerCard, PowerFault, PowerRange};
use serde::{Deserialize, Serialize};

use crate::journal::write_whole;

/// Cards in a JSON file, which is read at every question and replaced at every change, so that they
/// outlive the process as real limits do:
///
/// ```json
/// [ { "uuid": "GPU-1", "name": "Card", "least_mw": 100000, "most_mw": 450000,
///     "usual_mw": 450000, "limit_mw": 450000, "may_set": true } ]
/// ```
///
/// A card draws its limit all the time.
#[derive(Debug)]
pub struct ScriptedCards {
    path: PathBuf,
    /// One change after another.
    turn: Mutex<()>,
    began: std::time::Instant,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Card {
    uuid: String,
    name: String,
    #[serde(flatten)]
    range: PowerRange,
    limit_mw: u32,
    may_set: bool,
    /// It does not answer.
    #[serde(default)]
    lost: bool,
    /// It has no limit that could be changed.
    #[serde(default)]
    fixed: bool,
    /// Kept for `neurino_hardware::script`, which plays a card that computes where this stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

impl ScriptedCards {
    /// The cards in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path, turn: Mutex::new(()), began: std::time::Instant::now() }
    }

    fn read(&self) -> Vec<Card> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn card(&self, uuid: &str) -> Result<Card, PowerFault> {
        let card = self.read().into_iter().find(|card| card.uuid == uuid);
        let card = card.filter(|card| !card.lost).ok_or(PowerFault::Lost)?;
        if card.fixed { Err(PowerFault::NotSupported) } else { Ok(card) }
    }
}

impl CardPower for ScriptedCards {
    fn cards(&self) -> Vec<PowerCard> {
        let cards = self.read().into_iter().zip(0..);
        let card = |(card, index): (Card, u32)| PowerCard {
            uuid: card.uuid,
            index,
            name: card.name,
            range: match (card.lost, card.fixed) {
                (true, _) => Err(PowerFault::Lost),
                (_, true) => Err(PowerFault::NotSupported),
                _ => Ok(card.range),
            },
            may_set: Some(card.may_set),
        };
        cards.map(card).collect()
    }

    fn limit_mw(&self, uuid: &str) -> Result<u32, PowerFault> {
        self.card(uuid).map(|card| card.limit_mw)
    }

    fn set_limit_mw(&self, uuid: &str, limit_mw: u32) -> Result<(), PowerFault> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let card = self.card(uuid)?;
        if !card.may_set {
            return Err(PowerFault::NoPermission);
        }
        if !(card.range.least_mw..=card.range.most_mw).contains(&limit_mw) {
            return Err(PowerFault::Failed("a provided argument is invalid".into()));
        }
        let mut cards = self.read();
        for card in cards.iter_mut().filter(|card| card.uuid == uuid) {
            card.limit_mw = limit_mw;
        }
        let failed = |error: std::io::Error| PowerFault::Failed(error.to_string());
        let bytes = serde_json::to_vec(&cards).map_err(|e| failed(e.into()))?;
        write_whole(&self.path, &bytes).map_err(failed)
    }

    fn energy_mj(&self, uuid: &str) -> Option<u64> {
        let draw_mw = u64::from(self.draw_mw(uuid)?);
        Some(draw_mw * self.began.elapsed().as_millis() as u64 / 1000)
    }

    fn draw_mw(&self, uuid: &str) -> Option<u32> {
        self.card(uuid).ok().map(|card| card.limit_mw)
    }

    fn boot(&self) -> Option<String> {
        None
    }
}
