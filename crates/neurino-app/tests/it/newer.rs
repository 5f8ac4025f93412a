//! A model whose files are others now: told, fetched at a press, and changed between two jobs.

use neurino_app::AppOptions;
use neurino_model_store::{Catalog, Source};
use neurino_protocol::app::{Command, MiningState, ModelState, Reply, Snapshot};
use neurino_protocol::library::{LibraryAction, NewerVersion};

use crate::downloads::web_with;
use crate::mining::hanging;
use crate::world::{Viewer, WEIGHTS, World};

const NEWER: &[u8] = b"the weights of the same engine, trained for longer";

/// A home that has the model as it was.
fn world() -> World {
    let bundled = vec![Source::Bundled { path: "models/weights.gguf".into() }];
    let world = World::without_model(bundled);
    std::fs::create_dir_all(world.model_file().parent().unwrap()).unwrap();
    std::fs::write(world.model_file(), WEIGHTS).unwrap();
    world
}

/// Starts with a catalogue that has the newer one, from a web server.
async fn start_newer(world: &World, slow: bool) -> Viewer {
    let source = web_with(NEWER, "", 0, slow).await;
    let store = world.store_of(NEWER, &[source]);
    Viewer::start(AppOptions { store: Some(store), ..world.options() }).await.unwrap()
}

fn newer(snapshot: &Snapshot) -> Option<NewerVersion> {
    snapshot.library.models[0].newer
}

fn content_in_memory(world: &World) -> Vec<u8> {
    std::fs::read(world.engine.loaded().expect("a model in memory").path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_one_mines_until_the_new_one_is_here_and_then_the_new_one() {
    let world = world();
    let viewer = world.start().await;
    viewer.mine_until_ready().await;
    assert_eq!(newer(&viewer.snapshot().await), None);
    viewer.end().await;

    let mut viewer = start_newer(&world, false).await;
    let told = viewer.snapshot().await;
    let bytes = NEWER.len() as u64;
    assert_eq!(newer(&told), Some(NewerVersion { bytes, seconds: None }));
    assert_eq!(told.models[0].state, ModelState::Ready, "the old one is of use");
    viewer.mine_until_ready().await;
    assert_eq!(content_in_memory(&world), WEIGHTS);
    viewer.earn("by the old one").await;

    // A job runs while the new one comes: it is finished, not handed back.
    world.engine.queue(hanging());
    viewer.ask("long").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    let get = Command::ModelFetch { model: Catalog::starter() };
    assert_eq!(viewer.command(get).await, Ok(Reply::Ok));
    viewer.until("it came", |s| newer(s).is_none()).await;
    viewer.until_state(MiningState::Finishing).await;
    assert_eq!(content_in_memory(&world), WEIGHTS, "the job goes on with it");
    viewer.command(Command::ChatCancel { chat: "long".into() }).await.unwrap();
    viewer.until_ready().await;
    assert_eq!(content_in_memory(&world), NEWER);
    viewer.earn("by the new one").await;
    // Not by way of the old catalogue, to which the new one would be a version before.
    let path = world.engine.loaded().expect("a model in memory").path;
    assert!(!path.with_file_name(".former").exists(), "its files are gone");
    assert_eq!(std::fs::read(path).unwrap(), NEWER);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_the_newer_one_leaves_the_one_that_is_used() {
    let world = world();
    let viewer = world.start().await;
    viewer.mine_until_ready().await;
    viewer.end().await;
    let viewer = start_newer(&world, true).await;
    let model = Catalog::starter();
    viewer.command(Command::ModelFetch { model: model.clone() }).await.unwrap();
    viewer.until("fetching", |s| matches!(s.models[0].state, ModelState::Fetching { .. })).await;
    let cancel = Command::Library(LibraryAction::Cancel { model });
    assert_eq!(viewer.command(cancel).await, Ok(Reply::Ok));
    let after = viewer.until("ready", |s| s.models[0].state == ModelState::Ready).await;
    assert!(newer(&after).is_some() && after.library.queue.is_empty());
    viewer.mine_until_ready().await;
    assert_eq!(content_in_memory(&world), WEIGHTS);
    viewer.end().await;
}
