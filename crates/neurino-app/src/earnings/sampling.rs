//! Every two seconds of mining: what the sensors say goes to meter and flight recorder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_earnings::meter::Watts;
use neurino_hardware::Sample;
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
        let used = self.used_gpu().map(|gpu| gpu.index);
        let gpu = used.and_then(|used| sample.gpus.iter().find(|g| g.index == used));
        if used.is_none() {
            point.temperature_c = sample.cpu.temperature_c;
            point.load_percent = sample.cpu.load_percent;
            point.memory_used_bytes = Some(sample.cpu.memory_used_bytes);
        } else if let Some(gpu) = gpu {
            point.temperature_c = gpu.temperature_c;
            point.load_percent = gpu.load_percent;
            point.memory_used_bytes = gpu.memory_used_bytes;
        }
        point
    }

    /// What the device that computes draws: its sensor's word, else an estimate from its load.
    fn watts(&self, sample: &Sample) -> Watts {
        if let Some(used) = self.used_gpu() {
            let gpu = sample.gpus.iter().find(|g| g.index == used.index);
            let load = gpu.and_then(|g| g.load_percent).unwrap_or(100.0);
            gpu.and_then(|g| g.power_w)
                .map_or(Watts::Estimated(CARD_WATTS * load / 100.0), Watts::Measured)
        } else {
            let threads = self.hardware().cpu().threads as f32;
            let load = sample.cpu.load_percent.unwrap_or(0.0);
            Watts::Estimated(THREAD_WATTS * threads * load / 100.0)
        }
    }

    /// Whether watts are estimated: the processor has no sensor here, and some cards have none.
    pub(super) fn power_is_estimated(&self) -> bool {
        let Some(used) = self.used_gpu() else { return true };
        let view = lock(&self.view);
        view.last_sample().is_some_and(|sample| {
            sample.gpus.iter().any(|g| g.index == used.index && g.power_w.is_none())
        })
    }

    fn flush_meter(&self) {
        if let Err(error) = lock(&self.records.meter).flush() {
            tracing::warn!("the meter: {}", told_with_causes(&error));
        }
    }
}
