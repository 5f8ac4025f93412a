//! Faults below the engine: panics caught, causes put into words, a lack of memory recognised.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::api::{EngineError, EngineErrorCode};

/// Runs something that may panic, and turns a panic into an error.
pub(crate) fn guarded<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T, EngineError> {
    // Whoever gets the error drops what the work had borrowed.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| from_panic(doing, &*panic))
}

fn from_panic(doing: &str, panic: &(dyn Any + Send)) -> EngineError {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words");
    if is_out_of_memory(words) {
        let message = format!("the device ran out of memory while {doing} was under way");
        return EngineError::new(EngineErrorCode::OutOfMemory, message);
    }
    EngineError::internal(format!("a fault ended {doing}: {words}"))
}

/// Whether a device's words speak of a lack of memory.
pub(crate) fn is_out_of_memory(words: &str) -> bool {
    let lower = words.to_lowercase();
    ["out of memory", "outofmemory", "out_of_memory", "allocation failed", "can't allocate"]
        .iter()
        .any(|sign| lower.contains(sign))
}

/// An error with its causes, which do not cross the process boundary by themselves.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_of_its_kind() {
        let code = |words: &'static str| {
            guarded("the job", || std::panic::resume_unwind(Box::new(words)))
                .map_or_else(|e: EngineError| e.code, |()| EngineErrorCode::Busy)
        };
        assert_eq!(code("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), EngineErrorCode::OutOfMemory);
        assert_eq!(code("index out of bounds"), EngineErrorCode::Internal);
        assert_eq!(from_panic("the job", &7_u8).code, EngineErrorCode::Internal);
        assert_eq!(guarded("the job", || 5), Ok(5));
    }
}
