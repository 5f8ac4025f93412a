//! Logs: to daily files in the data directory, and to stderr where a terminal reads it.
//!
//! What may be logged is told in docs/LOGGING.md: never a prompt, an answer or a key.

use std::path::Path;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Log files kept; one a day.
const FILES_KEPT: usize = 7;

/// Keeps the log writer alive; dropping it flushes.
#[must_use = "dropping the guard ends logging"]
#[derive(Debug)]
pub struct Telemetry {
    _guard: Option<WorkerGuard>,
}

/// Starts logging. `filter` is in tracing's syntax (`info`, `neurino_miner=debug`); a malformed one
/// falls back to `info`. A folder that cannot be written leaves the file out: a full disk must not
/// keep anybody from mining.
pub fn start(logs: &Path, filter: &str, stderr: bool) -> Telemetry {
    let parse = || EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("neurino")
        .filename_suffix("log")
        .max_log_files(FILES_KEPT)
        .build(logs)
        .ok();
    let (file_layer, guard) = match file {
        Some(appender) => {
            let (writer, guard) = tracing_appender::non_blocking(appender);
            let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
            (Some(layer.with_filter(parse())), Some(guard))
        }
        None => (None, None),
    };
    let stderr_layer = stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_filter(parse())
    });
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(file_layer).with(stderr_layer).try_init();
    Telemetry { _guard: guard }
}
