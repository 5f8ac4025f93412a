//! Holds the tensors of a checkpoint to its configuration, from metadata: what would be ignored is
//! named, because an answer without it is another one, and what nothing could be made of is refused
//! before memory is planned by its shape.

use std::path::Path;

use neurino_weights::StoredTensor;

use super::names::{LAYER_PARTS, ROUTER};
use super::{Checkpoint, plan};
use crate::LlmError;
use crate::config::ModelConfig;
use crate::source::ModelArch;

/// What older exporters left in a layer that can be computed: rotations and masks.
const COMPUTED: [&str; 3] = [".rotary_emb.", ".masked_bias", ".attn_rot_embd."];
/// Names outside of layers by which something would be computed.
const OUTSIDE: [&str; 6] =
    ["model.embed_tokens.", "model.norm.", "lm_head.", "token_embd", "output", "rope_factors"];
/// How the names of biases end.
const BIAS: &str = ".bias";
/// Longest bias that is looked at, in bytes: far beyond what one of a real model takes.
const BIAS_BYTES_MAX: usize = 4 << 20;

impl Checkpoint {
    /// Checks that all layers of `config` are there, that the shapes of the model's tensors can be
    /// planned with, and that no tensor would be left out of the computation. `path` is the model's.
    ///
    /// # Errors
    /// `UnsupportedFeature` for a tensor that this build does not compute with; `Weights` for one that is
    /// absent, damaged or in an unknown format.
    pub(crate) fn check(&self, path: &Path, config: &ModelConfig) -> Result<(), LlmError> {
        for tensor in self.tensors() {
            if is_used(tensor.name(), config) {
                check_shape(tensor, config)?;
            } else if would_matter(tensor.name())
                && !is_known_bias(tensor.name(), config)
                && !is_zero_bias(tensor)?
            {
                let name = tensor.name().chars().filter(|c| !c.is_control()).take(120);
                let feature = format!("layers with `{}`", name.collect::<String>());
                return Err(LlmError::UnsupportedFeature { path: path.to_owned(), feature });
            }
        }
        // Ends at the first that is absent, however many there should be.
        for layer in 0..config.num_hidden_layers {
            self.stored(&format!("model.layers.{layer}.input_layernorm.weight"))?;
        }
        Ok(())
    }
}

/// Whether a model of `config` asks for the tensor.
fn is_used(name: &str, config: &ModelConfig) -> bool {
    let mixture = config.arch == ModelArch::Mixtral;
    match plan::place_of(name) {
        None => name.starts_with("lm_head.") && plan::has_known_suffix(name),
        Some(plan::Place::Outside) => true,
        Some(plan::Place::Layer { layer, .. }) if layer >= config.num_hidden_layers => false,
        Some(plan::Place::Layer { part: Some(part), .. }) => match LAYER_PARTS[part].0 {
            own if ROUTER.starts_with(own) => mixture,
            own if own.starts_with("mlp.") => !mixture,
            _ => true,
        },
        Some(plan::Place::Layer { part: None, expert, .. }) => {
            mixture && expert.is_none_or(|expert| expert < config.num_local_experts)
        }
    }
}

/// Whether a tensor that is not used would change what is computed.
fn would_matter(name: &str) -> bool {
    let in_layer = plan::in_layer(name).is_some() && !COMPUTED.iter().any(|c| name.contains(c));
    in_layer || OUTSIDE.iter().any(|start| name.starts_with(start))
}

/// Whether a model of `config` asks for the bias. Its shape is checked when it is loaded.
fn is_known_bias(name: &str, config: &ModelConfig) -> bool {
    let Some((layer, part)) = plan::in_layer(name) else { return false };
    let (of, part) = match part.strip_suffix(BIAS).and_then(|part| part.split_once('.')) {
        Some(parts) if layer < config.num_hidden_layers => parts,
        _ => return false,
    };
    match of {
        "self_attn" => {
            config.attention_bias && ["q_proj", "k_proj", "v_proj", "o_proj"].contains(&part)
        }
        "mlp" => config.mlp_bias && ["gate_proj", "up_proj", "down_proj"].contains(&part),
        _ => false,
    }
}

/// Whether the tensor is a bias that adds nothing: early tools for GPTQ wrote such for every matrix.
fn is_zero_bias(tensor: &StoredTensor) -> Result<bool, LlmError> {
    if !tensor.name().ends_with(BIAS) || tensor.size_bytes() > BIAS_BYTES_MAX {
        return Ok(false);
    }
    Ok(tensor.read()?.to_f32()?.iter().all(|value| *value == 0.0))
}

fn check_shape(tensor: &StoredTensor, config: &ModelConfig) -> Result<(), LlmError> {
    if tensor.dtype().unit().is_none() {
        return Err(tensor.unsupported(tensor.dtype().name()).into());
    }
    if tensor.shape().contains(&0) {
        return Err(tensor.damaged("it holds nothing").into());
    }
    let merged = matches!(
        plan::place_of(tensor.name()),
        Some(plan::Place::Layer { part: None, expert: None, .. })
    );
    let experts = config.num_local_experts;
    if merged && (tensor.shape().len() != 3 || tensor.shape()[0] != experts) {
        let found = tensor.shape();
        let reason = format!("its shape is {found:?} and the model has {experts} experts");
        return Err(tensor.damaged(reason).into());
    }
    Ok(())
}
