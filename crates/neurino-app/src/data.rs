//! Where everything lies on this machine, how large it is, and the way to be rid of it.

mod remove;

use std::fs;
use std::path::Path;

use neurino_config::Dirs;
use neurino_protocol::data::{DataKind, DataPlace};

pub use remove::{Keep, Removal, Removed};

/// The folders that Neurino writes to, each with what it holds. `models` is where the library is now.
/// Reads the names and sizes of all files, which may take seconds.
pub fn data_places(dirs: &Dirs, models: &Path) -> Vec<DataPlace> {
    let folders = [
        (DataKind::Models, models),
        (DataKind::Records, &dirs.data),
        (DataKind::Outbox, &dirs.outbox),
        (DataKind::Settings, &dirs.config),
        (DataKind::Logs, &dirs.logs),
        (DataKind::Pictures, &dirs.pictures),
        (DataKind::Exports, &dirs.exports),
    ];
    let place = |(kind, folder): (DataKind, &Path)| {
        let others: Vec<&Path> = folders.iter().map(|(_, other)| *other).collect();
        DataPlace {
            kind,
            folder: folder.display().to_string(),
            size_bytes: bytes_of(folder, &others),
        }
    };
    folders.into_iter().map(place).collect()
}

/// Bytes of the files in a folder and below, without links and without `others`.
fn bytes_of(folder: &Path, others: &[&Path]) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(metadata) if metadata.is_dir() && !others.contains(&entry.path().as_path()) => {
            bytes_of(&entry.path(), others)
        }
        _ => 0,
    };
    entries.map(bytes).sum()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_counted_once_where_folders_lie_in_each_other() {
        let home = tempfile::tempdir().unwrap();
        let mut dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.models = dirs.data.join("models");
        dirs.logs = dirs.data.join("logs");
        let write = |path: &Path, bytes: usize| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        write(&dirs.data.join("receipts.jsonl"), 5);
        write(&dirs.data.join("practice/books"), 7);
        write(&dirs.models.join("m/weights"), 100);
        write(&dirs.logs.join("a.log"), 11);
        write(&dirs.outbox.join("practice/result"), 3);
        let places = data_places(&dirs, &dirs.models);
        let size = |kind| places.iter().find(|place| place.kind == kind).unwrap().size_bytes;
        assert_eq!(size(DataKind::Records), 12);
        assert_eq!((size(DataKind::Models), size(DataKind::Logs)), (100, 11));
        assert_eq!((size(DataKind::Outbox), size(DataKind::Pictures)), (3, 0));
        assert!(places.iter().all(|place| Path::new(&place.folder).is_absolute()));
    }
}
