//! Places in what a card was given to compute, which the host can wait for later: what is behind them goes
//! on meanwhile.

use std::sync::mpsc::{SyncSender, sync_channel};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::future::{DynFut, block_on};
use cubecl::server::ServerError;

/// What the runtime makes true once the card is there.
type Arrival = DynFut<Result<(), ServerError>>;

#[backend_extension(Cube, Fusion)]
trait Fencing: Backend {
    #[fusion(dtype = x, shape = x)]
    fn fence(x: FloatTensor<Self>, place: SyncSender<Arrival>) -> FloatTensor<Self>;
}

impl Fencing for CubeBackend {
    fn fence(x: CubeTensor, place: SyncSender<Arrival>) -> CubeTensor {
        // On the stream that computes `x`, which need not be that of the thread that asked. There is room
        // for one, and who does not want it any more is not waiting.
        let _ = place.try_send(x.client.sync_buffers([&x.handle]));
        x
    }
}

/// The place behind everything that a tensor is computed from.
pub struct Fence {
    x: Tensor<1>,
    /// `None` if what comes before failed, so that nobody got there.
    arrival: Option<Arrival>,
}

/// Hands everything that `x` is computed from to the card, without waiting for it.
///
/// # Errors
/// The device's, as text.
pub fn behind(x: &Tensor<1>) -> Result<Fence, String> {
    let (place, arrivals) = sync_channel(1);
    let device = x.device();
    let fenced = <Dispatch as Fencing>::fence(x.clone().into_dispatch(), place);
    let fenced: Tensor<1> = Tensor::from_dispatch(fenced);
    // What is fused is held back until there is more of it.
    device.flush().map_err(|error| error.to_string())?;
    Ok(Fence { x: fenced, arrival: arrivals.try_recv().ok() })
}

impl Fence {
    /// Waits until the card is there.
    ///
    /// # Errors
    /// What failed on the way, the device's words.
    pub fn wait(self) -> Result<(), String> {
        match self.arrival {
            Some(arrival) => block_on(arrival).map_err(|error| error.to_string()),
            // Only a read says what it was.
            None => match self.x.try_into_data() {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}
