//! The books in a SQLite file in WAL mode, one writer and a few readers. A lock beside the file keeps a
//! second process from routing from the same books.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::sql::{Connection, Readers};
use super::{Opened, READERS, check_coordinator, check_network};
use crate::database::Database;
use crate::error::{CoordinatorError, StoreError};

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .disable_statement_logging()
}

/// Opens or creates the books of a network and brings their schema up to date.
pub(super) async fn open(
    path: &Path,
    network: &str,
    coordinator: &str,
) -> Result<Opened<File>, CoordinatorError> {
    let held = prepare(path)?;
    let mut connection = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(durability())
        .connect()
        .await
        .map_err(StoreError::from)?;
    let migrated = sqlx::migrate!("./migrations").run_direct(None, &mut connection, false).await;
    migrated.map_err(StoreError::from)?;
    let mut connection = Connection::Sqlite(connection);
    check_network(&mut connection, network).await?;
    check_coordinator(&mut connection, coordinator).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(options(path).read_only(true))
        .await
        .map_err(StoreError::from)?;
    Ok(Opened { connection, readers: Readers::Sqlite(readers), held })
}

/// Opens books that exist beside their coordinator. SQLite itself keeps two processes apart; waiting
/// covers the other one's commits.
pub(super) async fn beside(path: &Path) -> Result<Connection, StoreError> {
    let options = options(path).create_if_missing(false);
    let mut connection = options.synchronous(SqliteSynchronous::Full).connect().await?;
    sqlx::migrate!("./migrations").run_direct(None, &mut connection, false).await?;
    Ok(Connection::Sqlite(connection))
}

/// Unit tests drive thousands of books, none of which must survive a power cut.
fn durability() -> SqliteSynchronous {
    if cfg!(test) { SqliteSynchronous::Off } else { SqliteSynchronous::Full }
}

/// Makes the folder and the file (readable by their owner alone: they hold prompts), and takes the
/// lock.
fn prepare(path: &Path) -> Result<File, CoordinatorError> {
    let fault = |source| CoordinatorError::Folder { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    let private = |path: &Path| {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map_err(fault)
    };
    let mut lock_name = path.as_os_str().to_owned();
    lock_name.push(".lock");
    let lock = private(Path::new(&lock_name))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(CoordinatorError::InUse(Database::Sqlite(path.to_owned())));
        }
        Err(TryLockError::Error(source)) => return Err(fault(source)),
    }
    private(path)?;
    Ok(lock)
}
