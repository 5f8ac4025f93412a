//! By what a copy of an older result is known.

use neurino_core::JobId;

use super::sql::{Connection, query};
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

/// Forgets the marks of jobs whose outputs are about to be deleted; a picture's goes with its row.
pub(super) async fn prune(c: &mut Connection, before_ms: i64) -> Result<(), StoreError> {
    query(
        "DELETE FROM text_mark WHERE job IN (SELECT id FROM job \
         WHERE finished_at_ms IS NOT NULL AND spec IS NOT NULL AND finished_at_ms < $1)",
    )
    .bind(before_ms)
    .execute(c)
    .await?;
    Ok(())
}

impl Store {
    /// Marks of the newest pictures, at most so many, oldest first.
    pub(crate) async fn picture_marks(&self, most: u32) -> Result<Vec<PictureMark>, StoreError> {
        let rows: Vec<(String, String, Vec<u8>)> = query(
            "SELECT model, seed, thumb FROM picture \
             WHERE thumb IS NOT NULL AND model IS NOT NULL AND seed IS NOT NULL \
             ORDER BY job DESC LIMIT $1",
        )
        .bind(most)
        .fetch_all(self.readers())
        .await?;
        let marks = rows.into_iter().rev().map(|(model, seed, thumb)| {
            Ok(PictureMark { model, seed: parse_id(&seed, "seed")?, thumb })
        });
        marks.collect()
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
