//! Which limit does most work with a kilowatt hour: tries some, one after the other, while real jobs
//! run, and counts what they did and what the card used.
//!
//! Only time in which a job ran counts, so that a pause of the network does not look like a slow
//! card. Nothing is applied here: the person decides.

use neurino_hardware::PowerRange;

/// Shares of the usual limit that are tried, in per cent.
const STEPS_PERCENT: [u32; 6] = [100, 90, 80, 70, 60, 50];
/// Time after a change that is not counted: the job in the works was begun at the other limit.
const SETTLE_MS: u64 = 10_000;
/// Time with work that is counted at each limit.
const MEASURE_MS: u64 = 60_000;
/// A limit without enough work in this time ends the attempt.
const PATIENCE_MS: u64 = 10 * 60_000;
/// Two readings further apart say nothing about the time between them: the machine slept.
const GAP_MS: u64 = 10_000;
/// So many paid jobs make points comparable.
const JOBS_LEAST: u64 = 4;
/// A limit that is advised keeps this share of the best pace.
const PACE_LEAST: f64 = 0.8;

/// The limits to try, in milliwatts, from the usual one down.
pub fn steps_mw(range: &PowerRange) -> Vec<u32> {
    let share = |percent: u32| {
        let watts = u64::from(range.usual_mw) * u64::from(percent) / 100_000;
        (watts as u32 * 1000).clamp(range.least_mw, range.most_mw)
    };
    let mut steps: Vec<u32> = STEPS_PERCENT.into_iter().map(share).collect();
    steps.dedup();
    steps
}

/// What was counted until a moment; all but `working` only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds of a clock that never goes back.
    pub at_ms: u64,
    /// Whether a job runs.
    pub working: bool,
    /// Energy of the card in millijoules.
    pub energy_mj: u64,
    /// Points earned, in micro-points.
    pub micro_points: u64,
    /// Jobs paid.
    pub jobs: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Pictures finished.
    pub pictures: u64,
}

/// What happened at one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// The limit in milliwatts.
    pub limit_mw: u32,
    /// Time with work, in milliseconds.
    pub worked_ms: u64,
    /// Energy in that time, in millijoules.
    pub energy_mj: u64,
    /// Points earned, in micro-points.
    pub micro_points: u64,
    /// Jobs paid.
    pub jobs: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Pictures finished.
    pub pictures: u64,
}

/// What limits are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Points: every limit saw enough paid jobs.
    Points,
    /// Tokens: every limit wrote some, and none made pictures.
    Tokens,
    /// Pictures: every limit made some, and none wrote text.
    Pictures,
}

impl Row {
    /// Work of this kind with a kilowatt hour: micro-points, tokens or pictures.
    pub fn per_kwh(&self, measure: Measure) -> f64 {
        // A kilowatt hour has 3.6 billion millijoules.
        self.work(measure) * 3.6e9 / self.energy_mj.max(1) as f64
    }

    /// Work of this kind in an hour: micro-points, tokens or pictures.
    pub fn per_hour(&self, measure: Measure) -> f64 {
        self.work(measure) * 3.6e6 / self.worked_ms.max(1) as f64
    }

    /// What the card drew on average, in watts.
    pub fn watts(&self) -> f64 {
        self.energy_mj as f64 / self.worked_ms.max(1) as f64
    }

    fn work(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Points => self.micro_points as f64,
            Measure::Tokens => self.tokens as f64,
            Measure::Pictures => self.pictures as f64,
        }
    }
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// The limit, in milliwatts.
    pub limit_mw: u32,
    /// What it was chosen by.
    pub measure: Measure,
}

/// How a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepEnd {
    /// It measured every limit.
    Done(Advice),
    /// It measured, but the limits did different kinds of work or too little of it.
    NotComparable,
    /// There was too little work to measure.
    NoWork,
    /// It was broken off.
    Stopped,
}

/// What a sweep does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The new limit takes effect.
    Settling,
    /// Work is counted.
    Measuring,
    /// No job runs; nothing is counted.
    Waiting,
    /// It is over.
    Over(SweepEnd),
}

/// A sweep: hold [`Sweep::want_mw`], and tell it about once a second what was done.
#[derive(Debug, Clone)]
pub struct Sweep {
    steps_mw: Vec<u32>,
    rows: Vec<Row>,
    end: Option<SweepEnd>,
    last: Option<Reading>,
    /// When the limit of this step came into force.
    since_ms: Option<u64>,
    now: Row,
}

impl Sweep {
    /// A sweep over these limits, in milliwatts.
    pub fn new(steps_mw: Vec<u32>) -> Self {
        let end = steps_mw.is_empty().then_some(SweepEnd::NoWork);
        Self { steps_mw, rows: Vec::new(), end, last: None, since_ms: None, now: Row::default() }
    }

    /// The limit to hold now; `None` when it is over.
    pub fn want_mw(&self) -> Option<u32> {
        if self.end.is_some() { None } else { self.steps_mw.get(self.rows.len()).copied() }
    }

    /// The limits that are tried.
    pub fn steps_mw(&self) -> &[u32] {
        &self.steps_mw
    }

    /// The limits that have been measured.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What it does now.
    pub fn stage(&self) -> Stage {
        let last = self.last.unwrap_or_default();
        match (self.end, self.since_ms) {
            (Some(end), _) => Stage::Over(end),
            (None, Some(since_ms)) if last.at_ms - since_ms >= SETTLE_MS => {
                if last.working {
                    Stage::Measuring
                } else {
                    Stage::Waiting
                }
            }
            (None, _) => Stage::Settling,
        }
    }

    /// How far it is, from 0 to 1.
    pub fn progress(&self) -> f64 {
        let step = self.now.worked_ms.min(MEASURE_MS) as f64 / MEASURE_MS as f64;
        let steps = self.steps_mw.len().max(1) as f64;
        if self.end.is_some() { 1.0 } else { (self.rows.len() as f64 + step) / steps }
    }

    /// Breaks it off; one that is over stays as it ended.
    pub fn stop(&mut self) {
        self.end.get_or_insert(SweepEnd::Stopped);
    }

    /// Takes in what was done until now, while the limit it wants is in force.
    pub fn observe(&mut self, now: Reading) {
        let Some(limit_mw) = self.want_mw() else { return };
        self.now.limit_mw = limit_mw;
        let since_ms = *self.since_ms.get_or_insert(now.at_ms);
        let last = self.last.replace(now);
        if now.at_ms.saturating_sub(since_ms) > PATIENCE_MS {
            self.end = Some(SweepEnd::NoWork);
            return;
        }
        let Some(last) = last.filter(|last| last.at_ms >= since_ms + SETTLE_MS) else { return };
        let stretch_ms = now.at_ms.saturating_sub(last.at_ms);
        if stretch_ms <= GAP_MS {
            self.count(&last, &now, stretch_ms);
        }
        if self.now.worked_ms >= MEASURE_MS {
            self.rows.push(std::mem::take(&mut self.now));
            self.since_ms = None;
            if self.rows.len() == self.steps_mw.len() {
                self.end = Some(advice(&self.rows).map_or(SweepEnd::NotComparable, SweepEnd::Done));
            }
        }
    }

    fn count(&mut self, last: &Reading, now: &Reading, stretch_ms: u64) {
        let row = &mut self.now;
        if last.working || now.working {
            row.worked_ms += stretch_ms;
            row.energy_mj += now.energy_mj.saturating_sub(last.energy_mj);
        }
        // A receipt may come when the next job has not begun.
        row.micro_points += now.micro_points.saturating_sub(last.micro_points);
        row.jobs += now.jobs.saturating_sub(last.jobs);
        row.tokens += now.tokens.saturating_sub(last.tokens);
        row.pictures += now.pictures.saturating_sub(last.pictures);
    }
}

/// What these rows can be compared by: `None` where they did different kinds of work, or too little.
pub fn measure_of(rows: &[Row]) -> Option<Measure> {
    let every = |holds: fn(&Row) -> bool| !rows.is_empty() && rows.iter().all(holds);
    if every(|row| row.jobs >= JOBS_LEAST && row.micro_points > 0) {
        Some(Measure::Points)
    } else if every(|row| row.tokens > 0 && row.pictures == 0) {
        Some(Measure::Tokens)
    } else if every(|row| row.pictures > 0 && row.tokens == 0) {
        Some(Measure::Pictures)
    } else {
        None
    }
}

/// The limit with most work for its energy, of those that keep up; `None` where the limits cannot
/// be compared.
fn advice(rows: &[Row]) -> Option<Advice> {
    let measure = measure_of(rows)?;
    if !rows.iter().all(|row| row.energy_mj > 0) {
        return None;
    }
    let best = rows.iter().map(|row| row.per_hour(measure)).fold(0.0, f64::max);
    let keeps_up = rows.iter().filter(|row| row.per_hour(measure) >= PACE_LEAST * best);
    let frugal = keeps_up.max_by(|a, b| a.per_kwh(measure).total_cmp(&b.per_kwh(measure)))?;
    Some(Advice { limit_mw: frugal.limit_mw, measure })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: PowerRange = PowerRange { least_mw: 100_000, most_mw: 450_000, usual_mw: 450_000 };

    /// A card whose pace grows with the power ever more slowly, as real ones do.
    struct Card {
        now: Reading,
        tokens: f64,
        points: f64,
    }

    impl Card {
        fn new() -> Self {
            Self { now: Reading::default(), tokens: 0.0, points: 0.0 }
        }

        fn second(&mut self, limit_mw: u32, works: bool, jobs_per_s: f64) -> Reading {
            let second = self.now.at_ms / 1000 + 1;
            let watts = f64::from(limit_mw) / 1000.0;
            self.now.at_ms += 1000;
            self.now.working = works;
            self.now.energy_mj += if works { (watts * 1000.0) as u64 } else { 30_000 };
            if works {
                // 40 W keep the card on and compute nothing.
                let pace = 100.0 * (1.0 - (-(watts - 40.0) / 120.0).exp());
                self.tokens += pace;
                self.points += pace * 10.0;
                self.now.tokens = self.tokens as u64;
                self.now.jobs = (second as f64 * jobs_per_s) as u64;
                self.now.micro_points = self.points as u64;
            }
            self.now
        }
    }

    fn run(works: impl Fn(u64) -> bool, jobs_per_s: f64) -> Sweep {
        let mut sweep = Sweep::new(steps_mw(&RANGE));
        let mut card = Card::new();
        for second in 0..10_000 {
            let Some(want_mw) = sweep.want_mw() else { break };
            sweep.observe(card.second(want_mw, works(second), jobs_per_s));
        }
        sweep
    }

    #[test]
    fn the_steps_lie_within_what_the_card_allows() {
        assert_eq!(steps_mw(&RANGE), [450_000, 405_000, 360_000, 315_000, 270_000, 225_000]);
        let narrow = PowerRange { least_mw: 300_000, most_mw: 400_000, usual_mw: 350_000 };
        assert_eq!(steps_mw(&narrow), [350_000, 315_000, 300_000]);
    }

    #[test]
    fn it_finds_the_most_work_for_the_energy_that_keeps_up() {
        let sweep = run(|_| true, 0.5);
        let Stage::Over(SweepEnd::Done(advice)) = sweep.stage() else {
            panic!("{:?}", sweep.stage())
        };
        assert_eq!(advice.measure, Measure::Points);
        // At 225 W this card still makes 81 % of its best pace with half of the energy.
        assert_eq!(advice.limit_mw, 225_000, "{:#?}", sweep.rows());
        let rows = sweep.rows();
        assert_eq!(rows.len(), 6);
        assert!((rows[0].watts() - 450.0).abs() < 1.0);
        assert!(rows[5].per_kwh(Measure::Points) > 1.5 * rows[0].per_kwh(Measure::Points));
    }

    #[test]
    fn a_limit_that_costs_too_much_pace_is_not_advised() {
        let row = |limit_mw, tokens, energy_mj| Row {
            limit_mw,
            worked_ms: MEASURE_MS,
            energy_mj,
            tokens,
            ..Row::default()
        };
        let rows =
            [row(300_000, 1000, 18_000), row(200_000, 850, 12_000), row(100_000, 700, 6_000)];
        let found = advice(&rows).map(|advice| (advice.limit_mw, advice.measure));
        assert_eq!(found, Some((200_000, Measure::Tokens)));
        // Text at one limit and pictures at another say nothing about each other.
        let pictures = Row { tokens: 0, pictures: 3, ..rows[1] };
        assert_eq!(advice(&[rows[0], pictures]), None);
        // And without a meter there is nothing to compare.
        assert_eq!(advice(&[row(300_000, 1000, 0)]), None);
    }

    #[test]
    fn pauses_between_jobs_are_not_counted() {
        let steady = run(|_| true, 0.5);
        let gappy = run(|second| second % 40 < 20, 0.5);
        for (a, b) in steady.rows().iter().zip(gappy.rows()) {
            let (a, b) = (a.per_hour(Measure::Tokens), b.per_hour(Measure::Tokens));
            assert!((a - b).abs() < 0.1 * a, "{a} and {b}");
        }
    }

    #[test]
    fn without_work_it_gives_up_and_a_stop_is_a_stop() {
        let sweep = run(|_| false, 0.0);
        assert_eq!(sweep.stage(), Stage::Over(SweepEnd::NoWork));
        assert_eq!(sweep.want_mw(), None);
        let mut sweep = Sweep::new(steps_mw(&RANGE));
        sweep.stop();
        assert_eq!(sweep.stage(), Stage::Over(SweepEnd::Stopped));
        let done = run(|_| true, 0.5);
        let mut again = done.clone();
        again.stop();
        assert_eq!(again.stage(), done.stage(), "what is over stays so");
    }

    #[test]
    fn sleep_between_two_readings_is_left_out() {
        let mut sweep = Sweep::new(vec![200_000]);
        let mut card = Card::new();
        for _ in 0..15 {
            sweep.observe(card.second(200_000, true, 0.5));
        }
        let before = sweep.now;
        card.now.at_ms += 60_000;
        card.now.energy_mj += 1_000_000_000;
        sweep.observe(card.second(200_000, true, 0.5));
        assert_eq!(sweep.now, before);
    }
}
