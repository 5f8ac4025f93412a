//! What is said over NATS. A message is a head of JSON and, behind it, bytes as they are: a piece of a
//! node's message, of a request or of an answer. Both are sealed together.

use std::net::IpAddr;

use neurino_core::TextOutput;
use neurino_protocol::node::Hello;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Largest piece of bytes in one message; whatever is larger takes several.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Largest head, in bytes.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// Names one router at one time: whoever held the books before has a lower epoch, and what was said
/// before its messages may have been lost a lower generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Reign {
    pub(super) epoch: i64,
    pub(super) generation: u64,
}

/// The router, as it tells every second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) reign: Reign,
}

/// From a gateway to the router.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Up {
    /// The gateway's process.
    pub(super) gateway: String,
    /// For whom it is.
    pub(super) reign: Reign,
    /// Rises whenever the gateway begins anew.
    pub(super) session: u64,
    /// Zero at the beginning, then one more each time.
    pub(super) order: u64,
    /// The link or request that it is about.
    pub(super) circuit: u64,
    pub(super) say: UpSay,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UpSay {
    /// A session begins; everything before is over.
    Begin,
    /// The gateway is there.
    Alive,
    /// A node, by the signed hello that the gateway has checked; `again` if it has been welcomed.
    Link {
        hello: Box<Hello>,
        again: bool,
        /// The network that it comes from, where that can be known.
        #[serde(default)]
        from: Option<IpAddr>,
    },
    /// A piece of a node's message; `more` if others follow.
    Text { more: bool },
    /// A request; its body is in this message and those that follow.
    Ask { ask: Box<Ask>, more: bool },
    /// More of a request's body.
    Body { more: bool },
    /// The node or the client is gone.
    Close,
    /// What it is about goes on in another circuit.
    Leave,
}

/// From the router to a gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Down {
    pub(super) reign: Reign,
    pub(super) session: u64,
    /// As in [`Up`]; zero belongs to `Begun`.
    pub(super) order: u64,
    pub(super) circuit: u64,
    pub(super) say: DownSay,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DownSay {
    /// The session has begun.
    Begun,
    /// Something is missing: begin anew.
    Again,
    /// The router ends in order: wait for another one.
    Over,
    /// A piece of a message to a node.
    Text { more: bool },
    /// Status and headers of an answer.
    Head { status: u16, headers: Vec<(String, String)> },
    /// A piece of an answer's body.
    Body,
    /// The link or the answer is over; `broken` if the answer is not whole.
    End { broken: bool },
}

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    /// The address that it comes from, where that can be known: new sessions are counted by it.
    #[serde(default)]
    pub(super) from: Option<IpAddr>,
    /// The idempotency key is the gateway's: nobody else comes back for the result.
    pub(super) own_key: bool,
    /// What the client of a stream has already.
    pub(super) resume: Option<Resume>,
    /// It was put before: the client asked once, and is counted once.
    #[serde(default)]
    pub(super) again: bool,
}

/// A request in the work queue, behind which its body stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Submit {
    pub(super) gateway: String,
    pub(super) session: u64,
    pub(super) circuit: u64,
    pub(super) at_ms: i64,
    pub(super) ask: Ask,
}

/// What the client of a streamed answer has of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resume {
    /// The `created` of its first piece, in seconds since the Unix epoch.
    pub(crate) created: i64,
    /// Whether the piece with the usage was sent.
    pub(crate) usage: bool,
    /// By choice; those at the end that nothing was sent of are missing.
    pub(crate) choices: Vec<Sent>,
}

/// What it has of one choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) begun: bool,
    pub(crate) finished: bool,
    pub(crate) text_bytes: usize,
    /// SHA-256 of the text, in hexadecimal digits.
    pub(crate) text_digest: String,
    pub(crate) calls: usize,
    pub(crate) logprobs: usize,
}

impl Resume {
    /// Whether an answer begins with what the client has.
    pub(crate) fn begins(&self, answer: &TextOutput) -> bool {
        self.choices.len() <= answer.choices.len()
            && self.choices.iter().zip(&answer.choices).all(|(sent, choice)| {
                choice
                    .text
                    .get(..sent.text_bytes)
                    .is_some_and(|text| hex::encode(Sha256::digest(text)) == sent.text_digest)
                    && sent.calls <= choice.tool_calls.len()
            })
    }
}

/// Head and bytes as one message.
pub(super) fn pack<T: Serialize>(head: &T, bytes: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("heads serialise");
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), &head, bytes].concat()
}

/// The head and the bytes of a message; `None` if it is none.
pub(super) fn unpack<T: DeserializeOwned>(message: &[u8]) -> Option<(T, &[u8])> {
    let (length, rest) = message.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > HEAD_BYTES_MAX {
        return None;
    }
    let (head, bytes) = rest.split_at_checked(length)?;
    Some((serde_json::from_slice(head).ok()?, bytes))
}

/// Cuts bytes into pieces, and says of each whether others follow. Nothing is one empty piece.
pub(super) fn pieces(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let count = bytes.len().div_ceil(PIECE_BYTES).max(1);
    (0..count).map(move |at| {
        let end = bytes.len().min((at + 1) * PIECE_BYTES);
        (&bytes[at * PIECE_BYTES..end], at + 1 < count)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else() {
        let owner = Owner { reign: Reign { epoch: 7, generation: 2 } };
        let packed = pack(&owner, b"bytes");
        let (read, bytes) = unpack::<Owner>(&packed).unwrap();
        assert_eq!((read.reign, bytes), (owner.reign, b"bytes".as_slice()));
        for cut in 0..packed.len() - b"bytes".len() {
            assert!(unpack::<Owner>(&packed[..cut]).is_none(), "{cut}");
        }
        assert!(unpack::<Owner>(&[0xff; 64]).is_none(), "a head longer than the message");
        assert!(unpack::<Owner>(&pack(&serde_json::json!({ "reign": -1 }), b"")).is_none());
        assert!(unpack::<Up>(&packed).is_none(), "a head of another kind");
    }

    #[test]
    fn pieces_join_to_the_whole() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let whole: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let pieces: Vec<_> = pieces(&whole).collect();
            assert_eq!(pieces.concat_bytes(), whole, "{length}");
            assert_eq!(pieces.iter().filter(|(_, more)| !more).count(), 1);
            assert!(!pieces.last().unwrap().1);
        }
    }

    trait Concat {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl Concat for Vec<(&[u8], bool)> {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|(piece, _)| piece.to_vec()).collect()
        }
    }
}
