//! Whom this machine works for: the practice network inside this program, or a coordinator
//! elsewhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_client::{ClientError, Device, HttpCoordinator, OriginalCoordinator, OriginalOptions};
use neurino_config::settings::NetworkSettings;
use neurino_config::{NetworkSetting, ProtocolSetting, Settings, env};
use neurino_coordinator::{Coordinator, CoordinatorConfig, Limits};
use neurino_core::{ImageDefaults, ModelId};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::load_or_create_named;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::chat::Gateway;
use crate::{StartError, told_with_causes};

/// The network a machine works for.
pub(crate) enum Network {
    /// The coordinator runs in this process.
    Practice(Practice),
    /// It runs elsewhere.
    Remote { coordinator: Arc<dyn neurino_client::Coordinator>, url: String },
}

/// The practice network.
pub(crate) struct Practice {
    coordinator: Arc<Coordinator>,
    gateway: Gateway,
    stop: CancellationToken,
    server: TaskTracker,
}

/// Name of the file in the data folder with the key of this machine's sessions.
const DEVICE_KEY: &str = "device";

/// A coordinator elsewhere, in the protocol it speaks.
async fn remote(
    data: &Path,
    url: &str,
    settings: &Settings,
) -> Result<Arc<dyn neurino_client::Coordinator>, StartError> {
    match settings.network.protocol {
        ProtocolSetting::Neurino => {
            let passphrase_file = env::var(env::PASSPHRASE_FILE).map(PathBuf::from);
            let key = load_or_create_named(data, DEVICE_KEY, passphrase_file.as_deref()).await?;
            let device = Device::new(key.copy());
            Ok(Arc::new(HttpCoordinator::new(url)?.with_device(device)))
        }
        ProtocolSetting::Original => {
            let options = original_options(url, &settings.network);
            Ok(Arc::new(OriginalCoordinator::new(&options)?))
        }
    }
}

fn original_options(url: &str, settings: &NetworkSettings) -> OriginalOptions {
    let asked = settings.original.clone();
    OriginalOptions {
        url: url.to_owned(),
        signal_url: asked.signal_url,
        upload_url: asked.upload_url,
        reward: asked.reward_wallet,
    }
}

/// Why a node would not even try a coordinator's address.
pub(crate) fn refused_address(url: &str, settings: &NetworkSettings) -> Option<ClientError> {
    match settings.protocol {
        ProtocolSetting::Neurino => HttpCoordinator::new(url).err(),
        ProtocolSetting::Original => {
            OriginalCoordinator::new(&original_options(url, settings)).err()
        }
    }
}

impl Network {
    /// `data` is the program's data folder, `limits` and the models are the practice network's.
    pub(crate) async fn open(
        data: &Path,
        settings: &Settings,
        limits: Limits,
        any_port: bool,
        own_models: Vec<ModelId>,
        image_models: BTreeMap<ModelId, ImageDefaults>,
    ) -> Result<Self, StartError> {
        match &settings.network.coordinator {
            NetworkSetting::Practice => {
                let folder = data.join("practice");
                let port = settings.gateway.listen_port;
                let opened =
                    Practice::open(&folder, limits, port, any_port, own_models, image_models);
                opened.await.map(Self::Practice)
            }
            NetworkSetting::Coordinator(url) => {
                let coordinator = remote(data, url, settings).await?;
                Ok(Self::Remote { coordinator, url: url.clone() })
            }
        }
    }

    /// The coordinator, as the miner sees it.
    pub(crate) fn for_miner(&self) -> Arc<dyn neurino_client::Coordinator> {
        match self {
            Self::Practice(practice) => Arc::new(practice.coordinator.local()),
            Self::Remote { coordinator, .. } => Arc::clone(coordinator),
        }
    }

    /// A name for people: the practice network's, or the coordinator's host.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Practice(practice) => practice.coordinator.network(),
            Self::Remote { url, .. } => url.split("://").nth(1).unwrap_or(url),
        }
    }

    /// The folder, below the data folder, that keeps this network's records apart from others'.
    pub(crate) fn folder(&self) -> String {
        match self {
            Self::Practice(_) => "practice".into(),
            Self::Remote { .. } => {
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
                format!("network-{}", self.name().chars().map(plain).collect::<String>())
            }
        }
    }

    pub(crate) fn is_practice(&self) -> bool {
        matches!(self, Self::Practice(_))
    }

    pub(crate) fn practice(&self) -> Option<&Arc<Coordinator>> {
        match self {
            Self::Practice(practice) => Some(&practice.coordinator),
            Self::Remote { .. } => None,
        }
    }

    /// The gateway this program may ask.
    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        match self {
            Self::Practice(practice) => Some(&practice.gateway),
            Self::Remote { .. } => None,
        }
    }

    pub(crate) async fn shutdown(&self) {
        if let Self::Practice(practice) = self {
            practice.stop.cancel();
            practice.coordinator.shutdown().await;
            practice.server.close();
            practice.server.wait().await;
        }
    }
}

impl Practice {
    async fn open(
        folder: &Path,
        limits: Limits,
        port: u16,
        any_port: bool,
        own_models: Vec<ModelId>,
        image_models: BTreeMap<ModelId, ImageDefaults>,
    ) -> Result<Self, StartError> {
        std::fs::create_dir_all(folder).map_err(file_error(folder))?;
        let listener = listen(port, any_port).await?;
        let address = listener.local_addr().map_err(|source| StartError::Port { port, source })?;
        let key = neurino_wallet::load_or_create_named(folder, "coordinator", None).await?;
        let config = CoordinatorConfig::practice(folder.join("coordinator.sqlite"), key);
        let coordinator = Coordinator::open(CoordinatorConfig {
            limits,
            own_models,
            image_models,
            // A key that somebody deleted costs what waited here; it must not keep them from mining.
            new_payload_key: true,
            ..config
        })
        .await?;
        let api_key = gateway_key(&coordinator, &folder.join("gateway-key")).await?;
        let gateway = Gateway {
            base_url: format!("http://{address}/v1"),
            api_key: api_key.into(),
            http: reqwest::Client::builder()
                // Only ever talks to this machine; a proxy for the internet must not get in between.
                .no_proxy()
                .build()
                .map_err(|e| gateway_error(&e))?,
        };
        let stop = CancellationToken::new();
        let server = TaskTracker::new();
        server.spawn({
            let (coordinator, stop) = (Arc::clone(&coordinator), stop.clone());
            async move {
                if let Err(error) = coordinator.serve(listener, stop).await {
                    warn!("the practice network's gateway ended: {error}");
                }
            }
        });
        Ok(Self { coordinator, gateway, stop, server })
    }
}

impl Drop for Practice {
    fn drop(&mut self) {
        // A start that failed later leaves no server behind.
        self.stop.cancel();
    }
}

async fn listen(port: u16, any_port: bool) -> Result<TcpListener, StartError> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Err(error) if any_port && port != 0 => {
            warn!("port {port} is taken ({error}); the gateway takes another one");
            let any = TcpListener::bind(("127.0.0.1", 0)).await;
            any.map_err(|source| StartError::Port { port: 0, source })
        }
        bound => bound.map_err(|source| StartError::Port { port, source }),
    }
}

/// The Playground's key, kept beside the coordinator's books. The file holds the key's id and its
/// secret; a key the books do not know (they were deleted, or the file was cut short) is replaced.
async fn gateway_key(coordinator: &Arc<Coordinator>, path: &Path) -> Result<String, StartError> {
    if let Ok(text) = std::fs::read_to_string(path)
        && let Some((_, secret)) = text.trim().split_once(' ')
        && coordinator.knows_api_key(secret)
    {
        return Ok(secret.to_owned());
    }
    let key = coordinator.create_api_key("playground").await.map_err(StartError::Gateway)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| write!(file, "{} {}", key.info.id, key.expose_secret()))
        .map_err(file_error(path))?;
    Ok(key.expose_secret().to_owned())
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { path, source }
}

fn gateway_error(error: &dyn std::error::Error) -> StartError {
    StartError::Gateway(ErrorBody::new(ErrorCode::Internal, told_with_causes(error)))
}
