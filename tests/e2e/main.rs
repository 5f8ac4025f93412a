//! Tests that drive the real window: the program under test, its own page, no fake in between.
//!
//! Each test has a display, a session bus and a home of its own ([`desk`]), and looks at the page
//! as a person does, through WebDriver ([`page`]). Pictures of every step are left in
//! `NEURINO_ARTIFACTS`, else in `artifacts/e2e` of the target folder. Where the tools or the
//! starter model are missing the tests say so and pass, unless `CI` or `NEURINO_E2E` is set.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stderr, reason = "a test says what it saw and what it skipped")]

mod accessibility;
mod closing;
mod desk;
mod downloads;
mod earning;
mod earnings;
mod engine_loss;
mod fences;
mod first_start;
mod guard;
mod hotkey;
mod language;
mod lists;
mod no_display;
mod notices;
mod page;
mod pictures;
mod rules;
mod settings;
mod updates;
mod wallet;
