//! Which schedule the pictures of a model take, where it is not the network's own: by the names of a
//! `model.toml`, or as diffusers' `scheduler_config.json` says.

use std::path::Path;

use serde::Deserialize;

use super::discrete::{DiscreteSchedule, Spacing};
use super::{Ddim, DpmLevels, DpmSolver, Euler, EulerAncestral, NoiseScheduler, SchedulerError};
use crate::DiffusionError;

/// A schedule before the number of steps is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// DPM-Solver++ 2M.
    DpmSolver {
        /// Whether each step adds noise.
        stochastic: bool,
        /// Which noise levels it takes.
        levels: DpmLevels,
    },
    /// Euler's method.
    Euler(Spacing),
    /// Euler's method with noise added at each step.
    EulerAncestral(Spacing),
    /// DDIM without added noise.
    Ddim {
        /// Whether the last step ends without any noise, instead of at the first trained level.
        to_clean: bool,
    },
}

/// Names of a `model.toml` and what they mean.
const NAMES: [(&str, Method); 7] = [
    ("dpmpp_2m_sde_karras", Method::SD15),
    ("dpmpp_2m_sde", Method::dpm(true, DpmLevels::Spaced(Spacing::Linspace))),
    ("dpmpp_2m_karras", Method::dpm(false, DpmLevels::Karras)),
    ("dpmpp_2m", Method::dpm(false, DpmLevels::Spaced(Spacing::Linspace))),
    ("euler", Method::SDXL),
    ("euler_ancestral", Method::EulerAncestral(Spacing::LEADING)),
    ("ddim", Method::Ddim { to_clean: false }),
];

impl Method {
    /// The network's for Stable Diffusion 1.x, whatever a model's folder says.
    pub const SD15: Self = Self::dpm(true, DpmLevels::Karras);
    /// The network's for SDXL.
    pub const SDXL: Self = Self::Euler(Spacing::LEADING);

    const fn dpm(stochastic: bool, levels: DpmLevels) -> Self {
        Self::DpmSolver { stochastic, levels }
    }

    /// The schedule of a name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find_map(|(known, method)| (*known == name).then_some(*method))
    }

    /// What picture programs call it.
    pub fn sampler(self) -> &'static str {
        match self {
            Self::DpmSolver { stochastic: true, levels: DpmLevels::Karras } => {
                "DPM++ 2M SDE Karras"
            }
            Self::DpmSolver { stochastic: true, .. } => "DPM++ 2M SDE",
            Self::DpmSolver { levels: DpmLevels::Karras, .. } => "DPM++ 2M Karras",
            Self::DpmSolver { .. } => "DPM++ 2M",
            Self::Euler(_) => "Euler",
            Self::EulerAncestral(_) => "Euler a",
            Self::Ddim { .. } => "DDIM",
        }
    }

    /// All names, for messages.
    pub fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// Reads diffusers' `scheduler_config.json`.
    ///
    /// # Errors
    /// `Config` if it is not that, or describes a schedule that is not among these.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let config = |problem| DiffusionError::Config { file: path.to_owned(), problem };
        let text = std::fs::read(path).map_err(|e| config(format!("cannot be read ({e})")))?;
        Self::from_json(&text).map_err(config)
    }

    /// The schedule of the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let json: Json =
            serde_json::from_slice(text).map_err(|e| format!("is not understood ({e})"))?;
        json.check()?;
        match json.class_name.as_str() {
            "DPMSolverMultistepScheduler" => json.dpm_solver(),
            "EulerDiscreteScheduler" if json.use_karras_sigmas => {
                Err("asks for Karras' levels with Euler's method, which this build has not".into())
            }
            "EulerDiscreteScheduler" => json.spacing(Spacing::Linspace).map(Self::Euler),
            "EulerAncestralDiscreteScheduler" => {
                json.spacing(Spacing::Linspace).map(Self::EulerAncestral)
            }
            "DDIMScheduler" => json.ddim(),
            other => Err(format!(
                "names the schedule `{other}`, which this build has not; it has \
                 DPMSolverMultistepScheduler, EulerDiscreteScheduler, \
                 EulerAncestralDiscreteScheduler and DDIMScheduler"
            )),
        }
    }

    /// The schedule for a number of steps.
    ///
    /// # Errors
    /// `Steps`.
    pub fn scheduler(
        self,
        trained: &DiscreteSchedule,
        steps: usize,
    ) -> Result<Box<dyn NoiseScheduler + Send>, SchedulerError> {
        Ok(match self {
            Self::DpmSolver { stochastic, levels } => {
                Box::new(DpmSolver::new(trained, steps, stochastic, levels)?)
            }
            Self::Euler(spacing) => Box::new(Euler::spaced(trained, steps, spacing)?),
            Self::EulerAncestral(spacing) => {
                Box::new(EulerAncestral::spaced(trained, steps, spacing)?)
            }
            Self::Ddim { to_clean } => Box::new(Ddim::ending(trained, steps, to_clean)?),
        })
    }
}

/// `scheduler_config.json`, with the defaults of diffusers' classes.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
struct Json {
    #[serde(rename = "_class_name")]
    class_name: String,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    beta_schedule: Option<String>,
    num_train_timesteps: Option<usize>,
    prediction_type: Option<String>,
    timestep_spacing: Option<String>,
    steps_offset: Option<usize>,
    #[serde(default)]
    use_karras_sigmas: bool,
    algorithm_type: Option<String>,
    solver_order: Option<usize>,
    solver_type: Option<String>,
    final_sigmas_type: Option<String>,
    interpolation_type: Option<String>,
    #[serde(default)]
    thresholding: bool,
    #[serde(default)]
    use_lu_lambdas: bool,
    #[serde(default)]
    rescale_betas_zero_snr: bool,
    clip_sample: Option<bool>,
    set_alpha_to_one: Option<bool>,
}

impl Json {
    /// Refuses what all schedules here take for granted and this one does not say.
    fn check(&self) -> Result<(), String> {
        let text = |found: &Option<String>, expect: &str, what: &str| match found {
            Some(found) if found != expect => {
                Err(format!("has `{what}` {found}, and this build knows {expect}"))
            }
            _ => Ok(()),
        };
        text(&self.prediction_type, "epsilon", "prediction_type")?;
        text(&self.beta_schedule, "scaled_linear", "beta_schedule")?;
        text(&self.final_sigmas_type, "zero", "final_sigmas_type")?;
        text(&self.interpolation_type, "linear", "interpolation_type")?;
        let trained = [(self.beta_start, 0.000_85), (self.beta_end, 0.012)];
        let differs = |(found, expect): (Option<f64>, f64)| {
            found.is_some_and(|found| (found - expect).abs() > 1e-9)
        };
        if trained.into_iter().any(differs) || self.num_train_timesteps.is_some_and(|n| n != 1000) {
            return Err("has other noise levels than Stable Diffusion was trained with".into());
        }
        if self.thresholding || self.use_lu_lambdas || self.rescale_betas_zero_snr {
            return Err("asks for a variant of the schedule that this build has not".into());
        }
        Ok(())
    }

    fn spacing(&self, usual: Spacing) -> Result<Spacing, String> {
        let offset = self.steps_offset.unwrap_or(0);
        if offset > 1 {
            return Err(format!("has the `steps_offset` {offset}; 0 and 1 are known"));
        }
        match self.timestep_spacing.as_deref() {
            None if usual == Spacing::LEADING => Ok(Spacing::Leading { offset }),
            None => Ok(usual),
            Some("leading") => Ok(Spacing::Leading { offset }),
            Some("linspace") => Ok(Spacing::Linspace),
            Some("trailing") => Ok(Spacing::Trailing),
            Some(other) => Err(format!("has the unknown `timestep_spacing` {other}")),
        }
    }

    fn dpm_solver(&self) -> Result<Method, String> {
        if self.solver_order.is_some_and(|order| order != 2)
            || self.solver_type.as_deref().is_some_and(|kind| kind != "midpoint")
        {
            return Err("describes a solver other than midpoint of order 2".into());
        }
        let stochastic = match self.algorithm_type.as_deref() {
            None | Some("dpmsolver++") => false,
            Some("sde-dpmsolver++") => true,
            Some(other) => return Err(format!("has the unknown `algorithm_type` {other}")),
        };
        let levels = if self.use_karras_sigmas {
            DpmLevels::Karras
        } else {
            DpmLevels::Spaced(self.spacing(Spacing::Linspace)?)
        };
        Ok(Method::DpmSolver { stochastic, levels })
    }

    fn ddim(&self) -> Result<Method, String> {
        if self.clip_sample != Some(false) {
            return Err("asks for samples that are cut off, which latents must not be".into());
        }
        let spacing = self.spacing(Spacing::LEADING)?;
        if spacing != Spacing::LEADING {
            return Err("has DDIM on other timesteps than \"leading\" ones with offset 1".into());
        }
        Ok(Method::Ddim { to_clean: self.set_alpha_to_one.unwrap_or(true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_schedule_of_its_own() {
        for (name, method) in NAMES {
            assert_eq!(Method::named(name), Some(method));
            assert_eq!(NAMES.iter().filter(|(_, other)| *other == method).count(), 1, "{name}");
            let made = method.scheduler(&DiscreteSchedule::stable_diffusion(), 7);
            assert_eq!(made.map(|made| made.timesteps().len()), Ok(7), "{name}");
        }
        assert_eq!(Method::named("heun"), None);
        assert!(Method::names().contains("euler_ancestral"));
    }

    #[test]
    fn the_networks_own_files_are_read() {
        // What the original miner makes of a Stable Diffusion 1.5 folder.
        let text = br#"{"_class_name": "DPMSolverMultistepScheduler", "steps_offset": 1,
            "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": true, "trained_betas": null}"#;
        assert_eq!(Method::from_json(text), Ok(Method::SD15));
        let text =
            br#"{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "steps_offset": 1,
            "timestep_spacing": "leading", "prediction_type": "epsilon"}"#;
        assert_eq!(Method::from_json(text), Ok(Method::SDXL));
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        for (text, word) in [
            (r#"{"_class_name": "PNDMScheduler"}"#, "PNDMScheduler"),
            (r#"{"_class_name": "HeunDiscreteScheduler"}"#, "HeunDiscreteScheduler"),
            (
                r#"{"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction"}"#,
                "v_prediction",
            ),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#,
                "dpmsolver",
            ),
            (r#"{"_class_name": "DDIMScheduler"}"#, "cut off"),
            (r#"{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.02}"#, "noise levels"),
            (
                r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "odd"}"#,
                "timestep_spacing",
            ),
            ("{", "not understood"),
        ] {
            let refused = Method::from_json(text.as_bytes());
            assert!(refused.as_ref().is_err_and(|why| why.contains(word)), "{text}: {refused:?}");
        }
    }
}
