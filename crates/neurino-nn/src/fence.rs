//! How far a device has come, for hosts that hand it work without waiting for the results.

use burn::tensor::Tensor;

use crate::NnError;
use crate::device::is_cpu;

/// The place in a device's work behind everything that some tensor is computed from.
#[must_use = "what failed before it is told by `wait` alone"]
pub struct Fence(Place);

enum Place {
    /// The processor computes at once.
    Reached,
    #[cfg(feature = "kernels")]
    Ahead(Box<neurino_kernels::tensor::fence::Fence>),
}

impl Fence {
    /// Hands everything that `x` is computed from to its device, without waiting for it.
    ///
    /// # Errors
    /// `Device` if it cannot be handed over.
    pub fn behind(x: &Tensor<1>) -> Result<Self, NnError> {
        let device = x.device();
        if is_cpu(&device) {
            return Ok(Self(Place::Reached));
        }
        #[cfg(feature = "kernels")]
        {
            let fence = neurino_kernels::tensor::fence::behind(x).map_err(failed)?;
            Ok(Self(Place::Ahead(Box::new(fence))))
        }
        #[cfg(not(feature = "kernels"))]
        {
            device.sync().map_err(|error| failed(error.to_string()))?;
            Ok(Self(Place::Reached))
        }
    }

    /// Whether there is nothing to wait for.
    pub fn is_reached(&self) -> bool {
        matches!(self.0, Place::Reached)
    }

    /// Waits until the device is there. What it was given afterwards goes on.
    ///
    /// # Errors
    /// `Device` if the tensor could not be computed.
    pub fn wait(self) -> Result<(), NnError> {
        match self.0 {
            Place::Reached => Ok(()),
            #[cfg(feature = "kernels")]
            Place::Ahead(fence) => fence.wait().map_err(failed),
        }
    }
}

fn failed(reason: String) -> NnError {
    NnError::Device { reason }
}
