//! Power: limits of cards while they mine, the search for the best one, and keeping the computer
//! awake. What is changed is restored when mining ends, pauses or is killed; see `neurino-power`.

mod awake;
mod limits;
mod sweep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use neurino_config::{Dirs, PowerFile};
use neurino_hardware::{CardPower, PowerCard, PowerFault};
use neurino_platform::Awake;
use neurino_power::{FileJournal, Keeper};
use neurino_protocol::power::{
    AwakeState, LimitState, PowerCardView, PowerCommand, PowerSettings, PowerView, WattRange,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::Notify;
use tracing::warn;

use crate::{App, internal, lock, told_with_causes};

use limits::Outcome;
use sweep::SweepRun;

/// Of its usual limit, what the command for the administrator proposes, in per cent.
const PROPOSED_PERCENT: u32 = 75;

/// What the application knows about power.
pub(crate) struct Power {
    cards: Arc<dyn CardPower>,
    /// Who holds limits; else why limits are left alone.
    keeper: Arc<Mutex<Result<Keeper, String>>>,
    file: PowerFile,
    settings: Mutex<PowerSettings>,
    /// What became of each card's limit.
    outcomes: Mutex<HashMap<String, Outcome>>,
    sweep: Mutex<Option<SweepRun>>,
    /// Nothing where the caller keeps the computer awake, or not.
    awake: Option<Arc<Mutex<Box<dyn Awake>>>>,
    awake_state: Mutex<AwakeState>,
    awake_seen: Mutex<awake::Seen>,
    /// Something was chosen: act on it now.
    chosen: Notify,
}

impl Power {
    /// Opens the journal and restores what a run that was killed left changed.
    pub(crate) async fn open(
        dirs: &Dirs,
        cards: Arc<dyn CardPower>,
        awake: Option<Box<dyn Awake>>,
    ) -> Self {
        let file = PowerFile::new(dirs);
        let folder = dirs.data.join("machine");
        let opening = Arc::clone(&cards);
        let keeper = tokio::task::spawn_blocking(move || {
            let journal = Box::new(FileJournal::new(folder.join("power-limits.json")));
            let made = std::fs::create_dir_all(&folder).map_err(|error| error.to_string());
            let opened = made.and_then(|()| {
                Keeper::open(opening, journal).map_err(|error| told_with_causes(&error))
            });
            let mut keeper =
                opened.inspect_err(|problem| warn!(problem, "power limits are left alone"))?;
            limits::give_back(&mut keeper);
            Ok(keeper)
        });
        let keeper = keeper.await.unwrap_or_else(|_| Err("the cards cannot be read".into()));
        Self {
            cards,
            keeper: Arc::new(Mutex::new(keeper)),
            settings: Mutex::new(file.load()),
            file,
            outcomes: Mutex::new(HashMap::new()),
            sweep: Mutex::new(None),
            awake: awake.map(|awake| Arc::new(Mutex::new(awake))),
            awake_state: Mutex::new(AwakeState::Released),
            awake_seen: Mutex::new(awake::Seen::default()),
            chosen: Notify::new(),
        }
    }

    /// What failed or was set by others before is tried again: the person has chosen.
    fn try_again(&self, card: &str) {
        if let Ok(keeper) = lock(&self.keeper).as_mut() {
            keeper.insist(card);
        }
        lock(&self.outcomes).remove(card);
    }

    /// The limit that this program holds on a card, in watts.
    pub(crate) fn held_w(&self, card: &str) -> Option<u32> {
        match lock(&self.outcomes).get(card)? {
            Outcome::Held { limit_mw } => Some(limit_mw.div_ceil(1000)),
            Outcome::Theirs | Outcome::Failed(..) => None,
        }
    }
}

impl App {
    /// Answers the window about power.
    pub(crate) async fn power(
        self: &Arc<Self>,
        command: PowerCommand,
    ) -> Result<PowerView, ErrorBody> {
        match command {
            PowerCommand::Look => {}
            PowerCommand::Limit { card, limit_w } => self.choose_limit(&card, limit_w).await?,
            PowerCommand::KeepAwake { when } => {
                self.choose(|settings| settings.keep_awake = when)?;
            }
            PowerCommand::SweepStart { card } => self.sweep_start(&card).await?,
            PowerCommand::SweepStop => self.sweep_stop(),
        }
        self.power_view().await
    }

    /// Saves a choice and acts on it.
    fn choose(&self, change: impl FnOnce(&mut PowerSettings)) -> Result<(), ErrorBody> {
        let mut settings = lock(&self.power.settings);
        let mut new = settings.clone();
        change(&mut new);
        self.power.file.save(&new).map_err(|e| internal(told_with_causes(&e)))?;
        *settings = new;
        self.power.chosen.notify_one();
        Ok(())
    }

    async fn choose_limit(&self, card: &str, limit_w: Option<u32>) -> Result<(), ErrorBody> {
        let known = self.power_card(card).await?;
        if let Some(limit_w) = limit_w {
            let range = watts(&changeable(&known)?);
            if !(range.least_w..=range.most_w).contains(&limit_w) {
                let (least, most) = (range.least_w, range.most_w);
                let message = format!("This card takes {least} to {most} watts, not {limit_w}.");
                return Err(ErrorBody::new(ErrorCode::InvalidRequest, message)
                    .with_hint("Nothing was changed."));
            }
        }
        self.power.try_again(card);
        self.choose(|settings| match limit_w {
            Some(limit_w) => {
                settings.limits_w.insert(card.to_owned(), limit_w);
            }
            None => {
                settings.limits_w.remove(card);
            }
        })
    }

    async fn power_cards(&self) -> Result<Vec<PowerCard>, ErrorBody> {
        let cards = Arc::clone(&self.power.cards);
        let asking = tokio::task::spawn_blocking(move || cards.cards());
        asking.await.map_err(|_| internal("the cards cannot be read"))
    }

    async fn power_card(&self, card: &str) -> Result<PowerCard, ErrorBody> {
        let found = self.power_cards().await?.into_iter().find(|known| known.uuid == card);
        found.ok_or_else(|| {
            ErrorBody::new(ErrorCode::InvalidRequest, "There is no such card any more.")
        })
    }

    /// Everything the settings show about power, now.
    async fn power_view(&self) -> Result<PowerView, ErrorBody> {
        let cards = self.power_cards().await?;
        let asked = Arc::clone(&self.power.cards);
        let limits = tokio::task::spawn_blocking(move || {
            let with_limit = |card: PowerCard| (asked.limit_mw(&card.uuid).ok(), card);
            cards.into_iter().map(with_limit).collect::<Vec<_>>()
        });
        let limits = limits.await.map_err(|_| internal("the cards cannot be read"))?;
        let broken = lock(&self.power.keeper).as_ref().err().cloned();
        let (outcomes, settings) = (lock(&self.power.outcomes), lock(&self.power.settings));
        let card = |(now_mw, card): (Option<u32>, PowerCard)| {
            let outcome = outcomes.get(&card.uuid);
            let state = match &broken {
                Some(message) => LimitState::Failed { message: message.clone() },
                None => state_of(&card, outcome),
            };
            let range = card.range.as_ref().ok().map(watts);
            PowerCardView {
                limit_w: settings.limits_w.get(&card.uuid).copied(),
                now_w: now_mw.map(|limit_mw| limit_mw.div_ceil(1000)),
                command: (state == LimitState::NoPermission)
                    .then(|| range.map(|range| command(card.index, &range)))
                    .flatten(),
                card: card.uuid,
                name: card.name,
                range,
                state,
            }
        };
        let cards: Vec<_> = limits.into_iter().map(card).collect();
        Ok(PowerView {
            no_cards: cards.is_empty().then(|| self.no_cards()),
            cards,
            sweep: lock(&self.power.sweep).as_ref().map(SweepRun::view),
            keep_awake: settings.keep_awake,
            awake: lock(&self.power.awake_state).clone(),
        })
    }

    fn no_cards(&self) -> String {
        let status = self.hardware().nvidia().status();
        if status.is_ready() {
            "The driver shows no card whose power could be limited.".into()
        } else {
            status.sentence()
        }
    }
}

/// What a card's limit may be, if this program may change it.
fn changeable(card: &PowerCard) -> Result<neurino_hardware::PowerRange, ErrorBody> {
    let refused = |fault: &PowerFault| {
        let body = ErrorBody::new(ErrorCode::InvalidRequest, format!("Not possible: {fault}."));
        match fault {
            PowerFault::NoPermission => body.with_hint(
                "Set the limit as the administrator, or start Neurino as the administrator.",
            ),
            _ => body,
        }
    };
    let range = card.range.as_ref().map_err(refused)?;
    match state_of(card, None) {
        LimitState::NoPermission => Err(refused(&PowerFault::NoPermission)),
        _ => Ok(*range),
    }
}

fn state_of(card: &PowerCard, outcome: Option<&Outcome>) -> LimitState {
    let fault = |fault: &PowerFault| match fault {
        PowerFault::NotSupported => LimitState::NotSupported,
        PowerFault::NoPermission => LimitState::NoPermission,
        PowerFault::Lost | PowerFault::Failed(_) => {
            LimitState::Failed { message: fault.to_string() }
        }
    };
    match (&card.range, outcome) {
        (Err(why), _) | (Ok(_), Some(Outcome::Failed(_, Some(why), _))) => fault(why),
        // Known before anything was tried.
        (Ok(_), None) if card.may_set == Some(false) => LimitState::NoPermission,
        (Ok(_), None) => LimitState::Own,
        (Ok(_), Some(Outcome::Held { .. })) => LimitState::Held,
        (Ok(_), Some(Outcome::Theirs)) => LimitState::Theirs,
        (Ok(_), Some(Outcome::Failed(_, None, message))) => {
            LimitState::Failed { message: message.clone() }
        }
    }
}

/// The range in watts, within what the card takes.
fn watts(range: &neurino_hardware::PowerRange) -> WattRange {
    WattRange {
        least_w: range.least_mw.div_ceil(1000),
        most_w: range.most_mw / 1000,
        usual_w: range.usual_mw / 1000,
    }
}

/// What the administrator can type.
fn command(index: u32, range: &WattRange) -> String {
    let proposed = (range.usual_w * PROPOSED_PERCENT / 100).clamp(range.least_w, range.most_w);
    let sudo = if cfg!(windows) { "" } else { "sudo " };
    format!("{sudo}nvidia-smi -i {index} -pl {proposed}")
}
