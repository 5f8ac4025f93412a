//! Blocks in which text and picture have weights of their own and meet in attention.

use burn::tensor::Tensor;
use neurino_nn::attention::{self, Mask};
use neurino_nn::{Affine, RmsNorm, activation};

use super::rope::Rope;
use super::{FluxConfig, Modulation, NORM_EPSILON, modulated};
use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::lora::{Layer, LowRankPart};

/// Features inside a feed-forward network, as a multiple of the width.
pub(super) const MLP_RATIO: usize = 4;

/// A block on two streams.
#[derive(Debug, Clone)]
pub(super) struct DoubleBlock {
    image: Stream,
    text: Stream,
    heads: usize,
    in_half: bool,
}

/// The weights of one stream.
#[derive(Debug, Clone)]
struct Stream {
    names: &'static Names,
    modulation: Modulation,
    q: Affine,
    k: Affine,
    v: Affine,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    out: Affine,
    mlp_in: Affine,
    mlp_out: Affine,
}

/// What diffusers calls the layers of a stream.
#[derive(Debug)]
struct Names {
    modulation: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    q_norm: &'static str,
    k_norm: &'static str,
    out: &'static str,
    mlp_in: &'static str,
    mlp_out: &'static str,
}

static IMAGE: Names = Names {
    modulation: "norm1.linear",
    q: "attn.to_q",
    k: "attn.to_k",
    v: "attn.to_v",
    q_norm: "attn.norm_q",
    k_norm: "attn.norm_k",
    out: "attn.to_out.0",
    mlp_in: "ff.net.0.proj",
    mlp_out: "ff.net.2",
};

static TEXT: Names = Names {
    modulation: "norm1_context.linear",
    q: "attn.add_q_proj",
    k: "attn.add_k_proj",
    v: "attn.add_v_proj",
    q_norm: "attn.norm_added_q",
    k_norm: "attn.norm_added_k",
    out: "attn.to_add_out",
    mlp_in: "ff_context.net.0.proj",
    mlp_out: "ff_context.net.2",
};

/// Queries and keys of a part of the tokens, normalised by head, and values.
pub(super) struct Heads {
    /// `[1, tokens, heads, head_dim]`
    pub(super) q: Tensor<4>,
    /// As `q`.
    pub(super) k: Tensor<4>,
    /// `[1, tokens, width]`
    pub(super) v: Tensor<3>,
}

impl Heads {
    /// Splits projections into heads and normalises them.
    pub(super) fn new([q, k, v]: [Tensor<3>; 3], norms: [&RmsNorm; 2], heads: usize) -> Self {
        let split = |x: Tensor<3>, norm: &RmsNorm| {
            let [batch, tokens, width] = x.dims();
            norm.forward::<4>(x.reshape([batch, tokens, heads, width / heads]))
        };
        let [q_norm, k_norm] = norms;
        Self { q: split(q, q_norm), k: split(k, k_norm), v }
    }

    /// Turns queries and keys by their positions and lets all tokens see each other: `[1, tokens,
    /// width]`.
    ///
    /// - `in_half`: whether that may be computed in 16 bits
    pub(super) fn attend(self, rope: &Rope, in_half: bool) -> Tensor<3> {
        let [_, _, heads, head_dim] = self.q.dims();
        let shape = self.v.dims();
        let turned = |x: Tensor<4>| -> Tensor<3> { rope.apply(x).reshape(shape) };
        let scale = (head_dim as f32).sqrt().recip();
        let (q, k, v) = (turned(self.q), turned(self.k), self.v);
        if in_half {
            return attention::full_in_half(q, k, v, heads, scale);
        }
        attention::full(q, k, v, heads, scale, Mask::None)
    }
}

/// What a stream's modulation makes for its feed-forward network, and the gate of its attention.
struct Rest {
    attention_gate: Tensor<3>,
    mlp_shift: Tensor<3>,
    mlp_scale: Tensor<3>,
    mlp_gate: Tensor<3>,
}

impl Stream {
    fn load(
        part: &Component<'_>,
        names: &'static Names,
        config: &FluxConfig,
    ) -> Result<Self, DiffusionError> {
        let (width, head_dim) = (config.width(), config.attention_head_dim);
        let square = |name: &str| part.linear(name, [width, width]);
        Ok(Self {
            names,
            modulation: Modulation::load(part, names.modulation, width, 6)?,
            q: square(names.q)?,
            k: square(names.k)?,
            v: square(names.v)?,
            q_norm: part.rms_norm(names.q_norm, head_dim, NORM_EPSILON)?,
            k_norm: part.rms_norm(names.k_norm, head_dim, NORM_EPSILON)?,
            out: square(names.out)?,
            mlp_in: part.linear(names.mlp_in, [MLP_RATIO * width, width])?,
            mlp_out: part.linear(names.mlp_out, [width, MLP_RATIO * width])?,
        })
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut Affine)) {
        let names = self.names;
        visit(names.modulation, &mut self.modulation.linear);
        visit(names.q, &mut self.q);
        visit(names.k, &mut self.k);
        visit(names.v, &mut self.v);
        visit(names.out, &mut self.out);
        visit(names.mlp_in, &mut self.mlp_in);
        visit(names.mlp_out, &mut self.mlp_out);
    }

    /// What the stream brings to attention, and what its modulation keeps for later.
    fn enter(&self, x: &Tensor<3>, signal: &Tensor<2>, heads: usize) -> (Heads, Rest) {
        let [shift, scale, attention_gate, mlp_shift, mlp_scale, mlp_gate] =
            self.modulation.of(signal);
        let x = modulated(x.clone(), scale, shift);
        let projected = Affine::forward_each([&self.q, &self.k, &self.v], x);
        let heads = Heads::new(projected, [&self.q_norm, &self.k_norm], heads);
        (heads, Rest { attention_gate, mlp_shift, mlp_scale, mlp_gate })
    }

    /// Adds what attention found, then what the feed-forward network makes of it.
    fn leave(&self, x: Tensor<3>, seen: Tensor<3>, rest: Rest) -> Tensor<3> {
        let x = x + self.out.forward(seen) * rest.attention_gate;
        let inner = modulated(x.clone(), rest.mlp_scale, rest.mlp_shift);
        let inner = activation::gelu_tanh(self.mlp_in.forward(inner));
        x + self.mlp_out.forward(inner) * rest.mlp_gate
    }
}

impl DoubleBlock {
    pub(super) fn load(part: &Component<'_>, config: &FluxConfig) -> Result<Self, DiffusionError> {
        Ok(Self {
            image: Stream::load(part, &IMAGE, config)?,
            text: Stream::load(part, &TEXT, config)?,
            heads: config.num_attention_heads,
            in_half: part.in_half(),
        })
    }

    /// # Shapes
    /// - `text`, `image`: `[1, tokens, width]`; returns both
    /// - `signal`: `[1, width]`
    pub(super) fn forward(
        &self,
        text: Tensor<3>,
        image: Tensor<3>,
        signal: &Tensor<2>,
        rope: &Rope,
    ) -> (Tensor<3>, Tensor<3>) {
        let (of_text, text_rest) = self.text.enter(&text, signal, self.heads);
        let (of_image, image_rest) = self.image.enter(&image, signal, self.heads);
        let all = Heads {
            q: Tensor::cat(vec![of_text.q, of_image.q], 1),
            k: Tensor::cat(vec![of_text.k, of_image.k], 1),
            v: Tensor::cat(vec![of_text.v, of_image.v], 1),
        };
        let seen = all.attend(rope, self.in_half);
        let (text_tokens, image_tokens) = (text.dims()[1], image.dims()[1]);
        let by_text = seen.clone().narrow(1, 0, text_tokens);
        let by_image = seen.narrow(1, text_tokens, image_tokens);
        let text = self.text.leave(text, by_text, text_rest);
        (text, self.image.leave(image, by_image, image_rest))
    }
}

impl LowRankPart for DoubleBlock {
    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        let mut visit = |name: &str, layer: &mut Affine| {
            visit(&format!("{path}.{name}"), Layer::Affine(layer));
        };
        self.image.visit(&mut visit);
        self.text.visit(&mut visit);
    }
}
