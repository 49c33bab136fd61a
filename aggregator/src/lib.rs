//! mcad-aggregator, as a library for its own binary, tests and benchmarks.
//!
//! What figures are made of is the crate `mcad-accounting`'s, how they are shown `mcad-present`'s; this one waits, listens, reads and
//! writes. The modules stand in the order in which data flows: a body is received, the store keeps the last report of each node;
//! objects of the cluster are watched or read from a dump; a replica makes snapshots, the server hands out what is made of them.

pub mod clock;
mod seldom;

pub mod trust;

pub mod receive;
pub mod store;

pub mod dump;
pub mod watch;

pub mod list;

pub mod leader;
pub mod peer;

pub mod past;

pub mod self_metrics;

pub mod kubernetes;

pub mod replica;

pub mod live;
pub mod seed;

pub mod server;

pub mod args;
pub mod open_files;

#[cfg(test)]
mod reviewer;
