//! What people wrote and were answered is sealed at rest: each job has a key of its own, and that is
//! wrapped with the payload key, which lies in a file beside the coordinator's own key and never in the
//! books.
//!
//! The payload key steps on every hour, one way: from the key of an hour those of all later hours follow,
//! and none of those before. The file holds the oldest that is still needed. Once it has stepped on,
//! nobody can unwrap what was wrapped before, also from backups of the books.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, Mac as _};
use neurino_core::JobId;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::seal::{KEY, Key, open, seal};

/// Hours since the Unix epoch.
pub(crate) type Hour = i64;

/// The first words of a key's file.
const FORMAT: &str = "neurino-payload-key-1";
/// Most steps that a key makes at once: more than two hundred years of hours.
const STEPS_MAX: i64 = 2_000_000;
/// The first byte of a wrapped key.
const WRAPPED: u8 = 1;

/// Why payloads cannot be sealed and read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadKeyError {
    /// The books have a key, and it is not here.
    #[error(
        "prompts and answers in these books are sealed with the payload key {id}, and {path} is not \
         there. Put it back from a backup, or copy `coordinator/payload.key` from the data folder (`data` in \
         the home) of another coordinator of the same books. If it is lost for good, `--new-payload-key` gives up the \
         requests and answers that are kept, and nothing else"
    )]
    Missing {
        /// Where it is looked for.
        path: PathBuf,
        /// Names the key; says nothing of it.
        id: String,
    },
    /// The books have another key.
    #[error(
        "prompts and answers in these books are sealed with the payload key {id}, and {path} holds \
         {found}. Put the right one there from a backup, or copy `coordinator/payload.key` from the data \
         folder (`data` in the home) of another coordinator of the same books. If it is lost for good, `--new-payload-key` \
         gives up the requests and answers that are kept, and nothing else"
    )]
    Other {
        /// Where it lies.
        path: PathBuf,
        /// Names the key of the books.
        id: String,
        /// Names the one in the file.
        found: String,
    },
    /// The file cannot be read or written, or holds something else.
    #[error("the payload key {path} cannot be used; put it back from a backup")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a sealed value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsealable {
    /// Its key was shredded.
    Shredded,
    /// It was changed, moved here from elsewhere, or sealed with another key.
    Changed,
}

/// What a sealed value is: a value of one job does not pass for another one of it, nor of another job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// What was asked.
    Spec,
    /// What was answered.
    Output,
    /// What was said of a failure.
    Error,
    /// A picture's file.
    Picture,
    /// A picture's small copy.
    Thumb,
}

impl Field {
    /// What is bound in beside the job.
    fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Output => "output",
            Self::Error => "error",
            Self::Picture => "picture",
            Self::Thumb => "thumb",
        }
    }

    /// What it is called in an error.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Spec => "request",
            Self::Output => "answer",
            Self::Error => "failure",
            Self::Picture => "picture",
            Self::Thumb => "small copy of a picture",
        }
    }

    fn place(self, job: JobId) -> Vec<u8> {
        [b"neurino payload v1 ", self.name().as_bytes(), b" ", job.0.as_bytes()].concat()
    }
}

/// The key of one job's payload.
#[derive(Clone)]
pub(crate) struct JobKey(Key);

impl JobKey {
    pub(crate) fn draw() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    pub(crate) fn seal(&self, job: JobId, field: Field, plain: &[u8]) -> Vec<u8> {
        seal(&self.0, &field.place(job), plain)
    }

    pub(crate) fn open(
        &self,
        job: JobId,
        field: Field,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Unsealable> {
        open(&self.0, &field.place(job), sealed).ok_or(Unsealable::Changed)
    }

    /// The same as a text in base64, for columns of text.
    pub(crate) fn seal_text(&self, job: JobId, field: Field, plain: &str) -> String {
        STANDARD_NO_PAD.encode(self.seal(job, field, plain.as_bytes()))
    }

    pub(crate) fn open_text(
        &self,
        job: JobId,
        field: Field,
        sealed: &str,
    ) -> Result<String, Unsealable> {
        let sealed = STANDARD_NO_PAD.decode(sealed).map_err(|_| Unsealable::Changed)?;
        let plain = self.open(job, field, &sealed)?;
        String::from_utf8(plain).map_err(|_| Unsealable::Changed)
    }
}

/// The payload key, from the hour that its file holds on.
pub(crate) struct PayloadKey {
    path: PathBuf,
    id: String,
    steps: Mutex<Steps>,
}

struct Steps {
    /// The hour that the file holds.
    from: Hour,
    /// Keys of that hour and of those that were asked for, and for whoever read a wrapped key a moment
    /// before the last step those of the hours before that.
    known: BTreeMap<Hour, Key>,
}

/// The hour of a time in milliseconds since the Unix epoch.
pub(crate) fn hour_of(at_ms: i64) -> Hour {
    at_ms.div_euclid(3_600_000)
}

impl PayloadKey {
    /// Reads the key of a file; `None` if there is no file.
    ///
    /// # Errors
    /// `File`.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, PayloadKeyError> {
        let fault = |source| PayloadKeyError::File { path: path.to_owned(), source };
        let text = match std::fs::read_to_string(path).map(Zeroizing::new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(fault)?,
        };
        let (id, from, key) = parse(&text).ok_or_else(|| {
            fault(io::Error::new(
                io::ErrorKind::InvalidData,
                "it holds no payload key, or half of one",
            ))
        })?;
        let steps = Mutex::new(Steps { from, known: BTreeMap::from([(from, key)]) });
        Ok(Some(Self { path: path.to_owned(), id, steps }))
    }

    /// Draws a key and writes it into a file that is not there yet, readable by its owner alone.
    ///
    /// # Errors
    /// `File`.
    pub(crate) fn make(path: &Path, from: Hour) -> Result<Self, PayloadKeyError> {
        let fault = |source| PayloadKeyError::File { path: path.to_owned(), source };
        let id = hex::encode(rand::random::<[u8; 8]>());
        let key: Key = Zeroizing::new(rand::random());
        let written = write_beside(path, &text_of(&id, from, &key))
            .and_then(|file| file.persist_noclobber(path).map_err(|error| error.error))
            .and_then(|_| sync_folder(path));
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Somebody was faster: theirs is the key.
                Self::read(path)?.ok_or_else(|| fault(error))
            }
            Err(error) => Err(fault(error)),
            Ok(()) => {
                let steps = Mutex::new(Steps { from, known: BTreeMap::from([(from, key)]) });
                Ok(Self { path: path.to_owned(), id, steps })
            }
        }
    }

    /// Names the key; says nothing of it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The oldest hour that can be unwrapped.
    pub(crate) fn from(&self) -> Hour {
        self.steps().from
    }

    /// Wraps a job's key in an hour, or in the oldest one there is.
    pub(crate) fn wrap(&self, job: JobId, hour: Hour, key: &JobKey) -> (Hour, Vec<u8>) {
        let mut steps = self.steps();
        let hour = hour.clamp(steps.from, steps.from.saturating_add(STEPS_MAX));
        let wrapping = steps.at(hour).expect("it is not before the oldest, and not too far off");
        drop(steps);
        let sealed = seal(&wrapping, &wrapped_for(job, hour), key.0.as_slice());
        (hour, [&[WRAPPED], hour.to_be_bytes().as_slice(), &sealed].concat())
    }

    /// A job's key.
    pub(crate) fn unwrap(&self, job: JobId, wrapped: &[u8]) -> Result<JobKey, Unsealable> {
        let Some((&[WRAPPED, ref hour @ ..], sealed)) = wrapped.split_first_chunk::<9>() else {
            return Err(Unsealable::Changed);
        };
        let hour = Hour::from_be_bytes(*hour);
        let wrapping = self.steps().at(hour)?;
        let key = open(&wrapping, &wrapped_for(job, hour), sealed).map(Zeroizing::new);
        let key = key.ok_or(Unsealable::Changed)?;
        let key = <[u8; KEY]>::try_from(key.as_slice()).map_err(|_| Unsealable::Changed)?;
        Ok(JobKey(Zeroizing::new(key)))
    }

    /// Steps on to an hour: what was wrapped before it is lost, for whoever has this file. Nothing happens
    /// if it is there already.
    ///
    /// # Errors
    /// `File`; it has not stepped on then.
    pub(crate) fn step_to(&self, hour: Hour) -> Result<(), PayloadKeyError> {
        let mut steps = self.steps();
        let before = steps.from;
        if hour <= before {
            return Ok(());
        }
        let fault = |source| PayloadKeyError::File { path: self.path.clone(), source };
        let too_far = || io::Error::other("the books have a time of another century");
        let key = steps.at(hour).map_err(|_| fault(too_far()))?;
        replace(&self.path, &text_of(&self.id, hour, &key)).map_err(fault)?;
        steps.from = hour;
        steps.known.retain(|known, _| *known >= before);
        Ok(())
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        // Whatever is in there is true.
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steps {
    /// The key of an hour.
    fn at(&mut self, hour: Hour) -> Result<Key, Unsealable> {
        if let Some(key) = self.known.get(&hour) {
            return Ok(key.clone());
        }
        let before = self.known.range(self.from..hour.max(self.from)).next_back();
        let Some((&near, key)) = before else { return Err(Unsealable::Shredded) };
        if hour.saturating_sub(near) > STEPS_MAX {
            return Err(Unsealable::Changed);
        }
        let mut key = key.clone();
        for _ in near..hour {
            key = next(&key);
        }
        self.known.insert(hour, key.clone());
        Ok(key)
    }
}

impl fmt::Debug for PayloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayloadKey({})", self.id)
    }
}

fn mac(key: &Key, words: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_slice()).expect("a key of any length fits");
    mac.update(words);
    mac
}

/// The key of the next hour; there is no way back.
fn next(key: &Key) -> Key {
    let next = mac(key, b"neurino payload key: the next hour").finalize().into_bytes();
    Zeroizing::new(next.into())
}

fn wrapped_for(job: JobId, hour: Hour) -> Vec<u8> {
    [b"neurino job key v1 ".as_slice(), job.0.as_bytes(), &hour.to_be_bytes()].concat()
}

/// Shows a file that is damaged or was changed by hand.
fn check_of(id: &str, from: Hour, key: &Key) -> String {
    let check = mac(key, format!("neurino payload key: file {id} {from}").as_bytes());
    hex::encode(&check.finalize().into_bytes()[..8])
}

fn text_of(id: &str, from: Hour, key: &Key) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex::encode(key.as_slice()));
    let check = check_of(id, from, key);
    Zeroizing::new(format!("{FORMAT} {id} {from} {} {check}\n", digits.as_str()))
}

fn parse(text: &str) -> Option<(String, Hour, Key)> {
    let mut parts = text.split_ascii_whitespace();
    if parts.next()? != FORMAT {
        return None;
    }
    let (id, from) = (parts.next()?, Hour::from_str(parts.next()?).ok()?);
    let mut key = Zeroizing::new([0; KEY]);
    hex::decode_to_slice(parts.next()?, key.as_mut_slice()).ok()?;
    let whole = parts.next()? == check_of(id, from, &key) && parts.next().is_none();
    whole.then(|| (id.to_owned(), from, key))
}

/// A whole file in the folder of another one, durably, readable by its owner alone.
fn write_beside(path: &Path, text: &str) -> io::Result<tempfile::NamedTempFile> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".payload-key-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if durable() {
        file.as_file().sync_all()?;
    }
    Ok(file)
}

/// Unit tests drive thousands of books, none of which must survive a power cut.
fn durable() -> bool {
    !cfg!(test)
}

/// Replaces a file, whatever happens to the machine, and overwrites what it held.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let former = std::fs::OpenOptions::new().write(true).open(path);
    write_beside(path, text)?.persist(path).map_err(|error| error.error)?;
    sync_folder(path)?;
    // The new one is safe. The former has no name any more; where a disk writes in place, nothing of it
    // is left.
    #[cfg(unix)]
    if let Ok(mut former) = former {
        let zeros = vec![0; text.len() + 32];
        former.write_all(&zeros)?;
        former.sync_all()?;
    }
    #[cfg(not(unix))]
    drop(former);
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename survive a power cut; Windows journals it by itself and cannot open folders.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) && durable() { std::fs::File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn job(n: u128) -> JobId {
        JobId(Uuid::from_u128(n))
    }

    fn key_in(folder: &Path) -> PayloadKey {
        PayloadKey::make(&folder.join("payload.key"), 100).unwrap()
    }

    #[test]
    fn a_value_opens_with_its_key_at_its_place() {
        let key = JobKey::draw();
        let sealed = key.seal_text(job(1), Field::Spec, "marzipan");
        assert_eq!(key.open_text(job(1), Field::Spec, &sealed).unwrap(), "marzipan");
        assert_ne!(
            key.seal_text(job(1), Field::Spec, "marzipan"),
            sealed,
            "none looks like another"
        );
        let changed = Err(Unsealable::Changed);
        assert_eq!(key.open_text(job(2), Field::Spec, &sealed), changed, "another job's");
        assert_eq!(key.open_text(job(1), Field::Output, &sealed), changed, "another field");
        assert_eq!(JobKey::draw().open_text(job(1), Field::Spec, &sealed), changed);
        let bytes = key.seal(job(1), Field::Picture, b"marzipan");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(key.open(job(1), Field::Picture, &changed).is_err(), "{at}");
            assert!(key.open(job(1), Field::Picture, &bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_wrapped_key_is_its_jobs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let payload = key_in(folder.path());
        let own = JobKey::draw();
        let (hour, wrapped) = payload.wrap(job(1), 105, &own);
        assert_eq!(hour, 105);
        assert_eq!(payload.unwrap(job(1), &wrapped).unwrap().0, own.0);
        let refused =
            |payload: &PayloadKey, job, wrapped: &[u8]| payload.unwrap(job, wrapped).err();
        assert_eq!(refused(&payload, job(2), &wrapped), Some(Unsealable::Changed));
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(refused(&payload, job(1), &changed).is_some(), "{at}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let other = key_in(elsewhere.path());
        assert_eq!(refused(&other, job(1), &wrapped), Some(Unsealable::Changed));
    }

    #[test]
    fn what_was_wrapped_before_a_step_is_lost_and_what_comes_later_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payload.key");
        let payload = key_in(folder.path());
        let own = JobKey::draw();
        let (_, old) = payload.wrap(job(1), 104, &own);
        let (_, at_step) = payload.wrap(job(1), 105, &own);
        let (_, later) = payload.wrap(job(1), 130, &own);
        let copy = std::fs::read(&path).unwrap();
        payload.step_to(105).unwrap();
        payload.step_to(90).unwrap();
        assert_eq!(payload.from(), 105);
        assert_eq!(payload.wrap(job(1), 90, &own).0, 105, "nothing is wrapped for the past");
        // Also whoever begins anew with the file, or has only what it holds.
        let again = PayloadKey::read(&path).unwrap().unwrap();
        assert_eq!((again.id(), again.from()), (payload.id(), 105));
        assert_eq!(again.unwrap(job(1), &old).err(), Some(Unsealable::Shredded));
        for kept in [&at_step, &later] {
            assert_eq!(again.unwrap(job(1), kept).unwrap().0, own.0);
        }
        // A reader that has a wrapped key from a moment before the step is not turned away.
        assert!(payload.unwrap(job(1), &old).is_ok());
        payload.step_to(106).unwrap();
        assert_eq!(payload.unwrap(job(1), &old).err(), Some(Unsealable::Shredded));
        // An older copy reads all that was wrapped since: it can stand in for the file.
        std::fs::write(&path, copy).unwrap();
        let copy = PayloadKey::read(&path).unwrap().unwrap();
        assert_eq!(copy.unwrap(job(1), &later).unwrap().0, own.0);
    }

    #[test]
    fn a_step_into_another_century_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let payload = key_in(folder.path());
        assert!(payload.step_to(i64::MAX).is_err());
        assert_eq!(payload.from(), 100);
        let mut far = payload.wrap(job(1), 101, &JobKey::draw()).1;
        far[1..9].copy_from_slice(&i64::MAX.to_be_bytes());
        assert_eq!(payload.unwrap(job(1), &far).err(), Some(Unsealable::Changed));
        far[1..9].copy_from_slice(&i64::MIN.to_be_bytes());
        assert_eq!(payload.unwrap(job(1), &far).err(), Some(Unsealable::Shredded));
    }

    #[test]
    fn a_file_is_made_once_kept_private_and_refused_when_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper").join("payload.key");
        assert!(PayloadKey::read(&path).unwrap().is_none());
        let first = PayloadKey::make(&path, 7).unwrap();
        let again = PayloadKey::make(&path, 8).unwrap();
        assert_eq!((first.id(), again.from()), (again.id(), 7), "the first one stays");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(), 0o600);
            first.step_to(9).unwrap();
            assert_eq!(mode(), 0o600);
        }
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing lies around"
        );
        for wrong in [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("key-1", "key-2"),
            whole.replace(" 9 ", " 8 "),
            whole.replace(first.id(), "0000000000000000"),
            format!("{whole} more"),
        ] {
            std::fs::write(&path, &wrong).unwrap();
            let error = PayloadKey::read(&path).err().unwrap();
            assert!(error.to_string().contains("payload.key"), "{error}");
            assert!(PayloadKey::make(&path, 1).is_err(), "it is never replaced");
        }
    }

    #[test]
    fn a_job_costs_microseconds() {
        let folder = tempfile::tempdir().unwrap();
        let payload = key_in(folder.path());
        let text = "x".repeat(4096);
        // The best of some rounds: others use this machine, too.
        let round = |_| {
            let begun = std::time::Instant::now();
            for n in 0..100 {
                let own = JobKey::draw();
                let (_, wrapped) = payload.wrap(job(n), 124, &own);
                own.seal_text(job(n), Field::Spec, &text);
                let read = payload.unwrap(job(n), &wrapped).unwrap();
                let sealed = read.seal_text(job(n), Field::Output, &text);
                read.open_text(job(n), Field::Output, &sealed).unwrap();
            }
            begun.elapsed() / 100
        };
        let each = (0..10).map(round).min().unwrap();
        assert!(each < std::time::Duration::from_micros(300), "a job of 8 KiB costs {each:?}");
    }
}
