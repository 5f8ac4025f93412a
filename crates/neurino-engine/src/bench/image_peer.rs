//! Diffusers on this machine, measured in the same rounds as ours, with networks of the same dimensions.

use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};

use neurino_diffusion::clip::{ClipActivation, ClipConfig};
use neurino_diffusion::memory::Dims;
use neurino_diffusion::unet::UnetConfig;
use neurino_diffusion::vae::VaeConfig;
use serde::Serialize;
use serde_json::{Value, json};

use super::image::{Medians, PROMPT_TOKENS, Round};
use super::peer::{Driver, PYTHONS, imports, on_path, read_answer, start_python};

const SCRIPT: &str = include_str!("peer_diffusers.py");

/// The speeds of diffusers: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct ImagePeerBench {
    /// Its version, and torch's.
    pub name: String,
    /// How it keeps the weights.
    pub weights: &'static str,
    /// Reading the prompts.
    pub text_s: f64,
    /// One step of the denoiser, without its scheduler.
    pub step_s: f64,
    /// Decoding.
    pub decode_s: f64,
    /// All of it together.
    pub image_s: f64,
    /// The same with networks that torch compiled, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiled: Option<CompiledBench>,
    /// Why there is nothing compiled, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiled_failure: Option<String>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The speeds of diffusers' networks as torch compiled them; text encoders are not.
#[derive(Debug, Clone, Serialize)]
pub struct CompiledBench {
    /// One step of the denoiser, without its scheduler.
    pub step_s: f64,
    /// Decoding.
    pub decode_s: f64,
    /// All of it together.
    pub image_s: f64,
}

/// Diffusers, running.
pub(super) struct ImagePeer {
    name: String,
    weights: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    rounds: Vec<Round>,
    compiled: Vec<Round>,
    compiled_failure: Option<String>,
    failure: Option<String>,
}

/// Starts diffusers with networks of `dims` for pictures of `size`; the error says why not.
///
/// - `compiled`: whether torch compiles them, too
pub(super) fn start(
    dims: &Dims,
    size: [u32; 2],
    python: Option<&Path>,
    on_cpu: bool,
    compiled: bool,
) -> Result<ImagePeer, String> {
    // The tiny ones fit anywhere.
    let is_real = |width: usize| width >= 1024;
    if matches!(dims, Dims::Flux { t5, .. } if is_real(t5.width)) && on_cpu {
        return Err("diffusers: Flux in f32 takes about 60 GB of memory on a CPU".into());
    }
    let found = python
        .map(Path::to_owned)
        .or_else(|| PYTHONS.iter().find_map(|name| on_path(name)))
        .filter(|python| imports(python, "torch") && imports(python, "diffusers"));
    let Some(python) = found else {
        return Err(
            "diffusers: no Python with the packages torch, diffusers and transformers was \
                    found; install them, or name a Python that has them with --python"
                .into(),
        );
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut told = networks(dims);
    told["width"] = size[0].into();
    told["height"] = size[1].into();
    told["factor"] = dims.vae().factor().into();
    told["tokens"] = PROMPT_TOKENS.into();
    told["threads"] = threads.into();
    told["gpu"] = (!on_cpu).into();
    told["compile"] = compiled.into();
    let (driver, version) = start_python(&python, SCRIPT, &told)?;
    let Driver::Python { child, input, output } = driver else {
        return Err("diffusers: it was not started".into());
    };
    let weights = if on_cpu { "random f32" } else { "random f16" };
    let name = format!("diffusers {version}");
    Ok(ImagePeer {
        name,
        weights,
        child,
        input,
        output,
        rounds: Vec::new(),
        compiled: Vec::new(),
        compiled_failure: None,
        failure: None,
    })
}

impl ImagePeer {
    /// Measures everything once, the denoiser `steps` times; the round counts if `counts`.
    pub(super) fn round(&mut self, steps: u32, counts: bool) {
        if self.failure.is_some() {
            return;
        }
        match self.ask(steps) {
            Ok(answer) => {
                if counts {
                    self.rounds.push(answer.eager);
                    self.compiled.extend(answer.compiled);
                }
                self.compiled_failure = answer.compiled_failure.or(self.compiled_failure.take());
            }
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn ask(&mut self, steps: u32) -> Result<Answer, String> {
        let input = self.input.as_mut().ok_or("it has ended")?;
        writeln!(input, "{steps}").and_then(|()| input.flush()).map_err(|e| e.to_string())?;
        answer(&read_answer(&mut self.output)?)
    }

    pub(super) fn finish(mut self, steps: u32) -> ImagePeerBench {
        drop(self.input.take());
        // It ends with its input; if not, it is not needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let medians = Medians::of(&self.rounds);
        let Medians { text_s, step_s, decode_s } = medians;
        let compiled = (!self.compiled.is_empty()).then(|| {
            let medians = Medians::of(&self.compiled);
            let Medians { step_s, decode_s, .. } = medians;
            CompiledBench { step_s, decode_s, image_s: medians.image_s(steps) }
        });
        ImagePeerBench {
            name: self.name,
            weights: self.weights,
            text_s,
            step_s,
            decode_s,
            image_s: medians.image_s(steps),
            compiled,
            compiled_failure: self.compiled_failure,
            failure: self.failure,
        }
    }
}

/// What a line of the script tells.
#[derive(Debug, PartialEq)]
struct Answer {
    eager: Round,
    compiled: Option<Round>,
    compiled_failure: Option<String>,
}

/// A line of the script: the networks as they are, and compiled ones under `compiled`.
fn answer(line: &Value) -> Result<Answer, String> {
    let compiled = &line["compiled"];
    let failure = compiled["failure"].as_str().map(str::to_owned);
    let has_times = compiled.is_object() && failure.is_none();
    Ok(Answer {
        eager: round(line)?,
        compiled: has_times.then(|| round(compiled)).transpose()?,
        compiled_failure: failure,
    })
}

/// Times of a line of the script as a round.
fn round(answer: &Value) -> Result<Round, String> {
    let seconds = |value: &Value| value.as_f64().filter(|s| *s > 0.0);
    let lacks = || "its answer lacks a time".to_owned();
    let steps = answer["step_s"].as_array().ok_or_else(lacks)?;
    Ok(Round {
        text_s: seconds(&answer["text_s"]).ok_or_else(lacks)?,
        step_s: steps
            .iter()
            .map(|step| seconds(step).ok_or_else(lacks))
            .collect::<Result<_, _>>()?,
        decode_s: seconds(&answer["decode_s"]).ok_or_else(lacks)?,
    })
}

/// The networks under the names of their libraries' arguments.
fn networks(dims: &Dims) -> Value {
    let vae = vae(dims.vae());
    match dims {
        Dims::Sd15 { text, unet: config, .. } => {
            json!({ "texts": [clip(text)], "unet": unet(config), "vae": vae })
        }
        Dims::Sdxl { texts, unet: config, .. } => {
            json!({ "texts": texts.each_ref().map(clip), "unet": unet(config), "vae": vae })
        }
        Dims::Flux { text, t5, transformer, .. } => json!({
            "texts": [clip(text)],
            "t5": {
                "d_model": t5.width,
                "d_kv": t5.head_width,
                "d_ff": t5.mlp_width,
                "num_layers": t5.layers,
                "num_heads": t5.heads,
                "vocab_size": t5.vocab_size,
                "feed_forward_proj": "gated-gelu",
            },
            "flux": {
                "in_channels": transformer.in_channels,
                "num_layers": transformer.num_layers,
                "num_single_layers": transformer.num_single_layers,
                "attention_head_dim": transformer.attention_head_dim,
                "num_attention_heads": transformer.num_attention_heads,
                "joint_attention_dim": transformer.joint_attention_dim,
                "pooled_projection_dim": transformer.pooled_projection_dim,
                "guidance_embeds": transformer.guidance_embeds,
                "axes_dims_rope": transformer.axes_dims_rope,
            },
            "vae": vae,
        }),
    }
}

fn clip(config: &ClipConfig) -> Value {
    json!({
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.positions,
        "projection_dim": config.projection.unwrap_or(config.width),
        "hidden_act": match config.activation {
            ClipActivation::QuickGelu => "quick_gelu",
            ClipActivation::Gelu => "gelu",
        },
    })
}

fn unet(config: &UnetConfig) -> Value {
    let kinds = |plain: &str, attending: &str| -> Vec<String> {
        let kind = |&depth: &usize| if depth > 0 { attending } else { plain }.to_owned();
        config.depths.iter().map(kind).collect()
    };
    let mut up = kinds("UpBlock2D", "CrossAttnUpBlock2D");
    up.reverse();
    let mut value = json!({
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": config.channels,
        "layers_per_block": config.layers_per_block,
        "cross_attention_dim": config.context_width,
        "attention_head_dim": config.heads,
        "norm_num_groups": config.norm_groups,
        "down_block_types": kinds("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": up,
        "transformer_layers_per_block":
            config.depths.iter().map(|depth| *depth.max(&1)).collect::<Vec<_>>(),
    });
    // Without attention in its last level the middle has as many blocks as that would have.
    if let (Some(0), true) = (config.depths.last(), config.mid_depth > 0) {
        let last = config.depths.len() - 1;
        value["transformer_layers_per_block"][last] = config.mid_depth.into();
    }
    if let Some(added) = config.added {
        value["addition_embed_type"] = "text_time".into();
        value["addition_time_embed_dim"] = added.time_width.into();
        value["projection_class_embeddings_input_dim"] = added.input_width.into();
        value["use_linear_projection"] = true.into();
    }
    value
}

fn vae(config: &VaeConfig) -> Value {
    let levels = config.channels.len();
    json!({
        "block_out_channels": config.channels,
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_lines_times_are_understood_and_half_a_line_is_refused() {
        let line = json!({ "text_s": 0.5, "step_s": [1.0, 2.0], "decode_s": 3.0 });
        let expect = Round { text_s: 0.5, step_s: vec![1.0, 2.0], decode_s: 3.0 };
        assert_eq!(round(&line), Ok(expect));
        for missing in ["text_s", "step_s", "decode_s"] {
            let mut less = line.clone();
            less[missing] = Value::Null;
            assert!(round(&less).is_err(), "{missing}");
            let mut with = line.clone();
            with["compiled"] = less;
            assert!(answer(&with).is_err(), "{missing}");
        }
        let mut with = line.clone();
        with["compiled"] = line.clone();
        let both = answer(&with).unwrap();
        assert_eq!((both.compiled.as_ref(), &both.compiled_failure), (Some(&both.eager), &None));
        with["compiled"] = json!({ "failure": "no compiler" });
        let one = answer(&with).unwrap();
        assert_eq!((one.compiled, one.compiled_failure), (None, Some("no compiler".into())));
        assert_eq!(answer(&line).unwrap().compiled, None);
    }

    #[test]
    fn networks_are_told_by_their_librarys_names() {
        let told = networks(&Dims::sd15());
        assert_eq!(told["unet"]["attention_head_dim"], json!([8, 8, 8, 8]));
        assert_eq!(told["unet"]["transformer_layers_per_block"], json!([1, 1, 1, 1]));
        assert_eq!(told["unet"]["up_block_types"][0], json!("UpBlock2D"));
        let told = networks(&Dims::sdxl());
        assert_eq!(told["unet"]["transformer_layers_per_block"], json!([1, 2, 10]));
        assert_eq!(told["texts"][1]["projection_dim"], json!(1280));
        assert!(networks(&Dims::flux())["flux"]["guidance_embeds"] == json!(true));
    }
}
