//! Blocks in which text and picture are one sequence, with attention and feed-forward side by side.

use burn::tensor::Tensor;
use neurino_nn::{Affine, RmsNorm, activation};

use super::double::{Heads, MLP_RATIO};
use super::rope::Rope;
use super::{FluxConfig, Modulation, NORM_EPSILON, modulated};
use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::lora::{Layer, LowRankPart};

/// A block on one stream.
#[derive(Debug, Clone)]
pub(super) struct SingleBlock {
    modulation: Modulation,
    q: Affine,
    k: Affine,
    v: Affine,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    mlp: Affine,
    out: Affine,
    heads: usize,
    in_half: bool,
}

impl SingleBlock {
    pub(super) fn load(part: &Component<'_>, config: &FluxConfig) -> Result<Self, DiffusionError> {
        let (width, head_dim) = (config.width(), config.attention_head_dim);
        let inner = MLP_RATIO * width;
        let square = |name: &str| part.linear(name, [width, width]);
        Ok(Self {
            modulation: Modulation::load(part, "norm.linear", width, 3)?,
            q: square("attn.to_q")?,
            k: square("attn.to_k")?,
            v: square("attn.to_v")?,
            q_norm: part.rms_norm("attn.norm_q", head_dim, NORM_EPSILON)?,
            k_norm: part.rms_norm("attn.norm_k", head_dim, NORM_EPSILON)?,
            mlp: part.linear("proj_mlp", [inner, width])?,
            out: part.linear("proj_out", [width, width + inner])?,
            heads: config.num_attention_heads,
            in_half: part.in_half(),
        })
    }

    /// # Shapes
    /// - `x`: `[1, tokens, width]`; returns the same
    /// - `signal`: `[1, width]`
    pub(super) fn forward(&self, x: Tensor<3>, signal: &Tensor<2>, rope: &Rope) -> Tensor<3> {
        let [shift, scale, gate] = self.modulation.of(signal);
        let normed = modulated(x.clone(), scale, shift);
        let [q, k, v, inner] = Affine::forward_each([&self.q, &self.k, &self.v, &self.mlp], normed);
        let heads = Heads::new([q, k, v], [&self.q_norm, &self.k_norm], self.heads);
        let found =
            Tensor::cat(vec![heads.attend(rope, self.in_half), activation::gelu_tanh(inner)], 2);
        x + self.out.forward(found) * gate
    }
}

impl LowRankPart for SingleBlock {
    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        let mut visit = |name: &str, layer: &mut Affine| {
            visit(&format!("{path}.{name}"), Layer::Affine(layer));
        };
        visit("norm.linear", &mut self.modulation.linear);
        visit("attn.to_q", &mut self.q);
        visit("attn.to_k", &mut self.k);
        visit("attn.to_v", &mut self.v);
        visit("proj_mlp", &mut self.mlp);
        visit("proj_out", &mut self.out);
    }
}
