//! The doctor: looks at each thing mining needs and says, in one line each, how it stands and what
//! to do about it.

use std::path::Path;
use std::time::Duration;

use neurino_config::{Dirs, NetworkSetting, ProtocolSetting, Settings};
use neurino_hardware::Hardware;
use neurino_model_store::ModelStore;
use neurino_protocol::app::{Check, CheckStatus};
use neurino_protocol::filter::FilterView;
use neurino_wallet::{OpenedIdentity, StoreKind};
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

fn no_key(error: &neurino_wallet::WalletError) -> Check {
    let finding = format!("The identity key cannot be opened: {}.", told_with_causes(error));
    with_fix(
        check(KEY_STORE, CheckStatus::Fail, finding),
        "nothing was overwritten; put the key back where it was",
    )
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

async fn network(settings: &Settings, running: bool) -> Check {
    match &settings.network.coordinator {
        NetworkSetting::Practice => {
            let port = settings.gateway.listen_port;
            if running || port == 0 {
                return check(
                    "Network",
                    CheckStatus::Ok,
                    "The practice network runs on this machine and needs no internet.",
                );
            }
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(_) => check(
                    "Network",
                    CheckStatus::Ok,
                    format!("The practice network needs no internet; its port {port} is free."),
                ),
                Err(_) => with_fix(
                    check(
                        "Network",
                        CheckStatus::Warn,
                        format!(
                            "Port {port} is taken, perhaps by a running Neurino; the practice network takes another one."
                        ),
                    ),
                    "set `listen_port` in settings.toml if programs rely on that port",
                ),
            }
        }
        NetworkSetting::Coordinator(url) => coordinator(url, settings.network.protocol).await,
    }
}

async fn coordinator(url: &str, protocol: ProtocolSetting) -> Check {
    let ask = async {
        let client = reqwest::Client::builder().timeout(NETWORK_WAIT).build().ok()?;
        client.get(format!("{url}/healthz")).send().await.ok()
    };
    match ask.await {
        // The original protocol has no question of this kind, so any answer will do.
        Some(answer) if answer.status().is_success() || protocol == ProtocolSetting::Original => {
            check("Network", CheckStatus::Ok, format!("The coordinator at {url} answers."))
        }
        Some(answer) => with_fix(
            check(
                "Network",
                CheckStatus::Fail,
                format!(
                    "Something at {url} answers, but not as a coordinator ({}).",
                    answer.status()
                ),
            ),
            "check the address",
        ),
        None => with_fix(
            check("Network", CheckStatus::Fail, format!("Nobody answers at {url}.")),
            "check the address and the internet connection",
        ),
    }
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
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(gib(GIB * 3 / 2), "1.5 GiB");
        assert_eq!(gib(GIB - 1), "0.9 GiB");
    }
}
