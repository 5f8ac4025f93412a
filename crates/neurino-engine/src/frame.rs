//! What a parent and its engine process say to each other: JSON in frames over two pipes.
//!
//! A frame is a length (four bytes, big endian, without itself) and that many bytes of JSON. The
//! parent speaks first; both sides begin with a hello that names [`VERSION`].

use std::io::{self, Read, Write};
use std::path::PathBuf;

use neurino_core::JobSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::api::{DeviceChoice, EngineCounters, EngineError, JobEvent, LoadedModel, ModelRef};

/// The version of this conversation; both sides are the same program, so only equality counts.
pub const VERSION: u32 = 5;

/// Largest frame, in bytes: far above the longest conversation a job may carry, above the output of a
/// job that asked for as many log-probabilities as it may, and above the largest picture.
pub const LIMIT_BYTES: u32 = 32 << 20;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the pipe between two frames.
    #[error("the pipe was closed")]
    Closed,
    /// The pipe ended inside a frame.
    #[error("the pipe ended inside a frame")]
    Truncated,
    /// The length is above [`LIMIT_BYTES`]; most often somebody wrote text into the pipe.
    #[error("a frame of {size_bytes} bytes is above the limit of {LIMIT_BYTES}")]
    TooLarge {
        /// The announced length.
        size_bytes: u64,
    },
    /// The bytes are not the message that was expected.
    #[error("a frame holds no message of this version")]
    Malformed(#[source] serde_json::Error),
    /// The pipe failed.
    #[error("the pipe failed")]
    Io(#[source] io::Error),
}

/// What the parent sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToChild {
    /// The first frame.
    Hello {
        /// The sender's [`VERSION`].
        version: u32,
        /// The device to compute on.
        device: DeviceChoice,
        /// Where to keep what is tuned for a card; not at all if absent.
        #[serde(default)]
        tunings: Option<PathBuf>,
        /// Whether models are warmed up for all that is usual, however long that takes.
        #[serde(default)]
        warms_all: bool,
    },
    /// Load a model; answered by [`FromChild::Loaded`].
    Load {
        /// Names the request.
        request: u64,
        /// The model.
        model: Box<ModelRef>,
    },
    /// Free the model; answered by [`FromChild::Unloaded`].
    Unload {
        /// Names the request.
        request: u64,
    },
    /// Run a job; answered by [`FromChild::Job`] events.
    Run {
        /// Names the job in this process.
        job: u64,
        /// What to compute.
        spec: Box<JobSpec>,
    },
    /// End a job early.
    Cancel {
        /// The job.
        job: u64,
    },
    /// Count; answered by [`FromChild::Counted`].
    Count {
        /// Names the request.
        request: u64,
    },
}

/// What the engine process sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromChild {
    /// The first frame.
    Hello {
        /// The sender's [`VERSION`].
        version: u32,
        /// Whether the device could be taken, and its name for people.
        device: Result<String, EngineError>,
    },
    /// Sent about every second, whatever the engine is doing.
    Heartbeat {
        /// Steps of work since the start; while something runs, it must rise.
        steps: u64,
    },
    /// A model is being loaded.
    Loading {
        /// Bytes read.
        done_bytes: u64,
        /// Bytes to read.
        total_bytes: u64,
        /// First steps done, in percent.
        #[serde(default)]
        warm_percent: u8,
    },
    /// The answer to [`ToChild::Count`].
    Counted {
        /// The request.
        request: u64,
        /// The counts.
        counters: EngineCounters,
    },
    /// The answer to [`ToChild::Load`].
    Loaded {
        /// The request.
        request: u64,
        /// How it went.
        result: Result<LoadedModel, EngineError>,
    },
    /// The answer to [`ToChild::Unload`].
    Unloaded {
        /// The request.
        request: u64,
        /// How it went.
        result: Result<(), EngineError>,
    },
    /// A job went on.
    Job {
        /// The job.
        job: u64,
        /// What happened.
        event: JobEvent,
    },
}

/// A message as a frame.
///
/// # Errors
/// `TooLarge`, `Malformed`.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Malformed)?;
    let size_bytes = frame.len() as u64 - 4;
    match u32::try_from(size_bytes) {
        Ok(size) if size <= LIMIT_BYTES => frame[..4].copy_from_slice(&size.to_be_bytes()),
        _ => return Err(FrameError::TooLarge { size_bytes }),
    }
    Ok(frame)
}

/// Writes a message and flushes it.
///
/// # Errors
/// Those of [`encode`], and `Io`.
pub fn write<T: Serialize>(pipe: &mut impl Write, message: &T) -> Result<(), FrameError> {
    let frame = encode(message)?;
    pipe.write_all(&frame).and_then(|()| pipe.flush()).map_err(FrameError::Io)
}

/// Waits for the next message.
///
/// # Errors
/// Any [`FrameError`]; nothing can be read from the pipe afterwards.
pub fn read<T: DeserializeOwned>(pipe: &mut impl Read) -> Result<T, FrameError> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match pipe.read(&mut length[have..]) {
            Ok(0) => return Err(ended(have)),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FrameError::Io(e)),
        }
    }
    let mut body = vec![0; checked_length(length)?];
    pipe.read_exact(&mut body).map_err(inside)?;
    serde_json::from_slice(&body).map_err(FrameError::Malformed)
}

/// The same for an asynchronous pipe. Not cancel safe.
///
/// # Errors
/// As [`read`].
pub async fn read_async<T: DeserializeOwned>(
    pipe: &mut (impl AsyncRead + Unpin),
) -> Result<T, FrameError> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match pipe.read(&mut length[have..]).await {
            Ok(0) => return Err(ended(have)),
            Ok(n) => have += n,
            Err(e) => return Err(FrameError::Io(e)),
        }
    }
    let mut body = vec![0; checked_length(length)?];
    pipe.read_exact(&mut body).await.map_err(inside)?;
    serde_json::from_slice(&body).map_err(FrameError::Malformed)
}

fn ended(have: usize) -> FrameError {
    if have == 0 { FrameError::Closed } else { FrameError::Truncated }
}

fn inside(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    }
}

fn checked_length(length: [u8; 4]) -> Result<usize, FrameError> {
    let size = u32::from_be_bytes(length);
    if size > LIMIT_BYTES {
        return Err(FrameError::TooLarge { size_bytes: size.into() });
    }
    Ok(size as usize)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe_in_order() {
        let messages = [
            ToChild::Hello {
                version: VERSION,
                device: DeviceChoice::Cpu,
                tunings: Some("/data/tuning".into()),
                warms_all: true,
            },
            ToChild::Cancel { job: 7 },
        ];
        let mut pipe = Vec::new();
        for message in &messages {
            write(&mut pipe, message).unwrap();
        }
        let mut pipe = pipe.as_slice();
        for message in &messages {
            assert_eq!(&read::<ToChild>(&mut pipe).unwrap(), message);
        }
        assert!(matches!(read::<ToChild>(&mut pipe), Err(FrameError::Closed)));
    }

    #[tokio::test]
    async fn bad_bytes_become_typed_errors_on_both_readers() {
        let truncated = [0, 0, 0, 9, b'{'];
        let malformed = [0, 0, 0, 2, b'{', b'}'];
        let half_a_length = [0, 0];
        let text = b"warning: something happened\n";
        for bytes in [&truncated[..], &malformed, &half_a_length, text] {
            let (mut one, mut two) = (bytes, bytes);
            let error = read::<FromChild>(&mut one).unwrap_err();
            let same = read_async::<FromChild>(&mut two).await.unwrap_err();
            assert_eq!(error.to_string(), same.to_string());
            let fits = match bytes.len() {
                5 | 2 => matches!(error, FrameError::Truncated),
                6 => matches!(error, FrameError::Malformed(_)),
                _ => matches!(error, FrameError::TooLarge { size_bytes: 0x7761_726e }),
            };
            assert!(fits, "{bytes:?}: {error:?}");
        }
    }

    #[test]
    fn the_largest_output_fits_and_survives() {
        use neurino_core::job::{RatedToken, TextChoice, TokenLogprob};
        use neurino_core::{FinishReason, JobOutput, TextJob, TextOutput, Usage};
        // As long as tokens get in any vocabulary in use, and the longest numbers there are.
        let rated = || RatedToken { bytes: vec![200; 128], logprob: -12.345_678 };
        let rivals = TextJob::TOP_LOGPROBS_LIMIT;
        let tokens = (TextJob::LOGPROBS_LIMIT / (1 + rivals)) as usize;
        let top = std::iter::repeat_with(rated).take(rivals as usize).collect();
        let logprob = TokenLogprob { chosen: rated(), top };
        let mut choice = TextChoice::new("\u{1}".repeat(128 * tokens), FinishReason::Length);
        choice.logprobs = Some(vec![logprob; tokens]);
        let output = TextOutput { choices: vec![choice], usage: Usage::default(), precision: None };
        let event = JobEvent::Finished { output: JobOutput::Text(output) };
        let message = FromChild::Job { job: 1, event };
        let frame = encode(&message).unwrap();
        assert_eq!(read::<FromChild>(&mut frame.as_slice()).unwrap(), message);
    }

    #[test]
    fn a_message_above_the_limit_is_refused_before_it_is_sent() {
        let text = "x".repeat(LIMIT_BYTES as usize);
        assert!(matches!(encode(&text), Err(FrameError::TooLarge { .. })));
    }
}
