//! Opening a session, the same over every transport: challenge, signed hello, welcome.

use std::time::Duration;

use neurino_core::NodeId;
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, Hello, NodeMessage, PROTOCOL_VERSION,
};
use neurino_wallet::IdentityKey;
use tokio::sync::mpsc;

use crate::uploads::{carried, is_near};
use crate::{ClientError, Device, Session};

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

/// Who opens a session, and where.
#[derive(Clone, Copy)]
pub struct Introduction<'a> {
    /// Signs for the node.
    pub key: &'a IdentityKey,
    /// The node.
    pub node: &'a NodeId,
    /// Its machine.
    pub capabilities: &'a Capabilities,
    /// Signs for the device.
    pub device: &'a Device,
    /// Where the node connected to, see [`Hello::origin`].
    pub origin: &'a str,
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
    who: Introduction<'_>,
) -> Result<Session, ClientError> {
    handshake_within(HANDSHAKE_LIMIT, link, address, who).await
}

async fn handshake_within(
    limit: Duration,
    mut link: Link,
    address: &str,
    who: Introduction<'_>,
) -> Result<Session, ClientError> {
    let challenge = next(limit, &mut link, address).await?;
    let (network, hello) = answer(challenge, who)?;
    let challenger = hello.coordinator.clone();
    match tokio::time::timeout(limit, link.outbox.send(NodeMessage::Hello(hello))).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(closed(address)),
        Err(_) => return Err(silent(address, limit)),
    }
    let welcomed = next(limit, &mut link, address).await?;
    let (coordinator, uploads) = welcome(welcomed, &challenger, who)?;
    let session = Session { network, coordinator, outbox: link.outbox, messages: link.messages };
    Ok(if uploads { carried(session, is_near(address)) } else { session })
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
    who: Introduction<'_>,
) -> Result<(String, Hello), ClientError> {
    let (version, network, coordinator, nonce) = match challenge {
        CoordinatorMessage::Challenge { version, network, coordinator, nonce } => {
            (version, network, coordinator, nonce)
        }
        CoordinatorMessage::Bye(error) => return Err(ClientError::Refused(error)),
        _ => return Err(ClientError::Protocol("it did not begin with a challenge".into())),
    };
    if version != PROTOCOL_VERSION {
        return Err(ClientError::Protocol(format!(
            "it speaks version {version}, this program version {PROTOCOL_VERSION}; update the older \
             one"
        )));
    }
    if !coordinator.is_empty() && !is_address(&coordinator) {
        return Err(ClientError::Protocol("its key's address is not an address".into()));
    }
    // Both become lines of what is signed; with a line's end in it, one could say what others mean.
    if !is_word(&network, |c| !c.is_control()) {
        return Err(ClientError::Protocol("its network's name is not a name".into()));
    }
    if !is_word(&nonce, |c| c.is_ascii_graphic()) {
        return Err(ClientError::Protocol("what it wants signed is not a nonce".into()));
    }
    let device = who.device.key();
    // Another key than the node's is not helped by what the node's key got.
    let own = who.node.as_str().starts_with(&who.key.address());
    let token = if own { who.device.token(who.node, &coordinator) } else { None };
    let mut hello = Hello {
        version: PROTOCOL_VERSION,
        origin: who.origin.to_owned(),
        token,
        coordinator,
        device: device.address(),
        device_signature: String::new(),
        node: who.node.clone(),
        nonce,
        signature: String::new(),
        agent: AGENT.into(),
        capabilities: who.capabilities.clone(),
    };
    let message = hello.message(&network);
    hello.device_signature = device.sign(&message);
    if hello.token.is_none() {
        hello.signature = who.key.sign(&message);
    }
    Ok((network, hello))
}

/// Checks a welcome and returns the address of the coordinator's key, and whether pictures may be put
/// elsewhere. `challenger` is who the challenge said it was from, if it did.
pub(crate) fn welcome(
    message: CoordinatorMessage,
    challenger: &str,
    who: Introduction<'_>,
) -> Result<(String, bool), ClientError> {
    match message {
        CoordinatorMessage::Welcome { coordinator, .. } if !is_address(&coordinator) => {
            Err(ClientError::Protocol("its key's address is not an address".into()))
        }
        CoordinatorMessage::Welcome { coordinator, .. }
            if !challenger.is_empty() && coordinator != challenger =>
        {
            let told = "whoever welcomes is not who asked for the signature".into();
            Err(ClientError::Protocol(told))
        }
        CoordinatorMessage::Welcome { coordinator, uploads, token } => {
            if let Some(token) = token {
                who.device.keep(who.node, &coordinator, token);
            }
            Ok((coordinator, uploads))
        }
        CoordinatorMessage::Bye(error) => Err(ClientError::Refused(error)),
        _ => Err(ClientError::Protocol("it did not answer the hello".into())),
    }
}

/// Whether a text is of 1 to 128 characters of a kind.
fn is_word(text: &str, kind: impl Fn(char) -> bool) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(kind)
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

    fn welcomed(coordinator: &str) -> CoordinatorMessage {
        let coordinator = coordinator.into();
        CoordinatorMessage::Welcome { coordinator, uploads: false, token: None }
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
        let (capabilities, device) = (capabilities(), Device::fresh());
        let (key_of, origin) = (&key, "https://pool.example");
        let who = Introduction {
            key: key_of,
            node: &node,
            capabilities: &capabilities,
            device: &device,
            origin,
        };
        let result = handshake(link, "test", who).await;
        (result, sent.try_recv().ok(), key)
    }

    fn challenge(version: u32) -> CoordinatorMessage {
        CoordinatorMessage::Challenge {
            version,
            network: "net".into(),
            coordinator: COORDINATOR.into(),
            nonce: "n1".into(),
        }
    }

    #[tokio::test]
    async fn the_hello_is_signed_over_where_it_goes_by_both_keys() {
        let welcome = welcomed(COORDINATOR);
        let (session, sent, key) = check(vec![challenge(PROTOCOL_VERSION), welcome]).await;
        let session = session.expect("opened");
        assert_eq!((&*session.network, &*session.coordinator), ("net", COORDINATOR));
        let Some(NodeMessage::Hello(hello)) = sent else { panic!("no hello: {sent:?}") };
        let message = hello.message("net");
        for said in ["origin: https://pool.example\n", "nonce: n1", COORDINATOR, &hello.device] {
            assert!(message.contains(said), "{message}");
        }
        neurino_wallet::verify(&message, &hello.signature, &key.address()).expect("genuine");
        let device = &hello.device;
        neurino_wallet::verify(&message, &hello.device_signature, device).expect("genuine");
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
        for odd in ["nobody", "0x00000000000000000000000000000000000000bb"] {
            let (result, ..) = check(vec![challenge(PROTOCOL_VERSION), welcomed(odd)]).await;
            assert!(matches!(result, Err(ClientError::Protocol(_))), "{odd}");
        }
    }

    #[tokio::test]
    async fn nothing_is_signed_that_would_read_as_more_lines() {
        let (line, long) = ("n\norigin: http://localhost:1", "n".repeat(129));
        for (network, nonce) in
            [("net", line), (line, "n1"), ("net", ""), ("", "n1"), ("net", &long), (&long, "n1")]
        {
            let challenge = CoordinatorMessage::Challenge {
                version: PROTOCOL_VERSION,
                network: network.into(),
                coordinator: COORDINATOR.into(),
                nonce: nonce.into(),
            };
            let (result, sent, _) = check(vec![challenge, welcomed(COORDINATOR)]).await;
            assert!(matches!(result, Err(ClientError::Protocol(_))), "{network:?} {nonce:?}");
            assert!(sent.is_none(), "{network:?} {nonce:?}");
        }
    }

    #[tokio::test]
    async fn a_silent_coordinator_is_given_up() {
        let key = IdentityKey::generate(&mut rand::rng());
        let node = NodeId::new(key.address()).expect("valid");
        let (outbox, _keep) = mpsc::channel(8);
        let (_tx, messages) = mpsc::channel(8);
        let link = Link { outbox, messages };
        let limit = Duration::from_millis(20);
        let (capabilities, device) = (capabilities(), Device::fresh());
        let who = Introduction {
            key: &key,
            node: &node,
            capabilities: &capabilities,
            device: &device,
            origin: "https://pool.example",
        };
        let result = handshake_within(limit, link, "test", who).await;
        assert!(matches!(result, Err(ClientError::Unreachable { .. })));
    }
}
