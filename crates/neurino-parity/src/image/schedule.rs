//! `sched/`: tables of noise levels, and samples led through them with given model outputs.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use neurino_diffusion::NoiseScheduler;
use neurino_diffusion::scheduler::{
    Coefficients, DiscreteSchedule, DpmSolver, Euler, FlowMatchEuler, FlowShift, Method,
};
use neurino_nn::device::{download, upload};
use serde::Deserialize;
use serde_json::Value;

use super::AnyError;
use crate::case::{Comparison, Report};
use crate::reference::{Tensors, json};

/// Largest difference of a noise level or a time, relative to it.
const TABLE_LIMIT: f64 = 1e-5;
/// Largest difference in a trajectory, relative to the largest value of the tensor.
const SAMPLE_LIMIT: f64 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    sd15: Trained,
    #[serde(default)]
    sdxl: Trained,
    /// A `scheduler_config.json` of Flux.
    flux: Option<Value>,
    cases: Vec<Case>,
}

/// The noise levels of a model, where a folder names them.
#[derive(Deserialize, Default, Clone, Copy)]
struct Trained {
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    num_train_timesteps: Option<usize>,
}

impl Trained {
    fn schedule(self) -> DiscreteSchedule {
        match (self.beta_start, self.beta_end, self.num_train_timesteps) {
            (Some(start), Some(end), Some(levels)) => {
                DiscreteSchedule::scaled_linear(start, end, levels)
            }
            _ => DiscreteSchedule::stable_diffusion(),
        }
    }
}

#[derive(Deserialize)]
struct Case {
    prefix: String,
    scheduler: String,
    steps: usize,
    init_noise_sigma: Option<f32>,
    image_tokens: Option<usize>,
    mu: Option<f64>,
    /// A `scheduler_config.json`: what the name alone does not say.
    config: Option<Value>,
}

/// The network's schedules, and the others.
const FILES: [&str; 2] = ["schedules", "samplers"];

pub(super) fn run(folder: &Path, device: &Device, report: &mut Report<'_>) {
    for name in FILES {
        of_file(folder, name, device, report);
    }
}

fn of_file(folder: &Path, name: &str, device: &Device, report: &mut Report<'_>) {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let (cases, tensors) = (file("json"), file("safetensors"));
    if !cases.is_file() || !tensors.is_file() {
        return;
    }
    let (reference, tensors) = match (json::<Reference>(&cases), Tensors::open(&tensors)) {
        (Ok(cases), Ok(tensors)) => (cases, tensors),
        (Err(error), _) | (_, Err(error)) => {
            return report.failed(&format!("sched/{name}"), &error);
        }
    };
    let shift = match &reference.flux {
        Some(flux) => match FlowShift::from_json(flux.to_string().as_bytes()) {
            Ok(shift) => shift,
            Err(why) => {
                let why = format!("the schedule of Flux {why}");
                return report.equal(&format!("sched/{name}"), Err(why));
            }
        },
        None => FlowShift::DEV,
    };
    if tensors.has("alphas_cumprod") {
        let found = reference.sd15.schedule();
        match tensors.floats("alphas_cumprod") {
            Ok(expect) => {
                let found = Comparison::of_ratios(found.alphas_cumprod(), &expect, TABLE_LIMIT);
                report.close("sched/alphas_cumprod", &found);
            }
            Err(error) => report.failed("sched/alphas_cumprod", &error),
        }
    }
    for case in &reference.cases {
        let name = format!("sched/{}", case.prefix);
        let made: Result<Box<dyn NoiseScheduler>, _> = match case.scheduler.as_str() {
            _ if case.config.is_some() || OTHERS.contains(&case.scheduler.as_str()) => {
                match case.method() {
                    Ok(method) => method
                        .scheduler(&reference.sd15.schedule(), case.steps)
                        .map(|scheduler| scheduler as Box<dyn NoiseScheduler>),
                    Err(error) => {
                        report.failed(&name, error.as_ref());
                        continue;
                    }
                }
            }
            "dpmpp_2m_sde_karras" => DpmSolver::sde_karras(&reference.sd15.schedule(), case.steps)
                .map(|scheduler| Box::new(scheduler) as Box<dyn NoiseScheduler>),
            "euler" => Euler::new(&reference.sdxl.schedule(), case.steps)
                .map(|scheduler| Box::new(scheduler) as _),
            "flow" => FlowMatchEuler::new(case.steps, shift, case.image_tokens.unwrap_or(0))
                .map(|scheduler| Box::new(scheduler) as _),
            other => {
                report.skipped(&name, &format!("this build does not know the schedule `{other}`"));
                continue;
            }
        };
        let done = made.map_err(AnyError::from).and_then(|scheduler| {
            tables(scheduler.as_ref(), case, shift, &tensors, report)?;
            walk(scheduler.as_ref(), case, &tensors, device, report)
        });
        if let Err(error) = done {
            report.failed(&name, error.as_ref());
        }
    }
}

/// Schedules that are not the network's, by the names of a `model.toml`.
const OTHERS: [&str; 5] =
    ["dpmpp_2m_sde", "dpmpp_2m_karras", "dpmpp_2m", "euler_ancestral", "ddim"];

impl Case {
    /// What its configuration says, or its name.
    fn method(&self) -> Result<Method, AnyError> {
        match &self.config {
            Some(config) => Ok(Method::from_json(config.to_string().as_bytes())?),
            None => Method::named(&self.scheduler).ok_or_else(|| "an unknown schedule".into()),
        }
    }
}

fn tables(
    scheduler: &dyn NoiseScheduler,
    case: &Case,
    shift: FlowShift,
    tensors: &Tensors,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let name = |part: &str| format!("sched/{} {part}", case.prefix);
    let times: Vec<f32> = scheduler.timesteps().iter().map(|&t| t as f32).collect();
    let expect = tensors.floats(&format!("{}.timesteps", case.prefix))?;
    let whole = expect.iter().all(|time| time.fract() == 0.0);
    let limit = if whole { 0.0 } else { TABLE_LIMIT };
    report.close(&name("timesteps"), &Comparison::of_ratios(&times, &expect, limit));
    // DDIM has none in the reference.
    let sigmas = format!("{}.sigmas", case.prefix);
    if tensors.has(&sigmas) {
        let expect = tensors.floats(&sigmas)?;
        let found = Comparison::of_ratios(scheduler.sigmas(), &expect, TABLE_LIMIT);
        report.close(&name("sigmas"), &found);
    }
    if let Some(start) = case.init_noise_sigma {
        let found = Comparison::of_ratios(&[scheduler.init_noise_sigma()], &[start], TABLE_LIMIT);
        report.close(&name("init_noise_sigma"), &found);
    }
    // One without dynamic shifting makes no use of it.
    let found = case.image_tokens.and_then(|tokens| shift.mu(tokens));
    if let (Some(mu), Some(found)) = (case.mu, found) {
        let found = Comparison::of_ratios(&[found as f32], &[mu as f32], TABLE_LIMIT);
        report.close(&name("mu"), &found);
    }
    Ok(())
}

/// Goes through all steps, where the reference did.
fn walk(
    scheduler: &dyn NoiseScheduler,
    case: &Case,
    tensors: &Tensors,
    device: &Device,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let place = |part: &str, i: usize| format!("{}.{part}{i}", case.prefix);
    if !tensors.has(&place("sample", 0)) {
        return Ok(());
    }
    let mut comparison = Comparison::new(SAMPLE_LIMIT);
    let flat = |part: &str, i: usize| -> Result<Tensor<1>, AnyError> {
        let values = tensors.floats(&place(part, i))?;
        let len = values.len();
        Ok(upload(values, [len], device))
    };
    let mut sample = scheduler.start(flat("sample", 0)?);
    for i in 0..case.steps {
        let coefficients = Coefficients::upload(&scheduler.coefficients(i), device);
        if tensors.has(&place("scaled", i)) {
            let input = scheduler.scale_model_input(sample.values.clone(), &coefficients);
            let (input, expect) = (download(input)?, tensors.floats(&place("scaled", i))?);
            comparison.add_rows(&format!("input {i}, "), &input, &expect, expect.len());
        }
        let noise = scheduler.needs_noise().then(|| flat("noise", i)).transpose()?;
        sample = scheduler.step(flat("output", i)?, sample, noise, &coefficients);
        let found = download(sample.values.clone())?;
        let expect = tensors.floats(&place("sample", i + 1))?;
        comparison.add_rows(&format!("sample {}, ", i + 1), &found, &expect, expect.len());
    }
    report.close(&format!("sched/{} trajectory", case.prefix), &comparison);
    Ok(())
}
