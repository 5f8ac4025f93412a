//! What the program is set to: defaults, then `settings.toml`, then the environment.
//!
//! Values are checked when they are read, so that the rest of the program holds domain types
//! and never a string that may be wrong.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cards::CardChoices;
use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::{atomic, env};

/// The settings file with every key, its default and a word about it.
pub const TEMPLATE: &str = include_str!("settings.toml");

/// What the program is set to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The network to work for.
    pub network: NetworkSettings,
    /// Where jobs are computed.
    pub engine: EngineSettings,
    /// What each card is used for.
    pub cards: CardChoices,
    /// Which jobs are computed.
    pub jobs: JobSettings,
    /// Where the identity key lies.
    pub identity: IdentitySettings,
    /// The OpenAI-compatible gateway of this machine.
    pub gateway: GatewaySettings,
    /// Newer versions of the program.
    pub update: UpdateSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
}

/// The network to work for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSettings {
    /// The practice network, or a coordinator's URL.
    pub coordinator: NetworkSetting,
    /// Id of the frontend through which this machine's owner came: its jobs prefer this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referred_by: Option<String>,
    /// What the coordinator at that URL speaks.
    pub protocol: ProtocolSetting,
    /// What only the original protocol asks for.
    pub original: OriginalSettings,
}

/// What only the original protocol asks for. All of it has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginalSettings {
    /// The address that is paid, `0x` and 40 hex digits; without it that of the identity key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_wallet: Option<String>,
    /// Base URL of the signal, if it is another one than the coordinator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_url: Option<String>,
    /// An S3 endpoint for pictures, if it is not Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_url: Option<String>,
}

/// Where jobs are computed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// The device.
    pub device: DeviceSetting,
}

/// Which jobs are computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// Whether [`JobSettings::refuse_words`] are looked for. What is left open is yes, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse: Option<bool>,
    /// Jobs whose prompts hold one of these words or phrases are left to others.
    pub refuse_words: Vec<String>,
    /// Whether the network may say which of the models on this machine is loaded next, or that none needs
    /// to be. Jobs come for all of them either way.
    pub follow_network: bool,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self { refuse: None, refuse_words: Vec::new(), follow_network: true }
    }
}

impl JobSettings {
    /// Whether jobs are refused for their words: off unless the operator wants it.
    pub fn refuses(&self) -> bool {
        self.refuse.unwrap_or(true) && !self.refuse_words.is_empty()
    }
}

/// Where the identity key lies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySettings {
    /// The store.
    pub key_store: KeyStoreSetting,
}

/// The OpenAI-compatible gateway of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Port on 127.0.0.1; 0 lets the system choose.
    pub listen_port: u16,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self { listen_port: 43110 }
    }
}

/// Newer versions of the program. An empty text is what this build was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateSettings {
    /// Where the signed list of versions lies: the URL or the path of a folder.
    pub source: String,
    /// The Ed25519 key that signs it, 64 hexadecimal digits.
    pub key: String,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// A tracing filter, for example `info,neurino_miner=debug`.
    pub log_filter: String,
    /// Daily log files to keep.
    pub log_days_max: u16,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { log_filter: "info".to_owned(), log_days_max: 7 }
    }
}

/// The network to work for. In text: `practice`, or the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkSetting {
    /// The network inside this program: its coordinator runs in the same process.
    #[default]
    Practice,
    /// A coordinator elsewhere: an `http` or `https` URL without a trailing slash.
    Coordinator(String),
}

/// What a coordinator speaks. In text: `neurino`, `original`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolSetting {
    /// This program's own protocol.
    #[default]
    Neurino,
    /// The protocol of the network that was there first.
    Original,
}

/// The device that computes. In text: `auto`, `cpu`, `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSetting {
    /// The first usable NVIDIA card, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA card by index.
    Cuda(u32),
}

/// Where the identity key lies. In text: `auto`, `os`, `file`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyStoreSetting {
    /// The system's key store where there is one, else the file.
    #[default]
    Auto,
    /// The system's key store and nothing else.
    Os,
    /// A file in the data folder.
    File,
}

/// A settings text that names nothing known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct UnknownValue(pub &'static str);

const NETWORKS: &str = "`practice`, or an http(s) URL such as `https://pool.example`";
const DEVICES: &str = "`auto`, `cpu` or `cuda:N` with a card number";
const KEY_STORES: &str = "`auto`, `os` or `file`";
const PORTS: &str = "expected a port number from 0 to 65535";

impl FromStr for NetworkSetting {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        let text = text.trim();
        if text == "practice" {
            return Ok(Self::Practice);
        }
        let unknown = || UnknownValue(NETWORKS);
        let url = url::Url::parse(text).map_err(|_| unknown())?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            // Credentials in a URL end up in logs; a token has its own place.
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !plain {
            return Err(unknown());
        }
        Ok(Self::Coordinator(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl FromStr for DeviceSetting {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            other => other
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or(UnknownValue(DEVICES)),
        }
    }
}

impl FromStr for KeyStoreSetting {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "os" => Ok(Self::Os),
            "file" => Ok(Self::File),
            _ => Err(UnknownValue(KEY_STORES)),
        }
    }
}

impl fmt::Display for NetworkSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Practice => f.write_str("practice"),
            Self::Coordinator(url) => f.write_str(url),
        }
    }
}

impl fmt::Display for DeviceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl fmt::Display for KeyStoreSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Os => "os",
            Self::File => "file",
        })
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = UnknownValue;
            fn try_from(text: String) -> Result<Self, UnknownValue> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(NetworkSetting, DeviceSetting, KeyStoreSetting);

impl Settings {
    /// Where the file lies.
    pub fn path(dirs: &Dirs) -> PathBuf {
        dirs.config.join("settings.toml")
    }

    /// What holds for this start: defaults, the file, the environment.
    ///
    /// # Errors
    /// As [`Settings::read`]; [`ConfigError::InvalidValue`] naming the variable.
    pub fn load(dirs: &Dirs) -> Result<Self, ConfigError> {
        let mut settings = Self::read(dirs)?;
        settings.apply(&env::var)?;
        Ok(settings)
    }

    /// What the file says, defaults where it is silent or absent. This is what [`Settings::save`]
    /// may write back: a variable of one start never ends up in the file.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::NotUtf8`], [`ConfigError::ParseSettings`] with line and key.
    pub fn read(dirs: &Dirs) -> Result<Self, ConfigError> {
        let path = Self::path(dirs);
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|source| ConfigError::ParseSettings { path, source: Box::new(source) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::read(path, source)),
        }
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, dirs: &Dirs) -> Result<(), ConfigError> {
        let path = Self::path(dirs);
        let text = toml::to_string_pretty(self).map_err(|error| ConfigError::Write {
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        atomic::write(&path, text.as_bytes()).map_err(|source| ConfigError::Write { path, source })
    }

    /// Lets variables win over the file; `lookup` answers as [`env::var`] does.
    pub(crate) fn apply(
        &mut self,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<(), ConfigError> {
        set(&mut self.network.coordinator, env::NETWORK, lookup, NETWORKS)?;
        set(&mut self.engine.device, env::DEVICE, lookup, DEVICES)?;
        set(&mut self.identity.key_store, env::KEY_STORE, lookup, KEY_STORES)?;
        set(&mut self.gateway.listen_port, env::GATEWAY_PORT, lookup, PORTS)?;
        set(&mut self.update.source, env::UPDATE_SOURCE, lookup, "expected a URL or a path")?;
        set(&mut self.update.key, env::UPDATE_KEY, lookup, "expected 64 hexadecimal digits")?;
        set(&mut self.telemetry.log_filter, env::LOG, lookup, "expected a tracing filter")
    }
}

/// Replaces `value` by what a variable says, if it is set.
fn set<T: FromStr>(
    value: &mut T,
    name: &str,
    lookup: &dyn Fn(&str) -> Option<OsString>,
    rule: &'static str,
) -> Result<(), ConfigError> {
    let Some(text) = lookup(name) else {
        return Ok(());
    };
    let text = text.to_string_lossy();
    *value = text.trim().parse().map_err(|_| ConfigError::invalid(name, &text, rule))?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::error::Error;

    use super::*;

    fn dirs() -> (tempfile::TempDir, Dirs) {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        (home, dirs)
    }

    fn refused(text: &str) -> String {
        let (_home, dirs) = dirs();
        std::fs::write(Settings::path(&dirs), text).unwrap();
        let error = Settings::read(&dirs).unwrap_err();
        assert!(error.to_string().contains("settings.toml"), "{error}");
        error.source().unwrap().to_string()
    }

    #[test]
    fn the_template_holds_every_default() {
        assert_eq!(toml::from_str::<Settings>(TEMPLATE).unwrap(), Settings::default());
        let keys = |text: &str| {
            let table: toml::Table = text.parse().unwrap();
            let keys = table.iter().flat_map(|(section, values)| {
                let values = values.as_table().unwrap().keys();
                values.map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
            });
            keys.collect::<std::collections::BTreeSet<_>>()
        };
        let written = toml::to_string(&Settings::default()).unwrap();
        assert_eq!(keys(TEMPLATE), keys(&written));
    }

    #[test]
    fn without_a_file_the_defaults_hold_and_a_save_reads_back() {
        let (_home, dirs) = dirs();
        let mut settings = Settings::read(&dirs).unwrap();
        assert_eq!(settings, Settings::default());
        settings.network.coordinator = "https://pool.example/".parse().unwrap();
        settings.engine.device = DeviceSetting::Cuda(1);
        settings.identity.key_store = KeyStoreSetting::File;
        settings.gateway.listen_port = 0;
        settings.save(&dirs).unwrap();
        assert_eq!(Settings::read(&dirs).unwrap(), settings);
        assert_eq!(settings.network.coordinator.to_string(), "https://pool.example");
    }

    #[test]
    fn a_part_of_the_file_is_enough() {
        let settings: Settings = toml::from_str("[engine]\ndevice = \"cpu\"\n").unwrap();
        assert_eq!(settings.engine.device, DeviceSetting::Cpu);
        assert_eq!(settings.gateway, GatewaySettings::default());
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        assert!(refused("[engine]\ndevcie = \"cpu\"\n").contains("devcie"));
        assert!(refused("[wallet]\n").contains("wallet"));
        assert!(refused("[engine]\ndevice = \"gpu\"\n").contains("`cuda:N`"));
        assert!(refused("[gateway]\nlisten_port = 70000\n").contains("70000"));
        assert!(refused("[network]\ncoordinator = \"ftp://x\"\n").contains("http(s)"));
        assert!(refused("nonsense").contains("line 1"));
    }

    #[test]
    fn another_encoding_is_told_from_a_file_that_may_not_be_read() {
        let (_home, dirs) = dirs();
        let utf16: Vec<u8> =
            "\u{feff}[engine]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let latin1 = b"# f\xfcr mich\n".to_vec();
        for bytes in [utf16, latin1] {
            std::fs::write(Settings::path(&dirs), bytes).unwrap();
            let error = Settings::read(&dirs).unwrap_err();
            assert!(matches!(error, ConfigError::NotUtf8 { .. }), "{error}");
            assert!(error.to_string().contains("save it as UTF-8"), "{error}");
        }
    }

    #[test]
    fn texts_that_mean_nothing_are_refused() {
        for bad in ["", "pool.example", "https://", "https://u:p@x", "https://x/?a=1", "file:///x"]
        {
            assert!(bad.parse::<NetworkSetting>().is_err(), "{bad}");
        }
        for bad in ["", "cuda", "cuda:", "cuda:-1", "gpu0", "CPU"] {
            assert!(bad.parse::<DeviceSetting>().is_err(), "{bad}");
        }
        assert!("keyring".parse::<KeyStoreSetting>().is_err());
        assert_eq!("cuda:3".parse(), Ok(DeviceSetting::Cuda(3)));
    }

    #[test]
    fn a_variable_wins_over_the_file_and_a_wrong_one_is_named() {
        let mut settings = Settings::default();
        let lookup = |name: &str| match name {
            env::DEVICE => Some(OsString::from("cuda:2")),
            env::NETWORK => Some(OsString::from("http://127.0.0.1:8080")),
            env::GATEWAY_PORT => Some(OsString::from("0")),
            _ => None,
        };
        settings.apply(&lookup).unwrap();
        assert_eq!(settings.engine.device, DeviceSetting::Cuda(2));
        assert_eq!(settings.gateway.listen_port, 0);
        assert_eq!(
            settings.network.coordinator,
            NetworkSetting::Coordinator("http://127.0.0.1:8080".to_owned())
        );

        let wrong = |name: &str| (name == env::KEY_STORE).then(|| OsString::from("vault"));
        let error = settings.apply(&wrong).unwrap_err().to_string();
        assert!(error.contains(env::KEY_STORE) && error.contains("vault"), "{error}");
    }
}
