//! The exponential.

use cubecl::prelude::*;
use neurino_kernels::math::{exp, ln, silu};

use crate::support::client;

#[cube(launch)]
fn both(x: &[f32], y: &mut [f32], z: &mut [f32]) {
    if ABSOLUTE_POS < x.len() {
        y[ABSOLUTE_POS] = exp(x[ABSOLUTE_POS]);
        z[ABSOLUTE_POS] = silu(x[ABSOLUTE_POS]);
    }
}

#[test]
fn exp_and_silu_agree_with_the_standard_library() {
    let client = client();
    let mut x: Vec<f32> = (-8_800..8_800).map(|i| i as f32 * 0.01).collect();
    x.extend([-1e30, f32::NEG_INFINITY, -0.0, 1e-20, 88.0]);
    let memory = [f32::as_bytes(&x); 3].map(|bytes| client.create_from_slice(bytes));
    #[expect(unsafe_code, reason = "a kernel's argument is a raw range of device memory")]
    // SAFETY: each buffer was just made with this many values.
    let [input, y, z] =
        memory.clone().map(|handle| unsafe { BufferArg::from_raw_parts(handle, x.len()) });
    let cubes = CubeCount::Static(x.len().div_ceil(32) as u32, 1, 1);
    both::launch(&client, cubes, CubeDim::new_1d(32), input, y, z);
    let [_, y, z] = memory.map(|handle| client.read_one(handle).unwrap());
    for (x, (y, z)) in x.iter().zip(f32::from_bytes(&y).iter().zip(f32::from_bytes(&z))) {
        let expect = if *x < -87.0 { 0.0 } else { x.exp() };
        assert!((y - expect).abs() <= 2.5e-7 * expect, "e^{x} is {y} instead of {expect}");
        let expect = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
        let in_range = x.abs() < 1e4;
        let close = (f64::from(*z) - expect).abs() <= 1e-6 * expect.abs() + 1e-30;
        assert!(close || !in_range, "silu({x}) is {z} instead of {expect}");
    }
}

#[cube(launch)]
fn logarithm(x: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < x.len() {
        y[ABSOLUTE_POS] = ln(x[ABSOLUTE_POS]);
    }
}

#[test]
fn ln_agrees_with_the_standard_library() {
    let client = client();
    let x: Vec<f32> = (-870..880).map(|i| (i as f32 * 0.1).exp()).chain([1.0, 1.5]).collect();
    let memory = [client.create_from_slice(f32::as_bytes(&x)), client.empty(4 * x.len())];
    #[expect(unsafe_code, reason = "a kernel's argument is a raw range of device memory")]
    // SAFETY: each buffer was just made with this many values.
    let [input, y] =
        memory.clone().map(|handle| unsafe { BufferArg::from_raw_parts(handle, x.len()) });
    let cubes = CubeCount::Static(x.len().div_ceil(32) as u32, 1, 1);
    logarithm::launch(&client, cubes, CubeDim::new_1d(32), input, y);
    let found = client.read_one(memory[1].clone()).unwrap();
    for (x, found) in x.iter().zip(f32::from_bytes(&found)) {
        let error = (f64::from(*found) - f64::from(*x).ln()).abs();
        assert!(error <= 3e-7 * f64::from(*x).ln().abs().max(1.0), "ln {x} is {found}");
    }
}
