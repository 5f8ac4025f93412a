//! GPTQ: an arbitrary description and arbitrary tensors are refused with an error or unpacked; never a
//! panic. The first two bytes are the length of the description, the rest is a safetensors file.
#![no_main]

use std::io::Write as _;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use neurino_weights::gptq::{GptqConfig, GptqParts};
use neurino_weights::{Safetensors, StoredTensor, WeightsError};

fn unpack(weights: &Safetensors, name: &str, config: GptqConfig) -> Result<(), WeightsError> {
    let find = |part: &str| weights.stored(part).cloned();
    let Some(parts) = GptqParts::find(name, find)? else { return Ok(()) };
    let shape = parts.shape(config)?;
    let data = parts.try_map(StoredTensor::read)?;
    let views = data.try_map(|part| Ok::<_, WeightsError>(part.view()))?;
    let stored = parts.weights(config, &views)?;
    let values = stored.to_f32();
    assert_eq!(values.len(), shape.out_features * shape.in_features);
    if let Some(matrix) = stored.repack() {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&matrix.to_f32()), bits(&values));
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (description, bytes) = rest.split_at(length);
    let Ok(config) = GptqConfig::from_json(Path::new("config.json"), description) else { return };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file can be written");
    let Ok(weights) = Safetensors::open_file(file.path()) else { return };
    for name in weights.names() {
        if let Some(name) = name.strip_suffix(".qweight") {
            let _ = unpack(&weights, name, config);
        }
    }
});
