//! A link as a pair of channels: the whole conversation with a node, from challenge to goodbye.
//! The WebSocket and the in-process link both end here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use neurino_protocol::node::{CoordinatorMessage, NodeMessage};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::mpsc;

use crate::coordinator::Coordinator;
use crate::session::{NodeSession, Outbox};

/// Messages that may wait on either side of a link. A channel holds room for 32 elements from its first day, so
/// that whoever has thousands of links carries messages in boxes.
pub(crate) const CHANNEL: usize = 64;
/// How long a node may take to answer the challenge.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// Challenges, opens the session, and carries messages both ways until either side ends.
///
/// - `from`: the network that the node comes from, where that can be known
pub(crate) async fn serve<N, C>(
    coordinator: Arc<Coordinator>,
    from: Option<IpAddr>,
    mut from_node: mpsc::Receiver<N>,
    to_node: mpsc::Sender<C>,
) where
    N: Into<Box<NodeMessage>>,
    C: From<CoordinatorMessage>,
{
    match open(&coordinator, &mut from_node, &to_node).await {
        Ok((session, outbox)) => {
            session.came_from(from);
            carry(session, outbox, from_node, to_node).await;
        }
        Err(error) => {
            // A node that is gone does not need the reason.
            let _ = to_node.send(CoordinatorMessage::Bye(error).into()).await;
        }
    }
}

async fn open<N, C>(
    coordinator: &Arc<Coordinator>,
    from_node: &mut mpsc::Receiver<N>,
    to_node: &mpsc::Sender<C>,
) -> Result<(NodeSession, Outbox), ErrorBody>
where
    N: Into<Box<NodeMessage>>,
    C: From<CoordinatorMessage>,
{
    let gone = |_| ErrorBody::new(ErrorCode::Unreachable, "the node is gone");
    to_node.send(coordinator.challenge()?.into()).await.map_err(gone)?;
    let first = tokio::select! {
        () = coordinator.stop.cancelled() => return Err(crate::error::shutting_down()),
        first = tokio::time::timeout(HELLO_WAIT, from_node.recv()) => first,
    };
    let hello = match first.map(|first| first.map(|message| *message.into())) {
        Ok(Some(NodeMessage::Hello(hello))) => hello,
        Ok(None) => return Err(ErrorBody::new(ErrorCode::Unreachable, "the node is gone")),
        Ok(Some(_)) => {
            let message = "the first message must be a hello that answers the challenge";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
        }
        Err(_) => {
            let message = "the challenge was not answered within ten seconds";
            return Err(ErrorBody::new(ErrorCode::Unauthorized, message));
        }
    };
    let session = coordinator.open_session(&hello)?;
    to_node.send(coordinator.welcome(&hello).into()).await.map_err(gone)?;
    Ok(session)
}

async fn carry<N, C>(
    session: NodeSession,
    mut outbox: Outbox,
    mut from_node: mpsc::Receiver<N>,
    to_node: mpsc::Sender<C>,
) where
    N: Into<Box<NodeMessage>>,
    C: From<CoordinatorMessage>,
{
    let listen = async {
        while let Some(message) = from_node.recv().await {
            // In a box, so that an idle link holds no room for what handling needs.
            Box::pin(session.handle(*message.into())).await;
        }
    };
    let speak = async {
        while let Some(message) = outbox.recv().await {
            if to_node.send((*message).into()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = session.end.cancelled() => {}
        () = listen => {}
        () = speak => {}
        () = to_node.closed() => {}
    }
    // What was said last (a `Bye`, a receipt) still arrives if there is room for it.
    while let Ok(message) = outbox.try_recv() {
        if to_node.try_send((*message).into()).is_err() {
            return;
        }
    }
}
