//! Looking at the cards again while the program runs.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::App;

/// When cards are looked at.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// A glance that costs less than a millisecond.
    glance: Duration,
    /// The first and the longest wait of a search, each step of which asks the driver anew.
    first: Duration,
    longest: Duration,
}

const USUAL: Pace = Pace {
    glance: Duration::from_secs(10),
    first: Duration::from_secs(2),
    longest: Duration::from_secs(30),
};

/// A file that plays cards is asked as often as a test likes.
const SCRIPTED: Pace = Pace {
    glance: Duration::from_millis(100),
    first: Duration::from_millis(50),
    longest: Duration::from_millis(200),
};

/// A search for a card: the waits double up to a longest one, so that a card that never comes back
/// costs next to nothing.
struct Search {
    pace: Pace,
    wait: Option<Duration>,
}

impl Search {
    fn new(pace: Pace) -> Self {
        Self { pace, wait: None }
    }

    /// How long to wait after a look that found everything, or did not.
    fn after(&mut self, misses: bool) -> Duration {
        if !misses {
            self.wait = None;
            return self.pace.glance;
        }
        let wait = self.wait.map_or(self.pace.first, |wait| (wait * 2).min(self.pace.longest));
        self.wait = Some(wait);
        wait
    }
}

impl App {
    /// Looks at the cards until the application ends.
    pub(crate) fn spawn_card_watch(self: &Arc<Self>) {
        let app = Arc::clone(self);
        let scripted = app.cards.hardware.is_scripted();
        self.tasks.spawn(async move {
            let mut search = Search::new(if scripted { SCRIPTED } else { USUAL });
            loop {
                let misses = app.look_for_cards().await;
                let wait = search.after(misses);
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = app.cards.look.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        });
    }

    /// A glance; where it shows a change or a card is missed, a real look. Says whether there is still
    /// something to search.
    async fn look_for_cards(self: &Arc<Self>) -> bool {
        let missed = self.cards.misses_one();
        let hardware = Arc::clone(&self.cards.hardware);
        let looking = tokio::task::spawn_blocking(move || {
            let now = hardware.now();
            // Where the bus cannot be seen, only the driver tells that a card came.
            let blind = now.nvidia().cards.is_none() && !now.nvidia().status().is_ready();
            let differs = (missed || blind || now.is_outdated()) && hardware.look_again();
            (differs, blind)
        });
        let Ok((differs, blind)) = looking.await else {
            warn!("the cards could not be looked at");
            return true;
        };
        if differs {
            let hardware = self.hardware();
            info!(cards = hardware.gpus().len(), "cards or driver are others than before");
            self.follow_cards();
            // A problem of the engine may be over with it.
            self.mine_after_engine_problem();
        }
        self.cards.misses_one() || blind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_slows_down_and_begins_anew() {
        let mut search = Search::new(USUAL);
        assert_eq!(search.after(false), USUAL.glance);
        let waits: Vec<u64> = (0..7).map(|_| search.after(true).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(search.after(false), USUAL.glance);
        assert_eq!(search.after(true), USUAL.first);
    }
}
