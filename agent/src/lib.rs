//! The agent: what one node really has and does, once per interval, as one report.
//!
//! The modules stand in the order the figures flow: a source reads, a sample is one instant, a report crosses the
//! network. The binary (`main.rs`) puts them together.

pub mod args;

pub mod cgroup_mount;
pub mod clock;
pub mod kernel;

pub mod btf;
pub mod kernel_types;

pub mod offsets;
pub mod probe;
pub mod run_queue;
pub mod source;

pub mod readers;
pub mod rights;
pub mod version;

pub mod sample;
pub mod sampler;

pub mod node_metrics;
pub mod pod_cgroup;
pub mod pod_totals;
pub mod report;
pub mod status;

pub mod self_metrics;
pub mod ticker;

pub mod sender;

pub mod admin;
