//! Strangers' pictures are read in processes of their own: one that breaks its process is refused alone.

use std::time::{Duration, Instant};

use neurino_coordinator::{CoordinatorConfig, DecoderProcess, JobUpdate, Limits, PayerId};
use neurino_core::{ImageJob, JobSpec, Lease, Png};
use neurino_protocol::ErrorCode;
use neurino_protocol::node::CoordinatorMessage;

use crate::node::Node;
use crate::pictures::{asked, flat, job, painter, picture, step};
use crate::world::{World, short_limits};

const CHILD: &str = env!("CARGO_BIN_EXE_picture_child");

fn process(arguments: &[&str]) -> DecoderProcess {
    let within = Duration::from_millis(1_500);
    DecoderProcess { processes_max: 2, within, ..DecoderProcess::new(CHILD, arguments) }
}

async fn world(decoder: DecoderProcess) -> World {
    let limits = Limits { failures_max: 1, ..short_limits() };
    World::changed(limits, |config| CoordinatorConfig { decoder: Some(decoder), ..config }).await
}

/// A job for a picture of a width, leased.
async fn leased(world: &World, node: &mut Node, width: u32, seed: u64) -> Lease {
    let spec = JobSpec::Image(ImageJob { width, preview: true, ..job(seed) });
    world.coordinator.submit_job(PayerId::local(), None, spec).await.unwrap();
    node.lease().await
}

async fn is_paid(world: &World, node: &mut Node, seed: u64) {
    let lease = leased(world, node, 64, seed).await;
    node.submit(&lease, picture(asked(&lease))).await;
    node.settled().await;
}

async fn is_refused(world: &World, node: &mut Node, width: u32, seed: u64) {
    let lease = leased(world, node, width, seed).await;
    node.submit(&lease, picture(asked(&lease))).await;
    let refusal = node.hear().await;
    let CoordinatorMessage::Rejected { lease: refused, error, .. } = &refusal else {
        panic!("{width}: {refusal:?}")
    };
    assert_eq!((*refused, error.code), (lease.id, ErrorCode::InvalidRequest), "{width}");
    assert!(error.message.contains("cannot be read"), "{width}: {error}");
}

/// How many processes run with an argument.
fn running(argument: &str) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let lines = processes.flatten().map(|process| process.path().join("cmdline"));
    let lines = lines.filter_map(|path| std::fs::read(path).ok());
    lines.filter(|line| line.split(|b| *b == 0).any(|part| part == argument.as_bytes())).count()
}

#[tokio::test]
async fn a_picture_that_breaks_its_reader_is_refused_alone() {
    let world = world(process(&["faulty"])).await;
    let mut node = painter(&world.coordinator, 1).await;
    is_paid(&world, &mut node, 1).await;
    // It dies, and it panics.
    for (seed, width) in [(2, 72), (3, 96)] {
        is_refused(&world, &mut node, width, seed).await;
        is_paid(&world, &mut node, seed + 10).await;
    }
    #[cfg(target_os = "linux")]
    {
        // It takes all the memory there is.
        is_refused(&world, &mut node, 88, 4).await;
        is_paid(&world, &mut node, 14).await;
    }
    #[cfg(unix)]
    {
        // It wants to open something else.
        is_refused(&world, &mut node, 104, 5).await;
        is_paid(&world, &mut node, 15).await;
    }
    world.assert_books_hold().await;
}

#[tokio::test]
async fn a_reader_that_hangs_is_ended() {
    let own = format!("only-{}", std::process::id());
    let world = world(process(&["faulty", &own])).await;
    let mut node = painter(&world.coordinator, 1).await;
    let begun = Instant::now();
    is_refused(&world, &mut node, 80, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "within its time");
    assert_eq!(running(&own), 0, "it was killed");
    is_paid(&world, &mut node, 2).await;
    if cfg!(target_os = "linux") {
        assert_eq!(running(&own), 1, "one is kept");
    }
    // A preview that breaks its reader is none, and the step is passed on.
    let lease = leased(&world, &mut node, 72, 3).await;
    let mut watch = world.coordinator.watch_job(lease.job).await.unwrap();
    let small = flat(8, 6, 3);
    for (at, preview) in [(1, small), (2, Png(vec![1; 9]))] {
        step(&node, &lease, at, Some(preview)).await;
        let told = loop {
            match watch.next().await {
                Some(JobUpdate::Queued | JobUpdate::Leased { .. }) => {}
                Some(JobUpdate::Step(step)) => break step,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((told.step, told.preview), (at, None));
    }
    world.coordinator.shutdown().await;
}

#[tokio::test]
async fn previews_are_read_by_the_processes_too() {
    let world = world(process(&[])).await;
    let mut node = painter(&world.coordinator, 1).await;
    let lease = leased(&world, &mut node, 64, 1).await;
    let mut watch = world.coordinator.watch_job(lease.job).await.unwrap();
    let small = flat(8, 6, 3);
    step(&node, &lease, 1, Some(small.clone())).await;
    let told = loop {
        match watch.next().await {
            Some(JobUpdate::Queued | JobUpdate::Leased { .. }) => {}
            Some(JobUpdate::Step(step)) => break step,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told.preview, Some(small));
}

#[cfg(unix)]
#[tokio::test]
async fn without_a_reader_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("not-yet");
    let world = world(DecoderProcess { program: program.clone(), ..process(&[]) }).await;
    let mut node = painter(&world.coordinator, 1).await;
    let lease = leased(&world, &mut node, 64, 1).await;
    node.submit(&lease, picture(asked(&lease))).await;
    assert!(node.hears_nothing(1_000).await, "it is not settled yet");
    // A program that says something else than a reader does.
    let script = "#!/bin/sh\necho of another version\n";
    std::fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    node.submit(&lease, picture(asked(&lease))).await;
    assert!(node.hears_nothing(1_000).await, "not yet, either");
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(CHILD, &program).unwrap();
    node.submit(&lease, picture(asked(&lease))).await;
    node.settled().await;
}
