//! The application as the window uses it: commands in, events out, over a scripted engine.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod alerts;
mod cards;
mod catalogue;
mod chat;
mod door;
mod downloads;
mod earnings;
mod filter;
mod guard;
mod hotkey;
mod library;
mod life;
mod mining;
mod newer;
mod original;
mod own_model;
mod power;
mod remote;
mod scrub;
mod updates;
mod wallet;
mod world;
mod worth;
