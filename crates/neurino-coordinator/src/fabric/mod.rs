//! Gateways on other machines, over NATS: they hold the sockets of nodes and the connections of
//! clients, and speak with whichever coordinator routes.
//!
//! `wire` says what is sent, sealed by `key`; `connection` is the way to NATS; `order` tells what is
//! missing, doubled or of another time. `hub` is the coordinator's side, and `queue` its work queue;
//! `gateway` is the other side, with `relay` (requests), `resume` (streams that go on) and `socket`
//! (nodes). See ADR 22.

mod answers;
mod connection;
pub(crate) mod gateway;
mod hub;
mod key;
mod order;
mod queue;
mod wire;

use std::path::PathBuf;

pub use connection::FabricAddress;
pub use gateway::{Gateway, GatewayConfig};
pub use key::FabricKey;

pub(crate) use answers::{admitted, is_own_key, is_put_again};
pub(crate) use wire::{Resume, Sent};

/// The way to the gateways of a network.
#[derive(Clone)]
pub struct FabricConfig {
    /// Where NATS is.
    pub address: FabricAddress,
    /// What the operator's machines share.
    pub key: FabricKey,
}

/// What keeps a coordinator and its gateways apart.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The address of NATS cannot be used. It is not shown: it may hold a password.
    #[error("the address of NATS cannot be used: {0}")]
    Address(&'static str),
    /// The file with NATS's credentials cannot be used.
    #[error("the credentials {path} cannot be used; `nsc generate creds` makes such a file")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The shared key cannot be read or made.
    #[error(
        "the shared key {path} cannot be used; copy `coordinator/fabric.key` from the coordinator's data \
         folder (`data` in its home) to every gateway"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// NATS refused.
    #[error("NATS cannot be used: {0}")]
    Nats(String),
    /// The books are a file, which one process alone can hold.
    #[error("gateways need books in PostgreSQL: name the database with --database or DATABASE_URL")]
    NeedsServer,
    /// The listener broke.
    #[error("the listener cannot be used")]
    Listener(#[source] std::io::Error),
}
