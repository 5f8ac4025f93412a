//! Removing what Neurino keeps on this machine: the files that it wrote, by their names, and the folders
//! that are empty then. What a person or another program put beside them stays, and is counted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use neurino_config::Dirs;
use neurino_model_store::ModelStore;
use neurino_protocol::data::DataKind;

use crate::autostart::{self, Autostart};

/// What a person may want to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The settings stay for the next installation.
    pub settings: bool,
    /// The identity's keys stay, and what belongs to them: the reward address and its history.
    pub keys: bool,
}

/// What would be removed.
#[derive(Default)]
pub struct Removal {
    files: Vec<Doomed>,
    /// Folders of Neurino's that may be empty afterwards, the inner ones first.
    folders: BTreeSet<PathBuf>,
    /// Folders whose whole content the window's library wrote.
    whole: Vec<PathBuf>,
    /// Files in Neurino's folders that are not Neurino's, and so stay.
    pub strangers: Vec<PathBuf>,
    /// Key files that stay.
    pub keys: Vec<PathBuf>,
    /// Models of the person's own, which no download brings back, among what goes.
    pub own_models: usize,
    /// The folder of a library that is not there, so that its files stay where they are.
    pub library_away: Option<PathBuf>,
    store: Option<ModelStore>,
}

/// A file that goes.
#[derive(Debug)]
struct Doomed {
    kind: DataKind,
    path: PathBuf,
    bytes: u64,
}

/// What a removal did.
#[derive(Debug, Default)]
pub struct Removed {
    /// Files that are gone.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be removed, and why.
    pub failed: Vec<(PathBuf, std::io::Error)>,
}

/// Names of Neurino's files in the data folder. A star stands for anything.
const RECORDS: &[&str] = &[
    "neurino.lock",
    "door.json",
    "control.json",
    "alerts.json",
    "notices.json",
    "updates.json",
    "catalogue.json",
    "downloads.json",
    "scrubbed.json",
    "window.toml",
    "practice/coordinator.sqlite*",
    "practice/coordinator-pictures/*.png",
    "practice/coordinator-pictures/*.sealed",
    "practice/.payload-key-*",
    "practice/coordinator-pictures/.writing-*",
    "practice/gateway-key",
    "practice/*.key",
    "practice/install.secret",
    "practice/keys.lock",
    "machine/recorder.bin",
    "machine/power-limits.*",
    "updates/neurino*",
    "tuning/*",
    ".neurino-*",
];
/// The same of each network's records.
const NETWORK: &[&str] = &["receipts.jsonl", "receipts.idx", "jobs.jsonl", "meter.bin"];
/// Keys, and what was written down with them.
const KEYS: &[&str] = &[
    "*.key",
    "install.secret",
    "identity.json",
    "keys.lock",
    "wallet.json",
    "wallet.json.damaged",
];
/// Results that wait for their receipt, in a folder for each network: other people's answers in clear.
const OUTBOX: &[&str] = &["*.json", ".writing-*"];
const LOGS: &[&str] = &["neurino.*.log"];
const SETTINGS: &[&str] = &[
    "settings.toml",
    "preferences.toml",
    "onboarding.toml",
    "library.toml",
    "rules.toml",
    "alerts.toml",
    "notices.toml",
    "hotkey.toml",
    "power.toml",
    "tariff.json",
    ".neurino-*",
];
/// What is appended to a name while a file is written, or when it was found damaged.
const ENDS: &[&str] = &["", ".damaged", ".new", ".tmp"];
/// The window's own folder, below the user's folders of data and of the cache.
const WINDOW: &str = "com.neurino.app";

impl Removal {
    /// Looks at what is there. Changes nothing.
    pub fn plan(dirs: &Dirs, keep: Keep) -> Self {
        let store = ModelStore::open_as_is(&dirs.models);
        let library_away = dirs.is_library_away().then(|| store.root());
        let mut plan = Self { library_away, ..Self::default() };
        for path in store.library_files() {
            plan.add(DataKind::Models, path);
        }
        plan.own_models = store.usage().iter().filter(|model| model.own).count();
        plan.folders.insert(store.root());
        plan.store = Some(store);
        plan.add_named(DataKind::Records, &dirs.data, RECORDS);
        for network in networks(&dirs.data) {
            plan.add_named(DataKind::Records, &network, NETWORK);
        }
        if keep.keys {
            plan.keys = named(&dirs.data, KEYS).collect();
        } else {
            plan.add_named(DataKind::Records, &dirs.data, KEYS);
        }
        for network in networks(&dirs.outbox) {
            plan.add_named(DataKind::Outbox, &network, OUTBOX);
            plan.folders.insert(network);
        }
        plan.add_named(DataKind::Logs, &dirs.logs, LOGS);
        plan.folders.extend(
            ["practice/coordinator-pictures", "practice", "machine", "updates", "tuning"]
                .map(|name| dirs.data.join(name)),
        );
        plan.folders.extend(networks(&dirs.data));
        plan.folders.extend([&dirs.outbox, &dirs.logs, &dirs.data].map(Clone::clone));
        if !keep.settings {
            plan.add_named(DataKind::Settings, &dirs.config, SETTINGS);
            plan.folders.insert(dirs.config.clone());
        }
        match autostart::home_of(dirs) {
            Some(home) => {
                plan.folders.insert(home.to_owned());
            }
            // A home that was named may be one of several that share the window's folder.
            None => plan.whole = window_folders(),
        }
        if let Some(entry) = Autostart::config_folder().and_then(|c| autostart::own_entry(&c, dirs))
        {
            plan.add(DataKind::Settings, entry);
        }
        plan.count_strangers(dirs, keep);
        plan
    }

    /// What goes of a kind: files and their bytes.
    pub fn of(&self, kind: DataKind) -> (usize, u64) {
        let files = self.files.iter().filter(|file| file.kind == kind);
        files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.bytes))
    }

    /// Removes it. A file that cannot be removed does not keep the others.
    pub fn carry_out(self) -> Removed {
        let mut removed = Removed::default();
        for file in self.files {
            match fs::remove_file(&file.path) {
                Ok(()) => {
                    removed.files += 1;
                    removed.bytes += file.bytes;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => removed.failed.push((file.path, error)),
            }
        }
        if let Some(store) = self.store {
            store.remove_empty_folders();
        }
        for folder in &self.whole {
            if let Err(error) = fs::remove_dir_all(folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                removed.failed.push((folder.clone(), error));
            }
        }
        // Those inside come after those around them; a folder that holds something stays.
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
        removed
    }

    fn add(&mut self, kind: DataKind, path: PathBuf) {
        let Ok(metadata) = fs::symlink_metadata(&path) else { return };
        if metadata.is_file() && !self.files.iter().any(|file| file.path == path) {
            self.files.push(Doomed { kind, path, bytes: metadata.len() });
        }
    }

    fn add_named(&mut self, kind: DataKind, folder: &Path, names: &'static [&'static str]) {
        for path in named(folder, names) {
            self.add(kind, path);
        }
    }

    /// What stays in the folders of Neurino. Pictures and exports are the person's, wherever they lie.
    fn count_strangers(&mut self, dirs: &Dirs, keep: Keep) {
        let mut roots = vec![dirs.data.clone(), dirs.models.clone(), dirs.logs.clone()];
        if !keep.settings {
            roots.push(dirs.config.clone());
        }
        let locks = |path: &Path| path.file_name().is_some_and(|name| name == ".lock");
        let ours: BTreeSet<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        let mut strangers = BTreeSet::new();
        for root in roots {
            strangers.extend(
                files_below(&root, &[&dirs.pictures, &dirs.exports]).into_iter().filter(|path| {
                    !ours.contains(path.as_path()) && !self.keys.contains(path) && !locks(path)
                }),
            );
        }
        self.strangers = strangers.into_iter().collect();
    }
}

/// Folders of a network's records.
fn networks(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = folders.map(|entry| entry.path());
    names
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == "practice" || name.starts_with("network-")
        })
        .collect()
}

/// The files of a folder that have one of these names; `/` leads into folders below.
fn named(folder: &Path, names: &'static [&'static str]) -> impl Iterator<Item = PathBuf> {
    names.iter().flat_map(move |pattern| {
        let path = folder.join(pattern);
        let (around, pattern) = (path.parent().map(Path::to_owned), path.file_name());
        let pattern = pattern.unwrap_or_default().to_string_lossy().into_owned();
        let entries = around.and_then(|around| fs::read_dir(around).ok());
        entries.into_iter().flatten().flatten().filter_map(move |entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            (is_file && is_called(&name, &pattern)).then(|| entry.path())
        })
    })
}

/// Whether a name is the pattern's, with one of the usual ends.
fn is_called(name: &str, pattern: &str) -> bool {
    ENDS.iter().filter_map(|end| name.strip_suffix(end)).any(|name| match pattern.split_once('*') {
        None => name == pattern,
        Some((begin, end)) => {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
    })
}

/// Files below a folder, those of `others` and links left out.
fn files_below(folder: &Path, others: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            if !others.contains(&path.as_path()) {
                found.extend(files_below(&path, others));
            }
        } else {
            found.push(path);
        }
    }
    found
}

/// Where the window's library keeps the page's storage, its cache and the tray's icons.
fn window_folders() -> Vec<PathBuf> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let of = |variable: &str, usual: &str| {
        let named = std::env::var_os(variable).map(PathBuf::from);
        let usual = || std::env::home_dir().map(|home| home.join(usual));
        named.filter(|path| path.is_absolute()).or_else(usual).map(|folder| folder.join(WINDOW))
    };
    [of("XDG_DATA_HOME", ".local/share"), of("XDG_CACHE_HOME", ".cache")]
        .into_iter()
        .flatten()
        .filter(|folder| folder.is_dir())
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const OURS: [&str; 20] = [
        "data/neurino.lock",
        "data/control.json",
        "data/control.json.damaged",
        "data/practice/coordinator.sqlite",
        "data/practice/coordinator.sqlite-wal",
        "data/practice/receipts.jsonl",
        "data/network-club-example/meter.bin",
        "data/machine/recorder.bin",
        "data/scrubbed.json",
        "data/catalogue.json",
        "data/tuning/rtx-4090-0a1b2c3d_580_7.json.log",
        "data/outbox/practice/0193.json",
        "data/outbox/network-club-example/0194.json.damaged",
        "data/outbox/network-club-example/.writing-0195",
        "logs/neurino.2026-11-22.log",
        "config/settings.toml",
        "config/rules.toml.damaged",
        "config/tariff.json",
        "models/mine/.used",
        "models/catalog/mine.toml",
    ];
    const KEY_FILES: [&str; 4] =
        ["data/identity.key", "data/install.secret", "data/identity.json", "data/wallet.json"];
    const STRANGERS: [&str; 9] = [
        "data/my notes.txt",
        "data/practice/photo.jpg",
        "data/outbox/practice/list.txt",
        "data/coordinator/coordinator.sqlite",
        "config/other.toml",
        "logs/another.log",
        "models/mine/a-friend.bin",
        "models/holiday.mkv",
        "models/catalog/not-ours.txt",
    ];

    fn home() -> (tempfile::TempDir, Dirs) {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().join("home"))).unwrap();
        let mine = "id = \"mine\"\nname = \"Mine\"\nsummary = \"s\"\nfamily = \"toybox\"\n\
            kind = \"image\"\narch = \"sd15\"\ndtype = \"f16\"\nmemory_bytes_min = 300_000_000\n\
            licence = \"MIT\"\nattribution = \"me\"\n[image]\nwidth = 64\nheight = 64\nsteps = 2\n\
            guidance = 3.0\n[[files]]\nname = \"w.bin\"\nsize_bytes = 4\nsha256 = \
            \"88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589\"\nsources = []\n";
        for name in OURS.iter().chain(&KEY_FILES).chain(&STRANGERS) {
            let path = home.path().join("home").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, if name.ends_with("mine.toml") { mine } else { "abcd" }).unwrap();
        }
        fs::write(dirs.models.join("mine/w.bin"), "abcd").unwrap();
        for (folder, name) in [(&dirs.pictures, "p.png"), (&dirs.exports, "e.csv")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(name), "kept").unwrap();
        }
        (home, dirs)
    }

    fn there(dirs: &Dirs, names: &[&str]) -> Vec<String> {
        let home = dirs.data.parent().unwrap();
        names.iter().filter(|n| home.join(n).exists()).map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn only_what_neurino_wrote_goes_and_keys_stay() {
        let (_home, dirs) = home();
        let plan = Removal::plan(&dirs, Keep { settings: false, keys: true });
        assert_eq!(plan.keys.len(), KEY_FILES.len());
        assert_eq!(plan.strangers.len(), STRANGERS.len(), "{:?}", plan.strangers);
        assert_eq!((plan.own_models, plan.of(DataKind::Settings).0), (1, 3));
        assert_eq!(there(&dirs, &OURS).len(), OURS.len(), "a plan changes nothing");
        let removed = plan.carry_out();
        assert!(removed.failed.is_empty(), "{:?}", removed.failed);
        assert_eq!(removed.files, OURS.len() + 1);
        assert_eq!(there(&dirs, &OURS), Vec::<String>::new());
        assert_eq!(there(&dirs, &KEY_FILES), KEY_FILES);
        assert_eq!(there(&dirs, &STRANGERS), STRANGERS);
        assert!(!dirs.models.join("mine/w.bin").exists());
        assert!(!dirs.data.join("machine").exists(), "an empty folder goes");
        assert!(dirs.pictures.join("p.png").exists() && dirs.exports.join("e.csv").exists());
    }

    #[test]
    fn settings_stay_if_wanted_and_nothing_is_left_without_strangers() {
        let (_home, dirs) = home();
        for name in STRANGERS {
            fs::remove_file(dirs.data.parent().unwrap().join(name)).unwrap();
        }
        fs::remove_dir(dirs.data.join("coordinator")).unwrap();
        Removal::plan(&dirs, Keep { settings: true, keys: true }).carry_out();
        assert!(dirs.config.join("settings.toml").exists() && !dirs.models.exists());
        let plan = Removal::plan(&dirs, Keep { settings: false, keys: false });
        assert!(plan.strangers.is_empty() && plan.keys.is_empty());
        plan.carry_out();
        assert!(!dirs.data.exists() && !dirs.config.exists() && !dirs.logs.exists());
        assert!(dirs.pictures.join("p.png").exists(), "what the person kept is theirs");
    }

    #[test]
    fn a_library_on_a_drive_that_is_not_there_is_told_and_not_created() {
        let (home, dirs) = home();
        let drive = home.path().join("drive/neurino-models");
        neurino_config::LibraryFile::new(&dirs).set_folder(&drive).unwrap();
        let dirs = Dirs { models: drive.clone(), ..dirs };
        let plan = Removal::plan(&dirs, Keep::default());
        assert_eq!(plan.library_away.as_deref(), Some(drive.as_path()));
        assert_eq!(plan.of(DataKind::Models), (0, 0));
        plan.carry_out();
        assert!(!drive.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_nowhere_and_a_locked_folder_is_told() {
        use std::os::unix::fs::symlink;
        let (home, dirs) = home();
        let elsewhere = home.path().join("precious.log");
        fs::write(&elsewhere, "precious").unwrap();
        symlink(&elsewhere, dirs.logs.join("neurino.2026-01-01.log")).unwrap();
        symlink(home.path(), dirs.data.join("network-x")).unwrap();
        let plan = Removal::plan(&dirs, Keep::default());
        plan.carry_out();
        assert!(elsewhere.exists());
        assert!(dirs.logs.join("neurino.2026-01-01.log").symlink_metadata().is_ok());
    }
}
