//! HQQ: groups of integers with a scale and a zero point that need not be whole.
//!
//! A matrix is stored as `W_q` u8, `scale` and `zero` (floats), and its settings as tensors: `shape`
//! i64, `nbits`, `axis` i32 and more. The integers fill a matrix whose rows (`axis` 1) or columns
//! (`axis` 0) are the groups. With fewer than 8 bits, `W_q` holds equal parts of its rows in one byte:
//! with 4 bits, row `i` of the first half in the high nibble, of the second half in the low one.
//!
//! w = (q - zero) * scale, then put into `shape`.

use rayon::prelude::*;

use crate::tensor::{StoredTensor, TensorData};
use crate::{DType, Safetensors, WeightsError};

/// A matrix in HQQ's form.
#[derive(Debug, Clone, PartialEq)]
pub struct HqqMatrix {
    /// Dimensions, outermost first.
    pub shape: [usize; 2],
    /// Bits of an integer: 2, 4 or 8.
    pub bits: u32,
    /// Whether a group is a row of the integers' matrix; otherwise a column.
    pub groups_are_rows: bool,
    /// Rows and columns of the integers' matrix.
    pub dims: [usize; 2],
    /// `[rows * bits / 8][columns]`
    pub quants: Vec<u8>,
    /// One a group.
    pub scales: Vec<f32>,
    /// One a group.
    pub zeros: Vec<f32>,
}

/// Whether the linear layer called `name` (without `.weight`) is stored in HQQ's form.
pub fn is_hqq(weights: &Safetensors, name: &str) -> bool {
    weights.stored(&format!("{name}.W_q")).is_ok()
}

/// Dimensions of the linear layer called `name` (without `.weight`), outermost first; its numbers are
/// not read.
///
/// # Errors
/// As [`HqqMatrix::read`].
pub fn shape(weights: &Safetensors, name: &str) -> Result<[usize; 2], WeightsError> {
    let stored = weights.stored(&format!("{name}.shape"))?;
    let shape = integers(stored)?;
    let &[out, features] = shape.as_slice() else {
        return Err(stored.damaged(format!("{shape:?} is not a matrix's")));
    };
    Ok([out, features])
}

impl HqqMatrix {
    /// Reads the weights of the linear layer called `name` (without `.weight`).
    ///
    /// # Errors
    /// `TensorAbsent`, `BadTensor`, `Changed`, `Unreadable`.
    pub fn read(weights: &Safetensors, name: &str) -> Result<Self, WeightsError> {
        let part = |suffix: &str| weights.stored(&format!("{name}.{suffix}"));
        let packed = part("W_q")?;
        let bad = |reason: String| packed.damaged(reason);
        // Settings that this reader does not know how to undo; absent ones are off.
        for setting in ["quant_scale", "quant_zero", "view_as_float"] {
            let on =
                |t: &StoredTensor| Ok::<_, WeightsError>(t.read()?.bytes().iter().any(|&b| b != 0));
            if part(setting).is_ok_and(|t| t.size_bytes() < 16 && on(t).unwrap_or(true)) {
                return Err(bad(format!("it was made with `{setting}`, which is not supported")));
            }
        }
        let shape = integers(part("shape")?)?;
        let &[out, features] = shape.as_slice() else {
            return Err(bad(format!("its shape {shape:?} is not a matrix's")));
        };
        let (bits, axis) = (one(part("nbits")?)?, one(part("axis")?)?);
        if !matches!(bits, 2 | 4 | 8) || axis > 1 {
            return Err(bad(format!("{bits} bits along axis {axis} are not supported")));
        }
        let &[packed_rows, columns] = packed.shape() else {
            return Err(bad("it is not a matrix".to_owned()));
        };
        let rows = packed_rows.checked_mul(8 / bits);
        let dims = rows.map(|rows| [rows, columns]).filter(|[rows, columns]| {
            let found = rows.checked_mul(*columns);
            found.is_some() && found == out.checked_mul(features) && found != Some(0)
        });
        let dims = dims.ok_or_else(|| bad(format!("it does not fill {shape:?}")))?;
        let groups = dims[1 - axis];
        let quants = typed(packed, &[DType::U8])?.bytes().to_vec();
        Ok(Self {
            shape: [out, features],
            bits: bits as u32,
            groups_are_rows: axis == 1,
            dims,
            quants,
            scales: floats(part("scale")?, groups)?,
            zeros: floats(part("zero")?, groups)?,
        })
    }

    /// The weights as f32, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let [rows, columns] = self.dims;
        let parts = 8 / self.bits as usize;
        let packed_rows = rows / parts;
        let mask = ((1u32 << self.bits) - 1) as u8;
        let mut weights = vec![0.0; rows * columns];
        weights.par_chunks_mut(columns).enumerate().for_each(|(row, out)| {
            let quants = &self.quants[row % packed_rows * columns..][..columns];
            // The first part has the highest bits.
            let shift = (parts - 1 - row / packed_rows) as u32 * self.bits;
            for (column, (weight, quant)) in out.iter_mut().zip(quants).enumerate() {
                let group = if self.groups_are_rows { row } else { column };
                let q = f32::from(quant >> shift & mask);
                *weight = (q - self.zeros[group]) * self.scales[group];
            }
        });
        weights
    }
}

fn typed(tensor: &StoredTensor, dtypes: &[DType]) -> Result<TensorData, WeightsError> {
    if !dtypes.contains(&tensor.dtype()) {
        return Err(tensor.damaged(format!("it is stored as {}", tensor.dtype().name())));
    }
    tensor.read()
}

/// A setting: a few whole numbers, none negative.
fn integers(tensor: &StoredTensor) -> Result<Vec<usize>, WeightsError> {
    if tensor.size_bytes() > 64 {
        return Err(tensor.damaged("a setting is this long"));
    }
    let data = typed(tensor, &[DType::I64, DType::I32])?;
    let wide = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => -1,
    };
    let width = if tensor.dtype() == DType::I64 { 8 } else { 4 };
    let values = data.bytes().chunks(width).map(|bytes| usize::try_from(wide(bytes)));
    values.collect::<Result<_, _>>().map_err(|_| tensor.damaged("a setting is negative"))
}

fn one(tensor: &StoredTensor) -> Result<usize, WeightsError> {
    match integers(tensor)?.as_slice() {
        &[value] => Ok(value),
        found => Err(tensor.damaged(format!("it holds {} values, not one", found.len()))),
    }
}

/// Exactly `count` numbers.
fn floats(tensor: &StoredTensor, count: usize) -> Result<Vec<f32>, WeightsError> {
    let values = typed(tensor, &[DType::F16, DType::BF16, DType::F32])?.to_f32()?;
    if values.len() != count {
        return Err(tensor.damaged(format!("it holds {} values, not {count}", values.len())));
    }
    Ok(values)
}
