//! `cargo xtask gpu-check`: what only a machine with an NVIDIA card can tell.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::shell::Cmd;
use crate::steps::{self, Action, Place, Step};
use crate::system::Purpose;
use crate::workspace::{Engines, Workspace};
use crate::{cuda, parity, run, starter, ui};

/// The device that doctor and benchmark are told to use.
const DEVICE: &str = "cuda:0";
/// Features of our kernels' tests: CubeCL's runtimes for the CPU and for cards.
const BOTH_RUNTIMES: &str = "cpu-runtime,cuda-runtime";

/// A cargo command on our kernels with these features, LLVM put in place.
pub(crate) fn kernels(workspace: &Workspace, subcommand: &str, features: &str) -> Result<Cmd> {
    cuda::prepare(&workspace.target, &workspace.path("Cargo.lock"))?;
    Ok(workspace
        .cargo(subcommand)
        .args(["--release", "--package", "neurino-kernels"])
        .args(["--features", features])
        .env("XDG_DATA_HOME", cuda::llvm_data_home(&workspace.target)))
}

fn on_card(command: Cmd) -> Cmd {
    command.env("NEURINO_TEST_DEVICE", "cuda")
}

/// Builds with CUDA, holds the card to the reference outputs, and measures it.
pub(crate) fn gpu_check(workspace: &Workspace) -> Result<ExitCode> {
    if cuda::driver().is_none() {
        bail!("no NVIDIA driver answers on this machine, so there is no card to check");
    }
    if workspace.engines == Engines::Cpu {
        bail!("--cpu leaves out what this command checks");
    }
    run::set_up(workspace, Purpose::Run)?;
    let cuda_path = cuda::cuda_path(&workspace.target);
    let program = || {
        Cmd::new(&workspace.root, workspace.program())
            .env("CUDA_PATH", &cuda_path)
            .env("NEURINO_DEVICE", DEVICE)
    };
    let steps = [
        Step {
            name: "build",
            what: "every program, with both engines",
            place: Place::Foundation,
            action: Action::Planned(Box::new(|| {
                ui::build(workspace)?;
                Ok(vec![run::build(workspace)])
            })),
        },
        Step {
            name: "doctor",
            what: "driver, card, video memory",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| Ok(vec![program().arg("doctor")]))),
        },
        Step {
            name: "parity",
            what: "the card gives the reference outputs",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                let tests = workspace.cargo_all("test").args(["--features", "neurino-llm/cuda"]);
                let tests = tests.args(["--test", "it", "--", "parity::", "--nocapture"]);
                let tests = tests.env("NEURINO_TEST_DEVICE", "cuda").env("CUDA_PATH", &cuda_path);
                let cases = parity::own_cases(workspace, "cuda");
                Ok(vec![tests, parity::build(workspace), cases])
            })),
        },
        Step {
            name: "kernels",
            what: "every kernel on the card against its oracle, one after the other",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                let tests = kernels(workspace, "test", BOTH_RUNTIMES)?.args(["--test", "it"]);
                Ok(vec![on_card(tests.args(["--", "--test-threads=1"]))])
            })),
        },
        Step {
            name: "bandwidth",
            what: "each kernel's share of the bandwidth that reading alone reaches",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                Ok(vec![on_card(
                    kernels(workspace, "run", BOTH_RUNTIMES)?.args(["--example", "bandwidth"]),
                )])
            })),
        },
        Step {
            name: "bench",
            what: "prefill, decode, memory bandwidth",
            place: Place::OnTop,
            action: Action::Planned(Box::new(|| {
                starter::for_the_user(&workspace.program())?;
                Ok(vec![program().args(["bench", "text", "--model", starter::STARTER])])
            })),
        },
    ];
    Ok(steps::run_all(&steps))
}
