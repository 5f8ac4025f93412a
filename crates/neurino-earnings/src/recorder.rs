//! What the sensors said, in a file of fixed size: the flight recorder.
//!
//! Three rings: every 2 seconds for 10 minutes, averages of a minute for 24 hours, of a quarter of an
//! hour for 30 days. A slot's place follows from its time, so there is no pointer that a crash could
//! leave wrong, and each slot has its checksum. The running averages are written with every sample:
//! whatever kills the program, the last samples are in the system's hands.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use neurino_core::MicroPoints;
use neurino_protocol::earnings::{BothPoints, TelemetryPoint, TelemetrySpan};

use crate::error::{RecordError, open_private};

const SLOT_BYTES: usize = 52;
/// Stands for "no sensor".
const NONE: u32 = u32::MAX;

struct Ring {
    step_ms: i64,
    slots: i64,
    /// Slots before it in the file.
    first: i64,
}

const RINGS: [Ring; 3] = [
    Ring { step_ms: 2_000, slots: 300, first: 0 },
    Ring { step_ms: 60_000, slots: 1_440, first: 300 },
    Ring { step_ms: 900_000, slots: 2_880, first: 1_740 },
];
const ALL_SLOTS: usize = 4_620;

fn ring(span: TelemetrySpan) -> usize {
    match span {
        TelemetrySpan::TenMinutes => 0,
        TelemetrySpan::Day => 1,
        TelemetrySpan::Month => 2,
    }
}

/// Time between two points of a span, and its length, in milliseconds.
pub fn step_and_length_ms(span: TelemetrySpan) -> (i64, i64) {
    let ring = &RINGS[ring(span)];
    (ring.step_ms, ring.step_ms * ring.slots)
}

/// The recorder of one machine.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
    slots: Vec<Option<TelemetryPoint>>,
    /// Sums of the steps that run, one for each coarse ring.
    running: [Sum; 2],
}

/// A step that runs: what was sampled in it so far.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    at_ms: i64,
    samples: u32,
    sum: TelemetryPoint,
    /// How many samples had each of the four sensors.
    had: [u32; 4],
}

impl Recorder {
    /// Opens the recorder, making its file where it is missing; damaged slots are left out.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let mut file = open_private(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(RecordError::io("read", path))?;
        file.set_len((ALL_SLOTS * SLOT_BYTES) as u64).map_err(RecordError::io("write", path))?;
        bytes.resize(ALL_SLOTS * SLOT_BYTES, 0);
        let slots = bytes.chunks_exact(SLOT_BYTES).map(decode).collect();
        Ok(Self { path: path.to_owned(), file, slots, running: [Sum::default(); 2] })
    }

    /// Adds a sample; its `points` are what was credited since the last one.
    ///
    /// # Errors
    /// [`RecordError::Io`]; memory has it all the same.
    pub fn add(&mut self, sample: TelemetryPoint) -> Result<(), RecordError> {
        let mut written = self.put(0, sample);
        for coarse in [1, 2] {
            let begin = sample.at_ms.div_euclid(RINGS[coarse].step_ms) * RINGS[coarse].step_ms;
            let running = &mut self.running[coarse - 1];
            if running.at_ms != begin {
                *running = Sum { at_ms: begin, ..Sum::default() };
            }
            running.add(&sample);
            let average = running.average();
            written = written.and(self.put(coarse, average));
        }
        written
    }

    /// The points of a span up to a time, oldest first.
    pub fn span(&self, span: TelemetrySpan, until_ms: i64) -> Vec<TelemetryPoint> {
        let ring = &RINGS[ring(span)];
        let from_ms = until_ms - ring.step_ms * ring.slots;
        let slots = &self.slots[ring.first as usize..(ring.first + ring.slots) as usize];
        let mut points: Vec<_> = slots
            .iter()
            .flatten()
            .filter(|p| p.at_ms > from_ms && p.at_ms <= until_ms)
            .copied()
            .collect();
        points.sort_by_key(|p| p.at_ms);
        points
    }

    fn put(&mut self, ring: usize, point: TelemetryPoint) -> Result<(), RecordError> {
        let ring = &RINGS[ring];
        let slot = ring.first + point.at_ms.div_euclid(ring.step_ms).rem_euclid(ring.slots);
        let slot = slot as usize;
        self.slots[slot] = Some(point);
        let seek = self.file.seek(SeekFrom::Start((slot * SLOT_BYTES) as u64));
        seek.and_then(|_| self.file.write_all(&encode(&point)))
            .map_err(RecordError::io("write", &self.path))
    }
}

impl Sum {
    fn add(&mut self, p: &TelemetryPoint) {
        self.samples += 1;
        let sum = &mut self.sum;
        add_to(&mut sum.temperature_c, p.temperature_c, &mut self.had[0]);
        add_to(&mut sum.power_w, p.power_w, &mut self.had[1]);
        add_to(&mut sum.load_percent, p.load_percent, &mut self.had[2]);
        if let Some(bytes) = p.memory_used_bytes {
            sum.memory_used_bytes = Some(sum.memory_used_bytes.unwrap_or(0) + bytes);
            self.had[3] += 1;
        }
        sum.tokens_per_s += p.tokens_per_s;
        sum.pictures_per_min += p.pictures_per_min;
        // Credited points are not averaged: the step has all of them.
        sum.points.llama.0 = sum.points.llama.0.saturating_add(p.points.llama.0);
        sum.points.waifu.0 = sum.points.waifu.0.saturating_add(p.points.waifu.0);
    }

    fn average(&self) -> TelemetryPoint {
        let over = |sum: Option<f32>, had: u32| sum.map(|sum| sum / had as f32);
        let samples = self.samples.max(1) as f32;
        TelemetryPoint {
            at_ms: self.at_ms,
            temperature_c: over(self.sum.temperature_c, self.had[0]),
            power_w: over(self.sum.power_w, self.had[1]),
            load_percent: over(self.sum.load_percent, self.had[2]),
            memory_used_bytes: self.sum.memory_used_bytes.map(|sum| sum / u64::from(self.had[3])),
            tokens_per_s: self.sum.tokens_per_s / samples,
            pictures_per_min: self.sum.pictures_per_min / samples,
            points: self.sum.points,
        }
    }
}

fn add_to(sum: &mut Option<f32>, value: Option<f32>, had: &mut u32) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
        *had += 1;
    }
}

/// A figure in thousandths.
fn milli(value: Option<f32>) -> u32 {
    value.filter(|v| v.is_finite()).map_or(NONE, |v| ((v * 1000.0).round() as u32).min(NONE - 1))
}

fn of_milli(value: u32) -> Option<f32> {
    (value != NONE).then(|| value as f32 / 1000.0)
}

fn encode(p: &TelemetryPoint) -> [u8; SLOT_BYTES] {
    let memory_mib = p.memory_used_bytes.map_or(NONE, |b| u32::try_from(b >> 20).unwrap_or(NONE));
    let mut out = [0; SLOT_BYTES];
    out[..8].copy_from_slice(&p.at_ms.to_le_bytes());
    out[8..16].copy_from_slice(&p.points.llama.0.to_le_bytes());
    out[16..24].copy_from_slice(&p.points.waifu.0.to_le_bytes());
    let words = [
        // Shifted, so that frost is no large number.
        milli(p.temperature_c.map(|c| c + 100.0)),
        milli(p.power_w),
        memory_mib,
        milli(p.load_percent),
        milli(Some(p.tokens_per_s)),
        milli(Some(p.pictures_per_min)),
    ];
    for (n, word) in words.into_iter().enumerate() {
        out[24 + n * 4..28 + n * 4].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32fast::hash(&out[..48]);
    out[48..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<TelemetryPoint> {
    let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(i64::from_le_bytes);
    let word = |n: usize| bytes.get(n..n + 4)?.try_into().ok().map(u32::from_le_bytes);
    if crc32fast::hash(bytes.get(..48)?) != word(48)? || long(0)? == 0 {
        return None;
    }
    let memory_mib = word(32)?;
    Some(TelemetryPoint {
        at_ms: long(0)?,
        points: BothPoints { llama: MicroPoints(long(8)?), waifu: MicroPoints(long(16)?) },
        temperature_c: of_milli(word(24)?).map(|c| c - 100.0),
        power_w: of_milli(word(28)?),
        memory_used_bytes: (memory_mib != NONE).then(|| u64::from(memory_mib) << 20),
        load_percent: of_milli(word(36)?),
        tokens_per_s: of_milli(word(40)?).unwrap_or(0.0),
        pictures_per_min: of_milli(word(44)?).unwrap_or(0.0),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const START: i64 = 1_795_000_500_000 / 900_000 * 900_000;

    fn sample(n: i64) -> TelemetryPoint {
        TelemetryPoint {
            at_ms: START + n * 2_000,
            temperature_c: Some(60.0),
            power_w: (n % 2 == 0).then_some(300.0),
            memory_used_bytes: Some(9 << 30),
            load_percent: Some((n % 3) as f32 * 10.0),
            tokens_per_s: 42.5,
            pictures_per_min: 0.0,
            points: BothPoints { llama: MicroPoints(7), waifu: MicroPoints(0) },
        }
    }

    #[test]
    fn ten_minutes_stay_fine_and_the_rest_becomes_coarser() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recorder.bin");
        let mut recorder = Recorder::open(&path).unwrap();
        for n in 0..1800 {
            recorder.add(sample(n)).unwrap();
        }
        // As after a crash: nothing is closed, nothing flushed.
        let again = Recorder::open(&path).unwrap();
        std::mem::forget(recorder);
        let now = START + 1799 * 2_000;
        let fine = again.span(TelemetrySpan::TenMinutes, now);
        assert_eq!(fine.len(), 300);
        assert_eq!(fine[299], sample(1799));
        let minutes = again.span(TelemetrySpan::Day, now);
        assert_eq!(minutes.len(), 60);
        let one = minutes[59];
        assert_eq!((one.points.llama.0, one.power_w), (210, Some(300.0)));
        assert!((one.load_percent.unwrap() - 10.0).abs() < 0.1);
        assert!((one.tokens_per_s - 42.5).abs() < 0.01);
        let quarters = again.span(TelemetrySpan::Month, now);
        assert_eq!(quarters.len(), 4);
        assert_eq!(quarters.iter().map(|p| p.points.llama.0).sum::<i64>(), 1800 * 7);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 240_240);
        assert_eq!(again.span(TelemetrySpan::TenMinutes, now + 3_600_000), []);
    }

    #[test]
    fn damage_costs_its_own_slot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recorder.bin");
        let mut recorder = Recorder::open(&path).unwrap();
        for n in 0..10 {
            recorder.add(sample(n)).unwrap();
        }
        drop(recorder);
        let mut bytes = std::fs::read(&path).unwrap();
        let slot = (START / 2_000 % 300 + 3) as usize % 300;
        bytes[slot * SLOT_BYTES + 20] ^= 0xff;
        bytes.truncate(100_000);
        std::fs::write(&path, &bytes).unwrap();
        let recorder = Recorder::open(&path).unwrap();
        assert_eq!(recorder.span(TelemetrySpan::TenMinutes, START + 20_000).len(), 9);
    }
}
