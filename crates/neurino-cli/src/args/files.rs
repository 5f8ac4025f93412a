//! `neurino coordinator files`

use clap::Subcommand;
use neurino_core::ModelId;

/// What to do with the files that nodes are asked to show.
#[derive(Debug, Subcommand)]
pub enum FilesAction {
    /// Show which files nodes are asked for.
    List,
    /// Read the files of models on this machine, and ask nodes to show theirs from now on.
    Measure {
        /// Models that are whole in this machine's library.
        #[arg(required = true)]
        models: Vec<ModelId>,
    },
    /// Ask nobody for a model's files any more.
    Forget {
        /// The model.
        model: ModelId,
    },
}
