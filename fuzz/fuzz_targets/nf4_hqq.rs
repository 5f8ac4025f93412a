//! nf4 and HQQ: arbitrary tensors are refused with an error or unpacked; never a panic.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use neurino_weights::Safetensors;
use neurino_weights::hqq::HqqMatrix;
use neurino_weights::nf4::Nf4Matrix;

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("a temporary file can be written");
    let Ok(weights) = Safetensors::open_file(file.path()) else { return };
    for name in weights.names() {
        if let Ok(matrix) = Nf4Matrix::read(&weights, name) {
            assert_eq!(matrix.to_f32().len(), matrix.shape.iter().product::<usize>());
        }
        let Some(name) = name.strip_suffix(".W_q") else { continue };
        if let Ok(matrix) = HqqMatrix::read(&weights, name) {
            assert_eq!(matrix.to_f32().len(), matrix.shape[0] * matrix.shape[1]);
        }
    }
});
