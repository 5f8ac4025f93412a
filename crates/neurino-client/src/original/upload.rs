//! Pictures to S3, with the temporary credentials of their job.
//!
//! Where they go is a setting of this machine, never the coordinator's word, and a coordinator
//! elsewhere cannot have anything sent into the network at home: the host is resolved once, private
//! addresses are refused, and the connection goes to the address that was looked at.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use sha2::{Digest, Sha256};

use super::wire::Credentials;
use crate::http::CONNECT_LIMIT;
use crate::sigv4::{ALGORITHM, Canonical, Scope};

/// The bucket that pictures go to.
const BUCKET: &str = "heurist-images";
const REGION: &str = "us-east-1";
/// Longest upload; the lease's time ends it before.
const UPLOAD_LIMIT: Duration = Duration::from_mins(1);

/// Where pictures go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Begins the URL of an object.
    base: Url,
    /// Whether it may be an address of this machine or its network.
    private_too: bool,
}

/// Why a picture could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the upload's address is none that pictures may go to: {0}")]
    Address(&'static str),
    #[error(
        "the upload's address leads into a private network; only a coordinator on this machine may do that"
    )]
    Private,
    #[error("the upload's address cannot be found")]
    Unknown(#[source] std::io::Error),
    #[error("the upload did not get through")]
    Http(#[source] reqwest::Error),
    #[error("the upload was refused with status {0}")]
    Refused(u16),
}

impl UploadError {
    /// Whether another attempt may help.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Http(_))
            || matches!(self, Self::Refused(408 | 409 | 429 | 500..))
    }
}

impl Target {
    /// The bucket at Amazon.
    pub(crate) fn amazon() -> Self {
        let base = format!("https://{BUCKET}.s3.amazonaws.com/");
        Self { base: Url::parse(&base).expect("a URL"), private_too: false }
    }

    /// The bucket below another endpoint.
    pub(crate) fn endpoint(url: &Url, private_too: bool) -> Self {
        let base = format!("{}/{BUCKET}/", url.as_str().trim_end_matches('/'));
        Self { base: Url::parse(&base).expect("a longer path of a URL"), private_too }
    }

    /// Uploads a picture under a key: letters, digits, `-`, `_` and `.`.
    pub(crate) async fn put(
        &self,
        key: &str,
        credentials: &Credentials,
        png: Vec<u8>,
    ) -> Result<(), UploadError> {
        let url = self.base.join(key).expect("a key of plain characters");
        let client = pinned(&url, self.private_too).await?;
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let (time, payload) = (timestamp(SystemTime::now()), hex::encode(Sha256::digest(&png)));
        let headers = [
            ("content-type", "image/png".to_owned()),
            ("host", host.clone()),
            ("x-amz-content-sha256", payload.clone()),
            ("x-amz-date", time.clone()),
            ("x-amz-security-token", credentials.token.clone()),
        ];
        let canonical = Canonical {
            method: "PUT",
            path: url.path(),
            query: "",
            headers: &headers,
            payload: &payload,
        };
        let scope = Scope { time: &time, region: REGION, service: "s3" };
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
            credentials.access_key,
            scope.text(),
            canonical.signed_headers(),
            canonical.signature(&credentials.secret_key, &scope),
        );
        let request = client
            .put(url.clone())
            .header(HOST, host)
            .header(CONTENT_TYPE, "image/png")
            .header("x-amz-content-sha256", &payload)
            .header("x-amz-date", &time)
            .header("x-amz-security-token", &credentials.token)
            .header(AUTHORIZATION, authorization)
            .timeout(UPLOAD_LIMIT)
            .body(png);
        let response = request.send().await.map_err(|e| UploadError::Http(e.without_url()))?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(UploadError::Refused(status.as_u16())) }
    }
}

/// A client that connects to the looked-at address of a URL's host and nowhere else, and follows no
/// redirects. Addresses of this machine and its network are refused unless `private_too`.
pub(crate) async fn pinned(url: &Url, private_too: bool) -> Result<reqwest::Client, UploadError> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((bare, port)).await.map_err(UploadError::Unknown)?.collect();
    if !private_too && found.iter().any(|address| is_private(address.ip())) {
        return Err(UploadError::Private);
    }
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .resolve_to_addrs(bare, &found);
    if private_too {
        client = client.no_proxy();
    }
    client.build().map_err(UploadError::Http)
}

/// Addresses that do not lead out into the internet.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || ip.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || a >= 240
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            ip.to_ipv4().is_some_and(|ip| is_private(ip.into()))
                || ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                // Translated IPv4 addresses may be anything.
                || (first == 0x64 && ip.segments()[1] == 0xff9b)
                || first == 0x2002
        }
    }
}

/// UTC, as `20130524T000000Z`.
fn timestamp(at: SystemTime) -> String {
    let secs = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Days to a date of the Gregorian calendar, in years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_s3_reads_them() {
        let check = |secs: u64, expect: &str| {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(secs)), expect);
        };
        check(0, "19700101T000000Z");
        check(1_369_353_600, "20130524T000000Z");
        check(951_782_399, "20000228T235959Z");
        check(951_782_400, "20000229T000000Z");
        check(951_868_800, "20000301T000000Z");
        check(1_735_689_599, "20241231T235959Z");
        check(4_107_542_400, "21000301T000000Z");
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "ff02::1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert!(is_private(private.parse().expect("an address")), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(!is_private(public.parse().expect("an address")), "{public}");
        }
    }

    #[tokio::test]
    async fn a_coordinator_elsewhere_cannot_have_things_sent_home() {
        let credentials =
            Credentials { access_key: "a".into(), secret_key: "b".into(), token: "c".into() };
        for url in
            ["https://127.0.0.1:1", "https://localhost:1", "https://[::1]:1", "https://10.0.0.1"]
        {
            let target = Target::endpoint(&Url::parse(url).expect("a URL"), false);
            let error = target.put("k.png", &credentials, vec![1]).await.expect_err(url);
            assert!(matches!(error, UploadError::Private), "{url}: {error}");
        }
        let target = Target::endpoint(&Url::parse("http://127.0.0.1:1").expect("a URL"), true);
        let error = target.put("k.png", &credentials, vec![1]).await.expect_err("nobody is there");
        assert!(matches!(error, UploadError::Http(_)), "{error}");
    }
}
