//! What the person chose for each card, in `settings.toml` among everything else that stands there.

use std::collections::BTreeMap;

use neurino_protocol::cards::{CardChoice, CardRole};

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::settings::Settings;
use crate::settings_lines::quoted;

/// By UUID, or `processor`: what was chosen. A card that is not here is used for everything.
pub type CardChoices = BTreeMap<String, CardChoice>;

impl Settings {
    /// Writes one choice into the file and leaves the rest of it as the person wrote it, comments
    /// included, unless the section is written in a way that takes a rewrite of the file. The usual
    /// choice takes no line.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::ParseSettings`], [`ConfigError::Write`]; then the file is
    /// what it was.
    pub fn save_card(dirs: &Dirs, card: &str, choice: &CardChoice) -> Result<(), ConfigError> {
        let mut settings = Self::read(dirs)?;
        let line = if *choice == CardChoice::default() {
            settings.cards.remove(card);
            None
        } else {
            settings.cards.insert(card.to_owned(), choice.clone());
            Some(line(card, choice))
        };
        let names = [card.to_owned(), quoted(card), format!("'{card}'")];
        settings.save_lines(dirs, "[cards]", &[(&names, line)])
    }
}

/// A choice as a line of the section.
fn line(card: &str, choice: &CardChoice) -> String {
    let name =
        choice.name.as_ref().map_or(String::new(), |name| format!("name = {}, ", quoted(name)));
    let role = match choice.role {
        CardRole::Both => "both",
        CardRole::Text => "text",
        CardRole::Pictures => "pictures",
    };
    format!("{} = {{ {name}use = {}, role = \"{role}\" }}", quoted(card), choice.on)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_protocol::cards::CardRole;

    use super::*;

    fn dirs() -> (tempfile::TempDir, Dirs) {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        (home, dirs)
    }

    #[test]
    fn a_choice_reads_back_and_comments_stay() {
        let (_home, dirs) = dirs();
        let off = CardChoice { on: false, role: CardRole::Text, name: Some("Left \"one\"".into()) };
        Settings::save_card(&dirs, "GPU-1", &off).unwrap();
        assert_eq!(Settings::read(&dirs).unwrap().cards["GPU-1"], off, "there was no file");

        let own = "# mine\n[engine]\ndevice = \"cpu\" # for now\n\n[cards]\n# the old one\n\
                   GPU-2 = { use = false }\n";
        std::fs::write(Settings::path(&dirs), own).unwrap();
        let pictures = CardChoice { role: CardRole::Pictures, ..CardChoice::default() };
        Settings::save_card(&dirs, "GPU-1", &pictures).unwrap();
        let text = std::fs::read_to_string(Settings::path(&dirs)).unwrap();
        for kept in ["# mine", "# for now", "# the old one"] {
            assert!(text.contains(kept), "{text}");
        }
        let settings = Settings::read(&dirs).unwrap();
        assert_eq!(settings.cards["GPU-1"], pictures);
        assert!(!settings.cards["GPU-2"].on);

        Settings::save_card(&dirs, "GPU-1", &CardChoice::default()).unwrap();
        assert!(!Settings::read(&dirs).unwrap().cards.contains_key("GPU-1"));
    }

    #[test]
    fn a_section_written_in_another_way_is_rewritten() {
        let (_home, dirs) = dirs();
        for other in [
            "[cards.GPU-1]\nuse = false\n",
            "cards = { GPU-1 = { use = false }, GPU-2 = { use = false } }\n",
            "cards.GPU-1.use = false\n",
        ] {
            std::fs::write(Settings::path(&dirs), other).unwrap();
            let text = CardChoice { role: CardRole::Text, ..CardChoice::default() };
            Settings::save_card(&dirs, "GPU-1", &text).unwrap();
            let settings = Settings::read(&dirs).unwrap();
            assert_eq!(settings.cards["GPU-1"], text, "{other}");
            Settings::save_card(&dirs, "GPU-1", &CardChoice::default()).unwrap();
            assert!(!Settings::read(&dirs).unwrap().cards.contains_key("GPU-1"), "{other}");
        }
    }

    #[test]
    fn a_file_with_a_mistake_is_left_alone() {
        let (_home, dirs) = dirs();
        for wrong in ["[cards]\nGPU-1 = { use = 7 }\n", "[cards.GPU-1]\nroll = \"text\"\n"] {
            std::fs::write(Settings::path(&dirs), wrong).unwrap();
            let error = Settings::save_card(&dirs, "GPU-1", &CardChoice::default()).unwrap_err();
            assert!(matches!(error, ConfigError::ParseSettings { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(Settings::path(&dirs)).unwrap(), wrong);
        }
    }
}
