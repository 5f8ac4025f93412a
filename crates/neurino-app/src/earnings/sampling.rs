//! Every two seconds of mining: what the sensors say goes to meter and flight recorder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_earnings::meter::Watts;
use neurino_hardware::{Gpu, GpuSample, Sample};
use neurino_miner::{Counters, MinerState};
use neurino_protocol::earnings::{BothPoints, TelemetryPoint};
use tokio::time::MissedTickBehavior;

use super::gained;
use crate::{App, lock, now_ms, told_with_causes};

const EVERY: Duration = Duration::from_secs(2);
/// Watts of a card at full load whose driver does not tell them.
const CARD_WATTS: f32 = 150.0;
/// Watts of a busy thread of a processor.
const THREAD_WATTS: f32 = 5.0;

/// What the last tick saw.
struct Last {
    at: Instant,
    mined: bool,
    counters: Counters,
}

impl App {
    /// Samples while the machine mines; otherwise it looks once in two seconds whether it does.
    pub(crate) fn spawn_sampling(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last: Option<Last> = None;
            // What was credited before the first sample belongs to the first sample.
            let mut credited = app.points_so_far();
            loop {
                tokio::select! {
                    () = app.end.cancelled() => break,
                    _ = ticks.tick() => {}
                }
                last = app.tick(last, &mut credited).await;
            }
            app.flush_meter();
        });
    }

    async fn tick(self: &Arc<Self>, last: Option<Last>, credited: &mut BothPoints) -> Option<Last> {
        let miner = lock(&self.mining).miner();
        let Some(status) = miner.map(|miner| miner.status().borrow().clone()) else {
            if last.is_some() {
                self.flush_meter();
            }
            return None;
        };
        let sample = self.sample().await;
        let mined = status.connected
            && matches!(
                status.state,
                MinerState::Waiting | MinerState::Working | MinerState::Finishing
            );
        let now = Last { at: Instant::now(), mined, counters: status.counters };
        let before = std::mem::replace(credited, self.points_so_far());
        let at_ms = now_ms();
        let watts = self.watts(&sample);
        if let Some(last) = &last
            && last.mined
            && mined
        {
            let stretch_ms = now.at.duration_since(last.at).as_millis() as u64;
            if let Err(error) = lock(&self.records.meter).add(at_ms, stretch_ms, watts) {
                tracing::warn!("the meter: {}", told_with_causes(&error));
            }
        }
        let mut point = self.telemetry_point(at_ms, &sample, watts, last.as_ref(), &now);
        point.points = gained(before, *credited);
        if let Err(error) = lock(&self.records.recorder).add(point) {
            tracing::warn!("the flight recorder: {}", told_with_causes(&error));
        }
        Some(now)
    }

    fn telemetry_point(
        &self,
        at_ms: i64,
        sample: &Sample,
        watts: Watts,
        last: Option<&Last>,
        now: &Last,
    ) -> TelemetryPoint {
        let seconds = last.map_or(0.0, |last| now.at.duration_since(last.at).as_secs_f32());
        // A new run counts from zero again.
        let more = |before: u64, after: u64| {
            if seconds > 0.0 { after.saturating_sub(before) as f32 / seconds } else { 0.0 }
        };
        let before = last.map_or(now.counters, |last| last.counters);
        let (Watts::Measured(power_w) | Watts::Estimated(power_w)) = watts;
        let mut point = TelemetryPoint {
            at_ms,
            power_w: Some(power_w),
            tokens_per_s: more(before.tokens_written, now.counters.tokens_written),
            pictures_per_min: more(before.pictures, now.counters.pictures) * 60.0,
            ..TelemetryPoint::default()
        };
        let used = self.used_gpus();
        if used.is_empty() {
            point.temperature_c = sample.cpu.temperature_c;
            point.load_percent = sample.cpu.load_percent;
            point.memory_used_bytes = Some(sample.cpu.memory_used_bytes);
        } else {
            // Of several cards: the hottest, the busiest, and the memory of all.
            let gpus: Vec<&GpuSample> = of_used(&used, sample).collect();
            point.temperature_c = gpus.iter().filter_map(|g| g.temperature_c).reduce(f32::max);
            point.load_percent = gpus.iter().filter_map(|g| g.load_percent).reduce(f32::max);
            let memory = gpus.iter().filter_map(|g| g.memory_used_bytes);
            point.memory_used_bytes = memory.reduce(u64::saturating_add);
        }
        point
    }

    /// What the devices that compute draw: their sensors' word, else an estimate from their load.
    fn watts(&self, sample: &Sample) -> Watts {
        let used = self.used_gpus();
        if used.is_empty() {
            let threads = self.hardware().cpu().threads as f32;
            let load = sample.cpu.load_percent.unwrap_or(0.0);
            return Watts::Estimated(THREAD_WATTS * threads * load / 100.0);
        }
        let (mut all, mut measured) = (0.0, true);
        for card in &used {
            let gpu = sample.gpus.iter().find(|g| g.index == card.index);
            let load = gpu.and_then(|g| g.load_percent).unwrap_or(100.0);
            let watts = gpu.and_then(|g| g.power_w);
            measured &= watts.is_some();
            all += watts.unwrap_or(CARD_WATTS * load / 100.0);
        }
        if measured { Watts::Measured(all) } else { Watts::Estimated(all) }
    }

    /// Whether watts are estimated: the processor has no sensor here, and some cards have none.
    pub(super) fn power_is_estimated(&self) -> bool {
        let used = self.used_gpus();
        if used.is_empty() {
            return true;
        }
        let view = lock(&self.view);
        view.last_sample()
            .is_some_and(|sample| of_used(&used, sample).any(|gpu| gpu.power_w.is_none()))
    }

    fn flush_meter(&self) {
        if let Err(error) = lock(&self.records.meter).flush() {
            tracing::warn!("the meter: {}", told_with_causes(&error));
        }
    }
}

/// The sensors of the cards that compute.
fn of_used<'a>(used: &'a [Gpu], sample: &'a Sample) -> impl Iterator<Item = &'a GpuSample> {
    sample.gpus.iter().filter(|gpu| used.iter().any(|card| card.index == gpu.index))
}
