//! Starting with the computer: in the tray, mining. On Linux an entry of the desktop's own kind,
//! `autostart/neurino.desktop`, which every desktop lists among its start-up programs; on Windows a
//! value of the user's `Run` key, which the Task Manager lists.

use std::path::{Path, PathBuf};

use neurino_config::Dirs;
use neurino_protocol::ErrorBody;
use neurino_update::Place;

use crate::{internal, wallet};

#[cfg(windows)]
mod run_key;

/// The entry that starts the program, where one can be made.
pub(crate) struct Autostart {
    entry: Option<Entry>,
    #[cfg(windows)]
    run_key: Option<run_key::RunKey>,
}

struct Entry {
    file: PathBuf,
    text: String,
}

/// What is started with the computer. An AppImage's own file lies where the image is mounted, which is
/// another place after each start.
pub(crate) fn program_to_start<'a>(
    own: Option<&'a Path>,
    place: Option<&'a Place>,
) -> Option<&'a Path> {
    own.map(|own| place.map_or(own, |place| place.program.as_path()))
}

/// Begins the place where an AppImage is mounted.
const MOUNTED: &str = "/.mount_";

impl Autostart {
    /// For this program. `config` is the desktop's folder of settings; without either nothing can
    /// be arranged.
    pub(crate) fn new(program: Option<&Path>, config: Option<&Path>, dirs: &Dirs) -> Self {
        let entry = program.zip(config).and_then(|(program, config)| {
            let text = entry_text(program, home_of(dirs))?;
            Some(Entry { file: config.join("autostart").join("neurino.desktop"), text })
        });
        Self {
            entry,
            #[cfg(windows)]
            run_key: program.and_then(|program| run_key::RunKey::new(program, home_of(dirs))),
        }
    }

    /// The folder of the desktop's settings, where there is such a desktop.
    pub(crate) fn config_folder() -> Option<PathBuf> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let usual = || std::env::home_dir().map(|home| home.join(".config"));
        named.filter(|path| path.is_absolute()).or_else(usual)
    }

    /// Whether the program starts with the computer; `None` where that cannot be arranged. An entry
    /// that the person changed is theirs and counts unless the desktop has switched it off.
    pub(crate) fn is_on(&self) -> Option<bool> {
        #[cfg(windows)]
        if let Some(key) = &self.run_key {
            return Some(key.is_on());
        }
        let entry = self.entry.as_ref()?;
        let text = std::fs::read_to_string(&entry.file).unwrap_or_default();
        let off = text
            .lines()
            .any(|line| matches!(line.trim(), "Hidden=true" | "X-GNOME-Autostart-enabled=false"));
        Some(!text.is_empty() && !off)
    }

    /// Writes an entry anew that names a place where an AppImage was mounted once.
    pub(crate) fn mend(&self) {
        let Some(entry) = &self.entry else { return };
        let text = std::fs::read_to_string(&entry.file).unwrap_or_default();
        let stale = text.contains(MOUNTED) && !entry.text.contains(MOUNTED);
        if stale
            && self.is_on() == Some(true)
            && let Err(error) = self.set(true)
        {
            tracing::warn!("the entry that starts the program is out of date: {error}");
        }
    }

    /// Writes the entry, or removes it.
    pub(crate) fn set(&self, on: bool) -> Result<(), ErrorBody> {
        #[cfg(windows)]
        if let Some(key) = &self.run_key {
            return key.set(on).map_err(|error| {
                internal(format!("the list of programs that start with Windows: {error}"))
            });
        }
        let Some(entry) = &self.entry else {
            return Err(wallet::invalid(
                "this system has no place for programs that start with it",
            ));
        };
        let failed = |error: std::io::Error| {
            internal(format!("{} cannot be changed: {error}", entry.file.display()))
        };
        if on {
            let folder = entry.file.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder).map_err(failed)?;
            return std::fs::write(&entry.file, &entry.text).map_err(failed);
        }
        match std::fs::remove_file(&entry.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// The desktop's entry, if it starts this program with this home: text that [`entry_text`] made for
/// whichever place the program was in.
pub(crate) fn own_entry(config: &Path, dirs: &Dirs) -> Option<PathBuf> {
    let file = config.join("autostart").join("neurino.desktop");
    let text = std::fs::read_to_string(&file).ok()?;
    let command = text.lines().find_map(|line| line.strip_prefix("Exec="))?;
    let home = match home_of(dirs) {
        Some(home) => command.contains(&[" --home ", &quoted(home)?, " "].concat()),
        None => !command.contains(" --home "),
    };
    (home && command.ends_with(" --hidden --mine")).then_some(file)
}

/// The home folder that was named, if one was: then data and settings lie below it side by side.
pub(crate) fn home_of(dirs: &Dirs) -> Option<&Path> {
    let home = dirs.data.parent()?;
    (dirs.data == home.join("data") && dirs.config == home.join("config")).then_some(home)
}

fn entry_text(program: &Path, home: Option<&Path>) -> Option<String> {
    let mut command = quoted(program)?;
    if let Some(home) = home {
        command.extend([" --home ", &quoted(home)?]);
    }
    Some(format!(
        "[Desktop Entry]\nType=Application\nName=Neurino\nComment=Earns while this computer is on\n\
         Exec={command} --hidden --mine\nIcon=neurino\nTerminal=false\n"
    ))
}

/// A path as a desktop entry's command wants it; `None` for one that no entry can hold.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control))?;
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            // Once for the quotes, once for the value of a key.
            '\\' => quoted.push_str("\\\\\\\\"),
            '"' | '`' | '$' => quoted.extend(["\\\\", c.encode_utf8(&mut [0; 4])]),
            '%' => quoted.push_str("%%"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Some(quoted)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_written_found_switched_off_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(root.path().join("my home"))).unwrap();
        let config = root.path().join("config");
        let program = Path::new("/opt/neurino/neurino");
        let autostart = Autostart::new(Some(program), Some(&config), &dirs);
        assert_eq!(autostart.is_on(), Some(false));
        autostart.set(false).unwrap();
        autostart.set(true).unwrap();
        assert_eq!(autostart.is_on(), Some(true));
        let file = config.join("autostart/neurino.desktop");
        let text = std::fs::read_to_string(&file).unwrap();
        let home = root.path().join("my home");
        let line = format!(
            "\nExec=\"/opt/neurino/neurino\" --home \"{}\" --hidden --mine\n",
            home.display()
        );
        assert!(text.contains(&line), "{text}");
        // As GNOME's and KDE's settings switch it off.
        std::fs::write(&file, format!("{text}Hidden=true\n")).unwrap();
        assert_eq!(autostart.is_on(), Some(false));
        autostart.set(true).unwrap();
        assert_eq!(autostart.is_on(), Some(true));
        autostart.set(false).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn an_appimage_starts_as_its_own_file_and_not_where_it_was_mounted() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(root.path().join("home"))).unwrap();
        let config = root.path().join("config");
        let mounted = Path::new("/tmp/.mount_NeurinA1/usr/bin/neurino");
        let image = root.path().join("Neurino.AppImage");
        std::fs::write(&image, "").unwrap();
        let edition = neurino_update::Edition::Desktop;
        let place = Place::of(mounted.into(), Some(image.clone()), edition);
        let program = program_to_start(Some(mounted), Some(&place)).unwrap();
        assert_eq!(program, image);
        assert_eq!(program_to_start(None, Some(&place)), None, "nothing to start on its own");

        // One that an earlier version wrote is put right, unless it was switched off.
        Autostart::new(Some(mounted), Some(&config), &dirs).set(true).unwrap();
        let file = config.join("autostart/neurino.desktop");
        let now = Autostart::new(Some(program), Some(&config), &dirs);
        let stale = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{stale}Hidden=true\n")).unwrap();
        now.mend();
        assert!(std::fs::read_to_string(&file).unwrap().contains("/.mount_"));
        std::fs::write(&file, stale).unwrap();
        now.mend();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("Neurino.AppImage") && !text.contains("/.mount_"), "{text}");
    }

    #[test]
    fn odd_paths_are_quoted_or_refused() {
        let text = |path: &str| quoted(Path::new(path));
        assert_eq!(text("/a b").as_deref(), Some("\"/a b\""));
        assert_eq!(text("/50%").as_deref(), Some("\"/50%%\""));
        assert_eq!(text("/a$\"`").as_deref(), Some("\"/a\\\\$\\\\\"\\\\`\""));
        assert_eq!(text("/a\\b").as_deref(), Some("\"/a\\\\\\\\b\""));
        assert_eq!(text("/a\nExec=evil"), None);
    }

    #[test]
    fn without_a_program_or_a_desktop_nothing_is_promised() {
        let dirs = Dirs::discover(Some("/tmp/x".into())).unwrap();
        let none = Autostart::new(None, Some(Path::new("/c")), &dirs);
        assert_eq!(none.is_on(), None);
        assert!(none.set(true).is_err());
    }
}
