//! mcad-aggregator, as a library for its own binary, tests and benchmarks.

pub mod quantity;
pub mod resource;

pub mod object;

pub mod dump;

pub mod demand;

pub mod histogram;

pub mod cluster;

pub mod capacity;

pub mod hardware;

pub mod ladder;
