//! Bytes that cross a boundary, and nothing else: no behaviour, no effects, no metric names.
//!
//! [`abi`] is what the kernel programs write and the agent maps; [`pod_resources`] is what kubelet says of devices; [`report`] is what the
//! agent sends and the aggregator stores, [`reading`] the same as it lies in its bytes; [`seed`] is what a replica that starts learns from
//! another.
#![cfg_attr(not(feature = "report"), no_std)]

pub mod abi;
#[cfg(feature = "report")]
pub mod pod_resources;
#[cfg(feature = "report")]
pub mod report;

#[cfg(feature = "report")]
pub mod reading;
#[cfg(feature = "report")]
pub mod seed;
