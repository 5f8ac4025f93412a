//! How long a job takes on this machine, told from how long others took.
//!
//! Everything is a rate: milliseconds for what a step of a picture computes, for a token that is written,
//! for a byte of a prompt that is long enough to tell. What a picture computes is told by the engine, because attention grows faster
//! than the picture; before it has told, it is the picture's megapixels. Rates follow what is measured, the latest weighing most. What was never measured
//! is not predicted, and what was measured long ago keeps nobody from trying again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use neurino_core::{JobSpec, ModelId};
use neurino_engine::{PictureFacts, PictureWork};

/// Weight of the newest measurement.
const NEWEST: f64 = 0.3;
/// A job is refused only if it would be late though it took so much less than predicted.
const LUCK: f64 = 0.8;
/// How long a measurement may keep jobs away: what slowed the machine down may be over.
const FRESH: Duration = Duration::from_mins(15);
/// Prompts of fewer bytes are answered as soon as any is: what they take is not for their bytes, and many times
/// that would keep long prompts away that take seconds.
const PROMPT_BYTES_MIN: usize = 1024;
const PIXELS_PER_MEGAPIXEL: f64 = 1e6;

/// What there is to do, as far as it decides how long that takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Work {
    /// A picture.
    Picture { steps: u32, pixels: u32, guided: bool },
    /// Answers, all written at the same time.
    Text { prompt_bytes: usize, tokens_max: u32, choices: u32 },
}

impl Work {
    pub(crate) fn of(spec: &JobSpec) -> Self {
        match spec {
            JobSpec::Image(job) => Self::Picture {
                steps: job.steps,
                pixels: job.width.saturating_mul(job.height),
                guided: job.guidance > 1.0,
            },
            JobSpec::Text(job) => Self::Text {
                prompt_bytes: job.messages.iter().map(|message| message.content.len()).sum(),
                tokens_max: job.max_tokens,
                choices: job.choices.max(1),
            },
        }
    }
}

/// When a job's steps or tokens were counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marks {
    first: Option<(Instant, u32)>,
    last: Option<(Instant, u32)>,
}

impl Marks {
    /// So many steps or tokens are done.
    pub(crate) fn done(&mut self, count: u32, now: Instant) {
        self.first.get_or_insert((now, count));
        self.last = Some((now, count));
    }
}

/// A rate in milliseconds for a unit.
#[derive(Debug, Clone, Copy, Default)]
struct Rate(Option<f64>);

impl Rate {
    fn learn(&mut self, value: f64) {
        if value.is_finite() && value >= 0.0 {
            self.0 = Some(self.0.map_or(value, |known| known + NEWEST * (value - known)));
        }
    }
}

/// What is known of a model; of a picture model whose guided steps take two passes, with and without
/// guidance.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// For the work of a step, or for a token of each answer.
    each: Rate,
    /// For the work of the decoder, beside the steps: prompt, decoder, file. Or for a byte of the prompt.
    beside: Rate,
    /// Until the first token of an answer to a short prompt, in milliseconds.
    start: Rate,
    /// Tokens of an answer.
    length: Rate,
    at: Instant,
}

impl Known {
    fn new(at: Instant) -> Self {
        let unknown = Rate(None);
        Self { each: unknown, beside: unknown, start: unknown, length: unknown, at }
    }

    /// - `of_pictures`: what they compute, as far as it is known
    fn ms(&self, work: Work, of_pictures: Option<PictureWork>) -> Option<f64> {
        let (each, beside) = (self.each.0?, self.beside.0.unwrap_or(0.0));
        Some(match work {
            Work::Picture { steps, pixels, .. } => {
                let (step, decoder) = computes(of_pictures, pixels);
                f64::from(steps) * step * each + decoder * beside
            }
            Work::Text { prompt_bytes, tokens_max, .. } => {
                // An answer is rarely as long as it may be.
                let most = f64::from(tokens_max);
                let tokens = self.length.0.map_or(most, |usual| usual.min(most));
                self.start.0.unwrap_or(0.0) + prompt_bytes as f64 * beside + tokens * each
            }
        })
    }
}

/// What a step and the decoder of a picture compute.
fn computes(of_pictures: Option<PictureWork>, pixels: u32) -> (f64, f64) {
    let megapixels = f64::from(pixels) / PIXELS_PER_MEGAPIXEL;
    of_pictures.map_or((megapixels, megapixels), |work| work.tflop(pixels))
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

/// Rates of all models that were used since the start.
#[derive(Debug, Default)]
pub(crate) struct Predictor {
    known: HashMap<(ModelId, bool), Known>,
    /// What the pictures of each model compute.
    works: HashMap<ModelId, PictureWork>,
    /// How long each model took to be loaded, in milliseconds.
    load_ms: HashMap<ModelId, u64>,
}

impl Predictor {
    /// A model was loaded; a card has measured a picture then.
    pub(crate) fn loaded(
        &mut self,
        model: &ModelId,
        load_ms: u64,
        pictures: Option<&PictureFacts>,
        now: Instant,
    ) {
        self.load_ms.insert(model.clone(), load_ms);
        let Some(PictureFacts { work, pace }) = pictures else { return };
        if self.works.insert(model.clone(), *work) != Some(*work) {
            // Rates are of the work that was known when they were measured.
            self.known.retain(|(known, _), _| known != model);
        }
        let Some(pace) = pace else { return };
        // What jobs took is worth more.
        let known = self.known.entry((model.clone(), pace.guided && work.guided_twice));
        known.or_insert_with(|| {
            let (mut known, (step, decoder)) = (Known::new(now), work.tflop(pace.pixels));
            known.each.learn(pace.step_ms / step);
            known.beside.learn(pace.beside_ms / decoder);
            known
        });
    }

    /// What is known of a model is known apart for jobs of this kind.
    fn key(&self, model: &ModelId, work: Work) -> (ModelId, bool) {
        let twice = self.works.get(model).is_none_or(|work| work.guided_twice);
        (model.clone(), twice && matches!(work, Work::Picture { guided: true, .. }))
    }

    /// A job was computed between `begun` and `computed`.
    pub(crate) fn computed(
        &mut self,
        model: &ModelId,
        work: Work,
        marks: Marks,
        begun: Instant,
        computed: Instant,
    ) {
        let Some(((first_at, first), (last_at, last))) = marks.first.zip(marks.last) else {
            return;
        };
        let of_pictures = self.works.get(model).copied();
        let key = self.key(model, work);
        let known = self.known.entry(key);
        let known = known.or_insert_with(|| Known::new(computed));
        known.at = computed;
        match work {
            Work::Picture { steps, pixels, .. } => {
                let step_ms = if last > first {
                    ms(first_at, last_at) / f64::from(last - first)
                } else {
                    ms(begun, last_at) / f64::from(last.max(1))
                };
                let (step, decoder) = computes(of_pictures, pixels);
                let beside_ms = ms(begun, computed) - step_ms * f64::from(steps);
                known.each.learn(step_ms / step);
                known.beside.learn(beside_ms.max(0.0) / decoder);
            }
            Work::Text { prompt_bytes, choices, .. } => {
                let choices = f64::from(choices);
                known.length.learn(f64::from(last) / choices);
                let until_first = ms(begun, first_at);
                if prompt_bytes < PROMPT_BYTES_MIN {
                    known.start.learn(until_first);
                } else {
                    let start = known.start.0.unwrap_or(0.0);
                    known.beside.learn((until_first - start).max(0.0) / prompt_bytes as f64);
                }
                if last > first {
                    known.each.learn(ms(first_at, last_at) * choices / f64::from(last - first));
                }
            }
        }
    }

    /// How long a job takes, in milliseconds; `None` before anything was measured. A model that is
    /// not `held` has to be loaded first.
    pub(crate) fn estimate_ms(&self, model: &ModelId, work: Work, held: bool) -> Option<u64> {
        let of_pictures = self.works.get(model).copied();
        let ms = self.known.get(&self.key(model, work))?.ms(work, of_pictures)?;
        let load_ms = if held { None } else { self.load_ms.get(model).copied() };
        Some((ms.round() as u64).saturating_add(load_ms.unwrap_or(0)))
    }

    /// How long a job would take, if that is certainly more than its budget; in milliseconds.
    pub(crate) fn too_long_ms(
        &self,
        model: &ModelId,
        work: Work,
        held: bool,
        budget_ms: u64,
        now: Instant,
    ) -> Option<u64> {
        let known = self.known.get(&self.key(model, work))?;
        if now.saturating_duration_since(known.at) > FRESH {
            return None;
        }
        let estimate_ms = self.estimate_ms(model, work, held)?;
        (estimate_ms as f64 * LUCK > budget_ms as f64).then_some(estimate_ms)
    }
}

#[cfg(test)]
mod tests {
    use neurino_engine::PicturePace;

    use super::*;

    fn id(name: &str) -> ModelId {
        ModelId::new(name).expect("valid")
    }

    fn picture(steps: u32, side: u32, guided: bool) -> Work {
        Work::Picture { steps, pixels: side * side, guided }
    }

    fn after(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    /// What a network computes that grows with its pictures alone.
    const EVEN: PictureWork =
        PictureWork { pass: [0.0, 1.0, 0.0], decoder: [0.0, 1.0, 0.0], guided_twice: true };

    /// Pictures of 4 steps and 1000 x 1000: 100 ms a step, 600 ms beside them.
    fn learn(predictor: &mut Predictor, begun: Instant, slower: u64) {
        let mut marks = Marks::default();
        for step in 1..=4 {
            marks.done(step, after(begun, slower * (200 + 100 * u64::from(step))));
        }
        let computed = after(begun, slower * 1000);
        predictor.computed(&id("m"), picture(4, 1000, true), marks, begun, computed);
    }

    #[test]
    fn nothing_is_refused_before_it_was_measured() {
        let (mut predictor, now) = (Predictor::default(), Instant::now());
        let work = picture(35, 2048, true);
        assert_eq!(predictor.too_long_ms(&id("m"), work, true, 0, now), None);
        predictor.loaded(&id("m"), 900_000, None, now);
        assert_eq!(predictor.too_long_ms(&id("m"), work, false, 0, now), None);
        learn(&mut predictor, now, 1);
        assert!(predictor.too_long_ms(&id("m"), work, true, 1, now).is_some());
        assert_eq!(predictor.too_long_ms(&id("other"), work, true, 1, now), None);
        let unguided = picture(35, 2048, false);
        assert_eq!(predictor.too_long_ms(&id("m"), unguided, true, 1, now), None);
    }

    #[test]
    fn what_was_measured_is_predicted_and_loading_comes_on_top() {
        let (mut predictor, now) = (Predictor::default(), Instant::now());
        learn(&mut predictor, now, 1);
        let estimate = |p: &Predictor, work, held| p.estimate_ms(&id("m"), work, held);
        assert_eq!(estimate(&predictor, picture(4, 1000, true), true), Some(1000));
        assert_eq!(estimate(&predictor, picture(20, 500, true), true), Some(650));
        predictor.loaded(&id("m"), 5000, None, now);
        assert_eq!(estimate(&predictor, picture(4, 1000, true), true), Some(1000));
        assert_eq!(estimate(&predictor, picture(4, 1000, true), false), Some(6000));
        let refused = |budget_ms| {
            predictor.too_long_ms(&id("m"), picture(4, 1000, true), true, budget_ms, now)
        };
        assert_eq!((refused(799), refused(801)), (Some(1000), None));
        // A machine that was slow once is asked again.
        let later = now + FRESH + Duration::from_secs(5);
        assert_eq!(predictor.too_long_ms(&id("m"), picture(4, 1000, true), true, 1, later), None);
    }

    #[test]
    fn estimates_rise_with_steps_pixels_and_tokens() {
        let (mut predictor, now) = (Predictor::default(), Instant::now());
        learn(&mut predictor, now, 3);
        let mut before = 0;
        for (steps, side) in [(1, 64), (2, 64), (2, 512), (20, 512), (20, 2048), (35, 2048)] {
            let ms = predictor.estimate_ms(&id("m"), picture(steps, side, true), true);
            assert!(ms > Some(before), "{steps} {side}");
            before = ms.unwrap_or_default();
        }
        let text = |prompt_bytes, tokens_max| Work::Text { prompt_bytes, tokens_max, choices: 2 };
        let mut marks = Marks::default();
        marks.done(2, after(now, 1000));
        marks.done(42, after(now, 2000));
        predictor.computed(&id("t"), text(2000, 400), marks, now, after(now, 2050));
        let ms = |bytes, tokens| predictor.estimate_ms(&id("t"), text(bytes, tokens), true);
        // Half a millisecond for a byte, fifty for a token of both answers; they have 21 each.
        assert_eq!(ms(2000, 10), Some(1500));
        assert_eq!((ms(2000, 400), ms(2000, 21)), (Some(2050), Some(2050)));
        assert!(ms(0, 10) < ms(200, 10) && ms(200, 10) < ms(200, 20) && ms(9000, 21) > ms(200, 21));
    }

    #[test]
    fn short_prompts_keep_no_long_one_away() {
        let (mut predictor, now) = (Predictor::default(), Instant::now());
        let text = |prompt_bytes| Work::Text { prompt_bytes, tokens_max: 40, choices: 1 };
        let answered = |predictor: &mut Predictor, bytes, first_ms| {
            let mut marks = Marks::default();
            marks.done(1, after(now, first_ms));
            marks.done(21, after(now, first_ms + 1000));
            predictor.computed(&id("t"), text(bytes), marks, now, after(now, first_ms + 1000));
        };
        let ms = |p: &Predictor, bytes| p.estimate_ms(&id("t"), text(bytes), true);
        (0..6).for_each(|_| answered(&mut predictor, 2, 200));
        assert_eq!((ms(&predictor, 2), ms(&predictor, 30_000)), (Some(1250), Some(1250)));
        answered(&mut predictor, 30_000, 3200);
        assert_eq!(ms(&predictor, 30_000), Some(4250));
        (0..6).for_each(|_| answered(&mut predictor, 2, 200));
        assert_eq!(ms(&predictor, 30_000), Some(4250));
        assert_eq!(predictor.too_long_ms(&id("t"), text(30_000), true, 180_000, now), None);
    }

    #[test]
    fn a_network_with_guidance_inside_has_the_pace_that_its_card_measured() {
        let now = Instant::now();
        let pace = PicturePace { step_ms: 50.0, beside_ms: 25.0, pixels: 250_000, guided: false };
        let loaded = |guided_twice| {
            let mut predictor = Predictor::default();
            let work = PictureWork { guided_twice, ..EVEN };
            predictor.loaded(&id("m"), 1, Some(&PictureFacts { work, pace: Some(pace) }), now);
            predictor.estimate_ms(&id("m"), picture(4, 500, true), true)
        };
        assert_eq!((loaded(false), loaded(true)), (Some(225), None));
    }

    #[test]
    fn attention_makes_large_pictures_slower_than_their_pixels() {
        let (mut predictor, now) = (Predictor::default(), Instant::now());
        // A step: half for what grows with the pixels, half for attention, at 1000 x 1000.
        let work = PictureWork { pass: [0.0, 0.5, 0.5], ..EVEN };
        predictor.loaded(&id("m"), 1, Some(&PictureFacts { work, pace: None }), now);
        assert_eq!(predictor.estimate_ms(&id("m"), picture(4, 1000, true), true), None);
        learn(&mut predictor, now, 1);
        let estimate = |side| predictor.estimate_ms(&id("m"), picture(4, side, true), true);
        assert_eq!(estimate(1000), Some(1000));
        // 4 x 100 ms x (0.5 x 4 + 0.5 x 16) + 600 ms x 4.
        assert_eq!(estimate(2000), Some(6400));
        // 4 x 100 ms x (0.5 / 4 + 0.5 / 16) + 600 ms / 4.
        assert!(matches!(estimate(500), Some(212..=213)), "{:?}", estimate(500));
        // Rates in other units are forgotten.
        predictor.loaded(&id("m"), 1, Some(&PictureFacts { work: EVEN, pace: None }), now);
        assert_eq!(predictor.estimate_ms(&id("m"), picture(4, 1000, true), true), None);
    }

    #[test]
    fn rates_follow_the_machine_and_a_card_brings_one_along() {
        let (mut predictor, now) = (Predictor::default(), Instant::now());
        let pace = PicturePace { step_ms: 50.0, beside_ms: 25.0, pixels: 250_000, guided: true };
        let pace = PictureFacts { work: EVEN, pace: Some(pace) };
        predictor.loaded(&id("m"), 1, Some(&pace), now);
        let work = picture(4, 500, true);
        assert_eq!(predictor.estimate_ms(&id("m"), work, true), Some(225));
        learn(&mut predictor, now, 1);
        let after_one = predictor.estimate_ms(&id("m"), work, true);
        predictor.loaded(&id("m"), 1, Some(&pace), now);
        assert_eq!(predictor.estimate_ms(&id("m"), work, true), after_one, "jobs count more");
        for _ in 0..30 {
            learn(&mut predictor, now, 5);
        }
        assert_eq!(predictor.estimate_ms(&id("m"), picture(4, 1000, true), true), Some(5000));
        // A job without a step, or one that was answered at once, teaches nothing wrong.
        predictor.computed(&id("n"), work, Marks::default(), now, now);
        assert_eq!(predictor.estimate_ms(&id("n"), work, true), None);
        let (mut marks, empty) =
            (Marks::default(), Work::Text { prompt_bytes: 0, tokens_max: 9, choices: 1 });
        marks.done(1, now);
        predictor.computed(&id("n"), empty, marks, now, now);
        assert_eq!(predictor.estimate_ms(&id("n"), empty, true), None);
    }
}
