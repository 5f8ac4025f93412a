//! Schedules and the samples they lead through, with given model outputs.

use burn::tensor::{Device, Tensor};
use neurino_diffusion::NoiseScheduler;
use neurino_diffusion::scheduler::{
    Coefficients, Ddim, DiscreteSchedule, DpmSolver, Euler, EulerAncestral, FlowMatchEuler,
    FlowShift, Method, Sample,
};
use neurino_nn::device::{download, upload};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use crate::{assert_close, fixture, floats, values};

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prefix: String,
    scheduler: String,
    steps: usize,
    init_noise_sigma: Option<f32>,
    image_tokens: Option<usize>,
    mu: Option<f64>,
    /// A `scheduler_config.json`, where the name is not one of the network's.
    config: Option<Value>,
}

fn make(case: &Case) -> Box<dyn NoiseScheduler> {
    let trained = DiscreteSchedule::stable_diffusion();
    if let Some(config) = &case.config {
        let method = Method::from_json(config.to_string().as_bytes()).unwrap();
        return method.scheduler(&trained, case.steps).unwrap();
    }
    match case.scheduler.as_str() {
        "dpmpp_2m_sde_karras" => Box::new(DpmSolver::sde_karras(&trained, case.steps).unwrap()),
        "euler" => Box::new(Euler::new(&trained, case.steps).unwrap()),
        "flow" => {
            let tokens = case.image_tokens.unwrap();
            let mu = FlowShift::DEV.mu(tokens).unwrap();
            assert!((mu - case.mu.unwrap()).abs() < 1e-12);
            Box::new(FlowMatchEuler::new(case.steps, FlowShift::DEV, tokens).unwrap())
        }
        other => panic!("{other}"),
    }
}

fn flat(values: &[f32]) -> Tensor<1> {
    upload(values.to_vec(), [values.len()], &Device::flex())
}

fn read(values: &Tensor<1>) -> Vec<f32> {
    download(values.clone()).unwrap()
}

fn coefficients(scheduler: &dyn NoiseScheduler, i: usize) -> Coefficients {
    Coefficients::upload(&scheduler.coefficients(i), &Device::flex())
}

/// Goes step `i`; noise is given to the schedules that take it.
fn go(
    scheduler: &dyn NoiseScheduler,
    output: &[f32],
    sample: Sample,
    noise: &[f32],
    i: usize,
) -> Sample {
    let noise = scheduler.needs_noise().then(|| flat(noise));
    scheduler.step(flat(output), sample, noise, &coefficients(scheduler, i))
}

#[test]
fn schedules_and_trajectories_are_the_references() {
    // The network's own, then the others.
    assert_eq!(walk("schedules"), 12);
    assert_eq!(walk("samplers"), 40);
}

/// Holds the cases of a file to the reference: tables, then samples step by step. Returns how many were
/// walked through.
fn walk(name: &str) -> usize {
    let json = std::fs::read(fixture(&format!("sched/{name}.json"))).unwrap();
    let reference: Reference = serde_json::from_slice(&json).unwrap();
    let bytes = std::fs::read(fixture(&format!("sched/{name}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let trained = DiscreteSchedule::stable_diffusion();
    if tensors.tensor("alphas_cumprod").is_ok() {
        let (found, expect) = (trained.alphas_cumprod(), floats(&tensors, "alphas_cumprod"));
        assert_close("alphas", found, &expect, 1e-5);
        // The rest is the last bit of a betas's square root.
        let same = found.iter().zip(&expect).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
        assert!(same * 5 > found.len() * 4, "{same} of {} are the same bits", found.len());
    }
    let mut walked = 0;
    for case in &reference.cases {
        let prefix = &case.prefix;
        let scheduler = make(case);
        let scheduler = scheduler.as_ref();
        let times = values(&tensors, &format!("{prefix}.timesteps"));
        for (found, expect) in scheduler.timesteps().iter().zip(&times) {
            let fractions = case.scheduler == "flow" || case.scheduler.ends_with("_linspace");
            let limit = if fractions { 1e-5 * expect } else { 0.0 };
            assert!((found - expect).abs() <= limit, "{prefix}: {found} {expect}");
        }
        assert_eq!(scheduler.timesteps().len(), times.len());
        let sigmas = format!("{prefix}.sigmas");
        let sigmas =
            if tensors.tensor(&sigmas).is_ok() { floats(&tensors, &sigmas) } else { Vec::new() };
        for (found, expect) in scheduler.sigmas().iter().zip(&sigmas) {
            assert!((found - expect).abs() <= 1e-5 * expect, "{prefix}: {found} {expect}");
        }
        if let Some(start) = case.init_noise_sigma {
            assert_close(prefix, &[scheduler.init_noise_sigma()], &[start], 1e-5);
        }
        if tensors.tensor(&format!("{prefix}.sample0")).is_err() {
            continue;
        }
        let part = |name: &str, i: usize| floats(&tensors, &format!("{prefix}.{name}{i}"));
        let mut sample = scheduler.start(flat(&part("sample", 0)));
        for i in 0..case.steps {
            let coefficients = coefficients(scheduler, i);
            let input = read(&scheduler.scale_model_input(sample.values.clone(), &coefficients));
            if tensors.tensor(&format!("{prefix}.scaled{i}")).is_ok() {
                assert_close(&format!("{prefix} input {i}"), &input, &part("scaled", i), 1e-4);
            }
            let noise = if scheduler.needs_noise() { part("noise", i) } else { Vec::new() };
            sample = go(scheduler, &part("output", i), sample, &noise, i);
            let expect = part("sample", i + 1);
            assert_close(&format!("{prefix} step {i}"), &read(&sample.values), &expect, 1e-4);
        }
        walked += 1;
    }
    walked
}

/// If the model always finds the same clean sample, every schedule ends at it.
#[test]
fn a_perfect_model_is_followed_to_the_clean_sample() {
    let trained = DiscreteSchedule::stable_diffusion();
    let clean = 0.7f32;
    let end = |scheduler: Box<dyn NoiseScheduler>, variance_kept: bool| {
        let scheduler = scheduler.as_ref();
        let steps = scheduler.timesteps().len();
        let first = scheduler.sigmas()[0];
        let level = |sigma: f32| if variance_kept { (sigma * sigma + 1.0).sqrt() } else { 1.0 };
        let mut sample = scheduler.start(flat(&[(clean + first * 0.3) / level(first)]));
        for i in 0..steps {
            let sigma = scheduler.sigmas()[i];
            let value = read(&sample.values)[0];
            let noise = (value * level(sigma) - clean) / sigma;
            let numbers = coefficients(scheduler, i);
            let found = read(&scheduler.clean(flat(&[noise]), flat(&[value]), &numbers))[0];
            assert!((found - clean).abs() < 1e-3, "step {i}: {found}");
            sample = go(scheduler, &[noise], sample, &[0.5], i);
        }
        read(&sample.values)[0]
    };
    for steps in [1, 7, 20] {
        let euler = Euler::new(&trained, steps).unwrap();
        let ancestral = EulerAncestral::new(&trained, steps).unwrap();
        let dpm = DpmSolver::sde_karras(&trained, steps).unwrap();
        assert!((end(Box::new(euler), false) - clean).abs() < 1e-4);
        assert!((end(Box::new(ancestral), false) - clean).abs() < 1e-4);
        assert!((end(Box::new(dpm), true) - clean).abs() < 1e-3);
        let plain = Method::named("dpmpp_2m").unwrap().scheduler(&trained, steps).unwrap();
        assert!((end(plain, true) - clean).abs() < 1e-3);
        // DDIM stops at the first trained level, where a little noise is left.
        let ddim = Ddim::new(&trained, steps).unwrap();
        assert!((end(Box::new(ddim), true) - clean).abs() < 0.05);
    }
}

/// What a device does is the same in every step: only numbers differ, and there are as many of them.
#[test]
fn every_step_takes_as_many_numbers() {
    let trained = DiscreteSchedule::stable_diffusion();
    let named = Method::names().split(", ").map(str::to_owned).collect::<Vec<_>>();
    let mut schedulers: Vec<Box<dyn NoiseScheduler>> =
        vec![Box::new(FlowMatchEuler::new(5, FlowShift::DEV, 256).unwrap())];
    for name in &named {
        schedulers.push(Method::named(name).unwrap().scheduler(&trained, 5).unwrap());
    }
    for scheduler in &schedulers {
        let numbers: Vec<_> = (0..5).map(|i| scheduler.coefficients(i)).collect();
        assert!(numbers.iter().all(|step| step.len() == numbers[0].len()), "{numbers:?}");
        assert!(numbers.iter().flatten().all(|number| number.is_finite()), "{numbers:?}");
        assert!(numbers.windows(2).all(|steps| steps[0] != steps[1]), "{numbers:?}");
    }
}

#[test]
fn impossible_numbers_of_steps_are_refused() {
    let trained = DiscreteSchedule::stable_diffusion();
    for steps in [0, 1001] {
        assert!(Euler::new(&trained, steps).is_err());
        assert!(DpmSolver::sde_karras(&trained, steps).is_err());
        assert!(Ddim::new(&trained, steps).is_err());
        assert!(FlowMatchEuler::new(steps, FlowShift::SCHNELL, 256).is_err());
    }
}
