//! What goes wrong for one request, or for a step, and what goes on.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use neurino_core::{ChatMessage, ModelId, Role};

use super::*;
use crate::checkpoint::Precision;
use crate::source::ModelSource;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm/llama3")
}

fn runner(path: &Path) -> Runner {
    let source = ModelSource::open(path).unwrap();
    let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos).unwrap();
    let template = ChatTemplate::open(&source, &tokenizer).unwrap();
    let model =
        LanguageModel::load_as(&source, &Device::flex(), Precision::Full, &|_, _| ()).unwrap();
    let limits = ServingLimits { n_blocks: 64, rows_per_step: 64, sequences_max: 8 };
    Runner::new(model, tokenizer, template, limits)
}

fn job(words: &str) -> TextJob {
    let messages = vec![ChatMessage::new(Role::User, words)];
    TextJob::new(ModelId::new("tiny").unwrap(), messages, 12)
}

fn submit(runner: &mut Runner, id: u64, words: &str) {
    let now = "2026-11-21T12:00:00[UTC]".parse().unwrap();
    runner.submit(RequestId(id), &job(words), &now).unwrap();
}

/// Runs to the end; returns the text or the error of each request.
fn finish(runner: &mut Runner) -> std::collections::BTreeMap<u64, Result<String, GenerateError>> {
    let mut ends = std::collections::BTreeMap::new();
    while !runner.is_idle() {
        for event in runner.step() {
            let before = match event {
                RunnerEvent::Delta { .. } => None,
                RunnerEvent::Finished { id, output } => ends.insert(id.0, Ok(output.text().into())),
                RunnerEvent::Failed { id, error } => ends.insert(id.0, Err(error)),
            };
            assert!(before.is_none(), "one end");
        }
    }
    let counters = runner.counters();
    assert_eq!((counters.scheduler.blocks.used, counters.requests), (0, 0));
    assert!(runner.answers.is_empty() && runner.numbers.is_empty());
    ends
}

#[test]
fn a_step_that_fails_ends_its_requests_and_no_others() {
    let mut runner = runner(&fixture());
    submit(&mut runner, 1, "Hello.");
    let alone = finish(&mut runner).remove(&1).unwrap().unwrap();
    // Eight fill all places; the ninth waits.
    for id in 1..=9 {
        submit(&mut runner, id, "Hello.");
    }
    for _ in 0..3 {
        runner.step();
    }
    assert_eq!(runner.counters().scheduler.waiting, 1);
    // The blocks of the plan are not in this one.
    runner.cache = runner.model.new_cache(1);
    let ends = finish(&mut runner);
    for id in 1..=8 {
        assert!(matches!(&ends[&id], Err(GenerateError::Model(_))), "{:?}", ends[&id]);
    }
    assert_eq!(ends[&9].as_ref().unwrap(), &alone, "what waited goes on with a new cache");
    assert_eq!(runner.cache.n_blocks(), 64);
}

/// The fixture with one token's embedding not a number.
fn broken_fixture(token: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|e| e == "safetensors") {
            let header_size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: serde_json::Value =
                serde_json::from_slice(&bytes[8..8 + header_size]).unwrap();
            if let Some(range) = header["model.embed_tokens.weight"]["data_offsets"].as_array() {
                let width = 2 * header["model.embed_tokens.weight"]["shape"][1].as_u64().unwrap();
                let row =
                    8 + header_size as u64 + range[0].as_u64().unwrap() + width * u64::from(token);
                bytes[row as usize..(row + width) as usize].fill(0xff);
            }
        }
        std::fs::write(folder.path().join(entry.file_name()), bytes).unwrap();
    }
    folder
}

#[test]
fn scores_that_are_no_numbers_end_their_request_alone() {
    let probe = runner(&fixture());
    let tokens = |words: &str| probe.tokenizer().encode(words, false).unwrap();
    let poison = *tokens("Zebra").iter().find(|t| !tokens("Hello there.").contains(t)).unwrap();
    let folder = broken_fixture(poison);
    let mut runner = runner(folder.path());
    submit(&mut runner, 1, "Hello there.");
    submit(&mut runner, 2, "Zebra");
    submit(&mut runner, 3, "Hello there.");
    let ends = finish(&mut runner);
    assert!(matches!(ends[&2], Err(GenerateError::NoLogits)), "{:?}", ends[&2]);
    assert_eq!(ends[&1].as_ref().unwrap(), ends[&3].as_ref().unwrap());
    // Nothing of it is found again.
    submit(&mut runner, 4, "Hello there.");
    assert_eq!(finish(&mut runner)[&4].as_ref().unwrap(), ends[&1].as_ref().unwrap());
}

#[test]
fn copies_are_cut_where_one_would_read_what_another_wrote() {
    let cut = |copies: &[(u32, u32)]| independent(copies).map(<[_]>::len).collect::<Vec<_>>();
    assert_eq!(cut(&[(1, 2), (1, 3), (4, 5)]), [3]);
    assert_eq!(cut(&[(1, 2), (3, 1)]), [1, 1], "written after it was read");
    assert_eq!(cut(&[(1, 2), (2, 3), (2, 4)]), [1, 2], "read after it was written");
    assert!(cut(&[]).is_empty());
}
