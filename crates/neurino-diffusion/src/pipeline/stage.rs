//! The last stage, which is the same for all families: the picture of latents, or a preview of it.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};
use neurino_nn::device::{download, run_near};

use super::Decoding;
use super::preview::LinearPreview;
use crate::DiffusionError;
use crate::vae::{Tiling, Vae};

/// The picture of the denoiser's latents, `[1, height, width, channels]`.
pub(super) fn decode(
    vae: &Vae,
    latents: Tensor<4>,
    decoding: Decoding,
) -> Result<Tensor<4>, DiffusionError> {
    let latents = vae.from_denoiser(latents);
    if vae.decoder_visits() {
        // What the steps computed in is the decoder's now.
        latents.device().memory_cleanup();
    }
    match decoding {
        Decoding::Whole => Ok(run_near(&latents.device(), || vae.decode(latents.clone()))),
        Decoding::Tiled => vae.decode_tiled(latents, Tiling::USUAL),
        Decoding::SmallTiles => vae.decode_tiled(latents, Tiling::SMALL),
    }
}

/// [`decode`] by the same decoder in f32, if there is one to take instead. Latents that are no numbers make
/// no picture in any precision.
pub(super) fn decode_in_full(
    vae: &Vae,
    latents: Tensor<4>,
    decoding: Decoding,
) -> Result<Option<Tensor<4>>, DiffusionError> {
    if !download(latents.clone())?.iter().all(|value| value.is_finite()) {
        return Ok(None);
    }
    vae.in_full()?.map(|vae| decode(&vae, latents, decoding)).transpose()
}

/// The map for previews, which is made at the first one.
pub(super) fn preview<'a>(
    map: &'a OnceLock<LinearPreview>,
    vae: &Vae,
    device: &Device,
) -> Result<&'a LinearPreview, DiffusionError> {
    if let Some(map) = map.get() {
        return Ok(map);
    }
    let config = vae.config();
    let decode = |latents| decode(vae, latents, Decoding::Whole);
    let made = LinearPreview::fit(config.latent_channels, config.factor(), device, decode)?;
    Ok(map.get_or_init(|| made))
}
