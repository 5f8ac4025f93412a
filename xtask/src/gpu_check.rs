//! `cargo xtask gpu-check`: what only a machine with an NVIDIA card can tell.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::shell::{Cmd, say};
use crate::steps::{self, Action, Journal, Place, Step};
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

/// Where the report lies, below the target directory.
const REPORT: &str = "gpu-check.txt";
/// Video memory with which 8 billion weights of 16 bits are measured, too.
const ROOMY_MIB: u64 = 20_000;
/// The same with Flux: all its weights in 4 bits, in 16 bits, and in 16 bits beside diffusers with as many.
const FLUX_NF4_MIB: u64 = 16_000;
const FLUX_MIB: u64 = 44_000;
const FLUX_TWICE_MIB: u64 = 80_000;

/// Builds with CUDA, holds the card to the reference outputs, and measures it: all steps, or those
/// named. What they said is kept in a file. A failing step does not keep the others from running.
pub(crate) fn gpu_check(workspace: &Workspace, names: &[String], list: bool) -> Result<ExitCode> {
    let chosen = steps::choose(steps(workspace), names)?;
    if list {
        for step in &chosen {
            say(format!("{:<10} {}", step.name, step.what));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if cuda::driver().is_none() {
        bail!("no NVIDIA driver answers on this machine, so there is no card to check");
    }
    if workspace.engines == Engines::Cpu {
        bail!("--cpu leaves out what this command checks");
    }
    run::set_up(workspace, Purpose::Run)?;
    let report = workspace.kept().join(REPORT);
    let mut journal = Journal::in_file("cargo xtask gpu-check", &report)?;
    let code = steps::run_all(&chosen, &mut journal);
    say(format!("the report is {}", report.display()));
    Ok(code)
}

fn steps(workspace: &Workspace) -> Vec<Step<'_>> {
    let mut steps = vec![
        Step {
            name: "build",
            what: "every program, with both engines",
            place: Place::Foundation,
            action: Action::Planned(Box::new(|| {
                ui::build(workspace)?;
                Ok(vec![run::build(workspace)])
            })),
        },
        planned("doctor", "driver, card, video memory", || {
            Ok(vec![program(workspace).arg("doctor")])
        }),
    ];
    steps.extend(correctness(workspace));
    steps.extend(measurements(workspace));
    steps
}

/// A step on top of the programs.
fn planned<'a>(
    name: &'static str,
    what: &'static str,
    plan: impl Fn() -> Result<Vec<Cmd>> + 'a,
) -> Step<'a> {
    Step { name, what, place: Place::OnTop, action: Action::Planned(Box::new(plan)) }
}

/// The program, told to use the card.
fn program(workspace: &Workspace) -> Cmd {
    Cmd::new(&workspace.root, workspace.program())
        .env("CUDA_PATH", cuda::cuda_path(&workspace.target))
        .env("NEURINO_DEVICE", DEVICE)
}

/// Whether the card computes what it should.
fn correctness(workspace: &Workspace) -> Vec<Step<'_>> {
    let tests = |filter: &str| {
        let tests = workspace.cargo_all("test").args(["--features", "neurino-llm/cuda"]);
        let tests = tests.args(["--test", "it", "--", filter, "--nocapture"]);
        on_card(tests).env("CUDA_PATH", cuda::cuda_path(&workspace.target))
    };
    vec![
        planned("parity", "every reference case on the card, each with its error", || {
            Ok(vec![parity::build(workspace), parity::own_cases(workspace, "cuda")])
        }),
        planned("reference", "the tests of the architectures on the card", move || {
            Ok(vec![tests("parity::")])
        }),
        planned(
            "choices",
            "tokens that the card chooses: its self-check, and the same in company and alone",
            move || Ok(vec![tests("device_choice::")]),
        ),
        planned(
            "kernels",
            "every kernel against its oracle, tensor cores included; a recorded step against a launched one",
            || {
                let tests = kernels(workspace, "test", BOTH_RUNTIMES)?.args(["--test", "it"]);
                Ok(vec![on_card(tests.args(["--", "--test-threads=1", "--nocapture"]))])
            },
        ),
    ]
}

/// How much memory it takes and how fast it is.
fn measurements(workspace: &Workspace) -> Vec<Step<'_>> {
    let text = |args: &[&str]| {
        program(workspace).args(["bench", "text", "--compare"]).args(args.iter().copied())
    };
    let image = |shape: &str| {
        program(workspace).args(["bench", "image", "--compare", "--runs", "3", "--shape", shape])
    };
    let alone =
        |shape: &str| program(workspace).args(["bench", "image", "--runs", "3", "--shape", shape]);
    // Left out on a card that is known to have less.
    let on_roomy = move |needed_mib: u64, what: Cmd| match video_memory_mib(workspace) {
        Some(mib) if mib < needed_mib => {
            say(format!("left out: {mib} MiB of video memory are too little"));
            Ok(Vec::new())
        }
        _ => Ok(vec![what]),
    };
    vec![
        planned("tune", "what a first start compiles and tunes, done ahead", || {
            starter::for_the_user(&workspace.program())?;
            let starter = ["tune", "--model", starter::STARTER];
            Ok(vec![program(workspace).args(starter)])
        }),
        planned(
            "memory",
            "the memory plan beside NVML, and how fast an unload gives it back",
            || {
                starter::for_the_user(&workspace.program())?;
                Ok(vec![program(workspace).args(["bench", "memory", "--model", starter::STARTER])])
            },
        ),
        planned("bandwidth", "each kernel's share of the bandwidth that reading reaches", || {
            let example = kernels(workspace, "run", BOTH_RUNTIMES)?;
            Ok(vec![on_card(example.args(["--example", "bandwidth"]))])
        }),
        planned("starter", "the starter model: prefill, decode, peers", move || {
            starter::for_the_user(&workspace.program())?;
            Ok(vec![text(&["--model", starter::STARTER])])
        }),
        planned("text-4bit", "8 billion weights of 4 bits", move || {
            Ok(vec![text(&["--shape", "llama3-8b", "--quant", "q4"])])
        }),
        planned(
            "text-16bit",
            "8 billion weights of 16 bits, on a card that holds them",
            move || on_roomy(ROOMY_MIB, text(&["--shape", "llama3-8b", "--quant", "f16"])),
        ),
        planned("sd15", "pictures with networks of Stable Diffusion 1.5", move || {
            Ok(vec![image("sd15")])
        }),
        planned("sdxl", "pictures with networks of SDXL", move || Ok(vec![image("sdxl")])),
        planned(
            "flux-nf4",
            "pictures with networks of FLUX.1 in 4 bits, on a card that holds them",
            move || on_roomy(FLUX_NF4_MIB, alone("flux-nf4")),
        ),
        planned(
            "flux-ratio",
            "what FLUX.1 in 4 bits costs against 16, on a card that holds both",
            move || {
                let both = alone("flux-nf4").args(["--against", "flux"]);
                on_roomy(FLUX_MIB + FLUX_NF4_MIB, both)
            },
        ),
        planned(
            "flux",
            "pictures with networks of FLUX.1 in 16 bits, on a card that holds them",
            move || {
                let twice = video_memory_mib(workspace).is_some_and(|mib| mib >= FLUX_TWICE_MIB);
                on_roomy(FLUX_MIB, if twice { image("flux") } else { alone("flux") })
            },
        ),
    ]
}

/// What the first card has, if its driver's program tells.
fn video_memory_mib(workspace: &Workspace) -> Option<u64> {
    let asked = ["--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"];
    let told = Cmd::new(&workspace.root, "nvidia-smi").args(asked).output().ok()?;
    told.lines().next()?.trim().parse().ok()
}
