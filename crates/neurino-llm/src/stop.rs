//! Stop strings across token boundaries: text that might still become one is held back.

/// Looks for stop strings in a text that arrives piece by piece.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that is a prefix of a stop string, or several laid over each other.
    held: String,
}

/// What a piece let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text that certainly belongs to the answer.
    pub text: String,
    /// Whether a stop string was completed; it and what follows are cut off.
    pub stopped: bool,
}

impl StopMatcher {
    /// A matcher for these strings; empty ones are left out.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self { stops, held: String::new() }
    }

    /// Takes the next piece. When one piece completes several stop strings, the first of the list
    /// wins. Nothing may follow a piece that stopped.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().find_map(|stop| self.held.find(stop.as_str())) {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.held.len() - self.open_suffix();
        let rest = self.held.split_off(keep);
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, at the end of the text.
    pub fn finish(self) -> String {
        self.held
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn open_suffix(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len().min(held.len() + 1))
                .rev()
                .find(|&n| held.ends_with(&stop[..n]))
                .map_or(0, |n| self.boundary(n))
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    /// The length of the suffix widened to the start of a character.
    fn boundary(&self, suffix: usize) -> usize {
        let from = (0..=self.held.len() - suffix).rev().find(|&i| self.held.is_char_boundary(i));
        self.held.len() - from.unwrap_or(0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::Value;

    use super::*;

    const CASES: &str = include_str!("../../../tests/fixtures/text/stop.json");

    fn strings(value: &Value) -> Vec<String> {
        value.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn agrees_with_the_reference() {
        let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
        assert!(cases.len() >= 6);
        for case in cases {
            let mut matcher = StopMatcher::new(&strings(&case["stop"]));
            let (mut text, mut used, mut stopped) = (String::new(), 0, false);
            for piece in strings(&case["pieces"]) {
                let passed = matcher.push(&piece);
                text.push_str(&passed.text);
                (used, stopped) = (used + 1, passed.stopped);
                if stopped {
                    break;
                }
            }
            if !stopped {
                text.push_str(&matcher.finish());
            }
            assert_eq!(text, case["text"].as_str().unwrap(), "{case}");
            assert_eq!(used, case["pieces_used"].as_u64().unwrap(), "{case}");
            assert_eq!(stopped, case["finish_reason"] == "stop", "{case}");
        }
    }

    #[test]
    fn only_what_could_still_match_is_held_back() {
        let mut matcher = StopMatcher::new(&["</s>".into(), "née".into()]);
        let mut pass = |piece: &str| matcher.push(piece).text;
        assert_eq!(pass("a <"), "a ");
        assert_eq!(pass("/"), "");
        assert_eq!(pass("b"), "</b");
        assert_eq!(pass("n"), "");
        assert_eq!(pass("é"), "");
        assert_eq!(pass("o"), "néo");
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn without_stop_strings_everything_passes() {
        let mut matcher = StopMatcher::new(&[String::new()]);
        assert_eq!(matcher.push("ab"), Passed { text: "ab".into(), stopped: false });
    }
}
