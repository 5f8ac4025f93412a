//! `llm/NAME/`: tiny language models in their real formats. Logits, hidden states, rotation
//! frequencies, and greedy decoding through the cache: each prompt alone, all in one batch, and cut
//! into pieces.

use std::path::Path;

use neurino_llm::checkpoint::Precision;
use neurino_llm::model::Logits;
use neurino_llm::{LanguageModel, LlmError, ModelSource, Tokenizer};
use neurino_nn::PagedKvCache;
use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, SequenceSpan};
use neurino_nn::rotary::RopeScaling;
use serde::Deserialize;

use crate::Options;
use crate::case::{Comparison, Report};
use crate::reference::{ReferenceError, Tensors, folders, json};

/// Largest difference of logits and hidden states, relative to the row's largest value.
const LIMIT: f64 = 1e-4;
/// Largest difference of a rotation frequency, relative to it.
const FREQUENCY_LIMIT: f64 = 1e-5;
/// Below this lead over the second token, either may come first.
const MARGIN: f32 = 1e-3;
/// Tokens of the pieces that a prompt is cut into; no divisor of a block, and more than one.
const PIECES: [usize; 3] = [1, 7, 16];

/// `reference.json`.
#[derive(Deserialize)]
struct Texts {
    #[serde(default)]
    prompts: Vec<String>,
}

/// An entry of `greedy.json`: many steps, without their logits.
#[derive(Deserialize)]
struct LongGreedy {
    ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    margins: Vec<f32>,
}

/// What the reference computed of one prompt.
struct Prompt {
    ids: Vec<u32>,
    /// `[ids, vocab]`
    logits: Option<Vec<f32>>,
    greedy: Option<Greedy>,
}

/// Greedy decoding from a prompt.
struct Greedy {
    ids: Vec<u32>,
    margins: Vec<f32>,
    /// `[ids + 1, vocab]`: after the prompt, then after each token.
    logits: Vec<f32>,
}

impl Prompt {
    fn read(tensors: &Tensors, number: usize) -> Result<Option<Self>, ReferenceError> {
        let name = |part: &str| format!("p{number}.{part}");
        let has = |part: &str| tensors.has(&name(part));
        if !has("ids") {
            return Ok(None);
        }
        let decoded = ["greedy_ids", "step_logits", "step_margin"].iter().all(|part| has(part));
        let greedy = || -> Result<Greedy, ReferenceError> {
            Ok(Greedy {
                ids: tensors.ids(&name("greedy_ids"))?,
                margins: tensors.floats(&name("step_margin"))?,
                logits: tensors.floats(&name("step_logits"))?,
            })
        };
        Ok(Some(Self {
            ids: tensors.ids(&name("ids"))?,
            logits: has("logits").then(|| tensors.floats(&name("logits"))).transpose()?,
            greedy: decoded.then(greedy).transpose()?,
        }))
    }
}

/// Runs every model below `folder`.
pub(crate) fn run(folder: &Path, options: &Options, report: &mut Report<'_>) {
    for name in folders(folder) {
        let model = folder.join(&name);
        let case = format!("llm/{name}");
        if !model.join("config.json").is_file() {
            report.skipped(&case, "holds no model");
        } else if !model.join("reference.safetensors").is_file() {
            report.skipped(&case, "has no reference.safetensors beside it");
        } else if let Err(error) = run_model(&model, &case, options, report) {
            report.failed(&case, error.as_ref());
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn run_model(
    folder: &Path,
    case: &str,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let tensors = Tensors::open(&folder.join("reference.safetensors"))?;
    let source = ModelSource::open(folder)?;
    let mut model = LanguageModel::load_as(&source, &options.device, Precision::Full, &|_, _| ())?;
    if tensors.has("rope.inv_freq") {
        let expect = tensors.floats("rope.inv_freq")?;
        let found = source.config.rotary();
        let comparison = Comparison::of_ratios(found.inv_freq(), &expect, FREQUENCY_LIMIT);
        report.close(&format!("{case} rope.inv_freq"), &comparison);
    }
    let mut prompts = Vec::new();
    while let Some(prompt) = Prompt::read(&tensors, prompts.len())? {
        prompts.push(prompt);
    }
    tokens(folder, &source, case, &prompts, report)?;
    let long = long_runs(folder)?;
    let mut growth = Growth::of(&source.config.rope_scaling);
    for (number, prompt) in prompts.iter().enumerate() {
        let case = format!("{case} p{number}");
        model.grow_rotation(growth.before(prompt.ids.len()));
        one_pass(&model, &case, prompt, tensors.has(&format!("p{number}.hidden")), report, || {
            tensors.floats(&format!("p{number}.hidden"))
        })?;
        if let Some(greedy) = &prompt.greedy {
            decode(&model, &case, &prompt.ids, greedy, report)?;
            if !growth.reaches(prompt.ids.len()) {
                pieces(&model, &case, &prompt.ids, greedy, report)?;
            }
            growth.after(prompt.ids.len() + greedy.ids.len());
        }
        // The reference wrote on from there in the same call.
        for run in long.iter().filter(|run| run.ids == prompt.ids) {
            growth.after(run.ids.len() + run.greedy_ids.len());
        }
        growth.after(prompt.ids.len());
    }
    model.grow_rotation(0);
    if growth.carried {
        // What one prompt is turned by depends on those before it, and nothing here is computed in their order.
        if !long.is_empty() {
            report.skipped(
                &format!("{case} greedy.json"),
                "a prompt was turned by an earlier one's length",
            );
        }
        return Ok(());
    }
    batch(&model, case, &prompts, report)?;
    long_greedy(&model, &long, case, report)
}

/// Dynamic scaling as the reference has it: what a call turns by depends on the longest text since one
/// that was shorter than the context. Beyond the context the outcome depends on how a prompt is cut, too.
#[derive(Debug, Default)]
struct Growth {
    /// None without dynamic scaling.
    context: Option<usize>,
    longest: usize,
    /// Whether a prompt was turned by an earlier one's length.
    carried: bool,
}

impl Growth {
    fn of(scaling: &RopeScaling) -> Self {
        let context = match scaling {
            RopeScaling::Dynamic { context, .. } => Some(*context),
            _ => None,
        };
        Self { context, ..Self::default() }
    }

    /// Whether frequencies have been stretched for a prompt of so many tokens.
    fn reaches(&self, tokens: usize) -> bool {
        self.context.is_some_and(|context| tokens >= context && tokens.max(self.longest) > context)
    }

    /// The length by which a prompt of so many tokens is turned at least.
    fn before(&mut self, tokens: usize) -> usize {
        if self.context.is_none_or(|context| tokens < context) {
            self.longest = 0;
        }
        self.carried |= self.longest > tokens;
        self.longest
    }

    /// Notes a call at whose end a text had so many tokens.
    fn after(&mut self, tokens: usize) {
        if self.context.is_some_and(|context| tokens > context) {
            self.longest = self.longest.max(tokens);
        }
    }
}

/// The model's own tokenizer turns the prompts into the reference's tokens.
fn tokens(
    folder: &Path,
    source: &ModelSource,
    case: &str,
    prompts: &[Prompt],
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let texts = folder.join("reference.json");
    if !texts.is_file() {
        return Ok(());
    }
    let texts: Texts = json(&texts)?;
    let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos)?;
    for (number, (text, prompt)) in texts.prompts.iter().zip(prompts).enumerate() {
        let found = tokenizer.encode(text, false)?;
        report.equal(&format!("{case} p{number} tokens"), same_ids(&found, &prompt.ids));
    }
    Ok(())
}

/// Whether two lists of ids are the same; the error says where they part.
pub(crate) fn same_ids(found: &[u32], expect: &[u32]) -> Result<usize, String> {
    if found == expect {
        return Ok(expect.len());
    }
    let at = found.iter().zip(expect).take_while(|(a, b)| a == b).count();
    let shown = |ids: &[u32]| {
        let rest: Vec<String> = ids.iter().skip(at).take(8).map(ToString::to_string).collect();
        rest.join(" ")
    };
    let (found, expect) = (shown(found), shown(expect));
    Err(format!("from token {at} on [{found} ..] instead of [{expect} ..]"))
}

/// Logits of every row, and the hidden states where the reference kept them.
fn one_pass(
    model: &LanguageModel,
    case: &str,
    prompt: &Prompt,
    has_hidden: bool,
    report: &mut Report<'_>,
    hidden: impl FnOnce() -> Result<Vec<f32>, ReferenceError>,
) -> Result<(), AnyError> {
    if prompt.logits.is_none() && !has_hidden {
        return Ok(());
    }
    let trace = model.trace(&prompt.ids)?;
    if let Some(expect) = &prompt.logits {
        let comparison = Comparison::of_rows(&trace.logits, expect, model.vocab_size(), LIMIT);
        report.close(&format!("{case} logits"), &comparison);
    }
    if has_hidden {
        let found = trace.hidden.concat();
        let width = model.config().hidden_size;
        report.close(
            &format!("{case} hidden"),
            &Comparison::of_rows(&found, &hidden()?, width, LIMIT),
        );
    }
    Ok(())
}

/// Texts in a cache of their own.
struct Batch<'a> {
    model: &'a LanguageModel,
    cache: PagedKvCache,
    /// Tokens held, and blocks.
    texts: Vec<(usize, Vec<u32>)>,
}

impl<'a> Batch<'a> {
    /// Empty texts that will hold so many tokens each. Their blocks alternate, so that none lies in
    /// one piece.
    fn new(model: &'a LanguageModel, capacities: &[usize]) -> Self {
        let mut blocks = vec![Vec::new(); capacities.len()];
        let mut next = 0;
        let longest = capacities.iter().max().copied().unwrap_or(0).div_ceil(BLOCK_TOKENS);
        for nth in 0..longest {
            for (blocks, capacity) in blocks.iter_mut().zip(capacities) {
                if nth < capacity.div_ceil(BLOCK_TOKENS) {
                    blocks.push(next);
                    next += 1;
                }
            }
        }
        let cache = model.new_cache(next as usize);
        Self { model, cache, texts: blocks.into_iter().map(|blocks| (0, blocks)).collect() }
    }

    /// Adds tokens to the texts of these numbers in one step; returns the scores after the last
    /// token of each.
    fn add(&mut self, added: &[(usize, &[u32])]) -> Result<Logits, LlmError> {
        let mut sequences = Vec::new();
        let (mut tokens, mut last_rows) = (Vec::new(), Vec::new());
        for &(text, new) in added {
            let (len, blocks) = &mut self.texts[text];
            sequences.push(SequenceSpan { rows: new.len(), start: *len, blocks: blocks.clone() });
            *len += new.len();
            tokens.extend_from_slice(new);
            last_rows.push(tokens.len() - 1);
        }
        self.model.step(&tokens, &BatchLayout { sequences }, &last_rows, &mut self.cache)
    }
}

/// Tokens of a greedy run that had to be the best, and the first that was not.
#[derive(Default)]
struct Choices {
    clear: usize,
    wrong: Option<String>,
}

impl Choices {
    /// Takes step `step`, whose best token has to be `token` if its lead was clear.
    fn take(&mut self, step: usize, logits: &[f32], token: u32, margin: f32) {
        if margin <= MARGIN {
            return;
        }
        self.clear += 1;
        let best = best(logits);
        if best != token && self.wrong.is_none() {
            self.wrong = Some(format!(
                "step {step}: token {best} instead of {token}, which led by {margin}"
            ));
        }
    }

    fn outcome(self, steps: usize) -> Result<usize, String> {
        match self.wrong {
            Some(wrong) => Err(wrong),
            None if self.clear == 0 && steps > 0 => {
                Err("no step had a clear best token".to_owned())
            }
            None => Ok(self.clear),
        }
    }
}

fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(0, |(token, _)| token as u32)
}

/// Greedy decoding, one token after another through the cache.
fn decode(
    model: &LanguageModel,
    case: &str,
    prompt: &[u32],
    greedy: &Greedy,
    report: &mut Report<'_>,
) -> Result<(), LlmError> {
    let vocab = model.vocab_size();
    let mut batch = Batch::new(model, &[prompt.len() + greedy.ids.len()]);
    let mut logits = batch.add(&[(0, prompt)])?;
    let (mut choices, mut comparison) = (Choices::default(), Comparison::new(LIMIT));
    for (step, expect) in greedy.logits.chunks(vocab).enumerate() {
        comparison.add_rows(&format!("step {step}, "), logits.row(0), expect, vocab);
        let (Some(&token), Some(&margin)) = (greedy.ids.get(step), greedy.margins.get(step)) else {
            break;
        };
        choices.take(step, logits.row(0), token, margin);
        logits = batch.add(&[(0, &[token])])?;
    }
    report.close(&format!("{case} step_logits"), &comparison);
    report.equal(&format!("{case} greedy_ids"), choices.outcome(greedy.ids.len()));
    Ok(())
}

/// The prompt and what follows it, cut into pieces of several sizes.
fn pieces(
    model: &LanguageModel,
    case: &str,
    prompt: &[u32],
    greedy: &Greedy,
    report: &mut Report<'_>,
) -> Result<(), LlmError> {
    let vocab = model.vocab_size();
    let Some(expect) = greedy.logits.get(..vocab) else { return Ok(()) };
    let mut comparison = Comparison::new(LIMIT);
    for size in PIECES {
        let mut batch = Batch::new(model, &[prompt.len()]);
        let mut last = Vec::new();
        for piece in prompt.chunks(size) {
            last = batch.add(&[(0, piece)])?.row(0).to_vec();
        }
        comparison.add_rows(&format!("pieces of {size}, "), &last, expect, vocab);
    }
    report.close(&format!("{case} in pieces"), &comparison);
    Ok(())
}

/// All prompts in one step, then all texts one token a step; a text that is at its end leaves.
fn batch(
    model: &LanguageModel,
    case: &str,
    prompts: &[Prompt],
    report: &mut Report<'_>,
) -> Result<(), LlmError> {
    let runs: Vec<(&[u32], &Greedy)> = prompts
        .iter()
        .filter_map(|prompt| Some((prompt.ids.as_slice(), prompt.greedy.as_ref()?)))
        .collect();
    if runs.len() < 2 {
        return Ok(());
    }
    let vocab = model.vocab_size();
    let capacity = |(prompt, greedy): &(&[u32], &Greedy)| prompt.len() + greedy.ids.len();
    let mut batch = Batch::new(model, &runs.iter().map(capacity).collect::<Vec<_>>());
    let mut added: Vec<(usize, &[u32])> =
        (0..).zip(runs.iter().map(|(prompt, _)| *prompt)).collect();
    let mut comparison = Comparison::new(LIMIT);
    let mut choices = Choices::default();
    let mut steps = 0;
    while !added.is_empty() {
        let logits = batch.add(&added)?;
        let mut next = Vec::new();
        for (row, &(text, _)) in added.iter().enumerate() {
            let (found, greedy) = (logits.row(row), runs[text].1);
            if let Some(expect) = greedy.logits.chunks_exact(vocab).nth(steps) {
                comparison.add_rows(&format!("p{text}, step {steps}, "), found, expect, vocab);
            }
            if let (Some(token), Some(&margin)) =
                (greedy.ids.get(steps..=steps), greedy.margins.get(steps))
            {
                choices.take(steps, found, token[0], margin);
                next.push((text, token));
            }
        }
        added = next;
        steps += 1;
    }
    report.close(&format!("{case} in one batch: logits"), &comparison);
    report.equal(&format!("{case} in one batch: greedy_ids"), choices.outcome(steps));
    Ok(())
}

/// What `greedy.json` beside a model holds, if it is there.
fn long_runs(folder: &Path) -> Result<Vec<LongGreedy>, AnyError> {
    let path = folder.join("greedy.json");
    if path.is_file() { Ok(json(&path)?) } else { Ok(Vec::new()) }
}

/// `greedy.json`: hundreds of tokens, all prompts at once.
fn long_greedy(
    model: &LanguageModel,
    runs: &[LongGreedy],
    case: &str,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    if runs.is_empty() {
        return Ok(());
    }
    let capacity = |run: &LongGreedy| run.ids.len() + run.greedy_ids.len();
    let mut batch = Batch::new(model, &runs.iter().map(capacity).collect::<Vec<_>>());
    let mut choices: Vec<Choices> = runs.iter().map(|_| Choices::default()).collect();
    let mut added: Vec<(usize, &[u32])> =
        (0..).zip(runs.iter().map(|run| run.ids.as_slice())).collect();
    for step in 0.. {
        let logits = batch.add(&added)?;
        let mut next: Vec<(usize, &[u32])> = Vec::new();
        for (row, &(text, _)) in added.iter().enumerate() {
            let run = &runs[text];
            if let (Some(token), Some(&margin)) =
                (run.greedy_ids.get(step..=step), run.margins.get(step))
            {
                choices[text].take(step, logits.row(row), token[0], margin);
                next.push((text, token));
            }
        }
        if next.is_empty() {
            break;
        }
        added = next;
    }
    for (number, (choices, run)) in choices.into_iter().zip(runs).enumerate() {
        let found = choices.outcome(run.greedy_ids.len());
        report.equal(&format!("{case} p{number} greedy.json"), found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        assert_eq!(same_ids(&[1, 2], &[1, 2]), Ok(2));
        let found = same_ids(&[1, 2, 3], &[1, 9]).expect_err("different");
        assert_eq!(found, "from token 1 on [2 3 ..] instead of [9 ..]");
    }

    #[test]
    fn dynamic_scaling_is_carried_on_until_a_text_within_the_context() {
        let mut growth = Growth::of(&RopeScaling::Dynamic { factor: 2.0, context: 32 });
        assert_eq!(growth.before(40), 0);
        growth.after(50);
        assert_eq!((growth.before(45), growth.carried), (50, true));
        assert!(growth.reaches(45) && growth.reaches(32) && !growth.reaches(31));
        assert_eq!(growth.before(31), 0, "begins anew");
        growth.after(36);
        assert_eq!((growth.before(32), growth.before(10)), (36, 0));
        let mut none = Growth::of(&RopeScaling::None);
        none.after(1 << 20);
        assert_eq!((none.before(1 << 20), none.reaches(1 << 20), none.carried), (0, false, false));
    }

    #[test]
    fn only_clear_choices_count_and_none_is_a_failure() {
        let logits = [0.0, 2.0, 1.0];
        let mut choices = Choices::default();
        choices.take(0, &logits, 2, 1e-4);
        assert!(choices.outcome(1).is_err(), "nothing was compared");
        let mut choices = Choices::default();
        choices.take(0, &logits, 1, 1.0);
        choices.take(1, &logits, 2, 1e-4);
        assert_eq!(choices.outcome(2), Ok(1));
        let mut choices = Choices::default();
        choices.take(3, &logits, 0, 0.5);
        assert!(choices.outcome(1).is_err_and(|found| found.starts_with("step 3: token 1 ")));
    }
}
