//! Messages between a node and its coordinator.
//!
//! One link carries both directions as JSON: a WebSocket (`GET /v1/node/link`), or where that is
//! blocked a long poll (`POST /v1/node/session`, then `POST /v1/node/exchange`), or a pair of
//! channels when both live in one process. The messages are the same.
//!
//! A conversation: the coordinator sends [`CoordinatorMessage::Challenge`]; the node answers
//! [`NodeMessage::Hello`] signed over the nonce; the coordinator answers `Welcome`. From then on the
//! coordinator pushes `Assign` whenever the node has a free slot for a model it announced in
//! [`NodeMessage::Ready`]; the node streams `Progress` and ends with `Submit`, `HandBack` or
//! `Failed`. `Submit` is repeated (also after reconnecting, also after a crash) until `Settled` or
//! `Rejected` for that lease arrives; a repeat of a settled lease gets the same receipt.
//!
//! A node with several cards may announce each of them, or groups and parts of them, as a unit with
//! models and slots of its own; see [`unit`]. Each lease then names its unit. Where either side does not
//! know of units, the node is one.
//!
//! Where `Welcome` says so, a picture need not pass the link: instead of `Submit` the node sends
//! [`NodeMessage::Upload`], is answered [`CoordinatorMessage::UploadTo`], puts the file there, and says
//! [`NodeMessage::Uploaded`], as often as it would repeat `Submit`. See [`upload`].

use neurino_core::{
    FrontendId, ImageDefaults, ImageStep, JobId, JobKind, JobOutput, Lease, LeaseId, ModelId,
    NodeId, Receipt, ResultStatement, TextDelta, UnitId,
};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::error::{ErrorBody, ErrorCode};

pub mod files;
pub mod unit;
pub mod upload;

use files::{FileChallenge, FileProof};
use unit::Unit;
use upload::{StoredPicture, Uploaded};

/// The protocol's version; both sides send it and refuse another one.
pub const PROTOCOL_VERSION: u32 = 4;
/// The origin that is signed on a link within one process.
pub const LOCAL_ORIGIN: &str = "local";
/// Largest message on a link, in bytes, but for [`NodeMessage::Submit`].
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Largest [`NodeMessage::Submit`], in bytes: the largest picture, if nothing in it repeats, in
/// base64.
pub const SUBMIT_BYTES_MAX: usize = 20 << 20;
/// Largest file of a preview, in bytes.
pub const PREVIEW_BYTES_MAX: usize = 512 << 10;
/// Slowest upload that a link is made for, in bytes per second; while a large message is on its way,
/// nothing else gets through.
pub const UPLOAD_BYTES_PER_SEC: usize = 128 << 10;
/// How often a node that holds leases sends [`NodeMessage::Heartbeat`], in seconds; three missed ones end
/// the session.
pub const HEARTBEAT_SECS: u64 = 5;
/// How often one without leases does, which has less to lose. Most nodes of a network are idle, and their
/// heartbeats are most of what it hears.
pub const IDLE_HEARTBEAT_SECS: u64 = 3 * HEARTBEAT_SECS;

/// From the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeMessage {
    /// Opens the session.
    Hello(Hello),
    /// What the node can take now. Sent after `Welcome` and whenever it changes; an empty list or
    /// zero slots pauses it.
    Ready(Ready),
    /// A lease advanced. Tokens and steps are passed on to a streaming payer at once.
    Progress {
        /// The lease.
        lease: LeaseId,
        /// What was generated since the last message, at most one for each answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        deltas: Vec<TextDelta>,
        /// Tokens generated so far.
        #[serde(default)]
        tokens: u32,
        /// The newest step of a picture. It has a preview only if the job asked for previews.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<ImageStep>,
    },
    /// A finished job.
    Submit(Submission),
    /// A picture is finished; asks where it may be put. Answered with `UploadTo`, or with `Settled` or
    /// `Rejected` if the lease is over.
    Upload {
        /// The lease.
        lease: LeaseId,
        /// Its file.
        picture: StoredPicture,
    },
    /// The picture was put there: a finished job, as `Submit` is.
    Uploaded(Uploaded),
    /// The node gives the job back unharmed (pause, stop, a game started): no penalty, re-queued.
    HandBack {
        /// The lease.
        lease: LeaseId,
        /// Why, for the log.
        reason: String,
    },
    /// The node could not compute the job.
    Failed {
        /// The lease.
        lease: LeaseId,
        /// Why. `ContextTooLong` and `InvalidRequest` fail the job for good; others re-queue it.
        error: ErrorBody,
    },
    /// Still here. Lists the leases the node is working on; leases it does not name are re-queued.
    Heartbeat {
        /// Leases in work.
        leases: Vec<LeaseId>,
    },
    /// Pieces of a file that the coordinator asked for.
    FileShown(FileProof),
    /// The node ends the session after its current jobs.
    Goodbye,
}

/// Opens a session; signed over [`Hello::message`] by the device's key, and by the identity key or, for
/// a while after that, with the token of an earlier session instead.
///
/// What is signed names where the node connected to and whose challenge it answers, so that a
/// coordinator cannot pass another one's challenge on and work there as the node.
///
/// Fields that version 3 did not have may be missing, so that its programs are told about the version
/// and not about the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// Where the node connected to: scheme, host and port, as browsers write an origin, or
    /// [`LOCAL_ORIGIN`].
    #[serde(default)]
    pub origin: String,
    /// Address of the coordinator's key, as the challenge named it.
    #[serde(default)]
    pub coordinator: String,
    /// Address of the key that this device keeps for its sessions.
    #[serde(default)]
    pub device: String,
    /// That key's signature: `0x` and 130 hex digits.
    #[serde(default)]
    pub device_signature: String,
    /// Of an earlier session of the same node and device; then the identity key need not sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Who asks; starts with the lower-case address of the signing key.
    pub node: NodeId,
    /// The nonce of the challenge.
    pub nonce: String,
    /// The identity key's signature, `0x` and 130 hex digits; empty with a token.
    #[serde(default)]
    pub signature: String,
    /// The program and its version, for example `neurino/0.1.0`.
    pub agent: String,
    /// The machine.
    pub capabilities: Capabilities,
}

impl Hello {
    /// The text that is signed (EIP-191 personal message).
    pub fn message(&self, network: &str) -> String {
        let Self { origin, coordinator, node, device, nonce, .. } = self;
        format!(
            "neurino session v2\nnetwork: {network}\ncoordinator: {coordinator}\norigin: {origin}\n\
             node: {node}\ndevice: {device}\nnonce: {nonce}"
        )
    }
}

/// Lets a device open sessions for a while without the identity key. Worth nothing without the
/// device's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionToken {
    /// To be sent in [`Hello::token`].
    pub token: String,
    /// How long it is good, in seconds.
    pub secs: u64,
}

/// The machine behind a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The device that computes, for example `NVIDIA GeForce RTX 4090` or a CPU's name.
    pub device: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Whether the device is a GPU.
    pub gpu: bool,
    /// The frontend through which its owner came to the network; its jobs prefer such nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referred_by: Option<FrontendId>,
}

/// What a node can take now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether a node can do something")]
pub struct Ready {
    /// Verified models, loaded ones first.
    pub models: Vec<ModelOffer>,
    /// Jobs it takes at once.
    pub slots: u32,
    /// Whether none of them is loaded, not even the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cold: bool,
    /// Whether it understands [`CoordinatorMessage::Advice`], and its owner lets it follow. Nobody else
    /// is sent any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advised: bool,
    /// Whether it names the tokens of its texts where it is asked to, and scores claimed ones. Nobody else
    /// is given either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scores: bool,
    /// Whether it understands [`CoordinatorMessage::ShowFile`]. Nobody else is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shows_files: bool,
    /// What it consists of, if jobs are to go to its cards one by one. The other fields then say what the
    /// node is as one, for coordinators that do not know of units: all models, and slots for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

impl Ready {
    /// Of a node that has the first of these models loaded and takes no advice.
    pub fn new(models: Vec<ModelOffer>, slots: u32) -> Self {
        Self { models, slots, ..Self::default() }
    }
}

/// Which of the models that a node announced it should have loaded. Advice: the node follows it between
/// jobs, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The model; absent if nobody asks for any of them, so that its memory may be freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// Jobs that wait for it.
    #[serde(default)]
    pub waiting: u32,
    /// Which unit is to have it loaded; absent for a node that announced none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitId>,
}

/// A model that a node serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelOffer {
    /// Its id.
    pub id: ModelId,
    /// What suits it, if it makes pictures; absent if it writes text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageDefaults>,
}

impl ModelOffer {
    /// A model that writes text.
    pub fn text(id: ModelId) -> Self {
        Self { id, image: None }
    }

    /// What it makes.
    pub fn kind(&self) -> JobKind {
        if self.image.is_some() { JobKind::Image } else { JobKind::Text }
    }
}

/// A finished job, signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// What is signed.
    pub statement: ResultStatement,
    /// The identity key's signature over [`ResultStatement::message`].
    pub signature: String,
    /// The result; its digest must be the statement's.
    pub output: JobOutput,
}

/// From the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CoordinatorMessage {
    /// First message of a link.
    Challenge {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// The network's name.
        network: String,
        /// Address of the coordinator's key; empty from a gateway, which holds none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        coordinator: String,
        /// To be signed; used once.
        nonce: String,
    },
    /// The session is open.
    Welcome {
        /// Address of the coordinator's key, which signs receipts.
        coordinator: String,
        /// Whether pictures may be put where `UploadTo` says. Nodes that do not know of it submit them
        /// on the link.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        uploads: bool,
        /// For the next sessions; only after a hello that the identity key signed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<SessionToken>,
    },
    /// A job for the node.
    Assign(Lease),
    /// Where the picture of a lease is to be put, see [`upload`].
    UploadTo {
        /// The lease.
        lease: LeaseId,
        /// Allows one `PUT` of this file, for a while. To be shown to nobody.
        url: String,
    },
    /// There is work, and none of it is for the node, which has a free slot. Sent when that changed.
    NoJob(NoJob),
    /// Which model to have loaded. Sent only to nodes that said they understand it.
    Advice(Advice),
    /// Show that a model's file is there. Sent only to nodes that said they understand it.
    ShowFile(FileChallenge),
    /// Stop working on a lease; nothing will be paid for it.
    Cancel {
        /// The lease.
        lease: LeaseId,
        /// Why.
        code: ErrorCode,
    },
    /// A submitted result was accepted and paid (now or before).
    Settled(Receipt),
    /// A submitted result was not accepted and never will be.
    Rejected {
        /// The lease.
        lease: LeaseId,
        /// The job, if known.
        job: Option<JobId>,
        /// Why.
        error: ErrorBody,
    },
    /// A submitted result was taken, and no receipt will come: networks of the original protocol give
    /// none. Said only within this program, by what translates that protocol.
    #[serde(skip)]
    Accepted {
        /// The lease.
        lease: LeaseId,
    },
    /// Words for the person, as networks of the original protocol send them. Said only within this
    /// program.
    #[serde(skip)]
    Notice(ErrorBody),
    /// The session ends; `error` says why.
    Bye(ErrorBody),
}

/// Why a node with a free slot gets no job. As text: `no job: 3 need sdxl, 2 need 24 GB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NoJob {
    /// Jobs that wait and are not for this node.
    pub waiting: u32,
    /// Why, the reason of most jobs first; rare ones may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<Vec<SkipCount>>")]
    pub reasons: Vec<SkipCount>,
}

/// So many jobs are not for a node, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SkipCount {
    /// How many.
    pub jobs: u32,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// Why a waiting job is not for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum SkipReason {
    /// It needs a model that the node does not serve.
    Model {
        /// The model.
        model: ModelId,
    },
    /// It needs more memory than the node has.
    Memory {
        /// How much, in bytes.
        #[ts(type = "number")]
        memory_bytes: u64,
    },
    /// The node failed at it before, and another one may take it.
    Failed,
    /// It needs a model that the node could not show its files of. Said only to nodes that are asked to.
    Files {
        /// The model.
        model: ModelId,
    },
    /// It needs a model that is computed on whole cards only, and the node has parts of cards for it. Said
    /// only to nodes that announce such parts.
    Shared {
        /// The model.
        model: ModelId,
    },
}

impl std::fmt::Display for NoJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("no job: nobody is asking for anything right now");
        }
        f.write_str("no job: ")?;
        for (at, SkipCount { jobs, reason }) in self.reasons.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let need = if *jobs == 1 { "needs" } else { "need" };
            match reason {
                SkipReason::Model { model } => write!(f, "{comma}{jobs} {need} {model}")?,
                SkipReason::Memory { memory_bytes } => {
                    write!(f, "{comma}{jobs} {need} {} GB", memory_bytes.div_ceil(1 << 30))?;
                }
                SkipReason::Failed => write!(f, "{comma}{jobs} failed here before")?,
                SkipReason::Files { model } => {
                    write!(f, "{comma}{jobs} {need} {model}, whose files could not be shown")?;
                }
                SkipReason::Shared { model } => {
                    write!(f, "{comma}{jobs} {need} {model} on a card of its own")?;
                }
            }
        }
        let told = self.reasons.iter().fold(0u32, |sum, reason| sum.saturating_add(reason.jobs));
        match self.waiting.saturating_sub(told) {
            0 => Ok(()),
            more => write!(f, ", {more} more need something else"),
        }
    }
}

/// Answer of `POST /v1/node/session` (long poll only).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// Bearer token of the following exchanges.
    pub token: String,
    /// The `Welcome` message.
    pub welcome: CoordinatorMessage,
}

/// Body of `POST /v1/node/exchange` (long poll only): hands in messages, waits for others.
///
/// Two may be under way for one session: one that only waits, and one that hands in with a `wait_ms`
/// of zero. The one that hands in is answered at once, whatever the other waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// From the node, in order.
    pub messages: Vec<NodeMessage>,
    /// How long the answer may wait for messages to the node, in milliseconds; at most 25 000.
    pub wait_ms: u64,
}

/// Answer of `POST /v1/node/exchange`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeReply {
    /// For the node, in order; may be empty.
    pub messages: Vec<CoordinatorMessage>,
}
