//! The process table under Linux.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use neurino_control::{Program, games};

use crate::libraries::GameFolders;
use crate::once_each;

/// Looks after which a known process is read anew: a shell becomes the program it starts.
const REREAD_EVERY: u32 = 8;

/// The processes of this machine that may be looked at; others have no name for us.
#[derive(Default)]
pub(crate) struct Processes {
    looks: u32,
    known: HashMap<u32, (Program, u32)>,
    folders: GameFolders,
}

impl Processes {
    /// The running programs, each once; `None` without `/proc`.
    pub(crate) fn programs(&mut self) -> Option<Vec<Program>> {
        let entries = std::fs::read_dir("/proc").ok()?;
        let ids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        self.looks = self.looks.wrapping_add(1);
        if self.folders.refresh(Instant::now()) {
            // What is known was judged by the folders of before.
            self.known.clear();
        }
        let mut now = HashMap::with_capacity(self.known.len());
        for id in ids {
            // Young ones at every look, the others in turn.
            let turn = (self.looks.wrapping_add(id)).is_multiple_of(REREAD_EVERY);
            let entry = match self.known.remove(&id) {
                Some((program, seen)) if seen >= 3 && !turn => (program, seen),
                Some((_, seen)) => (read(id, &self.folders), seen.saturating_add(1)),
                None => (read(id, &self.folders), 0),
            };
            now.insert(id, entry);
        }
        self.known = now;
        Some(once_each(self.known.values().map(|(program, _)| program.clone()).collect()))
    }

    /// The name of a process.
    pub(crate) fn name(&self, id: u32) -> Option<String> {
        let known = self.known.get(&id).map(|(program, _)| program.name.clone());
        known.or_else(|| Some(read(id, &self.folders).name)).filter(|name| !name.is_empty())
    }
}

/// What a process runs; without a name where it may not be looked at, as with the kernel's own.
fn read(id: u32, folders: &GameFolders) -> Program {
    let folder = PathBuf::from(format!("/proc/{id}"));
    let Ok(file) = std::fs::read_link(folder.join("exe")) else {
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap_or_default();
        return of_another(&read("cmdline"), &read("comm"), folders);
    };
    // A replaced file is marked so; the program is the same.
    let file = file.to_string_lossy();
    let file = file.strip_suffix(" (deleted)").unwrap_or(&file);
    if games::program_name(file).starts_with("wine") {
        let command = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        if let Some(program) = windows_program(&command, folders) {
            return program;
        }
    }
    folders.program(file)
}

/// What a process of another person runs: which file that is nobody else may know, but its arguments and
/// its name. The kernel's own have no arguments.
fn of_another(command: &[u8], comm: &[u8], folders: &GameFolders) -> Program {
    let first = command.split(|&byte| byte == 0).next().unwrap_or_default();
    if first.is_empty() {
        return Program { name: String::new(), in_library: false };
    }
    if let Some(program) = windows_program(command, folders) {
        return program;
    }
    match String::from_utf8_lossy(first) {
        path if path.starts_with('/') => folders.program(&path),
        _ => folders.program(String::from_utf8_lossy(comm).trim()),
    }
}

/// The Windows program that wine runs, from the arguments of its process.
fn windows_program(command: &[u8], folders: &GameFolders) -> Option<Program> {
    let first = command.split(|&byte| byte == 0).next()?;
    let path = String::from_utf8_lossy(first);
    path.to_lowercase().ends_with(".exe").then(|| folders.program(&path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn programs_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let game = folder.path().join("steamapps/common/Tiny Game");
        std::fs::create_dir_all(&game).unwrap();
        std::fs::copy("/bin/sleep", game.join("tinygame")).unwrap();
        let mut processes = Processes::default();
        let runs = |processes: &mut Processes| {
            let programs = processes.programs().unwrap();
            programs.into_iter().find(|p| p.name == "tinygame")
        };
        assert_eq!(runs(&mut processes), None);
        let mut child = Command::new(game.join("tinygame")).arg("60").spawn().unwrap();
        let seen = (0..50).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            runs(&mut processes)
        });
        let (killed, _) = (child.kill(), child.wait());
        assert_eq!(seen, Some(Program { name: "tinygame".into(), in_library: true }));
        killed.unwrap();
        assert_eq!(processes.name(child.id()).as_deref(), Some("tinygame"));
        assert_eq!(runs(&mut processes), None, "it is gone");
    }

    #[test]
    fn what_another_person_runs_is_known_by_its_arguments() {
        let folders = GameFolders::of(&["/media/big/witcher"]);
        let check = |command: &[u8], comm: &[u8], name: &str, in_library| {
            let program = of_another(command, comm, &folders);
            assert_eq!(program, Program { name: name.into(), in_library });
        };
        let doom = b"/home/kid/.steam/steamapps/common/DOOM/doom\0-x\0";
        check(doom, b"doom\n", "doom", true);
        check(b"./doom\0", b"doom\n", "doom", false);
        check(b"Z:\\media\\big\\Witcher\\witcher3.exe\0", b"Main\n", "witcher3", true);
        check(b"", b"kworker/0:1\n", "", false);
    }

    #[test]
    fn wine_runs_windows_programs() {
        let command = b"D:\\SteamLibrary\\steamapps\\common\\ELDEN RING\\eldenring.exe\0-x\0";
        let folders = GameFolders::of(&["/media/big/witcher"]);
        let program = windows_program(command, &folders).unwrap();
        assert_eq!(program, Program { name: "eldenring".into(), in_library: true });
        let command = b"Z:\\media\\big\\Witcher\\witcher3.exe\0";
        assert!(windows_program(command, &folders).unwrap().in_library);
        assert_eq!(windows_program(b"/usr/bin/wineserver\0", &folders), None);
        assert_eq!(windows_program(b"", &folders), None);
    }
}
