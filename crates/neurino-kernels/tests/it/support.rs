//! What every kernel test needs.

use cubecl::Device;
use cubecl::prelude::*;
use neurino_kernels::buffer::Buffer;
use neurino_kernels::gpu::Gpu;
use neurino_kernels::lanes::Cut;

/// The device under test.
pub(crate) fn client() -> Client {
    #[cfg(feature = "cuda-runtime")]
    if std::env::var("NEURINO_TEST_DEVICE").is_ok_and(|device| device == "cuda") {
        return Device::Cuda(cubecl::cuda::CudaDevice::default()).client();
    }
    Device::Cpu(cubecl::cpu::CpuDevice).client()
}

/// The device under test with its own cut.
pub(crate) fn gpu() -> Gpu {
    Gpu::new(client())
}

/// As [`gpu`], but where warps are only imitated, with two small ones, so that what lanes and warps
/// say to each other is tested. Barriers are slow there: for small shapes.
pub(crate) fn warps() -> Gpu {
    let gpu = gpu();
    let cut = Cut { lanes: 2, planes: 2, shuffle: false };
    if gpu.cut == Cut::SINGLE { Gpu { cut, ..gpu } } else { gpu }
}

/// Reads a buffer of floats.
pub(crate) fn floats(gpu: &Gpu, buffer: &Buffer) -> Vec<f32> {
    f32::from_bytes(&buffer.download(&gpu.client).unwrap())[..buffer.len()].to_vec()
}

/// Numbers from -1 to 1 that look random, always the same.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Asserts that two vectors agree to `tolerance`, relative to the largest expected value.
pub(crate) fn assert_close(what: &str, found: &[f32], expect: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expect.len(), "{what}");
    let largest = expect.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
    for (i, (found, expect)) in found.iter().zip(expect).enumerate() {
        let error = (found - expect).abs() / largest;
        assert!(error <= tolerance, "{what}: value {i} is {found} instead of {expect}");
    }
}
