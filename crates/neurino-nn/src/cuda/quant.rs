//! Packed weights on a card, unpacked in registers: on tensor cores where those are right.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::f16;
use neurino_kernels::product::WINDOW;
use neurino_kernels::tensor::tiles::{RouteTensor, packed_tiles};
use neurino_kernels::tensor::{PackedTensors, packed_product};

use super::tiles::{self, Kind};
use crate::device::upload;
use crate::quant::card::repack;
use crate::quant::{PackedMatrix, QuantMatmul};

/// A packed matrix on a card.
#[derive(Debug)]
pub struct CudaMatrix {
    /// `[out, in]`
    shape: [usize; 2],
    tensors: PackedTensors,
    /// The input that is multiplied with column `i`, if that is not input `i`.
    permutation: Option<Tensor<1, Int>>,
    /// Whether it is multiplied in tiles, for any number of rows.
    in_tiles: bool,
}

impl CudaMatrix {
    /// Uploads `matrix`.
    pub fn new(matrix: &PackedMatrix, device: &Device) -> Self {
        let packed = repack(matrix);
        let in_tiles = packed.group.is_multiple_of(WINDOW)
            && tiles::are_right(device, Kind::Packed(packed.format));
        let groups = packed.inner / packed.group;
        let words: Vec<i32> = packed.words.iter().map(|word| word.cast_signed()).collect();
        let row_words = words.len() / packed.out;
        let halves = |values: Vec<f16>| {
            let shape = [packed.out, groups];
            Tensor::<2>::from_data(TensorData::new(values, shape), (device, DType::F16))
        };
        let offsets = if packed.format.has_offsets() {
            halves(packed.offsets)
        } else {
            upload(vec![0.0], [1, 1], device)
        };
        let order = matrix.permutation().map(|order| {
            let order: Vec<i32> = order.iter().map(|at| at.cast_signed()).collect();
            let len = order.len();
            Tensor::from_data(TensorData::new(order, [len]), (device, DType::I32))
        });
        Self {
            shape: [packed.out, packed.inner],
            tensors: PackedTensors {
                format: packed.format,
                words: Tensor::from_data(
                    TensorData::new(words, [packed.out, row_words]),
                    (device, DType::I32),
                ),
                scales: halves(packed.scales),
                offsets,
            },
            permutation: order,
            in_tiles,
        }
    }
}

impl CudaMatrix {
    /// Inputs in the order of the columns.
    fn ordered(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.permutation {
            Some(order) => x.select(1, order.clone()),
            None => x,
        }
    }
}

impl QuantMatmul for CudaMatrix {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.ordered(x);
        if self.in_tiles
            && let Ok(y) = packed_tiles(x.clone(), &self.tensors)
        {
            return y;
        }
        match packed_product(x, &self.tensors, false) {
            Ok(y) => y,
            Err(error) => unreachable!("the shape was checked when the matrix was made: {error}"),
        }
    }

    fn multiply_pairs(
        &self,
        x: Tensor<2>,
        routes: &RouteTensor,
        expert: usize,
        y: Tensor<2>,
    ) -> Option<Tensor<2>> {
        if !self.in_tiles {
            return None;
        }
        routes.packed(self.ordered(x), &self.tensors, expert, y).ok()
    }

    fn shape(&self) -> [usize; 2] {
        self.shape
    }
}
