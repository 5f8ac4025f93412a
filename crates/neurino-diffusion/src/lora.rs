//! Updates of low rank (LoRA) from files, applied to layers while the weights stay.
//!
//! Reading order: this file; `keys`, the names in files of all trainers; `aliases`, the names of a
//! layer; `update`, the factors for one layer; [`layer`], what a network shows of itself.
//!
//! Source: Hu et al. 2021: a layer's weights become `W + scale * (alpha / rank) * up down`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_weights::{Safetensors, StoredTensor};

mod aliases;
mod error;
mod keys;
mod layer;
mod update;

pub use error::LoraError;
pub(crate) use layer::{HeldUpdates, LowRankPart};
pub use layer::{Layer, LowRankLayers, Placement};

use keys::Role;
use update::{LayerShape, LayerUpdate};

/// Names that a message lists.
const NAMES_SHOWN: usize = 4;

/// A network of a pipeline that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The UNet or transformer.
    Denoiser,
    /// The (first) text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
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
    down: Option<&'a StoredTensor>,
    up: Option<&'a StoredTensor>,
    alpha: Option<&'a StoredTensor>,
}

impl Lora {
    /// Opens a LoRA in the forms of kohya, diffusers (old and new) and Flux's own names; reads its
    /// header and the scales.
    ///
    /// # Errors
    /// `Weights` if the file cannot be read, `Unsupported` if it holds something else or updates of
    /// another kind, `Damaged` if tensors are absent or do not go together.
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
            entry.name = key.base;
        }
        if found.is_empty() {
            let found = "it is empty".to_owned();
            return Err(LoraError::Unsupported { file: path.to_owned(), found });
        }
        let update = |((part, layer), found): ((Part, String), Found<'_>)| {
            Update::new(path, part, layer, &found)
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

    /// Refuses a LoRA that changes networks other than `parts`.
    ///
    /// # Errors
    /// `NoSuchLayer`.
    pub fn check_parts(&self, parts: &[Part]) -> Result<(), LoraError> {
        let strange = self.updates.iter().filter(|update| !parts.contains(&update.part));
        let names: Vec<&str> = strange.map(|update| update.name.as_str()).collect();
        self.fit_or(&names, self.updates.len())
    }

    fn fit_or(&self, strange: &[&str], total: usize) -> Result<(), LoraError> {
        if strange.is_empty() {
            return Ok(());
        }
        let mut names = strange.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        if strange.len() > NAMES_SHOWN {
            names.push_str(", ...");
        }
        let (file, count) = (self.path.clone(), strange.len());
        Err(LoraError::NoSuchLayer { file, count, total, names })
    }
}

impl Update {
    fn new(path: &Path, part: Part, layer: String, found: &Found<'_>) -> Result<Self, LoraError> {
        let Found { name, down, up, alpha } = *found;
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
        let alpha = alpha.map_or(Ok(rank as f32), |tensor| match tensor.size_bytes() {
            0..=8 => match tensor.read()?.to_f32()?.as_slice() {
                &[alpha] if alpha.is_finite() => Ok(alpha),
                _ => Err(damaged(format!("`{name}.alpha` is no number"))),
            },
            _ => Err(damaged(format!("`{name}.alpha` is no number"))),
        })?;
        Ok(Self {
            part,
            layer,
            name: name.to_owned(),
            down: down.clone(),
            up: up.clone(),
            factor: alpha / rank as f32,
        })
    }
}

/// Makes `loras`, each with its scale, the updates of `network`, in place of those it had; none
/// restores the network. Nothing changes if it fails. Text encoders of the reference's pipelines of
/// Stable Diffusion take the scale 1, whatever the UNet's is.
///
/// - `part`: which network of a pipeline it is
///
/// # Errors
/// `NoSuchLayer`, `WrongShape`; `Weights` if a file changed since it was opened.
pub fn set_loras(
    network: &mut (impl LowRankLayers + ?Sized),
    part: Part,
    loras: &[(Arc<Lora>, f32)],
) -> Result<(), LoraError> {
    let mut layers: Vec<(String, LayerShape)> = Vec::new();
    network.low_rank_layers(&mut |path, layer| {
        layers.push((path.to_owned(), LayerShape::of(&layer)));
    });
    let layers_per_block = layers_per_block(layers.iter().map(|(path, _)| path.as_str()));
    let mut by_name = HashMap::<String, Vec<(usize, aliases::Rows)>>::new();
    for (i, (path, _)) in layers.iter().enumerate() {
        for (name, rows) in aliases::of(path, layers_per_block) {
            by_name.entry(name).or_default().push((i, rows));
        }
    }
    let placement = network.placement().clone();
    let mut updates: Vec<Vec<LayerUpdate>> = layers.iter().map(|_| Vec::new()).collect();
    for (lora, scale) in loras {
        let ours: Vec<&Update> = lora.updates.iter().filter(|u| u.part == part).collect();
        let strange = ours.iter().filter(|update| !by_name.contains_key(&update.layer));
        let names: Vec<&str> = strange.map(|update| update.name.as_str()).collect();
        lora.fit_or(&names, ours.len())?;
        for update in ours {
            let factors = update::read(update)?;
            for &(i, rows) in by_name.get(&update.layer).into_iter().flatten() {
                let made = factors.for_layer(&layers[i].1, rows, update.factor * scale, &placement);
                let made = made.map_err(|found| LoraError::WrongShape {
                    file: lora.path.clone(),
                    name: update.name.clone(),
                    found,
                    expected: format!("{} ({})", layers[i].1, layers[i].0),
                })?;
                updates[i].push(made);
            }
        }
    }
    let mut updates = updates.into_iter();
    network.low_rank_layers(&mut |_, layer| {
        update::set(layer, updates.next().unwrap_or_default());
    });
    Ok(())
}

/// How many resnets a level of the UNet with these layers has; 0 for other networks.
fn layers_per_block<'a>(paths: impl Iterator<Item = &'a str>) -> usize {
    paths
        .filter_map(|path| path.strip_prefix("down_blocks.0.resnets.")?.split_once('.'))
        .filter_map(|(number, _)| number.parse::<usize>().ok())
        .max()
        .map_or(0, |last| last + 1)
}
