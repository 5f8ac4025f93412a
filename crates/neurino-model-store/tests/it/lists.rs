//! The network's lists, read from a server that tells the truth, breaks off, lies and leads astray.

use std::path::Path;
use std::sync::Mutex;

use neurino_core::ModelId;
use neurino_model_store::lists::{LIST_BYTES_MAX, Places, Taken};
use neurino_model_store::{Catalog, ListKind, ListProblem, ModelStore, SourceError, StoreError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Server};

const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn store(folder: &Path) -> ModelStore {
    ModelStore::open_with(folder, Catalog::default(), Box::new(|_| Ok(u64::MAX))).unwrap()
}

/// Three lists, and the sizes of the files that they name: `/N.safetensors` has N bytes.
async fn served(models: impl Fn() -> Value + Send + Sync + 'static) -> Server {
    Server::of_paths(move |asked| match asked.split_once(' ').unwrap() {
        (_, "/models.json") => Answer::whole(models().to_string().as_bytes()),
        ("HEAD", path) => match path.trim_matches('/').trim_end_matches(".safetensors").parse() {
            Ok(bytes) => {
                let mut answer = Answer::whole(&vec![0; bytes]);
                answer.body.clear();
                answer
            }
            Err(_) => Answer::status("404 Not Found"),
        },
        (_, "/cut.json") => Answer::whole(b"[{\"name\":\"a\"}]").cut(5),
        (_, "/large.json") => Answer::whole(&vec![b' '; LIST_BYTES_MAX + 1]),
        (_, "/page.json") => Answer::whole(b"<!doctype html><title>Sign in</title>"),
        (_, "/away.json") => {
            Answer::status("302 Found\r\nlocation: http://example.com/models.json")
        }
        (_, "/none.json") => Answer::whole(b"[]"),
        _ => Answer::status("404 Not Found"),
    })
    .await
}

fn model(server: &str, name: &str, size: &str) -> Value {
    let url = format!("{server}/{size}.safetensors");
    json!({ "name": name, "type": "sd15", "file_url": url, "checksum": SUM })
}

async fn take(store: &ModelStore, models: &str) -> Result<Taken, StoreError> {
    let places = Places { models: models.to_owned(), ..Places::default() };
    store.take_lists(&places, |_, _| {}, CancellationToken::new()).await
}

/// A list on disk that names files of `server`.
fn written(folder: &Path, entries: &[Value]) -> String {
    let path = folder.join("models.json");
    std::fs::write(&path, Value::from(entries.to_vec()).to_string()).unwrap();
    path.display().to_string()
}

fn problem(outcome: Result<Taken, StoreError>) -> (ListKind, ListProblem) {
    match outcome {
        Err(StoreError::BadList { list, source }) => (list, source),
        other => panic!("{other:?}"),
    }
}

fn manifests(store: &ModelStore) -> usize {
    std::fs::read_dir(store.catalog_folder()).map_or(0, Iterator::count)
}

#[tokio::test]
async fn what_lists_vouch_for_is_added_and_the_rest_is_named() {
    let home = tempfile::tempdir().unwrap();
    let server = served(|| json!([])).await;
    let at = |name: &str, size: &str| model(server.url(), name, size);
    let mut slow = at("slow", "2000");
    slow["defaults"] = json!({ "num_inference_steps": 50 });
    let mut bare = at("bare", "2000");
    bare["checksum"] = Value::Null;
    let mut other = at("torn", "2000");
    other["author"] = json!("somebody else");
    let entries = [
        at("Dreamer", "1000"),
        slow,
        bare,
        at("torn", "2000"),
        other,
        at("dreamer", "3000"),
        at("gone", "nowhere"),
        json!({ "name": "hermes", "type": "llm8b", "hf_id": "x/y" }),
        at(&"x".repeat(150), "nowhere"),
    ];
    let list = written(home.path(), &entries);
    let store = store(&home.path().join("models"));
    let told: Mutex<Vec<(usize, usize)>> = Mutex::default();
    let places = Places { models: list.clone(), ..Places::default() };
    let tell = |done, total| told.lock().unwrap().push((done, total));
    let taken = store.take_lists(&places, tell, CancellationToken::new()).await.unwrap();
    let names = |ids: &[ModelId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&taken.added), ["Dreamer", "slow"]);
    assert_eq!(taken.changed[0].0.as_str(), "slow");
    assert_eq!(taken.changed[0].1, "steps 50 becomes 35");
    let reason = |name: &str| {
        let found = taken.left.iter().find(|(left, _)| left == name);
        found.map_or_else(|| panic!("{name}: {taken:?}"), |(_, reason)| reason.clone())
    };
    for (name, words) in [
        ("bare", "no SHA-256"),
        ("torn", "more than once"),
        ("dreamer", "capital letters"),
        ("gone", "404"),
        ("hermes", "language models"),
    ] {
        assert!(reason(name).contains(words), "{name}: {}", reason(name));
    }
    assert_eq!(taken.left.len(), 6, "{:?}", taken.left);
    assert!(taken.left.iter().any(|(name, _)| name.ends_with('…') && name.chars().count() == 101));
    // Each address is asked for once, and progress comes to its end.
    let told = told.into_inner().unwrap();
    assert_eq!((told[0], told.last().copied().unwrap()), ((0, 3), (3, 3)));
    let catalog = store.catalog();
    let first = catalog.get(&ModelId::new("Dreamer").unwrap()).unwrap();
    assert_eq!(first.size_bytes(), 1000);

    // The same lists again: known, and nothing is written anew.
    let again = take(&store, &list).await.unwrap();
    assert_eq!(
        (names(&again.known), again.added.len()),
        (vec!["Dreamer".into(), "slow".into()], 0)
    );
    // Other files under a known name: what is here stays.
    let mut changed = at("slow", "2000");
    changed["checksum"] = json!(SUM.replace("ba78", "0000"));
    let list = written(home.path(), &[changed]);
    let third = take(&store, &list).await.unwrap();
    assert!(third.left[0].1.contains("known already"), "{third:?}");
    assert_eq!(manifests(&store), 2);
}

#[tokio::test]
async fn lists_of_a_server_are_read_and_empty_ones_are_fine() {
    let home = tempfile::tempdir().unwrap();
    let own = Server::of_paths(|asked| match asked {
        "HEAD /7.safetensors" => Answer::whole(b"weights"),
        _ => Answer::status("404 Not Found"),
    })
    .await;
    let url = own.url().to_owned();
    let server = served(move || json!([model(&url, "tiny", "7")])).await;
    let store = store(home.path());
    let places = Places {
        models: format!("{}/models.json", server.url()),
        vae: format!(" {}/none.json\n", server.url()),
        lora: String::new(),
    };
    let taken = store.take_lists(&places, |_, _| {}, CancellationToken::new()).await.unwrap();
    assert_eq!((taken.added.len(), taken.left.len()), (1, 0), "{taken:?}");
    assert_eq!(take(&store, "").await.unwrap(), Taken::default());
}

#[tokio::test]
async fn what_is_no_list_changes_nothing_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    let server = served(|| json!([])).await;
    let store = store(&home.path().join("models"));
    let at = |name: &str| format!("{}/{name}", server.url());
    let models = |place: String| {
        let store = store.clone();
        async move { problem(take(&store, &place).await).1 }
    };
    let cut = models(at("cut.json")).await;
    assert!(matches!(cut, ListProblem::Source(SourceError::CutOff { .. })), "{cut:?}");
    let large = models(at("large.json")).await;
    assert!(matches!(large, ListProblem::TooLarge { megabytes: 8 }), "{large:?}");
    let page = models(at("page.json")).await;
    assert!(matches!(page, ListProblem::NotJson { .. }), "{page:?}");
    let away = models(at("away.json")).await;
    assert!(matches!(away, ListProblem::Source(SourceError::Redirect { .. })), "{away:?}");
    let absent = models(at("absent.json")).await;
    let not_there = |status: &u16| *status == 404;
    assert!(
        matches!(&absent, ListProblem::Source(SourceError::Status { status, .. }) if not_there(status)),
        "{absent:?}"
    );
    for place in ["http://example.com/models.json", "ftp://x.org/m", "file:///etc/passwd"] {
        let refused = models(place.to_owned()).await;
        assert!(matches!(refused, ListProblem::NotAllowed), "{place}: {refused:?}");
    }
    // Files: none, a folder, one that is too large, one that is no text.
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let none = models(home.path().join("none").display().to_string()).await;
    assert!(matches!(none, ListProblem::Io { .. }), "{none:?}");
    let folder = models(home.path().display().to_string()).await;
    assert!(matches!(folder, ListProblem::NotAFile { .. }), "{folder:?}");
    let large = models(file("large", &vec![b' '; LIST_BYTES_MAX + 1])).await;
    assert!(matches!(large, ListProblem::TooLarge { .. }), "{large:?}");
    let binary = models(file("binary", &[0xff, 0xfe, 0x00])).await;
    assert!(matches!(binary, ListProblem::NotText), "{binary:?}");
    let marked = file("marked", "\u{feff}[]".as_bytes());
    assert_eq!(take(&store, &marked).await.unwrap(), Taken::default());
    // Which of the three it is, is told; a list of a wrong kind spoils nothing that is here.
    let places = Places { lora: at("page.json"), ..Places::default() };
    let lora = store.take_lists(&places, |_, _| {}, CancellationToken::new()).await;
    let lora = problem(lora);
    assert_eq!((lora.0, lora.0.to_string()), (ListKind::Loras, "the list of LoRAs".to_owned()));
    assert_eq!(manifests(&store), 0);
}

#[tokio::test]
async fn a_key_in_an_address_is_in_no_error() {
    let home = tempfile::tempdir().unwrap();
    let server = served(|| json!([])).await;
    let store = store(home.path());
    for path in ["absent.json", "cut.json", "away.json", "page.json"] {
        let place = format!("{}/{path}?key=geheim", server.url());
        let error = take(&store, &place).await.unwrap_err();
        let words = format!("{} {error:?}", neurino_core::told_with_causes(&error));
        assert!(!words.contains("geheim"), "{words}");
    }
}

#[tokio::test]
async fn a_stop_adds_nothing() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::of_paths(|_| {
        let mut answer = Answer::whole(b"");
        answer.head = "200 OK\r\ncontent-length: 9\r\n".into();
        answer.stall = true;
        answer
    })
    .await;
    let quick = served(|| json!([])).await;
    let entries = [model(quick.url(), "quick", "7")];
    let list = written(home.path(), &entries);
    let store = store(&home.path().join("models"));
    let cancel = CancellationToken::new();
    let places = Places {
        models: list.clone(),
        vae: format!("{}/vae.json", server.url()),
        lora: String::new(),
    };
    let taking = store.take_lists(&places, |_, _| {}, cancel.clone());
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        cancel.cancel();
    };
    let (taken, ()) = tokio::join!(taking, stop);
    assert!(matches!(taken, Err(StoreError::Cancelled)), "{taken:?}");
    assert_eq!(manifests(&store), 0);
    assert!(store.catalog().models().is_empty());
}
