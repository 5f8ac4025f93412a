//! Distributions of the reference, and what a draw may depend on.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use safetensors::SafeTensors;
use serde_json::Value;

use super::*;

const CASES: &str = include_str!("../../../../tests/fixtures/llm/sampling.json");
const TENSORS: &[u8] = include_bytes!("../../../../tests/fixtures/llm/sampling.safetensors");

fn params(temperature: f32, top_k: u32, top_p: f32) -> SamplingParams {
    SamplingParams { temperature, top_p, top_k, seed: 7, ..SamplingParams::default() }
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap().data();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// The probability of each token.
fn distribution(sampler: &Sampler, logits: &[f32]) -> Vec<f64> {
    let (mut logits, mut scratch) = (logits.to_vec(), Scratch::default());
    sampler.adjust(&mut logits);
    let highest = scores::highest(&logits).unwrap();
    let mut found = vec![0.0; logits.len()];
    match sampler.filter(&logits, highest, &mut scratch) {
        Field::One(id) => found[id as usize] = 1.0,
        Field::All => found = scratch.values.iter().map(|&w| f64::from(w)).collect(),
        Field::Some => {
            assert!(scratch.kept.is_sorted_by_key(|c| c.id));
            scratch.kept.iter().for_each(|c| found[c.id as usize] = f64::from(c.weight));
        }
    }
    let sum: f64 = found.iter().sum();
    found.iter().map(|weight| weight / sum).collect()
}

fn draw(sampler: &mut Sampler, logits: &[f32]) -> Option<u32> {
    Some(sampler.draw(&mut logits.to_vec(), None, &mut Scratch::default())?.token)
}

#[test]
fn distributions_agree_with_the_reference() {
    let tensors = SafeTensors::deserialize(TENSORS).unwrap();
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() >= 9);
    for case in &cases {
        let known = ["case", "prompt", "output", "temperature", "top_k", "top_p", "min_p"];
        let penalties = ["repetition_penalty", "frequency_penalty", "presence_penalty"];
        for key in case.as_object().unwrap().keys() {
            assert!(known.contains(&key.as_str()) || penalties.contains(&key.as_str()), "{key}");
        }
        let number = |key: &str, default: f64| case[key].as_f64().unwrap_or(default) as f32;
        let mut sampler = Sampler::new(SamplingParams {
            temperature: number("temperature", 1.0),
            top_k: number("top_k", 0.0) as u32,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
            frequency_penalty: number("frequency_penalty", 0.0),
            presence_penalty: number("presence_penalty", 0.0),
            seed: 0,
        });
        sampler.see(&ids(&case["prompt"]));
        if let Some(seen) = &mut sampler.seen {
            for id in ids(&case["output"]) {
                *seen.entry(id).or_default() += 1;
            }
        }
        let index = case["case"].as_u64().unwrap();
        let logits = floats(&tensors, &format!("case{index}.logits"));
        let expected = floats(&tensors, &format!("case{index}.probabilities"));
        let found = distribution(&sampler, &logits);
        for (id, (a, b)) in found.iter().zip(&expected).enumerate() {
            let apart = (a - f64::from(*b)).abs();
            assert!(apart < 1e-6, "case {index}, token {id}: {a} instead of {b}");
            assert_eq!(*a == 0.0, *b == 0.0, "case {index}, token {id}");
        }
    }
}

#[test]
fn choices_follow_the_distribution_and_repeat() {
    let logits = [0.0, 1.0, f32::NEG_INFINITY, 2.0];
    for params in [params(1.0, 0, 1.0), params(0.7, 3, 1.0), params(1.3, 0, 0.95)] {
        let (mut sampler, mut again) = (Sampler::new(params), Sampler::new(params));
        let expected = distribution(&sampler, &logits);
        let mut counts = [0_u32; 4];
        for _ in 0..20_000 {
            let id = draw(&mut sampler, &logits).unwrap();
            assert_eq!(draw(&mut again, &logits), Some(id));
            counts[id as usize] += 1;
        }
        for (count, probability) in counts.iter().zip(expected) {
            let share = f64::from(*count) / 20_000.0;
            assert!((share - probability).abs() < 0.015, "{probability}: {share}");
        }
        assert_eq!(counts[2], 0);
    }
}

#[test]
fn a_draw_depends_on_seed_answer_and_position_alone() {
    let logits: Vec<f32> = (0_u16..1000).map(|n| f32::from(n % 31) * 0.1).collect();
    let first = |seed, choice, position| {
        let mut sampler = Sampler::new(SamplingParams { seed, ..params(1.0, 0, 1.0) });
        (sampler.choice, sampler.position) = (choice, position);
        draw(&mut sampler, &logits).unwrap()
    };
    let all = |f: &mut dyn FnMut(u32) -> u32| (0..16).map(f).collect::<Vec<_>>();
    let plain = all(&mut |position| first(7, 0, position));
    assert_ne!(plain, all(&mut |position| first(8, 0, position)), "the seed");
    assert_ne!(plain, all(&mut |position| first(7, 1, position)), "the answer");
    let mut sampler = Sampler::new(params(1.0, 0, 1.0));
    assert_eq!(plain, all(&mut |_| draw(&mut sampler, &logits).unwrap()));
}

#[test]
fn a_long_flat_tail_is_cut_as_by_a_full_sort() {
    let logits: Vec<f32> = (0_u16..5000).map(|n| f32::from(n % 97) * 0.05).collect();
    for (top_k, top_p) in [(0, 0.4), (0, 0.999), (4000, 0.7), (100, 0.5), (1, 0.9)] {
        let found = distribution(&Sampler::new(params(0.8, top_k, top_p)), &logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let weight = |id: usize| (f64::from(logits[id]) / 0.8).exp();
        let least = if top_k == 0 { f32::MIN } else { logits[order[top_k as usize - 1]] };
        order.retain(|&id| logits[id] >= least);
        let total: f64 = order.iter().map(|&id| weight(id)).sum();
        let mut before = 0.0;
        for id in order {
            let kept = before < f64::from(top_p) * total;
            // At the edge itself, rounding decides.
            if (before / total - f64::from(top_p)).abs() > 1e-5 {
                assert_eq!(found[id] > 0.0, kept, "token {id} of top-k {top_k}, top-p {top_p}");
            }
            before += weight(id);
        }
    }
}

#[test]
fn a_bias_comes_after_the_penalties_and_a_mask_has_the_last_word() {
    let greedy = params(0.0, 0, 1.0);
    let mut sampler = Sampler::new(SamplingParams { repetition_penalty: 2.0, ..greedy });
    sampler.see(&[1]);
    sampler.bias = vec![(1, 2.5), (0, -100.0), (99, 1.0)];
    // 4 / 2 + 2.5 beats 4.2; (4 + 2.5) / 2 would not.
    assert_eq!(draw(&mut sampler, &[9.0, 4.0, 4.2]), Some(1));
    let mut forbid = |logits: &mut [f32]| logits[1] = f32::NEG_INFINITY;
    let mut scratch = Scratch::default();
    let drawn = sampler.draw(&mut [9.0, 4.0, 4.2], Some(&mut forbid), &mut scratch);
    assert_eq!(drawn.unwrap().token, 2);
    let mut forbid_all = |logits: &mut [f32]| logits.fill(f32::NEG_INFINITY);
    assert_eq!(sampler.draw(&mut [1.0, 2.0, 3.0], Some(&mut forbid_all), &mut scratch), None);
}

#[test]
fn frequency_and_presence_count_the_answer_alone() {
    let mut sampler = Sampler::new(SamplingParams {
        frequency_penalty: 0.5,
        presence_penalty: 1.0,
        ..params(0.0, 0, 1.0)
    });
    sampler.see(&[0]);
    let logits = [3.0, 2.0, 0.0];
    // Token 0 falls from 3 to 1.5, 1, 0.5 and 0; token 1 from 2 to 0.5.
    let drawn: Vec<_> = (0..6).map(|_| draw(&mut sampler, &logits).unwrap()).collect();
    assert_eq!(drawn, [0, 1, 0, 0, 0, 1]);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let logits = [1.0, 3.0, 2.0, 3.0];
    let sum: f64 = logits.iter().map(|&x: &f32| f64::from(x).exp()).sum();
    let logprob = |id: usize| (f64::from(logits[id]) - sum.ln()) as f32;
    let mut sampler = Sampler::new(params(0.0, 0, 1.0));
    (sampler.rivals, sampler.bias) = (Some(3), vec![(0, 50.0)]);
    let drawn = sampler.draw(&mut logits.clone(), None, &mut Scratch::default()).unwrap();
    let rating = drawn.rating.unwrap();
    assert_eq!(drawn.token, 0, "the bias decides");
    assert!((rating.logprob - logprob(0)).abs() < 1e-6, "and changes no log-probability");
    assert_eq!(rating.top.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 3, 2]);
    assert!(rating.top.iter().all(|&(id, found)| (found - logprob(id as usize)).abs() < 1e-6));
    sampler.rivals = Some(0);
    let drawn = sampler.draw(&mut logits.clone(), None, &mut Scratch::default()).unwrap();
    assert!(drawn.rating.unwrap().top.is_empty());
}

#[test]
fn broken_logits_are_no_answer() {
    let pick = |logits: &[f32]| draw(&mut Sampler::new(params(0.0, 0, 1.0)), logits);
    assert_eq!(pick(&[]), None);
    assert_eq!(pick(&[0.0, f32::NAN]), None);
    assert_eq!(pick(&[f32::NEG_INFINITY]), None);
    assert_eq!(pick(&[f32::INFINITY, 0.0]), None);
    assert_eq!(pick(&[1.0, 3.0, 3.0]), Some(1));
}
