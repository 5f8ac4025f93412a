//! Every instruction set against plain arithmetic.
#![expect(clippy::float_cmp, reason = "equal means the same bits")]
#![expect(clippy::inline_always, reason = "see the parent module")]

use half::f16;

use super::*;

struct All {
    a: [f32; LANES],
    b: [f32; LANES],
    bytes: [u8; 2 * LANES],
}

/// What the operations of one set return: exact ones, then those that may round differently.
type Found = (Vec<[f32; LANES]>, Vec<[f32; LANES]>);

impl Kernel for All {
    type Output = Found;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Found {
        let out = |x: S::F| {
            let mut out = [0.0; LANES];
            s.store(x, &mut out);
            out
        };
        let (a, b) = (s.load(&self.a), s.load(&self.b));
        let halves = self.a.map(|x| f16::from_f32(x).to_bits());
        let bf16 = self.a.map(|x| half::bf16::from_f32(x).to_bits());
        let (low, _) = self.bytes.split_first_chunk::<LANES>().expect("twice as long");
        let words = s.widen_i8(&self.bytes);
        let nibbles = s.sub_words(s.and(s.shr(s.widen_u8(&self.bytes), 4), 15), 9);
        let nibbles = s.or(s.shl(nibbles, 2), s.and(s.widen_u8(&self.bytes), 1));
        let pair = (-300i32 << 16) + 17;
        let dots = [words, nibbles].map(|w| out(s.to_f32(s.dot(s.splat_i32(-5), w, pair))));
        let exact = vec![
            out(s.add(a, b)),
            out(s.sub(a, b)),
            out(s.mul(a, b)),
            out(s.div(a, b)),
            out(s.max(a, b)),
            out(s.min(a, b)),
            out(s.round(s.mul(a, s.splat(7.3)))),
            out(s.scale(a, s.round(b))),
            out(s.select(0b1010_0000_1111_0001, a, b)),
            out(s.load_f16(&halves)),
            out(s.load_bf16(&bf16)),
            out(s.load_i8(low)),
            out(s.load_u8(low)),
            out(s.splat(s.sum(a))),
            out(s.splat(s.largest(a))),
            dots[0],
            dots[1],
            out(s.lookup(a, &low.map(|byte| byte & 15))),
        ];
        let exponents = s.mul(a, s.splat(10.0));
        (exact, vec![out(s.fma(a, b, a)), out(s.exp(exponents)), out(s.exp(s.splat(-1e30)))])
    }
}

#[test]
fn every_set_computes_the_same() {
    let a: [f32; LANES] = std::array::from_fn(|i| ((i * 7 % 16) as f32 - 8.3) * 0.91);
    let b: [f32; LANES] = std::array::from_fn(|i| ((i * 5 % 16) as f32 - 6.6) * 1.37);
    let bytes = std::array::from_fn(|i| (i * 73 % 256) as u8);
    let (plain, rounded) = Isa::Portable(Portable).run(All { a, b, bytes });

    assert_eq!(plain[9], a.map(|x| f16::from_f32(x).to_f32()));
    assert_eq!(plain[6], a.map(|x| (x * 7.3).round_ties_even()));
    assert_eq!(plain[17], std::array::from_fn(|i| a[usize::from(bytes[i] & 15)]));
    assert!((plain[13][0] - a.iter().sum::<f32>()).abs() < 1e-4);
    let lane3 = -5.0 + f32::from(bytes[6] as i8) * 17.0 - f32::from(bytes[7] as i8) * 300.0;
    assert_eq!(plain[15][3], lane3);
    for (found, x) in rounded[1].iter().zip(a) {
        let expect = f64::from(10.0 * x).exp() as f32;
        assert!((found - expect).abs() <= 3e-7 * expect, "exp({x}): {found} {expect}");
    }
    assert!(rounded[2][0] < 1e-37, "exp of a very small number is nothing");

    for isa in Isa::available() {
        let (exact, close) = isa.run(All { a, b, bytes });
        assert_eq!(exact, plain, "{isa:?}");
        for (found, expect) in close.iter().flatten().zip(rounded.iter().flatten()) {
            assert!(
                (found - expect).abs() <= 1e-5 * expect.abs().max(1e-3),
                "{isa:?} {found} {expect}"
            );
        }
    }
}
