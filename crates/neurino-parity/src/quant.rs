//! `quant/units.*`: single quantised matrices and the weights that they stand for.

use std::path::Path;

use neurino_weights::WeightsError;
use neurino_weights::gptq::{GptqConfig, GptqParts};
use neurino_weights::hqq::HqqMatrix;
use neurino_weights::nf4::Nf4Matrix;
use serde::Deserialize;
use serde_json::json;

use crate::case::{Comparison, Report};
use crate::reference::{Tensors, json as read_json};

/// Largest difference of a weight, relative to the largest of its row.
const LIMIT: f64 = 1e-6;

#[derive(Deserialize)]
struct Unit {
    name: String,
    kind: String,
    shape: [usize; 2],
    bits: Option<u32>,
    group_size: Option<i64>,
    checkpoint_format: Option<String>,
}

pub(crate) fn run(folder: &Path, report: &mut Report<'_>) {
    let (units, tensors) = (folder.join("units.json"), folder.join("units.safetensors"));
    if !units.is_file() || !tensors.is_file() {
        return;
    }
    let (units, tensors) = match (read_json::<Vec<Unit>>(&units), Tensors::open(&tensors)) {
        (Ok(units), Ok(tensors)) => (units, tensors),
        (Err(error), _) | (_, Err(error)) => return report.failed("quant/units", &error),
    };
    for unit in units {
        let name = format!("quant/{}", unit.name);
        let found = match unit.kind.as_str() {
            "nf4" => nf4(&tensors, &unit),
            "hqq" => HqqMatrix::read(tensors.file(), &unit.name).map(|matrix| matrix.to_f32()),
            "gptq" => gptq(&tensors, &unit, folder),
            other => {
                report.skipped(&name, &format!("this build does not know the kind `{other}`"));
                continue;
            }
        };
        match (found, tensors.floats(&format!("{}.dequantized", unit.name))) {
            (Ok(found), Ok(expect)) => {
                let width = unit.shape[1];
                report.close(&name, &Comparison::of_rows(&found, &expect, width, LIMIT));
            }
            (Err(error), _) => report.failed(&name, &error),
            (_, Err(error)) => report.failed(&name, &error),
        }
    }
}

fn nf4(tensors: &Tensors, unit: &Unit) -> Result<Vec<f32>, WeightsError> {
    Ok(Nf4Matrix::read(tensors.file(), &format!("{}.weight", unit.name))?.to_f32())
}

fn gptq(tensors: &Tensors, unit: &Unit, folder: &Path) -> Result<Vec<f32>, WeightsError> {
    let (bits, group_size) = (unit.bits.unwrap_or(4), unit.group_size.unwrap_or(-1));
    let format = &unit.checkpoint_format;
    let json = json!({ "bits": bits, "group_size": group_size, "checkpoint_format": format });
    let config = GptqConfig::from_json(&folder.join("units.json"), json.to_string().as_bytes())?;
    let file = tensors.file();
    let Some(parts) = GptqParts::find(&unit.name, |part| file.stored(part).cloned())? else {
        let (file, tensor) = (file.path().to_owned(), format!("{}.qweight", unit.name));
        return Err(WeightsError::TensorAbsent { file, tensor });
    };
    let read = parts.try_map(neurino_weights::StoredTensor::read)?;
    let views = read.try_map(|part| Ok::<_, WeightsError>(part.view()))?;
    let weights = parts.weights(config, &views)?;
    // As kernels take it, if they can: the sorted form has to stand for the same weights.
    Ok(match weights.repack() {
        Some(matrix) => matrix.to_f32(),
        None => weights.to_f32(),
    })
}
