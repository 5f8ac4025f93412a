//! What a coordinator and a process that reads pictures say to each other, over the pipes of its standard
//! input and output: a greeting, then a question and its answer in turn.
//!
//! A question is a head in JSON and the files as they are, each behind its length; an answer is JSON behind
//! its length. Lengths are four bytes, little end first.

use std::io::{self, Read};

use neurino_core::{ImageOutput, Png};
use neurino_protocol::node::upload::FILE_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::{Answer, Question};
use crate::compare::Tolerance;

/// What the process says first, once it is bounded. Another version says something else.
pub(super) const GREETING: [u8; 8] = *b"picture1";
/// Longest head of a question, in bytes.
const HEAD_MAX: u32 = 4 << 10;
/// Longest answer, in bytes. A picture's facts are about four thousand.
pub(super) const ANSWER_MAX: u32 = 64 << 10;

type Size = (u32, u32);

/// A question without its files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Head {
    Facts { said: Size, asked: Size },
    Preview { asked: Size },
    Compare { first: Size, second: Size, same_class: bool, tolerance: Tolerance },
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a part is longer than it may be")
}

fn put(out: &mut Vec<u8>, part: &[u8]) -> io::Result<()> {
    let length = u32::try_from(part.len()).map_err(|_| too_long())?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(part);
    Ok(())
}

/// A question as bytes.
pub(super) fn question(question: &Question) -> io::Result<Vec<u8>> {
    let size = |picture: &ImageOutput| (picture.width, picture.height);
    let (head, files) = match question {
        Question::Facts { picture, asked } => {
            (Head::Facts { said: size(picture), asked: *asked }, vec![&picture.png])
        }
        Question::Preview { png, asked } => (Head::Preview { asked: *asked }, vec![png]),
        Question::Compare { first, second, same_class, tolerance } => {
            let head = Head::Compare {
                first: size(first),
                second: size(second),
                same_class: *same_class,
                tolerance: *tolerance,
            };
            (head, vec![&first.png, &second.png])
        }
    };
    let mut out = Vec::with_capacity(256 + files.iter().map(|png| png.0.len()).sum::<usize>());
    put(&mut out, &serde_json::to_vec(&head)?)?;
    for file in files {
        if file.0.len() as u64 > FILE_BYTES_MAX {
            return Err(too_long());
        }
        put(&mut out, &file.0)?;
    }
    Ok(out)
}

/// Reads the next question; `None` once there are no more.
pub(super) fn read_question(input: &mut impl Read) -> io::Result<Option<Question>> {
    let mut length = [0; 4];
    // An end between two questions is the end of it all.
    if input.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut length[1..])?;
    let head: Head = serde_json::from_slice(&part(input, length, HEAD_MAX.into())?)?;
    let mut picture = |(width, height): Size| -> io::Result<ImageOutput> {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        Ok(ImageOutput { png: Png(part(input, length, FILE_BYTES_MAX)?), width, height })
    };
    Ok(Some(match head {
        Head::Facts { said, asked } => Question::Facts { picture: picture(said)?, asked },
        Head::Preview { asked } => Question::Preview { png: picture(asked)?.png, asked },
        Head::Compare { first, second, same_class, tolerance } => Question::Compare {
            first: picture(first)?,
            second: picture(second)?,
            same_class,
            tolerance,
        },
    }))
}

fn part(input: &mut impl Read, length: [u8; 4], most: u64) -> io::Result<Vec<u8>> {
    let length = u32::from_le_bytes(length);
    if u64::from(length) > most {
        return Err(too_long());
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// An answer as bytes.
pub(super) fn answer(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    put(&mut out, &serde_json::to_vec(answer)?)?;
    Ok(out)
}

/// The answer in a part that was read.
pub(super) fn read_answer(part: &[u8]) -> io::Result<Answer> {
    Ok(serde_json::from_slice(part)?)
}
