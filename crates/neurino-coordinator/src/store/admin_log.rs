//! The log of administrative acts in the books.

use super::StoreError;
use super::sql::{Connection, query};
use crate::admin_log::{Act, beginning, digest};

/// Writes an act down; within the caller's transaction.
pub(super) async fn append(c: &mut Connection, act: &Act, at_ms: i64) -> Result<(), StoreError> {
    let last: Option<(i64, String)> =
        query("SELECT number, line FROM admin_log ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *c)
            .await?;
    let (number, previous) = match last {
        Some((number, line)) => (number + 1, digest(&line)),
        None => (1, beginning()),
    };
    query("INSERT INTO admin_log (number, line) VALUES ($1, $2)")
        .bind(number)
        .bind(act.line(number, at_ms, &previous))
        .execute(c)
        .await?;
    Ok(())
}

/// Lines behind a number, at most so many.
pub(super) async fn lines(
    c: &mut Connection,
    after: i64,
    most: u32,
) -> Result<Vec<String>, StoreError> {
    Ok(query("SELECT line FROM admin_log WHERE number > $1 ORDER BY number LIMIT $2")
        .bind(after)
        .bind(i64::from(most))
        .fetch_all(c)
        .await?)
}
