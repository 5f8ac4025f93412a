//! The chunk map of an unfinished file: which pieces lie on the drive, and what each hashed to.
//!
//! A file is cut into chunks of one size. A chunk is written to its place in `NAME.part`, and then one
//! fixed-size record is appended to `NAME.part.map`, in a single write: after a kill or a power cut the
//! map holds whole records and perhaps the beginning of one, which is left out. A record is no promise
//! that its bytes reached the drive; the hash in it tells, and a chunk that does not match is fetched
//! again, alone. When the whole file's SHA-256 has matched, the map is kept as `.NAME.chunks`, so that
//! a later flipped bit costs one chunk and not the file.
//!
//! The hash of a chunk (XXH3, 128 bits) finds accidents. Against malice stands the SHA-256 of the
//! whole file, which alone opens the door to the engine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::digest::Digest;

const MAGIC: &[u8; 8] = b"NRNCHNK1";
/// Magic, chunk size, file size, SHA-256 of the file.
const HEAD_BYTES: usize = 8 + 4 + 8 + 32;
/// Index, length, hash.
const RECORD_BYTES: usize = 4 + 4 + 16;

/// What a chunk hashes to.
pub(crate) type ChunkHash = u128;

/// Hashes a chunk that lies in pieces.
pub(crate) fn hash_pieces<'a>(pieces: impl IntoIterator<Item = &'a Bytes>) -> ChunkHash {
    let mut hasher = Xxh3::new();
    pieces.into_iter().for_each(|piece| hasher.update(piece));
    hasher.digest128()
}

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) chunk_bytes: u32,
    pub(crate) size_bytes: u64,
    /// What the whole must hash to: a map of other content is of no use.
    pub(crate) sha256: Digest,
}

impl Cut {
    /// Number of chunks.
    pub(crate) fn count(&self) -> u32 {
        let count = self.size_bytes.div_ceil(u64::from(self.chunk_bytes));
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Where a chunk begins.
    pub(crate) fn start(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.chunk_bytes)
    }

    /// The length of a chunk; that of the last may be less than the others'.
    pub(crate) fn len(&self, index: u32) -> u32 {
        let rest = self.size_bytes.saturating_sub(self.start(index));
        u32::try_from(rest.min(u64::from(self.chunk_bytes))).unwrap_or(self.chunk_bytes)
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&self.chunk_bytes.to_le_bytes());
        head.extend_from_slice(&self.size_bytes.to_le_bytes());
        head.extend_from_slice(self.sha256.as_bytes());
        head
    }
}

/// What the map says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Bytes from the chunk's begin; all of them, or fewer if the fetch was interrupted there.
    pub(crate) len: u32,
    pub(crate) hash: ChunkHash,
}

/// Where the map of a part lies.
pub(crate) fn map_path(part: &Path) -> PathBuf {
    let mut name = part.as_os_str().to_owned();
    name.push(".map");
    name.into()
}

/// Where the map of a finished file is kept.
pub(crate) fn kept_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.chunks"))
}

/// Bytes of the file that a part's map says are there, without opening the part.
pub(crate) fn noted_bytes(part: &Path, sha256: Digest, size_bytes: u64) -> Option<u64> {
    let (_, noted) = read(&map_path(part), sha256, size_bytes)?;
    Some(noted.iter().flatten().map(|noted| u64::from(noted.len)).sum())
}

/// Reads a map: what is noted of each chunk, the last word on each. `None` if the map is missing, or
/// belongs to other content.
pub(crate) fn read(
    path: &Path,
    wanted: Digest,
    size_bytes: u64,
) -> Option<(Cut, Vec<Option<Noted>>)> {
    let bytes = fs::read(path).ok()?;
    let (head, records) = bytes.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let cut = Cut { chunk_bytes: word(8)?, size_bytes, sha256: wanted };
    if cut.chunk_bytes == 0 || head != cut.head() {
        return None;
    }
    let mut noted = vec![None; cut.count() as usize];
    for record in records.chunks_exact(RECORD_BYTES) {
        let (index, rest) = record.split_first_chunk::<4>()?;
        let (len, hash) = rest.split_first_chunk::<4>()?;
        let (index, len) = (u32::from_le_bytes(*index), u32::from_le_bytes(*len));
        let hash = u128::from_le_bytes(hash.try_into().ok()?);
        // A record of nonsense means nothing; the others still do.
        if let Some(slot) = noted.get_mut(index as usize)
            && len <= cut.len(index)
        {
            *slot = (len > 0).then_some(Noted { len, hash });
        }
    }
    Some((cut, noted))
}

/// The open map of a part.
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Writes a map with what is known, whole or not at all, and keeps it open for more.
    pub(crate) fn create(part: &Path, cut: &Cut, noted: &[Option<Noted>]) -> io::Result<Self> {
        let path = map_path(part);
        let mut next = path.as_os_str().to_owned();
        next.push(".new");
        let next = PathBuf::from(next);
        let mut bytes = cut.head();
        for (index, noted) in (0_u32..).zip(noted) {
            if let Some(noted) = noted {
                bytes.extend_from_slice(&record(index, *noted));
            }
        }
        fs::write(&next, bytes)?;
        fs::rename(&next, &path)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(Self { file })
    }

    /// Notes a chunk; a later note of the same chunk counts instead.
    pub(crate) fn note(&mut self, index: u32, noted: Noted) -> io::Result<()> {
        self.file.write_all(&record(index, noted))
    }

    /// Takes a note back.
    pub(crate) fn strike(&mut self, index: u32) -> io::Result<()> {
        self.note(index, Noted { len: 0, hash: 0 })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn record(index: u32, noted: Noted) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&index.to_le_bytes());
    record[4..8].copy_from_slice(&noted.len.to_le_bytes());
    record[8..].copy_from_slice(&noted.hash.to_le_bytes());
    record
}

/// Reads so much of a chunk as is noted, and says whether it is what was noted.
pub(crate) fn read_chunk(
    file: &File,
    cut: &Cut,
    index: u32,
    noted: Noted,
) -> io::Result<Option<Bytes>> {
    let mut bytes = vec![0; noted.len as usize];
    match read_at(file, &mut bytes, cut.start(index)) {
        Ok(()) => {}
        // The drive has less than the map says.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let bytes = Bytes::from(bytes);
    Ok((hash_pieces([&bytes]) == noted.hash).then_some(bytes))
}

#[cfg(unix)]
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_read(bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Makes a map of a part that has none, from what lies there: an older version left it, or the map
/// was lost. Nothing vouches for these bytes but the SHA-256 at the end.
pub(crate) fn survey(part: &mut File, cut: &Cut) -> io::Result<Vec<Option<Noted>>> {
    let mut noted = vec![None; cut.count() as usize];
    let found_bytes = part.metadata()?.len();
    if found_bytes > cut.size_bytes {
        part.set_len(0)?;
        return Ok(noted);
    }
    part.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; cut.chunk_bytes as usize];
    for (index, slot) in (0_u32..).zip(&mut noted) {
        let len = found_bytes.saturating_sub(cut.start(index)).min(u64::from(cut.len(index)));
        if len == 0 {
            break;
        }
        let buffer = &mut buffer[..usize::try_from(len).unwrap_or(usize::MAX)];
        part.read_exact(buffer)?;
        let mut hasher = Xxh3::new();
        hasher.update(buffer);
        *slot = Some(Noted { len: u32::try_from(len).unwrap_or(0), hash: hasher.digest128() });
    }
    Ok(noted)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn cut() -> Cut {
        Cut { chunk_bytes: 10, size_bytes: 35, sha256: Digest::of(b"x") }
    }

    #[test]
    fn a_file_is_cut_with_a_shorter_last_chunk() {
        let cut = cut();
        assert_eq!(cut.count(), 4);
        assert_eq!((cut.start(3), cut.len(2), cut.len(3), cut.len(4)), (30, 10, 5, 0));
    }

    #[test]
    fn a_map_reads_back_without_the_torn_end_and_the_last_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("a.part");
        let whole = |hash| Some(Noted { len: 10, hash });
        let mut journal = Journal::create(&part, &cut(), &[whole(1), None, None, None]).unwrap();
        journal.note(2, Noted { len: 10, hash: 7 }).unwrap();
        journal.note(2, Noted { len: 4, hash: 8 }).unwrap();
        journal.note(3, Noted { len: 5, hash: 9 }).unwrap();
        journal.strike(0).unwrap();
        journal.note(99, Noted { len: 5, hash: 9 }).unwrap();
        journal.note(1, Noted { len: 11, hash: 9 }).unwrap();
        let path = map_path(&part);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&[3; RECORD_BYTES - 1]);
        fs::write(&path, &bytes).unwrap();
        let (read_cut, noted) = read(&path, cut().sha256, 35).unwrap();
        assert_eq!(read_cut, cut());
        let expect = [None, None, Some(Noted { len: 4, hash: 8 }), Some(Noted { len: 5, hash: 9 })];
        assert_eq!(noted, expect);

        assert!(read(&path, Digest::of(b"y"), 35).is_none(), "of another file");
        assert!(read(&path, cut().sha256, 36).is_none(), "of another size");
        for end in 0..HEAD_BYTES {
            fs::write(&path, &bytes[..end]).unwrap();
            assert!(read(&path, cut().sha256, 35).is_none(), "{end}");
        }
    }

    #[test]
    fn a_chunk_that_changed_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.part");
        fs::write(&path, [5; 35]).unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let noted = survey(&mut file, &cut()).unwrap();
        let good = |index: u32| {
            read_chunk(&file, &cut(), index, noted[index as usize].unwrap()).unwrap().is_some()
        };
        assert!((0..4).all(good));
        write_at(&file, &[6], 19).unwrap();
        assert_eq!([0, 1, 2, 3].map(good), [true, false, true, true]);
        file.set_len(29).unwrap();
        assert_eq!([0, 1, 2, 3].map(good), [true, false, false, false]);
        fs::write(&path, [5; 36]).unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert_eq!(survey(&mut file, &cut()).unwrap(), vec![None; 4], "more than it may have");
    }
}
