//! Once a second: every card has the limit that it should have now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use neurino_hardware::PowerFault;
use neurino_power::{Held, Keeper, PowerError, Released};
use tracing::{debug, info, warn};

use crate::mining::Phase;
use crate::{App, lock, told_with_causes};

const EVERY: Duration = Duration::from_secs(1);
/// A driver that hangs longer does not keep mining from stopping; the limit stays on record.
const BACK_LIMIT: Duration = Duration::from_secs(1);

/// What became of a card's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in force.
    Held { limit_mw: u32 },
    /// Somebody else set another one.
    Theirs,
    /// It was refused: this wish in milliwatts, why, and in words.
    Failed(u32, Option<PowerFault>, String),
}

impl App {
    /// Looks after limits and sleep until the application ends.
    pub(crate) fn spawn_power(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                app.look_after_limits().await;
                app.look_after_sleep().await;
                tokio::select! {
                    () = app.end.cancelled() => break,
                    () = tokio::time::sleep(EVERY) => {}
                    () = app.power.chosen.notified() => {}
                }
            }
            app.power_back().await;
        });
    }

    /// The limits that cards should have now, in milliwatts. None unless the machine mines: then
    /// every card has its own.
    fn wanted_limits(&self) -> HashMap<String, u32> {
        if self.end.is_cancelled() || !self.holds_limits() {
            return HashMap::new();
        }
        let gentle_percent = self.gentle_percent();
        let chosen = lock(&self.power.settings).limits_w.clone();
        let sweep = lock(&self.power.sweep).as_ref().and_then(super::SweepRun::wants);
        let mut wanted = HashMap::new();
        for card in self.power.cards.cards() {
            let Ok(range) = card.range else { continue };
            // A card that is switched off is left alone altogether.
            if self.cards.is_off(&card.uuid) {
                continue;
            }
            let mut want_mw = chosen.get(&card.uuid).map(|watts| watts.saturating_mul(1000));
            if let Some(percent) = gentle_percent.filter(|percent| *percent < 100) {
                let share_mw = (u64::from(range.usual_mw) * u64::from(percent) / 100) as u32;
                want_mw = Some(want_mw.map_or(share_mw, |mw| mw.min(share_mw)));
            }
            if let Some((_, sweep_mw)) = sweep.as_ref().filter(|(swept, _)| *swept == card.uuid) {
                want_mw = Some(*sweep_mw);
            }
            if let Some(want_mw) = want_mw.filter(|_| card.may_set != Some(false)) {
                wanted.insert(card.uuid, want_mw.clamp(range.least_mw, range.most_mw));
            }
        }
        wanted
    }

    /// Whether the machine is in a state in which limits are held.
    fn holds_limits(&self) -> bool {
        matches!(lock(&self.mining).phase, Phase::Running(_) | Phase::Finishing(_))
    }

    async fn look_after_limits(self: &Arc<Self>) {
        let app = Arc::clone(self);
        let looking = tokio::task::spawn_blocking(move || {
            app.sweep_step();
            let mut keeper = lock(&app.power.keeper);
            let Ok(keeper) = keeper.as_mut() else { return };
            // Asked under the lock: whoever stops mining gives back after this, never before.
            let wanted = app.wanted_limits();
            app.apply(keeper, &wanted);
        });
        // A driver that hangs holds up its own task only.
        let _ = looking.await;
    }

    fn apply(&self, keeper: &mut Keeper, wanted: &HashMap<String, u32>) {
        let before = lock(&self.power.outcomes).clone();
        let mut after = HashMap::new();
        let held: Vec<String> = keeper.changed().map(|entry| entry.card.clone()).collect();
        for card in held.iter().chain(before.keys()).filter(|card| !wanted.contains_key(*card)) {
            match keeper.release(card) {
                // Said when mining ended; tried until it works.
                Err(error) => debug!(card, %error, "a power limit is not restored yet"),
                released => tell(card, released),
            }
        }
        for (card, want_mw) in wanted {
            let outcome = match before.get(card) {
                // A wish that was refused is not repeated every second.
                Some(refused @ Outcome::Failed(mw, ..)) if mw == want_mw => refused.clone(),
                _ => outcome(*want_mw, keeper.hold(card, *want_mw)),
            };
            after.insert(card.clone(), outcome);
        }
        if after != before {
            for (card, outcome) in after.iter().filter(|(card, o)| before.get(*card) != Some(o)) {
                info!(card, ?outcome, "a power limit is looked after");
            }
            *lock(&self.power.outcomes) = after;
            self.changed.notify_one();
        }
    }

    /// Gives every card its own limit back and lets the computer sleep; returns within a second.
    pub(crate) async fn power_back(self: &Arc<Self>) {
        self.sleep_again();
        let app = Arc::clone(self);
        let giving = tokio::task::spawn_blocking(move || {
            let mut keeper = lock(&app.power.keeper);
            if app.holds_limits() && !app.end.is_cancelled() {
                // Mining was started again meanwhile.
                return;
            }
            if let Ok(keeper) = keeper.as_mut() {
                give_back(keeper);
                lock(&app.power.outcomes).clear();
            }
        });
        if tokio::time::timeout(BACK_LIMIT, giving).await.is_err() {
            warn!("the driver does not answer; power limits are restored when it does");
        }
        self.changed.notify_one();
    }
}

fn outcome(want_mw: u32, held: Result<Held, PowerError>) -> Outcome {
    match held {
        Ok(Held::Here { limit_mw }) => Outcome::Held { limit_mw },
        Ok(Held::Theirs { .. }) => Outcome::Theirs,
        Err(error) => {
            let message = told_with_causes(&error);
            warn!(message, "a power limit is not set");
            let fault = match error {
                PowerError::Card(fault) => Some(fault),
                PowerError::Journal(_) => None,
            };
            Outcome::Failed(want_mw, fault, message)
        }
    }
}

/// Restores what is on record.
pub(super) fn give_back(keeper: &mut Keeper) {
    for (card, released) in keeper.release_all() {
        tell(&card, released);
    }
}

fn tell(card: &str, released: Result<Released, PowerError>) {
    match released {
        Ok(Released::Nothing) => {}
        Ok(Released::Restored { limit_mw }) => info!(card, limit_mw, "a power limit is restored"),
        Ok(Released::Theirs { limit_mw }) => {
            info!(card, limit_mw, "somebody else set this power limit; it was left alone");
        }
        Err(error) => {
            let message = told_with_causes(&error);
            warn!(card, message, "a power limit is not restored yet");
        }
    }
}
