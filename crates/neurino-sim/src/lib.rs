//! Load on a network: a real coordinator in a process of its own, virtual miners and clients with real
//! sockets in this one, over loopback.
//!
//! Nothing is computed: a virtual miner waits for as long as a job would take and signs an answer of a
//! few words. Everything else is what strangers' machines do: sessions, leases, signatures, receipts.
//! Reading order: [`runs`] (what is measured, and what passes), [`world`] (the coordinator and the
//! rest together), `child`, `miner`, `client`, [`pictures`] (what virtual painters hand in), `polls` (miners of the original protocol), `streams`
//! (answers that are read as they grow), [`report`].

pub mod certificate;
pub mod child;
mod client;
mod miner;
pub mod nats;
pub mod pictures;
mod polls;
#[cfg(unix)]
pub mod postgres;
pub mod report;
pub mod runs;
#[cfg(unix)]
pub mod s3;
mod streams;
pub mod world;
