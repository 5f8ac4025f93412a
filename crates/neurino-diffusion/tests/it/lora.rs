//! LoRA files of all forms against the reference, on the UNet and on text encoders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use neurino_diffusion::DiffusionError;
use neurino_diffusion::checkpoint::folder::FolderTensors;
use neurino_diffusion::checkpoint::ldm::LdmTensors;
use neurino_diffusion::checkpoint::{Component, Loading, Precision, Tensors, Weight};
use neurino_diffusion::clip::{ClipConfig, ClipTextEncoder};
use neurino_diffusion::lora::{
    Layer, Lora, LoraError, LowRankLayers, Part, Placement, check_fit, set_loras,
};
use neurino_diffusion::t5::{T5Config, T5Encoder};
use neurino_nn::device::{download, upload};
use neurino_nn::{Affine, Linear};
use neurino_weights::DType;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::networks::{added, assert_near, changed_file, integers, load_unet, picture, sequence};
use crate::{assert_close, fixture, floats};

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
    assert!(lora.check_parts(&[Part::T5]).is_err());
    assert!(lora.check_parts(&[Part::Denoiser, Part::TextEncoder]).is_ok());
    let error = set_loras(&mut unet, Part::Denoiser, &[(lora, 1.0)]).unwrap_err();
    // By the order of parts and names: the first blocks that have attention in both families differ.
    let message = error.to_string();
    assert!(message.contains("lora_unet_") && message.contains("another model"), "{message}");

    // Not one layer of Flux is in a UNet.
    let flux = Arc::new(Lora::open(&fixture("flux/lora_kohya.safetensors")).unwrap());
    let mut networks: [(Part, &mut dyn LowRankLayers); 1] = [(Part::Denoiser, &mut unet)];
    let error = check_fit(&mut networks, &[(flux, 1.0)]).unwrap_err();
    let LoraError::NoSuchLayer { count, total, .. } = &error else { panic!("{error}") };
    assert_eq!(count, total);
    assert!(error.to_string().contains("lora_unet_double_blocks_0"), "{error}");

    // The same names, other widths.
    let wider = changed_shapes(&path("sd15", "peft"), "wider");
    let error = set_loras(&mut unet, Part::Denoiser, &[(Arc::new(wider), 1.0)]).unwrap_err();
    assert!(matches!(error, LoraError::WrongShape { .. }), "{error}");
}

/// Updates of layers that the model does not have are left out; the others act as if they were alone.
#[test]
fn what_fits_of_a_file_is_used() {
    let from = path("sd15", "kohya");
    let strange = |name: &str| {
        let block = name.replace("lora_unet_down_blocks_0", "lora_unet_down_blocks_7");
        Some(block.replace("lora_te_text_model_encoder_layers_0", "lora_te3_encoder_block_0"))
    };
    let known = |name: &str| (strange(name).as_deref() == Some(name)).then(|| name.to_owned());
    let some = Arc::new(Lora::open(&changed_file(&from, "some_strange", strange)).unwrap());
    let alone = Arc::new(Lora::open(&changed_file(&from, "none_strange", known)).unwrap());
    assert!(some.changes(Part::T5) && !alone.changes(Part::T5));
    let mut unet = load_unet("sd15");
    let mut networks: [(Part, &mut dyn LowRankLayers); 1] = [(Part::Denoiser, &mut unet)];
    check_fit(&mut networks, &[(Arc::clone(&some), 1.0)]).unwrap();
    let bytes = reference("sd15");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (sample, context) = (picture(&file, "sample"), sequence(&file, "context"));
    let timestep = unet.timestep(integers(&file, "timestep")[0] as f32);
    let mut run = |lora: Arc<Lora>| {
        set_loras(&mut unet, Part::Denoiser, &[(lora, 1.0)]).unwrap();
        download(unet.forward(sample.clone(), timestep.clone(), &context, None)).unwrap()
    };
    let all = run(Arc::new(open("sd15", "kohya")));
    let found = run(some);
    assert_eq!(found, run(alone));
    assert_ne!(found, all);
}

/// A file of some tensors, each with its type, shape and bytes, and with notes.
fn written(
    name: &str,
    tensors: &[(&str, Dtype, &[usize], Vec<u8>)],
    notes: &[(&str, &str)],
) -> PathBuf {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
    });
    let notes = notes.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let folder = changed_file(&path("sd15", "kohya"), "folder", |_| None);
    let folder = folder.with_file_name(name);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("adapter_model.safetensors");
    std::fs::write(&file, safetensors::serialize(views, Some(notes)).unwrap()).unwrap();
    file
}

/// Checks what an update whose factors are ones adds to a layer of 1 by 1.
#[track_caller]
fn assert_strength(lora: Lora, expect: f32, what: &str) {
    let device = Device::flex();
    let layer = Affine::new(Linear::dense(upload(vec![0.0], [1, 1], &device)), None);
    let placement = Placement { device: device.clone(), dtype: burn::tensor::DType::F32 };
    let mut block = Block { layers: vec![("layers.0.to_q", layer)], placement };
    set_loras(&mut block, Part::Denoiser, &[(Arc::new(lora), 1.0)]).unwrap();
    let x: Tensor<2> = upload(vec![1.0], [1, 1], &device);
    let found = download(block.layers[0].1.forward(x)).unwrap()[0];
    assert!((found - expect).abs() < 1e-6, "{what}: {found}, not {expect}");
}

/// Factors of one layer whose update is the rank of 4 times the scale.
fn ones<'a>(down: &'a str, up: &'a str) -> Vec<(&'a str, Dtype, &'a [usize], Vec<u8>)> {
    let ones: Vec<u8> = [1f32; 4].into_iter().flat_map(f32::to_le_bytes).collect();
    vec![(down, Dtype::F32, &[4, 1], ones.clone()), (up, Dtype::F32, &[1, 4], ones)]
}

#[test]
fn alpha_is_a_number_of_any_type() {
    use half::{bf16, f16};
    let start = "lora_unet_layers_0_to_q";
    let (down, up, alpha) = (
        format!("{start}.lora_down.weight"),
        format!("{start}.lora_up.weight"),
        format!("{start}.alpha"),
    );
    let file = |dtype, shape: &'static [usize], bytes: &[u8]| {
        let mut tensors = ones(&down, &up);
        tensors.push((alpha.as_str(), dtype, shape, bytes.to_vec()));
        written("alpha", &tensors, &[])
    };
    for (dtype, bytes) in [
        (Dtype::I64, 8i64.to_le_bytes().as_slice()),
        (Dtype::I32, 8i32.to_le_bytes().as_slice()),
        (Dtype::U8, 8u8.to_le_bytes().as_slice()),
        (Dtype::F64, 8f64.to_le_bytes().as_slice()),
        (Dtype::F32, 8f32.to_le_bytes().as_slice()),
        (Dtype::F16, f16::from_f32(8.0).to_le_bytes().as_slice()),
        (Dtype::BF16, bf16::from_f32(8.0).to_le_bytes().as_slice()),
    ] {
        for shape in [[].as_slice(), &[1]] {
            let lora = Lora::open(&file(dtype, shape, bytes)).unwrap();
            assert_strength(lora, 8.0, &format!("{dtype:?} {shape:?}"));
        }
    }
    for (dtype, shape, bytes) in [
        (Dtype::F64, [].as_slice(), f64::NAN.to_le_bytes().as_slice()),
        (Dtype::I64, &[2], &[0; 16]),
        (Dtype::BOOL, &[], &[1]),
    ] {
        let error = Lora::open(&file(dtype, shape, bytes)).unwrap_err();
        assert!(error.to_string().contains("alpha` is no number"), "{error}");
    }
}

/// peft keeps the strength of updates in a file beside them; newer versions of diffusers note it.
#[test]
fn updates_of_peft_are_as_strong_as_its_configuration_says() {
    let names = [
        "base_model.model.layers.0.to_q.lora_A.weight",
        "base_model.model.layers.0.to_q.lora_B.weight",
    ];
    let file = written("peft", &ones(names[0], names[1]), &[]);
    let config = file.with_file_name("adapter_config.json");
    let _ = std::fs::remove_file(&config);
    let error = Lora::open(&file).unwrap_err();
    assert!(error.to_string().contains("adapter_config.json"), "{error}");
    for (json, expect) in [
        (r#"{ "r": 4, "lora_alpha": 8 }"#, 8.0),
        (
            r#"{ "r": 16, "lora_alpha": 2, "rank_pattern": { "to_q": 4 }, "alpha_pattern": {} }"#,
            2.0,
        ),
        (r#"{ "r": 4, "lora_alpha": 8, "alpha_pattern": { "0.to_q": 1, "q": 9 } }"#, 1.0),
        (r#"{ "r": 4, "lora_alpha": 8, "use_rslora": true }"#, 16.0),
    ] {
        std::fs::write(&config, json).unwrap();
        assert_strength(Lora::open(&file).unwrap(), expect, json);
    }
    std::fs::write(&config, r#"{ "alpha_pattern": { ".*q": 1 } }"#).unwrap();
    let error = Lora::open(&file).unwrap_err();
    assert!(error.to_string().contains("adapter_config.json"), "{error}");
    std::fs::remove_file(&config).unwrap();

    let names = ["unet.layers.0.to_q.lora_A.weight", "unet.layers.0.to_q.lora_B.weight"];
    let note = r#"{ "unet.r": 4, "unet.lora_alpha": 8 }"#;
    let file = written("noted", &ones(names[0], names[1]), &[("lora_adapter_metadata", note)]);
    assert_strength(Lora::open(&file).unwrap(), 8.0, note);
    let file = written("unnoted", &ones(names[0], names[1]), &[]);
    assert_strength(Lora::open(&file).unwrap(), 4.0, "without a note");
}

/// Trainers of Flux change T5, too; what they make acts as merged weights do.
#[test]
fn updates_of_t5_act_as_merged_weights() {
    let device = Device::flex();
    let folder = fixture("flux/text_encoder_2");
    let config = T5Config::open(&folder.join("config.json")).unwrap();
    let (loading, source) =
        (Loading::quiet(&device, Precision::Full), FolderTensors::open(&folder).unwrap());
    let load = |tensors: &dyn Tensors| {
        T5Encoder::load(&Component::new(tensors, &loading), &config).unwrap()
    };
    let mut encoder = load(&source);
    let mut shapes = Vec::new();
    encoder.low_rank_layers(&mut |path, layer| {
        let Layer::Affine(affine) = layer else { panic!("{path}") };
        shapes.push((path.to_owned(), affine.out_features(), affine.in_features()));
    });
    assert_eq!(shapes.len(), 7 * config.layers);
    let part = |count: usize, seed: usize| -> Vec<f32> {
        (0..count).map(|i| (((i * 7 + seed * 13) % 11) as f32 - 5.0) / 40.0).collect()
    };
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let ids: Vec<u32> = (1..20).collect();
    let plain = download(encoder.encode(&ids).unwrap()).unwrap();
    for form in ["kohya", "second", "diffusers"] {
        let (mut tensors, mut merged) = (Vec::new(), HashMap::new());
        for (index, (path, out, inp)) in shapes.iter().enumerate() {
            let (down, up) = (part(2 * inp, index), part(2 * out, index + 50));
            let (start, [a, b]) = match form {
                "kohya" => {
                    (format!("lora_te3_{}", path.replace('.', "_")), ["lora_down", "lora_up"])
                }
                "second" => {
                    (format!("lora_te2_{}", path.replace('.', "_")), ["lora_down", "lora_up"])
                }
                _ => (format!("text_encoder_2.{path}"), ["lora_A", "lora_B"]),
            };
            let product = |at: usize| {
                let (row, column) = (at / inp, at % inp);
                (0..2).map(|r| up[2 * row + r] * down[r * inp + column]).sum::<f32>()
            };
            let name = format!("{path}.weight");
            let Weight::Plain { dtype, bytes: stored } = source.read(&name, &[*out, *inp]).unwrap()
            else {
                panic!("{name} is packed")
            };
            let mut weights = vec![0.0; out * inp];
            dtype.dequantize(&stored, &mut weights);
            let weights = weights.iter().enumerate().map(|(at, weight)| weight + product(at));
            merged.insert(name, bytes(&weights.collect::<Vec<_>>()));
            tensors.push((format!("{start}.{a}.weight"), vec![2, *inp], bytes(&down)));
            tensors.push((format!("{start}.{b}.weight"), vec![*out, 2], bytes(&up)));
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let file = changed_file(&path("sd15", "kohya"), &format!("t5_{form}"), |_| None);
        std::fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
        let lora = Arc::new(Lora::open(&file).unwrap());
        assert!(lora.changes(Part::T5) && !lora.changes(Part::TextEncoder2));
        set_loras(&mut encoder, Part::T5, &[(lora, 1.0)]).unwrap();
        let found = download(encoder.encode(&ids).unwrap()).unwrap();
        let expect = load(&Merged { source: &source, merged });
        let expect = download(expect.encode(&ids).unwrap()).unwrap();
        assert_ne!(found, plain);
        assert_close(form, &found, &expect, LIMIT);
    }
}

/// Weights of which some are others.
struct Merged<'a> {
    source: &'a FolderTensors,
    /// As f32.
    merged: HashMap<String, Vec<u8>>,
}

impl Tensors for Merged<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        match self.merged.get(name) {
            Some(bytes) => Ok(Weight::plain(DType::F32, bytes.clone())),
            None => self.source.read(name, shape),
        }
    }
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
