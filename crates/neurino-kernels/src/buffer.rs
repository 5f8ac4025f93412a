//! A piece of device memory with its length, as the kernels take it.

use cubecl::bytes::Bytes;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Device memory that holds `len` values of some type.
#[derive(Debug, Clone)]
pub struct Buffer {
    handle: Handle,
    len: usize,
}

impl Buffer {
    /// Wraps memory of at least `len` values of `value_bytes` each.
    ///
    /// # Panics
    /// If the memory is smaller: every kernel trusts these lengths.
    pub fn new(handle: Handle, len: usize, value_bytes: usize) -> Self {
        let has = handle.size_in_used();
        assert!(has >= (len * value_bytes) as u64, "{len} values in {has} bytes of device memory");
        Self { handle, len }
    }

    /// Uploads values.
    pub fn upload<T: CubeElement>(client: &Client, values: &[T]) -> Self {
        Self { handle: client.create_from_slice(T::as_bytes(values)), len: values.len() }
    }

    /// Memory for `len` values, with whatever it held before.
    pub fn empty<T>(client: &Client, len: usize) -> Self {
        Self { handle: client.empty(len * size_of::<T>()), len }
    }

    /// Reads the values back, waiting for the kernels that write them.
    ///
    /// # Errors
    /// The runtime's, as text.
    pub fn download(&self, client: &Client) -> Result<Bytes, String> {
        client.read_one(self.handle.clone()).map_err(|error| error.to_string())
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// As a kernel's argument whose elements are vectors of `width` values.
    pub(crate) fn arg(&self, width: usize) -> BufferArg {
        debug_assert!(self.len.is_multiple_of(width), "{} values in vectors of {width}", self.len);
        // SAFETY: the constructors made sure that the memory holds `len` values.
        #[expect(unsafe_code, reason = "a kernel's argument is a raw range of device memory")]
        unsafe {
            BufferArg::from_raw_parts(self.handle.clone(), self.len / width)
        }
    }
}
