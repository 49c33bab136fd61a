//! What a cluster has, asks for, holds and lacks, as values: objects of Kubernetes and reports of agents in, one snapshot out.
//!
//! Nothing here asks a clock, reads a file, waits or writes a log: `Cargo.toml` lacks what it would take. The modules stand in the order
//! in which data flows: names and amounts, objects, what they add up to, what agents found and measured, the ladder of each node, what
//! fits, and the snapshot of all of it.

pub mod node_name;
pub mod now;
mod steps;
pub mod table;

pub mod resource;

pub mod object;

pub mod options;

pub mod input;

pub mod cluster;

pub mod reported;

pub mod hardware;
pub mod ladder;
pub mod measure;

pub mod totals;
pub mod views;

pub mod snapshot;

pub mod fit;

pub mod merge;
