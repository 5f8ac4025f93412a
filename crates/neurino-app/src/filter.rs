//! The operator's content filter: off by default, changed while mining goes on.

use neurino_config::Settings;
use neurino_miner::ContentFilter;
use neurino_protocol::filter::{FilterCommand, FilterView};
use neurino_protocol::{ErrorBody, ErrorCode};

use crate::{App, internal, lock, told_with_causes};

/// What the settings say.
pub(crate) fn of_settings(settings: &Settings) -> FilterView {
    let jobs = &settings.jobs;
    FilterView {
        on: jobs.refuse.unwrap_or(!jobs.refuse_words.is_empty()),
        words: jobs.refuse_words.clone(),
    }
}

/// What a miner refuses for it.
pub(crate) fn for_miner(view: &FilterView) -> ContentFilter {
    ContentFilter::new(if view.on { &view.words } else { &[] })
}

/// The words as they are kept: without what surrounds them, each once, none that no prompt can hold.
fn tidy(words: Vec<String>) -> Result<Vec<String>, ErrorBody> {
    let refused = |message: String| {
        Err(ErrorBody::new(ErrorCode::InvalidRequest, message).with_hint("Nothing was changed."))
    };
    let mut kept: Vec<String> = Vec::new();
    for word in words {
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        if word.is_empty() || kept.iter().any(|one| one.to_lowercase() == word.to_lowercase()) {
            continue;
        }
        if !word.chars().any(char::is_alphanumeric) {
            return refused("A word needs a letter or a digit.".into());
        }
        let most = FilterView::WORD_CHARS_MAX;
        if word.chars().count() > most {
            return refused(format!("A word or phrase has at most {most} characters."));
        }
        kept.push(word);
    }
    let most = FilterView::WORDS_MAX;
    if kept.len() > most {
        return refused(format!("The filter takes at most {most} words and phrases."));
    }
    Ok(kept)
}

impl App {
    /// Answers the window about the filter.
    pub(crate) async fn filter(&self, command: FilterCommand) -> Result<FilterView, ErrorBody> {
        if let FilterCommand::Set { filter: FilterView { on, words } } = command {
            let (words, dirs) = (tidy(words)?, self.dirs.clone());
            let written = words.clone();
            let saving =
                tokio::task::spawn_blocking(move || Settings::save_filter(&dirs, on, &written));
            let saved = saving.await.map_err(|_| internal("the filter could not be written"))?;
            saved.map_err(|error| {
                internal(told_with_causes(&error)).with_hint("Nothing was changed.")
            })?;
            let view = FilterView { on, words };
            // In this order: a miner that starts meanwhile takes it, or is told here.
            lock(&self.filter).clone_from(&view);
            if let Some(miner) = lock(&self.mining).miner() {
                miner.refuse(for_miner(&view));
            }
        }
        Ok(lock(&self.filter).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_are_kept_once_and_what_matches_nothing_is_refused() {
        let kept = tidy(words(&[" gore ", "GORE", "", "severed \n head"]));
        assert_eq!(kept, Ok(words(&["gore", "severed head"])));
        let long = "x".repeat(FilterView::WORD_CHARS_MAX + 1);
        let many: Vec<String> = (0..=FilterView::WORDS_MAX).map(|n| n.to_string()).collect();
        for refused in [words(&["!?"]), vec![long], many] {
            let error = tidy(refused).map_err(|error| (error.code, error.hint.is_some()));
            assert_eq!(error, Err((ErrorCode::InvalidRequest, true)));
        }
    }

    #[test]
    fn a_list_in_the_settings_is_on_and_an_empty_one_is_off() {
        let mut settings = Settings::default();
        assert_eq!(of_settings(&settings), FilterView::default());
        settings.jobs.refuse_words = words(&["gore"]);
        let view = of_settings(&settings);
        assert!(view.on && for_miner(&view).is_on());
        settings.jobs.refuse = Some(false);
        let view = of_settings(&settings);
        assert!(!view.on && !for_miner(&view).is_on() && view.words.len() == 1);
    }
}
