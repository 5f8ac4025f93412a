//! `neurino models`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use neurino_core::ModelId;
use neurino_model_store::{FetchOptions, ModelState, ModelStore, Progress};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::ModelsAction;
use crate::output::{self, Format};
use crate::{Setting, interrupted};

pub(crate) async fn run(setting: Setting, action: ModelsAction) -> anyhow::Result<ExitCode> {
    let store = ModelStore::open(&setting.dirs.models)?;
    match action {
        ModelsAction::List => list(&store, setting.format)?,
        ModelsAction::Get { model } => get(&setting, &store, id(&model)?).await?,
        ModelsAction::Import { model, file } => {
            let model = store.import(Some(&id(&model)?), &file).await?;
            done(&setting, "imported", "Imported", &store.verified(&model).await?)?;
        }
        ModelsAction::Verify { model } => {
            done(&setting, "verified", "Unharmed", &store.verified(&id(&model)?).await?)?;
        }
        ModelsAction::Remove { model } => {
            store.remove(&id(&model)?).await?;
            match setting.format {
                Format::Json => output::json(&json!({ "removed": model }))?,
                Format::Text => output::line(format!("Removed {model}.")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn id(text: &str) -> anyhow::Result<ModelId> {
    Ok(text.parse::<ModelId>()?)
}

/// `key` is for scripts, `word` for people.
fn done(setting: &Setting, key: &str, word: &str, path: &Path) -> anyhow::Result<()> {
    match setting.format {
        Format::Json => output::json(&json!({ key: path })),
        Format::Text => {
            output::line(format!("{word}: {}", path.display()));
            Ok(())
        }
    }
}

fn list(store: &ModelStore, format: Format) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for m in store.catalog().models() {
        let here = matches!(store.state(&m.id)?, ModelState::Verified | ModelState::Unverified);
        rows.push((m, here));
    }
    match format {
        Format::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|(m, here)| {
                    json!({
                        "id": m.id, "name": m.name, "size_bytes": m.size_bytes(),
                        "licence": m.licence, "on_this_machine": here,
                    })
                })
                .collect();
            output::json(&rows)?;
        }
        Format::Text => {
            for (m, here) in rows {
                let word = if here { "on this machine" } else { "not here" };
                let mb = m.size_bytes() / 1_000_000;
                output::line(format!("{:<28} {mb:>7} MB  {word:<16} {}", m.id.as_str(), m.summary));
            }
        }
    }
    Ok(())
}

async fn get(setting: &Setting, store: &ModelStore, model: ModelId) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let bar = match setting.format {
        Format::Json => ProgressBar::hidden(),
        Format::Text => ProgressBar::new(0),
    };
    let style = "{msg} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).context("the progress line's form")?);
    bar.set_message(model.to_string());
    let tell = {
        let bar = bar.clone();
        move |p: Progress| {
            bar.set_length(p.total_bytes);
            bar.set_position(p.done_bytes);
        }
    };
    let options =
        FetchOptions { resources: Some(setting.dirs.resources.clone()), ..FetchOptions::default() };
    let fetch = store.fetch(&model, &options, tell, cancel.clone());
    tokio::pin!(fetch);
    let path = tokio::select! {
        path = &mut fetch => path,
        () = interrupted() => {
            cancel.cancel();
            fetch.await
        }
    };
    bar.finish_and_clear();
    let path = path?;
    done(setting, "ready", "Ready", &path)
}
