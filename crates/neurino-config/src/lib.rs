//! Settings, environment variables and data directories.
//!
//! Reading order: [`env`] (every variable the program reads), [`dirs`] (where things lie),
//! [`settings`] (defaults, then `settings.toml`, then the environment), [`preferences`] (the
//! window's), [`lock`] (one running app per data folder), [`error`].

pub mod dirs;
pub mod env;
pub mod error;
pub mod lock;
pub mod preferences;
pub mod settings;

mod atomic;

pub use dirs::Dirs;
pub use error::ConfigError;
pub use lock::InstanceLock;
pub use preferences::{LoadedPreferences, PreferencesFile};
pub use settings::{DeviceSetting, KeyStoreSetting, NetworkSetting, ProtocolSetting, Settings};
