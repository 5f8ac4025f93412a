//! `cargo xtask tidy`: rules of the house that no compiler checks.
//!
//! Who may depend on whom, frameworks with one home, purpose lines, links that lead somewhere, and
//! nothing of one machine in the repository. Sizes are only reported.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{Cmd, say};
use crate::workspace::Workspace;

/// Our packages from the ground up. A package may depend on those above its own line in this table,
/// never on its own line or below.
const LAYERS: [&[&str]; 10] = [
    &["neurino-core", "neurino-control", "neurino-weights", "neurino-kernels"],
    &[
        "neurino-ledger",
        "neurino-protocol",
        "neurino-nn",
        "neurino-wallet",
        "neurino-hardware",
        "neurino-model-store",
        "neurino-platform",
    ],
    &[
        "neurino-llm",
        "neurino-client",
        "neurino-config",
        "neurino-chain",
        "neurino-earnings",
        "neurino-power",
        "neurino-update",
    ],
    &["neurino-diffusion"],
    &["neurino-engine", "neurino-parity"],
    &["neurino-testkit", "neurino-miner", "neurino-coordinator"],
    &["neurino-app", "neurino-sim"],
    &["neurino-cli"],
    &["neurino"],
    &["neurino-tests", "xtask"],
];

/// Dependencies with one home: the name (`*` at the end stands for any continuation) and the only
/// packages that may name it directly. Dev-dependencies do not count.
const HOMES: [(&str, &[&str]); 17] = [
    ("tauri*", &["neurino"]),
    ("axum*", &["neurino-coordinator"]),
    ("sqlx*", &["neurino-coordinator"]),
    ("object_store", &["neurino-coordinator"]),
    ("async-nats", &["neurino-coordinator"]),
    ("tower-http", &["neurino-coordinator"]),
    (
        "burn*",
        &[
            "neurino-kernels",
            "neurino-nn",
            "neurino-llm",
            "neurino-diffusion",
            "neurino-engine",
            "neurino-parity",
        ],
    ),
    ("cubecl*", &["neurino-kernels", "neurino-nn", "neurino-engine"]),
    ("clap", &["neurino-cli", "neurino-sim"]),
    ("indicatif", &["neurino-cli"]),
    // Parity reads tables of 64-bit numbers, which no model has.
    ("safetensors", &["neurino-weights", "neurino-parity"]),
    ("tokenizers", &["neurino-llm"]),
    ("minijinja*", &["neurino-llm"]),
    ("k256", &["neurino-wallet"]),
    ("keyring-core", &["neurino-wallet"]),
    ("nvml-wrapper", &["neurino-hardware"]),
    ("tokio-tungstenite", &["neurino-client"]),
];

/// Packages that know no clock, no io and no async runtime.
const PURE: [&str; 4] = ["neurino-core", "neurino-control", "neurino-ledger", "neurino-protocol"];
const IMPURE: [&str; 6] = ["tokio*", "reqwest", "rand", "futures", "tempfile", "directories"];

/// Lines beyond which a file may be telling two stories.
const LINES_MAX: usize = 600;
/// Weights and artifacts belong in the catalogue, not in the repository.
const FILE_BYTES_MAX: u64 = 2_000_000;
/// Where larger files have their place: the reference's tiny checkpoints, which hold whole models, and
/// the weights that no registry has because they are ours.
const LARGE: [(&str, u64); 2] = [("tests/fixtures/", 3_000_000), ("models/weights/", 20_000_000)];

/// Runs every rule and fails with the list of what broke one.
pub(crate) fn tidy(workspace: &Workspace) -> Result<()> {
    let mut faults = Vec::new();
    for package in workspace.packages() {
        faults.extend(dependency_faults(package));
    }
    let listed = Cmd::new(&workspace.root, "git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()?;
    let mut long = Vec::new();
    for name in listed.lines().map(|line| line.trim_matches('"')) {
        let path = workspace.path(name);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let large = LARGE.iter().find(|(folder, _)| name.starts_with(folder));
        if metadata.len() > large.map_or(FILE_BYTES_MAX, |(_, most)| *most) {
            faults
                .push(format!("{name}: {} bytes are too many for the repository", metadata.len()));
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        faults.extend(text_faults(name, &text));
        if extension(name) == "md" {
            faults.extend(link_faults(&path, name, &text));
        }
        let lines = text.lines().count();
        if is_source(name) && lines > LINES_MAX {
            long.push(format!("{name}: {lines} lines"));
        }
    }
    faults.extend(code_map_faults(workspace)?);
    if !long.is_empty() {
        say(format!("longer than {LINES_MAX} lines (a report, not a fault):"));
        for line in &long {
            say(format!("  {line}"));
        }
    }
    if faults.is_empty() {
        say("the house is tidy");
        return Ok(());
    }
    bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "))
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

fn is_source(name: &str) -> bool {
    ["rs", "ts", "svelte"].contains(&extension(name)) && name != "ui/src/lib/api/types.ts"
}

fn layer(package: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&package))
}

/// What is wrong with the direct dependencies of a package of `cargo metadata`.
fn dependency_faults(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(own) = layer(name) else {
        return vec![format!("{name}: has no layer in xtask/src/tidy.rs")];
    };
    let mut faults = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let on = dependency["name"].as_str().unwrap_or_default();
        // The tests' package is one big dev-dependency; see its manifest.
        if dependency["kind"] == "dev" || name == "neurino-tests" {
            continue;
        }
        if layer(on).is_some_and(|other| other >= own) {
            faults.push(format!("{name} depends on {on}, which is not below it"));
        }
        let homes = HOMES.iter().find(|(pattern, _)| matches(pattern, on));
        if let Some((pattern, homes)) = homes
            && !homes.contains(&name)
        {
            faults.push(format!(
                "{name} depends on {on}, but {pattern} lives in {}",
                homes.join(", ")
            ));
        }
        if PURE.contains(&name) && IMPURE.iter().any(|pattern| matches(pattern, on)) {
            faults.push(format!("{name} depends on {on}, but it is to stay pure"));
        }
    }
    faults
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name == start || name.starts_with(&format!("{start}-")),
        None => name == pattern,
    }
}

/// Text that belongs to one machine or one registry; put together here so that this file does not
/// hold it itself.
fn foreign_text() -> [String; 9] {
    [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/home/", "runner/"],
        ["index.crates", ".io"],
        ["static.crates", ".io"],
        ["files.python", "hosted.org"],
        ["pypi", ".org"],
        ["registry.npm", "js.org"],
        ["deb.debian", ".org"],
    ]
    .map(|parts| parts.concat())
}

/// What is wrong with one file's text.
fn text_faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        if let Some(found) = foreign_text().iter().find(|foreign| line.contains(foreign.as_str())) {
            faults.push(format!("{name}:{at}: names `{found}`"));
        }
        let shell = name.starts_with("ui/src/") && !name.ends_with("lib/api/tauri.ts");
        if shell && line.contains("@tauri-apps/") {
            faults.push(format!("{name}:{at}: only ui/src/lib/api/tauri.ts may know the shell"));
        }
    }
    let module = extension(name) == "rs" && (name.contains("/src/") || name.starts_with("tests/"));
    let purpose = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if module && !purpose.is_some_and(|line| line.starts_with("//!")) {
        faults.push(format!("{name}: lacks a first line `//! What this module is for.`"));
    }
    faults
}

/// Relative links of a Markdown page that lead nowhere.
fn link_faults(path: &Path, name: &str, text: &str) -> Vec<String> {
    let folder = path.parent().unwrap_or(path);
    let mut faults = Vec::new();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = link.split('#').next().unwrap_or(link);
        let outside = link.contains("://") || link.starts_with("mailto:") || file.is_empty();
        if !outside && !folder.join(file).exists() {
            faults.push(format!("{name}: the link to {link} leads nowhere"));
        }
    }
    faults
}

/// Packages that the code map in `ARCHITECTURE.md` forgets.
fn code_map_faults(workspace: &Workspace) -> Result<Vec<String>> {
    let map = fs::read_to_string(workspace.path("ARCHITECTURE.md"))
        .context("cannot read ARCHITECTURE.md")?;
    let names = workspace.packages().iter().filter_map(|package| package["name"].as_str());
    Ok(names
        .filter(|name| !map.contains(&format!("`{name}`")))
        .map(|name| format!("ARCHITECTURE.md: the code map does not name `{name}`"))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(name: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let list: Vec<Value> =
            dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        dependency_faults(&json!({ "name": name, "dependencies": list }))
    }

    #[test]
    fn arrows_point_down_only() {
        assert!(faults("neurino-app", &[("neurino-miner", None)]).is_empty());
        assert_eq!(faults("neurino-miner", &[("neurino-app", None)]).len(), 1);
        assert_eq!(faults("neurino-miner", &[("neurino-coordinator", None)]).len(), 1);
        assert!(faults("neurino-miner", &[("neurino-coordinator", Some("dev"))]).is_empty());
    }

    #[test]
    fn a_framework_has_one_home() {
        assert!(faults("neurino", &[("tauri-plugin-single-instance", None)]).is_empty());
        assert_eq!(faults("neurino-app", &[("tauri", None)]).len(), 1);
        assert_eq!(faults("neurino-wallet", &[("burn-store", None)]).len(), 1);
        assert_eq!(faults("neurino-core", &[("tokio", None)]).len(), 1);
    }

    #[test]
    fn a_package_without_a_layer_is_noticed() {
        assert_eq!(faults("neurino-new", &[]).len(), 1);
    }

    #[test]
    fn foreign_text_and_missing_purpose_are_noticed() {
        let path = ["/wo", "rk/x"].concat();
        assert_eq!(text_faults("README.md", &format!("see {path}")).len(), 1);
        assert_eq!(text_faults("crates/a/src/b.rs", "use x;\n").len(), 1);
        assert!(text_faults("crates/a/src/b.rs", "#![expect(x)]\n//! For y.\n").is_empty());
        assert_eq!(text_faults("ui/src/a.ts", "import '@tauri-apps/api'").len(), 1);
        assert!(text_faults("ui/src/lib/api/tauri.ts", "import '@tauri-apps/api'").is_empty());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_noticed() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let text = "[a](src/main.rs) [b](https://example.org/x) [c](no-such-file.md#part)";
        assert_eq!(link_faults(&here, "x.md", text).len(), 1);
    }
}
