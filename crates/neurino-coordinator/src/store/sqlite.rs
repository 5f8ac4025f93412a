//! The books in a SQLite file in WAL mode, one writer and a few readers. A lock beside the file keeps a
//! second process from routing from the same books.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::sql::{Connection, Readers};
use super::{KeyFile, Opened, READERS, check_coordinator, check_network, vault};
use crate::database::Database;
use crate::error::{CoordinatorError, StoreError};

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        // What is deleted is overwritten: keys of payloads above all.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

/// Opens or creates the books of a network and brings their schema up to date.
pub(super) async fn open(
    path: &Path,
    network: &str,
    coordinator: &str,
    key_file: &KeyFile,
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
    let key = vault::unlock(&mut connection, key_file).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(options(path).read_only(true))
        .await
        .map_err(StoreError::from)?;
    Ok(Opened { connection, readers: Readers::Sqlite(readers), held, key })
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

/// Makes the folder and the file (readable by their owner alone), and takes the
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;

    const OWNERS: &str = include_str!("../../migrations/0050_owners.sql");

    #[tokio::test]
    async fn records_of_single_machines_become_their_owners() {
        let mut books = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        sqlx::migrate!("./migrations").run_direct(None, &mut books, false).await.unwrap();
        let owner = |digit: char| format!("0x{}", digit.to_string().repeat(40));
        let [liar, honest, plain] = ['a', 'b', 'c'].map(owner);
        let (good, bad) = (r#"{"held":3,"convicted":false}"#, r#"{"held":0,"convicted":true}"#);
        for (node, record) in [
            (format!("{liar}-1"), bad),
            (liar.clone(), good),
            (format!("{honest}-1"), good),
            (format!("{honest}-2"), good),
            (plain.clone(), bad),
        ] {
            let row = sqlx::query("INSERT INTO trust (node, record) VALUES ($1, $2)");
            row.bind(node).bind(record).execute(&mut books).await.unwrap();
        }
        for (node, granted) in [
            (format!("{liar}-1"), None),
            (format!("{liar}-2"), None),
            (format!("{honest}-1"), Some(true)),
            (plain.clone(), None),
        ] {
            let row = sqlx::query(
                "INSERT INTO conviction (node, at_ms, since_ms, evidence, granted) \
                 VALUES ($1, 0, 0, '{}', $2)",
            );
            row.bind(node).bind(granted).execute(&mut books).await.unwrap();
        }
        // What a second run would do is nothing.
        for _ in 0..2 {
            sqlx::raw_sql(OWNERS).execute(&mut books).await.unwrap();
        }
        let trust = sqlx::query_as("SELECT node, record FROM trust ORDER BY node");
        let trust: Vec<(String, String)> = trust.fetch_all(&mut books).await.unwrap();
        let expected = [(&liar, bad), (&honest, good), (&plain, bad)];
        assert_eq!(trust, expected.map(|(node, record)| (node.clone(), record.to_owned())));
        let convicted = sqlx::query_scalar("SELECT node FROM conviction ORDER BY id");
        let convicted: Vec<String> = convicted.fetch_all(&mut books).await.unwrap();
        assert_eq!(convicted, [liar.clone(), format!("{liar}-2"), honest, plain]);
    }

    #[tokio::test]
    async fn entries_of_former_versions_stay() {
        let mut books = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        let mut former = sqlx::migrate!("./migrations");
        former.migrations.to_mut().retain(|migration| migration.version < 110);
        former.run_direct(None, &mut books, false).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO job (id, payer, rule_set, state, no_node_wait_ms, created_at_ms) \
             VALUES ('1', 'p', 'r', 'queued', 0, 0), ('2', 'p', 'r', 'queued', 0, 0); \
             INSERT INTO attempt (lease, job, fence, node, state, granted_at_ms, deadline_ms) \
             VALUES ('a', '1', 1, 'n', 'paid', 0, 0), ('b', '2', 1, 'n', 'paid', 0, 0); \
             INSERT INTO receipt (lease, job, node, points, amount_micro, settled_at_ms, body) \
             VALUES ('a', '1', 'n', 'llama', 1, 1, ''), ('b', '2', 'n', 'llama', 1, 2, ''); \
             INSERT INTO epoch_file (epoch, made_at_ms, summary, body) VALUES (7, 1, '', '{}'); \
             INSERT INTO epoch_entry (lease, movement, epoch, place, organic_micro, line) \
             VALUES ('b', 'reward', 7, 0, 5, 'first'), ('a', 'clawback', 7, 1, 6, 'second')",
        )
        .execute(&mut books)
        .await
        .unwrap();
        sqlx::migrate!("./migrations").run_direct(None, &mut books, false).await.unwrap();
        let entries =
            "SELECT lease, movement, place, organic_micro, line FROM epoch_entry ORDER BY place";
        let entries: Vec<(String, String, i64, i64, String)> =
            sqlx::query_as(entries).fetch_all(&mut books).await.unwrap();
        let entry = |lease: &str, movement: &str, place, organic, line: &str| {
            (lease.to_owned(), movement.to_owned(), place, organic, line.to_owned())
        };
        let expected =
            [entry("b", "reward", 0, 5, "first"), entry("a", "clawback", 1, 6, "second")];
        assert_eq!(entries, expected);
    }
}
