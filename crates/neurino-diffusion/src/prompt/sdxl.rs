//! The long-prompt rules of SDXL's pipeline.

use burn::tensor::Tensor;
use half::f16;
use neurino_nn::device::{download, upload};

use super::{Chunk, Syntax, bounded, weighted_tokens};
use crate::DiffusionError;
use crate::clip::{ClipTextEncoder, ClipTokenizer};

/// A prompt and a negative prompt in as many chunks, for each of the two encoders.
#[derive(Debug, Clone, PartialEq)]
pub struct SdxlPrompt {
    /// What is to be seen and what is not, as the first encoder reads it.
    pub first: [Vec<Chunk>; 2],
    /// The same for the second encoder; its weights are not used.
    pub second: [Vec<Chunk>; 2],
}

/// What SDXL's UNet is told about a picture.
#[derive(Debug, Clone)]
pub struct SdxlEmbeddings {
    /// `[1, tokens, both widths]`, or `[2, ..]` with the negative prompt first.
    pub states: Tensor<3>,
    /// `[1 or 2, projection]`, in the same order.
    pub pooled: Tensor<2>,
}

impl SdxlPrompt {
    /// Reads a prompt and a negative prompt, which sets the length even where the picture is not
    /// guided. Two empty prompts, at which the reference fails, are one chunk without text.
    ///
    /// # Errors
    /// `Tokenizer` if a text cannot be split into tokens.
    pub fn new(
        tokenizers: [&ClipTokenizer; 2],
        prompt: &str,
        negative: &str,
    ) -> Result<Self, DiffusionError> {
        let [first, second] = tokenizers.map(|tokenizer| chunks(tokenizer, [prompt, negative]));
        Ok(Self { first: first?, second: second? })
    }

    /// The penultimate states of both encoders side by side, each token pulled away from its chunk's
    /// end token by its weight; without `guided` those of the prompt alone.
    ///
    /// # Errors
    /// `Tokenizer` if tokenizers and encoders do not fit together; `Nn` if the device failed.
    pub fn embed(
        &self,
        encoders: [&ClipTextEncoder; 2],
        guided: bool,
    ) -> Result<SdxlEmbeddings, DiffusionError> {
        let sides: &[usize] = if guided { &[1, 0] } else { &[0] };
        let [first, second] = [&self.first, &self.second].map(|chunks| chunks[0].len());
        if first != second {
            let problem = format!("{first} chunks for one encoder, {second} for the other");
            return Err(DiffusionError::Tokenizer(problem));
        }
        let mut parts = Vec::with_capacity(first);
        let mut pooled = None;
        for index in 0..first {
            let ids = |chunks: &[Vec<Chunk>; 2]| -> Vec<Vec<u32>> {
                sides.iter().map(|side| chunks[*side][index].ids.clone()).collect()
            };
            let (ids, ids_2) = (ids(&self.first), ids(&self.second));
            if ids[0].len() != ids_2[0].len() {
                let problem = "the two encoders read chunks of different lengths".into();
                return Err(DiffusionError::Tokenizer(problem));
            }
            let states = encoders[1].encode(&ids_2)?;
            pooled = Some(states.pooled);
            let hidden =
                Tensor::cat(vec![encoders[0].encode(&ids)?.penultimate, states.penultimate], 2);
            let weights = sides.iter().map(|side| &*self.first[*side][index].weights);
            parts.push(weighed(hidden, weights)?);
        }
        let pooled = pooled.ok_or_else(|| DiffusionError::Tokenizer("there is no chunk".into()))?;
        Ok(SdxlEmbeddings { states: Tensor::cat(parts, 1), pooled })
    }
}

/// Both prompts in chunks; the shorter one is filled with end tokens, the last chunk is as short as it
/// comes.
fn chunks(
    tokenizer: &ClipTokenizer,
    prompts: [&str; 2],
) -> Result<[Vec<Chunk>; 2], DiffusionError> {
    let [prompt, negative] =
        prompts.map(|text| weighted_tokens(tokenizer, text, Syntax::Sdxl, usize::MAX));
    let mut sides = [prompt?, negative?];
    let longest = sides.iter().map(|side| side.ids.len()).max().unwrap_or_default();
    Ok(sides.each_mut().map(|side| {
        side.fill(tokenizer.eos(), longest);
        if longest > 0 {
            return side.cut(tokenizer);
        }
        let mut empty = Chunk::default();
        empty.push(tokenizer.bos(), 1.0);
        empty.push(tokenizer.eos(), 1.0);
        vec![empty]
    }))
}

/// `end + (state - end) * weight` of each token; the weights are f16 as in the reference.
fn weighed<'a>(
    hidden: Tensor<3>,
    weights: impl Iterator<Item = &'a [f64]>,
) -> Result<Tensor<3>, DiffusionError> {
    let (shape, device) = (hidden.dims(), hidden.device());
    let [_, tokens, width] = shape;
    let mut hidden = download(hidden)?;
    for (side, weights) in hidden.chunks_exact_mut(tokens * width).zip(weights) {
        let (states, end) = side.split_at_mut((tokens - 1) * width);
        for (state, weight) in states.chunks_exact_mut(width).zip(weights) {
            let weight = f16::from_f64(bounded(*weight, f16::MAX.to_f64()));
            if weight != f16::ONE {
                let pairs = state.iter_mut().zip(&*end);
                pairs.for_each(|(x, end)| *x = end + (*x - end) * weight.to_f32());
            }
        }
    }
    Ok(upload(hidden, shape, &device))
}
