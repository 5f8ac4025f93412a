//! The log of what was decided about a network: keys, credits, trust, epochs, start and stop. One line
//! of JSON an act, each with the digest of the line before, so that nobody changes or takes out one
//! without the rest showing it. No secrets, no words of persons.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::keys::ApiKeyInfo;

/// Longest result that is kept, in characters.
const RESULT_MAX: usize = 300;

tokio::task_local! {
    static WHO: String;
}

/// Runs something in somebody's name: what it does is written down as theirs.
pub async fn in_the_name_of<T>(who: &str, work: impl Future<Output = T>) -> T {
    WHO.scope(who.to_owned(), work).await
}

/// In whose name this runs.
pub(crate) fn who() -> String {
    WHO.try_with(Clone::clone).unwrap_or_else(|_| "this program".into())
}

/// Something that was done, or refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Act {
    who: String,
    what: &'static str,
    about: Value,
    result: String,
}

impl Act {
    /// One that was done in the name of whoever runs now.
    pub(crate) fn done(what: &'static str, about: Value) -> Self {
        Self { who: who(), what, about, result: "done".into() }
    }

    /// One that the network did by its rules.
    pub(crate) fn by_the_rules(what: &'static str, about: Value) -> Self {
        Self { who: "the network's rules".into(), ..Self::done(what, about) }
    }

    /// The same, if it was refused.
    #[must_use]
    pub(crate) fn with_outcome<T>(self, outcome: &Result<T, impl std::fmt::Display>) -> Self {
        match outcome {
            Ok(_) => self,
            Err(error) => {
                let words: String = error.to_string().chars().take(RESULT_MAX).collect();
                Self { result: format!("refused: {words}"), ..self }
            }
        }
    }

    /// A key was made: all that is known of it but its secret.
    pub(crate) fn key_made(key: &ApiKeyInfo) -> Self {
        Self::done("key made", json!(key))
    }

    /// Its line, behind another one.
    pub(crate) fn line(&self, number: i64, at_ms: i64, previous: &str) -> String {
        let Self { who, what, about, result } = self;
        json!({ "number": number, "at_ms": at_ms, "who": who, "what": what, "about": about,
            "result": result, "previous": previous })
        .to_string()
    }
}

/// What stands before the first line.
pub(crate) fn beginning() -> String {
    "0".repeat(64)
}

/// The digest of a line, in hexadecimal digits.
pub(crate) fn digest(line: &str) -> String {
    hex::encode(Sha256::digest(line))
}

/// What a line of the log must say of its place.
#[derive(Deserialize)]
struct Place {
    number: i64,
    previous: String,
}

/// How far a log was read, and whether it holds together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogCheck {
    /// Lines that hold together from the first one on.
    pub lines: i64,
    /// The digest of the last of them. Who wrote it down elsewhere sees whether lines are missing.
    pub end: String,
    /// The number of the first line that does not fit, if there is one.
    pub broken_at: Option<i64>,
}

impl LogCheck {
    pub(crate) fn new() -> Self {
        Self { lines: 0, end: beginning(), broken_at: None }
    }

    /// Whether every line fits.
    pub fn holds(&self) -> bool {
        self.broken_at.is_none()
    }

    /// Reads the next line.
    pub(crate) fn read(&mut self, line: &str) {
        if self.broken_at.is_some() {
            return;
        }
        let number = self.lines + 1;
        let fits = serde_json::from_str::<Place>(line)
            .is_ok_and(|place| place.number == number && place.previous == self.end);
        if fits {
            self.lines = number;
            self.end = digest(line);
        } else {
            self.broken_at = Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<String> {
        let mut end = beginning();
        (1..=4)
            .map(|number| {
                let about = json!({ "n": number });
                let line = Act::done("tested", about).line(number, 7, &end);
                end = digest(&line);
                line
            })
            .collect()
    }

    fn check(lines: &[String]) -> LogCheck {
        let mut check = LogCheck::new();
        for line in lines {
            check.read(line);
        }
        check
    }

    #[test]
    fn a_line_that_changed_went_or_moved_shows() {
        let whole = lines();
        let read = check(&whole);
        assert!(read.holds() && read.lines == 4 && read.end == digest(&whole[3]), "{read:?}");
        assert!(check(&[]).holds());
        for at in 0..4 {
            let mut changed = whole.clone();
            changed[at] = changed[at].replace("tested", "pested");
            // The last line's change shows in the end alone.
            let read = check(&changed);
            assert_eq!(read.broken_at, (at < 3).then_some(at as i64 + 2), "{at}");
            assert_ne!(read.end, digest(&whole[3]));
            let mut missing = whole.clone();
            missing.remove(at);
            assert_ne!(check(&missing), check(&whole), "{at}");
        }
        let mut moved = whole.clone();
        moved.swap(1, 2);
        assert_eq!(check(&moved).broken_at, Some(2));
        assert_eq!(check(&["not JSON".into()]).broken_at, Some(1));
    }

    #[tokio::test]
    async fn an_act_is_somebodys() {
        let by = |act: Act| serde_json::from_str::<Value>(&act.line(1, 1, "")).expect("JSON");
        let refused: Result<(), &str> = Err("no such key");
        let act = in_the_name_of("ada", async {
            Act::done("key revoked", json!({ "key": "k1" })).with_outcome(&refused)
        })
        .await;
        let line = by(act);
        assert_eq!(
            (&line["who"], &line["result"]),
            (&json!("ada"), &json!("refused: no such key"))
        );
        assert_eq!(by(Act::done("x", Value::Null))["who"], "this program");
    }
}
