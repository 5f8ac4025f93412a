//! How strong an update is: a number beside its factors or, for those that peft wrote, what its
//! configuration says.
//!
//! Source: `peft@0.10.0` `tuners/lora/layer.py` `update_layer`, `tuners/tuners_utils.py`; where newer
//! versions of diffusers note the configuration in the file itself, `loaders/lora_base.py`.

use std::collections::BTreeMap;
use std::path::Path;

use neurino_weights::{DType, Safetensors, StoredTensor};
use serde::Deserialize;

use super::LoraError;

/// Under which diffusers notes the configurations of all networks, their names before each key.
const NOTE: &str = "lora_adapter_metadata";
const CONFIG: &str = "adapter_config.json";

/// The number that a tensor of one holds, in whatever format; `None` if it holds something else.
///
/// # Errors
/// `Weights` if the file changed.
pub(super) fn number(tensor: &StoredTensor) -> Result<Option<f64>, LoraError> {
    if tensor.shape().iter().product::<usize>() != 1 || tensor.dtype().unit().is_none() {
        return Ok(None);
    }
    let data = tensor.read()?;
    let bytes = data.bytes();
    Ok(match tensor.dtype() {
        DType::I64 => bytes.first_chunk().map(|bytes| i64::from_le_bytes(*bytes) as f64),
        DType::I32 => bytes.first_chunk().map(|bytes| f64::from(i32::from_le_bytes(*bytes))),
        DType::U8 => bytes.first().copied().map(f64::from),
        DType::F64 => bytes.first_chunk().map(|bytes| f64::from_le_bytes(*bytes)),
        _ => data.to_f32()?.first().copied().map(f64::from),
    })
}

/// What peft says of the updates in a file.
#[derive(Debug, Default)]
pub(super) struct PeftScale {
    /// By the beginning of names that it is for; an empty one is for all.
    networks: Vec<(String, Config)>,
}

/// `adapter_config.json`, as far as it is about strength.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default = "default_rank")]
    r: usize,
    #[serde(default = "default_alpha")]
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    /// Other alphas, by the ends of layers' paths.
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

impl PeftScale {
    /// Reads what the file notes, else the configuration beside it if the file is one of peft's own.
    ///
    /// # Errors
    /// `Unsupported` for a configuration that is not understood.
    pub(super) fn read(path: &Path, file: &Safetensors) -> Result<Option<Self>, LoraError> {
        let unsupported = |what: &str, why: String| LoraError::Unsupported {
            file: path.to_owned(),
            found: format!("its {what} is not understood ({why})"),
        };
        if let Some(note) = file.note(NOTE) {
            let scale = Self::of_note(note);
            return scale.map(Some).map_err(|why| unsupported(&format!("note `{NOTE}`"), why));
        }
        let config = path.with_file_name(CONFIG);
        if !config.is_file() || !file.names().any(|name| name.starts_with(super::keys::PEFT)) {
            return Ok(None);
        }
        let read = std::fs::read(&config).map_err(|error| error.to_string()).and_then(|bytes| {
            let config: Config = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
            config.checked()
        });
        match read {
            Ok(config) => Ok(Some(Self { networks: vec![(String::new(), config)] })),
            Err(why) => Err(unsupported(&format!("`{CONFIG}`"), why)),
        }
    }

    /// The keys of each network have its name and a dot before them.
    fn of_note(note: &str) -> Result<Self, String> {
        let table: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(note).map_err(|error| error.to_string())?;
        let mut networks = BTreeMap::<String, serde_json::Map<String, serde_json::Value>>::new();
        for (key, value) in table {
            let (network, key) = match key.split_once('.') {
                Some((network, key)) => (format!("{network}."), key.to_owned()),
                None => (String::new(), key),
            };
            networks.entry(network).or_default().insert(key, value);
        }
        let config = |(network, keys)| {
            let config: Config = serde_json::from_value(serde_json::Value::Object(keys))
                .map_err(|error| error.to_string())?;
            Ok((network, config.checked()?))
        };
        Ok(Self { networks: networks.into_iter().map(config).collect::<Result<_, String>>()? })
    }

    /// What the update called `name` with factors of `rank` is multiplied with.
    pub(super) fn factor(&self, name: &str, rank: usize) -> f64 {
        let named = self.networks.iter().find(|(network, _)| name.starts_with(network));
        named.map_or(1.0, |(_, config)| config.factor(name, rank))
    }
}

impl Config {
    /// Refuses patterns that are more than the end of a path.
    fn checked(self) -> Result<Self, String> {
        let plain = |pattern: &String| {
            pattern.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        let patterns = self.alpha_pattern.iter().flat_map(BTreeMap::keys);
        if let Some(pattern) = patterns.into_iter().find(|pattern| !plain(pattern)) {
            return Err(format!("its pattern `{pattern}` is more than a layer's name"));
        }
        if self.r == 0 || !self.lora_alpha.is_finite() {
            return Err("its rank or alpha is no number".to_owned());
        }
        Ok(self)
    }

    /// Ranks of layers differ by a pattern, too: those of the factors are what that made.
    fn factor(&self, name: &str, rank: usize) -> f64 {
        let ends = |pattern: &str| {
            name.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let patterns = self.alpha_pattern.iter().flatten();
        let own = patterns.into_iter().find(|(pattern, _)| ends(pattern)).map(|(_, alpha)| *alpha);
        let rank = rank as f64;
        own.unwrap_or(self.lora_alpha) / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn notes_are_by_network() {
        let scale = PeftScale::of_note(
            r#"{"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.target_modules": ["to_q"],
                "transformer.alpha_pattern": {"single_transformer_blocks.0.proj_out": 2.0},
                "text_encoder.r": 4, "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true}"#,
        )
        .unwrap();
        assert!(
            (scale.factor("transformer.transformer_blocks.0.attn.to_q", 4) - 2.0).abs() < 1e-12
        );
        let single = "transformer.single_transformer_blocks.0.proj_out";
        assert!((scale.factor(single, 4) - 0.5).abs() < 1e-12);
        let text = "text_encoder.text_model.encoder.layers.0.mlp.fc1";
        assert!((scale.factor(text, 4) - 2.0).abs() < 1e-12);
        assert!(PeftScale::of_note(r#"{"unet.r": 4, "unet.alpha_pattern": {"a.*b": 1}}"#).is_err());
        assert!(PeftScale::of_note("[]").is_err());
    }
}
