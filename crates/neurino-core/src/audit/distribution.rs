//! Whether two machines draw their texts from one distribution: a test for engines whose random numbers
//! and tokens nobody else can repeat.
//!
//! Several texts of each machine for each of several prompts are compared by the maximum mean
//! discrepancy with a Hamming kernel: the share of places at which two texts have the same symbol. Texts
//! of different prompts are never compared, and what chance would do is found by exchanging the machines'
//! texts within each prompt. Source: Model Equality Testing, arXiv 2410.20247.
//!
//! It says that distributions differ, not why: another build, another template and another system prompt
//! differ, too. So it is evidence for whoever looks into a machine, and convicts nobody alone.

use serde::Serialize;

/// What two machines wrote for one prompt, as symbols: characters or tokens.
#[derive(Debug, Clone, Default)]
pub struct PromptSamples {
    /// Of the first.
    pub first: Vec<Vec<u32>>,
    /// Of the second.
    pub second: Vec<Vec<u32>>,
}

/// Symbols of a text that are compared.
pub const SYMBOLS_MAX: usize = 1000;
/// Fewest texts of each machine for a prompt that is looked at.
pub const SAMPLES_MIN: usize = 2;

/// What the test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DistributionTest {
    /// Prompts with enough texts.
    pub prompts: usize,
    /// Mean squared discrepancy over prompts; about 0 of one distribution, at most 2.
    pub mmd2: f64,
    /// Share of exchanges that lie as far apart, the true one counted: small if the distributions differ.
    pub p_value: f64,
}

/// Tests whether both machines write alike; none without a prompt that has [`SAMPLES_MIN`] texts of each.
/// `below(n)` gives a random number below `n`, which is at least 1; `exchanges` is how often chance is
/// asked, and bounds how small a p-value can be.
pub fn test(
    samples: &[PromptSamples],
    exchanges: u32,
    mut below: impl FnMut(usize) -> usize,
) -> Option<DistributionTest> {
    let enough = |s: &&PromptSamples| s.first.len() >= SAMPLES_MIN && s.second.len() >= SAMPLES_MIN;
    let prompts: Vec<Kernel> = samples.iter().filter(enough).map(Kernel::of).collect();
    if prompts.is_empty() {
        return None;
    }
    let mean = |places: &[Vec<usize>]| {
        let all = prompts.iter().zip(places).map(|(kernel, order)| kernel.mmd2(order));
        all.sum::<f64>() / prompts.len() as f64
    };
    let mut places: Vec<Vec<usize>> = prompts.iter().map(|p| (0..p.count).collect()).collect();
    let mmd2 = mean(&places);
    let mut as_far = 0_u32;
    for _ in 0..exchanges {
        for order in &mut places {
            for at in (1..order.len()).rev() {
                order.swap(at, below(at + 1));
            }
        }
        // Sums in another order may round differently.
        as_far += u32::from(mean(&places) >= mmd2 - 1e-12);
    }
    let p_value = f64::from(as_far + 1) / (f64::from(exchanges) + 1.0);
    Some(DistributionTest { prompts: prompts.len(), mmd2, p_value })
}

/// How alike the texts of a prompt are, two by two.
struct Kernel {
    count: usize,
    of_first: usize,
    /// `[count, count]`, symmetric.
    alike: Vec<f64>,
}

impl Kernel {
    fn of(samples: &PromptSamples) -> Self {
        let all: Vec<&[u32]> =
            samples.first.iter().chain(&samples.second).map(|t| &t[..]).collect();
        let count = all.len();
        let mut alike = vec![1.0; count * count];
        for (at, a) in all.iter().enumerate() {
            for (other, b) in all.iter().enumerate().skip(at + 1) {
                let same = likeness(a, b);
                alike[at * count + other] = same;
                alike[other * count + at] = same;
            }
        }
        Self { count, of_first: samples.first.len(), alike }
    }

    /// The unbiased squared discrepancy, with texts in this order: the first machine's first.
    fn mmd2(&self, order: &[usize]) -> f64 {
        let (a, b) = order.split_at(self.of_first);
        let sum = |x: &[usize], y: &[usize]| -> f64 {
            x.iter().flat_map(|i| y.iter().map(move |j| self.alike[i * self.count + j])).sum()
        };
        let (n, m) = (a.len() as f64, b.len() as f64);
        // A text is as alike to itself as can be; that is left out.
        (sum(a, a) - n) / (n * (n - 1.0)) + (sum(b, b) - m) / (m * (m - 1.0))
            - 2.0 * sum(a, b) / (n * m)
    }
}

/// Share of places at which two texts have the same symbol; a text that is over has none.
pub(super) fn likeness(a: &[u32], b: &[u32]) -> f64 {
    let (a, b) = (&a[..a.len().min(SYMBOLS_MAX)], &b[..b.len().min(SYMBOLS_MAX)]);
    let places = a.len().max(b.len());
    if places == 0 {
        return 1.0;
    }
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / places as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::bounds::MeasuredShare;

    /// A small generator, so that a failing run repeats.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % n
        }

        /// Texts of a chain whose next symbol depends on the last one; of a hundred symbols, `noise` are
        /// any.
        fn text(&mut self, prompt: u32, model: u32, noise: usize) -> Vec<u32> {
            let mut text: Vec<u32> = vec![prompt];
            for at in 1..60 {
                let last = text[at - 1];
                let usual = (last * 7 + prompt + model * (at as u32 % 5 / 4)) % 16;
                let any = self.below(100) < noise;
                text.push(if any { self.below(16) as u32 } else { usual });
            }
            text
        }
    }

    /// How often 100 tests of two machines find at 1 % that they differ.
    fn found(model: u32, noise: usize) -> MeasuredShare {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut hits = 0;
        for _ in 0..100 {
            let samples: Vec<PromptSamples> = (0..10)
                .map(|prompt| PromptSamples {
                    first: (0..6).map(|_| dice.text(prompt, 0, 3)).collect(),
                    second: (0..6).map(|_| dice.text(prompt, model, noise)).collect(),
                })
                .collect();
            let tested = test(&samples, 199, |n| dice.below(n)).expect("enough texts");
            hits += u32::from(tested.p_value <= 0.01);
        }
        MeasuredShare::of(hits, 100, 0.95)
    }

    #[test]
    fn one_distribution_is_hardly_ever_told_apart_and_another_model_always() {
        let honest = found(0, 3);
        assert!(honest.low <= 0.01, "of one distribution: {honest:?}");
        let cheat = found(1, 3);
        assert_eq!(cheat.hits, 100, "another model: {cheat:?}");
        let noisy = found(0, 12);
        assert!(noisy.share > 0.9, "much noise: {noisy:?}");
    }

    #[test]
    fn texts_of_different_prompts_are_never_compared() {
        // Each prompt has one answer; between prompts everything differs.
        let one =
            |n: u32| PromptSamples { first: vec![vec![n; 9]; 4], second: vec![vec![n; 9]; 4] };
        let mut dice = Dice(5);
        let tested = test(&[one(1), one(2), one(3)], 99, |n| dice.below(n)).expect("enough");
        assert_eq!((tested.prompts, tested.p_value), (3, 1.0));
        assert!(tested.mmd2.abs() < 1e-9);
    }

    #[test]
    fn too_few_texts_say_nothing() {
        let few = PromptSamples { first: vec![vec![1]; 5], second: vec![vec![2]] };
        assert_eq!(test(&[few], 99, |_| 0), None);
        assert_eq!(test(&[], 99, |_| 0), None);
    }

    #[test]
    fn texts_are_alike_by_their_places() {
        for (a, b, expected) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], 1.0),
            (&[1, 2, 3], &[1, 5, 3], 2.0 / 3.0),
            (&[1, 2, 3, 4], &[1, 2], 0.5),
            (&[], &[], 1.0),
            (&[], &[1], 0.0),
        ] {
            assert!((likeness(a, b) - expected).abs() < 1e-12, "{a:?} {b:?}");
        }
        let long = vec![1; SYMBOLS_MAX + 500];
        assert!((likeness(&long, &long[..SYMBOLS_MAX]) - 1.0).abs() < 1e-12);
    }
}
