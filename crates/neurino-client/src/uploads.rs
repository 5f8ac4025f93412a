//! Pictures of a session that go to the network's object store instead of through its coordinator.
//!
//! Stands between a miner and its link where the coordinator offers it. The miner submits as ever, and
//! repeats itself as ever until it is answered; here each submission of a picture becomes a question
//! where to put it, an upload, and the word that it is there. What cannot be uploaded for good is
//! submitted on the link.

use std::collections::HashMap;
use std::time::Duration;

use neurino_core::{ImageOutput, JobOutput, LeaseId, ResultDigest};
use neurino_protocol::node::upload::{CONTENT_TYPE, IF_NONE_MATCH, StoredPicture, Uploaded};
use neurino_protocol::node::{CoordinatorMessage, NodeMessage, Submission, UPLOAD_BYTES_PER_SEC};
use reqwest::{StatusCode, Url};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Session;
use crate::http::is_loopback;
use crate::original::upload::{UploadError, pinned};

/// Messages that may wait on either side.
const ROOM: usize = 64;
/// Longest upload, beyond what a slow line takes for it.
const UPLOAD_LIMIT: Duration = Duration::from_secs(30);

/// Whether a coordinator's address is this machine, so that its pictures may stay here, too. Within one
/// process there is no URL.
pub(crate) fn is_near(address: &str) -> bool {
    Url::parse(address).map_or(true, |url| is_loopback(&url))
}

/// The same session, with its pictures beside it. `near` allows uploads to this machine and its network.
pub(crate) fn carried(session: Session, near: bool) -> Session {
    let (outbox, from_miner) = mpsc::channel(ROOM);
    let (to_miner, messages) = mpsc::channel(ROOM);
    let Session { network, coordinator, outbox: link, messages: from_link } = session;
    let carrier = Carrier {
        near,
        link: Some(link),
        to_miner,
        waiting: HashMap::new(),
        uploads: JoinSet::new(),
    };
    // Ends with either side of the session.
    tokio::spawn(carrier.carry(from_miner, from_link));
    Session { network, coordinator, outbox, messages }
}

/// A result with a picture that was not answered yet.
struct Waiting {
    submission: Submission,
    picture: StoredPicture,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The coordinator was asked where to put it.
    Asked,
    /// It is on its way.
    Uploading,
    /// It is there, and the coordinator was told, or the upload did not get through: the miner's next
    /// word begins anew.
    Over,
    /// It goes on the link.
    Refused,
}

struct Carrier {
    near: bool,
    /// Gone once the miner has closed its side and everything was handed in.
    link: Option<mpsc::Sender<NodeMessage>>,
    to_miner: mpsc::Sender<CoordinatorMessage>,
    waiting: HashMap<LeaseId, Waiting>,
    uploads: JoinSet<(LeaseId, Result<(), UploadError>)>,
}

/// The other side is gone.
struct Closed;

impl Carrier {
    async fn carry(
        mut self,
        mut from_miner: mpsc::Receiver<NodeMessage>,
        mut from_link: mpsc::Receiver<CoordinatorMessage>,
    ) {
        let mut closing = false;
        loop {
            let under_way = |w: &Waiting| matches!(w.stage, Stage::Asked | Stage::Uploading);
            if closing && !self.waiting.values().any(under_way) {
                self.link = None;
            }
            let done = tokio::select! {
                message = from_miner.recv(), if !closing => if let Some(message) = message {
                    self.hear_miner(message).await
                } else {
                    closing = true;
                    Ok(())
                },
                message = from_link.recv() => match message {
                    Some(message) => self.hear_link(message).await,
                    None => return,
                },
                Some(uploaded) = self.uploads.join_next() => match uploaded {
                    Ok((lease, outcome)) => self.uploaded(lease, outcome).await,
                    // None is cancelled, and a broken one is begun again by the miner.
                    Err(_) => Ok(()),
                },
                () = self.to_miner.closed() => return,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn say(&self, message: NodeMessage) -> Result<(), Closed> {
        match &self.link {
            Some(link) => link.send(message).await.map_err(|_| Closed),
            None => Ok(()),
        }
    }

    async fn hear_miner(&mut self, message: NodeMessage) -> Result<(), Closed> {
        match message {
            NodeMessage::Submit(submission) => self.submit(submission).await,
            NodeMessage::Heartbeat { mut leases } => {
                // After a new connection the miner does not name what is finished, and an upload takes
                // longer than the coordinator would wait.
                let ours = self.waiting.keys().filter(|lease| !leases.contains(lease));
                let ours: Vec<_> = ours.copied().collect();
                leases.extend(ours);
                self.say(NodeMessage::Heartbeat { leases }).await
            }
            message => self.say(message).await,
        }
    }

    async fn submit(&mut self, submission: Submission) -> Result<(), Closed> {
        let lease = submission.statement.lease;
        let JobOutput::Image(picture) = &submission.output else {
            return self.say(NodeMessage::Submit(submission)).await;
        };
        match self.waiting.get_mut(&lease) {
            Some(Waiting { stage: Stage::Refused, .. }) => {
                self.say(NodeMessage::Submit(submission)).await
            }
            Some(Waiting { stage: Stage::Uploading, .. }) => Ok(()),
            Some(waiting) => {
                waiting.stage = Stage::Asked;
                let picture = waiting.picture;
                self.say(NodeMessage::Upload { lease, picture }).await
            }
            None => {
                let picture = described(picture);
                let waiting = Waiting { submission, picture, stage: Stage::Asked };
                self.waiting.insert(lease, waiting);
                self.say(NodeMessage::Upload { lease, picture }).await
            }
        }
    }

    async fn hear_link(&mut self, message: CoordinatorMessage) -> Result<(), Closed> {
        match &message {
            CoordinatorMessage::UploadTo { lease, url } => {
                let asked = self.waiting.get_mut(lease).filter(|w| w.stage == Stage::Asked);
                // Nothing is fetched or sent that this side did not ask for.
                if let Some(waiting) = asked
                    && let JobOutput::Image(picture) = &waiting.submission.output
                {
                    waiting.stage = Stage::Uploading;
                    let (lease, url, near) = (*lease, url.clone(), self.near);
                    let file = picture.png.0.clone();
                    self.uploads.spawn(async move { (lease, put(&url, near, file).await) });
                }
                return Ok(());
            }
            CoordinatorMessage::Settled(receipt) => drop(self.waiting.remove(&receipt.lease)),
            CoordinatorMessage::Rejected { lease, .. }
            | CoordinatorMessage::Cancel { lease, .. } => drop(self.waiting.remove(lease)),
            _ => {}
        }
        self.to_miner.send(message).await.map_err(|_| Closed)
    }

    async fn uploaded(
        &mut self,
        lease: LeaseId,
        outcome: Result<(), UploadError>,
    ) -> Result<(), Closed> {
        let Some(waiting) = self.waiting.get_mut(&lease) else { return Ok(()) };
        waiting.stage = Stage::Over;
        let Submission { statement, signature, .. } = &waiting.submission;
        let message = match outcome {
            Ok(()) => NodeMessage::Uploaded(Uploaded {
                statement: statement.clone(),
                signature: signature.clone(),
                picture: waiting.picture,
            }),
            Err(error) if error.passes() => {
                tracing::warn!(lease.id = %lease, "a picture was not uploaded yet: {error}");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(lease.id = %lease, "a picture goes on the link instead: {error}");
                waiting.stage = Stage::Refused;
                NodeMessage::Submit(waiting.submission.clone())
            }
        };
        self.say(message).await
    }
}

fn described(picture: &ImageOutput) -> StoredPicture {
    let file = &picture.png.0;
    StoredPicture {
        sha256: ResultDigest(Sha256::digest(file).into()),
        bytes: file.len() as u64,
        width: picture.width,
        height: picture.height,
    }
}

/// Puts a file where a URL says: as that URL alone allows it, with nothing of this node.
async fn put(url: &str, near: bool, file: Vec<u8>) -> Result<(), UploadError> {
    let url = checked(url, near)?;
    let slow = Duration::from_secs((file.len() / UPLOAD_BYTES_PER_SEC) as u64);
    let request = pinned(&url, near).await?.put(url).timeout(UPLOAD_LIMIT + slow);
    let request = request
        .header(CONTENT_TYPE.0, CONTENT_TYPE.1)
        .header(IF_NONE_MATCH.0, IF_NONE_MATCH.1)
        .body(file);
    // The URL is a key; errors must not show it.
    let answer = request.send().await.map_err(|error| UploadError::Http(error.without_url()))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        // It lies there already: the answer to an earlier attempt was lost.
        StatusCode::PRECONDITION_FAILED => Ok(()),
        status => Err(UploadError::Refused(status.as_u16())),
    }
}

fn checked(text: &str, near: bool) -> Result<Url, UploadError> {
    let refused = |rule| Err(UploadError::Address(rule));
    let Ok(url) = Url::parse(text) else { return refused("it is no URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return refused("it names a user");
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if near && is_loopback(&url) => Ok(url),
        "http" => refused("plain http is only for this machine itself"),
        _ => refused("it does not begin with https://"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::{JobId, NodeId, Png, ResultStatement};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;

    fn submission(lease: LeaseId) -> Submission {
        let png = Png(vec![7; 1000]);
        let output = JobOutput::Image(ImageOutput { png, width: 8, height: 8 });
        let statement = ResultStatement {
            job: JobId(Uuid::from_u128(1)),
            lease,
            fence: 1,
            node: NodeId::new("0xab").unwrap(),
            digest: output.digest(),
        };
        Submission { statement, signature: "0x".into(), output }
    }

    /// Answers each request with the next of some statuses, and hands its text on.
    async fn server(statuses: &'static [&'static str]) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/bucket/a.png?X-Amz-Signature=secret",
            listener.local_addr().unwrap()
        );
        let (tell, told) = mpsc::channel(8);
        tokio::spawn(async move {
            for status in statuses {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(&[7; 1000]) {
                    let mut piece = [0; 4096];
                    let count = socket.read(&mut piece).await.unwrap();
                    assert_ne!(count, 0, "the whole file comes");
                    request.extend_from_slice(&piece[..count]);
                }
                let head = format!(
                    "HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\
                     connection: close\r\n\r\n"
                );
                socket.write_all(head.as_bytes()).await.unwrap();
                let text = String::from_utf8_lossy(&request).to_lowercase();
                tell.send(text).await.unwrap();
            }
        });
        (url, told)
    }

    struct World {
        session: Session,
        from_node: mpsc::Receiver<NodeMessage>,
        to_node: mpsc::Sender<CoordinatorMessage>,
    }

    fn world(near: bool) -> World {
        let (outbox, from_node) = mpsc::channel(8);
        let (to_node, messages) = mpsc::channel(8);
        let (network, coordinator) = ("net".into(), "0x".into());
        let session = carried(Session { network, coordinator, outbox, messages }, near);
        World { session, from_node, to_node }
    }

    #[tokio::test]
    async fn a_picture_goes_where_the_coordinator_says_and_nothing_else_does() {
        let lease = LeaseId(Uuid::from_u128(9));
        // Once the server breaks, once the answer was lost.
        let (url, mut requests) = server(&["503 no", "412 there"]).await;
        let mut world = world(true);
        // Nobody asked for this one.
        let other = LeaseId(Uuid::from_u128(1));
        let unasked = CoordinatorMessage::UploadTo { lease: other, url: url.clone() };
        world.to_node.send(unasked).await.unwrap();
        for attempt in 0..2 {
            world.session.outbox.send(NodeMessage::Submit(submission(lease))).await.unwrap();
            let Some(NodeMessage::Upload { lease: asked, picture }) = world.from_node.recv().await
            else {
                panic!("it asks where to")
            };
            assert_eq!((asked, picture.bytes), (lease, 1000));
            assert_eq!(picture.sha256.0[..], Sha256::digest([7; 1000])[..]);
            let to = CoordinatorMessage::UploadTo { lease, url: url.clone() };
            world.to_node.send(to).await.unwrap();
            let request = requests.recv().await.unwrap();
            assert!(request.starts_with("put /bucket/a.png?x-amz-signature=secret"), "{request}");
            for header in ["content-length: 1000", "content-type: image/png", "if-none-match: *"] {
                assert!(request.contains(header), "{header} in {request}");
            }
            assert!(!request.contains("authorization") && !request.contains("cookie"), "{request}");
            if attempt == 0 {
                // What is finished counts as in work until it is answered.
                let beat = NodeMessage::Heartbeat { leases: vec![other] };
                tokio::time::sleep(Duration::from_millis(50)).await;
                world.session.outbox.send(beat).await.unwrap();
                let named = NodeMessage::Heartbeat { leases: vec![other, lease] };
                assert_eq!(world.from_node.recv().await, Some(named));
            }
        }
        let Some(NodeMessage::Uploaded(uploaded)) = world.from_node.recv().await else {
            panic!("it says that it is there")
        };
        assert_eq!(uploaded.statement, submission(lease).statement);
    }

    #[tokio::test]
    async fn what_cannot_be_uploaded_goes_on_the_link() {
        let lease = LeaseId(Uuid::from_u128(9));
        let (url, _requests) = server(&["403 no"]).await;
        // A redirect is not followed.
        let (redirect, mut redirected) = server(&["307 elsewhere"]).await;
        for (near, url) in [
            (true, url.clone()),
            (true, redirect),
            (false, url),
            (false, "https://127.0.0.1:1/a".into()),
            (false, "https://10.1.2.3/a".into()),
            (true, "http://pool.example/a".into()),
            (true, "http://u:p@127.0.0.1/a".into()),
            (true, "ftp://127.0.0.1/a".into()),
        ] {
            let mut world = world(near);
            world.session.outbox.send(NodeMessage::Submit(submission(lease))).await.unwrap();
            assert!(matches!(world.from_node.recv().await, Some(NodeMessage::Upload { .. })));
            let to = CoordinatorMessage::UploadTo { lease, url: url.clone() };
            world.to_node.send(to).await.unwrap();
            let sent = world.from_node.recv().await;
            assert_eq!(sent, Some(NodeMessage::Submit(submission(lease))), "{url}");
            // And stays there.
            world.session.outbox.send(NodeMessage::Submit(submission(lease))).await.unwrap();
            let sent = world.from_node.recv().await;
            assert_eq!(sent, Some(NodeMessage::Submit(submission(lease))), "{url}");
        }
        assert!(redirected.recv().await.is_some(), "it was asked once");
    }

    #[tokio::test]
    async fn a_miner_that_leaves_hands_in_what_is_on_its_way() {
        let lease = LeaseId(Uuid::from_u128(9));
        let (url, _requests) = server(&["200 ok"]).await;
        let mut world = world(true);
        world.session.outbox.send(NodeMessage::Submit(submission(lease))).await.unwrap();
        world.session.outbox.send(NodeMessage::Goodbye).await.unwrap();
        drop(world.session.outbox);
        assert!(matches!(world.from_node.recv().await, Some(NodeMessage::Upload { .. })));
        assert_eq!(world.from_node.recv().await, Some(NodeMessage::Goodbye));
        let to = CoordinatorMessage::UploadTo { lease, url };
        world.to_node.send(to).await.unwrap();
        assert!(matches!(world.from_node.recv().await, Some(NodeMessage::Uploaded(_))));
        assert_eq!(world.from_node.recv().await, None, "then the link is closed");
    }
}
