//! What comes back from the device while a picture is made: nothing, unless a preview is asked for. Alone in
//! its process, whose reads are counted.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use burn::tensor::Device;
use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::ImageSource;
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::pipeline::{Decoding, Guidance};
use neurino_nn::device::downloads;

/// How often `work` reads tensors back.
fn reads(work: impl FnOnce()) -> u64 {
    let before = downloads();
    work();
    downloads() - before
}

#[test]
fn no_step_reads_anything_back() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let device = Device::flex();
    for folder in ["sd/sd15", "sd/sdxl", "flux"] {
        let source = ImageSource::open(&fixtures.join(folder)).unwrap();
        let mut pipeline = source.load(&Loading::quiet(&device, Precision::Stored)).unwrap();
        for preview in [false, true] {
            let model = ModelId::new("tiny").unwrap();
            let job = ImageJob::new(model, "a small red cat", 64);
            let job = ImageJob { steps: 3, guidance: 5.0, preview, ..job };
            let mut run = pipeline.begin(&job).unwrap();
            for guidance in [Guidance::Together, Guidance::InTurn, Guidance::Together] {
                run.set_guidance(guidance);
                let of_step = reads(|| run.step().unwrap());
                assert_eq!(of_step, 0, "{folder}, step {} {guidance:?}", run.done());
            }
            assert_eq!((run.done(), run.computed()), (3, 3));
            // What does read is counted.
            assert_eq!(reads(|| drop(run.latents().unwrap())), 1, "{folder}");
            assert!(reads(|| drop(run.preview().unwrap())) > 0, "{folder}");
            assert_eq!(reads(|| drop(run.finish(Decoding::Whole).unwrap())), 1, "{folder}");
        }
    }
}
