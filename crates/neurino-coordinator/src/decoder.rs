//! Who reads strangers' pictures. What reads a file that a stranger made is what a stranger attacks first;
//! where there is a program for it, it is read in a process of its own, which has nothing of ours: no keys, no
//! books, no environment, no files, little memory and little time.
//!
//! [`Decoder`] is asked; [`Here`] answers in this process (the practice network, whose pictures are this
//! machine's own, and tests), [`pool`] in children whose side is [`child`]. They speak by `wire`. Both run
//! [`Question::answer`], so what is found does not depend on where.

pub mod child;
mod pool;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use neurino_core::{ImageJob, ImageOutput, Png};
use serde::{Deserialize, Serialize};

use crate::compare::{self, Facts, Finding, Tolerance};
use crate::picture;
pub use pool::DecoderProcess;
pub(crate) use pool::Pool;

/// What is asked about pictures.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    /// What its pixels are, if it has the size that was asked for.
    Facts { picture: ImageOutput, asked: (u32, u32) },
    /// Whether it is a preview of a picture of a size.
    Preview { png: Png, asked: (u32, u32) },
    /// Whether two are the same work.
    Compare { first: ImageOutput, second: ImageOutput, same_class: bool, tolerance: Tolerance },
}

/// The answer to a question of the same name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "is", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Or what is wrong with the file.
    Facts(Result<Facts, String>),
    Preview(bool),
    /// Or what is wrong with one of the files.
    Compare(Result<Finding, String>),
}

impl Question {
    /// Answers it in this process.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::Facts { picture, asked } => {
                Answer::Facts(picture::fits(picture, *asked).map_err(str::to_owned))
            }
            Self::Preview { png, asked } => Answer::Preview(picture::is_preview(png, *asked)),
            Self::Compare { first, second, same_class, tolerance } => {
                let found = compare::pictures(first, second, *same_class, tolerance);
                Answer::Compare(found.map_err(str::to_owned))
            }
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Reading it took too much time or memory, or broke what read it.
    #[error("the picture cannot be read")]
    Broke,
    /// There is nothing to read pictures with. It is not the picture's fault.
    #[error("pictures cannot be read right now")]
    Unavailable,
}

/// Answers questions about pictures.
#[async_trait]
pub(crate) trait Decoder: Send + Sync {
    /// Answers one question with the answer of its name.
    async fn ask(&self, question: Question) -> Result<Answer, NoAnswer>;
}

impl dyn Decoder {
    /// What the pixels of a job's picture are, or what is wrong with it.
    pub(crate) async fn facts(
        &self,
        picture: &ImageOutput,
        job: &ImageJob,
    ) -> Result<Result<Facts, String>, NoAnswer> {
        let asked = (job.width, job.height);
        match self.ask(Question::Facts { picture: picture.clone(), asked }).await? {
            Answer::Facts(facts) => Ok(facts),
            _ => Err(NoAnswer::Broke),
        }
    }

    /// Whether a file is a preview of a job's picture. One that could not be looked at is none.
    pub(crate) async fn is_preview(&self, png: &Png, job: &ImageJob) -> bool {
        if png.0.len() > neurino_protocol::node::PREVIEW_BYTES_MAX {
            return false;
        }
        let question = Question::Preview { png: png.clone(), asked: (job.width, job.height) };
        matches!(self.ask(question).await, Ok(Answer::Preview(true)))
    }

    /// Compares two pictures, or says what is wrong with one of them.
    pub(crate) async fn compare(
        &self,
        first: ImageOutput,
        second: ImageOutput,
        same_class: bool,
        tolerance: Tolerance,
    ) -> Result<Result<Finding, String>, NoAnswer> {
        match self.ask(Question::Compare { first, second, same_class, tolerance }).await? {
            Answer::Compare(finding) => Ok(finding),
            _ => Err(NoAnswer::Broke),
        }
    }
}

/// The decoder that a coordinator is opened with.
pub(crate) fn of(process: Option<&DecoderProcess>) -> Arc<dyn Decoder> {
    match process {
        Some(process) => Arc::new(Pool::new(process.clone())),
        None => Arc::new(Here),
    }
}

/// Reads pictures in this process, on threads of their own.
pub(crate) struct Here;

#[async_trait]
impl Decoder for Here {
    async fn ask(&self, question: Question) -> Result<Answer, NoAnswer> {
        tokio::task::spawn_blocking(move || question.answer()).await.map_err(|error| {
            tracing::error!(%error, "a picture broke its reader");
            NoAnswer::Broke
        })
    }
}
