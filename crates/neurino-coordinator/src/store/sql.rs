//! Statements that both databases understand, and what runs them.
//!
//! Every statement is written once: parameters are `$1`, `$2`; sums are cast, because PostgreSQL widens
//! them; columns in `DO UPDATE` carry their table's name. What differs (how a transaction begins, who
//! holds the books) is in `sqlite` and `postgres`.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Arguments as _, Column as _, Connection as _, Error, Row as _, ValueRef as _};

/// Longest wait for the answer to one statement over a network. A server that is cut off answers
/// nothing at all; one that is merely slow gives up a little earlier by itself.
const ANSWER_WAIT: Duration = Duration::from_secs(35);

/// One open connection to the books.
pub(super) enum Connection {
    Sqlite(SqliteConnection),
    SqliteReader(PoolConnection<Sqlite>),
    Postgres(Box<PgConnection>),
    /// One whose statements may take long.
    PostgresPatient(Box<PgConnection>),
    PostgresReader(PoolConnection<Postgres>),
}

enum Link<'c> {
    Sqlite(&'c mut SqliteConnection),
    /// And how long to wait for an answer.
    Postgres(&'c mut PgConnection, Option<Duration>),
}

impl Connection {
    fn link(&mut self) -> Link<'_> {
        match self {
            Self::Sqlite(c) => Link::Sqlite(c),
            Self::SqliteReader(c) => Link::Sqlite(c),
            Self::Postgres(c) => Link::Postgres(c, Some(ANSWER_WAIT)),
            Self::PostgresPatient(c) => Link::Postgres(c, None),
            Self::PostgresReader(c) => Link::Postgres(c, Some(ANSWER_WAIT)),
        }
    }

    /// Runs a statement without parameters that changes the state of the connection.
    pub(super) async fn run(&mut self, text: &'static str) -> Result<(), Error> {
        query(text).execute(self).await.map(drop)
    }

    /// Begins a transaction that writes. Nobody else writes until it ends: SQLite locks the file, with
    /// PostgreSQL every writer takes the row of the router's ownership first.
    pub(super) async fn begin_writing(&mut self) -> Result<(), Error> {
        match self.link() {
            Link::Sqlite(_) => self.run("BEGIN IMMEDIATE").await,
            Link::Postgres(..) => {
                self.run("BEGIN").await?;
                self.run("SELECT epoch FROM shard WHERE name = 'router' FOR UPDATE").await
            }
        }
    }

    /// Begins a transaction that reads everything as it was at one moment.
    pub(super) async fn begin_view(&mut self) -> Result<(), Error> {
        match self.link() {
            Link::Sqlite(_) => self.run("BEGIN").await,
            Link::Postgres(..) => self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await,
        }
    }

    /// Says goodbye, so that nothing is left to be recovered.
    pub(super) async fn close(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(c) => c.close().await,
            Self::Postgres(c) | Self::PostgresPatient(c) => c.close().await,
            Self::SqliteReader(_) | Self::PostgresReader(_) => Ok(()),
        }
    }
}

/// Connections that read.
#[derive(Clone)]
pub(super) enum Readers {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Readers {
    /// Takes one for several statements.
    pub(super) async fn acquire(&self) -> Result<Connection, Error> {
        match self {
            Self::Sqlite(pool) => Box::pin(pool.acquire()).await.map(Connection::SqliteReader),
            Self::Postgres(pool) => Box::pin(pool.acquire()).await.map(Connection::PostgresReader),
        }
    }

    /// Takes one out for a transaction. It is closed with its last use, so that nobody meets a
    /// transaction whose reader went away in the middle.
    pub(super) async fn take(&self) -> Result<Connection, Error> {
        Ok(match self.acquire().await? {
            Connection::SqliteReader(c) => Connection::Sqlite(c.detach()),
            Connection::PostgresReader(c) => Connection::Postgres(Box::new(c.detach())),
            alone => alone,
        })
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Whether an error says that the server, or the way to it, is gone: nothing is wrong with the
/// statement.
pub(crate) fn is_gone(error: &Error) -> bool {
    match error {
        // Lost connection, no resources, ended by an operator or a crash, idle for too long.
        Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57P", "25P03"].iter().any(|class| code.starts_with(class))
        }),
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::WorkerCrashed => true,
        _ => false,
    }
}

/// A parameter.
enum Value {
    Whole(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Truth(Option<bool>),
}

/// What a parameter can be made of.
pub(super) trait Parameter {
    fn value(self) -> Bound;
}

/// A parameter that was made.
pub(super) struct Bound(Value);

macro_rules! parameters {
    ($($of:ty, $this:ident => $variant:ident($value:expr);)*) => {$(
        impl Parameter for $of {
            fn value(self) -> Bound {
                let $this = self;
                Bound(Value::$variant($value))
            }
        }
    )*};
}

parameters! {
    i64, n => Whole(Some(n));
    &i64, n => Whole(Some(*n));
    u32, n => Whole(Some(n.into()));
    &u32, n => Whole(Some((*n).into()));
    Option<i64>, n => Whole(n);
    Option<u32>, n => Whole(n.map(i64::from));
    bool, b => Truth(Some(b));
    &bool, b => Truth(Some(*b));
    &str, text => Text(Some(text.to_owned()));
    String, text => Text(Some(text));
    &String, text => Text(Some(text.clone()));
    Option<&str>, text => Text(text.map(str::to_owned));
    Option<String>, text => Text(text);
    Option<&String>, text => Text(text.cloned());
    &[u8], bytes => Bytes(Some(bytes.to_vec()));
    &Vec<u8>, bytes => Bytes(Some(bytes.clone()));
}

/// A statement and its parameters.
pub(super) struct Query {
    text: &'static str,
    values: Vec<Value>,
}

/// Begins a statement.
pub(super) fn query(text: &'static str) -> Query {
    Query { text, values: Vec::new() }
}

/// Where a statement is run.
pub(super) enum Place<'c> {
    Connection(&'c mut Connection),
    Readers(&'c Readers),
}

impl<'c> From<&'c mut Connection> for Place<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

impl<'c> From<&'c Readers> for Place<'c> {
    fn from(readers: &'c Readers) -> Self {
        Self::Readers(readers)
    }
}

impl Query {
    /// Adds the next parameter.
    pub(super) fn bind(mut self, value: impl Parameter) -> Self {
        self.values.push(value.value().0);
        self
    }

    /// Runs it and says how many rows it touched.
    pub(super) async fn execute(self, place: impl Into<Place<'_>>) -> Result<u64, Error> {
        let Self { text, values } = self;
        match place.into() {
            Place::Readers(readers) => {
                let mut connection = readers.acquire().await?;
                execute(text, values, connection.link()).await
            }
            Place::Connection(connection) => execute(text, values, connection.link()).await,
        }
    }

    /// All rows of the answer.
    pub(super) async fn fetch_all<T: FromRow>(
        self,
        place: impl Into<Place<'_>>,
    ) -> Result<Vec<T>, Error> {
        let Self { text, values } = self;
        let rows = match place.into() {
            Place::Readers(readers) => {
                let mut connection = readers.acquire().await?;
                rows(text, values, connection.link()).await?
            }
            Place::Connection(connection) => rows(text, values, connection.link()).await?,
        };
        rows.into_iter().map(T::from_row).collect()
    }

    /// The only row, or none.
    pub(super) async fn fetch_optional<T: FromRow>(
        self,
        place: impl Into<Place<'_>>,
    ) -> Result<Option<T>, Error> {
        Ok(self.fetch_all(place).await?.into_iter().next())
    }

    /// The only row.
    pub(super) async fn fetch_one<T: FromRow>(
        self,
        place: impl Into<Place<'_>>,
    ) -> Result<T, Error> {
        self.fetch_optional(place).await?.ok_or(Error::RowNotFound)
    }
}

async fn execute(text: &'static str, values: Vec<Value>, link: Link<'_>) -> Result<u64, Error> {
    match link {
        Link::Sqlite(c) => {
            let done = Box::pin(sqlx::query_with(text, of_sqlite(values)?).execute(c));
            Ok(done.await?.rows_affected())
        }
        Link::Postgres(c, wait) => {
            let done = Box::pin(sqlx::query_with(text, of_postgres(values)?).execute(c));
            Ok(answered(wait, done).await?.rows_affected())
        }
    }
}

async fn rows(text: &'static str, values: Vec<Value>, link: Link<'_>) -> Result<Vec<Row>, Error> {
    match link {
        Link::Sqlite(c) => {
            let rows = Box::pin(sqlx::query_with(text, of_sqlite(values)?).fetch_all(c));
            Ok(rows.await?.into_iter().map(Row::Sqlite).collect())
        }
        Link::Postgres(c, wait) => {
            let rows = Box::pin(sqlx::query_with(text, of_postgres(values)?).fetch_all(c));
            Ok(answered(wait, rows).await?.into_iter().map(Row::Postgres).collect())
        }
    }
}

async fn answered<T>(
    wait: Option<Duration>,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(wait) = wait else { return answer.await };
    tokio::time::timeout(wait, answer).await.unwrap_or_else(|_| {
        let words = "the database did not answer";
        Err(Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words)))
    })
}

macro_rules! arguments {
    ($name:ident, $arguments:ty) => {
        fn $name(values: Vec<Value>) -> Result<$arguments, Error> {
            let mut arguments = <$arguments>::default();
            for value in values {
                match value {
                    Value::Whole(n) => arguments.add(n),
                    Value::Text(text) => arguments.add(text),
                    Value::Bytes(bytes) => arguments.add(bytes),
                    Value::Truth(truth) => arguments.add(truth),
                }
                .map_err(Error::Encode)?;
            }
            Ok(arguments)
        }
    };
}

arguments!(of_sqlite, SqliteArguments);
arguments!(of_postgres, PgArguments);

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a named column.
    pub(super) fn try_get<T: Column>(&self, name: &str) -> Result<T, Error> {
        let at = match self {
            Self::Sqlite(row) => row.try_column(name)?.ordinal(),
            Self::Postgres(row) => row.try_column(name)?.ordinal(),
        };
        T::read(self, at)
    }

    /// A named column's text.
    pub(super) fn text(&self, name: &str) -> Result<&str, Error> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
        }
    }

    fn is_null(&self, at: usize) -> Result<bool, Error> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get_raw(at)?.is_null()),
            Self::Postgres(row) => Ok(row.try_get_raw(at)?.is_null()),
        }
    }
}

/// What a column can be read as.
pub(super) trait Column: Sized {
    fn read(row: &Row, at: usize) -> Result<Self, Error>;
}

macro_rules! columns {
    ($($of:ty),*) => {$(
        impl Column for $of {
            fn read(row: &Row, at: usize) -> Result<Self, Error> {
                match row {
                    Row::Sqlite(row) => row.try_get(at),
                    Row::Postgres(row) => row.try_get(at),
                }
            }
        }
    )*};
}

columns!(i64, bool, String, Vec<u8>);

impl Column for u32 {
    fn read(row: &Row, at: usize) -> Result<Self, Error> {
        Self::try_from(i64::read(row, at)?).map_err(|error| Error::Decode(error.into()))
    }
}

impl<T: Column> Column for Option<T> {
    fn read(row: &Row, at: usize) -> Result<Self, Error> {
        if row.is_null(at)? { Ok(None) } else { T::read(row, at).map(Some) }
    }
}

/// What a row can be read as: itself, its only column, or its columns in order.
pub(super) trait FromRow: Sized {
    fn from_row(row: Row) -> Result<Self, Error>;
}

impl FromRow for Row {
    fn from_row(row: Row) -> Result<Self, Error> {
        Ok(row)
    }
}

impl<T: Column> FromRow for T {
    fn from_row(row: Row) -> Result<Self, Error> {
        T::read(&row, 0)
    }
}

macro_rules! tuples {
    ($(($($column:ident $at:literal),*))*) => {$(
        impl<$($column: Column),*> FromRow for ($($column,)*) {
            fn from_row(row: Row) -> Result<Self, Error> {
                Ok(($($column::read(&row, $at)?,)*))
            }
        }
    )*};
}

tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
