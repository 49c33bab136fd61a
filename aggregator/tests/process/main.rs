//! The program as a process, and those around it: agents, an API server, Prometheus, a browser. `cargo test -p mcad-aggregator --test
//! process NAME::`; what is missing on a machine is said.
mod browser;
mod devices;
mod documents;
mod examples;
mod field;
mod fit;
mod gpu_node;
mod input;
mod listed;
mod manifests;
mod monitoring;
mod outage;
mod peers;
mod plugin;
mod process;
mod queues;
mod replicas;
mod support;
mod trust;
mod watch;
