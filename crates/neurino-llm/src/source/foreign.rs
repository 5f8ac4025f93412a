//! What a file or folder is that is no language model of ours, told from its first bytes and names.
//!
//! People point a program at whatever they have downloaded. Each kind that is met in the wild gets a
//! sentence that says what it is and what to look for instead.

use std::path::{Path, PathBuf};

use neurino_weights::file::WeightFile;
use neurino_weights::{Gguf, Safetensors, WeightsError};

use crate::LlmError;

/// What this build reads.
const OURS: &str = "choose a copy of the model as a GGUF file or as a folder with config.json and safetensors files";
const LANGUAGE_MODEL: &str = "choose a language model";
const AGAIN: &str = "download the model again";

/// What a file is, as a noun phrase, and what to do instead.
type Verdict = (&'static str, &'static str);

/// The error for `path`, which holds no model that could be opened.
pub(super) fn refuse(path: &Path) -> LlmError {
    match path.metadata() {
        Err(source) => LlmError::Unreadable { path: path.to_owned(), source },
        Ok(metadata) if metadata.is_dir() => not_a_model(path, folder(path)),
        Ok(_) => match file(path) {
            Ok(verdict) => not_a_model(path, verdict),
            Err(error) => error,
        },
    }
}

/// A better error than `error` for a folder with `config.json` whose weights could not be opened, if
/// we know what it has instead of them.
pub(super) fn other_weights(folder: &Path, error: LlmError) -> LlmError {
    use WeightsError::{MissingShard, NoWeights};
    if !matches!(error, LlmError::Weights(NoWeights { .. } | MissingShard { .. })) {
        return error;
    }
    let names = names(folder);
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|name| test(name));
    let pickle = |name: &str| {
        name.starts_with("pytorch_model") && ends(name, &[".bin"]) || ends(name, &[".pth", ".pt"])
    };
    let verdict = if any(&is_unfinished) {
        ("an unfinished download", AGAIN)
    } else if any(&pickle) && matches!(error, LlmError::Weights(NoWeights { .. })) {
        ("a model whose weights are PyTorch files (pickle), which could run any program", OURS)
    } else {
        return error;
    };
    not_a_model(folder, Some(verdict))
}

/// The error for a folder inside an image model.
pub(super) fn part_of_image_model(folder: &Path) -> LlmError {
    not_a_model(folder, Some(("a part of an image model in diffusers' layout", LANGUAGE_MODEL)))
}

/// Refuses GGUF files that are not a whole model.
pub(super) fn refuse_parts(gguf: &Gguf) -> Result<(), LlmError> {
    let verdict = if gguf.is_lone_part()? {
        (
            "one part of a GGUF file that was split, under another name",
            "give all parts their own names again (NAME-00001-of-00002.gguf), or choose a copy in one \
             file",
        )
    } else if gguf.text("general.type")? == Some("adapter") {
        ("a LoRA, which changes a model and is none", LANGUAGE_MODEL)
    } else {
        return Ok(());
    };
    Err(not_a_model(gguf.path(), Some(verdict)))
}

/// The only GGUF file in `folder`: the first of its parts, if it was split.
pub(super) fn only_gguf(folder: &Path) -> Option<PathBuf> {
    let names = names(folder);
    let ggufs: Vec<_> = names.iter().filter(|name| ends(name, &[".gguf"])).collect();
    let first: &str = match *ggufs.as_slice() {
        [] => return None,
        [only] => only,
        [one, ..] => {
            let parts = Gguf::parts_of(one)?;
            // Opening tells which one is absent.
            let all = ggufs.iter().all(|name| parts.contains(name));
            return all.then(|| parts.first().map(|first| folder.join(first))).flatten();
        }
    };
    Some(folder.join(first))
}

fn not_a_model(path: &Path, verdict: Option<Verdict>) -> LlmError {
    let path = path.to_owned();
    match verdict {
        Some((found, way_out)) => LlmError::NotALanguageModel { path, found, way_out },
        None => LlmError::NotAModel { path },
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).take(10_000).collect()
}

/// Names that browsers and download tools give to files that are not complete yet.
fn is_unfinished(name: &str) -> bool {
    let ending = [".part", ".partial", ".crdownload", ".incomplete", ".aria2", ".download", ".tmp"];
    ends(name, &ending)
}

/// Whether a file's name ends in one of these, in small or capital letters.
fn ends(name: &str, with: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    with.iter().any(|end| name.ends_with(end))
}

/// A folder without `config.json`.
fn folder(path: &Path) -> Option<Verdict> {
    let names = names(path);
    let has = |name: &str| names.iter().any(|other| other == name);
    let any_ends = |with: &[&str]| names.iter().any(|name| ends(name, with));
    Some(if has("model_index.json") {
        ("an image model in diffusers' layout", LANGUAGE_MODEL)
    } else if has("adapter_config.json") {
        ("a LoRA, which changes a model and is none", LANGUAGE_MODEL)
    } else if names.iter().any(|name| is_unfinished(name)) {
        ("an unfinished download", AGAIN)
    } else if any_ends(&[".gguf"]) {
        ("a folder with several GGUF files", "point to one of them")
    } else if has("params.json") || names.iter().any(|name| name.starts_with("consolidated.")) {
        ("a model in its maker's own layout", OURS)
    } else if any_ends(&[".safetensors"]) {
        ("a folder with weights but without config.json", AGAIN)
    } else if any_ends(&[".bin", ".pth", ".pt", ".ckpt"]) {
        ("a folder with PyTorch files (pickle) but without config.json", OURS)
    } else {
        return None;
    })
}

/// A file that is not GGUF.
fn file(path: &Path) -> Result<Option<Verdict>, LlmError> {
    if path.file_name().is_some_and(|name| is_unfinished(&name.to_string_lossy())) {
        return Ok(Some((
            "an unfinished download",
            "wait for its end or download the model again",
        )));
    }
    let first = WeightFile::open(path)?.first(4096)?;
    if first.get(8) == Some(&b'{') && first[4..8] == [0; 4] {
        // A safetensors file starts with its header's length, which is far below 4 GiB.
        return Ok(Some(safetensors(path)?));
    }
    let text = String::from_utf8_lossy(&first).trim_start().to_ascii_lowercase();
    let contains = |bytes: &[u8]| first.windows(bytes.len()).any(|window| window == bytes);
    let pickle = ("a PyTorch file (pickle), which could run any program when it is opened", OURS);
    Ok(Some(match first.as_slice() {
        [b'P', b'K', 3, 4, ..] if contains(b"data.pkl") || contains(b"/version") => pickle,
        [0x80, 2..=5, ..] => pickle,
        [b'P', b'K', 3, 4, ..]
        | [0x1f, 0x8b, ..]
        | [b'7', b'z', 0xbc, 0xaf, ..]
        | [b'R', b'a', b'r', b'!', ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            ("an archive", "unpack it, then point to the model in it")
        }
        [b'l' | b'f' | b't', b'm' | b'j', b'g', b'g', ..] | [b'a', b'l', b'g', b'g', ..] => {
            ("a file in a format older than GGUF", OURS)
        }
        [0x89, b'H', b'D', b'F', ..] => ("a Keras file (HDF5)", OURS),
        _ if text.starts_with("<!doctype html") || text.starts_with("<html") => (
            "a web page that was saved under a model's name, perhaps one that asks to log in",
            AGAIN,
        ),
        _ if text.starts_with("version https://git-lfs") => (
            "a pointer of Git LFS instead of the file itself",
            "fetch the real file, or download the model again",
        ),
        _ if text.starts_with('{') || text.starts_with('[') => {
            ("a JSON file", "point to the folder that holds the model's files")
        }
        _ => return Ok(None),
    }))
}

/// A safetensors file, by the names of its tensors.
fn safetensors(path: &Path) -> Result<Verdict, LlmError> {
    let weights = Safetensors::open_file(path)?;
    let starts = |prefix: &str| weights.names().any(|name| name.starts_with(prefix));
    let contains = |part: &str| weights.names().any(|name| name.contains(part));
    Ok(if ["lora_", ".lora", "_lora."].into_iter().any(&contains) {
        ("a LoRA, which changes a model and is none", LANGUAGE_MODEL)
    } else if starts("conditioner.embedders.") {
        ("an image model (SDXL)", LANGUAGE_MODEL)
    } else if starts("cond_stage_model.") {
        ("an image model (Stable Diffusion 1 or 2)", LANGUAGE_MODEL)
    } else if contains("double_blocks.") || contains("single_transformer_blocks.") {
        ("an image model (Flux)", LANGUAGE_MODEL)
    } else if starts("model.diffusion_model.") || contains("down_blocks.") {
        ("a part of an image model", LANGUAGE_MODEL)
    } else if starts("first_stage_model.") || starts("decoder.") || starts("encoder.down") {
        ("a VAE, a part of an image model", LANGUAGE_MODEL)
    } else if starts("text_model.") || starts("encoder.block.") {
        ("a text encoder, a part of an image model", LANGUAGE_MODEL)
    } else if starts("model.layers.") || starts("model.embed_tokens.") {
        (
            "a language model's weights without the files that belong to them",
            "point to the folder that holds config.json and all of the model's files",
        )
    } else {
        ("a safetensors file of an unknown kind", OURS)
    })
}
