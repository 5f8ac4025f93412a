//! Single lines of `settings.toml` that the window changes; the rest stays as the person wrote it.

use std::io;

use crate::atomic;
use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::settings::Settings;

/// A text as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Settings {
    /// Writes lines of a section, comments elsewhere included, unless the section is written in a way
    /// that takes a rewrite of the file. Each line comes with the ways in which its key may be written;
    /// without a line the key goes.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Write`]; then the file is what it was.
    pub(crate) fn save_lines(
        &self,
        dirs: &Dirs,
        section: &str,
        lines: &[(&[String], Option<String>)],
    ) -> Result<(), ConfigError> {
        let path = Self::path(dirs);
        let mut text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::read(path, source)),
        };
        for (names, line) in lines {
            text = with_line(&text, section, names, line.clone());
        }
        // Only what reads back as it is meant is written.
        if toml::from_str::<Self>(&text).is_ok_and(|read| read == *self) {
            let written = atomic::write(&path, text.as_bytes());
            return written.map_err(|source| ConfigError::Write { path, source });
        }
        self.save(dirs)
    }
}

/// The file's text with this line for a key, or without one.
fn with_line(text: &str, section: &str, names: &[String], line: Option<String>) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let header = lines.iter().position(|line| line.trim() == section);
    let Some(header) = header else {
        if let Some(line) = line {
            lines.extend([String::new(), section.to_owned(), line]);
        }
        return lines.join("\n") + "\n";
    };
    let rest = lines[header + 1..].iter();
    let end = rest.clone().position(|line| line.trim_start().starts_with('['));
    let end = end.map_or(lines.len(), |end| header + 1 + end);
    let is_named = |line: &String| {
        let key = line.split('=').next().unwrap_or_default().trim();
        names.iter().any(|name| name == key)
    };
    let old = lines[header + 1..end].iter().position(is_named).map(|index| header + 1 + index);
    match (old, line) {
        (Some(old), Some(line)) => lines[old] = line,
        (Some(old), None) => drop(lines.remove(old)),
        (None, Some(line)) => lines.insert(header + 1, line),
        (None, None) => {}
    }
    lines.join("\n") + "\n"
}
