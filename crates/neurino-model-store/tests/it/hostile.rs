//! A server that drops, stalls, cuts off, corrupts, redirects, lies about lengths and answers ranges
//! oddly: never a wrong file, and never more than a chunk of each connection fetched twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neurino_model_store::{
    Digest, FailureReason, FetchOptions, ModelFile, ModelState, Pieces, SourceError, StoreError,
    Throttle,
};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Request, Server};
use crate::{
    FILE, content, failures, fetch, fetch_with, file, left, model, options, store, store_of,
};

const CHUNK: usize = 16 << 10;

/// A small generator, so that each round is another and every run the same.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// One mischief of the server: what it says instead of the truth.
fn mischief(dice: &mut Dice, request: &Request, content: &[u8], elsewhere: &str) -> Answer {
    let honest = Answer::file(request, content);
    let length = honest.body.len();
    match dice.next(13) {
        0 => honest.cut(dice.next(length)),
        1 => {
            let mut answer = honest.cut(dice.next(length));
            answer.stall = true;
            answer
        }
        2 => Answer::status("503 Service Unavailable"),
        3 => Answer::status("429 Too Many Requests"),
        4 => Answer::status("416 Range Not Satisfiable"),
        5 => Answer::whole(content),
        6 => Answer::whole(content).cut(dice.next(content.len())),
        7 => Answer::status(&format!("302 Found\r\nlocation: {elsewhere}")),
        8 => {
            // Another part than the one asked for.
            let first = dice.next(content.len());
            Answer::file(&Request { range: Some((first, content.len() - 1)) }, content)
        }
        9 => {
            // A part, without a word about which.
            let mut answer = honest;
            answer.head = format!("206 Partial Content\r\ncontent-length: {length}\r\n");
            answer
        }
        10 => {
            // Less than asked for, and it says so.
            let (first, last) = request.range.unwrap_or((0, content.len() - 1));
            let last = first + dice.next(last - first + 1);
            Answer::file(&Request { range: Some((first, last)) }, content)
        }
        11 => {
            // It promises more than it has.
            let mut answer = honest;
            answer.head = answer.head.replace("content-length: ", "x-length: ");
            answer.body.truncate(dice.next(length));
            answer
        }
        _ => honest,
    }
}

#[tokio::test]
async fn no_mischief_makes_a_wrong_file_or_loses_what_was_there() {
    let other = Server::start(|_, request| Answer::file(request, &content())).await;
    for round in 0..60_u64 {
        let folder = tempfile::tempdir().unwrap();
        let dice = Mutex::new(Dice(round));
        let elsewhere = other.url().to_owned();
        let server = Server::start(move |_, request| {
            mischief(&mut dice.lock().unwrap(), request, &content(), &elsewhere)
        })
        .await;
        let store = store(folder.path(), vec![server.source()]);
        let connections = 1 + u32::try_from(round % 3).unwrap();
        let options =
            FetchOptions { connections, stall_wait: Duration::from_millis(60), ..options() };
        let mut before = 0;
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 60, "round {round} comes to no end");
            let outcome = fetch_with(&store, &options).await;
            match outcome {
                Ok(path) => {
                    assert_eq!(std::fs::read(path).unwrap(), content(), "round {round}");
                    break;
                }
                Err(error) => {
                    let words = error.to_string();
                    let failed = failures(error);
                    let reason = failed[0].error.reason();
                    assert_ne!(reason, FailureReason::WrongDigest, "round {round}: {words}");
                    assert!(!store.folder(&model()).join(FILE).exists());
                    let now = match store.state(&model()).unwrap() {
                        ModelState::Partial { done_bytes, .. } => done_bytes,
                        ModelState::Absent => 0,
                        state => panic!("{state:?}"),
                    };
                    assert!(now >= before, "round {round} lost {before} -> {now}: {words}");
                    before = now;
                }
            }
        }
        assert_eq!(left(&store), [FILE]);
    }
}

#[tokio::test]
async fn several_connections_fetch_every_byte_once() {
    let folder = tempfile::tempdir().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let server = Server::start(move |_, request| {
        let mut answer = Answer::file(request, &content());
        counted.fetch_add(answer.body.len(), Ordering::Relaxed);
        answer.bytes_per_ms = 10_000;
        answer
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    let options = FetchOptions { connections: 4, ..options() };
    let path = fetch_with(&store, &options).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    assert_eq!(sent.load(Ordering::Relaxed), content().len());
    let asked = server.requests();
    assert!(asked.len() >= 4 && asked.iter().all(|r| r.range.is_some()), "{asked:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_a_part_costs_one_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let server = Server::start(move |count, request| {
        let answer = Answer::file(request, &content());
        let answer =
            if count < 5 { answer.cut(if count == 0 { 200_000 } else { 0 }) } else { answer };
        counted.fetch_add(answer.body.len(), Ordering::Relaxed);
        answer
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    fetch(&store).await.unwrap_err();
    let part = store.folder(&model()).join(format!("{FILE}.part"));
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[3 * CHUNK + 5] ^= 4;
    std::fs::write(&part, bytes).unwrap();
    let path = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    assert_eq!(sent.load(Ordering::Relaxed), content().len() + CHUNK);
}

#[tokio::test]
async fn a_flipped_bit_in_a_complete_file_costs_one_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    let path = fetch(&store).await.unwrap();
    let mut damaged = content();
    damaged[5 * CHUNK] ^= 1;
    damaged.truncate(content().len() - 10);
    std::fs::write(&path, damaged).unwrap();
    assert!(matches!(store.verified(&model()).await, Err(StoreError::WrongSize { .. })));
    let again = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(again).unwrap(), content());
    let asked: Vec<_> = server.requests().iter().skip(1).map(|r| r.range.unwrap()).collect();
    assert!(asked.contains(&(5 * CHUNK, 6 * CHUNK - 1)), "{asked:?}");
    let fetched: usize = asked.iter().map(|(first, last)| last - first + 1).sum();
    assert!(fetched <= 2 * CHUNK, "{asked:?}");
}

#[tokio::test]
async fn where_the_catalogue_names_pieces_a_corrupt_one_alone_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let size = 64 << 10;
    let pieces = Pieces {
        size_bytes: size,
        sha256: content().chunks(size as usize).map(Digest::of).collect(),
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let server = Server::start(move |count, request| {
        let mut wrong = content();
        if count == 0 {
            wrong[100_000] ^= 1;
        }
        let answer = Answer::file(request, &wrong);
        counted.fetch_add(answer.body.len(), Ordering::Relaxed);
        answer
    })
    .await;
    let known = ModelFile { pieces: Some(pieces), ..file(FILE, &content(), vec![server.source()]) };
    let store = store_of(folder.path(), vec![known.clone()]);
    let path = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    assert_eq!(sent.load(Ordering::Relaxed), content().len() + size as usize);

    // A server that cannot do otherwise is given up, and a mirror gives what is missing, no more.
    let folder = tempfile::tempdir().unwrap();
    let stubborn = Server::start(|_, request| {
        let mut wrong = content();
        wrong[100_000] ^= 1;
        Answer::file(request, &wrong)
    })
    .await;
    let mirror = Server::start(|_, request| Answer::file(request, &content())).await;
    let sources = vec![stubborn.source(), mirror.source()];
    let store = store_of(folder.path(), vec![ModelFile { sources, ..known }]);
    fetch(&store).await.unwrap();
    let asked: Vec<_> = mirror.requests().iter().map(|request| request.range).collect();
    assert_eq!(asked, [Some((65_536, 131_071))]);
}

#[tokio::test]
async fn a_mirror_goes_on_where_the_first_server_gave_up() {
    let folder = tempfile::tempdir().unwrap();
    let first = Server::start(|count, request| {
        let answer = Answer::file(request, &content());
        answer.cut(if count == 0 { 150_000 } else { 0 })
    })
    .await;
    let mirror = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![first.source(), mirror.source()]);
    fetch(&store).await.unwrap();
    let asked: Vec<_> = mirror.requests().iter().map(|request| request.range).collect();
    assert_eq!(asked, [Some((150_000, 299_999))]);
}

#[tokio::test]
async fn a_mirror_heals_what_the_first_server_gave_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = Server::start(|count, request| {
        let mut wrong = content();
        wrong[10] ^= 1;
        Answer::file(request, &wrong).cut(if count == 0 { 150_000 } else { 0 })
    })
    .await;
    let mirror = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![wrong.source(), mirror.source()]);
    let path = fetch(&store).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    assert_eq!(mirror.requests().len(), 2, "the rest first, then all of it");
}

#[tokio::test]
async fn reasons_are_told_apart() {
    for (answer, reason) in [
        ("401 Unauthorized", FailureReason::Gated),
        ("403 Forbidden", FailureReason::Gated),
        ("404 Not Found", FailureReason::NotThere),
        ("410 Gone", FailureReason::NotThere),
        ("416 Range Not Satisfiable", FailureReason::RangeRefused),
        ("503 Service Unavailable", FailureReason::ServerBusy),
        ("416 Range Not Satisfiable\r\ncontent-range: bytes */7", FailureReason::WrongSize),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(move |_, _| Answer::status(answer)).await;
        let store = store(folder.path(), vec![server.source()]);
        let failed = failures(fetch(&store).await.unwrap_err());
        assert_eq!(failed[0].error.reason(), reason, "{answer}");
    }
}

#[tokio::test]
async fn a_stalled_server_is_left_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| {
        let mut answer = Answer::file(request, &content()).cut(1000);
        answer.stall = true;
        answer
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    let options = FetchOptions { stall_wait: Duration::from_millis(50), ..options() };
    let failed = failures(fetch_with(&store, &options).await.unwrap_err());
    assert!(matches!(failed[0].error, SourceError::Interrupted { done_bytes: 5000, .. }));
}

#[tokio::test]
async fn the_cap_holds_over_all_connections() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    let throttle = Some(Arc::new(Throttle::new(Some(400_000))));
    let begin = std::time::Instant::now();
    fetch_with(&store, &FetchOptions { connections: 3, throttle, ..options() }).await.unwrap();
    let took = begin.elapsed().as_secs_f64();
    assert!(took > 0.5, "300 kB at 400 kB/s took {took} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_are_killed_a_few_times_go_on() {
    crate::kill::kill_downloads(10).await;
}

#[tokio::test]
async fn dropping_the_fetch_ends_its_work() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| {
        let mut answer = Answer::file(request, &content());
        answer.bytes_per_ms = 1000;
        answer
    })
    .await;
    let store = store(folder.path(), vec![server.source()]);
    let (id, options) = (model(), options());
    let running = store.fetch(&id, &options, |_| {}, CancellationToken::new());
    assert!(tokio::time::timeout(Duration::from_millis(120), running).await.is_err());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let state = store.state(&model()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.state(&model()).unwrap(), state, "nobody writes any more");
    fetch(&store).await.unwrap();
}
