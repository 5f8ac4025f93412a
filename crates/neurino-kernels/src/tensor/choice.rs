//! The sampler as an operation on burn's tensors: scores stay on the device, a token a row comes back.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::buffer;
use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};
use crate::sample::{Batch, CHOICE, ENTRY, Entry, NO_TOKEN, PARAMS, Params, sample};

/// A list of fewer entries is filled up, and longer ones to powers of two: few sizes of memory.
const ENTRIES_MIN: usize = 64;
/// Places of tokens are exact in f32 below.
const VOCABULARY_LIMIT: usize = 1 << 24;

#[backend_extension(Cube, Fusion)]
trait Choosing: Backend {
    #[fusion(dtype = uniforms, shape = uniforms)]
    fn choose(
        logits: FloatTensor<Self>,
        params: FloatTensor<Self>,
        lists: IntTensor<Self>,
        entries: IntTensor<Self>,
        uniforms: IntTensor<Self>,
    ) -> IntTensor<Self>;
}

impl Choosing for CubeBackend {
    fn choose(
        logits: CubeTensor,
        params: CubeTensor,
        lists: CubeTensor,
        entries: CubeTensor,
        uniforms: CubeTensor,
    ) -> CubeTensor {
        let gpu = Gpu::new(logits.client.clone());
        let shape = uniforms.meta.shape().clone();
        let (client, device) = (uniforms.client.clone(), uniforms.device.clone());
        let y = empty_device_dtype(client, device, shape, uniforms.dtype);
        // The same bytes, in pairs of words.
        let pairs = buffer(uniforms);
        let uniforms = Buffer::new(pairs.handle().clone(), pairs.len() / 2, size_of::<f64>());
        let entries = buffer(entries);
        sample(
            &gpu,
            &Batch {
                logits: &buffer(logits),
                params: &buffer(params),
                lists: &buffer(lists),
                saved: &Buffer::empty::<f32>(&gpu.client, entries.len() / ENTRY),
                entries: &entries,
                uniforms: &uniforms,
                choices: &buffer(y.clone()),
            },
        );
        y
    }
}

/// How the token of one row is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Temperature, filters and penalties.
    pub params: Params,
    /// Tokens that were seen or have a bias; none twice.
    pub entries: Vec<Entry>,
    /// The random number, from 0 up to, not including, 1.
    pub uniform: f64,
}

/// The chosen tokens of a step, still on the device.
#[derive(Debug)]
pub struct Choices(Tensor<2, Int>);

/// Chooses a token for each row by its rule. The logits are as before afterwards.
///
/// # Shapes
/// - `logits`: `[rows, vocabulary]`, f32
///
/// # Errors
/// `Unsupported` for other numbers of rules than rows, and for vocabularies without a kernel.
pub fn choose(logits: &Tensor<2>, rules: &[Rule]) -> Result<Choices, Unsupported> {
    let [rows, vocabulary] = logits.dims();
    if rows == 0 || rules.len() != rows {
        return Err(Unsupported("other numbers of rules than rows"));
    }
    if vocabulary == 0 || vocabulary >= VOCABULARY_LIMIT || logits.dtype() != DType::F32 {
        return Err(Unsupported("a vocabulary of this size or type"));
    }
    let device = logits.device();
    let mut lists = vec![0_i32];
    let mut entries: Vec<i32> = Vec::new();
    for rule in rules {
        let words = rule.entries.iter().flat_map(|entry| entry.to_words());
        entries.extend(words.map(u32::cast_signed));
        lists.push((entries.len() / ENTRY) as i32);
    }
    let count = (entries.len() / ENTRY).max(ENTRIES_MIN).next_power_of_two();
    entries.resize(count * ENTRY, 0);
    let params: Vec<f32> = rules.iter().flat_map(|rule| rule.params.to_row()).collect();
    let words = |uniform: f64| {
        let bits = uniform.to_bits();
        [bits as u32, (bits >> 32) as u32].map(u32::cast_signed)
    };
    let uniforms = rules.iter().flat_map(|rule| words(rule.uniform)).collect();
    let params: Tensor<2> =
        Tensor::from_data(TensorData::new(params, [rows, PARAMS]), (&device, DType::F32));
    Ok(Choices(Tensor::from_dispatch(<Dispatch as Choosing>::choose(
        logits.clone().into_dispatch(),
        params.into_dispatch(),
        integers(lists, [rows + 1], &device).into_dispatch(),
        integers(entries, [count, ENTRY], &device).into_dispatch(),
        integers(uniforms, [rows, CHOICE], &device).into_dispatch(),
    ))))
}

fn integers<const D: usize>(
    values: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}

impl Choices {
    /// Waits for the tokens, each with its log-probability as the model gave it. `None` for a row
    /// whose logits are no numbers or have no finite maximum.
    ///
    /// # Errors
    /// The device's, as text.
    pub fn read(self) -> Result<Vec<Option<(u32, f32)>>, String> {
        let data = self.0.try_into_data().map_err(|error| error.to_string())?;
        let words = data.try_into_vec_as::<i32>().map_err(|error| error.to_string())?;
        let choice = |&[token, logprob]: &[i32; CHOICE]| {
            let token = token.cast_unsigned();
            (token != NO_TOKEN).then_some((token, f32::from_bits(logprob.cast_unsigned())))
        };
        Ok(words.as_chunks::<CHOICE>().0.iter().map(choice).collect())
    }
}
