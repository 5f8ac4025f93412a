//! The live view of `neurino practice` in a terminal; plain lines elsewhere, nothing for scripts.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use neurino_core::{ImageStep, JobOutput, JobSpec};
use neurino_protocol::app::Snapshot;

use super::report::JobReport;
use crate::output::{self, Format, points_name};

/// The view; a line at the bottom moves, where standard error is a terminal.
pub(super) struct Screen {
    bar: ProgressBar,
    text: bool,
    started: Cell<Instant>,
    answer: RefCell<String>,
}

impl Screen {
    pub(super) fn new(format: Format) -> Self {
        let text = format == Format::Text;
        let bar = if text { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, text, started: Cell::new(Instant::now()), answer: RefCell::default() }
    }

    fn say(&self, line: impl AsRef<str>) {
        if self.text {
            self.bar.suspend(|| output::line(line));
        }
    }

    pub(super) fn device(&self, snapshot: &Snapshot) {
        if let Some(device) = snapshot.devices.first() {
            self.say(format!("Device    {}", device.name));
            if let Some(note) = &device.note {
                self.say(format!("          {note}"));
            }
        }
        self.say(format!("Identity  {}", snapshot.identity));
    }

    pub(super) fn preparing(&self, sentence: &str) {
        self.bar.set_message(sentence.to_owned());
    }

    pub(super) fn job_begins(&self, n: u32, of: u32, spec: &JobSpec) {
        let question = match spec {
            JobSpec::Text(job) => job.messages.last().map_or("", |m| m.content.as_str()),
            JobSpec::Image(job) => &job.prompt,
        };
        self.say(format!("\nJob {n} of {of}: {question}"));
        self.started.set(Instant::now());
        self.answer_void();
    }

    pub(super) fn answer_void(&self) {
        self.answer.borrow_mut().clear();
        self.bar.set_message("waiting for the miner".to_owned());
    }

    pub(super) fn answer(&self, text: &str) {
        let mut answer = self.answer.borrow_mut();
        answer.push_str(&output::plain(text));
        self.bar.set_message(answer.replace('\n', " "));
    }

    pub(super) fn step(&self, step: &ImageStep) {
        self.bar.set_message(format!("step {} of {}", step.step, step.steps));
    }

    pub(super) fn job_ended(&self, report: &JobReport) {
        let seconds = self.started.get().elapsed().as_secs_f64();
        let done = match &report.output {
            Some(JobOutput::Text(answer)) => {
                let words = output::plain(answer.text().trim());
                self.say(format!("  {}", words.replace('\n', "\n  ")));
                report.receipt.as_ref().map(|r| format!("{} tokens", r.usage.total()))
            }
            Some(JobOutput::Image(image)) => {
                if let Some(path) = &report.saved {
                    self.say(format!("  {}", path.display()));
                }
                Some(format!("{} x {} pixels", image.width, image.height))
            }
            None => None,
        };
        match (&report.receipt, &report.error) {
            (Some(receipt), _) => self.say(format!(
                "  {} in {seconds:.1} s, paid {} {}",
                done.unwrap_or_default(),
                receipt.quote.amount_micro,
                points_name(receipt.quote.points),
            )),
            (None, Some(error)) => self.say(format!("  failed: {error}")),
            (None, None) => {}
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
