//! Makes the layers of an image model from tensors under their diffusers (or Hugging Face) names,
//! whatever names, order and form the file has them in.
//!
//! [`Tensors`] is where they come from: a folder ([`folder::FolderTensors`]), a single file with LDM
//! names ([`ldm`]), or random numbers by shape ([`random::RandomTensors`]). [`Component`] asks for them by name *and shape*, so that a
//! damaged file is found before anything is computed.

use std::cell::Cell;
use std::fmt::Display;
use std::sync::Arc;

use burn::tensor::{Bytes, DType as TensorType, Device, ExecutionError, Tensor, TensorData};
use neurino_nn::conv::{Conv2d, Padding};
use neurino_nn::device::{is_cpu, upload};
use neurino_nn::norm::{GroupNorm, LayerNorm};
use neurino_nn::quant::{hqq_on, nf4_on};
use neurino_nn::{Affine, Linear, NnError, RmsNorm};
use neurino_weights::hqq::HqqMatrix;
use neurino_weights::nf4::Nf4Matrix;
use neurino_weights::{DType, WeightsError};

use crate::DiffusionError;
use crate::lora::Placement;
use crate::pulse::Pulse;

pub mod folder;
pub mod kept;
pub mod ldm;
pub mod random;
pub mod streaming;

use kept::KeptTensors;
use streaming::Conveyor;

/// Bytes that may be on their way to a device before it is waited for.
const PENDING_BYTES_MAX: u64 = 1 << 29;
/// Tensors below this are sent through the runtime's own page-locked memory: locking them takes whole pages.
const LOCK_BYTES_MIN: u64 = 1 << 20;

/// One tensor as it was read. A copy of packed weights shares their bytes; so does one of plain weights
/// that are shared ([`Bytes::shared`]).
#[derive(Debug, Clone)]
pub enum Weight {
    /// Numbers in row-major order.
    Plain {
        /// As stored: f32, f16 or bf16.
        dtype: DType,
        /// Little-endian.
        bytes: Bytes,
    },
    /// A matrix in bitsandbytes' 4 bits.
    Nf4(Arc<Nf4Matrix>),
    /// A matrix in HQQ's integers.
    Hqq(Arc<HqqMatrix>),
}

impl Weight {
    /// Plain numbers of little-endian bytes.
    pub fn plain(dtype: DType, bytes: Vec<u8>) -> Self {
        Self::Plain { dtype, bytes: Bytes::from_bytes_vec(bytes) }
    }

    /// Memory it takes as it is, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Plain { bytes, .. } => bytes.len(),
            Self::Nf4(matrix) => matrix.quants.len() + 4 * matrix.scales.len(),
            Self::Hqq(matrix) => {
                matrix.quants.len() + 4 * (matrix.scales.len() + matrix.zeros.len())
            }
        }
    }
}

/// Where tensors come from, by the names that diffusers gives them within one component.
pub trait Tensors {
    /// The shape of a tensor (of the unpacked matrix if it is packed), or `None` if it is absent.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Reads a tensor that must have `shape`. Trailing dimensions of 1 may be more or fewer: 1x1
    /// convolutions are linear layers.
    ///
    /// # Errors
    /// `Weights` if it is absent, of another shape, of an unknown format, or the file changed.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError>;
}

/// How weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As stored, packed ones packed: what CPUs have the memory for.
    Stored,
    /// All f32, packed ones unpacked: the reference.
    Full,
    /// 16 bits (f16 for what is stored wider), packed ones packed: what cards run.
    Half,
    /// As [`Precision::Half`], and the 16 bits are bf16 whatever is stored: for networks that were
    /// trained with the range of f32, which f16 has not.
    HalfWide,
}

impl Precision {
    /// The number format that plain weights stored as `dtype` are kept in.
    fn kept(self, dtype: DType) -> TensorType {
        match (self, dtype) {
            (Self::Full, _) | (Self::Stored, DType::F32) => TensorType::F32,
            (_, DType::BF16) | (Self::HalfWide, _) => TensorType::BF16,
            _ => TensorType::F16,
        }
    }

    /// Whether it is what cards run.
    pub fn is_half(self) -> bool {
        matches!(self, Self::Half | Self::HalfWide)
    }
}

/// The plain formats of image models as tensors name them.
fn stored_type(dtype: DType) -> Option<TensorType> {
    match dtype {
        DType::F32 => Some(TensorType::F32),
        DType::F16 => Some(TensorType::F16),
        DType::BF16 => Some(TensorType::BF16),
        _ => None,
    }
}

/// The other way round.
fn weight_type(kept: TensorType) -> Option<DType> {
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .find(|&dtype| stored_type(dtype) == Some(kept))
}

/// Where the layers of a model are put, and who hears of it.
#[derive(Clone)]
pub struct Loading<'a> {
    /// The device of the layers.
    pub device: &'a Device,
    /// How their weights are kept.
    pub precision: Precision,
    read_bytes: Cell<u64>,
    held_bytes: Cell<u64>,
    /// Handed to the device since it was last waited for.
    pending_bytes: Cell<u64>,
    progress: &'a dyn Fn(u64),
    cancelled: &'a dyn Fn() -> bool,
    /// Brings the denoiser's layers, if they stream.
    conveyor: Option<Arc<Conveyor>>,
    /// Hears of each block that the layers compute.
    pulse: Pulse,
    /// Keeps what was read in host memory, for components that are read often.
    kept: Option<Arc<KeptTensors>>,
    /// Host memory that such components may take.
    host_room_bytes: u64,
    /// Host memory that may still be page-locked for layers that come and go.
    lock_bytes: Cell<u64>,
}

impl<'a> Loading<'a> {
    /// Reports the bytes read so far to `progress` after each tensor, and gives up at the next one
    /// once `cancelled` says so.
    pub fn new(
        device: &'a Device,
        precision: Precision,
        progress: &'a dyn Fn(u64),
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        let (read_bytes, held_bytes, pending_bytes) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let (conveyor, pulse) = (None, Pulse::default());
        Self {
            device,
            precision,
            read_bytes,
            held_bytes,
            pending_bytes,
            progress,
            cancelled,
            conveyor,
            pulse,
            kept: None,
            host_room_bytes: 0,
            lock_bytes: Cell::new(0),
        }
    }

    /// The same, of layers that beat with `pulse` while they compute.
    #[must_use]
    pub fn beating(self, pulse: &Pulse) -> Self {
        Self { pulse: pulse.clone(), ..self }
    }

    /// The same, of a model that may keep components in so much memory of the host which come to the device
    /// again and again.
    #[must_use]
    pub fn with_host_room(self, host_room_bytes: u64) -> Self {
        Self { host_room_bytes, ..self }
    }

    /// The same, with layers that come and go in page-locked memory of the host, up to so much of it.
    #[must_use]
    pub fn with_page_locks(self, bytes: u64) -> Self {
        Self { lock_bytes: Cell::new(bytes), ..self }
    }

    /// Whether a tensor of so many bytes is to be page-locked, which takes them off what may be.
    fn locks(&self, bytes: u64) -> bool {
        let left = self.lock_bytes.get().checked_sub(bytes);
        match left.filter(|_| bytes >= LOCK_BYTES_MIN) {
            Some(left) => {
                self.lock_bytes.set(left);
                true
            }
            None => false,
        }
    }

    /// Host memory that components may take which come again and again, in bytes.
    pub fn host_room_bytes(&self) -> u64 {
        self.host_room_bytes
    }

    /// The same, with what is read kept in host memory.
    #[must_use]
    pub fn keeping(self, kept: &Arc<KeptTensors>) -> Self {
        Self { kept: Some(Arc::clone(kept)), ..self }
    }

    /// Where what is read is kept, if it is.
    pub(crate) fn kept(&self) -> Option<&KeptTensors> {
        self.kept.as_deref()
    }

    /// What the layers beat with while they compute.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The same, of a denoiser that keeps its heavy layers in host memory and has two of them on the
    /// device at most.
    #[must_use]
    pub fn streaming(self) -> Self {
        let conveyor = self.conveyor.unwrap_or_else(|| Arc::new(Conveyor::new()));
        Self { conveyor: Some(conveyor), ..self }
    }

    /// The same, of a component that is in host memory and comes to the device by itself when it computes.
    #[must_use]
    pub fn visiting(&self) -> Self {
        Self { conveyor: Some(Arc::new(Conveyor::new())), ..self.clone() }
    }

    /// What brings the layers, if they stream.
    pub fn conveyor(&self) -> Option<&Arc<Conveyor>> {
        self.conveyor.as_ref()
    }

    /// Loading that nobody watches.
    pub fn quiet(device: &'a Device, precision: Precision) -> Self {
        Self::new(device, precision, &|_| {}, &|| false)
    }

    /// Memory on the device of the layers made so far, in bytes: of those that stream, of the two that
    /// are there.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.get() + self.conveyor.as_ref().map_or(0, |layers| layers.window_bytes())
    }

    fn count(&self, read_bytes: usize, held_bytes: usize) -> Result<(), DiffusionError> {
        self.read_bytes.set(self.read_bytes.get() + read_bytes as u64);
        self.held_bytes.set(self.held_bytes.get() + held_bytes as u64);
        (self.progress)(self.read_bytes.get());
        self.bound(held_bytes as u64)?;
        if (self.cancelled)() { Err(DiffusionError::Cancelled) } else { Ok(()) }
    }

    /// Waits for the device once too much is on its way to it: what a card has not copied yet still lies
    /// in this machine's memory, and a file may be read quicker than a card takes it.
    fn bound(&self, handed_bytes: u64) -> Result<(), DiffusionError> {
        let pending_bytes = self.pending_bytes.get() + handed_bytes;
        let full = pending_bytes > PENDING_BYTES_MAX && !is_cpu(self.device);
        self.pending_bytes.set(if full { 0 } else { pending_bytes });
        if full {
            let lost = |error: ExecutionError| NnError::Device { reason: error.to_string() };
            self.device.sync().map_err(lost)?;
        }
        Ok(())
    }
}

/// The layers of one component, or of a part of it.
#[derive(Clone)]
pub struct Component<'a> {
    tensors: &'a dyn Tensors,
    loading: &'a Loading<'a>,
    precision: Precision,
    prefix: String,
}

impl<'a> Component<'a> {
    /// A whole component.
    pub fn new(tensors: &'a dyn Tensors, loading: &'a Loading<'a>) -> Self {
        Self { tensors, loading, precision: loading.precision, prefix: String::new() }
    }

    /// The same with weights kept in `precision`, whatever the rest of the model is kept in.
    #[must_use]
    pub fn kept_in(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same of a network whose numbers leave the range of f16: where it is kept in 16 bits, these
    /// are bf16. The reference runs such networks in that.
    #[must_use]
    pub fn with_range(self) -> Self {
        let precision = match self.precision {
            Precision::Half => Precision::HalfWide,
            other => other,
        };
        self.kept_in(precision)
    }

    /// The part whose names begin with `part` and a dot.
    #[must_use]
    pub fn sub(&self, part: impl Display) -> Self {
        Self { prefix: format!("{}{part}.", self.prefix), ..self.clone() }
    }

    /// The shape of `name` if it is there: for dims that only the weights tell.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(&self.name(name))
    }

    /// The device that the layers are made on.
    pub fn device(&self) -> &Device {
        self.loading.device
    }

    /// What its blocks beat with.
    pub(crate) fn pulse(&self) -> Pulse {
        self.loading.pulse.clone()
    }

    /// Whether activations may lose precision where that is quicker, as weights did.
    pub fn in_half(&self) -> bool {
        self.precision.is_half()
    }

    /// Where updates of low rank of these layers are put: in full on the CPU, which computes in f32, and
    /// in the layers' 16 bits elsewhere.
    pub fn placement(&self) -> Placement {
        let full = self.precision == Precision::Full || is_cpu(self.loading.device);
        let dtype = match self.precision {
            _ if full => TensorType::F32,
            Precision::HalfWide => TensorType::BF16,
            _ => TensorType::F16,
        };
        Placement { device: self.loading.device.clone(), dtype }
    }

    /// A linear layer with bias; `name` is without `.weight`.
    ///
    /// # Errors
    /// `Weights` if a tensor is absent or of another shape, or the file changed; `Cancelled`: as for
    /// all that follow.
    pub fn linear(&self, name: &str, [out, inp]: [usize; 2]) -> Result<Affine, DiffusionError> {
        let bias = self.vector(&format!("{name}.bias"), out)?;
        Ok(Affine::new(self.matrix(name, [out, inp])?, Some(bias)))
    }

    /// A linear layer without bias.
    ///
    /// # Errors
    /// As [`Component::linear`].
    pub fn linear_no_bias(&self, name: &str, shape: [usize; 2]) -> Result<Affine, DiffusionError> {
        Ok(Affine::new(self.matrix(name, shape)?, None))
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Linear, DiffusionError> {
        let name = self.name(&format!("{name}.weight"));
        let weight = self.tensors.read(&name, &shape)?;
        let (read, full) = (weight.size_bytes(), self.precision == Precision::Full);
        match weight {
            Weight::Plain { dtype, bytes } => {
                Ok(Linear::dense(self.plain(&name, dtype, bytes, shape)?))
            }
            Weight::Nf4(matrix) if full => self.unpacked(matrix.to_f32(), shape, read),
            Weight::Hqq(matrix) if full => self.unpacked(matrix.to_f32(), shape, read),
            Weight::Nf4(mut matrix) => {
                // Without the trailing dimensions of 1 that the file may have.
                if matrix.shape != shape {
                    Arc::make_mut(&mut matrix).shape = shape.to_vec();
                }
                self.loading.count(read, read)?;
                Ok(Linear::packed(nf4_on(matrix, self.loading.device, TensorType::BF16)))
            }
            Weight::Hqq(matrix) => {
                self.loading.count(read, read)?;
                Ok(Linear::packed(hqq_on(matrix, self.loading.device, TensorType::BF16)))
            }
        }
    }

    fn unpacked(
        &self,
        values: Vec<f32>,
        shape: [usize; 2],
        read_bytes: usize,
    ) -> Result<Linear, DiffusionError> {
        self.loading.count(read_bytes, 4 * values.len())?;
        Ok(Linear::dense(upload(values, shape, self.loading.device)))
    }

    /// A convolution with bias and a square kernel: `[out, in, side]`.
    ///
    /// # Errors
    /// As [`Component::linear`].
    pub fn conv(
        &self,
        name: &str,
        [out, inp, side]: [usize; 3],
        stride: usize,
        padding: Padding,
    ) -> Result<Conv2d, DiffusionError> {
        let weight = self.tensor(&format!("{name}.weight"), [out, inp, side, side])?;
        let bias = self.vector(&format!("{name}.bias"), out)?;
        Ok(Conv2d::new(weight, Some(bias), stride, padding))
    }

    /// # Errors
    /// As [`Component::linear`].
    pub fn layer_norm(
        &self,
        name: &str,
        width: usize,
        eps: f64,
    ) -> Result<LayerNorm, DiffusionError> {
        let gamma = self.vector(&format!("{name}.weight"), width)?;
        let beta = self.vector(&format!("{name}.bias"), width)?;
        Ok(LayerNorm::new(Some(gamma), Some(beta), eps))
    }

    /// # Errors
    /// As [`Component::linear`].
    pub fn group_norm(
        &self,
        name: &str,
        channels: usize,
        groups: usize,
        eps: f64,
    ) -> Result<GroupNorm, DiffusionError> {
        let gamma = self.vector(&format!("{name}.weight"), channels)?;
        let beta = self.vector(&format!("{name}.bias"), channels)?;
        Ok(GroupNorm::new(gamma, beta, groups, eps))
    }

    /// # Errors
    /// As [`Component::linear`].
    pub fn rms_norm(&self, name: &str, width: usize, eps: f64) -> Result<RmsNorm, DiffusionError> {
        Ok(RmsNorm::new(self.vector(&format!("{name}.weight"), width)?, eps))
    }

    /// A vector as f32.
    ///
    /// # Errors
    /// As [`Component::linear`].
    pub fn vector(&self, name: &str, len: usize) -> Result<Tensor<1>, DiffusionError> {
        Ok(self.tensor(name, [len])?.cast(TensorType::F32))
    }

    /// Any tensor, kept as the precision says.
    ///
    /// # Errors
    /// As [`Component::linear`]; also if it is packed.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<D>, DiffusionError> {
        let name = self.name(name);
        match self.tensors.read(&name, &shape)? {
            Weight::Plain { dtype, bytes } => self.plain(&name, dtype, bytes, shape),
            Weight::Nf4(matrix) => Ok(upload(matrix.to_f32(), shape, self.loading.device)),
            Weight::Hqq(matrix) => Ok(upload(matrix.to_f32(), shape, self.loading.device)),
        }
    }

    fn plain<const D: usize>(
        &self,
        name: &str,
        dtype: DType,
        bytes: Bytes,
        shape: [usize; D],
    ) -> Result<Tensor<D>, DiffusionError> {
        let Some(stored) = stored_type(dtype) else {
            let problem = format!("is stored as {}, which image models do not use", dtype.name());
            return Err(DiffusionError::Config { file: name.into(), problem });
        };
        let kept = self.precision.kept(dtype);
        let count = shape.iter().product::<usize>();
        self.loading.count(bytes.len(), count * kept.size())?;
        let data = TensorData::from_bytes(bytes, shape, stored);
        let device = self.loading.device;
        Ok(Tensor::from_data(data.convert_dtype(kept), (device, kept)))
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Checks a found shape against an expected one, apart from trailing dimensions of 1.
pub(crate) fn same_shape(
    file: &std::path::Path,
    name: &str,
    found: &[usize],
    expected: &[usize],
) -> Result<(), DiffusionError> {
    fn core(shape: &[usize]) -> &[usize] {
        let end = shape.iter().rposition(|&d| d != 1).map_or(0, |last| last + 1);
        &shape[..end]
    }
    if core(found) == core(expected) {
        return Ok(());
    }
    Err(WeightsError::WrongShape {
        file: file.to_owned(),
        tensor: name.to_owned(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    }
    .into())
}
