//! Files in a bucket of an S3-compatible server, and links that allow others one request each.
//!
//! The server must check signatures and hold to `If-None-Match`: what a node is given a link for is of
//! one length and is written once. [`Bucket::check`] tries that before anybody relies on it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use neurino_client::sigv4::{Access, Scope, presigned};
use neurino_protocol::node::upload::{CONTENT_TYPE, IF_NONE_MATCH};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Error, ObjectStore, ObjectStoreExt as _, PutOptions,
    PutPayload, RetryConfig,
};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::web::{Web, client};
use super::{BlobError, Blobs};
use crate::error::CoordinatorError;

/// Begins the names of what [`Bucket::check`] writes.
const CHECK: &str = "check-";
/// Files that are read at once; each is in memory meanwhile.
const READS: usize = 16;
/// How long a request is repeated while the server does not answer.
const RETRY_LIMIT: Duration = Duration::from_secs(8);
/// Where buckets are unless another server is named.
const REGION: &str = "us-east-1";

/// A bucket, or a part of one, and what opens it. Shown, it tells no secret.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Absent where links mean nothing: a store in memory.
    links: Option<Links>,
    /// Ends with a slash unless empty.
    prefix: String,
    shown: String,
    reads: Semaphore,
}

/// What links are signed with.
struct Links {
    /// `https://server/bucket/`
    base: Url,
    host: String,
    region: String,
    keys: BucketKeys,
    web: reqwest::Client,
}

/// What opens a bucket. No `Debug`: it holds secrets.
#[derive(Clone)]
pub struct BucketKeys {
    /// Names the key.
    pub key_id: String,
    /// The key.
    pub secret: SecretString,
    /// Goes with keys that were lent for a while.
    pub token: Option<SecretString>,
}

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketTrouble {
    /// Nobody answers.
    #[error(
        "the server does not answer; check that it runs and can be reached, and its address in \
         `AWS_ENDPOINT_URL`"
    )]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is not there.
    #[error("there is no such bucket; create it, or correct `--blobs`")]
    NoBucket,
    /// The keys are wrong, or allow too little.
    #[error(
        "the server refused the keys ({0}); check `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and \
         that they may read, write, list and delete there"
    )]
    Denied(String),
    /// It is in another region.
    #[error("the server says that the bucket is elsewhere ({0}); set `AWS_REGION`")]
    Region(String),
    /// Anybody could write anything.
    #[error(
        "the server took a file that was longer than its link allowed: it checks no signatures, and \
         nodes could write what they like; use one that does, or give it keys"
    )]
    Unchecked,
    /// What was written could be replaced.
    #[error(
        "the server replaced a file that was to be written once: it does not know `If-None-Match`, and \
         nodes could replace what they were paid for; use a newer version or another server"
    )]
    Replaced,
    /// It gives back something else, or nothing.
    #[error("the server does not give back what was written")]
    Forgets,
    /// It answers something else.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl Bucket {
    /// The bucket of an address of the form `s3://BUCKET` or `s3://BUCKET/PREFIX`, at a server (Amazon's
    /// without one) and region. Connects nowhere yet.
    ///
    /// # Errors
    /// `BlobsAddress`: the address makes no sense, or plain HTTP leads off this machine.
    pub fn at(
        address: &str,
        endpoint: Option<&str>,
        region: Option<&str>,
        keys: BucketKeys,
    ) -> Result<Self, CoordinatorError> {
        let refused = CoordinatorError::BlobsAddress;
        let (bucket, prefix) = parts(address).map_err(refused)?;
        let region = region.unwrap_or(REGION).to_owned();
        if region.is_empty() || !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(refused("the region is a name like `eu-central-1`"));
        }
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.to_owned(),
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        let server = server(&endpoint).map_err(refused)?;
        let near = is_near(&server);
        let endpoint = server.as_str().trim_end_matches('/').to_owned();
        let base = Url::parse(&format!("{endpoint}/{bucket}/"))
            .map_err(|_| refused("the server's address is no URL"))?;
        let host = server.host_str().unwrap_or_default();
        let host = server.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let web = client(near).map_err(|_| refused("no client can be made for the server"))?;
        let mut store = AmazonS3Builder::new()
            .with_endpoint(&endpoint)
            .with_region(&region)
            .with_bucket_name(&bucket)
            .with_access_key_id(&keys.key_id)
            .with_secret_access_key(keys.secret.expose_secret())
            .with_virtual_hosted_style_request(false)
            .with_allow_http(near)
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(2),
                    base: 2.,
                },
                max_retries: 4,
                retry_timeout: RETRY_LIMIT,
            })
            .with_http_connector(Web(web.clone()));
        if let Some(token) = &keys.token {
            store = store.with_token(token.expose_secret());
        }
        // Its words may quote what it was given.
        let store = store.build().map_err(|_| refused("the bucket's address is not one of S3"))?;
        let shown = format!("s3://{bucket}/{prefix} at {}", server.host_str().unwrap_or_default());
        Ok(Self(Arc::new(Inner {
            store: Arc::new(store),
            links: Some(Links { base, host, region, keys, web }),
            prefix,
            shown,
            reads: Semaphore::new(READS),
        })))
    }

    /// One in memory, without links.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self(Arc::new(Inner {
            store: Arc::new(object_store::memory::InMemory::new()),
            links: None,
            prefix: "a/".into(),
            shown: "memory".into(),
            reads: Semaphore::new(READS),
        }))
    }

    /// Tries whether files can be written once, read, listed and removed there, and nothing else.
    ///
    /// # Errors
    /// `Bucket`, which says what is wrong and the way out.
    pub async fn check(&self) -> Result<(), CoordinatorError> {
        let trouble = |trouble| CoordinatorError::Bucket { bucket: self.to_string(), trouble };
        let name = format!("{CHECK}{}.png", Uuid::new_v4());
        let outcome = self.try_out(&name).await;
        if outcome.is_ok() {
            self.remove(&name).await.map_err(|error| trouble(told(&error)))?;
        }
        outcome.map_err(trouble)
    }

    async fn try_out(&self, name: &str) -> Result<(), BucketTrouble> {
        const WORDS: &[u8] = b"Neurino looks whether pictures can be kept here.";
        let length = WORDS.len() as u64;
        let valid = Duration::from_mins(1);
        self.probe(name, length, valid, WORDS).await?;
        match self.probe(name, length, valid, WORDS).await {
            // Some say 409 while the first is still being written.
            Err(BucketTrouble::Refused(status)) if status.starts_with("412") => {}
            Err(BucketTrouble::Refused(status)) if status.starts_with("409") => {}
            Ok(()) => return Err(BucketTrouble::Replaced),
            Err(other) => return Err(other),
        }
        let longer = format!("{CHECK}{}.png", Uuid::new_v4());
        if self.probe(&longer, length - 1, valid, WORDS).await.is_ok() {
            // It lies there now; whoever serves such a bucket next removes it.
            return Err(BucketTrouble::Unchecked);
        }
        let read = self.get(name, length).await.map_err(|error| told(&error))?;
        let prefix = Path::from(self.0.prefix.trim_end_matches('/'));
        let mut listed = self.0.store.list(Some(&prefix));
        let listed = listed.try_next().await.map_err(|error| told(&sorted(error)))?;
        if read == WORDS && listed.is_some() { Ok(()) } else { Err(BucketTrouble::Forgets) }
    }

    /// Puts words where a link for so many bytes leads, as a node would.
    async fn probe(
        &self,
        name: &str,
        bytes: u64,
        valid: Duration,
        words: &'static [u8],
    ) -> Result<(), BucketTrouble> {
        let (Some(links), Some(url)) = (&self.0.links, self.upload_link(name, bytes, valid)) else {
            return Ok(());
        };
        let request = links.web.put(url).body(words);
        let request =
            request.header(CONTENT_TYPE.0, CONTENT_TYPE.1).header(IF_NONE_MATCH.0, IF_NONE_MATCH.1);
        let unreachable = |e: reqwest::Error| BucketTrouble::Unreachable(e.without_url().into());
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = answer.text().await.unwrap_or_default();
        let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code: String = code.map_or("", |(code, _)| code).chars().take(64).collect();
        Err(match (status, &*code) {
            (StatusCode::NOT_FOUND, _) => BucketTrouble::NoBucket,
            (
                _,
                "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "IllegalLocationConstraintException",
            ) => BucketTrouble::Region(code),
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => BucketTrouble::Denied(code),
            (status, _) if status.is_redirection() => BucketTrouble::Region(status.to_string()),
            (status, _) => BucketTrouble::Refused(format!("{status} {code}")),
        })
    }

    /// A link that allows one upload of exactly so many bytes of a picture, once; `None` for a store
    /// without links.
    pub(crate) fn upload_link(&self, name: &str, bytes: u64, valid: Duration) -> Option<Url> {
        let headers = [
            ("content-length", bytes.to_string()),
            (CONTENT_TYPE.0, CONTENT_TYPE.1.to_owned()),
            ("host", self.0.links.as_ref()?.host.clone()),
            (IF_NONE_MATCH.0, IF_NONE_MATCH.1.to_owned()),
        ];
        self.link("PUT", name, &headers, valid)
    }

    /// A link that shows a file.
    pub(crate) fn view_link(&self, name: &str, valid: Duration) -> Option<Url> {
        self.link("GET", name, &[("host", self.0.links.as_ref()?.host.clone())], valid)
    }

    fn link(
        &self,
        method: &str,
        name: &str,
        headers: &[(&str, String)],
        valid: Duration,
    ) -> Option<Url> {
        let Links { base, region, keys, .. } = self.0.links.as_ref()?;
        let mut url = base.join(&format!("{}{name}", self.0.prefix)).ok()?;
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = Scope { time: &time, region, service: "s3" };
        let access = Access {
            key_id: &keys.key_id,
            secret: keys.secret.expose_secret(),
            token: keys.token.as_ref().map(ExposeSecret::expose_secret),
        };
        let valid_secs = valid.as_secs().max(1);
        let query = presigned((method, url.path()), headers, &access, &scope, valid_secs);
        url.set_query(Some(&query));
        Some(url)
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.0.prefix))
    }
}

#[async_trait]
impl Blobs for Bucket {
    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), BlobError> {
        let kind = Attributes::from_iter([(Attribute::ContentType, CONTENT_TYPE.1)]);
        let options = PutOptions { attributes: kind, ..PutOptions::default() };
        let path = self.path(name);
        let put = self.0.store.put_opts(&path, PutPayload::from(bytes), options);
        put.await.map(drop).map_err(sorted)
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let _room = self.0.reads.acquire().await;
        let found = self.0.store.get(&self.path(name)).await.map_err(sorted)?;
        if found.meta.size > bytes_max {
            return Err(BlobError::TooLarge);
        }
        let mut bytes = Vec::new();
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.try_next().await.map_err(sorted)? {
            if (bytes.len() + piece.len()) as u64 > bytes_max {
                return Err(BlobError::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn older_than(&self, time: SystemTime) -> Result<Vec<String>, BlobError> {
        let prefix = Path::from(self.0.prefix.trim_end_matches('/'));
        let mut listed = self.0.store.list(Some(&prefix));
        let mut found = Vec::new();
        while let Some(object) = listed.try_next().await.map_err(sorted)? {
            let name = object.location.as_ref().strip_prefix(&*self.0.prefix).unwrap_or_default();
            let ours =
                name.strip_suffix(".png").is_some_and(|n| n.len() >= 64) || name.starts_with(CHECK);
            if ours && !name.contains('/') && SystemTime::from(object.last_modified) < time {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }

    async fn remove(&self, name: &str) -> Result<(), BlobError> {
        match self.0.store.delete(&self.path(name)).await.map_err(sorted) {
            Err(BlobError::Missing) => Ok(()),
            removed => removed,
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.shown)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({self})")
    }
}

/// Bucket and prefix of an address; the prefix ends with a slash unless it is empty.
fn parts(address: &str) -> Result<(String, String), &'static str> {
    let rest = address.strip_prefix("s3://").ok_or("`s3://BUCKET/PREFIX` is expected")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
        return Err("a bucket's name is 3 to 63 small letters, digits, `-` and `.`");
    }
    let prefix = prefix.trim_end_matches('/');
    let plain = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !part.is_empty() && part.bytes().all(known) && part.bytes().any(|b| b != b'.')
    };
    if prefix.is_empty() {
        return Ok((bucket.into(), String::new()));
    }
    if prefix.len() > 512 || !prefix.split('/').all(plain) {
        return Err("a prefix is letters, digits, `-`, `_`, `.` and single slashes between them");
    }
    Ok((bucket.into(), format!("{prefix}/")))
}

fn server(endpoint: &str) -> Result<Url, &'static str> {
    let url = Url::parse(endpoint)
        .map_err(|_| "the server's address is a URL such as https://s3.example")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("keys do not belong into the server's address");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the server's address ends with its path, without `?` or `#`");
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_near(&url) => Ok(url),
        "http" => Err("plain http is only for a server on this machine; use https"),
        _ => Err("the server's address begins with https://"),
    }
}

/// Whether the server is this machine.
fn is_near(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What an error means to us.
fn sorted(error: Error) -> BlobError {
    match error {
        Error::NotFound { .. } => BlobError::Missing,
        Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::InvalidPath { .. } => BlobError::Refused(error),
        error => BlobError::Unavailable(error),
    }
}

fn told(error: &BlobError) -> BucketTrouble {
    match error {
        BlobError::Refused(_) => BucketTrouble::Denied("reading, listing or deleting".into()),
        BlobError::Unavailable(_) => BucketTrouble::Unreachable(error.to_string().into()),
        _ => BucketTrouble::Forgets,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn at(address: &str, endpoint: Option<&str>) -> Result<Bucket, CoordinatorError> {
        let secret = SecretString::from("hunter2hunter2");
        let keys = BucketKeys { key_id: "anna".into(), secret, token: None };
        Bucket::at(address, endpoint, None, keys)
    }

    #[test]
    fn addresses_are_checked_and_secrets_shown_nowhere() {
        let bucket = at("s3://pictures/club/a/", Some("https://s3.example:9000")).unwrap();
        assert_eq!(bucket.to_string(), "s3://pictures/club/a/ at s3.example");
        assert!(!format!("{bucket:?} {bucket:#?}").contains("hunter2"));
        let url = bucket.upload_link("x.png", 5, Duration::from_mins(1)).unwrap();
        assert!(url.as_str().starts_with("https://s3.example:9000/pictures/club/a/x.png?X-Amz-"));
        assert!(!url.as_str().contains("hunter2"));
        let signed = "X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost%3Bif-none-match";
        assert!(url.as_str().contains(signed), "{url}");
        let amazon = at("s3://pictures", None).unwrap();
        let url = amazon.view_link("x.png", Duration::from_mins(5)).unwrap();
        assert!(url.as_str().starts_with("https://s3.us-east-1.amazonaws.com/pictures/x.png?"));
        for bad in [
            "pictures",
            "s3://",
            "s3://Ab",
            "s3://a b c",
            "s3://abc/..",
            "s3://abc//x",
            "s3://abc/a?b",
        ] {
            assert!(at(bad, None).is_err(), "{bad}");
        }
        for bad in [
            "http://s3.example",
            "http://192.168.1.2:9000",
            "ftp://s3.example",
            "s3.example",
            "https://anna:hunter2@s3.example",
            "https://s3.example/?x",
        ] {
            let error = at("s3://pictures", Some(bad)).expect_err(bad);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        for good in ["http://127.0.0.1:8333", "http://localhost:1", "http://[::1]:1"] {
            at("s3://pictures", Some(good)).expect(good);
        }
    }
}
