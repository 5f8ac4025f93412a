//! The networks of Stable Diffusion, block by block and whole, from single files and under their
//! diffusers names; and files that are damaged or something else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use neurino_diffusion::DiffusionError;
use neurino_diffusion::checkpoint::folder::FolderTensors;
use neurino_diffusion::checkpoint::ldm::{LdmFamily, LdmTensors};
use neurino_diffusion::checkpoint::random::{RandomFormat, RandomTensors};
use neurino_diffusion::checkpoint::{Component, Loading, Precision, Tensors, Weight};
use neurino_diffusion::unet::{AddedCondition, AddedConfig, Unet, UnetConfig};
use neurino_diffusion::vae::{LatentScaling, Tiling, Vae, VaeConfig};
use neurino_nn::device::{download, upload};
use safetensors::SafeTensors;

use crate::{fixture, floats};

/// The reference's tolerance for one network.
const LIMIT: f32 = 1e-4;

/// A picture of the reference, `[batch, channels, height, width]` there, channels last here.
pub(crate) fn picture(file: &SafeTensors<'_>, name: &str) -> Tensor<4> {
    let shape: [usize; 4] = file.tensor(name).unwrap().shape().try_into().unwrap();
    upload(floats(file, name), shape, &Device::flex()).permute([0, 2, 3, 1])
}

/// Whole numbers of the reference.
pub(crate) fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<i64> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::I64, "{name}");
    tensor.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
}

pub(crate) fn sequence(file: &SafeTensors<'_>, name: &str) -> Tensor<3> {
    let shape: [usize; 3] = file.tensor(name).unwrap().shape().try_into().unwrap();
    upload(floats(file, name), shape, &Device::flex())
}

#[track_caller]
pub(crate) fn assert_near(what: &str, found: Tensor<4>, expect: Tensor<4>, limit: f32) {
    assert_eq!(found.dims(), expect.dims(), "{what}");
    let (found, expect) = (download(found).unwrap(), download(expect).unwrap());
    let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let apart = found.iter().zip(&expect).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart <= limit * largest, "{what}: {apart} of {largest}");
    assert!(largest > 0.0 && found.iter().all(|x| x.is_finite()), "{what}");
}

fn folder(family: &str) -> PathBuf {
    fixture("sd").join(family)
}

fn open(family: &str, vae: Option<&str>) -> LdmTensors {
    let folder = folder(family);
    let vae = vae.map(|name| folder.join(name));
    LdmTensors::open(&folder.join("model.safetensors"), vae.as_deref()).unwrap()
}

pub(crate) fn load_unet(family: &str) -> Unet {
    let (file, device) = (open(family, None), Device::flex());
    let loading = Loading::quiet(&device, Precision::Full);
    let config = UnetConfig::open(&folder(family).join("unet/config.json")).unwrap();
    let unet = Unet::load(&Component::new(&file.unet(), &loading), &config).unwrap();
    assert_eq!(loading.held_bytes(), 2 * file.component_bytes(&file.unet()), "f32 from f16");
    unet
}

pub(crate) fn added(unet: &Unet, file: &SafeTensors<'_>, prefix: &str) -> Option<AddedCondition> {
    let name = format!("{prefix}text_embeds");
    let shape: [usize; 2] = file.tensor(&name).ok()?.shape().try_into().unwrap();
    let pooled = upload(floats(file, &name), shape, &Device::flex());
    let ids = floats(file, &format!("{prefix}time_ids"));
    Some(AddedCondition { pooled, sizes: unet.sizes(ids.as_chunks().0) })
}

#[test]
fn unets_are_the_references_block_by_block() {
    for family in ["sd15", "sdxl"] {
        let unet = load_unet(family);
        let bytes = std::fs::read(folder(family).join("networks.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for case in 0..2 {
            let name = |part: &str| format!("case{case}.{part}");
            let timestep = unet.timestep(integers(&file, &name("timestep"))[0] as f32);
            let context = sequence(&file, &name("context"));
            let added = added(&unet, &file, &name(""));
            assert_eq!(added.is_some(), family == "sdxl");
            let mut seen = 0;
            let mut tap = |block: &str, found: &Tensor<4>| {
                let what = format!("{family} {}", name(block));
                let expect = if block == "time_embedding" {
                    let values = floats(&file, &name(block));
                    let width = values.len();
                    upload(values, [1, 1, 1, width], &Device::flex())
                } else {
                    picture(&file, &name(block))
                };
                assert_near(&what, found.clone(), expect, LIMIT);
                seen += 1;
            };
            let sample = picture(&file, &name("sample"));
            let found = unet.forward_tapped(
                sample.clone(),
                timestep.clone(),
                &context,
                added.as_ref(),
                &mut tap,
            );
            let expect = picture(&file, &name("output"));
            assert_near(&format!("{family} {}", name("output")), found.clone(), expect, LIMIT);
            assert_eq!(seen, 3 + 2 * unet.config().channels.len());

            // The elements of a batch do not see each other, apart from rounding.
            let twice = |x: Tensor<4>| Tensor::cat(vec![x.clone().mul_scalar(0.5), x], 0);
            let added = added.map(|AddedCondition { pooled, sizes }| AddedCondition {
                pooled: Tensor::cat(vec![pooled.clone().mul_scalar(2.0), pooled], 0),
                sizes: Tensor::cat(vec![sizes.clone(), sizes], 0),
            });
            let context = Tensor::cat(vec![context.clone().mul_scalar(-1.0), context], 0);
            let both = unet.forward(twice(sample), timestep, &context, added.as_ref());
            assert_near("the second of two", both.narrow(0, 1, 1), found, 1e-5);
        }
    }
}

#[test]
fn autoencoders_are_the_references() {
    for (family, scaling) in [("sd15", LatentScaling::SD15), ("sdxl", LatentScaling::SDXL)] {
        let (file, device) = (open(family, None), Device::flex());
        let loading = Loading::quiet(&device, Precision::Full);
        let config = VaeConfig::open(&folder(family).join("vae/config.json")).unwrap();
        assert_eq!((config.scaling, config.factor()), (scaling, 8));
        let vae = Vae::load(&Component::new(&file.vae(), &loading), &config).unwrap();
        assert_eq!(loading.held_bytes(), 2 * file.component_bytes(&file.vae()), "f32 from f16");

        let bytes = std::fs::read(folder(family).join("networks.safetensors")).unwrap();
        let cases = SafeTensors::deserialize(&bytes).unwrap();
        let latents = picture(&cases, "vae.latents");
        let decoded = vae.decode(latents.clone());
        assert_near("decoded", decoded.clone(), picture(&cases, "vae.decoded"), LIMIT);
        let moments = vae.encode(picture(&cases, "vae.image")).unwrap();
        assert_near("mean", moments.mean, picture(&cases, "vae.mean"), LIMIT);
        assert_near("variance", moments.log_variance, picture(&cases, "vae.logvar"), LIMIT);

        // One tile that holds everything is the whole; several come near it, and elements of a batch do
        // not mix.
        let large = Tiling { side: 64, overlap: 16 };
        assert_near("one tile", vae.decode_tiled(latents.clone(), large).unwrap(), decoded, 1e-6);
        let other = latents.clone().mul_scalar(-1.0);
        let both = Tensor::cat(vec![latents.clone(), other.clone()], 0);
        let small = Tiling { side: 4, overlap: 2 };
        let tiled = vae.decode_tiled(both, small).unwrap();
        let alone = vae.decode_tiled(other, small).unwrap();
        assert_near("tiles of the second", tiled.narrow(0, 1, 1), alone, 1e-6);
    }
}

#[test]
fn a_separate_autoencoder_takes_the_place_of_the_checkpoints() {
    for family in ["sd15", "sdxl"] {
        let file = open(family, Some("vae_alt.safetensors"));
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Full);
        let config = VaeConfig::open(&folder(family).join("vae/config.json")).unwrap();
        let vae = Vae::load_decoder(&Component::new(&file.vae(), &loading), &config).unwrap();
        let own = open(family, None);
        let bytes = |file: &LdmTensors| match file.vae().read("decoder.conv_in.bias", &[32]) {
            Ok(Weight::Plain { bytes, .. }) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_ne!(bytes(&own), bytes(&file));
        assert!(vae.encode(Tensor::zeros([1, 8, 8, 3], &device)).is_none());
        if family == "sd15" {
            // The run that was made with it: the last latents to pixels.
            let run = std::fs::read(folder(family).join("run_vae.safetensors")).unwrap();
            let run = SafeTensors::deserialize(&run).unwrap();
            let last = run.names().into_iter().filter(|name| name.starts_with("latents")).max();
            let latents = picture(&run, last.unwrap());
            let decoded = vae.decode(vae.from_denoiser(latents));
            assert_near("decoded", decoded, picture(&run, "decoded"), LIMIT);
        }
    }
}

/// The dimensions that shapes tell are those of the configuration; the rest is as in real files.
#[test]
fn dimensions_are_read_off_the_shapes() {
    for family in ["sd15", "sdxl"] {
        let (file, device) = (open(family, None), Device::flex());
        let sdxl = family == "sdxl";
        assert_eq!(file.family(), if sdxl { LdmFamily::Sdxl } else { LdmFamily::Sd1 });
        let loading = Loading::quiet(&device, Precision::Stored);
        let read = VaeConfig::open(&folder(family).join("vae/config.json")).unwrap();
        // The fixtures have 8 groups, which do not show; 32 do not fit their 16 channels.
        let vae = VaeConfig::infer(&Component::new(&file.vae(), &loading), read.scaling);
        let refused = vae.unwrap_err().to_string();
        assert!(refused.contains("16 channels, which are not 32 groups"), "{refused}");
        let unet = UnetConfig::infer(&Component::new(&file.unet(), &loading)).unwrap_err();
        let reason = if sdxl { "dimension of 0" } else { "groups" };
        assert!(unet.to_string().contains(reason), "{unet}");
    }
    for config in [small_sd15(), small_sdxl(), three_levels()] {
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Stored);
        let shapes = Recorded::default();
        Unet::load(&Component::new(&shapes, &loading), &config).unwrap();
        assert_eq!(UnetConfig::infer(&Component::new(&shapes, &loading)).unwrap(), config);
    }
    let sd15 = VaeConfig { channels: vec![32, 64, 64, 64], ..VaeConfig::sd15() };
    let flux = VaeConfig { channels: vec![32, 32, 64], layers_per_block: 1, ..VaeConfig::flux() };
    for config in [sd15, flux] {
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Stored);
        let shapes = Recorded::default();
        Vae::load(&Component::new(&shapes, &loading), &config).unwrap();
        let found = VaeConfig::infer(&Component::new(&shapes, &loading), config.scaling).unwrap();
        assert_eq!(found, config);
    }
}

fn small_sd15() -> UnetConfig {
    UnetConfig { channels: vec![32, 64, 64, 64], context_width: 24, ..UnetConfig::sd15() }
}

fn small_sdxl() -> UnetConfig {
    UnetConfig {
        channels: vec![64, 128, 192],
        depths: vec![0, 2, 3],
        mid_depth: 3,
        heads: vec![1, 2, 3],
        context_width: 40,
        added: Some(AddedConfig { time_width: 256, input_width: 1600 }),
        ..UnetConfig::sdxl()
    }
}

fn three_levels() -> UnetConfig {
    UnetConfig {
        channels: vec![64, 128, 192],
        layers_per_block: 1,
        depths: vec![0, 1, 1],
        heads: vec![8; 3],
        context_width: 128,
        ..UnetConfig::sd15()
    }
}

/// Random tensors, and the shapes that were asked for.
#[derive(Debug, Default)]
struct Recorded(RefCell<HashMap<String, Vec<usize>>>);

impl Tensors for Recorded {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.borrow().get(name).cloned()
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        self.0.borrow_mut().insert(name.to_owned(), shape.to_vec());
        RandomTensors::new(RandomFormat::F16, 0).read(name, shape)
    }
}

/// A network of other numbers of levels and layers, and other sizes of latents.
#[test]
fn any_number_of_levels_and_any_size_keep_the_latents_size() {
    let device = Device::flex();
    for (config, [height, width]) in [(three_levels(), [7, 10]), (small_sdxl(), [5, 5])] {
        let loading = Loading::quiet(&device, Precision::Half);
        let tensors = RandomTensors::new(RandomFormat::F16, 1);
        let unet = Unet::load(&Component::new(&tensors, &loading), &config).unwrap();
        let added = config.added.map(|added| AddedCondition {
            pooled: Tensor::ones([2, added.pooled_width()], &device),
            sizes: unet.sizes(&[[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]; 2]),
        });
        let sample = Tensor::ones([2, height, width, 4], &device);
        let context = Tensor::ones([2, 9, config.context_width], &device);
        let found = unet.forward(sample, unet.timestep(500.0), &context, added.as_ref());
        assert_eq!(found.dims(), [2, height, width, 4]);
        assert!(download(found).unwrap().iter().all(|x| x.is_finite()));
    }
}

/// Text encoders that are fused or transposed in the file come apart as they were put together.
#[test]
fn open_clips_fused_tensors_come_apart() {
    let file = open("sdxl", None);
    let text = file.text_encoder_2().unwrap();
    let prefix = "conditioner.embedders.1.model.";
    let raw = |name: &str| file.file().tensor(&format!("{prefix}{name}")).unwrap().into_bytes();
    let read = |name: &str| {
        let shape = text.shape(name).unwrap();
        match text.read(name, &shape) {
            Ok(Weight::Plain { bytes, .. }) => (shape, bytes.to_vec()),
            other => panic!("{other:?}"),
        }
    };
    for kind in ["weight", "bias"] {
        let parts = ["q_proj", "k_proj", "v_proj"]
            .map(|part| read(&format!("text_model.encoder.layers.1.self_attn.{part}.{kind}")).1);
        assert_eq!(parts.concat(), raw(&format!("transformer.resblocks.1.attn.in_proj_{kind}")));
    }
    let (shape, bytes) = read("text_projection.weight");
    let stored = raw("text_projection");
    for (row, column) in [(0, 1), (5, 2), (shape[0] - 1, 0)] {
        let at = |i: usize| 2 * i..2 * i + 2;
        assert_eq!(bytes[at(row * shape[1] + column)], stored[at(column * shape[0] + row)]);
    }
    assert!(open("sd15", None).text_encoder_2().is_none());
    assert!(file.text_encoder().shape("text_model.final_layer_norm.bias").is_some());
}

/// A file in a folder of its own, with some tensors of `from`, changed.
pub(crate) fn changed_file(
    from: &Path,
    name: &str,
    change: impl Fn(&str) -> Option<String>,
) -> PathBuf {
    let bytes = std::fs::read(from).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensors().into_iter().filter_map(|(name, view)| Some((change(&name)?, view)));
    let folder = std::env::temp_dir().join(format!("neurino-networks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, safetensors::serialize(kept, None).unwrap()).unwrap();
    path
}

/// A copy of a file with a note in its metadata.
fn noted(from: &Path, name: &str, key: &str, text: &str) -> PathBuf {
    let path = changed_file(from, name, |_| None);
    let bytes = std::fs::read(from).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let notes = [(key, text), ("ss_tag_frequency", "{}")];
    let notes = notes.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
    std::fs::write(&path, safetensors::serialize(file.tensors(), Some(notes)).unwrap()).unwrap();
    path
}

#[test]
fn damaged_files_are_refused_with_the_reason() {
    let device = Device::flex();
    let model = folder("sd15").join("model.safetensors");
    let config = UnetConfig::open(&folder("sd15").join("unet/config.json")).unwrap();
    let load = |path: &Path, config: &UnetConfig| {
        let file = LdmTensors::open(path, None)?;
        let loading = Loading::quiet(&device, Precision::Full);
        Unet::load(&Component::new(&file.unet(), &loading), config).map(|_| ())
    };
    let words = |error: DiffusionError| match error {
        DiffusionError::Weights(error) => error.to_string(),
        other => other.to_string(),
    };

    let bytes = std::fs::read(&model).unwrap();
    let path = changed_file(&model, "truncated", |name| Some(name.to_owned()));
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    assert!(words(load(&path, &config).unwrap_err()).contains("incomplete"));

    let missing = "model.diffusion_model.middle_block.1.proj_in.bias";
    let without = |name: &str| (name != missing).then(|| name.to_owned());
    let error = load(&changed_file(&model, "missing", without), &config).unwrap_err();
    assert!(words(error).contains("mid_block.attentions.0.proj_in.bias"));

    let wider = UnetConfig { context_width: 56, ..config.clone() };
    let error = words(load(&model, &wider).unwrap_err());
    assert!(error.contains("attn2.to_k.weight") && error.contains("[16, 56]"), "{error}");

    // Loading that nobody waits for any more stops at the next tensor.
    let file = LdmTensors::open(&model, None).unwrap();
    let (nobody, gone) = (|_| (), || true);
    let loading = Loading::new(&device, Precision::Full, &nobody, &gone);
    let error = Unet::load(&Component::new(&file.unet(), &loading), &config).unwrap_err();
    assert!(matches!(error, DiffusionError::Cancelled));
    assert!(loading.held_bytes() < 100_000);
}

#[test]
fn a_file_that_is_something_else_is_named() {
    let model = folder("sd15").join("model.safetensors");
    let found = |path: &Path| match LdmTensors::open(path, None).unwrap_err() {
        DiffusionError::Unsupported { found, .. } => found,
        other => panic!("{other}"),
    };
    let renamed = |file: &str, from: &str, to: &str| {
        let change = |name: &str| Some(name.replacen(from, to, 1));
        found(&changed_file(&model, file, change))
    };
    let text = "cond_stage_model.transformer.";
    assert!(renamed("sd2", text, "cond_stage_model.model.").contains("Stable Diffusion 2"));
    assert!(renamed("refiner", text, "conditioner.embedders.0.model.").contains("refiner"));
    assert!(renamed("unet", text, "other.").contains("without its text encoder"));
    assert!(renamed("flux", "model.diffusion_model.", "double_blocks.").contains("Flux"));
    assert!(found(&folder("sd15").join("lora_kohya.safetensors")).contains("LoRA"));
    assert!(found(&folder("sd15").join("lora_old_diffusers.safetensors")).contains("LoRA"));
    assert!(found(&folder("sd15").join("vae_alt.safetensors")).contains("autoencoder alone"));
    let transformer = fixture("flux/transformer_nf4/diffusion_pytorch_model.safetensors");
    assert!(found(&transformer).contains("one component"));
    assert!(found(&fixture("rng/randn.safetensors")).contains("no image model"));
    let pickled = changed_file(&model, "pickled.ckpt", |_| None);
    std::fs::write(&pickled, [b"PK\x03\x04".as_slice(), &[0; 64]].concat()).unwrap();
    assert!(found(&pickled).contains(".ckpt"));

    let velocity = |name: &str| {
        let mark = name == "first_stage_model.decoder.conv_in.bias";
        Some(if mark { "v_pred".to_owned() } else { name.to_owned() })
    };
    let velocity = found(&changed_file(&model, "velocity", velocity));
    assert!(velocity.contains("v_pred") && velocity.contains("epsilon"), "{velocity}");
    // Others say it in the file's metadata alone, whatever else stands there.
    for (told, refused) in [("v", true), ("epsilon", false)] {
        let path = noted(&model, "modelspec.safetensors", "modelspec.prediction_type", told);
        assert_eq!(LdmTensors::open(&path, None).is_err(), refused, "{told}");
        if refused {
            let words = found(&path);
            let part = ["`v`", "modelspec.prediction_type", "epsilon"];
            assert!(part.iter().all(|part| words.contains(part)), "{words}");
        }
    }

    let wrong_vae = LdmTensors::open(&model, Some(&folder("sd15").join("lora_kohya.safetensors")));
    assert!(wrong_vae.unwrap_err().to_string().contains("no autoencoder"));
}

/// A component of a diffusers folder has the names that are asked for, in one file or several.
#[test]
fn folders_of_diffusers_are_read() {
    let vae = FolderTensors::open(&fixture("flux/vae")).unwrap();
    let config = VaeConfig::open(&fixture("flux/vae/config.json")).unwrap();
    assert_eq!(config.scaling, LatentScaling::FLUX);
    let device = Device::flex();
    let loading = Loading::quiet(&device, Precision::Full);
    let part = Component::new(&vae, &loading);
    let loaded = Vae::load(&part, &config).unwrap();
    assert_eq!(loading.held_bytes(), 2 * vae.weights_bytes(), "f32 from bf16");
    let run = std::fs::read(fixture("flux/run_plain.safetensors")).unwrap();
    let run = SafeTensors::deserialize(&run).unwrap();
    let decoded = picture(&run, "decoded");
    let [_, height, width, _] = decoded.dims();
    let last = run.names().into_iter().filter(|name| name.starts_with("latents")).max().unwrap();
    // Tokens of 2 x 2 latents, the channel outermost within a token.
    let [rows, columns, channels] = [height / 16, width / 16, config.latent_channels];
    let packed = upload(floats(&run, last), [rows, columns, channels, 4], &device);
    let latents: Tensor<6> = packed.reshape([rows, columns, channels, 2, 2, 1]);
    let latents = latents.permute([0, 3, 1, 4, 2, 5]);
    let latents = latents.reshape([1, rows * 2, columns * 2, channels]);
    let found = loaded.decode(loaded.from_denoiser(latents));
    assert_near("decoded", found, decoded, LIMIT);
    let sharded = FolderTensors::open(&fixture("flux/transformer")).unwrap();
    assert!(sharded.shape("proj_out.weight").is_some());
}

#[test]
fn configurations_of_other_networks_are_refused() {
    let text = std::fs::read_to_string(folder("sdxl").join("unet/config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(UnetConfig::from_json(text.as_bytes()).is_ok());
    let changed = |field: &str, value: serde_json::Value| {
        let mut json = json.clone();
        json[field] = value;
        UnetConfig::from_json(json.to_string().as_bytes()).unwrap_err()
    };
    for (field, value) in [
        ("class_embed_type", "timestep".into()),
        ("only_cross_attention", true.into()),
        ("time_cond_proj_dim", 256.into()),
        ("resnet_time_scale_shift", "scale_shift".into()),
        ("norm_num_groups", 7.into()),
        ("norm_num_groups", 0.into()),
        ("block_out_channels", serde_json::json!([16, 24])),
        ("block_out_channels", serde_json::json!([])),
        ("attention_head_dim", serde_json::json!([2, 5, 7])),
        ("in_channels", u64::MAX.into()),
        ("up_block_types", serde_json::json!(["UpBlock2D", "UpBlock2D", "UpBlock2D"])),
        ("projection_class_embeddings_input_dim", 48.into()),
        ("transformer_layers_per_block", serde_json::json!([1, 2])),
    ] {
        let problem = changed(field, value.clone());
        assert!(
            problem.starts_with("has ") || problem.starts_with("describes "),
            "{field} {problem}"
        );
    }
    assert!(UnetConfig::from_json(b"[]").is_err());
    // diffusers' own default.
    let mut short = json.clone();
    short["block_out_channels"] = serde_json::json!([32, 64, 128]);
    short.as_object_mut().unwrap().remove("attention_head_dim").unwrap();
    short["norm_num_groups"] = 8.into();
    let short = UnetConfig::from_json(short.to_string().as_bytes()).unwrap();
    assert_eq!(short.heads, [8; 3]);
    let text = std::fs::read_to_string(folder("sd15").join("vae/config.json")).unwrap();
    for (from, to) in [
        ("\"scaling_factor\": 0.18215", "\"scaling_factor\": 0.0"),
        ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        ("\"latent_channels\": 4", "\"latent_channels\": 0"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(VaeConfig::from_json(text.replace(from, to).as_bytes()).is_err(), "{to}");
    }
}
