//! Answers that somebody else gave, scored token by token in about the time that a prompt takes.

use std::path::Path;

use neurino_core::job::ResponseFormat;
use neurino_core::{ClaimScore, JobSpec, SamplingParams, TextClaim, TextJob, TextOutput};
use neurino_llm::checkpoint::Precision;
use neurino_llm::serving::{CLAIM_ROWS, RequestId, ServingLimits};

use crate::serving::{AMPLE, Ledger, answer, folder, job, noon, runner};

/// What a text job is worth a single token's margin here.
const CLIP_PPM: u32 = 250_000;

/// The answer to a job, with its tokens.
fn written(job: &TextJob) -> TextOutput {
    let job = TextJob { name_tokens: true, ..job.clone() };
    answer(&mut runner(&folder(), Precision::Full, AMPLE), &job).unwrap()
}

fn tokens(output: &TextOutput) -> Vec<Vec<u32>> {
    output.choices.iter().map(|choice| choice.tokens.clone().unwrap()).collect()
}

/// The job that scores an answer under its own seed and another one.
fn claiming(job: &TextJob, answers: Vec<Vec<u32>>) -> TextJob {
    let seeds = vec![job.sampling.seed + 1, job.sampling.seed];
    let claim = Some(TextClaim { answers, seeds, clip_ppm: CLIP_PPM });
    let job = TextJob { claim, logprobs: None, ..job.clone() };
    assert!(JobSpec::Text(job.clone()).validate().is_ok());
    job
}

fn scores(output: &TextOutput) -> Vec<ClaimScore> {
    output.choices.iter().map(|choice| choice.score.clone().unwrap()).collect()
}

fn jobs() -> Vec<TextJob> {
    let with = |change: &dyn Fn(&mut SamplingParams)| {
        let mut job = job("Tell me a story.");
        change(&mut job.sampling);
        job
    };
    vec![
        with(&|_| ()),
        with(&|s| s.temperature = 0.0),
        with(&|s| {
            (s.repetition_penalty, s.frequency_penalty, s.presence_penalty) = (1.2, 0.3, 0.2);
        }),
        with(&|s| (s.top_k, s.min_p) = (12, 0.02)),
        TextJob { choices: 3, ..job("Once upon a time") },
        TextJob { logit_bias: vec![(17, 4.0), (40, -100.0)], ..job("Go on.") },
        TextJob { response_format: ResponseFormat::JsonObject, ..job("An object, please.") },
        TextJob { stop: vec!["a".into()], ..job("A short one.") },
    ]
}

#[test]
fn an_engine_finds_its_own_answer_token_by_token() {
    let mut told_apart = 0;
    for job in jobs() {
        let first = written(&job);
        let answers = tokens(&first);
        let all: usize = answers.iter().map(Vec::len).sum();
        assert_eq!(all, first.usage.completion_tokens as usize, "{job:?}");
        let again = answer(
            &mut runner(&folder(), Precision::Full, AMPLE),
            &claiming(&job, answers.clone()),
        );
        let again = again.unwrap();
        assert_eq!(again.usage, first.usage, "{job:?}");
        for ((found, own), claimed) in scores(&again).iter().zip(&first.choices).zip(&answers) {
            let count = u32::try_from(claimed.len()).unwrap();
            assert!(found.whole && found.tokens == count, "{found:?} {job:?}");
            assert_eq!((found.seeds[1].exact, found.seeds[1].margin_ppm), (count, 0), "{job:?}");
            told_apart += count - found.seeds[0].exact;
            let same = again.choices.iter().any(|choice| {
                (&choice.text, choice.finish_reason) == (&own.text, own.finish_reason)
            });
            assert!(same, "the tokens make the same words: {again:?}");
        }
    }
    assert!(told_apart > 60, "another seed draws others: {told_apart}");
}

#[test]
fn scoring_reads_the_answer_once_beside_whatever_runs() {
    let first_job = TextJob { choices: 2, ..job("Tell me a long story about a fox and a hen.") };
    let first = written(&first_job);
    let claim = claiming(&first_job, tokens(&first));
    // Little memory, few rows, others beside it: sequences give their blocks up and begin again.
    let limits = ServingLimits { n_blocks: 14, rows_per_step: 40, sequences_max: 4 };
    let mut busy = runner(&folder(), Precision::Full, limits);
    for (id, words) in [(1, "One."), (2, "Two, and more than that."), (4, "Four.")] {
        busy.submit(RequestId(id), &job(words), &noon()).unwrap();
    }
    busy.submit(RequestId(3), &claim, &noon()).unwrap();
    let mut ledger = Ledger::default();
    ledger.finish(&mut busy);
    assert!(ledger.failures.is_empty());
    let beside = scores(&ledger.outputs[&RequestId(3)]);
    let mut alone = runner(&folder(), Precision::Full, AMPLE);
    assert_eq!(beside, scores(&answer(&mut alone, &claim).unwrap()));
    assert!(beside.iter().all(|score| score.whole && score.seeds[1].exact == score.tokens));
    let counters = alone.counters();
    let rows = u64::from(first.usage.total()) + u64::from(first.usage.prompt_tokens);
    assert!(counters.rows < rows, "{} rows of at most {rows}", counters.rows);
    let steps = 1 + rows.div_ceil(CLAIM_ROWS as u64 / 2);
    assert!(counters.steps <= steps, "{} steps for {rows} rows", counters.steps);
    // A prompt's blocks may be found in the cache, those of the answer are computed for their scores.
    assert_eq!(scores(&answer(&mut alone, &claim).unwrap()), beside);
}

#[test]
fn what_is_no_whole_answer_is_told() {
    let job = TextJob { max_tokens: 24, ..job("Tell me a story.") };
    let first = written(&job);
    let mut own = tokens(&first).remove(0);
    let mut engine = runner(&folder(), Precision::Full, AMPLE);
    let mut score = |tokens: &[u32]| {
        scores(&answer(&mut engine, &claiming(&job, vec![tokens.to_vec()])).unwrap()).remove(0)
    };
    let cut = score(&own[..own.len() / 2]);
    assert!(!cut.whole && cut.tokens as usize == own.len() / 2, "cut off: {cut:?}");
    assert_eq!(cut.seeds[1].exact, cut.tokens, "what there is of it is right");
    let (last, vocab) = (own.len() - 1, 1_000_000);
    own[last] = vocab;
    let unknown = score(&own);
    assert!(!unknown.whole && unknown.tokens as usize == last, "none of the model's: {unknown:?}");
    let first_unknown = score(&[vocab, 1, 2]);
    assert_eq!((first_unknown.tokens, first_unknown.whole), (0, false));
    // A text that was already at its end goes on.
    let stopped = TextJob { stop: vec!["a".into()], ..job.clone() };
    let short = written(&stopped);
    let mut longer = tokens(&short).remove(0);
    let ended = longer.len();
    longer.push(5);
    let mut engine = runner(&folder(), Precision::Full, AMPLE);
    let found = answer(&mut engine, &claiming(&stopped, vec![longer])).unwrap();
    let found = scores(&found).remove(0);
    assert!(!found.whole && found.tokens as usize == ended, "{found:?}");
}

#[test]
fn weights_of_fewer_bits_round_a_little_and_another_text_does_not_fit() {
    let mean = |found: &ClaimScore, at: usize| {
        found.seeds[at].margin_ppm as f64 / 1e6 / f64::from(found.tokens.max(1))
    };
    let first_job = TextJob { max_tokens: 200, ..job("Tell me a story.") };
    let first = written(&first_job);
    let mut halves = runner(&folder(), Precision::Half, AMPLE);
    let found = answer(&mut halves, &claiming(&first_job, tokens(&first))).unwrap();
    let found = &scores(&found)[0];
    assert!(mean(found, 1) < 0.01 && mean(found, 0) > 0.05, "{found:?}");
    let other = written(&TextJob { max_tokens: 200, ..job("Quite another question?") });
    let mut engine = runner(&folder(), Precision::Full, AMPLE);
    let mut claimed = tokens(&other).remove(0);
    claimed.truncate(200);
    let found = answer(&mut engine, &claiming(&first_job, vec![claimed])).unwrap();
    let found = &scores(&found)[0];
    assert!(found.seeds[1].exact < found.tokens / 2, "{found:?}");
}

/// Margins of the real model, by how the text came about: as `neurino audit calibrate` measures them, without the
/// program around it. `NEURINO_TEST_CLAIM_MODELS` names two files of it, stored in 16 bits, and another checkpoint.
#[test]
fn margins_of_a_real_model_tell_honest_rounding_from_cheats() {
    let Ok(files) = std::env::var("NEURINO_TEST_CLAIM_MODELS") else { return };
    let [own, other] = files.split(',').map(Path::new).collect::<Vec<_>>()[..] else {
        panic!("two files, with a comma between them")
    };
    let limits = ServingLimits { n_blocks: 128, rows_per_step: 256, sequences_max: 8 };
    let count: u64 =
        std::env::var("NEURINO_CALIBRATE").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let jobs: Vec<TextJob> = (0..count)
        .map(|n| {
            let mut job = job(&format!("Tell me a story of {n} sentences about a fox."));
            (job.max_tokens, job.sampling.seed, job.name_tokens) = (64, 1000 + 17 * n, true);
            job.sampling.temperature = if n % 2 == 0 { 0.9 } else { 0.0 };
            job.sampling.top_p = 1.0;
            job
        })
        .collect();
    let write = |path: &Path, precision, wrong: u64| -> Vec<TextOutput> {
        let mut engine = runner(path, precision, limits);
        let seeded = |job: &TextJob| {
            let mut job = job.clone();
            job.sampling.seed += wrong;
            answer(&mut engine, &job).unwrap()
        };
        jobs.iter().map(seeded).collect()
    };
    let mut auditor = runner(own, Precision::Packed, limits);
    let mut margins = |texts: &[TextOutput]| -> Vec<(bool, f64, f64)> {
        let score = |(job, text): (&TextJob, &TextOutput)| {
            let output = answer(&mut auditor, &claiming(job, tokens(text))).unwrap();
            let found = scores(&output).remove(0);
            let all = f64::from(found.tokens.max(1));
            let own = found.seeds[1];
            let drawn = job.sampling.temperature > 0.0;
            (drawn, f64::from(own.exact) / all, own.margin_ppm as f64 / 1e6 / all)
        };
        jobs.iter().zip(texts).map(score).collect()
    };
    let mut worst_honest: f64 = 0.0;
    for (words, texts, honest) in [
        ("honest", write(own, Precision::Packed, 0), true),
        ("honest, in 32 bits", write(own, Precision::Full, 0), true),
        ("4 bits for 16", write(own, Precision::FourBit, 0), false),
        ("other checkpoint", write(other, Precision::Packed, 0), false),
        ("wrong seed", write(own, Precision::Packed, 1), false),
    ] {
        for drawn in [true, false] {
            let found: Vec<_> = margins(&texts).into_iter().filter(|row| row.0 == drawn).collect();
            let mean = |of: fn(&(bool, f64, f64)) -> f64| {
                found.iter().map(of).sum::<f64>() / found.len() as f64
            };
            let [least, most] = [f64::min, f64::max]
                .map(|pick| found.iter().map(|row| row.2).reduce(pick).unwrap_or_default());
            #[expect(clippy::print_stdout, reason = "a measurement")]
            {
                println!(
                    "{words:<20} drawn {drawn:<6} n {:>3} exact {:.4} margin {:.5} ({least:.5} to {most:.5})",
                    found.len(),
                    mean(|row| row.1),
                    mean(|row| row.2)
                );
            }
            if honest {
                worst_honest = worst_honest.max(most);
            }
        }
    }
    assert!(worst_honest < 0.02, "{worst_honest}");
}
