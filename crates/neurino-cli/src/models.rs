//! `neurino models`

mod catalogue;
mod library;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use neurino_config::{ConfigError, InstanceLock};
use neurino_core::{JobKind, ModelId};
use neurino_engine::inspect::inspect;
use neurino_model_store::{
    FetchOptions, ModelStore, OwnModel, Progress, StoreError, Throttle, own_files, own_id, own_name,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::ModelsAction;
use crate::output::{self, Format};
use crate::{Setting, interrupted};

pub(crate) async fn run(setting: Setting, action: ModelsAction) -> anyhow::Result<ExitCode> {
    // A library whose drive is gone is told where it is now.
    let store = match setting.library() {
        Err(_) if matches!(action, ModelsAction::Move { .. }) => {
            ModelStore::open_as_is(&setting.dirs.models)
        }
        library => library?,
    };
    match action {
        ModelsAction::List => list(&store, setting.format)?,
        ModelsAction::Get { model } => get(&setting, &store, id(&model)?).await?,
        ModelsAction::Add { path, id } => add(&setting, &store, &path, id.as_deref()).await?,
        ModelsAction::Import { model, file } => {
            let model = store.import(Some(&id(&model)?), &file).await?;
            done(&setting, "imported", "Imported", &store.verified(&model).await?)?;
        }
        ModelsAction::Verify { model } => {
            done(&setting, "verified", "Unharmed", &store.verified(&id(&model)?).await?)?;
        }
        ModelsAction::Update { place } => catalogue::update(&setting, &store, &place).await?,
        ModelsAction::Lists { models, vae, lora } => {
            catalogue::lists(&setting, &store, [&models, &vae, &lora]).await?;
        }
        ModelsAction::Move { folder } => library::relocate(&setting, &store, &folder).await?,
        ModelsAction::Clean { to, yes } => library::clean(&setting, &store, to, yes).await?,
        ModelsAction::Scrub => {
            if !library::scrub(&setting, &store).await? {
                return Ok(ExitCode::FAILURE);
            }
        }
        ModelsAction::Reuse { folder } => library::reuse(&setting, &store, &folder).await?,
        ModelsAction::Remove { model } => {
            store.remove(&id(&model)?).await?;
            match setting.format {
                Format::Json => output::json(&json!({ "removed": model }))?,
                Format::Text => {
                    output::line(format!("Removed {model}."));
                    let taken = InstanceLock::acquire(&setting.dirs);
                    if matches!(taken, Err(ConfigError::AlreadyRunning { .. })) {
                        output::line(
                            "Neurino is running: what it has in memory it serves until it stops.",
                        );
                    }
                }
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
    let catalog = store.catalog();
    for m in catalog.models() {
        rows.push((m, store.is_usable(&m.id)));
    }
    match format {
        Format::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|(m, here)| {
                    json!({
                        "id": m.id, "name": m.name, "size_bytes": m.size_bytes(),
                        "kind": m.kind, "licence": m.licence, "on_this_machine": here,
                    })
                })
                .collect();
            output::json(&rows)?;
        }
        Format::Text => {
            for (m, here) in rows {
                let word = if here { "on this machine" } else { "not here" };
                let kind = match m.kind {
                    JobKind::Text => "text",
                    JobKind::Image => "pictures",
                };
                let (id, size) = (m.id.as_str(), size(m.size_bytes()));
                output::line(format!("{id:<28} {kind:<9} {size:>9}  {word:<16} {}", m.summary));
            }
        }
    }
    Ok(())
}

async fn add(
    setting: &Setting,
    store: &ModelStore,
    path: &Path,
    wanted: Option<&str>,
) -> anyhow::Result<()> {
    if wanted.is_none() && store.may_know(path) {
        match store.import(None, path).await {
            Ok(model) => {
                return done(
                    setting,
                    "imported",
                    "Known, and imported",
                    &store.verified(&model).await?,
                );
            }
            Err(StoreError::NotTheModel { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let name = own_name(path);
    let model = match wanted {
        Some(wanted) => id(wanted)?,
        None => id(&own_id(&name)).with_context(|| {
            format!("no id can be made from `{name}`; choose one with --id, for example my-model")
        })?,
    };
    own_files(path)?;
    // Minutes for a large model, and none of them on the threads that serve.
    let read = path.to_owned();
    let facts = tokio::task::spawn_blocking(move || inspect(&read)).await??;
    let own = OwnModel {
        id: model,
        name,
        arch: facts.arch,
        dtype: facts.storage,
        context_tokens: facts.context_tokens,
        image: facts.image,
        memory_bytes_min: facts.memory_bytes_min,
    };
    let bar = match setting.format {
        Format::Json => ProgressBar::hidden(),
        Format::Text => ProgressBar::new_spinner(),
    };
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar.set_message("reading and hashing its files");
    let opens = |folder: &Path| {
        let opened = inspect(folder).map(|_| ());
        opened.map_err(|error| format!("its files alone are no model: {error:#}"))
    };
    let cancel = CancellationToken::new();
    let tell = |_, _| {};
    let adopting = store.adopt(own, path, opens, tell, cancel.clone());
    tokio::pin!(adopting);
    let taken = tokio::select! {
        taken = &mut adopting => taken,
        () = interrupted() => {
            cancel.cancel();
            adopting.await
        }
    };
    bar.finish_and_clear();
    let manifest = taken?;
    match setting.format {
        Format::Json => output::json(&json!({
            "added": manifest.id,
            "files": manifest.files.iter().map(|file| json!({
                "name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256,
            })).collect::<Vec<_>>(),
        })),
        Format::Text => {
            output::line(format!(
                "Added {}: {} {}, {}, needs {} of memory at least.",
                manifest.id,
                manifest.arch,
                manifest.dtype,
                size(manifest.size_bytes()),
                size(manifest.memory_bytes_min)
            ));
            // What to compare with the place that the files came from.
            for file in manifest.files.iter().filter(|file| file.name.ends_with(".safetensors")) {
                output::line(format!("SHA-256 {} {}", file.sha256, file.name));
            }
            output::line("A Neurino that runs serves it in a few seconds.");
            Ok(())
        }
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{} MB", bytes.div_ceil(1_000_000))
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
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
    let wanted = neurino_config::LibraryFile::new(&setting.dirs).settings();
    let options = FetchOptions {
        resources: Some(setting.dirs.resources.clone()),
        connections: wanted.connections.clamp(1, 8),
        throttle: Some(std::sync::Arc::new(Throttle::new(wanted.bytes_per_s_max))),
        ..FetchOptions::default()
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_from_the_files_name() {
        let id = |path: &str| own_id(&own_name(Path::new(path)));
        assert_eq!(id("/models/Llama-3 8B (Q4_K_M).gguf"), "llama-3-8b--q4_k_m");
        assert_eq!(id("/models/Mistral-7B/"), "mistral-7b");
    }
}
