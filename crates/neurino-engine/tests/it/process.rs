//! What the process engine adds: a child that dies, hangs or talks nonsense costs one job at most.

use std::time::Duration;

use neurino_engine::frame::{self, FromChild, ToChild};
use neurino_engine::{
    DeviceChoice, Engine, EngineErrorCode, EngineStatus, ProcessEngine, ProcessEngineConfig,
    ProcessLimits,
};
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, ending, job, model, rest};

const CHILD: &str = env!("CARGO_BIN_EXE_neurino-engine-child");

pub(crate) fn config() -> ProcessEngineConfig {
    let mut config = ProcessEngineConfig::new(CHILD, [] as [&str; 0], DeviceChoice::Cpu);
    config.limits.first_wait = Duration::from_millis(50);
    config
}

#[tokio::test]
async fn unloading_ends_the_process_and_gives_its_memory_back() {
    let engine = ProcessEngine::start(config());
    assert_eq!(engine.process_id(), None, "nothing runs before it is needed");
    engine.load(&model()).await.unwrap();
    let first = engine.process_id().unwrap();
    engine.unload().await.unwrap();
    gone(first).await;
    engine.unload().await.unwrap();
    assert_eq!(engine.process_id(), None);
    engine.load(&model()).await.unwrap();
    assert!(engine.process_id().is_some_and(|id| id != first));
}

#[tokio::test]
async fn a_missing_device_or_program_is_an_error_of_its_kind() {
    let mut wrong = config();
    wrong.device = DeviceChoice::Cuda(99);
    let error = ProcessEngine::start(wrong).load(&model()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::NoSuchDevice, "{error}");
    let mut wrong = config();
    wrong.program = "/nonexistent/program".into();
    let error = ProcessEngine::start(wrong).load(&model()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::NoProgram);
    assert_eq!(error.message, "the engine's program is gone: /nonexistent/program");
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_that_is_taken_away_while_it_runs_is_told_at_the_next_start() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("neurino");
    symlink(CHILD, &program).unwrap();
    let mut taken = config();
    taken.program = program.clone();
    let engine = ProcessEngine::start(taken);
    engine.load(&model()).await.unwrap();
    let id = engine.process_id().unwrap();
    // What an antivirus program does: the file is gone, and then the process.
    std::fs::remove_file(&program).unwrap();
    let killed = std::process::Command::new("kill").args(["-9", &id.to_string()]).status();
    assert!(killed.unwrap().success());
    gone(id).await;
    let error = engine.load(&model()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::NoProgram, "{error}");
    // It tries no further by itself, and works again once the file is restored.
    let idle = async {
        while *engine.status().borrow() != EngineStatus::Idle {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.unwrap();
    std::fs::write(&program, "nobody may start this").unwrap();
    let error = engine.load(&model()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::NoProgram, "{error}");
    assert!(error.message.contains("lets nobody start"), "{error}");
    std::fs::remove_file(&program).unwrap();
    symlink(CHILD, &program).unwrap();
    engine.load(&model()).await.unwrap();
}

#[tokio::test]
async fn after_a_shutdown_everything_fails_and_nothing_runs() {
    let engine = ProcessEngine::start(config());
    engine.load(&model()).await.unwrap();
    let id = engine.process_id().unwrap();
    let stream = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
    engine.shutdown().await;
    assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Crashed));
    gone(id).await;
    let error = engine.load(&model()).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::Crashed);
}

#[tokio::test]
async fn a_dropped_engine_takes_its_process_along() {
    let engine = ProcessEngine::start(config());
    engine.load(&model()).await.unwrap();
    let id = engine.process_id().unwrap();
    drop(engine);
    gone(id).await;
}

#[test]
fn a_child_whose_parent_is_gone_ends_in_the_middle_of_its_work() {
    use std::process::{Command, Stdio};
    let mut child =
        Command::new(CHILD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let hello = ToChild::Hello {
        version: frame::VERSION,
        device: DeviceChoice::Cpu,
        tunings: None,
        warms_all: false,
    };
    frame::write(&mut to, &hello).unwrap();
    frame::write(&mut to, &ToChild::Load { request: 1, model: Box::new(model()) }).unwrap();
    frame::write(&mut to, &ToChild::Run { job: 2, spec: Box::new(job(4000)) }).unwrap();
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(FromChild::Job { .. })) {
        heard.push(frame::read::<FromChild>(&mut from).unwrap());
    }
    assert!(matches!(&heard[0], FromChild::Hello { device: Ok(_), .. }));
    drop(to);
    let asked = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(asked.elapsed() < Duration::from_secs(5), "the child outlives its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
}

#[cfg(unix)]
mod unix {
    use super::*;
    use crate::until_running;

    /// A "child" that says what it was told to say and then waits.
    fn script(words: &[u8], then: &str) -> (tempfile::NamedTempFile, ProcessEngineConfig) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), words).unwrap();
        let script = format!("cat '{}'; {then}", file.path().display());
        let mut config = ProcessEngineConfig::new("/bin/sh", ["-c", &script], DeviceChoice::Cpu);
        config.limits.hello = Duration::from_secs(3);
        config.limits.first_wait = Duration::from_millis(50);
        (file, config)
    }

    fn hello(version: u32) -> Vec<u8> {
        frame::encode(&FromChild::Hello { version, device: Ok("CPU".into()) }).unwrap()
    }

    fn signal(name: &str, process: u32) {
        let status = std::process::Command::new("kill").args([name, &process.to_string()]).status();
        assert!(status.unwrap().success());
    }

    #[tokio::test]
    async fn a_killed_child_costs_its_jobs_and_the_next_one_runs() {
        let engine = ProcessEngine::start(config());
        engine.load(&model()).await.unwrap();
        let mut status = engine.status();
        let first = engine.process_id().unwrap();
        let mut stream = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
        let waiting = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
        until_running(&mut stream).await;
        status.mark_unchanged();
        signal("-KILL", first);
        assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Crashed));
        assert_eq!(ending(&rest(waiting).await), Err(EngineErrorCode::Crashed));
        let restarting = |s: &EngineStatus| matches!(s, EngineStatus::Restarting { .. });
        tokio::time::timeout(PATIENCE, status.wait_for(restarting)).await.unwrap().unwrap();

        let stream = engine.run(&job(5), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Ok(5), "the model is loaded again by itself");
        assert!(engine.process_id().is_some_and(|id| id != first));
        assert!(matches!(&*engine.status().borrow(), EngineStatus::Ready(m) if m.id == model().id));
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_again_fails_the_job_with_the_reason() {
        let engine = ProcessEngine::start(config());
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(model().path).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let copy = neurino_engine::ModelRef { path: folder.path().into(), ..model() };
        engine.load(&copy).await.unwrap();
        let mut stream = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
        until_running(&mut stream).await;
        drop(folder);
        signal("-KILL", engine.process_id().unwrap());
        assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::Crashed));
        let stream = engine.run(&job(5), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Err(EngineErrorCode::ModelUnreadable));
        let error = engine.run(&job(5), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
        engine.load(&model()).await.unwrap();
    }

    #[tokio::test]
    async fn a_child_that_hangs_is_killed_and_replaced() {
        let mut config = config();
        config.limits = ProcessLimits { silence: Duration::from_millis(2500), ..config.limits };
        let engine = ProcessEngine::start(config);
        engine.load(&model()).await.unwrap();
        let first = engine.process_id().unwrap();
        let mut stream = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
        until_running(&mut stream).await;
        signal("-STOP", first);
        let events = rest(stream).await;
        assert_eq!(ending(&events), Err(EngineErrorCode::Crashed));
        assert!(format!("{events:?}").contains("stopped answering"));
        gone(first).await;
        let stream = engine.run(&job(5), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Ok(5));
    }

    #[tokio::test]
    async fn a_child_that_does_not_unload_in_time_is_killed_and_not_replaced() {
        let mut config = config();
        config.limits.unload = Duration::from_millis(300);
        config.limits.first_wait = Duration::from_millis(50);
        let engine = ProcessEngine::start(config);
        engine.load(&model()).await.unwrap();
        let first = engine.process_id().unwrap();
        let mut stream = engine.run(&job(4000), CancellationToken::new()).await.unwrap();
        until_running(&mut stream).await;
        // One long step: it hears of nothing.
        signal("-STOP", first);
        drop(stream);
        let asked = std::time::Instant::now();
        engine.unload().await.unwrap();
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "not after the silence of half a minute"
        );
        gone(first).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(engine.process_id(), None, "nobody wants another one");
        assert!(matches!(*engine.status().borrow(), EngineStatus::Idle));
        engine.load(&model()).await.unwrap();
        let stream = engine.run(&job(5), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Ok(5));
    }

    #[tokio::test]
    async fn an_unload_waits_for_a_job_that_somebody_reads() {
        let mut config = config();
        config.limits.unload = Duration::from_millis(20);
        let engine = ProcessEngine::start(config);
        engine.load(&model()).await.unwrap();
        let mut stream = engine.run(&job(2000), CancellationToken::new()).await.unwrap();
        until_running(&mut stream).await;
        let (unloaded, ended) = tokio::join!(engine.unload(), rest(stream));
        unloaded.unwrap();
        assert!(!matches!(ending(&ended), Err(EngineErrorCode::Crashed)), "{:?}", ended.last());
    }

    #[tokio::test]
    async fn a_lost_child_without_a_model_is_not_replaced() {
        let starts = tempfile::NamedTempFile::new().unwrap();
        let mut words = hello(frame::VERSION);
        words.extend(b"\0\0\0\x04oops");
        let count = format!("echo started >> '{}'; sleep 60", starts.path().display());
        let (_file, config) = script(&words, &count);
        let engine = ProcessEngine::start(config);
        engine.load(&model()).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let started = std::fs::read_to_string(starts.path()).unwrap();
        assert!(started.lines().count() <= 1, "{started}");
        assert_eq!(engine.process_id(), None);
    }

    #[tokio::test]
    async fn what_a_library_prints_does_not_reach_the_frames() {
        let mut noisy = config();
        noisy.args = vec!["noisy".into()];
        let engine = ProcessEngine::start(noisy);
        engine.load(&model()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let stream = engine.run(&job(300), CancellationToken::new()).await.unwrap();
        assert_eq!(ending(&rest(stream).await), Ok(300));
    }

    #[tokio::test]
    async fn nonsense_instead_of_a_hello_is_named() {
        let cases = [
            (b"warning: no such thing\n".to_vec(), "sleep 60", "cannot be read"),
            (hello(frame::VERSION + 1), "sleep 60", "speaks version"),
            (frame::encode(&FromChild::Heartbeat { steps: 0 }).unwrap(), "sleep 60", "hello first"),
            (Vec::new(), "sleep 60", "did not say hello within 3 s"),
            (Vec::new(), "exit 7", "ended unexpectedly"),
        ];
        for (words, then, expected) in cases {
            let (_file, config) = script(&words, then);
            let error = ProcessEngine::start(config).load(&model()).await.unwrap_err();
            assert_eq!(error.code, EngineErrorCode::Crashed);
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn nonsense_after_the_hello_fails_what_is_under_way() {
        let mut words = hello(frame::VERSION);
        words.extend(b"\0\0\0\x04oops");
        let (_file, config) = script(&words, "sleep 60");
        let error = ProcessEngine::start(config).load(&model()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::Crashed);
        assert!(error.message.contains("cannot be read"), "{error}");
    }

    pub(super) fn alive(process: u32) -> bool {
        let mut kill = std::process::Command::new("kill");
        let kill = kill.args(["-0", &process.to_string()]);
        kill.stderr(std::process::Stdio::null()).status().unwrap().success()
    }
}

/// Waits until a process is gone.
async fn gone(process: u32) {
    #[cfg(unix)]
    tokio::time::timeout(PATIENCE, async {
        while unix::alive(process) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the process ends");
    #[cfg(not(unix))]
    let _ = process;
}
