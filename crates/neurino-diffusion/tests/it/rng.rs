//! `torch.randn` on the CPU.

use neurino_diffusion::{NoiseDtype, TorchRng};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::{fixture, floats};

#[derive(Deserialize)]
struct Reference {
    mt19937: Vec<Words>,
    mt19937_word_positions: Vec<usize>,
    single: Vec<Draw>,
    sequences: Vec<Sequence>,
}

#[derive(Deserialize)]
struct Words {
    seed: u64,
    words: Vec<u32>,
}

#[derive(Deserialize)]
struct Draw {
    name: String,
    seed: Option<u64>,
    shape: Vec<usize>,
    dtype: String,
}

#[derive(Deserialize)]
struct Sequence {
    seed: u64,
    draws: Vec<Draw>,
}

fn reference() -> Reference {
    let json = std::fs::read(fixture("rng/randn.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn words_are_exact() {
    let reference = reference();
    for Words { seed, words } in reference.mt19937 {
        let mut rng = TorchRng::new(seed);
        let found: Vec<u32> = (0..1000).map(|_| rng.word()).collect();
        let at = reference.mt19937_word_positions.iter();
        assert_eq!(at.map(|&at| found[at]).collect::<Vec<_>>(), words, "seed {seed}");
    }
}

#[test]
fn normal_numbers_are_the_references() {
    let bytes = std::fs::read(fixture("rng/randn.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let reference = reference();
    let singles = reference.single.into_iter().map(|draw| (draw.seed.unwrap(), vec![draw]));
    let sequences = reference.sequences.into_iter().map(|s| (s.seed, s.draws));
    let mut compared = 0;
    for (seed, draws) in singles.chain(sequences) {
        let mut rng = TorchRng::new(seed);
        for draw in draws {
            let (dtype, limit) = match draw.dtype.as_str() {
                "f32" => (NoiseDtype::F32, 1e-6),
                "f16" => (NoiseDtype::F16, 0.0),
                "bf16" => (NoiseDtype::BF16, 0.0),
                other => panic!("{other}"),
            };
            let expect = floats(&tensors, &draw.name);
            let found = rng.randn(draw.shape.iter().product(), dtype);
            assert_eq!(found.len(), expect.len(), "{}", draw.name);
            for (found, expect) in found.iter().zip(&expect) {
                assert!((found - expect).abs() <= limit, "{}: {found} {expect}", draw.name);
            }
            compared += 1;
        }
    }
    assert!(compared > 150, "{compared}");
}
