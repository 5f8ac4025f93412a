//! How a cube is cut into warps, and sums and maxima over a warp's lanes.
#![expect(missing_docs, reason = "`#[cube]` makes a module of each function")]

use cubecl::prelude::*;

/// The units of a cube: `planes` warps of `lanes` each. A kernel is compiled for one cut.
///
/// A unit's lane is its `UNIT_POS_X`, its warp `UNIT_POS_Y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Lanes of a warp, a power of two.
    pub lanes: usize,
    /// Warps of a cube, a power of two.
    pub planes: usize,
    /// Whether lanes exchange values by shuffles. Otherwise they do by shared memory and barriers,
    /// and every unit of the cube must take part.
    pub shuffle: bool,
}

impl Cut {
    /// What NVIDIA cards are given.
    pub const CUDA: Self = Self { lanes: 32, planes: 4, shuffle: true };
    /// One unit a cube, for runtimes without warps: a barrier of theirs is a busy wait of threads.
    pub const SINGLE: Self = Self { lanes: 1, planes: 1, shuffle: false };

    /// The cut for a device.
    pub fn of(client: &Client) -> Self {
        let hardware = &client.properties().hardware;
        let warps = hardware.plane_size_min == 32 && hardware.plane_size_max == 32;
        if warps { Self::CUDA } else { Self::SINGLE }
    }

    /// Units of a cube.
    pub const fn units(self) -> usize {
        self.lanes * self.planes
    }

    pub(crate) fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.lanes as u32, self.planes as u32)
    }
}

/// The sum over the lanes of this unit's warp, in every lane. The order is a balanced tree over
/// neighbouring lanes.
#[cube]
pub fn lane_sum(value: f32, #[comptime] cut: Cut) -> f32 {
    if comptime!(cut.lanes == 1) {
        value
    } else if comptime!(cut.shuffle) {
        let mut sum = value;
        #[unroll]
        for level in 0..5u32 {
            sum += plane_shuffle_xor(sum, 1u32 << level);
        }
        sum
    } else {
        let mut scratch = Shared::<[f32]>::new_slice(cut.units());
        scratch[UNIT_POS as usize] = value;
        sync_cube();
        let mut tree = Array::<f32>::new(cut.lanes);
        let base = UNIT_POS_Y as usize * cut.lanes;
        for i in 0..cut.lanes {
            tree[i] = scratch[base + i];
        }
        let mut width = comptime!(cut.lanes / 2).runtime();
        while width > 0 {
            for i in 0..width {
                tree[i] = tree[2 * i] + tree[2 * i + 1];
            }
            width /= 2;
        }
        sync_cube();
        tree[0]
    }
}

/// The maximum over the lanes of this unit's warp, in every lane.
#[cube]
pub fn lane_max(value: f32, #[comptime] cut: Cut) -> f32 {
    if comptime!(cut.lanes == 1) {
        value
    } else if comptime!(cut.shuffle) {
        let mut most = value;
        #[unroll]
        for level in 0..5u32 {
            most = f32::max(most, plane_shuffle_xor(most, 1u32 << level));
        }
        most
    } else {
        let mut scratch = Shared::<[f32]>::new_slice(cut.units());
        scratch[UNIT_POS as usize] = value;
        sync_cube();
        let base = UNIT_POS_Y as usize * cut.lanes;
        let mut most = scratch[base];
        for i in 1..cut.lanes {
            most = f32::max(most, scratch[base + i]);
        }
        sync_cube();
        most
    }
}

/// The sum over all units of the cube, in every unit: warps in order, each as [`lane_sum`].
#[cube]
pub fn cube_sum(value: f32, #[comptime] cut: Cut) -> f32 {
    let sum = lane_sum(value, cut);
    if comptime!(cut.planes == 1) {
        sum
    } else {
        let mut warps = Shared::<[f32]>::new_slice(cut.planes);
        if UNIT_POS_X == 0 {
            warps[UNIT_POS_Y as usize] = sum;
        }
        sync_cube();
        let mut total = f32::new(0.0f32);
        #[unroll]
        for i in 0..cut.planes {
            total += warps[i];
        }
        // The memory is written again by the next call.
        sync_cube();
        total
    }
}

/// The maximum over all units of the cube, in every unit.
#[cube]
pub fn cube_max(value: f32, #[comptime] cut: Cut) -> f32 {
    let most = lane_max(value, cut);
    if comptime!(cut.planes == 1) {
        most
    } else {
        let mut warps = Shared::<[f32]>::new_slice(cut.planes);
        if UNIT_POS_X == 0 {
            warps[UNIT_POS_Y as usize] = most;
        }
        sync_cube();
        let mut all = warps[0];
        #[unroll]
        for i in 1..cut.planes {
            all = f32::max(all, warps[i]);
        }
        sync_cube();
        all
    }
}
