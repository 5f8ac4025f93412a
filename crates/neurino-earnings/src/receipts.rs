//! The miner's own record of what it was paid: receipts, one JSON line each, only ever appended.
//!
//! The log is the truth; beside it lies an index (see `index`) so that a million receipts are open in
//! a moment and counted in milliseconds. A receipt is on disk (fsync) before [`ReceiptLog::append`]
//! returns. A last line that a crash cut short was never acknowledged and is cut off at the next open;
//! a line damaged otherwise is skipped and kept.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use neurino_core::{EventId, MicroPoints, PointsKind, Receipt, RuleSets};
use neurino_protocol::earnings::{
    BothPoints, ReceiptFilter, ReceiptPage, ReceiptVerdict, Recomputed,
};

use crate::error::{RecordError, open_private};
use crate::index::{self, Index};

pub use crate::index::{Entry, Verdict};

/// Longest line that is read as a receipt, in bytes; real ones have about a thousand.
const LINE_BYTES_MAX: u64 = 64 << 10;

static RULES: LazyLock<RuleSets> = LazyLock::new(RuleSets::built_in);

/// Receipts of one identity on one network.
#[derive(Debug)]
pub struct ReceiptLog {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// The index file and its length; absent where it cannot be written.
    index_file: Option<(File, u64)>,
    end: u64,
    index: Index,
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

impl ReceiptTotals {
    /// Counts one more.
    pub fn add(&mut self, entry: &Entry) {
        let sum = match entry.kind {
            PointsKind::Llama => &mut self.llama_micro,
            PointsKind::Waifu => &mut self.waifu_micro,
        };
        sum.0 = sum.0.saturating_add(entry.amount.0);
        self.jobs = self.jobs.saturating_add(1);
    }

    /// Over a list of entries.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut totals = Self::default();
        entries.into_iter().for_each(|entry| totals.add(entry));
        totals
    }

    /// The points alone.
    pub fn points(&self) -> BothPoints {
        BothPoints { llama: self.llama_micro, waifu: self.waifu_micro }
    }
}

/// What reports look at: every receipt's figures, by time of settlement.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    index: &'a Index,
}

impl<'a> Entries<'a> {
    /// All of them, oldest first.
    pub fn all(&self) -> &'a [Entry] {
        &self.index.entries
    }

    /// Those settled from one time on and before another, in milliseconds since the Unix epoch.
    pub fn between(&self, from_ms: i64, until_ms: i64) -> &'a [Entry] {
        let all = self.all();
        let from = all.partition_point(|e| e.settled_at_ms < from_ms);
        let until = all.partition_point(|e| e.settled_at_ms < until_ms);
        &all[from..until.max(from)]
    }

    /// The name of a model or a rule set.
    pub fn name(&self, number: u16) -> &'a str {
        self.index.names.get(number)
    }

    /// Sums over everything.
    pub fn totals(&self) -> ReceiptTotals {
        self.index.all
    }

    /// Paid beyond what the rules give (or below, where negative), over all that differ.
    pub fn drift(&self) -> MicroPoints {
        self.index.drift
    }
}

impl ReceiptLog {
    /// Opens the log, making the file and its folder where they are missing. The index is brought up
    /// to date, or made anew where it is damaged, absent or of other rules.
    ///
    /// # Errors
    /// [`RecordError::Io`]; trouble with the index alone is none.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let file = open_private(path)?;
        Self::with(path, file, true).map_err(RecordError::io("read", path))
    }

    /// Opens the log for reading alone and changes no file, beside a program that may be writing it.
    ///
    /// # Errors
    /// [`RecordError::Io`], also where there is no log.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let file = File::open(path).map_err(RecordError::io("open", path))?;
        Self::with(path, file, false).map_err(RecordError::io("read", path))
    }

    fn with(path: &Path, file: File, write: bool) -> io::Result<Self> {
        let index_path = path.with_extension("idx");
        let mut inner = Inner { file, index_file: None, end: 0, index: Index::default() };
        let kept = inner.load_index(&index_path);
        inner.end = inner.index.covered;
        let frames = inner.scan(path, write)?;
        if write {
            let saved = inner.save_index(&index_path, kept, &frames);
            if let Err(error) = saved {
                inner.index_file = None;
                tracing::warn!(%error, "the index of the receipts cannot be written: {error}");
            }
        }
        Ok(Self { path: path.to_owned(), inner: Mutex::new(inner) })
    }

    /// Appends a receipt, unless one of the same ledger event is there; `true` if it was new.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// [`RecordError::Io`]; the log is then as before.
    pub fn append(&self, receipt: &Receipt) -> Result<bool, RecordError> {
        let mut line = serde_json::to_vec(receipt).expect("strings and integers always serialise");
        line.push(b'\n');
        let mut inner = self.lock();
        if inner.index.events.contains(&receipt.event) {
            return Ok(false);
        }
        let offset = inner.end;
        let written = inner.write_at_end(&line);
        if let Err(source) = written {
            // A half-written line must not swallow the next one.
            let _ = inner.file.set_len(offset);
            return Err(RecordError::io("write", &self.path)(source));
        }
        inner.end += line.len() as u64;
        let frames = inner.index.add(receipt, offset, line.len(), &RULES);
        inner.extend_index(&frames);
        Ok(true)
    }

    /// Whether a receipt of this ledger event is there.
    pub fn contains(&self, event: EventId) -> bool {
        self.lock().index.events.contains(&event)
    }

    /// The last receipts, newest first.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn recent(&self, limit: usize) -> Result<Vec<Receipt>, RecordError> {
        self.before(i64::MAX, limit)
    }

    /// Receipts settled before a time (milliseconds since the Unix epoch), newest first. A line that
    /// was damaged since the index was made is left out.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn before(&self, before_ms: i64, limit: usize) -> Result<Vec<Receipt>, RecordError> {
        let mut inner = self.lock();
        let entries = &inner.index.entries;
        let upto = entries.partition_point(|e| e.settled_at_ms < before_ms);
        let wanted: Vec<Entry> = entries[..upto].iter().rev().take(limit).copied().collect();
        inner.read_all(&wanted).map_err(RecordError::io("read", &self.path))
    }

    /// A page of the receipts that match, newest first. `before` is the `next` of the page before.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn page(
        &self,
        filter: &ReceiptFilter,
        before: Option<u32>,
        limit: usize,
    ) -> Result<ReceiptPage, RecordError> {
        let mut inner = self.lock();
        let wanted_name = names_with(inner.index.names.all(), &filter.text);
        let matches = |e: &Entry| {
            filter.kind.is_none_or(|kind| e.kind == kind)
                && filter.since_ms.is_none_or(|since| e.settled_at_ms >= since)
                && filter.until_ms.is_none_or(|until| e.settled_at_ms < until)
                && (!filter.drifted || e.verdict == Verdict::Differs)
                && wanted_name.as_ref().is_none_or(|wanted| {
                    let has = |n: u16| wanted.get(usize::from(n)).copied().unwrap_or(false);
                    has(e.model) || has(e.rules)
                })
        };
        let entries = &inner.index.entries;
        let totals = ReceiptTotals::of(entries.iter().filter(|e| matches(e)));
        let upto = before.map_or(entries.len(), |n| (n as usize).min(entries.len()));
        let mut found: Vec<(usize, Entry)> = (0..upto)
            .rev()
            .filter(|n| matches(&entries[*n]))
            .take(limit.max(1) + 1)
            .map(|n| (n, entries[n]))
            .collect();
        let more = found.len() > limit.max(1);
        found.truncate(limit.max(1));
        let last = found.last().map(|(n, _)| u32::try_from(*n).unwrap_or(u32::MAX));
        let wanted: Vec<Entry> = found.iter().map(|(_, entry)| *entry).collect();
        let receipts = inner.read_all(&wanted).map_err(RecordError::io("read", &self.path))?;
        Ok(ReceiptPage {
            receipts,
            matching: totals.jobs,
            points: totals.points(),
            next: last.filter(|_| more),
        })
    }

    /// Hands every receipt settled at or after a time to `each`, oldest first, until it fails.
    ///
    /// # Errors
    /// [`RecordError::Io`]; what `each` fails with is [`RecordError::Export`], for the log is in order then.
    pub fn each(
        &self,
        since_ms: i64,
        mut each: impl FnMut(&Receipt) -> io::Result<()>,
    ) -> Result<(), RecordError> {
        const AT_ONCE: usize = 512;
        let failed = |source| RecordError::io("read", &self.path)(source);
        let wanted: Vec<Entry> = self.view(|entries| entries.between(since_ms, i64::MAX).to_vec());
        for some in wanted.chunks(AT_ONCE) {
            // The miner gets its turn between two pieces.
            let receipts = self.lock().read_all(some).map_err(failed)?;
            receipts.iter().try_for_each(&mut each).map_err(RecordError::Export)?;
        }
        Ok(())
    }

    /// Sums over the receipts settled at or after a time (milliseconds since the Unix epoch); 0 for
    /// all.
    pub fn totals(&self, since_ms: i64) -> ReceiptTotals {
        self.view(|entries| {
            if since_ms <= 0 {
                return entries.totals();
            }
            ReceiptTotals::of(entries.between(since_ms, i64::MAX))
        })
    }

    /// Sums over the receipts settled from one time on and before another, in milliseconds since the Unix
    /// epoch.
    pub fn totals_between(&self, from_ms: i64, until_ms: i64) -> ReceiptTotals {
        self.view(|entries| ReceiptTotals::of(entries.between(from_ms, until_ms)))
    }

    /// Looks at every receipt's figures. The log waits meanwhile, so be quick.
    pub fn view<R>(&self, look: impl FnOnce(Entries<'_>) -> R) -> R {
        let inner = self.lock();
        look(Entries { index: &inner.index })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of `Inner` is complete before anything in it can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which names hold the text, in any case; `None` for all.
fn names_with(names: &[String], text: &str) -> Option<Vec<bool>> {
    let text = text.trim().to_lowercase();
    let holds = |name: &String| name.to_lowercase().contains(&text);
    (!text.is_empty()).then(|| names.iter().map(holds).collect())
}

impl Inner {
    /// Reads the index if it fits the log; says how many bytes of its file are good.
    fn load_index(&mut self, path: &Path) -> usize {
        let Ok(bytes) = std::fs::read(path) else { return 0 };
        let Some((index, good)) = Index::read(&bytes, &RULES) else {
            tracing::info!("the index of the receipts is made anew");
            return 0;
        };
        // The first, the last and the farthest line stand for all that the index says of the log.
        let farthest = index.entries.iter().max_by_key(|e| e.offset);
        let probes: Vec<Entry> = [index.entries.first(), index.entries.last(), farthest]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let fits = probes.into_iter().all(|entry| {
            let read = self.read(entry);
            read.is_ok_and(|receipt| {
                index.events.contains(&receipt.event)
                    && receipt.settled_at_ms == entry.settled_at_ms
                    && receipt.quote.amount_micro == entry.amount
            })
        });
        if !fits {
            tracing::warn!("the index does not fit the receipts and is made anew");
            return 0;
        }
        self.index = index;
        good
    }

    /// Reads what the index does not cover yet; returns its frames. A cut end is cut off where the
    /// log may be written.
    fn scan(&mut self, path: &Path, write: bool) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut reader = BufReader::with_capacity(1 << 20, self.file.try_clone()?);
        let (mut line, mut frames) = (Vec::new(), Vec::new());
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
                if write {
                    self.file.set_len(offset)?;
                }
                break;
            }
            self.end += read as u64;
            match serde_json::from_slice::<Receipt>(&line) {
                Ok(receipt) if !self.index.events.contains(&receipt.event) => {
                    frames.extend(self.index.add(&receipt, offset, read, &RULES));
                }
                Ok(_) => {}
                Err(_) => damaged += 1,
            }
        }
        if damaged > 0 {
            let file = path.display();
            tracing::warn!(lines = damaged, "{damaged} damaged lines of {file} are left out");
        }
        Ok(frames)
    }

    /// Writes the frames behind what is good of the index file.
    fn save_index(&mut self, path: &Path, good: usize, frames: &[u8]) -> io::Result<()> {
        let file = open_private(path).map_err(io::Error::other)?;
        file.set_len(good as u64)?;
        let mut writer = BufWriter::new(file);
        writer.seek(SeekFrom::Start(good as u64))?;
        let mut length = good as u64;
        if good == 0 {
            writer.write_all(&index::header(&RULES))?;
            length += index::HEADER as u64;
        }
        writer.write_all(frames)?;
        length += frames.len() as u64;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.index_file = Some((file, length));
        Ok(())
    }

    /// Adds frames to the index file; without it the next open reads the log instead.
    fn extend_index(&mut self, frames: &[u8]) {
        let Some((file, length)) = &mut self.index_file else { return };
        let written = file.seek(SeekFrom::Start(*length)).and_then(|_| file.write_all(frames));
        match written {
            Ok(()) => *length += frames.len() as u64,
            Err(error) => {
                let _ = file.set_len(*length);
                self.index_file = None;
                tracing::warn!(%error, "the index of the receipts cannot be written: {error}");
            }
        }
    }

    fn write_at_end(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(line)?;
        self.file.sync_data()
    }

    fn read_all(&mut self, wanted: &[Entry]) -> io::Result<Vec<Receipt>> {
        let mut found = Vec::with_capacity(wanted.len());
        for entry in wanted {
            match self.read(*entry) {
                Ok(receipt) => found.push(receipt),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(offset = entry.offset, "a receipt on disk is damaged");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn read(&mut self, entry: Entry) -> io::Result<Receipt> {
        let mut line = vec![0; entry.length as usize];
        self.file.seek(SeekFrom::Start(entry.offset))?;
        self.file.read_exact(&mut line)?;
        let damaged = |e: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, e);
        serde_json::from_slice(&line).map_err(damaged)
    }
}

/// Computes one receipt again by the rules it names, as the log does with each that comes in.
pub fn recomputed(receipt: &Receipt) -> Recomputed {
    let (verdict, quote) = index::recompute(receipt, &RULES);
    let verdict = match verdict {
        Verdict::Agrees => ReceiptVerdict::Agrees,
        Verdict::Differs => ReceiptVerdict::Differs,
        Verdict::Unknown => ReceiptVerdict::Unknown,
    };
    Recomputed { verdict, quote }
}

#[cfg(test)]
mod tests {
    use neurino_core::{
        JobId, JobKind, LeaseId, ModelId, Multiplier, NodeId, Quote, ResultDigest, Usage,
    };
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

    #[test]
    fn the_index_is_used_extended_and_made_anew_when_damaged() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("receipts.jsonl");
        let idx = path.with_extension("idx");
        let log = ReceiptLog::open(&path).expect("opened");
        for event in 1..=50_u128 {
            let kind = if event % 5 == 0 { PointsKind::Waifu } else { PointsKind::Llama };
            log.append(&receipt(event, 1000 - event as i64 * 7 % 13, 10, kind)).expect("appended");
        }
        let all = log.totals(0);
        drop(log);
        let whole = std::fs::read(&idx).expect("there is an index");
        let check = |what: &str| {
            let log = ReceiptLog::open(&path).expect("opened");
            assert_eq!(log.totals(0), all, "{what}");
            assert_eq!(log.recent(99).expect("read").len(), 50, "{what}");
            drop(log);
            assert_eq!(std::fs::read(&idx).expect("there"), whole, "{what}");
        };
        check("whole");
        for cut in [0, 5, 12, 13, 90, 700, whole.len() - 1, whole.len() - 79] {
            std::fs::write(&idx, &whole[..cut]).expect("written");
            check(&format!("cut at {cut}"));
        }
        for at in [0, 9, 14, 40, 200, whole.len() / 2, whole.len() - 3] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            std::fs::write(&idx, &damaged).expect("written");
            check(&format!("damaged at {at}"));
        }
        std::fs::remove_file(&idx).expect("removed");
        check("absent");
        // An older copy of the log came back: the index says more than there is.
        let text = std::fs::read_to_string(&path).expect("there");
        let lines: Vec<&str> = text.split_inclusive('\n').take(20).collect();
        std::fs::write(&path, lines.concat()).expect("written");
        assert_eq!(ReceiptLog::open(&path).expect("opened").totals(0).jobs, 20);
    }

    #[test]
    fn a_reader_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("receipts.jsonl");
        assert!(ReceiptLog::read(&path).is_err(), "there is none");
        let log = ReceiptLog::open(&path).expect("opened");
        log.append(&llama(1, 1, 5)).expect("appended");
        drop(log);
        let mut text = std::fs::read_to_string(&path).expect("there");
        text.push_str("{\"half");
        std::fs::write(&path, &text).expect("written");
        let idx = std::fs::read(path.with_extension("idx")).expect("there");
        assert_eq!(ReceiptLog::read(&path).expect("opened").totals(0).jobs, 1);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        assert_eq!(std::fs::read(path.with_extension("idx")).expect("there"), idx);
    }

    #[test]
    fn pages_follow_filters_and_never_repeat() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = ReceiptLog::open(&dir.path().join("receipts.jsonl")).expect("opened");
        for event in 1..=25_u128 {
            let kind = if event % 2 == 0 { PointsKind::Waifu } else { PointsKind::Llama };
            let mut one = receipt(event, event as i64 * 10, 3, kind);
            if event > 20 {
                one.model = ModelId::new("Big-One").expect("valid");
            }
            log.append(&one).expect("appended");
        }
        let mut filter = ReceiptFilter { kind: Some(PointsKind::Llama), ..Default::default() };
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = log.page(&filter, before, 4).expect("read");
            assert_eq!((page.matching, page.points.llama.0), (13, 39));
            seen.extend(page.receipts.iter().map(|r| r.event.0.as_u128()));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=25).rev().filter(|n| n % 2 == 1).collect::<Vec<_>>());
        filter = ReceiptFilter { text: "big".into(), since_ms: Some(220), ..Default::default() };
        assert_eq!(log.page(&filter, None, 99).expect("read").receipts.len(), 4);
        filter = ReceiptFilter { drifted: true, ..Default::default() };
        assert_eq!(log.page(&filter, None, 9).expect("read").matching, 0, "`r` is unknown");
    }

    #[test]
    fn what_the_rules_do_not_give_is_found() {
        let rules = RuleSets::built_in();
        let mut one = llama(1, 1, 0);
        one.rule_set = "practice3".into();
        one.usage = Usage { prompt_tokens: 40, completion_tokens: 65 };
        one.quote = rules
            .named("practice3")
            .and_then(|r| r.quote(&one.model, JobKind::Text, 105, Multiplier::ONE))
            .expect("priced");
        assert_eq!(index::compute(&one, &rules), (Verdict::Agrees, MicroPoints(0)));
        one.quote.amount_micro.0 -= 5_000;
        assert_eq!(index::compute(&one, &rules), (Verdict::Differs, MicroPoints(-5_000)));
        assert_eq!(recomputed(&one).quote.map(|q| q.amount_micro.0), Some(105_000));
        // Its own figures agree with each other, and the rules know no such factor.
        one.quote.factor = Multiplier(2_000_000);
        one.quote.amount_micro.0 = 210_000;
        assert_eq!(index::compute(&one, &rules), (Verdict::Differs, MicroPoints(105_000)));
        let again = recomputed(&one);
        assert_eq!(again.verdict, ReceiptVerdict::Differs);
        assert_eq!(
            again.quote.map(|q| (q.factor, q.amount_micro.0)),
            Some((Multiplier::ONE, 105_000))
        );
        one.rule_set = "nobody".into();
        assert_eq!(index::compute(&one, &rules).0, Verdict::Unknown);
        assert_eq!(recomputed(&one), Recomputed { verdict: ReceiptVerdict::Unknown, quote: None });
    }

    #[test]
    fn many_receipts_are_counted_and_paged_once_from_the_log_and_once_from_the_index() {
        const MANY: u32 = 20_000;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("receipts.jsonl");
        let mut file = BufWriter::new(File::create(&path).expect("created"));
        for event in 1..=u128::from(MANY) {
            let one = llama(event, event as i64 * 30_000, 105_000);
            serde_json::to_writer(&mut file, &one).expect("written");
            file.write_all(b"\n").expect("written");
        }
        file.into_inner().expect("flushed");
        let filter = ReceiptFilter { text: "m".into(), ..Default::default() };
        let look = || {
            let log = ReceiptLog::open(&path).expect("opened");
            let page = log.page(&filter, Some(MANY / 2), 50).expect("read");
            assert_eq!((log.totals(0).jobs, page.matching), (MANY, MANY));
            page.receipts
        };
        let built = look();
        assert_eq!(built.len(), 50);
        assert_eq!(look(), built);
    }
}
