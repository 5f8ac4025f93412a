//! `y = x Wᵀ` with dense or packed weights.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::Embedding;
use crate::cpu::{self, CpuMatrix};
use crate::dense::DenseMatrix;
use crate::device::is_cpu;
use crate::embedding::Table;
use crate::quant::QuantMatmul;

/// A linear layer without bias.
#[derive(Debug, Clone)]
pub struct Linear(Weight);

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "bytes beside megabytes of weights")]
enum Weight {
    /// `[out, in]`, on a device that is not the CPU.
    Tensor(CardMatrix),
    Cpu(CpuMatrix),
    Packed(Arc<dyn QuantMatmul>),
}

/// Dense weights on a card.
#[derive(Debug, Clone)]
struct CardMatrix {
    weight: Tensor<2>,
    /// Whether they are multiplied in tiles, for any number of rows.
    #[cfg(feature = "kernels")]
    in_tiles: bool,
    /// Whether a row's bits have to be the same whatever other rows there are.
    #[cfg(feature = "kernels")]
    keeps_rows: bool,
}

impl CardMatrix {
    fn new(weight: Tensor<2>) -> Self {
        Self {
            #[cfg(feature = "kernels")]
            in_tiles: crate::cuda::dense::in_tiles(&weight),
            #[cfg(feature = "kernels")]
            keeps_rows: true,
            weight,
        }
    }
}

impl Linear {
    /// Dense weights of shape `[out, in]`, f32, f16 or bf16.
    pub fn dense(weight: Tensor<2>) -> Self {
        if is_cpu(&weight.device()) {
            return Self(Weight::Cpu(CpuMatrix::Dense(Arc::new(DenseMatrix::new(weight)))));
        }
        Self(Weight::Tensor(CardMatrix::new(weight)))
    }

    /// The same for inputs whose rows are all of one job, a picture's: their bits may depend on how many there
    /// are, where that is quicker.
    #[must_use]
    pub fn of_one_job(self) -> Self {
        #[cfg(feature = "kernels")]
        if let Weight::Tensor(matrix) = self.0 {
            return Self(Weight::Tensor(CardMatrix { keeps_rows: false, ..matrix }));
        }
        self
    }

    /// Packed weights.
    pub fn packed(weight: Arc<dyn QuantMatmul>) -> Self {
        match weight.on_cpu() {
            Some(matrix) => Self(Weight::Cpu(CpuMatrix::Packed(Arc::clone(matrix)))),
            None => Self(Weight::Packed(weight)),
        }
    }

    /// The head that multiplies with a dense table of tokens, without a copy of it. `None` if the
    /// table is packed.
    pub fn tied(embedding: &Embedding) -> Option<Self> {
        match embedding.table() {
            Table::Tensor(table) => Some(Self(Weight::Tensor(CardMatrix::new(table.clone())))),
            Table::Dense(table) => Some(Self(Weight::Cpu(CpuMatrix::Dense(Arc::clone(table))))),
            Table::Packed(_) => None,
        }
    }

    /// The weights if they are dense and the CPU's.
    pub(crate) fn on_cpu(&self) -> Option<&DenseMatrix> {
        match &self.0 {
            Weight::Cpu(CpuMatrix::Dense(matrix)) => Some(matrix),
            Weight::Cpu(CpuMatrix::Packed(_)) | Weight::Tensor(_) | Weight::Packed(_) => None,
        }
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.0 {
            Weight::Tensor(matrix) => matrix.weight.dims(),
            Weight::Cpu(matrix) => [matrix.out_features(), matrix.in_features()],
            Weight::Packed(weight) => weight.shape(),
        }
    }

    /// Several layers over the same input, which costs less than one after the other.
    ///
    /// # Shapes
    /// - `x`: `[seq, in]`, f32; returns `[seq, out]`, f32, of each layer
    pub fn forward_each<const N: usize>(layers: [&Self; N], x: Tensor<2>) -> [Tensor<2>; N] {
        let on_cpu = layers.map(|layer| match &layer.0 {
            Weight::Cpu(matrix) => Some(matrix),
            _ => None,
        });
        match on_cpu.iter().flatten().next() {
            Some(&any) if on_cpu.iter().all(Option::is_some) => {
                cpu::matmul(on_cpu.map(|matrix| matrix.unwrap_or(any)), x)
            }
            _ => layers.map(|layer| layer.forward(x.clone())),
        }
    }

    /// The products of an expert's rows, written into their pairs' rows of `y`; `None` if its weights are
    /// not multiplied in tiles.
    #[cfg(feature = "kernels")]
    pub(crate) fn forward_pairs(
        &self,
        x: Tensor<2>,
        routes: &neurino_kernels::tensor::tiles::RouteTensor,
        expert: usize,
        y: Tensor<2>,
    ) -> Option<Tensor<2>> {
        match &self.0 {
            Weight::Tensor(CardMatrix { weight, in_tiles: true, .. }) => {
                routes.dense(x, weight, expert, y).ok()
            }
            Weight::Packed(weight) => weight.multiply_pairs(x, routes, expert, y),
            Weight::Tensor(_) | Weight::Cpu(_) => None,
        }
    }

    /// # Shapes
    /// - `x`: `[seq, in]`, f32; returns `[seq, out]`, f32
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.0 {
            Weight::Packed(weight) => weight.matmul(x),
            Weight::Cpu(matrix) => {
                let [y] = cpu::matmul([matrix], x);
                y
            }
            #[cfg(feature = "kernels")]
            Weight::Tensor(CardMatrix { weight, in_tiles, keeps_rows }) => {
                crate::cuda::dense::multiply(x, weight, *in_tiles, *keeps_rows)
            }
            #[cfg(not(feature = "kernels"))]
            Weight::Tensor(CardMatrix { weight }) => {
                let x = x.cast(weight.dtype());
                x.matmul(weight.clone().transpose()).cast(burn::tensor::DType::F32)
            }
        }
    }
}
