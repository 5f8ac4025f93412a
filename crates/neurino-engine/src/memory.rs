//! Plans, before anything is read, what a model takes of the memory of its devices, in which
//! precision it fits and on how many of them: weights, activations of a step, and what is left for
//! the key-value cache.

use std::ops::Range;

use neurino_llm::checkpoint::Precision;
use neurino_llm::serving::{CLAIM_ROWS, ServingLimits, StepShapes};
use neurino_llm::source::ModelSource;
use neurino_nn::paged::BLOCK_TOKENS;
use neurino_nn::quant::Holder;

use crate::api::{EngineError, EngineErrorCode};

const MIB: u64 = 1 << 20;
/// Sequences that decode together: on a CPU more would only make each slower.
const SEQUENCES_CPU: usize = 8;
const SEQUENCES_CARD: usize = 64;
/// Tokens of a step; long prompts go through in pieces of this length.
const ROWS_CPU: usize = 256;
const ROWS_CARD: usize = 1024;
/// Tokens that a cache must hold at least to be of use.
const CACHE_TOKENS_MIN: usize = 1024;
/// Tokens of cache for each sequence that decodes.
const TOKENS_EACH: usize = 256;
/// The cache of a CPU, if that holds one whole context: memory that others may want.
const CACHE_BYTES_CPU: u64 = 512 * MIB;

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it.
    pub total_bytes: u64,
    /// Nobody's at the moment.
    pub free_bytes: u64,
    /// Whether it is the machine's own.
    pub is_cpu: bool,
}

impl DeviceMemory {
    /// What is left to others: the desktop and its programs.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        if self.is_cpu {
            (self.total_bytes / 8).clamp(256 * MIB, 4096 * MIB)
        } else {
            (self.total_bytes / 16).clamp(512 * MIB, 2048 * MIB)
        }
    }
}

/// Whether a model fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fits,
    /// Not even with its smallest weights.
    TooLarge {
        /// What weights, activations and a small cache would take, in bytes.
        needed_bytes: u64,
        /// What there is, the reserve taken off, in bytes.
        available_bytes: u64,
    },
}

/// How a model would be kept in the memory of its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// How weights are kept.
    pub precision: Precision,
    /// The devices that are used, by their index, in the order of their layers.
    pub devices: Vec<usize>,
    /// The layers of each of them.
    pub runs: Vec<Range<usize>>,
    /// Memory of the weights.
    pub weights_bytes: u64,
    /// Blocks of the key-value cache.
    pub kv_blocks: usize,
    /// Memory of one of them, in all layers.
    pub block_bytes: u64,
    /// Most memory of what a step computes on its way, on each device.
    pub activation_bytes: u64,
    /// What is left to others on the first of them.
    pub reserve_bytes: u64,
    /// Most sequences that decode together.
    pub sequences_max: usize,
    /// Most tokens of a step.
    pub rows_per_step: usize,
    /// Whether all of that fits.
    pub verdict: Verdict,
}

impl MemoryPlan {
    /// Weights, cache and activations on all devices.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.cache_bytes() + self.activation_bytes * self.runs.len() as u64
    }

    /// Memory of the key-value cache.
    pub fn cache_bytes(&self) -> u64 {
        self.block_bytes * self.kv_blocks as u64
    }

    /// The plan, if it can be kept.
    ///
    /// # Errors
    /// `OutOfMemory`, with the numbers.
    pub fn checked(self) -> Result<Self, EngineError> {
        let Verdict::TooLarge { needed_bytes, available_bytes } = self.verdict else {
            return Ok(self);
        };
        let gb = |bytes: u64| bytes as f64 / 1e9;
        let message = format!(
            "the model needs {:.1} GB of memory and {:.1} GB are free for it; close other programs, \
             or choose a smaller model",
            gb(needed_bytes),
            gb(available_bytes)
        );
        Err(EngineError::new(EngineErrorCode::OutOfMemory, message))
    }

    /// What the scheduler may use.
    pub fn limits(&self) -> ServingLimits {
        ServingLimits {
            n_blocks: self.kv_blocks,
            rows_per_step: self.rows_per_step,
            sequences_max: self.sequences_max,
        }
    }
}

/// Plans a model on `devices`, of which there is at least one, in their [`precision`]: on one alone, the
/// roomiest that holds it, or else on as many as it takes.
pub fn plan(source: &ModelSource, devices: &[DeviceMemory]) -> MemoryPlan {
    plan_as(source, devices, precision(source, devices))
}

/// The precision of a model on `devices`: the one that suits them or, where they could not hold it in
/// that if they were empty, 4 bits. What others use of them at the moment does not matter: equal devices
/// answer alike, or are told to free memory.
pub fn precision(source: &ModelSource, devices: &[DeviceMemory]) -> Precision {
    let is_cpu = devices.iter().all(|device| device.is_cpu);
    let wanted = if is_cpu { Precision::Packed } else { Precision::Half };
    let empty = |device: &DeviceMemory| DeviceMemory { free_bytes: device.total_bytes, ..*device };
    let empty: Vec<_> = devices.iter().map(empty).collect();
    let fits = plan_as(source, &empty, wanted).verdict == Verdict::Fits;
    if fits { wanted } else { Precision::FourBit }
}

/// Plans a model in a chosen precision.
pub fn plan_as(source: &ModelSource, devices: &[DeviceMemory], precision: Precision) -> MemoryPlan {
    let is_cpu = devices.iter().all(|device| device.is_cpu);
    let holder = if is_cpu { Holder::Cpu } else { Holder::Card };
    let (config, memory) = (&source.config, source.memory(precision, holder));
    let (sequences, rows_per_step) =
        if is_cpu { (SEQUENCES_CPU, ROWS_CPU) } else { (SEQUENCES_CARD, ROWS_CARD) };
    let activation_bytes = config.activation_bytes(rows_per_step, sequences + CLAIM_ROWS);
    let available =
        |device: &DeviceMemory| device.free_bytes.saturating_sub(device.reserve_bytes());
    let budget = |device| available(device).saturating_sub(activation_bytes);
    let budgets: Vec<u64> = devices.iter().map(budget).collect();

    let context_blocks = config.max_position_embeddings.div_ceil(BLOCK_TOKENS);
    let filling_blocks = if is_cpu {
        0
    } else {
        let limits = ServingLimits { n_blocks: 0, rows_per_step, sequences_max: sequences };
        StepShapes::new(&limits, config.max_position_embeddings).filling_blocks()
    };
    let least_blocks = CACHE_TOKENS_MIN.div_ceil(BLOCK_TOKENS).min(context_blocks) + filling_blocks;
    let block_bytes = memory.block_bytes();
    // Whole contexts for all; one block more, for a copy of what two answers share.
    let mut most_blocks = (context_blocks + 1) * sequences + filling_blocks;
    if is_cpu {
        let enough_bytes = CACHE_BYTES_CPU.max(block_bytes * context_blocks as u64);
        let allowed_bytes = enough_bytes.min(devices.iter().map(|d| d.total_bytes / 4).sum());
        let allowed = usize::try_from(allowed_bytes / block_bytes.max(1)).unwrap_or(usize::MAX);
        most_blocks = most_blocks.min(allowed);
    }
    // With fewer devices in use a block is the same, so the first that hold enough are taken.
    let best_on = |some: &[usize]| {
        let room: Vec<u64> = some.iter().map(|&index| budgets[index]).collect();
        let runs = |blocks: usize| memory.split(&room, blocks as u64);
        let blocks = largest(least_blocks, most_blocks.max(least_blocks), |n| runs(n).is_some())?;
        let runs = runs(blocks)?;
        Some((blocks, some[..runs.len()].to_vec(), runs))
    };
    let order = by_room(&budgets);
    let alone = order.chunks(1);
    let together = (2..=order.len()).map(|count| &order[..count]);
    let found = alone.chain(together).find_map(best_on);
    let fits = found.is_some();
    let whole = 0..config.num_hidden_layers;
    let first = order.first().copied().unwrap_or(0);
    let (kv_blocks, used, runs) = found.unwrap_or((least_blocks, vec![first], vec![whole]));
    let needed_bytes =
        memory.weights_bytes() + activation_bytes + block_bytes * least_blocks as u64;
    let available_bytes = devices.iter().map(available).sum();
    MemoryPlan {
        precision,
        runs,
        weights_bytes: memory.weights_bytes(),
        kv_blocks,
        block_bytes,
        activation_bytes,
        reserve_bytes: used.first().map_or(0, |&index| devices[index].reserve_bytes()),
        devices: used,
        // Each with room for a conversation of some length.
        sequences_max: (kv_blocks * BLOCK_TOKENS / TOKENS_EACH).clamp(1, sequences),
        rows_per_step,
        verdict: if fits {
            Verdict::Fits
        } else {
            Verdict::TooLarge { needed_bytes, available_bytes }
        },
    }
}

/// The devices in the order in which they are tried: the roomiest first. Of those that have nearly as
/// much as it the first comes, so that equal devices keep their order whatever a desktop takes of them.
pub(crate) fn by_room(room_bytes: &[u64]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..room_bytes.len()).collect();
    let mut order = Vec::with_capacity(left.len());
    while let Some(most) = left.iter().map(|&index| room_bytes[index]).max() {
        let nearly = |index: &usize| room_bytes[*index] >= most - most / 8;
        let Some(at) = left.iter().position(nearly) else { break };
        order.push(left.remove(at));
    }
    order
}

/// The largest number from `least` to `most` that fits; all below it do, too.
fn largest(least: usize, most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if !fits(least) {
        return None;
    }
    let (mut yes, mut no) = (least, most + 1);
    while yes + 1 < no {
        let middle = yes.midpoint(no);
        if fits(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    Some(yes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::{Path, PathBuf};

    use burn::tensor::Device;
    use neurino_llm::model::LanguageModel;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn fixtures() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm");
        let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut models: Vec<_> = folders.filter(|p| p.join("config.json").is_file()).collect();
        models.sort();
        models
    }

    fn cpu(free_bytes: u64) -> DeviceMemory {
        DeviceMemory { total_bytes: 16 * GIB, free_bytes, is_cpu: true }
    }

    /// A card on which nobody else is. Those below 8 GB leave the same to others.
    fn card(total_bytes: u64) -> DeviceMemory {
        DeviceMemory { total_bytes, free_bytes: total_bytes, is_cpu: false }
    }

    /// The least that a card must have for a plan.
    fn least_card(plan: &MemoryPlan) -> u64 {
        // Eight more for what fills steps up.
        let blocks = (CACHE_TOKENS_MIN.div_ceil(BLOCK_TOKENS) + 8) as u64;
        let needed = plan.weights_bytes + plan.activation_bytes + blocks * plan.block_bytes;
        card(0).reserve_bytes() + needed
    }

    #[test]
    fn weights_take_what_was_planned() {
        let mut checked = 0;
        for path in fixtures() {
            let Ok(source) = ModelSource::open(&path) else { continue };
            let plan = plan(&source, &[cpu(8 * GIB)]);
            let model = LanguageModel::load(&source, &Device::flex(), &|_, _| {}).unwrap();
            let (planned, held) = (plan.weights_bytes as f64, model.weights_bytes() as f64);
            assert!((planned / held - 1.0).abs() < 0.05, "{path:?} {planned} {held}");
            assert_eq!(plan.block_bytes, model.block_bytes(), "{path:?}");
            checked += 1;
        }
        assert!(checked >= 3);
    }

    #[test]
    fn the_cache_gets_the_rest_and_no_more_than_is_of_use() {
        let source = ModelSource::open(&fixtures()[0]).unwrap();
        let roomy = plan(&source, &[cpu(8 * GIB)]);
        assert_eq!(roomy.verdict, Verdict::Fits);
        assert!(roomy.cache_bytes() <= CACHE_BYTES_CPU);
        assert_eq!(roomy.sequences_max, SEQUENCES_CPU);
        let none = plan(&source, &[cpu(GIB)]);
        assert!(matches!(none.verdict, Verdict::TooLarge { available_bytes: 0, .. }));
        let error = none.checked().unwrap_err();
        assert_eq!(error.code, EngineErrorCode::OutOfMemory);
        assert!(error.message.contains("0.0 GB are free for it"), "{error}");
    }

    #[test]
    fn a_card_takes_16_bits_then_4_bits_then_nothing() {
        let source = ModelSource::open(&fixtures()[0]).unwrap();
        let whole = plan(&source, &[card(4 * GIB)]);
        assert_eq!((whole.precision, &whole.verdict), (Precision::Half, &Verdict::Fits));
        let small = plan_as(&source, &[card(4 * GIB)], Precision::FourBit);
        assert!(small.weights_bytes < whole.weights_bytes);
        let found = plan(&source, &[card(least_card(&whole).midpoint(least_card(&small)))]);
        assert_eq!((found.precision, &found.verdict), (Precision::FourBit, &Verdict::Fits));
        let found = plan(&source, &[card(least_card(&small) - small.weights_bytes / 2)]);
        assert!(matches!(found.verdict, Verdict::TooLarge { .. }), "{found:?}");
    }

    /// Results of equal cards are compared to the last bit.
    #[test]
    fn what_others_use_of_a_card_does_not_change_its_precision() {
        let source = ModelSource::open(&fixtures()[0]).unwrap();
        let whole = plan(&source, &[card(4 * GIB)]);
        let small = plan_as(&source, &[card(4 * GIB)], Precision::FourBit);
        let for_small = least_card(&small);
        let used = DeviceMemory { free_bytes: for_small, ..card(4 * GIB) };
        let found = plan(&source, &[used]);
        assert_eq!(found.precision, whole.precision);
        let error = found.checked().unwrap_err();
        assert!(error.message.contains("close other programs"), "{error}");
        // A smaller cache is no other precision.
        let used = DeviceMemory { free_bytes: least_card(&whole), ..card(4 * GIB) };
        let found = plan(&source, &[used]);
        assert_eq!((found.precision, &found.verdict), (Precision::Half, &Verdict::Fits));
        assert!(found.kv_blocks < whole.kv_blocks);
    }

    #[test]
    fn a_model_too_large_for_one_card_is_split_over_two() {
        let source = ModelSource::open(&fixtures()[0]).unwrap();
        let whole = plan(&source, &[card(4 * GIB)]);
        let cards = [card(least_card(&whole) - 1), card(least_card(&whole) - 1)];
        let split = plan(&source, &cards);
        assert_eq!((split.precision, &split.verdict), (Precision::Half, &Verdict::Fits));
        assert_eq!(split.runs.len(), 2);
        assert_eq!(split.runs[1].end, source.config.num_hidden_layers);
        let roomy = plan(&source, &[card(4 * GIB), card(4 * GIB)]);
        assert_eq!(roomy.runs.len(), 1, "one card is enough");
    }

    #[test]
    fn one_card_alone_is_taken_wherever_it_is() {
        let source = ModelSource::open(&fixtures()[0]).unwrap();
        let whole = plan(&source, &[card(4 * GIB)]);
        let small = card(least_card(&whole) - 1);
        let found = plan(&source, &[small, card(4 * GIB)]);
        assert_eq!((found.precision, &found.verdict), (Precision::Half, &Verdict::Fits));
        assert_eq!((found.devices.as_slice(), found.runs.len()), ([1].as_slice(), 1));
        // A card without any room for it does not stand in the way of the others.
        let full = DeviceMemory { free_bytes: 0, ..card(4 * GIB) };
        let found = plan(&source, &[full, card(4 * GIB)]);
        assert_eq!((found.devices.as_slice(), &found.verdict), ([1].as_slice(), &Verdict::Fits));
        let found = plan(&source, &[full, small, small]);
        assert_eq!((found.devices.as_slice(), &found.verdict), ([1, 2].as_slice(), &Verdict::Fits));
        assert_eq!(found.runs.len(), 2);
    }

    #[test]
    fn nearly_equal_devices_keep_their_order() {
        assert_eq!(by_room(&[80, 81, 82]), [0, 1, 2]);
        assert_eq!(by_room(&[60, 240]), [1, 0]);
        assert_eq!(by_room(&[0, 160, 240, 230]), [2, 3, 1, 0]);
        assert_eq!(by_room(&[]), [0; 0]);
    }

    #[test]
    fn the_largest_that_fits_is_found() {
        for limit in 3..20 {
            assert_eq!(largest(3, 17, |n| n <= limit), Some(limit.min(17)));
        }
        assert_eq!(largest(3, 17, |n| n <= 2), None);
    }
}
