//! LoRA files of all forms against the reference, on the UNet and on text encoders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use neurino_diffusion::checkpoint::ldm::LdmTensors;
use neurino_diffusion::checkpoint::{Component, Loading, Precision};
use neurino_diffusion::clip::{ClipConfig, ClipTextEncoder};
use neurino_diffusion::lora::{Layer, Lora, LoraError, LowRankLayers, Part, Placement, set_loras};
use neurino_nn::device::{download, upload};
use neurino_nn::{Affine, Linear};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::networks::{added, assert_near, changed_file, integers, load_unet, picture, sequence};
use crate::{fixture, floats};

/// The reference's own files equal merged weights to 5e-6; a network may be 1e-4 apart.
const LIMIT: f32 = 1e-4;

fn open(family: &str, format: &str) -> Lora {
    Lora::open(&path(family, format)).unwrap()
}

fn path(family: &str, format: &str) -> PathBuf {
    fixture("sd").join(family).join(format!("lora_{format}.safetensors"))
}

fn reference(family: &str) -> Vec<u8> {
    std::fs::read(fixture("sd").join(family).join("lora_reference.safetensors")).unwrap()
}

#[test]
fn unets_with_loras_are_the_references() {
    let sd15 = ["kohya", "peft", "old_diffusers"].map(|format| ("sd15", format));
    let sdxl = ["kohya", "peft"].map(|format| ("sdxl", format));
    for (family, formats) in [("sd15", sd15.as_slice()), ("sdxl", sdxl.as_slice())] {
        let mut unet = load_unet(family);
        let bytes = reference(family);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (sample, context) = (picture(&file, "sample"), sequence(&file, "context"));
        let timestep = unet.timestep(integers(&file, "timestep")[0] as f32);
        let added = added(&unet, &file, "");
        let run = |unet: &neurino_diffusion::unet::Unet| {
            unet.forward(sample.clone(), timestep.clone(), &context, added.as_ref())
        };
        let without = download(run(&unet)).unwrap();
        for (family, format) in formats {
            let lora = Arc::new(open(family, format));
            assert!(lora.changes(Part::Denoiser));
            for scale in [1.0, 0.8] {
                set_loras(&mut unet, Part::Denoiser, &[(Arc::clone(&lora), scale)]).unwrap();
                let name = format!("{format}.scale{scale:.1}.unet");
                let expect = picture(&file, &name);
                assert_near(&format!("{family} {name}"), run(&unet), expect, LIMIT);
            }
            // Two halves are the whole, and none restores the network bit for bit.
            let halves = [(Arc::clone(&lora), 0.5), (lora, 0.5)];
            set_loras(&mut unet, Part::Denoiser, &halves).unwrap();
            let expect = picture(&file, &format!("{format}.scale1.0.unet"));
            assert_near("two halves", run(&unet), expect, LIMIT);
            set_loras(&mut unet, Part::Denoiser, &[]).unwrap();
            assert_eq!(download(run(&unet)).unwrap(), without);
        }
    }
}

#[test]
fn text_encoders_with_loras_are_the_references() {
    let device = Device::flex();
    for (family, parts) in [
        ("sd15", [("text_encoder", Part::TextEncoder)].as_slice()),
        (
            "sdxl",
            [("text_encoder", Part::TextEncoder), ("text_encoder_2", Part::TextEncoder2)]
                .as_slice(),
        ),
    ] {
        let folder = fixture("sd").join(family);
        let checkpoint = LdmTensors::open(&folder.join("model.safetensors"), None).unwrap();
        let bytes = reference(family);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids: Vec<u32> = integers(&file, "ids").into_iter().map(|id| id as u32).collect();
        for &(name, part) in parts {
            let config = ClipConfig::open(&folder.join(name).join("config.json")).unwrap();
            let loading = Loading::quiet(&device, Precision::Full);
            let tensors = match part {
                Part::TextEncoder2 => checkpoint.text_encoder_2().unwrap(),
                _ => checkpoint.text_encoder(),
            };
            let component = Component::new(&tensors, &loading);
            let mut encoder = ClipTextEncoder::load(&component, &config).unwrap();
            for format in ["kohya", "peft"] {
                let lora = Arc::new(open(family, format));
                set_loras(&mut encoder, part, &[(lora, 1.0)]).unwrap();
                let found = encoder.encode(std::slice::from_ref(&ids)).unwrap().penultimate;
                let [_, tokens, width] = found.dims();
                let name = format!("{format}.{name}");
                let expect = upload(floats(&file, &name), [1, tokens, width, 1], &device);
                let found = found.reshape([1, tokens, width, 1]);
                assert_near(&format!("{family} {name}"), found, expect, LIMIT);
            }
        }
    }
}

#[test]
fn a_lora_of_another_family_names_what_fits_nothing() {
    let mut unet = load_unet("sd15");
    let lora = Arc::new(open("sdxl", "kohya"));
    assert!(lora.check_parts(&[Part::Denoiser, Part::TextEncoder]).is_err());
    let all = [Part::Denoiser, Part::TextEncoder, Part::TextEncoder2];
    assert!(lora.check_parts(&all).is_ok());
    let error = set_loras(&mut unet, Part::Denoiser, &[(lora, 1.0)]).unwrap_err();
    // By the order of parts and names: the first blocks that have attention in both families differ.
    let message = error.to_string();
    assert!(message.contains("lora_unet_") && message.contains("another model"), "{message}");

    // The same names, other widths.
    let wider = changed_shapes(&path("sd15", "peft"), "wider");
    let error = set_loras(&mut unet, Part::Denoiser, &[(Arc::new(wider), 1.0)]).unwrap_err();
    assert!(matches!(error, LoraError::WrongShape { .. }), "{error}");
}

/// A LoRA whose first factors have one row and one column, and the names of `from`.
fn changed_shapes(from: &Path, name: &str) -> Lora {
    let bytes = std::fs::read(from).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let zeros = [0u8; 2];
    let view = || TensorView::new(Dtype::F16, vec![1, 1], &zeros).unwrap();
    let tensors: Vec<_> = file.names().into_iter().map(|name| (name, view())).collect();
    let path = changed_file(from, name, |_| None);
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    Lora::open(&path).unwrap()
}

#[test]
fn damaged_and_strange_files_are_refused_with_the_reason() {
    let kohya = path("sd15", "kohya");
    let refused = |path: &Path| match Lora::open(path).unwrap_err() {
        LoraError::Weights(error) => error.to_string(),
        other => other.to_string(),
    };
    let key = "lora_unet_down_blocks_0_attentions_0_proj_in";
    let without =
        |name: &str| (!(name.starts_with(key) && name.contains("up"))).then(|| name.into());
    let found = refused(&changed_file(&kohya, "half", without));
    assert!(found.contains(key) && found.contains("both factors"), "{found}");
    let wide = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj";
    let swapped = |name: &str| {
        let ours = name.starts_with(wide);
        let other = |a, b| Some(name.replace(a, b));
        if ours && name.contains("lora_up") {
            other("lora_up", "lora_down")
        } else if ours && name.contains("lora_down") {
            other("lora_down", "lora_up")
        } else {
            Some(name.to_owned())
        }
    };
    let found = refused(&changed_file(&kohya, "swapped", swapped));
    assert!(found.contains("factors of"), "{found}");
    let renamed = |name: &str| Some(name.replace("lora_up", "hada_w1_a"));
    assert!(refused(&changed_file(&kohya, "loha", renamed)).contains("LoHa"));
    assert!(refused(&changed_file(&kohya, "empty", |_| None)).contains("empty"));
    let checkpoint = fixture("sd/sd15/model.safetensors");
    assert!(refused(&checkpoint).contains("no LoRA"));
    let bytes = std::fs::read(&kohya).unwrap();
    let truncated = changed_file(&kohya, "truncated_lora", |_| None);
    std::fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refused(&truncated).contains("incomplete"));
}

/// Layers of a block of Flux's transformer, under diffusers' names.
struct Block {
    layers: Vec<(&'static str, Affine)>,
    placement: Placement,
}

impl LowRankLayers for Block {
    fn placement(&self) -> &Placement {
        &self.placement
    }

    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        for (path, layer) in &mut self.layers {
            visit(path, Layer::Affine(layer));
        }
    }
}

/// Trainers that use Flux's own names keep queries, keys and values (and in single blocks the first
/// layer of the feed-forward network) in one update.
#[test]
fn fused_updates_of_flux_come_apart() {
    const WIDTH: usize = 8;
    let device = Device::flex();
    let zeros = |out: usize| {
        Affine::new(Linear::dense(upload(vec![0.0; out * WIDTH], [out, WIDTH], &device)), None)
    };
    let mut layers = Vec::new();
    for name in ["to_q", "to_k", "to_v"] {
        layers.push((format!("transformer_blocks.0.attn.{name}"), zeros(WIDTH)));
        layers.push((format!("single_transformer_blocks.1.attn.{name}"), zeros(WIDTH)));
    }
    layers.push(("single_transformer_blocks.1.proj_mlp".to_owned(), zeros(4 * WIDTH)));
    layers.push(("norm_out.linear".to_owned(), zeros(2 * WIDTH)));
    let layers = layers.into_iter().map(|(name, layer)| (&*name.leak(), layer)).collect();
    let dtype = burn::tensor::DType::F32;
    let placement = Placement { device: device.clone(), dtype };
    let mut block = Block { layers, placement };

    // With rank 1 and a first factor of ones, row i of an update is i times the sum of the input.
    let ones = vec![1f32; WIDTH];
    let rows: Vec<f32> = (0..7 * WIDTH as u16).map(f32::from).collect();
    let bytes =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let (ones, rows) = (bytes(&ones), bytes(&rows));
    let view = |bytes, shape: [usize; 2]| TensorView::new(Dtype::F32, shape.into(), bytes).unwrap();
    let mut tensors = Vec::new();
    for (name, out) in [
        ("lora_unet_double_blocks_0_img_attn_qkv", 3 * WIDTH),
        ("lora_unet_single_blocks_1_linear1", 7 * WIDTH),
        ("diffusion_model.final_layer.adaLN_modulation.1", 2 * WIDTH),
    ] {
        tensors.push((format!("{name}.lora_down.weight"), view(&ones, [1, WIDTH])));
        let up = view(&rows[..4 * out], [out, 1]);
        tensors.push((format!("{name}.lora_up.weight"), up));
    }
    let path = changed_file(&path("sd15", "kohya"), "fused", |_| None);
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let lora = Arc::new(Lora::open(&path).unwrap());
    set_loras(&mut block, Part::Denoiser, &[(lora, 0.5)]).unwrap();
    let x: Tensor<2> = upload([vec![2.0], vec![0.0; WIDTH - 1]].concat(), [1, WIDTH], &device);
    for (name, layer) in &block.layers {
        let found = download(layer.forward(x.clone())).unwrap();
        let first = match name.rsplit_once('.').unwrap().1 {
            "to_q" => 0,
            "to_k" => WIDTH,
            "to_v" => 2 * WIDTH,
            "proj_mlp" => 3 * WIDTH,
            _ => {
                // Shift and scale change places.
                assert_eq!((found[0], found[WIDTH]), (WIDTH as f32, 0.0), "{name}");
                continue;
            }
        };
        let expect: Vec<f32> = (first..first + found.len()).map(|i| i as f32).collect();
        assert_eq!(found, expect, "{name}");
    }
}
