//! The coordinator from outside: its HTTP edge by `oneshot`, nodes by scripted sessions.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

/// Compares JSON with a snapshot; the order of an object's fields does not matter.
macro_rules! assert_snapshot {
    ($($arguments:tt)*) => {
        insta::with_settings!({ sort_maps => true }, {
            insta::assert_json_snapshot!($($arguments)*);
        })
    };
}

mod acts;
mod admin;
mod advice;
mod answers;
mod audits;
mod bucket;
mod conduct;
mod credits;
mod decoder;
mod epochs;
mod fabric;
mod files;
mod gateway;
mod hedge;
mod honeypots;
mod hostile;
mod images;
mod jobs;
mod leases;
mod links;
mod miners;
mod neighbours;
mod node;
mod openai;
mod original;
mod payloads;
mod pictures;
mod random;
mod ranks;
mod restart;
mod routing;
mod s3_server;
mod server;
mod stall;
mod translated;
mod units;
mod unmodified;
mod vouchers;
mod world;
