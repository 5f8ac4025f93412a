//! The miner's own record of what it was paid: receipts, one JSON line each, only ever appended.
//!
//! The file is the truth; in memory is an index of some forty bytes a receipt. A receipt is on disk
//! (fsync) before [`ReceiptLog::append`] returns. A last line that a crash cut short was never
//! acknowledged and is cut off at the next open; a line damaged otherwise is skipped and kept.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use neurino_core::{EventId, MicroPoints, PointsKind, Receipt};

use crate::error::MinerError;

/// Longest line that is read as a receipt, in bytes; real ones have about a thousand.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Receipts of one identity on one network.
#[derive(Debug)]
pub struct ReceiptLog {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    end: u64,
    /// By time of settlement.
    index: Vec<Entry>,
    events: HashSet<EventId>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    settled_at_ms: i64,
    offset: u64,
    length: u32,
    points: PointsKind,
    amount_micro: MicroPoints,
}

/// Sums over receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiptTotals {
    /// Llama points, in micro-points.
    pub llama_micro: MicroPoints,
    /// Waifu points, in micro-points.
    pub waifu_micro: MicroPoints,
    /// Jobs paid.
    pub jobs: u32,
}

impl ReceiptLog {
    /// Opens the log, making the file and its folder where they are missing.
    ///
    /// # Errors
    /// [`MinerError::Io`].
    pub fn open(path: &Path) -> Result<Self, MinerError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(MinerError::io("make the folder", folder))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(MinerError::io("open", path))?;
        let mut inner = Inner { file, end: 0, index: Vec::new(), events: HashSet::new() };
        inner.load(path).map_err(MinerError::io("read", path))?;
        Ok(Self { path: path.to_owned(), inner: Mutex::new(inner) })
    }

    /// Appends a receipt, unless one of the same ledger event is there; `true` if it was new.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// [`MinerError::Io`]; the log is then as before.
    pub fn append(&self, receipt: &Receipt) -> Result<bool, MinerError> {
        let mut line = serde_json::to_vec(receipt).expect("strings and integers always serialise");
        line.push(b'\n');
        let mut inner = self.lock();
        if inner.events.contains(&receipt.event) {
            return Ok(false);
        }
        let offset = inner.end;
        let written = inner.write_at_end(&line);
        if let Err(source) = written {
            // A half-written line must not swallow the next one.
            let _ = inner.file.set_len(offset);
            return Err(MinerError::io("write", &self.path)(source));
        }
        inner.end += line.len() as u64;
        inner.insert(receipt, offset, line.len());
        Ok(true)
    }

    /// Whether a receipt of this ledger event is there.
    pub fn contains(&self, event: EventId) -> bool {
        self.lock().events.contains(&event)
    }

    /// The last receipts, newest first.
    ///
    /// # Errors
    /// [`MinerError::Io`].
    pub fn recent(&self, limit: usize) -> Result<Vec<Receipt>, MinerError> {
        self.before(i64::MAX, limit)
    }

    /// Receipts settled before a time (milliseconds since the Unix epoch), newest first.
    ///
    /// # Errors
    /// [`MinerError::Io`].
    pub fn before(&self, before_ms: i64, limit: usize) -> Result<Vec<Receipt>, MinerError> {
        let mut inner = self.lock();
        let upto = inner.index.partition_point(|e| e.settled_at_ms < before_ms);
        let wanted: Vec<Entry> = inner.index[..upto].iter().rev().take(limit).copied().collect();
        let read = |e: Entry| inner.read(e);
        wanted
            .into_iter()
            .map(read)
            .collect::<io::Result<_>>()
            .map_err(MinerError::io("read", &self.path))
    }

    /// Sums over the receipts settled at or after a time (milliseconds since the Unix epoch); 0 for
    /// all.
    pub fn totals(&self, since_ms: i64) -> ReceiptTotals {
        let inner = self.lock();
        let from = inner.index.partition_point(|e| e.settled_at_ms < since_ms);
        let mut totals = ReceiptTotals::default();
        for entry in &inner.index[from..] {
            let sum = match entry.points {
                PointsKind::Llama => &mut totals.llama_micro,
                PointsKind::Waifu => &mut totals.waifu_micro,
            };
            sum.0 = sum.0.saturating_add(entry.amount_micro.0);
            totals.jobs = totals.jobs.saturating_add(1);
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of `Inner` is complete before anything in it can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn load(&mut self, path: &Path) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(self.file.try_clone()?);
        let mut line = Vec::new();
        let mut damaged = 0_u32;
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            let offset = self.end;
            if !line.ends_with(b"\n") && (read as u64) < LINE_BYTES_MAX {
                // The file ends here: a crash cut this line short, nobody was told it was written.
                self.file.set_len(offset)?;
                break;
            }
            self.end += read as u64;
            match serde_json::from_slice::<Receipt>(&line) {
                Ok(receipt) if !self.events.contains(&receipt.event) => {
                    self.insert(&receipt, offset, read);
                }
                Ok(_) => {}
                Err(_) => damaged += 1,
            }
        }
        if damaged > 0 {
            let file = path.display();
            tracing::warn!(lines = damaged, "{damaged} damaged lines of {file} are left out");
        }
        Ok(())
    }

    fn insert(&mut self, receipt: &Receipt, offset: u64, length: usize) {
        let entry = Entry {
            settled_at_ms: receipt.settled_at_ms,
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            points: receipt.quote.points,
            amount_micro: receipt.quote.amount_micro,
        };
        let at = self.index.partition_point(|e| e.settled_at_ms <= entry.settled_at_ms);
        self.index.insert(at, entry);
        self.events.insert(receipt.event);
    }

    fn write_at_end(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(line)?;
        self.file.sync_data()
    }

    fn read(&mut self, entry: Entry) -> io::Result<Receipt> {
        let mut line = vec![0; entry.length as usize];
        self.file.seek(SeekFrom::Start(entry.offset))?;
        self.file.read_exact(&mut line)?;
        serde_json::from_slice(&line).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::{JobId, LeaseId, ModelId, Multiplier, NodeId, Quote, ResultDigest, Usage};
    use uuid::Uuid;

    use super::*;

    fn receipt(event: u128, at_ms: i64, amount: i64, points: PointsKind) -> Receipt {
        Receipt {
            event: EventId(Uuid::from_u128(event)),
            job: JobId(Uuid::from_u128(event)),
            lease: LeaseId(Uuid::from_u128(event)),
            node: NodeId::new("0xab").expect("valid"),
            model: ModelId::new("m").expect("valid"),
            usage: Usage::default(),
            rule_set: "r".into(),
            quote: Quote {
                points,
                units: 1,
                base_micro: MicroPoints(amount),
                factor: Multiplier::ONE,
                multiplier: Multiplier::ONE,
                amount_micro: MicroPoints(amount),
            },
            digest: ResultDigest([0; 32]),
            duration_ms: 1,
            settled_at_ms: at_ms,
            network: "n".into(),
            coordinator: "0x".into(),
            signature: "0x".into(),
        }
    }

    fn llama(event: u128, at_ms: i64, amount: i64) -> Receipt {
        receipt(event, at_ms, amount, PointsKind::Llama)
    }

    #[test]
    fn totals_and_pages_follow_the_time_of_settlement() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("new/receipts.jsonl");
        let log = ReceiptLog::open(&path).expect("opened");
        // The second arrives late, as after an outage.
        for (event, at) in [(1, 100), (2, 300), (3, 200)] {
            assert!(log.append(&llama(event, at, 10)).expect("appended"));
        }
        assert!(log.append(&receipt(4, 400, 7, PointsKind::Waifu)).expect("appended"));
        assert!(!log.append(&llama(2, 300, 10)).expect("a repeat is free"));
        for log in [log, ReceiptLog::open(&path).expect("reopened")] {
            let events = |receipts: Vec<Receipt>| -> Vec<u128> {
                receipts.iter().map(|r| r.event.0.as_u128()).collect()
            };
            assert_eq!(events(log.recent(9).expect("read")), [4, 2, 3, 1]);
            assert_eq!(events(log.recent(2).expect("read")), [4, 2]);
            assert_eq!(events(log.before(300, 9).expect("read")), [3, 1]);
            let totals = |llama, waifu, jobs| ReceiptTotals {
                llama_micro: MicroPoints(llama),
                waifu_micro: MicroPoints(waifu),
                jobs,
            };
            assert_eq!(log.totals(0), totals(30, 7, 4));
            assert_eq!(log.totals(300), totals(10, 7, 2));
            assert_eq!(log.totals(500), totals(0, 0, 0));
        }
    }

    #[test]
    fn a_line_cut_short_anywhere_costs_only_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("receipts.jsonl");
        let log = ReceiptLog::open(&path).expect("opened");
        log.append(&llama(1, 1, 5)).expect("appended");
        let first = std::fs::metadata(&path).expect("there").len();
        log.append(&llama(2, 2, 5)).expect("appended");
        let whole = std::fs::read(&path).expect("there");
        for length in first..whole.len() as u64 {
            std::fs::write(&path, &whole[..length as usize]).expect("written");
            let log = ReceiptLog::open(&path).expect("opened");
            assert_eq!(log.totals(0).jobs, 1, "cut at {length}");
            assert!(log.append(&llama(2, 2, 5)).expect("appended"));
            assert_eq!(std::fs::read(&path).expect("there"), whole, "cut at {length}");
        }
    }

    #[test]
    fn damaged_lines_are_left_out_and_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("receipts.jsonl");
        let line = |event| serde_json::to_string(&llama(event, 1, 5)).expect("serialises");
        let long = "x".repeat(200_000);
        let text = format!("{}\nrot\n{long}\n{}\n{}\n", line(1), line(2), line(1));
        std::fs::write(&path, &text).expect("written");
        let log = ReceiptLog::open(&path).expect("opened");
        assert_eq!(log.totals(0).jobs, 2, "the repeat counts once");
        log.append(&llama(3, 2, 5)).expect("appended");
        assert_eq!(log.recent(1).expect("read")[0].event.0.as_u128(), 3);
        let now = std::fs::read_to_string(&path).expect("there");
        assert!(now.starts_with(&text), "nothing is rewritten");
    }
}
