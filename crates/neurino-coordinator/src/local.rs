//! The coordinator of the same process, as a node sees it: channels instead of sockets.

use std::sync::Arc;

use async_trait::async_trait;
use neurino_client::{ClientError, Device, Introduction, Link, Session, handshake};
use neurino_core::NodeId;
use neurino_protocol::node::{Capabilities, LOCAL_ORIGIN};
use neurino_wallet::IdentityKey;
use tokio::sync::mpsc;

use crate::coordinator::Coordinator;
use crate::link;

/// A node's way to a coordinator in the same process.
#[derive(Clone)]
pub struct LocalCoordinator(Arc<Coordinator>);

impl LocalCoordinator {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self(coordinator)
    }
}

#[async_trait]
impl neurino_client::Coordinator for LocalCoordinator {
    async fn connect(
        &self,
        key: &IdentityKey,
        node: &NodeId,
        capabilities: &Capabilities,
    ) -> Result<Session, ClientError> {
        let (outbox, from_node) = mpsc::channel(link::CHANNEL);
        let (to_node, messages) = mpsc::channel(link::CHANNEL);
        self.0.tasks.spawn(link::serve(Arc::clone(&self.0), None, from_node, to_node));
        // Nobody else is on this link, so the identity's key does for the device, too.
        let (device, origin) = (Device::new(key.copy()), LOCAL_ORIGIN);
        let who = Introduction { key, node, capabilities, device: &device, origin };
        handshake(Link { outbox, messages }, &self.address(), who).await
    }

    fn address(&self) -> String {
        "this machine".into()
    }
}
