//! The person's rules, carried out by the application on a desktop that the test plays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use neurino_app::{AppOptions, ScrubPace};
use neurino_config::ScrubbedFile;
use neurino_control::{Order, Program, Rules, State, When};
use neurino_model_store::Catalog;
use neurino_platform::{Front, Surroundings, View};
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, MiningState, ModelState, Reply, Snapshot, StopMode};
use neurino_protocol::library::LibraryAction;

use crate::downloads::slow_web;
use crate::world::{PATIENCE, Viewer, WEIGHTS, World};

/// A desktop that the test changes.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<View>>);

impl Surroundings for Desk {
    fn look(&mut self) -> View {
        self.0.lock().unwrap().clone()
    }
}

impl Desk {
    /// The person sits there; nothing else is going on.
    pub(crate) fn quiet() -> Self {
        let desk = Self::default();
        desk.change(|view| {
            *view = View {
                idle_secs: Some(0),
                other_user: Some(false),
                on_battery: Some(false),
                metered: Some(false),
                programs: Some(vec![Program::at("/usr/bin/firefox")]),
                front: Front::Nothing,
                front_load_percent: None,
            };
        });
        desk
    }

    pub(crate) fn change(&self, how: impl FnOnce(&mut View)) {
        how(&mut self.0.lock().unwrap());
    }

    fn play(&self) {
        let game = Program::at("/games/steamapps/common/DOOM/doom");
        self.change(|view| view.programs.get_or_insert_default().push(game));
    }

    fn quit_the_game(&self) {
        self.change(|view| view.programs.get_or_insert_default().retain(|p| p.name != "doom"));
    }

    async fn start(&self, world: &World) -> Viewer {
        let surroundings: Option<Box<dyn Surroundings>> = Some(Box::new(self.clone()));
        Viewer::start(AppOptions { surroundings, ..world.options() }).await.unwrap()
    }
}

async fn set_rules(viewer: &Viewer, rules: Rules) {
    let set = Command::RulesSet { rules: Box::new(rules) };
    assert!(matches!(viewer.command(set).await, Ok(Reply::Rules(_))));
}

fn mines(snapshot: &Snapshot) -> bool {
    matches!(snapshot.mining.state, MiningState::Waiting | MiningState::Working)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_gets_the_machine_and_gives_it_back() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let viewer = desk.start(&world).await;
    set_rules(&viewer, Rules { cool_down_secs: 2, ..Rules::default() }).await;
    viewer.mine_until_ready().await;
    let loads = world.engine.loads();
    desk.play();
    let begin = std::time::Instant::now();
    let held = viewer.until_state(MiningState::Paused).await;
    assert_eq!(held.mining.sentence, "Paused: doom is running. Resumes 2 s after it is gone.");
    assert_eq!(held.control.decision.state, State::Paused);
    viewer.until("unloaded", |s| s.models[0].state != ModelState::Loaded).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    desk.quit_the_game();
    let cools = viewer.until("cooling down", |s| s.control.decision.until_ms.is_some()).await;
    assert!(cools.mining.sentence.contains("a moment ago"), "{}", cools.mining.sentence);
    viewer.until("mining", mines).await;
    assert_eq!(world.engine.loads(), loads + 1, "the model was loaded again");
    let Ok(Reply::Decisions(decisions)) = viewer.command(Command::Decisions).await else {
        panic!("decisions");
    };
    let states: Vec<State> = decisions.iter().map(|entry| entry.state).collect();
    let expect = [State::Running, State::Paused, State::Paused, State::Running, State::Stopped];
    assert_eq!(states, expect, "{decisions:#?}");
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_wait_for_a_game_though_mining_is_off_and_the_person_may_not_wait() {
    let desk = Desk::quiet();
    let world = World::without_model(vec![slow_web(WEIGHTS).await]);
    let viewer = desk.start(&world).await;
    set_rules(&viewer, Rules { cool_down_secs: 0, ..Rules::default() }).await;
    let get = Command::ModelFetch { model: Catalog::starter() };
    viewer.command(get.clone()).await.unwrap();
    let runs = |s: &Snapshot| matches!(s.models[0].state, ModelState::Fetching { .. });
    viewer.until("fetching", runs).await;
    desk.play();
    let waits = |s: &Snapshot| s.library.waits_for.is_some() && !runs(s);
    let resting = viewer.until("resting", waits).await;
    assert_eq!(resting.library.resting.as_deref(), Some("Downloads wait: doom is running."));
    assert_eq!(resting.library.queue.len(), 1, "it is not lost");
    desk.quit_the_game();
    viewer.until("going on", runs).await;

    desk.change(|view| view.metered = Some(true));
    let resting = viewer.until("resting again", waits).await;
    let sentence = resting.library.resting.as_deref();
    assert_eq!(sentence, Some("Downloads wait: the network is metered."));
    viewer.command(Command::Library(LibraryAction::Anyway)).await.unwrap();
    viewer.until("all the same", runs).await;
    desk.play();
    viewer.until("a game is something else", waits).await;
    desk.quit_the_game();
    let metered = |s: &Snapshot| s.library.resting.as_ref().is_some_and(|r| r.contains("metered"));
    viewer.until("still metered, and set aside no longer", |s| waits(s) && metered(s)).await;
    desk.change(|view| view.metered = Some(false));
    viewer.until("here", |s| s.models[0].state == ModelState::Ready).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_is_not_read_during_a_game_that_is_played_with_a_gamepad() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    // Nobody touches mouse or keyboard.
    desk.change(|view| view.idle_secs = Some(10_000));
    desk.play();
    let look_every = Duration::from_millis(10);
    let scrub = ScrubPace { look_every, again_after: Duration::ZERO, ..ScrubPace::default() };
    let surroundings: Option<Box<dyn Surroundings>> = Some(Box::new(desk.clone()));
    let options = AppOptions { surroundings, scrub, ..world.options() };
    let viewer = Viewer::start(options).await.unwrap();
    set_rules(&viewer, Rules { cool_down_secs: 0, ..Rules::default() }).await;
    let read = || ScrubbedFile::new(&world.dirs()).load().read_ms.len();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(read(), 0);
    desk.quit_the_game();
    let begin = std::time::Instant::now();
    while read() == 0 {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_anyway_wins_and_a_stop_wins_over_everything() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let viewer = desk.start(&world).await;
    viewer.mine_until_ready().await;
    desk.play();
    let held = viewer.until_state(MiningState::Paused).await;
    assert!(held.control.decision.resume.is_some());
    viewer.command(Command::MiningStart).await.unwrap();
    let anyway = viewer.until("mining", mines).await;
    assert!(anyway.control.decision.aside.is_some());
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(mines(&viewer.snapshot().await), "the game still runs, and so does this");
    viewer.command(Command::MiningStop { mode: StopMode::Now }).await.unwrap();
    desk.quit_the_game();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped);
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_ends_when_the_person_resumes() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let viewer = desk.start(&world).await;
    viewer.mine_until_ready().await;
    let snooze = Command::MiningOrder { order: Order::Snooze { minutes: None } };
    viewer.command(snooze).await.unwrap();
    let paused = viewer.until_state(MiningState::Paused).await;
    assert_eq!(paused.mining.sentence, "Paused by you until you resume.");
    viewer.until("unloaded", |s| s.models[0].state != ModelState::Loaded).await;
    viewer.command(Command::MiningStart).await.unwrap();
    viewer.until("mining", mines).await;
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn away_starts_by_itself_and_a_clean_end_is_remembered() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let viewer = desk.start(&world).await;
    let rules = Rules { when: When::Away, idle_minutes: 1, ..Rules::default() };
    set_rules(&viewer, rules.clone()).await;
    let follow = Command::MiningOrder { order: Order::FollowRules };
    viewer.command(follow).await.unwrap();
    viewer.until_state(MiningState::Paused).await;
    desk.change(|view| view.idle_secs = Some(61));
    viewer.until("mining", mines).await;
    desk.change(|view| view.idle_secs = Some(1));
    viewer.until_state(MiningState::Paused).await;
    desk.change(|view| view.idle_secs = Some(61));
    viewer.until("mining", mines).await;
    viewer.app.shutdown().await;
    drop(viewer);
    let again = desk.start(&world).await;
    again.until("mining", mines).await;
    let Ok(Reply::Rules(view)) = again.command(Command::Rules).await else { panic!("rules") };
    assert_eq!(view.rules, rules);
    assert!(view.abilities.idle && view.abilities.programs && !view.abilities.heat);
    again.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_before_the_shutdown_is_done_is_no_crash() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let file = world.dirs().data.join("control.json");
    let viewer = desk.start(&world).await;
    viewer.mine_until_ready().await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"running\":true"), "{text}");
    viewer.app.will_end();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"running\":false"), "{text}");
    // A person's last word is still written down, and it is still no crash.
    let rules = Rules { when: When::Always, cool_down_secs: 7, ..Rules::default() };
    set_rules(&viewer, rules).await;
    let snooze = Command::MiningOrder { order: Order::Snooze { minutes: None } };
    viewer.command(snooze).await.unwrap();
    let follow = Command::MiningOrder { order: Order::FollowRules };
    let _ = viewer.command(follow).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"running\":false"), "{text}");
    viewer.app.shutdown().await;
    drop(viewer);
    let again = desk.start(&world).await;
    again.until("mining", mines).await;
    again.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ended_without_a_word_is_not_repeated() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let viewer = desk.start(&world).await;
    viewer.mine_until_ready().await;
    let file = world.dirs().data.join("control.json");
    let as_it_ran = std::fs::read(&file).unwrap();
    viewer.app.shutdown().await;
    drop(viewer);
    // As a power cut would have left it.
    std::fs::write(&file, as_it_ran).unwrap();
    let again = desk.start(&world).await;
    let held = again.until_state(MiningState::Paused).await;
    assert!(held.mining.sentence.contains("ended without a word"), "{}", held.mining.sentence);
    again.command(Command::MiningStart).await.unwrap();
    again.until("mining", mines).await;
    again.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_make_no_sense_are_refused_and_without_a_desktop_there_are_none() {
    let (world, desk) = (World::answering("fine"), Desk::quiet());
    let viewer = desk.start(&world).await;
    let wrong = Rules { idle_minutes: 0, ..Rules::default() };
    let refused = viewer.command(Command::RulesSet { rules: Box::new(wrong) }).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.message.contains("between 1 and 240"), "{refused:?}");
    viewer.app.shutdown().await;
    drop(viewer);
    let without = world.start().await;
    let set = Command::RulesSet { rules: Box::default() };
    let refused = without.command(set).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    without.app.shutdown().await;
}
