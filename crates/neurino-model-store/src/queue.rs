//! The downloads that a person asked for, in their order; they survive a restart.
//!
//! Here is only the list. Who works on it (one model at a time) asks [`DownloadQueue::next`].

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// One download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The model.
    pub model: ModelId,
    /// The person stopped it for the time being.
    #[serde(default)]
    pub paused: bool,
}

/// The list, and the file that keeps it.
#[derive(Debug)]
pub struct DownloadQueue {
    path: PathBuf,
    entries: Vec<Queued>,
    /// Failures of this run of the program: such a download waits for another try.
    failed: BTreeMap<ModelId, u32>,
}

impl DownloadQueue {
    /// Reads the list of `path`; a missing or damaged file is an empty list.
    pub fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let mut entries: Vec<Queued> = serde_json::from_slice(&bytes).unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        entries.retain(|entry| seen.insert(entry.model.clone()));
        Self { path: path.to_owned(), entries, failed: BTreeMap::new() }
    }

    /// The downloads, the next one first.
    pub fn entries(&self) -> &[Queued] {
        &self.entries
    }

    /// The first that is neither paused nor failed.
    pub fn next(&self) -> Option<&ModelId> {
        let ready = |entry: &&Queued| !entry.paused && !self.failed.contains_key(&entry.model);
        self.entries.iter().find(ready).map(|entry| &entry.model)
    }

    /// Adds a model at the end, or wakes it where it is.
    ///
    /// # Errors
    /// [`StoreError::Io`], here and below: the list in memory has changed all the same.
    pub fn add(&mut self, model: &ModelId) -> Result<(), StoreError> {
        self.failed.remove(model);
        match self.entries.iter_mut().find(|entry| entry.model == *model) {
            Some(entry) => entry.paused = false,
            None => self.entries.push(Queued { model: model.clone(), paused: false }),
        }
        self.save()
    }

    /// Pauses a download or lets it go on.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn pause(&mut self, model: &ModelId, paused: bool) -> Result<(), StoreError> {
        self.failed.remove(model);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.model == *model) {
            entry.paused = paused;
        }
        self.save()
    }

    /// Takes a download off the list.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&mut self, model: &ModelId) -> Result<(), StoreError> {
        self.failed.remove(model);
        self.entries.retain(|entry| entry.model != *model);
        self.save()
    }

    /// Moves a download to a place, 0 for the first; beyond the end is the end.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn place(&mut self, model: &ModelId, index: usize) -> Result<(), StoreError> {
        if let Some(at) = self.entries.iter().position(|entry| entry.model == *model) {
            let entry = self.entries.remove(at);
            self.entries.insert(index.min(self.entries.len()), entry);
        }
        self.save()
    }

    /// A download did not work; others go first. Returns how often that has happened.
    pub fn fail(&mut self, model: &ModelId) -> u32 {
        let count = self.failed.get(model).copied().unwrap_or(0) + 1;
        self.failed.insert(model.clone(), count);
        count
    }

    /// Whether a download waits for another try.
    pub fn has_failed(&self, model: &ModelId) -> bool {
        self.failed.contains_key(model)
    }

    /// A failed download may be tried again; how often it failed is kept until it works.
    pub fn retry_all(&mut self) {
        self.failed.clear();
    }

    fn save(&self) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("write", &self.path, error);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let bytes = serde_json::to_vec_pretty(&self.entries).map_err(|e| failed(e.into()))?;
        let mut next = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        next.write_all(&bytes).and_then(|()| next.as_file().sync_all()).map_err(failed)?;
        next.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// Hours of the day in which downloads may run, in minutes since local midnight; over midnight if the
/// begin is later than the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first minute in which they may run.
    pub from_minute: u16,
    /// The first minute in which they may not.
    pub until_minute: u16,
}

impl Window {
    /// Whether downloads may run in a minute of the day. From and until the same is the whole day.
    pub fn holds(&self, minute: u16) -> bool {
        let Self { from_minute, until_minute } = *self;
        match from_minute.cmp(&until_minute) {
            Ordering::Equal => true,
            Ordering::Less => (from_minute..until_minute).contains(&minute),
            Ordering::Greater => minute >= from_minute || minute < until_minute,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn id(name: &str) -> ModelId {
        ModelId::new(name).unwrap()
    }

    fn order(queue: &DownloadQueue) -> String {
        let name =
            |entry: &Queued| format!("{}{}", entry.model, if entry.paused { "!" } else { "" });
        queue.entries().iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_list_keeps_its_order_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.json");
        let mut queue = DownloadQueue::open(&path);
        for name in ["a", "b", "c", "b"] {
            queue.add(&id(name)).unwrap();
        }
        queue.place(&id("c"), 0).unwrap();
        queue.place(&id("a"), 99).unwrap();
        queue.place(&id("absent"), 0).unwrap();
        queue.pause(&id("c"), true).unwrap();
        assert_eq!(order(&queue), "c! b a");
        assert_eq!(queue.next(), Some(&id("b")));
        assert_eq!((queue.fail(&id("b")), queue.next()), (1, Some(&id("a"))));
        queue.remove(&id("a")).unwrap();
        assert_eq!(queue.next(), None);

        let mut queue = DownloadQueue::open(&path);
        assert_eq!((order(&queue).as_str(), queue.next()), ("c! b", Some(&id("b"))));
        queue.add(&id("c")).unwrap();
        assert_eq!(queue.next(), Some(&id("c")));
        for damage in ["", "{", "[3]", "[{\"model\": \"a b\"}]"] {
            fs::write(&path, damage).unwrap();
            assert!(DownloadQueue::open(&path).entries().is_empty(), "{damage}");
        }
    }

    #[test]
    fn windows_hold_over_midnight() {
        let night = Window { from_minute: 22 * 60, until_minute: 7 * 60 };
        let minutes = [0, 419, 420, 1319, 1320, 1439];
        assert_eq!(minutes.map(|m| night.holds(m)), [true, true, false, false, true, true]);
        let day = Window { from_minute: 420, until_minute: 1320 };
        assert_eq!(minutes.map(|m| day.holds(m)), [false, false, true, true, false, false]);
        assert!(Window { from_minute: 5, until_minute: 5 }.holds(900));
    }
}
