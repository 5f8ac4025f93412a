//! `neurino-parity FOLDER`: runs the reference cases of a folder and says how far off each is.
#![expect(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
#![expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use neurino_parity::{Options, Report, Tally};

const HELP: &str = "\
neurino-parity FOLDER [OPTIONS]

Runs every reference case found in FOLDER and prints each one's error and limit.

  --device DEVICE        cpu (the default), or cuda[:NUMBER] in a build with that feature
  --starter-model FILE   the GGUF file that the cases in llm_real/ were made with
  --vocabularies FOLDER  the real vocabularies of text/real_tokenizers.json, a folder each:
                         clip, mistral_v1, llama3, t5";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(args) {
        Ok(Tally { failed: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> Result<Tally, Box<dyn std::error::Error>> {
    let mut folder = None;
    let mut options = Options { device: device("cpu")?, starter_model: None, vocabularies: None };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--device" => options.device = device(&value()?)?,
            "--starter-model" => options.starter_model = Some(value()?.into()),
            "--vocabularies" => options.vocabularies = Some(value()?.into()),
            _ if arg.starts_with('-') => {
                return Err(format!("unknown option {arg}\n\n{HELP}").into());
            }
            _ if folder.is_some() => return Err("give one folder".into()),
            _ => folder = Some(PathBuf::from(arg)),
        }
    }
    let folder = folder.ok_or("give the folder that holds the cases")?;
    let mut line = |line: &str| println!("{line}");
    let mut report = Report::new(&mut line);
    let tally = neurino_parity::run(&folder, &options, &mut report)?;
    if tally.skipped > 0 {
        println!("\n{} skipped", tally.skipped);
    }
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally)
}

/// The device of a name.
fn device(name: &str) -> Result<Device, String> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let number: usize = number.parse().map_err(|_| format!("`{name}` is not a device"))?;
    match kind {
        "cpu" if number == 0 => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => {
            // `Device::cuda` of a card that is not there would panic.
            let cards = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
            let missing = || format!("there is no NVIDIA card {number}: {} found", cards.len());
            cards.get(number).cloned().ok_or_else(missing)
        }
        _ => Err(format!("`{name}` is not a device of this build")),
    }
}
