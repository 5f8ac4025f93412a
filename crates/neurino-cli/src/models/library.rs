//! `neurino models move`, `clean`, `scrub` and `reuse`: the library as a whole.

use std::path::Path;
use std::time::SystemTime;

use indicatif::{ProgressBar, ProgressStyle};
use neurino_config::{InstanceLock, LibraryFile};
use neurino_core::ModelId;
use neurino_model_store::{Catalog, ModelStore, StoreError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::output::{self, Format};
use crate::{Setting, interrupted};

/// Moves the library; Neurino must not run meanwhile.
pub(super) async fn relocate(
    setting: &Setting,
    store: &ModelStore,
    folder: &Path,
) -> anyhow::Result<()> {
    if std::env::var_os(neurino_config::env::MODELS).is_some() {
        anyhow::bail!("NEURINO_MODELS says where the library is; remove that variable first");
    }
    // Whoever serves models has them open.
    let _lock = InstanceLock::acquire(&setting.dirs)?;
    let folder = std::path::absolute(folder)?;
    let (bar, file) = (bar(setting), LibraryFile::new(&setting.dirs));
    let tell = {
        let bar = bar.clone();
        move |now: neurino_model_store::MoveProgress| {
            bar.set_length(now.total_bytes);
            bar.set_position(now.done_bytes);
        }
    };
    let switch = move |place: &Path| {
        file.set_folder(place).map_err(|error| StoreError::Io {
            action: "note the new folder",
            path: place.to_owned(),
            source: std::io::Error::other(error),
        })
    };
    let cancel = CancellationToken::new();
    let moved = store.relocate(&folder, tell, switch, cancel.clone());
    let place = until_interrupted(moved, &cancel).await?;
    bar.finish_and_clear();
    match setting.format {
        Format::Json => output::json(&json!({ "moved": place })),
        Format::Text => {
            output::line(format!("The library is in {} now.", place.display()));
            Ok(())
        }
    }
}

/// Removes what was not used for longest until the library takes at most so much.
pub(super) async fn clean(
    setting: &Setting,
    store: &ModelStore,
    gigabytes: f64,
    yes: bool,
) -> anyhow::Result<()> {
    let cap_bytes = (gigabytes.max(0.0) * 1e9) as u64;
    let keep = [Catalog::starter(), Catalog::image_starter()];
    let plan = store.clean_up_plan(cap_bytes, &keep);
    if yes {
        for model in &plan {
            store.remove(&model.model).await?;
        }
    }
    let freed_bytes: u64 = plan.iter().map(|model| model.disk_bytes).sum();
    let models: Vec<&ModelId> = plan.iter().map(|model| &model.model).collect();
    match setting.format {
        Format::Json => {
            output::json(&json!({ "models": models, "bytes": freed_bytes, "removed": yes }))
        }
        Format::Text => {
            for model in &plan {
                let used = model.used.map_or_else(|| "never used".to_owned(), days_ago);
                output::line(format!(
                    "{:<32} {:>9}  {used}",
                    model.model,
                    super::size(model.disk_bytes)
                ));
            }
            output::line(match (plan.is_empty(), yes) {
                (true, _) => "Nothing has to go.".to_owned(),
                (false, true) => format!("Removed. That freed {}.", super::size(freed_bytes)),
                (false, false) => format!(
                    "These would go and free {}. Add --yes to remove them.",
                    super::size(freed_bytes)
                ),
            });
            Ok(())
        }
    }
}

/// Reads every file again. Says whether all were as they should be.
pub(super) async fn scrub(setting: &Setting, store: &ModelStore) -> anyhow::Result<bool> {
    let bar = bar(setting);
    let tell = {
        let bar = bar.clone();
        move |now: neurino_model_store::ScrubProgress| {
            bar.set_length(now.total_bytes);
            bar.set_position(now.done_bytes);
        }
    };
    let cancel = CancellationToken::new();
    let report = until_interrupted(store.scrub(None, tell, cancel.clone()), &cancel).await?;
    bar.finish_and_clear();
    let damaged: Vec<_> = report
        .damaged
        .iter()
        .map(|(model, file)| json!({ "model": model, "file": file }))
        .collect();
    match setting.format {
        Format::Json => output::json(&json!({ "unharmed": report.files, "damaged": damaged }))?,
        Format::Text => {
            for (model, file) in &report.damaged {
                output::line(format!("{file} of {model} was damaged and set aside."));
                output::line(format!("Repair it with `neurino models get {model}`."));
            }
            output::line(format!("{} files are as they should be.", report.files));
        }
    }
    Ok(report.damaged.is_empty())
}

/// Takes over known files that other programs have.
pub(super) async fn reuse(
    setting: &Setting,
    store: &ModelStore,
    folder: &Path,
) -> anyhow::Result<()> {
    let bar = match setting.format {
        Format::Json => ProgressBar::hidden(),
        Format::Text => ProgressBar::new_spinner(),
    };
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let tell = {
        let bar = bar.clone();
        move |read| bar.set_message(format!("{} read", super::size(read)))
    };
    let cancel = CancellationToken::new();
    let found = until_interrupted(store.reuse(folder, tell, cancel.clone()), &cancel).await?;
    bar.finish_and_clear();
    match setting.format {
        Format::Json => output::json(
            &json!({ "files": found.files, "bytes": found.bytes, "models": found.models }),
        ),
        Format::Text => {
            output::line(match found.files {
                0 => "No file of a missing model was found there.".to_owned(),
                n => format!(
                    "Files found: {n}, {}. They need not be fetched.",
                    super::size(found.bytes)
                ),
            });
            Ok(())
        }
    }
}

/// Runs a task that Ctrl-C stops in good order.
async fn until_interrupted<T>(
    task: impl Future<Output = Result<T, StoreError>>,
    cancel: &CancellationToken,
) -> Result<T, StoreError> {
    tokio::pin!(task);
    tokio::select! {
        ended = &mut task => ended,
        () = interrupted() => {
            cancel.cancel();
            task.await
        }
    }
}

fn bar(setting: &Setting) -> ProgressBar {
    let bar = match setting.format {
        Format::Json => ProgressBar::hidden(),
        Format::Text => ProgressBar::new(0),
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar
}

fn days_ago(at: SystemTime) -> String {
    match at.elapsed().map_or(0, |age| age.as_secs() / 86_400) {
        0 => "used today".to_owned(),
        1 => "used yesterday".to_owned(),
        days => format!("used {days} days ago"),
    }
}
