//! What the miner says of itself, as data, so that a window can say it in another language. The
//! English sentence of it is [`crate::app::MiningStatus::sentence`].

use std::fmt::{self, Display, Formatter};

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::cards::NoCard;
use crate::error::ErrorBody;
use crate::node::NoJob;

/// What a miner's sentence says. The network and the job in work stand beside it in the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum MiningSaying {
    /// What the decision in force says.
    Decided,
    /// Not mining.
    Stopped,
    /// Getting ready.
    Starting {
        /// What happens at the moment.
        what: Option<Preparing>,
        /// What went wrong before and is being mended.
        problem: Option<ErrorBody>,
    },
    /// No connection to the network yet.
    Connecting,
    /// Connected, without a job.
    Waiting {
        /// What the network wants the person to know.
        notice: Option<ErrorBody>,
        /// Why it has no job for this machine.
        no_job: Option<NoJob>,
    },
    /// Loading a model because the network asks for it.
    Advised {
        /// It.
        model: ModelId,
        /// Jobs that wait for it.
        jobs: u32,
    },
    /// Connected, with nothing loaded, because nobody asks for anything that this machine serves.
    Resting,
    /// Computing the snapshot's job.
    Working,
    /// Handing the running jobs back.
    HandingBack {
        /// How many.
        jobs: u32,
    },
    /// Finishing the running jobs, or already without one.
    Finishing {
        /// Whether mining goes on after it.
        again: bool,
    },
    /// Mining is on, and there is no card that may be used.
    NoCard {
        /// Why.
        no_card: NoCard,
    },
    /// Cannot go on.
    Problem {
        /// Why.
        error: Option<ErrorBody>,
    },
}

/// What a miner does before it can take jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Preparing {
    /// Looking at the models on this machine.
    Looking,
    /// Checking the model's files.
    Checking,
    /// Fetching the starter model.
    Fetching {
        /// How much of it is here, 0 to 100.
        #[ts(type = "number")]
        percent: u64,
    },
    /// Waiting for a download that the person paused.
    Paused {
        /// How much of it is here, 0 to 100.
        #[ts(type = "number")]
        percent: u64,
    },
    /// Unpacking the image model that comes with the program.
    Unpacking,
    /// Connecting once more.
    Connecting {
        /// Which attempt it is.
        attempt: u32,
    },
    /// Loading a model.
    Loading {
        /// It.
        model: ModelId,
        /// How much of its files is read, 0 to 100, where that is known.
        #[serde(default)]
        percent: Option<u8>,
        /// How many of its first steps are done, 0 to 100, once its files are read: in them a card
        /// compiles and tunes what it needs.
        #[serde(default)]
        warm_percent: Option<u8>,
    },
}

impl Display for Preparing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("looking at the models on this machine"),
            Self::Checking => f.write_str("checking the model's files"),
            Self::Fetching { percent } => write!(f, "fetching the starter model ({percent} %)"),
            Self::Paused { percent } => {
                write!(f, "waiting for the download that you paused ({percent} %)")
            }
            Self::Unpacking => f.write_str("unpacking the image model"),
            Self::Connecting { attempt } => write!(f, "connecting, attempt {attempt}"),
            Self::Loading { model, warm_percent: Some(percent), .. } => {
                write!(f, "preparing {model} for this machine ({percent} %)")
            }
            Self::Loading { model, percent: Some(percent), .. } => {
                write!(f, "loading {model} ({percent} %)")
            }
            Self::Loading { model, .. } => write!(f, "loading {model}"),
        }
    }
}
