//! How a snapshot is shown: as metrics, on the page, in a terminal, as JSON for scripts.
//!
//! A snapshot in, text out: nothing here waits, listens or knows Kubernetes' API. The modules stand in the order in which data flows.

pub mod version;

mod reasons;
pub mod resources;

pub mod exposition;
pub mod families;
pub mod metrics;

pub mod history;

pub mod explain;

pub mod api;
pub mod page;
