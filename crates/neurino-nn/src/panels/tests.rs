//! The product on every instruction set, in any company.

use burn::tensor::{DType, Device};

use super::*;
use crate::conv::Padding;
use crate::device::{in_memory, upload};

fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * seed).sin()).collect()
}

#[test]
fn every_instruction_set_and_number_of_threads() {
    let (out, channels, taps) = (70, 37, 9);
    let geometry = Geometry::new([2, 7, 9, channels], [3, 3], 2, Padding::same(1));
    let x = values(2 * 7 * 9 * channels, 0.37);
    let bias = values(out, 0.9);
    let weight =
        upload::<4>(values(out * channels * taps, 0.61), [out, channels, 3, 3], &Device::flex());
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let weight = weight.clone().cast(dtype);
        let kept = in_memory(weight.clone());
        let matrix = PanelMatrix::of_convolution(weight);
        for isa in Isa::available() {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.expect("threads").install(|| matrix.multiply(&x, &geometry, Some(&bias), isa))
            };
            let found = run(1);
            assert_eq!(found.len(), 2 * 4 * 5 * out);
            for threads in 2..5 {
                assert!(run(threads) == found, "{isa:?} {threads} threads");
            }
            // The pixel in row 1 and column 2 of the second picture, whose surroundings are whole.
            for feature in 0..out {
                let mut expect = f64::from(bias[feature]);
                for tap in 0..taps {
                    for channel in 0..channels {
                        let pixel = (7 + 1 + tap / 3) * 9 + 3 + tap % 3;
                        let w = kept[(feature * channels + channel) * taps + tap];
                        expect += f64::from(x[pixel * channels + channel]) * f64::from(w);
                    }
                }
                let found = found[((4 + 1) * 5 + 2) * out + feature];
                assert!((f64::from(found) - expect).abs() < 1e-4, "{dtype:?} {isa:?} {feature}");
            }
        }
    }
}

#[test]
fn blocks_cover_all_inputs_once() {
    for (channels, limit) in [(4, 320), (320, 320), (500, 320), (1, 7), (9, 2)] {
        let geometry = Geometry::new([1, 5, 5, channels], [3, 3], 1, Padding::same(1));
        let blocks = geometry.blocks(limit);
        let mut next = 0;
        for block in &blocks {
            assert_eq!(block.inputs.start, next);
            let count: usize = block.segments.iter().map(|segment| segment.channels.len()).sum();
            assert_eq!(block.inputs.len(), count);
            assert!(count <= limit.max(1), "{count} {limit}");
            next = block.inputs.end;
        }
        assert_eq!(next, 9 * channels);
    }
}
