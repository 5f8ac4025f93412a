//! What this machine's operator does not want it to compute.

use neurino_core::JobSpec;
use neurino_protocol::{ErrorBody, ErrorCode};

/// Refuses jobs whose prompts hold certain words. Without words, which is the default, it refuses none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentFilter {
    /// Each one or several words, in lower case.
    phrases: Vec<Vec<String>>,
}

impl ContentFilter {
    /// A filter for words and sequences of words. Case and punctuation make no difference, and parts of
    /// longer words are not meant.
    pub fn new(phrases: &[String]) -> Self {
        let phrases = phrases.iter().map(|phrase| words(phrase).collect::<Vec<_>>());
        Self { phrases: phrases.filter(|phrase| !phrase.is_empty()).collect() }
    }

    /// Whether it refuses anything.
    pub fn is_on(&self) -> bool {
        !self.phrases.is_empty()
    }

    /// # Errors
    /// `Declined`, which names neither prompt nor word: the answer travels.
    pub(crate) fn check(&self, spec: &JobSpec) -> Result<(), ErrorBody> {
        if !self.is_on() {
            return Ok(());
        }
        let is_refused = match spec {
            JobSpec::Text(job) => job.messages.iter().any(|m| self.matches(&m.content)),
            JobSpec::Image(job) => self.matches(&job.prompt),
        };
        if is_refused {
            let message = "the operator of this machine does not take such content";
            return Err(ErrorBody::new(ErrorCode::Declined, message));
        }
        Ok(())
    }

    fn matches(&self, text: &str) -> bool {
        let text: Vec<String> = words(text).collect();
        let holds = |phrase: &Vec<String>| text.windows(phrase.len()).any(|part| part == phrase);
        self.phrases.iter().any(holds)
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|c: char| !c.is_alphanumeric());
    parts.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use neurino_core::{ChatMessage, ImageJob, ModelId, Role, TextJob};

    use super::*;

    #[test]
    fn whole_words_and_phrases_are_refused_wherever_they_stand() {
        let filter = ContentFilter::new(&["Gore".into(), "severed  head".into(), " ,".into()]);
        assert!(filter.is_on());
        let model = || ModelId::new("m").expect("valid");
        let picture =
            |prompt: &str| filter.check(&JobSpec::Image(ImageJob::new(model(), prompt, 64)));
        assert!(picture("a lighthouse, al gorem, a head").is_ok());
        for refused in ["GORE", "some (gore:1.3)", "the severed, head"] {
            assert_eq!(picture(refused).map_err(|e| e.code), Err(ErrorCode::Declined), "{refused}");
        }
        let asked = |content: &str| {
            let messages = vec![ChatMessage::new(Role::User, content)];
            filter.check(&JobSpec::Text(TextJob::new(model(), messages, 8)))
        };
        assert!(asked("hello").is_ok());
        let error = asked("tell me of gore").expect_err("refused");
        assert!(!error.message.contains("gore"));
        let off = ContentFilter::new(&[]);
        assert!(
            !off.is_on() && off.check(&JobSpec::Image(ImageJob::new(model(), "gore", 64))).is_ok()
        );
    }
}
