//! The dimensions of a UNet: from diffusers' `config.json`, from the shapes of its tensors, or known.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::DiffusionError;
use crate::checkpoint::Component;

/// The largest level count, channel count and so on that a file may ask for: generous, and small enough
/// that no product of them overflows.
const DIM_MAX: usize = 1 << 16;
const LEVELS_MAX: usize = 16;

/// The dimensions of a UNet. Levels are counted from the finest.
#[derive(Debug, Clone, PartialEq)]
pub struct UnetConfig {
    /// Channels of the latents that enter.
    pub in_channels: usize,
    /// Channels of what is predicted.
    pub out_channels: usize,
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Resnets of each level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Transformer blocks behind each resnet of a level; 0 is a level without attention.
    pub depths: Vec<usize>,
    /// Transformer blocks between the ways; 0 is none.
    pub mid_depth: usize,
    /// Heads of each level's attention; the middle has those of the last level.
    pub heads: Vec<usize>,
    /// Width of the prompt's states.
    pub context_width: usize,
    /// Groups of channels that are normalised together.
    pub norm_groups: usize,
    /// What is added to the variance in resnets.
    pub norm_epsilon: f64,
    /// SDXL's condition besides the prompt's states.
    pub added: Option<AddedConfig>,
}

/// The dimensions of SDXL's added condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedConfig {
    /// Width of each of the six numbers as waves.
    pub time_width: usize,
    /// Width of the prompt's pooled state and of all waves.
    pub input_width: usize,
}

impl AddedConfig {
    /// Width of the prompt's pooled state.
    pub fn pooled_width(&self) -> usize {
        self.input_width.saturating_sub(6 * self.time_width)
    }
}

impl UnetConfig {
    /// Stable Diffusion 1.5.
    pub fn sd15() -> Self {
        Self {
            in_channels: 4,
            out_channels: 4,
            channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            depths: vec![1, 1, 1, 0],
            mid_depth: 1,
            heads: vec![8; 4],
            context_width: 768,
            norm_groups: 32,
            norm_epsilon: 1e-5,
            added: None,
        }
    }

    /// SDXL.
    pub fn sdxl() -> Self {
        Self {
            in_channels: 4,
            out_channels: 4,
            channels: vec![320, 640, 1280],
            layers_per_block: 2,
            depths: vec![0, 2, 10],
            mid_depth: 10,
            heads: vec![5, 10, 20],
            context_width: 2048,
            norm_groups: 32,
            norm_epsilon: 1e-5,
            added: Some(AddedConfig { time_width: 256, input_width: 2816 }),
        }
    }

    /// Width of the time as the network has it.
    pub fn time_width(&self) -> usize {
        4 * self.channels[0]
    }

    /// Reads diffusers' `unet/config.json`.
    ///
    /// # Errors
    /// `Config` if it is not that, or describes a network of another kind.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let config = |problem| DiffusionError::Config { file: path.to_owned(), problem };
        let text = std::fs::read(path).map_err(|e| config(format!("cannot be read ({e})")))?;
        Self::from_json(&text).map_err(config)
    }

    /// The dimensions from the text of diffusers' `unet/config.json`, or what is wrong with it, as a
    /// predicate.
    ///
    /// # Errors
    /// A predicate: "has no field `x`".
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|e| format!("is no JSON ({e})"))?;
        refuse_unknown(&value)?;
        let json: Json =
            serde_json::from_value(value).map_err(|e| format!("is incomplete ({e})"))?;
        json.config()?.checked()
    }

    /// Reads the dimensions off the shapes of a checkpoint's tensors. What shapes do not tell is as in
    /// the model families that come in such files: norms over 32 groups, 8 heads without an added
    /// condition and heads of 64 with it, waves of 256.
    ///
    /// # Errors
    /// `Config` if a tensor is absent or the shapes make no network.
    pub fn infer(part: &Component<'_>) -> Result<Self, DiffusionError> {
        let file = || "the UNet".into();
        Self::inferred(part).map_err(|problem| DiffusionError::Config { file: file(), problem })
    }

    fn inferred(part: &Component<'_>) -> Result<Self, String> {
        let shape = |name: &str| {
            let found = part.shape(name);
            found.ok_or_else(|| format!("has no tensor `{name}`"))
        };
        let dim = |name: &str, axis: usize| {
            let found = shape(name)?.get(axis).copied();
            found.ok_or_else(|| format!("has a tensor `{name}` with too few dimensions"))
        };
        let there = |name: &str| part.shape(name).is_some();
        let count = |limit: usize, name: &dyn Fn(usize) -> String| {
            (0..limit).take_while(|&i| there(&name(i))).count()
        };
        let depth = |place: &str| {
            let block = |i| format!("{place}.transformer_blocks.{i}.attn2.to_k.weight");
            count(DIM_MAX, &block)
        };
        let conv1 = |level, layer| format!("down_blocks.{level}.resnets.{layer}.conv1.weight");
        let levels = count(LEVELS_MAX, &|level| conv1(level, 0));
        let channels: Vec<usize> =
            (0..levels).map(|level| dim(&conv1(level, 0), 0)).collect::<Result<_, _>>()?;
        let depths: Vec<usize> =
            (0..levels).map(|level| depth(&format!("down_blocks.{level}.attentions.0"))).collect();
        let added = there("add_embedding.linear_1.weight")
            .then(|| dim("add_embedding.linear_1.weight", 1))
            .transpose()?
            .map(|input_width| AddedConfig { time_width: 256, input_width });
        let heads = |&channels: &usize| if added.is_some() { channels / 64 } else { 8 };
        let place = (0..levels).find(|&level| depths[level] > 0).map_or_else(
            || "mid_block.attentions.0".to_owned(),
            |level| format!("down_blocks.{level}.attentions.0"),
        );
        Self {
            in_channels: dim("conv_in.weight", 1)?,
            out_channels: dim("conv_out.weight", 0)?,
            layers_per_block: count(DIM_MAX, &|layer| conv1(0, layer)),
            mid_depth: depth("mid_block.attentions.0"),
            heads: channels.iter().map(heads).collect(),
            context_width: dim(&format!("{place}.transformer_blocks.0.attn2.to_k.weight"), 1)?,
            norm_groups: 32,
            norm_epsilon: 1e-5,
            channels,
            depths,
            added,
        }
        .checked()
    }

    /// Refuses dimensions that no layer can have.
    fn checked(self) -> Result<Self, String> {
        let Self { channels, depths, heads, norm_groups, layers_per_block, .. } = &self;
        let levels = channels.len();
        if levels == 0 || levels > LEVELS_MAX || depths.len() != levels || heads.len() != levels {
            return Err(format!("describes {levels} levels whose parts do not match"));
        }
        let single = [self.in_channels, self.out_channels, self.context_width, *layers_per_block];
        let all: Vec<usize> = [&single[..], channels, heads, &[*norm_groups]].concat();
        if let Some(dim) = all.into_iter().find(|&dim| dim == 0 || dim > DIM_MAX) {
            return Err(format!("has a dimension of {dim}"));
        }
        if depths.iter().chain([&self.mid_depth]).any(|&depth| depth > 1024) {
            return Err(format!("has transformers of {depths:?} blocks"));
        }
        for (level, &width) in channels.iter().enumerate() {
            if !width.is_multiple_of(*norm_groups) {
                return Err(format!("has {width} channels, which are not {norm_groups} groups"));
            }
            let attends = depths[level] > 0 || (level + 1 == levels && self.mid_depth > 0);
            if attends && !width.is_multiple_of(heads[level]) {
                return Err(format!("has {width} channels for {} heads", heads[level]));
            }
        }
        // The skips of one level meet the channels of the next on the way up.
        if channels[0] % 2 != 0 {
            return Err(format!("has {} channels, and the time as waves needs pairs", channels[0]));
        }
        match self.added {
            Some(added)
                if added.time_width == 0
                    || added.time_width % 2 != 0
                    || added.time_width > DIM_MAX
                    || added.input_width > DIM_MAX
                    || added.pooled_width() == 0 =>
            {
                Err(format!("has an added condition of {added:?}"))
            }
            _ => Ok(self),
        }
    }
}

/// Fields of `unet/config.json` that change the network, and the only values that are read here.
const KNOWN: [(&str, &[&str]); 24] = [
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("addition_embed_type", &["null", "\"text_time\""]),
    ("attention_type", &["\"default\""]),
    ("center_input_sample", &["false"]),
    ("class_embed_type", &["null"]),
    ("class_embeddings_concat", &["false"]),
    ("conv_in_kernel", &["3"]),
    ("conv_out_kernel", &["3"]),
    ("cross_attention_norm", &["null"]),
    ("downsample_padding", &["1"]),
    ("dual_cross_attention", &["false"]),
    ("encoder_hid_dim", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("flip_sin_to_cos", &["true"]),
    ("freq_shift", &["0"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("num_class_embeds", &["null"]),
    ("only_cross_attention", &["false"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("time_embedding_type", &["\"positional\""]),
    ("time_cond_proj_dim", &["null"]),
];

fn refuse_unknown(config: &Value) -> Result<(), String> {
    for (field, known) in KNOWN {
        let found = config.get(field).map(Value::to_string);
        if let Some(found) = found.filter(|found| !known.contains(&found.as_str())) {
            return Err(format!("has `{field}` {found}, which this build does not know"));
        }
    }
    for field in ["time_embedding_dim", "time_embedding_act_fn", "timestep_post_act"] {
        if config.get(field).is_some_and(|value| !value.is_null()) {
            return Err(format!("has a `{field}`, which this build does not know"));
        }
    }
    Ok(())
}

/// `unet/config.json`.
#[derive(Deserialize)]
struct Json {
    in_channels: usize,
    out_channels: usize,
    block_out_channels: Vec<usize>,
    layers_per_block: OneOrEach,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    #[serde(default = "mid_block")]
    mid_block_type: Option<String>,
    #[serde(default = "one")]
    transformer_layers_per_block: OneOrEach,
    /// The number of heads in spite of its name; the other field came later and is seldom set.
    #[serde(default = "heads")]
    attention_head_dim: OneOrEach,
    num_attention_heads: Option<OneOrEach>,
    cross_attention_dim: OneOrEach,
    #[serde(default = "groups")]
    norm_num_groups: usize,
    #[serde(default = "epsilon")]
    norm_eps: f64,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    reverse_transformer_layers_per_block: Option<Value>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde asks for the field's own type")]
fn mid_block() -> Option<String> {
    Some("UNetMidBlock2DCrossAttn".to_owned())
}

fn one() -> OneOrEach {
    OneOrEach::One(1)
}

fn heads() -> OneOrEach {
    OneOrEach::One(8)
}

fn groups() -> usize {
    32
}

fn epsilon() -> f64 {
    1e-5
}

/// A number for all levels, or one for each.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrEach {
    One(usize),
    Each(Vec<usize>),
}

impl OneOrEach {
    fn each(&self, field: &str, levels: usize) -> Result<Vec<usize>, String> {
        match self {
            Self::One(value) => Ok(vec![*value; levels]),
            Self::Each(values) if values.len() == levels => Ok(values.clone()),
            Self::Each(values) => {
                Err(format!("has {} values of `{field}` for {levels} levels", values.len()))
            }
        }
    }

    /// The one value of a field that may not differ between levels.
    fn single(&self, field: &str) -> Result<usize, String> {
        let Self::Each(values) = self else {
            let Self::One(value) = self else { return Err(format!("has no `{field}`")) };
            return Ok(*value);
        };
        match values.as_slice() {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(*first),
            _ => Err(format!("has levels of different `{field}`")),
        }
    }
}

impl Json {
    fn config(&self) -> Result<UnetConfig, String> {
        let levels = self.block_out_channels.len().min(LEVELS_MAX + 1);
        let kinds = |types: &[String], plain: &str, attending: &str| {
            let kind = |found: &String| match found.as_str() {
                found if found == plain => Ok(false),
                found if found == attending => Ok(true),
                found => Err(format!("has a block `{found}`, which this build does not know")),
            };
            types.iter().map(kind).collect::<Result<Vec<bool>, _>>()
        };
        let down = kinds(&self.down_block_types, "DownBlock2D", "CrossAttnDownBlock2D")?;
        let mut up = kinds(&self.up_block_types, "UpBlock2D", "CrossAttnUpBlock2D")?;
        up.reverse();
        if down != up || down.len() != levels {
            return Err("has blocks on the way up that do not mirror those on the way down".into());
        }
        if self.reverse_transformer_layers_per_block.as_ref().is_some_and(|v| !v.is_null()) {
            return Err(
                "has `reverse_transformer_layers_per_block`, which is not known here".into()
            );
        }
        let depths =
            self.transformer_layers_per_block.each("transformer_layers_per_block", levels)?;
        let mid_depth = match self.mid_block_type.as_deref() {
            Some("UNetMidBlock2DCrossAttn") => depths.last().copied().unwrap_or(0),
            Some("UNetMidBlock2D") => 0,
            other => return Err(format!("has a middle block {other:?}, which is not known here")),
        };
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        let added = match (&self.addition_embed_type, self.addition_time_embed_dim) {
            (None, _) => None,
            (Some(_), Some(time_width)) => {
                let input_width = self
                    .projection_class_embeddings_input_dim
                    .ok_or("has no field `projection_class_embeddings_input_dim`")?;
                // Kept from overflowing in products; the check refuses it.
                let time_width = time_width.min(DIM_MAX + 1);
                Some(AddedConfig { time_width, input_width })
            }
            (Some(_), None) => return Err("has no field `addition_time_embed_dim`".into()),
        };
        Ok(UnetConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block.single("layers_per_block")?,
            depths: down
                .iter()
                .zip(depths)
                .map(|(&attends, n)| if attends { n } else { 0 })
                .collect(),
            mid_depth,
            heads: heads.each("attention_head_dim", levels)?,
            context_width: self.cross_attention_dim.single("cross_attention_dim")?,
            norm_groups: self.norm_num_groups,
            norm_epsilon: self.norm_eps,
            added,
        })
    }
}
