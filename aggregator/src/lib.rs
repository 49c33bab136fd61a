//! mcad-aggregator, as a library for its own binary, tests and benchmarks.
//!
//! The crate `mcad-accounting` computes the values and `mcad-present` presents them; this crate waits, listens, reads and
//! writes. The modules are in the order in which data flows: report bodies are received; objects of the cluster are
//! watched or read from a dump; the state of both is kept; a replica makes snapshots, and the server returns what is made of them.

pub mod clock;
mod seldom;

pub mod trust;

pub mod receive;

pub mod dump;
pub mod watch;

pub mod list;

pub mod leader;
pub mod peer;

pub mod transfer_state;

pub mod self_metrics;

pub mod known;

pub mod replica;

pub mod live;
pub mod state_transfer;

pub mod server;

pub mod args;
pub mod connection;
pub mod dumper;
pub mod input;
pub mod open_files;

pub mod verbs;

pub mod fit;
pub mod whatif;

pub mod plugin;

#[cfg(test)]
mod reviewer;
