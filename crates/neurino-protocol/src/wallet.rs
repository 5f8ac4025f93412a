//! The wallet's part of the window's contract: identity, reward address, facts of public chains.
//!
//! Words of a phrase travel in exactly two messages: towards the page after
//! [`WalletCommand::Reveal`], and from it in [`WalletCommand::Restore`] and
//! [`WalletCommand::QuizAnswer`]. Nothing of them is ever part of a state.

use neurino_core::Multiplier;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::error::ErrorBody;
use crate::secret::SecretText;

/// What the window can ask of the wallet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum WalletCommand {
    /// The state; answered, as every command without another answer, with [`WalletReply::View`].
    Look,
    /// The recovery words; answered with [`WalletReply::Words`].
    Reveal,
    /// Three places whose words prove a back-up; answered with [`WalletReply::Quiz`].
    Quiz,
    /// The words of those places, in the order in which they were asked.
    QuizAnswer {
        /// Three words.
        words: Vec<SecretText>,
    },
    /// Makes the identity of these words this machine's. The present one is kept beside it.
    Restore {
        /// 12, 15, 18, 21 or 24 words.
        words: SecretText,
    },
    /// Makes an identity that was replaced earlier this machine's again. The present one is kept
    /// beside it.
    FormerBack {
        /// Its address.
        address: String,
        /// The person was told what that means.
        accept: bool,
    },
    /// Reads what was entered as a reward address; answered with [`WalletReply::Checked`].
    RewardCheck {
        /// What was entered; may be a secret pasted by mistake.
        text: SecretText,
    },
    /// Sets where points go.
    RewardSet {
        /// What was entered.
        text: SecretText,
        /// What was pasted, if it was: refused when it is another address.
        pasted: Option<SecretText>,
        /// The address that the page believes it replaces: refused when it is another one.
        replaces: Option<String>,
    },
    /// Points go nowhere any more.
    RewardRemove {
        /// The address that the page believes it removes.
        replaces: String,
    },
    /// Writes a key file of the first miners; answered with [`WalletReply::Exported`].
    KeyExport {
        /// The folder.
        folder: String,
        /// The person was told that the words lie in it unencrypted.
        accept: bool,
    },
    /// Makes the identity of a key file of the first miners this machine's.
    KeyImport {
        /// The file.
        path: String,
        /// Whether the reward address in its name is taken over too.
        take_reward: bool,
    },
    /// Looks for a miner of the first kind; answered with [`WalletReply::Found`].
    MinerLook {
        /// The folder of its program.
        folder: String,
    },
    /// Allows a node of a chain to be asked, after asking it for its chain.
    RpcAdd {
        /// Its address; may hold an access key.
        url: SecretText,
    },
    /// No longer asks a node.
    RpcRemove {
        /// Its place in [`ChainView::nodes`].
        index: u32,
    },
    /// Sets the contract of the Imaginaries, which nobody published.
    CollectionSet {
        /// The address, or none to forget it.
        address: Option<String>,
    },
    /// Reads binding and holdings anew.
    ChainCheck,
}

/// The answer to a [`WalletCommand`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "answer", content = "with", rename_all = "snake_case")]
pub enum WalletReply {
    /// The state.
    View(Box<WalletView>),
    /// The recovery words, in order.
    Words {
        /// The words.
        words: Vec<SecretText>,
    },
    /// Places of words.
    Quiz {
        /// Counted from one.
        places: Vec<u32>,
    },
    /// How an entered address reads.
    Checked(CheckedAddress),
    /// A key file was written.
    Exported {
        /// Where it lies.
        path: String,
    },
    /// What a miner of the first kind left.
    Found(FoundMiner),
}

/// The wallet, without any secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct WalletView {
    /// Address of the identity.
    pub identity: String,
    /// Where its key is kept, in words.
    pub key_store: String,
    /// Addresses of identities that were replaced and are kept, the last one first.
    pub former: Vec<String>,
    /// When its words were written down, in milliseconds since the Unix epoch.
    #[ts(type = "number | null")]
    pub backed_up_at_ms: Option<i64>,
    /// Where points go.
    pub reward: Option<RewardView>,
    /// Where they went before, newest first.
    pub history: Vec<FormerRewardView>,
    /// What needs the person's attention.
    pub problem: Option<ErrorBody>,
    /// Where key files of the first miners lie by default.
    pub keys_folder: String,
    /// What public chains say.
    pub chain: ChainView,
}

/// Where points go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct RewardView {
    /// The address.
    pub address: String,
    /// Since when, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub since_ms: i64,
    /// The address as a QR code.
    pub qr: Option<QrView>,
}

/// Where points went once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct FormerRewardView {
    /// The address.
    pub address: String,
    /// From when, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub since_ms: i64,
    /// Until when, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub until_ms: i64,
}

/// A QR code as the path of an SVG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct QrView {
    /// Modules in a row.
    pub modules: u32,
    /// The path's `d`, from (0, 0) to (`modules`, `modules`).
    pub path: String,
}

/// How an entered address reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct CheckedAddress {
    /// The address with the capitals of its checksum.
    pub address: String,
    /// Whether the capitals entered proved that no character is wrong.
    pub proven: bool,
    /// Another address, now or once in use, that looks alike at both ends.
    pub looks_like: Option<String>,
    /// Whether points go there already.
    pub in_use: bool,
    /// The address as a QR code.
    pub qr: Option<QrView>,
}

/// What public chains say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ChainView {
    /// Nodes that may be asked.
    pub nodes: Vec<NodeView>,
    /// When the facts below were last asked for, in milliseconds since the Unix epoch.
    #[ts(type = "number | null")]
    pub checked_at_ms: Option<i64>,
    /// Whether the reward address knows this identity.
    pub binding: Fact,
    /// Pieces of the Imaginaries that the reward address holds.
    pub nfts: Fact,
    /// The contract of the Imaginaries, as the person entered it.
    pub collection: Option<String>,
    /// What the reward address has staked.
    pub staked: Fact,
    /// What the pieces are worth.
    pub boost: BoostView,
}

/// A node of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NodeView {
    /// Its host; the rest of its address may hold an access key.
    pub host: String,
    /// Name of its chain, once it has said so.
    pub chain: Option<String>,
}

/// A fact of a public chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// There is no reward address to ask about.
    NoReward,
    /// No node of this chain may be asked.
    NoNode {
        /// The chain.
        chain: String,
    },
    /// Where the fact lies is not known.
    NotKnown {
        /// The contract.
        contract: String,
        /// Its chain.
        chain: String,
    },
    /// A node may be asked and was not yet.
    NotChecked,
    /// It could not be read.
    Failed {
        /// Why, and what to do.
        error: ErrorBody,
    },
    /// The reward address is bound to an identity, or to none.
    Bound {
        /// The identity; none yet when absent.
        identity: Option<String>,
        /// Whether it is this machine's.
        ours: bool,
    },
    /// A number of pieces.
    Pieces {
        /// How many.
        count: u32,
    },
    /// A stake.
    Staked {
        /// The amount, exactly, in the token's unit.
        amount: String,
        /// What one of it is worth in the token that was staked.
        rate: String,
    },
}

/// What pieces of the Imaginaries are worth on each card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct BoostView {
    /// Where the table comes from, in words.
    pub note: String,
    /// Cards that one piece boosts.
    pub cards_per_nft: u32,
    /// The table: pieces, and what they are worth.
    pub steps: Vec<BoostStepView>,
    /// This machine's cards, once the number of pieces is known.
    pub cards: Vec<BoostedCard>,
}

/// What a number of pieces, or more, is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct BoostStepView {
    /// Pieces.
    pub nfts: u32,
    /// The factor.
    pub multiplier: Multiplier,
}

/// A card and its factor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct BoostedCard {
    /// Its name.
    pub name: String,
    /// Its factor.
    pub multiplier: Multiplier,
}

/// What a miner of the first kind left on this disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct FoundMiner {
    /// Its miner ids as it submits them.
    pub miner_ids: Vec<String>,
    /// Reward addresses of ids and key files, each once.
    pub rewards: Vec<String>,
    /// Its key files.
    pub keys: Vec<FoundKeyView>,
    /// What was found and cannot be used, one sentence each.
    pub problems: Vec<String>,
    /// Folder of its model files, if it has any.
    pub models_folder: Option<String>,
    /// How many there are.
    pub models_count: u32,
    /// Their size in bytes.
    #[ts(type = "number")]
    pub models_bytes: u64,
}

/// A key file of a miner of the first kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct FoundKeyView {
    /// The file.
    pub path: String,
    /// Whose points it works for.
    pub reward: String,
    /// Address of its identity.
    pub identity: String,
    /// Whether others on this machine may read its words.
    pub readable_by_others: bool,
}
