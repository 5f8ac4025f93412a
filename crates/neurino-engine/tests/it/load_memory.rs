//! What a load takes of this machine's memory beside the weights, measured by the system at the real
//! engine's process: at most 1.2 times the largest shard, and nothing once it has failed. Each wants
//! some hundred megabytes of disk: `cargo xtask test sizes` runs them.
#![expect(clippy::print_stdout, reason = "measurements are read")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use neurino_core::ModelId;
use neurino_engine::{
    Engine as _, EngineError, EngineErrorCode, EngineStatus, ModelRef, ProcessEngine,
};
use neurino_hardware::{peak_memory_bytes_of, resident_memory_bytes_of};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::model;
use crate::process::config;

const HIDDEN: usize = 1024;
const INNER: usize = 4096;
const GROUP: usize = 128;
const MIB: u64 = 1 << 20;
/// What an engine may keep after a load that failed: allocators return what is large.
const LEFT_BYTES: u64 = 12 * MIB;

/// How a made-up model keeps its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    F16,
    F32,
    Gptq,
}

impl Form {
    /// The name in a header, the bytes of a number, and bits that make every number a small one.
    fn numbers(self) -> (&'static str, usize, u32) {
        match self {
            Self::F16 | Self::Gptq => ("F16", 2, 0x2000_2000),
            Self::F32 => ("F32", 4, 0x3c00_0000),
        }
    }
}

/// A model of a made-up size in shards of `per_shard` layers.
struct Sizes {
    form: Form,
    layers: usize,
    per_shard: usize,
}

/// A tensor of a shard: name, type, shape, bytes.
type Entry = (String, &'static str, Vec<usize>, usize);

impl Sizes {
    /// Writes the model beside the tokenizer of a fixture. Returns the bytes of the largest shard and of
    /// all.
    fn write(&self, folder: &Path) -> (u64, u64) {
        let fixture = model().path;
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            std::fs::copy(fixture.join(name), folder.join(name)).unwrap();
        }
        let text = std::fs::read_to_string(fixture.join("config.json")).unwrap();
        let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let vocab = usize::try_from(config["vocab_size"].as_u64().unwrap()).unwrap();
        for (key, value) in [
            ("hidden_size", HIDDEN),
            ("intermediate_size", INNER),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", 16),
            ("num_key_value_heads", 16),
            ("max_position_embeddings", 256),
        ] {
            config.insert(key.into(), value.into());
        }
        if self.form == Form::Gptq {
            let gptq = json!({
                "quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": false, "sym": true
            });
            config.insert("quantization_config".into(), gptq);
        }
        std::fs::write(folder.join("config.json"), Value::Object(config).to_string()).unwrap();

        let shards = self.layers.div_ceil(self.per_shard);
        let (mut places, mut largest, mut all) = (Map::new(), 0, 0);
        for shard in 0..shards {
            let first = shard * self.per_shard;
            let mut tensors = self.layers(first..(first + self.per_shard).min(self.layers));
            if shard == 0 {
                tensors.push(self.dense("model.embed_tokens.weight", &[vocab, HIDDEN]));
            }
            if shard + 1 == shards {
                tensors.push(self.dense("model.norm.weight", &[HIDDEN]));
                tensors.push(self.dense("lm_head.weight", &[vocab, HIDDEN]));
            }
            let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
            places.extend(tensors.iter().map(|(name, ..)| (name.clone(), file.clone().into())));
            let size = write_shard(&folder.join(&file), &tensors, self.form.numbers().2);
            (largest, all) = (size.max(largest), all + size);
        }
        let index = json!({ "metadata": {}, "weight_map": places });
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        (largest, all)
    }

    fn dense(&self, name: &str, shape: &[usize]) -> Entry {
        let (dtype, bytes, _) = self.form.numbers();
        (name.into(), dtype, shape.to_vec(), shape.iter().product::<usize>() * bytes)
    }

    fn layers(&self, layers: Range<usize>) -> Vec<Entry> {
        let mut found = Vec::new();
        for layer in layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            for part in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
                found.push(self.dense(&name(part), &[HIDDEN]));
            }
            let attention =
                ["q", "k", "v", "o"].map(|p| (format!("self_attn.{p}_proj"), HIDDEN, HIDDEN));
            let mlp = [("gate", INNER, HIDDEN), ("up", INNER, HIDDEN), ("down", HIDDEN, INNER)]
                .map(|(p, out, inner)| (format!("mlp.{p}_proj"), out, inner));
            for (part, out, inner) in attention.into_iter().chain(mlp) {
                if self.form != Form::Gptq {
                    found.push(self.dense(&name(&format!("{part}.weight")), &[out, inner]));
                    continue;
                }
                let packed = |suffix: &str, shape: [usize; 2]| {
                    let bytes = 4 * shape[0] * shape[1];
                    (name(&format!("{part}.{suffix}")), "I32", shape.to_vec(), bytes)
                };
                found.push(packed("qweight", [inner / 8, out]));
                found.push(packed("qzeros", [inner / GROUP, out / 8]));
                found.push(self.dense(&name(&format!("{part}.scales")), &[inner / GROUP, out]));
            }
        }
        found
    }
}

/// Writes a safetensors file whose numbers are small and not all alike. Returns its size.
fn write_shard(path: &Path, tensors: &[Entry], bits: u32) -> u64 {
    let (mut header, mut at) = (Map::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes] });
        header.insert(name.clone(), entry);
        at += bytes;
    }
    // The order of the names is the header's own; offsets say where each lies.
    let header = Value::Object(header).to_string();
    let mut out = BufWriter::new(File::create(path).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    let mut random = 1_u32;
    for _ in 0..at / 4 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = bits | (random >> 7 & 0x01ff_01ff);
        out.write_all(&word.to_le_bytes()).unwrap();
    }
    out.into_inner().unwrap().metadata().unwrap().len()
}

fn made_up(folder: &TempDir) -> ModelRef {
    ModelRef::new(ModelId::new("made-up").unwrap(), folder.path())
}

/// An engine with a tiny model, its process, and what that holds.
async fn started() -> Option<(ProcessEngine, u32, u64)> {
    let engine = ProcessEngine::start(config());
    engine.load(&model()).await.unwrap();
    let id = engine.process_id().unwrap();
    let Some(held) = resident_memory_bytes_of(id) else {
        println!("skipped: this system does not tell what a process holds");
        return None;
    };
    Some((engine, id, held))
}

async fn a_load(sizes: Sizes) {
    let folder = tempfile::tempdir().unwrap();
    let (shard, all) = sizes.write(folder.path());
    let Some((engine, id, before)) = started().await else { return };
    let facts = engine.load(&made_up(&folder)).await.unwrap();
    assert_eq!(engine.process_id(), Some(id), "the same process");
    let (after, peak) = (resident_memory_bytes_of(id).unwrap(), peak_memory_bytes_of(id).unwrap());
    let (held, beside) = (after - before, peak - after);
    println!(
        "{:?}: {} MiB of weights in shards of {} MiB: {} MiB held, {} MiB beside it at the peak",
        sizes.form,
        all / MIB,
        shard / MIB,
        held / MIB,
        beside / MIB
    );
    assert!(shard * 2 < all, "shards that are much less than the whole, or this says nothing");
    assert!(beside * 5 <= shard * 6, "{beside} bytes beside the weights, the shard has {shard}");
    // What is kept is the weights and the cache.
    let kept = facts.weights_bytes + facts.memory.cache_bytes;
    assert!(held < kept + kept / 10 + LEFT_BYTES, "{held} bytes are held for {kept}");
}

#[tokio::test]
#[ignore = "wants its own disk space: `cargo xtask test sizes`"]
async fn loading_takes_little_more_than_a_shard() {
    a_load(Sizes { form: Form::F16, layers: 6, per_shard: 2 }).await;
    a_load(Sizes { form: Form::F32, layers: 4, per_shard: 1 }).await;
    a_load(Sizes { form: Form::Gptq, layers: 24, per_shard: 6 }).await;
}

async fn a_failure(engine: &ProcessEngine, folder: &TempDir, read_all: bool) -> EngineError {
    let mut status = engine.status();
    status.mark_unchanged();
    let error = engine.load(&made_up(folder)).await.unwrap_err();
    assert_eq!(error.code, EngineErrorCode::ModelUnreadable, "{error}");
    if read_all {
        assert!(engine.process_id().is_some(), "a file that is wrong ends no process");
    }
    assert_eq!(*status.borrow_and_update(), EngineStatus::Idle);
    error
}

#[tokio::test]
#[ignore = "wants its own disk space: `cargo xtask test sizes`"]
async fn a_load_that_fails_at_its_end_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { form: Form::F16, layers: 6, per_shard: 2 };
    let (_, all) = sizes.write(folder.path());
    let Some((engine, id, before)) = started().await else { return };
    let last = folder.path().join("model-00003-of-00003.safetensors");
    let whole = std::fs::read(&last).unwrap();

    // The last matrix that a model asks for has another shape than its description says.
    let mut wrong = whole.clone();
    let found = b"\"lm_head.weight\":{";
    let at = wrong.windows(found.len()).position(|bytes| bytes == found).unwrap();
    let shape = b"[513,1024]";
    let place = wrong[at..].windows(shape.len()).position(|bytes| bytes == shape).unwrap();
    wrong[at + place..][..shape.len()].copy_from_slice(b"[1024,513]");
    std::fs::write(&last, &wrong).unwrap();
    let error = a_failure(&engine, &folder, true).await;
    assert!(error.message.contains("lm_head.weight"), "{error}");
    let (left, peak) = (resident_memory_bytes_of(id).unwrap(), peak_memory_bytes_of(id).unwrap());
    println!("before {} MiB, peak {} MiB, left {} MiB", before / MIB, peak / MIB, left / MIB);
    assert!(peak > before + all * 9 / 10, "all of it was read before that was found");
    assert!(left < before + LEFT_BYTES, "{left} bytes are left of {before}");

    // The end is missing.
    std::fs::write(&last, &whole[..whole.len() - 1000]).unwrap();
    let error = a_failure(&engine, &folder, false).await;
    assert!(error.message.contains("model-00003-of-00003.safetensors"), "{error}");
    let left = resident_memory_bytes_of(id).unwrap();
    assert!(left < before + LEFT_BYTES, "{left} bytes are left of {before}");

    // And with the whole file the same process loads it.
    std::fs::write(&last, &whole).unwrap();
    engine.load(&made_up(&folder)).await.unwrap();
    assert_eq!(engine.process_id(), Some(id));
}
