//! Passes over a whole row of logits: the largest, the best few, exponentials and their sums.
//!
//! All are written so that the compiler makes vector instructions of them, and use additions and
//! multiplications alone: they give the same bits on every machine.

/// Numbers that one vector operation treats alike.
const LANES: usize = 16;
/// Weights under one sum.
pub(crate) const SPAN: usize = 128;

/// The largest logit. `None` if one is not a number or the largest is infinite: a broken model must
/// not look like an answer.
pub(crate) fn highest(logits: &[f32]) -> Option<f32> {
    let (lanes, rest) = logits.as_chunks::<LANES>();
    let mut best = [f32::NEG_INFINITY; LANES];
    // As numbers, so that they stay in vectors.
    let mut broken = [0.0_f32; LANES];
    for values in lanes {
        for lane in 0..LANES {
            best[lane] = larger(values[lane], best[lane]);
            broken[lane] = if values[lane].is_nan() { 1.0 } else { broken[lane] };
        }
    }
    let best = best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
    let broken = broken.contains(&1.0) || rest.iter().any(|x| x.is_nan());
    (!broken && best.is_finite()).then_some(best)
}

fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Hands over every value of at least `floor`, with its index. Fast where they are few.
pub(crate) fn at_least(values: &[f32], floor: f32, mut take: impl FnMut(u32, f32)) {
    for (chunk, first) in values.chunks(2 * LANES).zip((0_u32..).step_by(2 * LANES)) {
        if chunk.iter().copied().fold(f32::NEG_INFINITY, larger) < floor {
            continue;
        }
        for (index, &value) in (first..).zip(chunk) {
            if value >= floor {
                take(index, value);
            }
        }
    }
}

/// The `count` best tokens with their logits, best first; of equal ones the lower id.
pub(crate) fn best(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut found: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    if count == 0 {
        return found;
    }
    let mut floor = f32::NEG_INFINITY;
    for (chunk, first) in logits.chunks(LANES).zip((0_u32..).step_by(LANES)) {
        let best = chunk.iter().copied().fold(f32::NEG_INFINITY, larger);
        if found.len() == count && best <= floor {
            continue;
        }
        for (id, &logit) in (first..).zip(chunk) {
            if found.len() == count && logit <= floor {
                continue;
            }
            let at = found.partition_point(|(_, other)| *other >= logit);
            found.insert(at, (id, logit));
            found.truncate(count);
            floor = found[found.len() - 1].1;
        }
    }
    found
}

/// e^x for x of at most 0, within 2 units of the last place; 0 below -87.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let inside = larger(x, -87.0);
    let shifted = inside * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = inside - n * LN_2_HIGH - n * LN_2_LOW;
    // Cephes' expf.
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + c;
    }
    let fraction = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let power = f32::from_bits(exponent << 23);
    if x < -87.0 { 0.0 } else { fraction * power }
}

/// Writes e^((logit - highest) / temperature) for each logit; returns the sum. `sums` gets those of
/// each [`SPAN`] weights.
pub(crate) fn weigh(
    logits: &[f32],
    highest: f32,
    temperature: f32,
    weights: &mut Vec<f32>,
    sums: &mut Vec<f64>,
) -> f64 {
    weights.resize(logits.len(), 0.0);
    sums.clear();
    for (logits, weights) in logits.chunks(SPAN).zip(weights.chunks_mut(SPAN)) {
        for (weight, &logit) in weights.iter_mut().zip(logits) {
            *weight = exp((logit - highest) / temperature);
        }
        sums.push(sum(weights));
    }
    sums.iter().sum()
}

/// ln of the sum of e^(logit - highest).
pub(crate) fn log_sum(logits: &[f32], highest: f32) -> f64 {
    let mut weights = [0.0; SPAN];
    let mut total = 0.0;
    for logits in logits.chunks(SPAN) {
        let weights = &mut weights[..logits.len()];
        for (weight, &logit) in weights.iter_mut().zip(logits) {
            *weight = exp(logit - highest);
        }
        total += sum(weights);
    }
    total.ln()
}

/// The sum of at most [`SPAN`] weights.
fn sum(weights: &[f32]) -> f64 {
    let (lanes, rest) = weights.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for values in lanes {
        for lane in 0..LANES {
            sums[lane] += values[lane];
        }
    }
    sums.iter().chain(rest).map(|&x| f64::from(x)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without an order.
    fn noise(count: u32) -> Vec<f32> {
        (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 9.0).collect()
    }

    #[test]
    fn exponentials_are_right_to_the_last_places() {
        for step in 0..870_000 {
            let x = -f64::from(step) * 1e-4;
            let (found, expected) = (f64::from(exp(x as f32)), f64::from(x as f32).exp());
            assert!((found / expected - 1.0).abs() < 2.4e-7, "e^{x}: {found} {expected}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn the_best_are_those_of_a_full_sort() {
        for (length, count) in [(1, 1), (15, 3), (1000, 20), (4099, 256), (7, 20)] {
            let mut logits = noise(length);
            logits[(length / 2) as usize] = logits[0];
            let mut sorted: Vec<_> = (0..).zip(logits.iter().copied()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(count);
            assert_eq!(best(&logits, count), sorted, "{count} of {length}");
            assert_eq!(highest(&logits), Some(sorted[0].1));
        }
        assert_eq!(best(&[f32::NEG_INFINITY, 1.0], 2), [(1, 1.0), (0, f32::NEG_INFINITY)]);
        assert!(best(&[1.0], 0).is_empty());
    }

    #[test]
    fn those_above_a_floor_are_found_in_order() {
        let values = noise(1003);
        for floor in [f32::NEG_INFINITY, -5.0, 7.5, 99.0] {
            let mut found = Vec::new();
            at_least(&values, floor, |index, value| found.push((index, value)));
            let expected = (0..).zip(values.iter().copied()).filter(|(_, value)| *value >= floor);
            assert!(found.into_iter().eq(expected), "from {floor}");
        }
    }

    #[test]
    fn broken_rows_have_no_highest() {
        for place in [0, 17, 35] {
            let mut logits = noise(36);
            logits[place] = f32::NAN;
            assert_eq!(highest(&logits), None);
            logits[place] = f32::INFINITY;
            assert_eq!(highest(&logits), None);
            logits[place] = f32::NEG_INFINITY;
            assert!(highest(&logits).is_some());
        }
        assert_eq!(highest(&[]), None);
        assert_eq!(highest(&[f32::NEG_INFINITY; 40]), None);
    }

    #[test]
    fn sums_agree_with_double_precision() {
        let logits = noise(10_007);
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let expected: f64 = logits.iter().map(|&x| (f64::from(x) - f64::from(top)).exp()).sum();
        assert!((log_sum(&logits, top) - expected.ln()).abs() < 1e-6);
        let (mut weights, mut sums) = (vec![], vec![]);
        let total = weigh(&logits, top, 1.0, &mut weights, &mut sums);
        assert!((total / expected - 1.0).abs() < 1e-6);
        assert_eq!((weights.len(), sums.len()), (10_007, 10_007_usize.div_ceil(SPAN)));
    }
}
