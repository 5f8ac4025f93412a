//! The one place that writes to standard output.
//!
//! A reader that has gone away (`neurino practice | head -1`) is no error: the work goes on, and
//! what it says is heard by nobody. Any other failure, a full disk above all, makes the command
//! fail when it ends: an answer was lost.
#![expect(clippy::print_stderr, reason = "this module is the output")]

use std::io::{self, Write as _};
use std::sync::OnceLock;

use neurino_core::PointsKind;
use serde::Serialize;

/// Why an answer could not be written.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// What points are called.
pub(crate) fn points_name(points: PointsKind) -> &'static str {
    match points {
        PointsKind::Llama => "Llama points",
        PointsKind::Waifu => "Waifu points",
    }
}

/// One line to standard output, at once: a reader may be waiting for it.
pub(crate) fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // The first one says why.
            let _ = LOST.set(error);
        }
        _ => {}
    }
}

/// Why an answer was lost, if one was.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// One line to standard error.
pub(crate) fn note(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// A value as indented JSON to standard output.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A value as one line of JSON to standard output, at once.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Text that others wrote, for a terminal: line ends stay, other control characters, which could
/// move the cursor or change colours, are left out.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_says_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\tc\r\nd\u{9b}e\u{7f}é"), "a[2Jbc\ndeé");
    }
}
