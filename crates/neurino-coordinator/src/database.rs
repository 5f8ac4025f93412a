//! Which database keeps the books: a file of this machine, or a PostgreSQL server.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::error::CoordinatorError;

/// Longest statement of whoever serves.
const STATEMENT_TIMEOUT: &str = "30s";

/// Where the books are. Shown, it never tells a password.
#[derive(Clone)]
pub enum Database {
    /// A SQLite file; created with its folder when missing. Pictures lie beside it.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(PostgresBooks),
}

/// A database of a PostgreSQL server, and the folder of the pictures.
#[derive(Clone)]
pub struct PostgresBooks(Arc<Inner>);

struct Inner {
    /// For whoever serves: no statement takes longer than half a minute.
    options: PgConnectOptions,
    /// For work that takes as long as it takes: migrations, and commands beside the coordinator.
    patient: PgConnectOptions,
    pictures: PathBuf,
}

impl Database {
    /// The books at a `postgres://user:password@host:port/name` address. Pictures are kept in a folder
    /// of this machine; coordinators that stand in for each other share it, and the payload key beside it.
    ///
    /// # Errors
    /// `DatabaseAddress`: the address makes no sense, or it leads off this machine without encryption
    /// to a server whose certificate and name are checked.
    pub fn at(address: &str, pictures: PathBuf) -> Result<Self, CoordinatorError> {
        let refused = CoordinatorError::DatabaseAddress;
        let scheme = address.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(refused("it must begin with `postgres://`"));
        }
        // The cause quotes the address, which holds the password.
        let options = PgConnectOptions::from_str(address)
            .map_err(|_| refused("`postgres://USER:PASSWORD@HOST:PORT/NAME` is expected"))?;
        if options.get_database().is_none() {
            return Err(refused("it names no database: `postgres://…/NAME` is expected"));
        }
        let options = match options.get_ssl_mode() {
            _ if stays_here(&options) => options,
            PgSslMode::Prefer
                if !address.contains("sslmode=") && !address.contains("ssl-mode=") =>
            {
                options.ssl_mode(PgSslMode::VerifyFull)
            }
            PgSslMode::VerifyFull => options,
            // Whoever stands in between could otherwise show any certificate and read the password.
            PgSslMode::Disable
            | PgSslMode::Allow
            | PgSslMode::Prefer
            | PgSslMode::Require
            | PgSslMode::VerifyCa => {
                return Err(refused(
                    "the server is another machine and the way there would not be encrypted to a \
                     server whose name is checked; leave `sslmode` out, or say `sslmode=verify-full`, \
                     with `sslrootcert=FILE` for a certificate of your own",
                ));
            }
        };
        let patient = options
            .application_name("neurino coordinator")
            .disable_statement_logging()
            // A writer that stands still in the middle must not keep another one from taking over.
            .options([
                ("idle_in_transaction_session_timeout", "5s"),
                ("client_min_messages", "warning"),
            ]);
        // And nobody who serves waits for ever.
        let options = patient.clone().options([("statement_timeout", STATEMENT_TIMEOUT)]);
        Ok(Self::Postgres(PostgresBooks(Arc::new(Inner { options, patient, pictures }))))
    }

    /// Where the payload key of the books lies, unless somewhere else is named: beside a file, or beside
    /// the folder of the pictures.
    pub fn payload_key(&self) -> PathBuf {
        match self {
            Self::Sqlite(path) => {
                let mut name = path.file_stem().unwrap_or_default().to_owned();
                name.push("-payload.key");
                path.with_file_name(name)
            }
            Self::Postgres(books) => books.pictures().with_file_name("payload.key"),
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl PostgresBooks {
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0.options
    }

    /// Options of a connection whose statements may take long.
    pub(crate) fn patient(&self) -> &PgConnectOptions {
        &self.0.patient
    }

    pub(crate) fn pictures(&self) -> &Path {
        &self.0.pictures
    }
}

/// Whether the way to the server does not leave this machine.
fn stays_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(books) => {
                let options = books.options();
                let name = options.get_database().unwrap_or_default();
                write!(f, "{name} of PostgreSQL at {}:{}", options.get_host(), options.get_port())
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn at(address: &str) -> Result<Database, CoordinatorError> {
        Database::at(address, PathBuf::from("pictures"))
    }

    #[test]
    fn off_this_machine_only_with_encryption() {
        for here in ["localhost", "127.0.0.1:5433", "[::1]"] {
            assert!(at(&format!("postgres://u:p@{here}/books")).is_ok(), "{here}");
        }
        let mode = |address: &str| match at(address).unwrap() {
            Database::Postgres(books) => books.options().get_ssl_mode(),
            Database::Sqlite(_) => panic!("a file"),
        };
        assert!(matches!(mode("postgres://u:p@db.example/books"), PgSslMode::VerifyFull));
        let asked = "postgres://u:p@db.example/books?sslmode=verify-full";
        assert!(matches!(mode(asked), PgSslMode::VerifyFull));
        for weak in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let refused = at(&format!("postgres://u:p@db.example/books?sslmode={weak}"));
            assert!(refused.unwrap_err().to_string().contains("verify-full"), "{weak}");
        }
    }

    #[test]
    fn only_whoever_serves_is_in_a_hurry() {
        let Ok(Database::Postgres(books)) = at("postgres://u:p@localhost/books") else {
            panic!("no server")
        };
        let options = |options: &PgConnectOptions| options.get_options().unwrap_or("").to_owned();
        assert!(options(books.options()).contains("statement_timeout=30s"));
        assert!(!options(books.patient()).contains("statement_timeout"));
        assert!(options(books.patient()).contains("idle_in_transaction_session_timeout=5s"));
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let books = at("postgres://anna:hunter2@localhost:5433/books").unwrap();
        assert_eq!(books.to_string(), "books of PostgreSQL at localhost:5433");
        assert!(!format!("{books:?} {books:#?}").contains("hunter2"));
        for broken in [
            "postgres://anna:hunter2@localhost:99999/books",
            "mysql://anna:hunter2@localhost/books",
            "postgres://anna:hunter2@localhost",
            "anna:hunter2",
            "postgres://anna:hunter2@local host/books?sslmode=nonsense",
        ] {
            let error = at(broken).expect_err(broken);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
