//! The coordinator as a node sees it: one trait, over HTTP or in process.
//!
//! Read [`Coordinator`] and [`Session`] first, then [`handshake()`] (what all transports share) and
//! [`HttpCoordinator`] (`websocket` and `long_poll` carry its messages; `uploads` has pictures pass beside
//! them). [`OriginalCoordinator`] is for
//! coordinators that speak only the network's original protocol.

mod device;
mod handshake;
mod http;
mod long_poll;
mod original;
pub mod sigv4;
mod tls;
mod uploads;
mod websocket;

use async_trait::async_trait;
use neurino_core::NodeId;
use neurino_protocol::demand::NetworkDemand;
use neurino_protocol::node::{Capabilities, CoordinatorMessage, NodeMessage};
use neurino_protocol::trust::NodeTrust;
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use tokio::sync::mpsc;

pub use device::Device;
pub use handshake::{HANDSHAKE_LIMIT, Introduction, Link, handshake};
pub use http::{HttpCoordinator, is_loopback};
pub use original::{OriginalCoordinator, OriginalOptions};
pub use tls::distrust;

/// An open session with a coordinator. It is over when `messages` ends.
#[derive(Debug)]
pub struct Session {
    /// The network's name.
    pub network: String,
    /// Address of the coordinator's key, which signs receipts.
    pub coordinator: String,
    /// To the coordinator.
    pub outbox: mpsc::Sender<NodeMessage>,
    /// From the coordinator, after `Welcome`.
    pub messages: mpsc::Receiver<CoordinatorMessage>,
}

/// Why no session could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is malformed, or plain HTTP to another machine.
    #[error("the coordinator's address `{url}` cannot be used: {rule}")]
    BadAddress {
        /// The address.
        url: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The reward wallet is no address. Its text is not repeated: it may be a secret in the wrong place.
    #[error("the reward wallet cannot be used: an address is `0x` and 40 hex digits")]
    BadReward,
    /// Nobody answers there.
    #[error("the coordinator at {url} cannot be reached")]
    Unreachable {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody answers there, with a certificate that nothing on this machine vouches for.
    #[error("the certificate of {url} is not trusted")]
    Untrusted {
        /// The address.
        url: String,
        /// What helps.
        hint: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The coordinator refused the session.
    #[error("the coordinator refused the session: {0}")]
    Refused(ErrorBody),
    /// The other side does not speak this protocol.
    #[error("the other side does not speak the node protocol: {0}")]
    Protocol(String),
}

impl ClientError {
    pub(crate) fn unreachable(
        url: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let (url, source) = (url.to_owned(), source.into());
        match distrust(&*source) {
            Some(hint) => Self::Untrusted { url, hint, source },
            None => Self::Unreachable { url, source },
        }
    }

    /// The error as the window shows it.
    pub fn body(&self) -> ErrorBody {
        match self {
            Self::Refused(body) => body.clone(),
            Self::BadAddress { .. } | Self::BadReward => {
                ErrorBody::new(ErrorCode::InvalidRequest, self.to_string())
            }
            Self::Unreachable { .. } => ErrorBody::new(ErrorCode::Unreachable, self.to_string())
                .with_hint("check the address and the internet connection"),
            Self::Untrusted { hint, .. } => {
                ErrorBody::new(ErrorCode::Unreachable, self.to_string()).with_hint(*hint)
            }
            Self::Protocol(_) => ErrorBody::new(ErrorCode::UnsupportedVersion, self.to_string()),
        }
    }
}

/// A coordinator that a node can work for.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Opens a session: challenge, signed hello, welcome.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn connect(
        &self,
        key: &IdentityKey,
        node: &NodeId,
        capabilities: &Capabilities,
    ) -> Result<Session, ClientError>;

    /// How closely it watches a node; `None` where it does not say.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn trust(&self, _node: &NodeId) -> Result<Option<NodeTrust>, ClientError> {
        Ok(None)
    }

    /// What it is asked for, model by model; `None` where it does not say.
    ///
    /// # Errors
    /// [`ClientError`].
    async fn demand(&self) -> Result<Option<NetworkDemand>, ClientError> {
        Ok(None)
    }

    /// Where it is, for people and logs.
    fn address(&self) -> String;
}
