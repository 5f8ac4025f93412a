//! One epoch made of the books, however much of a week there is: its movements are read page by page, and
//! its entries written a few hundred at a time, so that leases and payments come in between. What is held
//! in memory grows with nodes, models and payers, not with results.
//!
//! A week is read twice: once to learn what each payer paid for, without which free work cannot be weighed,
//! and once to weigh and write. Should both readings differ, somebody changed the books meanwhile, and the
//! draft is left for the next try. Where pay was called back within the same epoch, a reading in between
//! tells what that pay had counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hmac::{Hmac, Mac};
use neurino_core::{LeaseId, NodeId, PointsKind};
use neurino_ledger::epoch::{
    Address, Before, Entries, Entry, EntryLines, EpochEditions, EpochError, EpochFile, EpochInputs,
    EpochRules, EpochSums, Hash, Holder, Movement, PaidSums, PerKind, Source, Weigher, Work,
    canonical_json, epoch_of,
};
use neurino_wallet::IdentityKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Holdings;
use crate::audits::{AUDIT_PAYER, key_of, secret_of};
use crate::error::{CoordinatorError, StoreError};
use crate::router::owner_of;
use crate::store::{
    Behind, Beside, DraftStep, Drafted, Drafter, NewEpoch, NewEpochEntry, RawMovement, Store, Until,
};

/// Whose books an epoch is made of, and by which rules.
pub(crate) struct Maker<'a> {
    pub(crate) network: &'a str,
    pub(crate) rules: &'a EpochEditions,
    pub(crate) key: &'a IdentityKey,
    pub(crate) escrow_ms: i64,
    pub(crate) sizes: Sizes,
}

/// How much of a week is handled at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Movements of one kind that are read at once.
    pub(crate) page: u32,
    /// Entries of one write.
    pub(crate) write: usize,
}

impl Default for Sizes {
    /// A write of so many takes some ten milliseconds.
    fn default() -> Self {
        Self { page: 1_000, write: 512 }
    }
}

/// Books that an epoch is made in.
pub(crate) enum EpochBooks<'a> {
    /// By their coordinator.
    Own(&'a Store),
    /// Beside it.
    Beside(&'a mut Beside),
}

macro_rules! asked {
    ($books:expr, $name:ident($($argument:expr),*)) => {
        match $books {
            EpochBooks::Own(store) => store.$name($($argument),*).await,
            EpochBooks::Beside(beside) => beside.$name($($argument),*).await,
        }
    };
}

impl EpochBooks<'_> {
    async fn take(&mut self, step: DraftStep) -> Result<Drafted, StoreError> {
        asked!(self, draft(step))
    }

    fn drafter(&self) -> Drafter {
        let is_router = matches!(self, Self::Own(_));
        Drafter { name: Uuid::new_v4().to_string(), is_router }
    }
}

/// What is drafted of a week, and all that its file needs.
#[derive(Debug)]
pub(crate) struct Week {
    about: About,
    drafter: Drafter,
    sums: EpochSums,
    entries: Entries,
}

/// What the books say of a week that is over, but for its movements.
#[derive(Debug)]
struct About {
    epoch: i64,
    /// Those that held when the week began.
    rules: EpochRules,
    /// The first movement that is in no epoch yet is not before.
    first_ms: i64,
    until: Until,
    previous: Option<EpochFile>,
    holdings: Option<Holdings>,
    votes: BTreeMap<NodeId, u64>,
    /// Draws the names of payers.
    salt: [u8; 32],
}

impl Week {
    pub(crate) fn epoch(&self) -> i64 {
        self.about.epoch
    }

    /// Publishes it; `false` if somebody else published an epoch meanwhile, or began this one anew.
    pub(crate) async fn publish(
        &self,
        books: &mut EpochBooks<'_>,
        epoch: NewEpoch,
    ) -> Result<bool, CoordinatorError> {
        let (drafter, epoch) = (self.drafter.clone(), Box::new(epoch));
        let at_ms = crate::coordinator::now_ms();
        Ok(books.take(DraftStep::Publish { drafter, epoch, at_ms }).await? == Drafted::Done)
    }
}

/// The epoch that goes on at a time as seen by those before it: they are over, and so is the time in
/// which their pay can be called back.
pub(crate) fn over_at(now_ms: i64, settle_wait_ms: i64, escrow_ms: i64) -> i64 {
    epoch_of(now_ms.saturating_sub(settle_wait_ms).saturating_sub(escrow_ms))
}

/// What the next due epoch needs, or nothing if none is due.
async fn due(
    books: &mut EpochBooks<'_>,
    maker: &Maker<'_>,
    now_ms: i64,
    salt: [u8; 32],
) -> Result<Option<About>, CoordinatorError> {
    let over = over_at(now_ms, maker.rules.at(now_ms).settle_wait_ms, maker.escrow_ms);
    let over_ms = EpochInputs::bounds(over).map_or(0, |(start_ms, _)| start_ms);
    let Some(first_ms) = asked!(books, first_unmarked(over_ms))? else { return Ok(None) };
    let previous = asked!(books, last_epoch())?.map(|body| read_file(&body)).transpose()?;
    let after = previous.as_ref().map_or(0, |file| file.inputs.epoch + 1);
    let epoch = epoch_of(first_ms).max(after);
    let bounds = EpochInputs::bounds(epoch).filter(|(_, end_ms)| *end_ms <= over_ms);
    let Some((start_ms, end_ms)) = bounds else { return Ok(None) };
    let holdings = asked!(books, holdings(end_ms))?;
    Ok(Some(About {
        epoch,
        rules: maker.rules.at(start_ms).clone(),
        first_ms,
        until: Until { before_ms: end_ms, known_ms: now_ms },
        previous,
        holdings: holdings.map(|body| read_holdings(&body)).transpose()?,
        votes: asked!(books, votes_for_nodes())?,
        salt,
    }))
}

fn read_file(body: &str) -> Result<EpochFile, StoreError> {
    serde_json::from_str(body).map_err(|_| StoreError::Unreadable { what: "epoch" })
}

fn read_holdings(body: &str) -> Result<Holdings, StoreError> {
    serde_json::from_str(body).map_err(|_| StoreError::Unreadable { what: "holdings" })
}

/// Reads the movements of a week in the order of entries.
struct Movements {
    until: Until,
    page: u32,
    kinds: [Pages; 3],
}

/// Those of one kind.
struct Pages {
    movement: Movement,
    behind: Behind,
    read: VecDeque<RawMovement>,
    /// Whether there is nothing behind what was read.
    ended: bool,
}

impl Movements {
    fn of(about: &About, sizes: Sizes) -> Self {
        let kinds = [Movement::Reward, Movement::Clawback, Movement::Return];
        let kinds = kinds.map(|movement| Pages {
            movement,
            // No lease is before an empty one.
            behind: (about.first_ms, String::new()),
            read: VecDeque::new(),
            ended: false,
        });
        Self { until: about.until, page: sizes.page, kinds }
    }

    async fn next(
        &mut self,
        books: &mut EpochBooks<'_>,
    ) -> Result<Option<RawMovement>, StoreError> {
        for kind in &mut self.kinds {
            if kind.read.is_empty() && !kind.ended {
                let page =
                    asked!(books, unmarked(kind.movement, self.until, &kind.behind, self.page))?;
                kind.ended = page.len() < self.page as usize;
                if let Some(last) = page.last() {
                    kind.behind = (last.at_ms, last.receipt.lease.to_string());
                }
                kind.read = page.into();
            }
        }
        let place = |raw: &RawMovement| (raw.at_ms, raw.receipt.lease, raw.movement);
        let first = self.kinds.iter_mut().filter(|kind| !kind.read.is_empty());
        let first = first.min_by_key(|kind| kind.read.front().map(place));
        Ok(first.and_then(|kind| kind.read.pop_front()))
    }
}

/// Who belongs to whom.
pub(crate) struct Kinship<'a> {
    rewards: BTreeMap<Address, Address>,
    payers: BTreeMap<&'a str, Address>,
}

impl<'a> Kinship<'a> {
    pub(crate) fn of(holdings: Option<&'a Holdings>) -> Self {
        let bindings = holdings.iter().flat_map(|held| &held.bindings);
        let payers = holdings.iter().flat_map(|held| &held.payers);
        Self {
            rewards: bindings.map(|bound| (bound.identity, bound.reward)).collect(),
            payers: payers.map(|own| (own.payer.as_str(), own.owner)).collect(),
        }
    }

    /// Who is paid for a node: whom its key is bound to, or the address in its name.
    pub(crate) fn reward(&self, node: &NodeId) -> Option<Address> {
        let address: Address = owner_of(node).parse().ok()?;
        Some(self.rewards.get(&address).copied().unwrap_or(address))
    }

    pub(crate) fn source(&self, raw: &RawMovement) -> Source {
        let payer = raw.payer.as_str();
        if raw.is_audit || payer == AUDIT_PAYER {
            return Source::Audit;
        }
        // The program that runs the network asks for itself.
        if payer == "local" {
            return Source::Own;
        }
        let named = payer
            .parse()
            .ok()
            .map(|address| self.rewards.get(&address).copied().unwrap_or(address));
        let owner = self.payers.get(payer).copied().or(named);
        if owner.is_some() && owner == self.reward(&raw.receipt.node) {
            return Source::Own;
        }
        if raw.charged.0 > 0 { Source::Paid } else { Source::Free }
    }

    /// The entry of a movement, before it is weighed.
    fn entry(&self, raw: &RawMovement, salt: &[u8; 32]) -> Entry {
        let (receipt, source) = (&raw.receipt, self.source(raw));
        let fee = if source == Source::Paid { raw.charged.0 - raw.returned.0 } else { 0 };
        Entry {
            at_ms: raw.at_ms,
            lease: receipt.lease,
            movement: raw.movement,
            job: receipt.job,
            node: receipt.node.clone(),
            model: receipt.model.clone(),
            points: receipt.quote.points,
            points_micro: receipt.quote.amount_micro.0,
            organic_micro: 0,
            payer: alias(salt, raw.payer.as_str()),
            source,
            fee_micro: fee.max(0),
        }
    }
}

/// A payer's name in one epoch, which says nothing else.
fn alias(salt: &[u8; 32], payer: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("a key of any length fits");
    mac.update(payer.as_bytes());
    hex::encode(&mac.finalize().into_bytes()[..12])
}

fn work(entry: &Entry) -> Work<'_> {
    Work {
        payer: &entry.payer,
        kind: entry.points,
        points_micro: entry.points_micro,
        fee_micro: entry.fee_micro,
        source: entry.source,
    }
}

/// Everything that was read, to be compared with another reading.
#[derive(Default)]
struct Seen(Sha256);

impl Seen {
    fn add(&mut self, entry: &Entry, organic_micro: Option<i64>) -> Result<(), EpochError> {
        let bytes = serde_json::to_vec(&(entry, organic_micro));
        self.0.update(bytes.map_err(|_| EpochError::Number("an entry"))?);
        Ok(())
    }
}

/// What the first reading of a week tells.
pub(crate) struct Survey {
    about: About,
    paid: PaidSums,
    /// What the pay counted that was called back within the same epoch.
    called_back: BTreeMap<LeaseId, i64>,
    seen: Seen,
}

/// Reads the next week that is due; `None` if none is.
///
/// # Errors
/// `Epoch`, `Store`.
pub(crate) async fn surveyed(
    books: &mut EpochBooks<'_>,
    maker: &Maker<'_>,
    now_ms: i64,
    salt: [u8; 32],
) -> Result<Option<Survey>, CoordinatorError> {
    let Some(about) = due(books, maker, now_ms, salt).await? else { return Ok(None) };
    let kinship = Kinship::of(about.holdings.as_ref());
    let (mut paid, mut seen) = (PaidSums::default(), Seen::default());
    let mut open = BTreeSet::new();
    let mut movements = Movements::of(&about, maker.sizes);
    while let Some(raw) = movements.next(books).await? {
        let entry = kinship.entry(&raw, &about.salt);
        seen.add(&entry, raw.organic_micro)?;
        if entry.movement == Movement::Reward {
            paid.add(&about.rules, &work(&entry));
        } else if raw.organic_micro.is_none() {
            open.insert(entry.lease);
        }
    }
    let mut called_back = BTreeMap::new();
    if !open.is_empty() {
        let mut weigher = paid.clone().weigher(&about.rules);
        let mut movements = Movements::of(&about, maker.sizes);
        while let Some(raw) = movements.next(books).await? {
            if raw.movement == Movement::Reward {
                let entry = kinship.entry(&raw, &about.salt);
                let counts = weigher.weigh(&work(&entry));
                if open.contains(&entry.lease) {
                    called_back.insert(entry.lease, counts);
                }
            }
        }
    }
    drop(kinship);
    Ok(Some(Survey { about, paid, called_back, seen }))
}

/// Drafts the next epoch that is due; `None` if none is. Payers are named by `salt`.
///
/// # Errors
/// `EpochUnderWay`, `EpochMoved`, `Epoch`, `Store`.
pub(crate) async fn drafted(
    books: &mut EpochBooks<'_>,
    maker: &Maker<'_>,
    now_ms: i64,
    salt: [u8; 32],
) -> Result<Option<Week>, CoordinatorError> {
    match surveyed(books, maker, now_ms, salt).await? {
        Some(survey) => written(books, maker, survey).await.map(Some),
        None => Ok(None),
    }
}

/// Writes the entries of a week that was read once, in their order.
///
/// # Errors
/// As [`drafted`].
pub(crate) async fn written(
    books: &mut EpochBooks<'_>,
    maker: &Maker<'_>,
    survey: Survey,
) -> Result<Week, CoordinatorError> {
    let Survey { about, paid, called_back, seen } = survey;
    let mut draft = Draft::begin(books, &about).await?;
    let kinship = Kinship::of(about.holdings.as_ref());
    let mut weigher: Weigher = paid.weigher(&about.rules);
    let mut sums = EpochSums::default();
    let mut lines = EntryLines::default();
    let mut seen_now = Seen::default();
    let mut movements = Movements::of(&about, maker.sizes);
    while let Some(raw) = movements.next(books).await? {
        let mut entry = kinship.entry(&raw, &about.salt);
        seen_now.add(&entry, raw.organic_micro)?;
        entry.organic_micro = match entry.movement {
            Movement::Reward => weigher.weigh(&work(&entry)),
            // What came after a reward moves what the reward counted, in this epoch or an earlier one.
            Movement::Clawback | Movement::Return => {
                raw.organic_micro.or(called_back.get(&entry.lease).copied()).unwrap_or(0)
            }
        };
        sums.add(&entry)?;
        let line = canonical_json(&entry)?;
        lines.add(&line);
        let (lease, movement, organic_micro) = (entry.lease, entry.movement, entry.organic_micro);
        draft.waiting.push(NewEpochEntry { lease, movement, organic_micro, line });
        if draft.waiting.len() >= maker.sizes.write {
            draft.write(books).await?;
        }
    }
    draft.write(books).await?;
    if seen.0.finalize() != seen_now.0.finalize() {
        return Err(CoordinatorError::EpochMoved);
    }
    drop(kinship);
    let drafter = draft.drafter;
    Ok(Week { about, drafter, sums, entries: lines.entries() })
}

/// Entries on their way into the books.
struct Draft {
    drafter: Drafter,
    epoch: i64,
    /// How many are written.
    written: u64,
    waiting: Vec<NewEpochEntry>,
}

impl Draft {
    /// Begins one, and removes what is left of former ones.
    async fn begin(books: &mut EpochBooks<'_>, about: &About) -> Result<Self, CoordinatorError> {
        let (epoch, drafter) = (about.epoch, books.drafter());
        let previous = about.previous.as_ref().map(|file| file.inputs.epoch);
        let at_ms = crate::coordinator::now_ms();
        let step = DraftStep::Begin { drafter: drafter.clone(), epoch, previous, at_ms };
        is_ours(books.take(step).await?)?;
        loop {
            let (drafter, at_ms) = (drafter.clone(), crate::coordinator::now_ms());
            let cleared = books.take(DraftStep::Clear { drafter, at_ms }).await?;
            is_ours(cleared)?;
            if cleared == Drafted::Done {
                break;
            }
        }
        Ok(Self { drafter, epoch, written: 0, waiting: Vec::new() })
    }

    /// Writes what is waiting.
    async fn write(&mut self, books: &mut EpochBooks<'_>) -> Result<(), CoordinatorError> {
        let entries = std::mem::take(&mut self.waiting);
        if entries.is_empty() {
            return Ok(());
        }
        let (drafter, epoch, from) = (self.drafter.clone(), self.epoch, self.written);
        self.written += entries.len() as u64;
        let at_ms = crate::coordinator::now_ms();
        is_ours(books.take(DraftStep::Add { drafter, epoch, from, entries, at_ms }).await?)
    }
}

fn is_ours(drafted: Drafted) -> Result<(), CoordinatorError> {
    match drafted {
        Drafted::Done | Drafted::More => Ok(()),
        Drafted::Busy => Err(CoordinatorError::EpochUnderWay),
        Drafted::Lost => Err(CoordinatorError::EpochMoved),
    }
}

/// What nodes still owe.
pub(crate) fn debts(
    previous: Option<&EpochFile>,
) -> BTreeMap<NodeId, (PerKind<i64>, PerKind<i64>)> {
    let nodes = previous.iter().flat_map(|file| &file.result.nodes);
    let debts =
        nodes.map(|node| (node.node.clone(), (node.carried_micro, node.organic_carried_micro)));
    let nothing = PerKind { llama: 0, waifu: 0 };
    debts.filter(|(_, debt)| *debt != (nothing, nothing)).collect()
}

/// Computes and signs the file of a drafted week.
pub(crate) fn made(
    maker: &Maker<'_>,
    week: &mut Week,
    now_ms: i64,
) -> Result<NewEpoch, EpochError> {
    let Week { about, sums, entries, .. } = week;
    let sums = std::mem::take(sums);
    let fit = EpochError::Number("the number of the epoch");
    let (start_ms, end_ms) = EpochInputs::bounds(about.epoch).ok_or(fit)?;
    let kinship = Kinship::of(about.holdings.as_ref());
    let previous = about.previous.as_ref();
    let (nodes, demand) = sums.inputs(&debts(previous), |node| {
        let votes = about.votes.get(node).copied().unwrap_or(0);
        kinship.reward(node).map(|reward| (reward, votes))
    });
    let paid: BTreeSet<Address> = nodes.iter().map(|node| node.reward).collect();
    let holders = about.holdings.iter().flat_map(|held| &held.holders);
    let holders: Vec<Holder> = holders.filter(|h| paid.contains(&h.reward)).copied().collect();
    let before = previous.iter().flat_map(|file| &file.result.accounts);
    let before = before.map(|own| Before { reward: own.reward, cumulative: own.cumulative });
    let inputs = EpochInputs {
        network: maker.network.to_owned(),
        epoch: about.epoch,
        start_ms,
        end_ms,
        claimable_from_ms: end_ms.saturating_add(maker.escrow_ms),
        previous_sha256: previous.map(EpochFile::sha256).transpose()?,
        rules: about.rules.clone(),
        audit_key: Some(Hash(key_of(&secret_of(maker.key, maker.network), about.epoch))),
        snapshot: about.holdings.as_ref().map(|held| held.snapshot),
        entries: *entries,
        demand,
        holders,
        before: before.collect(),
        nodes,
    };
    let mut file = EpochFile::new(inputs, maker.key.address())?;
    file.signature = maker.key.sign(&file.message()?);
    Ok(NewEpoch {
        epoch: about.epoch,
        previous: previous.map(|file| file.inputs.epoch),
        made_at_ms: now_ms,
        summary: summary(&file)?,
        body: file.canonical()?,
        entries: entries.count,
    })
}

/// What lists show of an epoch.
pub(crate) fn summary(file: &EpochFile) -> Result<String, EpochError> {
    let (inputs, result) = (&file.inputs, &file.result);
    let pool = |kind: PointsKind| {
        let (demand, pool) = (inputs.demand.of(kind), result.pools.of(kind));
        json!({ "demand": demand, "base": pool.base, "dynamic": pool.dynamic })
    };
    canonical_json(&json!({
        "epoch": inputs.epoch,
        "start_ms": inputs.start_ms,
        "end_ms": inputs.end_ms,
        "claimable_from_ms": inputs.claimable_from_ms,
        "rules": inputs.rules.name,
        "entries": inputs.entries,
        "accounts": result.accounts.len(),
        "paid": result.paid,
        "total": result.total,
        "root": result.root,
        "sha256": Hash(Sha256::digest(file.canonical()?).into()),
        "pools": { "llama": pool(PointsKind::Llama), "waifu": pool(PointsKind::Waifu) },
    }))
}
