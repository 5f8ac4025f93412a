//! Reading ahead: right bytes in any order, bounded memory, nothing left behind.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use neurino_weights::prefetch::{Prefetch, budget_bytes};
use neurino_weights::{Safetensors, StoredTensor, WeightsError};
use tempfile::TempDir;

use crate::file;

/// A checkpoint of byte tensors `t0`, `t1`, .. whose bytes tell them apart.
fn checkpoint(sizes: &[usize]) -> (TempDir, PathBuf, Vec<StoredTensor>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (i, &size) in sizes.iter().enumerate() {
        let range = [data.len(), data.len() + size];
        data.extend((0..size).map(|k| (i * 31 + k * 7) as u8));
        let entry = serde_json::json!({"dtype": "U8", "shape": [size], "data_offsets": range});
        header.insert(format!("t{i}"), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let (folder, path) = file("model.safetensors", &bytes);
    let weights = Safetensors::open_file(&path).unwrap();
    let tensors =
        (0..sizes.len()).map(|i| weights.stored(&format!("t{i}")).unwrap().clone()).collect();
    (folder, path, tensors)
}

#[track_caller]
fn assert_bytes(bytes: &[u8], i: usize, size: usize) {
    assert_eq!(bytes.len(), size);
    assert!(bytes.iter().enumerate().all(|(k, &b)| b == (i * 31 + k * 7) as u8), "t{i}");
}

/// Sizes of a model's tensors in small: equal layers between two large tables.
fn sizes() -> Vec<usize> {
    let layer = [300, 40_000, 10_000, 10_000, 40_000, 300, 90_000, 90_000, 90_000];
    let mut sizes = vec![400_000];
    (0..6).for_each(|_| sizes.extend(layer));
    sizes.extend([300, 400_000]);
    sizes
}

#[test]
fn bytes_in_the_planned_order_within_the_budget() {
    let sizes = sizes();
    let (_folder, path, tensors) = checkpoint(&sizes);
    let file_bytes = std::fs::metadata(&path).unwrap().len();
    for (budget, slow) in [(budget_bytes(file_bytes, 400_000), true), (250_000, false), (0, false)]
    {
        let prefetch = Prefetch::start(tensors.clone(), budget);
        for (i, tensor) in tensors.iter().enumerate() {
            let fetched = prefetch.fetch(tensor).unwrap();
            assert_bytes(&fetched, i, sizes[i]);
            assert_eq!(fetched.view().shape, [sizes[i]]);
            if slow {
                // The readers get as far ahead as they can.
                std::thread::sleep(Duration::from_millis(2));
            }
            if i % 5 == 0 {
                assert_bytes(&fetched.into_vec(), i, sizes[i]);
            }
        }
        let peak = prefetch.peak_bytes();
        assert!(peak <= budget + 400_000, "{peak} with a budget of {budget}");
        assert!(peak * 10 <= file_bytes * 12, "{peak} for a file of {file_bytes}");
        assert!(!slow || peak > 450_000, "only {peak}: nothing was read ahead");
        assert!(prefetch.held_bytes() <= budget, "spare buffers only");
        prefetch.stop();
        assert_eq!(prefetch.held_bytes(), 0);
    }
}

/// Whoever reads tensors by themselves takes what others have read ahead.
#[test]
fn reads_take_what_is_ready() {
    let sizes = sizes();
    let (_folder, path, tensors) = checkpoint(&sizes);
    let ahead = Prefetch::serving(tensors.clone(), 600_000);
    std::thread::sleep(Duration::from_millis(50));
    let ready = ahead.held_bytes();
    assert!(ready > 400_000, "only {ready} bytes are ready");
    for (i, tensor) in tensors.iter().enumerate() {
        assert_bytes(tensor.read().unwrap().bytes(), i, sizes[i]);
    }
    assert_eq!(ahead.held_bytes(), 0, "all were taken");
    // Once more, and of another opening of the file, from the file itself.
    assert_bytes(tensors[3].read().unwrap().bytes(), 3, sizes[3]);
    let other = Safetensors::open_file(&path).unwrap();
    assert_bytes(other.tensor("t5").unwrap().bytes(), 5, sizes[5]);
    ahead.stop();
    assert!(matches!(tensors[0].read(), Err(WeightsError::Stopped { .. })));
    drop(ahead);
    assert_bytes(tensors[0].read().unwrap().bytes(), 0, sizes[0]);
}

#[test]
fn any_order_gives_the_same_bytes() {
    let sizes = sizes();
    let (_folder, _path, tensors) = checkpoint(&sizes);
    // The plan lacks every third tensor and ends with some that nobody asks for.
    let plan: Vec<StoredTensor> = (0..tensors.len())
        .filter(|i| i % 3 != 1)
        .map(|i| tensors[i * 7 % tensors.len()].clone())
        .collect();
    let prefetch = Prefetch::start(plan, 200_000);
    for step in 0..tensors.len() * 2 {
        let i = step * 11 % tensors.len();
        assert_bytes(&prefetch.fetch(&tensors[i]).unwrap(), i, sizes[i]);
    }
    // One large tensor that was read ahead, one that was asked for meanwhile.
    assert!(prefetch.peak_bytes() <= 800_000, "{}", prefetch.peak_bytes());
}

#[test]
fn threads_may_ask_at_once() {
    let sizes = sizes();
    let (_folder, _path, tensors) = checkpoint(&sizes);
    let prefetch = Prefetch::start(tensors.clone(), 300_000);
    std::thread::scope(|scope| {
        for part in 0..3 {
            let (prefetch, tensors, sizes) = (&prefetch, &tensors, &sizes);
            scope.spawn(move || {
                for i in (part..tensors.len()).step_by(3) {
                    assert_bytes(&prefetch.fetch(&tensors[i]).unwrap(), i, sizes[i]);
                }
            });
        }
    });
}

#[test]
fn stopping_frees_everything_and_ends_reading() {
    let sizes = sizes();
    let (_folder, _path, tensors) = checkpoint(&sizes);
    let prefetch = Prefetch::start(tensors.clone(), 1 << 20);
    let kept = prefetch.fetch(&tensors[3]).unwrap();
    prefetch.stop();
    let refused = prefetch.fetch(&tensors[4]);
    assert!(matches!(refused, Err(WeightsError::Stopped { .. })), "{refused:?}");
    drop(kept);
    // A reader that was in the middle of a tensor gives it back when it is done.
    let patience = SystemTime::now() + Duration::from_secs(10);
    while prefetch.held_bytes() > 0 {
        assert!(SystemTime::now() < patience, "{} bytes are held", prefetch.held_bytes());
        std::thread::yield_now();
    }
    drop(prefetch);
}

#[test]
fn a_file_cut_short_while_it_is_read_is_an_error() {
    let sizes = vec![50_000; 40];
    let (_folder, path, tensors) = checkpoint(&sizes);
    let prefetch = Prefetch::start(tensors.clone(), 100_000);
    assert_bytes(&prefetch.fetch(&tensors[0]).unwrap(), 0, 50_000);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(500_000).unwrap();
    let results: Vec<_> = tensors.iter().skip(1).map(|tensor| prefetch.fetch(tensor)).collect();
    let failed = results.iter().filter(|r| matches!(r, Err(WeightsError::Changed { .. }))).count();
    // What was ready before stays good; all else is refused.
    assert!(failed >= 30, "{failed}");
    for (i, result) in results.iter().enumerate() {
        if let Ok(bytes) = result {
            assert_bytes(bytes, i + 1, 50_000);
        }
    }
}
