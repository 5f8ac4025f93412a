//! Files for the person: exports, logs, and the bundle for whoever helps.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use neurino_earnings::{export, report};
use neurino_protocol::ErrorBody;
use neurino_protocol::earnings::{ExportFormat, ExportKind, LogFilter, SeriesStep};

use crate::{App, bundle, internal, lock, logs, now_ms, told_with_causes};

/// Days an export of days goes back.
const DAYS: u32 = 400;

impl App {
    /// Writes an export and says where it lies.
    pub(super) fn export(
        &self,
        what: ExportKind,
        format: ExportFormat,
        since_ms: Option<i64>,
    ) -> Result<String, ErrorBody> {
        let ending = match format {
            ExportFormat::Csv => "csv",
            ExportFormat::Json => "json",
        };
        let since_ms = since_ms.unwrap_or(0);
        let failed = |error: &dyn std::error::Error| internal(told_with_causes(error));
        match what {
            ExportKind::Receipts => self.write("receipts", ending, |out| {
                let done = export::receipts(&self.receipts, since_ms, format, out);
                done.map(|_| ()).map_err(io::Error::other)
            }),
            ExportKind::Jobs => self.write("jobs", ending, |out| {
                let history = lock(&self.records.history);
                export::jobs(history.since(since_ms), format, out).map(|_| ())
            }),
            ExportKind::Days => self.write("days", ending, |out| {
                let meter = lock(&self.records.meter);
                let asked = (SeriesStep::Day, DAYS);
                let zone = TimeZone::system();
                let mut bars =
                    self.receipts.view(|r| report::series(r, &meter, asked, now_ms(), &zone));
                bars.retain(|b| b.until_ms > since_ms && (b.jobs > 0 || b.mined_ms > 0));
                export::days(&bars, format, out).map(|_| ())
            }),
        }
        .map_err(|error| {
            failed(&error).with_hint("Check the free space and that you may write there.")
        })
    }

    /// Writes the log lines that match, oldest first.
    pub(super) fn save_logs(&self, filter: &LogFilter) -> Result<String, ErrorBody> {
        let page = logs::read(&self.dirs.logs, filter, usize::MAX);
        self.write("log", "txt", |out| {
            for line in page.lines.iter().rev() {
                writeln!(out, "{}", logs::told(line))?;
            }
            Ok(())
        })
        .map_err(|error| internal(told_with_causes(&error)))
    }

    /// Writes the bundle and says where it lies.
    pub(super) async fn save_bundle(self: &Arc<Self>) -> Result<String, ErrorBody> {
        let checks = self.doctor().await;
        let app = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            app.write("bundle", "zip", |out| {
                let jobs = {
                    let history = lock(&app.records.history);
                    let mut jobs = Vec::new();
                    export::jobs(history.since(0), ExportFormat::Csv, &mut jobs)?;
                    jobs
                };
                let parts = bundle::Parts {
                    dirs: &app.dirs,
                    settings: &app.settings,
                    checks: &checks,
                    jobs_csv: Some(jobs),
                };
                bundle::write(&parts, out)
            })
        });
        written
            .await
            .map_err(|_| internal("the bundle could not be written"))?
            .map_err(|error| internal(told_with_causes(&error)))
    }

    /// Writes a file of the person's folder whole or not at all.
    fn write(
        &self,
        what: &str,
        ending: &str,
        fill: impl FnOnce(&mut BufWriter<std::fs::File>) -> io::Result<()>,
    ) -> io::Result<String> {
        let folder = &self.dirs.exports;
        std::fs::create_dir_all(folder)?;
        let now = jiff::Zoned::now().strftime("%Y-%m-%d-%H%M%S").to_string();
        let path = folder.join(format!("neurino-{what}-{now}.{ending}"));
        write_whole(&path, fill)?;
        Ok(path.display().to_string())
    }
}

/// Writes a file under another name first.
pub(crate) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<std::fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let draft = path.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = BufWriter::new(options.open(&draft)?);
    let filled = fill(&mut out).and_then(|()| out.flush());
    drop(out);
    if let Err(error) = filled.and_then(|()| std::fs::rename(&draft, path)) {
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    Ok(())
}
