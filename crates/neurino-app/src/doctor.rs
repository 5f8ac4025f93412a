//! The doctor: looks at each thing mining needs and says, in one line each, how it stands and what
//! to do about it.

use std::path::Path;
use std::time::Duration;

use neurino_config::settings::NetworkSettings;
use neurino_config::{Dirs, NetworkSetting, ProtocolSetting, Settings};
use neurino_hardware::Hardware;
use neurino_model_store::ModelStore;
use neurino_protocol::app::{Check, CheckStatus};
use neurino_protocol::filter::FilterView;
use neurino_wallet::{OpenedIdentity, StoreKind, WalletError};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::{App, filter, identity_options, lock, told_with_causes};

const GIB: u64 = 1 << 30;
/// Free disk below which there is no room for a model of ordinary size.
const DISK_FREE_WARN_BYTES: u64 = 20 * GIB;
const DISK_FREE_FAIL_BYTES: u64 = GIB / 2;
/// Memory below which the network's smaller models do not fit a card.
const VRAM_WARN_BYTES: u64 = 8 * GIB;
const MEMORY_WARN_BYTES: u64 = 2 * GIB;
const NETWORK_WAIT: Duration = Duration::from_secs(8);
/// Longest answer that may be a coordinator's health.
const HEALTH_BYTES_MAX: usize = 64 << 10;

fn check(name: &str, status: CheckStatus, finding: impl Into<String>) -> Check {
    Check { name: name.into(), status, finding: finding.into(), fix: None }
}

fn with_fix(mut check: Check, fix: impl Into<String>) -> Check {
    check.fix = Some(fix.into());
    check
}

/// Checks this machine before anything runs on it.
pub async fn examine(dirs: &Dirs, settings: &Settings) -> Vec<Check> {
    let (mut checks, library) = (hardware().await, crate::open_library(dirs));
    checks.push(disk(&dirs.models));
    let opened = neurino_wallet::open_identity(identity_options(dirs, settings)).await;
    checks.push(match &opened {
        Ok(identity) => key_store(identity),
        Err(error) => no_key(error),
    });
    checks.push(network(settings, false).await);
    checks.push(content_filter(&filter::of_settings(settings)));
    checks.push(models(&library).await);
    checks
}

impl App {
    /// Checks this machine; what this program holds open is not opened again.
    pub(crate) async fn doctor(&self) -> Vec<Check> {
        let mut checks = hardware().await;
        checks.push(disk(&self.store.root()));
        checks.push(key_store(&self.identity()));
        checks.push(network(&self.settings, true).await);
        checks.push(content_filter(&lock(&self.filter).clone()));
        checks.push(models(&self.store).await);
        checks
    }
}

const OFF: &str =
    "Off: whatever the network asks for is computed; `refuse_words` in settings.toml turns it on.";

/// Off by default, and said so.
fn content_filter(filter: &FilterView) -> Check {
    let finding = match filter.words.len() {
        count if !filter.on || count == 0 => OFF.to_owned(),
        count => format!("On: jobs with one of {count} words or phrases are left to others."),
    };
    check("Content filter", CheckStatus::Ok, finding)
}

async fn hardware() -> Vec<Check> {
    let look = || {
        let hardware = Hardware::probe();
        vec![driver(&hardware), gpu(&hardware), memory(&hardware)]
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

fn driver(hardware: &Hardware) -> Check {
    let status = hardware.nvidia().status();
    let level = match (status.is_ready(), status.fix()) {
        (true, _) => CheckStatus::Ok,
        // No card at all is no fault: the processor computes.
        (false, None) => CheckStatus::Warn,
        (false, Some(_)) => CheckStatus::Fail,
    };
    let check = check("GPU driver", level, status.sentence());
    match status.fix() {
        Some(fix) => with_fix(check, fix),
        None => check,
    }
}

fn gpu(hardware: &Hardware) -> Check {
    let engine = neurino_engine::device::available()
        .iter()
        .any(|d| matches!(d, neurino_engine::DeviceChoice::Cuda(_)));
    match hardware.gpus().first() {
        Some(gpu) if engine => check("GPU", CheckStatus::Ok, format!("{} can compute.", gpu.name)),
        Some(gpu) => with_fix(
            check(
                "GPU",
                CheckStatus::Warn,
                format!("{} is there, but this build has no NVIDIA engine.", gpu.name),
            ),
            "install the released package, or build with the feature `cuda`",
        ),
        None => {
            let cpu = hardware.cpu();
            check(
                "GPU",
                CheckStatus::Warn,
                format!(
                    "None in use; the processor computes ({}, {} threads).",
                    cpu.name, cpu.threads
                ),
            )
        }
    }
}

fn memory(hardware: &Hardware) -> Check {
    let sample = hardware.sample();
    if let Some(gpu) = hardware.gpus().first() {
        let used =
            sample.gpus.iter().find(|s| s.index == gpu.index).and_then(|s| s.memory_used_bytes);
        let finding = format!(
            "{} of video memory, {} in use.",
            gpu.memory_bytes.map_or_else(|| "An unknown amount".into(), gib),
            used.map_or_else(|| "an unknown part".into(), gib)
        );
        return if gpu.memory_bytes.is_some_and(|bytes| bytes < VRAM_WARN_BYTES) {
            with_fix(
                check("Video memory", CheckStatus::Warn, finding),
                "small models run; the network's larger ones need 8 GiB or more",
            )
        } else {
            check("Video memory", CheckStatus::Ok, finding)
        };
    }
    let cpu = hardware.cpu();
    let free = cpu.memory_bytes.saturating_sub(sample.cpu.memory_used_bytes);
    let finding =
        format!("No video memory; {} of main memory, {} free.", gib(cpu.memory_bytes), gib(free));
    if free < MEMORY_WARN_BYTES {
        with_fix(check("Video memory", CheckStatus::Warn, finding), "close other programs")
    } else {
        check("Video memory", CheckStatus::Ok, finding)
    }
}

fn disk(models: &Path) -> Check {
    let there = models.ancestors().find(|p| p.is_dir()).unwrap_or(models);
    match neurino_hardware::disk_free_bytes(there) {
        Ok(free) => {
            let finding = format!("{} free in {}.", gib(free), models.display());
            let fix = "free some space, or keep the models elsewhere with NEURINO_MODELS";
            match free {
                f if f < DISK_FREE_FAIL_BYTES => {
                    with_fix(check("Disk", CheckStatus::Fail, finding), fix)
                }
                f if f < DISK_FREE_WARN_BYTES => {
                    with_fix(check("Disk", CheckStatus::Warn, finding), fix)
                }
                _ => check("Disk", CheckStatus::Ok, finding),
            }
        }
        Err(error) => with_fix(
            check(
                "Disk",
                CheckStatus::Fail,
                format!("{} cannot be used: {error}.", models.display()),
            ),
            "choose another folder with NEURINO_HOME or NEURINO_MODELS",
        ),
    }
}

const KEY_STORE: &str = "Key store";

fn no_key(error: &WalletError) -> Check {
    let finding = format!("The identity key cannot be opened: {}.", told_with_causes(error));
    let fix = match error {
        WalletError::Io { .. } => {
            "check that this user may write there, or choose another folder with NEURINO_HOME"
        }
        WalletError::Busy { .. } => "quit the other program that uses the keys, or wait for it",
        WalletError::OsStore { .. } | WalletError::OsStoreTimeout { .. } => {
            "nothing was overwritten; unlock the key store and try again"
        }
        _ => "nothing was overwritten; put the key back where it was",
    };
    with_fix(check(KEY_STORE, CheckStatus::Fail, finding), fix)
}

fn key_store(opened: &OpenedIdentity) -> Check {
    let why = opened.os_store_problem.as_ref();
    let why = why.map_or_else(String::new, |why| format!(" ({})", why.trim_end_matches('.')));
    let finding = format!("The identity key is kept in {}{why}.", opened.store.describe());
    match opened.store {
        StoreKind::OsKeyStore | StoreKind::PassphraseFile => {
            check(KEY_STORE, CheckStatus::Ok, finding)
        }
        StoreKind::InstallSecretFile => with_fix(
            check(KEY_STORE, CheckStatus::Warn, finding),
            "for more protection, set NEURINO_PASSPHRASE_FILE before the first start or use a \
             desktop with a key store",
        ),
    }
}

const NETWORK: &str = "Network";

async fn network(settings: &Settings, running: bool) -> Check {
    match &settings.network.coordinator {
        NetworkSetting::Practice => {
            let port = settings.gateway.listen_port;
            if running || port == 0 {
                return check(
                    NETWORK,
                    CheckStatus::Ok,
                    "The practice network runs on this machine and needs no internet.",
                );
            }
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(_) => check(
                    NETWORK,
                    CheckStatus::Ok,
                    format!("The practice network needs no internet; its port {port} is free."),
                ),
                Err(_) => with_fix(
                    check(
                        NETWORK,
                        CheckStatus::Warn,
                        format!(
                            "Port {port} is taken, perhaps by a running Neurino; the practice network takes another one."
                        ),
                    ),
                    "set `listen_port` in settings.toml if programs rely on that port",
                ),
            }
        }
        NetworkSetting::Coordinator(url) => coordinator(url, &settings.network).await,
    }
}

/// What a coordinator says of itself at `/healthz`.
#[derive(Deserialize)]
struct Health {
    status: String,
    #[serde(rename = "network")]
    _network: String,
}

async fn coordinator(url: &str, settings: &NetworkSettings) -> Check {
    let failed =
        |finding: String, fix: &str| with_fix(check(NETWORK, CheckStatus::Fail, finding), fix);
    if let Some(error) = crate::network::refused_address(url, settings) {
        let why = told_with_causes(&error);
        let fix = "correct `coordinator` in settings.toml, or NEURINO_NETWORK";
        return failed(format!("A node refuses this address: {why}."), fix);
    }
    match ask(url).await {
        // The original protocol has no question of this kind, so any answer will do.
        Ok((_, is_coordinator))
            if is_coordinator || settings.protocol == ProtocolSetting::Original =>
        {
            check(NETWORK, CheckStatus::Ok, format!("The coordinator at {url} answers."))
        }
        Ok((status, _)) => failed(
            format!("Something at {url} answers, but not as a coordinator ({status})."),
            "check the address",
        ),
        Err(error) => match neurino_client::distrust(&error) {
            Some(fix) => failed(format!("The certificate of {url} is not trusted."), fix),
            None => failed(
                format!("Nobody answers at {url}."),
                "check the address and the internet connection",
            ),
        },
    }
}

/// Asks as a node would: what the status is, and whether a coordinator gave it.
async fn ask(url: &str) -> reqwest::Result<(StatusCode, bool)> {
    let none = reqwest::redirect::Policy::none();
    let mut client = reqwest::Client::builder().timeout(NETWORK_WAIT).redirect(none);
    if reqwest::Url::parse(url).is_ok_and(|url| neurino_client::is_loopback(&url)) {
        client = client.no_proxy();
    }
    let mut answer = client.build()?.get(format!("{url}/healthz")).send().await?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > HEALTH_BYTES_MAX {
            return Ok((status, false));
        }
    }
    let health = serde_json::from_slice::<Health>(&body);
    Ok((status, status.is_success() && health.is_ok_and(|health| health.status == "ok")))
}

const MODELS: &str = "Models";

async fn models(store: &ModelStore) -> Check {
    if !store.is_there() {
        let finding = format!("The model library in {} is not there.", store.root().display());
        let fix = "connect its drive, or choose another folder with `neurino models move FOLDER`";
        return with_fix(check(MODELS, CheckStatus::Fail, finding), fix);
    }
    let store = store.clone();
    let look = move || {
        let catalog = store.catalog();
        let all = catalog.models().iter();
        all.filter(|m| store.is_usable(&m.id)).map(|m| m.name.clone()).collect()
    };
    let ready: Vec<String> = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    if ready.is_empty() {
        with_fix(
            check(MODELS, CheckStatus::Warn, "No model is on this machine yet."),
            "press Start, or run `neurino models get smollm2-135m-instruct`",
        )
    } else {
        check(MODELS, CheckStatus::Ok, format!("On this machine: {}.", ready.join(", ")))
    }
}

/// Gibibytes with one decimal, rounded down.
fn gib(bytes: u64) -> String {
    let tenths = bytes * 10 / GIB;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(gib(GIB * 3 / 2), "1.5 GiB");
        assert_eq!(gib(GIB - 1), "0.9 GiB");
    }

    #[test]
    fn a_folder_that_may_not_be_written_is_not_told_as_a_lost_key() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let io = WalletError::Io { doing: "open", path: "/x/keys.lock".into(), source };
        let told = no_key(&io);
        assert!(told.finding.contains("keys.lock"), "{told:?}");
        assert!(told.fix.is_some_and(|fix| fix.contains("NEURINO_HOME")));
        let gone = WalletError::KeyFileGone { path: "/x/a".into(), marker: "/x/b".into() };
        assert!(no_key(&gone).fix.is_some_and(|fix| fix.contains("put the key back")));
    }

    /// Answers one request with this body and status 200.
    async fn answering(body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await.unwrap();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        url
    }

    #[tokio::test]
    async fn only_a_coordinator_that_a_node_would_take_is_in_order() {
        let settings = NetworkSettings::default();
        let original =
            NetworkSettings { protocol: ProtocolSetting::Original, ..NetworkSettings::default() };
        let health = r#"{"status":"ok","network":"club","version":"1","nodes":0}"#;
        let found = coordinator(&answering(health).await, &settings).await;
        assert_eq!(found.status, CheckStatus::Ok, "{found:?}");
        for other in ["<html>Welcome!</html>", r#"{"status":"ok"}"#, "{}"] {
            let found = coordinator(&answering(other).await, &settings).await;
            assert_eq!(found.status, CheckStatus::Fail, "{other}: {found:?}");
            assert!(found.finding.contains("not as a coordinator"), "{found:?}");
        }
        let found = coordinator(&answering("hello").await, &original).await;
        assert_eq!(found.status, CheckStatus::Ok, "it has no such question: {found:?}");

        for settings in [&settings, &original] {
            let found = coordinator("http://192.0.2.1", settings).await;
            assert_eq!(found.status, CheckStatus::Fail, "{found:?}");
            assert!(found.finding.contains("plain http"), "{found:?}");
        }
    }
}
