//! What an application is started with, and what can keep it from starting.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_chain::Contracts;
use neurino_config::{ConfigError, DeviceSetting, Dirs, KeyStoreSetting, Settings, env};
use neurino_coordinator::Limits;
use neurino_core::told_with_causes;
use neurino_engine::{
    DeviceChoice, Engine, KindOf, MultiEngine, ProcessEngine, ProcessEngineConfig,
};
use neurino_hardware::CardPower;
use neurino_model_store::ModelStore;
use neurino_platform::{Awake, Hotkeys, Surroundings};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::{KeyStoreChoice, OpenIdentity};

use crate::cards::Seat;
use crate::catalogue::CatalogueOptions;
use crate::library::ScrubPace;
use crate::notices::Notifier;
use crate::updates::UpdateOptions;

/// What an application is started with.
pub struct AppOptions {
    /// Its folders.
    pub dirs: Dirs,
    /// What it is set to.
    pub settings: Settings,
    /// Where models run.
    pub engine: EngineHost,
    /// The model library; the one of the model folder when absent.
    pub store: Option<ModelStore>,
    /// Sizes and waiting times of the practice network.
    pub limits: Limits,
    /// Whether the practice network makes demand of its own while the machine mines.
    pub practice_demand: bool,
    /// Whether another port is taken when the configured one is in use.
    pub any_port: bool,
    /// Where facts of public chains lie.
    pub contracts: Contracts,
    /// What the desktop tells. With it the person's rules hold, and what was on is on again; without
    /// it the caller alone decides when to mine.
    pub surroundings: Option<Box<dyn Surroundings>>,
    /// The cards whose power can be limited; this machine's own when absent.
    pub cards: Option<Arc<dyn CardPower>>,
    /// A file that plays this machine's cards (tests).
    pub card_script: Option<PathBuf>,
    /// What gives keys to programs; without it there is no hotkey.
    pub hotkeys: Option<Arc<dyn Hotkeys>>,
    /// What keeps the computer awake; without it nothing does.
    pub awake: Option<Box<dyn Awake>>,
    /// How newer versions of the program are found and put in place; without it they are not.
    pub updates: Option<UpdateOptions>,
    /// How newer editions of the signed catalogue are found; without it they are not.
    pub catalogue: Option<CatalogueOptions>,
    /// Who shows notifications; without it nobody does.
    pub notifier: Option<Arc<dyn Notifier>>,
    /// When and how fast the model library is read through in the background.
    pub scrub: ScrubPace,
}

impl AppOptions {
    /// The usual ones: the library of the model folder, the network's own limits, no demand of its
    /// own, the configured port or none.
    pub fn new(dirs: Dirs, settings: Settings, engine: EngineHost) -> Self {
        Self {
            dirs,
            settings,
            engine,
            store: None,
            limits: Limits::default(),
            practice_demand: false,
            any_port: false,
            contracts: Contracts::built_in(),
            surroundings: None,
            cards: None,
            card_script: None,
            awake: None,
            updates: None,
            catalogue: None,
            notifier: None,
            hotkeys: None,
            scrub: ScrubPace::default(),
        }
    }
}

/// Where models run.
pub enum EngineHost {
    /// In a child process of this program, which must understand `engine`.
    Process {
        /// The program.
        program: PathBuf,
    },
    /// An engine the caller made (tests).
    Given(Arc<dyn Engine>),
}

impl EngineHost {
    /// The program that runs, if it is the whole one.
    pub(crate) fn program(&self) -> Option<&Path> {
        match self {
            Self::Process { program } => Some(program),
            Self::Given(_) => None,
        }
    }

    /// An engine for each seat, as one together if there are several; their processes start when a
    /// model is first loaded. `kind_of` tells what a model makes.
    pub(crate) fn start(&self, dirs: &Dirs, seats: &[Seat], kind_of: KindOf) -> Arc<dyn Engine> {
        let program = match self {
            Self::Given(engine) => return Arc::clone(engine),
            Self::Process { program } => program,
        };
        let engine = |seat: &Seat| -> Arc<dyn Engine> {
            let mut config = ProcessEngineConfig::new(program, ["engine"], seat.device);
            config.tunings = Some(dirs.tunings());
            // The CUDA code generator looks for libdevice below CUDA_PATH; the package brings it.
            let bundled = dirs.resources.join("cuda");
            if bundled.is_dir() && std::env::var_os("CUDA_PATH").is_none() {
                config.envs.push(("CUDA_PATH".into(), bundled.into()));
            }
            // What a process does not see it cannot take memory of.
            if let Some(cards) = &seat.visible {
                config.envs.push((VISIBLE_CARDS.into(), cards.join(",").into()));
            }
            Arc::new(ProcessEngine::start(config))
        };
        one_or_several(seats, engine, kind_of)
    }
}

/// Says which cards CUDA shows to a process, and in which order.
pub(crate) const VISIBLE_CARDS: &str = "CUDA_VISIBLE_DEVICES";

/// An engine for each seat: as it is if there is one, else as one together.
fn one_or_several(
    seats: &[Seat],
    start: impl Fn(&Seat) -> Arc<dyn Engine>,
    kind_of: KindOf,
) -> Arc<dyn Engine> {
    match seats {
        [one] => start(one),
        several => {
            let engines = several.iter().map(|seat| (start(seat), seat.serves)).collect();
            let cards = several.iter().map(|seat| seat.cards.clone()).collect();
            Arc::new(MultiEngine::with_roles(engines, kind_of).on_cards(cards))
        }
    }
}

/// Why the application cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Folders, settings, or another running app.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity key.
    #[error("the identity key cannot be opened")]
    Wallet(#[from] neurino_wallet::WalletError),
    /// The model library.
    #[error("the model library cannot be opened")]
    Models(#[from] neurino_model_store::StoreError),
    /// The record of receipts.
    #[error("the record of receipts cannot be opened")]
    Receipts(#[from] neurino_earnings::RecordError),
    /// The practice network's coordinator.
    #[error("the practice network cannot start")]
    Coordinator(#[from] neurino_coordinator::CoordinatorError),
    /// The coordinator's address.
    #[error(transparent)]
    Client(#[from] neurino_client::ClientError),
    /// The gateway's port is in use, or may not be used.
    #[error(
        "port {port} on this machine cannot be used for the gateway; choose another one, or 0 for \
         any, with --port or `listen_port` in settings.toml"
    )]
    Port {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the practice network.
    #[error("`{}` cannot be used; check the free space and that this user may write there", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The gateway or its client.
    #[error("the gateway cannot start: {0}")]
    Gateway(ErrorBody),
}

impl StartError {
    /// The error as the window shows it: with its causes, for nothing else tells them.
    pub fn body(&self) -> ErrorBody {
        let body = ErrorBody::new(ErrorCode::Internal, told_with_causes(self));
        match self {
            // They say themselves what helps.
            Self::Config(_) | Self::Port { .. } | Self::File { .. } => body,
            Self::Client(error) => error.body(),
            Self::Gateway(error) => error.clone(),
            _ => body.with_hint("run `neurino doctor`"),
        }
    }
}

/// Where the identity key is looked for.
pub fn identity_options(dirs: &Dirs, settings: &Settings) -> OpenIdentity {
    OpenIdentity {
        preference: match settings.identity.key_store {
            KeyStoreSetting::Auto => KeyStoreChoice::Auto,
            KeyStoreSetting::Os => KeyStoreChoice::Os,
            KeyStoreSetting::File => KeyStoreChoice::File,
        },
        passphrase_file: env::var(env::PASSPHRASE_FILE).map(PathBuf::from),
        ..OpenIdentity::new(&dirs.data)
    }
}

/// The engine's word for the device of the settings.
pub fn device_choice(setting: DeviceSetting) -> DeviceChoice {
    match setting {
        DeviceSetting::Auto => DeviceChoice::Auto,
        DeviceSetting::Cpu => DeviceChoice::Cpu,
        DeviceSetting::Cuda(index) => DeviceChoice::Cuda(index),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io;

    use neurino_core::ModelId;
    use neurino_engine::{EngineStatus, ModelRef, PlaceCards, Serves};
    use neurino_testkit::ScriptedEngine;

    use super::*;

    #[tokio::test]
    async fn two_engines_hold_two_models_and_one_is_left_as_it_is() {
        let model = |name: &str| ModelRef::new(ModelId::new(name).unwrap(), name);
        let both = [ScriptedEngine::answering("a"), ScriptedEngine::answering("b")];
        let start = |seat: &Seat| -> Arc<dyn Engine> {
            Arc::new(both[usize::from(seat.device != DeviceChoice::Auto)].clone())
        };
        let cards = PlaceCards::default;
        let seat = |device| Seat { device, visible: None, serves: Serves::BOTH, cards: cards() };
        let one = one_or_several(&[seat(DeviceChoice::Auto)], start, Box::new(|_| None));
        assert_eq!(one.places(), 1);
        let seats = [seat(DeviceChoice::Auto), seat(DeviceChoice::Cuda(1))];
        let several = one_or_several(&seats, start, Box::new(|_| None));
        assert_eq!(several.places(), 2);
        for name in ["one", "two", "one"] {
            several.load(&model(name)).await.unwrap();
        }
        assert_eq!(both.each_ref().map(ScriptedEngine::loads), [1, 1], "neither is loaded again");
        let status = several.status().borrow().clone();
        assert!(matches!(status, EngineStatus::Ready(m) if m.id == model("one").id));
    }

    #[test]
    fn a_start_error_tells_its_causes_once() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let error = StartError::Port { port: 80, source: denied() };
        let body = error.body();
        assert!(body.message.ends_with("settings.toml: permission denied"), "{}", body.message);
        assert_eq!(body.hint, None);

        let path = PathBuf::from("/x/receipts.jsonl");
        let record = neurino_earnings::RecordError::Io { doing: "open", path, source: denied() };
        let body = StartError::Receipts(record).body();
        let expect = "the record of receipts cannot be opened: cannot open /x/receipts.jsonl: \
                      permission denied";
        assert_eq!(body.message, expect);
        assert_eq!(body.hint.as_deref(), Some("run `neurino doctor`"));
    }
}
