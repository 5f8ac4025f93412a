//! Token id to vector.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::dense::DenseMatrix;
use crate::device::{is_cpu, upload};
use crate::quant::PackedMatrix;

/// A table of token vectors, dense or packed.
#[derive(Debug, Clone)]
pub struct Embedding(Table);

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a model has one table")]
pub(crate) enum Table {
    /// On a device that is not the CPU.
    Tensor(Tensor<2>),
    Dense(Arc<DenseMatrix>),
    Packed(Arc<PackedMatrix>),
}

impl Embedding {
    /// A dense table of shape `[vocab, features]`; see [`crate::Linear::tied`] for a head that shares
    /// it.
    pub fn dense(table: Tensor<2>) -> Self {
        if is_cpu(&table.device()) {
            return Self(Table::Dense(Arc::new(DenseMatrix::new(table))));
        }
        Self(Table::Tensor(table))
    }

    /// A packed table; rows are unpacked when they are looked up.
    pub fn packed(table: Arc<PackedMatrix>) -> Self {
        Self(Table::Packed(table))
    }

    pub(crate) fn table(&self) -> &Table {
        &self.0
    }

    /// Looks up `tokens`, which must be below the table's number of rows.
    ///
    /// # Shapes
    /// - returns `[tokens.len(), features]`, f32
    pub fn forward(&self, tokens: &[u32], device: &Device) -> Tensor<2> {
        let rows = |features: usize, append: &dyn Fn(usize, &mut Vec<f32>)| {
            let mut values = Vec::with_capacity(tokens.len() * features);
            for &token in tokens {
                append(token as usize, &mut values);
            }
            upload(values, [tokens.len(), features], device)
        };
        match &self.0 {
            Table::Tensor(table) => {
                let ids: Vec<i32> = tokens.iter().map(|&token| token.cast_signed()).collect();
                let ids: Tensor<1, Int> =
                    Tensor::from_data(TensorData::new(ids, [tokens.len()]), (device, DType::I32));
                table.clone().select(0, ids).cast(DType::F32)
            }
            Table::Dense(table) => {
                rows(table.in_features(), &|row, out| table.append_row(row, out))
            }
            Table::Packed(table) => {
                rows(table.in_features(), &|row, out| table.append_row(row, out))
            }
        }
    }
}
