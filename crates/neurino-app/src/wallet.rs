//! The wallet's commands: the identity and its words, the reward address, a miner that was there
//! before. What public chains say is in `chain`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_core::NodeId;
use neurino_protocol::wallet::{
    CheckedAddress, FormerRewardView, FoundKeyView, FoundMiner, QrView, RewardView, WalletCommand,
    WalletReply, WalletView,
};
use neurino_protocol::{ErrorBody, ErrorCode, SecretText};
use neurino_wallet::{
    BackedUp, ExistingMiner, IdentityKey, MinerPlaces, OpenedIdentity, RewardAddress, WalletBook,
    WalletError, export_key_file, former_identities, import_key_file, is_what_was_pasted, qr_path,
    replace_identity, restore_former,
};
use rand::seq::IteratorRandom as _;
use secrecy::ExposeSecret as _;
use tracing::info;

use crate::chain::Facts;
use crate::mining::Phase;
use crate::{App, identity_options, lock, now_ms, told_with_causes};

/// Words that prove a back-up.
const QUIZ_WORDS: usize = 3;

/// The wallet's state in memory. No secret.
pub(crate) struct Wallet {
    pub(crate) book: WalletBook,
    /// Where a damaged book was put.
    set_aside: Option<PathBuf>,
    /// Places that were asked for, counted from zero.
    quiz: Option<Vec<usize>>,
    pub(crate) facts: Facts,
}

impl Wallet {
    /// Reads the book of a data folder.
    pub(crate) fn open(data: &Path) -> Result<Self, WalletError> {
        let loaded = WalletBook::load(data)?;
        Ok(Self {
            book: loaded.book,
            set_aside: loaded.set_aside,
            quiz: None,
            facts: Facts::default(),
        })
    }
}

impl App {
    /// The identity that is in use.
    pub(crate) fn identity(&self) -> Arc<OpenedIdentity> {
        Arc::clone(&lock(&self.identity))
    }

    pub(crate) async fn wallet(
        self: &Arc<Self>,
        command: WalletCommand,
    ) -> Result<WalletReply, ErrorBody> {
        match command {
            WalletCommand::Look => {}
            WalletCommand::Reveal => return Ok(self.reveal()),
            WalletCommand::Quiz => return Ok(self.quiz()),
            WalletCommand::QuizAnswer { words } => self.quiz_answer(&words)?,
            WalletCommand::Restore { words } => {
                let key = IdentityKey::from_phrase(words.expose()).map_err(refused)?;
                self.take_identity(key).await?;
                // Whoever typed the words has them.
                self.backed_up()?;
            }
            WalletCommand::FormerBack { address, accept } => {
                self.former_back(&address, accept).await?;
            }
            WalletCommand::RewardCheck { text } => {
                return self.reward_check(text.expose()).map(WalletReply::Checked);
            }
            WalletCommand::RewardSet { text, pasted, replaces } => {
                self.reward_set(&text, pasted.as_ref(), replaces.as_deref())?;
            }
            WalletCommand::RewardRemove { replaces } => {
                self.change_reward(None, Some(&replaces))?;
            }
            WalletCommand::KeyExport { folder, accept } => {
                let path = self.key_export(&folder, accept).await?;
                return Ok(WalletReply::Exported { path: path.display().to_string() });
            }
            WalletCommand::KeyImport { path, take_reward } => {
                self.key_import(&path, take_reward).await?;
            }
            WalletCommand::MinerLook { folder } => {
                return self.miner_look(&folder).await.map(WalletReply::Found);
            }
            WalletCommand::RpcAdd { url } => self.rpc_add(&url).await?,
            WalletCommand::RpcRemove { index } => self.rpc_remove(index)?,
            WalletCommand::CollectionSet { address } => self.collection_set(address.as_deref())?,
            WalletCommand::ChainCheck => self.chain_check().await?,
        }
        Ok(WalletReply::View(Box::new(self.wallet_view())))
    }

    fn wallet_view(&self) -> WalletView {
        let identity = self.identity();
        let wallet = lock(&self.wallet);
        let own = identity.key.address();
        let backed_up = wallet.book.backed_up.as_ref().filter(|done| done.identity == own);
        WalletView {
            identity: identity.key.address_checksummed(),
            former: self.formers(),
            key_store: identity.store.describe().into(),
            backed_up_at_ms: backed_up.map(|done| done.at_ms),
            reward: wallet.book.reward.as_ref().map(|reward| RewardView {
                address: reward.address.checksummed(),
                since_ms: reward.since_ms,
                qr: qr(&reward.address),
            }),
            history: wallet
                .book
                .history
                .iter()
                .map(|former| FormerRewardView {
                    address: former.address.checksummed(),
                    since_ms: former.since_ms,
                    until_ms: former.until_ms,
                })
                .collect(),
            problem: wallet.set_aside.as_deref().map(book_was_damaged),
            keys_folder: home().join(".heurist-keys").display().to_string(),
            chain: self.chain_view(&wallet, &own),
        }
    }

    /// The only way of the words to the page.
    fn reveal(&self) -> WalletReply {
        info!("the recovery words are shown");
        let phrase = self.identity().key.phrase();
        let words = phrase.expose_secret().split(' ').map(SecretText::new).collect();
        WalletReply::Words { words }
    }

    fn quiz(&self) -> WalletReply {
        let words = self.identity().key.phrase().expose_secret().split(' ').count();
        let mut places = (0..words).choose_multiple(&mut rand::rng(), QUIZ_WORDS);
        places.sort_unstable();
        let shown = places.iter().map(|&place| place as u32 + 1).collect();
        lock(&self.wallet).quiz = Some(places);
        WalletReply::Quiz { places: shown }
    }

    fn quiz_answer(&self, answers: &[SecretText]) -> Result<(), ErrorBody> {
        let Some(places) = lock(&self.wallet).quiz.take() else {
            return Err(invalid("no words were asked for").with_hint("start the check again"));
        };
        let phrase = self.identity().key.phrase();
        let words: Vec<&str> = phrase.expose_secret().split(' ').collect();
        let right = answers.len() == places.len()
            && places.iter().zip(answers).all(|(&place, answer)| {
                words.get(place).is_some_and(|w| w.eq_ignore_ascii_case(answer.expose().trim()))
            });
        if !right {
            return Err(invalid("at least one of these words is another one")
                .with_hint("look at what you wrote down and try again with new places"));
        }
        self.backed_up()
    }

    fn backed_up(&self) -> Result<(), ErrorBody> {
        let identity = self.identity().key.address();
        self.change_book(|book| book.backed_up = Some(BackedUp { identity, at_ms: now_ms() }))
    }

    fn reward_check(&self, text: &str) -> Result<CheckedAddress, ErrorBody> {
        let entered = RewardAddress::read(text).map_err(|e| invalid(e.to_string()))?;
        let wallet = lock(&self.wallet);
        let in_use = wallet.book.reward.as_ref().is_some_and(|r| r.address == entered.address);
        Ok(CheckedAddress {
            address: entered.address.checksummed(),
            proven: entered.checksum_proven,
            looks_like: wallet.book.look_alike(&entered.address).map(|old| old.checksummed()),
            in_use,
            qr: qr(&entered.address),
        })
    }

    fn reward_set(
        &self,
        text: &SecretText,
        pasted: Option<&SecretText>,
        replaces: Option<&str>,
    ) -> Result<(), ErrorBody> {
        let entered =
            RewardAddress::read(text.expose()).map_err(|e| invalid(e.to_string()))?.address;
        if let Some(pasted) = pasted {
            let same = is_what_was_pasted(pasted.expose(), &entered);
            if same != Ok(true) {
                return Err(invalid("what is to be saved is not what was pasted").with_hint(
                    "a program on this machine may have changed it; compare the address with its \
                     source, character by character",
                ));
            }
        }
        self.change_reward(Some(entered), replaces)
    }

    fn change_reward(
        &self,
        address: Option<RewardAddress>,
        replaces: Option<&str>,
    ) -> Result<(), ErrorBody> {
        let replaces = replaces
            .map(|text| RewardAddress::read(text).map(|entered| entered.address))
            .transpose()
            .map_err(|e| invalid(e.to_string()))?;
        let present = lock(&self.wallet).book.reward.as_ref().map(|r| r.address);
        if present != replaces {
            return Err(invalid("the reward address was changed meanwhile")
                .with_hint("look at the one in use, then try again"));
        }
        self.change_book(|book| book.set_reward(address, now_ms()))?;
        let mut wallet = lock(&self.wallet);
        wallet.set_aside = None;
        wallet.facts.forget();
        drop(wallet);
        info!("the reward address was changed");
        Ok(())
    }

    async fn key_export(&self, folder: &str, accept: bool) -> Result<PathBuf, ErrorBody> {
        if !accept {
            return Err(invalid("a key file holds the words unencrypted")
                .with_hint("confirm that you want it all the same"));
        }
        let reward = lock(&self.wallet).book.reward.as_ref().map(|r| r.address);
        let Some(reward) = reward else {
            return Err(invalid("a key file is named by the reward address, and none is set")
                .with_hint("set the reward address first"));
        };
        let (folder, identity) = (path_of(folder)?, self.identity());
        blocking(move || export_key_file(&folder, &reward, &identity.key)).await
    }

    async fn key_import(self: &Arc<Self>, path: &str, take_reward: bool) -> Result<(), ErrorBody> {
        let path = path_of(path)?;
        let imported = blocking(move || import_key_file(&path)).await?;
        self.take_identity(imported.key).await?;
        if take_reward {
            let present = lock(&self.wallet).book.reward.as_ref().map(|r| r.address.checksummed());
            self.change_reward(Some(imported.reward), present.as_deref())?;
        }
        Ok(())
    }

    async fn miner_look(&self, folder: &str) -> Result<FoundMiner, ErrorBody> {
        let folder = path_of(folder)?;
        let look = move || Ok(ExistingMiner::look(&MinerPlaces::of(&folder, &home())));
        let found = blocking(look).await?;
        let bad_ids = found.bad_ids.iter().map(|(name, error)| format!("{name}: {error}."));
        let bad_keys = found.bad_keys.iter().map(|error| format!("{error}."));
        let models = found.models.as_ref();
        Ok(FoundMiner {
            miner_ids: found.miner_ids.iter().map(|(_, id)| id.submitted()).collect(),
            rewards: found.rewards().iter().map(RewardAddress::checksummed).collect(),
            problems: bad_ids.chain(bad_keys).collect(),
            models_folder: models.map(|models| models.folder.display().to_string()),
            models_count: models.map_or(0, |models| models.files.len() as u32),
            models_bytes: models.map_or(0, |models| models.files.iter().map(|f| f.1).sum()),
            keys: found
                .keys
                .into_iter()
                .map(|key| FoundKeyView {
                    path: key.path.display().to_string(),
                    reward: key.reward,
                    identity: key.identity,
                    readable_by_others: key.readable_by_others,
                })
                .collect(),
        })
    }

    /// Former identities whose keys are kept. What cannot be listed is told when it is asked for.
    fn formers(&self) -> Vec<String> {
        let listed = former_identities(&self.dirs.data).unwrap_or_default();
        listed.iter().map(|address| checksummed(address)).collect()
    }

    async fn former_back(self: &Arc<Self>, address: &str, accept: bool) -> Result<(), ErrorBody> {
        if !accept {
            return Err(invalid("another identity earns for other points and bindings")
                .with_hint("confirm that you want to go back to it"));
        }
        let options = identity_options(&self.dirs, &self.settings);
        let address = address.to_owned();
        self.change_identity(async move { restore_former(options, &address).await }).await
    }

    /// Makes a key this machine's identity, from the next Start on.
    async fn take_identity(self: &Arc<Self>, key: IdentityKey) -> Result<(), ErrorBody> {
        let options = identity_options(&self.dirs, &self.settings);
        self.change_identity(replace_identity(options, key)).await
    }

    async fn change_identity(
        self: &Arc<Self>,
        change: impl Future<Output = Result<OpenedIdentity, WalletError>>,
    ) -> Result<(), ErrorBody> {
        // Nothing is signed by one identity and sent by another.
        let _turn = self.turn.try_lock().map_err(|_| still_mining())?;
        if !matches!(lock(&self.mining).phase, Phase::Off | Phase::Problem(_)) {
            return Err(still_mining());
        }
        if self.has_unsent_results() {
            return Err(invalid("finished jobs of the present identity wait to be sent")
                .with_hint("start mining once so that they are paid, then stop and try again"));
        }
        let opened = change.await.map_err(refused)?;
        *lock(&self.identity) = Arc::new(opened);
        let mut wallet = lock(&self.wallet);
        wallet.quiz = None;
        wallet.facts.forget();
        drop(wallet);
        info!("another identity is in use");
        self.changed.notify_one();
        Ok(())
    }

    fn has_unsent_results(&self) -> bool {
        let folder = self.dirs.outbox.join(self.network.folder());
        let mut files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|end| end == "json"))
    }

    /// Changes the book on disk, then in memory.
    pub(crate) fn change_book(
        &self,
        change: impl FnOnce(&mut WalletBook),
    ) -> Result<(), ErrorBody> {
        let mut wallet = lock(&self.wallet);
        let mut book = wallet.book.clone();
        change(&mut book);
        book.save(&self.dirs.data).map_err(refused)?;
        wallet.book = book;
        Ok(())
    }

    /// This machine on the network.
    pub fn node(&self) -> NodeId {
        node_of(&self.identity())
    }
}

pub(crate) fn node_of(identity: &OpenedIdentity) -> NodeId {
    NodeId::new(identity.key.address()).expect("an address is a valid node id")
}

pub(crate) fn invalid(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, message)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn refused(error: WalletError) -> ErrorBody {
    match &error {
        WalletError::Io { source, path, .. }
            if source.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            invalid(format!("{} is there already and is not overwritten", path.display()))
                .with_hint("move it away, or choose another folder")
        }
        WalletError::BadPhrase { .. }
        | WalletError::BadKeyFile { .. }
        | WalletError::NoFormer { .. } => invalid(error.to_string()),
        _ => ErrorBody::new(ErrorCode::Internal, told_with_causes(&error)),
    }
}

fn still_mining() -> ErrorBody {
    invalid("the identity cannot change while mining").with_hint("press Stop first")
}

fn book_was_damaged(aside: &Path) -> ErrorBody {
    let message = format!(
        "the file with your reward address was damaged and lies in {} now",
        aside.display()
    );
    invalid(message).with_hint("enter the reward address again")
}

/// An address with the capitals of its checksum.
fn checksummed(address: &str) -> String {
    let read = RewardAddress::read(address);
    read.map_or_else(|_| address.to_owned(), |entered| entered.address.checksummed())
}

fn qr(address: &RewardAddress) -> Option<QrView> {
    qr_path(&address.checksummed()).map(|qr| QrView { modules: qr.modules, path: qr.path })
}

/// The person's folder, where the first miners keep their keys.
fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_default()
}

/// A path as a person writes it.
fn path_of(text: &str) -> Result<PathBuf, ErrorBody> {
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid("no path was entered"));
    }
    let below = text.strip_prefix("~/").or_else(|| text.strip_prefix("~\\"));
    let path = match below {
        Some(below) => home().join(below),
        None if text == "~" => home(),
        None => PathBuf::from(text),
    };
    if path.is_absolute() {
        return Ok(path);
    }
    Err(invalid("the path must be a whole one, from the root or from `~`"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WalletError> + Send + 'static,
) -> Result<T, ErrorBody> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(refused),
        Err(_) => Err(crate::internal("the files could not be looked at")),
    }
}
