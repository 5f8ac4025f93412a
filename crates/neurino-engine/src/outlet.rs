//! The sending half of a job's stream: never blocks the engine, never loses the last event.

use neurino_core::{ImageStep, JobOutput, TextDelta, TextJob};
use tokio::sync::mpsc;

use crate::api::{EngineError, EngineErrorCode, JobEvent, JobStream};

/// Events a stream holds before deltas are held back and joined.
const STREAM_EVENTS: usize = 64;
/// Room kept from the start: the rest of each answer, and the last event.
const LAST_EVENTS: usize = TextJob::CHOICES_LIMIT as usize + 1;

/// Sends one job's events.
///
/// A slow reader gets fewer and longer deltas, answer by answer, instead of stopping the engine;
/// room for the rest of every answer and for the last event is kept from the start.
#[derive(Debug)]
pub(crate) struct Outlet {
    events: mpsc::Sender<JobEvent>,
    last: Vec<mpsc::OwnedPermit<JobEvent>>,
    /// At most one for each answer.
    held: Vec<TextDelta>,
    tokens: u32,
    /// The newest step that found no room.
    held_step: Option<ImageStep>,
}

impl Outlet {
    /// A new stream and its sending half.
    pub(crate) fn new() -> (Self, JobStream) {
        let (events, stream) = mpsc::channel(STREAM_EVENTS + LAST_EVENTS);
        let reserve = || {
            let room = events.clone().try_reserve_owned();
            room.expect("a new channel with its receiver has room")
        };
        let last = std::iter::repeat_with(reserve).take(LAST_EVENTS).collect();
        (Self { events, last, held: Vec::new(), tokens: 0, held_step: None }, stream)
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// A handle that tells when the reader is gone. It keeps the stream from ending.
    pub(crate) fn watch(&self) -> mpsc::Sender<JobEvent> {
        self.events.clone()
    }

    /// Says that the prompt is being read.
    pub(crate) fn started(&self, prompt_tokens: u32) {
        // The stream is empty here; a reader that is gone does not miss it.
        let _ = self.events.try_send(JobEvent::Started { prompt_tokens });
    }

    /// Sends a delta now, or joined with the next one that finds room.
    pub(crate) fn delta(&mut self, delta: TextDelta, tokens: u32) {
        self.tokens = tokens;
        match self.held.iter_mut().find(|held| held.choice == delta.choice) {
            Some(held) => held.append(delta),
            None => self.held.push(delta),
        }
        let room = self.events.capacity().min(self.held.len());
        for delta in self.held.drain(..room) {
            // Nobody else sends: the room that was there is still there, unless nobody reads.
            let _ = self.events.try_send(JobEvent::Delta { delta, tokens });
        }
    }

    /// Sends a picture's step, or keeps it until a newer one takes its place. Steps of which only the
    /// newest is of interest may be missed: the last one is followed by the picture.
    pub(crate) fn step(&mut self, step: ImageStep) {
        let step = match self.held_step.take() {
            // A preview that was not seen is still newer than the one the reader has.
            Some(held) if step.preview.is_none() => ImageStep { preview: held.preview, ..step },
            _ => step,
        };
        if self.events.capacity() == 0 {
            self.held_step = Some(step);
        } else {
            // Nobody else sends; a reader that is gone does not miss it.
            let _ = self.events.try_send(JobEvent::Step { step });
        }
    }

    /// Sends what was still held back, then the output as the last event.
    pub(crate) fn finish(mut self, output: JobOutput) {
        self.end(JobEvent::Finished { output });
    }

    /// Sends the error as the last event.
    pub(crate) fn fail(mut self, error: EngineError) {
        self.end(JobEvent::Failed { error });
    }

    fn end(&mut self, event: JobEvent) {
        let deltas = self.held.drain(..).map(|delta| {
            let tokens = self.tokens;
            JobEvent::Delta { delta, tokens }
        });
        for (event, room) in deltas.chain([event]).zip(self.last.drain(..)) {
            room.send(event);
        }
    }
}

/// Whoever lets go of a job without a word, by a panic or at the end of the program, has left it.
impl Drop for Outlet {
    fn drop(&mut self) {
        let error = EngineError::new(EngineErrorCode::Crashed, "the engine ended before the job");
        self.end(JobEvent::Failed { error });
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::Png;

    use super::*;

    #[test]
    fn a_slow_reader_gets_joined_text_of_every_answer_and_always_the_last_event() {
        let (mut outlet, mut stream) = Outlet::new();
        let say = |choice, text: &str| TextDelta { choice, ..TextDelta::text(text) };
        outlet.started(3);
        for n in 1..=1000 {
            outlet.delta(say(n % TextJob::CHOICES_LIMIT, "x"), n);
        }
        assert!(matches!(stream.blocking_recv(), Some(JobEvent::Started { prompt_tokens: 3 })));
        outlet.delta(say(2, "y"), 1001);
        outlet.fail(EngineError::new(EngineErrorCode::Cancelled, "the job was cancelled"));
        let (mut texts, mut last) = (vec![String::new(); 8], None);
        while let Some(event) = stream.blocking_recv() {
            if let JobEvent::Delta { delta, .. } = &event {
                texts[delta.choice as usize].push_str(&delta.text);
            }
            last = Some(event);
        }
        let mut expected = vec!["x".repeat(125); 8];
        expected[2].push('y');
        assert_eq!(texts, expected);
        assert!(matches!(last, Some(JobEvent::Failed { .. })));
    }

    #[test]
    fn a_slow_reader_gets_the_newest_step_and_the_newest_preview() {
        let (mut outlet, mut stream) = Outlet::new();
        let preview = |n: u8| (n == 70).then(|| Png(vec![n]));
        for n in 1..=72 {
            let (step, preview) = (u32::from(n), preview(n));
            outlet.step(ImageStep { step, steps: 80, preview });
        }
        for _ in 0..STREAM_EVENTS {
            assert!(matches!(stream.blocking_recv(), Some(JobEvent::Step { .. })));
        }
        outlet.step(ImageStep { step: 73, steps: 80, preview: None });
        let expected = ImageStep { step: 73, steps: 80, preview: Some(Png(vec![70])) };
        assert_eq!(stream.blocking_recv(), Some(JobEvent::Step { step: expected }));
    }

    #[test]
    fn a_dropped_stream_is_noticed() {
        let (mut outlet, stream) = Outlet::new();
        assert!(!outlet.is_closed());
        drop(stream);
        assert!(outlet.is_closed());
        outlet.delta(TextDelta::text("nobody reads this"), 1);
    }

    #[test]
    fn a_job_that_is_let_go_of_fails() {
        let (outlet, mut stream) = Outlet::new();
        drop(outlet);
        let last = stream.blocking_recv();
        assert!(
            matches!(last, Some(JobEvent::Failed { error }) if error.code == EngineErrorCode::Crashed)
        );
        assert!(stream.blocking_recv().is_none());
    }
}
