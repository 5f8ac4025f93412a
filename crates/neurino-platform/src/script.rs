//! Surroundings that a file tells: for tests, and to try rules out.

use std::path::PathBuf;

use neurino_control::{Program, games};
use serde::Deserialize;
use tracing::warn;

use crate::{Front, Surroundings, View};

/// Reads a JSON file at every look, so that whoever writes it plays the desktop. Every key may be
/// left out, and is not known then:
///
/// ```json
/// { "idle_secs": 3, "other_user": false, "on_battery": false, "metered": false,
///   "programs": ["/games/steamapps/common/DOOM/doom"],
///   "front": { "program": "doom", "full_screen": true, "load_percent": 80 } }
/// ```
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
    last: View,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scene {
    idle_secs: Option<u32>,
    other_user: Option<bool>,
    on_battery: Option<bool>,
    metered: Option<bool>,
    programs: Option<Vec<String>>,
    front: Option<Window>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    program: String,
    #[serde(default)]
    full_screen: bool,
    load_percent: Option<u8>,
}

impl Script {
    /// The script in this file; it may be written later.
    pub fn new(path: PathBuf) -> Self {
        Self { path, last: View::default() }
    }
}

impl Surroundings for Script {
    /// A file that is missing or being written leaves everything as it was.
    fn look(&mut self) -> View {
        let read = std::fs::read(&self.path).map_err(|error| error.to_string());
        let scene = read.and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()));
        match scene {
            Ok(scene) => self.last = view(scene),
            Err(problem) => warn!(problem, "the script of the surroundings is not readable"),
        }
        self.last.clone()
    }
}

fn view(scene: Scene) -> View {
    let programs = scene.programs.map(|paths| paths.iter().map(|p| Program::at(p)).collect());
    View {
        idle_secs: scene.idle_secs,
        other_user: scene.other_user,
        on_battery: scene.on_battery,
        metered: scene.metered,
        programs,
        front_load_percent: scene.front.as_ref().and_then(|window| window.load_percent),
        front: scene.front.map_or(Front::Nothing, |window| Front::Window {
            program: games::program_name(&window.program),
            process: None,
            full_screen: window.full_screen,
        }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_at_every_look_and_damage_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk.json");
        let mut script = Script::new(path.clone());
        assert_eq!(script.look(), View::default());
        std::fs::write(&path, r#"{ "idle_secs": 7, "programs": ["/x/Doom.exe"] }"#).unwrap();
        let view = script.look();
        assert_eq!(view.idle_secs, Some(7));
        assert_eq!(view.programs.as_deref(), Some(&[Program::at("doom")][..]));
        for damage in ["{", r#"{ "idle": 7 }"#, r#"{ "idle_secs": -1 }"#, ""] {
            std::fs::write(&path, damage).unwrap();
            assert_eq!(script.look(), view, "{damage}");
        }
    }
}
