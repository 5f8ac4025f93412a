//! A single-file checkpoint of arbitrary bytes is refused with an error, or its dimensions are read off
//! and its tensors come as they are asked for; never a panic.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use neurino_diffusion::checkpoint::ldm::{LdmComponent, LdmTensors};
use neurino_diffusion::checkpoint::{Component, Loading, Precision, Tensors};
use neurino_diffusion::unet::UnetConfig;
use neurino_diffusion::vae::{LatentScaling, VaeConfig};

const NAMES: [&str; 12] = [
    "conv_in.weight",
    "down_blocks.0.resnets.0.conv1.weight",
    "down_blocks.0.downsamplers.0.conv.bias",
    "mid_block.attentions.0.proj_in.weight",
    "up_blocks.0.upsamplers.0.conv.weight",
    "decoder.up_blocks.0.resnets.0.conv1.weight",
    "decoder.mid_block.attentions.0.to_q.weight",
    "text_model.embeddings.token_embedding.weight",
    "text_model.encoder.layers.0.self_attn.k_proj.weight",
    "text_model.encoder.layers.0.self_attn.v_proj.bias",
    "text_model.final_layer_norm.weight",
    "text_projection.weight",
];

fn read(tensors: LdmComponent<'_>) {
    for name in NAMES {
        let Some(shape) = tensors.shape(name) else { continue };
        if let Ok(weight) = tensors.read(name, &shape) {
            assert_eq!(weight.size_bytes() % shape.iter().product::<usize>().max(1), 0);
        }
        assert!(tensors.read(name, &[3, 1, 5]).is_err() || shape.len() >= 3);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("a temporary file can be written");
    // As a checkpoint, and as an autoencoder of its own.
    let _ = LdmTensors::open(file.path(), Some(file.path())).map(|file| read(file.vae()));
    let Ok(checkpoint) = LdmTensors::open(file.path(), None) else { return };
    let device = Default::default();
    let loading = Loading::quiet(&device, Precision::Stored);
    let _ = UnetConfig::infer(&Component::new(&checkpoint.unet(), &loading));
    let _ = VaeConfig::infer(&Component::new(&checkpoint.vae(), &loading), LatentScaling::SD15);
    read(checkpoint.unet());
    read(checkpoint.vae());
    read(checkpoint.text_encoder());
    if let Some(text) = checkpoint.text_encoder_2() {
        read(text);
    }
});
