//! Every kernel becomes PTX for every card, without CUDA's mathematical library.

use std::path::PathBuf;
use std::process::Command;

use neurino_kernels::ptx::{ARCHITECTURES, Case, cases, tile_cases};

/// With `NEURINO_PTXAS` naming NVIDIA's assembler, the PTX is assembled too, and hot kernels may not spill.
fn compile(cases: &[Case], architectures: &[(u32, bool)]) {
    let assembler = std::env::var_os("NEURINO_PTXAS").map(PathBuf::from);
    let mut spilled = Vec::new();
    for case in cases {
        for &(architecture, specific) in architectures {
            if !case.architectures.contains(&architecture) {
                continue;
            }
            let name = format!("{} for sm_{architecture}", case.name);
            let ptx =
                case.compile(architecture, specific).unwrap_or_else(|e| panic!("{name}: {e}"));
            if let Some(folder) = std::env::var_os("NEURINO_PTX_FOLDER") {
                let file = format!("{}.ptx", name.replace([' ', ',', '(', ')'], "_"));
                std::fs::write(PathBuf::from(folder).join(file), &ptx).unwrap();
            }
            assert!(ptx.contains(".visible .entry"), "{name}:\n{ptx}");
            assert!(!ptx.contains(".extern .func"), "{name} calls a library:\n{ptx}");
            let multiplies = ptx.contains("mma.sync.aligned.m16n8k");
            assert_eq!(multiplies, case.name.starts_with("tiles"), "{name}:\n{ptx}");
            if let Some(assembler) = &assembler {
                let suffix = if specific { "a" } else { "" };
                let report = assemble(assembler, &ptx, &format!("sm_{architecture}{suffix}"));
                println!("{name}: {report}");
                // What decodes one row must not spill at all; the assembler may park a value or
                // two where it prefers more threads to more registers.
                let most = if hot(&case.name) { 0 } else { 32 };
                if spilled_bytes(&report) > most {
                    spilled.push(name);
                }
            }
        }
    }
    assert!(spilled.is_empty(), "{spilled:?}");
}

#[test]
fn every_kernel_is_compiled_for_every_card() {
    compile(&cases(), &ARCHITECTURES);
}

#[test]
fn tiles_are_compiled_for_cards_of_2018() {
    compile(&tile_cases(), &ARCHITECTURES[..1]);
}

#[test]
fn tiles_are_compiled_for_gaming_cards() {
    compile(&tile_cases(), &ARCHITECTURES[1..3]);
}

#[test]
fn tiles_are_compiled_for_cards_of_data_centres() {
    compile(&tile_cases(), &ARCHITECTURES[3..4]);
}

#[test]
fn tiles_are_compiled_for_cards_of_2025() {
    compile(&tile_cases(), &ARCHITECTURES[4..]);
}

/// What decodes a row with all of its work in lanes.
fn hot(name: &str) -> bool {
    (name.ends_with("rows 1") && !name.starts_with("tiles")) || name.contains("decode")
}

fn spilled_bytes(report: &str) -> u32 {
    let before = report.split(" bytes spill stores").next().unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

fn assemble(assembler: &PathBuf, ptx: &str, architecture: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernel.ptx");
    std::fs::write(&file, ptx.trim_end_matches('\0')).unwrap();
    let arguments = ["-v", "-arch", architecture, "-o"];
    let mut command = Command::new(assembler);
    let out =
        command.args(arguments).arg(folder.path().join("kernel.o")).arg(&file).output().unwrap();
    let report = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{report}");
    let lines = report.lines().filter(|line| line.contains("spill") || line.contains("registers"));
    lines
        .map(|line| line.trim().trim_start_matches("ptxas info    : "))
        .collect::<Vec<_>>()
        .join(", ")
}
