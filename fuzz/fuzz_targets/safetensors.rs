//! A safetensors file of arbitrary bytes is refused with an error or read; never a panic.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use neurino_weights::Safetensors;

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("a temporary file can be written");
    if let Ok(weights) = Safetensors::open_file(file.path()) {
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        for name in names {
            let _ = weights.tensor(&name).map(|t| t.to_f32());
        }
    }
});
