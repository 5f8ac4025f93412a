//! `neurino coordinator files`: of which models nodes are asked to show the files. Works beside a running
//! coordinator.

use anyhow::Context as _;
use neurino_coordinator::{Database, FileRoot, admin};
use neurino_core::ModelId;
use neurino_model_store::ModelStore;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::FilesAction;
use crate::output::{self, Format};
use crate::{Setting, interrupted};

pub(super) async fn run(
    setting: &Setting,
    database: &Database,
    action: Option<&FilesAction>,
) -> anyhow::Result<()> {
    match action {
        None | Some(FilesAction::List) => {}
        Some(FilesAction::Measure { models }) => {
            let store = ModelStore::open(&setting.dirs.models)?;
            for model in models {
                let files = measured(&store, model).await?;
                admin::set_file_roots(database, model, &files).await?;
            }
        }
        Some(FilesAction::Forget { model }) => {
            if admin::set_file_roots(database, model, &[]).await? == 0 {
                anyhow::bail!("nobody is asked for files of `{model}`");
            }
        }
    }
    list(setting.format, &admin::file_roots(database).await?)
}

async fn measured(store: &ModelStore, model: &ModelId) -> anyhow::Result<Vec<FileRoot>> {
    let cancel = CancellationToken::new();
    let _end = cancel.clone().drop_guard();
    let trees = tokio::select! {
        trees = store.file_trees(model, None, cancel.clone()) => trees?,
        () = interrupted() => anyhow::bail!("interrupted; nothing was changed"),
    };
    let root = |tree: neurino_model_store::FileTree| FileRoot {
        model: model.clone(),
        file: tree.file.name,
        size_bytes: tree.file.size_bytes,
        sha256: tree.file.sha256.to_string(),
        root: tree.root,
    };
    let files: Vec<FileRoot> = trees.into_iter().map(root).collect();
    (!files.is_empty()).then_some(files).with_context(|| format!("`{model}` has no files"))
}

fn list(format: Format, roots: &[FileRoot]) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(&json!({ "files": roots }));
    }
    if roots.is_empty() {
        output::line("Nodes are not asked to show any files; `files measure MODEL` begins it.");
    }
    for FileRoot { model, file, size_bytes, root, .. } in roots {
        output::line(format!("{model}  {file}  {size_bytes} bytes  {root}"));
    }
    Ok(())
}
