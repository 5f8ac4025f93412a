//! Which of the running programs is a game.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::facts::{Facts, Program};
use crate::rules::Rules;

/// Share of the card, in per cent, from which a program in front counts as a game.
pub const CARD_LOAD_PERCENT: u8 = 30;

/// Folders that game stores install into, as parts of a path with `/` and in small letters.
const LIBRARIES: [&str; 10] = [
    "/steamapps/common/",
    "/epic games/",
    "/epicgames/",
    "/gog galaxy/games/",
    "/gog games/",
    "/xboxgames/",
    "/riot games/",
    "/ubisoft game launcher/games/",
    "/ea games/",
    "/games/heroic/",
];

/// Parts of such paths that are no games: runtimes, launchers, tools that run beside the desktop.
const NO_GAMES: [&str; 12] = [
    "/steamlinuxruntime",
    "/steamworks shared/",
    "/steamworks common redistributables/",
    "/common/proton",
    "/wallpaper_engine/",
    "/epic games/launcher/",
    "/epic games/epic online services/",
    "/riot games/riot client/",
    "/riot vanguard/",
    "/soundpad/",
    "/borderless gaming/",
    "/lossless scaling/",
];

/// Endings of names that belong to a game but run without it.
const HELPERS: [&str; 5] =
    ["crashhandler", "crashhandler64", "crashreporter", "launcher", "updater"];

/// How a game was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// It is on the person's list.
    Listed,
    /// It lies in a folder of a game store.
    Library,
    /// It fills the screen.
    FullScreen,
    /// It is in front and keeps the card busy.
    CardLoad,
}

/// A game that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting<'a> {
    /// The program.
    pub program: &'a str,
    /// How it was recognised.
    pub sign: Sign,
}

/// A program's name as it is compared: the file name, in small letters, without `.exe`.
pub fn program_name(path: &str) -> String {
    let name = path.trim().rsplit(['/', '\\']).next().unwrap_or_default().trim().to_lowercase();
    name.strip_suffix(".exe").map_or(name.clone(), str::to_owned)
}

/// Whether a program's path lies in a folder of a game store and belongs to a game.
pub fn in_library(path: &str) -> bool {
    let path = comparable(path);
    LIBRARIES.iter().any(|folder| path.contains(folder)) && !is_tool(&path)
}

/// Whether a program's path lies in one of these folders, each as [`comparable_folder`] makes it, and
/// belongs to a game.
pub fn in_folders(path: &str, folders: &[String]) -> bool {
    let path = comparable(path);
    folders.iter().any(|folder| path.starts_with(folder)) && !is_tool(&path)
}

/// A folder as [`in_folders`] compares it.
pub fn comparable_folder(folder: &str) -> String {
    let folder = comparable(folder);
    format!("{}/", folder.trim_end_matches('/'))
}

/// A path in small letters with `/` between its parts. Wine's drive of the whole system, and the mark
/// before long paths of Windows, are left out.
fn comparable(path: &str) -> String {
    let path = path.to_lowercase().replace('\\', "/");
    let path = path.strip_prefix("//?/").unwrap_or(&path);
    path.strip_prefix("z:/").map_or_else(|| path.to_owned(), |rest| format!("/{rest}"))
}

/// Whether it runs beside a game, or is none at all.
fn is_tool(path: &str) -> bool {
    let name = program_name(path);
    NO_GAMES.iter().any(|part| path.contains(part))
        || HELPERS.iter().any(|ending| name.ends_with(ending))
}

/// The games that run, the surest sign first.
pub fn sightings<'a>(rules: &'a Rules, facts: &Facts<'a>) -> Vec<Sighting<'a>> {
    if !rules.game_guard {
        return Vec::new();
    }
    let counts = |program: &str| !rules.not_games.iter().any(|name| name == program);
    let mut found: Vec<Sighting<'a>> = Vec::new();
    let mut add = |program: &'a str, sign| {
        if counts(program) && found.iter().all(|s| s.program != program) {
            found.push(Sighting { program, sign });
        }
    };
    let programs = facts.programs.unwrap_or_default();
    if !rules.games.is_empty() {
        let listed = |p: &&Program| rules.games.contains(&p.name);
        programs.iter().filter(listed).for_each(|p| add(&p.name, Sign::Listed));
    }
    if rules.guard_libraries {
        programs.iter().filter(|p| p.in_library).for_each(|p| add(&p.name, Sign::Library));
    }
    if let Some(front) = facts.foreground {
        if rules.games.contains(&front.program) {
            add(&front.program, Sign::Listed);
        }
        if rules.guard_full_screen && front.full_screen {
            add(&front.program, Sign::FullScreen);
        }
        let load = front.card_load_percent.unwrap_or(0);
        if rules.guard_card_load && load >= CARD_LOAD_PERCENT {
            add(&front.program, Sign::CardLoad);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn games_of_the_stores_are_known_and_their_tools_are_not() {
        let game = |path: &str| assert!(in_library(path), "{path}");
        game("/home/ada/.steam/steam/steamapps/common/Portal 2/portal2_linux");
        game(r"D:\SteamLibrary\steamapps\common\ELDEN RING\Game\eldenring.exe");
        game(r"C:\Program Files\Epic Games\Fortnite\FortniteClient-Win64-Shipping.exe");
        game(r"C:\GOG Games\The Witcher 3\bin\x64\witcher3.exe");
        game(r"C:\XboxGames\Forza\Content\forza.exe");
        let other = |path: &str| assert!(!in_library(path), "{path}");
        other("/usr/bin/firefox");
        other("/home/ada/.steam/steam/ubuntu12_32/steam");
        other("/home/ada/.steam/steamapps/common/SteamLinuxRuntime_sniper/pv-adverb");
        other("/home/ada/.steam/steamapps/common/Proton 9.0/files/bin/wineserver");
        other(r"C:\Program Files\Epic Games\Launcher\Portal\EpicGamesLauncher.exe");
        other(r"D:\SteamLibrary\steamapps\common\Rust\UnityCrashHandler64.exe");
        other(r"D:\SteamLibrary\steamapps\common\wallpaper_engine\wallpaper64.exe");
        other("");
    }

    #[test]
    fn folders_are_compared_part_by_part() {
        let folders = [comparable_folder(r"D:\Spiele\"), comparable_folder("/media/big/Games")];
        assert!(in_folders(r"d:\spiele\Doom\doom.exe", &folders));
        assert!(in_folders(r"\\?\D:\Spiele\Doom\doom.exe", &folders));
        assert!(in_folders("/media/big/games/quake", &folders));
        assert!(in_folders(r"Z:\media\big\Games\old.exe", &folders), "what wine runs");
        assert!(!in_folders("/media/big/games-tools/x", &folders));
        assert!(!in_folders(r"D:\Spiele\Doom\UnityCrashHandler64.exe", &folders));
        assert!(!in_folders("/usr/bin/env", &[]));
    }

    #[test]
    fn names_are_compared_without_folder_case_and_ending() {
        assert_eq!(program_name(r"C:\Games\Doom.EXE"), "doom");
        assert_eq!(program_name("/opt/Quake"), "quake");
        assert_eq!(program_name(" .exe "), "");
        assert_eq!(program_name("a/"), "");
    }
}
