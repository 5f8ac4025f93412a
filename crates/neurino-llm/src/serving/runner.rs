//! Drives a model: plans a step, computes it, draws the next tokens, tells what became of whom.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Zoned;
use neurino_core::{TextDelta, TextJob, TextOutput};
use neurino_nn::choice::TokenRule;
use neurino_nn::paged::{BatchLayout, PagedKvCache, SequenceSpan};
use rayon::prelude::*;

use super::answer::{Advance, Answer};
use super::blocks::Release;
use super::draws::{Draws, Next};
use super::plan::{Plan, SchedulerCounters, SequenceId, ServingLimits};
use super::request::{GenerateError, Open, Prepared, Preparer, too_large};
use super::scheduler::Scheduler;
use super::shapes::StepShapes;
use crate::LlmError;
use crate::chat::ChatTemplate;
use crate::model::{Found, LanguageModel};
use crate::tokenizer::Tokenizer;

/// The caller's number for a request; not used by another one under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request that was taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
}

/// What a step did to a request.
#[derive(Debug)]
pub enum RunnerEvent {
    /// An answer got a token.
    Delta {
        /// The request.
        id: RequestId,
        /// What became certain. Its text is empty while a character, a stop string or a call is
        /// open.
        delta: TextDelta,
        /// Tokens generated so far in all answers of the request.
        tokens: u32,
    },
    /// All answers are complete. The last event of the request.
    Finished {
        /// The request.
        id: RequestId,
        /// Its answers. Their texts are those of the deltas, joined.
        output: TextOutput,
    },
    /// There will be no answer. The last event of the request.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: GenerateError,
    },
}

/// Counts of a runner, all since it was made but those of `scheduler`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunnerCounters {
    /// Blocks and sequences.
    pub scheduler: SchedulerCounters,
    /// Requests under way.
    pub requests: usize,
    /// Steps computed.
    pub steps: u64,
    /// Tokens computed, those computed again included.
    pub rows: u64,
    /// Tokens drawn.
    pub tokens: u64,
    /// Of them, those that the device chose.
    pub device_tokens: u64,
    /// Time of the steps.
    pub step_time: Duration,
    /// Of it, time inside the model.
    pub model_time: Duration,
}

/// Serves many requests with one model.
pub struct Runner {
    model: LanguageModel,
    preparer: Preparer,
    cache: PagedKvCache,
    scheduler: Scheduler,
    /// What steps are filled up to, if not left as they come.
    shapes: Option<StepShapes>,
    /// By the scheduler's number.
    open: HashMap<u64, Open>,
    numbers: HashMap<RequestId, u64>,
    answers: HashMap<SequenceId, Box<Answer>>,
    counters: RunnerCounters,
}

impl Runner {
    /// A runner with an empty cache, which takes `limits.n_blocks` times
    /// [`LanguageModel::block_bytes`] of the device's memory.
    pub fn new(
        model: LanguageModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        limits: ServingLimits,
    ) -> Self {
        let cache = model.new_cache(limits.n_blocks);
        Self::with_cache(model, tokenizer, template, limits, false, cache)
    }

    /// As [`Runner::new`], with steps that come in few shapes, as a card wants them. Some blocks of
    /// `limits` hold what fills them up.
    pub fn in_shapes(
        model: LanguageModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        limits: ServingLimits,
    ) -> Self {
        let cache = model.new_cache(limits.n_blocks);
        Self::with_cache(model, tokenizer, template, limits, true, cache)
    }

    /// As [`Runner::new`], or as [`Runner::in_shapes`], with an empty cache of `model` of
    /// `limits.n_blocks` blocks that was made before: whoever is not sure of the memory keeps the model.
    pub fn with_cache(
        model: LanguageModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        limits: ServingLimits,
        in_shapes: bool,
        cache: PagedKvCache,
    ) -> Self {
        let shapes = in_shapes.then(|| StepShapes::new(&limits, model.context_tokens()));
        let filling = shapes.map_or(0, |shapes| shapes.filling_blocks());
        let n_blocks = limits.n_blocks.saturating_sub(filling);
        Self {
            cache,
            preparer: Preparer::new(&model, tokenizer, template),
            model,
            scheduler: Scheduler::new(ServingLimits { n_blocks, ..limits }),
            shapes,
            open: HashMap::new(),
            numbers: HashMap::new(),
            answers: HashMap::new(),
            counters: RunnerCounters::default(),
        }
    }

    /// The model.
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.preparer.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.preparer.template
    }

    /// What prepares jobs for [`Runner::take_on`], to be sent to another thread.
    pub fn preparer(&self) -> &Preparer {
        &self.preparer
    }

    /// Gives the parts back that it was made of; what is under way is lost.
    pub fn into_parts(self) -> (LanguageModel, Tokenizer, ChatTemplate) {
        (self.model, self.preparer.tokenizer, self.preparer.template)
    }

    /// Takes a job on; its answers come with the next steps. `now` is the date a chat template may
    /// print. An `id` that is under way is begun anew.
    ///
    /// # Errors
    /// Any [`GenerateError`] but `NoLogits`. Nothing was taken on then.
    pub fn submit(
        &mut self,
        id: RequestId,
        job: &TextJob,
        now: &Zoned,
    ) -> Result<Admitted, GenerateError> {
        let prepared = self.preparer.prepare(job, now)?;
        self.take_on(id, prepared)
    }

    /// As [`Runner::submit`], with a job that this runner's [`Preparer`] has prepared.
    ///
    /// # Errors
    /// `CacheTooSmall`. Nothing was taken on then.
    pub fn take_on(&mut self, id: RequestId, job: Prepared) -> Result<Admitted, GenerateError> {
        let Prepared { prompt, max_tokens, answers, claimed } = job;
        let (prompt_tokens, choices) = (prompt.len(), answers.len());
        self.cancel(id);
        let answers_count = u32::try_from(choices).unwrap_or(u32::MAX);
        let number = match claimed {
            Some(claimed) => {
                // What follows the last token of a claim is not asked for. One of which not a token is
                // the model's ends where its first would be.
                let whole = |tokens: &Vec<u32>, claimed: usize| {
                    let scored = tokens.len().min(claimed.saturating_sub(1));
                    [&prompt[..], &tokens[..scored]].concat()
                };
                let lengths = answers.iter().map(Answer::claimed);
                let texts = claimed.iter().zip(lengths).map(|(t, n)| whole(t, n)).collect();
                self.scheduler.submit_claim(texts, prompt_tokens)
            }
            None => self.scheduler.submit(prompt, answers_count, max_tokens),
        };
        let number = number.map_err(|error| too_large(error, prompt_tokens, max_tokens))?;
        self.numbers.insert(id, number);
        self.open.insert(number, Open::new(id, prompt_tokens, choices));
        for (choice, answer) in (0..).zip(answers) {
            self.answers.insert(SequenceId { request: number, choice }, Box::new(answer));
        }
        Ok(Admitted { prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX) })
    }

    /// Forgets a request; its memory is free at once, and no event of it follows. `false` if it was
    /// not under way.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let Some(&number) = self.numbers.get(&id) else { return false };
        self.forget(number, Release::Keep);
        true
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Counts.
    pub fn counters(&self) -> RunnerCounters {
        let (scheduler, requests) = (self.scheduler.counters(), self.open.len());
        RunnerCounters { scheduler, requests, ..self.counters }
    }

    /// Computes a step: the next token of every running answer, and pieces of prompts. Nothing when
    /// idle.
    ///
    /// If the model fails, the requests of the step fail with it and the cache is made anew; all
    /// others go on.
    pub fn step(&mut self) -> Vec<RunnerEvent> {
        let started = Instant::now();
        let mut events = Vec::new();
        let plan = self.scheduler.plan();
        if plan.parts.is_empty() {
            return events;
        }
        let computing = Instant::now();
        let computed = self.compute(&plan);
        self.counters.model_time += computing.elapsed();
        match computed {
            Ok((draws, found)) => self.draw(&plan, draws, found, &mut events),
            Err(error) => self.fail_step(&plan, error, &mut events),
        }
        self.counters.steps += 1;
        self.counters.rows += plan.tokens.len() as u64;
        self.counters.step_time += started.elapsed();
        events
    }

    /// What each part that draws draws from.
    fn compute(&mut self, plan: &Plan) -> Result<(Draws, Found), LlmError> {
        // A store may copy all pairs of a call at once, so none may read what another wrote.
        for pairs in independent(&plan.copies) {
            self.cache.copy_blocks(pairs)?;
        }
        let (mut sequences, mut draws, mut row) = (Vec::new(), Draws::default(), 0);
        for part in &plan.parts {
            row += part.rows;
            if part.draws {
                let answers = self.scheduler.drawing(part.id);
                draws.add(row - 1, answers.map(|id| (id, self.rule(id))).collect());
            }
            for scored in row - part.scored..row {
                draws.add(scored, vec![(part.id, None)]);
            }
            let (rows, start, blocks) = (part.rows, part.start, part.blocks.clone());
            sequences.push(SequenceSpan { rows, start, blocks });
        }
        let mut batch = BatchLayout { sequences };
        let mut tokens = Cow::Borrowed(&plan.tokens[..]);
        if let Some(shapes) = &self.shapes {
            // The blocks behind the scheduler's are nobody else's.
            let free = self.scheduler.n_blocks() as u32;
            shapes.fill(tokens.to_mut(), &mut batch, &mut draws.rows, free);
        }
        let found = self.model.step_drawing(&tokens, &batch, &draws.wanted(), &mut self.cache)?;
        Ok((draws, found))
    }

    /// How the device may choose an answer's next token, if it may.
    fn rule(&self, id: SequenceId) -> Option<TokenRule> {
        if self.model.chooses() { self.answers.get(&id)?.rule() } else { None }
    }

    /// Draws a token for each answer that has scores now; a claimed one may have those of several.
    fn draw(&mut self, plan: &Plan, draws: Draws, mut found: Found, events: &mut Vec<RunnerEvent>) {
        let expected = self.scheduler.complete(plan);
        self.counters.device_tokens += draws.on_device() as u64;
        let dealt = draws.deal(&mut found);
        debug_assert!(expected.iter().flatten().eq(dealt.iter().map(|(id, _)| id)), "one each");
        let mut work: Vec<(SequenceId, Box<Answer>, Vec<Next<'_>>)> = Vec::new();
        for (id, next) in dealt {
            match work.last_mut() {
                Some((last, _, nexts)) if *last == id => nexts.push(next),
                _ => work.extend(self.answers.remove(&id).map(|answer| (id, answer, vec![next]))),
            }
        }
        let tokenizer = &self.preparer.tokenizer;
        let drawn: Vec<_> = work
            .into_par_iter()
            .map(|(id, mut answer, nexts)| {
                let mut advances = Vec::with_capacity(nexts.len());
                for next in nexts {
                    let advance = answer.advance(next, tokenizer);
                    let is_over = advance.as_ref().map_or(true, |advance| advance.end.is_some());
                    advances.push(advance);
                    if is_over {
                        break;
                    }
                }
                (id, answer, advances)
            })
            .collect();
        for (id, answer, advances) in drawn {
            let mut answer = Some(answer);
            for advance in advances {
                match advance {
                    Ok(advance) => self.take(id, &mut answer, advance, events),
                    Err(error) => self.fail(id.request, error, events),
                }
            }
            // It goes on, unless its request is over.
            if let Some(answer) = answer.filter(|_| self.open.contains_key(&id.request)) {
                self.answers.insert(id, answer);
            }
        }
    }

    /// Notes what an answer drew. One that is at its end is taken away.
    fn take(
        &mut self,
        id: SequenceId,
        answer: &mut Option<Box<Answer>>,
        advance: Advance,
        events: &mut Vec<RunnerEvent>,
    ) {
        // Another answer of the same request may have failed in this step.
        let Some(open) = self.open.get_mut(&id.request) else { return };
        let Advance { token, delta, end } = advance;
        let request = open.request;
        if let Some(token) = token {
            self.counters.tokens += 1;
            let tokens = open.count_token();
            events.push(RunnerEvent::Delta { id: request, delta, tokens });
            let is_claimed = answer.as_ref().is_some_and(|answer| answer.claimed() > 0);
            if end.is_none() && !is_claimed {
                self.scheduler.push(id, token);
            }
        }
        let Some(end) = end else { return };
        *answer = None;
        let output = open.end(id.choice, end);
        self.scheduler.finish(id);
        if let Some(output) = output {
            self.open.remove(&id.request);
            self.numbers.remove(&request);
            events.push(RunnerEvent::Finished { id: request, output });
        }
    }

    /// Fails the requests of a step. Nobody knows what the cache holds now, so that it is made anew.
    fn fail_step(&mut self, plan: &Plan, error: LlmError, events: &mut Vec<RunnerEvent>) {
        tracing::error!(%error, rows = plan.tokens.len(), "a step failed");
        let error = Arc::new(error);
        let requests: HashSet<u64> = plan.parts.iter().map(|part| part.id.request).collect();
        let mut requests: Vec<u64> = requests.into_iter().collect();
        requests.sort_unstable();
        for number in requests {
            self.fail(number, GenerateError::Model(Arc::clone(&error)), events);
        }
        self.scheduler.forget_cache();
        let filling = self.shapes.map_or(0, |shapes| shapes.filling_blocks());
        let n_blocks = self.scheduler.n_blocks() + filling;
        // The old one's memory first.
        self.cache = self.model.new_cache(0);
        self.cache = self.model.new_cache(n_blocks);
    }

    fn fail(&mut self, number: u64, error: GenerateError, events: &mut Vec<RunnerEvent>) {
        if let Some(open) = self.open.get(&number) {
            events.push(RunnerEvent::Failed { id: open.request, error });
            self.forget(number, Release::Forget);
        }
    }

    fn forget(&mut self, number: u64, release: Release) {
        self.scheduler.cancel(number, release);
        if let Some(open) = self.open.remove(&number) {
            self.numbers.remove(&open.request);
        }
        self.answers.retain(|id, _| id.request != number);
    }
}

/// Cuts copies into runs in which no block is both read and written.
fn independent(copies: &[(u32, u32)]) -> impl Iterator<Item = &[(u32, u32)]> {
    let mut touched = (HashSet::new(), HashSet::new());
    copies.chunk_by(move |before, next| {
        let (read, written) = &mut touched;
        read.insert(before.0);
        written.insert(before.1);
        let apart = !read.contains(&next.1) && !written.contains(&next.0);
        if !apart {
            read.clear();
            written.clear();
        }
        apart
    })
}

#[cfg(test)]
mod tests;
