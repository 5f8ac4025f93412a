//! Other engines on this machine, measured in the same rounds as ours: llama.cpp, through its own
//! benchmark or through a Python package, and transformers.

use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use neurino_llm::config::ModelConfig;
use neurino_llm::models::random::WeightFormat;
use neurino_llm::source::ModelArch;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempPath;

use super::{BenchSubject, Rates, Round, TextBenchOptions, gguf, rates};

const LLAMA_SCRIPT: &str = include_str!("peer_llama.py");
const TRANSFORMERS_SCRIPT: &str = include_str!("peer_transformers.py");
/// Names under which llama.cpp's own benchmark is looked for.
const LLAMA_PROGRAM: &str = "llama-batched-bench";
pub(super) const PYTHONS: [&str; 2] = ["python3", "python"];

/// Another engine's speeds.
#[derive(Debug, Clone, Serialize)]
pub struct PeerBench {
    /// What it is, with its version where it tells.
    pub name: String,
    /// How it keeps the weights.
    pub weights: String,
    /// Its speeds; `None` if it failed.
    pub rates: Option<Rates>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Another engine that takes part.
pub(super) struct Peer {
    name: String,
    weights: String,
    driver: Driver,
    rounds: Vec<Round>,
    failure: Option<String>,
    /// Kept until the end.
    _file: Option<Rc<TempPath>>,
}

pub(super) enum Driver {
    /// Answers a line with a round.
    Python { child: Child, input: Option<ChildStdin>, output: BufReader<ChildStdout> },
    /// Measures a round each time it is run.
    Program { command: Vec<String> },
}

impl Peer {
    /// Measures everything once; the round counts if `counts`.
    pub(super) fn round(&mut self, options: &TextBenchOptions, counts: bool) {
        if self.failure.is_some() {
            return;
        }
        let round = match &mut self.driver {
            Driver::Python { input, output, .. } => ask(input, output, options),
            // It warms up by itself.
            Driver::Program { .. } if !counts => return,
            Driver::Program { command } => run_program(command, options),
        };
        match round {
            Ok(round) if counts => self.rounds.push(round),
            Ok(_) => {}
            Err(failure) => self.failure = Some(failure),
        }
    }

    pub(super) fn finish(mut self, options: &TextBenchOptions) -> PeerBench {
        if let Driver::Python { child, input, .. } = &mut self.driver {
            drop(input.take());
            // It ends with its input; if not, it is not needed any more.
            let _ = child.kill();
            let _ = child.wait();
        }
        let rates = self.failure.is_none().then(|| rates(&self.rounds, options));
        PeerBench { name: self.name, weights: self.weights, rates, failure: self.failure }
    }
}

/// Starts every peer there is; also returns which were looked for in vain, in words.
pub(super) fn start_all(
    subject: &BenchSubject,
    format: Option<WeightFormat>,
    config: &ModelConfig,
    options: &TextBenchOptions,
    on_cpu: bool,
    say: &dyn Fn(String),
) -> (Vec<Peer>, Vec<String>) {
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    let setting = Setting { config, options, on_cpu };
    let (program, python) = find(options.peer.as_deref());
    let has = |module: &str| python.as_deref().is_some_and(|python| imports(python, module));
    let cyllama = has("cyllama");
    if program.is_some() || cyllama {
        say("preparing llama.cpp".into());
        match model_file(subject, format, config) {
            Ok((file, path, weights)) => {
                let started = match (&program, &python) {
                    (Some(program), _) => Ok(setting.program(program, &path)),
                    (None, Some(python)) => setting.llama_python(python, &path),
                    (None, None) => Err("no program".into()),
                };
                match started {
                    Ok((name, driver)) => peers.push(Peer {
                        name,
                        weights,
                        driver,
                        rounds: Vec::new(),
                        failure: None,
                        _file: file,
                    }),
                    Err(failure) => missing.push(format!("llama.cpp: {failure}")),
                }
            }
            Err(failure) => missing.push(format!("llama.cpp: {failure}")),
        }
    } else {
        missing.push(format!(
            "llama.cpp: found neither `{LLAMA_PROGRAM}` on the PATH nor the Python package cyllama; \
             install either, or name it with --peer"
        ));
    }
    if has("torch") && has("transformers") {
        say("preparing transformers".into());
        match python.as_deref().map(|python| setting.transformers(python)) {
            Some(Ok((name, driver))) => peers.push(Peer {
                name,
                weights: if on_cpu { "random f32".into() } else { "random f16".into() },
                driver,
                rounds: Vec::new(),
                failure: None,
                _file: None,
            }),
            Some(Err(failure)) => missing.push(format!("transformers: {failure}")),
            None => {}
        }
    } else {
        missing.push(
            "transformers: no Python with the packages torch and transformers was found; install \
             them, or name a Python that has them with --peer"
                .into(),
        );
    }
    (peers, missing)
}

/// llama.cpp's program and a Python. What the person names comes first.
fn find(named: Option<&Path>) -> (Option<PathBuf>, Option<PathBuf>) {
    let is_python = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
    };
    let named_python = named.filter(|path| is_python(path)).map(Path::to_owned);
    let named_program = named.filter(|path| !is_python(path)).map(|path| {
        // Its neighbour is named as often.
        let beside = path.with_file_name(LLAMA_PROGRAM);
        if beside.is_file() { beside } else { path.to_owned() }
    });
    let program = match (&named_program, &named_python) {
        // A Python was named to be used.
        (None, Some(_)) => None,
        _ => named_program.or_else(|| on_path(LLAMA_PROGRAM)),
    };
    (program, named_python.or_else(|| PYTHONS.iter().find_map(|name| on_path(name))))
}

pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

pub(super) fn imports(python: &Path, module: &str) -> bool {
    let mut command = Command::new(python);
    command.args([
        "-c",
        &format!("import importlib.util as u, sys; sys.exit(not u.find_spec('{module}'))"),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

type ModelFile = (Option<Rc<TempPath>>, PathBuf, String);

/// A file that llama.cpp reads: the subject's own, or one of random weights.
fn model_file(
    subject: &BenchSubject,
    format: Option<WeightFormat>,
    config: &ModelConfig,
) -> Result<ModelFile, String> {
    let format = match (subject, format) {
        (BenchSubject::File { path, .. }, _) if path.is_file() => {
            return Ok((None, path.clone(), "the same file".into()));
        }
        (BenchSubject::File { .. }, _) | (_, None) => {
            return Err("it reads GGUF files only, and this model is none".into());
        }
        (_, Some(format)) => format,
    };
    let write = || -> std::io::Result<TempPath> {
        let file = tempfile::Builder::new().prefix("neurino-bench-").suffix(".gguf").tempfile()?;
        let (file, path) = file.into_parts();
        gguf::write_random(&mut std::io::BufWriter::new(file), config, format)?;
        Ok(path)
    };
    let file = write().map_err(|e| format!("its model file could not be written: {e}"))?;
    let path = file.to_path_buf();
    let weights = match format {
        WeightFormat::F32 => "random f32",
        WeightFormat::F16 => "random f16",
        WeightFormat::Q8 => "random Q8_0",
        WeightFormat::Q4 => "random Q4_1, head Q8_0",
    };
    Ok((Some(Rc::new(file)), path, weights.into()))
}

/// What all peers are told.
struct Setting<'a> {
    config: &'a ModelConfig,
    options: &'a TextBenchOptions,
    on_cpu: bool,
}

impl Setting<'_> {
    fn threads() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn common(&self) -> Value {
        json!({
            "prompt": self.options.prompt_tokens,
            "new": self.options.new_tokens,
            "batches": self.options.batches,
            "vocab": self.config.vocab_size,
            "threads": Self::threads(),
            "gpu_layers": if self.on_cpu { 0 } else { 999 },
        })
    }

    fn program(&self, program: &Path, file: &Path) -> (String, Driver) {
        let options = self.options;
        let sizes: Vec<_> = options.batches.iter().map(u32::to_string).collect();
        let most = options.batches.iter().max().copied().unwrap_or(1);
        let context = most * (options.prompt_tokens + options.new_tokens).next_multiple_of(256);
        let words = [
            program.to_string_lossy().into_owned(),
            "-m".into(),
            file.to_string_lossy().into_owned(),
            "-c".into(),
            context.to_string(),
            "-npp".into(),
            options.prompt_tokens.to_string(),
            "-ntg".into(),
            options.new_tokens.to_string(),
            "-npl".into(),
            sizes.join(","),
            "-t".into(),
            Self::threads().to_string(),
            "-ngl".into(),
            if self.on_cpu { "0".into() } else { "999".into() },
            "--output-format".into(),
            "jsonl".into(),
        ];
        (format!("llama.cpp ({LLAMA_PROGRAM})"), Driver::Program { command: words.to_vec() })
    }

    fn llama_python(&self, python: &Path, file: &Path) -> Result<(String, Driver), String> {
        let mut told = self.common();
        told["file"] = file.to_string_lossy().into();
        let (driver, version) = start_python(python, LLAMA_SCRIPT, &told)?;
        Ok((format!("llama.cpp (cyllama, ggml {version})"), driver))
    }

    fn transformers(&self, python: &Path) -> Result<(String, Driver), String> {
        let config = self.config;
        let mut told = self.common();
        told["arch"] = match config.arch {
            ModelArch::Llama => "Llama",
            ModelArch::Mistral => "Mistral",
            ModelArch::Mixtral => "Mixtral",
        }
        .into();
        told["config"] = json!({
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_position_embeddings,
            "tie_word_embeddings": config.tie_word_embeddings,
            "hidden_act": config.hidden_act.name(),
        });
        if config.arch == ModelArch::Mixtral {
            told["config"]["num_local_experts"] = config.num_local_experts.into();
            told["config"]["num_experts_per_tok"] = config.num_experts_per_tok.into();
        }
        let (driver, version) = start_python(python, TRANSFORMERS_SCRIPT, &told)?;
        Ok((format!("transformers {version}"), driver))
    }
}

/// Starts a script and waits until it is ready; returns the version it tells.
pub(super) fn start_python(
    python: &Path,
    script: &str,
    told: &Value,
) -> Result<(Driver, String), String> {
    let mut child = Command::new(python)
        .args(["-c", script, &told.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("could not start {}: {e}", python.display()))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let errors = child.stderr.take();
    let Some(output) = output else { return Err("its output cannot be read".into()) };
    let mut output = BufReader::new(output);
    // Whatever it warns of must not fill its pipe; the last lines say why it failed.
    let tail = errors.map(|errors| std::thread::spawn(move || last_line(BufReader::new(errors))));
    match read_answer(&mut output) {
        Ok(answer) => {
            let version = answer["version"].as_str().unwrap_or("unknown").to_owned();
            Ok((Driver::Python { child, input, output }, version))
        }
        Err(failure) => {
            let _ = child.kill();
            let _ = child.wait();
            let said = tail.and_then(|tail| tail.join().ok()).unwrap_or_default();
            Err(if said.is_empty() { failure } else { said })
        }
    }
}

fn last_line(errors: impl std::io::BufRead) -> String {
    let lines = std::io::BufRead::lines(errors)
        .map_while(Result::ok)
        .filter(|line| !line.trim().is_empty());
    lines.last().unwrap_or_default().chars().take(300).collect()
}

/// The next line that is an answer; packages print other things now and then.
pub(super) fn read_answer(output: &mut impl std::io::BufRead) -> Result<Value, String> {
    let mut line = String::new();
    loop {
        line.clear();
        match output.read_line(&mut line) {
            Ok(0) => return Err("it ended without an answer".into()),
            Err(error) => return Err(format!("its answer cannot be read: {error}")),
            Ok(_) => {}
        }
        if let Ok(answer @ Value::Object(_)) = serde_json::from_str(&line) {
            return Ok(answer);
        }
    }
}

fn ask(
    input: &mut Option<ChildStdin>,
    output: &mut impl std::io::BufRead,
    options: &TextBenchOptions,
) -> Result<Round, String> {
    let input = input.as_mut().ok_or("it has ended")?;
    input.write_all(b"round\n").and_then(|()| input.flush()).map_err(|e| e.to_string())?;
    let answer = read_answer(output)?;
    let seconds = |value: &Value| value.as_f64().filter(|s| *s > 0.0);
    let prefill_s = seconds(&answer["prefill_s"]).ok_or("its answer lacks a time")?;
    let decode = answer["decode_s"].as_array().map(Vec::as_slice).unwrap_or_default();
    let decode_s: Vec<f64> = decode.iter().filter_map(seconds).collect();
    if decode_s.len() != options.batches.len() {
        return Err("its answer lacks a time".into());
    }
    Ok(Round { first_token_s: prefill_s, prefill_s, decode_s })
}

fn run_program(command: &[String], options: &TextBenchOptions) -> Result<Round, String> {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("could not start {}: {e}", command[0]))?;
    if !output.status.success() {
        let said = last_line(output.stderr.as_slice());
        return Err(format!("{} failed ({}): {said}", command[0], output.status));
    }
    parse_batched_bench(&String::from_utf8_lossy(&output.stdout), options)
}

/// Reads `llama-batched-bench --output-format jsonl`: a line for each number of sequences.
fn parse_batched_bench(text: &str, options: &TextBenchOptions) -> Result<Round, String> {
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.trim()).ok())
        .filter(Value::is_object)
        .collect();
    let of = |sequences: u32| lines.iter().find(|line| line["pl"] == json!(sequences));
    let mut decode_s = Vec::new();
    for &sequences in &options.batches {
        let seconds = of(sequences).and_then(|line| line["t_tg"].as_f64());
        decode_s.push(seconds.ok_or_else(|| format!("it did not measure {sequences} sequences"))?);
    }
    // Prompts are read one after the other.
    let prefill_s = lines
        .iter()
        .filter_map(|line| Some(line["t_pp"].as_f64()? / line["pl"].as_f64()?))
        .fold(f64::INFINITY, f64::min);
    if !prefill_s.is_finite() {
        return Err("it did not measure a prompt".into());
    }
    Ok(Round { first_token_s: prefill_s, prefill_s, decode_s })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::tests::options;
    use super::*;

    #[test]
    fn the_lines_of_the_program_are_understood() {
        let text = "main: n_kv_max = 512\n\
            {\"n_kv_max\": 512, \"pp\": 40, \"tg\": 4, \"pl\": 1, \"t_pp\": 0.5, \"t_tg\": 0.2}\n\
            {\"n_kv_max\": 512, \"pp\": 40, \"tg\": 4, \"pl\": 3, \"t_pp\": 1.2, \"t_tg\": 0.3}\n";
        let round = parse_batched_bench(text, &options()).unwrap();
        assert_eq!(round.decode_s, [0.2, 0.3]);
        assert!((round.prefill_s - 0.4).abs() < 1e-9);
        let less: String = text.lines().take(2).collect::<Vec<_>>().join("\n");
        assert!(parse_batched_bench(&less, &options()).unwrap_err().contains("3 sequences"));
    }

    #[test]
    fn answers_are_found_among_other_lines() {
        let mut lines = "warning: old version\n[1]\n{\"prefill_s\": 1.5}\n".as_bytes();
        assert_eq!(read_answer(&mut lines).unwrap()["prefill_s"], json!(1.5));
        assert!(read_answer(&mut lines).is_err());
        assert_eq!(last_line("a\nValueError: no\n\n".as_bytes()), "ValueError: no");
    }

    #[test]
    fn what_is_named_is_used_instead_of_what_is_found() {
        let (program, python) = find(Some(Path::new("/opt/env/bin/python3.12")));
        assert_eq!((program, python), (None, Some("/opt/env/bin/python3.12".into())));
        let (program, _) = find(Some(Path::new("/opt/llama/llama-bench")));
        assert_eq!(program, Some("/opt/llama/llama-bench".into()));
    }
}
