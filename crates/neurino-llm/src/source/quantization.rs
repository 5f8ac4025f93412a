//! Whether and how a folder's weights are quantised.

use std::path::Path;

use neurino_weights::gptq::GptqConfig;
use neurino_weights::{Safetensors, WeightsError};
use serde::Deserialize;

use super::{parse, read};
use crate::LlmError;
use crate::checkpoint::Checkpoint;

/// The part of `config.json` that tells of quantisation.
#[derive(Deserialize)]
struct Keys {
    quantization_config: Option<serde_json::Value>,
}

/// The weights of `folder`, whose `config.json` is `json`, with what is needed to unpack them.
pub(super) fn checkpoint(
    folder: &Path,
    config: &Path,
    json: &[u8],
) -> Result<Checkpoint, LlmError> {
    let keys: Keys = parse(config, json)?;
    let own = folder.join("quantize_config.json");
    let old_awq = folder.join("quant_config.json");
    let gptq = if let Some(described) = keys.quantization_config.filter(|d| !d.is_null()) {
        refuse_other_methods(config, &described)?;
        Some(GptqConfig::from_json(config, described.to_string().as_bytes())?)
    } else if own.is_file() {
        Some(GptqConfig::from_json(&own, &read(&own)?)?)
    } else if old_awq.is_file() {
        return Err(unsupported(&old_awq, "AWQ").into());
    } else {
        None
    };
    let weights = Safetensors::open_folder(folder)?;
    if let Some(gptq) = gptq {
        return Ok(Checkpoint::Gptq(weights, gptq));
    }
    let method = weights.names().find_map(quantised_name);
    match method {
        Some(method) => Err(unsupported(folder, method).into()),
        None => Ok(Checkpoint::Safetensors(weights)),
    }
}

/// Methods are called by the names under which people know them.
fn refuse_other_methods(config: &Path, described: &serde_json::Value) -> Result<(), WeightsError> {
    let has = |key: &str| described.get(key).is_some_and(|value| *value != false);
    let method = described.get("quant_method").and_then(serde_json::Value::as_str);
    let name = match method.map(str::to_ascii_lowercase).as_deref() {
        Some("gptq") => return Ok(()),
        Some("awq") => "AWQ",
        Some("exl2" | "exl3") => "EXL2",
        Some("bitsandbytes") => "bitsandbytes",
        Some("hqq") => "HQQ",
        Some("fp8" | "fbgemm_fp8") => "FP8",
        Some("compressed-tensors") => "compressed-tensors",
        Some(_) => "a method unknown to this build",
        None if has("load_in_4bit") || has("load_in_8bit") => "bitsandbytes",
        None => return Ok(()),
    };
    Err(unsupported(config, name))
}

/// The method that a tensor's name gives away.
fn quantised_name(name: &str) -> Option<&'static str> {
    let end = |suffix: &str| name.ends_with(suffix);
    if end(".qweight") {
        Some("GPTQ or AWQ, but quantize_config.json is missing")
    } else if end(".q_weight") {
        Some("EXL2")
    } else if name.contains(".quant_state.bitsandbytes") || end(".weight.SCB") || end(".SCB") {
        Some("bitsandbytes")
    } else if end(".W_q") {
        Some("HQQ")
    } else if end(".weight_packed") {
        Some("compressed-tensors")
    } else {
        None
    }
}

fn unsupported(file: &Path, method: &str) -> WeightsError {
    WeightsError::UnsupportedQuantization {
        file: file.to_owned(),
        reason: format!("the weights are quantised by {method}"),
    }
}
