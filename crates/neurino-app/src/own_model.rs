//! Models beyond the built-in ones while the program runs: a person's own, and whatever else comes into
//! or leaves the catalogue's folder, by this program or another.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{JobKind, ModelId};
use neurino_engine::fit::Needs;
use neurino_engine::inspect::inspect;
use neurino_model_store::{OwnModel, own_files, own_id, own_name};
use neurino_protocol::app::Reply;
use neurino_protocol::own_model::{OwnModelCommand, OwnModelView};
use neurino_protocol::{ErrorBody, ErrorCode};
use tracing::info;

use crate::library::{fits_of, whole_path};
use crate::mining::Phase;
use crate::models::{all_models, image_models, not_ready};
use crate::{App, lock};

/// How often the catalogue's folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What could be chosen instead.
const WHAT_IS_ONE: &str =
    "choose a GGUF file, a .safetensors checkpoint, or a folder with a model's files";

impl App {
    /// Answers a command about a person's own model.
    pub(crate) async fn own_model(
        self: &Arc<Self>,
        command: OwnModelCommand,
    ) -> Result<Reply, ErrorBody> {
        match command {
            OwnModelCommand::Look { path } => {
                let (view, _) = self.looked_at(whole_path(&path)?).await?;
                Ok(Reply::OwnModel(Box::new(view)))
            }
            OwnModelCommand::Add { path, id } => {
                let path = whole_path(&path)?;
                let id = id.trim().to_owned();
                let model = ModelId::new(id).map_err(|error| {
                    ErrorBody::new(ErrorCode::InvalidRequest, error.to_string())
                        .with_hint("choose a short name, for example my-model")
                })?;
                // Looked at again: between the question and the answer anything may have happened.
                let (_, own) = self.looked_at(path.clone()).await?;
                self.add_own(path, OwnModel { id: model, ..own })?;
                self.changed.notify_one();
                Ok(Reply::Ok)
            }
        }
    }

    /// What a file or folder is, for the window and for the store.
    async fn looked_at(
        self: &Arc<Self>,
        path: PathBuf,
    ) -> Result<(OwnModelView, OwnModel), ErrorBody> {
        let read = path.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let (files, size_bytes) = own_files(&read).map_err(|error| not_ready(&error))?;
            let facts = inspect(&read).map_err(|error| {
                let message = format!("that is no model: {}", error.message);
                ErrorBody::new(ErrorCode::InvalidRequest, message).with_hint(WHAT_IS_ONE)
            })?;
            Ok::<_, ErrorBody>((files, size_bytes, facts))
        });
        let (files, size_bytes, facts) =
            looked.await.map_err(|_| crate::internal("the files could not be read"))??;
        let kind = if facts.image.is_some() { JobKind::Image } else { JobKind::Text };
        let needs = Needs {
            kind,
            arch: &facts.arch,
            dtype: &facts.storage,
            size_bytes,
            memory_bytes_min: facts.memory_bytes_min,
            image: facts.image.as_ref(),
        };
        let fits = fits_of(&needs, &self.devices().await);
        let name = own_name(&path);
        let catalog = self.store.catalog();
        let known = catalog.models().iter().find(|model| {
            files == 1 && model.files.iter().any(|file| file.size_bytes == size_bytes)
        });
        let view = OwnModelView {
            path: path.display().to_string(),
            id: own_id(&name),
            name: name.clone(),
            kind,
            arch: facts.arch.clone(),
            storage: facts.storage.clone(),
            context_tokens: facts.context_tokens,
            files: u32::try_from(files).unwrap_or(u32::MAX),
            size_bytes,
            fits,
            may_be: known.map(|model| model.id.clone()),
        };
        let own = OwnModel {
            // Replaced by the one that is chosen.
            id: crate::App::starter_model(),
            name,
            arch: facts.arch,
            dtype: facts.storage,
            context_tokens: facts.context_tokens,
            image: facts.image,
            memory_bytes_min: facts.memory_bytes_min,
        };
        Ok((view, own))
    }

    /// Watches the catalogue's folder: models that another program added or removed are known here as
    /// soon as they are there.
    pub(crate) fn spawn_catalogue(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            // Of a run that ended before they could go.
            app.forget_formers(false).await;
            loop {
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let store = app.store.clone();
                let changed = tokio::task::spawn_blocking(move || store.refresh()).await;
                if changed.unwrap_or(false) {
                    info!("the catalogue has changed");
                    app.models_changed().await;
                }
            }
        });
    }

    /// Other models are known or on this machine now: the practice network may be asked for them, and
    /// the miner offers them, without a pause.
    pub(crate) async fn models_changed(&self) {
        let catalog = self.store.catalog();
        let pictures = image_models(&catalog);
        if let Some(network) = self.network.practice() {
            network.set_own_models(all_models(&catalog), pictures.clone());
        }
        self.library.look_again();
        let running = match &lock(&self.mining).phase {
            Phase::Running(miner) => Some(Arc::clone(miner)),
            _ => None,
        };
        if let Some(miner) = running {
            miner.serve(self.servable().await, pictures);
        }
        self.changed.notify_one();
    }
}
