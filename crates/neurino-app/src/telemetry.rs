//! Logs: to daily files in the log folder, and nowhere else.
//!
//! What may be logged is told in docs/LOGGING.md: never a prompt, an answer or a key.

use std::path::Path;

use neurino_config::settings::TelemetrySettings;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Keeps the log writer alive; dropping it flushes.
#[must_use = "dropping the guard ends logging"]
#[derive(Debug)]
pub struct Telemetry {
    _guard: Option<WorkerGuard>,
    problem: Option<String>,
}

impl Telemetry {
    /// What of the settings is not followed, and what holds instead; in words.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// What holds where a filter is not understood.
const USUAL: &str = "info";

/// Starts logging to files in the folder `logs`, once in a process. A malformed filter falls back to
/// `info`, which the log and [`Telemetry::problem`] say. A folder that cannot be written leaves the
/// files out: a full disk must not keep anybody from mining.
pub fn start(logs: &Path, settings: &TelemetrySettings) -> Telemetry {
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("neurino")
        .filename_suffix("log")
        // The day's own file is one of them.
        .max_log_files(usize::from(settings.log_days_max.max(1)))
        .build(logs);
    let (filter, problem) = filter(&settings.log_filter);
    let Ok(appender) = appender else { return Telemetry { _guard: None, problem } };
    let (writer, guard) = tracing_appender::non_blocking(appender);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if let Some(problem) = &problem {
        tracing::warn!("{problem}");
    }
    Telemetry { _guard: Some(guard), problem }
}

/// The filter of a text, or the usual one and why.
fn filter(text: &str) -> (EnvFilter, Option<String>) {
    match EnvFilter::try_new(text) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let problem = format!(
                "the log filter `{text}` (NEURINO_LOG, or `log_filter` in settings.toml) is not \
                 understood ({error}); `{USUAL}` holds instead"
            );
            (EnvFilter::new(USUAL), Some(problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_not_understood_is_named() {
        for good in ["info", "info,neurino_miner=debug", "off"] {
            assert_eq!(filter(good).1, None, "{good}");
        }
        let (used, problem) = filter("neurino_miner=loud");
        assert_eq!(used.to_string(), "info");
        let problem = problem.unwrap_or_default();
        assert!(problem.contains("`neurino_miner=loud`"), "{problem}");
        assert!(problem.contains("`info` holds"), "{problem}");
    }
}
