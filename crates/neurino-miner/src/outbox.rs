//! Finished results on disk until the coordinator has answered them.
//!
//! One file a lease, written to a temporary name, synced and renamed, so that whatever kills the
//! program leaves either no file or a whole one. The files hold the answers of other people's jobs
//! in clear, readable by this user alone (mode 0600 on Unix), and are removed once settled.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use neurino_core::{JobOutput, LeaseId};
use neurino_protocol::node::Submission;
use serde::{Deserialize, Serialize};

use crate::error::MinerError;

const VERSION: u32 = 1;
/// Prefix of files that a crash may leave half written.
const TEMPORARY: &str = ".writing-";

/// A finished job, signed by the key that held the lease.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finished {
    version: u32,
    /// The network that gave the job; no other is sent the result.
    pub(crate) network: String,
    /// When it was finished, in milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
    /// What is sent.
    pub(crate) submission: Submission,
}

impl Finished {
    pub(crate) fn new(network: String, at_ms: i64, submission: Submission) -> Self {
        Self { version: VERSION, network, at_ms, submission }
    }

    pub(crate) fn lease(&self) -> LeaseId {
        self.submission.statement.lease
    }
}

/// The folder and what is in it.
pub(crate) struct Outbox {
    dir: PathBuf,
    entries: BTreeMap<LeaseId, Finished>,
}

impl Outbox {
    /// Opens the folder (made where it is missing) and reads what an earlier run left. A file that
    /// cannot be read is renamed to `NAME.damaged` with a line in the log.
    pub(crate) fn open(dir: &Path) -> Result<Self, MinerError> {
        make_private_dir(dir).map_err(MinerError::io("make the folder", dir))?;
        let mut entries = BTreeMap::new();
        for file in std::fs::read_dir(dir).map_err(MinerError::io("list", dir))? {
            let path = file.map_err(MinerError::io("list", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) {
                // Never renamed, so never promised to anybody.
                let _ = std::fs::remove_file(&path);
            } else if path.extension().is_some_and(|ext| ext == "json") {
                match read(&path, &name) {
                    Ok(finished) => {
                        entries.insert(finished.lease(), finished);
                    }
                    Err(error) => set_aside(&path, &name, &error),
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), entries })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the oldest result was finished, in milliseconds since the Unix epoch.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.entries.values().map(|finished| finished.at_ms).min()
    }

    pub(crate) fn get(&self, lease: LeaseId) -> Option<&Finished> {
        self.entries.get(&lease)
    }

    /// Adds a result that [`save`] has written, or could not write: it is then sent from memory.
    pub(crate) fn add(&mut self, finished: Finished) {
        self.entries.insert(finished.lease(), finished);
    }

    /// Bytes that the results for a network take on a link, nearly.
    pub(crate) fn upload_bytes(&self, network: &str) -> usize {
        let waiting = self.entries.values().filter(|f| f.network == network);
        waiting.map(|f| upload_bytes(&f.submission.output)).sum()
    }

    /// Results for a network, oldest first.
    pub(crate) fn of_network(&self, network: &str) -> Vec<&Finished> {
        let mut found: Vec<_> = self.entries.values().filter(|f| f.network == network).collect();
        found.sort_by_key(|f| f.at_ms);
        found
    }

    /// Forgets a result that was answered; the file goes too.
    pub(crate) fn remove(&mut self, lease: LeaseId) {
        self.entries.remove(&lease);
        let path = path_of(&self.dir, lease);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Harmless but for the space: a repeat gets the same answer.
                tracing::warn!(%error, "a settled result cannot be removed from the outbox");
            }
            _ => {}
        }
    }
}

fn upload_bytes(output: &JobOutput) -> usize {
    match output {
        // Base64.
        JobOutput::Image(picture) => picture.png.0.len() / 3 * 4,
        // Small in comparison, whatever it says.
        JobOutput::Text(_) => 0,
    }
}

/// Writes a result durably. Blocks for the disk.
pub(crate) fn save(dir: &Path, finished: &Finished) -> Result<(), MinerError> {
    let path = path_of(dir, finished.lease());
    let bytes = serde_json::to_vec(finished).expect("strings and integers always serialise");
    write_durably(dir, &path, &bytes).map_err(MinerError::io("write", &path))
}

fn write_durably(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_dir(dir)
}

/// Makes a rename survive a power cut; Windows journals it by itself and cannot open folders.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn path_of(dir: &Path, lease: LeaseId) -> PathBuf {
    dir.join(format!("{lease}.json"))
}

fn read(path: &Path, name: &str) -> Result<Finished, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    // serde_json's message may quote the file, which holds an answer.
    let finished: Finished = serde_json::from_slice(&bytes)
        .map_err(|e| format!("no JSON of ours: {:?}", e.classify()))?;
    let submission = &finished.submission;
    if finished.version != VERSION {
        Err(format!("version {} is not {VERSION}", finished.version))
    } else if name != format!("{}.json", finished.lease()) {
        Err("its name is not its lease".into())
    } else if submission.output.digest() != submission.statement.digest {
        Err("its result does not match its digest".into())
    } else {
        Ok(finished)
    }
}

fn set_aside(path: &Path, name: &str, error: &str) {
    let aside = path.with_file_name(format!("{name}.damaged"));
    tracing::warn!(file = name, error, "a file of the outbox is damaged and set aside: {error}");
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!(file = name, %error, "it cannot be renamed either and stays where it is");
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::{FinishReason, JobId, NodeId, ResultStatement, TextOutput, Usage};
    use uuid::Uuid;

    use super::*;

    fn finished(text: &str, at: i64) -> Finished {
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2 };
        let output = JobOutput::Text(TextOutput::single(text, FinishReason::Stop, usage));
        let statement = ResultStatement {
            job: JobId(Uuid::now_v7()),
            lease: LeaseId(Uuid::new_v4()),
            fence: 1,
            node: NodeId::new("0xab").expect("valid"),
            digest: output.digest(),
        };
        let submission = Submission { statement, signature: "0x".into(), output };
        Finished::new("net".into(), at, submission)
    }

    #[test]
    fn results_survive_until_they_are_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, b) = (finished("a", 2), finished("b", 1));
        save(dir.path(), &a).expect("saved");
        save(dir.path(), &b).expect("saved");
        save(dir.path(), &b).expect("saving again is free");
        let mut outbox = Outbox::open(dir.path()).expect("opened");
        let order: Vec<_> = outbox.of_network("net").iter().map(|f| f.lease()).collect();
        assert_eq!(order, [b.lease(), a.lease()], "oldest first");
        assert!(outbox.of_network("other").is_empty());
        outbox.remove(a.lease());
        let again = Outbox::open(dir.path()).expect("opened");
        assert!(again.len() == 1 && again.get(b.lease()).is_some_and(|f| *f == b));
    }

    #[test]
    fn damaged_files_are_set_aside_and_half_written_ones_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = finished("whole", 1);
        save(dir.path(), &whole).expect("saved");
        let torn = finished("torn", 1);
        let mut bytes = serde_json::to_vec(&torn).expect("serialises");
        bytes.truncate(bytes.len() / 2);
        std::fs::write(path_of(dir.path(), torn.lease()), bytes).expect("written");
        let mut forged = finished("forged", 1);
        forged.submission.output = finished("something else", 1).submission.output;
        save(dir.path(), &forged).expect("saved");
        std::fs::write(dir.path().join(format!("{TEMPORARY}x")), "half").expect("written");

        let outbox = Outbox::open(dir.path()).expect("damage is not fatal");
        assert!(outbox.len() == 1 && outbox.get(whole.lease()).is_some());
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .expect("listed")
            .map(|f| f.expect("listed").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.iter().filter(|n| n.ends_with(".damaged")).count(), 2, "{names:?}");
        assert!(!names.iter().any(|n| n.starts_with(TEMPORARY)), "{names:?}");
    }

    #[cfg(unix)]
    #[test]
    fn only_this_user_can_read_results() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("outbox");
        let outbox = Outbox::open(&dir).expect("opened");
        let result = finished("a", 1);
        save(outbox.dir(), &result).expect("saved");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&path_of(&dir, result.lease())), 0o600);
    }
}
