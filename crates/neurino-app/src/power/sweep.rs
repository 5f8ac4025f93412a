//! The search for the limit that earns most with a kilowatt hour, while real jobs run.

use std::sync::Arc;
use std::time::Instant;

use neurino_hardware::CardPower;
use neurino_power::{Measure, Reading, Row, Stage, Sweep, SweepEnd, measure_of, steps_mw};
use neurino_protocol::power::{SweepMeasure, SweepRow, SweepStage, SweepView};
use neurino_protocol::{ErrorBody, ErrorCode};
use tracing::info;

use super::Outcome;
use crate::{App, lock};

/// A search, and the meter of its card.
pub(crate) struct SweepRun {
    card: String,
    sweep: Sweep,
    began: Instant,
    meter: Meter,
}

/// Adds up what a card uses: by its own count, else from what it draws.
#[derive(Debug, Default)]
struct Meter {
    last: Option<(Instant, Option<u64>)>,
    sum_mj: u64,
}

impl Meter {
    fn read(&mut self, cards: &dyn CardPower, card: &str) -> u64 {
        let now = (Instant::now(), cards.energy_mj(card));
        if let Some((at, before)) = self.last.replace(now) {
            self.sum_mj += if let (Some(before), Some(after)) = (before, now.1) {
                after.saturating_sub(before)
            } else {
                let elapsed_ms = now.0.duration_since(at).as_millis() as u64;
                u64::from(cards.draw_mw(card).unwrap_or(0)) * elapsed_ms / 1000
            };
        }
        self.sum_mj
    }
}

impl SweepRun {
    /// The card and the limit that it should have now, in milliwatts.
    pub(super) fn wants(&self) -> Option<(String, u32)> {
        Some((self.card.clone(), self.sweep.want_mw()?))
    }

    pub(super) fn view(&self) -> SweepView {
        let stage = self.sweep.stage();
        let advice = match stage {
            Stage::Over(SweepEnd::Done(advice)) => Some(advice),
            _ => None,
        };
        let measure = advice.map(|advice| advice.measure);
        let measure = measure.or_else(|| measure_of(self.sweep.rows())).unwrap_or(Measure::Points);
        SweepView {
            card: self.card.clone(),
            stage: match stage {
                Stage::Settling => SweepStage::Settling,
                Stage::Measuring => SweepStage::Measuring,
                Stage::Waiting => SweepStage::Waiting,
                Stage::Over(SweepEnd::Done(_)) => SweepStage::Done,
                Stage::Over(SweepEnd::NotComparable) => SweepStage::NotComparable,
                Stage::Over(SweepEnd::NoWork) => SweepStage::NoWork,
                Stage::Over(SweepEnd::Stopped) => SweepStage::Stopped,
            },
            progress: self.sweep.progress() as f32,
            trying_w: self.sweep.want_mw().map(|mw| mw.div_ceil(1000)),
            rows: self.sweep.rows().iter().map(|row| row_view(row, measure)).collect(),
            measure: match measure {
                Measure::Points => SweepMeasure::Points,
                Measure::Tokens => SweepMeasure::Tokens,
                Measure::Pictures => SweepMeasure::Pictures,
            },
            advice_w: advice.map(|advice| advice.limit_mw.div_ceil(1000)),
        }
    }
}

fn row_view(row: &Row, measure: Measure) -> SweepRow {
    // Points are shown whole, and counted in millionths.
    let unit = if measure == Measure::Points { 1e6 } else { 1.0 };
    SweepRow {
        limit_w: row.limit_mw.div_ceil(1000),
        drew_w: row.watts() as f32,
        per_hour: row.per_hour(measure) / unit,
        per_kwh: row.per_kwh(measure) / unit,
    }
}

impl App {
    pub(super) async fn sweep_start(self: &Arc<Self>, card: &str) -> Result<(), ErrorBody> {
        let range = super::changeable(&self.power_card(card).await?)?;
        let refused = |message: &str| ErrorBody::new(ErrorCode::InvalidRequest, message);
        if !self.works().0 {
            return Err(refused("The search measures real jobs, and this machine does not mine.")
                .with_hint("Press Start, then search."));
        }
        let steps = steps_mw(&range);
        if steps.len() < 2 {
            return Err(refused("This card has one limit only, so there is nothing to search."));
        }
        let mut sweep = lock(&self.power.sweep);
        if sweep.as_ref().is_some_and(|run| run.sweep.want_mw().is_some()) {
            return Err(refused("A search runs already."));
        }
        info!(card, steps = steps.len(), "the search for the best power limit begins");
        *sweep = Some(SweepRun {
            card: card.to_owned(),
            sweep: Sweep::new(steps),
            began: Instant::now(),
            meter: Meter::default(),
        });
        drop(sweep);
        self.power.try_again(card);
        self.power.chosen.notify_one();
        Ok(())
    }

    /// Breaks the search off; one that is over is put away.
    pub(super) fn sweep_stop(&self) {
        let mut sweep = lock(&self.power.sweep);
        match sweep.as_mut() {
            Some(run) if run.sweep.want_mw().is_some() => run.sweep.stop(),
            _ => *sweep = None,
        }
        drop(sweep);
        self.power.chosen.notify_one();
    }

    /// Counts what was done since the last step.
    pub(super) fn sweep_step(&self) {
        let mut sweep = lock(&self.power.sweep);
        let Some(run) = sweep.as_mut().filter(|run| run.sweep.want_mw().is_some()) else { return };
        let (mines, working) = self.works();
        let miner = lock(&self.mining).miner();
        let (true, Some(miner)) = (mines, miner) else {
            // Counters of another run begin anew, and so would the card.
            return run.sweep.stop();
        };
        let want_mw = run.sweep.want_mw();
        let outcome = lock(&self.power.outcomes).get(&run.card).cloned();
        match outcome {
            Some(Outcome::Held { limit_mw })
                if want_mw.is_some_and(|want| neurino_power::same_limit(want, limit_mw)) => {}
            // Not in force yet.
            Some(Outcome::Held { .. }) | None => return,
            // Somebody else has the card, or the driver refuses.
            Some(Outcome::Theirs | Outcome::Failed(..)) => return run.sweep.stop(),
        }
        let counters = miner.status().borrow().counters;
        let energy_mj = run.meter.read(self.power.cards.as_ref(), &run.card);
        run.sweep.observe(Reading {
            at_ms: run.began.elapsed().as_millis() as u64,
            working,
            energy_mj,
            micro_points: u64::try_from(counters.earned_micro.0).unwrap_or(0),
            jobs: counters.settled,
            tokens: counters.tokens_written,
            pictures: counters.pictures,
        });
    }
}
