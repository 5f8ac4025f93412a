//! A prompt of arbitrary text is read by both rules; never a panic, and never text that was not there.
//! Behind a zero byte comes the negative prompt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use neurino_diffusion::clip::ClipTokenizer;
use neurino_diffusion::prompt::{Sd15Prompt, SdxlPrompt, Syntax, parse};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (prompt, negative) = text.split_once('\0').unwrap_or((&text, ""));
    for syntax in [Syntax::Sd15, Syntax::Sdxl] {
        let fragments = parse(prompt, syntax);
        let read: usize = fragments.iter().map(|fragment| fragment.text.len()).sum();
        assert!(!fragments.is_empty() && read <= prompt.len());
    }
    let tokenizer = ClipTokenizer::standard();
    let sd15 = Sd15Prompt::new(&tokenizer, prompt, Some(negative)).expect("words have tokens");
    let sdxl =
        SdxlPrompt::new([&tokenizer, &tokenizer], prompt, negative).expect("words have tokens");
    let negative = sd15.negative.expect("a negative prompt was given");
    assert!(sd15.prompt.len() == negative.len() && (1..=3).contains(&negative.len()));
    let sides = [&sd15.prompt, &negative, &sdxl.first[0], &sdxl.first[1]];
    for chunk in sides.into_iter().flatten() {
        assert!(chunk.ids.len() == chunk.weights.len() && (2..=77).contains(&chunk.ids.len()));
        assert!(chunk.weights.iter().all(|weight| weight.is_finite()));
    }
    assert_eq!(sdxl.first[0].len(), sdxl.first[1].len());
});
