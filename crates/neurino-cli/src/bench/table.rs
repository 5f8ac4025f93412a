//! A measurement as lines for a person.

use neurino_engine::bench::{PeerBench, TextBench};

/// What decoding alone reads of the weights, as a share of what the memory gives.
pub(super) fn bandwidth_share(bench: &TextBench) -> Option<f64> {
    let read = bench.rates.alone()? * bench.bytes_per_token as f64;
    Some(read / bench.ceilings.read_bytes_per_s?)
}

/// What reading a prompt computes, as a share of what a product of matrices reaches.
pub(super) fn matmul_share(bench: &TextBench) -> Option<f64> {
    let computed = bench.rates.prefill_tokens_per_s * bench.flop_per_token;
    Some(computed / bench.ceilings.matmul_flop_per_s?)
}

pub(super) fn lines(bench: &TextBench, peak_memory_bytes: Option<u64>) -> Vec<String> {
    let format = bench.format.as_ref().map(|f| format!(", random {f}")).unwrap_or_default();
    let mut lines = vec![
        format!("{}{format} on {}, median of {} rounds", bench.model, bench.device, bench.runs),
        row("load", bench.load_ms as f64 / 1000.0, "s", ""),
        row("first token", bench.rates.first_token_ms, "ms", "after a prompt of this length"),
        row(
            "prefill",
            bench.rates.prefill_tokens_per_s,
            "tokens/s",
            &format!("{} tokens", bench.prompt_tokens),
        ),
    ];
    for rate in &bench.rates.decode {
        let what = if rate.sequences == 1 {
            "alone".into()
        } else {
            format!("{} at once", rate.sequences)
        };
        let note = format!("{what}, {} tokens each", bench.new_tokens);
        lines.push(row("decode", rate.tokens_per_s, "tokens/s", &note));
    }
    if !bench.on_cpu {
        let drawn = if bench.chooses_on_device { "on the card" } else { "on the host" };
        lines.push(format!("  {:<14} {drawn}", "tokens drawn"));
        for product in &bench.products {
            lines.push(format!("  {:<14} {product}", "products"));
        }
    }
    lines.push(row("weights", bench.weights_bytes as f64 / 1e6, "MB", ""));
    if let Some(peak) = peak_memory_bytes {
        lines.push(row("peak memory", peak as f64 / 1e6, "MB", "of this process"));
    }
    ceilings(bench, &mut lines);
    if !bench.profile.is_empty() {
        lines.push("where a step of one conversation spends its time".into());
        for part in &bench.profile {
            let share = 100.0 * part.share;
            lines.push(format!("  {:<34} {:>8.2} ms {share:>5.1} %", part.part, part.ms));
        }
    }
    for peer in &bench.peers {
        compare(bench, peer, &mut lines);
    }
    for missing in &bench.peers_missing {
        lines.push(format!("not compared with {missing}"));
    }
    lines
}

pub(super) fn row(what: &str, value: f64, unit: &str, note: &str) -> String {
    let line = format!("  {what:<14} {value:>10.2} {unit:<9} {note}");
    line.trim_end().to_owned()
}

fn ceilings(bench: &TextBench, lines: &mut Vec<String>) {
    let ceilings = &bench.ceilings;
    if let Some(read) = ceilings.read_bytes_per_s {
        lines.push(row("memory reads", read / 1e9, "GB/s", "measured now"));
    }
    if let (Some(share), Some(alone)) = (bandwidth_share(bench), bench.rates.alone()) {
        let read = alone * bench.bytes_per_token as f64;
        let each = bench.bytes_per_token as f64 / 1e6;
        let note = format!("= {:.0} % of it ({each:.1} MB a token)", 100.0 * share);
        lines.push(row("decode reads", read / 1e9, "GB/s", &note));
    }
    if let Some(flop) = ceilings.matmul_flop_per_s {
        let what = if bench.on_cpu { "f32 products" } else { "f16 products" };
        lines.push(row(what, flop / 1e9, "GFLOP/s", "measured now"));
    }
    if let Some(share) = matmul_share(bench) {
        let computed = bench.rates.prefill_tokens_per_s * bench.flop_per_token;
        let note = format!("= {:.0} % of it", 100.0 * share);
        lines.push(row("prefill does", computed / 1e9, "GFLOP/s", &note));
    }
    if let Some(launch) = ceilings.launch_us {
        lines.push(row("kernel launch", launch, "us", "measured now"));
    }
    if let Some(host) = bench.host {
        let share = 100.0 * host.hand_ms / host.step_ms;
        let note = format!("to hand over a step = {share:.0} % of its {:.2} ms", host.step_ms);
        lines.push(row("host", host.hand_ms, "ms", &note));
        if let Some(count) = host.launches {
            lines.push(row("launches", count as f64, "", "kernels of a step"));
        }
        if let Some(share) = host.gap_share() {
            let note = "of a step the card computes nothing and waits for the host";
            lines.push(row("gaps", 100.0 * share, "%", note));
        }
    }
    if bench.on_cpu {
        let why = "not measured on this device: a processor computes while it is asked";
        lines.push(format!("  {:<14} {why}", "launches, gaps"));
    }
}

fn compare(bench: &TextBench, peer: &PeerBench, lines: &mut Vec<String>) {
    lines.push(format!("beside {}, weights: {}", peer.name, peer.weights));
    let Some(theirs) = &peer.rates else {
        let why = peer.failure.as_deref().unwrap_or("it gave no answer");
        lines.push(format!("  not measured: {why}"));
        return;
    };
    let mut pair = |what: &str, own: f64, other: f64| {
        let ratio = own / other;
        lines.push(format!("  {what:<18} {own:>10.2} to {other:>10.2} tokens/s = {ratio:.2}x"));
    };
    pair("prefill", bench.rates.prefill_tokens_per_s, theirs.prefill_tokens_per_s);
    for own in &bench.rates.decode {
        if let Some(other) = theirs.with(own.sequences) {
            pair(&format!("decode, {} at once", own.sequences), own.tokens_per_s, other);
        }
    }
}
