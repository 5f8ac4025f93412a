//! Cards that a file plays: for tests, and to try things out without a card.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::nvidia::{CudaVersion, NvidiaReport, NvmlState};
use crate::nvml::Gpu;
use crate::probe::GpuSample;

/// Cards in a JSON file, which is read at every question, so that they can come and go:
///
/// ```json
/// [ { "uuid": "GPU-1", "name": "Card", "memory_bytes": 8589934592, "lost": false } ]
/// ```
///
/// It may be the file of `neurino_power::ScriptedCards`. A card without `memory_bytes` is none that
/// computes; one with `instance_of` is an instance of the card of that number; one that is `lost` no longer answers; one that left the list was unplugged. No file at
/// all is a driver that does not run.
#[derive(Debug, Clone)]
pub(crate) struct CardScript {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Card {
    uuid: String,
    name: String,
    memory_bytes: Option<u64>,
    #[serde(default)]
    lost: bool,
    #[serde(default)]
    instance_of: Option<u32>,
}

impl CardScript {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The cards with their numbers; `None` where no driver runs.
    fn read(&self) -> Option<Vec<(u32, Card)>> {
        let bytes = std::fs::read(&self.path).ok()?;
        let cards: Vec<Card> = serde_json::from_slice(&bytes).unwrap_or_default();
        Some((0..).zip(cards.into_iter().filter(|card| card.memory_bytes.is_some())).collect())
    }

    /// The cards that answer, and what the driver says.
    pub(crate) fn probe(&self) -> (Vec<Gpu>, NvidiaReport) {
        let Some(cards) = self.read() else {
            let nvml = NvmlState::DriverNotLoaded;
            let report = NvidiaReport { cards: None, kernel_driver: None, nvml };
            return (Vec::new(), report);
        };
        let nvml = NvmlState::Loaded {
            driver: "a script".into(),
            cuda: Some(CudaVersion::FLOOR),
            cards: u32::try_from(cards.len()).unwrap_or(u32::MAX),
        };
        let answering = cards.into_iter().filter(|(_, card)| !card.lost);
        let gpus = answering.map(|(index, card)| Gpu {
            index,
            name: card.name,
            uuid: Some(card.uuid),
            pci_address: None,
            memory_bytes: card.memory_bytes,
            compute_capability: None,
            instance_of: card.instance_of,
        });
        let report = NvidiaReport { cards: Some(Vec::new()), kernel_driver: None, nvml };
        (gpus.collect(), report)
    }

    /// How busy a card is: idle, or lost.
    pub(crate) fn sample(&self, gpu: &Gpu) -> GpuSample {
        let found = self.read().unwrap_or_default().into_iter().map(|(_, card)| card);
        let answers =
            found.filter(|card| !card.lost).any(|card| gpu.uuid.as_ref() == Some(&card.uuid));
        GpuSample {
            index: gpu.index,
            load_percent: answers.then_some(0.0),
            memory_used_bytes: answers.then_some(0),
            lost: (!answers).then(|| "the card does not answer".to_owned()),
            ..GpuSample::default()
        }
    }
}
