//! mcad-aggregator, as a library for its own binary, tests and benchmarks.
//!
//! The modules stand in the order in which data flows: a body is received, the store keeps the last report of each node;
//! objects of the cluster are decoded, the cluster adds them up; a merge joins both into a snapshot, families are written
//! from it, the server hands them out.

pub mod args;
pub mod clock;
pub mod open_files;
mod seldom;
pub mod version;

pub mod receive;
pub mod store;

pub mod trust;

pub mod accelerator;
pub mod options;
pub mod others;
pub mod quantity;
pub mod resource;
pub mod selector;
mod table;
pub mod tolerated;

pub mod object;

pub mod demand;
pub mod dump;

pub mod histogram;

pub mod cluster;
pub mod watch;

pub mod capacity;
pub mod hardware;
pub mod shares;

pub mod ladder;

pub mod measure;
pub mod totals;

pub mod room;
pub mod views;

pub mod fit;
pub mod snapshot;

pub mod merge;

pub mod exposition;

pub mod families;
pub mod metrics;

pub mod api;
pub mod explain;
pub mod history;
pub mod leader;
pub mod page;
pub mod peer;
pub mod replica;
pub mod seed;

pub mod list;
pub mod live;

pub mod self_metrics;
pub mod server;

#[cfg(test)]
mod fixtures;
