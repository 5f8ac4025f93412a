//! Commands of the same person reach the program that runs, and nobody else does.

use neurino_app::door::{self, DoorError};
use neurino_config::{DoorFile, DoorKey};
use neurino_protocol::app::{Command, MiningState, Reply, StopMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_resume_from_outside() {
    let world = World::answering("fine");
    let data = world.dirs().data;
    let absent = door::ask(&data, Command::Snapshot).await;
    assert!(matches!(absent, Err(DoorError::NotRunning { .. })));

    let viewer = world.start().await;
    viewer.mine_until_ready().await;
    assert_eq!(door::ask(&data, door::pause(Some(15))).await.unwrap(), Reply::Ok);
    let paused = viewer.until_state(MiningState::Paused).await;
    assert!(
        paused.mining.sentence.starts_with("Paused by you until "),
        "{}",
        paused.mining.sentence
    );
    door::ask(&data, door::pause(None)).await.unwrap();
    let Ok(Reply::Snapshot(seen)) = door::ask(&data, Command::Snapshot).await else {
        panic!("a snapshot");
    };
    assert_eq!(seen.mining.sentence, "Paused by you until you resume.");
    door::ask(&data, Command::MiningStart).await.unwrap();
    viewer.until_ready().await;
    let refused = door::ask(&data, Command::Preferences).await;
    assert!(matches!(refused, Err(DoorError::Refused(_))), "only what the tray could do");

    // Who does not know the secret is told nothing.
    let key = DoorFile::new(&data).load().unwrap();
    for said in ["GET / HTTP/1.1\r\n\r\n", "{\"key\":\"\",\"command\":{\"cmd\":\"snapshot\"}}\n"] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", key.port)).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Closed, or closed with what was not read.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{said}");
    }
    viewer.stop(StopMode::Now).await;
    viewer.end().await;
    assert!(DoorFile::new(&data).load().is_none(), "the door is gone with the program");

    // After a kill the file is left, and nobody listens.
    DoorFile::new(&data).save(&DoorKey { port: key.port, secret: key.secret }).unwrap();
    let absent = door::ask(&data, Command::Snapshot).await;
    assert!(matches!(absent, Err(DoorError::NotRunning { .. })));
}
