//! Presents a snapshot: as metrics, on the page, in a terminal, as JSON for scripts.
//!
//! A snapshot in, text out: nothing here waits, listens or uses the Kubernetes API. The modules are in the order in which data flows.

pub mod version;

mod reasons;
pub mod resources;

pub mod exposition;
pub mod families;
pub mod metrics;

pub mod history;

pub mod explain;

pub mod tables;

pub mod api;
pub mod page;
