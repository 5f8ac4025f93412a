//! `sd/NAME/networks.safetensors`, `flux/networks*.safetensors`: one pass of what denoises, block by
//! block; the autoencoder both ways; and `lora_reference.safetensors`: networks with updates of low
//! rank in every form.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use neurino_diffusion::ImageSource;
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::flux::FluxTransformer;
use neurino_diffusion::lora::{Lora, Part, set_loras};
use neurino_diffusion::pipeline::Family;
use neurino_diffusion::source::Changes;
use neurino_diffusion::unet::{AddedCondition, Unet};
use neurino_nn::device::download;

use super::{AnyError, NETWORK_LIMIT, picture, tensor, whole, whole_picture};
use crate::Options;
use crate::case::Report;
use crate::reference::Tensors;

pub(super) fn run(folder: &Path, case: &str, options: &Options, report: &mut Report<'_>) {
    let source = match ImageSource::open(folder) {
        Ok(source) => source,
        Err(error) => return report.failed(case, &error),
    };
    let mut part = |name: &str, run: &mut dyn FnMut(&mut Report<'_>) -> Result<(), AnyError>| {
        if let Err(error) = run(report) {
            report.failed(&format!("{case} {name}"), error.as_ref());
        }
    };
    let networks = folder.join("networks.safetensors");
    if source.family() == Family::Flux {
        if networks.is_file() {
            part("networks", &mut |report| {
                flux(&source, &networks, &format!("{case} networks"), options, report)
            });
        }
        let packed = folder.join("networks_nf4.safetensors");
        if packed.is_file() {
            part("networks_nf4", &mut |report| {
                let transformer = Some(folder.join("transformer_nf4"));
                let changes = Changes { transformer, ..Changes::default() };
                let source = ImageSource::open_with(folder, &changes)?;
                flux(&source, &packed, &format!("{case} networks_nf4"), options, report)
            });
        }
        let loras = folder.join("lora_reference.safetensors");
        if loras.is_file() {
            part("lora", &mut |report| flux_lora(&source, folder, &loras, case, options, report));
        }
        return;
    }
    if networks.is_file() {
        part("unet", &mut |report| unet(&source, &networks, case, options, report));
        part("vae", &mut |report| vae(&source, &networks, case, options, report));
    }
    let loras = folder.join("lora_reference.safetensors");
    if loras.is_file() {
        part("lora", &mut |report| lora(&source, folder, &loras, case, options, report));
    }
}

/// The condition of SDXL in a file of cases, whose names begin with `prefix`.
fn added(
    unet: &Unet,
    tensors: &Tensors,
    prefix: &str,
    options: &Options,
) -> Result<Option<AddedCondition>, AnyError> {
    let name = |part: &str| format!("{prefix}{part}");
    if !tensors.has(&name("text_embeds")) {
        return Ok(None);
    }
    let pooled = tensor(tensors, &name("text_embeds"), &options.device)?;
    let time_ids = tensors.floats(&name("time_ids"))?;
    Ok(Some(AddedCondition { pooled, sizes: unet.sizes(time_ids.as_chunks().0) }))
}

fn timestep(tensors: &Tensors, name: &str) -> Result<f32, AnyError> {
    // A whole number in some folders.
    let value = match tensors.floats(name) {
        Ok(values) => values.first().copied(),
        Err(_) => tensors.ids(name)?.first().map(|&id| id as f32),
    };
    Ok(value.ok_or_else(|| format!("`{name}` is empty"))?)
}

fn unet(
    source: &ImageSource,
    path: &Path,
    case: &str,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(path)?;
    let unet = source.load_unet(&Loading::quiet(&options.device, Precision::Full))?;
    let mut number = 0;
    while tensors.has(&format!("case{number}.sample")) {
        let prefix = format!("case{number}.");
        let name = |part: &str| format!("{prefix}{part}");
        let sample = picture(&tensors, &name("sample"), &options.device)?;
        let context = tensor(&tensors, &name("context"), &options.device)?;
        let added = added(&unet, &tensors, &prefix, options)?;
        let time = unet.timestep(timestep(&tensors, &name("timestep"))?);
        let mut blocks = Vec::new();
        let output =
            unet.forward_tapped(sample, time, &context, added.as_ref(), &mut |block, x| {
                blocks.push((block.to_owned(), x.clone()));
            });
        blocks.push(("output".to_owned(), output));
        for (block, found) in blocks {
            if tensors.has(&name(&block)) {
                let found = whole_picture(found, &tensors, &name(&block), NETWORK_LIMIT)?;
                report.close(&format!("{case} unet {}", name(&block)), &found);
            }
        }
        number += 1;
    }
    Ok(())
}

fn vae(
    source: &ImageSource,
    path: &Path,
    case: &str,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(path)?;
    if !tensors.has("vae.latents") && !tensors.has("vae.image") {
        return Ok(());
    }
    let vae = source.load_vae(&Loading::quiet(&options.device, Precision::Full))?;
    if tensors.has("vae.latents") {
        let found = vae.decode(picture(&tensors, "vae.latents", &options.device)?);
        let found = whole_picture(found, &tensors, "vae.decoded", NETWORK_LIMIT)?;
        report.close(&format!("{case} vae.decoded"), &found);
    }
    if tensors.has("vae.image") {
        let moments = vae.encode(picture(&tensors, "vae.image", &options.device)?);
        let moments = moments.ok_or("the encoder was not loaded")?;
        let mean = whole_picture(moments.mean, &tensors, "vae.mean", NETWORK_LIMIT)?;
        report.close(&format!("{case} vae.mean"), &mean);
        let variance = whole_picture(moments.log_variance, &tensors, "vae.logvar", NETWORK_LIMIT)?;
        report.close(&format!("{case} vae.logvar"), &variance);
    }
    Ok(())
}

/// Networks with each file of updates that the reference has tensors of.
fn lora(
    source: &ImageSource,
    folder: &Path,
    path: &Path,
    case: &str,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(path)?;
    let loading = Loading::quiet(&options.device, Precision::Full);
    let mut unet = source.load_unet(&loading)?;
    let sample = picture(&tensors, "sample", &options.device)?;
    let context = tensor(&tensors, "context", &options.device)?;
    let time = unet.timestep(timestep(&tensors, "timestep")?);
    let added = added(&unet, &tensors, "", options)?;
    for name in sorted_names(&tensors) {
        let Some((format, part)) = name.split_once('.') else { continue };
        let open = || -> Result<Arc<Lora>, AnyError> {
            let file = folder.join(format!("lora_{format}.safetensors"));
            Ok(Arc::new(Lora::open(&file)?))
        };
        let case = format!("{case} lora {name}");
        let scale = part.strip_prefix("scale").and_then(|rest| rest.strip_suffix(".unet"));
        if let Some(scale) = scale.and_then(|scale| scale.parse::<f32>().ok()) {
            set_loras(&mut unet, Part::Denoiser, &[(open()?, scale)])?;
            let found = unet.forward(sample.clone(), time.clone(), &context, added.as_ref());
            report.close(&case, &whole_picture(found, &tensors, &name, NETWORK_LIMIT)?);
        } else if matches!(part, "text_encoder" | "text_encoder_2") {
            let second = part == "text_encoder_2";
            let mut encoder = source.load_text_encoder(&loading, second)?;
            let part = if second { Part::TextEncoder2 } else { Part::TextEncoder };
            set_loras(&mut encoder, part, &[(open()?, 1.0)])?;
            let states = encoder.encode(&[tensors.ids("ids")?])?;
            let found = whole(&download(states.penultimate)?, &tensors, &name, NETWORK_LIMIT)?;
            report.close(&case, &found);
        }
    }
    Ok(())
}

fn sorted_names(tensors: &Tensors) -> Vec<String> {
    let mut names: Vec<String> = tensors.file().names().map(str::to_owned).collect();
    names.sort();
    names
}

/// What a transformer of Flux gets in a file of cases.
struct FluxInput {
    latents: Tensor<3>,
    states: Tensor<3>,
    pooled: Tensor<2>,
    time: f32,
    guidance: f32,
    /// Rows and columns of the latent tokens.
    size: [usize; 2],
}

impl FluxInput {
    fn read(tensors: &Tensors, options: &Options) -> Result<Self, AnyError> {
        // Rows and columns of the tokens: positions count from 0.
        let positions = tensors.floats("img_ids")?;
        let side = |axis: usize| {
            let last = positions.chunks(3).map(|position| position[axis]).fold(0.0, f32::max);
            last as usize + 1
        };
        let strength = if tensors.has("guidance") {
            tensors.floats("guidance")?.first().copied()
        } else {
            None
        };
        Ok(Self {
            latents: tensor(tensors, "hidden_states", &options.device)?,
            states: tensor(tensors, "encoder_hidden_states", &options.device)?,
            pooled: tensor(tensors, "pooled", &options.device)?,
            time: timestep(tensors, "timestep")?,
            guidance: strength.unwrap_or_default(),
            size: [side(1), side(2)],
        })
    }

    /// What the transformer makes of it, and what its blocks make in between.
    fn pass(&self, transformer: &FluxTransformer) -> (Tensor<3>, Vec<(String, Tensor<3>)>) {
        let (states, pooled) = (self.states.clone(), self.pooled.clone());
        // Updates of low rank act on the condition, too.
        let condition = transformer.condition(states, pooled, self.guidance, self.size);
        let mut blocks = Vec::new();
        let mut tap = |block: &str, x| blocks.push((block.to_owned(), x));
        let time = transformer.sinusoids(self.time);
        let output = transformer.forward_tapped(self.latents.clone(), time, &condition, &mut tap);
        (output, blocks)
    }
}

fn flux(
    source: &ImageSource,
    path: &Path,
    case: &str,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(path)?;
    let transformer = source.load_transformer(&Loading::quiet(&options.device, Precision::Full))?;
    let (output, mut blocks) = FluxInput::read(&tensors, options)?.pass(&transformer);
    blocks.push(("output".to_owned(), output));
    for (block, found) in blocks {
        if tensors.has(&block) {
            let found = whole(&download(found)?, &tensors, &block, NETWORK_LIMIT)?;
            report.close(&format!("{case} {block}"), &found);
        }
    }
    Ok(())
}

/// A transformer and CLIP with each file of updates that the reference has tensors of:
/// `FORMAT.scaleS.transformer` and `FORMAT.text_encoder`.
fn flux_lora(
    source: &ImageSource,
    folder: &Path,
    path: &Path,
    case: &str,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(path)?;
    let loading = Loading::quiet(&options.device, Precision::Full);
    let mut transformer = source.load_transformer(&loading)?;
    let input = FluxInput::read(&tensors, options)?;
    for name in sorted_names(&tensors) {
        let Some((format, part)) = name.split_once('.') else { continue };
        let open = || -> Result<Arc<Lora>, AnyError> {
            let file = folder.join(format!("lora_{format}.safetensors"));
            Ok(Arc::new(Lora::open(&file)?))
        };
        let case = format!("{case} lora {name}");
        let scale = part.strip_prefix("scale").and_then(|rest| rest.strip_suffix(".transformer"));
        if let Some(scale) = scale.and_then(|scale| scale.parse::<f32>().ok()) {
            set_loras(&mut transformer, Part::Denoiser, &[(open()?, scale)])?;
            let (found, _) = input.pass(&transformer);
            let found = whole(&download(found)?, &tensors, &name, NETWORK_LIMIT)?;
            report.close(&case, &found);
        } else if part == "text_encoder" {
            let mut encoder = source.load_text_encoder(&loading, false)?;
            set_loras(&mut encoder, Part::TextEncoder, &[(open()?, 1.0)])?;
            let states = encoder.encode(&[tensors.ids("ids")?])?;
            let found = whole(&download(states.pooled)?, &tensors, &name, NETWORK_LIMIT)?;
            report.close(&case, &found);
        }
    }
    Ok(())
}
