//! The cases of this repository, and folders that are damaged or hold something else.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use neurino_diffusion::ImageSource;
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_nn::device::{download, upload};
use neurino_parity::{Options, ParityError, Report, Tally};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// Runs a folder; returns the outcomes' lines with single spaces.
fn run(folder: &Path) -> Result<(Tally, Vec<String>), ParityError> {
    let starter_model = std::env::var_os("NEURINO_TEST_STARTER_MODEL").map(PathBuf::from);
    let options = Options { device: Device::flex(), starter_model, vocabularies: None };
    let mut lines = Vec::new();
    let mut keep = |line: &str| lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
    let tally = neurino_parity::run(folder, &options, &mut Report::new(&mut keep))?;
    Ok((tally, lines))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn this_builds_own_cases_pass() {
    let (tally, lines) = run(&fixtures()).unwrap();
    let failed: Vec<&String> = lines.iter().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(tally.passed > 700, "{tally:?}");
    // Every kind of case was there.
    for part in [
        "llm/llama3 p0 logits",
        "llm/llama31 rope.inv_freq",
        "llm/mistral p0 hidden",
        "llm/mixtral in one batch: greedy_ids",
        "llm/mixtral_gptq p2 greedy.json",
        "llm/sampling case 8",
        "text/tokenize mistral 0",
        "text/chat 0 llama3 chatml",
        "text/tool_calls 0",
        "text/stop 0",
        "quant/gptq.sym.act.64x96",
        "rng/mt19937 seed 42",
        "rng/sequence1.draw3",
        "sched/dpmpp_2m_sde_karras.20 trajectory",
        "sched/flow.20.tokens64 sigmas",
        "sched/ddim.20 trajectory",
        "sched/dpmpp_2m.20 trajectory",
        "sched/euler_ancestral.20 trajectory",
        "clip/lpw 6 sdxl",
        "clip/chunks 2 sd15",
        "clip/clip_g p1.pooled",
        "sd/sd15 unet case1.up_blocks.2",
        "sd/sdxl vae.logvar",
        "sd/sd15 lora old_diffusers.scale0.8.unet",
        "sd/sdxl lora peft.text_encoder_2",
        "sd/sdxl run long latents",
        "sd/sd15 run vae PNG pixels",
        "flux networks_nf4 single_transformer_blocks.2",
        "flux run quantized t5_hidden",
        "flux run wide share of pixels that differ",
        "flux lora bfl.scale0.75.transformer",
        "flux lora kohya.scale-0.5.transformer",
        "flux lora peft.text_encoder",
        "flux run lora_peft pooled",
        "flux run lora_kohya PNG pixels",
    ] {
        let found = lines.iter().any(|line| line.starts_with(&format!("ok {part} ")));
        assert!(found, "{part} is not among the cases that passed");
    }
}

#[test]
fn a_model_that_computes_something_else_fails() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("llm/llama31");
    copy(&fixtures().join("llm/llama31"), &model);
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let other = config.replace("\"factor\": 8.0", "\"factor\": 4.0");
    assert_ne!(other, config);
    fs::write(model.join("config.json"), other).unwrap();
    let (tally, lines) = run(folder.path()).unwrap();
    assert!(tally.failed > 3, "{lines:#?}");
    for part in ["rope.inv_freq", "p0 logits", "p0 hidden", "p0 step_logits"] {
        let line = format!("FAILED llm/llama31 {part} error ");
        assert!(lines.iter().any(|found| found.starts_with(&line)), "{part}: {lines:#?}");
    }
}

#[test]
fn a_picture_of_another_seed_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (from, model) = (fixtures().join("sd/sd15"), folder.path().join("sd/other"));
    copy_tree(&from, &model);
    let runs = fs::read_to_string(model.join("runs.json")).unwrap();
    let other =
        runs.replace("\"seed\": 42,", "\"seed\": 43,").replace("\"seed\": 42\n", "\"seed\": 43\n");
    assert_ne!(other, runs);
    fs::write(model.join("runs.json"), other).unwrap();
    let (_, lines) = run(folder.path()).unwrap();
    for part in ["latents0", "latents", "decoded", "pixels", "PNG pixels"] {
        let line = format!("FAILED sd/other run plain {part} error ");
        assert!(lines.iter().any(|found| found.starts_with(&line)), "{part}: {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("ok sd/other run weighted pixels")));
}

/// The first run of a fixture alone, with changed settings.
fn one_run(from: &str, to: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    copy_tree(&fixtures().join(from), to);
    for other in ["networks.safetensors", "lora_reference.safetensors"] {
        fs::remove_file(to.join(other)).unwrap();
    }
    let path = to.join("runs.json");
    let mut runs: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut run = runs["runs"][0].clone();
    change(&mut run);
    runs["runs"] = serde_json::json!([run]);
    fs::write(path, runs.to_string()).unwrap();
}

/// The reference divides a run's size by 8 whatever its autoencoder does, and tells SDXL the run's.
#[test]
fn the_references_picture_says_how_large_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let double = |run: &mut serde_json::Value| {
        run["width"] = (2 * run["width"].as_u64().unwrap()).into();
    };
    one_run("sd/sd15", &folder.path().join("sd/sd15"), double);
    one_run("sd/sdxl", &folder.path().join("sd/sdxl"), double);
    let (_, lines) = run(folder.path()).unwrap();
    let of = |model: &str| lines.iter().filter(|line| line.contains(model)).collect::<Vec<_>>();
    assert!(of("sd/sd15 run").len() > 4, "{lines:#?}");
    assert!(of("sd/sd15 run").iter().all(|line| line.starts_with("ok")), "{lines:#?}");
    for (part, told) in [("latents0", "ok"), ("outputs", "FAILED")] {
        let line = of("sd/sdxl run").into_iter().find(|line| line.contains(part)).unwrap();
        assert!(line.starts_with(told), "{line}");
    }
}

/// A seed below zero is the number of the same 64 bits.
#[test]
fn seeds_may_be_negative() {
    let folder = tempfile::tempdir().unwrap();
    one_run("sd/sd15", &folder.path().join("sd/sd15"), |run| run["seed"] = (-1).into());
    copy(&fixtures().join("rng"), &folder.path().join("rng"));
    let path = folder.path().join("rng/randn.json");
    let mut cases: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let seed = cases["single"][0]["seed"].as_i64().unwrap();
    // The generator takes the lower half of the bits.
    let below = seed - (1 << 32);
    for case in cases["single"].as_array_mut().unwrap() {
        if case["seed"] == seed {
            case["seed"] = below.into();
        }
    }
    fs::write(path, cases.to_string()).unwrap();
    let (_, lines) = run(folder.path()).unwrap();
    let named = cases["single"][0]["name"].as_str().unwrap();
    assert!(lines.iter().any(|line| line.starts_with(&format!("ok rng/{named} "))), "{lines:#?}");
    let latents = lines.iter().find(|line| line.contains("latents0")).unwrap();
    assert!(latents.starts_with("FAILED sd/sd15 run"), "computed with another seed: {latents}");
}

#[test]
fn clips_vocabulary_is_here() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::create_dir_all(&text).unwrap();
    let cat = serde_json::json!([{ "text": "a photo of a cat", "ids": [49406, 320, 1125, 539, 320, 2368, 49407] }]);
    let cases = serde_json::json!({ "clip": cat, "llama3": [{ "text": "a", "ids": [1] }] });
    fs::write(text.join("real_tokenizers.json"), cases.to_string()).unwrap();
    let (tally, lines) = run(folder.path()).unwrap();
    assert_eq!(tally, Tally { passed: 1, failed: 0, skipped: 1 }, "{lines:#?}");
}

/// What a conversation holds that our own messages do not, and an empty stop string, which jobs are refused
/// with.
#[test]
fn conversations_are_rendered_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    copy(&fixtures().join("text/llama3"), &text.join("llama3"));
    let template =
        "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}{{ tools | tojson }}";
    let message = serde_json::json!([{ "role": "developer", "content": null }]);
    let tools =
        serde_json::json!([{ "function": { "strict": true, "name": "f" }, "type": "function" }]);
    let shown =
        r#"[developer:None][{"function": {"strict": true, "name": "f"}, "type": "function"}]"#;
    let source = text.join("llama3");
    let ids = neurino_llm::Tokenizer::open_folder(&source).unwrap().encode(shown, false).unwrap();
    let chats = serde_json::json!({
        "templates": { "t": template },
        "cases": [{ "tokenizer": "llama3", "template": "t", "messages": message, "tools": tools,
            "text": shown, "ids": ids }],
    });
    fs::write(text.join("chat.json"), chats.to_string()).unwrap();
    let stops = serde_json::json!([{ "pieces": ["a"], "stop": [""], "text": "", "pieces_used": 1,
        "finish_reason": "stop" }]);
    fs::write(text.join("stop.json"), stops.to_string()).unwrap();
    let (tally, lines) = run(folder.path()).unwrap();
    assert_eq!(tally, Tally { passed: 1, failed: 0, skipped: 1 }, "{lines:#?}");
}

#[test]
fn cases_may_lie_one_folder_further_down() {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures().join("llm/llama3"), &folder.path().join("fixtures/llm/llama3"));
    let (tally, lines) = run(folder.path()).unwrap();
    assert!(tally.passed > 10 && tally.failed == 0, "{lines:#?}");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn missing_extras_are_left_out_and_damage_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("llm/m");
    copy(&fixtures().join("llm/llama3"), &model);
    for extra in ["generation_config.json", "reference.json", "greedy.json"] {
        fs::remove_file(model.join(extra)).unwrap();
    }
    fs::create_dir_all(folder.path().join("llm/empty")).unwrap();
    let (tally, lines) = run(folder.path()).unwrap();
    assert_eq!((tally.failed, tally.skipped), (0, 1), "{lines:#?}");
    assert!(tally.passed >= 12, "{lines:#?}");

    fs::write(model.join("model-00001-of-00002.safetensors"), b"").unwrap();
    let (tally, lines) = run(folder.path()).unwrap();
    assert_eq!((tally.passed, tally.failed), (0, 1), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("model-00001")), "{lines:#?}");
}

#[test]
fn a_folder_without_cases_says_so() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(run(folder.path()), Err(ParityError::NoCases(_))));
    assert!(matches!(run(&folder.path().join("absent")), Err(ParityError::NoFolder(_))));
}

#[test]
fn a_folder_of_which_nothing_can_be_run_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("quant")).unwrap();
    let unit = serde_json::json!([{ "name": "u", "kind": "new", "shape": [1, 1] }]);
    fs::write(folder.path().join("quant/units.json"), unit.to_string()).unwrap();
    let units = fixtures().join("quant/units.safetensors");
    fs::copy(units, folder.path().join("quant/units.safetensors")).unwrap();
    let error = run(folder.path()).unwrap_err();
    assert!(matches!(error, ParityError::AllSkipped { skipped: 1, .. }), "{error}");
}

/// Its zero points are stored as they are, not less one.
#[test]
fn a_unit_of_the_second_format_of_gptq() {
    let quant = fixtures().join("quant");
    let text = fs::read_to_string(quant.join("units.json")).unwrap();
    let units: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let is_wanted = |unit: &&serde_json::Value| unit["kind"] == "gptq";
    let mut unit = units.iter().find(is_wanted).unwrap().clone();
    let name = unit["name"].as_str().unwrap().to_owned();
    let bytes = fs::read(quant.join("units.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let stored = all.tensor(&format!("{name}.qzeros")).unwrap();
    let add_one = |byte: u8| (byte & 0xf).wrapping_add(1) & 0xf | (byte >> 4).wrapping_add(1) << 4;
    let zeros: Vec<u8> = stored.data().iter().map(|byte| add_one(*byte)).collect();
    let changed = TensorView::new(stored.dtype(), stored.shape().to_vec(), &zeros).unwrap();
    let tensors = all.tensors().into_iter().map(|(tensor, view)| {
        let is_changed = tensor == format!("{name}.qzeros");
        (tensor, if is_changed { changed.clone() } else { view })
    });

    let folder = tempfile::tempdir().unwrap();
    let quant = folder.path().join("quant");
    fs::create_dir_all(&quant).unwrap();
    fs::write(quant.join("units.safetensors"), safetensors::serialize(tensors, None).unwrap())
        .unwrap();
    for (format, passed) in [("gptq_v2", 1), ("gptq", 0)] {
        unit["checkpoint_format"] = format.into();
        fs::write(quant.join("units.json"), serde_json::json!([unit]).to_string()).unwrap();
        let (tally, lines) = run(folder.path()).unwrap();
        assert_eq!((tally.passed, tally.failed), (passed, 1 - passed), "{lines:#?}");
    }
}
/// Two tensors of an update of low rank for a layer of `[out, inp]`, and their product.
fn low_rank(out: usize, inp: usize) -> ([Vec<f32>; 2], Vec<f32>) {
    const RANK: usize = 2;
    let wave = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect();
    let (down, up): (Vec<f32>, Vec<f32>) = (wave(RANK * inp, 0.7), wave(out * RANK, 1.3));
    let at = |row: usize, column: usize| -> f32 {
        (0..RANK).map(|k| up[row * RANK + k] * down[k * inp + column]).sum()
    };
    let product = (0..out * inp).map(|i| at(i / inp, i % inp)).collect();
    ([down, up], product)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The reference of an update is the network with the product merged into its weights.
#[test]
fn updates_of_flux_are_held_against_merged_weights() {
    const LAYER: &str = "transformer_blocks.0.attn.to_q";
    const SCALE: f32 = 0.8;
    let folder = tempfile::tempdir().unwrap();
    let (model, merged) = (folder.path().join("flux"), folder.path().join("merged"));
    copy_tree(&fixtures().join("flux"), &model);
    for other in ["runs.json", "networks_nf4.safetensors"] {
        fs::remove_file(model.join(other)).unwrap();
    }
    copy_tree(&model, &merged);

    let weight = format!("{LAYER}.weight");
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        SafeTensors::deserialize(&bytes).is_ok_and(|file| file.tensor(&weight).is_ok())
    };
    let shards = fs::read_dir(merged.join("transformer")).unwrap();
    let mut shards = shards.map(|entry| entry.unwrap().path());
    let shard =
        shards.find(|path| path.extension().is_some_and(|e| e == "safetensors") && holds(path));
    let (shard, mut changed) = (shard.unwrap(), Vec::new());
    let bytes = fs::read(&shard).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let base = file.tensor(&weight).unwrap();
    assert_eq!(base.dtype(), Dtype::BF16);
    let &[out, inp] = base.shape() else { panic!("a matrix") };
    let ([down, up], product) = low_rank(out, inp);
    for (pair, product) in base.data().chunks(2).zip(product) {
        let stored = f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
        changed.extend((stored + SCALE * product).to_le_bytes());
    }
    let with_product = TensorView::new(Dtype::F32, vec![out, inp], &changed).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let view = if name == weight { with_product.clone() } else { view };
        (name, view)
    });
    fs::write(&shard, safetensors::serialize(tensors, None).unwrap()).unwrap();

    let (down, up) = (bytes_of(&down), bytes_of(&up));
    let updates = [
        (format!("transformer.{LAYER}.lora_A.weight"), vec![2, inp], &down),
        (format!("transformer.{LAYER}.lora_B.weight"), vec![out, 2], &up),
    ];
    let updates = updates.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = model.join("lora_peft.safetensors");
    fs::write(file, safetensors::serialize(updates, None).unwrap()).unwrap();

    // What the merged network makes of the case's input, and what the plain one does.
    let bytes = fs::read(model.join("networks.safetensors")).unwrap();
    let case = SafeTensors::deserialize(&bytes).unwrap();
    let plain = case.tensor("output").unwrap();
    let made = bytes_of(&output_of(&merged, &case));
    let with_updates = TensorView::new(Dtype::F32, plain.shape().to_vec(), &made).unwrap();
    fs::remove_dir_all(&merged).unwrap();
    for (output, told) in [(with_updates, "ok"), (plain, "FAILED")] {
        let name = format!("peft.scale{SCALE}.transformer");
        let given =
            ["hidden_states", "encoder_hidden_states", "pooled", "timestep", "guidance", "img_ids"];
        let given = given.map(|name| (name.to_owned(), case.tensor(name).unwrap()));
        let all = given.into_iter().chain([(name.clone(), output)]);
        let file = model.join("lora_reference.safetensors");
        fs::write(file, safetensors::serialize(all, None).unwrap()).unwrap();
        let (_, lines) = run(folder.path()).unwrap();
        let line = format!("{told} flux lora {name} ");
        assert!(lines.iter().any(|found| found.starts_with(&line)), "{lines:#?}");
    }
}

fn output_of(folder: &Path, case: &SafeTensors<'_>) -> Vec<f32> {
    let device = Device::flex();
    let source = ImageSource::open(folder).unwrap();
    let transformer = source.load_transformer(&Loading::quiet(&device, Precision::Full)).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let tensor = case.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        let (values, _) = tensor.data().as_chunks::<4>();
        values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let sequence = |name: &str| {
        let shape: [usize; 3] = case.tensor(name).unwrap().shape().try_into().unwrap();
        upload(floats(name), shape, &device)
    };
    let pooled: [usize; 2] = case.tensor("pooled").unwrap().shape().try_into().unwrap();
    let pooled = upload(floats("pooled"), pooled, &device);
    let last = floats("img_ids")
        .chunks(3)
        .fold([0.0f32; 2], |[y, x], position| [y.max(position[1]), x.max(position[2])]);
    let size = last.map(|last| last as usize + 1);
    let states = sequence("encoder_hidden_states");
    let condition = transformer.condition(states, pooled, floats("guidance")[0], size);
    let output = transformer.forward(
        sequence("hidden_states"),
        transformer.sinusoids(floats("timestep")[0]),
        &condition,
    );
    download(output).unwrap()
}
