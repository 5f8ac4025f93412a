//! `neurino data`: where everything lies, how large it is, and the way to be rid of it.

use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use neurino_app::{Keep, Removal, Removed};
use neurino_config::{ConfigError, InstanceLock};
use neurino_protocol::data::DataKind;
use neurino_wallet::OpenIdentity;
use serde_json::json;

use crate::args::DataAction;
use crate::output::{self, Format};
use crate::{FAILED, Setting};

/// What of a removal is told apart, in this order.
const KINDS: [DataKind; 5] =
    [DataKind::Models, DataKind::Records, DataKind::Outbox, DataKind::Settings, DataKind::Logs];
/// Files of others that are named one by one.
const NAMED_MAX: usize = 10;

pub(crate) async fn run(setting: &Setting, action: Option<DataAction>) -> anyhow::Result<ExitCode> {
    match action {
        None => show(setting).await,
        Some(DataAction::Remove { yes, keep_config, with_keys }) => {
            let keep = Keep { settings: keep_config, keys: !with_keys };
            remove(setting, keep, yes).await
        }
    }
}

/// Shows what goes and what stays, asks, and removes it.
async fn remove(setting: &Setting, keep: Keep, yes: bool) -> anyhow::Result<ExitCode> {
    let alone = InstanceLock::acquire(&setting.dirs).map_err(|error| match error {
        ConfigError::AlreadyRunning { .. } => anyhow::Error::new(error)
            .context("nothing was removed: quit Neurino in its tray or stop its service first"),
        error => error.into(),
    })?;
    let dirs = setting.dirs.clone();
    let plan = tokio::task::spawn_blocking(move || Removal::plan(&dirs, keep)).await?;
    if setting.format == Format::Text {
        tell_plan(setting, &plan, keep);
    }
    let agreed = yes || (setting.format == Format::Text && ask()?);
    if !agreed {
        match setting.format {
            Format::Json => output::json(&of_plan(&plan))?,
            Format::Text => output::line("Nothing was removed. Add --yes to remove this."),
        }
        return Ok(ExitCode::from(FAILED));
    }
    if !keep.keys {
        let wanted = OpenIdentity::new(&setting.dirs.data);
        let forgotten = neurino_wallet::forget_in_system_store(wanted).await;
        if forgotten.context("the key store of the operating system; nothing was removed")? {
            output::note("The key is gone from the key store of the operating system.");
        }
    }
    let (keys, strangers) = (plan.keys.clone(), plan.strangers.len());
    let removed = tokio::task::spawn_blocking(move || plan.carry_out()).await?;
    drop(alone);
    match setting.format {
        Format::Json => output::json(&json!({
            "removed": true, "files": removed.files, "bytes": removed.bytes,
            "kept_keys": keys, "strangers": strangers,
            "failed": removed.failed.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        }))?,
        Format::Text => tell_end(&removed),
    }
    Ok(if removed.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of_plan(plan: &Removal) -> serde_json::Value {
    let kinds = KINDS.map(|kind| {
        let (files, bytes) = plan.of(kind);
        json!({ "kind": kind, "files": files, "bytes": bytes })
    });
    json!({
        "removed": false, "would_remove": kinds, "own_models": plan.own_models,
        "kept_keys": plan.keys, "strangers": plan.strangers, "library_away": plan.library_away,
    })
}

fn tell_plan(setting: &Setting, plan: &Removal, keep: Keep) {
    output::line("This goes:");
    for kind in KINDS {
        let (files, bytes) = plan.of(kind);
        if files > 0 {
            let count = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
            output::line(format!("  {:<42} {:>9}  {count}", goes(kind), size(bytes)));
        }
    }
    if plan.own_models > 0 {
        let models = if plan.own_models == 1 { "model" } else { "models" };
        output::line(format!(
            "  Among it: {} {models} of your own, which no download brings back.",
            plan.own_models
        ));
    }
    output::line("This stays:");
    if keep.settings {
        output::line(format!("  Your settings, in {}", setting.dirs.config.display()));
    }
    if keep.keys {
        output::line(format!(
            "  The identity's keys, in {} or the system's key store; --with-keys removes them too",
            setting.dirs.data.display()
        ));
    } else {
        output::line("  No key: without its recovery words nobody brings this identity back!");
    }
    for folder in [&setting.dirs.pictures, &setting.dirs.exports] {
        if folder.is_dir() {
            output::line(format!("  What you kept in {}", folder.display()));
        }
    }
    if let Some(folder) = &plan.library_away {
        output::line(format!("  The models in {}: that drive is not connected", folder.display()));
    }
    for path in plan.strangers.iter().take(NAMED_MAX) {
        output::line(format!(
            "  {}, which is none of the miner's files",
            output::plain(&path.display().to_string())
        ));
    }
    if plan.strangers.len() > NAMED_MAX {
        let more = plan.strangers.len() - NAMED_MAX;
        output::line(format!("  {more} more files that are none of the miner's"));
    }
}

/// Asks on a terminal; nobody can agree elsewhere.
fn ask() -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(false);
    }
    output::line("Remove it? Type yes:");
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

fn tell_end(removed: &Removed) {
    for (path, error) in &removed.failed {
        output::note(format!("{} stays: {error}", path.display()));
    }
    output::line(format!("Removed {} files, {}.", removed.files, size(removed.bytes)));
    if cfg!(target_os = "linux") {
        output::line("The program itself goes with `sudo apt purge neurino` or your package tool.");
    }
}

/// What goes, where that is less than what a folder holds.
fn goes(kind: DataKind) -> &'static str {
    match kind {
        DataKind::Records => "Receipts and other records",
        kind => words(kind),
    }
}

async fn show(setting: &Setting) -> anyhow::Result<ExitCode> {
    let dirs = setting.dirs.clone();
    let models = dirs.models.clone();
    let places =
        tokio::task::spawn_blocking(move || neurino_app::data_places(&dirs, &models)).await?;
    match setting.format {
        Format::Json => output::json(&places)?,
        Format::Text => {
            for place in &places {
                let size = size(place.size_bytes);
                output::line(format!("{:<42} {size:>9}  {}", words(place.kind), place.folder));
            }
            output::line(format!(
                "{:<42} {:>9}",
                "Together",
                size(places.iter().map(|p| p.size_bytes).sum())
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn words(kind: DataKind) -> &'static str {
    match kind {
        DataKind::Models => "Models",
        DataKind::Records => "Identity key, wallet, receipts, records",
        DataKind::Outbox => "Finished results on their way",
        DataKind::Settings => "Settings",
        DataKind::Logs => "Logs",
        DataKind::Pictures => "Pictures you kept",
        DataKind::Exports => "Exports you asked for",
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1_000_000_000 {
        format!("{:.1} GB", bytes as f64 / 1e9)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
