//! What a device can do at best: how fast it reads its memory, and how fast it multiplies matrices.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use neurino_hardware::measure_read_bandwidth;
use serde::Serialize;

use crate::device::OpenDevice;

/// Side of the matrices that are multiplied.
const SIDE_CPU: usize = 1024;
const SIDE_CARD: usize = 8192;
const MULTIPLICATIONS: usize = 8;

/// Ceilings of a device. What could not be measured is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Ceilings {
    /// Bytes of its memory read a second.
    pub read_bytes_per_s: Option<f64>,
    /// Floating-point operations a second in a large product of matrices, 16 bits on a card and 32 on
    /// a CPU.
    pub matmul_flop_per_s: Option<f64>,
    /// From asking for an empty kernel to the next, in microseconds. Cards only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_us: Option<f64>,
}

impl Ceilings {
    /// The better figure of two measurements each.
    pub(super) fn best_of(self, other: Self) -> Self {
        let most = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        Self {
            read_bytes_per_s: most(self.read_bytes_per_s, other.read_bytes_per_s),
            matmul_flop_per_s: most(self.matmul_flop_per_s, other.matmul_flop_per_s),
            launch_us: self.launch_us.into_iter().chain(other.launch_us).reduce(f64::min),
        }
    }
}

pub(super) fn measure(device: &OpenDevice) -> Ceilings {
    let matmul_flop_per_s = matmul(&device.device, device.is_cpu());
    if device.is_cpu() {
        let read = measure_read_bandwidth(0).best_bytes_per_s;
        return Ceilings { read_bytes_per_s: Some(read), matmul_flop_per_s, launch_us: None };
    }
    let (read_bytes_per_s, launch_us) = card(&device.device);
    Ceilings { read_bytes_per_s, matmul_flop_per_s, launch_us }
}

/// Read bandwidth and launch time, by the probes of the kernel compiler.
#[cfg(feature = "cuda")]
fn card(device: &Device) -> (Option<f64>, Option<f64>) {
    use burn::tensor::{MemoryAccess, ThroughputKey, ThroughputMode};
    let read = ThroughputKey { mode: ThroughputMode::memory(MemoryAccess::Read) };
    let launch = ThroughputKey { mode: ThroughputMode::Launch };
    let stats = device.performance_stats(&[read, launch]);
    let value = |index: usize| stats.get(index).and_then(|stat| stat.value.ok());
    let read_bytes_per_s = value(0).map(|value| value.bytes_per_s(&read));
    let launch_us = value(1).map(|value| value.duration_per_op().as_secs_f64() * 1e6);
    (read_bytes_per_s.filter(|rate| rate.is_finite()), launch_us.filter(|time| *time > 0.0))
}

#[cfg(not(feature = "cuda"))]
fn card(_device: &Device) -> (Option<f64>, Option<f64>) {
    (None, None)
}

/// The best of some products of square matrices.
fn matmul(device: &Device, is_cpu: bool) -> Option<f64> {
    let (side, dtype) = if is_cpu { (SIDE_CPU, DType::F32) } else { (SIDE_CARD, DType::F16) };
    let random = || {
        let spread = Distribution::Uniform(-1.0, 1.0);
        Tensor::<2>::random([side, side], spread, (device, dtype))
    };
    let (a, b) = (random(), random());
    let mut best = f64::INFINITY;
    // The first ones choose and compile a kernel.
    for _ in 0..MULTIPLICATIONS {
        device.sync().ok()?;
        let started = Instant::now();
        let product = a.clone().matmul(b.clone());
        device.sync().ok()?;
        best = best.min(started.elapsed().as_secs_f64());
        drop(product);
    }
    let flop = 2.0 * (side as f64).powi(3);
    Some(flop / best).filter(|rate| rate.is_finite())
}
