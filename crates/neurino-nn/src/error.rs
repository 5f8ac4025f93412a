//! What a layer can refuse.

/// Why a layer could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// The sequence would outgrow its cache.
    #[error(
        "the text needs room for {needed_tokens} tokens and the cache holds {capacity_tokens}; shorten the conversation or the answer"
    )]
    CacheFull {
        /// Tokens after the refused step.
        needed_tokens: usize,
        /// Tokens the cache was made for.
        capacity_tokens: usize,
    },
    /// A step's rows and the cache do not fit together: a fault of the caller.
    #[error("a step was laid out wrongly ({reason}); this is a fault in the program")]
    BadBatch {
        /// What is wrong, as a noun phrase.
        reason: &'static str,
    },
    /// An earlier step failed half-way, so the cache no longer fits the text.
    #[error(
        "the cache was lost when an earlier step failed; start the text again with a new cache"
    )]
    CacheLost,
    /// Packed weights do not fill their shape.
    #[error(
        "packed weights of {found_bytes} bytes do not fill a {out_features} x {in_features} matrix; download the model again"
    )]
    BadPacking {
        /// Bytes given.
        found_bytes: usize,
        /// Rows of the matrix.
        out_features: usize,
        /// Columns of the matrix.
        in_features: usize,
    },
    /// The device failed while computing or reading back.
    #[error("the device failed while computing ({reason}); unload the model and try again")]
    Device {
        /// What the device's driver said.
        reason: String,
    },
}
