//! What share of a card's read bandwidth each kernel reaches, at the sizes of Llama-3-8B.
//!
//! `NEURINO_TEST_DEVICE=cuda cargo run --release -p neurino-kernels --features cpu-runtime,cuda-runtime
//! --example bandwidth` (`cargo xtask gpu-check` does so). Without the variable it runs on CubeCL's CPU
//! runtime, with small sizes, where its figures mean nothing but that it works.
#![expect(clippy::print_stdout, reason = "prints its measurements")]

use std::time::Instant;

use cubecl::Device;
use cubecl::prelude::*;
use half::f16;
use neurino_kernels::attention::{Attention, Rows, Scratch};
use neurino_kernels::buffer::Buffer;
use neurino_kernels::format::{Format, Packed};
use neurino_kernels::gpu::Gpu;
use neurino_kernels::matvec::Matrix;
use neurino_kernels::norm::add_rms_norm;
use neurino_kernels::product;
use neurino_kernels::rope::{BLOCK_TOKENS, Heads, LayerCache};
use neurino_kernels::sample::{Batch, CHOICE, ENTRY, PARAMS, sample};

/// Launches of one measurement; the best of [`ROUNDS`] counts.
const LAUNCHES: usize = 50;
const ROUNDS: usize = 5;

#[cube(launch)]
fn read_kernel(input: &[Vector<u32, Const<4>>], out: &mut [u32], steps: u32) {
    let stride = CUBE_COUNT * CUBE_DIM as usize;
    let mut sum = Vector::<u32, Const<4>>::new(0u32);
    for step in 0..steps as usize {
        sum ^= input[step * stride + ABSOLUTE_POS];
    }
    let folded =
        sum.extract(0usize) ^ sum.extract(1usize) ^ sum.extract(2usize) ^ sum.extract(3usize);
    out[ABSOLUTE_POS] = folded;
}

struct Bench {
    gpu: Gpu,
    /// Bytes a second of a kernel that only reads.
    ceiling: f64,
    /// Whether this is a card; otherwise one launch is enough.
    card: bool,
}

impl Bench {
    /// Seconds of one launch.
    fn time(&self, launch: impl Fn(usize)) -> f64 {
        let wait = || cubecl::future::block_on(self.gpu.client.sync()).expect("the device answers");
        launch(0);
        wait();
        let (rounds, launches) = if self.card { (ROUNDS, LAUNCHES) } else { (1, 1) };
        let round = |_| {
            let start = Instant::now();
            (0..launches).for_each(&launch);
            wait();
            start.elapsed().as_secs_f64() / launches as f64
        };
        (0..rounds).map(round).fold(f64::INFINITY, f64::min)
    }

    fn report(&self, name: &str, bytes: usize, seconds: f64) {
        let rate = bytes as f64 / seconds;
        let share = 100.0 * rate / self.ceiling;
        println!("{name:44} {:9.1} us {:8.1} GB/s {share:5.1} %", seconds * 1e6, rate / 1e9);
    }
}

fn device() -> (Gpu, bool) {
    #[cfg(feature = "cuda-runtime")]
    if std::env::var("NEURINO_TEST_DEVICE").is_ok_and(|device| device == "cuda") {
        return (Gpu::new(Device::Cuda(cubecl::cuda::CudaDevice::default()).client()), true);
    }
    (Gpu::new(Device::Cpu(cubecl::cpu::CpuDevice).client()), false)
}

/// Measures a kernel that reads far more than any cache holds and writes next to nothing.
fn ceiling(bench: &Bench) -> f64 {
    let (units, steps) = if bench.card { (1 << 18, 512) } else { (1 << 8, 16) };
    let values = units * steps * 4;
    let input = bench.gpu.client.empty(values * 4);
    let out = bench.gpu.client.empty(units * 4);
    let seconds = bench.time(|_| {
        // SAFETY: both buffers were made with these lengths.
        #[expect(unsafe_code, reason = "a kernel's argument is a raw range of device memory")]
        let (input, out) = unsafe {
            let input = BufferArg::from_raw_parts(input.clone(), values / 4);
            (input, BufferArg::from_raw_parts(out.clone(), units))
        };
        let cubes = CubeCount::Static((units / 256) as u32, 1, 1);
        // One unit a cube where units are threads.
        let (cubes, dim) = if bench.card {
            (cubes, CubeDim::new_1d(256))
        } else {
            (CubeCount::Static(units as u32, 1, 1), CubeDim::new_1d(1))
        };
        read_kernel::launch(&bench.gpu.client, cubes, dim, input, out, steps as u32);
    });
    (values * 4) as f64 / seconds
}

fn products(bench: &Bench) {
    let (out, inner) = if bench.card { (14336, 4096) } else { (64, 64) };
    let client = &bench.gpu.client;
    // Several copies, so that a launch never finds its weights in the cache.
    let copies = if bench.card { 8 } else { 1 };
    let quants = vec![3_i8; out * inner];
    for format in [Format::Q4, Format::Q4Offset, Format::Q4Zero, Format::Q8] {
        let groups = out * inner / 32;
        let offsets = if format.has_offsets() { vec![f16::ONE; groups] } else { Vec::new() };
        let packed =
            Packed::new(format, [out, inner, 32], &quants, vec![f16::ONE; groups], offsets);
        let matrices: Vec<Matrix> =
            (0..copies).map(|_| Matrix::upload(&bench.gpu, &packed)).collect();
        let name = format!("{format:?}");
        multiply(bench, &matrices, &name, packed.size_bytes());
    }
    let zeros = vec![f16::ZERO; out * inner];
    let matrix = |_| Matrix::f16(Buffer::upload(client, &zeros), out, inner).expect("a kernel");
    let matrices: Vec<Matrix> = (0..copies).map(matrix).collect();
    multiply(bench, &matrices, "f16", 2 * out * inner);
}

fn multiply(bench: &Bench, matrices: &[Matrix], name: &str, bytes: usize) {
    let (out, inner) = (matrices[0].out(), matrices[0].inner());
    for rows in [1, 8, 32] {
        let x = Buffer::upload(&bench.gpu.client, &vec![0.5_f32; rows * inner]);
        let y = Buffer::empty::<f32>(&bench.gpu.client, rows * out);
        let seconds = bench.time(|at| {
            matrices[at % matrices.len()].multiply(&bench.gpu, &x, &y, rows, false);
        });
        bench.report(&format!("{name} {out} x {inner}, {rows} rows"), bytes, seconds);
    }
    if product::check(&bench.gpu, &matrices[0]).is_err() {
        return;
    }
    // The imitation is there to be right.
    let (few, many) =
        if bench.card { (&[1, 8, 32, 64][..], &[256, 1024][..]) } else { (&[1][..], &[][..]) };
    let tiles = |rows: usize| {
        let x = Buffer::upload(&bench.gpu.client, &vec![0.5_f32; rows * inner]);
        let y = Buffer::empty::<f32>(&bench.gpu.client, rows * out);
        bench.time(|at| {
            let matrix = &matrices[at % matrices.len()];
            product::multiply(&bench.gpu, matrix, &x, &y, rows).expect("a kernel");
        })
    };
    for &rows in few {
        bench.report(&format!("{name} in tiles, {rows} rows"), bytes, tiles(rows));
    }
    for &rows in many {
        let seconds = tiles(rows);
        let rate = (2 * rows * out * inner) as f64 / seconds;
        let name = format!("{name} in tiles, {rows} rows");
        println!("{name:44} {:9.1} us {:8.1} TFLOP/s", seconds * 1e6, rate / 1e12);
    }
}

fn attention(bench: &Bench) {
    let client = &bench.gpu.client;
    let heads = Heads { query: 32, kv: 8, dim: 128 };
    let shapes = if bench.card { vec![(1, 8192), (32, 1024)] } else { vec![(1, 32)] };
    for (rows, tokens) in shapes {
        let table = tokens / BLOCK_TOKENS;
        let memory = vec![f16::ONE; rows * table * heads.block_values()];
        let [keys, values] = [(); 2].map(|()| Buffer::upload(client, &memory));
        let cache = LayerCache { keys, values };
        let u32s = |values: Vec<u32>| Buffer::upload(client, &values);
        let tables = u32s((0..(rows * table) as u32).collect());
        let sequences = u32s((0..rows as u32).collect());
        let positions = u32s(vec![tokens as u32 - 1; rows]);
        let singles = u32s(Attention::tiles(vec![1; rows], 1));
        let of = Rows { tables: &tables, table, sequences: &sequences, positions: &positions };
        let queries = Buffer::upload(client, &vec![0.1_f32; rows * heads.query * heads.dim]);
        let y = Buffer::empty::<f32>(client, queries.len());
        let scratch = Scratch::new(&bench.gpu, heads, rows, table);
        let attention = Attention { heads, window: None };
        let seconds = bench.time(|_| {
            attention
                .decode(&bench.gpu, &queries, &cache, &of, &singles, &scratch, &y)
                .expect("a kernel");
        });
        bench.report(
            &format!("attention, {rows} rows of {tokens} keys"),
            4 * memory.len(),
            seconds,
        );
    }
}

fn rest(bench: &Bench) {
    let client = &bench.gpu.client;
    let (rows, width) = if bench.card { (32, 4096) } else { (2, 64) };
    let [x, delta, y] = [(); 3].map(|()| Buffer::upload(client, &vec![0.5_f32; rows * width]));
    let weight = Buffer::upload(client, &vec![1.0_f32; width]);
    let seconds = bench.time(|_| {
        add_rms_norm(&bench.gpu, &x, Some([&delta, &x]), &weight, &y, 1e-5).expect("a kernel");
    });
    bench.report(&format!("sum and norm, {rows} rows"), 16 * rows * width, seconds);
    let vocabulary = if bench.card { 128_256 } else { 100 };
    for (name, params) in
        [("greedy", [0.0_f32; PARAMS]), ("top-k, top-p", [1.0, 0.9, 40.0, 0.0, 1.0, 0.0, 0.0, 0.0])]
    {
        let logits: Vec<f32> = (0..rows * vocabulary).map(|i| (i % 1013) as f32 * 0.01).collect();
        let batch = Batch {
            logits: &Buffer::upload(client, &logits),
            params: &Buffer::upload(client, &vec![params; rows].concat()),
            lists: &Buffer::upload(client, &vec![0_u32; rows + 1]),
            entries: &Buffer::upload(client, &[0_u32; ENTRY]),
            saved: &Buffer::empty::<f32>(client, 1),
            uniforms: &Buffer::upload(client, &vec![0.3_f64; rows]),
            choices: &Buffer::empty::<u32>(client, rows * CHOICE),
        };
        let seconds = bench.time(|_| sample(&bench.gpu, &batch));
        bench.report(&format!("sampler, {name}, {rows} rows"), 4 * logits.len(), seconds);
    }
}

fn main() {
    let (gpu, card) = device();
    let mut bench = Bench { gpu, ceiling: 0.0, card };
    bench.ceiling = ceiling(&bench);
    println!("reading alone: {:.1} GB/s, the 100 % of what follows", bench.ceiling / 1e9);
    products(&bench);
    attention(&bench);
    rest(&bench);
}
