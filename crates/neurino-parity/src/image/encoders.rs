//! `clip/`: text encoders, the syntax of weighted prompts, and how these are cut into chunks.

use std::path::Path;

use neurino_diffusion::checkpoint::folder::FolderTensors;
use neurino_diffusion::checkpoint::{Component, Loading, Precision};
use neurino_diffusion::clip::{ClipConfig, ClipTextEncoder, ClipTokenizer};
use neurino_diffusion::prompt::{Chunk, Sd15Prompt, SdxlPrompt, Syntax, parse};
use neurino_nn::device::download;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{AnyError, NETWORK_LIMIT, whole};
use crate::Options;
use crate::case::Report;
use crate::language::same_ids;
use crate::reference::{Tensors, folders, json};

/// Tokens of a padded prompt.
const LENGTH: usize = 77;

/// A prompt taken apart: texts with their weights.
type Parsed = Vec<(String, f64)>;
/// A prompt and a negative prompt, each as chunks of tokens with their weights.
type Chunks = Vec<Vec<(Vec<u32>, Vec<f64>)>>;

/// An entry of `lpw.json`.
#[derive(Deserialize)]
struct Weighted {
    text: String,
    sd15: Parsed,
    sdxl: Parsed,
}

/// An entry of `chunks.json`.
#[derive(Deserialize)]
struct Cut {
    prompt: String,
    negative: String,
    sd15: Chunks,
    sdxl: Chunks,
}

pub(super) fn run(folder: &Path, options: &Options, report: &mut Report<'_>) {
    if !folder.is_dir() {
        return;
    }
    for (number, case) in cases::<Weighted>(folder, "lpw.json", report).iter().enumerate() {
        for (name, syntax, expect) in
            [("sd15", Syntax::Sd15, &case.sd15), ("sdxl", Syntax::Sdxl, &case.sdxl)]
        {
            let parts = parse(&case.text, syntax).into_iter();
            let found: Parsed = parts.map(|part| (part.text, part.weight)).collect();
            let equal = if found == *expect {
                Ok(found.len())
            } else {
                Err(format!("{found:?} instead of {expect:?}"))
            };
            report.equal(&format!("clip/lpw {number} {name}"), equal);
        }
    }
    let vocabulary = folder.join("tokenizer");
    let tokenizer = match ClipTokenizer::open(&vocabulary) {
        Ok(tokenizer) => tokenizer,
        Err(_) if !vocabulary.is_dir() => return,
        Err(error) => return report.failed("clip/tokenizer", &error),
    };
    for (number, case) in cases::<Cut>(folder, "chunks.json", report).iter().enumerate() {
        report.equal(&format!("clip/chunks {number} sd15"), cut_sd15(&tokenizer, case));
        report.equal(&format!("clip/chunks {number} sdxl"), cut_sdxl(&tokenizer, case));
    }
    let prompts = cases::<String>(folder, "prompts.json", report);
    for name in folders(folder) {
        let encoder = folder.join(&name);
        if !encoder.join("config.json").is_file()
            || !encoder.join("reference.safetensors").is_file()
        {
            continue;
        }
        let case = format!("clip/{name}");
        if let Err(error) = encode(&encoder, &case, &tokenizer, &prompts, options, report) {
            report.failed(&case, error.as_ref());
        }
    }
}

/// The entries of a file; none if it is not there or was reported as unreadable.
fn cases<T: DeserializeOwned>(folder: &Path, name: &str, report: &mut Report<'_>) -> Vec<T> {
    let path = folder.join(name);
    if !path.is_file() {
        return Vec::new();
    }
    json(&path).unwrap_or_else(|error| {
        report.failed(&format!("clip/{name}"), &error);
        Vec::new()
    })
}

fn cut_sd15(tokenizer: &ClipTokenizer, case: &Cut) -> Result<usize, String> {
    let found = Sd15Prompt::new(tokenizer, &case.prompt, Some(&case.negative))
        .map_err(|error| error.to_string())?;
    same_chunks(&[found.prompt, found.negative.unwrap_or_default()], &case.sd15)
}

fn cut_sdxl(tokenizer: &ClipTokenizer, case: &Cut) -> Result<usize, String> {
    let found = SdxlPrompt::new([tokenizer, tokenizer], &case.prompt, &case.negative)
        .map_err(|error| error.to_string())?;
    same_chunks(&found.first, &case.sdxl)
}

fn same_chunks(found: &[Vec<Chunk>], expect: &Chunks) -> Result<usize, String> {
    let sizes = |sides: Vec<usize>| format!("{sides:?} chunks");
    let (ours, theirs) = (found.iter().map(Vec::len), expect.iter().map(Vec::len));
    let (ours, theirs): (Vec<usize>, Vec<usize>) = (ours.collect(), theirs.collect());
    if ours != theirs {
        return Err(format!("{} instead of {}", sizes(ours), sizes(theirs)));
    }
    let mut count = 0;
    for (found, (ids, weights)) in found.iter().flatten().zip(expect.iter().flatten()) {
        count += same_ids(&found.ids, ids)?;
        if found.weights != *weights {
            return Err(format!("weights {:?} instead of {weights:?}", found.weights));
        }
    }
    Ok(count)
}

/// Runs an encoder on the prompts of its reference.
fn encode(
    folder: &Path,
    case: &str,
    tokenizer: &ClipTokenizer,
    prompts: &[String],
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(&folder.join("reference.safetensors"))?;
    let config = ClipConfig::open(&folder.join("config.json"))?;
    let weights = FolderTensors::open(folder)?;
    let loading = Loading::quiet(&options.device, Precision::Full);
    let encoder = ClipTextEncoder::load(&Component::new(&weights, &loading), &config)?;
    let mut number = 0;
    while tensors.has(&format!("p{number}.ids")) {
        let name = |part: &str| format!("p{number}.{part}");
        let ids = tensors.ids(&name("ids"))?;
        if let Some(prompt) = prompts.get(number) {
            let found = tokenizer.sequence(prompt, LENGTH)?;
            report.equal(&format!("{case} {}", name("tokens")), same_ids(&found, &ids));
        }
        let states = encoder.encode(&[ids])?;
        let parts = [
            ("last_hidden_state", download(states.last_hidden)?),
            ("penultimate", download(states.penultimate)?),
            ("pooled", download(states.pooled)?),
        ];
        for (part, found) in parts {
            if tensors.has(&name(part)) {
                let comparison = whole(&found, &tensors, &name(part), NETWORK_LIMIT)?;
                report.close(&format!("{case} {}", name(part)), &comparison);
            }
        }
        number += 1;
    }
    Ok(())
}
