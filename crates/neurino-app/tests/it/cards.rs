//! Switches, roles and names of cards, and cards that come and go, on cards that a file plays.

use std::path::PathBuf;
use std::time::Duration;

use neurino_app::AppOptions;
use neurino_config::Settings;
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, Device, DeviceKind, MiningState, Reply, Snapshot, StopMode};
use neurino_protocol::cards::{CardChoice, CardRole, PROCESSOR};
use neurino_testkit::Script;

use crate::world::{Viewer, World, code};

/// A machine with cards.
struct Rig {
    world: World,
    path: PathBuf,
}

impl Rig {
    fn with(cards: &str) -> Self {
        let world = World::answering("fine");
        let path = world.home.path().join("cards.json");
        let rig = Self { world, path };
        rig.plug(cards);
        rig
    }

    /// From now on these cards are there, each a letter; a small one does not answer.
    fn plug(&self, cards: &str) {
        let card = |letter: char| {
            let (name, lost) = (letter.to_ascii_uppercase(), letter.is_lowercase());
            serde_json::json!({ "uuid": format!("GPU-{name}"), "name": format!("Card {name}"),
                                "memory_bytes": 8_u64 << 30, "lost": lost })
        };
        let text = cards.chars().map(card).collect::<serde_json::Value>().to_string();
        let next = self.path.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &self.path).unwrap();
    }

    /// The driver is not loaded.
    fn unload_driver(&self) {
        std::fs::remove_file(&self.path).unwrap();
    }

    async fn start(&self) -> Viewer {
        let settings = Settings::read(&self.world.dirs()).unwrap();
        let settings = Settings { cards: settings.cards, ..self.world.settings.clone() };
        let card_script = Some(self.path.clone());
        let options = AppOptions { card_script, settings, ..self.world.options() };
        Viewer::start(options).await.unwrap()
    }
}

async fn choose(viewer: &Viewer, card: &str, choice: CardChoice) {
    let command = Command::CardChoose { card: card.into(), choice };
    assert_eq!(viewer.command(command).await, Ok(Reply::Ok));
}

fn off() -> CardChoice {
    CardChoice { on: false, ..CardChoice::default() }
}

fn role(role: CardRole) -> CardChoice {
    CardChoice { role, ..CardChoice::default() }
}

fn device<'a>(snapshot: &'a Snapshot, card: &str) -> &'a Device {
    snapshot.devices.iter().find(|device| device.card == card).unwrap()
}

fn in_use(snapshot: &Snapshot) -> Vec<&str> {
    let used = snapshot.devices.iter().filter(|device| device.in_use);
    used.map(|device| device.name.as_str()).collect()
}

fn slow() -> Script {
    Script::answer("one two three four five six").paced(Duration::from_millis(80))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_switched_off_and_named_and_the_next_start_knows() {
    let rig = Rig::with("AB");
    let viewer = rig.start().await;
    assert_eq!(in_use(&viewer.snapshot().await), ["Card A", "Card B"]);
    let named = CardChoice { on: false, name: Some("  Old one ".into()), ..CardChoice::default() };
    choose(&viewer, "GPU-A", named).await;
    let seen = viewer.snapshot().await;
    assert_eq!(in_use(&seen), ["Card B"]);
    let old = device(&seen, "GPU-A");
    assert_eq!((old.name.as_str(), old.product.as_deref()), ("Old one", Some("Card A")));
    assert_eq!(old.note.as_deref(), Some("Switched off in the settings."));
    assert!(!device(&seen, PROCESSOR).in_use && device(&seen, PROCESSOR).choice.is_none());

    let unknown = Command::CardChoose { card: "GPU-X".into(), choice: off() };
    assert_eq!(code(viewer.command(unknown).await), ErrorCode::InvalidRequest);
    let long = CardChoice { name: Some("x".repeat(41)), ..off() };
    let long = Command::CardChoose { card: "GPU-B".into(), choice: long };
    assert_eq!(code(viewer.command(long).await), ErrorCode::InvalidRequest);
    viewer.end().await;

    let viewer = rig.start().await;
    let seen = viewer.snapshot().await;
    assert_eq!((in_use(&seen), device(&seen, "GPU-A").name.as_str()), (vec!["Card B"], "Old one"));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_lets_the_running_job_finish_and_mining_goes_on() {
    let rig = Rig::with("AB");
    let mut viewer = rig.start().await;
    viewer.mine_until_ready().await;
    let loads = rig.world.engine.loads();
    rig.world.engine.queue(slow());
    assert_eq!(viewer.ask("one").await, Ok(Reply::Ok));
    viewer.until_state(MiningState::Working).await;
    choose(&viewer, "GPU-A", off()).await;
    let seen = viewer.until_state(MiningState::Finishing).await;
    let sentence = &seen.mining.sentence;
    assert!(sentence.contains("then going on with your change"), "{sentence}");
    assert!(device(&seen, "GPU-A").pending && !device(&seen, "GPU-B").pending);
    assert_eq!(viewer.answer("one").await.unwrap().text, "one two three four five six");
    viewer.settled().await;
    let seen = viewer.until_ready().await;
    assert!(!device(&seen, "GPU-A").pending);
    assert!(rig.world.engine.loads() > loads, "another run has begun");
    viewer.earn("two").await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_off_is_said_with_the_way_out_and_one_on_is_enough_to_go_on() {
    let rig = Rig::with("AB");
    let mut viewer = rig.start().await;
    for card in ["GPU-A", "GPU-B"] {
        choose(&viewer, card, off()).await;
    }
    viewer.mine().await;
    let seen = viewer.until_state(MiningState::Paused).await;
    let expect = "All cards are switched off. Switch one on in the settings, under Cards.";
    assert_eq!((seen.mining.sentence.as_str(), &seen.mining.problem), (expect, &None));
    assert!(in_use(&seen).is_empty(), "the processor does not step in");
    choose(&viewer, "GPU-B", CardChoice::default()).await;
    assert_eq!(in_use(&viewer.until_ready().await), ["Card B"]);
    viewer.earn("one").await;
    // Off while it mines, and stopped while it waits for a card.
    choose(&viewer, "GPU-B", off()).await;
    viewer.until_state(MiningState::Paused).await;
    viewer.stop(StopMode::Finish).await;
    viewer.until_over().await;
    choose(&viewer, "GPU-B", CardChoice::default()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped, "nobody pressed Start");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_gone_is_looked_for_and_mining_goes_on_by_itself() {
    let rig = Rig::with("A");
    let mut viewer = rig.start().await;
    viewer.mine_until_ready().await;
    for round in 0..2 {
        if round == 0 {
            rig.plug("a");
        } else {
            rig.unload_driver();
        }
        let seen = viewer.until_state(MiningState::Paused).await;
        let sentence = &seen.mining.sentence;
        assert!(sentence.starts_with("Your card does not answer any more (Card A)."), "{sentence}");
        assert!(sentence.ends_with("mining goes on by itself."), "{sentence}");
        assert_eq!(sentence.contains("driver"), round == 1, "{sentence}");
        let card = device(&seen, "GPU-A");
        assert!(card.gone && !card.in_use && card.choice.is_some());
        assert!(in_use(&seen).is_empty(), "the processor does not step in");
        rig.plug("A");
        viewer.until_ready().await;
        viewer.earn(&format!("round {round}")).await;
    }
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_a_card_that_is_lost_is_handed_back_and_the_other_card_takes_over() {
    let rig = Rig::with("AB");
    let viewer = rig.start().await;
    viewer.mine_until_ready().await;
    rig.plug("aB");
    let gone = |s: &Snapshot| device(s, "GPU-A").gone;
    viewer.until("gone", gone).await;
    assert_eq!(in_use(&viewer.until_ready().await), ["Card B"]);
    // One that is plugged in while it runs is used, too.
    rig.plug("aBC");
    let joined = |s: &Snapshot| in_use(s) == ["Card B", "Card C"] && s.network.connected;
    viewer.until("two cards", joined).await;
    viewer.until_ready().await;
    // Who takes a card away for good switches it off.
    choose(&viewer, "GPU-A", off()).await;
    assert_eq!(in_use(&viewer.until_ready().await), ["Card B", "Card C"]);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_comes_late_takes_the_work_from_the_processor() {
    let rig = Rig::with("A");
    rig.unload_driver();
    let viewer = rig.start().await;
    let seen = viewer.mine_until_ready().await;
    assert_eq!(device(&seen, PROCESSOR).kind, DeviceKind::Cpu);
    assert!(device(&seen, PROCESSOR).in_use);
    rig.plug("A");
    viewer.until("on the card", |s| in_use(s) == ["Card A"]).await;
    viewer.until_ready().await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_a_kind_that_no_card_serves_are_not_offered() {
    let rig = Rig::with("A");
    let mut viewer = rig.start().await;
    viewer.mine_until_ready().await;
    viewer.earn("one").await;
    // The only model here writes, and this library has none that makes pictures.
    choose(&viewer, "GPU-A", role(CardRole::Pictures)).await;
    let seen = viewer.until_state(MiningState::NeedsYou).await;
    assert!(seen.mining.problem.is_some());
    choose(&viewer, "GPU-A", role(CardRole::Text)).await;
    viewer.until_ready().await;
    viewer.earn("two").await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processor_is_a_card_where_there_is_none() {
    let world = World::answering("fine");
    let viewer = world.start().await;
    if viewer.snapshot().await.devices.iter().any(|device| device.kind == DeviceKind::Gpu) {
        return;
    }
    choose(&viewer, PROCESSOR, CardChoice { name: Some("Kitchen PC".into()), ..off() }).await;
    viewer.mine().await;
    let seen = viewer.until_state(MiningState::Paused).await;
    assert!(seen.mining.sentence.starts_with("The processor is switched off"), "{seen:#?}");
    assert_eq!(device(&seen, PROCESSOR).name, "Kitchen PC");
    choose(&viewer, PROCESSOR, CardChoice::default()).await;
    viewer.until_ready().await;
    viewer.end().await;
}
