//! A whole layer in a step of fixed shape.

use neurino_kernels::attention::Attention;
use neurino_kernels::buffer::Buffer;
use neurino_kernels::gpu::Gpu;
use neurino_kernels::matvec::Matrix;
use neurino_kernels::rope::{BLOCK_TOKENS, Heads, LayerCache};
use neurino_kernels::step::{
    LayerConfig, LayerWeights, StepInputs, StepRow, StepShape, Workspace, decode_layer, record,
};

use crate::support::{assert_close, floats, gpu, noise};

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 16 };
const WIDTH: usize = 48;
const INNER: usize = 80;
const BLOCKS: usize = 6;
const EPSILON: f32 = 1e-5;

/// Weights as the oracle reads them: `[out, in]` each.
fn weights() -> [(Vec<f32>, usize, usize); 6] {
    let (q, kv) = (HEADS.query * HEADS.dim, HEADS.kv * HEADS.dim);
    [(q, WIDTH), (kv, WIDTH), (kv, WIDTH), (WIDTH, q), (2 * INNER, WIDTH), (WIDTH, INNER)].map(
        |(out, inner)| {
            let values = noise((out * 7 + inner) as u64, out * inner);
            (values.iter().map(|w| w * 0.2).collect(), out, inner)
        },
    )
}

struct Layer {
    gpu: Gpu,
    config: LayerConfig,
    weights: LayerWeights,
    cache: LayerCache,
}

impl Layer {
    fn new() -> Self {
        let gpu = gpu();
        let upload = |values: &[f32]| Buffer::upload(&gpu.client, values);
        let [query, key, value, output, gate_up, down] =
            weights().map(|(w, out, inner)| Matrix::f32(upload(&w), out, inner).unwrap());
        let norm = upload(&norm_weight());
        let memory = vec![half::f16::ZERO; BLOCKS * HEADS.block_values()];
        let [keys, values] = [(); 2].map(|()| Buffer::upload(&gpu.client, &memory));
        let [cos, sin] = angles();
        Self {
            config: LayerConfig {
                attention: Attention { heads: HEADS, window: None },
                epsilon: EPSILON,
                cos: upload(&cos),
                sin: upload(&sin),
            },
            weights: LayerWeights {
                attention_norm: norm.clone(),
                query,
                key,
                value,
                output,
                feed_norm: norm,
                gate_up,
                down,
            },
            cache: LayerCache { keys, values },
            gpu,
        }
    }

    /// Steps of one shape, each with its rows' inputs.
    fn run(&self, shape: StepShape, steps: &[(Vec<StepRow>, Vec<f32>)]) -> Vec<f32> {
        let inputs = StepInputs::new(&self.gpu, shape);
        let work = Workspace::new(&self.gpu, shape, &self.config, WIDTH, INNER);
        let mut out = Vec::new();
        for (rows, x) in steps {
            inputs.write(&self.gpu, rows);
            let mut padded = x.clone();
            padded.resize(shape.rows * WIDTH, 0.0);
            let bytes = cubecl::bytes::Bytes::from_elems(padded);
            self.gpu.client.write(work.x.handle(), bytes);
            let Self { gpu, config, weights, cache } = self;
            decode_layer(gpu, config, weights, cache, &inputs, &work).unwrap();
            out.extend_from_slice(&floats(gpu, &work.x)[..x.len()]);
        }
        out
    }
}

fn norm_weight() -> Vec<f32> {
    noise(5, WIDTH).iter().map(|w| 1.0 + w * 0.1).collect()
}

fn angles() -> [Vec<f32>; 2] {
    let half = HEADS.dim / 2;
    let angle = |i: usize| (i / half) as f32 * 100_f32.powf(-((i % half) as f32) / half as f32);
    [f32::cos, f32::sin].map(|f| (0..64 * half).map(|i| f(angle(i))).collect())
}

/// A text's steps through the layer in plain Rust.
fn oracle(xs: &[Vec<f32>]) -> Vec<f32> {
    let [query, key, value, output, gate_up, down] = weights();
    let product = |(w, _, inner): &(Vec<f32>, usize, usize), x: &[f32]| -> Vec<f32> {
        w.chunks(*inner).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let norm = |x: &[f32]| -> Vec<f32> {
        let mean = x.iter().map(|x| x * x).sum::<f32>() / WIDTH as f32;
        let scale = 1.0 / (mean + EPSILON).sqrt();
        x.iter().zip(norm_weight()).map(|(x, w)| x * scale * w).collect()
    };
    let [cos, sin] = angles();
    let half = HEADS.dim / 2;
    let rotate = |x: Vec<f32>, position: usize| -> Vec<f32> {
        let mut out = x;
        for head in out.chunks_mut(HEADS.dim) {
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                let (c, s) = (cos[position * half + i], sin[position * half + i]);
                (head[i], head[i + half]) = (a * c - b * s, b * c + a * s);
            }
        }
        out
    };
    let round =
        |x: Vec<f32>| -> Vec<f32> { x.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect() };
    let (mut keys, mut values, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for (position, x) in xs.iter().enumerate() {
        let normed = norm(x);
        let q = rotate(product(&query, &normed), position);
        keys.push(round(rotate(product(&key, &normed), position)));
        values.push(round(product(&value, &normed)));
        let mut attended = Vec::new();
        for (head, q) in q.chunks(HEADS.dim).enumerate() {
            let start = head / HEADS.group() * HEADS.dim;
            let of = |all: &Vec<f32>| all[start..start + HEADS.dim].to_vec();
            let score = |k: &Vec<f32>| {
                let dot: f32 = of(k).iter().zip(q).map(|(k, q)| k * q).sum();
                (dot / (HEADS.dim as f32).sqrt()).exp()
            };
            let scores: Vec<f32> = keys.iter().map(score).collect();
            let total: f32 = scores.iter().sum();
            let weighted = |i: usize| {
                scores.iter().zip(&values).map(|(s, v)| s / total * v[start + i]).sum::<f32>()
            };
            attended.extend((0..HEADS.dim).map(weighted));
        }
        let add = |a: &[f32], b: Vec<f32>| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let sum = add(x, product(&output, &attended));
        let both = product(&gate_up, &norm(&sum));
        let inner: Vec<f32> =
            (0..INNER).map(|i| both[i] / (1.0 + (-both[i]).exp()) * both[INNER + i]).collect();
        out.extend(add(&sum, product(&down, &inner)));
    }
    out
}

/// What `gpu-check` runs on a card: the launches of a layer, recorded once, give in every later step
/// what launching them one by one gives. Only CUDA records; other runtimes must say so.
#[test]
fn a_recorded_step_gives_what_a_launched_one_gives() {
    let shape = StepShape::for_batch(2, 2).unwrap();
    let rows = |step: usize| {
        let row = |blocks: &[u32]| StepRow {
            position: step as u32,
            blocks: blocks[..=step / BLOCK_TOKENS].to_vec(),
        };
        vec![row(&[4, 1]), row(&[2, 5])]
    };
    let x = |step: usize| noise(step as u64, 2 * WIDTH);
    let steps: Vec<_> = (0..BLOCK_TOKENS + 2).map(|step| (rows(step), x(step))).collect();
    let launched = Layer::new().run(shape, &steps);

    let Layer { gpu, config, weights, cache } = Layer::new();
    let inputs = StepInputs::new(&gpu, shape);
    let work = Workspace::new(&gpu, shape, &config, WIDTH, INNER);
    let step = || decode_layer(&gpu, &config, &weights, &cache, &inputs, &work).unwrap();
    let graph = match record(&gpu, step) {
        Ok(graph) => graph,
        Err(reason) => {
            assert!(std::env::var("NEURINO_TEST_DEVICE").is_err(), "a card records: {reason}");
            return;
        }
    };
    let mut replayed = Vec::new();
    for (rows, x) in &steps {
        inputs.write(&gpu, rows);
        gpu.client.write(work.x.handle(), cubecl::bytes::Bytes::from_elems(x.clone()));
        // SAFETY: `inputs`, `work`, `weights` and `cache` live until the output is read, and nothing
        // else uses the queue.
        #[expect(unsafe_code, reason = "a graph names memory by its address")]
        unsafe {
            graph.replay().unwrap();
        }
        replayed.extend(floats(&gpu, &work.x));
    }
    assert_eq!(replayed, launched, "bit by bit");
    println!("a recorded step gives, bit by bit, what {} launched steps give", steps.len());
}

#[test]
fn a_padded_step_gives_what_the_layer_gives() {
    let texts: [Vec<u32>; 2] = [vec![4, 1], vec![2, 5]];
    let steps = BLOCK_TOKENS + 2;
    let x = |text: usize, step: usize| noise((100 * text + step) as u64, WIDTH);
    let row = |text: usize, step: usize| {
        let blocks = texts[text][..=step / BLOCK_TOKENS].to_vec();
        StepRow { position: step as u32, blocks }
    };
    let alone: Vec<Vec<f32>> = (0..2)
        .map(|text| {
            let steps: Vec<_> = (0..steps).map(|s| (vec![row(text, s)], x(text, s))).collect();
            Layer::new().run(StepShape::for_batch(1, 2).unwrap(), &steps)
        })
        .collect();
    let inputs: Vec<Vec<f32>> = (0..steps).map(|step| x(0, step)).collect();
    assert_close("layer", &alone[0], &oracle(&inputs), 1e-4);

    // Two texts and two rows of padding, each with the bits it has alone.
    let both: Vec<_> =
        (0..steps).map(|s| (vec![row(0, s), row(1, s)], [x(0, s), x(1, s)].concat())).collect();
    let both = Layer::new().run(StepShape { rows: 4, table: 16 }, &both);
    for (step, row) in both.chunks(2 * WIDTH).enumerate() {
        for (text, row) in row.chunks(WIDTH).enumerate() {
            assert_eq!(row, &alone[text][step * WIDTH..(step + 1) * WIDTH], "{text} {step}");
        }
    }
}
