//! Why a coordinator cannot be opened or served, and how its faults look from outside.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::blobs::{BlobError, BucketTrouble};
use crate::database::Database;
use crate::payload::PayloadKeyError;
use neurino_protocol::{ErrorBody, ErrorCode};

/// What keeps a coordinator from working.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The folder or lock file of the database cannot be used.
    #[error("the folder of the database {path} cannot be used; check that it is writable")]
    Folder {
        /// The database.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process holds the database.
    #[error("the database {0} is in use by another Neurino; close that one or choose another home")]
    InUse(Database),
    /// There is no database yet.
    #[error("there are no books at {0}; start the coordinator once")]
    NoBooks(Database),
    /// The address of a database cannot be used. It is not shown: it holds a password.
    #[error("the address of the database cannot be used: {0}")]
    DatabaseAddress(&'static str),
    /// The address of a bucket, or of its server, cannot be used.
    #[error("pictures cannot be kept there: {0}")]
    BlobsAddress(&'static str),
    /// A bucket cannot be used.
    #[error("pictures cannot be kept in {bucket}")]
    Bucket {
        /// The bucket, without secrets.
        bucket: String,
        /// Why, and the way out.
        #[source]
        trouble: BucketTrouble,
    },
    /// A name for a key is empty, overlong or unprintable.
    #[error("a key's name is 1 to 64 printable characters")]
    KeyName,
    /// A key's terms make no sense.
    #[error("such a key cannot be made: {0}")]
    KeyTerms(&'static str),
    /// There is no such key, or it is revoked.
    #[error("there is no key `{0}` that is not revoked; `keys list` shows their ids")]
    NoSuchKey(String),
    /// An appeal cannot be taken down or decided.
    #[error("{0}")]
    Appeal(&'static str),
    /// No identity key is bound there.
    #[error("nothing was unbound: {0}")]
    Binding(&'static str),
    /// Credits cannot be booked.
    #[error("the credits were not booked: {0}")]
    Deposit(&'static str),
    /// Earned credits cannot be paid out.
    #[error("nothing was paid out: {0}")]
    PayOut(String),
    /// The database belongs to another network.
    #[error("the database belongs to the network `{found}`, not `{asked}`; choose another file")]
    OtherNetwork {
        /// The network it was created for.
        found: String,
        /// The network it was opened for.
        asked: String,
    },
    /// The database belongs to another coordinator's key.
    #[error(
        "the database belongs to the coordinator {found}, and the key at hand is {asked}; put the \
         files `coordinator.key` and `install.secret` of {found} back from a backup, or choose another \
         database"
    )]
    OtherCoordinator {
        /// Address of the key that signed all there is.
        found: String,
        /// Address of the key it was opened with.
        asked: String,
    },
    /// The key of the payloads in the books is not at hand.
    #[error(transparent)]
    PayloadKey(#[from] PayloadKeyError),
    /// The database cannot be read or written.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// An epoch cannot be made or read.
    #[error("the epoch cannot be made")]
    Epoch(#[from] neurino_ledger::epoch::EpochError),
    /// Somebody else makes an epoch right now.
    #[error("another program is making this epoch right now; look again in a minute")]
    EpochUnderWay,
    /// The books changed while an epoch was made.
    #[error("the books changed while the epoch was made, and nothing was published; try again")]
    EpochMoved,
    /// Vouchers cannot be taken so.
    #[error("the vouchers were left as they are: {0}")]
    Voucher(&'static str),
    /// Holdings cannot be kept.
    #[error("the holdings were not kept: {0}")]
    Holdings(&'static str),
    /// The rule set is unknown or prices nothing.
    #[error("the rule set cannot be used")]
    Rules(#[from] neurino_core::PriceError),
    /// A listener that other machines can reach, without encryption.
    #[error(
        "{0} can be reached by other machines and nothing would be encrypted; name a certificate with \
         `--tls-cert` and `--tls-key`, or put a TLS proxy in front and say so with `--behind-proxy`, or \
         listen on 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// The listener broke.
    #[error("the listener cannot be used")]
    Listener(#[source] std::io::Error),
}

/// What went wrong with the books.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the database refused; check that it can be reached and that its disk is not full")]
    Sql(#[source] sqlx::Error),
    /// A file that is no database any more.
    #[error(
        "the books are damaged; stop everything that uses them, and put them back from a backup, with \
         the files beside them"
    )]
    Damaged(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database was written by a newer version, or is damaged")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A picture's file cannot be written or read.
    #[error("a picture cannot be written or read: {0}")]
    Picture(#[from] BlobError),
    /// There is nothing to read kept pictures with.
    #[error("pictures cannot be looked at: no process that reads them can be started")]
    PicturesUnread,
    /// The whole batch could not be committed.
    #[error("the write was not committed: {0}")]
    Commit(String),
    /// The database is away; nothing was written.
    #[error("the database cannot be reached")]
    Unavailable,
    /// The connection broke while a write was being committed; the books know whether it was.
    #[error("the connection to the database broke in the middle of a write")]
    Doubtful,
    /// Another coordinator has taken the books over; nothing was written.
    #[error("another coordinator has taken the books over")]
    Superseded,
    /// The writer has ended.
    #[error("the coordinator is shutting down")]
    Closed,
    /// A sealed value does not open.
    #[error(
        "the stored {what} was changed, or was sealed with another key; the database is damaged or \
         somebody wrote into it"
    )]
    Sealed {
        /// What it is.
        what: &'static str,
    },
    /// The payload key cannot step on.
    #[error("prompts and answers cannot be shredded")]
    PayloadKey(#[from] PayloadKeyError),
    /// A stored value does not parse.
    #[error(
        "the stored {what} cannot be read; the database is damaged or was written by a newer version"
    )]
    Unreadable {
        /// The column.
        what: &'static str,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        /// SQLite's primary codes of a file whose contents make no sense.
        const DAMAGED: [u32; 2] = [11, 26];
        let code = error.as_database_error().and_then(|error| {
            let error = error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
            sqlx::error::DatabaseError::code(error)?.parse::<u32>().ok()
        });
        // An extended code has the primary one in its last byte.
        let damaged = code.is_some_and(|code| DAMAGED.contains(&(code & 0xff)));
        if damaged { Self::Damaged(error) } else { Self::Sql(error) }
    }
}

impl StoreError {
    /// The error as a payer or node sees it; the chain goes to the log.
    pub(crate) fn body(&self) -> ErrorBody {
        match self {
            Self::Closed | Self::Superseded => return shutting_down(),
            Self::Unavailable | Self::Doubtful => return away(),
            Self::Picture(error) if error.passes() => {
                tracing::warn!(error = ?error, "pictures cannot be kept or read: {error}");
                let words = "the coordinator cannot reach its pictures";
                return ErrorBody::new(ErrorCode::Unreachable, words)
                    .with_hint("try again in a few seconds");
            }
            Self::Sql(error) if crate::store::is_gone(error) => return away(),
            _ => {}
        }
        tracing::error!(error = ?self, "the books cannot be used: {self}");
        ErrorBody::new(ErrorCode::Internal, "the coordinator cannot read or write its books")
            .with_hint("its log has the cause; a full disk is the usual one")
    }
}

/// The answer while the database is away.
fn away() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "the coordinator cannot reach its database")
        .with_hint("try again in a few seconds, under the same idempotency key if there is one")
}

/// The answer to everything asked while the coordinator stops.
pub(crate) fn shutting_down() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "the coordinator is shutting down")
        .with_hint("try again in a few seconds")
}
