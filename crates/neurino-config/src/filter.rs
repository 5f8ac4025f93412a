//! The operator's content filter, in `settings.toml` among everything else that stands there.

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::settings::Settings;
use crate::settings_lines::quoted;

impl Settings {
    /// Writes the filter into the file and leaves the rest of it as the person wrote it.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::ParseSettings`], [`ConfigError::Write`]; then the file is
    /// what it was.
    pub fn save_filter(dirs: &Dirs, on: bool, words: &[String]) -> Result<(), ConfigError> {
        let mut settings = Self::read(dirs)?;
        settings.jobs.refuse = Some(on);
        settings.jobs.refuse_words = words.to_vec();
        let list: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let (switch, words) = (["refuse".to_owned()], ["refuse_words".to_owned()]);
        let lines: [(&[String], _); 2] = [
            (&switch, Some(format!("refuse = {on}"))),
            (&words, Some(format!("refuse_words = [{}]", list.join(", ")))),
        ];
        settings.save_lines(dirs, "[jobs]", &lines)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_filter_reads_back_and_comments_stay() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        assert!(!Settings::read(&dirs).unwrap().jobs.refuses(), "off by default");
        let words = ["gore".to_owned(), "severed \"head\"".to_owned(), "a, b # c".to_owned()];
        for own in [
            "",
            crate::settings::TEMPLATE,
            "# mine\n[jobs]\nfollow_network = false # why\nrefuse_words = [\"old\"]\n\n[cards]\n",
            "[jobs]\nrefuse_words = [\n  \"old\",\n]\n",
            "jobs.refuse_words = [\"old\"]\n",
        ] {
            std::fs::write(Settings::path(&dirs), own).unwrap();
            let before = Settings::read(&dirs).unwrap().jobs;
            assert_eq!(before.refuses(), own.contains("\"old\""), "a list alone is on: {own}");
            for on in [true, false] {
                Settings::save_filter(&dirs, on, &words).unwrap();
                let jobs = Settings::read(&dirs).unwrap().jobs;
                assert_eq!((jobs.refuses(), &jobs.refuse_words[..]), (on, &words[..]), "{own}");
                assert_eq!(jobs.follow_network, before.follow_network);
            }
            let text = std::fs::read_to_string(Settings::path(&dirs)).unwrap();
            assert!(!own.contains("# mine") || text.contains("# mine") && text.contains("# why"));
            Settings::save_filter(&dirs, true, &[]).unwrap();
            assert!(!Settings::read(&dirs).unwrap().jobs.refuses(), "nothing to look for");
        }
    }
}
