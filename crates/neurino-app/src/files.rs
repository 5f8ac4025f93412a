//! The library as the network asks for it: pieces of models' files.

use std::fmt;

use neurino_miner::{ModelFiles, Showing};
use neurino_model_store::{ModelStore, StoreError};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::files::FileChallenge;
use tokio_util::sync::CancellationToken;

/// Fastest reading of a file for it, in bytes a second: jobs are not to notice, and a coordinator leaves
/// three times as long.
const BYTES_PER_S: u64 = 64 << 20;

/// A library that shows what it has.
pub(crate) struct Library(pub(crate) ModelStore);

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Library").field(&self.0.root()).finish()
    }
}

impl ModelFiles for Library {
    fn show(&self, challenge: &FileChallenge) -> Showing {
        let (store, asked) = (self.0.clone(), challenge.clone());
        Box::pin(async move {
            let cancel = CancellationToken::new();
            // Whoever drops this stops reading.
            let _end = cancel.clone().drop_guard();
            let FileChallenge { model, file, leaves, .. } = asked;
            let shown = store.show_leaves(&model, &file, leaves, Some(BYTES_PER_S), cancel.clone());
            shown.await.map_err(|error| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "pieces of {model} cannot be shown: {error}"
                );
                match error {
                    StoreError::UnknownModel { .. } | StoreError::Absent { .. } => {
                        ErrorCode::ModelNotReady
                    }
                    _ => ErrorCode::ModelUnreadable,
                }
            })
        })
    }
}
