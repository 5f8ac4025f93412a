//! What of some work reaches a card, for measurements.

/// Kernels that some work launched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launches {
    /// How many.
    pub count: u64,
    /// How long the card computed them, in seconds, if that was asked for and the card told it of each.
    pub busy_s: Option<f64>,
}

/// Counts what `work` launches on cards, which has to wait for them itself; nothing else may compute
/// meanwhile. With `timed` each kernel is measured, which makes the host slow. `None` in a build without
/// kernels of cards.
pub fn watched<T>(timed: bool, work: impl FnOnce() -> T) -> (T, Option<Launches>) {
    #[cfg(feature = "kernels")]
    {
        let (result, found) = neurino_kernels::watch::watched(timed, work);
        let neurino_kernels::watch::Launches { count, busy_s } = found;
        (result, Some(Launches { count, busy_s }))
    }
    #[cfg(not(feature = "kernels"))]
    {
        let _ = timed;
        (work(), None)
    }
}
