//! Power limits and sleep, on cards that a file plays and a system that the test plays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use neurino_app::AppOptions;
use neurino_control::{Program, Rules};
use neurino_platform::{Awake, AwakeError, Surroundings, View};
use neurino_power::{CardPower as _, FileJournal, Keeper, ScriptedCards};
use neurino_protocol::app::{Command, MiningState, Reply, StopMode};
use neurino_protocol::cards::CardChoice;
use neurino_protocol::power::{
    AwakeState, KeepAwake, LimitState, PowerCommand, PowerView, SweepStage,
};

use crate::world::{PATIENCE, Viewer, World};

const CARD: &str = "GPU-1";
const OWN_W: u32 = 450;

/// The cards of a world, and a computer that can be kept awake.
struct Plant {
    world: World,
    path: PathBuf,
    cards: Arc<ScriptedCards>,
    desk: Arc<Mutex<View>>,
    awake: Arc<AtomicBool>,
}

struct PlayedDesk(Arc<Mutex<View>>);

impl Surroundings for PlayedDesk {
    fn look(&mut self) -> View {
        self.0.lock().unwrap().clone()
    }
}

struct PlayedSleep(Arc<AtomicBool>);

impl Awake for PlayedSleep {
    fn hold(&mut self, _why: &str) -> Result<(), AwakeError> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn release(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Plant {
    fn new(may_set: bool) -> Self {
        let world = World::answering("fine");
        let path = world.home.path().join("cards.json");
        let text = format!(
            r#"[{{"uuid":"{CARD}","name":"Card","least_mw":100000,"most_mw":600000,
                "usual_mw":450000,"limit_mw":450000,"may_set":{may_set}}}]"#
        );
        std::fs::write(&path, text).unwrap();
        let cards = Arc::new(ScriptedCards::new(path.clone()));
        let desk = View { idle_secs: Some(9999), programs: Some(vec![]), ..View::default() };
        let awake = Arc::new(AtomicBool::new(false));
        Self { world, path, cards, desk: Arc::new(Mutex::new(desk)), awake }
    }

    async fn start(&self) -> Viewer {
        let options = AppOptions {
            surroundings: Some(Box::new(PlayedDesk(Arc::clone(&self.desk)))),
            cards: Some(Arc::new(ScriptedCards::new(self.path.clone()))),
            awake: Some(Box::new(PlayedSleep(Arc::clone(&self.awake)))),
            ..self.world.options()
        };
        Viewer::start(options).await.unwrap()
    }

    fn limit_w(&self) -> u32 {
        self.cards.limit_mw(CARD).unwrap() / 1000
    }

    async fn until_limit(&self, viewer: &Viewer, watts: u32) {
        viewer.until(&format!("{watts} W"), |_| self.limit_w() == watts).await;
    }
}

async fn ask(viewer: &Viewer, command: PowerCommand) -> PowerView {
    match viewer.command(Command::Power(command)).await {
        Ok(Reply::Power(view)) => *view,
        other => panic!("{other:?}"),
    }
}

fn limit(limit_w: Option<u32>) -> PowerCommand {
    PowerCommand::Limit { card: CARD.into(), limit_w }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_while_it_mines_and_a_game_gets_the_whole_card() {
    let plant = Plant::new(true);
    let viewer = plant.start().await;
    let view = ask(&viewer, limit(Some(300))).await;
    assert_eq!((view.cards[0].limit_w, view.cards[0].now_w), (Some(300), Some(OWN_W)));
    assert_eq!(plant.limit_w(), OWN_W, "nothing mines yet");
    viewer.mine_until_ready().await;
    plant.until_limit(&viewer, 300).await;
    assert_eq!(ask(&viewer, PowerCommand::Look).await.cards[0].state, LimitState::Held);
    let game = Program::at("/games/steamapps/common/DOOM/doom");
    plant.desk.lock().unwrap().programs = Some(vec![game]);
    viewer.until_state(MiningState::Paused).await;
    plant.until_limit(&viewer, OWN_W).await;
    viewer.stop(StopMode::Now).await;
    plant.desk.lock().unwrap().programs = Some(vec![]);
    viewer.mine_until_ready().await;
    plant.until_limit(&viewer, 300).await;
    viewer.stop(StopMode::Now).await;
    assert_eq!(plant.limit_w(), OWN_W, "a stop has restored it when it returns");
    viewer.mine_until_ready().await;
    plant.until_limit(&viewer, 300).await;
    ask(&viewer, limit(None)).await;
    plant.until_limit(&viewer, OWN_W).await;
    ask(&viewer, limit(Some(250))).await;
    plant.until_limit(&viewer, 250).await;
    viewer.app.shutdown().await;
    assert_eq!(plant.limit_w(), OWN_W, "and so has the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_switched_off_keeps_its_own_limit() {
    let plant = Plant::new(true);
    let one = std::fs::read_to_string(&plant.path).unwrap();
    let card = one.trim_matches(['[', ']']).replacen('{', "{\"memory_bytes\":8589934592,", 1);
    std::fs::write(&plant.path, format!("[{card},{}]", card.replace(CARD, "GPU-2"))).unwrap();
    let options = AppOptions {
        cards: Some(Arc::new(ScriptedCards::new(plant.path.clone()))),
        card_script: Some(plant.path.clone()),
        ..plant.world.options()
    };
    let viewer = Viewer::start(options).await.unwrap();
    for card in [CARD, "GPU-2"] {
        let limit = PowerCommand::Limit { card: card.into(), limit_w: Some(300) };
        ask(&viewer, limit).await;
    }
    let off = CardChoice { on: false, ..CardChoice::default() };
    let choose = |choice| Command::CardChoose { card: CARD.into(), choice };
    assert_eq!(viewer.command(choose(off)).await, Ok(Reply::Ok));
    viewer.mine_until_ready().await;
    let second_w = || plant.cards.limit_mw("GPU-2").unwrap() / 1000;
    viewer.until("300 W on the other", |_| second_w() == 300).await;
    assert_eq!(plant.limit_w(), OWN_W);
    assert_eq!(viewer.command(choose(CardChoice::default())).await, Ok(Reply::Ok));
    plant.until_limit(&viewer, 300).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_restores_what_a_killed_run_left() {
    let plant = Plant::new(true);
    // What a run that was killed leaves behind: the journal of its own folder, and the limit.
    let folder = plant.world.dirs().data.join("machine");
    std::fs::create_dir_all(&folder).unwrap();
    let journal = Box::new(FileJournal::new(folder.join("power-limits.json")));
    let cards = Arc::clone(&plant.cards);
    Keeper::open(cards, journal).unwrap().hold(CARD, 222_000).unwrap();
    assert_eq!(plant.limit_w(), 222);
    let viewer = plant.start().await;
    assert_eq!(plant.limit_w(), OWN_W);
    assert!(!folder.join("power-limits.json").exists());
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_sets_is_left_alone() {
    let plant = Plant::new(true);
    let viewer = plant.start().await;
    ask(&viewer, limit(Some(300))).await;
    viewer.mine_until_ready().await;
    plant.until_limit(&viewer, 300).await;
    plant.cards.set_limit_mw(CARD, 380_000).unwrap();
    let began = std::time::Instant::now();
    while ask(&viewer, PowerCommand::Look).await.cards[0].state != LimitState::Theirs {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(plant.limit_w(), 380);
    // Who chooses anew means it; and theirs is what comes back.
    ask(&viewer, limit(Some(310))).await;
    plant.until_limit(&viewer, 310).await;
    viewer.app.shutdown().await;
    assert_eq!(plant.limit_w(), 380);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_permission_the_setting_says_so_and_what_to_type() {
    let plant = Plant::new(false);
    let viewer = plant.start().await;
    let view = ask(&viewer, PowerCommand::Look).await;
    assert_eq!(view.cards[0].state, LimitState::NoPermission);
    let command = view.cards[0].command.clone().unwrap();
    assert!(command.ends_with("nvidia-smi -i 0 -pl 337"), "{command}");
    let refused = viewer.command(Command::Power(limit(Some(300)))).await.unwrap_err();
    assert!(refused.message.contains("administrator") && refused.hint.is_some(), "{refused:?}");
    let beyond = Plant::new(true);
    let viewer = beyond.start().await;
    let refused = viewer.command(Command::Power(limit(Some(900)))).await.unwrap_err();
    assert_eq!(refused.message, "This card takes 100 to 600 watts, not 900.");
    let start = PowerCommand::SweepStart { card: CARD.into() };
    let refused = viewer.command(Command::Power(start)).await.unwrap_err();
    assert!(refused.hint.is_some_and(|hint| hint.contains("Press Start")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_holds_its_limits_and_ends_with_mining() {
    let plant = Plant::new(true);
    let viewer = plant.start().await;
    ask(&viewer, limit(Some(300))).await;
    viewer.mine_until_ready().await;
    plant.until_limit(&viewer, 300).await;
    let view = ask(&viewer, PowerCommand::SweepStart { card: CARD.into() }).await;
    assert_eq!(view.sweep.unwrap().trying_w, Some(450));
    plant.until_limit(&viewer, 450).await;
    ask(&viewer, PowerCommand::SweepStop).await;
    plant.until_limit(&viewer, 300).await;
    ask(&viewer, PowerCommand::SweepStart { card: CARD.into() }).await;
    plant.until_limit(&viewer, 450).await;
    viewer.stop(StopMode::Now).await;
    viewer.until("over", |_| plant.limit_w() == OWN_W).await;
    let began = std::time::Instant::now();
    while ask(&viewer, PowerCommand::Look).await.sweep.unwrap().stage != SweepStage::Stopped {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_at_the_machine_gets_most_of_the_card() {
    let plant = Plant::new(true);
    let viewer = plant.start().await;
    let rules = Rules { gentle: true, gentle_power_percent: 60, ..Rules::default() };
    let set = Command::RulesSet { rules: Box::new(rules) };
    assert!(matches!(viewer.command(set).await, Ok(Reply::Rules(_))));
    viewer.mine_until_ready().await;
    assert_eq!(plant.limit_w(), OWN_W, "nobody is there");
    plant.desk.lock().unwrap().idle_secs = Some(3);
    plant.until_limit(&viewer, 270).await;
    let words = "Going easy while you use the computer.";
    viewer.until("told", |s| s.mining.sentence.ends_with(words)).await;
    plant.desk.lock().unwrap().idle_secs = Some(301);
    plant.until_limit(&viewer, OWN_W).await;
    viewer.until("told", |s| !s.mining.sentence.ends_with(words)).await;
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_computer_is_awake_while_it_works_and_no_longer() {
    let plant = Plant::new(true);
    let viewer = plant.start().await;
    viewer.mine_until_ready().await;
    assert!(!plant.awake.load(Ordering::SeqCst), "no job has run");
    ask(&viewer, PowerCommand::KeepAwake { when: KeepAwake::Mining }).await;
    viewer.until("awake", |_| plant.awake.load(Ordering::SeqCst)).await;
    viewer.stop(StopMode::Now).await;
    assert!(!plant.awake.load(Ordering::SeqCst), "a stop lets it sleep");
    viewer.mine_until_ready().await;
    viewer.until("awake", |_| plant.awake.load(Ordering::SeqCst)).await;
    let view = ask(&viewer, PowerCommand::KeepAwake { when: KeepAwake::Never }).await;
    assert_eq!(view.keep_awake, KeepAwake::Never);
    viewer.until("asleep", |_| !plant.awake.load(Ordering::SeqCst)).await;
    assert_eq!(ask(&viewer, PowerCommand::Look).await.awake, AwakeState::Released);
    viewer.app.shutdown().await;
}
