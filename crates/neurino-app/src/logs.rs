//! The log as people read it: lines of the daily files, filtered, newest first, redacted.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use neurino_protocol::earnings::{LogFilter, LogLevel, LogLine, LogPage};

/// What is read of one day at most, from its end, in bytes.
const DAY_BYTES_MAX: u64 = 8 << 20;
/// Longest line that is shown, in characters.
const LINE_CHARS_MAX: usize = 2_000;

/// Reads the lines that match, newest first.
pub(crate) fn read(folder: &Path, filter: &LogFilter, limit: usize) -> LogPage {
    let files = files(folder);
    let mut page =
        LogPage { days: files.iter().map(|(day, _)| day.clone()).collect(), ..LogPage::default() };
    let text = filter.text.trim().to_lowercase();
    let home = home();
    for (day, path) in &files {
        if filter.day.as_ref().is_some_and(|wanted| wanted != day) {
            continue;
        }
        for mut line in parse(&end_of(path)).into_iter().rev() {
            if line.level < filter.level {
                continue;
            }
            line.text = redacted(&line.text, home.as_deref());
            let found = text.is_empty()
                || line.text.to_lowercase().contains(&text)
                || line.part.to_lowercase().contains(&text);
            if !found {
                continue;
            }
            if page.lines.len() >= limit {
                page.more = true;
                return page;
            }
            page.lines.push(line);
        }
    }
    page
}

/// A line as it stands in a file for others.
pub(crate) fn told(line: &LogLine) -> String {
    let at = Timestamp::from_millisecond(line.at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3} {:>5} {}: {}", word(line.level), line.part, line.text)
}

/// The daily files, newest first, with their day.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut files: Vec<(String, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let day = name.strip_prefix("neurino.")?.strip_suffix(".log")?.to_owned();
            Some((day, entry.path()))
        })
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    files
}

fn end_of(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(DAY_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(DAY_BYTES_MAX).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    // A day that cannot be read has no lines; the others are worth showing.
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// `2026-11-22T10:00:00.123456Z  INFO neurino_miner::work: took a job job.id=…`; what does not begin
/// so belongs to the line before.
fn parse(text: &str) -> Vec<LogLine> {
    let mut lines: Vec<LogLine> = Vec::new();
    for raw in text.lines() {
        match begin(raw) {
            Some(line) => lines.push(line),
            None => {
                if let Some(last) = lines.last_mut() {
                    last.text.push(' ');
                    last.text.push_str(raw.trim());
                }
            }
        }
    }
    for line in &mut lines {
        if let Some((cut, _)) = line.text.char_indices().nth(LINE_CHARS_MAX) {
            line.text.truncate(cut);
            line.text.push('…');
        }
    }
    lines
}

fn begin(raw: &str) -> Option<LogLine> {
    let (at, rest) = raw.split_once(' ')?;
    let at_ms = at.parse::<Timestamp>().ok()?.as_millisecond();
    let (level, rest) = rest.trim_start().split_once(' ')?;
    let level = match level {
        "TRACE" => LogLevel::Trace,
        "DEBUG" => LogLevel::Debug,
        "INFO" => LogLevel::Info,
        "WARN" => LogLevel::Warn,
        "ERROR" => LogLevel::Error,
        _ => return None,
    };
    // Spans stand before the part: `rpc:dispatch: neurino_app: words`.
    let (part, text) = rest.split_once(": ").unwrap_or(("", rest));
    Some(LogLine { at_ms, level, part: part.to_owned(), text: text.to_owned() })
}

fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "TRACE",
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARN",
        LogLevel::Error => "ERROR",
    }
}

/// The person's home folder, whose path tells their name.
pub(crate) fn home() -> Option<String> {
    let home = std::env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" })?;
    home.into_string().ok().filter(|home| home.len() > 1)
}

/// A text without what tells who somebody is: of addresses, keys and digests the first characters
/// stay, a home folder becomes `~`.
pub(crate) fn redacted(text: &str, home: Option<&str>) -> String {
    let text = match home {
        Some(home) => text.replace(home, "~"),
        None => text.to_owned(),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(from) = rest.find(is_word) {
        let (before, word) = rest.split_at(from);
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        out.push_str(before);
        out.push_str(&shortened(&word[..end]));
        rest = &word[end..];
    }
    out.push_str(rest);
    out
}

fn shortened(word: &str) -> String {
    let hex = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    if word.starts_with("nrn-") {
        return "nrn-…".into();
    }
    match word.strip_prefix("0x") {
        Some(digits) if hex(digits) >= 16 => format!("0x{}…", &digits[..4]),
        None if hex(word) == word.len() && word.len() >= 32 => format!("{}…", &word[..8]),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-22T10:00:00.000001Z  INFO neurino_app: mining for practice\n\
        2026-11-22T10:00:01.500000Z DEBUG neurino_miner::work: took a job job.id=019ab\n\
        2026-11-22T10:00:02.000000Z  WARN neurino_miner::run: the session ended: lost\n\
        caused by: the line\n\
        garbage that is cut\n\
        2026-11-22T10:00:03.000000Z ERROR neurino_app: 0x1f9a3c5be27d480f6a1b92c3d4e5f60718293a4b-desk in /home/ada/x\n";

    fn any(level: LogLevel, text: &str) -> LogFilter {
        LogFilter { text: text.into(), level, day: None }
    }

    #[test]
    fn lines_are_found_by_level_text_and_day() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("neurino.2026-11-22.log"), LOG).unwrap();
        let older = LOG.replace("11-22", "11-21");
        std::fs::write(folder.path().join("neurino.2026-11-21.log"), older).unwrap();
        std::fs::write(folder.path().join("other.txt"), "x").unwrap();
        let all = read(folder.path(), &any(LogLevel::Trace, ""), 99);
        assert_eq!((all.lines.len(), all.more), (8, false));
        assert_eq!(all.days, ["2026-11-22", "2026-11-21"]);
        assert!(all.lines[0].at_ms > all.lines[7].at_ms, "newest first");
        assert_eq!(
            all.lines[1].text,
            "the session ended: lost caused by: the line garbage that is cut"
        );
        let warn = read(folder.path(), &any(LogLevel::Warn, ""), 3);
        assert_eq!((warn.lines.len(), warn.more), (3, true));
        let found = read(folder.path(), &any(LogLevel::Trace, "TOOK"), 9);
        assert_eq!(found.lines.len(), 2);
        assert_eq!(found.lines[0].part, "neurino_miner::work");
        let day = LogFilter { day: Some("2026-11-21".into()), ..any(LogLevel::Trace, "") };
        assert_eq!(read(folder.path(), &day, 99).lines.len(), 4);
        assert_eq!(read(&folder.path().join("none"), &day, 99), LogPage::default());
    }

    #[test]
    fn nobody_is_named() {
        let address = "0x1f9a3c5be27d480f6a1b92c3d4e5f60718293a4b";
        let key = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text =
            format!("node {address}-desk, key {key}, nrn-abc_DEF-1 in /home/ada/models, 0x12 ok");
        assert_eq!(
            redacted(&text, Some("/home/ada")),
            "node 0x1f9a…, key 9f86d081…, nrn-… in ~/models, 0x12 ok"
        );
        // A job's id stays: it is how people talk about a job.
        let id = "01935000-0000-7000-8000-000000000001";
        assert_eq!(redacted(id, None), id);
    }
}
