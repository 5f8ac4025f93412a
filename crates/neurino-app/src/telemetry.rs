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
}

/// Starts logging to files in the folder `logs`, once in a process. A malformed filter falls back to
/// `info`. A folder that cannot be written leaves the files out: a full disk must not keep anybody
/// from mining.
pub fn start(logs: &Path, settings: &TelemetrySettings) -> Telemetry {
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("neurino")
        .filename_suffix("log")
        // The day's own file is one of them.
        .max_log_files(usize::from(settings.log_days_max.max(1)))
        .build(logs);
    let Ok(appender) = appender else { return Telemetry { _guard: None } };
    let (writer, guard) = tracing_appender::non_blocking(appender);
    let filter =
        EnvFilter::try_new(&settings.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Telemetry { _guard: Some(guard) }
}
