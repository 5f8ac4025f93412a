//! Which cards compute, and what for: from what is there and what the person chose.
//!
//! Pure: no card, driver or engine is touched here.

use std::cmp::Reverse;

use neurino_config::{CardChoices, DeviceSetting};
use neurino_core::JobKind;
use neurino_engine::{DeviceChoice, PlaceCard, PlaceCards, Serves};
use neurino_hardware::Gpu;
use neurino_protocol::cards::{CardChoice, CardRole, NoCard, PROCESSOR};

/// A card that was seen since the program began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownCard {
    /// As it was when it was last seen.
    pub(crate) gpu: Gpu,
    /// Whether it answers.
    pub(crate) here: bool,
}

impl KnownCard {
    /// Its UUID; where the driver does not tell one, its number.
    pub(crate) fn id(&self) -> String {
        id_of(&self.gpu)
    }
}

/// Names a card across starts: its UUID; where the driver does not tell one, its number.
pub(crate) fn id_of(gpu: &Gpu) -> String {
    gpu.uuid.clone().unwrap_or_else(|| format!("cuda:{}", gpu.index))
}

/// What computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// These cards, at least one, in the order of the machine.
    Cards(Vec<PlannedCard>),
    /// The processor.
    Processor(CardRole),
    /// A card that the settings name and nobody has seen: the engine says what is wrong.
    Unseen(u32),
    /// Nothing.
    Nothing(NoCard),
}

/// A card that computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedCard {
    pub(crate) id: String,
    pub(crate) index: u32,
    pub(crate) has_uuid: bool,
    pub(crate) role: CardRole,
    /// Its memory; `None` where the driver does not tell.
    pub(crate) memory_bytes: Option<u64>,
    /// As the engine and the network hear of it.
    pub(crate) card: PlaceCard,
}

/// What one engine computes on, and for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) device: DeviceChoice,
    /// The cards its process sees, in order; `None` for all.
    pub(crate) visible: Option<Vec<String>>,
    pub(crate) serves: Serves,
    /// Its cards, for whoever gives it work; none where it is the processor.
    pub(crate) cards: PlaceCards,
}

/// A card as the engine and the network hear of it.
fn place_card(gpu: &Gpu) -> PlaceCard {
    PlaceCard {
        number: u8::try_from(gpu.card()).unwrap_or(u8::MAX),
        name: gpu.name.clone(),
        memory_bytes: gpu.memory_bytes.unwrap_or(0),
        instance: gpu.instance_of.is_some(),
    }
}

/// What a role means for engines.
pub(crate) fn serves(role: CardRole) -> Serves {
    Serves { text: role != CardRole::Pictures, pictures: role != CardRole::Text }
}

/// What is known when a plan is made.
pub(crate) struct Situation<'a> {
    /// What `settings.toml` or the environment say of the device.
    pub(crate) device: DeviceSetting,
    /// Whether this build and this machine can compute on cards.
    pub(crate) has_gpu_engine: bool,
    pub(crate) known: &'a [KnownCard],
    pub(crate) choices: &'a CardChoices,
    /// What the driver's state says where it is not in order, in one sentence.
    pub(crate) driver: Option<String>,
}

impl Situation<'_> {
    /// What the person chose for a card; what was never chosen is the usual.
    fn choice(&self, id: &str) -> CardChoice {
        self.choices.get(id).cloned().unwrap_or_default()
    }

    /// The plan.
    pub(crate) fn plan(&self) -> Plan {
        let may_compute = self.has_gpu_engine && self.device != DeviceSetting::Cpu;
        if !may_compute || (self.known.is_empty() && self.device == DeviceSetting::Auto) {
            let processor = self.choice(PROCESSOR);
            return if processor.on {
                Plan::Processor(processor.role)
            } else {
                Plan::Nothing(NoCard::ProcessorOff)
            };
        }
        let named = |card: &&KnownCard| match self.device {
            DeviceSetting::Cuda(index) => card.gpu.index == index,
            DeviceSetting::Auto | DeviceSetting::Cpu => true,
        };
        let named: Vec<_> = self.known.iter().filter(named).collect();
        if let (DeviceSetting::Cuda(index), true) = (self.device, named.is_empty()) {
            return Plan::Unseen(index);
        }
        let on: Vec<_> = named.into_iter().filter(|card| self.choice(&card.id()).on).collect();
        let Some(first) = on.first() else { return Plan::Nothing(NoCard::Off) };
        let here = on.iter().filter(|card| card.here).map(|card| PlannedCard {
            id: card.id(),
            index: card.gpu.index,
            has_uuid: card.gpu.uuid.is_some(),
            role: self.choice(&card.id()).role,
            memory_bytes: card.gpu.memory_bytes,
            card: place_card(&card.gpu),
        });
        let here: Vec<_> = here.collect();
        if here.is_empty() {
            let name = self.choice(&first.id()).name.unwrap_or_else(|| first.gpu.name.clone());
            let (several, driver) = (on.len() > 1, self.driver.clone());
            return Plan::Nothing(NoCard::Gone { card: name, several, driver });
        }
        Plan::Cards(here)
    }
}

impl Plan {
    /// Whether models of this kind are computed.
    pub(crate) fn serves(&self, kind: JobKind) -> bool {
        match self {
            Self::Cards(cards) => cards.iter().any(|card| serves(card.role).kind(kind)),
            Self::Processor(role) => serves(*role).kind(kind),
            Self::Unseen(_) => true,
            Self::Nothing(_) => false,
        }
    }

    /// Whether the processor would compute, were it not switched off.
    pub(crate) fn is_processor_off(&self) -> bool {
        matches!(self, Self::Nothing(NoCard::ProcessorOff))
    }

    /// The cards that compute.
    pub(crate) fn cards(&self) -> &[PlannedCard] {
        match self {
            Self::Cards(cards) => cards,
            Self::Processor(_) | Self::Unseen(_) | Self::Nothing(_) => &[],
        }
    }

    /// The engines; none where nothing computes. `scripted` cards are played, so the processor
    /// computes in their stead.
    ///
    /// For each kind of work: the first engine has all cards that serve it, those first that serve
    /// nothing else and of these the one with the most memory, so that a model which one card does not
    /// hold is split over permitted cards; each further card has an engine of its own. Engines with the
    /// same cards are one. An instance of a divided card is always alone: CUDA shows a process one of them.
    ///
    /// - `one_card`: the machine has a single card, so nothing has to be hidden from a process
    pub(crate) fn seats(&self, scripted: bool, one_card: bool) -> Vec<Seat> {
        let on =
            |device, serves| Seat { device, visible: None, serves, cards: PlaceCards::default() };
        let cards = match self {
            Self::Cards(cards) => cards,
            Self::Processor(role) => return vec![on(DeviceChoice::Cpu, serves(*role))],
            Self::Unseen(index) => return vec![on(DeviceChoice::Cuda(*index), Serves::BOTH)],
            Self::Nothing(_) => return Vec::new(),
        };
        let mut seats: Vec<(Vec<&PlannedCard>, Serves)> = Vec::new();
        for kind in [JobKind::Text, JobKind::Image] {
            let mut able: Vec<_> =
                cards.iter().filter(|card| serves(card.role).kind(kind)).collect();
            able.sort_by_key(|card| (card.role == CardRole::Both, Reverse(card.memory_bytes)));
            let (instances, able): (Vec<_>, Vec<_>) =
                able.into_iter().partition(|card| card.card.instance);
            let further = able.iter().skip(1).chain(&instances).map(|card| vec![*card]);
            for group in std::iter::once(able.clone()).chain(further) {
                if group.is_empty() {
                    continue;
                }
                let found = seats.iter().position(|(cards, _)| *cards == group);
                let index = found.unwrap_or(seats.len());
                if found.is_none() {
                    seats.push((group, Serves { text: false, pictures: false }));
                }
                let seat = &mut seats[index].1;
                seat.text |= kind == JobKind::Text;
                seat.pictures |= kind == JobKind::Image;
            }
        }
        let mut seats: Vec<_> =
            seats.into_iter().map(|(group, serves)| seat_on(&group, serves, scripted)).collect();
        if one_card && !cards.iter().any(|card| card.card.instance) {
            for seat in &mut seats {
                seat.visible = None;
            }
        }
        seats
    }
}

fn seat_on(group: &[&PlannedCard], serves: Serves, scripted: bool) -> Seat {
    let named = group.iter().all(|card| card.has_uuid);
    let device = match group {
        _ if scripted => DeviceChoice::Auto,
        // A driver without UUIDs leaves the number, by which several cannot be chosen.
        [one, ..] if !named => DeviceChoice::Cuda(one.index),
        _ => DeviceChoice::Cards,
    };
    let visible = named.then(|| group.iter().map(|card| card.id.clone()).collect());
    let cards = PlaceCards(group.iter().map(|card| card.card.clone()).collect());
    Seat { device, visible, serves, cards }
}

/// Whether the environment lets CUDA see a card: `list` is what `CUDA_VISIBLE_DEVICES` says, with
/// numbers or beginnings of UUIDs.
pub(crate) fn is_visible(list: Option<&str>, gpu: &Gpu) -> bool {
    let Some(list) = list else { return true };
    list.split(',').map(str::trim).any(|entry| {
        let by_uuid = gpu.uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry));
        if entry.starts_with("MIG-") {
            // A card whose driver does not tell of its instances stands for all of them.
            return by_uuid || gpu.instance_of.is_none();
        }
        (entry.starts_with("GPU-") && by_uuid) || entry == gpu.card().to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32) -> Gpu {
        Gpu {
            index,
            name: format!("Card {index}"),
            uuid: Some(format!("GPU-{index}")),
            pci_address: None,
            memory_bytes: Some(8 << 30),
            compute_capability: None,
            instance_of: None,
        }
    }

    /// A card, and two instances of another one.
    fn divided() -> Vec<KnownCard> {
        let part = |index: u32| Gpu {
            name: "Card 1 MIG 1g.10gb".into(),
            uuid: Some(format!("MIG-{index}")),
            instance_of: Some(1),
            ..gpu(index)
        };
        let gpus = [gpu(0), part(2), part(3)];
        gpus.map(|gpu| KnownCard { gpu, here: true }).to_vec()
    }

    fn known(here: &[bool]) -> Vec<KnownCard> {
        (0..).zip(here).map(|(index, here)| KnownCard { gpu: gpu(index), here: *here }).collect()
    }

    fn chosen(choices: &[(&str, bool, CardRole)]) -> CardChoices {
        let choice = |on, role| CardChoice { on, role, name: None };
        choices.iter().map(|(id, on, role)| ((*id).to_owned(), choice(*on, *role))).collect()
    }

    fn plan_of(device: DeviceSetting, known: &[KnownCard], choices: &CardChoices) -> Plan {
        Situation { device, has_gpu_engine: true, known, choices, driver: None }.plan()
    }

    /// The seats as text: the cards of each, and T or P for what it serves.
    fn seats(choices: &[(&str, bool, CardRole)], here: &[bool]) -> Vec<String> {
        let plan = plan_of(DeviceSetting::Auto, &known(here), &chosen(choices));
        let told = |seat: Seat| {
            assert_eq!(seat.device, DeviceChoice::Cards);
            let cards = seat.visible.unwrap_or_default().join("+").replace("GPU-", "");
            let text = if seat.serves.text { "T" } else { "" };
            format!("{cards}:{text}{}", if seat.serves.pictures { "P" } else { "" })
        };
        plan.seats(false, false).into_iter().map(told).collect()
    }

    #[test]
    fn engines_see_the_permitted_cards_and_no_other() {
        use CardRole::{Both, Pictures, Text};
        assert_eq!(seats(&[], &[true]), ["0:TP"]);
        assert_eq!(seats(&[], &[true; 3]), ["0+1+2:TP", "1:TP", "2:TP"]);
        assert_eq!(seats(&[("GPU-1", false, Both)], &[true; 3]), ["0+2:TP", "2:TP"]);
        let split = [("GPU-0", true, Text), ("GPU-1", true, Pictures)];
        assert_eq!(seats(&split, &[true; 2]), ["0:T", "1:P"]);
        // A card for text beside one for everything: text goes to the first of them first, and a text
        // model that is too large for one is split over both.
        assert_eq!(seats(&[("GPU-1", true, Text)], &[true; 2]), ["1+0:T", "0:TP"]);
        assert_eq!(seats(&[("GPU-0", true, Pictures)], &[true]), ["0:P"]);
        assert_eq!(seats(&[], &[true, false]), ["0:TP"], "one does not answer");
    }

    #[test]
    fn the_card_with_the_most_memory_comes_first() {
        let mut cards = known(&[true; 3]);
        cards[1].gpu.memory_bytes = Some(24 << 30);
        let plan = plan_of(DeviceSetting::Auto, &cards, &CardChoices::new());
        let visible =
            plan.seats(false, false).into_iter().map(|seat| seat.visible.unwrap_or_default());
        let visible: Vec<String> = visible.map(|cards| cards.join("+")).collect();
        assert_eq!(visible, ["GPU-1+GPU-0+GPU-2", "GPU-0", "GPU-2"]);
    }

    #[test]
    fn instances_of_a_divided_card_are_engines_of_their_own() {
        let plan = plan_of(DeviceSetting::Auto, &divided(), &CardChoices::new());
        let seats = plan.seats(false, false);
        let visible = |seat: &Seat| seat.visible.clone().unwrap_or_default().join("+");
        assert_eq!(seats.iter().map(visible).collect::<Vec<_>>(), ["GPU-0", "MIG-2", "MIG-3"]);
        let cards = |seat: &Seat| {
            let of = seat.cards.0.iter();
            of.map(|card| (card.number, card.instance)).collect::<Vec<_>>()
        };
        let told: Vec<_> = seats.iter().flat_map(cards).collect();
        assert_eq!(told, [(0, false), (1, true), (1, true)]);
        // A single one is named, too: CUDA would take any.
        let single = plan_of(DeviceSetting::Auto, &divided()[1..2], &CardChoices::new());
        assert_eq!(visible(&single.seats(false, true)[0]), "MIG-2");
        // Each has a switch of its own.
        let off = chosen(&[("MIG-2", false, CardRole::Both)]);
        let seats = plan_of(DeviceSetting::Auto, &divided(), &off).seats(false, false);
        assert_eq!(seats.iter().map(visible).collect::<Vec<_>>(), ["GPU-0", "MIG-3"]);
        let sees = |list| [0, 1, 2].map(|at| is_visible(Some(list), &divided()[at].gpu));
        assert_eq!(sees("MIG-3"), [true, false, true]);
        assert_eq!(sees("1"), [false, true, true]);
    }

    #[test]
    fn no_card_left_is_said_and_the_processor_does_not_step_in() {
        let off = |id| (id, false, CardRole::Both);
        let auto = |choices: &[_], here: &[bool]| {
            plan_of(DeviceSetting::Auto, &known(here), &chosen(choices))
        };
        assert_eq!(auto(&[off("GPU-0")], &[true]), Plan::Nothing(NoCard::Off));
        assert!(auto(&[off("GPU-0")], &[true]).seats(false, true).is_empty());
        let gone = |card: &str, several| NoCard::Gone { card: card.into(), several, driver: None };
        assert_eq!(auto(&[], &[false]), Plan::Nothing(gone("Card 0", false)));
        assert_eq!(auto(&[off("GPU-0")], &[true, false]), Plan::Nothing(gone("Card 1", false)));
        assert_eq!(auto(&[], &[false, false]), Plan::Nothing(gone("Card 0", true)));
        // Without any card, the processor is one.
        assert_eq!(auto(&[], &[]), Plan::Processor(CardRole::Both));
        assert_eq!(auto(&[off(PROCESSOR)], &[]), Plan::Nothing(NoCard::ProcessorOff));
        let text = auto(&[(PROCESSOR, true, CardRole::Text)], &[]);
        assert!(text.serves(JobKind::Text) && !text.serves(JobKind::Image));
    }

    #[test]
    fn the_settings_can_name_one_device() {
        let (cards, none) = (known(&[true, true]), CardChoices::new());
        let named = plan_of(DeviceSetting::Cuda(1), &cards, &none);
        assert_eq!(named.cards().iter().map(|card| card.index).collect::<Vec<_>>(), [1]);
        assert_eq!(plan_of(DeviceSetting::Cpu, &cards, &none), Plan::Processor(CardRole::Both));
        assert_eq!(plan_of(DeviceSetting::Cuda(7), &cards, &none), Plan::Unseen(7));
        let off = chosen(&[("GPU-1", false, CardRole::Both)]);
        let switched_off = plan_of(DeviceSetting::Cuda(1), &cards, &off);
        assert_eq!(switched_off, Plan::Nothing(NoCard::Off), "the switch wins");
        let cpu_build = Situation {
            device: DeviceSetting::Auto,
            has_gpu_engine: false,
            known: &cards,
            choices: &none,
            driver: None,
        };
        assert_eq!(cpu_build.plan(), Plan::Processor(CardRole::Both));
    }

    #[test]
    fn cards_without_uuids_are_taken_by_number_and_played_ones_by_the_processor() {
        let mut cards = known(&[true]);
        cards[0].gpu.uuid = None;
        let plan = plan_of(DeviceSetting::Auto, &cards, &CardChoices::new());
        let seat = plan.seats(false, false).remove(0);
        assert_eq!((seat.device, seat.visible), (DeviceChoice::Cuda(0), None));
        let plan = plan_of(DeviceSetting::Auto, &known(&[true]), &CardChoices::new());
        assert_eq!(plan.seats(true, false)[0].device, DeviceChoice::Auto);
        assert_eq!(plan.seats(false, true)[0].visible, None, "there is nothing to hide");
    }

    #[test]
    fn what_the_environment_hides_stays_hidden() {
        let visible = |list| [0, 1].map(|index| is_visible(list, &gpu(index)));
        assert_eq!(visible(None), [true, true]);
        assert_eq!(visible(Some("1")), [false, true]);
        assert_eq!(visible(Some("GPU-0, 1")), [true, true]);
        assert_eq!(visible(Some("")), [false, false]);
        assert_eq!(visible(Some("-1")), [false, false]);
        assert_eq!(visible(Some("MIG-1")), [true, true]);
    }
}
