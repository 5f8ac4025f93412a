//! The devices as the window shows them.

use neurino_hardware::{Gpu, GpuSample, Sample};
use neurino_protocol::app::{Device, DeviceKind};
use neurino_protocol::cards::{CardChoice, PROCESSOR};

use super::State;
use super::plan::{KnownCard, Plan, id_of};
use crate::mining::Phase;
use crate::{App, lock};

impl State {
    fn choice(&self, id: &str) -> CardChoice {
        self.choices.get(id).cloned().unwrap_or_default()
    }

    /// What a card is called: the person's name for it, else its maker's, with a number where several
    /// of a kind are among `all`.
    fn name(&self, card: &KnownCard, all: &[KnownCard]) -> String {
        if let Some(name) = self.choice(&card.id()).name {
            return name;
        }
        numbered(card, all)
    }

    /// All cards: those that are known, then what the driver shows beyond them, which is hidden by the
    /// environment or cannot compute.
    fn all_cards(&self, shown: &[Gpu]) -> Vec<KnownCard> {
        let hidden =
            shown.iter().filter(|gpu| self.known.iter().all(|card| card.id() != id_of(gpu)));
        let hidden = hidden.map(|gpu| KnownCard { gpu: gpu.clone(), here: true });
        self.known.iter().cloned().chain(hidden).collect()
    }
}

/// The maker's name of a card, with a number where several of `all` have it.
fn numbered(card: &KnownCard, all: &[KnownCard]) -> String {
    let alike = || all.iter().filter(|other| other.gpu.name == card.gpu.name);
    let number = alike().position(|other| other.id() == card.id()).unwrap_or(0) + 1;
    if alike().count() > 1 {
        format!("{} ({number})", card.gpu.name)
    } else {
        card.gpu.name.clone()
    }
}

impl App {
    /// The name of a card for people.
    pub(crate) fn card_name(&self, gpu: &neurino_hardware::Gpu) -> String {
        let hardware = self.hardware();
        let state = lock(&self.cards.state);
        let all = state.all_cards(hardware.gpus());
        let known = state.known.iter().find(|card| card.id() == id_of(gpu));
        known.map_or_else(|| gpu.name.clone(), |card| state.name(card, &all))
    }

    /// The name of the processor for people.
    pub(crate) fn processor_name(&self) -> String {
        let own = lock(&self.cards.state).choice(PROCESSOR).name;
        own.unwrap_or_else(|| self.hardware().cpu().name.clone())
    }

    /// The devices with what they do now; those that compute first.
    pub(crate) async fn devices(&self) -> Vec<Device> {
        let sample = self.sample().await;
        let busy = matches!(lock(&self.mining).phase, Phase::Running(_) | Phase::Finishing(_));
        let mut devices = self.card_devices(&sample, busy);
        devices.push(self.processor(&sample, busy));
        devices.sort_by_key(|d| !d.in_use);
        devices
    }

    fn card_devices(&self, sample: &Sample, busy: bool) -> Vec<Device> {
        let hardware = self.hardware();
        let state = lock(&self.cards.state);
        let all = state.all_cards(hardware.gpus());
        let device = |(index, card): (usize, &KnownCard)| {
            let known = index < state.known.len();
            let (id, gpu) = (card.id(), &card.gpu);
            let planned = |plan: &Plan| plan.cards().iter().find(|c| c.id == id).map(|c| c.role);
            let in_use = planned(&state.plan).is_some();
            let now = sample.gpus.iter().find(|s| s.index == gpu.index).filter(|_| card.here);
            let none = GpuSample::default();
            let now = now.unwrap_or(&none);
            let own = state.choice(&id).name.is_some();
            Device {
                name: state.name(card, &all),
                product: own.then(|| gpu.name.clone()),
                kind: DeviceKind::Gpu,
                in_use,
                note: now.lost.clone().or_else(|| self.card_note(&state, card, known, in_use)),
                choice: (known && self.cards.may_choose_cards()).then(|| state.choice(&id)),
                gone: !card.here,
                pending: busy && planned(&state.plan) != planned(&state.in_force),
                memory_bytes: gpu.memory_bytes.unwrap_or(0),
                memory_used_bytes: now.memory_used_bytes.unwrap_or(0),
                load_percent: now.load_percent,
                temperature_c: now.temperature_c,
                memory_temperature_c: now.memory_temperature_c,
                power_w: now.power_w,
                limit_w: gpu.uuid.as_deref().and_then(|card| self.power.held_w(card)),
                card: id,
            }
        };
        all.iter().enumerate().map(device).collect()
    }

    fn processor(&self, sample: &Sample, busy: bool) -> Device {
        let name = self.processor_name();
        let hardware = self.hardware();
        let cpu = hardware.cpu();
        let state = lock(&self.cards.state);
        let planned = |plan: &Plan| match plan {
            Plan::Processor(role) => Some(*role),
            _ => None,
        };
        let in_use = planned(&state.plan).is_some();
        let alone = in_use || state.plan.is_processor_off();
        Device {
            card: PROCESSOR.into(),
            product: (name != cpu.name).then(|| cpu.name.clone()),
            name,
            kind: DeviceKind::Cpu,
            in_use,
            note: if in_use { Some(self.cpu_note()) } else { alone.then(|| SWITCHED_OFF.into()) },
            choice: alone.then(|| state.choice(PROCESSOR)),
            gone: false,
            pending: busy && planned(&state.plan) != planned(&state.in_force),
            memory_bytes: cpu.memory_bytes,
            memory_used_bytes: sample.cpu.memory_used_bytes,
            load_percent: sample.cpu.load_percent,
            temperature_c: sample.cpu.temperature_c,
            memory_temperature_c: None,
            power_w: None,
            limit_w: None,
        }
    }

    /// Why the processor computes, in one sentence.
    fn cpu_note(&self) -> String {
        let status = self.hardware().nvidia().status();
        if status.is_ready() && self.cards.has_gpu_engine {
            "The settings choose the processor.".into()
        } else if status.is_ready() {
            "This build of Neurino has no NVIDIA engine, so the processor computes.".into()
        } else {
            status.sentence()
        }
    }

    /// Why a card does not compute, in one sentence.
    fn card_note(
        &self,
        state: &State,
        card: &KnownCard,
        known: bool,
        in_use: bool,
    ) -> Option<String> {
        let why = if !card.here {
            "It does not answer any more. Neurino looks for it."
        } else if in_use {
            return None;
        } else if !self.cards.has_gpu_engine {
            "Not used: this build of Neurino has no NVIDIA engine."
        } else if known && self.cards.may_choose_cards() && !state.choice(&card.id()).on {
            SWITCHED_OFF
        } else if known {
            "Not used: the settings choose another device."
        } else {
            "Not used: the environment hides it from CUDA."
        };
        Some(why.into())
    }
}

const SWITCHED_OFF: &str = "Switched off in the settings.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_numbered_over_all_cards_whether_they_compute_or_not() {
        let card = |index: u32, name: &str| KnownCard {
            gpu: Gpu {
                index,
                name: name.into(),
                uuid: Some(format!("GPU-{index}")),
                pci_address: None,
                memory_bytes: None,
                compute_capability: None,
                instance_of: None,
            },
            here: true,
        };
        // The last two are hidden from this program.
        let all = [card(0, "RTX 4090"), card(1, "RTX 3060"), card(2, "RTX 4090"), card(3, "T4")];
        let names = all.each_ref().map(|one| numbered(one, &all));
        assert_eq!(names, ["RTX 4090 (1)", "RTX 3060", "RTX 4090 (2)", "T4"]);
    }
}
