//! `cargo xtask test`: everything that has to hold before a change lands.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::shell::{Cmd, say};
use crate::steps::{self, Action, Journal, Place, Step};
use crate::system::Purpose;
use crate::workspace::{Engines, Workspace};
use crate::{clients, gpu_check, resources, run, starter, stores, tidy, ui, windows};

/// Libraries of the window, which a server must not need; versions in names do not count.
const WINDOW_LIBRARIES: [&str; 7] = ["gtk", "webkit", "webkit2gtk", "tauri", "wry", "tao", "soup"];

/// Sets up and runs the steps, or those named.
pub(crate) fn test(workspace: &Workspace, names: &[String], list: bool) -> Result<ExitCode> {
    let chosen = steps::choose(steps(workspace), names)?;
    if list {
        for step in &chosen {
            say(format!("{:<10} {}", step.name, step.what));
        }
        return Ok(ExitCode::SUCCESS);
    }
    run::set_up(workspace, Purpose::Test)?;
    Ok(steps::run_all(&chosen, &mut Journal::of("cargo xtask test")))
}

fn steps(workspace: &Workspace) -> Vec<Step<'_>> {
    let mut steps = quick_steps(workspace);
    steps.extend(program_steps(workspace));
    if cfg!(unix) {
        steps.push(Step {
            name: "stores",
            what: "the books hold on PostgreSQL and over NATS, also when one of them or a coordinator is killed",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| stores::commands(workspace))),
        });
    }
    steps.extend(build_variants(workspace));
    steps
}

/// What tells of a slip within seconds.
fn quick_steps(workspace: &Workspace) -> Vec<Step<'_>> {
    vec![
        Step {
            name: "format",
            what: "rustfmt and prettier have nothing to change",
            place: Place::Alone,
            action: Action::Commands(vec![
                workspace.cargo("fmt").args(["--all", "--check"]),
                ui::script(workspace, "lint"),
            ]),
        },
        Step {
            name: "tidy",
            what: "layers, purpose lines, links, sizes",
            place: Place::Alone,
            action: Action::Call(Box::new(|| tidy::tidy(workspace))),
        },
        Step {
            name: "ui",
            what: "types and unit tests of the web UI",
            place: Place::Alone,
            action: Action::Commands(vec![
                ui::script(workspace, "check"),
                ui::script(workspace, "test"),
            ]),
        },
    ]
}

/// The program and what is tested with it.
fn program_steps(workspace: &Workspace) -> Vec<Step<'_>> {
    vec![
        Step {
            name: "build",
            what: "the web UI, then every program, as `cargo xtask run` builds them",
            place: Place::Foundation,
            action: Action::Planned(Box::new(|| {
                ui::build(workspace)?;
                resources::beside_the_program(workspace)?;
                Ok(vec![run::build(workspace)])
            })),
        },
        Step {
            name: "clippy",
            what: "no lint complains",
            place: Place::Alone,
            action: Action::Planned(Box::new(|| {
                // The window's crate embeds the pages, so they must exist.
                ui::build(workspace)?;
                let clippy = workspace.cargo_all("clippy");
                Ok(vec![clippy.args(["--all-targets", "--", "-D", "warnings"])])
            })),
        },
        Step {
            name: "starter",
            what: "the starter model is here and verified",
            place: Place::Foundation,
            action: Action::Call(Box::new(|| {
                starter::kept(workspace, &workspace.program()).map(|_| ())
            })),
        },
        Step {
            name: "tests",
            what: "unit and integration tests; generated files are up to date",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                let tests = cargo_test(workspace)?.args(["--lib", "--bins"]);
                let tests =
                    test_targets(workspace).fold(tests, |cmd, name| cmd.args(["--test", name]));
                let documented = cargo_test(workspace)?.arg("--doc");
                let elsewhere =
                    ["--", "--skip", "kill::", "--skip", "openai::", "--skip", "contract::"];
                Ok(vec![tests.args(elsewhere), documented])
            })),
        },
        Step {
            name: "sizes",
            what: "image networks of real size, and loads, keep to their memory",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                REAL_SIZES.iter().map(|name| real_size(workspace, name)).collect()
            })),
        },
        Step {
            name: "flux",
            what: "a whole picture of Flux in 4 bits at its own size keeps to its memory (by name alone: \
                   16 GB, and minutes)",
            place: Place::ByName,
            action: Action::Planned(Box::new(|| Ok(vec![real_size(workspace, FLUX)?]))),
        },
        Step {
            name: "kill",
            what: "two hundred power cuts lose no job and pay none twice; five hundred lose no download",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                let tests = cargo_test(workspace)?.args(["--test", "it"]);
                Ok(vec![tests.args(["--", "kill::", "--nocapture"])])
            })),
        },
        Step {
            name: "clients",
            what: "OpenAI's clients, original miners and a fuzzer work with the coordinator",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                let clients = clients::kept(workspace)?;
                let mut tests = cargo_test(workspace)?
                    .env("NEURINO_TEST_PYTHON_PACKAGES", clients.python)
                    .env("NEURINO_TEST_NODE_PACKAGES", clients.node)
                    .env("NEURINO_TEST_MINER_PACKAGES", clients.miners)
                    .env("NEURINO_TEST_CONTRACT_PACKAGES", clients.contract)
                    .args(["--test", "it"]);
                if let Some(folder) = clients.unmodified {
                    tests = tests.env(clients::UNMODIFIED_PACKAGES, folder);
                }
                // One after the other: what they time is theirs alone.
                let chosen = ["--", "openai::", "miners::", "unmodified::", "contract::"];
                Ok(vec![tests.args(chosen).args(["--nocapture", "--test-threads=1"])])
            })),
        },
        Step {
            name: "window",
            what: "the real window, driven from outside",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                let tests = cargo_test(workspace)?.args(["--test", WINDOW_TESTS]);
                // Demanded: a missing tool is a failure here, not a reason to skip.
                Ok(vec![tests.args(["--", "--nocapture"]).env("NEURINO_E2E", "1")])
            })),
        },
    ]
}

/// Builds that differ from this machine's: only checked, not linked.
fn build_variants(workspace: &Workspace) -> Vec<Step<'_>> {
    let mut steps = vec![Step {
        name: "server",
        what: "the server build compiles, and holds no window",
        place: Place::Alone,
        action: Action::Planned(Box::new(|| {
            no_window_in(
                &server(workspace, "tree").args(["--edges", "normal", "--prefix", "none"]),
            )?;
            Ok(vec![server(workspace, "check").arg("--release")])
        })),
    }];
    // The one platform whose LLVM is pinned.
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        steps.push(Step {
            name: "kernels",
            what: "the card's kernels give what plain Rust gives, and compile for every card",
            place: Place::Alone,
            action: Action::Planned(Box::new(|| {
                // One after the other: barriers on the CPU are busy threads.
                let tests = gpu_check::kernels(workspace, "test", "cpu-runtime")?;
                Ok(vec![tests.args(["--lib", "--test", "it", "--", "--test-threads=1"])])
            })),
        });
    }
    steps.push(Step {
        name: "windows",
        what: "the program compiles for Windows",
        place: Place::Alone,
        action: Action::Planned(Box::new(|| {
            ui::build(workspace)?;
            Ok(windows::check(workspace))
        })),
    });
    if workspace.engines == Engines::Cpu {
        // With CUDA in the build, clippy has seen that code already.
        steps.push(Step {
            name: "cuda",
            what: "the NVIDIA engine compiles",
            place: Place::Alone,
            action: Action::Commands(vec![
                // Over the workspace, so that clippy's metadata serves here too. DOCS_RS makes the
                // build scripts do without LLVM, which only linking needs.
                workspace
                    .cargo_all("check")
                    .args(["--features", "neurino/cuda"])
                    .env("DOCS_RS", "1"),
            ]),
        });
    }
    steps
}

/// A test in a process of its own, whose peak of memory is its alone.
fn real_size(workspace: &Workspace, name: &str) -> Result<Cmd> {
    // A name that fits no test would pass.
    let (module, test) = name.split_once("::").context("a test in a module")?;
    let file = format!("tests/it/{module}.rs");
    let known = ["neurino-diffusion", "neurino-engine"].iter().any(|owner| {
        let path = workspace.path(format!("crates/{owner}/{file}"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.contains(&format!("fn {test}("))
    });
    anyhow::ensure!(known, "no crate's {file} has {test}");
    let tests = cargo_test(workspace)?.args(["--test", "it"]);
    Ok(tests.args(["--", "--ignored", "--exact", "--nocapture", name]))
}

/// The one that also takes minutes.
const FLUX: &str = "real_size::a_whole_picture_of_flux_in_4_bits";

/// Tests that take gigabytes.
const REAL_SIZES: [&str; 8] = [
    "flux::real_blocks_in_4_bits_keep_to_their_memory",
    "load_memory::a_load_that_fails_at_its_end_leaves_nothing",
    "load_memory::loading_takes_little_more_than_a_shard",
    "real_size::a_picture_of_512_pixels_is_decoded",
    "real_size::a_step_of_sdxl",
    "real_size::a_step_of_stable_diffusion_15",
    "real_size::a_whole_picture_of_sdxl",
    "real_size::a_whole_picture_of_stable_diffusion_15",
];

/// The test target that needs a display; it runs in a step of its own.
const WINDOW_TESTS: &str = "e2e";

/// `cargo test` over the workspace, told where the program and the starter model are.
fn cargo_test(workspace: &Workspace) -> Result<Cmd> {
    Ok(workspace
        .cargo_all("test")
        .arg("--no-fail-fast")
        .env("NEURINO_BIN", workspace.program())
        .env("NEURINO_TEST_STARTER_MODEL", starter::kept(workspace, &workspace.program())?))
}

/// Names of the integration test targets that need no display.
fn test_targets(workspace: &Workspace) -> impl Iterator<Item = &str> {
    let names: BTreeSet<&str> = workspace
        .packages()
        .iter()
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str())
        .filter(|name| *name != WINDOW_TESTS)
        .collect();
    names.into_iter()
}

/// A cargo command on the program as servers get it.
fn server(workspace: &Workspace, subcommand: &str) -> Cmd {
    workspace.cargo(subcommand).args(["--package", "neurino", "--no-default-features"])
}

/// Fails when the dependency list that `tree` prints names a library of the window.
fn no_window_in(tree: &Cmd) -> Result<()> {
    let list = tree.output()?;
    let found = window_libraries(&list);
    if found.is_empty() {
        return Ok(());
    }
    bail!("the server build depends on {}: see `{tree}`", found.join(", "))
}

/// The packages in a dependency list that belong to a window.
fn window_libraries(list: &str) -> Vec<&str> {
    let mut found: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| {
            let first = name.split(['-', '_']).next().unwrap_or(name);
            WINDOW_LIBRARIES.contains(&first.trim_end_matches(char::is_numeric))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_a_window_are_recognised() {
        let list = "neurino v0.1.0\nwebkit2gtk-sys v2.0.2\ntauri-runtime v2 (*)\nsoup3 v0.5.0\n\
                    taoism v1.0.0\nserde v1\ngtk v0.18\nwry v0.57";
        let found = window_libraries(list);
        assert_eq!(found, ["gtk", "soup3", "tauri-runtime", "webkit2gtk-sys", "wry"]);
    }
}
