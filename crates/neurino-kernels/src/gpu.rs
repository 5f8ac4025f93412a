//! A device's queue and how its cubes are cut: what every launch needs.

use cubecl::prelude::*;

use crate::lanes::Cut;

/// Why a kernel does not apply; the caller falls back to plain tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported(pub &'static str);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no kernel for {}", self.0)
    }
}

impl std::error::Error for Unsupported {}

/// A device, ready to launch kernels.
#[derive(Clone)]
pub struct Gpu {
    /// The queue.
    pub client: Client,
    /// The cut of its cubes.
    pub cut: Cut,
}

impl Gpu {
    /// The device behind a queue, with the cut that suits it.
    pub fn new(client: Client) -> Self {
        let cut = Cut::of(&client);
        Self { client, cut }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("cut", &self.cut).finish_non_exhaustive()
    }
}
