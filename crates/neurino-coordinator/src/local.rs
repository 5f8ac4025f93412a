//! The coordinator of the same process, as a node sees it.

use std::sync::Arc;

use async_trait::async_trait;
use neurino_client::{ClientError, Session};
use neurino_core::NodeId;
use neurino_protocol::node::Capabilities;
use neurino_wallet::IdentityKey;

use crate::coordinator::Coordinator;

/// A node's way to a coordinator in the same process: channels instead of sockets.
#[derive(Clone)]
pub struct LocalCoordinator {
    pub(crate) coordinator: Arc<Coordinator>,
}

#[async_trait]
impl neurino_client::Coordinator for LocalCoordinator {
    async fn connect(
        &self,
        _key: &IdentityKey,
        _node: &NodeId,
        _capabilities: &Capabilities,
    ) -> Result<Session, ClientError> {
        unimplemented!("arrives with the session core")
    }

    fn address(&self) -> String {
        "this machine".into()
    }
}
