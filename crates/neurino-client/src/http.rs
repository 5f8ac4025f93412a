//! A coordinator on another machine: over a WebSocket, or where those are blocked by long polls.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use neurino_core::NodeId;
use neurino_protocol::demand::NetworkDemand;
use neurino_protocol::node::Capabilities;
use neurino_protocol::trust::NodeTrust;
use neurino_wallet::IdentityKey;
use reqwest::Url;

use crate::handshake::{HANDSHAKE_LIMIT, Introduction, handshake};
use crate::long_poll::{LongPoll, send};
use crate::websocket::WebSocket;
use crate::{ClientError, Coordinator, Device, Session};

/// How long opening a connection may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A coordinator reached over HTTP.
///
/// Every session is tried as a WebSocket first. When the upgrade does not get through (a proxy that
/// does not know it, a firewall), the same session is opened by long polls, and later ones start
/// there as long as that works.
///
/// After a session that the identity key signed for, the next ones are opened with the device's key and
/// the coordinator's token, as long as the token is good.
pub struct HttpCoordinator {
    address: String,
    origin: String,
    device: Device,
    websocket: WebSocket,
    long_poll: LongPoll,
    websocket_is_blocked: AtomicBool,
    client: reqwest::Client,
}

impl std::fmt::Debug for HttpCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpCoordinator").field("address", &self.address).finish_non_exhaustive()
    }
}

impl HttpCoordinator {
    /// Prepares to talk to the coordinator at a base URL, for example `https://pool.example`.
    /// Connects nowhere yet. The device's key is a fresh one; see [`HttpCoordinator::with_device`].
    ///
    /// # Errors
    /// [`ClientError::BadAddress`] for anything but `https`, or `http` to this machine itself
    /// (127.0.0.0/8, `::1`, `localhost`), and for URLs with credentials, a query or a fragment, or that
    /// end with the `/v1` of a gateway's clients.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let base = check(url)?;
        if base.path().trim_end_matches('/').ends_with("/v1") {
            // Nodes would ask for `/v1/v1/node` for ever.
            let rule = "leave out /v1: that is for clients";
            return Err(ClientError::BadAddress { url: url.to_owned(), rule });
        }
        let local = is_loopback(&base);
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // A signed message goes to the address the person gave and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if local {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| ClientError::unreachable(url, e))?;
        let address = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            websocket: WebSocket::new(&address),
            long_poll: LongPoll::new(client.clone(), &address),
            websocket_is_blocked: AtomicBool::new(false),
            client,
            origin: base.origin().ascii_serialization(),
            device: Device::fresh(),
            address,
        })
    }

    /// With a key that this device keeps.
    #[must_use]
    pub fn with_device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Whether the next session starts with long polls.
    pub fn websocket_is_blocked(&self) -> bool {
        self.websocket_is_blocked.load(Ordering::Relaxed)
    }

    async fn over_websocket(&self, who: Introduction<'_>) -> Result<Session, ClientError> {
        let opening = tokio::time::timeout(CONNECT_LIMIT, self.websocket.open());
        let link = match opening.await {
            Ok(link) => link.map_err(|e| ClientError::unreachable(&self.address, e))?,
            Err(_) => return Err(crate::handshake::silent(&self.address, HANDSHAKE_LIMIT)),
        };
        handshake(link, &self.address, who).await
    }

    async fn open(&self, who: Introduction<'_>) -> Result<Session, ClientError> {
        if !self.websocket_is_blocked() {
            match self.over_websocket(who).await {
                Err(ClientError::Unreachable { source, .. }) => {
                    tracing::debug!(error = &*source as &dyn std::error::Error, "no websocket");
                }
                answered => return answered,
            }
        }
        let session = self.long_poll.open(&self.address, who).await;
        // Also unlearned here: when neither way works, the next attempt tries both again.
        self.websocket_is_blocked.store(session.is_ok(), Ordering::Relaxed);
        if session.is_ok() {
            tracing::info!("the websocket is blocked on the way; polling instead");
        }
        session
    }
}

#[async_trait]
impl Coordinator for HttpCoordinator {
    async fn connect(
        &self,
        key: &IdentityKey,
        node: &NodeId,
        capabilities: &Capabilities,
    ) -> Result<Session, ClientError> {
        let (device, origin) = (&self.device, self.origin.as_str());
        let who = Introduction { key, node, capabilities, device, origin };
        match self.open(who).await {
            // The token is over, or of a key that the coordinator has no more: once more, in full.
            Err(ClientError::Refused(error)) if self.device.forget() => {
                tracing::debug!(code = ?error.code, "the session's token is not taken");
                self.open(who).await
            }
            opened => opened,
        }
    }

    async fn trust(&self, node: &NodeId) -> Result<Option<NodeTrust>, ClientError> {
        let request = self.client.get(format!("{}/v1/nodes/{node}/trust", self.address));
        send(request, CONNECT_LIMIT, &self.address).await.map(Some)
    }

    async fn demand(&self) -> Result<Option<NetworkDemand>, ClientError> {
        let request = self.client.get(format!("{}/v1/demand", self.address));
        send(request, CONNECT_LIMIT, &self.address).await.map(Some)
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

pub(crate) fn check(text: &str) -> Result<Url, ClientError> {
    let bad = |rule| Err(ClientError::BadAddress { url: without_credentials(text), rule });
    let Ok(url) = Url::parse(text) else {
        return bad("it is not a URL such as https://pool.example");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return bad("it must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return bad("it must end with its path, without `?` or `#`");
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => bad("plain http is only for this machine itself; use https"),
        _ => bad("it must start with https://"),
    }
}

/// The text as it may be shown, should somebody have put a password into it.
fn without_credentials(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}…{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}

/// Whether a URL is of this machine itself.
pub fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_machine() {
        for good in [
            "https://pool.example",
            "https://pool.example:8443/base/",
            "http://127.0.0.1:43110",
            "http://[::1]:80",
            "http://localhost:1",
        ] {
            HttpCoordinator::new(good).expect(good);
        }
        for bad in [
            "",
            "pool.example",
            "http://pool.example",
            "http://192.168.1.2:80",
            "http://127.0.0.1.evil.example",
            "ftp://127.0.0.1",
            "https://pool.example?x=1",
            "https://pool.example#x",
            "http://127.0.0.1:43110/v1",
            "https://pool.example/base/v1/",
        ] {
            let error = HttpCoordinator::new(bad).expect_err(bad);
            assert!(matches!(error, ClientError::BadAddress { .. }), "{bad}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = HttpCoordinator::new("https://me:hunter2@pool.example").expect_err("refused");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn the_address_has_no_slash_at_its_end() {
        let coordinator = HttpCoordinator::new("https://pool.example/").expect("good");
        assert_eq!(coordinator.address(), "https://pool.example");
    }
}
