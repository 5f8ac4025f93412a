//! Starting, ending, and what outlives both.

use std::time::{Duration, Instant};

use neurino_app::{App, AppOptions, StartError, identity_options};
use neurino_config::ConfigError;
use neurino_core::Receipt;
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{
    CheckStatus, Command, Language, MiningState, OnClose, Preferences, Reply, StopMode, Theme,
    WindowAction,
};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

use crate::mining::hanging;
use crate::world::{Viewer, World, code};

#[tokio::test(flavor = "multi_thread")]
async fn preferences_are_kept() {
    let world = World::answering("unused");
    let viewer = world.start().await;
    let read = Command::Preferences;
    let usual = Preferences::default();
    assert_eq!(viewer.command(read.clone()).await, Ok(Reply::Preferences(usual)));
    let mine =
        Preferences { theme: Theme::Dark, on_close: OnClose::Tray, language: Language::German };
    let set = Command::PreferencesSet { preferences: mine.clone() };
    assert_eq!(viewer.command(set).await, Ok(Reply::Ok));
    assert_eq!(viewer.command(read.clone()).await, Ok(Reply::Preferences(mine.clone())));
    viewer.end().await;
    let viewer = world.start().await;
    assert_eq!(viewer.command(read).await, Ok(Reply::Preferences(mine)));
    viewer.end().await;
}

async fn page(viewer: &Viewer, before_ms: Option<i64>, limit: u32) -> Vec<Receipt> {
    match viewer.command(Command::Receipts { before_ms, limit }).await {
        Ok(Reply::Receipts(receipts)) => receipts,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_come_in_pages_newest_first() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    let mut earned = Vec::new();
    for n in 0..5 {
        earned.insert(0, viewer.earn(&format!("c{n}")).await);
    }
    assert_eq!(page(&viewer, None, 200).await, earned);
    assert_eq!(page(&viewer, None, u32::MAX).await, earned);
    assert_eq!(page(&viewer, None, 0).await, []);
    let first = page(&viewer, None, 2).await;
    let second = page(&viewer, Some(first[1].settled_at_ms), 2).await;
    let third = page(&viewer, Some(second[1].settled_at_ms), 2).await;
    assert_eq!([first, second, third].concat(), earned);
    assert_eq!(viewer.snapshot().await.receipts, earned);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_a_job_is_quick_and_the_next_start_has_the_same_totals() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    let receipt = viewer.earn("first").await;
    world.engine.queue(hanging());
    viewer.ask("second").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    let before = viewer.snapshot().await;

    let began = Instant::now();
    viewer.app.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(code(viewer.command(Command::MiningStart).await), ErrorCode::Cancelled);
    assert_eq!(viewer.snapshot().await.mining.state, MiningState::Stopped);
    viewer.stop(StopMode::Now).await;
    drop(viewer);

    let mut viewer = world.start().await;
    let after = viewer.snapshot().await;
    assert_eq!(after.points, before.points);
    assert_eq!(after.receipts, [receipt]);
    assert_eq!(after.identity, before.identity);
    viewer.mine_until_ready().await;
    viewer.earn("third").await;
    assert!(viewer.snapshot().await.points.jobs_total >= 2);
    let check = viewer.app.practice().unwrap().ledger_check().await.unwrap();
    assert!(check.holds());
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_application_for_each_home() {
    let world = World::answering("unused");
    let first = world.start().await;
    let second = App::start(world.options()).await;
    let Err(error) = second else { panic!("a second one started") };
    assert!(matches!(error, StartError::Config(ConfigError::AlreadyRunning { .. })), "{error}");
    assert!(error.body().message.starts_with("Neurino is already running with"), "{error}");
    first.end().await;
    world.start().await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_or_avoided() {
    let mut world = World::answering("unused");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    world.settings.gateway.listen_port = port;
    let Err(error) = App::start(world.options()).await else { panic!("the port is taken") };
    assert!(error.body().message.contains(&format!("port {port}")), "{}", error.body());
    let viewer = Viewer::start(AppOptions { any_port: true, ..world.options() }).await.unwrap();
    let url = viewer.app.gateway_url().unwrap();
    assert!(!url.contains(&port.to_string()), "{url}");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_the_application() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.ask("c").await.unwrap();
    let mut seen = Vec::new();
    let receipt = viewer
        .event(|event| {
            seen.push(serde_json::to_string(&event).unwrap());
            match event {
                neurino_protocol::app::Event::Settled(receipt) => Some(receipt),
                _ => None,
            }
        })
        .await;
    for command in [Command::Snapshot, Command::Doctor, Command::Preferences] {
        seen.push(serde_json::to_string(&viewer.command(command).await.unwrap()).unwrap());
    }
    let all = seen.join("\n");
    // It is the right haystack.
    assert!(all.contains(&receipt.signature) && all.contains("Key store"));

    let options = identity_options(&world.dirs(), &world.settings);
    let identity = neurino_wallet::open_identity(options).await.unwrap();
    assert!(all.contains(&identity.key.address_checksummed()));
    let phrase = identity.key.phrase();
    let words: Vec<_> = phrase.expose_secret().split(' ').collect();
    for three in words.windows(3) {
        assert!(!all.contains(&three.join(" ")), "words of the phrase");
    }
    let key = viewer.app.gateway_key().unwrap();
    assert!(key.len() > 40 && !all.contains(&key), "the gateway's key");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_key_is_kept_and_a_damaged_one_is_replaced() {
    let world = World::answering("unused");
    let key = async || {
        let viewer = world.start().await;
        let key = viewer.app.gateway_key().unwrap();
        viewer.end().await;
        key
    };
    let first = key().await;
    assert_eq!(key().await, first, "kept");
    let file = world.dirs().data.join("practice/gateway-key");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let second = key().await;
    assert!(second.len() == first.len() && second != first, "half a key opens nothing");
    assert_eq!(key().await, second, "the new one is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_what_runs() {
    let world = World::answering("unused");
    let viewer = world.start().await;
    let Ok(Reply::Doctor(checks)) = viewer.command(Command::Doctor).await else {
        panic!("no checks")
    };
    let names: Vec<_> = checks.iter().map(|c| c.name.as_str()).collect();
    let expect = [
        "GPU driver",
        "GPU",
        "Video memory",
        "Disk",
        "Key store",
        "Network",
        "Content filter",
        "Models",
    ];
    assert_eq!(names, expect);
    let models = checks.last().unwrap();
    assert_eq!(
        (models.status, models.finding.as_str()),
        (CheckStatus::Ok, "On this machine: Starter.")
    );
    assert_eq!(code(viewer.command(window()).await), ErrorCode::InvalidRequest);
    viewer.end().await;
}

fn window() -> Command {
    Command::Window { action: WindowAction::Hide }
}
