//! The command line's grammar.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Turns an idle gaming GPU into AI compute.
///
/// Without a command the window opens.
#[derive(Debug, Parser)]
#[command(name = "neurino", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Folder for data, settings and logs instead of the system's usual places.
    #[arg(long, global = true, value_name = "DIR", env = neurino_config::env::HOME)]
    pub home: Option<PathBuf>,

    /// Prints machine-readable JSON where a command supports it.
    #[arg(long, global = true)]
    pub json: bool,

    /// Opens in the tray, without a window.
    #[arg(long)]
    pub hidden: bool,

    /// What to do; the window when absent.
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Runs the whole system on this machine: coordinator, miner and a few real jobs.
    Practice(PracticeArgs),
    /// Mines for a coordinator, without a window.
    Node(NodeArgs),
    /// Runs a coordinator: gateway, routing, ledger.
    Coordinator(CoordinatorArgs),
    /// Lists, fetches and checks models.
    Models {
        /// What to do with them.
        #[command(subcommand)]
        action: ModelsAction,
    },
    /// Shows this machine's identity.
    Wallet {
        /// What to show.
        #[command(subcommand)]
        action: WalletAction,
    },
    /// Checks this machine and says how to fix what is wrong.
    Doctor,
    /// Measures this machine.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        action: BenchAction,
    },
    /// The engine's own process; started by the program itself.
    #[command(hide = true)]
    Engine,
}

/// `neurino practice`
#[derive(Debug, Args)]
pub struct PracticeArgs {
    /// How many jobs to run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: u32,
    /// Keeps running as a local OpenAI-compatible server until interrupted, instead of running jobs.
    #[arg(long, conflicts_with = "jobs")]
    pub serve: bool,
    /// Port of the gateway on this machine; 0 picks a free one.
    #[arg(long)]
    pub port: Option<u16>,
}

/// `neurino node`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The coordinator, for example `https://pool.example.org`.
    #[arg(long, value_name = "URL")]
    pub coordinator: String,
}

/// `neurino coordinator`
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// A task beside serving.
    #[command(subcommand)]
    pub action: Option<CoordinatorAction>,
    /// Address to listen on. Other machines reach it through a TLS proxy in front.
    #[arg(long, default_value = "127.0.0.1:43110")]
    pub listen: SocketAddr,
    /// Says that a TLS proxy stands in front, so that another address than this machine's own may
    /// be listened on.
    #[arg(long)]
    pub behind_proxy: bool,
    /// The network's name, as receipts carry it; `club` for a new one. It is chosen once.
    #[arg(long)]
    pub network: Option<String>,
    /// The rule set that prices jobs; `season2` for a new network.
    #[arg(long)]
    pub rules: Option<String>,
}

/// Tasks of a coordinator.
#[derive(Debug, Subcommand)]
pub enum CoordinatorAction {
    /// Creates an API key for the gateway and prints it once.
    Key {
        /// Whom it is for.
        name: String,
    },
    /// Prints the ledger's totals.
    Ledger,
}

/// `neurino models`
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// Lists the catalogue and what is on this machine.
    List,
    /// Fetches a model and checks it.
    Get {
        /// Its id.
        model: String,
    },
    /// Takes a model from a file that is already on this machine.
    Import {
        /// Its id.
        model: String,
        /// The file.
        file: PathBuf,
    },
    /// Checks a model's files against their digests.
    Verify {
        /// Its id.
        model: String,
    },
    /// Removes a model from this machine.
    Remove {
        /// Its id.
        model: String,
    },
}

/// `neurino wallet`
#[derive(Debug, Subcommand)]
pub enum WalletAction {
    /// Prints the address of the identity key and where the key is kept.
    Show,
    /// Prints the twelve words that restore the identity key. Anybody who has them is you.
    Phrase {
        /// Confirms that nobody looks over your shoulder.
        #[arg(long)]
        reveal: bool,
    },
}

/// `neurino bench`
#[derive(Debug, Subcommand)]
pub enum BenchAction {
    /// Prefill and decode speed of a language model, beside this machine's memory bandwidth.
    Text {
        /// A model of the catalogue that is on this machine.
        #[arg(long, default_value = "smollm2-135m-instruct")]
        model: String,
        /// Length of the prompt in tokens.
        #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
        prompt: u32,
        /// Tokens to generate.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
        tokens: u32,
        /// Runs; the median is printed.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
