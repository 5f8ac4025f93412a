//! Whole answers of a small model: greedy tokens, stops, limits, repetition, cancelling.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use neurino_core::{
    ChatMessage, FinishReason, ModelId, Role, SamplingParams, TextChoice, TextJob, TextOutput,
};
use neurino_llm::checkpoint::Precision;
use neurino_llm::sampler::{Sampler, Scratch};
use neurino_llm::serving::{GenerateError, RequestId, RunnerEvent, ServingLimits};
use neurino_llm::{ChatTemplate, LanguageModel, ModelSource, Runner, Tokenizer};

/// Room for everything at once.
pub(crate) const AMPLE: ServingLimits =
    ServingLimits { n_blocks: 256, rows_per_step: 512, sequences_max: 64 };

pub(crate) fn folder() -> PathBuf {
    crate::fixtures().join("llm/llama3")
}

pub(crate) fn runner(path: &Path, precision: Precision, limits: ServingLimits) -> Runner {
    let source = ModelSource::open(path).unwrap();
    let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos).unwrap();
    let template = ChatTemplate::open(&source, &tokenizer).unwrap();
    Runner::new(crate::load_as(path, precision), tokenizer, template, limits)
}

fn small() -> Runner {
    runner(&folder(), Precision::Full, AMPLE)
}

pub(crate) fn noon() -> Zoned {
    "2026-11-21T12:00:00[UTC]".parse().unwrap()
}

pub(crate) fn job(words: &str) -> TextJob {
    let messages = vec![ChatMessage::new(Role::User, words)];
    let sampling =
        SamplingParams { temperature: 0.9, top_p: 0.95, seed: 42, ..SamplingParams::default() };
    TextJob { sampling, ..TextJob::new(ModelId::new("tiny").unwrap(), messages, 40) }
}

/// What became of requests, whose deltas have to join to their outputs.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) outputs: BTreeMap<RequestId, TextOutput>,
    pub(crate) failures: BTreeMap<RequestId, GenerateError>,
    /// Deltas joined, of unfinished requests.
    pub(crate) growing: BTreeMap<RequestId, BTreeMap<u32, TextChoice>>,
    tokens: BTreeMap<RequestId, u32>,
}

impl Ledger {
    pub(crate) fn note(&mut self, event: RunnerEvent) {
        match event {
            RunnerEvent::Delta { id, delta, tokens } => {
                let before = self.tokens.insert(id, tokens).unwrap_or(0);
                assert_eq!(tokens, before + 1, "one token a delta");
                let empty = || TextChoice::new("", FinishReason::Stop);
                let choice = self.growing.entry(id).or_default();
                let choice = choice.entry(delta.choice).or_insert_with(empty);
                choice.text.push_str(&delta.text);
                choice.tool_calls.extend(delta.tool_calls);
                choice.logprobs.get_or_insert_default().extend(delta.logprobs);
            }
            RunnerEvent::Finished { id, output } => {
                // A claim whose first token the model has not ends without one.
                let growing = self.growing.remove(&id).unwrap_or_default();
                if growing.is_empty() {
                    assert!(output.choices.iter().all(|choice| choice.text.is_empty()));
                } else {
                    assert_eq!(growing.len(), output.choices.len());
                }
                for (joined, choice) in growing.values().zip(&output.choices) {
                    assert_eq!(
                        (&joined.text, &joined.tool_calls),
                        (&choice.text, &choice.tool_calls)
                    );
                    let expected = choice.logprobs.as_deref().unwrap_or_default();
                    assert_eq!(joined.logprobs.as_deref().unwrap_or_default(), expected);
                }
                assert_eq!(self.tokens.remove(&id).unwrap_or(0), output.usage.completion_tokens);
                assert!(self.outputs.insert(id, output).is_none(), "one end");
            }
            RunnerEvent::Failed { id, error } => {
                self.growing.remove(&id);
                self.tokens.remove(&id);
                assert!(self.failures.insert(id, error).is_none(), "one end");
            }
        }
    }

    pub(crate) fn finish(&mut self, runner: &mut Runner) {
        while !runner.is_idle() {
            runner.step().into_iter().for_each(|event| self.note(event));
        }
        assert!(runner.step().is_empty());
        assert_eq!(runner.counters().scheduler.blocks.used, 0);
    }
}

/// The output of one job alone.
pub(crate) fn answer(runner: &mut Runner, job: &TextJob) -> Result<TextOutput, GenerateError> {
    let admitted = runner.submit(RequestId(1), job, &noon())?;
    let mut ledger = Ledger::default();
    ledger.finish(runner);
    if let Some(error) = ledger.failures.remove(&RequestId(1)) {
        return Err(error);
    }
    let output = ledger.outputs.remove(&RequestId(1)).unwrap();
    assert_eq!(output.usage.prompt_tokens, admitted.prompt_tokens);
    Ok(output)
}

/// The tokens of an answer, and the log-probabilities of those that are no end: computed on a
/// sequence of its own, without a scheduler.
pub(crate) fn alone(runner: &Runner, job: &TextJob, choice: u32) -> (Vec<u32>, Vec<f32>) {
    let (model, tokenizer): (&LanguageModel, _) = (runner.model(), runner.tokenizer());
    let text = runner.template().render(&job.messages, &[], &noon()).unwrap();
    let prompt = tokenizer.encode(&text, false).unwrap();
    let mut sampler = Sampler::for_answer(job, choice, &prompt);
    let mut sequence = model.new_sequence(prompt.len() + job.max_tokens as usize);
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    let mut next = prompt;
    while tokens.len() < job.max_tokens as usize {
        let mut logits = model.forward(&next, &mut sequence).unwrap();
        let drawn = sampler.draw(&mut logits, None, &mut Scratch::default()).unwrap();
        tokens.push(drawn.token);
        if tokenizer.is_end(drawn.token) {
            break;
        }
        logprobs.extend(drawn.rating.map(|rating| rating.logprob));
        next = vec![drawn.token];
    }
    (tokens, logprobs)
}

#[test]
fn an_answer_is_what_the_model_says_token_by_token() {
    let mut runner = small();
    for temperature in [0.0, 0.9] {
        let mut job = TextJob { logprobs: Some(2), choices: 3, ..job("Tell me a story.") };
        job.sampling.temperature = temperature;
        let output = answer(&mut runner, &job).unwrap();
        let mut completion_tokens = 0;
        for (choice, found) in (0..).zip(&output.choices) {
            let (tokens, logprobs) = alone(&runner, &job, choice);
            assert_eq!(found.text, runner.tokenizer().decode(&tokens));
            let rated = found.logprobs.as_ref().unwrap();
            assert_eq!(rated.iter().map(|r| r.chosen.logprob).collect::<Vec<_>>(), logprobs);
            assert!(rated.iter().all(|r| r.top.len() == 2));
            let bytes = |token: &u32| runner.tokenizer().token_bytes(*token);
            let ended = runner.tokenizer().is_end(*tokens.last().unwrap());
            let spoken = &tokens[..tokens.len() - usize::from(ended)];
            assert!(rated.iter().map(|r| r.chosen.bytes.clone()).eq(spoken.iter().map(bytes)));
            let reason = if ended { FinishReason::Stop } else { FinishReason::Length };
            assert_eq!(found.finish_reason, reason);
            completion_tokens += tokens.len();
        }
        assert_eq!(output.usage.completion_tokens as usize, completion_tokens, "ends included");
        let same = output.choices.windows(2).all(|pair| pair[0].text == pair[1].text);
        assert_eq!(same, temperature == 0.0, "each answer has its own random numbers");
    }
}

#[test]
fn the_same_seed_repeats_an_answer_and_another_does_not() {
    let mut runner = small();
    let output = answer(&mut runner, &job("Tell me a story.")).unwrap();
    assert!((1..=40).contains(&output.usage.completion_tokens));
    assert_eq!(answer(&mut runner, &job("Tell me a story.")).unwrap(), output);
    assert!(runner.counters().scheduler.blocks.hits > 0, "the second prompt was known");
    let mut other = job("Tell me a story.");
    other.sampling.seed = 43;
    assert_ne!(answer(&mut runner, &other).unwrap().text(), output.text());
}

#[test]
fn a_stop_string_ends_the_answer_and_is_cut_off() {
    let mut runner = small();
    let go_on = TextJob { logprobs: Some(0), ..job("Go on.") };
    let whole = answer(&mut runner, &go_on).unwrap();
    let from = whole.text().char_indices().nth(12).unwrap().0;
    let to = whole.text().char_indices().nth(17).unwrap().0;
    let stop = whole.text()[from..to].to_owned();
    let expected = whole.text().split(stop.as_str()).next().unwrap();
    let cut = answer(&mut runner, &TextJob { stop: vec![stop.clone()], ..go_on }).unwrap();
    assert_eq!(cut.text(), expected);
    assert_eq!(cut.choices[0].finish_reason, FinishReason::Stop);
    assert!(cut.usage.completion_tokens < whole.usage.completion_tokens);
    let rated = cut.choices[0].logprobs.as_ref().unwrap();
    let bytes: usize = rated[..rated.len() - 1].iter().map(|r| r.chosen.bytes.len()).sum();
    assert!(bytes < expected.len(), "no token begins behind the cut");
    assert_eq!(rated[..], whole.choices[0].logprobs.as_ref().unwrap()[..rated.len()]);
}

#[test]
fn a_prompt_of_several_pieces_reads_as_one() {
    let mut runner = small();
    let words = "the sea and the wall ".repeat(120);
    let mut long = TextJob { max_tokens: 3, logprobs: Some(0), ..job(&words) };
    long.sampling.temperature = 0.0;
    let output = answer(&mut runner, &long).unwrap();
    assert!(output.usage.prompt_tokens > 512, "{:?} make several pieces", output.usage);
    let (tokens, logprobs) = alone(&runner, &long, 0);
    assert_eq!(output.text(), runner.tokenizer().decode(&tokens));
    let rated = output.choices[0].logprobs.as_ref().unwrap();
    assert_eq!(rated.iter().map(|r| r.chosen.logprob).collect::<Vec<_>>(), logprobs);
}

#[test]
fn what_does_not_fit_is_refused_before_any_work() {
    let mut runner = small();
    let words = "a b c d e f g h ".repeat(1000);
    let result = answer(&mut runner, &job(&words));
    assert!(
        matches!(result, Err(GenerateError::ContextTooLong { context_tokens: 8192, .. })),
        "{result:?}"
    );
    let empty = TextJob { messages: vec![], ..job("") };
    assert!(matches!(answer(&mut runner, &empty), Err(GenerateError::InvalidJob(_))));
    let unknown = TextJob { logit_bias: vec![(513, 1.0)], ..job("Hi.") };
    let error = answer(&mut runner, &unknown).unwrap_err();
    assert!(error.to_string().contains("token 513"), "{error}");
    let limits = ServingLimits { n_blocks: 3, ..AMPLE };
    let mut tight = runner_with(runner, limits);
    let result = answer(&mut tight, &job("Hi."));
    assert!(
        matches!(result, Err(GenerateError::CacheTooSmall { cache_tokens: 48, .. })),
        "{result:?}"
    );
    assert!(answer(&mut tight, &TextJob { max_tokens: 1, ..job("Hi.") }).is_ok());
}

/// Nobody asked for so many tokens: as many as fit will do.
#[test]
fn a_default_gives_way_to_a_long_prompt() {
    let mut runner = small();
    let most = TextJob { max_tokens: 4096, ..job(&"a b c d e f g h ".repeat(600)) };
    let result = answer(&mut runner, &most);
    let Err(GenerateError::ContextTooLong { prompt_tokens, .. }) = result else {
        panic!("{result:?}");
    };
    let left = 8192 - prompt_tokens;
    assert!((1..4096).contains(&left), "{left}");
    let prepare = |job: &TextJob| runner.preparer().prepare(job, &noon());
    let prepared = prepare(&TextJob { fewer_tokens: true, ..most.clone() }).unwrap();
    assert_eq!((prepared.prompt_tokens(), prepared.max_tokens()), (prompt_tokens, left));
    let prepared = prepare(&TextJob { fewer_tokens: true, max_tokens: 9, ..most }).unwrap();
    assert_eq!(prepared.max_tokens(), 9, "there is room for all");
    // Not even one token fits.
    let full = TextJob { fewer_tokens: true, ..job(&"a b c d e f g h ".repeat(1000)) };
    assert!(matches!(prepare(&full), Err(GenerateError::ContextTooLong { .. })));
}

#[test]
fn an_answer_that_may_be_shorter_ends_with_the_context() {
    let folder = crate::damage::copy("llama3");
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let short =
        text.replace("\"max_position_embeddings\": 8192", "\"max_position_embeddings\": 64");
    assert_ne!(short, text);
    std::fs::write(&config, short).unwrap();
    let mut runner = runner(folder.path(), Precision::Full, AMPLE);
    let mut job = TextJob { max_tokens: 512, fewer_tokens: true, ..job("Once upon a time") };
    job.sampling.temperature = 0.0;
    let output = answer(&mut runner, &job).unwrap();
    assert_eq!(output.usage.total(), 64, "{output:?}");
    assert_eq!(output.choices[0].finish_reason, neurino_core::FinishReason::Length);
}

/// The same model with other limits.
pub(crate) fn runner_with(runner: Runner, limits: ServingLimits) -> Runner {
    let (model, tokenizer, template) = runner.into_parts();
    Runner::new(model, tokenizer, template, limits)
}

#[test]
fn cancelling_frees_its_blocks_at_once() {
    let mut runner = small();
    let long = TextJob { max_tokens: 200, choices: 3, ..job("Count.") };
    runner.submit(RequestId(1), &long, &noon()).unwrap();
    runner.submit(RequestId(2), &job("And you?"), &noon()).unwrap();
    let mut ledger = Ledger::default();
    for _ in 0..5 {
        runner.step().into_iter().for_each(|event| ledger.note(event));
    }
    let before = runner.counters().scheduler;
    assert_eq!((before.running, runner.counters().requests), (4, 2));
    assert!(runner.cancel(RequestId(1)));
    assert!(!runner.cancel(RequestId(1)));
    let after = runner.counters().scheduler;
    assert_eq!((after.running, runner.counters().requests), (1, 1));
    assert!(after.blocks.used < before.blocks.used);
    let all =
        |blocks: neurino_llm::serving::BlockCounters| blocks.used + blocks.cached + blocks.free;
    assert_eq!(all(after.blocks), AMPLE.n_blocks);
    ledger.finish(&mut runner);
    assert_eq!(ledger.outputs.keys().collect::<Vec<_>>(), [&RequestId(2)]);
    assert_eq!(ledger.outputs[&RequestId(2)], answer(&mut runner, &job("And you?")).unwrap());
}

#[test]
fn the_starter_model_reads_and_answers_as_the_reference() {
    let Some(path) = crate::starter::starter_model() else { return };
    let json = std::fs::read(crate::fixtures().join("llm_real/smollm2.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let mut runner = runner(&path, Precision::Full, AMPLE);
    for case in reference["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let (_, asked) = text.split_once("<|im_start|>user\n").unwrap();
        let asked = asked.split("<|im_end|>").next().unwrap();
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let job = TextJob { sampling: greedy, max_tokens: 8, ..job(asked) };
        assert_eq!(runner.template().render(&job.messages, &[], &noon()).unwrap(), text);
        let numbers = |key: &str| -> Vec<u32> {
            let all = case[key].as_array().unwrap();
            all.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
        };
        assert_eq!(runner.tokenizer().encode(text, false).unwrap(), numbers("ids"));
        let greedy_text = case["greedy_text"].as_str().unwrap();
        assert_eq!(runner.tokenizer().decode(&numbers("greedy_ids")), greedy_text);
        let output = answer(&mut runner, &job).unwrap();
        assert!(greedy_text.starts_with(output.text()), "{}", output.text());
    }
}
