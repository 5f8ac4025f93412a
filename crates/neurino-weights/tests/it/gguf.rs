//! GGUF.

use std::path::Path;

use neurino_weights::gguf::Value;
use neurino_weights::{DType, Gguf, WeightsError};
use proptest::prelude::*;

use crate::{damaged, file};

/// Writes GGUF by hand, so that a test can write what no exporter would.
#[derive(Default)]
struct Writer {
    values: Vec<u8>,
    n_values: u64,
    tensors: Vec<u8>,
    n_tensors: u64,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    /// A metadata value: its type and its bytes.
    fn value(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.values.extend([&text(key), &kind.to_le_bytes()[..], bytes].concat());
        self.n_values += 1;
        self
    }

    /// A tensor's entry, innermost dimension first.
    fn entry(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.extend(text(name));
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.n_tensors += 1;
        self
    }

    /// A tensor with its data, aligned to 32 bytes.
    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, bytes: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let offset = self.data.len() as u64;
        self.data.extend(bytes);
        self.entry(name, dims, kind, offset)
    }

    fn finish_as(self, version: u32) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(self.n_tensors.to_le_bytes());
        bytes.extend(self.n_values.to_le_bytes());
        bytes.extend(self.values);
        bytes.extend(self.tensors);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(self.data);
        bytes
    }

    fn finish(self) -> Vec<u8> {
        self.finish_as(3)
    }
}

/// A list's type, length and bytes.
fn list(kind: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat()
}

fn well_formed() -> Writer {
    let floats: Vec<u8> = (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let texts = [text("one"), text("zwei"), text("")].concat();
    Writer::default()
        .value("general.architecture", 8, &text("llama"))
        .value("llama.block_count", 4, &30u32.to_le_bytes())
        .value("llama.rope.freq_base", 6, &1e5f32.to_le_bytes())
        .value("tokenizer.ggml.add_bos_token", 7, &[1])
        .value("tokenizer.ggml.tokens", 9, &list(8, 3, &texts))
        .value("nested", 9, &list(9, 2, &[list(0, 2, &[7, 8]), list(0, 0, &[])].concat()))
        .tensor("foreign", &[256], 10, &[0; 84])
        .tensor("plain", &[3, 2], 0, &floats)
        .tensor(
            "blocks",
            &[32, 2],
            8,
            &[[0, 0x3c].as_slice(), &[3; 32], &[0, 0x40], &[255; 32]].concat(),
        )
}

fn open(bytes: &[u8]) -> Result<Gguf, WeightsError> {
    let (_folder, path) = file("model.gguf", bytes);
    Gguf::open(&path)
}

#[test]
fn reads_metadata_and_tensors_of_both_versions() {
    for version in [2, 3] {
        let gguf = open(&well_formed().finish_as(version)).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(gguf.uint("llama.block_count").unwrap(), Some(30));
        assert_eq!(gguf.float("llama.rope.freq_base").unwrap(), Some(1e5));
        assert_eq!(gguf.flag("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
        assert_eq!(gguf.texts("tokenizer.ggml.tokens").unwrap().unwrap(), ["one", "zwei", ""]);
        assert!(matches!(gguf.get("nested"), Some(Value::Array(_))));
        assert_eq!(gguf.text("absent").unwrap(), None);
        assert!(matches!(gguf.uint("general.architecture"), Err(WeightsError::BadMetadata { .. })));

        let plain = gguf.tensor("plain").unwrap();
        assert_eq!((plain.view().dtype, plain.view().shape), (DType::F32, &[2, 3][..]));
        assert_eq!(plain.to_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let blocks = gguf.tensor("blocks").unwrap();
        let blocks = blocks.view().with_shape(&[2, 32]).unwrap();
        assert_eq!(blocks.to_f32().unwrap(), [[3.0; 32], [-2.0; 32]].concat());
        assert!(matches!(gguf.tensor("absent"), Err(WeightsError::TensorAbsent { .. })));
        let foreign = gguf.tensor("foreign").unwrap_err();
        assert!(foreign.to_string().contains("Q2_K"), "{foreign}");
    }
}

/// The end of a nested list that goes deeper than any exporter's.
fn nest(depth: usize) -> Vec<u8> {
    (0..depth).fold(list(0, 0, &[]), |inner, _| list(9, 1, &inner))
}

#[test]
fn refuses_what_does_not_fit_the_file() {
    let huge = u64::MAX / 2;
    let header = |n_tensors: u64, n_values: u64| {
        [b"GGUF\x03\0\0\0", &n_tensors.to_le_bytes()[..], &n_values.to_le_bytes()].concat()
    };
    let one = Writer::default;
    let cases = [
        ("tensor count", header(huge, 0)),
        ("value count", header(0, huge)),
        ("text length", [header(0, 1), huge.to_le_bytes().to_vec(), vec![0; 64]].concat()),
        ("list length", one().value("k", 9, &list(4, huge, &[])).finish()),
        ("text list length", one().value("k", 9, &list(8, huge, &[])).finish()),
        ("nesting", one().value("k", 9, &nest(2000)).finish()),
        ("value type", one().value("k", 13, &[0; 8]).finish()),
        ("list type", one().value("k", 9, &list(77, 1, &[0; 8])).finish()),
        ("no UTF-8", one().value("k", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]).finish()),
        ("same key", one().value("k", 0, &[1]).value("k", 0, &[1]).finish()),
        ("alignment", one().value("general.alignment", 4, &3u32.to_le_bytes()).finish()),
        ("no alignment", one().value("general.alignment", 4, &0u32.to_le_bytes()).finish()),
        ("dimensions", one().entry("t", &[1; 5], 0, 0).finish()),
        ("size", one().entry("t", &[1 << 40, 1 << 40], 0, 0).finish()),
        ("partial block", one().tensor("t", &[33], 8, &[0; 68]).finish()),
        ("offset", one().entry("t", &[1], 0, u64::MAX - 31).finish()),
        ("misaligned", one().entry("t", &[1], 0, 8).finish()),
        ("same tensor", one().tensor("t", &[1], 0, &[0; 4]).tensor("t", &[1], 0, &[0; 4]).finish()),
        ("magic", b"GGML\x03\0\0\0".to_vec()),
    ];
    for (what, bytes) in cases {
        let found = open(&bytes);
        assert!(matches!(found, Err(WeightsError::CorruptHeader { .. })), "{what}: {found:?}");
    }
    let past_the_end = one().entry("t", &[1000], 0, 0).finish();
    assert!(matches!(open(&past_the_end), Err(WeightsError::Truncated { .. })));
    let future = open(&well_formed().finish_as(4));
    assert!(matches!(future, Err(WeightsError::UnsupportedVersion { version: 4, .. })));
}

#[test]
fn every_prefix_is_an_error() {
    let bytes = well_formed().finish();
    for end in 0..bytes.len() {
        assert!(open(&bytes[..end]).is_err(), "a prefix of {end} bytes was accepted");
    }
}

/// Opens a file and touches all of it.
fn exercise(bytes: &[u8]) {
    let Ok(gguf) = open(bytes) else { return };
    for name in gguf.names() {
        if let Ok(tensor) = gguf.tensor(name) {
            assert_eq!(tensor.to_f32().unwrap().len(), tensor.view().len());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise(&bytes);
        exercise(&[b"GGUF\x03\0\0\0", &bytes[..]].concat());
    }

    #[test]
    fn damaged_files(bytes in damaged(well_formed().finish())) {
        exercise(&bytes);
    }
}

#[test]
fn tells_its_files_from_others() {
    let (_folder, path) = file("model.gguf", &well_formed().finish());
    assert!(Gguf::is_gguf(&path));
    assert!(!Gguf::is_gguf(Path::new("absent.gguf")));
    let (_folder, path) = file("model.gguf", b"{}");
    assert!(!Gguf::is_gguf(&path));
}
