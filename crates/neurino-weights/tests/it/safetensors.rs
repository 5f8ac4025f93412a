//! Safetensors, single and sharded.

use std::path::Path;

use neurino_weights::{DType, Safetensors, WeightsError};
use proptest::prelude::*;

use crate::{damaged, file};

fn write(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn well_formed() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
        "a.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
        "b.weight":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},
        "ids":{"dtype":"I64","shape":[1],"data_offsets":[12,20]}}"#;
    let floats = [1.0f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat();
    write(header, &[&floats[..], &[0x80, 0x3f, 0x00, 0xc0], &[0; 8]].concat())
}

fn open(bytes: &[u8]) -> Result<Safetensors, WeightsError> {
    let (_folder, path) = file("model.safetensors", bytes);
    Safetensors::open_file(&path)
}

#[test]
fn reads_tensors() {
    let file = open(&well_formed()).unwrap();
    let a = file.tensor("a.weight").unwrap();
    assert_eq!((a.view().dtype, a.view().shape), (DType::F32, &[2, 1][..]));
    assert_eq!(a.to_f32().unwrap(), [1.0, -2.0]);
    assert_eq!(file.tensor("b.weight").unwrap().to_f32().unwrap(), [1.0, -2.0]);
    assert_eq!(file.weights_bytes(), 20);
    let ids = file.tensor("ids").unwrap().to_f32().unwrap_err();
    assert!(ids.to_string().contains("I64"), "{ids}");
    let wrong = a.view().with_shape(&[1, 2]).unwrap_err();
    assert!(matches!(wrong, WeightsError::WrongShape { .. }));
    assert!(wrong.to_string().contains("a.weight"), "{wrong}");
    assert!(matches!(file.tensor("c"), Err(WeightsError::TensorAbsent { .. })));
}

/// Short texts of the metadata are there to be asked for; what else stands in it says nothing.
#[test]
fn notes_of_exporters_are_read_and_strange_ones_passed_over() {
    assert_eq!(open(&well_formed()).unwrap().note("format"), Some("pt"));
    let long = "x".repeat((1 << 18) + 1);
    let values = [
        r#"{"kept":"v","number":1,"less":-1.5,"none":null,"yes":true,"list":["kept",[2]],"in":{"kept":"other"}}"#.to_owned(),
        format!(r#"{{"long":"{long}","kept":"v"}}"#),
    ];
    for values in values {
        let file = open(&write(&format!(r#"{{"__metadata__":{values}}}"#), &[])).unwrap();
        assert_eq!(file.note("kept"), Some("v"), "{values}");
        for other in ["number", "less", "none", "yes", "list", "in", "long"] {
            assert_eq!(file.note(other), None, "{other}");
        }
    }
    for strange in ["null", "7", "-1", "0.5", "true", r#""text""#, r#"["a"]"#] {
        let file = open(&write(&format!(r#"{{"__metadata__":{strange}}}"#), &[])).unwrap();
        assert_eq!(file.note("a"), None);
    }
}

#[test]
fn refuses_what_does_not_fit_the_file() {
    let tensor = |shape: &str, offsets: &str| {
        let header =
            format!(r#"{{"t":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
        write(&header, &[0; 8])
    };
    let good = well_formed();
    let corrupt = [
        ("no JSON", write("[[[", &[])),
        ("overflow", tensor("[18446744073709551615,2]", "[0,8]")),
        ("size", tensor("[3]", "[0,8]")),
        ("backwards", tensor("[2]", "[8,0]")),
        ("hole", tensor("[1]", "[4,8]")),
        (
            "twice",
            write(
                r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                &[0; 8],
            ),
        ),
        ("wrapping", tensor("[4611686018427387903]", "[0,18446744073709551612]")),
        ("header length", [&u64::MAX.to_le_bytes()[..], &[0; 40]].concat()),
        ("nesting", write(&"[".repeat(100_000), &[])),
        ("too long", [&good[..], &[0]].concat()),
    ];
    for (what, bytes) in corrupt {
        let found = open(&bytes);
        assert!(matches!(found, Err(WeightsError::CorruptHeader { .. })), "{what}: {found:?}");
    }
    for end in [0, 7, 40, good.len() - 1] {
        let found = open(&good[..end]);
        assert!(matches!(found, Err(WeightsError::Truncated { .. })), "{end}: {found:?}");
    }
}

#[test]
fn an_index_must_match_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let index = |map: &str| {
        write("model.safetensors.index.json", format!(r#"{{"weight_map":{map}}}"#).as_bytes());
        Safetensors::open_folder(folder.path())
    };
    write("one.safetensors", &well_formed());
    write("two.safetensors", &well_formed());

    assert!(index(r#"{"a.weight":"one.safetensors","ids":"one.safetensors"}"#).is_ok());
    let absent = index(r#"{"c.weight":"one.safetensors"}"#);
    assert!(matches!(absent, Err(WeightsError::TensorAbsent { .. })));
    let missing = index(r#"{"a.weight":"three.safetensors"}"#);
    assert!(matches!(missing, Err(WeightsError::MissingShard { .. })));
    for hostile in ["../one.safetensors", "/etc/hostname", "..", "", r"..\\one.safetensors"] {
        let found = index(&format!(r#"{{"a.weight":"{hostile}"}}"#));
        assert!(matches!(found, Err(WeightsError::CorruptHeader { .. })), "{hostile}: {found:?}");
    }
    let twice = index(r#"{"a.weight":"one.safetensors","ids":"two.safetensors"}"#);
    assert!(matches!(twice, Err(WeightsError::CorruptHeader { .. })));
    let empty = Safetensors::open_folder(Path::new("absent"));
    assert!(matches!(empty, Err(WeightsError::NoWeights { .. })));
}

/// Opens a file and touches all of it.
fn exercise(bytes: &[u8]) {
    let Ok(file) = open(bytes) else { return };
    for name in file.names() {
        let Ok(tensor) = file.tensor(name) else { continue };
        if let Ok(values) = tensor.to_f32() {
            assert_eq!(values.len(), tensor.view().len());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
        exercise(&[&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat());
    }

    #[test]
    fn damaged_files(bytes in damaged(well_formed())) {
        exercise(&bytes);
    }
}
