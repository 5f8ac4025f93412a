//! Windows: a power request for the system. The screen may go dark; `powercfg /requests` shows it.
//! It ends with the process.

use windows::Win32::Foundation::{CloseHandle, HANDLE};
use windows::Win32::System::Power::{
    PowerClearRequest, PowerCreateRequest, PowerRequestSystemRequired, PowerSetRequest,
};
use windows::Win32::System::Threading::{
    POWER_REQUEST_CONTEXT_SIMPLE_STRING, REASON_CONTEXT, REASON_CONTEXT_0,
};
use windows::core::PWSTR;

use crate::awake::{Awake, AwakeError};

/// `POWER_REQUEST_CONTEXT_VERSION` of winnt.h.
const CONTEXT_VERSION: u32 = 0;

/// A request that is set or not.
#[derive(Default)]
pub(crate) struct PowerRequest {
    request: Option<Request>,
}

impl Awake for PowerRequest {
    fn hold(&mut self, why: &str) -> Result<(), AwakeError> {
        if self.request.is_none() {
            let refused = |error: windows::core::Error| AwakeError::Refused(error.message());
            self.request = Some(Request::set(why).map_err(refused)?);
        }
        Ok(())
    }

    fn release(&mut self) {
        self.request = None;
    }
}

/// A request that is set, and cleared with its owner.
struct Request(HANDLE);

// SAFETY: a handle of the kernel belongs to the process, not to a thread.
unsafe impl Send for Request {}

impl Request {
    fn set(why: &str) -> windows::core::Result<Self> {
        let mut text: Vec<u16> = why.encode_utf16().chain([0]).collect();
        let context = REASON_CONTEXT {
            Version: CONTEXT_VERSION,
            Flags: POWER_REQUEST_CONTEXT_SIMPLE_STRING,
            Reason: REASON_CONTEXT_0 { SimpleReasonString: PWSTR(text.as_mut_ptr()) },
        };
        // SAFETY: the context is a local, and its text ends with a zero and outlives the call.
        let request = Self(unsafe { PowerCreateRequest(&raw const context) }?);
        // SAFETY: the handle is the one that was made just now.
        unsafe { PowerSetRequest(request.0, PowerRequestSystemRequired) }?;
        Ok(request)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, is closed once, and nobody uses it afterwards.
        unsafe {
            let _ = PowerClearRequest(self.0, PowerRequestSystemRequired);
            let _ = CloseHandle(self.0);
        }
    }
}
