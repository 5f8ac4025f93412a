//! A case, its outcome, and how both read.

use std::fmt;

/// How a case ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Within its limit.
    Passed(Measure),
    /// Beyond it, or not computed at all; with what was found.
    Failed(Option<Measure>, String),
    /// Not run, and why.
    Skipped(String),
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// The largest error, and the largest allowed.
    Error {
        /// As the limit is meant: absolute, or relative to the largest value.
        error: f64,
        /// The largest allowed.
        limit: f64,
    },
    /// This many things that had to be equal.
    Equal(usize),
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error { error, limit } => write!(f, "error {error:.1e}, limit {limit:.0e}"),
            Self::Equal(count) => write!(f, "{count} equal"),
        }
    }
}

/// How many cases ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Within their limits.
    pub passed: usize,
    /// Beyond them.
    pub failed: usize,
    /// Not run.
    pub skipped: usize,
}

/// Takes the outcomes of cases and passes them on as lines of text.
pub struct Report<'a> {
    tally: Tally,
    line: &'a mut dyn FnMut(&str),
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("tally", &self.tally).finish_non_exhaustive()
    }
}

impl<'a> Report<'a> {
    /// A report that gives each line to `line`.
    pub fn new(line: &'a mut dyn FnMut(&str)) -> Self {
        Self { tally: Tally::default(), line }
    }

    /// The outcomes so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes the outcome of the case called `name`.
    pub fn add(&mut self, name: &str, outcome: Outcome) {
        let (word, text) = match outcome {
            Outcome::Passed(measure) => {
                self.tally.passed += 1;
                ("ok", measure.to_string())
            }
            Outcome::Failed(measure, found) => {
                self.tally.failed += 1;
                let measure = measure.map_or_else(String::new, |measure| format!("{measure}: "));
                ("FAILED", format!("{measure}{found}"))
            }
            Outcome::Skipped(reason) => {
                self.tally.skipped += 1;
                ("skipped", reason)
            }
        };
        (self.line)(&format!("{word:<8} {name:<44} {text}"));
    }

    /// Takes a case that compares numbers.
    pub fn close(&mut self, name: &str, comparison: &Comparison) {
        let measure = Measure::Error { error: comparison.error, limit: comparison.limit };
        // Not `error > limit`: an error that is no number must not pass.
        if comparison.error <= comparison.limit {
            self.add(name, Outcome::Passed(measure));
        } else {
            self.add(name, Outcome::Failed(Some(measure), comparison.place.clone()));
        }
    }

    /// Takes a case whose parts all have to be equal; an error says which is not.
    pub fn equal(&mut self, name: &str, found: Result<usize, String>) {
        self.add(
            name,
            match found {
                Ok(count) => Outcome::Passed(Measure::Equal(count)),
                Err(found) => Outcome::Failed(None, found),
            },
        );
    }

    /// Takes a case that could not be computed.
    pub fn failed(&mut self, name: &str, reason: &dyn std::error::Error) {
        self.add(name, Outcome::Failed(None, neurino_core::told_with_causes(reason)));
    }

    /// Takes a case that was not run.
    pub fn skipped(&mut self, name: &str, reason: &str) {
        self.add(name, Outcome::Skipped(reason.to_owned()));
    }
}

/// The largest difference of many numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The largest error; infinite if there was nothing to compare, or another number of values.
    pub error: f64,
    /// The largest allowed.
    pub limit: f64,
    /// Where the error is.
    pub place: String,
}

impl Comparison {
    /// Nothing compared yet.
    pub fn new(limit: f64) -> Self {
        Self { error: 0.0, limit, place: String::new() }
    }

    /// Two lists of rows of `width`, relative to the largest value of each expected row.
    pub fn of_rows(found: &[f32], expect: &[f32], width: usize, limit: f64) -> Self {
        let mut comparison = Self::new(limit);
        comparison.add_rows("", found, expect, width);
        comparison
    }

    /// Adds rows, see [`Comparison::of_rows`]; `what` says which.
    pub fn add_rows(&mut self, what: &str, found: &[f32], expect: &[f32], width: usize) {
        if found.len() != expect.len() || expect.is_empty() || width == 0 {
            let (found, expect) = (found.len(), expect.len());
            self.take(f64::INFINITY, || format!("{what}{found} values instead of {expect}"));
            return;
        }
        for (row, (found, expect)) in found.chunks(width).zip(expect.chunks(width)).enumerate() {
            let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs())).max(f32::MIN_POSITIVE);
            for (column, (a, b)) in found.iter().zip(expect).enumerate() {
                let error = f64::from((a - b).abs()) / f64::from(largest);
                self.take(error, || format!("{what}row {row}, value {column}: {a} instead of {b}"));
            }
        }
    }

    /// Two lists of values, each by its absolute difference.
    pub fn of_values(found: &[f32], expect: &[f32], limit: f64) -> Self {
        let mut comparison = Self::new(limit);
        if found.len() != expect.len() || expect.is_empty() {
            let (found, expect) = (found.len(), expect.len());
            comparison.take(f64::INFINITY, || format!("{found} values instead of {expect}"));
        }
        for (at, (a, b)) in found.iter().zip(expect).enumerate() {
            let error = f64::from((a - b).abs());
            comparison.take(error, || format!("value {at}: {a} instead of {b}"));
        }
        comparison
    }

    /// Two lists of values, each relative to the expected one.
    pub fn of_ratios(found: &[f32], expect: &[f32], limit: f64) -> Self {
        Self::of_rows(found, expect, 1, limit)
    }

    fn take(&mut self, error: f64, place: impl FnOnce() -> String) {
        if error > self.error || error.is_nan() {
            self.error = if error.is_nan() { f64::INFINITY } else { error };
            self.place = place();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(fill: impl FnOnce(&mut Report<'_>)) -> (Tally, Vec<String>) {
        let mut lines = Vec::new();
        let mut keep =
            |line: &str| lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut report = Report::new(&mut keep);
        fill(&mut report);
        (report.tally(), lines)
    }

    #[test]
    fn outcomes_are_counted_and_worded() {
        let (tally, lines) = lines(|report| {
            report.close("a", &Comparison::of_rows(&[1.0, 2.0], &[1.0, 2.0], 2, 1e-4));
            report.close("b", &Comparison::of_rows(&[1.0, 2.5], &[1.0, 2.0], 2, 1e-4));
            report.equal("c", Ok(3));
            report.equal("d", Err("2 instead of 1".into()));
            report.skipped("e", "not here");
        });
        assert_eq!(tally, Tally { passed: 2, failed: 2, skipped: 1 });
        assert_eq!(
            lines,
            [
                "ok a error 0.0e0, limit 1e-4",
                "FAILED b error 2.5e-1, limit 1e-4: row 0, value 1: 2.5 instead of 2",
                "ok c 3 equal",
                "FAILED d 2 instead of 1",
                "skipped e not here",
            ]
        );
    }

    #[test]
    fn what_is_no_number_or_missing_never_passes() {
        for comparison in [
            Comparison::of_rows(&[f32::NAN], &[1.0], 1, 1.0),
            Comparison::of_rows(&[1.0], &[f32::NAN], 1, 1.0),
            Comparison::of_rows(&[], &[], 1, 1.0),
            Comparison::of_rows(&[1.0], &[1.0, 2.0], 1, 1.0),
            Comparison::of_values(&[1.0, 2.0], &[1.0], 9.0),
            Comparison::of_values(&[], &[], 9.0),
        ] {
            assert!(comparison.error > comparison.limit, "{comparison:?}");
        }
    }
}
