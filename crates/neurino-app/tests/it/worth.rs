//! What a model is worth, as the window gets it: what the network says, and what this machine earned.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use neurino_config::{NetworkSetting, ProtocolSetting};
use neurino_coordinator::PayerId;
use neurino_core::{MicroPoints, Receipt};
use neurino_earnings::ReceiptLog;
use neurino_model_store::Catalog;
use neurino_protocol::ErrorBody;
use neurino_protocol::app::MiningState;
use neurino_protocol::demand::EstimateMethod;
use neurino_protocol::library::LibraryModel;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::remote::coordinator;
use crate::world::{Viewer, World};

/// Writes six receipts of 20 s each into a network's folder: `amount_micro` points for each.
fn earned(folder: &Path, network: &str, first: u32, amount_micro: i64) {
    std::fs::create_dir_all(folder).unwrap();
    let log = ReceiptLog::open(&folder.join("receipts.jsonl")).unwrap();
    for n in first..first + 6 {
        let id = format!("01935000-0000-7000-8000-{n:012}");
        let receipt: Receipt = serde_json::from_value(json!({
            "event": id, "job": id, "lease": id, "node": "0xab", "model": Catalog::starter(),
            "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "rule_set": "r",
            "quote": {
                "points": "llama", "units": 2, "base_micro": amount_micro, "factor": 1_000_000,
                "multiplier": 1_000_000, "amount_micro": amount_micro,
            },
            "digest": "00".repeat(32), "duration_ms": 20_000,
            "settled_at_ms": 1_790_000_000_000_i64 + i64::from(n) * 60_000, "network": network,
            "coordinator": "0x", "signature": "0x",
        }))
        .unwrap();
        assert!(log.append(&receipt).unwrap());
    }
}

/// Where the application keeps what it earned with a coordinator.
fn folder_of(world: &World, address: SocketAddr) -> PathBuf {
    let name = address.to_string().replace(['.', ':'], "-");
    world.dirs().data.join(format!("network-{name}"))
}

async fn until(viewer: &Viewer, what: &str, holds: impl Fn(&LibraryModel) -> bool) -> LibraryModel {
    viewer.until(what, |s| holds(&s.library.models[0])).await.library.models.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_elsewhere_says_what_it_wants() {
    let books = tempfile::tempdir().unwrap();
    let club = coordinator(books.path()).await;
    let job = neurino_app::demand::Demand::for_text(Catalog::starter()).job(0);
    club.submit_job(PayerId::local(), None, job).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn({
        let (club, stop) = (club.clone(), stop.clone());
        async move { club.serve(listener, stop).await }
    });

    let mut world = World::answering("from afar");
    world.settings.network.coordinator = NetworkSetting::Coordinator(format!("http://{address}"));
    // Only what was earned with this network counts: 6 points in 2 minutes.
    let folder = folder_of(&world, address);
    earned(&folder, "club", 1, 1_000_000);
    earned(&folder, "another", 20, 9_000_000);
    let viewer = world.start().await;
    let model = until(&viewer, "told its demand", |model| model.demand.is_some()).await;
    let demand = model.demand.unwrap();
    assert_eq!((demand.model, demand.waiting), (Catalog::starter(), 1));
    assert_eq!((demand.jobs, demand.nodes, demand.points_per_node_hour_micro), (0, 0, None));
    let estimate = model.estimate.unwrap();
    assert_eq!(estimate.points_per_hour_micro, MicroPoints(180_000_000));
    assert_eq!(estimate.method, EstimateMethod::Own { jobs: 6 });

    viewer.end().await;
    stop.cancel();
    server.await.unwrap().unwrap();
    club.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_while_only_tray_and_notices_follow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut world = World::answering("from afar");
    world.settings.network.coordinator = NetworkSetting::Coordinator(format!("http://{address}"));
    let mut options = world.options();
    options.notifier = Some(std::sync::Arc::new(Silent));
    let app = neurino_app::App::start(options).await.unwrap();
    let mut glances = app.glances();
    let state = {
        let now = glances.wait_for(Option::is_some).await.unwrap();
        now.as_ref().map(|now| now.mining.state)
    };
    assert_eq!(state, Some(MiningState::Stopped));
    let asked = |at_most| tokio::time::timeout(at_most, listener.accept());
    assert!(asked(Duration::from_millis(1500)).await.is_err(), "nobody looks");
    let _window = app.subscribe();
    assert!(asked(Duration::from_secs(20)).await.is_ok(), "somebody looks");
    app.shutdown().await;
}

/// A desktop that shows nothing.
struct Silent;

impl neurino_app::Notifier for Silent {
    fn show(&self, _notice: &neurino_protocol::notices::Notice) -> Result<(), ErrorBody> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_practice_network_wants_nothing_but_its_points_count() {
    let world = World::answering("here");
    earned(&world.dirs().data.join("practice"), "practice", 1, 500_000);
    let viewer = world.start().await;
    let model = until(&viewer, "told an estimate", |model| model.estimate.is_some()).await;
    assert_eq!(model.demand, None);
    assert_eq!(model.estimate.unwrap().points_per_hour_micro, MicroPoints(90_000_000));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_network_says_nothing_and_nothing_is_shown() {
    let mut world = World::answering("as ever");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.settings.network.coordinator = NetworkSetting::Coordinator(format!("http://{nobody}"));
    world.settings.network.protocol = ProtocolSetting::Original;
    earned(&folder_of(&world, nobody), "club", 1, 1_000_000);
    let viewer = world.start().await;
    for _ in 0..5 {
        let model = viewer.snapshot().await.library.models.swap_remove(0);
        assert_eq!((model.demand, model.estimate), (None, None));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    viewer.end().await;
}
