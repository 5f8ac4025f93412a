//! The model library in the window: the drive, the downloads, and what fits this machine.

use neurino_control::Cause;
use neurino_core::ModelId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::catalogue::CatalogueStatus;
use crate::demand::{ModelDemand, PointsEstimate};
use crate::error::ErrorBody;

/// The model library as the window shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct LibraryStatus {
    /// Where it lies.
    pub folder: String,
    /// Why it cannot be used: its folder is not there, as on a drive that is not connected.
    pub away: Option<ErrorBody>,
    /// What it takes on its drive, in bytes.
    #[ts(type = "number")]
    pub used_bytes: u64,
    /// What is free on that drive, if it tells.
    #[ts(type = "number | null")]
    pub free_bytes: Option<u64>,
    /// How downloads and the drive are used.
    pub settings: LibrarySettings,
    /// What is known of each model of the catalogue beyond its [`crate::app::ModelStatus`].
    pub models: Vec<LibraryModel>,
    /// The downloads, the first one running.
    pub queue: Vec<QueueItem>,
    /// Why the queue rests though something is in it.
    pub resting: Option<String>,
    /// What it rests for, where that is somebody or something else at this machine; the person may
    /// download all the same.
    pub waits_for: Option<Cause>,
    /// The one long task under way.
    pub activity: Option<Activity>,
    /// How the last one ended, until dismissed.
    pub outcome: Option<Outcome>,
    /// What would have to go to keep to the cap, those first that were not used for longest.
    pub clean_up: Vec<ModelId>,
    /// The signed catalogue, which names the models.
    pub catalogue: CatalogueStatus,
}

/// What is known of a model on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct LibraryModel {
    /// The model.
    pub model: ModelId,
    /// What it takes on the drive, in bytes.
    #[ts(type = "number")]
    pub disk_bytes: u64,
    /// When it was last used, in milliseconds since the Unix epoch.
    #[ts(type = "number | null")]
    pub used_ms: Option<i64>,
    /// Whether it is the person's own, which no download brings back.
    pub own: bool,
    /// The name of a file that was found damaged on the drive, until the model is whole again.
    pub damaged: Option<String>,
    /// A file that the drive does not give, until it does or is replaced.
    pub unreadable: Option<Unreadable>,
    /// The network has another version of it now, and the one that is here is used meanwhile.
    pub newer: Option<NewerVersion>,
    /// What a unit of work of it is worth on this network, in millionths; `None` if the network has
    /// not said.
    pub factor: Option<u32>,
    /// Whether it runs, for each device that could compute.
    pub fits: Vec<ModelFit>,
    /// What the network wants of it; `None` where the network does not tell.
    pub demand: Option<ModelDemand>,
    /// What it may bring this machine; `None` where nothing is known to say so.
    pub estimate: Option<PointsEstimate>,
}

/// A file that the drive does not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Unreadable {
    /// Its name.
    pub file: String,
    /// What the system said.
    pub why: String,
}

/// Another version of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NewerVersion {
    /// What of it is to be fetched, in bytes.
    #[ts(type = "number")]
    pub bytes: u64,
    /// How long that takes at the speed of the last download, or at the limit that the person set;
    /// `None` where neither is known.
    #[ts(type = "number | null")]
    pub seconds: Option<u64>,
}

/// Whether a model runs on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ModelFit {
    /// The device's name.
    pub device: String,
    /// The verdict.
    pub verdict: FitVerdict,
    /// What it takes there, in bytes.
    #[ts(type = "number")]
    pub needed_bytes: u64,
    /// What the device has for it, in bytes.
    #[ts(type = "number")]
    pub available_bytes: u64,
    /// What of the device's memory is free at the moment, in bytes.
    #[ts(type = "number")]
    pub free_bytes: u64,
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum FitVerdict {
    /// It runs.
    Runs,
    /// Slower: with weights of 4 bits, for more do not fit.
    SlowerFourBit,
    /// Slower: pictures are computed in smaller pieces.
    SlowerPieces,
    /// Slower: the layers of an image model come to the card one by one.
    SlowerStreams,
    /// Slower: a processor computes.
    SlowerProcessor,
    /// It does not run.
    No,
}

/// A download that the person asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct QueueItem {
    /// The model.
    pub model: ModelId,
    /// Where it stands.
    pub state: QueueState,
    /// Bytes here.
    #[ts(type = "number")]
    pub done_bytes: u64,
    /// Bytes in all.
    #[ts(type = "number")]
    pub total_bytes: u64,
    /// How fast it is, once that can be told.
    #[ts(type = "number | null")]
    pub bytes_per_s: Option<u64>,
    /// Seconds to go, once that can be told.
    #[ts(type = "number | null")]
    pub seconds_left: Option<u64>,
    /// Why it does not go on.
    pub problem: Option<ErrorBody>,
}

/// Where a download stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// It runs.
    Running,
    /// Others are before it, or the queue rests.
    Waiting,
    /// The person paused it.
    Paused,
    /// It failed, and is tried again later.
    Retrying,
    /// It failed, and needs the person.
    Failed,
}

/// A long task of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Moving it to another folder.
    Move,
    /// Reading every file again.
    Scrub,
    /// Looking for known files of other programs.
    Reuse,
    /// Taking in a model of the person's own.
    Add,
    /// Reading the network's lists.
    Lists,
}

/// A long task under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Activity {
    /// Which.
    pub task: Task,
    /// Bytes done.
    #[ts(type = "number")]
    pub done_bytes: u64,
    /// Bytes in all; 0 if unknown.
    #[ts(type = "number")]
    pub total_bytes: u64,
    /// What a task has done that asks servers rather than reading a drive.
    pub asked: Option<Asked>,
}

/// Servers that were asked for the size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Asked {
    /// Questions with an answer.
    pub done: u32,
    /// Questions in all.
    pub total: u32,
}

/// How a long task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Outcome {
    /// Which.
    pub task: Task,
    /// One sentence, if it ended well.
    pub sentence: Option<String>,
    /// What went wrong, if it did not.
    pub problem: Option<ErrorBody>,
}

/// How downloads and the drive are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct LibrarySettings {
    /// What the library should take at most, in bytes; a clean-up is offered above it.
    #[ts(type = "number | null")]
    pub cap_bytes: Option<u64>,
    /// What downloads take of the line at most, in bytes in a second.
    #[ts(type = "number | null")]
    pub bytes_per_s_max: Option<u64>,
    /// Connections at the same time, 1 to 8.
    pub connections: u32,
    /// Downloads of the queue run only in these hours.
    pub window: Option<DayWindow>,
}

impl Default for LibrarySettings {
    fn default() -> Self {
        Self { cap_bytes: None, bytes_per_s_max: None, connections: 2, window: None }
    }
}

/// Hours of the day, in minutes since local midnight; over midnight if the begin is later than the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DayWindow {
    /// The first minute.
    pub from_minute: u16,
    /// The minute behind the last.
    pub until_minute: u16,
}

/// What the window can ask of the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum LibraryAction {
    /// Pauses a download.
    Pause {
        /// The model.
        model: ModelId,
    },
    /// Lets a paused or failed download go on.
    Resume {
        /// The model.
        model: ModelId,
    },
    /// Downloads all the same, until what the queue waits for is over.
    Anyway,
    /// Takes a download off the queue; what has arrived is deleted.
    Cancel {
        /// The model.
        model: ModelId,
    },
    /// Moves a download in the queue.
    Place {
        /// The model.
        model: ModelId,
        /// Its new place; 0 is first.
        index: u32,
    },
    /// Deletes models from this machine.
    Remove {
        /// The models.
        models: Vec<ModelId>,
    },
    /// Replaces the settings.
    Set {
        /// All of them.
        settings: LibrarySettings,
    },
    /// Moves the library to a folder; progress and outcome follow in the snapshot. One that is away is
    /// not moved: the folder and what lies in it is the library from then on.
    Move {
        /// The folder, a whole path.
        folder: String,
    },
    /// Looks whether the folder of a library that was away is there again.
    LookAgain,
    /// Reads every file again and sets aside what has changed.
    Scrub,
    /// Sets a file aside that the drive does not give, and fetches it again.
    Replace {
        /// The model.
        model: ModelId,
    },
    /// Takes over known files that other programs have in a folder.
    Reuse {
        /// The folder, a whole path.
        folder: String,
    },
    /// Stops the long task under way; it goes on where it was when asked for again.
    StopTask,
    /// The outcome has been read.
    Dismiss,
}
