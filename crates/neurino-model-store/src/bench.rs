//! How fast a download can be on this machine: from a server in the same process, beside what SHA-256
//! alone does with the same bytes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_core::{JobKind, ModelId};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, ModelFile, ModelManifest, Source};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::fetch::FetchOptions;
use crate::store::ModelStore;

/// The content repeats after so many bytes: an odd number, so that no two chunks are alike.
const PATTERN_BYTES: usize = (8 << 20) + 7;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DownloadBench {
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 of these bytes from memory, nothing else, in bytes in a second.
    pub sha256_bytes_per_s: f64,
    /// The whole download: fetched, written, hashed, on the drive, renamed.
    pub download_bytes_per_s: f64,
    /// The same up to the last hashed byte, without waiting for the drive at the end.
    pub arrived_bytes_per_s: f64,
}

impl DownloadBench {
    /// The download beside the bare hash; 1 means that nothing is lost.
    pub fn ratio(&self) -> f64 {
        self.download_bytes_per_s / self.sha256_bytes_per_s
    }

    /// The same without the wait for the drive at the end.
    pub fn arrived_ratio(&self) -> f64 {
        self.arrived_bytes_per_s / self.sha256_bytes_per_s
    }
}

/// Downloads a file of `size_bytes` from a server of this process into `folder`, and removes it again.
///
/// # Errors
/// As [`ModelStore::fetch`].
pub async fn measure(
    folder: &Path,
    size_bytes: u64,
    connections: u32,
) -> Result<DownloadBench, StoreError> {
    let pattern: Arc<Vec<u8>> = Arc::new(pattern());
    let hashed = {
        let pattern = pattern.clone();
        tokio::task::spawn_blocking(move || hash_alone(&pattern, size_bytes))
    };
    let (sha256, hash_time) = hashed.await.map_err(|_| StoreError::Cancelled)?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .map_err(|error| StoreError::io("open a port for", Path::new("127.0.0.1"), error))?;
    let address = listener
        .local_addr()
        .map_err(|error| StoreError::io("open a port for", Path::new("127.0.0.1"), error))?;
    serve(listener, &pattern, size_bytes);
    let manifest = manifest(format!("http://{address}/weights"), sha256, size_bytes)?;
    let model = manifest.id.clone();
    let catalog = Catalog::of(vec![manifest]);
    let store =
        ModelStore::open_with(folder, catalog, Box::new(|path| fs4::available_space(path)))?;
    let options = FetchOptions { connections, ..FetchOptions::default() };
    let begin = Instant::now();
    let arrived = std::sync::Mutex::new(Duration::ZERO);
    let tell = |now: crate::fetch::Progress| {
        if now.done_bytes == now.total_bytes
            && let Ok(mut at) = arrived.lock()
            && at.is_zero()
        {
            *at = begin.elapsed();
        }
    };
    let fetched = store.fetch(&model, &options, tell, CancellationToken::new()).await;
    let whole_time = begin.elapsed();
    store.remove(&model).await?;
    fetched?;
    let arrived_time = arrived.into_inner().unwrap_or(whole_time);
    let rate = |time: Duration| size_bytes as f64 / time.as_secs_f64().max(1e-9);
    Ok(DownloadBench {
        size_bytes,
        sha256_bytes_per_s: rate(hash_time),
        download_bytes_per_s: rate(whole_time),
        arrived_bytes_per_s: rate(if arrived_time.is_zero() { whole_time } else { arrived_time }),
    })
}

fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..PATTERN_BYTES).map(|_| next()).collect()
}

fn hash_alone(pattern: &[u8], size_bytes: u64) -> (Digest, Duration) {
    let begin = Instant::now();
    let (mut hasher, mut rest) = (Sha256::new(), size_bytes);
    while rest > 0 {
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(pattern.len());
        hasher.update(&pattern[..count]);
        rest -= count as u64;
    }
    (Digest::of_hasher(hasher), begin.elapsed())
}

fn manifest(url: String, sha256: Digest, size_bytes: u64) -> Result<ModelManifest, StoreError> {
    let sources = vec![Source::Http { url }];
    let file = ModelFile { name: "weights".into(), sha256, size_bytes, sources, pieces: None };
    let id = ModelId::new("bench-download").expect("it has no blanks");
    ModelManifest {
        name: id.to_string(),
        id,
        summary: "A file for a measurement.".into(),
        family: "bench".into(),
        kind: JobKind::Text,
        arch: "none".into(),
        dtype: "none".into(),
        context_tokens: 1,
        image: None,
        memory_bytes_min: 0,
        licence: "CC0-1.0".into(),
        attribution: "nobody".into(),
        files: vec![file],
    }
    .checked()
}

/// Answers requests for parts of the pattern, a thread for each connection. The threads end with their
/// connections; the one that listens, with the process.
fn serve(listener: TcpListener, pattern: &Arc<Vec<u8>>, size_bytes: u64) {
    let pattern = pattern.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pattern = pattern.clone();
            std::thread::spawn(move || {
                let _ = answer_all(stream, &pattern, size_bytes);
            });
        }
    });
}

fn answer_all(stream: TcpStream, pattern: &[u8], size_bytes: u64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut range = None;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(asked) = lower.strip_prefix("range: bytes=") {
                let bounds = asked.trim().split_once('-');
                range = bounds.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            }
        }
        let (first, last): (u64, u64) = range.unwrap_or((0, size_bytes - 1));
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {first}-{last}/{size_bytes}\r\n\r\n",
            last - first + 1
        )?;
        let (mut at, length) = (first, pattern.len() as u64);
        while at <= last {
            let begin = usize::try_from(at % length).unwrap_or(0);
            let rest = usize::try_from(last - at + 1).unwrap_or(usize::MAX);
            let piece = &pattern[begin..];
            let piece = &piece[..piece.len().min(rest).min(1 << 20)];
            stream.write_all(piece)?;
            at += piece.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_measurement_leaves_nothing_and_its_numbers_make_sense() {
        let folder = tempfile::tempdir().expect("a folder");
        let bench = measure(folder.path(), 20_000_003, 2).await.expect("it downloads");
        assert!(bench.sha256_bytes_per_s > 1e6 && bench.download_bytes_per_s > 1e6, "{bench:?}");
        assert!(bench.arrived_bytes_per_s >= bench.download_bytes_per_s);
        assert!(!folder.path().join("bench-download").exists());
    }
}
