//! Holds this build to the outputs of the reference implementation.
//!
//! A *folder* is laid out as `docs/REFERENCE_CASES.md` describes: tiny models in their real formats and
//! what the original stack computed from them. Nothing here knows names or sizes: whatever cases are
//! found are run, whatever is absent is left out.
//!
//! Reading order: [`case`] (what a case is and how its outcome reads), [`reference`] (the files),
//! then one module for each part of a folder: [`language`], [`sampling`], [`starter`], [`text`],
//! [`quant`], and [`image`] for all that belongs to the image engine.

pub mod case;
mod image;
mod language;
mod quant;
mod reference;
mod sampling;
mod starter;
mod text;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

pub use case::{Report, Tally};

/// Where to run, and where to find what a folder does not hold.
#[derive(Debug)]
pub struct Options {
    /// The device that computes.
    pub device: Device,
    /// The starter model's GGUF file.
    pub starter_model: Option<PathBuf>,
    /// A folder with one folder for each real vocabulary: `clip`, `mistral_v1`, `llama3`, `t5`.
    pub vocabularies: Option<PathBuf>,
}

/// Why a folder cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The folder is not there.
    #[error("there is no folder {}; name one that holds reference cases", .0.display())]
    NoFolder(PathBuf),
    /// The folder holds nothing of what is known.
    #[error("{} holds no reference cases; they lie in folders such as llm/, text/ and quant/", .0.display())]
    NoCases(PathBuf),
    /// Nothing was held to anything.
    #[error(
        "nothing was compared: all {skipped} cases of {} were skipped, each for the reason that stands beside it",
        folder.display()
    )]
    AllSkipped {
        /// The folder.
        folder: PathBuf,
        /// Its cases.
        skipped: usize,
    },
}

/// Runs every case found below `folder`, or below the folders in it if it holds none itself; each outcome
/// goes to `report` as it is known.
///
/// # Errors
/// [`ParityError`]. A case that fails is no error.
pub fn run(
    folder: &Path,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<Tally, ParityError> {
    if !folder.is_dir() {
        return Err(ParityError::NoFolder(folder.to_owned()));
    }
    run_cases(folder, options, report);
    if report.tally() == Tally::default() {
        for name in reference::folders(folder) {
            run_cases(&folder.join(name), options, report);
        }
    }
    match report.tally() {
        Tally { passed: 0, failed: 0, skipped: 0 } => Err(ParityError::NoCases(folder.to_owned())),
        Tally { passed: 0, failed: 0, skipped } => {
            Err(ParityError::AllSkipped { folder: folder.to_owned(), skipped })
        }
        tally => Ok(tally),
    }
}

fn run_cases(folder: &Path, options: &Options, report: &mut Report<'_>) {
    quant::run(&folder.join("quant"), report);
    text::run(&folder.join("text"), options, report);
    sampling::run(&folder.join("llm"), report);
    language::run(&folder.join("llm"), options, report);
    starter::run(&folder.join("llm_real"), options, report);
    image::run(folder, options, report);
}
