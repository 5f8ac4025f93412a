//! Pictures as S3 takes them: `PUT` of one object, signed with the job's temporary credentials.
//!
//! One key, one lease, one kind of file, a bounded length; nothing can be read, listed or deleted.
//! The answers are S3's, so that any S3 client understands them.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use neurino_client::sigv4::{ALGORITHM, Canonical, Scope, UNSIGNED_PAYLOAD};
use neurino_core::{JobSpec, LeaseId, NodeId};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::super::Edge;
use super::super::http::read_within;
use crate::coordinator::{Coordinator, now_ms};
use crate::state::LeasePhase;
use crate::uploads::{BUCKET, Credentials, bytes_max, lease_of, object_key};

/// How far the clocks may be apart.
const SKEW_MS: i64 = 15 * 60 * 1000;
/// Headers that must be signed.
const SIGNED: [&str; 4] = ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];
/// A body in chunks whose digest follows it: how newer clients send over TLS.
const IN_CHUNKS: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// Room for the lengths of chunks and for what follows them, in bytes.
const CHUNKS_BYTES: usize = 64 << 10;

/// What S3 would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    AccessDenied(&'static str),
    InvalidAccessKeyId,
    SignatureDoesNotMatch,
    RequestTimeTooSkewed,
    ExpiredToken,
    MissingContentLength,
    EntityTooLarge,
    InvalidRequest(&'static str),
    BadDigest,
    SlowDown,
}

impl Fault {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        const DENIED: StatusCode = StatusCode::FORBIDDEN;
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            Self::AccessDenied(words) => (DENIED, "AccessDenied", words),
            Self::InvalidAccessKeyId => {
                (DENIED, "InvalidAccessKeyId", "no job has this access key")
            }
            Self::SignatureDoesNotMatch => {
                (DENIED, "SignatureDoesNotMatch", "the signature is not of this request")
            }
            Self::RequestTimeTooSkewed => {
                (DENIED, "RequestTimeTooSkewed", "the clocks are more than 15 minutes apart")
            }
            Self::ExpiredToken => (BAD, "ExpiredToken", "the job is over, and its credentials too"),
            Self::MissingContentLength => {
                (StatusCode::LENGTH_REQUIRED, "MissingContentLength", "say how long the file is")
            }
            Self::EntityTooLarge => {
                (BAD, "EntityTooLarge", "the job's picture cannot be that large")
            }
            Self::InvalidRequest(words) => (BAD, "InvalidRequest", words),
            Self::BadDigest => (BAD, "XAmzContentSHA256Mismatch", "the body has another digest"),
            Self::SlowDown => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "try again shortly"),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, code, words) = self.parts();
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Code>{code}</Code><Message>{words}</Message></Error>"
        );
        (status, [(CONTENT_TYPE, "application/xml")], xml).into_response()
    }
}

/// `PUT /heurist-images/{job_id}-{miner_id}.png`.
pub(super) async fn put(State(coordinator): State<Edge>, request: Request) -> Response {
    match take(&coordinator, request).await {
        Ok(tag) => (StatusCode::OK, [(ETAG, format!("\"{tag}\""))]).into_response(),
        Err(fault) => {
            tracing::debug!(?fault, "an upload was refused");
            fault.into_response()
        }
    }
}

async fn take(coordinator: &Coordinator, request: Request) -> Result<String, Fault> {
    let signed = Signed::read(request.headers())?;
    let lease = lease_of(signed.access_key).ok_or(Fault::InvalidAccessKeyId)?;
    let (node, size_max, deadline) = picture(coordinator, lease)?;
    let credentials = Credentials::of(&coordinator.miners.key, lease, &node);
    signed.check(&request, &credentials)?;
    // The path of an honest client holds nothing that is escaped.
    let expect = format!("/{BUCKET}/{}", object_key(lease, &node));
    if !request.uri().path().eq_ignore_ascii_case(&expect) {
        return Err(Fault::AccessDenied("these credentials are for another key"));
    }
    if request.uri().query().is_some_and(|query| query != "x-id=PutObject") {
        return Err(Fault::AccessDenied("these credentials are for one upload and nothing else"));
    }
    let (in_chunks, size) = (signed.payload == IN_CHUNKS, signed.size(request.headers())?);
    if size > size_max {
        return Err(Fault::EntityTooLarge);
    }
    let kind = header(request.headers(), CONTENT_TYPE.as_str()).unwrap_or("image/png");
    if !matches!(kind, "image/png" | "binary/octet-stream" | "application/octet-stream") {
        return Err(Fault::InvalidRequest("the file must be a PNG picture"));
    }
    let payload = signed.payload.to_owned();
    let left = deadline.saturating_duration_since(Instant::now());
    let room = if in_chunks { size + CHUNKS_BYTES } else { size };
    let body = read_within(request, room, left.max(Duration::from_millis(1))).await;
    let body = body.map_err(|_| Fault::InvalidRequest("the body is not as long as it was said"))?;
    let file = if in_chunks { unchunk(&body)? } else { body };
    if file.len() != size {
        return Err(Fault::InvalidRequest("the body is not as long as it was said"));
    }
    let digest = hex::encode(Sha256::digest(&file));
    if payload != UNSIGNED_PAYLOAD && !in_chunks && payload != digest {
        return Err(Fault::BadDigest);
    }
    // The lease may have ended meanwhile.
    picture(coordinator, lease)?;
    if !coordinator.miners.uploads.put(lease, file) {
        return Err(Fault::SlowDown);
    }
    Ok(digest[..32].to_owned())
}

/// Who holds a lease of a picture, how large its file may be, and until when.
fn picture(coordinator: &Coordinator, id: LeaseId) -> Result<(NodeId, usize, Instant), Fault> {
    let state = coordinator.state();
    let lease = state.leases.get(&id).filter(|l| l.phase == LeasePhase::Running);
    let lease = lease.filter(|l| Instant::now() < l.deadline).ok_or(Fault::ExpiredToken)?;
    match state.jobs.get(&lease.job).map(|job| &*job.spec) {
        Some(JobSpec::Image(job)) => Ok((lease.node.clone(), bytes_max(job), lease.deadline)),
        _ => Err(Fault::AccessDenied("this job's result is no picture")),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the headers say about the signature.
struct Signed<'a> {
    access_key: &'a str,
    scope: Scope<'a>,
    names: Vec<&'a str>,
    signature: &'a str,
    payload: &'a str,
}

impl<'a> Signed<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Fault> {
        const UNREADABLE: Fault = Fault::AccessDenied("the request is not signed as S3 asks for");
        let text = header(headers, AUTHORIZATION.as_str()).ok_or(UNREADABLE)?;
        let fields = text.strip_prefix(ALGORITHM).ok_or(UNREADABLE)?;
        let field = |name: &str| {
            let mut fields = fields.split(',').filter_map(|field| field.trim().split_once('='));
            fields.find(|(found, _)| *found == name).map(|(_, value)| value).ok_or(UNREADABLE)
        };
        let time = header(headers, "x-amz-date").ok_or(UNREADABLE)?;
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access_key, day, region, service, "aws4_request"] = credential[..] else {
            return Err(UNREADABLE);
        };
        let names: Vec<&str> = field("SignedHeaders")?.split(';').collect();
        let all = SIGNED.iter().all(|name| names.contains(name));
        if time.get(..8) != Some(day) || service != "s3" || !all || !names.is_sorted() {
            return Err(UNREADABLE);
        }
        Ok(Self {
            access_key,
            scope: Scope { time, region, service },
            names,
            signature: field("Signature")?,
            payload: header(headers, "x-amz-content-sha256").ok_or(UNREADABLE)?,
        })
    }

    /// Whether the request was signed with these credentials, lately.
    fn check(&self, request: &Request, credentials: &Credentials) -> Result<(), Fault> {
        let headers = request.headers();
        let time = DateTime::strptime("%Y%m%dT%H%M%SZ", self.scope.time)
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map_err(|_| Fault::AccessDenied("the request's date is none"))?;
        if (now_ms() - time.timestamp().as_millisecond()).abs() > SKEW_MS {
            return Err(Fault::RequestTimeTooSkewed);
        }
        let values = self.names.iter().map(|name| {
            let values: Vec<&str> =
                headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
            (*name, values.join(","))
        });
        let values: Vec<(&str, String)> = values.collect();
        // Clients name the query's fields in order; there is at most one.
        let canonical = Canonical {
            method: "PUT",
            path: request.uri().path(),
            query: request.uri().query().unwrap_or(""),
            headers: &values,
            payload: self.payload,
        };
        if !canonical.is_signed(&credentials.secret_key, &self.scope, self.signature) {
            return Err(Fault::SignatureDoesNotMatch);
        }
        // Signed with the secret, so the token says nothing new; a wrong one is still wrong.
        if header(headers, "x-amz-security-token") != Some(&credentials.token) {
            return Err(Fault::AccessDenied("the session token is another job's"));
        }
        Ok(())
    }

    /// The file's length, in bytes.
    fn size(&self, headers: &HeaderMap) -> Result<usize, Fault> {
        let in_chunks = self.payload == IN_CHUNKS;
        let name = if in_chunks { "x-amz-decoded-content-length" } else { CONTENT_LENGTH.as_str() };
        let size = header(headers, name).and_then(|length| length.parse().ok());
        size.ok_or(Fault::MissingContentLength)
    }
}

/// Takes a body in chunks apart: `LENGTH\r\n`, the bytes, `\r\n`, until a length of zero.
fn unchunk(mut body: &[u8]) -> Result<Vec<u8>, Fault> {
    const DAMAGED: Fault = Fault::InvalidRequest("the body's chunks are damaged");
    let mut file = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n").ok_or(DAMAGED)?;
        let length = std::str::from_utf8(&body[..end]).map_err(|_| DAMAGED)?;
        let digits = length.split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).map_err(|_| DAMAGED)?;
        body = &body[end + 2..];
        if length == 0 {
            return Ok(file);
        }
        let chunk = body.get(..length).ok_or(DAMAGED)?;
        file.extend_from_slice(chunk);
        body = body[length..].strip_prefix(b"\r\n").ok_or(DAMAGED)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_damaged_ones_refused() {
        let body = b"4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        assert_eq!(unchunk(body), Ok(b"abcdef".to_vec()));
        for bad in
            [&b"4\r\nab"[..], b"", b"zz\r\n", b"4\r\nabcdXX", b"ffffffffffffffff\r\n", b"-1\r\n"]
        {
            assert!(unchunk(bad).is_err(), "{bad:?}");
        }
    }
}
