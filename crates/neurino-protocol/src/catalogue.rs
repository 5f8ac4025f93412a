//! The catalogue in the window: the network's lists, and the signed catalogue.

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::error::ErrorBody;

/// What the window asks for; each is answered with a [`CatalogueView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum CatalogueCommand {
    /// Nothing but the answer.
    Look,
    /// Reads the network's lists and takes in what they vouch for; progress and outcome follow in the
    /// snapshot, and then the report is in the view.
    ReadLists {
        /// Where they lie.
        places: ListPlaces,
    },
    /// Looks for a newer signed catalogue now; the snapshot tells the rest.
    Check,
}

/// Where the network's three lists lie: an https address, http on this machine, or the whole path of a file.
/// An empty place is an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct ListPlaces {
    /// The list of models.
    pub models: String,
    /// The list of autoencoders.
    pub vae: String,
    /// The list of LoRAs.
    pub lora: String,
}

/// What is known of the network's lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct CatalogueView {
    /// Where they were read from last.
    pub places: ListPlaces,
    /// What became of their entries, since this program started.
    pub report: Option<ListsReport>,
}

/// What became of the entries of the network's lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ListsReport {
    /// Models that the catalogue has from then on.
    pub added: Vec<ModelId>,
    /// Models that it had already, with the same files.
    pub known: Vec<ModelId>,
    /// Settings of added models that no job may have.
    pub changed: Vec<ListedChange>,
    /// Entries that cannot be used.
    pub left_out: Vec<ListedLeft>,
}

/// A setting of a list that is beyond what a job may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ListedChange {
    /// The model.
    pub model: ModelId,
    /// What stands in its place, in words for people.
    pub what: String,
}

/// An entry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ListedLeft {
    /// Its name in the list.
    pub name: String,
    /// Why, in words for people.
    pub reason: String,
}

/// The signed catalogue, as the Models page shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct CatalogueStatus {
    /// The one in force; `None` where the models are those of this version of the program.
    pub edition: Option<CatalogueEdition>,
    /// Whether this build looks for newer ones: it names a place and a key.
    pub looks: bool,
    /// It looks just now.
    pub looking: bool,
    /// When it last looked, in milliseconds since the Unix epoch.
    #[ts(type = "number | null")]
    pub checked_at_ms: Option<i64>,
    /// Why the last look came to nothing.
    pub problem: Option<ErrorBody>,
}

/// An edition of the signed catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct CatalogueEdition {
    /// Rises with every edition.
    #[ts(type = "number")]
    pub version: u64,
    /// When it was made, if it says so, in milliseconds since the Unix epoch.
    #[ts(type = "number | null")]
    pub issued_at_ms: Option<i64>,
}
