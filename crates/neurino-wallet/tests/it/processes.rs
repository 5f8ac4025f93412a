//! Processes that race for the first key, and processes that are killed while making it.
//!
//! The test program starts itself with [`DIR`] set; [`child`] then opens the identity there.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use neurino_wallet::{KeyStoreChoice, OpenIdentity, StoreKind, open_identity};

const DIR: &str = "NEURINO_WALLET_TEST_DIR";
const AUTO: &str = "NEURINO_WALLET_TEST_AUTO";
/// Set where a key store is known to be there and unlocked.
const UNLOCKED: &str = "NEURINO_WALLET_TEST_UNLOCKED";
const MARK: &str = "address=";

/// Not a test by itself: what the other processes run.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let auto = std::env::var_os(AUTO).is_some();
    let preference = if auto { KeyStoreChoice::Auto } else { KeyStoreChoice::File };
    let wanted = OpenIdentity { preference, ..OpenIdentity::new(dir) };
    let opened = open_identity(wanted).await.map_err(|e| e.to_string()).unwrap();
    if auto {
        let has_os_store = std::env::var_os(UNLOCKED).is_some();
        assert_eq!(opened.store == StoreKind::OsKeyStore, has_os_store);
        assert_eq!(opened.os_store_problem.is_none(), has_os_store);
    }
    tell(&opened.key.address());
}

#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn tell(address: &str) {
    println!("\n{MARK}{address}");
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn spawn(dir: &Path) -> Child {
    command(dir).spawn().unwrap()
}

fn address_of(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(MARK));
    line.unwrap_or_else(|| panic!("no address in {text:?}")).to_owned()
}

#[test]
fn processes_that_start_at_once_end_with_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..6).map(|_| spawn(dir.path())).collect();
    let mut addresses: Vec<_> = children.into_iter().map(address_of).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
}

#[test]
fn a_process_killed_at_any_moment_leaves_no_key_or_a_whole_one() {
    for round in 0..30_u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut victim = spawn(dir.path());
        if round < 25 {
            std::thread::sleep(Duration::from_millis(round));
        } else {
            // Also the moment right after the key appeared, however slow the machine.
            let began = Instant::now();
            while !dir.path().join("identity.key").exists() {
                assert!(began.elapsed() < Duration::from_secs(30), "no key in half a minute");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        let first = address_of(spawn(dir.path()));
        assert_eq!(first, address_of(spawn(dir.path())), "round {round}");
    }
}

/// The real key store of Linux, where no session bus answers: servers, containers, ssh.
#[cfg(target_os = "linux")]
#[test]
fn without_a_session_bus_the_key_goes_to_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = format!("unix:path={}", dir.path().join("no-bus").display());
    let mut command = command(dir.path());
    command.env(AUTO, "1").env("DBUS_SESSION_BUS_ADDRESS", nowhere);
    let began = Instant::now();
    address_of(command.spawn().unwrap());
    assert!(dir.path().join("identity.key").exists());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The real key store of Linux, unlocked, in a session of its own. Skipped where its programs are
/// not installed.
#[cfg(target_os = "linux")]
#[test]
fn an_unlocked_key_store_keeps_the_key_over_processes() {
    let script = "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null && \
                  \"$0\" \"$@\" && exec \"$0\" \"$@\"";
    for program in ["dbus-run-session", "gnome-keyring-daemon"] {
        let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if version.is_err() {
            return;
        }
    }
    let (home, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = Command::new("dbus-run-session")
        .args(["--", "bash", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir.path())
        .env(AUTO, "1")
        .env(UNLOCKED, "1")
        .env("HOME", home.path())
        .env("XDG_DATA_HOME", home.path().join("data"))
        .env("XDG_RUNTIME_DIR", home.path())
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut addresses: Vec<_> = text.lines().filter_map(|l| l.strip_prefix(MARK)).collect();
    assert_eq!(addresses.len(), 2, "{text}{}", String::from_utf8_lossy(&output.stderr));
    addresses.dedup();
    assert_eq!(addresses.len(), 1);
    assert!(!dir.path().join("identity.key").exists());
}
