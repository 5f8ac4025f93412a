//! A choice of experts made on a card, so that no layer waits for the host.

use burn::tensor::Tensor;

use crate::{Linear, NnError};

/// Which experts compute which rows of a step, decided on a card. A *pair* is a row and one of its
/// experts; a row's pairs follow one another, by their experts' numbers.
#[derive(Debug)]
pub struct Choice {
    #[cfg(feature = "kernels")]
    routes: neurino_kernels::tensor::tiles::RouteTensor,
    #[cfg(not(feature = "kernels"))]
    never: std::convert::Infallible,
}

#[cfg(feature = "kernels")]
impl Choice {
    /// Lets the device of `scores` choose `per_row` experts for each row: softmax over all, the best of
    /// them (of equals the lower number), renormalised. `None` where no kernel does so.
    ///
    /// # Shapes
    /// - `scores`: `[rows, experts]`, f32
    pub fn of(scores: &Tensor<2>, per_row: usize) -> Option<Self> {
        if crate::device::is_cpu(&scores.device()) {
            return None;
        }
        let routes =
            neurino_kernels::tensor::tiles::RouteTensor::choose(scores.clone(), per_row).ok()?;
        Some(Self { routes })
    }

    /// Pairs of the step.
    pub fn pairs(&self) -> usize {
        self.routes.of().pairs()
    }

    /// Each pair's product with its expert's weights, in the bits that [`Linear::forward`] gives it.
    /// `None` if some of the weights are not multiplied in tiles.
    ///
    /// # Shapes
    /// - `x`: `[rows, in]` or `[pairs, in]`, f32; returns `[pairs, out]`, f32
    pub fn forward(&self, x: &Tensor<2>, experts: &[&Linear]) -> Option<Tensor<2>> {
        let [out, _] = experts.first()?.shape();
        let dtype = burn::tensor::DType::F32;
        let empty = Tensor::empty([self.pairs(), out], (&x.device(), dtype));
        experts.iter().enumerate().try_fold(empty, |y, (number, expert)| {
            expert.forward_pairs(x.clone(), &self.routes, number, y)
        })
    }

    /// Each row's pairs added up by their weights.
    ///
    /// # Shapes
    /// - `parts`: `[pairs, width]`, f32; returns `[rows, width]`, f32
    ///
    /// # Errors
    /// `Device` if there are other pairs.
    pub fn combine(&self, parts: Tensor<2>) -> Result<Tensor<2>, NnError> {
        let refused = |error: neurino_kernels::gpu::Unsupported| NnError::Device {
            reason: error.to_string(),
        };
        self.routes.combine(parts).map_err(refused)
    }

    /// Waits for the chosen experts, pair by pair.
    ///
    /// # Errors
    /// `Device`.
    pub fn read(&self) -> Result<Vec<usize>, NnError> {
        crate::device::count_download();
        self.routes.read().map_err(|reason| NnError::Device { reason })
    }
}

#[cfg(not(feature = "kernels"))]
impl Choice {
    /// As with the kernels of cards, which this build has not.
    pub fn of(_scores: &Tensor<2>, _per_row: usize) -> Option<Self> {
        None
    }

    /// Never called.
    pub fn pairs(&self) -> usize {
        match self.never {}
    }

    /// Never called.
    pub fn forward(&self, _x: &Tensor<2>, _experts: &[&Linear]) -> Option<Tensor<2>> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn combine(&self, _parts: Tensor<2>) -> Result<Tensor<2>, NnError> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn read(&self) -> Result<Vec<usize>, NnError> {
        match self.never {}
    }
}
