//! One careful question to a node of a chain: JSON-RPC over HTTP, read only.

use std::time::Duration;

use alloy_primitives::Address;
use futures::StreamExt as _;
use serde_json::{Value, json};
use url::{Host, Url};

use crate::error::ChainError;

/// Longest address of a node.
const URL_BYTES_MAX: usize = 2048;
/// Characters of a node's own error message that are repeated.
const MESSAGE_CHARS_MAX: usize = 160;

/// The address of a node that may be asked. It may carry an access key, so it has no `Debug` and no
/// `Display`; [`RpcUrl::host`] is what may be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl(Url);

impl RpcUrl {
    /// Reads an address: `https`, or `http` to this machine.
    ///
    /// # Errors
    /// [`ChainError::BadUrl`].
    pub fn read(text: &str) -> Result<Self, ChainError> {
        let bad = |rule| Err(ChainError::BadUrl { rule });
        let text = text.trim();
        if text.is_empty() || text.len() > URL_BYTES_MAX {
            return bad("it is a link such as `https://rpc.example`");
        }
        let Ok(url) = Url::parse(text) else {
            return bad("it is a link such as `https://rpc.example`");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return bad("it must not hold a user name or a password");
        }
        let own_machine = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return bad("it names no host"),
        };
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if own_machine => Ok(Self(url)),
            "http" => bad("a node elsewhere is asked by `https` only: anybody on the way could \
                           change its answers"),
            _ => bad("it begins with `https://`"),
        }
    }

    /// Its host and port, which may be shown.
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The whole address, for storage.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    fn is_on_this_machine(&self) -> bool {
        self.0.scheme() == "http"
    }
}

/// How long and how much is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a whole answer.
    pub wait: Duration,
    /// Most bytes of an answer.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { wait: Duration::from_secs(10), bytes: 64 << 10 }
    }
}

/// A node that is asked.
pub struct Rpc {
    url: RpcUrl,
    http: reqwest::Client,
    limits: Limits,
}

impl Rpc {
    /// Prepares to ask a node; nothing is sent yet.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] where the system has no means for secure connections.
    pub fn new(url: RpcUrl, limits: Limits) -> Result<Self, ChainError> {
        let mut builder = reqwest::Client::builder()
            // An answer from another place than the one the person named is no answer.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(limits.wait);
        if url.is_on_this_machine() {
            builder = builder.no_proxy();
        }
        let host = url.host();
        let http = builder.build().map_err(|source| ChainError::Unreachable { host, source })?;
        Ok(Self { url, http, limits })
    }

    /// Host and port of the node.
    pub fn host(&self) -> String {
        self.url.host()
    }

    /// The chain it serves.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        let answer = self.ask("eth_chainId", &json!([])).await?;
        answer
            .as_str()
            .and_then(|text| text.strip_prefix("0x"))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.not_rpc("its chain has no number"))
    }

    /// Makes sure that it serves this chain.
    ///
    /// # Errors
    /// [`ChainError::WrongChain`] and the others.
    pub async fn expect_chain(&self, wanted: u64) -> Result<(), ChainError> {
        match self.chain_id().await? {
            found if found == wanted => Ok(()),
            found => Err(ChainError::WrongChain { host: self.host(), wanted, found }),
        }
    }

    /// Asks a contract without changing anything; the answer is `0x` and hexadecimal digits.
    pub(crate) async fn call(&self, contract: Address, data: &str) -> Result<String, ChainError> {
        let call = json!([{ "to": contract, "data": data }, "latest"]);
        match self.ask("eth_call", &call).await? {
            Value::String(answer) => Ok(answer),
            _ => Err(self.not_rpc("the contract's answer is no text")),
        }
    }

    async fn ask(&self, method: &str, params: &Value) -> Result<Value, ChainError> {
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = self.http.post(self.url.0.clone()).json(&question).send();
        let response = request.await.map_err(|error| self.failed(error))?;
        let status = response.status();
        let body = self.body(response).await?;
        // Some nodes explain themselves in a body even when they refuse.
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        if let Some(error) = answer.as_ref().and_then(|a| a.get("error")).filter(|e| !e.is_null()) {
            return Err(self.said(error));
        }
        if !status.is_success() {
            return Err(ChainError::Refused { host: self.host(), status: status.as_u16() });
        }
        let mut answer = answer.ok_or_else(|| self.not_rpc("its answer is not JSON"))?;
        if answer.get("id") != Some(&json!(1)) {
            return Err(self.not_rpc("it answers another question"));
        }
        match answer.get_mut("result") {
            Some(result) if !result.is_null() => Ok(result.take()),
            _ => Err(self.not_rpc("its answer is empty")),
        }
    }

    /// Reads no more of an answer than any honest one has.
    async fn body(&self, response: reqwest::Response) -> Result<Vec<u8>, ChainError> {
        let limit_bytes = self.limits.bytes;
        let mut body = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.failed(error))?;
            if body.len() + piece.len() > limit_bytes {
                return Err(ChainError::TooLarge { host: self.host(), limit_bytes });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn said(&self, error: &Value) -> ChainError {
        let message = error.get("message").and_then(Value::as_str).unwrap_or("something failed");
        let message = message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
        let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
        ChainError::Failed { host: self.host(), code, message }
    }

    fn failed(&self, error: reqwest::Error) -> ChainError {
        let host = self.host();
        if error.is_timeout() {
            let wait_ms = u64::try_from(self.limits.wait.as_millis()).unwrap_or(u64::MAX);
            return ChainError::TimedOut { host, wait_ms };
        }
        ChainError::Unreachable { host, source: error.without_url() }
    }

    fn not_rpc(&self, what: &'static str) -> ChainError {
        ChainError::NotRpc { host: self.host(), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secure_links_and_this_machine_are_accepted() {
        for good in [
            "https://rpc.example",
            " https://rpc.example/v3/key?x=1 ",
            "http://127.0.0.1:8545",
            "http://localhost:8545/",
            "http://[::1]:8545",
        ] {
            assert!(RpcUrl::read(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("", "link"),
            ("rpc.example", "link"),
            ("http://rpc.example", "https"),
            ("http://10.0.0.1", "https"),
            ("http://127.0.0.1.example", "https"),
            ("ws://127.0.0.1", "https"),
            ("file:///etc/passwd", "host"),
            ("https://user:secret@rpc.example", "password"),
        ] {
            let Err(error) = RpcUrl::read(bad) else { panic!("{bad} was accepted") };
            let told = error.to_string();
            assert!(told.contains(word) && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_key() {
        let url = RpcUrl::read("https://rpc.example:8443/v3/key").map_err(|e| e.to_string());
        let url = url.expect("valid");
        assert_eq!(url.host(), "rpc.example:8443");
        assert!(url.expose().ends_with("/v3/key"));
    }
}
