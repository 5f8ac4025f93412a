//! Rotary positions over rows and columns. The pair of feature `2i` is `2i + 1`.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use neurino_nn::device::{in_place, is_cpu, upload};
use rayon::prelude::*;

use super::ROPE_BASE;

/// Cosines and sines of every token's angles: the text's, which are all 0, then the picture's.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    /// `[tokens, head_dim / 2]`
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    pairs: usize,
    /// The same as `[1, tokens, 1, head_dim / 2, 1]` on a device that is not the CPU.
    on_device: Option<[Tensor<5>; 2]>,
}

impl Rope {
    /// Angles of `text_tokens` at the origin and of a picture of `[rows, columns]` tokens, which are at
    /// (0, row, column). `axes` are the features of a head that turn with each of the three.
    pub(super) fn new(
        axes: [usize; 3],
        text_tokens: usize,
        [rows, columns]: [usize; 2],
        device: &Device,
    ) -> Self {
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| [0, row, column]));
        let places = std::iter::repeat_n([0; 3], text_tokens).chain(places);
        let angles = |place: [usize; 3]| {
            axes.into_iter().zip(place).flat_map(|(features, position)| {
                (0..features).step_by(2).map(move |feature| {
                    position as f64 / ROPE_BASE.powf(feature as f64 / features as f64)
                })
            })
        };
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            places.flat_map(angles).map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        let pairs = axes.iter().sum::<usize>() / 2;
        let shape = [1, cos.len() / pairs.max(1), 1, pairs, 1];
        let on_device = (!is_cpu(device))
            .then(|| [upload(cos.clone(), shape, device), upload(sin.clone(), shape, device)]);
        Self { cos: cos.into(), sin: sin.into(), pairs, on_device }
    }

    /// Turns the pairs of every head.
    ///
    /// # Shapes
    /// - `x`: `[1, tokens, heads, head_dim]`; returns the same
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let shape @ [batch, tokens, heads, head_dim] = x.dims();
        if let Some([cos, sin]) = &self.on_device {
            let x: Tensor<5> = x.reshape([batch, tokens, heads, head_dim / 2, 2]);
            let (even, odd) = (x.clone().narrow(4, 0, 1), x.narrow(4, 1, 1));
            let turned = even.clone() * cos.clone() - odd.clone() * sin.clone();
            let other = even * sin.clone() + odd * cos.clone();
            return Tensor::cat(vec![turned, other], 4).reshape(shape);
        }
        in_place(
            x,
            |values| self.turn(values, heads, head_dim),
            |_| unreachable!("tables for other devices than the CPU were made with the rest"),
        )
    }

    /// Turns `[tokens, heads, head_dim]` where they lie.
    fn turn(&self, values: &mut [f32], heads: usize, head_dim: usize) {
        let tables = self.cos.par_chunks(self.pairs).zip(self.sin.par_chunks(self.pairs));
        values.par_chunks_mut(heads * head_dim).zip(tables).for_each(|(token, (cos, sin))| {
            for head in token.chunks_exact_mut(head_dim) {
                for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    let [even, odd] = *pair;
                    *pair = [even * cos - odd * sin, even * sin + odd * cos];
                }
            }
        });
    }
}
