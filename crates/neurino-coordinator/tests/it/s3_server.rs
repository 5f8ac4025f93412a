//! An S3 server that somebody else started, for tests. It checks signatures.

use std::time::Duration;

use jiff::Timestamp;
use neurino_client::sigv4::{Access, Scope, presigned};
use reqwest::{Client, Url};

/// Names the server: `http://KEY:SECRET@127.0.0.1:PORT`.
const SERVER: &str = "NEURINO_TEST_S3_URL";

/// The server, and what opens all of it.
pub(crate) struct S3 {
    pub(crate) url: String,
    pub(crate) key_id: String,
    pub(crate) secret: String,
}

impl S3 {
    /// The one that is named.
    pub(crate) fn named() -> Self {
        let url = std::env::var(SERVER).expect("`cargo xtask test stores` starts a server");
        Self::at(&url)
    }

    pub(crate) fn at(url: &str) -> Self {
        let url = Url::parse(url).expect("a URL");
        let port = url.port().expect("a port");
        Self {
            key_id: url.username().into(),
            secret: url.password().expect("a secret").into(),
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// The name of a bucket of its own. A server that has just begun takes its time to make one.
    pub(crate) async fn bucket(&self) -> String {
        let name = format!("t{:016x}", rand::random::<u64>());
        for _ in 0..300 {
            let made = async |path: &str| {
                let put = Client::new().put(self.link("PUT", path)).timeout(Duration::from_secs(9));
                put.body("x").send().await.is_ok_and(|answer| answer.status().is_success())
            };
            if made(&format!("/{name}")).await && made(&format!("/{name}/first")).await {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server makes no bucket");
    }

    /// A link for a request to a path, good for a minute.
    pub(crate) fn link(&self, method: &str, path: &str) -> Url {
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = Scope { time: &time, region: "us-east-1", service: "s3" };
        let access = Access { key_id: &self.key_id, secret: &self.secret, token: None };
        let host = self.url.trim_start_matches("http://").to_owned();
        let query = presigned((method, path), &[("host", host)], &access, &scope, 60);
        Url::parse(&format!("{}{path}?{query}", self.url)).expect("a URL")
    }
}
