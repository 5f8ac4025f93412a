//! The network's three lists of models (JSON arrays: models, vae, lora), read as they are and made into
//! manifests. What a list does not vouch for with a SHA-256 is told, and left out.

mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use neurino_core::{ImageDefaults, ImageJob, JobKind, ModelId};
use serde::Deserialize;

use crate::catalog::{ModelFile, ModelManifest, Source, is_allowed_url, is_file_name};
use crate::digest::Digest;
use crate::error::{ListKind, ListProblem, StoreError};

pub use take::{LIST_BYTES_MAX, Places, Taken, text_of};

/// Memory beside the weights that a picture of usual size takes at least.
const PICTURE_BYTES: u64 = 1 << 30;
/// Steps and guidance of a model whose list does not say.
const STEPS_USUAL: u32 = 25;
const GUIDANCE_USUAL: f32 = 7.0;
/// Shortest side that a list's setting is taken for; below that no model makes a picture.
const SIDE_MIN_LISTED: u32 = 64;

/// An entry of one of the lists; what is of no use here is passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Listed {
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    file_url: Option<String>,
    #[serde(default)]
    checksum: Option<String>,
    #[serde(default)]
    dtype: Option<String>,
    #[serde(default)]
    vae: Option<String>,
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    default_weight: Option<f32>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    info_url: Option<String>,
    #[serde(default)]
    defaults: Option<Defaults>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Defaults {
    width: Option<u32>,
    height: Option<u32>,
    num_inference_steps: Option<u32>,
    guidance_scale: Option<f32>,
    neg_prompt: Option<String>,
}

/// The three lists.
#[derive(Debug, Clone)]
pub struct Lists {
    /// The names of the models, in the order of their list, each once.
    order: Vec<String>,
    models: Named,
    vaes: Named,
    loras: Named,
}

/// The entries of a list by their names; `None` where a name is there twice and not alike.
type Named = BTreeMap<String, Option<Listed>>;

/// A model of the lists, as far as it can be used.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Everything is known but the sizes of its files, which the lists give roughly:
    /// [`crate::ModelStore::take_lists`] asks for them.
    Usable {
        /// What the list says, as a manifest.
        manifest: Box<ModelManifest>,
        /// Settings that no job may have, and what stands in their place.
        changes: Vec<String>,
    },
    /// It cannot be used.
    Left {
        /// Its name in the list.
        name: String,
        /// Why, and what would help.
        reason: String,
    },
}

impl Lists {
    /// Reads the three lists. An entry that cannot be read spoils its list, as it would on the network.
    ///
    /// # Errors
    /// [`StoreError::BadList`] with the list and the place in it.
    pub fn parse(models: &str, vae: &str, lora: &str) -> Result<Self, StoreError> {
        fn read(list: ListKind, text: &str) -> Result<Vec<Listed>, StoreError> {
            serde_json::from_str(text).map_err(|error| {
                let source = ListProblem::NotJson { problem: error.to_string() };
                StoreError::BadList { list, source }
            })
        }
        let by_name = |list: Vec<Listed>| {
            let mut named = Named::new();
            for entry in list {
                let known = named.entry(entry.name.clone()).or_insert_with(|| Some(entry.clone()));
                if known.as_ref().is_some_and(|known| *known != entry) {
                    *known = None;
                }
            }
            named
        };
        let models = read(ListKind::Models, models)?;
        let mut order: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        order
            .extend(models.iter().map(|e| e.name.clone()).filter(|name| seen.insert(name.clone())));
        Ok(Self {
            order,
            models: by_name(models),
            vaes: by_name(read(ListKind::Autoencoders, vae)?),
            loras: by_name(read(ListKind::Loras, lora)?),
        })
    }

    /// Every model of the lists, in their order.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |name: &String| {
            let listed = self.models.get(name).and_then(Option::as_ref);
            let listed = listed.ok_or_else(|| {
                "the list names it more than once, and not alike; nobody knows which one holds"
                    .to_owned()
            });
            match listed.and_then(|listed| self.manifest(listed)) {
                Ok((manifest, changes)) => Entry::Usable { manifest: Box::new(manifest), changes },
                Err(reason) => Entry::Left { name: name.clone(), reason },
            }
        };
        self.order.iter().map(entry).collect()
    }

    /// The manifest of a model, and what had to be changed for it.
    fn manifest(&self, listed: &Listed) -> Result<(ModelManifest, Vec<String>), String> {
        let (arch, composite) = match listed.kind.as_str() {
            "sd15" => ("sd15", false),
            "sdxl10" => ("sdxl", false),
            "composite15" => ("sd15", true),
            "compositexl" => ("sdxl", true),
            kind if kind.starts_with("llm") => {
                return Err("the lists name no SHA-256 for the files of language models; the \
                            network's signed catalogue has to"
                    .into());
            }
            kind if kind.starts_with("flux") => {
                return Err("FLUX.1 needs files that the lists do not name; the network's signed \
                            catalogue has to"
                    .into());
            }
            kind => return Err(format!("`{kind}` is a kind that this version does not know")),
        };
        let id = ModelId::new(listed.name.clone()).map_err(|error| error.to_string())?;
        let mut files = Vec::new();
        let base = if composite {
            let name =
                listed.base.as_deref().ok_or("it does not say on which model it is based")?;
            part(&self.models, name, "base")?
        } else {
            listed
        };
        files.push(file(base)?);
        let mut parts = format!("base = {}\n", quoted(&files[0].name));
        let mut assembled = composite;
        if let Some(name) = listed.vae.as_deref().or(base.vae.as_deref()) {
            let vae = file(part(&self.vaes, name, "autoencoder")?)?;
            let _ = writeln!(parts, "vae = {}", quoted(&vae.name));
            files.push(vae);
            assembled = true;
        }
        if composite {
            let lora = part(&self.loras, &listed.name, "LoRA")?;
            let weight = lora.default_weight.or(listed.default_weight).unwrap_or(1.0);
            let lora = file(lora)?;
            let name = quoted(&lora.name);
            let _ = writeln!(parts, "\n[[loras]]\nfile = {name}\nscale = {weight:?}");
            files.push(lora);
        }
        if assembled {
            files.push(ModelFile {
                name: "model.toml".into(),
                sha256: Digest::of(parts.as_bytes()),
                size_bytes: parts.len() as u64,
                sources: vec![Source::Inline { text: parts }],
                pieces: None,
            });
        }
        let defaults = listed.defaults.clone().or(base.defaults.clone()).unwrap_or_default();
        let (image, changes) = settings(defaults, if arch == "sdxl" { 1024 } else { 512 });
        let author =
            listed.author.clone().unwrap_or_else(|| "unknown: the list does not say".into());
        let manifest = ModelManifest {
            name: listed.name.clone(),
            summary: match &listed.info_url {
                Some(url) => format!("An image model of the network; more at {url}"),
                None => "An image model of the network.".into(),
            },
            family: arch.into(),
            kind: JobKind::Image,
            arch: arch.into(),
            dtype: listed
                .dtype
                .clone()
                .unwrap_or_else(|| "f16".into())
                .replace("float", "f")
                .replace("fp", "f"),
            context_tokens: 0,
            image: Some(image),
            memory_bytes_min: PICTURE_BYTES,
            licence: "LicenseRef-unknown".into(),
            attribution: author,
            files,
            id,
        };
        let manifest = manifest.checked().map_err(|error| error.to_string())?;
        Ok((manifest, changes))
    }
}

/// The entry that a model is made of.
///
/// - `what`: what it is to the model, for the reason why there is none
fn part<'a>(list: &'a Named, name: &str, what: &str) -> Result<&'a Listed, String> {
    match list.get(name) {
        Some(Some(listed)) => Ok(listed),
        Some(None) => Err(format!("its {what} `{name}` is listed more than once, and not alike")),
        None => Err(format!("its {what} `{name}` is not in the list")),
    }
}

/// A list's settings, brought within what a job may ask for, and what that changed.
///
/// - `side`: pixels of a side where the list does not say
fn settings(listed: Defaults, side: u32) -> (ImageDefaults, Vec<String>) {
    let mut changes = Vec::new();
    let mut within = |what: &str, asked: u32, may: u32| {
        if asked != may {
            changes.push(format!("{what} {asked} becomes {may}"));
        }
        may
    };
    let multiple = ImageJob::SIDE_MULTIPLE;
    let pixels =
        |side: u32| (side / multiple * multiple).clamp(SIDE_MIN_LISTED, ImageJob::SIDE_MAX);
    let (width, height) = (listed.width.unwrap_or(side), listed.height.unwrap_or(side));
    let (width, height) =
        (within("width", width, pixels(width)), within("height", height, pixels(height)));
    let steps = listed.num_inference_steps.unwrap_or(STEPS_USUAL);
    let steps = within("steps", steps, steps.clamp(1, ImageJob::STEPS_LIMIT));
    let asked = listed.guidance_scale.unwrap_or(GUIDANCE_USUAL);
    let guidance = asked.clamp(0.0, ImageJob::GUIDANCE_MAX);
    if !(0.0..=ImageJob::GUIDANCE_MAX).contains(&asked) {
        changes.push(format!("guidance {asked} becomes {guidance}"));
    }
    let negative_prompt = listed.neg_prompt.unwrap_or_default();
    let image = ImageDefaults {
        width,
        height,
        steps,
        guidance,
        negative_prompt,
        side_multiple: multiple,
        sampler: None,
    };
    (image, changes)
}

/// A file as the lists name it, with a size of one byte until its server has told it.
fn file(listed: &Listed) -> Result<ModelFile, String> {
    let name = format!("{}.safetensors", listed.name);
    if !is_file_name(&name) || name.contains('/') {
        return Err(format!("`{name}` is no name for a file"));
    }
    let checksum = listed.checksum.as_deref().unwrap_or_default();
    let sha256 = checksum
        .parse()
        .map_err(|_| format!("the list has no SHA-256 for `{name}`, so nothing could check it"))?;
    let url = listed.file_url.clone().filter(|url| is_allowed_url(url));
    let url = url.ok_or_else(|| format!("the list has no https address for `{name}`"))?;
    Ok(ModelFile { name, sha256, size_bytes: 1, sources: vec![Source::Http { url }], pieces: None })
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const SUM: &str = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";

    fn lists(models: &str) -> Vec<Entry> {
        let vae = format!(
            r#"[{{"name":"vae-ft-mse","type":"vae","file_url":"https://x.org/v","size_mb":335,"checksum":"{SUM}"}}]"#
        );
        let lora = format!(
            r#"[{{"name":"pixels","type":"lora","file_url":"https://x.org/l","checksum":"{SUM}","default_weight":0.8}}]"#
        );
        Lists::parse(&models.replace("SUM", SUM), &vae, &lora).unwrap().entries()
    }

    fn reason(entry: &Entry) -> &str {
        match entry {
            Entry::Left { reason, .. } => reason,
            Entry::Usable { manifest, .. } => panic!("{manifest:?}"),
        }
    }

    fn usable(entry: &Entry) -> (&ModelManifest, &[String]) {
        match entry {
            Entry::Usable { manifest, changes } => (manifest, changes),
            Entry::Left { name, reason } => panic!("{name}: {reason}"),
        }
    }

    #[test]
    fn settings_beyond_what_a_job_may_ask_for_are_changed_and_told() {
        let model = |name: &str, defaults: &str| {
            format!(
                r#"{{"name":"{name}","type":"sd15","file_url":"https://x.org/d","checksum":"SUM","defaults":{defaults}}}"#
            )
        };
        let models = [
            model("slow", r#"{"num_inference_steps":50,"width":512,"height":768}"#),
            model("just", r#"{"num_inference_steps":35}"#),
            model("odd", r#"{"width":4096,"height":513,"guidance_scale":40.5}"#),
        ];
        let found = lists(&format!("[{}]", models.join(",")));
        let image = |at: usize| usable(&found[at]).0.image.clone().unwrap();
        assert_eq!((image(0).steps, image(1).steps), (35, 35));
        assert_eq!(usable(&found[0]).1, ["steps 50 becomes 35"]);
        assert!(usable(&found[1]).1.is_empty());
        assert_eq!((image(2).width, image(2).height), (2048, 512));
        let changes =
            ["width 4096 becomes 2048", "height 513 becomes 512", "guidance 40.5 becomes 30"];
        assert_eq!(usable(&found[2]).1, changes);
    }

    #[test]
    fn bases_autoencoders_and_composites_become_manifests() {
        let found = lists(
            r#"[
            {"name":"Dreamer","type":"sd15","file_url":"https://x.org/d","size_mb":2034,"checksum":"SUM","dtype":"float16",
             "vae":"vae-ft-mse","author":"Ada","defaults":{"width":680,"height":1024,"num_inference_steps":28,
             "guidance_scale":6.5,"neg_prompt":"(worst quality: 1.4)","seed":-1,"max_width":1024}},
            {"name":"Big","type":"sdxl10","file_url":"https://x.org/b","checksum":"SUM","recommend":true},
            {"name":"pixels","type":"compositexl","base":"Big","base_model":"x"}]"#,
        );
        let [(first, _), (big, _), (pixels, _)] = [0, 1, 2].map(|at| usable(&found[at]));
        let names = |manifest: &ModelManifest| {
            manifest.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(first), "Dreamer.safetensors vae-ft-mse.safetensors model.toml");
        assert_eq!((first.arch.as_str(), first.dtype.as_str()), ("sd15", "f16"));
        let image = first.image.as_ref().unwrap();
        assert_eq!((image.width, image.height, image.steps), (680, 1024, 28));
        assert_eq!(first.attribution, "Ada");
        assert_eq!(names(big), "Big.safetensors");
        assert_eq!(names(pixels), "Big.safetensors pixels.safetensors model.toml");
        let Source::Inline { text } = &pixels.files[2].sources[0] else { panic!("{pixels:?}") };
        let parts: toml::Table = text.parse().unwrap();
        assert_eq!(parts["base"].as_str(), Some("Big.safetensors"));
        let lora = &parts["loras"].as_array().unwrap()[0];
        assert_eq!(lora["file"].as_str(), Some("pixels.safetensors"));
        assert!(text.contains("scale = 0.8"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        crate::adopt::write_manifest(folder.path(), pixels).unwrap();
        let written = std::fs::read_to_string(folder.path().join("pixels.toml")).unwrap();
        assert_eq!(ModelManifest::parse("x", &written).unwrap(), *pixels);
    }

    #[test]
    fn what_cannot_be_verified_is_left_out_with_a_reason() {
        let found = lists(
            r#"[
            {"name":"hermes-3-llama3.1-8b","type":"llm8b","size_gb":16.1,"hf_id":"x/y","input_price":1},
            {"name":"flux","type":"flux-dev","file_url":"https://x.org/f","checksum":"SUM"},
            {"name":"a","type":"sd15","file_url":"https://x.org/a"},
            {"name":"b","type":"sd15","file_url":"http://x.org/a","checksum":"SUM"},
            {"name":"../c","type":"sd15","file_url":"https://x.org/a","checksum":"SUM"},
            {"name":"d","type":"composite15","base":"absent"},
            {"name":"e","type":"hologram"}]"#,
        );
        let expect =
            ["language models", "FLUX.1", "no SHA-256", "https", "", "`absent`", "hologram"];
        assert_eq!(found.len(), expect.len());
        for (entry, words) in found.iter().zip(expect) {
            assert!(reason(entry).contains(words), "{}", reason(entry));
        }
        let spoilt = Lists::parse("[{}]", "[]", "[]").unwrap_err().to_string();
        assert!(spoilt.contains("list of models"), "{spoilt}");
    }

    #[test]
    fn of_two_entries_of_a_name_none_is_guessed() {
        let one = r#"{"name":"a","type":"sd15","file_url":"https://x.org/a","checksum":"SUM"}"#;
        let same = lists(&format!("[{one},{one}]"));
        assert_eq!(usable(&same[0]).0.id.as_str(), "a");
        assert_eq!(same.len(), 1, "the same words twice are one entry");
        let other = one.replace("x.org/a", "x.org/other");
        let based = r#"{"name":"pixels","type":"composite15","base":"a"}"#;
        let torn = lists(&format!("[{one},{based},{other}]"));
        assert_eq!(torn.len(), 2);
        assert!(reason(&torn[0]).contains("more than once"), "{}", reason(&torn[0]));
        assert!(reason(&torn[1]).contains("its base `a`"), "{}", reason(&torn[1]));
    }
}
