//! What a gateway's clients hear of requests that are not taken.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use neurino_wallet::IdentityKey;

use super::super::wire::{Ask, Submit};
use super::*;
use crate::coordinator::now_ms;
use crate::{Coordinator, CoordinatorConfig, Database, FabricAddress};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is said to a request that was queued at a time.
async fn said(gateway: &Arc<Inner>, at_ms: i64) -> (u16, String) {
    let live = gateway.session(PATIENCE).await.unwrap();
    let mut circuit = gateway.open(live);
    let ask = Ask {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![],
        from: None,
        own_key: false,
        resume: None,
        again: false,
    };
    let (session, id) = (live.session, gateway.id.clone());
    let submit = Submit { gateway: id, session, circuit: circuit.id, at_ms, ask };
    let subject = gateway.subjects.submit.clone();
    let sealed = gateway.key.seal(&subject, &pack(&submit, b"{}"));
    let publish = async || {
        let sent = gateway.queue.publish(subject.clone(), sealed.clone().into()).await;
        sent.unwrap().await
    };
    // The router makes its queue after it showed itself.
    let begin = std::time::Instant::now();
    while let Err(error) = publish().await {
        assert!(begin.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut status, mut body) = (0, Vec::new());
    loop {
        let heard = tokio::time::timeout(PATIENCE, circuit.hear()).await;
        match heard.expect("it is answered").expect("the session goes on") {
            Heard::Head { status: told, .. } => status = told,
            Heard::Body(bytes) => body.extend(bytes),
            Heard::End { broken } => {
                assert!(!broken);
                circuit.over = true;
                return (status, String::from_utf8(body).unwrap());
            }
            Heard::Text { .. } => panic!("that is for nodes"),
        }
    }
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn a_gateway_whose_clock_is_wrong_hears_so() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = crate::store::server::fresh().await.unwrap();
    let database = Database::at(&postgres, folder.path().join("pictures")).unwrap();
    let key = Arc::new(IdentityKey::generate(&mut rand::rng()));
    let network = format!("t{:016x}", rand::random::<u64>());
    let config = CoordinatorConfig::practice(database, key);
    let config = CoordinatorConfig { network: network.clone(), ..config };
    let limits = config.limits.clone();
    let coordinator = Coordinator::open(config).await.unwrap();
    let nats = std::env::var("NEURINO_TEST_NATS_URL").unwrap();
    let address = FabricAddress::new(&nats, None).unwrap();
    let fabric = FabricConfig { address, key: FabricKey::draw() };
    let stop = CancellationToken::new();
    let (this, stopped, ours) = (Arc::clone(&coordinator), stop.clone(), fabric.clone());
    tokio::spawn(async move { this.serve_fabric(ours, stopped).await.unwrap() });
    let config = GatewayConfig { network, fabric, limits, client_address_header: None };
    let gateway = Gateway::open(config, stop.clone()).await.unwrap();

    assert_eq!(said(&gateway.0, now_ms()).await.0, 401, "it carries no API key");
    for apart_ms in [3_600_000, -3_600_000] {
        let (status, body) = said(&gateway.0, now_ms() + apart_ms).await;
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("minutes away") && body.contains("clock"), "{body}");
    }
    coordinator.shutdown().await;
    stop.cancel();
}
