//! Layers with biases and other activations, against their formulas in 64 bits.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use burn::tensor::{DType, Device, Tensor};
use neurino_nn::device::{download, upload};
use neurino_nn::paged::{BatchLayout, KvShape, SequenceSpan, store_on};
use neurino_nn::{Embedding, Linear, PagedKvCache, RmsNorm};

use super::attention::Attention;
use super::decoder::LayerStep;
use super::layers::LayerSource;
use super::llama::Mlp;
use crate::LlmError;
use crate::config::{Activation, ModelConfig, shapes};

const ROWS: usize = 3;
const HIDDEN: usize = 6;
const INNER: usize = 5;
const HEAD: usize = 4;
const HEADS: usize = 2;

fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: HIDDEN,
        intermediate_size: INNER,
        num_attention_heads: HEADS,
        num_key_value_heads: 1,
        head_dim: HEAD,
        attention_bias: true,
        mlp_bias: true,
        ..shapes::named("tiny-llama").expect("a shape")
    }
}

/// Deterministic values in -1..1 that depend on a tensor's name.
fn values(name: &str, count: usize) -> Vec<f32> {
    let seed: usize = name.bytes().enumerate().map(|(i, byte)| (i + 1) * usize::from(byte)).sum();
    (0..count).map(|i| ((seed * 131 + i) as f32 * 0.618).sin()).collect()
}

/// Tensors of [`values`].
struct Named(Device);

impl<'a> LayerSource<'a> for Named {
    fn place_on(&self, _device: &'a Device) {}

    fn held_bytes(&self) -> u64 {
        0
    }

    fn rms_norm(&self, name: &str, features: usize, eps: f64) -> Result<RmsNorm, LlmError> {
        Ok(RmsNorm::new(upload(values(name, features), [features], &self.0), eps))
    }

    fn bias(&self, name: &str, features: usize) -> Result<Tensor<2>, LlmError> {
        Ok(upload(values(name, features), [1, features], &self.0))
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, LlmError> {
        Ok(Linear::dense(upload(values(name, shape[0] * shape[1]), shape, &self.0)))
    }

    fn rotated_linear(
        &self,
        name: &str,
        shape: [usize; 2],
        _head_dim: usize,
    ) -> Result<Linear, LlmError> {
        self.linear(name, shape)
    }

    fn embedding(
        &self,
        name: &str,
        shape: [usize; 2],
        _tied: bool,
    ) -> Result<(Embedding, Option<Linear>), LlmError> {
        let table = upload(values(name, shape[0] * shape[1]), shape, &self.0);
        Ok((Embedding::dense(table), None))
    }
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// One row through the projection called `name`, with its bias.
fn project(name: &str, x: &[f64], out: usize) -> Vec<f64> {
    let weight = wide(values(&format!("{name}.weight"), out * x.len()));
    let bias = wide(values(&format!("{name}.bias"), out));
    let row =
        |(row, bias): (&[f64], f64)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias;
    weight.chunks(x.len()).zip(bias).map(row).collect()
}

fn rotate(x: &[f64], position: usize) -> Vec<f64> {
    let half = HEAD / 2;
    let turn = |i: usize| {
        let pair = i % half;
        let theta = f64::from(config().rope_theta);
        let angle = position as f64 / theta.powf(2.0 * pair as f64 / HEAD as f64);
        let other = if i < half { -x[i + half] } else { x[i - half] };
        x[i] * angle.cos() + other * angle.sin()
    };
    (0..HEAD).map(turn).collect()
}

#[track_caller]
fn assert_close(found: Tensor<2>, expect: &[f64], what: &str) {
    let found = download(found).expect("download");
    assert_eq!(found.len(), expect.len());
    for (found, expect) in found.iter().zip(expect) {
        assert!((f64::from(*found) - expect).abs() < 1e-4, "{what}: {found} {expect}");
    }
}

#[test]
fn attention_adds_the_biases_of_all_four_projections() {
    let (config, device) = (config(), Device::flex());
    let attention = Attention::load(&config, &Named(device.clone()), "a").expect("loads");
    let x = values("x", ROWS * HIDDEN);
    let batch =
        BatchLayout { sequences: vec![SequenceSpan { rows: ROWS, start: 0, blocks: vec![0] }] };
    let shape =
        KvShape { n_layers: 1, n_kv_heads: 1, head_dim: HEAD, n_blocks: 1, dtype: DType::F32 };
    let store = store_on(&device, &shape);
    let mut cache = PagedKvCache::new(vec![(shape, store)]);
    cache.begin(&batch).expect("a fitting batch");
    let rotations = config.rotary().tables(&batch, &device);
    let mut step = LayerStep { layer: 0, rotations: &rotations, cache: &mut cache };
    let found =
        attention.forward(upload(x.clone(), [ROWS, HIDDEN], &device), &mut step).expect("computes");

    let x = wide(x);
    let rows: Vec<&[f64]> = x.chunks(HIDDEN).collect();
    let keys: Vec<Vec<f64>> =
        (0..ROWS).map(|at| rotate(&project("a.k_proj", rows[at], HEAD), at)).collect();
    let seen: Vec<Vec<f64>> = rows.iter().map(|x| project("a.v_proj", x, HEAD)).collect();
    let mut expect = Vec::new();
    for (at, x) in rows.iter().enumerate() {
        let mut out = Vec::new();
        for query in project("a.q_proj", x, HEADS * HEAD).chunks(HEAD) {
            let query = rotate(query, at);
            let score = |key: &Vec<f64>| -> f64 {
                let dot: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                (dot / (HEAD as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = keys[..=at].iter().map(score).collect();
            let total: f64 = scores.iter().sum();
            out.extend((0..HEAD).map(|i| {
                scores.iter().zip(&seen).map(|(score, value)| score * value[i]).sum::<f64>() / total
            }));
        }
        expect.extend(project("a.o_proj", &out, HIDDEN));
    }
    assert_close(found, &expect, "attention");
}

/// `2 / sqrt(pi)` times the integral of `exp(-t^2)` up to `x`, by its series.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    FRAC_2_SQRT_PI * sum
}

#[test]
fn feed_forward_networks_have_biases_and_the_activation_of_the_configuration() {
    let device = Device::flex();
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let inner = |x: f64| (2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3));
    let formulas: [(Activation, &dyn Fn(f64) -> f64); 5] = [
        (Activation::Silu, &|x| x * logistic(x)),
        (Activation::Gelu, &|x| x / 2.0 * (1.0 + erf(x * FRAC_1_SQRT_2))),
        (Activation::GeluTanh, &|x| x / 2.0 * (1.0 + inner(x).tanh())),
        (Activation::QuickGelu, &|x| x * logistic(1.702 * x)),
        (Activation::Relu, &|x| x.max(0.0)),
    ];
    for (hidden_act, formula) in formulas {
        let config = ModelConfig { hidden_act, ..config() };
        let mlp = Mlp::load(&config, &Named(device.clone()), "m").expect("loads");
        let x = values("x", ROWS * HIDDEN);
        let found = mlp.forward(upload(x.clone(), [ROWS, HIDDEN], &device));
        let row = |x: &[f64]| {
            let gate = project("m.gate_proj", x, INNER);
            let up = project("m.up_proj", x, INNER);
            let gated: Vec<f64> = gate.iter().zip(up).map(|(g, up)| formula(*g) * up).collect();
            project("m.down_proj", &gated, HIDDEN)
        };
        let expect: Vec<f64> = wide(x).chunks(HIDDEN).flat_map(row).collect();
        assert_close(found, &expect, hidden_act.name());
    }
}
