//! Results that are refused, each by its reason.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use neurino_core::{ChatMessage, ImageOutput, ModelId, Png, Role, Usage};

use super::*;

fn node() -> NodeId {
    NodeId::new(format!("0x{}-rig", "ab".repeat(20))).unwrap()
}

fn job(max_tokens: u32) -> TextJob {
    let model = ModelId::new("m").unwrap();
    TextJob::new(model, vec![ChatMessage::new(Role::User, "say something")], max_tokens)
}

fn answer(text: &str, tokens: u32, reason: FinishReason) -> TextOutput {
    let usage = Usage { prompt_tokens: 9, completion_tokens: tokens };
    TextOutput::single(text, reason, usage)
}

fn check(output: TextOutput, words: Option<&str>) {
    let spec = JobSpec::Text(job(500));
    let found = result(&spec, &JobOutput::Text(output), &node(), 1 << 16, Proof::Statement, None);
    match (words, found) {
        (None, found) => assert!(found.is_ok(), "{found:?}"),
        (Some(words), Err(refusal)) => {
            assert!(refusal.to_string().contains(words), "{refusal}");
            assert!(matches!(ErrorBody::from(refusal).code, ErrorCode::InvalidRequest));
        }
        (Some(words), Ok(_)) => panic!("accepted, though {words}"),
    }
}

#[test]
fn counts_that_do_not_fit_the_words_are_refused() {
    check(answer("hello there", 3, FinishReason::Stop), None);
    check(answer("hello there", 500, FinishReason::Length), Some("more tokens than"));
    check(answer("", 1, FinishReason::Stop), None);
    check(answer("", 400, FinishReason::Stop), Some("more tokens than"));
    check(answer("hello", 0, FinishReason::Stop), Some("do not fit the job"));
    check(answer("hello", 501, FinishReason::Stop), Some("do not fit the job"));
    check(answer(&"word ".repeat(100), 100, FinishReason::Length), Some("before its limit"));
    check(answer(&"word ".repeat(500), 500, FinishReason::Length), None);
    // As long as some context: that is an end, too.
    check(answer(&"word ".repeat(499), 499, FinishReason::Stop), None);
    let mut none = answer("hello", 3, FinishReason::Stop);
    none.usage.prompt_tokens = 0;
    check(none, Some("do not fit the job"));
    let mut two = answer("hello", 3, FinishReason::Stop);
    two.choices.push(two.choices[0].clone());
    check(two, Some("another number"));
}

#[test]
fn nobody_is_billed_for_more_tokens_than_a_tokenizer_can_make_of_the_words() {
    let claim = |prompt_tokens, completion_tokens, messages: Vec<ChatMessage>| {
        let mut job = job(500);
        job.messages = messages;
        let usage = Usage { prompt_tokens, completion_tokens };
        let said = TextOutput::single("w1 w1 w1 ", FinishReason::Stop, usage);
        let spec = JobSpec::Text(job);
        result(&spec, &JobOutput::Text(said), &node(), 1 << 16, Proof::Statement, None).is_ok()
    };
    let asked = || vec![ChatMessage::new(Role::User, "hi claim")];
    assert!(claim(20, 9, asked()) && claim(20, 25, asked()));
    assert!(!claim(20, 26, asked()) && !claim(20, 64, asked()));
    // A job with its own introduction has no other one.
    let introduced = || vec![ChatMessage::new(Role::System, "Be kind."), asked().remove(0)];
    assert!(claim(64 + 32 + 16, 9, introduced()));
    assert!(!claim(64 + 32 + 17, 9, introduced()));
}

#[test]
fn whoever_counts_bytes_may_reach_the_limit_with_fewer_of_them() {
    let spec = JobSpec::Text(job(64));
    // 64 tokens of three bytes are 48 by the count of bytes.
    let full = answer(&"abc".repeat(64), 48, FinishReason::Length);
    let cut = answer("abc", 1, FinishReason::Length);
    let of = |output: &TextOutput, proof| {
        result(&spec, &JobOutput::Text(output.clone()), &node(), 1 << 16, proof, None).is_ok()
    };
    assert!(of(&full, Proof::Original) && !of(&full, Proof::Statement));
    let spec_long = JobSpec::Text(job(200));
    let cut = result(&spec_long, &JobOutput::Text(cut), &node(), 1 << 16, Proof::Original, None);
    assert!(cut.unwrap_err().to_string().contains("before its limit"));
}

#[test]
fn long_answers_are_known_again_by_owner_model_and_prompt() {
    let long = answer(&"a long answer ".repeat(60), 200, FinishReason::Stop);
    let mark = |job: &TextJob| text_mark(&long, job, &node()).unwrap();
    let (one, mut other) = (job(500), job(400));
    assert_eq!(mark(&one), mark(&other), "the same question");
    other.messages[0].content.push('!');
    assert_eq!(mark(&one).answer, mark(&other).answer);
    assert_ne!(mark(&one).prompt, mark(&other).prompt);
    assert_eq!(mark(&one).owner, node().as_str()[..42]);
    assert!(text_mark(&answer("short", 2, FinishReason::Stop), &one, &node()).is_none());
}

fn picture(side: u32, pixel: impl Fn(u32) -> [u8; 3]) -> JobOutput {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let pixels: Vec<u8> = (0..side * side).flat_map(pixel).collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    JobOutput::Image(ImageOutput { png: Png(file), width: side, height: side })
}

#[test]
fn a_blank_picture_is_suspicious_and_a_near_copy_is_known() {
    let of = |seed| ImageJob { seed, ..ImageJob::new(ModelId::new("p").unwrap(), "x", 64) };
    let look = |seed, output: &JobOutput| {
        let JobOutput::Image(picture) = output else { panic!("a picture") };
        let facts = crate::picture::fits(picture, (64, 64)).ok();
        result(&JobSpec::Image(of(seed)), output, &node(), 1, Proof::Statement, facts)
    };
    let nearly_white = picture(64, |n| [254 + (n % 2) as u8; 3]);
    let suspicion = look(1, &nearly_white).unwrap().suspicion.unwrap();
    assert!(suspicion.contains("one colour"), "{suspicion}");
    let mark = |seed, output: &JobOutput| match look(seed, output).unwrap().mark {
        Some(Mark::Picture(mark)) => mark,
        other => panic!("{other:?}"),
    };
    let shaded = |n: u32| [(n % 64 * 3) as u8, (n / 64 * 3) as u8, 90];
    let first = mark(1, &picture(64, shaded));
    let touched =
        mark(2, &picture(64, |n| shaded(n).map(|v| v.saturating_add((n % 5 == 0).into()))));
    let other = mark(3, &picture(64, |n| [(n / 64 * 3) as u8, 200, (n % 64 * 3) as u8]));
    assert!(is_near_copy(&touched, [&first]));
    for same in [1, 1 + (1 << 32), 1 + (7 << 40)] {
        let touched = PictureMark { seed: same, ..touched.clone() };
        assert!(!is_near_copy(&touched, [&first]), "{same} starts the same noise");
    }
    assert!(!is_near_copy(&PictureMark { model: "q".into(), ..touched }, [&first]));
    assert!(!is_near_copy(&other, [&first]));
}

#[test]
fn named_tokens_are_as_many_as_are_counted_and_scores_are_of_the_claim() {
    let named = |count: u32, tokens: Vec<u32>| {
        let mut output = answer("hello there", count, FinishReason::Stop);
        output.choices[0].tokens = Some(tokens);
        output
    };
    check(named(3, vec![1, 2, 3]), None);
    check(named(4, vec![1, 2, 3]), Some("not those it counts"));
    check(named(0, vec![]), Some("not those it counts"));
    let mut unasked = answer("hello", 3, FinishReason::Stop);
    let seeds = vec![neurino_core::SeedScore { exact: 3, margin_ppm: 0 }];
    unasked.choices[0].score = Some(ClaimScore { tokens: 3, whole: true, seeds });
    check(unasked.clone(), Some("not as asked for"));

    let mut job = job(500);
    job.claim = Some(TextClaim { answers: vec![vec![7, 8, 9]], seeds: vec![1], clip_ppm: 250_000 });
    let spec = JobSpec::Text(job);
    let accepted = |change: &dyn Fn(&mut ClaimScore, &mut Usage)| {
        let mut output = unasked.clone();
        let score = output.choices[0].score.as_mut().unwrap();
        change(score, &mut output.usage);
        result(&spec, &JobOutput::Text(output), &node(), 1 << 16, Proof::Statement, None).is_ok()
    };
    assert!(accepted(&|_, _| ()));
    assert!(accepted(&|score, usage| {
        (score.tokens, score.whole, score.seeds[0].exact, usage.completion_tokens) =
            (1, false, 1, 1);
    }));
    assert!(!accepted(&|_, usage| usage.completion_tokens = 4), "counts what is not there");
    assert!(!accepted(&|score, _| score.tokens = 2), "whole, and a token short");
    assert!(!accepted(&|score, _| score.seeds[0].exact = 4), "more than there are");
    assert!(
        !accepted(&|score, _| (score.seeds[0].exact, score.seeds[0].margin_ppm) = (2, 250_001))
    );
    assert!(!accepted(&|score, _| score.seeds.push(score.seeds[0])), "a seed too many");
    let plain = JobOutput::Text(answer("hello", 3, FinishReason::Stop));
    assert!(result(&spec, &plain, &node(), 1 << 16, Proof::Statement, None).is_err(), "no scores");
}
