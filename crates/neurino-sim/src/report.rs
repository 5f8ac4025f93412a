//! What a run measured, and whether that passes.

use std::fmt;
use std::time::Duration;

/// One measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// As measured, with its unit.
    pub value: String,
    /// What it must be; absent if it is only told.
    pub wanted: Option<String>,
    /// Whether it is.
    pub passes: bool,
    /// Whether it must hold on any machine, however busy: nothing lost, nothing paid twice.
    pub invariant: bool,
}

/// What a run measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Its name, `L3`.
    pub name: &'static str,
    /// What it did.
    pub load: String,
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(name: &'static str, load: String) -> Self {
        Self { name, load, figures: Vec::new() }
    }

    /// A figure that is only told.
    pub(crate) fn tell(&mut self, name: &'static str, value: impl fmt::Display) {
        let value = value.to_string();
        self.figures.push(Figure { name, value, wanted: None, passes: true, invariant: false });
    }

    /// A figure that depends on the machine.
    pub(crate) fn want(
        &mut self,
        name: &'static str,
        value: impl fmt::Display,
        wanted: &str,
        passes: bool,
    ) {
        let (value, wanted) = (value.to_string(), Some(wanted.to_owned()));
        self.figures.push(Figure { name, value, wanted, passes, invariant: false });
    }

    /// A figure that must hold anywhere.
    pub(crate) fn must(
        &mut self,
        name: &'static str,
        value: impl fmt::Display,
        wanted: &str,
        passes: bool,
    ) {
        let (value, wanted) = (value.to_string(), Some(wanted.to_owned()));
        self.figures.push(Figure { name, value, wanted, passes, invariant: true });
    }

    /// Whether everything passes.
    pub fn passes(&self) -> bool {
        self.figures.iter().all(|figure| figure.passes)
    }

    /// Whether what must hold anywhere does.
    pub fn invariants_hold(&self) -> bool {
        self.figures.iter().all(|figure| figure.passes || !figure.invariant)
    }
}

/// A table in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}: {}\n", self.name, self.load)?;
        writeln!(f, "| figure | measured | wanted | |\n|---|---|---|---|")?;
        for Figure { name, value, wanted, passes, .. } in &self.figures {
            let wanted = wanted.as_deref().unwrap_or("");
            let mark = match (wanted, passes) {
                ("", _) => "",
                (_, true) => "passes",
                (_, false) => "FAILS",
            };
            writeln!(f, "| {name} | {value} | {wanted} | {mark} |")?;
        }
        Ok(())
    }
}

/// Durations, sorted.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut all: Vec<_> = durations.collect();
        all.sort();
        Self(all)
    }

    /// The duration that so many per mille do not exceed; zero of nothing.
    pub(crate) fn permille(&self, n: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((self.0.len() * n / 1000).min(last)).copied().unwrap_or_default()
    }
}

/// Many durations, counted by tenths of a millisecond; what is beyond two seconds counts as that.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    tenths: Vec<u64>,
    all: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Self { tenths: vec![0; 20_001], all: 0 }
    }
}

impl Counted {
    pub(crate) fn add(&mut self, duration: Duration) {
        let at = (duration.as_micros() / 100).min(20_000) as usize;
        self.tenths[at] += 1;
        self.all += 1;
    }

    pub(crate) fn append(&mut self, other: &Self) {
        for (mine, theirs) in self.tenths.iter_mut().zip(&other.tenths) {
            *mine += theirs;
        }
        self.all += other.all;
    }

    pub(crate) fn len(&self) -> u64 {
        self.all
    }

    /// The duration that so many per mille do not exceed, rounded up to a tenth of a millisecond.
    pub(crate) fn permille(&self, n: u64) -> Duration {
        let rank = (self.all * n).div_ceil(1000).max(1);
        let mut below = 0;
        let at = self.tenths.iter().position(|count| {
            below += count;
            below >= rank
        });
        at.map_or(Duration::ZERO, |at| Duration::from_micros(100 * (at as u64 + 1)))
    }
}

/// Milliseconds with one decimal.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fails_with_one_figure() {
        let mut report = Report::new("L0", "nothing".into());
        report.want("slow", "9 ms", "<= 1 ms", false);
        assert!(!report.passes() && report.invariants_hold());
        report.must("lost", 1, "0", false);
        assert!(!report.invariants_hold());
        assert!(report.to_string().contains("| lost | 1 | 0 | FAILS |"));
    }

    #[test]
    fn counted_durations_are_read_by_rank() {
        let mut counted = Counted::default();
        assert_eq!(counted.permille(990), Duration::ZERO);
        (0..1000).for_each(|ms| counted.add(Duration::from_millis(ms)));
        assert_eq!(counted.permille(500), Duration::from_micros(499_100));
        let mut twice = counted.clone();
        twice.append(&counted);
        twice.add(Duration::from_hours(1));
        assert_eq!(twice.len(), 2001);
        assert_eq!(twice.permille(1000), Duration::from_micros(2_000_100));
    }

    #[test]
    fn spreads_are_read_by_rank() {
        let spread = Spread::of((1..=1000).rev().map(Duration::from_millis));
        assert_eq!(spread.permille(500), Duration::from_millis(501));
        assert_eq!(spread.permille(990), Duration::from_millis(991));
        assert_eq!(Spread::of(std::iter::empty()).permille(500), Duration::ZERO);
    }
}
