//! The guide of the first start: which step, and what the steps have to say. It never waits for a
//! network.

use neurino_config::Onboarding;
use neurino_model_store::{ModelManifest, Source};
use neurino_protocol::ErrorBody;
use neurino_protocol::onboarding::{FirstModel, OnboardingCommand, OnboardingStep, OnboardingView};

use crate::{App, internal, lock, told_with_causes};

impl App {
    pub(crate) fn onboarding(
        &self,
        command: OnboardingCommand,
    ) -> Result<OnboardingView, ErrorBody> {
        let there = *lock(&self.onboarding);
        match command {
            OnboardingCommand::Look => {}
            OnboardingCommand::Go { step } => self.remember(Onboarding { step, ..there })?,
            OnboardingCommand::Again => {
                self.remember(Onboarding { step: OnboardingStep::Reward, finished: false })?;
            }
            OnboardingCommand::Finish => self.remember(Onboarding { finished: true, ..there })?,
            OnboardingCommand::AtLogin { on } => self.autostart.set(on)?,
        }
        Ok(self.onboarding_view())
    }

    fn onboarding_view(&self) -> OnboardingView {
        let there = *lock(&self.onboarding);
        // It may have moved since the start.
        let folder = &self.store.root();
        let existing = folder.ancestors().find(|path| path.is_dir()).unwrap_or(folder);
        let first = [Self::starter_model(), Self::image_starter_model()];
        let catalog = self.store.catalog();
        let models = first.iter().filter_map(|id| catalog.get(id));
        OnboardingView {
            open: !there.finished,
            step: there.step,
            models_folder: folder.display().to_string(),
            free_bytes: neurino_hardware::disk_free_bytes(existing).ok(),
            models: models
                .map(|model| FirstModel {
                    model: model.id.clone(),
                    comes_along: self.comes_along(model),
                })
                .collect(),
            at_login: self.autostart.is_on(),
        }
    }

    /// Whether a model's files were installed with the program.
    fn comes_along(&self, model: &ModelManifest) -> bool {
        model.files.iter().all(|file| {
            file.sources.iter().any(|source| match source {
                Source::Bundled { path } => self.dirs.resources.join(path).is_file(),
                Source::Inline { .. } => true,
                Source::Http { .. } | Source::PythonPackage { .. } => false,
            })
        })
    }

    fn remember(&self, onboarding: Onboarding) -> Result<(), ErrorBody> {
        self.onboarding_file.save(onboarding).map_err(|e| internal(told_with_causes(&e)))?;
        *lock(&self.onboarding) = onboarding;
        Ok(())
    }
}

/// Where the guide begins: where it was left; over, for somebody who earned before there was one.
pub(crate) fn begin(found: Option<Onboarding>, has_earned: bool) -> Onboarding {
    found.unwrap_or(Onboarding { step: OnboardingStep::Reward, finished: has_earned })
}
