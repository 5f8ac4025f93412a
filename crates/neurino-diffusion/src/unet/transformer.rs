//! Attention of a picture's pixels to each other and to the prompt.

use burn::tensor::Tensor;
use neurino_nn::activation::geglu;
use neurino_nn::attention::{Mask, full, full_in_half};
use neurino_nn::{Affine, GroupNorm, LayerNorm};

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::checkpoint::streaming::Place;
use crate::lora::{Layer, LowRankPart};

/// Transformer blocks over the pixels of a picture, around which the picture goes.
///
/// Source: Rombach et al. 2022. The projections are convolutions of 1x1 in some files and linear layers in
/// others, which is the same.
#[derive(Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Affine,
    blocks: Vec<Place<Block>>,
    proj_out: Affine,
}

/// The dimensions of a transformer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerDims {
    pub(crate) channels: usize,
    pub(crate) heads: usize,
    pub(crate) depth: usize,
    pub(crate) context_width: usize,
    pub(crate) norm_groups: usize,
}

impl SpatialTransformer {
    pub(crate) fn load(
        part: &Component<'_>,
        dims: TransformerDims,
    ) -> Result<Self, DiffusionError> {
        let TransformerDims { channels, depth, norm_groups, .. } = dims;
        let block = |i| {
            let part = part.sub(format_args!("transformer_blocks.{i}"));
            Place::load(&part, move |part| Block::load(part, dims))
        };
        Ok(Self {
            norm: part.group_norm("norm", channels, norm_groups, 1e-6)?,
            proj_in: part.linear("proj_in", [channels, channels])?,
            blocks: (0..depth).map(block).collect::<Result<_, _>>()?,
            proj_out: part.linear("proj_out", [channels, channels])?,
        })
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, channels]`; returns the same
    /// - `context`: `[batch, tokens, context width]`
    pub(crate) fn forward(&self, x: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let shape @ [batch, height, width, channels] = x.dims();
        let pixels: Tensor<3> =
            self.norm.forward(x.clone()).reshape([batch, height * width, channels]);
        let mut h = self.proj_in.forward(pixels);
        for block in &self.blocks {
            h = block.with(|block| block.forward(h, context));
        }
        x + self.proj_out.forward(h).reshape(shape)
    }

    pub(crate) fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        visit(&format!("{path}.proj_in"), Layer::Affine(&mut self.proj_in));
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.low_rank_layers(&format!("{path}.transformer_blocks.{i}"), visit);
        }
        visit(&format!("{path}.proj_out"), Layer::Affine(&mut self.proj_out));
    }
}

/// Self-attention, attention to the prompt, and a gated feed-forward network.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    /// Of pixels to pixels.
    attn1: Attention,
    norm2: LayerNorm,
    /// Of pixels to the prompt.
    attn2: Attention,
    norm3: LayerNorm,
    /// `[2 * 4 channels, channels]`: values, then gates.
    ff_in: Affine,
    /// `[channels, 4 channels]`
    ff_out: Affine,
}

impl Block {
    fn load(part: &Component<'_>, dims: TransformerDims) -> Result<Self, DiffusionError> {
        let TransformerDims { channels, heads, context_width, .. } = dims;
        let norm = |name| part.layer_norm(name, channels, 1e-5);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&part.sub("attn1"), channels, channels, heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::load(&part.sub("attn2"), channels, context_width, heads)?,
            norm3: norm("norm3")?,
            ff_in: part.linear("ff.net.0.proj", [8 * channels, channels])?,
            ff_out: part.linear("ff.net.2", [channels, 4 * channels])?,
        })
    }

    fn forward(&self, x: Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn1.over_itself(self.norm1.forward(x));
        let x = x.clone() + self.attn2.over(self.norm2.forward(x), context);
        let h = geglu(self.ff_in.forward(self.norm3.forward(x.clone())));
        x + self.ff_out.forward(h)
    }
}

impl LowRankPart for Block {
    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        self.attn1.low_rank_layers(&format!("{path}.attn1"), visit);
        self.attn2.low_rank_layers(&format!("{path}.attn2"), visit);
        visit(&format!("{path}.ff.net.0.proj"), Layer::Affine(&mut self.ff_in));
        visit(&format!("{path}.ff.net.2"), Layer::Affine(&mut self.ff_out));
    }
}

/// Attention of several heads.
///
/// Source: Vaswani et al. 2017.
#[derive(Debug)]
struct Attention {
    /// `[channels, channels]`
    query: Affine,
    /// `[channels, width of what is attended to]`
    key: Affine,
    /// As `key`.
    value: Affine,
    /// `[channels, channels]`
    out: Affine,
    heads: usize,
    scale: f32,
    in_half: bool,
}

impl Attention {
    fn load(
        part: &Component<'_>,
        channels: usize,
        width: usize,
        heads: usize,
    ) -> Result<Self, DiffusionError> {
        Ok(Self {
            query: part.linear_no_bias("to_q", [channels, channels])?,
            key: part.linear_no_bias("to_k", [channels, width])?,
            value: part.linear_no_bias("to_v", [channels, width])?,
            out: part.linear("to_out.0", [channels, channels])?,
            heads,
            scale: ((channels / heads) as f32).sqrt().recip(),
            in_half: part.in_half(),
        })
    }

    fn over_itself(&self, x: Tensor<3>) -> Tensor<3> {
        let [q, k, v] = Affine::forward_each([&self.query, &self.key, &self.value], x);
        self.seen(q, k, v)
    }

    fn over(&self, x: Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        let q = self.query.forward(x);
        let [k, v] = Affine::forward_each([&self.key, &self.value], context.clone());
        self.seen(q, k, v)
    }

    fn seen(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        let seen = if self.in_half {
            full_in_half(q, k, v, self.heads, self.scale)
        } else {
            full(q, k, v, self.heads, self.scale, Mask::None)
        };
        self.out.forward(seen)
    }

    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        visit(&format!("{path}.to_q"), Layer::Affine(&mut self.query));
        visit(&format!("{path}.to_k"), Layer::Affine(&mut self.key));
        visit(&format!("{path}.to_v"), Layer::Affine(&mut self.value));
        visit(&format!("{path}.to_out.0"), Layer::Affine(&mut self.out));
    }
}
