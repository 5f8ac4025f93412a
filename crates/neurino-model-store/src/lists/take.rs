//! Reads the network's lists from where they lie, and takes in what they vouch for: each manifest whole
//! or not at all, and none where the person stops it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use neurino_core::ModelId;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Entry, Lists};
use crate::adopt::{manifest_name, write_manifest};
use crate::catalog::{ModelManifest, Source, is_allowed_url};
use crate::error::{ListKind, ListProblem, SourceError, StoreError};
use crate::source::http;
use crate::store::{ModelStore, blocking};

/// No list is larger.
pub const LIST_BYTES_MAX: usize = 8 << 20;
/// Servers that are asked for the size of a file at the same time.
const ASKED_AT_ONCE: usize = 4;
/// Letters of a name that a report keeps: a list may hold anything.
const NAME_LETTERS: usize = 100;

/// Where the three lists lie: an `https` address, `http` on this very machine, or a file. An empty place is
/// an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The list of models.
    pub models: String,
    /// The list of autoencoders.
    pub vae: String,
    /// The list of LoRAs.
    pub lora: String,
}

/// What became of the entries of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Models that the catalogue has from now on.
    pub added: Vec<ModelId>,
    /// Models that it had already, with the same files; they stay as they are.
    pub known: Vec<ModelId>,
    /// Settings of added models that no job may have, and what stands in their place.
    pub changed: Vec<(ModelId, String)>,
    /// Entries that cannot be used, and why.
    pub left: Vec<(String, String)>,
}

impl ModelStore {
    /// Reads the network's lists and adds what they vouch for with a SHA-256 to the catalogue. What is known
    /// already stays as it is. Cancelled, nothing is added.
    ///
    /// - `tell`: servers asked for the size of a file, and how many are to be asked
    ///
    /// # Errors
    /// [`StoreError::BadList`], [`StoreError::Away`], [`StoreError::Io`], [`StoreError::Cancelled`].
    pub async fn take_lists(
        &self,
        places: &Places,
        tell: impl Fn(usize, usize),
        cancel: CancellationToken,
    ) -> Result<Taken, StoreError> {
        self.check_there()?;
        let taking = async {
            let read = |list, place: &str| {
                let place = place.trim().to_owned();
                async move {
                    if place.is_empty() { Ok("[]".to_owned()) } else { text_of(list, &place).await }
                }
            };
            let models = read(ListKind::Models, &places.models).await?;
            let vae = read(ListKind::Autoencoders, &places.vae).await?;
            let lora = read(ListKind::Loras, &places.lora).await?;
            let mut taken = Taken::default();
            let wanted = self.wanted(&Lists::parse(&models, &vae, &lora)?, &mut taken);
            let sizes = sizes_of(&wanted, tell).await;
            Ok::<_, StoreError>((taken, wanted, sizes))
        };
        let (mut taken, wanted, sizes) = tokio::select! {
            taking = taking => taking?,
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
        };
        let mut manifests = Vec::new();
        for (manifest, changes) in wanted {
            let id = manifest.id.clone();
            match sized(manifest, &sizes) {
                Ok(manifest) => {
                    taken.changed.extend(changes.into_iter().map(|what| (id.clone(), what)));
                    taken.added.push(id);
                    manifests.push(manifest);
                }
                Err(reason) => taken.left.push((named(id.as_str()), reason)),
            }
        }
        let store = self.clone();
        blocking(move || {
            let folder = store.catalog_folder();
            fs::create_dir_all(&folder)
                .map_err(|error| StoreError::io("create", &folder, error))?;
            for manifest in &manifests {
                write_manifest(&folder, manifest)?;
            }
            store.refresh();
            Ok(())
        })
        .await?;
        info!(added = taken.added.len(), left = taken.left.len(), "the network's lists were read");
        Ok(taken)
    }

    /// Entries whose sizes are to be asked for; what is known or cannot be used goes into `taken`.
    fn wanted(&self, lists: &Lists, taken: &mut Taken) -> Vec<(ModelManifest, Vec<String>)> {
        self.refresh();
        let catalog = self.catalog();
        // Of names that differ in capitals alone, many a drive makes one file.
        let on_drive = |id: &ModelId| manifest_name(id).to_lowercase();
        let mut names: BTreeSet<String> =
            catalog.models().iter().map(|model| on_drive(&model.id)).collect();
        let mut wanted = Vec::new();
        for entry in lists.entries() {
            match entry {
                Entry::Left { name, reason } => taken.left.push((named(&name), reason)),
                Entry::Usable { manifest, changes } => {
                    let id = manifest.id.clone();
                    match catalog.get(&id) {
                        Some(known) if same_files(known, &manifest) => taken.known.push(id),
                        Some(_) => taken.left.push((
                            named(id.as_str()),
                            "a model of this name with other files is known already, and stays"
                                .into(),
                        )),
                        None if !names.insert(on_drive(&id)) => taken.left.push((
                            named(id.as_str()),
                            "another model's name differs from it in capital letters alone".into(),
                        )),
                        None => wanted.push((*manifest, changes)),
                    }
                }
            }
        }
        wanted
    }
}

/// Reads a list, or a signed catalogue, from where it lies.
///
/// # Errors
/// [`StoreError::BadList`].
pub async fn text_of(list: ListKind, place: &str) -> Result<String, StoreError> {
    let bytes_max = list.bytes_max();
    let bad = |source| StoreError::BadList { list, source };
    let text = if is_allowed_url(place) {
        http::text_of(place, bytes_max).await.map_err(|error| match error {
            SourceError::WrongSize { .. } => ListProblem::too_large(bytes_max),
            error => ListProblem::Source(error),
        })
    } else if place.contains("://") {
        Err(ListProblem::NotAllowed)
    } else {
        let path = PathBuf::from(place);
        let reading = tokio::task::spawn_blocking(move || text_of_file(&path, bytes_max));
        reading.await.unwrap_or(Err(ListProblem::NotText))
    };
    // Some editors begin a file with this mark, and no reader of JSON wants it.
    text.map(|text| text.trim_start_matches('\u{feff}').to_owned()).map_err(bad)
}

fn text_of_file(path: &Path, bytes_max: usize) -> Result<String, ListProblem> {
    let failed = |source| ListProblem::Io { path: path.to_owned(), source };
    // A pipe would be waited for without an end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ListProblem::NotAFile { path: path.to_owned() });
    }
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bytes_max as u64 + 1).read_to_string(&mut text).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            ListProblem::NotText
        } else {
            failed(error)
        }
    })?;
    if text.len() > bytes_max { Err(ListProblem::too_large(bytes_max)) } else { Ok(text) }
}

type Sizes = HashMap<String, Result<u64, String>>;

/// Asks the servers for the exact sizes of files, which the lists give in megabytes; each address once.
async fn sizes_of(wanted: &[(ModelManifest, Vec<String>)], tell: impl Fn(usize, usize)) -> Sizes {
    let files = wanted.iter().flat_map(|(manifest, _)| &manifest.files);
    let urls: BTreeSet<String> = files.filter_map(|file| Some(address(file)?.to_owned())).collect();
    let total = urls.len();
    tell(0, total);
    let asking = urls.into_iter().map(|url| async move {
        let size = http::size_of(&url).await.map_err(|error| error.to_string());
        (url, size)
    });
    let mut asking = futures::stream::iter(asking).buffer_unordered(ASKED_AT_ONCE);
    let mut sizes = Sizes::new();
    while let Some((url, size)) = asking.next().await {
        sizes.insert(url, size);
        tell(sizes.len(), total);
    }
    sizes
}

fn address(file: &crate::catalog::ModelFile) -> Option<&str> {
    match file.sources.first() {
        Some(Source::Http { url }) => Some(url),
        _ => None,
    }
}

/// A manifest with the sizes that the servers told, or why it cannot be used.
fn sized(mut manifest: ModelManifest, sizes: &Sizes) -> Result<ModelManifest, String> {
    for file in &mut manifest.files {
        let Some(url) = address(file) else { continue };
        file.size_bytes = match sizes.get(url) {
            Some(Ok(size_bytes)) => *size_bytes,
            Some(Err(error)) => {
                return Err(format!("the size of `{}` is not known: {error}", file.name));
            }
            None => return Err(format!("the size of `{}` is not known", file.name)),
        };
    }
    manifest.memory_bytes_min = manifest.size_bytes().saturating_add(super::PICTURE_BYTES);
    manifest.checked().map_err(|error| error.to_string())
}

/// Whether two manifests mean the same files, whatever their sizes, which a list does not give exactly.
fn same_files(known: &ModelManifest, listed: &ModelManifest) -> bool {
    let files = |manifest: &ModelManifest| -> BTreeSet<(String, String)> {
        let files = manifest.files.iter();
        files.map(|file| (file.name.clone(), file.sha256.to_string())).collect()
    };
    files(known) == files(listed)
}

/// A name as a report shows it.
fn named(name: &str) -> String {
    let mut letters = name.chars();
    let short: String = letters.by_ref().take(NAME_LETTERS).collect();
    if letters.next().is_some() { format!("{short}…") } else { short }
}
