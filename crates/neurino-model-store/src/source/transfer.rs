//! A file on its way: which chunks are missing, who fetches them, and the hash that follows behind.
//!
//! Connections claim runs of missing chunks, and hand each finished chunk to a writer, which puts it
//! in its place and notes it. One thread feeds the chunks in their order to SHA-256: from memory as
//! they come, from the drive only what an earlier attempt left there, or what came far too early. So
//! a file that arrives in one go is never read again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::catalog::ModelFile;
use crate::chunks::{self, Cut, Journal, Noted};
use crate::digest::Digest;
use crate::error::SourceError;

/// Chunks that came before their turn are kept in memory up to so many bytes.
const AHEAD_BYTES_MAX: u64 = 96 << 20;
/// A connection asks for so much at once.
const SPAN_BYTES: u64 = 32 << 20;
/// How often what was written is made to reach the drive: a power cut costs no more than this.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How often one chunk may be wrong before the source is given up.
const BAD_CHUNKS_MAX: u32 = 3;

/// A whole chunk, in pieces.
pub(crate) type Arrived = (u32, Vec<Bytes>);

/// How long the hash waits for a chunk before it looks whether there is still somebody who could
/// bring one.
const HASH_WAIT: Duration = Duration::from_millis(50);

/// Where a chunk stands.
#[derive(Debug, Clone, Copy)]
enum Chunk {
    Missing,
    /// Its beginning is on the drive.
    Begun(Noted),
    /// A connection has claimed it.
    Claimed,
    /// On the drive; `coming` if its bytes are on their way to the hash.
    Whole {
        noted: Noted,
        coming: bool,
    },
}

/// A run of chunks that one connection fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    /// The chunk behind the last.
    pub(crate) end: u32,
    /// What is there of the first chunk.
    pub(crate) begun: Option<Noted>,
}

/// What a connection should do next.
pub(crate) enum Claim {
    Fetch(Span),
    /// Nothing at the moment: all is claimed, or the hash is behind.
    Wait,
    /// The transfer has ended, well or not.
    End,
}

/// Whether the server gives parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranges {
    Unknown,
    Given,
    /// The file comes whole or not at all, so one connection has to do.
    Refused,
}

struct Plan {
    chunks: Vec<Chunk>,
    claims: usize,
    ranges: Ranges,
    /// Bytes on the drive.
    done_bytes: u64,
    bad_chunks: u32,
    /// Something of an earlier attempt, or of another source, is among the chunks.
    inherited: bool,
    synced: Instant,
    ended: Option<Result<(), SourceError>>,
}

/// A file on its way.
pub(crate) struct Transfer {
    pub(crate) cut: Cut,
    part: PathBuf,
    file: File,
    model_file: ModelFile,
    journal: Mutex<Journal>,
    plan: Mutex<Plan>,
    connections: u32,
    /// Bytes that have arrived of chunks that are not whole yet.
    arriving_bytes: AtomicU64,
    /// Counts what may change the answer of [`Transfer::claim`].
    changed: watch::Sender<u64>,
    to_hash: SyncSender<Arrived>,
}

impl Transfer {
    /// Opens what is there of a part, or begins one. The receiver is for [`Transfer::hash`].
    pub(crate) fn open(
        part: &Path,
        file: &ModelFile,
        chunk_bytes: u32,
        connections: u32,
    ) -> Result<(Arc<Self>, Receiver<Arrived>), SourceError> {
        let chunk_bytes = file.pieces.as_ref().map_or(chunk_bytes, |pieces| pieces.size_bytes);
        let wanted = Cut { chunk_bytes, size_bytes: file.size_bytes, sha256: file.sha256 };
        let failed = |error| SourceError::io("write", part, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut opened = options.open(part).map_err(failed)?;
        // A map of another chunk size stays valid, unless the catalogue vouches for pieces.
        let found = chunks::read(&chunks::map_path(part), file.sha256, file.size_bytes)
            .filter(|(cut, _)| file.pieces.is_none() || *cut == wanted);
        let (cut, noted) = match found {
            Some(found) => found,
            None => (wanted, chunks::survey(&mut opened, &wanted).map_err(failed)?),
        };
        let journal = Journal::create(part, &cut, &noted).map_err(failed)?;
        let chunk = |(index, noted): (u32, Option<Noted>)| match noted {
            None => Chunk::Missing,
            Some(noted) if noted.len == cut.len(index) => Chunk::Whole { noted, coming: false },
            Some(noted) => Chunk::Begun(noted),
        };
        let done_bytes = noted.iter().flatten().map(|noted| u64::from(noted.len)).sum();
        let plan = Plan {
            chunks: (0..).zip(noted).map(chunk).collect(),
            claims: 0,
            ranges: Ranges::Unknown,
            done_bytes,
            bad_chunks: 0,
            inherited: done_bytes > 0,
            synced: Instant::now(),
            ended: None,
        };
        let (to_hash, hashed) = sync_channel(8);
        let transfer = Self {
            cut,
            part: part.to_owned(),
            file: opened,
            model_file: file.clone(),
            journal: Mutex::new(journal),
            plan: Mutex::new(plan),
            connections: connections.max(1),
            arriving_bytes: AtomicU64::new(0),
            changed: watch::channel(0).0,
            to_hash,
        };
        Ok((Arc::new(transfer), hashed))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Rises whenever a claim may be answered otherwise.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Bytes on the drive, and those that are arriving. May fall by a chunk between the last byte of
    /// one and its place on the drive.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.plan().done_bytes + self.arriving_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of an unfinished chunk have come.
    pub(crate) fn arriving(&self, bytes: u64) {
        self.arriving_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are whole now, or lost.
    pub(crate) fn arrived(&self, bytes: u64) {
        self.arriving_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn ranges(&self) -> Ranges {
        self.plan().ranges
    }

    /// What the server turned out to give.
    pub(crate) fn set_ranges(&self, ranges: Ranges) {
        self.plan().ranges = ranges;
        self.tell();
    }

    /// Ends the transfer; the first word counts.
    pub(crate) fn end(&self, outcome: Result<(), SourceError>) {
        self.plan().ended.get_or_insert(outcome);
        self.tell();
    }

    /// How it ended; taken once.
    pub(crate) fn outcome(&self) -> Result<(), SourceError> {
        self.plan().ended.take().unwrap_or(Err(SourceError::Cancelled))
    }

    pub(crate) fn is_missing(&self, index: u32) -> bool {
        !matches!(self.plan().chunks.get(index as usize), Some(Chunk::Whole { .. }) | None)
    }

    /// Work for a connection.
    pub(crate) fn claim(&self) -> Claim {
        let mut plan = self.plan();
        if plan.ended.is_some() {
            return Claim::End;
        }
        // The first answer tells whether several connections make sense.
        if plan.ranges != Ranges::Given && plan.claims > 0 {
            return Claim::Wait;
        }
        let open = |chunk: &Chunk| matches!(chunk, Chunk::Missing | Chunk::Begun(_));
        let Some(first) = plan.chunks.iter().position(open) else { return Claim::Wait };
        if plan.ranges == Ranges::Refused {
            let end = self.cut.count();
            let mut begun_bytes = 0;
            for chunk in plan.chunks.iter_mut().filter(|chunk| open(chunk)) {
                if let Chunk::Begun(noted) = chunk {
                    begun_bytes += u64::from(noted.len);
                }
                *chunk = Chunk::Claimed;
            }
            plan.done_bytes -= begun_bytes;
            plan.claims += 1;
            return Claim::Fetch(Span { first: 0, end, begun: None });
        }
        let missing = plan.chunks[first..].iter().filter(|chunk| open(chunk)).count() as u64;
        let share = missing.div_ceil(u64::from(self.connections));
        let most = (SPAN_BYTES / u64::from(self.cut.chunk_bytes)).clamp(1, share.max(1));
        let rest = &plan.chunks[first + 1..];
        let run = rest.iter().take_while(|chunk| matches!(chunk, Chunk::Missing)).count() as u64;
        let count = usize::try_from((run + 1).min(most)).unwrap_or(1);
        let begun = match plan.chunks[first] {
            Chunk::Begun(noted) => Some(noted),
            _ => None,
        };
        plan.chunks[first..first + count].fill(Chunk::Claimed);
        plan.done_bytes -= begun.map_or(0, |noted| u64::from(noted.len));
        plan.claims += 1;
        let index = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Claim::Fetch(Span { first: index(first), end: index(first + count), begun })
    }

    /// What there is of a chunk that was begun; nothing if it is not what was noted.
    pub(crate) fn begun(&self, span: &Span) -> Result<Option<Bytes>, SourceError> {
        let Some(noted) = span.begun else { return Ok(None) };
        chunks::read_chunk(&self.file, &self.cut, span.first, noted)
            .map_err(|error| SourceError::io("read", &self.part, error))
    }

    /// Gives back what a connection did not finish. `begun` are the bytes of a chunk that broke off;
    /// `untouched` says that of the first chunk nothing has come. Blocks for at most one chunk.
    pub(crate) fn release(&self, span: &Span, begun: Option<Arrived>, untouched: bool) {
        let kept = begun.and_then(|(index, pieces)| {
            let len = pieces.iter().map(Bytes::len).sum::<usize>();
            let len = u32::try_from(len).ok().filter(|len| *len > 0)?;
            self.write(index, &pieces).ok()?;
            let noted = Noted { len, hash: chunks::hash_pieces(&pieces) };
            self.journal().note(index, noted).ok()?;
            Some((index, noted))
        });
        let kept = kept.or_else(|| Some((span.first, span.begun.filter(|_| untouched)?)));
        let mut plan = self.plan();
        for index in span.first..span.end {
            if matches!(plan.chunks[index as usize], Chunk::Claimed) {
                plan.chunks[index as usize] = Chunk::Missing;
            }
        }
        if let Some((index, noted)) = kept
            && matches!(plan.chunks[index as usize], Chunk::Missing)
        {
            plan.chunks[index as usize] = Chunk::Begun(noted);
            plan.done_bytes += u64::from(noted.len);
        }
        plan.claims -= 1;
        drop(plan);
        self.tell();
    }

    fn write(&self, index: u32, pieces: &[Bytes]) -> Result<(), SourceError> {
        let mut offset = self.cut.start(index);
        for piece in pieces {
            chunks::write_at(&self.file, piece, offset)
                .map_err(|error| SourceError::io("write", &self.part, error))?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Puts a whole chunk in its place, notes it and passes it on to the hash. Blocks. `false` if the
    /// catalogue says that it is wrong; then it is missing as before.
    pub(crate) fn put(&self, index: u32, pieces: Vec<Bytes>) -> Result<bool, SourceError> {
        let len = self.cut.len(index);
        self.arrived(u64::from(len));
        if let Some(expected) = self.piece(index) {
            let mut hasher = Sha256::new();
            for piece in &pieces {
                hasher.update(piece);
            }
            let found = Digest::of_hasher(hasher);
            if found != expected {
                let mut plan = self.plan();
                plan.bad_chunks += 1;
                if plan.bad_chunks >= BAD_CHUNKS_MAX {
                    return Err(SourceError::WrongDigest { expected, found });
                }
                return Ok(false);
            }
        }
        self.write(index, &pieces)?;
        let noted = Noted { len, hash: chunks::hash_pieces(&pieces) };
        let failed = |error| SourceError::io("write", &self.part, error);
        self.journal().note(index, noted).map_err(failed)?;
        let sync = {
            let mut plan = self.plan();
            let before = &mut plan.chunks[index as usize];
            let again = matches!(before, Chunk::Whole { .. });
            *before = Chunk::Whole { noted, coming: true };
            plan.done_bytes += if again { 0 } else { u64::from(len) };
            let due = plan.synced.elapsed() >= SYNC_EVERY;
            if due {
                plan.synced = Instant::now();
            }
            due
        };
        // The hash ends early only when the transfer has ended.
        let _ = self.to_hash.send((index, pieces));
        if sync {
            self.file.sync_data().map_err(failed)?;
            self.journal().sync().map_err(failed)?;
        }
        Ok(true)
    }

    fn piece(&self, index: u32) -> Option<Digest> {
        self.model_file.pieces.as_ref()?.sha256.get(index as usize).copied()
    }

    /// Hashes the chunks in their order until the file is whole, and ends the transfer. Blocks.
    pub(crate) fn hash(&self, arriving: Receiver<Arrived>) {
        let outcome = self.hash_all(&arriving);
        // Writers that wait for room in the channel find it closed.
        drop(arriving);
        if let Some(outcome) = outcome {
            self.end(outcome);
        }
    }

    fn hash_all(&self, arriving: &Receiver<Arrived>) -> Option<Result<(), SourceError>> {
        let mut early: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
        let early_max = (AHEAD_BYTES_MAX / u64::from(self.cut.chunk_bytes)).max(1);
        let (mut hasher, mut next) = (Sha256::new(), 0);
        loop {
            while next < self.cut.count() {
                if let Some(pieces) = early.remove(&next) {
                    for piece in &pieces {
                        hasher.update(piece);
                    }
                    next += 1;
                    continue;
                }
                let chunk = {
                    let plan = self.plan();
                    if plan.ended.is_some() {
                        return None;
                    }
                    plan.chunks[next as usize]
                };
                if let Chunk::Whole { noted, coming: false } = chunk {
                    match self.read_back(next, noted) {
                        Ok(Some(bytes)) => {
                            hasher.update(&bytes);
                            next += 1;
                        }
                        Ok(None) => self.lose(next, noted),
                        Err(error) => return Some(Err(error)),
                    }
                    continue;
                }
                let (index, pieces) = self.receive(arriving)?;
                if index == next || (index > next && (early.len() as u64) < early_max) {
                    early.insert(index, pieces);
                } else if let Some(Chunk::Whole { coming, .. }) =
                    self.plan().chunks.get_mut(index as usize)
                {
                    *coming = false;
                }
            }
            let found = Digest::of_hasher(std::mem::replace(&mut hasher, Sha256::new()));
            let expected = self.model_file.sha256;
            if found == expected {
                let synced = self.file.sync_all().and_then(|()| self.journal().sync());
                return Some(synced.map_err(|e| SourceError::io("write", &self.part, e)));
            }
            if !self.begin_again() {
                let _ = fs::remove_file(chunks::map_path(&self.part));
                let _ = fs::remove_file(&self.part);
                return Some(Err(SourceError::WrongDigest { expected, found }));
            }
            next = 0;
        }
    }

    /// The next chunk from a writer; `None` when the transfer has ended.
    fn receive(&self, arriving: &Receiver<Arrived>) -> Option<(u32, Vec<Bytes>)> {
        // The transfer itself holds a sender, so the channel never closes while it waits.
        loop {
            match arriving.recv_timeout(HASH_WAIT) {
                Ok(arrived) => return Some(arrived),
                Err(RecvTimeoutError::Timeout) if self.plan().ended.is_none() => {}
                Err(_) => return None,
            }
        }
    }

    fn read_back(&self, index: u32, noted: Noted) -> Result<Option<Bytes>, SourceError> {
        let bytes = chunks::read_chunk(&self.file, &self.cut, index, noted)
            .map_err(|error| SourceError::io("read", &self.part, error))?;
        let vouched = |bytes: &Bytes| self.piece(index).is_none_or(|d| d == Digest::of(bytes));
        Ok(bytes.filter(vouched))
    }

    /// What lies on the drive of a chunk is not what was written: it is fetched again.
    fn lose(&self, index: u32, noted: Noted) {
        tracing::warn!(chunk = index, "a piece of `{}` is damaged", self.model_file.name);
        let _ = self.journal().strike(index);
        let mut plan = self.plan();
        plan.chunks[index as usize] = Chunk::Missing;
        plan.done_bytes = plan.done_bytes.saturating_sub(u64::from(noted.len));
        drop(plan);
        self.tell();
    }

    /// All chunks are as they were written, and the whole is wrong. If some of them came from
    /// elsewhere, the source gets a chance to give all of them; else it would say the same again.
    fn begin_again(&self) -> bool {
        let mut plan = self.plan();
        if !std::mem::take(&mut plan.inherited) {
            return false;
        }
        plan.done_bytes = 0;
        plan.chunks.fill(Chunk::Missing);
        drop(plan);
        match Journal::create(&self.part, &self.cut, &[]) {
            Ok(journal) => *self.journal() = journal,
            Err(_) => return false,
        }
        self.tell();
        true
    }
}
