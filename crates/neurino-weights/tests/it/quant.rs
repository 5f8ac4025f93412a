//! Every quantised form against what its own library makes of it.

use neurino_weights::gptq::{GptqConfig, GptqParts};
use neurino_weights::hqq::{HqqMatrix, is_hqq};
use neurino_weights::nf4::{Nf4Matrix, is_nf4};
use neurino_weights::{Gguf, Safetensors, StoredTensor};
use serde::Deserialize;

use crate::fixture;

/// A line of `units.json`.
#[derive(Deserialize)]
struct Unit {
    name: String,
    kind: String,
    shape: [usize; 2],
    group_size: Option<i64>,
}

fn units(kind: &str) -> Vec<Unit> {
    let json = std::fs::read(fixture("units.json")).unwrap();
    let all: Vec<Unit> = serde_json::from_slice(&json).unwrap();
    let units: Vec<Unit> = all.into_iter().filter(|unit| unit.kind == kind).collect();
    assert!(!units.is_empty(), "{kind}");
    units
}

fn weights() -> Safetensors {
    Safetensors::open_file(&fixture("units.safetensors")).unwrap()
}

fn expected(weights: &Safetensors, name: &str) -> Vec<f32> {
    weights.tensor(&format!("{name}.dequantized")).unwrap().to_f32().unwrap()
}

#[test]
fn gguf_blocks_are_ggmls() {
    let gguf = Gguf::open(&fixture("ggml.gguf")).unwrap();
    let names = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"];
    for name in names {
        let found = gguf.tensor(name).unwrap();
        assert_eq!(found.tensor().dtype().name(), name);
        let expect = gguf.tensor(&format!("{name}.dequantized")).unwrap().to_f32().unwrap();
        assert_eq!(found.to_f32().unwrap(), expect, "{name}");
        let mut one_row = vec![0.0; 512];
        let bytes = found.bytes().len() / 3;
        found.tensor().dtype().dequantize(&found.bytes()[2 * bytes..], &mut one_row);
        assert_eq!(one_row, expect[1024..], "{name}: the last row alone");
    }
}

#[test]
fn gptq_is_exact() {
    let weights = weights();
    for unit in units("gptq") {
        let json = format!(r#"{{"bits":4,"group_size":{}}}"#, unit.group_size.unwrap());
        let config = GptqConfig::from_json(&fixture("units.json"), json.as_bytes()).unwrap();
        let find = |name: &str| weights.stored(name).cloned();
        let parts = GptqParts::find(&unit.name, find).unwrap().unwrap();
        let shape = parts.shape(config).unwrap();
        assert_eq!([shape.out_features, shape.in_features], unit.shape);
        let read = parts.try_map(StoredTensor::read).unwrap();
        let views = read.try_map(|part| Ok::<_, ()>(part.view())).unwrap();
        let stored = parts.weights(config, &views).unwrap();
        let expect = expected(&weights, &unit.name);
        assert_eq!(stored.to_f32(), expect, "{}", unit.name);

        let matrix = stored.repack().unwrap();
        assert_eq!(matrix.permutation.is_some(), unit.name.contains(".act."), "{}", unit.name);
        assert_eq!((matrix.group_size, matrix.groups()), (32, unit.shape[1] / 32));
        assert_eq!(matrix.to_f32(), expect, "{} sorted", unit.name);
        assert!(matrix.size_bytes() < expect.len(), "less than 8 bits a weight");
    }
    let plain = GptqParts::find("nf4.single.64x96.weight", |name| weights.stored(name).cloned());
    assert!(plain.unwrap().is_none());
}

#[test]
fn nf4_with_one_and_two_levels_of_scales() {
    let weights = weights();
    for unit in units("nf4") {
        let name = format!("{}.weight", unit.name);
        assert!(is_nf4(&weights, &name));
        let matrix = Nf4Matrix::read(&weights, &name).unwrap();
        assert_eq!(matrix.shape, unit.shape);
        let (found, expect) = (matrix.to_f32(), expected(&weights, &unit.name));
        assert_eq!(found.len(), expect.len());
        let worst = found.iter().zip(&expect).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-6, "{}: {worst}", unit.name);
    }
    assert!(!is_nf4(&weights, "gptq.sym.act.64x96"));
}

#[test]
fn hqq_along_both_axes_is_exact() {
    let weights = weights();
    for unit in units("hqq") {
        assert!(is_hqq(&weights, &unit.name));
        let matrix = HqqMatrix::read(&weights, &unit.name).unwrap();
        assert_eq!(matrix.shape, unit.shape);
        assert_eq!(matrix.groups_are_rows, unit.name.contains("axis1"));
        assert_eq!(matrix.to_f32(), expected(&weights, &unit.name), "{}", unit.name);
    }
}
