//! What is done about an engine that keeps failing with a model: it steps down instead of trying for ever.

use std::collections::{HashMap, HashSet, VecDeque};

use neurino_core::ModelId;
use neurino_engine::ModelRef;
use tokio::time::{Duration, Instant};

/// So many failures are too many ...
const MOST: usize = 3;
/// ... within this time.
const WITHIN: Duration = Duration::from_mins(10);

/// The failures of one run of the miner.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    recent: HashMap<ModelId, VecDeque<Instant>>,
    dropped: HashSet<ModelId>,
    gentle: bool,
}

/// The next step down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepDown {
    /// None yet.
    Stay,
    /// Serve other models instead of this one.
    Drop,
    /// Compute one job at a time.
    Gentle,
    /// Nothing is left to try.
    GiveUp,
}

impl Faults {
    /// Counts a failure of the engine with `model`; `others` says whether others could be served.
    pub(crate) fn count(&mut self, model: &ModelId, now: Instant, others: bool) -> StepDown {
        let recent = self.recent.entry(model.clone()).or_default();
        recent.push_back(now);
        while recent.front().is_some_and(|at| now.duration_since(*at) >= WITHIN) {
            recent.pop_front();
        }
        if recent.len() < MOST {
            return StepDown::Stay;
        }
        recent.clear();
        if others {
            self.dropped.insert(model.clone());
            StepDown::Drop
        } else if std::mem::replace(&mut self.gentle, true) {
            StepDown::GiveUp
        } else {
            StepDown::Gentle
        }
    }

    /// Whether jobs are taken one at a time from now on.
    pub(crate) fn is_gentle(&self) -> bool {
        self.gentle
    }

    /// Whether a model is not served any more.
    pub(crate) fn dropped(&self, model: &ModelId) -> bool {
        self.dropped.contains(model)
    }

    /// Those that were not dropped; all of them if nothing else is left.
    pub(crate) fn without_dropped(&self, models: Vec<ModelRef>) -> Vec<ModelRef> {
        let stays = |model: &&ModelRef| !self.dropped.contains(&model.id);
        let left: Vec<ModelRef> = models.iter().filter(stays).cloned().collect();
        if left.is_empty() { models } else { left }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_ten_minutes_are_too_many() {
        let (mut faults, start) = (Faults::default(), Instant::now());
        let model = ModelId::new("big").unwrap();
        let at = |minute: u64| start + Duration::from_mins(minute);
        for minute in [0, 6, 12, 18, 24] {
            assert_eq!(faults.count(&model, at(minute), true), StepDown::Stay, "{minute}");
        }
        assert_eq!(faults.count(&ModelId::new("other").unwrap(), at(25), true), StepDown::Stay);
        assert_eq!(faults.count(&model, at(25), true), StepDown::Drop);
        assert!(faults.dropped(&model) && !faults.is_gentle());
        let refs = |ids: &[&str]| -> Vec<ModelRef> {
            ids.iter().map(|id| ModelRef::new(ModelId::new(*id).unwrap(), id)).collect()
        };
        assert_eq!(faults.without_dropped(refs(&["big", "small"])), refs(&["small"]));
        assert_eq!(faults.without_dropped(refs(&["big"])), refs(&["big"]));
    }

    #[test]
    fn the_only_model_is_computed_gently_before_it_is_given_up() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        let model = ModelId::new("only").unwrap();
        let steps: Vec<StepDown> = (0..6).map(|_| faults.count(&model, now, false)).collect();
        let stay = StepDown::Stay;
        assert_eq!(steps, [stay, stay, StepDown::Gentle, stay, stay, StepDown::GiveUp]);
        assert!(faults.is_gentle());
    }
}
