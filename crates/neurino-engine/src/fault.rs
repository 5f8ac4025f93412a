//! Faults below the engine: panics caught, causes put into words, a lack of memory recognised.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use neurino_llm::LlmError;
use neurino_nn::NnError;

use crate::api::{EngineError, EngineErrorCode};

/// Runs something that may panic, and turns a panic into an error.
pub(crate) fn guarded<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T, EngineError> {
    // Whoever gets the error drops what the work had borrowed.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| from_panic(doing, &*panic))
}

/// As [`guarded`], for work on a device. After a panic there nothing on it is trusted any more, so that is
/// `Crashed` as an error of the device is, unless it was a lack of memory.
pub(crate) fn guarded_on_device<T>(
    doing: &str,
    work: impl FnOnce() -> T,
) -> Result<T, EngineError> {
    guarded(doing, work).map_err(|fault| match fault.code {
        EngineErrorCode::Internal => EngineError::crashed(fault.message),
        _ => fault,
    })
}

fn from_panic(doing: &str, panic: &(dyn Any + Send)) -> EngineError {
    let words = words(panic);
    if is_out_of_memory(words) {
        let message = format!("the device ran out of memory while {doing} was under way");
        return EngineError::new(EngineErrorCode::OutOfMemory, message);
    }
    EngineError::internal(format!("a fault ended {doing}: {words}"))
}

/// What a panic said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words")
}

/// Whether a device's words speak of a lack of memory.
pub(crate) fn is_out_of_memory(words: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|sign| words.to_lowercase().contains(sign))
}

/// What drivers and runtimes say when there is no memory.
const OUT_OF_MEMORY: [&str; 7] = [
    "out of memory",
    "out of device memory",
    "out-of-memory",
    "outofmemory",
    "out_of_memory",
    "allocation failed",
    "can't allocate",
];

/// What went wrong in the model. A fault of the device is `Crashed`: on a card it stays, whatever is
/// computed next, until the process ends; what lacks memory is told apart.
pub(crate) fn from_model(error: &LlmError, words: String) -> EngineError {
    let code = match error {
        _ if is_out_of_memory(&words) => EngineErrorCode::OutOfMemory,
        LlmError::Nn(NnError::Device { .. } | NnError::CacheLost) => EngineErrorCode::Crashed,
        _ => EngineErrorCode::Internal,
    };
    EngineError::new(code, words)
}

/// An error with its causes, which do not cross the process boundary by themselves; without the
/// backtraces that runtimes of cards put into their words.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let text = neurino_core::told_with_causes(error);
    match text.find("\nBacktrace") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
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
        assert_eq!(code("out of device memory allocating 9 bytes"), EngineErrorCode::OutOfMemory);
        assert_eq!(code("index out of bounds"), EngineErrorCode::Internal);
        assert_eq!(from_panic("the job", &7_u8).code, EngineErrorCode::Internal);
        assert_eq!(guarded("the job", || 5), Ok(5));
        let panic = |words: &'static str| -> Result<(), _> {
            guarded_on_device("a step", || std::panic::resume_unwind(Box::new(words)))
        };
        let code = |words| panic(words).map_err(|e| e.code);
        assert_eq!(code("an illegal address"), Err(EngineErrorCode::Crashed));
        assert_eq!(code("out of memory"), Err(EngineErrorCode::OutOfMemory));
    }
    #[test]
    fn an_error_of_the_device_is_told_apart_and_without_its_backtrace() {
        let of = |reason: &str| {
            let error = LlmError::Nn(NnError::Device { reason: reason.into() });
            from_model(&error, chain(&error))
        };
        for words in [
            "An out-of-memory error happened during launch",
            "An IO error happened\nCaused by:\n  out of device memory allocating 9 bytes\nframes",
        ] {
            assert_eq!(of(words).code, EngineErrorCode::OutOfMemory, "{words}");
        }
        let poisoned = of("The device is poisoned\nCaused by:\n  a trap\nBacktrace:\n  0: main");
        assert_eq!(poisoned.code, EngineErrorCode::Crashed);
        assert!(poisoned.message.ends_with("a trap"), "{poisoned}");
        let refused = LlmError::Nn(NnError::BadBatch { reason: "a sequence without new tokens" });
        assert_eq!(from_model(&refused, chain(&refused)).code, EngineErrorCode::Internal);
    }
}
