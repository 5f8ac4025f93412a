//! Some rows of a matrix in bitsandbytes' nf4, unpacked in one launch into the format that tensor cores
//! multiply. Plain tensors take ten launches and pass each weight through memory as 32 bits several times.
//!
//! Weights are counted row after row, eight to a word: of each byte the first one is in the upper half.
//! Blocks of weights share a scale, which is whole here: the reader has resolved the nested one.
//!
//! Source: Dettmers et al. 2023; `bitsandbytes@0.43 kDequantizeBlockwise`.

use cubecl::prelude::*;
use half::f16;

use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};

/// Weights of a word.
pub const WORD: usize = 8;
/// Weights of a unit of work.
const UNIT: usize = 4;

/// One unit four weights: half a word, whose bytes come in order.
#[cube(launch_unchecked)]
fn unpack_kernel<C: Float>(
    words: &[u32],
    table: &[f32],
    scales: &[f32],
    y: &mut [Vector<C, Const<4>>],
    first: u32,
    count: u32,
    #[comptime] block: usize,
) {
    let unit = ABSOLUTE_POS;
    if unit < count as usize / UNIT {
        let weights = four(words, table, scales, first as usize + unit * UNIT, block);
        let mut unpacked = Vector::new(C::cast_from(0.0f32));
        #[unroll]
        for k in 0..4usize {
            unpacked.insert(k, C::cast_from(weights.extract(k)));
        }
        y[unit] = unpacked;
    }
}

/// The same as bf16, two to a word: the oldest cards have no such numbers, and rounding is an addition.
#[cube(launch_unchecked)]
fn unpack_bf16_kernel(
    words: &[u32],
    table: &[f32],
    scales: &[f32],
    y: &mut [Vector<u32, Const<2>>],
    first: u32,
    count: u32,
    #[comptime] block: usize,
) {
    let unit = ABSOLUTE_POS;
    if unit < count as usize / UNIT {
        let weights = four(words, table, scales, first as usize + unit * UNIT, block);
        let mut unpacked = Vector::new(u32::cast_from(0u32));
        #[unroll]
        for k in 0..2usize {
            let low = rounded(weights.extract(comptime!(2 * k)));
            let high = rounded(weights.extract(comptime!(2 * k + 1)));
            unpacked.insert(k, (low >> 16u32) | (high & 0xFFFF_0000u32));
        }
        y[unit] = unpacked;
    }
}

/// The bits of a number whose upper half is its nearest bf16, even ones first.
#[cube]
fn rounded(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    bits + 0x7FFFu32 + ((bits >> 16u32) & 1u32)
}

/// Four weights, of which the first is the first of a word or its fifth.
#[cube]
fn four(
    words: &[u32],
    table: &[f32],
    scales: &[f32],
    weight: usize,
    #[comptime] block: usize,
) -> Vector<f32, Const<4>> {
    let bits = words[weight / WORD] >> (((weight / UNIT) as u32 & 1u32) * 16u32);
    let scale = scales[weight / block];
    let mut weights = Vector::new(f32::new(0.0f32));
    #[unroll]
    for k in 0..4usize {
        let shift = comptime!([4u32, 0, 12, 8][k]);
        let place = (bits >> shift) & 15u32;
        weights.insert(k, table[place as usize] * scale);
    }
    weights
}

/// What weights are unpacked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpacked {
    /// 16 bits.
    F16,
    /// 16 bits.
    Bf16,
    /// 32 bits.
    F32,
}

/// Whether there is a kernel for the weights `first .. first + count`.
///
/// # Errors
/// `Unsupported` unless all three are multiples of four.
pub fn check(first: usize, count: usize, block: usize) -> Result<(), Unsupported> {
    let fits = |number: usize| number.is_multiple_of(UNIT);
    if block == 0 || !fits(block) || !fits(first) || !fits(count) {
        return Err(Unsupported("blocks or rows that are no multiple of four weights"));
    }
    if first + count > u32::MAX as usize {
        return Err(Unsupported("so many weights"));
    }
    Ok(())
}

/// Launches `y = table[weight] * scale of its block` for the weights from `first` on, one for each place
/// of `y`, which holds numbers of `format`.
///
/// # Shapes
/// - `words`: all weights, u32; `table`: `[16]`, `scales`: one a block, f32
///
/// # Errors
/// As [`check`].
///
/// # Panics
/// If the lengths of the buffers do not fit together.
pub fn unpack(
    gpu: &Gpu,
    [words, table, scales]: [&Buffer; 3],
    y: &Buffer,
    format: Unpacked,
    first: usize,
    block: usize,
) -> Result<(), Unsupported> {
    let count = y.len();
    check(first, count, block)?;
    let end = first + count;
    assert!(words.len() * WORD >= end && table.len() == 16, "as many weights");
    assert!(scales.len() * block >= end, "a scale for each block");
    let cubes = (count / UNIT).div_ceil(gpu.cut.units()) as u32;
    macro_rules! launch {
        ($kernel:ident $(, $number:ty)?) => {{
            // SAFETY: the lengths were checked, a place of the table has four bits, and the kernel
            // stays below `count`.
            #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
            unsafe {
                $kernel::launch_unchecked$(::<$number>)?(
                    &gpu.client,
                    CubeCount::Static(cubes, 1, 1),
                    gpu.cut.dim(),
                    words.arg(1),
                    table.arg(1),
                    scales.arg(1),
                    y.arg(UNIT),
                    first as u32,
                    count as u32,
                    block,
                );
            }
        }};
    }
    if count > 0 {
        match format {
            Unpacked::F16 => launch!(unpack_kernel, f16),
            Unpacked::Bf16 => launch!(unpack_bf16_kernel),
            Unpacked::F32 => launch!(unpack_kernel, f32),
        }
    }
    Ok(())
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER as B, Case, device, settings, target};
    let settings = || settings(crate::lanes::Cut::CUDA);
    macro_rules! case {
        ($name:literal, $kernel:ty) => {{
            let kernel = <$kernel>::new(settings(), device(), target(), B, B, B, B, (), (), 64);
            Case::new($name, kernel)
        }};
    }
    vec![
        case!("nf4 as f16", unpack_kernel::UnpackKernel::<f16>),
        case!("nf4 as f32", unpack_kernel::UnpackKernel::<f32>),
        case!("nf4 as bf16", unpack_bf16_kernel::UnpackBf16Kernel),
    ]
}
