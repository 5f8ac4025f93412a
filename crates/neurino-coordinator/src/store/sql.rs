//! Statements with parameters `$1`, `$2`, and what runs them.

use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Arguments as _, Error, Row as _};

/// One open connection to the books.
pub(super) type Connection = SqliteConnection;

/// A statement and its parameters.
pub(super) struct Query {
    text: &'static str,
    values: Result<SqliteArguments, Error>,
}

/// Begins a statement.
pub(super) fn query(text: &'static str) -> Query {
    Query { text, values: Ok(SqliteArguments::default()) }
}

/// Where a statement is run.
pub(super) enum Place<'c> {
    Connection(&'c mut Connection),
    Readers(&'c SqlitePool),
}

impl<'c> From<&'c mut Connection> for Place<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

impl<'c> From<&'c SqlitePool> for Place<'c> {
    fn from(readers: &'c SqlitePool) -> Self {
        Self::Readers(readers)
    }
}

impl Query {
    /// Adds the next parameter.
    pub(super) fn bind<'q, T>(mut self, value: T) -> Self
    where
        T: sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite>,
    {
        self.values = self.values.and_then(|mut values| {
            values.add(value).map_err(Error::Encode)?;
            Ok(values)
        });
        self
    }

    /// Runs it and says how many rows it touched.
    pub(super) async fn execute(self, place: impl Into<Place<'_>>) -> Result<u64, Error> {
        let done = sqlx::query_with(self.text, self.values?);
        let done = match place.into() {
            Place::Connection(connection) => done.execute(connection).await?,
            Place::Readers(readers) => done.execute(readers).await?,
        };
        Ok(done.rows_affected())
    }

    /// All rows of the answer.
    pub(super) async fn fetch_all<T: FromRow>(
        self,
        place: impl Into<Place<'_>>,
    ) -> Result<Vec<T>, Error> {
        let asked = sqlx::query_with(self.text, self.values?);
        let rows = match place.into() {
            Place::Connection(connection) => asked.fetch_all(connection).await?,
            Place::Readers(readers) => asked.fetch_all(readers).await?,
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
}

/// What a column can be read as.
pub(super) trait Column: Sized {
    fn read(row: &SqliteRow, at: usize) -> Result<Self, Error>;
}

macro_rules! columns {
    ($($of:ty),*) => {$(
        impl Column for $of {
            fn read(row: &SqliteRow, at: usize) -> Result<Self, Error> {
                row.try_get(at)
            }
        }
    )*};
}

columns!(i64, String, Option<i64>, Option<String>);

/// What a row can be read as: its only column, or its columns in order.
pub(super) trait FromRow: Sized {
    fn from_row(row: SqliteRow) -> Result<Self, Error>;
}

impl<T: Column> FromRow for T {
    fn from_row(row: SqliteRow) -> Result<Self, Error> {
        T::read(&row, 0)
    }
}

macro_rules! tuples {
    ($(($($column:ident $at:literal),*))*) => {$(
        impl<$($column: Column),*> FromRow for ($($column,)*) {
            fn from_row(row: SqliteRow) -> Result<Self, Error> {
                Ok(($($column::read(&row, $at)?,)*))
            }
        }
    )*};
}

tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
