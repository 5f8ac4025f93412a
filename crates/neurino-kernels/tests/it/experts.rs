//! Experts: who is chosen, and what the chosen ones make of a row.

use half::f16;
use neurino_kernels::buffer::Buffer;
use neurino_kernels::experts::{Routes, combine, route};
use neurino_kernels::format::Format;
use neurino_kernels::gpu::Gpu;
use neurino_kernels::matvec::Matrix;
use neurino_kernels::product;

use crate::matvec::packed;
use crate::support::{assert_close, floats, gpu, noise};

/// What was decided, as the device wrote it.
struct Decided {
    of: Routes,
    words: Vec<u32>,
}

impl Decided {
    fn list(&self, expert: usize) -> &[u32] {
        let first = self.of.experts + expert * self.of.rows;
        &self.words[first..first + self.words[expert] as usize]
    }

    fn chosen(&self, row: usize) -> &[u32] {
        &self.words[self.of.chosen() + row * self.of.per_row..][..self.of.per_row]
    }

    fn weights(&self, row: usize) -> Vec<f32> {
        let weights = &self.words[self.of.weights() + row * self.of.per_row..][..self.of.per_row];
        weights.iter().map(|bits| f32::from_bits(*bits)).collect()
    }
}

fn decide(gpu: &Gpu, of: Routes, scores: &[f32]) -> (Decided, Buffer) {
    let routes = Buffer::upload(&gpu.client, &vec![u32::MAX; of.len()]);
    route(gpu, of, &Buffer::upload(&gpu.client, scores), &routes).unwrap();
    let bytes = routes.download(&gpu.client).unwrap();
    let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    (Decided { of, words }, routes)
}

/// The oracle: softmax, the best, renormalised, in the order of their numbers.
fn best(scores: &[f32], count: usize) -> Vec<(u32, f32)> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = scores.iter().map(|s| f64::from(s - largest).exp()).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| shares[*b].total_cmp(&shares[*a]));
    order.truncate(count);
    let kept: f64 = order.iter().map(|expert| shares[*expert]).sum();
    order.sort_unstable();
    order.iter().map(|expert| (*expert as u32, (shares[*expert] / kept) as f32)).collect()
}

#[test]
fn each_row_gets_its_best_experts_and_each_expert_its_rows() {
    let gpu = gpu();
    for (rows, experts, per_row) in [(1, 8, 2), (37, 8, 2), (5, 3, 3), (9, 1, 1), (130, 4, 1)] {
        let of = Routes { rows, experts, per_row };
        let mut scores = noise(3, rows * experts).iter().map(|x| x * 4.0).collect::<Vec<_>>();
        // Equals: the lower numbers win.
        scores[..experts].fill(1.5);
        let (found, _) = decide(&gpu, of, &scores);
        let mut expected = vec![Vec::new(); experts];
        for (row, scores) in scores.chunks(experts).enumerate() {
            let best = best(scores, per_row);
            let (numbers, weights): (Vec<u32>, Vec<f32>) = best.into_iter().unzip();
            assert_eq!(found.chosen(row), numbers, "row {row} of {of:?}");
            assert_close("weights", &found.weights(row), &weights, 1e-6);
            for (choice, expert) in numbers.into_iter().enumerate() {
                expected[expert as usize].push((row * per_row + choice) as u32);
            }
            // To the last bit what it is alone.
            if row % 31 == 0 {
                let (alone, _) = decide(&gpu, Routes { rows: 1, ..of }, scores);
                assert_eq!(alone.weights(0), found.weights(row));
            }
        }
        for (expert, pairs) in expected.iter().enumerate() {
            assert_eq!(found.list(expert), pairs, "expert {expert} of {of:?}");
        }
    }
}

#[test]
fn scores_that_are_no_numbers_choose_experts_that_there_are() {
    let gpu = gpu();
    let of = Routes { rows: 2, experts: 4, per_row: 2 };
    let (found, _) = decide(&gpu, of, &[f32::NAN, 1.0, f32::NAN, 0.0, 0.0, 1.0, 2.0, 3.0]);
    assert!(found.chosen(0).iter().all(|expert| *expert < 4));
    assert_ne!(found.chosen(0)[0], found.chosen(0)[1]);
    assert_eq!(found.chosen(1), [2, 3]);
    assert!(Routes { per_row: 5, ..of }.check().is_err());
    assert!(Routes { experts: 65, ..of }.check().is_err());
}

/// All experts' products of a step whose rows have these scores.
fn products(gpu: &Gpu, of: Routes, scores: &[f32], experts: &[Matrix], x: &[f32]) -> Vec<f32> {
    let (_, routes) = decide(gpu, of, scores);
    let (out, inner) = (experts[0].out(), experts[0].inner());
    let x = Buffer::upload(&gpu.client, x);
    assert_eq!(x.len(), of.rows * inner);
    let y = Buffer::upload(&gpu.client, &vec![f32::NAN; of.pairs() * out]);
    for (number, expert) in experts.iter().enumerate() {
        let list = of.list_of(&routes, number);
        product::multiply_listed(gpu, expert, [&x, &y], &list, of.per_row, of.rows).unwrap();
    }
    let sum = Buffer::upload(&gpu.client, &vec![f32::NAN; of.rows * out]);
    combine(gpu, of, &y, &routes, &sum).unwrap();
    floats(gpu, &sum)
}

#[test]
fn a_row_gets_what_its_experts_make_of_it_whatever_rows_there_are() {
    let gpu = gpu();
    let [out, inner] = [21, 96];
    let (dense, packed): (Vec<Matrix>, Vec<Matrix>) = (0..4)
        .map(|expert| {
            let weights = noise(40 + expert, out * inner);
            let halves: Vec<f16> = weights.iter().map(|w| f16::from_f32(*w)).collect();
            let dense = Matrix::f16(Buffer::upload(&gpu.client, &halves), out, inner).unwrap();
            let packed = packed(Format::Q4Zero, [out, inner, 32], 50 + expert);
            (dense, Matrix::upload(&gpu, &packed))
        })
        .unzip();
    let of = Routes { rows: 150, experts: 4, per_row: 2 };
    let scores: Vec<f32> = noise(8, of.rows * of.experts).iter().map(|x| x * 3.0).collect();
    let x = noise(9, of.rows * inner);
    for experts in [&dense, &packed] {
        let all = products(&gpu, of, &scores, experts, &x);
        for rows in [1, 10, 40, 70] {
            let from = (of.rows - rows) / 2;
            let some = products(
                &gpu,
                Routes { rows, ..of },
                &scores[from * of.experts..(from + rows) * of.experts],
                experts,
                &x[from * inner..(from + rows) * inner],
            );
            assert_eq!(some, all[from * out..(from + rows) * out], "{rows} rows");
        }
        // One row after the other, by its experts' whole products.
        for row in [0, 77, 149] {
            let x = &x[row * inner..(row + 1) * inner];
            let mut expect = vec![0.0; out];
            for (expert, weight) in best(&scores[row * of.experts..][..of.experts], of.per_row) {
                let y = Buffer::upload(&gpu.client, &vec![f32::NAN; out]);
                let x = Buffer::upload(&gpu.client, x);
                product::multiply(&gpu, &experts[expert as usize], &x, &y, 1).unwrap();
                for (sum, part) in expect.iter_mut().zip(floats(&gpu, &y)) {
                    *sum += weight * part;
                }
            }
            assert_close("a row", &all[row * out..(row + 1) * out], &expect, 1e-5);
        }
    }
}
