//! The coordinator from outside: its HTTP edge by `oneshot`, nodes by scripted sessions.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod gateway;
mod jobs;
mod leases;
mod links;
mod node;
mod random;
mod restart;
mod world;
