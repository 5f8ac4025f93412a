//! A language model of arbitrary bytes is refused with an error, or opened and its memory planned, which
//! takes no more memory than the file is worth; never a panic. What does not begin as a GGUF file is a
//! folder: the first two bytes are the length of its `config.json`, the rest is its safetensors file.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use neurino_llm::ModelSource;
use neurino_llm::checkpoint::Precision;
use neurino_nn::quant::Holder;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a temporary file can be written");
        path
    };
    let path = if data.starts_with(b"GGUF") {
        write("model.gguf", data)
    } else {
        let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (config, weights) = rest.split_at(length);
        write("config.json", config);
        write("model.safetensors", weights);
        // It is read when the model is loaded.
        write("tokenizer.json", b"{}");
        folder.path().to_owned()
    };
    let Ok(source) = ModelSource::open(&path) else { return };
    let _ = source.storage();
    for precision in [Precision::Packed, Precision::Full, Precision::Half, Precision::FourBit] {
        for holder in [Holder::Cpu, Holder::Card] {
            let memory = source.memory(precision, holder);
            assert_eq!(memory.layer_bytes.len(), source.config.num_hidden_layers);
            let whole = memory.weights_bytes();
            assert_eq!(memory.split(&[whole], 0).map(|runs| runs.len()), Some(1));
            let _ = memory.split(&[whole / 2, whole], 16);
        }
    }
});
