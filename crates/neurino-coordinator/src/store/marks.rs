//! By what a copy of an older result is known.

use neurino_core::JobId;

use super::sql::{Connection, Row, query};
use super::{Store, parse_id};
use crate::error::StoreError;

/// By what a copy of a result is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    Picture(PictureMark),
    Text(TextMark),
}

/// A picture's small copy, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureMark {
    pub(crate) model: String,
    pub(crate) seed: u64,
    pub(crate) thumb: Vec<u8>,
}

/// A long answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextMark {
    pub(crate) owner: String,
    pub(crate) model: String,
    pub(crate) answer: [u8; 32],
    pub(crate) prompt: [u8; 32],
}

pub(super) async fn add(c: &mut Connection, job: JobId, mark: &Mark) -> Result<(), StoreError> {
    let query = match mark {
        Mark::Picture(mark) => {
            query("UPDATE picture SET thumb = $1, model = $2, seed = $3 WHERE job = $4")
                .bind(&mark.thumb)
                .bind(&mark.model)
                .bind(mark.seed.to_string())
                .bind(job.to_string())
        }
        Mark::Text(mark) => query(
            "INSERT INTO text_mark (job, owner, model, answer, prompt) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(job.to_string())
        .bind(&mark.owner)
        .bind(&mark.model)
        .bind(mark.answer.as_slice())
        .bind(mark.prompt.as_slice()),
    };
    query.execute(c).await?;
    Ok(())
}

impl Store {
    /// Marks of the newest pictures, at most so many, oldest first.
    pub(crate) async fn picture_marks(&self, most: u32) -> Result<Vec<PictureMark>, StoreError> {
        let rows: Vec<Row> = query(
            "SELECT p.job, p.model, p.seed, p.thumb, j.payload_key \
             FROM picture p JOIN job j ON j.id = p.job \
             WHERE p.thumb IS NOT NULL AND p.model IS NOT NULL AND p.seed IS NOT NULL \
             ORDER BY p.job DESC LIMIT $1",
        )
        .bind(most)
        .fetch_all(self.readers())
        .await?;
        let mut marks = Vec::with_capacity(rows.len());
        for row in rows.iter().rev() {
            let job: JobId = parse_id(row.text("job")?, "job id")?;
            let (key, thumb): (Option<Vec<u8>>, Vec<u8>) =
                (row.try_get("payload_key")?, row.try_get("thumb")?);
            match self.vault.thumb(job, key.as_deref(), &thumb) {
                Ok(Some(thumb)) => marks.push(PictureMark {
                    model: row.try_get("model")?,
                    seed: parse_id(row.text("seed")?, "seed")?,
                    thumb,
                }),
                Ok(None) => {}
                // One that cannot be compared is no reason to stand still.
                Err(error) => tracing::error!(?error, job.id = %job, "{error}"),
            }
        }
        Ok(marks)
    }

    /// Whether the same owner gave the same long answer to another prompt.
    pub(crate) async fn is_text_known(&self, mark: &TextMark) -> Result<bool, StoreError> {
        let known: Option<i64> = query(
            "SELECT CAST(1 AS BIGINT) FROM text_mark WHERE answer = $1 AND owner = $2 AND model = $3 AND prompt <> $4 \
             LIMIT 1",
        )
        .bind(mark.answer.as_slice())
        .bind(&mark.owner)
        .bind(&mark.model)
        .bind(mark.prompt.as_slice())
        .fetch_optional(self.readers())
        .await?;
        Ok(known.is_some())
    }
}
