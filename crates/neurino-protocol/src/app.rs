//! The window's contract: commands in, replies and events out.
//!
//! The same enums serve the desktop window (one Tauri command) and, later, remote viewers. State
//! travels as one [`Snapshot`], pushed whole whenever something changes; the view never adds up
//! events. Amounts are micro-points, times are milliseconds, sizes are bytes.

use neurino_control::{Alert, Entry, Order, Rules};
use neurino_core::{
    ChatMessage, ImageDefaults, ImageJob, JobId, JobKind, MicroPoints, ModelId, Png, Receipt, Usage,
};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::alerts::{AlertsCommand, AlertsView};
use crate::cards::CardChoice;
use crate::catalogue::{CatalogueCommand, CatalogueView};
use crate::control::{ControlStatus, RulesView};
use crate::data::DataPlace;
use crate::earnings::{EarningsAnswer, EarningsAsk};
use crate::error::ErrorBody;
use crate::filter::{FilterCommand, FilterView};
use crate::hotkey::{HotkeyCommand, HotkeyView};
use crate::library::{LibraryAction, LibraryStatus};
use crate::notices::{NoticeSettings, NoticesCommand};
use crate::onboarding::{OnboardingCommand, OnboardingView};
use crate::own_model::{OwnModelCommand, OwnModelView};
use crate::power::{PowerCommand, PowerView};
use crate::saying::MiningSaying;
use crate::update::{UpdateCommand, UpdateStatus, UpdateView};
use crate::wallet::{WalletCommand, WalletReply};

/// What the window can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "cmd", content = "payload", rename_all = "snake_case")]
pub enum Command {
    /// Everything the window shows; answered with [`Reply::Snapshot`].
    Snapshot,
    /// Starts mining and returns at once; progress follows as events.
    MiningStart,
    /// Stops mining.
    MiningStop {
        /// Whether the running job may finish first.
        mode: StopMode,
    },
    /// What the person orders beyond Start and Stop: pauses, and letting the rules decide.
    MiningOrder {
        /// The order.
        order: Order,
    },
    /// The rules of mining; answered with [`Reply::Rules`].
    Rules,
    /// Replaces the rules of mining; answered with [`Reply::Rules`].
    RulesSet {
        /// All of them.
        rules: Box<Rules>,
    },
    /// The last decisions about mining; answered with [`Reply::Decisions`].
    Decisions,
    /// Fetches and verifies a model of the catalogue; progress follows as events.
    ModelFetch {
        /// The model.
        model: ModelId,
    },
    /// Downloads, the drive and the library as a whole.
    Library(LibraryAction),
    /// A person's own model; [`OwnModelCommand::Look`] is answered with [`Reply::OwnModel`].
    OwnModel(OwnModelCommand),
    /// The network's lists and the signed catalogue; answered with [`Reply::Catalogue`].
    Catalogue(CatalogueCommand),
    /// Sends a conversation to the network; the answer follows as [`Event::Chat`].
    ChatSend {
        /// Chosen by the caller; names the answer's events.
        chat: String,
        /// The model.
        model: ModelId,
        /// The conversation, oldest first.
        messages: Vec<ChatMessage>,
        /// 0 to 2.
        temperature: f32,
        /// Most tokens to generate.
        max_tokens: u32,
    },
    /// Withdraws a conversation's running request.
    ChatCancel {
        /// The name given to [`Command::ChatSend`].
        chat: String,
    },
    /// Asks the network for a picture; it follows as [`Event::Picture`].
    PictureSend {
        /// Chosen by the caller; names the picture's events.
        picture: String,
        /// What to make. Its `preview` is set by the application.
        job: ImageJob,
    },
    /// Withdraws a picture's running request.
    PictureCancel {
        /// The name given to [`Command::PictureSend`].
        picture: String,
    },
    /// Writes a picture to the person's folder of pictures; answered with [`Reply::Saved`].
    PictureSave {
        /// The picture.
        png: Png,
        /// What it was made with, if the file is to say so.
        #[serde(default)]
        settings: Option<ImageJob>,
    },
    /// Receipts, newest first.
    Receipts {
        /// Only those settled before this time, in milliseconds since the Unix epoch.
        #[ts(type = "number | null")]
        before_ms: Option<i64>,
        /// At most so many, up to 200.
        limit: u32,
    },
    /// Asks about earnings, history, sensors or logs; answered with [`Reply::Earnings`].
    Earnings {
        /// What is asked.
        about: EarningsAsk,
    },
    /// Where everything lies on this machine; answered with [`Reply::Data`].
    Data,
    /// Checks this machine; answered with [`Reply::Doctor`].
    Doctor,
    /// Reads the preferences.
    Preferences,
    /// Replaces the preferences.
    PreferencesSet {
        /// All of them.
        preferences: Preferences,
    },
    /// Identity, reward address and chains; answered with [`Reply::Wallet`].
    Wallet(WalletCommand),
    /// The guide of the first start; answered with [`Reply::Onboarding`].
    Onboarding(OnboardingCommand),
    /// Limits of cards and sleep; answered with [`Reply::Power`].
    Power(PowerCommand),
    /// What the person is told about; answered with [`Reply::Alerts`].
    Alerts(AlertsCommand),
    /// Newer versions of the program; answered with [`Reply::Update`].
    Update(UpdateCommand),
    /// The desktop's notifications; answered with [`Reply::Notices`].
    Notices(NoticesCommand),
    /// The key that pauses and resumes; answered with [`Reply::Hotkey`].
    Hotkey(HotkeyCommand),
    /// Which jobs this machine's operator leaves to others.
    Filter(FilterCommand),
    /// Whether and what for a card is used, and its name. Running jobs are finished first.
    CardChoose {
        /// The card's [`Device::card`].
        card: String,
        /// All of the choice.
        choice: CardChoice,
    },
    /// Something only the shell around the page can do. The desktop shell answers it itself and
    /// never passes it on; an application without a window refuses it as `InvalidRequest`.
    Window {
        /// What to do with the window.
        action: WindowAction,
    },
}

/// What the shell does with its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum WindowAction {
    /// Close the window and go on in the tray.
    Hide,
    /// Stop mining and end the program.
    Quit,
    /// Let the person choose a file; answered with [`Reply::Chosen`].
    ChooseFile,
    /// Let the person choose a folder; answered with [`Reply::Chosen`].
    ChooseFolder,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Finish the running job, take no other.
    Finish,
    /// Hand the running job back within two seconds.
    Now,
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "reply", content = "payload", rename_all = "snake_case")]
pub enum Reply {
    /// Done, or begun; events tell the rest.
    Ok,
    /// Answer to [`Command::Snapshot`].
    Snapshot(Box<Snapshot>),
    /// Answer to [`Command::PictureSave`].
    Saved {
        /// Where it lies now.
        path: String,
    },
    /// Answer to [`Command::Rules`] and [`Command::RulesSet`].
    Rules(Box<RulesView>),
    /// Answer to [`Command::Decisions`]: newest first.
    Decisions(Vec<Entry>),
    /// Answer to [`Command::Receipts`].
    Receipts(Vec<Receipt>),
    /// Answer to [`Command::Earnings`].
    Earnings(EarningsAnswer),
    /// Answer to [`Command::Doctor`].
    Doctor(Vec<Check>),
    /// Answer to [`Command::Preferences`].
    Preferences(Preferences),
    /// Answer to [`Command::Wallet`].
    Wallet(Box<WalletReply>),
    /// Answer to [`Command::Onboarding`].
    Onboarding(OnboardingView),
    /// Answer to [`Command::Power`].
    Power(Box<PowerView>),
    /// Answer to [`Command::Alerts`].
    Alerts(Box<AlertsView>),
    /// Answer to [`Command::Update`].
    Update(Box<UpdateView>),
    /// Answer to [`Command::Notices`].
    Notices(NoticeSettings),
    /// Answer to [`Command::Hotkey`].
    Hotkey(HotkeyView),
    /// Answer to [`Command::Filter`].
    Filter(FilterView),
    /// Answer to [`Command::Data`].
    Data(Vec<DataPlace>),
    /// Answer to [`OwnModelCommand::Look`].
    OwnModel(Box<OwnModelView>),
    /// Answer to [`Command::Catalogue`].
    Catalogue(Box<CatalogueView>),
    /// Answer to [`WindowAction::ChooseFile`] and [`WindowAction::ChooseFolder`].
    Chosen {
        /// The whole path; `None` if the person chose nothing.
        path: Option<String>,
    },
}

/// What happened, pushed to every viewer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "event", content = "payload", rename_all = "snake_case")]
pub enum Event {
    /// The state changed (at most ten times a second).
    Snapshot(Box<Snapshot>),
    /// A job was paid.
    Settled(Box<Receipt>),
    /// A conversation's answer advanced.
    Chat {
        /// The name given to [`Command::ChatSend`].
        chat: String,
        /// What happened.
        update: ChatUpdate,
    },
    /// A picture advanced.
    Picture {
        /// The name given to [`Command::PictureSend`].
        picture: String,
        /// What happened.
        update: PictureUpdate,
    },
    /// The person closed the window while `on_close` is [`OnClose::Ask`]. Sent by the desktop
    /// shell alone; the page asks, saves the choice with [`Command::PreferencesSet`] and answers
    /// with [`Command::Window`].
    CloseRequested,
}

/// One step of a conversation's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChatUpdate {
    /// The request is on its way; nobody works on it yet. A refusal follows as `Failed`.
    Queued,
    /// More text.
    Delta {
        /// The text.
        text: String,
    },
    /// The answer is complete.
    Done {
        /// Tokens read and written.
        usage: Usage,
        /// From sending to the last token, in milliseconds.
        #[ts(type = "number")]
        duration_ms: u64,
    },
    /// No answer, or no more of it.
    Failed {
        /// Why, and what to do.
        error: ErrorBody,
    },
}

/// One step of a picture that is being made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PictureUpdate {
    /// The request is on its way; nobody works on it yet. A refusal follows as `Failed`.
    Queued,
    /// What it looks like so far.
    Preview {
        /// Small.
        png: Png,
    },
    /// The picture is complete.
    Done {
        /// The picture.
        png: Png,
        /// From sending to the last byte, in milliseconds.
        #[ts(type = "number")]
        duration_ms: u64,
    },
    /// No picture.
    Failed {
        /// Why, and what to do.
        error: ErrorBody,
    },
}

/// Everything the window shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Snapshot {
    /// Version of the program.
    pub version: String,
    /// The network this machine works for.
    pub network: NetworkStatus,
    /// What the miner does, and why.
    pub mining: MiningStatus,
    /// Whether it may mine, and what decides that.
    pub control: ControlStatus,
    /// What the person should know, most urgent first.
    pub alerts: Vec<Alert>,
    /// Whether a newer version of the program waits.
    pub update: UpdateStatus,
    /// Points of this machine's identity on this network.
    pub points: PointsSummary,
    /// The devices of this machine; the one that computes first.
    pub devices: Vec<Device>,
    /// The job in work.
    pub job: Option<CurrentJob>,
    /// Models of the catalogue.
    pub models: Vec<ModelStatus>,
    /// The library that keeps them.
    pub library: LibraryStatus,
    /// The last receipts, newest first, at most 20.
    pub receipts: Vec<Receipt>,
    /// Public address of the identity key.
    pub identity: String,
}

/// The network this machine works for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Whether it is the built-in practice network of this machine.
    pub practice: bool,
    /// Whether the miner is connected to it.
    pub connected: bool,
    /// Base URL of its OpenAI-compatible gateway, for example `http://127.0.0.1:43110/v1`.
    pub gateway_url: Option<String>,
}

/// What the miner does, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct MiningStatus {
    /// The state.
    pub state: MiningState,
    /// One sentence for people: what it does and, if it does nothing, why and what helps.
    pub sentence: String,
    /// The same as data, to be said in another language.
    pub said: MiningSaying,
    /// Since when, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub since_ms: i64,
    /// What needs the person's attention.
    pub problem: Option<ErrorBody>,
}

/// What the miner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum MiningState {
    /// Not mining; the person has not started it or has stopped it.
    Stopped,
    /// Fetching and checking a model, loading it, connecting.
    Starting,
    /// Connected, waiting for a job.
    Waiting,
    /// Computing a job.
    Working,
    /// Finishing the running job, then stopping.
    Finishing,
    /// Kept from running by a rule, or paused by the person; the decision says until when.
    Paused,
    /// Cannot go on without the person; `problem` says why.
    NeedsYou,
}

/// Points of one identity on one network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PointsSummary {
    /// Llama points since local midnight.
    pub llama_today: MicroPoints,
    /// Llama points in all.
    pub llama_total: MicroPoints,
    /// Waifu points since local midnight.
    pub waifu_today: MicroPoints,
    /// Waifu points in all.
    pub waifu_total: MicroPoints,
    /// Jobs paid since local midnight.
    pub jobs_today: u32,
    /// Jobs paid in all.
    pub jobs_total: u32,
}

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Device {
    /// Names this very device on this machine: a card's UUID, or [`crate::cards::PROCESSOR`].
    pub card: String,
    /// What the person calls it, else its maker's name.
    pub name: String,
    /// Its maker's name, where the person gave it another one.
    pub product: Option<String>,
    /// What the person chose for it; `None` where there is no choice.
    pub choice: Option<CardChoice>,
    /// It was here and does not answer any more.
    pub gone: bool,
    /// The choice takes effect when the running jobs are finished.
    pub pending: bool,
    /// What it is.
    pub kind: DeviceKind,
    /// Whether jobs run on it.
    pub in_use: bool,
    /// Why it is not used, or what to know about it, in one sentence.
    pub note: Option<String>,
    /// Its memory in bytes.
    #[ts(type = "number")]
    pub memory_bytes: u64,
    /// Memory in use by anybody, in bytes.
    #[ts(type = "number")]
    pub memory_used_bytes: u64,
    /// 0 to 100.
    pub load_percent: Option<f32>,
    /// Degrees Celsius.
    pub temperature_c: Option<f32>,
    /// The hottest place of its memory, in degrees Celsius, where the driver tells it.
    pub memory_temperature_c: Option<f32>,
    /// Watts.
    pub power_w: Option<f32>,
    /// The limit that this program holds on its power, in watts.
    pub limit_w: Option<u32>,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A graphics card.
    Gpu,
    /// The processor.
    Cpu,
}

/// The job in work; of several, the oldest that is being computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct CurrentJob {
    /// The job.
    pub job: JobId,
    /// What it makes.
    pub kind: JobKind,
    /// Its model.
    pub model: ModelId,
    /// What happens to it now.
    pub stage: JobStage,
    /// Tokens generated, or steps of the picture done.
    pub done: u32,
    /// Most tokens it may generate, or all steps of the picture.
    pub of: u32,
    /// Since the lease was received, in milliseconds.
    #[ts(type = "number")]
    pub elapsed_ms: u64,
    /// Milliseconds from receipt after which it earns nothing.
    #[ts(type = "number")]
    pub budget_ms: u64,
    /// How long it will take in all, told from others of its model, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional, type = "number")]
    pub estimate_ms: Option<u64>,
    /// Jobs in work, this one included.
    pub jobs: u32,
}

/// What happens to a job on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum JobStage {
    /// The model is being loaded.
    Loading,
    /// It is being computed.
    Running,
    /// The result is on its way.
    Sending,
}

/// A model of the catalogue, as this machine has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ModelStatus {
    /// Its id.
    pub id: ModelId,
    /// Its name for people.
    pub name: String,
    /// One sentence about it.
    pub summary: String,
    /// What it makes.
    pub kind: JobKind,
    /// What suits it, if it makes pictures.
    pub image: Option<ImageDefaults>,
    /// Size of its files in bytes.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// SPDX licence id.
    pub licence: String,
    /// Where it stands.
    pub state: ModelState,
    /// What went wrong with it last.
    pub problem: Option<ErrorBody>,
}

/// Where a model stands on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ModelState {
    /// Not on this machine.
    Absent,
    /// Being fetched or checked.
    Fetching {
        /// Bytes done.
        #[ts(type = "number")]
        done_bytes: u64,
        /// Bytes in all.
        #[ts(type = "number")]
        total_bytes: u64,
    },
    /// On this machine, digests verified.
    Ready,
    /// In memory, ready to answer.
    Loaded,
}

/// One line of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Check {
    /// What was checked, for example `GPU driver`.
    pub name: String,
    /// How it stands.
    pub status: CheckStatus,
    /// What was found, one sentence.
    pub finding: String,
    /// What to do, if anything.
    pub fix: Option<String>,
}

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// Fine.
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Does not work.
    Fail,
}

/// The window's preferences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    /// Colours.
    pub theme: Theme,
    /// What closing the window does; asked once.
    pub on_close: OnClose,
    /// The language of window, tray and notifications.
    pub language: Language,
}

impl Default for Preferences {
    fn default() -> Self {
        Self { theme: Theme::System, on_close: OnClose::Ask, language: Language::System }
    }
}

/// Colours of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the desktop.
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// The language of everything a person reads in the window and the tray.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// The desktop's, where there is a catalogue of it; else English.
    System,
    /// English.
    English,
    /// German.
    German,
}

/// What closing the window does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum OnClose {
    /// Ask the first time.
    Ask,
    /// Keep mining in the tray.
    Tray,
    /// Stop and quit.
    Quit,
}
