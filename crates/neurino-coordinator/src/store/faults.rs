//! Books that fail when a test says so: before the commit, or after it with the answer lost.

use std::sync::{Mutex, PoisonError};

use rand::Rng as _;
use rand::rngs::StdRng;

use super::Store;
use crate::database::PostgresBooks;
use crate::error::StoreError;

/// Which writes fail.
#[derive(Default)]
pub(super) struct Faults(Mutex<Option<(StdRng, u32)>>);

impl Faults {
    /// Fails, or says whether the answer will be lost.
    pub(super) fn before_write(&self) -> Result<bool, StoreError> {
        let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((rng, permille)) = &mut *plan else { return Ok(false) };
        if !rng.random_ratio((*permille).min(1000), 1000) {
            return Ok(false);
        }
        if rng.random() { Ok(true) } else { Err(StoreError::Commit("so the test has it".into())) }
    }
}

/// Lets the ownership of a coordinator that is gone run out at once.
pub(crate) async fn outlive(books: &PostgresBooks) {
    let connection = super::postgres::beside(books).await.expect("the server is there");
    let mut connection = connection.expect("there are books");
    let words = "UPDATE shard SET lease_until = '-infinity'";
    connection.run(words).await.expect("the server is there");
}

impl Store {
    /// From now on so many per mille of the writes fail.
    pub(crate) fn fail_at_random(&self, rng: StdRng, permille: u32) {
        *self.faults.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((rng, permille));
    }

    /// From now on none does.
    pub(crate) fn fail_no_more(&self) {
        *self.faults.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets go of the lock, as the end of a process would.
    pub(crate) fn cut_off(&self) {
        // Whoever opens the books next finds out if that failed.
        let _ = self.lock.as_ref().map(std::fs::File::unlock);
    }
}
