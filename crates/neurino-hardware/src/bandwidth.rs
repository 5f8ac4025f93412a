//! How fast this machine reads its memory: the ceiling of a decode step, which reads every weight
//! once for each token.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::cpu;
use crate::memory::machine_memory;

const MIB: u64 = 1 << 20;
/// Assumed where the system does not tell: larger than most.
const CACHE_BYTES_UNKNOWN: u64 = 64 * MIB;
const PASSES_MIN: usize = 3;
const PASSES_MAX: usize = 24;
/// Reading time after which no further pass begins.
const SECONDS_MAX: f64 = 1.5;
/// Words added side by side, so that the sum waits for memory and not for itself.
const LANES: usize = 16;

/// What a measurement found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReadBandwidth {
    /// The best pass, in bytes per second: compare against this.
    pub best_bytes_per_s: f64,
    /// The median pass, in bytes per second. Far below the best, the machine was busy.
    pub median_bytes_per_s: f64,
    /// Threads that read, each its own part.
    pub threads: usize,
    /// Size of what was read in each pass, in bytes.
    pub buffer_bytes: u64,
    /// Passes.
    pub passes: usize,
    /// Whether the buffer is at least twice the last-level caches, so that memory was measured and
    /// not cache. False only where too little memory was free.
    pub exceeds_cache: bool,
}

/// Reads a buffer larger than the last-level caches with `threads` threads, several passes, in
/// about two seconds. 0 threads stands for all this process may use. Takes at most a quarter of
/// the free memory. Blocks the caller.
pub fn measure_read_bandwidth(threads: usize) -> ReadBandwidth {
    let threads = if threads == 0 { cpu::threads() } else { threads };
    let cache_bytes = cpu::last_level_cache_bytes().unwrap_or(CACHE_BYTES_UNKNOWN);
    let free_bytes = machine_memory().available_bytes;
    measure(threads, buffer_bytes(cache_bytes, free_bytes), cache_bytes)
}

/// Four times the caches, at least 256 MiB, at most 4 GiB and a quarter of what is free.
fn buffer_bytes(cache_bytes: u64, free_bytes: u64) -> u64 {
    let wanted = cache_bytes.saturating_mul(4).clamp(256 * MIB, 4096 * MIB);
    wanted.min(free_bytes / 4).max(8 * MIB)
}

fn measure(threads: usize, buffer_bytes: u64, cache_bytes: u64) -> ReadBandwidth {
    let words = (buffer_bytes as usize / 8 / threads).max(LANES) / LANES * LANES;
    let gate = Barrier::new(threads);
    let enough = AtomicBool::new(false);
    let times: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|thread| {
                let (gate, enough) = (&gate, &enough);
                scope.spawn(move || read_passes(thread, words, gate, enough))
            })
            .collect();
        let join = |reader: std::thread::ScopedJoinHandle<'_, _>| match reader.join() {
            Ok(times) => times,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        readers.into_iter().map(join).collect()
    });
    let passes = times[0].len();
    let mut seconds: Vec<f64> = (0..passes).map(|pass| span(&times, pass)).collect();
    seconds.sort_by(f64::total_cmp);
    let read_bytes = (words * 8 * threads) as u64;
    let rate = |seconds: f64| read_bytes as f64 / seconds.max(1e-9);
    ReadBandwidth {
        best_bytes_per_s: rate(seconds[0]),
        median_bytes_per_s: rate(seconds[passes / 2]),
        threads,
        buffer_bytes: read_bytes,
        passes,
        exceeds_cache: read_bytes >= cache_bytes.saturating_mul(2),
    }
}

/// One thread's share of every pass, with when it began and ended. The first thread decides for
/// all when it is enough.
fn read_passes(
    thread: usize,
    words: usize,
    gate: &Barrier,
    enough: &AtomicBool,
) -> Vec<(Instant, Instant)> {
    // Written by the thread that reads it: the pages land in its part of the memory.
    let part = vec![thread as u64 + 1; words];
    black_box(sum(&part));
    let mut times = Vec::with_capacity(PASSES_MAX);
    let mut seconds = 0.0;
    loop {
        gate.wait();
        let begun = Instant::now();
        black_box(sum(black_box(&part)));
        let ended = Instant::now();
        times.push((begun, ended));
        seconds += (ended - begun).as_secs_f64();
        let done = times.len();
        if thread == 0 && (done >= PASSES_MAX || done >= PASSES_MIN && seconds > SECONDS_MAX) {
            enough.store(true, Ordering::Release);
        }
        gate.wait();
        if enough.load(Ordering::Acquire) {
            return times;
        }
    }
}

/// Seconds from the first thread's begin to the last one's end. A clock outside the threads would
/// start late when they take every core.
fn span(times: &[Vec<(Instant, Instant)>], pass: usize) -> f64 {
    let begun = times.iter().map(|thread| thread[pass].0).min();
    let ended = times.iter().map(|thread| thread[pass].1).max();
    match (begun, ended) {
        (Some(begun), Some(ended)) => (ended - begun).as_secs_f64(),
        _ => f64::INFINITY,
    }
}

fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; LANES];
    let (chunks, rest) = words.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).fold(0, |total: u64, word| total.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1003).collect();
        assert_eq!(sum(&words), 1003 * 1002 / 2);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[u64::MAX, 2]), 1);
    }

    #[test]
    fn the_buffer_exceeds_the_cache_where_memory_allows() {
        assert_eq!(buffer_bytes(32 * MIB, 16 << 30), 256 * MIB);
        assert_eq!(buffer_bytes(256 * MIB, 16 << 30), 1024 * MIB);
        assert_eq!(buffer_bytes(4 << 30, 64 << 30), 4 << 30);
        assert_eq!(buffer_bytes(32 * MIB, 400 * MIB), 100 * MIB);
        assert_eq!(buffer_bytes(32 * MIB, 0), 8 * MIB);
    }

    #[test]
    fn a_small_measurement_is_plausible() {
        let found = measure(2, 8 * MIB, 64 * MIB);
        assert_eq!((found.threads, found.buffer_bytes), (2, 8 * MIB));
        assert!((PASSES_MIN..=PASSES_MAX).contains(&found.passes));
        // Between a 1990s bus and the fastest cache there is.
        assert!((1e7..1e14).contains(&found.median_bytes_per_s), "{found:?}");
        assert!(found.best_bytes_per_s >= found.median_bytes_per_s);
        assert!(!found.exceeds_cache);
    }

    #[test]
    fn a_pass_lasts_from_the_first_begin_to_the_last_end() {
        let zero = Instant::now();
        let at = |ms| zero + std::time::Duration::from_millis(ms);
        let times = vec![vec![(at(0), at(10))], vec![(at(30), at(50))]];
        assert!((span(&times, 0) - 0.050).abs() < 1e-9);
    }
}
