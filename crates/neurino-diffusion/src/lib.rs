//! Diffusion models: pictures from words, the same picture for the same seed as the reference makes.
//!
//! Reading order: [`rng`] (the reference's random numbers) and [`scheduler`] (its noise schedules),
//! both bit for bit where the reference is exact; [`checkpoint`] (layers from files); the networks
//! [`clip`], [`t5`], [`unet`], [`vae`] and [`flux`]; [`lora`]; [`prompt`] (weights in prompts);
//! [`pipeline`], one file a family, with the denoising loop; [`image`] (pixels and PNG); [`source`] (what
//! a file or folder is); [`memory`] and [`work`] (what a model takes and computes); [`pulse`] (that it
//! goes on).
//!
//! Spatial activations are `[batch, height, width, channels]`, sequences `[batch, tokens, width]`,
//! all f32.

pub mod checkpoint;
pub mod clip;
pub mod error;
pub mod flux;
pub mod image;
pub mod lora;
pub mod memory;
pub mod pipeline;
pub mod prompt;
pub mod pulse;
pub mod rng;
pub mod scheduler;
pub mod shapes;
pub mod source;
pub mod t5;
pub mod unet;
pub mod vae;
pub mod work;

pub use error::DiffusionError;
pub use image::RgbImage;
pub use pipeline::{Denoising, Pipeline};
pub use rng::{NoiseDtype, TorchRng};
pub use scheduler::{NoiseScheduler, SchedulerError};
pub use source::ImageSource;
