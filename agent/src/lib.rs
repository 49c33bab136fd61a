//! The agent: measures one node and sends one report per interval.
//!
//! The modules are declared in the order in which data flows: a source reads values, a sample holds those of one
//! instant, a report is sent over the network. The binary (`main.rs`) connects them.

pub mod open_files;
pub mod retention;
pub mod rights;
pub mod state_file;
pub mod vendor;

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

pub mod gpu_time;
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
