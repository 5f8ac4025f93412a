//! The application as the window uses it: commands in, events out, over a scripted engine.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod alerts;
mod cards;
mod chat;
mod downloads;
mod earnings;
mod guard;
mod library;
mod life;
mod mining;
mod original;
mod power;
mod remote;
mod updates;
mod wallet;
mod world;
mod worth;
