//! Downloads that break off, lie, stall and go on.

use std::time::Duration;

use neurino_model_store::{ModelState, Progress, Source, SourceError, StoreError};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Request, Server};
use crate::{FILE, content, failures, fetch, file, left, model, options, store, store_of};

#[tokio::test]
async fn a_download_is_verified_and_happens_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    assert_eq!(store.state(&model()).unwrap(), ModelState::Absent);
    let path = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content());
    assert_eq!(store.state(&model()).unwrap(), ModelState::Verified);
    assert_eq!(left(&store), [FILE]);
    fetch(&store).await.unwrap();
    assert_eq!(server.requests().len(), 1, "the second fetch finds the file");
}

#[tokio::test]
async fn a_broken_connection_is_continued_where_it_broke() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|count, request| {
        let answer = Answer::file(request, &content());
        if count < 2 { answer.cut(100_000) } else { answer }
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    let path = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    let asked = |start| Request { range: Some((start, 299_999)) };
    assert_eq!(server.requests(), [Request::default(), asked(100_000), asked(200_000)]);
}

#[tokio::test]
async fn cancelling_keeps_the_part_and_the_next_fetch_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|count, request| {
        let mut answer = Answer::file(request, &content());
        if count == 0 {
            answer = answer.cut(150_000);
            answer.stall = true;
        }
        answer
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let progress = move |now: Progress| {
        if now.done_bytes >= 100_000 {
            stop.cancel();
        }
    };
    let (model, options) = (model(), options());
    let running = store.fetch(&model, &options, progress, cancel);
    let error = tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Cancelled), "{error}");
    let ModelState::Partial { done_bytes, total_bytes: 300_000 } = store.state(&model).unwrap()
    else {
        panic!("{:?}", store.state(&model));
    };
    assert!((100_000..=150_000).contains(&done_bytes), "{done_bytes}");
    assert!(matches!(store.verified(&model).await, Err(StoreError::Absent { .. })));

    let path = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    assert_eq!(server.requests()[1].range.map(|(first, _)| first as u64), Some(done_bytes));
    assert_eq!(left(&store), [FILE]);
}

#[tokio::test]
async fn a_damaged_part_is_found_out_and_fetched_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    let part = store.folder(&model()).join(format!("{FILE}.part"));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    for damage in [vec![0; 1000], vec![0; 300_000], vec![0; 300_001]] {
        let size = damage.len();
        std::fs::write(&part, damage).unwrap();
        let path = fetch(&store).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content(), "{size}");
        store.remove(&model()).await.unwrap();
        std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    }
    let asked: Vec<_> = server.requests().iter().map(|request| request.range).collect();
    assert_eq!(asked, [Some((1000, 299_999)), None, None, None]);
}

#[tokio::test]
async fn wrong_content_is_refused_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| {
        let mut wrong = content();
        wrong[77] ^= 1;
        Answer::file(request, &wrong)
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    let error = fetch(&store).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("SHA-256") && text.contains("import"), "{text}");
    assert!(matches!(failures(error)[0].error, SourceError::WrongDigest { .. }));
    assert_eq!(left(&store), [""; 0]);
    assert_eq!(server.requests().len(), 1, "the same server would say the same");
}

#[tokio::test]
async fn another_size_is_refused_before_and_while_it_arrives() {
    for declared in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(move |_, request| {
            let mut longer = content();
            longer.push(0);
            let mut answer = Answer::file(request, &longer);
            if !declared {
                answer.head = "200 OK\r\n".to_owned();
            }
            answer
        })
        .await;
        let store = store(folder.path(), vec![server.source()]);
        let failed = failures(fetch(&store).await.unwrap_err());
        match failed[0].error {
            SourceError::WrongSize { expected_bytes: 300_000, found_bytes } => {
                assert!(found_bytes > 300_000);
            }
            ref other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_failing_source_is_explained_and_the_next_one_tried() {
    let folder = tempfile::tempdir().unwrap();
    let gone = Server::start(|_, _| Answer::status("404 Not Found")).await;
    let good = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![gone.source(), good.source()]);
    fetch(&store).await.unwrap();
    assert_eq!(gone.requests().len(), 1, "a missing file is not asked for again");
    assert_eq!(good.requests().len(), 1);
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|count, request| match count {
        0 => Answer::status("503 Service Unavailable"),
        1 => Answer::status("429 Too Many Requests"),
        _ => Answer::file(request, &content()),
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    fetch(&store).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn every_failure_is_in_the_final_error_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let gone = Server::start(|_, _| Answer::status("404 Not Found")).await;
    let away = Server::start(|_, _| {
        Answer::status("302 Found\r\nlocation: http://example.invalid/weights.gguf")
    })
    .await;
    let broken = Server::start(|_, request| Answer::file(request, &content()).cut(9)).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Source::Http { url: format!("http://{}/x", listener.local_addr().unwrap()) }
    };
    let bundled = Source::Bundled { path: "none.gguf".to_owned() };
    let sources = vec![bundled, gone.source(), away.source(), closed, broken.source()];
    let store = store(folder.path(), sources);
    let error = fetch(&store).await.unwrap_err();
    let text = error.to_string();
    for words in [
        "carries no copy",
        "404 (the file is not there any more)",
        "redirects to an address that is not allowed",
        "cannot connect to 127.0.0.1",
        "broke after",
        "neurino models import",
    ] {
        assert!(text.contains(words), "`{words}` is missing in: {text}");
    }
    assert_eq!(failures(error).len(), 5);
    assert_eq!(broken.requests().len(), 5, "it is asked again, and not for ever");
}

#[tokio::test]
async fn a_model_of_several_files_is_a_folder_and_keeps_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (content(), b"{\"vocab\": 1}".to_vec());
    let served = two.clone();
    let weights = Server::start(|_, request| Answer::file(request, &content())).await;
    let config = Server::start(move |count, request| match count {
        0 => Answer::status("403 Forbidden"),
        _ => Answer::file(request, &served),
    })
    .await;
    let files = vec![
        file("model.safetensors", &one, vec![weights.source()]),
        file("config.json", &two, vec![config.source()]),
    ];
    let store = store_of(folder.path(), files);
    let error = fetch(&store).await.unwrap_err();
    assert!(error.to_string().contains("sign-in"), "{error}");
    let partial = ModelState::Partial { done_bytes: 300_000, total_bytes: 300_012 };
    assert_eq!(store.state(&model()).unwrap(), partial);
    assert_eq!(fetch(&store).await.unwrap(), store.folder(&model()));
    assert_eq!(weights.requests().len(), 1);
    assert_eq!(left(&store), ["config.json", "model.safetensors"]);
}
