//! Signature version 4 of S3 requests: what a node signs its uploads with, and what a coordinator
//! that takes them checks.
//!
//! Only what that needs: one request with its headers, or a URL that allows one; no signed chunks.

use std::fmt::Write as _;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// The scheme's name, as it begins the `Authorization` header.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What a sender writes in the place of a digest that it leaves out of the signature.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// What is signed of a request.
#[derive(Debug, Clone)]
pub struct Canonical<'a> {
    /// `PUT`, for example.
    pub method: &'a str,
    /// The path as it is sent, percent-encoded, with its leading slash.
    pub path: &'a str,
    /// The query as it is sent, already in the order of its names; empty for uploads.
    pub query: &'a str,
    /// The signed headers: names in lower case, in alphabetical order.
    pub headers: &'a [(&'a str, String)],
    /// Hex SHA-256 of the body, or a word in its place.
    pub payload: &'a str,
}

/// Where and when a signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope<'a> {
    /// UTC, as `20130524T000000Z`.
    pub time: &'a str,
    /// For example `us-east-1`.
    pub region: &'a str,
    /// For example `s3`.
    pub service: &'a str,
}

impl Scope<'_> {
    /// Day, region, service and the fixed end, as the credential names them.
    pub fn text(&self) -> String {
        let day = self.time.get(..8).unwrap_or(self.time);
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }
}

impl Canonical<'_> {
    /// The names of the signed headers, as the `Authorization` header lists them.
    pub fn signed_headers(&self) -> String {
        self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";")
    }

    /// The signature, in hex digits.
    pub fn signature(&self, secret: &str, scope: &Scope<'_>) -> String {
        hex::encode(self.mac(secret, scope).finalize().into_bytes())
    }

    /// Whether a signature in hex digits is the right one; takes as long for every wrong one.
    pub fn is_signed(&self, secret: &str, scope: &Scope<'_>, signature: &str) -> bool {
        hex::decode(signature)
            .is_ok_and(|bytes| self.mac(secret, scope).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, secret: &str, scope: &Scope<'_>) -> Hmac<Sha256> {
        let mut request = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for (name, value) in self.headers {
            // Runs of blanks count as one. Writing to a text cannot fail.
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(request, "{name}:{value}");
        }
        let _ = write!(request, "\n{}\n{}", self.signed_headers(), self.payload);
        let digest = hex::encode(Sha256::digest(request));
        let text = format!("{ALGORITHM}\n{}\n{}\n{digest}", scope.time, scope.text());
        let day = scope.time.get(..8).unwrap_or(scope.time);
        let steps = [day, scope.region, scope.service, "aws4_request", &text];
        let mut mac = keyed(format!("AWS4{secret}").as_bytes());
        for (at, step) in steps.iter().enumerate() {
            mac.update(step.as_bytes());
            if at + 1 < steps.len() {
                mac = keyed(&mac.finalize().into_bytes());
            }
        }
        mac
    }
}

/// What opens a server. No `Debug`: it holds secrets.
pub struct Access<'a> {
    /// Names the key.
    pub key_id: &'a str,
    /// The key.
    pub secret: &'a str,
    /// Goes with keys that were lent for a while.
    pub token: Option<&'a str>,
}

/// The query, without its question mark, that allows one request to whoever has the URL, until so many
/// seconds after the scope's time. `headers` must be sent exactly so; `host` is one of them, and like
/// the others in its alphabetical place.
pub fn presigned(
    (method, path): (&str, &str),
    headers: &[(&str, String)],
    access: &Access<'_>,
    scope: &Scope<'_>,
    valid_secs: u64,
) -> String {
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let credential = format!("{}/{}", access.key_id, scope.text());
    let mut query = format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={}&X-Amz-Expires={valid_secs}",
        encoded(&credential),
        scope.time,
    );
    if let Some(token) = access.token {
        query.push_str("&X-Amz-Security-Token=");
        query.push_str(&encoded(token));
    }
    query.push_str("&X-Amz-SignedHeaders=");
    query.push_str(&encoded(&names));
    let canonical = Canonical { method, path, query: &query, headers, payload: UNSIGNED_PAYLOAD };
    let signature = canonical.signature(access.secret, scope);
    format!("{query}&X-Amz-Signature={signature}")
}

/// Percent-encodes everything but letters, digits and `-._~`, as signatures want it.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SCOPE: Scope<'_> = Scope { time: "20130524T000000Z", region: "us-east-1", service: "s3" };

    /// The two examples of single-chunk requests in the documentation of S3.
    #[test]
    fn the_published_examples_come_out() {
        let date = ("x-amz-date", "20130524T000000Z".to_owned());
        let host = ("host", "examplebucket.s3.amazonaws.com".to_owned());
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let get = Canonical {
            method: "GET",
            path: "/test.txt",
            query: "",
            headers: &[
                host.clone(),
                ("range", "bytes=0-9".into()),
                ("x-amz-content-sha256", empty.into()),
                date.clone(),
            ],
            payload: empty,
        };
        let expect = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(get.signature(SECRET, &SCOPE), expect);
        assert!(get.is_signed(SECRET, &SCOPE, expect));
        assert!(!get.is_signed(SECRET, &SCOPE, &expect.replace('f', "e")));
        assert!(!get.is_signed("another", &SCOPE, expect));
        assert!(!get.is_signed(SECRET, &SCOPE, "no hex"));

        let payload = hex::encode(Sha256::digest("Welcome to Amazon S3."));
        let put = Canonical {
            method: "PUT",
            path: "/test%24file.text",
            query: "",
            headers: &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT".into()),
                host,
                ("x-amz-content-sha256", payload.clone()),
                date,
                ("x-amz-storage-class", "REDUCED_REDUNDANCY".into()),
            ],
            payload: &payload,
        };
        assert_eq!(
            put.signature(SECRET, &SCOPE),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            put.signed_headers(),
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class"
        );
    }

    /// The example of a presigned URL in the documentation of S3.
    #[test]
    fn the_published_presigned_url_comes_out() {
        let access = Access { key_id: "AKIAIOSFODNN7EXAMPLE", secret: SECRET, token: None };
        let headers = [("host", "examplebucket.s3.amazonaws.com".to_owned())];
        let query = presigned(("GET", "/test.txt"), &headers, &access, &SCOPE, 86_400);
        assert_eq!(
            query,
            "X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
        let lent = Access { token: Some("a+b/c="), ..access };
        let query = presigned(("GET", "/test.txt"), &headers, &lent, &SCOPE, 60);
        assert!(query.contains("&X-Amz-Security-Token=a%2Bb%2Fc%3D&X-Amz-SignedHeaders="));
    }
}
