//! The diagnostic bundle: one file for whoever helps, without secrets, addresses or names.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use neurino_config::{Dirs, Settings};
use neurino_earnings::Recorder;
use neurino_protocol::app::{Check, CheckStatus};
use neurino_protocol::earnings::{LogFilter, LogLevel, TelemetrySpan};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::earnings::write_whole;
use crate::{logs, now_ms};

/// Log lines of a bundle.
const LINES_MAX: usize = 20_000;

/// What a bundle is made from.
pub(crate) struct Parts<'a> {
    pub(crate) dirs: &'a Dirs,
    pub(crate) settings: &'a Settings,
    pub(crate) checks: &'a [Check],
    /// The job history; without a running program none is read.
    pub(crate) jobs_csv: Option<Vec<u8>>,
}

/// Writes a bundle to a file, for a program without a window.
///
/// # Errors
/// Those of the file.
pub fn write_bundle(
    dirs: &Dirs,
    settings: &Settings,
    checks: &[Check],
    path: &Path,
) -> io::Result<()> {
    let parts = Parts { dirs, settings, checks, jobs_csv: None };
    write_whole(path, |out| write(&parts, out))
}

/// Writes the parts as a zip file.
pub(crate) fn write(parts: &Parts<'_>, out: &mut (impl Write + io::Seek)) -> io::Result<()> {
    let mut zip = ZipWriter::new(out);
    let home = logs::home();
    let clean = |text: &str| logs::redacted(text, home.as_deref());
    let mut add = |name: &str, text: &str| -> io::Result<()> {
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(text.as_bytes())
    };
    add("program.txt", &program())?;
    add("checks.txt", &clean(&checks(parts.checks)))?;
    add("settings.json", &clean(&serde_json::to_string_pretty(parts.settings)?))?;
    let filter = LogFilter { text: String::new(), level: LogLevel::Trace, day: None };
    let mut lines = logs::read(&parts.dirs.logs, &filter, LINES_MAX).lines;
    lines.reverse();
    let log: String = lines.iter().map(|line| logs::told(line) + "\n").collect();
    add("log.txt", &log)?;
    if let Some(jobs) = &parts.jobs_csv {
        add("jobs.csv", &clean(&String::from_utf8_lossy(jobs)))?;
    }
    add("sensors.csv", &sensors(parts.dirs))?;
    zip.finish()?;
    Ok(())
}

fn program() -> String {
    let (version, os, arch) =
        (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    format!("neurino {version}\n{os} {arch}\n{}\n", jiff::Timestamp::now())
}

fn checks(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let word = match check.status {
            CheckStatus::Ok => "ok  ",
            CheckStatus::Warn => "note",
            CheckStatus::Fail => "FAIL",
        };
        let fix = check.fix.as_ref().map_or_else(String::new, |fix| format!("\n      -> {fix}"));
        format!("{word}  {}: {}{fix}\n", check.name, check.finding)
    };
    checks.iter().map(line).collect()
}

/// The flight recorder's last ten minutes and the day before them.
fn sensors(dirs: &Dirs) -> String {
    let mut text =
        String::from("at,temperature_c,power_w,memory_used_bytes,load_percent,tokens_per_s\n");
    // It may be in use by this very program; a second reader does no harm.
    let path = dirs.data.join("machine").join("recorder.bin");
    if !path.is_file() {
        return text;
    }
    let Ok(recorder) = Recorder::open(&path) else { return text };
    let now = now_ms();
    for span in [TelemetrySpan::Day, TelemetrySpan::TenMinutes] {
        for p in recorder.span(span, now) {
            let number = |n: Option<f32>| n.map_or_else(String::new, |n| format!("{n:.1}"));
            let memory = p.memory_used_bytes.map_or_else(String::new, |n| n.to_string());
            let at = jiff::Timestamp::from_millisecond(p.at_ms).unwrap_or_default();
            // Writing to a text cannot fail.
            let _ = writeln!(
                text,
                "{at},{},{},{memory},{},{:.2}",
                number(p.temperature_c),
                number(p.power_w),
                number(p.load_percent),
                p.tokens_per_s,
            );
        }
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::{Cursor, Read as _};

    use super::*;

    #[test]
    fn a_bundle_names_nobody() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let address = "0x1f9a3c5be27d480f6a1b92c3d4e5f60718293a4b";
        let log = format!("2026-11-22T10:00:00.000001Z  INFO neurino_app: hello {address}\n");
        std::fs::write(dirs.logs.join("neurino.2026-11-22.log"), log).unwrap();
        let found = Check {
            name: "Key store".into(),
            status: CheckStatus::Ok,
            finding: format!("the key of {address}"),
            fix: None,
        };
        let parts = Parts {
            dirs: &dirs,
            settings: &Settings::default(),
            checks: &[found],
            jobs_csv: Some(format!("job,{address}\n").into_bytes()),
        };
        let mut out = Cursor::new(Vec::new());
        write(&parts, &mut out).unwrap();
        let mut zip = zip::ZipArchive::new(out).unwrap();
        assert_eq!(zip.len(), 6);
        for n in 0..zip.len() {
            let mut text = String::new();
            zip.by_index(n).unwrap().read_to_string(&mut text).unwrap();
            assert!(!text.contains(&address[..12]), "{text}");
        }
        let mut log = String::new();
        zip.by_name("log.txt").unwrap().read_to_string(&mut log).unwrap();
        assert!(log.contains("hello 0x1f9a…"), "{log}");
    }
}
