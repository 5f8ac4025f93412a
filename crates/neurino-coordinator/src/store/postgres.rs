//! The books in PostgreSQL. One coordinator at a time is their router: it holds the row of the table
//! `shard` under an epoch that rises with every owner, and renews it. Each of its transactions takes
//! that row first; a router whose epoch has passed touches no row there, and so writes nothing at all.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::Instant;
use uuid::Uuid;

use super::sql::{Connection, Readers, is_gone, query};
use super::{
    KeyFile, Opened, READERS, check_coordinator, check_network, coordinator_of, same_coordinator,
    vault,
};
use crate::database::{Database, PostgresBooks};
use crate::error::{CoordinatorError, StoreError};

/// How often a router that has nothing to write renews its ownership, which lasts six seconds.
pub(super) const RENEWAL: Duration = Duration::from_secs(2);
/// How often somebody who stands by looks.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest wait of a reader for one of the connections; while the server is away, all of them wait so.
const READER_WAIT: Duration = Duration::from_secs(2);
/// Waits between attempts to reach a server that is away: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The ownership of one opening of the books.
pub(super) struct Claim {
    owner: String,
    epoch: i64,
}

impl Claim {
    /// Takes the books if nobody holds them.
    async fn take(c: &mut Connection) -> Result<Option<Self>, sqlx::Error> {
        let owner = Uuid::new_v4().to_string();
        let epoch: Option<i64> = query(
            "UPDATE shard SET owner = $1, epoch = epoch + 1, \
             lease_until = clock_timestamp() + INTERVAL '6 seconds' \
             WHERE name = 'router' AND lease_until < clock_timestamp() RETURNING epoch",
        )
        .bind(&owner)
        .fetch_optional(c)
        .await?;
        Ok(epoch.map(|epoch| Self { owner, epoch }))
    }

    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Renews it, and keeps everybody else from writing until the transaction ends. Says whether it
    /// still holds: whoever took the books since then has another epoch.
    pub(super) async fn hold(&self, c: &mut Connection) -> Result<bool, sqlx::Error> {
        let touched = query(
            "UPDATE shard SET lease_until = clock_timestamp() + INTERVAL '6 seconds' \
             WHERE name = 'router' AND owner = $1 AND epoch = $2",
        )
        .bind(&self.owner)
        .bind(self.epoch)
        .execute(c)
        .await?;
        Ok(touched == 1)
    }

    /// Gives the books free at once.
    pub(super) async fn give_up(&self, c: &mut Connection) -> Result<(), sqlx::Error> {
        query(
            "UPDATE shard SET lease_until = '-infinity' \
             WHERE name = 'router' AND owner = $1 AND epoch = $2",
        )
        .bind(&self.owner)
        .bind(self.epoch)
        .execute(c)
        .await
        .map(drop)
    }
}

/// The way to a server that may go away and come back.
pub(super) struct Reach {
    options: PgConnectOptions,
    /// When the next attempt is due, and how long the one after it waits.
    next: Option<(Instant, Duration)>,
}

impl Reach {
    pub(super) fn new(books: &PostgresBooks) -> Self {
        Self { options: books.options().clone(), next: None }
    }

    /// Connects; at once `Unavailable` while it is too early for another attempt.
    pub(super) async fn connect(&mut self) -> Result<Connection, StoreError> {
        let now = Instant::now();
        let wait = match self.next {
            Some((due, _)) if now < due => return Err(StoreError::Unavailable),
            Some((_, wait)) => wait,
            None => BACKOFF.0,
        };
        match connect(&self.options).await {
            Ok(connection) => {
                if self.next.take().is_some() {
                    tracing::info!("the database is back");
                }
                Ok(connection)
            }
            Err(error) => {
                if self.next.is_none() {
                    tracing::error!(?error, "the database cannot be reached: {error}");
                }
                self.next = Some((Instant::now() + wait, (wait * 2).min(BACKOFF.1)));
                Err(StoreError::Unavailable)
            }
        }
    }
}

async fn connect(options: &PgConnectOptions) -> Result<Connection, sqlx::Error> {
    let connected = tokio::time::timeout(CONNECT_WAIT, Box::pin(options.connect())).await;
    let connected = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    Ok(Connection::Postgres(Box::new(connected)))
}

/// Opens the books of a network, made by the first opening, unless another coordinator holds them.
pub(super) async fn open(
    books: &PostgresBooks,
    network: &str,
    coordinator: &str,
    key_file: &KeyFile,
) -> Result<Opened<Claim>, CoordinatorError> {
    migrated(books).await?.close().await.map_err(StoreError::from)?;
    let mut connection = connect(books.options()).await.map_err(StoreError::from)?;
    check_network(&mut connection, network).await?;
    // Whoever could never take over is told so at once, and only whoever holds the books writes.
    if let Some(found) = coordinator_of(&mut connection).await? {
        same_coordinator(found, coordinator)?;
    }
    vault::check(&mut connection, key_file).await?;
    let held = Claim::take(&mut connection).await.map_err(StoreError::from)?;
    let Some(held) = held else {
        return Err(CoordinatorError::InUse(Database::Postgres(books.clone())));
    };
    let unlocked = async {
        check_coordinator(&mut connection, coordinator).await?;
        vault::unlock(&mut connection, key_file).await
    };
    let key = match unlocked.await {
        Ok(key) => key,
        Err(other) => {
            held.give_up(&mut connection).await.map_err(StoreError::from)?;
            return Err(other);
        }
    };
    tracing::info!(epoch = held.epoch, "holds the books under epoch {}", held.epoch);
    let readers = PgPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(READER_WAIT)
        .connect_lazy_with(books.options().clone());
    Ok(Opened { connection, readers: Readers::Postgres(readers), held, key })
}

/// Brings the schema up to date, however long that takes.
async fn migrated(books: &PostgresBooks) -> Result<Connection, StoreError> {
    let connected = tokio::time::timeout(CONNECT_WAIT, Box::pin(books.patient().connect())).await;
    let mut connection = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    let migrations = sqlx::migrate!("./migrations_postgres");
    Box::pin(migrations.run_direct(None, &mut connection, false)).await?;
    Ok(Connection::PostgresPatient(Box::new(connection)))
}

/// Opens books that exist beside their coordinator; `None` if there are none.
pub(super) async fn beside(books: &PostgresBooks) -> Result<Option<Connection>, StoreError> {
    let mut connection = connect(books.options()).await?;
    let made: bool =
        query("SELECT to_regclass('shard') IS NOT NULL").fetch_one(&mut connection).await?;
    drop(connection.close().await);
    if made { migrated(books).await.map(Some) } else { Ok(None) }
}

/// Waits until nobody holds the books, however long the server is away meanwhile. The payload key's file
/// follows that of whoever holds them.
pub(super) async fn until_free(books: &PostgresBooks, key: &Path) -> Result<(), StoreError> {
    let mut reach = Reach::new(books);
    let mut stepped = None;
    let mut open: Option<Connection> = None;
    loop {
        let connected = match open.take() {
            Some(connection) => Ok(connection),
            None => reach.connect().await,
        };
        let Ok(mut connection) = connected else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let free = query(
            "SELECT COUNT(*) FROM shard WHERE name = 'router' AND lease_until < clock_timestamp()",
        );
        match free.fetch_one::<i64>(&mut connection).await {
            Ok(0) => match vault::follow(&mut connection, key, &mut stepped).await {
                Err(StoreError::Sql(error)) if is_gone(&error) => {}
                followed => {
                    followed?;
                    open = Some(connection);
                }
            },
            Ok(_) => return Ok(()),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
}
