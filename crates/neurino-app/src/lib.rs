//! The application: one function per command, one stream of events, no framework.
//!
//! [`App`] joins identity, model library, engine, miner and network, and answers the window's
//! [`Command`]s. It has never heard of Tauri or of a terminal. Reading order: this file, `start`
//! (what it is started with), `network` (whom the machine works for), `guard` (whether to mine now),
//! `mining` (the way there and back), `cards`, `models`, `library`, `catalogue`,
//! `playground`, `wallet` and `chain`,
//! `onboarding` (the first start), `power` (limits of cards, sleep),
//! `alerts`, `updates`, `notices`, `hotkey`, `worth` (what a model brings), `snapshot` (what the window
//! shows), `earnings` (records and what they say), `logs`, `doctor`, `bundle`.

mod alerts;
mod autostart;
mod bundle;
mod cards;
mod catalogue;
mod chain;
mod chat;
mod data;
pub mod demand;
mod doctor;
pub mod door;
mod earnings;
mod files;
mod filter;
mod glance;
mod guard;
mod hotkey;
mod library;
mod logs;
mod mining;
mod models;
mod network;
mod notices;
mod onboarding;
mod own_model;
mod picture;
mod playground;
mod power;
mod sentence;
mod snapshot;
mod start;
pub mod telemetry;
mod updates;
mod wallet;
mod worth;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neurino_chain::Contracts;
use neurino_config::{Dirs, InstanceLock, Onboarding, OnboardingFile, PreferencesFile, Settings};
use neurino_control::Order;
use neurino_coordinator::Coordinator;
use neurino_core::{Receipt, told_with_causes};
use neurino_earnings::ReceiptLog;
use neurino_hardware::{CardPower, LiveHardware};
use neurino_model_store::ModelStore;
use neurino_protocol::app::{Command, Event, Preferences, Reply, StopMode};
use neurino_protocol::filter::FilterView;
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::OpenedIdentity;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub use bundle::write_bundle;
pub use catalogue::CatalogueOptions;
pub use data::{Keep, Removal, Removed, data_places};
pub use doctor::examine;
use earnings::Records;
pub use glance::Glance;
use guard::Guard;
pub use library::ScrubPace;
use mining::Mining;
use network::Network;
pub use neurino_update::{Exchange, Version};
pub use notices::Notifier;
pub use start::{AppOptions, EngineHost, StartError, device_choice, identity_options};
pub use updates::UpdateOptions;

/// Events that a slow viewer may fall behind; then it misses some and asks for a snapshot.
const EVENTS_BEHIND_MAX: usize = 256;
/// How long `shutdown` waits for what is still running once the miner has ended, which takes two
/// seconds at most: the shells give it five in all.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(2_500);

/// The application. Call its functions inside a tokio runtime.
pub struct App {
    dirs: Dirs,
    settings: Settings,
    identity: Mutex<Arc<OpenedIdentity>>,
    wallet: Mutex<wallet::Wallet>,
    contracts: Contracts,
    onboarding_file: OnboardingFile,
    onboarding: Mutex<Onboarding>,
    autostart: autostart::Autostart,
    store: ModelStore,
    cards: cards::Cards,
    network: Network,
    receipts: Arc<ReceiptLog>,
    records: Records,
    preferences_file: PreferencesFile,
    preferences: Mutex<Preferences>,
    /// Decides whether to mine.
    guard: Mutex<Guard>,
    mining: Mutex<Mining>,
    /// Held by the run that has the engine: one after another.
    turn: tokio::sync::Mutex<()>,
    models: Mutex<models::Progress>,
    library: library::Library,
    power: power::Power,
    worth: Mutex<worth::Worth>,
    alerts: Mutex<alerts::Alerts>,
    updates: updates::Updates,
    catalogue: catalogue::Catalogue,
    notices: notices::Notices,
    hotkey: hotkey::Keys,
    filter: Mutex<FilterView>,
    view: Mutex<snapshot::View>,
    chats: Mutex<HashMap<String, CancellationToken>>,
    pictures: Mutex<HashMap<String, CancellationToken>>,
    events: broadcast::Sender<Event>,
    glances: watch::Sender<Option<Glance>>,
    changed: Notify,
    practice_demand: bool,
    end: CancellationToken,
    tasks: TaskTracker,
    /// Held until [`App::shutdown`]: what still holds the application then does not keep the next one out.
    instance: Mutex<Option<InstanceLock>>,
}

impl App {
    /// Opens everything and starts the background work; mining starts with
    /// [`Command::MiningStart`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: AppOptions) -> Result<Arc<Self>, StartError> {
        let AppOptions {
            dirs,
            settings,
            engine,
            store,
            limits,
            practice_demand,
            any_port,
            contracts,
            surroundings,
            cards,
            card_script,
            awake,
            updates,
            catalogue,
            notifier,
            hotkeys,
            scrub,
        } = options;
        dirs.create()?;
        let instance = InstanceLock::acquire(&dirs)?;
        let identity = neurino_wallet::open_identity(identity_options(&dirs, &settings)).await?;
        let wallet = wallet::Wallet::open(&dirs.data)?;
        let desktop = autostart::Autostart::config_folder();
        let place = updates.as_ref().map(|updates| &updates.place);
        let program = autostart::program_to_start(engine.program(), place);
        let autostart = autostart::Autostart::new(program, desktop.as_deref(), &dirs);
        autostart.mend();
        let store = match store {
            Some(store) => store,
            None => open_library(&dirs),
        };
        let hardware = Arc::new(LiveHardware::open(card_script));
        let limited = cards.unwrap_or_else(|| Arc::clone(&hardware) as Arc<dyn CardPower>);
        let cards = cards::Cards::open(hardware, engine, &dirs, &store, &settings);
        let own_models = models::all_models(&store.catalog());
        let image_models = models::image_models(&store.catalog());
        let open = Network::open(&dirs.data, &settings, limits, any_port, own_models, image_models);
        let network = open.await?;
        let folder = dirs.data.join(network.folder());
        let receipts = Arc::new(ReceiptLog::open(&folder.join("receipts.jsonl"))?);
        let records = Records::open(&dirs, &folder)?;
        let recent = receipts.recent(snapshot::RECEIPTS_SHOWN)?;
        let preferences_file = PreferencesFile::new(&dirs);
        let preferences = preferences_file.load().preferences;
        let onboarding_file = OnboardingFile::new(&dirs);
        let onboarding = onboarding::begin(onboarding_file.load(), !recent.is_empty());
        let (view, surroundings) = guard::first_look(surroundings).await.unzip();
        let guard = Guard::open(&dirs, view, cards.job_device());
        let library = library::Library::open(&dirs);
        let alerts = alerts::Alerts::open(&dirs);
        let updates = updates::Updates::open(&dirs, updates);
        let catalogue = catalogue::Catalogue::open(&dirs, catalogue);
        let notices = notices::Notices::open(&dirs, notifier);
        let hotkey = hotkey::Keys::open(&dirs, hotkeys);
        let power = power::Power::open(&dirs, limited, awake).await;
        let app = Arc::new(Self {
            library,
            power,
            worth: Mutex::default(),
            alerts: Mutex::new(alerts),
            updates,
            catalogue,
            notices,
            hotkey,
            filter: Mutex::new(filter::of_settings(&settings)),
            dirs,
            settings,
            identity: Mutex::new(Arc::new(identity)),
            wallet: Mutex::new(wallet),
            contracts,
            onboarding_file,
            onboarding: Mutex::new(onboarding),
            autostart,
            store,
            cards,
            network,
            receipts,
            records,
            preferences_file,
            preferences: Mutex::new(preferences),
            guard: Mutex::new(guard),
            mining: Mutex::new(Mining::new(now_ms())),
            turn: tokio::sync::Mutex::new(()),
            models: Mutex::new(models::Progress::default()),
            view: Mutex::new(snapshot::View::new(recent)),
            chats: Mutex::new(HashMap::new()),
            pictures: Mutex::new(HashMap::new()),
            events: broadcast::Sender::new(EVENTS_BEHIND_MAX),
            glances: watch::Sender::new(None),
            changed: Notify::new(),
            practice_demand,
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
            instance: Mutex::new(Some(instance)),
        });
        app.spawn_publisher();
        app.spawn_card_watch();
        app.spawn_sampling();
        if let Some(desk) = surroundings {
            app.spawn_guard(desk);
        }
        app.spawn_queue();
        app.spawn_scrub(scrub);
        app.spawn_catalogue();
        app.spawn_catalogue_updates();
        app.spawn_door().await;
        app.spawn_power();
        app.spawn_alerts();
        app.spawn_updates();
        app.spawn_notices();
        app.spawn_hotkey();
        info!(network = app.network.name(), "neurino {} is up", env!("CARGO_PKG_VERSION"));
        Ok(app)
    }

    /// Answers a command. Long work is started, not waited for: events tell the rest.
    ///
    /// # Errors
    /// In plain words, with a way out.
    pub async fn dispatch(self: &Arc<Self>, command: Command) -> Result<Reply, ErrorBody> {
        match command {
            Command::Snapshot => Ok(Reply::Snapshot(Box::new(self.snapshot().await))),
            Command::MiningStart => self.order(Order::Start).await.map(|()| Reply::Ok),
            Command::MiningStop { mode: StopMode::Finish } => {
                self.order(Order::Finish).await.map(|()| Reply::Ok)
            }
            Command::MiningStop { mode: StopMode::Now } => {
                self.order(Order::Stop).await.map(|()| Reply::Ok)
            }
            Command::MiningOrder { order } => self.order(order).await.map(|()| Reply::Ok),
            Command::Rules => Ok(Reply::Rules(Box::new(self.rules_view()))),
            Command::RulesSet { rules } => {
                self.rules_set(*rules).await.map(|view| Reply::Rules(Box::new(view)))
            }
            Command::Decisions => Ok(Reply::Decisions(self.decisions())),
            Command::ModelFetch { model } => self.model_fetch(&model).map(|()| Reply::Ok),
            Command::Library(action) => self.library(action).await.map(|()| Reply::Ok),
            Command::OwnModel(command) => self.own_model(command).await,
            Command::Catalogue(command) => {
                self.catalogue(command).map(|view| Reply::Catalogue(Box::new(view)))
            }
            Command::ChatSend { chat, model, messages, temperature, max_tokens } => {
                let question = chat::Question { model, messages, temperature, max_tokens };
                self.chat_send(chat, question).map(|()| Reply::Ok)
            }
            Command::ChatCancel { chat } => {
                self.chat_cancel(&chat);
                Ok(Reply::Ok)
            }
            Command::PictureSend { picture, job } => {
                self.picture_send(picture, job).map(|()| Reply::Ok)
            }
            Command::PictureCancel { picture } => {
                self.picture_cancel(&picture);
                Ok(Reply::Ok)
            }
            Command::PictureSave { png, settings } => {
                self.picture_save(png, settings).await.map(|path| Reply::Saved { path })
            }
            Command::Receipts { before_ms, limit } => {
                self.receipts_before(before_ms, limit).await.map(Reply::Receipts)
            }
            Command::Earnings { about } => self.earnings(about).await.map(Reply::Earnings),
            Command::Data => {
                let (dirs, models) = (self.dirs.clone(), self.store.root());
                let looking = tokio::task::spawn_blocking(move || data_places(&dirs, &models));
                let places = looking.await.map_err(|_| internal("the files could not be read"))?;
                Ok(Reply::Data(places))
            }
            Command::Doctor => Ok(Reply::Doctor(self.doctor().await)),
            Command::Preferences => Ok(Reply::Preferences(lock(&self.preferences).clone())),
            Command::PreferencesSet { preferences } => {
                self.preferences_set(preferences).map(|()| Reply::Ok)
            }
            Command::Wallet(command) => {
                self.wallet(command).await.map(|reply| Reply::Wallet(Box::new(reply)))
            }
            Command::Onboarding(command) => self.onboarding(command).map(Reply::Onboarding),
            Command::Power(command) => {
                self.power(command).await.map(|view| Reply::Power(Box::new(view)))
            }
            Command::Alerts(command) => {
                self.alerts(command).await.map(|view| Reply::Alerts(Box::new(view)))
            }
            Command::Update(command) => {
                self.update(command).await.map(|view| Reply::Update(Box::new(view)))
            }
            Command::Filter(command) => self.filter(command).await.map(Reply::Filter),
            Command::Notices(command) => self.notices(command).await.map(Reply::Notices),
            Command::Hotkey(command) => self.hotkey(command).await.map(Reply::Hotkey),
            Command::CardChoose { card, choice } => {
                self.card_choose(&card, choice).await.map(|()| Reply::Ok)
            }
            Command::Window { .. } => Err(ErrorBody::new(
                ErrorCode::InvalidRequest,
                "This program runs without a window.",
            )),
        }
    }

    /// The events from now on. A viewer that falls behind misses some and asks for a snapshot.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        let events = self.events.subscribe();
        // Who begins to look need not wait for the next round.
        self.changed.notify_one();
        events
    }

    /// The coordinator inside this program, if it works for the practice network.
    pub fn practice(&self) -> Option<&Arc<Coordinator>> {
        self.network.practice()
    }

    /// The gateway's key of the practice network, for programs on this machine.
    pub fn gateway_key(&self) -> Option<String> {
        self.network.gateway().map(|g| g.api_key.to_string())
    }

    /// Base URL of the gateway on this machine.
    pub fn gateway_url(&self) -> Option<String> {
        self.network.gateway().map(|g| g.base_url.clone())
    }

    /// Writes down that the program ends as it should, which the next start would otherwise take for a
    /// crash. The first step of [`App::shutdown`], for a shell whose time may not suffice for the rest.
    pub fn will_end(&self) {
        self.end.cancel();
        self.hotkey.release();
        self.guard_ends();
    }

    /// Hands the running job back, ends the engine and the practice network. Returns within five
    /// seconds whatever happens. Commands sent from then on are refused, or find nothing to do.
    pub async fn shutdown(self: &Arc<Self>) {
        self.will_end();
        self.mining_stop(StopMode::Now).await;
        self.power_back().await;
        let mut chats: Vec<_> = lock(&self.chats).drain().collect();
        chats.extend(lock(&self.pictures).drain());
        for (_, chat) in chats {
            chat.cancel();
        }
        self.tasks.close();
        let rest = async {
            let _ = self.engine().unload().await;
            self.network.shutdown().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN_WAIT, rest).await.is_err() {
            tracing::warn!("some background work did not end in time");
        }
        self.release();
    }

    /// Gives the data folder free for the program that follows, whoever still holds this one.
    pub fn release(&self) {
        lock(&self.instance).take();
    }

    async fn receipts_before(
        &self,
        before_ms: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Receipt>, ErrorBody> {
        let log = Arc::clone(&self.receipts);
        let limit = limit.min(200) as usize;
        let read = move || log.before(before_ms.unwrap_or(i64::MAX), limit);
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| internal("the receipts could not be read"))?
            .map_err(|e| internal(told_with_causes(&e)))
    }

    fn preferences_set(&self, preferences: Preferences) -> Result<(), ErrorBody> {
        self.preferences_file.save(&preferences).map_err(|e| internal(told_with_causes(&e)))?;
        *lock(&self.preferences) = preferences;
        Ok(())
    }
}

/// The library. One that is not there keeps nothing from starting: the window tells it.
fn open_library(dirs: &Dirs) -> ModelStore {
    if let Err(error) = dirs.create_models() {
        tracing::warn!("{}", told_with_causes(&error));
    }
    ModelStore::open_as_is(&dirs.models)
}

/// A lock that outlives a panic: every guarded value is whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn internal(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, message).with_hint("run `neurino doctor`")
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
