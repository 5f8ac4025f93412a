//! How far the guide of the first start is: a file so small that it is written at every step, so
//! that a program that was killed goes on where it was.

use std::io;
use std::path::PathBuf;

use neurino_protocol::onboarding::OnboardingStep;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::dirs::Dirs;
use crate::error::ConfigError;

/// `onboarding.toml` in the configuration folder.
#[derive(Debug, Clone)]
pub struct OnboardingFile {
    path: PathBuf,
}

/// How far the guide is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onboarding {
    /// The step to go on with.
    pub step: OnboardingStep,
    /// Whether it is over, to its end or given up.
    pub finished: bool,
}

impl OnboardingFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.config.join("onboarding.toml") }
    }

    /// How far the guide is; `None` when it never began, or nobody can tell any more.
    pub fn load(&self) -> Option<Onboarding> {
        toml::from_str(&std::fs::read_to_string(&self.path).ok()?).ok()
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, onboarding: Onboarding) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Write { path: self.path.clone(), source };
        let text = toml::to_string(&onboarding).map_err(|error| failed(io::Error::other(error)))?;
        atomic::write(&self.path, text.as_bytes()).map_err(failed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_again_and_a_damaged_file_begins_anew() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = OnboardingFile::new(&dirs);
        assert_eq!(file.load(), None);
        for step in [OnboardingStep::Key, OnboardingStep::FirstJob] {
            let there = Onboarding { step, finished: step == OnboardingStep::FirstJob };
            file.save(there).unwrap();
            assert_eq!(file.load(), Some(there));
        }
        std::fs::write(&file.path, "step = \"nowhere\"\nfinished = true\n").unwrap();
        assert_eq!(file.load(), None);
    }
}
