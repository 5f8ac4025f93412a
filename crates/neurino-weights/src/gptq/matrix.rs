//! A GPTQ matrix in the order that a kernel reads: rows of outputs, inputs sorted by group.

use rayon::prelude::*;

use super::GptqWeights;

/// A quantised matrix whose inputs are sorted by group, so that a row is a run of groups.
///
/// y = W x with w = scale * (q - zero). If there is a permutation, sorted place `k` stands for the
/// input `permutation[k]`: permute the activations once, then multiply.
#[derive(Debug, Clone, PartialEq)]
pub struct GptqMatrix {
    /// Rows.
    pub out_features: usize,
    /// Columns.
    pub in_features: usize,
    /// Bits of an integer: 2, 4 or 8.
    pub bits: u32,
    /// Columns of a group; the last group of a row may be shorter.
    pub group_size: usize,
    /// `[out][in]`, the first of `8 / bits` columns in the lowest bits of a byte.
    pub quants: Vec<u8>,
    /// `[out][groups]`
    pub scales: Vec<f32>,
    /// `[out][groups]`, as they are subtracted.
    pub zeros: Vec<u8>,
    /// The input of each sorted column; `None` if they are in order.
    pub permutation: Option<Vec<u32>>,
}

impl GptqWeights<'_> {
    /// Sorts the inputs by group. `None` if groups differ in size, so that the matrix can only be
    /// unpacked: no exporter known to us writes that.
    pub fn repack(&self) -> Option<GptqMatrix> {
        let shape = self.shape;
        let mut order: Vec<u32> = (0..shape.in_features as u32).collect();
        order.sort_by_key(|&input| self.groups[input as usize]);
        let group = |place: usize| self.groups[order[place] as usize] as usize;
        let group_size = order.iter().filter(|&&input| self.groups[input as usize] == 0).count();
        let even = group_size > 0
            && shape.in_features.div_ceil(group_size) == shape.groups
            && (0..shape.in_features).all(|place| group(place) == place / group_size);
        if !even {
            return None;
        }
        let bits = self.config.bits;
        let row_bytes = shape.in_features * bits as usize / 8;
        let mut quants = vec![0; shape.out_features * row_bytes];
        quants.par_chunks_mut(row_bytes).enumerate().for_each(|(out, row)| {
            for (places, byte) in order.chunks(8 / bits as usize).zip(row) {
                for (place, &input) in places.iter().enumerate() {
                    *byte |= self.quant(out, input as usize) << (place as u32 * bits);
                }
            }
        });
        let pairs =
            (0..shape.out_features).flat_map(|out| (0..shape.groups).map(move |g| (out, g)));
        let sorted = order.is_sorted();
        Some(GptqMatrix {
            out_features: shape.out_features,
            in_features: shape.in_features,
            bits,
            group_size,
            quants,
            scales: pairs.clone().map(|(out, group)| self.scale(out, group)).collect(),
            zeros: pairs.map(|(out, group)| self.zero(out, group)).collect(),
            permutation: (!sorted).then_some(order),
        })
    }
}

impl GptqMatrix {
    /// Groups in a row.
    pub fn groups(&self) -> usize {
        self.in_features.div_ceil(self.group_size)
    }

    /// Memory held.
    pub fn size_bytes(&self) -> usize {
        let permutation = self.permutation.as_ref().map_or(0, Vec::len);
        self.quants.len() + self.zeros.len() + 4 * (self.scales.len() + permutation)
    }

    /// Unpacks row `row` into `out`, which has [`GptqMatrix::in_features`] places, inputs in their own
    /// order.
    pub fn write_row(&self, row: usize, out: &mut [f32]) {
        let per_byte = 8 / self.bits as usize;
        let quants = &self.quants[row * self.in_features / per_byte..];
        let mask = ((1u32 << self.bits) - 1) as u8;
        for place in 0..self.in_features {
            let group = row * self.groups() + place / self.group_size;
            let shift = (place % per_byte) as u32 * self.bits;
            let q = f32::from(quants[place / per_byte] >> shift & mask);
            let input = self.permutation.as_ref().map_or(place, |order| order[place] as usize);
            out[input] = self.scales[group] * (q - f32::from(self.zeros[group]));
        }
    }

    /// All weights, `[out, in]`, inputs in their own order.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.out_features * self.in_features];
        let rows = weights.par_chunks_mut(self.in_features).enumerate();
        rows.for_each(|(row, out)| self.write_row(row, out));
        weights
    }
}
