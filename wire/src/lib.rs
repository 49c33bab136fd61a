//! The formats of data that crosses a boundary, and nothing else: no behaviour, no effects, no metric names.
//!
//! - [`abi`]: what the eBPF programs write into maps and the agent reads;
//! - [`parts`]: the parts that the time of a device is split into;
//! - [`pod_resources`]: what kubelet reports about devices;
//! - [`report`]: what the agent sends and the aggregator stores; [`reading`] reads the same messages in place, without
//!   copies;
//! - [`state_transfer`]: what a replica that starts receives from another replica.
#![cfg_attr(not(feature = "report"), no_std)]

pub mod abi;
#[cfg(feature = "report")]
pub mod parts;
#[cfg(feature = "report")]
pub mod pod_resources;
#[cfg(feature = "report")]
mod schema;

#[cfg(feature = "report")]
pub mod report;

#[cfg(feature = "report")]
pub mod reading;
#[cfg(feature = "report")]
pub mod state_transfer;
