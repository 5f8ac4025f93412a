//! Power cuts of a download: the process is killed at random moments, again and again. What it leaves is
//! taken up by the next one, which loses no more than the chunk that was under way.
//!
//! The process that dies is this very test program, started anew for [`victim`] alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use neurino_model_store::{FetchOptions, ModelState, ModelStore, Progress, Source};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Server};
use crate::{FILE, content, file, left, model, options, store_of};

/// Kills in the step of the tests that is about them; `NEURINO_KILL_DOWNLOADS` overrides it.
const KILLS: u32 = 500;
const PLACE: &str = "NEURINO_TEST_VICTIM_FOLDER";
const URL: &str = "NEURINO_TEST_VICTIM_URL";
const CHUNK_BYTES: u64 = 16 << 10;
const CONNECTIONS: u32 = 2;

/// Large enough that a life ends in the middle.
fn much() -> Vec<u8> {
    content().repeat(10)
}

fn store_at(folder: &Path, url: &str) -> ModelStore {
    let source = Source::Http { url: url.to_owned() };
    store_of(folder, vec![file(FILE, &much(), vec![source])])
}

/// Says something in one write, past the test harness.
fn tell(words: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{words}\n").as_bytes());
}

/// Fetches, and says on standard output how far it is; it is killed on the way.
#[tokio::test]
async fn victim() {
    let (Ok(folder), Ok(url)) = (std::env::var(PLACE), std::env::var(URL)) else { return };
    let store = store_at(Path::new(&folder), &url);
    let options = FetchOptions { connections: CONNECTIONS, ..options() };
    let progress = |now: Progress| tell(&format!("done {}", now.done_bytes));
    store.fetch(&model(), &options, progress, CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_downloads_go_on() {
    let kills = std::env::var("NEURINO_KILL_DOWNLOADS").ok().and_then(|n| n.parse().ok());
    kill_downloads(kills.unwrap_or(KILLS)).await;
}

/// Kills so many downloads, and holds each to what it promised.
pub(crate) async fn kill_downloads(kills: u32) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let all = much();
    let server = Server::start(move |_, request| {
        let mut answer = Answer::file(request, &all);
        answer.bytes_per_ms = 6_000;
        counted.fetch_add(1, Ordering::Relaxed);
        answer
    })
    .await;
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (mut killed, mut rounds, mut lost_most) = (0, 0, 0);
    while killed < kills {
        rounds += 1;
        let place = tempfile::tempdir().unwrap();
        let store = store_at(place.path(), server.url());
        loop {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "kill::victim", "--nocapture", "--test-threads=1"])
                .env(PLACE, place.path())
                .env(URL, server.url())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let life = Duration::from_micros(2_000 + random(250_000));
            let stdout = victim.stdout.take().unwrap();
            let told = std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                let done = |line: String| line.strip_prefix("done ")?.parse::<u64>().ok();
                lines.filter_map(done).last().unwrap_or(0)
            });
            tokio::time::sleep(life).await;
            let ended = victim.try_wait().unwrap();
            let _ = victim.kill();
            let _ = victim.wait();
            let told_bytes = told.join().unwrap();
            if let Some(status) = ended {
                assert!(status.success(), "the download failed by itself");
            } else {
                killed += 1;
            }
            match store.state(&model()).unwrap() {
                // A name is given only to what has been hashed.
                ModelState::Verified | ModelState::Unverified => break,
                ModelState::Partial { done_bytes, .. } => {
                    let lost = told_bytes.saturating_sub(done_bytes);
                    lost_most = lost_most.max(lost);
                    let most = u64::from(CONNECTIONS) * CHUNK_BYTES;
                    assert!(lost <= most, "{lost} bytes of progress were lost");
                }
                ModelState::Absent => {
                    assert!(told_bytes <= u64::from(CONNECTIONS) * CHUNK_BYTES, "{told_bytes}");
                }
            }
        }
        let path = store.verified(&model()).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), much(), "round {rounds}");
        // What the last kill left over is gone with the next look.
        store.fetch(&model(), &options(), |_| {}, CancellationToken::new()).await.unwrap();
        let stray: Vec<_> = left(&store).into_iter().filter(|name| name != FILE).collect();
        assert!(stray.iter().all(|name| name.contains(".part")), "{stray:?}");
    }
    let requests = sent.load(Ordering::Relaxed);
    tell(&format!(
        "{killed} kills over {rounds} downloads, {requests} requests, {lost_most} bytes lost at most"
    ));
}
