//! Sizes of pictures and of their latents.

use neurino_core::ImageJob;

use crate::DiffusionError;
use crate::vae::Vae;

/// Pixels of a picture for each latent pixel, along one side.
pub(super) fn factor(vae: &Vae) -> u32 {
    u32::try_from(vae.config().factor()).unwrap_or(u32::MAX)
}

/// Width and height of a job's picture, rounded down to multiples of `multiple`.
pub(super) fn floored(job: &ImageJob, multiple: u32) -> [u32; 2] {
    let multiple = multiple.max(1);
    [job.width, job.height].map(|side| side / multiple * multiple)
}

/// Width and height of the latents of a picture of `size` (width, height).
pub(super) fn latent(size: [u32; 2], factor: u32) -> Result<[usize; 2], DiffusionError> {
    for (field, side) in ["width", "height"].into_iter().zip(size) {
        if side == 0 || side > ImageJob::SIDE_MAX {
            let rule = format!("must be {factor} to {} for this model", ImageJob::SIDE_MAX);
            return Err(DiffusionError::InvalidRequest { field, rule });
        }
    }
    Ok(size.map(|side| (side / factor.max(1)) as usize))
}

#[cfg(test)]
mod tests {
    use neurino_core::ModelId;

    use super::*;

    #[test]
    fn sizes_are_rounded_down_to_what_the_model_can_make() {
        let mut job = ImageJob::new(ModelId::new("m").expect("valid"), "a cat", 680);
        job.height = 1024;
        assert_eq!(floored(&job, 8), [680, 1024]);
        assert_eq!(floored(&job, 16), [672, 1024]);
        assert!(matches!(latent([672, 1024], 8), Ok([84, 128])));
        job.width = 8;
        assert!(latent(floored(&job, 16), 8).is_err());
        assert!(latent([4096, 64], 8).is_err());
    }
}
