//! GPTQ: other widths and groups than the fixtures have, and metadata that lies.

use std::path::Path;

use neurino_weights::gptq::{GptqConfig, GptqMatrix, GptqParts};
use neurino_weights::{Safetensors, StoredTensor, WeightsError};
use proptest::prelude::*;

use crate::{damaged, file};

/// A matrix of `[out, in]` integers and what they mean, written as AutoGPTQ would.
#[derive(Debug, Clone)]
struct Case {
    bits: u32,
    quants: Vec<Vec<u8>>,
    /// `[out][groups]`, as they are subtracted.
    zeros: Vec<Vec<u8>>,
    scales: Vec<Vec<f32>>,
    g_idx: Option<Vec<i32>>,
}

impl Case {
    /// Numbers that differ from place to place.
    fn new(bits: u32, [out, inputs]: [usize; 2], groups: usize, g_idx: Option<Vec<i32>>) -> Self {
        let top = 1usize << bits;
        let value =
            |a: usize, b: usize, salt: usize| ((a * 31 + b * 17 + salt) * 7 / 3 % top) as u8;
        let scale = |o: usize, g: usize| 0.25 * (1 + o % 5 + 3 * g) as f32;
        Self {
            bits,
            quants: (0..out).map(|o| (0..inputs).map(|i| value(o, i, 0)).collect()).collect(),
            zeros: (0..out).map(|o| (0..groups).map(|g| value(o, g, 5)).collect()).collect(),
            scales: (0..out).map(|o| (0..groups).map(|g| scale(o, g)).collect()).collect(),
            g_idx,
        }
    }

    fn group(&self, input: usize, size: usize) -> usize {
        self.g_idx.as_ref().map_or(input / size, |groups| groups[input] as usize)
    }

    fn expected(&self, group_size: usize) -> Vec<f32> {
        let (out, inputs) = (self.quants.len(), self.quants[0].len());
        let weight = |o: usize, i: usize| {
            let g = self.group(i, group_size);
            self.scales[o][g] * (f32::from(self.quants[o][i]) - f32::from(self.zeros[o][g]))
        };
        (0..out).flat_map(|o| (0..inputs).map(move |i| (o, i))).map(|(o, i)| weight(o, i)).collect()
    }

    fn write(&self, zero_offset: u8) -> Vec<u8> {
        let (out, inputs, groups) = (self.quants.len(), self.quants[0].len(), self.zeros[0].len());
        let per_word = 32 / self.bits as usize;
        let top = (1u32 << self.bits) - 1;
        let word = |values: &mut dyn Iterator<Item = u8>| {
            let words = values.enumerate().map(|(k, v)| u32::from(v) << (k as u32 * self.bits));
            words.fold(0, |word, part| word | part).to_le_bytes()
        };
        let mut data = [vec![], vec![], vec![], vec![]];
        for row in 0..inputs / per_word {
            for o in 0..out {
                let mut values = (0..per_word).map(|k| self.quants[o][row * per_word + k]);
                data[0].extend(word(&mut values));
            }
        }
        for g in 0..groups {
            for first in (0..out).step_by(per_word) {
                let stored = |k: usize| {
                    (u32::from(self.zeros[first + k][g]).wrapping_sub(u32::from(zero_offset)) & top)
                        as u8
                };
                data[1].extend(word(&mut (0..per_word).map(stored)));
            }
            for o in 0..out {
                data[2].extend(self.scales[o][g].to_le_bytes());
            }
        }
        data[3].extend(self.g_idx.iter().flatten().flat_map(|group| group.to_le_bytes()));
        let shapes = [
            ("qweight", "I32", vec![inputs / per_word, out]),
            ("qzeros", "I32", vec![groups, out / per_word]),
            ("scales", "F32", vec![groups, out]),
            ("g_idx", "I32", vec![inputs]),
        ];
        let (mut header, mut start) = (serde_json::Map::new(), 0);
        for ((name, dtype, shape), data) in shapes.iter().zip(&data) {
            if data.is_empty() {
                continue;
            }
            let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, start + data.len()]});
            header.insert(format!("w.{name}"), entry);
            start += data.len();
        }
        let header = serde_json::to_vec(&header).unwrap();
        [&(header.len() as u64).to_le_bytes()[..], &header, &data.concat()].concat()
    }
}

fn config(json: &str) -> Result<GptqConfig, WeightsError> {
    GptqConfig::from_json(Path::new("quantize_config.json"), json.as_bytes())
}

/// Unpacks the matrix `w` of a file, and repacks it.
fn read(bytes: &[u8], config: GptqConfig) -> Result<(Vec<f32>, Option<GptqMatrix>), WeightsError> {
    let (_folder, path) = file("model.safetensors", bytes);
    let weights = Safetensors::open_file(&path)?;
    let parts = GptqParts::find("w", |name| weights.stored(name).cloned())?;
    let Some(parts) = parts else { return Ok((Vec::new(), None)) };
    parts.shape(config)?;
    let data = parts.try_map(StoredTensor::read)?;
    let views = data.try_map(|part| Ok::<_, WeightsError>(part.view()))?;
    let stored = parts.weights(config, &views)?;
    Ok((stored.to_f32(), stored.repack()))
}

#[test]
fn widths_groups_and_orders() {
    let shuffled = |groups: i32, inputs: i32| Some((0..inputs).map(|i| i * 7 % groups).collect());
    for bits in [2, 4, 8] {
        for (group_size, groups, g_idx) in [
            (16, 4, None),
            (-1, 1, None),
            // The last group is shorter.
            (48, 2, None),
            (16, 4, shuffled(4, 64)),
            // Groups of different sizes: 64 inputs in 3 groups.
            (16, 3, shuffled(3, 64)),
        ] {
            let even = groups != 3;
            let case = Case::new(bits, [32, 64], groups, g_idx);
            for (format, offset) in [("gptq", 1), ("gptq_v2", 0)] {
                let json = format!(
                    r#"{{"bits":{bits},"group_size":{group_size},"checkpoint_format":"{format}"}}"#
                );
                let size = usize::try_from(group_size).unwrap_or(64);
                let (found, matrix) = read(&case.write(offset), config(&json).unwrap()).unwrap();
                assert_eq!(found, case.expected(size), "{bits} {group_size} {format}");
                assert_eq!(matrix.is_some(), even, "{bits} {group_size}");
                assert!(matrix.is_none_or(|matrix| matrix.to_f32() == found));
            }
        }
    }
}

#[test]
fn descriptions_that_are_refused_say_why() {
    for (json, word) in [
        (r#"{"bits":3,"group_size":128}"#, "3 bits"),
        (r#"{"bits":4,"group_size":0}"#, "groups of 0"),
        (r#"{"bits":4,"group_size":-7}"#, "groups of -7"),
        (r#"{"bits":4,"group_size":99999999999}"#, "groups of 99999999999"),
        (r#"{"group_size":128}"#, "how many bits"),
        (r#"{"bits":4,"quant_method":"awq"}"#, "`awq`"),
        (r#"{"bits":4,"checkpoint_format":"marlin"}"#, "`marlin`"),
        ("[4]", "invalid"),
    ] {
        let error = config(json).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("choose"), "{json}: {error}");
    }
    assert_eq!(config(r#"{"bits":4,"group_size":128,"sym":true}"#).unwrap().group_size, Some(128));
}

#[test]
fn tensors_that_disagree_are_refused() {
    let config = config(r#"{"bits":4,"group_size":16}"#).unwrap();
    let good = Case::new(4, [32, 64], 4, Some((0..64).map(|i| i / 16).collect()));
    assert!(read(&good.write(1), config).is_ok());
    for group in [4, -1, i32::MAX, i32::MIN] {
        let mut bad = good.clone();
        bad.g_idx.as_mut().unwrap()[9] = group;
        let error = read(&bad.write(1), config).unwrap_err().to_string();
        assert!(error.contains("w.g_idx") && error.contains(&group.to_string()), "{error}");
    }
    let text = String::from_utf8_lossy(&good.write(1)).into_owned();
    assert!(text.contains(r#""shape":[4,32]"#), "scales");
    // The same numbers of values in other shapes, and other number formats of the same width.
    for (from, to) in [
        (r#""shape":[4,32]"#, r#""shape":[32,4]"#),
        (r#""shape":[8,32]"#, r#""shape":[32,8]"#),
        (r#""shape":[8,32]"#, r#""shape":[256] "#),
        (r#""shape":[4,4]"#, r#""shape":[2,8]"#),
        (r#""shape":[64]"#, r#""shape":[8,8]"#),
        (r#"I32","shape":[8,32]"#, r#"F32","shape":[8,32]"#),
        (r#"F32","shape":[4,32]"#, r#"I32","shape":[4,32]"#),
    ] {
        let bytes = good.write(1);
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
        let compact = |text: &str| text.replace(' ', "");
        assert!(header.contains(&compact(from)), "{from} in {header}");
        let header = header.replace(&compact(from), to);
        let bytes =
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]]
                .concat();
        let found = read(&bytes, config);
        assert!(matches!(found, Err(WeightsError::BadTensor { .. })), "{to}: {found:?}");
    }
    let (_folder, path) = file("model.safetensors", &good.write(1));
    let weights = Safetensors::open_file(&path).unwrap();
    let without = |absent: &'static str| {
        let weights = &weights;
        GptqParts::find("w", move |name| {
            weights.stored(if name.ends_with(absent) { "absent" } else { name }).cloned()
        })
    };
    for part in ["qzeros", "scales"] {
        assert!(matches!(without(part), Err(WeightsError::TensorAbsent { .. })), "{part}");
    }
    assert!(without("g_idx").unwrap().unwrap().g_idx.is_none());
}

proptest! {
    #[test]
    fn damaged_files(
        bytes in damaged(Case::new(4, [8, 16], 2, Some((0..16).map(|i| i % 2).collect())).write(1)),
        bits in prop::sample::select(vec![2u8, 4, 8]),
    ) {
        let config = config(&format!(r#"{{"bits":{bits},"group_size":8}}"#)).unwrap();
        // Any result, but no panic.
        let _ = read(&bytes, config);
    }
}
