//! A few rows times a large matrix, `y = x Wᵀ`: what decoding spends its time on.
//!
//! Bound by memory: every weight is read once for up to [`ROWS_MAX`] rows, unpacked in registers and
//! multiplied in f32. A warp takes [`Plan::outs`] rows of the matrix; its lanes take neighbouring
//! units of eight weights, in steps of 32 units. Warps of one cube may share a row of the matrix
//! (`split`), so that narrow matrices still keep every multiprocessor busy.
//!
//! The order of a sum is: the eight products of a unit, the units of a lane, the lanes as a tree, the
//! warps that split the row. It depends on the matrix alone, never on the number of rows.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::large_enum_variant,
    reason = "what clippy takes for four bytes are registers; matrices are few"
)]

use cubecl::prelude::*;
use half::f16;

use crate::buffer::Buffer;
use crate::format::{Format, Packed, UNIT};
use crate::gpu::{Gpu, Unsupported};
use crate::lanes::{Cut, lane_sum};
use crate::math::silu;

/// Rows of `x` that one pass over the weights serves.
pub const ROWS_MAX: usize = 8;

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Values of `y` in a row.
    out: usize,
    /// Values of `x` in a row.
    inner: usize,
    /// Weights with one scale; unused for dense matrices.
    group: usize,
    /// Rows of `x` in registers together.
    rows: usize,
    /// Rows of the matrix that a warp takes together.
    outs: usize,
    /// Warps that share a row of the matrix.
    split: usize,
    /// Steps whose loads are in flight together.
    ahead: usize,
    /// Whether the matrix has `2 * out` rows, gates first, and `y = silu(gate) * up`.
    gated: bool,
    cut: Cut,
}

impl Plan {
    fn new(cut: Cut, [out, inner, group]: [usize; 3], rows: usize, gated: bool) -> Self {
        // Fewer rows than this leave multiprocessors idle, so that several warps share one.
        let split = if out <= 2048 {
            4
        } else if out <= 8192 {
            2
        } else {
            1
        };
        Self {
            out,
            inner,
            group,
            rows: rows.next_power_of_two().min(ROWS_MAX),
            outs: if gated || out >= 1024 { 2 } else { 1 },
            split: split.min(cut.planes),
            // Eight rows need the registers for their sums.
            ahead: if rows > 4 { 1 } else { 2 },
            gated,
            cut,
        }
    }

    /// Values of `y` that a cube computes of one row.
    fn cube_outs(&self) -> usize {
        self.cut.planes / self.split * self.outs / if self.gated { 2 } else { 1 }
    }

    fn units(&self) -> usize {
        self.inner / UNIT
    }

    fn steps(&self) -> usize {
        self.units().div_ceil(self.cut.lanes * self.split * self.ahead)
    }

    fn cubes(&self, rows: usize) -> CubeCount {
        let outs = self.out.div_ceil(self.cube_outs()) as u32;
        // Row tiles first: those that share weights run at the same time and find them in the cache.
        CubeCount::Static(rows.div_ceil(self.rows) as u32, outs, 1)
    }
}

/// Where this warp works: its first row of the matrix and its place among the warps that share it.
#[cube]
fn row_of_matrix(#[comptime] plan: Plan, r: usize) -> usize {
    let warp = UNIT_POS_Y as usize / comptime!(plan.split);
    let pairs = comptime!(if plan.gated { plan.outs / 2 } else { plan.outs });
    let first = CUBE_POS_Y as usize * comptime!(plan.cube_outs()) + warp * pairs;
    let last = comptime!(plan.out - 1);
    // Rows beyond the matrix repeat the last one and are not written.
    let mut row = usize::min(first + r % pairs, last);
    if comptime!(plan.gated) {
        row += r / pairs * comptime!(plan.out);
    }
    row
}

/// Eight integers of a unit as floats: `q - 8` for [`Format::Q4`], `q` otherwise.
///
/// A float between 2^23 and 2^24 has its integer in its low bits, so an integer is widened by
/// putting it there and subtracting; conversions would run at a quarter of the speed.
#[cube]
fn unpack<W: Size>(
    words: Vector<u32, W>,
    quants: &mut Array<f32>,
    base: usize,
    #[comptime] format: Format,
) {
    let magic = 0x4B00_0000u32;
    if comptime!(format.bits() == 8) {
        let bias = f32::new(8_388_736.0f32);
        #[unroll]
        for half in 0..2usize {
            let word = words.extract(half) ^ 0x8080_8080u32;
            #[unroll]
            for i in 0..4usize {
                let bits = (word >> (8u32 * i as u32)) & 255u32;
                quants[base + half * 4 + i] = f32::reinterpret(bits | magic) - bias;
            }
        }
    } else {
        let bias =
            comptime!(if matches!(format, Format::Q4) { 8_388_616.0f32 } else { 8_388_608.0 });
        let word = words.extract(0usize);
        #[unroll]
        for i in 0..8usize {
            let bits = (word >> (4u32 * i as u32)) & 15u32;
            quants[base + i] = f32::reinterpret(bits | magic) - f32::new(bias);
        }
    }
}

/// Adds a step's products to the sums, for all rows and outs of the warp.
#[cube]
fn multiply<X: Float>(
    x: &[Vector<X, Const<4>>],
    rows: usize,
    unit: usize,
    quants: &Array<f32>,
    scales: &Array<f32>,
    offsets: &Array<f32>,
    sums: &mut Array<f32>,
    #[comptime] plan: Plan,
    #[comptime] format: Option<Format>,
) {
    #[unroll]
    for row in 0..plan.rows {
        // Rows beyond the last repeat it and are not written.
        let at = usize::min(CUBE_POS_X as usize * plan.rows + row, rows - 1);
        let at = at * comptime!(plan.inner / 4) + unit * 2;
        let low = Vector::<f32, Const<4>>::cast_from(x[at]);
        let high = Vector::<f32, Const<4>>::cast_from(x[at + 1]);
        let mut total = f32::new(0.0f32);
        if comptime!(format.is_some_and(Format::has_offsets)) {
            #[unroll]
            for i in 0..4usize {
                total += low.extract(i);
            }
            #[unroll]
            for i in 0..4usize {
                total += high.extract(i);
            }
        }
        #[unroll]
        for r in 0..plan.outs {
            let mut dot = f32::new(0.0f32);
            #[unroll]
            for i in 0..4usize {
                dot = fma(quants[r * UNIT + i], low.extract(i), dot);
            }
            #[unroll]
            for i in 0..4usize {
                dot = fma(quants[r * UNIT + 4 + i], high.extract(i), dot);
            }
            let at = row * plan.outs + r;
            if comptime!(format.is_some_and(Format::subtracts_zeros)) {
                dot = fma(-offsets[r], total, dot);
            }
            sums[at] = fma(scales[r], dot, sums[at]);
            if comptime!(format.is_some_and(Format::adds_offsets)) {
                sums[at] = fma(offsets[r], total, sums[at]);
            }
        }
    }
}

/// Folds the lanes and the warps of a row, and writes `y`.
#[cube]
fn finish<Y: Float>(sums: &Array<f32>, y: &mut [Y], rows: usize, #[comptime] plan: Plan) {
    let values = comptime!(plan.rows * plan.outs);
    let mut parts = Shared::<[f32]>::new_slice(comptime!(plan.cut.planes * plan.rows * plan.outs));
    #[unroll]
    for at in 0..values {
        let sum = lane_sum(sums[at], plan.cut);
        if UNIT_POS_X == 0 {
            parts[UNIT_POS_Y as usize * values + at] = sum;
        }
    }
    sync_cube();
    let pairs = comptime!(if plan.gated { plan.outs / 2 } else { plan.outs });
    let cube_outs = comptime!(plan.cube_outs());
    let first_row = CUBE_POS_X as usize * plan.rows;
    let first_out = CUBE_POS_Y as usize * cube_outs;
    let units = comptime!(plan.cut.units());
    #[unroll]
    for turn in 0..comptime!((plan.rows * plan.cube_outs()).div_ceil(plan.cut.units())) {
        let at = turn * units + UNIT_POS as usize;
        let row = at / cube_outs;
        let out = at % cube_outs;
        if row < plan.rows && first_row + row < rows && first_out + out < comptime!(plan.out) {
            let warp = out / pairs * plan.split;
            let place = row * plan.outs + out % pairs;
            let mut value = f32::new(0.0f32);
            #[unroll]
            for k in 0..plan.split {
                value += parts[(warp + k) * values + place];
            }
            if comptime!(plan.gated) {
                let mut up = f32::new(0.0f32);
                #[unroll]
                for k in 0..plan.split {
                    up += parts[(warp + k) * values + place + pairs];
                }
                value = silu(value) * up;
            }
            y[(first_row + row) * comptime!(plan.out) + first_out + out] = Y::cast_from(value);
        }
    }
}

#[cube(launch_unchecked)]
fn packed_kernel<X: Float, Y: Float, W: Size>(
    x: &[Vector<X, Const<4>>],
    words: &[Vector<u32, W>],
    scales: &[f16],
    offsets: &[f16],
    y: &mut [Y],
    rows: u32,
    #[comptime] plan: Plan,
    #[comptime] format: Format,
) {
    let rows = rows as usize;
    let units = comptime!(plan.units());
    let groups = comptime!(plan.inner / plan.group);
    let mut sums = Array::<f32>::new(comptime!(plan.rows * plan.outs));
    let mut quants = Array::<f32>::new(comptime!(plan.outs * UNIT));
    let mut scale = Array::<f32>::new(plan.outs);
    let mut offset = Array::<f32>::new(plan.outs);
    let mut ahead = Array::<Vector<u32, W>>::new(comptime!(plan.outs * plan.ahead));
    let lane = (UNIT_POS_Y as usize % plan.split) * plan.cut.lanes + UNIT_POS_X as usize;
    let stride = comptime!(plan.cut.lanes * plan.split);
    for step in 0..comptime!(plan.steps()) {
        let first = step * comptime!(stride * plan.ahead) + lane;
        #[unroll]
        for a in 0..plan.ahead {
            let unit = usize::min(first + a * stride, units - 1);
            #[unroll]
            for r in 0..plan.outs {
                ahead[a * plan.outs + r] = words[row_of_matrix(plan, r) * units + unit];
            }
        }
        #[unroll]
        for a in 0..plan.ahead {
            let inside = first + a * stride < units;
            let unit = usize::min(first + a * stride, units - 1);
            #[unroll]
            for r in 0..plan.outs {
                let group = row_of_matrix(plan, r) * groups + unit * UNIT / plan.group;
                unpack::<W>(ahead[a * plan.outs + r], &mut quants, r * UNIT, format);
                let s = f32::cast_from(scales[group]);
                scale[r] = select(inside, s, f32::new(0.0f32));
                if comptime!(format.has_offsets()) {
                    let o = f32::cast_from(offsets[group]);
                    offset[r] = select(inside, o, f32::new(0.0f32));
                }
            }
            multiply::<X>(
                x,
                rows,
                unit,
                &quants,
                &scale,
                &offset,
                &mut sums,
                plan,
                comptime!(Some(format)),
            );
        }
    }
    finish::<Y>(&sums, y, rows, plan);
}

/// How dense weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stored {
    /// One value an element.
    Plain,
    /// Two bf16 in a 32-bit word, the first one low: each is the upper half of an f32, so that no
    /// device needs to know the type.
    Bf16Pairs,
}

impl Stored {
    /// Elements of a unit.
    const fn unit_elements(self) -> usize {
        match self {
            Self::Plain => UNIT,
            Self::Bf16Pairs => UNIT / 2,
        }
    }
}

#[cube(launch_unchecked)]
fn dense_kernel<X: Float, Y: Float, E: Numeric, W: Size>(
    x: &[Vector<X, Const<4>>],
    weights: &[Vector<E, W>],
    y: &mut [Y],
    rows: u32,
    #[comptime] plan: Plan,
    #[comptime] stored: Stored,
) {
    let rows = rows as usize;
    let units = comptime!(plan.units());
    let mut sums = Array::<f32>::new(comptime!(plan.rows * plan.outs));
    let mut quants = Array::<f32>::new(comptime!(plan.outs * UNIT));
    let mut scale = Array::<f32>::new(plan.outs);
    let offset = Array::<f32>::new(plan.outs);
    let mut ahead = Array::<Vector<E, W>>::new(comptime!(plan.outs * plan.ahead));
    let lane = (UNIT_POS_Y as usize % plan.split) * plan.cut.lanes + UNIT_POS_X as usize;
    let stride = comptime!(plan.cut.lanes * plan.split);
    for step in 0..comptime!(plan.steps()) {
        let first = step * comptime!(stride * plan.ahead) + lane;
        #[unroll]
        for a in 0..plan.ahead {
            let unit = usize::min(first + a * stride, units - 1);
            #[unroll]
            for r in 0..plan.outs {
                ahead[a * plan.outs + r] = weights[row_of_matrix(plan, r) * units + unit];
            }
        }
        #[unroll]
        for a in 0..plan.ahead {
            let inside = first + a * stride < units;
            let unit = usize::min(first + a * stride, units - 1);
            #[unroll]
            for r in 0..plan.outs {
                let unit = ahead[a * plan.outs + r];
                if comptime!(matches!(stored, Stored::Bf16Pairs)) {
                    #[unroll]
                    for i in 0..4usize {
                        let pair = u32::cast_from(unit.extract(i));
                        quants[r * UNIT + 2 * i] = f32::reinterpret(pair << 16u32);
                        quants[r * UNIT + 2 * i + 1] = f32::reinterpret(pair & 0xFFFF_0000u32);
                    }
                } else {
                    #[unroll]
                    for i in 0..UNIT {
                        quants[r * UNIT + i] = f32::cast_from(unit.extract(i));
                    }
                }
                scale[r] = select(inside, f32::new(1.0f32), f32::new(0.0f32));
            }
            multiply::<X>(
                x,
                rows,
                unit,
                &quants,
                &scale,
                &offset,
                &mut sums,
                plan,
                comptime!(None::<Format>),
            );
        }
    }
    finish::<Y>(&sums, y, rows, plan);
}

/// A matrix in device memory.
#[derive(Debug, Clone)]
pub struct Matrix {
    out: usize,
    inner: usize,
    weights: Weights,
}

#[derive(Debug, Clone)]
pub(crate) enum Weights {
    Packed { format: Format, group: usize, words: Buffer, scales: Buffer, offsets: Buffer },
    F16(Buffer),
    Bf16(Buffer),
    F32(Buffer),
}

impl Matrix {
    /// Uploads packed weights.
    pub fn upload(gpu: &Gpu, packed: &Packed) -> Self {
        let scales = Buffer::upload(&gpu.client, &packed.scales);
        let offsets = if packed.format.has_offsets() {
            Buffer::upload(&gpu.client, &packed.offsets)
        } else {
            // Bound, never read.
            scales.clone()
        };
        Self {
            out: packed.out,
            inner: packed.inner,
            weights: Weights::Packed {
                format: packed.format,
                group: packed.group,
                words: Buffer::upload(&gpu.client, &packed.words),
                scales,
                offsets,
            },
        }
    }

    /// Packed weights of `[out, inner, group]`, already on the device: words, scales, and offsets (of
    /// which anything is taken where the format has none).
    ///
    /// # Errors
    /// If the shape has no kernel, or a buffer has another length.
    pub fn packed(
        format: Format,
        [out, inner, group]: [usize; 3],
        [words, scales, offsets]: [Buffer; 3],
    ) -> Result<Self, Unsupported> {
        if group == 0 || !group.is_multiple_of(UNIT) || !inner.is_multiple_of(group) {
            return Err(Unsupported("groups that are not a multiple of eight weights"));
        }
        let groups = out * (inner / group);
        let fits = words.len() == out * inner / UNIT * format.unit_words()
            && scales.len() == groups
            && (offsets.len() == groups || !format.has_offsets());
        if !fits || groups == 0 {
            return Err(Unsupported("a buffer of another length than its matrix"));
        }
        let weights = Weights::Packed { format, group, words, scales, offsets };
        Ok(Self { out, inner, weights })
    }

    /// Dense weights `[out, inner]`, already on the device as f16.
    ///
    /// # Errors
    /// If `inner` is no multiple of eight or the buffer has another length.
    pub fn f16(buffer: Buffer, out: usize, inner: usize) -> Result<Self, Unsupported> {
        Self::check(&buffer, out, inner)?;
        Ok(Self { out, inner, weights: Weights::F16(buffer) })
    }

    /// Dense weights `[out, inner]`, already on the device as bf16.
    ///
    /// # Errors
    /// As [`Matrix::f16`].
    pub fn bf16(buffer: Buffer, out: usize, inner: usize) -> Result<Self, Unsupported> {
        Self::check(&buffer, out, inner)?;
        Ok(Self { out, inner, weights: Weights::Bf16(buffer) })
    }

    /// Dense weights `[out, inner]`, already on the device as f32.
    ///
    /// # Errors
    /// As [`Matrix::f16`].
    pub fn f32(buffer: Buffer, out: usize, inner: usize) -> Result<Self, Unsupported> {
        Self::check(&buffer, out, inner)?;
        Ok(Self { out, inner, weights: Weights::F32(buffer) })
    }

    fn check(buffer: &Buffer, out: usize, inner: usize) -> Result<(), Unsupported> {
        if !inner.is_multiple_of(UNIT) {
            return Err(Unsupported("rows that are not a multiple of eight weights"));
        }
        if buffer.len() != out * inner || buffer.is_empty() {
            return Err(Unsupported("a buffer of another length than its matrix"));
        }
        Ok(())
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Rows.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Columns.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Launches `y = x Wᵀ`, or with `gated` `y = silu(x Gᵀ) * (x Uᵀ)` where the matrix holds G above U.
    ///
    /// # Shapes
    /// - `x`: `[rows, inner]`, f32; `y`: `[rows, out]`, f32 (`[rows, out / 2]` if gated)
    ///
    /// # Panics
    /// If a buffer has another length than that.
    pub fn multiply(&self, gpu: &Gpu, x: &Buffer, y: &Buffer, rows: usize, gated: bool) {
        let out = if gated { self.out / 2 } else { self.out };
        assert_eq!(x.len(), rows * self.inner, "activations of {rows} rows");
        assert_eq!(y.len(), rows * out, "results of {rows} rows");
        let plan = |group| Plan::new(gpu.cut, [out, self.inner, group], rows, gated);
        match &self.weights {
            Weights::Packed { format, group, words, scales, offsets } => {
                let plan = plan(*group);
                // SAFETY: the lengths were checked here and when the matrix was made, and the
                // kernel reads and writes inside them.
                #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
                unsafe {
                    packed_kernel::launch_unchecked::<f32, f32>(
                        &gpu.client,
                        plan.cubes(rows),
                        plan.cut.dim(),
                        format.unit_words(),
                        x.arg(4),
                        words.arg(format.unit_words()),
                        scales.arg(1),
                        offsets.arg(1),
                        y.arg(1),
                        rows as u32,
                        plan,
                        *format,
                    );
                }
            }
            Weights::F16(weights) => {
                dense::<f16>(gpu, plan(UNIT), Stored::Plain, [x, weights, y], rows);
            }
            Weights::Bf16(weights) => {
                dense::<u32>(gpu, plan(UNIT), Stored::Bf16Pairs, [x, weights, y], rows);
            }
            Weights::F32(weights) => {
                dense::<f32>(gpu, plan(UNIT), Stored::Plain, [x, weights, y], rows);
            }
        }
    }
}

fn dense<E: Numeric>(
    gpu: &Gpu,
    plan: Plan,
    stored: Stored,
    [x, weights, y]: [&Buffer; 3],
    rows: usize,
) {
    // SAFETY: as for packed weights.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        dense_kernel::launch_unchecked::<f32, f32, E>(
            &gpu.client,
            plan.cubes(rows),
            plan.cut.dim(),
            stored.unit_elements(),
            x.arg(4),
            // A unit is eight weights, however many elements those are.
            weights.arg(UNIT),
            y.arg(1),
            rows as u32,
            plan,
            stored,
        );
    }
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER, Case, device, settings, target};
    let formats = [
        Format::Q4,
        Format::Q4Offset,
        Format::Q4Zero,
        Format::Q8,
        Format::Q8Offset,
        Format::Q8Zero,
    ];
    let mut cases = Vec::new();
    for rows in [1, 8] {
        for (out, inner, gated) in [(4096, 4096, false), (14336, 4096, true)] {
            let plan = Plan::new(Cut::CUDA, [out, inner, 32], rows, gated);
            for format in formats {
                let kernel = packed_kernel::PackedKernel::<f32, f32>::new(
                    settings(plan.cut),
                    device(),
                    target(),
                    BUFFER,
                    BUFFER,
                    BUFFER,
                    BUFFER,
                    BUFFER,
                    (),
                    format.unit_words(),
                    plan,
                    format,
                );
                cases.push(Case::new(format!("{format:?} {out}x{inner} rows {rows}"), kernel));
            }
            cases.push(dense_case::<f16>("f16", plan, Stored::Plain, rows));
            cases.push(dense_case::<u32>("bf16", plan, Stored::Bf16Pairs, rows));
        }
    }
    cases
}

#[cfg(feature = "cpu-runtime")]
fn dense_case<E: Numeric>(name: &str, plan: Plan, stored: Stored, rows: usize) -> crate::ptx::Case {
    use crate::ptx::{BUFFER, Case, device, settings, target};
    let kernel = dense_kernel::DenseKernel::<f32, f32, E>::new(
        settings(plan.cut),
        device(),
        target(),
        BUFFER,
        BUFFER,
        BUFFER,
        (),
        stored.unit_elements(),
        plan,
        stored,
    );
    Case::new(format!("{name} {}x{} rows {rows}", plan.out, plan.inner), kernel)
}
