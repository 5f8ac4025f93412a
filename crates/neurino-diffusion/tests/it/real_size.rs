//! The networks at their real sizes, with random weights: shapes, time and memory. Each wants a process
//! and gigabytes of its own: `cargo xtask test sizes` runs them.
#![expect(clippy::print_stdout, reason = "measurements are read")]

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::checkpoint::random::{RandomFormat, RandomTensors};
use neurino_diffusion::checkpoint::{Component, Loading, Precision};
use neurino_diffusion::memory::{Dims, ImageMemory};
use neurino_diffusion::pipeline::{Decoding, Plan, Residence};
use neurino_diffusion::shapes;
use neurino_diffusion::unet::{AddedCondition, Unet, UnetConfig};
use neurino_diffusion::vae::{Tiling, Vae, VaeConfig};
use neurino_nn::device::{download, run_near};

/// The most memory that this process has held, in bytes; 0 where the system does not tell.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn report(what: &str, start: Instant) {
    let peak_mib = peak_bytes() >> 20;
    println!("{what}: {:.1} s, peak {peak_mib} MiB", start.elapsed().as_secs_f64());
}

fn one_step(config: &UnetConfig, parameters: u64) {
    let device = Device::flex();
    let start = Instant::now();
    let loading = Loading::quiet(&device, Precision::Stored);
    let tensors = RandomTensors::new(RandomFormat::F16, 1);
    let unet = Unet::load(&Component::new(&tensors, &loading), config).unwrap();
    // All but norms and biases have 2 bytes.
    let held = loading.held_bytes();
    assert!((2 * parameters..2 * parameters + parameters / 100).contains(&held), "{held}");
    report(&format!("load of {} MiB", held >> 20), start);

    let added = config.added.map(|added| AddedCondition {
        pooled: Tensor::ones([1, added.pooled_width()], &device),
        sizes: unet.sizes(&[[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]]),
    });
    let sample = Tensor::ones([1, 64, 64, 4], &device);
    let context = Tensor::ones([1, 77, config.context_width], &device);
    let start = Instant::now();
    let time = unet.timestep(500.0);
    let found = run_near(&device, || unet.forward(sample, time, &context, added.as_ref()));
    assert_eq!(found.dims(), [1, 64, 64, 4]);
    assert!(download(found).unwrap().iter().all(|x| x.is_finite()));
    report("a step at 64x64", start);
    // Weights once, and activations that do not grow with them.
    assert!(peak_bytes() < held + held / 8 + (256 << 20), "{} bytes", peak_bytes());
}

#[test]
#[ignore = "in a process of its own by `cargo xtask test sizes`"]
fn a_step_of_stable_diffusion_15() {
    one_step(&UnetConfig::sd15(), 859_520_964);
}

#[test]
#[ignore = "in a process of its own by `cargo xtask test sizes`"]
fn a_step_of_sdxl() {
    one_step(&UnetConfig::sdxl(), 2_567_463_684);
}

#[test]
#[ignore = "in a process of its own by `cargo xtask test sizes`"]
fn a_picture_of_512_pixels_is_decoded() {
    let device = Device::flex();
    let loading = Loading::quiet(&device, Precision::Stored);
    let tensors = RandomTensors::new(RandomFormat::F16, 1);
    let config = VaeConfig::sd15();
    let vae = Vae::load_decoder(&Component::new(&tensors, &loading), &config).unwrap();
    let latents = Tensor::ones([1, 64, 64, 4], &device);
    let start = Instant::now();
    let tiling = Tiling { side: 32, overlap: 8 };
    let found = run_near(&device, || vae.decode_tiled(latents.clone(), tiling)).unwrap();
    assert_eq!(found.dims(), [1, 512, 512, 3]);
    report("decoding 512x512 in tiles of 256x256", start);
    assert!(peak_bytes() < 512 << 20, "{} bytes", peak_bytes());
    let start = Instant::now();
    let found = run_near(&device, || vae.decode(latents));
    assert_eq!(found.dims(), [1, 512, 512, 3]);
    assert!(download(found).unwrap().iter().all(|x| x.is_finite()));
    report("decoding 512x512", start);
    assert!(peak_bytes() < 1280 << 20, "{} bytes", peak_bytes());
}

/// A picture of one step from its prompt to its pixels, by a model of real shape and random weights, within
/// what was planned for it.
fn whole_picture(name: &str, side: u32) {
    let device = Device::flex();
    let start = Instant::now();
    let shape = shapes::named(name).unwrap();
    let loading = Loading::quiet(&device, Precision::Stored);
    let mut pipeline = shape.make(&loading).unwrap();
    let weights_bytes = pipeline.facts().weights_bytes;
    report(&format!("{name}, {} MiB of weights made", weights_bytes >> 20), start);

    let id = ModelId::new("shape").unwrap();
    let job = ImageJob { steps: 1, seed: 3, ..ImageJob::new(id, "a lighthouse in a storm", side) };
    let start = Instant::now();
    let mut run = pipeline.begin(&job).unwrap();
    report("prompt", start);
    let start = Instant::now();
    run.step().unwrap();
    assert_eq!(run.done(), 1);
    report(&format!("step at {side}x{side}"), start);
    let start = Instant::now();
    let found = run.decode(Decoding::Whole).unwrap();
    assert_eq!(found.dims(), [1, side as usize, side as usize, 3]);
    report("decoding", start);

    let guided = !matches!(shape.dims, Dims::Flux { .. });
    let memory = ImageMemory::new(weights_bytes, 0, shape.dims);
    let picture = memory.picture(Residence::Stay, [side; 2], guided);
    let planned = memory.peak_bytes(Residence::Stay, picture, Plan::default());
    let peak = peak_bytes();
    println!("planned {} MiB, peak {} MiB", planned >> 20, peak >> 20);
    assert!(peak < planned + planned / 20, "{peak} bytes, and {planned} were planned");
}

#[test]
#[ignore = "in a process of its own by `cargo xtask test sizes`"]
fn a_whole_picture_of_stable_diffusion_15() {
    whole_picture("sd15", 256);
}

#[test]
#[ignore = "in a process of its own by `cargo xtask test sizes`"]
fn a_whole_picture_of_sdxl() {
    whole_picture("sdxl", 256);
}

/// Memory that the system could give, in bytes; all there is where it does not tell.
fn available_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

/// Minutes, so that it is a step of its own.
#[test]
#[ignore = "takes minutes and 16 GB: by `cargo xtask test flux`"]
fn a_whole_picture_of_flux_in_4_bits() {
    let available = available_bytes();
    if available < 16 << 30 {
        let free = available >> 30;
        println!("NOT RUN: a picture of Flux takes 16 GiB of memory, {free} GiB are free");
        return;
    }
    // Its own side takes an hour on two cores; weights and prompt are of its own size.
    whole_picture("flux-nf4", 512);
}
