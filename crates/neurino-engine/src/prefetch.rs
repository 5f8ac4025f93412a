//! Brings the files of the next model into the system's memory while the present one still computes, so
//! that the switch costs the way to the device and not the disk's time.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use neurino_hardware::machine_memory;
use tokio_util::sync::CancellationToken;

use crate::api::ModelRef;

/// Bytes read between two looks at whether it is still wanted.
const PIECE_BYTES: usize = 8 << 20;
/// Folders below a model's.
const DEPTH_MAX: usize = 3;
/// Files that hold weights.
const WEIGHTS: [&str; 3] = ["safetensors", "gguf", "ckpt"];

/// Reads a model's files and throws what was read away; the system keeps it as long as nobody else wants
/// the memory. Returns the bytes read: none if they would take more than half of the memory that is
/// free. Blocks; ends soon after `cancel`. A file that cannot be read is left to the load, which says why.
pub fn prefetch(model: &ModelRef, cancel: &CancellationToken) -> u64 {
    read_within(&model.path, machine_memory().available_bytes / 2, cancel)
}

fn read_within(path: &Path, room_bytes: u64, cancel: &CancellationToken) -> u64 {
    let mut files = Vec::new();
    weights(path, DEPTH_MAX, &mut files);
    let sizes = files.iter().filter_map(|file| fs::metadata(file).ok());
    if sizes.map(|metadata| metadata.len()).sum::<u64>() > room_bytes {
        return 0;
    }
    let mut piece = vec![0; PIECE_BYTES];
    let mut read_bytes = 0;
    for mut file in files.into_iter().filter_map(|file| File::open(file).ok()) {
        while !cancel.is_cancelled() {
            match file.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => read_bytes += count as u64,
            }
        }
    }
    read_bytes
}

/// The files of weights at a path, in the order of their names.
fn weights(path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| WEIGHTS.contains(&ending)) {
            files.push(path.to_owned());
        }
        return;
    };
    if depth == 0 {
        return;
    }
    let mut entries: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        weights(&entry, depth - 1, files);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_if_there_is_room_and_somebody_waits() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        fs::write(folder.path().join("unet/weights.safetensors"), vec![1; 9 << 20]).unwrap();
        fs::write(folder.path().join("model.gguf"), vec![1; 1000]).unwrap();
        fs::write(folder.path().join("notes.txt"), vec![1; 1000]).unwrap();
        let wanted = CancellationToken::new();
        let all = (9 << 20) + 1000;
        assert_eq!(read_within(folder.path(), all, &wanted), all);
        assert_eq!(read_within(&folder.path().join("model.gguf"), all, &wanted), 1000);
        assert_eq!(read_within(folder.path(), all - 1, &wanted), 0);
        assert_eq!(read_within(&folder.path().join("nowhere"), all, &wanted), 0);
        wanted.cancel();
        assert_eq!(read_within(folder.path(), all, &wanted), 0);
    }
}
