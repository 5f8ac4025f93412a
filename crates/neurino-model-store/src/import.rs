//! Taking over a file that the person already has.

use std::fs;
use std::path::Path;

use neurino_core::ModelId;
use tracing::info;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::{ModelStore, blocking};

impl ModelStore {
    /// Takes over a file that the person has. `model` names what it is to be; without it the
    /// catalogue is searched by digest. The file is linked where the drive allows it, else copied.
    /// Returns the model it belongs to.
    ///
    /// # Errors
    /// [`StoreError::NotAFile`], [`StoreError::NotTheModel`], [`StoreError::UnknownModel`], [`StoreError::Busy`],
    /// [`StoreError::NoSpace`], [`StoreError::Io`].
    pub async fn import(
        &self,
        model: Option<&ModelId>,
        path: &Path,
    ) -> Result<ModelId, StoreError> {
        let (store, model, path) = (self.clone(), model.cloned(), path.to_owned());
        blocking(move || store.import_blocking(model, &path)).await
    }

    fn import_blocking(&self, model: Option<ModelId>, path: &Path) -> Result<ModelId, StoreError> {
        if let Some(model) = &model {
            self.manifest(model)?;
        }
        // Through links to the file itself: a hard link to a link would only be another link.
        let found = path.canonicalize().and_then(|target| Ok((fs::metadata(&target)?, target)));
        let (kind, source) = found.map_err(|error| StoreError::io("read", path, error))?;
        // A pipe or a device would be read forever.
        if !kind.is_file() {
            return Err(StoreError::NotAFile { path: path.to_owned() });
        }
        let found =
            Digest::of_file(&source).map_err(|error| StoreError::io("read", path, error))?;
        let catalog = self.catalog();
        let named =
            catalog.models().iter().filter(|m| model.as_ref().is_none_or(|model| m.id == *model));
        let matching = named
            .flat_map(|manifest| manifest.files.iter().map(move |file| (manifest, file)))
            .find(|(_, file)| file.sha256 == found);
        let Some((manifest, file)) = matching else {
            return Err(StoreError::NotTheModel { path: path.to_owned(), model, found });
        };
        let id = &manifest.id;
        let _lock = self.lock(id)?;
        if self.check_file(id, file).is_ok() {
            return Ok(id.clone());
        }
        self.take_file(id, file, &source)?;
        info!(model.id = %id, "imported {} for {id}", file.name);
        Ok(id.clone())
    }
}
