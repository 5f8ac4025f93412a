//! A tokenizer of arbitrary bytes is refused with an error or used; never a panic. The first byte says
//! which file the rest is; its highest bit asks for a guide.
#![no_main]

use libfuzzer_sys::fuzz_target;
use neurino_llm::source::GgufTokenizer;
use neurino_llm::{Guide, Tokenizer};

/// What a working tokenizer is given to read.
const TEXTS: [&str; 4] = [
    "",
    " ",
    "Hello  world, it's 12345 na\u{ef}ve!\n\n\tx",
    "\u{6771}\u{4eac} \u{1F642}<s>\u{2581}a",
];

/// Lines: the algorithm, the pre-tokenizer, then `type score token` for every token, an empty line, and
/// merges.
fn gguf(text: &str) -> GgufTokenizer {
    let mut lines = text.lines();
    let mut vocabulary = GgufTokenizer {
        model: lines.next().unwrap_or_default().to_owned(),
        pre: lines.next().map(str::to_owned),
        ..GgufTokenizer::default()
    };
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let mut parts = line.splitn(3, ' ');
        let mut number = || parts.next().unwrap_or_default();
        let (kind, score, token) = (number().parse(), number().parse(), number());
        vocabulary.token_types.push(kind.unwrap_or(1));
        vocabulary.scores.push(score.unwrap_or(0.0));
        vocabulary.tokens.push(token.to_owned());
    }
    vocabulary.merges = lines.map(str::to_owned).collect();
    vocabulary.bos = Some(1);
    vocabulary.eos = Some(2);
    vocabulary.add_bos = vocabulary.tokens.len() % 2 == 0;
    vocabulary.add_space_prefix = true;
    vocabulary
}

fn in_folder(files: &[(&str, &[u8])]) -> Option<Tokenizer> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("a temporary file can be written");
    }
    Tokenizer::open_folder(folder.path()).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let tokenizer = match kind % 6 {
        0 => in_folder(&[("tokenizer.json", bytes)]),
        1 => in_folder(&[("spiece.model", bytes)]),
        2 => in_folder(&[
            ("tokenizer.model", bytes),
            ("tokenizer_config.json", br#"{"tokenizer_class":"T5Tokenizer"}"#),
        ]),
        3 => {
            let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            let (vocab, merges) = bytes.split_at(middle);
            in_folder(&[("vocab.json", vocab), ("merges.txt", merges.get(1..).unwrap_or_default())])
        }
        4 => {
            let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            let (config, model) = bytes.split_at(middle);
            let model = model.get(1..).unwrap_or_default();
            in_folder(&[("tokenizer.model", model), ("tokenizer_config.json", config)])
        }
        _ => Tokenizer::from_gguf(&gguf(&String::from_utf8_lossy(bytes))).ok(),
    };
    let Some(tokenizer) = tokenizer else { return };
    for text in TEXTS {
        for special in [false, true] {
            if let Ok(ids) = tokenizer.encode(text, special) {
                let _ = tokenizer.decode(&ids);
            }
        }
    }
    if tokenizer.vocab_size() < 5000 {
        let all: Vec<u32> = (0..tokenizer.vocab_size() as u32).collect();
        let _ = tokenizer.decode(&all);
        // Takes longer than all the rest, so it is asked for.
        if kind & 0x80 == 0 {
            return;
        }
        if let Ok(mut guide) = Guide::json_object(&tokenizer) {
            let mut logits = vec![0.0; tokenizer.vocab_size()];
            let _ = guide.mask(&mut logits);
        }
    }
});
