//! The sending half of a job's stream: never blocks the engine, never loses the last event.

use neurino_core::JobOutput;
use tokio::sync::mpsc;

use crate::api::{EngineError, EngineErrorCode, JobEvent, JobStream};

/// Events a stream holds before text is held back and joined.
const STREAM_EVENTS: usize = 64;

/// Sends one job's events.
///
/// A slow reader gets fewer and longer deltas instead of stopping the engine; room for the last
/// delta and the last event is kept from the start.
#[derive(Debug)]
pub(crate) struct Outlet {
    events: mpsc::Sender<JobEvent>,
    last_delta: Option<mpsc::OwnedPermit<JobEvent>>,
    last: Option<mpsc::OwnedPermit<JobEvent>>,
    held: String,
    tokens: u32,
}

impl Outlet {
    /// A new stream and its sending half.
    pub(crate) fn new() -> (Self, JobStream) {
        let (events, stream) = mpsc::channel(STREAM_EVENTS);
        let reserve = || {
            let room = events.clone().try_reserve_owned();
            Some(room.expect("a new channel with its receiver has room"))
        };
        let (last_delta, last) = (reserve(), reserve());
        (Self { events, last_delta, last, held: String::new(), tokens: 0 }, stream)
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

    /// Sends text now, or with the next delta that finds room.
    pub(crate) fn delta(&mut self, text: &str, tokens: u32) {
        self.held.push_str(text);
        self.tokens = tokens;
        if let Ok(room) = self.events.try_reserve() {
            room.send(JobEvent::Delta { text: std::mem::take(&mut self.held), tokens });
        }
    }

    /// Sends text that was still held back, then the output as the last event.
    pub(crate) fn finish(mut self, output: JobOutput) {
        self.end(JobEvent::Finished { output });
    }

    /// Sends the error as the last event.
    pub(crate) fn fail(mut self, error: EngineError) {
        self.end(JobEvent::Failed { error });
    }

    fn end(&mut self, event: JobEvent) {
        let (Some(for_delta), Some(room)) = (self.last_delta.take(), self.last.take()) else {
            return;
        };
        if !self.held.is_empty() {
            let text = std::mem::take(&mut self.held);
            for_delta.send(JobEvent::Delta { text, tokens: self.tokens });
        }
        room.send(event);
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
    use super::*;

    #[test]
    fn a_slow_reader_gets_joined_text_and_always_the_last_event() {
        let (mut outlet, mut stream) = Outlet::new();
        outlet.started(3);
        for n in 1..=1000 {
            outlet.delta("x", n);
        }
        assert!(matches!(stream.blocking_recv(), Some(JobEvent::Started { prompt_tokens: 3 })));
        outlet.delta("y", 1001);
        outlet.fail(EngineError::new(EngineErrorCode::Cancelled, "the job was cancelled"));
        let (mut text, mut last) = (String::new(), None);
        while let Some(event) = stream.blocking_recv() {
            if let JobEvent::Delta { text: more, .. } = &event {
                text.push_str(more);
            }
            last = Some(event);
        }
        assert_eq!(text, "x".repeat(1000) + "y");
        assert!(matches!(last, Some(JobEvent::Failed { .. })));
    }

    #[test]
    fn a_dropped_stream_is_noticed() {
        let (mut outlet, stream) = Outlet::new();
        assert!(!outlet.is_closed());
        drop(stream);
        assert!(outlet.is_closed());
        outlet.delta("nobody reads this", 1);
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
