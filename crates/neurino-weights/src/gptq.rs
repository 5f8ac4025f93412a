//! GPTQ, in AutoGPTQ's layout: a matrix `[out, in]` stored as integers, scales and zero points.
//!
//! With `n` values in a 32-bit word (8 of 4 bits), lowest bits first:
//! - `qweight` i32 `[in / n, out]`: value `k` of a word in row `r` belongs to input `n * r + k`
//! - `qzeros` i32 `[groups, out / n]`: the zero point **less one**, unless the format is `gptq_v2`
//! - `scales` f16 `[groups, out]`
//! - `g_idx` i32 `[in]`: the group of an input; not monotonic if the exporter sorted the inputs by
//!   their activations. Without it, input `i` is in group `i / group_size`.
//!
//! w = scale * (q - zero). Which matrices of a model are quantised is told by the presence of `qweight`.

use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;

use crate::tensor::{StoredTensor, TensorView};
use crate::{DType, WeightsError};

mod matrix;

pub use matrix::GptqMatrix;

/// How the matrices of a model are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GptqConfig {
    /// Bits of an integer: 2, 4 or 8.
    pub bits: u32,
    /// Inputs that share a scale; `None` if all do.
    pub group_size: Option<usize>,
    /// What is added to a stored zero point.
    zero_offset: u32,
}

/// `quantize_config.json`, or `quantization_config` in `config.json`.
#[derive(Deserialize)]
struct Keys {
    bits: Option<i64>,
    group_size: Option<i64>,
    quant_method: Option<String>,
    checkpoint_format: Option<String>,
}

impl GptqConfig {
    /// Reads the description of a quantisation that stands in `file`.
    ///
    /// # Errors
    /// `UnsupportedQuantization` for another method, other bits or an absurd group size.
    pub fn from_json(file: &Path, json: &[u8]) -> Result<Self, WeightsError> {
        let refuse = |reason: String| WeightsError::UnsupportedQuantization {
            file: file.to_owned(),
            reason: reason.chars().filter(|c| !c.is_control()).take(120).collect(),
        };
        let keys: Keys = serde_json::from_slice(json).map_err(|e| refuse(e.to_string()))?;
        if let Some(method) = keys.quant_method.filter(|method| method != "gptq") {
            return Err(refuse(format!("the method is `{method}`")));
        }
        let zero_offset = match keys.checkpoint_format.as_deref() {
            None | Some("gptq") => 1,
            Some("gptq_v2") => 0,
            Some(other) => return Err(refuse(format!("the checkpoint format is `{other}`"))),
        };
        let bits = match keys.bits {
            Some(bits @ (2 | 4 | 8)) => bits as u32,
            Some(bits) => return Err(refuse(format!("{bits} bits"))),
            None => return Err(refuse("it does not say how many bits".to_owned())),
        };
        let group_size = match keys.group_size {
            None | Some(-1) => None,
            Some(size) => match usize::try_from(size) {
                Ok(size) if (1..=1 << 26).contains(&size) => Some(size),
                _ => return Err(refuse(format!("groups of {size}"))),
            },
        };
        Ok(Self { bits, group_size, zero_offset })
    }

    /// Values in a 32-bit word.
    fn per_word(self) -> usize {
        32 / self.bits as usize
    }
}

/// The tensors that together are one matrix, stored or read.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names are the checkpoint's")]
pub struct GptqParts<T> {
    pub qweight: T,
    pub qzeros: T,
    pub scales: T,
    pub g_idx: Option<T>,
}

impl<T> GptqParts<T> {
    /// Finds the parts of the matrix called `name` (without `.weight`). `None` if it is not quantised.
    ///
    /// # Errors
    /// What `find` returns for `qzeros` and `scales`; an absent `g_idx` is none.
    pub fn find(
        name: &str,
        find: impl Fn(&str) -> Result<T, WeightsError>,
    ) -> Result<Option<Self>, WeightsError> {
        let Ok(qweight) = find(&format!("{name}.qweight")) else { return Ok(None) };
        let (qzeros, scales) = (find(&format!("{name}.qzeros"))?, find(&format!("{name}.scales"))?);
        Ok(Some(Self { qweight, qzeros, scales, g_idx: find(&format!("{name}.g_idx")).ok() }))
    }

    /// The same parts, each turned into something else.
    ///
    /// # Errors
    /// The first that `change` returns.
    pub fn try_map<'a, U, E>(
        &'a self,
        change: impl Fn(&'a T) -> Result<U, E>,
    ) -> Result<GptqParts<U>, E> {
        Ok(GptqParts {
            qweight: change(&self.qweight)?,
            qzeros: change(&self.qzeros)?,
            scales: change(&self.scales)?,
            g_idx: self.g_idx.as_ref().map(change).transpose()?,
        })
    }
}

/// The dimensions of a quantised matrix, taken from its tensors' shapes and found consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GptqShape {
    /// Rows of the matrix.
    pub out_features: usize,
    /// Columns of the matrix.
    pub in_features: usize,
    /// Groups of columns.
    pub groups: usize,
}

impl GptqParts<StoredTensor> {
    /// Checks formats and shapes against each other, from metadata alone.
    ///
    /// # Errors
    /// `BadTensor`.
    pub fn shape(&self, config: GptqConfig) -> Result<GptqShape, WeightsError> {
        let is = |tensor: &StoredTensor, dtype: &[DType]| {
            if dtype.contains(&tensor.dtype()) {
                return Ok(());
            }
            Err(tensor.damaged(format!("it is stored as {}", tensor.dtype().name())))
        };
        is(&self.qweight, &[DType::I32])?;
        is(&self.qzeros, &[DType::I32])?;
        is(&self.scales, &[DType::F16, DType::BF16, DType::F32])?;
        let per_word = config.per_word();
        let (&[words, out_features], &[groups, scales]) =
            (self.qweight.shape(), self.scales.shape())
        else {
            return Err(self.qweight.damaged("it or its scales are not a matrix"));
        };
        let inconsistent = |tensor: &StoredTensor, expected: &[usize]| {
            let found = tensor.shape();
            tensor.damaged(format!("its shape is {found:?} where {expected:?} is needed"))
        };
        if words == 0 || out_features == 0 || !out_features.is_multiple_of(per_word) {
            return Err(self.qweight.damaged("its shape does not fill whole words"));
        }
        // That many words lie in a file, so this cannot overflow.
        let in_features = words * per_word;
        if scales != out_features || groups == 0 || groups > in_features {
            return Err(inconsistent(&self.scales, &[groups.clamp(1, in_features), out_features]));
        }
        if self.qzeros.shape() != [groups, out_features / per_word] {
            return Err(inconsistent(&self.qzeros, &[groups, out_features / per_word]));
        }
        if let Some(g_idx) = &self.g_idx {
            is(g_idx, &[DType::I32])?;
            if g_idx.shape() != [in_features] {
                return Err(inconsistent(g_idx, &[in_features]));
            }
        } else {
            let expected = in_features.div_ceil(config.group_size.unwrap_or(in_features));
            if groups != expected {
                return Err(inconsistent(&self.scales, &[expected, out_features]));
            }
        }
        Ok(GptqShape { out_features, in_features, groups })
    }

    /// Joins the bytes that were read from these tensors.
    ///
    /// # Errors
    /// `BadTensor` for inconsistent shapes, or a `g_idx` that names a group that does not exist.
    pub fn weights<'a>(
        &self,
        config: GptqConfig,
        views: &GptqParts<TensorView<'a>>,
    ) -> Result<GptqWeights<'a>, WeightsError> {
        let shape = self.shape(config)?;
        let words = |view: &TensorView<'a>| view.bytes.as_chunks::<4>().0;
        let groups = if let (Some(tensor), Some(view)) = (&self.g_idx, &views.g_idx) {
            let group = |word: &[u8; 4]| {
                let group = i32::from_le_bytes(*word);
                u32::try_from(group).ok().filter(|&g| (g as usize) < shape.groups).ok_or_else(
                    || tensor.damaged(format!("it names group {group} of {}", shape.groups)),
                )
            };
            words(view).iter().map(group).collect::<Result<_, _>>()?
        } else {
            let size = config.group_size.unwrap_or(shape.in_features);
            (0..shape.in_features).map(|input| (input / size) as u32).collect()
        };
        let (qweight, qzeros) = (words(&views.qweight), words(&views.qzeros));
        Ok(GptqWeights { config, shape, qweight, qzeros, scales: views.scales.to_f32()?, groups })
    }
}

/// A quantised matrix as it is stored, its parts found consistent.
#[derive(Debug)]
pub struct GptqWeights<'a> {
    config: GptqConfig,
    shape: GptqShape,
    /// `[in / n][out]`
    qweight: &'a [[u8; 4]],
    /// `[groups][out / n]`
    qzeros: &'a [[u8; 4]],
    /// `[groups][out]`
    scales: Vec<f32>,
    /// The group of each input.
    groups: Vec<u32>,
}

impl GptqWeights<'_> {
    /// The dimensions.
    pub fn shape(&self) -> GptqShape {
        self.shape
    }

    /// The integer of a weight.
    fn quant(&self, out: usize, input: usize) -> u8 {
        let per_word = self.config.per_word();
        let word = self.qweight[input / per_word * self.shape.out_features + out];
        self.value(word, input % per_word)
    }

    /// The zero point that an output has in a group.
    fn zero(&self, out: usize, group: usize) -> u8 {
        let per_word = self.config.per_word();
        let word = self.qzeros[group * (self.shape.out_features / per_word) + out / per_word];
        let mask = (1u32 << self.config.bits) - 1;
        let stored = u32::from(self.value(word, out % per_word));
        ((stored + self.config.zero_offset) & mask) as u8
    }

    fn scale(&self, out: usize, group: usize) -> f32 {
        self.scales[group * self.shape.out_features + out]
    }

    fn value(&self, word: [u8; 4], place: usize) -> u8 {
        let bits = self.config.bits;
        (u32::from_le_bytes(word) >> (place as u32 * bits) & ((1 << bits) - 1)) as u8
    }

    /// The weights as f32, `[out, in]` row after row, exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        let inputs = self.shape.in_features;
        let mut weights = vec![0.0; self.shape.out_features * inputs];
        weights.par_chunks_mut(inputs).enumerate().for_each(|(out, row)| {
            let lines: Vec<(f32, f32)> = (0..self.shape.groups)
                .map(|group| (self.scale(out, group), f32::from(self.zero(out, group))))
                .collect();
            for (input, weight) in row.iter_mut().enumerate() {
                let (scale, zero) = lines[self.groups[input] as usize];
                *weight = scale * (f32::from(self.quant(out, input)) - zero);
            }
        });
        weights
    }
}
