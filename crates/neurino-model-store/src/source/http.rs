//! A file on a web server, over one or several connections: each chunk of it is kept as soon as it is
//! whole, and what broke off is continued at the very byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

use super::transfer::{Arrived, Claim, Ranges, Span, Transfer};
use super::{Job, off_thread};
use crate::catalog::is_loopback;
use crate::error::SourceError;

/// A machine without a way out should come to the next source soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// So many tries of a connection without a new chunk, and the source is given up.
const ATTEMPTS_MAX: u32 = 5;
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
/// Whole chunks of a connection that may wait for the drive.
const CHUNKS_WAITING: usize = 4;
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// An attempt that did not bring its whole span, and whether another makes sense.
struct Failed {
    error: SourceError,
    again: Again,
}

#[derive(Clone, Copy)]
enum Again {
    No,
    Now,
    Later,
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self { error, again: Again::No }
    }
}

/// What the connections of a download share.
struct Download<'a> {
    job: &'a Job<'a>,
    client: Client,
    url: Url,
    transfer: Arc<Transfer>,
    /// Connections that have not given up.
    alive: AtomicU32,
    /// Whether the server has ever answered: then a lost connection may come back.
    answered: AtomicBool,
    /// Where the server leads to, so that not every span asks for the way again.
    resolved: std::sync::Mutex<Option<Url>>,
}

/// Ends the work on other threads when the future is dropped.
struct EndOnDrop(Arc<Transfer>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Err(SourceError::Cancelled));
    }
}

/// Downloads `url` into the part file.
pub(crate) async fn fetch(url: &str, job: &Job<'_>) -> Result<(), SourceError> {
    let url = Url::parse(url).map_err(|_| SourceError::Redirect { host: url.to_owned() })?;
    let client = client(&url, job.options.stall_wait)?;
    let (path, file) = (job.part.clone(), job.file.clone());
    let (chunk_bytes, connections) = (job.options.chunk_bytes, job.options.connections.max(1));
    let opened =
        off_thread(job, move |_, _| Transfer::open(&path, &file, chunk_bytes, connections));
    let (transfer, arriving) = opened.await?;
    let _end = EndOnDrop(transfer.clone());
    let hash = tokio::task::spawn_blocking({
        let transfer = transfer.clone();
        move || transfer.hash(arriving)
    });
    let download = Download {
        job,
        client,
        url,
        transfer: transfer.clone(),
        alive: AtomicU32::new(connections),
        answered: AtomicBool::new(false),
        resolved: std::sync::Mutex::default(),
    };
    let mut working: FuturesUnordered<_> = (0..connections).map(|_| download.work()).collect();
    let mut tick = tokio::time::interval(REPORT_EVERY);
    let mut cancelled = false;
    loop {
        tokio::select! {
            next = working.next() => if next.is_none() { break },
            _ = tick.tick() => (job.report)(transfer.done_bytes().min(job.file.size_bytes)),
            () = job.cancel.cancelled(), if !cancelled => {
                cancelled = true;
                transfer.end(Err(SourceError::Cancelled));
            }
        }
    }
    (job.report)(transfer.done_bytes().min(job.file.size_bytes));
    let _ = hash.await;
    transfer.outcome()
}

/// Asks a server how long a file is, without fetching it.
pub(crate) async fn size_of(url: &str) -> Result<u64, SourceError> {
    let url = Url::parse(url).map_err(|_| SourceError::Redirect { host: url.to_owned() })?;
    let client = client(&url, Duration::from_secs(30))?;
    let request = client.head(url.clone()).header(ACCEPT_ENCODING, "identity");
    let response = request.send().await.map_err(|error| unanswered(&url, error))?;
    let status = response.status();
    let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match length.and_then(|length| length.parse().ok()) {
        Some(size_bytes) if status.is_success() && size_bytes > 0 => Ok(size_bytes),
        _ => Err(SourceError::Status { host: host(&url), status: status.as_u16() }),
    }
}

/// Reads a small text, of at most `bytes_max`.
pub(crate) async fn text_of(url: &str, bytes_max: usize) -> Result<String, SourceError> {
    let url = Url::parse(url).map_err(|_| SourceError::Redirect { host: url.to_owned() })?;
    let client = client(&url, Duration::from_secs(30))?;
    let mut response =
        client.get(url.clone()).send().await.map_err(|error| unanswered(&url, error))?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(SourceError::Status { host: host(&url), status });
    }
    let mut bytes = Vec::new();
    let broken = |error: reqwest::Error| SourceError::CutOff {
        host: host(&url),
        source: error.without_url(),
    };
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if bytes.len() + piece.len() > bytes_max {
            let found_bytes = (bytes.len() + piece.len()) as u64;
            return Err(SourceError::WrongSize { expected_bytes: bytes_max as u64, found_bytes });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a server gave no answer.
fn unanswered(url: &Url, error: reqwest::Error) -> SourceError {
    let (host, source) = (host(url), error.without_url());
    if source.is_redirect() {
        return SourceError::Redirect { host };
    }
    SourceError::Connect { host, source }
}

fn client(url: &Url, stall_wait: Duration) -> Result<Client, SourceError> {
    let local = is_loopback(url);
    let policy = redirect::Policy::custom(move |attempt| {
        let target = attempt.url();
        let allowed = target.scheme() == "https" || local && is_loopback(target);
        if !allowed || attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("the redirect is not allowed")
        } else {
            attempt.follow()
        }
    });
    let builder = Client::builder()
        .user_agent(concat!("neurino/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(stall_wait)
        // Several connections: over one of HTTP/2 they would share its window.
        .http1_only()
        .redirect(policy);
    // A proxy cannot reach this machine's own servers.
    let builder = if local { builder.no_proxy() } else { builder };
    builder.build().map_err(|source| SourceError::Connect { host: host(url), source })
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

impl Download<'_> {
    /// One connection: claims, fetches, and tries again until the transfer ends or it gives up.
    async fn work(&self) {
        let mut changes = self.transfer.changes();
        let mut wait = self.job.options.retry_wait;
        let mut failures = 0;
        loop {
            changes.mark_unchanged();
            let span = match self.transfer.claim() {
                Claim::Fetch(span) => span,
                Claim::End => return,
                Claim::Wait => {
                    let _ = changes.changed().await;
                    continue;
                }
            };
            let (outcome, gained) = self.fetch_span(&span).await;
            if gained {
                failures = 0;
                wait = self.job.options.retry_wait;
            }
            let Err(failed) = outcome else { continue };
            failures += 1;
            let fatal = matches!(failed.again, Again::No);
            if fatal || failures >= ATTEMPTS_MAX {
                // A server may allow fewer connections than we would like.
                let last = self.alive.fetch_sub(1, Ordering::Relaxed) == 1;
                if fatal || last {
                    self.transfer.end(Err(failed.error));
                }
                return;
            }
            if matches!(failed.again, Again::Later) {
                let host = host(&self.url);
                tracing::debug!(error = %failed.error, failures, "asking {host} again");
                tokio::select! {
                    () = self.job.cancel.cancelled() => return,
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_WAIT_MAX),
                }
            }
        }
    }

    /// Fetches a span; says whether at least one chunk of it became whole.
    async fn fetch_span(&self, span: &Span) -> (Result<(), Failed>, bool) {
        let mut stream = Stream { at: span.first, ..Stream::default() };
        let (chunks, writer) = self.spawn_writer();
        let outcome = self.stream_span(span, &mut stream, &chunks).await;
        drop(chunks);
        let (written, gained) = writer.await.unwrap_or((Err(SourceError::Cancelled), false));
        self.transfer.arrived(stream.counted_bytes);
        let begun =
            (!stream.pieces.is_empty()).then(|| (stream.at, std::mem::take(&mut stream.pieces)));
        let (transfer, span, untouched) = (self.transfer.clone(), span.clone(), !stream.touched);
        let release = move || transfer.release(&span, begun, untouched);
        // To the end, even when the caller leaves: what has come is kept.
        let _ = tokio::task::spawn_blocking(release).await;
        (written.map_err(Failed::from).and(outcome), gained)
    }

    async fn stream_span(
        &self,
        span: &Span,
        stream: &mut Stream,
        chunks: &mpsc::Sender<Arrived>,
    ) -> Result<(), Failed> {
        let begun = {
            let (transfer, span) = (self.transfer.clone(), span.clone());
            off_thread(self.job, move |_, _| transfer.begun(&span)).await?
        };
        if let Some(begun) = begun {
            stream.counted_bytes = begun.len() as u64;
            self.transfer.arriving(stream.counted_bytes);
            stream.held = u32::try_from(begun.len()).unwrap_or(u32::MAX);
            stream.pieces.push(begun);
        }
        let cut = self.transfer.cut;
        let begin = cut.start(span.first) + u64::from(stream.held);
        let end = (cut.start(span.end - 1) + u64::from(cut.len(span.end - 1))).max(begin);
        let response = self.ask(begin, end).await?;
        let body = self.judge(&response, begin, end)?;
        self.receive(response, &body, stream, chunks).await
    }

    /// Asks for bytes `begin..end`; for the file as such if that is all of it, or all there is.
    async fn ask(&self, begin: u64, end: u64) -> Result<Response, Failed> {
        let resolved = self.resolved().clone();
        let direct = resolved.is_none();
        let mut request = self.client.get(resolved.unwrap_or_else(|| self.url.clone()));
        request = request.header(ACCEPT_ENCODING, "identity");
        let whole = begin == 0 && end == self.job.file.size_bytes;
        if !whole && self.transfer.ranges() != Ranges::Refused {
            request = request.header(RANGE, format!("bytes={begin}-{}", end - 1));
        }
        let response = tokio::select! {
            () = self.job.cancel.cancelled() => return Err(SourceError::Cancelled.into()),
            response = request.send() => response,
        };
        let response = response.map_err(|error| {
            let source = error.without_url();
            let host = host(&self.url);
            let answered = self.answered.load(Ordering::Relaxed);
            if source.is_redirect() {
                return SourceError::Redirect { host }.into();
            }
            if source.is_connect() {
                // Who is offline now is offline in a second, and other sources wait; but a line that
                // was there a moment ago may come back.
                let again = if answered { Again::Later } else { Again::No };
                return Failed { error: SourceError::Connect { host, source }, again };
            }
            Failed { error: self.interrupted(Some(source)), again: Again::Later }
        })?;
        let status = response.status();
        self.answered.store(true, Ordering::Relaxed);
        if !direct && status.is_client_error() && status != StatusCode::RANGE_NOT_SATISFIABLE {
            // The way that the server once showed has expired.
            *self.resolved() = None;
            return Err(Failed { error: self.status(status), again: Again::Now });
        }
        if status.is_success() && response.url() != &self.url {
            *self.resolved() = Some(response.url().clone());
        }
        Ok(response)
    }

    fn resolved(&self) -> std::sync::MutexGuard<'_, Option<Url>> {
        self.resolved.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn status(&self, status: StatusCode) -> SourceError {
        SourceError::Status { host: host(&self.url), status: status.as_u16() }
    }

    fn interrupted(&self, source: Option<reqwest::Error>) -> SourceError {
        SourceError::Interrupted {
            host: host(&self.url),
            done_bytes: self.transfer.done_bytes().min(self.job.file.size_bytes),
            total_bytes: self.job.file.size_bytes,
            source,
        }
    }

    /// Judges status and headers: which bytes will come.
    fn judge(&self, response: &Response, begin: u64, end: u64) -> Result<Body, Failed> {
        let (status, size_bytes) = (response.status(), self.job.file.size_bytes);
        let wrong_size = |found_bytes| -> Failed {
            SourceError::WrongSize { expected_bytes: size_bytes, found_bytes }.into()
        };
        let odd = || {
            // It does not give what it is asked for; as a whole it may.
            self.transfer.set_ranges(Ranges::Refused);
            Err(Failed { error: self.status(status), again: Again::Now })
        };
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let Some((first, last, total)) = content_range(response.headers()) else {
                    return odd();
                };
                if let Some(found_bytes) = total.filter(|total| *total != size_bytes) {
                    return Err(wrong_size(found_bytes));
                }
                if first != begin || last < first {
                    return odd();
                }
                if self.transfer.ranges() == Ranges::Unknown {
                    self.transfer.set_ranges(Ranges::Given);
                }
                Ok(Body { begin, end: end.min(last + 1), whole: false })
            }
            StatusCode::OK => {
                if let Some(found_bytes) = response.content_length()
                    && found_bytes != size_bytes
                {
                    return Err(wrong_size(found_bytes));
                }
                let asked_for_part = begin > 0 || end < size_bytes;
                if asked_for_part && self.transfer.ranges() != Ranges::Refused {
                    // One connection that claims all is what fits such a server.
                    self.transfer.set_ranges(Ranges::Refused);
                }
                if begin > 0 {
                    // The file from its beginning does not belong here, whoever found out first that
                    // ranges are refused.
                    return Err(Failed { error: self.status(status), again: Again::Now });
                }
                Ok(Body { begin: 0, end: size_bytes, whole: response.content_length().is_none() })
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total = response.headers().get(CONTENT_RANGE);
                let total = total.and_then(|value| value.to_str().ok()?.strip_prefix("bytes */"));
                match total.and_then(|total| total.parse().ok()) {
                    Some(found_bytes) if found_bytes != size_bytes => Err(wrong_size(found_bytes)),
                    _ => odd(),
                }
            }
            _ => {
                let busy = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                let again = if busy { Again::Later } else { Again::No };
                Err(Failed { error: self.status(status), again })
            }
        }
    }

    /// Streams the body, chunk by chunk, to the writer.
    async fn receive(
        &self,
        mut response: Response,
        body: &Body,
        stream: &mut Stream,
        chunks: &mpsc::Sender<Arrived>,
    ) -> Result<(), Failed> {
        let cut = self.transfer.cut;
        let mut offset = body.begin;
        while offset < body.end {
            let piece = tokio::select! {
                biased;
                () = self.job.cancel.cancelled() => return Err(SourceError::Cancelled.into()),
                piece = response.chunk() => piece,
            };
            let mut piece = match piece {
                Ok(Some(piece)) => piece,
                broken => {
                    let source = broken.err().map(reqwest::Error::without_url);
                    return Err(Failed { error: self.interrupted(source), again: Again::Later });
                }
            };
            if let Some(throttle) = &self.job.options.throttle {
                tokio::select! {
                    biased;
                    () = self.job.cancel.cancelled() => return Err(SourceError::Cancelled.into()),
                    () = throttle.take(piece.len() as u64) => {}
                }
            }
            while !piece.is_empty() && offset < body.end {
                if stream.held == 0 {
                    // Of a file that comes whole, what is here already is passed over.
                    stream.skips = !self.transfer.is_missing(stream.at);
                }
                let rest = cut.len(stream.at) - stream.held;
                let count = piece.len().min(rest as usize);
                let taken = piece.split_to(count);
                offset += count as u64;
                stream.held += u32::try_from(count).unwrap_or(rest);
                stream.touched = true;
                if !stream.skips {
                    stream.counted_bytes += count as u64;
                    self.transfer.arriving(count as u64);
                    stream.pieces.push(taken);
                }
                if stream.held == cut.len(stream.at) {
                    let pieces = std::mem::take(&mut stream.pieces);
                    let index = stream.at;
                    *stream = Stream { at: index + 1, touched: true, ..Stream::default() };
                    if !pieces.is_empty() && chunks.send((index, pieces)).await.is_err() {
                        // The writer left: it says why.
                        return Ok(());
                    }
                }
            }
            if !piece.is_empty() && body.end == cut.size_bytes {
                return Err(self.too_much(offset + piece.len() as u64));
            }
        }
        // A server that did not say how much would come may go on.
        if body.whole
            && let Ok(Some(more)) = response.chunk().await
        {
            return Err(self.too_much(offset + more.len() as u64));
        }
        Ok(())
    }

    fn too_much(&self, found_bytes: u64) -> Failed {
        SourceError::WrongSize { expected_bytes: self.job.file.size_bytes, found_bytes }.into()
    }

    /// A thread that puts whole chunks in their places, until the sender is gone. Async threads never
    /// wait for the drive, and a slow drive slows the download down.
    fn spawn_writer(&self) -> (mpsc::Sender<Arrived>, JoinHandle<Written>) {
        let (sender, mut chunks) = mpsc::channel::<Arrived>(CHUNKS_WAITING);
        let transfer = self.transfer.clone();
        let writer = tokio::task::spawn_blocking(move || {
            let mut gained = false;
            while let Some((index, pieces)) = chunks.blocking_recv() {
                match transfer.put(index, pieces) {
                    Ok(good) => gained |= good,
                    Err(error) => return (Err(error), gained),
                }
            }
            (Ok(()), gained)
        });
        (sender, writer)
    }
}

/// How a writer ended, and whether it put a chunk in its place before.
type Written = (Result<(), SourceError>, bool);

/// Which bytes an answer brings.
struct Body {
    begin: u64,
    end: u64,
    /// The file as such, of a length that the server did not tell.
    whole: bool,
}

/// The chunk that a connection is in.
#[derive(Default)]
struct Stream {
    at: u32,
    /// Bytes of it that have gone by.
    held: u32,
    pieces: Vec<Bytes>,
    /// Bytes of it that the progress counts.
    counted_bytes: u64,
    /// It is here already.
    skips: bool,
    /// Whether anything has come.
    touched: bool,
}

/// First, last and total of `bytes 100-199/200`; the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().expect("a header value"));
            content_range(&headers)
        };
        assert_eq!(read("bytes 100-199/200"), Some((100, 199, Some(200))));
        assert_eq!(read("bytes 7-9/*"), Some((7, 9, None)));
        for bad in ["bytes */200", "items 1-2/3", "bytes 1/2", "bytes a-b/c", "bytes 1-/9", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(content_range(&HeaderMap::new()), None);
    }
}
