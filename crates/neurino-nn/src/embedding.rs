//! Token id to vector.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::device::upload;
use crate::quant::PackedMatrix;

/// A table of token vectors, dense or packed.
#[derive(Debug, Clone)]
pub struct Embedding(Table);

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a model has one table")]
enum Table {
    Dense(Tensor<2>),
    Packed(Arc<PackedMatrix>),
}

impl Embedding {
    /// A dense table of shape `[vocab, features]`.
    pub fn dense(table: Tensor<2>) -> Self {
        Self(Table::Dense(table))
    }

    /// A packed table; rows are unpacked when they are looked up.
    pub fn packed(table: Arc<PackedMatrix>) -> Self {
        Self(Table::Packed(table))
    }

    /// Looks up `tokens`, which must be below the table's number of rows.
    ///
    /// # Shapes
    /// - returns `[tokens.len(), features]`, f32
    pub fn forward(&self, tokens: &[u32], device: &Device) -> Tensor<2> {
        match &self.0 {
            Table::Dense(table) => {
                let ids: Vec<i32> = tokens.iter().map(|&token| token.cast_signed()).collect();
                let ids: Tensor<1, Int> =
                    Tensor::from_data(TensorData::new(ids, [tokens.len()]), (device, DType::I32));
                table.clone().select(0, ids).cast(DType::F32)
            }
            Table::Packed(table) => {
                let mut values = Vec::with_capacity(tokens.len() * table.in_features());
                for &token in tokens {
                    table.append_row(token as usize, &mut values);
                }
                upload(values, [tokens.len(), table.in_features()], device)
            }
        }
    }
}
