//! Texts that an auditor scores token by token instead of writing them again, as `neurino audit calibrate`
//! measures it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use neurino_coordinator::compare::{self, Figures, Finding};
use neurino_core::audit::AuditRules;
use neurino_core::audit::bounds::MeasuredShare;
use neurino_core::audit::margins::MarginRules;
use neurino_core::{JobOutput, JobSpec};
use neurino_engine::LocalEngine;
use serde::Serialize;

use super::calibrate::{CONFIDENCE, Results, compute};
use super::cheats::Manner;

/// What scores say of the results of a manner.
#[derive(Debug, Serialize)]
pub(super) struct Scored {
    /// How many were told to be others.
    told_apart: MeasuredShare,
    /// How many were told to hold; what is neither said nothing.
    held: MeasuredShare,
    /// Share of tokens that the auditor's sampler would have chosen.
    exact: f64,
    /// Mean clipped margin of a text: of all, the least and the most.
    margin: [f64; 3],
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Scoring {
    rules: MarginRules,
    pub(super) by_manner: BTreeMap<Manner, Scored>,
    /// Time of scoring honest texts over that of writing them.
    cost: f64,
}

/// Scores every result of every manner; none for pictures. `wrote` is how long the auditor took to write all
/// jobs again.
pub(super) async fn score(
    engine: &LocalEngine,
    jobs: &[JobSpec],
    results: &Results,
    wrote: Duration,
) -> anyhow::Result<Option<Scoring>> {
    let rules = AuditRules::built_in().margins;
    let mut by_manner = BTreeMap::new();
    let mut cost = 0.0;
    for (manner, made) in results {
        let (mut findings, started) = (Vec::new(), Instant::now());
        for (spec, output) in jobs.iter().zip(made) {
            if let Some(output) = output {
                findings.extend(finding(engine, spec, output, &rules).await?);
            }
        }
        if *manner == Manner::Honest {
            cost = started.elapsed().as_secs_f64() / wrote.as_secs_f64().max(1e-9);
        }
        if !findings.is_empty() {
            by_manner.insert(*manner, summed(&findings));
        }
    }
    Ok((!by_manner.is_empty()).then_some(Scoring { rules, by_manner, cost }))
}

/// What an auditor says that scores a text; blind where it was drawn, as a network asks it.
async fn finding(
    engine: &LocalEngine,
    spec: &JobSpec,
    output: &JobOutput,
    rules: &MarginRules,
) -> anyhow::Result<Option<Finding>> {
    let (JobSpec::Text(job), JobOutput::Text(text)) = (spec, output) else { return Ok(None) };
    let right = job.sampling.seed;
    let decoys = if job.sampling.temperature > 0.0 { rules.decoys } else { 0 };
    let others = (1..=u64::from(decoys)).map(|n| right + 1_000_003 * n);
    let seeds = others.chain([right]).collect();
    let Some(claim) = compare::claimed(job, text, seeds, rules.clip_ppm) else { return Ok(None) };
    let scores = compute(engine, &claim).await?;
    let (JobSpec::Text(asked), JobOutput::Text(scores)) = (&claim, &scores) else {
        return Ok(None);
    };
    let Some(claim) = &asked.claim else { return Ok(None) };
    Ok(Some(compare::scored(text, scores, claim, right, rules)))
}

fn figures(finding: &Finding) -> Figures {
    match finding {
        Finding::Same => Figures::default(),
        Finding::Close { figures }
        | Finding::Differs { figures, .. }
        | Finding::Unclear { figures } => *figures,
    }
}

fn summed(findings: &[Finding]) -> Scored {
    let of = u32::try_from(findings.len()).unwrap_or(u32::MAX);
    let share = |is: fn(&Finding) -> bool| {
        let hits = findings.iter().filter(|finding| is(finding)).count();
        MeasuredShare::of(u32::try_from(hits).unwrap_or(u32::MAX), of, CONFIDENCE)
    };
    let mean = |of: &dyn Fn(&Figures) -> Option<f64>| {
        let weighed = findings.iter().map(figures).filter_map(|f| Some((of(&f)?, f.tokens?)));
        let (sum, tokens) = weighed.fold((0.0, 0), |(sum, tokens), (value, count)| {
            (sum + value * count as f64, tokens + count)
        });
        if tokens == 0 { 0.0 } else { sum / tokens as f64 }
    };
    let margins = || findings.iter().filter_map(|finding| figures(finding).margin);
    Scored {
        told_apart: share(|finding| matches!(finding, Finding::Differs { .. })),
        held: share(|finding| matches!(finding, Finding::Close { .. } | Finding::Same)),
        exact: mean(&|figures| figures.exact),
        margin: [
            mean(&|figures| figures.margin),
            margins().fold(f64::INFINITY, f64::min),
            margins().fold(0.0, f64::max),
        ],
    }
}

/// The table, and what the scores cost.
pub(super) fn lines(scoring: &Scoring) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<20}{:>6}  {:<30}{:<12}{:<10}mean margin (least to most)",
        "scored", "n", "told apart", "held", "exact"
    )];
    for (manner, row) in &scoring.by_manner {
        let apart = &row.told_apart;
        let share = format!(
            "{:>5.1} % ({:.1} to {:.1} %)",
            100.0 * apart.share,
            100.0 * apart.low,
            100.0 * apart.high
        );
        let [mean, least, most] = row.margin;
        lines.push(format!(
            "{:<20}{:>6}  {:<30}{:<12}{:<10}{mean:.4} ({least:.4} to {most:.4})",
            manner.words(false),
            apart.of,
            share,
            format!("{:.1} %", 100.0 * row.held.share),
            format!("{:.1} %", 100.0 * row.exact),
        ));
    }
    let rules = &scoring.rules;
    lines.push(format!(
        "A text holds up to a mean margin of {:.4} and is another one above {:.4}, over at least {} tokens. \
         Scoring took {:.2} of the time of writing.",
        f64::from(rules.holds_ppm) / 1e6,
        f64::from(rules.fails_ppm) / 1e6,
        rules.tokens_min,
        scoring.cost,
    ));
    lines
}
