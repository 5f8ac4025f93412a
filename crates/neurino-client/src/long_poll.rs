//! The link as long polls: one request waits for messages, another hands them in.

use std::time::Duration;

use neurino_protocol::node::{
    CoordinatorMessage, Exchange, MESSAGE_BYTES_MAX, NodeMessage, SessionOpened,
    UPLOAD_BYTES_PER_SEC,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handshake::{HANDSHAKE_LIMIT, Introduction, answer, welcome};
use crate::uploads::{carried, is_near};
use crate::websocket::{LINK_MESSAGES, Unread};
use crate::{ClientError, Session};

/// How long the coordinator may keep a poll that has nothing to tell.
const POLL_WAIT: Duration = Duration::from_secs(10);
/// How long any request may take beyond what it asked to wait and what its body takes on a slow line.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// A poll that came back empty sooner than this is followed by a pause of the same length.
const POLL_PAUSE: Duration = Duration::from_millis(250);
/// Largest answer that is read, in bytes: a few of the largest messages.
const REPLY_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Room for what surrounds the messages in an exchange, in bytes.
const ENVELOPE_BYTES: usize = 256;

/// Where the long polls go.
#[derive(Debug, Clone)]
pub(crate) struct LongPoll {
    client: Client,
    base: String,
}

impl LongPoll {
    /// `base` is a checked URL without a slash at its end.
    pub(crate) fn new(client: Client, base: &str) -> Self {
        Self { client, base: format!("{base}/v1/node") }
    }

    pub(crate) async fn open(
        &self,
        address: &str,
        who: Introduction<'_>,
    ) -> Result<Session, ClientError> {
        let request = self.client.post(format!("{}/challenge", self.base));
        let challenge = send(request, HANDSHAKE_LIMIT, address).await?;
        let (network, hello) = answer(challenge, who)?;
        let challenger = hello.coordinator.clone();
        let request = self.client.post(format!("{}/session", self.base));
        let request = request.json(&NodeMessage::Hello(hello));
        let opened: SessionOpened = send(request, HANDSHAKE_LIMIT, address).await?;
        let (coordinator, uploads) = welcome(opened.welcome, &challenger, who)?;
        let (outbox, from_node) = mpsc::channel(LINK_MESSAGES);
        let (to_node, messages) = mpsc::channel(LINK_MESSAGES);
        let exchanges = Exchanges {
            link: self.clone(),
            token: opened.token,
            address: address.into(),
            to_node,
            unread: Unread::default(),
        };
        tokio::spawn(exchanges.carry(from_node));
        let session = Session { network, coordinator, outbox, messages };
        Ok(if uploads { carried(session, is_near(address)) } else { session })
    }
}

/// An [`ExchangeReply`](neurino_protocol::node::ExchangeReply) whose messages are read one by one: one
/// that is not known takes no others along.
#[derive(Deserialize)]
struct Heard {
    messages: Vec<serde_json::Value>,
}

/// An open session's requests.
struct Exchanges {
    link: LongPoll,
    token: String,
    address: String,
    to_node: mpsc::Sender<CoordinatorMessage>,
    unread: Unread,
}

impl Exchanges {
    /// Carries messages both ways until the session is dropped or a request fails. A failed request
    /// is not repeated: the node would not know what arrived, and a new session settles that.
    async fn carry(self, from_node: mpsc::Receiver<NodeMessage>) {
        let ended = tokio::select! {
            ended = self.poll() => ended,
            ended = self.hand_in(from_node) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "the long poll ended");
        }
    }

    async fn poll(&self) -> Result<(), ClientError> {
        loop {
            let begun = Instant::now();
            let received = self.exchange(Vec::new(), POLL_WAIT).await?;
            if received == 0 && begun.elapsed() < POLL_PAUSE {
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
    }

    async fn hand_in(&self, mut from_node: mpsc::Receiver<NodeMessage>) -> Result<(), ClientError> {
        let mut next = from_node.recv().await;
        while let Some(first) = next.take() {
            let mut room = MESSAGE_BYTES_MAX.saturating_sub(ENVELOPE_BYTES + size_bytes(&first));
            let mut messages = vec![first];
            while let Ok(message) = from_node.try_recv() {
                let size = size_bytes(&message) + 1;
                if size > room {
                    next = Some(message);
                    break;
                }
                room -= size;
                messages.push(message);
            }
            self.exchange(messages, Duration::ZERO).await?;
            if next.is_none() {
                next = from_node.recv().await;
            }
        }
        Ok(())
    }

    /// One request; passes the answer's messages on and returns how many there were.
    async fn exchange(
        &self,
        messages: Vec<NodeMessage>,
        wait: Duration,
    ) -> Result<usize, ClientError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = self.link.client.post(format!("{}/exchange", self.link.base));
        let body = serde_json::to_vec(&Exchange { messages, wait_ms })
            .expect("node messages always serialise");
        let upload = Duration::from_secs((body.len() / UPLOAD_BYTES_PER_SEC) as u64);
        let request = request.bearer_auth(&self.token).header(CONTENT_TYPE, "application/json");
        let limit = wait + REQUEST_LIMIT + upload;
        let reply: Heard = send(request.body(body), limit, &self.address).await?;
        let received = reply.messages.len();
        for message in reply.messages {
            match serde_json::from_value(message) {
                // Nobody listens when the session is being closed.
                Ok(message) => drop(self.to_node.send(message).await),
                // A newer coordinator may know more than this program.
                Err(error) => self.unread.note(&error),
            }
        }
        Ok(received)
    }
}

fn size_bytes(message: &NodeMessage) -> usize {
    serde_json::to_vec(message).map_or(0, |json| json.len())
}

/// Sends a request and reads its JSON answer, at most [`REPLY_BYTES_MAX`] of it.
pub(crate) async fn send<T: DeserializeOwned>(
    request: RequestBuilder,
    limit: Duration,
    address: &str,
) -> Result<T, ClientError> {
    let failed = |error: reqwest::Error| ClientError::unreachable(address, error.without_url());
    let mut response = request.timeout(limit).send().await.map_err(failed)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            return Err(ClientError::Protocol("its answer is too large".into()));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        serde_json::from_slice(&body)
            .map_err(|_| ClientError::Protocol("its answer is not the one expected".into()))
    } else {
        Err(refusal(status, &body, address))
    }
}

/// The error behind a status: the coordinator's own words where it gave some.
fn refusal(status: StatusCode, body: &[u8], address: &str) -> ClientError {
    #[derive(Deserialize)]
    struct Wrapped {
        error: ErrorBody,
    }
    let said = serde_json::from_slice::<ErrorBody>(body)
        .or_else(|_| serde_json::from_slice::<Wrapped>(body).map(|wrapped| wrapped.error));
    match (said, status) {
        (Ok(said), _) => ClientError::Refused(said),
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ClientError::Refused(
            ErrorBody::new(ErrorCode::Unauthorized, format!("the server answered {status}")),
        ),
        (_, status) if status.is_server_error() => {
            ClientError::unreachable(address, format!("the server answered {status}"))
        }
        (_, status) => ClientError::Protocol(format!("the server answered {status}")),
    }
}
