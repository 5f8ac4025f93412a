//! A soak: mixed requests for as long as it takes to see whether an engine loses streams, mixes up
//! answers, keeps blocks or grows.
//!
//! Every request is computed alone first. Then many run at once, again and again, some cancelled,
//! some read slowly, some left; and each has to say what it said alone. From time to time all pause,
//! and the engine's counters have to say that nothing is held.

mod mix;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use neurino_core::{JobOutput, JobSpec, TextDelta, TextJob, TextOutput};
use serde::Serialize;
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Engine, EngineError, EngineErrorCode, JobEvent, JobStream, ModelRef};

/// Different requests.
const KINDS: u32 = 40;
/// Words of the prompts that fill the cache.
const FILL_WORDS: u32 = 150;
/// The part of the time that filling the cache may take.
const FILL_SHARE: u32 = 5;
/// Faults that are described; the rest are counted.
const FAULTS_SHOWN: usize = 20;
/// An event that does not come for so long will not come.
const PATIENCE: Duration = Duration::from_mins(10);

/// How to soak.
#[derive(Debug, Clone, Copy)]
pub struct SoakOptions {
    /// How long requests run together, in seconds. Computing them alone comes on top.
    pub seconds: u64,
    /// Requests at the same time.
    pub requests: u32,
    /// Longest prompt, and four times the longest answer, in tokens (roughly).
    pub longest_tokens: u32,
}

/// What the soak found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SoakReport {
    /// Requests whose whole answer was compared.
    pub answered: u32,
    /// Requests that were cancelled or left.
    pub cancelled: u32,
    /// Requests refused because the engine was busy.
    pub refused: u32,
    /// Tokens of the compared answers.
    pub tokens: u64,
    /// Seconds that requests ran together.
    pub seconds: f64,
    /// Pauses in which the counters were read.
    pub pauses: u32,
    /// How far a log-probability was from what it was alone, at most.
    pub logprob_error: f32,
    /// Whether every block of the cache had been in use before memory was compared.
    pub cache_filled: bool,
    /// Memory by process, in the first and the last quarter of the pauses, in bytes.
    pub memory: BTreeMap<&'static str, (u64, u64)>,
    /// What was wrong, the first of it.
    pub faults: Vec<String>,
    /// How much was wrong.
    pub faults_total: u32,
}

impl SoakReport {
    fn fault(&mut self, words: impl Into<String>) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(words.into());
        }
    }

    /// How much each process grew, as a share of what it was; nothing if there were too few pauses to
    /// tell.
    pub fn growth(&self) -> BTreeMap<&'static str, f64> {
        let grown = |(before, after): (u64, u64)| after as f64 / before.max(1) as f64 - 1.0;
        self.memory.iter().map(|(name, samples)| (*name, grown(*samples))).collect()
    }
}

/// Memory of the processes that are watched, by name, in bytes.
pub type MemoryProbe = dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync;

/// Loads `model` and soaks the engine. `say` hears how it goes, about once a minute.
///
/// # Errors
/// Those of loading, and of computing the requests alone.
pub async fn soak(
    engine: Arc<dyn Engine>,
    model: &ModelRef,
    options: SoakOptions,
    memory: &MemoryProbe,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<SoakReport, EngineError> {
    engine.load(model).await?;
    let jobs = mix::requests(&model.id, KINDS, options.longest_tokens);
    let mut expected = Vec::new();
    for job in jobs {
        let output = alone(&*engine, &job).await?;
        expected.push((job, output));
    }
    say(format!("{KINDS} requests were computed alone"));
    let soak = Arc::new(Soak {
        engine,
        expected,
        next: AtomicU32::new(0),
        pause: RwLock::new(()),
        report: Mutex::default(),
    });
    let fill_until = Instant::now() + Duration::from_secs(options.seconds) / FILL_SHARE;
    let filled = soak.fill(model, fill_until).await?;
    soak.report.lock().await.cache_filled = filled;

    let started = Instant::now();
    let until = started + Duration::from_secs(options.seconds);
    let mut clients = JoinSet::new();
    for client in 0..options.requests {
        let soak = Arc::clone(&soak);
        clients.spawn(async move { soak.client(client, until).await });
    }
    let mut samples: Vec<Vec<(&'static str, u64)>> = Vec::new();
    let between = (Duration::from_secs(options.seconds) / 30).max(Duration::from_secs(2));
    let mut said = Instant::now();
    while Instant::now() < until {
        tokio::time::sleep(between.min(until - Instant::now())).await;
        samples.push(soak.check_while_all_pause(model, memory).await);
        if said.elapsed() >= Duration::from_mins(1) {
            said = Instant::now();
            let report = soak.report.lock().await;
            let (done, faults) = (report.answered + report.cancelled, report.faults_total);
            let minutes = started.elapsed().as_secs() / 60;
            say(format!("{minutes} min: {done} requests, {faults} faults"));
        }
    }
    while let Some(client) = clients.join_next().await {
        if let Err(error) = client {
            soak.report.lock().await.fault(format!("a client ended badly: {error}"));
        }
    }
    samples.push(soak.check_while_all_pause(model, memory).await);
    let mut report = soak.report.lock().await.clone();
    report.seconds = started.elapsed().as_secs_f64();
    report.memory = compare(&samples);
    Ok(report)
}

/// The median of the first and of the last quarter of the samples, where there are enough.
fn compare(samples: &[Vec<(&'static str, u64)>]) -> BTreeMap<&'static str, (u64, u64)> {
    let quarter = samples.len() / 4;
    let mut memory = BTreeMap::new();
    if quarter == 0 {
        return memory;
    }
    let names = samples[0].iter().map(|(name, _)| *name);
    for name in names {
        let median = |samples: &[Vec<(&'static str, u64)>]| {
            let of_it = samples.iter().flatten().filter(|(n, _)| *n == name);
            let mut bytes: Vec<u64> = of_it.map(|(_, bytes)| *bytes).collect();
            bytes.sort_unstable();
            bytes.get(bytes.len() / 2).copied().unwrap_or(0)
        };
        let ends = (median(&samples[..quarter]), median(&samples[samples.len() - quarter..]));
        memory.insert(name, ends);
    }
    memory
}

struct Soak {
    engine: Arc<dyn Engine>,
    /// Requests, and what they say alone.
    expected: Vec<(TextJob, TextOutput)>,
    next: AtomicU32,
    /// Held for reading by every request, for writing by a pause.
    pause: RwLock<()>,
    report: Mutex<SoakReport>,
}

impl Soak {
    /// Uses every block of the cache once: on a CPU its memory is taken only then.
    async fn fill(&self, model: &ModelRef, until: Instant) -> Result<bool, EngineError> {
        let mut number = 0;
        while Instant::now() < until {
            if self.engine.counters().await?.blocks_free == 0 {
                return Ok(true);
            }
            // Several at once, as later.
            let mut streams = Vec::new();
            for _ in 0..8 {
                let job = JobSpec::Text(mix::unique(&model.id, number, FILL_WORDS));
                streams.push(self.engine.run(&job, CancellationToken::new()).await?);
                number += 1;
            }
            for mut stream in streams {
                while next(&mut stream).await.is_some() {}
            }
        }
        Ok(false)
    }

    /// Sends one request after another until the time is over.
    async fn client(&self, client: u32, until: Instant) {
        while Instant::now() < until {
            let _running = self.pause.read().await;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let index = number as usize % self.expected.len();
            let cancel = CancellationToken::new();
            let job = JobSpec::Text(self.expected[index].0.clone());
            let stream = match self.engine.run(&job, cancel.clone()).await {
                Ok(stream) => stream,
                Err(error) => {
                    self.ended_early(index, &error).await;
                    continue;
                }
            };
            // Which requests are cancelled, left or read slowly changes from round to round.
            match (number.wrapping_mul(2_654_435_761) >> 16) % 16 {
                0 => self.cancel(index, stream, cancel, 0).await,
                1 => self.cancel(index, stream, cancel, 3 + client % 5).await,
                2 => self.leave(stream, 2 + client % 3).await,
                3 => self.compare(index, stream, Duration::from_millis(150)).await,
                _ => self.compare(index, stream, Duration::ZERO).await,
            }
        }
    }

    async fn ended_early(&self, index: usize, error: &EngineError) {
        let mut report = self.report.lock().await;
        if error.code == EngineErrorCode::Busy {
            report.refused += 1;
        } else {
            report.fault(format!("request {index} failed: {error}"));
        }
    }

    /// Reads to the end and compares.
    async fn compare(&self, index: usize, mut stream: JobStream, between: Duration) {
        let mut events = Vec::new();
        while let Some(event) = next(&mut stream).await {
            events.push(event);
            if between > Duration::ZERO && events.len() < 20 {
                tokio::time::sleep(between).await;
            }
        }
        let (output, joined) = match join(events) {
            Ok(both) => both,
            Err(Ending::Failed(error)) => return self.ended_early(index, &error).await,
            Err(Ending::Broken(words)) => {
                return self.report.lock().await.fault(format!("request {index}: {words}"));
            }
        };
        let (job, expected) = &self.expected[index];
        let mut report = self.report.lock().await;
        report.answered += 1;
        report.tokens += u64::from(output.usage.completion_tokens);
        for fault in
            [streams_as(&joined, &output), says_as(&output, expected)].into_iter().flatten()
        {
            report.fault(format!("request {index} ({} answers): {fault}", job.choices));
        }
        report.logprob_error = report.logprob_error.max(logprob_error(&output, expected));
    }

    /// Cancels after some events, and sees the stream end.
    async fn cancel(
        &self,
        index: usize,
        mut stream: JobStream,
        cancel: CancellationToken,
        after: u32,
    ) {
        let mut last = None;
        for _ in 0..after {
            let Some(event) = next(&mut stream).await else { break };
            last = Some(event);
        }
        cancel.cancel();
        while let Some(event) = next(&mut stream).await {
            last = Some(event);
        }
        let mut report = self.report.lock().await;
        match last {
            Some(JobEvent::Failed { error }) if error.code == EngineErrorCode::Cancelled => {
                report.cancelled += 1;
            }
            Some(JobEvent::Failed { error }) if error.code == EngineErrorCode::Busy => {
                report.refused += 1;
            }
            // It was done before it was cancelled.
            Some(JobEvent::Finished { .. }) => report.cancelled += 1,
            other => report.fault(format!("request {index}, cancelled, ended with {other:?}")),
        }
    }

    /// Goes away after some events.
    async fn leave(&self, mut stream: JobStream, after: u32) {
        for _ in 0..after {
            if next(&mut stream).await.is_none() {
                break;
            }
        }
        drop(stream);
        self.report.lock().await.cancelled += 1;
    }

    /// With nothing under way: nothing may be held, and a cancel has to free what it held before its
    /// stream ends.
    async fn check_while_all_pause(
        &self,
        model: &ModelRef,
        memory: &MemoryProbe,
    ) -> Vec<(&'static str, u64)> {
        let _all_pause = self.pause.write().await;
        let mut report = self.report.lock().await;
        report.pauses += 1;
        if let Err(error) = self.check(model, &mut report).await {
            report.fault(format!("in a pause: {error}"));
        }
        memory()
    }

    async fn check(&self, model: &ModelRef, report: &mut SoakReport) -> Result<(), EngineError> {
        // A request that was left ends with the next step; its client is gone by then.
        let mut counters = self.engine.counters().await?;
        for _ in 0..100 {
            if counters.jobs == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            counters = self.engine.counters().await?;
        }
        let held = (counters.jobs, counters.blocks_used, counters.sequences_running);
        if held != (0, 0, 0) || counters.sequences_waiting != 0 {
            report.fault(format!("with nothing under way the engine holds {counters:?}"));
        }
        let cancel = CancellationToken::new();
        let mut job = mix::unique(&model.id, report.pauses, 30);
        job.max_tokens = 200;
        job.logit_bias = vec![];
        let job = JobSpec::Text(job);
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = self.engine.run(&job, cancel.clone()).await?;
            while let Some(event) = next(&mut stream).await {
                if matches!(event, JobEvent::Delta { .. } | JobEvent::Finished { .. }) {
                    break;
                }
            }
            streams.push(stream);
        }
        let running = self.engine.counters().await?;
        cancel.cancel();
        for mut stream in streams {
            while next(&mut stream).await.is_some() {}
        }
        let after = self.engine.counters().await?;
        if running.jobs > 0 && running.blocks_used == 0 {
            report.fault(format!("jobs run without a block: {running:?}"));
        }
        if (after.jobs, after.blocks_used) != (0, 0) {
            report.fault(format!("after a cancel the engine holds {after:?}"));
        }
        Ok(())
    }
}

async fn alone(engine: &dyn Engine, job: &TextJob) -> Result<TextOutput, EngineError> {
    let mut stream = engine.run(&JobSpec::Text(job.clone()), CancellationToken::new()).await?;
    let mut events = Vec::new();
    while let Some(event) = next(&mut stream).await {
        events.push(event);
    }
    match join(events) {
        Ok((output, _)) => Ok(output),
        Err(Ending::Failed(error)) => Err(error),
        Err(Ending::Broken(words)) => Err(EngineError::internal(words)),
    }
}

/// The next event; `None` also when it does not come, which shows as a stream without its last one.
async fn next(stream: &mut JobStream) -> Option<JobEvent> {
    tokio::time::timeout(PATIENCE, stream.recv()).await.ok().flatten()
}

enum Ending {
    Failed(EngineError),
    Broken(String),
}

/// The output of a stream, and its deltas joined answer by answer.
fn join(events: Vec<JobEvent>) -> Result<(TextOutput, BTreeMap<u32, TextDelta>), Ending> {
    let mut joined: BTreeMap<u32, TextDelta> = BTreeMap::new();
    let (mut begun, mut last_tokens, mut output) = (false, 0, None);
    for event in events {
        if output.is_some() {
            return Err(Ending::Broken(format!("{event:?} came after the last event")));
        }
        match event {
            JobEvent::Started { .. } if begun => {
                return Err(Ending::Broken("it began twice".into()));
            }
            JobEvent::Started { .. } => begun = true,
            JobEvent::Delta { delta, tokens } => {
                if !begun || tokens < last_tokens {
                    return Err(Ending::Broken(format!("{tokens} tokens after {last_tokens}")));
                }
                last_tokens = tokens;
                match joined.get_mut(&delta.choice) {
                    Some(held) => held.append(delta),
                    None => drop(joined.insert(delta.choice, delta)),
                }
            }
            JobEvent::Finished { output: JobOutput::Text(text) } => output = Some(text),
            JobEvent::Step { .. } | JobEvent::Finished { output: JobOutput::Image(_) } => {
                return Err(Ending::Broken("a picture came as the answer to a chat".into()));
            }
            JobEvent::Failed { error } => return Err(Ending::Failed(error)),
        }
    }
    match output {
        Some(output) => Ok((output, joined)),
        None => Err(Ending::Broken("the stream ended without an answer".into())),
    }
}

/// What is wrong with the deltas of an output.
fn streams_as(joined: &BTreeMap<u32, TextDelta>, output: &TextOutput) -> Option<String> {
    for (choice, answer) in (0..).zip(&output.choices) {
        let delta = joined.get(&choice).cloned().unwrap_or_default();
        let logprobs = answer.logprobs.clone().unwrap_or_default();
        if delta.text != answer.text {
            return Some(format!("streamed {:?}, answered {:?}", delta.text, answer.text));
        }
        if delta.tool_calls != answer.tool_calls || delta.logprobs != logprobs {
            return Some(format!("calls or log-probabilities of answer {choice} were lost"));
        }
    }
    (joined.len() > output.choices.len()).then(|| "more answers were streamed than given".into())
}

/// What an output says differently than alone.
fn says_as(output: &TextOutput, expected: &TextOutput) -> Option<String> {
    if output.usage != expected.usage || output.choices.len() != expected.choices.len() {
        return Some(format!("used {:?}, alone {:?}", output.usage, expected.usage));
    }
    let mut pairs = output.choices.iter().zip(&expected.choices);
    pairs.find_map(|(found, alone)| {
        let same = found.text == alone.text
            && found.tool_calls == alone.tool_calls
            && found.finish_reason == alone.finish_reason
            && tokens(found) == tokens(alone);
        (!same).then(|| format!("said {:?}, alone {:?}", found.text, alone.text))
    })
}

/// The tokens that log-probabilities name.
fn tokens(choice: &neurino_core::TextChoice) -> Vec<&[u8]> {
    choice.logprobs.iter().flatten().map(|rated| rated.chosen.bytes.as_slice()).collect()
}

fn logprob_error(output: &TextOutput, expected: &TextOutput) -> f32 {
    let all = |output: &TextOutput| -> Vec<f32> {
        let rated = output.choices.iter().flat_map(|choice| choice.logprobs.iter().flatten());
        rated.map(|rated| rated.chosen.logprob).collect()
    };
    let pairs = all(output).into_iter().zip(all(expected));
    pairs.map(|(found, alone)| (found - alone).abs()).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use neurino_core::{FinishReason, Usage};

    use super::*;

    fn delta(text: &str, tokens: u32) -> JobEvent {
        JobEvent::Delta { delta: TextDelta::text(text), tokens }
    }

    fn finished(text: &str) -> JobEvent {
        let output = TextOutput::single(text, FinishReason::Stop, Usage::default());
        JobEvent::Finished { output: JobOutput::Text(output) }
    }

    fn fault(events: Vec<JobEvent>) -> Option<String> {
        match join(events) {
            Ok((output, joined)) => streams_as(&joined, &output),
            Err(Ending::Broken(words)) => Some(words),
            Err(Ending::Failed(error)) => Some(error.to_string()),
        }
    }

    #[test]
    fn lost_doubled_and_cut_streams_are_seen() {
        let start = || JobEvent::Started { prompt_tokens: 1 };
        assert_eq!(fault(vec![start(), delta("a", 1), delta("b", 2), finished("ab")]), None);
        for broken in [
            vec![start(), delta("a", 1), finished("ab")],
            vec![start(), delta("a", 1), delta("a", 1), delta("b", 2), finished("ab")],
            vec![start(), start(), delta("ab", 2), finished("ab")],
            vec![start(), delta("b", 2), delta("a", 1), finished("ba")],
            vec![start(), delta("ab", 2)],
            vec![start(), delta("ab", 2), finished("ab"), finished("ab")],
        ] {
            assert!(fault(broken).is_some());
        }
    }

    #[test]
    fn growth_is_the_last_quarter_against_the_first() {
        let sample = |bytes| vec![("engine", bytes)];
        let samples: Vec<_> = [100, 900, 100, 110, 120, 130, 130, 131].map(sample).to_vec();
        let memory = compare(&samples);
        assert_eq!(memory["engine"], (900, 131), "the median of two is the larger");
        assert!(compare(&samples[..3]).is_empty());
        let report = SoakReport { memory: [("engine", (100, 106))].into(), ..Default::default() };
        assert!((report.growth()["engine"] - 0.06).abs() < 1e-9);
    }
}
