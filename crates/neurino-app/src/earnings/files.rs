//! Files for the person: exports, logs, and the bundle for whoever helps.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
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
                let done = export::receipts(&[&self.receipts], since_ms, format, out);
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

/// Why a file is not written where somebody asked for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAFile {
    /// A folder, a device or the like.
    #[error("{} is there and is no ordinary file; name another one", .0.display())]
    Other(PathBuf),
    /// A link to nothing.
    #[error("{} is a link that leads nowhere; name another file", .0.display())]
    Dangling(PathBuf),
}

/// Where a file asked for at `path` really lies: a link to a file is followed, so that it stays a link.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let refused = |why: NotAFile| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => refused(NotAFile::Other(path.to_owned())),
        Ok(_) => std::fs::canonicalize(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return refused(NotAFile::Dangling(path.to_owned()));
            }
            Ok(path.to_owned())
        }
        Err(error) => Err(error),
    }
}

/// Writes a file under another name first, which is nobody else's. An ordinary file that is there is
/// replaced; anything else is left alone.
///
/// # Errors
/// Those of the file; [`NotAFile`] as `InvalidInput`.
pub(crate) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<std::fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let path = behind_links(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // Made anew with mode 0600 on Unix, and removed when dropped.
    let draft = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
    let (file, draft) = draft.into_parts();
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    out.flush()?;
    drop(out);
    draft.persist(&path).map_err(|error| error.error)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) -> io::Result<()> {
        write_whole(path, |out| out.write_all(text.as_bytes()))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_beside_the_one_asked_for_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (asked, beside) = (folder.path().join("report.zip"), folder.path().join("report.part"));
        std::fs::write(&beside, "mine").unwrap();
        write(&asked, "new").unwrap();
        write(&asked, "newer").unwrap();
        assert_eq!(std::fs::read_to_string(&beside).unwrap(), "mine");
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "newer");
        let failed = write_whole(&asked, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("full"))
        });
        failed.unwrap_err();
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "newer");
        assert_eq!(names(folder.path()), ["report.part", "report.zip"]);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("report.zip");
        std::fs::create_dir(&inner).unwrap();
        let error = write(&inner, "new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(inner.is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_file_stays_a_link_and_one_to_nothing_is_refused() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        write(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");

        let nowhere = folder.path().join("nowhere");
        symlink(folder.path().join("none"), &nowhere).unwrap();
        let error = write(&nowhere, "new").unwrap_err();
        assert!(error.to_string().contains("leads nowhere"), "{error}");
        assert!(nowhere.is_symlink());

        let device = folder.path().join("device");
        symlink("/dev/null", &device).unwrap();
        write(&device, "new").unwrap_err();
        assert!(device.is_symlink());
    }
}
