//! A coordinator elsewhere: here, another one in this process, behind its real edge.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use neurino_app::demand::Demand;
use neurino_config::NetworkSetting;
use neurino_coordinator::{Coordinator, CoordinatorConfig, PayerId};
use neurino_core::MicroPoints;
use neurino_core::audit::TrustStage;
use neurino_model_store::Catalog;
use neurino_protocol::ErrorCode;
use neurino_protocol::app::MiningState;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::world::{World, code};

pub(crate) async fn coordinator(folder: &Path) -> Arc<Coordinator> {
    let key = neurino_wallet::load_or_create_named(folder, "coordinator", None).await.unwrap();
    let practice = CoordinatorConfig::practice(folder.join("books.sqlite"), key);
    let config = CoordinatorConfig { network: "club".into(), practice: false, ..practice };
    Coordinator::open(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_works_for_a_coordinator_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Bound, so that nobody else takes the port, and gone: nobody answers yet.
    drop(listener);
    let mut world = World::answering("from afar");
    world.settings.network.coordinator = NetworkSetting::Coordinator(format!("http://{address}"));
    let mut viewer = world.start().await;

    viewer.mine().await;
    let alone = viewer
        .until("told why", |s| {
            s.mining.problem.as_ref().is_some_and(|p| p.code == ErrorCode::Unreachable)
        })
        .await;
    assert_eq!(alone.mining.state, MiningState::Starting);
    let words = format!("The coordinator at http://{address} cannot be reached");
    assert!(alone.mining.sentence.starts_with(&words), "{}", alone.mining.sentence);

    let books = tempfile::tempdir().unwrap();
    let club = coordinator(books.path()).await;
    let stop = CancellationToken::new();
    let listener = TcpListener::bind(address).await.unwrap();
    let server = tokio::spawn({
        let (club, stop) = (Arc::clone(&club), stop.clone());
        async move { club.serve(listener, stop).await }
    });
    let ready = viewer.until_ready().await;
    assert_eq!(ready.network.name, address.to_string());
    assert!(!ready.network.practice);
    assert_eq!(ready.network.gateway_url, None);

    let job = Demand::for_text(Catalog::starter()).job(0);
    let job = club.submit_job(PayerId::local(), None, job).await.unwrap();
    let receipt = viewer.settled().await;
    assert_eq!((receipt.job, receipt.network.as_str()), (job, "club"));
    assert_eq!(viewer.snapshot().await.receipts, [receipt]);

    // The club says how closely it watches the machine; it is asked while somebody looks.
    let trust = loop {
        if let Some(trust) = viewer.overview().await.trust {
            break trust;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((trust.stage, trust.held, trust.to_hold), (TrustStage::New, 0, 10));
    assert!(trust.in_escrow_micro > MicroPoints(0), "{trust:?}");

    // Without a key there is nothing to ask it with.
    let error = viewer.ask("c").await.unwrap_err();
    assert!(error.hint.is_some());
    assert_eq!(code(Err(error)), ErrorCode::Unauthorized);

    viewer.end().await;
    stop.cancel();
    server.await.unwrap().unwrap();
    club.shutdown().await;
}
