//! What comparisons tell apart.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use neurino_core::audit::AuditRules;
use neurino_core::{ChatMessage, ModelId, Png, RatedToken, Role, SeedScore, TokenLogprob, Usage};
use proptest::prelude::*;

use super::*;

const SIDE: usize = 128;

/// A picture with soft shapes and some grain, as a camera gives.
fn scene(seed: u64, grain: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let waves: Vec<[f32; 4]> =
        (0..6).map(|_| [noise() * 0.4, noise() * 0.4, noise() * 6.0, noise() * 80.0]).collect();
    (0..SIDE * SIDE)
        .map(|at| {
            let (x, y) = ((at % SIDE) as f32, (at / SIDE) as f32);
            let soft: f32 = waves.iter().map(|[u, v, p, a]| a * (u * x + v * y + p).sin()).sum();
            128.0 + soft + grain * noise()
        })
        .collect()
}

fn output(light: &[f32]) -> ImageOutput {
    let mut file = Vec::new();
    let side = u32::try_from(SIDE).unwrap();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let pixels: Vec<u8> = light.iter().flat_map(|v| [v.clamp(0.0, 255.0) as u8; 3]).collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    ImageOutput { png: Png(file), width: side, height: side }
}

/// What is left of a picture that was made at a part of its size and enlarged.
fn enlarged(light: &[f32], by: usize) -> Vec<f32> {
    let small = SIDE / by;
    let mean = |x: usize, y: usize| {
        let cells = (0..by * by).map(|n| light[(y * by + n / by) * SIDE + x * by + n % by]);
        cells.sum::<f32>() / (by * by) as f32
    };
    (0..SIDE * SIDE)
        .map(|at| {
            let place = |n: usize| ((n as f32 + 0.5) / by as f32 - 0.5).max(0.0);
            let (fx, fy) = (place(at % SIDE), place(at / SIDE));
            let (x, y) = (fx as usize, fy as usize);
            let (x1, y1) = ((x + 1).min(small - 1), (y + 1).min(small - 1));
            let (tx, ty) = (fx - x as f32, fy - y as f32);
            let top = mean(x, y) * (1.0 - tx) + mean(x1, y) * tx;
            top * (1.0 - ty) + (mean(x, y1) * (1.0 - tx) + mean(x1, y1) * tx) * ty
        })
        .collect()
}

fn found(a: &[f32], b: &[f32], same_class: bool) -> Finding {
    pictures(&output(a), &output(b), same_class, &Tolerance::default()).unwrap()
}

fn why(finding: &Finding) -> Option<Difference> {
    match finding {
        Finding::Differs { why, .. } => Some(*why),
        _ => None,
    }
}

#[test]
fn pictures_of_one_class_are_equal_to_the_last_bit() {
    let scene = scene(1, 20.0);
    assert_eq!(found(&scene, &scene, true), Finding::Same);
    let mut other = scene.clone();
    other[77] += 2.0;
    assert_eq!(why(&found(&other, &scene, true)), Some(Difference::Pixels));
}

#[test]
fn across_classes_small_steps_are_borne_and_other_pictures_are_not() {
    for seed in 1..20 {
        let one = scene(seed, 20.0);
        let drifted: Vec<f32> =
            one.iter().enumerate().map(|(n, v)| v + (n % 3) as f32 - 1.0).collect();
        let finding = found(&drifted, &one, false);
        assert!(matches!(finding, Finding::Close { .. }), "seed {seed}: {finding:?}");
        let other = found(&scene(seed + 100, 20.0), &one, false);
        assert_eq!(why(&other), Some(Difference::Sight), "seed {seed}: {other:?}");
    }
}

#[test]
fn an_enlarged_picture_has_lost_its_finest_detail() {
    for seed in 1..20 {
        // Little grain: what is seen stays nearly the same.
        let one = scene(seed, 6.0);
        for by in [2, 4] {
            let finding = found(&enlarged(&one, by), &one, false);
            assert!(why(&finding).is_some(), "seed {seed}, {by} times: {finding:?}");
        }
        let Finding::Differs { why: Difference::Detail, figures } =
            found(&enlarged(&one, 2), &one, false)
        else {
            continue;
        };
        assert!(figures.phash.unwrap() <= 0.1 && figures.ssim.unwrap() >= 0.9, "{figures:?}");
        assert!(figures.detail.unwrap() < 0.8, "{figures:?}");
    }
}

#[test]
fn a_copy_written_anew_is_known_and_another_picture_is_not() {
    let facts = |light: &[f32]| {
        let pixels = crate::picture::pixels(&output(light)).unwrap();
        let mut look = Look::new(SIDE as u32, SIDE as u32);
        pixels.chunks_exact(3 * SIDE).for_each(|row| look.row(row));
        look.finish()
    };
    for seed in 1..40 {
        let one = scene(seed, 10.0);
        let mut copy = one.clone();
        copy[5] += 30.0;
        copy.iter_mut().step_by(7).for_each(|v| *v += 1.0);
        assert!(nearly_equal(&facts(&copy).thumb, &facts(&one).thumb), "{seed}");
        assert!(!nearly_equal(&facts(&scene(seed + 50, 10.0)).thumb, &facts(&one).thumb), "{seed}");
    }
}

fn text_job(temperature: f32) -> TextJob {
    let model = ModelId::new("m").unwrap();
    let mut job = TextJob::new(model, vec![ChatMessage::new(Role::User, "hi")], 64);
    job.sampling.temperature = temperature;
    job
}

fn said(words: &[&str], reason: FinishReason) -> TextOutput {
    let usage = Usage { prompt_tokens: 5, completion_tokens: u32::try_from(words.len()).unwrap() };
    TextOutput::single(words.concat(), reason, usage)
}

/// The same with log-probabilities; at each token one rival is named.
fn rated(words: &[&str], rivals: &[(&str, f32)]) -> TextOutput {
    let mut output = said(words, FinishReason::Stop);
    let token = |bytes: &str, logprob| RatedToken { bytes: bytes.as_bytes().to_vec(), logprob };
    let rate = |(word, rival): (&&str, &(&str, f32))| TokenLogprob {
        chosen: token(word, -0.5),
        top: vec![token(word, -0.5), token(rival.0, rival.1)],
    };
    output.choices[0].logprobs = Some(words.iter().zip(rivals).map(rate).collect());
    output
}

#[test]
fn texts_of_one_class_are_equal_in_words_end_and_count() {
    let job = text_job(0.0);
    let one = said(&["a", " b", " c"], FinishReason::Stop);
    let check = |other: &TextOutput, expected: Option<Difference>| {
        let finding = texts(other, &one, &job, true, &Tolerance::default());
        assert_eq!(why(&finding), expected, "{finding:?}");
        assert_eq!(finding == Finding::Same, expected.is_none());
    };
    check(&one, None);
    check(&said(&["a", " b"], FinishReason::Stop), Some(Difference::Tokens));
    check(&said(&["a", " b", " c"], FinishReason::Length), Some(Difference::Tokens));
    check(&said(&["a", " b", " ", "c"], FinishReason::Stop), Some(Difference::Count));
}

/// Two equal cards keep a model in 16 bits and in 4, because one lacked the memory for 16.
#[test]
fn texts_of_other_weights_are_of_another_class() {
    use neurino_core::job::WeightPrecision::{FourBit, Half};
    let job = text_job(0.0);
    let mut first = said(&["a", " y", " d"], FinishReason::Stop);
    let mut second = rated(&["a", " b", " c"], &[(" x", -3.0), (" y", -0.8), (" z", -9.0)]);
    let close = |first: &TextOutput, second: &TextOutput| {
        let finding = texts(first, second, &job, true, &Tolerance::default());
        matches!(finding, Finding::Close { .. })
    };
    (first.precision, second.precision) = (Some(FourBit), Some(Half));
    assert!(close(&first, &second));
    first.precision = None;
    assert!(close(&first, &second), "nobody knows");
    first.precision = Some(Half);
    assert!(!close(&first, &second));
}

#[test]
fn across_classes_greedy_texts_may_part_where_two_tokens_were_close() {
    let rivals = [(" x", -3.0), (" y", -0.8), (" z", -9.0)];
    let second = rated(&["a", " b", " c"], &rivals);
    let check = |words: &[&str], temperature, expected: &str| {
        let first = said(words, FinishReason::Stop);
        let finding = texts(&first, &second, &text_job(temperature), false, &Tolerance::default());
        let name = match finding {
            Finding::Same => "same",
            Finding::Close { .. } => "close",
            Finding::Differs { .. } => "differs",
            Finding::Unclear { .. } => "unclear",
        };
        assert_eq!(name, expected, "{words:?}: {finding:?}");
    };
    check(&["a", " b", " c"], 0.0, "same");
    check(&["a", " y", " d"], 0.0, "close");
    check(&["a", " b", " z"], 0.0, "differs");
    check(&["a", " q", " d"], 0.0, "differs");
    check(&["q", " q", " d"], 1.0, "differs");
    check(&["a", " b"], 0.0, "unclear");
    // Drawn texts that part late say nothing.
    let tail = rated(&["a", " b", " c", " d"], &[("x", -3.0); 4]);
    let late = said(&["a", " b", " c", " e"], FinishReason::Stop);
    let finding = texts(&late, &tail, &text_job(1.0), false, &Tolerance::default());
    assert!(matches!(finding, Finding::Unclear { .. }), "{finding:?}");
}

#[test]
fn files_of_another_size_or_none_at_all_are_told() {
    let one = output(&scene(1, 1.0));
    let mut claimed = one.clone();
    claimed.width = 64;
    let tolerance = Tolerance::default();
    let finding = pictures(&claimed, &one, false, &tolerance).unwrap();
    assert_eq!(why(&finding), Some(Difference::Shape));
    let broken = ImageOutput { png: Png(vec![1, 2, 3]), ..one.clone() };
    assert!(pictures(&broken, &one, false, &tolerance).is_err());
}

proptest! {
    /// Whatever bytes a stranger hands in: no panic, and never a comparison that passes.
    #[test]
    fn damaged_files_never_pass(at in 0_usize..4000, byte: u8, cut in 0_usize..4000) {
        let one = output(&scene(3, 5.0));
        let mut png = one.png.0.clone();
        let at = at % png.len();
        if png[at] != byte {
            png[at] = byte;
            let damaged = ImageOutput { png: Png(png.clone()), ..one.clone() };
            prop_assert!(pictures(&damaged, &one, false, &Tolerance::default()).is_err());
        }
        png.truncate(cut % one.png.0.len());
        let cut = ImageOutput { png: Png(png), ..one.clone() };
        prop_assert!(pictures(&cut, &one, false, &Tolerance::default()).is_err());
    }
}

#[test]
fn words_of_another_engine_show_what_is_the_same_and_hardly_what_is_not() {
    let long = |words: &str| said(&[&words.repeat(40)], FinishReason::Stop);
    let check = |first: &TextOutput, second: &TextOutput, temperature, expected: &str| {
        let finding = texts_of_engines(first, second, &text_job(temperature));
        let name = match finding {
            Finding::Same => "same",
            Finding::Close { .. } => "close",
            Finding::Differs { .. } => "differs",
            Finding::Unclear { .. } => "unclear",
        };
        assert_eq!(name, expected, "{finding:?}");
    };
    // A count of bytes beside one of tokens, and a first word without its space.
    let ours = said(&[" a", " b", " c"], FinishReason::Stop);
    let mut theirs = said(&["a b c"], FinishReason::Length);
    theirs.usage.prompt_tokens = 40;
    check(&theirs, &ours, 0.0, "same");
    check(&said(&["x y z"], FinishReason::Stop), &ours, 0.0, "unclear");
    check(&said(&["x y z"], FinishReason::Stop), &ours, 1.0, "unclear");
    // Nothing, or a beginning, of a long answer.
    let nothing = said(&[], FinishReason::Stop);
    check(&nothing, &long("so it was "), 1.0, "differs");
    check(&nothing, &ours, 0.0, "unclear");
    let beginning = said(&["so it was so it was "], FinishReason::Stop);
    check(&beginning, &long("so it was "), 0.0, "differs");
    check(&beginning, &long("so it was "), 1.0, "unclear");
    // The answer to another question, where the words were certain, and where they were not.
    let mut sure = rated(&[" The", " capital"], &[(" A", -9.0), (" city", -9.0)]);
    check(&said(&["No idea"], FinishReason::Stop), &sure, 0.0, "unclear");
    for token in sure.choices[0].logprobs.iter_mut().flatten() {
        token.chosen.logprob = -0.001;
    }
    check(&said(&["No idea"], FinishReason::Stop), &sure, 0.0, "differs");
    check(&said(&["No idea"], FinishReason::Stop), &sure, 1.0, "unclear");
    check(&said(&["The capital city"], FinishReason::Stop), &sure, 0.0, "unclear");
    check(&said(&["The cap"], FinishReason::Stop), &sure, 0.0, "unclear");
}

#[test]
fn only_a_text_that_names_its_tokens_is_scored() {
    let messages = vec![ChatMessage::new(Role::User, "hi")];
    let mut job = TextJob::new(ModelId::new("m").unwrap(), messages, 4);
    job.logprobs = Some(2);
    let usage = Usage { prompt_tokens: 2, completion_tokens: 3 };
    let mut text = TextOutput::single("abc", FinishReason::Stop, usage);
    assert_eq!(claimed(&job, &text, vec![9, 1], 250_000), None);
    text.choices[0].tokens = Some(vec![1, 2, 3]);
    let Some(JobSpec::Text(scorer)) = claimed(&job, &text, vec![9, 1], 250_000) else {
        panic!("it is")
    };
    assert_eq!((scorer.sampling.seed, scorer.logprobs), (9, None));
    assert_eq!(scorer.claim.unwrap().answers, [[1, 2, 3]]);
    text.choices[0].tokens = Some(vec![1; 5]);
    assert_eq!(claimed(&job, &text, vec![1], 250_000), None, "more than may be");
}

/// A text of 100 tokens, and what an auditor finds of it under three seeds: tokens that are exact, and the mean
/// margin of all in millionths.
fn claim_of(under: [(u32, u64); 3]) -> (TextOutput, TextOutput, TextClaim) {
    let words: Vec<String> = (0..100).map(|n| format!("w{n} ")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = said(&words, FinishReason::Stop);
    let mut scores = text.clone();
    let seed = |(exact, mean): (u32, u64)| SeedScore { exact, margin_ppm: 100 * mean };
    let seeds = under.map(seed).to_vec();
    scores.choices[0].score = Some(ClaimScore { tokens: 100, whole: true, seeds });
    let answers = vec![(0..100).collect()];
    (text, scores, TextClaim { answers, seeds: vec![5, 6, 7], clip_ppm: 250_000 })
}

#[test]
fn scores_say_whether_a_text_is_its_seeds() {
    let rules = AuditRules::built_in().margins;
    let (far, near) = ((50, 90_000), (98, 1_000));
    let check = |under: [(u32, u64); 3], right: u64, expected: &str| {
        let (text, scores, claim) = claim_of(under);
        let finding = scored(&text, &scores, &claim, right, &rules);
        let name = match finding {
            Finding::Close { figures } => {
                assert_eq!((figures.exact, figures.tokens), (Some(0.98), Some(100)));
                "holds"
            }
            Finding::Differs { .. } => "differs",
            _ => "unclear",
        };
        assert_eq!(name, expected, "{under:?} {right}");
    };
    check([far, near, far], 6, "holds");
    check([far, near, far], 5, "differs");
    check([near, near, near], 6, "unclear");
    check([far, far, far], 6, "differs");
    check([far, near, far], 8, "unclear");
    check([(90, 10_000), far, far], 5, "unclear");
}

#[test]
fn a_claim_that_is_not_the_answer_differs_whatever_its_margins() {
    let rules = AuditRules::built_in().margins;
    let change = |change: &dyn Fn(&mut TextOutput, &mut TextOutput)| {
        let (mut text, mut scores, claim) = claim_of([(100, 0), (50, 90_000), (50, 90_000)]);
        change(&mut text, &mut scores);
        scored(&text, &scores, &claim, 5, &rules)
    };
    assert!(matches!(change(&|_, _| ()), Finding::Close { .. }));
    let cut = change(&|_, scores| scores.choices[0].score.as_mut().unwrap().whole = false);
    assert_eq!(why(&cut), Some(Difference::Tokens), "cut off, or goes on after its end");
    let worded = change(&|text, _| text.choices[0].text.push('!'));
    assert_eq!(why(&worded), Some(Difference::Tokens), "other words than its tokens'");
    let counted = change(&|text, _| text.usage.prompt_tokens += 1);
    assert_eq!(why(&counted), Some(Difference::Count));
    let unscored = change(&|_, scores| scores.choices[0].score = None);
    assert!(matches!(unscored, Finding::Unclear { .. }));
    // Weights that are kept otherwise round more.
    let drift = |precision| {
        let (mut text, scores, claim) = claim_of([(80, 30_000), (50, 90_000), (50, 90_000)]);
        text.precision = precision;
        scored(&text, &scores, &claim, 5, &rules)
    };
    assert_eq!(why(&drift(None)), Some(Difference::Tokens));
    let other = drift(Some(neurino_core::job::WeightPrecision::FourBit));
    assert!(matches!(other, Finding::Unclear { .. }));
}
