//! What one rendering of a template may make.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

use super::values::write_value;

/// Bytes that all intermediate values and the prompt may have together.
pub(super) const MADE_BYTES_MAX: usize = 64 << 20;
/// Values made from other values that hold values; bounds how deep they can be nested.
const NESTINGS_MAX: usize = 4_000;

/// Stopped: the template asked for too much.
#[derive(Debug)]
pub(super) struct TooMuch;

/// What one rendering may still make.
#[derive(Debug, Default)]
pub(super) struct Budget {
    made: AtomicUsize,
    nestings: AtomicUsize,
}

impl Budget {
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        let before = self.made.fetch_add(bytes.min(MADE_BYTES_MAX), Ordering::Relaxed);
        // Every call adds something, so that a million of them end, too.
        if before.saturating_add(bytes) > MADE_BYTES_MAX { Err(too_much()) } else { Ok(()) }
    }

    /// Counts a value that holds other values, if any of `parts` does so itself.
    pub(super) fn nest<'a>(&self, parts: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
        let holds = |value: &Value| value.as_object().is_some();
        if !parts.into_iter().any(holds) {
            return Ok(());
        }
        let before = self.nestings.fetch_add(1, Ordering::Relaxed);
        if before >= NESTINGS_MAX { Err(too_much()) } else { Ok(()) }
    }

    /// Counts a finished value.
    pub(super) fn charge_value(&self, value: &Value) -> Result<(), Error> {
        self.charge(match value.as_str() {
            Some(text) => text.len(),
            None => value.len().unwrap_or(1).saturating_mul(size_of::<Value>()),
        })
    }

    /// A value as Python's `str` prints it.
    pub(super) fn text(&self, value: &Value) -> Result<String, Error> {
        let mut limited = Limited::new(self);
        write_value(&mut limited, value).map_err(|_| too_much())?;
        Ok(limited.text)
    }
}

pub(super) fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the template asks for too much").with_source(TooMuch)
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more than a conversation can need")
    }
}

impl std::error::Error for TooMuch {}

/// Text that costs its bytes.
pub(super) struct Limited<'a> {
    budget: &'a Budget,
    text: String,
}

impl<'a> Limited<'a> {
    pub(super) fn new(budget: &'a Budget) -> Self {
        Self { budget, text: String::new() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.budget.charge(text.len()).map_err(|_| fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

impl io::Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.budget.charge(bytes.len()).map_err(io::Error::other)?;
        self.text.push_str(std::str::from_utf8(bytes).map_err(io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
