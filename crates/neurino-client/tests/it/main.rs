//! The HTTP client against a real server on this machine.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod server;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use neurino_client::{ClientError, Coordinator, HttpCoordinator, Session};
use neurino_core::{LeaseId, NodeId};
use neurino_protocol::node::{Capabilities, CoordinatorMessage, MESSAGE_BYTES_MAX, NodeMessage};
use neurino_wallet::IdentityKey;
use server::{COORDINATOR, Manners, NETWORK, Server};
use tokio::time::timeout;
use uuid::Uuid;

/// Long enough for a machine that others keep busy.
const SOON: Duration = Duration::from_secs(15);

async fn connect(coordinator: &HttpCoordinator) -> Result<Session, ClientError> {
    let key = IdentityKey::generate(&mut rand::rng());
    let node = NodeId::new(key.address()).unwrap();
    let capabilities =
        Capabilities { device: "CPU".into(), memory_bytes: 1, gpu: false, referred_by: None };
    coordinator.connect(&key, &node, &capabilities).await
}

fn hand_back(n: u128) -> NodeMessage {
    NodeMessage::HandBack { lease: LeaseId(Uuid::from_u128(n)), reason: "test".into() }
}

/// Sends many messages and expects as many answers, in order.
async fn check_conversation(session: &mut Session) {
    for n in 0..200 {
        session.outbox.send(hand_back(n)).await.unwrap();
        if n % 50 == 49 {
            for m in n - 49..=n {
                let answer = timeout(SOON, session.messages.recv()).await.unwrap().unwrap();
                let CoordinatorMessage::Cancel { lease, .. } = answer else { panic!("{answer:?}") };
                assert_eq!(lease, LeaseId(Uuid::from_u128(m)));
            }
        }
    }
}

#[tokio::test]
async fn a_websocket_carries_both_directions_in_order() {
    let server = Server::start(Manners::default()).await;
    let coordinator = HttpCoordinator::new(&server.url()).unwrap();
    let mut session = connect(&coordinator).await.unwrap();
    assert_eq!((&*session.network, &*session.coordinator), (NETWORK, COORDINATOR));
    assert!(!coordinator.websocket_is_blocked());
    check_conversation(&mut session).await;
    assert_eq!(server.seen.requests.load(Ordering::Relaxed), 0, "no long poll was needed");
}

#[tokio::test]
async fn dropping_a_session_sends_what_it_holds_and_closes_the_link() {
    let server = Server::start(Manners::default()).await;
    let coordinator = HttpCoordinator::new(&server.url()).unwrap();
    let session = connect(&coordinator).await.unwrap();
    for n in 0..20 {
        session.outbox.send(hand_back(n)).await.unwrap();
    }
    session.outbox.send(NodeMessage::Goodbye).await.unwrap();
    drop(session);
    let mut closed = server.seen.closed.subscribe();
    timeout(SOON, closed.wait_for(|closed| *closed)).await.unwrap().unwrap();
    let received = server.seen.received.borrow().clone();
    assert_eq!(received.len(), 21);
    assert_eq!(received[20], NodeMessage::Goodbye);
}

#[tokio::test]
async fn where_upgrades_are_blocked_polls_take_over_and_are_remembered() {
    let server = Server::start(Manners { polls_only: true, ..Manners::default() }).await;
    let coordinator = HttpCoordinator::new(&server.url()).unwrap();
    let mut session = connect(&coordinator).await.unwrap();
    assert_eq!((&*session.network, &*session.coordinator), (NETWORK, COORDINATOR));
    assert!(coordinator.websocket_is_blocked());
    check_conversation(&mut session).await;
    assert!(*server.seen.batch_max.lock().unwrap() > 1, "what waits together travels together");

    // A poll is waiting now; handing in must not wait for it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    session.outbox.send(hand_back(7)).await.unwrap();
    timeout(SOON, session.messages.recv()).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_dropped_polling_session_hands_in_its_last_words_and_polls_no_more() {
    let server = Server::start(Manners { polls_only: true, ..Manners::default() }).await;
    let coordinator = HttpCoordinator::new(&server.url()).unwrap();
    let session = connect(&coordinator).await.unwrap();
    session.outbox.send(NodeMessage::Goodbye).await.unwrap();
    drop(session);
    let mut received = server.seen.received.subscribe();
    timeout(SOON, received.wait_for(|all| all.contains(&NodeMessage::Goodbye)))
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let polls = server.seen.polls.load(Ordering::Relaxed);
    // Answers a poll that still waits; a client that still lived would send the next one.
    let nudge = CoordinatorMessage::Cancel {
        lease: LeaseId(Uuid::nil()),
        code: neurino_protocol::ErrorCode::Cancelled,
    };
    server.seen.for_polls.send(nudge).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.seen.polls.load(Ordering::Relaxed), polls);
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_the_coordinators_words() {
    for polls_only in [false, true] {
        let server =
            Server::start(Manners { refuses: true, polls_only, ..Manners::default() }).await;
        let coordinator = HttpCoordinator::new(&server.url()).unwrap();
        let error = connect(&coordinator).await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(body) if body.message == "not today"));
        let polled = server.seen.requests.load(Ordering::Relaxed);
        assert_eq!(polled, usize::from(polls_only), "a refusal is no reason to try another way");
        assert!(!coordinator.websocket_is_blocked());
    }
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let coordinator = HttpCoordinator::new(&format!("http://{address}")).unwrap();
    let error = timeout(SOON, connect(&coordinator)).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_is_no_coordinator_is_told_apart() {
    let router = axum::Router::new().fallback(|| async { "<html>Welcome!</html>" });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let coordinator = HttpCoordinator::new(&format!("http://{address}")).unwrap();
    let error = connect(&coordinator).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol(_)), "{error}");
    serving.abort();
}

#[tokio::test]
async fn unknown_messages_are_skipped_and_oversize_ones_end_the_session() {
    let small = Server::start(Manners { rude: Some(10), ..Manners::default() }).await;
    let coordinator = HttpCoordinator::new(&small.url()).unwrap();
    let mut session = connect(&coordinator).await.unwrap();
    check_conversation(&mut session).await;

    let large =
        Server::start(Manners { rude: Some(MESSAGE_BYTES_MAX + 1), ..Manners::default() }).await;
    let coordinator = HttpCoordinator::new(&large.url()).unwrap();
    let mut session = connect(&coordinator).await.unwrap();
    assert!(timeout(SOON, session.messages.recv()).await.unwrap().is_none());
}

/// Whoever says a byte at a time holds nobody for long, on neither way.
#[tokio::test]
async fn a_coordinator_that_speaks_a_byte_at_a_time_is_left() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let words = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
                for byte in words.iter().copied().chain(std::iter::repeat(b' ')) {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let coordinator = HttpCoordinator::new(&url).unwrap();
    let refused = timeout(Duration::from_secs(40), connect(&coordinator)).await;
    let refused = refused.expect("it gives up by itself").unwrap_err();
    assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_flood_of_nonsense_ends_nothing_and_is_not_kept() {
    let server = Server::start(Manners { nonsense: 20_000, ..Manners::default() }).await;
    let coordinator = HttpCoordinator::new(&server.url()).unwrap();
    let mut session = connect(&coordinator).await.unwrap();
    check_conversation(&mut session).await;
}

#[test]
fn older_programs_understand_each_other() {
    let older = serde_json::json!({ "type": "welcome", "coordinator": "0xaa" });
    let coordinator = "0xaa".into();
    let welcome = CoordinatorMessage::Welcome { coordinator, uploads: false, token: None };
    assert_eq!(serde_json::to_value(&welcome).unwrap(), older, "nothing new is said");
    assert_eq!(serde_json::from_value::<CoordinatorMessage>(older).unwrap(), welcome);
}
