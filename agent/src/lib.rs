//! The agent: what one node really has and does, once per interval, as one report.
//!
//! The modules stand in the order the figures flow: a source reads, a sample is one instant, a report crosses the
//! network. The binary (`main.rs`) puts them together.

pub mod driver_folders;
pub mod open_files;
pub mod rights;
pub mod state_file;

pub mod sandbox;

pub mod cgroup_mount;
pub mod pod_cgroup;

pub mod sample;

pub mod btf;
pub mod kernel_types;

pub mod clock;
pub mod kernel;

pub mod offsets;

pub mod probe;

pub mod run_queue;

pub mod source;

pub mod version;

pub mod pod_totals;

pub mod sampler;

pub mod node_metrics;
pub mod report;
pub mod status;

pub mod self_metrics;
pub mod ticker;

pub mod sender;

pub mod admin;

pub mod args;

pub mod readers;
