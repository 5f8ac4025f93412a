//! `llm_real/smollm2.json`: a real model, whose file the folder does not hold.

use std::collections::BTreeMap;
use std::path::Path;

use neurino_llm::checkpoint::Precision;
use neurino_llm::{LanguageModel, ModelSource, Tokenizer};
use neurino_weights::Gguf;
use serde::Deserialize;

use crate::Options;
use crate::case::{Comparison, Report};
use crate::language::same_ids;
use crate::reference::json;

/// Below this lead over the second token, either may come first.
const MARGIN: f32 = 0.02;
/// Largest difference of a weight, relative to the largest of those compared.
const WEIGHT_LIMIT: f64 = 1e-6;
/// Largest difference of the five best logits, relative to the largest of them.
const LOGIT_LIMIT: f64 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    /// The file's name.
    file: String,
    tensors: BTreeMap<String, Sample>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Sample {
    row0: Vec<f32>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    greedy_text: String,
    margins: Vec<f32>,
    top5_ids: Vec<Vec<u32>>,
    top5_logits: Vec<Vec<f32>>,
}

pub(crate) fn run(folder: &Path, options: &Options, report: &mut Report<'_>) {
    let path = folder.join("smollm2.json");
    if !path.is_file() {
        return;
    }
    let reference: Reference = match json(&path) {
        Ok(reference) => reference,
        Err(error) => return report.failed("llm_real/smollm2", &error),
    };
    // Beside the cases, or where the options say.
    let beside = folder.join(&reference.file);
    let file = if beside.is_file() { Some(&beside) } else { options.starter_model.as_ref() };
    let Some(file) = file else {
        let reason = format!("{} is not here; --starter-model names it", reference.file);
        return report.skipped("llm_real/smollm2", &reason);
    };
    if let Err(error) = run_cases(file, &reference, options, report) {
        report.failed("llm_real/smollm2", error.as_ref());
    }
}

fn run_cases(
    file: &Path,
    reference: &Reference,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let gguf = Gguf::open(file)?;
    for (tensor, sample) in &reference.tensors {
        let found = gguf.tensor(tensor)?.to_f32()?;
        let found = &found[..sample.row0.len().min(found.len())];
        let comparison = Comparison::of_rows(found, &sample.row0, sample.row0.len(), WEIGHT_LIMIT);
        report.close(&format!("llm_real/smollm2 {tensor}"), &comparison);
    }
    drop(gguf);

    let source = ModelSource::open(file)?;
    let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos)?;
    let model = LanguageModel::load_as(&source, &options.device, Precision::Full, &|_, _| ())?;
    for (number, case) in reference.cases.iter().enumerate() {
        let name = |part: &str| format!("llm_real/smollm2 p{number} {part}");
        let found = tokenizer.encode(&case.text, false)?;
        report.equal(&name("tokens"), same_ids(&found, &case.ids));
        let found = tokenizer.decode(&case.greedy_ids);
        let found = if found == case.greedy_text {
            Ok(case.greedy_ids.len())
        } else {
            Err(format!("{found:?} instead of {:?}", case.greedy_text))
        };
        report.equal(&name("text"), found);
        greedy(&model, case, &name, report)?;
    }
    Ok(())
}

fn greedy(
    model: &LanguageModel,
    case: &Case,
    name: &dyn Fn(&str) -> String,
    report: &mut Report<'_>,
) -> Result<(), neurino_llm::LlmError> {
    let mut sequence = model.new_sequence(case.ids.len() + case.greedy_ids.len());
    let mut logits = model.forward(&case.ids, &mut sequence)?;
    let mut comparison = Comparison::new(LOGIT_LIMIT);
    let mut found = Ok(0);
    for (step, &token) in case.greedy_ids.iter().enumerate() {
        let (top_ids, top_logits) = (&case.top5_ids[step], &case.top5_logits[step]);
        let top: Vec<f32> = top_ids.iter().map(|&id| logits[id as usize]).collect();
        comparison.add_rows(&format!("step {step}, "), &top, top_logits, top_logits.len());
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        let best = best.map_or(0, |(id, _)| id as u32);
        if case.margins[step] > MARGIN
            && let Ok(clear) = &mut found
        {
            *clear += 1;
            if best != token {
                found = Err(format!("step {step}: token {best} instead of {token}"));
            }
        }
        logits = model.forward(&[token], &mut sequence)?;
    }
    report.close(&name("best logits"), &comparison);
    report.equal(&name("greedy_ids"), found);
    Ok(())
}
