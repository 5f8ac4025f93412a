//! What glibc's allocator does with large pieces of memory: as it comes, it learns from the first
//! weights that are freed to keep the next ones for itself. Measured with the starter model, loaded
//! and unloaded again and again: 790 MB while it serves and 150 MB after it, against 140 MB and 16 MB.

/// From this size on, memory comes from the system and returns to it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const DIRECT_BYTES: std::ffi::c_int = 4 << 20;
/// `M_MMAP_THRESHOLD` of `malloc.h`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const THRESHOLD: std::ffi::c_int = -3;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's own functions, which have no safe form")]
mod glibc {
    use std::ffi::c_int;

    unsafe extern "C" {
        pub(super) safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
    }
}

/// Lets large pieces return to the system when they are freed, from now on.
pub(crate) fn return_large_pieces() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if glibc::mallopt(THRESHOLD, DIRECT_BYTES) != 1 {
        tracing::debug!("the allocator keeps its own rules");
    }
}

/// Gives back what is free but kept.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}
