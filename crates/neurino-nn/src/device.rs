//! Which device computes, and moving numbers between it and the host.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::NnError;

/// Whether tensors of `device` live in ordinary memory, so that the CPU kernels apply.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// Has what is tuned for cards kept in the file `name` below `folder`; no file of the folder that a program
/// happens to be started in has a say then. `false` where that cannot be: in a build without cards, and
/// once one of them is in use.
pub fn keep_tunings(folder: &Path, name: &str) -> bool {
    #[cfg(feature = "kernels")]
    {
        neurino_kernels::keep::keep_in(folder, name)
    }
    #[cfg(not(feature = "kernels"))]
    {
        let _ = (folder, name);
        false
    }
}

/// How a kind of weights is multiplied on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiles {
    /// In tiles, on tensor cores: the host's products, and a row's bits are the same in every step.
    Right,
    /// Not in tiles: the card has no such tensor cores.
    NoTensorCores,
    /// Not in tiles: its products are not the host's.
    Wrong,
    /// Not in tiles: a row's bits depend on how many there are.
    NotTheSame,
}

/// What a check of a card's tensor cores found.
#[derive(Debug, Clone, PartialEq)]
pub struct TileVerdict {
    /// The card.
    pub device: Device,
    /// The kind of weights.
    pub weights: String,
    /// What was found.
    pub tiles: Tiles,
}

/// What was found of the tensor cores of cards while weights were put on them; nothing in a build without
/// cards.
pub fn tile_verdicts() -> Vec<TileVerdict> {
    #[cfg(feature = "kernels")]
    {
        crate::cuda::tiles::verdicts()
    }
    #[cfg(not(feature = "kernels"))]
    {
        Vec::new()
    }
}

/// Runs `work` where nested parallel loops are cheapest: on a CPU device inside the thread pool
/// (a caller outside it would be woken once per loop), elsewhere on the calling thread, which
/// owns the device's stream.
pub fn run_near<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if is_cpu(device) { rayon::scope(|_| work()) } else { work() }
}

/// Uploads f32 values whatever the device's default float is.
pub fn upload<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// `data` in page-locked memory of the host, from where a card fetches it without a copy on the way: for what is
/// sent often. That memory is nobody else's as long as the data lives. A processor, and a system that has no
/// such memory left, leave it as it is.
pub fn page_locked(mut data: TensorData, device: &Device) -> TensorData {
    if !is_cpu(device) {
        device.staging(std::iter::once(&mut data));
    }
    data
}

/// What [`downloads`] counts.
static DOWNLOADS: AtomicU64 = AtomicU64::new(0);

/// How often this process has read tensors back: each time, a card's host waits for all that the card was
/// given before. What kernels of the CPU read of their own memory is not among them.
pub fn downloads() -> u64 {
    DOWNLOADS.load(Ordering::Relaxed)
}

/// Reads a tensor back as f32, row after row. Moves the memory where that is possible.
///
/// # Errors
/// `Device` if the computation that the tensor waits for failed.
pub fn download<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, NnError> {
    count_download();
    read(tensor)
}

/// Counts what [`downloads`] tells.
pub(crate) fn count_download() {
    DOWNLOADS.fetch_add(1, Ordering::Relaxed);
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, NnError> {
    let failed = |reason: String| NnError::Device { reason };
    let data = tensor.cast(DType::F32).try_into_data().map_err(|e| failed(e.to_string()))?;
    data.try_into_vec_as::<f32>().map_err(|e| failed(e.to_string()))
}

/// Reads a tensor of the CPU. Moves the memory if nothing else holds it.
pub(crate) fn in_memory<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    read(x).expect("a tensor of the CPU is in memory, and f32 is asked for")
}

/// Changes the values of a tensor of the CPU where they lie; a tensor of another device goes
/// `elsewhere`.
///
/// # Shapes
/// - `x`: any, f32; returns the same
pub fn in_place<const D: usize>(
    x: Tensor<D>,
    change: impl FnOnce(&mut [f32]),
    elsewhere: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let device = x.device();
    if !is_cpu(&device) {
        return elsewhere(x);
    }
    let shape = x.dims();
    let mut values = in_memory(x);
    change(&mut values);
    upload(values, shape, &device)
}
