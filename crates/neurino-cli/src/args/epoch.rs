//! The grammar of `neurino epoch`.

use std::path::PathBuf;

use clap::Subcommand;
use neurino_ledger::epoch::{Address, Hash};

/// `neurino epoch`
#[derive(Debug, Subcommand)]
pub enum EpochAction {
    /// Make the epochs of this machine's network that are due; a running coordinator does so itself.
    Make {
        /// The rules to make them by: an edition, or a family of them, of which each week has the one that held
        /// when it began.
        #[arg(long, value_name = "NAME", default_value = super::EPOCH_RULES)]
        rules: String,
    },
    /// Write the file of an epoch of this machine's network: the newest when no number is given.
    Show {
        /// Its number, in weeks since 1 January 1970.
        epoch: Option<i64>,
        /// Write it here instead of to the screen.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write the movements of points behind an epoch, a line each.
    Entries {
        /// Its number.
        epoch: i64,
        /// Write them here instead of to the screen.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Keep what addresses held at some time, for the epochs that end after it.
    Holdings {
        /// JSON: `snapshot`, `holders`, `bindings`, `payers`; docs/API.md shows one.
        file: PathBuf,
    },
    /// Compute an epoch again from its file alone, and say the first difference.
    Verify {
        /// The file, as `/v1/epochs/N` serves it.
        file: PathBuf,
        /// Also hold its sums against its entries, as `/v1/epochs/N/entries` serves them.
        #[arg(long, value_name = "FILE")]
        entries: Option<PathBuf>,
        /// Also look for these signed receipts in it, as `neurino earnings --json --receipts` writes them.
        #[arg(long, value_name = "FILE", requires = "entries")]
        receipts: Option<PathBuf>,
        /// Also hold it against the file of the epoch before.
        #[arg(long, value_name = "FILE")]
        previous: Option<PathBuf>,
        /// The coordinator that must have signed it; whoever it names when absent.
        #[arg(long, value_name = "ADDRESS", value_parser = Address::of_wallet)]
        coordinator: Option<Address>,
    },
    /// Show how the payers of an epoch behave, and which look automatic: a rhythm, a flat day, equal jobs, many
    /// names of one program. It is evidence, and moves no points.
    Payers {
        /// The entries, as `/v1/epochs/N/entries` serves them.
        entries: PathBuf,
        /// First hold them against the file of their epoch.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The limits to hold them against: an edition, or a family of them, of which each week has the one that
        /// held when it began.
        #[arg(long, value_name = "NAME", default_value = super::BEHAVIOUR_LIMITS)]
        limits: String,
        /// Also say who the payers that look automatic are, by the books of this machine's network.
        #[arg(long)]
        names: bool,
    },
    /// Write what an address hands to a contract to claim its share.
    Proof {
        /// The file of the epoch.
        file: PathBuf,
        /// The address.
        #[arg(value_parser = Address::of_wallet)]
        address: Address,
    },
    /// Follow such a proof.
    Check {
        /// The proof.
        file: PathBuf,
        /// The root that it must lead to; the one it names when absent.
        #[arg(long, value_name = "HASH")]
        root: Option<Hash>,
    },
}
