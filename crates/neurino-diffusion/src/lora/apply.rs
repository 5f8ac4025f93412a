//! From files to networks: what of a file fits, and its updates in their layers.
//!
//! As in diffusers, updates of layers that a model does not have are left out, with a warning; a file of
//! which nothing fits was made for another model.

use std::collections::HashMap;
use std::sync::Arc;

use super::update::{self, LayerShape, LayerUpdate};
use super::{Lora, LoraError, LowRankLayers, Part, Update, aliases, listed};

/// LoRAs, each with its scale.
type Scaled = [(Arc<Lora>, f32)];

/// The layers of a network, and their names in files of all trainers.
struct Index {
    layers: Vec<(String, LayerShape)>,
    by_name: HashMap<String, Vec<(usize, aliases::Rows)>>,
}

impl Index {
    fn of(network: &mut dyn LowRankLayers) -> Self {
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
        Self { layers, by_name }
    }

    /// The layers of an update, each with its rows; none if the network has no such layer.
    fn fitting(
        &self,
        lora: &Lora,
        update: &Update,
    ) -> Result<&[(usize, aliases::Rows)], LoraError> {
        let found = self.by_name.get(&update.layer).map_or([].as_slice(), Vec::as_slice);
        for &(i, rows) in found {
            let (path, shape) = &self.layers[i];
            if !update::fits(update, shape, rows) {
                return Err(LoraError::WrongShape {
                    file: lora.path.clone(),
                    name: update.name.clone(),
                    found: format!("{:?} by {:?}", update.up.shape(), update.down.shape()),
                    expected: format!("{shape} ({path})"),
                });
            }
        }
        Ok(found)
    }
}

/// Whether all of `loras` fit a model of these `networks`, by shapes alone: nothing is read, and
/// nothing is put on a device. What is left out of a file is told in the log.
///
/// # Errors
/// `NoSuchLayer` if nothing of a file fits, `WrongShape` if a layer has another size.
pub fn check_fit(
    networks: &mut [(Part, &mut dyn LowRankLayers)],
    loras: &Scaled,
) -> Result<(), LoraError> {
    let indices: Vec<_> =
        networks.iter_mut().map(|(part, network)| (*part, Index::of(*network))).collect();
    for (lora, _) in loras {
        let mut strange = Vec::new();
        for update in &lora.updates {
            let index = indices.iter().find(|(part, _)| *part == update.part);
            let fits = match index {
                Some((_, index)) => !index.fitting(lora, update)?.is_empty(),
                None => false,
            };
            if !fits {
                strange.push(update.name.as_str());
            }
        }
        if strange.len() == lora.updates.len() {
            return Err(lora.fits_nothing(&strange));
        }
        if !strange.is_empty() {
            tracing::warn!(
                file = %lora.path.display(),
                left_out = strange.len(),
                of = lora.updates.len(),
                layers = listed(&strange),
                "some updates of a LoRA fit no layer of the model and are left out"
            );
        }
    }
    Ok(())
}

/// Updates for all layers of a network, on its device.
pub(crate) struct PreparedLoras(Vec<Vec<LayerUpdate>>);

/// Makes the updates of `part` in `loras` for `network`, which keeps those it has.
///
/// # Errors
/// `WrongShape`; `Weights` if a file changed since it was opened.
pub(crate) fn prepare_loras(
    network: &mut dyn LowRankLayers,
    part: Part,
    loras: &Scaled,
) -> Result<PreparedLoras, LoraError> {
    let index = Index::of(network);
    let placement = network.placement().clone();
    let mut updates: Vec<Vec<LayerUpdate>> = index.layers.iter().map(|_| Vec::new()).collect();
    // Shapes first: what does not fit is found before anything is on the device.
    let mut fitting = Vec::new();
    for (lora, scale) in loras {
        for update in lora.updates.iter().filter(|update| update.part == part) {
            fitting.push((update, *scale, index.fitting(lora, update)?));
        }
    }
    for (update, scale, fitting) in fitting {
        if !fitting.is_empty() {
            let factors = update::read(update)?;
            for &(i, rows) in fitting {
                let shape = &index.layers[i].1;
                let made = factors.for_layer(shape, rows, update.factor * scale, &placement);
                updates[i].extend(made);
            }
        }
    }
    Ok(PreparedLoras(updates))
}

impl PreparedLoras {
    /// Makes them the updates of the network that they were prepared for, in place of those it had.
    pub(crate) fn set(self, network: &mut dyn LowRankLayers) {
        let mut updates = self.0.into_iter();
        network.low_rank_layers(&mut |_, layer| {
            update::set(layer, updates.next().unwrap_or_default());
        });
    }
}

/// Makes `loras`, each with its scale, the updates of `network`, in place of those it had; none
/// restores the network. Nothing changes if it fails; updates of layers that the network does not have
/// are left out (see [`check_fit`]). Text encoders of the reference's pipelines of Stable Diffusion take
/// the scale 1, whatever the UNet's is.
///
/// - `part`: which network of a pipeline it is
///
/// # Errors
/// `WrongShape`; `Weights` if a file changed since it was opened.
pub fn set_loras(
    network: &mut dyn LowRankLayers,
    part: Part,
    loras: &Scaled,
) -> Result<(), LoraError> {
    prepare_loras(network, part, loras)?.set(network);
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
