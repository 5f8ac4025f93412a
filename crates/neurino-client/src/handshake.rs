//! Opening a session, the same over every transport: challenge, signed hello, welcome.

use std::time::Duration;

use neurino_core::NodeId;
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, Hello, NodeMessage, PROTOCOL_VERSION,
};
use neurino_wallet::IdentityKey;
use tokio::sync::mpsc;

use crate::{ClientError, Session};

/// How long the coordinator may take for each of its two answers.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// What a node says about its program.
const AGENT: &str = concat!("neurino/", env!("CARGO_PKG_VERSION"));

/// A link before anything was said on it: messages in both directions, in order. It is closed when
/// either end is dropped.
#[derive(Debug)]
pub struct Link {
    /// To the coordinator.
    pub outbox: mpsc::Sender<NodeMessage>,
    /// From the coordinator, [`CoordinatorMessage::Challenge`] first.
    pub messages: mpsc::Receiver<CoordinatorMessage>,
}

/// Opens a session on a fresh link; both the HTTP client and the in-process one use it.
///
/// # Errors
/// [`ClientError::Refused`] with the coordinator's words, [`ClientError::Protocol`] when it speaks
/// another version or something else altogether, [`ClientError::Unreachable`] (naming `address`)
/// when it says nothing within [`HANDSHAKE_LIMIT`].
pub async fn handshake(
    link: Link,
    address: &str,
    key: &IdentityKey,
    node: &NodeId,
    capabilities: &Capabilities,
) -> Result<Session, ClientError> {
    handshake_within(HANDSHAKE_LIMIT, link, address, key, node, capabilities).await
}

async fn handshake_within(
    limit: Duration,
    mut link: Link,
    address: &str,
    key: &IdentityKey,
    node: &NodeId,
    capabilities: &Capabilities,
) -> Result<Session, ClientError> {
    let challenge = next(limit, &mut link, address).await?;
    let (network, hello) = answer(challenge, key, node, capabilities)?;
    match tokio::time::timeout(limit, link.outbox.send(NodeMessage::Hello(hello))).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(closed(address)),
        Err(_) => return Err(silent(address, limit)),
    }
    let coordinator = welcome(next(limit, &mut link, address).await?)?;
    Ok(Session { network, coordinator, outbox: link.outbox, messages: link.messages })
}

async fn next(
    limit: Duration,
    link: &mut Link,
    address: &str,
) -> Result<CoordinatorMessage, ClientError> {
    match tokio::time::timeout(limit, link.messages.recv()).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(closed(address)),
        Err(_) => Err(silent(address, limit)),
    }
}

fn closed(address: &str) -> ClientError {
    ClientError::unreachable(address, "the link was closed before the session was open")
}

pub(crate) fn silent(address: &str, limit: Duration) -> ClientError {
    ClientError::unreachable(address, format!("no answer within {} ms", limit.as_millis()))
}

/// Checks a challenge and signs the hello that answers it; also returns the network's name.
pub(crate) fn answer(
    challenge: CoordinatorMessage,
    key: &IdentityKey,
    node: &NodeId,
    capabilities: &Capabilities,
) -> Result<(String, Hello), ClientError> {
    let (version, network, nonce) = match challenge {
        CoordinatorMessage::Challenge { version, network, nonce } => (version, network, nonce),
        CoordinatorMessage::Bye(error) => return Err(ClientError::Refused(error)),
        _ => return Err(ClientError::Protocol("it did not begin with a challenge".into())),
    };
    if version != PROTOCOL_VERSION {
        return Err(ClientError::Protocol(format!(
            "it speaks version {version}, this program version {PROTOCOL_VERSION}; update the older \
             one"
        )));
    }
    let signature = key.sign(&Hello::message(&network, node, &nonce));
    let hello = Hello {
        version: PROTOCOL_VERSION,
        node: node.clone(),
        nonce,
        signature,
        agent: AGENT.into(),
        capabilities: capabilities.clone(),
    };
    Ok((network, hello))
}

/// Checks a welcome and returns the address of the coordinator's key.
pub(crate) fn welcome(message: CoordinatorMessage) -> Result<String, ClientError> {
    match message {
        CoordinatorMessage::Welcome { coordinator } if is_address(&coordinator) => Ok(coordinator),
        CoordinatorMessage::Welcome { .. } => {
            Err(ClientError::Protocol("its key's address is not an address".into()))
        }
        CoordinatorMessage::Bye(error) => Err(ClientError::Refused(error)),
        _ => Err(ClientError::Protocol("it did not answer the hello".into())),
    }
}

fn is_address(text: &str) -> bool {
    text.strip_prefix("0x")
        .is_some_and(|digits| digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use neurino_protocol::{ErrorBody, ErrorCode};

    use super::*;

    const COORDINATOR: &str = "0x00000000000000000000000000000000000000aa";

    fn capabilities() -> Capabilities {
        Capabilities { device: "CPU".into(), memory_bytes: 1, gpu: false, referred_by: None }
    }

    /// Runs a handshake against scripted answers; returns its result and the hello that was sent.
    async fn check(
        answers: Vec<CoordinatorMessage>,
    ) -> (Result<Session, ClientError>, Option<NodeMessage>, IdentityKey) {
        let key = IdentityKey::generate(&mut rand::rng());
        let node = NodeId::new(key.address()).expect("an address is a node id");
        let (outbox, mut sent) = mpsc::channel(8);
        let (tx, messages) = mpsc::channel(8);
        for answer in answers {
            tx.send(answer).await.expect("room");
        }
        drop(tx);
        let link = Link { outbox, messages };
        let result = handshake(link, "test", &key, &node, &capabilities()).await;
        (result, sent.try_recv().ok(), key)
    }

    fn challenge(version: u32) -> CoordinatorMessage {
        CoordinatorMessage::Challenge { version, network: "net".into(), nonce: "n1".into() }
    }

    #[tokio::test]
    async fn the_hello_is_signed_over_network_node_and_nonce() {
        let welcome = CoordinatorMessage::Welcome { coordinator: COORDINATOR.into() };
        let (session, sent, key) = check(vec![challenge(PROTOCOL_VERSION), welcome]).await;
        let session = session.expect("opened");
        assert_eq!((&*session.network, &*session.coordinator), ("net", COORDINATOR));
        let Some(NodeMessage::Hello(hello)) = sent else { panic!("no hello: {sent:?}") };
        let message = Hello::message("net", &hello.node, "n1");
        neurino_wallet::verify(&message, &hello.signature, &key.address()).expect("genuine");
    }

    #[tokio::test]
    async fn other_versions_refusals_and_nonsense_are_told_apart() {
        let (result, sent, _) = check(vec![challenge(99)]).await;
        assert!(matches!(result, Err(ClientError::Protocol(_))));
        assert!(sent.is_none(), "nothing may be signed for another version");
        let bye = ErrorBody::new(ErrorCode::Unauthorized, "not today");
        let answers = vec![challenge(PROTOCOL_VERSION), CoordinatorMessage::Bye(bye.clone())];
        let (result, ..) = check(answers).await;
        assert!(matches!(result, Err(ClientError::Refused(body)) if body == bye));
        let (result, ..) = check(vec![]).await;
        assert!(matches!(result, Err(ClientError::Unreachable { .. })));
        let odd = CoordinatorMessage::Welcome { coordinator: "nobody".into() };
        let (result, ..) = check(vec![challenge(PROTOCOL_VERSION), odd]).await;
        assert!(matches!(result, Err(ClientError::Protocol(_))));
    }

    #[tokio::test]
    async fn a_silent_coordinator_is_given_up() {
        let key = IdentityKey::generate(&mut rand::rng());
        let node = NodeId::new(key.address()).expect("valid");
        let (outbox, _keep) = mpsc::channel(8);
        let (_tx, messages) = mpsc::channel(8);
        let link = Link { outbox, messages };
        let limit = Duration::from_millis(20);
        let result = handshake_within(limit, link, "test", &key, &node, &capabilities()).await;
        assert!(matches!(result, Err(ClientError::Unreachable { .. })));
    }
}
