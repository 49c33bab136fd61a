//! mcad-aggregator, as a library for its own binary, tests and benchmarks.
//!
//! The modules stand in the order in which data flows: a body is received, the store keeps the last report of each node,
//! a merge joins them into a snapshot, families are written from it, the server hands them out.

pub mod args;
pub mod clock;
pub mod exposition;
pub mod merge;
pub mod metrics;
pub mod page;
pub mod receive;
pub mod replica;
pub mod self_metrics;
pub mod server;
pub mod store;
