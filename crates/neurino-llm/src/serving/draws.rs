//! Who draws from which row of a step, and where: on the device, or here from a row of scores.

use neurino_nn::choice::{ChosenToken, TokenRule};

use super::plan::SequenceId;
use crate::model::{Found, Wanted};

/// The draws of a step, in the order of their rows.
#[derive(Debug, Default)]
pub(crate) struct Draws {
    /// Rows of the step, each once.
    pub(crate) rows: Vec<usize>,
    /// Places in `rows` whose scores come here.
    scores: Vec<usize>,
    /// Places in `rows` from which the device chooses, and how.
    choices: Vec<(usize, TokenRule)>,
    drawn: Vec<(SequenceId, Source)>,
}

/// Where an answer's next token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// From these of the scores.
    Scores(usize),
    /// It is this of the choices.
    Choice(usize),
}

/// What an answer's next token is made of.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// Scores, which drawing changes.
    Borrowed(&'a mut [f32]),
    /// The same, where several answers draw from them.
    Copied(Vec<f32>),
    /// A token of the device; `None` if the scores were no numbers.
    Chosen(Option<ChosenToken>),
}

impl Draws {
    /// Adds a row and the answers that draw from it, each with its rule if the device may choose.
    pub(crate) fn add(&mut self, row: usize, answers: Vec<(SequenceId, Option<TokenRule>)>) {
        let place = self.rows.len();
        self.rows.push(row);
        for (id, rule) in answers {
            let source = if let Some(rule) = rule {
                self.choices.push((place, rule));
                Source::Choice(self.choices.len() - 1)
            } else {
                if self.scores.last() != Some(&place) {
                    self.scores.push(place);
                }
                Source::Scores(self.scores.len() - 1)
            };
            self.drawn.push((id, source));
        }
    }

    /// What the model is asked for.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { rows: &self.rows, scores: &self.scores, choices: &self.choices }
    }

    /// How many tokens the device chooses.
    pub(crate) fn on_device(&self) -> usize {
        self.choices.len()
    }

    /// Hands each answer what its next token is made of.
    pub(crate) fn deal(self, found: &mut Found) -> Vec<(SequenceId, Next<'_>)> {
        let Found { logits, tokens } = found;
        let mut rows: Vec<_> = logits.rows_mut().map(Some).collect();
        let sources: Vec<Source> = self.drawn.iter().map(|(_, source)| *source).collect();
        let next = |at: usize| match sources[at] {
            Source::Choice(place) => Some(Next::Chosen(tokens.get(place).copied().flatten())),
            // Those who draw from one row follow one another.
            source @ Source::Scores(place) if sources.get(at + 1) == Some(&source) => {
                rows.get(place)?.as_ref().map(|row| Next::Copied(row.to_vec()))
            }
            Source::Scores(place) => rows.get_mut(place)?.take().map(Next::Borrowed),
        };
        let nexts: Vec<_> = (0..sources.len()).map(next).collect();
        let ids = self.drawn.into_iter().map(|(id, _)| id);
        ids.zip(nexts).filter_map(|(id, next)| Some((id, next?))).collect()
    }
}
