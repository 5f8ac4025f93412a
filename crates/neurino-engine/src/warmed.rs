//! What cards were warmed up for, kept beside what was tuned for them: a later start of the same build, on
//! the same cards with the same driver, need not do it again.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was warmed up, each by a mark: one line of plain text. Copies share it.
#[derive(Debug, Clone, Default)]
pub struct Warmed(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Where marks are kept for the next start; nowhere if `None`.
    file: Option<PathBuf>,
    marks: Mutex<HashSet<String>>,
}

impl Warmed {
    /// What `file` holds, and what will be added to it. Without `tunings`, the file of what was found out,
    /// it tells of what is lost, and begins anew.
    ///
    /// # Errors
    /// Those of the file system; no file at all is none.
    pub(crate) fn kept_in(file: PathBuf, tunings: &Path) -> io::Result<Self> {
        if !tunings.exists() && file.exists() {
            fs::remove_file(&file)?;
        }
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // A program that was killed may have left half a line, which is the mark of nothing.
        if !text.is_empty() && !text.ends_with('\n') {
            OpenOptions::new().append(true).open(&file)?.write_all(b"\n")?;
        }
        let marks = Mutex::new(text.lines().map(str::to_owned).collect());
        Ok(Self(Arc::new(Inner { file: Some(file), marks })))
    }

    /// Whether that was warmed up, now or by an earlier start.
    pub(crate) fn has(&self, mark: &str) -> bool {
        self.marks().contains(mark)
    }

    /// Marks something as warmed up. What cannot be written is known to this process alone.
    ///
    /// - `mark`: without line breaks
    pub(crate) fn add(&self, mark: &str) {
        if !self.marks().insert(mark.to_owned()) {
            return;
        }
        let Some(file) = &self.0.file else { return };
        // One write, so that engines that share a file do not mix their lines.
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let written = opened.and_then(|mut file| file.write_all(format!("{mark}\n").as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, "the next start will warm up again what this one did");
        }
    }

    fn marks(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an engine warms models up.
#[derive(Debug, Clone, Default)]
pub struct Warming {
    /// What was warmed up before.
    pub warmed: Warmed,
    /// Whether all that is usual is warmed up while a model is loaded, however long that takes, rather than
    /// what there is time for.
    pub all: bool,
}

/// FNV-1a of 64 bits, which is the same in every build: what tells the models of marks apart.
pub(crate) fn fingerprint(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn marks_last_as_long_as_the_tunings_they_tell_of() {
        let folder = tempfile::tempdir().unwrap();
        let (file, tunings) = (folder.path().join("card.warm"), folder.path().join("card.db"));
        let open = || Warmed::kept_in(file.clone(), &tunings).unwrap();
        let first = open();
        assert!(!first.has("a b"));
        first.add("a b");
        first.add("a b");
        first.clone().add("c");
        assert!(first.has("a b") && first.has("c") && !first.has("a"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "a b\nc\n");

        fs::write(&tunings, "x").unwrap();
        assert!(open().has("a b") && open().has("c"));
        // Half a line is no mark, and does not spoil the next.
        fs::write(&file, "a b\nc").unwrap();
        let again = open();
        again.add("d");
        assert!(open().has("a b") && open().has("d"));

        fs::remove_file(&tunings).unwrap();
        assert!(!open().has("a b"));
        assert!(!file.exists());
    }

    #[test]
    fn without_a_file_marks_are_of_this_process() {
        let warmed = Warmed::default();
        warmed.add("a");
        assert!(warmed.clone().has("a") && !Warmed::default().has("a"));
    }
}
