//! A file on a web server: continued where it broke off, hashed while it arrives.

use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

use super::{Job, off_thread};
use crate::catalog::{ModelFile, is_loopback};
use crate::error::SourceError;
use crate::part::{Origin, PartFile};

/// A machine without a way out should come to the next source soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte for so long, the connection is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS_MAX: u32 = 5;
const REDIRECTS_MAX: usize = 10;
/// Chunks of some 16 KB that may wait for the drive.
const CHUNKS_WAITING: usize = 64;

/// An attempt that gave no file, and whether another makes sense.
struct Failed {
    error: SourceError,
    again: Again,
}

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

/// Downloads `url` into the part file.
pub(crate) async fn fetch(url: &str, job: &Job<'_>) -> Result<(), SourceError> {
    let url = Url::parse(url).map_err(|_| SourceError::Redirect { host: url.to_owned() })?;
    let client = client(&url)?;
    let mut wait = job.options.retry_wait;
    let mut attempt_no = 1;
    loop {
        let Err(failed) = attempt(&client, &url, job).await else { return Ok(()) };
        match failed.again {
            _ if attempt_no == ATTEMPTS_MAX => return Err(failed.error),
            Again::No => return Err(failed.error),
            Again::Now => {}
            Again::Later => {
                tracing::debug!(error = %failed.error, attempt_no, "asking {} again", host(&url));
                tokio::select! {
                    () = job.cancel.cancelled() => return Err(SourceError::Cancelled),
                    () = tokio::time::sleep(wait) => wait *= 2,
                }
            }
        }
        attempt_no += 1;
    }
}

fn client(url: &Url) -> Result<Client, SourceError> {
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
        .read_timeout(READ_TIMEOUT)
        .redirect(policy);
    // A proxy cannot reach this machine's own servers.
    let builder = if local { builder.no_proxy() } else { builder };
    builder.build().map_err(|source| SourceError::Connect { host: host(url), source })
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

async fn attempt(client: &Client, url: &Url, job: &Job<'_>) -> Result<(), Failed> {
    let (path, file) = (job.part.clone(), job.file.clone());
    let part = off_thread(job, move |_, _| PartFile::resume(&path, &file)).await?;
    let resumed_bytes = part.done_bytes();
    (job.report)(resumed_bytes);

    let part = if resumed_bytes == job.file.size_bytes {
        part
    } else {
        let response = ask(client, url, job, resumed_bytes).await?;
        let part = accept_answer(&response, url, job.file, part)?;
        receive(response, url, job, part).await?
    };
    let file = job.file.clone();
    match off_thread(job, move |_, _| part.finish(&file)).await {
        // The beginning came from an older or damaged part, which is gone now.
        Err(error @ SourceError::WrongDigest { .. }) if resumed_bytes > 0 => {
            Err(Failed { error, again: Again::Now })
        }
        outcome => Ok(outcome?),
    }
}

/// Sends the request, for the rest of the file if a part is there.
async fn ask(
    client: &Client,
    url: &Url,
    job: &Job<'_>,
    resumed_bytes: u64,
) -> Result<Response, Failed> {
    let mut request = client.get(url.clone());
    if resumed_bytes > 0 {
        request = request.header(RANGE, format!("bytes={resumed_bytes}-"));
        let origin = Origin::read(&job.part).filter(|origin| origin.url == url.as_str());
        if let Some(etag) = origin.and_then(|origin| origin.etag) {
            request = request.header(IF_RANGE, etag);
        }
    }
    let response = tokio::select! {
        () = job.cancel.cancelled() => return Err(SourceError::Cancelled.into()),
        response = request.send() => response,
    };
    response.map_err(|error| {
        let source = error.without_url();
        let host = host(url);
        if source.is_redirect() {
            SourceError::Redirect { host }.into()
        } else if source.is_connect() {
            // No retry: who is offline now is offline in a second, and other sources wait.
            SourceError::Connect { host, source }.into()
        } else {
            let (done_bytes, total_bytes) = (resumed_bytes, job.file.size_bytes);
            let source = Some(source);
            Failed {
                error: SourceError::Interrupted { host, done_bytes, total_bytes, source },
                again: Again::Later,
            }
        }
    })
}

/// Judges status and headers, and makes the part agree with what will arrive.
fn accept_answer(
    response: &Response,
    url: &Url,
    file: &ModelFile,
    mut part: PartFile,
) -> Result<PartFile, Failed> {
    let status = response.status();
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let range = content_range(response.headers());
            if range.is_none_or(|(start, _)| start != part.done_bytes()) {
                part.restart()?;
                let error = SourceError::Status { host: host(url), status: status.as_u16() };
                return Err(Failed { error, again: Again::Now });
            }
            if let Some((_, Some(found_bytes))) = range
                && found_bytes != file.size_bytes
            {
                return Err(wrong_size(file, found_bytes));
            }
        }
        StatusCode::OK => {
            if let Some(found_bytes) = response.content_length()
                && found_bytes != file.size_bytes
            {
                return Err(wrong_size(file, found_bytes));
            }
            part.restart()?;
        }
        StatusCode::RANGE_NOT_SATISFIABLE if part.done_bytes() > 0 => {
            part.restart()?;
            let error = SourceError::Status { host: host(url), status: status.as_u16() };
            return Err(Failed { error, again: Again::Now });
        }
        _ => {
            let again = if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                Again::Later
            } else {
                Again::No
            };
            let error = SourceError::Status { host: host(url), status: status.as_u16() };
            return Err(Failed { error, again });
        }
    }
    let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok());
    // A weak validator promises the same meaning, not the same bytes.
    let etag = etag.filter(|etag| !etag.starts_with("W/")).map(str::to_owned);
    Origin { url: url.to_string(), etag }.note(part.path());
    Ok(part)
}

fn wrong_size(file: &ModelFile, found_bytes: u64) -> Failed {
    SourceError::WrongSize { expected_bytes: file.size_bytes, found_bytes }.into()
}

/// Start and total of `bytes 100-199/200`; the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

/// Streams the body into the part. What has arrived stays on disk whatever happens.
async fn receive(
    mut response: Response,
    url: &Url,
    job: &Job<'_>,
    part: PartFile,
) -> Result<PartFile, Failed> {
    let total_bytes = job.file.size_bytes;
    let mut done_bytes = part.done_bytes();
    let (chunks, writer) = spawn_writer(part, job.file.clone());
    let ended = loop {
        let chunk = tokio::select! {
            biased;
            () = job.cancel.cancelled() => break Err(SourceError::Cancelled.into()),
            chunk = response.chunk() => chunk,
        };
        match chunk {
            Ok(Some(chunk)) => {
                done_bytes += chunk.len() as u64;
                // The writer left: it says why below.
                if chunks.send(chunk.into()).await.is_err() {
                    break Ok(());
                }
                (job.report)(done_bytes.min(total_bytes));
            }
            Ok(None) if done_bytes >= total_bytes => break Ok(()),
            broken => {
                let source = broken.err().map(reqwest::Error::without_url);
                let host = host(url);
                break Err(Failed {
                    error: SourceError::Interrupted { host, done_bytes, total_bytes, source },
                    again: Again::Later,
                });
            }
        }
    };
    drop(chunks);
    let written = match writer.await {
        Ok(written) => written,
        Err(_) => Err(SourceError::Cancelled),
    };
    ended?;
    Ok(written?)
}

/// A thread that appends what it is sent, until the sender is gone. Async threads never wait for
/// the drive, and a slow drive slows the download down.
fn spawn_writer(
    mut part: PartFile,
    file: ModelFile,
) -> (mpsc::Sender<Vec<u8>>, JoinHandle<Result<PartFile, SourceError>>) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(CHUNKS_WAITING);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            part.write(&chunk, &file)?;
        }
        Ok(part)
    });
    (sender, writer)
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
        assert_eq!(read("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(read("bytes 7-9/*"), Some((7, None)));
        for bad in ["bytes */200", "items 1-2/3", "bytes 1/2", "bytes a-b/c", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(content_range(&HeaderMap::new()), None);
    }
}
