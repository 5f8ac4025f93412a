//! `model.toml`: what belongs together, where a folder alone does not say it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::DiffusionError;
use crate::pipeline::LoraFile;
use crate::scheduler::Method;

/// The file's name.
const NAME: &str = "model.toml";

/// A base model, and what is changed in it. Paths are relative to the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Manifest {
    /// The checkpoint's file or the diffusers folder.
    pub(super) base: Option<PathBuf>,
    /// An autoencoder instead of the base's.
    pub(super) vae: Option<PathBuf>,
    /// Low-rank updates.
    pub(super) loras: Vec<LoraFile>,
    /// Folders of single components instead of those under their own names.
    pub(super) components: Components,
    /// Another schedule than the network's.
    pub(super) schedule: Option<Schedule>,
}

/// Where a schedule is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Here, by name.
    Named(Method),
    /// In `scheduler/scheduler_config.json` of the base.
    OfBase,
}

/// The name that stands for what the base says.
const OF_BASE: &str = "base";

/// Folders of components.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Components {
    /// The denoising network of Flux, for example of another precision.
    pub(super) transformer: Option<PathBuf>,
    /// The second text encoder.
    pub(super) text_encoder_2: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    base: Option<PathBuf>,
    vae: Option<PathBuf>,
    #[serde(default)]
    loras: Vec<LoraText>,
    #[serde(default)]
    components: Components,
    scheduler: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoraText {
    file: PathBuf,
    #[serde(default = "as_trained")]
    scale: f32,
}

fn as_trained() -> f32 {
    1.0
}

impl Manifest {
    /// Whether a folder has one.
    pub(super) fn is_in(folder: &Path) -> bool {
        folder.join(NAME).is_file()
    }

    /// Reads the one of a folder; an empty one if there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, DiffusionError> {
        let path = folder.join(NAME);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let damaged = |problem: String| DiffusionError::Config { file: path.clone(), problem };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| damaged(format!("cannot be read: {error}")))?;
        let text: Text = toml::from_str(&text)
            .map_err(|error| damaged(format!("is not understood: {}", error.message())))?;
        let inside = |path: PathBuf| folder.join(path);
        let lora = |lora: LoraText| {
            if !lora.scale.is_finite() {
                return Err(damaged("has a `scale` that is no number".into()));
            }
            Ok(LoraFile { path: folder.join(lora.file), scale: lora.scale })
        };
        let schedule = match text.scheduler.as_deref() {
            None => None,
            Some(OF_BASE) => Some(Schedule::OfBase),
            Some(name) => Some(Schedule::Named(Method::named(name).ok_or_else(|| {
                let names = Method::names();
                damaged(format!(
                    "names the scheduler `{name}`, which this build has not; it has {names}, and \
                     `{OF_BASE}` for what the base's own file says"
                ))
            })?)),
        };
        Ok(Self {
            schedule,
            base: text.base.map(inside),
            vae: text.vae.map(inside),
            loras: text.loras.into_iter().map(lora).collect::<Result<_, _>>()?,
            components: Components {
                transformer: text.components.transformer.map(inside),
                text_encoder_2: text.components.text_encoder_2.map(inside),
            },
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest, DiffusionError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), text).unwrap();
        let manifest = Manifest::open(folder.path())?;
        let relative = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().to_owned();
        Ok(Manifest {
            schedule: manifest.schedule,
            base: manifest.base.as_ref().map(relative),
            vae: manifest.vae.as_ref().map(relative),
            loras: manifest
                .loras
                .iter()
                .map(|lora| LoraFile { path: relative(&lora.path), scale: lora.scale })
                .collect(),
            components: Components {
                transformer: manifest.components.transformer.as_ref().map(relative),
                text_encoder_2: manifest.components.text_encoder_2.as_ref().map(relative),
            },
        })
    }

    #[test]
    fn everything_is_optional_and_nothing_is_misread() {
        assert_eq!(Manifest::open(Path::new("/nowhere")).unwrap(), Manifest::default());
        assert_eq!(read("").unwrap(), Manifest::default());
        assert_eq!(read("scheduler = 'base'").unwrap().schedule, Some(Schedule::OfBase));
        let found = read(
            "base = 'b.safetensors'\nvae = 'v.safetensors'\nscheduler = 'ddim'\n[[loras]]\nfile = 'l'\nscale = 0.5\n\
             [[loras]]\nfile = 'm'\n[components]\ntransformer = 't'\n",
        );
        let expect = Manifest {
            schedule: Some(Schedule::Named(Method::Ddim { to_clean: false })),
            base: Some("b.safetensors".into()),
            vae: Some("v.safetensors".into()),
            loras: vec![
                LoraFile { path: "l".into(), scale: 0.5 },
                LoraFile { path: "m".into(), scale: 1.0 },
            ],
            components: Components { transformer: Some("t".into()), text_encoder_2: None },
        };
        assert_eq!(found.unwrap(), expect);
        for wrong in [
            "scheduler = 'heun'",
            "bsae = 'b'",
            "[[loras]]\nscale = 1.0",
            "[[loras]]\nfile = 'l'\nscale = nan",
            "=",
        ] {
            let error = read(wrong).unwrap_err();
            assert!(matches!(error, DiffusionError::Config { .. }), "{wrong}: {error}");
        }
    }
}
