//! `neurino epoch`: what a week of a network came to: made, read, computed again.

mod payers;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
mod verify;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use neurino_coordinator::Database;
use neurino_coordinator::epochs::{self, Holdings};
use neurino_ledger::epoch::{EpochFile, Proof, epoch_of};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Setting;
use crate::args::EpochAction;
use crate::coordinator::{database_at, key_there};
use crate::output::{self, Format};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Entries that are read at once.
const LINES: u32 = 5_000;

pub(crate) async fn run(setting: Setting, action: EpochAction) -> anyhow::Result<ExitCode> {
    let format = setting.format;
    match action {
        EpochAction::Make { rules } => make(&setting, &rules).await?,
        EpochAction::Show { epoch, out } => {
            let found = epochs::file_beside(&books(&setting)?, epoch).await?;
            let body =
                found.context("there is no such epoch; `/v1/epochs` lists those there are")?;
            write(out.as_deref(), &body)?;
        }
        EpochAction::Entries { epoch, out } => entries(&setting, epoch, out.as_deref()).await?,
        EpochAction::Holdings { file } => {
            let holdings: Holdings = read_json(&file)?;
            let (taken_at_ms, holders) = (holdings.snapshot.taken_at_ms, holdings.holders.len());
            epochs::keep_holdings(&books(&setting)?, holdings).await?;
            match format {
                Format::Json => output::json(&json!({ "taken_at_ms": taken_at_ms }))?,
                Format::Text => output::line(format!(
                    "Kept: holdings of {holders} addresses. They count for epoch {} and later, \
                     until newer ones are kept.",
                    epoch_of(taken_at_ms)
                )),
            }
        }
        EpochAction::Verify { file, entries, receipts, previous, coordinator } => {
            let beside = verify::Beside { entries, receipts, previous, coordinator };
            verify::run(format, &file, &beside)?;
        }
        EpochAction::Payers { entries, file, limits, names } => {
            let books = if names { Some(books(&setting)?) } else { None };
            let asked = payers::Asked { entries, file, limits };
            payers::run(format, &asked, books.as_ref()).await?;
        }
        EpochAction::Proof { file, address } => {
            let file: EpochFile = read_json(&file)?;
            file.verify().context("the file does not hold")?;
            output::json(&file.proof(address)?)?;
        }
        EpochAction::Check { file, root } => {
            let proof: Proof = read_json(&file)?;
            let root = root.unwrap_or(proof.root);
            Proof { root, ..proof.clone() }.check()?;
            match format {
                Format::Json => output::json(&json!({ "holds": true, "root": root }))?,
                Format::Text => output::line(format!(
                    "{} has {} in epoch {} of {}, by the root {root}.",
                    proof.account,
                    proof.cumulative.shown(),
                    proof.epoch,
                    output::plain(&proof.network)
                )),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The books of the network that this machine runs.
fn books(setting: &Setting) -> anyhow::Result<Database> {
    let database = database_at(setting, None)?;
    let is_there = match &database {
        Database::Sqlite(path) => path.is_file(),
        Database::Postgres(_) => true,
    };
    anyhow::ensure!(
        is_there,
        "this machine runs no network of its own: there are no books at {database}. The practice \
         network makes no epochs, as its points cannot be exchanged"
    );
    Ok(database)
}

async fn make(setting: &Setting, rules: &str) -> anyhow::Result<()> {
    let database = books(setting)?;
    let key = key_there(setting).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let made = epochs::make_beside(&database, rules, &key, now_ms).await?;
    match setting.format {
        Format::Json => output::json(&json!({ "made": made }))?,
        Format::Text if made.is_empty() => output::line(format!(
            "Nothing is due: an epoch is made a week and an hour after its week has ended, if there was \
             work. It is epoch {} now.",
            epoch_of(now_ms)
        )),
        Format::Text => {
            for epoch in made {
                output::line(format!("Made epoch {epoch}."));
            }
        }
    }
    Ok(())
}

async fn entries(setting: &Setting, epoch: i64, out: Option<&Path>) -> anyhow::Result<()> {
    let database = books(setting)?;
    let (mut all, mut from) = (String::new(), 0);
    loop {
        let lines = epochs::entries_beside(&database, epoch, from, LINES).await?;
        from += i64::try_from(lines.len())?;
        let is_last = lines.len() < LINES as usize;
        all.extend(lines.into_iter().flat_map(|line| [line, "\n".into()]));
        if is_last {
            break;
        }
    }
    anyhow::ensure!(!all.is_empty(), "there is no such epoch");
    write(out, all.trim_end_matches('\n'))
}

/// To a file, whole or not at all, or to the screen.
fn write(out: Option<&Path>, text: &str) -> anyhow::Result<()> {
    let Some(path) = out else {
        output::line(text);
        return Ok(());
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let written = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    written().with_context(|| format!("write {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let whole = || -> std::io::Result<Option<String>> {
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Ok(None);
        }
        std::fs::read_to_string(path).map(Some)
    };
    let text = whole().with_context(|| format!("read {}", path.display()))?;
    text.with_context(|| format!("{} is too large for such a file", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = read(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
}
