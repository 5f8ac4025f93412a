//! Settings, environment variables and data directories.
//!
//! Reading order: [`env`] (every variable the program reads), [`dirs`] (where things lie),
//! [`settings`] (defaults, then `settings.toml`, then the environment), [`cards`] (a part of it that
//! the window changes), [`filter`] (another), [`preferences`] (the window's), [`onboarding`] (the first
//! steps), [`rules`] (when to mine, and what was decided), [`library`] (where models lie), [`scrubbed`] (what of
//! them was read through), [`hotkey`], [`updates`], [`catalogue`],
//! [`window`], [`lock`] (one running app per data folder), [`error`].

pub mod alerts;
pub mod cards;
pub mod catalogue;
pub mod dirs;
pub mod door;
pub mod env;
pub mod error;
pub mod filter;
pub mod hotkey;
pub mod library;
pub mod lock;
pub mod notices;
pub mod onboarding;
pub mod power;
pub mod preferences;
pub mod rules;
pub mod scrubbed;
pub mod settings;
pub mod updates;
pub mod window;

mod atomic;
mod settings_lines;

pub use alerts::AlertFiles;
pub use cards::CardChoices;
pub use catalogue::{CatalogueFile, SavedCatalogue};
pub use dirs::Dirs;
pub use door::{DoorFile, DoorKey};
pub use error::ConfigError;
pub use hotkey::HotkeyFile;
pub use library::LibraryFile;
pub use lock::InstanceLock;
pub use notices::NoticeFiles;
pub use onboarding::{Onboarding, OnboardingFile};
pub use power::PowerFile;
pub use preferences::{LoadedPreferences, PreferencesFile};
pub use rules::{ControlFile, RulesFile};
pub use scrubbed::{Scrubbed, ScrubbedFile};
pub use settings::{DeviceSetting, KeyStoreSetting, NetworkSetting, ProtocolSetting, Settings};
pub use updates::{SavedUpdates, UpdatesFile};
pub use window::{WindowFile, WindowPlace};
