//! A PostgreSQL server that somebody else started, for tests.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// Names the server: `postgres://user:password@127.0.0.1:port`.
const SERVER: &str = "NEURINO_TEST_POSTGRES_URL";

/// The address of a database of its own in the named server; `None` if none is named.
pub(crate) async fn fresh() -> Option<String> {
    let server = std::env::var(SERVER).ok().filter(|server| !server.is_empty())?;
    let name = format!("t{:016x}", rand::random::<u64>());
    let mut connection = PgConnection::connect(&format!("{server}/postgres"))
        .await
        .expect("the server that was named is there");
    // Nothing in it survives the test; the server's own writing need not either.
    let make = format!("CREATE DATABASE {name} STRATEGY file_copy");
    connection.execute(AssertSqlSafe(make)).await.expect("a database is made");
    connection.close().await.expect("it is closed");
    Some(format!("{server}/{name}"))
}
