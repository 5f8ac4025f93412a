//! The cards of this machine: which are there, which may be used, and the engine on them.
//!
//! What the person chose and what answers make a [`Plan`]. A run of the miner takes it up when it
//! begins, so that a change lets running jobs finish first; then the next run has another engine. A
//! card that stops answering (its driver restarted, a box was unplugged) is looked for, with waits
//! that grow, and mining goes on by itself when it is back.

pub(crate) mod plan;
mod show;
mod watch;

use std::sync::{Arc, Mutex};

use neurino_config::{CardChoices, DeviceSetting, Dirs, Settings};
use neurino_control::JobDevice;
use neurino_core::JobKind;
use neurino_engine::{Engine, KindOf};
use neurino_hardware::{Gpu, Hardware, LiveHardware};
use neurino_model_store::ModelStore;
use neurino_protocol::cards::{CardChoice, NoCard, PROCESSOR};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::{Notify, watch as news};
use tracing::info;

use crate::start::{EngineHost, VISIBLE_CARDS};
use crate::{App, internal, lock, told_with_causes};

pub(crate) use plan::Seat;
use plan::{KnownCard, Plan, Situation, id_of, is_visible};

/// Letters of a card's name.
const NAME_LETTERS_MAX: usize = 40;

/// What the application knows about cards.
pub(crate) struct Cards {
    hardware: Arc<LiveHardware>,
    host: EngineHost,
    dirs: Dirs,
    store: ModelStore,
    device: DeviceSetting,
    /// Whether this build and this machine can compute on a card.
    has_gpu_engine: bool,
    /// The cards that the environment lets CUDA see; `None` for all.
    visible: Option<String>,
    state: Mutex<State>,
    /// Counts changes of the plan.
    changes: news::Sender<u64>,
    /// There is a reason to look at the cards at once.
    look: Notify,
}

struct State {
    choices: CardChoices,
    known: Vec<KnownCard>,
    /// What should compute.
    plan: Plan,
    /// What the engine was made for.
    in_force: Plan,
    engine: Arc<dyn Engine>,
}

impl Cards {
    /// The cards of this machine as they are now, and an engine on those that may be used. Call it
    /// inside a tokio runtime.
    pub(crate) fn open(
        hardware: Arc<LiveHardware>,
        host: EngineHost,
        dirs: &Dirs,
        store: &ModelStore,
        settings: &Settings,
    ) -> Self {
        let found = hardware.now();
        let ready = found.nvidia().status().is_ready();
        // A driver that is in order while CUDA shows nothing stays a matter of the doctor. Where the
        // driver is not in order yet, it may come to be.
        let shown = || neurino_engine::device::available().len() > 1;
        let has_gpu_engine = hardware.is_scripted()
            || (neurino_engine::device::computes_on_cards() && (!ready || shown()));
        let choices = settings.cards.clone();
        let visible = std::env::var(VISIBLE_CARDS).ok();
        let mut known = Vec::new();
        note(&mut known, &found, visible.as_deref());
        let plan = Situation {
            device: settings.engine.device,
            has_gpu_engine,
            known: &known,
            choices: &choices,
            driver: None,
        }
        .plan();
        let seats = plan.seats(hardware.is_scripted(), known.len() == 1);
        let engine = host.start(dirs, &seats, kind_of(store));
        let state = State { choices, known, in_force: plan.clone(), plan, engine };
        Self {
            hardware,
            host,
            dirs: dirs.clone(),
            store: store.clone(),
            device: settings.engine.device,
            has_gpu_engine,
            visible,
            state: Mutex::new(state),
            changes: news::Sender::new(0),
            look: Notify::new(),
        }
    }

    /// The engine of the plan that holds, made anew if it was for other cards. For the run that has
    /// the turn, before it does anything with an engine.
    ///
    /// # Errors
    /// Why nothing may compute.
    fn take_up(&self) -> Result<(), NoCard> {
        let mut state = lock(&self.state);
        if let Plan::Nothing(why) = &state.plan {
            return Err(why.clone());
        }
        if state.in_force != state.plan {
            let one_card = state.known.len() == 1;
            let seats = state.plan.seats(self.hardware.is_scripted(), one_card);
            info!(engines = seats.len(), cards = state.plan.cards().len(), "the cards changed");
            state.engine = self.host.start(&self.dirs, &seats, kind_of(&self.store));
            state.in_force = state.plan.clone();
        }
        Ok(())
    }

    /// Makes the plan anew; says whether it is another one.
    fn plan_again(&self) -> bool {
        let hardware = self.hardware.now();
        let mut state = lock(&self.state);
        note(&mut state.known, &hardware, self.visible.as_deref());
        let status = hardware.nvidia().status();
        let plan = Situation {
            device: self.device,
            has_gpu_engine: self.has_gpu_engine,
            known: &state.known,
            choices: &state.choices,
            driver: (!status.is_ready()).then(|| status.sentence()),
        }
        .plan();
        let differs = plan != state.plan;
        state.plan = plan;
        drop(state);
        if differs {
            self.changes.send_modify(|count| *count += 1);
        }
        differs
    }

    /// What rules on cards and on processors are about.
    pub(crate) fn job_device(&self) -> JobDevice {
        match &lock(&self.state).plan {
            Plan::Processor(_) | Plan::Nothing(NoCard::ProcessorOff) => JobDevice::Cpu,
            Plan::Cards(_) | Plan::Unseen(_) | Plan::Nothing(_) => JobDevice::Gpu,
        }
    }

    /// Whether switches of cards have an effect: not where the settings choose the processor.
    fn may_choose_cards(&self) -> bool {
        self.has_gpu_engine && self.device != DeviceSetting::Cpu
    }

    /// Whether the person switched a card off.
    pub(crate) fn is_off(&self, card: &str) -> bool {
        lock(&self.state).choices.get(card).is_some_and(|choice| !choice.on)
    }

    /// Whether a card that was here does not answer.
    fn misses_one(&self) -> bool {
        lock(&self.state).known.iter().any(|card| !card.here)
    }
}

/// What is known after a look: what was known, and what is new.
fn note(known: &mut Vec<KnownCard>, hardware: &Hardware, visible: Option<&str>) {
    let ready = hardware.nvidia().status().is_ready();
    let found = hardware.gpus().iter().filter(|gpu| ready && is_visible(visible, gpu));
    for card in known.iter_mut() {
        card.here = false;
    }
    for gpu in found {
        match known.iter_mut().find(|card| card.id() == id_of(gpu)) {
            Some(card) => *card = KnownCard { gpu: gpu.clone(), here: true },
            None => known.push(KnownCard { gpu: gpu.clone(), here: true }),
        }
    }
}

/// Tells what the models of a catalogue make.
fn kind_of(store: &ModelStore) -> KindOf {
    let store = store.clone();
    Box::new(move |id| store.catalog().get(id).map(|model| model.kind))
}

impl App {
    /// The machine as it was last looked at.
    pub(crate) fn hardware(&self) -> Arc<Hardware> {
        self.cards.hardware.now()
    }

    /// The engine on the cards of the last run.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&lock(&self.cards.state).engine)
    }

    /// The cards that compute, or would; the first one first.
    pub(crate) fn used_gpus(&self) -> Vec<Gpu> {
        let state = lock(&self.cards.state);
        let planned = state.plan.cards().iter();
        let gpu = |id: &str| state.known.iter().find(|card| card.id() == *id);
        planned.filter_map(|card| Some(gpu(&card.id)?.gpu.clone())).collect()
    }

    /// The first card that computes, if one does.
    pub(crate) fn used_gpu(&self) -> Option<Gpu> {
        self.used_gpus().into_iter().next()
    }

    pub(crate) fn job_device(&self) -> JobDevice {
        self.cards.job_device()
    }

    /// Whether some device is kept for this kind of work.
    pub(crate) fn computes(&self, kind: JobKind) -> bool {
        lock(&self.cards.state).plan.serves(kind)
    }

    /// Has the cards looked at, at once.
    pub(crate) fn cards_look(&self) {
        self.cards.look.notify_one();
    }

    /// Waits until something may compute, and has the engine on it.
    pub(crate) async fn card_ready(&self) {
        let mut changes = self.cards.changes.subscribe();
        while let Err(why) = self.cards.take_up() {
            self.no_card(Some(why));
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
        self.no_card(None);
    }

    /// Takes the person's choice for a card: written down, and followed as soon as no job is in its
    /// way.
    pub(crate) async fn card_choose(
        self: &Arc<Self>,
        card: &str,
        choice: CardChoice,
    ) -> Result<(), ErrorBody> {
        let known = card == PROCESSOR
            || lock(&self.cards.state).known.iter().any(|known| known.id() == card);
        if !known {
            let message = "This machine has no such card.";
            return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                .with_hint("Nothing was changed."));
        }
        let choice = CardChoice { name: name(choice.name)?, ..choice };
        let (dirs, id, written) = (self.dirs.clone(), card.to_owned(), choice.clone());
        let saving = tokio::task::spawn_blocking(move || Settings::save_card(&dirs, &id, &written));
        let saved = saving.await.map_err(|_| internal("the choice could not be written down"))?;
        saved.map_err(|error| {
            ErrorBody::new(ErrorCode::Internal, told_with_causes(&error))
                .with_hint("Nothing was changed.")
        })?;
        lock(&self.cards.state).choices.insert(card.to_owned(), choice);
        self.follow_cards();
        Ok(())
    }

    /// Makes the plan anew, and has the miner follow it.
    fn follow_cards(self: &Arc<Self>) {
        if self.cards.plan_again() {
            let (differs, lost) = {
                let state = lock(&self.cards.state);
                let gone = matches!(state.plan, Plan::Nothing(NoCard::Gone { .. }));
                (state.plan != state.in_force, gone)
            };
            if differs {
                self.mine_anew(lost);
            }
        }
        self.changed.notify_one();
    }
}

/// A name as it is kept: without blanks around it; none if there is nothing left.
fn name(given: Option<String>) -> Result<Option<String>, ErrorBody> {
    let Some(given) = given else { return Ok(None) };
    let given = given.trim();
    if given.chars().count() > NAME_LETTERS_MAX || given.chars().any(char::is_control) {
        let message = format!("A card's name has up to {NAME_LETTERS_MAX} letters in one line.");
        return Err(
            ErrorBody::new(ErrorCode::InvalidRequest, message).with_hint("Nothing was changed.")
        );
    }
    Ok((!given.is_empty()).then(|| given.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_stay_short() {
        let kept = |text: &str| name(Some(text.into()));
        assert_eq!(kept("  Left one "), Ok(Some("Left one".into())));
        assert_eq!((kept("   "), name(None)), (Ok(None), Ok(None)));
        assert_eq!(kept(&"ä".repeat(40)), Ok(Some("ä".repeat(40))));
        for wrong in ["x".repeat(41), "a\nb".into()] {
            assert!(kept(&wrong).is_err(), "{wrong:?}");
        }
    }
}
