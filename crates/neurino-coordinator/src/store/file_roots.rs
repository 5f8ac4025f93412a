//! Files of models whose pieces can be checked.

use neurino_core::ModelId;

use super::sql::{Connection, Row, query};
use super::{Beside, Store, parse_id};
use crate::error::StoreError;
use crate::files::FileRoot;

fn stored(row: &Row) -> Result<FileRoot, StoreError> {
    let unreadable = || StoreError::Unreadable { what: "file root" };
    let size_bytes: i64 = row.try_get("size_bytes")?;
    Ok(FileRoot {
        model: parse_id(row.text("model")?, "model id")?,
        file: row.try_get("file")?,
        size_bytes: u64::try_from(size_bytes).map_err(|_| unreadable())?,
        sha256: row.try_get("sha256")?,
        root: row.text("root")?.parse().map_err(|_| unreadable())?,
    })
}

const ALL: &str =
    "SELECT model, file, size_bytes, sha256, root FROM file_root ORDER BY model, file";

async fn set(c: &mut Connection, model: &ModelId, files: &[FileRoot]) -> Result<u64, StoreError> {
    let gone = query("DELETE FROM file_root WHERE model = $1")
        .bind(model.as_str())
        .execute(&mut *c)
        .await?;
    for file in files {
        query(
            "INSERT INTO file_root (model, file, size_bytes, sha256, root) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(model.as_str())
        .bind(&file.file)
        .bind(i64::try_from(file.size_bytes).unwrap_or(i64::MAX))
        .bind(&file.sha256)
        .bind(file.root.to_string())
        .execute(&mut *c)
        .await?;
    }
    Ok(gone)
}

impl Store {
    /// All of them.
    pub(crate) async fn file_roots(&self) -> Result<Vec<FileRoot>, StoreError> {
        let rows: Vec<Row> = query(ALL).fetch_all(self.readers()).await?;
        rows.iter().map(stored).collect()
    }
}

impl Beside {
    /// All of them.
    pub(crate) async fn file_roots(&mut self) -> Result<Vec<FileRoot>, StoreError> {
        let rows: Vec<Row> = query(ALL).fetch_all(&mut self.0).await?;
        rows.iter().map(stored).collect()
    }

    /// Sets those of a model; how many there were before.
    pub(crate) async fn set_file_roots(
        &mut self,
        model: &ModelId,
        files: &[FileRoot],
    ) -> Result<u64, StoreError> {
        set(&mut self.0, model, files).await
    }
}
