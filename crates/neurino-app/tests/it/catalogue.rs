//! More models than those of the build: the network's lists, read in the window, and the signed catalogue,
//! which the application looks for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use neurino_app::{AppOptions, CatalogueOptions};
use neurino_core::ModelId;
use neurino_model_store::{Catalog, signed};
use neurino_protocol::app::{Command, ModelState, Reply, Snapshot};
use neurino_protocol::catalogue::{CatalogueCommand, CatalogueView, ListPlaces};
use neurino_protocol::library::{LibraryAction, Outcome, Task};
use neurino_protocol::update::{UpdateCommand, UpdatePreferences};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_update::release;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::guard::Desk;
use crate::world::{Viewer, WEIGHTS, World};

const SEED: [u8; 32] = [5; 32];
const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A web server that gives the size of every file, and for `/held` nothing at all.
async fn sizes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                if head[..read].starts_with(b"HEAD /held") {
                    std::future::pending::<()>().await;
                }
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4096\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
            });
        }
    });
    url
}

fn listed(url: &str, name: &str, file: &str) -> String {
    format!(
        r#"{{"name":"{name}","type":"sd15","file_url":"{url}/{file}","checksum":"{SUM}","defaults":{{"num_inference_steps":50}}}}"#
    )
}

fn models_at(path: &Path) -> ListPlaces {
    ListPlaces { models: path.display().to_string(), ..ListPlaces::default() }
}

async fn ask(viewer: &Viewer, command: CatalogueCommand) -> Result<CatalogueView, ErrorBody> {
    match viewer.command(Command::Catalogue(command)).await? {
        Reply::Catalogue(view) => Ok(*view),
        other => panic!("{other:?}"),
    }
}

async fn read(viewer: &Viewer, places: ListPlaces) -> Outcome {
    viewer.command(Command::Library(LibraryAction::Dismiss)).await.unwrap();
    ask(viewer, CatalogueCommand::ReadLists { places }).await.unwrap();
    let after = viewer.until("ended", |s| s.library.outcome.is_some()).await;
    after.library.outcome.unwrap()
}

fn has(snapshot: &Snapshot, id: &str) -> bool {
    snapshot.models.iter().any(|model| model.id.as_str() == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_in_the_window_and_their_models_can_be_fetched() {
    let (world, url) = (World::answering("fine"), sizes().await);
    let path = world.home.path().join("models.json");
    let bare = r#"{"name":"hermes","type":"llm8b"}"#;
    std::fs::write(&path, format!("[{},{bare}]", listed(&url, "Dreamer", "d"))).unwrap();
    let viewer = world.start().await;
    assert_eq!(ask(&viewer, CatalogueCommand::Look).await.unwrap().report, None);
    let outcome = read(&viewer, models_at(&path)).await;
    assert_eq!((outcome.task, outcome.problem), (Task::Lists, None));
    let sentence = outcome.sentence.unwrap();
    assert_eq!(sentence, "The lists were read. New models: 1. Not to be used: 1.");
    let there = viewer.snapshot().await;
    let dreamer = there.models.iter().find(|model| model.id.as_str() == "Dreamer").unwrap();
    assert_eq!((&dreamer.state, dreamer.size_bytes), (&ModelState::Absent, 4096));
    assert!(there.library.models.iter().any(|m| m.model.as_str() == "Dreamer" && !m.own));
    let view = ask(&viewer, CatalogueCommand::Look).await.unwrap();
    assert_eq!(view.places, models_at(&path));
    let report = view.report.unwrap();
    assert_eq!(report.added, [ModelId::new("Dreamer").unwrap()]);
    assert_eq!(report.changed[0].what, "steps 50 becomes 35");
    assert_eq!(report.left_out[0].name, "hermes");
    assert!(report.left_out[0].reason.contains("SHA-256"), "{:?}", report.left_out);
    let get = Command::ModelFetch { model: ModelId::new("Dreamer").unwrap() };
    assert_eq!(viewer.command(get).await, Ok(Reply::Ok));
    viewer.end().await;

    // The next start proposes the same places, and knows the models.
    let viewer = world.start().await;
    let view = ask(&viewer, CatalogueCommand::Look).await.unwrap();
    assert_eq!((view.places, view.report), (models_at(&path), None));
    assert!(has(&viewer.snapshot().await, "Dreamer"));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_cannot_be_read_are_told_with_a_way_out_and_a_stop_adds_nothing() {
    let (world, url) = (World::answering("fine"), sizes().await);
    let viewer = world.start().await;
    let refused = |models: &str, vae: &str| {
        let places = ListPlaces { models: models.into(), vae: vae.into(), lora: String::new() };
        ask(&viewer, CatalogueCommand::ReadLists { places })
    };
    for (models, vae, words) in [
        (" ", "", "the list of models is missing"),
        ("models.json", "", "the list of models needs an https address"),
        ("http://example.com/m", "", "the list of models needs an https address"),
        ("https://example.com/m", "file:///v", "the list of autoencoders needs"),
    ] {
        let error = refused(models, vae).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        assert!(error.message.starts_with(words), "{}", error.message);
        assert!(error.hint.is_some());
    }
    assert!(viewer.snapshot().await.library.activity.is_none(), "nothing was begun");

    let path = world.home.path().join("models.json");
    std::fs::write(&path, "<html>").unwrap();
    let problem = read(&viewer, models_at(&path)).await.problem.unwrap();
    assert_eq!(problem.code, ErrorCode::InvalidRequest);
    let begins = "the list of models cannot be used: it is not a list in JSON";
    assert!(problem.message.starts_with(begins), "{}", problem.message);
    assert!(problem.hint.unwrap().contains("save the list"));
    let view = ask(&viewer, CatalogueCommand::Look).await.unwrap();
    assert_eq!((view.places, view.report), (ListPlaces::default(), None));

    let entries = [listed(&url, "quick", "q"), listed(&url, "slow", "held")];
    std::fs::write(&path, format!("[{}]", entries.join(","))).unwrap();
    viewer.command(Command::Library(LibraryAction::Dismiss)).await.unwrap();
    ask(&viewer, CatalogueCommand::ReadLists { places: models_at(&path) }).await.unwrap();
    let asked = |s: &Snapshot| s.library.activity.as_ref().and_then(|activity| activity.asked);
    let half = |s: &Snapshot| asked(s).is_some_and(|asked| (asked.done, asked.total) == (1, 2));
    viewer.until("half of it", half).await;
    // One long task at a time.
    let busy = ask(&viewer, CatalogueCommand::ReadLists { places: models_at(&path) }).await;
    assert_eq!(busy.unwrap_err().code, ErrorCode::Overloaded);
    viewer.command(Command::Library(LibraryAction::StopTask)).await.unwrap();
    let after = viewer.until("stopped", |s| s.library.activity.is_none()).await;
    assert_eq!(after.library.outcome, None);
    assert!(!has(&after, "quick"));
    viewer.end().await;
}

/// A place with signed catalogues, and an application that looks there again and again.
struct Shelf {
    path: PathBuf,
    world: World,
}

impl Shelf {
    fn new() -> Self {
        let world = World::answering("fine");
        Self { path: world.home.path().join("catalogue.json"), world }
    }

    /// Puts an edition with one model, `edition-N`, in place of the one before.
    fn publish(&self, version: u64, seed: &[u8; 32]) {
        let mut model = Catalog::built_in().models()[0].clone();
        model.id = ModelId::new(format!("edition-{version}")).unwrap();
        let payload = serde_json::json!({
            "version": version, "issued_at_ms": 1_780_444_800_000_i64, "models": [model],
        });
        let text = signed::sealed_catalogue(&payload.to_string(), seed);
        let draft = self.path.with_extension("new");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &self.path).unwrap();
    }

    fn options(&self) -> AppOptions {
        let key = release::public_key(&SEED).unwrap();
        let catalogue = CatalogueOptions {
            source: self.path.display().to_string(),
            key,
            first_look_after: Duration::from_millis(50),
            look_every: Duration::from_millis(100),
        };
        let store = self.world.store_of(WEIGHTS, &[]).trusting(key);
        AppOptions { store: Some(store), catalogue: Some(catalogue), ..self.world.options() }
    }
}

fn edition(snapshot: &Snapshot) -> Option<u64> {
    snapshot.library.catalogue.edition.map(|edition| edition.version)
}

fn problem(snapshot: &Snapshot) -> Option<&str> {
    snapshot.library.catalogue.problem.as_ref().map(|error| error.message.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_editions_are_taken_by_themselves_and_older_ones_never() {
    let shelf = Shelf::new();
    shelf.publish(3, &SEED);
    let viewer = Viewer::start(shelf.options()).await.unwrap();
    let found = viewer.until("edition 3", |s| edition(s) == Some(3) && has(s, "edition-3")).await;
    let stands = &found.library.catalogue;
    assert!(stands.looks && stands.problem.is_none());
    assert_eq!(stands.edition.unwrap().issued_at_ms, Some(1_780_444_800_000));
    viewer.until("looked", |s| s.library.catalogue.checked_at_ms.is_some()).await;

    shelf.publish(2, &SEED);
    let older = |s: &Snapshot| problem(s).is_some_and(|words| words.contains("version 3 was here"));
    viewer.until("refused", older).await;
    shelf.publish(9, &[6; 32]);
    let foreign =
        |s: &Snapshot| problem(s).is_some_and(|words| words.contains("not the network's"));
    let refused = viewer.until("refused again", foreign).await;
    assert_eq!(edition(&refused), Some(3));
    shelf.publish(4, &SEED);
    let newer = viewer.until("edition 4", |s| edition(s) == Some(4) && problem(s).is_none()).await;
    assert!(has(&newer, "edition-4") && !has(&newer, "edition-3"));
    viewer.end().await;

    // The catalogue's folder is lost: what was seen once is not gone back behind.
    std::fs::remove_dir_all(shelf.world.dirs().models.join("catalog")).unwrap();
    shelf.publish(3, &SEED);
    let viewer = Viewer::start(shelf.options()).await.unwrap();
    let old = |s: &Snapshot| problem(s).is_some_and(|words| words.contains("version 4 was here"));
    let kept = viewer.until("refused", old).await;
    assert_eq!((edition(&kept), has(&kept, "edition-3")), (None, false));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_is_not_looked_for_over_a_metered_network_unless_the_person_asks() {
    let (shelf, desk) = (Shelf::new(), Desk::quiet());
    desk.change(|view| view.metered = Some(true));
    shelf.publish(1, &SEED);
    let options = AppOptions { surroundings: Some(Box::new(desk.clone())), ..shelf.options() };
    let viewer = Viewer::start(options).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(edition(&viewer.snapshot().await), None);
    ask(&viewer, CatalogueCommand::Check).await.unwrap();
    viewer.until("asked for", |s| edition(s) == Some(1)).await;
    shelf.publish(2, &SEED);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(edition(&viewer.snapshot().await), Some(1));
    desk.change(|view| view.metered = Some(false));
    viewer.until("by itself", |s| edition(s) == Some(2)).await;

    // Nor where the person wants no newer versions.
    let preferences = UpdatePreferences { check: false, by_itself: false };
    viewer.command(Command::Update(UpdateCommand::Set { preferences })).await.unwrap();
    shelf.publish(3, &SEED);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(edition(&viewer.snapshot().await), Some(2));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_a_place_says_so() {
    let world = World::answering("fine");
    let viewer = world.start().await;
    let stands = viewer.snapshot().await.library.catalogue;
    assert!(!stands.looks && stands.edition.is_none() && stands.checked_at_ms.is_none());
    let error = ask(&viewer, CatalogueCommand::Check).await.unwrap_err();
    assert_eq!(error.message, "This version looks for no newer catalogue.");
    viewer.end().await;
}
