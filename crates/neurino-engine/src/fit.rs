//! Whether a model will run on a device, told before it is fetched: from what its manifest says and
//! what the device has. Where the files are here, [`crate::memory::plan`] says it exactly.

use neurino_core::{ImageDefaults, JobKind};
use neurino_diffusion::checkpoint::Precision;
use neurino_diffusion::memory::{Dims, ImageMemory};
use neurino_diffusion::pipeline::{Plan, Residence};
use neurino_nn::quant::UNPACKING_BYTES;

use crate::memory::DeviceMemory;

const MIB: u64 = 1 << 20;
/// Beside weights: a cache and the activations of steps, as a share of the weights and at least.
const BESIDE_SHARE: u64 = 8;
const BESIDE_BYTES_MIN: u64 = 256 * MIB;
/// Weights above this are slow on a processor, which reads all of them for each token.
const PROCESSOR_BYTES_MAX: u64 = 512 * MIB;

/// Quarters of the machine's memory that layers may take which come to a card one by one.
const HOST_QUARTERS: u64 = 3;

/// Text encoders in 16 bits: 123 and 695 million weights.
const CLIP_L_BYTES: u64 = 246_000_000;
const CLIP_G_BYTES: u64 = 1_390_000_000;

/// What a manifest says of a model.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// What it makes.
    pub kind: JobKind,
    /// The architecture, as checkpoints name it.
    pub arch: &'a str,
    /// How most weights are stored.
    pub dtype: &'a str,
    /// Its files.
    pub size_bytes: u64,
    /// What a device must have at least.
    pub memory_bytes_min: u64,
    /// What suits it, if it makes pictures.
    pub image: Option<&'a ImageDefaults>,
}

/// Whether a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// As fast as this device can.
    Well,
    /// Slower than it could, for a reason.
    Slower(Slower),
    /// Not at all.
    No,
}

/// Why it is slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slower {
    /// Its weights fit with 4 bits only.
    FourBit,
    /// Pictures are computed in smaller pieces: tiles, halves of a step, encoders that come and go.
    Pieces,
    /// The layers of the network that makes pictures lie in the machine's memory and come to the card
    /// one by one.
    Streams,
    /// A processor computes.
    Processor,
}

/// A verdict, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The verdict, of the device's memory as a whole: what others use of it at the moment may change.
    pub runs: Runs,
    /// What it takes on this device the way the verdict says, in bytes; without a way, at least.
    pub needed_bytes: u64,
    /// What the device has for it, a reserve for others taken off, in bytes.
    pub available_bytes: u64,
}

/// Judges a model for a device of a machine that has `host_bytes` of memory beside it.
pub fn fit(needs: &Needs<'_>, device: DeviceMemory, host_bytes: u64) -> Fit {
    let available_bytes = device.total_bytes.saturating_sub(device.reserve_bytes());
    let ways = match needs.kind {
        _ if device.is_cpu => on_processor(needs),
        JobKind::Text => text(needs),
        JobKind::Image => picture(needs, host_bytes),
    };
    let way = ways.iter().flatten().find(|(_, needed_bytes)| *needed_bytes <= available_bytes);
    if let Some(&(runs, needed_bytes)) = way {
        return Fit { runs, needed_bytes, available_bytes };
    }
    let least = ways.iter().flatten().map(|(_, needed_bytes)| *needed_bytes).min();
    let needed_bytes = least.unwrap_or(needs.memory_bytes_min);
    Fit { runs: Runs::No, needed_bytes, available_bytes }
}

/// Ways to run a model, the best first, with what each takes.
type Ways = [Option<(Runs, u64)>; 3];

fn on_processor(needs: &Needs<'_>) -> Ways {
    let small = needs.size_bytes <= PROCESSOR_BYTES_MAX;
    let runs = if small { Runs::Well } else { Runs::Slower(Slower::Processor) };
    // Unpacked or not, a processor never takes less than the files.
    [Some((runs, needs.memory_bytes_min.max(needs.size_bytes))), None, None]
}

/// Weights as a card keeps them.
fn weights_bytes(needs: &Needs<'_>) -> u64 {
    if needs.dtype == "f32" { needs.size_bytes / 2 } else { needs.size_bytes }
}

fn text(needs: &Needs<'_>) -> Ways {
    let weights_bytes = weights_bytes(needs);
    let beside_bytes = (weights_bytes / BESIDE_SHARE).max(BESIDE_BYTES_MIN);
    let whole_bytes = (weights_bytes + beside_bytes).max(needs.memory_bytes_min);
    let sixteen = ["f32", "f16", "bf16"].contains(&needs.dtype);
    let least_bytes = needs.memory_bytes_min + BESIDE_BYTES_MIN;
    let packed = (sixteen && least_bytes < whole_bytes)
        .then_some((Runs::Slower(Slower::FourBit), least_bytes));
    [Some((Runs::Well, whole_bytes)), packed, None]
}

/// What an image model of a known architecture takes of a card.
fn image_memory(needs: &Needs<'_>) -> Option<ImageMemory> {
    let weights_bytes = weights_bytes(needs);
    let (dims, encoders_bytes) = match needs.arch {
        "sd15" => (Dims::sd15(), CLIP_L_BYTES),
        "sdxl" => (Dims::sdxl(), CLIP_L_BYTES + CLIP_G_BYTES),
        // How its T5 is stored differs too much to be said beforehand.
        "flux" => (Dims::flux(), CLIP_L_BYTES),
        _ => return None,
    };
    // A scale for 64 weights comes to them.
    let bits = if needs.dtype == "nf4" { 4.5 } else { 16.0 };
    let (layers, decoder_bytes) = (dims.layers(bits), dims.decoder_bytes(Precision::Half));
    let unpacks = ["nf4", "hqq"].contains(&needs.dtype);
    Some(
        ImageMemory::new(weights_bytes, encoders_bytes.min(weights_bytes), dims)
            .with_layers(layers)
            .with_decoder(decoder_bytes.min(weights_bytes))
            .on_card(true)
            .unpacking(if unpacks { UNPACKING_BYTES } else { 0 }),
    )
}

fn picture(needs: &Needs<'_>, host_bytes: u64) -> Ways {
    let Some(memory) = image_memory(needs) else {
        let least_bytes = needs.memory_bytes_min.max(weights_bytes(needs));
        return [Some((Runs::Well, least_bytes)), None, None];
    };
    let Some(image) = needs.image else { return [None; 3] };
    let guided = needs.arch != "flux";
    let peak_bytes = |residence: Residence, plan: Plan| {
        let beside = memory.picture(residence, [image.width, image.height], guided);
        memory.peak_bytes(residence, beside, plan)
    };
    let streams = (memory.host_bytes(Residence::Stream) <= host_bytes / 4 * HOST_QUARTERS)
        .then(|| (Runs::Slower(Slower::Streams), peak_bytes(Residence::Stream, Plan::LEAST)));
    [
        Some((Runs::Well, peak_bytes(Residence::Stay, Plan::default()))),
        Some((Runs::Slower(Slower::Pieces), peak_bytes(Residence::VisitAll, Plan::LEAST))),
        streams,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn card(gib: u64) -> DeviceMemory {
        DeviceMemory { total_bytes: gib * GIB, free_bytes: 0, is_cpu: false }
    }

    fn eight_billion() -> Needs<'static> {
        Needs {
            kind: JobKind::Text,
            arch: "llama",
            dtype: "bf16",
            size_bytes: 16_060_000_000,
            memory_bytes_min: 5_300_000_000,
            image: None,
        }
    }

    #[test]
    fn a_language_model_runs_then_runs_in_four_bits_then_not() {
        let runs = |gib| fit(&eight_billion(), card(gib), 32 * GIB).runs;
        assert_eq!(runs(24), Runs::Well);
        assert_eq!(runs(16), Runs::Slower(Slower::FourBit));
        assert_eq!(runs(8), Runs::Slower(Slower::FourBit));
        assert_eq!(runs(4), Runs::No);
        let no = fit(&eight_billion(), card(4), 32 * GIB);
        assert!(no.needed_bytes > 5_300_000_000 && no.available_bytes < 4 * GIB);
    }

    #[test]
    fn packed_weights_have_one_way() {
        let needs = Needs { dtype: "gptq-4bit", size_bytes: 24_000_000_000, ..eight_billion() };
        assert_eq!(fit(&needs, card(32), 32 * GIB).runs, Runs::Well);
        assert_eq!(fit(&needs, card(24), 32 * GIB).runs, Runs::No);
    }

    #[test]
    fn pictures_fit_as_a_whole_then_in_pieces_then_not() {
        let image = ImageDefaults {
            width: 1024,
            height: 1024,
            steps: 25,
            guidance: 5.0,
            negative_prompt: String::new(),
            side_multiple: 8,
            sampler: None,
        };
        let needs = Needs {
            kind: JobKind::Image,
            arch: "sdxl",
            dtype: "f16",
            size_bytes: 6_900_000_000,
            memory_bytes_min: 7_500_000_000,
            image: Some(&image),
        };
        assert_eq!(fit(&needs, card(16), 32 * GIB).runs, Runs::Well);
        let found: Vec<_> = (6..=12).map(|gib| fit(&needs, card(gib), 32 * GIB).runs).collect();
        assert!(found.contains(&Runs::Slower(Slower::Pieces)), "{found:?}");
        // Its 5 GB of layers lie in the machine's memory, if it has as much.
        let small = fit(&needs, card(4), 16 * GIB);
        assert_eq!(small.runs, Runs::Slower(Slower::Streams));
        assert!(small.needed_bytes < small.available_bytes);
        assert_eq!(fit(&needs, card(4), 6 * GIB).runs, Runs::No);
        assert_eq!(fit(&needs, card(1), 16 * GIB).runs, Runs::No);
    }

    #[test]
    fn a_card_holds_what_attends_and_what_is_unpacked() {
        let needs = |arch, dtype| Needs {
            kind: JobKind::Image,
            arch,
            dtype,
            size_bytes: 12_000_000_000,
            memory_bytes_min: 13_000_000_000,
            image: None,
        };
        for (arch, dtype, scratch_bytes) in
            [("flux", "nf4", UNPACKING_BYTES), ("flux", "bf16", 0), ("sdxl", "f16", 0)]
        {
            let memory = image_memory(&needs(arch, dtype)).expect("known");
            let card = memory.clone().on_card(true).unpacking(scratch_bytes);
            assert_eq!(memory, card, "{arch} {dtype}");
        }
        assert_eq!(image_memory(&needs("other", "f16")), None);
    }

    #[test]
    fn a_processor_runs_small_models_well_and_large_ones_slowly() {
        let cpu = DeviceMemory { total_bytes: 32 * GIB, free_bytes: 0, is_cpu: true };
        assert_eq!(fit(&eight_billion(), cpu, 32 * GIB).runs, Runs::Slower(Slower::Processor));
        let small = Needs { size_bytes: 98_000_000, memory_bytes_min: GIB, ..eight_billion() };
        assert_eq!(fit(&small, cpu, 32 * GIB).runs, Runs::Well);
    }
}
