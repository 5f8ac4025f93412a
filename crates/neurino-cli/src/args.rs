//! The command line's grammar. Younger commands have theirs in files of their own.

mod control;
mod epoch;
mod files;
mod gateway;
mod voucher;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use neurino_config::DeviceSetting;
use neurino_coordinator::{Account, PayerId, Scope};
use neurino_core::{FrontendId, JobId, MicroCredits, ModelId, NodeId};
use neurino_update::Version;

pub use control::PauseTime;
pub use epoch::EpochAction;
pub use files::FilesAction;
pub use gateway::{FabricArgs, GatewayArgs, TlsArgs};
pub use voucher::{EscrowArgs, VoucherAction, VouchersAction};

/// By which rules a network's epochs are made, unless it is told otherwise.
pub const EPOCH_RULES: &str = "weekly";
/// What the payers of an epoch are held against, unless it is told otherwise.
pub const BEHAVIOUR_LIMITS: &str = "behaviour";

/// Turns an idle gaming GPU into AI compute.
///
/// Without a command the window opens.
#[derive(Debug, Parser)]
#[command(name = "neurino", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Keep everything in this folder instead of the system's usual places.
    #[arg(long, global = true, value_name = "DIR", env = neurino_config::env::HOME)]
    pub home: Option<PathBuf>,

    /// Answer in JSON, for scripts.
    #[arg(long, global = true)]
    pub json: bool,

    /// Start in the tray, without opening the window.
    #[arg(long)]
    pub hidden: bool,

    /// Start mining as soon as the program runs; for programs that start with the computer.
    #[arg(long)]
    pub mine: bool,

    /// What to do; the window when absent.
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// What the program does. The words are in the imperative, as clap's own ones for help are.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, read once")]
pub enum Role {
    /// Try everything on this machine: run a few real jobs and earn practice points.
    Practice(PracticeArgs),
    /// Mine for a network, without a window.
    Node(NodeArgs),
    /// Run a network: take requests, hand out jobs, keep the books.
    Coordinator(CoordinatorArgs),
    /// List, fetch, check or remove models.
    Models {
        /// What to do with them.
        #[command(subcommand)]
        action: ModelsAction,
    },
    /// Show who this machine is on the network.
    Wallet {
        /// What to show.
        #[command(subcommand)]
        action: WalletAction,
    },
    /// Show what this machine earned and used, or write it as a table.
    Earnings(EarningsArgs),
    /// Check this machine and say how to fix what is wrong.
    Doctor(DoctorArgs),
    /// Measure how fast this machine is.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        action: BenchAction,
    },
    /// Have the cards prepare for the models now, not when one is first loaded.
    Tune(TuneArgs),
    /// Measure how sure the checks of results are, and when cheating pays.
    Audit {
        /// What to do.
        #[command(subcommand)]
        action: AuditAction,
    },
    /// Look for a newer version, install it, or go back to the one before.
    Update {
        /// What to do; a look when absent.
        #[command(subcommand)]
        action: Option<UpdateAction>,
    },
    /// Puts a newer version in place; started by the program itself.
    #[command(hide = true)]
    Switch(SwitchArgs),
    /// Make, read or check what a week of a network came to.
    Epoch {
        /// What to do.
        #[command(subcommand)]
        action: EpochAction,
    },
    /// Sign or check a voucher, which pays a gateway without a key.
    Voucher {
        /// What to do.
        #[command(subcommand)]
        action: VoucherAction,
    },
    /// Pause the Neurino that runs: jobs are handed back, the card is free.
    Pause {
        /// Minutes, up to a day, or `until-resume`.
        #[arg(value_name = "MINUTES|until-resume", default_value = "60")]
        time: PauseTime,
    },
    /// Let the Neurino that runs mine again, whatever holds it back now.
    Resume,
    /// Pause the Neurino that runs until it is resumed, or resume it: for a key of the desktop's own.
    Toggle,
    /// Say what the Neurino that runs does.
    Status,
    /// Show where everything lies on this machine and how large it is, or remove it.
    Data {
        /// What to do; without one, it is shown.
        #[command(subcommand)]
        action: Option<DataAction>,
    },
    /// The engine's own process; started by the program itself.
    #[command(hide = true)]
    Engine,
    /// A process that reads strangers' pictures; started by a coordinator itself.
    #[command(hide = true)]
    CheckPictures,
}

/// `neurino data`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum DataAction {
    /// Remove what Neurino keeps on this machine: models, records, logs, settings. Files of others,
    /// pictures and exports that you kept, and the identity's keys stay.
    Remove {
        /// Remove it without asking. Without a terminal to ask at, the command otherwise says what it would
        /// remove, and fails.
        #[arg(long)]
        yes: bool,
        /// Leave the settings for the next installation.
        #[arg(long)]
        keep_config: bool,
        /// Remove the identity's keys too. Without its recovery words nobody brings it back.
        #[arg(long)]
        with_keys: bool,
    },
}

/// `neurino update`
#[derive(Debug, Subcommand)]
pub enum UpdateAction {
    /// Say whether there is a newer version.
    Check,
    /// Install it, or fetch it and say what to type where a package tool keeps this program.
    Install,
    /// Go back to the version before this one.
    Back,
    /// Make a key that signs lists of versions.
    #[command(hide = true)]
    NewKey {
        /// Where the secret half goes.
        file: PathBuf,
    },
    /// Pack a folder as a package of a release.
    #[command(hide = true)]
    Pack {
        /// The folder that holds the program.
        folder: PathBuf,
        /// The zip to write.
        package: PathBuf,
    },
    /// Write the signed list of a folder's packages.
    #[command(hide = true)]
    Sign(SignArgs),
}

/// `neurino update sign`
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The folder of the packages.
    pub folder: PathBuf,
    /// The file of the secret key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The version of the packages; this program's own without it.
    #[arg(long, value_name = "VERSION")]
    pub release: Option<Version>,
    /// The oldest version that may replace itself with this one.
    #[arg(long, value_name = "VERSION")]
    pub minimum: Option<Version>,
    /// For how many days the list is believed.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=730))]
    pub days: u32,
    /// What is new, in English.
    #[arg(long, value_name = "FILE")]
    pub notes: Option<PathBuf>,
    /// What is new, in German.
    #[arg(long, value_name = "FILE")]
    pub notes_de: Option<PathBuf>,
}

/// `neurino switch`
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// The version to put in place; without one the version before this one is put back.
    pub version: Option<Version>,
    /// Watch the new program come up, and put the old one back if it does not.
    #[arg(long)]
    pub watch: bool,
    /// What to start it with.
    #[arg(last = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

/// `neurino practice`
#[derive(Debug, Args)]
pub struct PracticeArgs {
    /// How many jobs to run.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub jobs: u32,
    /// Run no jobs, but serve OpenAI-compatible programs on this machine until Ctrl-C.
    #[arg(long, conflicts_with = "jobs")]
    pub serve: bool,
    /// Port to serve at on this machine; 0 picks a free one.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// The protocol of the network that was there first, as `--protocol` names it.
pub const ORIGINAL: &str = "original";

/// `neurino node`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Address of the network's coordinator, for example `https://pool.example.org`.
    #[arg(long, value_name = "URL")]
    pub coordinator: String,
    /// The frontend through which you came to the network: its jobs prefer your machine.
    #[arg(long, value_name = "ID")]
    pub referred_by: Option<FrontendId>,
    /// What the coordinator speaks: this program's own protocol, or that of the original network.
    #[arg(long, value_name = "NAME", default_value = "neurino", value_parser = ["neurino", ORIGINAL])]
    pub protocol: String,
    /// With the original protocol: the wallet that is paid; by default the identity's own address.
    #[arg(long, value_name = "ADDRESS")]
    pub reward_wallet: Option<String>,
    /// With the original protocol: where the signal goes, if that is another address.
    #[arg(long, value_name = "URL")]
    pub signal: Option<String>,
    /// With the original protocol: an S3 endpoint for pictures, if it is not Amazon's.
    #[arg(long, value_name = "URL")]
    pub uploads: Option<String>,
}

/// `neurino coordinator`
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// A task beside serving; works while the coordinator runs, too.
    #[command(subcommand)]
    pub action: Option<CoordinatorAction>,
    /// Address and port to listen at; for other machines it takes a certificate, or a TLS proxy in front.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:43110")]
    pub listen: SocketAddr,
    /// Encryption of that address.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Allow an address that other machines can reach, because a TLS proxy stands in front.
    #[arg(long)]
    pub behind_proxy: bool,
    /// Header in which that proxy alone says whom it asks for, like `x-forwarded-for`; limits new nodes.
    #[arg(long, value_name = "NAME", requires = "behind_proxy")]
    pub for_header: Option<String>,
    /// An address under which other machines reach it, like `https://pool.example`; may be repeated. Nodes
    /// sign where they connect to, and one that signed for another address is refused.
    #[arg(long, value_name = "URL", value_parser = known_as)]
    pub known_as: Vec<String>,
    /// Keep the books in PostgreSQL instead of a file: `postgres://USER:PASSWORD@HOST:PORT/NAME`. Other
    /// users of this machine can read the flag; `DATABASE_URL` in the environment they cannot.
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub database: Option<String>,
    /// Keep pictures in a bucket instead of a folder: `s3://BUCKET/PREFIX`. Server and keys are taken from
    /// `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    #[arg(long, value_name = "ADDRESS")]
    pub blobs: Option<String>,
    /// The key with which prompts and answers in the books are sealed; without it `coordinator/payload.key`
    /// in the data folder, made with the books. A coordinator that stands by needs a copy of it.
    #[arg(long, value_name = "FILE")]
    pub payload_key: Option<PathBuf>,
    /// The payload key of the books is lost for good: go on with a new one. Open requests are given up, and
    /// answers of the last day can be fetched no more; the ledger is untouched.
    #[arg(long)]
    pub new_payload_key: bool,
    /// Shred prompts and answers so many hours after a job ended; at least as long as an `Idempotency-Key`
    /// is honoured.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(24..=8760))]
    pub keep_hours: u32,
    /// Keep those on which an audit's third run had to decide for so many days, as evidence for an appeal.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub keep_disputed: u32,
    /// Name of the network, chosen once; without it a new network is called `club`.
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub network: Option<String>,
    /// Also serve miners of the original protocol, which signs little: among friends, not strangers.
    #[arg(long)]
    pub legacy: bool,
    /// Rules that price the jobs: an edition such as `club2`, which holds until you name another one, or all of a
    /// kind, such as `club`, each from its day. Without it a new network has `club`.
    #[arg(long, value_name = "NAME")]
    pub rules: Option<String>,
    /// Have nodes unload a model that nobody asked for during so many minutes; 0 is never. Its files stay.
    #[arg(long, value_name = "MINUTES", default_value_t = 30)]
    pub unload: u32,
    /// Give so many per cent of the jobs to a second node when their first one is late; 0 is none. The
    /// first result is the one that is paid.
    #[arg(long, value_name = "PERCENT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub hedge: u8,
    /// Also listen at this address of this machine for metrics and administration.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// The way to gateways on other machines; the books must be in PostgreSQL.
    #[command(flatten)]
    pub fabric: FabricArgs,
}

/// Tasks of a coordinator.
#[derive(Debug, Subcommand)]
pub enum CoordinatorAction {
    /// Make an API key for somebody who sends requests, and print it this once.
    Key {
        /// Whom it is for.
        name: String,
    },
    /// Add the books up: jobs, balances, and whether everything fits.
    Ledger,
    /// List, make, change or close API keys.
    Keys {
        /// What to do with them.
        #[command(subcommand)]
        action: KeysAction,
    },
    /// Show or book prepaid credits.
    Credits {
        /// What to do with them.
        #[command(subcommand)]
        action: CreditsAction,
    },
    /// Take vouchers instead of keys: where they are collected, who may send them.
    Vouchers {
        /// What to do with them.
        #[command(subcommand)]
        action: VouchersAction,
    },
    /// Take nodes' and clients' connections for a coordinator that is reached over NATS.
    Gateway(GatewayArgs),
    /// Say who brought a model and how many votes it has.
    Pod(PodArgs),
    /// Say how many votes a node has.
    Votes(VotesArgs),
    /// Show who did what to the network and when, one line of JSON an act, or whether that log is whole.
    Log {
        /// Lines behind this number.
        #[arg(long, value_name = "N", default_value_t = 0)]
        after: i64,
        /// Only say whether every line carries the digest of the one before, and how the log ends.
        #[arg(long)]
        check: bool,
    },
    /// Show which results were computed again and what that says of nodes; decide appeals.
    Audits {
        /// What to do; a list when absent.
        #[command(subcommand)]
        action: Option<AuditsAction>,
    },
    /// Say of which models nodes are asked to show that they have the files.
    Files {
        /// What to do; a list when absent.
        #[command(subcommand)]
        action: Option<FilesAction>,
    },
}

/// `neurino coordinator audits`
#[derive(Debug, Subcommand)]
pub enum AuditsAction {
    /// Show nodes, validators, convictions and the newest audits.
    List {
        /// How many of the newest audits.
        #[arg(
            long,
            value_name = "N",
            default_value_t = 20,
            value_parser = clap::value_parser!(u32).range(0..=10_000)
        )]
        newest: u32,
    },
    /// Trust a node's word when two others differ.
    Trust {
        /// The node: yours, or one you would let decide.
        node: NodeId,
    },
    /// Trust it no longer.
    Distrust {
        /// The node.
        node: NodeId,
    },
    /// Show what an audit is about, as JSON: what was asked, and each result. That you looked is in the log.
    Evidence {
        /// The job whose result was audited.
        job: JobId,
    },
    /// Take down what the owner of a convicted node says.
    Appeal {
        /// The node.
        node: NodeId,
        /// The owner's words.
        words: String,
    },
    /// Grant an appeal: give back what was called back, and let the node begin anew.
    Grant {
        /// The node.
        node: NodeId,
        /// Why; kept beside the conviction.
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
    /// Deny an appeal.
    Deny {
        /// The node.
        node: NodeId,
        /// Why; kept beside the conviction.
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
}

/// `neurino audit`
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Let this machine's engine compute honestly and cheat, and count what is told apart.
    Calibrate(CalibrateArgs),
    /// Say when cheating pays, with your own numbers (appendix A of the white paper).
    Calculator(CalculatorArgs),
}

/// `neurino audit calibrate`
#[derive(Debug, Clone, Args)]
pub struct CalibrateArgs {
    /// A model that is on this machine.
    #[arg(long, default_value = "smollm2-135m-instruct")]
    pub model: String,
    /// This file of it instead of the one that is on this machine.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Another file of it as one more cheat: fewer bits, or another checkpoint.
    #[arg(long, value_name = "PATH")]
    pub other: Option<PathBuf>,
    /// Jobs, each computed honestly, with each cheat, and again.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(2..=100_000)
    )]
    pub jobs: u32,
    /// Tokens of each text, at most.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 48,
        value_parser = clap::value_parser!(u32).range(2..=4096)
    )]
    pub tokens: u32,
    /// The device instead of the one in the settings: `auto`, `cpu` or `cuda:0`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceSetting>,
    /// The device that computes again, to see how far two devices drift apart.
    #[arg(long, value_name = "DEVICE")]
    pub against: Option<DeviceSetting>,
    /// For texts, one more cheat: the same file in 4 bits, made while loading. Of no use for a file that
    /// is stored in 4 bits.
    #[arg(long)]
    pub four_bit: bool,
    /// For texts: how many each engine writes for each job, to test whether they are of one distribution.
    #[arg(
        long,
        value_name = "TEXTS",
        value_parser = clap::value_parser!(u32).range(2..=1000)
    )]
    pub distribution: Option<u32>,
}

/// `neurino audit calculator`: amounts are in one unit of your choice.
#[derive(Debug, Args)]
pub struct CalculatorArgs {
    /// What a job pays.
    #[arg(long, value_name = "AMOUNT", default_value_t = 5e-4)]
    pub reward: f64,
    /// What an honest job costs its node.
    #[arg(long, value_name = "AMOUNT", default_value_t = 2e-4)]
    pub honest_cost: f64,
    /// What a cheated job costs its node.
    #[arg(long, value_name = "AMOUNT", default_value_t = 1e-4)]
    pub cheat_cost: f64,
    /// Share of jobs that are computed again.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub audited: f64,
    /// Share of cheated jobs that computing again finds; `audit calibrate` measures it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub found: f64,
    /// Share of the stake that is lost.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub slashed: f64,
    /// Nodes of the network.
    #[arg(long, value_name = "N", default_value_t = 6_000)]
    pub nodes: u32,
    /// Share of cheated results that the network can bear.
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    pub tolerated: f64,
    /// Jobs of a node in the time in which its earnings can be called back.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub jobs_in_escrow: u32,
    /// How much a node values its next job against this one, 0 to below 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99)]
    pub patience: f64,
}

/// `neurino coordinator keys`
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// List all keys, without their secrets.
    List,
    /// Make a key and print it this once.
    Add {
        /// Whom it is for.
        name: String,
        /// What it is good for.
        #[command(flatten)]
        terms: KeyTermsArgs,
    },
    /// Give a key another secret; the old one stays good for a day.
    Rotate {
        /// The key, as the list names it.
        id: String,
        /// Close the old secret at once.
        #[arg(long)]
        at_once: bool,
    },
    /// Close a key for good.
    Revoke {
        /// The key, as the list names it.
        id: String,
    },
}

/// What a new key is good for.
#[derive(Debug, Args)]
pub struct KeyTermsArgs {
    /// Have its jobs paid with prepaid credits.
    #[arg(long)]
    pub prepaid: bool,
    /// Whose credits pay, so that several keys share one account; its own without it.
    #[arg(long, value_name = "NAME", requires = "prepaid")]
    pub payer: Option<PayerId>,
    /// Most credits that its jobs of one month may cost.
    #[arg(long, value_name = "CREDITS", requires = "prepaid")]
    pub budget: Option<MicroCredits>,
    /// What it may ask for; everything without it.
    #[arg(
        long,
        value_name = "SCOPE",
        value_delimiter = ',',
        value_parser = Scope::ALL.map(Scope::as_str)
    )]
    pub scopes: Vec<String>,
    /// Most requests a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_min: Option<u32>,
    /// Most tokens a minute; a picture of 512 x 512 and 20 steps counts as 1000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_per_min: Option<u32>,
    /// The frontend that uses it, which gets a share and prefers nodes it referred.
    #[arg(long, value_name = "ID")]
    pub frontend: Option<FrontendId>,
}

/// `neurino coordinator credits`
#[derive(Debug, Subcommand)]
pub enum CreditsAction {
    /// Show everybody's credits.
    List,
    /// Book credits that somebody bought; a negative amount gives some back.
    Add {
        /// Who bought them: `key-` and the key's id, or the name given with --payer.
        payer: PayerId,
        /// How many, for example 12 or 0.25.
        #[arg(allow_negative_numbers = true)]
        amount: MicroCredits,
        /// Names the purchase; a repeat for the same payer with the same reference books nothing.
        #[arg(long, value_name = "TEXT")]
        reference: String,
    },
    /// Book that somebody who earned credits was paid for them.
    PayOut {
        /// Who, as `list` names it: `node:`, `deployer:`, `frontend:` or `voters:` with a name, or `protocol`.
        account: Account,
        /// How many, for example 12 or 0.25. What can still be called back stays.
        amount: MicroCredits,
        /// Names the payment; a repeat with the same reference books nothing.
        #[arg(long, value_name = "TEXT")]
        reference: String,
    },
}

/// `neurino coordinator pod`
#[derive(Debug, Args)]
pub struct PodArgs {
    /// The model.
    pub model: ModelId,
    /// Who brought it and gets a share of what is paid for it.
    #[arg(long, value_name = "NAME")]
    pub deployer: Option<PayerId>,
    /// Votes for it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub votes: u32,
    /// Allows it on a part of a card, where nothing keeps it apart from other jobs there.
    #[arg(long)]
    pub shareable: bool,
}

/// `neurino coordinator votes`
#[derive(Debug, Args)]
pub struct VotesArgs {
    /// The node.
    pub node: NodeId,
    /// Votes for it; heeded from its next connection on.
    pub votes: u32,
}

/// `neurino earnings`
#[derive(Debug, Args)]
pub struct EarningsArgs {
    /// Write every receipt as CSV, for spreadsheets.
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Every receipt instead of the sums; only with `--json`.
    #[arg(long, requires = "json")]
    pub receipts: bool,
    /// From this day on, for example `2026-11-01`; midnight of this machine's time zone.
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub since: Option<String>,
}

/// A day such as `2026-11-01`.
fn day(text: &str) -> Result<String, String> {
    let digits = |part: &str, n| part.len() == n && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2) => {
            Ok(text.to_owned())
        }
        _ => Err("give a day such as `2026-11-01`".into()),
    }
}

/// `neurino doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also write a zip file for whoever helps: checks, settings and logs, without secrets or
    /// addresses.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// `neurino models`
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// List the models there are, and which of them are on this machine.
    List,
    /// Fetch a model and check it.
    Get {
        /// The model, as `neurino models list` names it.
        model: String,
    },
    /// Take in a model of your own: a GGUF file, or a folder with config.json and its weights.
    Add {
        /// The file or folder.
        path: PathBuf,
        /// The id it gets; by default made from its name.
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// Take a model of the catalogue from a file that is already on this machine.
    Import {
        /// The model, as `neurino models list` names it.
        model: String,
        /// The file.
        file: PathBuf,
    },
    /// Check that a model's files are unharmed.
    Verify {
        /// The model, as `neurino models list` names it.
        model: String,
    },
    /// Take in a newer catalogue that the network has signed.
    Update {
        /// A file, or an https address.
        place: String,
    },
    /// Read the network's three lists (models, autoencoders, LoRAs) and take in what they vouch for.
    Lists {
        /// The list of models: a file, or an https address.
        models: String,
        /// The list of autoencoders.
        vae: String,
        /// The list of LoRAs.
        lora: String,
    },
    /// Move the library to another drive: copied, checked, and only then deleted here.
    Move {
        /// The new folder.
        folder: PathBuf,
    },
    /// Show, and with --yes remove, what was not used for longest until the library is small enough.
    Clean {
        /// What the library should take at most, in gigabytes.
        #[arg(long, value_name = "GB")]
        to: f64,
        /// Remove them.
        #[arg(long)]
        yes: bool,
    },
    /// Read every file again and set aside what has changed on the drive.
    Scrub,
    /// Take over files of known models that other programs have, without a second copy if possible.
    Reuse {
        /// The folder to look in.
        folder: PathBuf,
    },
    /// Remove a model from this machine.
    Remove {
        /// The model, as `neurino models list` names it.
        model: String,
    },
}

/// `neurino wallet`
#[derive(Debug, Subcommand)]
pub enum WalletAction {
    /// Print this machine's address, and where its key is kept.
    Show,
    /// Print the twelve words of this machine's key; whoever has them can act as you.
    Phrase {
        /// Say that nobody looks over your shoulder.
        #[arg(long)]
        reveal: bool,
    },
    /// List the identities that were replaced on this machine, or go back to one; no key is lost.
    Former {
        /// Make the identity of this address this machine's again.
        #[arg(long, value_name = "ADDRESS")]
        restore: Option<String>,
        /// Say that the present identity is to be replaced; it is kept as a former one.
        #[arg(long, requires = "restore")]
        yes: bool,
    },
}

/// `neurino bench`
#[derive(Debug, Subcommand)]
pub enum BenchAction {
    /// Measure how fast a language model reads and writes, beside what the device can do at best.
    Text(BenchTextArgs),
    /// Measure how fast an image model makes pictures, beside what the device can do at best.
    Image(BenchImageArgs),
    /// Measure how fast a download can be on this machine, beside SHA-256 alone.
    Download(BenchDownloadArgs),
    /// Run mixed requests for a while and check every answer, the memory and the counters.
    Soak(BenchSoakArgs),
    /// Load a model and give it back: its memory beside the plan, and how fast the memory is back.
    Memory(BenchMemoryArgs),
}

/// `neurino bench text`
#[derive(Debug, Args)]
pub struct BenchTextArgs {
    /// A model that is on this machine.
    #[arg(long, default_value = "smollm2-135m-instruct", conflicts_with_all = ["file", "shape"])]
    pub model: String,
    /// A model file or folder that is in no library.
    #[arg(long, value_name = "PATH", conflicts_with = "shape")]
    pub file: Option<PathBuf>,
    /// Random weights of this shape, for example `llama3-8b`, `mistral-7b` or `mixtral-8x7b`.
    #[arg(long, value_name = "NAME")]
    pub shape: Option<String>,
    /// How random weights are kept: `f32`, `f16`, `q8` or `q4`.
    #[arg(long, value_name = "FORMAT", requires = "shape")]
    pub quant: Option<String>,
    /// The device instead of the one in the settings: `auto`, `cpu` or `cuda:0`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceSetting>,
    /// Tokens to read.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..=131_072)
    )]
    pub prompt: u32,
    /// Tokens to write.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub tokens: u32,
    /// How many conversations write at the same time, one measurement for each number.
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        default_values_t = [1, 8, 32],
        value_parser = clap::value_parser!(u32).range(1..=256)
    )]
    pub batch: Vec<u32>,
    /// How often to measure; the median is shown.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub runs: u32,
    /// Show where the time of a step goes.
    #[arg(long)]
    pub profile: bool,
    /// Measure other engines that are on this machine in the same run.
    #[arg(long)]
    pub compare: bool,
    /// Where another engine is: llama.cpp's `llama-batched-bench`, or a Python that has one.
    #[arg(long, value_name = "PATH", requires = "compare")]
    pub peer: Option<PathBuf>,
}

/// `neurino bench image`
#[derive(Debug, Args)]
pub struct BenchImageArgs {
    /// An image model that is on this machine.
    #[arg(long, value_name = "ID", required_unless_present_any = ["file", "shape"])]
    #[arg(conflicts_with_all = ["file", "shape"])]
    pub model: Option<String>,
    /// A checkpoint or a folder that is in no library.
    #[arg(long, value_name = "PATH", conflicts_with = "shape")]
    pub file: Option<PathBuf>,
    /// Random weights of this shape: `sd15`, `sdxl`, `flux`, `flux-nf4`, `tiny`, `tiny-flux` or
    /// `tiny-flux-nf4`.
    #[arg(long, value_name = "NAME")]
    pub shape: Option<String>,
    /// Another shape, measured in the same rounds: `flux` for `flux-nf4` shows what 4 bits cost. Both are in
    /// memory at the same time.
    #[arg(long, value_name = "NAME")]
    pub against: Option<String>,
    /// The device instead of the one in the settings: `auto`, `cpu` or `cuda:0`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceSetting>,
    /// Steps of a picture.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=35)
    )]
    pub steps: u32,
    /// Width and height of the picture, in pixels, instead of what suits the model.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: Option<[u32; 2]>,
    /// How many pictures to make; the median is shown.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub runs: u32,
    /// Measure diffusers in the same run, with networks of the same dimensions.
    #[arg(long)]
    pub compare: bool,
    /// Have torch compile diffusers' networks, too, and measure both forms. Compiling takes minutes.
    #[arg(long, requires = "compare")]
    pub compiled: bool,
    /// A Python that has torch, diffusers and transformers.
    #[arg(long, value_name = "PATH", requires = "compare")]
    pub python: Option<PathBuf>,
}

/// A size such as `512x768`.
fn size(text: &str) -> Result<[u32; 2], String> {
    let sides = text.split_once('x').and_then(|(width, height)| {
        Some([width.trim().parse().ok()?, height.trim().parse().ok()?])
    });
    sides.ok_or_else(|| "give width and height, for example `512x768`".into())
}

/// `neurino bench download`
#[derive(Debug, Args)]
pub struct BenchDownloadArgs {
    /// Size of the file, in megabytes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub megabytes: u32,
    /// Connections at the same time.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=8)
    )]
    pub connections: u32,
    /// How often to measure; the best is shown.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub runs: u32,
    /// Where the file goes while it is measured, instead of the model library's drive.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// `neurino tune`
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// A model that is on this machine, once for each; all of them when absent.
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<ModelId>,
}

/// `neurino bench memory`
#[derive(Debug, Args)]
pub struct BenchMemoryArgs {
    /// A model that is on this machine.
    #[arg(long, default_value = "smollm2-135m-instruct", conflicts_with = "file")]
    pub model: String,
    /// A model file or folder that is in no library.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
}

/// `neurino bench soak`
#[derive(Debug, Args)]
pub struct BenchSoakArgs {
    /// A model that is on this machine.
    #[arg(long, default_value = "smollm2-135m-instruct", conflicts_with = "file")]
    pub model: String,
    /// A model file or folder that is in no library.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// How long, in minutes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub minutes: u32,
    /// Requests at the same time.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..=200)
    )]
    pub requests: u32,
}

/// A name that can be printed and remembered.
fn network_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.chars().count())
        && text.trim() == text
        && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or_else(|| "a network's name is 1 to 64 characters that can be printed".into())
}

/// An address of a coordinator as nodes sign it.
fn known_as(text: &str) -> Result<String, &'static str> {
    neurino_coordinator::check_known_as(text)?;
    Ok(text.to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_no_command_understands_is_refused() {
        use clap::error::ErrorKind::{
            ArgumentConflict, InvalidSubcommand, MissingRequiredArgument, UnknownArgument,
            ValueValidation,
        };
        for (line, kind) in [
            ("neurino mine", InvalidSubcommand),
            ("neurino practice --jobs 0", ValueValidation),
            ("neurino practice --port 65536", ValueValidation),
            ("neurino practice --serve --jobs 2", ArgumentConflict),
            ("neurino practice --hidden", UnknownArgument),
            ("neurino node", MissingRequiredArgument),
            ("neurino models get", MissingRequiredArgument),
            ("neurino coordinator --listen 43110", ValueValidation),
            ("neurino coordinator key", MissingRequiredArgument),
            ("neurino bench text --runs 101", ValueValidation),
            ("neurino bench image", MissingRequiredArgument),
            ("neurino bench image --shape sd15 --size 512", ValueValidation),
            ("neurino bench image --shape sd15 --file a", ArgumentConflict),
        ] {
            assert_eq!(parse(line).unwrap_err(), kind, "{line}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["neurino --json --home /x doctor", "neurino doctor --json --home /x"] {
            let cli = parse(line).unwrap();
            assert!(cli.json && matches!(cli.role, Some(Role::Doctor(_))));
            assert_eq!(cli.home, Some(PathBuf::from("/x")));
        }
        let cli = parse("neurino --hidden").unwrap();
        assert!(cli.hidden && !cli.mine && cli.role.is_none());
        // As the entry for programs that start with the computer has it.
        let cli = parse("neurino --home /x --hidden --mine").unwrap();
        assert!(cli.hidden && cli.mine && cli.role.is_none());
    }

    #[test]
    fn every_help_text_reads_well() {
        let mut pages = Vec::new();
        collect(&Cli::command(), &mut vec!["neurino".to_owned()], &mut pages);
        insta::assert_snapshot!(pages.join("\n"));
    }

    /// What `--help` prints, for a command and those below it.
    fn collect(command: &clap::Command, path: &mut Vec<String>, pages: &mut Vec<String>) {
        // The variable's value at the moment is no part of the grammar.
        let whole = Cli::command().term_width(100).mut_arg("home", |a| a.hide_env_values(true));
        let line = path.iter().cloned().chain(["--help".to_owned()]);
        let help = whole.try_get_matches_from(line).unwrap_err().to_string();
        let help: Vec<_> = help.lines().map(str::trim_end).collect();
        pages.push(format!("$ {} --help\n{}\n", path.join(" "), help.join("\n")));
        for child in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            path.push(child.get_name().to_owned());
            collect(child, path, pages);
            path.pop();
        }
    }
}
