//! Where game stores keep games on this machine, from their own lists: Steam's drives, Heroic, Lutris,
//! Epic, GOG. A folder with an ordinary name on another drive is known as a game's through them alone.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use neurino_control::{Program, games};
use serde_json::Value;

/// No list of a store is larger, in bytes.
const LIST_BYTES_MAX: u64 = 8 << 20;
/// Lists that are looked at in one folder.
const LISTS_MAX: usize = 2_000;
/// Games are installed seldom.
const READ_EVERY: Duration = Duration::from_mins(5);

/// The folders of games on this machine.
#[derive(Default)]
pub(crate) struct GameFolders {
    /// As [`games::in_folders`] compares them.
    folders: Vec<String>,
    read: Option<Instant>,
}

impl GameFolders {
    /// Reads the lists again when it is time; whether the folders are others than before.
    pub(crate) fn refresh(&mut self, now: Instant) -> bool {
        if self.read.is_some_and(|read| now.duration_since(read) < READ_EVERY) {
            return false;
        }
        self.read = Some(now);
        let found = listed(&places());
        std::mem::replace(&mut self.folders, found) != self.folders
    }

    /// The program whose file lies here.
    pub(crate) fn program(&self, path: &str) -> Program {
        let program = Program::at(path);
        let in_library = program.in_library || games::in_folders(path, &self.folders);
        Program { in_library, ..program }
    }

    #[cfg(test)]
    pub(crate) fn of(folders: &[&str]) -> Self {
        let folders = folders.iter().filter_map(|folder| comparable(Path::new(folder))).collect();
        Self { folders, read: Some(Instant::now()) }
    }
}

/// Where the stores' lists lie.
#[cfg_attr(target_os = "linux", derive(Default))]
struct Places {
    /// Steam's `libraryfolders.vdf`.
    steam: Vec<PathBuf>,
    /// JSON files in which games are told with `install_path` or `InstallLocation`.
    json: Vec<PathBuf>,
    /// Folders of Lutris's notes about games.
    lutris: Vec<PathBuf>,
    /// Games' folders that something else told.
    told: Vec<PathBuf>,
}

#[cfg(target_os = "linux")]
fn places() -> Places {
    let Some(home) = std::env::home_dir() else { return Places::default() };
    let below = |names: &[&str]| names.iter().map(|name| home.join(name)).collect::<Vec<_>>();
    let steam = [
        ".local/share/Steam",
        ".steam/steam",
        ".var/app/com.valvesoftware.Steam/.local/share/Steam",
    ];
    let heroic = [".config/heroic", ".var/app/com.heroicgameslauncher.hgl/config/heroic"];
    let installed = [
        "gog_store/installed.json",
        "legendaryConfig/legendary/installed.json",
        "nile_config/nile/installed.json",
        "sideload_apps/library.json",
    ];
    Places {
        steam: below(&steam).iter().map(|root| root.join("steamapps/libraryfolders.vdf")).collect(),
        json: below(&heroic)
            .iter()
            .flat_map(|root| installed.map(|name| root.join(name)))
            .chain([home.join(".config/legendary/installed.json")])
            .collect(),
        lutris: below(&[
            ".local/share/lutris/games",
            ".config/lutris/games",
            ".var/app/net.lutris.Lutris/data/lutris/games",
        ]),
        told: Vec::new(),
    }
}

#[cfg(windows)]
fn places() -> Places {
    use windows_registry::LOCAL_MACHINE;
    let text = |key: &str, name: &str| LOCAL_MACHINE.open(key).ok()?.get_string(name).ok();
    let steam = text(r"SOFTWARE\WOW6432Node\Valve\Steam", "InstallPath").map(PathBuf::from);
    let data = std::env::var_os("ProgramData").map(PathBuf::from);
    let manifests =
        data.map(|data| data.join("Epic").join("EpicGamesLauncher").join("Data").join("Manifests"));
    let items = manifests.into_iter().flat_map(|folder| entries(&folder, "item"));
    let key = r"SOFTWARE\WOW6432Node\GOG.com\Games";
    let gog =
        LOCAL_MACHINE.open(key).ok().and_then(|games| Some(games.keys().ok()?.collect::<Vec<_>>()));
    let gog = gog.unwrap_or_default().into_iter().take(LISTS_MAX);
    Places {
        steam: steam
            .into_iter()
            .map(|root| root.join("steamapps").join("libraryfolders.vdf"))
            .collect(),
        json: items.collect(),
        lutris: Vec::new(),
        told: gog
            .filter_map(|id| text(&format!(r"{key}\{id}"), "path"))
            .map(PathBuf::from)
            .collect(),
    }
}

/// The folders that the lists name, each once.
fn listed(places: &Places) -> Vec<String> {
    let mut found = places.told.clone();
    for list in &places.steam {
        let drives = steam_drives(&text_of(list).unwrap_or_default());
        found.extend(drives.iter().map(|drive| drive.join("steamapps").join("common")));
    }
    for list in &places.json {
        let text = text_of(list).unwrap_or_default();
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            install_folders(&value, &mut found);
        }
    }
    for note in places.lutris.iter().flat_map(|folder| entries(folder, "yml")) {
        found.extend(lutris_folder(&text_of(&note).unwrap_or_default()));
    }
    let mut folders: Vec<String> = found.iter().filter_map(|folder| comparable(folder)).collect();
    folders.sort();
    folders.dedup();
    folders
}

/// A folder as paths are compared with it, where a link in it leads to; `None` where it holds more than
/// games for certain.
fn comparable(folder: &Path) -> Option<String> {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let text = real.to_str()?;
    let home = std::env::home_dir();
    // `C:\` and `/home` are nobody's game, and a damaged list must not make everything one.
    let deep = real.components().filter(|part| matches!(part, std::path::Component::Normal(_)));
    let wide = deep.count() < 2 || home.is_some_and(|home| home.starts_with(&real));
    (real.is_absolute() && !wide).then(|| games::comparable_folder(text))
}

/// The drives in Steam's `libraryfolders.vdf`: lines of two quoted texts, the first of them `path`.
fn steam_drives(text: &str) -> Vec<PathBuf> {
    let pairs = text.lines().filter_map(|line| {
        let mut parts = line.trim().splitn(5, '"');
        let (_, key, _, value) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        key.eq_ignore_ascii_case("path").then(|| PathBuf::from(value.replace(r"\\", r"\")))
    });
    pairs.collect()
}

/// Folders of games anywhere in a store's list.
fn install_folders(value: &Value, found: &mut Vec<PathBuf>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| install_folders(item, found)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(path)
                        if matches!(
                            name.as_str(),
                            "install_path" | "InstallLocation" | "folder_name"
                        ) =>
                    {
                        found.push(path.into());
                    }
                    Some(_) => {}
                    None => install_folders(field, found),
                }
            }
        }
        _ => {}
    }
}

/// The folder of the program that a note of Lutris starts: its `exe`, as a whole path.
fn lutris_folder(text: &str) -> Option<PathBuf> {
    let exe = text.lines().find_map(|line| line.trim().strip_prefix("exe:"))?;
    let exe = Path::new(exe.trim().trim_matches(['"', '\'']));
    exe.is_absolute().then(|| exe.parent().map(Path::to_owned))?
}

/// Files of a folder with this end.
fn entries(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(LISTS_MAX);
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == end)).collect()
}

fn text_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LIST_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const VDF: &str = "\"libraryfolders\"\n{\n\t\"0\"\n\t{\n\t\t\"path\"\t\t\"/home/ada/.local/share/Steam\"\n\
        \t\t\"label\"\t\t\"\"\n\t\t\"apps\"\n\t\t{\n\t\t\t\"620\"\t\t\"14\"\n\t\t}\n\t}\n\t\"1\"\n\t{\n\
        \t\t\"path\"\t\t\"D:\\\\Big \\\\Games\"\n\t}\n}\n";

    #[test]
    fn drives_of_steam_are_read() {
        let drives = steam_drives(VDF);
        assert_eq!(
            drives,
            [Path::new("/home/ada/.local/share/Steam"), Path::new(r"D:\Big \Games")]
        );
        for odd in ["", "\"path\"", "path /x", "\"path\" \"", "\"path", "\0\u{1}"] {
            assert!(steam_drives(odd).len() <= 1, "{odd:?}");
        }
    }

    #[test]
    fn games_of_every_list_are_known_on_any_drive() {
        let drive = tempfile::tempdir().unwrap();
        let at = |name: &str| drive.path().join(name);
        for folder in
            ["lib/steamapps", "elsewhere/Portal 2", "gog/witcher", "lutris-notes", "quake"]
        {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        // Somebody moved the games of a library and left a link.
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("elsewhere"), at("lib/steamapps/common")).unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(at(name), text).unwrap();
            at(name)
        };
        let steam = write("a.vdf", format!("\"path\"\t\"{}\"", at("lib").display()));
        let gog = serde_json::json!({ "installed": [{ "appName": "1", "install_path": at("gog/witcher") }, 7] });
        let gog = write("installed.json", gog.to_string());
        let broken = write("broken.json", "{ \"install_path\": ".into());
        let root = write(
            "root.json",
            "{ \"install_path\": \"/\", \"InstallLocation\": \"/home\" }".into(),
        );
        write(
            "lutris-notes/quake.yml",
            format!("game:\n  exe: '{}'\n", at("quake/quake.x86").display()),
        );
        write("lutris-notes/other.yml", "game: {}\n".into());
        let places = Places {
            steam: vec![steam, at("missing.vdf")],
            json: vec![gog, broken, root],
            lutris: vec![at("lutris-notes")],
            told: Vec::new(),
        };
        let folders = GameFolders { folders: listed(&places), read: None };
        let seen = |name: &str| {
            folders
                .program(at(name).canonicalize().as_deref().unwrap_or(&at(name)).to_str().unwrap())
                .in_library
        };
        assert!(seen("gog/witcher/bin/witcher3.exe") && seen("quake/quake.x86"));
        #[cfg(unix)]
        assert!(seen("elsewhere/Portal 2/portal2"));
        assert!(
            !seen("gog/other/x") && !seen("quake-tools/x") && !seen("gog/witcher/CrashReporter")
        );
        assert!(
            !folders.program("/usr/bin/firefox").in_library,
            "a list that names everything is no list"
        );
    }
}
