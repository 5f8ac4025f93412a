//! Flux's transformer, plain and in 4 bits.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor};
use neurino_diffusion::DiffusionError;
use neurino_diffusion::checkpoint::folder::FolderTensors;
use neurino_diffusion::checkpoint::random::{RandomFormat, RandomTensors};
use neurino_diffusion::checkpoint::{Component, Loading, Precision, Tensors, Weight};
use neurino_diffusion::flux::{FluxConfig, FluxTransformer, pack, unpack};
use neurino_diffusion::lora::LowRankLayers as _;
use neurino_diffusion::t5::{T5Config, T5Encoder};
use neurino_nn::device::{download, upload};
use neurino_weights::DType;
use safetensors::SafeTensors;

use crate::text::json;
use crate::{assert_close, fixture, floats};

/// What the outputs of a block may be apart by.
const LIMIT: f32 = 1e-4;
/// The same where the CPU multiplies with packed weights, for which it rounds activations to 8 bits.
const PACKED_LIMIT: f32 = 6e-2;

fn transformer(folder: &str, precision: Precision) -> FluxTransformer {
    let device = Device::flex();
    let (folder, loading) = (fixture(folder), Loading::quiet(&device, precision));
    let config = FluxConfig::open(&folder.join("config.json")).unwrap();
    let tensors = FolderTensors::open(&folder).unwrap();
    FluxTransformer::load(&Component::new(&tensors, &loading), &config).unwrap()
}

fn tensor<const D: usize>(file: &SafeTensors<'_>, name: &str) -> Tensor<D> {
    let shape: [usize; D] = file.tensor(name).unwrap().shape().try_into().unwrap();
    upload(floats(file, name), shape, &Device::flex())
}

/// One pass, block by block.
fn check_network(folder: &str, reference: &str, precision: Precision, limit: f32) {
    let transformer = transformer(folder, precision);
    let bytes = std::fs::read(fixture(reference)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (states, pooled) = (tensor(&file, "encoder_hidden_states"), tensor(&file, "pooled"));
    let guidance = floats(&file, "guidance")[0];
    let condition = transformer.condition(states, pooled, guidance, [3, 5]);
    let latents = tensor(&file, "hidden_states");
    let time = transformer.sinusoids(floats(&file, "timestep")[0]);
    let mut tapped = 0;
    let found = transformer.forward_tapped(latents, time, &condition, &mut |name, found| {
        let what = format!("{reference} {precision:?} {name}");
        assert_close(&what, &download(found).unwrap(), &floats(&file, name), limit);
        tapped += 1;
    });
    assert_eq!(tapped, 1 + 2 * 2 + 3);
    assert_close(reference, &download(found).unwrap(), &floats(&file, "output"), limit);
}

#[test]
fn blocks_are_the_references() {
    for precision in [Precision::Full, Precision::Stored] {
        check_network("flux/transformer", "flux/networks.safetensors", precision, LIMIT);
    }
}

#[test]
fn blocks_in_4_bits_are_the_references() {
    let (folder, reference) = ("flux/transformer_nf4", "flux/networks_nf4.safetensors");
    check_network(folder, reference, Precision::Full, LIMIT);
    check_network(folder, reference, Precision::Stored, PACKED_LIMIT);
}

#[test]
fn every_step_of_a_run_is_the_references() {
    let plain = transformer("flux/transformer", Precision::Full);
    let packed = transformer("flux/transformer_nf4", Precision::Full);
    // Those with updates are compared on the way to whole pictures.
    let runs = json("flux/runs.json");
    let plain_runs = runs["runs"].as_array().unwrap().iter().filter(|run| run["lora"].is_null());
    for run in plain_runs {
        let name = run["name"].as_str().unwrap();
        let transformer = if run["quantized"] == true { &packed } else { &plain };
        let bytes = std::fs::read(fixture(&format!("flux/run_{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let noise: Tensor<4> = tensor(&file, "noise");
        let noise = noise.permute([0, 2, 3, 1]);
        let [_, height, width, _] = noise.dims();
        let size = [height / 2, width / 2];
        let states: Tensor<2> = tensor(&file, "t5_hidden");
        let guidance = run["guidance"].as_f64().unwrap() as f32;
        let condition =
            transformer.condition(states.unsqueeze(), tensor(&file, "pooled"), guidance, size);
        let mut latents = pack(noise.clone());
        let back = download(unpack(latents.clone(), size)).unwrap();
        assert_eq!(back, download(noise).unwrap());
        for (step, timestep) in floats(&file, "timesteps").into_iter().enumerate() {
            let found =
                transformer.forward(latents, transformer.sinusoids(timestep / 1000.0), &condition);
            let expect = floats(&file, &format!("velocity{step}"));
            assert_close(&format!("{name} {step}"), &download(found).unwrap(), &expect, LIMIT);
            latents = tensor(&file, &format!("latents{}", step + 1));
        }
    }
}

/// One tensor is a million times what it is, in f32: far beyond f16.
struct Enlarged {
    tensors: FolderTensors,
    name: &'static str,
}

impl Tensors for Enlarged {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        let read = self.tensors.read(name, shape)?;
        let Weight::Plain { dtype, bytes } = &read else { return Ok(read) };
        if name != self.name {
            return Ok(read);
        }
        let mut values = vec![0.0; shape.iter().product()];
        dtype.dequantize(bytes, &mut values);
        let bytes = values.iter().flat_map(|value| (value * 1e6).to_le_bytes()).collect();
        Ok(Weight::plain(DType::F32, bytes))
    }
}

/// What was trained in bf16 leaves the range of f16, whatever its file stores.
#[test]
fn in_16_bits_t5_and_the_transformer_keep_the_range_of_f32() {
    let device = Device::flex();
    let loading = Loading::quiet(&device, Precision::Half);
    let enlarged = |folder: &str, name| Enlarged {
        tensors: FolderTensors::open(&fixture(folder)).unwrap(),
        name,
    };
    let config = T5Config::open(&fixture("flux/text_encoder_2/config.json")).unwrap();
    let name = "encoder.block.0.layer.1.DenseReluDense.wo.weight";
    let tensors = enlarged("flux/text_encoder_2", name);
    let encoder = T5Encoder::load(&Component::new(&tensors, &loading), &config).unwrap();
    let found = download(encoder.encode(&[1, 2, 3]).unwrap()).unwrap();
    assert!(found.iter().all(|x| x.is_finite()), "{found:?}");

    let config = FluxConfig::open(&fixture("flux/transformer/config.json")).unwrap();
    let tensors = enlarged("flux/transformer", "transformer_blocks.1.ff.net.2.weight");
    let transformer = FluxTransformer::load(&Component::new(&tensors, &loading), &config).unwrap();
    let bytes = std::fs::read(fixture("flux/networks.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (states, pooled) = (tensor(&file, "encoder_hidden_states"), tensor(&file, "pooled"));
    let condition = transformer.condition(states, pooled, 3.5, [3, 5]);
    let time = transformer.sinusoids(0.5);
    let found = transformer.forward(tensor(&file, "hidden_states"), time, &condition);
    assert!(download(found).unwrap().iter().all(|x| x.is_finite()));
}

#[test]
fn every_matrix_takes_updates() {
    let mut transformer = transformer("flux/transformer", Precision::Full);
    let mut found = BTreeSet::new();
    transformer.low_rank_layers(&mut |path, _| assert!(found.insert(path.to_owned()), "{path}"));
    let index = json("flux/transformer/diffusion_pytorch_model.safetensors.index.json");
    let names = index["weight_map"].as_object().unwrap().keys();
    let expect: BTreeSet<String> =
        names.filter_map(|name| name.strip_suffix(".bias")).map(str::to_owned).collect();
    assert_eq!(found, expect);
}

/// The most memory this process has held so far, in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Blocks of the real size: the others are alike, so all of them take as much more weights and no more
/// activations.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "in a process of its own by `cargo xtask test sizes`"]
fn real_blocks_in_4_bits_keep_to_their_memory() {
    let device = Device::flex();
    let loading = Loading::quiet(&device, Precision::Stored);
    let config = FluxConfig { num_layers: 1, num_single_layers: 2, ..FluxConfig::dev() };
    let tensors = RandomTensors::new(RandomFormat::Nf4, 1);
    let before = peak_bytes();
    let transformer = FluxTransformer::load(&Component::new(&tensors, &loading), &config).unwrap();
    let (held, loaded) = (loading.held_bytes(), peak_bytes());

    let (side, text_tokens) = (32, 512);
    let wave = |count: usize| (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    let states = upload(wave(text_tokens * 4096), [1, text_tokens, 4096], &device);
    let condition =
        transformer.condition(states, upload(wave(768), [1, 768], &device), 3.5, [side; 2]);
    let start = std::time::Instant::now();
    let latents = upload(wave(side * side * 64), [1, side * side, 64], &device);
    let found =
        download(transformer.forward(latents, transformer.sinusoids(0.7), &condition)).unwrap();
    let (took, peak) = (start.elapsed(), peak_bytes());
    assert!(found.len() == side * side * 64 && found.iter().all(|x| x.is_finite()));

    let activations = ((side * side + text_tokens) * config.width() * 4) as u64;
    let what = format!(
        "weights {held} held, {} after loading; {} more for a step, of {activations} a copy; {took:?}",
        loaded - before,
        peak - loaded,
    );
    assert!(loaded - before < held + held / 4, "{what}");
    assert!(peak - loaded < 24 * activations, "{what}");
}
