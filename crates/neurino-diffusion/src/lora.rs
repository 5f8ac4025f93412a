//! Updates of low rank (LoRA) from files, applied to layers while the weights stay.
//!
//! Reading order: this file; `keys`, the names in files of all trainers; `scale`, what peft says of an
//! update's strength; `aliases`, the names of a layer; `update`, the factors for one layer; [`layer`],
//! what a network shows of itself; `apply`, from files to networks.
//!
//! Source: Hu et al. 2021: a layer's weights become `W + scale * (alpha / rank) * up down`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use neurino_weights::{Safetensors, StoredTensor};

mod aliases;
mod apply;
mod error;
mod keys;
mod layer;
mod scale;
mod update;

pub(crate) use apply::prepare_loras;
pub use apply::{check_fit, set_loras};
pub use error::LoraError;
pub(crate) use layer::{HeldUpdates, LowRankPart};
pub use layer::{Layer, LowRankLayers, Placement};

use keys::Role;
use scale::PeftScale;

/// Names that a message lists.
const NAMES_SHOWN: usize = 4;

/// A network of a pipeline that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The UNet or transformer.
    Denoiser,
    /// The (first) text encoder.
    TextEncoder,
    /// The second text encoder, where that is CLIP.
    TextEncoder2,
    /// Flux's T5. Files name it as the second text encoder, or as the third, which it is to SD 3.
    T5,
}

/// A LoRA's file: where its updates lie. They are read when they are applied.
#[derive(Debug)]
pub struct Lora {
    path: PathBuf,
    updates: Vec<Update>,
}

/// The update of one layer (or of several, if they are one layer elsewhere).
#[derive(Debug)]
struct Update {
    part: Part,
    /// The layer's path with underscores for dots, by the file's own naming.
    layer: String,
    /// The file's name.
    name: String,
    down: StoredTensor,
    up: StoredTensor,
    /// Alpha over rank.
    factor: f32,
}

/// The tensors of an update while the file is listed.
#[derive(Default)]
struct Found<'a> {
    name: &'a str,
    /// Whether peft alone knows how strong the update is.
    of_peft: bool,
    down: Option<&'a StoredTensor>,
    up: Option<&'a StoredTensor>,
    alpha: Option<&'a StoredTensor>,
}

impl Lora {
    /// Opens a LoRA in the forms of kohya, diffusers (old and new) and Flux's own names; reads its
    /// header and the scales.
    ///
    /// # Errors
    /// `Weights` if the file cannot be read, `Unsupported` if it holds something else, updates of
    /// another kind or such whose strength is nowhere told, `Damaged` if tensors are absent or do not
    /// go together.
    pub fn open(path: &Path) -> Result<Self, LoraError> {
        let file = Safetensors::open_file(path)?;
        let mut found = BTreeMap::<(Part, String), Found<'_>>::new();
        for tensor in file.tensors() {
            let key = keys::parse(tensor.name())
                .ok_or_else(|| Self::unsupported(path, &file, tensor.name()))?;
            let entry = found.entry((key.part, key.layer)).or_default();
            let slot = match key.role {
                Role::Down => &mut entry.down,
                Role::Up => &mut entry.up,
                Role::Alpha => &mut entry.alpha,
            };
            if slot.replace(tensor).is_some() {
                let problem = format!("it has two updates for the layer of `{}`", tensor.name());
                return Err(LoraError::Damaged { file: path.to_owned(), problem });
            }
            (entry.name, entry.of_peft) = (key.base, key.of_peft);
        }
        if found.is_empty() {
            let found = "it is empty".to_owned();
            return Err(LoraError::Unsupported { file: path.to_owned(), found });
        }
        let scale = PeftScale::read(path, &file)?;
        let update = |((part, layer), found): ((Part, String), Found<'_>)| {
            Update::new(path, part, layer, &found, scale.as_ref())
        };
        let updates = found.into_iter().map(update).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), updates })
    }

    /// What `name`, which is no tensor of an update of low rank, tells about the file.
    fn unsupported(path: &Path, file: &Safetensors, name: &str) -> LoraError {
        let kinds = [
            ("lora_mid", "it has updates with a third factor (`lora_mid`)"),
            ("dora_scale", "it is a DoRA"),
            ("lora_magnitude_vector", "it is a DoRA"),
            ("hada_w", "it is a LoHa"),
            ("lokr_w", "it is a LoKr"),
            ("lora_B.bias", "it has updates of biases"),
        ];
        let any = |part: &str| file.names().any(|name| name.contains(part));
        let known = kinds.iter().find(|(part, _)| any(part)).map(|(_, found)| (*found).to_owned());
        let found = known.unwrap_or_else(|| format!("it has a tensor `{name}`"));
        LoraError::Unsupported { file: path.to_owned(), found }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it changes `part`.
    pub fn changes(&self, part: Part) -> bool {
        self.updates.iter().any(|update| update.part == part)
    }

    /// The layers that it changes and the ranks of their updates, in words that are the same for files which
    /// are computed with alike.
    pub(crate) fn layout(&self) -> String {
        let one = |update: &Update| {
            let rank = update.down.shape().first();
            format!("{:?} {} {}", update.part, update.layer, rank.copied().unwrap_or(0))
        };
        self.updates.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Memory of its updates of `parts` on a device, in numbers: where a file keeps several layers in
    /// one update, each of them has the first factor for itself.
    pub fn numbers(&self, parts: &[Part]) -> u64 {
        let count = |tensor: &StoredTensor| tensor.shape().iter().product::<usize>() as u64;
        let ours = self.updates.iter().filter(|update| parts.contains(&update.part));
        ours.map(|update| {
            let copies = aliases::layers_in(&update.layer) as u64;
            count(&update.up) + copies * count(&update.down)
        })
        .sum()
    }

    /// Refuses a LoRA of which nothing changes any of `parts`.
    ///
    /// # Errors
    /// `NoSuchLayer`.
    pub fn check_parts(&self, parts: &[Part]) -> Result<(), LoraError> {
        if self.updates.iter().any(|update| parts.contains(&update.part)) {
            return Ok(());
        }
        let names: Vec<&str> = self.updates.iter().map(|update| update.name.as_str()).collect();
        Err(self.fits_nothing(&names))
    }

    fn fits_nothing(&self, strange: &[&str]) -> LoraError {
        let (file, count, total) = (self.path.clone(), strange.len(), self.updates.len());
        LoraError::NoSuchLayer { file, count, total, names: listed(strange) }
    }
}

/// The first of some names.
fn listed(names: &[&str]) -> String {
    let mut listed = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN {
        listed.push_str(", ...");
    }
    listed
}

impl Update {
    fn new(
        path: &Path,
        part: Part,
        layer: String,
        found: &Found<'_>,
        scale: Option<&PeftScale>,
    ) -> Result<Self, LoraError> {
        let Found { name, of_peft, down, up, alpha } = *found;
        let damaged = |problem: String| LoraError::Damaged { file: path.to_owned(), problem };
        let (Some(down), Some(up)) = (down, up) else {
            return Err(damaged(format!("its update `{name}` has not both factors")));
        };
        let rank = match (down.shape(), up.shape()) {
            (&[rank, _], &[_, same]) | (&[rank, _, _, _], &[_, same, 1, 1])
                if rank == same && rank > 0 =>
            {
                rank
            }
            (down, up) => {
                let problem = format!("factors of `{name}` are {down:?} and {up:?}");
                return Err(damaged(problem));
            }
        };
        let factor = match (alpha, scale) {
            (Some(alpha), _) => {
                let number = scale::number(alpha)?.filter(|alpha| alpha.is_finite());
                number.ok_or_else(|| damaged(format!("`{name}.alpha` is no number")))? / rank as f64
            }
            (None, Some(scale)) => scale.factor(name, rank),
            (None, None) if of_peft => {
                return Err(LoraError::Unsupported {
                    file: path.to_owned(),
                    found:
                        "it is a file of peft without its `adapter_config.json`, which says how \
                            strong the updates are: put that file beside it"
                            .to_owned(),
                });
            }
            (None, None) => 1.0,
        };
        Ok(Self {
            part,
            layer,
            name: name.to_owned(),
            down: down.clone(),
            up: up.clone(),
            factor: factor as f32,
        })
    }
}
