//! How long this machine mined, and what energy that took.
//!
//! Each sample adds a stretch of time with its watts. The file holds one record a minute of mining,
//! each with its checksum; records add up, so one that a crash cuts off costs its minute and nothing
//! else. In memory are quarters of an hour, which every time zone's days are made of, and the minutes
//! of the last hour.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use neurino_protocol::earnings::Energy;

use crate::append::Appended;
use crate::error::{RecordError, open_private, replace};

const MINUTE_MS: i64 = 60_000;
const QUARTER_MS: i64 = 15 * MINUTE_MS;
const RECORD_BYTES: usize = 36;
/// A file beyond this is written anew with one record a quarter.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A longer stretch between two samples is a machine that slept, not one that mined.
const STRETCH_MS_MAX: u64 = 30_000;

/// What a stretch of time took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metered {
    /// Time mined, in milliseconds.
    pub mined_ms: u64,
    /// Energy while mining.
    pub energy: Energy,
}

impl Metered {
    fn add(&mut self, other: Self) {
        self.mined_ms += other.mined_ms;
        self.energy.used_mj += other.energy.used_mj;
        self.energy.estimated_mj += other.energy.estimated_mj;
    }
}

/// The watts of a stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Watts {
    /// A sensor told them.
    Measured(f32),
    /// They were worked out.
    Estimated(f32),
}

/// The record of mining time and energy.
#[derive(Debug, Default)]
pub struct Meter {
    path: PathBuf,
    /// Absent in a record of nothing.
    file: Option<Appended>,
    quarters: BTreeMap<i64, Metered>,
    minutes: BTreeMap<i64, Metered>,
    /// The minute that runs and what of it is not in the file yet.
    running: (i64, Metered),
    /// What the drive did not take yet, by the time it counts for.
    unwritten: BTreeMap<i64, Metered>,
}

impl Meter {
    /// Opens the record, making it where it is missing.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let mut file = open_private(path)?;
        let length = file.metadata().map_err(RecordError::io("read", path))?.len();
        let whole = length - length % RECORD_BYTES as u64;
        file.set_len(whole).map_err(RecordError::io("write", path))?;
        file.seek(SeekFrom::Start(0)).map_err(RecordError::io("read", path))?;
        let mut meter = Self::with(path, file)?;
        if length > FILE_BYTES_MAX {
            meter.condense()?;
        }
        Ok(meter)
    }

    /// Opens the record for reading alone, beside a program that may be writing it.
    ///
    /// # Errors
    /// [`RecordError::Io`], also where there is none.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let file = File::open(path).map_err(RecordError::io("open", path))?;
        Self::with(path, file)
    }

    /// A record of nothing, which keeps nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads everything; the file then stands at its end.
    fn with(path: &Path, mut file: File) -> Result<Self, RecordError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(RecordError::io("read", path))?;
        let file = Appended::new(file).map_err(RecordError::io("read", path))?;
        let mut meter = Self::none();
        path.clone_into(&mut meter.path);
        meter.file = Some(file);
        for record in bytes.chunks_exact(RECORD_BYTES) {
            if let Some((at_ms, metered)) = decode(record) {
                meter.note(at_ms, metered);
            }
        }
        Ok(meter)
    }

    /// Adds a stretch that ended at `at_ms` and was mined from its beginning.
    ///
    /// # Errors
    /// [`RecordError::Io`] when a full minute cannot be written; memory has it all the same.
    pub fn add(&mut self, at_ms: i64, stretch_ms: u64, watts: Watts) -> Result<(), RecordError> {
        let stretch_ms = stretch_ms.min(STRETCH_MS_MAX);
        let (watts, estimated) = match watts {
            Watts::Measured(w) => (w, false),
            Watts::Estimated(w) => (w, true),
        };
        // Watts times milliseconds are millijoules.
        let used_mj = (f64::from(watts.clamp(0.0, 100_000.0)) * stretch_ms as f64).round() as u64;
        let estimated_mj = if estimated { used_mj } else { 0 };
        let metered = Metered { mined_ms: stretch_ms, energy: Energy { used_mj, estimated_mj } };
        let minute = at_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        let written = if minute == self.running.0 { Ok(()) } else { self.flush() };
        self.running.0 = minute;
        self.running.1.add(metered);
        self.note(minute, metered);
        written
    }

    /// Writes what the running minute holds. Call it when mining ends.
    ///
    /// # Errors
    /// [`RecordError::Io`]; it is kept for the next time.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        let (minute, metered) = (self.running.0, std::mem::take(&mut self.running.1));
        let Some(file) = &mut self.file else { return Ok(()) };
        if metered != Metered::default() {
            self.unwritten.entry(minute).or_default().add(metered);
        }
        while let Some((at_ms, metered)) = self.unwritten.pop_first() {
            if let Err(error) = file.append(&encode(at_ms, metered)) {
                self.unwritten.insert(at_ms, metered);
                self.keep_by_quarters();
                return Err(RecordError::io("write", &self.path)(error));
            }
        }
        Ok(())
    }

    /// A drive may be full for days: what waits for it is kept no finer than needed.
    fn keep_by_quarters(&mut self) {
        for (at_ms, metered) in std::mem::take(&mut self.unwritten) {
            self.unwritten.entry(quarter_of(at_ms)).or_default().add(metered);
        }
    }

    /// Mining from one quarter of an hour on and before another; other times count as the beginning
    /// of their quarter at the front, and with their whole quarter at the end.
    pub fn between(&self, from_ms: i64, until_ms: i64) -> Metered {
        let from = from_ms.max(0) / QUARTER_MS * QUARTER_MS;
        sum(self.quarters.range(from..until_ms.max(from)))
    }

    /// The quarters of an hour of [`Meter::between`]: when each began, in milliseconds since the Unix
    /// epoch, and its energy in millijoules.
    pub fn spent(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = (i64, u64)> {
        let from = from_ms.max(0) / QUARTER_MS * QUARTER_MS;
        let quarters = self.quarters.range(from..until_ms.max(from));
        quarters.map(|(at_ms, metered)| (*at_ms, metered.energy.used_mj))
    }

    /// Mining since a time within the last hour, to the minute.
    pub fn recent(&self, since_ms: i64) -> Metered {
        let from = since_ms.max(0) / MINUTE_MS * MINUTE_MS;
        sum(self.minutes.range(from..))
    }

    /// The first time of the record.
    pub fn since_ms(&self) -> Option<i64> {
        self.quarters.first_key_value().map(|(at, _)| *at)
    }

    fn note(&mut self, at_ms: i64, metered: Metered) {
        self.quarters.entry(quarter_of(at_ms)).or_default().add(metered);
        self.minutes.entry(at_ms).or_default().add(metered);
        let oldest = at_ms - 4 * QUARTER_MS;
        while self.minutes.first_key_value().is_some_and(|(minute, _)| *minute < oldest) {
            self.minutes.pop_first();
        }
    }

    fn condense(&mut self) -> Result<(), RecordError> {
        let mut bytes = Vec::with_capacity(self.quarters.len() * RECORD_BYTES);
        for (at_ms, metered) in &self.quarters {
            bytes.extend_from_slice(&encode(*at_ms, *metered));
        }
        replace(&self.path, &bytes)?;
        let file = Appended::new(open_private(&self.path)?);
        self.file = Some(file.map_err(RecordError::io("write", &self.path))?);
        Ok(())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the last minute of the meter is lost: {error}");
        }
    }
}

fn quarter_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(QUARTER_MS) * QUARTER_MS
}

fn sum<'a>(slots: impl Iterator<Item = (&'a i64, &'a Metered)>) -> Metered {
    let mut sum = Metered::default();
    slots.for_each(|(_, metered)| sum.add(*metered));
    sum
}

fn encode(at_ms: i64, m: Metered) -> [u8; RECORD_BYTES] {
    let mut out = [0; RECORD_BYTES];
    out[..8].copy_from_slice(&at_ms.to_le_bytes());
    out[8..16].copy_from_slice(&m.mined_ms.to_le_bytes());
    out[16..24].copy_from_slice(&m.energy.used_mj.to_le_bytes());
    out[24..32].copy_from_slice(&m.energy.estimated_mj.to_le_bytes());
    let crc = crc32fast::hash(&out[..32]);
    out[32..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<(i64, Metered)> {
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let crc = u32::from_le_bytes(bytes.get(32..36)?.try_into().ok()?);
    if crc32fast::hash(&bytes[..32]) != crc {
        return None;
    }
    let energy = Energy { used_mj: word(16)?, estimated_mj: word(24)? };
    Some((word(0)? as i64, Metered { mined_ms: word(8)?, energy }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const START: i64 = 1_795_000_000_000 / QUARTER_MS * QUARTER_MS;

    fn mine(meter: &mut Meter, from_ms: i64, seconds: i64, watts: Watts) {
        for n in 0..seconds / 2 {
            meter.add(from_ms + n * 2000, 2000, watts).unwrap();
        }
    }

    #[test]
    fn an_hour_at_300_watts_is_300_watt_hours_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meter.bin");
        let mut meter = Meter::open(&path).unwrap();
        mine(&mut meter, START, 3600, Watts::Measured(300.0));
        mine(&mut meter, START + 4 * QUARTER_MS, 60, Watts::Estimated(50.0));
        let hour = meter.between(START, START + 4 * QUARTER_MS);
        assert_eq!(hour.mined_ms, 3_600_000);
        assert_eq!(hour.energy, Energy { used_mj: 300 * 3_600_000, estimated_mj: 0 });
        let all = meter.between(0, i64::MAX);
        assert_eq!(all.energy.estimated_mj, 50 * 60_000);
        drop(meter);
        let again = Meter::open(&path).unwrap();
        assert_eq!(again.between(0, i64::MAX), all);
        assert_eq!(again.since_ms(), Some(START));
    }

    #[test]
    fn what_a_full_drive_did_not_take_is_written_later_and_nothing_behind_it_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meter.bin");
        let mut meter = Meter::open(&path).unwrap();
        mine(&mut meter, START, 120, Watts::Measured(300.0));
        meter.flush().unwrap();
        // A record was cut off, and the drive is full for a while.
        let file = meter.file.as_mut().unwrap();
        file.tear(&[7; 20]);
        let writable = file.exchange(File::open(&path).unwrap());
        for minute in 2..40 {
            let at_ms = START + minute * MINUTE_MS;
            let _ = meter.add(at_ms, 2000, Watts::Measured(300.0));
        }
        assert!(meter.flush().is_err());
        assert!(meter.unwritten.len() <= 3, "{:?}", meter.unwritten);
        meter.file.as_mut().unwrap().exchange(writable);
        mine(&mut meter, START + 4 * QUARTER_MS, 120, Watts::Measured(300.0));
        let all = meter.between(0, i64::MAX);
        assert_eq!(all.mined_ms, 120_000 + 38 * 2000 + 120_000);
        let quarters = meter.quarters.clone();
        drop(meter);
        let again = Meter::open(&path).unwrap();
        assert_eq!(again.quarters, quarters);
        assert_eq!(again.between(0, i64::MAX), all);
    }

    #[test]
    fn a_machine_that_slept_did_not_mine() {
        let dir = tempfile::tempdir().unwrap();
        let mut meter = Meter::open(&dir.path().join("meter.bin")).unwrap();
        meter.add(START, 8 * 3_600_000, Watts::Measured(100.0)).unwrap();
        assert_eq!(meter.between(0, i64::MAX).mined_ms, STRETCH_MS_MAX);
    }

    #[test]
    fn the_last_minutes_are_precise() {
        let dir = tempfile::tempdir().unwrap();
        let mut meter = Meter::open(&dir.path().join("meter.bin")).unwrap();
        mine(&mut meter, START, 1200, Watts::Measured(100.0));
        assert_eq!(meter.recent(START + 5 * MINUTE_MS + 1).mined_ms, 15 * 60_000);
        assert_eq!(meter.between(START + QUARTER_MS, i64::MAX).mined_ms, 5 * 60_000);
    }

    #[test]
    fn damage_costs_its_own_minute() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meter.bin");
        let mut meter = Meter::open(&path).unwrap();
        mine(&mut meter, START, 600, Watts::Measured(100.0));
        drop(meter);
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 10 * RECORD_BYTES);
        bytes[RECORD_BYTES * 3 + 9] ^= 1;
        bytes.truncate(bytes.len() - 5);
        std::fs::write(&path, &bytes).unwrap();
        let mut meter = Meter::open(&path).unwrap();
        assert_eq!(meter.between(0, i64::MAX).mined_ms, 8 * 60_000);
        mine(&mut meter, START + QUARTER_MS, 60, Watts::Measured(100.0));
        drop(meter);
        assert_eq!(Meter::open(&path).unwrap().between(0, i64::MAX).mined_ms, 9 * 60_000);
    }

    #[test]
    fn a_long_record_is_condensed_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meter.bin");
        let one = Metered { mined_ms: 60_000, energy: Energy { used_mj: 7, estimated_mj: 1 } };
        let records = FILE_BYTES_MAX as i64 / RECORD_BYTES as i64 + 2;
        let bytes: Vec<u8> =
            (0..records).flat_map(|n| encode(START + n * MINUTE_MS, one)).collect();
        std::fs::write(&path, bytes).unwrap();
        let meter = Meter::open(&path).unwrap();
        assert_eq!(meter.between(0, i64::MAX).mined_ms, records as u64 * 60_000);
        drop(meter);
        assert!(std::fs::metadata(&path).unwrap().len() < FILE_BYTES_MAX / 10);
        let again = Meter::open(&path).unwrap();
        assert_eq!(again.between(0, i64::MAX).energy.used_mj, records as u64 * 7);
    }
}
