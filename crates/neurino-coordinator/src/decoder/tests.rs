//! What a process says is what would be found here, and nothing that is said to it breaks it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;

/// What a process answers, in the words of its pipes.
fn through_pipes(questions: &[Question]) -> Vec<Answer> {
    let frames: Vec<u8> = questions.iter().flat_map(|q| wire::question(q).unwrap()).collect();
    let mut said = Vec::new();
    child::serve(&mut &frames[..], &mut said, |_| {}).unwrap();
    let mut rest = said.strip_prefix(&wire::GREETING).unwrap();
    let mut answers = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        assert!(length <= wire::ANSWER_MAX);
        let (part, after) = after.split_at(length as usize);
        answers.push(wire::read_answer(part).unwrap());
        rest = after;
    }
    answers
}

fn picture(width: u32, height: u32, pixels: &[u8], filter: png::Filter) -> ImageOutput {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_filter(filter);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    ImageOutput { png: Png(file), width, height }
}

fn pictures() -> impl Strategy<Value = ImageOutput> {
    let filters = [png::Filter::NoFilter, png::Filter::Paeth, png::Filter::Adaptive];
    (1_u32..40, 1_u32..40, 0_usize..3, any::<u8>(), any::<bool>()).prop_flat_map(
        move |(width, height, filter, shade, flat)| {
            let samples = (width * height * 3) as usize;
            let pixels = if flat {
                Just(vec![shade; samples]).boxed()
            } else {
                prop::collection::vec(any::<u8>(), samples).boxed()
            };
            pixels.prop_map(move |pixels| picture(width, height, &pixels, filters[filter]))
        },
    )
}

proptest! {
    /// Whole pictures, damaged ones, cut ones, and those of another size.
    #[test]
    fn both_sides_of_the_pipes_find_the_same(
        first in pictures(),
        second in pictures(),
        damage in prop::option::of((any::<prop::sample::Index>(), 1_u8..)),
        cut in prop::option::of(any::<prop::sample::Index>()),
        larger in 0_u32..2,
        same_class in any::<bool>(),
    ) {
        let mut first = first;
        if let Some((at, by)) = damage {
            let at = at.index(first.png.0.len());
            first.png.0[at] ^= by;
        }
        if let Some(at) = cut {
            let at = at.index(first.png.0.len());
            first.png.0.truncate(at);
        }
        let asked = (first.width + larger, first.height);
        let tolerance = Tolerance::default();
        let again = ImageOutput { ..first.clone() };
        let questions = [
            Question::Facts { picture: first.clone(), asked },
            Question::Preview { png: first.png.clone(), asked },
            Question::Compare { first: first.clone(), second, same_class, tolerance },
            Question::Compare { first, second: again, same_class, tolerance },
        ];
        let here: Vec<Answer> = questions.iter().map(Question::answer).collect();
        prop_assert_eq!(through_pipes(&questions), here);
    }

    #[test]
    fn no_frame_breaks_the_process(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // It ends, in order or not, and has greeted.
        let mut said = Vec::new();
        let _ = child::serve(&mut &bytes[..], &mut said, |_| {});
        prop_assert!(said.starts_with(&wire::GREETING));
    }

    #[test]
    fn no_answer_breaks_the_coordinator(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = wire::read_answer(&bytes);
    }
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    for frame in [&u32::MAX.to_le_bytes()[..], &(5_u32 << 10).to_le_bytes()] {
        let refused = wire::read_question(&mut &frame[..]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData, "{refused}");
    }
    let asked = wire::question(&Question::Preview { png: Png(vec![1]), asked: (1, 1) }).unwrap();
    let mut lies = asked[..asked.len() - 5].to_vec();
    lies.extend(u32::MAX.to_le_bytes());
    assert!(wire::read_question(&mut &lies[..]).is_err());
    assert!(wire::read_question(&mut &asked[..asked.len() - 1]).is_err(), "cut off");
    assert!(wire::read_question(&mut &[][..]).unwrap().is_none(), "an end in order");
}

#[tokio::test]
async fn who_is_asked_here_says_the_same() {
    let picture = picture(2, 1, &[1, 2, 3, 4, 5, 6], png::Filter::NoFilter);
    let decoder = of(None);
    let question = Question::Facts { picture, asked: (2, 1) };
    assert_eq!(decoder.ask(question.clone()).await, Ok(question.answer()));
}
