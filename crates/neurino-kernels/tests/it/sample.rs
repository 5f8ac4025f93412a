//! The sampler, against the rules of `neurino-llm`'s written out in f64.

use cubecl::prelude::*;
use neurino_kernels::buffer::Buffer;
use neurino_kernels::gpu::Gpu;
use neurino_kernels::sample::{Batch, CHOICE, ENTRY, Entry, NO_TOKEN, Params, sample};

use crate::support::{floats, gpu, noise, warps};

const PLAIN: Params = Params {
    temperature: 1.0,
    top_p: 1.0,
    top_k: 0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
};

struct Row {
    params: Params,
    logits: Vec<f32>,
    entries: Vec<Entry>,
    uniform: f64,
}

fn adjusted(row: &Row) -> Vec<f32> {
    let mut logits = row.logits.clone();
    for entry in &row.entries {
        let logit = &mut logits[entry.token as usize];
        if let Some(count) = entry.seen {
            let penalty = row.params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            if count > 0 {
                *logit -= row.params.frequency_penalty * count as f32;
                *logit -= row.params.presence_penalty;
            }
        }
        *logit += entry.bias;
    }
    logits
}

/// The token, and how near the random number was to choosing another.
fn oracle(row: &Row) -> (u32, f64) {
    let params = &row.params;
    let logits = adjusted(row);
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    if params.temperature < 1e-5 {
        return (logits.iter().position(|l| *l == highest).unwrap() as u32, 1.0);
    }
    let weight =
        |l: f32| ((f64::from(l) - f64::from(highest)) / f64::from(params.temperature)).exp();
    let mut kept: Vec<(u32, f32, f64)> =
        (0..).zip(&logits).map(|(id, &l)| (id, l, weight(l))).filter(|k| k.1 > f32::MIN).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let k = params.top_k as usize;
    if k > 0 && k < kept.len() {
        let least = kept[k - 1].1;
        kept.retain(|candidate| candidate.1 >= least);
    }
    if params.top_p < 1.0 {
        let target = kept.iter().map(|k| k.2).sum::<f64>() * f64::from(params.top_p);
        let mut sum = 0.0;
        let needed = kept.iter().position(|k| {
            sum += k.2;
            sum >= target
        });
        kept.truncate(needed.unwrap() + 1);
    }
    kept.retain(|candidate| candidate.2 >= f64::from(params.min_p));
    kept.sort_by_key(|candidate| candidate.0);
    let total: f64 = kept.iter().map(|k| k.2).sum();
    let mut end = 0.0;
    for candidate in &kept {
        end += candidate.2 / total;
        if row.uniform < end {
            let start = end - candidate.2 / total;
            return (candidate.0, (row.uniform - start).min(end - row.uniform));
        }
    }
    (kept.last().unwrap().0, 0.0)
}

fn draw(gpu: &Gpu, rows: &[Row]) -> (Vec<u32>, Vec<f32>) {
    let mut lists = vec![0_u32];
    let mut entries: Vec<u32> = Vec::new();
    for row in rows {
        entries.extend(row.entries.iter().flat_map(|entry| entry.to_words()));
        lists.push((entries.len() / ENTRY) as u32);
    }
    entries.extend([0; ENTRY]);
    let logits: Vec<f32> = rows.iter().flat_map(|row| row.logits.clone()).collect();
    let params: Vec<f32> = rows.iter().flat_map(|row| row.params.to_row()).collect();
    let uniforms: Vec<f64> = rows.iter().map(|row| row.uniform).collect();
    let choices = Buffer::empty::<u32>(&gpu.client, rows.len() * CHOICE);
    let memory = Buffer::upload(&gpu.client, &logits);
    let batch = Batch {
        logits: &memory,
        params: &Buffer::upload(&gpu.client, &params),
        lists: &Buffer::upload(&gpu.client, &lists),
        entries: &Buffer::upload(&gpu.client, &entries),
        saved: &Buffer::empty::<f32>(&gpu.client, entries.len() / ENTRY),
        uniforms: &Buffer::upload(&gpu.client, &uniforms),
        choices: &choices,
    };
    sample(gpu, &batch);
    let bytes = choices.download(&gpu.client).unwrap();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&floats(gpu, &memory)), bits(&logits), "as the model gave them");
    let choices = u32::from_bytes(&bytes)[..rows.len() * CHOICE].as_chunks::<CHOICE>().0;
    choices.iter().map(|&[token, logprob]| (token, f32::from_bits(logprob))).unzip()
}

/// Parameters in all combinations, with equal logits among them and lists of several tokens.
fn rows(vocabulary: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (n, temperature) in [0.0, 0.7, 1.5].into_iter().enumerate() {
        for (top_k, top_p, min_p) in [
            (0, 1.0, 0.0),
            (5, 1.0, 0.0),
            (0, 0.6, 0.0),
            (0, 1.0, 0.2),
            (9, 0.8, 0.05),
            (1, 0.1, 0.9),
        ] {
            let seed = rows.len() as u64;
            // In steps of a quarter: many are equal.
            let logits =
                noise(seed, vocabulary).iter().map(|x| (x * 16.0).round() * 0.25).collect();
            let uniform = f64::from(noise(90 + seed, 1)[0]) / 2.0 + 0.5;
            let list = [(3, Some(2), 0.0), (5, Some(0), -1.5), (0, None, 3.0)];
            let entry = |(token, seen, bias)| Entry { token, seen, bias };
            let penalised = Params {
                repetition_penalty: 1.3,
                frequency_penalty: 0.4,
                presence_penalty: 0.2,
                ..PLAIN
            };
            let base = if n == 1 { penalised } else { PLAIN };
            let entries = if n == 1 { list.map(entry).to_vec() } else { Vec::new() };
            rows.push(Row {
                params: Params { temperature, top_p, top_k, min_p, ..base },
                logits,
                entries,
                uniform,
            });
        }
    }
    rows
}

fn check(gpu: &Gpu, rows: &[Row]) {
    let (tokens, logprobs) = draw(gpu, rows);
    for (row, (token, logprob)) in rows.iter().zip(tokens.iter().zip(logprobs)) {
        let (expect, margin) = oracle(row);
        assert!(*token == expect || margin < 1e-6, "{:?}: {token} for {expect}", row.params);
        let highest = row.logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.logits.iter().map(|l| f64::from(l - highest).exp()).sum();
        let expect = f64::from(row.logits[*token as usize] - highest) - sum.ln();
        assert!((f64::from(logprob) - expect).abs() < 1e-4, "{logprob} for {expect}");
    }
}

#[test]
fn tokens_are_the_cpu_samplers() {
    check(&gpu(), &rows(1000));
}

#[test]
fn units_share_a_vocabulary() {
    // A cube of two units: this kernel has many barriers.
    let mut gpu = warps();
    if !gpu.cut.shuffle {
        gpu.cut.planes = 1;
    }
    let rows = rows(37);
    check(&gpu, &rows[10..11]);
}

#[test]
fn choices_follow_their_weights() {
    let gpu = gpu();
    let logits = vec![0.0, 1.0, f32::NEG_INFINITY, 2.0];
    let draws = 400;
    let row = |n: usize| Row {
        params: PLAIN,
        logits: logits.clone(),
        entries: Vec::new(),
        uniform: (n as f64 + 0.5) / f64::from(draws),
    };
    let rows: Vec<Row> = (0..draws as usize).map(row).collect();
    let (tokens, _) = draw(&gpu, &rows);
    let total: f64 = [0.0_f64, 1.0, 2.0].iter().map(|l| l.exp()).sum();
    for (token, logit) in [(0, 0.0_f64), (1, 1.0), (3, 2.0)] {
        let share = tokens.iter().filter(|t| **t == token).count() as f64 / f64::from(draws);
        assert!((share - logit.exp() / total).abs() < 0.006, "{token}: {share}");
    }
}

#[test]
fn broken_logits_are_no_answer() {
    let row = |logits: Vec<f32>| Row { params: PLAIN, logits, entries: Vec::new(), uniform: 0.5 };
    let rows = [
        row(vec![0.0, f32::NAN]),
        row(vec![f32::NEG_INFINITY; 2]),
        row(vec![f32::INFINITY, 0.0]),
        row(vec![0.0, f32::NEG_INFINITY]),
    ];
    assert_eq!(draw(&gpu(), &rows).0, [NO_TOKEN, NO_TOKEN, NO_TOKEN, 0]);
}
