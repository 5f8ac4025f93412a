//! `neurino coordinator`: gateway, routing and ledger for other machines' nodes.

mod admin;
mod audits;
mod files;
mod gateway;
mod log;
mod vouchers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_config::{InstanceLock, env};
use neurino_coordinator::admin::create_api_key;
use neurino_coordinator::books::{self, ledger_check};
use neurino_coordinator::{
    Account, AccountBalance, Bucket, BucketKeys, BucketTrouble, Coordinator, CoordinatorConfig,
    CoordinatorError, Database, DecoderProcess, FabricConfig, FabricError, FabricKey,
    check_listen_address, in_the_name_of,
};
use neurino_core::{MicroPoints, RuleSets};
use neurino_ledger::epoch::Address;
use neurino_wallet::IdentityKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::{CoordinatorAction, CoordinatorArgs, KeysAction};
use crate::output::{self, Format};
use crate::{Setting, interrupted};

/// Whose acts these are in the network's log.
fn who() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME"));
    user.map_or_else(|_| "the command line".into(), |user| format!("the command line of {user}"))
}

pub(crate) async fn run(setting: Setting, args: CoordinatorArgs) -> anyhow::Result<ExitCode> {
    Box::pin(in_the_name_of(&who(), act(setting, args))).await
}

async fn act(setting: Setting, args: CoordinatorArgs) -> anyhow::Result<ExitCode> {
    match &args.action {
        Some(CoordinatorAction::Key { name }) => key(&setting, &args, name).await?,
        Some(CoordinatorAction::Ledger) => ledger(&setting, &args).await?,
        Some(CoordinatorAction::Keys { action }) => {
            let books = match action {
                KeysAction::Add { .. } => new_books(&setting, &args).await?,
                _ => books(&setting, &args).await?,
            };
            admin::keys(setting.format, &books, action).await?;
        }
        Some(CoordinatorAction::Credits { action }) => {
            admin::credits(setting.format, &books(&setting, &args).await?, action).await?;
        }
        Some(CoordinatorAction::Pod(pod)) => {
            admin::pod(setting.format, &books(&setting, &args).await?, pod).await?;
        }
        Some(CoordinatorAction::Votes(votes)) => {
            admin::votes(setting.format, &books(&setting, &args).await?, votes).await?;
        }
        Some(CoordinatorAction::Gateway(gateway)) => gateway::run(&setting, gateway).await?,
        Some(CoordinatorAction::Vouchers { action }) => {
            let database = books(&setting, &args).await?;
            vouchers::run(&setting, &database, action).await?;
        }
        Some(CoordinatorAction::Log { after, check }) => {
            log::run(setting.format, &books(&setting, &args).await?, *after, *check).await?;
        }
        Some(CoordinatorAction::Audits { action }) => {
            let database = books(&setting, &args).await?;
            let key = payload_key(&setting, &args);
            audits::run(setting.format, &database, &key, action.as_ref()).await?;
        }
        Some(CoordinatorAction::Files { action }) => {
            let database = books(&setting, &args).await?;
            files::run(&setting, &database, action.as_ref()).await?;
        }
        None => {
            check_listen_address(args.listen, args.behind_proxy || args.tls.tls_cert.is_some())?;
            // Before the books are touched.
            gateway::certificate(&args.tls)?;
            if let Some(address) = args.admin.filter(|address| !address.ip().is_loopback()) {
                anyhow::bail!(
                    "--admin {address} could be reached by other machines, and what it serves is for this \
                     one alone; give an address such as 127.0.0.1:{}",
                    address.port()
                );
            }
            let fabric = fabric(&setting, &args)?;
            // A server decides itself who may write; a second process may stand by in the same home.
            let _lock = match database(&setting, &args)? {
                Database::Sqlite(_) => Some(InstanceLock::acquire(&setting.dirs)?),
                Database::Postgres(_) => None,
            };
            while let Some((coordinator, stood_by)) = open_when_free(&setting, &args).await? {
                // Its predecessor's address may not be free yet.
                let patience = if stood_by { ADDRESS_WAIT } else { Duration::ZERO };
                let outcome = serve(&setting, &args, fabric.clone(), &coordinator, patience).await;
                coordinator.shutdown().await;
                outcome?;
                if !coordinator.is_superseded() {
                    break;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The books, in the folder of a network.
const DATABASE: &str = "coordinator.sqlite";
/// Pictures of books that are elsewhere.
const PICTURES: &str = "coordinator-pictures";
/// Opens the payloads of the books.
const PAYLOAD_KEY: &str = "payload.key";
/// How long whoever takes over waits for an address that is in use: nobody serves meanwhile, and ending would
/// leave the network without anybody.
const ADDRESS_WAIT: Duration = Duration::from_mins(1);
/// Wait between two attempts to open books whose server went away.
const RETRY: Duration = Duration::from_secs(1);

/// What was chosen when the network was made; lies beside its books.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Charter {
    network: String,
    rules: String,
}

impl Charter {
    const FILE: &str = "network.json";

    /// The network of a folder; made from the flags, or from the defaults, the first time.
    ///
    /// - `of_books`: the network of the books, if there are any. A charter that got lost is that of the books
    ///
    /// It is kept by [`Charter::keep`], once the books could be opened.
    fn of(folder: &Path, args: &CoordinatorArgs, of_books: Option<String>) -> anyhow::Result<Self> {
        let now = jiff::Timestamp::now();
        let charter = if let Some(charter) = Self::read(folder)? {
            charter
        } else {
            let asked = || args.network.clone().unwrap_or_else(|| "club".into());
            let network = of_books.unwrap_or_else(asked);
            let rules = args.rules.clone().unwrap_or_else(|| "club".into());
            RuleSets::built_in().at(&rules, now)?;
            Self { network, rules }
        };
        if let Some(network) = args.network.as_ref().filter(|n| **n != charter.network) {
            anyhow::bail!(
                "this folder holds the network `{}`, not `{network}`; leave --network out, or give \
                 another folder with --home",
                charter.network
            );
        }
        if let Some(rules) = &args.rules {
            RuleSets::built_in().at(rules, now)?;
            return Ok(Self { rules: rules.clone(), ..charter });
        }
        Ok(charter)
    }

    /// The one that was kept.
    fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes).map(Some).with_context(|| {
                format!(
                    "{} is damaged; put it back from a backup, or write it anew: it holds the \
                     network's name and its rule set",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes it down, unless one is kept.
    fn keep(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(Self::FILE);
        if !path.exists() {
            self.write(&path).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the file whole or not at all: a network that forgot its name could not go on.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let beside = path.with_extension("json.part");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        Ok(std::fs::rename(&beside, path)?)
    }
}

/// Where a coordinator for others keeps its books.
pub(crate) fn folder(setting: &Setting) -> PathBuf {
    setting.dirs.data.join("coordinator")
}

/// The key that signs for the network; made by whoever makes the network.
async fn key_of(setting: &Setting) -> anyhow::Result<Arc<IdentityKey>> {
    let passphrase = env::var(env::PASSPHRASE_FILE).map(PathBuf::from);
    let named = neurino_wallet::load_or_create_named;
    Ok(named(&folder(setting), "coordinator", passphrase.as_deref()).await?)
}

/// The key that signs for a network that is there. It is never made anew: another key could sign for
/// nothing of what the books hold.
pub(crate) async fn key_there(setting: &Setting) -> anyhow::Result<Arc<IdentityKey>> {
    key_in(&folder(setting)).await
}

async fn key_in(folder: &Path) -> anyhow::Result<Arc<IdentityKey>> {
    let passphrase = env::var(env::PASSPHRASE_FILE).map(PathBuf::from);
    let key = neurino_wallet::load_named(folder, "coordinator", passphrase.as_deref()).await?;
    key.with_context(|| {
        format!(
            "the coordinator's key is not here: it is expected in {}. Run this in the coordinator's own \
             home (--home), or put the key back from a backup, with `install.secret` beside it",
            folder.join("coordinator.key").display()
        )
    })
}

/// The address of the coordinator of the books: as they say, else of the key.
async fn address_of(setting: &Setting, database: &Database) -> anyhow::Result<Address> {
    let address = match books::coordinator_of(database).await? {
        Some(address) => address,
        None => key_there(setting).await?.address(),
    };
    Ok(address.parse()?)
}

/// Where the books are: in the database that was named, else in the network's folder.
fn database(setting: &Setting, args: &CoordinatorArgs) -> anyhow::Result<Database> {
    database_at(setting, args.database.clone())
}

/// The same, where a command line may have named one.
pub(crate) fn database_at(setting: &Setting, named: Option<String>) -> anyhow::Result<Database> {
    let named = named.or_else(|| env::var(env::DATABASE_URL).map(secret));
    match named {
        Some(address) => Ok(Database::at(address.trim(), folder(setting).join(PICTURES))?),
        None => Ok(Database::Sqlite(folder(setting).join(DATABASE))),
    }
}

/// An address that is not text names no database; what is said of it must not show it.
fn secret(address: OsString) -> String {
    address.into_string().unwrap_or_default()
}

/// What opens the payloads of the books.
fn payload_key(setting: &Setting, args: &CoordinatorArgs) -> PathBuf {
    args.payload_key.clone().unwrap_or_else(|| folder(setting).join(PAYLOAD_KEY))
}

/// Where pictures are kept instead of a folder, if somewhere was named.
fn bucket(args: &CoordinatorArgs) -> anyhow::Result<Option<Bucket>> {
    let named = args.blobs.clone().or_else(|| env::var(env::BLOBS).map(secret));
    let Some(address) = named else { return Ok(None) };
    let text = |name| env::var(name).map(secret).map(|text| text.trim().to_owned());
    let key = |name| {
        text(name).with_context(|| {
            format!("pictures are to be kept at {}, and {name} is not set", address.trim())
        })
    };
    let keys = BucketKeys {
        key_id: key(env::AWS_ACCESS_KEY_ID)?,
        secret: key(env::AWS_SECRET_ACCESS_KEY)?.into(),
        token: text(env::AWS_SESSION_TOKEN).map(Into::into),
    };
    let (endpoint, region) = (text(env::AWS_ENDPOINT_URL), text(env::AWS_REGION));
    Ok(Some(Bucket::at(address.trim(), endpoint.as_deref(), region.as_deref(), keys)?))
}

/// Opens the books as soon as no other coordinator holds them, and says whether they had to be waited for;
/// `None` if the wait was interrupted.
async fn open_when_free(
    setting: &Setting,
    args: &CoordinatorArgs,
) -> anyhow::Result<Option<(Arc<Coordinator>, bool)>> {
    let mut stands_by = false;
    let payload_key = payload_key(setting, args);
    loop {
        let refused = match open(setting, args).await {
            Ok(coordinator) => return Ok(Some((coordinator, stands_by))),
            Err(refused) => refused,
        };
        let database = database(setting, args)?;
        match refused.downcast_ref() {
            Some(CoordinatorError::InUse(Database::Postgres(_))) => {
                if !std::mem::replace(&mut stands_by, true) {
                    stand_by(setting, &database)?;
                }
            }
            // Whoever stands by does so while a server is away, too.
            Some(
                CoordinatorError::Store(_)
                | CoordinatorError::Bucket { trouble: BucketTrouble::Unreachable(_), .. },
            ) if stands_by => tokio::time::sleep(RETRY).await,
            _ => return Err(refused),
        }
        tokio::select! {
            free = books::until_free(&database, &payload_key) => free?,
            () = interrupted() => return Ok(None),
        }
    }
}

fn stand_by(setting: &Setting, database: &Database) -> anyhow::Result<()> {
    match setting.format {
        Format::Json => output::json_line(&json!({ "event": "standing_by" })),
        Format::Text => {
            output::line(format!("Another coordinator holds {database}."));
            output::line("Standing by to take over. Ctrl-C ends.");
            Ok(())
        }
    }
}

/// `neurino check-pictures`: reads strangers' pictures for a coordinator.
pub(crate) fn check_pictures() -> anyhow::Result<ExitCode> {
    neurino_coordinator::decoder::child::run()?;
    Ok(ExitCode::SUCCESS)
}

async fn open(setting: &Setting, args: &CoordinatorArgs) -> anyhow::Result<Arc<Coordinator>> {
    let folder = folder(setting);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let books = database(setting, args)?;
    let (key, of_books) = match books::network_of(&books).await {
        Ok(network) => (key_there(setting).await?, network),
        Err(CoordinatorError::NoBooks(_)) => {
            check_nothing_is_lost(&folder, &books)?;
            (key_of(setting).await?, None)
        }
        Err(error) => return Err(error.into()),
    };
    let charter = Charter::of(&folder, args, of_books)?;
    let mut config = CoordinatorConfig::practice(books, key);
    config.practice = false;
    config.payload_key = payload_key(setting, args);
    config.new_payload_key = args.new_payload_key;
    config.original = args.legacy;
    config.client_address_header.clone_from(&args.for_header);
    config.known_as.clone_from(&args.known_as);
    config.bucket = bucket(args)?;
    config.network.clone_from(&charter.network);
    config.rule_set.clone_from(&charter.rules);
    config.epoch_rules = Some(crate::args::EPOCH_RULES.into());
    let reader = DecoderProcess::own(["check-pictures"]);
    config.decoder = Some(reader.context("this program cannot find itself")?);
    config.limits.advice_idle_ms = u64::from(args.unload) * 60_000;
    config.limits.payload_keep_ms = u64::from(args.keep_hours) * 3_600_000;
    config.limits.disputed_keep_ms = u64::from(args.keep_disputed) * 24 * 3_600_000;
    config.limits.hedge_permille = u32::from(args.hedge) * 10;
    let catalog = neurino_model_store::Catalog::built_in();
    let needs = catalog.models().iter().map(|model| (model.id.clone(), model.memory_bytes_min));
    config.model_memory_bytes = needs.collect();
    let coordinator = Coordinator::open(config).await?;
    charter.keep(&folder)?;
    Ok(coordinator)
}

/// Refuses to begin anew where a network's books were once: they are more likely lost than given up.
fn check_nothing_is_lost(folder: &Path, books: &Database) -> anyhow::Result<()> {
    let Some(charter) = Charter::read(folder)? else { return Ok(()) };
    let Some(file) = books.file() else { return Ok(()) };
    anyhow::bail!(
        "the books of the network `{}` are not at {}, though they were made here; put them back from a \
         backup. To begin a new network instead, give another folder with --home, or remove {}",
        charter.network,
        file.display(),
        folder.display()
    )
}

/// Listens at an address, if it becomes free in time.
async fn listen(address: SocketAddr, patience: Duration) -> anyhow::Result<TcpListener> {
    let until = Instant::now() + patience;
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until =>
            {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%address, "the address is in use; waiting until it is free");
                }
                tokio::time::sleep(RETRY / 4).await;
            }
            bound => return bound.with_context(|| format!("{address} cannot be listened on")),
        }
    }
}

async fn serve(
    setting: &Setting,
    args: &CoordinatorArgs,
    fabric: Option<FabricConfig>,
    coordinator: &Arc<Coordinator>,
    patience: Duration,
) -> anyhow::Result<()> {
    let listener = listen(args.listen, patience).await?;
    let admin = match args.admin {
        Some(address) => {
            let listener = listen(address, patience).await?;
            Some((listener, admin::token(&folder(setting))?))
        }
        None => None,
    };
    let address = listener.local_addr()?;
    let tls = gateway::certificate(&args.tls)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    // As others reach it, which its own address need not say.
    let at = args.known_as.first().cloned().unwrap_or_else(|| format!("{scheme}://{address}"));
    let url = format!("{at}/v1");
    match setting.format {
        Format::Json => output::json_line(&json!({
            "event": "started", "gateway_url": url, "network": coordinator.network(),
            "address": coordinator.address(),
            "admin": admin.as_ref().and_then(|(listener, _)| listener.local_addr().ok()),
        }))?,
        Format::Text => {
            output::line(format!(
                "Network   {}, coordinated at {scheme}://{address}",
                coordinator.network()
            ));
            output::line(format!("Signs as  {}", coordinator.address()));
            if let Some(bucket) = coordinator.bucket() {
                output::line(format!("Pictures  {bucket}"));
            }
            output::line(format!("Mine for it:        neurino node --coordinator {at}"));
            output::line("Make an API key:    neurino coordinator key NAME");
            output::line(format!("Send requests to:   {url}  (OpenAI-compatible)"));
            if let Some((listener, _)) = &admin {
                let address = listener.local_addr()?;
                output::line(format!("Metrics   http://{address}/metrics"));
            }
            if let Some(fabric) = &fabric {
                output::line(format!("Gateways  over NATS at {}", fabric.address));
            }
            output::line("Ctrl-C ends.");
        }
    }
    let stop = CancellationToken::new();
    let serving = async {
        let public = async { Ok(coordinator.serve_on(listener, tls, stop.clone()).await?) };
        let admin = async {
            match admin {
                Some((listener, token)) => {
                    Ok(coordinator.serve_admin(listener, token, stop.clone()).await?)
                }
                None => Ok(()),
            }
        };
        let gateways = async {
            match fabric {
                Some(fabric) => Ok(coordinator.serve_fabric(fabric, stop.clone()).await?),
                None => Ok(()),
            }
        };
        let all: anyhow::Result<_> = tokio::try_join!(public, admin, gateways);
        all.map(drop)
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended?,
        () = interrupted() => {
            stop.cancel();
            serving.await?;
        }
    }
    Ok(())
}

/// The way to the gateways, if NATS was named.
fn fabric(setting: &Setting, args: &CoordinatorArgs) -> anyhow::Result<Option<FabricConfig>> {
    let Some(address) = gateway::address(&args.fabric)? else { return Ok(None) };
    if matches!(database(setting, args)?, Database::Sqlite(_)) {
        return Err(FabricError::NeedsServer.into());
    }
    let folder = folder(setting);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let key = FabricKey::load_or_create(&gateway::key_file(setting, &args.fabric))?;
    Ok(Some(FabricConfig { address, key }))
}

/// The books of the network that is there.
async fn books(setting: &Setting, args: &CoordinatorArgs) -> anyhow::Result<Database> {
    let database = database(setting, args)?;
    // For the network that is there, or not at all.
    let network = books::network_of(&database).await?;
    Charter::of(&folder(setting), args, network)?;
    Ok(database)
}

/// The same for a first key, with which many a network begins: made if there are none.
async fn new_books(setting: &Setting, args: &CoordinatorArgs) -> anyhow::Result<Database> {
    let database = database(setting, args)?;
    if books::exist(&database).await? {
        return books(setting, args).await;
    }
    open(setting, args).await?.shutdown().await;
    Ok(database)
}

async fn key(setting: &Setting, args: &CoordinatorArgs, name: &str) -> anyhow::Result<()> {
    let database = new_books(setting, args).await?;
    admin::show(setting.format, &create_api_key(&database, name).await?)
}

async fn ledger(setting: &Setting, args: &CoordinatorArgs) -> anyhow::Result<()> {
    let own = database(setting, args)?;
    let practice = setting.dirs.data.join("practice").join(DATABASE);
    // Where no coordinator for others was ever run, the practice network's books are meant.
    let database = match own.file() {
        Some(file) if !file.is_file() && practice.is_file() => Database::Sqlite(practice),
        _ => own,
    };
    let check = ledger_check(&database).await?;
    // Points of different kinds and credits are never added up.
    let of_nodes = |micro: fn(&AccountBalance) -> MicroPoints| {
        let mut by_unit = BTreeMap::<&str, MicroPoints>::new();
        for b in check.balances.iter().filter(|b| matches!(b.account, Account::Node(_))) {
            let sum = by_unit.entry(b.points.as_str()).or_default();
            *sum = MicroPoints(sum.0.saturating_add(micro(b).0));
        }
        by_unit
    };
    match setting.format {
        Format::Json => output::json(&json!({
            "holds": check.holds(),
            "jobs": check.jobs,
            "jobs_paid": check.receipts,
            "jobs_paid_twice": check.jobs_paid_twice,
            "postings_sum_micro": check.sums_micro,
            "paid_to_nodes_micro": of_nodes(|b| b.balance_micro),
            "receipts_sum_micro": of_nodes(|b| b.receipts_micro),
            "balances": check.balances,
        }))?,
        Format::Text => {
            output::line(format!("Books    {database}"));
            for (state, n) in &check.jobs {
                output::line(format!("{n:>18}  jobs {state}"));
            }
            for b in &check.balances {
                let amount = b.balance_micro.to_string();
                output::line(format!("{amount:>18}  {} points, {}", b.points.as_str(), b.account));
            }
            if check.holds() {
                output::line("The books balance.");
            }
        }
    }
    anyhow::ensure!(check.holds(), "THE BOOKS DO NOT BALANCE; keep the file and report this");
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_that_should_be_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("coordinator");
        let Err(error) = key_in(&home).await else { panic!("there is none") };
        assert!(error.to_string().contains(&*home.join("coordinator.key").to_string_lossy()));
        assert!(!home.exists(), "nothing was made");
    }

    #[test]
    fn a_network_keeps_its_name_and_a_damaged_one_is_not_renamed() {
        use clap::Parser as _;
        let folder = tempfile::tempdir().unwrap();
        let args = |line: &str| match crate::Cli::parse_from(line.split(' ')).role {
            Some(crate::Role::Coordinator(args)) => args,
            other => panic!("{other:?} is no coordinator"),
        };
        let of = |line: &str, books: Option<&str>| {
            Charter::of(folder.path(), &args(line), books.map(ToOwned::to_owned))
        };
        // Lost beside books that are there, it is theirs.
        assert_eq!(of("neurino coordinator", Some("pool")).unwrap().network, "pool");
        let other = of("neurino coordinator --network other", Some("pool")).unwrap_err();
        assert!(other.to_string().contains("holds the network `pool`"), "{other}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is kept yet");
        let made = of("neurino coordinator --network pool", None).unwrap();
        assert_eq!(made.network, "pool");
        made.keep(folder.path()).unwrap();
        let again = of("neurino coordinator", None).unwrap();
        assert_eq!(again.network, "pool");
        let books = Database::Sqlite(folder.path().join(DATABASE));
        let lost = check_nothing_is_lost(folder.path(), &books).unwrap_err();
        assert!(lost.to_string().contains("put them back from a backup"), "{lost}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");

        std::fs::write(folder.path().join(Charter::FILE), "{\"netw").unwrap();
        let error = of("neurino coordinator", None).unwrap_err();
        assert!(error.to_string().contains("put it back from a backup"), "{error}");
    }
}
