//! What a cluster has, requests, holds and lacks. Inputs are Kubernetes objects and agents' reports; the output is one snapshot.
//!
//! Nothing in this crate reads a clock or a file, waits, or writes a log: `Cargo.toml` has no dependency that could. The modules are listed
//! in data-flow order: names and amounts, objects, their sums, what agents found and measured, the ladder of each node, what fits, and the
//! snapshot of all of it.

pub mod node_name;
pub mod now;
mod steps;
pub mod table;

pub mod resource;

pub mod expression;

pub mod object;

pub mod options;

pub mod input;

pub mod cluster;

pub mod reported;

pub mod gpu_use;

pub mod hardware;

pub mod devices;

pub mod ladder;
pub mod measure;

pub mod totals;
pub mod views;

pub mod nodes;

pub mod queue;

pub mod snapshot;

pub mod fit;

pub mod merge;

pub mod change;
pub mod unread;

pub mod drain;
pub mod trial;
