//! What the window shows of the library.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use neurino_core::ModelId;
use neurino_engine::fit::{Fit, Needs, Runs, Slower, fit};
use neurino_engine::memory::DeviceMemory;
use neurino_model_store::{ModelManifest, ModelState as Stored, ModelUsage, SpeedMeter};
use neurino_protocol::app::{Device, DeviceKind};
use neurino_protocol::library::{
    FitVerdict, LibraryModel, LibraryStatus, ModelFit, NewerVersion, QueueItem, QueueState,
};

use crate::{App, lock};

/// How long what the drive said counts.
const USAGE_EVERY: Duration = Duration::from_secs(10);

impl App {
    /// The library, now. `devices` are those of the same snapshot.
    pub(crate) async fn library_status(self: &Arc<Self>, devices: &[Device]) -> LibraryStatus {
        self.learn_worth();
        let usage = self.library_usage().await;
        let used_bytes = usage.iter().map(|model| model.disk_bytes).sum();
        let catalog = self.store.catalog();
        let models = catalog.models().iter();
        let models = models.map(|manifest| self.library_model(manifest, &usage, devices)).collect();
        let queue = self.queue_items();
        let away = self.library_away();
        let catalogue = self.catalogue_status();
        let state = lock(&self.library.state);
        let keep: Vec<ModelId> = self.kept_models();
        let clean_up = match state.settings.cap_bytes {
            Some(cap) if used_bytes > cap => {
                self.store.clean_up_plan(cap, &keep).into_iter().map(|model| model.model).collect()
            }
            _ => Vec::new(),
        };
        LibraryStatus {
            folder: self.store.root().display().to_string(),
            used_bytes,
            free_bytes: self.store.free_bytes(),
            away,
            settings: state.settings.clone(),
            models,
            waits_for: state.waits_for.clone().filter(|_| !queue.is_empty()),
            resting: state.resting.clone().filter(|_| !queue.is_empty()),
            queue,
            activity: state.task.as_ref().map(|running| running.activity.clone()),
            outcome: state.outcome.clone(),
            clean_up,
            catalogue,
        }
    }

    /// What the network's newer version of a model takes to fetch.
    fn newer_version(&self, model: &ModelId) -> Option<NewerVersion> {
        let bytes = self.store.newer_bytes(model)?;
        let state = lock(&self.library.state);
        let rates = [state.last_bytes_per_s, state.settings.bytes_per_s_max];
        let bytes_per_s = rates.into_iter().flatten().min().filter(|rate| *rate > 0);
        Some(NewerVersion { bytes, seconds: bytes_per_s.map(|rate| bytes.div_ceil(rate)) })
    }

    async fn library_usage(self: &Arc<Self>) -> Vec<ModelUsage> {
        let fresh = |at: &Instant| at.elapsed() < USAGE_EVERY;
        if let Some((at, usage)) = &lock(&self.library.state).usage
            && fresh(at)
        {
            return usage.clone();
        }
        let store = self.store.clone();
        let usage = tokio::task::spawn_blocking(move || store.usage()).await.unwrap_or_default();
        lock(&self.library.state).usage = Some((Instant::now(), usage.clone()));
        usage
    }

    fn library_model(
        &self,
        manifest: &ModelManifest,
        usage: &[ModelUsage],
        devices: &[Device],
    ) -> LibraryModel {
        let used = usage.iter().find(|usage| usage.model == manifest.id);
        let used_at = used.and_then(|usage| usage.used?.duration_since(UNIX_EPOCH).ok());
        let practice = self.network.practice();
        let factor = practice.and_then(|network| network.factor(&manifest.id, manifest.kind));
        let could = || devices.iter().filter(|d| could_compute(d, devices));
        let fits = fits_of(&needs_of(manifest), devices);
        // The network's machines have cards: a processor is no measure for what they get.
        let runs_well = could()
            .zip(&fits)
            .any(|(d, fit)| d.kind == DeviceKind::Gpu && fit.verdict == FitVerdict::Runs);
        let (demand, estimate) = self.worth_of(&manifest.id, runs_well);
        LibraryModel {
            demand,
            estimate,
            model: manifest.id.clone(),
            disk_bytes: used.map_or(0, |usage| usage.disk_bytes),
            used_ms: used_at.and_then(|at| i64::try_from(at.as_millis()).ok()),
            own: self.is_own(&manifest.id),
            damaged: self.damaged_file(&manifest.id),
            unreadable: self.unreadable_file(&manifest.id),
            newer: self.newer_version(&manifest.id),
            factor: factor.map(|factor| factor.0),
            fits,
        }
    }

    pub(crate) fn queue_items(&self) -> Vec<QueueItem> {
        let running = self.fetches();
        let catalog = self.store.catalog();
        let state = lock(&self.library.state);
        let entries = state.queue.entries().iter();
        let item = entries.filter_map(|entry| {
            let manifest = catalog.get(&entry.model)?;
            let fetched = running.iter().find(|(model, _, _)| *model == entry.model);
            let failed = state.queue.has_failed(&entry.model);
            let queue_state = match fetched {
                _ if entry.paused => QueueState::Paused,
                Some(_) => QueueState::Running,
                None if failed && state.retry_at.contains_key(&entry.model) => QueueState::Retrying,
                None if failed => QueueState::Failed,
                None => QueueState::Waiting,
            };
            let total_bytes = manifest.size_bytes();
            let on_disk = || match self.store.state(&entry.model) {
                Ok(Stored::Partial { done_bytes, .. }) => done_bytes,
                Ok(Stored::Absent) | Err(_) => 0,
                Ok(_) => total_bytes,
            };
            let meter = state.meters.get(&entry.model).filter(|_| fetched.is_some());
            Some(QueueItem {
                model: entry.model.clone(),
                state: queue_state,
                done_bytes: fetched.map_or_else(on_disk, |(_, done_bytes, _)| *done_bytes),
                total_bytes,
                bytes_per_s: meter.and_then(SpeedMeter::bytes_per_s),
                seconds_left: meter.and_then(|meter| meter.seconds_left(total_bytes)),
                problem: self.problem_of(&entry.model).filter(|_| failed),
            })
        });
        item.collect()
    }

    /// Models that no clean-up touches: the one in memory, and those that every start needs.
    fn kept_models(&self) -> Vec<ModelId> {
        let mut keep = vec![Self::starter_model(), Self::image_starter_model()];
        keep.extend(self.loaded_model());
        keep
    }
}

/// A card that is there, or the processor where there is none.
fn could_compute(device: &Device, all: &[Device]) -> bool {
    match device.kind {
        DeviceKind::Gpu => {
            let on = device.choice.as_ref().is_none_or(|choice| choice.on);
            device.memory_bytes > 0 && on && !device.gone
        }
        DeviceKind::Cpu => device.in_use || !all.iter().any(|other| other.kind == DeviceKind::Gpu),
    }
}

/// Whether a model with these needs runs, for each device that could compute.
pub(crate) fn fits_of(needs: &Needs<'_>, devices: &[Device]) -> Vec<ModelFit> {
    let host = devices.iter().find(|device| device.kind == DeviceKind::Cpu);
    let host_bytes = host.map_or(0, |host| host.memory_bytes);
    let could = devices.iter().filter(|device| could_compute(device, devices));
    could.map(|device| judged(needs, device, host_bytes)).collect()
}

fn needs_of(manifest: &ModelManifest) -> Needs<'_> {
    Needs {
        kind: manifest.kind,
        arch: &manifest.arch,
        dtype: &manifest.dtype,
        size_bytes: manifest.size_bytes(),
        memory_bytes_min: manifest.memory_bytes_min,
        image: manifest.image.as_ref(),
    }
}

/// - `host_bytes`: memory of the machine itself
fn judged(needs: &Needs<'_>, device: &Device, host_bytes: u64) -> ModelFit {
    let free_bytes = device.memory_bytes.saturating_sub(device.memory_used_bytes);
    let memory = DeviceMemory {
        total_bytes: device.memory_bytes,
        free_bytes,
        is_cpu: device.kind == DeviceKind::Cpu,
    };
    let Fit { runs, needed_bytes, available_bytes } = fit(needs, memory, host_bytes);
    let verdict = match runs {
        Runs::Well => FitVerdict::Runs,
        Runs::Slower(Slower::FourBit) => FitVerdict::SlowerFourBit,
        Runs::Slower(Slower::Pieces) => FitVerdict::SlowerPieces,
        Runs::Slower(Slower::Streams) => FitVerdict::SlowerStreams,
        Runs::Slower(Slower::Processor) => FitVerdict::SlowerProcessor,
        Runs::No => FitVerdict::No,
    };
    ModelFit { device: device.name.clone(), verdict, needed_bytes, available_bytes, free_bytes }
}
