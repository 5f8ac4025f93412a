//! Mixtral 8x7B, and models built like it: a Mistral whose feed-forward network is a choice of
//! experts, made anew for each token and layer.
//!
//! Source: Jiang et al. 2024; `transformers@4.44.2 modeling_mixtral.py`. Names are the checkpoint's.

use std::sync::OnceLock;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use neurino_nn::device::{download, is_cpu, upload};
use neurino_nn::experts::Choice;
use neurino_nn::{Linear, RmsNorm};

use super::attention::Attention;
use super::decoder::{Block, LayerStep};
use super::layers::LayerSource;
use super::llama::gated;
use crate::LlmError;
use crate::config::{Activation, ModelConfig};

/// One layer: attention, then a mixture of experts.
#[derive(Debug)]
pub struct MixtralBlock {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    block_sparse_moe: SparseMoe,
}

impl MixtralBlock {
    /// Loads the layer called `name`.
    ///
    /// # Errors
    /// `Weights`.
    pub fn load(
        config: &ModelConfig,
        layers: &dyn LayerSource<'_>,
        name: &str,
    ) -> Result<Self, LlmError> {
        let (features, eps) = (config.hidden_size, config.rms_norm_eps);
        let norm = |part: &str| layers.rms_norm(&format!("{name}.{part}.weight"), features, eps);
        let moe = format!("{name}.block_sparse_moe");
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layers, &format!("{name}.self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            block_sparse_moe: SparseMoe::load(config, layers, &moe)?,
        })
    }
}

impl Block for MixtralBlock {
    fn forward(&self, x: Tensor<2>, step: &mut LayerStep<'_>) -> Result<Tensor<2>, LlmError> {
        let seen = self.self_attn.forward(self.input_layernorm.forward(x.clone()), step)?;
        let (x, normed) = self.post_attention_layernorm.add_forward(x, seen);
        Ok(x + self.block_sparse_moe.forward(&normed)?)
    }

    fn warm_up(&self, rows: usize, features: usize, device: &Device) {
        // The experts of a layer are alike in shape and storage.
        let Some(expert) = self.block_sparse_moe.experts.first() else { return };
        for rows in expert_rows(rows) {
            expert.forward(Tensor::zeros([rows, features], (device, DType::F32)));
        }
    }
}

/// A router and its experts.
#[derive(Debug)]
struct SparseMoe {
    /// Scores the experts.
    gate: Linear,
    experts: Vec<Expert>,
    /// Experts that compute each row.
    per_row: usize,
    /// Whether a card chooses, which it has to prove when the layer computes for the first time.
    on_card: OnceLock<bool>,
}

/// From so many rows on, every expert is asked on the card, where those that nobody chose end at once.
/// Fewer rows choose few, and asking the host which costs less.
const ASKED_ROWS_MIN: usize = 4;
/// Rows that a card proves its choice with.
const PROOF_ROWS: usize = 24;
/// How far a card's layer may lie from the host's, relative to its largest value.
const PROOF_TOLERANCE: f32 = 1e-4;

impl SparseMoe {
    fn load(
        config: &ModelConfig,
        layers: &dyn LayerSource<'_>,
        name: &str,
    ) -> Result<Self, LlmError> {
        let n_experts = config.num_local_experts;
        let gate =
            layers.linear(&format!("{name}.gate.weight"), [n_experts, config.hidden_size])?;
        let experts = (0..n_experts)
            .map(|expert| Expert::load(config, layers, &format!("{name}.experts.{expert}")))
            .collect::<Result<_, _>>()?;
        let (per_row, on_card) = (config.num_experts_per_tok, OnceLock::new());
        Ok(Self { gate, experts, per_row, on_card })
    }

    /// Each row gets what its experts make of it, by their weights, in the order of their numbers: no
    /// row's sum depends on the other rows. A card decides that by itself where it has proven to do it as
    /// the host does.
    ///
    /// `x`: `[rows, hidden_size]`; returns the same.
    fn forward(&self, x: &Tensor<2>) -> Result<Tensor<2>, LlmError> {
        let scores = self.gate.forward(x.clone());
        if self.chooses_on_card(x) {
            let asked = x.dims()[0] >= ASKED_ROWS_MIN;
            if let Some(y) = self.forward_on_card(x, &scores, asked)? {
                return Ok(y);
            }
        }
        self.forward_by_host(x, scores)
    }

    /// Whether a card's choice is the host's. Found out once, in the warm-up.
    fn chooses_on_card(&self, x: &Tensor<2>) -> bool {
        if is_cpu(&x.device()) {
            return false;
        }
        *self.on_card.get_or_init(|| {
            let proven = self.prove(x);
            if !matches!(proven, Ok(true)) {
                tracing::warn!(?proven, "the host chooses the experts of a layer");
            }
            proven.unwrap_or(false)
        })
    }

    /// Holds the card's layer to the host's, and its two ways to each other, bit by bit.
    fn prove(&self, x: &Tensor<2>) -> Result<bool, LlmError> {
        let [_, features] = x.dims();
        let values =
            (0..PROOF_ROWS * features).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let x: Tensor<2> = upload(values, [PROOF_ROWS, features], &x.device());
        let scores = self.gate.forward(x.clone());
        let ways = [true, false].map(|asked| self.forward_on_card(&x, &scores, asked));
        let [Ok(Some(asked)), Ok(Some(gathered))] = ways else { return Ok(false) };
        let (asked, gathered) = (download(asked)?, download(gathered)?);
        let expect = download(self.forward_by_host(&x, scores)?)?;
        let largest = expect.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let is_close = |(y, e): (&f32, &f32)| (y - e).abs() <= PROOF_TOLERANCE * largest;
        let same = asked.iter().zip(&gathered).all(|(a, b)| a.to_bits() == b.to_bits());
        Ok(same && asked.iter().zip(&expect).all(is_close))
    }

    /// With the choice made on the card. With `asked`, every expert is launched there for the rows that
    /// chose it, however many those are, and nobody waits; else the host learns who was chosen, and
    /// launches only them. `None` if the card cannot.
    fn forward_on_card(
        &self,
        x: &Tensor<2>,
        scores: &Tensor<2>,
        asked: bool,
    ) -> Result<Option<Tensor<2>>, LlmError> {
        let Some(choice) = Choice::of(scores, self.per_row) else { return Ok(None) };
        let parts = if asked {
            let [w1, w2, w3] = self.projections();
            let Some(gate) = choice.forward(x, &w1) else { return Ok(None) };
            let Some(up) = choice.forward(x, &w3) else { return Ok(None) };
            let Some(first) = self.experts.first() else { return Ok(None) };
            choice.forward(&gated(first.hidden_act, gate, up), &w2)
        } else {
            let (rows_of, places) = gathered(&choice.read()?, self.experts.len(), self.per_row);
            let device = x.device();
            let chosen = self.experts.iter().zip(&rows_of).filter(|(_, rows)| !rows.is_empty());
            let outputs = chosen
                .map(|(expert, rows)| expert.forward(x.clone().select(0, indices(rows, &device))))
                .collect();
            Some(Tensor::cat(outputs, 0).select(0, indices(&places, &device)))
        };
        Ok(parts.map(|parts| choice.combine(parts)).transpose()?)
    }

    /// The first projections of all experts, the second, the third.
    fn projections(&self) -> [Vec<&Linear>; 3] {
        let all = |part: fn(&Expert) -> &Linear| self.experts.iter().map(part).collect();
        [all(|expert| &expert.w1), all(|expert| &expert.w2), all(|expert| &expert.w3)]
    }

    /// With the choice made on the host, which costs a device one wait a layer and saves it the weights of
    /// all the experts that nobody chose.
    fn forward_by_host(&self, x: &Tensor<2>, scores: Tensor<2>) -> Result<Tensor<2>, LlmError> {
        let [rows, _] = x.dims();
        let device = x.device();
        let scores = download(scores)?;
        let routing = Routing::new(&scores, rows, self.per_row);

        let mut outputs = Vec::new();
        for (expert, rows) in self.experts.iter().zip(&routing.rows_of) {
            if !rows.is_empty() {
                outputs.push(expert.forward(x.clone().select(0, indices(rows, &device))));
            }
        }
        let outputs = Tensor::cat(outputs, 0);

        let mut sum: Option<Tensor<2>> = None;
        for (places, weights) in routing.places.iter().zip(routing.weights) {
            let weights: Tensor<2> = upload(weights, [rows, 1], &device);
            let part = outputs.clone().select(0, indices(places, &device)) * weights;
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        Ok(sum.unwrap_or_else(|| x.zeros_like()))
    }
}

/// Numbers of rows, one for each form in which a card multiplies up to `most` of them: its own kernels
/// and burn's tuning go by the next power of two.
fn expert_rows(most: usize) -> impl Iterator<Item = usize> {
    let powers = std::iter::successors(Some(1_usize), |rows| rows.checked_mul(2));
    powers.take_while(move |rows| *rows < 2 * most).map(move |rows| rows.min(most))
}

fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), (device, DType::I32))
}

/// Of each expert the rows that chose it, and of each pair of a row and its choice the place among the
/// outputs of all experts, one below the other. `chosen` has an expert for each pair.
fn gathered(chosen: &[usize], n_experts: usize, per_row: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut rows_of = vec![Vec::new(); n_experts];
    let mut within = Vec::with_capacity(chosen.len());
    for (pair, &expert) in chosen.iter().enumerate() {
        within.push(rows_of[expert].len());
        rows_of[expert].push(pair / per_row);
    }
    let first_of: Vec<usize> = rows_of
        .iter()
        .scan(0, |next, rows: &Vec<usize>| Some(std::mem::replace(next, *next + rows.len())))
        .collect();
    let places = chosen.iter().zip(within).map(|(&expert, place)| first_of[expert] + place);
    let places = places.collect();
    (rows_of, places)
}

/// Which rows go to which expert, and where each row finds its experts' outputs.
#[derive(Debug, PartialEq)]
struct Routing {
    /// Of each expert: the rows that chose it, ascending.
    rows_of: Vec<Vec<usize>>,
    /// Of each choice of a row: where it lies in the outputs of all experts, one below the other.
    places: Vec<Vec<usize>>,
    /// Of each choice of a row: its weight.
    weights: Vec<Vec<f32>>,
}

impl Routing {
    /// `scores` are `[rows, experts]`.
    fn new(scores: &[f32], rows: usize, per_row: usize) -> Self {
        let n_experts = scores.len().checked_div(rows).unwrap_or(0);
        let mut rows_of = vec![Vec::new(); n_experts];
        let mut weights = vec![Vec::with_capacity(rows); per_row];
        // Of each row and choice: the expert, and the how-many-th of its rows this is.
        let mut chosen = Vec::with_capacity(rows * per_row);
        for (row, scores) in scores.chunks_exact(n_experts.max(1)).enumerate() {
            for (choice, (expert, weight)) in choose(scores, per_row).into_iter().enumerate() {
                chosen.push((expert, rows_of[expert].len()));
                rows_of[expert].push(row);
                weights[choice].push(weight);
            }
        }
        let first_of: Vec<usize> = rows_of
            .iter()
            .scan(0, |next, rows: &Vec<usize>| Some(std::mem::replace(next, *next + rows.len())))
            .collect();
        let mut places = vec![Vec::with_capacity(rows); per_row];
        for (nth, (expert, place)) in chosen.into_iter().enumerate() {
            places[nth % per_row].push(first_of[expert] + place);
        }
        Self { rows_of, places, weights }
    }
}

/// The best experts of one row and their weights, which sum to one: softmax over all experts, the
/// best of them, renormalised. In the order of their numbers; of equals, the lower number wins.
fn choose(scores: &[f32], count: usize) -> Vec<(usize, f32)> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f32 = exponentials.iter().sum();
    let mut experts: Vec<(usize, f32)> =
        exponentials.into_iter().map(|x| x / total).enumerate().collect();
    experts.sort_by(|a, b| b.1.total_cmp(&a.1));
    experts.truncate(count);
    let kept: f32 = experts.iter().map(|(_, probability)| probability).sum();
    experts.sort_by_key(|(expert, _)| *expert);
    experts.into_iter().map(|(expert, probability)| (expert, probability / kept)).collect()
}

/// One expert: w2(act(w1 x) * w3 x).
#[derive(Debug)]
struct Expert {
    w1: Linear,
    w2: Linear,
    w3: Linear,
    hidden_act: Activation,
}

impl Expert {
    fn load(
        config: &ModelConfig,
        layers: &dyn LayerSource<'_>,
        name: &str,
    ) -> Result<Self, LlmError> {
        let (features, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("{name}.{part}.weight");
        Ok(Self {
            w1: layers.linear(&name("w1"), [inner, features])?,
            w2: layers.linear(&name("w2"), [features, inner])?,
            w3: layers.linear(&name("w3"), [inner, features])?,
            hidden_act: config.hidden_act,
        })
    }

    /// `x`: `[rows, hidden_size]`; returns the same.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [gate, up] = Linear::forward_each([&self.w1, &self.w3], x);
        self.w2.forward(gated(self.hidden_act, gate, up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_two_share_the_whole_weight() {
        let found = choose(&[0.0, 2.0, -1.0, 3.0], 2);
        assert_eq!(found.iter().map(|(expert, _)| *expert).collect::<Vec<_>>(), [1, 3]);
        let third = 1.0 / (1.0 + 1f32.exp());
        assert!((found[0].1 - third).abs() < 1e-6 && (found[1].1 - 1.0 + third).abs() < 1e-6);
        let equals = choose(&[1.0, 1.0, 1.0], 2);
        assert_eq!(equals, [(0, 0.5), (1, 0.5)]);
        assert_eq!(choose(&[5.0], 1), [(0, 1.0)]);
    }

    #[test]
    fn an_expert_is_warmed_up_for_every_number_of_rows_that_it_may_get() {
        for most in [1, 2, 3, 16, 32, 100, 256, 1024] {
            let warm: Vec<_> = expert_rows(most).map(usize::next_power_of_two).collect();
            for rows in 1..=most {
                assert!(warm.contains(&rows.next_power_of_two()), "{rows} of {most}: {warm:?}");
            }
            assert!(expert_rows(most).all(|rows| rows <= most), "a step has no more: {warm:?}");
            assert!(warm.len() <= 11, "{warm:?}");
        }
    }

    #[test]
    fn pairs_find_their_experts_outputs() {
        // The choices of `every_row_finds_its_experts_outputs`, as a card tells them.
        let (rows_of, places) = gathered(&[0, 2, 1, 2, 0, 1], 3, 2);
        assert_eq!(rows_of, [vec![0, 2], vec![1, 2], vec![0, 1]]);
        assert_eq!(places, [0, 4, 2, 5, 1, 3]);
    }

    #[test]
    fn every_row_finds_its_experts_outputs() {
        let scores = [[9.0, 0.0, 8.0], [0.0, 9.0, 8.0], [9.0, 8.0, 0.0]].concat();
        let routing = Routing::new(&scores, 3, 2);
        assert_eq!(routing.rows_of, [vec![0, 2], vec![1, 2], vec![0, 1]]);
        assert_eq!(routing.places, [vec![0, 2, 1], vec![4, 5, 3]]);
        for row in 0..3 {
            let sum: f32 = routing.weights.iter().map(|weights| weights[row]).sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }
}
