//! `neurino epoch payers`: how the payers of an epoch behave, from its entries alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use neurino_coordinator::{Database, epochs};
use neurino_core::{JobId, MicroPoints};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::{
    Alike, Behaviour, BehaviourLimits, Entry, EpochFile, GroupBehaviour, PayerBehaviour, Reason,
    Verdict, behaviour, check_entries, read_entries,
};
use serde_json::{Value, json};

use super::{read, read_json};
use crate::output::{self, Format};

/// Rows of the table.
const ROWS: usize = 40;

/// What is asked for beside the entries.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) entries: PathBuf,
    pub(super) file: Option<PathBuf>,
    pub(super) limits: String,
}

/// Who is behind the names of an epoch, by the first job of each.
type Names = BTreeMap<JobId, PayerId>;

/// `books` are those to look names up in.
pub(super) async fn run(
    format: Format,
    asked: &Asked,
    books: Option<&Database>,
) -> anyhow::Result<()> {
    let found = found(asked)?;
    let suspects = found.payers.iter().filter(|own| own.verdict == Verdict::LooksAutomatic);
    let jobs: Vec<JobId> = suspects.map(|own| own.job).collect();
    let names = match books {
        Some(books) => Some(epochs::payers_beside(books, &jobs).await?),
        None => None,
    };
    match format {
        Format::Json => output::json(&as_json(&found, names.as_ref())?)?,
        Format::Text => {
            for line in lines(&found, names.as_ref()) {
                output::line(line);
            }
        }
    }
    Ok(())
}

pub(super) fn found(asked: &Asked) -> anyhow::Result<Behaviour> {
    let path = &asked.entries;
    let entries = read_entries(&read(path)?).with_context(|| path.display().to_string())?;
    if let Some(path) = &asked.file {
        hold(path, &entries)?;
    }
    let at_ms = entries.first().map_or(0, |entry| entry.at_ms);
    let limits = BehaviourLimits::at(&asked.limits, at_ms)?;
    behaviour(&entries, &limits).with_context(|| path.display().to_string())
}

/// The entries must be those of the file.
fn hold(path: &Path, entries: &[Entry]) -> anyhow::Result<()> {
    let file: EpochFile = read_json(path)?;
    check_entries(&file, entries)
        .with_context(|| format!("the entries are not all those of epoch {}", file.inputs.epoch))
}

pub(super) fn as_json(found: &Behaviour, names: Option<&Names>) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(found)?;
    if let (Some(names), Some(rows)) = (names, value["payers"].as_array_mut()) {
        for (row, own) in rows.iter_mut().zip(&found.payers) {
            if let Some(name) = names.get(&own.job) {
                row["known_as"] = json!(name);
            }
        }
    }
    Ok(value)
}

/// What a person reads.
pub(super) fn lines(found: &Behaviour, names: Option<&Names>) -> Vec<String> {
    let (all, automatic) = (&found.all, &found.automatic);
    if all.jobs == 0 {
        return vec![
            "Nobody asked for work that was paid: there are no entries, or all are the network's own, \
             audits, or pay that was called back."
                .into(),
        ];
    }
    let mut lines = vec![
        format!(
            "{} payers, {} jobs, {} organic points.",
            all.payers,
            all.jobs,
            MicroPoints(all.organic_micro)
        ),
        format!(
            "{} of them look automatic by the limits `{}`: {} jobs, {} of the organic points.",
            automatic.payers,
            output::plain(&found.limits.name),
            automatic.jobs,
            percent(automatic.organic_ppm)
        ),
        String::new(),
        row("PAYER", "JOBS", "ORGANIC POINTS", "SHARE", "LOOKS", "WHY"),
    ];
    let mut rows: Vec<((i64, u64), String)> = Vec::new();
    for (at, group) in found.groups.iter().enumerate() {
        rows.push(((group.organic_micro, group.jobs), group_row(at, group)));
    }
    let alone = found.payers.iter().filter(|own| group_of(own).is_none());
    rows.extend(alone.map(|own| ((own.organic_micro, own.jobs), payer_row(own))));
    // Stable: payers of the same figures stay in their order.
    rows.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let more = rows.len().saturating_sub(ROWS);
    lines.extend(rows.into_iter().take(ROWS).map(|(_, row)| row));
    if more > 0 {
        lines.push(format!("{more} more with fewer organic points; --json has every one."));
    }
    lines.push(String::new());
    if let Some(names) = names {
        lines.extend(known(found, names));
    }
    lines.push(
        "This is evidence and moves no points: a program can be honest, and a limit can be kept below. \
         --json has every figure and every limit."
            .into(),
    );
    lines
}

/// The payers that look automatic, as the books know them, each once.
fn known(found: &Behaviour, names: &Names) -> Vec<String> {
    let mut lines = Vec::new();
    for own in found.payers.iter().filter(|own| own.verdict == Verdict::LooksAutomatic) {
        let name = names.get(&own.job).map(|name| output::plain(name.as_str()));
        let name = name.unwrap_or_else(|| "not in these books".into());
        lines.push(format!("{} is {name}", output::plain(&own.payer)));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

fn row(payer: &str, jobs: &str, organic: &str, share: &str, looks: &str, why: &str) -> String {
    let row = format!("{payer:<24} {jobs:>8} {organic:>18} {share:>7}  {looks:<11} {why}");
    row.trim_end().to_owned()
}

fn payer_row(own: &PayerBehaviour) -> String {
    let looks = match own.verdict {
        Verdict::LooksAutomatic => "automatic",
        Verdict::LooksHuman => "human",
        Verdict::SaysLittle => "says little",
    };
    row(
        &output::plain(&own.payer),
        &own.jobs.to_string(),
        &MicroPoints(own.organic_micro).to_string(),
        &percent(own.organic_ppm),
        looks,
        &whys(&own.reasons),
    )
}

fn group_row(at: usize, group: &GroupBehaviour) -> String {
    let alike = match &group.alike {
        Alike::Template { model, points_micro, .. } => {
            let points = MicroPoints(*points_micro);
            format!("one program's: equal jobs of {} at {points} points", output::plain(model))
        }
        Alike::Habit { model, jobs, .. } => {
            let model = model.as_deref().unwrap_or("several models");
            format!("one program's: about {jobs} jobs each of {}", output::plain(model))
        }
    };
    row(
        &format!("group {}: {} names", at + 1, group.payers),
        &group.jobs.to_string(),
        &MicroPoints(group.organic_micro).to_string(),
        &percent(group.organic_ppm),
        "automatic",
        &format!("{alike}; {}", whys(&group.reasons)),
    )
}

fn group_of(own: &PayerBehaviour) -> Option<usize> {
    own.reasons.iter().find_map(|reason| match reason {
        Reason::OneOfGroup { group } => Some(*group),
        _ => None,
    })
}

fn whys(reasons: &[Reason]) -> String {
    let words: Vec<String> = reasons.iter().map(why).collect();
    words.join("; ")
}

/// A reason with its figures and limits.
fn why(reason: &Reason) -> String {
    match *reason {
        Reason::RegularGaps { cv_ppm, at_most_ppm } => {
            format!("gaps vary by {} (at most {})", percent(cv_ppm), percent(at_most_ppm))
        }
        Reason::FlatDay {
            uneven_ppm,
            uneven_at_most_ppm,
            dispersion_ppm,
            dispersion_at_most_ppm,
        } => format!(
            "awake at all hours: its day is uneven by {} (at most {}), single hours by {} of what chance \
             does (at most {})",
            percent(uneven_ppm.max(0).unsigned_abs()),
            percent(uneven_at_most_ppm.unsigned_abs()),
            percent(dispersion_ppm),
            percent(dispersion_at_most_ppm)
        ),
        Reason::Templated { share_ppm, at_least_ppm } => {
            format!("{} equal jobs (at least {})", percent(share_ppm), percent(at_least_ppm))
        }
        Reason::OneOfGroup { group } => format!("one of group {}", group + 1),
    }
}

/// Millionths as a percentage.
fn percent(ppm: u64) -> String {
    let tenths = ppm.saturating_add(500) / 1_000;
    format!("{}.{} %", tenths / 10, tenths % 10)
}
