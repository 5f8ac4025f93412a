//! A person's own model while the program runs: looked at, added, served, removed, also by others.

use std::path::{Path, PathBuf};

use neurino_core::{JobKind, ModelId};
use neurino_model_store::ModelStore;
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, ModelState, Reply, Snapshot};
use neurino_protocol::library::{FitVerdict, LibraryAction, Task};
use neurino_protocol::own_model::{OwnModelCommand, OwnModelView};
use neurino_protocol::{ErrorBody, app};

use crate::world::{Viewer, World, question_of};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

async fn look(viewer: &Viewer, path: &Path) -> Result<OwnModelView, ErrorBody> {
    let path = path.display().to_string();
    match viewer.command(Command::OwnModel(OwnModelCommand::Look { path })).await? {
        Reply::OwnModel(view) => Ok(*view),
        other => panic!("{other:?}"),
    }
}

async fn add(viewer: &Viewer, path: &Path, id: &str) -> Result<Reply, ErrorBody> {
    let (path, id) = (path.display().to_string(), id.to_owned());
    viewer.command(Command::OwnModel(OwnModelCommand::Add { path, id })).await
}

fn stands(snapshot: &Snapshot, id: &str) -> Option<ModelState> {
    let model = snapshot.models.iter().find(|model| model.id.as_str() == id)?;
    Some(model.state.clone())
}

async fn ended(viewer: &Viewer) -> neurino_protocol::library::Outcome {
    let after = viewer.until("ended", |s| s.library.outcome.is_some()).await;
    after.library.outcome.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_model_is_served_at_once_and_leaves_at_once() {
    let world = World::answering("fine");
    let mut viewer = world.start().await;
    viewer.mine_until_ready().await;

    let source = fixture("llm/llama3");
    let view = look(&viewer, &source).await.unwrap();
    assert_eq!((view.name.as_str(), view.id.as_str()), ("llama3", "llama3"));
    assert_eq!((view.kind, view.arch.as_str()), (JobKind::Text, "llama"));
    assert!(view.context_tokens > 0 && view.files >= 6 && view.size_bytes > 300_000);
    assert!(view.fits.iter().all(|fit| fit.verdict != FitVerdict::No) && !view.fits.is_empty());
    assert_eq!(view.may_be, None);

    assert_eq!(add(&viewer, &source, "my-llama").await, Ok(Reply::Ok));
    let outcome = ended(&viewer).await;
    assert_eq!((outcome.task, outcome.problem), (Task::Add, None));
    assert_eq!(outcome.sentence.as_deref(), Some("llama3 is among your models now."));
    let there = viewer.snapshot().await;
    assert_eq!(stands(&there, "my-llama"), Some(ModelState::Ready));
    let facts = there.library.models.iter().find(|m| m.model.as_str() == "my-llama").unwrap();
    assert!(facts.own && facts.disk_bytes > 0);

    // The network may be asked for it, and the miner that ran all along serves it.
    let id = ModelId::new("my-llama").unwrap();
    viewer.command(question_of("c", id.clone())).await.unwrap();
    assert_eq!(viewer.answer("c").await.unwrap().text, "fine");
    assert_eq!(viewer.settled().await.model, id);

    // The same name twice is refused with a way out.
    add(&viewer, &source, "my-llama").await.unwrap();
    let again = viewer
        .until("refused", |s| s.library.outcome.as_ref().is_some_and(|o| o.problem.is_some()))
        .await;
    let problem = again.library.outcome.unwrap().problem.unwrap();
    assert!(problem.message.contains("my-llama"), "{}", problem.message);

    // Another program removes it, and adds another one.
    viewer.stop(app::StopMode::Now).await;
    viewer.until_over().await;
    let other = ModelStore::open(&world.dirs().models).unwrap();
    other.remove(&id).await.unwrap();
    viewer.until("gone", |s| stands(s, "my-llama").is_none()).await;
    assert!(source.join("config.json").exists(), "the person's files stay");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_refused_and_changes_nothing() {
    let world = World::answering("fine");
    let viewer = world.start().await;
    let before = viewer.snapshot().await.models.len();
    let wrong = world.home.path().join("holiday.jpg");
    std::fs::write(&wrong, "a picture").unwrap();
    let error = look(&viewer, &wrong).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.starts_with("that is no model: "), "{}", error.message);
    assert!(error.hint.unwrap().contains("GGUF"));
    assert!(look(&viewer, &world.home.path().join("absent.gguf")).await.is_err());
    assert!(look(&viewer, Path::new("relative.gguf")).await.is_err());
    let lora = look(&viewer, &fixture("sd/sd15/lora_peft.safetensors")).await.unwrap_err();
    assert!(lora.message.contains("a LoRA"), "{}", lora.message);

    let good = fixture("llm/llama3");
    for id in ["", "a b", "../x y"] {
        assert!(add(&viewer, &good, id).await.is_err(), "`{id}`");
    }
    assert!(add(&viewer, &wrong, "photo").await.is_err());
    assert_eq!(viewer.snapshot().await.models.len(), before);

    // Added, then removed by the button of its row.
    add(&viewer, &good, "mine").await.unwrap();
    ended(&viewer).await;
    let models = vec![ModelId::new("mine").unwrap()];
    viewer.command(Command::Library(LibraryAction::Remove { models })).await.unwrap();
    assert_eq!(viewer.snapshot().await.models.len(), before);
    viewer.end().await;
}
